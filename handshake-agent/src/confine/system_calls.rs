//! The system calls of a running agent. Any other gives EPERM, as does one of these with other arguments than
//! those below: no program is started, no file is opened for writing, no memory becomes code, no socket but
//! netlink's and Unix's is made, and bpf(2) loads nothing. A thread that connects makes sockets of TCP, one that asks
//! name servers those of UDP; either makes no others, and has no bpf(2).

use std::collections::BTreeMap;

use libc::c_long;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch, apply_filter,
};

use super::{Confinement, Network};

/// Those that every architecture has, whatever their arguments.
const CALLS: &[c_long] = &[
    libc::SYS_bind,
    libc::SYS_brk,
    libc::SYS_clock_getres,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_clone,
    libc::SYS_clone3,
    libc::SYS_close,
    libc::SYS_close_range,
    libc::SYS_dup,
    libc::SYS_dup3,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_eventfd2,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_fcntl,
    libc::SYS_fstat,
    libc::SYS_fsync,
    libc::SYS_futex,
    libc::SYS_getegid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getpid,
    libc::SYS_getrandom,
    libc::SYS_getsockname,
    libc::SYS_getsockopt,
    libc::SYS_gettid,
    libc::SYS_gettimeofday,
    libc::SYS_getuid,
    libc::SYS_lseek,
    libc::SYS_madvise,
    libc::SYS_membarrier,
    libc::SYS_mremap,
    libc::SYS_munmap,
    libc::SYS_nanosleep,
    libc::SYS_newfstatat,
    libc::SYS_pipe2,
    libc::SYS_ppoll,
    libc::SYS_pread64,
    libc::SYS_pselect6,
    libc::SYS_read,
    libc::SYS_readlinkat,
    libc::SYS_readv,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_restart_syscall,
    libc::SYS_rseq,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_yield,
    libc::SYS_sendmsg,
    libc::SYS_sendto,
    libc::SYS_set_robust_list,
    libc::SYS_setsockopt,
    libc::SYS_shutdown,
    libc::SYS_sigaltstack,
    libc::SYS_statx,
    libc::SYS_tgkill,
    libc::SYS_uname,
    libc::SYS_write,
    libc::SYS_writev,
];

/// Older forms of the same, which newer architectures lack.
#[cfg(target_arch = "x86_64")]
const OLDER: &[c_long] = &[libc::SYS_epoll_wait, libc::SYS_fork, libc::SYS_poll, libc::SYS_readlink];
#[cfg(not(target_arch = "x86_64"))]
const OLDER: &[c_long] = &[];

/// Those whose first argument decides.
const BY_FIRST: &[(c_long, &[u64])] =
    &[(libc::SYS_prctl, &[libc::PR_SET_NAME as u64]), (libc::SYS_socketpair, &[libc::AF_UNIX as u64])];

/// The same of a thread that reads figures and accepts connections.
const BY_FIRST_HERE: &[(c_long, &[u64])] = &[
    (libc::SYS_bpf, &[MAP_LOOKUP, MAP_UPDATE, MAP_DELETE, MAP_NEXT, TEST_RUN, INFO, QUERY, LINK_CREATE]),
    (libc::SYS_socket, &[libc::AF_UNIX as u64, libc::AF_NETLINK as u64]),
];

/// Commands of bpf(2), `enum bpf_cmd`.
const MAP_LOOKUP: u64 = 1;
const MAP_UPDATE: u64 = 2;
const MAP_DELETE: u64 = 3;
const MAP_NEXT: u64 = 4;
const TEST_RUN: u64 = 10;
const INFO: u64 = 15;
const QUERY: u64 = 16;
const LINK_CREATE: u64 = 28;

/// Requests of ioctl(2): those of a terminal's settings and size, and a driver's name. Not `TIOCSTI`, by
/// which a terminal's reader would take what it is given for what its user types.
const REQUESTS: &[u64] = &[
    libc::FIONBIO,
    libc::FIOCLEX,
    libc::SIOCETHTOOL,
    libc::TCGETS,
    libc::TCSETS,
    libc::TCSETSF,
    libc::TCSETSW,
    TCGETS2,
    TCSETS2,
    TCSETSW2,
    TCSETSF2,
    libc::TIOCGWINSZ,
];

/// `_IOR('T', 0x2a, struct termios2)` and its siblings in asm-generic/ioctls.h.
const TCGETS2: u64 = 0x802c_542a;
const TCSETS2: u64 = 0x402c_542b;
const TCSETSW2: u64 = 0x402c_542c;
const TCSETSF2: u64 = 0x402c_542d;

