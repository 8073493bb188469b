//! UDP by kernel sockets: answered, also from elsewhere, unanswered, and to closed ports.

use std::io::{self, ErrorKind, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::fd::AsRawFd;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use socket2::{Domain, Protocol, Socket, Type};

use crate::frame::interface_index;
use crate::namespace::Namespace;
use crate::socket::deafen;
use crate::topology::Path;

/// The port "discard": nothing in the lab's namespaces is bound to it, and the kernel assigns no ephemeral
/// port this low.
const CLOSED: u16 = 9;

/// `UDP_SEGMENT` of `linux/udp.h`.
const UDP_SEGMENT: libc::c_int = 103;

const TIMEOUT: Duration = Duration::from_secs(10);

/// A UDP flow that was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UdpExchange {
    /// The end that sends first.
    pub initiator: SocketAddr,
    /// The other end.
    pub responder: SocketAddr,
}

/// Makes `flows` flows to an echo server, each of `rounds` datagrams of `bytes` bytes in each direction.
///
/// # Errors
/// An answer does not arrive.
pub fn echo(path: &Path<'_>, flows: usize, rounds: usize, bytes: usize) -> Result<Vec<UdpExchange>> {
    let (server, responder) = bound(path.server, path.server_at(0))?;
    let said = vec![b'u'; bytes];
    let (mut made, mut kept) = (Vec::new(), Vec::new());
    for _ in 0..flows {
        let (client, initiator) = connected(path, responder)?;
        for _ in 0..rounds {
            send(&client, &said)?;
            answer(&server, bytes)?;
            receive(&client, bytes)?;
        }
        made.push(UdpExchange { initiator, responder });
        // Otherwise the kernel may assign the same port again, and the next flow would be the same flow.
        kept.push(client);
    }
    Ok(made)
}

/// Makes `requests` requests of one datagram, each of which is answered from another port of the server. Each
/// client sends a third datagram there, as TFTP acknowledges (RFC 1350 §4). Datagrams are of `bytes` bytes.
/// Returns the request, and the flow that its answer begins, for each.
///
/// # Errors
/// A datagram does not arrive.
pub fn other_port(path: &Path<'_>, requests: usize, bytes: usize) -> Result<Vec<[UdpExchange; 2]>> {
    const TFTP: u16 = 69;
    let (server, asked) = bound(path.server, path.server_at(TFTP))?;
    let said = vec![b'u'; bytes];
    let (mut made, mut kept) = (Vec::new(), Vec::new());
    for _ in 0..requests {
        let (client, initiator) = bound(path.client, SocketAddr::new(path.source, 0))?;
        client.send_to(&said, &asked.into()).context("send a request")?;
        ensure!(receive_from(&server, bytes)? == initiator, "another client");
        let (other, responder) = bound(path.server, path.server_at(0))?;
        other.send_to(&said, &initiator.into()).context("answer")?;
        ensure!(receive_from(&client, bytes)? == responder, "another server");
        client.send_to(&said, &responder.into()).context("acknowledge")?;
        ensure!(receive_from(&other, bytes)? == initiator, "another client");
        made.push([UdpExchange { initiator, responder: asked }, UdpExchange { initiator, responder }]);
        kept.extend([client, other]);
    }
    Ok(made)
}

/// A query of one datagram to a group, or to the segment's broadcast address, and its answers.
#[derive(Debug)]
pub struct GroupQuery {
    /// The query: its responder is the group.
    pub query: UdpExchange,
    /// The flows that the answers begin.
    pub answers: Vec<UdpExchange>,
    /// While they are open, no other flow has their ports.
    _sockets: Vec<Socket>,
}

