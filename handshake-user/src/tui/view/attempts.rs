//! The screen Attempts: the open attempts, the oldest first, then ended attempts and UDP flows, the latest
//! first.

use handshake_common::flow::Side;
use handshake_common::verdict::{Assessment, Cause, FlowFlag, Verdict};
use ratatui::text::Line;
use unicode_width::UnicodeWidthStr as _;

use super::layout::{Pen, cut, seconds};
use super::table::{ColumnHead, TableCell, head, row, seen};
use crate::names::{label, owned_client};
use crate::number::{group, time};
use crate::tui::list::{self, AttemptColumn};
use crate::tui::scene::Scene;
use crate::tui::state::{EndWords, Ui};
use crate::tui::theme::Tone;
use handshake_agent::model::flow::{Flow, FlowId, Standing};

/// Width of the narrowest terminal that shows repeated SYNs and SYN+ACKs apart.
const REPEATS: usize = 156;
/// Width of the narrowest terminal that shows owners. The other columns are then chosen as if it were narrower by
/// theirs.
const OWNERS: usize = 100;
/// Most columns that owners take from the others; they have more where these leave room.
const OWNER: usize = 24;

impl AttemptColumn {
    const ALL: [Self; 13] = [
        Self::Age,
        Self::Left,
        Self::Verdict,
        Self::Cause,
        Self::Retransmissions,
        Self::Repeats,
        Self::Initiator,
        Self::Responder,
        Self::Owner,
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
            Self::Owner => "owner",
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
            Self::Owner => OWNER,
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
            Self::Owner => OWNERS,
        }
    }

    /// Whether a terminal of this width shows the column, where owners are known or not.
    const fn is_shown(self, width: usize, has_owners: bool) -> bool {
        if matches!(self, Self::Owner) {
            return has_owners && width >= OWNERS;
        }
        let width = if has_owners && width >= OWNERS { width - OWNER - 1 } else { width };
        let is_replaced = matches!(self, Self::Retransmissions) && width >= REPEATS;
        self.least_width() <= width && !is_replaced
    }

    const fn is_numeric(self) -> bool {
        matches!(
            self,
            Self::Age | Self::Retransmissions | Self::Connect | Self::FirstLeg | Self::SecondLeg | Self::Left
        )
    }

    fn cell(self, scene: &Scene, ui: &Ui, attempt: &Flow, width: usize) -> TableCell {
        let standing = attempt.standing(&scene.moment());
        match self {
            Self::Age => age(scene, attempt, standing),
            Self::Verdict => verdict(scene, attempt, standing, self.width()),
            Self::Cause => TableCell::plain(attempt.cause(standing).map_or("", Cause::name)),
            Self::Retransmissions => TableCell::plain(some(attempt.retransmits())),
            Self::Repeats => TableCell::plain(repeats(attempt)),
            Self::Connect => TableCell::plain(attempt.connect_ns().map(time).unwrap_or_default()),
            Self::Initiator => TableCell::plain(end(scene, ui, attempt, Side::Initiator)),
            Self::Responder => TableCell::plain(end(scene, ui, attempt, Side::Responder)),
            Self::FirstLeg => {
                let leg = attempt.syn_to_syn_ack_ns().or_else(|| attempt.answer_ns());
                TableCell::plain(leg.map(time).unwrap_or_default())
            }
            Self::SecondLeg => TableCell::plain(attempt.syn_ack_to_ack_ns().map(time).unwrap_or_default()),
            Self::Left => TableCell::plain(left_ns(scene, attempt).map(seconds).unwrap_or_default()),
            Self::Interface => TableCell::plain(scene.interface(attempt)),
            Self::Owner => TableCell::plain(owners(scene, attempt, width)),
        }
    }
}

/// An end of a flow as it is shown.
pub(super) fn end(scene: &Scene, ui: &Ui, flow: &Flow, side: Side) -> String {
    let (names, end, udp) = (ui.names(scene), flow.end(side), flow.record.key.udp);
    let owner = match ui.ends {
        EndWords::Owner => scene.owners.of(&flow.record, side),
        EndWords::Address | EndWords::Name => None,
    };
    match (side, owner) {
        (Side::Initiator, Some(owner)) => owned_client(&owner, end.port()),
        (Side::Initiator, None) => names.client(end),
        (Side::Responder, Some(owner)) => names.owned_service(&owner, end.port(), udp),
        (Side::Responder, None) => names.service(end, udp),
    }
}

/// Whose the ends of a flow are, the initiator's before an arrow and the responder's behind it.
fn owners(scene: &Scene, flow: &Flow, width: usize) -> String {
    let [from, to] =
        Side::BOTH.map(|side| scene.owners.of(&flow.record, side).as_deref().map(label).unwrap_or_default());
    let shown = |from: &str, to: &str| match (from, to) {
        ("", "") => String::new(),
        (from, to) => format!("{from} → {to}").trim().to_owned(),
    };
    let whole = shown(&from, &to);
    if from.is_empty() || to.is_empty() || whole.width() <= width {
        return whole;
    }
    let half = width.saturating_sub(3) / 2;
    let room = |other: &str| (width.saturating_sub(3 + other.width())).max(half);
    shown(&cut(&from, room(&to)), &cut(&to, room(&from)))
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
    let pen = Pen(ui.theme);
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
    let (columns, heads) = columns(scene, ui, (&rows, &rows[seen.clone()]), width);
    lines.push(head(pen, &heads));
    for at in seen {
        let cells = columns.iter().zip(&heads);
        let cells = cells.map(|(column, head)| column.cell(scene, ui, rows[at], head.width)).collect();
        lines.push(row(pen, &heads, cells, at == cursor, width));
    }
    lines
}

fn has_owner(scene: &Scene, flow: &Flow) -> bool {
    Side::BOTH.into_iter().any(|side| scene.owners.of(&flow.record, side).is_some())
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

/// The columns that fit: of `all` rows, those of `rows` on the screen. Initiator and responder share the rest of the
/// width, each as wide as needed.
fn columns(
    scene: &Scene,
    ui: &Ui,
    (all, rows): (&[&Flow], &[&Flow]),
    width: usize,
) -> (Vec<AttemptColumn>, Vec<ColumnHead>) {
    // Ends that are shown by their owners need no column for these.
    let has_owners = ui.ends != EndWords::Owner && all.iter().any(|flow| has_owner(scene, flow));
    let columns: Vec<AttemptColumn> =
        AttemptColumn::ALL.into_iter().filter(|column| column.is_shown(width, has_owners)).collect();
    let whose = rows.iter().map(|row| owners(scene, row, usize::MAX).width()).max().unwrap_or(0);
    let least = whose.clamp(AttemptColumn::Owner.title().len(), OWNER);
    let width_of =
        |column: &AttemptColumn| if *column == AttemptColumn::Owner { least } else { column.width() };
    let fixed: usize = columns.iter().map(|column| width_of(column) + 1).sum();
    let room = width.saturating_sub(fixed + 1);
    let longest = |side| rows.iter().map(|row| end(scene, ui, row, side).width()).max().unwrap_or(0);
    let needed = [longest(Side::Initiator), longest(Side::Responder)].map(|length| length.max(12));
    let first = needed[0].min(room.saturating_sub(needed[1]).max(room / 2));
    let second = needed[1].min(room - first);
    let owner = whose.clamp(least, least + room - first - second);
    let head = |column: &AttemptColumn| ColumnHead {
        title: column.title(),
        width: match column {
            AttemptColumn::Initiator => first,
            AttemptColumn::Responder => second,
            AttemptColumn::Owner => owner,
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
