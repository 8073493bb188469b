//! Interfaces that come, go, come back and change their names while they are watched.

use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::Stdio;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Result, ensure};
use handshake_lab::agent::{Agent, run_to_end};
use handshake_lab::process::Process;
use handshake_lab::tcp::{Listener, connect_accept};
use handshake_lab::topology::DEVICE;
use handshake_lab::{Family, Namespace, churn, skip_unless_privileged};
use serde_json::Value;

use crate::HANDSHAKE;
use crate::network::{Network, TIMEOUT, segment};

/// A short run of what `cargo xtask churn` does at length.
#[test]
fn short_lived_interfaces_have_their_books_beside_one_that_stays() -> Result<()> {
    if skip_unless_privileged() {
        return Ok(());
    }
    churn::come_and_go(Path::new(HANDSHAKE), 20).map(drop)
}

/// A signal ends a run on many interfaces within two seconds, though the kernel takes 10 ms and more to
/// detach from each hook, and one that comes while it still attaches to them ends it too.
#[test]
fn a_signal_ends_a_run_on_many_interfaces_within_two_seconds() -> Result<()> {
    const SOON: Duration = Duration::from_secs(2);
    if skip_unless_privileged() {
        return Ok(());
    }
    let crowd = churn::at_once(Path::new(HANDSHAKE), 200)?;
    ensure!(crowd.end < SOON, "{crowd:?}");

    let host = churn::crowded(200)?;
    let mut command = host.command(HANDSHAKE);
    let mut process = Process::start(command.args(["watch", "-i", "hsv*"]).stdout(Stdio::null()))?;
    // Some are attached to: each has two links, and there are some twenty descriptors beside.
    let folder = format!("/proc/{}/fd", process.id());
    while fs::read_dir(&folder)?.count() < 100 {
        sleep(Duration::from_millis(5));
    }
    process.signal(libc::SIGINT)?;
    let status = process.wait(SOON)?;
    ensure!(status.signal() == Some(libc::SIGINT), "{status:?}");
    Ok(())
}

/// A short run of what `cargo xtask churn` does at length.
#[test]
fn a_killed_run_leaves_nothing_on_its_interfaces() -> Result<()> {
    if skip_unless_privileged() {
        return Ok(());
    }
    churn::kill(Path::new(HANDSHAKE), 6)
}

/// A run that waits begins without any interface, and takes what comes.
#[test]
fn an_interface_that_is_not_there_yet_is_waited_for() -> Result<()> {
    if skip_unless_privileged() {
        return Ok(());
    }
    let host = Namespace::new()?;
    let arguments = ["watch", "-o", "jsonl", "-i", "hs-late", "--wait", "--interval", "100ms"];
    let mut command = host.command(HANDSHAKE);
    command.args(arguments);
    let mut agent = Agent::attach(command, 0)?;
    // It is loaded first.
    let first = agent.await_report(TIMEOUT * 6, |_| true)?;
    ensure!(names(&first).is_empty() && first["exact"] == true, "{first}");
    for _ in 0..2 {
        host.ip(&["link add hs-late type veth peer name hs-other", "link set hs-late up"])?;
        let there = agent.await_report(TIMEOUT, |report| names(report) == ["hs-late"])?;
        ensure!(there["exact"] == true, "{there}");
        host.ip(&["link del hs-late"])?;
        let gone = agent.await_report(TIMEOUT, |report| names(report).is_empty())?;
        ensure!(gone["exact"] == true, "{gone}");
    }
    let outcome = agent.stop()?;
    ensure!(outcome.status.success(), "{outcome:?}");
    ensure!(outcome.report()?["source"]["gone"]["interfaces"] == 2, "{outcome:?}");
    Ok(())
}

/// A pattern may choose nothing in `watch`, and a check has nothing to judge then. A name must be there.
#[test]
fn a_pattern_may_choose_nothing_and_a_name_must_be_there() -> Result<()> {
    if skip_unless_privileged() {
        return Ok(());
    }
    let host = Namespace::new()?;
    let rows: [(&[&str], i32, &str); 4] = [
        (&["watch", "-i", "hs-none*", "--for", "50ms", "-o", "json"], 0, ""),
        (
            &["watch", "-i", "hs-none", "--for", "50ms"],
            4,
            "no interface hs-none; there are: lo; --wait waits for it",
        ),
        (
            &["check", "-i", "hs-none*", "--for", "50ms"],
            4,
            "there is no interface that -i hs-none* names; there are: lo",
        ),
        (
            &["check", "-i", "hs-none", "--wait", "--for", "50ms"],
            4,
            "there is no interface that -i hs-none names",
        ),
    ];
    for (words, code, said) in rows {
        let outcome = run_to_end(&host, HANDSHAKE, words, TIMEOUT * 3)?;
        ensure!(
            outcome.status.code() == Some(code) && outcome.stderr.contains(said),
            "{words:?}: {outcome:?}"
        );
    }
    Ok(())
}

/// An interface that comes back under another index is attached to again, and one that is renamed is
/// followed.
#[test]
fn an_interface_that_comes_back_is_taken_back_and_a_new_name_is_followed() -> Result<()> {
    if skip_unless_privileged() {
        return Ok(());
    }
    let network = segment()?;
    let Network::Segment(pair) = &network else { unreachable!("it is a segment") };
    let host = network.host();
    host.ip(&["link add hs-b type veth peer name hs-c", "link set hs-b up"])?;
    let mut agent = Agent::start(host, HANDSHAKE, &["-i", DEVICE, "-i", "hs-b", "--interval", "100ms"])?;
    host.ip(&["link set hs-b down", "link set hs-b name hs-new", "link set hs-new up"])?;
    agent.await_report(TIMEOUT, |report| names(report) == [DEVICE, "hs-new"])?;
    host.ip(&["link del hs-new"])?;
    agent.await_report(TIMEOUT, |report| names(report) == [DEVICE])?;
    host.ip(&["link add hs-b type veth peer name hs-c", "link set hs-b up"])?;
    agent.await_report(TIMEOUT, |report| names(report) == [DEVICE, "hs-b"])?;
    let path = pair.path(Family::V4);
    connect_accept(&path, &Listener::new(&path, 0, 16)?, 5)?.close()?;
    agent.await_report(TIMEOUT, |report| report["tcp"]["completed"] == 5)?;
    let outcome = agent.stop()?;
    for said in ["hs-b is now called hs-new", "hs-new is gone", "attached hs-b: "] {
        ensure!(outcome.stderr.lines().any(|line| line.starts_with(said)), "{said}: {outcome:?}");
    }
    Ok(())
}

fn names(report: &Value) -> Vec<&str> {
    let all = report["source"]["interfaces"].as_array().map_or(&[][..], Vec::as_slice);
    all.iter().filter_map(|interface| interface["name"].as_str()).collect()
}
