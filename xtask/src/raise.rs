//! Restarts this program through sudo. cargo runs unprivileged; only the steps that make namespaces or load
//! programs need more.

use std::env;
use std::io::{self, IsTerminal};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, ensure};
use handshake_lab::{interrupt, privilege};

use crate::{run, shell};

/// Plays a verb of the lab with `binary`, or without one with handshake as it is built for the caller, with
/// optimisation where `release` says so; through sudo where privileges are missing and it can ask for them. A signal ends it once its namespaces are removed.
///
/// # Errors
///
/// Privileges are missing, and those of the verb.
pub(crate) fn with_binary(
    binary: Option<&Path>,
    release: bool,
    play: impl FnOnce(&Path) -> Result<ExitCode>,
) -> Result<ExitCode> {
    let missing = privilege::missing();
    let built = match binary {
        Some(binary) => binary.to_owned(),
        None => {
            let built = run::build(release)?;
            if !missing.is_empty() && is_possible() {
                return raise(&built, &missing);
            }
            built
        }
    };
    ensure!(missing.is_empty(), "namespaces and programs need {}: run it as root", missing.join(", "));
    interrupt::catch();
    play(&built)
}

/// Is sudo usable: without a password, or with a terminal to type one into?
pub(crate) fn is_possible() -> bool {
    let silent = || shell::output(Command::new("sudo").args(["-n", "true"])).is_some();
    !shell::is_root() && shell::find("sudo").is_some() && (silent() || io::stdin().is_terminal())
}

/// Replaces this process by itself under sudo, with the same arguments and `--binary`, so that root does not
/// build handshake again. `missing` names the missing capabilities, for the message.
pub(crate) fn raise(binary: &Path, missing: &[&str]) -> Result<ExitCode> {
    eprintln!("restarting through sudo for {}", missing.join(", "));
    let program = env::current_exe().context("find the path of this program")?;
    let words = env::args_os().skip(1);
    let error = Command::new("sudo").arg("--").arg(program).args(words).arg("--binary").arg(binary).exec();
    Err(error).context("start sudo")
}
