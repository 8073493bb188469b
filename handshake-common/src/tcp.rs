//! Tracks TCP handshakes as an observer sees them (RFC 9293 §3.5). Pure: no clock, no map, no I/O.
//!
//! [`step`] takes a record and a segment and says how the record stands afterwards. A segment has
//! one function, a state one row in it, and no row stands for "the rest".
//!
//! Completion is proven in several places and done in one, at the end of `general`. The second and the third
//! segment of a handshake without incident have a straight way beside it.

mod ack;
mod first_byte;
mod reset;
mod straight;
mod syn;
mod syn_ack;
#[cfg(test)]
mod tests;

pub use self::straight::straight;
use crate::abi::{NO_POINT, TICK_SHIFT, TcpRecord, tag};
use crate::flow::Side;
use crate::low_half;
use crate::record::{State, TcpState};
use crate::seq::SeqNum;
use crate::verdict::{Leg, Sign};
use crate::wire::{Class, Packet, flag, mark, quote};

/// What kind of segment a packet is to the rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SegmentKind {
    /// SYN without ACK.
    Syn,
    /// SYN and ACK.
    SynAck,
    /// ACK or FIN, without SYN and RST.
    Ack,
    /// RST.
    Rst,
    /// An ICMP error that quotes a segment of the side.
    Unreachable,
    /// None of RST, SYN, FIN, ACK.
    Other,
}

/// A segment as the rules see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Its kind, by its flags.
    pub kind: SegmentKind,
    /// TCP flags.
    pub flags: u8,
    /// Sequence number.
    pub seq: SeqNum,
    /// Acknowledgement number; counts with the flag ACK only.
    pub ack: SeqNum,
    /// Bytes of payload.
    pub payload: u32,
    /// The hook point that saw it.
    pub point: u8,
    /// Packets of class ack it stands for.
    pub acks: u32,
    /// It has no time of its own.
    pub untimed: bool,
}

impl Segment {
    /// The segment in a TCP packet, or the one an ICMP error quotes.
    #[inline(always)]
    #[must_use]
    pub fn of(packet: &Packet) -> Self {
        let kind = if packet.quote != quote::NONE {
            SegmentKind::Unreachable
        } else if packet.class == Class::Syn as u8 {
            SegmentKind::Syn
        } else if packet.class == Class::SynAck as u8 {
            SegmentKind::SynAck
        } else if packet.class == Class::Ack as u8 || packet.class == Class::Fin as u8 {
            SegmentKind::Ack
        } else if packet.class == Class::Rst as u8 {
            SegmentKind::Rst
        } else {
            SegmentKind::Other
        };
        Self {
            kind,
            flags: packet.flags,
            seq: SeqNum(packet.seq),
            ack: SeqNum(packet.ack),
            payload: packet.payload,
            point: packet.point,
            acks: packet.acks(),
            untimed: packet.marks & mark::UNTIMED != 0,
        }
    }

    #[inline(always)]
    const fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// What it sends, beside a SYN.
    #[inline(always)]
    const fn sent(&self) -> u32 {
        self.payload.saturating_add(self.has(flag::FIN) as u32)
    }

    /// The sequence number after it, a SYN not counted.
    #[inline(always)]
    const fn end(&self) -> SeqNum {
        self.seq.plus(self.sent())
    }
}

/// A set of [`Sign`]s, or of [`Leg`]s.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SmallSet(u16);

impl SmallSet {
    #[inline(always)]
    const fn with(self, bit: u8) -> Self {
        Self(self.0 | 1 << bit)
    }

    /// Is the sign in it?
    #[inline(always)]
    #[must_use]
    pub const fn has_sign(self, sign: Sign) -> bool {
        self.0 & 1 << sign as u8 != 0
    }

    /// Is the leg in it?
    #[inline(always)]
    #[must_use]
    pub const fn has_leg(self, leg: Leg) -> bool {
        self.0 & 1 << leg as u8 != 0
    }

    /// The set as bits, by the numbers of what is in it.
    #[inline(always)]
    #[must_use]
    pub const fn bits(self) -> u16 {
        self.0
    }

