//! The screen Attempts: the open attempts, the oldest first, then ended attempts and UDP flows, the latest
//! first.

use handshake_common::flow::Side;
use handshake_common::verdict::{Assessment, Cause, FlowFlag, Verdict};
use ratatui::text::Line;
use unicode_width::UnicodeWidthStr as _;

use super::layout::{Pen, seconds};
use super::table::{ColumnHead, TableCell, head, row, seen};
use crate::names::Names;
use crate::number::{group, time};
use crate::tui::list::{self, AttemptColumn};
use crate::tui::scene::Scene;
use crate::tui::state::Ui;
use crate::tui::theme::Tone;
use handshake_agent::model::flow::{Flow, FlowId, Standing};

/// Width of the narrowest terminal that shows repeated SYNs and SYN+ACKs apart.
const REPEATS: usize = 156;

impl AttemptColumn {
    const ALL: [Self; 12] = [
        Self::Age,
        Self::Left,
        Self::Verdict,
        Self::Cause,
        Self::Retransmissions,
        Self::Repeats,
        Self::Initiator,
        Self::Responder,
        Self::Connect,
        Self::FirstLeg,
        Self::SecondLeg,
        Self::Interface,
    ];

    const fn title(self) -> &'static str {
        match self {
            Self::Age => "age",
            Self::Verdict => "verdict",
            Self::Cause => "cause",
            Self::Retransmissions | Self::Repeats => "repeats",
            Self::Connect => "connect",
            Self::Initiator => "initiator",
            Self::Responder => "responder",
            Self::FirstLeg => "syn→syn+ack",
            Self::SecondLeg => "syn+ack→ack",
            Self::Left => "expires",
            Self::Interface => "at",
        }
    }

    /// Columns of the terminal; 0 for a share of the rest.
    const fn width(self) -> usize {
        match self {
            Self::Age => 9,
            Self::Verdict => 17,
            Self::Cause => 10,
            Self::Retransmissions => 7,
            Self::Connect => 8,
            Self::Repeats => 19,
            Self::Initiator | Self::Responder => 0,
            Self::FirstLeg | Self::SecondLeg => 11,
            Self::Left => 9,
            Self::Interface => 8,
        }
    }

    /// Width of the narrowest terminal that shows the column.
    const fn least_width(self) -> usize {
        match self {
            Self::Age | Self::Verdict | Self::Initiator | Self::Responder => 0,
            Self::Cause | Self::Retransmissions => 72,
            Self::Connect => 92,
            Self::FirstLeg | Self::SecondLeg => 132,
            Self::Left => 112,
            Self::Repeats => REPEATS,
            Self::Interface => 144,
        }
    }

    /// Whether a terminal of this width shows the column.
    const fn is_shown(self, width: usize) -> bool {
        let is_replaced = matches!(self, Self::Retransmissions) && width >= REPEATS;
        self.least_width() <= width && !is_replaced
    }

    const fn is_numeric(self) -> bool {
        matches!(
            self,
            Self::Age | Self::Retransmissions | Self::Connect | Self::FirstLeg | Self::SecondLeg | Self::Left
        )
    }

    fn cell(self, scene: &Scene, names: Names, attempt: &Flow) -> TableCell {
        let standing = attempt.standing(&scene.moment());
        match self {
            Self::Age => age(scene, attempt, standing),
            Self::Verdict => verdict(scene, attempt, standing, self.width()),
            Self::Cause => TableCell::plain(attempt.cause(standing).map_or("", Cause::name)),
            Self::Retransmissions => TableCell::plain(some(attempt.retransmits())),
            Self::Repeats => TableCell::plain(repeats(attempt)),
            Self::Connect => TableCell::plain(attempt.connect_ns().map(time).unwrap_or_default()),
            Self::Initiator => TableCell::plain(end(names, attempt, Side::Initiator)),
            Self::Responder => TableCell::plain(end(names, attempt, Side::Responder)),
            Self::FirstLeg => {
                let leg = attempt.syn_to_syn_ack_ns().or_else(|| attempt.answer_ns());
                TableCell::plain(leg.map(time).unwrap_or_default())
            }
            Self::SecondLeg => TableCell::plain(attempt.syn_ack_to_ack_ns().map(time).unwrap_or_default()),
            Self::Left => TableCell::plain(left_ns(scene, attempt).map(seconds).unwrap_or_default()),
            Self::Interface => TableCell::plain(scene.interface(attempt)),
        }
    }
}

/// An end of a flow as it is shown.
pub(super) fn end(names: Names, flow: &Flow, side: Side) -> String {
    match side {
        Side::Initiator => names.client(flow.end(side)),
        Side::Responder => names.service(flow.end(side), flow.record.key.udp),
    }
}

/// The tone of a verdict.
pub(super) const fn tone(standing: Standing) -> Tone {
    match standing.assessment() {
        Assessment::Good => Tone::Good,
        Assessment::Neutral => Tone::Plain,
        Assessment::Bad => Tone::Bad,
    }
}

/// The verdict, and as many of the flow's flags as fit beside it, what is wrong first.
fn verdict(scene: &Scene, attempt: &Flow, standing: Standing, width: usize) -> TableCell {
    let moment = scene.moment();
    let mut text = standing.name().to_owned();
    let flags = || attempt.flags(&moment);
    let silent = || flags().filter(|flag| *flag == FlowFlag::Silent);
    for flag in silent().chain(flags().filter(|flag| *flag != FlowFlag::Silent)) {
        let longer = format!("{text}, {}", flag.name());
        if longer.len() <= width {
            text = longer;
        }
    }
    TableCell { text, tone: if silent().next().is_some() { Tone::Bad } else { tone(standing) } }
}

