//! One flow as a report shows it, from its record in the table or from the event of its end.

mod completeness;

use std::net::SocketAddr;

use handshake_common::abi::{Counter, Event, NO_POINT, TICK_SHIFT, TcpRecord, UdpRecord, tag};
use handshake_common::flow::Side;
use handshake_common::record::{Clocks, Detail, Now, Record, State};
use handshake_common::verdict::{Cause, FlowFlag, UdpVerdict, Verdict};

use crate::address::ip;
use crate::model::snapshot::{Context, Origin, Snapshot};
use crate::source::Source;

/// Flags whose presence leaves the legs of a handshake without a known time.
const BLURRED: u16 = tag::UNTIMED | tag::SIMULTANEOUS | tag::ONE_SIDED | tag::SECOND_K;

/// From where flows are looked at: the moment, the clocks, and the names of the interfaces.
#[derive(Clone, Copy)]
pub struct View<'a> {
    context: &'a Context,
    now: Now,
    wall_ns: u64,
    stopped: bool,
    clocks: Clocks,
    compat: bool,
}

/// How the attempt of an event ended; `None` when its number is no verdict's.
pub fn verdict_of(event: &Event) -> Option<Verdict> {
    ENDS.iter().find(|(counter, _)| *counter as u32 == event.verdict).map(|(_, verdict)| *verdict)
}

fn verdict_in(counter: Counter) -> Option<Verdict> {
    ENDS.iter().find(|(each, _)| *each == counter).map(|(_, verdict)| *verdict)
}

/// The gauges that an attempt ends in, and their verdicts.
const ENDS: [(Counter, Verdict); 9] = [
    (Counter::Completed, Verdict::Completed),
    (Counter::Refused, Verdict::Refused),
    (Counter::Unreachable, Verdict::Unreachable),
    (Counter::InitiatorAborted, Verdict::InitiatorAborted),
    (Counter::ResponderAborted, Verdict::ResponderAborted),
    (Counter::Superseded, Verdict::Superseded),
    (Counter::ExpiredNoSynAck, Verdict::HalfOpenExpired),
    (Counter::ExpiredNoAck, Verdict::HalfOpenExpired),
    (Counter::Evicted, Verdict::Evicted),
];

/// A flow, ready to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flow {
    /// Who began.
    pub initiator: SocketAddr,
    /// The other end.
    pub responder: SocketAddr,
    /// How it stands or ended, by name.
    pub verdict: &'static str,
    /// Beside verdicts that have one.
    pub cause: Option<Cause>,
    /// Where its initiator, or else its responder, was first seen.
    pub interface: Option<String>,
    /// Its first packet, ns since the Unix epoch.
    pub started_ns: u64,
    /// When its verdict came, where that is known.
    pub ended_ns: Option<u64>,
    /// What only its protocol has.
    pub detail: FlowDetail,
}

/// What only one protocol has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FlowDetail {
    /// A TCP conversation.
    Tcp(TcpFlow),
    /// A UDP flow.
    Udp(UdpFlow),
}

/// A TCP conversation's figures; times and numbers that are not known are `None`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TcpFlow {
    /// J.
    pub isn_initiator: Option<u32>,
    /// K.
    pub isn_responder: Option<u32>,
    /// Packets of class syn, both ways.
    pub syn: u8,
    /// Packets of class syn_ack.
    pub syn_ack: u8,
    /// Packets of class ack.
    pub ack: u32,
    /// Copies of the SYN.
    pub syn_retransmits: u8,
    /// Copies of the SYN+ACK.
    pub syn_ack_retransmits: u8,
    /// SYN → SYN+ACK.
    pub syn_to_syn_ack_ns: Option<u64>,
    /// SYN+ACK → ACK.
    pub syn_ack_to_ack_ns: Option<u64>,
    /// First SYN → completing ACK.
    pub connect_ns: Option<u64>,
    /// Wireshark's, where it was asked for.
    pub completeness: Option<u8>,
    /// Names of what else is worth knowing.
    pub flags: Vec<&'static str>,
}

/// A UDP flow's figures, the initiator's first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UdpFlow {
    /// Packets each way.
    pub packets: [u32; 2],
    /// Bytes of their IP packets.
    pub bytes: [u64; 2],
    /// First packet → first answer.
    pub answer_ns: Option<u64>,
}

