//! `handshake join`: what two accounts say together of faults whose spot is known, through every kind of
//! address translation; through a proxy; and of accounts that each command writes.

use std::fs;
use std::path::Path as FilePath;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use handshake_lab::agent::Agent;
use handshake_lab::both_ends::{self, Accounts, Translation};
use handshake_lab::faults::drop_by;
use handshake_lab::tap::Dump;
use handshake_lab::tcp::{self, Attempts, Listener};
use handshake_lab::topology::DEVICE;
use handshake_lab::{Family, Pair, process, schema, skip_unless_privileged, skip_without_tool};
use serde_json::{Value, json};

use crate::HANDSHAKE;
use crate::network::TIMEOUT;
use crate::report_file::Folder;

/// Attempts beside each fault, over each family. `cargo xtask both-ends` makes a thousand.
const ATTEMPTS: usize = 20;

fn judge(translation: Translation) -> Result<()> {
    if skip_unless_privileged() || skip_without_tool("nft") {
        return Ok(());
    }
    both_ends::judge(HANDSHAKE.as_ref(), translation, ATTEMPTS).map(drop)
}

#[test]
fn each_spot_is_named_without_translation() -> Result<()> {
    judge(Translation::None)
}

#[test]
fn each_spot_is_named_where_initiators_are_translated() -> Result<()> {
    judge(Translation::Source)
}

#[test]
fn each_spot_is_named_where_the_responder_is_translated() -> Result<()> {
    judge(Translation::Destination)
}

#[test]
fn each_spot_is_named_where_both_are_translated() -> Result<()> {
    judge(Translation::Both)
}

#[test]
fn what_a_proxy_answers_is_matched_with_nothing() -> Result<()> {
    if skip_unless_privileged() || skip_without_tool("haproxy") {
        return Ok(());
    }
    both_ends::proxied(HANDSHAKE.as_ref(), ATTEMPTS).map(drop)
}

#[test]
fn many_attempts_are_joined() -> Result<()> {
    both_ends::many(HANDSHAKE.as_ref(), None, 20_000).map(drop)
}

/// Two connections are completed, and the client drops the SYN+ACK of a third.
const COMPLETED: usize = 2;

/// Joins two accounts, each of which has these connections.
fn join(first: &FilePath, second: &FilePath) -> Result<Value> {
    let mut command = Command::new(HANDSHAKE);
    let output = process::output(command.arg("join").args([first, second]).args(["-o", "json"]))?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let sum: Value = serde_json::from_slice(&output.stdout).with_context(|| said.clone())?;
    schema::check(&sum)?;
    let what = format!("{} and {}: {said}{sum:#}", first.display(), second.display());
    ensure!(sum["matched"] == COMPLETED + 1 && sum["completed"] == COMPLETED, "{what}");
    ensure!(sum["lost_in_first"] == 1 && sum["only_first"] == 0, "{what}");
    ensure!(output.status.code() == Some(0) && said.contains("of memory at most"), "{what}");
    Ok(sum)
}

