//! A flow's record as a value: its state, its place in the books, its age, its verdict.
//! Kernel, snapshot and replay ask the same questions here.

use crate::abi::{Config, ControlGroups, Counter, Makers, TICK_SHIFT, TcpRecord, UdpRecord, tag};
use crate::flow::{Address, Family, FlowKey, Side};
use crate::low_half;
use crate::verdict::{Cause, Leg, Role, Row, TCP, UDP, UdpVerdict, Verdict, row_of};

listed! {
    /// How the record of a TCP conversation stands. The names are RFC 9293 §3.3.2's where it has one.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    #[repr(u8)]
    pub enum TcpState {
        /// A SYN, and no valid SYN+ACK yet.
        SynSent = 1,
        /// A valid SYN+ACK, and no valid ACK yet.
        SynReceived,
        /// No SYN+ACK passed here, and the initiator acknowledges one.
        AnswerUnseen,
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
    }
}

/// The number of the first state of UDP: behind the free slot's and those of TCP.
#[expect(clippy::cast_possible_truncation, reason = "there are at most 16 states, asserted below")]
const FIRST_UDP: u8 = TcpState::ALL.len() as u8 + 1;

listed! {
    /// How the record of a UDP flow stands.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    #[repr(u8)]
    pub enum UdpState {
        /// Nothing came back.
        Waiting = FIRST_UDP,
        /// A packet came back.
        Answered,
        /// An ICMP error says that nothing listens.
        Unreachable,
        /// Sent to a group.
        Multicast,
    }
}

listed! {
    /// How a record stands, of either protocol: the tag's byte. The rules of a protocol know its own states
    /// alone.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    #[repr(u8)]
    pub enum State {
        /// A free slot.
        Empty = 0,
        /// [`TcpState::SynSent`].
        SynSent = TcpState::SynSent as u8,
        /// [`TcpState::SynReceived`].
        SynReceived = TcpState::SynReceived as u8,
        /// [`TcpState::AnswerUnseen`].
        AnswerUnseen = TcpState::AnswerUnseen as u8,
        /// [`TcpState::Established`].
        Established = TcpState::Established as u8,
        /// [`TcpState::Closed`].
        Closed = TcpState::Closed as u8,
        /// [`TcpState::Refused`].
        Refused = TcpState::Refused as u8,
        /// [`TcpState::Unreachable`].
        Unreachable = TcpState::Unreachable as u8,
        /// [`TcpState::InitiatorAborted`].
        InitiatorAborted = TcpState::InitiatorAborted as u8,
        /// [`TcpState::ResponderAborted`].
        ResponderAborted = TcpState::ResponderAborted as u8,
        /// [`TcpState::Midstream`].
        Midstream = TcpState::Midstream as u8,
        /// [`TcpState::OrphanSynAck`].
        OrphanSynAck = TcpState::OrphanSynAck as u8,
        /// [`UdpState::Waiting`].
        UdpWaiting = UdpState::Waiting as u8,
        /// [`UdpState::Answered`].
        UdpAnswered = UdpState::Answered as u8,
        /// [`UdpState::Unreachable`].
        UdpUnreachable = UdpState::Unreachable as u8,
        /// [`UdpState::Multicast`].
        UdpMulticast = UdpState::Multicast as u8,
    }
}

/// The states of an end that the wire may still take back, as a pattern: of [`TcpState`] or of [`State`].
/// Rules that treat them alike name them so.
#[doc(hidden)]
#[macro_export]
macro_rules! provisional_states {
    ($states:ident) => {
        $crate::record::$states::Refused
            | $crate::record::$states::Unreachable
            | $crate::record::$states::InitiatorAborted
            | $crate::record::$states::ResponderAborted
    };
}
pub use provisional_states;

