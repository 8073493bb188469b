//! `cargo xtask bench`: what handshake costs, beside an empty program, the usual way, and the goals.
//!
//! ```text
//! main ─┬─ packet_rows   BPF_PROG_TEST_RUN of handshake's programs, empty ones and the usual way
//!       ├─ snapshot      the agent's own snapshot of a million flows
//!       ├─ veth          real connections and bulk: nothing attached, empty programs, the command's release build
//!       └─ report        a table, or JSON
//!            │
//!         ours           handshake, loaded by handshake-agent, and what it has counted (counts)
//!         programs       the bench's own object: empty, the usual way, walkers (frames, hook)
//!         cpu, statistics, number
//! ```
//!
//! What may not live here: what builds (`cargo xtask bench` does, and hands the paths over), and any setting of the agent
//! that `handshake-agent` has already.
//!
//! A row fails loudly when handshake's counters do not say that its packets went the way that is measured. Whether
//! a goal is met is said and not judged: times are this machine's.

mod counts;
mod cpu;
mod frames;
mod hook;
mod number;
mod ours;
mod packet_rows;
mod programs;
mod report;
mod snapshot;
mod statistics;
mod veth;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::Parser;

use packet_rows::{CASES, Effort};
use report::{Machine, Rows};

/// Measure what handshake costs
#[derive(Parser)]
#[command(name = "cargo xtask bench", override_usage = "cargo xtask bench [OPTIONS] [ROW]...")]
struct Args {
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Turns of each program in a row; a figure is their median
    #[arg(long, value_name = "N", default_value_t = 15, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Packets a turn, of the rows that count packets
    #[arg(long, value_name = "N", default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(1..))]
    repeat: u32,
    /// The bench's own BPF object, built by `cargo xtask bench`
    #[arg(long, value_name = "PATH", hide = true)]
    programs: PathBuf,
    /// The command, its release build
    #[arg(long, value_name = "PATH", hide = true)]
    handshake: PathBuf,
    /// Rows, or how their names begin (`tcp4`, `snapshot_1m`, `veth`); without any, all
    #[arg(value_name = "ROW")]
    rows: Vec<String>,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<()> {
    args.ensure_known()?;
    let machine = Machine::here();
    let mut rows = Rows::default();
    measure_packets(args, &mut rows)?;
    measure_snapshot(args, &mut rows)?;
    measure_veth(args, &mut rows)?;
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
    let packets = CASES.iter().map(|case| case.name);
    packets.chain([snapshot::NAME]).chain(veth::CASES.iter().map(|case| case.name))
}

fn measure_packets(args: &Args, rows: &mut Rows) -> Result<()> {
    let cases: Vec<_> = CASES.into_iter().filter(|case| args.wants(case.name)).collect();
    if cases.is_empty() {
        return Ok(());
    }
    let others = read(&args.programs)?;
    for case in cases {
        eprintln!("{} …", case.name);
        let effort = Effort { rounds: args.rounds, repeat: args.repeat };
        rows.packets.push(case.measure(&others, effort)?);
    }
    Ok(())
}

fn measure_snapshot(args: &Args, rows: &mut Rows) -> Result<()> {
    if args.wants(snapshot::NAME) {
        eprintln!("{} …", snapshot::NAME);
        rows.snapshots.push(snapshot::measure(args.rounds, &read(&args.programs)?)?);
    }
    Ok(())
}

fn measure_veth(args: &Args, rows: &mut Rows) -> Result<()> {
    let cases: Vec<_> = veth::CASES.into_iter().filter(|case| args.wants(case.name)).collect();
    if cases.is_empty() {
        return Ok(());
    }
    let others = read(&args.programs)?;
    for case in cases {
        eprintln!("{} …", case.name);
        rows.veth.push(case.measure(&others, &args.handshake, args.rounds)?);
    }
    Ok(())
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("read {}", path.display()))
}
