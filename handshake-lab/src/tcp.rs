//! TCP by kernel sockets: scenarios whose outcome is known packet by packet.
//!
//! If a scenario depends on timing (a queue that must fill at the right moment), it checks the kernel's
//! counters and fails unless the situation arose.

use std::io::{self, ErrorKind, Read};
use std::mem::size_of_val;
use std::net::{IpAddr, Shutdown, SocketAddr};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};

use crate::frame::{BuiltSegment, Sender, flag, tcp_frame};
use crate::namespace::Namespace;
use crate::socket::deafen;
use crate::topology::Path;
use crate::{counters, udp};

/// Limit for every single step on these networks.
const TIMEOUT: Duration = Duration::from_secs(10);

/// A listening socket.
#[derive(Debug)]
pub struct Listener {
    socket: Socket,
    address: SocketAddr,
}

impl Listener {
    /// Listens on `port` (0: a free one) of the server. The kernel queues up to `backlog` + 1 connections
    /// that are not accepted.
    ///
    /// # Errors
    /// The port is taken.
    pub fn new(path: &Path<'_>, port: u16, backlog: i32) -> Result<Self> {
        let socket = bound(path.server, path.server_at(port))?;
        socket.listen(backlog).context("listen")?;
        let address = address_of(&socket)?;
        Ok(Self { socket, address })
    }

    /// A deaf listener: a filter on the socket drops every segment, as a local firewall would.
    ///
    /// # Errors
    /// The port is taken.
    pub fn deaf(path: &Path<'_>, port: u16) -> Result<Self> {
        let socket = bound(path.server, path.server_at(port))?;
        deafen(&socket)?;
        socket.listen(128).context("listen")?;
        let address = address_of(&socket)?;
        Ok(Self { socket, address })
    }

    /// The address of the listener.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Removes the filter of a deaf listener.
    ///
    /// # Errors
    /// The listener was not deaf.
    pub fn hear(&self) -> Result<()> {
        self.socket.detach_filter().context("remove a filter")
    }

    /// Accepts one connection.
    ///
    /// # Errors
    /// No connection arrives within ten seconds.
    pub fn accept(&self) -> Result<Socket> {
        self.socket.set_read_timeout(Some(TIMEOUT))?;
        Ok(self.socket.accept().context("accept")?.0)
    }
}

/// Connections that are open at both ends. When dropped, they are closed by FIN, in no defined order.
#[derive(Debug, Default)]
pub struct Connections {
    /// The initiators' sockets.
    pub clients: Vec<Socket>,
    /// The responders' sockets, in the same order.
    pub servers: Vec<Socket>,
}

impl Connections {
    /// The initiators' addresses.
    ///
    /// # Errors
    /// `getsockname(2)` fails.
    pub fn initiators(&self) -> Result<Vec<SocketAddr>> {
        self.clients.iter().map(address_of).collect()
    }

    /// Transfers `bytes` from the client to the server and the same number back, on each connection.
    ///
    /// # Errors
    /// The data does not arrive.
    pub fn talk(&self, bytes: usize) -> Result<()> {
        let said = vec![b'x'; bytes];
        for (client, server) in self.clients.iter().zip(&self.servers) {
            transfer(client, server, &said)?;
            transfer(server, client, &said)?;
        }
        Ok(())
    }

    /// Lets the clients' kernel send a keep-alive after each second without a packet.
    ///
    /// # Errors
    /// The kernel takes no such option.
    pub fn keep_alive(&self) -> Result<()> {
        let second = Duration::from_secs(1);
        let each = TcpKeepalive::new().with_time(second).with_interval(second);
        self.clients.iter().try_for_each(|client| client.set_tcp_keepalive(&each)).context("keep-alives")
    }

