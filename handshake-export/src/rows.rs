//! Rows of single attempts for exporters. What the loop learns it hands to a queue for each of them, and never
//! waits: what a queue has no room for is dropped there, the oldest first, and counted.
//!
//! ```text
//! the kernel's ring ─┐                       ┌─▶ queue ─▶ a thread: lines of a file
//! a look at times   ─┴─▶ events ─▶ Row ──────┴─▶ queue ─▶ a thread: records over the network
//! ```

use std::ops::ControlFlow;
use std::sync::Arc;

use handshake_agent::Error;
use handshake_agent::model::flow::{EndOwners, KeptView, View};
use handshake_agent::session::Session;
use handshake_common::flow::Side;

use crate::events::{Event, EventChoice, EventLog, Followed, Unlisted};
use crate::queue::Queue;

/// Rows that wait for an exporter.
pub const MOST_ROWS: usize = 1 << 15;
/// What waits for two exporters, beside a look that found as much: less than loading has taken before.
const _: () = assert!(MOST_ROWS * (2 * size_of::<Row>() + size_of::<Event>()) <= 23 << 20);
/// The name in `handshake_export_dropped_total` of what no exporter was given: rows of `failed` beyond those
/// that a second has room for.
const LEFT_OUT: &str = "events";

/// What happened to an attempt, with what is needed to tell of it elsewhere.
#[derive(Clone, Debug)]
pub struct Row {
    /// What happened, and the flow.
    pub event: Event,
    /// Whose its ends are. Exporters' threads may not read the tree of control groups, and a group may be gone
    /// when they come to the row.
    owners: EndOwners,
    scene: Arc<Scene>,
}

#[derive(Debug)]
struct Scene {
    view: KeptView,
    node: Arc<str>,
}

impl Row {
    fn new(event: Event, scene: &Arc<Scene>) -> Self {
        let view = scene.view.view();
        let owners = Side::BOTH.map(|side| view.owner(&event.flow, side));
        Self { event, owners, scene: Arc::clone(scene) }
    }

    /// From where the flow is shown: times by the wall clock, the interface's name, the seat, its owners.
    pub fn view(&self) -> View<'_> {
        self.scene.view.view().owned(&self.owners)
    }

    /// The name of this node.
    pub fn node(&self) -> &str {
        &self.scene.node
    }

    /// A row without a session.
    #[cfg(test)]
    pub(crate) fn of(event: Event, view: &View<'_>) -> Self {
        Self::new(event, &scene_of(view, &"node-1".into()))
    }
}

/// The rows of a session, and the exporters that take them.
pub struct Rows {
    followed: Followed,
    node: Arc<str>,
    sinks: Vec<Sink>,
    /// Rows that no exporter was given.
    left_out: u64,
}

/// An exporter of rows.
struct Sink {
    name: &'static str,
    queue: Arc<Queue<Row>>,
}

impl Rows {
    /// The rows of a node. `All` leaves none out; of `Failed` a second has room for
    /// [`ROWS`](crate::events::ROWS), and the ends of what was announced besides.
    pub fn new(choice: EventChoice, node: &str) -> Self {
        let log = match choice {
            EventChoice::All => EventLog::endless(choice),
            EventChoice::Failed | EventChoice::None => EventLog::bounded(choice),
        };
        Self { followed: Followed::new(log), node: node.into(), sinks: Vec::new(), left_out: 0 }
    }

    /// Adds an exporter by its name in `handshake_export_dropped_total`. It takes its rows from the queue.
    pub fn sink(&mut self, name: &'static str) -> Arc<Queue<Row>> {
        let queue = Arc::new(Queue::of(MOST_ROWS));
        self.sinks.push(Sink { name, queue: Arc::clone(&queue) });
        queue
    }

    /// Hands over what has ended since the last call, and once a second what has become half-open or expired.
    ///
    /// # Errors
    ///
    /// Those of reading the clocks and the counters, but for those that pass.
    pub fn take(&mut self, session: &mut Session) -> Result<(), Error> {
        self.take_ended(session);
        if self.followed.is_due() { self.look(session) } else { Ok(()) }
    }

    /// Hands over what is left, and tells each exporter that nothing more will come.
    pub fn close(&mut self, session: &mut Session) {
        self.take_ended(session);
        // What cannot be read now is never read.
        let _ = self.look(session);
        self.sinks.iter().for_each(|sink| sink.queue.close());
    }

    /// What was dropped, by exporter.
    pub fn dropped(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let by_sink = self.sinks.iter().map(|sink| (sink.name, sink.queue.dropped()));
        by_sink.chain((!self.sinks.is_empty()).then_some((LEFT_OUT, self.left_out)))
    }

    fn take_ended(&mut self, session: &mut Session) {
        let Self { followed, node, sinks, left_out } = self;
        let mut scene = None;
        followed.take_ended(session, &mut |event, view| {
            let scene = scene.get_or_insert_with(|| scene_of(view, node));
            push(sinks, event, scene);
            ControlFlow::Continue(())
        });
        *left_out += followed.take_unlisted().map_or(0, all);
    }

    fn look(&mut self, session: &Session) -> Result<(), Error> {
        let Self { followed, node, sinks, left_out } = self;
        let Some(look) = followed.look(session, MOST_ROWS)? else { return Ok(()) };
        let scene = scene_of(&look.view, node);
        look.events.iter().for_each(|event| push(sinks, event, &scene));
        sinks.iter().filter(|_| look.beyond > 0).for_each(|sink| sink.queue.count_dropped(look.beyond));
        *left_out += look.unlisted.map_or(0, all);
        Ok(())
    }
}

fn scene_of(view: &View<'_>, node: &Arc<str>) -> Arc<Scene> {
    Arc::new(Scene { view: view.keep(), node: Arc::clone(node) })
}

fn push(sinks: &[Sink], event: &Event, scene: &Arc<Scene>) {
    let row = Row::new(*event, scene);
    sinks.iter().for_each(|sink| sink.queue.push(row.clone()));
}

const fn all(unlisted: Unlisted) -> u64 {
    unlisted.half_open + unlisted.ended
}
