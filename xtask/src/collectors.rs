//! `cargo xtask collectors`: what `serve` sends by OTLP, held against what a real collector, a database and
//! the official messages take, and what a collector that was gone missed. Rows of single attempts, held
//! against each other.
//!
//! All traffic stays inside the namespaces made here, which are removed at the end.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context, Result};
use handshake_lab::collectors::{self, Parts};
use handshake_lab::load::parse_duration;

use crate::wheels::Wheels;
use crate::{packages, raise, shell, test};

/// The collector and the modules.
const WHEELS: Wheels = Wheels { list: "xtask/collectors.txt", folder: "target/collectors/python" };
/// The database, and the release of Debian whose version takes OTLP: that of 12 does not.
const DATABASE: &str = "victoria-metrics";
const RELEASE: &str = "sid";

/// Hold what is exported by OTLP against what real receivers take
#[derive(clap::Args)]
pub(crate) struct Args {
    /// First install or download the receivers
    #[arg(long)]
    setup: bool,
    /// How long the collector is gone
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, default_value = "60s")]
    outage: Duration,
    /// The handshake binary, already built; the verb also passes it to itself through sudo
    #[arg(long, value_name = "PATH")]
    binary: Option<PathBuf>,
}

/// Runs the verb with handshake as built for the caller, through sudo where that is needed. Fails if a figure
/// differs.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    if args.setup && args.binary.is_none() {
        set_up()?;
    }
    raise::with_binary(args.binary.as_deref(), false, |binary| play(args, binary))
}

fn play(args: &Args, binary: &Path) -> Result<ExitCode> {
    let python = WHEELS.folder();
    let parts = Parts {
        rotel: Some(python.join("rotel/rotel-agent")).filter(|program| program.is_file()),
        database: Some(folder().join("unpacked/usr/bin").join(DATABASE)).filter(|program| program.is_file()),
        python: vec![python, test::MODULES.folder()],
    };
    let modules = ["opentelemetry.proto.collector.logs.v1", "google.protobuf"];
    if !modules.iter().all(|module| parts.has_module(module)) {
        println!("skipped: needs OpenTelemetry's messages: `cargo xtask collectors --setup` installs them");
        return Ok(ExitCode::SUCCESS);
    }
    let mut skipped = 0;
    let mut say = |line: &str| {
        skipped += u32::from(line.starts_with("skipped: "));
        println!("{line}");
    };
    collectors::figures(binary, &parts, &mut say)?;
    collectors::outage(binary, &parts, args.outage, &mut say)?;
    collectors::rows(binary, &parts, &mut say)?;
    println!("All figures are equal; {skipped} receivers were skipped.");
    Ok(ExitCode::SUCCESS)
}

fn set_up() -> Result<()> {
    packages::install()?;
    test::install_modules()?;
    WHEELS.install()?;
    if let Err(error) = fetch() {
        println!("{DATABASE} cannot be had: {error:#}");
    }
    Ok(())
}

fn folder() -> PathBuf {
    shell::root().join("target/collectors")
}

/// Downloads and unpacks the database, by apt with lists of its own: this machine keeps its own. The mirror
/// is that of this machine.
fn fetch() -> Result<()> {
    let folder = folder();
    if folder.join("unpacked/usr/bin").join(DATABASE).is_file() {
        return Ok(());
    }
    let mut targets = Command::new("apt-get");
    targets.args(["indextargets", "--format", "$(REPO_URI) $(ORIGIN) $(SUITE)", "Created-By: Packages"]);
    let targets = shell::output(&mut targets).context("apt-get indextargets")?;
    let of_release = |line: &str| !line.contains("security") && !line.contains("-updates");
    let mirror = targets.lines().find(|line| line.contains("Debian") && of_release(line));
    let mirror = mirror.and_then(|line| line.split(' ').next()).context("no mirror of Debian")?;
    for part in ["apt/lists/partial", "apt/cache/archives/partial"] {
        fs::create_dir_all(folder.join(part)).with_context(|| format!("make {part}"))?;
    }
    fs::write(folder.join("apt/sources.list"), format!("deb {mirror} {RELEASE} main\n"))?;
    let place = folder.display();
    let apt = format!(
        "apt-get -o Dir::State::lists={place}/apt/lists -o Dir::Cache={place}/apt/cache \
         -o Dir::Etc::sourcelist={place}/apt/sources.list -o Dir::Etc::sourceparts=- -o APT::Sandbox::User="
    );
    let line = format!(
        "cd {place} && rm -rf *.deb unpacked && {apt} update && {apt} download {DATABASE} && \
         dpkg-deb -x {DATABASE}*.deb unpacked && rm -rf apt *.deb"
    );
    shell::run(&mut shell::line(&line))
}
