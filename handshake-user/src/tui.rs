//! The terminal: live in `handshake watch`, and over a capture that has been read in `handshake replay
//! --tui`.
//!
//! ```text
//! snapshot, kept records, ended attempts ─┬─▶ Scene ─┐
//!                  blocks of a recording ─┘          ├─▶ draw
//!                            keys ─▶ Action ─▶ Ui ───┘
//! ```
//!
//! A scene is built once per interval. Drawing is a function of the scene and the user's choices, and takes
//! place only when one of them changed.

mod banner;
mod collect;
mod filter;
mod history;
mod keys;
mod list;
mod look_back;
mod minute;
mod owners;
mod past;
mod recent;
mod scene;
mod screen;
mod service;
mod state;
mod surroundings;
mod terminal;
#[cfg(test)]
mod testing;
mod theme;
mod timeline;
mod view;

use std::io::{self, IsTerminal as _};
use std::ops::ControlFlow;
use std::rc::Rc;
use std::time::Duration;

use handshake_agent::Error as AgentError;
use handshake_agent::model::flow::Flow;
use handshake_agent::model::kept::KeptRecords;
use handshake_agent::model::snapshot::{Origin, RunContext, Snapshot};
use handshake_agent::session::{self, EVENTS_EVERY, Ending, Pace, Session, Signals, Sink};
use handshake_agent::source::Source;
use ratatui::crossterm::event::Event;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::{Instant, Interval as Ticks, MissedTickBehavior, interval};

use crate::console::say;
use crate::error::CommandError;
use crate::evidence::{Collector, LAST_EVIDENCE};
use crate::helper::Files;
use crate::names::Names;
use crate::output::{Lane, Patience};
use crate::recorder::Recording;
use crate::report::json;
use crate::time::Zone;
pub(crate) use past::{Past, PastCapture, explore, explore_recording};
pub(crate) use surroundings::Surroundings;

use collect::Collecting;
use keys::action;
use look_back::{LookBack, Seen};
use owners::Owners;
use recent::Recent;
use scene::{Scene, SceneBuilder};
use screen::Screen;
use state::{Effect, Ui};
use surroundings::Around;
use terminal::Tty;
use theme::Theme;
use timeline::Step;

/// The shortest time between two redraws, except those after a key.
const REDRAW_EVERY: Duration = Duration::from_millis(250);
/// With fewer ended attempts than this since the last read, the event ring is read after [`EVENTS_IDLE`]. In
/// that time it fills up at 670,000 ends per second.
const FEW_EVENTS: u64 = 1_000;
const EVENTS_IDLE: Duration = Duration::from_millis(60);
/// How long the screen stands still for a file.
const FILE_PATIENCE: Duration = Duration::from_millis(500);
/// Services listed by name: all that have a row.
pub(crate) const ALL_SERVICES: usize = usize::MAX;

/// Options of the live terminal.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ScreenOptions {
    /// Time between two snapshots.
    pub(crate) interval: Duration,
    /// Draw with ASCII characters only.
    pub(crate) ascii: bool,
    /// The zone of times.
    pub(crate) zone: Zone,
    /// The names of ends.
    pub(crate) names: Names,
    /// When the terminal closes by itself; `None`: when the user quits.
    pub(crate) until: Option<Instant>,
}

/// Whether stdin and stdout are a terminal that can be drawn on.
pub(crate) fn is_available() -> bool {
    let capable = std::env::var_os("TERM").is_some_and(|term| !term.is_empty() && term != "dumb");
    capable && io::stdin().is_terminal() && io::stdout().is_terminal()
}

/// Where the terminal's drawings and files go, and what it looks at beside the session.
pub(crate) struct Ways<'a> {
    /// Standard output.
    pub(crate) lane: &'a Lane,
    /// What is to be written.
    pub(crate) files: Files,
    /// What the kernel says beside the wire.
    pub(crate) surroundings: Surroundings,
    /// The recording that is made.
    pub(crate) recording: Option<Recording>,
    /// The evidence that is collected.
    pub(crate) collector: Option<Collector>,
}

/// Shows the session until the user quits, a signal arrives, the time is up, an interface is lost or the terminal
/// goes. Restores the terminal.
///
/// # Errors
///
/// Those of the terminal, and of reading the maps.
pub(crate) async fn run(
    options: &ScreenOptions,
    ways: Ways<'_>,
    session: &mut Session,
    signals: &mut Signals,
) -> Result<Ending, CommandError> {
    let tty = Tty::enter(ways.lane).map_err(CommandError::output("prepare the terminal"))?;
    let mut screen = LiveScreen::new(*options, session, tty, ways)?;
    let pace = Pace {
        snapshots: Some(options.interval.max(REDRAW_EVERY)),
        events: true,
        records: screen.recording.is_some() || screen.collector.is_some(),
        until: options.until,
        ..Pace::default()
    };
    let ending = session::run(session, signals, pace, &mut screen).await;
    if let Some(mut recording) = screen.recording.take() {
        recording.close(session);
        recording.finish();
    }
    let collector = screen.collector.take();
    // The terminal is restored before anything is said.
    drop(screen);
    if let Some(collector) = collector {
        collector.leave(session, LAST_EVIDENCE).iter().for_each(|said| say(said));
    }
    ending
}

