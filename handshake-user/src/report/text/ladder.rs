//! Ladders: the segments of a handshake as textbooks draw them. The live terminal draws them from a record,
//! and `replay --ladder` from the packets of a capture:
//!
//! ```text
//! tcp 192.0.2.1:40012 → 192.0.2.2:443 · began 2026-03-01 12:03:41 UTC
//!
//!   frame    seconds  initiator                                       responder
//!       1   0.000000  ├─ SYN seq=J ──────────────────────────────────────────▶│
//!       2   0.000041  │◀──────────────────────────────── SYN+ACK seq=K ack=J+1 ─┤
//!       3   0.000083  ├─ ACK seq=J+1 ack=K+1 ────────────────────────────────▶│
//!
//! verdict   completed: SYN, SYN+ACK and ACK match by their sequence numbers: the connection is established
//! numbers   J=305419896 K=2271560481
//! filter    (ip.src == 192.0.2.1 && …
//! ```

use std::net::{IpAddr, SocketAddr};

use handshake_agent::model::flow::{Flow, Standing, View};
use handshake_common::flow::Side;
use handshake_common::verdict::{Cause, FlowFlag, SILENT_SENTENCE};
use handshake_common::wire::flag;
use unicode_width::UnicodeWidthStr as _;

use super::ends;
use super::layout::{Piece, Style, TextTone, line, words};
use crate::number::group;

/// Least width of the column of frames.
const FRAME: usize = 7;
/// Width of the column of seconds.
const SECONDS: usize = 11;
/// Most columns between the rails; longer lines are hard to follow.
const WIDEST: usize = 76;

/// The direction of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RungDirection {
    /// From the initiator.
    FromInitiator,
    /// From the responder.
    FromResponder,
}

/// How certain a segment is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RungCertainty {
    /// The segment was seen.
    Seen,
    /// The segment was seen where it came into this host, and it did not leave.
    Lost,
    /// The segment did not arrive.
    Missing,
    /// The segment may still arrive.
    Awaited,
    /// The segment takes another path and is inferred.
    Inferred,
}

/// The arrow between the rails with its label, if it has one. That of a segment that does not arrive ends
/// half-way.
pub(crate) fn shaft(
    label: &str,
    direction: RungDirection,
    certainty: RungCertainty,
    length: usize,
) -> String {
    let line = if matches!(certainty, RungCertainty::Seen | RungCertainty::Lost) { "─" } else { "╌" };
    let label = if label.is_empty() { String::new() } else { format!(" {label} ") };
    // One column for the arrow's beginning, one for its head.
    let dashes = length.saturating_sub(label.width() + 2);
    let ends_halfway = matches!(certainty, RungCertainty::Missing | RungCertainty::Lost);
    let (drawn, blank) = if ends_halfway { (dashes / 2, dashes - dashes / 2) } else { (dashes, 0) };
    let (shaft, blank) = (line.repeat(drawn), " ".repeat(blank));
    let head = match (certainty, direction) {
        (RungCertainty::Missing | RungCertainty::Lost, _) => "✘",
        (
            RungCertainty::Seen | RungCertainty::Awaited | RungCertainty::Inferred,
            RungDirection::FromInitiator,
        ) => "▶",
        (
            RungCertainty::Seen | RungCertainty::Awaited | RungCertainty::Inferred,
            RungDirection::FromResponder,
        ) => "◀",
    };
    match direction {
        RungDirection::FromInitiator => format!("{line}{label}{shaft}{head}{blank}"),
        RungDirection::FromResponder => format!("{blank}{head}{shaft}{label}{line}"),
    }
}

/// The verdict with its sentence, and the cause with its sentence; of a silent connection what that means.
pub(crate) fn meaning(view: &View<'_>, flow: &Flow, standing: Standing) -> Vec<(&'static str, String)> {
    // The cause follows.
    let meaning = standing.sentence().trim_end_matches(". Look at: its cause");
    let cause = flow.cause(standing).map(|cause| {
        if let Some(lost) = view.lost_here(flow) {
            return (cause.name(), lost.sentence());
        }
        let beside = cause.beside(flow.record.flags).unwrap_or_default();
        (cause.name(), format!("{}{beside}", cause.sentence(view.seat(flow))))
    });
    let silent = flow
        .is_silent(&view.moment)
        .then(|| (FlowFlag::Silent.name(), format!("the connection is {SILENT_SENTENCE}")));
    [(standing.name(), meaning.to_owned())].into_iter().chain(cause).chain(silent).collect()
}

/// The error, and who sent it where that is known: the responder, a router, or a firewall.
pub(crate) fn icmp_error(from: Option<IpAddr>) -> String {
    let from = from.map(|from| format!(" from {from}"));
    format!("ICMP unreachable{}", from.unwrap_or_default())
}

/// The sequence number after the SYN, which occupies one (RFC 9293 §3.4).
pub(crate) const fn next(isn: u32) -> u32 {
    isn.wrapping_add(1)
}

