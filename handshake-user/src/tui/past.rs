//! The four screens over a capture that has been read to its end, or over a recording. Time stands still: only the
//! choices change, and a new filter looks through all flows of the capture, because none is lost meanwhile.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io;
use std::rc::Rc;
use std::sync::Arc;

use handshake_agent::Error as AgentError;
use handshake_agent::model::flow::frames::FrameIndex;
use handshake_agent::model::flow::{Flow, FlowEnd, View};
use handshake_agent::model::snapshot::{RunContext, Snapshot};
use handshake_agent::session::Signals;
use handshake_agent::source::{Moment, Source};
use handshake_common::record::Record;

use super::collect::{Collecting, UDP_KEPT};
use super::filter::ListFilter;
use super::owners::Owners;
use super::recent::{KEPT, Recent};
use super::scene::{Scene, SceneBuilder};
use super::state::{Effect, Ui};
use super::surroundings::Around;
use super::terminal::Tty;
use super::timeline::{Reached, Timeline};
use super::{Canvas, ScreenOptions, choices, drawing, redraws};
use crate::error::CommandError;
use crate::helper::Files;
use crate::output::Lane;
use handshake_agent::model::kept::KeptRecords;
use handshake_record::Reel;

/// What is kept for the screens while a capture is read.
#[derive(Default)]
pub(crate) struct Past {
    /// The times of each service's latest completions.
    recent: Recent,
    /// The capture's beginning, when nothing had passed.
    began: Option<Snapshot>,
}

impl Past {
    /// Notes the beginning of the capture at `time_ns`.
    pub(crate) fn begin(&mut self, mut nothing: Snapshot, time_ns: u64) {
        nothing.now.ns = time_ns;
        nothing.taken_at_ns = time_ns;
        self.began = Some(nothing);
    }

    /// Notes an attempt that ended.
    pub(crate) fn end(&mut self, attempt: Flow) {
        self.recent.push(attempt);
    }
}

/// A capture that has been read.
pub(crate) struct PastCapture<'a> {
    /// Its records.
    pub(crate) source: &'a mut dyn Source,
    /// What stays the same over the run; it lists all services.
    pub(crate) context: Arc<RunContext>,
    /// The flows whose records were evicted.
    pub(crate) evicted: &'a [Flow],
    /// Where the flows' packets are.
    pub(crate) frames: Rc<FrameIndex>,
}

/// Shows a capture on `lane`, which is stdout, until the user quits, a signal arrives or the terminal goes.
/// Restores the terminal.
///
/// # Errors
///
/// Those of the terminal.
pub(crate) async fn explore(
    options: ScreenOptions,
    lane: &Lane,
    files: Files,
    mut past: Past,
    mut capture: PastCapture<'_>,
    signals: &mut Signals,
) -> Result<(), CommandError> {
    let tty = Tty::enter(lane).map_err(CommandError::output("prepare the terminal"))?;
    let ui = choices(options.ascii, &tty)?;
    let scene = scene(&mut past, &mut capture, &ui, options)?;
    let mut canvas = Canvas::new(tty, files, ui, scene);
    let mut redraws = redraws();
    loop {
        canvas.draw().map_err(drawing)?;
        tokio::select! {
            biased;
            _ = signals.any() => return Ok(()),
            event = canvas.input.recv() => {
                let Some(event) = event else { return Ok(()) };
                let filter = canvas.ui.filter.clone();
                if canvas.handle_event(&event).map_err(drawing)? == Some(Effect::Quit) {
                    return Ok(());
                }
                if canvas.ui.filter != filter {
                    canvas.show(self::scene(&mut past, &mut capture, &canvas.ui, options)?);
                }
            }
            _ = redraws.tick() => {
                if canvas.tty.has_gone().map_err(drawing)? {
                    return Ok(());
                }
            }
        }
    }
}

