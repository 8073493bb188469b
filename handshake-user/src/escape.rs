//! Text from outside: names of interfaces, programs and files. It must not control the terminal, nor begin a
//! line of its own.

use std::borrow::Cow;

/// Escapes the characters that steer a terminal or cannot be seen. Text without them is returned as it is,
/// and so is text that was escaped before.
pub(crate) fn printable(text: &str) -> Cow<'_, str> {
    if !text.chars().any(steers) {
        return Cow::Borrowed(text);
    }
    let escape = |c: char| if steers(c) { c.escape_default().collect() } else { String::from(c) };
    Cow::Owned(text.chars().map(escape).collect())
}

/// Control characters, and the marks of Unicode that break lines, turn the direction of text or have no
/// width.
fn steers(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}')
        || matches!(c, '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}')
}

#[cfg(test)]
mod tests {
    use super::printable;

    #[test]
    fn what_steers_a_terminal_is_escaped() {
        let rows = [
            ("v\u{1b}[31mX", "v\\u{1b}[31mX"),
            ("z\nFAKE: ok", "z\\nFAKE: ok"),
            ("\u{9b}2J\u{7f}\r\t", "\\u{9b}2J\\u{7f}\\r\\t"),
            ("a\u{202e}b\u{2028}c\u{200b}", "a\\u{202e}b\\u{2028}c\\u{200b}"),
            ("é \"quoted\" \\ 'x' 東", "é \"quoted\" \\ 'x' 東"),
        ];
        for (text, escaped) in rows {
            assert_eq!(printable(text), escaped);
            assert_eq!(printable(escaped), escaped, "twice");
        }
    }
}
