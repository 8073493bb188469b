//! Compares the report with the kernel's own tools: where the programs are, how often they ran, what the
//! tables contain.

use anyhow::{Context, Result, ensure};
use handshake_lab::bpf::{self, TestHook};
use handshake_lab::tap::{Dump, Tap};
use handshake_lab::tcp::{self, Listener};
use handshake_lab::topology::DEVICE;
use handshake_lab::{FAMILIES, Family, Namespace, counters, skip_unless_privileged, skip_without_tool};
use serde_json::Value;

use crate::books::{balanced, figure};
use crate::network::{Network, TIMEOUT, scratch, segment};

/// The output of bpftool as JSON.
fn bpftool(host: &Namespace, words: &[&str]) -> Result<Value> {
    let said = host.run("bpftool", &[&["-j"], words].concat())?;
    serde_json::from_str(&said).with_context(|| format!("read what bpftool {words:?} says"))
}

/// `ip link`, `bpftool net` and `bpftool prog show` report the program in the mode that the header names.
#[test]
fn the_kernels_tools_agree_with_the_header() -> Result<()> {
    const ROWS: [(&str, &str); 2] = [("xdp-native", "driver"), ("xdp-generic", "generic")];
    if skip_unless_privileged() || skip_without_tool("bpftool") {
        return Ok(());
    }
    let network = segment()?;
    for (hook, mode) in ROWS {
        let mut agent = network.watch(&["--hook", hook])?;
        let report = agent.await_report(TIMEOUT, |_| true)?;
        let interface = &report["source"]["interfaces"][0];
        ensure!(interface["ingress"] == hook && interface["egress"] == "tcx", "{interface}");
        let net = bpftool(network.host(), &["net", "show"])?;
        let on = &net[0]["xdp"][0];
        ensure!(on["devname"] == DEVICE && on["mode"] == mode, "{hook}: {net}");
        let linked = bpf::xdp(network.host(), DEVICE)?.context("ip link shows no program")?.0;
        ensure!(on["id"] == linked, "ip link has program {linked}, bpftool {net}");
        let egress =
            *bpf::chain(network.host(), DEVICE, TestHook::TcxEgress)?.first().context("no egress")?;
        for (id, kind, name) in [(linked, "xdp", "handshake_xdp"), (egress, "sched_cls", "handshake_egress")]
        {
            let program = bpftool(network.host(), &["prog", "show", "id", &id.to_string()])?;
            ensure!(program["type"] == kind && program["name"] == name, "{program}");
        }
        agent.stop()?;
    }
    Ok(())
}

/// A record printed by bpftool has named fields, whose values match tcpdump.
#[test]
fn bpftool_shows_a_connection_that_was_just_made() -> Result<()> {
    if skip_unless_privileged() || skip_without_tool("bpftool") || skip_without_tool("tcpdump") {
        return Ok(());
    }
    let network = segment()?;
    let path = network.path(Family::V4);
    let mut agent = network.watch(&["--flows"])?;
    let dump = Dump::start(network.host(), DEVICE, &scratch("connection"))?;
    let connection = tcp::connect_accept(&path, &Listener::new(&path, 0, 16)?, 1)?;
    connection.talk(100)?;
    // Each end has acknowledged the other's data once both are delivered and no packet is in flight.
    agent.await_report(TIMEOUT, |report| figure(report, "packets.ack") >= 5)?;
    let written = dump.stop()?;
    let acks = written.count("tcp[13] & 0x17 = 0x10")?;
    let record = only_record(&network)?;
    let tcp = &record["body"]["tcp"];
    ensure!(tcp["syn"] == 1 && tcp["syn_ack"] == 1 && tcp["ack"] == acks, "{acks} ACKs, but {record}");
    let outcome = agent.stop()?;
    let (report, flows) = (balanced(&outcome)?, outcome.flows()?);
    ensure!(figure(&report, "packets.ack") == acks as u64, "{acks} ACKs, but {report}");
    ensure!(flows.len() == 1 && flows[0]["ack"] == acks && flows[0]["verdict"] == "completed", "{flows:?}");
    for (in_flow, in_record) in [("isn_initiator", "isn_initiator"), ("isn_responder", "isn_responder")] {
        ensure!(flows[0][in_flow] == tcp[in_record], "{in_flow}: {} and {record}", flows[0]);
    }
    Ok(())
}

/// The only record of the IPv4 table, as bpftool prints it.
fn only_record(network: &Network) -> Result<Value> {
    let program = *bpf::chain(network.host(), DEVICE, TestHook::TcxIngress)?.first().context("no program")?;
    let program = bpftool(network.host(), &["prog", "show", "id", &program.to_string()])?;
    for id in program["map_ids"].as_array().context("maps")? {
        let id = id.to_string();
        if bpftool(network.host(), &["map", "show", "id", &id])?["name"] == "FLOWS4" {
            let dump = bpftool(network.host(), &["map", "dump", "id", &id])?;
            let sets = dump.as_array().context("sets")?.iter().map(|set| &set["formatted"]["value"]);
            let slots = sets.filter_map(Value::as_array).flatten();
            let used: Vec<&Value> = slots.filter(|slot| slot["ports"] != 0).collect();
            ensure!(used.len() == 1, "{} records", used.len());
            return Ok(used[0].clone());
        }
    }
    anyhow::bail!("no map FLOWS4 in {program}")
}

/// The program ran once per frame that the driver received.
#[test]
fn the_program_runs_once_per_frame() -> Result<()> {
    if skip_unless_privileged() || skip_without_tool("ethtool") {
        return Ok(());
    }
    let network = segment()?;
    let mut agent = network.watch(&["--hook", "xdp-native"])?;
    let program = bpf::xdp(network.host(), DEVICE)?.context("no program")?.0;
    let mut tap = Tap::open(network.host(), DEVICE)?;
    let counted = bpf::RunCounts::hold()?;
    // Another process may already count runs.
    let earlier = bpf::program(program)?.runs;
    let before = counters::xdp_packets(network.host(), DEVICE)?;
    for path in FAMILIES.map(|family| network.path(family)) {
        let connections = tcp::connect_accept(&path, &Listener::new(&path, 0, 16)?, 10)?;
        connections.talk(100)?;
        connections.reset()?;
    }
    let runs = bpf::program(program)?.runs - earlier;
    drop(counted);
    let frames = counters::xdp_packets(network.host(), DEVICE)? - before;
    let wire = tap.traffic()?;
    ensure!(runs == frames && frames == wire.received.total(), "{runs} runs, {frames} frames, {wire:?}");
    // A report may come before the last frames.
    let report =
        agent.await_report(TIMEOUT, |report| figure(report, "packets.total") >= wire.both().total())?;
    ensure!(figure(&report, "packets.total") == wire.both().total(), "{wire:?}, but {report}");
    ensure!(figure(&report, "tcp.completed") == 20, "{report}");
    agent.stop()?;
    Ok(())
}
