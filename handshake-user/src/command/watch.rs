//! `handshake watch`: reports on the live terminal or as lines until it is stopped.

use std::io;
use std::ops::ControlFlow;
use std::time::Duration;

use handshake_agent::Error as AgentError;
use handshake_agent::model::flow::View;
use handshake_agent::model::snapshot::{Interval, Snapshot};
use handshake_agent::session::{self, EVENTS_EVERY, Ending, Pace, Session, Signals, Sink};
use tokio::time::Instant;

use crate::cli::WatchArgs;
use crate::command::{attach, collector, confinement, load, names, out, prepare, take_snapshot, zone};
use crate::console::{announce, say};
use crate::error::CommandError;
use crate::evidence::{Collector, LAST_EVIDENCE};
use crate::helper::{Duties, FileDuty, Helper};
use crate::names::Names;
use crate::output::{Lane, PIECE, Patience, Target};
use crate::recorder::Recording;
use crate::report::{self, OutputFormat, text::Style};
use crate::time::Zone;
use crate::tui;
use handshake_export::events::{EventLog, Followed};

/// Runs `handshake watch` and returns its exit code.
///
/// # Errors
///
/// Failures to attach or to write the report; a lost interface.
pub(crate) fn run(args: &WatchArgs) -> Result<u8, CommandError> {
    let screen = tui::is_available() && args.wants_screen();
    let mut watched = args.watched();
    if screen {
        watched.top = tui::ALL_SERVICES;
        watched.events = true;
    }
    let files: Vec<FileDuty> = screen.then_some(FileDuty::New).into_iter().collect();
    let is_wanted = screen || args.record.is_some() || args.evidence.folder.is_some();
    let (recording, evidence) = (args.record.clone(), args.evidence.folder.clone());
    let duties = is_wanted.then(|| Duties { files, recording, evidence, ..Duties::default() });
    let helper = prepare(&args.scope, duties)?;
    let recording = helper.as_ref().zip(args.record.as_deref());
    let recording = recording.map(|(helper, path)| Recording::start(helper, path)).transpose()?;
    let files = helper.as_ref().filter(|_| screen).map(Helper::files).transpose().map_err(out)?;
    let zone = zone(args.output.utc);
    let collector = helper.as_ref().map(|helper| collector(helper, &args.evidence, zone));
    let collector = collector.transpose()?.flatten();
    let names = names(args.output.wants_names(), confinement(&args.scope))?;
    let surroundings = screen.then(tui::Surroundings::open);
    let plan = session::plan(&watched)?;
    let loaded = load(&watched, &plan)?;
    session::block_on(async {
        let mut signals = Signals::new()?;
        let mut session = attach(loaded, &watched, &plan, &args.scope, &mut signals).await?;
        let mut lines = LineReports::new(args, zone, names)?;
        if recording.is_some() {
            session.record();
        }
        let until = args.period.map(|time| Instant::now() + time);
        if let (Some(files), Some(surroundings)) = (files, surroundings) {
            let options =
                tui::ScreenOptions { interval: args.interval, ascii: args.ascii, zone, names, until };
            let ways = tui::Ways { lane: &lines.lane, files, surroundings, recording, collector };
            let ending = tui::run(&options, ways, &mut session, &mut signals).await?;
            // The closing report is printed after the screen is left; it lists `--top` services.
            session.list_services(args.output.top);
            return lines.close(session, signals, ending).await;
        }
        (lines.recording, lines.collector) = (recording, collector);
        let pace = Pace {
            snapshots: Some(args.interval),
            events: watched.events,
            records: lines.recording.is_some() || lines.collector.is_some(),
            until,
            ..Pace::default()
        };
        let ending = session::run(&mut session, &mut signals, pace, &mut lines).await?;
        lines.close(session, signals, ending).await
    })
}

/// Writes reports to stdout as lines of text or JSON.
struct LineReports<'a> {
    args: &'a WatchArgs,
    lane: Lane,
    style: Style,
    /// The attempts that are told of one by one.
    followed: Followed,
    /// Reports in a row that were left out, because stdout had no room for them.
    left_out: u64,
    /// Whether the latest reading failed.
    missing: bool,
    recording: Option<Recording>,
    collector: Option<Collector>,
}

impl<'a> LineReports<'a> {
    fn new(args: &'a WatchArgs, zone: Zone, names: Names) -> Result<Self, CommandError> {
        let lane = Lane::to(Target::stdout()).map_err(out)?;
        Ok(Self {
            args,
            lane,
            style: Style::of(&io::stdout(), zone).naming(names),
            followed: Followed::new(EventLog::bounded(args.output.events.0)),
            left_out: 0,
            missing: false,
            recording: None,
            collector: None,
        })
    }

