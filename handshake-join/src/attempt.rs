//! An attempt as one account has it, small enough that millions fit into memory.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use handshake_common::verdict::{Cause, Seat, Verdict};

/// Nanoseconds in a unit of the times after the first SYN.
const TICK_NS: u64 = 64;
/// A time after the first SYN that is not known.
const UNKNOWN: u32 = u32::MAX;

/// Address and port of an end; an IPv4 address as a mapped one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct End {
    address: [u8; 16],
    port: u16,
}

impl End {
    /// The end of this socket address.
    #[must_use]
    pub fn of(address: IpAddr, port: u16) -> Self {
        let mapped = match address {
            IpAddr::V4(v4) => v4.to_ipv6_mapped(),
            IpAddr::V6(v6) => v6,
        };
        Self { address: mapped.to_bits().to_be_bytes(), port }
    }

    /// Its address, as an end without a port.
    pub(crate) const fn host(self) -> Self {
        Self { port: 0, ..self }
    }

    /// Its address.
    #[must_use]
    pub fn address(self) -> IpAddr {
        Ipv6Addr::from(self.address).to_canonical()
    }

    /// Its port.
    #[must_use]
    pub const fn port(self) -> u16 {
        self.port
    }

    /// Both.
    #[must_use]
    pub fn socket(self) -> SocketAddr {
        SocketAddr::new(self.address(), self.port)
    }
}

/// How late in its attempt's life a line was written. A later one says more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stage {
    /// `"event":"half_open"`.
    HalfOpen,
    /// `"event":"ended"`.
    Ended,
    /// Of the tables at the end of a run.
    Last,
}

/// An attempt in one account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// The end that began it.
    pub initiator: End,
    /// The other end.
    pub responder: End,
    /// The first SYN, ns since the Unix epoch by the account's own clock.
    pub started_ns: u64,
    /// When it came to its verdict, or else when its line was written, likewise; 0 where that is not known.
    pub(crate) told_ns: u64,
    /// The initiator's initial sequence number, J.
    pub j: u32,
    /// The responder's, K, and the K of another SYN+ACK, where they are known.
    pub(crate) ks: [Option<u32>; 2],
    /// Times after the first SYN.
    pub(crate) syn_ack_after: u32,
    pub(crate) completed_after: u32,
    /// The hash of the interface that saw it first; 0 where that is not known.
    pub(crate) interface: u32,
    /// SYNs and SYN+ACKs that were seen; they stop at 255.
    pub syn: u8,
    /// See `syn`.
    pub syn_ack: u8,
    /// How it stands or ended; `None` for a verdict of a later version.
    pub verdict: Option<Verdict>,
    /// What it was missing.
    pub cause: Option<Cause>,
    /// From where it was seen.
    pub seat: Option<Seat>,
    pub(crate) stage: Stage,
    /// Whether a line says that it became half-open.
    pub(crate) was_half_open: bool,
}

impl Attempt {
    /// One of which nothing is known yet but its ends, its number and its time.
    #[must_use]
    pub(crate) const fn begun(ends: [End; 2], j: u32, started_ns: u64) -> Self {
        let [initiator, responder] = ends;
        Self {
            initiator,
            responder,
            started_ns,
            told_ns: 0,
            j,
            ks: [None; 2],
            syn_ack_after: UNKNOWN,
            completed_after: UNKNOWN,
            interface: 0,
            syn: 1,
            syn_ack: 0,
            verdict: None,
            cause: None,
            seat: None,
            stage: Stage::Last,
            was_half_open: false,
        }
    }

    /// With these times after the first SYN: of the SYN+ACK, and of the completing ACK.
    #[must_use]
    pub(crate) fn timed(self, syn_ack: Option<u64>, completed: Option<u64>) -> Self {
        let ticks = |ns: Option<u64>| {
            ns.and_then(|ns| u32::try_from(ns / TICK_NS).ok()).filter(|ticks| *ticks != UNKNOWN)
        };
        let [syn_ack_after, completed_after] = [syn_ack, completed].map(|ns| ticks(ns).unwrap_or(UNKNOWN));
        Self { syn_ack_after, completed_after, ..self }
    }

    /// From the first SYN to the time at which it came to its verdict, or at which it was known to be open.
    pub(crate) fn life_ns(&self) -> Option<u64> {
        (self.told_ns != 0).then(|| self.told_ns.saturating_sub(self.started_ns))
    }

