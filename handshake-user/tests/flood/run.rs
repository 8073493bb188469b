//! One flood: the network, the command, the accounts that its totals are held against, and what must hold of any.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use handshake_lab::agent::Agent;
use handshake_lab::bpf::{self, Hook, RunCounts};
use handshake_lab::census::{Census, Counts};
use handshake_lab::flood::{Flood, Kind};
use handshake_lab::tap::Tally;
use handshake_lab::tcp::{self, Handshake, Listener};
use handshake_lab::topology::DEVICE;
use handshake_lab::{Family, Pair, Path, counters, udp};
use serde_json::Value;

use crate::HANDSHAKE;
use crate::books::{balanced, figure, tally};

/// For anything to come about, on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
/// Frames of a flood that reach the hook at least: twice what the small table holds.
const FRAMES: u64 = 2 * 65_536;
/// Frames that are made at once: a part of a second's.
const BURST: u32 = 262_144;
/// Of the small table: 65,536 slots for IPv4.
const SMALL: &str = "32768";
/// Flows there are before a flood, of each kind.
pub(crate) const KEPT: usize = 100;
/// Attempts there are before a flood that nothing answers: they stay open.
pub(crate) const OPEN: u8 = 50;

/// Where the command watches what comes in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// Native XDP; all goes on to the stack.
    Native,
    /// TCX; all goes on to the stack.
    Tcx,
    /// Native XDP, and a flood's frames end behind it: the stack is not what limits the rate.
    Dropped,
}

/// What is done.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Run {
    pub(crate) way: Way,
    pub(crate) kind: Kind,
    /// It goes to a listener, which answers each SYN, from some on by cookies.
    pub(crate) answered: bool,
}

/// What came of it.
pub(crate) struct Flooded {
    /// The last report, at rest.
    pub(crate) last: Value,
    /// The row of the service that the real handshakes went to.
    pub(crate) row: Value,
    /// Those, as the clients saw them.
    pub(crate) handshakes: Vec<Handshake>,
    /// The row of the service that nothing answers: [`OPEN`] attempts from before the flood.
    pub(crate) open: Value,
    /// UDP flows that were answered before.
    pub(crate) answered: u64,
    /// The flood's frames that reached the hook a second.
    pub(crate) rate: f64,
    /// What the hook of the way in saw, by the census.
    pub(crate) ingress: Counts,
}

/// What it took to make a flood.
#[derive(Clone, Copy)]
struct Effort {
    made: u64,
    took: Duration,
    /// While it had a CPU.
    processor: Duration,
}

/// One flood at a time, whatever the test harness does at once.
pub(crate) fn alone() -> MutexGuard<'static, ()> {
    static FLOOD: Mutex<()> = Mutex::new(());
    FLOOD.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Run {
    /// Floods, and checks what holds of every flood.
    pub(crate) fn play(self) -> Result<Flooded> {
        let _alone = alone();
        // To have runs counted costs each of them two readings of a clock.
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
        let report = agent.await_report(PATIENCE, settled)?;
        accounts.check(&pair, &report, counted.is_some())?;
        let outcome = agent.stop()?;
        ensure!(outcome.status.success(), "{}", outcome.stderr);
        let last = balanced(&outcome)?;
        drop(kept);
        let row = service(&last, listener.address()).context("the service's row")?.clone();
        let open = service(&last, unheard.address()).context("the row of those that stay open")?.clone();
        let ingress = accounts.ingress.counts()?;
        let rate = ingress.flood.total() as f64 / effort.took.as_secs_f64();
        let flooded = Flooded { last, row, handshakes, open, answered, rate, ingress };
        flooded.print(self, effort, outcome.values()?.len());
        Ok(flooded)
    }

    fn arguments(self) -> Vec<&'static str> {
        let hook = if self.way == Way::Tcx { "tcx" } else { "xdp-native" };
        let mut words = vec!["-i", DEVICE, "--interval", "100ms", "--hook", hook];
        if lasts().is_zero() {
            words.extend(["--max-flows", SMALL]);
        }
        words
    }

    /// The flood, and the handshakes meanwhile.
    fn flood(self, path: &Path<'_>, listener: &Listener, hook: &Census) -> Result<(Effort, Vec<Handshake>)> {
        // What hears nothing sends nothing: a flood that is not answered is on the way in alone.
        let deaf = (Listener::deaf(path, 0)?, udp::deaf(path)?);
        let answering = Listener::new(path, 0, 128)?;
        let to = match (self.answered, self.kind) {
            (true, _) => answering.address(),
            (false, Kind::Udp) => deaf.1.1,
            (false, Kind::Syn | Kind::Ack | Kind::Refused) => deaf.0.address(),
        };
        let flood = Flood::new(path, to, self.kind)?;
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            let connecting = scope.spawn(|| tcp::connect_until(path, listener, &done));
            let began = Instant::now();
            let made = pour(&flood, hook, began);
            let took = began.elapsed();
            // Whatever became of the flood: the other thread would go on for ever.
            done.store(true, Ordering::Relaxed);
            let handshakes = connecting.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            let effort = Effort { made: flood.made(), took, processor: flood.processor_time() };
            made.and(handshakes).map(|handshakes| (effort, handshakes))
        })
    }
}

