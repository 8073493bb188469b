//! Tests the lab against the kernel's counters: each scenario puts on the wire what it says.

use std::any::Any;
use std::fs;
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use handshake_lab::agent::{self, Agent};
use handshake_lab::bpf::{self, Program, RunOutcome, TestHook};
use handshake_lab::census::{Census, CensusCounts};
use handshake_lab::flood::{Flood, FloodKind};
use handshake_lab::tap::{Dump, Tally, Tap};
use handshake_lab::tcp::{self, Attempts, Listener, Loss};
use handshake_lab::topology::{DEVICE, FAR_DEVICE};
use handshake_lab::{
    FAMILIES, Family, Loopback, Namespace, Pair, Path, Process, Routed, counters, frame,
    skip_unless_privileged, skip_without_tool, udp,
};

/// Sockets that stay open until the wire has been read: closing them would send more.
type Kept = Box<dyn Any>;

fn kept(something: impl Any) -> Kept {
    Box::new(something)
}

/// A scenario, and the frames that it puts on the wire.
struct Row {
    name: &'static str,
    run: fn(&Path<'_>) -> Result<Kept>,
    wire: Tally,
}

const NOTHING: Tally = Tally { syn: 0, syn_ack: 0, ack: 0, fin: 0, rst: 0, udp: 0, icmp: 0, other: 0 };

/// The scenarios that end by themselves, without a pause in which the kernel may retransmit.
const ROWS: &[Row] = &[
    Row {
        name: "connections kept open",
        run: |path| {
            let listener = Listener::new(path, 0, 16)?;
            tcp::connect_accept(path, &listener, 5).map(kept)
        },
        wire: Tally { syn: 5, syn_ack: 5, ack: 5, ..NOTHING },
    },
    Row {
        name: "connections reset",
        run: |path| tcp::connect_accept(path, &Listener::new(path, 0, 16)?, 5)?.reset().map(kept),
        wire: Tally { syn: 5, syn_ack: 5, ack: 5, rst: 5, ..NOTHING },
    },
    Row {
        name: "refused",
        run: |path| tcp::refused(path, 7).map(kept),
        wire: Tally { syn: 7, rst: 7, ..NOTHING },
    },
    Row {
        name: "filtered",
        run: |path| {
            let deaf = Listener::deaf(path, 0)?;
            Attempts::start(path, deaf.address(), 6).map(kept)
        },
        wire: Tally { syn: 6, ..NOTHING },
    },
    Row {
        name: "no ACK, because clients drop the SYN+ACK",
        run: |path| {
            let listener = Listener::new(path, 0, 16)?;
            Attempts::start_deaf(path, listener.address(), 9).map(kept)
        },
        wire: Tally { syn: 9, syn_ack: 9, ..NOTHING },
    },
    Row {
        name: "no ACK, from unassigned addresses",
        run: |path| {
            let listener = Listener::new(path, 0, 16)?;
            if path.unassigned.is_some() {
                tcp::syn_without_ack(path, listener.address(), 9).map(kept)
            } else {
                Attempts::start_deaf(path, listener.address(), 9).map(kept)
            }
        },
        wire: Tally { syn: 9, syn_ack: 9, ..NOTHING },
    },
    Row {
        name: "accept queue already full",
        run: |path| {
            let full = tcp::queue_already_full(path, 2, 4)?;
            Ok(kept(full))
        },
        wire: Tally { syn: 7, syn_ack: 3, ack: 3, ..NOTHING },
    },
    Row {
        name: "a reused port",
        run: |path| tcp::reuse_port(path, &Listener::new(path, 0, 16)?, 3).map(kept),
        wire: Tally { syn: 3, syn_ack: 3, ack: 3, rst: 3, ..NOTHING },
    },
    Row {
        name: "a SYN scan",
        run: |path| {
            let listener = Listener::new(path, 0, 16)?;
            tcp::syn_scan(path, listener.address(), 5)?;
            Ok(kept(listener))
        },
        wire: Tally { syn: 5, syn_ack: 5, rst: 5, ..NOTHING },
    },
    Row {
        name: "aborted and retried",
        run: |path| {
            let deaf = Listener::deaf(path, 0)?;
            Ok(kept((tcp::give_up_and_retry(path, deaf.address(), 4)?, deaf)))
        },
        wire: Tally { syn: 4, ..NOTHING },
    },
    Row {
        name: "UDP to an echo",
        run: |path| udp::echo(path, 3, 2, 40).map(kept),
        wire: Tally { udp: 12, ..NOTHING },
    },
    Row {
        name: "UDP to silence",
        run: |path| udp::silence(path, 3, 2, 40).map(kept),
        wire: Tally { udp: 6, ..NOTHING },
    },
    Row {
        name: "UDP to a closed port",
        run: |path| udp::closed(path, 4, 40).map(kept),
        wire: Tally { udp: 4, icmp: 4, ..NOTHING },
    },
];

/// Runs `row` along `path`, and checks the wire at `places`. The caller keeps the returned sockets until the
/// next row has run.
fn check(row: &Row, path: &Path<'_>, places: &[(&Namespace, &str)]) -> Result<Kept> {
    let taps = places.iter().map(|(namespace, device)| Tap::open(namespace, device));
    let mut taps = taps.collect::<Result<Vec<Tap>>>()?;
    let kept = (row.run)(path)?;
    for (tap, (_, device)) in taps.iter_mut().zip(places) {
        let what = || format!("{} to {}, at {device}", row.name, path.destination);
        await_tally(tap, device, row.wire).with_context(what)?;
    }
    Ok(kept)
}

#[test]
fn scenarios_on_a_segment_match_the_wire() -> Result<()> {
    if skip_unless_privileged() {
        return Ok(());
    }
    for row in ROWS {
        let pair = Pair::new()?;
        let place = [(&pair.server, DEVICE)];
        let kept = FAMILIES.map(|family| check(row, &pair.path(family), &place));
        kept.into_iter().collect::<Result<Vec<Kept>>>()?;
    }
    Ok(())
}

#[test]
fn scenarios_on_loopback_match_the_wire() -> Result<()> {
    if skip_unless_privileged() {
        return Ok(());
    }
    for row in ROWS {
        let lo = Loopback::new()?;
        let place = [(&lo.host, "lo")];
        let kept = FAMILIES.map(|family| check(row, &lo.path(family), &place));
        kept.into_iter().collect::<Result<Vec<Kept>>>()?;
    }
    Ok(())
}

#[test]
fn scenarios_through_a_router_match_the_wire_on_both_sides() -> Result<()> {
    if skip_unless_privileged() {
        return Ok(());
    }
    for row in ROWS {
        let routed = Routed::new()?;
        let places = [DEVICE, FAR_DEVICE].map(|device| (&routed.router, device));
        let kept = FAMILIES.map(|family| check(row, &routed.path(family), &places));
        kept.into_iter().collect::<Result<Vec<Kept>>>()?;
    }
    Ok(())
}

#[test]
fn a_new_wire_is_silent() -> Result<()> {
    if skip_unless_privileged() {
        return Ok(());
    }
    let routed = Routed::new()?;
    let mut taps = [
        Tap::open(&routed.client, DEVICE)?,
        Tap::open(&routed.router, FAR_DEVICE)?,
        Tap::open(&routed.server, "lo")?,
    ];
    std::thread::sleep(Duration::from_millis(1500));
    for tap in &mut taps {
        assert_eq!(tap.traffic()?.both(), NOTHING);
    }
    Ok(())
}

/// The kernel retransmits as often as configured; its counter and the wire agree.
#[test]
fn a_filtered_syn_is_retransmitted_as_often_as_configured() -> Result<()> {
    if skip_unless_privileged() {
        return Ok(());
    }
    let pair = Pair::new()?;
    pair.client.syn_retries(1)?;
    let path = pair.path(Family::V4);
    let mut tap = Tap::open(&pair.server, DEVICE)?;
    let before = counters::read(&pair.client)?;
    let deaf = Listener::deaf(&path, 0)?;
    Attempts::start(&path, deaf.address(), 3)?.wait_timed_out(Duration::from_secs(8))?;
    assert_eq!(tap.traffic()?.both(), Tally { syn: 6, ..NOTHING });
    assert_eq!(counters::read(&pair.client)?.since(&before, "TcpExtTCPSynRetrans"), 3);
    Ok(())
}

/// A retransmission completes the connection; if the SYN+ACK was lost, both ends retransmit.
#[test]
fn a_segment_that_is_lost_once_is_retransmitted() -> Result<()> {
    if skip_unless_privileged() {
        return Ok(());
    }
    for (lost, ends) in [(Loss::Syn, 1), (Loss::SynAck, 2)] {
        let pair = Pair::new()?;
        let mut tap = Tap::open(&pair.server, DEVICE)?;
        let hosts = [&pair.client, &pair.server];
        let before = hosts.map(counters::read);
        let accepted = tcp::lost_once(&pair.path(Family::V4), lost, 3)?;
        assert_eq!(accepted.servers.len(), 3);
        let wire = tap.traffic()?.both();
        let mut again = [0; 2];
        for ((host, before), again) in hosts.into_iter().zip(before).zip(&mut again) {
            *again = counters::read(host)?.since(&before?, "TcpExtTCPSynRetrans");
        }
        assert_eq!((wire.syn, wire.syn_ack), (3 + again[0], 3 + again[1]), "{lost:?}");
        assert_eq!(again.iter().filter(|count| **count > 0).count(), ends, "{lost:?}: {again:?}");
    }
    Ok(())
}

/// A router without a route answers each SYN by ICMP.
#[test]
fn unreachable_addresses_are_reported_by_icmp() -> Result<()> {
    if skip_unless_privileged() {
        return Ok(());
    }
    let routed = Routed::new()?;
    for family in FAMILIES {
        let mut tap = Tap::open(&routed.client, DEVICE)?;
        let to = std::net::SocketAddr::new(routed.unreachable(family), 80);
        let attempts = Attempts::start(&routed.path(family), to, 5)?;
        attempts.wait_unreachable(Duration::from_secs(2)).with_context(|| format!("{family:?}"))?;
        assert_eq!(tap.traffic()?.both(), Tally { syn: 5, icmp: 5, ..NOTHING });
    }
    Ok(())
}

/// The two SYNs cross, and each end answers the other's with a SYN+ACK.
#[test]
fn a_simultaneous_open_completes_at_both_ends() -> Result<()> {
    if skip_unless_privileged() {
        return Ok(());
    }
    for family in FAMILIES {
        let pair = Pair::new()?;
        let mut tap = Tap::open(&pair.client, DEVICE)?;
        let (_open, ends) = tcp::simultaneous_open(&pair.path(family))?;
        assert_ne!(ends[0], ends[1]);
        let wire = tap.traffic()?;
        for way in [wire.received, wire.sent] {
            assert_eq!((way.syn, way.syn_ack, way.rst, way.udp), (1, 1, 0, 1), "{family:?}: {wire:?}");
        }
    }
    Ok(())
}

/// The kernel skips a chain of extension headers and finds the SYN after it.
#[test]
fn extension_headers_are_well_formed() -> Result<()> {
    if skip_unless_privileged() {
        return Ok(());
    }
    let pair = Pair::new()?;
    let path = pair.path(Family::V6);
    let listener = Listener::new(&path, 0, 16)?;
    let mut tap = Tap::open(&pair.server, DEVICE)?;
    let mut sender = frame::Sender::new(path.client, path.device)?;
    for (port, count) in [(7, 0), (8, 1), (9, 3)] {
        let source = std::net::SocketAddr::new(path.source, port);
        let (destination, flags) = (listener.address(), frame::flag::SYN);
        let segment = frame::BuiltSegment { source, destination, seq: 1, ack: 0, flags, payload: &[] };
        sender.send(&frame::with_extensions(&frame::tcp_frame(path.macs, &segment)?, count)?)?;
    }
    // The tap does not skip the headers; the client resets the connections, which none of its sockets has
    // opened.
    let answers = Tally { syn: 1, syn_ack: 3, rst: 3, other: 2, ..NOTHING };
    await_tally(&mut tap, DEVICE, answers)
}

/// Three nested tags in one direction, and two in the other.
#[test]
fn tags_can_be_nested() -> Result<()> {
    if skip_unless_privileged() || skip_without_tool("tcpdump") {
        return Ok(());
    }
    let pair = Pair::new()?;
    let _tags = pair.tag(&[(0x8100, 1), (0x8100, 2), (0x88a8, 3)], &[(0x8100, 4), (0x88a8, 5)])?;
    let dump = Dump::start(&pair.server, DEVICE, &scratch("deep"))?;
    let path = pair.path(Family::V6);
    tcp::connect_accept(&path, &Listener::new(&path, 0, 16)?, 1)?.reset()?;
    let written = dump.stop()?;
    assert_eq!(written.count("vlan 3 and vlan 2 and vlan 1 and ip6")?, 3);
    assert_eq!(written.count("vlan 5 and vlan 4 and ip6")?, 1);
    Ok(())
}

/// The server retransmits SYN+ACKs to unassigned addresses after one second.
#[test]
fn unanswered_syn_acks_are_retransmitted_as_often_as_configured() -> Result<()> {
    if skip_unless_privileged() {
        return Ok(());
    }
    for family in FAMILIES {
        let pair = Pair::new()?;
        pair.server.sysctl("net.ipv4.tcp_synack_retries", "1")?;
        let path = pair.path(family);
        let mut tap = Tap::open(&pair.client, DEVICE)?;
        let listener = Listener::new(&path, 0, 16)?;
        tcp::syn_without_ack(&path, listener.address(), 4)?;
        await_tally(&mut tap, DEVICE, Tally { syn: 4, syn_ack: 8, ..NOTHING })?;
    }
    Ok(())
}

/// Three connections reach a queue with room for one: two ACKs are ignored, and their SYN+ACKs are
/// retransmitted after a second. (The first two of five have filled the queue up to there.)
#[test]
fn acks_are_ignored_when_the_queue_fills_in_flight() -> Result<()> {
    if skip_unless_privileged() {
        return Ok(());
    }
    for family in FAMILIES {
        let pair = Pair::new()?;
        let path = pair.path(family);
        let mut tap = Tap::open(&pair.server, DEVICE)?;
        let filled = tcp::queue_fills_in_flight(&path, 2)?;
        assert_eq!(tap.traffic()?.both(), Tally { syn: 5, syn_ack: 5, ack: 5, ..NOTHING });
        assert_eq!(filled.ignored(), 2);
        // Each retransmitted SYN+ACK is acknowledged once more.
        await_tally(&mut tap, DEVICE, Tally { syn: 5, syn_ack: 7, ack: 7, ..NOTHING })?;
    }
    Ok(())
}

#[test]
fn fast_open_carries_data_in_the_syn() -> Result<()> {
    if skip_unless_privileged() || skip_without_tool("tcpdump") {
        return Ok(());
    }
    for family in FAMILIES {
        let pair = Pair::new()?;
        let path = pair.path(family);
        let mut tap = Tap::open(&pair.server, DEVICE)?;
        let file = scratch("fast-open");
        let dump = Dump::start(&pair.server, DEVICE, &file)?;
        let connections = tcp::fast_open(&path, 3, b"0123456789")?;
        let written = dump.stop()?;
        let wire = tap.traffic()?.both();
        assert_eq!((wire.syn, wire.syn_ack, wire.fin, wire.rst), (4, 4, 0, 0));
        // The SYNs with data are ten bytes and the cookie longer than the one that requests a cookie.
        let lines = Command::new("tcpdump").args(["-n", "-t", "-v", "-r"]).arg(written.path()).output()?;
        let text = String::from_utf8(lines.stdout)?;
        let with_data = text.lines().filter(|line| line.contains("Flags [S]") && line.contains("length 10"));
        assert_eq!(with_data.count(), 3, "{text}");
        connections.close()?;
    }
    Ok(())
}

/// Real TCP with tags that differ by direction; they are in the frame's bytes, where XDP sees them.
#[test]
fn tags_are_on_the_wire_in_both_directions() -> Result<()> {
    if skip_unless_privileged() || skip_without_tool("tcpdump") {
        return Ok(());
    }
    let pair = Pair::new()?;
    let _tags = pair.tag(&[(0x8100, 10)], &[(0x8100, 20)])?;
    let dump = Dump::start(&pair.server, DEVICE, &scratch("tags"))?;
    let path = pair.path(Family::V4);
    tcp::connect_accept(&path, &Listener::new(&path, 0, 16)?, 2)?.reset()?;
    let written = dump.stop()?;
    // Two SYNs, two ACKs and two RSTs to the server; two SYN+ACKs from it.
    assert_eq!((written.count("vlan 10 and tcp")?, written.count("vlan 20 and tcp")?), (6, 2));
    assert_eq!(written.count("tcp")?, 0, "without a tag");
    Ok(())
}

/// A foreign program is attached where the kernel reports it, and is detached when its guard is dropped.
#[test]
fn foreign_programs_are_attached_and_detached() -> Result<()> {
    if skip_unless_privileged() {
        return Ok(());
    }
    let pair = Pair::new()?;
    for (hook, outcome) in
        [(TestHook::XdpGeneric, RunOutcome::XdpPass), (TestHook::XdpNative, RunOutcome::XdpPass)]
    {
        assert_eq!(bpf::xdp(&pair.server, DEVICE)?, None);
        let attached = bpf::attach(&pair.server, DEVICE, hook, &Program::returning(outcome))?;
        assert_eq!(bpf::xdp(&pair.server, DEVICE)?, Some((attached.id, hook)));
    }
    for (hook, outcome) in
        [(TestHook::TcxIngress, RunOutcome::EndsChain), (TestHook::TcxEgress, RunOutcome::Next)]
    {
        let attached = bpf::attach(&pair.server, DEVICE, hook, &Program::returning(outcome))?;
        let behind = bpf::attach(&pair.server, DEVICE, hook, &Program::returning(RunOutcome::Next))?;
        assert_eq!(bpf::chain(&pair.server, DEVICE, hook)?, [attached.id, behind.id]);
        assert_eq!(bpf::program(attached.id)?.name, "foreign");
        drop((attached, behind));
        assert!(bpf::chain(&pair.server, DEVICE, hook)?.is_empty());
    }
    Ok(())
}

/// A program that ends the chain keeps those behind it from running; the driver, the tap and the programs
/// count the same frames.
#[test]
fn a_program_that_ends_the_chain_hides_packets_from_those_behind() -> Result<()> {
    if skip_unless_privileged() {
        return Ok(());
    }
    let pair = Pair::new()?;
    let counted = bpf::RunCounts::hold()?;
    let xdp =
        bpf::attach(&pair.server, DEVICE, TestHook::XdpNative, &Program::returning(RunOutcome::XdpPass))?;
    let ends =
        bpf::attach(&pair.server, DEVICE, TestHook::TcxIngress, &Program::returning(RunOutcome::EndsChain))?;
    let behind =
        bpf::attach(&pair.server, DEVICE, TestHook::TcxIngress, &Program::returning(RunOutcome::Next))?;
    let mut tap = Tap::open(&pair.server, DEVICE)?;
    let before = counters::xdp_packets(&pair.server, DEVICE)?;
    let path = pair.path(Family::V6);
    tcp::connect_accept(&path, &Listener::new(&path, 0, 16)?, 4)?.reset()?;
    assert_eq!(tap.traffic()?.received, Tally { syn: 4, ack: 4, rst: 4, ..NOTHING });
    assert_eq!(counters::xdp_packets(&pair.server, DEVICE)? - before, 12);
    let runs = [xdp.id, ends.id, behind.id].map(|id| bpf::program(id).map(|program| program.runs));
    drop(counted);
    assert!(matches!(runs, [Ok(12), Ok(12), Ok(0)]), "{runs:?}");
    Ok(())
}

/// The tap classifies frames as tcpdump does.
#[test]
fn tap_and_tcpdump_agree() -> Result<()> {
    if skip_unless_privileged() || skip_without_tool("tcpdump") {
        return Ok(());
    }
    let pair = Pair::new()?;
    let mut tap = Tap::open(&pair.client, DEVICE)?;
    let dump = Dump::start(&pair.client, DEVICE, &scratch("agree"))?;
    for path in FAMILIES.map(|family| pair.path(family)) {
        let listener = Listener::new(&path, 0, 16)?;
        let connections = tcp::connect_accept(&path, &listener, 3)?;
        connections.talk(100)?;
        connections.close()?;
        tcp::refused(&path, 2)?;
        udp::closed(&path, 2, 10)?;
    }
    let written = dump.stop()?;
    let wire = tap.traffic()?.both();
    let count = |flags: &str| -> Result<u64> {
        let v4 = written.count(&format!("tcp[13] & 0x17 {flags}"))?;
        Ok((v4 + written.count(&format!("ip6 and ip6[6] = 6 and ip6[53] & 0x17 {flags}"))?) as u64)
    };
    let expected = Tally {
        syn: count("= 2")?,
        syn_ack: count("= 0x12")?,
        ack: count("= 0x10")?,
        fin: count("& 7 = 1")?,
        rst: count("& 4 = 4")?,
        udp: written.count("udp")? as u64,
        icmp: (written.count("icmp")? + written.count("icmp6")?) as u64,
        other: 0,
    };
    assert_eq!(wire, expected);
    assert_eq!((wire.syn, wire.syn_ack, wire.fin, wire.rst, wire.udp, wire.icmp), (10, 6, 12, 4, 4, 4));
    Ok(())
}

/// Frames from a packet socket arrive unchanged, tags included.
#[test]
fn crafted_frames_arrive_unchanged() -> Result<()> {
    if skip_unless_privileged() || skip_without_tool("tcpdump") {
        return Ok(());
    }
    let pair = Pair::new()?;
    let path = pair.path(Family::V4);
    let dump = Dump::start(&pair.server, DEVICE, &scratch("crafted"))?;
    let mut sender = frame::Sender::new(path.client, path.device)?;
    let (source, destination) =
        (std::net::SocketAddr::new(path.unassigned.context("an unassigned address")?, 7), path.server_at(9));
    let segment = frame::BuiltSegment { source, destination, seq: 1, ack: 0, flags: 0, payload: b"abc" };
    let bare = frame::tcp_frame(path.macs, &segment)?;
    for tags in [&[][..], &[(0x8100, 5)], &[(0x88a8, 5), (0x8100, 6)]] {
        sender.send(&frame::with_tags(&bare, tags))?;
    }
    assert_eq!(sender.sent(), 3);
    let written = dump.stop()?;
    let counts =
        [written.count("dst port 9")?, written.count("vlan 5")?, written.count("vlan 5 and vlan 6")?];
    assert_eq!(counts, [1, 2, 1]);
    Ok(())
}

/// A namespace is removed on drop, even after a panic.
#[test]
fn namespaces_are_removed_on_drop() -> Result<()> {
    if skip_unless_privileged() {
        return Ok(());
    }
    let namespace = Namespace::new()?;
    let path = namespace.path();
    assert!(path.exists());
    let panicked = std::thread::spawn(move || {
        let _owned = namespace;
        panic!("on purpose");
    });
    assert!(panicked.join().is_err());
    assert!(!path.exists());
    Ok(())
}

/// The first namespace of a process removes the namespaces of dead processes, and no others.
#[test]
fn namespaces_of_dead_processes_are_removed() -> Result<()> {
    const CHILD: &str = "HANDSHAKE_LAB_SWEEP";
    if skip_unless_privileged() {
        return Ok(());
    }
    if std::env::var_os(CHILD).is_some() {
        return Namespace::new().map(drop);
    }
    // No process has an ID above PID_MAX_LIMIT; the other two names belong to a living process and to another
    // program.
    let stale = LeftBehind::new(&format!("hs-lab-4194305-{}", std::process::id()))?;
    let live = LeftBehind::new(&format!("hs-lab-{}-x", std::process::id()))?;
    let foreign = LeftBehind::new(&format!("hs-other-{}", std::process::id()))?;
    let name = "namespaces_of_dead_processes_are_removed";
    let child = Command::new(std::env::current_exe()?).args([name, "--exact"]).env(CHILD, "1").output()?;
    assert!(child.status.success(), "{child:?}");
    assert_eq!([stale, live, foreign].map(|left| left.exists()), [false, true, true]);
    Ok(())
}

/// A namespace created without the lab.
struct LeftBehind(String);

impl LeftBehind {
    fn new(name: &str) -> Result<Self> {
        let status = Command::new("ip").args(["netns", "add", name]).status()?;
        ensure!(status.success(), "add {name}");
        Ok(Self(name.to_owned()))
    }

