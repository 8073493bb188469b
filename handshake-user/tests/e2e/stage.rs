//! All scenarios on every kind of network and hook: a report's figures match the traffic, its packets the
//! wire, and its header the kernel.

use anyhow::{Context, Result, ensure};
use handshake_lab::agent::Agent;
use handshake_lab::bpf::{self, AttachedProgram, Program, RunOutcome, TestHook};
use handshake_lab::tap::Tap;
use handshake_lab::{FAMILIES, Family, Namespace, skip_unless_privileged};
use serde_json::{Value, json};

use crate::books::{Figures, balanced, change, check_at_rest, figure, tally, without};
use crate::network::{Network, TIMEOUT, loopback, router, segment, tagged};
use crate::scenario::{DATAGRAM, SCENARIOS, Scenario};

/// A network, a foreign program on its hooks, and how handshake watches it.
struct Stage {
    network: fn() -> Result<Network>,
    /// A foreign program on a hook, attached before handshake.
    foreign: Option<(TestHook, RunOutcome)>,
    /// Arguments of `handshake watch`, beside the interfaces.
    arguments: &'static [&'static str],
    /// The hooks that the header must name for each interface: ingress, and egress if it is watched.
    hooks: [&'static str; 2],
}

const BOTH_TCX: [&str; 2] = ["tcx", "tcx"];

#[test]
fn on_a_segment_by_tcx() -> Result<()> {
    Stage { network: segment, foreign: None, arguments: &[], hooks: BOTH_TCX }.play()
}

#[test]
fn on_a_segment_by_native_xdp() -> Result<()> {
    let arguments = &["--hook", "xdp-native"];
    Stage { network: segment, foreign: None, arguments, hooks: ["xdp-native", "tcx"] }.play()
}

#[test]
fn on_a_segment_by_clsact() -> Result<()> {
    let arguments = &["--hook", "clsact"];
    Stage { network: segment, foreign: None, arguments, hooks: ["clsact", "clsact"] }.play()
}

#[test]
fn on_loopback_by_tcx() -> Result<()> {
    Stage { network: loopback, foreign: None, arguments: &[], hooks: ["tcx", ""] }.play()
}

#[test]
fn on_loopback_by_generic_xdp() -> Result<()> {
    let arguments = &["--hook", "xdp-generic"];
    Stage { network: loopback, foreign: None, arguments, hooks: ["xdp-generic", ""] }.play()
}

#[test]
fn behind_a_foreign_generic_xdp_program() -> Result<()> {
    let foreign = Some((TestHook::XdpGeneric, RunOutcome::XdpPass));
    Stage { network: segment, foreign, arguments: &[], hooks: BOTH_TCX }.play()
}

#[test]
fn beside_a_foreign_native_xdp_program() -> Result<()> {
    let foreign = Some((TestHook::XdpNative, RunOutcome::XdpPass));
    Stage { network: segment, foreign, arguments: &[], hooks: BOTH_TCX }.play()
}

#[test]
fn with_a_tcx_program_that_ends_the_chain() -> Result<()> {
    let foreign = Some((TestHook::TcxIngress, RunOutcome::EndsChain));
    Stage { network: segment, foreign, arguments: &[], hooks: BOTH_TCX }.play()
}

/// Received frames have other tags than sent ones; XDP finds them in the frame's bytes.
#[test]
fn through_tags_that_differ_by_direction() -> Result<()> {
    let arguments = &["--hook", "xdp-native"];
    Stage { network: tagged, foreign: None, arguments, hooks: ["xdp-native", "tcx"] }.play()
}

/// TC finds the outermost tag beside the frame's bytes.
#[test]
fn through_tags_by_tcx() -> Result<()> {
    Stage { network: tagged, foreign: None, arguments: &[], hooks: BOTH_TCX }.play()
}

#[test]
fn on_a_router_in_both_directions_at_both_interfaces() -> Result<()> {
    Stage { network: router, foreign: None, arguments: &[], hooks: BOTH_TCX }.play()
}

#[test]
fn on_a_router_by_ingress_at_both_interfaces() -> Result<()> {
    let arguments = &["--direction", "ingress", "--hook", "xdp-native"];
    Stage { network: router, foreign: None, arguments, hooks: ["xdp-native", ""] }.play()
}

impl Stage {
    /// Runs every scenario over both families under one agent.
    fn play(&self) -> Result<()> {
        if skip_unless_privileged() {
            return Ok(());
        }
        let network = (self.network)()?;
        let _foreign = self.foreign.as_ref().map(|foreign| occupy(&network, foreign)).transpose()?;
        let taps = network.devices().iter().map(|device| Tap::open(network.host(), device));
        let mut taps = taps.collect::<Result<Vec<Tap>>>()?;
        let mut agent = network.watch(self.arguments)?;
        let mut report = agent.await_report(TIMEOUT, |_| true)?;
        self.check_header(&network, &report)?;
        let mut syn_acks = 0;
        for scenario in SCENARIOS {
            for family in FAMILIES {
                let what = || format!("{} over {family:?}", scenario.name);
                report = act(&network, family, scenario, &mut agent, &report).with_context(what)?;
                syn_acks += scenario.answered;
            }
        }
        let outcome = agent.stop()?;
        ensure!(outcome.status.success(), "{outcome:?}");
        let last = balanced(&outcome)?;
        self.check_wire(&mut taps, &last)?;
        check_retransmissions(&mut taps[0], network.devices()[0], &last, syn_acks)
    }