/// Those where no bit of a mask may be set: the number, the argument's place, and the mask.
const WITHOUT: &[(c_long, u8, u64)] = &[
    (libc::SYS_mmap, 2, libc::PROT_EXEC as u64),
    (libc::SYS_mprotect, 2, libc::PROT_EXEC as u64),
    (libc::SYS_openat, 2, (libc::O_ACCMODE | libc::O_CREAT | libc::O_TRUNC) as u64),
];

/// That of a thread which serves what connects to a socket that listens already.
const ACCEPTING: &[c_long] = &[libc::SYS_accept4];
/// That of a thread which finds the owners of control groups: it lists folders.
const LISTING: &[c_long] = &[libc::SYS_getdents64];
/// That of a thread which connects: of UDP the kernel then takes answers from the server alone.
const CONNECTING: &[c_long] = &[libc::SYS_connect];
/// The families of its sockets.
const FAMILIES: [i32; 2] = [libc::AF_INET, libc::AF_INET6];
/// The part of a socket's type that is no flag.
const TYPE: u64 = 0xf;

/// Filters the system calls of this thread; if not, says why not.
pub(super) fn filter(confinement: &Confinement) -> Result<(), String> {
    let program = program(confinement).map_err(|error| error.to_string())?;
    apply_filter(&program).map_err(|error| error.to_string())
}

fn program(confinement: &Confinement) -> Result<BpfProgram, seccompiler::BackendError> {
    let (of_network, by_first_too, sockets) = match confinement.network {
        Network::Nothing => (&[][..], BY_FIRST_HERE, None),
        Network::Accepts => (ACCEPTING, BY_FIRST_HERE, None),
        Network::Connects(_) => (CONNECTING, &[][..], Some(libc::SOCK_STREAM)),
        Network::Resolves => (CONNECTING, &[][..], Some(libc::SOCK_DGRAM)),
    };
    let listing = LISTING.iter().filter(|_| confinement.reads_owners);
    let any = CALLS.iter().chain(OLDER).chain(of_network).chain(listing);
    let any = any.map(|call| Ok((*call, Vec::new())));
    let by_first = BY_FIRST.iter().chain(by_first_too);
    let by_first = by_first.map(|(call, values)| Ok((*call, one_of(0, values)?)));
    let sockets = sockets.map(|kind| Ok((libc::SYS_socket, internet_sockets(kind)?)));
    let ioctl = std::iter::once_with(|| Ok((libc::SYS_ioctl, one_of(1, REQUESTS)?)));
    let without = WITHOUT
        .iter()
        .map(|(call, place, mask)| Ok((*call, vec![rule(*place, SeccompCmpOp::MaskedEq(*mask), 0)?])));
    let rules: BTreeMap<c_long, Vec<SeccompRule>> = any
        .chain(by_first)
        .chain(sockets)
        .chain(ioctl)
        .chain(without)
        .collect::<Result<_, seccompiler::BackendError>>()?;
    let denied = SeccompAction::Errno(libc::EPERM.cast_unsigned());
    let architecture = TargetArch::try_from(std::env::consts::ARCH)?;
    SeccompFilter::new(rules, denied, SeccompAction::Allow, architecture)?.try_into()
}

/// Sockets of IP that have this type.
fn internet_sockets(kind: i32) -> Result<Vec<SeccompRule>, seccompiler::BackendError> {
    let rule = |family: i32| {
        let family = condition(0, SeccompCmpOp::Eq, u64::from(family.cast_unsigned()))?;
        let kind = condition(1, SeccompCmpOp::MaskedEq(TYPE), u64::from(kind.cast_unsigned()))?;
        SeccompRule::new(vec![family, kind])
    };
    FAMILIES.into_iter().map(rule).collect()
}

/// One rule for each value that an argument may have.
fn one_of(place: u8, values: &[u64]) -> Result<Vec<SeccompRule>, seccompiler::BackendError> {
    values.iter().map(|value| rule(place, SeccompCmpOp::Eq, *value)).collect()
}

/// Allows a call where its argument at `place`, an `int` to the kernel, compares with `value`.
fn rule(place: u8, how: SeccompCmpOp, value: u64) -> Result<SeccompRule, seccompiler::BackendError> {
    SeccompRule::new(vec![condition(place, how, value)?])
}

fn condition(
    place: u8,
    how: SeccompCmpOp,
    value: u64,
) -> Result<SeccompCondition, seccompiler::BackendError> {
    SeccompCondition::new(place, SeccompCmpArgLen::Dword, how, value)
}