    /// Is nothing in it?
    #[inline(always)]
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

/// How a record stands after a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// The state, perhaps the same.
    pub state: TcpState,
    /// Bits of [`tag`].
    pub flags: u32,
    /// The record is that of a new attempt, which takes the place of the one before.
    pub new_attempt: bool,
    /// The segment is a copy of one that the same hook point has seen.
    pub copy: bool,
    /// The time from SYN to SYN+ACK, counted before, is wrong.
    pub revoked: bool,
    /// Signs to count.
    pub signs: SmallSet,
    /// Legs that ended with this segment and are known.
    pub timed: SmallSet,
    /// Legs that ended with this segment and are left out.
    pub excluded: SmallSet,
}

impl Change {
    /// The step as one word.
    #[inline(always)]
    #[must_use]
    pub const fn pack(&self) -> u64 {
        self.state as u64
            | (self.flags as u64) << 8
            | (self.signs.0 as u64) << 32
            | (self.timed.0 as u64) << 48
            | (self.excluded.0 as u64) << 52
            | (self.new_attempt as u64) << 56
            | (self.copy as u64) << 57
            | (self.revoked as u64) << 58
    }

    /// The step in a word of [`pack`](Self::pack).
    #[inline(always)]
    #[must_use]
    pub const fn unpack(word: u64) -> Self {
        Self {
            state: TcpState::from_number((word & 0xff) as u8),
            flags: low_half(word >> 8) & tag::FLAGS,
            new_attempt: word >> 56 & 1 != 0,
            copy: word >> 57 & 1 != 0,
            revoked: word >> 58 & 1 != 0,
            signs: SmallSet((word >> 32 & 0xffff) as u16),
            timed: SmallSet((word >> 48 & 0xf) as u16),
            excluded: SmallSet((word >> 52 & 0xf) as u16),
        }
    }

    /// With [`tag::PASSED_ON`] as this segment has it, if the attempt is open in one of these states: 1 where it was
    /// seen at another hook point before. Without a branch, which the verifier would follow.
    #[inline(always)]
    const fn passing(self, passed_on: u64, states: u32) -> Self {
        let noted = states >> self.state as u32 & 1;
        let cleared = self.flags & !(noted * tag::PASSED_ON);
        let flags = cleared | ((noted & low_half(passed_on)) * tag::PASSED_ON);
        Self { flags, ..self }
    }

    /// Nothing but this state and these flags.
    #[inline(always)]
    #[must_use]
    pub const fn stay(state: TcpState, flags: u32) -> Self {
        Self {
            state,
            flags,
            new_attempt: false,
            copy: false,
            revoked: false,
            signs: SmallSet(0),
            timed: SmallSet(0),
            excluded: SmallSet(0),
        }
    }

    #[inline(always)]
    const fn sign(mut self, sign: Sign) -> Self {
        self.signs = self.signs.with(sign as u8);
        self
    }

    #[inline(always)]
    const fn to(mut self, state: TcpState) -> Self {
        self.state = state;
        self
    }

    #[inline(always)]
    const fn leg(mut self, leg: Leg, known: bool) -> Self {
        self.timed.0 |= (known as u16) << leg as u8;
        self.without(leg, !known)
    }

    /// Leaves the leg out, where `left_out` says so.
    #[inline(always)]
    const fn without(mut self, leg: Leg, left_out: bool) -> Self {
        self.excluded.0 |= (left_out as u16) << leg as u8;
        self
    }
}

/// The surroundings of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conditions {
    /// The time, ns.
    pub now_ns: u64,
    /// T1.
    pub half_open_after_ns: u64,
    /// Infer completion from the initiator's packets alone.
    pub one_sided: bool,
    /// All hooks are on: a SYN may begin an attempt.
    pub admits: bool,
    /// Zero, which the verifier does not know: what is mixed with it is any number to it, so that it
    /// follows the ways that meet there once.
    pub veil: u64,
}

/// The record of a new attempt: `syn` came from its initiator.
#[inline(always)]
#[must_use]
pub fn open(syn: &Segment, now_ns: u64) -> (TcpRecord, u32) {
    let mut record = TcpRecord::default();
    let flags = begin(&mut record, syn, now_ns, 0);
    (record, flags)
}

