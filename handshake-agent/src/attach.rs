//! Chooses a hook for each interface, with its reason, and attaches the programs to it.
//!
//! [`survey`] reads what the interfaces are, [`plan()`] decides, and [`attach`] attaches. The [`Attached`]
//! that it returns keeps the programs on their hooks until it is dropped, looks whether they still are, and
//! [follows](Attached::follow) interfaces that come and go. When the process dies, the kernel detaches
//! everything except clsact filters; the next start removes those.

pub mod bpf;
pub mod capability;
mod claim;
pub mod clsact;
mod detach;
pub mod driver;
mod features;
mod follow;
mod groups;
pub mod interface;
mod plan;
mod promisc;
pub mod selection;
mod tcx;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
#[cfg(test)]
mod tests;
pub mod tunnel;
mod watch;
mod xdp;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::sync::Arc;
use std::time::Instant;

use aya::Ebpf;
use aya::programs::{Program, ProgramError, ProgramFd, ProgramInfo, SchedClassifier, Xdp, XdpMode};

use crate::error::{Error, LiveError, is_bpf_filtered};
use crate::hook::{Direction, DirectionChoice, Hook, HookChoice};
use crate::load;
use crate::netlink::{LinkNews, Netlink, Refusal};
use crate::options::InterfaceChoice;
use crate::source::LostBeforeHook;
use crate::source::live::KernelSide;
use crate::source::settings::WatchedInterface;
use bpf::{has_tcx, program as program_name, tcx_chain};
use driver::NativeEffect;
pub use interface::InterfaceInfo;
use plan::HookStep;
pub use plan::{Facts, Plan, PlannedInterface, plan};
pub use watch::held;

use clsact::{ClsactGuard, is_by_ingress_qdisc};
use groups::Groups;
use promisc::Promisc;
use selection::{Demand, Selection};
use tcx::TcxGuard;
use watch::{Guard, GuardedHook, WatchedHooks};
use xdp::XdpGuard;

/// Name of the program for XDP hooks.
const XDP: &str = "handshake_xdp";
/// Name of the program for TC ingress hooks.
const INGRESS: &str = "handshake_ingress";
/// Name of the program for TC egress hooks.
const EGRESS: &str = "handshake_egress";

impl Direction {
    const fn classifier(self) -> &'static str {
        match self {
            Self::Ingress => INGRESS,
            Self::Egress => EGRESS,
        }
    }
}

/// Reads the facts that [`plan()`] needs about the chosen interfaces that are there, or about those of the
/// default routes if none is chosen.
///
/// # Errors
///
/// [`Error::UnknownInterface`], [`Error::NoDefaultRoute`], [`Error::Permission`], and [`Error::System`] if
/// the kernel does not answer.
pub fn survey(choice: &InterfaceChoice) -> Result<(Selection, Vec<Facts>), Error> {
    let (selection, chosen) = selection::select(choice)?;
    let facts = chosen.into_iter().map(|info| {
        let tcx = has_tcx(info.index).map_err(|error| match error.raw_os_error() {
            Some(libc::EPERM) => permission(error.to_string()),
            _ => Error::system(format!("ask for the TCX programs of {}", info.name))(error),
        })?;
        Ok(facts_of(info, tcx, &selection))
    });
    let facts = facts.collect::<Result<_, Error>>()?;
    Ok((selection, facts))
}

fn facts_of(info: InterfaceInfo, tcx: bool, selection: &Selection) -> Facts {
    let xdp_holder = info.xdp.map(|xdp| program_name(xdp.id));
    let demand = selection.demand(&info).unwrap_or_default();
    Facts { info, tcx, xdp_holder, demand }
}

