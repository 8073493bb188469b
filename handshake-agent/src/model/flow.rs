//! One conversation, of either protocol: what its record says, and how it stands. Text, JSON and the terminal
//! all show it from here.

mod completeness;
pub mod frames;
mod tunnel;

use std::hash::{Hash, Hasher};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use handshake_common::abi::{Event, Maker, NO_POINT, TICK_SHIFT, TcpRecord, UdpRecord, tag};
use handshake_common::flow::{Family, FlowKey, Side};
use handshake_common::record::{Detail, Record, State, TcpState};
use handshake_common::verdict::{Assessment, Cause, FlowFlag, Leg, Seat, UdpVerdict, Verdict};

use self::frames::{FlowFrames, FrameIndex};
pub use self::tunnel::{Around, Tunnels};
use crate::model::snapshot::{LostBetween, Origin, RunContext, Snapshot};
use crate::owner::Owner;
use crate::processes::Process;
use crate::source::local::HostAddresses;
use crate::source::scan::LostHere;
use crate::source::{Moment, Source};

/// How a conversation stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// A TCP attempt.
    Tcp(Verdict),
    /// A UDP flow.
    Udp(UdpVerdict),
}

impl Standing {
    /// The verdict's name in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcp(verdict) => verdict.name(),
            Self::Udp(verdict) => verdict.name(),
        }
    }

    /// `tcp` or `udp`.
    #[must_use]
    pub const fn protocol(self) -> &'static str {
        match self {
            Self::Tcp(_) => "tcp",
            Self::Udp(_) => "udp",
        }
    }

    /// What it means, and where to look.
    #[must_use]
    pub const fn sentence(self) -> &'static str {
        match self {
            Self::Tcp(verdict) => verdict.sentence(),
            Self::Udp(verdict) => verdict.sentence(),
        }
    }

    /// What it says of the conversation.
    #[must_use]
    pub const fn assessment(self) -> Assessment {
        match self {
            Self::Tcp(verdict) => verdict.row().assessment,
            Self::Udp(verdict) => verdict.row().assessment,
        }
    }

    /// Whether the conversation got what it asked for.
    #[must_use]
    pub const fn is_good(self) -> bool {
        matches!(self.assessment(), Assessment::Good)
    }
}

/// What stays the same of a conversation while it lives: its ends, and when it began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowId {
    family: Family,
    key: FlowKey,
    opened_ns: u64,
}

impl Hash for FlowId {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let FlowKey { low, high, ports, udp } = self.key;
        (self.family as u8, low, high, ports, udp, self.opened_ns).hash(state);
    }
}

/// A conversation: its record, and its end where an event or an eviction reported it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// What the kernel side knew of it.
    pub record: Record,
    /// Its end, which the record alone does not tell.
    pub ended: Option<FlowEnd>,
}

/// How a conversation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowEnd {
    /// How it stood then.
    pub standing: Standing,
    /// When, on the records' clock; unknown where its record was evicted.
    pub at_ns: Option<u64>,
}

impl Flow {
    /// A conversation as the table has it.
    #[must_use]
    pub const fn of(record: Record) -> Self {
        Self { record, ended: None }
    }

    /// The process that made the socket of an end, where that is known. Its name is the process' own choice.
    #[must_use]
    pub fn process(&self, side: Side) -> Option<Process> {
        let Maker { pid, command } = self.record.makers.ends[side as usize];
        let name = command.split(|byte| *byte == 0).next().unwrap_or_default();
        let command = String::from_utf8_lossy(name).into_owned();
        let pid = u32::try_from(pid).ok().filter(|pid| *pid != 0)?;
        Some(Process { pid, command, cgroup: None })
    }

    /// An attempt that has just ended, as the event of its end tells it.
    #[must_use]
    pub const fn ended(record: Record, verdict: Verdict, at_ns: u64) -> Self {
        Self { record, ended: Some(FlowEnd { standing: Standing::Tcp(verdict), at_ns: Some(at_ns) }) }
    }

    /// A conversation whose record was evicted at `moment`; an attempt that was open ended as `verdict`.
    #[must_use]
    pub fn evicted(record: Record, verdict: Option<Verdict>, moment: &Moment) -> Self {
        let standing = verdict.map_or_else(|| Self::of(record).standing(moment), Standing::Tcp);
        Self { record, ended: Some(FlowEnd { standing, at_ns: None }) }
    }

    /// What it is known by.
    #[must_use]
    pub fn id(&self) -> FlowId {
        FlowId { family: self.record.family, key: self.record.key, opened_ns: self.opened_ns() }
    }