    /// Closes each connection from the client's end: two FINs.
    ///
    /// # Errors
    /// An end does not receive the other's FIN.
    pub fn close(self) -> Result<()> {
        for (client, server) in self.clients.into_iter().zip(self.servers) {
            client.shutdown(Shutdown::Write).context("close a client's end")?;
            await_end(&server)?;
            drop(server);
            await_end(&client)?;
        }
        Ok(())
    }

    /// Resets each connection from the client's end.
    ///
    /// # Errors
    /// The server does not receive the RST.
    pub fn reset(self) -> Result<()> {
        for (client, server) in self.clients.into_iter().zip(self.servers) {
            reset(client, &server)?;
        }
        Ok(())
    }
}

/// Makes `count` connections one after the other and accepts each. On the wire: SYN, SYN+ACK, ACK each.
///
/// # Errors
/// A connection fails.
pub fn connect_accept(path: &Path<'_>, listener: &Listener, count: usize) -> Result<Connections> {
    let mut connections = Connections::default();
    for client in sockets(path, count)? {
        connect(&client, listener.address())?;
        connections.clients.push(client);
        connections.servers.push(listener.accept()?);
    }
    Ok(connections)
}

/// A handshake as its client measured it.
#[derive(Clone, Copy, Debug)]
pub struct Handshake {
    /// Time from the first SYN until the client's socket was established.
    pub took: Duration,
    /// Number of SYNs that the client's kernel retransmitted.
    pub retransmissions: u32,
}

/// Makes one connection after the other until `done` is set, at least one; each is accepted and closed from
/// the client's end. Suited to run beside a flood: lost segments are retransmitted.
///
/// # Errors
/// A connection fails.
pub fn connect_until(path: &Path<'_>, listener: &Listener, done: &AtomicBool) -> Result<Vec<Handshake>> {
    let mut handshakes = Vec::new();
    while handshakes.is_empty() || !done.load(Ordering::Relaxed) {
        let mut connections = Connections { clients: sockets(path, 1)?, servers: Vec::new() };
        let client = &connections.clients[0];
        let began = Instant::now();
        connect(client, listener.address())?;
        let took = began.elapsed();
        handshakes.push(Handshake { took, retransmissions: retransmissions(client)? });
        connections.servers.push(listener.accept()?);
        connections.close()?;
    }
    Ok(handshakes)
}

/// The number of segments that the kernel retransmitted on a socket.
fn retransmissions(socket: &Socket) -> Result<u32> {
    // SAFETY: the structure consists of integers, for which zero is valid.
    let mut info: libc::tcp_info = unsafe { std::mem::zeroed() };
    let mut length = libc::socklen_t::try_from(size_of_val(&info))?;
    let to = (&raw mut info).cast();
    // SAFETY: the kernel writes at most `length` bytes to `info`, which has this size and is not shared.
    let result = unsafe {
        libc::getsockopt(socket.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_INFO, to, &raw mut length)
    };
    ensure!(result == 0, "query a socket's counts: {}", io::Error::last_os_error());
    Ok(info.tcpi_total_retrans)
}

/// Makes `count` connections to a port that is bound but not listened on. On the wire: SYN, RST each.
///
/// # Errors
/// A connection is not refused.
pub fn refused(path: &Path<'_>, count: usize) -> Result<SocketAddr> {
    let closed = ClosedPort::new(path)?;
    closed.refuse(path, count)?;
    Ok(closed.address)
}

/// A port of the server that is bound but not listened on.
#[derive(Debug)]
pub struct ClosedPort {
    _bound: Socket,
    address: SocketAddr,
}

impl ClosedPort {
    /// Binds a free port.
    ///
    /// # Errors
    /// The system's.
    pub fn new(path: &Path<'_>) -> Result<Self> {
        let bound = bound(path.server, path.server_at(0))?;
        let address = address_of(&bound)?;
        Ok(Self { _bound: bound, address })
    }

