//! OTLP/HTTP: figures and events to a collector, as messages of protobuf. One thread has both ways, each with
//! a queue and a connection of its own, so a dead, slow or wrong collector holds nothing but its thread.
//!
//! ```text
//! the loop ─▶ lane: a queue ─▶ metrics, logs: messages ─▶ post ─▶ collector
//!                 ◀──────────── later ────────────────────┘
//! settings     where to, and how: the option and the variables
//! origin       what the figures are of
//! messages     the messages
//! ```

mod lane;
mod logs;
pub mod messages;
mod metrics;
mod origin;
mod post;
pub mod settings;

use std::io;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use handshake_agent::confine::Confinement;
use prost::Message as _;
use tokio::sync::mpsc;
use tokio::time::timeout;

use self::lane::Lane;
use self::origin::Origin;
use self::post::Client;
pub use self::post::Resolver;
use self::settings::{Settings, Signal, Target};
use crate::page::Page;
use crate::queue::Queue;
use crate::rows::Row;

/// The name of the logs in `handshake_export_dropped_total`.
pub const LOGS: &str = Signal::Logs.sink();
/// Readings that wait. A later one has all that an earlier one had, but for its time.
const MOST_READINGS: usize = 16;
/// Records of a message.
const MOST_RECORDS: usize = 512;
/// How long a message waits for more records.
const RECORDS_WITHIN: Duration = Duration::from_secs(1);

/// The exporter, as the loop sees it.
pub struct Exporter {
    /// Where readings wait, where they are exported.
    readings: Option<Arc<Queue<Arc<Page>>>>,
    /// The time between two readings.
    interval: Duration,
    told: mpsc::UnboundedReceiver<String>,
}

/// What the exporter's thread begins with.
pub struct Start {
    /// Where to, and how.
    pub settings: Settings,
    /// The name of this node.
    pub node: String,
    /// Rows of single attempts; without them there are no logs.
    pub rows: Option<Arc<Queue<Row>>>,
    /// Who finds addresses, where an endpoint has a name.
    pub resolver: Option<Resolver>,
    /// What the thread is left with.
    pub confinement: Option<Confinement>,
}

impl Exporter {
    /// Starts the exporter's thread, which confines itself.
    ///
    /// # Errors
    ///
    /// The system's: there is no room for a thread or an event loop.
    pub fn start(start: Start) -> io::Result<Self> {
        let interval = start.settings.interval;
        let Start { settings, node, rows, resolver, confinement } = start;
        let origin = Arc::new(Origin::new(&node, &settings.attributes));
        let (tell, told) = mpsc::unbounded_channel();
        let resolver = resolver.map(|resolver| Arc::new(Mutex::new(resolver)));
        let client = |target: Target| Client::new(target, resolver.clone());
        let readings = settings.metrics.is_some().then(|| Arc::new(Queue::weighing(MOST_READINGS, points)));
        let metrics = readings.clone().map(|queue| metrics(queue, Arc::clone(&origin)));
        let metrics = metrics.zip(settings.metrics.map(client));
        let logs = rows.map(|queue| logs(queue, origin)).zip(settings.logs.map(client));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
        thread::Builder::new().name("otlp".to_owned()).spawn(move || {
            // What fails here fails on the main thread too, which says so.
            let _ = confinement.map(|confinement| confinement.apply());
            let tell_too = tell.clone();
            runtime.block_on(async {
                tokio::join!(run(metrics, tell), run(logs, tell_too));
            });
            // A search for addresses may take for ever.
            runtime.shutdown_background();
        })?;
        Ok(Self { readings, interval, told })
    }

    /// The time between two readings that are exported, where any are.
    pub fn every(&self) -> Option<Duration> {
        self.readings.as_ref().map(|_| self.interval)
    }

    /// Has a reading exported.
    pub fn export(&self, page: &Arc<Page>) {
        self.readings.iter().for_each(|queue| queue.push(Arc::clone(page)));
    }

    /// How many points of readings were dropped. Rows are counted by their own queue.
    pub fn dropped(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.readings.iter().map(|queue| (Signal::Metrics.sink(), queue.dropped()))
    }

    /// Waits for something to say of a collector. Cancel-safe.
    pub async fn told(&mut self) -> String {
        match self.told.recv().await {
            Some(words) => words,
            None => std::future::pending().await,
        }
    }

    /// Has what waits sent once more. The queue of rows is closed by who fills it.
    pub fn close(&self) {
        self.readings.iter().for_each(|queue| queue.close());
    }

    /// Waits until that is done, for so long at most. Returns what there is still to say.
    pub async fn finish(mut self, within: Duration) -> Vec<String> {
        let mut told = Vec::new();
        let end = async {
            while let Some(words) = self.told.recv().await {
                told.push(words);
            }
        };
        if timeout(within, end).await.is_err() {
            told.push("OTLP: the collector takes too long, and what it has not taken is dropped".to_owned());
        }
        told
    }
}

async fn run<T>(way: Option<(Lane<T>, Client)>, tell: mpsc::UnboundedSender<String>) {
    if let Some((lane, client)) = way {
        lane.run(client, tell).await;
    }
}

fn points(page: &Arc<Page>) -> u64 {
    page.exposition().series() as u64
}

fn metrics(queue: Arc<Queue<Arc<Page>>>, origin: Arc<Origin>) -> Lane<Arc<Page>> {
    let encode = move |pages: &[Arc<Page>]| {
        let message = |page: &Arc<Page>| metrics::request(page.exposition(), &origin).encode_to_vec();
        // Messages that follow each other are one with the content of both.
        (pages.iter().flat_map(message).collect(), pages.iter().map(points).sum())
    };
    Lane { signal: Signal::Metrics, queue, most: 1, patience: Duration::ZERO, encode: Box::new(encode) }
}

fn logs(queue: Arc<Queue<Row>>, origin: Arc<Origin>) -> Lane<Row> {
    let encode = move |rows: &[Row]| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now_ns = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
        (logs::request(rows, &origin, now_ns).encode_to_vec(), rows.len() as u64)
    };
    let encode = Box::new(encode);
    Lane { signal: Signal::Logs, queue, most: MOST_RECORDS, patience: RECORDS_WITHIN, encode }
}
