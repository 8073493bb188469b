//! The rows that BPF_PROG_TEST_RUN measures: the cost per packet, by its kind.
//!
//! ```text
//! direct   frame ─▶ empty │ reference │ handshake
//! walking  frame ─▶ walker, another address each run ─▶ empty │ reference │ handshake
//! ```
//!
//! The three take turns in every round, so that other load on the machine disturbs all of them alike, and the
//! time of the empty one is subtracted from the others'.

use anyhow::{Context, Result, ensure};
use handshake_agent::options::defaults::MAX_FLOWS;
use handshake_common::abi::Counter;
use handshake_common::flow::Family;
use handshake_common::wire::Class;
use serde_json::{Value, json};

use crate::counts::CounterValues;
use crate::frames::{self, CLIENT4, Ip, SERVER_PORT};
use crate::hook::{BenchHook, Subject};
use crate::number::{mark, tenth};
use crate::ours::{Ours, Setup};
use crate::programs::{AddressWalk, Others, Steps};
use crate::statistics::Summary;

/// The number of flows in `tcp4_1m`.
const FLOWS: u32 = 1 << 20;
/// The least number of those flows that get a record: a few find both their sets full.
const LEAST_FLOWS: u64 = FLOWS as u64 / 1000 * 999;
/// The flows of the flood's small table: 65,536 slots.
const FEW_FLOWS: u32 = 32_768;
/// New flows per slot that fill the table.
pub(crate) const FILLING: u32 = 4;
/// A table is full when this share of its slots is used, and this share of the new flows evict another.
const FULL_PERCENT: u64 = 99;

/// A kind of packet, and the state of the tables that it meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RowKind {
    /// An ACK of an established connection whose record is in the cache.
    TcpHot(Ip),
    /// A request of an answered UDP flow whose record is in the cache.
    UdpHot(Ip),
    /// An ACK of any of a million established connections.
    TcpMillion,
    /// A SYN from a new address, into a table for this many flows that is full of half-open attempts.
    Flood(u32),
    /// ARP.
    Arp,
    /// A fragment that is not the first.
    Fragment,
    /// A packet of a flow that the port filter leaves out.
    FilteredPort,
}

/// A row and its goals.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PacketCase {
    pub(crate) name: &'static str,
    pub(crate) kind: RowKind,
    pub(crate) hook: BenchHook,
    /// The goal in net ns per packet.
    pub(crate) goal_ns: f64,
    /// A second goal in per cent of the reference's net time.
    pub(crate) goal_percent: Option<f64>,
}

/// The rows at XDP; those of established flows at TC too.
pub(crate) const CASES: [PacketCase; 15] = {
    use BenchHook::{Tc, Xdp};
    [
        case("tcp4_hot", RowKind::TcpHot(Ip::V4), Xdp, 20.0, None),
        case("tcp4_hot_tc", RowKind::TcpHot(Ip::V4), Tc, 20.0, None),
        case("udp4_hot", RowKind::UdpHot(Ip::V4), Xdp, 20.0, None),
        case("udp4_hot_tc", RowKind::UdpHot(Ip::V4), Tc, 20.0, None),
        case("tcp6_hot", RowKind::TcpHot(Ip::V6), Xdp, 30.0, None),
        case("tcp6_hot_tc", RowKind::TcpHot(Ip::V6), Tc, 30.0, None),
        case("udp6_hot", RowKind::UdpHot(Ip::V6), Xdp, 30.0, None),
        case("udp6_hot_tc", RowKind::UdpHot(Ip::V6), Tc, 30.0, None),
        case("tcp4_1m", RowKind::TcpMillion, Xdp, 230.0, Some(55.0)),
        case("tcp4_1m_tc", RowKind::TcpMillion, Tc, 230.0, Some(55.0)),
        case("flood4", RowKind::Flood(MAX_FLOWS), Xdp, 350.0, Some(60.0)),
        case("flood4_65536", RowKind::Flood(FEW_FLOWS), Xdp, 250.0, None),
        case("ignored_arp", RowKind::Arp, Xdp, 10.0, None),
        case("ignored_fragment", RowKind::Fragment, Xdp, 10.0, None),
        case("ignored_port", RowKind::FilteredPort, Xdp, 10.0, None),
    ]
};

const fn case(
    name: &'static str,
    kind: RowKind,
    hook: BenchHook,
    goal_ns: f64,
    goal_percent: Option<f64>,
) -> PacketCase {
    PacketCase { name, kind, hook, goal_ns, goal_percent }
}