    fn exists(&self) -> bool {
        PathBuf::from("/var/run/netns").join(&self.0).exists()
    }
}

impl Drop for LeftBehind {
    fn drop(&mut self) {
        if self.exists() {
            let _ = Command::new("ip").args(["netns", "del", &self.0]).status();
        }
    }
}

/// Runs a stand-in that behaves like the command: its lines and the output after the signal are collected,
/// and the signal arrives.
#[test]
fn the_output_of_a_command_is_collected_to_its_end() -> Result<()> {
    const BEHAVES: &str = r#"
        trap 'echo "{\"type\":\"flow\"}"; echo "{\"type\":\"report\",\"n\":2}"; echo bye >&2; exit 0' INT
        echo '{"type":"report","n":1}'
        echo starting >&2; echo "attached eth0: $*" >&2; echo "attached eth1: x" >&2
        while :; do sleep 0.02; done"#;
    if skip_unless_privileged() {
        return Ok(());
    }
    let lo = Loopback::new()?;
    let script = Script::new(BEHAVES)?;
    let outcome = Agent::start(&lo.host, &script.0, &["-i", "eth0", "-i", "eth1"])?.stop()?;
    assert!(outcome.status.success(), "{outcome:?}");
    assert_eq!(outcome.report()?["n"], 2);
    assert_eq!((outcome.flows()?.len(), outcome.values()?.len()), (1, 3));
    let said = "starting\nattached eth0: watch -o jsonl -i eth0 -i eth1\nattached eth1: x\nbye\n";
    assert_eq!(outcome.stderr, said);
    Ok(())
}

/// The same if the caller ignores SIGINT, as under `nohup` or in a script's background.
#[test]
fn a_command_receives_signals_that_the_caller_ignores() -> Result<()> {
    if skip_unless_privileged() {
        return Ok(());
    }
    let ignoring = "trap '' INT QUIT TERM HUP; exec \"$@\"";
    let mut again = Command::new("sh");
    again.args(["-c", ignoring, "sh"]).arg(std::env::current_exe()?);
    let again = again.args(["the_output_of_a_command_is_collected_to_its_end", "--exact"]).output()?;
    let said = String::from_utf8_lossy(&again.stdout);
    ensure!(again.status.success() && said.contains("1 passed"), "{said}");
    Ok(())
}

/// Runs stand-ins that fail, are killed, or end by themselves.
#[test]
fn the_error_of_a_failed_command_has_its_stderr() -> Result<()> {
    if skip_unless_privileged() {
        return Ok(());
    }
    let lo = Loopback::new()?;
    let fails = Script::new("echo 'error: no such interface' >&2; exit 4")?;
    let error = Agent::start(&lo.host, &fails.0, &["-i", "eth9"]).expect_err("it fails");
    assert!(format!("{error:#}").contains("no such interface"), "{error:#}");
    let limit = Duration::from_secs(5);
    let outcome = agent::run_to_end(&lo.host, &fails.0, &[], limit)?;
    assert_eq!((outcome.status.code(), outcome.stderr.as_str()), (Some(4), "error: no such interface\n"));
    let stays = Script::new("echo attached >&2; echo attached lo >&2; exec sleep 60")?;
    let killed = Agent::start(&lo.host, &stays.0, &[])?.kill()?;
    assert_eq!(killed.status.signal(), Some(libc::SIGKILL));
    assert!(killed.report().is_err());
    Ok(())
}

/// An executable shell script; removed on drop.
struct Script(PathBuf);

impl Script {
    fn new(text: &str) -> Result<Self> {
        let path = scratch("stand-in");
        // Written by a shell: a file that this process has opened for writing might still be open in another
        // test's fork.
        let write = "cat > \"$0\" && chmod 700 \"$0\"";
        let mut child = Command::new("sh").args(["-c", write]).arg(&path).stdin(Stdio::piped()).spawn()?;
        child.stdin.take().context("a pipe")?.write_all(format!("#!/bin/sh\n{text}\n").as_bytes())?;
        ensure!(child.wait()?.success(), "write {}", path.display());
        Ok(Self(path))
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// A process inside a namespace is killed when its guard is dropped, and a failing command is an error.
#[test]
fn a_process_runs_inside_its_namespace_and_is_killed_on_drop() -> Result<()> {
    if skip_unless_privileged() {
        return Ok(());
    }
    let lo = Loopback::new()?;
    let names = lo.host.run("ls", &["/sys/class/net/", "/proc/self/ns/"])?;
    assert!(names.contains("net"), "{names}");
    let links = lo.host.run("ip", &["-o", "link"])?;
    assert_eq!(links.lines().count(), 1, "only lo: {links}");
    assert!(lo.host.run("ip", &["link", "show", "nothing"]).is_err());
    let process = Process::start(lo.host.command("sleep").arg("60"))?;
    let place = PathBuf::from(format!("/proc/{}", process.id()));
    assert!(place.exists());
    drop(process);
    assert!(!place.exists());
    Ok(())
}

/// Waits until the tap has counted `expected`: the last frame may still be in flight when its sender
/// continues.
fn await_tally(tap: &mut Tap, device: &str, expected: Tally) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(4);
    loop {
        let traffic = tap.traffic()?;
        let now = if device == "lo" { traffic.received } else { traffic.both() };
        if now == expected {
            return Ok(());
        }
        ensure!(now.total() < expected.total() && Instant::now() < deadline, "{now:?}, not {expected:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A file name for this process alone.
fn scratch(name: &str) -> PathBuf {
    static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let number = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let folder = std::env::temp_dir().join("hs-lab");
    fs::create_dir_all(&folder)
        .context("make a folder for captures")
        .expect("the temporary folder is writable");
    folder.join(format!("{}-{number}-{name}", std::process::id()))
}

/// The kernel accepts a flood's frames: it discards none for a header or a checksum.
#[test]
fn a_flood_has_the_frames_of_its_kind() -> Result<()> {
    if skip_unless_privileged() {
        return Ok(());
    }
    let pair = Pair::new()?;
    let path = pair.path(Family::V4);
    Flood::open(&path)?;
    let (deaf, datagrams) = (Listener::deaf(&path, 0)?, udp::deaf(&path)?);
    for kind in FloodKind::ALL {
        let is_udp = matches!(kind, FloodKind::Udp | FloodKind::Answered);
        let to = if is_udp { datagrams.1 } else { deaf.address() };
        let flood = Flood::new(&path, to, kind)?;
        let census = Census::behind(&pair.server, DEVICE, TestHook::TcxIngress)?;
        let before = counters::read(&pair.server)?;
        let device_before = counters::xdp_packets(&pair.server, DEVICE)?;
        flood.make(10_000)?;
        let (counts, reached) = at_rest(|| {
            let reached = counters::xdp_packets(&pair.server, DEVICE)? - device_before;
            Ok((census.counts()?, reached))
        })?;
        ensure!(reached >= 1_000 && reached <= flood.made(), "{reached} of {}", flood.made());
        ensure!(counts.others == Tally::default() && counts.flood.total() == reached, "{kind:?}: {counts:?}");
        ensure!(expected(kind, counts) == reached, "{kind:?}: {counts:?}");
        let after = counters::read(&pair.server)?;
        for name in ["IpInHdrErrors", "TcpInCsumErrors", "UdpInCsumErrors", "TcpInErrs"] {
            ensure!(after.since(&before, name) == 0, "{kind:?}: {name}");
        }
    }
    Ok(())
}

/// Reads until two readings are equal: another CPU may still process frames.
fn at_rest<T: PartialEq>(read: impl Fn() -> Result<T>) -> Result<T> {
    let mut last = read()?;
    loop {
        std::thread::sleep(Duration::from_millis(5));
        let now = read()?;
        if now == last {
            return Ok(now);
        }
        last = now;
    }
}

/// The count that the census must have of a flood.
fn expected(kind: FloodKind, counts: CensusCounts) -> u64 {
    match kind {
        FloodKind::Syn => counts.flood.syn,
        FloodKind::Ack => counts.flood.ack,
        FloodKind::Udp => counts.flood.udp,
        FloodKind::Refused => counts.flood.syn + counts.flood.rst,
        FloodKind::Answered => counts.flood.udp,
        FloodKind::Held | FloodKind::Crawl => counts.flood.syn + counts.flood.syn_ack + counts.flood.ack,
        FloodKind::Scan => counts.flood.syn,
    }
}

/// The wrapping program drops a flood's frames and passes all others.
#[test]
fn a_dropping_census_drops_only_the_flood() -> Result<()> {
    if skip_unless_privileged() {
        return Ok(());
    }
    let pair = Pair::new()?;
    let path = pair.path(Family::V4);
    Flood::open(&path)?;
    let program = Program::returning(RunOutcome::XdpPass).with_frags();
    let _attached = bpf::attach(&pair.server, DEVICE, TestHook::XdpNative, &program)?;
    let dropping = Census::dropping(&pair.server, DEVICE)?;
    let behind = Census::behind(&pair.server, DEVICE, TestHook::TcxIngress)?;
    let listener = Listener::new(&path, 0, 16)?;
    let flood = Flood::new(&path, listener.address(), FloodKind::Syn)?;
    flood.make(10_000)?;
    let connections = tcp::connect_accept(&path, &listener, 5)?;
    let (seen, passed) = (dropping.counts()?, behind.counts()?);
    ensure!(seen.flood.syn >= 1_000 && seen.flood.total() == seen.flood.syn, "{seen:?}");
    ensure!(passed.flood == Tally::default() && passed.others == seen.others, "{passed:?}");
    ensure!((seen.others.syn, seen.others.ack) == (5, 5), "{seen:?}");
    connections.close()
}
