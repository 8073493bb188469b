//! The screen Overview: are connections established, and if not, why? The answer first, then its figures.

use std::iter;

use handshake_agent::model::snapshot::ServiceBooks;
use handshake_common::verdict::{Leg, Sign, UdpVerdict};
use handshake_common::wire::Class;
use ratatui::text::Line;
use unicode_width::UnicodeWidthStr as _;

use super::layout::{Pen, Section, bars, fit, left, right, sentence, wrap};
use super::services;
use crate::number::{group, short, span, time};
use crate::report::text::cause::{self, Problem};
use crate::report::text::{arrow, balance_terms};
use crate::tui::history::IntervalRates;
use crate::tui::scene::{BINS, Established, LegLine, Scene};
use crate::tui::state::Ui;
use crate::tui::theme::Tone;

/// Columns of a label.
const LABEL: usize = 12;
/// Columns before the figures of a headline that stand below it.
const INDENT: usize = 4;
/// Columns of a percentile.
const TIME: usize = 8;
/// Least rows of the screen with gauges.
const ROOMY: usize = 20;
/// Rows of the screen per listed service.
const ROWS_A_SERVICE: usize = 5;

/// The screen.
pub(super) fn lines(scene: &Scene, ui: &Ui, width: usize, height: usize) -> Vec<Line<'static>> {
    let pen = Pen(ui.theme);
    let section = |rank, least, apart, lines| Section { lines, least, rank, apart };
    let hook_saw = labelled(pen, "hook saw", &hook_saw(scene), width);
    // What is in no verdict of the identity may be the reason why nothing else is.
    let hook_rank = if cause::outside(&scene.snapshot).is_empty() { 10 } else { 4 };
    let balance = labelled(pen, "balance", &balance_terms(&scene.snapshot).join(" + "), width);
    let headline = headline(scene, pen, width);
    let mut wrong = wrong(scene, pen, width);
    let minor = wrong.split_off(wrong.len().min(cause::MOST));
    // The worst service with the titles, and then the others.
    let mut worst = worst(scene, ui, width, (height / ROWS_A_SERVICE).max(1));
    let other_services = worst.split_off(worst.len().min(2));
    let mut sections = vec![
        section(0, headline.len(), true, headline),
        section(3, 2, false, wrong.concat()),
        section(1, 5, true, rates(scene, pen, width, height)),
        section(5, 4, true, times(scene, pen, width)),
        section(2, 2, true, worst),
        section(8, 1, false, other_services),
        section(6, 1, true, lost(scene, pen, width)),
        section(9, 1, true, others(scene, pen, width)),
        section(7, balance.len(), false, balance),
        section(hook_rank, hook_saw.len(), false, hook_saw),
    ];
    let minor = minor.into_iter().map(|lines| section(11, lines.len(), false, lines));
    sections.splice(2..2, minor);
    fit(sections, height)
}

/// The answer in one word, with the figures behind it, on a line of their own where there is no room beside it.
fn headline(scene: &Scene, pen: Pen, width: usize) -> Vec<Line<'static>> {
    let (word, tone) = match scene.headline.state {
        Established::Quiet => ("–  QUIET".to_owned(), Tone::Strong),
        Established::Yes => ("✔  ESTABLISHED".to_owned(), Tone::Good),
        Established::Partly => ("◐  PARTLY ESTABLISHED".to_owned(), Tone::Bad),
        Established::No => ("✘  NOT ESTABLISHED".to_owned(), Tone::Bad),
        Established::ServicesFail { failing: 1, judged } => {
            (format!("✘  1 of {judged} SERVICES FAILS"), Tone::Bad)
        }
        Established::ServicesFail { failing, judged } => {
            (format!("✘  {failing} of {judged} SERVICES FAIL"), Tone::Bad)
        }
        Established::OneWay => ("◐  ONE DIRECTION ONLY".to_owned(), Tone::Bad),
        Established::Silent => ("✘  NO ANSWER".to_owned(), Tone::Bad),
    };
    let (word, text) = (format!(" {word}   "), scene.headline.text.clone());
    if word.width() + text.width() <= width {
        return vec![pen.line([(word, tone), (text, Tone::Strong)])];
    }
    let below = wrap(&text, width - INDENT).into_iter();
    let below = below.map(|text| pen.line([(format!("{:INDENT$}{text}", ""), Tone::Strong)]));
    iter::once(pen.line([(word, tone)])).chain(below).collect()
}