/// The number of measurements of a row.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Effort {
    /// Turns per subject.
    pub(crate) rounds: u32,
    /// Runs per turn.
    pub(crate) repeat: u32,
}

/// The result of a row. Times are ns per run.
pub(crate) struct PacketRow {
    pub(crate) case: PacketCase,
    pub(crate) empty: Summary,
    pub(crate) reference: Summary,
    pub(crate) ours: Summary,
    pub(crate) effort: Effort,
}

impl PacketRow {
    pub(crate) fn net(&self) -> f64 {
        self.ours.median - self.empty.median
    }

    fn reference_net(&self) -> f64 {
        self.reference.median - self.empty.median
    }

    fn percent(&self) -> f64 {
        self.net() / self.reference_net() * 100.0
    }

    fn is_met(&self) -> bool {
        self.net() <= self.case.goal_ns && self.case.goal_percent.is_none_or(|goal| self.percent() <= goal)
    }

    pub(crate) fn json(&self, name: &str) -> Value {
        json!({
            "name": name, "hook": self.case.hook.name(), "unit": "ns",
            "net_ns": tenth(self.net()), "reference_net_ns": tenth(self.reference_net()),
            "empty_ns": tenth(self.empty.median), "reference_percent": tenth(self.percent()),
            "least_net_ns": tenth(self.ours.least - self.empty.least),
            "reference_least_net_ns": tenth(self.reference.least - self.empty.least),
            "goal_ns": self.case.goal_ns, "goal_percent": self.case.goal_percent, "met": self.is_met(),
            "rounds": self.effort.rounds, "repeat": self.effort.repeat,
        })
    }

    pub(crate) fn line(&self, name: &str) -> [String; 7] {
        let share = self.case.goal_percent.map_or_else(String::new, |goal| format!(", ≤ {goal} %"));
        [
            name.to_owned(),
            format!("{:.0} ns", self.net()),
            format!("{:.0} ns", self.ours.least - self.empty.least),
            format!("{:.0} ns", self.reference_net()),
            format!("{:.0} %", self.percent()),
            format!("{:.0} ns", self.empty.median),
            format!("≤ {} ns{share}{}", self.case.goal_ns, mark(self.is_met())),
        ]
    }
}

impl PacketCase {
    /// Sets everything up, lets the subjects take turns, and checks that handshake took the path that the row
    /// measures. `others` is the bench's own object.
    pub(crate) fn measure(self, others: &[u8], effort: Effort) -> Result<PacketRow> {
        let mut stage = PacketStage::set(self, others).with_context(|| format!("{}: load", self.name))?;
        stage.prepare().with_context(|| format!("{}: prepare", self.name))?;
        let before = (stage.ours.counts()?, stage.acks());
        let turns = stage.take_turns(effort)?;
        let change = stage.ours.counts()?.since(&before.0);
        let runs = u64::from(effort.repeat) * u64::from(effort.rounds + 1);
        self.kind
            .check(&change, runs)
            .with_context(|| format!("{}: the packets took another path", self.name))?;
        self.kind.check_acks(stage.acks().wrapping_sub(before.1), runs)?;
        let [empty, reference, ours] = turns.map(|samples| Summary::of(&samples));
        Ok(PacketRow { case: self, empty, reference, ours, effort })
    }
}

impl RowKind {
    fn setup(self) -> Setup {
        let max_flows = match self {
            Self::TcpMillion => FLOWS,
            Self::Flood(flows) => flows,
            Self::TcpHot(_) | Self::UdpHot(_) | Self::Arp | Self::Fragment | Self::FilteredPort => MAX_FLOWS,
        };
        let port = (self == Self::FilteredPort).then_some(SERVER_PORT + 1);
        Setup { max_flows, port, half_open_after: None }
    }

    /// The measured packet.
    fn frame(self) -> Vec<u8> {
        match self {
            Self::TcpHot(ip) => frames::ack(ip),
            Self::UdpHot(ip) => frames::udp(ip, false),
            Self::TcpMillion | Self::FilteredPort => frames::ack(Ip::V4),
            Self::Flood(_) => frames::syn(Ip::V4),
            Self::Arp => frames::arp(),
            Self::Fragment => frames::later_fragment(),
        }
    }

