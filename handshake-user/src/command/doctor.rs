//! `handshake doctor`: reports what this machine supports, and the command that fixes what it does not. Facts
//! are gathered, then judged by pure functions, then printed. Read-only: loads no program and changes no
//! device.
//!
//! Not checked, because it does not matter from Linux 6.1 on: the memlock limit (memory is charged to the
//! cgroup since 5.11), and unprivileged BPF and lockdown (neither keeps CAP_BPF from loading packet
//! programs).

mod inside;

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};

use handshake_agent::Error;
use handshake_agent::attach::bpf::{has_tcx, owners, program, tcx_chain};
use handshake_agent::attach::capability::{
    Capabilities, NET_RAW, SYS_ADMIN, SYS_PTRACE, fix as capability_fix,
};
use handshake_agent::attach::clsact::{self, ClsactFilter};
use handshake_agent::attach::driver::{NativeEffect, native_effect, row_of, with_driver};
use handshake_agent::attach::interface::{self, InterfaceInfo};
use handshake_agent::attach::selection::{self, Demand, Selection};
use handshake_agent::attach::{Facts as PlanFacts, PlannedInterface, plan};
use handshake_agent::confine::Confined;
use handshake_agent::free::{self, Free};
use handshake_agent::hook::{Direction, DirectionChoice, Hook, HookChoice};
use handshake_agent::makers::Means;
use handshake_agent::memory;
use handshake_agent::options::{InterfaceChoice, Options};
use handshake_agent::source::live::possible_cpus;
use handshake_agent::source::settings::BYTES_A_FLOW;
use handshake_agent::source::settings::FEW_INTERFACES;

use crate::cli::{DoctorArgs, is_proven};
use crate::command::{usual_confinement, warn_of_variables};
use crate::error::CommandError;
use crate::escape::printable;
use crate::output::{Output, Target};

/// The oldest kernel that the programs are tested on.
const OLDEST: (u32, u32) = (6, 1);
/// What a kernel is too old for, the newest first: the feature that decides, and the first kernel that has it.
const FEATURES: [((u32, u32), &str); 2] = [
    ((5, 18), "XDP programs for packets in fragments came with Linux 5.18"),
    ((5, 12), "atomic operations with a result, which no hook works without, came with Linux 5.12"),
];
/// The first kernel with TCX.
const TCX: (u32, u32) = (6, 6);
/// The largest MTU for native XDP with one page per frame: 4096 bytes less 256 of headroom, 320 of
/// `skb_shared_info`, and the link header with two tags.
const ONE_PAGE_MTU: u32 = 3498;
/// `NETDEV_XDP_ACT_RX_SG`: the driver passes frames of several pages to XDP.
const RX_SG: u64 = 1 << 5;

/// Facts about the machine.
#[derive(Clone, Debug)]
struct MachineFacts {
    /// `uname -r`.
    release: String,
    /// Whether the kernel was built with PREEMPT_RT.
    realtime: bool,
    architecture: &'static str,
    /// Why the number of CPUs is unknown, without which no map can be read.
    no_cpus: Option<String>,
    /// `/sys/kernel/btf/vmlinux` exists; `None` without `/sys`.
    btf: Option<bool>,
    capabilities: Capabilities,
    /// `net.core.bpf_jit_enable`, if it can be read.
    jit: Option<bool>,
    /// `kernel.bpf_stats_enabled`.
    stats: bool,
    /// What a command is left with once it has attached, or why it could not be tried.
    confined: Result<Confined, String>,
    /// What there is for `--process`.
    processes: Means,
    /// What a run takes at its peak with the defaults, bytes.
    peak: u64,
    /// Free memory.
    free: Option<Free>,
}

/// Facts about an interface.
#[derive(Clone, Debug)]
struct InterfaceFacts {
    info: InterfaceInfo,
    /// Whether it supports TCX; `None` without the permission to ask.
    tcx: Option<bool>,
    /// Other programs on its hooks: `their_prog (id 12) on XDP (generic), held by agent (pid 7)`.
    others: Vec<String>,
    /// Our filters whose agent was killed.
    stale: Vec<ClsactFilter>,
    /// Whether an `ingress` qdisc is in the place of clsact.
    ingress_qdisc: bool,
}

/// The severity of a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Level {
    /// Nothing is wrong.
    Ok,
    /// `watch` works, but something could be better or is worth knowing.
    Warn,
    /// `watch` will not work: exit code 4.
    Fail,
    /// `watch` lacks a permission: exit code 5.
    Denied,
}

impl Level {
    const fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail | Self::Denied => "FAIL",
        }
    }

    const fn exit_code(self) -> u8 {
        match self {
            Self::Ok | Self::Warn => 0,
            Self::Fail => 4,
            Self::Denied => 5,
        }
    }
}

