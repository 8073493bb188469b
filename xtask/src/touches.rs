//! `cargo xtask touches`: proves the table "What a change touches" of CONTRIBUTING.md.
//!
//! The files in `touches/` hold dummy changes, each of one row of the table. In a copy of the sources, a dummy compiles
//! and passes the tests that it names. With the edit of one file left out, something fails: a file that can be left
//! out unnoticed is an error. Snapshots are not counted, since `INSTA_UPDATE=always` writes them.

mod dummy;
mod table;

use std::collections::BTreeMap;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use clap::builder::PossibleValuesParser;

use self::dummy::{DUMMIES, Dummy};
use self::table::TableRow;
use crate::copy::SourceCopy;
use crate::{lint, shell};

/// Prove the table of CONTRIBUTING.md with dummy changes in a copy; takes minutes
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only these dummy changes
    #[arg(value_name = "DUMMY", value_parser = PossibleValuesParser::new(DUMMIES.map(|(name, _)| name)))]
    only: Vec<String>,
}

/// Runs the verb.
pub(crate) fn run(args: &Args) -> Result<()> {
    let started = Instant::now();
    let rows = table::read(&shell::root())?;
    let copy = SourceCopy::make("touches")?;
    let mut unnoticed = Vec::new();
    let wanted = |name: &str| args.only.is_empty() || args.only.iter().any(|only| only == name);
    for (name, text) in DUMMIES.into_iter().filter(|(name, _)| wanted(name)) {
        let dummy = Dummy::parse(text).with_context(|| name.to_owned())?;
        hold_against_table(&dummy, &rows)?;
        unnoticed.extend(prove(&dummy, &copy)?);
    }
    println!("touches: {:.0} s", started.elapsed().as_secs_f64());
    if !unnoticed.is_empty() {
        bail!("nothing demands {}", unnoticed.join(", "));
    }
    Ok(())
}

/// The files that the dummy edits are those of its row.
fn hold_against_table(dummy: &Dummy, rows: &[TableRow]) -> Result<()> {
    let row = rows.iter().find(|row| row.change == dummy.row);
    let row = row.with_context(|| format!("{} has no row `{}`", table::FILE, dummy.row))?;
    let edited = dummy.files();
    for file in &edited {
        ensure!(row.names(file), "{}: the dummy edits {file}, which the row does not name", dummy.row);
    }
    for named in &row.files {
        let is_edited = edited.iter().any(|file| table::stands_for(named, file));
        ensure!(is_edited, "{}: the row names {named}, which the dummy does not edit", dummy.row);
    }
    Ok(())
}

/// Applies the dummy, whole and with each file left out. Returns the files whose absence goes unnoticed.
fn prove(dummy: &Dummy, copy: &SourceCopy) -> Result<Vec<String>> {
    let files = dummy.files();
    println!("{}: {} files", dummy.row, files.len());
    let edited = dummy.apply(&shell::root())?;
    copy.set(&edited)?;
    if let Verification::Failed(complaint) = verify(dummy, copy)? {
        bail!("{}: the row's files are not enough: {complaint}", dummy.row);
    }
    let mut unnoticed = Vec::new();
    for file in files {
        let rest: BTreeMap<_, _> = edited.clone().into_iter().filter(|(edited, _)| *edited != file).collect();
        copy.set(&rest)?;
        match verify(dummy, copy)? {
            Verification::Failed(complaint) => println!("  {file}\n      {complaint}"),
            Verification::Passed => {
                println!("  {file}\n      NOTHING DEMANDS IT");
                unnoticed.push(format!("{file} ({})", dummy.row));
            }
        }
    }
    copy.set(&BTreeMap::new())?;
    Ok(unnoticed)
}

/// What the compiler and the named tests say of the copy.
enum Verification {
    /// All compiles, and the tests pass.
    Passed,
    /// The first complaint.
    Failed(String),
}

