//! Makes a scenario's traffic, and keeps the account of it.

use std::any::Any;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};

use super::network::Network;
use super::scenario::{Amount, Answer, Close, Kind, Lost, Scenario, Target, Traffic, due};
use super::truth::{Outcome, Truth, UdpOutcome};
use crate::counters::{self, Counters};
use crate::family::Family;
use crate::flood::{self, Flood};
use crate::interrupt;
use crate::tcp::{self, Attempts, Listener, Loss};
use crate::topology::Path;
use crate::udp;

/// A rate is made in pieces, one each so long.
const TICK: Duration = Duration::from_millis(200);
/// What is under way stays so for this long at least: its kernel sends again after 1 s and after 3 s.
const HOLD: Duration = Duration::from_secs(4);
/// Frames of a flood between two looks at whether it is enough.
const BURST: u32 = 65_536;
/// Bytes of a datagram, and of what is said on a connection.
const BYTES: usize = 100;
/// Datagrams there, and as many back.
const ROUNDS: usize = 2;

/// What the threads of a run share.
#[derive(Debug, Default)]
pub(super) struct Shared {
    made: AtomicU64,
    stopped: AtomicBool,
}

impl Shared {
    /// How many attempts, flows and frames have been made.
    pub(super) fn made(&self) -> u64 {
        self.made.load(Ordering::Relaxed)
    }

    /// Something has failed: there is no use in going on.
    pub(super) fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }

    fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    fn add(&self, count: u64) {
        self.made.fetch_add(count, Ordering::Relaxed);
    }
}

/// One kind of traffic on one path, while it is made.
pub(super) struct Source<'a> {
    traffic: Traffic,
    duration: Duration,
    network: &'a Network,
    path: Path<'a>,
    family: Family,
    /// The one listener of those whose connections end.
    listener: Option<Listener>,
    held: VecDeque<(Instant, Held)>,
    /// How often it was made: for ports that were not in use before.
    turns: u16,
    truth: Truth,
}

/// Sockets under way; what their end sends is part of the scenario.
type Held = Box<dyn Any + Send>;

/// Attempts that nobody hears. First they are forgotten, then the listener goes: it would refuse what is sent again.
struct Unheard {
    attempts: Attempts,
    _listener: Listener,
}

impl Drop for Unheard {
    fn drop(&mut self) {
        if let Err(error) = self.attempts.give_up() {
            eprintln!("{error:#}");
        }
    }
}

impl<'a> Source<'a> {
    pub(super) fn new(
        scenario: &Scenario,
        traffic: Traffic,
        network: &'a Network,
        family: Family,
    ) -> Result<Self> {
        let path = network.path(family);
        let listens = matches!(traffic.kind, Kind::Handshakes(_));
        let listener = if listens { Some(Listener::new(&path, 0, 128)?) } else { None };
        Ok(Self {
            traffic,
            duration: scenario.duration,
            network,
            path,
            family,
            listener,
            held: VecDeque::new(),
            turns: 0,
            truth: Truth::default(),
        })
    }

    /// Makes all of it. Everything has ended when it returns; when it fails, the others stop.
    pub(super) fn run(mut self, shared: &Shared) -> Result<Truth> {
        let made = match (self.traffic.kind, self.traffic.amount) {
            (Kind::SynFlood(target), amount) => self.flood(target, amount, shared),
            (_, Amount::Count(count)) => self.turn(count.into(), shared),
            (_, Amount::Rate(rate)) => self.at_rate(rate, shared),
            (kind, Amount::Flat) => Err(anyhow!("{kind:?} as fast as possible")),
        };
        made.inspect_err(|_| shared.stop())?;
        Ok(self.truth)
    }

