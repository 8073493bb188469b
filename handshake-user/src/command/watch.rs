//! `handshake watch`: reports on the live terminal or as lines until it is stopped.

use std::convert::Infallible;
use std::future::{Future, pending};
use std::ops::ControlFlow;
use std::time::Duration;

use handshake_agent::model::snapshot::Interval;
use handshake_agent::session::{self, EVENTS_EVERY, Ending, Pace, Session, Signals, Sink};
use tokio::time::Instant;

use crate::cli::WatchArgs;
use crate::command::{attach, out};
use crate::error::CommandError;
use crate::report::{self, OutputFormat, text::Style};
use crate::tui;

/// Runs `handshake watch` and returns its exit code.
///
/// # Errors
///
/// Failures to attach or to write the report; a lost interface.
pub(crate) fn run(args: &WatchArgs) -> Result<u8, CommandError> {
    let lines = LineReports::new(args);
    let screen = tui::is_available() && args.wants_screen();
    let mut watched = args.watched();
    if screen {
        watched.top = tui::ALL_SERVICES;
        watched.events = true;
    }
    let plan = session::plan(&watched)?;
    session::block_on(async {
        let mut signals = Signals::new()?;
        let mut session = attach(&watched, &plan)?;
        let until = args.period.map(|time| Instant::now() + time);
        if screen {
            let options = tui::ScreenOptions { interval: args.interval, ascii: args.ascii, until };
            let ending = tui::run(&options, &mut session, &mut signals).await?;
            // The closing report is printed after the screen is left; it lists `--top` services.
            session.list_services(args.output.top);
            return lines.close(&mut session, ending);
        }
        let pace = Pace { snapshots: Some(args.interval), events: args.output.events, until };
        let mut lines = lines;
        let ending = session::run(&mut session, &mut signals, pace, &mut lines).await?;
        lines.close(&mut session, ending)
    })
}

/// Writes reports to stdout as lines of text or JSON.
struct LineReports<'a> {
    args: &'a WatchArgs,
    out: report::Output<std::io::Stdout>,
    style: Style,
}

impl<'a> LineReports<'a> {
    fn new(args: &'a WatchArgs) -> Self {
        let out = report::Output::to(std::io::stdout());
        Self { args, out, style: Style::of(&std::io::stdout()) }
    }

    /// Writes the closing report and returns the exit code.
    fn close(mut self, session: &mut Session, ending: Ending) -> Result<u8, CommandError> {
        self.show_ended(session)?;
        session.advance()?;
        let listed = self.args.output.flows.then(|| session.flows());
        let flows = listed.as_deref().map(|flows| (session.view(), flows));
        let format = self.args.output.format;
        report::write_closing(&mut self.out, format, session.last(), flows, self.style).map_err(out)?;
        match ending {
            Ending::Lost(lost) => Err(lost.into()),
            Ending::TimeUp | Ending::Signal(_) | Ending::Done => Ok(0),
        }
    }

    /// Writes the attempts that have ended since the last call, in one write because there may be many.
    fn show_ended(&mut self, session: &mut Session) -> Result<(), CommandError> {
        let Self { args, out: output, style } = self;
        if !args.output.events {
            return Ok(());
        }
        let written = output.put(|out| {
            let mut written = Ok(());
            session.for_each_ended(&mut |flow, view| {
                if written.is_ok() {
                    written = report::write_flow(out, args.output.format, view, flow, *style);
                }
            });
            written
        });
        written.map_err(out)
    }
}

impl Sink for LineReports<'_> {
    type Input = Infallible;
    type Error = CommandError;

    /// Writes a report of the interval that ends now, except for `-o json`, which has one report at the end.
    fn advance(&mut self, session: &mut Session) -> Result<ControlFlow<()>, CommandError> {
        self.show_ended(session)?;
        let before = session.advance()?;
        let format = self.args.output.format;
        if format != OutputFormat::Json {
            let interval = Interval::between(&before, session.last());
            report::write_report(&mut self.out, format, session.last(), Some(&interval), self.style)
                .map_err(out)?;
            if format == OutputFormat::Text {
                self.out.put(|out| writeln!(out)).map_err(out)?;
            }
        }
        Ok(if self.out.is_closed() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    }

    fn take_ended(&mut self, session: &mut Session) -> Result<Duration, CommandError> {
        self.show_ended(session)?;
        Ok(EVENTS_EVERY)
    }

    fn input(&mut self) -> impl Future<Output = Infallible> {
        pending()
    }

    fn handle(&mut self, _: &mut Session, input: Infallible) -> Result<ControlFlow<()>, CommandError> {
        match input {}
    }
}
