//! Starts this program again through sudo: cargo has run as you, and only what makes namespaces needs more.

use std::env;
use std::io::{self, IsTerminal};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};

use crate::shell;

/// Is there a sudo that needs no password, or someone to type it?
pub(crate) fn is_possible() -> bool {
    let silent = || shell::output(Command::new("sudo").args(["-n", "true"])).is_some();
    !shell::is_root() && shell::find("sudo").is_some() && (silent() || io::stdin().is_terminal())
}

/// Becomes this program with the same words, for the capabilities that are missing; handshake is built already.
pub(crate) fn raise(binary: &Path, missing: &[&str]) -> Result<ExitCode> {
    eprintln!("through sudo, for {}", missing.join(", "));
    let ourselves = env::current_exe().context("find our own program")?;
    let words = env::args_os().skip(1);
    let error = Command::new("sudo").arg("--").arg(ourselves).args(words).arg("--binary").arg(binary).exec();
    Err(error).context("start sudo")
}