    /// Detaches, writes the closing report, and returns the exit code. A signal ends the process meanwhile;
    /// after one that has ended the run, the report is written as long as its reader takes it.
    async fn close(self, mut session: Session, signals: Signals, ending: Ending) -> Result<u8, CommandError> {
        let Self { args, lane, style, mut followed, recording, collector, .. } = self;
        // Before the reader of the report is waited for.
        if let Some(mut recording) = recording {
            recording.close(&mut session);
            recording.finish();
        }
        let format = args.output.format;
        let mut ended = Vec::new();
        if args.output.events.0.is_any() {
            followed.take_ended(&mut session, &mut |event, view| {
                // Memory takes all.
                let _ = report::write_event(&mut ended, format, view, event, style);
                ControlFlow::Continue(())
            });
            if let Some(unlisted) = followed.take_unlisted() {
                let _ = report::write_unlisted(&mut ended, format, &session.view(), unlisted, style);
            }
        }
        take_snapshot(&mut session)?;
        if let Some(collector) = collector {
            collector.leave(&mut session, LAST_EVIDENCE).iter().for_each(|said| say(said));
        }
        let (snapshot, flows) = (session.last().clone(), args.output.flows.then(|| session.flows()));
        drop(session);
        let signal = signals.release().await;
        let is_signalled = signal.is_some() || matches!(ending, Ending::Signal(_));
        let patience = if is_signalled { Patience::ENDING } else { Patience::Endless };
        let flows = flows.as_deref().map(|flows| (View::of(&snapshot), flows));
        let written = lane.finish(patience, |to| {
            to.write_all(&ended)?;
            report::write_closing(to, format, &snapshot, flows, style)
        });
        written.map_err(out)?;
        match ending {
            Ending::Lost(lost) => Err(lost.into()),
            Ending::TimeUp | Ending::Signal(_) | Ending::Done => Ok(0),
        }
    }

    /// Writes the attempts that have ended since the last call, in one write because there may be many. While
    /// stdout has no room they stay in the ring; what the ring has no room for is in `lost_events`.
    fn show_ended(&mut self, session: &mut Session) -> Result<(), CommandError> {
        let Self { args, lane, style, followed, .. } = self;
        if !args.output.events.0.is_any() {
            // They are for the recording and the evidence alone.
            session.for_each_ended(&mut |_, _| ControlFlow::Continue(()));
            return Ok(());
        }
        let mut piece = Vec::new();
        let written = lane.put(|to| {
            let mut written = Ok(());
            followed.take_ended(session, &mut |event, view| {
                written = report::write_event(&mut piece, args.output.format, view, event, *style);
                let goes_on = written.is_ok() && piece.len() < PIECE;
                if goes_on { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            });
            written.and_then(|()| to.write_all(&piece))
        });
        written.map(drop).map_err(out)
    }

    /// Looks at the tables for attempts that became half-open or expired since the last look. Where stdout
    /// has no room, the next look finds them.
    fn show_aged(&mut self, session: &Session) -> Result<(), CommandError> {
        let Self { args, lane, style, followed, .. } = self;
        if !followed.is_due() || !lane.has_room() {
            return Ok(());
        }
        // Its rows are bounded by the log.
        let Some(look) = followed.look(session, usize::MAX)? else { return Ok(()) };
        let (format, view) = (args.output.format, &look.view);
        let mut piece = Vec::new();
        for event in &look.events {
            report::write_event(&mut piece, format, view, event, *style).map_err(out)?;
        }
        if let Some(unlisted) = look.unlisted {
            report::write_unlisted(&mut piece, format, view, unlisted, *style).map_err(out)?;
        }
        lane.push(piece);
        Ok(())
    }

    /// Writes a report of the interval since the snapshot `before`.
    fn show_report(&mut self, session: &Session, before: &Snapshot) -> Result<(), CommandError> {
        let (format, style) = (self.args.output.format, self.style);
        let interval = Interval::between(before, session.last());
        let written = self.lane.put(|to| {
            report::write_report(to, format, session.last(), Some(&interval), style)?;
            if format == OutputFormat::Text { writeln!(to) } else { Ok(()) }
        });
        if written.map_err(out)? {
            if self.left_out > 0 {
                say(&format!("stdout is read again; reports left out: {}", self.left_out));
            }
            self.left_out = 0;
        } else {
            if self.left_out == 0 {
                say("stdout is not read: reports are left out until it is");
            }
            self.left_out += 1;
        }
        Ok(())
    }

    /// Says the first of several readings that failed, and the first that succeeded again.
    fn say_missed(&mut self, missed: Option<&AgentError>) {
        match (missed, self.missing) {
            (Some(error), false) => say(&format!("a snapshot is missed: {error}")),
            (None, true) => say("snapshots are taken again"),
            (Some(_), true) | (None, false) => {}
        }
        self.missing = missed.is_some();
    }
}

impl Sink for LineReports<'_> {
    type Input = ();
    type Error = CommandError;

    /// Writes a report of the interval that ends now, except for `-o json`, which has one report at the end.
    fn advance(&mut self, session: &mut Session) -> Result<ControlFlow<()>, CommandError> {
        self.show_ended(session)?;
        match session.advance() {
            Ok(before) => {
                self.say_missed(None);
                if self.args.output.format != OutputFormat::Json {
                    self.show_report(session, &before)?;
                }
            }
            Err(error) if error.is_passing() => self.say_missed(Some(&error)),
            Err(error) => return Err(error.into()),
        }
        Ok(ControlFlow::Continue(()))
    }

    fn take_ended(&mut self, session: &mut Session) -> Result<Duration, CommandError> {
        self.show_ended(session)?;
        self.show_aged(session)?;
        Ok(EVENTS_EVERY)
    }

    fn record(&mut self, session: &mut Session) -> Result<(), CommandError> {
        if let Some(recording) = &mut self.recording {
            recording.record(session)?.iter().for_each(|said| say(said));
        }
        if let Some(collector) = &mut self.collector {
            collector.collect(session)?;
            collector.write(session).iter().for_each(|said| say(said));
        }
        Ok(())
    }

    fn notice(&mut self, notice: &str) {
        announce(notice);
    }

    /// The end of stdout.
    async fn input(&mut self) {
        self.lane.ended().await;
    }

    fn handle(&mut self, _: &mut Session, (): ()) -> Result<ControlFlow<()>, CommandError> {
        // An error ends the run as such.
        self.lane.is_closed().map(|_| ControlFlow::Break(())).map_err(out)
    }
}
