//! What a gate is judged by and told to: percentiles over all attempts, files of expectations, JUnit, GitHub,
//! and the comparison of two reports.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink};

use anyhow::{Context, Result, ensure};
use handshake_lab::tcp::{self, Attempts, Listener};
use handshake_lab::{Family, process, skip_unless_privileged};
use serde_json::json;

use crate::HANDSHAKE;
use crate::check::{Check, OBEDIENT, ensure_code, expected};
use crate::error::{Scratch, check_error, run};
use crate::network::{loopback, segment};
use crate::report_file::{CALLER, Folder, SUDO};

/// Six of ten attempts get no answer: the percentile of the other four says nothing of them.
#[test]
fn percentiles_count_those_who_never_connected() -> Result<()> {
    if skip_unless_privileged() {
        return Ok(());
    }
    let network = segment()?;
    let path = network.path(Family::V4);
    let (listener, deaf) = (Listener::new(&path, 0, 16)?, Listener::deaf(&path, 0)?);
    let words = expected(&["p99(connect) < 100ms", "p99(connect of completed) < 10s", "max(connect) < 1h"]);
    let check = Check::start(&network, &words, OBEDIENT)?;
    let open = (tcp::connect_accept(&path, &listener, 4)?, Attempts::start(&path, deaf.address(), 6)?);
    let outcome = check.finish()?;
    // Their SYNs would come again in the next check.
    drop(open);
    let parts = [
        "FAILED p99(connect) < 100ms: > ",
        ": 6 of 10 attempts have not connected\n",
        "met p99(connect of completed) < 10s: ",
        ", of the 4 of 10 that connected\n",
        "INCONCLUSIVE max(connect) < 1h: > ",
    ];
    ensure_code(&outcome, 3, &parts)?;
    let last = outcome.stderr.lines().last();
    ensure!(last == Some("INCONCLUSIVE 1 and FAILED 1 of 3 expectations (exit 3)"), "{outcome:?}");

    let check = Check::start(&network, &expected(&["p50(connect) < 1h"]), OBEDIENT)?;
    tcp::refused(&path, 3)?;
    let said = "FAILED p50(connect) < 1h: never: 3 of 3 attempts have not connected\n";
    ensure_code(&check.finish()?, 1, &[said])
}

/// `check -i lo --expect 'attempts == 5' WORDS -- true` in a job of GitHub Actions; returns its exit code and
/// stderr.
fn in_a_job(
    host: &handshake_lab::Namespace,
    summary: &std::path::Path,
    words: &[&str],
) -> Result<(Option<i32>, String)> {
    let mut command = host.command(HANDSHAKE);
    command.args(["check", "-i", "lo", "--max-flows", "1000", "--allow-nothing"]);
    command.args(["--expect", "attempts == 5"]).args(words).args(["--", "true"]);
    command.envs(SUDO.iter().copied()).env("GITHUB_ACTIONS", "true").env("GITHUB_STEP_SUMMARY", summary);
    let output = process::output(&mut command)?;
    Ok((output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned()))
}

/// JUnit's file and the step's summary are the calling user's, like the report.
#[test]
fn results_are_written_as_the_caller() -> Result<()> {
    if skip_unless_privileged() {
        return Ok(());
    }
    let network = loopback()?;
    let (theirs, ours) = (Folder::of_the_caller()?, Folder::new()?);
    let (report, junit, summary) =
        (theirs.file("report.json"), theirs.file("junit.xml"), theirs.file("summary.md"));
    fs::write(&summary, "earlier\n")?;
    chown(&summary, Some(CALLER), Some(CALLER))?;
    let (report_path, junit_path) =
        (report.to_str().context("not UTF-8")?, junit.to_str().context("not UTF-8")?);
    let files = ["--report", report_path, "--junit", junit_path];
    let (code, said) = in_a_job(network.host(), &summary, &files)?;
    ensure!(code == Some(1), "{code:?} {said}");
    ensure!(
        said.lines().any(|line| line.starts_with("::error title=attempts == 5::0%0Aattempts: ")),
        "{said}"
    );
    ensure!(said.ends_with("\nFAILED 1 of 1 expectation (exit 1)\n"), "{said}");
    for path in [&report, &junit, &summary] {
        ensure!(fs::metadata(path)?.uid() == CALLER, "{}", path.display());
    }
    let text = fs::read_to_string(&junit)?;
    let document = roxmltree::Document::parse(&text)?;
    let failures: Vec<_> = document.descendants().filter(|node| node.has_tag_name("failure")).collect();
    ensure!(failures.len() == 1 && failures[0].attribute("message") == Some("0"), "{text}");
    let shown = fs::read_to_string(&summary)?;
    ensure!(shown.starts_with("earlier\n### handshake check: FAILED 1 of 1 expectation"), "{shown}");

    // No file is written through a link. A summary is not the result: it is told, and left out.
    let victim = ours.file("victim");
    fs::write(&victim, "precious")?;
    for link in [&summary, &junit] {
        fs::remove_file(link)?;
        symlink(&victim, link)?;
    }
    let (code, said) = in_a_job(network.host(), &summary, &["--report", report_path])?;
    ensure!(code == Some(1) && said.contains("no summary: GITHUB_STEP_SUMMARY"), "{code:?} {said}");
    let (code, said) = in_a_job(network.host(), &summary, &["--junit", junit_path])?;
    ensure!(code == Some(2) && said.contains("--junit") && said.contains("symbolic link"), "{code:?} {said}");
    ensure!(!said.contains("attached"), "{said}");
    ensure!(fs::read_to_string(&victim)? == "precious");
    Ok(())
}

