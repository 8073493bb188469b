//! What can go wrong between the object and a running source, by who must act.

use std::io;

use aya::EbpfError;
use aya::maps::MapError;
use aya::programs::ProgramError;

/// Why the kernel side could not be set up or read. Each message is one line that names the fix.
#[derive(Debug, thiserror::Error)]
pub enum LiveError {
    /// The object does not carry this agent's layout.
    #[error(
        "the BPF object is of another build (its record layout is {}, the agent's {expected:#018x}): run `cargo xtask build-ebpf`, then build again",
        layout_name(*found)
    )]
    OtherBuild {
        /// What the object says; `None` when it says nothing.
        found: Option<u64>,
        /// [`LAYOUT`](handshake_common::abi::LAYOUT).
        expected: u64,
    },
    /// More was asked for than the kernel side has room for, or there is no randomness.
    #[error("{0}")]
    Settings(io::Error),
    /// The file is no BPF object, or one without the parts that the agent needs.
    #[error("the BPF object is damaged ({0}): run `cargo xtask build-ebpf`, then build again")]
    Damaged(String),
    /// The kernel wants a capability.
    #[error(
        "not permitted to {what}: run as root, or give the binary its capabilities (sudo setcap cap_bpf,cap_perfmon,cap_net_admin+ep handshake)"
    )]
    Permission {
        /// What was tried.
        what: String,
    },
    /// The tables do not fit.
    #[error(
        "no memory to {what} ({} MiB in all): ask for less with --max-flows, or raise the memory limit of this control group",
        bytes.div_ceil(1 << 20)
    )]
    Memory {
        /// What was tried.
        what: String,
        /// What all maps take.
        bytes: u64,
    },
    /// The kernel refused for another reason: most of all, it is too old or has no BTF.
    #[error(
        "the kernel refuses to {what} ({source}): handshake needs Linux 6.1 or newer with CONFIG_DEBUG_INFO_BTF, `handshake doctor` says what is missing"
    )]
    Kernel {
        /// What was tried.
        what: String,
        /// What came back.
        source: io::Error,
        /// The verifier's log, or what else the kernel said.
        log: String,
    },
    /// The counters would not hold still.
    #[error(
        "the counters of CPU {cpu} changed during each of {readings} readings: the machine is overloaded, use a longer --interval"
    )]
    Unsettled {
        /// The first CPU whose block was torn every time.
        cpu: usize,
        /// How often it was read.
        readings: u32,
    },
    /// The sums of the CPUs' gauges stayed below zero.
    #[error(
        "the counters' sums were negative in each of {readings} readings: the machine is overloaded, use a longer --interval"
    )]
    Negative {
        /// How often they were read.
        readings: u32,
    },
}

impl LiveError {
    /// What the kernel said, for `-v`.
    pub fn kernel_words(&self) -> Option<&str> {
        match self {
            Self::Kernel { log, .. } => Some(log).filter(|log| !log.is_empty()).map(String::as_str),
            Self::OtherBuild { .. }
            | Self::Settings(_)
            | Self::Damaged(_)
            | Self::Permission { .. }
            | Self::Memory { .. }
            | Self::Unsettled { .. }
            | Self::Negative { .. } => None,
        }
    }

    /// An errno of the kernel, while trying to `what`.
    pub(crate) fn from_io(what: impl Into<String>, source: io::Error, log: String, bytes: u64) -> Self {
        let what = what.into();
        match source.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) if log.is_empty() => Self::Permission { what },
            Some(libc::ENOMEM | libc::E2BIG) if log.is_empty() => Self::Memory { what, bytes },
            _ => Self::Kernel { what, source, log },
        }
    }

    /// A failure to create or fill the maps, which take `bytes` in all.
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

    /// A failure to create, read or write a map.
    pub(crate) fn from_map(what: impl Into<String>, error: MapError, bytes: u64) -> Self {
        match io_error(&error) {
            Some(code) => Self::from_io(what, io::Error::from_raw_os_error(code), String::new(), bytes),
            None => Self::Damaged(format!("{}: {}", what.into(), chain(&error))),
        }
    }

    /// A failure to load or run the program `name`. The verifier refuses with EACCES and EINVAL and a log;
    /// a missing capability has no log.
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

fn layout_name(found: Option<u64>) -> String {
    found.map_or_else(|| "not given".to_owned(), |layout| format!("{layout:#018x}"))
}

/// The errno at the bottom of an error of aya.
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
    fn an_errno_becomes_who_must_act() {
        assert!(matches!(map_error(libc::EPERM), LiveError::Permission { .. }));
        let memory = map_error(libc::ENOMEM);
        assert!(matches!(memory, LiveError::Memory { .. }));
        assert!(memory.to_string().contains("40 MiB") && memory.to_string().contains("--max-flows"));
        assert!(map_error(libc::EINVAL).to_string().contains("6.1 or newer"));
    }

    /// The verifier says EACCES for a bad access: that is no missing capability.
    #[test]
    fn a_verifier_log_is_kept_and_is_no_permission() {
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
