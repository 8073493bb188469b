//! The errors that end a command, and their exit codes, which say who must act. Each message is one line that
//! names the fix.

use handshake_agent::error::{Error as AgentError, LiveError};

use crate::check::CheckError;

/// A fault in the file, with its line.
#[derive(Debug, thiserror::Error)]
#[error("{path}, line {line}: {problem}")]
pub(crate) struct ConfigFault {
    /// The file.
    pub(crate) path: String,
    /// The line.
    pub(crate) line: usize,
    /// What is wrong there.
    pub(crate) problem: String,
}

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    /// The file cannot be read.
    #[error("--config {path}: {source}")]
    File {
        /// The file.
        path: String,
        /// The system's error.
        source: std::io::Error,
    },
    /// The file has a fault.
    #[error(transparent)]
    Fault(#[from] ConfigFault),
    /// What the file and the options say together.
    #[error("{path}: {problem}")]
    Together {
        /// The file.
        path: String,
        /// What is wrong.
        problem: String,
    },
    /// A variable of OpenTelemetry's has a fault.
    #[error("{0}")]
    Variable(String),
}

/// An error that ends the command.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CommandError {
    /// Attaching or reading the counters failed.
    #[error(transparent)]
    Agent(#[from] AgentError),
    /// The check cannot be run.
    #[error(transparent)]
    Check(#[from] CheckError),
    /// Two accounts cannot be joined.
    #[error(transparent)]
    Join(#[from] handshake_join::JoinError),
    /// The file of `--config` cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// `--tui` without a terminal.
    #[error("--tui needs a terminal as stdin and stdout, and TERM other than dumb")]
    NoTerminal,
    /// The file of `--report`, `--junit` or `--metrics-file` cannot be written, and nothing was attached.
    #[error("{option} {path}: {source}")]
    ReportFile {
        /// The option.
        option: &'static str,
        /// The path as given on the command line.
        path: String,
        /// The system's error.
        source: std::io::Error,
    },
    /// A recording cannot be read.
    #[error("recording {path}: {source}")]
    Recording {
        /// The path as given on the command line.
        path: String,
        /// The system's error, or what is wrong with it.
        source: std::io::Error,
    },
    /// An option is for recordings, and there is none.
    #[error("{0}")]
    NoRecording(String),
    /// The report or the terminal cannot be written, as when a disk is full.
    #[error("cannot {what}: {source}")]
    Output {
        /// The failed action, in lower case: `write the report`.
        what: String,
        /// The system's error.
        source: std::io::Error,
    },
}

impl From<handshake_capture::CaptureError> for CommandError {
    fn from(error: handshake_capture::CaptureError) -> Self {
        Self::Agent(error.into())
    }
}

impl CommandError {
    /// The exit code: 2 for usage or input, 4 for what cannot be loaded, attached or written, 5 for a missing
    /// permission.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Agent(error) => agent_code(error),
            Self::Check(error) => check_code(error),
            Self::Join(error) if error.is_out_of_memory() => 4,
            Self::Join(_)
            | Self::Config(_)
            | Self::ReportFile { .. }
            | Self::NoTerminal
            | Self::NoRecording(_)
            | Self::Recording { .. } => 2,
            Self::Output { .. } => 4,
        }
    }

    /// The kernel's own message, shown with `-v`.
    pub(crate) fn kernel_words(&self) -> Option<&str> {
        match self {
            Self::Agent(error) => error.kernel_words(),
            Self::Check(_)
            | Self::Join(_)
            | Self::Config(_)
            | Self::NoTerminal
            | Self::NoRecording(_)
            | Self::Recording { .. }
            | Self::ReportFile { .. }
            | Self::Output { .. } => None,
        }
    }

    /// Maps an I/O error, for `map_err`. `what` is the failed action in lower case: `write the report`.
    pub(crate) fn output(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::Output { what: what.into(), source }
    }
}

fn agent_code(error: &AgentError) -> u8 {
    match error {
        AgentError::Capture(error) if error.is_out_of_memory() => 4,
        AgentError::Capture(_) | AgentError::Settings(_) => 2,
        AgentError::NoInterface { .. }
        | AgentError::UnknownInterface { .. }
        | AgentError::NoDefaultRoute(_)
        | AgentError::Hook { .. }
        | AgentError::NoHook { .. }
        | AgentError::Memory { .. }
        | AgentError::LostInterface(_)
        | AgentError::Load { .. } => 4,
        AgentError::Permission { .. } => 5,
        AgentError::Live(error) => live_code(error),
        AgentError::System { source, .. } => system_code(source),
    }
}

fn check_code(error: &CheckError) -> u8 {
    match error {
        CheckError::Expectation(_)
        | CheckError::ExpectFile { .. }
        | CheckError::Gate { .. }
        | CheckError::Saved { .. }
        | CheckError::NoEnd
        | CheckError::Command { .. } => 2,
        CheckError::Agent(error) => agent_code(error),
        CheckError::System { source, .. } => system_code(source),
    }
}

fn system_code(source: &std::io::Error) -> u8 {
    if source.kind() == std::io::ErrorKind::PermissionDenied { 5 } else { 4 }
}

const fn live_code(error: &LiveError) -> u8 {
    match error {
        LiveError::Settings(_) => 2,
        LiveError::Permission { .. } | LiveError::Seccomp { .. } => 5,
        LiveError::OtherBuild { .. }
        | LiveError::Damaged(_)
        | LiveError::Cpus { .. }
        | LiveError::Memory { .. }
        | LiveError::Kernel { .. }
        | LiveError::Passing { .. }
        | LiveError::NoRoom
        | LiveError::Unsettled { .. }
        | LiveError::Negative { .. } => 4,
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn the_exit_code_says_who_must_act() {
        let system =
            |kind: io::ErrorKind| AgentError::System { what: "look".to_owned(), source: kind.into() };
        let table: [(CommandError, u8); 8] = [
            (AgentError::NoInterface { words: "veth*".to_owned(), there: Vec::new() }.into(), 4),
            (AgentError::NoDefaultRoute(Vec::new()).into(), 4),
            (AgentError::LostInterface("eth0".to_owned()).into(), 4),
            (AgentError::Live(LiveError::Permission { what: "look".to_owned() }).into(), 5),
            (AgentError::Live(LiveError::Damaged(String::new())).into(), 4),
            (system(io::ErrorKind::PermissionDenied).into(), 5),
            (system(io::ErrorKind::NotFound).into(), 4),
            (CheckError::Command { name: "x".to_owned(), problem: "not found".to_owned() }.into(), 2),
        ];
        for (error, code) in table {
            assert_eq!(error.exit_code(), code, "{error}");
        }
    }
}