    /// The responder's initial sequence number, K.
    #[must_use]
    pub const fn k(&self) -> Option<u32> {
        self.ks[0]
    }

    /// SYN → SYN+ACK, where it is known.
    #[must_use]
    pub fn syn_to_syn_ack_ns(&self) -> Option<u64> {
        after(self.syn_ack_after)
    }

    /// SYN → completing ACK, where it is known.
    #[must_use]
    pub fn connect_ns(&self) -> Option<u64> {
        after(self.completed_after)
    }

    /// Whether it was completed.
    #[must_use]
    pub fn is_completed(&self) -> bool {
        self.verdict == Some(Verdict::Completed)
    }

    /// Whether a SYN+ACK passed.
    #[must_use]
    pub const fn is_answered(&self) -> bool {
        self.ks[0].is_some() || self.syn_ack != 0
    }

    /// Whether its end is one that a segment or an error brought.
    #[must_use]
    pub const fn was_ended(&self) -> bool {
        matches!(
            self.verdict,
            Some(
                Verdict::Refused
                    | Verdict::Unreachable
                    | Verdict::InitiatorAborted
                    | Verdict::ResponderAborted
            )
        )
    }

    /// Whether a RST of the responder ended it.
    pub(crate) const fn is_reset_by_responder(&self) -> bool {
        matches!(self.verdict, Some(Verdict::Refused | Verdict::ResponderAborted))
    }

    /// Whether it is none: it was begun before the account, or its SYN was not seen, or has no record.
    pub(crate) const fn is_none(&self) -> bool {
        matches!(self.verdict, Some(Verdict::Midstream | Verdict::OrphanSynAck | Verdict::Untracked))
    }

    /// Whether it stayed open for so long that what it lacks did not come.
    #[must_use]
    pub const fn is_stuck(&self) -> bool {
        matches!(self.verdict, Some(Verdict::HalfOpen | Verdict::HalfOpenExpired | Verdict::Superseded))
    }

    /// Whether both have a K in common; `None` where one of them has none.
    pub(crate) fn shares_k(&self, other: &Self) -> Option<bool> {
        self.k()?;
        other.k()?;
        Some(self.ks.iter().flatten().any(|k| other.ks.iter().flatten().any(|other| k == other)))
    }

    /// Whether both have the same ends.
    #[must_use]
    pub fn has_ends_of(&self, other: &Self) -> bool {
        (self.initiator, self.responder) == (other.initiator, other.responder)
    }

    /// What a later line of the same attempt adds.
    pub(crate) fn update(&mut self, later: &Self) {
        let earlier = *self;
        if (later.stage, later.told_ns) >= (earlier.stage, earlier.told_ns) {
            *self = *later;
        }
        if self.is_stuck() {
            // It was open at both times.
            self.told_ns = earlier.told_ns.max(later.told_ns);
        }
        self.started_ns = earlier.started_ns.min(later.started_ns);
        self.was_half_open = earlier.was_half_open || later.was_half_open;
        if self.ks[0].is_none() {
            self.ks = if earlier.ks[0].is_some() { earlier.ks } else { later.ks };
        }
        self.seat = self.seat.or(earlier.seat).or(later.seat);
    }

    /// Whether its verdict says more of how the attempt ended.
    fn tells_more_than(&self, other: &Self) -> bool {
        let rank = |of: &Self| (of.is_completed(), of.was_ended(), of.verdict.is_some(), of.is_answered());
        rank(self) > rank(other)
    }

    /// What another hook of the same place saw of the same attempt: a router sees it before and after it
    /// translates. The first sighting has the ends.
    pub(crate) fn widen(&mut self, other: &Self) {
        if other.tells_more_than(self) {
            (self.verdict, self.cause) = (other.verdict, other.cause);
        }
        if self.ks[0].is_none() {
            self.ks = other.ks;
        }
        self.syn_ack = self.syn_ack.max(other.syn_ack);
        self.was_half_open |= other.was_half_open;
        self.seat = self.seat.or(other.seat);
    }
}

fn after(ticks: u32) -> Option<u64> {
    (ticks != UNKNOWN).then(|| u64::from(ticks) * TICK_NS)
}