/// Keeps the programs on their hooks until it is dropped.
#[derive(Debug)]
pub struct Attached {
    plan: Plan,
    /// Whether the kernel has TCX; asking takes a privilege.
    has_tcx: bool,
    /// The interfaces that are watched, in the order in which they came.
    watched: Vec<WatchedHooks>,
    /// The wanted interfaces that cannot be watched, by their index.
    refused: BTreeMap<u32, RefusedInterface>,
    /// The interfaces that must be watched and are gone.
    missing: Vec<MissingInterface>,
    /// The names of all hardware that was ever watched: attaching native XDP may reset it, once.
    hardware: BTreeSet<String>,
    groups: Groups,
    /// How many interfaces are gone.
    gone: u64,
    /// What the interfaces lost that are gone.
    lost: LostBeforeHook,
    /// The programs that are loaded, with their ids.
    programs: BTreeMap<&'static str, (Arc<OwnedFd>, u32)>,
    /// By program id: other agents see by these that the program is handshake's.
    claims: BTreeMap<u32, UnixDatagram>,
    promisc: Option<Promisc>,
    netlink: Option<Netlink>,
    /// `None`: the interfaces are listed each time.
    news: Option<LinkNews>,
    /// Whether the interfaces must be listed, whatever the news.
    is_stale: bool,
    /// Whether the latest list has interfaces that are not attached to yet.
    has_more: bool,
    /// How many interfaces were watched when there was no room for another one; `None`: there always was.
    full_at: Option<usize>,
}

/// A wanted interface that cannot be watched.
#[derive(Clone, Debug)]
struct RefusedInterface {
    name: String,
    demand: Demand,
    why: String,
    /// Whether it only lacks room, and is watched when another one goes.
    waits_for_room: bool,
}

/// An interface that must be watched and is gone.
#[derive(Clone, Debug)]
struct MissingInterface {
    name: String,
    since: Instant,
    hooks: Vec<(Direction, Hook)>,
}

/// An interface with our programs on it.
#[derive(Clone, Debug)]
pub struct AttachedInterface {
    /// The interface as it was before attaching.
    pub info: InterfaceInfo,
    /// The hook that sees incoming packets.
    pub ingress: Hook,
    /// The hook that sees outgoing packets; `None` if only ingress is watched.
    pub egress: Option<Hook>,
    /// Programs that see packets before ours and can drop or redirect them.
    pub before_ours: Vec<String>,
    /// The ids of our programs on this interface.
    pub program_ids: Vec<u32>,
}

/// Formats what follows `attached` in the line that scripts wait for.
impl fmt::Display for AttachedInterface {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let egress = self.egress.map(|hook| format!(", egress {hook}")).unwrap_or_default();
        let ids: Vec<String> = self.program_ids.iter().map(u32::to_string).collect();
        write!(f, "{}: ingress {}{egress} (programs {})", self.info.name, self.ingress, ids.join(", "))
    }
}

/// Why a program could not be attached to a hook.
enum Failure {
    /// Trying another hook would not help.
    Fatal(Error),
    /// This hook refuses the program; the next one may accept it.
    Refused(Refusal),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Fatal(error)
    }
}

/// Attaches the programs as planned. With `auto`, a refused hook falls back to the next one. `say` receives
/// each choice and refusal as it happens, and a warning before a driver is touched. With `promisc` the
/// interfaces are put into promiscuous mode. No attempt begins before [`Attached::open_gates`].
///
/// # Errors
///
/// [`Error::Hook`] if a hook requested by name is refused on an interface that must be watched, or on all,
/// [`Error::NoHook`] if all hooks are refused, [`Error::Load`] and [`Error::Permission`]. On an error,
/// everything attached so far is detached again.
pub fn attach(
    kernel: &mut dyn KernelSide,
    plan: &Plan,
    promisc: bool,
    say: &mut dyn FnMut(&str),
) -> Result<Attached, Error> {
    let mut attached = Attached::begin(plan, promisc, say)?;
    for planned in &plan.interfaces {
        attached.add(kernel, planned, say)?;
    }
    Ok(attached)
}

/// Loads the program of each first choice, for [`attach`], and those that an interface may need that comes
/// later or comes back: by then there may be no privilege to load one. The verifier takes some tenths of a
/// second per program; a handshake between the first hook and the last would be seen from one side only.
/// `progress` receives how many programs are loaded, and of how many.
///
/// # Errors
///
/// [`Error::Load`] and [`Error::Permission`].
pub fn load(bpf: &mut Ebpf, plan: &Plan, progress: &mut dyn FnMut(usize, usize)) -> Result<(), Error> {
    let chosen = |planned: &PlannedInterface| {
        let of = |direction: Direction, steps: &[HookStep]| {
            let step = steps.first()?;
            Some(if step.hook.is_xdp() { XDP } else { direction.classifier() })
        };
        [of(Direction::Ingress, &planned.ingress), of(Direction::Egress, &planned.egress)]
    };
    let now = plan.interfaces.iter().flat_map(chosen).flatten();
    let names: BTreeSet<&str> = now.chain(later(plan)).collect();
    for (number, name) in names.iter().enumerate() {
        progress(number, names.len());
        load::program(bpf, name).map_err(|error| load_error(&error.program, &error.source))?;
    }
    progress(names.len(), names.len());
    Ok(())
}

