//! Runs the system's own tools (iproute2, ethtool) and says what they said when they fail.

use std::io::Write;
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, bail};

/// The standard output of `command`, once it has succeeded.
///
/// # Errors
/// It cannot be started, or it fails: then its standard error is the message.
pub(crate) fn run(command: &mut Command) -> Result<String> {
    let shown = format!("{command:?}");
    let output = command.output().with_context(|| format!("run {shown}"))?;
    finish(&shown, output)
}

/// The same, with `input` on its standard input.
pub(crate) fn run_with_input(command: &mut Command, input: &str) -> Result<String> {
    let shown = format!("{command:?}");
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("run {shown}"))?;
    // A command that fails early closes the pipe: its own message says more than ours would.
    let written = child.stdin.take().map(|mut stdin| stdin.write_all(input.as_bytes()));
    let output = child.wait_with_output().with_context(|| format!("wait for {shown}"))?;
    let said = finish(&shown, output).with_context(|| format!("given {input:?}"))?;
    written.transpose().with_context(|| format!("write to {shown}"))?;
    Ok(said)
}

fn finish(shown: &str, output: Output) -> Result<String> {
    if !output.status.success() {
        bail!("{shown}: {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