impl<'a> View<'a> {
    /// The moment and the clocks of a snapshot, so that its flows add up to it.
    pub fn of(snapshot: &'a Snapshot) -> Self {
        Self {
            context: &snapshot.context,
            now: snapshot.now,
            wall_ns: snapshot.taken_at_ns,
            stopped: snapshot.stopped,
            clocks: snapshot.clocks,
            compat: false,
        }
    }

    /// A moment by its two clocks, for events between snapshots.
    pub fn at(context: &'a Context, now: Now, wall_ns: u64, clocks: Clocks) -> Self {
        Self { context, now, wall_ns, stopped: false, clocks, compat: false }
    }

    /// With what other tools would say of each flow, or without.
    pub fn comparing(self, compat: bool) -> Self {
        Self { compat, ..self }
    }

    /// All flows of the tables, the oldest first.
    pub fn flows(&self, source: &dyn Source) -> Vec<Flow> {
        let mut records = Vec::new();
        source.for_each_record(&mut |record| records.push(*record));
        records.sort_by_key(|r| (opened_ns(r), r.key.udp, r.key.low, r.key.high, r.key.ports));
        records.iter().filter_map(|record| self.flow(record)).collect()
    }

    /// A flow of the table as it stands; `None` for a free slot.
    pub fn flow(&self, record: &Record) -> Option<Flow> {
        if let Some(verdict) = record.udp_verdict(self.now, &self.clocks) {
            let still = self.stopped && verdict == UdpVerdict::Pending;
            let verdict = if still { UdpVerdict::Unanswered } else { verdict };
            return Some(self.with(record, verdict.name(), None, None));
        }
        let verdict = record.verdict(self.now, &self.clocks)?;
        let still = self.stopped && verdict == Verdict::Opening;
        let verdict = if still { Verdict::HalfOpen } else { verdict };
        Some(self.with(record, verdict.name(), cause(verdict, record.state), self.ended_ns(record)))
    }

    /// An attempt that has just ended, as the event of its end tells it.
    pub fn ended(&self, record: &Record, verdict: Verdict, ended_ns: u64) -> Flow {
        self.with(record, verdict.name(), cause(verdict, record.state), Some(self.wall(ended_ns)))
    }

    /// A record whose place another took; one that was open then ended as `verdict`.
    pub fn displaced(&self, record: &Record, verdict: Option<Counter>) -> Option<Flow> {
        let Some(verdict) = verdict.and_then(verdict_in) else { return self.flow(record) };
        Some(self.with(record, verdict.name(), cause(verdict, record.state), None))
    }

    fn with(
        &self,
        record: &Record,
        verdict: &'static str,
        cause: Option<Cause>,
        ended_ns: Option<u64>,
    ) -> Flow {
        let (points, detail) = match &record.detail {
            Detail::Tcp(tcp) => (tcp.points, FlowDetail::Tcp(TcpFlow::of(record, tcp, self.compat))),
            Detail::Udp(udp) => (udp.points, FlowDetail::Udp(UdpFlow::of(udp))),
        };
        Flow {
            initiator: end(record, Side::Initiator),
            responder: end(record, Side::Responder),
            verdict,
            cause,
            interface: self.interface(points),
            started_ns: self.wall(opened_ns(record)),
            ended_ns,
            detail,
        }
    }

    /// When an attempt was completed, refused, found unreachable or aborted: records keep that moment.
    fn ended_ns(&self, record: &Record) -> Option<u64> {
        let has_ended = record.state.is_completed() || record.state.is_provisional();
        match &record.detail {
            Detail::Tcp(tcp) if has_ended && tcp.latest_after != u32::MAX => Some(self.wall(tcp.latest_ns())),
            Detail::Tcp(_) | Detail::Udp(_) => None,
        }
    }

    fn interface(&self, points: u8) -> Option<String> {
        let seen = [points & 0xf, points >> 4].into_iter().find(|point| *point != NO_POINT)?;
        let number = usize::from(seen >> 1);
        match &self.context.origin {
            Origin::Live { interfaces } => interfaces.get(number).map(|interface| interface.name.clone()),
            Origin::Capture { interfaces, .. } => interfaces.get(number).cloned().flatten(),
        }
    }

    /// The records' clock as wall time; both moments are of one reading.
    fn wall(&self, ns: u64) -> u64 {
        self.wall_ns.wrapping_sub(self.now.ns).wrapping_add(ns)
    }
}

