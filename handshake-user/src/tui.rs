//! The live terminal of `handshake watch`.
//!
//! ```text
//! snapshot, what was kept of its records, ended attempts ─▶ Scene ─┐
//!                                          keys ─▶ Action ─▶ Ui ───┴─▶ draw
//! ```
//!
//! A scene is made once an interval; drawing is a function of scene and choices, and happens only when one of them changed.

mod banner;
mod collect;
mod filter;
mod history;
mod keys;
mod list;
mod recent;
mod scene;
mod screen;
mod service;
mod state;
mod terminal;
#[cfg(test)]
mod testing;
mod theme;
mod view;

use std::fs::File;
use std::io::{self, IsTerminal as _};
use std::ops::ControlFlow;
use std::rc::Rc;
use std::time::Duration;

use handshake_agent::Error as AgentError;
use handshake_agent::model::snapshot::{Context, Snapshot};
use handshake_agent::session::{self, EVENTS_EVERY, Ending, Pace, Session, Signals, Sink};
use handshake_agent::source::Source;
use ratatui::crossterm::event::Event;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::{Instant, Interval as Ticks, MissedTickBehavior, interval};

use crate::error::CommandError;
use crate::report::json;
use crate::time::rfc3339;
use collect::{Collecting, KeptRecords};
use keys::action;
use recent::Recent;
use scene::{Scene, SceneBuilder};
use screen::Screen;
use state::{Effect, Ui};
use terminal::Tty;
use theme::Theme;

/// The shortest time between two pictures, except those that a key asks for.
const REDRAW_EVERY: Duration = Duration::from_millis(250);
/// With fewer ends than this since the last time, the ring is emptied less often: in that pause it fills up at 670,000
/// ends per second.
const FEW_EVENTS: u64 = 1_000;
const EVENTS_IDLE: Duration = Duration::from_millis(60);
/// Services that are listed by name: all that have a row.
pub(crate) const ALL_SERVICES: usize = usize::MAX;

/// What the terminal is told.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ScreenOptions {
    /// Between two snapshots.
    pub(crate) interval: Duration,
    /// Draw with ASCII characters only.
    pub(crate) ascii: bool,
    /// When the show ends by itself.
    pub(crate) until: Option<Instant>,
}

/// Whether there is a terminal to draw on and to read keys from.
pub(crate) fn is_available() -> bool {
    let capable = std::env::var_os("TERM").is_some_and(|term| !term.is_empty() && term != "dumb");
    capable && io::stdin().is_terminal() && io::stdout().is_terminal()
}

/// Shows the session until the user quits, a signal comes, the time is up or an interface is lost. The terminal is then
/// as it was.
///
/// # Errors
///
/// Those of the terminal, and of reading the maps.
pub(crate) async fn run(
    options: &ScreenOptions,
    session: &mut Session,
    signals: &mut Signals,
) -> Result<Ending, CommandError> {
    let tty = Tty::enter().map_err(CommandError::output("prepare the terminal"))?;
    let mut screen = LiveScreen::new(*options, session, tty)?;
    let pace =
        Pace { snapshots: Some(options.interval.max(REDRAW_EVERY)), events: true, until: options.until };
    session::run(session, signals, pace, &mut screen).await
}

/// A show under way.
struct LiveScreen {
    tty: Tty,
    input: UnboundedReceiver<Event>,
    redraws: Ticks,
    ui: Ui,
    builder: SceneBuilder,
    recent: Recent,
    /// The latest scene, and the one that is shown: another while the picture is frozen.
    latest: Rc<Scene>,
    shown: Rc<Scene>,
    /// What is on the terminal.
    drawn: Option<(Rc<Scene>, Ui)>,
}

/// What comes to the show beside snapshots and ended attempts.
enum ScreenInput {
    /// A key or another size; `None`: the terminal has gone.
    Terminal(Option<Event>),
    /// Time to draw what has ended meanwhile.
    Redraw,
}

