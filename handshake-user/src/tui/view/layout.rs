//! Layout of lines, shared by all screens. Widths are columns of the terminal: a wide character takes two.

use ratatui::text::{Line, Span};
use unicode_truncate::{Alignment, UnicodeTruncateStr as _};
use unicode_width::UnicodeWidthStr as _;

use crate::number::time;
use crate::tui::theme::{Theme, Tone};

/// Block characters from one to eight eighths.
const BLOCKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// Creates lines from pieces of text with their tones.
#[derive(Clone, Copy)]
pub(super) struct Pen(pub(super) Theme);

impl Pen {
    /// A piece of a line.
    pub(super) fn span(self, text: impl Into<String>, tone: Tone) -> Span<'static> {
        Span::styled(text.into(), self.0.style(tone))
    }

    /// A line of pieces.
    pub(super) fn line<const N: usize>(self, pieces: [(String, Tone); N]) -> Line<'static> {
        Line::from(pieces.map(|(text, tone)| self.span(text, tone)).to_vec())
    }

    /// A line in one tone across the whole width.
    pub(super) fn bar(self, text: &str, tone: Tone, width: usize) -> Line<'static> {
        Line::from(self.span(left(text, width), tone))
    }
}

/// A section of a screen.
pub(super) struct Section {
    /// The lines, in order.
    pub(super) lines: Vec<Line<'static>>,
    /// Least number of lines; with room for fewer, the section is left out.
    pub(super) least: usize,
    /// Rank of importance; 0 is the most important.
    pub(super) rank: u8,
    /// Whether a blank line precedes it if there is room.
    pub(super) apart: bool,
}

/// Fits sections into a height, the most important ones first, with blank lines between them while there is
/// room.
pub(super) fn fit(mut sections: Vec<Section>, height: usize) -> Vec<Line<'static>> {
    let mut order: Vec<usize> = (0..sections.len()).collect();
    order.sort_by_key(|at| sections[*at].rank);
    let mut spare = height;
    for at in order {
        let section = &mut sections[at];
        let kept = if section.least <= spare { section.lines.len().min(spare) } else { 0 };
        section.lines.truncate(kept);
        spare -= kept;
    }
    sections.retain(|section| !section.lines.is_empty());
    let mut lines: Vec<Line<'static>> = Vec::new();
    for section in sections {
        if section.apart && spare != 0 && !lines.is_empty() {
            lines.push(Line::default());
            spare -= 1;
        }
        lines.extend(section.lines);
    }
    lines
}

/// Cuts a text to `width` columns, or pads it with blanks on the right.
pub(super) fn left(text: &str, width: usize) -> String {
    cut(text, width).unicode_pad(width, Alignment::Left, false).into_owned()
}

/// Cuts a text to `width` columns, or pads it with blanks on the left.
pub(super) fn right(text: &str, width: usize) -> String {
    cut(text, width).unicode_pad(width, Alignment::Right, false).into_owned()
}

/// Shortens the address of a socket address so that its port remains readable. Other text is unchanged.
pub(super) fn squeeze(text: &str, width: usize) -> String {
    let Some((address, port)) = text.rsplit_once(':').filter(|_| text.width() > width) else {
        return text.to_owned();
    };
    let room = width.saturating_sub(port.width() + 2);
    format!("{}…:{port}", address.unicode_truncate(room).0)
}

/// Cuts a text to `width` columns, with `…` if something is left out.
pub(super) fn cut(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let (kept, _) = text.unicode_truncate(width.saturating_sub(1));
    if width == 0 { String::new() } else { format!("{kept}…") }
}

/// A line with one part at the left and one at the right. If both do not fit, spans of the left part are
/// dropped from its end.
pub(super) fn apart(mut start: Vec<Span<'static>>, end: Vec<Span<'static>>, width: usize) -> Line<'static> {
    let length = |spans: &[Span<'_>]| spans.iter().map(Span::width).sum::<usize>();
    let room = width.saturating_sub(length(&end) + 1);
    while length(&start) > room && start.len() > 1 {
        start.pop();
    }
    let gap = width.saturating_sub(length(&start) + length(&end));
    start.push(Span::raw(" ".repeat(gap)));
    start.extend(end);
    Line::from(start)
}

/// Formats whole seconds without a larger unit, and other times as in reports.
pub(super) fn seconds(ns: u64) -> String {
    if ns.is_multiple_of(1_000_000_000) { format!("{} s", ns / 1_000_000_000) } else { time(ns) }
}

/// Wraps a text into lines of at most `width` columns.
pub(super) fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if line.width() + 1 + word.width() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

