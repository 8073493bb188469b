//! A flow's record as a value: its state, its place in the books, its age, its verdict.
//! Kernel, snapshot and replay ask the same questions here.

use crate::abi::{Counter, TICK_SHIFT, TcpRecord, UdpRecord, tag};
use crate::flow::{Family, FlowKey, Side};
use crate::verdict::{Cause, UdpVerdict, Verdict};

/// How a record stands. The TCP names are RFC 9293 §3.3.2's where it has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum State {
    /// A free slot.
    Empty = 0,
    /// A SYN, and no valid SYN+ACK yet.
    SynSent,
    /// A valid SYN+ACK, and no valid ACK yet.
    SynReceived,
    /// The handshake is proven.
    Established,
    /// It was, and a FIN or RST came since.
    Closed,
    /// Provisional: the responder's RST acknowledged J+1.
    Refused,
    /// Provisional: an ICMP error quoted the SYN.
    Unreachable,
    /// Provisional: the initiator's RST.
    InitiatorAborted,
    /// Provisional: the responder's RST after its SYN+ACK.
    ResponderAborted,
    /// No SYN was seen.
    Midstream,
    /// A SYN+ACK whose SYN was not seen.
    OrphanSynAck,
    /// UDP, nothing came back.
    UdpWaiting,
    /// UDP, a packet came back.
    UdpAnswered,
    /// UDP, ICMP says that nobody listens.
    UdpUnreachable,
    /// UDP to a group.
    UdpMulticast,
}

impl State {
    /// In the order of their numbers.
    pub const ALL: [Self; 15] = [
        Self::Empty,
        Self::SynSent,
        Self::SynReceived,
        Self::Established,
        Self::Closed,
        Self::Refused,
        Self::Unreachable,
        Self::InitiatorAborted,
        Self::ResponderAborted,
        Self::Midstream,
        Self::OrphanSynAck,
        Self::UdpWaiting,
        Self::UdpAnswered,
        Self::UdpUnreachable,
        Self::UdpMulticast,
    ];

    /// The state with this number; a number that is none is a free slot's.
    #[inline(always)]
    #[must_use]
    pub const fn from_number(number: u8) -> Self {
        match number {
            1 => Self::SynSent,
            2 => Self::SynReceived,
            3 => Self::Established,
            4 => Self::Closed,
            5 => Self::Refused,
            6 => Self::Unreachable,
            7 => Self::InitiatorAborted,
            8 => Self::ResponderAborted,
            9 => Self::Midstream,
            10 => Self::OrphanSynAck,
            11 => Self::UdpWaiting,
            12 => Self::UdpAnswered,
            13 => Self::UdpUnreachable,
            14 => Self::UdpMulticast,
            _ => Self::Empty,
        }
    }

    /// An attempt that may still complete without being taken up again.
    #[inline(always)]
    #[must_use]
    pub const fn is_open(self) -> bool {
        matches!(self, Self::SynSent | Self::SynReceived)
    }

    /// A UDP flow's state.
    #[inline(always)]
    #[must_use]
    pub const fn is_udp(self) -> bool {
        matches!(self, Self::UdpWaiting | Self::UdpAnswered | Self::UdpUnreachable | Self::UdpMulticast)
    }

    /// Refused, unreachable or aborted: an end that the wire may still take back.
    #[inline(always)]
    #[must_use]
    pub const fn is_provisional(self) -> bool {
        matches!(self, Self::Refused | Self::Unreachable | Self::InitiatorAborted | Self::ResponderAborted)
    }

    /// An attempt: it has a SYN, and a term in the identity.
    #[inline(always)]
    #[must_use]
    pub const fn is_attempt(self) -> bool {
        self.is_open() || self.is_provisional() || matches!(self, Self::Established | Self::Closed)
    }

    /// The gauge that counts records in this state.
    #[inline(always)]
    #[must_use]
    pub const fn gauge(self) -> Option<Counter> {
        Some(match self {
            Self::Empty => return None,
            Self::SynSent => Counter::OpenNoSynAck,
            Self::SynReceived => Counter::OpenNoAck,
            Self::Established | Self::Closed => Counter::Completed,
            Self::Refused => Counter::Refused,
            Self::Unreachable => Counter::Unreachable,
            Self::InitiatorAborted => Counter::InitiatorAborted,
            Self::ResponderAborted => Counter::ResponderAborted,
            Self::Midstream => Counter::Midstream,
            Self::OrphanSynAck => Counter::OrphanSynAck,
            Self::UdpWaiting => Counter::UdpWaiting,
            Self::UdpAnswered => Counter::UdpAnswered,
            Self::UdpUnreachable => Counter::UdpUnreachable,
            Self::UdpMulticast => Counter::UdpMulticast,
        })
    }

    /// Why an attempt in this state is open.
    #[inline(always)]
    #[must_use]
    pub const fn cause(self) -> Cause {
        if matches!(self, Self::SynReceived) { Cause::NoAck } else { Cause::NoSynAck }
    }
}

/// The time, on both of the records' clocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// CLOCK_MONOTONIC in the kernel, the capture's time in a replay.
    pub ns: u64,
    /// The kernel's jiffies, of which the low half is enough: serial comparison only.
    pub jiffies: u32,
}