    /// Makes `count` connections to it. On the wire: SYN, RST each.
    ///
    /// # Errors
    /// A connection is not refused.
    pub fn refuse(&self, path: &Path<'_>, count: usize) -> Result<()> {
        for client in sockets(path, count)? {
            match client.connect_timeout(&self.address.into(), TIMEOUT) {
                Err(error) if error.kind() == ErrorKind::ConnectionRefused => {}
                other => bail!("a connection to a closed port ended with {other:?}"),
            }
        }
        Ok(())
    }
}

/// Connections in progress. Dropping them sends nothing.
#[derive(Debug)]
pub struct Attempts {
    sockets: Vec<Socket>,
    address: SocketAddr,
}

impl Attempts {
    /// Starts `count` connections to `address` without waiting for them. On the wire: a SYN each, until the
    /// kernel retransmits it after a second.
    ///
    /// # Errors
    /// A connection fails at once.
    pub fn start(path: &Path<'_>, address: SocketAddr, count: usize) -> Result<Self> {
        Self::begin(sockets(path, count)?, address)
    }

    /// Like [`Attempts::start`], with a filter on each socket that drops every segment. On the wire: a SYN
    /// and a SYN+ACK each, until one end retransmits after a second.
    ///
    /// # Errors
    /// A connection fails at once.
    pub fn start_deaf(path: &Path<'_>, address: SocketAddr, count: usize) -> Result<Self> {
        let sockets = sockets(path, count)?;
        sockets.iter().try_for_each(deafen)?;
        Self::begin(sockets, address)
    }

    fn begin(sockets: Vec<Socket>, address: SocketAddr) -> Result<Self> {
        for socket in &sockets {
            socket.set_nonblocking(true)?;
            begin(socket, address)?;
        }
        Ok(Self { sockets, address })
    }

    /// The address that they connect to.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Waits until the kernel has given up each connection. With [`Namespace::syn_retries`] of n that is
    /// after n + 1 SYNs each.
    ///
    /// # Errors
    /// A connection ends differently, or does not end within `limit`.
    pub fn wait_timed_out(&self, limit: Duration) -> Result<()> {
        self.wait(limit, |socket| match socket.take_error()? {
            Some(error) if error.kind() == ErrorKind::TimedOut => Ok(true),
            Some(error) => Err(error.into()),
            None => Ok(false),
        })
    }

    /// Waits until each connection has failed because of an ICMP error that reports the destination
    /// unreachable.
    ///
    /// # Errors
    /// A connection ends differently, or does not end within `limit`.
    pub fn wait_unreachable(&self, limit: Duration) -> Result<()> {
        self.wait(limit, |socket| match socket.take_error()? {
            // The errors that the two families' stacks report.
            Some(error)
                if [ErrorKind::HostUnreachable, ErrorKind::NetworkUnreachable].contains(&error.kind()) =>
            {
                Ok(true)
            }
            Some(error) => Err(error.into()),
            None => Ok(false),
        })
    }

    /// Waits until each connection is established at the client.
    ///
    /// # Errors
    /// A connection fails, or is not established within `limit`.
    pub fn wait_established(&self, limit: Duration) -> Result<()> {
        let address = self.address.into();
        // A repeated connect reports the state of a connection in progress.
        self.wait(limit, |socket| match socket.connect(&address) {
            Err(error) if error.raw_os_error() == Some(libc::EALREADY) => Ok(false),
            Err(error) if error.raw_os_error() != Some(libc::EISCONN) => Err(error.into()),
            Ok(()) | Err(_) => Ok(true),
        })
    }

    /// Aborts the connections in progress: the kernel forgets them and sends nothing.
    ///
    /// # Errors
    /// A connection is no longer in progress.
    pub fn give_up(&self) -> Result<()> {
        // Not by closing: a process that is being started may hold a copy of the descriptor for a moment.
        self.sockets.iter().try_for_each(|socket| socket.shutdown(Shutdown::Both).context("abort an attempt"))
    }

