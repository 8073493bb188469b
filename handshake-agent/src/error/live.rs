//! The errors between the BPF object and a running source, one variant per remedy.

use std::fs;
use std::io;

use aya::EbpfError;
use aya::maps::MapError;
use aya::programs::ProgramError;

/// Why the kernel side could not be set up or read. Each message is one line that names the fix.
#[derive(Debug, thiserror::Error)]
pub enum LiveError {
    /// The object has another record layout than this agent.
    #[error(
        "the BPF object is from another build (its record layout is {}, the agent's {expected:#018x}): run `cargo xtask build-ebpf`, then build again",
        layout_name(*found)
    )]
    OtherBuild {
        /// The object's layout; `None` if it has none.
        found: Option<u64>,
        /// The agent's layout, [`LAYOUT`](handshake_common::abi::LAYOUT).
        expected: u64,
    },
    /// The settings exceed what the kernel side has room for, or the system provides no random numbers.
    #[error("{0}")]
    Settings(io::Error),
    /// The file is not a BPF object, or lacks parts that the agent needs. Holds the fault.
    #[error("the BPF object is damaged ({0}): run `cargo xtask build-ebpf`, then build again")]
    Damaged(String),
    /// A capability is missing.
    #[error(
        "not permitted to {what}: run as root, or give the binary its capabilities (sudo setcap cap_bpf,cap_perfmon,cap_net_admin+ep handshake)"
    )]
    Permission {
        /// The operation, in lower case: `create the maps`.
        what: String,
    },
    /// A filter of system calls refuses bpf(2), as the default one of container engines does.
    #[error(
        "a seccomp profile refuses bpf() to {what}: in a container, --security-opt seccomp=handshake-seccomp.json, which `handshake generate seccomp` prints; in a systemd unit, SystemCallFilter=bpf"
    )]
    Seccomp {
        /// The operation, in lower case: `create the maps`.
        what: String,
    },
    /// The number of CPUs is not known.
    #[error(
        "cannot read how many CPUs this machine has ({problem}): mount /sys (mount -t sysfs sysfs /sys), or bind it into the container"
    )]
    Cpus {
        /// The path, and what is wrong with it.
        problem: String,
    },
    /// There is no memory for the maps.
    #[error(
        "no memory to {what} ({} MiB in all): ask for less with --max-flows, or raise the memory limit of this control group",
        bytes.div_ceil(1 << 20)
    )]
    Memory {
        /// The operation, in lower case: `create the maps`.
        what: String,
        /// The size of all maps, bytes.
        bytes: u64,
    },
    /// The kernel lacked something for a moment: a descriptor, memory, time. The next attempt may succeed.
    #[error("cannot {what}: {source}")]
    Passing {
        /// The operation, in lower case: `read COUNTERS`.
        what: String,
        /// The error that it returned.
        source: io::Error,
    },
    /// The kernel refused for another reason. The usual ones: it is too old, or has no BTF.
    #[error(
        "the kernel refuses to {what} ({source}): handshake needs Linux 6.1 or newer with CONFIG_DEBUG_INFO_BTF, `handshake doctor` says what is missing"
    )]
    Kernel {
        /// The operation, in lower case: `create the maps`.
        what: String,
        /// The error that it returned.
        source: io::Error,
        /// The verifier's log, or other words of the kernel; may be empty.
        log: String,
    },
    /// There is no class block or no row for one more interface.
    #[error("as many interfaces are watched as one agent can")]
    NoRoom,
    /// The counters of a CPU changed during every reading.
    #[error(
        "the counters of CPU {cpu} changed during each of {readings} readings: the machine is overloaded, use a longer --interval"
    )]
    Unsettled {
        /// The first CPU whose block was torn in every reading.
        cpu: usize,
        /// The number of readings.
        readings: u32,
    },
    /// The sum of a gauge over the CPUs was negative in every reading.
    #[error(
        "the counters' sums were negative in each of {readings} readings: the machine is overloaded, use a longer --interval"
    )]
    Negative {
        /// The number of readings.
        readings: u32,
    },
}

