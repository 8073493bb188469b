//! Looks at the hooks after attaching: whether each program is still on its hook and comes first, and whether
//! the interface is up and the one that was attached to. A program that is not is attached again.
//!
//! A look is one request for the interface, and for each hook what its [`Guard`] asks: two system calls for
//! TCX, one for XDP, three for clsact. Only an answer that something changed costs more.

use std::fmt;
use std::io;
use std::time::Duration;

use super::Attached;
use super::bpf::program;
use super::claim::is_of_an_agent;
use super::interface::{self, InterfaceInfo, XdpProgram};
use super::netlink::{Netlink, ROUTE, Refusal};
use crate::error::passes;
use crate::hook::{Direction, Hook, HookLook, HookState, InterfaceLook, LinkState};
use crate::source::live::Hooks;

/// The least time between two moves to the first place of a hook. Two programs that both want to be first
/// would take turns without end.
pub(super) const BETWEEN_MOVES: Duration = Duration::from_secs(60);

/// Keeps one program on one hook; dropping it detaches the program.
pub(super) trait Guard: fmt::Debug + Send + Sync {
    /// Looks whether the program is on its hook, and what came before it since it was attached. `now` is the
    /// interface at this moment.
    fn look(&mut self, now: &InterfaceInfo, netlink: &mut Netlink) -> HookState;

    /// Attaches the program again, before all others.
    ///
    /// # Errors
    ///
    /// The kernel's refusal; something stays before the program.
    fn attach_again(&mut self, netlink: &mut Netlink) -> Result<(), Refusal>;

    /// Whether the program may leave its place for the first one now.
    fn may_move(&self) -> bool {
        false
    }
}

/// The state of a hook where the kernel answers with an error.
pub(super) fn unanswered(error: &io::Error) -> HookState {
    match error.raw_os_error() {
        Some(errno) if passes(error) => HookState::Passing(errno),
        _ => HookState::Unknown(error.to_string()),
    }
}

/// An interface with our programs on its hooks.
#[derive(Debug)]
pub(super) struct WatchedHooks {
    index: u32,
    name: String,
    hooks: Vec<GuardedHook>,
    /// The program on the XDP hook at the last look.
    xdp: Option<XdpProgram>,
    /// Whether it came then, and is what TC's ingress hook is behind.
    is_behind_xdp: bool,
}

/// A hook with our program on it.
#[derive(Debug)]
pub(super) struct GuardedHook {
    pub(super) direction: Direction,
    pub(super) hook: Hook,
    pub(super) guard: Box<dyn Guard>,
}

impl WatchedHooks {
    /// The hooks of an interface, after all are taken.
    pub(super) fn new(info: &InterfaceInfo, hooks: Vec<GuardedHook>) -> Self {
        let xdp = interface::by_index(info.index).ok().and_then(|now| now.xdp);
        Self { index: info.index, name: info.name.clone(), hooks, xdp, is_behind_xdp: false }
    }

    fn look(&mut self, netlink: &mut Netlink) -> InterfaceLook {
        let now = match interface::read_link(netlink, self.index) {
            Ok(now) => now,
            Err(refusal) if refusal.errno == libc::ENODEV => return self.gone(),
            Err(refusal) => {
                let why = refusal.to_string();
                return self.all(LinkState::Unknown(why), &unanswered(&refusal.into()));
            }
        };
        let mut hooks: Vec<HookLook> = Vec::new();
        for each in &mut self.hooks {
            let state = each.guard.look(&now, netlink);
            hooks.push(HookLook { direction: each.direction, hook: each.hook, state, again: None });
        }
        let has_none = hooks.iter().all(|look| look.state == HookState::Gone);
        // A renamed interface keeps its hooks. Another one may have got the index.
        if now.name != self.name && has_none {
            return self.gone();
        }
        self.name.clone_from(&now.name);
        self.note_xdp(&now, &mut hooks);
        InterfaceLook { name: now.name.clone(), state: state_of(&now), hooks }
    }

