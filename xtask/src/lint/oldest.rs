//! Checks `rust-version` in Cargo.toml: the oldest Rust that handshake promises to build with.

use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::{HOST, LintOutcome};
use crate::shell;
use crate::toolchain::{value, version};

/// The promised version, as major and minor.
const PROMISED: &str = env!("CARGO_PKG_RUST_VERSION");

/// Checks the dependencies by their own `rust-version`, and the workspace's code by compiling it with that
/// Rust, if it is installed.
pub(super) fn check() -> Result<LintOutcome> {
    dependencies()?;
    let verbose = shell::output(Command::new("rustc").arg("-vV")).context("ask rustc for its version")?;
    let used = value(&verbose, "release").context("rustc prints no release")?;
    if version(used) <= version(PROMISED) {
        eprintln!("Rust {PROMISED} is promised, and clippy compiles everything with {used}");
        return Ok(LintOutcome::Passed);
    }
    let listed = shell::output(Command::new("rustup").args(["toolchain", "list"])).unwrap_or_default();
    if let Some(name) = of_release(&listed, PROMISED) {
        compile_with(name)?;
        return Ok(LintOutcome::Passed);
    }
    eprintln!(
        "Rust {PROMISED} is promised, this is {used}, and rustup has no {PROMISED}. Checked: the dependencies' \
         own promises, and by clippy's `incompatible_msrv` the calls of the standard library. Not checked: new syntax. \
         `rustup toolchain install {PROMISED} --profile minimal` makes the check complete"
    );
    Ok(LintOutcome::Passed)
}

/// Fails if a dependency needs a newer Rust than the promised one.
fn dependencies() -> Result<()> {
    let mut command = shell::cargo("metadata");
    command.args(["--locked", "--format-version", "1"]);
    let metadata = shell::output(&mut command).context("ask cargo for the dependencies")?;
    let newer = newer_than(PROMISED, &serde_json::from_str(&metadata).context("read cargo's metadata")?);
    if !newer.is_empty() {
        bail!("Cargo.toml promises Rust {PROMISED}, which is too old: {}", newer.join(", "));
    }
    Ok(())
}

/// The packages in the output of `cargo metadata` that need a newer Rust than `promised`.
fn newer_than(promised: &str, metadata: &Value) -> Vec<String> {
    let mut newer = Vec::new();
    for package in metadata["packages"].as_array().into_iter().flatten() {
        let text = |field: &str| package[field].as_str().unwrap_or_default();
        if version(text("rust_version")) > version(promised) {
            newer.push(format!("{} {} needs {}", text("name"), text("version"), text("rust_version")));
        }
    }
    newer
}

/// The name of the toolchain of a release in rustup's list: `1.95.0-x86_64-unknown-linux-gnu` for 1.95.
fn of_release<'a>(listed: &'a str, release: &str) -> Option<&'a str> {
    let mut names = listed.lines().filter_map(|line| line.split(' ').next());
    names.find(|name| name.strip_prefix(release).is_some_and(|rest| rest.starts_with(['.', '-'])))
}

fn compile_with(toolchain: &str) -> Result<()> {
    let mut command = shell::pristine("rustup");
    command.current_dir(shell::root()).args(["run", toolchain, "cargo", "check", "--locked"]).args(HOST);
    command.args(["--all-targets", "--target-dir", "target/oldest"]);
    shell::run(&mut command)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dependency_that_needs_a_newer_rust_is_named() {
        let metadata = serde_json::json!({"packages": [
            {"name": "old", "version": "1.0.0", "rust_version": "1.85.1"},
            {"name": "silent", "version": "2.0.0", "rust_version": null},
            {"name": "new", "version": "3.1.0", "rust_version": "1.100"},
        ]});
        assert_eq!(newer_than("1.95", &metadata), ["new 3.1.0 needs 1.100"]);
    }

    #[test]
    fn the_promised_toolchain_is_found_by_its_release() {
        let listed = "stable-x86_64-unknown-linux-gnu (active, default)\n1.9.0-x86_64-unknown-linux-gnu\n\
            1.95.0-x86_64-unknown-linux-gnu\n1.96-x86_64-unknown-linux-gnu";
        assert_eq!(of_release(listed, "1.95"), Some("1.95.0-x86_64-unknown-linux-gnu"));
        assert_eq!(of_release(listed, "1.96"), Some("1.96-x86_64-unknown-linux-gnu"));
        assert_eq!(of_release(listed, "1.97"), None);
    }
}