impl LiveError {
    /// The kernel's own words, which `-v` shows.
    pub fn kernel_words(&self) -> Option<&str> {
        match self {
            Self::Kernel { log, .. } => Some(log).filter(|log| !log.is_empty()).map(String::as_str),
            Self::OtherBuild { .. }
            | Self::Settings(_)
            | Self::Damaged(_)
            | Self::Permission { .. }
            | Self::Seccomp { .. }
            | Self::Cpus { .. }
            | Self::Memory { .. }
            | Self::Passing { .. }
            | Self::NoRoom
            | Self::Unsettled { .. }
            | Self::Negative { .. } => None,
        }
    }

    /// Whether the next reading may succeed although this one did not.
    #[must_use]
    pub const fn is_passing(&self) -> bool {
        match self {
            Self::Passing { .. } | Self::Unsettled { .. } | Self::Negative { .. } => true,
            Self::OtherBuild { .. }
            | Self::Settings(_)
            | Self::Damaged(_)
            | Self::Permission { .. }
            | Self::Seccomp { .. }
            | Self::Cpus { .. }
            | Self::Memory { .. }
            | Self::NoRoom
            | Self::Kernel { .. } => false,
        }
    }

    /// The error for an errno that the kernel returned for the operation `what`. `bytes` is what it was to
    /// allocate; a reading allocates nothing that an option makes smaller, and `bytes` is 0.
    pub(crate) fn from_io(what: impl Into<String>, source: io::Error, log: String, bytes: u64) -> Self {
        let what = what.into();
        match source.raw_os_error() {
            Some(libc::EPERM | libc::EACCES | libc::ENOSYS) if log.is_empty() && is_bpf_filtered() => {
                Self::Seccomp { what }
            }
            Some(libc::EPERM | libc::EACCES) if log.is_empty() => Self::Permission { what },
            Some(libc::ENOMEM | libc::E2BIG) if log.is_empty() && bytes > 0 => Self::Memory { what, bytes },
            _ if passes(&source) && log.is_empty() => Self::Passing { what, source },
            _ => Self::Kernel { what, source, log },
        }
    }

    /// The error for a failure to create or fill the maps, which take `bytes` in all.
    pub(crate) fn from_load(error: EbpfError, bytes: u64) -> Self {
        match error {
            EbpfError::MapError(error) => Self::from_map("create the maps", error, bytes),
            EbpfError::ProgramError(error) => Self::from_program("its programs", error, bytes),
            EbpfError::FileError { path, error } => {
                Self::from_io(format!("read {}", path.display()), error, String::new(), bytes)
            }
            error @ (EbpfError::UnexpectedPinningType { .. }
            | EbpfError::ParseError(_)
            | EbpfError::BtfError(_)
            | EbpfError::RelocationError(_)
            | EbpfError::BtfRelocationError(_)
            | EbpfError::NoBTF) => Self::Damaged(chain(&error)),
        }
    }

    /// The error for a failure to create, read or write a map.
    pub(crate) fn from_map(what: impl Into<String>, error: MapError, bytes: u64) -> Self {
        match io_error(&error) {
            Some(code) => Self::from_io(what, io::Error::from_raw_os_error(code), String::new(), bytes),
            None => Self::Damaged(format!("{}: {}", what.into(), chain(&error))),
        }
    }

    /// The error for a failure to load or run the program `name`. When the verifier refuses a program, the
    /// errno is EACCES or EINVAL and there is a log; when a capability is missing, there is no log.
    pub fn from_program(name: &str, error: ProgramError, bytes: u64) -> Self {
        if let ProgramError::LoadError { io_error, verifier_log } = error {
            return Self::from_io(format!("load {name}"), io_error, verifier_log.to_string(), bytes);
        }
        match io_error(&error) {
            Some(code) => {
                let error = io::Error::from_raw_os_error(code);
                Self::from_io(format!("run {name}"), error, String::new(), bytes)
            }
            None => Self::Damaged(format!("{name}: {}", chain(&error))),
        }
    }
}

