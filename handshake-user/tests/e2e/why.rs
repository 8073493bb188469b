//! `handshake why` beside real faults, from the client, from the router and from the server: it names the owner
//! that the fault has, and `watch` and `check` say the same.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use handshake_lab::agent::Agent;
use handshake_lab::faults::{FAULTS, Place, drop_by};
use handshake_lab::tcp::{self, Attempts, Listener};
use handshake_lab::{Family, Namespace, Routed, skip_unless_privileged, skip_without_tool};
use serde_json::{Value, json};

use crate::HANDSHAKE;
use crate::network::TIMEOUT;

/// Attempts of a fault: enough that the look ends before its longest time.
const ATTEMPTS: usize = 40;
/// The port of the service.
const PORT: u16 = 443;

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

/// The handle of the rule with these words.
fn handle(host: &Namespace, words: &str) -> Result<u64> {
    let rules = host.run("nft", &["-a", "list ruleset"])?;
    let line = rules.lines().find(|line| line.contains(words)).context("the rule is there")?;
    Ok(line.rsplit_once("# handle ").context("it has a handle")?.1.trim().parse()?)
}

/// Makes a fault and judges what is said of it from the client, the router and the server.
fn judge(name: &str) -> Result<()> {
    if skip_unless_privileged() {
        return Ok(());
    }
    let fault = FAULTS.iter().find(|fault| fault.name == name).with_context(|| format!("no fault {name}"))?;
    fault.judge(HANDSHAKE.as_ref(), true)
}

#[test]
fn a_healthy_service_is_healthy_from_each_seat() -> Result<()> {
    judge("healthy")
}

#[test]
fn a_local_firewall_is_the_servers() -> Result<()> {
    judge("dropped by the server's firewall")
}

#[test]
fn a_router_that_drops_answers_says_so_itself() -> Result<()> {
    judge("SYN+ACKs dropped by the router")
}

#[test]
fn what_is_dropped_before_the_server_is_upstream() -> Result<()> {
    judge("SYNs dropped before the server")
}

#[test]
fn a_full_accept_queue_is_this_hosts_at_the_server_alone() -> Result<()> {
    judge("overloaded listener")
}

#[test]
fn a_port_without_a_listener_is_the_applications() -> Result<()> {
    judge("refused")
}

#[test]
fn a_server_that_accepts_and_never_answers_is_the_applications() -> Result<()> {
    judge("accepted and never answered")
}

#[test]
fn forged_sources_are_the_networks_edge() -> Result<()> {
    judge("flood")
}

#[test]
fn a_small_service_that_is_down_is_found_beside_a_busy_one() -> Result<()> {
    judge("a small service down beside a busy one")
}

/// Every fault is judged above.
#[test]
fn each_fault_has_a_test() {
    let source = include_str!("why.rs");
    for fault in &FAULTS {
        assert!(source.contains(&format!("judge(\"{}\")", fault.name)), "{}", fault.name);
    }
}

fn attempts(routed: &Routed, server: SocketAddr) -> Result<Attempts> {
    Attempts::start(&routed.path(Family::V4), server, ATTEMPTS)
}

fn listening(routed: &Routed, server: SocketAddr) -> Result<(Listener, Attempts)> {
    let listener = Listener::new(&routed.path(Family::V4), server.port(), 128)?;
    Ok((listener, attempts(routed, server)?))
}

/// The answer from a place, where a listener is there and the firewall has been prepared so.
fn asked_of(place: Place, prepare: impl Fn(&Routed) -> Result<()>) -> Result<(Routed, i32, Value)> {
    let routed = Routed::new()?;
    prepare(&routed)?;
    let server = routed.path(Family::V4).server_at(PORT);
    let (exit, answer) = asked(&routed, place, || listening(&routed, server))?;
    Ok((routed, exit, answer))
}

/// The rule that is named: the words of the answer, and the rule in JSON.
fn ensure_names(answer: &Value, rule: &Value, words: &str) -> Result<()> {
    let owner = answer["owner"].as_str().unwrap_or_default();
    ensure!(owner.ends_with(&format!("; a count of this host points to {words}")), "{answer:#}");
    ensure!(answer["because"].to_string().contains(words), "{answer:#}");
    let [named] = answer["rules"].as_array().map_or(&[][..], Vec::as_slice) else {
        bail!("one rule: {answer:#}");
    };
    for (field, value) in rule.as_object().into_iter().flatten() {
        ensure!(named[field] == *value, "{field}: {answer:#}");
    }
    ensure!(named["packets"].as_u64() >= Some(ATTEMPTS as u64 / 2), "{answer:#}");
    Ok(())
}

