//! A turn of traffic: real sockets of two hosts, the client on one CPU and the server on another.

use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::ops::AddAssign;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use handshake_lab::Path;
use socket2::{Domain, Protocol, Socket, Type};

use crate::cpu;

/// How long the client sends. Short: other load on the machine changes within a second, and must disturb all
/// alike.
const TURN: Duration = Duration::from_millis(80);
/// The time limit for the other end, after which the turn fails.
const PEER_TIMEOUT: Duration = Duration::from_secs(10);
/// The length of the accept queue; the kernel's own limit is `net.core.somaxconn`, 4096.
const BACKLOG: i32 = 4096;
/// The most connections that the client may be ahead of the server: a full queue would drop SYNs.
const AHEAD: u64 = 1024;
/// The bytes of one write or read.
const CHUNK: usize = 256 << 10;

/// The result of a turn, or the sum of several.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Turn {
    /// The number of connections, or of bytes.
    pub(super) units: u64,
    /// Wall time.
    pub(super) wall: Duration,
    /// CPU time of both ends, including the kernel's work on their packets.
    pub(super) cpu: Duration,
}

impl AddAssign for Turn {
    fn add_assign(&mut self, other: Self) {
        self.units += other.units;
        self.wall += other.wall;
        self.cpu += other.cpu;
    }
}

impl Turn {
    /// Units per second.
    pub(super) fn rate(&self) -> f64 {
        self.units as f64 / self.wall.as_secs_f64()
    }

    /// Units per second of CPU time: least disturbed by other load.
    pub(super) fn cpu_rate(&self) -> f64 {
        self.units as f64 / self.cpu.as_secs_f64()
    }
}

/// Makes connections one after the other. The client closes each with a RST as soon as it is established, so
/// no port waits in TIME_WAIT, and each is SYN, SYN+ACK, ACK, RST on the wire.
pub(super) fn connections(path: &Path<'_>, cpus: [usize; 2]) -> Result<Turn> {
    let (listener, address) = listen(path)?;
    let accepted = AtomicU64::new(0);
    thread::scope(|scope| {
        let server = scope.spawn(|| accept_all(&listener, cpus[1], &accepted));
        let client = path.client.enter(|| connect_on(cpus[0], address, &accepted));
        // The client has ended, in success or error: without the close the server would wait until its time
        // limit.
        let closed = listener.shutdown(std::net::Shutdown::Both);
        let server = server.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        closed.context("close the listener")?;
        // A failed server keeps its client waiting, so the server's error is the one to report.
        let ((count, cpu), turn) = (server?, client?);
        ensure!(count == turn.units, "{} connections were made, and {count} accepted", turn.units);
        Ok(Turn { cpu: turn.cpu + cpu, ..turn })
    })
}

/// Runs the client; the result has the client's CPU time alone. Returns when the server has accepted all
/// connections.
fn connect_on(cpu: usize, address: SocketAddr, accepted: &AtomicU64) -> Result<Turn> {
    cpu::pin(cpu)?;
    let (begun, cpu) = (Instant::now(), cpu::time()?);
    let mut made = 0;
    while begun.elapsed() < TURN {
        connect_once(address)?;
        made += 1;
        await_accepted(accepted, made - made.min(AHEAD))?;
    }
    let turn = Turn { units: made, wall: begun.elapsed(), cpu: cpu::time()? - cpu };
    await_accepted(accepted, made)?;
    Ok(turn)
}

fn connect_once(address: SocketAddr) -> Result<()> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // The socket sends a RST when it is dropped.
    socket.set_linger(Some(Duration::ZERO))?;
    socket.connect(&address.into()).context("connect")
}

fn await_accepted(accepted: &AtomicU64, least: u64) -> Result<()> {
    let deadline = Instant::now() + PEER_TIMEOUT;
    while accepted.load(Ordering::Acquire) < least {
        ensure!(Instant::now() < deadline, "the server does not accept");
        thread::yield_now();
    }
    Ok(())
}

