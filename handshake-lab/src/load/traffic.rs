//! Makes a scenario's traffic and records what was done.

use std::any::Any;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};

use super::network::LoadNetwork;
use super::scenario::{
    Amount, Answer, Close, FloodOf, LostSegment, Scenario, TrafficKind, TrafficSpec, TrafficTarget, due,
};
use super::truth::{KnownOutcome, Truth, UdpOutcome};
use crate::Family;
use crate::counters::{self, Counters};
use crate::flood::{self, Flood};
use crate::interrupt;
use crate::tcp::{self, Attempts, Listener, Loss};
use crate::topology::Path;
use crate::udp;

/// Traffic at a rate is made in steps of this length.
const TICK: Duration = Duration::from_millis(200);
/// Minimum time for which connections in progress are kept: the kernel retransmits after 1 s and after 3 s.
const HOLD: Duration = Duration::from_secs(4);
/// Number of a flood's frames between two checks whether to stop.
const BURST: u32 = 65_536;
/// Bytes of a datagram's payload, and of the data on a connection.
const BYTES: usize = 100;
/// Datagrams per flow in each direction.
const ROUNDS: usize = 2;

/// State shared by the threads of a run.
#[derive(Debug, Default)]
pub(super) struct Shared {
    made: AtomicU64,
    stopped: AtomicBool,
    prolonged: AtomicBool,
}

impl Shared {
    /// Number of attempts, flows and frames made.
    pub(super) fn made(&self) -> u64 {
        self.made.load(Ordering::Relaxed)
    }

    /// Stops all threads after a failure.
    pub(super) fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }

    /// Whether traffic at a rate continues after its time.
    pub(super) fn prolong(&self, continues: bool) {
        self.prolonged.store(continues, Ordering::Relaxed);
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    fn add(&self, count: u64) {
        self.made.fetch_add(count, Ordering::Relaxed);
    }
}

/// Makes one kind of traffic on one path.
pub(super) struct TrafficSource<'a> {
    traffic: TrafficSpec,
    duration: Duration,
    network: &'a LoadNetwork,
    path: Path<'a>,
    family: Family,
    /// The listener of connections that complete.
    listener: Option<Listener>,
    held: VecDeque<(Instant, Held)>,
    /// Number of steps made; selects ports that were not used before.
    steps: u16,
    truth: Truth,
}

/// Sockets in use; what they send is part of the scenario.
type Held = Box<dyn Any + Send>;

/// Attempts without an answer. They are aborted before the listener is closed, which would refuse
/// retransmissions.
struct UnansweredAttempts {
    attempts: Attempts,
    _listener: Listener,
}

impl Drop for UnansweredAttempts {
    fn drop(&mut self) {
        if let Err(error) = self.attempts.give_up() {
            eprintln!("{error:#}");
        }
    }
}

impl<'a> TrafficSource<'a> {
    pub(super) fn new(
        scenario: &Scenario,
        traffic: TrafficSpec,
        network: &'a LoadNetwork,
        family: Family,
    ) -> Result<Self> {
        let path = network.path(family);
        let listens = matches!(traffic.kind, TrafficKind::Handshakes(_));
        let listener = if listens { Some(Listener::new(&path, 0, 128)?) } else { None };
        Ok(Self {
            traffic,
            duration: scenario.duration,
            network,
            path,
            family,
            listener,
            held: VecDeque::new(),
            steps: 0,
            truth: Truth::default(),
        })
    }

    /// Makes all traffic. Everything has ended on return; on failure the other threads stop.
    pub(super) fn run(mut self, shared: &Shared) -> Result<Truth> {
        let made = match (self.traffic.kind, self.traffic.amount) {
            (TrafficKind::SynFlood(target), amount) => self.syn_flood(target, amount, shared),
            (TrafficKind::Flood(of), amount) => self.other_flood(of, amount, shared),
            (_, Amount::Count(count)) => self.step(count.into(), shared),
            (_, Amount::Rate(rate)) => self.at_rate(rate, shared),
            (kind, Amount::Unlimited) => Err(anyhow!("{kind:?} needs a count or a rate")),
        };
        made.inspect_err(|_| shared.stop())?;
        Ok(self.truth)
    }

    fn syn_flood(&mut self, target: TrafficTarget, amount: Amount, shared: &Shared) -> Result<()> {
        let listener = match target {
            TrafficTarget::Deaf => Listener::deaf(&self.path, 0)?,
            TrafficTarget::Listener => Listener::new(&self.path, 0, 128)?,
        };
        self.flood(flood::FloodKind::Syn, listener.address(), amount, shared)
    }

