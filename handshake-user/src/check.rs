//! The parts of `handshake check`: expectations and their judgement, the command under check, and the
//! kernel's own counters. `command/check.rs` runs a check; `report` shows its result.

mod error;
mod evaluate;
mod expression;
mod kernel;
pub(crate) mod list;
mod process;
#[cfg(test)]
mod tests;

pub(crate) use error::CheckError;
pub(crate) use evaluate::{Judged, JudgedWindow, Judgement, Reason};
pub(crate) use expression::{
    Expectation, ExpressionTerm, Figure, Fraction, Operation, ParseError, ValueKind, name,
};
pub(crate) use kernel::{Addresses, KernelCounter, NetAccount, NetCounters, NetFiles};
pub(crate) use process::{CommandUnderCheck, Running, Status};

/// The result of a check.
pub(crate) struct Checked<'a> {
    /// The snapshots that were judged.
    pub(crate) window: JudgedWindow,
    /// The judged expectations, in order.
    pub(crate) judged: Vec<Judged<'a>>,
    /// The command, if there was one.
    pub(crate) command: Option<Ended>,
    /// The kernel's own counters, if they count the same traffic.
    pub(crate) account: Option<NetAccount>,
}

/// A command that has ended.
pub(crate) struct Ended {
    /// The command and its arguments.
    pub(crate) words: Vec<String>,
    /// How it ended; `None` if it was stopped with the whole check.
    pub(crate) status: Option<Status>,
    /// Whether it ran longer than `--for`.
    pub(crate) stopped: bool,
    /// Whether it ran as root without capabilities, which may be why it failed.
    pub(crate) stripped: bool,
}

impl Ended {
    /// The message for a failed command.
    pub(crate) fn failure(&self) -> Option<String> {
        let name = self.words.first().map_or("", String::as_str);
        let how = match self.status? {
            _ if self.stopped => "ran longer than --for and was stopped".to_owned(),
            Status::Exited(0) => return None,
            Status::Exited(code) => format!("failed with status {code}"),
            Status::Killed(signal) => format!("was killed by signal {signal}"),
        };
        let hint = if self.stripped && !self.stopped { process::AS_ROOT } else { "" };
        Some(format!("the command {name} {how}{hint}"))
    }
}
