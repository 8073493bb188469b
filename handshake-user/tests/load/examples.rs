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
fn wrk_on_a_closed_port_fails() -> Result<()> {
    if skip_unless_privileged() || skip_without_tool("wrk") {
        return Ok(());
    }
    let lo = Loopback::new()?;
    let mut command = lo.host.command(example("wrk.sh"));
    let output = run(command.args(["http://127.0.0.1:8080/", "lo"]))?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.code() == Some(1) && stderr.contains("FAILED completed >= 100"), "{output:?}");
    Ok(())
}

/// Runs the steps of the job's file; no sudo is needed here.
#[test]
fn the_ci_job_passes_and_writes_its_reports() -> Result<()> {
    if skip_unless_privileged() || skip_without_tool("python3") || skip_without_tool("curl") {
        return Ok(());
    }
    let lo = Loopback::new()?;
    let folder = Folder::new("ci")?;
    let (file, summary) = (|name: &str| folder.0.join(name), folder.0.join("summary.md"));
    fs::create_dir(file("examples"))?;
    fs::copy(example("gate.toml"), file("examples/gate.toml"))?;
    let job = fs::read_to_string(example("load-test.yml"))?;
    let step = |name: &str| {
        let script = step(&job, name)?;
        let output = run_uncontended(|| {
            let mut command = lo.host.command("bash");
            command.args(["-e", "-c", &script]).current_dir(&folder.0).env("SUDO", "");
            command.env("GITHUB_ACTIONS", "true").env("GITHUB_STEP_SUMMARY", &summary);
            command
        })?;
        ensure!(output.status.code() == Some(0), "{name}: {output:?}");
        Ok(output)
    };
    step("Load test")?;
    let report: Value = serde_json::from_str(&fs::read_to_string(file("report.json"))?)?;
    ensure!(report["tcp"]["completed"] == 200 && report["exact"] == true, "{report}");
    // The first run has nothing to compare with, the second one has.
    step("Compare with main")?;
    fs::copy(file("report.json"), file("main.json"))?;
    let output = step("Compare with main")?;
    let shown = String::from_utf8_lossy(&output.stdout);
    ensure!(shown.ends_with("MET 2 of 2 expectations (exit 0)\n"), "{shown}");
    for (name, tests) in [("check.xml", "4"), ("diff.xml", "2")] {
        let text = fs::read_to_string(file(name))?;
        let suites = roxmltree::Document::parse(&text)?;
        let suites = suites.root_element();
        let counts = ["tests", "failures", "errors"].map(|count| suites.attribute(count));
        ensure!(counts == [Some(tests), Some("0"), Some("0")], "{text}");
    }
    let summary = fs::read_to_string(&summary)?;
    ensure!(summary.matches("### handshake check: MET 3 of 3 expectations").count() >= 1, "{summary}");
    ensure!(summary.matches("### handshake diff: MET 2 of 2 expectations").count() == 2, "{summary}");
    Ok(())
}

/// Of two reports, one of a load that fails: what became worse stands first, and the change fails the gate.
#[test]
fn a_load_that_became_worse_fails_the_comparison() -> Result<()> {
    if skip_unless_privileged() || skip_without_tool("python3") {
        return Ok(());
    }
    let lo = Loopback::new()?;
    let folder = Folder::new("diff")?;
    let (good, bad) = (folder.0.join("good.json"), folder.0.join("bad.json"));
    let healthy = "import socket; s = socket.create_server(('127.0.0.1', 8081)); \
                   [socket.create_connection(('127.0.0.1', 8081)) for n in range(9)]";
    let full_queue = example("full-queue.py").display().to_string();
    for (path, command) in [(&good, &["python3", "-c", healthy][..]), (&bad, &[&full_queue])] {
        let output = run_uncontended(|| {
            let mut check = lo.host.command(HANDSHAKE);
            check.args(["check", "-i", "lo", "--report"]).arg(path).arg("--").args(command);
            check
        })?;
        ensure!(output.status.code() == Some(0), "{output:?}");
    }
    let mut diff = Command::new(HANDSHAKE);
    diff.arg("diff").args([&good, &bad]).args(["--expect", "change(completed / attempts) >= -1%"]);
    let output = process::output(diff.args(["--expect", "change(p99(connect)) <= 20%"]))?;
    let shown = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.code() == Some(1), "{output:?}");
    let worst = shown.lines().nth(3).unwrap_or_default();
    ensure!(worst.starts_with("completed / attempts") && worst.contains("-49.5 points   worse"), "{shown}");
    ensure!(shown.ends_with("FAILED 2 of 2 expectations (exit 1)\n"), "{shown}");
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

/// What README.md and docs/check.md show of that load is what their commands print, but for the numbers.
#[test]
fn the_documented_gate_prints_what_is_documented() -> Result<()> {
    if skip_unless_privileged() || skip_without_tool("python3") {
        return Ok(());
    }
    let lo = Loopback::new()?;
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    for page in ["README.md", "docs/check.md"] {
        let text = fs::read_to_string(root.join(page))?;
        let (command, documented) = sample(&text, "full-queue.py").context("no such sample")?;
        let output = run(lo.host.command("sh").args(["-c", &command]).current_dir(&root))?;
        let printed = String::from_utf8_lossy(&output.stdout);
        ensure!(numberless(&printed) == numberless(&documented), "{page}: {printed}");
    }
    Ok(())
}

/// The command of a sample that contains `word`, and what it prints.
fn sample(text: &str, word: &str) -> Option<(String, String)> {
    let block = text.split("```\n").find(|block| block.starts_with("$ ") && block.contains(word))?;
    let mut lines = block.lines();
    let mut command = lines.next()?.strip_prefix("$ ")?.to_owned();
    while command.ends_with('|') {
        command.push_str(lines.next()?);
    }
    Some((command, lines.fold(String::new(), |all, line| all + line + "\n")))
}

fn numberless(text: &str) -> String {
    text.split(|one: char| one.is_ascii_digit()).filter(|part| !part.is_empty()).collect::<Vec<_>>().join("#")
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
