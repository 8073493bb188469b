//! Runs one flood: the network, the command, the independent counts, and the checks that hold for every
//! flood.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use handshake_lab::agent::Agent;
use handshake_lab::bpf::{self, RunCounts, TestHook};
use handshake_lab::census::{Census, CensusCounts};
use handshake_lab::flood::{Flood, FloodKind};
use handshake_lab::tap::Tally;
use handshake_lab::tcp::{self, Handshake, Listener};
use handshake_lab::topology::DEVICE;
use handshake_lab::{Family, Pair, Path, counters, udp};
use serde_json::Value;

use crate::HANDSHAKE;
use crate::books::{balanced, figure, tally};

/// Limit for every step, on a busy machine.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(20);
/// Minimum number of a flood's frames that reach the hook: twice the slots of the small table.
const FRAMES: u64 = 2 * 65_536;
/// Number of frames made at once: a fraction of a second's.
const BURST: u32 = 262_144;
/// `--max-flows` of the small table, which has 65,536 slots for IPv4.
const SMALL: &str = "32768";
/// Number of flows before a flood, of each kind.
pub(crate) const KEPT: usize = 100;
/// Number of unanswered attempts before a flood; they stay open.
pub(crate) const OPEN: u8 = 50;

/// The hook where the command watches incoming packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// Native XDP; all frames are passed to the stack.
    Native,
    /// TCX; all frames are passed to the stack.
    Tcx,
    /// Native XDP, and a flood's frames are dropped after it, so that the stack does not limit the rate.
    Dropped,
}

/// The parameters of a run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Run {
    pub(crate) way: Way,
    pub(crate) kind: FloodKind,
    /// Whether the flood goes to a listener, which answers each SYN, by cookies once its queue is full.
    pub(crate) answered: bool,
}

/// The results of a run.
pub(crate) struct Flooded {
    /// The last report, with no packets in flight.
    pub(crate) last: Value,
    /// The row of the real handshakes' service.
    pub(crate) row: Value,
    /// The real handshakes as the clients measured them.
    pub(crate) handshakes: Vec<Handshake>,
    /// The row of the unanswered service: [`OPEN`] attempts from before the flood.
    pub(crate) open: Value,
    /// Number of UDP flows that were answered before the flood.
    pub(crate) answered: u64,
    /// Rate of the flood's frames at the hook, per second.
    pub(crate) rate: f64,
    /// The census of the ingress hook.
    pub(crate) ingress: CensusCounts,
}

/// The frames made for a flood, and the time for it.
#[derive(Clone, Copy)]
struct Effort {
    made: u64,
    took: Duration,
    /// CPU time for making and receiving the frames.
    processor: Duration,
}

