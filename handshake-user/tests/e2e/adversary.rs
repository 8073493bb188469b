//! Strangers and broken senders: what no end would take changes no verdict. The kernel's own counters are the
//! truth.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use handshake_lab::agent::Agent;
use handshake_lab::frame::{BuiltSegment, flag, fragment, unreachable};
use handshake_lab::raw::{RawClient, SynAck};
use handshake_lab::tcp::{Listener, connect_until};
use handshake_lab::{Family, Path, skip_unless_privileged};
use serde_json::Value;

use crate::books::{balanced, figure};
use crate::network::{Network, TIMEOUT, router, segment};

/// Attempts of a test.
const COUNT: u16 = 40;
/// The J of an attempt: near 2³², so that numbers wrap.
const J: u32 = 0xffff_fff0;
/// The J of a stranger.
const STRANGE: u32 = 0x1234_5678;

/// A raw client with many ends, a listener, and the agent that watches the listener.
struct Stage {
    agent: Agent,
    client: RawClient,
    ends: Vec<SocketAddr>,
    listener: Listener,
    before: u64,
    network: Network,
}

impl Stage {
    fn new(listen: impl FnOnce(&Path<'_>) -> Result<Listener>) -> Result<Self> {
        let network = segment()?;
        let path = network.path(Family::V4);
        let (listener, client, before) = (listen(&path)?, RawClient::new(&path)?, established(&path)?);
        let address = path.unassigned.context("unassigned addresses")?;
        let ends = (0..COUNT).map(|number| SocketAddr::new(address, 30_000 + number)).collect();
        Ok(Self { agent: network.watch(&["--flows"])?, client, ends, listener, before, network })
    }

    /// With a listener that answers.
    fn answering() -> Result<Self> {
        Self::new(|path| Listener::new(path, 0, 1024))
    }

    fn frame(&self, source: SocketAddr, seq: u32, ack: u32, flags: u8) -> Result<Vec<u8>> {
        let destination = self.listener.address();
        self.client.frame(&BuiltSegment { source, destination, seq, ack, flags, payload: &[] })
    }

    fn send(&mut self, source: SocketAddr, seq: u32, ack: u32, flags: u8) -> Result<()> {
        let frame = self.frame(source, seq, ack, flags)?;
        self.client.send(&frame)
    }

    /// Sends a SYN from each end, and waits for all SYN+ACKs; `between` says what else is sent first.
    fn answers(
        &mut self,
        between: impl Fn(&mut Self, SocketAddr) -> Result<()>,
    ) -> Result<Vec<(SocketAddr, SynAck)>> {
        for end in self.ends.clone() {
            self.send(end, J, 0, flag::SYN)?;
            between(self, end)?;
        }
        let answers = self.client.syn_acks(&self.ends)?;
        Ok(self.ends.iter().filter_map(|end| Some((*end, *answers.get(end)?))).collect())
    }

    /// Waits until the report has this figure [`COUNT`] times, ends the agent, and returns its last report,
    /// and how many connections the kernel established.
    fn end(mut self, path: &str) -> Result<(Value, u64)> {
        self.agent.await_report(TIMEOUT, |report| figure(report, path) == u64::from(COUNT))?;
        let report = balanced(&self.agent.stop()?)?;
        Ok((report, established(&self.network.path(Family::V4))? - self.before))
    }
}

/// Connections that the server's kernel has accepted into ESTABLISHED (RFC 4022: tcpPassiveOpens counts
/// entries into SYN-RECEIVED; Linux counts the sockets that the third segment makes).
fn established(path: &Path<'_>) -> Result<u64> {
    let text = path.server.enter(|| Ok(std::fs::read_to_string("/proc/thread-self/net/snmp")?))?;
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("Tcp: "));
    let (names, values) = (lines.next().context("names")?, lines.next().context("values")?);
    let place = names.split(' ').position(|name| name == "PassiveOpens").context("PassiveOpens")?;
    Ok(values.split(' ').nth(place).context("its value")?.parse()?)
}

