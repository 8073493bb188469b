//! `handshake check`: attach, run a command, wait until nothing is opening any more, and hold what was seen against what
//! was expected. The exit code is the answer.
//!
//! ```text
//! find the command ─▶ attach ─▶ started ─ the command ─▶ ended ─ nothing opening any more ─▶ settled ─▶ judge
//!   read --expect                  └──────── rates ────────┘          at most T1                │
//!                                  └─────────────────── the kernel's account ───────────────────┘
//! ```

mod command;
mod evaluate;
mod expression;
mod kernel;
mod list;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::io;
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::cli::{Check as Options, Format};
use crate::error::Error;
use crate::report::flow::Flow;
use crate::report::{self, Output, text::Style};
use crate::say;
use crate::session::{self, NEVER, Session, Signals};
use crate::snapshot::Snapshot;

pub(crate) use command::Status;
use command::{Command, Running};
pub(crate) use evaluate::{Judged, Outcome, Reason, Window};
use expression::name;
pub(crate) use expression::{Expectation, Figure, Fraction, Kind, Operation, Term, Wrong};
pub(crate) use kernel::{Account, KernelCounter};
use kernel::{Addresses, Counts};

/// How often it is looked whether anything is opening still.
const SETTLE_EVERY: Duration = Duration::from_millis(50);
/// How often it is looked whether the interfaces are still there.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Time enough to notice what has come already.
const AT_ONCE: Duration = Duration::from_millis(1);

/// An expectation or the command failed.
const FAILED: u8 = 1;
/// Nobody can say.
const INCONCLUSIVE: u8 = 3;

/// Runs the command `check`; its exit code.
///
/// # Errors
///
/// What is wrong with the expectations or the command under check, before anything is attached; what keeps it from
/// attaching, each with its fix and exit code; what the output does not take.
pub(crate) fn run(options: &Options) -> anyhow::Result<u8> {
    if options.list_metrics {
        Output::to(io::stdout()).put(list::write)?;
        return Ok(0);
    }
    let parsed = options.expectations.iter().map(|text| Expectation::parse(text).map_err(Error::Expectation));
    let expectations = parsed.collect::<Result<Vec<_>, _>>()?;
    let command = match options.command.as_slice() {
        [] => None,
        words => Some(Command::find(words, options.as_root)?),
    };
    let file = options.report.as_ref().map(|path| {
        File::create(path).map_err(|source| Error::ReportFile { path: path.display().to_string(), source })
    });
    let file = file.transpose()?;
    session::with_plan(&options.scope, async |plan| {
        let mut signals = Signals::new()?;
        let session = Session::open(&options.scope, &plan, usize::MAX, false)?;
        let check = Check { options, session, command };
        check.run(&mut signals, &expectations, file).await
    })
}

/// A check under way.
struct Check<'a> {
    options: &'a Options,
    /// Its snapshots have every service by name.
    session: Session,
    command: Option<Command>,
}

/// What ended the time of a check.
enum Ending {
    /// The command, by itself.
    Ended(Status),
    /// `--for`: a command that was still running was stopped.
    TimeUp(Option<Status>),
    /// A signal, which the command got as well.
    Interrupted(i32),
    /// An interface went away.
    Lost(Error),
}

/// What a check found.
pub(crate) struct Checked<'a> {
    /// What was measured.
    pub(crate) window: Window,
    /// The expectations, in their order.
    pub(crate) judged: Vec<Judged<'a>>,
    /// The command's end.
    pub(crate) command: Option<Ended>,
    /// The kernel's own account, where it tells of the same traffic.
    pub(crate) account: Option<Account>,
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