/// The programs that an interface needs that comes later. Hardware that comes back is not attached to by
/// native XDP again, but by TCX.
fn later(plan: &Plan) -> Vec<&'static str> {
    let any = plan.selection.is_open();
    let by_xdp = |planned: &PlannedInterface| planned.ingress.first().is_some_and(|step| step.hook.is_xdp());
    let mut programs = match plan.choice {
        HookChoice::Auto if any => vec![XDP, INGRESS],
        HookChoice::Auto if plan.interfaces.iter().any(by_xdp) => vec![INGRESS],
        HookChoice::Named(hook) if any => vec![if hook.is_xdp() { XDP } else { INGRESS }],
        HookChoice::Auto | HookChoice::Named(_) => Vec::new(),
    };
    if any && plan.direction != DirectionChoice::Ingress {
        programs.push(EGRESS);
    }
    programs
}

impl Attached {
    fn new(plan: &Plan, promisc: Option<Promisc>) -> Self {
        /// The index of the loopback device in each network namespace (`LOOPBACK_IFINDEX`).
        const LOOPBACK: u32 = 1;
        let news = LinkNews::open().ok();
        Self {
            has_tcx: has_tcx(LOOPBACK).unwrap_or_default(),
            watched: Vec::new(),
            refused: BTreeMap::new(),
            missing: Vec::new(),
            hardware: BTreeSet::new(),
            groups: Groups::new(plan.is_of_few()),
            gone: 0,
            lost: LostBeforeHook::default(),
            programs: BTreeMap::new(),
            claims: BTreeMap::new(),
            promisc,
            netlink: None,
            is_stale: true,
            has_more: false,
            full_at: None,
            news,
            plan: plan.clone(),
        }
    }

    /// Before the first interface is [added](Self::add): what comes meanwhile is found later.
    ///
    /// # Errors
    ///
    /// [`Error::System`] if there is no socket for promiscuous mode.
    pub fn begin(plan: &Plan, promisc: bool, say: &mut dyn FnMut(&str)) -> Result<Self, Error> {
        let promisc = promisc.then(Promisc::open).transpose()?;
        let mut attached = Self::new(plan, promisc);
        for (info, why) in &plan.refused {
            say(&not_watched(&info.name, why));
            attached.refused.insert(info.index, RefusedInterface::new(info, Demand::Welcome, why.clone()));
        }
        Ok(attached)
    }

    /// Attaches to an interface of the plan.
    ///
    /// # Errors
    ///
    /// As [`attach`].
    pub fn add(
        &mut self,
        kernel: &mut dyn KernelSide,
        planned: &PlannedInterface,
        say: &mut dyn FnMut(&str),
    ) -> Result<(), Error> {
        let info = &planned.info;
        let Err(error) = self.take(kernel, planned, say) else { return Ok(()) };
        let is_welcome = planned.demand == Demand::Welcome;
        if is_gone(info.index) {
            return if is_welcome { Ok(()) } else { Err(interface::unknown(&info.name)?) };
        }
        let is_its_own =
            matches!(error, Error::Hook { .. } | Error::NoHook { .. } | Error::Live(LiveError::NoRoom));
        if !is_its_own || !is_welcome || self.plan.interfaces.len() == 1 {
            return Err(error);
        }
        self.refuse(info, planned.demand, &error, say);
        Ok(())
    }

    /// The interfaces, in the order in which they came.
    #[must_use]
    pub fn interfaces(&self) -> Vec<AttachedInterface> {
        self.watched.iter().map(|watched| watched.on.clone()).collect()
    }

