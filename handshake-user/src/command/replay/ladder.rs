//! The packets of the handshakes that `--ladder` asks for.

use std::collections::VecDeque;
use std::net::SocketAddr;

use handshake_agent::address::Ends;
use handshake_agent::model::flow::{Flow, View};
use handshake_agent::source::Source;
use handshake_capture::CapturedPacket;
use handshake_common::abi::tag;
use handshake_common::flow::{Family, Side};
use handshake_common::record::Record;
use handshake_common::wire::{Class, Packet, TCP, note, quote};

use crate::report::text::Style;
use crate::report::text::ladder::{LadderSteps, Step, StepMark, draw_ladder};

/// Most flows whose ladders are drawn: the first ones.
pub(super) const MOST_FLOWS: usize = 20;
/// Packets kept of a flow, at its beginning and at its end each.
const KEPT: usize = 16;

/// The ladders of the flows between some ends.
pub(super) struct Ladders {
    /// The ends that were asked for.
    pub(super) ends: Ends,
    flows: Vec<Ladder>,
    /// Flows that match and whose records were evicted.
    evicted: u64,
}

struct Ladder {
    flow: Flow,
    first: Vec<Step>,
    left_out: u64,
    last: VecDeque<Step>,
}

/// A packet, and what it did.
pub(super) struct Observed<'a> {
    /// The packet.
    pub(super) packet: &'a Packet,
    /// The same as it was captured.
    pub(super) captured: &'a CapturedPacket<'a>,
    /// The record of its flow before it.
    pub(super) before: Option<Record>,
    /// The record of its flow after it.
    pub(super) after: Record,
    /// Whether it is a copy of a packet that the same hook saw.
    pub(super) is_copy: bool,
}

impl Ladders {
    pub(super) const fn of(ends: Ends) -> Self {
        Self { ends, flows: Vec::new(), evicted: 0 }
    }

    /// Whether a packet belongs to a ladder that is asked for, or quotes such a packet.
    pub(super) fn want(&self, packet: &Packet) -> bool {
        packet.protocol == TCP && self.ends.are_of(sockets(packet))
    }

    /// Adds a packet that [is wanted](Self::want), if it has a part in the handshake or in the end of the
    /// connection. Returns whether the ladder of its flow is drawn.
    pub(super) fn note(&mut self, observed: &Observed<'_>) -> bool {
        let flow = Flow::of(observed.after);
        let id = flow.id();
        let Some(ladder) = self.ladder(flow) else { return false };
        if ladder.flow.ended.is_none() {
            ladder.flow = flow;
        }
        let is_first = observed.before.is_none_or(|before| Flow::of(before).id() != id);
        if is_first || has_part(observed) {
            ladder.add(step(observed, is_first));
        }
        true
    }

    /// The ladder of a flow; `None` where there are enough.
    fn ladder(&mut self, flow: Flow) -> Option<&mut Ladder> {
        let id = flow.id();
        let found = self.flows.iter().rposition(|ladder| ladder.flow.id() == id);
        let at = match found {
            Some(at) => at,
            None if self.flows.len() == MOST_FLOWS => return None,
            None => {
                self.flows.push(Ladder { flow, first: Vec::new(), left_out: 0, last: VecDeque::new() });
                self.flows.len() - 1
            }
        };
        self.flows.get_mut(at)
    }

    /// Notes a flow whose record was evicted. Returns whether its ladder is drawn.
    pub(super) fn end(&mut self, evicted: &Flow) -> bool {
        if !self.has(evicted) {
            return false;
        }
        self.evicted += 1;
        let id = evicted.id();
        let found = self.flows.iter_mut().find(|ladder| ladder.flow.id() == id);
        found.map(|ladder| ladder.flow = *evicted).is_some()
    }

    /// Whether a flow matches.
    fn has(&self, flow: &Flow) -> bool {
        flow.tcp().is_some()
            && self.ends.are_of([Side::Initiator, Side::Responder].map(|side| flow.end(side)))
    }

