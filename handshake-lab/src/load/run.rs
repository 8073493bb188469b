//! Runs a scenario: sets up the network and handshake, makes the traffic, and collects all accounts.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ChildStdin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::{self, ScopedJoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::kernel::{KernelAccount, KernelReading};
use super::memory::{AgentMemory, MemoryReading};
use super::network::LoadNetwork;
use super::progress::Progress;
use super::scenario::Scenario;
use super::traffic::{Shared, TrafficSource};
use super::truth::Truth;
use super::wire::Wire;
use crate::agent::Agent;
use crate::interrupt;
use crate::namespace::Namespace;
use crate::tap::Tally;

/// Interval at which a run is checked.
const INTERVAL: Duration = Duration::from_millis(100);
/// Interval of the reports that are taken at the flooded host.
const REPORTS: Duration = Duration::from_millis(300);
/// Limit for `handshake check` to end. It waits until no attempt is opening; a busy machine takes longer.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Everything that the comparison needs.
pub(super) struct RunObservation {
    pub(super) truth: Truth,
    pub(super) account: KernelAccount,
    /// The frames on the wire, per device.
    pub(super) wire: Vec<(&'static str, Tally)>,
    /// Number of a flood's frames among them.
    pub(super) flooded: u64,
    /// The report of `handshake check`.
    pub(super) report: Value,
    pub(super) code: i32,
    /// The standard error of `handshake check`.
    pub(super) said: String,
    /// The reports of the `handshake watch` that ran beside it.
    pub(super) watched: Vec<Value>,
    /// The last report of each that was started beside the traffic.
    pub(super) started: Vec<Value>,
    pub(super) memory: Vec<(&'static str, AgentMemory)>,
}

impl RunObservation {
    /// The reports of all, the check's last.
    pub(super) fn reports(&self) -> impl Iterator<Item = &Value> {
        self.watched.iter().chain(&self.started).chain([&self.report])
    }
}

/// Runs the scenario; `binary` is handshake.
pub(super) fn run(scenario: &Scenario, binary: &Path) -> Result<RunObservation> {
    let progress = Progress::new(&scenario.name);
    progress.say("making the network, attaching");
    let network = LoadNetwork::new(scenario)?;
    let mut wire = Wire::open(scenario, &network)?;
    let check = CheckRun::start(scenario, &network, binary)?;
    let watch = if scenario.other_flood().is_some() {
        // Beside the check, whose programs are XDP's.
        let host = (network.host(), network.devices()[0]);
        Some(WatchRun::start(host, binary, REPORTS, &["--hook", "tcx"])?)
    } else {
        let client = (network.client(), network.client_device());
        scenario.watch.map(|interval| WatchRun::start(client, binary, interval, &[])).transpose()?
    };
    let mut memory = vec![("check", AgentMemory::of(check.agent.id()))];
    memory.extend(watch.iter().map(|watch| ("watch", AgentMemory::of(watch.agent.id()))));
    let before = KernelReading::of(&network)?;
    let (mut truth, started) = make(scenario, &network, binary, &mut wire, &mut memory, &progress)?;
    progress.say("waiting until no attempt is opening");
    let account = KernelAccount::since(before, &network)?;
    let watched = watch.map(WatchRun::stop).transpose()?.unwrap_or_default();
    let (report, code, said) = check.stop()?;
    let carried = wire.close()?;
    if let Some(target) = scenario.flood() {
        truth.add_flood(target, carried.flood.syn);
    }
    let (wire, flooded) = (carried.all, carried.flood.total());
    Ok(RunObservation { truth, account, wire, flooded, report, code, said, watched, started, memory })
}

/// Makes the traffic, each kind on its own thread, and supervises the run meanwhile. Returns what was made,
/// and the last report of each agent that was started beside it.
fn make(
    scenario: &Scenario,
    network: &LoadNetwork,
    binary: &Path,
    wire: &mut Wire,
    memory: &mut [(&'static str, AgentMemory)],
    progress: &Progress,
) -> Result<(Truth, Vec<Value>)> {
    let shared = Shared::default();
    shared.prolong(scenario.starts > 0);
    let sources = scenario.traffic.iter().flat_map(|traffic| {
        scenario.families.iter().map(|family| TrafficSource::new(scenario, *traffic, network, *family))
    });
    let sources = sources.collect::<Result<Vec<TrafficSource>>>()?;
    thread::scope(|scope| {
        let threads: Vec<_> = sources.into_iter().map(|source| scope.spawn(|| source.run(&shared))).collect();
        let starts = scope.spawn(|| {
            let started = start_again(scenario.starts, network, binary, &shared);
            shared.prolong(false);
            started
        });
        let supervised = supervise(&threads, wire, memory, |elapsed, held| {
            progress.say(&how_far(scenario, shared.made(), elapsed, held));
        });
        supervised.inspect_err(|_| shared.stop())?;
        let mut truth = Truth::default();
        for thread in threads {
            truth += thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        }
        Ok((truth, starts.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?))
    })
}

/// Starts `handshake watch` so often beside the traffic, at both ends, by TCX and by native XDP. Each runs
/// until an attempt that had no SYN+ACK or no ACK would be half-open. Returns the last report of each.
fn start_again(times: u32, network: &LoadNetwork, binary: &Path, shared: &Shared) -> Result<Vec<Value>> {
    const HALF_OPEN_AFTER: &str = "1s";
    const RUNS: Duration = Duration::from_millis(1500);
    let ends = [(network.client(), network.client_device()), (network.host(), network.devices()[0])];
    let rows = ["tcx", "xdp-native"].into_iter().flat_map(|hook| ends.map(|end| (end, hook)));
    let mut last = Vec::new();
    for (end, hook) in rows.cycle().take(times as usize) {
        if shared.is_stopped() {
            break;
        }
        let options = ["--hook", hook, "--half-open-after", HALF_OPEN_AFTER];
        let run = WatchRun::start(end, binary, REPORTS, &options)?;
        interrupt::pause_until(Instant::now() + RUNS)?;
        last.extend(run.stop()?.pop());
    }
    Ok(last)
}

/// Until all threads have ended, reads the taps before their buffers fill, reads memory, and calls `report`
/// with the elapsed time and the memory of handshake.
fn supervise<T>(
    threads: &[ScopedJoinHandle<'_, T>],
    wire: &mut Wire,
    memory: &mut [(&'static str, AgentMemory)],
    report: impl Fn(Duration, Option<MemoryReading>),
) -> Result<()> {
    let began = Instant::now();
    let mut due = began;
    while threads.iter().any(|thread| !thread.is_finished()) {
        due += INTERVAL;
        // On an interrupt the threads end by themselves, because they check for it too.
        let _ = interrupt::pause_until(due);
        wire.read()?;
        memory.iter_mut().try_for_each(|(_, memory)| memory.read_if_due())?;
        report(began.elapsed(), memory.first().and_then(|(_, memory)| memory.last()));
    }
    Ok(())
}

/// The progress: `12 s, 2400 of 6000 made, handshake holds 10624 KiB`.
fn how_far(scenario: &Scenario, made: u64, elapsed: Duration, held: Option<MemoryReading>) -> String {
    let totals = scenario.traffic.iter().map(|traffic| scenario.total(*traffic));
    let total = totals.sum::<Option<u64>>().map(|total| total * scenario.families.len() as u64);
    let of = total.map(|total| format!(" of {total}")).unwrap_or_default();
    let held = held.map(|reading| format!(", handshake holds {} KiB", reading.own)).unwrap_or_default();
    format!("{} s, {made}{of} made{held}", elapsed.as_secs())
}

/// `handshake check` with a command that runs as long as the traffic.
struct CheckRun {
    agent: Agent,
    /// The command ends when this is dropped.
    command: ChildStdin,
    report: Scratch,
}

/// A file for this run alone; removed on drop.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        // The file may not exist.
        let _ = fs::remove_file(&self.0);
    }
}

impl CheckRun {
    fn start(scenario: &Scenario, network: &LoadNetwork, binary: &Path) -> Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let report = format!("hs-load-{}-{number}.json", std::process::id());
        let report = Scratch(std::env::temp_dir().join(report));
        let mut command = network.host().command(binary);
        command.arg("check");
        for device in network.devices() {
            command.args(["-i", device]);
        }
        command.args(&scenario.check);
        for expression in &scenario.expect {
            command.args(["--expect", expression]);
        }
        // The command prints when it has started; what happens before is outside its time.
        command.arg("--report").arg(&report.0).args(["--", "sh", "-c", "echo started; exec cat"]);
        let (mut agent, command) = Agent::attach_fed(command, network.devices().len())?;
        let started = agent.await_output("started");
        // Ctrl-C ends handshake too, and is then the cause of the failure.
        interrupt::check()?;
        started?;
        Ok(Self { agent, command, report })
    }

    /// Ends the command. Returns the report, the exit code, and the standard error.
    fn stop(self) -> Result<(Value, i32, String)> {
        drop(self.command);
        let outcome = self.agent.wait(TIMEOUT)?;
        let text = fs::read_to_string(&self.report.0);
        let text = text.with_context(|| format!("no report; stderr of handshake:\n{}", outcome.stderr))?;
        let report = serde_json::from_str(&text).context("read the report")?;
        let code = outcome.status.code().with_context(|| format!("handshake: {}", outcome.status))?;
        Ok((report, code, outcome.stderr))
    }
}

/// `handshake watch` beside the check: at the client's end for many reports over a long run, or at a host that is
/// flooded.
struct WatchRun {
    agent: Agent,
}

impl WatchRun {
    fn start(
        (namespace, device): (&Namespace, &str),
        binary: &Path,
        interval: Duration,
        options: &[&str],
    ) -> Result<Self> {
        let interval = format!("{}ms", interval.as_millis());
        let words = [&["-i", device, "--interval", &interval], options].concat();
        Ok(Self { agent: Agent::start(namespace, binary, &words)? })
    }

    fn stop(self) -> Result<Vec<Value>> {
        let outcome = self.agent.stop()?;
        ensure!(outcome.status.success(), "handshake watch: {}\n{}", outcome.status, outcome.stderr);
        Ok(outcome.values()?.into_iter().filter(|value| value["type"] == "report").collect())
    }
}