    /// Address and port of one end.
    #[must_use]
    pub fn end(&self, side: Side) -> SocketAddr {
        let (address, port) = self.record.end(side);
        SocketAddr::new(address.ip(self.record.family), port)
    }

    /// How it stands. A free slot's record, which no table gives out, stands as one whose beginning was not
    /// seen.
    #[must_use]
    pub fn standing(&self, moment: &Moment) -> Standing {
        if let Some(end) = self.ended {
            return end.standing;
        }
        if let Some(verdict) = self.record.udp_verdict(moment.now, &moment.clocks) {
            let late = moment.stopped && verdict == UdpVerdict::Pending;
            return Standing::Udp(if late { UdpVerdict::Unanswered } else { verdict });
        }
        let verdict = self.record.verdict(moment.now, &moment.clocks).unwrap_or(Verdict::Midstream);
        let late = moment.stopped && verdict == Verdict::Opening;
        Standing::Tcp(if late { Verdict::HalfOpen } else { verdict })
    }

    /// Why it is not completed, beside verdicts that have a cause.
    #[must_use]
    pub fn cause(&self, standing: Standing) -> Option<Cause> {
        match standing {
            Standing::Tcp(verdict) => verdict.has_cause().then(|| self.record.state.cause()),
            Standing::Udp(_) => None,
        }
    }