/// The live terminal while it is shown.
struct LiveScreen {
    canvas: Canvas,
    redraws: Ticks,
    builder: SceneBuilder,
    recent: Recent,
    surroundings: Surroundings,
    recording: Option<Recording>,
    /// There where a recording is made.
    look_back: Option<LookBack>,
    collector: Option<Collector>,
}

/// The terminal, the choices of its user, and what is drawn on it.
struct Canvas {
    tty: Tty,
    files: Files,
    input: UnboundedReceiver<Event>,
    ui: Ui,
    /// The latest scene, and the one on the screen, which is older while the screen is frozen.
    latest: Rc<Scene>,
    shown: Rc<Scene>,
    /// Whether the one on the screen is of the past, whatever comes.
    is_past: bool,
    /// The scene and the choices drawn last, and how many names had come by then; `None` if everything must be
    /// redrawn.
    drawn: Option<(Rc<Scene>, Ui, u64)>,
}

/// Input besides snapshots and ended attempts.
enum ScreenInput {
    /// A key or a new size; `None` if the terminal was closed.
    Terminal(Option<Event>),
    /// What is seen of the recording.
    Seen(Seen),
    /// It is time to draw the attempts that ended since, and to look whether the terminal is still there.
    Redraw,
}

impl Sink for LiveScreen {
    type Input = ScreenInput;
    type Error = CommandError;

    /// Takes the next snapshot and builds its scene.
    fn advance(&mut self, session: &mut Session) -> Result<ControlFlow<()>, CommandError> {
        self.take_ended(session)?;
        let ui = &self.canvas.ui;
        let kept = match session.advance_by(|source, context, last| take(source, context, last, ui)) {
            Ok(kept) => kept,
            Err(error) if error.is_passing() => {
                self.canvas.ui.message = Some(format!(" a snapshot is missed: {error}"));
                return Ok(ControlFlow::Continue(()));
            }
            Err(error) => return Err(error.into()),
        };
        let (snapshot, runs) = (session.last().clone(), session.program_runs());
        let around = look_around(&mut self.surroundings, &snapshot);
        let scene = self.builder.advance(snapshot, kept, &self.recent, runs, around);
        self.recent.name_by(&scene.owners);
        self.canvas.show(scene);
        Ok(ControlFlow::Continue(()))
    }

    fn take_ended(&mut self, session: &mut Session) -> Result<Duration, CommandError> {
        let before = self.recent.total();
        let recent = &mut self.recent;
        session.for_each_ended(&mut |flow, _| {
            recent.push(*flow);
            ControlFlow::Continue(())
        });
        Ok(if self.recent.total() - before < FEW_EVENTS { EVENTS_IDLE } else { EVENTS_EVERY })
    }

    async fn input(&mut self) -> ScreenInput {
        tokio::select! {
            biased;
            event = self.canvas.input.recv() => ScreenInput::Terminal(event),
            Some(seen) = next_seen(&mut self.look_back) => ScreenInput::Seen(seen),
            _ = self.redraws.tick() => ScreenInput::Redraw,
        }
    }

    fn handle(&mut self, session: &mut Session, input: ScreenInput) -> Result<ControlFlow<()>, CommandError> {
        match input {
            ScreenInput::Terminal(None) => return Ok(ControlFlow::Break(())),
            ScreenInput::Terminal(Some(event)) => {
                let filter = self.canvas.ui.filter.clone();
                match self.canvas.handle_event(&event).map_err(drawing)? {
                    Some(Effect::Quit) => return Ok(ControlFlow::Break(())),
                    Some(Effect::Travel(step)) => self.travel(step),
                    Some(Effect::Save(flow)) => self.save(session, &flow)?,
                    Some(Effect::Write | Effect::Copy | Effect::Redraw) | None => {}
                }
                self.recent.filter_by(&self.canvas.ui.filter);
                if self.canvas.is_past && self.canvas.ui.filter != filter {
                    self.look_back.iter_mut().for_each(|look_back| look_back.ask(None));
                }
            }
            ScreenInput::Seen(seen) => self.see(seen),
            ScreenInput::Redraw if self.canvas.tty.has_gone().map_err(drawing)? => {
                return Ok(ControlFlow::Break(()));
            }
            ScreenInput::Redraw => self.show_ended(),
        }
        Ok(ControlFlow::Continue(()))
    }

