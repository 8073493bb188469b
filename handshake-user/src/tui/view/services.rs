//! The screen Services: the services of TCP, then those of UDP.

use handshake_agent::model::connect::Percentile;
use handshake_agent::model::snapshot::{ServiceBooks, TcpBooks, UdpBooks};
use handshake_common::verdict::{UdpVerdict, Verdict};
use ratatui::text::Line;
use unicode_width::UnicodeWidthStr as _;

use super::layout::{Pen, bars};
use super::table::{ColumnHead, TableCell, head, row, seen};
use crate::number::{group, percent, rate, short, time};
use crate::report::text::percentile;
use crate::tui::history::failed;
use crate::tui::list::{self, ServiceColumn};
use crate::tui::scene::Scene;
use crate::tui::service::{ServiceId, ServiceLine};
use crate::tui::state::{EndWords, Ui};
use crate::tui::theme::Tone;

/// Least columns of a name: an address of IPv4 with its port.
const LEAST_NAME: usize = 21;
/// Most columns of a service's trend: a minute, and its largest figure.
const MOST_TREND: usize = 72;

impl ServiceColumn {
    const ALL: [Self; 14] = [
        Self::Service,
        Self::Begun,
        Self::Rate,
        Self::Good,
        Self::Minute,
        Self::Waiting,
        Self::Silent,
        Self::Refused,
        Self::Failed,
        Self::ConnectHalf,
        Self::ConnectSlow,
        Self::FirstLeg,
        Self::SecondLeg,
        Self::Trend,
    ];