impl Check<'_> {
    async fn run(
        mut self,
        signals: &mut Signals,
        expectations: &[Expectation],
        file: Option<File>,
    ) -> anyhow::Result<u8> {
        // The kernel's reading is the wider: what it is short of was not there.
        let before = Counts::read()?;
        let started = self.snapshot()?;
        let mut ending = self.observe(signals).await?;
        let ended = self.snapshot()?;
        if matches!(ending, Ending::Ended(_) | Ending::TimeUp(_)) {
            tokio::select! {
                biased;
                signal = signals.any() => ending = Ending::Interrupted(signal),
                settled = self.settle() => settled?,
            }
        }
        let window = Window { started, ended, settled: self.snapshot()? };
        let account = self.account(&window, &before)?;
        let whole = matches!(ending, Ending::Ended(_) | Ending::TimeUp(_));
        let mut judged: Vec<Judged<'_>> = expectations.iter().map(|each| window.judge(each)).collect();
        if !whole {
            judged.iter_mut().for_each(|each| each.outcome = Outcome::Inconclusive(Reason::CutShort));
        }
        let command = self.command.as_ref().map(|command| ended_command(command, &ending));
        let checked = Checked { window, judged, command, account };
        self.show(&checked, file)?;
        self.conclude(ending, &checked)
    }

    /// Takes a snapshot, which the session keeps as its latest too.
    fn snapshot(&mut self) -> anyhow::Result<Snapshot> {
        self.session.advance()?;
        Ok(self.session.last().clone())
    }

    /// Runs the command, where there is one. Ends with it, when the time is up, a signal comes or an interface is lost;
    /// then the command is no more.
    async fn observe(&self, signals: &mut Signals) -> anyhow::Result<Ending> {
        let end = Instant::now() + self.options.period.unwrap_or(NEVER);
        let Some(command) = &self.command else {
            return Ok(self.cut(signals, end).await);
        };
        // One that came while we attached: nothing is begun.
        if let Ok(signal) = timeout(AT_ONCE, signals.any()).await {
            return Ok(Ending::Interrupted(signal));
        }
        let mut running = command.start()?;
        let ending = tokio::select! {
            biased;
            status = running.ended() => return Ok(Ending::Ended(status?)),
            ending = self.cut(signals, end) => ending,
        };
        stop(&mut running, ending, signals).await
    }

    /// Ends with what cuts a command's time.
    async fn cut(&self, signals: &mut Signals, end: Instant) -> Ending {
        tokio::select! {
            biased;
            signal = signals.any() => Ending::Interrupted(signal),
            () = sleep_until(end) => Ending::TimeUp(None),
            lost = self.lost() => Ending::Lost(lost),
        }
    }

    /// Ends when an interface is no longer there.
    async fn lost(&self) -> Error {
        loop {
            sleep(LOOK_EVERY).await;
            if let Err(lost) = self.session.check_interfaces() {
                return lost;
            }
        }
    }

    /// Waits until nothing is opening and no flow waits for its first answer, at most T1: then nothing younger than T1 is
    /// left of what the command did. Twice in a row: what was sent last may be on its way to the hook.
    async fn settle(&mut self) -> anyhow::Result<()> {
        // And a little: a flow's age has the grain of jiffies.
        let deadline = Instant::now() + self.options.scope.rules.half_open_after + SETTLE_EVERY;
        let mut quiet = 0;
        while quiet < 2 && Instant::now() < deadline {
            sleep(SETTLE_EVERY.min(deadline - Instant::now())).await;
            let now = self.snapshot()?;
            let moving = now.tcp.books.opening + now.udp.books.pending;
            quiet = if moving == 0 { quiet + 1 } else { 0 };
        }
        Ok(())
    }

    /// The kernel's account, where this host is an end of what was seen.
    fn account(&self, window: &Window, before: &Counts) -> anyhow::Result<Option<Account>> {
        let own = Addresses::read()?;
        let is_end = |flow: &Flow| own.has(flow.initiator.ip()) || own.has(flow.responder.ip());
        if !self.session.has_flow(is_end) {
            return Ok(None);
        }
        let counts = Counts::read()?.since(before);
        Ok(Some(Account::between(&window.started, &window.settled, counts, &own)))
    }

    /// The report: to stderr beside a command, whose stdout is its own.
    fn show(&self, checked: &Checked<'_>, file: Option<File>) -> anyhow::Result<()> {
        let shown = checked.window.settled.with_top(self.options.top);
        let format = self.options.format;
        if self.command.is_some() {
            let style = Style::of(&io::stderr());
            report::write_check(&mut Output::to(io::stderr()), format, &shown, checked, style)?;
        } else {
            let style = Style::of(&io::stdout());
            report::write_check(&mut Output::to(io::stdout()), format, &shown, checked, style)?;
            if format != Format::Text {
                report::write_expectations(&mut Output::to(io::stderr()), checked, Style::of(&io::stderr()))?;
            }
        }
        if let Some(file) = file {
            Output::to(file).put(|out| report::json::write_check(out, &shown, checked))?;
        }
        Ok(())
    }

    fn conclude(&self, ending: Ending, checked: &Checked<'_>) -> anyhow::Result<u8> {
        const SIGNALLED: u8 = 128;
        match ending {
            Ending::Lost(lost) => Err(lost.into()),
            Ending::Interrupted(signal) => Ok(SIGNALLED.saturating_add(u8::try_from(signal).unwrap_or(0))),
            Ending::Ended(_) | Ending::TimeUp(_) => Ok(self.code(checked)),
        }
    }

    /// Says what the command did, and gives the exit code.
    fn code(&self, checked: &Checked<'_>) -> u8 {
        let failure = checked.command.as_ref().and_then(|command| Some((command, command.failure()?)));
        if let Some((command, failure)) = &failure {
            let status = command.status.map_or(FAILED, Status::code);
            say(failure);
            if self.options.propagate && status != 0 {
                return status;
            }
        }
        let any = |wanted: fn(&Outcome) -> bool| checked.judged.iter().any(|judged| wanted(&judged.outcome));
        let seen = &checked.window.settled;
        if seen.tcp.books.attempts == 0 && seen.udp.books.flows == 0 && !checked.judged.is_empty() {
            say("nothing ran: no attempt and no UDP flow was seen");
        }
        if any(|outcome| matches!(outcome, Outcome::Inconclusive(_))) {
            INCONCLUSIVE
        } else if any(|outcome| *outcome == Outcome::Failed)
            || (failure.is_some() && !self.options.ignore_status)
        {
            FAILED
        } else {
            0
        }
    }
}

