//! `cargo xtask bench`: what handshake costs, beside an empty program, the usual way, and the goals.
//!
//! ```text
//! packet_rows ─▶ BPF_PROG_TEST_RUN of handshake's object, as the agent loads it, and of bench-ebpf
//! ```
//!
//! A row fails loudly when handshake's counters do not say that its packets went the way that is measured. Whether
//! a goal is met is said and not judged: times are this machine's.

mod counts;
mod frames;
mod hook;
mod ours;
mod packet_rows;
mod programs;
mod report;
mod statistics;

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};

use crate::{build_ebpf, run, shell, stamp};
use packet_rows::{CASES, Effort, Objects};
use report::{Machine, PacketRow};

/// Measure what handshake costs
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Turns of each program in a row; a figure is their median
    #[arg(long, value_name = "N", default_value_t = 15, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Packets a turn
    #[arg(long, value_name = "N", default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(1..))]
    repeat: u32,
    /// Measure this BPF object instead of the committed one
    #[arg(long, value_name = "PATH")]
    object: Option<PathBuf>,
    /// Rows, or how their names begin (`tcp4`, `flood4_65536`); without any, all
    #[arg(value_name = "ROW")]
    rows: Vec<String>,
}

/// Runs the verb.
pub(crate) fn run(args: &Args) -> Result<()> {
    args.ensure_known()?;
    ensure!(run::is_privileged(), "the bench loads programs: it needs {}", run::NEEDED);
    let machine = Machine::here();
    let mut rows = Vec::new();
    measure_packets(args, &mut rows)?;
    if args.json {
        println!("{:#}", report::json(&rows, &machine));
    } else {
        print!("{}", report::table(&rows, &machine));
    }
    Ok(())
}

impl Args {
    fn wants(&self, name: &str) -> bool {
        self.rows.is_empty() || self.rows.iter().any(|row| name.starts_with(row.as_str()))
    }

    /// Fails when a word names no row: it would be left out in silence.
    fn ensure_known(&self) -> Result<()> {
        for row in &self.rows {
            if !names().any(|name| name.starts_with(row.as_str())) {
                bail!("no row {row}; there are {}", names().collect::<Vec<_>>().join(", "));
            }
        }
        Ok(())
    }
}

/// All rows.
fn names() -> impl Iterator<Item = &'static str> {
    CASES.iter().map(|case| case.name)
}

fn measure_packets(args: &Args, rows: &mut Vec<PacketRow>) -> Result<()> {
    let cases: Vec<_> = CASES.into_iter().filter(|case| args.wants(case.name)).collect();
    if cases.is_empty() {
        return Ok(());
    }
    let objects = objects(args)?;
    for case in cases {
        eprintln!("{} …", case.name);
        let effort = Effort { rounds: args.rounds, repeat: args.repeat };
        rows.push(case.measure(&objects, effort)?);
    }
    Ok(())
}

fn objects(args: &Args) -> Result<Objects> {
    let ours = args.object.clone().unwrap_or_else(|| shell::root().join(stamp::OBJECT));
    let others = build_ebpf::build_bench(false)?;
    let read = |path: &PathBuf| fs::read(path).with_context(|| format!("read {}", path.display()));
    Ok(Objects { ours: read(&ours)?, others: read(&others)? })
}