    /// The source addresses, if there is more than one.
    fn walk(self) -> Option<AddressWalk> {
        match self {
            Self::TcpMillion => Some(AddressWalk { base: CLIENT4, mask: FLOWS - 1, reply: false }),
            Self::Flood(_) => Some(AddressWalk { base: 0, mask: u32::MAX, reply: false }),
            Self::TcpHot(_) | Self::UdpHot(_) | Self::Arp | Self::Fragment | Self::FilteredPort => None,
        }
    }

    /// Fails unless `runs` packets of this kind explain all changes of handshake's counters.
    fn check(self, change: &CounterValues, runs: u64) -> Result<()> {
        let v4 = Some(Family::V4);
        match self {
            Self::TcpHot(ip) => {
                change.ensure_class(Class::Ack, Some(family(ip)), runs)?;
                change.ensure_only(&[])
            }
            Self::UdpHot(ip) => {
                change.ensure_class(Class::Udp, Some(family(ip)), runs)?;
                let bytes = runs * frames::udp_bytes(ip);
                change.ensure_only(&[(Counter::UdpPackets, runs), (Counter::UdpBytes, bytes)])
            }
            Self::TcpMillion => {
                change.ensure_class(Class::Ack, v4, runs)?;
                change.ensure_only(&[])
            }
            Self::Flood(_) => {
                change.ensure_class(Class::Syn, v4, runs)?;
                check_flood(change, runs)
            }
            Self::Arp => {
                change.ensure_class(Class::NonIp, None, runs)?;
                change.ensure_only(&[])
            }
            Self::Fragment => {
                change.ensure_class(Class::Fragment, v4, runs)?;
                change.ensure_only(&[])
            }
            Self::FilteredPort => {
                change.ensure_class(Class::Ack, v4, runs)?;
                change.ensure_only(&[(Counter::Filtered, runs)])
            }
        }
    }

    /// Fails unless the records have counted the packets, if they are ACKs over IPv4.
    fn check_acks(self, acks: u64, runs: u64) -> Result<()> {
        let least = match self {
            Self::TcpHot(Ip::V4) => runs,
            // The few flows without a record are not counted.
            Self::TcpMillion => runs / 100 * 99,
            Self::TcpHot(Ip::V6)
            | Self::UdpHot(_)
            | Self::Flood(_)
            | Self::Arp
            | Self::Fragment
            | Self::FilteredPort => return Ok(()),
        };
        ensure!((least..=runs).contains(&acks), "{runs} ACKs were run, and the records have counted {acks}");
        Ok(())
    }
}

pub(crate) const fn family(ip: Ip) -> Family {
    match ip {
        Ip::V4 => Family::V4,
        Ip::V6 => Family::V6,
    }
}

/// Fails unless the changes fit a flood into full tables. Every SYN is an attempt, or a retransmission from
/// an address that repeated, or untracked because its sets held only records of higher priority; and nearly
/// every attempt evicted a record.
fn check_flood(change: &CounterValues, runs: u64) -> Result<()> {
    let of = |counter| change.of(counter);
    let (attempts, repeats, copies) =
        (of(Counter::Attempts), of(Counter::SynRetransmits), of(Counter::Copies));
    ensure!(
        attempts + repeats + copies == runs,
        "{runs} SYNs were run: {attempts} attempts, {repeats} retransmissions, {copies} copies"
    );
    ensure!(attempts >= runs / 100 * FULL_PERCENT, "only {attempts} attempts of {runs} SYNs");
    let evicted = of(Counter::EvictedHalfOpen) + of(Counter::EvictedExpired);
    ensure!(evicted >= attempts / 100 * FULL_PERCENT, "only {evicted} evictions for {attempts} attempts");
    ensure!(of(Counter::Contended) == 0, "{} contended on one CPU", of(Counter::Contended));
    Ok(())
}

/// A case with all its programs loaded.
struct PacketStage {
    case: PacketCase,
    ours: Ours,
    others: Others,
}

impl PacketStage {
    fn set(case: PacketCase, others: &[u8]) -> Result<Self> {
        let setup = case.kind.setup();
        let ours = Ours::load(setup, &[case.hook.program(Subject::Ours)])?;
        // The reference's map has as many entries as handshake's table has slots.
        let others = Others::load(others, case.hook, setup.slots(), setup.port.unwrap_or(0))?;
        Ok(Self { case, ours, others })
    }

