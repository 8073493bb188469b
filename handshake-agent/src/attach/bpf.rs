//! Links of programs to hooks, and questions about programs that are already attached. aya opens a descriptor
//! of every program it lists, which takes CAP_SYS_ADMIN. This module reads the ids first, and the names only
//! where permitted. aya keeps the descriptors of its links to itself, and knows no expected revision of a TCX
//! chain; both are needed to find out whether a program is still where it was attached.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd as _, FromRawFd as _, OwnedFd, RawFd};
use std::path::Path;

use crate::hook::Direction;

/// Commands of bpf(2), `enum bpf_cmd`.
const PROG_GET_FD_BY_ID: i32 = 13;
const OBJ_GET_INFO_BY_FD: i32 = 15;
const PROG_QUERY: i32 = 16;
const LINK_CREATE: i32 = 28;
/// `BPF_XDP` of `enum bpf_attach_type`.
const XDP: u32 = 37;
/// `BPF_TCX_INGRESS` and `BPF_TCX_EGRESS` of `enum bpf_attach_type`.
const TCX_INGRESS: u32 = 46;
const TCX_EGRESS: u32 = 47;
/// `BPF_MPROG_MAX`: the most programs in one chain.
const CHAIN: usize = 64;
/// The place of the name in `struct bpf_prog_info`, bytes.
const INFO_NAME: std::ops::Range<usize> = 64..80;
/// The bytes requested of `struct bpf_prog_info`: up to the end of the name.
const INFO_BYTES: usize = 80;
/// The bytes requested of `struct bpf_link_info`: up to `xdp.ifindex`, which is also `tcx.ifindex`.
const LINK_INFO_BYTES: usize = 20;
/// The place of that index, bytes.
const LINK_INFO_INDEX: usize = 16;
/// `BPF_F_BEFORE`, without a program to be before: at the head of the chain.
const BEFORE: u32 = 1 << 3;

/// A loaded program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProgramName {
    /// Its id in the kernel; 0 if an XDP hook has one program per mode.
    pub id: u32,
    /// Its name, at most 15 bytes. `None` without CAP_SYS_ADMIN, which reading it takes.
    pub name: Option<String>,
}

impl std::fmt::Display for ProgramName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.name {
            Some(name) => write!(f, "{name} (id {})", self.id),
            // An XDP hook with one program per mode reports no id.
            None if self.id == 0 => f.write_str("several programs"),
            None => write!(f, "program id {}", self.id),
        }
    }
}

/// The program with this id, with its name if that may be read.
pub fn program(id: u32) -> ProgramName {
    ProgramName { id, name: program_name(id).ok().filter(|name| !name.is_empty()) }
}

/// The head of `union bpf_attr` for `BPF_PROG_QUERY`.
#[repr(C)]
#[derive(Default)]
struct Query {
    target_ifindex: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    prog_ids: u64,
    count: u32,
    reserved: u32,
    prog_attach_flags: u64,
    link_ids: u64,
    link_attach_flags: u64,
    revision: u64,
}

/// The head of `union bpf_attr` for `BPF_PROG_GET_FD_BY_ID`.
#[repr(C)]
#[derive(Default)]
struct GetByIdAttr {
    id: u32,
    next_id: u32,
    open_flags: u32,
}

/// The head of `union bpf_attr` for `BPF_OBJ_GET_INFO_BY_FD`.
#[repr(C)]
#[derive(Default)]
struct GetInfoAttr {
    fd: u32,
    length: u32,
    info: u64,
}

/// The attributes of `BPF_LINK_CREATE`, up to `tcx.expected_revision`. For XDP the last three are 0.
#[repr(C)]
#[derive(Default)]
struct CreateLink {
    prog_fd: u32,
    target_ifindex: u32,
    attach_type: u32,
    flags: u32,
    relative_fd: u32,
    reserved: u32,
    expected_revision: u64,
}

