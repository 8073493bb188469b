//! `handshake watch`: read and report until something ends it.

use std::time::Duration;

use tokio::time::{Instant, Interval as Ticks, MissedTickBehavior, interval_at, sleep_until};

use crate::cli::{Format, Watch};
use crate::report::{self, text::Style};
use crate::session::{self, NEVER, Session, Signals};
use crate::snapshot::Interval;
use crate::tui::{self, End};

/// How often the event ring is emptied: at 500,000 finished attempts a second its 4 MiB last 80 ms.
pub(crate) const EVENTS_EVERY: Duration = Duration::from_millis(20);

/// Runs the command; its exit code.
///
/// # Errors
///
/// What keeps it from attaching, each with its fix and exit code; what the output does not take.
pub(crate) fn run(options: &Watch) -> anyhow::Result<u8> {
    session::with_plan(&options.scope, async |plan| {
        let mut signals = Signals::new()?;
        let output = &options.output;
        if tui::is_wanted(options) {
            let session = Session::open(&options.scope, &plan, tui::ALL_SERVICES, true)?;
            return show(options, session, &mut signals).await;
        }
        let session = Session::open(&options.scope, &plan, output.top, output.events)?;
        Agent::new(options, session).watch(&mut signals).await
    })
}

/// Shows it on the terminal; the last report stays there.
async fn show(options: &Watch, mut session: Session, signals: &mut Signals) -> anyhow::Result<u8> {
    let end = tui::run(options, &mut session, signals).await?;
    session.list_services(options.output.top);
    Agent::new(options, session).close()?;
    match end {
        End::Asked => Ok(0),
        End::Lost(lost) => Err(lost.into()),
    }
}

/// A run under way.
struct Agent<'a> {
    options: &'a Watch,
    session: Session,
    out: report::Output<std::io::Stdout>,
    style: Style,
}

impl<'a> Agent<'a> {
    fn new(options: &'a Watch, session: Session) -> Self {
        let out = report::Output::to(std::io::stdout());
        Self { options, session, out, style: Style::of(&std::io::stdout()) }
    }

    /// Reports until the time is up, a signal comes, the reader goes or an interface is lost.
    async fn watch(&mut self, signals: &mut Signals) -> anyhow::Result<u8> {
        let start = Instant::now();
        let mut reports = ticks(start, self.options.interval);
        let mut events = ticks(start, if self.options.output.events { EVENTS_EVERY } else { NEVER });
        let end = start + self.options.period.unwrap_or(NEVER);
        while !self.out.is_closed() {
            tokio::select! {
                biased;
                _ = signals.any() => break,
                () = sleep_until(end) => break,
                _ = reports.tick() => {
                    self.report()?;
                    if let Err(lost) = self.session.check_interfaces() {
                        self.close()?;
                        return Err(lost.into());
                    }
                }
                _ = events.tick() => self.show_events()?,
            }
        }
        self.close()?;
        Ok(0)
    }

    /// A report for the interval that ends now. `-o json` has one at the end only.
    fn report(&mut self) -> anyhow::Result<()> {
        self.show_events()?;
        let before = self.session.advance()?;
        let format = self.options.output.format;
        if format != Format::Json {
            let interval = Interval::between(&before, self.session.last());
            report::write_report(&mut self.out, format, self.session.last(), Some(&interval), self.style)?;
            self.part()?;
        }
        Ok(())
    }

    /// An empty line between two reports that people read.
    fn part(&mut self) -> std::io::Result<()> {
        if self.options.output.format == Format::Text { self.out.put(|out| writeln!(out)) } else { Ok(()) }
    }

    fn close(&mut self) -> anyhow::Result<()> {
        self.show_events()?;
        self.session.advance()?;
        let flows = self.options.output.flows.then(|| self.session.flows());
        let format = self.options.output.format;
        report::write_closing(&mut self.out, format, self.session.last(), flows.as_deref(), self.style)?;
        Ok(())
    }

    /// Writes the attempts that have ended since the last time: together, for there may be many.
    fn show_events(&mut self) -> anyhow::Result<()> {
        let Self { options, session, out, style } = self;
        if !options.output.events {
            return Ok(());
        }
        Ok(out.put(|out| {
            let mut written = Ok(());
            session.for_each_ended(&mut |flow| {
                if written.is_ok() {
                    written = report::write_flow(out, options.output.format, flow, *style);
                }
            });
            written
        })?)
    }
}

/// A tick every `period`, the first after one.
pub(crate) fn ticks(start: Instant, period: Duration) -> Ticks {
    let mut ticks = interval_at(start + period, period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    ticks
}
