//! Strangers and broken senders: what no end would take changes no verdict. The kernel's own counters are the
//! truth.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, ensure};
use handshake_lab::agent::Agent;
use handshake_lab::frame::{BuiltSegment, flag};
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

/// A raw client, a listener, and the agent that watches the listener.
struct Stage {
    agent: Agent,
    client: RawClient,
    listener: Listener,
    before: u64,
}

impl Stage {
    fn set(network: &Network, arguments: &[&str]) -> Result<Self> {
        let path = network.path(Family::V4);
        let listener = Listener::new(&path, 0, 1024)?;
        let agent = network.watch(&[&["--flows"], arguments].concat())?;
        Ok(Self { agent, client: RawClient::new(&path)?, listener, before: established(&path)? })
    }

    fn ends(&self, path: &Path<'_>) -> Result<Vec<SocketAddr>> {
        let address = path.unassigned.context("unassigned addresses")?;
        Ok((0..COUNT).map(|number| SocketAddr::new(address, 30_000 + number)).collect())
    }

    fn send(&mut self, source: SocketAddr, seq: u32, ack: u32, flags: u8) -> Result<()> {
        let destination = self.listener.address();
        self.client.send(&BuiltSegment { source, destination, seq, ack, flags, payload: &[] })
    }

    /// Sends SYN, and waits for all SYN+ACKs; `between` says what else is sent first.
    fn answered(
        &mut self,
        ends: &[SocketAddr],
        between: impl Fn(&mut Self, SocketAddr) -> Result<()>,
    ) -> Result<Vec<(SocketAddr, SynAck)>> {
        for end in ends {
            self.send(*end, J, 0, flag::SYN)?;
            between(self, *end)?;
        }
        let answers = self.client.syn_acks(ends)?;
        Ok(ends.iter().filter_map(|end| Some((*end, *answers.get(end)?))).collect())
    }

    /// Waits for `attempts` in a report, ends the agent, and returns its last report, and how many connections
    /// the kernel established.
    fn end(mut self, network: &Network, is_there: impl Fn(&Value) -> bool) -> Result<(Value, u64)> {
        self.agent.await_report(TIMEOUT, is_there)?;
        let outcome = self.agent.stop()?;
        let report = balanced(&outcome)?;
        Ok((report, established(&network.path(Family::V4))? - self.before))
    }
}

/// Connections that the server's kernel has accepted into ESTABLISHED (RFC 4022: tcpPassiveOpens counts entries
/// into SYN-RECEIVED; Linux counts the sockets that the third segment makes).
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
    let network = segment()?;
    let mut stage = Stage::set(&network, &[])?;
    let ends = stage.ends(&network.path(Family::V4))?;
    let answers = stage.answered(&ends, |stage, end| stage.send(end, STRANGE, 0, flag::SYN))?;
    for (end, answer) in answers {
        stage.send(end, STRANGE.wrapping_add(9), 0, flag::SYN)?;
        stage.send(end, answer.ack, answer.seq.wrapping_add(1), flag::ACK)?;
        stage.send(end, STRANGE.wrapping_add(99), 0, flag::SYN)?;
    }
    let count = u64::from(COUNT);
    let (report, accepted) = stage.end(&network, |report| figure(report, "tcp.completed") == count)?;
    ensure!(accepted == count, "the kernel established {accepted}");
    ensure!(figure(&report, "tcp.completed") == count, "{report}");
    ensure!(
        figure(&report, "tcp.half_open.now") == 0 && figure(&report, "tcp.signs.foreign_syn") > 0,
        "{report}"
    );
    Ok(())
}

