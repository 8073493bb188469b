//! A session: the programs loaded and attached, and the snapshots taken of them. Every command that attaches has one;
//! dropping it detaches.
//!
//! One thread. The clock of the run is tokio's; the times in snapshots are the source's.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use handshake_common::record::Record;
use handshake_common::table::record_of;
use handshake_common::verdict::Verdict;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::attach::{self, Attached, AttachedInterface, Plan, Promisc, capability::Capabilities, interface};
use crate::cli::{Scope, defaults};
use crate::error::Error;
use crate::report::flow::{Flow, View, verdict_of};
use crate::say;
use crate::snapshot::{Context, Interface, Origin, Snapshot};
use crate::source::Source;
use crate::source::live::{Live, ProgramRuns};
use crate::source::settings::{Settings, Sizes, WatchedInterface};

/// The kernel side, compiled.
static OBJECT: &[u8] = aya::include_bytes_aligned!(env!("HANDSHAKE_BPF_OBJECT"));
/// A pause that never ends, for timers that are not wanted.
pub(crate) const NEVER: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// Asks for what attaching takes, plans a hook for each interface, and runs `work` on an event loop.
///
/// # Errors
///
/// What keeps it from attaching, each with its fix and exit code; those of `work`.
pub(crate) fn with_plan<F>(scope: &Scope, work: impl FnOnce(Plan) -> F) -> anyhow::Result<u8>
where
    F: Future<Output = anyhow::Result<u8>>,
{
    Capabilities::of_this_thread().require(scope.promisc)?;
    let facts = attach::survey(&scope.interfaces)?;
    let plan = attach::plan(&facts, scope.hook, scope.direction)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.context("start the event loop")?.block_on(work(plan))
}

/// Memory that the tables take by default, for `doctor`.
pub(crate) fn default_table_bytes() -> u64 {
    let max_flows = defaults::MAX_FLOWS.parse().unwrap_or_default();
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    Sizes::for_flows(max_flows).bytes(cpus, false)
}

/// The programs at work, and the latest snapshot of them.
pub(crate) struct Session {
    live: Live,
    attached: Attached,
    _promisc: Option<Promisc>,
    context: Arc<Context>,
    last: Snapshot,
}

impl Session {
    /// Loads and attaches, and says so on stderr. `top`: services listed by name; `events`: let the kernel tell each
    /// attempt that ends, for [`for_each_ended`](Self::for_each_ended).
    ///
    /// # Errors
    ///
    /// What keeps it from attaching, each with its fix and exit code.
    pub(crate) fn open(scope: &Scope, plan: &Plan, top: usize, events: bool) -> anyhow::Result<Self> {
        let mut live = Live::load(OBJECT, &settings(scope, plan, events))?;
        let attached = attach::attach(live.programs(), plan, &mut say)?;
        let promisc = scope.promisc.then(|| Promisc::hold(indexes(&attached))).transpose()?;
        live.count_losses_by(losses(indexes(&attached).collect()));
        if let Some(log) = live.take_kernel_log() {
            tokio::spawn(log.forward());
        }
        let context = Arc::new(Context {
            origin: Origin::Live { interfaces: attached.interfaces.iter().map(shown).collect() },
            from_ns: live.read()?.wall_ns,
            filter: scope.filter.clone(),
            top,
        });
        let last = Snapshot::take(&mut live, &context, None)?;
        attached.interfaces.iter().for_each(announce);
        Ok(Self { live, attached, _promisc: promisc, context, last })
    }

    /// The latest snapshot.
    pub(crate) fn last(&self) -> &Snapshot {
        &self.last
    }

    /// Takes a snapshot, which becomes the latest, and gives the one before.
    ///
    /// # Errors
    ///
    /// Those of reading the maps.
    pub(crate) fn advance(&mut self) -> anyhow::Result<Snapshot> {
        let snapshot = Snapshot::take(&mut self.live, &self.context, Some(&self.last))?;
        Ok(std::mem::replace(&mut self.last, snapshot))
    }

    /// Takes a snapshot by `take`, which gets the source, the context and the latest snapshot, and may look at the records
    /// as they pass; gives what it makes of them.
    ///
    /// # Errors
    ///
    /// Those of reading the maps.
    pub(crate) fn advance_by<T>(
        &mut self,
        take: impl FnOnce(&mut dyn Source, &Arc<Context>, &Snapshot) -> anyhow::Result<(Snapshot, T)>,
    ) -> anyhow::Result<T> {
        let (snapshot, seen) = take(&mut self.live, &self.context, &self.last)?;
        self.last = snapshot;
        Ok(seen)
    }

