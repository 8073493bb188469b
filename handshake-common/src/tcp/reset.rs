//! What ends an attempt for now: a RST at the expected number, an ICMP error that quotes the SYN.

use super::{Change, Transition};
use crate::abi::tag;
use crate::record::{TcpState, provisional_states};
use crate::seq::SeqNum;
use crate::wire::flag;

impl Transition<'_> {
    #[inline(always)]
    pub(super) fn initiator_rst(&mut self) -> Change {
        match self.state {
            TcpState::SynSent | TcpState::AnswerUnseen | TcpState::SynReceived if self.follows_syn() => {
                self.end(TcpState::InitiatorAborted)
            }
            TcpState::Established | TcpState::Closed => self.initiator_closes(),
            TcpState::SynSent
            | TcpState::AnswerUnseen
            | TcpState::SynReceived
            | provisional_states!(TcpState)
            | TcpState::Midstream
            | TcpState::OrphanSynAck => self.stay(),
        }
    }

    #[inline(always)]
    pub(super) fn responder_rst(&mut self) -> Change {
        match self.state {
            TcpState::SynSent | TcpState::AnswerUnseen if self.acks_syn() => self.end(TcpState::Refused),
            TcpState::SynReceived if self.follows_syn_ack() => self.end(TcpState::ResponderAborted),
            // A FIN in the third segment closes the connection at once.
            TcpState::Established | TcpState::Closed if self.denies_completion() => self.abort_again(),
            TcpState::Established => self.stay().to(TcpState::Closed),
            TcpState::SynSent
            | TcpState::AnswerUnseen
            | TcpState::SynReceived
            | provisional_states!(TcpState)
            | TcpState::Closed
            | TcpState::Midstream
            | TcpState::OrphanSynAck => self.stay(),
        }
    }

    /// The initiator ends the connection: a RST of the responder answers what is sent after it.
    #[inline(always)]
    fn initiator_closes(&mut self) -> Change {
        self.flags &= !tag::DENIABLE;
        self.stay().to(TcpState::Closed)
    }

    /// The third segment took an abort back, and this is how an end without a connection answers it: a RST
    /// without ACK, at the number that the segment acknowledged (RFC 9293 §3.10.7.1). Beside the SYN of
    /// another attempt that number is not kept, and most acknowledge K+1.
    #[inline(always)]
    fn denies_completion(&self) -> bool {
        let acked = if self.holds(tag::OTHER_J) { 0 } else { self.record.responder_sent as u32 };
        self.has(tag::DENIABLE)
            && !self.segment.has(flag::ACK)
            && self.segment.seq == self.after_k().plus(acked)
    }

    /// The abort was right.
    #[inline(always)]
    fn abort_again(&mut self) -> Change {
        let by_initiator = self.has(tag::INITIATOR_RESET);
        self.flags &= !(tag::DENIABLE | tag::ACK_TIMED | tag::LATE);
        // It was a time since the completion.
        self.record.syn_data = 0;
        self.end(if by_initiator { TcpState::InitiatorAborted } else { TcpState::ResponderAborted })
    }

    /// The attempt ends, provisionally, at this moment.
    #[inline(always)]
    fn end(&mut self, state: TcpState) -> Change {
        self.touch();
        // Over IPv4 an ICMP error's sender takes the place of K.
        self.flags &= !tag::KEPT_K;
        self.stay().to(state)
    }

    /// Is the segment's number one that the responder may continue with after a SYN+ACK of its own?
    #[inline(always)]
    fn follows_syn_ack(&self) -> bool {
        let seq = self.segment.seq;
        self.is_sent(seq, self.after_k())
            || (self.holds(tag::SECOND_K) && self.is_sent(seq, self.after_other()))
            || (self.has(tag::OTHER_K) && self.is_sent(seq, SeqNum(self.record.syn_ack_after).plus(1)))
    }

    #[inline(always)]
    pub(super) fn initiator_unreachable(&mut self) -> Change {
        match self.state {
            TcpState::SynSent | TcpState::AnswerUnseen if self.segment.seq.0 == self.record.isn_initiator => {
                self.end(TcpState::Unreachable)
            }
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
}
