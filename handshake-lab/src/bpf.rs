//! Foreign programs on the hooks that handshake uses: a few instructions each, loaded by `bpf(2)` directly,
//! so that the loader under test is not involved. Also queries which programs the kernel has attached.

mod btf;
mod code;

use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::ptr;

use anyhow::{Context, Result};

use crate::frame::interface_index;
use crate::namespace::Namespace;
pub(crate) use code::{Code, Register, When};

/// The hook of a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TestHook {
    /// XDP in the network stack, after the driver.
    XdpGeneric,
    /// XDP in the driver.
    XdpNative,
    /// TC, ingress (Linux 6.6).
    TcxIngress,
    /// TC, egress (Linux 6.6).
    TcxEgress,
}

impl TestHook {
    /// The number in `enum bpf_attach_type`.
    const fn attach_type(self) -> u32 {
        match self {
            Self::XdpGeneric | Self::XdpNative => 37,
            Self::TcxIngress => 46,
            Self::TcxEgress => 47,
        }
    }

    /// `XDP_FLAGS_SKB_MODE` or `XDP_FLAGS_DRV_MODE`; without flags a TCX program goes to the end of its
    /// chain.
    const fn link_flags(self) -> u32 {
        match self {
            Self::XdpGeneric => 1 << 1,
            Self::XdpNative => 1 << 2,
            Self::TcxIngress | Self::TcxEgress => 0,
        }
    }

    /// The number in `enum bpf_prog_type`.
    const fn program_type(self) -> u32 {
        match self {
            Self::XdpGeneric | Self::XdpNative => 6,
            Self::TcxIngress | Self::TcxEgress => 3,
        }
    }
}

/// The return value of a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunOutcome {
    /// XDP: pass to the stack (`XDP_PASS`).
    XdpPass,
    /// TC: continue with the next program (`TCX_NEXT`).
    Next,
    /// TC: accept without running the programs behind (`TC_ACT_OK`), as Cilium's programs do.
    EndsChain,
    /// TC: drop (`TC_ACT_SHOT`).
    Drop,
}

impl RunOutcome {
    const fn code(self) -> i32 {
        match self {
            Self::XdpPass | Self::Drop => 2,
            Self::Next => -1,
            Self::EndsChain => 0,
        }
    }
}

/// A small BPF program.
#[derive(Clone, Debug)]
pub struct Program {
    name: &'static str,
    code: Code,
    flags: u32,
}

impl Program {
    /// A program that only returns `outcome`.
    #[must_use]
    pub fn returning(outcome: RunOutcome) -> Self {
        Self::ending("foreign", Code::default(), outcome)
    }

    /// TC: pushes VLAN tags, the innermost first, each an ethertype (0x8100, 0x88a8) and a number, and
    /// continues with the next program. The far end's XDP hook finds the tag in the frame's bytes only with
    /// `txvlan` off.
    #[must_use]
    pub fn pushes_tags(tags: &[(u16, u16)]) -> Self {
        const SKB_VLAN_PUSH: i32 = 18;
        let mut code = Code::default();
        code.copy(6, 1);
        for (ethertype, number) in tags {
            // The helper expects the ethertype in network order.
            let wire = i32::from(ethertype.to_be());
            code.copy(1, 6).set(2, wire).set(3, i32::from(*number)).call(SKB_VLAN_PUSH);
        }
        Self::ending("push_tags", code, RunOutcome::Next)
    }

    /// TC: pops `count` VLAN tags, so that a stack without VLAN devices accepts the packet.
    #[must_use]
    pub fn pops_tags(count: usize) -> Self {
        const SKB_VLAN_POP: i32 = 19;
        let mut code = Code::default();
        code.copy(6, 1);
        for _ in 0..count {
            code.copy(1, 6).call(SKB_VLAN_POP);
        }
        Self::ending("pop_tags", code, RunOutcome::Next)
    }

    fn ending(name: &'static str, mut code: Code, outcome: RunOutcome) -> Self {
        code.set(0, outcome.code()).exit();
        Self::of(name, code)
    }