    /// The names of the groups that are one interface's, in the order of the groups.
    #[must_use]
    pub fn groups(&self) -> Vec<Option<String>> {
        self.groups.names()
    }

    /// How many interfaces were watched and are gone.
    #[must_use]
    pub const fn gone(&self) -> u64 {
        self.gone
    }

    /// Whether clsact has one of our programs, or may have of an interface that comes.
    #[must_use]
    pub fn may_use_clsact(&self) -> bool {
        let has = |on: &AttachedInterface| [Some(on.ingress), on.egress].contains(&Some(Hook::Clsact));
        self.watched.iter().any(|watched| has(&watched.on))
            || (self.plan.selection.is_open() && self.plan.may_choose_clsact(self.has_tcx))
    }

    /// The name of the interface with this number of packet counters.
    pub(crate) fn name_of(&self, number: u32) -> Option<String> {
        let of = self.watched.iter().find(|watched| u32::from(watched.number) == number);
        of.map(|watched| watched.on.info.name.clone())
    }

    /// Lets attempts begin: all hooks are on, and promiscuous mode, which shows conversations of other hosts
    /// from their middle.
    ///
    /// # Errors
    ///
    /// [`Error::Live`]: the kernel refuses to change the map.
    pub fn open_gates(&self, kernel: &mut dyn KernelSide) -> Result<(), Error> {
        self.watched.iter().try_for_each(|watched| Ok(kernel.set_gate(watched.number, true)?))
    }

    /// Attaches to one interface, all of whose hooks must be on.
    fn take(
        &mut self,
        kernel: &mut dyn KernelSide,
        planned: &PlannedInterface,
        say: &mut dyn FnMut(&str),
    ) -> Result<(), Error> {
        let info = &planned.info;
        let group = self.groups.take(info);
        let number = kernel.enter(WatchedInterface { index: info.index, group, raw: planned.is_raw() })?;
        let explains = self.plan.explains;
        let Self { programs, claims, promisc, .. } = self;
        let mut attaching = Attaching { kernel, say, planned, hooks: Vec::new(), programs, claims, explains };
        let on = attaching.interface().and_then(|on| {
            promisc.as_ref().map_or(Ok(()), |promisc| promisc.hold(info.index))?;
            Ok(on)
        });
        let hooks = attaching.hooks;
        match on {
            Ok(on) => {
                if !info.is_virtual {
                    self.hardware.insert(info.name.clone());
                }
                self.watched.push(WatchedHooks::new(on, number, planned.demand, hooks));
                Ok(())
            }
            Err(error) => {
                // Off the hooks first.
                drop(hooks);
                kernel.leave(number)?;
                Err(error)
            }
        }
    }

    /// Notes that a wanted interface cannot be watched: as long as it is there the report lacks it. Of those
    /// that find no room only the first is said, because there may be thousands.
    fn refuse(&mut self, info: &InterfaceInfo, demand: Demand, error: &Error, say: &mut dyn FnMut(&str)) {
        let mut refused = RefusedInterface::new(info, demand, error.to_string());
        refused.waits_for_room = matches!(error, Error::Live(LiveError::NoRoom));
        if !refused.waits_for_room {
            say(&not_watched(&info.name, &refused.why));
        } else if self.full_at.is_none() {
            let watched = self.watched.len();
            let others = format!("{} ({watched}); others wait for room without a line", refused.why);
            say(&not_watched(&info.name, &others));
            self.full_at = Some(watched);
        }
        self.refused.insert(info.index, refused);
    }

    /// Whether there is room again, and an interface waits for it.
    fn may_have_room(&self) -> bool {
        self.full_at.is_some_and(|full_at| self.watched.len() < full_at)
            && self.refused.values().any(|refused| refused.waits_for_room)
    }
}

impl RefusedInterface {
    fn new(info: &InterfaceInfo, demand: Demand, why: String) -> Self {
        Self { name: info.name.clone(), demand, why, waits_for_room: false }
    }
}

fn not_watched(name: &str, why: &str) -> String {
    format!("{name} is not watched: {why}")
}

/// Detaches.
impl Drop for Attached {
    fn drop(&mut self) {
        let links = self.watched.iter_mut().flat_map(WatchedHooks::take_links).collect();
        // The claims end before the links, and the filters of clsact go here.
        self.watched.clear();
        detach::close(links);
    }
}

