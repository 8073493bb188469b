//! A SYN: the first, the same again, the other end's, a stranger's.

use super::{CLAIM_AFTER_NS, Change, Transition, begin, low_16, mark_of, saturate16, units};
use crate::abi::tag;
use crate::flow::Side;
use crate::record::{TcpState, provisional_states};
use crate::verdict::{Leg, Sign};

impl Transition<'_> {
    #[inline(always)]
    pub(super) fn initiator_syn(&mut self) -> Change {
        let same = self.segment.seq.0 == self.record.isn_initiator;
        match self.state {
            TcpState::SynSent | TcpState::AnswerUnseen | TcpState::SynReceived if same => self.repeat_syn(),
            TcpState::SynSent | TcpState::AnswerUnseen if self.is_kept_j() => self.repeat_kept_syn(),
            TcpState::SynSent | TcpState::AnswerUnseen => self.supersede(),
            TcpState::Established if same => self.repeat_after_completion(),
            TcpState::SynReceived | TcpState::Established => self.claim(),
            provisional_states!(TcpState) if same => self.take_up_by_syn(),
            TcpState::OrphanSynAck if self.is_orphans_syn() => self.adopt(),
            // The copy at another hook point of a SYN whose connection is over already.
            TcpState::Closed if same && !self.counted => self.stay(),
            TcpState::Midstream if self.is_kept_j() || !self.context.admits => self.keep_early_syn(),
            provisional_states!(TcpState) if self.holds(tag::OTHER_J) && self.has(tag::COUNTED_J) => {
                self.supersede()
            }
            provisional_states!(TcpState)
            | TcpState::Closed
            | TcpState::Midstream
            | TcpState::OrphanSynAck => self.begin(),
        }
    }

    /// The segment begins an attempt in the place of this record.
    #[inline(always)]
    fn begin(&mut self) -> Change {
        let flags = begin(self.record, self.segment, self.context.now_ns, self.context.veil);
        Change { new_attempt: true, ..Change::stay(TcpState::SynSent, flags | self.high_sender()) }
    }

    /// [`tag::INITIATOR_HIGH`] as it is where the segment's sender is the initiator.
    #[inline(always)]
    fn high_sender(&self) -> u32 {
        let exchanged = matches!(self.side, Side::Responder) as u32 * tag::INITIATOR_HIGH;
        (self.flags & tag::INITIATOR_HIGH) ^ exchanged
    }

    /// Another J before any SYN+ACK: the newest SYN is the attempt, and the first J stays beside it. A
    /// stranger may have sent either.
    #[inline(always)]
    fn supersede(&mut self) -> Change {
        let more = self.holds(tag::OTHER_J);
        let first = if more { self.record.other_ack } else { self.record.isn_initiator };
        let kept_k = self.flags & tag::KEPT_K;
        let change = if kept_k == 0 { self.begin() } else { self.begin_beside() };
        self.record.other_ack = first;
        let kept = tag::OTHER_J | tag::COUNTED_J | kept_k | if more { tag::FURTHER_J } else { 0 };
        Change { flags: change.flags | kept, ..change }
    }

    /// Begins an attempt, and keeps K and what the responder sent.
    #[inline(always)]
    fn begin_beside(&mut self) -> Change {
        let (k, sent) = (self.record.isn_responder, self.record.responder_sent);
        let change = self.begin();
        (self.record.isn_responder, self.record.responder_sent) = (k, sent);
        change
    }

    #[inline(always)]
    fn is_kept_j(&self) -> bool {
        self.holds(tag::OTHER_J) && self.segment.seq.0 == self.record.other_ack
    }

    /// The SYN of the J beside comes again: its sender still waits.
    #[inline(always)]
    fn repeat_kept_syn(&mut self) -> Change {
        if !self.counted {
            return self.stay();
        }
        self.change_places();
        Self::revised(self.repeat_syn())
    }

    /// The SYN of an open attempt again. Its data may be left out this time (RFC 7413 §4.1.3), or come now.
    #[inline(always)]
    fn repeat_syn(&mut self) -> Change {
        self.note_syn_data();
        if !self.counted {
            return self.stay();
        }
        self.touch();
        self.signed(Sign::SynRetransmit)
    }

    /// Of data that comes after a SYN+ACK nothing is acknowledged yet.
    #[inline(always)]
    fn note_syn_data(&mut self) {
        if self.segment.payload > self.most_syn_data() {
            let acked = self.is_answered();
            self.record.syn_data = if acked { 0 } else { saturate16(self.segment.payload) };
            self.flags |= tag::FAST_OPEN;
        }
    }

    #[inline(always)]
    fn repeat_after_completion(&mut self) -> Change {
        if self.counted && !self.holds(tag::OTHER_J) {
            self.record.syn_data = mark_of(self.context.now_ns);
        }
        self.signed(Sign::SynRetransmit)
    }

    /// The same SYN after a provisional end: the attempt continues where it was.
    #[inline(always)]
    fn take_up_by_syn(&mut self) -> Change {
        self.note_syn_data();
        if !self.counted {
            return self.stay();
        }
        self.touch();
        if self.is_answered() {
            // A responder may discard this SYN, or not hear it.
            self.flags |= self.deniable();
        }
        let state =
            if self.record.is_answered(self.flags) { TcpState::SynReceived } else { TcpState::SynSent };
        Self::revised(self.stay().sign(Sign::SynRetransmit).to(state))
    }

    /// A SYN with another number after a SYN+ACK. A responder in SYN-RECEIVED or ESTABLISHED ignores it (RFC
    /// 9293 §3.10.7.4, RFC 5961 §4), so it claims to be an attempt, until a SYN+ACK acknowledges it or it
    /// comes again while the old connection is silent.
    #[inline(always)]
    fn claim(&mut self) -> Change {
        let by = if matches!(self.side, Side::Responder) { tag::FURTHER_J } else { 0 };
        let is_answered = matches!(self.state, TcpState::SynReceived);
        if is_answered && !self.holds(0) && (self.holds(tag::SECOND_K) || self.has(tag::COUNTED_J)) {
            // Another number of the attempt's own is in its place.
            return self.signed(Sign::ForeignSyn);
        }
        let has_time = !is_answered || !self.has(tag::FAST_OPEN);
        let acks = low_16(self.record.ack);
        let again = self.is_kept_j() && self.flags & tag::FURTHER_J == by;
        if again {
            let then = self.record.syn_data;
            let since = mark_of(self.context.now_ns).wrapping_sub(then);
            let is_silent = is_answered || self.record.responder_sent == acks;
            if !self.counted || !has_time || (then != 0 && is_silent && since <= units(super::COPY_WITHIN_NS))
            {
                return self.stay();
            }
            if then != 0 && is_silent && since > units(CLAIM_AFTER_NS) && !(is_answered && by != 0) {
                return self.grant_claim(is_answered && self.is_answered());
            }
            if then != 0 && is_silent {
                return self.signed(Sign::ForeignSyn);
            }
        }
        let awaited = self.has(tag::AWAITS);
        self.record.other_ack = self.segment.seq.0;
        self.flags = self.emptied() | tag::OTHER_J | by;
        if has_time {
            self.record.syn_data = mark_of(self.context.now_ns);
        }
        if !is_answered {
            self.record.responder_sent = acks;
        }
        self.signed(Sign::ForeignSyn).without(Leg::AckToFirstByte, awaited)
    }

    /// The SYN that claimed to be an attempt is one. The third segment of an attempt that was answered may
    /// still be on its way, so J and K stay beside. Of two that crossed it is not known that K is the
    /// responder's.
    #[inline(always)]
    fn grant_claim(&mut self, was_answered: bool) -> Change {
        let j = self.record.isn_initiator;
        let change = self.begin_beside();
        self.record.syn = 2;
        let kept = if was_answered {
            self.record.other_ack = j;
            tag::OTHER_J | tag::COUNTED_J | tag::KEPT_K
        } else {
            self.record.isn_responder = 0;
            self.record.responder_sent = 0;
            0
        };
        Change { flags: change.flags | tag::UNTIMED | kept, ..change }.sign(Sign::SynRetransmit)
    }

    /// An ACK of the answered attempt: a SYN that claims to be another is heard anew.
    #[inline(always)]
    pub(super) fn unsettle_claim(&mut self) {
        if self.holds(tag::OTHER_J) && !self.has(tag::COUNTED_J) && !self.has(tag::FAST_OPEN) {
            self.record.syn_data = 0;
        }
    }

    /// Does the segment acknowledge a SYN that claims to be an attempt? Its data was not kept.
    #[inline(always)]
    pub(super) fn answers_claim(&self) -> bool {
        let by_responder = matches!(self.side, Side::Initiator);
        self.holds(tag::OTHER_J)
            && !self.has(tag::COUNTED_J)
            && self.has(tag::FURTHER_J) == by_responder
            && self.segment.ack.is_within(self.after_other(), u16::MAX as u32)
    }

    /// A SYN+ACK acknowledges a SYN that claimed to be an attempt: it is one, and answered.
    #[inline(always)]
    pub(super) fn accept_claim(&mut self) -> Change {
        let (j, k, other, points) =
            (self.record.isn_initiator, self.record.isn_responder, self.record.other_ack, self.record.points);
        let (was_answered, same_end) =
            (matches!(self.state, TcpState::SynReceived), matches!(self.side, Side::Responder));
        let data = self.segment.ack.since(self.after_other());
        let exchanged = if same_end { 0 } else { tag::INITIATOR_HIGH };
        let mut flags = (self.flags & tag::INITIATOR_HIGH) ^ exchanged | tag::UNTIMED;
        begin(self.record, self.segment, self.context.now_ns, self.context.veil);
        self.record.syn = 1;
        self.record.isn_initiator = other;
        self.record.isn_responder = self.segment.seq.0;
        self.record.responder_sent = saturate16(self.segment.sent());
        self.record.syn_data = saturate16(data);
        self.record.syn_ack = 1;
        self.record.syn_ack_after = 1;
        self.record.points = if same_end { points } else { points.rotate_left(4) };
        if data != 0 {
            flags |= tag::FAST_OPEN;
        } else if was_answered && same_end {
            // The SYN+ACK before may still be the one that the initiator acknowledges.
            self.record.other_ack = j;
            self.record.syn_ack_after = k;
            flags |= tag::OTHER_J | tag::COUNTED_J | tag::OTHER_K;
        }
        Change { new_attempt: true, ..Change::stay(TcpState::SynReceived, flags) }
            .leg(Leg::SynToSynAck, false)
    }

    /// A SYN+ACK was seen before its SYN, a short time ago. Of a Fast Open SYN it may have acknowledged the
    /// data too.
    #[inline(always)]
    fn is_orphans_syn(&self) -> bool {
        let waited = self.context.now_ns.saturating_sub(self.record.opened_ns);
        waited <= self.context.half_open_after_ns
            && self.after_j().is_within(self.segment.seq.plus(1), saturate16(self.segment.payload) as u32)
    }

    /// The SYN of a SYN+ACK seen before it (mirror ports reorder).
    #[inline(always)]
    fn adopt(&mut self) -> Change {
        let acked = self.after_j().since(self.segment.seq.plus(1));
        self.record.isn_initiator = self.segment.seq.0;
        self.record.syn_data = saturate16(acked);
        self.record.opened_ns = self.context.now_ns;
        self.record.syn_ack_after = 1;
        self.record.latest_after = 0;
        self.flags |= tag::UNTIMED;
        if self.segment.payload != 0 {
            self.flags |= tag::FAST_OPEN;
        }
        self.settle_early_ack(Change::stay(TcpState::SynReceived, self.flags).leg(Leg::SynToSynAck, false))
    }

    #[inline(always)]
    pub(super) fn responder_syn(&mut self) -> Change {
        let crossed = self.has(tag::SIMULTANEOUS);
        let same = self.is_a_k(self.segment.seq) && (crossed || self.record.is_answered(self.flags));
        match self.state {
            TcpState::SynSent | TcpState::AnswerUnseen if !crossed => self.cross(),
            TcpState::SynSent | TcpState::SynReceived if crossed && same => self.repeat_own_syn(),
            provisional_states!(TcpState) if crossed && same => self.take_up_by_syn(),
            // Split handshake: its own SYN+ACK's number as a SYN, counted and nothing else.
            TcpState::SynReceived
            | TcpState::Established
            | TcpState::InitiatorAborted
            | TcpState::ResponderAborted
                if same =>
            {
                self.count_own_syn()
            }
            TcpState::SynSent | TcpState::AnswerUnseen | TcpState::SynReceived | TcpState::Established => {
                self.claim()
            }
            TcpState::Closed if same && !self.counted => self.stay(),
            TcpState::Midstream if self.is_kept_j() || !self.context.admits => self.keep_early_syn(),
            provisional_states!(TcpState)
            | TcpState::Closed
            | TcpState::Midstream
            | TcpState::OrphanSynAck => self.begin(),
        }
    }

    /// A SYN from before all hooks were on: half of its handshake may be unseen, whenever it comes again.
    #[inline(always)]
    fn keep_early_syn(&mut self) -> Change {
        self.record.other_ack = self.segment.seq.0;
        Change::stay(self.state, self.flags | tag::OTHER_J)
    }

    /// The second half of a simultaneous open.
    #[inline(always)]
    fn cross(&mut self) -> Change {
        self.record.isn_responder = self.segment.seq.0;
        self.touch();
        self.flags = (self.flags | tag::SIMULTANEOUS) & !tag::KEPT_K;
        if self.holds(tag::EARLY_ACK) {
            self.flags = self.emptied();
        }
        self.count_own_syn().to(TcpState::SynSent)
    }

    /// A SYN of the responder's that is not the first is a retransmission; the first is none.
    #[inline(always)]
    fn count_own_syn(&mut self) -> Change {
        if self.counted {
            self.flags |= tag::RESPONDER_SYN;
        }
        self.stay()
    }

    /// The responder's half of a simultaneous open again.
    #[inline(always)]
    fn repeat_own_syn(&mut self) -> Change {
        if self.counted {
            self.touch();
        }
        self.signed(Sign::SynRetransmit)
    }
}