    /// A program of any code; the kernel truncates the name to 15 characters.
    pub(crate) fn of(name: &'static str, code: Code) -> Self {
        Self { name, code, flags: 0 }
    }

    /// XDP: accepts frames in fragments, like handshake's program. A tail call to such a program is possible
    /// only from another such program.
    #[must_use]
    pub fn with_frags(self) -> Self {
        const HAS_FRAGS: u32 = 1 << 5;
        Self { flags: HAS_FRAGS, ..self }
    }
}

/// A program on a hook; detached on drop.
#[derive(Debug)]
pub struct AttachedProgram {
    /// The program's ID, as `bpftool prog show` lists it.
    pub id: u32,
    link: OwnedFd,
}

impl Drop for AttachedProgram {
    /// Detaches at once instead of closing the link: a process that is being started may hold a copy of the
    /// descriptor for a moment.
    fn drop(&mut self) {
        let detached = raw(&self.link).and_then(|link| Ok(bpf(command::LINK_DETACH, &mut [link])?));
        if let Err(error) = detached {
            eprintln!("cannot detach program {}: {error:#}", self.id);
        }
    }
}

/// Loads `program` and attaches it to `device` of `namespace`.
///
/// # Errors
/// Without CAP_BPF and CAP_NET_ADMIN; also if the hook is taken or does not exist.
pub fn attach(
    namespace: &Namespace,
    device: &str,
    hook: TestHook,
    program: &Program,
) -> Result<AttachedProgram> {
    attach_with(namespace, device, hook, program, hook.link_flags())
}

/// As [`attach`], before the programs that are on a TCX hook already.
///
/// # Errors
/// Those of [`attach`].
pub fn attach_first(
    namespace: &Namespace,
    device: &str,
    hook: TestHook,
    program: &Program,
) -> Result<AttachedProgram> {
    /// `BPF_F_BEFORE`.
    const BEFORE: u32 = 1 << 3;
    attach_with(namespace, device, hook, program, hook.link_flags() | BEFORE)
}

fn attach_with(
    namespace: &Namespace,
    device: &str,
    hook: TestHook,
    program: &Program,
    flags: u32,
) -> Result<AttachedProgram> {
    let loaded = load(hook, program)?;
    let id = info(&loaded)?.id;
    namespace.enter(|| {
        let index = interface_index(device)?;
        let create = LinkCreate {
            program: raw(&loaded)?,
            target: index,
            attach_type: hook.attach_type(),
            flags,
            ..LinkCreate::default()
        };
        let what = || format!("attach {} to {device} by {hook:?}", program.name);
        let link = descriptor(command::LINK_CREATE, create).with_context(what)?;
        Ok(AttachedProgram { id, link })
    })
}

/// Loads `program` for `hook`.
pub(crate) fn load(hook: TestHook, program: &Program) -> Result<OwnedFd> {
    let mut name = [0; 16];
    name[..program.name.len()].copy_from_slice(program.name.as_bytes());
    let instructions = program.code.instructions();
    let xdp = matches!(hook, TestHook::XdpGeneric | TestHook::XdpNative);
    let functions = functions(&program.code)?;
    let types = if functions.is_empty() { None } else { Some(types()?) };
    let attributes = ProgramLoad {
        kind: hook.program_type(),
        count: u32::try_from(instructions.len())?,
        instructions: instructions.as_ptr() as u64,
        license: c"Dual MIT/GPL".as_ptr() as u64,
        name,
        flags: program.flags,
        attach_type: if xdp { hook.attach_type() } else { 0 },
        types: types.as_ref().map_or(Ok(0), raw)?,
        function_size: u32::try_from(size_of::<Function>())?,
        functions: functions.as_ptr() as u64,
        function_count: u32::try_from(functions.len())?,
        ..ProgramLoad::default()
    };
    let refusal = |error| anyhow::Error::new(error).context(verifier_log(attributes));
    descriptor(command::PROG_LOAD, attributes)
        .map_err(refusal)
        .with_context(|| format!("load {}", program.name))
}