    fn gone(&self) -> InterfaceLook {
        self.all(LinkState::Gone, &HookState::Gone)
    }

    fn all(&self, state: LinkState, hook_state: &HookState) -> InterfaceLook {
        let look = |each: &GuardedHook| HookLook {
            direction: each.direction,
            hook: each.hook,
            state: hook_state.clone(),
            again: None,
        };
        InterfaceLook { name: self.name.clone(), state, hooks: self.hooks.iter().map(look).collect() }
    }

    /// An XDP program that came since the last look is before TC's ingress. Nothing can be done about it, so
    /// it is known from then on, as one is that was there at the start.
    fn note_xdp(&mut self, now: &InterfaceInfo, hooks: &mut [HookLook]) {
        let newcomer = now.xdp.filter(|xdp| self.xdp != Some(*xdp));
        (self.xdp, self.is_behind_xdp) = (now.xdp, false);
        let Some(xdp) = newcomer else { return };
        let theirs = program(xdp.id);
        let behind = |look: &&mut HookLook| {
            look.direction == Direction::Ingress && !look.hook.is_xdp() && look.state == HookState::Ours
        };
        if let Some(look) = hooks.iter_mut().find(behind)
            && !is_of_an_agent(&theirs)
        {
            self.is_behind_xdp = true;
            look.state = HookState::Behind(vec![format!("{theirs} on XDP ({})", xdp.mode.name())]);
        }
    }

    fn attach_again(&mut self, look: &mut InterfaceLook, netlink: &mut Netlink) {
        if matches!(look.state, LinkState::Gone | LinkState::Unknown(_)) {
            return;
        }
        for (each, look) in self.hooks.iter_mut().zip(&mut look.hooks) {
            let may = match &look.state {
                HookState::Gone => true,
                HookState::Behind(_) => {
                    let by_xdp = self.is_behind_xdp && each.direction == Direction::Ingress;
                    !by_xdp && each.guard.may_move()
                }
                HookState::Ours | HookState::Unknown(_) | HookState::Passing(_) => false,
            };
            if may {
                let again = each.guard.attach_again(netlink);
                look.again = Some(again.map_err(|refusal| refusal.to_string()));
            }
        }
    }
}

const fn state_of(now: &InterfaceInfo) -> LinkState {
    match (now.is_up, now.has_carrier) {
        (true, true) => LinkState::Up,
        (true, false) => LinkState::NoCarrier,
        (false, _) => LinkState::Down,
    }
}

impl Attached {
    /// The socket that looks use, opened once: a failed exchange closes it.
    fn netlink(&mut self) -> Result<&mut Netlink, Refusal> {
        let opened = match self.netlink.take() {
            Some(netlink) => netlink,
            None => Netlink::open(ROUTE)?,
        };
        Ok(self.netlink.insert(opened))
    }
}

impl Hooks for Attached {
    fn look(&mut self) -> Vec<InterfaceLook> {
        let refusal = self.netlink().err();
        let Self { watched, netlink, .. } = self;
        let looks: Vec<InterfaceLook> = watched
            .iter_mut()
            .map(|each| match netlink {
                Some(netlink) => each.look(netlink),
                None => {
                    let why = refusal.as_ref().map(ToString::to_string).unwrap_or_default();
                    each.all(LinkState::Unknown(why.clone()), &HookState::Unknown(why))
                }
            })
            .collect();
        if looks.iter().any(|look| matches!(look.state, LinkState::Unknown(_))) {
            self.netlink = None;
        }
        looks
    }

    fn attach_again(&mut self, number: usize, look: &mut InterfaceLook) {
        if self.netlink().is_err() {
            return;
        }
        if let (Some(netlink), Some(watched)) = (&mut self.netlink, self.watched.get_mut(number)) {
            watched.attach_again(look, netlink);
        }
    }
}
