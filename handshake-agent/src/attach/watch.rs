//! Looks at the hooks after attaching: whether each program is still on its hook and comes first, and whether
//! the interface is up and the one that was attached to. A program that is not is attached again.
//!
//! A look is one request for the interface, and for each hook what its [`Guard`] asks: two system calls for
//! TCX, one for XDP, three for clsact. Only an answer that something changed costs more.

use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::bpf::program;
use super::claim::is_of_an_agent;
use super::interface::{self, InterfaceInfo, XdpProgram};
use super::selection::Demand;
use super::{Attached, AttachedInterface};
use crate::error::passes;
use crate::hook::{Direction, Hook, HookLook, HookState, InterfaceLook, LinkState};
use crate::netlink::{Netlink, ROUTE, Refusal};
use crate::source::LostBeforeHook;
use crate::source::live::Hooks;

/// The least time between two moves to the first place of a hook. Two programs that both want to be first
/// would take turns without end.
pub(super) const BETWEEN_MOVES: Duration = Duration::from_secs(60);

/// Keeps one program on one hook; dropping it detaches the program.
pub(super) trait Guard: fmt::Debug + Send + Sync {
    /// Looks whether the program is on its hook, and what came before it since it was attached. `now` is the
    /// interface at this moment.
    fn look(&mut self, now: &InterfaceInfo, netlink: &mut Netlink) -> HookState;

    /// Whether the program is on no hook any more, or the interface is gone.
    fn is_detached(&self) -> bool;

    /// Attaches the program again, before all others.
    ///
    /// # Errors
    ///
    /// The kernel's refusal; something stays before the program.
    fn attach_again(&mut self, netlink: &mut Netlink) -> Result<(), Refusal>;

    /// The link whose end detaches the program, for one who closes it.
    fn take_link(&mut self) -> Option<OwnedFd> {
        None
    }

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
    /// The interface, with its present name.
    pub(super) on: AttachedInterface,
    /// The name that it had when it was chosen.
    pub(super) chosen_as: String,
    /// The number of its packet counters.
    pub(super) number: u16,
    pub(super) demand: Demand,
    /// Whether it had to be there and was gone: the next look says so.
    pub(super) came_back: bool,
    hooks: Vec<GuardedHook>,
    lost: Meter,
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
    pub(super) fn new(on: AttachedInterface, number: u16, demand: Demand, hooks: Vec<GuardedHook>) -> Self {
        let now = interface::by_index(on.info.index).ok();
        let mut lost = Meter::default();
        // From here on.
        lost.read(now.as_ref().map(|now| now.rx_missed));
        let xdp = now.and_then(|now| now.xdp);
        let chosen_as = on.info.name.clone();
        Self { on, chosen_as, number, demand, came_back: false, hooks, lost, xdp, is_behind_xdp: false }
    }

    /// Whether this is the interface: it keeps its hooks when it is renamed. Another one may have got the
    /// index.
    pub(super) fn is(&self, now: &InterfaceInfo) -> bool {
        now.name == self.on.info.name || !self.hooks.iter().all(|each| each.guard.is_detached())
    }

    /// The links of its hooks: the programs stay until they are closed.
    pub(super) fn take_links(&mut self) -> Vec<OwnedFd> {
        self.hooks.iter_mut().filter_map(|each| each.guard.take_link()).collect()
    }

    /// The packets that it has lost before the hooks.
    pub(super) const fn lost(&self) -> LostBeforeHook {
        self.lost.lost
    }

    /// Its hooks.
    pub(super) fn places(&self) -> Vec<(Direction, Hook)> {
        self.hooks.iter().map(|each| (each.direction, each.hook)).collect()
    }

