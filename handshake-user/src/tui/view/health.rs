//! The screen Health: are the figures exact, and what do they cost? What was lost, the tables, the programs,
//! the hooks, and every reason that there is.

use handshake_agent::model::snapshot::{EVICTIONS, FIRST_UDP_ROW, Origin, Packets};
use handshake_common::record::State;
use handshake_common::wire::Class;
use ratatui::text::Line;

use super::chrome;
use super::layout::{Pen, left, right, sentence};
use crate::check::KernelCounter;
use crate::number::{group, percent, short, span};
use crate::tui::scene::Scene;
use crate::tui::state::Ui;
use crate::tui::theme::Tone;

/// Columns of a count.
const COUNT: usize = 16;
/// Columns of a name.
const NAME: usize = 20;
/// Columns of a sentence: what the narrowest terminal has room for.
const WRAP: usize = 58;
/// Columns of the bar that shows how full the tables are.
const BAR: usize = 24;
/// The command that makes the kernel time BPF programs.
const STATISTICS: &str = "sysctl -w kernel.bpf_stats_enabled=1";

/// The lines of the screen that fit, from the scrolled position on.
pub(super) fn page(scene: &Scene, ui: &Ui, height: usize) -> Vec<Line<'static>> {
    let lines = lines(scene, ui);
    let first = ui.scrolled.min(lines.len().saturating_sub(height));
    lines.into_iter().skip(first).collect()
}

/// The whole screen.
pub(crate) fn lines(scene: &Scene, ui: &Ui) -> Vec<Line<'static>> {
    let pen = Pen(ui.theme);
    let mut lines = Vec::new();
    let exactness = exactness(scene, pen);
    let parts = [
        exactness,
        table(scene, pen),
        kernel(scene, pen),
        programs(scene, pen),
        hooks(scene, pen),
        reasons(scene, pen),
    ];
    for part in parts.into_iter().filter(|part| !part.is_empty()) {
        if !lines.is_empty() {
            lines.push(Line::default());
        }
        lines.extend(part);
    }
    lines
}

/// Whether the report is exact, and of the losses that occurred: how many, when, what, and where to look.
fn exactness(scene: &Scene, pen: Pen) -> Vec<Line<'static>> {
    let snapshot = &scene.snapshot;
    let tone = chrome::exactness_tone(scene);
    let mut lines = if scene.exactness.is_exact() {
        vec![pen.line([(" EXACT: nothing was lost; every verdict is that of the wire".to_owned(), tone)])]
    } else {
        let meaning = " The books balance, but some verdicts may differ from the wire.";
        vec![
            pen.line([(format!(" {}", scene.exactness.words(WRAP)), tone)]),
            pen.line([(meaning.to_owned(), Tone::Plain)]),
        ]
    };
    for loss in snapshot.losses() {
        let times = loss.found_ns.map(|(first, last)| [first, last].map(|ns| scene.clock(ns)));
        let times = times.map(|[first, last]| format!("{first} to {last}")).unwrap_or_default();
        let name = format!(" {}{}    ", left(loss.reason, NAME), right(&group(loss.count), COUNT - 4));
        lines.push(pen.line([(name, Tone::Bad), (times, Tone::Plain)]));
        let text = sentence(&loss.sentence, WRAP - 2).into_iter();
        lines.extend(text.map(|text| pen.line([(format!("   {text}"), Tone::Plain)])));
    }
    lines
}

/// Every reason that makes a report inexact, with its count.
fn reasons(scene: &Scene, pen: Pen) -> Vec<Line<'static>> {
    let all = scene.snapshot.possible_losses().into_iter();
    let cells: Vec<(String, u64)> = all.map(|loss| (loss.reason.to_owned(), loss.count)).collect();
    let head = (" what makes a report inexact".to_owned(), Tone::Strong);
    [pen.line([head])].into_iter().chain(grid(pen, &cells, true)).collect()
}

/// Names and counts, two pairs per line.
fn grid(pen: Pen, cells: &[(String, u64)], is_bad: bool) -> Vec<Line<'static>> {
    cells
        .chunks(2)
        .map(|pair| {
            let mut spans = vec![pen.span(" ", Tone::Plain)];
            for (name, count) in pair {
                let tone = if is_bad && *count != 0 { Tone::Bad } else { Tone::Plain };
                spans.push(pen.span(left(name, NAME), Tone::Faint));
                spans.push(pen.span(right(&group(*count), COUNT - 4), tone));
                spans.push(pen.span("    ", Tone::Plain));
            }
            Line::from(spans)
        })
        .collect()
}

