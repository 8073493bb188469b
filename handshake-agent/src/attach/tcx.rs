//! TCX: the program in the chain by a BPF link.
//!
//! Whether the chain has changed is asked without a privilege, by linking the program again with the revision
//! that the chain had: `EEXIST` says that it is unchanged, `ESTALE` that it is not. Only then the chain is
//! read, which takes CAP_NET_ADMIN.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Instant;

use super::bpf::{ProgramName, interface_of, link_tcx, program, query_tcx};
use super::claim::is_of_an_agent;
use super::interface::InterfaceInfo;
use super::netlink::{Netlink, Refusal};
use super::watch::{BETWEEN_MOVES, Guard, unanswered};
use crate::hook::{Direction, HookState};

/// Revisions that are tried where the chain cannot be read.
const REVISIONS: u64 = 256;

/// Keeps our program in a TCX chain until it is dropped.
#[derive(Debug)]
pub(super) struct TcxGuard {
    program: OwnedFd,
    id: u32,
    index: u32,
    direction: Direction,
    link: Option<OwnedFd>,
    /// The chain's revision when it was last known; 0 if it never was.
    revision: u64,
    /// The state of the chain at that revision.
    state: HookState,
    moved: Option<Instant>,
}

impl TcxGuard {
    /// Attaches the program with this id first in the chain: after a program that ends the chain, ours would
    /// see nothing.
    pub(super) fn attach(
        program: OwnedFd,
        id: u32,
        index: u32,
        direction: Direction,
    ) -> Result<Self, Refusal> {
        let (link, state, moved) = (None, HookState::Gone, None);
        let mut guard = Self { program, id, index, direction, link, revision: 0, state, moved };
        guard.link()?;
        Ok(guard)
    }

    fn link(&mut self) -> Result<(), Refusal> {
        let before = self.revision;
        self.link = Some(link_tcx(&self.program, self.index, self.direction, 0)?);
        self.state = HookState::Ours;
        if self.read_chain().is_err() {
            self.revision = self.find_revision(before).unwrap_or(0);
        }
        Ok(())
    }

    /// Asks whether the chain has this revision, with our program in it. A program that is not in a chain of
    /// this revision is in it afterwards.
    fn probe(&self, revision: u64) -> io::Result<OwnedFd> {
        link_tcx(&self.program, self.index, self.direction, revision)
    }

    /// The revision of a chain that cannot be read and has our program in it.
    fn find_revision(&self, before: u64) -> Option<u64> {
        let near = (before..before.saturating_add(REVISIONS)).chain(1..REVISIONS);
        let is = |revision: &u64| {
            self.probe(*revision).is_err_and(|error| error.raw_os_error() == Some(libc::EEXIST))
        };
        near.filter(|revision| *revision != 0).find(is)
    }

    /// Reads the chain: what is before our program, and the revision.
    fn read_chain(&mut self) -> io::Result<()> {
        let chain = query_tcx(self.index, self.direction)?;
        self.revision = chain.revision;
        let ahead = chain.ids.iter().take_while(|id| **id != self.id);
        let others: Vec<ProgramName> =
            ahead.map(|id| program(*id)).filter(|program| !is_of_an_agent(program)).collect();
        self.state = if !chain.ids.contains(&self.id) {
            HookState::Gone
        } else if others.is_empty() {
            HookState::Ours
        } else {
            HookState::Behind(others.iter().map(ToString::to_string).collect())
        };
        Ok(())
    }

    fn changed(&mut self) -> HookState {
        match self.read_chain() {
            Ok(()) => self.state.clone(),
            Err(_) => HookState::Behind(vec!["what the chain has now may be".to_owned()]),
        }
    }
}

impl Guard for TcxGuard {
    fn look(&mut self, _: &InterfaceInfo, _: &mut Netlink) -> HookState {
        match self.link.as_ref().map_or(Ok(0), interface_of) {
            Ok(0) => {
                self.state = HookState::Gone;
                return HookState::Gone;
            }
            Ok(_) => {}
            Err(error) => return unanswered(&error),
        }
        if self.revision == 0 {
            return self.changed();
        }
        match self.probe(self.revision) {
            // Another chain that happens to have this revision. Ours is in it from now on.
            Ok(link) => {
                (self.link, self.revision, self.state) = (Some(link), 0, HookState::Gone);
                HookState::Gone
            }
            Err(error) => match error.raw_os_error() {
                Some(libc::EEXIST) => self.state.clone(),
                Some(libc::ESTALE) => self.changed(),
                _ => unanswered(&error),
            },
        }
    }

    fn may_move(&self) -> bool {
        self.moved.is_none_or(|moved| moved.elapsed() >= BETWEEN_MOVES)
    }

    fn attach_again(&mut self, _: &mut Netlink) -> Result<(), Refusal> {
        if self.state != HookState::Gone {
            self.moved = Some(Instant::now());
        }
        self.link = None;
        self.link()?;
        match &self.state {
            HookState::Behind(names) => {
                let words = format!("{} came before it again", names.join(", "));
                Err(Refusal { errno: libc::EBUSY, words: Some(words) })
            }
            HookState::Gone => Err(Refusal { errno: libc::ENOENT, words: None }),
            HookState::Ours | HookState::Unknown(_) | HookState::Passing(_) => Ok(()),
        }
    }
}
