//! `cargo xtask bench`: builds what the bench measures, and runs the bench.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};

use crate::{build_ebpf, run, shell};

/// Measure what handshake costs
#[derive(clap::Args)]
#[command(disable_help_flag = true)]
pub(crate) struct Args {
    /// Measure this BPF object instead of the committed one
    #[arg(long, value_name = "PATH")]
    object: Option<PathBuf>,
    /// Rows and options of the bench: `--help` lists them
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGS")]
    arguments: Vec<String>,
}

/// Runs the verb.
pub(crate) fn run(args: &Args) -> Result<()> {
    let mut command = shell::cargo("run");
    command.args(["--quiet", "--release", "--package", "handshake-bench", "--"]);
    let asks_for_help = args.arguments.iter().any(|argument| argument == "--help" || argument == "-h");
    if !asks_for_help {
        ensure!(run::is_privileged(), "the bench loads programs: it needs {}", run::NEEDED);
        let embedded = args.object.as_ref().map(std::path::absolute).transpose();
        let embedded = embedded.context("find the BPF object")?;
        command.arg("--programs").arg(build_ebpf::build_bench(false)?);
        command.arg("--handshake").arg(run::build_with(true, embedded.as_deref())?);
        let object = embedded.unwrap_or_else(|| shell::root().join(handshake_object::OBJECT));
        command.arg("--object").arg(object);
    }
    shell::run(command.args(&args.arguments))
}
