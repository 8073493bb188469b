//! The table of CONTRIBUTING.md: which files a change touches, one file per line.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};

/// The file with the table.
pub(super) const FILE: &str = "CONTRIBUTING.md";
const HEADING: &str = "## What a change touches";
/// Stands in a path for a name that the change chooses.
const CHOSEN: &str = "NAME";

/// A change with its files. A line without a change continues the one above.
#[derive(Debug)]
pub(super) struct TableRow {
    pub(super) change: String,
    pub(super) files: Vec<String>,
}

impl TableRow {
    /// Whether the row names the file.
    pub(super) fn names(&self, file: &str) -> bool {
        self.files.iter().any(|named| stands_for(named, file))
    }
}

/// Reads the table below its heading.
pub(super) fn read(root: &Path) -> Result<Vec<TableRow>> {
    let text = fs::read_to_string(root.join(FILE)).with_context(|| format!("read {FILE}"))?;
    parse(&text)
}

fn parse(text: &str) -> Result<Vec<TableRow>> {
    let (_, section) = text.split_once(HEADING).with_context(|| format!("{FILE} has no `{HEADING}`"))?;
    let lines = section.lines().skip_while(|line| !line.starts_with('|'));
    let mut rows: Vec<TableRow> = Vec::new();
    // Two lines of heading come first.
    for line in lines.take_while(|line| line.starts_with('|')).skip(2) {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        ensure!(cells.len() == 3, "{FILE}: three cells are expected: {line}");
        if !cells[0].is_empty() {
            rows.push(TableRow { change: cells[0].to_owned(), files: Vec::new() });
        }
        let row = rows.last_mut().with_context(|| format!("{FILE}: no change above {line}"))?;
        let file = cells[1].strip_prefix('`').and_then(|cell| cell.strip_suffix('`'));
        row.files.push(file.with_context(|| format!("{FILE}: one file is expected: {line}"))?.to_owned());
    }
    ensure!(!rows.is_empty(), "{FILE} has no table below `{HEADING}`");
    Ok(rows)
}

/// Whether a path of the table stands for the file: the same, or with another word in the place of `NAME`.
pub(super) fn stands_for(named: &str, file: &str) -> bool {
    let Some((before, after)) = named.split_once(CHOSEN) else { return named == file };
    let chosen = file.strip_prefix(before).and_then(|rest| rest.strip_suffix(after));
    chosen.is_some_and(|name| !name.is_empty() && !name.contains('/'))
}

/// Whether the path of the table exists; with a name to be chosen, whether some file has such a path.
#[cfg(test)]
pub(super) fn exists(root: &Path, named: &str) -> bool {
    let Some((before, _)) = named.split_once(CHOSEN) else { return root.join(named).exists() };
    let folder = before.rsplit_once('/').map_or("", |(folder, _)| folder);
    let entries = fs::read_dir(root.join(folder)).into_iter().flatten().flatten();
    entries
        .map(|entry| entry.file_name())
        .any(|name| stands_for(named, &format!("{folder}/{}", name.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_without_a_change_continues_the_row() {
        let text = "## What a change touches\n\nWords.\n\n| a | b | c |\n|---|---|---|\n\
            | x | `a.rs` | does |\n| | `b.rs` | more |\n| y | `s/NAME.toml` | new |\n\nWords | again.\n";
        let rows = parse(text).expect("a table");
        let rows: Vec<(&str, &[String])> = rows.iter().map(|row| (&*row.change, &*row.files)).collect();
        let files = |files: &[&str]| files.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(rows, [("x", &*files(&["a.rs", "b.rs"])), ("y", &*files(&["s/NAME.toml"]))]);
        parse("nothing").expect_err("no heading");
        parse("## What a change touches\n| a | b | c |\n|---|---|---|\n| x | a.rs | |\n")
            .expect_err("no code span");
    }

    #[test]
    fn a_chosen_name_stands_for_any_file_of_its_folder() {
        assert!(stands_for("s/NAME.toml", "s/a.toml") && stands_for("s/a.rs", "s/a.rs"));
        for other in ["s/.toml", "s/t/a.toml", "s/a.rs", "t/a.toml"] {
            assert!(!stands_for("s/NAME.toml", other), "{other}");
        }
    }
}
