//! One run of a scenario: network, handshake, traffic, and what each of them says afterwards.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ChildStdin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::{self, ScopedJoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::kernel::{Account, Reading};
use super::memory::{Look, Memory};
use super::network::Network;
use super::progress::Progress;
use super::scenario::Scenario;
use super::traffic::{Shared, Source};
use super::truth::Truth;
use super::wire::Wire;
use crate::agent::Agent;
use crate::interrupt;
use crate::tap::Tally;

/// Between two looks at a run.
const LOOK: Duration = Duration::from_millis(100);
/// `handshake check` waits for what is opening, at most as long as an attempt may be that; a busy machine takes longer.
const PATIENCE: Duration = Duration::from_secs(60);

/// Everything there is to compare.
pub(super) struct Seen {
    pub(super) truth: Truth,
    pub(super) account: Account,
    /// By device, what the wire carried.
    pub(super) wire: Vec<(&'static str, Tally)>,
    /// Frames of a flood among them.
    pub(super) flooded: u64,
    /// What `handshake check` reported, and how it ended.
    pub(super) report: Value,
    pub(super) code: i32,
    /// Its own words.
    pub(super) said: String,
    /// The reports of the `handshake watch` beside it.
    watched: Vec<Value>,
    pub(super) memory: Vec<(&'static str, Memory)>,
}

impl Seen {
    /// Those of both, the check's last.
    pub(super) fn reports(&self) -> impl Iterator<Item = &Value> {
        self.watched.iter().chain([&self.report])
    }
}

/// Runs it; `binary` is handshake.
pub(super) fn run(scenario: &Scenario, binary: &Path) -> Result<Seen> {
    let progress = Progress::new(&scenario.name);
    progress.say("making the network, attaching");
    let network = Network::new(scenario)?;
    let mut wire = Wire::open(scenario, &network)?;
    let check = Check::start(scenario, &network, binary)?;
    let watch = scenario.watch.map(|interval| Watch::start(&network, binary, interval)).transpose()?;
    let mut memory = vec![("check", Memory::of(check.agent.id()))];
    memory.extend(watch.iter().map(|watch| ("watch", Memory::of(watch.agent.id()))));
    let before = Reading::of(&network)?;
    let mut truth = make(scenario, &network, &mut wire, &mut memory, &progress)?;
    progress.say("waiting until nothing is opening");
    let account = Account::since(before, &network)?;
    let watched = watch.map(Watch::stop).transpose()?.unwrap_or_default();
    let (report, code, said) = check.stop()?;
    let carried = wire.close()?;
    if let Some(target) = scenario.flood() {
        truth.add_flood(target, carried.flood.syn);
    }
    let (wire, flooded) = (carried.all, carried.flood.syn);
    Ok(Seen { truth, account, wire, flooded, report, code, said, watched, memory })
}

/// Makes the traffic, each kind on a thread of its own, and looks after the run meanwhile.
fn make(
    scenario: &Scenario,
    network: &Network,
    wire: &mut Wire,
    memory: &mut [(&'static str, Memory)],
    progress: &Progress,
) -> Result<Truth> {
    let shared = Shared::default();
    let sources = scenario.traffic.iter().flat_map(|traffic| {
        scenario.families.iter().map(|family| Source::new(scenario, *traffic, network, *family))
    });
    let sources = sources.collect::<Result<Vec<Source>>>()?;
    thread::scope(|scope| {
        let threads: Vec<_> = sources.into_iter().map(|source| scope.spawn(|| source.run(&shared))).collect();
        let looked_after = look_after(&threads, wire, memory, |elapsed, held| {
            progress.say(&how_far(scenario, shared.made(), elapsed, held));
        });
        looked_after.inspect_err(|_| shared.stop())?;
        let mut truth = Truth::default();
        for thread in threads {
            truth += thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        }
        Ok(truth)
    })
}

/// Until all threads have ended: the wire is read before its buffer is full, memory looked at, and each time it is `said`
/// how long this has taken and what handshake holds.
fn look_after<T>(
    threads: &[ScopedJoinHandle<'_, T>],
    wire: &mut Wire,
    memory: &mut [(&'static str, Memory)],
    said: impl Fn(Duration, Option<Look>),
) -> Result<()> {
    let began = Instant::now();
    let mut due = began;
    while threads.iter().any(|thread| !thread.is_finished()) {
        due += LOOK;
        // Interrupted, the threads end by themselves: they look for that, too.
        let _ = interrupt::pause_until(due);
        wire.read()?;
        memory.iter_mut().try_for_each(|(_, memory)| memory.look())?;
        said(began.elapsed(), memory.first().and_then(|(_, memory)| memory.last()));
    }
    Ok(())
}

/// `12 s, 2400 of 6000 made, handshake holds 10624 KiB`
fn how_far(scenario: &Scenario, made: u64, elapsed: Duration, held: Option<Look>) -> String {
    let totals = scenario.traffic.iter().map(|traffic| scenario.total(*traffic));
    let total = totals.sum::<Option<u64>>().map(|total| total * scenario.families.len() as u64);
    let of = total.map(|total| format!(" of {total}")).unwrap_or_default();
    let held = held.map(|look| format!(", handshake holds {} KiB", look.own)).unwrap_or_default();
    format!("{} s, {made}{of} made{held}", elapsed.as_secs())
}

/// `handshake check` around a command that lasts as long as the traffic.
struct Check {
    agent: Agent,
    /// The command ends with this.
    command: ChildStdin,
    report: Scratch,
}

/// A file of this run alone, removed on drop.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        // It may not have been written.
        let _ = fs::remove_file(&self.0);
    }
}

impl Check {
    fn start(scenario: &Scenario, network: &Network, binary: &Path) -> Result<Self> {
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
        // It says when it has started: what happens before is not within the command's time.
        command.arg("--report").arg(&report.0).args(["--", "sh", "-c", "echo started; exec cat"]);
        let (mut agent, command) = Agent::attach_fed(command, network.devices().len())?;
        let started = agent.await_output("started");
        // Ctrl-C ends it too: then that is the reason.
        interrupt::check()?;
        started?;
        Ok(Self { agent, command, report })
    }

    /// Ends the command. Gives the report, the exit code, and what was said.
    fn stop(self) -> Result<(Value, i32, String)> {
        drop(self.command);
        let outcome = self.agent.wait(PATIENCE)?;
        let text = fs::read_to_string(&self.report.0);
        let text = text.with_context(|| format!("no report; handshake said:\n{}", outcome.stderr))?;
        let report = serde_json::from_str(&text).context("read the report")?;
        let code = outcome.status.code().with_context(|| format!("handshake: {}", outcome.status))?;
        Ok((report, code, outcome.stderr))
    }
}

/// `handshake watch` at the client's end, beside the check: a long run has many reports.
struct Watch {
    agent: Agent,
}

impl Watch {
    fn start(network: &Network, binary: &Path, interval: Duration) -> Result<Self> {
        let interval = format!("{}ms", interval.as_millis());
        let words = ["-i", network.client_device(), "--interval", &interval];
        Ok(Self { agent: Agent::start(network.client(), binary, &words)? })
    }

    fn stop(self) -> Result<Vec<Value>> {
        let outcome = self.agent.stop()?;
        ensure!(outcome.status.success(), "handshake watch: {}\n{}", outcome.status, outcome.stderr);
        Ok(outcome.values()?.into_iter().filter(|value| value["type"] == "report").collect())
    }
}
