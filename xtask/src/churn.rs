//! `cargo xtask churn`: interfaces that come and go under traffic beside one that stays, many at once, and
//! runs that are killed.
//!
//! All traffic stays inside the namespaces made here, which are removed at the end.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Result;
use handshake_lab::churn;

use crate::raise;

/// Let interfaces come and go while handshake watches them, and hold its books against what was done
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Interfaces that come and go
    #[arg(long, value_name = "N", default_value_t = 500)]
    count: usize,
    /// Interfaces that are watched at once; the cost is shown beside that of one
    #[arg(long, value_name = "N", default_value_t = 300)]
    at_once: usize,
    /// Moments at which a run is killed by SIGKILL, to look for what it leaves
    #[arg(long, value_name = "N", default_value_t = 100)]
    kills: u32,
    /// The handshake binary, already built; the verb also passes it to itself through sudo
    #[arg(long, value_name = "PATH")]
    binary: Option<PathBuf>,
}

/// Runs the verb with handshake as built for the caller, through sudo where that is needed. Fails if a figure
/// differs.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    raise::with_binary(args.binary.as_deref(), false, |binary| play(args, binary))
}

fn play(args: &Args, binary: &Path) -> Result<ExitCode> {
    for count in [1, args.at_once] {
        let crowd = churn::at_once(binary, count)?;
        println!(
            "{} interfaces at once: attached after {:.2?}, ended after {:.2?}, {:.1?} of CPU time per report",
            crowd.interfaces, crowd.start, crowd.end, crowd.report
        );
    }
    let seen = churn::come_and_go(binary, args.count)?;
    println!(
        "{} interfaces came and went: {} connections over them and {} beside, all completed in the books; \
         the slowest was attached to after {:.2?}",
        seen.interfaces, seen.connections, seen.beside, seen.slowest
    );
    churn::kill(binary, args.kills)?;
    println!("{} runs were killed, and left nothing on their interfaces", args.kills);
    Ok(ExitCode::SUCCESS)
}