/// One finding of the report.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Finding {
    level: Level,
    text: String,
    /// The command or the advice that fixes it.
    fix: Option<String>,
}

impl Finding {
    fn ok(text: impl Into<String>) -> Self {
        Self { level: Level::Ok, text: text.into(), fix: None }
    }

    fn bad(level: Level, text: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { level, text: text.into(), fix: Some(fix.into()) }
    }
}

/// Runs `handshake doctor` and returns its exit code: 0 if `watch` would work, 5 if a permission is missing,
/// else 4.
///
/// # Errors
///
/// [`Error::UnknownInterface`] and [`Error::NoDefaultRoute`]; failures to write the findings.
pub(crate) fn run(args: &DoctorArgs) -> Result<u8, CommandError> {
    warn_of_variables();
    let findings = judge(&args.interfaces)?;
    let written = Output::to(Target::stdout()).put(|out| print(&findings, out));
    written.map_err(CommandError::output("write the findings"))?;
    Ok(exit_code(&findings))
}

/// Judges the machine and these interfaces, or those of the default routes if none is named.
fn judge(interfaces: &[String]) -> Result<Vec<Finding>, Error> {
    let choice = InterfaceChoice { names: interfaces.to_vec(), wait: false };
    let (selection, links) = selection::select(&choice)?;
    if links.is_empty() {
        return Err(selection.nothing());
    }
    let mut findings = judge_machine(&MachineFacts::gather());
    let all = interface::list()?;
    let inside = inside::judge(&links, &all);
    for interface in gather_interfaces(links) {
        findings.extend(judge_interface(&interface));
    }
    findings.extend(inside);
    Ok(findings)
}

fn print(findings: &[Finding], out: &mut dyn Write) -> io::Result<()> {
    for finding in findings {
        writeln!(out, "{:<5} {}", finding.level.word(), printable(&finding.text))?;
        if let Some(fix) = &finding.fix {
            writeln!(out, "      fix: {}", printable(fix))?;
        }
    }
    Ok(())
}

/// A permission failure outranks other failures, because it hides them.
fn exit_code(findings: &[Finding]) -> u8 {
    findings.iter().map(|finding| finding.level.exit_code()).max().unwrap_or(0)
}

fn judge_machine(machine: &MachineFacts) -> Vec<Finding> {
    let mut findings = vec![kernel(&machine.release)];
    if machine.realtime {
        let text =
            "a kernel with PREEMPT_RT may run two programs of one CPU at once: their counts could be lost";
        findings.push(Finding::bad(Level::Fail, text, "boot a kernel without PREEMPT_RT"));
    }
    if !is_proven(machine.architecture) {
        let text = format!("handshake is not proven on {} yet", machine.architecture);
        findings.push(Finding::bad(Level::Warn, text, "--experimental runs it all the same"));
    }
    findings.extend(machine.no_cpus.iter().map(|why| Finding {
        level: Level::Fail,
        text: why.clone(),
        fix: None,
    }));
    findings.extend(machine.btf.map(btf));
    findings.extend(permissions(machine.capabilities));
    if machine.jit == Some(false) {
        let fix = "sudo sysctl -w net.core.bpf_jit_enable=1";
        findings.push(Finding::bad(
            Level::Warn,
            "BPF is interpreted, not compiled: several times slower",
            fix,
        ));
    }
    if machine.stats {
        let fix = "sudo sysctl -w kernel.bpf_stats_enabled=0";
        findings.push(Finding::bad(
            Level::Warn,
            "BPF statistics are on: every packet reads a clock twice",
            fix,
        ));
    }
    findings.extend(processes(&machine.processes, machine.capabilities));
    findings.extend(privileges(&machine.confined));
    findings.push(memory(machine.peak, machine.free.as_ref()));
    findings
}

fn kernel(release: &str) -> Finding {
    let (has, (major, minor)) = (version(release), OLDEST);
    if has >= OLDEST {
        let tcx = if has < TCX { ": XDP and clsact; TCX came with Linux 6.6" } else { "" };
        return Finding::ok(format!("Linux {release}{tcx}"));
    }
    let mut text = format!("Linux {release} is older than {major}.{minor}, the oldest that was tried");
    for (_, lacks) in FEATURES.iter().filter(|(since, _)| has < *since) {
        text += &format!("; {lacks}");
    }
    Finding::bad(Level::Fail, text, format!("boot Linux {major}.{minor} or newer"))
}