    fn look(&mut self, netlink: &mut Netlink) -> InterfaceLook {
        let link = interface::read_link(netlink, self.on.info.index);
        if !link.as_ref().is_err_and(|refusal| refusal.errno == libc::ENODEV) {
            self.lost.read(link.as_ref().ok().map(|now| now.rx_missed));
        }
        let now = match link {
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
        if !self.is(&now) || self.has_gone_since(&hooks, netlink) {
            return self.gone();
        }
        self.note_xdp(&now, &mut hooks);
        let came_back = std::mem::take(&mut self.came_back);
        if came_back {
            for look in hooks.iter_mut().filter(|look| look.state == HookState::Ours) {
                (look.state, look.again) = (HookState::Gone, Some(Ok(())));
            }
        }
        InterfaceLook { hooks, came_back, ..self.as_it_is(state_of(&now)) }
    }

    /// Whether the interface has gone since it was read: its hooks go with it, and were not lost before.
    /// The kernel takes a device off its list before it takes the programs off the device
    /// (`unregister_netdevice_many_notify` in net/core/dev.c).
    fn has_gone_since(&self, hooks: &[HookLook], netlink: &mut Netlink) -> bool {
        hooks.iter().any(HookLook::is_lost)
            && match interface::read_link(netlink, self.on.info.index) {
                Ok(now) => !self.is(&now),
                Err(refusal) => refusal.errno == libc::ENODEV,
            }
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
        InterfaceLook { hooks: self.hooks.iter().map(look).collect(), ..self.as_it_is(state) }
    }

    fn as_it_is(&self, state: LinkState) -> InterfaceLook {
        InterfaceLook {
            name: self.on.info.name.clone(),
            number: Some(self.number),
            is_required: self.demand == Demand::Required,
            state,
            came_back: false,
            hooks: Vec::new(),
        }
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
        if matches!(look.state, LinkState::Gone | LinkState::Unknown(_) | LinkState::Refused(_)) {
            return;
        }
        for (each, look) in self.hooks.iter_mut().zip(&mut look.hooks) {
            let may = look.again.is_none()
                && match &look.state {
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

/// Follows an interface's figure, which may be unreadable for a moment, or begin anew when the driver is set
/// up again. What was lost stays lost.
#[derive(Debug, Default)]
struct Meter {
    /// The figure as last read; `None` before.
    figure: Option<u64>,
    lost: LostBeforeHook,
}

impl Meter {
    fn read(&mut self, figure: Option<u64>) {
        self.lost.packets += match (self.figure, figure) {
            (Some(before), Some(now)) if now >= before => now - before,
            (Some(_), Some(now)) => {
                self.lost.unreadable += 1;
                now
            }
            (None, Some(_)) => 0,
            (_, None) => {
                self.lost.unreadable += 1;
                0
            }
        };
        self.figure = figure.or(self.figure);
    }
}

impl Attached {
    /// The wanted interfaces that are not watched: what keeps them from it.
    fn unwatched(&self) -> impl Iterator<Item = InterfaceLook> + '_ {
        let lost = |direction, hook| HookLook { direction, hook, state: HookState::Gone, again: None };
        let missing = self.missing.iter().map(move |missing| InterfaceLook {
            name: missing.name.clone(),
            number: None,
            is_required: true,
            state: LinkState::Gone,
            came_back: false,
            hooks: missing.hooks.iter().map(|(direction, hook)| lost(*direction, *hook)).collect(),
        });
        let refused = self.refused.values().map(move |refused| InterfaceLook {
            name: refused.name.clone(),
            number: None,
            is_required: refused.demand == Demand::Required,
            state: LinkState::Refused(refused.why.clone()),
            came_back: false,
            hooks: vec![lost(Direction::Ingress, Hook::Tcx)],
        });
        missing.chain(refused)
    }
}

/// Shared by the source, which looks, and the session, which follows.
impl Hooks for Arc<Mutex<Attached>> {
    fn look(&mut self) -> Vec<InterfaceLook> {
        held(self).look()
    }

    fn attach_again(&mut self, look: &mut InterfaceLook) {
        held(self).attach_again(look);
    }

    fn lost_before_hook(&self) -> LostBeforeHook {
        held(self).lost_before_hook()
    }
}

/// The attached programs, for this thread alone.
pub fn held(attached: &Arc<Mutex<Attached>>) -> MutexGuard<'_, Attached> {
    attached.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Hooks for Attached {
    fn look(&mut self) -> Vec<InterfaceLook> {
        let refusal = self.netlink().err();
        let Self { watched, netlink, .. } = self;
        let mut looks: Vec<InterfaceLook> = watched
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
        // What goes is found by `follow`. No packet passes an interface that is gone, so nothing is lost
        // unless it had to be there.
        self.is_stale |= looks.iter().any(|look| look.state == LinkState::Gone);
        looks.retain(|look| look.is_required || look.state != LinkState::Gone);
        looks.extend(self.unwatched());
        looks
    }

    fn attach_again(&mut self, look: &mut InterfaceLook) {
        if self.netlink().is_err() {
            return;
        }
        let watched = self.watched.iter_mut().find(|watched| Some(watched.number) == look.number);
        if let (Some(netlink), Some(watched)) = (&mut self.netlink, watched) {
            watched.attach_again(look, netlink);
        }
    }

    fn lost_before_hook(&self) -> LostBeforeHook {
        let mut sum = self.lost;
        self.watched.iter().for_each(|watched| sum += watched.lost());
        sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attach::selection::named;
    use crate::attach::testing::{in_namespace, run};

    /// A hook whose interface goes at the moment of the look.
    #[derive(Debug)]
    struct Going;

    impl Guard for Going {
        fn look(&mut self, now: &InterfaceInfo, _: &mut Netlink) -> HookState {
            run(&format!("ip link del {}", now.name));
            HookState::Gone
        }

        fn is_detached(&self) -> bool {
            true
        }

        fn attach_again(&mut self, _: &mut Netlink) -> Result<(), Refusal> {
            panic!("it is gone")
        }
    }

    #[test]
    fn an_interface_that_goes_during_a_look_is_gone_and_its_hooks_were_not_lost() {
        in_namespace(|| {
            let info = named("hs-a").expect("it exists");
            let on = AttachedInterface {
                info,
                ingress: Hook::Tcx,
                egress: None,
                before_ours: Vec::new(),
                program_ids: Vec::new(),
            };
            let guard = Box::new(Going);
            let hooks = vec![GuardedHook { direction: Direction::Ingress, hook: Hook::Tcx, guard }];
            let mut watched = WatchedHooks::new(on, 0, Demand::Welcome, hooks);
            let mut netlink = Netlink::open(ROUTE).expect("it opens");
            assert_eq!(watched.look(&mut netlink).state, LinkState::Gone);
        });
    }

    #[test]
    fn what_an_interface_lost_stays_lost() {
        let mut meter = Meter::default();
        let rows = [
            (Some(70), 0, 0),
            (Some(75), 5, 0),
            // Unreadable for a moment: the next reading has it all.
            (None, 5, 1),
            (Some(79), 9, 1),
            // Begun anew.
            (Some(2), 11, 2),
            (Some(3), 12, 2),
        ];
        for (figure, packets, unreadable) in rows {
            meter.read(figure);
            assert_eq!(meter.lost, LostBeforeHook { packets, unreadable }, "{figure:?}");
        }
    }
}