/// The functions of a program; empty if it has only one.
fn functions(code: &Code) -> Result<Vec<Function>> {
    let function = |begin| Ok(Function { begin: u32::try_from(begin)?, kind: btf::FUNCTION });
    code.functions().into_iter().map(function).collect()
}

fn types() -> Result<OwnedFd> {
    let types = btf::types()?;
    let load = TypesLoad {
        types: types.as_ptr() as u64,
        length: u32::try_from(types.len())?,
        ..TypesLoad::default()
    };
    descriptor(command::BTF_LOAD, load).context("load the types of functions")
}

/// The verifier's log of a program that it has refused.
fn verifier_log(mut attributes: ProgramLoad) -> String {
    let mut log = vec![0_u8; 1 << 16];
    attributes.log_level = 1;
    attributes.log_size = 1 << 16;
    attributes.log = log.as_mut_ptr() as u64;
    // Loading fails again; only the log matters.
    let _refused_again = descriptor(command::PROG_LOAD, attributes);
    log.truncate(log.iter().position(|byte| *byte == 0).unwrap_or(log.len()));
    String::from_utf8_lossy(&log).into_owned()
}

/// Creates an array map of `entries` 64-bit words.
pub(crate) fn words(entries: u32) -> Result<OwnedFd> {
    const ARRAY: u32 = 2;
    let create = MapCreate { kind: ARRAY, key: 4, value: 8, entries };
    descriptor(command::MAP_CREATE, create).context("create an array of words")
}

/// Reads the word at `index` of a map made by [`words`].
pub(crate) fn word(map: &OwnedFd, index: u32) -> Result<u64> {
    let mut word = 0_u64;
    element(command::MAP_LOOKUP, map, index, ptr::from_mut(&mut word) as u64).context("read a word")?;
    Ok(word)
}

/// Reads or writes one element; `value` is the address of a buffer of the map's value size.
fn element(number: libc::c_long, map: &OwnedFd, index: u32, value: u64) -> Result<()> {
    let key = &raw const index as u64;
    bpf(number, &mut MapElement { map: raw(map)?.into(), key, value, flags: 0 })?;
    Ok(())
}

/// Runs an XDP program on `count` live frames of `frame`'s length (`BPF_F_TEST_XDP_LIVE_FRAMES`): the kernel
/// carries out what the program returns. A redirect looks up its device in the calling thread's namespace.
pub(crate) fn run_live(program: &OwnedFd, frame: &[u8], count: u32) -> Result<()> {
    const LIVE_FRAMES: u32 = 1 << 1;
    let mut run = TestRun {
        program: raw(program)?,
        size_in: u32::try_from(frame.len())?,
        data_in: frame.as_ptr() as u64,
        repeat: count,
        flags: LIVE_FRAMES,
        ..TestRun::default()
    };
    bpf(command::PROG_TEST_RUN, &mut run).context("make frames")?;
    Ok(())
}

/// Takes the program with this ID off its hook, as `bpftool link detach` does: its owner is not asked.
///
/// # Errors
/// No link holds it.
pub fn detach(program: u32) -> Result<()> {
    let link = link_of(program)?;
    bpf(command::LINK_DETACH, &mut [raw(&link)?]).with_context(|| format!("detach program {program}"))?;
    Ok(())
}

/// Finds the link that holds a program.
fn link_of(program: u32) -> Result<OwnedFd> {
    let mut id = 0;
    loop {
        let mut next = GetById { id, ..GetById::default() };
        bpf(command::LINK_GET_NEXT_ID, &mut next).with_context(|| format!("no link of program {program}"))?;
        id = next.next_id;
        // The link may be gone by now.
        let Ok(link) = descriptor(command::LINK_GET_FD_BY_ID, GetById { id, ..GetById::default() }) else {
            continue;
        };
        let mut info = LinkInfo::default();
        let mut get = GetInfo {
            descriptor: raw(&link)?,
            length: u32::try_from(size_of::<LinkInfo>())?,
            info: ptr::from_mut(&mut info) as u64,
        };
        bpf(command::OBJ_GET_INFO_BY_FD, &mut get).context("ask for a link")?;
        if info.program == program {
            return Ok(link);
        }
    }
}

