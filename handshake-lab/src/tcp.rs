//! TCP by the kernel's own sockets, each scenario with an outcome that is known packet by packet.
//!
//! A scenario that the kernel may spoil (a queue that fills at the wrong moment) asks the kernel's
//! counters whether it came about, and is an error when it did not.

use std::io::{self, ErrorKind, Read};
use std::mem::size_of_val;
use std::net::{IpAddr, Shutdown, SocketAddr};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use socket2::{Domain, Protocol, Socket, Type};

use crate::frame::{Segment, Sender, flag, tcp_frame};
use crate::namespace::Namespace;
use crate::socket::deafen;
use crate::topology::Path;
use crate::{counters, udp};

/// How long anything on these networks may take before it counts as failed.
const PATIENCE: Duration = Duration::from_secs(10);

/// A listening socket.
#[derive(Debug)]
pub struct Listener {
    socket: Socket,
    address: SocketAddr,
}

impl Listener {
    /// On `port` (0: a free one) of the server. The kernel holds `backlog` + 1 connections that nobody accepts.
    ///
    /// # Errors
    /// The port is taken.
    pub fn new(path: &Path<'_>, port: u16, backlog: i32) -> Result<Self> {
        let socket = bound(path.server, path.server_at(port))?;
        socket.listen(backlog).context("listen")?;
        let address = address_of(&socket)?;
        Ok(Self { socket, address })
    }

    /// One that hears nothing: a filter on the socket drops every segment, as a local firewall would.
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

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Has a deaf one hear from now on.
    ///
    /// # Errors
    /// It was not deaf.
    pub fn hear(&self) -> Result<()> {
        self.socket.detach_filter().context("take a filter off")
    }

    /// Takes one connection off the queue.
    ///
    /// # Errors
    /// None comes within ten seconds.
    pub fn accept(&self) -> Result<Socket> {
        self.socket.set_read_timeout(Some(PATIENCE))?;
        Ok(self.socket.accept().context("accept")?.0)
    }
}

/// Connections of which both ends are open. Dropped as they are, they close by FIN as the kernel likes.
#[derive(Debug, Default)]
pub struct Connections {
    /// The initiators.
    pub clients: Vec<Socket>,
    /// The responders, in the same order.
    pub servers: Vec<Socket>,
}

impl Connections {
    /// The initiators' addresses.
    ///
    /// # Errors
    /// Of `getsockname(2)`.
    pub fn initiators(&self) -> Result<Vec<SocketAddr>> {
        self.clients.iter().map(address_of).collect()
    }

    /// `bytes` from the client to the server, and as many back, on each.
    ///
    /// # Errors
    /// They do not come.
    pub fn talk(&self, bytes: usize) -> Result<()> {
        let said = vec![b'x'; bytes];
        for (client, server) in self.clients.iter().zip(&self.servers) {
            transfer(client, server, &said)?;
            transfer(server, client, &said)?;
        }
        Ok(())
    }

    /// Closes each from the client's end: two FINs.
    ///
    /// # Errors
    /// An end does not hear the other's.
    pub fn close(self) -> Result<()> {
        for (client, server) in self.clients.into_iter().zip(self.servers) {
            client.shutdown(Shutdown::Write).context("close a client's end")?;
            await_end(&server)?;
            drop(server);
            await_end(&client)?;
        }
        Ok(())
    }

    /// Ends each by the client's RST.
    ///
    /// # Errors
    /// The server does not hear it.
    pub fn reset(self) -> Result<()> {
        for (client, server) in self.clients.into_iter().zip(self.servers) {
            reset(client, &server)?;
        }
        Ok(())
    }
}

/// `count` connections, one after the other, each accepted. On the wire: SYN, SYN+ACK, ACK each.
///
/// # Errors
/// One does not come about.
pub fn connect_accept(path: &Path<'_>, listener: &Listener, count: usize) -> Result<Connections> {
    let mut connections = Connections::default();
    for client in sockets(path, count)? {
        connect(&client, listener.address())?;
        connections.clients.push(client);
        connections.servers.push(listener.accept()?);
    }
    Ok(connections)
}

