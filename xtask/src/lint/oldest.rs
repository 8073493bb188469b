//! Is the promise kept that `rust-version` in Cargo.toml makes, of the oldest Rust that handshake builds with?

use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::{HOST, Outcome};
use crate::shell;
use crate::toolchain::{value, version};

/// The promise, as major and minor.
const PROMISED: &str = env!("CARGO_PKG_RUST_VERSION");

/// Dependencies by what they say of themselves, our own code by compiling it with that Rust, if it is here.
pub(super) fn check() -> Result<Outcome> {
    dependencies()?;
    let verbose = shell::output(Command::new("rustc").arg("-vV")).context("ask rustc for its version")?;
    let used = value(&verbose, "release").context("rustc does not say its release")?;
    if version(used) <= version(PROMISED) {
        eprintln!("Rust {PROMISED} is promised, and {used} is what clippy compiles everything with");
        return Ok(Outcome::Passed);
    }
    let listed = shell::output(Command::new("rustup").args(["toolchain", "list"])).unwrap_or_default();
    if let Some(name) = of_release(&listed, PROMISED) {
        compile_with(name)?;
        return Ok(Outcome::Passed);
    }
    eprintln!(
        "Rust {PROMISED} is promised, this is {used}, and rustup has no {PROMISED}. Checked: what the dependencies \
         promise, and by clippy's `incompatible_msrv` what we call of the standard library. Not checked: new syntax. \
         `rustup toolchain install {PROMISED} --profile minimal` makes the check a whole one"
    );
    Ok(Outcome::Passed)
}

/// Fails if a dependency asks for a newer Rust than we do.
fn dependencies() -> Result<()> {
    let mut command = shell::cargo("metadata");
    command.args(["--locked", "--format-version", "1"]);
    let metadata = shell::output(&mut command).context("ask cargo for the dependencies")?;
    let newer = newer_than(PROMISED, &serde_json::from_str(&metadata).context("read cargo's metadata")?);
    if !newer.is_empty() {
        bail!("Rust {PROMISED} is promised in Cargo.toml, and it does not suffice: {}", newer.join(", "));
    }
    Ok(())
}

/// What of `cargo metadata` needs a newer Rust than that.
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

/// The toolchain of that release in rustup's list: `1.95.0-x86_64-unknown-linux-gnu` for 1.95.
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
