//! A dummy change: edits of files, and the tests that must pass with all of them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

/// The dummies, the quick ones last: the first one builds everything.
pub(super) const DUMMIES: [(&str, &str); 4] = [
    ("verdict", include_str!("verdict.toml")),
    ("link", include_str!("link.toml")),
    ("metric", include_str!("metric.toml")),
    ("scenario", include_str!("scenario.toml")),
];

/// A change of one row of the table.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Dummy {
    /// The row's first cell.
    pub(super) row: String,
    /// Arguments of `cargo test`, a line per run.
    pub(super) tests: Vec<String>,
    edits: Vec<Edit>,
}

/// One place of a file. Without an anchor, `text` is a file that does not exist yet.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Edit {
    file: String,
    /// What stands before the new text.
    after: Option<String>,
    /// What stands behind it.
    before: Option<String>,
    text: String,
}

impl Dummy {
    /// Reads a dummy.
    pub(super) fn parse(text: &str) -> Result<Self> {
        Ok(toml::from_str(text)?)
    }

    /// The files it edits.
    pub(super) fn files(&self) -> BTreeSet<String> {
        self.edits.iter().map(|edit| edit.file.clone()).collect()
    }

    /// The edited files with their new content. Each anchor must occur once in its file.
    pub(super) fn apply(&self, root: &Path) -> Result<BTreeMap<String, String>> {
        let mut edited: BTreeMap<String, String> = BTreeMap::new();
        for edit in &self.edits {
            let path = root.join(&edit.file);
            let content = match edited.remove(&edit.file) {
                Some(content) => Some(content),
                None if path.exists() => {
                    Some(fs::read_to_string(&path).with_context(|| format!("read {}", edit.file))?)
                }
                None => None,
            };
            let content = edit.apply(content.as_deref()).with_context(|| edit.file.clone())?;
            edited.insert(edit.file.clone(), content);
        }
        Ok(edited)
    }
}

impl Edit {
    fn apply(&self, content: Option<&str>) -> Result<String> {
        let (anchor, is_after) = match (&self.after, &self.before, content) {
            (Some(anchor), None, Some(_)) => (anchor, true),
            (None, Some(anchor), Some(_)) => (anchor, false),
            (None, None, None) => return Ok(self.text.clone()),
            (None, None, Some(_)) => bail!("the file exists already"),
            (Some(_), Some(_), _) => bail!("one anchor is enough"),
            (_, _, None) => bail!("there is no such file"),
        };
        let content = content.unwrap_or_default();
        let count = content.matches(anchor.as_str()).count();
        ensure!(count == 1, "the anchor occurs {count} times:\n{anchor}");
        let (head, tail) = content.split_once(anchor.as_str()).unwrap_or_default();
        let text = &self.text;
        Ok(if is_after {
            format!("{head}{anchor}{text}{tail}")
        } else {
            format!("{head}{text}{anchor}{tail}")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edit(after: Option<&str>, before: Option<&str>) -> Edit {
        let own = |anchor: Option<&str>| anchor.map(str::to_owned);
        Edit { file: "f".to_owned(), after: own(after), before: own(before), text: "+".to_owned() }
    }

    #[test]
    fn text_goes_before_or_behind_its_anchor() {
        assert_eq!(edit(Some("b"), None).apply(Some("abc")).expect("one b"), "ab+c");
        assert_eq!(edit(None, Some("b")).apply(Some("abc")).expect("one b"), "a+bc");
        assert_eq!(edit(None, None).apply(None).expect("a new file"), "+");
    }

    #[test]
    fn an_anchor_that_is_not_there_once_is_refused() {
        edit(Some("b"), None).apply(Some("ac")).expect_err("no anchor");
        edit(Some("b"), None).apply(Some("bb")).expect_err("two");
        edit(Some("b"), None).apply(None).expect_err("no file");
        edit(None, None).apply(Some("")).expect_err("the file exists");
    }
}