/// A stranger sends one blind SYN to each tuple before, and one after the SYN+ACK.
#[test]
fn a_strangers_syns_make_no_connection_vanish() -> Result<()> {
    if skip_unless_privileged() {
        return Ok(());
    }
    let mut stage = Stage::answering()?;
    for (end, answer) in stage.answers(|stage, end| stage.send(end, STRANGE, 0, flag::SYN))? {
        stage.send(end, STRANGE.wrapping_add(9), 0, flag::SYN)?;
        stage.send(end, answer.ack, answer.seq.wrapping_add(1), flag::ACK)?;
        stage.send(end, STRANGE.wrapping_add(99), 0, flag::SYN)?;
    }
    let (report, accepted) = stage.end("tcp.completed")?;
    ensure!(accepted == u64::from(COUNT), "the kernel established {accepted}");
    ensure!(
        figure(&report, "tcp.half_open.now") == 0 && figure(&report, "tcp.signs.foreign_syn") > 0,
        "{report}"
    );
    Ok(())
}

/// A stranger's SYN comes twice within a slow handshake. A SYN before it has used up the challenge that the
/// server sends once per half a second (tcp_invalid_ratelimit), so that nothing answers between the two.
#[test]
fn a_strangers_repeated_syn_does_not_stop_a_slow_handshake() -> Result<()> {
    const LIMIT: Duration = Duration::from_millis(500);
    if skip_unless_privileged() {
        return Ok(());
    }
    let mut stage = Stage::answering()?;
    let answers = stage.answers(|_, _| Ok(()))?;
    let every = |stage: &mut Stage, number| {
        answers.iter().try_for_each(|(end, _)| stage.send(*end, number, 0, flag::SYN))
    };
    every(&mut stage, STRANGE + 9)?;
    every(&mut stage, STRANGE)?;
    // The kernel's time cannot be passed in.
    std::thread::sleep(LIMIT + Duration::from_millis(50));
    for (end, answer) in &answers {
        stage.send(*end, STRANGE, 0, flag::SYN)?;
        stage.send(*end, answer.ack, answer.seq.wrapping_add(1), flag::ACK)?;
    }
    let (report, accepted) = stage.end("tcp.completed")?;
    ensure!(accepted == u64::from(COUNT), "the kernel established {accepted}");
    ensure!(figure(&report, "tcp.superseded") > 0, "no claim was granted: {report}");
    ensure!(figure(&report, "tcp.half_open.now") == 0, "{report}");
    Ok(())
}

/// What the window of the SYN+ACK does not take is no third segment.
#[test]
fn an_ack_beyond_the_window_completes_nothing() -> Result<()> {
    if skip_unless_privileged() {
        return Ok(());
    }
    for (ahead, flags) in [(1 << 30, flag::ACK), (70_000, flag::ACK | flag::FIN)] {
        let mut stage = Stage::answering()?;
        for (end, answer) in stage.answers(|_, _| Ok(()))? {
            stage.send(end, answer.ack.wrapping_add(ahead), answer.seq.wrapping_add(1), flags)?;
        }
        let (report, accepted) = stage.end("tcp.signs.bad_ack")?;
        ensure!((accepted, figure(&report, "tcp.completed")) == (0, 0), "{accepted} established, {report}");
    }
    Ok(())
}

/// A RST that no end takes, for its checksum is wrong, and then the third segment.
#[test]
fn a_reset_that_reached_no_end_aborts_nothing() -> Result<()> {
    if skip_unless_privileged() {
        return Ok(());
    }
    let mut stage = Stage::answering()?;
    for (end, answer) in stage.answers(|_, _| Ok(()))? {
        let mut frame = stage.frame(end, answer.ack, 0, flag::RST)?;
        frame[14 + 20 + 16] ^= 0x55;
        stage.client.send(&frame)?;
        stage.send(end, answer.ack, answer.seq.wrapping_add(1), flag::ACK)?;
    }
    let (report, accepted) = stage.end("tcp.completed")?;
    ensure!(accepted == u64::from(COUNT), "{accepted}, {report}");
    ensure!(
        figure(&report, "tcp.signs.revised") == accepted && figure(&report, "tcp.initiator_aborted") == 0,
        "{report}"
    );
    Ok(())
}