    /// Whether its end, which an event told, is a failure. So is one that took a failure back, and one that came too
    /// late.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        let is_completed = self.ended.is_some_and(|end| end.standing == Standing::Tcp(Verdict::Completed));
        !is_completed || self.record.flags & (tag::LATE | tag::REVISED) != 0
    }

    /// Whether it is an open attempt.
    #[must_use]
    pub const fn is_open(&self) -> bool {
        self.ended.is_none() && self.record.state.is_open()
    }

    /// The TCP part.
    #[must_use]
    pub const fn tcp(&self) -> Option<&TcpRecord> {
        match &self.record.detail {
            Detail::Tcp(tcp) => Some(tcp),
            Detail::Udp(_) => None,
        }
    }

    /// The UDP part.
    #[must_use]
    pub const fn udp(&self) -> Option<&UdpRecord> {
        match &self.record.detail {
            Detail::Tcp(_) => None,
            Detail::Udp(udp) => Some(udp),
        }
    }

    /// Its first packet, on the records' clock.
    #[must_use]
    pub const fn opened_ns(&self) -> u64 {
        match &self.record.detail {
            Detail::Tcp(tcp) => tcp.opened_ns,
            Detail::Udp(udp) => udp.opened_ns,
        }
    }

    /// When its verdict came, on the records' clock: an event tells it, and the record keeps it where the
    /// attempt was completed, refused, found unreachable or aborted.
    #[must_use]
    pub fn ended_ns(&self) -> Option<u64> {
        let told = self.ended.and_then(|end| end.at_ns);
        let has_ended = self.record.state.is_completed() || self.record.state.is_provisional();
        let kept = self.tcp().filter(|tcp| has_ended && tcp.latest_after != u32::MAX);
        told.or_else(|| kept.map(TcpRecord::latest_ns))
    }

    /// When it last became what it is: its end where that is known from an event, else its beginning.
    #[must_use]
    pub fn moment_ns(&self) -> u64 {
        self.ended.and_then(|end| end.at_ns).unwrap_or_else(|| self.opened_ns())
    }

    /// J; `None` where the SYN was not seen.
    #[must_use]
    pub fn isn_initiator(&self) -> Option<u32> {
        self.tcp().filter(|_| self.record.state.is_attempt()).map(|tcp| tcp.isn_initiator)
    }

    /// K; `None` where no SYN+ACK was seen and none was inferred.
    #[must_use]
    pub fn isn_responder(&self) -> Option<u32> {
        // Of a simultaneous open K is the other SYN's; of a one-sided view it is inferred.
        let without_syn_ack = self.record.flags & (tag::SIMULTANEOUS | tag::ONE_SIDED) != 0;
        let is_known = |tcp: &&TcpRecord| {
            tcp.is_answered(self.record.flags) || without_syn_ack || self.record.state == State::OrphanSynAck
        };
        self.tcp().filter(is_known).map(|tcp| tcp.isn_responder)
    }

    /// The K of another SYN+ACK of the same attempt, where there are two.
    #[must_use]
    pub fn other_isn_responder(&self) -> Option<u32> {
        let has_two = self.record.state.is_attempt() && self.record.flags & tag::OTHER_J == tag::SECOND_K;
        self.tcp().filter(|_| has_two).map(|tcp| tcp.other_ack)
    }

    /// SYNs of the attempt that were sent again.
    #[must_use]
    pub fn syn_retransmits(&self) -> u8 {
        let begun = self.tcp().filter(|_| self.record.state.is_attempt());
        begun.map_or(0, |tcp| tcp.syn_retransmits(self.record.flags))
    }

    /// SYNs and SYN+ACKs that were sent again.
    #[must_use]
    pub fn retransmits(&self) -> u16 {
        let syn_acks = self.tcp().map_or(0, |tcp| tcp.syn_ack_retransmits);
        u16::from(self.syn_retransmits()) + u16::from(syn_acks)
    }

    /// SYN → SYN+ACK, where it is known.
    #[must_use]
    pub fn syn_to_syn_ack_ns(&self) -> Option<u64> {
        self.leg_ns(Leg::SynToSynAck)
    }

    /// SYN+ACK → ACK of a completed connection, where it is known.
    #[must_use]
    pub fn syn_ack_to_ack_ns(&self) -> Option<u64> {
        self.leg_ns(Leg::SynAckToAck)
    }

    /// First SYN → completing ACK of a completed connection, retransmissions included, where it is known.
    #[must_use]
    pub fn connect_ns(&self) -> Option<u64> {
        self.leg_ns(Leg::Connect)
    }

    /// Completing ACK → the responder's first byte, where it is known.
    #[must_use]
    pub fn ack_to_first_byte_ns(&self) -> Option<u64> {
        self.leg_ns(Leg::AckToFirstByte)
    }

    fn leg_ns(&self, leg: Leg) -> Option<u64> {
        let state = TcpState::from_number(self.record.state as u8);
        self.tcp().and_then(|tcp| tcp.leg(state, self.record.flags, leg)).map(ticks_ns)
    }

    /// First packet → first answer, of UDP.
    #[must_use]
    pub fn answer_ns(&self) -> Option<u64> {
        let answered = self.udp().filter(|_| self.record.state == State::UdpAnswered);
        answered.and_then(|udp| known(udp.answer_after)).map(ticks_ns)
    }

    /// Who sent the ICMP error that made it unreachable, where that is known.
    #[must_use]
    pub fn unreachable_from(&self) -> Option<IpAddr> {
        self.record.reporter().map(|address| address.ip(self.record.family))
    }

    /// Wireshark's `tcp.completeness`; `None` for UDP.
    #[must_use]
    pub fn completeness(&self) -> Option<u8> {
        self.tcp().map(|tcp| completeness::of(&self.record, tcp))
    }

    /// Whether it is established, and its responder has sent no byte for T1 since the initiator's data.
    #[must_use]
    pub const fn is_silent(&self, moment: &Moment) -> bool {
        self.ended.is_none() && self.record.is_silent(moment.now, &moment.clocks)
    }

    /// What else is worth knowing at `moment`, in the order of reports.
    pub fn flags(&self, moment: &Moment) -> impl Iterator<Item = FlowFlag> + '_ {
        let (is_tcp, is_silent) = (self.tcp().is_some(), self.is_silent(moment));
        FlowFlag::ALL.into_iter().filter(move |flag| match bit(*flag) {
            // Before completion its bit has another meaning.
            Some(tag::LATE) => self.record.state.is_completed() && self.record.flags & tag::LATE != 0,
            Some(bit) => is_tcp && self.record.flags & bit != 0,
            None => is_silent,
        })
    }
}

/// From where flows are shown: the moment, the wall clock, and the names of the interfaces.
#[derive(Clone, Copy)]
pub struct View<'a> {
    context: &'a Arc<RunContext>,
    /// How flows are judged.
    pub moment: Moment,
    wall_ns: u64,
    /// Whether `--compat` asks for what other tools say of each flow.
    pub compat: bool,
    /// The tunnels around flows, where `--tunnels` enters them.
    tunnels: Option<&'a Tunnels>,
    frames: Option<&'a FrameIndex>,
    host: Option<&'a Arc<HostAddresses>>,
    lost: Option<&'a LostHere>,
    /// The owners of the one flow that is shown, where they were asked for before.
    owners: Option<&'a EndOwners>,
}

/// Whose the two ends of a flow are, by [`Side`].
pub type EndOwners = [Option<Arc<Owner>>; 2];