    /// From now on, so many services are listed by name.
    pub(crate) fn list_services(&mut self, top: usize) {
        self.context = Arc::new(Context { top, ..Context::clone(&self.context) });
    }

    /// What the kernel counted of our programs.
    pub(crate) fn program_runs(&self) -> Vec<ProgramRuns> {
        self.live.program_runs()
    }

    /// The flows that the tables hold, as of the latest snapshot.
    pub(crate) fn flows(&self) -> Vec<Flow> {
        View::of(&self.last).flows(&self.live)
    }

    /// Whether the tables hold a flow like this, as of the latest snapshot.
    pub(crate) fn has_flow(&self, wanted: impl Fn(&Flow) -> bool) -> bool {
        let view = View::of(&self.last);
        let mut found = false;
        self.live.for_each_record(&mut |record| {
            found = found || view.flow(record).is_some_and(|flow| wanted(&flow));
        });
        found
    }

    /// The attempts that have ended since the last time, in their order; none without events.
    pub(crate) fn for_each_ended(&mut self, visit: &mut dyn FnMut(&Flow)) {
        let view = View::of(&self.last);
        self.live.drain_events(&mut |event| {
            if let Some(verdict) = verdict_of(event) {
                visit(&view.ended(&record_of(event), verdict, event.ended_ns));
            }
        });
    }

    /// The same as records, with the moment of the end on their clock.
    pub(crate) fn for_each_event(&mut self, visit: &mut dyn FnMut(&Record, Verdict, u64)) {
        self.live.drain_events(&mut |event| {
            if let Some(verdict) = verdict_of(event) {
                visit(&record_of(event), verdict, event.ended_ns);
            }
        });
    }

    /// Fails when an interface is no longer there.
    ///
    /// # Errors
    ///
    /// [`Error::LostInterface`].
    pub(crate) fn check_interfaces(&self) -> Result<(), Error> {
        let gone = |each: &&AttachedInterface| interface::by_index(each.info.index).is_err();
        match self.attached.interfaces.iter().find(gone) {
            Some(gone) => Err(Error::LostInterface(gone.info.name.clone())),
            None => Ok(()),
        }
    }
}

fn settings(scope: &Scope, plan: &Plan, events: bool) -> Settings {
    let watched = |planned: &attach::PlannedInterface| WatchedInterface {
        index: planned.info.index,
        raw: planned.is_raw(),
    };
    Settings { interfaces: plan.interfaces.iter().map(watched).collect(), events, ..Settings::of(scope) }
}

fn indexes(attached: &Attached) -> impl Iterator<Item = u32> + '_ {
    attached.interfaces.iter().map(|interface| interface.info.index)
}

/// Packets these interfaces have lost since now. One that has gone loses nothing more.
fn losses(indexes: Vec<u32>) -> impl FnMut() -> u64 + Send + Sync {
    let count = move || indexes.iter().map(|index| interface::lost_before_hook(*index).unwrap_or(0)).sum();
    let before: u64 = count();
    move || count().saturating_sub(before)
}

/// One line when the hooks are on: scripts wait for it.
fn announce(interface: &AttachedInterface) {
    let egress = interface.egress.map(|hook| format!(", egress {hook}")).unwrap_or_default();
    let ids: Vec<String> = interface.program_ids.iter().map(u32::to_string).collect();
    let AttachedInterface { info, ingress, .. } = interface;
    eprintln!("attached {}: ingress {ingress}{egress} (programs {})", info.name, ids.join(", "));
}

fn shown(interface: &AttachedInterface) -> Interface {
    Interface {
        name: interface.info.name.clone(),
        ingress: Some(interface.ingress.to_string()),
        egress: interface.egress.map(|hook| hook.to_string()),
        merged: interface.ingress.merges_segments(),
        before: interface.before_ours.clone(),
    }
}

/// What ends a run from outside.
pub(crate) struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    /// Listens from now on: before anything is attached, so that a signal ends the run as it should.
    ///
    /// # Errors
    ///
    /// The system's, with what was tried.
    pub(crate) fn new() -> anyhow::Result<Self> {
        let listen = |kind| signal(kind).context("listen for signals");
        Ok(Self { interrupt: listen(SignalKind::interrupt())?, terminate: listen(SignalKind::terminate())? })
    }

    /// Waits for one, and gives its number.
    pub(crate) async fn any(&mut self) -> i32 {
        tokio::select! {
            _ = self.interrupt.recv() => libc::SIGINT,
            _ = self.terminate.recv() => libc::SIGTERM,
        }
    }
}
