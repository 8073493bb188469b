//! Scenarios that need a special network, a setting or a pause; retransmissions are exact here.

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use handshake_lab::agent::{Agent, AgentOutcome};
use handshake_lab::tap::Tap;
use handshake_lab::tcp::{self, Attempts, Listener};
use handshake_lab::topology::DEVICE;
use handshake_lab::{FAMILIES, Family, skip_unless_privileged};
use serde_json::{Value, json};

use crate::HANDSHAKE;
use crate::books::{Figures, balanced, change, figure, without};
use crate::network::{Network, TIMEOUT, router, segment};

/// Runs `act` under an agent with `arguments`, and waits until the figures that it changes are `expected`.
pub(crate) fn play<T>(
    network: &Network,
    arguments: &[&str],
    expected: &[(&str, i64)],
    act: impl FnOnce() -> Result<T>,
) -> Result<(AgentOutcome, Value, T)> {
    // Sums, which are checked in every report, and a figure that depends on the machine's load.
    const FOLLOWS: [&str; 4] = ["tcp.attempts", "tcp.half_open.now", "tcp.late", "udp.flows"];
    let mut agent = network.watch(&[&["--flows"], arguments].concat())?;
    let before = agent.await_report(TIMEOUT, |_| true)?;
    let done = act()?;
    let expected: Figures = expected.iter().map(|(path, count)| ((*path).to_owned(), *count)).collect();
    agent
        .await_report(TIMEOUT, |report| without(change(&before, report), &FOLLOWS) == expected)
        .with_context(|| format!("expected {expected:?}"))?;
    let outcome = agent.stop()?;
    ensure!(outcome.status.success(), "{outcome:?}");
    let report = balanced(&outcome)?;
    Ok((outcome, report, done))
}

/// The flags of the flows with `verdict`.
fn flags_of(outcome: &AgentOutcome, verdict: &str) -> Result<Vec<Value>> {
    let flows = outcome.flows()?;
    let of = flows.iter().filter(|flow| flow["protocol"] == "tcp" && flow["verdict"] == verdict);
    Ok(of.map(|flow| flow["flags"].clone()).collect())
}

/// Each SYN is sent twice: a retransmission is no new attempt.
#[test]
fn a_retransmitted_syn_is_no_new_attempt() -> Result<()> {
    if skip_unless_privileged() {
        return Ok(());
    }
    let network = segment()?;
    let expected = [("tcp.half_open.no_syn_ack", 3), ("tcp.signs.syn_retransmits", 3)];
    let path = network.path(Family::V4);
    path.client.syn_retries(1)?;
    let deaf = Listener::deaf(&path, 0)?;
    let (outcome, _, _) = play(&network, &[], &expected, || Attempts::start(&path, deaf.address(), 3))?;
    let flows = outcome.flows()?;
    ensure!(flows.len() == 3, "{flows:?}");
    for flow in &flows {
        ensure!(flow["cause"] == "no_syn_ack" && flow["syn"] == 2 && flow["syn_retransmits"] == 1, "{flow}");
    }
    Ok(())
}

/// A router forwards a SYN and its retransmission, and sees each of them at two hooks.
#[test]
fn a_router_counts_a_syn_once() -> Result<()> {
    if skip_unless_privileged() {
        return Ok(());
    }
    let network = router()?;
    let expected = [("tcp.half_open.no_syn_ack", 2), ("tcp.signs.syn_retransmits", 2)];
    let path = network.path(Family::V6);
    path.client.syn_retries(1)?;
    let deaf = Listener::deaf(&path, 0)?;
    play(&network, &[], &expected, || Attempts::start(&path, deaf.address(), 2))?;
    Ok(())
}

/// An ACK that passes two to four hooks counts once.
#[test]
fn a_router_counts_an_ack_once() -> Result<()> {
    if skip_unless_privileged() {
        return Ok(());
    }
    let network = router()?;
    let mut tap = Tap::open(network.host(), DEVICE)?;
    let (outcome, report, _) = play(&network, &[], &[("tcp.completed", 2 * 3)], || {
        both_families(|family| {
            let path = network.path(family);
            let connections = tcp::connect_accept(&path, &Listener::new(&path, 0, 16)?, 3)?;
            connections.talk(100)?;
            connections.close()
        })
    })?;
    let flows = outcome.flows()?;
    let acks: u64 = flows.iter().map(|flow| figure(flow, "ack")).sum();
    let wire = tap.traffic()?.both().ack;
    ensure!(acks == wire && wire >= 6 * 3, "{wire} ACKs on the wire, {acks} in {flows:?}");
    ensure!(
        figure(&report, "packets.ack") == 2 * wire,
        "{wire} ACKs at each of two interfaces, but {report}"
    );
    Ok(())
}