impl TcpState {
    /// The state with this number; a number that is none is taken for [`Midstream`](Self::Midstream). By one
    /// comparison, as [`State::from_number`].
    #[inline(always)]
    #[must_use]
    pub const fn from_number(number: u8) -> Self {
        const FIRST: u8 = TcpState::ALL[0] as u8;
        if number.wrapping_sub(FIRST) as usize >= Self::ALL.len() {
            return Self::Midstream;
        }
        // SAFETY: the numbers from the first on are the states' own, asserted below.
        unsafe { core::mem::transmute::<u8, Self>(number) }
    }

    /// The same among the states of both protocols.
    #[inline(always)]
    #[must_use]
    pub const fn state(self) -> State {
        // SAFETY: every number of these states is one of `State`'s, which is defined by them.
        unsafe { core::mem::transmute::<u8, State>(self as u8) }
    }
}

impl UdpState {
    /// The state with this number; a number that is none is taken for [`Waiting`](Self::Waiting).
    #[inline(always)]
    #[must_use]
    pub const fn from_number(number: u8) -> Self {
        const FIRST: u8 = UdpState::ALL[0] as u8;
        if number.wrapping_sub(FIRST) as usize >= Self::ALL.len() {
            return Self::Waiting;
        }
        // SAFETY: the numbers from the first on are the states' own, asserted below.
        unsafe { core::mem::transmute::<u8, Self>(number) }
    }

    /// The same among the states of both protocols.
    #[inline(always)]
    #[must_use]
    pub const fn state(self) -> State {
        // SAFETY: every number of these states is one of `State`'s, which is defined by them.
        unsafe { core::mem::transmute::<u8, State>(self as u8) }
    }
}

impl State {
    /// The open attempts' states, as bits.
    pub const OPEN: u32 = set(&[Self::SynSent, Self::SynReceived, Self::AnswerUnseen]);
    /// The UDP flows' states, as bits.
    pub const UDP: u32 =
        set(&[Self::UdpWaiting, Self::UdpAnswered, Self::UdpUnreachable, Self::UdpMulticast]);

    /// The TCP records' states, as bits.
    pub const TCP: u32 = ((1 << Self::ALL.len()) - 1) & !(Self::UDP | 1 << Self::Empty as u32);

