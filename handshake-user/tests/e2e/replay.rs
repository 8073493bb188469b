//! `handshake replay`: what tcpdump wrote down gives the books that the kernel side gave.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use handshake_lab::agent::Outcome;
use handshake_lab::tap::{Dump, Written};
use handshake_lab::topology::DEVICE;
use handshake_lab::{Family, skip_unless_privileged, skip_without_tool};
use serde_json::Value;

use crate::HANDSHAKE;
use crate::books::{Figures, check_at_rest, figures, without};
use crate::error::Scratch;
use crate::network::{PATIENCE, scratch, segment};
use crate::scenario::{Kept, SCENARIOS};

/// Everything that a scenario does, watched live and written down.
fn recorded() -> Result<(Value, Written)> {
    let network = segment()?;
    let mut agent = network.watch(&[])?;
    let dump = Dump::start(network.host(), DEVICE, &scratch("recorded.pcap"))?;
    let mut all: Vec<Kept> = Vec::new();
    for scenario in SCENARIOS {
        for family in Family::ALL {
            all.push((scenario.run)(&network.path(family)).context(scenario.name)?);
        }
    }
    drop(all);
    let seen = |report: &Value| total().into_iter().all(|(path, count)| figures(report)[path] == count);
    agent.await_report(PATIENCE, seen).with_context(|| format!("expected {:?}", total()))?;
    let written = dump.stop()?;
    Ok((agent.stop()?.report()?, written))
}

/// What all scenarios add up to, over both families.
fn total() -> BTreeMap<&'static str, i64> {
    let mut total = BTreeMap::new();
    for (path, count) in SCENARIOS.iter().flat_map(|scenario| scenario.adds) {
        *total.entry(*path).or_default() += 2 * count;
    }
    total
}

/// `handshake replay -o json` of a file, or of `input` on stdin.
fn replay(file: &str, input: Option<&[u8]>) -> Result<Outcome> {
    let mut command = Command::new(HANDSHAKE);
    command.args(["replay", file, "-o", "json", "--half-open-after", "200ms"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().context("start handshake")?;
    let mut stdin = child.stdin.take().context("stdin")?;
    stdin.write_all(input.unwrap_or_default()).context("write to stdin")?;
    drop(stdin);
    let output = child.wait_with_output().context("wait for handshake")?;
    let text = |bytes| String::from_utf8(bytes).context("not UTF-8");
    Ok(Outcome { status: output.status, stdout: text(output.stdout)?, stderr: text(output.stderr)? })
}

/// Books without what a clock of its own decides: a capture ends before its last datagrams are T1 old.
fn books(report: &Value) -> Figures {
    let mut books = figures(report);
    let waiting = books["udp.pending"] + books["udp.unanswered"];
    books.insert("udp.waiting".to_owned(), waiting);
    without(books, &["tcp.late", "udp.pending", "udp.unanswered"])
}

#[test]
fn a_replay_gives_the_books_of_the_live_run() -> Result<()> {
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

/// Up to the cut, with a warning of one line.
fn cut_short(bytes: &[u8]) -> Result<()> {
    let cut = Scratch::new("cut.pcap", &bytes[..bytes.len() - 5])?;
    for outcome in [replay(cut.path(), None)?, replay("-", Some(&bytes[..bytes.len() - 5]))?] {
        ensure!(outcome.status.success() && outcome.stderr.lines().count() == 1, "{outcome:?}");
        let report = outcome.report()?;
        check_at_rest(&report)?;
        ensure!(report["tcp"]["attempts"].as_u64().is_some_and(|attempts| attempts > 50), "{report}");
    }
    Ok(())
}
