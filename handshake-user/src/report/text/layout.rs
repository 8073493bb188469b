//! The layout of lines: a label, then pieces that wrap below each other. Colours only on a terminal.

use std::fmt::Write;
use std::io::IsTerminal;

use unicode_width::UnicodeWidthStr as _;

use crate::escape::printable;
use crate::names::Names;
use crate::time::Zone;

/// Columns of the label.
///
/// ```text
/// 443/tcp   attempts 24 080 (1 204/s)   completed 61.2 %
/// ◀─ 10 ──▶ wrapped pieces start here
/// ```
const LABEL: usize = 10;
/// The width without a terminal.
const WIDTH: usize = 100;
/// The least width. On a narrower terminal, the terminal breaks the lines.
const NARROWEST: usize = 40;

/// Whether text has colour, its width in columns, the zone of its times, and the names of ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Style {
    colour: bool,
    width: usize,
    zone: Zone,
    names: Names,
}

/// The tone of a piece, which decides its colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TextTone {
    Plain,
    Strong,
    Good,
    Bad,
    Faint,
}

/// A part of a line that is not broken.
#[derive(Clone, Debug)]
pub(super) struct Piece {
    text: String,
    tone: TextTone,
}

impl Style {
    /// The style for a stream: colour if it is a terminal that supports colour and `NO_COLOR` is not set.
    pub(crate) fn of(stream: &impl IsTerminal, zone: Zone) -> Self {
        let terminal = stream.is_terminal();
        let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        let width = terminal_size::terminal_size().filter(|_| terminal);
        Self {
            colour: terminal && !refused && !dumb,
            width: width.map_or(WIDTH, |(columns, _)| usize::from(columns.0)).max(NARROWEST),
            zone,
            names: Names::NONE,
        }
    }

    /// The same style without wrapping.
    pub(super) const fn endless(self) -> Self {
        Self { width: usize::MAX, ..self }
    }

    /// The zone of times.
    pub(super) const fn zone(self) -> Zone {
        self.zone
    }

    /// The names of ends.
    pub(super) const fn names(self) -> Names {
        self.names
    }

    /// The width in columns.
    pub(super) const fn width(self) -> usize {
        self.width
    }

    /// The columns for a piece that begins a line, after such a separator.
    pub(super) fn room(self, between: &str) -> usize {
        self.width.saturating_sub(LABEL + between.trim_start().width())
    }

    /// A style of a fixed width without colour, with times in UTC.
    pub(crate) const fn plain(width: usize) -> Self {
        Self { colour: false, width, zone: Zone::Utc, names: Names::NONE }
    }

    /// The same style with times of another zone.
    pub(crate) const fn within(self, zone: Zone) -> Self {
        Self { zone, ..self }
    }

    /// The same style with names in the place of numbers.
    pub(crate) const fn naming(self, names: Names) -> Self {
        Self { names, ..self }
    }

    /// A style of a fixed width with colour.
    #[cfg(test)]
    pub(super) const fn coloured(width: usize) -> Self {
        Self { colour: true, width, zone: Zone::Utc, names: Names::NONE }
    }

    fn paint(self, out: &mut String, text: &str, tone: TextTone) {
        let code = match tone {
            TextTone::Strong => "1",
            TextTone::Good => "32",
            TextTone::Bad => "1;31",
            TextTone::Faint => "2",
            TextTone::Plain => "",
        };
        if self.colour && !code.is_empty() {
            // Writing to a String cannot fail.
            let _ = write!(out, "\x1b[{code}m{text}\x1b[0m");
        } else {
            out.push_str(text);
        }
    }
}

impl Piece {
    pub(super) fn new(text: impl Into<String>, tone: TextTone) -> Self {
        Self { text: printable(&text.into()).into_owned(), tone }
    }

    pub(super) fn plain(text: impl Into<String>) -> Self {
        Self::new(text, TextTone::Plain)
    }
}

/// Appends a line without a label, never wrapped.
pub(super) fn bare(out: &mut String, style: Style, piece: &Piece) {
    style.paint(out, &piece.text, piece.tone);
    out.push('\n');
}

/// Splits a text into words, one piece per word.
pub(super) fn words(text: &str) -> Vec<Piece> {
    text.split(' ').map(Piece::plain).collect()
}

/// Appends a line: its label, then the pieces separated by `between`. A piece that does not fit begins the
/// next line, after the separator unless that is blank.
pub(super) fn line(out: &mut String, style: Style, label: &str, pieces: &[Piece], between: &str) {
    let mut column = begin(out, style, label);
    for (at, piece) in pieces.iter().enumerate() {
        let length = piece.text.width();
        let gap = if at == 0 { "" } else { between };
        if at != 0 && column + gap.width() + length > style.width {
            let lead = gap.trim_start();
            let _ = write!(out, "\n{:LABEL$}{lead}", "");
            column = LABEL + lead.width();
        } else {
            out.push_str(gap);
            column += gap.width();
        }
        style.paint(out, &piece.text, piece.tone);
        column += length;
    }
    out.push('\n');
}

fn begin(out: &mut String, style: Style, label: &str) -> usize {
    if label.is_empty() {
        return 0;
    }
    style.paint(out, label, TextTone::Faint);
    let length = label.width();
    let blank = LABEL.saturating_sub(length).max(2);
    let _ = write!(out, "{:blank$}", "");
    length + blank
}

#[cfg(test)]
mod tests {
    use super::{Piece, Style, TextTone, line, words};

    #[test]
    fn pieces_wrap_below_each_other() {
        let mut out = String::new();
        line(&mut out, Style::plain(24), "label", &words("one two three four five"), " ");
        assert_eq!(out, "label     one two three\n          four five\n");
        let sum = ["100 a", "200 b", "300 c"].map(Piece::plain);
        out.clear();
        line(&mut out, Style::plain(24), "sum", &sum, " + ");
        assert_eq!(out, "sum       100 a + 200 b\n          + 300 c\n");
    }

    #[test]
    fn a_wide_character_takes_two_columns() {
        let mut out = String::new();
        line(&mut out, Style::plain(20), "网卡", &words("上行网卡0 ab"), " ");
        assert_eq!(out, "网卡      上行网卡0\n          ab\n");
        out.clear();
        line(&mut out, Style::plain(22), "网卡", &words("上行网卡0 ab"), " ");
        assert_eq!(out, "网卡      上行网卡0 ab\n");
    }

    #[test]
    fn a_long_label_moves_only_its_own_line() {
        let mut out = String::new();
        line(&mut out, Style::plain(80), "8000-8100,443/tcp", &words("a b"), " ");
        assert_eq!(out, "8000-8100,443/tcp  a b\n");
    }

    #[test]
    fn colour_takes_no_columns_and_is_absent_without_a_terminal() {
        let pieces = [Piece::new("EXACT", TextTone::Good), Piece::plain("b")];
        let mut out = String::new();
        line(&mut out, Style::coloured(17), "x", &pieces, " ");
        assert_eq!(out, "\x1b[2mx\x1b[0m         \x1b[32mEXACT\x1b[0m b\n");
        out.clear();
        line(&mut out, Style::plain(17), "x", &pieces, " ");
        assert!(!out.contains('\x1b'));
    }

    #[test]
    fn a_name_cannot_control_the_terminal() {
        let mut out = String::new();
        line(&mut out, Style::plain(80), "", &[Piece::plain("a\x1b[2Jb\n")], " ");
        assert_eq!(out, "a\\u{1b}[2Jb\\n\n");
    }
}