/// A packet of a handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    /// Which of the capture's files it is from, counted from 0.
    pub(crate) file: usize,
    /// Its number there, counted from 1.
    pub(crate) number: u64,
    /// Its time, ns since the Unix epoch.
    pub(crate) time_ns: u64,
    /// Who sent the segment, or the segment that an error quotes.
    pub(crate) source: SocketAddr,
    /// Its flags, of which those of [`flag`] are shown.
    pub(crate) flags: u8,
    /// Its sequence number.
    pub(crate) seq: u32,
    /// Its acknowledgement number.
    pub(crate) ack: u32,
    /// Bytes of data.
    pub(crate) payload: u32,
    /// Who sent the ICMP error that quotes the segment; `None` of the segment itself.
    pub(crate) reporter: Option<IpAddr>,
    /// What it is beside others.
    pub(crate) mark: StepMark,
}

/// What a packet is beside the others of its handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StepMark {
    /// It has its place in the handshake.
    Plain,
    /// The same was sent before.
    Again,
    /// The same packet was seen before, at the same interface.
    Copy,
    /// Its checksum is wrong.
    BadChecksum,
    /// The rules of the handshake take no notice of it.
    Ignored,
}

impl StepMark {
    const fn words(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Again => ", again",
            Self::Copy => ", copy",
            Self::BadChecksum => ", bad checksum",
            Self::Ignored => ", ignored",
        }
    }
}

/// The packets of a flow: the first ones, the last ones, and how many are left out between them.
#[derive(Debug)]
pub(crate) struct LadderSteps<'a> {
    /// The first ones.
    pub(crate) first: &'a [Step],
    /// Number of packets between.
    pub(crate) left_out: u64,
    /// The last ones.
    pub(crate) last: &'a [Step],
}

/// Draws the ladder of a flow, which ends with a newline.
pub(crate) fn draw_ladder(view: &View<'_>, flow: &Flow, steps: &LadderSteps<'_>, style: Style) -> String {
    let mut out = String::new();
    let rails = Rails::of(view, flow, steps, style);
    let [initiator, responder] = ends(flow, style);
    let found = view.frames(flow);
    let file = found.and_then(|found| view.file(&found)).filter(|_| rails.is_one_file);
    let mut title = vec![
        Piece::new(format!("tcp {initiator} → {responder}"), TextTone::Strong),
        Piece::plain(format!("began {}", style.zone().dated(rails.began_ns))),
    ];
    title.extend(view.interface(flow).into_iter().chain(file).map(Piece::plain));
    line(&mut out, style, "", &title, " · ");
    out.push('\n');
    rails.head(&mut out);
    steps.first.iter().for_each(|step| rails.rung(&mut out, flow, step));
    if steps.left_out > 0 {
        rails.gap(&mut out, steps.left_out);
    }
    steps.last.iter().for_each(|step| rails.rung(&mut out, flow, step));
    let standing = flow.standing(&view.moment);
    rails.missing(&mut out, flow.cause(standing));
    out.push('\n');
    for ((name, sentence), label) in meaning(view, flow, standing).into_iter().zip(["verdict", "cause"]) {
        line(&mut out, style, label, &words(&format!("{name}: {sentence}")), " ");
    }
    let numbers = [("J", flow.isn_initiator()), ("K", flow.isn_responder())];
    let numbers =
        numbers.into_iter().filter_map(|(name, isn)| Some(Piece::plain(format!("{name}={}", isn?))));
    let numbers: Vec<Piece> =
        numbers.chain(flow.flags(&view.moment).map(|flag| Piece::plain(flag.name()))).collect();
    if !numbers.is_empty() {
        line(&mut out, style, "numbers", &numbers, " ");
    }
    if let Some(found) = found {
        // In one piece, so that it can be copied.
        line(&mut out, style.endless(), "filter", &[Piece::plain(found.display_filter(flow))], "");
    }
    out
}

/// Where the rungs of a ladder are drawn.
struct Rails {
    style: Style,
    /// Width of the column of frames.
    frame: usize,
    /// Columns between the rails.
    length: usize,
    began_ns: u64,
    /// Whether all packets are in one file.
    is_one_file: bool,
}

impl Rails {
    fn of(view: &View<'_>, flow: &Flow, steps: &LadderSteps<'_>, style: Style) -> Self {
        let all = || steps.first.iter().chain(steps.last);
        let first = all().next();
        // Its first packets may not be here.
        let opened_ns = view.wall(flow.opened_ns());
        let began_ns = first.map_or(opened_ns, |first| first.time_ns.min(opened_ns));
        let file = first.map_or(0, |first| first.file);
        let is_one_file = all().all(|step| step.file == file);
        let rails = Self { style, frame: 0, length: 0, began_ns, is_one_file };
        let frame = all().map(|step| rails.number(step).len()).max().unwrap_or(0).max(FRAME);
        let room = style.width().saturating_sub(frame + SECONDS + 5);
        let longest = all().map(|step| label(flow, step).width() + 4).max().unwrap_or(0);
        Self { frame, length: room.min(WIDEST).max(longest), ..rails }
    }