/// Whether there is no such interface any more.
fn is_gone(index: u32) -> bool {
    interface::by_index(index).is_err_and(|error| error.raw_os_error() == Some(libc::ENODEV))
}

/// The state while the programs of one interface are attached.
struct Attaching<'a> {
    kernel: &'a mut dyn KernelSide,
    say: &'a mut dyn FnMut(&str),
    planned: &'a PlannedInterface,
    hooks: Vec<GuardedHook>,
    programs: &'a mut BTreeMap<&'static str, (Arc<OwnedFd>, u32)>,
    claims: &'a mut BTreeMap<u32, UnixDatagram>,
    /// Whether the reason of each choice is said.
    explains: bool,
}

/// A hook with our program on it.
struct TakenHook {
    hook: Hook,
    program_id: u32,
    /// The programs that see its packets before ours.
    before_ours: Vec<String>,
}

impl Attaching<'_> {
    fn interface(&mut self) -> Result<AttachedInterface, Error> {
        let info = self.planned.info.clone();
        for note in self.planned.notes.iter().cloned().chain(clsact::remove_stale(&info)) {
            self.tell(&note);
        }
        // Egress first: what the ingress hook sees may answer what has left before.
        let egress = match &self.planned.egress[..] {
            [] => None,
            steps => Some(self.take_hook(Direction::Egress, steps)?),
        };
        let ingress = self.take_hook(Direction::Ingress, &self.planned.ingress)?;
        let taken = || std::iter::once(&ingress).chain(&egress);
        Ok(AttachedInterface {
            info,
            ingress: ingress.hook,
            egress: egress.as_ref().map(|taken| taken.hook),
            before_ours: taken().flat_map(|taken| taken.before_ours.iter().cloned()).collect(),
            program_ids: taken().map(|taken| taken.program_id).collect(),
        })
    }

    /// Passes a sentence to `say`: a choice or a refusal with its reason, or a warning to the operator.
    fn tell(&mut self, note: &str) {
        (self.say)(note);
    }

    /// Attaches to the first hook of one direction that accepts our program.
    fn take_hook(&mut self, direction: Direction, steps: &[HookStep]) -> Result<TakenHook, Error> {
        let info = &self.planned.info;
        let mut refusals = Vec::new();
        let is_only = |direction| self.planned.named && (direction == Direction::Ingress || steps.len() == 1);
        for step in steps {
            if let Some(warning) = before_touching(info, step.hook) {
                self.tell(&warning);
            }
            match self.attach_hook(step.hook, direction) {
                Ok(on) => return Ok(self.took(*step, direction, on)),
                Err(Failure::Fatal(error)) => return Err(error),
                Err(Failure::Refused(refusal)) if is_by_ingress_qdisc(&refusal) || is_only(direction) => {
                    return Err(named_refusal(self.planned, step.hook, &refusal));
                }
                Err(Failure::Refused(refusal)) => {
                    self.tell(&format!("{}: {direction} by {} refused: {refusal}", info.name, step.hook));
                    refusals.push(format!("{}: {refusal}", step.hook));
                }
            }
        }
        Err(Error::NoHook { interface: info.name.clone(), direction, kernel: refusals.join("; ") })
    }

    fn took(
        &mut self,
        step: HookStep,
        direction: Direction,
        (guard, id): (Box<dyn Guard>, u32),
    ) -> TakenHook {
        let info = &self.planned.info;
        self.hooks.push(GuardedHook { direction, hook: step.hook, guard });
        // Of many that a pattern chooses the lines would be too many.
        if self.explains && self.planned.demand == Demand::Required {
            self.tell(&format!("{}: {direction} by {}: {}", info.name, step.hook, step.why));
        }
        let before_ours = before_ours(info, step.hook, direction, id);
        TakenHook { hook: step.hook, program_id: id, before_ours }
    }

    /// Attaches one program to one hook. Returns its guard and its id.
    fn attach_hook(&mut self, hook: Hook, direction: Direction) -> Result<(Box<dyn Guard>, u32), Failure> {
        let info = &self.planned.info;
        let (program, id) = self.program(if hook.is_xdp() { XDP } else { direction.classifier() })?;
        // Before the hook: an agent that looks on must not take it for another's. Without the claim it does
        // that.
        if !self.claims.contains_key(&id) {
            self.claims.extend(claim::program(id).ok().map(|claim| (id, claim)));
        }
        let index = info.index;
        let guard: Box<dyn Guard> = match hook {
            Hook::XdpNative => {
                Box::new(XdpGuard::attach(program, id, info, XdpMode::Driver).map_err(refused)?)
            }
            Hook::XdpGeneric => Box::new(XdpGuard::attach(program, id, info, XdpMode::Skb).map_err(refused)?),
            Hook::Tcx => Box::new(TcxGuard::attach(program, id, index, direction).map_err(refused)?),
            Hook::Clsact => Box::new(ClsactGuard::attach(program, id, index, direction).map_err(refused)?),
        };
        Ok((guard, id))
    }
}

