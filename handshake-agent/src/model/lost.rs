//! Segments that came into this host and did not leave it: on a router, where both sides are watched.

use std::fmt;

use handshake_common::record::Record;
use handshake_common::verdict::Cause;

use crate::model::context::{InterfaceHooks, LiveOrigin, Origin};
use crate::source::scan::{LostHere, LostPath};

/// Attempts that lost the same segment between the same interfaces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LostBetween {
    /// How many attempts.
    pub count: u64,
    /// The interface that the segment came in by.
    pub from: String,
    /// Of a SYN+ACK, the interface that its SYN came in by, where it ought to have left; `None` of a SYN, which
    /// may have left by a way that is not watched.
    pub to: Option<String>,
}

impl LostBetween {
    /// The most frequent. Only where an egress hook is watched it is known that nothing left there.
    pub(super) fn of(lost: &LostHere, origin: &Origin) -> Option<Self> {
        let named = lost.counts().into_iter().filter_map(|(path, count)| Self::named(path, count, origin));
        named.max_by(|one, other| {
            one.count.cmp(&other.count).then_with(|| (&other.from, &other.to).cmp(&(&one.from, &one.to)))
        })
    }

    /// What one half-open attempt has lost.
    pub(super) fn of_one(lost: &LostHere, record: &Record, origin: &Origin) -> Option<Self> {
        Self::named(lost.of(record)?, 1, origin)
    }

    fn named(path: LostPath, count: u64, origin: &Origin) -> Option<Self> {
        let Origin::Live(live) = origin else { return None };
        let name = |group: usize| live.groups.get(group).cloned().flatten();
        let leaves = |group: usize| name(group).filter(|name| has_egress(live, name));
        let is_watched = |from: usize| (0..live.groups.len()).any(|to| to != from && leaves(to).is_some());
        match path {
            LostPath::Syn(from) => {
                is_watched(from).then_some(())?;
                Some(Self { count, from: name(from)?, to: None })
            }
            LostPath::SynAck(from, to) => Some(Self { count, from: name(from)?, to: Some(leaves(to)?) }),
        }
    }

    /// What has become of the one segment of an attempt, and where to look.
    #[must_use]
    pub fn sentence(&self) -> String {
        let Self { from, to, .. } = self;
        match to {
            Some(to) => format!(
                "lost in this host: the SYN+ACK came in by {from} and did not leave by {to}. Look at: this host's \
                 firewall, its routes and rp_filter"
            ),
            None => format!(
                "lost in this host, or gone by a way that is not watched: the SYN came in by {from} and was seen at \
                 no other hook. Look at: this host's firewall, its routes and rp_filter, then the other interfaces"
            ),
        }
    }

    /// The cause of the attempts.
    #[must_use]
    pub const fn cause(&self) -> Cause {
        if self.to.is_some() { Cause::NoAck } else { Cause::NoSynAck }
    }
}

fn has_egress(live: &LiveOrigin, name: &str) -> bool {
    let is_it = |interface: &&InterfaceHooks| interface.name == name;
    live.interfaces.iter().find(is_it).is_some_and(|interface| interface.egress.is_some())
}

impl fmt::Display for LostBetween {
    /// `lost in this host: 81 SYN+ACKs came in by srv0 and did not leave by cli0`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { count, from, to } = self;
        match to {
            Some(to) => {
                write!(f, "lost in this host: {count} SYN+ACKs came in by {from} and did not leave by {to}")
            }
            None => write!(
                f,
                "lost in this host, or gone by a way that is not watched: {count} SYNs came in by {from} and were \
                 seen at no other hook"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use handshake_common::abi::{TcpRecord, tag};
    use handshake_common::interface::point;
    use handshake_common::record::{Detail, State};

    use super::*;
    use crate::fake::{Fake, SECOND, tcp};
    use crate::source::Source as _;
    use crate::source::scan::Scan;

    const CLI: u8 = 0;
    const SRV: u8 = 1;

    /// Two interfaces in groups of their own.
    fn router(egress: bool) -> Origin {
        let interface = |name: &&str| InterfaceHooks {
            name: (*name).to_owned(),
            egress: egress.then(|| "tcx".to_owned()),
            ..InterfaceHooks::default()
        };
        let names = ["cli0", "srv0"];
        let groups = names.map(|name| Some(name.to_owned())).into();
        Origin::Live(LiveOrigin { interfaces: names.iter().map(interface).collect(), groups, gone: 0 })
    }

    /// What is lost of half-open attempts by state, J, hook points of initiator and responder, and flags.
    fn lost(attempts: &[(State, u32, u8, u8, u32)], origin: &Origin) -> Option<String> {
        let mut fake = Fake::new();
        for (state, isn_initiator, initiator, responder, flags) in attempts {
            let at = fake.open(0, *state, 5 * SECOND);
            let record = &mut fake.records[at];
            let points = responder << 4 | initiator;
            record.flags |= flags;
            record.detail = Detail::Tcp(TcpRecord { isn_initiator: *isn_initiator, points, ..tcp(record) });
        }
        let mut scan = Scan::at(fake.reading.now, fake.clocks(), Arc::default());
        fake.records.iter().for_each(|record| scan.add(record));
        LostBetween::of(scan.lost(), origin).map(|lost| lost.to_string())
    }

    #[test]
    fn what_came_in_and_did_not_leave_is_lost() {
        let unseen = handshake_common::abi::NO_POINT;
        let (from_client, from_server) = (point(CLI, false), point(SRV, false));
        let syn = |j, flags| (State::SynSent, j, from_client, unseen, flags);
        let gone = "lost in this host, or gone by a way that is not watched: 2 SYNs came in by cli0 and were seen at no \
                    other hook";
        assert_eq!(lost(&[syn(1, 0), syn(2, 0)], &router(true)).as_deref(), Some(gone));
        assert_eq!(lost(&[syn(1, tag::PASSED_ON)], &router(true)), None, "it has left");
        let syn_ack = |j| (State::SynReceived, j, from_client, from_server, 0);
        let returned = "lost in this host: 1 SYN+ACKs came in by srv0 and did not leave by cli0";
        assert_eq!(lost(&[syn_ack(1)], &router(true)).as_deref(), Some(returned));
        let same = (State::SynReceived, 1, from_client, from_client, 0);
        assert_eq!(lost(&[same], &router(true)), None, "a mirror port");
    }

    /// Where nothing is watched that leaves, or the SYN has left under another address, nothing is known.
    #[test]
    fn what_may_have_left_is_not_lost() {
        let unseen = handshake_common::abi::NO_POINT;
        let syn = (State::SynSent, 7, point(CLI, false), unseen, 0);
        assert_eq!(lost(&[syn], &router(false)), None, "ingress hooks alone");
        let translated = (State::SynSent, 7, point(SRV, true), unseen, 0);
        assert_eq!(lost(&[syn, translated], &router(true)), None, "masquerade");
        let other = (State::SynSent, 8, point(SRV, true), unseen, 0);
        assert!(lost(&[syn, other], &router(true)).is_some(), "another attempt");
    }
}