/// The IDs of the programs on a TCX hook of `device`, in running order.
///
/// # Errors
/// Before Linux 6.6, or there is no such device.
pub fn chain(namespace: &Namespace, device: &str, hook: TestHook) -> Result<Vec<u32>> {
    let mut ids = [0u32; 64];
    let count = namespace.enter(|| {
        let mut query = ProgramQuery {
            target: interface_index(device)?,
            attach_type: hook.attach_type(),
            ids: ids.as_mut_ptr() as u64,
            count: u32::try_from(ids.len())?,
            ..ProgramQuery::default()
        };
        bpf(command::PROG_QUERY, &mut query).with_context(|| format!("query {hook:?} of {device}"))?;
        Ok(query.count as usize)
    })?;
    Ok(ids[..count].to_vec())
}

/// The kernel's description of a loaded program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProgramInfo {
    /// The program's ID.
    pub id: u32,
    /// The name, truncated to 15 characters by the kernel.
    pub name: String,
    /// Number of runs while a [`RunCounts`] was held.
    pub runs: u64,
    /// The time that they took, ns.
    pub run_ns: u64,
}

/// Describes the program with this ID.
///
/// # Errors
/// There is no such program.
pub fn program(id: u32) -> Result<ProgramInfo> {
    info(&open(id)?)
}

/// Opens a loaded program by its ID.
pub(crate) fn open(id: u32) -> Result<OwnedFd> {
    let by_id = GetById { id, ..GetById::default() };
    descriptor(command::PROG_GET_FD_BY_ID, by_id).with_context(|| format!("open program {id}"))
}

fn info(program: &OwnedFd) -> Result<ProgramInfo> {
    let mut info = RawInfo::default();
    let mut get = GetInfo {
        descriptor: raw(program)?,
        length: u32::try_from(size_of::<RawInfo>())?,
        info: ptr::from_mut(&mut info) as u64,
    };
    bpf(command::OBJ_GET_INFO_BY_FD, &mut get).context("ask for a program")?;
    let name = info.name.split(|byte| *byte == 0).next().unwrap_or_default();
    let name = String::from_utf8_lossy(name).into_owned();
    Ok(ProgramInfo { id: info.id, name, runs: info.runs, run_ns: info.run_time_ns })
}

/// While this is held, the kernel counts each program's runs.
#[derive(Debug)]
pub struct RunCounts {
    _held: OwnedFd,
}

impl RunCounts {
    /// Starts counting.
    ///
    /// # Errors
    /// Without CAP_SYS_ADMIN.
    pub fn hold() -> Result<Self> {
        // BPF_STATS_RUN_TIME is 0.
        Ok(Self { _held: descriptor(command::ENABLE_STATS, [0u32; 2]).context("have runs counted")? })
    }
}

/// The ID and the hook of the XDP program of `device`, by netlink (`ip link`).
///
/// # Errors
/// There is no such device.
pub fn xdp(namespace: &Namespace, device: &str) -> Result<Option<(u32, TestHook)>> {
    let text = namespace.run("ip", &["-j", "link", "show", device])?;
    let links: serde_json::Value = serde_json::from_str(&text).context("read what ip says")?;
    let xdp = &links[0]["xdp"];
    let Some(id) = xdp["prog"]["id"].as_u64() else { return Ok(None) };
    // linux/if_link.h: XDP_ATTACHED_DRV is 1, XDP_ATTACHED_SKB is 2.
    let hook = if xdp["mode"] == 1 { TestHook::XdpNative } else { TestHook::XdpGeneric };
    Ok(Some((u32::try_from(id)?, hook)))
}

