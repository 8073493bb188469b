//! What `handshake check` judges: expectations and their value, the command under check, and the kernel's own account.
//! `command/check.rs` runs it; `report` shows what was found.

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
pub(crate) use kernel::{Addresses, KernelCounter, NetAccount, NetCounters};
pub(crate) use process::{CommandUnderCheck, Running, Status};

/// What a check found.
pub(crate) struct Checked<'a> {
    /// What was measured.
    pub(crate) window: JudgedWindow,
    /// The expectations, in their order.
    pub(crate) judged: Vec<Judged<'a>>,
    /// The command's end.
    pub(crate) command: Option<Ended>,
    /// The kernel's own account, where it tells of the same traffic.
    pub(crate) account: Option<NetAccount>,
}

/// A command that has ended.
pub(crate) struct Ended {
    /// Its words.
    pub(crate) words: Vec<String>,
    /// How it ended; `None` when it was stopped with the whole check.
    pub(crate) status: Option<Status>,
    /// It ran longer than `--for`.
    pub(crate) stopped: bool,
    /// Root without capabilities may be why it failed.
    pub(crate) stripped: bool,
}

impl Ended {
    /// What is to be said of a command that failed.
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
