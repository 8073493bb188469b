//! UDP by kernel sockets: answered, unanswered, and to closed ports.

use std::io::{ErrorKind, Read};
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use socket2::{Domain, Protocol, Socket, Type};

use crate::namespace::Namespace;
use crate::socket::deafen;
use crate::topology::Path;

/// The port "discard": nothing in the lab's namespaces is bound to it, and the kernel assigns no ephemeral
/// port this low.
const CLOSED: u16 = 9;

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

/// Makes `flows` flows of `rounds` datagrams of `bytes` bytes to a socket that never answers.
///
/// # Errors
/// A datagram cannot be sent.
pub fn silence(path: &Path<'_>, flows: usize, rounds: usize, bytes: usize) -> Result<Vec<UdpExchange>> {
    let (_server, responder) = bound(path.server, path.server_at(0))?;
    let said = vec![b'u'; bytes];
    let (mut made, mut kept) = (Vec::new(), Vec::new());
    for _ in 0..flows {
        let (client, initiator) = connected(path, responder)?;
        for _ in 0..rounds {
            send(&client, &said)?;
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

/// Opens a socket whose filter drops every datagram, so that neither an answer nor an ICMP error is sent.
/// Also returns its address.
///
/// # Errors
/// `socket(2)` or `bind(2)` fails.
pub fn deaf(path: &Path<'_>) -> Result<(Socket, SocketAddr)> {
    let (socket, address) = bound(path.server, path.server_at(0))?;
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
    server.set_read_timeout(Some(TIMEOUT))?;
    let mut heard = Vec::<u8>::with_capacity(bytes + 1);
    let (length, from) = server.recv_from(heard.spare_capacity_mut()).context("receive a datagram")?;
    ensure!(length == bytes, "received {length} bytes of {bytes}");
    server.send_to(&vec![b'u'; length], &from).context("answer a datagram")?;
    Ok(())
}

fn receive(client: &Socket, bytes: usize) -> Result<()> {
    client.set_read_timeout(Some(TIMEOUT))?;
    let length = (&*client).read(&mut vec![0; bytes + 1]).context("receive an answer")?;
    ensure!(length == bytes, "received {length} bytes of {bytes}");
    Ok(())
}
