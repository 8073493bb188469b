//! One account: the attempts that one place saw, the times at which it looked, and what it may have missed.

use handshake_common::verdict::Verdict;

use crate::attempt::{Attempt, Stage};
use crate::line::{ReasonLine, ReportLine};

/// Lines of one tuple and number that are further apart are of two attempts.
const ONE_LIFE_NS: u64 = 600 * 1_000_000_000;
/// Another hook of the same place sees a segment again within this.
const SAME_PLACE_NS: u64 = 100_000_000;
/// A connection that was established sooner has no row where only failures have one.
const PROMPT_NS: u64 = 400_000_000;

/// A reason for which an account may lack something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inexact {
    /// Its name: that of the report, or one of the join's own.
    pub reason: String,
    /// How often it occurred.
    pub count: u64,
    /// What is counted.
    pub sentence: String,
}

/// Times at which an account looked, ns since the Unix epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// The first.
    pub from_ns: u64,
    /// The last.
    pub to_ns: u64,
}

/// One run of handshake, by its latest report.
#[derive(Debug)]
struct Run {
    window: Window,
    attempts: u64,
    completed: u64,
    /// SYN+ACKs whose SYN did not pass.
    orphans: u64,
    inexact: Vec<ReasonLine>,
}

/// What was read of the files of an account.
#[derive(Debug, Default)]
pub(crate) struct Gathered {
    pub(crate) attempts: Vec<Attempt>,
    runs: Vec<Run>,
    /// Rows that the account itself says were left out.
    pub(crate) unlisted: u64,
    /// Lines that are no JSON.
    pub(crate) unreadable: u64,
    /// Files that end in the middle of a line.
    pub(crate) truncated: u64,
    /// Files that have no report.
    pub(crate) without_report: u64,
}

impl Gathered {
    /// Takes a report in. Of the reports of one run, which begin at the same time, the latest counts.
    pub(crate) fn report(&mut self, report: ReportLine) {
        let (Some(from_ns), Some(to_ns)) = (report.from_ns, report.to_ns) else { return };
        let run = Run {
            window: Window { from_ns, to_ns },
            attempts: report.attempts,
            completed: report.completed,
            orphans: report.orphans,
            inexact: report.inexact,
        };
        match self.runs.iter_mut().find(|known| known.window.from_ns == from_ns) {
            Some(known) if known.window.to_ns <= to_ns => *known = run,
            Some(_) => {}
            None => self.runs.push(run),
        }
    }

    /// How many reports' runs there are.
    pub(crate) const fn runs(&self) -> usize {
        self.runs.len()
    }
}

/// One account.
#[derive(Debug)]
pub struct Account {
    /// Its files, as named on the command line.
    pub name: String,
    /// Its attempts, by J and then by time.
    pub attempts: Vec<Attempt>,
    /// When it looked.
    pub windows: Vec<Window>,
    /// What it may have missed.
    pub inexact: Vec<Inexact>,
    /// Whether each attempt that failed has a line, as far as the account tells.
    pub(crate) lists_failures: bool,
    /// Whether each one that completed has.
    pub(crate) lists_completions: bool,
    /// Whether it sees what initiators send, and what responders do: one that sees one direction alone does not know
    /// what it lacks.
    pub(crate) sees_syns: bool,
    pub(crate) sees_answers: bool,
}

