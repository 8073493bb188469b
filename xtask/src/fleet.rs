//! `cargo xtask fleet`: a thousand nodes behind one Prometheus with the rules of the repository, three of
//! them real; an incident that is planted, and exactly one alert. Then the rows of as many nodes in
//! ClickHouse.
//!  All traffic stays inside the namespaces made here, which are removed at the end, and so are the
//! servers' data.
//! The server of ClickHouse is unpacked below `target`, and not installed: its package would start it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use handshake_lab::fleet::{self, Programs};

use crate::{packages, raise, shell};

/// Let a thousand nodes be scraped, plant an incident, and demand exactly one alert; count their rows
#[derive(clap::Args)]
pub(crate) struct Args {
    /// First install what this takes, and unpack a server of ClickHouse below target
    #[arg(long)]
    setup: bool,
    /// Nodes, three of them real
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u16).range(4..))]
    nodes: u16,
    /// The handshake binary, already built; the verb also passes it to itself through sudo
    #[arg(long, value_name = "PATH")]
    binary: Option<PathBuf>,
}

/// Runs the verb with handshake as built for the caller, through sudo where that is needed.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    if args.setup {
        packages::install_for_fleet()?;
        unpack()?;
    }
    if args.binary.is_none() {
        let words = ["--release", "--package", "handshake-export", "--example", "made_nodes"];
        shell::run(shell::cargo("build").args(words))?;
    }
    raise::with_binary(args.binary.as_deref(), false, |binary| play(args, binary))
}

fn play(args: &Args, binary: &Path) -> Result<ExitCode> {
    let nodes = args.nodes;
    let clickhouse = clickhouse();
    ensure!(clickhouse.join("usr").is_dir(), "no ClickHouse in {}: --setup unpacks it", clickhouse.display());
    let programs = Programs {
        handshake: binary,
        made_nodes: &shell::target().join("release/examples/made_nodes"),
        rules: &shell::root().join("packaging/prometheus/rules.yml"),
    };
    let outcome = fleet::incident(programs, nodes, &mut |line| println!("{line}"))?;
    println!("{outcome}");
    let (rows, took) = fleet::rows(binary, &clickhouse, usize::from(nodes))?;
    println!("{rows} rows of {nodes} nodes are in ClickHouse after {took:.1?}, verdict by verdict");
    ensure!(outcome.share <= fleet::SHARE, "Prometheus took more than {} of one processor", fleet::SHARE);
    Ok(ExitCode::SUCCESS)
}

/// The folder with the files of Debian's packages.
fn clickhouse() -> PathBuf {
    shell::root().join("target/clickhouse")
}

/// Downloads the packages that the machine lacks, and unpacks their files.
fn unpack() -> Result<()> {
    let (folder, archives) = (clickhouse(), shell::root().join("target/clickhouse-archives"));
    if folder.join("usr").is_dir() {
        return Ok(());
    }
    fs::create_dir_all(archives.join("partial")).with_context(|| format!("make {}", archives.display()))?;
    let get = "install -y --no-install-recommends --download-only -o Dir::Cache::archives=";
    shell::run(&mut shell::line(&packages::apt_get(&format!(
        "{get}{} clickhouse-server",
        archives.display()
    ))))?;
    for entry in fs::read_dir(&archives)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "deb") {
            shell::run(shell::pristine("dpkg-deb").arg("--extract").arg(&path).arg(&folder))?;
        }
    }
    Ok(())
}
