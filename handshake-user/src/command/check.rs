//! `handshake check`: attaches, runs a command, waits until no attempt is opening any more, and judges the
//! expectations. The exit code is the answer.
//!
//! ```text
//! find the command ─▶ attach ─▶ started ─ the command ─▶ ended ─ nothing opening any more ─▶ settled ─▶ judge
//!   read --expect                  └──────── rates ────────┘          at most T1                │
//!                                  └───────────────── the kernel's own counters ────────────────┘
//! ```

use std::convert::Infallible;
use std::future::{Future, pending};
use std::io;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::Duration;

use handshake_agent::Error as AgentError;
use handshake_agent::model::flow::Flow;
use handshake_agent::model::snapshot::Snapshot;
use handshake_agent::session::{self, EVENTS_EVERY, Pace, Session, Signals, Sink};
use handshake_common::flow::Side;
use handshake_common::verdict::{UdpVerdict, Verdict};
use rustix::process::Signal;
use tokio::time::{Instant, timeout};

use crate::check::{
    Addresses, CheckError, Checked, CommandUnderCheck, Ended, FAILED, Gate, INCONCLUSIVE, Judged,
    JudgedWindow, Judgement, NetAccount, NetCounters, NetFiles, Reason, Running, Scope, Status, exit_code,
    list,
};
use crate::cli::CheckArgs;
use crate::command::{attach, collector, github, load, out, patiently, prepare, take_snapshot, zone};
use crate::console::{self, announce, say};
use crate::error::CommandError;
use crate::evidence::Collector;
use crate::helper::{Duties, FileDuty, Files, Helper};
use crate::output::{Lane, Output, Patience, Target};
use crate::report::gate::GateResult;
use crate::report::{self, OutputFormat, text, text::Style};
use crate::time::Zone;

/// Time between two looks at whether an attempt is still opening.
const SETTLE_EVERY: Duration = Duration::from_millis(50);
/// The longest that a failed check waits for its evidence to be written.
const EVIDENCE_PATIENCE: Duration = Duration::from_secs(30);
/// Enough time to notice a signal that has arrived already.
const AT_ONCE: Duration = Duration::from_millis(1);

/// Runs `handshake check` and returns its exit code.
///
/// # Errors
///
/// Faults of the expectations or of the command under check, before anything is attached; failures to attach;
/// failures to write the report.
pub(crate) fn run(args: &CheckArgs) -> Result<u8, CommandError> {
    if args.list_metrics {
        Output::to(Target::stdout()).put(list::write).map_err(out)?;
        return Ok(0);
    }
    let gate = Gate::of(&args.expectations, &args.expect_files, Scope::Run)?;
    let period = args.period.or(gate.period);
    if args.command.is_empty() && period.is_none() {
        return Err(CheckError::NoEnd.into());
    }
    let checkee = match args.command.as_slice() {
        [] => None,
        words => Some(CommandUnderCheck::find(words, args.as_root)?),
    };
    let wanted = WantedFile::of(args);
    let duties = Duties {
        command: checkee.as_ref().map(CommandUnderCheck::starter),
        files: wanted.iter().map(WantedFile::duty).collect(),
        evidence: args.evidence.folder.clone(),
        ..Duties::default()
    };
    let wants_helper = checkee.is_some() || !wanted.is_empty() || args.evidence.folder.is_some();
    let helper = prepare(&args.scope, wants_helper.then_some(duties))?;
    let files = helper.as_ref().map(|helper| ResultFiles::look_at(helper, wanted)).transpose()?;
    let counters = NetFiles::open()?;
    let zone = zone(args.utc);
    let collector = helper.as_ref().map(|helper| collector(helper, &args.evidence, zone));
    let collector = collector.transpose()?.flatten();
    let watched = args.watched();
    let plan = session::plan(&watched)?;
    plan.require_any()?;
    let loaded = load(&watched, &plan)?;
    session::block_on(async {
        let mut signals = Signals::new()?;
        let session = attach(loaded, &watched, &plan, &args.scope, &mut signals).await?;
        let in_progress = CheckInProgress {
            args,
            gate: &gate,
            session,
            signals,
            checkee,
            helper: helper.as_ref(),
            collector,
            counters,
            zone,
        };
        let code = in_progress.run(files).await;
        if code.is_ok() {
            helper.iter().for_each(Helper::leave);
        }
        code
    })
}

