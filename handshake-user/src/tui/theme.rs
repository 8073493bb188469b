//! How things look: a handful of tones, in the terminal's own sixteen colours so that they read on dark and on light, and
//! the characters where there is only ASCII.

use ratatui::buffer::Buffer;
use ratatui::style::{Color, Modifier, Style};

/// What a terminal can show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Theme {
    /// Colour; without it a word or a glyph says the same.
    pub(crate) colour: bool,
    /// ASCII only.
    pub(crate) ascii: bool,
}

/// What a piece of text is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tone {
    /// Text.
    Plain,
    /// What the eye should find.
    Strong,
    /// Established, exact.
    Good,
    /// Not established, lost.
    Bad,
    /// Labels.
    Faint,
    /// The row the cursor is on, the screen that is shown.
    Selected,
    /// The banner.
    Alarm,
}

impl Theme {
    /// A tone's style. The background is the terminal's own, always.
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

    /// The last touch: on a terminal that has ASCII only, what stands for each character.
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

/// Characters that are drawn, and what stands for them in ASCII: of one column each.
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
    fn no_colour_means_none_and_no_tone_sets_a_background() {
        for tone in TONES {
            assert_eq!(Theme { colour: false, ascii: false }.style(tone).fg, None);
            assert_eq!(Theme { colour: true, ascii: false }.style(tone).bg, None);
        }
        let good = Theme { colour: true, ascii: false }.style(Tone::Good);
        assert_eq!(good.fg, Some(Color::Green));
    }

    #[test]
    fn every_stand_in_is_ascii_and_every_character_has_one() {
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