    fn record(&mut self, session: &mut Session) -> Result<(), CommandError> {
        if let Some(recording) = &mut self.recording
            && let Some(said) = recording.record(session)?
        {
            self.canvas.ui.message = Some(format!(" {said}"));
        }
        if let Some(collector) = &mut self.collector {
            collector.collect(session)?;
            if let Some(said) = collector.write(session) {
                self.canvas.ui.message = Some(format!(" {said}"));
            }
        }
        Ok(())
    }

    fn notice(&mut self, notice: &str) {
        self.canvas.ui.message = Some(format!(" {notice}"));
    }

    fn settle(&mut self, _: &Session) -> Result<(), CommandError> {
        self.canvas.draw().map_err(drawing)
    }
}

fn drawing(error: io::Error) -> CommandError {
    CommandError::output("draw on the terminal")(error)
}

impl LiveScreen {
    fn new(
        options: ScreenOptions,
        session: &mut Session,
        tty: Tty,
        Ways { files, mut surroundings, mut recording, collector, .. }: Ways<'_>,
    ) -> Result<Self, CommandError> {
        let ui = Ui { is_recorded: recording.is_some(), ..choices(options.ascii, &tty)? };
        let mut builder = SceneBuilder::within(options.zone, options.names);
        let mut recent = Recent::default();
        let kept = session.advance_by(|source, context, last| take(source, context, last, &ui))?;
        let runs = session.program_runs();
        let around = look_around(&mut surroundings, session.last());
        let scene = builder.advance(session.last().clone(), kept, &recent, runs, around);
        recent.name_by(&scene.owners);
        let canvas = Canvas::new(tty, files, ui, scene);
        let look_back = recording.as_ref().map(|_| LookBack::start(options)).transpose();
        let look_back = look_back.map_err(AgentError::system("start the thread for the look back"))?;
        if let (Some(recording), Some(look_back)) = (&mut recording, &look_back) {
            recording.show_by(look_back.follows());
        }
        let redraws = redraws();
        Ok(Self { canvas, redraws, builder, recent, surroundings, recording, look_back, collector })
    }

    /// Saves the packets of an attempt, where evidence is collected, and says so.
    fn save(&mut self, session: &mut Session, flow: &Flow) -> Result<(), CommandError> {
        if let Some(collector) = &mut self.collector {
            let saved = collector.save(session, flow)?;
            self.canvas.ui.message = Some(format!(" {saved}"));
        }
        Ok(())
    }

    /// Goes to another moment of the recording. The present is there at once.
    fn travel(&mut self, step: Step) {
        let Some(look_back) = &mut self.look_back else { return };
        match step {
            Step::Back(_) | Step::On(_) => look_back.ask(Some(step)),
            Step::End => {
                look_back.leave();
                self.canvas.show_present();
            }
        }
    }

    /// Shows what was asked for.
    fn see(&mut self, seen: Seen) {
        let canvas = &mut self.canvas;
        let wanted = canvas.ui.opened.map(|opened| opened.id());
        let scene = match seen {
            Seen::Present => return canvas.show_present(),
            Seen::Past(Ok(reached)) => reached.and_then(|reached| reached.scene(&canvas.ui.filter, wanted)),
            Seen::Past(Err(error)) => {
                canvas.ui.message = Some(format!(" the recording cannot be read: {error}"));
                return;
            }
        };
        match scene {
            Some(scene) => canvas.show_past(scene),
            None => canvas.ui.message = Some(" this moment cannot be read".to_owned()),
        }
    }

    /// On the screen Attempts, shows the ended attempts between two snapshots as well.
    fn show_ended(&mut self) {
        let Self { canvas, recent, .. } = self;
        let is_newer = recent.total() != canvas.latest.ended_total;
        if is_newer && !canvas.is_past && canvas.ui.screen == Screen::Attempts && !canvas.ui.frozen {
            canvas.show(canvas.latest.with_ended(recent));
        }
    }
}

/// What is seen of the recording; never anything where none is made.
async fn next_seen(look_back: &mut Option<LookBack>) -> Option<Seen> {
    match look_back {
        Some(look_back) => look_back.next().await,
        None => std::future::pending().await,
    }
}

/// What the kernel says beside the wire, at the time of a snapshot.
fn look_around(surroundings: &mut Surroundings, snapshot: &Snapshot) -> Around {
    let watched: Vec<&str> = match &snapshot.context.origin {
        Origin::Live(live) => live.interfaces.iter().map(|interface| interface.name.as_str()).collect(),
        Origin::Capture(_) => Vec::new(),
    };
    surroundings.read(snapshot.now.ns, &watched)
}

