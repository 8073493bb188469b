//! `--port`, `--net` and `--one-sided`: which flows count, and that everything else is still counted at the hook.

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use handshake_lab::tcp::{self, Attempts, Listener};
use handshake_lab::{Family, skip_unless_privileged, udp};
use serde_json::Value;

use crate::books::{balanced, figure};
use crate::network::{Network, PATIENCE, router, segment};

/// Traffic under an agent with `arguments`; the report that has `expected`.
fn filtered(
    network: &Network,
    arguments: &[&str],
    expected: &[(&str, u64)],
    act: impl FnOnce() -> Result<()>,
) -> Result<Value> {
    let mut agent = network.watch(arguments)?;
    act()?;
    let is_expected = |report: &Value| expected.iter().all(|(path, count)| figure(report, path) == *count);
    agent.await_report(PATIENCE, is_expected).with_context(|| format!("{arguments:?}: {expected:?}"))?;
    let outcome = agent.stop()?;
    let last = balanced(&outcome)?;
    ensure!(is_expected(&last), "{arguments:?}: {expected:?} did not last: {last}");
    Ok(last)
}

/// A flow counts when either end has the port; the others' packets are counted as left out.
#[test]
fn ports_choose_flows() -> Result<()> {
    if skip_unless_privileged() {
        return Ok(());
    }
    let network = segment()?;
    let paths = Family::ALL.map(|family| network.path(family));
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

/// By a range, and by the initiator's port.
#[test]
fn a_port_may_be_the_initiators() -> Result<()> {
    if skip_unless_privileged() {
        return Ok(());
    }
    let network = segment()?;
    let path = network.path(Family::V4);
    let listener = Listener::new(&path, 0, 16)?;
    // The scan's come from 20000 on.
    let expected = [("tcp.initiator_aborted", 2), ("tcp.attempts", 2), ("packets.filtered", 3 * 3)];
    filtered(&network, &["--port", "20001-20002"], &expected, || {
        tcp::syn_scan(&path, listener.address(), 5).map(drop)
    })?;
    Ok(())
}

#[test]
fn prefixes_choose_flows() -> Result<()> {
    // Nobody's addresses end in 1 to 9.
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

/// An ICMP error counts where what it quotes does: it has no port, and another address.
#[test]
fn icmp_is_chosen_by_what_it_quotes() -> Result<()> {
    // A closed port is 9; what is left out are the datagrams and their answers.
    const PORTS: [(&str, u64, u64); 2] = [("9", 8, 0), ("10", 0, 16)];
    if skip_unless_privileged() {
        return Ok(());
    }
    let network = segment()?;
    for (port, unreachable, left_out) in PORTS {
        let expected = [("udp.unreachable", unreachable), ("packets.filtered", left_out)];
        filtered(&network, &["--port", port], &expected, || {
            Family::ALL.iter().try_for_each(|family| udp::closed(&network.path(*family), 4, 40).map(drop))
        })?;
    }
    Ok(())
}

/// … also where the router sends it, for a SYN to an address that it cannot reach.
#[test]
fn icmp_of_a_router_is_chosen_by_the_address_it_quotes() -> Result<()> {
    if skip_unless_privileged() {
        return Ok(());
    }
    let network = router()?;
    let Network::Router(routed) = &network else { unreachable!("it is a router") };
    let nowhere = Family::ALL.map(|family| routed.unreachable(family));
    let nets = nowhere.map(|address| address.to_string());
    let expected = [("tcp.unreachable", 4), ("tcp.attempts", 4), ("packets.icmp", 4)];
    filtered(&network, &["--net", &nets[0], "--net", &nets[1]], &expected, || {
        for (family, address) in Family::ALL.into_iter().zip(nowhere) {
            let attempts = Attempts::start(&network.path(family), SocketAddr::new(address, 80), 2)?;
            attempts.wait_unreachable(PATIENCE)?;
        }
        Ok(())
    })?;
    Ok(())
}

/// Where only the initiators' packets pass, completion is inferred when it is said so, and never guessed.
#[test]
fn one_direction_is_taken_for_half_unless_told() -> Result<()> {
    const INGRESS: [&str; 5] = ["--direction", "ingress", "--hook", "xdp-native", "--flows"];
    if skip_unless_privileged() {
        return Ok(());
    }
    let network = segment()?;
    for (more, verdict) in [(&["--one-sided"][..], "completed"), (&[], "half_open")] {
        let path = network.path(Family::V4);
        let mut agent = network.watch(&[&INGRESS, more].concat())?;
        let _open = tcp::connect_accept(&path, &Listener::new(&path, 0, 16)?, 3)?;
        let figure_of = if verdict == "completed" { "tcp.completed" } else { "tcp.half_open.no_syn_ack" };
        agent.await_report(PATIENCE, |report| figure(report, figure_of) == 3)?;
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