/// Datagrams that are answered; gives of how many flows, for a port may have been given twice.
fn talk(path: &Path<'_>) -> Result<u64> {
    let echoes = udp::echo(path, KEPT, 1, 40)?;
    Ok(echoes.iter().map(|flow| flow.initiator).collect::<HashSet<_>>().len() as u64)
}

/// Makes frames until enough have reached the hook, and for as long as the flood is to last.
fn pour(flood: &Flood<'_>, hook: &Census, began: Instant) -> Result<()> {
    loop {
        flood.make(BURST)?;
        let reached = hook.counts()?.flood.total();
        if reached >= FRAMES && began.elapsed() >= lasts() {
            return Ok(());
        }
        let made = flood.made();
        ensure!(began.elapsed() < PATIENCE + lasts(), "of {made} frames {reached} reached the hook");
    }
}

/// How long a flood lasts at least; zero unless the person who runs it says so.
fn lasts() -> Duration {
    let seconds = std::env::var("HANDSHAKE_FLOOD_SECONDS").ok().and_then(|seconds| seconds.parse().ok());
    Duration::from_secs(seconds.unwrap_or(0))
}

fn service(report: &Value, address: SocketAddr) -> Option<&Value> {
    let rows = report["services"].as_array()?;
    let ip = address.ip().to_string();
    rows.iter().find(|row| row["address"] == ip.as_str() && row["port"] == address.port())
}

/// Who else counts what the hooks see.
struct Accounts {
    ingress: Census,
    egress: Census,
    /// The command's programs on TCX hooks, by their numbers.
    on_ingress: Option<u32>,
    on_egress: u32,
    /// What the device had given to its XDP program before.
    device_before: u64,
}

impl Accounts {
    fn open(pair: &Pair, way: Way) -> Result<Self> {
        let server = &pair.server;
        let first = |hook: Hook| {
            bpf::chain(server, DEVICE, hook)?.first().copied().context("the command's program on a hook")
        };
        let on_ingress = (way == Way::Tcx).then(|| first(Hook::TcxIngress)).transpose()?;
        let on_egress = first(Hook::TcxEgress)?;
        let ingress = if way == Way::Dropped {
            Census::dropping(server, DEVICE)?
        } else {
            Census::behind(server, DEVICE, Hook::TcxIngress)?
        };
        let egress = Census::behind(server, DEVICE, Hook::TcxEgress)?;
        let device_before = counters::xdp_packets(server, DEVICE)?;
        Ok(Self { ingress, egress, on_ingress, on_egress, device_before })
    }

    /// What came in and went out, by class.
    fn both(&self) -> Result<Tally> {
        let mut both = self.ingress.counts()?.both();
        both += self.egress.counts()?.both();
        Ok(both)
    }

    /// The report has what the census has, class by class; and that is, to the packet, what the device says it took in
    /// for XDP, and how often the kernel ran the command's programs on the TCX hooks.
    fn check(&self, pair: &Pair, report: &Value, counted: bool) -> Result<()> {
        let [ingress, egress] = [self.ingress.counts()?.both(), self.egress.counts()?.both()];
        let mut both = ingress;
        both += egress;
        let interface = &report["source"]["interfaces"][0]["packets"];
        ensure!(tally(interface) == both, "the hooks saw {both:?}, the report has {interface}");
        let device = counters::xdp_packets(&pair.server, DEVICE)? - self.device_before;
        // Without an XDP program the sockets' frames do not come as XDP's do, and the device does not count them there.
        let counts = self.ingress.counts()?;
        let for_xdp = if self.on_ingress.is_some() { counts.flood } else { ingress };
        ensure!(device == for_xdp.total(), "the device took in {device} frames, the census has {counts:?}");
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
    /// Did the handshake go without a hitch: no SYN sent again, and done long before the flood had gone once through the
    /// table? Then nothing can have pushed it out.
    pub(crate) fn is_prompt(&self, handshake: &Handshake) -> bool {
        let passed = self.rate * handshake.took.as_secs_f64();
        handshake.retransmissions == 0 && passed < figure(&self.last, "table.slots") as f64 / 10.0
    }

    /// For those who run it by hand.
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
             handshakes {}, with SYNs sent again {again}, slowest {slowest:.0?}; their service: {row}\n\
             attempts {}, evicted {}, untracked {}, contended {}, evictions {}",
            handshakes.len(),
            last["tcp"]["attempts"],
            last["tcp"]["evicted"],
            last["untracked"],
            last["contended"],
            last["table"]["evictions"],
        );
    }
}
