//! The known outcome of the traffic: from the results of sockets and the frames sent, independent of
//! handshake's rules.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::AddAssign;
use std::time::Duration;

use super::scenario::TrafficTarget;

/// The known outcome of the traffic.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Truth {
    /// TCP attempts by outcome.
    pub(super) tcp: BTreeMap<KnownOutcome, u64>,
    /// Handshakes by the listener that they completed with.
    pub(super) services: BTreeMap<SocketAddr, u64>,
    /// Services that a flood is sent to.
    pub(super) flooded: Vec<SocketAddr>,
    /// UDP flows by outcome.
    pub(super) udp: BTreeMap<UdpOutcome, u64>,
    /// Datagrams in both directions.
    pub(super) datagrams: u64,
    /// Bytes of the datagrams' IP packets.
    pub(super) bytes: u64,
    /// SYNs not sent by a socket, which the kernel's counters do not include.
    pub(super) crafted: u64,
    /// Frames that a flood made; most of them may be lost before they reach a hook.
    pub(super) made: u64,
    /// CPU time for making and receiving them.
    pub(super) made_in: Duration,
    /// Attempts completed on the wire whose ACK the server ignored.
    pub(super) ignored_acks: u64,
    /// Whether the server's accept queue was full: its kernel counts each segment dropped for that.
    pub(super) overflows: bool,
    /// Bounds of the longest connect.
    pub(super) longest: Option<[Duration; 2]>,
}

/// The outcome of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum KnownOutcome {
    Completed,
    Refused,
    Unreachable,
    InitiatorAborted,
    NoSynAck,
    NoAck,
}

impl KnownOutcome {
    pub(super) const ALL: [Self; 6] = [
        Self::Completed,
        Self::Refused,
        Self::Unreachable,
        Self::InitiatorAborted,
        Self::NoSynAck,
        Self::NoAck,
    ];
}

/// The outcome of a UDP flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum UdpOutcome {
    Answered,
    Unanswered,
    Unreachable,
}

impl UdpOutcome {
    pub(super) const ALL: [Self; 3] = [Self::Answered, Self::Unanswered, Self::Unreachable];
}

impl Truth {
    /// Adds `count` attempts with this outcome.
    pub(super) fn add(&mut self, outcome: KnownOutcome, count: u64) {
        *self.tcp.entry(outcome).or_default() += count;
    }

    /// Adds `count` flows with this outcome.
    pub(super) fn add_udp(&mut self, outcome: UdpOutcome, count: u64) {
        *self.udp.entry(outcome).or_default() += count;
    }

    /// Adds `count` frames of a flood that reached the hook.
    pub(super) fn add_flood(&mut self, target: TrafficTarget, count: u64) {
        let outcome = match target {
            TrafficTarget::Deaf => KnownOutcome::NoSynAck,
            TrafficTarget::Listener => KnownOutcome::NoAck,
        };
        self.add(outcome, count);
        self.crafted += count;
    }

    pub(super) fn of(&self, outcome: KnownOutcome) -> u64 {
        self.tcp.get(&outcome).copied().unwrap_or_default()
    }

    pub(super) fn of_udp(&self, outcome: UdpOutcome) -> u64 {
        self.udp.get(&outcome).copied().unwrap_or_default()
    }

    /// The number of all attempts.
    pub(super) fn attempts(&self) -> u64 {
        self.tcp.values().sum()
    }
}

impl AddAssign for Truth {
    fn add_assign(&mut self, more: Self) {
        more.tcp.into_iter().for_each(|(outcome, count)| self.add(outcome, count));
        more.udp.into_iter().for_each(|(outcome, count)| self.add_udp(outcome, count));
        more.services.into_iter().for_each(|(at, count)| *self.services.entry(at).or_default() += count);
        self.flooded.extend(more.flooded);
        self.datagrams += more.datagrams;
        self.bytes += more.bytes;
        self.crafted += more.crafted;
        self.made += more.made;
        self.made_in += more.made_in;
        self.ignored_acks += more.ignored_acks;
        self.overflows |= more.overflows;
        self.longest = self.longest.or(more.longest);
    }
}