    fn number(&self, step: &Step) -> String {
        let Step { file, number, .. } = step;
        if self.is_one_file { number.to_string() } else { format!("{}:{number}", file + 1) }
    }

    fn head(&self, out: &mut String) {
        let (frame, gap) = (self.frame, self.length - "initiatorresponder".len() + 2);
        let frames = if self.is_one_file { "frame" } else { "file:nr" };
        let head = format!("{frames:>frame$} {:>SECONDS$}  initiator{:gap$}responder", "seconds", "");
        line(out, self.style.endless(), "", &[Piece::new(head, TextTone::Faint)], "");
    }

    fn rung(&self, out: &mut String, flow: &Flow, step: &Step) {
        let by_initiator = step.source == flow.end(Side::Initiator);
        // An error comes back from the other side, or from a router on the way.
        let direction = if by_initiator == step.reporter.is_none() {
            RungDirection::FromInitiator
        } else {
            RungDirection::FromResponder
        };
        let (from, to) = match direction {
            RungDirection::FromInitiator => ("├", "│"),
            RungDirection::FromResponder => ("│", "┤"),
        };
        let shaft = shaft(&label(flow, step), direction, RungCertainty::Seen, self.length);
        let (frame, at) = (self.frame, seconds(step.time_ns, self.began_ns));
        let is_end = step.reporter.is_some() || step.flags & flag::RST != 0;
        let tone = match step.mark {
            StepMark::Plain if is_end => TextTone::Bad,
            StepMark::Plain => TextTone::Plain,
            StepMark::Again | StepMark::Copy | StepMark::BadChecksum | StepMark::Ignored => TextTone::Faint,
        };
        let before = Piece::plain(format!("{:>frame$} {at:>SECONDS$}  ", self.number(step)));
        line(out, self.style.endless(), "", &[before, Piece::new(format!("{from}{shaft}{to}"), tone)], "");
    }

    /// The segment whose absence left the attempt open.
    fn missing(&self, out: &mut String, cause: Option<Cause>) {
        let (direction, label, [from, to]) = match cause {
            Some(Cause::NoSynAck) => (RungDirection::FromResponder, "no SYN+ACK", ["│", "┤"]),
            Some(Cause::NoAck) => (RungDirection::FromInitiator, "no ACK", ["├", "│"]),
            // It was answered: what is missing passes elsewhere.
            Some(Cause::AnswerUnseen) | None => return,
        };
        let shaft = shaft(label, direction, RungCertainty::Missing, self.length);
        let text = format!("{:1$}{from}{shaft}{to}", "", self.frame + SECONDS + 3);
        line(out, self.style.endless(), "", &[Piece::new(text, TextTone::Bad)], "");
    }

    fn gap(&self, out: &mut String, packets: u64) {
        let text = format!("{:>1$}  … {2} more packets", "", self.frame + SECONDS + 1, group(packets));
        line(out, self.style.endless(), "", &[Piece::new(text, TextTone::Faint)], "");
    }
}

/// Seconds after the beginning, to the microsecond: negative for a packet that is out of order.
pub(super) fn seconds(time_ns: u64, began_ns: u64) -> String {
    let us = time_ns.abs_diff(began_ns) / 1_000;
    let sign = if time_ns < began_ns { "-" } else { "" };
    format!("{sign}{}.{:06}", us / 1_000_000, us % 1_000_000)
}

/// What a packet says, with its numbers relative to J and K as far as these are proven.
fn label(flow: &Flow, step: &Step) -> String {
    let (j, k) = (("J", flow.isn_initiator()), ("K", flow.isn_responder()));
    let (own, other) = if step.source == flow.end(Side::Initiator) { (j, k) } else { (k, j) };
    let mark = step.mark.words();
    if step.reporter.is_some() {
        return format!("{}, quotes seq={}{mark}", icmp_error(step.reporter), relative(step.seq, own));
    }
    const NAMES: [(u8, &str); 4] =
        [(flag::SYN, "SYN"), (flag::FIN, "FIN"), (flag::RST, "RST"), (flag::ACK, "ACK")];
    let names: Vec<&str> =
        NAMES.iter().filter(|(bit, _)| step.flags & bit != 0).map(|(_, name)| *name).collect();
    let ack = match step.flags & flag::ACK {
        0 => String::new(),
        _ => format!(" ack={}", relative(step.ack, other)),
    };
    let data = if step.payload == 0 { String::new() } else { format!(" len={}", step.payload) };
    format!("{} seq={}{ack}{data}{mark}", names.join("+"), relative(step.seq, own))
}

/// A sequence number as `J+1`; as it is where the initial one is not known, or is far away.
fn relative(number: u32, (name, isn): (&str, Option<u32>)) -> String {
    let Some(isn) = isn else { return number.to_string() };
    match number.wrapping_sub(isn).cast_signed() {
        0 => name.to_owned(),
        after @ 1.. => format!("{name}+{after}"),
        before => format!("{name}-{}", before.unsigned_abs()),
    }
}