    /// The name in the terminal and in the kernel side's lines: RFC 9293's where it has one.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::SynSent => "SYN-SENT",
            Self::SynReceived => "SYN-RECEIVED",
            Self::AnswerUnseen => "answer unseen",
            Self::Established => "ESTABLISHED",
            Self::Closed => "closed",
            Self::Empty | provisional_states!(State) | Self::Midstream | Self::OrphanSynAck => {
                match Verdict::of_gauge(self.gauge() as usize) {
                    Some(verdict) => verdict.name(),
                    None => "none",
                }
            }
            Self::UdpWaiting => "udp unanswered",
            Self::UdpAnswered => "udp answered",
            Self::UdpUnreachable => "udp unreachable",
            Self::UdpMulticast => "udp multicast",
        }
    }

    /// The state with this number; a number that is none is a free slot's. By one comparison: of a `match`
    /// over all numbers the verifier would follow every arm to the end of the packet's way.
    #[inline(always)]
    #[must_use]
    pub const fn from_number(number: u8) -> Self {
        if number as usize >= Self::ALL.len() {
            return Self::Empty;
        }
        // SAFETY: the numbers below this are the states' own, asserted below.
        unsafe { core::mem::transmute::<u8, Self>(number) }
    }

    #[inline(always)]
    const fn is_in(self, set: u32) -> bool {
        set >> self as u32 & 1 != 0
    }

    /// An attempt that may still complete without being taken up again.
    #[inline(always)]
    #[must_use]
    pub const fn is_open(self) -> bool {
        self.is_in(Self::OPEN)
    }

    /// A UDP flow's state.
    #[inline(always)]
    #[must_use]
    pub const fn is_udp(self) -> bool {
        self.is_in(Self::UDP)
    }

    /// Refused, unreachable or aborted: an end that the wire may still take back.
    #[inline(always)]
    #[must_use]
    pub const fn is_provisional(self) -> bool {
        const PROVISIONAL: u32 = {
            let (mut set, mut i) = (0, 0);
            while i < State::ALL.len() {
                set |= (matches!(State::ALL[i], provisional_states!(State)) as u32) << i;
                i += 1;
            }
            set
        };
        self.is_in(PROVISIONAL)
    }

    /// The handshake was proven, whatever came since.
    #[inline(always)]
    #[must_use]
    pub const fn is_completed(self) -> bool {
        const COMPLETED: u32 = set(&[State::Established, State::Closed]);
        self.is_in(COMPLETED)
    }

    /// An attempt: it has a SYN, and a term in the identity.
    #[inline(always)]
    #[must_use]
    pub const fn is_attempt(self) -> bool {
        self.is_open() || self.is_provisional() || self.is_completed()
    }

    /// The gauge that counts records in this state; [`Counter::End`], which counts none, for a free slot.
    #[must_use]
    pub const fn gauge(self) -> Counter {
        match self {
            Self::Empty => Counter::End,
            Self::SynSent => Counter::OpenNoSynAck,
            Self::SynReceived => Counter::OpenNoAck,
            Self::AnswerUnseen => Counter::OpenAnswerUnseen,
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
        }
    }

    /// The place of [`gauge`](Self::gauge) in the counter block, without a branch per state.
    #[inline(always)]
    #[must_use]
    pub const fn gauge_place(self) -> usize {
        const PLACES: [u64; 2] = pack(&{
            let (mut places, mut i) = ([0; 16], 0);
            while i < State::ALL.len() {
                places[i] = State::ALL[i].gauge() as u8;
                i += 1;
            }
            places
        });
        self.byte_of(PLACES)
    }

    /// The counter of entries into the verdict of records in this state, if attempts or flows leave it again.
    #[must_use]
    pub const fn entered(self) -> Option<Counter> {
        const TABLES: (&[Row<Verdict>], &[Row<UdpVerdict>]) = (&TCP, &UDP);
        let place = self.gauge() as usize;
        let entries = match (row_of(TABLES.0, place), row_of(TABLES.1, place)) {
            (Some(row), _) => row.entered,
            (None, Some(row)) => row.entered,
            (None, None) => None,
        };
        match entries {
            Some(entries) => Some(entries.counter),
            None => None,
        }
    }

    /// The place of [`entered`](Self::entered) in the counter block, without a branch per state; 0 for none.
    #[inline(always)]
    #[must_use]
    pub const fn entered_place(self) -> usize {
        const PLACES: [u64; 2] = pack(&{
            let (mut places, mut i) = ([0; 16], 0);
            while i < State::ALL.len() {
                if let Some(counter) = State::ALL[i].entered() {
                    places[i] = counter as u8;
                }
                i += 1;
            }
            places
        });
        self.byte_of(PLACES)
    }

    #[inline(always)]
    const fn byte_of(self, bytes: [u64; 2]) -> usize {
        let number = self as u32;
        let word = if number < 8 { bytes[0] } else { bytes[1] };
        (word >> ((number & 7) * 8) & 0xff) as usize
    }

    /// Why an attempt in this state is open.
    #[inline(always)]
    #[must_use]
    pub const fn cause(self) -> Cause {
        if matches!(self, Self::SynReceived) {
            Cause::NoAck
        } else if matches!(self, Self::AnswerUnseen) {
            Cause::AnswerUnseen
        } else {
            Cause::NoSynAck
        }
    }
}