/// The choices at the start.
fn choices(ascii: bool, tty: &Tty) -> Result<Ui, CommandError> {
    let no_colour = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let ui = Ui::new(Theme { colour: !no_colour, ascii });
    Ok(Ui { rows: tty.rows().map_err(drawing)?, ..ui })
}

/// The times of redraws.
fn redraws() -> Ticks {
    let mut redraws = interval(REDRAW_EVERY);
    redraws.set_missed_tick_behavior(MissedTickBehavior::Skip);
    redraws
}

impl Canvas {
    fn new(tty: Tty, files: Files, ui: Ui, scene: Scene) -> Self {
        let scene = Rc::new(scene);
        let (latest, shown) = (Rc::clone(&scene), scene);
        Self { tty, files, input: terminal::events(), ui, latest, shown, is_past: false, drawn: None }
    }

    /// Draws if the scene or the choices have changed since the last drawing, once the terminal has taken
    /// that.
    fn draw(&mut self) -> io::Result<()> {
        let named = self.shown.names.changes();
        if let Some((scene, ui, names)) = &self.drawn
            && Rc::ptr_eq(scene, &self.shown)
            && *ui == self.ui
            && *names == named
        {
            return Ok(());
        }
        if !self.tty.draw(&self.shown, &self.ui)? {
            return Ok(());
        }
        self.drawn = Some((Rc::clone(&self.shown), self.ui.clone(), named));
        Ok(())
    }

    /// Handles a key or a new size.
    fn handle_event(&mut self, event: &Event) -> io::Result<Option<Effect>> {
        match event {
            Event::Key(key) => {
                let Some(action) = action(*key, self.ui.mode()) else { return Ok(None) };
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

    /// Carries out the effect of an action.
    fn after(&mut self, effect: Option<Effect>) -> io::Result<()> {
        match effect {
            Some(Effect::Write) => self.ui.message = Some(write(&self.shown.snapshot, &mut self.files)),
            Some(Effect::Copy) => self.ui.message = Some(self.copy()),
            Some(Effect::Redraw) => {
                self.tty.forget()?;
                self.drawn = None;
            }
            Some(Effect::Save(_)) => {
                self.ui.message = Some(" packets are saved with --evidence DIR alone".to_owned())
            }
            Some(Effect::Quit | Effect::Travel(_)) | None => {}
        }
        self.show_latest();
        Ok(())
    }

    /// Copies what is shown, and returns the message to show.
    fn copy(&self) -> String {
        let text = view::copied(&self.shown, &self.ui);
        let lines = text.lines().count();
        if self.tty.copy(&text) {
            format!(" {lines} lines sent to the terminal's clipboard (OSC 52; tmux needs set-clipboard on)")
        } else {
            " this terminal has no clipboard: w writes a file".to_owned()
        }
    }

    /// Shows a scene, at once unless the screen is frozen.
    fn show(&mut self, scene: Scene) {
        self.latest = Rc::new(scene);
        self.show_latest();
    }

    /// Shows a scene of the past, until another is shown or the present.
    fn show_past(&mut self, scene: Scene) {
        self.is_past = true;
        self.shown = Rc::new(scene);
        self.ui.follow(&self.shown);
    }

    /// Shows the latest scene again.
    fn show_present(&mut self) {
        self.is_past = false;
        self.show_latest();
    }

    fn show_latest(&mut self) {
        if !self.is_past && !self.ui.frozen && !Rc::ptr_eq(&self.latest, &self.shown) {
            self.shown = Rc::clone(&self.latest);
            self.ui.follow(&self.shown);
        }
    }
}

/// Takes a snapshot and keeps some of the records that it reads.
fn take(
    source: &mut dyn Source,
    context: &std::sync::Arc<RunContext>,
    last: &Snapshot,
    ui: &Ui,
) -> Result<(Snapshot, KeptRecords), AgentError> {
    let owners = Owners::of_book(&context.owners);
    let wanted = ui.opened.map(|opened| opened.id());
    let mut collecting = Collecting::new(source, &ui.filter, &owners, wanted);
    let snapshot = Snapshot::take(&mut collecting, context, Some(last))?;
    Ok((snapshot, collecting.kept()))
}

/// Has a snapshot written to a new file and returns the message to show.
fn write(snapshot: &Snapshot, files: &mut Files) -> String {
    let mut content = Vec::new();
    let written = json::write_report(&mut content, snapshot, None)
        .and_then(|()| files.write(&content, Patience::Without(FILE_PATIENCE)));
    match written {
        Ok(name) => format!(" wrote {name}"),
        Err(error) => format!(" cannot write a file: {error}"),
    }
}