/// Serializes floods, even if the test harness runs tests in parallel.
pub(crate) fn alone() -> MutexGuard<'static, ()> {
    static FLOOD: Mutex<()> = Mutex::new(());
    FLOOD.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Run {
    /// Runs the flood and checks what holds for every flood.
    pub(crate) fn play(self) -> Result<Flooded> {
        let _alone = alone();
        // Counting runs costs each run two clock readings.
        let counted = (self.way != Way::Dropped).then(RunCounts::hold).transpose()?;
        let pair = Pair::new()?;
        let path = pair.path(Family::V4);
        Flood::open(&path)?;
        let listener = Listener::new(&path, 0, 128)?;
        let mut agent = Agent::start(&pair.server, HANDSHAKE, &self.arguments())?;
        let accounts = Accounts::open(&pair, self.way)?;
        let kept = tcp::connect_accept(&path, &listener, KEPT)?;
        let answered = talk(&path)?;
        let unheard = Listener::deaf(&path, 0)?;
        tcp::syn_without_ack(&path, unheard.address(), OPEN)?;
        let before = counters::read(&pair.client)?;
        let (effort, handshakes) = self.flood(&path, &listener, &accounts.ingress)?;
        let again = counters::read(&pair.client)?.since(&before, "TcpExtTCPSynRetrans");
        ensure!(again == handshakes.iter().map(|one| u64::from(one.retransmissions)).sum::<u64>());
        let settled = |report: &Value| {
            let row = service(report, listener.address());
            row.is_some_and(|row| figure(row, "opening") + figure(row, "half_open") == 0)
                && accounts.both().is_ok_and(|both| both == tally(&report["packets"]))
        };
        let report = agent.await_report(TIMEOUT, settled)?;
        accounts.check(&pair, &report, counted.is_some())?;
        let outcome = agent.stop()?;
        ensure!(outcome.status.success(), "{}", outcome.stderr);
        let last = balanced(&outcome)?;
        drop(kept);
        let row = service(&last, listener.address()).context("the service's row")?.clone();
        let open = service(&last, unheard.address()).context("the row of the open attempts")?.clone();
        let ingress = accounts.ingress.counts()?;
        let rate = ingress.flood.total() as f64 / effort.took.as_secs_f64();
        let flooded = Flooded { last, row, handshakes, open, answered, rate, ingress };
        flooded.print(self, effort, outcome.values()?.len());
        Ok(flooded)
    }

    fn arguments(self) -> Vec<&'static str> {
        let hook = if self.way == Way::Tcx { "tcx" } else { "xdp-native" };
        // The counting programs are attached later. Without privilege the agent could not know that they
        // stand behind it.
        let mut words = vec!["-i", DEVICE, "--interval", "100ms", "--hook", hook, "--keep-privileges"];
        if lasts().is_zero() {
            words.extend(["--max-flows", SMALL]);
        }
        words
    }

    /// Runs the flood and, at the same time, real handshakes.
    fn flood(self, path: &Path<'_>, listener: &Listener, hook: &Census) -> Result<(Effort, Vec<Handshake>)> {
        // Deaf sockets send nothing, so an unanswered flood is on ingress alone.
        let deaf = (Listener::deaf(path, 0)?, udp::deaf(path)?);
        let answering = Listener::new(path, 0, 128)?;
        let to = match (self.answered, self.kind) {
            (true, _) => answering.address(),
            (false, FloodKind::Udp | FloodKind::Answered) => deaf.1.1,
            (false, _) => deaf.0.address(),
        };
        let flood = Flood::new(path, to, self.kind)?;
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            let connecting = scope.spawn(|| tcp::connect_until(path, listener, &done));
            let began = Instant::now();
            let made = pour(&flood, hook, began);
            let took = began.elapsed();
            // Set even if the flood failed: otherwise the other thread would never end.
            done.store(true, Ordering::Relaxed);
            let handshakes = connecting.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            let effort = Effort { made: flood.made(), took, processor: flood.processor_time() };
            made.and(handshakes).map(|handshakes| (effort, handshakes))
        })
    }
}

/// Makes answered datagrams and returns the number of flows: the kernel may have assigned a port twice.
fn talk(path: &Path<'_>) -> Result<u64> {
    let echoes = udp::echo(path, KEPT, 1, 40)?;
    Ok(echoes.iter().map(|flow| flow.initiator).collect::<HashSet<_>>().len() as u64)
}

/// Makes frames until enough have reached the hook and the flood has lasted long enough.
fn pour(flood: &Flood<'_>, hook: &Census, began: Instant) -> Result<()> {
    loop {
        flood.make(BURST)?;
        let reached = hook.counts()?.flood.total();
        if reached >= FRAMES && began.elapsed() >= lasts() {
            return Ok(());
        }
        let made = flood.made();
        ensure!(began.elapsed() < TIMEOUT + lasts(), "of {made} frames {reached} reached the hook");
    }
}

/// Minimum duration of a flood; zero unless `HANDSHAKE_FLOOD_SECONDS` is set.
fn lasts() -> Duration {
    let seconds = std::env::var("HANDSHAKE_FLOOD_SECONDS").ok().and_then(|seconds| seconds.parse().ok());
    Duration::from_secs(seconds.unwrap_or(0))
}

fn service(report: &Value, address: SocketAddr) -> Option<&Value> {
    let rows = report["services"].as_array()?;
    let ip = address.ip().to_string();
    rows.iter().find(|row| row["address"] == ip.as_str() && row["port"] == address.port())
}

