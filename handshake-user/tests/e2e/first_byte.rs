//! Servers that accept and do not answer, answer late, speak first, or take an upload: what is called silent, and
//! the time of the first byte.

use std::io::{Read as _, Write as _};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use handshake_lab::agent::Agent;
use handshake_lab::tcp::{self, Connections, Listener};
use handshake_lab::{FAMILIES, Family, skip_unless_privileged};
use serde_json::Value;

use crate::books::{check_at_rest, figure};
use crate::check::{Check, OBEDIENT, ensure_code};
use crate::network::{Network, TIMEOUT, loopback, router, segment};

/// T1 of these runs: long enough for a busy machine to send what an upload sends.
const T1: Duration = Duration::from_millis(400);
const OPTIONS: [&str; 2] = ["--half-open-after", "400ms"];
const COUNT: usize = 3;

#[test]
fn on_a_segment() -> Result<()> {
    play(segment)
}

/// Each packet passes two hook points, or four.
#[test]
fn on_a_router() -> Result<()> {
    play(router)
}

#[test]
fn on_loopback() -> Result<()> {
    play(loopback)
}

fn play(network: fn() -> Result<Network>) -> Result<()> {
    if skip_unless_privileged() {
        return Ok(());
    }
    let network = network()?;
    for family in FAMILIES {
        let mut agent = network.watch(&OPTIONS)?;
        answers_late(&network, family, &mut agent).with_context(|| format!("over {family:?}"))?;
        let before = agent.await_report(TIMEOUT, |_| true)?;
        speaks_first(&network, family, &mut agent, &before)?;
        takes_an_upload(&network, family, &mut agent)?;
        let outcome = agent.stop()?;
        ensure!(outcome.status.success(), "{outcome:?}");
        check_at_rest(&outcome.report()?)?;
    }
    Ok(())
}

/// The servers read what they are asked.
fn ask(connections: &Connections) -> Result<()> {
    const REQUEST: &[u8; 18] = b"GET / HTTP/1.1\r\n\r\n";
    for (mut client, mut server) in connections.clients.iter().zip(&connections.servers) {
        client.write_all(REQUEST).context("ask")?;
        server.read_exact(&mut [0; REQUEST.len()]).context("read the request")?;
    }
    Ok(())
}

fn answer(connections: &Connections) -> Result<()> {
    for (mut client, mut server) in connections.clients.iter().zip(&connections.servers) {
        server.write_all(b"HTTP/1.1 200 OK\r\n\r\n").context("answer")?;
        client.read_exact(&mut [0; 19]).context("read the answer")?;
    }
    Ok(())
}

fn silent(report: &Value) -> u64 {
    figure(report, "tcp.silent.now")
}

fn was_silent(report: &Value) -> u64 {
    figure(report, "tcp.signs.was_silent")
}

fn first_bytes(report: &Value) -> u64 {
    figure(report, "latency.ack_to_first_byte.count")
}

/// The servers accept, and nothing of them comes for longer than T1. Some then answer, the others are left.
fn answers_late(network: &Network, family: Family, agent: &mut Agent) -> Result<()> {
    let path = network.path(family);
    let listener = Listener::new(&path, 0, 16)?;
    let begun = Instant::now();
    let connections = tcp::connect_accept(&path, &listener, COUNT)?;
    let left = tcp::connect_accept(&path, &listener, COUNT)?;
    let unasked = tcp::connect_accept(&path, &listener, COUNT)?;
    ask(&connections)?;
    ask(&left)?;
    let all = 2 * COUNT as u64;
    let report = agent.await_report(TIMEOUT, |report| silent(report) == all)?;
    ensure!(begun.elapsed() >= T1, "too early: {report}");
    let port = listener.address().port();
    let rows = report["services"].as_array().context("services")?;
    let row = rows.iter().find(|row| row["port"] == port).context("its service")?;
    ensure!(figure(row, "silent") == all && first_bytes(&report) == 0, "{report}");
    thread::sleep(Duration::from_secs(1).saturating_sub(begun.elapsed()));
    let at_least = begun.elapsed();
    answer(&connections)?;
    let most = u64::try_from(begun.elapsed().as_nanos())?;
    let half = COUNT as u64;
    // The tables are read after the counters.
    let reached =
        |report: &Value, silences| (silent(report), was_silent(report), first_bytes(report)) == silences;
    let report = agent.await_report(TIMEOUT, |report| reached(report, (half, half, half)))?;
    let longest = figure(&report, "latency.ack_to_first_byte.max_ns");
    ensure!(
        longest <= most && longest >= u64::try_from(T1.as_nanos())? && at_least >= Duration::from_secs(1),
        "{longest} ns, of at most {most}"
    );
    left.reset()?;
    agent.await_report(TIMEOUT, |report| reached(report, (0, all, half)))?;
    drop((connections, unasked));
    Ok(())
}

/// As SSH and SMTP do: no byte of the client's is needed.
fn speaks_first(network: &Network, family: Family, agent: &mut Agent, before: &Value) -> Result<()> {
    let path = network.path(family);
    let listener = Listener::new(&path, 0, 16)?;
    let connections = tcp::connect_accept(&path, &listener, COUNT)?;
    answer(&connections)?;
    let wanted = first_bytes(before) + COUNT as u64;
    agent.await_report(TIMEOUT, |report| first_bytes(report) == wanted)?;
    ask(&connections)?;
    thread::sleep(2 * T1);
    let report = agent.await_report(TIMEOUT, |_| true)?;
    ensure!((silent(&report), was_silent(&report)) == (0, was_silent(before)), "{report}");
    Ok(())
}

/// While data comes, the server has nothing to answer. Keep-alives do not hide what is silent then.
fn takes_an_upload(network: &Network, family: Family, agent: &mut Agent) -> Result<()> {
    let path = network.path(family);
    let listener = Listener::new(&path, 0, 16)?;
    let connections = tcp::connect_accept(&path, &listener, 1)?;
    let (mut client, mut server) = (&connections.clients[0], &connections.servers[0]);
    let until = Instant::now() + 4 * T1;
    let mut took = vec![0; 4_000];
    while Instant::now() < until {
        client.write_all(&took).context("upload")?;
        server.read_exact(&mut took).context("take it")?;
        let report = agent.await_report(TIMEOUT, |_| true)?;
        ensure!(silent(&report) == 0, "an upload is under way: {report}");
        thread::sleep(Duration::from_millis(10));
    }
    connections.keep_alive()?;
    agent.await_report(TIMEOUT, |report| silent(report) == 1)?;
    let until = Instant::now() + Duration::from_millis(2_500);
    while Instant::now() < until {
        let report = agent.await_report(TIMEOUT, |_| true)?;
        ensure!(silent(&report) == 1, "a keep-alive is no data: {report}");
    }
    Ok(())
}

/// The client gives up before the end: what was silent is found all the same.
#[test]
fn an_expectation_finds_silence_that_has_ended() -> Result<()> {
    if skip_unless_privileged() {
        return Ok(());
    }
    let network = segment()?;
    let path = network.path(Family::V4);
    let listener = Listener::new(&path, 0, 16)?;
    for (waits, code) in [(Duration::from_millis(900), 1), (Duration::ZERO, 0)] {
        let words = ["--expect", "silent == 0", "--expect", "completed == 1"];
        let check = Check::start(&network, &words, OBEDIENT)?;
        let connections = tcp::connect_accept(&path, &listener, 1)?;
        ask(&connections)?;
        thread::sleep(waits);
        connections.reset()?;
        ensure_code(&check.finish()?, code, &[])?;
    }
    Ok(())
}
