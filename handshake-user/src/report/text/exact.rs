//! Whether the figures are exact, in a few words: since when they are not, why, and whether the last interval
//! was.

use handshake_agent::model::snapshot::{Interval, Snapshot};
use unicode_width::UnicodeWidthStr as _;

use crate::number::group;
use crate::time::Zone;

/// The words for the header of a report.
///
/// ```text
/// EXACT
/// INEXACT since 12:03:41 (17 evicted attempts, 3 tiny fragments); last interval exact
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Exactness {
    /// Since when it is inexact, where that is known.
    since: Option<String>,
    /// The reasons with their counts, the most important first; none in an exact report.
    reasons: Vec<String>,
    /// Whether nothing was lost in the last interval; `None` without an interval.
    last: Option<bool>,
}

impl Exactness {
    /// That of a run, and of its last interval if there is one.
    pub(crate) fn of(snapshot: &Snapshot, last: Option<&Interval<'_>>, zone: Zone) -> Self {
        let since = snapshot.inexact_since_ns().map(|ns| snapshot.wall_of(ns));
        Self {
            since: since.map(|wall_ns| zone.clock_of(wall_ns, snapshot.taken_at_ns)),
            reasons: snapshot.losses().iter().map(|loss| loss.words(group)).collect(),
            last: last.map(Interval::is_exact),
        }
    }

    /// Whether nothing was lost.
    pub(crate) const fn is_exact(&self) -> bool {
        self.reasons.is_empty()
    }

    /// The reasons with their counts, the most important first.
    pub(crate) fn reasons(&self) -> &[String] {
        &self.reasons
    }

    /// All of the words that `width` columns have room for: the last reasons are left out first.
    pub(crate) fn words(&self, width: usize) -> String {
        if self.is_exact() {
            return "EXACT".to_owned();
        }
        let since = self.since.as_ref().map(|since| format!(" since {since}")).unwrap_or_default();
        let last = match self.last {
            Some(true) => "; last interval exact",
            Some(false) => "; last interval inexact",
            None => "",
        };
        let shorter =
            (0..=self.reasons.len()).rev().map(|shown| format!("{since}{}{last}", self.first(shown)));
        let mut all = shorter.chain([last.to_owned(), since.clone()]).map(|rest| format!("INEXACT{rest}"));
        all.find(|words| words.width() <= width).unwrap_or_else(|| "INEXACT".to_owned())
    }

    /// So many reasons, and whether there are others.
    fn first(&self, shown: usize) -> String {
        let reasons = self.reasons[..shown].join(", ");
        match (shown, self.reasons.len() - shown) {
            (0, _) => String::new(),
            (_, 0) => format!(" ({reasons})"),
            _ => format!(" ({reasons}, …)"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Exactness;

    #[test]
    fn the_words_are_shortened_from_the_least_important() {
        let reasons = ["17 evicted attempts", "3 tiny fragments"].map(str::to_owned).into();
        let exactness = Exactness { since: Some("12:03:41".to_owned()), reasons, last: Some(true) };
        let whole = "INEXACT since 12:03:41 (17 evicted attempts, 3 tiny fragments); last interval exact";
        let steps = [
            (usize::MAX, whole),
            (whole.len(), whole),
            (whole.len() - 1, "INEXACT since 12:03:41 (17 evicted attempts, …); last interval exact"),
            (60, "INEXACT since 12:03:41; last interval exact"),
            (40, "INEXACT; last interval exact"),
            (27, "INEXACT since 12:03:41"),
            (21, "INEXACT"),
            (0, "INEXACT"),
        ];
        for (width, words) in steps {
            assert_eq!(exactness.words(width), words, "{width}");
        }
        let inexact = Exactness { last: Some(false), ..exactness.clone() };
        assert_eq!(inexact.words(50), "INEXACT since 12:03:41; last interval inexact");
        let whole_run = Exactness { last: None, since: None, ..exactness };
        assert_eq!(whole_run.words(80), "INEXACT (17 evicted attempts, 3 tiny fragments)");
        let exact = Exactness { since: None, reasons: Vec::new(), last: Some(true) };
        assert_eq!((exact.words(80).as_str(), exact.is_exact()), ("EXACT", true));
    }
}
