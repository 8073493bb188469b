//! `handshake replay`: a capture by tcpdump gives the figures of the live run.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use handshake_lab::agent::AgentOutcome;
use handshake_lab::tap::{Dump, DumpFile};
use handshake_lab::topology::DEVICE;
use handshake_lab::{FAMILIES, skip_unless_privileged, skip_without_tool};
use serde_json::Value;

use crate::HANDSHAKE;
use crate::books::{Figures, check_at_rest, figures, without};
use crate::error::Scratch;
use crate::network::{TIMEOUT, scratch, segment};
use crate::scenario::{Kept, SCENARIOS};

/// Runs all scenarios, watched live and captured.
fn recorded() -> Result<(Value, DumpFile)> {
    let network = segment()?;
    let mut agent = network.watch(&[])?;
    let dump = Dump::start(network.host(), DEVICE, &scratch("recorded.pcap"))?;
    let mut all: Vec<Kept> = Vec::new();
    for scenario in SCENARIOS {
        for family in FAMILIES {
            all.push((scenario.run)(&network.path(family)).context(scenario.name)?);
        }
    }
    drop(all);
    let seen = |report: &Value| total().into_iter().all(|(path, count)| figures(report)[path] == count);
    agent.await_report(TIMEOUT, seen).with_context(|| format!("expected {:?}", total()))?;
    let written = dump.stop()?;
    Ok((agent.stop()?.report()?, written))
}

/// The sum of all scenarios over both families.
fn total() -> BTreeMap<&'static str, i64> {
    let mut total = BTreeMap::new();
    for (path, count) in SCENARIOS.iter().flat_map(|scenario| scenario.adds) {
        *total.entry(*path).or_default() += 2 * count;
    }
    total
}

/// Runs `handshake replay -o json` on a file, or on `input` from stdin.
fn replay(file: &str, input: Option<&[u8]>) -> Result<AgentOutcome> {
    let mut command = Command::new(HANDSHAKE);
    command.args(["replay", file, "-o", "json", "--half-open-after", "200ms"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().context("start handshake")?;
    let mut stdin = child.stdin.take().context("stdin")?;
    stdin.write_all(input.unwrap_or_default()).context("write to stdin")?;
    drop(stdin);
    let output = child.wait_with_output().context("wait for handshake")?;
    let text = |bytes| String::from_utf8(bytes).context("not UTF-8");
    Ok(AgentOutcome { status: output.status, stdout: text(output.stdout)?, stderr: text(output.stderr)? })
}

/// The figures without those that depend on the clock: a capture ends before its last datagrams reach T1.
fn books(report: &Value) -> Figures {
    let mut books = figures(report);
    let waiting = books["udp.pending"] + books["udp.unanswered"];
    books.insert("udp.waiting".to_owned(), waiting);
    without(books, &["tcp.late", "udp.pending", "udp.unanswered"])
}

#[test]
fn a_replay_gives_the_figures_of_the_live_run() -> Result<()> {
    if skip_unless_privileged() || skip_without_tool("tcpdump") {
        return Ok(());
    }
    let (live, written) = recorded()?;
    let bytes = fs::read(written.path())?;
    let file = written.path().to_str().context("a path")?;
    let rows = [("file", replay(file, None)?), ("stdin", replay("-", Some(&bytes))?)];
    for (what, outcome) in &rows {
        ensure!(outcome.status.success() && outcome.stderr.is_empty(), "{what}: {outcome:?}");
        let report = outcome.report()?;
        check_at_rest(&report)?;
        ensure!(books(&report) == books(&live), "{what}: {:?}\nlive: {:?}", books(&report), books(&live));
        ensure!(report["packets"] == live["packets"], "{what}: {report}\nlive: {live}");
        ensure!(report["source"]["kind"] == "capture" && report["exact"] == true, "{report}");
    }
    cut_short(&bytes)
}

/// A cut capture is read up to the cut, with a warning of one line, and the report is not exact.
fn cut_short(bytes: &[u8]) -> Result<()> {
    let cut = Scratch::new("cut.pcap", &bytes[..bytes.len() - 5])?;
    for outcome in [replay(cut.path(), None)?, replay("-", Some(&bytes[..bytes.len() - 5]))?] {
        ensure!(outcome.status.success() && outcome.stderr.lines().count() == 1, "{outcome:?}");
        let report = outcome.report()?;
        check_at_rest(&report)?;
        ensure!(report["exact"] == false && report["source"]["truncated"] == true, "{report}");
        ensure!(report["tcp"]["attempts"].as_u64().is_some_and(|attempts| attempts > 50), "{report}");
    }
    Ok(())
}
