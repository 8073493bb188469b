//! The lines of a comparison of two reports.

use unicode_width::UnicodeWidthStr as _;

use super::layout::{Piece, Style, TextTone, bare, line};

/// Between two columns.
const GAP: usize = 3;

/// Draws the line of one of two reports.
pub(crate) fn draw_saved(out: &mut String, label: &str, said: &str, exact: bool, style: Style) {
    let mut pieces = vec![Piece::plain(said)];
    if !exact {
        pieces.push(Piece::new("INEXACT", TextTone::Bad));
    }
    line(out, style.endless(), label, &pieces, " ");
}

/// Draws rows in columns, all but the first and the last to the right. A row whose last cell is `worse` is
/// told by its colour too.
pub(crate) fn draw_table<const N: usize>(out: &mut String, rows: &[[String; N]], style: Style) {
    let widths: [usize; N] =
        std::array::from_fn(|at| rows.iter().map(|row| row[at].width()).max().unwrap_or(0));
    for row in rows {
        let mut text = String::new();
        for (at, (cell, width)) in row.iter().zip(widths).enumerate() {
            let blank = " ".repeat(width - cell.width());
            let gap = " ".repeat(if at == 0 { 0 } else { GAP });
            let (before, after) = if at == 0 || at + 1 == N { ("", &*blank) } else { (&*blank, "") };
            text.extend([&*gap, before, cell, after]);
        }
        let tone = match row.last().map(String::as_str) {
            Some("worse") => TextTone::Bad,
            Some("better") => TextTone::Good,
            Some(_) | None => TextTone::Plain,
        };
        bare(out, style, &Piece::new(text.trim_end(), tone));
    }
}