    /// The service that is flooded is one of the truth, except where there are many.
    fn other_flood(&mut self, of: FloodOf, amount: Amount, shared: &Shared) -> Result<()> {
        let deaf = Listener::deaf(&self.path, 0)?;
        let datagrams = udp::deaf(&self.path)?;
        let (kind, to) = match of {
            FloodOf::Ack => (flood::FloodKind::Ack, deaf.address()),
            FloodOf::Udp => (flood::FloodKind::Udp, datagrams.1),
            FloodOf::UdpAnswered => (flood::FloodKind::Answered, datagrams.1),
            FloodOf::Held => (flood::FloodKind::Held, deaf.address()),
            FloodOf::Scan => (flood::FloodKind::Scan, deaf.address()),
            FloodOf::Crawl => (flood::FloodKind::Crawl, deaf.address()),
        };
        if matches!(of, FloodOf::Udp | FloodOf::UdpAnswered | FloodOf::Held) {
            self.truth.flooded.push(to);
        }
        self.flood(kind, to, amount, shared)
    }

    /// Makes the flood in bursts; the census counts the frames that reached the hook.
    fn flood(
        &mut self,
        kind: flood::FloodKind,
        to: SocketAddr,
        amount: Amount,
        shared: &Shared,
    ) -> Result<()> {
        let flood = Flood::new(&self.path, to, kind)?;
        let burst = match amount {
            Amount::Rate(rate) => u32::try_from(due(rate, TICK))?.max(1),
            Amount::Count(_) | Amount::Unlimited => BURST,
        };
        let began = Instant::now();
        while began.elapsed() < self.duration && !shared.is_stopped() {
            interrupt::check()?;
            flood.make(burst)?;
            shared.add(burst.into());
            if let Amount::Rate(rate) = amount {
                let due = Duration::from_secs_f64(flood.made() as f64 / f64::from(rate));
                interrupt::pause_until(began + due.min(self.duration))?;
            }
        }
        self.truth.made_in += flood.processor_time();
        self.truth.made += flood.made();
        Ok(())
    }

    fn at_rate(&mut self, rate: u32, shared: &Shared) -> Result<()> {
        let began = Instant::now();
        let (mut elapsed, mut made) = (Duration::ZERO, 0);
        let continues = || shared.prolonged.load(Ordering::Relaxed);
        while (elapsed < self.duration || continues()) && !shared.is_stopped() {
            interrupt::pause_until(began + elapsed)?;
            let next = elapsed + TICK;
            elapsed = if elapsed < self.duration { next.min(self.duration) } else { next };
            let now = due(rate, elapsed);
            self.step(now - made, shared)?;
            made = now;
        }
        Ok(())
    }

    /// Makes `count` at once, and releases what was held long enough.
    fn step(&mut self, count: u64, shared: &Shared) -> Result<()> {
        if count > 0 {
            let held = self.make(count).with_context(|| format!("{:?}", self.traffic.kind))?;
            self.held.push_back((Instant::now(), held));
            self.steps = self.steps.wrapping_add(1);
            shared.add(count);
        }
        while self.held.front().is_some_and(|(since, _)| since.elapsed() > HOLD) {
            self.held.pop_front();
        }
        Ok(())
    }

    fn make(&mut self, count: u64) -> Result<Held> {
        match self.traffic.kind {
            TrafficKind::Handshakes(close) => self.handshakes(close, count),
            TrafficKind::Refused => {
                self.truth.add(KnownOutcome::Refused, count);
                tcp::refused(&self.path, usize::try_from(count)?).map(held)
            }
            TrafficKind::Filtered => self.filtered(count),
            TrafficKind::Unreachable => self.unreachable(count),
            TrafficKind::NoAck => self.no_ack(count),
            TrafficKind::SynScan => self.syn_scan(count),
            TrafficKind::Retransmitting(lost) => self.retransmitting(lost, count),
            TrafficKind::Slow => self.slow(count),
            TrafficKind::AcceptQueueOverflow => self.queue_fills(count),
            TrafficKind::AcceptQueueFull => self.queue_is_full(count),
            TrafficKind::Udp(answer) => self.udp(answer, count),
            TrafficKind::SynFlood(_) | TrafficKind::Flood(_) => bail!("a flood is not made in steps"),
        }
    }

    fn handshakes(&mut self, close: Close, count: u64) -> Result<Held> {
        let listener = self.listener.as_ref().context("no listener")?;
        let connections = tcp::connect_accept(&self.path, listener, usize::try_from(count)?)?;
        connections.talk(BYTES)?;
        self.truth.add(KnownOutcome::Completed, count);
        *self.truth.services.entry(listener.address()).or_default() += count;
        Ok(match close {
            Close::Fin => held(connections.close()?),
            Close::Rst => held(connections.reset()?),
            Close::Never => held(connections),
        })
    }

    fn filtered(&mut self, count: u64) -> Result<Held> {
        let deaf = Listener::deaf(&self.path, 0)?;
        let attempts = Attempts::start(&self.path, deaf.address(), usize::try_from(count)?)?;
        self.truth.add(KnownOutcome::NoSynAck, count);
        Ok(held(UnansweredAttempts { attempts, _listener: deaf }))
    }

    fn unreachable(&mut self, count: u64) -> Result<Held> {
        let address = self.network.unreachable(self.family).context("no router")?;
        // A new port each time: the same ends might repeat the same attempts.
        let to = SocketAddr::new(address, 1 + self.steps % 1000);
        let attempts = Attempts::start(&self.path, to, usize::try_from(count)?)?;
        attempts.wait_unreachable(HOLD)?;
        self.truth.add(KnownOutcome::Unreachable, count);
        Ok(held(attempts))
    }

