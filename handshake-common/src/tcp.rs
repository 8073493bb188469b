//! Tracks TCP handshakes as an observer sees them (RFC 9293 §3.5). Pure: no clock, no map, no I/O.
//!
//! [`step`] takes a record and a segment and says how the record stands afterwards. A segment has
//! one function, a state one row in it, and no row stands for "the rest".

use crate::abi::{NO_POINT, TICK_SHIFT, TcpRecord, tag};
use crate::flow::Side;
use crate::record::State;
use crate::seq::SeqNum;
use crate::verdict::{Leg, Sign};
use crate::wire::{Class, Packet, flag, quote};

/// What kind of segment a packet is to the rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// SYN without ACK.
    Syn,
    /// SYN and ACK.
    SynAck,
    /// ACK or FIN, without SYN and RST.
    Ack,
    /// RST.
    Rst,
    /// An ICMP error that quotes a segment of the side.
    Unreachable,
    /// None of RST, SYN, FIN, ACK.
    Other,
}

/// A segment as the rules see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// What it is.
    pub kind: Kind,
    /// TCP flags.
    pub flags: u8,
    /// Sequence number.
    pub seq: SeqNum,
    /// Acknowledgement number; counts with the flag ACK only.
    pub ack: SeqNum,
    /// Octets of payload.
    pub payload: u32,
    /// The hook point that saw it.
    pub point: u8,
    /// Packets of class ack it stands for.
    pub acks: u32,
}

impl Segment {
    /// The segment in a TCP packet, or the one an ICMP error quotes.
    #[inline(always)]
    #[must_use]
    pub fn of(packet: &Packet) -> Self {
        let kind = if packet.quote != quote::NONE {
            Kind::Unreachable
        } else if packet.class == Class::Syn as u8 {
            Kind::Syn
        } else if packet.class == Class::SynAck as u8 {
            Kind::SynAck
        } else if packet.class == Class::Ack as u8 || packet.class == Class::Fin as u8 {
            Kind::Ack
        } else if packet.class == Class::Rst as u8 {
            Kind::Rst
        } else {
            Kind::Other
        };
        Self {
            kind,
            flags: packet.flags,
            seq: SeqNum(packet.seq),
            ack: SeqNum(packet.ack),
            payload: packet.payload,
            point: packet.point,
            acks: packet.acks(),
        }
    }

    #[inline(always)]
    const fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// The sequence number after it.
    #[inline(always)]
    const fn end(&self) -> SeqNum {
        self.seq.plus(self.payload).plus(self.has(flag::FIN) as u32)
    }
}

/// A set of [`Sign`]s, or of [`Leg`]s.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Set(u8);

impl Set {
    #[inline(always)]
    const fn with(self, bit: u8) -> Self {
        Self(self.0 | 1 << bit)
    }

    /// Is the sign in it?
    #[inline(always)]
    #[must_use]
    pub const fn has_sign(self, sign: Sign) -> bool {
        self.0 & 1 << sign as u8 != 0
    }

    /// Is the leg in it?
    #[inline(always)]
    #[must_use]
    pub const fn has_leg(self, leg: Leg) -> bool {
        self.0 & 1 << leg as u8 != 0
    }

    /// Is nothing in it?
    #[inline(always)]
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

/// How a record stands after a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// The state, perhaps the same.
    pub state: State,
    /// Bits of [`tag`].
    pub flags: u16,
    /// The segment begins a new attempt in the place of this record; nothing else here counts.
    pub new_attempt: bool,
    /// Signs to count.
    pub signs: Set,
    /// Legs that ended with this segment and are known.
    pub timed: Set,
    /// Legs that ended with this segment and are left out.
    pub excluded: Set,
}

impl Step {
    #[inline(always)]
    const fn stay(state: State, flags: u16) -> Self {
        Self { state, flags, new_attempt: false, signs: Set(0), timed: Set(0), excluded: Set(0) }
    }

    #[inline(always)]
    const fn sign(mut self, sign: Sign) -> Self {
        self.signs = self.signs.with(sign as u8);
        self
    }

    #[inline(always)]
    const fn to(mut self, state: State) -> Self {
        self.state = state;
        self
    }

