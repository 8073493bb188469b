//! Why attaching or reading failed. Each message is one line that names the fix; the kernel's own words are kept beside
//! it. Exit codes are the command's business.

mod live;

use handshake_capture::Error as CaptureError;

use crate::hook::{Direction, Hook};

pub use live::LiveError;

/// Why attaching or reading failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// More interfaces than the records can tell apart.
    #[error(
        "{given} interfaces, and one agent watches {most} at most: name fewer with -i, or start a second agent"
    )]
    TooManyInterfaces {
        /// How many were asked for.
        given: usize,
        /// [`MAX_INTERFACES`](handshake_common::abi::MAX_INTERFACES).
        most: usize,
    },
    /// A name that no interface of this network namespace has.
    #[error("no interface {name}; there are: {}", .close.join(", "))]
    UnknownInterface {
        /// The name as it was given.
        name: String,
        /// Interfaces there are, the closest name first.
        close: Vec<String>,
    },
    /// No `-i`, and no default route to choose an interface by.
    #[error("no default route to choose an interface by: name one with -i; there are: {}", .0.join(", "))]
    NoDefaultRoute(Vec<String>),
    /// A hook asked for by name that cannot be had.
    #[error("{interface}: {hook} {problem}: {fix}")]
    Hook {
        /// Where.
        interface: String,
        /// Which.
        hook: Hook,
        /// Why not.
        problem: String,
        /// What to do about it.
        fix: String,
        /// What the kernel said, when it was asked.
        kernel: Option<String>,
    },
    /// Every hook of a direction was tried, and none could be had.
    #[error("{interface}: no hook for {direction}: `handshake doctor -i {interface}` says what is missing")]
    NoHook {
        /// Where.
        interface: String,
        /// The direction without a hook.
        direction: Direction,
        /// What the kernel said to each.
        kernel: String,
    },
    /// The kernel refused a program.
    #[error(
        "the kernel refused to load {program}: `handshake doctor` says what this machine lacks, -v what the kernel said"
    )]
    Load {
        /// The program's name in the object.
        program: String,
        /// What the kernel said, the verifier's log included.
        kernel: String,
    },
    /// Capabilities are missing.
    #[error("missing {}: {fix}", .missing.join(", "))]
    Permission {
        /// What is missing, by name.
        missing: Vec<String>,
        /// The command that gives it.
        fix: String,
        /// What the kernel said, when it was asked.
        kernel: Option<String>,
    },
    /// An interface went away while it was watched.
    #[error("{0} is gone: the report above is its last")]
    LostInterface(String),
    /// The kernel side could not be set up or read.
    #[error(transparent)]
    Live(#[from] LiveError),
    /// A capture could not be read.
    #[error(transparent)]
    Capture(#[from] CaptureError),
    /// More was asked for than the engine has room for, or the system gives no random numbers.
    #[error("{0}")]
    Settings(std::io::Error),
    /// The kernel did not answer a question that it should.
    #[error("cannot {what}: {source}")]
    System {
        /// What was tried.
        what: String,
        /// What came back.
        source: std::io::Error,
    },
}

impl Error {
    /// What the kernel said, for `-v`.
    pub fn kernel_words(&self) -> Option<&str> {
        match self {
            Self::Hook { kernel, .. } | Self::Permission { kernel, .. } => kernel.as_deref(),
            Self::NoHook { kernel, .. } | Self::Load { kernel, .. } => Some(kernel),
            Self::Live(error) => error.kernel_words(),
            Self::TooManyInterfaces { .. }
            | Self::UnknownInterface { .. }
            | Self::NoDefaultRoute(_)
            | Self::LostInterface(_)
            | Self::Capture(_)
            | Self::Settings(_)
            | Self::System { .. } => None,
        }
    }

    /// For `map_err`: an I/O error with what was tried, in lower case: `list the interfaces`.
    pub fn system(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::System { what: what.into(), source }
    }
}