/// What the window of the SYN+ACK does not take is no third segment.
#[test]
fn an_ack_beyond_the_window_completes_nothing() -> Result<()> {
    if skip_unless_privileged() {
        return Ok(());
    }
    for (ahead, flags) in [(1 << 30, flag::ACK), (70_000, flag::ACK | flag::FIN)] {
        let network = segment()?;
        let mut stage = Stage::set(&network, &[])?;
        let ends = stage.ends(&network.path(Family::V4))?;
        for (end, answer) in stage.answered(&ends, |_, _| Ok(()))? {
            stage.send(end, answer.ack.wrapping_add(ahead), answer.seq.wrapping_add(1), flags)?;
        }
        let count = u64::from(COUNT);
        let (report, accepted) =
            stage.end(&network, |report| figure(report, "tcp.signs.bad_ack") == count)?;
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
    let network = segment()?;
    let mut stage = Stage::set(&network, &[])?;
    let ends = stage.ends(&network.path(Family::V4))?;
    let destination = stage.listener.address();
    for (source, answer) in stage.answered(&ends, |_, _| Ok(()))? {
        let (seq, flags) = (answer.ack, flag::RST);
        let reset = BuiltSegment { source, destination, seq, ack: 0, flags, payload: &[] };
        let mut frame = stage.client.frame(&reset)?;
        frame[14 + 20 + 16] ^= 0x55;
        stage.client.send_frame(&frame)?;
        stage.send(source, answer.ack, answer.seq.wrapping_add(1), flag::ACK)?;
    }
    let count = u64::from(COUNT);
    let (report, accepted) = stage.end(&network, |report| figure(report, "tcp.completed") == count)?;
    ensure!(accepted == count && figure(&report, "tcp.completed") == count, "{accepted}, {report}");
    ensure!(
        figure(&report, "tcp.signs.revised") == count && figure(&report, "tcp.initiator_aborted") == 0,
        "{report}"
    );
    Ok(())
}

/// The header of each SYN in two fragments (RFC 1858): no attempt is seen, and the report says so.
#[test]
fn headers_split_over_fragments_make_the_report_inexact() -> Result<()> {
    if skip_unless_privileged() {
        return Ok(());
    }
    let network = segment()?;
    let mut stage = Stage::set(&network, &[])?;
    let ends = stage.ends(&network.path(Family::V4))?;
    let destination = stage.listener.address();
    for source in &ends {
        let syn =
            BuiltSegment { source: *source, destination, seq: J, ack: 0, flags: flag::SYN, payload: &[] };
        let whole = stage.client.frame(&syn)?;
        for (from, to, field) in [(34, 42, 0x2000), (42, whole.len(), 1)] {
            let frame = fragment(&whole, from..to, field);
            stage.client.send_frame(&frame)?;
        }
    }
    stage.client.syn_acks(&ends)?;
    let count = u64::from(COUNT);
    let (report, _) = stage.end(&network, |report| figure(report, "packets.split_headers") == count)?;
    ensure!(report["exact"] == Value::Bool(false) && figure(&report, "tcp.attempts") == 0, "{report}");
    ensure!(report["inexact"][0]["reason"] == "split_headers", "{report}");
    Ok(())
}

/// A part of an IPv4 frame's payload as a fragment; `field` is the header's word of flags and offset.
fn fragment(whole: &[u8], part: std::ops::Range<usize>, field: u16) -> Vec<u8> {
    let mut frame = whole[..34].to_vec();
    let length = u16::try_from(20 + part.len()).unwrap_or(u16::MAX);
    frame[16..18].copy_from_slice(&length.to_be_bytes());
    frame[18..20].copy_from_slice(&whole[34..36]);
    frame[20..22].copy_from_slice(&field.to_be_bytes());
    frame[24..26].fill(0);
    let sum =
        frame[14..34].chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum::<u32>();
    let folded = (sum & 0xffff) + (sum >> 16);
    frame[24..26].copy_from_slice(&(!u16::try_from(folded).unwrap_or(u16::MAX)).to_be_bytes());
    frame.extend_from_slice(&whole[part]);
    frame
}

/// Hooks go on one after the other while connections are made: what began before has no verdict, and everything
/// after it has the right one.
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
