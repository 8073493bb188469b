//! `cargo xtask bench`: what handshake costs, beside an empty program, the usual way, and the goals.
//!
//! ```text
//! packet_rows ─▶ BPF_PROG_TEST_RUN of handshake's object, as the agent loads it, and of bench-ebpf
//! snapshot    ─▶ a test of handshake-user, with --release: the agent's own snapshot of a million flows
//! veth        ─▶ real connections and bulk, beside handshake's release build, bench-ebpf's empty programs, nothing
//! ```
//!
//! A row fails loudly when handshake's counters do not say that its packets went the way that is measured. Whether
//! a goal is met is said and not judged: times are this machine's.

mod counts;
mod cpu;
mod frames;
mod hook;
mod ours;
mod packet_rows;
mod programs;
mod report;
mod snapshot;
mod statistics;
mod veth;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use crate::{build_ebpf, run, shell};
use packet_rows::{CASES, Effort, Objects};
use report::{Machine, Rows};

/// Measure what handshake costs
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Turns of each program in a row; a figure is their median
    #[arg(long, value_name = "N", default_value_t = 15, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Packets a turn, of the rows that count packets
    #[arg(long, value_name = "N", default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(1..))]
    repeat: u32,
    /// Measure this BPF object instead of the committed one
    #[arg(long, value_name = "PATH")]
    object: Option<PathBuf>,
    /// Rows, or how their names begin (`tcp4`, `snapshot_1m`, `veth`); without any, all
    #[arg(value_name = "ROW")]
    rows: Vec<String>,
}

/// Runs the verb.
pub(crate) fn run(args: &Args) -> Result<()> {
    args.ensure_known()?;
    ensure!(run::is_privileged(), "the bench loads programs: it needs {}", run::NEEDED);
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

    /// The object that the agent is to be built with, if not the committed one, from wherever cargo works.
    fn embedded(&self) -> Result<Option<PathBuf>> {
        let absolute = |path| std::path::absolute(path).context("find the BPF object");
        self.object.as_ref().map(absolute).transpose()
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
    let objects = objects(args)?;
    for case in cases {
        eprintln!("{} …", case.name);
        let effort = Effort { rounds: args.rounds, repeat: args.repeat };
        rows.packets.push(case.measure(&objects, effort)?);
    }
    Ok(())
}

fn measure_snapshot(args: &Args, rows: &mut Rows) -> Result<()> {
    if args.wants(snapshot::NAME) {
        eprintln!("{} …", snapshot::NAME);
        rows.snapshots.push(snapshot::measure(args.rounds, args.embedded()?.as_deref())?);
    }
    Ok(())
}

fn measure_veth(args: &Args, rows: &mut Rows) -> Result<()> {
    let cases: Vec<_> = veth::CASES.into_iter().filter(|case| args.wants(case.name)).collect();
    if cases.is_empty() {
        return Ok(());
    }
    let others = read(&build_ebpf::build_bench(false)?)?;
    let binary = run::build_with(true, args.embedded()?.as_deref())?;
    for case in cases {
        eprintln!("{} …", case.name);
        rows.veth.push(case.measure(&others, &binary, args.rounds)?);
    }
    Ok(())
}

fn objects(args: &Args) -> Result<Objects> {
    let ours = args.object.clone().unwrap_or_else(|| shell::root().join(handshake_object::OBJECT));
    let others = build_ebpf::build_bench(false)?;
    Ok(Objects { ours: read(&ours)?, others: read(&others)? })
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("read {}", path.display()))
}