/// The same in the place of another record, word by word: BPF would make a new one on the stack, which is small. `zero`
/// is 0, and not known to be it: of known ones the compiler makes a call.
#[inline(always)]
fn begin(record: &mut TcpRecord, syn: &Segment, now_ns: u64, zero: u64) -> u32 {
    let zero = low_half(zero);
    record.opened_ns = now_ns;
    record.isn_initiator = syn.seq.0;
    record.isn_responder = zero;
    record.other_ack = zero;
    record.syn_data = saturate16(syn.payload);
    record.responder_sent = low_16(zero);
    record.syn_ack_after = zero;
    record.latest_after = zero;
    record.ack = zero;
    record.syn = 1;
    record.syn_ack = low_16(zero).to_le_bytes()[0];
    record.syn_ack_retransmits = low_16(zero).to_le_bytes()[0];
    record.points = NO_POINT << 4 | syn.point & 0xf;
    let data = if syn.payload != 0 { tag::FAST_OPEN } else { 0 };
    data | if syn.untimed { tag::UNTIMED } else { 0 }
}

/// The record of a conversation whose SYN was not seen. Of a SYN+ACK the responder is its sender;
/// of anything else the sender is taken for the initiator: nothing better is known.
#[inline(always)]
#[must_use]
pub fn join(segment: &Segment, now_ns: u64) -> TcpRecord {
    let orphan = matches!(segment.kind, SegmentKind::SynAck);
    let points = if orphan { segment.point << 4 | NO_POINT } else { NO_POINT << 4 | segment.point & 0xf };
    TcpRecord {
        opened_ns: now_ns,
        isn_initiator: if orphan { segment.ack.plus(u32::MAX).0 } else { 0 },
        isn_responder: if orphan { segment.seq.0 } else { 0 },
        syn_ack: orphan as u8,
        responder_sent: if orphan { saturate16(segment.sent()) } else { 0 },
        ack: segment.acks,
        points,
        ..TcpRecord::default()
    }
}

/// The same of a segment that came before all hooks were on, and the flags to change where its sender is the
/// initiator. The J of a SYN or SYN+ACK is kept, with [`tag::OTHER_J`].
#[inline(always)]
#[must_use]
pub fn join_early(segment: &Segment, now_ns: u64) -> (TcpRecord, u32) {
    let mut record = join(segment, now_ns);
    let flags = match segment.kind {
        SegmentKind::Syn => {
            record.other_ack = segment.seq.0;
            record.syn = 1;
            tag::OTHER_J
        }
        SegmentKind::SynAck => {
            record.other_ack = record.isn_initiator;
            tag::OTHER_J | tag::INITIATOR_HIGH
        }
        SegmentKind::Ack | SegmentKind::Rst | SegmentKind::Unreachable | SegmentKind::Other => 0,
    };
    (record, flags)
}

/// One segment of `side` meets a record.
#[inline(always)]
pub fn step(
    state: TcpState,
    flags: u32,
    record: &mut TcpRecord,
    side: Side,
    segment: &Segment,
    context: &Conditions,
) -> Change {
    match straight(state, flags, record, side, segment, context) {
        Some(change) => change,
        None => general(state, flags, record, side, segment, context),
    }
}

/// The same of any segment and any record.
#[inline(always)]
fn general(
    state: TcpState,
    flags: u32,
    record: &mut TcpRecord,
    side: Side,
    segment: &Segment,
    context: &Conditions,
) -> Change {
    let first_point = sees_first(record, side, segment);
    let flags = if matches!(segment.kind, SegmentKind::Rst) { flags | tag::RESET } else { flags };
    // Once completed, no time is taken any more.
    let takes_time = !matches!(state, TcpState::Established | TcpState::Closed);
    let flags = if segment.untimed && takes_time { flags | tag::UNTIMED } else { flags };
    let mut transition = Transition { state, flags, record, side, segment, context, counted: first_point };
    if transition.is_copy(first_point) {
        return Change { copy: true, ..transition.stay() };
    }
    let counted = (first_point || transition.took_another_path()) as u64 ^ context.veil;
    let passed_on = !counted & 1;
    transition.counted = counted & 1 != 0;
    if transition.counted {
        count(transition.record, segment);
    }
    let change = match (segment.kind, side) {
        (SegmentKind::Syn, Side::Initiator) => transition.initiator_syn().passing(passed_on, UNANSWERED),
        (SegmentKind::Syn, Side::Responder) => transition.responder_syn().passing(passed_on, UNANSWERED),
        (SegmentKind::SynAck, Side::Initiator) => transition.initiator_syn_ack().passing(passed_on, ANSWERED),
        (SegmentKind::SynAck, Side::Responder) => transition.responder_syn_ack().passing(passed_on, ANSWERED),
        (SegmentKind::Ack, Side::Initiator) => transition.initiator_ack(),
        (SegmentKind::Ack, Side::Responder) => transition.responder_ack(),
        (SegmentKind::Rst, Side::Initiator) => transition.initiator_rst(),
        (SegmentKind::Rst, Side::Responder) => transition.responder_rst(),
        (SegmentKind::Unreachable, Side::Initiator) => transition.initiator_unreachable(),
        (SegmentKind::Unreachable, Side::Responder)
        | (SegmentKind::Other, Side::Initiator | Side::Responder) => transition.stay(),
    };
    // Many paths meet here: the verifier checks the rest once.
    let change = Change::unpack(change.pack() ^ context.veil);
    if matches!(change.state, TcpState::Established) && !matches!(state, TcpState::Established) {
        return transition.complete(change);
    }
    if change.flags & tag::AWAITS != 0 {
        return transition.hear(change);
    }
    change
}