/// Puts a program at the head of a TCX chain until the link is closed. The chain must have this revision,
/// unless that is 0. Takes no privilege.
///
/// # Errors
///
/// `ESTALE`: the chain has another revision; `EEXIST`: it has this one, and the program is in it; `ENODEV`.
pub(super) fn link_tcx(
    program: &OwnedFd,
    index: u32,
    direction: Direction,
    revision: u64,
) -> io::Result<OwnedFd> {
    create_link(CreateLink {
        prog_fd: program.as_raw_fd().cast_unsigned(),
        target_ifindex: index,
        attach_type: tcx(direction),
        flags: BEFORE,
        expected_revision: revision,
        ..CreateLink::default()
    })
}

/// Puts a program on an XDP hook until the link is closed. `flags` are `XDP_FLAGS_*`. Takes no privilege.
///
/// # Errors
///
/// `EBUSY` or `EEXIST`: the hook is taken; what the driver refuses.
pub(super) fn link_xdp(program: &OwnedFd, index: u32, flags: u32) -> io::Result<OwnedFd> {
    create_link(CreateLink {
        prog_fd: program.as_raw_fd().cast_unsigned(),
        target_ifindex: index,
        attach_type: XDP,
        flags,
        ..CreateLink::default()
    })
}

fn create_link(mut attributes: CreateLink) -> io::Result<OwnedFd> {
    // SAFETY: the structure holds no pointers.
    let fd = unsafe { bpf(LINK_CREATE, &mut attributes) }?;
    // SAFETY: the kernel has just created this descriptor, and nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The index of the interface that a link of XDP or TCX is on; 0 if it was detached or the interface is gone.
/// Takes no privilege.
pub(super) fn interface_of(link: &impl AsFd) -> io::Result<u32> {
    let mut info = [0_u8; LINK_INFO_BYTES];
    info_of(link, &mut info)?;
    crate::netlink::u32_at(&info, LINK_INFO_INDEX).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// Fills `info` with the first bytes of the kernel's information about a program or a link.
fn info_of(object: &impl AsFd, info: &mut [u8]) -> io::Result<()> {
    let length = u32::try_from(info.len()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    let fd = object.as_fd().as_raw_fd().cast_unsigned();
    let mut get = GetInfoAttr { fd, length, info: info.as_mut_ptr() as u64 };
    // SAFETY: `info` has room for `length` bytes and outlives the call; the kernel writes no more than that.
    unsafe { bpf(OBJ_GET_INFO_BY_FD, &mut get) }.map(|_| ())
}

const fn tcx(direction: Direction) -> u32 {
    match direction {
        Direction::Ingress => TCX_INGRESS,
        Direction::Egress => TCX_EGRESS,
    }
}

/// The programs of a TCX chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TcxChain {
    /// Their ids, in the order they run.
    pub(super) ids: Vec<u32>,
    /// Rises with every change.
    pub(super) revision: u64,
}

/// The ids of the programs of a TCX chain, in the order they run. Fails with `EINVAL` if the kernel has no
/// TCX (before 6.6).
pub fn tcx_chain(index: u32, direction: Direction) -> io::Result<Vec<u32>> {
    query_tcx(index, direction).map(|chain| chain.ids)
}

/// A TCX chain with its revision. Takes CAP_NET_ADMIN.
pub(super) fn query_tcx(index: u32, direction: Direction) -> io::Result<TcxChain> {
    let mut ids = [0_u32; CHAIN];
    let mut query = Query {
        target_ifindex: index,
        attach_type: tcx(direction),
        prog_ids: ids.as_mut_ptr() as u64,
        count: 64,
        ..Query::default()
    };
    // SAFETY: `prog_ids` points to `ids`, which has room for `count` words and outlives the call.
    unsafe { bpf(PROG_QUERY, &mut query) }?;
    let ids = ids.into_iter().take(query.count as usize).collect();
    Ok(TcxChain { ids, revision: query.revision })
}

/// The programs that run where a socket is made in a control group, without those of its parents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SocketChain {
    programs: u32,
    flags: u32,
}

impl SocketChain {
    /// Whether a program is there that lets no other beside it.
    #[must_use]
    pub const fn is_alone(self) -> bool {
        /// `BPF_F_ALLOW_MULTI`.
        const SEVERAL: u32 = 1 << 1;
        self.programs > 0 && self.flags & SEVERAL == 0
    }
}

/// Asks for them. Takes CAP_NET_ADMIN.
///
/// # Errors
///
/// EINVAL of a kernel without such programs.
pub fn sock_create_chain(group: RawFd) -> io::Result<SocketChain> {
    /// `BPF_CGROUP_INET_SOCK_CREATE`.
    const SOCK_CREATE: u32 = 2;
    let group = u32::try_from(group).map_err(io::Error::other)?;
    let mut query = Query { target_ifindex: group, attach_type: SOCK_CREATE, ..Query::default() };
    // SAFETY: without room for ids the kernel writes none.
    unsafe { bpf(PROG_QUERY, &mut query) }?;
    Ok(SocketChain { programs: query.count, flags: query.attach_flags })
}

/// Whether this kernel has TCX. Fails if the query is not permitted.
pub fn has_tcx(index: u32) -> io::Result<bool> {
    match tcx_chain(index, Direction::Ingress) {
        Ok(_) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(false),
        Err(error) => Err(error),
    }
}

fn program_name(id: u32) -> io::Result<String> {
    let mut by_id = GetByIdAttr { id, ..GetByIdAttr::default() };
    // SAFETY: the structure holds no pointers.
    let fd = unsafe { bpf(PROG_GET_FD_BY_ID, &mut by_id) }?;
    // SAFETY: the kernel has just created this descriptor, and nothing else owns it.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    let mut info = [0_u8; INFO_BYTES];
    info_of(&fd, &mut info)?;
    Ok(crate::netlink::text(&info[INFO_NAME]))
}

/// Calls bpf(2) with the first part of its attributes; the rest counts as zero.
///
/// # Safety
///
/// Pointers inside `attributes` must be valid for what `command` does with them.
unsafe fn bpf<T>(command: i32, attributes: &mut T) -> io::Result<i32> {
    // SAFETY: `attributes` is borrowed for the call and its size is given; the caller guarantees the pointers
    // inside it.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut *attributes, size_of::<T>()) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    i32::try_from(result).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))
}

/// The owners of these programs: for each id, `comm (pid)` of every process that holds a descriptor of the
/// program or of a link to it. Left out are processes that may not be inspected, and programs held only by a
/// pin or a qdisc.
pub fn owners(ids: &[u32]) -> BTreeMap<u32, Vec<String>> {
    let mut found: BTreeMap<u32, Vec<String>> = BTreeMap::new();
    if ids.is_empty() {
        return found;
    }
    for process in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let path = process.path();
        let held = programs_of(&path);
        let ids: BTreeSet<&u32> = ids.iter().filter(|id| held.contains(id)).collect();
        for id in ids {
            let comm = fs::read_to_string(path.join("comm")).unwrap_or_default();
            let owner = format!("{} (pid {})", comm.trim_end(), process.file_name().to_string_lossy());
            found.entry(*id).or_default().push(owner);
        }
    }
    found
}

/// The ids of the programs of which a process holds descriptors.
fn programs_of(process: &Path) -> Vec<u32> {
    let descriptors = fs::read_dir(process.join("fd")).into_iter().flatten().flatten();
    let bpf = descriptors
        .filter(|fd| fs::read_link(fd.path()).is_ok_and(|to| to.to_string_lossy().contains("bpf")));
    bpf.filter_map(|fd| fs::read_to_string(process.join("fdinfo").join(fd.file_name())).ok())
        .filter_map(|info| info.lines().find_map(|line| line.strip_prefix("prog_id:")?.trim().parse().ok()))
        .collect()
}