    fn wait(&self, limit: Duration, done: impl Fn(&Socket) -> Result<bool>) -> Result<()> {
        let deadline = Instant::now() + limit;
        for socket in &self.sockets {
            while !done(socket).with_context(|| format!("a connection to {}", self.address))? {
                ensure!(Instant::now() < deadline, "a connection to {} is still in progress", self.address);
                thread::sleep(Duration::from_millis(2));
            }
        }
        Ok(())
    }
}

/// Sends `count` SYNs from unassigned addresses: the server's SYN+ACKs get no answer, and it retransmits them
/// after 1 s, 3 s … `net.ipv4.tcp_synack_retries` times. Returns the source addresses.
///
/// # Errors
/// `count` exceeds 200, or the device refuses a frame.
pub fn syn_without_ack(path: &Path<'_>, to: SocketAddr, count: u8) -> Result<Vec<SocketAddr>> {
    syn_without_ack_from(path, 40_000, to, count)
}

/// Like [`syn_without_ack`], from `port`. With the same ends as before, the SYNs would be retransmissions of
/// the same attempts.
///
/// # Errors
/// As [`syn_without_ack`].
pub fn syn_without_ack_from(
    path: &Path<'_>,
    port: u16,
    to: SocketAddr,
    count: u8,
) -> Result<Vec<SocketAddr>> {
    ensure!(count <= 200, "only 200 addresses are unassigned");
    let unassigned = path.unassigned.context("no route to unassigned addresses")?;
    let sources = (0..count).map(|number| SocketAddr::new(nth(unassigned, number), port));
    send_syns(path, to, sources.collect())
}

/// Sends SYNs from the client's address without a socket, as in a SYN scan: the client's kernel answers each
/// SYN+ACK with RST. On the wire: SYN, SYN+ACK, RST each. Returns the source addresses.
///
/// # Errors
/// The device refuses a frame.
pub fn syn_scan(path: &Path<'_>, to: SocketAddr, count: u16) -> Result<Vec<SocketAddr>> {
    // Below the ephemeral ports (from 32768).
    syn_scan_from(path, 20_000, to, count)
}

/// Like [`syn_scan`], from `first` and the ports after it.
///
/// # Errors
/// As [`syn_scan`].
pub fn syn_scan_from(path: &Path<'_>, first: u16, to: SocketAddr, count: u16) -> Result<Vec<SocketAddr>> {
    let sources = (0..count).map(|number| SocketAddr::new(path.source, first + number));
    send_syns(path, to, sources.collect())
}

fn send_syns(path: &Path<'_>, to: SocketAddr, sources: Vec<SocketAddr>) -> Result<Vec<SocketAddr>> {
    /// The first sequence number; those after it cross 2³².
    const FIRST: u32 = 0xffff_fffe;
    let mut sender = Sender::new(path.client, path.device)?;
    for (source, number) in sources.iter().zip(0..) {
        let seq = FIRST.wrapping_add(number);
        let segment =
            BuiltSegment { source: *source, destination: to, seq, ack: 0, flags: flag::SYN, payload: &[] };
        sender.send(&tcp_frame(path.macs, &segment)?)?;
    }
    Ok(sources)
}

/// Makes `times` attempts from one port to an address that does not answer, each aborted when the next
/// begins. On the wire: a SYN each, all with different sequence numbers. Returns the last attempt, still in
/// progress, and its source.
///
/// # Errors
/// An attempt fails at once.
pub fn give_up_and_retry(path: &Path<'_>, to: SocketAddr, times: usize) -> Result<(Attempts, SocketAddr)> {
    ensure!(times > 0, "zero attempts");
    let mut source = SocketAddr::new(path.source, 0);
    let mut last = Attempts { sockets: Vec::new(), address: to };
    for _ in 0..times {
        last.give_up()?;
        let client = bound(path.client, source)?;
        source = address_of(&client)?;
        last = Attempts::begin(vec![client], to)?;
    }
    Ok((last, source))
}

