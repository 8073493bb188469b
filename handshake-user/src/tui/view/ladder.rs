//! The ladder of one attempt: its segments as textbooks draw them, with sequence numbers, times, and where it
//! stopped.
//!
//! ```text
//!             initiator                            responder
//!             192.0.2.1:40012                  192.0.2.2:443
//!         0 s ├─ SYN seq=305419896 ───────────────────────▶│
//!             │                                            │
//!      +41 µs │◀── SYN+ACK seq=2271560481 ack=305419897 ──┤
//!             │                                            │
//!      +5.2 s ├─ no ACK ╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌✘           │
//! ```

mod rungs;

use handshake_common::flow::Side;
use handshake_common::verdict::Leg;
use ratatui::text::Line;
use unicode_width::UnicodeWidthStr as _;

use self::rungs::Rung;
use super::attempts::{end, left_ns, tone};
use super::layout::{Pen, Section, cut, fit, left, right, seconds, sentence, wrap};
use crate::escape::printable;
use crate::number::{group, time};
use crate::report::text::ladder::{RungCertainty, RungDirection, meaning, shaft};
use crate::report::text::{arrow, frames};
use crate::tui::scene::Scene;
use crate::tui::state::Ui;
use crate::tui::theme::Tone;
use handshake_agent::model::flow::{Flow, View};
use handshake_agent::owner::Owner;

/// Column of the initiator's rail.
const RAIL: usize = 12;
/// Most columns between the rails; longer lines are hard to follow.
const WIDEST: usize = 76;

/// Draws the ladder of an attempt.
pub(super) fn lines(
    attempt: &Flow,
    scene: &Scene,
    ui: &Ui,
    width: usize,
    height: usize,
) -> Vec<Line<'static>> {
    let pen = Pen(ui.theme);
    let rungs = rungs::of(attempt, scene);
    let length = width.saturating_sub(RAIL + 3).min(WIDEST);
    let words = words(attempt, scene, pen, width);
    let both = Side::BOTH.map(|side| end(scene, ui, attempt, side));
    let head = vec![title(attempt, scene, &both, pen)];
    // Rails between the rungs if there is room.
    let roomy = 1 + 2 * rungs.len() + 4 + words.len() <= height;
    let mut lines = ends(&both, pen, length, roomy);
    for (at, each) in rungs.iter().enumerate() {
        if roomy && at != 0 {
            lines.push(rail(pen, length));
        }
        lines.push(rung(each, pen, length));
    }
    let section = |rank, lines: Vec<Line<'static>>| Section { least: lines.len(), lines, rank, apart: true };
    let words = Section { least: 1, ..section(2, words) };
    fit(vec![section(1, head), section(0, lines), words], height)
}

/// The title: addresses, time and interface.
fn title(attempt: &Flow, scene: &Scene, [from, to]: &[String; 2], pen: Pen) -> Line<'static> {
    let protocol = if attempt.record.key.udp { "udp" } else { "tcp" };
    let began = scene.clock(attempt.opened_ns());
    let interface = scene.interface(attempt);
    pen.line([
        (format!(" {protocol} {from} → {to}"), Tone::Strong),
        (format!("   began {began}   {interface}"), Tone::Faint),
    ])
}

/// The lines above the rungs: roles and, with room, addresses.
fn ends([from, to]: &[String; 2], pen: Pen, length: usize, roomy: bool) -> Vec<Line<'static>> {
    let line = |from: &str, to: &str, tone| {
        let gap = (length + 2).saturating_sub(from.width() + to.width());
        pen.line([(format!("{}{from}{}{to}", " ".repeat(RAIL), " ".repeat(gap.max(1))), tone)])
    };
    let mut lines = vec![line("initiator", "responder", Tone::Faint)];
    if roomy {
        lines.push(line(from, to, Tone::Plain));
        lines.push(rail(pen, length));
    }
    lines
}

fn rail(pen: Pen, length: usize) -> Line<'static> {
    pen.line([(format!("{}│{}│", " ".repeat(RAIL), " ".repeat(length)), Tone::Faint)])
}