/// Whether a filter of system calls refuses bpf(2). There is one: mode 2 of proc_pid_status(5). And it does:
/// the kernel itself answers a command that it does not know with EINVAL (`__sys_bpf` in
/// kernel/bpf/syscall.c).
pub(crate) fn is_bpf_filtered() -> bool {
    const UNKNOWN: libc::c_int = libc::c_int::MAX;
    // SAFETY: no memory is passed: the attributes have no size.
    let answer = unsafe { libc::syscall(libc::SYS_bpf, UNKNOWN, std::ptr::null::<u8>(), 0) };
    let is_refused = answer < 0 && io::Error::last_os_error().raw_os_error() != Some(libc::EINVAL);
    let status = fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
    is_refused
        && status.lines().any(|line| line.strip_prefix("Seccomp:").is_some_and(|mode| mode.trim() == "2"))
}

/// Whether the system lacked something for a moment: descriptors, memory or time. The next call may succeed.
#[must_use]
pub fn passes(error: &io::Error) -> bool {
    let passing = [libc::EMFILE, libc::ENFILE, libc::EAGAIN, libc::ENOMEM, libc::ENOBUFS, libc::EINTR];
    error.raw_os_error().is_some_and(|errno| passing.contains(&errno))
}

fn layout_name(found: Option<u64>) -> String {
    found.map_or_else(|| "not given".to_owned(), |layout| format!("{layout:#018x}"))
}

/// The errno at the end of an aya error's chain of causes.
fn io_error(error: &(dyn std::error::Error + 'static)) -> Option<i32> {
    std::iter::successors(Some(error), |error| error.source())
        .find_map(|error| error.downcast_ref::<io::Error>()?.raw_os_error())
}

/// An error and its causes on one line.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut parts: Vec<String> = Vec::new();
    for error in std::iter::successors(Some(error), |error| error.source()) {
        let words = error.to_string();
        // aya repeats the cause in some messages.
        if !parts.iter().any(|part| part.contains(&words)) {
            parts.push(words);
        }
    }
    parts.join(": ")
}

#[cfg(test)]
mod tests {
    use std::io;

    use aya::maps::MapError;

    use super::LiveError;

    fn map_error(errno: i32) -> LiveError {
        let error = MapError::CreateError {
            name: "FLOWS4".to_owned(),
            io_error: io::Error::from_raw_os_error(errno),
        };
        LiveError::from_map("create FLOWS4", error, 40 << 20)
    }

    #[test]
    fn the_errno_decides_the_variant() {
        assert!(matches!(map_error(libc::EPERM), LiveError::Permission { .. }));
        let memory = map_error(libc::ENOMEM);
        assert!(matches!(memory, LiveError::Memory { .. }));
        assert!(memory.to_string().contains("40 MiB") && memory.to_string().contains("--max-flows"));
        assert!(map_error(libc::EINVAL).to_string().contains("6.1 or newer"));
    }

    #[test]
    fn what_one_reading_lacked_passes() {
        for errno in [libc::EMFILE, libc::ENFILE, libc::EAGAIN, libc::ENOMEM, libc::EINTR] {
            let error = MapError::SyscallError(aya::sys::SyscallError {
                call: "bpf_map_lookup_elem",
                io_error: io::Error::from_raw_os_error(errno),
            });
            let error = LiveError::from_map("read COUNTERS", error, 0);
            assert!(error.is_passing(), "{error}");
            assert!(error.to_string().starts_with("cannot read COUNTERS: "), "{error}");
        }
        assert!(!map_error(libc::ENOMEM).is_passing() && !map_error(libc::EPERM).is_passing());
    }

    /// The verifier returns EACCES for a bad memory access; that is not a missing capability.
    #[test]
    fn an_eacces_with_a_verifier_log_is_not_a_permission_error() {
        let refused = LiveError::from_io(
            "load handshake_xdp",
            io::Error::from_raw_os_error(libc::EACCES),
            "R1 invalid mem access\nprocessed 3 insns".to_owned(),
            0,
        );
        assert!(matches!(refused, LiveError::Kernel { .. }));
        assert!(refused.kernel_words().is_some_and(|words| words.starts_with("R1 invalid")));
        assert!(!refused.to_string().contains('\n'), "one line");
    }
}