/// Makes one connection by simultaneous open (RFC 9293 §3.5, figure 7): the two SYNs cross. One datagram in
/// each direction uses up the burst of the slowed devices first. Returns the sockets and the two addresses.
///
/// # Errors
/// A SYN arrived before the other was sent, or `path` is `lo`.
pub fn simultaneous_open(path: &Path<'_>) -> Result<(Attempts, [SocketAddr; 2])> {
    let (near, far) = (SocketAddr::new(path.source, 0), path.server_at(0));
    let ends = [bound(path.client, near)?, bound(path.server, far)?];
    let addresses = [address_of(&ends[0])?, address_of(&ends[1])?];
    let _slow = [Slow::new(path, path.client)?, Slow::new(path, path.server)?];
    udp::cross(path)?;
    let before = counters::read(path.server)?;
    for (socket, to) in ends.iter().zip([addresses[1], addresses[0]]) {
        socket.set_nonblocking(true)?;
        begin(socket, to)?;
    }
    let attempts = Attempts { sockets: ends.into(), address: addresses[1] };
    attempts.wait_established(TIMEOUT)?;
    // A SYN that found no connecting socket would have been answered with RST.
    let resets = counters::read(path.server)?.since(&before, "TcpOutRsts");
    ensure!(resets == 0, "the SYNs did not cross");
    Ok((attempts, addresses))
}

/// Slows a host's sending down to about one small segment per 150 ms, until dropped.
struct Slow<'a> {
    namespace: &'a Namespace,
    device: &'a str,
}

impl<'a> Slow<'a> {
    fn new(path: &Path<'a>, namespace: &'a Namespace) -> Result<Self> {
        // The burst is one SYN or SYN+ACK: 74 bytes with the Ethernet header, 94 over IPv6.
        let burst = if path.destination.is_ipv4() { 80 } else { 100 };
        let device = path.device;
        namespace.tc(&format!("qdisc add dev {device} root tbf rate 4kbit burst {burst} limit 100000"))?;
        Ok(Self { namespace, device })
    }
}

impl Drop for Slow<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.namespace.tc(&format!("qdisc del dev {} root", self.device)) {
            eprintln!("cannot undo the slowdown: {error:#}");
        }
    }
}

/// A listener whose accept queue is already full, and attempts whose SYNs it drops.
#[derive(Debug)]
pub struct FullQueue {
    /// The listener, which does not accept.
    pub listener: Listener,
    /// The attempts that filled the queue; they are completed.
    pub queued: Attempts,
    /// The later attempts: no SYN+ACK, and a retransmission after one second.
    pub dropped: Attempts,
}

/// Fills a queue of `backlog` + 1 and starts `count` more attempts.
///
/// # Errors
/// The kernel did not count `count` overflows.
pub fn queue_already_full(path: &Path<'_>, backlog: u8, count: usize) -> Result<FullQueue> {
    let listener = Listener::new(path, 0, backlog.into())?;
    let queued = Attempts::start(path, listener.address(), usize::from(backlog) + 1)?;
    queued.wait_established(TIMEOUT)?;
    let before = counters::read(path.server)?;
    let dropped = Attempts::start(path, listener.address(), count)?;
    let overflows = || Ok(counters::read(path.server)?.since(&before, "TcpExtListenOverflows"));
    await_count(overflows, count as u64).context("SYNs dropped by a full accept queue")?;
    Ok(FullQueue { listener, queued, dropped })
}

/// A listener whose accept queue filled while its SYN+ACKs were in flight.
#[derive(Debug)]
pub struct FilledQueue {
    /// The listener, which does not accept.
    pub listener: Listener,
    /// Attempts that the server completed too.
    pub taken: Attempts,
    /// Attempts completed by the client's ACKs, of which the server accepted only the first: it retransmits
    /// its SYN+ACK to each of the others after 1 s, 3 s …
    pub contested: Attempts,
}