    const fn title(self, udp: bool) -> &'static str {
        match (self, udp) {
            (Self::Service, false) => "tcp service",
            (Self::Service, true) => "udp service",
            (Self::Begun, false) => "attempts",
            (Self::Begun, true) => "flows",
            (Self::Rate, _) => "per second",
            (Self::Good, false) => "completed",
            (Self::Good, true) => "answered",
            (Self::Waiting, false) => "half-open",
            (Self::Waiting, true) => "unanswered",
            (Self::Silent, false) => "silent",
            (Self::Refused, false) => "refused",
            (Self::Refused, true) => "unreachable",
            (Self::Failed, false) => "failed",
            (Self::Failed, true) => "multicast",
            (Self::Minute, _) => "last min",
            (Self::ConnectHalf, false) => "connect p50",
            (Self::ConnectSlow, false) => "p99",
            (Self::Trend, false) => "begun, a column a second",
            (Self::FirstLeg, false) => "syn→syn+ack",
            (Self::SecondLeg, false) => "syn+ack→ack",
            (
                Self::Silent
                | Self::ConnectHalf
                | Self::ConnectSlow
                | Self::FirstLeg
                | Self::SecondLeg
                | Self::Trend,
                true,
            ) => "",
        }
    }

    /// Columns of the terminal; 0 for what the other columns leave.
    const fn width(self) -> usize {
        match self {
            Self::Service | Self::Trend => 0,
            Self::Begun | Self::Waiting | Self::Failed | Self::Rate => 10,
            Self::Refused | Self::ConnectHalf => 11,
            Self::Good | Self::ConnectSlow => 9,
            Self::Minute | Self::Silent => 8,
            Self::FirstLeg | Self::SecondLeg => 11,
        }
    }

    /// Width of the narrowest terminal that shows the column.
    const fn least_width(self) -> usize {
        match self {
            Self::Service | Self::Begun | Self::Good | Self::Waiting | Self::Silent => 0,
            Self::Minute => 72,
            Self::Refused => 90,
            Self::Failed => 96,
            Self::Rate => 104,
            Self::ConnectHalf | Self::ConnectSlow => 120,
            Self::FirstLeg | Self::SecondLeg => 150,
            Self::Trend => 170,
        }
    }

    /// Whether a terminal of this width shows the column of these rows: silent connections only where there are
    /// any.
    fn is_shown(self, rows: &[&ServiceLine], width: usize) -> bool {
        let is_needed = !matches!(self, Self::Silent) || rows.iter().any(|line| line.silent() != 0);
        is_needed && self.least_width() <= width
    }

    fn cell(self, scene: &Scene, ui: &Ui, line: &ServiceLine, width: usize) -> TableCell {
        let leg = |ns: Option<u64>| TableCell::plain(ns.map(time).unwrap_or_default());
        let connect = |each: Option<Percentile>| TableCell::plain(each.map(percentile).unwrap_or_default());
        match self {
            Self::Service => TableCell::plain(name(scene, ui, line)),
            Self::Silent if line.is_udp() => TableCell::plain(""),
            Self::Silent => TableCell::bad_if_any(line.silent()),
            Self::Rate => TableCell::plain(rate(line.begun, scene.window_ns)),
            Self::Minute if line.minute.decided == 0 => TableCell::plain("–"),
            Self::Minute => share(line.minute.good, line.minute.decided),
            Self::ConnectHalf => connect(line.connect.map(|[half, _]| half)),
            Self::ConnectSlow => connect(line.connect.map(|[_, slow]| slow)),
            Self::Trend => TableCell::plain(trend(&line.minute.begun, width)),
            Self::FirstLeg => leg(line.legs.syn_to_syn_ack_ns),
            Self::SecondLeg => leg(line.legs.syn_ack_to_ack_ns),
            Self::Begun | Self::Good | Self::Waiting | Self::Refused | Self::Failed => match &line.books {
                ServiceBooks::Tcp(books) => self.of_tcp(books),
                ServiceBooks::Udp(books) => self.of_udp(books),
            },
        }
    }

    fn of_tcp(self, books: &TcpBooks) -> TableCell {
        match self {
            Self::Begun => TableCell::plain(group(books.attempts)),
            Self::Good => share(
                books.verdict(Verdict::Completed),
                books.attempts - books.verdict(Verdict::Opening).min(books.attempts),
            ),
            Self::Waiting => TableCell::bad_if_any(books.verdict(Verdict::HalfOpen)),
            Self::Refused => TableCell::bad_if_any(books.verdict(Verdict::Refused)),
            Self::Failed => TableCell::bad_if_any(failed(books)),
            Self::Service
            | Self::Silent
            | Self::Rate
            | Self::Minute
            | Self::ConnectHalf
            | Self::ConnectSlow
            | Self::FirstLeg
            | Self::SecondLeg
            | Self::Trend => TableCell::plain(""),
        }
    }

    fn of_udp(self, books: &UdpBooks) -> TableCell {
        match self {
            Self::Begun => TableCell::plain(group(books.flows)),
            Self::Good => share(
                books.verdict(UdpVerdict::Answered),
                books.flows - books.verdict(UdpVerdict::Pending).min(books.flows),
            ),
            Self::Waiting => TableCell::plain(group(books.verdict(UdpVerdict::Unanswered))),
            Self::Refused => TableCell::bad_if_any(books.verdict(UdpVerdict::Unreachable)),
            Self::Failed => TableCell::plain(group(books.verdict(UdpVerdict::Multicast))),
            Self::Service
            | Self::Silent
            | Self::Rate
            | Self::Minute
            | Self::ConnectHalf
            | Self::ConnectSlow
            | Self::FirstLeg
            | Self::SecondLeg
            | Self::Trend => TableCell::plain(""),
        }
    }
}

/// The service as it is shown.
fn name(scene: &Scene, ui: &Ui, line: &ServiceLine) -> String {
    let names = ui.names(scene);
    let owner = scene.service_owners.get(&line.id()).filter(|_| ui.ends == EndWords::Owner);
    match (line.service, owner) {
        (Some(service), Some(owner)) => names.owned_service(owner, service.port(), line.is_udp()),
        (_, None) | (None, _) => line.shown(names),
    }
}

/// What began each second, with the largest: each service has a scale of its own.
fn trend(begun: &[u64], width: usize) -> String {
    /// Columns of the largest.
    const MOST: usize = 12;
    match begun.iter().copied().max() {
        None | Some(0) => String::new(),
        Some(most) => format!("{} max {}", bars(begun, width.saturating_sub(MOST)), short(most)),
    }
}

/// The share of good results among the decided ones.
fn share(good: u64, decided: u64) -> TableCell {
    if decided == 0 {
        return TableCell::plain("–");
    }
    // A late completion may make it more than all decided ones.
    let good = good.min(decided);
    let tone = if good * 100 >= decided * 99 { Tone::Good } else { Tone::Bad };
    TableCell { text: percent(good, decided), tone }
}