/// States, as bits, in which the latest SYN says whether this host passes the attempt on.
const UNANSWERED: u32 = 1 << State::SynSent as u32 | 1 << State::AnswerUnseen as u32;
/// The same of the latest SYN+ACK.
const ANSWERED: u32 = 1 << State::SynReceived as u32;

/// Is this the hook point that first saw the side?
#[inline(always)]
fn sees_first(record: &mut TcpRecord, side: Side, segment: &Segment) -> bool {
    let shift = match side {
        Side::Initiator => 0,
        Side::Responder => 4,
    };
    if matches!(segment.kind, SegmentKind::Unreachable) {
        return true;
    }
    let point = record.points >> shift & 0xf;
    if point == NO_POINT {
        record.points = record.points & !(0xf << shift) | (segment.point & 0xf) << shift;
        return true;
    }
    point == segment.point & 0xf
}

/// The same SYN or SYN+ACK at the same hook point within this time is a copy: a mirror of both directions, a
/// merged capture. TCP waits longer before it sends again (RFC 6298 §2: at least 1 s).
pub const COPY_WITHIN_NS: u64 = 10_000_000;
/// The same segment at another hook point within this time is a repeat: a router, a bridge. Later it was sent
/// again and took another path.
pub const REPEAT_WITHIN_NS: u64 = 100_000_000;
/// A SYN with another number that comes again after this time, while the old connection is silent, is an
/// attempt.
pub const CLAIM_AFTER_NS: u64 = 500_000_000;

/// A time as a number of 16 bits that is never 0: in units of 2²⁰ ns (1.05 ms), modulo 69 s.
#[inline(always)]
#[must_use]
pub const fn mark_of(ns: u64) -> u16 {
    let mark = (ns >> 20 & 0xffff) as u16;
    if mark == 0 { 1 } else { mark }
}

/// Units of [`mark_of`] in a time, rounded down.
const fn units(ns: u64) -> u16 {
    (ns >> 20 & 0xffff) as u16
}

/// Counts a segment in its record.
#[inline(always)]
fn count(record: &mut TcpRecord, segment: &Segment) {
    match segment.kind {
        SegmentKind::Syn => record.syn = record.syn.saturating_add(1),
        SegmentKind::SynAck => record.syn_ack = record.syn_ack.saturating_add(1),
        SegmentKind::Ack => record.ack = record.ack.wrapping_add(segment.acks),
        SegmentKind::Rst | SegmentKind::Unreachable | SegmentKind::Other => {}
    }
}

/// A segment at the record it belongs to.
struct Transition<'a> {
    state: TcpState,
    flags: u32,
    record: &'a mut TcpRecord,
    side: Side,
    segment: &'a Segment,
    context: &'a Conditions,
    /// The segment is no repeat at another hook point.
    counted: bool,
}

