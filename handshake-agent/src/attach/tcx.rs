//! TCX: the program in the chain by a BPF link.
//!
//! Whether the chain has changed is asked without a privilege, by linking the program again with the revision
//! that the chain had: `EEXIST` says that it is unchanged, `ESTALE` that it is not. Only then the chain is
//! read, which takes CAP_NET_ADMIN. Where that is not permitted, agents tell each other: each claims the
//! revision to which it took the chain. A change that is neither such a claim nor the end of one is another
//! program's, and may have put it before ours.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::bpf::{ProgramName, interface_of, link_tcx, program, query_tcx};
use super::claim::{self, is_of_an_agent, is_of_an_agents_link};
use super::interface::InterfaceInfo;
use super::watch::{BETWEEN_MOVES, Guard, unanswered};
use crate::hook::{Direction, HookState};
use crate::netlink::{Netlink, Refusal};

/// Revisions that are tried where the chain cannot be read.
const REVISIONS: u64 = 256;

/// What may be before our program where the chain was changed and cannot be read.
const UNREADABLE: &str = "a change of the chain that takes CAP_NET_ADMIN to read";

/// How long a link stays beside other agents' at least: they look at the chain every second, and know a claim
/// that they have seen.
const SEEN_AFTER: Duration = Duration::from_millis(1500);

/// Keeps our program in a TCX chain until it is dropped.
#[derive(Debug)]
pub(super) struct TcxGuard {
    program: Arc<OwnedFd>,
    id: u32,
    index: u32,
    direction: Direction,
    /// Says that the link was made by an agent. It ends before the link: a change without it is then
    /// explained, however long it takes.
    claim: Option<UnixDatagram>,
    link: Option<OwnedFd>,
    linked: Instant,
    /// The revisions at which the other agents of this chain made their links.
    agents: BTreeSet<u64>,
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
        program: Arc<OwnedFd>,
        id: u32,
        index: u32,
        direction: Direction,
    ) -> Result<Self, Refusal> {
        let mut guard = Self {
            program,
            id,
            index,
            direction,
            claim: None,
            link: None,
            linked: Instant::now(),
            agents: BTreeSet::new(),
            revision: 0,
            state: HookState::Gone,
            moved: None,
        };
        guard.link()?;
        Ok(guard)
    }

    /// Puts the program at the head of the chain. What it makes of the chain is claimed before: another agent
    /// may look at any moment.
    fn link(&mut self) -> Result<(), Refusal> {
        let known = query_tcx(self.index, self.direction).map_or(self.revision, |chain| chain.revision);
        self.linked = Instant::now();
        for before in revisions_from(known) {
            let claim = claim::revision(self.index, self.direction, before.saturating_add(1)).ok();
            match self.probe(before) {
                Ok(link) => {
                    (self.link, self.claim) = (Some(link), claim);
                    self.revision = before.saturating_add(1);
                    self.know_chain(self.revision);
                    return Ok(());
                }
                Err(error) if error.raw_os_error() == Some(libc::ESTALE) => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.link = Some(link_tcx(&self.program, self.index, self.direction, 0)?);
        self.revision = self.find_revision(0).unwrap_or(0);
        self.know_chain(self.revision);
        Ok(())
    }

    /// Learns what else is in the chain whose head the program has become with this revision.
    fn know_chain(&mut self, own: u64) {
        /// A link needs some 15 ms to end (`detach`).
        const LOOKS: u32 = 50;
        const BETWEEN: Duration = Duration::from_millis(10);
        self.state = HookState::Ours;
        for _ in 0..LOOKS {
            // Without the permission nothing more is known than that it is the head.
            let programs = self.read_chain().unwrap_or(0);
            // Another agent may have come since.
            self.agents = self.claimed(self.revision.saturating_sub(REVISIONS), self.revision);
            self.agents.remove(&own);
            if programs <= self.agents.len() {
                break;
            }
            // An agent is about to go, and has dropped its claim.
            sleep(BETWEEN);
        }
    }

    /// The revisions between these, both included, that agents have claimed.
    fn claimed(&self, first: u64, last: u64) -> BTreeSet<u64> {
        (first..=last).filter(|number| is_of_an_agents_link(self.index, self.direction, *number)).collect()
    }

    /// Asks whether the chain has this revision, with our program in it. A program that is not in a chain of
    /// this revision is in it afterwards.
    fn probe(&self, revision: u64) -> io::Result<OwnedFd> {
        link_tcx(&self.program, self.index, self.direction, revision)
    }

    /// The revision of a chain that cannot be read and has our program in it.
    fn find_revision(&self, before: u64) -> Option<u64> {
        let is = |revision: &u64| {
            self.probe(*revision).is_err_and(|error| error.raw_os_error() == Some(libc::EEXIST))
        };
        revisions_from(before).find(is)
    }

    /// Whether agents alone have changed the chain since it was last known: they pass every packet on.
    fn is_by_agents(&mut self, now: u64) -> bool {
        let came = self.claimed(self.revision.saturating_add(1), now);
        let is_there = |number: &u64| is_of_an_agents_link(self.index, self.direction, *number);
        let (stayed, went): (BTreeSet<u64>, BTreeSet<u64>) = self.agents.iter().copied().partition(is_there);
        let changes = (came.len() + went.len()) as u64;
        let is_all = now.checked_sub(self.revision) == Some(changes);
        self.agents = stayed.into_iter().chain(came).collect();
        is_all
    }

    /// Reads the chain: what is before our program, and the revision. Returns how many programs of other agents
    /// are in it.
    fn read_chain(&mut self) -> io::Result<usize> {
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
        let others = chain.ids.iter().filter(|id| **id != self.id);
        Ok(others.filter(|id| is_of_an_agent(&program(**id))).count())
    }

    fn changed(&mut self) -> HookState {
        if self.read_chain().is_ok() {
            return self.state.clone();
        }
        match self.find_revision(self.revision) {
            Some(now) if self.is_by_agents(now) => {
                self.revision = now;
                self.state.clone()
            }
            Some(_) | None => HookState::Behind(vec![UNREADABLE.to_owned()]),
        }
    }
}

/// The revisions to try, the likeliest first. A chain that was empty begins anew.
fn revisions_from(known: u64) -> impl Iterator<Item = u64> {
    (known..known.saturating_add(REVISIONS)).chain(1..REVISIONS).filter(|revision| *revision != 0)
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

    /// An agent that ends sooner than the others look would have changed the chain twice without a claim.
    fn take_link(&mut self) -> Option<OwnedFd> {
        if !self.agents.is_empty() {
            sleep(SEEN_AFTER.saturating_sub(self.linked.elapsed()));
        }
        self.link.take()
    }

    fn is_detached(&self) -> bool {
        self.link.as_ref().is_none_or(|link| matches!(interface_of(link), Ok(0)))
    }

    fn may_move(&self) -> bool {
        self.moved.is_none_or(|moved| moved.elapsed() >= BETWEEN_MOVES)
    }

    fn attach_again(&mut self, _: &mut Netlink) -> Result<(), Refusal> {
        if self.state != HookState::Gone {
            self.moved = Some(Instant::now());
        }
        self.claim = None;
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
