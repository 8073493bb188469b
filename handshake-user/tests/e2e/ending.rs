//! Tests that an agent leaves nothing behind, however it ends.

use std::os::unix::process::ExitStatusExt;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use handshake_lab::bpf::{self, TestHook};
use handshake_lab::topology::DEVICE;
use handshake_lab::{Namespace, skip_unless_privileged};
use serde_json::Value;

use crate::books::check;
use crate::network::{Network, TIMEOUT, loopback, segment};

/// The traces of an agent on a device.
#[derive(Debug, PartialEq, Eq)]
struct Traces {
    xdp: bool,
    ingress: usize,
    egress: usize,
    promiscuous: u64,
}

const NONE: Traces = Traces { xdp: false, ingress: 0, egress: 0, promiscuous: 0 };

fn traces(host: &Namespace) -> Result<Traces> {
    let said = host.run("ip", &["-d", "-j", "link", "show", DEVICE])?;
    let link: Value = serde_json::from_str(&said).context("read what ip says")?;
    Ok(Traces {
        xdp: bpf::xdp(host, DEVICE)?.is_some(),
        ingress: bpf::chain(host, DEVICE, TestHook::TcxIngress)?.len(),
        egress: bpf::chain(host, DEVICE, TestHook::TcxEgress)?.len(),
        promiscuous: link[0]["promiscuity"].as_u64().context("promiscuity")?,
    })
}

/// The kernel closes a dead process's descriptors some time after its end.
fn await_none(host: &Namespace) -> Result<()> {
    let deadline = Instant::now() + TIMEOUT;
    while traces(host)? != NONE {
        ensure!(Instant::now() < deadline, "traces remain: {:?}", traces(host)?);
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    Ok(())
}

#[test]
fn kill_9_leaves_nothing() -> Result<()> {
    const ROWS: [(&str, Traces); 3] = [
        ("tcx", Traces { xdp: false, ingress: 1, egress: 1, promiscuous: 1 }),
        ("xdp-native", Traces { xdp: true, ingress: 0, egress: 1, promiscuous: 1 }),
        ("xdp-generic", Traces { xdp: true, ingress: 0, egress: 1, promiscuous: 1 }),
    ];
    if skip_unless_privileged() {
        return Ok(());
    }
    let network = segment()?;
    for (hook, attached) in ROWS {
        let agent = network.watch(&["--hook", hook, "--promisc"])?;
        ensure!(traces(network.host())? == attached, "{hook}: {:?}", traces(network.host())?);
        let outcome = agent.kill()?;
        ensure!(outcome.status.signal() == Some(libc::SIGKILL), "{outcome:?}");
        await_none(network.host()).with_context(|| hook)?;
    }
    Ok(())
}

/// clsact has no link: the next start removes what a killed agent left, and reports it.
#[test]
fn the_next_start_removes_what_a_killed_agent_left_on_clsact() -> Result<()> {
    if skip_unless_privileged() {
        return Ok(());
    }
    let network = segment()?;
    let filters = || {
        let both = ["ingress", "egress"];
        let shown = both.map(|way| network.host().run("tc", &["filter", "show", "dev", DEVICE, way]));
        shown.into_iter().map(|text| Ok(text?.matches("handshake_").count())).sum::<Result<usize>>()
    };
    network.watch(&["--hook", "clsact"])?.kill()?;
    let left = filters()?;
    ensure!(left > 0, "kill -9 removed the filters, so there is nothing to test");
    let mut agent = network.watch(&["--hook", "clsact"])?;
    ensure!(
        agent.stderr().lines().any(|line| line.contains("of an agent that was killed")),
        "{}",
        agent.stderr()
    );
    ensure!(filters()? == left, "{} filters, {left} before", filters()?);
    agent.stop()?;
    ensure!(filters()? == 0, "{} filters", filters()?);
    Ok(())
}

/// A lost interface ends the run with its last report and an error.
#[test]
fn a_lost_interface_is_reported() -> Result<()> {
    if skip_unless_privileged() {
        return Ok(());
    }
    let network = segment()?;
    let agent = network.watch(&[])?;
    network.host().ip(&[&format!("link del {DEVICE}")])?;
    let outcome = agent.wait(TIMEOUT)?;
    ensure!(outcome.status.code() == Some(4), "{outcome:?}");
    ensure!(outcome.stderr.lines().last().is_some_and(|line| line.contains("eth0 is gone")), "{outcome:?}");
    check(&outcome.report()?)
}

/// Two agents at once: each has its own place on the hooks and its own figures.
#[test]
fn two_agents_do_not_disturb_each_other() -> Result<()> {
    if skip_unless_privileged() {
        return Ok(());
    }
    let network = loopback()?;
    let Network::Loopback(lo) = &network else { unreachable!("it is loopback") };
    let (first, second) = (network.watch(&[])?, network.watch(&[])?);
    let path = lo.path(handshake_lab::Family::V4);
    let listener = handshake_lab::tcp::Listener::new(&path, 0, 16)?;
    handshake_lab::tcp::connect_accept(&path, &listener, 3)?.reset()?;
    for agent in [first, second] {
        let report = crate::books::balanced(&agent.stop()?)?;
        ensure!(report["tcp"]["completed"] == 3 && report["packets"]["total"] == 12, "{report}");
    }
    Ok(())
}
