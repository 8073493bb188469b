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
pub mod messages;
mod metrics;
mod origin;
mod post;
pub mod settings;

use std::io;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use handshake_agent::confine::Confinement;
use prost::Message as _;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

use self::lane::{Lane, Packing};
use self::origin::Origin;
use self::post::Client;
pub use self::post::Resolver;
use self::settings::{Settings, Signal};
use crate::page::Page;

/// Readings that wait. A later one has all that an earlier one had, but for its time.
const MOST_READINGS: usize = 16;

/// The exporter, as the loop sees it.
pub struct Exporter {
    readings: Option<Arc<Lane<Arc<Page>>>>,
    told: mpsc::UnboundedReceiver<String>,
    stop: watch::Sender<bool>,
}

impl Exporter {
    /// Starts the exporter's thread, which confines itself. `node` is the host's name among others.
    ///
    /// # Errors
    ///
    /// The system's: there is no room for a thread or an event loop.
    pub fn start(
        settings: Settings,
        node: &str,
        resolver: Option<Resolver>,
        confinement: Option<Confinement>,
    ) -> io::Result<Self> {
        let origin = Arc::new(Origin::new(node, &settings.attributes));
        let resolver = resolver.map(|resolver| Arc::new(Mutex::new(resolver)));
        let (tell, told) = mpsc::unbounded_channel();
        let (stop, stopped) = watch::channel(false);
        let metrics = settings.metrics.map(|target| {
            let weight = |page: &Arc<Page>| page.exposition().series() as u64;
            let lane = Arc::new(Lane::new(Signal::Metrics, MOST_READINGS, weight));
            let origin = Arc::clone(&origin);
            let encode = move |pages: &[Arc<Page>]| {
                let requests = pages.iter().map(|page| metrics::request(page.exposition(), &origin));
                requests.flat_map(|request| request.encode_to_vec()).collect()
            };
            let packing = Packing { most: 1, patience: Duration::ZERO, encode: Box::new(encode) };
            (lane, packing, Client::new(target, resolver.clone()))
        });
        let readings = metrics.as_ref().map(|(lane, ..)| Arc::clone(lane));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
        thread::Builder::new().name("otlp".to_owned()).spawn(move || {
            // What fails here fails on the main thread too, which says so.
            let _ = confinement.map(|confinement| confinement.apply());
            runtime.block_on(async {
                let metrics = async {
                    if let Some((lane, packing, client)) = metrics {
                        lane::run(lane, packing, client, stopped.clone(), tell.clone()).await;
                    }
                };
                metrics.await;
            });
            // A search for addresses may take for ever.
            runtime.shutdown_background();
        })?;
        Ok(Self { readings, told, stop })
    }

    /// Has a reading exported.
    pub fn export(&self, page: &Arc<Page>) {
        self.readings.iter().for_each(|lane| lane.push(Arc::clone(page)));
    }

    /// What each sink has dropped: points of metrics.
    pub fn dropped(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.readings.iter().map(|lane| (Signal::Metrics.sink(), lane.dropped()))
    }

    /// Waits for something to say of a collector. Cancel-safe.
    pub async fn told(&mut self) -> String {
        match self.told.recv().await {
            Some(words) => words,
            None => std::future::pending().await,
        }
    }

    /// Has what waits sent once more, for as long as this. Returns what there is still to say.
    pub async fn finish(mut self, within: Duration) -> Vec<String> {
        // Without a receiver it has ended already.
        let _ = self.stop.send(true);
        let mut told = Vec::new();
        let end = async {
            while let Some(words) = self.told.recv().await {
                told.push(words);
            }
        };
        let in_time = timeout(within, end).await;
        if in_time.is_err() {
            told.push(format!("OTLP: what the collector has not taken within {within:?} is dropped"));
        }
        told
    }
}
