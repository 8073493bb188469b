//! The table of docs/kernels.md: one row for each kernel and hook that was tried, written by the command alone.
//! A hash stands under it, which a test compares, so a row that was written by hand is found.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};

use super::fetch::DebianKernel;
use crate::architecture::Architecture;
use crate::shell;

const BEGIN: &str = "<!-- written by `cargo xtask kernels --all --table`: not by hand -->\n";
const HASH: &str = "<!-- sha256 ";
const END: &str = " -->\n";
const HEAD: &str = "\
| kernel | | release | link | ingress | egress | attempts | instructions verified |
|---|---|---|---|---|---|---|---|
";

/// One kernel, one hook of one link, or a link that the kernel lacks.
#[derive(Debug)]
pub(super) struct TriedRow {
    version: &'static str,
    architecture: Architecture,
    release: String,
    link: &'static str,
    outcome: Outcome,
}

/// What a try has shown.
#[derive(Debug)]
pub(super) enum Outcome {
    /// Each verdict was as expected, and the report exact.
    Tried {
        ingress: &'static str,
        egress: String,
        attempts: u64,
        /// One number a program.
        verified: String,
    },
    /// The kernel's package has no module of this name, and it is not built in.
    Lacking(&'static str),
}

impl TriedRow {
    pub(super) fn new(kernel: &DebianKernel, release: &str, link: &'static str, outcome: Outcome) -> Self {
        let DebianKernel { version, architecture, .. } = *kernel;
        Self { version, architecture, release: release.to_owned(), link, outcome }
    }

    /// What the rows of one kernel begin with.
    fn beginning(&self) -> String {
        format!("| {} | {} |", self.version, self.architecture.name())
    }

    /// As a line of the table.
    pub(super) fn line(&self) -> String {
        let shown = match &self.outcome {
            Outcome::Tried { ingress, egress, attempts, verified } => {
                format!("{ingress} | {egress} | {attempts} | {verified}")
            }
            Outcome::Lacking(module) => format!("not in this kernel: no `{module}` | | |"),
        };
        format!("{} {} | {} | {shown} |", self.beginning(), self.release, self.link)
    }
}

fn sha256(text: &str) -> String {
    use sha2::Digest as _;
    sha2::Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn page() -> PathBuf {
    shell::root().join("docs/kernels.md")
}

/// Puts these rows into the page, in the place of those of the same kernels.
pub(super) fn write(rows: &[TriedRow]) -> Result<()> {
    let page = page();
    let text = fs::read_to_string(&page).with_context(|| format!("read {}", page.display()))?;
    fs::write(&page, with_rows(&text, rows)?).with_context(|| format!("write {}", page.display()))
}

/// The page before the table, the lines of its rows, the hash below it, and what follows.
fn split(text: &str) -> Result<(&str, Vec<&str>, &str, &str)> {
    let (before, rest) = text.split_once(BEGIN).context("the page has no place for the table")?;
    let rest = rest.strip_prefix(HEAD).context("the table has another head")?;
    let (rows, rest) = rest.split_once(HASH).context("no hash below the table")?;
    let (hash, after) = rest.split_once(END).context("the hash does not end")?;
    Ok((before, rows.lines().collect(), hash, after))
}

fn with_rows(text: &str, rows: &[TriedRow]) -> Result<String> {
    let (before, old, _, after) = split(text)?;
    let tried: Vec<String> = rows.iter().map(TriedRow::beginning).collect();
    let is_kept = |line: &&&str| !tried.iter().any(|beginning| line.starts_with(beginning));
    let mut lines: Vec<String> = old.iter().filter(is_kept).map(|line| (*line).to_owned()).collect();
    lines.extend(rows.iter().map(TriedRow::line));
    // By architecture, then by the kernel's number; the hooks of a kernel stay in their order.
    lines.sort_by_key(|line| {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        (cells[2].to_owned(), crate::toolchain::version(cells[1]))
    });
    let table: String = lines.iter().map(|line| format!("{line}\n")).collect();
    Ok(format!("{before}{BEGIN}{HEAD}{table}{HASH}{}{END}{after}", sha256(&table)))
}

/// Whether the table is as the command has written it.
#[cfg(test)]
fn check(text: &str) -> Result<()> {
    let (_, rows, hash, _) = split(text)?;
    let table: String = rows.iter().map(|line| format!("{line}\n")).collect();
    anyhow::ensure!(sha256(&table) == hash, "a row was written by hand");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::fetch::KERNELS;
    use super::*;

    fn row(version: &'static str, ingress: &'static str) -> TriedRow {
        let kernel = KERNELS.into_iter().find(|kernel| kernel.version == version).expect("a kernel");
        let verified = "1, 2".to_owned();
        let outcome = Outcome::Tried { ingress, egress: "clsact".to_owned(), attempts: 40, verified };
        TriedRow::new(&kernel, &format!("{version}.9"), "veth", outcome)
    }

    #[test]
    fn a_link_that_the_kernel_lacks_has_a_row_that_says_so() {
        let kernel = &KERNELS[0];
        let row = TriedRow::new(kernel, "6.1.9", "ppp", Outcome::Lacking("ppp_async"));
        assert_eq!(row.line(), "| 6.1 | amd64 | 6.1.9 | ppp | not in this kernel: no `ppp_async` | | | |");
        assert_eq!(
            row.line().matches('|').count(),
            HEAD.lines().next().unwrap_or_default().matches('|').count()
        );
    }

    #[test]
    fn the_page_s_table_is_the_command_s() {
        check(&fs::read_to_string(page()).expect("the page")).expect("written by the command");
    }

    #[test]
    fn rows_take_the_place_of_their_kernel_s_and_a_change_by_hand_is_found() {
        let empty = format!("a\n{BEGIN}{HEAD}{HASH}{END}b\n");
        let first = with_rows(&empty, &[row("6.12", "tcx"), row("6.1", "clsact")]).expect("a page");
        check(&first).expect("as it was written");
        let second = with_rows(&first, &[row("6.12", "xdp-native")]).expect("a page");
        let (before, rows, _, after) = split(&second).expect("a page");
        assert_eq!((before, after), ("a\n", "b\n"));
        assert_eq!(rows, [row("6.1", "clsact").line(), row("6.12", "xdp-native").line()]);
        check(&second.replace("| 40 |", "| 41 |")).expect_err("a change by hand");
    }
}
