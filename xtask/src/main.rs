//! The development tasks of handshake: `cargo xtask VERB`.

mod architecture;
mod bench;
mod both_ends;
mod build_ebpf;
mod churn;
mod collectors;
mod copy;
mod demo;
mod duel;
mod fleet;
mod fuzz;
mod helm;
mod kernels;
mod lint;
mod load;
mod package;
mod packages;
mod raise;
mod run;
mod screenshot;
mod shell;
mod test;
mod toolchain;
mod touches;
mod wheels;
mod why;

use std::process::ExitCode;

use clap::Parser;

/// Development tasks of handshake
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
enum Verb {
    Bench(bench::Args),
    BothEnds(both_ends::Args),
    BuildEbpf(build_ebpf::Args),
    Churn(churn::Args),
    Collectors(collectors::Args),
    Why(why::Args),
    Demo(demo::Args),
    Duel(duel::Args),
    Fleet(fleet::Args),
    Fuzz(fuzz::Args),
    Kernels(kernels::Args),
    Lint(lint::Args),
    Load(load::Args),
    Package(package::Args),
    Run(run::Args),
    Screenshot(screenshot::Args),
    Test(test::Args),
    Touches(touches::Args),
}

fn main() -> ExitCode {
    let done = |()| ExitCode::SUCCESS;
    let result = match Verb::parse() {
        Verb::Bench(args) => bench::run(&args).map(done),
        Verb::BothEnds(args) => both_ends::run(&args),
        Verb::BuildEbpf(args) => build_ebpf::run(&args).map(done),
        Verb::Churn(args) => churn::run(&args),
        Verb::Collectors(args) => collectors::run(&args),
        Verb::Why(args) => why::run(&args),
        Verb::Demo(args) => demo::run(&args),
        Verb::Duel(args) => duel::run(&args),
        Verb::Fleet(args) => fleet::run(&args),
        Verb::Fuzz(args) => fuzz::run(&args).map(done),
        Verb::Kernels(args) => kernels::run(&args).map(done),
        Verb::Lint(args) => lint::run(&args).map(done),
        Verb::Load(args) => load::run(&args),
        Verb::Package(args) => package::run(&args).map(done),
        Verb::Run(args) => run::run(&args).map(done),
        Verb::Screenshot(args) => screenshot::run(&args).map(done),
        Verb::Test(args) => test::run(&args),
        Verb::Touches(args) => touches::run(&args).map(done),
    };
    result.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}