const _: () = {
    assert!(State::ALL.len() <= 16, "a state is a nibble of the tables above and of `table::Worth`");
    assert!(Counter::End as usize == 0, "no state's entries are counted at the place 0");
    let mut i = 0;
    while i < State::ALL.len() {
        assert_state(State::ALL[i], i);
        i += 1;
    }
    let (mut tcp, mut udp) = (0, 0);
    while tcp < TcpState::ALL.len() {
        let number = TcpState::ALL[tcp] as u8;
        assert!(number as usize == 1 + tcp && TcpState::from_number(number) as u8 == number);
        tcp += 1;
    }
    while udp < UdpState::ALL.len() {
        let number = UdpState::ALL[udp] as u8;
        assert!(number as usize == 1 + tcp + udp && UdpState::from_number(number) as u8 == number);
        udp += 1;
    }
    assert!(1 + tcp + udp == State::ALL.len(), "a state is TCP's, UDP's or a free slot's");
};

const fn assert_state(state: State, place: usize) {
    const TABLES: (&[Row<Verdict>], &[Row<UdpVerdict>]) = (&TCP, &UDP);
    assert!(state as usize == place, "a state's number is its place");
    assert!(State::from_number(state as u8) as usize == place, "a state is read back as itself");
    let gauge = state.gauge() as usize;
    let (tcp, udp) = (row_of(TABLES.0, gauge), row_of(TABLES.1, gauge));
    if matches!(state, State::Empty) {
        assert!(tcp.is_none() && udp.is_none(), "a free slot has no verdict");
        return;
    }
    assert!(udp.is_some() == state.is_udp() && tcp.is_some() != state.is_udp(), "a verdict of its protocol");
    if let Some(row) = tcp {
        assert!(row.is_term() == state.is_attempt(), "attempts, and they alone, are terms of the identity");
        assert!(matches!(row.role, Role::ByAge) == state.is_open(), "age decides of open attempts");
        assert!(
            !state.is_provisional() || row.entered.is_some(),
            "what may be taken back counts its entries"
        );
    }
}

/// Bytes as two words: a question about a state is a shift.
const fn pack(bytes: &[u8; 16]) -> [u64; 2] {
    let (mut words, mut i) = ([0; 2], 0);
    while i < bytes.len() {
        words[i >> 3] |= (bytes[i] as u64) << ((i & 7) * 8);
        i += 1;
    }
    words
}

/// States as bits of one word: a question about a state is a shift, not a branch a state. The
/// verifier follows every branch, and the packet path asks often.
const fn set(states: &[State]) -> u32 {
    let mut set = 0;
    let mut i = 0;
    while i < states.len() {
        set |= 1 << states[i] as u32;
        i += 1;
    }
    set
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

impl Clocks {
    /// Those of the configuration.
    #[inline(always)]
    #[must_use]
    pub const fn of(config: &Config) -> Self {
        Self {
            half_open_after_ns: config.half_open_after_ns,
            expire_after_ns: config.expire_after_ns,
            udp_idle_jiffies: config.udp_idle_jiffies,
            idle_after_jiffies: config.idle_after_jiffies,
        }
    }
}

/// The time since `then`, in jiffies; time that runs backwards counts as no time.
#[inline(always)]
#[must_use]
pub const fn jiffies_since(now: u32, then: u32) -> u32 {
    let age = now.wrapping_sub(then);
    if age >= 1 << 31 { 0 } else { age }
}

/// How far an open attempt is by its age.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Younger than T1.
    Opening,
    /// Older.
    HalfOpen,
    /// Past T2.
    Expired,
}

impl Stage {
    /// The verdict of an attempt that is so far.
    #[must_use]
    pub const fn verdict(self) -> Verdict {
        match self {
            Self::Opening => Verdict::Opening,
            Self::HalfOpen => Verdict::HalfOpen,
            Self::Expired => Verdict::HalfOpenExpired,
        }
    }
}

impl TcpRecord {
    /// Time of the latest SYN or SYN+ACK of an open attempt, and of the end of one that ended.
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

    /// How far an open attempt is by its age at this time.
    #[inline(always)]
    #[must_use]
    pub const fn stage(&self, now_ns: u64, clocks: &Clocks) -> Stage {
        if self.expired(now_ns, clocks) {
            Stage::Expired
        } else if now_ns.saturating_sub(self.opened_ns) >= clocks.half_open_after_ns {
            Stage::HalfOpen
        } else {
            Stage::Opening
        }
    }

