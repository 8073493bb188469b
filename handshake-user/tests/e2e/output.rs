//! The output of a run, and how a run ends.

use std::io::{BufRead, BufReader, Read};
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use handshake_lab::agent::{Agent, AgentOutcome, run_to_end};
use handshake_lab::tcp::{self, Listener};
use handshake_lab::topology::DEVICE;
use handshake_lab::{FAMILIES, Family, Namespace, Process, frame, skip_unless_privileged, udp};
use serde_json::Value;

use crate::HANDSHAKE;
use crate::books::{balanced, check_at_rest, figure};
use crate::network::{TIMEOUT, loopback, segment};

/// Each flow has its ends, its sequence numbers and its counts.
#[test]
fn flows_are_listed_at_the_end() -> Result<()> {
    if skip_unless_privileged() {
        return Ok(());
    }
    let network = segment()?;
    for path in FAMILIES.map(|family| network.path(family)) {
        let mut agent = network.watch(&["--flows"])?;
        let listener = Listener::new(&path, 0, 16)?;
        let open = tcp::connect_accept(&path, &listener, 2)?;
        let scanned = tcp::syn_scan(&path, listener.address(), 4)?;
        let talks = udp::echo(&path, 2, 2, 40)?;
        let settled = |report: &Value| {
            figure(report, "tcp.initiator_aborted") == 4 && figure(report, "udp.packets") == 8
        };
        agent.await_report(TIMEOUT, settled)?;
        let outcome = agent.stop()?;
        ensure!(balanced(&outcome)?["type"] == "report");
        let flows = outcome.flows()?;
        ensure!(flows.len() == 2 + 4 + 2, "{flows:?}");
        for initiator in open.initiators()? {
            let flow = flow_of(&flows, initiator)?;
            ensure!(
                flow["verdict"] == "completed" && flow["ack"] == 1 && flow["interface"] == DEVICE,
                "{flow}"
            );
            ensure!(is_end(&flow["responder"], listener.address()), "{flow}");
            ensure!(flow["syn_to_syn_ack_ns"].is_u64() && flow["syn_ack_to_ack_ns"].is_u64(), "{flow}");
        }
        for (number, initiator) in scanned.into_iter().enumerate() {
            let flow = flow_of(&flows, initiator)?;
            // The scan's sequence numbers begin two below 2³².
            let isn = 0xffff_fffe_u32.wrapping_add(u32::try_from(number)?);
            ensure!(flow["verdict"] == "initiator_aborted" && flow["isn_initiator"] == isn, "{flow}");
            ensure!(flow["syn"] == 1 && flow["syn_ack"] == 1 && flow["ack"] == 0, "{flow}");
        }
        for talk in talks {
            let flow = flow_of(&flows, talk.initiator)?;
            let bytes = 2 * (40 + 8 + if path.source.is_ipv4() { 20 } else { 40 });
            ensure!(flow["verdict"] == "answered" && is_end(&flow["responder"], talk.responder), "{flow}");
            ensure!(flow["packets"] == serde_json::json!([2, 2]), "{flow}");
            ensure!(flow["bytes"] == serde_json::json!([bytes, bytes]), "{flow}");
        }
    }
    Ok(())
}

fn flow_of(flows: &[Value], initiator: std::net::SocketAddr) -> Result<&Value> {
    let flow = flows.iter().find(|flow| is_end(&flow["initiator"], initiator));
    flow.with_context(|| format!("no flow from {initiator} in {flows:?}"))
}

fn is_end(value: &Value, address: std::net::SocketAddr) -> bool {
    value["address"] == address.ip().to_string() && value["port"] == address.port()
}