/// `watch` and `check` at the client, `serve` at the server, and captures of both: any two say the same,
/// whatever wrote them. A service's rows have no report, and that is said.
#[test]
fn accounts_of_every_command_are_joined() -> Result<()> {
    if skip_unless_privileged() || skip_without_tool("nft") || skip_without_tool("tcpdump") {
        return Ok(());
    }
    const SWIFT: [&str; 6] = ["-i", DEVICE, "--half-open-after", "300ms", "--max-flows", "1000"];
    let (pair, folder) = (Pair::new()?, Folder::new()?);
    let rows = folder.file("rows");
    fs::create_dir(&rows)?;
    let report = folder.file("check.json");
    let mut check = pair.client.command(HANDSHAKE);
    check.args(["check", "--flows", "--report"]).arg(&report).args(SWIFT).args(["--", "cat"]);
    let (check, input) = Agent::attach_fed(check, 1)?;
    let mut watch =
        Agent::start(&pair.client, HANDSHAKE, &[&SWIFT[..], &["--events", "all", "--flows"]].concat())?;
    let mut serve = pair.server.command(HANDSHAKE);
    serve.args(["serve", "--metrics-listen", "127.0.0.1:0", "--events", "all", "--events-file"]);
    let serve = Agent::attach(
        {
            serve.arg(rows.join("events.jsonl")).args(SWIFT);
            serve
        },
        1,
    )?;
    let captures = [(&pair.client, "client.pcap"), (&pair.server, "server.pcap")];
    let captures = captures.map(|(host, name)| Dump::start(host, DEVICE, &folder.file(name)));

    let path = pair.path(Family::V4);
    let listener = Listener::new(&path, 443, 8)?;
    let _connections = tcp::connect_accept(&path, &listener, COMPLETED)?;
    let lost = Listener::new(&path, 444, 8)?;
    // Behind the client's hook, and behind the socket that captures.
    drop_by(&pair.client, "input", "tcp sport 444")?;
    let _attempt = Attempts::start(&path, lost.address(), 1)?;
    watch.await_report(TIMEOUT, |report| report["tcp"]["half_open"]["now"] == 1)?;

    drop(input);
    ensure!(check.wait(TIMEOUT)?.status.code().is_some());
    let watched = folder.file("watch.jsonl");
    fs::write(&watched, watch.stop()?.stdout)?;
    serve.end_by(libc::SIGTERM)?;
    let mut replayed = Vec::new();
    for (at, capture) in captures.into_iter().enumerate() {
        let capture = capture?.stop()?;
        let mut command = Command::new(HANDSHAKE);
        let output = process::output(command.args(["replay", "-o", "jsonl", "--flows"]).arg(capture.path()))?;
        let file = folder.file(&format!("replay-{at}.jsonl"));
        fs::write(&file, output.stdout)?;
        replayed.push(file);
    }
    for first in [&watched, &report, &replayed[0]] {
        ensure!(join(first, &replayed[1])?["exact"] == true);
        let of_rows = join(first, &rows)?;
        ensure!(of_rows["inexact"][0]["reason"] == "no_report", "{of_rows:#}");
    }
    Ok(())
}

/// An attempt to a server's port 443 that was not answered, and a report.
fn account(client: &str, number: u32, second: u32) -> String {
    let time = |second: u32| format!("2026-03-01T12:03:{second:02}.000000000Z");
    let flow = json!({
        "type": "flow", "protocol": "tcp", "initiator": {"address": client, "port": 40_000},
        "responder": {"address": "10.0.0.2", "port": 443}, "verdict": "half_open", "cause": "no_syn_ack",
        "isn_initiator": number, "syn": 1, "syn_ack": 0, "started": time(second),
    });
    let report = json!({
        "type": "report", "schema": 1, "from": time(0), "to": time(59), "inexact": [],
        "tcp": {"attempts": 1, "completed": 0},
    });
    format!("{flow}\n{report}\n")
}

/// Accounts of nothing in common are no error, and an account beside itself is one. Memory is refused beforehand.
#[test]
fn what_cannot_be_joined_says_so() -> Result<()> {
    let near = account("10.0.0.1", 7, 1);
    let code = |second: &str, words: &[&str]| -> Result<(Option<i32>, String)> {
        let accounts = Accounts::new(&near, second)?;
        let mut command = Command::new(HANDSHAKE);
        let output = process::output(command.arg("join").args(accounts.paths()).args(words))?;
        Ok((output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned()))
    };
    ensure!(code(&account("10.9.9.9", 7, 1), &[])?.0 == Some(0), "through a translation");
    // The other place would have seen it.
    ensure!(code(&account("10.0.0.9", 8, 1), &[])?.0 == Some(0), "the SYN was lost between");
    ensure!(code(&account("10.0.0.1", 8, 1), &[])?.0 == Some(3), "its number may be rewritten");
    let late = account("10.0.0.1", 8, 30).replace("12:03:00", "12:03:29");
    ensure!(code(&late, &[])?.0 == Some(3), "it did not look at that time");
    for (second, words, wanted, said) in [
        (near.as_str(), &[][..], 2, "are the same account"),
        ("{}\n", &[], 2, "neither an attempt nor a report"),
        (&late.replace("\"schema\":1", "\"schema\":2"), &[], 2, "schema 2"),
        (&late, &["--max-memory", "1M"], 4, "name fewer files"),
        (&late, &["--first", "/nonexistent"], 2, "cannot read /nonexistent"),
    ] {
        let (code, stderr) = code(second, words)?;
        ensure!(code == Some(wanted) && stderr.contains(said), "{said}: {code:?} {stderr}");
    }
    Ok(())
}