/// One rung: a segment that was seen, was lost in this host, is missing, is awaited or is inferred.
fn rung(rung: &Rung, pen: Pen, length: usize) -> Line<'static> {
    let at = rung.at_ns.map_or_else(String::new, |ns| match ns {
        0 => "0 s".to_owned(),
        ns => format!("+{}", time(ns)),
    });
    let tone = match rung.certainty {
        RungCertainty::Seen => rung.tone,
        RungCertainty::Missing | RungCertainty::Lost => Tone::Bad,
        RungCertainty::Awaited | RungCertainty::Inferred => Tone::Faint,
    };
    let (from, to) = match rung.direction {
        RungDirection::FromInitiator => ("├", "│"),
        RungDirection::FromResponder => ("│", "┤"),
    };
    pen.line([
        (format!("{} ", right(&at, RAIL - 1)), Tone::Plain),
        (from.to_owned(), Tone::Faint),
        (shaft(&cut(&rung.label, length.saturating_sub(4)), rung.direction, rung.certainty, length), tone),
        (to.to_owned(), Tone::Faint),
    ])
}

/// The verdict with its sentence, the cause with its sentence, whose the ends are, and the figures.
fn words(attempt: &Flow, scene: &Scene, pen: Pen, width: usize) -> Vec<Line<'static>> {
    let standing = attempt.standing(&scene.moment());
    let mut lines = Vec::new();
    for (name, meaning) in meaning(&View::of(&scene.snapshot), attempt, standing) {
        lines.extend(explained(pen, name, &meaning, tone(standing), width));
    }
    if let Some(tunnel) = attempt.tunnel() {
        let meaning =
            format!("a {} tunnel. Look at: its inner interface, which shows what is inside", tunnel.title());
        lines.extend(explained(pen, "tunnel", &meaning, tone(standing), width));
    }
    for side in Side::BOTH {
        let process = attempt.process(side).map(|process| format!("process {process}"));
        let owner = scene.owners.of(&attempt.record, side);
        let parts: Vec<String> = process.into_iter().chain(owner.as_deref().map(described)).collect();
        if !parts.is_empty() {
            let name = format!("{}'s owner", side.name());
            lines.extend(explained(pen, &name, &printable(&parts.join(", ")), Tone::Plain, width));
        }
    }
    for text in figures(attempt, scene).into_iter().flat_map(|text| wrap(&text, width - 2)) {
        lines.push(pen.line([(format!(" {text}"), Tone::Faint)]));
    }
    lines
}

/// All that is known of an owner, the narrowest first.
fn described(owner: &Owner) -> String {
    let pod = owner.pod.as_ref().map(|pod| match &pod.name {
        Some(name) => format!("pod {}/{}", name.namespace, name.name),
        None => format!("pod {}", pod.uid),
    });
    let container = owner.container.as_ref().map(|container| format!("container {}", container.label()));
    let unit = owner.unit.as_ref().map(|unit| format!("unit {unit}"));
    let group = format!("cgroup {}", owner.cgroup);
    let parts: Vec<String> = [pod, container, unit, Some(group)].into_iter().flatten().collect();
    parts.join(", ")
}

fn explained(pen: Pen, name: &str, text: &str, tone: Tone, width: usize) -> Vec<Line<'static>> {
    const NAME: usize = 19;
    let tone = if tone == Tone::Plain { Tone::Strong } else { tone };
    let mut label = left(name, NAME);
    let mut lines = Vec::new();
    for text in sentence(text, width - NAME - 2) {
        lines.push(pen.line([(format!(" {label}"), tone), (text, Tone::Plain)]));
        label = " ".repeat(NAME);
    }
    lines
}

/// Times, the time until expiry, flags, and counts of packets.
fn figures(attempt: &Flow, scene: &Scene) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(tcp) = attempt.tcp() {
        let legs = [
            (Leg::SynToSynAck, attempt.syn_to_syn_ack_ns()),
            (Leg::SynAckToAck, attempt.syn_ack_to_ack_ns()),
            (Leg::Connect, attempt.connect_ns()),
            (Leg::AckToFirstByte, attempt.ack_to_first_byte_ns()),
        ];
        let known = legs.iter().filter_map(|(leg, ns)| ns.map(|ns| format!("{} {}", arrow(*leg), time(ns))));
        let mut parts: Vec<String> = known.collect();
        parts.extend(left_ns(scene, attempt).map(|ns| format!("record expires in {}", seconds(ns))));
        parts.extend(attempt.flags(&scene.view().moment).map(|flag| flag.name().to_owned()));
        parts.push(format!(
            "packets: syn {}, syn_ack {}, ack {}",
            tcp.syn,
            tcp.syn_ack,
            group(tcp.ack.into())
        ));
        lines.push(parts.join(" · "));
    }
    let view = scene.view();
    if let Some(found) = view.frames(attempt) {
        let file = view.file(&found).map_or_else(String::new, |file| format!(" of {file}"));
        lines.push(format!("{}{file}", frames(&found)));
        lines.push(found.display_filter(attempt));
    }
    lines
}
