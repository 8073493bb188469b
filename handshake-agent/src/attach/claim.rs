//! Claims, by which agents in one network namespace know each other: abstract sockets, which belong to the
//! namespace as the interfaces do, and close when their process ends.
//!
//! Programs of handshake pass every packet on, so one that is before ours keeps nothing from it.

use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use super::bpf::ProgramName;
use crate::hook::Direction;

/// Claims a handle of a clsact filter until the socket closes. Fails while a running agent has it.
pub(super) fn handle(index: u32, direction: Direction, handle: u32) -> io::Result<UnixDatagram> {
    claim(&format!("clsact/{index}/{direction}/{handle:x}"))
}

/// Says that the program with this id is handshake's, until the socket closes.
pub(super) fn program(id: u32) -> io::Result<UnixDatagram> {
    claim(&format!("program/{id}"))
}

/// Says that handshake takes a TCX chain to this revision, until the socket closes.
pub(super) fn revision(index: u32, direction: Direction, revision: u64) -> io::Result<UnixDatagram> {
    claim(&format!("tcx/{index}/{direction}/{revision}"))
}

/// Whether an agent that runs has taken a TCX chain to this revision.
pub(super) fn is_of_an_agents_link(index: u32, direction: Direction, number: u64) -> bool {
    is_taken(revision(index, direction, number))
}

/// Whether a program is handshake's. Where names may not be read a claim decides, which any process of the
/// namespace can make.
pub(super) fn is_of_an_agent(theirs: &ProgramName) -> bool {
    match &theirs.name {
        Some(name) => name.starts_with("handshake_"),
        None => is_taken(program(theirs.id)),
    }
}

fn is_taken(claim: io::Result<UnixDatagram>) -> bool {
    claim.is_err_and(|error| error.kind() == io::ErrorKind::AddrInUse)
}

fn claim(what: &str) -> io::Result<UnixDatagram> {
    UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(format!("handshake/{what}"))?)
}