impl<'a> View<'a> {
    /// The moment and the clocks of a snapshot, so that its flows add up to it.
    #[must_use]
    pub fn of(snapshot: &'a Snapshot) -> Self {
        Self {
            context: &snapshot.context,
            moment: snapshot.moment(),
            wall_ns: snapshot.taken_at_ns,
            compat: false,
            tunnels: None,
            frames: None,
            host: Some(&snapshot.host),
            lost: Some(&snapshot.lost),
            owners: None,
        }
    }

    /// A moment between snapshots; `wall_ns` is the same moment on the wall clock.
    #[must_use]
    pub const fn at(context: &'a Arc<RunContext>, moment: Moment, wall_ns: u64) -> Self {
        Self {
            context,
            moment,
            wall_ns,
            compat: false,
            tunnels: None,
            frames: None,
            host: None,
            lost: None,
            owners: None,
        }
    }

    /// As a host with these addresses sees flows.
    #[must_use]
    pub const fn on(self, host: &'a Arc<HostAddresses>) -> Self {
        Self { host: Some(host), ..self }
    }

    /// With the owners of the one flow that is shown.
    #[must_use]
    pub const fn owned(self, owners: &'a EndOwners) -> Self {
        Self { owners: Some(owners), ..self }
    }

    /// The same, to be kept. It leaves out what only a capture has: frames, and the inside of tunnels.
    #[must_use]
    pub fn keep(&self) -> KeptView {
        let Self { context, moment, wall_ns, host, .. } = *self;
        KeptView { context: Arc::clone(context), moment, wall_ns, host: host.cloned() }
    }

    /// With what other tools say of each flow, or without.
    #[must_use]
    pub const fn comparing(self, compat: bool) -> Self {
        Self { compat, ..self }
    }

    /// With the tunnels around flows, where they are entered.
    #[must_use]
    pub const fn entering(self, tunnels: Option<&'a Tunnels>) -> Self {
        Self { tunnels, ..self }
    }

    /// The tunnel around a flow.
    #[must_use]
    pub fn around(&self, flow: &Flow) -> Option<&'a Around> {
        self.tunnels?.around(flow)
    }

    /// How to see what is inside a flow that is a tunnel; `None` where tunnels are entered: it is not IP
    /// then.
    #[must_use]
    pub fn inside_hint(&self) -> Option<&'static str> {
        match &self.context.origin {
            _ if self.tunnels.is_some() => None,
            Origin::Live(_) => Some("its inner interface shows what is inside, or `replay --tunnels`"),
            Origin::Capture(_) => Some("--tunnels shows what is inside"),
        }
    }

    /// Whether the flows are those of a capture.
    #[must_use]
    pub fn is_of_capture(&self) -> bool {
        matches!(self.context.origin, Origin::Capture(_))
    }

    /// With the frames of each flow, where they are known.
    #[must_use]
    pub const fn with_frames(self, frames: Option<&'a FrameIndex>) -> Self {
        Self { frames, ..self }
    }

    /// Where a flow's packets are in the capture.
    #[must_use]
    pub fn frames(&self, flow: &Flow) -> Option<FlowFrames> {
        self.frames?.of(flow)
    }

    /// The path of the file that these frames are in, where the capture has several.
    #[must_use]
    pub fn file(&self, frames: &FlowFrames) -> Option<&'a str> {
        match &self.context.origin {
            Origin::Live { .. } => None,
            Origin::Capture(capture) => capture.files.get(frames.file).map(String::as_str),
        }
    }

    /// Whose an end of the flow is, as far as it is known by now.
    #[must_use]
    pub fn owner(&self, flow: &Flow, side: Side) -> Option<Arc<Owner>> {
        match self.owners {
            Some(owners) => owners[side as usize].clone(),
            None => self.context.owners.of(flow.record.control_groups.ids[side as usize]),
        }
    }

    /// From where this host sees the flow.
    #[must_use]
    pub fn seat(&self, flow: &Flow) -> Seat {
        self.host.map_or(Seat::Between, |host| host.seat(&flow.record.brief()))
    }

    /// What a half-open attempt has lost in this host, between two others.
    #[must_use]
    pub fn lost_here(&self, flow: &Flow) -> Option<LostBetween> {
        let is_half_open = flow.standing(&self.moment) == Standing::Tcp(Verdict::HalfOpen);
        let lost = self.lost.filter(|_| is_half_open && self.seat(flow) == Seat::Between)?;
        LostBetween::of_one(lost, &flow.record, &self.context.origin)
    }

    /// All flows of the tables, the oldest first.
    #[must_use]
    pub fn flows(&self, source: &dyn Source) -> Vec<Flow> {
        let mut flows = Vec::new();
        source.for_each_record(&mut |record| flows.push(Flow::of(*record)));
        sort(&mut flows);
        flows
    }

    /// The name of the interface that first saw the initiator, or else the responder; `None` where several
    /// interfaces share its group.
    #[must_use]
    pub fn interface(&self, flow: &Flow) -> Option<&'a str> {
        let points = match &flow.record.detail {
            Detail::Tcp(tcp) => tcp.points,
            Detail::Udp(udp) => udp.points,
        };
        let seen = [points & 0xf, points >> 4].into_iter().find(|point| *point != NO_POINT)?;
        let names = match &self.context.origin {
            Origin::Live(live) => &live.groups,
            Origin::Capture(capture) => &capture.interfaces,
        };
        names.get(usize::from(seen >> 1))?.as_deref()
    }

    /// A time on the records' clock as wall time, ns since the Unix epoch; both moments are of one reading.
    #[must_use]
    pub const fn wall(&self, ns: u64) -> u64 {
        self.wall_ns.wrapping_sub(self.moment.now.ns).wrapping_add(ns)
    }
}

