//! The errors of attaching and reading. Each message is one line that names the fix; the kernel's own words
//! are kept beside it. Exit codes are left to the command.

mod live;

use handshake_capture::CaptureError;

use crate::hook::{Direction, Hook};

pub(crate) use live::is_bpf_filtered;
pub use live::{LiveError, passes};

/// A list of names that may be long, on one line.
#[must_use]
pub fn some_of(names: &[impl AsRef<str>]) -> String {
    /// As many names as fit on a line.
    const MOST: usize = 8;
    let shown: Vec<&str> = names.iter().take(MOST).map(AsRef::as_ref).collect();
    let list = shown.join(", ");
    if names.len() > MOST { format!("{list} and {} more", names.len() - MOST) } else { list }
}

/// Why attaching or reading failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No interface is there that the names and patterns of `-i` choose, and the command needs one at its start.
    #[error("there is no interface that -i {words} names; there are: {}", some_of(.there))]
    NoInterface {
        /// The names and patterns.
        words: String,
        /// The existing interfaces.
        there: Vec<String>,
    },
    /// A name that no interface of this network namespace has.
    #[error("no interface {name}; there are: {}; --wait waits for it", .close.join(", "))]
    UnknownInterface {
        /// The requested name.
        name: String,
        /// The existing interfaces, closest name first.
        close: Vec<String>,
    },
    /// No `-i`, and no default route to choose an interface by. Holds the existing interfaces.
    #[error("no default route to choose an interface by: name one with -i; there are: {}", some_of(.0))]
    NoDefaultRoute(Vec<String>),
    /// A hook that was requested by name is unavailable.
    #[error("{interface}: {hook} {problem}: {fix}")]
    Hook {
        /// The name of the interface.
        interface: String,
        /// The requested hook.
        hook: Hook,
        /// Why it is unavailable.
        problem: String,
        /// What to do instead.
        fix: String,
        /// The kernel's own words; `None` if the kernel was not asked.
        kernel: Option<String>,
    },
    /// Every hook of a direction was tried and refused.
    #[error("{interface}: no hook for {direction}: `handshake doctor -i {interface}` says what is missing")]
    NoHook {
        /// The name of the interface.
        interface: String,
        /// The direction that has no hook.
        direction: Direction,
        /// The kernel's reason for each hook.
        kernel: String,
    },
    /// The kernel refused to load a program.
    #[error(
        "the kernel refused to load {program}: `handshake doctor` says what this machine lacks, -v what the kernel said"
    )]
    Load {
        /// The program's name in the object.
        program: String,
        /// The kernel's reason, including the verifier's log.
        kernel: String,
    },
    /// Capabilities are missing.
    #[error("missing {}: {fix}", .missing.join(", "))]
    Permission {
        /// The names of the missing capabilities.
        missing: Vec<String>,
        /// How to obtain them.
        fix: String,
        /// The kernel's own words; `None` if the kernel was not asked.
        kernel: Option<String>,
    },
    /// There is not enough memory for the run.
    #[error(
        "{} MiB of memory are needed at the peak, but only {} MiB are free {whose}: {}",
        needed.div_ceil(1 << 20),
        free >> 20,
        remedy(*fitting)
    )]
    Memory {
        /// The bytes that are needed.
        needed: u64,
        /// The bytes that are free.
        free: u64,
        /// Whose they are.
        whose: String,
        /// The largest number of flows for which they are enough, if there is one.
        fitting: Option<u32>,
    },
    /// This interface disappeared while it was watched.
    #[error("{0} is gone: the report above is its last")]
    LostInterface(String),
    /// The kernel side could not be set up or read.
    #[error(transparent)]
    Live(#[from] LiveError),
    /// A capture could not be read.
    #[error(transparent)]
    Capture(#[from] CaptureError),
    /// The settings exceed what the engine has room for, or the system provides no random numbers.
    #[error("{0}")]
    Settings(std::io::Error),
    /// A system call failed that normally succeeds.
    #[error("cannot {what}: {source}")]
    System {
        /// The operation, in lower case: `list the interfaces`.
        what: String,
        /// The error that it returned.
        source: std::io::Error,
    },
}

impl Error {
    /// The kernel's own words, which `-v` shows.
    pub fn kernel_words(&self) -> Option<&str> {
        match self {
            Self::Hook { kernel, .. } | Self::Permission { kernel, .. } => kernel.as_deref(),
            Self::NoHook { kernel, .. } | Self::Load { kernel, .. } => Some(kernel),
            Self::Live(error) => error.kernel_words(),
            Self::NoInterface { .. }
            | Self::UnknownInterface { .. }
            | Self::NoDefaultRoute(_)
            | Self::Memory { .. }
            | Self::LostInterface(_)
            | Self::Capture(_)
            | Self::Settings(_)
            | Self::System { .. } => None,
        }
    }

    /// Whether it is of one reading only, and the next may succeed.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Live(error) => error.is_passing(),
            Self::System { source, .. } => passes(source),
            Self::NoInterface { .. }
            | Self::UnknownInterface { .. }
            | Self::NoDefaultRoute(_)
            | Self::Hook { .. }
            | Self::NoHook { .. }
            | Self::Load { .. }
            | Self::Permission { .. }
            | Self::Memory { .. }
            | Self::LostInterface(_)
            | Self::Capture(_)
            | Self::Settings(_) => false,
        }
    }

    /// For `map_err`: wraps an I/O error together with the operation, in lower case: `list the interfaces`.
    pub fn system(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::System { what: what.into(), source }
    }
}

/// What to do where memory is short.
fn remedy(fitting: Option<u32>) -> String {
    let raise = "make room, or raise the limit";
    fitting.map_or_else(|| raise.to_owned(), |flows| format!("--max-flows {flows} fits, or {raise}"))
}
