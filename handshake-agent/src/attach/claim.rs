//! Claims, by which agents in one network namespace know each other: abstract sockets, which belong to the
//! namespace as the interfaces do, and close when their process ends.
//!
//! Programs of handshake pass every packet on, so one that is before ours keeps nothing from it.

use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use super::bpf::ProgramName;
use crate::hook::Direction;

/// The sockets that may have one claim at once: of agents that try for one revision, or ask whether it is
/// claimed.
const RIVALS: u32 = 8;

/// Claims a handle of a clsact filter until the socket closes. Fails while a running agent has it.
pub(super) fn handle(index: u32, direction: Direction, handle: u32) -> io::Result<UnixDatagram> {
    claim(&format!("clsact/{index}/{direction}/{handle:x}"))
}

/// Says that the program with this id is handshake's, until the socket closes.
pub(super) fn program(id: u32) -> io::Result<UnixDatagram> {
    claim_beside_rivals(&of_program(id))
}

/// Says that handshake takes a TCX chain to this revision, until the socket closes.
pub(super) fn revision(index: u32, direction: Direction, revision: u64) -> io::Result<UnixDatagram> {
    claim_beside_rivals(&of_revision(index, direction, revision))
}

/// Whether an agent that runs has taken a TCX chain to this revision.
pub(super) fn is_of_an_agents_link(index: u32, direction: Direction, revision: u64) -> bool {
    is_claimed(&of_revision(index, direction, revision))
}

/// Whether a program is handshake's. Where names may not be read a claim decides, which any process of the
/// namespace can make.
pub(super) fn is_of_an_agent(theirs: &ProgramName) -> bool {
    match &theirs.name {
        Some(name) => name.starts_with("handshake_"),
        None => is_claimed(&of_program(theirs.id)),
    }
}

fn of_program(id: u32) -> String {
    format!("program/{id}")
}

fn of_revision(index: u32, direction: Direction, revision: u64) -> String {
    format!("tcx/{index}/{direction}/{revision}")
}

/// Claims the last place that is free: [`is_claimed`] comes from the first, and takes one at a time, so it
/// meets this but once.
fn claim_beside_rivals(what: &str) -> io::Result<UnixDatagram> {
    let mut places = (0..RIVALS).rev().map(|rival| claim(&format!("{what}/{rival}")));
    places.find(|claim| !is_taken(claim)).unwrap_or_else(|| Err(io::ErrorKind::AddrInUse.into()))
}

/// Whether a running process has one of the places. An agent may not connect to another's socket
/// (`confine`), so each place is taken for a moment; a claim that comes then takes the next one.
fn is_claimed(what: &str) -> bool {
    (0..RIVALS).any(|rival| is_taken(&claim(&format!("{what}/{rival}"))))
}

fn is_taken(claim: &io::Result<UnixDatagram>) -> bool {
    claim.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::AddrInUse)
}

fn claim(what: &str) -> io::Result<UnixDatagram> {
    UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(format!("handshake/{what}"))?)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

    use super::*;
    use crate::attach::testing::in_namespace;

    /// Of two agents that try for one revision, the one that gives up leaves the claim of the other.
    #[test]
    fn a_revision_is_claimed_until_its_last_rival_gives_up() {
        in_namespace(|| {
            let claim = || revision(1, Direction::Ingress, 7).expect("there is room");
            let is_claimed = || is_of_an_agents_link(1, Direction::Ingress, 7);
            assert!(!is_claimed());
            let (first, second) = (claim(), claim());
            assert!(is_claimed());
            drop(first);
            assert!(is_claimed(), "the second stands");
            drop(second);
            assert!(!is_claimed());
        });
    }

    /// Other agents ask at any moment.
    #[test]
    fn asking_for_a_claim_never_keeps_it_from_its_owner() {
        in_namespace(|| {
            let is_over = AtomicBool::new(false);
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    while !is_over.load(Relaxed) {
                        is_claimed(&of_program(1));
                    }
                });
                let refused = (0..10_000).find_map(|_| program(1).err());
                is_over.store(true, Relaxed);
                assert!(refused.is_none(), "{refused:?}");
            });
        });
    }
}
