//! The networks of the clients, in the place of the attempts: which clients fail?

use handshake_agent::address::Cidr;
use ratatui::text::Line;

use super::attempts::nothing;
use super::layout::Pen;
use super::table::{ColumnHead, TableCell, head, row, seen};
use crate::number::{group, percent};
use crate::tui::list::{self, ClientLine};
use crate::tui::scene::Scene;
use crate::tui::state::Ui;
use crate::tui::theme::Tone;

/// A column.
struct Column {
    title: &'static str,
    /// Its width; 0 takes the rest.
    width: usize,
    /// Width of the narrowest terminal that shows it.
    least: usize,
    cell: fn(&ClientLine) -> TableCell,
}

const COLUMNS: [Column; 7] = [
    Column { title: "clients", width: 20, least: 0, cell: |line| TableCell::plain(line.network.to_string()) },
    Column { title: "attempts", width: 8, least: 0, cell: |line| TableCell::plain(group(line.attempts)) },
    Column { title: "half-open", width: 9, least: 0, cell: |line| TableCell::bad_if_any(line.half_open) },
    Column { title: "failed", width: 7, least: 0, cell: |line| TableCell::bad_if_any(line.failed) },
    Column { title: "completed", width: 9, least: 72, cell: |line| TableCell::plain(group(line.completed)) },
    Column { title: "share", width: 7, least: 100, cell: share },
    Column { title: "mostly", width: 0, least: 72, cell: worst },
];

/// The list.
pub(super) fn lines(scene: &Scene, ui: &Ui, width: usize, height: usize) -> Vec<Line<'static>> {
    let pen = Pen(ui.theme);
    let rows = list::clients(scene, &ui.filter);
    let listed: u64 = rows.iter().map(|line| line.attempts).sum();
    let bad = rows.iter().filter(|line| line.half_open + line.failed != 0).count();
    let [bad, all] = [bad, rows.len()].map(|count| group(count as u64));
    let count = format!(" {bad} of {all} networks (/24, /48) have failures · ");
    let over = format!("counted over the {} attempts listed, c lists them", group(listed));
    let mut lines = vec![pen.line([(count, Tone::Strong), (over, Tone::Faint)])];
    if rows.is_empty() {
        lines.push(Line::default());
        lines.push(pen.line([(format!(" {}", nothing(scene, ui)), Tone::Plain)]));
        return lines;
    }
    let ids: Vec<Cidr> = rows.iter().map(|line| line.network).collect();
    let cursor = ui.on_client.row(&ids);
    let columns: Vec<&Column> = COLUMNS.iter().filter(|column| column.least <= width).collect();
    let fixed: usize = columns.iter().map(|column| column.width + 1).sum();
    let head_of = |column: &&Column| ColumnHead {
        title: column.title,
        width: if column.width == 0 { width.saturating_sub(fixed + 1) } else { column.width },
        numeric: !["clients", "mostly"].contains(&column.title),
        sorted: None,
    };
    let heads: Vec<ColumnHead> = columns.iter().map(head_of).collect();
    lines.push(head(pen, &heads));
    for at in seen(rows.len(), cursor, height.saturating_sub(2)) {
        let cells = columns.iter().map(|column| (column.cell)(&rows[at])).collect();
        lines.push(row(pen, &heads, cells, at == cursor, width));
    }
    lines
}

/// The share that completed.
fn share(line: &ClientLine) -> TableCell {
    let tone = if line.half_open + line.failed == 0 { Tone::Good } else { Tone::Plain };
    TableCell { text: percent(line.completed, line.attempts), tone }
}

/// What most of the failures are.
fn worst(line: &ClientLine) -> TableCell {
    let worst = line
        .worst
        .map(|(verdict, why, count)| format!("{} {verdict} {why}", group(count)).trim_end().to_owned());
    TableCell::plain(worst.unwrap_or_default())
}
