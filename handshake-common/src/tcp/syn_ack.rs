//! A SYN+ACK: the first, the same again, another, half of a simultaneous open.

use super::{Change, Transition, mark_of, saturate16};
use crate::abi::tag;
use crate::record::{TcpState, provisional_states};
use crate::seq::SeqNum;
use crate::verdict::{Leg, Sign};

impl Transition<'_> {
    #[inline(always)]
    pub(super) fn responder_syn_ack(&mut self) -> Change {
        if self.acks_syn() {
            self.uncross();
        }
        let crossed = self.has(tag::SIMULTANEOUS);
        // With another number it is not the sender of the SYN that the initiator acknowledged.
        let valid = self.acks_syn() && (!crossed || self.segment.seq.0 == self.record.isn_responder);
        match self.state {
            TcpState::SynSent | TcpState::SynReceived if crossed && valid => {
                self.acknowledge_by(tag::INITIATOR_ACKED)
            }
            TcpState::SynSent | TcpState::AnswerUnseen if valid => self.first_syn_ack(),
            TcpState::SynSent | TcpState::AnswerUnseen if !crossed && self.acks_kept_j() => {
                self.change_places();
                Self::revised(self.first_syn_ack())
            }
            // The numbers of further SYNs were not kept: this may acknowledge one of them.
            TcpState::SynSent | TcpState::AnswerUnseen if !crossed && self.has(tag::FURTHER_J) => {
                self.take_for_j()
            }
            TcpState::SynReceived if valid => self.further_syn_ack(),
            TcpState::SynReceived if !crossed && self.has(tag::COUNTED_J) && self.acks_kept_j() => {
                self.note_other_k()
            }
            TcpState::SynReceived if !crossed && self.has(tag::COUNTED_J) && self.has(tag::FURTHER_J) => {
                self.take_for_j()
            }
            TcpState::SynReceived | TcpState::Established if self.answers_claim() => self.accept_claim(),
            TcpState::SynSent | TcpState::AnswerUnseen | TcpState::SynReceived => {
                self.marked(tag::BAD_SYN_ACK, Sign::BadSynAck)
            }
            TcpState::Established | TcpState::Closed => self.syn_ack_after_completion(),
            provisional_states!(TcpState) if valid => self.take_up_by_syn_ack(),
            provisional_states!(TcpState) if !crossed && self.has(tag::COUNTED_J) && self.acks_kept_j() => {
                self.take_up_kept_j()
            }
            provisional_states!(TcpState)
                if !crossed && self.has(tag::COUNTED_J) && self.has(tag::FURTHER_J) =>
            {
                self.take_for_j()
            }
            provisional_states!(TcpState) if self.answers_claim() => self.accept_claim(),
            TcpState::OrphanSynAck => {
                self.note_sent();
                self.stay()
            }
            provisional_states!(TcpState) | TcpState::Midstream => self.stay(),
        }
    }

    /// Does the segment acknowledge the SYN of the J beside? Its data was not kept.
    #[inline(always)]
    fn acks_kept_j(&self) -> bool {
        self.holds(tag::OTHER_J) && self.segment.ack.is_within(self.after_other(), u16::MAX as u32)
    }

    /// Keeps how much of the SYN's data the SYN+ACK acknowledges.
    #[inline(always)]
    fn note_acked(&mut self, data: u32) {
        self.record.syn_data = saturate16(data);
        self.flags |= if data != 0 { tag::FAST_OPEN } else { 0 };
    }

    /// SYN-SENT → SYN-RECEIVED. The first leg is known unless the SYN was repeated (Karn's rule, RFC 6298
    /// §3), and if the time rises.
    #[inline(always)]
    fn first_syn_ack(&mut self) -> Change {
        let ticks = self.ticks();
        self.note_acked(self.segment.ack.since(self.after_j()));
        let kept_k = self.record.isn_responder;
        self.record.isn_responder = self.segment.seq.0;
        if self.has(tag::KEPT_K) {
            self.record.syn_ack_after = kept_k;
            self.flags = (self.flags | tag::OTHER_K | tag::UNTIMED) & !tag::KEPT_K;
        } else if !self.has(tag::OTHER_K) {
            self.record.syn_ack_after = ticks.max(1);
        }
        self.record.responder_sent = saturate16(self.segment.sent());
        self.touch();
        if self.context.now_ns < self.record.opened_ns {
            self.flags |= tag::UNTIMED;
        }
        let known = self.record.syn <= 1
            && !self.has(tag::UNTIMED)
            && ticks != u32::MAX
            && !(self.holds(tag::EARLY_ACK) && self.early_ack_fits());
        let timed = if known { tag::SYN_ACK_TIMED } else { 0 };
        let change = Change::stay(TcpState::SynReceived, self.flags | timed).leg(Leg::SynToSynAck, known);
        self.settle_early_ack(change)
    }

    /// The final ACK came before its SYN+ACK: it fits, or it was about something else.
    #[inline(always)]
    pub(super) fn settle_early_ack(&mut self, change: Change) -> Change {
        if !self.holds(tag::EARLY_ACK) {
            return change;
        }
        let fits = self.early_ack_fits();
        self.record.other_ack = 0;
        let flags = change.flags & !tag::EARLY_ACK;
        if fits {
            return Change { flags: flags | tag::UNTIMED, ..change }.to(TcpState::Established);
        }
        Change { flags: flags | tag::BAD_ACK, ..change }.sign(Sign::BadAck)
    }

    #[inline(always)]
    fn early_ack_fits(&self) -> bool {
        self.is_sent(SeqNum(self.record.other_ack), self.after_k())
    }

    /// Of several SYNs the numbers of two are kept, and the SYN+ACK acknowledges neither. The SYN that it
    /// acknowledges is J until another SYN+ACK says otherwise; only the third segment proves it.
    #[inline(always)]
    fn take_for_j(&mut self) -> Change {
        self.record.isn_initiator = self.segment.ack.plus(u32::MAX).0;
        self.flags |= tag::UNTIMED;
        Self::revised(self.first_syn_ack())
    }

    /// The SYN+ACK of the J beside: a server with SYN cookies answers each SYN. Either may be the one that
    /// the initiator acknowledges.
    #[inline(always)]
    fn note_other_k(&mut self) -> Change {
        let revoked = self.has(tag::SYN_ACK_TIMED);
        self.record.syn_ack_after = self.segment.seq.0;
        self.flags = (self.flags | tag::UNTIMED | tag::OTHER_K) & !tag::SYN_ACK_TIMED;
        self.note_sent();
        self.touch();
        Change { revoked, ..self.stay() }
    }

    /// The responder's data in a SYN+ACK (RFC 9293 §3.4, RFC 7413 §4.2): what comes after may acknowledge it.
    #[inline(always)]
    fn note_sent(&mut self) {
        self.record.responder_sent = self.record.responder_sent.max(saturate16(self.segment.sent()));
    }

    /// A SYN+ACK after the first: the same again, or one with another K (SYN cookies, a second server).
    #[inline(always)]
    fn further_syn_ack(&mut self) -> Change {
        let k = self.segment.seq.0;
        self.note_sent();
        if self.has(tag::FAST_OPEN) {
            // Two servers may take more and less: a third segment that follows either is in the window.
            let acked = saturate16(self.segment.ack.since(self.after_j()));
            self.record.syn_data = self.record.syn_data.min(acked);
        }
        if self.counted {
            // The responder took the SYN that came again.
            self.flags &= !tag::DENIABLE;
        }
        if !self.is_a_k(self.segment.seq) {
            let has_ended = !matches!(self.state, TcpState::SynReceived);
            if has_ended && self.holds(tag::OTHER_J) {
                // Of what a RST has ended K is dead, and the SYN beside may be the next to be answered.
                self.record.isn_responder = k;
                self.touch();
                return self.stay();
            }
            if self.holds(tag::OTHER_J) && !self.has(tag::FAST_OPEN) {
                // It was the time of that SYN.
                self.record.syn_data = 0;
            }
            self.flags = self.emptied() | tag::SECOND_K;
            self.record.other_ack = self.record.isn_responder;
            self.record.isn_responder = k;
            self.touch();
            return self.stay();
        }
        if !self.counted {
            return self.stay();
        }
        self.record.syn_ack_retransmits = self.record.syn_ack_retransmits.saturating_add(1);
        self.touch();
        self.signed(Sign::SynAckRetransmit)
    }

    /// The same SYN+ACK after a valid final ACK: the responder did not take it.
    #[inline(always)]
    fn syn_ack_after_completion(&mut self) -> Change {
        let again = self.segment.seq.0 == self.record.isn_responder && self.record.syn_ack > 1;
        if !again || !self.counted || self.has(tag::SIMULTANEOUS) {
            return self.stay();
        }
        if !self.holds(tag::OTHER_J) {
            self.record.syn_data = mark_of(self.context.now_ns);
        }
        self.record.syn_ack_retransmits = self.record.syn_ack_retransmits.saturating_add(1);
        self.signed(Sign::AckIgnored)
    }

    /// The real SYN+ACK after a forged or early end.
    #[inline(always)]
    fn take_up_by_syn_ack(&mut self) -> Change {
        let first = !self.record.is_answered(self.flags);
        if !first && !self.counted {
            return self.stay();
        }
        Self::revised(if self.has(tag::SIMULTANEOUS) {
            self.acknowledge_by(tag::INITIATOR_ACKED)
        } else if first {
            self.first_syn_ack()
        } else {
            Change { state: TcpState::SynReceived, ..self.further_syn_ack() }
        })
    }

    /// The attempt has ended, and the responder answers the SYN of the J beside: one of the two was a
    /// stranger's. J and K stay beside, for a RST may be taken back.
    #[inline(always)]
    fn take_up_kept_j(&mut self) -> Change {
        let was_answered = self.is_answered();
        self.change_places();
        self.flags &= !(tag::OTHER_K | tag::DENIABLE);
        if was_answered {
            self.flags |= tag::KEPT_K;
        }
        Self::revised(self.first_syn_ack())
    }

    /// A SYN+ACK of the initiator is half of a simultaneous open, answers the responder's SYN, or is nothing.
    #[inline(always)]
    pub(super) fn initiator_syn_ack(&mut self) -> Change {
        let valid = self.has(tag::SIMULTANEOUS)
            && self.segment.ack == self.after_k()
            && self.segment.seq.0 == self.record.isn_initiator;
        match self.state {
            TcpState::SynSent | TcpState::SynReceived if valid => self.acknowledge_by(tag::RESPONDER_ACKED),
            TcpState::SynSent | TcpState::AnswerUnseen if self.answers_crossed() => {
                // The initiator's SYN was a stranger's: this is the responder of the other SYN.
                self.record.other_ack = self.record.isn_responder;
                self.accept_claim()
            }
            provisional_states!(TcpState) if valid && self.counted => {
                Self::revised(self.acknowledge_by(tag::RESPONDER_ACKED))
            }
            TcpState::SynReceived | TcpState::Established if self.answers_claim() => self.accept_claim(),
            TcpState::SynSent
            | TcpState::AnswerUnseen
            | TcpState::SynReceived
            | TcpState::Established
            | provisional_states!(TcpState)
            | TcpState::Closed
            | TcpState::Midstream
            | TcpState::OrphanSynAck => self.stay(),
        }
    }

    /// Does the initiator acknowledge the responder's SYN with another number than its own SYN's, while
    /// neither end has acknowledged anything?
    #[inline(always)]
    fn answers_crossed(&self) -> bool {
        self.has(tag::SIMULTANEOUS)
            && !self.has(tag::INITIATOR_ACKED | tag::RESPONDER_ACKED)
            && self.segment.seq.0 != self.record.isn_initiator
            && self.segment.ack.is_within(self.after_k(), u16::MAX as u32)
    }

    /// One of a simultaneous open's SYNs is acknowledged; with both the connection is established.
    #[inline(always)]
    pub(super) fn acknowledge(&mut self, which: u32) -> Change {
        let both = tag::INITIATOR_ACKED | tag::RESPONDER_ACKED;
        self.flags |= which;
        if self.record.syn_ack_after == 0 {
            self.record.syn_ack_after = self.ticks().max(1);
        }
        let change = Change::stay(TcpState::SynReceived, self.flags);
        if self.flags & both == both {
            change.leg(Leg::SynToSynAck, false).to(TcpState::Established)
        } else {
            change
        }
    }

    /// The same by a SYN+ACK: it may be one again, and keeps the attempt young.
    #[inline(always)]
    fn acknowledge_by(&mut self, which: u32) -> Change {
        let again = self.has(which) && self.counted;
        self.touch();
        let change = self.acknowledge(which);
        if !again {
            return change;
        }
        self.record.syn_ack_retransmits = self.record.syn_ack_retransmits.saturating_add(1);
        change.sign(Sign::SynAckRetransmit)
    }

    /// A SYN+ACK that acknowledges J, with another number than the responder's SYN, of which neither end has
    /// acknowledged anything: that SYN was a stranger's, and the open is none of two halves. Once the
    /// initiator has answered the stranger, it takes no other number (it is in SYN-RECEIVED, RFC 9293
    /// §3.10.7.4).
    #[inline(always)]
    fn uncross(&mut self) {
        let acked = tag::INITIATOR_ACKED | tag::RESPONDER_ACKED;
        if !self.has(acked) && self.segment.seq.0 != self.record.isn_responder {
            self.flags &= !tag::SIMULTANEOUS;
        }
    }
}
