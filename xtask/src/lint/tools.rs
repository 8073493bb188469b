//! The checks by released programs. Their versions and hashes are in `tools.txt`; their settings are in the
//! workspace's root.

use std::fs;
use std::process::Command;

use anyhow::Result;

use super::LintOutcome;
use crate::shell;
use crate::wheels::Wheels;

const PROGRAMS: Wheels = Wheels { list: "xtask/tools.txt", folder: "target/tools" };

/// Checks the spelling of all committed files.
pub(super) fn spelling() -> Result<LintOutcome> {
    run("typos", &[])
}

/// Checks licences, sources and duplicate versions; advisories too, if a database of them is present.
pub(super) fn dependencies() -> Result<LintOutcome> {
    let outcome = run("cargo-deny", &["--locked", "check", "-D", "warnings", "licenses", "sources", "bans"])?;
    if matches!(outcome, LintOutcome::Skipped(_)) {
        return Ok(outcome);
    }
    if !has_advisories() {
        eprintln!("advisories: not checked; `cargo deny fetch` downloads RustSec's database");
        return Ok(outcome);
    }
    run("cargo-deny", &["--locked", "--offline", "check", "advisories"])
}

/// Finds unused dependencies, and source files that no module declares.
pub(super) fn unused() -> Result<LintOutcome> {
    run("cargo-shear", &["--locked", "--deny-warnings"])
}

/// Installs the programs.
pub(super) fn install() -> Result<()> {
    PROGRAMS.install()
}

/// Runs a program over the workspace: the installed one, else the one in PATH.
fn run(program: &str, arguments: &[&str]) -> Result<LintOutcome> {
    let ours = PROGRAMS.folder().join("bin").join(program);
    let found = if PROGRAMS.is_installed() { Some(ours) } else { shell::find(program) };
    let Some(file) = found else {
        return Ok(LintOutcome::Skipped(format!("{program}: `cargo xtask lint --setup`")));
    };
    shell::run(Command::new(file).args(arguments).current_dir(shell::root()))?;
    Ok(LintOutcome::Passed)
}

/// Is there a database of advisories from `cargo deny fetch`?
fn has_advisories() -> bool {
    let databases = fs::read_dir(shell::cargo_home().join("advisory-dbs"));
    databases.into_iter().flatten().flatten().any(|entry| entry.path().is_dir())
}