    /// Checks that the kernel has handshake's programs on the hooks that the header names.
    fn check_header(&self, network: &Network, report: &Value) -> Result<()> {
        let interfaces = report["source"]["interfaces"].as_array().context("interfaces")?;
        ensure!(interfaces.len() == network.devices().len(), "{report}");
        for (interface, device) in interfaces.iter().zip(network.devices()) {
            ensure!(interface["name"] == *device, "{interface}");
            for (way, hook) in ["ingress", "egress"].into_iter().zip(self.hooks) {
                let said = interface.get(way).and_then(Value::as_str).unwrap_or_default();
                ensure!(said == hook, "{way} by {hook}: {interface}");
                ensure!(
                    ours_on(network.host(), device, way)? == hook,
                    "the kernel does not have {hook} on {way} of {device}"
                );
            }
            let merged = self.hooks[0] == "xdp-generic";
            ensure!(interface.get("segments") == merged.then(|| json!("merged")).as_ref(), "{interface}");
        }
        Ok(())
    }

    /// Checks that each interface counted the frames on the wire, class by class.
    fn check_wire(&self, taps: &mut [Tap], report: &Value) -> Result<()> {
        for (at, tap) in taps.iter_mut().enumerate() {
            let interface = &report["source"]["interfaces"][at];
            let traffic = tap.traffic()?;
            let wire = if self.hooks[1].is_empty() { traffic.received } else { traffic.both() };
            let saw = tally(&interface["packets"]);
            ensure!(saw == wire, "{}: the wire had {wire:?}, the report {saw:?}", interface["name"]);
        }
        Ok(())
    }
}

/// Attaches a foreign program where handshake's would be.
fn occupy(network: &Network, (hook, outcome): &(TestHook, RunOutcome)) -> Result<AttachedProgram> {
    bpf::attach(network.host(), network.devices()[0], *hook, &Program::returning(*outcome))
}

/// Runs one scenario; returns the first report that has all its figures.
fn act(
    network: &Network,
    family: Family,
    scenario: &Scenario,
    agent: &mut Agent,
    before: &Value,
) -> Result<Value> {
    let kept = (scenario.run)(&network.path(family))?;
    let expected = expected(scenario, family);
    let report = agent
        .await_report(TIMEOUT, |report| settled(before, report) == expected)
        .with_context(|| format!("expected {expected:?} beside {before}"))?;
    check_at_rest(&report)?;
    drop(kept);
    Ok(report)
}

fn expected(scenario: &Scenario, family: Family) -> Figures {
    let mut figures: Figures =
        scenario.adds.iter().map(|(path, count)| ((*path).to_owned(), *count)).collect();
    if let Some(packets) = figures.get("udp.packets") {
        let headers = if family == Family::V4 { 20 + 8 } else { 40 + 8 };
        figures.insert("udp.bytes".to_owned(), packets * (i64::try_from(DATAGRAM).unwrap_or(0) + headers));
    }
    figures
}

/// The changes without sums, which [`check_at_rest`] checks, and without figures that depend on the machine's
/// load: how long a completion took, and retransmissions, which are compared with the wire at the end.
fn settled(before: &Value, after: &Value) -> Figures {
    const FOLLOWS: [&str; 6] = [
        "tcp.attempts",
        "tcp.half_open.now",
        "tcp.late",
        "tcp.signs.syn_retransmits",
        "tcp.signs.syn_ack_retransmits",
        "udp.flows",
    ];
    without(change(before, after), &FOLLOWS)
}

/// The hook where the kernel has handshake's program for one direction of `device`, as the header names it;
/// in a chain it must be first.
fn ours_on(host: &Namespace, device: &str, way: &str) -> Result<&'static str> {
    // Names as the kernel truncates them.
    let (hook, name) = match way {
        "ingress" => (TestHook::TcxIngress, "handshake_ingre"),
        _ => (TestHook::TcxEgress, "handshake_egres"),
    };
    let is = |id: u32, name: &str| Ok::<_, anyhow::Error>(bpf::program(id)?.name == name);
    if let Some(first) = bpf::chain(host, device, hook)?.first()
        && is(*first, name)?
    {
        return Ok("tcx");
    }
    if let Some((id, mode)) = bpf::xdp(host, device)?
        && way == "ingress"
        && is(id, "handshake_xdp")?
    {
        return Ok(if mode == TestHook::XdpNative { "xdp-native" } else { "xdp-generic" });
    }
    let filters = host.run("tc", &["filter", "show", "dev", device, way])?;
    Ok(if filters.contains(name) { "clsact" } else { "" })
}

/// A SYN that began no attempt was a retransmission, and likewise for SYN+ACKs: as many as the first device
/// had, although several hooks saw each.
fn check_retransmissions(tap: &mut Tap, device: &str, report: &Value, syn_acks: i64) -> Result<()> {
    let traffic = tap.traffic()?;
    let wire = if device == "lo" { traffic.received } else { traffic.both() };
    let syns = figure(report, "tcp.attempts") + figure(report, "tcp.signs.syn_retransmits");
    ensure!(wire.syn == syns, "{} SYNs on the wire, {syns} in the books of {report}", wire.syn);
    let again = i64::try_from(figure(report, "tcp.signs.syn_ack_retransmits"))?;
    ensure!(i64::try_from(wire.syn_ack)? == syn_acks + again, "{wire:?}, but {again} SYN+ACKs again");
    Ok(())
}