/// A handshake as its client saw it.
#[derive(Clone, Copy, Debug)]
pub struct Handshake {
    /// From the first SYN until the client's socket was established.
    pub took: Duration,
    /// SYNs that its kernel sent again.
    pub retransmissions: u32,
}

/// One connection after the other until it is `done`, and one at least; each is accepted and closed from the client's
/// end. Beside a flood: whatever is lost on the way is sent again.
///
/// # Errors
/// One does not come about.
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

/// What a socket's kernel sent again up to now.
fn retransmissions(socket: &Socket) -> Result<u32> {
    // SAFETY: the structure is of numbers alone, for which zero is a value.
    let mut info: libc::tcp_info = unsafe { std::mem::zeroed() };
    let mut length = libc::socklen_t::try_from(size_of_val(&info))?;
    let to = (&raw mut info).cast();
    // SAFETY: the kernel writes at most `length` bytes to `info`, which is ours alone.
    let result = unsafe {
        libc::getsockopt(socket.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_INFO, to, &raw mut length)
    };
    ensure!(result == 0, "ask a socket for its counts: {}", io::Error::last_os_error());
    Ok(info.tcpi_total_retrans)
}

/// `count` connections to a port that is taken but not listened on. On the wire: SYN, RST each.
///
/// # Errors
/// One is not refused.
pub fn refused(path: &Path<'_>, count: usize) -> Result<SocketAddr> {
    let closed = bound(path.server, path.server_at(0))?;
    let address = address_of(&closed)?;
    for client in sockets(path, count)? {
        match client.connect_timeout(&address.into(), PATIENCE) {
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => {}
            other => bail!("a connection to a closed port ended with {other:?}"),
        }
    }
    Ok(address)
}

/// Connections under way. Dropped while they wait, they send nothing more.
#[derive(Debug)]
pub struct Attempts {
    sockets: Vec<Socket>,
    address: SocketAddr,
}

impl Attempts {
    /// `count` to `address`, none of them waited for. On the wire: a SYN each, until the kernel sends it again
    /// after a second.
    ///
    /// # Errors
    /// One fails at once.
    pub fn start(path: &Path<'_>, address: SocketAddr, count: usize) -> Result<Self> {
        Self::begin(sockets(path, count)?, address)
    }

    /// The same, of clients that hear nothing: a filter on the socket drops every segment. On the wire: a SYN
    /// and a SYN+ACK each, until one of the ends sends again after a second.
    ///
    /// # Errors
    /// One fails at once.
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

    /// Where they go.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Waits until the kernel has given each up. With [`Namespace::syn_retries`] of n that is n + 1 SYNs each.
    ///
    /// # Errors
    /// One ends otherwise, or not within `limit`.
    pub fn wait_timed_out(&self, limit: Duration) -> Result<()> {
        self.wait(limit, |socket| match socket.take_error()? {
            Some(error) if error.kind() == ErrorKind::TimedOut => Ok(true),
            Some(error) => Err(error.into()),
            None => Ok(false),
        })
    }

    /// Waits until each has failed because the network said by ICMP that there is no way.
    ///
    /// # Errors
    /// One ends otherwise, or not within `limit`.
    pub fn wait_unreachable(&self, limit: Duration) -> Result<()> {
        self.wait(limit, |socket| match socket.take_error()? {
            // What the two families' stacks make of it.
            Some(error)
                if [ErrorKind::HostUnreachable, ErrorKind::NetworkUnreachable].contains(&error.kind()) =>
            {
                Ok(true)
            }
            Some(error) => Err(error.into()),
            None => Ok(false),
        })
    }