impl TcpFlow {
    fn of(record: &Record, tcp: &TcpRecord, compat: bool) -> Self {
        // Of a simultaneous open K is the other SYN's; of a one-sided view it is inferred.
        let without_syn_ack = record.flags & (tag::SIMULTANEOUS | tag::ONE_SIDED) != 0;
        let answered = tcp.syn_ack_after != 0 || without_syn_ack || record.state == State::OrphanSynAck;
        let begun = record.state.is_attempt();
        Self {
            isn_initiator: begun.then_some(tcp.isn_initiator),
            isn_responder: answered.then_some(tcp.isn_responder),
            syn: tcp.syn,
            syn_ack: tcp.syn_ack,
            ack: tcp.ack,
            syn_retransmits: if begun { tcp.syn_retransmits(record.flags) } else { 0 },
            syn_ack_retransmits: tcp.syn_ack_retransmits,
            syn_to_syn_ack_ns: first_leg(record, tcp),
            syn_ack_to_ack_ns: second_leg(record, tcp),
            connect_ns: connect_ns(record, tcp),
            completeness: compat.then(|| completeness::of(record, tcp)),
            flags: FlowFlag::ALL
                .into_iter()
                .filter(|f| record.flags & bit(*f) != 0)
                .map(FlowFlag::name)
                .collect(),
        }
    }
}

impl UdpFlow {
    fn of(udp: &UdpRecord) -> Self {
        Self { packets: udp.packets, bytes: udp.bytes, answer_ns: answer_ns(udp) }
    }
}

/// Known unless the SYN was repeated or segments came out of order.
pub fn first_leg(record: &Record, tcp: &TcpRecord) -> Option<u64> {
    let clear = record.flags & BLURRED == 0 && tcp.syn_retransmits(record.flags) == 0;
    if clear { known(tcp.syn_ack_after).map(ns) } else { None }
}

/// Known of completed connections, unless the SYN+ACK was repeated or segments came out of order.
pub fn second_leg(record: &Record, tcp: &TcpRecord) -> Option<u64> {
    let completed = matches!(record.state, State::Established | State::Closed);
    if !completed || record.flags & BLURRED != 0 || tcp.syn_ack_retransmits != 0 {
        return None;
    }
    let from = known(tcp.syn_ack_after)?;
    // A SYN+ACK in the tick of its SYN is put a tick after it, for 0 means none; so is an ACK there.
    known(tcp.latest_after.max(1))?.checked_sub(from).map(ns)
}

/// First packet → first answer.
pub fn answer_ns(udp: &UdpRecord) -> Option<u64> {
    known(udp.answer_after).map(ns)
}

/// First SYN → completing ACK, retransmissions included; known of completed connections whose segments came in order.
pub fn connect_ns(record: &Record, tcp: &TcpRecord) -> Option<u64> {
    let in_order = record.state.is_completed() && record.flags & tag::UNTIMED == 0;
    in_order.then(|| known(tcp.latest_after.max(1)).map(ns)).flatten()
}

/// Ticks that are neither missing nor saturated.
pub fn known(ticks: u32) -> Option<u32> {
    (ticks != 0 && ticks != u32::MAX).then_some(ticks)
}

/// Ticks as ns.
pub fn ns(ticks: u32) -> u64 {
    u64::from(ticks) << TICK_SHIFT
}

/// The cause stands beside what an open attempt came to.
pub fn cause(verdict: Verdict, state: State) -> Option<Cause> {
    let has_one = matches!(
        verdict,
        Verdict::HalfOpen | Verdict::HalfOpenExpired | Verdict::Superseded | Verdict::Evicted
    );
    has_one.then(|| state.cause())
}

const fn bit(flag: FlowFlag) -> u16 {
    match flag {
        FlowFlag::Late => tag::LATE,
        FlowFlag::FastOpen => tag::FAST_OPEN,
        FlowFlag::Simultaneous => tag::SIMULTANEOUS,
        FlowFlag::OneSided => tag::ONE_SIDED,
    }
}

/// A record's first packet, on its own clock.
pub fn opened_ns(record: &Record) -> u64 {
    match &record.detail {
        Detail::Tcp(tcp) => tcp.opened_ns,
        Detail::Udp(udp) => udp.opened_ns,
    }
}

fn end(record: &Record, side: Side) -> SocketAddr {
    let (address, port) = record.end(side);
    SocketAddr::new(ip(address, record.family), port)
}