/// From when on a record is half-open, expired or closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clocks {
    /// T1.
    pub half_open_after_ns: u64,
    /// T2.
    pub expire_after_ns: u64,
    /// Idle time of a UDP flow.
    pub udp_idle_jiffies: u32,
    /// Idle time after which a completed connection counts as closed.
    pub idle_after_jiffies: u32,
}

/// The time since `then`, in jiffies; time that runs backwards counts as no time.
#[inline(always)]
#[must_use]
pub const fn jiffies_since(now: u32, then: u32) -> u32 {
    let age = now.wrapping_sub(then);
    if age >= 1 << 31 { 0 } else { age }
}

impl TcpRecord {
    /// Time of the latest SYN, SYN+ACK or completing ACK.
    #[inline(always)]
    #[must_use]
    pub const fn latest_ns(&self) -> u64 {
        self.opened_ns.wrapping_add((self.latest_after as u64) << TICK_SHIFT)
    }

    /// Has an open attempt outlived T2?
    #[inline(always)]
    #[must_use]
    pub const fn expired(&self, now_ns: u64, clocks: &Clocks) -> bool {
        now_ns.saturating_sub(self.latest_ns()) > clocks.expire_after_ns
    }

    /// Copies of the SYN after the first, of either end.
    #[must_use]
    pub const fn syn_retransmits(&self, flags: u16) -> u8 {
        self.syn.saturating_sub(if flags & tag::SIMULTANEOUS != 0 { 2 } else { 1 })
    }
}

/// What a record says, by its protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detail {
    /// A TCP conversation.
    Tcp(TcpRecord),
    /// A UDP flow.
    Udp(UdpRecord),
}

/// A whole record, copied out of its slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// Which table it comes from.
    pub family: Family,
    /// Who talks to whom.
    pub key: FlowKey,
    /// How it stands.
    pub state: State,
    /// Bits of [`tag`].
    pub flags: u16,
    /// The row of the service table.
    pub service: u16,
    /// Jiffies of the latest packet.
    pub last_jiffies: u32,
    /// What is known of the flow.
    pub detail: Detail,
}

impl Record {
    /// Address and port of one side.
    #[must_use]
    pub const fn end(&self, side: Side) -> ([u32; 4], u16) {
        let initiator_high = self.flags & tag::INITIATOR_HIGH != 0;
        let high = initiator_high == matches!(side, Side::Initiator);
        #[expect(clippy::cast_possible_truncation, reason = "the lower half is the port of the high end")]
        if high {
            (self.key.high, self.key.ports as u16)
        } else {
            (self.key.low, (self.key.ports >> 16) as u16)
        }
    }

    /// Is it past its time? Open attempts and UDP flows only: the rest does not expire.
    #[must_use]
    pub const fn expired(&self, now: Now, clocks: &Clocks) -> bool {
        match &self.detail {
            Detail::Tcp(tcp) => self.state.is_open() && tcp.expired(now.ns, clocks),
            Detail::Udp(_) => jiffies_since(now.jiffies, self.last_jiffies) > clocks.udp_idle_jiffies,
        }
    }

    /// The time since its first packet, ns; time that runs backwards counts as no time.
    #[must_use]
    pub const fn age_ns(&self, now: Now) -> u64 {
        let opened = match &self.detail {
            Detail::Tcp(tcp) => tcp.opened_ns,
            Detail::Udp(udp) => udp.opened_ns,
        };
        now.ns.saturating_sub(opened)
    }

    /// How an attempt stands at `now`; `None` for UDP and free slots.
    #[must_use]
    pub const fn verdict(&self, now: Now, clocks: &Clocks) -> Option<Verdict> {
        Some(match self.state {
            State::SynSent | State::SynReceived => {
                if self.expired(now, clocks) {
                    Verdict::HalfOpenExpired
                } else if self.age_ns(now) >= clocks.half_open_after_ns {
                    Verdict::HalfOpen
                } else {
                    Verdict::Opening
                }
            }
            State::Established | State::Closed => Verdict::Completed,
            State::Refused => Verdict::Refused,
            State::Unreachable => Verdict::Unreachable,
            State::InitiatorAborted => Verdict::InitiatorAborted,
            State::ResponderAborted => Verdict::ResponderAborted,
            State::Midstream => Verdict::Midstream,
            State::OrphanSynAck => Verdict::OrphanSynAck,
            State::Empty
            | State::UdpWaiting
            | State::UdpAnswered
            | State::UdpUnreachable
            | State::UdpMulticast => return None,
        })
    }

    /// How a UDP flow stands at `now`; `None` for the rest.
    #[must_use]
    pub const fn udp_verdict(&self, now: Now, clocks: &Clocks) -> Option<UdpVerdict> {
        Some(match self.state {
            State::UdpWaiting => {
                if self.age_ns(now) >= clocks.half_open_after_ns {
                    UdpVerdict::Unanswered
                } else {
                    UdpVerdict::Pending
                }
            }
            State::UdpAnswered => UdpVerdict::Answered,
            State::UdpUnreachable => UdpVerdict::Unreachable,
            State::UdpMulticast => UdpVerdict::Multicast,
            State::Empty
            | State::SynSent
            | State::SynReceived
            | State::Established
            | State::Closed
            | State::Refused
            | State::Unreachable
            | State::InitiatorAborted
            | State::ResponderAborted
            | State::Midstream
            | State::OrphanSynAck => return None,
        })
    }
}
