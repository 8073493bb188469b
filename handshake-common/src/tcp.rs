//! Tracks TCP handshakes as an observer sees them (RFC 9293 §3.5). Pure: no clock, no map, no I/O.
//!
//! [`step`] takes a record and a segment and says how the record stands afterwards. A segment has
//! one function, a state one row in it, and no row stands for "the rest".
//!
//! Completion is proven in several places and done in one, at the end of [`step`].

mod ack;
mod reset;
mod syn;
mod syn_ack;
#[cfg(test)]
mod tests;

use crate::abi::{NO_POINT, TICK_SHIFT, TcpRecord, tag};
use crate::flow::Side;
use crate::record::TcpState;
use crate::seq::SeqNum;
use crate::verdict::{Leg, Sign};
use crate::wire::{Class, Packet, flag, quote};

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
        }
    }

    #[inline(always)]
    const fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// The sequence number after it.
    #[inline(always)]
    const fn end(&self) -> SeqNum {
        self.seq.plus(self.payload).plus(self.has(flag::FIN) as u32)
    }
}

/// A set of [`Sign`]s, or of [`Leg`]s.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SmallSet(u8);

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
    pub const fn bits(self) -> u8 {
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
    pub flags: u16,
    /// The segment begins a new attempt in the place of this record; nothing else here counts.
    pub new_attempt: bool,
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
            | (self.new_attempt as u64) << 24
            | (self.signs.0 as u64) << 32
            | (self.timed.0 as u64) << 40
            | (self.excluded.0 as u64) << 48
    }

    /// The step in a word of [`pack`](Self::pack).
    #[inline(always)]
    #[must_use]
    pub const fn unpack(word: u64) -> Self {
        Self {
            state: TcpState::from_number((word & 0xff) as u8),
            flags: (word >> 8 & 0xffff) as u16,
            new_attempt: word >> 24 & 1 != 0,
            signs: SmallSet((word >> 32 & 0xff) as u8),
            timed: SmallSet((word >> 40 & 0xff) as u8),
            excluded: SmallSet((word >> 48 & 0xff) as u8),
        }
    }

    /// Nothing but this state and these flags.
    #[inline(always)]
    #[must_use]
    pub const fn stay(state: TcpState, flags: u16) -> Self {
        Self {
            state,
            flags,
            new_attempt: false,
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
        self.timed.0 |= (known as u8) << leg as u8;
        self.excluded.0 |= (!known as u8) << leg as u8;
        self
    }

    #[inline(always)]
    const fn new_attempt(mut self) -> Self {
        self.new_attempt = true;
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
    /// Zero, which the verifier does not know: what is mixed with it is any number to it, so that it
    /// follows the ways that meet there once.
    pub veil: u64,
}

/// The record of a new attempt: `syn` came from its initiator.
#[inline(always)]
#[must_use]
pub fn open(syn: &Segment, now_ns: u64) -> (TcpRecord, u16) {
    let record = TcpRecord {
        opened_ns: now_ns,
        isn_initiator: syn.seq.0,
        syn_data: saturate16(syn.payload),
        syn: 1,
        points: NO_POINT << 4 | syn.point & 0xf,
        ..TcpRecord::default()
    };
    (record, if syn.payload != 0 { tag::FAST_OPEN } else { 0 })
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
        ack: segment.acks,
        points,
        ..TcpRecord::default()
    }
}