/// The first two numbers of a release: (6, 1) of `6.1.0-18-amd64`.
fn version(release: &str) -> (u32, u32) {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|n| n.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

fn btf(there: bool) -> Finding {
    if there {
        return Finding::ok("the kernel has its type information (BTF)");
    }
    let text = "no /sys/kernel/btf/vmlinux: the verifier may refuse functions whose types it cannot check";
    Finding::bad(Level::Warn, text, "boot a kernel built with CONFIG_DEBUG_INFO_BTF=y")
}

fn permissions(capabilities: Capabilities) -> Vec<Finding> {
    if let Err(error) = capabilities.require(false) {
        return vec![denied(&error)];
    }
    let mut findings = vec![Finding::ok("CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN are held")];
    if !capabilities.has(NET_RAW) {
        let text = "no CAP_NET_RAW: --promisc will be refused";
        findings.push(Finding::bad(Level::Warn, text, capability_fix(true)));
    }
    if !capabilities.has(SYS_ADMIN) {
        let text = "no CAP_SYS_ADMIN: other programs are shown by id, not by name";
        findings.push(Finding::bad(Level::Warn, text, "sudo handshake doctor"));
    }
    findings
}

/// What `--process` would know. Without CAP_NET_ADMIN, which is asked for elsewhere, nothing is said.
fn processes(means: &Means, capabilities: Capabilities) -> Vec<Finding> {
    let none = |why: &str, fix: &str| {
        vec![Finding::bad(Level::Warn, format!("--process cannot be used: {why}"), fix)]
    };
    let Means::There { folder, is_whole, has_numbers } = means else {
        return match means {
            Means::NoTree(why) => none(why, "mount -t cgroup2 cgroup2 /sys/fs/cgroup/unified"),
            Means::Refused(_) if capabilities.require(false).is_err() => Vec::new(),
            Means::Refused(why) => none(why, "boot a kernel built with CONFIG_CGROUP_BPF=y"),
            Means::Alone | Means::There { .. } => {
                none("another program at the root of the tree lets none beside it", "take that off")
            }
        };
    };
    let mut findings = vec![Finding::ok(format!("--process knows who makes sockets below {folder}"))];
    if !is_whole {
        let text =
            "this is not the whole tree of control groups: --process knows the sockets of this container";
        findings.push(Finding::bad(Level::Warn, text, "run it in the host's cgroup namespace"));
    }
    if !has_numbers || !capabilities.has(SYS_PTRACE) {
        let why = if *has_numbers { "no CAP_SYS_PTRACE" } else { "a PID namespace of its own" };
        let text = format!("{why}: --process will not know sockets that were made before it began");
        let fix = if *has_numbers { "run it with sudo" } else { "run it in the host's PID namespace" };
        findings.push(Finding::bad(Level::Warn, text, fix));
    }
    findings
}

/// What is left of the privileges after attaching, and what of that is more than it need be.
fn privileges(confined: &Result<Confined, String>) -> Vec<Finding> {
    let confined = match confined {
        Ok(confined) => confined,
        Err(error) => return vec![Finding::bad(Level::Fail, error, "use --keep-privileges")],
    };
    let left = Finding::ok(format!("after attaching, handshake keeps: {confined}"));
    let gaps = confined.gaps().into_iter().map(|text| Finding { level: Level::Warn, text, fix: None });
    std::iter::once(left).chain(gaps).collect()
}

fn denied(error: &Error) -> Finding {
    if let Error::Permission { missing, fix, .. } = error {
        return Finding::bad(Level::Denied, format!("missing {}", missing.join(", ")), fix.clone());
    }
    Finding { level: Level::Denied, text: error.to_string(), fix: None }
}

fn memory(peak: u64, free: Option<&Free>) -> Finding {
    let need = format!("a run takes {} MiB at its peak", mebibytes(peak));
    let elsewhere = [2, 64, 256].map(|cpus| {
        format!("{} on {cpus} CPUs", mebibytes(memory::peak(&Options::default(), cpus, FEW_INTERFACES)))
    });
    let details =
        format!("with the default --max-flows {}, {BYTES_A_FLOW} bytes per flow", elsewhere.join(", "));
    match free {
        Some(Free { bytes, whose }) if *bytes < peak => {
            let text = format!("{need}, but only {} MiB are free {whose} ({details})", bytes >> 20);
            Finding::bad(Level::Fail, text, "use a smaller --max-flows")
        }
        Some(Free { bytes, whose }) => {
            Finding::ok(format!("{need}, and {} MiB are free {whose} ({details})", bytes >> 20))
        }
        None => Finding::ok(format!("{need} ({details})")),
    }
}

/// Mebibytes, rounded up so that less than one does not show as 0.
const fn mebibytes(bytes: u64) -> u64 {
    bytes.div_ceil(1 << 20)
}

fn judge_interface(interface: &InterfaceFacts) -> Vec<Finding> {
    let mut findings = vec![what_it_is(&interface.info)];
    findings.extend(reachable(&interface.info));
    findings.push(native_xdp(&interface.info));
    findings.extend(mtu(&interface.info));
    findings.extend(tcx(interface));
    findings.extend(
        interface.others.iter().map(|other| Finding::ok(format!("{}: {other}", interface.info.name))),
    );
    findings.extend(interface.stale.iter().map(|filter| stale(&interface.info.name, filter)));
    findings.extend(ingress_qdisc(interface));
    findings.extend(would_choose(interface));
    findings
}

fn what_it_is(info: &InterfaceInfo) -> Finding {
    let InterfaceInfo { name, mtu, driver, operstate, .. } = info;
    let driver = driver.as_deref().unwrap_or("none");
    let behind = if info.is_virtual { "virtual" } else { "hardware" };
    let header = if info.raw { ", no Ethernet header" } else { "" };
    Finding::ok(format!("{name}: driver {driver}, {behind}{header}, MTU {mtu}, operstate {operstate}"))
}

fn reachable(info: &InterfaceInfo) -> Option<Finding> {
    let name = &info.name;
    if !info.is_up {
        let text = format!("{name} is down: no packet will be seen");
        return Some(Finding::bad(Level::Warn, text, format!("sudo ip link set {name} up")));
    }
    if !info.has_carrier {
        let text = format!("{name} has no carrier: no packet will be seen");
        return Some(Finding::bad(Level::Warn, text, "connect or start its other end"));
    }
    None
}

/// Whether the interface has native XDP, and what that does to it: with the source of the driver's row.
fn native_xdp(info: &InterfaceInfo) -> Finding {
    let (interface, name) = (with_driver(info), &info.name);
    let source = row_of(info).map(|row| format!(" (drivers/net/{})", row.source)).unwrap_or_default();
    match (native_effect(info), info.is_virtual, info.raw) {
        (_, _, true) => Finding::ok(format!("{name}: TC only, because XDP needs an Ethernet header")),
        (Some(effect), is_virtual, _) => {
            let sentence = effect.sentence();
            let limit = if is_virtual || !effect.suits_auto() { ": only by --hook xdp-native" } else { "" };
            Finding::ok(format!("{interface}: {sentence}{limit}{source}"))
        }
        (None, true, _) => Finding::ok(format!("{name}: no native XDP, and it needs none")),
        (None, false, _) => {
            let driver = info.driver.as_deref().unwrap_or("the driver");
            let text = format!(
                "{name}: {driver} has no native XDP: TC is used instead, at a higher cost per packet"
            );
            Finding { level: Level::Warn, text, fix: None }
        }
    }
}

fn mtu(info: &InterfaceInfo) -> Option<Finding> {
    let InterfaceInfo { name, mtu, .. } = info;
    let several_pages = info.xdp_features.is_some_and(|features| features & RX_SG != 0);
    let chosen = !info.is_virtual && native_effect(info).is_some_and(NativeEffect::suits_auto);
    if *mtu <= ONE_PAGE_MTU || several_pages || !chosen {
        return None;
    }
    let text = format!("{name}: native XDP may be refused with MTU {mtu}: a frame may not fit a page");
    Some(Finding::bad(
        Level::Warn,
        text,
        format!("--hook tcx, or sudo ip link set {name} mtu {ONE_PAGE_MTU}"),
    ))
}

fn tcx(interface: &InterfaceFacts) -> Option<Finding> {
    let name = &interface.info.name;
    match interface.tcx? {
        true => Some(Finding::ok(format!("{name}: TCX is available"))),
        false => {
            let text = format!(
                "{name}: no TCX (Linux 6.6): clsact is used instead, and a killed agent leaves its filter"
            );
            Some(Finding::bad(Level::Warn, text, "boot Linux 6.6 or newer"))
        }
    }
}

fn stale(name: &str, filter: &ClsactFilter) -> Finding {
    let text = format!("{name}: the {} filter of an agent that was killed still runs", filter.direction);
    let command = clsact::removal_command(name, filter);
    Finding::bad(
        Level::Warn,
        text,
        format!("sudo {command}, or start `handshake watch -i {name}`, which removes it"),
    )
}

/// An `ingress` qdisc that keeps `watch` from attaching, or would with `--hook clsact`.
fn ingress_qdisc(interface: &InterfaceFacts) -> Option<Finding> {
    let name = &interface.info.name;
    if !interface.ingress_qdisc {
        return None;
    }
    if is_blocked(interface) {
        let text = format!("{name}: an `ingress` qdisc is in the place of clsact, which watch needs here");
        return Some(Finding::bad(Level::Fail, text, clsact::ingress_qdisc_fix(name, false)));
    }
    Some(Finding::ok(format!(
        "{name}: an `ingress` qdisc is in the place of clsact: only --hook clsact would be refused"
    )))
}

/// Whether `watch` needs clsact, and an `ingress` qdisc is in its place.
fn is_blocked(interface: &InterfaceFacts) -> bool {
    let needs_clsact = |planned: PlannedInterface| {
        let first = [planned.ingress.first(), planned.egress.first()];
        first.into_iter().flatten().any(|step| step.hook == Hook::Clsact)
    };
    interface.ingress_qdisc && planned(interface).is_some_and(needs_clsact)
}

/// The hooks that `watch` would choose, from the same function that `watch` uses.
fn planned(interface: &InterfaceFacts) -> Option<PlannedInterface> {
    let info = interface.info.clone();
    let facts = PlanFacts { info, tcx: interface.tcx?, xdp_holder: None, demand: Demand::Required };
    let plan = plan(Selection::default(), &[facts], HookChoice::Auto, DirectionChoice::Auto).ok()?;
    plan.interfaces.into_iter().next()
}

/// The hooks that `watch` would choose, where nothing keeps it from them.
fn would_choose(interface: &InterfaceFacts) -> Option<Finding> {
    let planned = planned(interface).filter(|_| !is_blocked(interface))?;
    let (name, ingress) = (&planned.info.name, planned.ingress.first()?);
    let egress = planned.egress.first().map_or_else(|| "none needed".into(), |step| step.hook.to_string());
    Some(Finding::ok(format!(
        "{name}: watch attaches ingress by {}: {}; egress: {egress}",
        ingress.hook, ingress.why
    )))
}

impl MachineFacts {
    fn gather() -> Self {
        let flag = |path| fs::read_to_string(path).ok().map(|value| value.trim() != "0");
        let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let cpus = possible_cpus();
        let has_sys = fs::exists("/sys/kernel").unwrap_or(false);
        Self {
            release: release.trim().to_owned(),
            realtime: flag("/sys/kernel/realtime").unwrap_or(false),
            architecture: std::env::consts::ARCH,
            no_cpus: cpus.as_ref().err().map(ToString::to_string),
            btf: has_sys.then(|| fs::exists("/sys/kernel/btf/vmlinux").unwrap_or(false)),
            capabilities: Capabilities::of_this_thread(),
            jit: flag("/proc/sys/net/core/bpf_jit_enable"),
            stats: flag("/proc/sys/kernel/bpf_stats_enabled").unwrap_or(false),
            confined: usual_confinement().try_out().map_err(|error| error.to_string()),
            processes: Means::ask(),
            peak: memory::peak(&Options::default(), cpus.unwrap_or(1), FEW_INTERFACES),
            free: free::free(),
        }
    }
}

fn gather_interfaces(links: Vec<InterfaceInfo>) -> Vec<InterfaceFacts> {
    let hooked: Vec<_> = links.iter().map(on_hooks).collect();
    let ids: Vec<u32> = hooked.iter().flat_map(|(others, _)| others).filter_map(|(id, _)| *id).collect();
    let owners = owners(&ids);
    let interface =
        |(info, (others, stale)): (InterfaceInfo, (Vec<OnHook>, Vec<ClsactFilter>))| InterfaceFacts {
            tcx: has_tcx(info.index).ok(),
            others: others.into_iter().map(|on| describe(on, &owners)).collect(),
            stale,
            ingress_qdisc: clsact::is_taken_by_ingress(info.index),
            info,
        };
    links.into_iter().zip(hooked).map(interface).collect()
}

/// A program on a hook: its id if it is known, and its description: `their_prog (id 12) on tcx ingress`.
type OnHook = (Option<u32>, String);

/// The programs on an interface's hooks in the order in which a packet reaches them, and apart from them the
/// filters that a killed agent of ours left.
fn on_hooks(info: &InterfaceInfo) -> (Vec<OnHook>, Vec<ClsactFilter>) {
    let stale = clsact::stale(info.index);
    let xdp = info.xdp.map(|xdp| (Some(xdp.id), format!("{} on XDP ({})", program(xdp.id), xdp.mode.name())));
    let tc = [Direction::Ingress, Direction::Egress].into_iter().flat_map(|way| {
        let chain = tcx_chain(info.index, way).unwrap_or_default().into_iter();
        let tcx = chain.map(move |id| (Some(id), format!("{} on tcx {way}", program(id))));
        tcx.chain(on_clsact(info.index, way, &stale))
    });
    (xdp.into_iter().chain(tc).collect(), stale)
}

fn on_clsact(index: u32, way: Direction, stale: &[ClsactFilter]) -> Vec<OnHook> {
    let filters = clsact::filters(index, way).unwrap_or_default();
    let others = filters.into_iter().filter(|f| f.handle != 0 && !stale.contains(f));
    let mut on: Vec<_> = others.map(|f| (f.program, format!("{f} on clsact {way}"))).collect();
    // The kernel lists one filter of kind u32 as several nodes.
    on.dedup();
    on
}

fn describe((id, text): OnHook, owners: &BTreeMap<u32, Vec<String>>) -> String {
    match id.and_then(|id| owners.get(&id)) {
        Some(owners) => format!("{text}, held by {}", owners.join(", ")),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use aya::programs::{Xdp, XdpMode};
    use handshake_agent::attach::interface::{XdpMode as HolderMode, XdpProgram};
    use handshake_agent::attach::loaded;
    use handshake_agent::attach::testing::{in_namespace, killed, run as command, theirs};

    use super::*;

    const ALL: u64 = u64::MAX;

    fn capabilities(mask: u64) -> Capabilities {
        Capabilities::parse(&format!("CapEff:\t{mask:016x}\n"), "0 0 4294967295\n")
    }

    fn free(bytes: u64) -> Free {
        Free { bytes, whose: "here".to_owned() }
    }

    fn confined(uid: u32) -> Confined {
        Confined { uid, keeps_net_admin: false, landlock: Some(7), seccomp: Ok(()) }
    }

    fn there(is_whole: bool, has_numbers: bool) -> Means {
        Means::There { folder: "/sys/fs/cgroup".to_owned(), is_whole, has_numbers }
    }

    fn machine(change: impl FnOnce(&mut MachineFacts)) -> MachineFacts {
        let mut machine = MachineFacts {
            release: "6.12.0-18-amd64".into(),
            realtime: false,
            architecture: "x86_64",
            no_cpus: None,
            btf: Some(true),
            capabilities: capabilities(ALL),
            jit: Some(true),
            stats: false,
            confined: Ok(confined(65_534)),
            processes: there(true, true),
            peak: 200 << 20,
            free: Some(free(1 << 30)),
        };
        change(&mut machine);
        machine
    }

    fn nic(change: impl FnOnce(&mut InterfaceFacts)) -> InterfaceFacts {
        let info = InterfaceInfo {
            name: "eth0".into(),
            index: 2,
            arphrd: 1,
            mtu: 1500,
            is_up: true,
            has_carrier: true,
            operstate: "up",
            driver: Some("ice".into()),
            xdp_features: Some(1 | RX_SG),
            ..InterfaceInfo::default()
        };
        let (others, stale) = (Vec::new(), Vec::new());
        let mut interface = InterfaceFacts { info, tcx: Some(true), others, stale, ingress_qdisc: false };
        change(&mut interface);
        interface
    }

    /// Compares the exit code and, of each finding that is not ok, a part of its text and a part of its fix.
    fn assert_judged(findings: &[Finding], exit: u8, expected: &[(&str, &str)]) {
        assert_eq!(exit_code(findings), exit, "{findings:?}");
        let bad: Vec<_> = findings.iter().filter(|finding| finding.level != Level::Ok).collect();
        assert_eq!(bad.len(), expected.len(), "{bad:?}");
        for (finding, (text, fix)) in bad.iter().zip(expected) {
            assert!(finding.text.contains(text), "{finding:?}");
            assert!(finding.fix.as_deref().unwrap_or_default().contains(fix), "{finding:?}");
        }
    }

    #[test]
    fn each_fault_of_a_machine_has_its_finding() {
        type Bad = &'static [(&'static str, &'static str)];
        let table: [(MachineFacts, u8, Bad); 22] = [
            (machine(|_| {}), 0, &[]),
            (machine(|m| m.architecture = "aarch64"), 0, &[]),
            (machine(|m| m.architecture = "riscv64"), 0, &[("not proven on riscv64", "--experimental")]),
            (machine(|m| m.realtime = true), 4, &[("PREEMPT_RT", "without PREEMPT_RT")]),
            (machine(|m| m.release = "5.15.0".into()), 4, &[("tried; XDP programs", "boot Linux 6.1")]),
            (machine(|m| m.release = "6.0.19".into()), 4, &[("older than 6.1", "boot Linux 6.1")]),
            (machine(|m| m.release = "10.0.0".into()), 0, &[]),
            (machine(|m| m.btf = Some(false)), 0, &[("/sys/kernel/btf/vmlinux", "CONFIG_DEBUG_INFO_BTF")]),
            (machine(|m| m.btf = None), 0, &[]),
            (machine(|m| m.no_cpus = Some("no CPUs".into())), 4, &[("no CPUs", "")]),
            (machine(|m| m.jit = Some(false)), 0, &[("interpreted", "bpf_jit_enable=1")]),
            (machine(|m| m.confined = Ok(confined(0))), 0, &[("stays user 0: without CAP_SETUID", "")]),
            (machine(|m| m.confined = Err("no".into())), 4, &[("no", "--keep-privileges")]),
            (machine(|m| m.processes = Means::NoTree("none".into())), 0, &[("none", "mount -t cgroup2")]),
            (machine(|m| m.processes = Means::Refused("no".into())), 0, &[("no", "CONFIG_CGROUP_BPF")]),
            (machine(|m| m.processes = Means::Alone), 0, &[("lets none beside it", "take that off")]),
            (machine(|m| m.processes = there(false, true)), 0, &[("this container", "cgroup namespace")]),
            (machine(|m| m.processes = there(true, false)), 0, &[("of its own", "PID namespace")]),
            (machine(|m| m.stats = true), 0, &[("statistics", "bpf_stats_enabled=0")]),
            (
                machine(|m| m.free = Some(free(100 << 20))),
                4,
                &[("200 MiB at its peak, but only 100 MiB are free here", "--max-flows")],
            ),
            (
                machine(|m| {
                    m.capabilities = capabilities(0);
                    m.processes = Means::Refused("may not ask".into());
                }),
                5,
                &[("CAP_BPF, CAP_PERFMON, CAP_NET_ADMIN", "setcap cap_bpf")],
            ),
            (
                machine(|m| m.capabilities = capabilities(1 << 39 | 1 << 38 | 1 << 12)),
                0,
                &[("CAP_NET_RAW", "cap_net_raw"), ("CAP_SYS_ADMIN", "sudo"), ("CAP_SYS_PTRACE", "sudo")],
            ),
        ];
        for (machine, exit, expected) in table {
            assert_judged(&judge_machine(&machine), exit, expected);
        }
    }

    #[test]
    fn a_missing_permission_outranks_an_old_kernel() {
        let machine = machine(|m| {
            m.release = "5.10".into();
            m.capabilities = capabilities(0);
        });
        assert_eq!(exit_code(&judge_machine(&machine)), 5);
    }

    #[test]
    fn each_fault_of_an_interface_has_its_finding() {
        let old = |i: &mut InterfaceFacts| {
            i.tcx = Some(false);
            i.info.xdp_features = None;
        };
        let table: [(InterfaceFacts, &[(&str, &str)]); 11] = [
            (nic(|_| {}), &[]),
            (nic(|i| i.info.is_up = false), &[("eth0 is down", "ip link set eth0 up")]),
            (nic(|i| i.info.has_carrier = false), &[("no carrier", "other end")]),
            (nic(|i| i.info.xdp_features = Some(0)), &[("ice has no native XDP", "")]),
            (nic(old), &[("no TCX", "6.6")]),
            (
                nic(|i| {
                    old(i);
                    i.info.driver = Some("e1000e".into());
                }),
                &[("e1000e has no native XDP", ""), ("no TCX", "6.6")],
            ),
            (nic(|i| i.info.mtu = 9000), &[]),
            (
                nic(|i| {
                    i.info.mtu = 9000;
                    i.info.driver = Some("virtio_net".into());
                }),
                &[],
            ),
            (
                nic(|i| {
                    i.info.mtu = 9000;
                    i.info.driver = Some("virtio_net".into());
                    i.info.xdp_features = Some(1);
                }),
                &[("MTU 9000", "ip link set eth0 mtu 3498")],
            ),
            // `watch` takes TC here, whatever the MTU.
            (
                nic(|i| {
                    i.info.mtu = 9000;
                    i.info.xdp_features = Some(1);
                }),
                &[],
            ),
            (nic(|i| i.tcx = None), &[]),
        ];
        for (interface, expected) in table {
            assert_judged(&judge_interface(&interface), 0, expected);
        }
    }

    /// An `ingress` qdisc is in the way where clsact is needed, and worth a word where it may be asked for.
    #[test]
    fn an_ingress_qdisc_is_a_fault_where_clsact_is_needed() {
        type Case = (Option<bool>, fn(&mut InterfaceFacts), bool);
        let is_loopback = |i: &mut InterfaceFacts| (i.info.is_loopback, i.info.is_virtual) = (true, true);
        let has_generic_xdp =
            |i: &mut InterfaceFacts| i.info.xdp = Some(XdpProgram { mode: HolderMode::Generic, id: 7 });
        let cases: [Case; 6] = [
            (Some(true), |_| {}, false),
            (None, |_| {}, false),
            // Its egress.
            (Some(false), |_| {}, true),
            (Some(false), has_generic_xdp, true),
            (Some(false), is_loopback, true),
            (Some(true), is_loopback, false),
        ];
        for (tcx, change, is_blocked) in cases {
            let interface = nic(|i| {
                (i.tcx, i.ingress_qdisc) = (tcx, true);
                change(i);
            });
            let findings = judge_interface(&interface);
            let found: Vec<&Finding> =
                findings.iter().filter(|finding| finding.text.contains("`ingress` qdisc")).collect();
            let [found] = found.as_slice() else { panic!("{findings:?}") };
            assert_eq!((found.level == Level::Fail, exit_code(&findings) == 4), (is_blocked, is_blocked));
            let fix = found.fix.as_deref().unwrap_or_default();
            assert_eq!(fix.contains("tc qdisc del dev eth0 ingress"), is_blocked, "{fix}");
            assert!(!fix.contains("--hook tcx"), "there is none: {fix}");
            let chooses = findings.iter().any(|finding| finding.text.contains("watch attaches ingress by"));
            assert_eq!(chooses, !is_blocked && tcx.is_some(), "{findings:?}");
        }
    }

    #[test]
    fn what_native_xdp_does_is_shown_with_its_source() {
        let driven = |driver: &str, features| {
            native_xdp(
                &nic(|i| {
                    i.info.driver = Some(driver.into());
                    i.info.xdp_features = features;
                })
                .info,
            )
            .text
        };
        let table = [
            (
                driven("ice", Some(1)),
                "eth0 (ice): native XDP sets up the device's queues anew, and takes its link down for that time: only by --hook xdp-native (drivers/net/ethernet/intel/ice/ice_main.c: ice_xdp_setup_prog, ice_down)",
            ),
            (
                driven("virtio_net", None),
                "eth0 (virtio_net): native XDP turns off the offloads that merge packets, while it is attached (drivers/net/virtio_net.c: virtnet_xdp_set, virtnet_clear_guest_offloads)",
            ),
            (
                driven("new", Some(1)),
                "eth0 (new): what native XDP does to a device of this driver is not known: only by --hook xdp-native",
            ),
            (
                driven("new", None),
                "eth0: new has no native XDP: TC is used instead, at a higher cost per packet",
            ),
            (
                native_xdp(
                    &nic(|i| {
                        i.info.is_virtual = true;
                        i.info.driver = Some("veth".into());
                    })
                    .info,
                )
                .text,
                "eth0 (veth): native XDP turns off the offloads that merge packets, while it is attached: only by --hook xdp-native (drivers/net/veth.c: veth_xdp_set)",
            ),
        ];
        for (shown, expected) in table {
            assert_eq!(shown, expected);
        }
    }

    #[test]
    fn the_hooks_that_watch_would_choose_are_shown() {
        let text = |interface| would_choose(&interface).map(|finding| finding.text).unwrap_or_default();
        assert!(
            text(nic(|i| i.info.driver = Some("sfc".into())))
                .contains("ingress by xdp-native: the device has hardware behind it; egress: tcx")
        );
        assert!(
            text(nic(|_| {})).contains("ingress by tcx: native XDP sets up the device's queues anew"),
            "{}",
            text(nic(|_| {}))
        );
        assert!(text(nic(|i| i.info.is_loopback = true)).ends_with("egress: none needed"));
        assert_eq!(text(nic(|i| i.tcx = None)), "");
    }

    #[test]
    fn a_finding_is_one_line_and_its_fix_another() {
        let findings = [Finding::ok("fine"), Finding::bad(Level::Fail, "broken", "repair it")];
        let mut out = Vec::new();
        print(&findings, &mut out).expect("memory takes all");
        assert_eq!(String::from_utf8_lossy(&out), "ok    fine\nFAIL  broken\n      fix: repair it\n");
    }

    #[test]
    fn a_real_interface_with_another_program_and_a_stale_filter() {
        in_namespace(|| {
            let mut bpf = theirs();
            let program: &mut Xdp = loaded(&mut bpf, "their_xdp").expect("it loads");
            program.attach("hs-a", XdpMode::Skb).expect("the hook is free");
            killed("hs-a");
            command("ip link set hs-b down");
            command("tc qdisc add dev hs-b ingress");

            let mut out = Vec::new();
            let findings = judge(&["hs-a".to_owned()]).expect("hs-a exists");
            print(&findings, &mut out).expect("memory takes all");
            let report = String::from_utf8_lossy(&out).into_owned();
            assert_eq!(exit_code(&findings), 0, "{report}");
            for part in [
                "ok    Linux 6.",
                "ok    after attaching, handshake keeps: user 65534, no capability, no_new_privs, ",
                "ok    hs-a: driver veth, virtual, MTU 1500",
                "warn  hs-a has no carrier",
                "on XDP (generic), held by ",
                &format!("(pid {})", std::process::id()),
                "warn  hs-a: the ingress filter of an agent that was killed",
                "warn  hs-a: the egress filter of an agent that was killed",
                "watch attaches ingress by ",
            ] {
                assert!(report.contains(part), "no {part:?} in\n{report}");
            }
            assert!(!report.contains("on clsact") && !report.contains("`ingress` qdisc"), "{report}");
            let findings = judge(&["hs-b".to_owned()]).expect("hs-b exists");
            assert!(findings.iter().any(|finding| finding.text.contains("`ingress` qdisc")), "{findings:?}");
        });
    }

    #[test]
    fn an_unknown_interface_is_refused() {
        let error = judge(&["hs-none".to_owned()]).expect_err("there is none");
        assert!(matches!(error, Error::UnknownInterface { .. }));
    }
}