/// The problems and where to look, the lines of each. The problem in the banner is not repeated.
fn wrong(scene: &Scene, pen: Pen, width: usize) -> Vec<Vec<Line<'static>>> {
    let in_banner = scene.surge.as_ref().and_then(|surge| surge.cause).map(|cause| cause.name());
    let mut lines = Vec::new();
    if let Some(quiet) = &scene.quiet {
        lines.push(problem(pen, "no SYN", "", quiet, width));
    }
    for Problem { name, sentence, count } in scene.problems.iter().filter(|each| Some(each.name) != in_banner)
    {
        lines.push(problem(pen, name, &group(*count), sentence, width));
    }
    lines
}

fn problem(pen: Pen, name: &str, count: &str, text: &str, width: usize) -> Vec<Line<'static>> {
    const NAME: usize = 17;
    const COUNT: usize = 8;
    const INDENT: usize = 1 + NAME + 1 + COUNT + 2;
    let mut label = format!(" {} {}  ", left(name, NAME), right(count, COUNT));
    let mut lines = Vec::new();
    for text in sentence(text, width - INDENT) {
        lines.push(pen.line([(label, Tone::Bad), (text, Tone::Plain)]));
        label = " ".repeat(INDENT);
    }
    lines
}

/// Four rates per second and a gauge, with their history.
fn rates(scene: &Scene, pen: Pen, width: usize, height: usize) -> Vec<Line<'static>> {
    const RATE: usize = 12;
    const NOW: usize = 10;
    const MOST: usize = 12;
    let chart = width.saturating_sub(1 + LABEL + RATE + NOW + 2 + MOST + 1);
    let last = scene.history.last();
    type Row = (&'static str, fn(&IntervalRates) -> u64, Option<u64>, bool, Tone);
    let rows: [Row; 5] = [
        ("attempts", |rates| rates.attempts, None, true, Tone::Plain),
        ("opening", |rates| rates.opening, Some(last.opening), false, Tone::Plain),
        ("completed", |rates| rates.completed, None, true, Tone::Good),
        ("half-open", |rates| rates.half_opened, Some(last.half_open), true, Tone::Bad),
        ("failed", |rates| rates.failed, None, true, Tone::Bad),
    ];
    let heads = format!(" {}{}{}", " ".repeat(LABEL), right("per second", RATE), right("now", NOW));
    let mut lines = vec![pen.line([(format!("{heads}  {}", axis(chart, scene.interval_ns)), Tone::Faint)])];
    for (name, figure, now, is_rate, tone) in rows {
        if !is_rate && height < ROOMY {
            continue;
        }
        let rate = figure(&last);
        let strong = |count: u64| if tone == Tone::Bad && count != 0 { Tone::Bad } else { Tone::Strong };
        let now = now.map(|count| (right(&group(count), NOW), strong(count)));
        let series = scene.history.series(chart, figure);
        let most = series.iter().copied().max().unwrap_or(0);
        let most = if most == 0 { String::new() } else { format!(" max {}", short(most)) };
        lines.push(pen.line([
            (format!(" {}", left(name, LABEL)), Tone::Plain),
            (if is_rate { right(&group(rate), RATE) } else { " ".repeat(RATE) }, strong(rate)),
            now.unwrap_or_else(|| (" ".repeat(NOW), Tone::Plain)),
            (format!("  {}", bars(&series, chart)), tone),
            (most, Tone::Faint),
        ]));
    }
    lines
}