/// Sends a query to `group`, which the server hears and answers by unicast: once from the port of the query,
/// then from other ports, `answers` times in all (SSDP answers so; a multicast DNS responder does to a
/// one-shot query, RFC 6762 §6.7). Datagrams are of `bytes` bytes.
///
/// # Errors
/// A datagram does not arrive.
pub fn ask_group(path: &Path<'_>, group: SocketAddr, answers: usize, bytes: usize) -> Result<GroupQuery> {
    let said = vec![b'u'; bytes];
    let any = match group.ip() {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    let (server, _) = bound(path.server, SocketAddr::new(any, group.port()))?;
    let (client, initiator) = bound(path.client, SocketAddr::new(path.source, 0))?;
    let to = join(path, &server, &client, group)?;
    client.send_to(&said, &to.into()).context("send a query")?;
    ensure!(receive_from(&server, bytes)? == initiator, "another client");
    let (mut made, mut sockets) = (Vec::new(), vec![server, client]);
    for number in 0..answers {
        let responder = if number == 0 {
            sockets[0].send_to(&said, &initiator.into()).context("answer")?;
            path.server_at(group.port())
        } else {
            let (other, responder) = bound(path.server, path.server_at(0))?;
            other.send_to(&said, &initiator.into()).context("answer")?;
            sockets.push(other);
            responder
        };
        ensure!(receive_from(&sockets[1], bytes)? == responder, "another server");
        made.push(UdpExchange { initiator, responder });
    }
    Ok(GroupQuery { query: UdpExchange { initiator, responder: group }, answers: made, _sockets: sockets })
}

/// Makes the server a member of `group`, and lets the client send to it, by their devices. Returns where to
/// send.
fn join(path: &Path<'_>, server: &Socket, client: &Socket, group: SocketAddr) -> Result<SocketAddr> {
    match (group.ip(), path.source, path.destination) {
        (IpAddr::V4(address), IpAddr::V4(near), IpAddr::V4(far)) if address.is_multicast() => {
            server.join_multicast_v4(&address, &far).context("join the group")?;
            client.set_multicast_if_v4(&near).context("choose the device")?;
            Ok(group)
        }
        (IpAddr::V6(address), _, _) => {
            let index = |namespace: &Namespace| namespace.enter(|| interface_index(path.device));
            server.join_multicast_v6(&address, index(path.server)?).context("join the group")?;
            Ok(SocketAddrV6::new(address, group.port(), 0, index(path.client)?).into())
        }
        _ => {
            client.set_broadcast(true).context("allow broadcasts")?;
            Ok(group)
        }
    }
}

/// Makes `flows` flows of `rounds` datagrams of `bytes` bytes to a socket that never answers.
///
/// # Errors
/// A datagram does not arrive.
pub fn silence(path: &Path<'_>, flows: usize, rounds: usize, bytes: usize) -> Result<Vec<UdpExchange>> {
    let (server, responder) = bound(path.server, path.server_at(0))?;
    // A datagram that arrived after the socket was closed would be answered by an ICMP error.
    send_all(path, responder, [flows, rounds], bytes, || receive(&server, bytes))
}

/// Makes `flows` flows of `rounds` datagrams of `bytes` bytes to `responder`, and waits for no answer.
///
/// # Errors
/// A datagram cannot be sent.
pub fn dispatch(
    path: &Path<'_>,
    responder: SocketAddr,
    flows: usize,
    rounds: usize,
    bytes: usize,
) -> Result<Vec<UdpExchange>> {
    send_all(path, responder, [flows, rounds], bytes, || Ok(()))
}

/// Makes flows of so many datagrams each, and calls `sent` after each datagram.
fn send_all(
    path: &Path<'_>,
    responder: SocketAddr,
    [flows, rounds]: [usize; 2],
    bytes: usize,
    sent: impl Fn() -> Result<()>,
) -> Result<Vec<UdpExchange>> {
    let said = vec![b'u'; bytes];
    let (mut made, mut kept) = (Vec::new(), Vec::new());
    for _ in 0..flows {
        let (client, initiator) = connected(path, responder)?;
        for _ in 0..rounds {
            send(&client, &said)?;
            sent()?;
        }
        made.push(UdpExchange { initiator, responder });
        kept.push(client);
    }
    Ok(made)
}

/// Makes `flows` flows of one datagram to an unbound port; the server answers each by an ICMP error.
///
/// # Errors
/// The client does not receive the ICMP error.
pub fn closed(path: &Path<'_>, flows: usize, bytes: usize) -> Result<Vec<UdpExchange>> {
    closed_at(path, CLOSED, flows, bytes)
}

/// Like [`closed`], to `port`, which must be unbound.
///
/// # Errors
/// As [`closed`].
pub fn closed_at(path: &Path<'_>, port: u16, flows: usize, bytes: usize) -> Result<Vec<UdpExchange>> {
    let responder = path.server_at(port);
    let said = vec![b'u'; bytes];
    let (mut made, mut kept) = (Vec::new(), Vec::new());
    for _ in 0..flows {
        let (client, initiator) = connected(path, responder)?;
        send(&client, &said)?;
        client.set_read_timeout(Some(TIMEOUT))?;
        match (&client).read(&mut [0; 1]) {
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => {}
            other => bail!("a datagram to a closed port ended with {other:?}"),
        }
        made.push(UdpExchange { initiator, responder });
        kept.push(client);
    }
    Ok(made)
}

/// The ports of deaf sockets: of a service, below those that Linux gives to clients
/// (net.ipv4.ip_local_port_range).
const DEAF: std::ops::Range<u16> = 20_000..20_100;

/// Opens a socket whose filter drops every datagram, so that neither an answer nor an ICMP error is sent.
/// Also returns its address.
///
/// # Errors
/// `socket(2)` fails, or no port is free.
pub fn deaf(path: &Path<'_>) -> Result<(Socket, SocketAddr)> {
    let mut tried = DEAF.map(|port| bound(path.server, path.server_at(port)));
    let (socket, address) = tried.find(Result::is_ok).context("no port for a deaf socket is free")??;
    deafen(&socket)?;
    Ok((socket, address))
}

/// Sends one datagram of 30 bytes in each direction, neither in answer to the other.
pub(crate) fn cross(path: &Path<'_>) -> Result<()> {
    let (client, near) = bound(path.client, SocketAddr::new(path.source, 0))?;
    let (server, far) = bound(path.server, path.server_at(0))?;
    for (socket, to) in [(&client, far), (&server, near)] {
        socket.connect(&to.into())?;
        send(socket, &[b'u'; 30])?;
    }
    Ok(())
}

/// Sends `times` super-packets of `segments` datagrams to a socket that does not answer as long as it is
/// held: each datagram of `size` bytes, the last of each super-packet of `last` bytes.
///
/// # Errors
/// The kernel refuses to segment (before Linux 4.18), or a super-packet is not sent whole.
pub fn segmented(path: &Path<'_>, times: usize, segments: usize, size: u16, last: usize) -> Result<Socket> {
    let (server, responder) = bound(path.server, path.server_at(0))?;
    deafen(&server)?;
    let (client, _) = connected(path, responder)?;
    let option = libc::c_int::from(size);
    let length = libc::socklen_t::try_from(size_of_val(&option))?;
    // SAFETY: the kernel reads `length` bytes of `option`, which outlives the call.
    let result = unsafe {
        let from = (&raw const option).cast();
        libc::setsockopt(client.as_raw_fd(), libc::SOL_UDP, UDP_SEGMENT, from, length)
    };
    ensure!(result == 0, "let the kernel segment: {}", io::Error::last_os_error());
    let said = vec![b's'; usize::from(size) * (segments - 1) + last];
    for _ in 0..times {
        send(&client, &said)?;
    }
    Ok(server)
}

fn bound(namespace: &Namespace, address: SocketAddr) -> Result<(Socket, SocketAddr)> {
    let socket = namespace.socket(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    socket.bind(&address.into()).with_context(|| format!("bind to {address}"))?;
    let address = socket.local_addr()?.as_socket().context("a socket without an IP address")?;
    Ok((socket, address))
}

fn connected(path: &Path<'_>, to: SocketAddr) -> Result<(Socket, SocketAddr)> {
    let (socket, initiator) = bound(path.client, SocketAddr::new(path.source, 0))?;
    socket.connect(&to.into()).with_context(|| format!("connect to {to}"))?;
    Ok((socket, initiator))
}

fn send(socket: &Socket, said: &[u8]) -> Result<()> {
    let sent = socket.send(said).context("send a datagram")?;
    ensure!(sent == said.len(), "sent {sent} bytes of {}", said.len());
    Ok(())
}

/// Returns a datagram to its sender.
fn answer(server: &Socket, bytes: usize) -> Result<()> {
    let from = receive_from(server, bytes)?;
    server.send_to(&vec![b'u'; bytes], &from.into()).context("answer a datagram")?;
    Ok(())
}

/// Receives a datagram of `bytes` bytes. Returns its sender.
fn receive_from(socket: &Socket, bytes: usize) -> Result<SocketAddr> {
    socket.set_read_timeout(Some(TIMEOUT))?;
    let mut heard = Vec::<u8>::with_capacity(bytes + 1);
    let (length, from) = socket.recv_from(heard.spare_capacity_mut()).context("receive a datagram")?;
    ensure!(length == bytes, "received {length} bytes of {bytes}");
    from.as_socket().context("a sender without an IP address")
}

fn receive(socket: &Socket, bytes: usize) -> Result<()> {
    socket.set_read_timeout(Some(TIMEOUT))?;
    let length = (&*socket).read(&mut vec![0; bytes + 1]).context("receive a datagram")?;
    ensure!(length == bytes, "received {length} bytes of {bytes}");
    Ok(())
}