    /// Waits until each is established, as the client sees it.
    ///
    /// # Errors
    /// One fails, or is not within `limit`.
    pub fn wait_established(&self, limit: Duration) -> Result<()> {
        let address = self.address.into();
        // Asked again, a connection under way says how it stands.
        self.wait(limit, |socket| match socket.connect(&address) {
            Err(error) if error.raw_os_error() == Some(libc::EALREADY) => Ok(false),
            Err(error) if error.raw_os_error() != Some(libc::EISCONN) => Err(error.into()),
            Ok(()) | Err(_) => Ok(true),
        })
    }

    /// Ends those that wait: their kernel forgets them, and sends nothing.
    ///
    /// # Errors
    /// One does not wait any more.
    pub fn give_up(&self) -> Result<()> {
        // Not by closing: a process that is being started elsewhere may hold a copy for a moment.
        self.sockets
            .iter()
            .try_for_each(|socket| socket.shutdown(Shutdown::Both).context("give up an attempt"))
    }

    fn wait(&self, limit: Duration, done: impl Fn(&Socket) -> Result<bool>) -> Result<()> {
        let deadline = Instant::now() + limit;
        for socket in &self.sockets {
            while !done(socket).with_context(|| format!("a connection to {}", self.address))? {
                ensure!(Instant::now() < deadline, "a connection to {} still waits", self.address);
                thread::sleep(Duration::from_millis(2));
            }
        }
        Ok(())
    }
}

/// SYNs from addresses that nobody has, `count` of them: the server's SYN+ACKs get no answer, and it repeats
/// them after 1 s, 3 s … `net.ipv4.tcp_synack_retries` times. Gives the source addresses.
///
/// # Errors
/// More than 200, or a frame is refused.
pub fn syn_without_ack(path: &Path<'_>, to: SocketAddr, count: u8) -> Result<Vec<SocketAddr>> {
    syn_without_ack_from(path, 40_000, to, count)
}

/// The same from `port`: from the same ends these would be the same attempts again, to the number.
///
/// # Errors
/// As [`syn_without_ack`].
pub fn syn_without_ack_from(
    path: &Path<'_>,
    port: u16,
    to: SocketAddr,
    count: u8,
) -> Result<Vec<SocketAddr>> {
    ensure!(count <= 200, "nobody has 200 addresses");
    let nobody = path.nobody.context("no route to addresses that nobody has")?;
    let sources = (0..count).map(|number| SocketAddr::new(nth(nobody, number), port));
    send_syns(path, to, sources.collect())
}

/// SYNs from the client's address but from no socket of its: its kernel answers each SYN+ACK with RST, as in a
/// SYN scan. On the wire: SYN, SYN+ACK, RST each. Gives the source addresses.
///
/// # Errors
/// A frame is refused.
pub fn syn_scan(path: &Path<'_>, to: SocketAddr, count: u16) -> Result<Vec<SocketAddr>> {
    // Below the ports that the kernel gives by itself (from 32768).
    syn_scan_from(path, 20_000, to, count)
}

/// The same from `first` and the ports behind it.
///
/// # Errors
/// As [`syn_scan`].
pub fn syn_scan_from(path: &Path<'_>, first: u16, to: SocketAddr, count: u16) -> Result<Vec<SocketAddr>> {
    let sources = (0..count).map(|number| SocketAddr::new(path.source, first + number));
    send_syns(path, to, sources.collect())
}

fn send_syns(path: &Path<'_>, to: SocketAddr, sources: Vec<SocketAddr>) -> Result<Vec<SocketAddr>> {
    /// Their sequence numbers begin here, so that they cross 2³².
    const FIRST: u32 = 0xffff_fffe;
    let mut sender = Sender::new(path.client, path.device)?;
    for (source, number) in sources.iter().zip(0..) {
        let seq = FIRST.wrapping_add(number);
        let segment =
            Segment { source: *source, destination: to, seq, ack: 0, flags: flag::SYN, payload: &[] };
        sender.send(&tcp_frame(path.macs, &segment)?)?;
    }
    Ok(sources)
}

