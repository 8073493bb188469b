//! What ends an attempt for now: a RST at the expected number, an ICMP error that quotes the SYN.

use super::{Change, Transition};
use crate::abi::tag;
use crate::record::{TcpState, provisional_states};
use crate::seq::SeqNum;

impl Transition<'_> {
    #[inline(always)]
    pub(super) fn initiator_rst(&mut self) -> Change {
        match self.state {
            TcpState::SynSent | TcpState::SynReceived if self.follows_syn() => {
                self.end(TcpState::InitiatorAborted)
            }
            TcpState::Established => self.stay().to(TcpState::Closed),
            TcpState::SynSent
            | TcpState::SynReceived
            | provisional_states!(TcpState)
            | TcpState::Closed
            | TcpState::Midstream
            | TcpState::OrphanSynAck => self.stay(),
        }
    }

    #[inline(always)]
    pub(super) fn responder_rst(&mut self) -> Change {
        match self.state {
            TcpState::SynSent if self.acks_syn() => self.end(TcpState::Refused),
            TcpState::SynReceived if self.follows_syn_ack() => self.end(TcpState::ResponderAborted),
            TcpState::Established => self.stay().to(TcpState::Closed),
            TcpState::SynSent
            | TcpState::SynReceived
            | provisional_states!(TcpState)
            | TcpState::Closed
            | TcpState::Midstream
            | TcpState::OrphanSynAck => self.stay(),
        }
    }

    /// The attempt ends, provisionally, at this moment.
    #[inline(always)]
    fn end(&mut self, state: TcpState) -> Change {
        self.record.latest_after = self.ticks();
        self.stay().to(state)
    }

    /// Is the segment's number one the responder may go on with after a SYN+ACK of its own?
    #[inline(always)]
    fn follows_syn_ack(&self) -> bool {
        let seq = self.segment.seq;
        seq.is_within(self.after_k(), self.record.responder_sent as u32)
            || (self.has(tag::SECOND_K) && seq == SeqNum(self.record.other_ack).plus(1))
    }

    #[inline(always)]
    pub(super) fn initiator_unreachable(&mut self) -> Change {
        match self.state {
            TcpState::SynSent if self.segment.seq.0 == self.record.isn_initiator => {
                self.end(TcpState::Unreachable)
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
}