/// The age of an open attempt with a glyph for opening or half-open, or the time of day of an end.
fn age(scene: &Scene, attempt: &Flow, standing: Standing) -> TableCell {
    if !attempt.is_open() {
        return TableCell::plain(scene.zone.clock(scene.snapshot.wall_of(attempt.moment_ns())));
    }
    let age_ns = attempt.record.age_ns(scene.now());
    let glyph = if standing == Standing::Tcp(Verdict::HalfOpen) { "◐" } else { "○" };
    TableCell { text: format!("{glyph} {:>7}", time(age_ns)), tone: tone(standing) }
}

/// The repeated SYNs and SYN+ACKs, as far as there are any.
fn repeats(attempt: &Flow) -> String {
    let syns = u16::from(attempt.syn_retransmits());
    let both = [("SYN", syns), ("SYN+ACK", attempt.retransmits() - syns)];
    let some = both.iter().filter(|(_, count)| *count != 0).map(|(name, count)| format!("{name} {count}"));
    some.collect::<Vec<_>>().join(" · ")
}

fn some(count: u16) -> String {
    if count == 0 { String::new() } else { format!("{count}x") }
}

/// Time until an open attempt expires (T2), in whole seconds, ns.
pub(super) fn left_ns(scene: &Scene, attempt: &Flow) -> Option<u64> {
    let tcp = attempt.tcp().filter(|_| attempt.is_open())?;
    let silent = scene.now().ns.saturating_sub(tcp.latest_ns());
    // Whole seconds, because it is a countdown.
    let left = scene.clocks().expire_after_ns.checked_sub(silent)?;
    Some(left / 1_000_000_000 * 1_000_000_000)
}

/// The screen.
pub(super) fn lines(scene: &Scene, ui: &Ui, width: usize, height: usize) -> Vec<Line<'static>> {
    let (pen, names) = (Pen(ui.theme), ui.names(scene));
    let rows = list::attempts(scene, &ui.filter, ui.attempts);
    let mut lines = vec![summary(scene, ui, pen, &rows)];
    if rows.is_empty() {
        lines.push(Line::default());
        lines.push(pen.line([(format!(" {}", nothing(scene, ui)), Tone::Plain)]));
        return lines;
    }
    let ids: Vec<FlowId> = rows.iter().map(|attempt| attempt.id()).collect();
    let cursor = ui.on_attempt.row(&ids);
    let seen = seen(rows.len(), cursor, height.saturating_sub(2));
    let (columns, heads) = columns(ui, names, &rows[seen.clone()], width);
    lines.push(head(pen, &heads));
    for at in seen {
        let cells = columns.iter().map(|column| column.cell(scene, names, rows[at])).collect();
        lines.push(row(pen, &heads, cells, at == cursor, width));
    }
    lines
}

pub(super) fn nothing(scene: &Scene, ui: &Ui) -> &'static str {
    if ui.filter.is_empty() && scene.moment().stopped {
        "No attempt and no UDP flow is in the capture."
    } else if ui.filter.is_empty() {
        "No attempt yet: open attempts and those that end from now on are listed here."
    } else {
        "Nothing matches the filter: Esc clears it."
    }
}

/// The number of attempts, and the ages at which their verdicts change.
fn summary(scene: &Scene, ui: &Ui, pen: Pen, rows: &[&Flow]) -> Line<'static> {
    let clocks = scene.clocks();
    let (t1, t2) = (seconds(clocks.half_open_after_ns), seconds(clocks.expire_after_ns));
    let kept = scene.open.len() as u64;
    // Plain text is searched in the kept attempts only.
    let most =
        if kept < scene.open_found { format!(", the {} oldest here", group(kept)) } else { String::new() };
    let hint = if ui.filter.has_text() && !most.is_empty() { " (text is searched in these)" } else { "" };
    pen.line([
        (format!(" {} open{most}{hint} · ", group(scene.open_found)), Tone::Strong),
        (
            format!(
                "{} listed · ○ opening, ◐ half-open from {t1}, expires after {t2}",
                group(rows.len() as u64)
            ),
            Tone::Faint,
        ),
    ])
}

/// The columns that fit. Initiator and responder share the rest of the width, each as wide as needed.
fn columns(ui: &Ui, names: Names, rows: &[&Flow], width: usize) -> (Vec<AttemptColumn>, Vec<ColumnHead>) {
    let columns: Vec<AttemptColumn> =
        AttemptColumn::ALL.into_iter().filter(|column| column.is_shown(width)).collect();
    let fixed: usize = columns.iter().map(|column| column.width() + 1).sum();
    let room = width.saturating_sub(fixed + 1);
    let longest = |side| rows.iter().map(|row| end(names, row, side).width()).max().unwrap_or(0);
    let needed = [longest(Side::Initiator), longest(Side::Responder)].map(|length| length.max(12));
    let first = needed[0].min(room.saturating_sub(needed[1]).max(room / 2));
    let second = needed[1].min(room - first);
    let head = |column: &AttemptColumn| ColumnHead {
        title: column.title(),
        width: match column {
            AttemptColumn::Initiator => first,
            AttemptColumn::Responder => second,
            AttemptColumn::Age
            | AttemptColumn::Verdict
            | AttemptColumn::Cause
            | AttemptColumn::Retransmissions
            | AttemptColumn::Repeats
            | AttemptColumn::Connect
            | AttemptColumn::FirstLeg
            | AttemptColumn::SecondLeg
            | AttemptColumn::Left
            | AttemptColumn::Interface => column.width(),
        },
        numeric: column.is_numeric(),
        sorted: (*column == ui.attempts.column).then_some(ui.attempts.reversed),
    };
    let heads = columns.iter().map(head).collect();
    (columns, heads)
}