impl Transition<'_> {
    #[inline(always)]
    fn stay(&self) -> Change {
        Change::stay(self.state, self.flags)
    }

    #[inline(always)]
    fn signed(&self, sign: Sign) -> Change {
        if self.counted { self.stay().sign(sign) } else { self.stay() }
    }

    /// A sign that an attempt has or has not: counted once.
    #[inline(always)]
    fn marked(&self, flag: u32, sign: Sign) -> Change {
        let change = Change::stay(self.state, self.flags | flag);
        if self.has(flag) { change } else { change.sign(sign) }
    }

    /// J + 1: what the SYN+ACK must acknowledge, and where the initiator continues.
    #[inline(always)]
    fn after_j(&self) -> SeqNum {
        SeqNum(self.record.isn_initiator).plus(1)
    }

    /// K + 1: what the final ACK must acknowledge.
    #[inline(always)]
    fn after_k(&self) -> SeqNum {
        SeqNum(self.record.isn_responder).plus(1)
    }

    /// The number behind the one in `other_ack`.
    #[inline(always)]
    fn after_other(&self) -> SeqNum {
        SeqNum(self.record.other_ack).plus(1)
    }

    #[inline(always)]
    fn has(&self, flag: u32) -> bool {
        self.flags & flag != 0
    }

    /// Does `other_ack` hold this: [`tag::SECOND_K`], [`tag::EARLY_ACK`], [`tag::OTHER_J`], or 0 for nothing?
    #[inline(always)]
    fn holds(&self, kind: u32) -> bool {
        self.flags & tag::OTHER_J == kind
    }

    /// The flags with nothing in `other_ack`.
    #[inline(always)]
    fn emptied(&self) -> u32 {
        let beside = tag::OTHER_J | tag::COUNTED_J | tag::FURTHER_J | tag::OTHER_K | tag::KEPT_K;
        self.flags & !(beside | tag::AWAITS)
    }

    /// Has a SYN+ACK acknowledged the SYN? Of a simultaneous open it is not kept how much.
    #[inline(always)]
    fn is_answered(&self) -> bool {
        self.record.is_answered(self.flags) && !self.has(tag::SIMULTANEOUS)
    }

    /// Bytes of data in the SYN; once a SYN+ACK was seen, those that it acknowledged.
    #[inline(always)]
    fn syn_data(&self) -> u32 {
        if self.has(tag::FAST_OPEN) { self.record.syn_data as u32 } else { 0 }
    }

    /// The most data that the SYN may have had. Once a SYN+ACK was seen, it is not kept.
    #[inline(always)]
    fn most_syn_data(&self) -> u32 {
        if self.has(tag::FAST_OPEN) && self.is_answered() { u16::MAX as u32 } else { self.syn_data() }
    }

    /// Does the segment acknowledge the SYN, or some of a Fast Open SYN's data too?
    #[inline(always)]
    fn acks_syn(&self) -> bool {
        self.segment.has(flag::ACK) && self.segment.ack.is_within(self.after_j(), self.most_syn_data())
    }

    /// Where the initiator continues: behind what the SYN+ACK acknowledged. Before any, it is behind J.
    #[inline(always)]
    fn next_of_initiator(&self) -> SeqNum {
        if self.is_answered() { self.after_j().plus(self.syn_data()) } else { self.after_j() }
    }

    /// Is the segment's number the one that the initiator continues with? Before any SYN+ACK it is not known
    /// how much of the SYN's data is taken.
    #[inline(always)]
    fn follows_syn(&self) -> bool {
        let span = if self.is_answered() { 0 } else { self.syn_data() };
        self.segment.seq.is_within(self.next_of_initiator(), span)
    }

    /// Would the responder take the segment where it expects this number? The window of a SYN+ACK is never
    /// scaled (RFC 7323 §2.2); a segment that begins before the number counts with what lies behind it (RFC
    /// 9293 §3.10.7.4).
    #[inline(always)]
    fn is_in_window(&self, next: SeqNum) -> bool {
        let seq = self.segment.seq;
        let refused = if self.is_answered() { 0 } else { self.syn_data() };
        let last = next.plus(refused).plus(u16::MAX as u32);
        seq == next || (next.is_before(self.segment.end()) && !last.is_before(seq))
    }

    /// Is this a number that may follow a K, whose next number is `next`: at most what the responder sent?
    #[inline(always)]
    fn is_sent(&self, number: SeqNum, next: SeqNum) -> bool {
        number.is_within(next, self.record.responder_sent as u32)
    }

    /// Ticks of 64 ns since the record was opened; time that runs backwards counts as no time.
    #[inline(always)]
    fn ticks(&self) -> u32 {
        saturate32(self.context.now_ns.saturating_sub(self.record.opened_ns) >> TICK_SHIFT)
    }

    /// Keeps the time of the latest SYN or SYN+ACK, which never falls.
    #[inline(always)]
    fn touch(&mut self) {
        let is_answer = matches!(self.segment.kind, SegmentKind::SynAck);
        if self.times_both_ends() && (is_answer || matches!(self.segment.kind, SegmentKind::Syn)) {
            if is_answer == self.has(tag::SYN_LATEST) {
                self.record.syn_data = mark_of(self.record.latest_ns());
            }
            self.flags = self.flags & !tag::SYN_LATEST | if is_answer { 0 } else { tag::SYN_LATEST };
        }
        self.record.latest_after = self.record.latest_after.max(self.ticks());
    }

    /// Are the latest SYN's and the latest SYN+ACK's time kept, in `latest_after` and `syn_data`? Not where the
    /// second has another use.
    #[inline(always)]
    fn times_both_ends(&self) -> bool {
        self.is_answered() && !self.has(tag::FAST_OPEN | tag::OTHER_K) && !self.holds(tag::OTHER_J)
    }

    /// Is the number the K of a SYN+ACK that was seen?
    #[inline(always)]
    fn is_a_k(&self, number: SeqNum) -> bool {
        number.0 == self.record.isn_responder
            || (self.holds(tag::SECOND_K) && number.0 == self.record.other_ack)
    }

    /// Was a SYN or SYN+ACK like this one seen less than `within` ago, of an attempt that is not completed? A
    /// SYN+ACK follows each SYN closely, and a SYN that comes again may follow a SYN+ACK so: both ends send again
    /// after the same time. Where the times are not kept apart, that of the latest of either counts.
    #[inline(always)]
    fn is_recent_of_kind(&self, within: u64) -> bool {
        let is_answer = matches!(self.segment.kind, SegmentKind::SynAck);
        let first_syn = matches!(self.segment.kind, SegmentKind::Syn)
            && self.record.syn <= 1
            && self.segment.seq.0 == self.record.isn_initiator;
        let first_syn_ack = matches!(self.segment.kind, SegmentKind::SynAck)
            && self.record.syn_ack_retransmits == 0
            && !self.has(tag::OTHER_K)
            && !self.holds(tag::SECOND_K);
        let after = if first_syn {
            0
        } else if first_syn_ack {
            self.record.syn_ack_after
        } else if self.times_both_ends() && is_answer == self.has(tag::SYN_LATEST) {
            return self.is_marked_within(within);
        } else {
            self.record.latest_after
        };
        let then = self.record.opened_ns.wrapping_add((after as u64) << TICK_SHIFT);
        self.context.now_ns.saturating_sub(then) <= within
    }

    /// Is the time in `syn_data` less than `within` ago?
    #[inline(always)]
    fn is_marked_within(&self, within: u64) -> bool {
        let then = self.record.syn_data;
        then != 0 && mark_of(self.context.now_ns).wrapping_sub(then) <= units(within)
    }

    /// Was a SYN or SYN+ACK seen less than `within` ago?
    #[inline(always)]
    fn is_recent(&self, within: u64) -> bool {
        if matches!(self.state, TcpState::Established | TcpState::Closed) {
            self.is_marked_within(within)
        } else {
            self.is_recent_of_kind(within)
        }
    }

    /// Is it the copy of a SYN or SYN+ACK that this hook point has seen?
    #[inline(always)]
    fn is_copy(&self, first_point: bool) -> bool {
        if !first_point || !self.is_known_syn() {
            return false;
        }
        self.is_recent(COPY_WITHIN_NS)
    }

    /// Is it a SYN or SYN+ACK that was seen before, with no more data?
    #[inline(always)]
    fn is_known_syn(&self) -> bool {
        let seq = self.segment.seq;
        let is_completed = matches!(self.state, TcpState::Established | TcpState::Closed);
        let (seen, data) = match (self.segment.kind, self.side) {
            (SegmentKind::Syn, Side::Initiator) => (
                !matches!(self.state, TcpState::Midstream | TcpState::OrphanSynAck)
                    && (seq.0 == self.record.isn_initiator
                        || (self.holds(tag::OTHER_J) && seq.0 == self.record.other_ack && !is_completed)),
                self.most_syn_data(),
            ),
            (SegmentKind::Syn, Side::Responder) => {
                (self.has(tag::RESPONDER_SYN) && seq.0 == self.record.isn_responder, 0)
            }
            (SegmentKind::SynAck, Side::Responder) => {
                let answered =
                    self.record.is_answered(self.flags) || matches!(self.state, TcpState::OrphanSynAck);
                let seen =
                    if self.has(tag::SIMULTANEOUS) { self.has(tag::INITIATOR_ACKED) } else { answered };
                (seen && self.is_a_k(seq), self.record.responder_sent as u32)
            }
            (SegmentKind::SynAck, Side::Initiator) => {
                (self.has(tag::RESPONDER_ACKED) && seq.0 == self.record.isn_initiator, 0)
            }
            (
                SegmentKind::Ack | SegmentKind::Rst | SegmentKind::Unreachable | SegmentKind::Other,
                Side::Initiator | Side::Responder,
            ) => (false, 0),
        };
        seen && (is_completed || self.segment.payload <= data)
    }

    /// Is it a SYN or SYN+ACK at another hook point, too late to be a repeat of what the first one saw?
    #[inline(always)]
    fn took_another_path(&self) -> bool {
        matches!(self.segment.kind, SegmentKind::Syn | SegmentKind::SynAck)
            && !self.is_recent(REPEAT_WITHIN_NS)
    }

    /// The two Js exchange their places: the one beside was the real one. No time is known any more.
    #[inline(always)]
    fn change_places(&mut self) {
        core::mem::swap(&mut self.record.isn_initiator, &mut self.record.other_ack);
        self.flags = (self.flags | tag::UNTIMED | tag::REVISED) & !tag::KEPT_K;
    }

    /// The attempt is taken up again after a provisional end.
    #[inline(always)]
    fn revised(change: Change) -> Change {
        Change { flags: change.flags | tag::REVISED, ..change }.sign(Sign::Revised)
    }

    /// Established, with the times that are known. A FIN closes it in the same step.
    #[inline(always)]
    fn complete(&mut self, change: Change) -> Change {
        let ticks = self.ticks();
        // A SYN+ACK in the tick of its SYN is put a tick after it, for 0 means none; so is an ACK there. With
        // another K in its place the SYN+ACK's time is not known, and neither is any other.
        let ticks = ticks.max(1);
        let rises = change.flags & tag::OTHER_K != 0 || ticks >= self.record.syn_ack_after;
        let flags = change.flags & !(tag::PASSED_ON | tag::SYN_LATEST) | if rises { 0 } else { tag::UNTIMED };
        let blurred = tag::UNTIMED | tag::SIMULTANEOUS | tag::ONE_SIDED;
        // Of the latest segment, and not of this one, where a clock has run back.
        let in_reach = ticks.max(self.record.latest_after) != u32::MAX;
        let leg_known = flags & blurred == 0
            && change.flags & tag::OTHER_J != tag::SECOND_K
            && self.record.syn_ack_retransmits == 0
            && in_reach;
        let connect_known = flags & tag::UNTIMED == 0 && in_reach;
        let revoked = flags & tag::UNTIMED != 0 && flags & tag::SYN_ACK_TIMED != 0;
        let timed = if leg_known { tag::ACK_TIMED } else { 0 };
        let mut wrong = if revoked { tag::SYN_ACK_TIMED } else { 0 };
        let waited = self.context.now_ns.saturating_sub(self.record.opened_ns);
        let late = if waited > self.context.half_open_after_ns { tag::LATE } else { 0 };
        let first = self.first_bytes(change.flags);
        self.record.syn_data = mark_of(self.record.latest_ns());
        if change.flags & tag::COUNTED_J != 0 {
            wrong |= tag::OTHER_J | tag::COUNTED_J | tag::FURTHER_J | tag::KEPT_K;
        } else if change.flags & tag::OTHER_J == tag::OTHER_J {
            // An ACK came since that SYN: its silence begins when it comes again.
            self.record.responder_sent = !low_16(self.record.ack);
        }
        self.record.latest_after = self.record.latest_after.max(ticks);
        let closes = matches!(self.segment.kind, SegmentKind::Ack) && self.segment.has(flag::FIN);
        let revoked = revoked || change.revoked;
        Change { flags: (flags | late | timed) & !wrong | first, revoked, ..change }
            .to(if closes { TcpState::Closed } else { TcpState::Established })
            .leg(Leg::SynAckToAck, leg_known)
            .leg(Leg::Connect, connect_known)
            .without(Leg::AckToFirstByte, first == 0)
    }
}

#[inline(always)]
const fn low_16(value: u32) -> u16 {
    (value & 0xffff) as u16
}

#[inline(always)]
const fn saturate16(value: u32) -> u16 {
    if value > u16::MAX as u32 { u16::MAX } else { (value & 0xffff) as u16 }
}

#[inline(always)]
const fn saturate32(value: u64) -> u32 {
    if value > u32::MAX as u64 { u32::MAX } else { (value & 0xffff_ffff) as u32 }
}
