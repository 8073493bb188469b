//! `cargo xtask lint`: checks the sources without running handshake. Warnings are errors.

mod arm64;
mod oldest;
mod tools;

use std::time::Instant;

use anyhow::{Result, bail};
use clap::builder::PossibleValuesParser;

use crate::toolchain::{self, Toolchain};
use crate::{build_ebpf, shell};

/// The arguments that select the crates that run on the host.
pub(crate) const HOST: [&str; 5] =
    ["--workspace", "--exclude", build_ebpf::PACKAGE, "--exclude", build_ebpf::BENCH_PACKAGE];
/// Private items are documented too, and most items of these crates are private, so links to them are
/// allowed.
const RUSTDOCFLAGS: &str = "-D warnings -A rustdoc::private-intra-doc-links";
/// A check. A finding is an error.
type LintCheck = fn() -> Result<LintOutcome>;
/// All checks by name, the fast ones first.
const CHECKS: [(&str, LintCheck); 10] = [
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
    /// First install the tools that the checks use
    #[arg(long)]
    setup: bool,
    /// Fail if a check cannot run
    #[arg(long)]
    strict: bool,
    /// Run only these checks
    #[arg(value_name = "CHECK", value_parser = PossibleValuesParser::new(CHECKS.map(|(name, _)| name)))]
    only: Vec<String>,
}

/// The result of a check without findings.
enum LintOutcome {
    /// It ran and found nothing.
    Passed,
    /// It could not run: what it needs, and the command that installs it.
    Skipped(String),
}

/// Runs the verb: every check runs, so that one call shows all findings.
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
            Ok(LintOutcome::Passed) => {
                eprintln!("{name}: passed in {:.1} s", started.elapsed().as_secs_f64())
            }
            Ok(LintOutcome::Skipped(needs)) => {
                eprintln!("{name}: skipped; it needs {needs}");
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

/// Prints the result of all checks. A skipped check is a failure only if `strict`.
fn judge(failed: &[&str], skipped: &[&str], strict: bool) -> Result<()> {
    if !failed.is_empty() {
        bail!("lint: {} failed", failed.join(", "));
    }
    if skipped.is_empty() {
        println!("lint: no findings");
        return Ok(());
    }
    let skipped = skipped.join(", ");
    if strict {
        bail!("lint: {skipped} did not run: `cargo xtask lint --setup` installs what is missing");
    }
    println!("lint: no findings; skipped: {skipped}");
    Ok(())
}

fn format() -> Result<LintOutcome> {
    shell::run(shell::cargo("fmt").args(["--all", "--check"]))?;
    Ok(LintOutcome::Passed)
}

fn clippy() -> Result<LintOutcome> {
    shell::run(shell::cargo("clippy").args(HOST).args(["--all-targets", "--", "-D", "warnings"]))?;
    Ok(LintOutcome::Passed)
}

/// A separate call of cargo: target and toolchain differ from the host's.
fn clippy_bpf() -> Result<LintOutcome> {
    // By its path: cargo would run the first cargo-clippy in PATH, which belongs to another toolchain.
    let beside = |toolchain: &Toolchain| toolchain.cargo.with_file_name("cargo-clippy");
    let Some(toolchain) = toolchain::ready().into_iter().find(|found| beside(found).is_file()) else {
        return Ok(LintOutcome::Skipped(toolchain::NEEDED.to_owned()));
    };
    for package in [build_ebpf::PACKAGE, build_ebpf::BENCH_PACKAGE] {
        let mut command = build_ebpf::cargo_at(&beside(&toolchain), &toolchain, "clippy", package);
        shell::run(command.args(["--", "-D", "warnings"]))?;
    }
    Ok(LintOutcome::Passed)
}

fn doc() -> Result<LintOutcome> {
    let mut command = shell::cargo("doc");
    command.args(HOST).args(["--no-deps", "--document-private-items"]);
    shell::run(command.env("RUSTDOCFLAGS", RUSTDOCFLAGS))?;
    Ok(LintOutcome::Passed)
}

fn doc_bpf() -> Result<LintOutcome> {
    let Some(toolchain) = toolchain::ready().into_iter().next() else {
        return Ok(LintOutcome::Skipped(toolchain::NEEDED.to_owned()));
    };
    for package in [build_ebpf::PACKAGE, build_ebpf::BENCH_PACKAGE] {
        let mut command = build_ebpf::cargo_at(&toolchain.cargo, &toolchain, "doc", package);
        command.args(["--no-deps", "--document-private-items"]);
        command.env("RUSTDOC", toolchain.rustc.with_file_name("rustdoc")).env("RUSTDOCFLAGS", RUSTDOCFLAGS);
        shell::run(&mut command)?;
    }
    Ok(LintOutcome::Passed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_skipped_check_fails_only_when_strict() {
        judge(&[], &["spelling"], false).expect("the rest passed");
        let error = judge(&[], &["spelling"], true).expect_err("not all ran");
        assert!(error.to_string().contains("spelling did not run"), "{error}");
        judge(&["format"], &[], false).expect_err("a finding");
        judge(&[], &[], true).expect("all ran and passed");
    }
}
