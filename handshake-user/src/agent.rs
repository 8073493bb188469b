//! `handshake watch`: load, attach, then read and report until something ends it.
//!
//! One thread. The clock of the run is tokio's; the times in reports are the source's.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use handshake_common::table::record_of;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Instant, Interval as Ticks, MissedTickBehavior, interval_at, sleep_until};

use crate::attach::{self, Attached, AttachedInterface, Plan, Promisc, capability::Capabilities, interface};
use crate::cli::{Format, Watch, defaults};
use crate::error::Error;
use crate::report::flow::{View, verdict_of};
use crate::report::{self, text::Style};
use crate::say;
use crate::snapshot::{Context, Interface, Interval, Origin, Snapshot};
use crate::source::Source as _;
use crate::source::live::Live;
use crate::source::settings::{Settings, Sizes, WatchedInterface};

/// The kernel side, compiled.
static OBJECT: &[u8] = aya::include_bytes_aligned!(env!("HANDSHAKE_BPF_OBJECT"));
/// How often the event ring is emptied: at 500,000 finished attempts a second its 4 MiB last 80 ms.
const EVENTS_EVERY: Duration = Duration::from_millis(20);
/// A pause that never ends, for timers that are not wanted.
const NEVER: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// Runs the command; its exit code.
///
/// # Errors
///
/// What keeps it from attaching, each with its fix and exit code; what the output does not take.
pub(crate) fn watch(options: &Watch) -> anyhow::Result<u8> {
    Capabilities::of_this_thread().require(options.promisc)?;
    let facts = attach::survey(&options.interfaces)?;
    let plan = attach::plan(&facts, options.hook, options.direction)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.context("start the event loop")?.block_on(run(options, &plan))
}

/// Memory that the tables take by default, for `doctor`.
pub(crate) fn default_table_bytes() -> u64 {
    let max_flows = defaults::MAX_FLOWS.parse().unwrap_or_default();
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    Sizes::for_flows(max_flows).bytes(cpus, false)
}

async fn run(options: &Watch, plan: &Plan) -> anyhow::Result<u8> {
    // Before anything is attached: a signal from here on ends the run as it should.
    let mut signals = Signals::new().context("listen for signals")?;
    let mut live = Live::load(OBJECT, &settings(options, plan))?;
    let attached = attach::attach(live.programs(), plan, &mut say)?;
    let _promisc = options.promisc.then(|| Promisc::hold(indexes(&attached))).transpose()?;
    live.count_losses_by(losses(indexes(&attached).collect()));
    if let Some(log) = live.take_kernel_log() {
        tokio::spawn(log.forward());
    }
    let mut agent = Agent::new(options, live, &attached)?;
    attached.interfaces.iter().for_each(announce);
    agent.watch(&mut signals, &attached).await
}

fn settings(options: &Watch, plan: &Plan) -> Settings {
    let watched = |planned: &attach::PlannedInterface| WatchedInterface {
        index: planned.info.index,
        raw: planned.is_raw(),
    };
    Settings {
        interfaces: plan.interfaces.iter().map(watched).collect(),
        events: options.output.events,
        kernel_log: options.verbosity.verbose >= 2,
        verifier_log: options.verbosity.verbose >= 1,
        ..Settings::of(&options.rules, &options.filter, options.max_flows)
    }
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

/// What ends a run from outside.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    async fn any(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// A run under way.
struct Agent<'a> {
    options: &'a Watch,
    live: Live,
    context: Arc<Context>,
    /// The latest report, which the next one's interval begins at.
    last: Snapshot,
    out: report::Output<std::io::Stdout>,
    style: Style,
}

impl<'a> Agent<'a> {
    fn new(options: &'a Watch, mut live: Live, attached: &Attached) -> anyhow::Result<Self> {
        let from_ns = live.read()?.wall_ns;
        let interfaces = attached.interfaces.iter().map(shown).collect();
        let context = Arc::new(Context {
            origin: Origin::Live { interfaces },
            from_ns,
            filter: options.filter.clone(),
            top: options.output.top,
        });
        let last = Snapshot::take(&mut live, &context, None)?;
        let out = report::Output::to(std::io::stdout());
        Ok(Self { options, live, context, last, out, style: Style::of_stdout() })
    }

    /// Reports until the time is up, a signal comes, the reader goes or an interface is lost.
    async fn watch(&mut self, signals: &mut Signals, attached: &Attached) -> anyhow::Result<u8> {
        let start = Instant::now();
        let mut reports = ticks(start, self.options.interval);
        let mut events = ticks(start, if self.options.output.events { EVENTS_EVERY } else { NEVER });
        let end = start + self.options.period.unwrap_or(NEVER);
        while !self.out.is_closed() {
            tokio::select! {
                biased;
                () = signals.any() => break,
                () = sleep_until(end) => break,
                _ = reports.tick() => {
                    self.report()?;
                    if let Some(gone) = lost_interface(attached) {
                        self.close()?;
                        return Err(Error::LostInterface(gone).into());
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
        let snapshot = Snapshot::take(&mut self.live, &self.context, Some(&self.last))?;
        let format = self.options.output.format;
        if format != Format::Json {
            let interval = Interval::between(&self.last, &snapshot);
            report::write_report(&mut self.out, format, &snapshot, Some(&interval), self.style)?;
            self.part()?;
        }
        self.last = snapshot;
        Ok(())
    }

    /// An empty line between two reports that people read.
    fn part(&mut self) -> std::io::Result<()> {
        if self.options.output.format == Format::Text { self.out.put(|out| writeln!(out)) } else { Ok(()) }
    }

    fn close(&mut self) -> anyhow::Result<()> {
        self.show_events()?;
        let snapshot = Snapshot::take(&mut self.live, &self.context, Some(&self.last))?;
        let flows = self.options.output.flows.then(|| View::of(&snapshot).flows(&self.live));
        let format = self.options.output.format;
        report::write_closing(&mut self.out, format, &snapshot, flows.as_deref(), self.style)?;
        Ok(())
    }

    /// Writes the attempts that have ended since the last time.
    fn show_events(&mut self) -> anyhow::Result<()> {
        if !self.options.output.events {
            return Ok(());
        }
        let mut ended = Vec::new();
        self.live.drain_events(&mut |event| ended.push(*event));
        let view = View::of(&self.last);
        for event in &ended {
            if let Some(verdict) = verdict_of(event) {
                let flow = view.ended(&record_of(event), verdict, event.ended_ns);
                report::write_flow(&mut self.out, self.options.output.format, &flow, self.style)?;
            }
        }
        Ok(())
    }
}

fn ticks(start: Instant, period: Duration) -> Ticks {
    let mut ticks = interval_at(start + period, period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    ticks
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

/// The name of an interface that is no longer there.
fn lost_interface(attached: &Attached) -> Option<String> {
    let gone = |each: &&AttachedInterface| interface::by_index(each.info.index).is_err();
    attached.interfaces.iter().find(gone).map(|each| each.info.name.clone())
}
