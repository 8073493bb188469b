//! A mistake in a scenario file: the line, and a suggestion.

use std::fmt;

use strsim::levenshtein;

/// A mistake in a text, with its line (from 1).
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Mistake {
    line: usize,
    what: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.line, self.what)
    }
}

impl Mistake {
    /// A mistake at a byte offset of the text.
    pub(super) fn at(text: &str, offset: usize, what: String) -> Self {
        let before = text.as_bytes().iter().take(offset);
        Self { line: 1 + before.filter(|byte| **byte == b'\n').count(), what }
    }

    /// An error of the TOML parser.
    pub(super) fn of_toml(text: &str, error: &toml::de::Error) -> Self {
        let offset = error.span().map_or(0, |span| span.start);
        Self::at(text, offset, shortened(error.message()))
    }
}

/// Replaces the list after "expected one of" by the word that is nearest to the wrong one.
fn shortened(message: &str) -> String {
    let message = message.trim().replace('\n', ", ");
    let Some((wrong, expected)) = message.split_once(", expected ") else { return message };
    let quoted =
        |text: &str| -> Vec<String> { text.split('`').skip(1).step_by(2).map(str::to_owned).collect() };
    let near = quoted(wrong)
        .pop()
        .and_then(|word| nearest(&word, quoted(expected).iter().map(String::as_str)).map(str::to_owned));
    near.map_or_else(|| message.clone(), |near| format!("{wrong}, did you mean `{near}`?"))
}

/// The word of `words` that is most similar to `word`, unless none is close.
pub(super) fn nearest<'a>(word: &str, words: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let near = words.map(|other| (levenshtein(word, other), other)).min()?;
    (near.0 <= 1 + word.len() / 4).then_some(near.1)
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn a_distant_word_has_no_nearest() {
        let words = ["count", "rate"];
        assert_eq!(nearest("cuont", words.into_iter()), Some("count"));
        assert_eq!(nearest("colour", words.into_iter()), None);
    }
}