/// The screen: the table of TCP above that of UDP, each with its titles.
pub(super) fn lines(scene: &Scene, ui: &Ui, width: usize, height: usize) -> Vec<Line<'static>> {
    let pen = Pen(ui.theme);
    let rows = list::services(scene, &ui.filter, ui.services);
    if rows.is_empty() {
        let text = if ui.filter.is_empty() {
            " No service yet."
        } else {
            " Nothing matches the filter: Esc clears it."
        };
        return vec![Line::default(), pen.line([(text.to_owned(), Tone::Plain)])];
    }
    let ids: Vec<ServiceId> = rows.iter().map(|line| line.id()).collect();
    let cursor = ui.on_service.row(&ids);
    let tcp = ids.iter().filter(|(_, udp)| !udp).count();
    // Two lines of titles, and one blank line between the tables.
    let seen = seen(rows.len(), cursor, height.saturating_sub(3));
    let part = |from: usize, to: usize| {
        let (from, to) = (from.max(seen.start), to.min(seen.end));
        let rows = rows.get(from..to).unwrap_or_default();
        (rows, cursor.checked_sub(from))
    };
    let (tcp_rows, udp_rows) = (part(0, tcp), part(tcp, rows.len()));
    let mut lines = Vec::new();
    if !tcp_rows.0.is_empty() {
        lines.extend(tcp_lines(scene, ui, tcp_rows.0, tcp_rows.1, width));
    }
    if !tcp_rows.0.is_empty() && !udp_rows.0.is_empty() {
        lines.push(Line::default());
    }
    if !udp_rows.0.is_empty() {
        lines.extend(table(scene, ui, udp_rows.0, udp_rows.1, width, true));
    }
    lines
}

/// Titles and rows of TCP services.
pub(super) fn tcp_lines(
    scene: &Scene,
    ui: &Ui,
    rows: &[&ServiceLine],
    cursor: Option<usize>,
    width: usize,
) -> Vec<Line<'static>> {
    table(scene, ui, rows, cursor, width, false)
}

fn table(
    scene: &Scene,
    ui: &Ui,
    rows: &[&ServiceLine],
    cursor: Option<usize>,
    width: usize,
    udp: bool,
) -> Vec<Line<'static>> {
    let pen = Pen(ui.theme);
    let columns: Vec<ServiceColumn> =
        ServiceColumn::ALL.into_iter().filter(|column| column.is_shown(rows, width)).collect();
    let fixed: usize = columns.iter().map(|column| column.width() + 1).sum();
    let rest = width.saturating_sub(fixed + 2);
    // The figures stand beside the names.
    let longest =
        rows.iter().map(|line| name(scene, ui, line).width()).max().unwrap_or(0).max(LEAST_NAME).min(rest);
    let heads: Vec<ColumnHead> = columns
        .iter()
        .map(|column| ColumnHead {
            title: column.title(udp),
            width: match column {
                ServiceColumn::Service => longest,
                ServiceColumn::Trend => (rest - longest).min(MOST_TREND),
                ServiceColumn::Begun
                | ServiceColumn::Rate
                | ServiceColumn::Good
                | ServiceColumn::Minute
                | ServiceColumn::Waiting
                | ServiceColumn::Silent
                | ServiceColumn::Refused
                | ServiceColumn::Failed
                | ServiceColumn::ConnectHalf
                | ServiceColumn::ConnectSlow
                | ServiceColumn::FirstLeg
                | ServiceColumn::SecondLeg => column.width(),
            },
            numeric: !matches!(column, ServiceColumn::Service | ServiceColumn::Trend),
            sorted: (cursor.is_some() && *column == ui.services.column).then_some(ui.services.reversed),
        })
        .collect();
    let mut lines = vec![head(pen, &heads)];
    for (at, line) in rows.iter().enumerate() {
        let cells = columns
            .iter()
            .zip(&heads)
            .map(|(column, head)| column.cell(scene, ui, line, head.width))
            .collect();
        lines.push(row(pen, &heads, cells, cursor == Some(at), width));
    }
    lines
}