impl Ended {
    /// What is to be said of a command that failed.
    fn failure(&self) -> Option<String> {
        let name = self.words.first().map_or("", String::as_str);
        let how = match self.status? {
            _ if self.stopped => "ran longer than --for and was stopped".to_owned(),
            Status::Exited(0) => return None,
            Status::Exited(code) => format!("failed with status {code}"),
            Status::Killed(signal) => format!("was killed by signal {signal}"),
        };
        let hint = if self.stripped && !self.stopped { command::AS_ROOT } else { "" };
        Some(format!("the command {name} {how}{hint}"))
    }
}

/// Stops a command whose time was cut.
async fn stop(running: &mut Running, ending: Ending, signals: &mut Signals) -> anyhow::Result<Ending> {
    Ok(match ending {
        Ending::Ended(status) => Ending::Ended(status),
        Ending::TimeUp(_) => Ending::TimeUp(Some(running.stop(libc::SIGTERM).await?)),
        Ending::Lost(lost) => {
            running.stop(libc::SIGTERM).await?;
            Ending::Lost(lost)
        }
        Ending::Interrupted(signal) => {
            tokio::select! {
                biased;
                stopped = running.stop(signal) => stopped?,
                // Who asks twice does not want to wait.
                _ = signals.any() => running.kill().await?,
            };
            Ending::Interrupted(signal)
        }
    })
}

fn ended_command(command: &Command, ending: &Ending) -> Ended {
    let (status, stopped) = match ending {
        Ending::Ended(status) => (Some(*status), false),
        Ending::TimeUp(status) => (*status, true),
        Ending::Interrupted(_) | Ending::Lost(_) => (None, false),
    };
    Ended { words: command.words(), status, stopped, stripped: command.is_stripped_root() }
}
