//! Errors of a check: faults found before anything is measured, and refusals of the system.

use handshake_agent::Error as AgentError;
use handshake_agent::error::passes;

use super::ParseError;

/// An error of a check.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CheckError {
    /// An expectation is invalid.
    #[error("{0}")]
    Expectation(ParseError),
    /// A file of expectations cannot be read.
    #[error("--expect-file {path}: {source}")]
    ExpectFile {
        /// Its path as given.
        path: String,
        /// The system's error.
        source: std::io::Error,
    },
    /// A file of expectations is wrong.
    #[error("{path}, line {line}: {problem}")]
    Gate {
        /// Its path as given.
        path: String,
        /// The line, counted from 1.
        line: usize,
        /// The fault.
        problem: String,
    },
    /// A report that was written cannot be read.
    #[error("{path}: {source}")]
    Saved {
        /// Its path as given.
        path: String,
        /// The system's error, or the fault.
        source: std::io::Error,
    },
    /// There is nothing to wait for.
    #[error("check needs a command after --, or a time to observe with --for")]
    NoEnd,
    /// The command under check cannot be run.
    #[error("command {name}: {problem}")]
    Command {
        /// The command's first word.
        name: String,
        /// The fault: `not found`.
        problem: String,
    },
    /// A privilege is missing.
    #[error(transparent)]
    Agent(#[from] AgentError),
    /// A system call failed.
    #[error("cannot {what}: {source}")]
    System {
        /// The failed action, in lower case: `read the addresses`.
        what: String,
        /// The system's error.
        source: std::io::Error,
    },
}

impl CheckError {
    /// Whether the next attempt may succeed.
    pub(crate) fn is_passing(&self) -> bool {
        match self {
            Self::Agent(error) => error.is_passing(),
            Self::System { source, .. } => passes(source),
            Self::Expectation(_)
            | Self::ExpectFile { .. }
            | Self::Gate { .. }
            | Self::Saved { .. }
            | Self::NoEnd
            | Self::Command { .. } => false,
        }
    }

    /// Maps an I/O error, for `map_err`. `what` is the failed action in lower case: `read the addresses`.
    pub(crate) fn system(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::System { what: what.into(), source }
    }
}
