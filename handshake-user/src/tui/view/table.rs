//! A table: columns that know their title and width, rows of cells, the row the cursor is on.

use std::ops::Range;

use ratatui::text::{Line, Span};

use super::layout::{Pen, left, right, squeeze};
use crate::tui::theme::Tone;

/// A column's place in the header.
pub(super) struct ColumnHead {
    /// What it is called.
    pub(super) title: &'static str,
    /// Columns of the terminal.
    pub(super) width: usize,
    /// Numbers stand on the right.
    pub(super) numeric: bool,
    /// The rows are in its order: downwards, or upwards.
    pub(super) sorted: Option<bool>,
}

/// One value.
pub(super) struct TableCell {
    /// As text.
    pub(super) text: String,
    /// Its tone.
    pub(super) tone: Tone,
}

impl TableCell {
    /// A value like any other.
    pub(super) fn plain(text: impl Into<String>) -> Self {
        Self { text: text.into(), tone: Tone::Plain }
    }

    /// A count, bad if there is any.
    pub(super) fn bad_if_any(count: u64) -> Self {
        let tone = if count == 0 { Tone::Plain } else { Tone::Bad };
        Self { text: crate::number::group(count), tone }
    }
}

/// The rows that are seen of `length` when `height` fit: the cursor in their middle where it can be.
pub(super) fn seen(length: usize, cursor: usize, height: usize) -> Range<usize> {
    let first = cursor.saturating_sub(height / 2).min(length.saturating_sub(height));
    first..(first + height).min(length)
}

/// The line of titles.
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

/// A row; the cursor's is reversed over the whole width.
pub(super) fn row(
    pen: Pen,
    heads: &[ColumnHead],
    cells: Vec<TableCell>,
    is_selected: bool,
    width: usize,
) -> Line<'static> {
    let mut spans = vec![pen.span(" ", Tone::Plain)];
    for (head, cell) in heads.iter().zip(cells) {
        spans.push(pen.span(place(&cell.text, head), cell.tone));
        spans.push(pen.span(" ", Tone::Plain));
    }
    let used: usize = spans.iter().map(Span::width).sum();
    spans.push(pen.span(" ".repeat(width.saturating_sub(used)), Tone::Plain));
    let line = Line::from(spans);
    if is_selected { line.patch_style(pen.0.style(Tone::Selected)) } else { line }
}

fn place(text: &str, head: &ColumnHead) -> String {
    if head.numeric { right(text, head.width) } else { left(&squeeze(text, head.width), head.width) }
}

#[cfg(test)]
mod tests {
    use super::seen;

    #[test]
    fn the_cursor_is_always_seen() {
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