/// `times` attempts from one port to an address that does not answer, each given up when the next begins. On the
/// wire: a SYN each, no two with one sequence number. Gives the last attempt, still under way, and its source.
///
/// # Errors
/// One fails at once.
pub fn give_up_and_retry(path: &Path<'_>, to: SocketAddr, times: usize) -> Result<(Attempts, SocketAddr)> {
    ensure!(times > 0, "no attempt");
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

/// One connection that both ends open (RFC 9293 §3.5, figure 7): their SYNs cross. Beside it, one datagram each way
/// uses up what the slowed-down devices let through at once. Gives the two addresses, and keeps the sockets.
///
/// # Errors
/// A SYN arrived before the other was sent; or `path` is `lo`.
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
    attempts.wait_established(PATIENCE)?;
    // A SYN that met no socket under way would have been answered with RST.
    let resets = counters::read(path.server)?.since(&before, "TcpOutRsts");
    ensure!(resets == 0, "the SYNs did not cross");
    Ok((attempts, addresses))
}

/// What a host sends, slowed down to one small segment in some 150 ms; as before on drop.
struct Slow<'a> {
    namespace: &'a Namespace,
    device: &'a str,
}

impl<'a> Slow<'a> {
    fn new(path: &Path<'a>, namespace: &'a Namespace) -> Result<Self> {
        // A burst is one SYN or SYN+ACK: 74 bytes with its Ethernet header, 94 over IPv6.
        let burst = if path.destination.is_ipv4() { 80 } else { 100 };
        let device = path.device;
        namespace.tc(&format!("qdisc add dev {device} root tbf rate 4kbit burst {burst} limit 100000"))?;
        Ok(Self { namespace, device })
    }
}

impl Drop for Slow<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.namespace.tc(&format!("qdisc del dev {} root", self.device)) {
            eprintln!("cannot take the slowing down off: {error:#}");
        }
    }
}

/// A listener whose accept queue is full already, and attempts whose SYNs it drops.
#[derive(Debug)]
pub struct FullQueue {
    /// The one that does not accept.
    pub listener: Listener,
    /// Those that filled the queue: completed.
    pub queued: Attempts,
    /// Those that came later: no SYN+ACK, a retransmission after one second.
    pub dropped: Attempts,
}

/// Fills a queue of `backlog` + 1, then makes `count` more attempts.
///
/// # Errors
/// The kernel did not count `count` overflows.
pub fn queue_already_full(path: &Path<'_>, backlog: u8, count: usize) -> Result<FullQueue> {
    let listener = Listener::new(path, 0, backlog.into())?;
    let queued = Attempts::start(path, listener.address(), usize::from(backlog) + 1)?;
    queued.wait_established(PATIENCE)?;
    let before = counters::read(path.server)?;
    let dropped = Attempts::start(path, listener.address(), count)?;
    let overflows = || Ok(counters::read(path.server)?.since(&before, "TcpExtListenOverflows"));
    await_count(overflows, count as u64).context("SYNs dropped by a full accept queue")?;
    Ok(FullQueue { listener, queued, dropped })
}

/// A listener whose accept queue filled while its SYN+ACKs were on their way.
#[derive(Debug)]
pub struct FilledQueue {
    /// The one that does not accept.
    pub listener: Listener,
    /// Completed, and taken by the server.
    pub taken: Attempts,
    /// Completed by the client's ACKs, of which the server took the first only: to each of the others it sends
    /// its SYN+ACK again after 1 s, 3 s …
    pub contested: Attempts,
}

impl FilledQueue {
    /// Connections whose ACK the server did not take.
    #[must_use]
    pub fn ignored(&self) -> usize {
        self.contested.sockets.len() - 1
    }
}

