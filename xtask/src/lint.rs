//! `cargo xtask lint`: format, clippy and documentation, with warnings as errors.

use anyhow::{Result, bail};

use crate::toolchain::{self, Toolchain};
use crate::{build_ebpf, shell};

/// The crates that run on the host.
const HOST: [&str; 5] =
    ["--workspace", "--exclude", build_ebpf::PACKAGE, "--exclude", build_ebpf::BENCH_PACKAGE];

/// Check format, lints and documentation
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Fail where there is no toolchain to lint the BPF crate with
    #[arg(long)]
    strict: bool,
}

/// Runs the verb: all checks, so that one run shows all there is to mend.
pub(crate) fn run(args: &Args) -> Result<()> {
    let checks = [
        ("format", format()),
        ("clippy", clippy()),
        ("clippy for BPF", clippy_bpf(args.strict)),
        ("doc", doc()),
    ];
    let failed: Vec<&str> = checks
        .into_iter()
        .filter_map(|(name, result)| result.inspect_err(|error| eprintln!("{error:#}")).err().map(|_| name))
        .collect();
    if !failed.is_empty() {
        bail!("lint: {} failed", failed.join(", "));
    }
    println!("lint: nothing to mend");
    Ok(())
}

fn format() -> Result<()> {
    shell::run(shell::cargo("fmt").args(["--all", "--check"]))
}

fn clippy() -> Result<()> {
    shell::run(shell::cargo("clippy").args(HOST).args(["--all-targets", "--", "-D", "warnings"]))
}

/// In a call of its own: the target is another, and so is the toolchain.
fn clippy_bpf(strict: bool) -> Result<()> {
    // By its path: cargo would run the first cargo-clippy of PATH, which is another toolchain's.
    let beside = |toolchain: &Toolchain| toolchain.cargo.with_file_name("cargo-clippy");
    let Some(toolchain) = toolchain::ready().into_iter().find(|found| beside(found).is_file()) else {
        if strict {
            bail!("no toolchain for BPF with clippy to lint the kernel side with");
        }
        eprintln!("skipped: the kernel side, for want of its toolchain: `cargo xtask build-ebpf --install`");
        return Ok(());
    };
    for package in [build_ebpf::PACKAGE, build_ebpf::BENCH_PACKAGE] {
        let mut command = build_ebpf::cargo_at(&beside(&toolchain), &toolchain, "clippy", package);
        shell::run(command.args(["--", "-D", "warnings"]))?;
    }
    Ok(())
}

/// With private items, which most of these crates are made of; links to them are good ones here.
fn doc() -> Result<()> {
    let mut command = shell::cargo("doc");
    command.args(HOST).args(["--no-deps", "--document-private-items"]);
    shell::run(command.env("RUSTDOCFLAGS", "-D warnings -A rustdoc::private-intra-doc-links"))
}