    /// All ladders, and how many flows match beside them; `source` has the flows that were not evicted.
    pub(super) fn draw(&self, view: &View<'_>, source: &dyn Source, style: Style) -> String {
        let mut found = self.evicted;
        source.for_each_record(&mut |record| found += u64::from(self.has(&Flow::of(*record))));
        let mut out = String::new();
        for Ladder { flow, first, left_out, last } in &self.flows {
            let (last, _) = last.as_slices();
            let steps = LadderSteps { first, left_out: *left_out, last };
            out.push('\n');
            out.push_str(&draw_ladder(view, flow, &steps, style));
        }
        if found == 0 {
            out.push_str(&format!("\nno TCP flow of {} is in the capture\n", self.ends));
        }
        let more = found.saturating_sub(self.flows.len() as u64);
        if more > 0 {
            out.push_str(&format!("\n{more} more flows of {} are not drawn\n", self.ends));
        }
        out
    }
}

impl Ladder {
    fn add(&mut self, mut step: Step) {
        let is_same = |other: &Step| {
            let what =
                |step: &Step| (step.source, step.flags, step.seq, step.ack, step.payload, step.reporter);
            what(other) == what(&step)
        };
        let is_again = self.first.iter().chain(&self.last).any(is_same);
        if is_again && matches!(step.mark, StepMark::Plain | StepMark::Ignored) {
            step.mark = StepMark::Again;
        }
        if self.first.len() < KEPT {
            self.first.push(step);
            return;
        }
        if self.last.len() == KEPT {
            self.last.pop_front();
            self.left_out += 1;
        }
        self.last.push_back(step);
        self.last.make_contiguous();
    }
}

/// Source and destination, of the quoted packet where there is one.
fn sockets(packet: &Packet) -> [SocketAddr; 2] {
    let family = family(packet);
    [(packet.source, packet.source_port), (packet.destination, packet.destination_port)]
        .map(|(address, port)| SocketAddr::new(address.ip(family), port))
}

const fn family(packet: &Packet) -> Family {
    if packet.family == Family::V6 as u8 { Family::V6 } else { Family::V4 }
}

/// All but the data: an ACK has a part where the attempt is open.
fn has_part(Observed { packet, before, after, .. }: &Observed<'_>) -> bool {
    let was_open = before.is_some_and(|before| before.state.is_open());
    let completes = after.state.is_completed() && !before.is_some_and(|before| before.state.is_completed());
    let is_handshake = [Class::Syn, Class::SynAck, Class::Rst, Class::Fin];
    packet.quote != quote::NONE
        || is_handshake.iter().any(|class| packet.class == *class as u8)
        || was_open
        || completes
}

fn step(observed: &Observed<'_>, is_first: bool) -> Step {
    let Observed { packet, captured, before, after, is_copy } = observed;
    let [source, _] = sockets(packet);
    // What the rules take notice of changes the state, or what is known of the numbers.
    let taken = |record: &Record| {
        (record.state, record.flags & (tag::SECOND_K | tag::SIMULTANEOUS), Flow::of(*record).isn_responder())
    };
    let was_open = before.filter(|before| before.state.is_open());
    let mark = if packet.note == note::BAD_CHECKSUM {
        StepMark::BadChecksum
    } else if *is_copy {
        StepMark::Copy
    } else if !is_first && was_open.is_some_and(|before| taken(&before) == taken(after)) {
        StepMark::Ignored
    } else {
        StepMark::Plain
    };
    Step {
        file: captured.file,
        number: captured.number,
        time_ns: captured.time_ns,
        source,
        flags: packet.flags,
        seq: packet.seq,
        ack: packet.ack,
        payload: packet.payload,
        reporter: (packet.quote != quote::NONE).then(|| packet.reporter.ip(family(packet))),
        mark,
    }
}
