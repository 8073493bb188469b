//! The straight way: the SYN+ACK and the ACK of a handshake without incident.
//!
//! It does what [`super::general`] does with them, and leaves the questions out whose answers are known. A test
//! holds the two equal.

use super::{Change, Conditions, Segment, SegmentKind, mark_of};
use crate::abi::{NO_POINT, TICK_SHIFT, TcpRecord, tag};
use crate::flow::Side;
use crate::low_half;
use crate::record::TcpState;
use crate::seq::SeqNum;
use crate::verdict::Leg;
use crate::wire::flag;

/// The change by a segment that was expected; `None` where anything is out of the ordinary.
#[inline(always)]
#[must_use]
pub fn straight(
    state: TcpState,
    flags: u32,
    record: &mut TcpRecord,
    side: Side,
    segment: &Segment,
    context: &Conditions,
) -> Option<Change> {
    // Time that runs backwards has a difference that is far above.
    let waited = context.now_ns.wrapping_sub(record.opened_ns);
    if segment.untimed || waited >= MOST_WAITED {
        return None;
    }
    let ticks = low_half(waited >> TICK_SHIFT);
    let from_responder = matches!(side, Side::Responder);
    if matches!(state, TcpState::SynSent) && matches!(segment.kind, SegmentKind::SynAck) && from_responder {
        answer(flags, record, segment, ticks)
    } else if matches!(state, TcpState::SynReceived)
        && matches!(segment.kind, SegmentKind::Ack)
        && !from_responder
        && waited <= context.half_open_after_ns
    {
        complete(flags, record, segment, ticks)
    } else {
        None
    }
}

/// The time that a record has no ticks for.
const MOST_WAITED: u64 = (u32::MAX as u64) << TICK_SHIFT;

/// The number behind a SYN's.
#[inline(always)]
const fn after(isn: u32) -> SeqNum {
    SeqNum(isn).plus(1)
}

/// Does the segment acknowledge, and send nothing?
#[inline(always)]
const fn is_plain_ack(segment: &Segment) -> bool {
    segment.flags & (flag::ACK | flag::FIN) == flag::ACK && segment.payload == 0
}

/// The first SYN+ACK, of one SYN, without data on either side.
#[inline(always)]
fn answer(flags: u32, record: &mut TcpRecord, segment: &Segment, ticks: u32) -> Option<Change> {
    let expected = flags & !tag::INITIATOR_HIGH == 0
        && segment.ack.0 == after(record.isn_initiator).0
        && is_plain_ack(segment)
        && record.points >> 4 == NO_POINT
        && record.syn_ack_after == 0
        && record.latest_after == 0
        && record.syn_ack == 0
        && record.syn <= 1
        && ticks != 0;
    if !expected {
        return None;
    }
    record.points = record.points & 0xf | (segment.point & 0xf) << 4;
    record.isn_responder = segment.seq.0;
    record.syn_data = 0;
    record.responder_sent = 0;
    record.syn_ack = 1;
    record.syn_ack_after = ticks;
    record.latest_after = ticks;
    let flags = flags | tag::SYN_ACK_TIMED;
    Some(Change::stay(TcpState::SynReceived, flags).leg(Leg::SynToSynAck, true))
}

/// The third segment, without data, at the hook point that saw the SYN.
#[inline(always)]
fn complete(flags: u32, record: &mut TcpRecord, segment: &Segment, ticks: u32) -> Option<Change> {
    let expected = flags & !(tag::INITIATOR_HIGH | tag::SYN_ACK_TIMED) == 0
        && is_plain_ack(segment)
        && segment.ack.0 == after(record.isn_responder).0
        && segment.seq.0 == after(record.isn_initiator).0
        && record.points & 0xf == segment.point & 0xf
        && record.responder_sent == 0
        && record.syn_ack_retransmits == 0
        && record.syn_ack_after != 0
        && ticks >= record.syn_ack_after
        && ticks >= record.latest_after;
    if !expected {
        return None;
    }
    record.ack = record.ack.wrapping_add(segment.acks);
    record.syn_data = mark_of(record.latest_ns());
    record.latest_after = ticks;
    let change = Change::stay(TcpState::Established, flags | tag::ACK_TIMED | tag::AWAITS);
    Some(change.leg(Leg::SynAckToAck, true).leg(Leg::Connect, true))
}