/// Beside a rule of another port, and one that counts before it looks at the port.
#[test]
fn a_rule_that_counts_what_it_drops_is_named() -> Result<()> {
    if skip_unless_privileged() {
        return Ok(());
    }
    let (routed, exit, answer) = asked_of(Place::Server, |routed| {
        drop_by(&routed.server, "input", "tcp dport 443 counter")?;
        routed.server.run("nft", &["add rule inet t c tcp dport 80-442 counter drop"])?;
        routed.server.run("nft", &["insert rule inet t c counter tcp dport 444 drop"]).map(drop)
    })?;
    let handle = handle(&routed.server, "tcp dport 443")?;
    let rule = json!({"family": "inet", "table": "t", "chain": "c", "handle": handle, "verdict": "drop"});
    ensure!(exit == 1, "{answer:#}");
    ensure_names(&answer, &rule, &format!("the rule inet t c handle {handle}"))?;
    ensure!(answer["next"][0] == "nft -a list chain inet t c", "{answer:#}");

    let (_routed, _, answer) =
        asked_of(Place::Client, |routed| drop_by(&routed.client, "input", "tcp sport 443 counter"))?;
    ensure_names(&answer, &json!({"chain": "c"}), "the rule inet t c handle 2")?;
    let (_routed, _, answer) =
        asked_of(Place::Router, |routed| drop_by(&routed.router, "forward", "tcp sport 443 counter"))?;
    ensure_names(&answer, &json!({"chain": "c"}), "the rule inet t c handle 2")?;
    // The client's and the server's own rules are not the router's.
    let (_routed, _, answer) =
        asked_of(Place::Router, |routed| drop_by(&routed.server, "input", "tcp dport 443 counter"))?;
    ensure!(answer["rules"].is_null(), "{answer:#}");
    Ok(())
}

#[test]
fn a_rule_without_a_counter_is_not_named() -> Result<()> {
    if skip_unless_privileged() {
        return Ok(());
    }
    let (_routed, exit, answer) = asked_of(Place::Server, |routed| {
        drop_by(&routed.server, "input", "tcp dport 443")?;
        routed.server.run("nft", &["insert rule inet t c tcp dport 444 counter drop"]).map(drop)
    })?;
    ensure!(exit == 1 && answer["owner"] == "this host: a local firewall, or no route back", "{answer:#}");
    ensure!(answer["rules"].is_null(), "{answer:#}");
    if Path::new("/proc/net/stat/nf_conntrack").exists() {
        let limit = fs::read_to_string("/proc/sys/net/netfilter/nf_conntrack_max")?;
        ensure!(answer["conntrack"]["limit"] == limit.trim().parse::<u64>()?, "{answer:#}");
    }
    Ok(())
}

/// A rule that answers by RST looks like a port that is closed, but for the listener.
#[test]
fn a_rule_that_rejects_is_named() -> Result<()> {
    if skip_unless_privileged() {
        return Ok(());
    }
    for place in [Place::Server, Place::Router] {
        let hook = if matches!(place, Place::Server) { "input" } else { "forward" };
        let (_routed, exit, answer) = asked_of(place, |routed| {
            let chain = format!("add chain inet t c {{ type filter hook {hook} priority 0; }}");
            let rule = "add rule inet t c tcp dport 443 counter reject with tcp reset";
            for line in ["add table inet t", &chain, rule] {
                place.host(routed).run("nft", &[line])?;
            }
            Ok(())
        })?;
        ensure!(exit == 1, "{answer:#}");
        ensure_names(&answer, &json!({"verdict": "reject_with_tcp_reset"}), "the rule inet t c handle 2")?;
    }
    Ok(())
}

/// What iptables-nft writes is nftables: a rule, and the policy of a chain.
#[test]
fn the_rules_of_iptables_are_named() -> Result<()> {
    if skip_unless_privileged() || skip_without_tool("iptables-nft") {
        return Ok(());
    }
    let (_routed, _, answer) = asked_of(Place::Server, |routed| {
        routed.server.run("iptables-nft", &["-A", "INPUT", "-p", "tcp", "--dport", "443", "-j", "DROP"])?;
        Ok(())
    })?;
    ensure_names(&answer, &json!({"family": "ip", "verdict": "drop"}), "the rule ip filter INPUT handle 2")?;
    let (_routed, _, answer) = asked_of(Place::Server, |routed| {
        routed.server.run("iptables-nft", &["-P", "INPUT", "DROP"])?;
        Ok(())
    })?;
    ensure_names(&answer, &json!({"handle": null}), "the policy of the chain ip filter INPUT")
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

/// Attempts that fail and attempts that complete are counted over the same time. Half of them fail, and they begin
/// all the time: of those that are open at the end, more began than of those that are judged.
#[test]
fn a_share_is_of_attempts_of_one_time() -> Result<()> {
    /// Attempts each 20 ms: many in the time between two looks.
    const BURST: usize = 20;
    if skip_unless_privileged() {
        return Ok(());
    }
    let routed = Routed::new()?;
    drop_by(&routed.server, "input", "tcp dport 443 tcp sport & 2 == 2")?;
    let path = routed.path(Family::V4);
    let server = path.server_at(PORT);
    let listener = Listener::new(&path, PORT, 4096)?;
    let (_, answer) = asked(&routed, Place::Server, || {
        let mut all = Vec::new();
        for _ in 0..40 {
            all.push(Attempts::start(&path, server, BURST)?);
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok((all, listener))
    })?;
    let figure = |name: &str| answer[name].as_u64().unwrap_or_default();
    let (attempts, completed) = (figure("attempts"), figure("completed"));
    ensure!(attempts >= 30, "{answer:#}");
    // The kernel draws the ports: with a hundred of them, three standard deviations are 15 points.
    let percent = 100 * (attempts - completed) / attempts;
    ensure!((35..=65).contains(&percent), "{percent} %: {answer:#}");
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
