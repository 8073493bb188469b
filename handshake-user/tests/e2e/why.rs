//! `handshake why` beside real faults, from the client, from the router and from the server: it names the owner
//! that the fault has, and `watch` and `check` say the same.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use handshake_lab::agent::Agent;
use handshake_lab::tcp::{self, Attempts, Listener};
use handshake_lab::topology::{DEVICE, FAR_DEVICE};
use handshake_lab::{Family, Namespace, Routed, skip_unless_privileged};
use serde_json::Value;

use crate::HANDSHAKE;
use crate::network::TIMEOUT;

/// Attempts of a fault: enough that the look ends before its longest time.
const ATTEMPTS: usize = 40;
/// The port of the service.
const PORT: u16 = 443;

/// From where it is looked.
#[derive(Clone, Copy, Debug)]
enum Place {
    Client,
    Router,
    Server,
}

impl Place {
    fn host(self, routed: &Routed) -> &Namespace {
        match self {
            Self::Client => &routed.client,
            Self::Router => &routed.router,
            Self::Server => &routed.server,
        }
    }

    const fn devices(self) -> &'static [&'static str] {
        match self {
            Self::Client | Self::Server => &[DEVICE],
            Self::Router => &[DEVICE, FAR_DEVICE],
        }
    }
}

/// The answer, beside what `act` does after the hooks are on.
fn asked<T>(routed: &Routed, place: Place, act: impl FnOnce() -> Result<T>) -> Result<(i32, Value)> {
    let mut command = place.host(routed).command(HANDSHAKE);
    command.args(["why", ":443", "-o", "json", "--half-open-after", "400ms", "--max-flows", "1000"]);
    for device in place.devices() {
        command.args(["-i", device]);
    }
    let agent = Agent::attach(command, place.devices().len())?;
    let _traffic = act()?;
    let outcome = agent.wait(Duration::from_secs(15).max(TIMEOUT))?;
    let answer = outcome.values()?.pop().with_context(|| format!("no answer: {}", outcome.stderr))?;
    handshake_lab::schema::check(&answer)?;
    Ok((outcome.status.code().unwrap_or(-1), answer))
}

/// Makes a host drop what matches a rule of nftables.
fn drop_by(host: &Namespace, hook: &str, rule: &str) -> Result<()> {
    let chain = format!("add chain inet t c {{ type filter hook {hook} priority 0; }}");
    for line in ["add table inet t", &chain, &format!("add rule inet t c {rule} drop")] {
        host.run("nft", &[line])?;
    }
    Ok(())
}

/// Checks the answer from each place: its exit code, and words of the owner.
fn assert_owners<T>(
    prepare: impl Fn(&Routed) -> Result<()>,
    act: impl Fn(&Routed, SocketAddr) -> Result<T>,
    expected: [(Place, i32, &str); 3],
) -> Result<()> {
    if skip_unless_privileged() {
        return Ok(());
    }
    for (place, code, words) in expected {
        let routed = Routed::new()?;
        prepare(&routed)?;
        let server = routed.path(Family::V4).server_at(PORT);
        let (exit, answer) = asked(&routed, place, || act(&routed, server))?;
        let owner = answer["owner"].as_str().unwrap_or_default();
        ensure!(exit == code && owner.contains(words), "{place:?}: exit {exit}: {answer:#}");
        ensure!(answer["exact"] == true, "{place:?}: {answer:#}");
    }
    Ok(())
}

fn attempts(routed: &Routed, server: SocketAddr) -> Result<Attempts> {
    Attempts::start(&routed.path(Family::V4), server, ATTEMPTS)
}

fn listening(routed: &Routed, server: SocketAddr) -> Result<(Listener, Attempts)> {
    let listener = Listener::new(&routed.path(Family::V4), server.port(), 128)?;
    Ok((listener, attempts(routed, server)?))
}

#[test]
fn a_healthy_service_is_healthy_from_each_seat() -> Result<()> {
    let owners = [(Place::Client, 0, ""), (Place::Router, 0, ""), (Place::Server, 0, "")];
    assert_owners(|_| Ok(()), listening, owners)
}

#[test]
fn a_local_firewall_is_the_servers() -> Result<()> {
    let prepare = |routed: &Routed| drop_by(&routed.server, "input", "tcp dport 443");
    let owners = [
        (Place::Client, 1, "the path, or the far host"),
        (Place::Router, 1, "the responder's side"),
        (Place::Server, 1, "this host: a local firewall"),
    ];
    assert_owners(prepare, listening, owners)
}

#[test]
fn a_router_that_drops_answers_says_so_itself() -> Result<()> {
    let prepare = |routed: &Routed| drop_by(&routed.router, "forward", "tcp sport 443");
    let owners = [
        (Place::Client, 1, "the path, or the far host"),
        (Place::Router, 1, "this host: it does not pass them on"),
        (Place::Server, 1, "the network back to the clients"),
    ];
    assert_owners(prepare, listening, owners)
}

#[test]
fn what_is_dropped_before_the_server_is_upstream() -> Result<()> {
    let prepare = |routed: &Routed| drop_by(&routed.router, "forward", "tcp dport 443");
    let owners = [
        (Place::Client, 1, "the path, or the far host"),
        (Place::Router, 1, "this host, unless they leave by a way that is not watched"),
        (Place::Server, 3, "what is before this host"),
    ];
    assert_owners(prepare, listening, owners)
}

#[test]
fn a_port_without_a_listener_is_the_applications() -> Result<()> {
    let owners = [
        (Place::Client, 1, "the responder"),
        (Place::Router, 1, "the responder"),
        (Place::Server, 1, "the application: it does not run"),
    ];
    assert_owners(|_| Ok(()), attempts, owners)
}

/// The listener was there before: its process is named.
#[test]
fn a_full_accept_queue_is_the_applications() -> Result<()> {
    if skip_unless_privileged() {
        return Ok(());
    }
    let routed = Routed::new()?;
    let path = routed.path(Family::V4);
    let listener = Listener::new(&path, PORT, 3)?;
    let queued = Attempts::start(&path, listener.address(), 4)?;
    queued.wait_established(TIMEOUT)?;
    let (exit, answer) = asked(&routed, Place::Server, || attempts(&routed, listener.address()))?;
    ensure!(exit == 1, "{answer:#}");
    let text = |field: &str| answer[field].to_string();
    ensure!(text("owner").contains("accepts too slowly"), "{answer:#}");
    ensure!(text("because").contains("its accept queue is full: 4 of 3 waiting"), "{answer:#}");
    ensure!(text("because").contains("ListenOverflows +"), "{answer:#}");
    ensure!(text("process").contains(&format!("[{}]", std::process::id())), "{answer:#}");
    Ok(())
}

/// Nothing is no health.
#[test]
fn where_nothing_comes_nothing_is_said() -> Result<()> {
    if skip_unless_privileged() {
        return Ok(());
    }
    let routed = Routed::new()?;
    let (exit, answer) = asked(&routed, Place::Server, || Ok(()))?;
    ensure!(exit == 3 && answer["outcome"] == "not_enough", "{answer:#}");
    ensure!(answer["because"].to_string().contains("no SYN to :443 reached eth0"), "{answer:#}");
    let few = Routed::new()?;
    let path = few.path(Family::V4);
    let (exit, answer) = asked(&few, Place::Server, || tcp::refused(&path, 2))?;
    ensure!(exit == 3, "two attempts say nothing: {answer:#}");
    Ok(())
}
