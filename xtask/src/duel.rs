//! `cargo xtask duel`: random conversations with a real listening socket; handshake's verdict must be what
//! the socket's kernel did.
//!
//! All traffic stays inside the namespaces made here, which are removed at the end.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::Result;
use handshake_lab::duel::{self, Class, Duel};

use crate::raise;

/// Hold handshake's verdicts against the kernel's, over random conversations
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The seed of the conversations
    #[arg(long, value_name = "S", default_value_t = 1)]
    seed: u64,
    /// The number of conversations
    #[arg(long, value_name = "N", default_value_t = 4200, value_parser = clap::value_parser!(u64).range(1..))]
    conversations: u64,
    /// Play this conversation alone, and show it
    #[arg(long, value_name = "N", conflicts_with = "conversations")]
    stream: Option<u64>,
    /// Show conversations with a difference of this class
    #[arg(long, value_name = "CLASS", value_parser = class)]
    show: Option<Class>,
    /// Run handshake with --verify-checksums
    #[arg(long)]
    verify_checksums: bool,
    /// The handshake binary, already built; the verb also passes it to itself through sudo
    #[arg(long, value_name = "PATH")]
    binary: Option<PathBuf>,
}

fn class(name: &str) -> Result<Class, String> {
    Class::of(name).ok_or_else(|| format!("one of {}", Class::ALL.map(Class::name).join(", ")))
}

/// Runs the verb with handshake as built for the caller, through sudo where that is needed. Fails if a
/// verdict differs and nothing explains it.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    raise::with_binary(args.binary.as_deref(), false, |binary| play(args, binary))
}

fn play(args: &Args, binary: &Path) -> Result<ExitCode> {
    let began = Instant::now();
    let duel = Duel {
        seed: args.seed,
        conversations: args.conversations,
        only: args.stream,
        shown: args.show,
        verify_checksums: args.verify_checksums,
    };
    let outcome = duel::play(&duel, binary, |compared| {
        eprintln!("{compared} of {} conversations, {} s", args.conversations, began.elapsed().as_secs());
    })?;
    println!("{outcome}");
    Ok(if outcome.errors.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
