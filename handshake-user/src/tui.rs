//! The live terminal of `handshake watch`.
//!
//! ```text
//! snapshot, what was kept of its records, ended attempts ─▶ Scene ─┐
//!                                          keys ─▶ Action ─▶ Ui ───┴─▶ draw
//! ```
//!
//! A scene is made once an interval; drawing is a function of scene and choices, and happens only when one of them changed.

mod attempt;
mod banner;
mod collect;
mod filter;
mod history;
mod keys;
mod recent;
mod scene;
mod state;
mod terminal;
#[cfg(test)]
mod testing;
mod theme;
mod view;

use std::fs::File;
use std::io::{self, IsTerminal as _};
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use anyhow::Context as _;
use ratatui::crossterm::event::Event;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::{Instant, sleep_until};

use crate::cli::{Format, Watch};
use crate::error::Error;
use crate::report::json;
use crate::session::{NEVER, Session, Signals};
use crate::snapshot::{Context, Snapshot};
use crate::source::Source;
use crate::time::rfc3339;
use crate::watch::{EVENTS_EVERY, ticks};

use collect::{Collecting, Kept};
use keys::action;
use recent::Recent;
use scene::{Director, Scene};
use state::{Effect, Screen, Ui};
use terminal::Tty;
use theme::Theme;

/// Between two pictures at least, but for those that a key asks for.
const REDRAW_EVERY: Duration = Duration::from_millis(250);
/// Fewer ends than this since the last time, and the ring is emptied less often: in so long it fills up at 670,000 a second.
const FEW_EVENTS: u64 = 1_000;
const EVENTS_IDLE: Duration = Duration::from_millis(60);
/// Services that are told of by name: all there is a row for.
pub(crate) const ALL_SERVICES: usize = usize::MAX;

/// How the show ended.
pub(crate) enum End {
    /// It was asked to, or its time was up.
    Asked,
    /// An interface went away.
    Lost(Error),
}

/// Is there a terminal to draw on and to read keys from, and is that what was asked for? Lines of the kernel's log would
/// be drawn over.
pub(crate) fn is_wanted(options: &Watch) -> bool {
    let capable = std::env::var_os("TERM").is_some_and(|term| !term.is_empty() && term != "dumb");
    let logs = options.scope.verbosity.verbose >= 2 && io::stderr().is_terminal();
    let text = options.output.format == Format::Text && !options.output.events;
    text && capable && !logs && io::stdin().is_terminal() && io::stdout().is_terminal()
}

/// Shows the session until the person quits, a signal comes, the time is up or an interface is lost. The terminal is then
/// as it was.
///
/// # Errors
///
/// Those of the terminal, and of reading the maps.
pub(crate) async fn run(
    options: &Watch,
    session: &mut Session,
    signals: &mut Signals,
) -> anyhow::Result<End> {
    let hangup = signal(SignalKind::hangup()).context("listen for signals")?;
    let tty = Tty::enter().context("prepare the terminal")?;
    let mut show = Show::new(options, session, tty)?;
    show.run(signals, hangup, terminal::events()).await
}

/// A show under way.
struct Show<'a> {
    options: &'a Watch,
    session: &'a mut Session,
    tty: Tty,
    ui: Ui,
    director: Director,
    recent: Recent,
    /// The latest scene, and the one that is shown: another while the picture is frozen.
    latest: Rc<Scene>,
    shown: Rc<Scene>,
    /// What is on the terminal.
    drawn: Option<(Rc<Scene>, Ui)>,
}

impl<'a> Show<'a> {
    fn new(options: &'a Watch, session: &'a mut Session, tty: Tty) -> anyhow::Result<Self> {
        let no_colour = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let ui = Ui::new(Theme { colour: !no_colour, ascii: options.ascii });
        let ui = Ui { rows: tty.rows()?, ..ui };
        let (mut director, recent) = (Director::default(), Recent::default());
        let kept = session.advance_by(|source, context, last| take(source, context, last, &ui))?;
        let runs = session.program_runs();
        let scene = Rc::new(director.advance(session.last().clone(), kept, &recent, runs));
        let (latest, shown) = (Rc::clone(&scene), scene);
        Ok(Self { options, session, tty, ui, director, recent, latest, shown, drawn: None })
    }

