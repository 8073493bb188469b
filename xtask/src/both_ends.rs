//! `cargo xtask both-ends`: makes faults at five hosts in a row, with and without address translation, and
//! holds what `join` says of two accounts against them; then attempts through haproxy, and a million made
//! ones.
//!
//! All traffic stays inside the namespaces made here, which are removed at the end.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Result;
use handshake_lab::both_ends::{self, Measured, Translation};

use crate::{raise, shell};

/// Make faults at five spots, and judge what the join of two accounts says of each attempt
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Attempts beside each fault, over each family
    #[arg(long, value_name = "N", default_value_t = 1_000)]
    attempts: usize,
    /// Made attempts of each account whose join is measured
    #[arg(long, value_name = "N", default_value_t = 1_000_000)]
    many: usize,
    /// The handshake binary, already built; the verb also passes it to itself through sudo
    #[arg(long, value_name = "PATH")]
    binary: Option<PathBuf>,
}

/// Runs the verb with handshake as built for the caller, through sudo where that is needed. Fails if an
/// attempt is said to be lost elsewhere.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    if args.binary.is_none() {
        let words = ["--release", "--package", "handshake-join", "--example", "plain_lines"];
        shell::run(shell::cargo("build").args(words))?;
    }
    raise::with_binary(args.binary.as_deref(), true, |binary| play(args, binary))
}

fn play(args: &Args, binary: &Path) -> Result<ExitCode> {
    for translation in Translation::ALL {
        let judged = both_ends::judge(binary, translation, args.attempts)?;
        println!("translation {translation:?}: {judged}");
    }
    let attempts = both_ends::proxied(binary, args.attempts)?;
    println!("haproxy: {attempts} attempts answered between, none matched");
    let plain = shell::target().join("release/examples/plain_lines");
    let Measured { attempts, bytes, took, plain, peak, said } =
        both_ends::many(binary, plain.exists().then_some(&*plain), args.many)?;
    let [bytes, peak, said] = [bytes, peak, said].map(|bytes| bytes / 1_000_000);
    println!(
        "{attempts} attempts a side, {bytes} MB: {took:.2?} in the median; memory {peak} MB of {said} MB"
    );
    if let Some(plain) = plain {
        let ratio = took.as_secs_f64() / plain.as_secs_f64();
        println!("the same lines as plain JSON: {plain:.2?}; the join takes {ratio:.2} times as long");
    }
    Ok(ExitCode::SUCCESS)
}