    /// Makes the flows that the row needs known to both trackers.
    fn prepare(&mut self) -> Result<()> {
        match self.case.kind {
            RowKind::TcpHot(ip) => {
                self.run_both(&[frames::syn(ip), frames::syn_ack(ip), frames::ack(ip)])?;
                self.ensure_completed(1)
            }
            RowKind::UdpHot(ip) => {
                self.run_both(&[frames::udp(ip, false), frames::udp(ip, true)])?;
                let answered = self.ours.counts()?.of(Counter::UdpAnswered);
                ensure!(answered == 1, "{answered} answered flows instead of one");
                Ok(())
            }
            RowKind::TcpMillion => self.establish_a_million(),
            RowKind::Flood(_) => self.fill(self.case.kind.setup().slots()),
            RowKind::Arp | RowKind::Fragment | RowKind::FilteredPort => Ok(()),
        }
    }

    /// Runs frames through both trackers, one after the other.
    fn run_both(&mut self, frames: &[Vec<u8>]) -> Result<()> {
        for frame in frames {
            self.others.run(self.case.hook, Subject::Reference, frame, 1)?;
            self.ours.run(self.case.hook, frame, 1)?;
        }
        Ok(())
    }

    /// Runs the three segments of a handshake for every flow in order.
    fn establish_a_million(&mut self) -> Result<()> {
        let frames = [frames::syn(Ip::V4), frames::syn_ack(Ip::V4), frames::ack(Ip::V4)];
        for (frame, reply) in frames.iter().zip([false, true, false]) {
            let walk = AddressWalk { base: CLIENT4, mask: FLOWS - 1, reply };
            for subject in [Subject::Reference, Subject::Ours] {
                self.walk(subject, walk, false, frame, FLOWS)?;
            }
        }
        self.ensure_completed(LEAST_FLOWS)?;
        let established = self.ours.totals().established;
        ensure!(established >= LEAST_FLOWS, "{established} established records in the table");
        Ok(())
    }

    fn ensure_completed(&mut self, least: u64) -> Result<()> {
        let completed = self.ours.counts()?.of(Counter::Completed);
        ensure!(completed >= least, "{completed} connections completed, and at least {least} were made");
        Ok(())
    }

    /// Floods both trackers until their tables are full.
    fn fill(&mut self, slots: u32) -> Result<()> {
        let frame = self.case.kind.frame();
        for subject in [Subject::Reference, Subject::Ours] {
            self.turn(subject, &frame, FILLING * slots)?;
        }
        let used = self.ours.counts()?.live();
        ensure!(used >= u64::from(slots) / 100 * FULL_PERCENT, "{used} of {slots} slots are used");
        Ok(())
    }

    /// Runs the rounds; returns the samples of empty, reference and ours in ns per run. A round before them
    /// is discarded, so that all code has run once.
    fn take_turns(&mut self, effort: Effort) -> Result<[Vec<f64>; 3]> {
        let frame = self.case.kind.frame();
        let mut samples = [const { Vec::new() }; 3];
        for round in 0..=effort.rounds as usize {
            // The order rotates from round to round, so that no subject always follows the same one.
            for place in 0..Subject::ALL.len() {
                let which = (round + place) % Subject::ALL.len();
                let ns = self.turn(Subject::ALL[which], &frame, effort.repeat)?;
                if round > 0 {
                    samples[which].push(ns);
                }
            }
        }
        Ok(samples)
    }

    /// Runs one turn; returns ns per run.
    fn turn(&mut self, subject: Subject, frame: &[u8], repeat: u32) -> Result<f64> {
        match (self.case.kind.walk(), subject) {
            (Some(walk), _) => self.walk(subject, walk, true, frame, repeat),
            (None, Subject::Ours) => self.ours.run(self.case.hook, frame, repeat),
            (None, Subject::Empty | Subject::Reference) => {
                self.others.run(self.case.hook, subject, frame, repeat)
            }
        }
    }

    fn walk(
        &mut self,
        subject: Subject,
        walk: AddressWalk,
        at_random: bool,
        frame: &[u8],
        repeat: u32,
    ) -> Result<f64> {
        let hook = self.case.hook;
        let program = match subject {
            Subject::Ours => self.ours.descriptor(hook)?,
            Subject::Empty | Subject::Reference => self.others.descriptor(hook, subject)?,
        };
        self.others.walk(&Steps { hook, program: &program, walk, at_random, frame, repeat })
    }

    fn acks(&self) -> u64 {
        self.ours.totals().acks
    }
}
