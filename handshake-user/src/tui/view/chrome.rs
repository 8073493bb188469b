//! The parts around every screen: the header, the tabs, the banner, the status line.

use std::path::Path;
use std::slice;

use handshake_agent::error::some_of;
use handshake_agent::model::snapshot::{CaptureOrigin, InterfaceHooks, Origin};
use handshake_agent::recording::LeftOut;
use ratatui::text::{Line, Span};
use unicode_width::UnicodeWidthStr as _;

use super::layout::{Pen, apart, left, sentence};
use crate::escape::printable;
use crate::names::Names;
use crate::number::{group, span, whole_percent};
use crate::report::text::{cause, time_of};
use crate::tui::banner::Surge;
use crate::tui::scene::{PastMoment, Scene};
use crate::tui::screen::Screen;
use crate::tui::state::Ui;
use crate::tui::theme::Tone;

/// The pieces at the left of the header that stay whatever makes the figures inexact: the program's name, and
/// those of the interfaces or the capture.
const NAMED: usize = 2;

/// The header: interfaces, filter and hooks; the time, the elapsed time, and whether the figures are exact.
pub(super) fn header(scene: &Scene, ui: &Ui, width: usize) -> Line<'static> {
    let pen = Pen(ui.theme);
    let snapshot = &scene.snapshot;
    let mut start = vec![pen.span("handshake", Tone::Strong)];
    let filter = &snapshot.context.filter;
    let (names, hooks) = match &snapshot.context.origin {
        Origin::Capture(capture) => (file_names(capture), Vec::new()),
        Origin::Live(live) => named(&live.interfaces),
    };
    let ports = filter.ports.iter().map(|range| format!("port {range}"));
    let nets = filter.nets.iter().map(|net| format!("net {net}"));
    // The least important piece is last, because the end is left out if there is no room.
    for piece in [names].into_iter().chain(ports).chain(nets).chain(hooks) {
        start.push(pen.span(format!(" · {piece}"), Tone::Plain));
    }
    let times = format!("{} · {} · ", time_of(snapshot, scene.zone), span(snapshot.elapsed_ns()));
    let kept: usize = start.iter().take(NAMED).map(Span::width).sum();
    let words = scene.exactness.words(width.saturating_sub(kept + 1 + times.width()));
    let end = vec![pen.span(times, Tone::Plain), pen.span(words, exactness_tone(scene))];
    apart(start, end, width)
}

/// The tone of the words that say whether the figures are exact.
pub(super) const fn exactness_tone(scene: &Scene) -> Tone {
    if scene.exactness.is_exact() { Tone::Good } else { Tone::Bad }
}

/// The names of a capture's files without their folders; some of many.
fn file_names(capture: &CaptureOrigin) -> String {
    let paths = if capture.files.is_empty() { slice::from_ref(&capture.path) } else { &capture.files };
    let names = paths.iter().map(|path| match Path::new(path).file_name() {
        Some(name) => printable(&name.to_string_lossy()).into_owned(),
        None => path.clone(),
    });
    let names: Vec<String> = names.collect();
    some_of(&names.iter().map(String::as_str).collect::<Vec<_>>())
}

/// The names of the interfaces, and their hooks without repetitions.
fn named(interfaces: &[InterfaceHooks]) -> (String, Vec<String>) {
    let names: Vec<&str> = interfaces.iter().map(|interface| interface.name.as_str()).collect();
    let mut different: Vec<String> = Vec::new();
    for hooks in interfaces.iter().map(hooks) {
        if !different.contains(&hooks) {
            different.push(hooks);
        }
    }
    (none_or(&names), different)
}

/// Names on one line, some of many.
fn none_or(names: &[&str]) -> String {
    if names.is_empty() { "no interface yet".to_owned() } else { some_of(names) }
}

/// The hooks of an interface, worded as in reports.
pub(super) fn hooks(interface: &InterfaceHooks) -> String {
    let ways = [("ingress", &interface.ingress), ("egress", &interface.egress)];
    let hooks = ways.iter().filter_map(|(way, hook)| hook.as_ref().map(|hook| format!("{way} {hook}")));
    let merged = interface.merged.then(|| "segments merged".to_owned());
    hooks.chain(merged).collect::<Vec<_>>().join(", ")
}

/// The tabs with the current screen marked, the filter, and whether the screen is frozen.
pub(super) fn tabs(scene: &Scene, ui: &Ui, width: usize) -> Line<'static> {
    let pen = Pen(ui.theme);
    let mut start = Vec::new();
    for (at, screen) in Screen::ALL.into_iter().enumerate() {
        let tone = if screen == ui.screen { Tone::Selected } else { Tone::Plain };
        start.push(pen.span(format!(" {} {} ", at + 1, screen.title()), tone));
    }
    let named: usize = start.iter().map(Span::width).sum();
    let mut end = Vec::new();
    if let Some(past) = &scene.past {
        end.push(pen.span(format!(" {} ", ago(past)), Tone::Selected));
    } else if ui.frozen {
        end.push(pen.span(" FROZEN ".to_owned(), Tone::Selected));
    }
    let room = width.saturating_sub(named + 2 + end.iter().map(Span::width).sum::<usize>());
    let is_wrong = ui.input.as_ref().is_some_and(|input| input.wrong.is_some());
    let has_filter = is_wrong || !ui.filter.is_empty();
    if has_filter && matches!(ui.screen, Screen::Attempts | Screen::Services) {
        let text = if is_wrong { "no filter".to_owned() } else { format!("filter {}", ui.filter.text) };
        end.insert(0, pen.span(left(&text, room.min(text.width())), Tone::Strong));
        end.insert(1, pen.span(" ", Tone::Plain));
    }
    apart(start, end, width)
}