    async fn run(
        &mut self,
        signals: &mut Signals,
        mut hangup: Signal,
        mut input: UnboundedReceiver<Event>,
    ) -> anyhow::Result<End> {
        let start = Instant::now();
        let mut end = pin!(sleep_until(start + self.options.period.unwrap_or(NEVER)));
        let mut events = pin!(sleep_until(start));
        let mut snapshots = ticks(start, self.options.interval.max(REDRAW_EVERY));
        let mut redraws = ticks(start, REDRAW_EVERY);
        loop {
            self.draw()?;
            tokio::select! {
                biased;
                _ = signals.any() => return Ok(End::Asked),
                _ = hangup.recv() => return Ok(End::Asked),
                () = &mut end => return Ok(End::Asked),
                event = input.recv() => {
                    // Closed: the terminal has gone.
                    let Some(event) = event else { return Ok(End::Asked) };
                    if self.meet(&event)? == Some(Effect::Quit) {
                        return Ok(End::Asked);
                    }
                }
                _ = snapshots.tick() => {
                    self.advance()?;
                    if let Err(lost) = self.session.check_interfaces() {
                        return Ok(End::Lost(lost));
                    }
                }
                _ = redraws.tick() => self.show_ended(),
                () = &mut events => {
                    let pause = if self.take_ended() < FEW_EVENTS { EVENTS_IDLE } else { EVENTS_EVERY };
                    events.as_mut().reset(Instant::now() + pause);
                }
            }
        }
    }

    /// Draws, if what is on the terminal is no longer what it should be.
    fn draw(&mut self) -> io::Result<()> {
        if let Some((scene, ui)) = &self.drawn
            && Rc::ptr_eq(scene, &self.shown)
            && *ui == self.ui
        {
            return Ok(());
        }
        self.tty.draw(&self.shown, &self.ui)?;
        self.drawn = Some((Rc::clone(&self.shown), self.ui.clone()));
        Ok(())
    }

    /// A key, or another size.
    fn meet(&mut self, event: &Event) -> anyhow::Result<Option<Effect>> {
        match event {
            Event::Key(key) => {
                let Some(action) = action(*key, self.ui.input.is_some()) else { return Ok(None) };
                let effect = self.ui.apply(action, &self.shown);
                self.after(effect)?;
                Ok(effect)
            }
            Event::Resize(_, rows) => {
                self.ui.rows = *rows;
                self.drawn = None;
                Ok(None)
            }
            Event::FocusGained | Event::FocusLost | Event::Mouse(_) | Event::Paste(_) => Ok(None),
        }
    }

    /// What an action brings with it.
    fn after(&mut self, effect: Option<Effect>) -> anyhow::Result<()> {
        match effect {
            Some(Effect::Write) => self.ui.message = Some(write(&self.shown.snapshot)),
            Some(Effect::Redraw) => {
                self.tty.forget()?;
                self.drawn = None;
            }
            Some(Effect::Quit) | None => {}
        }
        self.recent.filter_by(&self.ui.filter, self.latest.clocks());
        self.show_latest();
        Ok(())
    }

    /// The next snapshot, and its scene.
    fn advance(&mut self) -> anyhow::Result<()> {
        self.take_ended();
        let ui = &self.ui;
        let kept = self.session.advance_by(|source, context, last| take(source, context, last, ui))?;
        let (snapshot, runs) = (self.session.last().clone(), self.session.program_runs());
        self.latest = Rc::new(self.director.advance(snapshot, kept, &self.recent, runs));
        self.show_latest();
        Ok(())
    }

    fn show_latest(&mut self) {
        if !self.ui.frozen && !Rc::ptr_eq(&self.latest, &self.shown) {
            self.shown = Rc::clone(&self.latest);
            self.ui.follow(&self.shown);
        }
    }

    /// Attempts that have ended since the last time, and how many.
    fn take_ended(&mut self) -> u64 {
        let told = self.recent.told();
        let (recent, clocks) = (&mut self.recent, self.latest.clocks());
        self.session.for_each_event(&mut |record, verdict, at_ns| {
            recent.push(*record, verdict, at_ns, clocks);
        });
        self.recent.told() - told
    }

    /// On the screen that lists them, those that have ended are shown between two snapshots too.
    fn show_ended(&mut self) {
        let told = self.recent.told() != self.latest.told;
        if told && self.ui.screen == Screen::Attempts && !self.ui.frozen {
            self.latest = Rc::new(self.latest.with_ended(&self.recent));
            self.show_latest();
        }
    }
}

/// A snapshot, and what is kept of the records it reads.
fn take(
    source: &mut dyn Source,
    context: &std::sync::Arc<Context>,
    last: &Snapshot,
    ui: &Ui,
) -> anyhow::Result<(Snapshot, Kept)> {
    let mut collecting = Collecting::new(source, &ui.filter, ui.opened.map(|opened| opened.id()));
    let snapshot = Snapshot::take(&mut collecting, context, Some(last))?;
    Ok((snapshot, collecting.kept()))
}

/// Writes a snapshot into a file of its own; says where, or why not.
fn write(snapshot: &Snapshot) -> String {
    // 20260301T120341.000000000Z: of the nanoseconds, the thousands tell two apart.
    let moment: String =
        rfc3339(snapshot.taken_at_ns).chars().filter(|c| !matches!(c, '-' | ':')).take(19).collect();
    let name = format!("handshake-{moment}Z.json");
    let written = File::create_new(&name).and_then(|mut file| json::write_report(&mut file, snapshot, None));
    match written {
        Ok(()) => format!(" wrote {name}"),
        Err(error) => format!(" cannot write {name}: {error}"),
    }
}