/// One segment of `side` meets a record.
#[inline(always)]
pub fn step(
    state: TcpState,
    flags: u16,
    record: &mut TcpRecord,
    side: Side,
    segment: &Segment,
    context: &Conditions,
) -> Change {
    let counted = (sees_first(record, side, segment) as u64 ^ context.veil) & 1 != 0;
    if counted {
        count(record, segment);
    }
    let flags = if matches!(segment.kind, SegmentKind::Rst) { flags | tag::RESET } else { flags };
    let mut transition = Transition { state, flags, record, segment, context, counted };
    let change = match (segment.kind, side) {
        (SegmentKind::Syn, Side::Initiator) => transition.initiator_syn(),
        (SegmentKind::Syn, Side::Responder) => transition.responder_syn(),
        (SegmentKind::SynAck, Side::Initiator) => transition.initiator_syn_ack(),
        (SegmentKind::SynAck, Side::Responder) => transition.responder_syn_ack(),
        (SegmentKind::Ack, Side::Initiator) => transition.initiator_ack(),
        (SegmentKind::Ack, Side::Responder) => transition.responder_ack(),
        (SegmentKind::Rst, Side::Initiator) => transition.initiator_rst(),
        (SegmentKind::Rst, Side::Responder) => transition.responder_rst(),
        (SegmentKind::Unreachable, Side::Initiator) => transition.initiator_unreachable(),
        (SegmentKind::Unreachable, Side::Responder)
        | (SegmentKind::Other, Side::Initiator | Side::Responder) => Change::stay(state, flags),
    };
    // Many paths meet here: the verifier checks the rest once.
    let change = Change::unpack(change.pack() ^ context.veil);
    if matches!(change.state, TcpState::Established) && !matches!(state, TcpState::Established) {
        return transition.complete(change);
    }
    change
}

/// Is this the hook point that first saw the side? A segment at another point is a repeat of one
/// already seen (a router, a bridge), and only what it proves counts.
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
    flags: u16,
    record: &'a mut TcpRecord,
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

    #[inline(always)]
    fn has(&self, flag: u16) -> bool {
        self.flags & flag != 0
    }

    /// Does the segment acknowledge the SYN, or some of a Fast Open SYN's data?
    #[inline(always)]
    fn acks_syn(&self) -> bool {
        self.segment.has(flag::ACK) && self.segment.ack.is_within(self.after_j(), self.record.syn_data as u32)
    }

    /// Is the segment's number the one that the initiator continues with after its SYN (and its data)?
    #[inline(always)]
    fn follows_syn(&self) -> bool {
        self.segment.seq.is_within(self.after_j(), self.record.syn_data as u32)
    }

    /// Ticks of 64 ns since the record was opened; time that runs backwards counts as no time.
    #[inline(always)]
    fn ticks(&self) -> u32 {
        saturate32(self.context.now_ns.saturating_sub(self.record.opened_ns) >> TICK_SHIFT)
    }

    /// Is the number the K of a SYN+ACK that was seen?
    #[inline(always)]
    fn is_a_k(&self, number: SeqNum) -> bool {
        number.0 == self.record.isn_responder
            || (self.has(tag::SECOND_K) && number.0 == self.record.other_ack)
    }

    /// Established, with the times that are known. A FIN closes it in the same step.
    #[inline(always)]
    fn complete(&mut self, change: Change) -> Change {
        let ticks = self.ticks();
        self.record.latest_after = ticks;
        let blurred = tag::UNTIMED | tag::SIMULTANEOUS | tag::ONE_SIDED | tag::SECOND_K;
        let leg_known = change.flags & blurred == 0 && self.record.syn_ack_retransmits == 0;
        let connect_known = change.flags & tag::UNTIMED == 0;
        let waited = self.context.now_ns.saturating_sub(self.record.opened_ns);
        let late = if waited > self.context.half_open_after_ns { tag::LATE } else { 0 };
        let closes = matches!(self.segment.kind, SegmentKind::Ack) && self.segment.has(flag::FIN);
        Change { flags: change.flags | late, ..change }
            .to(if closes { TcpState::Closed } else { TcpState::Established })
            .leg(Leg::SynAckToAck, leg_known)
            .leg(Leg::Connect, connect_known)
    }
}

#[inline(always)]
const fn saturate16(value: u32) -> u16 {
    if value > u16::MAX as u32 { u16::MAX } else { (value & 0xffff) as u16 }
}

#[inline(always)]
const fn saturate32(value: u64) -> u32 {
    if value > u32::MAX as u64 { u32::MAX } else { (value & 0xffff_ffff) as u32 }
}