/// Sets `backlog` connections into a queue of `backlog` + 1, then begins `backlog` + 1 more at once, all of them
/// before the first of their SYN+ACKs has left: these are slowed down to one in 148 ms (IPv6: 188 ms). Takes the slowing down off
/// before it returns. The server must have syncookies off and a device of its own (not `lo`).
///
/// # Errors
/// The kernel did not count `backlog` overflows: an ACK came before the last SYN.
pub fn queue_fills_in_flight(path: &Path<'_>, backlog: u8) -> Result<FilledQueue> {
    const FIRST_RETRANSMISSION: Duration = Duration::from_millis(1000);
    path.server.sysctl("net.ipv4.tcp_syncookies", "0")?;
    let listener = Listener::new(path, 0, backlog.into())?;
    let before = counters::read(path.server)?;
    let slow = Slow::new(path, path.server)?;
    let taken = Attempts::start(path, listener.address(), backlog.into())?;
    taken.wait_established(PATIENCE)?;
    let began = Instant::now();
    let contested = Attempts::start(path, listener.address(), usize::from(backlog) + 1)?;
    contested.wait_established(PATIENCE)?;
    let overflows = || Ok(counters::read(path.server)?.since(&before, "TcpExtListenOverflows"));
    await_count(overflows, backlog.into()).context("ACKs ignored by a full accept queue")?;
    ensure!(began.elapsed() < FIRST_RETRANSMISSION, "SYN+ACKs were repeated before all had left");
    drop(slow);
    Ok(FilledQueue { listener, taken, contested })
}

/// Which segment of a handshake gets lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// The first SYN: the client repeats it.
    Syn,
    /// The first SYN+ACK: both ends repeat theirs.
    SynAck,
}

/// Attempts that were accepted in the end.
#[derive(Debug)]
pub struct Accepted {
    /// Where they went.
    pub listener: Listener,
    /// The initiators.
    pub attempts: Attempts,
    /// The responders, in any order.
    pub servers: Vec<Socket>,
}

impl Accepted {
    /// Waits until both ends are established.
    fn all(listener: Listener, attempts: Attempts) -> Result<Self> {
        attempts.wait_established(PATIENCE)?;
        let servers = attempts.sockets.iter().map(|_| listener.accept()).collect::<Result<Vec<Socket>>>()?;
        Ok(Self { listener, attempts, servers })
    }
}

/// `count` connections of which `lost` does not arrive the first time. They complete a second later, when it is sent
/// again.
///
/// # Errors
/// They do not come about.
pub fn lost_once(path: &Path<'_>, lost: Loss, count: usize) -> Result<Accepted> {
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
                socket.detach_filter().context("take a filter off")?;
            }
        }
    }
    Accepted::all(listener, attempts)
}

/// Waits until a filter has dropped so many segments that came to `socket`.
fn await_dropped(socket: &Socket, count: usize) -> Result<()> {
    let dropped = || Ok(u64::from(segments_dropped(socket).context("ask a socket what it dropped")?));
    await_count(dropped, count as u64).context("segments dropped by a filter")
}

/// Segments that came to `socket` and went no further.
fn segments_dropped(socket: &Socket) -> io::Result<u32> {
    /// `SK_MEMINFO_DROPS` of `linux/sock_diag.h`, the last of its words.
    const DROPS: usize = 8;
    let mut words = [0u32; DROPS + 1];
    let mut length = libc::socklen_t::try_from(size_of_val(&words)).map_err(io::Error::other)?;
    let (fd, into) = (socket.as_raw_fd(), (&raw mut words).cast());
    // SAFETY: the kernel writes at most `length` bytes, the size of `words`; both outlive the call.
    let result = unsafe { libc::getsockopt(fd, libc::SOL_SOCKET, libc::SO_MEMINFO, into, &raw mut length) };
    if result == 0 { Ok(words[DROPS]) } else { Err(io::Error::last_os_error()) }
}