impl Account {
    /// Makes an account of what was read: one attempt of all lines that are of it.
    pub(crate) fn of(name: String, gathered: Gathered) -> Self {
        let Gathered { mut attempts, runs, unlisted, unreadable, truncated, without_report } = gathered;
        one_per_tuple(&mut attempts);
        attempts.retain(|attempt| !attempt.is_none());
        if let [run] = &runs[..] {
            let is_open = |attempt: &&mut Attempt| {
                attempt.verdict == Some(Verdict::HalfOpen) && attempt.stage == Stage::Last
            };
            attempts.iter_mut().filter(is_open).for_each(|attempt| attempt.told_ns = run.window.to_ns);
        }
        let completed = attempts.iter().filter(|attempt| attempt.is_completed()).count() as u64;
        let failed = attempts.len() as u64 - completed;
        let sum = |of: fn(&Run) -> u64| runs.iter().map(of).sum::<u64>();
        let missing = [
            sum(|run| run.attempts.saturating_sub(run.completed)).saturating_sub(failed),
            sum(|run| run.completed).saturating_sub(completed),
        ];
        let is_prompt = |attempt: &Attempt| {
            let is_soon = attempt.connect_ns().is_some_and(|ns| ns < PROMPT_NS);
            attempt.is_completed() && is_soon && attempt.syn == 1 && !attempt.was_half_open
        };
        let orphans = sum(|run| run.orphans);
        let has_reports = !runs.is_empty();
        let lists_completions = if has_reports { missing[1] == 0 } else { attempts.iter().any(is_prompt) };
        let mut windows: Vec<Window> = runs.iter().map(|run| run.window).collect();
        if !has_reports {
            windows.extend(of_lines(&attempts));
        }
        // What has no row may have a line at the end, which the sums of a report tell.
        let unlisted = if has_reports { missing[0] } else { unlisted };
        let mut inexact = of_runs(runs);
        for (reason, count, sentence) in [
            ("unlisted", unlisted, "attempts that failed and have no line in this account"),
            ("no_report", without_report, "files without a report: what was lost there is not known"),
            ("truncated_line", truncated, "files that end in the middle of a line"),
            ("unreadable_line", unreadable, "lines that are no JSON, and were passed over"),
        ] {
            if count != 0 {
                inexact.push(Inexact { reason: reason.to_owned(), count, sentence: sentence.to_owned() });
            }
        }
        let lists_failures = unlisted == 0 && unreadable == 0;
        let sees_syns = !attempts.is_empty() || orphans == 0;
        let sees_answers =
            attempts.iter().any(|attempt| attempt.is_answered() || attempt.is_reset_by_responder());
        one_per_place(&mut attempts);
        Self { name, attempts, windows, inexact, lists_failures, lists_completions, sees_syns, sees_answers }
    }

    /// Whether it looked at this time of its clock.
    pub(crate) fn looked_at(&self, ns: i64) -> bool {
        let Ok(ns) = u64::try_from(ns) else { return false };
        self.windows.iter().any(|window| (window.from_ns..=window.to_ns).contains(&ns))
    }

    /// From its first look to its last.
    #[must_use]
    pub fn span(&self) -> Option<Window> {
        let from_ns = self.windows.iter().map(|window| window.from_ns).min()?;
        let to_ns = self.windows.iter().map(|window| window.to_ns).max()?;
        Some(Window { from_ns, to_ns })
    }
}

/// Of the lines of one attempt the last one says how it ended.
fn one_per_tuple(attempts: &mut Vec<Attempt>) {
    attempts.sort_unstable_by_key(|attempt| {
        (attempt.j, attempt.initiator, attempt.responder, attempt.started_ns, attempt.stage)
    });
    attempts.dedup_by(|next, kept| {
        let is_same = next.j == kept.j
            && next.has_ends_of(kept)
            && next.started_ns.abs_diff(kept.started_ns) <= ONE_LIFE_NS;
        if is_same {
            kept.update(next);
        }
        is_same
    });
}

/// A router sees an attempt at two of its interfaces, with other ends where it translates.
fn one_per_place(attempts: &mut Vec<Attempt>) {
    attempts.sort_unstable_by_key(|attempt| (attempt.j, attempt.started_ns, attempt.initiator));
    attempts.dedup_by(|next, kept| {
        let is_elsewhere = next.interface != kept.interface && next.interface != 0 && kept.interface != 0;
        let is_same = next.j == kept.j
            && is_elsewhere
            && next.started_ns.abs_diff(kept.started_ns) <= SAME_PLACE_NS
            && next.shares_k(kept) != Some(false);
        if is_same {
            kept.widen(next);
        }
        is_same
    });
}

/// From the first to the last time that a line tells of.
fn of_lines(attempts: &[Attempt]) -> Option<Window> {
    let from_ns = attempts.iter().map(|attempt| attempt.started_ns).min()?;
    let to_ns = attempts.iter().map(|attempt| attempt.started_ns.max(attempt.told_ns)).max()?;
    Some(Window { from_ns, to_ns })
}

/// The reasons of all runs, each once.
fn of_runs(runs: Vec<Run>) -> Vec<Inexact> {
    let mut all: Vec<Inexact> = Vec::new();
    for ReasonLine { reason, count, sentence } in runs.into_iter().flat_map(|run| run.inexact) {
        match all.iter_mut().find(|known| known.reason == reason) {
            Some(known) => known.count = known.count.saturating_add(count),
            None => all.push(Inexact { reason, count, sentence }),
        }
    }
    all
}