/// The queue fills while SYN+ACKs are in flight: the server retransmits the SYN+ACK for each ACK that it has
/// no room for.
#[test]
fn acks_ignored_by_a_full_queue_are_a_sign() -> Result<()> {
    if skip_unless_privileged() {
        return Ok(());
    }
    // After a valid ACK, a retransmitted SYN+ACK is only this sign.
    let expected = [("tcp.completed", 5), ("tcp.signs.ack_ignored", 2)];
    for family in FAMILIES {
        let network = segment()?;
        play(&network, &[], &expected, || tcp::queue_fills_in_flight(&network.path(family), 2))
            .with_context(|| format!("{family:?}"))?;
    }
    Ok(())
}

/// One connection requests a cookie, three send it with data.
#[test]
fn fast_open_completes_and_is_flagged() -> Result<()> {
    if skip_unless_privileged() {
        return Ok(());
    }
    let network = segment()?;
    let (outcome, _, _) = play(&network, &[], &[("tcp.completed", 2 * 4)], || {
        both_families(|family| tcp::fast_open(&network.path(family), 3, b"0123456789"))
    })?;
    let flags = flags_of(&outcome, "completed")?;
    let fast = flags.iter().filter(|flags| **flags == json!(["fast_open"])).count();
    let plain = flags.iter().filter(|flags| **flags == json!([])).count();
    ensure!((fast, plain) == (2 * 3, 2), "{flags:?}");
    Ok(())
}

/// Runs `act` over IPv4, then over IPv6.
fn both_families<T>(mut act: impl FnMut(Family) -> Result<T>) -> Result<[T; 2]> {
    Ok([act(Family::V4).context("IPv4")?, act(Family::V6).context("IPv6")?])
}

/// Both ends send a SYN, and every SYN+ACK answers one. (One datagram in each direction delays the first
/// SYN.)
#[test]
fn a_simultaneous_open_completes_and_is_flagged() -> Result<()> {
    if skip_unless_privileged() {
        return Ok(());
    }
    let network = segment()?;
    let bytes = 2 * (20 + 8 + 30) + 2 * (40 + 8 + 30);
    let expected = [("tcp.completed", 2), ("udp.answered", 2), ("udp.packets", 4), ("udp.bytes", bytes)];
    let open = || both_families(|family| tcp::simultaneous_open(&network.path(family)));
    let (outcome, _, _) = play(&network, &[], &expected, open)?;
    let flags = flags_of(&outcome, "completed")?;
    let both = |flags: &Value| flags.as_array().is_some_and(|all| all.contains(&json!("simultaneous_open")));
    ensure!(flags.len() == 2 && flags.iter().all(both), "{flags:?}");
    Ok(())
}

/// The router reports by ICMP that it has no route, and quotes the SYN.
#[test]
fn addresses_without_a_route_are_unreachable() -> Result<()> {
    if skip_unless_privileged() {
        return Ok(());
    }
    let network = router()?;
    let Network::Router(routed) = &network else { unreachable!("it is a router") };
    play(&network, &[], &[("tcp.unreachable", 2 * 5)], || {
        both_families(|family| {
            let to = SocketAddr::new(routed.unreachable(family), 80);
            Attempts::start(&network.path(family), to, 5)?.wait_unreachable(TIMEOUT)
        })
    })?;
    Ok(())
}

/// An attempt expires some time after its last segment and is counted by its cause; its record is removed.
#[test]
fn open_attempts_expire() -> Result<()> {
    if skip_unless_privileged() {
        return Ok(());
    }
    let network = segment()?;
    let path = network.path(Family::V4);
    let (listener, deaf) = (Listener::new(&path, 0, 16)?, Listener::deaf(&path, 0)?);
    let expected = [("tcp.half_open_expired.no_syn_ack", 4), ("tcp.half_open_expired.no_ack", 6)];
    let (outcome, _, _) = play(&network, &["--expire-after", "300ms"], &expected, || {
        tcp::syn_without_ack(&path, listener.address(), 6)?;
        Attempts::start(&path, deaf.address(), 4)?.give_up()
    })?;
    ensure!(outcome.flows()?.iter().all(|flow| flow["verdict"] == "half_open_expired"), "{outcome:?}");
    Ok(())
}

/// With more attempts than the table holds, the report is not exact, its figures balance, and every SYN is an
/// attempt or counted as untracked.
#[test]
fn a_full_table_is_reported() -> Result<()> {
    const SYNS: u8 = 200;
    if skip_unless_privileged() {
        return Ok(());
    }
    let network = segment()?;
    let path = network.path(Family::V4);
    let listener = Listener::new(&path, 0, 256)?;
    let words = ["-i", DEVICE, "--max-flows", "16", "--interval", "20ms"];
    let mut agent = Agent::start(network.host(), HANDSHAKE, &words)?;
    tcp::syn_without_ack(&path, listener.address(), SYNS)?;
    agent.await_report(TIMEOUT, |report| figure(report, "packets.syn") == u64::from(SYNS))?;
    let report = balanced(&agent.stop()?)?;
    let (attempts, evicted) = (figure(&report, "tcp.attempts"), figure(&report, "tcp.evicted"));
    ensure!(attempts == u64::from(SYNS) && report["exact"] == false, "{report}");
    ensure!(figure(&report, "table.used") == attempts - evicted && evicted > 0, "{report}");
    Ok(())
}
