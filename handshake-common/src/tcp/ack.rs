//! An ACK or a FIN: the third segment's proof, and the connection's end.

use super::{Change, Transition, saturate16};
use crate::abi::tag;
use crate::record::TcpState;
use crate::seq::SeqNum;
use crate::verdict::{Leg, Sign};
use crate::wire::flag;

impl Transition<'_> {
    #[inline(always)]
    pub(super) fn initiator_ack(&mut self) -> Change {
        match self.state {
            TcpState::SynSent | TcpState::SynReceived if self.has(tag::SIMULTANEOUS) => self.crossed_ack(),
            TcpState::SynSent | TcpState::AnswerUnseen => self.ack_before_syn_ack(),
            TcpState::SynReceived => self.final_ack(),
            TcpState::InitiatorAborted | TcpState::ResponderAborted => self.ack_after_abort(),
            TcpState::Established => self.close_on_fin(),
            TcpState::OrphanSynAck => self.ack_before_syn(),
            TcpState::Refused | TcpState::Unreachable | TcpState::Closed | TcpState::Midstream => self.stay(),
        }
    }

    /// The initiator acknowledges the responder's half of a simultaneous open, or something else.
    #[inline(always)]
    fn crossed_ack(&mut self) -> Change {
        if !self.segment.has(flag::ACK) {
            return self.stay();
        }
        if self.segment.ack != self.after_k() || !self.is_in_window(self.after_j()) {
            return self.marked(tag::BAD_ACK, Sign::BadAck);
        }
        self.acknowledge(tag::RESPONDER_ACKED)
    }

    /// The initiator continues as if it was answered, and no SYN+ACK was seen: it may yet be, or never will on a
    /// one-sided view. The first such ACK is kept: later ones may acknowledge more.
    #[inline(always)]
    fn ack_before_syn_ack(&mut self) -> Change {
        let fits = self.is_in_window(self.after_j());
        let fits_other = self.holds(tag::OTHER_J) && self.is_in_window(self.after_other());
        if !self.segment.has(flag::ACK) || !(fits || fits_other) {
            return self.stay();
        }
        if self.has(tag::KEPT_K) && fits_other && self.is_sent(self.segment.ack, self.after_k()) {
            self.change_places();
            // Its time is not known.
            self.record.syn_ack_after = 1;
            return Self::revised(self.stay().leg(Leg::SynToSynAck, false).to(TcpState::Established));
        }
        if self.context.one_sided && self.follows_syn() {
            self.record.isn_responder = self.segment.ack.plus(u32::MAX).0;
            self.flags = self.emptied() | tag::ONE_SIDED;
            return self.stay().leg(Leg::SynToSynAck, false).to(TcpState::Established);
        }
        self.note_early_ack().to(TcpState::AnswerUnseen)
    }

    /// The SYN+ACK was seen, and its SYN was not.
    #[inline(always)]
    fn ack_before_syn(&mut self) -> Change {
        let fits = self.segment.has(flag::ACK)
            && self.is_in_window(self.after_j())
            && self.is_sent(self.segment.ack, self.after_k());
        if fits { self.note_early_ack() } else { self.stay() }
    }

    #[inline(always)]
    fn note_early_ack(&mut self) -> Change {
        if self.holds(0) {
            self.record.other_ack = self.segment.ack.0;
            self.flags |= tag::EARLY_ACK;
        }
        self.stay()
    }

    /// The third segment is proven, or proves nothing.
    #[inline(always)]
    fn final_ack(&mut self) -> Change {
        if !self.segment.has(flag::ACK) {
            return self.stay();
        }
        self.unsettle_claim();
        let j = self.record.isn_initiator;
        if !self.prove() {
            return self.marked(tag::BAD_ACK, Sign::BadAck);
        }
        if self.has(tag::DENIABLE) {
            self.expect_denial();
        }
        let change = self.stay().to(TcpState::Established);
        if self.record.isn_initiator == j { change } else { Self::revised(change) }
    }

    /// A proven third segment takes an abort back: a RST with a wrong checksum reached neither end.
    #[inline(always)]
    fn ack_after_abort(&mut self) -> Change {
        if !self.is_answered() || !self.segment.has(flag::ACK) || !self.prove() {
            return self.stay();
        }
        self.flags |= self.deniable();
        self.expect_denial();
        Self::revised(self.stay().to(TcpState::Established))
    }

    /// What an attempt is marked with that is taken up after a RST, without a SYN+ACK since.
    #[inline(always)]
    pub(super) fn deniable(&self) -> u32 {
        match self.state {
            TcpState::InitiatorAborted => tag::INITIATOR_RESET,
            TcpState::ResponderAborted => tag::RESPONDER_RESET,
            TcpState::SynSent
            | TcpState::AnswerUnseen
            | TcpState::SynReceived
            | TcpState::Refused
            | TcpState::Unreachable
            | TcpState::Established
            | TcpState::Closed
            | TcpState::Midstream
            | TcpState::OrphanSynAck => 0,
        }
    }

    /// Keeps where the responder's RST would stand, if it knows of no connection.
    #[inline(always)]
    fn expect_denial(&mut self) {
        self.record.responder_sent = saturate16(self.segment.ack.since(self.after_k()));
    }

    /// Does the segment acknowledge a K that was sent, and continue after its J? These are J and K from now on.
    #[inline(always)]
    fn prove(&mut self) -> bool {
        let ack = self.segment.ack;
        if self.is_in_window(self.next_of_initiator()) {
            if self.is_sent(ack, self.after_k()) {
                return true;
            }
            if self.holds(tag::SECOND_K) && self.is_sent(ack, self.after_other()) {
                core::mem::swap(&mut self.record.isn_responder, &mut self.record.other_ack);
                return true;
            }
        }
        let other_k = SeqNum(self.record.syn_ack_after);
        let other = self.has(tag::OTHER_K)
            && self.is_in_window(self.after_other())
            && self.is_sent(ack, other_k.plus(1));
        if other {
            self.change_places();
            self.record.syn_ack_after = self.record.isn_responder;
            self.record.isn_responder = other_k.0;
        }
        other
    }

    #[inline(always)]
    fn close_on_fin(&self) -> Change {
        if self.segment.has(flag::FIN) { self.stay().to(TcpState::Closed) } else { self.stay() }
    }

    /// The responder has a connection: what it resets from here on denies no third segment.
    #[inline(always)]
    fn responder_continues(&mut self) -> Change {
        self.flags &= !tag::DENIABLE;
        self.close_on_fin()
    }

    #[inline(always)]
    pub(super) fn responder_ack(&mut self) -> Change {
        match self.state {
            TcpState::SynSent | TcpState::SynReceived
                if self.has(tag::SIMULTANEOUS)
                    && self.acks_syn()
                    && self.segment.seq.is_within(self.after_k(), u16::MAX as u32) =>
            {
                self.acknowledge(tag::INITIATOR_ACKED)
            }
            TcpState::SynReceived => {
                self.unsettle_claim();
                self.responder_data()
            }
            TcpState::InitiatorAborted | TcpState::ResponderAborted | TcpState::OrphanSynAck => {
                self.responder_data()
            }
            TcpState::Established | TcpState::Closed => self.responder_continues(),
            TcpState::SynSent
            | TcpState::AnswerUnseen
            | TcpState::Refused
            | TcpState::Unreachable
            | TcpState::Midstream => self.stay(),
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
