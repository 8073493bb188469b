//! `cargo xtask lint`: what tools find in the sources without running handshake. Warnings are errors.

mod arm64;
mod oldest;
mod tools;

use std::time::Instant;

use anyhow::{Result, bail};
use clap::builder::PossibleValuesParser;

use crate::toolchain::{self, Toolchain};
use crate::{build_ebpf, shell};

/// The crates that run on the host.
const HOST: [&str; 5] =
    ["--workspace", "--exclude", build_ebpf::PACKAGE, "--exclude", build_ebpf::BENCH_PACKAGE];
/// Private items are documented too, and are most of these crates: links to them are good ones here.
const RUSTDOCFLAGS: &str = "-D warnings -A rustdoc::private-intra-doc-links";
/// A check. Whatever is to be mended is an error.
type Check = fn() -> Result<Outcome>;
/// All checks by name, the quick ones first.
const CHECKS: [(&str, Check); 10] = [
    ("format", format),
    ("spelling", tools::spelling),
    ("dependencies", tools::dependencies),
    ("unused", tools::unused),
    ("clippy", clippy),
    ("clippy-bpf", clippy_bpf),
    ("doc", doc),
    ("doc-bpf", doc_bpf),
    ("oldest", oldest::check),
    ("arm64", arm64::check),
];

/// Check format, spelling, lints, documentation, dependencies, the oldest Rust and arm64
#[derive(clap::Args)]
pub(crate) struct Args {
    /// First install what the checks use
    #[arg(long)]
    setup: bool,
    /// Fail where a check cannot run
    #[arg(long)]
    strict: bool,
    /// Only these checks
    #[arg(value_name = "CHECK", value_parser = PossibleValuesParser::new(CHECKS.map(|(name, _)| name)))]
    only: Vec<String>,
}

/// How a check ended that found nothing to mend.
enum Outcome {
    /// It looked.
    Passed,
    /// It could not run: what it needs, and how to come by it.
    Skipped(String),
}

/// Runs the verb: all checks, so that one run shows all there is to mend.
pub(crate) fn run(args: &Args) -> Result<()> {
    if args.setup {
        tools::install()?;
        toolchain::choose(None, true)?;
    }
    let mut failed = Vec::new();
    let mut skipped = Vec::new();
    let wanted = |name: &str| args.only.is_empty() || args.only.iter().any(|only| only == name);
    for (name, check) in CHECKS.into_iter().filter(|(name, _)| wanted(name)) {
        let started = Instant::now();
        match check() {
            Ok(Outcome::Passed) => eprintln!("{name}: passed in {:.1} s", started.elapsed().as_secs_f64()),
            Ok(Outcome::Skipped(needs)) => {
                eprintln!("{name}: skipped, needs {needs}");
                skipped.push(name);
            }
            Err(error) => {
                eprintln!("{name}: {error:#}");
                failed.push(name);
            }
        }
    }
    judge(&failed, &skipped, args.strict)
}

/// Says what came of all checks: one that did not run fails only where all must.
fn judge(failed: &[&str], skipped: &[&str], strict: bool) -> Result<()> {
    if !failed.is_empty() {
        bail!("lint: {} failed", failed.join(", "));
    }
    if skipped.is_empty() {
        println!("lint: nothing to mend");
        return Ok(());
    }
    let skipped = skipped.join(", ");
    if strict {
        bail!("lint: {skipped} did not run: `cargo xtask lint --setup` installs what is missing");
    }
    println!("lint: nothing to mend; skipped: {skipped}");
    Ok(())
}

fn format() -> Result<Outcome> {
    shell::run(shell::cargo("fmt").args(["--all", "--check"]))?;
    Ok(Outcome::Passed)
}

fn clippy() -> Result<Outcome> {
    shell::run(shell::cargo("clippy").args(HOST).args(["--all-targets", "--", "-D", "warnings"]))?;
    Ok(Outcome::Passed)
}

/// In a call of its own: the target is another, and so is the toolchain.
fn clippy_bpf() -> Result<Outcome> {
    // By its path: cargo would run the first cargo-clippy of PATH, which is another toolchain's.
    let beside = |toolchain: &Toolchain| toolchain.cargo.with_file_name("cargo-clippy");
    let Some(toolchain) = toolchain::ready().into_iter().find(|found| beside(found).is_file()) else {
        return Ok(Outcome::Skipped(toolchain::NEEDED.to_owned()));
    };
    for package in [build_ebpf::PACKAGE, build_ebpf::BENCH_PACKAGE] {
        let mut command = build_ebpf::cargo_at(&beside(&toolchain), &toolchain, "clippy", package);
        shell::run(command.args(["--", "-D", "warnings"]))?;
    }
    Ok(Outcome::Passed)
}

fn doc() -> Result<Outcome> {
    let mut command = shell::cargo("doc");
    command.args(HOST).args(["--no-deps", "--document-private-items"]);
    shell::run(command.env("RUSTDOCFLAGS", RUSTDOCFLAGS))?;
    Ok(Outcome::Passed)
}

fn doc_bpf() -> Result<Outcome> {
    let Some(toolchain) = toolchain::ready().into_iter().next() else {
        return Ok(Outcome::Skipped(toolchain::NEEDED.to_owned()));
    };
    for package in [build_ebpf::PACKAGE, build_ebpf::BENCH_PACKAGE] {
        let mut command = build_ebpf::cargo_at(&toolchain.cargo, &toolchain, "doc", package);
        command.args(["--no-deps", "--document-private-items"]);
        command.env("RUSTDOC", toolchain.rustc.with_file_name("rustdoc")).env("RUSTDOCFLAGS", RUSTDOCFLAGS);
        shell::run(&mut command)?;
    }
    Ok(Outcome::Passed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_that_did_not_run_fails_where_all_must() {
        judge(&[], &["spelling"], false).expect("the rest passed");
        let error = judge(&[], &["spelling"], true).expect_err("not all ran");
        assert!(error.to_string().contains("spelling did not run"), "{error}");
        judge(&["format"], &[], false).expect_err("something is to be mended");
        judge(&[], &[], true).expect("all ran and passed");
    }
}