/// The independent counts of the frames at the hooks.
struct Accounts {
    ingress: Census,
    egress: Census,
    /// The IDs of the command's programs on TCX hooks.
    on_ingress: Option<u32>,
    on_egress: u32,
    /// Number of frames that the device had passed to its XDP program before.
    device_before: u64,
}

impl Accounts {
    fn open(pair: &Pair, way: Way) -> Result<Self> {
        let server = &pair.server;
        let first = |hook: TestHook| {
            bpf::chain(server, DEVICE, hook)?.first().copied().context("the command's program on a hook")
        };
        let on_ingress = (way == Way::Tcx).then(|| first(TestHook::TcxIngress)).transpose()?;
        let on_egress = first(TestHook::TcxEgress)?;
        let ingress = if way == Way::Dropped {
            Census::dropping(server, DEVICE)?
        } else {
            Census::behind(server, DEVICE, TestHook::TcxIngress)?
        };
        let egress = Census::behind(server, DEVICE, TestHook::TcxEgress)?;
        let device_before = counters::xdp_packets(server, DEVICE)?;
        Ok(Self { ingress, egress, on_ingress, on_egress, device_before })
    }

    /// The frames received and sent, by class.
    fn both(&self) -> Result<Tally> {
        let mut both = self.ingress.counts()?.both();
        both += self.egress.counts()?.both();
        Ok(both)
    }

    /// Checks that the report has the census's frames, class by class, and that the census has exactly the
    /// frames that the device passed to XDP and the runs that the kernel counted for the command's TCX
    /// programs.
    fn check(&self, pair: &Pair, report: &Value, counted: bool) -> Result<()> {
        let [ingress, egress] = [self.ingress.counts()?.both(), self.egress.counts()?.both()];
        let mut both = ingress;
        both += egress;
        let interface = &report["source"]["interfaces"][0]["packets"];
        ensure!(tally(interface) == both, "the census has {both:?}, the report has {interface}");
        let device = counters::xdp_packets(&pair.server, DEVICE)? - self.device_before;
        // Without an XDP program, the device counts only the flood's frames, which are sent by XDP, and not
        // those of sockets.
        let counts = self.ingress.counts()?;
        let for_xdp = if self.on_ingress.is_some() { counts.flood } else { ingress };
        ensure!(
            device == for_xdp.total(),
            "the device passed {device} frames to XDP, the census has {counts:?}"
        );
        for (id, tally) in self.on_ingress.iter().map(|id| (*id, ingress)).chain([(self.on_egress, egress)]) {
            let runs = bpf::program(id)?.runs;
            ensure!(
                !counted || runs == tally.total(),
                "program {id} ran {runs} times, the census has {tally:?}"
            );
        }
        Ok(())
    }
}

impl Flooded {
    /// Whether the handshake had no retransmission and ended long before the flood could replace the whole
    /// table; then it cannot have been evicted.
    pub(crate) fn is_prompt(&self, handshake: &Handshake) -> bool {
        let passed = self.rate * handshake.took.as_secs_f64();
        handshake.retransmissions == 0 && passed < figure(&self.last, "table.slots") as f64 / 10.0
    }

    /// Prints the results, for manual runs.
    fn print(&self, run: Run, effort: Effort, reports: usize) {
        let Self { last, row, handshakes, rate, ingress, .. } = self;
        let Effort { made, took, processor } = effort;
        let reached = ingress.flood.total();
        let on_a_cpu = reached as f64 / processor.as_secs_f64();
        let again = handshakes.iter().filter(|one| one.retransmissions > 0).count();
        let slowest = handshakes.iter().map(|one| one.took).max().unwrap_or_default();
        eprintln!(
            "{run:?}: {made} frames made in {took:.1?}, {reached} reached the hook, {rate:.0}/s, {on_a_cpu:.0}/s of one CPU; \
             {reports} reports balance\n\
             handshakes {}, with SYNs retransmitted {again}, slowest {slowest:.0?}; their service: {row}\n\
             attempts {}, evicted {}, untracked {}, contended {}, evictions {}",
            handshakes.len(),
            last["tcp"]["attempts"],
            last["tcp"]["evicted"],
            last["tcp"]["untracked"],
            last["contended"],
            last["table"]["evictions"],
        );
    }
}
