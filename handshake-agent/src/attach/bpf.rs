//! Asks the kernel about BPF programs that are already attached. aya opens a descriptor of every program it
//! lists, which takes CAP_SYS_ADMIN. This module reads the ids first, and the names only where permitted.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::path::Path;

use super::Direction;

/// Commands of bpf(2), `enum bpf_cmd`.
const PROG_GET_FD_BY_ID: i32 = 13;
const OBJ_GET_INFO_BY_FD: i32 = 15;
const PROG_QUERY: i32 = 16;
/// `BPF_TCX_INGRESS` and `BPF_TCX_EGRESS` of `enum bpf_attach_type`.
const TCX_INGRESS: u32 = 46;
const TCX_EGRESS: u32 = 47;
/// `BPF_MPROG_MAX`: the most programs in one chain.
const CHAIN: usize = 64;
/// The place of the name in `struct bpf_prog_info`, bytes.
const INFO_NAME: std::ops::Range<usize> = 64..80;
/// The bytes requested of `struct bpf_prog_info`: up to the end of the name.
const INFO_BYTES: usize = 80;

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

/// The ids of the programs of a TCX chain, in the order they run. Fails with `EINVAL` if the kernel has no
/// TCX (before 6.6).
pub fn tcx_chain(index: u32, direction: Direction) -> io::Result<Vec<u32>> {
    let mut ids = [0_u32; CHAIN];
    let mut query = Query {
        target_ifindex: index,
        attach_type: match direction {
            Direction::Ingress => TCX_INGRESS,
            Direction::Egress => TCX_EGRESS,
        },
        prog_ids: ids.as_mut_ptr() as u64,
        count: 64,
        ..Query::default()
    };
    // SAFETY: `prog_ids` points to `ids`, which has room for `count` words and outlives the call.
    unsafe { bpf(PROG_QUERY, &mut query) }?;
    Ok(ids.into_iter().take(query.count as usize).collect())
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
    let mut get =
        GetInfoAttr { fd: fd.as_raw_fd().cast_unsigned(), length: 80, info: info.as_mut_ptr() as u64 };
    // SAFETY: `info` has room for `length` bytes and outlives the call; the kernel writes no more than that.
    unsafe { bpf(OBJ_GET_INFO_BY_FD, &mut get) }?;
    Ok(super::netlink::text(&info[INFO_NAME]))
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
        for id in ids.iter().filter(|id| held.contains(id)) {
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