    fn no_ack(&mut self, count: u64) -> Result<Held> {
        let listener = Listener::new(&self.path, 0, 256)?;
        if self.path.unassigned.is_some() {
            let port = 10_000 + self.steps % 20_000;
            tcp::syn_without_ack_from(&self.path, port, listener.address(), u8::try_from(count)?)?;
            self.truth.crafted += count;
            self.truth.add(KnownOutcome::NoAck, count);
            return Ok(held(listener));
        }
        let attempts = Attempts::start_deaf(&self.path, listener.address(), usize::try_from(count)?)?;
        self.truth.add(KnownOutcome::NoAck, count);
        // The listener is dropped first: otherwise its retransmissions would meet no client, and a RST.
        Ok(held((listener, attempts)))
    }

    fn syn_scan(&mut self, count: u64) -> Result<Held> {
        const PORTS: u64 = 20_000;
        let listener = Listener::new(&self.path, 0, 256)?;
        let first = u64::from(self.steps) * count % (PORTS - count);
        let (first, count16) = (10_000 + u16::try_from(first)?, u16::try_from(count)?);
        tcp::syn_scan_from(&self.path, first, listener.address(), count16)?;
        self.truth.crafted += count;
        self.truth.add(KnownOutcome::InitiatorAborted, count);
        Ok(held(listener))
    }

    fn retransmitting(&mut self, lost: LostSegment, count: u64) -> Result<Held> {
        let lost = match lost {
            LostSegment::Syn => Loss::Syn,
            LostSegment::SynAck => Loss::SynAck,
        };
        let late = tcp::lost_once(&self.path, lost, usize::try_from(count)?)?;
        self.truth.add(KnownOutcome::Completed, count);
        Ok(held(late))
    }

    fn slow(&mut self, count: u64) -> Result<Held> {
        let (slow, waited) =
            tcp::slow_answers(&self.path, Listener::new(&self.path, 0, 128)?, usize::try_from(count)?)?;
        self.truth.add(KnownOutcome::Completed, count);
        let least = tcp::SLOW_ANSWER * u32::try_from(count - 1)?;
        self.truth.longest = Some([least, waited]);
        Ok(held(slow))
    }

    fn queue_fills(&mut self, count: u64) -> Result<Held> {
        let before = counters::read(self.path.server)?;
        let filled = tcp::queue_fills_in_flight(&self.path, u8::try_from(count)?)?;
        let ignored = filled.ignored() as u64;
        self.await_repeats(&before, ignored)?;
        self.truth.overflows = true;
        self.truth.ignored_acks += ignored;
        // The queue takes as many as were refused, plus one; on the wire all are completed.
        self.truth.add(KnownOutcome::Completed, count + 1 + ignored);
        Ok(held(filled))
    }

    /// Waits until the server has retransmitted `count` SYN+ACKs, which happens after a second.
    fn await_repeats(&self, before: &Counters, count: u64) -> Result<()> {
        let deadline = Instant::now() + HOLD;
        while counters::read(self.path.server)?.since(before, "TcpExtTCPSynRetrans") < count {
            ensure!(Instant::now() < deadline, "the server does not retransmit its SYN+ACKs");
            interrupt::pause_until(Instant::now() + Duration::from_millis(20))?;
        }
        Ok(())
    }

    fn queue_is_full(&mut self, count: u64) -> Result<Held> {
        /// The queue holds one more than this.
        const BACKLOG: u8 = 2;
        let full = tcp::queue_already_full(&self.path, BACKLOG, usize::try_from(count)?)?;
        self.truth.overflows = true;
        self.truth.add(KnownOutcome::Completed, u64::from(BACKLOG) + 1);
        self.truth.add(KnownOutcome::NoSynAck, count);
        full.dropped.give_up()?;
        Ok(held(full))
    }

    fn udp(&mut self, answer: Answer, count: u64) -> Result<Held> {
        let (path, flows) = (&self.path, usize::try_from(count)?);
        let (outcome, each) = match answer {
            Answer::Echo => {
                udp::echo(path, flows, ROUNDS, BYTES)?;
                (UdpOutcome::Answered, 2 * ROUNDS)
            }
            Answer::Silence => {
                udp::silence(path, flows, ROUNDS, BYTES)?;
                (UdpOutcome::Unanswered, ROUNDS)
            }
            Answer::Closed => {
                // Ports that the kernel never assigns; a new one while flows to the last are remembered.
                udp::closed_at(path, 1 + self.steps % 1000, flows, BYTES)?;
                (UdpOutcome::Unreachable, 1)
            }
        };
        let headers = match self.family {
            Family::V4 => 20 + 8,
            Family::V6 => 40 + 8,
        };
        let datagrams = count * each as u64;
        self.truth.add_udp(outcome, count);
        self.truth.datagrams += datagrams;
        self.truth.bytes += datagrams * (BYTES as u64 + headers);
        Ok(held(()))
    }
}

fn held(something: impl Any + Send) -> Held {
    Box::new(something)
}