/// Shows a recording on `lane`, from this moment on, until the user quits, a signal arrives or the terminal goes.
/// Restores the terminal. Returns the moment that was shown last.
///
/// # Errors
///
/// Those of the terminal, and of reading the recording.
pub(crate) async fn explore_recording(
    options: ScreenOptions,
    lane: &Lane,
    files: Files,
    (reel, number): (&Reel, usize),
    signals: &mut Signals,
) -> Result<usize, CommandError> {
    let tty = Tty::enter(lane).map_err(CommandError::output("prepare the terminal"))?;
    let ui = Ui { is_recorded: true, ..choices(options.ascii, &tty)? };
    let mut timeline = Timeline::at(number);
    let unreadable =
        || CommandError::output("read the recording")(io::Error::other("the moment makes no sense"));
    let reach = |number| {
        let reached = Reached::at(number, reel, &options).map_err(CommandError::output("read the recording"));
        reached.map(Option::into_iter)
    };
    let scene = reach(number)?.find_map(|reached| reached.scene(&ui.filter, None)).ok_or_else(unreadable)?;
    let mut canvas = Canvas::new(tty, files, ui, scene);
    let mut redraws = redraws();
    loop {
        canvas.draw().map_err(drawing)?;
        tokio::select! {
            biased;
            _ = signals.any() => break,
            event = canvas.input.recv() => {
                let Some(event) = event else { break };
                let filter = canvas.ui.filter.clone();
                let effect = canvas.handle_event(&event).map_err(drawing)?;
                if effect == Some(Effect::Quit) {
                    break;
                }
                if let Some(Effect::Travel(step)) = effect {
                    timeline.go(step, reel, false);
                } else if canvas.ui.filter == filter {
                    continue;
                }
                let wanted = canvas.ui.opened.map(|opened| opened.id());
                let mut reached = reach(timeline.shown().unwrap_or(number))?;
                match reached.find_map(|reached| reached.scene(&canvas.ui.filter, wanted)) {
                    Some(scene) => canvas.show(scene),
                    None => canvas.ui.message = Some(" this moment cannot be read".to_owned()),
                }
            }
            _ = redraws.tick() => {
                if canvas.tty.has_gone().map_err(drawing)? {
                    break;
                }
            }
        }
    }
    Ok(timeline.shown().unwrap_or(number))
}

/// The scene of the capture's end. Its window is the whole capture.
fn scene(
    past: &mut Past,
    capture: &mut PastCapture<'_>,
    ui: &Ui,
    options: ScreenOptions,
) -> Result<Scene, AgentError> {
    // A capture does not tell whose the ends are.
    let owners = Owners::default();
    let wanted = ui.opened.map(|opened| opened.id());
    let mut collecting = Collecting::new(capture.source, &ui.filter, &owners, wanted);
    let snapshot = Snapshot::take(&mut collecting, &capture.context, past.began.as_ref())?;
    // All silent connections and UDP flows are among the ended ones, also those past their time.
    let kept = KeptRecords { silent: Vec::new(), udp: Vec::new(), ..collecting.kept() };
    let ended = ended(&*capture.source, capture.evicted, &ui.filter, (&View::of(&snapshot), &owners));
    past.recent.list(&ui.filter, ended);
    let mut builder = SceneBuilder::within(options.zone, options.names);
    if let Some(began) = past.began.clone() {
        builder.advance(began, KeptRecords::default(), &past.recent, Vec::new(), Around::default());
    }
    let mut scene = builder.advance(snapshot, kept, &past.recent, Vec::new(), Around::default());
    scene.frames = Some(Rc::clone(&capture.frames));
    Ok(scene)
}

/// The attempts that are not open any more, and the UDP flows, that pass the filter: the latest of each.
fn ended(
    source: &dyn Source,
    evicted: &[Flow],
    filter: &ListFilter,
    (view, owners): (&View<'_>, &Owners),
) -> Vec<Flow> {
    let (mut attempts, mut udp) = (Latest::of(KEPT), Latest::of(UDP_KEPT));
    let mut offer = |flow: Flow| {
        let interface = view.interface(&flow).unwrap_or_default();
        if filter.admits(&flow, &view.moment, Some(interface), owners) {
            if flow.record.key.udp { udp.offer(flow) } else { attempts.offer(flow) }
        }
    };
    let is_listed = |record: &Record| record.state.is_attempt() || record.state.is_udp();
    evicted.iter().filter(|flow| is_listed(&flow.record)).for_each(|flow| offer(*flow));
    source.for_each_record(&mut |record| {
        let flow = Flow::of(*record);
        if record.state.is_udp() || flow.is_silent(&view.moment) {
            offer(flow);
        } else if record.state.is_attempt() && is_past(record, &view.moment) {
            let end = FlowEnd { standing: flow.standing(&view.moment), at_ns: flow.ended_ns() };
            offer(Flow { ended: Some(end), ..flow });
        }
    });
    attempts.flows.extend(udp.flows);
    attempts.flows
}

/// Whether it is no attempt that a scan finds open.
const fn is_past(record: &Record, moment: &Moment) -> bool {
    !record.state.is_open() || record.expired(moment.now, &moment.clocks)
}

/// The flows with the latest moments, up to a maximum.
struct Latest {
    most: usize,
    flows: Vec<Flow>,
    /// The moments with the places in `flows`, the earliest on top.
    heap: BinaryHeap<(Reverse<u64>, usize)>,
}

impl Latest {
    const fn of(most: usize) -> Self {
        Self { most, flows: Vec::new(), heap: BinaryHeap::new() }
    }

    fn offer(&mut self, flow: Flow) {
        let moment = Reverse(flow.moment_ns());
        if self.flows.len() < self.most {
            self.heap.push((moment, self.flows.len()));
            self.flows.push(flow);
        } else if let Some(mut earliest) = self.heap.peek_mut()
            && moment < earliest.0
        {
            earliest.0 = moment;
            self.flows[earliest.1] = flow;
        }
    }
}
