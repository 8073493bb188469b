//! What was done, in numbers: by the results of the sockets and by the frames that were sent, never by handshake's rules.

use std::collections::BTreeMap;
use std::ops::AddAssign;
use std::time::Duration;

use super::scenario::Target;

/// What traffic comes to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Truth {
    /// TCP, by outcome.
    pub(super) tcp: BTreeMap<Outcome, u64>,
    /// UDP flows, by outcome.
    pub(super) udp: BTreeMap<UdpOutcome, u64>,
    /// Datagrams, both ways.
    pub(super) datagrams: u64,
    /// Bytes of their IP packets.
    pub(super) bytes: u64,
    /// SYNs that no socket sent: the kernel's counters know nothing of them.
    pub(super) crafted: u64,
    /// Frames that a flood made; most may be lost before they reach a hook.
    pub(super) made: u64,
    /// How long a CPU made them and took them in.
    pub(super) made_in: Duration,
    /// Completed on the wire, but the server did not take the ACK.
    pub(super) not_taken: u64,
    /// The server's accept queue was full: its kernel counts each segment that it drops for that.
    pub(super) overflows: bool,
    /// The longest connect lies between these.
    pub(super) longest: Option<[Duration; 2]>,
}

/// How an attempt ended, or where it stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Outcome {
    Completed,
    Refused,
    Unreachable,
    TakenBack,
    NoSynAck,
    NoAck,
}

impl Outcome {
    pub(super) const ALL: [Self; 6] =
        [Self::Completed, Self::Refused, Self::Unreachable, Self::TakenBack, Self::NoSynAck, Self::NoAck];
}

/// What became of a UDP flow.
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
    /// `count` attempts with this outcome.
    pub(super) fn add(&mut self, outcome: Outcome, count: u64) {
        *self.tcp.entry(outcome).or_default() += count;
    }

    /// `count` flows with this outcome.
    pub(super) fn add_udp(&mut self, outcome: UdpOutcome, count: u64) {
        *self.udp.entry(outcome).or_default() += count;
    }

    /// `count` frames of a flood that reached the hook.
    pub(super) fn add_flood(&mut self, target: Target, count: u64) {
        let outcome = match target {
            Target::Deaf => Outcome::NoSynAck,
            Target::Listener => Outcome::NoAck,
        };
        self.add(outcome, count);
        self.crafted += count;
    }

    pub(super) fn of(&self, outcome: Outcome) -> u64 {
        self.tcp.get(&outcome).copied().unwrap_or_default()
    }

    pub(super) fn of_udp(&self, outcome: UdpOutcome) -> u64 {
        self.udp.get(&outcome).copied().unwrap_or_default()
    }

    /// Attempts in all.
    pub(super) fn attempts(&self) -> u64 {
        self.tcp.values().sum()
    }
}

impl AddAssign for Truth {
    fn add_assign(&mut self, more: Self) {
        more.tcp.into_iter().for_each(|(outcome, count)| self.add(outcome, count));
        more.udp.into_iter().for_each(|(outcome, count)| self.add_udp(outcome, count));
        self.datagrams += more.datagrams;
        self.bytes += more.bytes;
        self.crafted += more.crafted;
        self.made += more.made;
        self.made_in += more.made_in;
        self.not_taken += more.not_taken;
        self.overflows |= more.overflows;
        self.longest = self.longest.or(more.longest);
    }
}