    /// Was a valid SYN+ACK seen?
    #[inline(always)]
    #[must_use]
    pub const fn is_answered(&self, flags: u32) -> bool {
        self.syn_ack_after != 0 || flags & tag::OTHER_K != 0
    }

    /// The time of a leg, in ticks of 64 ns; `None` where it is not known. It is in the leg's histogram
    /// exactly where it is known here, but for a first byte whose place a later SYN took.
    #[inline(always)]
    #[must_use]
    pub const fn leg(&self, state: TcpState, flags: u32, leg: Leg) -> Option<u32> {
        let is_completed = matches!(state, TcpState::Established | TcpState::Closed);
        let (known, ticks) = match leg {
            Leg::SynToSynAck => (flags & tag::SYN_ACK_TIMED != 0, self.syn_ack_after),
            Leg::SynAckToAck => (
                is_completed && flags & tag::ACK_TIMED != 0,
                self.latest_after.wrapping_sub(self.syn_ack_after),
            ),
            Leg::Connect => return connect_ticks(state, flags, self.latest_after),
            Leg::AckToFirstByte => {
                let kind = flags & (tag::OTHER_J | tag::AWAITS);
                (is_completed && kind == tag::EARLY_ACK, self.other_ack)
            }
        };
        if known && self.latest_after != 0 { Some(ticks) } else { None }
    }

    /// The initiator's latest data, as a connection that [waits](tag::AWAITS) keeps it.
    #[inline(always)]
    #[must_use]
    pub(crate) const fn request_mark(&self, now_ns: u64) -> u32 {
        let after = now_ns.saturating_sub(self.opened_ns) >> REQUEST_SHIFT;
        if after > u32::MAX as u64 { u32::MAX } else { low_half(after) }
    }

    /// Has the initiator sent data that the responder acknowledged, and the responder sent no byte in more
    /// than `after_ns` since the latest of it? Asked of an established connection.
    #[inline(always)]
    #[must_use]
    pub const fn is_silent(&self, flags: u32, now_ns: u64, after_ns: u64) -> bool {
        // The mark is rounded down; so is what is said to have passed since.
        let asked = self.opened_ns.wrapping_add((self.other_ack as u64 + 1) << REQUEST_SHIFT);
        flags & SILENT == SILENT && now_ns.saturating_sub(asked) > after_ns
    }

    /// Copies of the SYN after the first, of either end.
    #[must_use]
    pub const fn syn_retransmits(&self, flags: u32) -> u8 {
        self.syn.saturating_sub(if flags & tag::RESPONDER_SYN != 0 { 2 } else { 1 })
    }
}

/// The time to connect of a record that stands so, in ticks; `None` where it is not known.
#[inline(always)]
#[must_use]
pub const fn connect_ticks(state: TcpState, flags: u32, latest_after: u32) -> Option<u32> {
    let is_completed = matches!(state, TcpState::Established | TcpState::Closed);
    let known = is_completed && flags & tag::UNTIMED == 0 && latest_after != u32::MAX;
    if known && latest_after != 0 { Some(latest_after) } else { None }
}

/// A unit of the time of the initiator's latest data is 2²⁰ ns (1.05 ms): 52 days fit.
const REQUEST_SHIFT: u32 = 20;

/// The flags of a connection that waits for the answer to data that the responder acknowledged.
pub const SILENT: u32 = tag::AWAITS | tag::EARLY_ACK | tag::INITIATOR_ACKED;

impl Cause {
    /// The flags that [`beside`](Self::beside) asks for.
    pub const BESIDE: [u32; 4] = [tag::BAD_SYN_ACK, tag::BAD_ACK, tag::REVISED, tag::RESET];