/// Events are written as attempts end, not only at the end of the run.
#[test]
fn events_come_as_attempts_end() -> Result<()> {
    if skip_unless_privileged() {
        return Ok(());
    }
    let network = segment()?;
    let path = network.path(Family::V4);
    let mut agent = network.watch(&["--events", "all", "--expire-after", "300ms"])?;
    let listener = Listener::new(&path, 0, 16)?;
    let completed = tcp::connect_accept(&path, &listener, 3)?;
    tcp::refused(&path, 2)?;
    tcp::syn_scan(&path, listener.address(), 4)?;
    let deaf = Listener::deaf(&path, 0)?;
    let (_open, retried) = tcp::give_up_and_retry(&path, deaf.address(), 3)?;
    agent.await_report(TIMEOUT, |report| figure(report, "tcp.superseded") == 2)?;
    agent.await_report(TIMEOUT, |_| true)?;
    let outcome = agent.stop()?;
    balanced(&outcome)?;
    let expected = [("completed", 3), ("refused", 2), ("initiator_aborted", 4), ("superseded", 2)];
    let flows = outcome.flows()?;
    for (verdict, count) in expected {
        let of: Vec<&Value> = flows.iter().filter(|flow| flow["verdict"] == verdict).collect();
        ensure!(of.len() == count && of.iter().all(|flow| flow["ended"].is_string()), "{verdict}: {of:?}");
    }
    for initiator in completed.initiators()? {
        ensure!(flow_of(&flows, initiator)?["responder"]["port"] == listener.address().port());
    }
    ensure!(flow_of(&flows, retried)?["cause"] == "no_syn_ack");
    let kinds: Vec<Value> = outcome.values()?.into_iter().map(|value| value["type"].clone()).collect();
    let last_flow = kinds.iter().rposition(|kind| kind == "flow").context("no event")?;
    ensure!(kinds.len() - last_flow > 2, "an event came with the last report only: {kinds:?}");
    Ok(())
}

/// Without reports per `--interval`: one object, with the flows inside.
#[test]
fn json_is_one_object_at_the_end() -> Result<()> {
    if skip_unless_privileged() {
        return Ok(());
    }
    let network = segment()?;
    let path = network.path(Family::V6);
    let words = ["-o", "json", "--flows", "--interval", "10ms"];
    let agent = Agent::attach(command(network.host(), DEVICE, &words), 1)?;
    let _open = tcp::connect_accept(&path, &Listener::new(&path, 0, 16)?, 2)?;
    let outcome = agent.stop()?;
    let report: Value = serde_json::from_str(&outcome.stdout).context("one object")?;
    check_at_rest(&report)?;
    ensure!(figure(&report, "tcp.completed") == 2 && report.get("interval").is_none(), "{report}");
    ensure!(report["flows"].as_array().is_some_and(|flows| flows.len() == 2), "{report}");
    Ok(())
}

fn command(host: &Namespace, device: &str, words: &[&str]) -> std::process::Command {
    let mut command = host.command(HANDSHAKE);
    command.args(["watch", "-i", device, "--max-flows", "1000"]).args(words);
    command
}

/// Ctrl-C and SIGTERM end a `watch` normally, with the last report and exit code 0. If stdout is not a
/// terminal, the text has no colour.
#[test]
fn a_signal_prints_the_last_report() -> Result<()> {
    if skip_unless_privileged() {
        return Ok(());
    }
    let network = segment()?;
    let path = network.path(Family::V4);
    let listener = Listener::new(&path, 0, 16)?;
    for signal in [libc::SIGINT, libc::SIGTERM] {
        // An interval without a periodic report.
        let words = ["--interval", "1h", "--flows"];
        let agent = Agent::attach(command(network.host(), DEVICE, &words), 1)?;
        let connections = tcp::connect_accept(&path, &listener, 3)?;
        let initiators = connections.initiators()?;
        connections.reset()?;
        tcp::refused(&path, 2)?;
        let text = end_by(agent, signal)?.stdout;
        for part in [
            "handshake · eth0 · ingress tcx, egress tcx",
            "· EXACT",
            "5 = 3 completed + 2 refused",
            "refused: ",
        ] {
            ensure!(text.contains(part), "no {part:?} in:\n{text}");
        }
        for initiator in initiators {
            let listed = text.lines().filter(|line| line.contains(&initiator.to_string()));
            ensure!(listed.filter(|line| line.contains("completed")).count() == 1, "{initiator} in:\n{text}");
        }
        ensure!(!text.contains('\x1b') && text.matches("handshake · ").count() == 1, "{text:?}");
    }
    Ok(())
}

fn end_by(agent: Agent, signal: i32) -> Result<AgentOutcome> {
    let outcome = agent.end_by(signal)?;
    ensure!(outcome.status.code() == Some(0), "signal {signal}: {outcome:?}");
    Ok(outcome)
}

/// `handshake | head -1` ends without an error message.
#[test]
fn a_closed_pipe_ends_the_run_without_a_message() -> Result<()> {
    if skip_unless_privileged() {
        return Ok(());
    }
    let network = loopback()?;
    for format in ["text", "jsonl"] {
        let words = ["-o", format, "--interval", "10ms"];
        let mut command = command(network.host(), "lo", &words);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut process = Process::start(&mut command)?;
        let mut stdout = BufReader::new(process.child().stdout.take().context("stdout")?);
        let mut stderr = process.child().stderr.take().context("stderr")?;
        let mut line = String::new();
        ensure!(stdout.read_line(&mut line)? > 0, "no line");
        drop(stdout);
        let status = process.wait(TIMEOUT)?;
        let mut said = String::new();
        stderr.read_to_string(&mut said)?;
        ensure!(status.code() == Some(0), "{status}: {said}");
        ensure!(
            said.lines().last().is_some_and(|line| line.starts_with("attached lo: ingress tcx")),
            "{said}"
        );
    }
    Ok(())
}

