//! The first bytes of a completed connection: the initiator's data, and the responder's answer to it.
//!
//! ```text
//! completed ─▶ waits ─┬─▶ the initiator sends data ─▶ the responder acknowledges it ─▶ silent after T1
//!                     └─▶ the responder's first byte, or the end of the connection: waits no more
//! ```
//!
//! No payload is read: a segment's length and number say all of it.

use super::{Change, SegmentKind, Transition};
use crate::abi::tag;
use crate::flow::Side;
use crate::record::{SILENT, TcpState};
use crate::seq::SeqNum;
use crate::verdict::{Leg, Sign};
use crate::wire::flag;

impl Transition<'_> {
    /// The flags of a connection that completes with this segment, if it waits for first bytes: 0 where the
    /// responder has sent data before, or its packets do not pass here, or the place of the time is taken.
    /// A Fast Open SYN whose data was acknowledged has brought the initiator's.
    #[inline(always)]
    pub(super) fn first_bytes(&mut self, flags: u32) -> u32 {
        let is_taken = flags & tag::OTHER_J != 0 && flags & tag::COUNTED_J == 0;
        let unclear = tag::ONE_SIDED | tag::SIMULTANEOUS | tag::DENIABLE;
        if is_taken || flags & unclear != 0 || self.record.responder_sent != 0 {
            return 0;
        }
        let in_syn = self.is_answered() && self.syn_data() != 0;
        let acked = if in_syn { tag::INITIATOR_ACKED } else { 0 };
        // A SYN+ACK completes what was acknowledged before it.
        let is_third = matches!((self.segment.kind, self.side), (SegmentKind::Ack, Side::Initiator));
        let has_data = is_third && self.brings_data(self.next_of_initiator());
        tag::AWAITS | acked | if in_syn || has_data { self.keep_request() } else { 0 }
    }

    /// Does the segment have data from this number on?
    #[inline(always)]
    fn brings_data(&self, next: SeqNum) -> bool {
        self.segment.payload != 0 && next.is_before(self.segment.seq.plus(self.segment.payload))
    }

    /// Keeps that the initiator has sent data at this moment.
    #[inline(always)]
    fn keep_request(&mut self) -> u32 {
        self.record.other_ack = self.record.request_mark(self.context.now_ns);
        tag::EARLY_ACK
    }

    /// A segment of a connection that waits for first bytes, at any hook point: which of several sees them
    /// makes no difference.
    #[inline(always)]
    pub(super) fn hear(&mut self, change: Change) -> Change {
        let was_silent = matches!(self.state, TcpState::Established)
            && self.record.is_silent(change.flags, self.context.now_ns, self.context.half_open_after_ns);
        let from_responder = matches!(self.side, Side::Responder);
        let first = if from_responder { self.after_k() } else { self.after_j() };
        let is_ack = matches!(self.segment.kind, SegmentKind::Ack);
        let has_data = is_ack && self.brings_data(first);
        if from_responder && has_data {
            return self.answer(change, was_silent);
        }
        let closes = matches!(change.state, TcpState::Closed) && matches!(self.state, TcpState::Established);
        // The initiator may wait for an answer after its FIN.
        let ends = matches!(self.segment.kind, SegmentKind::Rst)
            || (from_responder && is_ack && self.segment.has(flag::FIN));
        let flags = if ends {
            self.record.other_ack = 0;
            change.flags & !SILENT
        } else if from_responder {
            let acks = is_ack && self.segment.has(flag::ACK) && self.after_j().is_before(self.segment.ack);
            // Before any data of the initiator's passed here, it is its FIN that is acknowledged.
            let acks = acks && change.flags & tag::EARLY_ACK != 0;
            change.flags | if acks { tag::INITIATOR_ACKED } else { 0 }
        } else if has_data && (change.flags & tag::EARLY_ACK == 0 || self.segment.payload != 1) {
            // One byte may be a keep-alive's, which the initiator has sent before.
            change.flags | self.keep_request()
        } else {
            change.flags
        };
        let change = Change { flags, ..change };
        if was_silent && closes { change.sign(Sign::WasSilent) } else { change }
    }

    /// The responder's first byte.
    #[inline(always)]
    fn answer(&mut self, change: Change, was_silent: bool) -> Change {
        let (ticks, completed) = (self.ticks(), self.record.latest_after);
        let known = change.flags & tag::UNTIMED == 0
            && !self.segment.untimed
            && ticks != u32::MAX
            && ticks >= completed;
        self.record.other_ack = if known { ticks.wrapping_sub(completed) } else { 0 };
        let timed = if known { tag::EARLY_ACK } else { 0 };
        let change =
            Change { flags: change.flags & !SILENT | timed, ..change }.leg(Leg::AckToFirstByte, known);
        if was_silent { change.sign(Sign::WasSilent) } else { change }
    }
}
