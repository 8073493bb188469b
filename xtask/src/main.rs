//! What a person working on handshake runs: `cargo xtask VERB`.

mod bench;
mod build_ebpf;
mod demo;
mod fuzz;
mod kernels;
mod lint;
mod load;
mod packages;
mod raise;
mod run;
mod screenshot;
mod shell;
mod test;
mod toolchain;

use std::process::ExitCode;

use clap::Parser;

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
        Cli::Load(args) => load::run(&args),
        Cli::Run(args) => run::run(&args).map(done),
        Cli::Screenshot(args) => screenshot::run(&args).map(done),
        Cli::Test(args) => test::run(&args),
    };
    result.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}