/// `--for` ends the run after its time.
#[test]
fn a_run_ends_after_its_time() -> Result<()> {
    if skip_unless_privileged() {
        return Ok(());
    }
    let network = loopback()?;
    let words =
        ["watch", "-i", "lo", "-o", "jsonl", "--max-flows", "1000", "--interval", "100ms", "--for", "450ms"];
    let outcome = run_to_end(network.host(), HANDSHAKE, &words, TIMEOUT * 3)?;
    ensure!(outcome.status.success(), "{outcome:?}");
    balanced(&outcome)?;
    // One report per 100 ms (or fewer, on a busy machine), and the last.
    ensure!((2..=5).contains(&outcome.values()?.len()), "{}", outcome.stdout);
    Ok(())
}

/// More extension headers than are walked are counted.
#[test]
fn what_cannot_be_walked_is_counted() -> Result<()> {
    if skip_unless_privileged() {
        return Ok(());
    }
    let network = segment()?;
    let path = network.path(Family::V6);
    let (source, destination) = (std::net::SocketAddr::new(path.source, 7), path.server_at(9));
    let segment =
        frame::BuiltSegment { source, destination, seq: 1, ack: 0, flags: frame::flag::SYN, payload: &[] };
    let long = frame::with_extensions(&frame::tcp_frame(path.macs, &segment)?, 20)?;
    let mut agent = network.watch(&[])?;
    frame::Sender::new(path.client, path.device)?.send(&long)?;
    let report = agent.await_report(TIMEOUT, |report| figure(report, "packets.extension_chains") == 1)?;
    ensure!(figure(&report, "packets.ip_other") == 1 && figure(&report, "tcp.attempts") == 0, "{report}");
    ensure!(report["inexact"][0]["reason"] == "extension_chains", "{report}");
    agent.stop()?;
    Ok(())
}

/// `-vv` with a filter explains each handshake segment of the flows it selects, and says that it needs one.
#[test]
fn the_kernel_side_explains_what_the_filter_selects() -> Result<()> {
    const NEEDS_FILTER: &str = "-vv explains each handshake segment of the flows that --port or --net select";
    if skip_unless_privileged() {
        return Ok(());
    }
    let network = segment()?;
    let path = network.path(Family::V4);
    let (wanted, other) = (Listener::new(&path, 0, 16)?, Listener::new(&path, 0, 16)?);
    let port = wanted.address().port().to_string();
    for (options, explains) in [(&["-vv", "--port", &port][..], true), (&["-vv"], false), (&["-v"], false)] {
        let mut agent = network.watch(options)?;
        let client = tcp::connect_accept(&path, &wanted, 1)?.initiators()?[0];
        tcp::connect_accept(&path, &other, 1)?;
        let all = if explains { 1 } else { 2 };
        agent.await_report(TIMEOUT, |report| figure(report, "tcp.completed") == all)?;
        let outcome = agent.stop()?;
        let lines: Vec<String> = outcome.stderr.lines().filter_map(explanation).collect();
        let server = wanted.address();
        let expected = [
            format!("{client} > {server} SYN seq=J+0 ack=# 0 none -> SYN-SENT"),
            format!("{server} > {client} SYN+ACK seq=K+0 ack=J+1 SYN-SENT -> SYN-RECEIVED"),
            format!("{client} > {server} ACK seq=J+1 ack=K+1 SYN-RECEIVED -> ESTABLISHED"),
        ];
        ensure!(lines.starts_with(if explains { &expected } else { &[] }), "{options:?}: {}", outcome.stderr);
        ensure!(lines.iter().all(|line| line.contains(&client.to_string())), "{lines:?}");
        ensure!(explains || lines.is_empty(), "{lines:?}");
        ensure!(outcome.stderr.matches(NEEDS_FILTER).count() == usize::from(options == ["-vv"]));
    }
    Ok(())
}

/// A line of the kernel side with one blank between two words.
fn explanation(line: &str) -> Option<String> {
    let words: Vec<&str> = line.strip_prefix("kernel: debug: ")?.split_whitespace().collect();
    Some(words.join(" "))
}