    /// In bursts; how many of them reached the hook is told by its census.
    fn flood(&mut self, target: Target, amount: Amount, shared: &Shared) -> Result<()> {
        let listener = match target {
            Target::Deaf => Listener::deaf(&self.path, 0)?,
            Target::Listener => Listener::new(&self.path, 0, 128)?,
        };
        let flood = Flood::new(&self.path, listener.address(), flood::Kind::Syn)?;
        let burst = match amount {
            Amount::Rate(rate) => u32::try_from(due(rate, TICK))?.max(1),
            Amount::Count(_) | Amount::Flat => BURST,
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
        while elapsed < self.duration && !shared.is_stopped() {
            interrupt::pause_until(began + elapsed)?;
            elapsed = (elapsed + TICK).min(self.duration);
            let now = due(rate, elapsed);
            self.turn(now - made, shared)?;
            made = now;
        }
        Ok(())
    }

    /// `count` at once. Lets go of what was held long enough.
    fn turn(&mut self, count: u64, shared: &Shared) -> Result<()> {
        if count > 0 {
            let held = self.make(count).with_context(|| format!("{:?}", self.traffic.kind))?;
            self.held.push_back((Instant::now(), held));
            self.turns = self.turns.wrapping_add(1);
            shared.add(count);
        }
        while self.held.front().is_some_and(|(since, _)| since.elapsed() > HOLD) {
            self.held.pop_front();
        }
        Ok(())
    }

    fn make(&mut self, count: u64) -> Result<Held> {
        match self.traffic.kind {
            Kind::Handshakes(close) => self.handshakes(close, count),
            Kind::Refused => {
                self.truth.add(Outcome::Refused, count);
                tcp::refused(&self.path, usize::try_from(count)?).map(held)
            }
            Kind::Filtered => self.filtered(count),
            Kind::Unreachable => self.unreachable(count),
            Kind::NoAck => self.no_ack(count),
            Kind::SynScan => self.syn_scan(count),
            Kind::Retransmitting(lost) => self.retransmitting(lost, count),
            Kind::Slow => self.slow(count),
            Kind::AcceptQueueOverflow => self.queue_fills(count),
            Kind::AcceptQueueFull => self.queue_is_full(count),
            Kind::Udp(answer) => self.udp(answer, count),
            Kind::SynFlood(_) => bail!("a flood by single packets"),
        }
    }

    fn handshakes(&mut self, close: Close, count: u64) -> Result<Held> {
        let listener = self.listener.as_ref().context("no listener")?;
        let connections = tcp::connect_accept(&self.path, listener, usize::try_from(count)?)?;
        connections.talk(BYTES)?;
        self.truth.add(Outcome::Completed, count);
        Ok(match close {
            Close::Fin => held(connections.close()?),
            Close::Rst => held(connections.reset()?),
            Close::Never => held(connections),
        })
    }

    fn filtered(&mut self, count: u64) -> Result<Held> {
        let deaf = Listener::deaf(&self.path, 0)?;
        let attempts = Attempts::start(&self.path, deaf.address(), usize::try_from(count)?)?;
        self.truth.add(Outcome::NoSynAck, count);
        Ok(held(Unheard { attempts, _listener: deaf }))
    }

    fn unreachable(&mut self, count: u64) -> Result<Held> {
        let address = self.network.unreachable(self.family).context("no router")?;
        // A port of its own each time: from the same ends they might be the same attempts again.
        let to = SocketAddr::new(address, 1 + self.turns % 1000);
        let attempts = Attempts::start(&self.path, to, usize::try_from(count)?)?;
        attempts.wait_unreachable(HOLD)?;
        self.truth.add(Outcome::Unreachable, count);
        Ok(held(attempts))
    }

    fn no_ack(&mut self, count: u64) -> Result<Held> {
        let listener = Listener::new(&self.path, 0, 256)?;
        if self.path.nobody.is_some() {
            let port = 10_000 + self.turns % 20_000;
            tcp::syn_without_ack_from(&self.path, port, listener.address(), u8::try_from(count)?)?;
            self.truth.crafted += count;
            self.truth.add(Outcome::NoAck, count);
            return Ok(held(listener));
        }
        let attempts = Attempts::start_deaf(&self.path, listener.address(), usize::try_from(count)?)?;
        self.truth.add(Outcome::NoAck, count);
        // The listener goes first: what it repeats would meet no client, and a RST.
        Ok(held((listener, attempts)))
    }

    fn syn_scan(&mut self, count: u64) -> Result<Held> {
        const PORTS: u64 = 20_000;
        let listener = Listener::new(&self.path, 0, 256)?;
        let first = u64::from(self.turns) * count % (PORTS - count);
        let (first, count16) = (10_000 + u16::try_from(first)?, u16::try_from(count)?);
        tcp::syn_scan_from(&self.path, first, listener.address(), count16)?;
        self.truth.crafted += count;
        self.truth.add(Outcome::TakenBack, count);
        Ok(held(listener))
    }

    fn retransmitting(&mut self, lost: Lost, count: u64) -> Result<Held> {
        let lost = match lost {
            Lost::Syn => Loss::Syn,
            Lost::SynAck => Loss::SynAck,
        };
        let late = tcp::lost_once(&self.path, lost, usize::try_from(count)?)?;
        self.truth.add(Outcome::Completed, count);
        Ok(held(late))
    }

    fn slow(&mut self, count: u64) -> Result<Held> {
        let (slow, waited) = tcp::slow_answers(&self.path, usize::try_from(count)?)?;
        self.truth.add(Outcome::Completed, count);
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
        self.truth.not_taken += ignored;
        // As many fit into the queue as were refused a place, and one more: all are completed on the wire.
        self.truth.add(Outcome::Completed, count + 1 + ignored);
        Ok(held(filled))
    }

    /// Waits until the server has repeated so many SYN+ACKs: it does after a second.
    fn await_repeats(&self, before: &Counters, count: u64) -> Result<()> {
        let deadline = Instant::now() + HOLD;
        while counters::read(self.path.server)?.since(before, "TcpExtTCPSynRetrans") < count {
            ensure!(Instant::now() < deadline, "the server does not repeat its SYN+ACKs");
            interrupt::pause_until(Instant::now() + Duration::from_millis(20))?;
        }
        Ok(())
    }

    fn queue_is_full(&mut self, count: u64) -> Result<Held> {
        /// The queue takes one more.
        const BACKLOG: u8 = 2;
        let full = tcp::queue_already_full(&self.path, BACKLOG, usize::try_from(count)?)?;
        self.truth.overflows = true;
        self.truth.add(Outcome::Completed, u64::from(BACKLOG) + 1);
        self.truth.add(Outcome::NoSynAck, count);
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
                // Ports that the kernel gives nobody; another one while flows to the last are remembered.
                udp::closed_at(path, 1 + self.turns % 1000, flows, BYTES)?;
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
