//! `cargo xtask bench`: measures the cost of handshake, beside an empty program, the usual way, and the
//! goals.
//!
//! ```text
//! main ─┬─ packet_rows   BPF_PROG_TEST_RUN of handshake's programs, empty ones and the usual way
//!       ├─ instructions  handshake's programs, interpreted: instructions instead of time
//!       ├─ snapshot      the agent's own snapshot of a million flows
//!       ├─ recording     what a recording of a million flows takes
//!       ├─ veth          real connections and bulk: nothing attached, empty programs, the command's release build
//!       ├─ owner         a SYN whose owner is kept beside one whose owner is not
//!       ├─ contention    two CPUs on one service beside one
//!       ├─ crowd         many interfaces beside one
//!       ├─ captures      replays of captures, tcpdump and tshark
//!       └─ report        a table, or JSON
//!            │
//!         ours           handshake, loaded by handshake-agent, and its counters (counts)
//!         programs       the bench's own object: empty, the usual way, walkers (frames, hook)
//!         cpu, statistics, number
//! ```
//!
//! This crate contains no build step (`cargo xtask bench` builds, and passes the paths), and no setting of
//! the agent that `handshake-agent` already has.
//!
//! A row fails if handshake's counters do not prove that its packets took the measured path. Whether a goal
//! is met is reported but does not change the exit status: times depend on the machine.

mod captures;
mod contention;
mod counts;
mod cpu;
mod crowd;
mod frames;
mod hook;
mod instructions;
mod number;
mod ours;
mod owner;
mod packet_rows;
mod programs;
mod recording;
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
use report::{BenchMachine, Rows};

/// Measure the cost of handshake
#[derive(Parser)]
#[command(name = "cargo xtask bench", override_usage = "cargo xtask bench [OPTIONS] [ROW]...")]
struct Args {
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Turns per program and row; a figure is their median
    #[arg(long, value_name = "N", default_value_t = 15, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Packets per turn, in the rows that count packets
    #[arg(long, value_name = "N", default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(1..))]
    repeat: u32,
    /// The bench's own BPF object, built by `cargo xtask bench`
    #[arg(long, value_name = "PATH", hide = true)]
    programs: PathBuf,
    /// The release build of the command
    #[arg(long, value_name = "PATH", hide = true)]
    handshake: PathBuf,
    /// Rows, or prefixes of their names (`tcp4`, `instructions`, `veth`); default: all
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
    let machine = BenchMachine::here();
    let mut rows = Rows::default();
    measure_packets(args, &mut rows)?;
    measure_instructions(args, &mut rows)?;
    measure_snapshot(args, &mut rows)?;
    measure_recording(args, &mut rows)?;
    measure_veth(args, &mut rows)?;
    measure_owner(args, &mut rows)?;
    measure_contention(args, &mut rows)?;
    measure_crowd(args, &mut rows)?;
    measure_captures(args, &mut rows)?;
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

    /// Fails if an argument matches no row: it would be ignored silently.
    fn ensure_known(&self) -> Result<()> {
        for row in &self.rows {
            if !names().any(|name| name.starts_with(row.as_str())) {
                bail!("no row {row}; there are {}", names().collect::<Vec<_>>().join(", "));
            }
        }
        Ok(())
    }
}

/// The names of all rows.
fn names() -> impl Iterator<Item = &'static str> {
    let instructions = instructions::CASES.iter().map(|case| case.name);
    let packets = CASES.iter().map(|case| case.name).chain(instructions);
    let veth = veth::CASES.iter().map(|case| case.name);
    let snapshots = snapshot::CASES.iter().map(|case| case.name);
    let packets = packets.chain(snapshots).chain([recording::NAME]);
    packets
        .chain(veth)
        .chain([owner::NAME, contention::NAME])
        .chain(crowd::CASES.iter().map(|(name, _)| *name))
        .chain(captures::CASES.iter().map(|case| case.name))
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

fn measure_instructions(args: &Args, rows: &mut Rows) -> Result<()> {
    for case in instructions::CASES.into_iter().filter(|case| args.wants(case.name)) {
        eprintln!("{} …", case.name);
        rows.instructions.push(case.measure()?);
    }
    Ok(())
}

fn measure_snapshot(args: &Args, rows: &mut Rows) -> Result<()> {
    for case in snapshot::CASES.iter().filter(|case| args.wants(case.name)) {
        eprintln!("{} …", case.name);
        rows.snapshots.push(snapshot::measure(case, args.rounds, &read(&args.programs)?)?);
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

fn measure_recording(args: &Args, rows: &mut Rows) -> Result<()> {
    if args.wants(recording::NAME) {
        eprintln!("{} …", recording::NAME);
        rows.recordings.push(recording::measure(&read(&args.programs)?)?);
    }
    Ok(())
}

fn measure_owner(args: &Args, rows: &mut Rows) -> Result<()> {
    if args.wants(owner::NAME) {
        eprintln!("{} …", owner::NAME);
        rows.owners.push(owner::measure(Effort { rounds: args.rounds, repeat: args.repeat })?);
    }
    Ok(())
}

fn measure_contention(args: &Args, rows: &mut Rows) -> Result<()> {
    if args.wants(contention::NAME) {
        eprintln!("{} …", contention::NAME);
        rows.contention.push(contention::measure(Effort { rounds: args.rounds, repeat: args.repeat })?);
    }
    Ok(())
}

fn measure_crowd(args: &Args, rows: &mut Rows) -> Result<()> {
    if crowd::CASES.iter().any(|(name, _)| args.wants(name)) {
        eprintln!("interfaces …");
        let effort = Effort { rounds: args.rounds, repeat: args.repeat };
        rows.crowds = crowd::measure(&args.handshake, effort)?;
    }
    Ok(())
}

fn measure_captures(args: &Args, rows: &mut Rows) -> Result<()> {
    for case in captures::CASES.into_iter().filter(|case| args.wants(case.name)) {
        eprintln!("{} …", case.name);
        rows.captures.push(case.measure(&args.handshake, args.rounds)?);
    }
    Ok(())
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("read {}", path.display()))
}
