//! `cargo xtask both-ends`: makes faults at five hosts in a row, with and without address translation, and
//! holds what `join` says of two accounts against them; then attempts through haproxy, and a million made
//! ones.
//!
//! All traffic stays inside the namespaces made here, which are removed at the end.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Result;
use handshake_lab::both_ends::{self, Translation};

use crate::raise;

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
    raise::with_binary(args.binary.as_deref(), |binary| play(args, binary))
}

fn play(args: &Args, binary: &Path) -> Result<ExitCode> {
    for translation in Translation::ALL {
        let attempts = both_ends::judge(binary, translation, args.attempts)?;
        println!(
            "translation {translation:?}: the spot of each of {attempts} attempts named, by three pairs"
        );
    }
    let attempts = both_ends::proxied(binary, args.attempts)?;
    println!("haproxy: {attempts} attempts answered between, none matched");
    let measured = both_ends::many(binary, args.many)?;
    println!(
        "{} attempts a side, {} MB: {:.2?}, {} MB at the peak; {}",
        measured.attempts,
        measured.bytes / 1_000_000,
        measured.took,
        measured.peak / 1_000_000,
        measured.said
    );
    Ok(ExitCode::SUCCESS)
}
