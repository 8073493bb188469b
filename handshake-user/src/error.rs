//! What can go wrong, by who must act. Each message is one line that names the fix; what the kernel said is kept beside
//! it and shown with `-v`.

use crate::attach::{Hook, Way};
use crate::check::Wrong;

/// An error that ends the command.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
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
    #[error("{interface}: no hook for {way}: `handshake doctor -i {interface}` says what is missing")]
    NoHook {
        /// Where.
        interface: String,
        /// Which way.
        way: Way,
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
    /// An expectation that cannot be read.
    #[error("{0}")]
    Expectation(Wrong),
    /// A command to be checked that cannot be run.
    #[error("command {name}: {problem}")]
    Command {
        /// Its first word.
        name: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A file for the report that cannot be written.
    #[error("--report {path}: {source}")]
    ReportFile {
        /// As it was given.
        path: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// An interface went away while it was watched.
    #[error("{0} is gone: the report above is its last")]
    LostInterface(String),
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
    /// The exit code of DESIGN.md: 2 usage, 4 cannot load or attach, 5 permission.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::TooManyInterfaces { .. }
            | Self::Expectation(_)
            | Self::Command { .. }
            | Self::ReportFile { .. } => 2,
            Self::UnknownInterface { .. }
            | Self::NoDefaultRoute(_)
            | Self::Hook { .. }
            | Self::NoHook { .. }
            | Self::LostInterface(_)
            | Self::Load { .. } => 4,
            Self::Permission { .. } => 5,
            Self::System { source, .. } => {
                if source.kind() == std::io::ErrorKind::PermissionDenied {
                    5
                } else {
                    4
                }
            }
        }
    }

    /// What the kernel said, for `-v`.
    pub(crate) fn kernel_words(&self) -> Option<&str> {
        match self {
            Self::Hook { kernel, .. } | Self::Permission { kernel, .. } => kernel.as_deref(),
            Self::NoHook { kernel, .. } | Self::Load { kernel, .. } => Some(kernel),
            Self::TooManyInterfaces { .. }
            | Self::UnknownInterface { .. }
            | Self::NoDefaultRoute(_)
            | Self::Expectation(_)
            | Self::Command { .. }
            | Self::ReportFile { .. }
            | Self::LostInterface(_)
            | Self::System { .. } => None,
        }
    }

    /// For `map_err`: an I/O error with what was tried, in lower case: `list the interfaces`.
    pub(crate) fn system(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::System { what: what.into(), source }
    }
}