/// A check under way.
struct CheckInProgress<'a> {
    args: &'a CheckArgs,
    gate: &'a Gate,
    /// Lists every service by name in its snapshots.
    session: Session,
    signals: Signals,
    checkee: Option<CommandUnderCheck>,
    /// The parent of the command.
    helper: Option<&'a Helper>,
    collector: Option<Collector>,
    counters: NetFiles,
    zone: Zone,
}

/// Why the observed time ended.
enum CheckEnding {
    /// The command exited by itself.
    Ended(Status),
    /// The time of `--for` passed; holds the status of a command that was stopped.
    TimeUp(Option<Status>),
    /// This signal arrived, and was passed to the command.
    Interrupted(i32),
    /// The last interface was lost.
    Lost(AgentError),
}

impl CheckInProgress<'_> {
    async fn run(mut self, files: Option<ResultFiles>) -> Result<u8, CommandError> {
        // The kernel's counters are read before the first snapshot and after the last: this time covers that of
        // the snapshots, so what they lack did not happen. They are also read within it.
        let before = self.read_counters()?;
        let started = self.snapshot()?;
        let within = self.read_counters()?;
        let mut ending = self.observe().await?;
        let ended = self.snapshot()?;
        if matches!(ending, CheckEnding::Ended(_) | CheckEnding::TimeUp(_)) {
            ending = self.settle(ending).await?;
        }
        let within = self.read_counters()?.since(&within);
        let window = JudgedWindow { started, ended, settled: self.snapshot()? };
        let counts = self.read_counters()?.since(&before);
        let account = self.account(&window, [counts, within])?;
        let whole = matches!(ending, CheckEnding::Ended(_) | CheckEnding::TimeUp(_));
        let gate = self.gate;
        let mut judged: Vec<Judged<'_>> =
            gate.expectations.iter().map(|each| Judged::by(&window, each)).collect();
        if !whole {
            judged.iter_mut().for_each(|each| each.judgement = Judgement::Inconclusive(Reason::CutShort));
        }
        let allows_nothing = self.args.allow_nothing || gate.allow_nothing;
        if window.is_empty() && !allows_nothing && !judged.iter().any(Judged::wants_nothing) {
            judged.iter_mut().for_each(|each| each.doubt(Reason::NothingRan));
        }
        let command = self.checkee.as_ref().map(|checkee| ended_command(checkee, self.args, &ending));
        let mut checked = Checked { window, judged, command, account, code: 0 };
        checked.code = code(self.args, &ending, &checked);
        let leaves_evidence = checked.code != 0;
        let Self { args, mut session, signals, checkee, collector, zone, .. } = self;
        if let Some(collector) = collector.filter(|_| leaves_evidence) {
            collector.leave(&mut session, EVIDENCE_PATIENCE).iter().for_each(|said| say(said));
        }
        let flows = args.flows.then(|| session.flows());
        drop(session);
        // From here on a signal ends the process.
        let ending = signals.release().await.map_or(ending, CheckEnding::Interrupted);
        let is_interrupted = matches!(ending, CheckEnding::Interrupted(_));
        checked.code = code(args, &ending, &checked);
        if let CheckEnding::Lost(lost) = &ending {
            say(&lost.to_string());
        }
        let patience = if is_interrupted { Patience::ENDING } else { Patience::Endless };
        let shown = show(args, (checkee.is_some(), zone), (&checked, flows.as_deref()), files, patience);
        match shown {
            Err(error) if is_interrupted => say(&error.to_string()),
            shown => shown?,
        }
        Ok(checked.code)
    }

    fn read_counters(&mut self) -> Result<NetCounters, CommandError> {
        Ok(patiently(CheckError::is_passing, || self.counters.read())?)
    }

    /// Takes a snapshot; the session keeps it as its latest.
    fn snapshot(&mut self) -> Result<Snapshot, CommandError> {
        take_snapshot(&mut self.session)?;
        Ok(self.session.last().clone())
    }

    /// Runs the command, if there is one, until it exits, the time is up, a signal arrives or an interface is
    /// lost. On return the command has ended in each case.
    async fn observe(&mut self) -> Result<CheckEnding, CommandError> {
        let Self { args, gate, session, signals, checkee, helper, collector, .. } = self;
        let collector = collector.as_mut();
        let period = args.period.or(gate.period);
        let collects = collector.is_some();
        let pace = Pace {
            snapshots: None,
            events: collects,
            records: collects,
            until: period.map(|time| Instant::now() + time),
            ..Pace::default()
        };
        let Some((checkee, helper)) = checkee.as_ref().zip(*helper) else {
            let ending = {
                let mut waiting = Waiting { running: None, status: None, collector };
                session::run(session, signals, pace, &mut waiting).await?
            };
            return Ok(CheckEnding::of(ending, None));
        };
        // After a signal during attaching, the command is not started.
        if let Ok(signal) = timeout(AT_ONCE, signals.any()).await {
            return Ok(CheckEnding::Interrupted(signal));
        }
        let running = Some(checkee.start(helper).await?);
        let mut waiting = Waiting { running, status: None, collector };
        let ending = session::run(session, signals, pace, &mut waiting).await?;
        let ending = CheckEnding::of(ending, waiting.status);
        match &mut waiting.running {
            Some(running) => stop(running, ending, signals).await,
            None => Ok(ending),
        }
    }

    /// Waits until no attempt is opening and no UDP flow is pending, at most T1. After T1, everything that
    /// the command opened is older than T1.
    async fn settle(&mut self, ending: CheckEnding) -> Result<CheckEnding, CommandError> {
        // A little more than T1, because ages are counted in jiffies.
        let deadline = Instant::now() + self.args.scope.rules.half_open_after + SETTLE_EVERY;
        let collects = self.collector.is_some();
        let pace = Pace {
            snapshots: Some(SETTLE_EVERY),
            events: collects,
            records: collects,
            until: Some(deadline),
            ..Pace::default()
        };
        let mut settling = Settling { quiet: 0, collector: self.collector.as_mut() };
        let settled = session::run(&mut self.session, &mut self.signals, pace, &mut settling).await?;
        Ok(match settled {
            session::Ending::Signal(signal) => CheckEnding::Interrupted(signal),
            session::Ending::Lost(lost) => CheckEnding::Lost(lost),
            session::Ending::TimeUp | session::Ending::Done => ending,
        })
    }

    /// The kernel's own counters, if this host is an end of some flow, or opened connections while none was
    /// seen.
    fn account(
        &mut self,
        window: &JudgedWindow,
        counters: [NetCounters; 2],
    ) -> Result<Option<NetAccount>, CommandError> {
        let own = patiently(CheckError::is_passing, Addresses::read)?;
        let is_end =
            |flow: &Flow| [Side::Initiator, Side::Responder].iter().any(|side| own.has(flow.end(*side).ip()));
        let account = NetAccount::between([&window.started, &window.settled], counters, &own);
        let is_of_our_flows = account.is_all_unseen() || self.session.has_flow(is_end);
        Ok(Some(account).filter(|_| is_of_our_flows))
    }
}

