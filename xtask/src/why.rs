//! `cargo xtask why`: makes faults whose owner is known, and holds what `why` and `check` say of them from the
//! client, the router and the server against it.
//!
//! All traffic stays inside the namespaces made here, which are removed at the end.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Result;
use handshake_lab::faults;

use crate::raise;

/// Make faults whose owner is known, and judge what `why` and `check` say of them from each seat
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Words of the faults' names; without them each fault
    #[arg(value_name = "WORD")]
    words: Vec<String>,
    /// How often each fault is made
    #[arg(long, value_name = "N", default_value_t = 20)]
    rounds: u32,
    /// The handshake binary, already built; the verb also passes it to itself through sudo
    #[arg(long, value_name = "PATH")]
    binary: Option<PathBuf>,
}

/// Runs the verb with handshake as built for the caller, through sudo where that is needed. Fails if an answer
/// is wrong.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    raise::with_binary(args.binary.as_deref(), false, |binary| play(args, binary))
}

fn play(args: &Args, binary: &Path) -> Result<ExitCode> {
    faults::judge_all(binary, &args.words, args.rounds, &mut |line| println!("{line}"))?;
    Ok(ExitCode::SUCCESS)
}
