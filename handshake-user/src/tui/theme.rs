//! Colours and characters. A few tones use the terminal's own sixteen colours, so that they are readable on
//! dark and light backgrounds. With ASCII only, other characters are replaced.

use ratatui::buffer::Buffer;
use ratatui::style::{Color, Modifier, Style};

/// What the terminal can show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Theme {
    /// Whether to use colour. Words and glyphs carry the same information.
    pub(crate) colour: bool,
    /// Whether to use ASCII characters only.
    pub(crate) ascii: bool,
}

/// The meaning of a piece of text, which decides its style.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tone {
    /// Normal text.
    Plain,
    /// Important text.
    Strong,
    /// A good result: established, exact.
    Good,
    /// A bad result: not established, lost.
    Bad,
    /// Labels and secondary text.
    Faint,
    /// The row under the cursor, and the tab of the current screen.
    Selected,
    /// The banner.
    Alarm,
}

impl Theme {
    /// The style of a tone. It never sets a background colour.
    pub(crate) fn style(self, tone: Tone) -> Style {
        let style = Style::new();
        let coloured = |colour: Color| if self.colour { style.fg(colour) } else { style };
        match tone {
            Tone::Plain => style,
            Tone::Strong => style.add_modifier(Modifier::BOLD),
            Tone::Good => coloured(Color::Green),
            Tone::Bad => coloured(Color::Red).add_modifier(Modifier::BOLD),
            Tone::Faint => style.add_modifier(Modifier::DIM),
            Tone::Selected => style.add_modifier(Modifier::REVERSED),
            Tone::Alarm => coloured(Color::Red).add_modifier(Modifier::BOLD | Modifier::REVERSED),
        }
    }

    /// Replaces characters by ASCII if the theme asks for it. Applied to the finished buffer.
    pub(crate) fn finish(self, buffer: &mut Buffer) {
        if !self.ascii {
            return;
        }
        for cell in &mut buffer.content {
            if let Some(ascii) = ascii(cell.symbol()) {
                cell.set_symbol(ascii);
            }
        }
    }
}

/// Drawn characters and their ASCII replacements, one column each.
const ASCII: [(&str, &str); 38] = [
    ("·", "|"),
    ("–", "-"),
    ("…", "~"),
    ("µ", "u"),
    ("→", ">"),
    ("←", "<"),
    ("↑", "^"),
    ("↓", "v"),
    ("▲", "^"),
    ("▼", "v"),
    ("▶", ">"),
    ("◀", "<"),
    ("│", "|"),
    ("─", "-"),
    ("╌", "."),
    ("├", "|"),
    ("┤", "|"),
    ("┴", "+"),
    ("┼", "+"),
    ("┌", "+"),
    ("┐", "+"),
    ("└", "+"),
    ("┘", "+"),
    ("●", "*"),
    ("○", "o"),
    ("◐", "%"),
    ("✔", "+"),
    ("✘", "x"),
    ("▁", "_"),
    ("▂", "."),
    ("▃", ":"),
    ("▄", "-"),
    ("▅", "="),
    ("▆", "+"),
    ("▇", "*"),
    ("█", "#"),
    ("░", "."),
    ("±", "~"),
];

fn ascii(symbol: &str) -> Option<&'static str> {
    if symbol.is_ascii() {
        return None;
    }
    Some(ASCII.iter().find(|(drawn, _)| *drawn == symbol).map_or("?", |(_, ascii)| ascii))
}

#[cfg(test)]
mod tests {
    use ratatui::buffer::Buffer;
    use ratatui::layout::Rect;
    use ratatui::style::Color;
    use unicode_width::UnicodeWidthStr as _;

    use super::{ASCII, Theme, Tone};

    const TONES: [Tone; 7] =
        [Tone::Plain, Tone::Strong, Tone::Good, Tone::Bad, Tone::Faint, Tone::Selected, Tone::Alarm];

    #[test]
    fn no_tone_sets_a_background_or_a_colour_without_colour() {
        for tone in TONES {
            assert_eq!(Theme { colour: false, ascii: false }.style(tone).fg, None);
            assert_eq!(Theme { colour: true, ascii: false }.style(tone).bg, None);
        }
        let good = Theme { colour: true, ascii: false }.style(Tone::Good);
        assert_eq!(good.fg, Some(Color::Green));
    }

    #[test]
    fn every_character_has_an_ascii_replacement_of_one_column() {
        assert!(ASCII.iter().all(|(drawn, ascii)| drawn.width() == 1 && ascii.len() == 1));
        let mut buffer = Buffer::with_lines(["p50 41 µs · ✔", "☃"]);
        Theme { colour: true, ascii: true }.finish(&mut buffer);
        assert_eq!(
            buffer.content.iter().map(|cell| cell.symbol()).collect::<String>(),
            "p50 41 us | +?            "
        );
        assert_eq!(*buffer.area(), Rect::new(0, 0, 13, 2));
    }
}