impl Attaching<'_> {
    /// A program and its id.
    fn program(&mut self, name: &'static str) -> Result<(Arc<OwnedFd>, u32), Failure> {
        if let Some(known) = self.programs.get(name) {
            return Ok(known.clone());
        }
        let bpf = self.kernel.programs();
        let (program, id) = if name == XDP {
            let program: &mut Xdp = loaded(bpf, name)?;
            descriptor_and_id(program.fd(), program.info())?
        } else {
            let program: &mut SchedClassifier = loaded(bpf, name)?;
            descriptor_and_id(program.fd(), program.info())?
        };
        let known = (Arc::new(program), id);
        self.programs.insert(name, known.clone());
        Ok(known)
    }
}

/// The warning before XDP changes a device: what its driver does for native XDP, and what the kernel asks of
/// every driver for generic XDP (`generic_xdp_install` in `net/core/dev.c`).
fn before_touching(info: &InterfaceInfo, hook: Hook) -> Option<String> {
    let effect = driver::effect(info);
    let (sentence, again) = match hook {
        Hook::XdpNative if effect == NativeEffect::Nothing => return None,
        Hook::XdpNative if effect.interrupts() => (effect.sentence(), ", now and when it is detached"),
        Hook::XdpNative => (effect.sentence(), ""),
        Hook::XdpGeneric if info.is_virtual => return None,
        Hook::XdpGeneric => ("generic XDP turns off LRO and hardware GRO", ""),
        Hook::Tcx | Hook::Clsact => return None,
    };
    let interface = driver::with_driver(info);
    Some(format!("{interface}: {sentence}{again} (--hook tcx leaves the device as it is)"))
}

/// The error for a hook that was requested by name and refused, or whose refusal has a remedy. The error
/// number decides the fix, and the words where several causes share it.
fn named_refusal(planned: &PlannedInterface, hook: Hook, refusal: &Refusal) -> Error {
    let InterfaceInfo { name, mtu, driver, .. } = &planned.info;
    let driver = driver.as_deref().unwrap_or("its driver");
    let (problem, fix) = match (hook, refusal.errno) {
        (Hook::XdpNative | Hook::XdpGeneric, libc::EBUSY | libc::EEXIST) => (
            "is taken by another program".to_owned(),
            format!("use --hook tcx, or find that program with `handshake doctor -i {name}` and detach it"),
        ),
        (Hook::XdpNative, libc::EOPNOTSUPP) => {
            (format!("is not supported by {driver}"), "use --hook tcx, or --hook xdp-generic".to_owned())
        }
        (Hook::XdpNative, libc::ERANGE | libc::EINVAL | libc::E2BIG) => (
            format!("is refused by {driver} with its current settings (MTU {mtu})"),
            "use --hook tcx, or lower the MTU (-v shows the kernel's reason)".to_owned(),
        ),
        (Hook::Clsact, _) if is_by_ingress_qdisc(refusal) => (
            format!("is refused: {}", refusal.words.as_deref().unwrap_or_default()),
            clsact::ingress_qdisc_fix(name, planned.has_tcx),
        ),
        (Hook::XdpNative | Hook::XdpGeneric | Hook::Tcx | Hook::Clsact, _) => (
            format!("is refused: {}", io::Error::from_raw_os_error(refusal.errno)),
            "use --hook auto".to_owned(),
        ),
    };
    Error::Hook { interface: name.clone(), hook, problem, fix, kernel: Some(refusal.to_string()) }
}