/// The time axis above a chart of so many columns, the latest on the right: how long ago, at whole steps.
fn axis(columns: usize, a_column_ns: u64) -> String {
    /// Least columns between two marks, for the text of a mark.
    const APART: u64 = 12;
    /// Times of marks, seconds.
    const STEPS: [u64; 12] = [1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1_800, 3_600];
    let mut line = vec![' '; columns];
    let mut put = |end: usize, text: &str| {
        let Some(begin) = end.checked_sub(text.chars().count()) else { return };
        for (at, character) in (begin..).zip(text.chars()) {
            if let Some(cell) = line.get_mut(at) {
                *cell = character;
            }
        }
    };
    put(columns, "now");
    let fits = |step: &u64| a_column_ns != 0 && step * 1_000_000_000 >= APART * a_column_ns;
    if let Some(step) = STEPS.into_iter().find(fits) {
        for mark in 1.. {
            let ago_ns = mark * step * 1_000_000_000;
            let Ok(back) = usize::try_from(ago_ns / a_column_ns) else { break };
            if back >= columns {
                break;
            }
            put(columns - back, &ago(mark * step));
        }
    }
    line.into_iter().collect()
}

/// Whole seconds, minutes or hours ago.
fn ago(seconds: u64) -> String {
    match seconds {
        0..60 => format!("-{seconds} s"),
        60..3_600 if seconds.is_multiple_of(60) => format!("-{} min", seconds / 60),
        60..3_600 => format!("-{}:{:02} min", seconds / 60, seconds % 60),
        _ if seconds.is_multiple_of(3_600) => format!("-{} h", seconds / 3_600),
        _ => format!("-{}:{:02} h", seconds / 3_600, seconds / 60 % 60),
    }
}

/// The two legs and `connect`: percentiles and a histogram.
fn times(scene: &Scene, pen: Pen, width: usize) -> Vec<Line<'static>> {
    const COUNT: usize = 10;
    let room = width.saturating_sub(1 + LABEL + 4 * TIME + COUNT + 2);
    // Widths that divide the number of bins.
    let chart = [BINS, 48, 32, 24, 16, 12].into_iter().find(|columns| *columns <= room).unwrap_or(0);
    let over = if scene.legs.iter().all(|leg| leg.latency.count == 0) {
        String::new()
    } else if scene.legs_are_recent {
        format!("last {}", span(scene.window_ns))
    } else {
        "whole run".to_owned()
    };
    let heads = ["p50", "p90", "p99", "max"].map(|head| right(head, TIME)).concat();
    let title = format!(" {}{heads}{}  {}", left(&over, LABEL), right("samples", COUNT), scale(chart));
    let mut lines = vec![pen.line([(title, Tone::Faint)])];
    // A server that speaks first or answers late shows here; where no data passes, the row would be empty.
    let shown = scene.legs.iter().filter(|leg| leg.leg != Leg::AckToFirstByte || leg.latency.count != 0);
    lines.extend(shown.map(|leg| leg_line(pen, leg, COUNT, chart)));
    lines
}

fn leg_line(pen: Pen, leg: &LegLine, count: usize, chart: usize) -> Line<'static> {
    let figures = match leg.latency.quantiles {
        Some(q) => [q.p50_ns, q.p90_ns, q.p99_ns, q.max_ns].map(|ns| right(&time(ns), TIME)).concat(),
        None => right("–", TIME).repeat(4),
    };
    let (a_column, columns) = (BINS / chart.max(1), chart);
    let sums: Vec<u64> = leg.bins.chunks(a_column).map(|bins| bins.iter().sum()).collect();
    let tone = if leg.leg == Leg::Connect { Tone::Strong } else { Tone::Plain };
    pen.line([
        (format!(" {}", left(arrow(leg.leg), LABEL)), Tone::Plain),
        (figures, tone),
        (right(&group(leg.latency.count), count), Tone::Plain),
        (format!("  {}", bars(&sums, columns)), Tone::Plain),
    ])
}

