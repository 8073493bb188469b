//! What can be wrong with a check before anything is measured, and what the system refuses meanwhile.

use handshake_agent::Error as AgentError;

use super::ParseError;

/// Why a check cannot be run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CheckError {
    /// An expectation that cannot be read.
    #[error("{0}")]
    Expectation(ParseError),
    /// A command to be checked that cannot be run.
    #[error("command {name}: {problem}")]
    Command {
        /// Its first word.
        name: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A privilege is missing.
    #[error(transparent)]
    Agent(#[from] AgentError),
    /// The system did not answer, or refused.
    #[error("cannot {what}: {source}")]
    System {
        /// What was tried.
        what: String,
        /// What came back.
        source: std::io::Error,
    },
}

impl CheckError {
    /// For `map_err`: an I/O error with what was tried, in lower case: `read the addresses`.
    pub(crate) fn system(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::System { what: what.into(), source }
    }
}