    /// What the signs of an attempt say beside its cause, to be added to the sentence: flags of
    /// [`tag`].
    #[must_use]
    pub const fn beside(self, flags: u32) -> Option<&'static str> {
        match self {
            Cause::NoSynAck if flags & tag::BAD_SYN_ACK != 0 => {
                Some("; a SYN+ACK came that acknowledges another number")
            }
            Cause::NoSynAck if flags & tag::RESET != 0 && flags & tag::REVISED != 0 => {
                Some("; a RST ended it, and it was tried again")
            }
            Cause::NoSynAck if flags & tag::RESET != 0 => {
                Some("; a RST came that does not acknowledge the SYN")
            }
            Cause::NoSynAck if flags & tag::REVISED != 0 => {
                Some("; an ICMP error or another SYN came, and it was tried again")
            }
            Cause::NoAck if flags & tag::BAD_ACK != 0 => {
                Some("; the connection continues: its ACK was probably lost before this hook")
            }
            Cause::NoSynAck | Cause::NoAck | Cause::AnswerUnseen => None,
        }
    }
}

/// Flags of a record without a SYN+ACK whose `isn_responder` is a number of the responder all the same.
pub const HOLDS_K: u32 = tag::SIMULTANEOUS | tag::RESPONDER_SYN | tag::ONE_SIDED;

/// What a record says, by its protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detail {
    /// A TCP conversation.
    Tcp(TcpRecord),
    /// A UDP flow.
    Udp(UdpRecord),
}

/// What of a record tells how it stands, by its age and its ends, and where it is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Brief {
    /// Which table it comes from.
    pub family: Family,
    /// Who talks to whom.
    pub key: FlowKey,
    /// How it stands.
    pub state: State,
    /// Bits of [`tag`].
    pub flags: u32,
    /// The row of the service table.
    pub service: u16,
    /// Jiffies of the latest packet.
    pub last_jiffies: u32,
    /// What is known of the flow.
    pub detail: Detail,
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
    pub flags: u32,
    /// The row of the service table.
    pub service: u16,
    /// Jiffies of the latest packet.
    pub last_jiffies: u32,
    /// What is known of the flow.
    pub detail: Detail,
    /// Of an unreachable flow over IPv6, who sent the ICMP error; zeros where that is not known. [`reporter`]
    /// says it for both families.
    ///
    /// [`reporter`]: Self::reporter
    pub reporter: Address,
    /// The control groups that own its ends; of a flow without, zeros.
    pub control_groups: ControlGroups,
    /// The processes that made the sockets at its ends; zeros of a flow without, and where they are not kept.
    pub makers: Makers,
}

impl Brief {
    /// Address and port of one side.
    #[must_use]
    pub const fn end(&self, side: Side) -> (Address, u16) {
        let FlowKey { low, high, ports, .. } = self.key;
        #[expect(clippy::cast_possible_truncation, reason = "the lower half is the port of the high end")]
        let ends = self.by_side((low, (ports >> 16) as u16), (high, ports as u16));
        ends[side as usize]
    }

    /// What belongs to the low and to the high end, as the initiator's and the responder's.
    #[inline(always)]
    #[must_use]
    pub const fn by_side<T: Copy>(&self, low: T, high: T) -> [T; 2] {
        if self.flags & tag::INITIATOR_HIGH != 0 { [high, low] } else { [low, high] }
    }

    /// Is it past its time? Open attempts and UDP flows only: the rest does not expire.
    #[inline]
    #[must_use]
    pub const fn expired(&self, now: Now, clocks: &Clocks) -> bool {
        match &self.detail {
            Detail::Tcp(tcp) => self.state.is_open() && tcp.expired(now.ns, clocks),
            Detail::Udp(_) => jiffies_since(now.jiffies, self.last_jiffies) > clocks.udp_idle_jiffies,
        }
    }