/// A file that a check writes beside its report.
enum WantedFile {
    /// `--report`
    Report(PathBuf),
    /// `--junit`
    Junit(PathBuf),
    /// `$GITHUB_STEP_SUMMARY`
    Summary(PathBuf),
}

impl WantedFile {
    fn of(args: &CheckArgs) -> Vec<Self> {
        let report = args.report.clone().map(Self::Report);
        let junit = args.junit.clone().map(Self::Junit);
        report.into_iter().chain(junit).chain(github::summary().map(Self::Summary)).collect()
    }

    fn duty(&self) -> FileDuty {
        match self {
            Self::Report(path) | Self::Junit(path) => FileDuty::AtEnd(path.clone()),
            Self::Summary(path) => FileDuty::Append(path.clone()),
        }
    }

    /// The option or variable that asked for it.
    const fn asked_by(&self) -> &'static str {
        match self {
            Self::Report(_) => "--report",
            Self::Junit(_) => "--junit",
            Self::Summary(_) => github::SUMMARY,
        }
    }

    fn path(&self) -> String {
        let (Self::Report(path) | Self::Junit(path) | Self::Summary(path)) = self;
        path.display().to_string()
    }
}

/// The files in the hands of the helper.
struct ResultFiles {
    files: Files,
    /// Those that can be written, with their places among the duties.
    wanted: Vec<(u8, WantedFile)>,
}

impl ResultFiles {
    /// Looks whether they can be written. A summary that cannot be written is told and left out: it is not the
    /// result.
    fn look_at(helper: &Helper, wanted: Vec<WantedFile>) -> Result<Self, CommandError> {
        let (files, ready) =
            helper.looked_at_files().map_err(AgentError::system("reach the helper process"))?;
        let mut writable = Vec::new();
        for ((at, file), ready) in (0..).zip(wanted).zip(ready) {
            let (option, path) = (file.asked_by(), file.path());
            match (&file, ready) {
                (_, Ok(())) => writable.push((at, file)),
                (WantedFile::Summary(_), Err(error)) => say(&format!("no summary: {option} {path}: {error}")),
                (WantedFile::Report(_) | WantedFile::Junit(_), Err(source)) => {
                    return Err(CommandError::ReportFile { option, path, source });
                }
            }
        }
        Ok(Self { files, wanted: writable })
    }