/// A view that outlives what it was taken of.
#[derive(Clone, Debug)]
pub struct KeptView {
    context: Arc<RunContext>,
    moment: Moment,
    wall_ns: u64,
    host: Option<Arc<HostAddresses>>,
}

impl KeptView {
    /// The view.
    #[must_use]
    pub fn view(&self) -> View<'_> {
        View { host: self.host.as_ref(), ..View::at(&self.context, self.moment, self.wall_ns) }
    }
}

/// The oldest first; of the same time by protocol, initiator and responder.
pub fn sort(flows: &mut [Flow]) {
    flows.sort_by_key(|flow| {
        let record = &flow.record;
        (flow.opened_ns(), record.key.udp, record.end(Side::Initiator), record.end(Side::Responder))
    });
}

/// Ticks that are neither missing nor saturated.
#[must_use]
pub fn known(ticks: u32) -> Option<u32> {
    (ticks != 0 && ticks != u32::MAX).then_some(ticks)
}

/// Ticks of 64 ns as ns.
#[must_use]
pub fn ticks_ns(ticks: u32) -> u64 {
    u64::from(ticks) << TICK_SHIFT
}

/// The flag of the record; `None` where the record's age decides.
const fn bit(flag: FlowFlag) -> Option<u32> {
    Some(match flag {
        FlowFlag::Late => tag::LATE,
        FlowFlag::FastOpen => tag::FAST_OPEN,
        FlowFlag::Simultaneous => tag::SIMULTANEOUS,
        FlowFlag::OneSided => tag::ONE_SIDED,
        FlowFlag::Revised => tag::REVISED,
        FlowFlag::Silent => return None,
    })
}

/// How the attempt of an event ended; `None` when its number is no verdict's.
#[must_use]
pub fn verdict_of(event: &Event) -> Option<Verdict> {
    Verdict::of_gauge(usize::try_from(event.verdict).ok()?)
}

#[cfg(test)]
mod tests {
    use handshake_common::abi::tag;
    use handshake_common::record::State;
    use handshake_common::verdict::FlowFlag;

    use super::{Flow, sort};
    use crate::fake::{Fake, record};
    use crate::source::{Moment, Source as _};

    /// Before completion the bit says of which end the latest SYN or SYN+ACK was.
    #[test]
    fn an_attempt_that_is_not_completed_is_not_late() {
        let fake = Fake::new();
        let moment = Moment { now: fake.reading.now, stopped: false, clocks: fake.clocks() };
        for state in State::ALL {
            let mut seen = record("10.0.0.1:1", "10.0.0.2:443", state);
            seen.flags |= tag::LATE;
            let is_late = Flow::of(seen).flags(&moment).any(|flag| flag == FlowFlag::Late);
            assert_eq!(is_late, state.is_completed(), "{state:?}");
        }
    }

    #[test]
    fn flows_of_the_same_time_are_ordered_by_the_numbers_of_their_ends() {
        let ends = [
            ("10.0.0.2:9", "10.0.1.1:443"),
            ("10.0.0.3:1", "10.0.0.9:443"),
            ("10.0.0.3:2", "10.0.0.9:443"),
            ("10.0.1.0:1", "10.0.0.1:443"),
        ];
        let flows = ends.map(|(from, to)| Flow::of(record(from, to, State::SynSent)));
        let mut sorted = flows;
        sorted.reverse();
        sort(&mut sorted);
        assert_eq!(sorted, flows);
    }
}