    /// Is it established, and silent since the initiator's latest data for longer than T1? A connection without
    /// a packet for so long that it counts as closed is not.
    #[inline]
    #[must_use]
    pub const fn is_silent(&self, now: Now, clocks: &Clocks) -> bool {
        match &self.detail {
            Detail::Tcp(tcp) => {
                matches!(self.state, State::Established)
                    && jiffies_since(now.jiffies, self.last_jiffies) <= clocks.idle_after_jiffies
                    && tcp.is_silent(self.flags, now.ns, clocks.half_open_after_ns)
            }
            Detail::Udp(_) => false,
        }
    }

    /// The time since its first packet, ns; time that runs backwards counts as no time.
    #[inline]
    #[must_use]
    pub const fn age_ns(&self, now: Now) -> u64 {
        let opened = match &self.detail {
            Detail::Tcp(tcp) => tcp.opened_ns,
            Detail::Udp(udp) => udp.opened_ns,
        };
        now.ns.saturating_sub(opened)
    }

    /// How an attempt stands at `now`; `None` for UDP and free slots.
    #[inline]
    #[must_use]
    pub const fn verdict(&self, now: Now, clocks: &Clocks) -> Option<Verdict> {
        match &self.detail {
            Detail::Tcp(tcp) if self.state.is_open() => Some(tcp.stage(now.ns, clocks).verdict()),
            Detail::Tcp(_) | Detail::Udp(_) => Verdict::of_gauge(self.state.gauge() as usize),
        }
    }

    /// How a UDP flow stands at `now`; `None` for the rest.
    #[inline]
    #[must_use]
    pub const fn udp_verdict(&self, now: Now, clocks: &Clocks) -> Option<UdpVerdict> {
        if !matches!(self.state, State::UdpWaiting) {
            return UdpVerdict::of_gauge(self.state.gauge() as usize);
        }
        let is_late = self.age_ns(now) >= clocks.half_open_after_ns;
        Some(if is_late { UdpVerdict::Unanswered } else { UdpVerdict::Pending })
    }
}

impl Record {
    /// What tells how it stands.
    #[inline]
    #[must_use]
    pub const fn brief(&self) -> Brief {
        let Self { family, key, state, flags, service, last_jiffies, detail, .. } = *self;
        Brief { family, key, state, flags, service, last_jiffies, detail }
    }

    /// [`Brief::end`].
    #[must_use]
    pub const fn end(&self, side: Side) -> (Address, u16) {
        self.brief().end(side)
    }

    /// Who sent the ICMP error that made the flow unreachable; `None` of any other flow, or where it is not
    /// known.
    #[must_use]
    pub fn reporter(&self) -> Option<Address> {
        let word = match (&self.detail, self.state) {
            (Detail::Tcp(tcp), State::Unreachable) if self.flags & HOLDS_K == 0 => tcp.isn_responder,
            (Detail::Udp(udp), State::UdpUnreachable) => udp.answer_after,
            _ => return None,
        };
        let address = if let Family::V4 = self.family { Address::v4(word) } else { self.reporter };
        (address != Address::default()).then_some(address)
    }

    /// [`Brief::expired`].
    #[must_use]
    pub const fn expired(&self, now: Now, clocks: &Clocks) -> bool {
        self.brief().expired(now, clocks)
    }

    /// [`Brief::is_silent`].
    #[must_use]
    pub const fn is_silent(&self, now: Now, clocks: &Clocks) -> bool {
        self.brief().is_silent(now, clocks)
    }

    /// [`Brief::age_ns`].
    #[must_use]
    pub const fn age_ns(&self, now: Now) -> u64 {
        self.brief().age_ns(now)
    }

    /// [`Brief::verdict`].
    #[must_use]
    pub const fn verdict(&self, now: Now, clocks: &Clocks) -> Option<Verdict> {
        self.brief().verdict(now, clocks)
    }

    /// [`Brief::udp_verdict`].
    #[must_use]
    pub const fn udp_verdict(&self, now: Now, clocks: &Clocks) -> Option<UdpVerdict> {
        self.brief().udp_verdict(now, clocks)
    }
}