/// Wraps a sentence; `Look at:` begins a new line.
pub(super) fn sentence(text: &str, width: usize) -> Vec<String> {
    match text.split_once(". Look at:") {
        Some((meaning, place)) => {
            let mut lines = wrap(meaning, width);
            lines.extend(wrap(&format!("Look at:{place}"), width));
            lines
        }
        None => wrap(text, width),
    }
}

/// Draws one column per value, scaled to the largest, with the latest on the right. 0 is blank, and any other
/// value is visible.
pub(super) fn bars(values: &[u64], width: usize) -> String {
    let most = values.iter().copied().max().unwrap_or(0).max(1);
    let bar = |value: &u64| match value {
        0 => ' ',
        value => {
            let eighth = u128::from(*value) * 8 / u128::from(most);
            BLOCKS[usize::try_from(eighth).unwrap_or(8).clamp(1, 8) - 1]
        }
    };
    let shown = &values[values.len().saturating_sub(width)..];
    let drawn: String = shown.iter().map(bar).collect();
    right(&drawn, width)
}

#[cfg(test)]
mod tests {
    use ratatui::text::{Line, Span};

    use super::{Section, apart, bars, fit, left, right, sentence, squeeze, wrap};

    fn section(rank: u8, least: usize, lines: usize) -> Section {
        let line = |at| Line::from(format!("{rank}.{at}"));
        Section { lines: (0..lines).map(line).collect(), least, rank, apart: rank != 5 }
    }

    fn shown(height: usize) -> String {
        let sections = vec![section(0, 1, 2), section(9, 2, 4), section(5, 1, 1), section(1, 0, 0)];
        let lines: Vec<String> = fit(sections, height).iter().map(ToString::to_string).collect();
        lines.join(" ")
    }

    #[test]
    fn the_least_important_section_is_shortened_first() {
        assert_eq!(shown(9), "0.0 0.1  9.0 9.1 9.2 9.3 5.0");
        assert_eq!(shown(8), "0.0 0.1  9.0 9.1 9.2 9.3 5.0");
        assert_eq!(shown(7), "0.0 0.1 9.0 9.1 9.2 9.3 5.0");
        assert_eq!(shown(6), "0.0 0.1 9.0 9.1 9.2 5.0");
        assert_eq!(shown(5), "0.0 0.1 9.0 9.1 5.0");
        assert_eq!(shown(4), "0.0 0.1 5.0", "9 has two lines or none");
        assert_eq!(shown(2), "0.0 0.1");
        assert_eq!(shown(1), "0.0");
        assert_eq!(shown(0), "");
    }

    #[test]
    fn text_is_cut_or_padded_to_the_width() {
        assert_eq!((left("abc", 5), right("abc", 5)), ("abc  ".into(), "  abc".into()));
        assert_eq!((left("abcdef", 5), right("abcdef", 5)), ("abcd…".into(), "abcd…".into()));
        assert_eq!(left("abc", 0), "");
        assert_eq!(squeeze("[2001:db8::1234:5678]:40012", 20), "[2001:db8::12…:40012");
        assert_eq!(
            (squeeze("10.0.0.1:22", 11), squeeze("half_open_expired", 9)),
            ("10.0.0.1:22".into(), "half_open_expired".into())
        );
    }

    #[test]
    fn a_wide_character_takes_two_columns() {
        assert_eq!((left("网卡", 5), right("网卡", 5)), ("网卡 ".into(), " 网卡".into()));
        assert_eq!((left("网卡上行", 6), left("网卡上行", 7)), ("网卡… ".into(), "网卡上…".into()));
        assert_eq!(squeeze("网卡上行:1", 7), "网卡…:1");
        assert_eq!(wrap("网卡 上行", 8), ["网卡", "上行"]);
        let line = apart(vec![Span::raw("网卡")], vec![Span::raw("终")], 9);
        assert_eq!((line.to_string().as_str(), line.width()), ("网卡   终", 9));
    }

    #[test]
    fn the_left_part_is_cut_and_the_right_part_stays() {
        let line = |width| {
            let start = vec![Span::raw("name"), Span::raw(" more")];
            apart(start, vec![Span::raw("end")], width).to_string()
        };
        assert_eq!((line(15), line(10)), ("name more   end".into(), "name   end".into()));
    }

    #[test]
    fn look_at_begins_a_new_line() {
        assert_eq!(sentence("it fails. Look at: a, b", 40), ["it fails", "Look at: a, b"]);
        assert_eq!(wrap("one two three", 7), ["one two", "three"]);
    }

    #[test]
    fn the_smallest_value_is_visible_and_zero_is_blank() {
        assert_eq!(bars(&[0, 1, 500, 1_000], 6), "   ▁▄█");
        assert_eq!(bars(&[1, 2, 3], 2), "▅█");
        assert_eq!(bars(&[], 2), "  ");
        assert_eq!(bars(&[u64::MAX], 1), "█");
    }
}
