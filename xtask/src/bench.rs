//! `cargo xtask bench`: builds the programs that the bench measures, and runs the bench.

use anyhow::{Result, ensure};

use crate::{build_ebpf, run, shell};

/// Measure the cost of handshake
#[derive(clap::Args)]
#[command(disable_help_flag = true)]
pub(crate) struct Args {
    /// Rows and options of the bench: `--help` lists them
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGS")]
    arguments: Vec<String>,
}

/// Runs the verb.
pub(crate) fn run(args: &Args) -> Result<()> {
    let mut command = shell::cargo("run");
    command.args(["--quiet", "--release", "--package", "handshake-bench", "--"]);
    if !args.arguments.iter().any(|argument| argument == "--help" || argument == "-h") {
        ensure!(run::is_privileged(), "the bench loads programs: it needs {}", run::NEEDED);
        command.arg("--programs").arg(build_ebpf::build_bench(false)?);
        command.arg("--handshake").arg(run::build(true)?);
    }
    shell::run(command.args(&args.arguments))
}