/// The time that each SYN+ACK of [`slow_answers`] but the first holds the device, at least: 54 bytes of headers
/// (IPv6: 74) at 4 kbit/s.
pub const SLOW_ANSWER: Duration = Duration::from_millis(100);

/// `count` connections begun at once over a server's device that lets one SYN+ACK through in some 150 ms (IPv6:
/// 190 ms). As fast as before when it returns. Gives how long the client waited, too: from before the first SYN to after the
/// last SYN+ACK.
///
/// # Errors
/// They do not complete before the first SYN is repeated, after a second; or `path` is `lo`.
pub fn slow_answers(path: &Path<'_>, count: usize) -> Result<(Accepted, Duration)> {
    let before = counters::read(path.client)?;
    let listener = Listener::new(path, 0, 128)?;
    let slow = Slow::new(path, path.server)?;
    let began = Instant::now();
    let attempts = Attempts::start(path, listener.address(), count)?;
    let accepted = Accepted::all(listener, attempts)?;
    let waited = began.elapsed();
    drop(slow);
    let repeated = counters::read(path.client)?.since(&before, "TcpExtTCPSynRetrans");
    ensure!(repeated == 0, "{repeated} SYNs were repeated: the device was too slow");
    Ok((accepted, waited))
}

/// Fast Open (RFC 7413): one connection that asks for a cookie, then `count` whose SYN carries it and `data`.
/// All are accepted.
///
/// # Errors
/// The kernel did not count `count` connections opened fast at both ends.
pub fn fast_open(path: &Path<'_>, count: usize, data: &[u8]) -> Result<Connections> {
    /// Both roles, and every listener without asking for it by a socket option.
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

/// The same two ends `times` times, each connection ended by the client's RST before the next. Gives the
/// client's address.
///
/// # Errors
/// One does not come about.
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

/// Ends a connection by the client's RST, and waits until the server has heard it.
fn reset(client: Socket, server: &Socket) -> Result<()> {
    client.set_linger(Some(Duration::ZERO))?;
    drop(client);
    server.set_read_timeout(Some(PATIENCE))?;
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
    socket.connect_timeout(&address.into(), PATIENCE).with_context(|| format!("connect to {address}"))
}

/// Begins a connection of a socket that does not block.
fn begin(socket: &Socket, address: SocketAddr) -> Result<()> {
    match socket.connect(&address.into()) {
        Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => {
            Err(error).with_context(|| format!("begin a connection to {address}"))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

fn address_of(socket: &Socket) -> Result<SocketAddr> {
    let address = socket.local_addr().context("ask a socket for its address")?;
    address.as_socket().context("a socket without an IP address")
}

fn transfer(from: &Socket, to: &Socket, said: &[u8]) -> Result<()> {
    let sent = from.send(said).context("send")?;
    ensure!(sent == said.len(), "sent {sent} bytes of {}", said.len());
    receive(to, said)
}

fn receive(socket: &Socket, expected: &[u8]) -> Result<()> {
    socket.set_read_timeout(Some(PATIENCE))?;
    let mut heard = vec![0; expected.len()];
    (&*socket).read_exact(&mut heard).context("receive")?;
    ensure!(heard == expected, "received something else than was sent");
    Ok(())
}

fn await_end(socket: &Socket) -> Result<()> {
    socket.set_read_timeout(Some(PATIENCE))?;
    let rest = (&*socket).read(&mut [0; 1]).context("wait for a FIN")?;
    ensure!(rest == 0, "data where a FIN was expected");
    Ok(())
}

/// Waits until `count` is `expected`; more than that is an error, and so is less after ten seconds.
fn await_count(count: impl Fn() -> Result<u64>, expected: u64) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let now = count()?;
        if now == expected {
            return Ok(());
        }
        ensure!(now < expected && Instant::now() < deadline, "{now} instead of {expected}");
        thread::sleep(Duration::from_millis(2));
    }
}

/// The address `number` after `first`; both are in the last byte.
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