impl FilledQueue {
    /// The number of connections whose ACK the server ignored.
    #[must_use]
    pub fn ignored(&self) -> usize {
        self.contested.sockets.len() - 1
    }
}

/// Puts `backlog` connections into a queue of `backlog` + 1, then starts `backlog` + 1 more at once, all
/// before the first of their SYN+ACKs has left: the device is slowed down to one SYN+ACK per 148 ms (IPv6:
/// 188 ms). The device is back to normal on return. The server must have syncookies off and a device of its
/// own (not `lo`).
///
/// # Errors
/// The kernel did not count `backlog` overflows, because an ACK arrived before the last SYN.
pub fn queue_fills_in_flight(path: &Path<'_>, backlog: u8) -> Result<FilledQueue> {
    const FIRST_RETRANSMISSION: Duration = Duration::from_millis(1000);
    path.server.sysctl("net.ipv4.tcp_syncookies", "0")?;
    let listener = Listener::new(path, 0, backlog.into())?;
    let before = counters::read(path.server)?;
    let slow = Slow::new(path, path.server)?;
    let taken = Attempts::start(path, listener.address(), backlog.into())?;
    taken.wait_established(TIMEOUT)?;
    let began = Instant::now();
    let contested = Attempts::start(path, listener.address(), usize::from(backlog) + 1)?;
    contested.wait_established(TIMEOUT)?;
    let overflows = || Ok(counters::read(path.server)?.since(&before, "TcpExtListenOverflows"));
    await_count(overflows, backlog.into()).context("ACKs ignored by a full accept queue")?;
    ensure!(began.elapsed() < FIRST_RETRANSMISSION, "SYN+ACKs were retransmitted before all had left");
    drop(slow);
    Ok(FilledQueue { listener, taken, contested })
}

/// The segment of a handshake that is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// The first SYN; the client retransmits it.
    Syn,
    /// The first SYN+ACK; both ends retransmit.
    SynAck,
}

/// Connections that were established and accepted in the end.
#[derive(Debug)]
pub struct AcceptedConnections {
    /// The listener that accepted them.
    pub listener: Listener,
    /// The initiators.
    pub attempts: Attempts,
    /// The responders' sockets, in any order.
    pub servers: Vec<Socket>,
}

impl AcceptedConnections {
    /// Waits until both ends of all attempts are established.
    fn all(listener: Listener, attempts: Attempts) -> Result<Self> {
        attempts.wait_established(TIMEOUT)?;
        let servers = attempts.sockets.iter().map(|_| listener.accept()).collect::<Result<Vec<Socket>>>()?;
        Ok(Self { listener, attempts, servers })
    }
}

/// Makes `count` connections whose segment `lost` is dropped the first time. They complete a second later by
/// the retransmission.
///
/// # Errors
/// A connection fails.
pub fn lost_once(path: &Path<'_>, lost: Loss, count: usize) -> Result<AcceptedConnections> {
    let (listener, attempts);
    match lost {
        Loss::Syn => {
            listener = Listener::deaf(path, 0)?;
            attempts = Attempts::start(path, listener.address(), count)?;
            await_dropped(&listener.socket, count)?;
            listener.hear()?;
        }
        Loss::SynAck => {
            listener = Listener::new(path, 0, i32::try_from(count)?)?;
            attempts = Attempts::start_deaf(path, listener.address(), count)?;
            for socket in &attempts.sockets {
                await_dropped(socket, 1)?;
                socket.detach_filter().context("remove a filter")?;
            }
        }
    }
    AcceptedConnections::all(listener, attempts)
}

/// Waits until a filter has dropped `count` segments that arrived at `socket`.
fn await_dropped(socket: &Socket, count: usize) -> Result<()> {
    let dropped = || Ok(u64::from(segments_dropped(socket).context("query a socket's drops")?));
    await_count(dropped, count as u64).context("segments dropped by a filter")
}