/// The scale above a histogram of so many columns; 1 µs is at its left end.
fn scale(columns: usize) -> String {
    let mut line = vec![' '; columns];
    for (power, name) in [(0, "1 µs"), (10, "1 ms"), (20, "1 s")] {
        let at = power * columns / 24;
        for (offset, character) in name.chars().enumerate() {
            if let Some(cell) = line.get_mut(at + offset) {
                *cell = character;
            }
        }
    }
    line.into_iter().collect()
}

/// The services with the most trouble, and then the busiest; how many there are beside them.
fn worst(scene: &Scene, ui: &Ui, width: usize, most: usize) -> Vec<Line<'static>> {
    let mut rows: Vec<_> =
        scene.services.iter().filter(|line| matches!(line.books, ServiceBooks::Tcp(_))).collect();
    rows.sort_by_key(|line| (std::cmp::Reverse((line.trouble, line.begun)), line.service));
    let more = rows.len().saturating_sub(most);
    rows.truncate(most);
    if rows.is_empty() {
        return Vec::new();
    }
    let mut lines = services::tcp_lines(scene, ui, &rows, None, width);
    if more > 0 {
        let text = format!(" the worst first; {} more: 3", group(more as u64));
        lines.push(Pen(ui.theme).line([(text, Tone::Faint)]));
    }
    lines
}

/// The lines of UDP flows and of signs.
fn others(scene: &Scene, pen: Pen, width: usize) -> Vec<Line<'static>> {
    let (udp, tcp) = (&scene.snapshot.udp.books, &scene.snapshot.tcp);
    let mut lines = Vec::new();
    if udp.flows != 0 {
        let counts = UdpVerdict::ALL.iter().map(|verdict| (verdict.name(), udp.verdict(*verdict)));
        let shown: Vec<String> = [("flows", udp.flows)]
            .into_iter()
            .chain(counts.filter(|(_, count)| *count != 0))
            .map(|(name, count)| format!("{name} {}", group(count)))
            .collect();
        lines.extend(labelled(pen, "udp", &shown.join(" · "), width));
    }
    let signs = Sign::ALL.into_iter().filter(|sign| tcp.sign(*sign) != 0);
    let shown: Vec<String> = signs.map(|sign| format!("{} {}", sign.name(), group(tcp.sign(sign)))).collect();
    if !shown.is_empty() {
        lines.extend(labelled(pen, "signs", &shown.join(" · "), width));
    }
    lines
}

/// What makes the figures inexact; empty where they are exact.
fn lost(scene: &Scene, pen: Pen, width: usize) -> Vec<Line<'static>> {
    if scene.exactness.is_exact() {
        return Vec::new();
    }
    let lines = labelled(pen, "inexact", &scene.exactness.reasons().join(" · "), width);
    lines.into_iter().map(|line| line.patch_style(pen.0.style(Tone::Bad))).collect()
}

fn hook_saw(scene: &Scene) -> String {
    let snapshot = &scene.snapshot;
    let packets = &snapshot.packets;
    let [syns, filtered] = [packets.class(Class::Syn), packets.filtered.unwrap_or(0)].map(short);
    let mut text = format!("{} packets · {syns} SYN · {filtered} filtered out", short(packets.total));
    for part in cause::outside(snapshot) {
        text.push_str(&format!(" · {part}"));
    }
    text
}

fn labelled(pen: Pen, label: &str, text: &str, width: usize) -> Vec<Line<'static>> {
    let mut label = left(label, LABEL);
    let mut lines = Vec::new();
    for text in wrap(text, width.saturating_sub(LABEL + 2)) {
        lines.push(pen.line([(format!(" {label}"), Tone::Faint), (text, Tone::Plain)]));
        label = " ".repeat(LABEL);
    }
    lines
}
