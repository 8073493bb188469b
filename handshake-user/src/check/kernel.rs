//! The kernel's own counters of the same time, compared with the wire: `/proc/net/snmp` and
//! `/proc/net/netstat` of our network namespace.
//!
//! They cover a whole namespace instead of an interface, know no filter, and count what the namespace's own
//! TCP did: on a router they do not include forwarded traffic. The sentences about differences claim only
//! what is true in all of these cases.

mod address;

use std::fs::File;
use std::io::{Read as _, Seek as _};
use std::net::IpAddr;

use handshake_common::verdict::Verdict;

use crate::check::CheckError;
use crate::number::group;
pub(crate) use address::Addresses;
use handshake_agent::model::snapshot::{ServiceBooks, Snapshot};
use handshake_agent::source::opens::{KernelOpens, tcp_counters};

/// A counter of the kernel about handshakes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KernelCounter {
    /// Connections accepted by listeners.
    PassiveOpens,
    /// Connections begun by clients.
    ActiveOpens,
    /// Failed attempts of either kind.
    AttemptFails,
    /// Retransmitted SYNs and SYN+ACKs.
    SynRetrans,
    /// SYNs dropped and ACKs ignored because an accept queue was full.
    ListenOverflows,
    /// SYNs dropped and ACKs ignored by listeners for any reason.
    ListenDrops,
    /// SYNs dropped because a SYN queue was full.
    ReqQFullDrop,
    /// SYN cookies sent.
    SyncookiesSent,
    /// ACKs without a valid cookie.
    SyncookiesFailed,
}

impl KernelCounter {
    /// All counters, in the order of reports.
    pub(crate) const ALL: [Self; 9] = [
        Self::PassiveOpens,
        Self::ActiveOpens,
        Self::AttemptFails,
        Self::SynRetrans,
        Self::ListenOverflows,
        Self::ListenDrops,
        Self::ReqQFullDrop,
        Self::SyncookiesSent,
        Self::SyncookiesFailed,
    ];

    /// The name in `nstat` and `netstat -s`.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::PassiveOpens => "PassiveOpens",
            Self::ActiveOpens => "ActiveOpens",
            Self::AttemptFails => "AttemptFails",
            Self::SynRetrans => "TCPSynRetrans",
            Self::ListenOverflows => "ListenOverflows",
            Self::ListenDrops => "ListenDrops",
            Self::ReqQFullDrop => "TCPReqQFullDrop",
            Self::SyncookiesSent => "SyncookiesSent",
            Self::SyncookiesFailed => "SyncookiesFailed",
        }
    }

    /// The name in the JSON report.
    pub(crate) const fn field(self) -> &'static str {
        match self {
            Self::PassiveOpens => "passive_opens",
            Self::ActiveOpens => "active_opens",
            Self::AttemptFails => "attempt_fails",
            Self::SynRetrans => "tcp_syn_retrans",
            Self::ListenOverflows => "listen_overflows",
            Self::ListenDrops => "listen_drops",
            Self::ReqQFullDrop => "tcp_req_q_full_drop",
            Self::SyncookiesSent => "syncookies_sent",
            Self::SyncookiesFailed => "syncookies_failed",
        }
    }

    /// Whether a value other than 0 tells of trouble.
    pub(crate) const fn is_trouble(self) -> bool {
        self.sentence().is_some()
    }

    /// What a value other than 0 means, and where to look; `None` for counters of normal events.
    const fn sentence(self) -> Option<&'static str> {
        match self {
            Self::PassiveOpens | Self::ActiveOpens | Self::AttemptFails | Self::SynRetrans => None,
            Self::ListenOverflows => Some(
                "an accept queue was full; this counts dropped SYNs and ignored ACKs with their repetitions, not connections. Look at: ss -ltn, the backlog, net.core.somaxconn",
            ),
            Self::ListenDrops => Some(
                "listeners dropped SYNs and ACKs for reasons other than a full accept queue. Look at: the SYN queue, memory",
            ),
            Self::ReqQFullDrop => Some(
                "a SYN queue was full, and SYNs were dropped. Look at: net.ipv4.tcp_max_syn_backlog, net.ipv4.tcp_syncookies",
            ),
            Self::SyncookiesSent => Some(
                "a SYN queue was full; the ACK of a cookie that then finds no room is dropped without a trace. Look at: the backlog, a flood",
            ),
            Self::SyncookiesFailed => Some("ACKs without a valid SYN cookie. Look at: a flood of ACKs"),
        }
    }
}

