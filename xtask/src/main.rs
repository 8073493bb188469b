//! What a person working on handshake runs: `cargo xtask VERB`.

mod bench;
mod build_ebpf;
mod demo;
mod fuzz;
mod kernels;
mod lint;
mod packages;
mod raise;
mod run;
mod screenshot;
mod shell;
mod stamp;
mod test;
mod toolchain;

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;
use xtask::lab::privilege;
use xtask::load;

/// What a person working on handshake runs
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
enum Cli {
    Bench(bench::Args),
    BuildEbpf(build_ebpf::Args),
    Demo(demo::Args),
    Fuzz(fuzz::Args),
    Kernels(kernels::Args),
    Lint(lint::Args),
    Load(load::Args),
    Run(run::Args),
    Screenshot(screenshot::Args),
    Test(test::Args),
}

fn main() -> ExitCode {
    let done = |()| ExitCode::SUCCESS;
    let result = match Cli::parse() {
        Cli::Bench(args) => bench::run(&args).map(done),
        Cli::BuildEbpf(args) => build_ebpf::run(&args).map(done),
        Cli::Demo(args) => demo::run(&args),
        Cli::Fuzz(args) => fuzz::run(&args).map(done),
        Cli::Kernels(args) => kernels::run(&args).map(done),
        Cli::Lint(args) => lint::run(&args).map(done),
        Cli::Load(args) => load(&args),
        Cli::Run(args) => run::run(&args).map(done),
        Cli::Screenshot(args) => screenshot::run(&args).map(done),
        Cli::Test(args) => test::run(&args),
    };
    result.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}

/// Loads with handshake as it was built by whoever runs us, through sudo where that is needed.
fn load(args: &load::Args) -> Result<ExitCode> {
    if args.lists()? {
        return Ok(ExitCode::SUCCESS);
    }
    let Some(binary) = args.binary() else {
        let binary = run::build(false)?;
        let missing = privilege::missing();
        if !missing.is_empty() && raise::is_possible() {
            return raise::raise(&binary, &missing);
        }
        return load::run(args, &binary);
    };
    load::run(args, binary)
}
