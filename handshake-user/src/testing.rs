//! Shared by tests: the pages of `docs/`, their tables, and the words in backticks. A test beside the code
//! compares each page with what the page describes.

use std::collections::BTreeSet;

/// `README.md`.
pub(crate) const README: &str = include_str!("../../README.md");
/// `docs/accuracy.md`.
pub(crate) const ACCURACY: &str = include_str!("../../docs/accuracy.md");
/// `docs/json.md`.
pub(crate) const JSON: &str = include_str!("../../docs/json.md");
/// `docs/terminal.md`.
pub(crate) const TERMINAL: &str = include_str!("../../docs/terminal.md");
/// `docs/check.md`.
pub(crate) const CHECK: &str = include_str!("../../docs/check.md");
/// `docs/replay.md`.
pub(crate) const REPLAY: &str = include_str!("../../docs/replay.md");

/// `docs/serve.md`.
pub(crate) const SERVE: &str = include_str!("../../docs/serve.md");

/// The part of a page from a heading to the next heading of its rank.
pub(crate) fn section<'a>(page: &'a str, heading: &str) -> &'a str {
    let start = page.find(&format!("\n{heading}\n")).unwrap_or_else(|| panic!("no heading {heading}")) + 1;
    let rest = &page[start..];
    let rank = heading.split(' ').next().unwrap_or_default();
    rest[1..].find(&format!("\n{rank} ")).map_or(rest, |end| &rest[..=end])
}

/// The rows of the table whose head begins with `first`, cell by cell.
pub(crate) fn table(page: &str, first: &str) -> Vec<Vec<String>> {
    let head = format!("| {first}");
    let mut lines = page.lines().skip_while(|line| !line.starts_with(&head));
    assert!(lines.next().is_some(), "no table of {first}");
    let rows = lines.skip(1).take_while(|line| line.starts_with('|'));
    rows.map(|row| row.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect()).collect()
}

/// The words in backticks, in order.
pub(crate) fn code(text: &str) -> Vec<&str> {
    let spans = text.lines().filter(|line| !line.starts_with("    "));
    spans.flat_map(|line| line.split('`').skip(1).step_by(2)).collect()
}

/// The words in backticks in a table's first column.
pub(crate) fn firsts(page: &str, first: &str) -> BTreeSet<String> {
    let rows = table(page, first);
    rows.iter().flat_map(|row| code(&row[0])).map(str::to_owned).collect()
}

#[test]
fn a_table_is_read_by_its_cells_and_a_section_ends_with_the_next() {
    let page =
        "# P\n\n## A\n\n| key | what |\n|---|---|\n| `a` `b` | one |\n| `c` | `d` |\n\n### B\n\n## C\n`e`\n";
    assert_eq!(section(page, "## C"), "## C\n`e`\n");
    assert!(section(page, "## A").ends_with("| `c` | `d` |\n\n### B\n"));
    assert_eq!(table(page, "key"), [["`a` `b`", "one"], ["`c`", "`d`"]]);
    assert_eq!(firsts(page, "key"), ["a", "b", "c"].map(str::to_owned).into());
    assert_eq!(code(page), ["a", "b", "c", "d", "e"]);
}
