//! What a person working on handshake runs: `cargo xtask VERB`.

mod build_ebpf;
mod packages;
mod shell;
mod stamp;
mod toolchain;

use clap::Parser;

/// What a person working on handshake runs
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
enum Cli {
    BuildEbpf(build_ebpf::Args),
}

fn main() -> anyhow::Result<()> {
    match Cli::parse() {
        Cli::BuildEbpf(args) => build_ebpf::run(&args),
    }
}