/// How long before the end of the recording a moment was, and what it had no room for.
fn ago(past: &PastMoment) -> String {
    let LeftOut { open, failed, ended } = past.left_out;
    let ago =
        if past.ago_ns == 0 { "RECORDED".to_owned() } else { format!("RECORDED -{}", span(past.ago_ns)) };
    let gap = (past.gap_ns != 0).then(|| format!(", {} before it not recorded", span(past.gap_ns)));
    let missing = open + failed + ended;
    let missing = (missing != 0).then(|| format!(", {} flows left out", group(missing)));
    [Some(ago), gap, missing].into_iter().flatten().collect()
}

/// The lines of the banner: the surge and its cause; empty without a surge.
pub(super) fn banner(scene: &Scene, ui: &Ui, width: usize) -> Vec<Line<'static>> {
    let Some(surge) = &scene.surge else { return Vec::new() };
    let pen = Pen(ui.theme);
    let mut lines = vec![pen.bar(&surge_line(surge, scene, ui.names(scene)), Tone::Alarm, width)];
    if let Some(cause) = surge.cause {
        let words = format!("{}: {}", cause.name(), cause::brief(cause, &scene.snapshot));
        for text in sentence(&words, width - 2) {
            lines.push(Line::from(pen.span(left(&format!(" {text}"), width), Tone::Bad)));
        }
    }
    lines
}

fn surge_line(surge: &Surge, scene: &Scene, names: Names) -> String {
    let name = surge.service.map(|socket| names.service(socket, false));
    let name = name.as_deref().unwrap_or("all services");
    let others = match surge.others {
        0 => String::new(),
        others => format!(" and {others} more"),
    };
    let (count, since) = (group(surge.outstanding), scene.clock(surge.since_ns));
    if surge.stuck == 0 {
        return format!(" since {since} half-open surge at {name}{others} ({count} open now)");
    }
    let share = whole_percent(surge.stuck, surge.stuck + surge.completed);
    format!(" since {since} {share} of new connections to {name}{others} stay open ({count} now)")
}

/// The status line: the filter that is being typed, the latest message, or the keys.
pub(super) fn status(scene: &Scene, ui: &Ui, width: usize) -> Line<'static> {
    let pen = Pen(ui.theme);
    if let Some(input) = &ui.input {
        let wrong = input.wrong.clone().unwrap_or_default();
        let start = vec![pen.span(format!("/{}", input.text), Tone::Strong), pen.span(" ", Tone::Selected)];
        return apart(start, vec![pen.span(wrong, Tone::Bad)], width);
    }
    if let Some(message) = &ui.message {
        return Line::from(pen.span(left(message, width), Tone::Strong));
    }
    apart(keys(pen, scene, ui), vec![pen.span("? help", Tone::Faint)], width)
}

/// The keys of the current screen, the most important first.
fn keys(pen: Pen, scene: &Scene, ui: &Ui) -> Vec<Span<'static>> {
    let hints: &[&str] = match ui.screen {
        _ if ui.opened.is_some() => &["q quit", "Esc back", "y copy", "p freeze", "w write"],
        Screen::Overview if scene.surge.is_some() => {
            &["q quit", "! failures", "Tab next screen", "Enter attempts", "y copy"]
        }
        Screen::Overview => &["q quit", "Tab next screen", "Enter attempts", "f failures", "y copy"],
        Screen::Attempts if scene.open.is_empty() && scene.ended.is_empty() => &["q quit", "Tab next screen"],
        Screen::Attempts if ui.clients => {
            &["q quit", "Enter attempts", "c attempts", "f failures", "/ filter"]
        }
        Screen::Attempts => {
            &["q quit", "Enter ladder", "f failures", "c clients", "/ filter", "s sort", "p freeze"]
        }
        Screen::Services => &["q quit", "Enter attempts", "f failures", "/ filter", "s sort", "p freeze"],
        Screen::Health => &["q quit", "Tab next screen", "y copy", "p freeze", "w write"],
    };
    let travel = ui.is_recorded.then_some("← → time");
    let (quit, others) = hints.split_at(hints.len().min(1));
    let all = quit.iter().copied().chain(travel).chain(others.iter().copied());
    all.map(|hint| pen.span(format!("{hint}   "), Tone::Faint)).collect()
}
