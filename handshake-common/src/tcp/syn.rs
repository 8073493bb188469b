//! A SYN: the first, the same again, the other end's.

use super::{Change, Transition, saturate16};
use crate::abi::tag;
use crate::record::{TcpState, provisional_states};
use crate::verdict::{Leg, Sign};

impl Transition<'_> {
    #[inline(always)]
    pub(super) fn initiator_syn(&mut self) -> Change {
        let same = self.segment.seq.0 == self.record.isn_initiator;
        match self.state {
            TcpState::SynSent | TcpState::SynReceived if same => self.repeat_syn(),
            TcpState::Established if same => self.signed(Sign::SynRetransmit),
            provisional_states!(TcpState) if same => self.take_up_by_syn(),
            TcpState::OrphanSynAck if self.is_orphans_syn() => self.adopt(),
            // The copy at another hook point of a SYN whose connection is over already.
            TcpState::Closed if same && !self.counted => self.stay(),
            TcpState::SynSent
            | TcpState::SynReceived
            | TcpState::Established
            | provisional_states!(TcpState)
            | TcpState::Closed
            | TcpState::Midstream
            | TcpState::OrphanSynAck => self.stay().new_attempt(),
        }
    }

    /// The SYN of an open attempt again. Its data may be left out this time (RFC 7413 §4.1.3), or come now.
    #[inline(always)]
    fn repeat_syn(&mut self) -> Change {
        if !self.counted {
            return self.stay();
        }
        let data = saturate16(self.segment.payload);
        if data > self.record.syn_data {
            self.record.syn_data = data;
            self.flags |= tag::FAST_OPEN;
        }
        self.record.latest_after = self.ticks();
        self.signed(Sign::SynRetransmit)
    }

    /// The same SYN after a provisional end: the attempt continues where it was.
    #[inline(always)]
    fn take_up_by_syn(&mut self) -> Change {
        if !self.counted {
            return self.stay();
        }
        self.record.latest_after = self.ticks();
        let state = if self.record.syn_ack_after != 0 { TcpState::SynReceived } else { TcpState::SynSent };
        self.stay().sign(Sign::SynRetransmit).sign(Sign::Revised).to(state)
    }

    /// A SYN+ACK was seen before its SYN. Of a Fast Open SYN it may have acknowledged the data too.
    #[inline(always)]
    fn is_orphans_syn(&self) -> bool {
        self.after_j().is_within(self.segment.seq.plus(1), self.segment.payload)
    }

    /// The SYN of a SYN+ACK seen before it (mirror ports reorder).
    #[inline(always)]
    fn adopt(&mut self) -> Change {
        self.record.isn_initiator = self.segment.seq.0;
        self.record.syn_data = saturate16(self.segment.payload);
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
        let same = self.is_a_k(self.segment.seq) && (crossed || self.record.syn_ack_after != 0);
        match self.state {
            TcpState::SynSent if !crossed => self.cross(),
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
            TcpState::Closed if same && !self.counted => self.stay(),
            TcpState::SynSent
            | TcpState::SynReceived
            | TcpState::Established
            | provisional_states!(TcpState)
            | TcpState::Closed
            | TcpState::Midstream
            | TcpState::OrphanSynAck => self.stay().new_attempt(),
        }
    }

    /// The second half of a simultaneous open.
    #[inline(always)]
    fn cross(&mut self) -> Change {
        self.record.isn_responder = self.segment.seq.0;
        self.record.latest_after = self.ticks();
        self.flags = (self.flags | tag::SIMULTANEOUS) & !tag::EARLY_ACK;
        self.count_own_syn()
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
            self.record.latest_after = self.ticks();
        }
        self.signed(Sign::SynRetransmit)
    }
}