/// A listener stays silent, and a stranger says that its host is unreachable: the host itself sees both.
#[test]
fn a_strangers_icmp_error_makes_no_attempt_unreachable() -> Result<()> {
    const HOST_UNREACHABLE: u8 = 1;
    if skip_unless_privileged() {
        return Ok(());
    }
    let mut stage = Stage::new(|path| Listener::deaf(path, 0))?;
    let IpAddr::V4(host) = stage.listener.address().ip() else { unreachable!("IPv4 was asked for") };
    for end in stage.ends.clone() {
        let syn = stage.frame(end, J, 0, flag::SYN)?;
        stage.client.send(&syn)?;
        let router = Ipv4Addr::new(192, 0, 2, 1);
        stage.client.send(&unreachable(router, host, HOST_UNREACHABLE, &syn)?)?;
    }
    let (report, accepted) = stage.end("tcp.signs.foreign_icmp")?;
    let opened = ["tcp.attempts", "tcp.unreachable", "tcp.signs.revised"].map(|path| figure(&report, path));
    ensure!((accepted, opened) == (0, [COUNT.into(), 0, 0]), "{report}");
    Ok(())
}

/// The header of each SYN in two fragments (RFC 1858): no attempt is seen, and the report says so.
#[test]
fn headers_split_over_fragments_make_the_report_inexact() -> Result<()> {
    if skip_unless_privileged() {
        return Ok(());
    }
    let mut stage = Stage::answering()?;
    for end in stage.ends.clone() {
        let syn = stage.frame(end, J, 0, flag::SYN)?;
        stage.client.send(&fragment(&syn, 0..8, true)?)?;
        stage.client.send(&fragment(&syn, 8..20, false)?)?;
    }
    stage.client.syn_acks(&stage.ends)?;
    let (report, _) = stage.end("packets.split_headers")?;
    ensure!(report["exact"] == Value::Bool(false) && figure(&report, "tcp.attempts") == 0, "{report}");
    ensure!(report["inexact"][0]["reason"] == "split_headers", "{report}");
    Ok(())
}

/// Hooks go on one after the other while connections are made: what began before has no verdict, and
/// everything after it has the right one.
#[test]
fn attaching_makes_no_half_of_a_handshake_an_attempt() -> Result<()> {
    if skip_unless_privileged() {
        return Ok(());
    }
    let stages: [(Network, &[&str]); 3] =
        [(segment()?, &[]), (segment()?, &["--hook", "xdp-native"]), (router()?, &[])];
    for (network, arguments) in &stages {
        for _ in 0..7 {
            let report = attach_under_load(network, arguments)?;
            let [attempts, completed, orphans] =
                ["tcp.attempts", "tcp.completed", "tcp.orphan_syn_ack"].map(|path| figure(&report, path));
            ensure!(attempts == completed && orphans == 0, "{arguments:?}: {report}");
        }
    }
    Ok(())
}

/// The last report of an agent that is started while four clients connect.
fn attach_under_load(network: &Network, arguments: &[&str]) -> Result<Value> {
    let path = network.path(Family::V4);
    let done = AtomicBool::new(false);
    let connect = || connect_until(&path, &Listener::new(&path, 0, 128)?, &done);
    let outcome = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..4).map(|_| scope.spawn(connect)).collect();
        let watched = network.watch(arguments).and_then(|mut agent| {
            agent.await_report(TIMEOUT, |report| figure(report, "tcp.completed") > 20)?;
            Ok(agent)
        });
        done.store(true, Ordering::Relaxed);
        for client in clients {
            client.join().map_err(|_| anyhow::anyhow!("a client panicked"))??;
        }
        let mut agent = watched?;
        agent.await_report(TIMEOUT, |report| figure(report, "tcp.opening") == 0)?;
        agent.stop()
    })?;
    balanced(&outcome)
}
