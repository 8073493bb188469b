//! A table: columns with title and width, rows of cells, and the row under the cursor.

use std::ops::Range;

use ratatui::text::{Line, Span};

use super::layout::{Pen, left, right, squeeze};
use crate::tui::theme::Tone;

/// The head of a column.
pub(super) struct ColumnHead {
    /// The title.
    pub(super) title: &'static str,
    /// Width in columns of the terminal.
    pub(super) width: usize,
    /// Whether the cells are aligned to the right.
    pub(super) numeric: bool,
    /// Whether the rows are sorted by it, and if so, whether in reverse.
    pub(super) sorted: Option<bool>,
}

/// One cell.
pub(super) struct TableCell {
    /// The text.
    pub(super) text: String,
    /// The tone.
    pub(super) tone: Tone,
}

impl TableCell {
    /// A cell in the plain tone.
    pub(super) fn plain(text: impl Into<String>) -> Self {
        Self { text: text.into(), tone: Tone::Plain }
    }

    /// A count in the bad tone unless it is 0.
    pub(super) fn bad_if_any(count: u64) -> Self {
        let tone = if count == 0 { Tone::Plain } else { Tone::Bad };
        Self { text: crate::number::group(count), tone }
    }
}

/// The visible range of `length` rows if `height` fit, with the cursor in the middle where possible.
pub(super) fn seen(length: usize, cursor: usize, height: usize) -> Range<usize> {
    let first = cursor.saturating_sub(height / 2).min(length.saturating_sub(height));
    first..(first + height).min(length)
}

/// Draws the line of titles.
pub(super) fn head(pen: Pen, heads: &[ColumnHead]) -> Line<'static> {
    let mut spans = vec![pen.span(" ", Tone::Faint)];
    for head in heads {
        let arrow = match head.sorted {
            Some(false) => "↓",
            Some(true) => "↑",
            None => "",
        };
        let title = format!("{}{arrow}", head.title);
        let tone = if head.sorted.is_some() { Tone::Strong } else { Tone::Faint };
        spans.push(pen.span(place(&title, head), tone));
        spans.push(pen.span(" ", Tone::Faint));
    }
    Line::from(spans)
}

/// Draws a row; the one under the cursor is reversed across the whole width, in one tone: reversed colours of
/// single cells would be a patchwork.
pub(super) fn row(
    pen: Pen,
    heads: &[ColumnHead],
    cells: Vec<TableCell>,
    is_selected: bool,
    width: usize,
) -> Line<'static> {
    let toned = |tone| if is_selected { Tone::Selected } else { tone };
    let mut spans = vec![pen.span(" ", toned(Tone::Plain))];
    for (head, cell) in heads.iter().zip(cells) {
        spans.push(pen.span(place(&cell.text, head), toned(cell.tone)));
        spans.push(pen.span(" ", toned(Tone::Plain)));
    }
    let used: usize = spans.iter().map(Span::width).sum();
    spans.push(pen.span(" ".repeat(width.saturating_sub(used)), toned(Tone::Plain)));
    Line::from(spans)
}

fn place(text: &str, head: &ColumnHead) -> String {
    if head.numeric { right(text, head.width) } else { left(&squeeze(text, head.width), head.width) }
}

#[cfg(test)]
mod tests {
    use super::seen;

    #[test]
    fn the_cursor_is_always_visible() {
        for length in 0..30 {
            for height in 1..10 {
                for cursor in 0..length {
                    let seen = seen(length, cursor, height);
                    assert!(seen.contains(&cursor) && seen.len() == height.min(length));
                }
            }
        }
        assert_eq!(seen(0, 0, 5), 0..0);
    }
}
