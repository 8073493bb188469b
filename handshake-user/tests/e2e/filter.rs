//! `--port`, `--net` and `--one-sided`: they select flows, and all other packets are still counted at the
//! hook.

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use handshake_lab::tcp::{self, Attempts, Listener};
use handshake_lab::{FAMILIES, Family, skip_unless_privileged, udp};
use serde_json::Value;

use crate::books::{balanced, figure};
use crate::network::{Network, TIMEOUT, router, segment};

/// Runs `act` under an agent with `arguments`; returns the last report, which must have `expected`.
fn filtered(
    network: &Network,
    arguments: &[&str],
    expected: &[(&str, u64)],
    act: impl FnOnce() -> Result<()>,
) -> Result<Value> {
    let mut agent = network.watch(arguments)?;
    act()?;
    let is_expected = |report: &Value| expected.iter().all(|(path, count)| figure(report, path) == *count);
    agent.await_report(TIMEOUT, is_expected).with_context(|| format!("{arguments:?}: {expected:?}"))?;
    let outcome = agent.stop()?;
    let last = balanced(&outcome)?;
    ensure!(is_expected(&last), "{arguments:?}: {expected:?} did not last: {last}");
    Ok(last)
}

/// A flow counts if either end has the port; packets of other flows are counted as filtered.
#[test]
fn ports_select_flows() -> Result<()> {
    if skip_unless_privileged() {
        return Ok(());
    }
    let network = segment()?;
    let paths = FAMILIES.map(|family| network.path(family));
    let listen = || paths.iter().map(|path| Listener::new(path, 0, 16)).collect::<Result<Vec<_>>>();
    let (wanted, others) = (listen()?, listen()?);
    let ports = [0, 1].map(|at| wanted[at].address().port().to_string());
    let expected = [("tcp.attempts", 6), ("tcp.completed", 6), ("packets.filtered", 4 * 4)];
    filtered(&network, &["--port", &ports[0], "--port", &ports[1]], &expected, || {
        for (path, (wanted, other)) in paths.iter().zip(wanted.iter().zip(&others)) {
            tcp::connect_accept(path, wanted, 3)?.reset()?;
            tcp::connect_accept(path, other, 2)?.reset()?;
        }
        Ok(())
    })?;
    Ok(())
}

/// Selects by a range, and by the initiator's port.
#[test]
fn a_port_range_also_matches_the_initiator() -> Result<()> {
    if skip_unless_privileged() {
        return Ok(());
    }
    let network = segment()?;
    let path = network.path(Family::V4);
    let listener = Listener::new(&path, 0, 16)?;
    // The scan's ports begin at 20000.
    let expected = [("tcp.initiator_aborted", 2), ("tcp.attempts", 2), ("packets.filtered", 3 * 3)];
    filtered(&network, &["--port", "20001-20002"], &expected, || {
        tcp::syn_scan(&path, listener.address(), 5).map(drop)
    })?;
    Ok(())
}

#[test]
fn prefixes_select_flows() -> Result<()> {
    // The unassigned addresses end in 1 to 9.
    const ROWS: [(Family, &str, u64); 3] = [
        (Family::V4, "198.51.100.0/30", 3),
        (Family::V6, "2001:db8:100::4/126", 4),
        (Family::V6, "198.51.100.0/24", 0),
    ];
    if skip_unless_privileged() {
        return Ok(());
    }
    let network = segment()?;
    for (family, prefix, count) in ROWS {
        let path = network.path(family);
        let listener = Listener::new(&path, 0, 16)?;
        let expected = [("tcp.half_open.no_ack", count), ("tcp.attempts", count), ("packets.syn", 9)];
        filtered(&network, &["--net", prefix], &expected, || {
            tcp::syn_without_ack(&path, listener.address(), 9).map(drop)
        })?;
    }
    Ok(())
}

/// An ICMP error is filtered by the packet it quotes: it has no port itself, and another address.
#[test]
fn icmp_errors_are_filtered_by_the_quoted_packet() -> Result<()> {
    // The closed port is 9; the filtered packets are the datagrams and the ICMP errors.
    const PORTS: [(&str, u64, u64); 2] = [("9", 8, 0), ("10", 0, 16)];
    if skip_unless_privileged() {
        return Ok(());
    }
    let network = segment()?;
    for (port, unreachable, left_out) in PORTS {
        let expected = [("udp.unreachable", unreachable), ("packets.filtered", left_out)];
        filtered(&network, &["--port", port], &expected, || {
            FAMILIES.iter().try_for_each(|family| udp::closed(&network.path(*family), 4, 40).map(drop))
        })?;
    }
    Ok(())
}

/// The same for a router's ICMP error about a SYN to an unreachable address.
#[test]
fn icmp_errors_of_a_router_are_filtered_by_the_quoted_address() -> Result<()> {
    if skip_unless_privileged() {
        return Ok(());
    }
    let network = router()?;
    let Network::Router(routed) = &network else { unreachable!("it is a router") };
    let nowhere = FAMILIES.map(|family| routed.unreachable(family));
    let nets = nowhere.map(|address| address.to_string());
    let expected = [("tcp.unreachable", 4), ("tcp.attempts", 4), ("packets.icmp", 4)];
    filtered(&network, &["--net", &nets[0], "--net", &nets[1]], &expected, || {
        for (family, address) in FAMILIES.into_iter().zip(nowhere) {
            let attempts = Attempts::start(&network.path(family), SocketAddr::new(address, 80), 2)?;
            attempts.wait_unreachable(TIMEOUT)?;
        }
        Ok(())
    })?;
    Ok(())
}

/// If only the initiators' packets pass, completion is inferred with `--one-sided`, and never without it.
#[test]
fn one_direction_is_half_open_without_one_sided() -> Result<()> {
    const INGRESS: [&str; 5] = ["--direction", "ingress", "--hook", "xdp-native", "--flows"];
    if skip_unless_privileged() {
        return Ok(());
    }
    let network = segment()?;
    for (more, verdict) in [(&["--one-sided"][..], "completed"), (&[], "half_open")] {
        let path = network.path(Family::V4);
        let mut agent = network.watch(&[&INGRESS, more].concat())?;
        let _open = tcp::connect_accept(&path, &Listener::new(&path, 0, 16)?, 3)?;
        let figure_of = if verdict == "completed" { "tcp.completed" } else { "tcp.half_open.answer_unseen" };
        agent.await_report(TIMEOUT, |report| figure(report, figure_of) == 3)?;
        let outcome = agent.stop()?;
        let report = outcome.report()?;
        ensure!(figure(&report, figure_of) == 3 && figure(&report, "tcp.attempts") == 3, "{report}");
        for flow in outcome.flows()? {
            let flagged =
                flow["flags"].as_array().is_some_and(|all| all.iter().any(|flag| flag == "one_sided"));
            ensure!(flow["verdict"] == verdict && flagged != more.is_empty(), "{flow}");
        }
    }
    Ok(())
}