    fn write(
        mut self,
        shown: &Snapshot,
        (checked, flows): (&Checked<'_>, Option<&[Flow]>),
        result: &GateResult,
        patience: Patience,
    ) -> Result<(), CommandError> {
        for (at, file) in &self.wanted {
            let content = match file {
                WantedFile::Report(_) => {
                    let mut content = Vec::new();
                    report::json::write_check(&mut content, shown, checked, flows).map_err(out)?;
                    content
                }
                WantedFile::Junit(_) => result.junit().into_bytes(),
                WantedFile::Summary(_) => result.summary().into_bytes(),
            };
            let what = format!("write {} {}", file.asked_by(), file.path());
            match (file, self.files.write_to(*at, &content, patience)) {
                (_, Ok(_)) => {}
                (WantedFile::Summary(_), Err(error)) => say(&format!("cannot {what}: {error}")),
                (WantedFile::Report(_) | WantedFile::Junit(_), Err(error)) => {
                    return Err(CommandError::output(what)(error));
                }
            }
        }
        Ok(())
    }
}

/// Writes the report to stdout, or to stderr with a command, which owns stdout; and to the files.
fn show(
    args: &CheckArgs,
    (with_command, zone): (bool, Zone),
    (checked, flows): (&Checked<'_>, Option<&[Flow]>),
    files: Option<ResultFiles>,
    patience: Patience,
) -> Result<(), CommandError> {
    let shown = checked.window.settled.with_top(args.top);
    let format = args.format;
    let result = GateResult::of(checked);
    github::annotate(&result);
    if let Some(files) = files {
        files.write(&shown, (checked, flows), &result, patience)?;
    }
    // What was said before comes first.
    console::flush();
    let (target, style) = if with_command {
        (Target::stderr(), Style::of(&io::stderr(), zone))
    } else {
        (Target::stdout(), Style::of(&io::stdout(), zone))
    };
    let lane = Lane::to(target).map_err(out)?;
    lane.finish(patience, |to| report::write_check(to, format, &shown, checked, flows, style))
        .map_err(out)?;
    if !with_command && format != OutputFormat::Text {
        let lane = Lane::to(Target::stderr()).map_err(out)?;
        let style = Style::of(&io::stderr(), zone);
        let expectations = text::draw_expectations(checked, "", style);
        lane.finish(patience, |to| to.write_all(expectations.as_bytes())).map_err(out)?;
    }
    Ok(())
}

/// The exit code: that of the signal, of the command if it is to be propagated, or of the judgement.
fn code(args: &CheckArgs, ending: &CheckEnding, checked: &Checked<'_>) -> u8 {
    const SIGNALLED: u8 = 128;
    match ending {
        CheckEnding::Interrupted(signal) => {
            return SIGNALLED.saturating_add(u8::try_from(*signal).unwrap_or(0));
        }
        CheckEnding::Lost(_) => return INCONCLUSIVE,
        CheckEnding::Ended(_) | CheckEnding::TimeUp(_) => {}
    }
    let failed = checked.command.as_ref().filter(|command| command.failure().is_some());
    let status = failed.map_or(0, |command| command.status.map_or(FAILED, Status::code));
    if args.propagate && status != 0 {
        return status;
    }
    match exit_code(&checked.judged) {
        0 if failed.is_some() && !args.ignore_status => FAILED,
        code => code,
    }
}

impl CheckEnding {
    /// Converts the loop's ending; `status` is that of a command that exited by itself.
    fn of(ending: session::Ending, status: Option<Status>) -> Self {
        match (ending, status) {
            (session::Ending::Signal(signal), _) => Self::Interrupted(signal),
            (session::Ending::Lost(lost), _) => Self::Lost(lost),
            (session::Ending::Done, Some(status)) => Self::Ended(status),
            (session::Ending::TimeUp | session::Ending::Done, _) => Self::TimeUp(None),
        }
    }
}

/// Takes ended attempts, which are for the evidence alone, out of the ring.
fn take_ended(session: &mut Session) -> Duration {
    session.for_each_ended(&mut |_, _| ControlFlow::Continue(()));
    EVENTS_EVERY
}

fn collect(collector: Option<&mut Collector>, session: &mut Session) -> Result<(), CommandError> {
    collector.map_or(Ok(()), |collector| Ok(collector.collect(session)?))
}

/// Waits for the command to exit, or forever if there is none.
struct Waiting<'a> {
    /// `None` after it has exited.
    running: Option<Running>,
    status: Option<Status>,
    collector: Option<&'a mut Collector>,
}

impl Sink for Waiting<'_> {
    type Input = io::Result<Status>;
    type Error = CommandError;

