//! The help: an overlay with the keys, and what signs and colours mean.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::Line;

use super::layout::{Pen, left};
use crate::tui::keys::{FILTERS, HELP, LEGEND};
use crate::tui::theme::Tone;

/// Columns of the keys.
const KEYS: usize = 13;
/// Columns of the box.
const WIDTH: u16 = 60;

/// Draws the help over the screen.
pub(super) fn draw(buffer: &mut Buffer, pen: Pen) {
    let mut lines: Vec<Line<'static>> = HELP
        .iter()
        .map(|(keys, meaning)| {
            pen.line([
                (format!(" {} ", left(keys, KEYS)), Tone::Strong),
                (left(meaning, usize::from(WIDTH) - KEYS - 4), Tone::Plain),
            ])
        })
        .collect();
    let screen = *buffer.area();
    let inner = usize::from(WIDTH) - 2;
    for part in [&LEGEND[..], &FILTERS] {
        if usize::from(screen.height) >= lines.len() + part.len() + 3 {
            lines.push(pen.bar("", Tone::Plain, inner));
            lines.extend(part.iter().map(|text| pen.bar(&format!(" {text}"), Tone::Faint, inner)));
        }
    }
    let height = u16::try_from(lines.len() + 2).unwrap_or(u16::MAX).min(screen.height);
    let width = WIDTH.min(screen.width);
    let area = Rect { x: (screen.width - width) / 2, y: (screen.height - height) / 2, width, height };
    // What is below would lend it its colours.
    for position in area.positions() {
        if let Some(cell) = buffer.cell_mut(position) {
            cell.reset();
        }
    }
    frame(buffer, area, pen);
    for (y, line) in (area.y + 1..area.bottom().saturating_sub(1)).zip(&lines) {
        buffer.set_line(area.x + 1, y, line, area.width.saturating_sub(2));
    }
}

/// A box with its title.
fn frame(buffer: &mut Buffer, area: Rect, pen: Pen) {
    let inner = usize::from(area.width.saturating_sub(2));
    let edge = |text: &str| pen.line([(text.to_owned(), Tone::Plain)]);
    let title = " keys ";
    let top = format!("┌{title}{}┐", "─".repeat(inner.saturating_sub(title.len())));
    buffer.set_line(area.x, area.y, &edge(&top), area.width);
    for y in area.y + 1..area.bottom().saturating_sub(1) {
        buffer.set_line(area.x, y, &edge(&format!("│{}│", " ".repeat(inner))), area.width);
    }
    let bottom = format!("└{}┘", "─".repeat(inner));
    buffer.set_line(area.x, area.bottom().saturating_sub(1), &edge(&bottom), area.width);
}
