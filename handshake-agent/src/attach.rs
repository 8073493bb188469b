//! Chooses a hook for each interface, with its reason, and attaches the programs to it.
//!
//! [`survey`] reads what the interfaces are, [`plan()`] decides, and [`attach`] attaches. The [`Attached`]
//! that it returns keeps the programs on their hooks until it is dropped, and looks whether they still are.
//! When the process dies, the kernel detaches everything except clsact filters; the next start removes those.

pub mod bpf;
pub mod capability;
mod claim;
pub mod clsact;
pub mod driver;
mod features;
pub mod interface;
mod netlink;
mod plan;
mod promisc;
mod tcx;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
#[cfg(test)]
mod tests;
mod watch;
mod xdp;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::mem::size_of;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::net::UnixDatagram;

use aya::Ebpf;
use aya::programs::{Program, ProgramError, ProgramFd, ProgramInfo, SchedClassifier, Xdp, XdpMode};

use crate::error::{Error, LiveError, is_bpf_filtered};
use crate::hook::{Direction, Hook};
use crate::load;
use bpf::{has_tcx, program as program_name, tcx_chain};
use driver::NativeEffect;
pub use interface::InterfaceInfo;
use plan::HookStep;
pub use plan::{Facts, Plan, PlannedInterface, plan};
pub use promisc::Promisc;

use clsact::{ClsactGuard, is_by_ingress_qdisc};
use netlink::{Netlink, Refusal};
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

/// Reads the facts that [`plan()`] needs about the named interfaces, or about those of the default routes if
/// `names` is empty.
///
/// # Errors
///
/// [`Error::UnknownInterface`], [`Error::NoDefaultRoute`], [`Error::Permission`], and [`Error::System`] if
/// the kernel does not answer.
pub fn survey(names: &[String]) -> Result<Vec<Facts>, Error> {
    interface::select(names)?.into_iter().map(facts_of).collect()
}

fn facts_of(info: InterfaceInfo) -> Result<Facts, Error> {
    let tcx = has_tcx(info.index).map_err(|error| match error.raw_os_error() {
        Some(libc::EPERM) => permission(error.to_string()),
        _ => Error::system(format!("ask for the TCX programs of {}", info.name))(error),
    })?;
    let xdp_holder = info.xdp.map(|xdp| program_name(xdp.id));
    Ok(Facts { info, tcx, xdp_holder })
}

/// Keeps the programs on their hooks until it is dropped.
#[derive(Debug, Default)]
pub struct Attached {
    /// The interfaces, in the order of the plan.
    pub interfaces: Vec<AttachedInterface>,
    /// The same with the guards of their hooks.
    watched: Vec<WatchedHooks>,
    /// By program id: other agents see by these that the program is handshake's.
    claims: BTreeMap<u32, UnixDatagram>,
    netlink: Option<Netlink>,
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
/// each choice and refusal as it happens, and a warning before a driver is touched.
///
/// # Errors
///
/// [`Error::Hook`] if a hook requested by name is refused, [`Error::NoHook`] if all hooks are refused,
/// [`Error::Load`] and [`Error::Permission`]. On an error, everything attached so far is detached again.
pub fn attach(bpf: &mut Ebpf, plan: &Plan, say: &mut dyn FnMut(&str)) -> Result<Attached, Error> {
    let mut attached = Attached::default();
    for planned in &plan.interfaces {
        let mut attaching = Attaching { bpf, say, planned, hooks: Vec::new(), claims: &mut attached.claims };
        let interface = attaching.interface()?;
        attached.watched.push(WatchedHooks::new(&interface.info, attaching.hooks));
        attached.interfaces.push(interface);
    }
    Ok(attached)
}

/// Loads the program of each first choice, for [`attach`]. The verifier takes some tenths of a second per
/// program; a handshake between the first hook and the last would be seen from one side only. `progress`
/// receives how many programs are loaded, and of how many.
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
    let names: BTreeSet<&str> = plan.interfaces.iter().flat_map(chosen).flatten().collect();
    for (number, name) in names.iter().enumerate() {
        progress(number, names.len());
        load::program(bpf, name).map_err(|error| load_error(&error.program, &error.source))?;
    }
    progress(names.len(), names.len());
    Ok(())
}

/// The state while the programs of one interface are attached.
struct Attaching<'a> {
    bpf: &'a mut Ebpf,
    say: &'a mut dyn FnMut(&str),
    planned: &'a PlannedInterface,
    hooks: Vec<GuardedHook>,
    claims: &'a mut BTreeMap<u32, UnixDatagram>,
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
        self.tell(&format!("{}: {direction} by {}: {}", info.name, step.hook, step.why));
        let before_ours = before_ours(info, step.hook, direction, id);
        TakenHook { hook: step.hook, program_id: id, before_ours }
    }

    /// Attaches one program to one hook. Returns its guard and its id.
    fn attach_hook(&mut self, hook: Hook, direction: Direction) -> Result<(Box<dyn Guard>, u32), Failure> {
        let info = &self.planned.info;
        let (program, id) = if hook.is_xdp() {
            let program: &mut Xdp = loaded(self.bpf, XDP)?;
            descriptor_and_id(program.fd(), program.info())?
        } else {
            let program: &mut SchedClassifier = loaded(self.bpf, direction.classifier())?;
            descriptor_and_id(program.fd(), program.info())?
        };
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

/// Sets a socket option.
fn set_option<T>(socket: &OwnedFd, level: i32, option: i32, value: &T) -> io::Result<()> {
    let size = libc::socklen_t::try_from(size_of::<T>())
        .map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    // SAFETY: `value` is borrowed for the call and `size` is its size; the kernel only reads it.
    let result =
        unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, (&raw const *value).cast(), size) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