    #[inline(always)]
    const fn leg(mut self, leg: Leg, known: bool) -> Self {
        if known {
            self.timed = self.timed.with(leg as u8);
        } else {
            self.excluded = self.excluded.with(leg as u8);
        }
        self
    }

    #[inline(always)]
    const fn new_attempt(mut self) -> Self {
        self.new_attempt = true;
        self
    }
}

/// The surroundings of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Context {
    /// The time, ns.
    pub now_ns: u64,
    /// T1.
    pub half_open_after_ns: u64,
    /// Infer completion from the initiator's packets alone.
    pub one_sided: bool,
}

/// The record of a new attempt: `syn` came from its initiator.
#[inline(always)]
#[must_use]
pub fn open(syn: &Segment, now_ns: u64) -> (TcpRecord, u16) {
    let record = TcpRecord {
        opened_ns: now_ns,
        isn_initiator: syn.seq.0,
        syn_data: saturate16(syn.payload),
        syn: 1,
        points: NO_POINT << 4 | syn.point & 0xf,
        ..TcpRecord::default()
    };
    (record, if syn.payload != 0 { tag::FAST_OPEN } else { 0 })
}

/// The record of a conversation whose SYN was not seen. Of a SYN+ACK the responder is its sender;
/// of anything else the sender is taken for the initiator, for want of a better sign.
#[inline(always)]
#[must_use]
pub fn join(segment: &Segment, now_ns: u64) -> TcpRecord {
    let orphan = matches!(segment.kind, Kind::SynAck);
    let points = if orphan { segment.point << 4 | NO_POINT } else { NO_POINT << 4 | segment.point & 0xf };
    TcpRecord {
        opened_ns: now_ns,
        isn_initiator: if orphan { segment.ack.plus(u32::MAX).0 } else { 0 },
        isn_responder: if orphan { segment.seq.0 } else { 0 },
        syn_ack: orphan as u8,
        ack: segment.acks,
        points,
        ..TcpRecord::default()
    }
}

/// One segment of `side` meets a record.
#[inline(always)]
pub fn step(
    state: State,
    flags: u16,
    record: &mut TcpRecord,
    side: Side,
    segment: &Segment,
    context: &Context,
) -> Step {
    let counted = sees_first(record, side, segment);
    if counted {
        count(record, segment);
    }
    let flags = if matches!(segment.kind, Kind::Rst) { flags | tag::RESET } else { flags };
    let mut meeting = Meeting { state, flags, record, segment, context, counted };
    match (segment.kind, side) {
        (Kind::Syn, Side::Initiator) => meeting.initiator_syn(),
        (Kind::Syn, Side::Responder) => meeting.responder_syn(),
        (Kind::SynAck, Side::Initiator) => meeting.initiator_syn_ack(),
        (Kind::SynAck, Side::Responder) => meeting.responder_syn_ack(),
        (Kind::Ack, Side::Initiator) => meeting.initiator_ack(),
        (Kind::Ack, Side::Responder) => meeting.responder_ack(),
        (Kind::Rst, Side::Initiator) => meeting.initiator_rst(),
        (Kind::Rst, Side::Responder) => meeting.responder_rst(),
        (Kind::Unreachable, Side::Initiator) => meeting.initiator_unreachable(),
        (Kind::Unreachable, Side::Responder) | (Kind::Other, Side::Initiator | Side::Responder) => {
            Step::stay(state, flags)
        }
    }
}

/// Is this the hook point that first saw the side? A segment at another point is a repeat of one
/// already seen (a router, a bridge), and only what it proves counts.
#[inline(always)]
fn sees_first(record: &mut TcpRecord, side: Side, segment: &Segment) -> bool {
    let shift = match side {
        Side::Initiator => 0,
        Side::Responder => 4,
    };
    if matches!(segment.kind, Kind::Unreachable) {
        return true;
    }
    let point = record.points >> shift & 0xf;
    if point == NO_POINT {
        record.points = record.points & !(0xf << shift) | (segment.point & 0xf) << shift;
        return true;
    }
    point == segment.point & 0xf
}

/// Counts a segment in its record.
#[inline(always)]
fn count(record: &mut TcpRecord, segment: &Segment) {
    match segment.kind {
        Kind::Syn => record.syn = record.syn.saturating_add(1),
        Kind::SynAck => record.syn_ack = record.syn_ack.saturating_add(1),
        Kind::Ack => record.ack = record.ack.wrapping_add(segment.acks),
        Kind::Rst | Kind::Unreachable | Kind::Other => {}
    }
}

