//! Runs the examples unchanged, in a namespace of their own.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context, Result, ensure};
use handshake_lab::{Loopback, process, skip_unless_privileged, skip_without_tool};
use serde_json::Value;

use crate::HANDSHAKE;

fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples").join(name)
}

/// A folder for this test alone; removed on drop.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Result<Self> {
        let path = env::temp_dir().join(format!("hs-example-{}-{name}", std::process::id()));
        fs::create_dir(&path).with_context(|| format!("make {}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Runs `command` with handshake on the PATH, where the examples expect it.
fn run(command: &mut Command) -> Result<Output> {
    let handshake = Path::new(HANDSHAKE).parent().context("the command's folder")?;
    let path = env::var_os("PATH").unwrap_or_default();
    let path = env::join_paths([handshake.to_owned()].into_iter().chain(env::split_paths(&path)))?;
    process::output(command.env("PATH", path))
}

/// Like [`run`], but runs again if the first run was contended: a record can stay locked for too long when
/// the host of a virtual machine takes a CPU away.
fn run_uncontended(mut command: impl FnMut() -> Command) -> Result<Output> {
    let is_contended =
        |output: &Output| String::from_utf8_lossy(&output.stderr).contains("contended segment");
    let first = run(&mut command())?;
    if is_contended(&first) { run(&mut command()) } else { Ok(first) }
}

/// wrk's output is on stdout; the report and the expectations are on stderr.
#[test]
fn wrk_passes_its_expectations() -> Result<()> {
    if skip_unless_privileged() || skip_without_tool("wrk") || skip_without_tool("python3") {
        return Ok(());
    }
    let lo = Loopback::new()?;
    let output = run_uncontended(|| lo.host.command(example("wrk.sh")))?;
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.code() == Some(0), "{}\n{stdout}\n{stderr}", output.status);
    ensure!(stdout.contains("Requests/sec:"), "{stdout}");
    ensure!(stderr.contains("completed >= 100"), "{stderr}");
    Ok(())
}

/// Without a listener the expectation on times has no sample and is inconclusive, which takes precedence over
/// a failed one.
#[test]
fn wrk_on_a_closed_port_is_inconclusive() -> Result<()> {
    if skip_unless_privileged() || skip_without_tool("wrk") {
        return Ok(());
    }
    let lo = Loopback::new()?;
    let mut command = lo.host.command(example("wrk.sh"));
    let output = run(command.args(["http://127.0.0.1:8080/", "lo"]))?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.code() == Some(3) && stderr.contains("FAILED completed >= 100"), "{output:?}");
    Ok(())
}

/// Runs the load step of the job's file; no sudo is needed here.
#[test]
fn the_ci_job_step_passes_and_writes_its_report() -> Result<()> {
    if skip_unless_privileged() || skip_without_tool("python3") || skip_without_tool("curl") {
        return Ok(());
    }
    let lo = Loopback::new()?;
    let folder = Folder::new("ci")?;
    let script = step(&fs::read_to_string(example("load-test.yml"))?, "Load test")?;
    let output = run_uncontended(|| {
        let mut command = lo.host.command("bash");
        command.args(["-e", "-c", &script]).current_dir(&folder.0).env("SUDO", "");
        command
    })?;
    ensure!(output.status.code() == Some(0), "{output:?}");
    let report: Value = serde_json::from_str(&fs::read_to_string(folder.0.join("report.json"))?)?;
    ensure!(report["tcp"]["completed"] == 200 && report["exact"] == true, "{report}");
    Ok(())
}

/// The queue of a listener that accepts none takes 101 of 200, as the README shows.
#[test]
fn a_full_queue_fails_the_gate() -> Result<()> {
    if skip_unless_privileged() || skip_without_tool("python3") {
        return Ok(());
    }
    let lo = Loopback::new()?;
    let output = run_uncontended(|| {
        let mut command = lo.host.command(HANDSHAKE);
        command.args(["check", "-i", "lo", "--expect", "completed / attempts >= 99.9%", "--"]);
        command.arg(example("full-queue.py"));
        command
    })?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.code() == Some(1) && stderr.contains("50.5 % (101 / 200)"), "{output:?}");
    Ok(())
}

/// The script of the step with this name: the indented block after its `run: |`.
fn step(job: &str, name: &str) -> Result<String> {
    let indent = |line: &str| line.len() - line.trim_start().len();
    let mut lines = job.lines().skip_while(|line| line.trim() != format!("- name: {name}"));
    let run = lines.find(|line| line.trim() == "run: |").context("no such step")?;
    let block: Vec<&str> = lines.take_while(|line| line.is_empty() || indent(line) > indent(run)).collect();
    ensure!(!block.is_empty(), "the step is empty");
    let margin = indent(block[0]);
    Ok(block.iter().map(|line| line.get(margin..).unwrap_or_default()).collect::<Vec<_>>().join("\n"))
}