/// The files of the counters, opened before this program gives up its privileges.
pub(crate) struct NetFiles([File; 2]);

impl NetFiles {
    /// Opens those of this thread's network namespace.
    ///
    /// # Errors
    ///
    /// [`CheckError::System`] if there are none.
    pub(crate) fn open() -> Result<Self, CheckError> {
        let open = |file: &str| {
            let path = format!("/proc/thread-self/net/{file}");
            File::open(&path).map_err(CheckError::system(format!("open {path}")))
        };
        Ok(Self([open("snmp")?, open("netstat")?]))
    }

    /// Reads the counters.
    ///
    /// # Errors
    ///
    /// [`CheckError::System`] if they cannot be read.
    pub(crate) fn read(&mut self) -> Result<NetCounters, CheckError> {
        let mut texts = Vec::new();
        for file in &mut self.0 {
            let mut text = String::new();
            let read = file.rewind().and_then(|()| file.read_to_string(&mut text));
            read.map_err(CheckError::system("read the kernel's counters"))?;
            texts.push(text);
        }
        Ok(NetCounters::parse(&texts))
    }
}

/// The values of the counters: since the namespace was created, or over some time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct NetCounters([u64; KernelCounter::ALL.len()]);

impl NetCounters {
    /// Takes the counters from the texts of such files. A counter that the kernel does not have is 0.
    pub(super) fn parse(texts: &[String]) -> Self {
        let mut counts = Self::default();
        for (name, value) in texts.iter().flat_map(|text| tcp_counters(text)) {
            if let Some(counter) = KernelCounter::ALL.into_iter().find(|counter| counter.name() == name) {
                counts.0[counter as usize] = value;
            }
        }
        counts
    }

    /// The increase since `earlier`.
    pub(crate) fn since(&self, earlier: &Self) -> Self {
        Self(std::array::from_fn(|i| self.0[i].wrapping_sub(earlier.0[i])))
    }

    /// One counter's value alone.
    #[cfg(test)]
    pub(crate) fn of_one(counter: KernelCounter, value: u64) -> Self {
        let mut counts = Self::default();
        counts.0[counter as usize] = value;
        counts
    }

    /// The value of one counter.
    pub(crate) fn of(&self, counter: KernelCounter) -> u64 {
        self.0[counter as usize]
    }
}

/// The kernel's counters and the wire's count of the same traffic. The two are not read at one moment, and
/// traffic may go on meanwhile: what the kernel lacks is told by the longer of its times, what the wire lacks by
/// the shorter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NetAccount {
    /// The increase of the kernel's counters from the command's start to the end of settling: in a time that
    /// covers that of the snapshots.
    pub(crate) counts: NetCounters,
    /// The increase in a time that the snapshots' covers.
    pub(crate) within: NetCounters,
    /// Handshakes that completed on the wire in the same time with a service at an address of the namespace;
    /// `None` if some service has no row of its own.
    pub(crate) completed: Option<u64>,
    /// Attempts that began on the wire in the same time, of any host.
    pub(crate) attempts: u64,
}

impl NetAccount {
    /// Compares the time between two snapshots that list every service by name with the counters of the longer
    /// and of the shorter time.
    pub(crate) fn between(
        [before, after]: [&Snapshot; 2],
        [counts, within]: [NetCounters; 2],
        own: &Addresses,
    ) -> Self {
        let completed = |snapshot| completed_at(snapshot, |address| own.has(address));
        let completed = completed(before).zip(completed(after)).map(|(b, a)| a.saturating_sub(b));
        let attempts = |snapshot: &Snapshot| snapshot.tcp.books.attempts;
        Self { counts, within, completed, attempts: attempts(after).saturating_sub(attempts(before)) }
    }