fn verify(dummy: &Dummy, copy: &SourceCopy) -> Result<Verification> {
    let mut check = copy.cargo("check");
    check.args(lint::HOST).args(["--all-targets", "--message-format", "short"]);
    let tests = dummy.tests.iter().map(|words| {
        let mut test = copy.cargo("test");
        test.args(words.split_whitespace());
        test
    });
    if let Err(complaint) = passes(&mut check)? {
        return Ok(Verification::Failed(complaint));
    }
    for mut test in tests {
        match passes(&mut test)? {
            Err(complaint) => return Ok(Verification::Failed(complaint)),
            // A test that was renamed must not pass for one that passes.
            Ok(said) => ensure!(has_run_a_test(&said), "{}: no such test: {test:?}", dummy.row),
        }
    }
    Ok(Verification::Passed)
}

/// Runs the command: what it printed if it succeeds, else its first complaint.
fn passes(command: &mut Command) -> Result<Result<String, String>> {
    let output = command.output().context("start cargo")?;
    let text =
        [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    if output.status.success() {
        return Ok(Ok(text));
    }
    let of_test = |line: &&str| line.starts_with("test ") && line.ends_with("FAILED");
    let of_compiler = |line: &&str| line.contains(": error") || line.starts_with("error");
    let found = text.lines().find(of_test).or_else(|| text.lines().find(of_compiler));
    Ok(Err(found.map_or_else(|| text.clone(), |line| line.trim().to_owned())))
}

/// Whether any test program that `cargo test` ran had a test to run.
fn has_run_a_test(said: &str) -> bool {
    let results = said.lines().filter_map(|line| line.strip_prefix("test result: ok. "));
    results.into_iter().any(|result| !result.starts_with("0 passed"))
}

/// The dummies' files, for the check that each is in the sources.
#[cfg(test)]
fn all_dummies() -> Vec<Dummy> {
    DUMMIES
        .into_iter()
        .map(|(name, text)| Dummy::parse(text).unwrap_or_else(|error| panic!("{name}: {error}")))
        .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// The quick half of the verb: every file of the table exists, and every dummy can be applied to the files of
    /// its row.
    #[test]
    fn the_table_names_files_and_the_dummies_edit_those_of_their_rows() {
        let root = shell::root();
        let rows = table::read(&root).expect("the table can be read");
        for row in &rows {
            for file in &row.files {
                assert!(table::exists(&root, file), "{}: there is no {file}", row.change);
            }
        }
        for dummy in all_dummies() {
            hold_against_table(&dummy, &rows).expect("the dummy edits what its row names");
            dummy.apply(&root).expect("the anchors are in the sources, each once");
        }
    }

    #[test]
    fn a_row_with_a_file_too_many_or_too_few_is_found() {
        let dummy = all_dummies().remove(0);
        let files: Vec<String> = dummy.files().into_iter().collect();
        let row = |files: &[String]| [TableRow { change: dummy.row.clone(), files: files.to_vec() }];
        hold_against_table(&dummy, &row(&files)).expect("equal");
        hold_against_table(&dummy, &row(&files[1..])).expect_err("one too few");
        hold_against_table(&dummy, &row(&[&files[..], &["README".to_owned()]].concat()))
            .expect_err("one too many");
        hold_against_table(&dummy, &[]).expect_err("no row");
    }

    #[test]
    fn a_complaint_is_one_line() {
        let mut failing = shell::pristine("sh");
        failing.args(["-c", "echo 'warning: a'; echo 'src/a.rs:1:2: error[E0004]: b' >&2; exit 1"]);
        let complaint = passes(&mut failing).expect("sh starts").expect_err("it fails");
        assert_eq!(complaint, "src/a.rs:1:2: error[E0004]: b");
        passes(&mut shell::pristine("true")).expect("true starts").expect("it succeeds");
    }

    #[test]
    fn a_filter_that_matches_no_test_is_found() {
        let none = "test result: ok. 0 passed; 0 failed\n";
        assert!(!has_run_a_test(none) && !has_run_a_test(""));
        assert!(has_run_a_test(&format!("{none}test result: ok. 1 passed; 0 failed\n")));
    }

    #[test]
    fn every_dummy_has_a_row_of_its_own() {
        let rows: BTreeSet<String> = all_dummies().into_iter().map(|dummy| dummy.row).collect();
        assert_eq!(rows.len(), DUMMIES.len());
    }
}