/// The number of segments that were dropped at `socket`.
fn segments_dropped(socket: &Socket) -> io::Result<u32> {
    /// `SK_MEMINFO_DROPS` of `linux/sock_diag.h`, the index of the last word.
    const DROPS: usize = 8;
    let mut words = [0u32; DROPS + 1];
    let mut length = libc::socklen_t::try_from(size_of_val(&words)).map_err(io::Error::other)?;
    let (fd, into) = (socket.as_raw_fd(), (&raw mut words).cast());
    // SAFETY: the kernel writes at most `length` bytes, the size of `words`; both outlive the call.
    let result = unsafe { libc::getsockopt(fd, libc::SOL_SOCKET, libc::SO_MEMINFO, into, &raw mut length) };
    if result == 0 { Ok(words[DROPS]) } else { Err(io::Error::last_os_error()) }
}

/// Minimum time for which each SYN+ACK of [`slow_answers`] except the first occupies the device: 54 bytes of
/// headers (IPv6: 74) at 4 kbit/s.
pub const SLOW_ANSWER: Duration = Duration::from_millis(100);

/// Starts `count` connections to `listener` at once; the server's device sends one SYN+ACK per about 150 ms (IPv6: 190 ms),
/// and is back to normal on return. Also returns how long the client waited: from before the first SYN to
/// after the last SYN+ACK.
///
/// # Errors
/// They do not complete before the first SYN is retransmitted after a second, or `path` is `lo`.
pub fn slow_answers(
    path: &Path<'_>,
    listener: Listener,
    count: usize,
) -> Result<(AcceptedConnections, Duration)> {
    let before = counters::read(path.client)?;
    let slow = Slow::new(path, path.server)?;
    let began = Instant::now();
    let attempts = Attempts::start(path, listener.address(), count)?;
    let accepted = AcceptedConnections::all(listener, attempts)?;
    let waited = began.elapsed();
    drop(slow);
    let repeated = counters::read(path.client)?.since(&before, "TcpExtTCPSynRetrans");
    ensure!(repeated == 0, "{repeated} SYNs were retransmitted: the device was too slow");
    Ok((accepted, waited))
}

/// Makes connections with Fast Open (RFC 7413): one that requests a cookie, then `count` whose SYN carries
/// the cookie and `data`. All are accepted.
///
/// # Errors
/// The kernel did not count `count` Fast Open connections at both ends.
pub fn fast_open(path: &Path<'_>, count: usize, data: &[u8]) -> Result<Connections> {
    /// Both roles, for every listener without a socket option.
    const ALL: &str = "1027";
    path.client.sysctl("net.ipv4.tcp_fastopen", ALL)?;
    path.server.sysctl("net.ipv4.tcp_fastopen", ALL)?;
    let listener = Listener::new(path, 0, 128)?;
    let before = [counters::read(path.client)?, counters::read(path.server)?];
    let mut connections = Connections::default();
    for client in sockets(path, count + 1)? {
        connections.servers.push(send_fast(&client, &listener, data)?);
        connections.clients.push(client);
    }
    let names = ["TcpExtTCPFastOpenActive", "TcpExtTCPFastOpenPassive"];
    for (namespace, (before, name)) in [path.client, path.server].into_iter().zip(before.iter().zip(names)) {
        let opened = counters::read(namespace)?.since(before, name);
        ensure!(opened == count as u64, "{name} rose by {opened}, not by {count}");
    }
    Ok(connections)
}

fn send_fast(client: &Socket, listener: &Listener, data: &[u8]) -> Result<Socket> {
    let address = listener.address().into();
    let sent = client.send_to_with_flags(data, &address, libc::MSG_FASTOPEN).context("send with the SYN")?;
    ensure!(sent == data.len(), "sent {sent} bytes of {} with the SYN", data.len());
    let server = listener.accept()?;
    receive(&server, data)?;
    Ok(server)
}