/// Numbers in `enum bpf_cmd`.
mod command {
    pub(crate) const MAP_CREATE: libc::c_long = 0;
    pub(crate) const MAP_LOOKUP: libc::c_long = 1;
    pub(crate) const PROG_LOAD: libc::c_long = 5;
    pub(crate) const PROG_TEST_RUN: libc::c_long = 10;
    pub(crate) const PROG_GET_FD_BY_ID: libc::c_long = 13;
    pub(crate) const OBJ_GET_INFO_BY_FD: libc::c_long = 15;
    pub(crate) const PROG_QUERY: libc::c_long = 16;
    pub(crate) const BTF_LOAD: libc::c_long = 18;
    pub(crate) const LINK_CREATE: libc::c_long = 28;
    pub(crate) const LINK_GET_FD_BY_ID: libc::c_long = 30;
    pub(crate) const LINK_GET_NEXT_ID: libc::c_long = 31;
    pub(crate) const ENABLE_STATS: libc::c_long = 32;
    pub(crate) const LINK_DETACH: libc::c_long = 34;
}

/// The members of `union bpf_attr` for loading a program.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
struct ProgramLoad {
    kind: u32,
    count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
    interface: u32,
    attach_type: u32,
    types: u32,
    function_size: u32,
    functions: u64,
    function_count: u32,
    line_size: u32,
}

/// `struct bpf_func_info`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
struct Function {
    begin: u32,
    kind: u32,
}

#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
struct TypesLoad {
    types: u64,
    log: u64,
    length: u32,
    log_size: u32,
    log_level: u32,
    padding: u32,
}

#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
struct MapCreate {
    kind: u32,
    key: u32,
    value: u32,
    entries: u32,
}

#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
struct MapElement {
    map: u64,
    key: u64,
    value: u64,
    flags: u64,
}

#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
struct TestRun {
    program: u32,
    result: u32,
    size_in: u32,
    size_out: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
    context_size_in: u32,
    context_size_out: u32,
    context_in: u64,
    context_out: u64,
    flags: u32,
    cpu: u32,
    batch: u32,
    padding: u32,
}

#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
struct LinkCreate {
    program: u32,
    target: u32,
    attach_type: u32,
    flags: u32,
    relative: u32,
    padding: u32,
    expected_revision: u64,
}

#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
struct ProgramQuery {
    target: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    ids: u64,
    count: u32,
    padding: u32,
    attach_flags_each: u64,
    link_ids: u64,
    link_attach_flags_each: u64,
    revision: u64,
}

#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
struct GetById {
    id: u32,
    next_id: u32,
    open_flags: u32,
    padding: u32,
}

#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
struct GetInfo {
    descriptor: u32,
    length: u32,
    info: u64,
}

/// The beginning of `struct bpf_link_info`; the kernel fills as much as is requested.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
struct LinkInfo {
    kind: u32,
    id: u32,
    program: u32,
    padding: u32,
}

/// `struct bpf_prog_info`, of which three members are read. The arrays that it could fill are left null.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
struct RawInfo {
    kind: u32,
    id: u32,
    /// The members `tag` to `map_ids`.
    skipped: [u64; 7],
    name: [u8; 16],
    /// The members `ifindex` to `prog_tags`.
    skipped_too: [u64; 14],
    run_time_ns: u64,
    runs: u64,
}

/// Runs a command that returns a new descriptor.
fn descriptor<T>(number: libc::c_long, mut attributes: T) -> io::Result<OwnedFd> {
    let fd = bpf(number, &mut attributes)?;
    // SAFETY: the kernel has just returned this descriptor, so nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Calls `bpf(2)`. `attributes` is one of the types above, and its pointers are to live memory.
fn bpf<T>(number: libc::c_long, attributes: &mut T) -> io::Result<i32> {
    let size = libc::c_long::try_from(size_of::<T>()).map_err(io::Error::other)?;
    // SAFETY: `attributes` is the command's part of `union bpf_attr`, of this size; what it points to is
    // borrowed or owned by our caller for the length of the call.
    let result = unsafe { libc::syscall(libc::SYS_bpf, number, ptr::from_mut(attributes), size) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    i32::try_from(result).map_err(io::Error::other)
}

fn raw(descriptor: &impl AsRawFd) -> Result<u32> {
    u32::try_from(descriptor.as_raw_fd()).context("a descriptor")
}
