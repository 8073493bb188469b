//! An ACK or a FIN: the third segment's proof, and the connection's end.

use super::{Change, Transition, saturate16};
use crate::abi::tag;
use crate::record::{TcpState, provisional_states};
use crate::seq::SeqNum;
use crate::verdict::{Leg, Sign};
use crate::wire::flag;

impl Transition<'_> {
    #[inline(always)]
    pub(super) fn initiator_ack(&mut self) -> Change {
        match self.state {
            TcpState::SynSent | TcpState::SynReceived if self.has(tag::SIMULTANEOUS) => self.crossed_ack(),
            TcpState::SynSent => self.ack_before_syn_ack(),
            TcpState::SynReceived => self.final_ack(),
            TcpState::Established => self.close_on_fin(),
            TcpState::OrphanSynAck if !self.segment.seq.is_before(self.after_j()) => self.note_early_ack(),
            provisional_states!(TcpState)
            | TcpState::Closed
            | TcpState::Midstream
            | TcpState::OrphanSynAck => self.stay(),
        }
    }

    /// The initiator acknowledges the responder's half of a simultaneous open, or something else.
    #[inline(always)]
    fn crossed_ack(&mut self) -> Change {
        if !self.segment.has(flag::ACK) {
            return self.stay();
        }
        if self.segment.ack != self.after_k() {
            return self.signed(Sign::BadAck);
        }
        if self.segment.seq.is_before(self.after_j()) {
            return self.stay();
        }
        self.acknowledge(tag::RESPONDER_ACKED)
    }

    /// No SYN+ACK was seen: it may yet be, or never will on a one-sided view.
    #[inline(always)]
    fn ack_before_syn_ack(&mut self) -> Change {
        if !self.segment.has(flag::ACK) || self.segment.seq.is_before(self.after_j()) {
            return self.stay();
        }
        if self.context.one_sided && self.follows_syn() {
            self.record.isn_responder = self.segment.ack.plus(u32::MAX).0;
            self.flags |= tag::ONE_SIDED;
            return self.stay().leg(Leg::SynToSynAck, false).to(TcpState::Established);
        }
        self.note_early_ack()
    }

    #[inline(always)]
    pub(super) fn note_early_ack(&mut self) -> Change {
        if !self.segment.has(flag::ACK) {
            return self.stay();
        }
        self.record.other_ack = self.segment.ack.0;
        Change::stay(self.state, self.flags | tag::EARLY_ACK)
    }

    /// The third segment, proven: it acknowledges a K that was sent, and continues after J.
    #[inline(always)]
    fn final_ack(&mut self) -> Change {
        if !self.segment.has(flag::ACK) {
            return self.stay();
        }
        let latest = self.segment.ack.is_within(self.after_k(), self.record.responder_sent as u32);
        if !latest && !self.acks_other_k() {
            return self.signed(Sign::BadAck);
        }
        if self.segment.seq.is_before(self.after_j()) {
            return self.stay();
        }
        if !latest {
            // The K before was the real one: it is K from now on.
            core::mem::swap(&mut self.record.isn_responder, &mut self.record.other_ack);
        }
        self.stay().to(TcpState::Established)
    }

    #[inline(always)]
    fn acks_other_k(&self) -> bool {
        self.has(tag::SECOND_K) && self.segment.ack == SeqNum(self.record.other_ack).plus(1)
    }

    #[inline(always)]
    fn close_on_fin(&self) -> Change {
        if self.segment.has(flag::FIN) { self.stay().to(TcpState::Closed) } else { self.stay() }
    }

    #[inline(always)]
    pub(super) fn responder_ack(&mut self) -> Change {
        match self.state {
            TcpState::SynSent | TcpState::SynReceived
                if self.has(tag::SIMULTANEOUS)
                    && self.acks_syn()
                    && !self.segment.seq.is_before(self.after_k()) =>
            {
                self.acknowledge(tag::INITIATOR_ACKED)
            }
            TcpState::SynReceived => self.responder_data(),
            TcpState::Established => self.close_on_fin(),
            TcpState::SynSent
            | provisional_states!(TcpState)
            | TcpState::Closed
            | TcpState::Midstream
            | TcpState::OrphanSynAck => self.stay(),
        }
    }

    /// The responder may send before the final ACK (Fast Open); the ACK may then acknowledge that too.
    #[inline(always)]
    fn responder_data(&mut self) -> Change {
        let sent = self.segment.end().since(self.after_k());
        if sent <= u16::MAX as u32 && !self.segment.seq.is_before(self.after_k()) {
            self.record.responder_sent = self.record.responder_sent.max(saturate16(sent));
        }
        self.stay()
    }
}