/// Makes `times` connections between the same two ends, each reset by the client before the next. Returns the
/// client's address.
///
/// # Errors
/// A connection fails.
pub fn reuse_port(path: &Path<'_>, listener: &Listener, times: usize) -> Result<SocketAddr> {
    let mut source = SocketAddr::new(path.source, 0);
    for _ in 0..times {
        let client = bound(path.client, source)?;
        source = address_of(&client)?;
        connect(&client, listener.address())?;
        reset(client, &listener.accept()?)?;
    }
    Ok(source)
}

/// Resets a connection from the client's end, and waits until the server has received the RST.
fn reset(client: Socket, server: &Socket) -> Result<()> {
    client.set_linger(Some(Duration::ZERO))?;
    drop(client);
    server.set_read_timeout(Some(TIMEOUT))?;
    match (&*server).read(&mut [0; 1]) {
        Err(error) if error.kind() == ErrorKind::ConnectionReset => Ok(()),
        other => bail!("a reset connection ended with {other:?}"),
    }
}

fn sockets(path: &Path<'_>, count: usize) -> Result<Vec<Socket>> {
    path.client.enter(|| {
        let domain = Domain::for_address(path.server_at(0));
        (0..count).map(|_| Ok(Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?)).collect()
    })
}

fn bound(namespace: &Namespace, address: SocketAddr) -> Result<Socket> {
    let socket = namespace.socket(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into()).with_context(|| format!("bind to {address}"))?;
    Ok(socket)
}

fn connect(socket: &Socket, address: SocketAddr) -> Result<()> {
    socket.connect_timeout(&address.into(), TIMEOUT).with_context(|| format!("connect to {address}"))
}

/// Starts a connection of a nonblocking socket.
fn begin(socket: &Socket, address: SocketAddr) -> Result<()> {
    match socket.connect(&address.into()) {
        Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => {
            Err(error).with_context(|| format!("start a connection to {address}"))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

fn address_of(socket: &Socket) -> Result<SocketAddr> {
    let address = socket.local_addr().context("query a socket's address")?;
    address.as_socket().context("a socket without an IP address")
}

fn transfer(from: &Socket, to: &Socket, said: &[u8]) -> Result<()> {
    let sent = from.send(said).context("send")?;
    ensure!(sent == said.len(), "sent {sent} bytes of {}", said.len());
    receive(to, said)
}

fn receive(socket: &Socket, expected: &[u8]) -> Result<()> {
    socket.set_read_timeout(Some(TIMEOUT))?;
    let mut heard = vec![0; expected.len()];
    (&*socket).read_exact(&mut heard).context("receive")?;
    ensure!(heard == expected, "the received data differs from the data sent");
    Ok(())
}

fn await_end(socket: &Socket) -> Result<()> {
    socket.set_read_timeout(Some(TIMEOUT))?;
    let rest = (&*socket).read(&mut [0; 1]).context("wait for a FIN")?;
    ensure!(rest == 0, "data where a FIN was expected");
    Ok(())
}

/// Waits until `count` is `expected`; a larger count, or a smaller one after ten seconds, is an error.
fn await_count(count: impl Fn() -> Result<u64>, expected: u64) -> Result<()> {
    let deadline = Instant::now() + TIMEOUT;
    loop {
        let now = count()?;
        if now == expected {
            return Ok(());
        }
        ensure!(now < expected && Instant::now() < deadline, "{now} instead of {expected}");
        thread::sleep(Duration::from_millis(2));
    }
}

/// The address `number` after `first`; only the last byte changes.
fn nth(first: IpAddr, number: u8) -> IpAddr {
    match first {
        IpAddr::V4(first) => {
            let [a, b, c, d] = first.octets();
            [a, b, c, d + number].into()
        }
        IpAddr::V6(first) => {
            let mut bytes = first.octets();
            bytes[15] += number;
            bytes.into()
        }
    }
}