/// A descriptor of a loaded program, and its id.
fn descriptor_and_id(
    fd: Result<&ProgramFd, ProgramError>,
    info: Result<ProgramInfo, ProgramError>,
) -> Result<(OwnedFd, u32), Failure> {
    let failed = |error: ProgramError| refused(Refusal { errno: libc::EIO, words: Some(error.to_string()) });
    let fd = fd.map_err(failed)?.as_fd().try_clone_to_owned().map_err(|error| refused(error.into()))?;
    Ok((fd, info.map_err(failed)?.id()))
}

/// Returns the program of this name, and loads it first if necessary: programs that are not attached cost no
/// verifier time.
///
/// # Errors
///
/// [`Error::Load`] with the verifier's log; [`Error::Permission`].
pub fn loaded<'a, P>(bpf: &'a mut Ebpf, name: &str) -> Result<&'a mut P, Error>
where
    &'a mut P: TryFrom<&'a mut Program, Error = ProgramError>,
{
    let missing = || Error::Load { program: name.into(), kernel: "the object has no such program".into() };
    if bpf.program(name).is_none() {
        return Err(missing());
    }
    load::program(bpf, name).map_err(|error| load_error(&error.program, &error.source))?;
    bpf.program_mut(name).ok_or_else(missing)?.try_into().map_err(|error| load_error(name, &error))
}

fn load_error(name: &str, error: &ProgramError) -> Error {
    let kernel = error.to_string();
    let missing = capability::Capabilities::of_this_thread().require(false).is_err();
    let errno =
        if let ProgramError::LoadError { io_error, .. } = error { io_error.raw_os_error() } else { None };
    // The verifier also returns EACCES for a bad memory access, which no permission fixes.
    if errno == Some(libc::EPERM) || (missing && errno == Some(libc::EACCES)) {
        return permission(kernel);
    }
    Error::Load { program: name.into(), kernel }
}

/// The error after EPERM: names the missing capabilities; if none is missing, the filter of system calls, or
/// a container or security module.
fn permission(kernel: String) -> Error {
    match capability::Capabilities::of_this_thread().require(false) {
        Err(Error::Permission { missing, fix, .. }) => {
            Error::Permission { missing, fix, kernel: Some(kernel) }
        }
        Ok(()) if is_bpf_filtered() => LiveError::Seccomp { what: "ask for and load programs".into() }.into(),
        Ok(()) | Err(_) => Error::Permission {
            missing: vec!["a permission (a container or a security module may withhold it)".into()],
            fix: "run it with sudo, outside any container".into(),
            kernel: Some(kernel),
        },
    }
}

fn refused(refusal: Refusal) -> Failure {
    match refusal.errno {
        libc::EPERM => Failure::Fatal(permission(refusal.to_string())),
        _ => Failure::Refused(refusal),
    }
}

/// The programs that see this direction's packets before ours.
fn before_ours(info: &InterfaceInfo, hook: Hook, direction: Direction, ours: u32) -> Vec<String> {
    let mut before = Vec::new();
    if direction == Direction::Ingress && !hook.is_xdp() {
        let xdp = interface::by_index(info.index).ok().and_then(|now| now.xdp);
        before.extend(xdp.map(|xdp| format!("{} on XDP ({})", program_name(xdp.id), xdp.mode.name())));
    }
    if !hook.is_xdp() {
        let chain = tcx_chain(info.index, direction).unwrap_or_default();
        let ahead = chain.into_iter().take_while(|id| *id != ours);
        before.extend(ahead.map(|id| format!("{} on tcx {direction}", program_name(id))));
    }
    if hook == Hook::Clsact {
        before.extend(clsact::before_ours(info.index, direction, ours));
    }
    before
}

impl PlannedInterface {
    /// Whether frames begin at the IP header where our program sees them.
    pub fn is_raw(&self) -> bool {
        let by_tc = self.ingress.first().is_some_and(|step| !step.hook.is_xdp());
        self.info.raw || (self.info.foreign_generic_xdp() && by_tc)
    }
}