/// A segment at the record it belongs to.
struct Meeting<'a> {
    state: State,
    flags: u16,
    record: &'a mut TcpRecord,
    segment: &'a Segment,
    context: &'a Context,
    /// The segment is no repeat at another hook point.
    counted: bool,
}

impl Meeting<'_> {
    #[inline(always)]
    fn stay(&self) -> Step {
        Step::stay(self.state, self.flags)
    }

    #[inline(always)]
    fn signed(&self, sign: Sign) -> Step {
        if self.counted { self.stay().sign(sign) } else { self.stay() }
    }

    /// J + 1: what the SYN+ACK must acknowledge, and where the initiator goes on.
    #[inline(always)]
    fn after_j(&self) -> SeqNum {
        SeqNum(self.record.isn_initiator).plus(1)
    }

    /// K + 1: what the final ACK must acknowledge.
    #[inline(always)]
    fn after_k(&self) -> SeqNum {
        SeqNum(self.record.isn_responder).plus(1)
    }

    #[inline(always)]
    fn has(&self, flag: u16) -> bool {
        self.flags & flag != 0
    }

    /// Does the segment acknowledge the SYN, or some of a Fast Open SYN's data?
    #[inline(always)]
    fn acks_syn(&self) -> bool {
        self.segment.has(flag::ACK) && self.segment.ack.is_within(self.after_j(), self.record.syn_data as u32)
    }

    /// Is the segment's number the one the initiator goes on with after its SYN (and its data)?
    #[inline(always)]
    fn follows_syn(&self) -> bool {
        self.segment.seq.is_within(self.after_j(), self.record.syn_data as u32)
    }

    /// Ticks of 64 ns since the record was opened; time that runs backwards counts as no time.
    #[inline(always)]
    fn ticks(&self) -> u32 {
        saturate32(self.context.now_ns.saturating_sub(self.record.opened_ns) >> TICK_SHIFT)
    }

    // ---- SYN ----

    #[inline(always)]
    fn initiator_syn(&mut self) -> Step {
        let same = self.segment.seq.0 == self.record.isn_initiator;
        match self.state {
            State::SynSent | State::SynReceived if same => self.repeat_syn(),
            State::Established if same => self.signed(Sign::SynRetransmit),
            State::Refused | State::Unreachable | State::InitiatorAborted | State::ResponderAborted
                if same =>
            {
                self.take_up_by_syn()
            }
            State::OrphanSynAck if self.is_orphans_syn() => self.adopt(),
            // The copy at another hook point of a SYN whose connection is over already.
            State::Closed if same && !self.counted => self.stay(),
            State::SynSent
            | State::SynReceived
            | State::Established
            | State::Refused
            | State::Unreachable
            | State::InitiatorAborted
            | State::ResponderAborted
            | State::Closed
            | State::Midstream
            | State::OrphanSynAck => self.stay().new_attempt(),
            State::Empty
            | State::UdpWaiting
            | State::UdpAnswered
            | State::UdpUnreachable
            | State::UdpMulticast => self.stay(),
        }
    }

    /// The SYN of an open attempt again. Its data may be left out this time (RFC 7413 §4.1.3), or come now.
    #[inline(always)]
    fn repeat_syn(&mut self) -> Step {
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

    /// The same SYN after a provisional end: the attempt goes on where it was.
    #[inline(always)]
    fn take_up_by_syn(&mut self) -> Step {
        if !self.counted {
            return self.stay();
        }
        self.record.latest_after = self.ticks();
        let state = if self.record.synack_after != 0 { State::SynReceived } else { State::SynSent };
        self.stay().sign(Sign::SynRetransmit).sign(Sign::Revised).to(state)
    }

    /// A SYN+ACK was seen before its SYN. Of a Fast Open SYN it may have acknowledged the data too.
    #[inline(always)]
    fn is_orphans_syn(&self) -> bool {
        self.after_j().is_within(self.segment.seq.plus(1), self.segment.payload)
    }

    /// The SYN of a SYN+ACK seen before it (mirror ports reorder).
    #[inline(always)]
    fn adopt(&mut self) -> Step {
        self.record.isn_initiator = self.segment.seq.0;
        self.record.syn_data = saturate16(self.segment.payload);
        self.record.opened_ns = self.context.now_ns;
        self.record.synack_after = 1;
        self.record.latest_after = 0;
        self.flags |= tag::UNTIMED;
        if self.segment.payload != 0 {
            self.flags |= tag::FAST_OPEN;
        }
        self.settle_early_ack(Step::stay(State::SynReceived, self.flags).leg(Leg::SynSynAck, false))
    }

    #[inline(always)]
    fn responder_syn(&mut self) -> Step {
        let same = self.segment.seq.0 == self.record.isn_responder;
        let answered = self.record.synack_after != 0;
        match self.state {
            State::SynSent if !self.has(tag::SIMULTANEOUS) => self.cross(),
            State::SynSent | State::SynReceived if self.has(tag::SIMULTANEOUS) && same => self.repeat_syn(),
            // Split handshake: its own SYN+ACK's number as a SYN, counted and nothing else.
            State::SynReceived | State::Established | State::ResponderAborted if same && answered => {
                self.stay()
            }
            // The other half of a simultaneous open that is established already.
            State::Established if same && self.has(tag::SIMULTANEOUS) => self.stay(),
            State::Closed if same && !self.counted => self.stay(),
            State::SynSent
            | State::SynReceived
            | State::Established
            | State::Refused
            | State::Unreachable
            | State::InitiatorAborted
            | State::ResponderAborted
            | State::Closed
            | State::Midstream
            | State::OrphanSynAck => self.stay().new_attempt(),
            State::Empty
            | State::UdpWaiting
            | State::UdpAnswered
            | State::UdpUnreachable
            | State::UdpMulticast => self.stay(),
        }
    }

    /// The second half of a simultaneous open.
    #[inline(always)]
    fn cross(&mut self) -> Step {
        self.record.isn_responder = self.segment.seq.0;
        self.record.latest_after = self.ticks();
        Step::stay(State::SynSent, (self.flags | tag::SIMULTANEOUS) & !tag::EARLY_ACK)
    }

    // ---- SYN+ACK ----

    #[inline(always)]
    fn responder_syn_ack(&mut self) -> Step {
        let valid = self.acks_syn();
        match self.state {
            State::SynSent | State::SynReceived if self.has(tag::SIMULTANEOUS) && valid => {
                self.acknowledge(tag::INITIATOR_ACKED)
            }
            State::SynSent if valid => self.first_syn_ack(),
            State::SynReceived if valid => self.further_syn_ack(),
            State::SynSent | State::SynReceived => self.signed(Sign::BadSynAck),
            State::Established if valid => self.syn_ack_after_completion(),
            State::Refused | State::Unreachable | State::InitiatorAborted | State::ResponderAborted
                if valid =>
            {
                self.take_up_by_syn_ack()
            }
            State::Established
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

    /// SYN-SENT → SYN-RECEIVED. The first leg is known unless the SYN was repeated (Karn's rule, RFC 6298 §3).
    #[inline(always)]
    fn first_syn_ack(&mut self) -> Step {
        self.record.isn_responder = self.segment.seq.0;
        self.record.synack_after = self.ticks().max(1);
        self.record.latest_after = self.record.synack_after;
        let known = self.record.syn <= 1 && !self.has(tag::EARLY_ACK);
        let step = Step::stay(State::SynReceived, self.flags).leg(Leg::SynSynAck, known);
        self.settle_early_ack(step)
    }

    /// The final ACK came before its SYN+ACK: it fits, or it was about something else.
    #[inline(always)]
    fn settle_early_ack(&mut self, step: Step) -> Step {
        if !self.has(tag::EARLY_ACK) {
            return step;
        }
        self.flags = (step.flags | tag::UNTIMED) & !tag::EARLY_ACK;
        let fits = SeqNum(self.record.other_ack) == self.after_k();
        self.record.other_ack = 0;
        let step = Step { flags: self.flags, ..step };
        if fits { self.complete(step) } else { step.sign(Sign::BadAck) }
    }

    /// A SYN+ACK after the first: the same again, or one with another K (SYN cookies, a second server).
    #[inline(always)]
    fn further_syn_ack(&mut self) -> Step {
        let k = self.segment.seq.0;
        let known = k == self.record.isn_responder || (self.has(tag::SECOND_K) && k == self.record.other_ack);
        if !known {
            self.record.other_ack = self.record.isn_responder;
            self.record.isn_responder = k;
            self.record.responder_sent = 0;
            self.record.latest_after = self.ticks();
            return Step::stay(self.state, self.flags | tag::SECOND_K);
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
    fn syn_ack_after_completion(&mut self) -> Step {
        let again = self.segment.seq.0 == self.record.isn_responder && self.record.syn_ack > 1;
        if !again || !self.counted || self.has(tag::SIMULTANEOUS) {
            return self.stay();
        }
        self.record.syn_ack_retransmits = self.record.syn_ack_retransmits.saturating_add(1);
        self.signed(Sign::AckIgnored)
    }

    /// The real SYN+ACK after a forged or early end.
    #[inline(always)]
    fn take_up_by_syn_ack(&mut self) -> Step {
        let first = self.record.synack_after == 0;
        if !first && !self.counted {
            return self.stay();
        }
        let step = if first {
            self.first_syn_ack()
        } else {
            Step { state: State::SynReceived, ..self.further_syn_ack() }
        };
        step.sign(Sign::Revised)
    }

    /// A SYN+ACK of the initiator is half of a simultaneous open, or nothing.
    #[inline(always)]
    fn initiator_syn_ack(&mut self) -> Step {
        match self.state {
            State::SynSent | State::SynReceived
                if self.has(tag::SIMULTANEOUS) && self.segment.ack == self.after_k() =>
            {
                self.acknowledge(tag::RESPONDER_ACKED)
            }
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

    /// One of a simultaneous open's SYNs is acknowledged; with both the connection is established.
    #[inline(always)]
    fn acknowledge(&mut self, which: u16) -> Step {
        let both = tag::INITIATOR_ACKED | tag::RESPONDER_ACKED;
        self.flags |= which;
        self.record.latest_after = self.ticks();
        if self.record.synack_after == 0 {
            self.record.synack_after = self.ticks().max(1);
        }
        let step = Step::stay(State::SynReceived, self.flags);
        if self.flags & both == both { self.complete(step.leg(Leg::SynSynAck, false)) } else { step }
    }

    // ---- ACK, FIN ----

    #[inline(always)]
    fn initiator_ack(&mut self) -> Step {
        match self.state {
            State::SynSent | State::SynReceived if self.has(tag::SIMULTANEOUS) => {
                if self.segment.has(flag::ACK) && self.segment.ack == self.after_k() {
                    self.acknowledge(tag::RESPONDER_ACKED)
                } else {
                    self.stay()
                }
            }
            State::SynSent => self.ack_before_syn_ack(),
            State::SynReceived => self.final_ack(),
            State::Established => self.close_on_fin(),
            State::OrphanSynAck => self.note_early_ack(),
            State::Refused
            | State::Unreachable
            | State::InitiatorAborted
            | State::ResponderAborted
            | State::Closed
            | State::Midstream
            | State::Empty
            | State::UdpWaiting
            | State::UdpAnswered
            | State::UdpUnreachable
            | State::UdpMulticast => self.stay(),
        }
    }

    /// No SYN+ACK was seen: it may yet be, or never will on a one-sided view.
    #[inline(always)]
    fn ack_before_syn_ack(&mut self) -> Step {
        if !self.segment.has(flag::ACK) || self.segment.seq.is_before(self.after_j()) {
            return self.stay();
        }
        if self.context.one_sided && self.follows_syn() {
            self.record.isn_responder = self.segment.ack.plus(u32::MAX).0;
            self.flags |= tag::ONE_SIDED;
            let step = Step::stay(State::SynSent, self.flags);
            return self.complete(step.leg(Leg::SynSynAck, false));
        }
        self.note_early_ack()
    }

    #[inline(always)]
    fn note_early_ack(&mut self) -> Step {
        if !self.segment.has(flag::ACK) {
            return self.stay();
        }
        self.record.other_ack = self.segment.ack.0;
        Step::stay(self.state, self.flags | tag::EARLY_ACK)
    }

    /// The third segment, proven: it acknowledges a K that was sent, and goes on after J.
    #[inline(always)]
    fn final_ack(&mut self) -> Step {
        if !self.segment.has(flag::ACK) {
            return self.stay();
        }
        if !self.acks_a_syn_ack() {
            return self.signed(Sign::BadAck);
        }
        if self.segment.seq.is_before(self.after_j()) {
            return self.stay();
        }
        self.complete(self.stay())
    }

    /// K+1, up to what the responder has sent behind it; or one more than the K before.
    #[inline(always)]
    fn acks_a_syn_ack(&self) -> bool {
        let ack = self.segment.ack;
        ack.is_within(self.after_k(), self.record.responder_sent as u32)
            || (self.has(tag::SECOND_K) && ack == SeqNum(self.record.other_ack).plus(1))
    }

    /// Established, with the times that are known. A FIN closes it in the same step.
    #[inline(always)]
    fn complete(&mut self, step: Step) -> Step {
        let ticks = self.ticks();
        self.record.latest_after = ticks;
        let blurred = tag::UNTIMED | tag::SIMULTANEOUS | tag::ONE_SIDED | tag::SECOND_K;
        let leg_known = step.flags & blurred == 0 && self.record.syn_ack_retransmits == 0;
        let connect_known = step.flags & tag::UNTIMED == 0;
        let waited = self.context.now_ns.saturating_sub(self.record.opened_ns);
        let late = if waited > self.context.half_open_after_ns { tag::LATE } else { 0 };
        let closes = matches!(self.segment.kind, Kind::Ack) && self.segment.has(flag::FIN);
        Step { flags: step.flags | late, ..step }
            .to(if closes { State::Closed } else { State::Established })
            .leg(Leg::SynAckAck, leg_known)
            .leg(Leg::Connect, connect_known)
    }

    #[inline(always)]
    fn close_on_fin(&self) -> Step {
        if self.segment.has(flag::FIN) { self.stay().to(State::Closed) } else { self.stay() }
    }

    #[inline(always)]
    fn responder_ack(&mut self) -> Step {
        match self.state {
            State::SynSent | State::SynReceived if self.has(tag::SIMULTANEOUS) && self.acks_syn() => {
                self.acknowledge(tag::INITIATOR_ACKED)
            }
            State::SynReceived => self.responder_data(),
            State::Established => self.close_on_fin(),
            State::SynSent
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

    /// The responder may send before the final ACK (Fast Open); the ACK may then acknowledge that too.
    #[inline(always)]
    fn responder_data(&mut self) -> Step {
        let sent = self.segment.end().since(self.after_k());
        if sent <= u16::MAX as u32 && !self.segment.seq.is_before(self.after_k()) {
            self.record.responder_sent = self.record.responder_sent.max(saturate16(sent));
        }
        self.stay()
    }

    // ---- RST, ICMP ----

    #[inline(always)]
    fn initiator_rst(&mut self) -> Step {
        match self.state {
            State::SynSent | State::SynReceived if self.follows_syn() => {
                self.stay().to(State::InitiatorAborted)
            }
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
    fn responder_rst(&mut self) -> Step {
        match self.state {
            State::SynSent if self.acks_syn() => self.stay().to(State::Refused),
            State::SynReceived if self.follows_syn_ack() => self.stay().to(State::ResponderAborted),
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

    /// Is the segment's number one the responder may go on with after a SYN+ACK of its own?
    #[inline(always)]
    fn follows_syn_ack(&self) -> bool {
        let seq = self.segment.seq;
        seq.is_within(self.after_k(), self.record.responder_sent as u32)
            || (self.has(tag::SECOND_K) && seq == SeqNum(self.record.other_ack).plus(1))
    }

    #[inline(always)]
    fn initiator_unreachable(&mut self) -> Step {
        match self.state {
            State::SynSent if self.segment.seq.0 == self.record.isn_initiator => {
                self.stay().to(State::Unreachable)
            }
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

#[inline(always)]
const fn saturate16(value: u32) -> u16 {
    if value > u16::MAX as u32 { u16::MAX } else { (value & 0xffff) as u16 }
}

#[inline(always)]
const fn saturate32(value: u64) -> u32 {
    if value > u32::MAX as u64 { u32::MAX } else { (value & 0xffff_ffff) as u32 }
}