    /// Whether this host opened connections while no attempt was seen at the hooks.
    pub(crate) fn is_all_unseen(&self) -> bool {
        self.attempts == 0 && self.opened() != 0
    }

    /// Connections that this host opened at least.
    fn opened(&self) -> u64 {
        let [active, passive] = [KernelCounter::ActiveOpens, KernelCounter::PassiveOpens];
        KernelOpens { active: self.within.of(active), passive: self.within.of(passive) }.connections()
    }

    /// One sentence for each difference and each counter that has a meaning.
    pub(crate) fn words(&self) -> Vec<String> {
        let reported = KernelCounter::ALL.into_iter().filter(|counter| self.is_reported(*counter));
        let reported = reported.filter_map(|counter| {
            let count = group(self.counts.of(counter));
            Some(format!("{} {count}: {}", counter.name(), counter.sentence()?))
        });
        self.ignored().into_iter().chain(reported).chain(self.others().or_else(|| self.unseen())).collect()
    }

    /// Whether the counter has something to report. Drops that `ListenOverflows` has counted are not reported
    /// again.
    fn is_reported(&self, counter: KernelCounter) -> bool {
        let counted_before = match counter {
            KernelCounter::ListenDrops => self.counts.of(KernelCounter::ListenOverflows),
            KernelCounter::PassiveOpens
            | KernelCounter::ActiveOpens
            | KernelCounter::AttemptFails
            | KernelCounter::SynRetrans
            | KernelCounter::ListenOverflows
            | KernelCounter::ReqQFullDrop
            | KernelCounter::SyncookiesSent
            | KernelCounter::SyncookiesFailed => 0,
        };
        self.counts.of(counter) > counted_before
    }

    /// The sentence for handshakes that completed on the wire but were not accepted. The kernel's counters
    /// cover the longer time, so the difference was not accepted in it. If the kernel dropped nothing,
    /// something else may have accepted it.
    fn ignored(&self) -> Option<String> {
        let accepted = self.counts.of(KernelCounter::PassiveOpens);
        let completed = self.completed.filter(|completed| *completed > accepted)?;
        let missing = completed - accepted;
        let acks = if missing == 1 { "1 ACK was".to_owned() } else { format!("{missing} ACKs were") };
        let proofs = [KernelCounter::ListenDrops, KernelCounter::SyncookiesSent];
        let proven = proofs.into_iter().map(|counter| self.counts.of(counter)).sum::<u64>() >= missing;
        let otherwise =
            if proven { "" } else { ", or accepted elsewhere (deferred accept, address translation)" };
        Some(format!(
            "{} completed on the wire, {} accepted (PassiveOpens): {acks} ignored{otherwise}",
            group(completed),
            group(accepted)
        ))
    }

    /// The sentence for connections of this host that are in no attempt. A SYN that waits for its neighbour's
    /// link address is opened, and has not left.
    fn unseen(&self) -> Option<String> {
        let opened = self.opened();
        (opened > self.attempts).then(|| {
            format!(
                "{} opened by this host (ActiveOpens, PassiveOpens), {} attempts seen here: the others took another \
                 path, began before this run, have not left it, are filtered out, or passed while a hook was lost",
                group(opened),
                group(self.attempts)
            )
        })
    }

    /// The sentence for connections that were accepted but did not complete here.
    fn others(&self) -> Option<String> {
        let accepted = self.within.of(KernelCounter::PassiveOpens);
        let completed = self.completed.filter(|completed| *completed < accepted)?;
        Some(format!(
            "{} accepted (PassiveOpens), {} completed here: the others began before this run, took another path or are \
             filtered out",
            group(accepted),
            group(completed)
        ))
    }
}

/// The completed handshakes with services at our own addresses; `None` if some service has no row of its own.
fn completed_at(snapshot: &Snapshot, own: impl Fn(IpAddr) -> bool) -> Option<u64> {
    let mut sum = 0;
    for row in &snapshot.services {
        let ServiceBooks::Tcp(books) = &row.books else { continue };
        match row.service {
            Some(service) if own(service.ip()) => sum += books.verdict(Verdict::Completed),
            None if books.verdict(Verdict::Completed) != 0 => return None,
            Some(_) | None => {}
        }
    }
    Some(sum)
}
