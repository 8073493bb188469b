//! A SYN+ACK: the first, the same again, another, half of a simultaneous open.

use super::{Change, Transition};
use crate::abi::tag;
use crate::record::{TcpState, provisional_states};
use crate::seq::SeqNum;
use crate::verdict::{Leg, Sign};

impl Transition<'_> {
    #[inline(always)]
    pub(super) fn responder_syn_ack(&mut self) -> Change {
        let valid = self.acks_syn();
        if valid {
            self.uncross();
        }
        match self.state {
            TcpState::SynSent | TcpState::SynReceived if self.has(tag::SIMULTANEOUS) && valid => {
                self.acknowledge_by(tag::INITIATOR_ACKED)
            }
            TcpState::SynSent if valid => self.first_syn_ack(),
            TcpState::SynReceived if valid => self.further_syn_ack(),
            TcpState::SynSent | TcpState::SynReceived => self.signed(Sign::BadSynAck),
            TcpState::Established | TcpState::Closed if valid => self.syn_ack_after_completion(),
            provisional_states!(TcpState) if valid => self.take_up_by_syn_ack(),
            TcpState::Established
            | provisional_states!(TcpState)
            | TcpState::Closed
            | TcpState::Midstream
            | TcpState::OrphanSynAck => self.stay(),
        }
    }

    /// SYN-SENT → SYN-RECEIVED. The first leg is known unless the SYN was repeated (Karn's rule, RFC 6298
    /// §3).
    #[inline(always)]
    fn first_syn_ack(&mut self) -> Change {
        self.record.isn_responder = self.segment.seq.0;
        self.record.syn_ack_after = self.ticks().max(1);
        self.record.latest_after = self.record.syn_ack_after;
        let known = self.record.syn <= 1 && !self.early_ack_fits();
        let change = Change::stay(TcpState::SynReceived, self.flags).leg(Leg::SynToSynAck, known);
        self.settle_early_ack(change)
    }

    /// The final ACK came before its SYN+ACK: it fits, or it was about something else.
    #[inline(always)]
    pub(super) fn settle_early_ack(&mut self, change: Change) -> Change {
        if !self.has(tag::EARLY_ACK) {
            return change;
        }
        let fits = self.early_ack_fits();
        self.record.other_ack = 0;
        let flags = change.flags & !tag::EARLY_ACK | if fits { tag::UNTIMED } else { 0 };
        let change = Change { flags, ..change };
        if fits { change.to(TcpState::Established) } else { change.sign(Sign::BadAck) }
    }

    #[inline(always)]
    fn early_ack_fits(&self) -> bool {
        self.has(tag::EARLY_ACK) && SeqNum(self.record.other_ack) == self.after_k()
    }

    /// A SYN+ACK after the first: the same again, or one with another K (SYN cookies, a second server).
    #[inline(always)]
    fn further_syn_ack(&mut self) -> Change {
        let k = self.segment.seq.0;
        if !self.is_a_k(self.segment.seq) {
            self.record.other_ack = self.record.isn_responder;
            self.record.isn_responder = k;
            self.record.responder_sent = 0;
            self.record.latest_after = self.ticks();
            return Change::stay(self.state, self.flags | tag::SECOND_K);
        }
        if !self.counted {
            return self.stay();
        }
        self.record.syn_ack_retransmits = self.record.syn_ack_retransmits.saturating_add(1);
        self.record.latest_after = self.ticks();
        self.signed(Sign::SynAckRetransmit)
    }

    /// The same SYN+ACK after a valid final ACK: the responder did not take it.
    #[inline(always)]
    fn syn_ack_after_completion(&mut self) -> Change {
        let again = self.segment.seq.0 == self.record.isn_responder && self.record.syn_ack > 1;
        if !again || !self.counted || self.has(tag::SIMULTANEOUS) {
            return self.stay();
        }
        self.record.syn_ack_retransmits = self.record.syn_ack_retransmits.saturating_add(1);
        self.signed(Sign::AckIgnored)
    }

    /// The real SYN+ACK after a forged or early end.
    #[inline(always)]
    fn take_up_by_syn_ack(&mut self) -> Change {
        let first = self.record.syn_ack_after == 0;
        if !first && !self.counted {
            return self.stay();
        }
        let change = if self.has(tag::SIMULTANEOUS) {
            self.acknowledge_by(tag::INITIATOR_ACKED)
        } else if first {
            self.first_syn_ack()
        } else {
            Change { state: TcpState::SynReceived, ..self.further_syn_ack() }
        };
        change.sign(Sign::Revised)
    }

    /// A SYN+ACK of the initiator is half of a simultaneous open, or nothing.
    #[inline(always)]
    pub(super) fn initiator_syn_ack(&mut self) -> Change {
        let valid = self.has(tag::SIMULTANEOUS)
            && self.segment.ack == self.after_k()
            && self.segment.seq.0 == self.record.isn_initiator;
        match self.state {
            TcpState::SynSent | TcpState::SynReceived if valid => self.acknowledge_by(tag::RESPONDER_ACKED),
            provisional_states!(TcpState) if valid && self.counted => {
                self.acknowledge_by(tag::RESPONDER_ACKED).sign(Sign::Revised)
            }
            TcpState::SynSent
            | TcpState::SynReceived
            | TcpState::Established
            | provisional_states!(TcpState)
            | TcpState::Closed
            | TcpState::Midstream
            | TcpState::OrphanSynAck => self.stay(),
        }
    }

    /// One of a simultaneous open's SYNs is acknowledged; with both the connection is established.
    #[inline(always)]
    pub(super) fn acknowledge(&mut self, which: u16) -> Change {
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
    fn acknowledge_by(&mut self, which: u16) -> Change {
        let again = self.has(which) && self.counted;
        self.record.latest_after = self.ticks();
        let change = self.acknowledge(which);
        if !again {
            return change;
        }
        self.record.syn_ack_retransmits = self.record.syn_ack_retransmits.saturating_add(1);
        change.sign(Sign::SynAckRetransmit)
    }

    /// A valid SYN+ACK with another number than the responder's SYN, of which neither end has acknowledged
    /// anything: that SYN was a stranger's, and the open is none of two halves.
    #[inline(always)]
    fn uncross(&mut self) {
        let acked = tag::INITIATOR_ACKED | tag::RESPONDER_ACKED;
        if !self.has(acked) && self.segment.seq.0 != self.record.isn_responder {
            self.flags &= !tag::SIMULTANEOUS;
        }
    }
}
