//! UDP by the kernel's own sockets: answered, not answered, and nobody there.

use std::io::{ErrorKind, Read};
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use socket2::{Domain, Protocol, Socket, Type};

use crate::namespace::Namespace;
use crate::socket::deafen;
use crate::topology::Path;

/// "discard": nothing in a namespace of ours is bound to it, and the kernel gives nobody a port so low.
const CLOSED: u16 = 9;

const PATIENCE: Duration = Duration::from_secs(10);

/// A flow: who sent first, and where to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// The initiator.
    pub initiator: SocketAddr,
    /// The responder.
    pub responder: SocketAddr,
}

/// `flows` flows to an echo, on each `rounds` datagrams of `bytes` there and back.
///
/// # Errors
/// An answer does not come.
pub fn echo(path: &Path<'_>, flows: usize, rounds: usize, bytes: usize) -> Result<Vec<Flow>> {
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
        made.push(Flow { initiator, responder });
        // Or the kernel may give the next flow the same port: it would be the same flow.
        kept.push(client);
    }
    Ok(made)
}

/// `flows` flows of `rounds` datagrams to a socket that never answers.
///
/// # Errors
/// A datagram cannot be sent.
pub fn silence(path: &Path<'_>, flows: usize, rounds: usize, bytes: usize) -> Result<Vec<Flow>> {
    let (_server, responder) = bound(path.server, path.server_at(0))?;
    let said = vec![b'u'; bytes];
    let (mut made, mut kept) = (Vec::new(), Vec::new());
    for _ in 0..flows {
        let (client, initiator) = connected(path, responder)?;
        for _ in 0..rounds {
            send(&client, &said)?;
        }
        made.push(Flow { initiator, responder });
        kept.push(client);
    }
    Ok(made)
}

/// `flows` flows of one datagram to a port that nothing is bound to: the server says so by ICMP, each time.
///
/// # Errors
/// The client does not hear of it.
pub fn closed(path: &Path<'_>, flows: usize, bytes: usize) -> Result<Vec<Flow>> {
    closed_at(path, CLOSED, flows, bytes)
}

/// The same to `port`, of which no socket must know.
///
/// # Errors
/// As [`closed`].
pub fn closed_at(path: &Path<'_>, port: u16, flows: usize, bytes: usize) -> Result<Vec<Flow>> {
    let responder = path.server_at(port);
    let said = vec![b'u'; bytes];
    let (mut made, mut kept) = (Vec::new(), Vec::new());
    for _ in 0..flows {
        let (client, initiator) = connected(path, responder)?;
        send(&client, &said)?;
        client.set_read_timeout(Some(PATIENCE))?;
        match (&client).read(&mut [0; 1]) {
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => {}
            other => bail!("a datagram to a closed port ended with {other:?}"),
        }
        made.push(Flow { initiator, responder });
        kept.push(client);
    }
    Ok(made)
}

/// A socket that hears nothing: a filter on it drops every datagram, and no ICMP error goes back. Gives its address too.
///
/// # Errors
/// Of `socket(2)`.
pub fn deaf(path: &Path<'_>) -> Result<(Socket, SocketAddr)> {
    let (socket, address) = bound(path.server, path.server_at(0))?;
    deafen(&socket)?;
    Ok((socket, address))
}

/// One datagram of 30 bytes each way, between sockets that both sent first.
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

/// Sends what comes in back to where it came from.
fn answer(server: &Socket, bytes: usize) -> Result<()> {
    server.set_read_timeout(Some(PATIENCE))?;
    let mut heard = Vec::<u8>::with_capacity(bytes + 1);
    let (length, from) = server.recv_from(heard.spare_capacity_mut()).context("receive a datagram")?;
    ensure!(length == bytes, "received {length} bytes of {bytes}");
    server.send_to(&vec![b'u'; length], &from).context("answer a datagram")?;
    Ok(())
}

fn receive(client: &Socket, bytes: usize) -> Result<()> {
    client.set_read_timeout(Some(PATIENCE))?;
    let length = (&*client).read(&mut vec![0; bytes + 1]).context("receive an answer")?;
    ensure!(length == bytes, "received {length} bytes of {bytes}");
    Ok(())
}