    fn advance(&mut self, _: &mut Session) -> Result<ControlFlow<()>, CommandError> {
        Ok(ControlFlow::Continue(()))
    }

    fn take_ended(&mut self, session: &mut Session) -> Result<Duration, CommandError> {
        Ok(take_ended(session))
    }

    fn record(&mut self, session: &mut Session) -> Result<(), CommandError> {
        collect(self.collector.as_deref_mut(), session)
    }

    fn notice(&mut self, notice: &str) {
        announce(notice);
    }

    async fn input(&mut self) -> io::Result<Status> {
        match &mut self.running {
            Some(running) => running.ended().await,
            None => pending().await,
        }
    }

    fn handle(
        &mut self,
        _: &mut Session,
        status: io::Result<Status>,
    ) -> Result<ControlFlow<()>, CommandError> {
        self.status = Some(status.map_err(CheckError::system("wait for the command"))?);
        self.running = None;
        Ok(ControlFlow::Break(()))
    }
}

/// Ends after two snapshots in a row without an opening attempt or a pending flow: at the first of them, the
/// last packet may still be on its way to the hook.
struct Settling<'a> {
    quiet: u32,
    collector: Option<&'a mut Collector>,
}

impl Sink for Settling<'_> {
    type Input = Infallible;
    type Error = CommandError;

    fn advance(&mut self, session: &mut Session) -> Result<ControlFlow<()>, CommandError> {
        match session.advance() {
            Ok(_) => {}
            Err(error) if error.is_passing() => return Ok(ControlFlow::Continue(())),
            Err(error) => return Err(error.into()),
        }
        let now = session.last();
        let moving = now.tcp.books.verdict(Verdict::Opening) + now.udp.books.verdict(UdpVerdict::Pending);
        self.quiet = if moving == 0 { self.quiet + 1 } else { 0 };
        Ok(if self.quiet == 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    }

    fn take_ended(&mut self, session: &mut Session) -> Result<Duration, CommandError> {
        Ok(take_ended(session))
    }

    fn record(&mut self, session: &mut Session) -> Result<(), CommandError> {
        collect(self.collector.as_deref_mut(), session)
    }

    fn notice(&mut self, notice: &str) {
        announce(notice);
    }

    fn input(&mut self) -> impl Future<Output = Infallible> {
        pending()
    }

    fn handle(&mut self, _: &mut Session, input: Infallible) -> Result<ControlFlow<()>, CommandError> {
        match input {}
    }
}

/// Stops a command that is still running when the observed time has ended.
async fn stop(
    running: &mut Running,
    ending: CheckEnding,
    signals: &mut Signals,
) -> Result<CheckEnding, CommandError> {
    let refused = || CheckError::system("stop the command");
    Ok(match ending {
        CheckEnding::Ended(status) => CheckEnding::Ended(status),
        CheckEnding::TimeUp(_) => {
            CheckEnding::TimeUp(Some(running.stop(Signal::TERM).await.map_err(refused())?))
        }
        CheckEnding::Lost(lost) => {
            running.stop(Signal::TERM).await.map_err(refused())?;
            CheckEnding::Lost(lost)
        }
        CheckEnding::Interrupted(signal) => {
            let same = Signal::from_named_raw(signal).unwrap_or(Signal::TERM);
            tokio::select! {
                biased;
                stopped = running.stop(same) => stopped.map_err(refused())?,
                // A second signal means that the user does not want to wait.
                _ = signals.any() => running.kill().await.map_err(refused())?,
            };
            CheckEnding::Interrupted(signal)
        }
    })
}

fn ended_command(checkee: &CommandUnderCheck, args: &CheckArgs, ending: &CheckEnding) -> Ended {
    let (status, stopped) = match ending {
        CheckEnding::Ended(status) => (Some(*status), false),
        CheckEnding::TimeUp(status) => (*status, true),
        CheckEnding::Interrupted(_) | CheckEnding::Lost(_) => (None, false),
    };
    let (stripped, ignored) = (checkee.is_stripped_root(), args.ignore_status);
    Ended { words: checkee.words(), status, stopped, stripped, ignored }
}