/// The tables' use, their records by state, and the evictions by kind.
fn table(scene: &Scene, pen: Pen) -> Vec<Line<'static>> {
    let table = &scene.snapshot.table;
    let used = percent(table.used, table.slots);
    let filled = usize::try_from(u128::from(table.used) * BAR as u128 / u128::from(table.slots.max(1)));
    let filled = filled.unwrap_or(BAR).min(BAR);
    let bar = format!("{}{}", "█".repeat(filled), "░".repeat(BAR - filled));
    let text = format!("{} of {} slots, {used}", group(table.used), group(table.slots));
    let mut lines = vec![pen.line([
        (" table  ".to_owned(), Tone::Strong),
        (bar, Tone::Plain),
        (format!("  {text}"), Tone::Plain),
    ])];
    let states = State::ALL.into_iter().filter(|state| *state != State::Empty);
    let held: Vec<(String, u64)> = states
        .map(|state| (state.name().to_owned(), scene.occupancy[state as usize]))
        .filter(|(_, count)| *count != 0)
        .collect();
    lines.extend(grid(pen, &held, false));
    let evictions: Vec<(String, u64)> = EVICTIONS
        .iter()
        .zip(table.evictions)
        .map(|((name, _), count)| (format!("evicted {name}"), count))
        .collect();
    lines.extend(grid(pen, &evictions, false));
    lines.push(services(scene, pen));
    lines
}

/// The rows of the service table that are in use, of each protocol.
fn services(scene: &Scene, pen: Pen) -> Line<'static> {
    let named =
        |udp| scene.services.iter().filter(|line| line.service.is_some() && line.is_udp() == udp).count();
    let rows = group(u64::from(FIRST_UDP_ROW) - 1);
    let [tcp, udp] = [named(false), named(true)].map(|count| group(count as u64));
    let evicted = scene.snapshot.services_evicted;
    let tone = if evicted == 0 { Tone::Plain } else { Tone::Strong };
    pen.line([
        (" services  ".to_owned(), Tone::Strong),
        (format!("tcp {tcp} of {rows} · udp {udp} of {rows} · "), Tone::Plain),
        (format!("evicted {}", group(evicted)), tone),
    ])
}

/// The kernel's own counters of this network namespace that tell of trouble.
fn kernel(scene: &Scene, pen: Pen) -> Vec<Line<'static>> {
    let Some(counters) = scene.around.counters else { return Vec::new() };
    let counted = KernelCounter::ALL.into_iter().filter(|counter| counter.is_trouble());
    let cells: Vec<(String, u64)> =
        counted.map(|counter| (counter.name().to_owned(), counters.of(counter))).collect();
    let head = pen.line([
        (" kernel  ".to_owned(), Tone::Strong),
        ("its own counters since the start, of every interface and port".to_owned(), Tone::Faint),
    ]);
    [head].into_iter().chain(grid(pen, &cells, true)).collect()
}

/// The cost of the programs, if the kernel's statistics are on. A capture needs no programs.
fn programs(scene: &Scene, pen: Pen) -> Vec<Line<'static>> {
    if matches!(scene.snapshot.context.origin, Origin::Capture(_)) {
        return Vec::new();
    }
    let timed = scene.programs.iter().any(|program| program.ns_a_run.is_some());
    let said = if scene.past.is_some() {
        "not recorded".to_owned()
    } else if timed {
        "by the kernel's statistics".to_owned()
    } else {
        format!("not timed: {STATISTICS} (costs a little)")
    };
    let mut lines = vec![pen.line([(" programs  ".to_owned(), Tone::Strong), (said, Tone::Faint)])];
    for program in &scene.programs {
        let name = left(&format!("{} ({})", program.name, program.id), 34);
        let cost = match program.ns_a_run {
            Some(ns) => format!("{} ns per packet, {} packets", group(ns), group(program.runs)),
            None => "–".to_owned(),
        };
        lines.push(pen.line([(format!(" {name}"), Tone::Faint), (cost, Tone::Plain)]));
    }
    lines
}

/// The interfaces with their hooks, their packets, and the programs before ours.
fn hooks(scene: &Scene, pen: Pen) -> Vec<Line<'static>> {
    let Origin::Live(live) = &scene.snapshot.context.origin else { return Vec::new() };
    let mut lines = vec![pen.line([
        (" hooks  ".to_owned(), Tone::Strong),
        (format!("watched for {}", span(scene.snapshot.elapsed_ns())), Tone::Faint),
    ])];
    for (at, interface) in live.interfaces.iter().enumerate() {
        let packets = scene.snapshot.interfaces.get(at).copied().unwrap_or_default();
        lines.push(pen.line([
            (format!(" {}", left(&interface.name, NAME)), Tone::Faint),
            (format!("{} · {}", chrome::hooks(interface), came_by(&packets)), Tone::Plain),
        ]));
        let (before, tone) = if interface.before.is_empty() {
            ("no program runs before ours".to_owned(), Tone::Faint)
        } else {
            (format!("before ours: {}", interface.before.join(", ")), Tone::Strong)
        };
        lines.push(pen.line([(format!(" {}", " ".repeat(NAME)), Tone::Plain), (before, tone)]));
    }
    if live.gone != 0 {
        let interfaces = if live.gone == 1 { "interface" } else { "interfaces" };
        let gone = format!("{} {interfaces} · {}", group(live.gone), came_by(&scene.snapshot.gone));
        lines.push(pen.line([(format!(" {}", left("gone", NAME)), Tone::Faint), (gone, Tone::Plain)]));
    }
    lines
}

fn came_by(packets: &Packets) -> String {
    let odd = [Class::Truncated, Class::Malformed];
    let odd: Vec<String> = odd
        .into_iter()
        .filter(|class| packets.class(*class) != 0)
        .map(|class| format!(", {} {}", class.name(), group(packets.class(class))))
        .collect();
    format!("{} packets{}", short(packets.total), odd.concat())
}
