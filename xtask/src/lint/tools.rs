//! The checks by released programs. Their versions and hashes are in `tools.txt`; their settings are in the
//! workspace's root.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use super::LintOutcome;
use crate::{packages, shell};

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

/// Installs the programs unless the installed ones match `tools.txt`.
pub(super) fn install() -> Result<()> {
    if is_installed() {
        return Ok(());
    }
    let python = match python() {
        Some(python) => python,
        None => {
            packages::install_for_lint()?;
            python().context("python3 has no pip, though Debian's python3-pip is installed")?
        }
    };
    if folder().exists() {
        fs::remove_dir_all(folder()).with_context(|| format!("remove {}", folder().display()))?;
    }
    let mut command = shell::pristine(python);
    command.args([
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--require-hashes",
        "--only-binary",
        ":all:",
    ]);
    command.env("PIP_ROOT_USER_ACTION", "ignore").env("PIP_DISABLE_PIP_VERSION_CHECK", "1");
    shell::run(command.arg("--target").arg(folder()).arg("--requirement").arg(requirements()))?;
    fs::copy(requirements(), installed()).with_context(|| format!("write {}", installed().display()))?;
    Ok(())
}

/// Runs a program over the workspace: the installed one, else the one in PATH.
fn run(program: &str, arguments: &[&str]) -> Result<LintOutcome> {
    let ours = folder().join("bin").join(program);
    let found = if is_installed() { Some(ours) } else { shell::find(program) };
    let Some(file) = found else {
        return Ok(LintOutcome::Skipped(format!("{program}: `cargo xtask lint --setup`")));
    };
    shell::run(Command::new(file).args(arguments).current_dir(shell::root()))?;
    Ok(LintOutcome::Passed)
}

/// The folder into which the programs are installed.
fn folder() -> PathBuf {
    shell::root().join("target/tools")
}

/// The list of programs to install.
fn requirements() -> PathBuf {
    shell::root().join("xtask/tools.txt")
}

/// The list of installed programs: a copy of the requirements, written after the installation.
fn installed() -> PathBuf {
    folder().join("tools.txt")
}

fn is_installed() -> bool {
    let wanted = fs::read(requirements()).ok();
    wanted.is_some() && fs::read(installed()).ok() == wanted
}

/// A Python with pip.
fn python() -> Option<&'static str> {
    let has_pip =
        |python: &&str| shell::output(shell::pristine(python).args(["-m", "pip", "--version"])).is_some();
    ["python3", "/usr/bin/python3"].into_iter().find(has_pip)
}

/// Is there a database of advisories from `cargo deny fetch`?
fn has_advisories() -> bool {
    let databases = fs::read_dir(shell::cargo_home().join("advisory-dbs"));
    databases.into_iter().flatten().flatten().any(|entry| entry.path().is_dir())
}