impl Sink for LiveScreen {
    type Input = ScreenInput;
    type Error = CommandError;

    /// The next snapshot, and its scene.
    fn advance(&mut self, session: &mut Session) -> Result<ControlFlow<()>, CommandError> {
        self.take_ended(session)?;
        let ui = &self.ui;
        let kept = session.advance_by(|source, context, last| take(source, context, last, ui))?;
        let (snapshot, runs) = (session.last().clone(), session.program_runs());
        self.latest = Rc::new(self.builder.advance(snapshot, kept, &self.recent, runs));
        self.show_latest();
        Ok(ControlFlow::Continue(()))
    }

    fn take_ended(&mut self, session: &mut Session) -> Result<Duration, CommandError> {
        let told = self.recent.told();
        let recent = &mut self.recent;
        session.for_each_ended(&mut |flow, _| recent.push(*flow));
        Ok(if self.recent.told() - told < FEW_EVENTS { EVENTS_IDLE } else { EVENTS_EVERY })
    }

    async fn input(&mut self) -> ScreenInput {
        tokio::select! {
            biased;
            event = self.input.recv() => ScreenInput::Terminal(event),
            _ = self.redraws.tick() => ScreenInput::Redraw,
        }
    }

    fn handle(&mut self, _: &mut Session, input: ScreenInput) -> Result<ControlFlow<()>, CommandError> {
        match input {
            ScreenInput::Terminal(None) => return Ok(ControlFlow::Break(())),
            ScreenInput::Terminal(Some(event)) => {
                if self.handle_event(&event).map_err(drawing)? == Some(Effect::Quit) {
                    return Ok(ControlFlow::Break(()));
                }
            }
            ScreenInput::Redraw => self.show_ended(),
        }
        Ok(ControlFlow::Continue(()))
    }

    fn settle(&mut self) -> Result<(), CommandError> {
        self.draw().map_err(drawing)
    }
}

fn drawing(error: io::Error) -> CommandError {
    CommandError::output("draw on the terminal")(error)
}

impl LiveScreen {
    fn new(options: ScreenOptions, session: &mut Session, tty: Tty) -> Result<Self, CommandError> {
        let no_colour = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let ui = Ui::new(Theme { colour: !no_colour, ascii: options.ascii });
        let ui = Ui { rows: tty.rows().map_err(drawing)?, ..ui };
        let (mut builder, recent) = (SceneBuilder::default(), Recent::default());
        let kept = session.advance_by(|source, context, last| take(source, context, last, &ui))?;
        let runs = session.program_runs();
        let scene = Rc::new(builder.advance(session.last().clone(), kept, &recent, runs));
        let (latest, shown) = (Rc::clone(&scene), scene);
        let mut redraws = interval(REDRAW_EVERY);
        redraws.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let input = terminal::events();
        Ok(Self { tty, input, redraws, ui, builder, recent, latest, shown, drawn: None })
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
    fn handle_event(&mut self, event: &Event) -> io::Result<Option<Effect>> {
        match event {
            Event::Key(key) => {
                let Some(action) = action(*key, self.ui.input.is_some()) else { return Ok(None) };
                self.ui.health_lines = view::health_lines(&self.shown, &self.ui);
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
    fn after(&mut self, effect: Option<Effect>) -> io::Result<()> {
        match effect {
            Some(Effect::Write) => self.ui.message = Some(write(&self.shown.snapshot)),
            Some(Effect::Redraw) => {
                self.tty.forget()?;
                self.drawn = None;
            }
            Some(Effect::Quit) | None => {}
        }
        self.recent.filter_by(&self.ui.filter);
        self.show_latest();
        Ok(())
    }

    fn show_latest(&mut self) {
        if !self.ui.frozen && !Rc::ptr_eq(&self.latest, &self.shown) {
            self.shown = Rc::clone(&self.latest);
            self.ui.follow(&self.shown);
        }
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
) -> Result<(Snapshot, KeptRecords), AgentError> {
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
