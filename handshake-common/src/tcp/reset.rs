//! What ends an attempt for now: a RST at the expected number, an ICMP error that quotes the SYN.

use super::{Change, Transition};
use crate::abi::tag;
use crate::record::State;
use crate::seq::SeqNum;

impl Transition<'_> {
    #[inline(always)]
    pub(super) fn initiator_rst(&mut self) -> Change {
        match self.state {
            State::SynSent | State::SynReceived if self.follows_syn() => self.end(State::InitiatorAborted),
            State::Established => self.stay().to(State::Closed),
            State::SynSent
            | State::SynReceived
            | State::Refused
            | State::Unreachable
            | State::InitiatorAborted
            | State::ResponderAborted
            | State::Closed
            | State::Midstream
            | State::OrphanSynAck
            | State::Empty
            | State::UdpWaiting
            | State::UdpAnswered
            | State::UdpUnreachable
            | State::UdpMulticast => self.stay(),
        }
    }

    #[inline(always)]
    pub(super) fn responder_rst(&mut self) -> Change {
        match self.state {
            State::SynSent if self.acks_syn() => self.end(State::Refused),
            State::SynReceived if self.follows_syn_ack() => self.end(State::ResponderAborted),
            State::Established => self.stay().to(State::Closed),
            State::SynSent
            | State::SynReceived
            | State::Refused
            | State::Unreachable
            | State::InitiatorAborted
            | State::ResponderAborted
            | State::Closed
            | State::Midstream
            | State::OrphanSynAck
            | State::Empty
            | State::UdpWaiting
            | State::UdpAnswered
            | State::UdpUnreachable
            | State::UdpMulticast => self.stay(),
        }
    }

    /// The attempt ends, provisionally, at this moment.
    #[inline(always)]
    fn end(&mut self, state: State) -> Change {
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
            State::SynSent if self.segment.seq.0 == self.record.isn_initiator => self.end(State::Unreachable),
            State::SynSent
            | State::SynReceived
            | State::Established
            | State::Refused
            | State::Unreachable
            | State::InitiatorAborted
            | State::ResponderAborted
            | State::Closed
            | State::Midstream
            | State::OrphanSynAck
            | State::Empty
            | State::UdpWaiting
            | State::UdpAnswered
            | State::UdpUnreachable
            | State::UdpMulticast => self.stay(),
        }
    }
}