/// Expectations of a file and of the command line are one gate.
#[test]
fn expectations_come_from_files_too() -> Result<()> {
    let wrong = Scratch::new("wrong.toml", b"expect = ['half_open == 0']\n\nexpected = []\n")?;
    let outcome = run(&["check", "-i", "lo", "--expect-file", wrong.path(), "--", "true"])?;
    check_error(&outcome, 2, &["wrong.toml, line 3: unknown field `expected`"])?;
    let endless = Scratch::new("endless.toml", b"expect = ['half_open == 0']\n")?;
    let outcome = run(&["check", "-i", "lo", "--expect-file", endless.path()])?;
    check_error(&outcome, 2, &["a command after --"])?;
    if skip_unless_privileged() {
        return Ok(());
    }
    let network = loopback()?;
    let path = network.path(Family::V4);
    let listener = Listener::new(&path, 0, 16)?;
    let file =
        Scratch::new("gate.toml", b"expect = ['completed == 3; refused == 0']\nallow-nothing = true\n")?;
    let words = [&["--expect-file", file.path()][..], &expected(&["half_open == 0"])].concat();
    let check = Check::start(&network, &words, OBEDIENT)?;
    let _open = tcp::connect_accept(&path, &listener, 3)?;
    let outcome = check.finish()?;
    ensure_code(&outcome, 0, &["met completed == 3: 3", "MET 3 of 3 expectations (exit 0)"])?;

    // It is read as the user who called sudo, and no message shows what that user may not read.
    let ours = Folder::new()?;
    let secret = ours.file("secret");
    fs::write(&secret, "root:secret\n")?;
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600))?;
    let mut command = network.host().command(HANDSHAKE);
    command.args(["check", "-i", "lo", "--expect-file"]).arg(&secret).args(["--", "true"]);
    let output = process::output(command.envs(SUDO.iter().copied()))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.code() == Some(2) && said.contains("Permission denied"), "{said}");
    ensure!(!said.contains("root:secret"), "{said}");
    Ok(())
}

/// Two reports are compared without privileges, and what cannot be compared is told.
#[test]
fn reports_are_compared() -> Result<()> {
    let report = |exact: bool, refused: u64| {
        let tcp = json!({"attempts": 100, "completed": 100 - refused, "refused": refused});
        let report = json!({
            "type": "report", "schema": 1, "exact": exact, "from": "2026-03-01T12:03:41.000000000Z",
            "to": "2026-03-01T12:03:51.000000000Z", "tcp": tcp, "udp": {"flows": 0}, "latency": {}, "services": [],
        });
        format!("{{\"type\":\"flow\"}}\n{report}\n")
    };
    let old = Scratch::new("old.jsonl", report(true, 0).as_bytes())?;
    let new = Scratch::new("new.jsonl", report(true, 4).as_bytes())?;
    let inexact = Scratch::new("inexact.jsonl", report(false, 0).as_bytes())?;
    let text = Scratch::new("text", b"handshake \xc2\xb7 eth0\n")?;

    let outcome = run(&["diff", old.path(), new.path()])?;
    let row = outcome.stdout.lines().nth(3).unwrap_or_default();
    let cells: Vec<&str> = row.split_whitespace().collect();
    let expected = ["completed", "/", "attempts", "100.0", "%", "96.0", "%", "-4.0", "points", "worse"];
    ensure!(outcome.status.code() == Some(0) && cells == expected, "{outcome:?}");

    let judged = |new: &Scratch, text: &str| run(&["diff", old.path(), new.path(), "--expect", text]);
    for (new, text, code, last) in [
        (&new, "change(completed / attempts) >= -4%", 0, "MET 1 of 1 expectation (exit 0)"),
        (&new, "change(completed / attempts) >= -3%", 1, "FAILED 1 of 1 expectation (exit 1)"),
        (&inexact, "change(completed) >= -3%", 3, "INCONCLUSIVE 1 of 1 expectation (exit 3)"),
    ] {
        let outcome = judged(new, text)?;
        ensure!(outcome.status.code() == Some(code), "{text}: {outcome:?}");
        ensure!(outcome.stdout.lines().last() == Some(last), "{text}: {outcome:?}");
    }
    check_error(&judged(&text, "attempts == 1")?, 2, &["it is no JSON"])?;
    check_error(
        &run(&["diff", old.path(), "/nonexistent/new.json"])?,
        2,
        &["/nonexistent/new.json: No such"],
    )?;

    let outcome = run(&["diff", old.path(), new.path(), "-o", "json"])?;
    let object: serde_json::Value = serde_json::from_str(&outcome.stdout)?;
    ensure!(object["type"] == "diff" && object["changes"][0]["worse"] == true, "{object}");
    Ok(())
}