/// Runs the server: accepts each connection and waits for its end, until the listener is closed. Returns the
/// number of connections and the server's CPU time.
fn accept_all(listener: &Socket, cpu: usize, accepted: &AtomicU64) -> Result<(u64, Duration)> {
    cpu::pin(cpu)?;
    let cpu = cpu::time()?;
    loop {
        let connection = match listener.accept() {
            Ok((connection, _)) => connection,
            // The error of a closed listener.
            Err(error) if error.kind() == ErrorKind::InvalidInput => break,
            Err(error) => return Err(error).context("accept"),
        };
        match (&connection).read(&mut [0; 1]) {
            Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
            other => bail!("a connection ended with {other:?} instead of a RST"),
        }
        accepted.fetch_add(1, Ordering::Release);
    }
    Ok((accepted.load(Ordering::Acquire), cpu::time()? - cpu))
}

/// Sends as many bytes as one connection carries.
pub(super) fn bulk(path: &Path<'_>, cpus: [usize; 2]) -> Result<Turn> {
    bulk_of(path, cpus, u64::MAX)
}

/// Sends bytes over one connection, until the turn ends or at least `most` bytes are sent.
pub(super) fn bulk_of(path: &Path<'_>, cpus: [usize; 2], most: u64) -> Result<Turn> {
    let (listener, address) = listen(path)?;
    thread::scope(|scope| {
        let server = scope.spawn(|| receive_on(&listener, cpus[1]));
        let (sent, begun, cpu) = path.client.enter(|| send_on(cpus[0], address, most))?;
        let (bytes, ended, server) =
            server.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        ensure!(bytes == sent, "{sent} bytes were sent, and {bytes} received");
        Ok(Turn { units: bytes, wall: ended.duration_since(begun), cpu: cpu + server })
    })
}

/// Returns the bytes sent, the start time and the CPU time.
fn send_on(cpu: usize, address: SocketAddr, most: u64) -> Result<(u64, Instant, Duration)> {
    cpu::pin(cpu)?;
    let chunk = vec![b'x'; CHUNK];
    let mut socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_write_timeout(Some(PEER_TIMEOUT))?;
    socket.connect_timeout(&address.into(), PEER_TIMEOUT).context("connect")?;
    let (begun, cpu) = (Instant::now(), cpu::time()?);
    let mut sent = 0;
    while sent < most && begun.elapsed() < TURN {
        socket.write_all(&chunk).context("send")?;
        sent += CHUNK as u64;
    }
    Ok((sent, begun, cpu::time()? - cpu))
}

/// Returns the bytes received, the time of the last and the CPU time.
fn receive_on(listener: &Socket, cpu: usize) -> Result<(u64, Instant, Duration)> {
    cpu::pin(cpu)?;
    let (mut connection, _) = listener.accept().context("accept")?;
    let cpu = cpu::time()?;
    let mut chunk = vec![0; CHUNK];
    let mut bytes = 0;
    loop {
        match connection.read(&mut chunk).context("receive")? {
            0 => return Ok((bytes, Instant::now(), cpu::time()? - cpu)),
            length => bytes += length as u64,
        }
    }
}

/// A listener of the server. Accepted sockets inherit its read timeout.
fn listen(path: &Path<'_>) -> Result<(Socket, SocketAddr)> {
    let address = path.server_at(0);
    let listener = path.server.socket(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    listener.set_read_timeout(Some(PEER_TIMEOUT))?;
    listener.bind(&address.into()).context("bind")?;
    listener.listen(BACKLOG).context("listen")?;
    let address = listener.local_addr()?.as_socket().context("a listener without an IP address")?;
    Ok((listener, address))
}

#[cfg(test)]
mod tests {
    use handshake_lab::{Family, Pair, counters, skip_unless_privileged};

    use super::*;

    #[test]
    fn a_turn_s_connections_equal_those_counted_by_the_server_s_kernel() {
        if skip_unless_privileged() {
            return;
        }
        let pair = Pair::new().expect("two hosts");
        let (path, cpus) = (pair.path(Family::V4), cpu::two().expect("a CPU"));
        let opened = |before: &counters::Counters| {
            counters::read(path.server).expect("counters").since(before, "TcpPassiveOpens")
        };
        let before = counters::read(path.server).expect("counters");
        let turn = connections(&path, cpus).expect("a turn");
        assert!(turn.units > 0 && turn.wall >= TURN && turn.cpu > Duration::ZERO, "{turn:?}");
        assert_eq!(opened(&before), turn.units);
        let before = counters::read(path.server).expect("counters");
        let turn = bulk_of(&path, cpus, CHUNK as u64 + 1).expect("a turn");
        assert_eq!((turn.units, opened(&before)), (2 * CHUNK as u64, 1), "whole writes over one connection");
    }
}
