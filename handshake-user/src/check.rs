//! The parts of `handshake check` and `diff`: expectations and their judgement, the command under check, the
//! kernel's own counters, and reports that were written. `command` runs them; `report` shows their result.

mod error;
mod evaluate;
mod expression;
mod figures;
mod gate;
mod kernel;
pub(crate) mod list;
mod measured;
mod process;
mod reason;
mod saved;
#[cfg(test)]
mod tests;

pub(crate) use error::CheckError;
pub(crate) use evaluate::{Evidence, Judged, JudgedWindow, Judgement, Outcome};
pub(crate) use expression::{
    Comparator, Expectation, ExpressionTerm, Figure, Fraction, Operation, ParseError, Scope, ValueKind,
    Which, name,
};
pub(crate) use gate::Gate;
pub(crate) use kernel::{Addresses, KernelCounter, NetAccount, NetCounters, NetFiles};
pub(crate) use measured::Measured;
pub(crate) use process::{CommandUnderCheck, Running, Status};
pub(crate) use reason::Reason;
#[cfg(test)]
pub(crate) use saved::tests as saved_tests;
pub(crate) use saved::{Comparison, SavedReport};

/// Exit code: an expectation or the command failed.
pub(crate) const FAILED: u8 = 1;
/// Exit code: data was lost, or a figure is unavailable.
pub(crate) const INCONCLUSIVE: u8 = 3;

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
    /// The exit code that all of it leads to.
    pub(crate) code: u8,
}

impl Checked<'_> {
    /// The last line of a check: how many expectations came to what, how the command failed, and the exit
    /// code. `None` where there is nothing to tell.
    pub(crate) fn verdict(&self) -> Option<String> {
        let failure = self.command.as_ref().and_then(Ended::failure);
        let parts: Vec<String> = counted(&self.judged).into_iter().chain(failure).collect();
        (!parts.is_empty()).then(|| format!("{} (exit {})", parts.join("; "), self.code))
    }
}

/// The exit code that the expectations lead to: an inconclusive one takes precedence.
pub(crate) fn exit_code(judged: &[Judged<'_>]) -> u8 {
    let any = |wanted| judged.iter().any(|judged| judged.judgement.outcome() == wanted);
    match (any(Outcome::Inconclusive), any(Outcome::Failed)) {
        (true, _) => INCONCLUSIVE,
        (false, true) => FAILED,
        (false, false) => 0,
    }
}

/// How many expectations came to what, the most important first; `None` without any.
pub(crate) fn counted(judged: &[Judged<'_>]) -> Option<String> {
    let count = |wanted: &Outcome| judged.iter().filter(|each| each.judgement.outcome() == *wanted).count();
    let found = [Outcome::Inconclusive, Outcome::Failed, Outcome::Met].map(|each| (count(&each), each));
    let worse: Vec<String> = found[..2]
        .iter()
        .filter(|(count, _)| *count != 0)
        .map(|(count, outcome)| format!("{} {count}", outcome.word()))
        .collect();
    let of = judged.len();
    let noun = if of == 1 { "expectation" } else { "expectations" };
    let first = if worse.is_empty() { format!("{} {of}", Outcome::Met.word()) } else { worse.join(" and ") };
    (of != 0).then(|| format!("{first} of {of} {noun}"))
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
    /// Whether its failure fails nothing.
    pub(crate) ignored: bool,
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
        let ignored = if self.ignored { ", which is ignored" } else { "" };
        Some(format!("the command {name} {how}{hint}{ignored}"))
    }
}
