//! One report as plain numbers: what the counters say, set right by what the tables show. Pure but
//! for the [`Source`] it asks; the time is the reading's.
//!
//! The gauges are the truth for how many attempts are open and of which cause, and they balance at
//! every reading. The scan of the tables comes later, while packets go on arriving, so it may count
//! a few more or less. It therefore only says how the gauges' open attempts divide by age:
//!
//! ```text
//! gauge open ─┬─ moved      past T2 and not yet met: shown as half_open_expired, never more than open
//!             ├─ half_open  at least T1 old in the scan, never more than is left
//!             └─ opening    the rest: what the scan missed was moving, so it was young
//! ```
//!
//! Whatever is taken from one term is added to another, so the identity holds in print for any scan
//! at all, and [`Snapshot::unsettled`] tells how far the scan was off.

use std::net::{IpAddr, SocketAddr};
use std::ops::AddAssign;
use std::sync::Arc;

use handshake_common::abi::{
    BUCKETS, ClassBlock, Counter, CounterBlock, Histogram, SERVICE_GAUGES, SERVICES, Service, class_index,
};
use handshake_common::flow::Family;
use handshake_common::latency::{bucket, upper_bound};
use handshake_common::record::{Clocks, Now};
use handshake_common::verdict::{Cause, Leg, Role, Sign, TCP, UDP, UdpVerdict, Verdict};
use handshake_common::wire::Class;

use crate::address::ip;
use crate::error::Error;
use crate::options::Filter;
use crate::source::scan::{Ages, ByCause, Scan};
use crate::source::{Moment, Reading, Source};

/// Rows of the service table from here on are UDP's; each half begins with its `other`.
#[expect(clippy::cast_possible_truncation, reason = "a row's number fits its 16 bits of the tag")]
pub const FIRST_UDP_ROW: u16 = (SERVICES / 2) as u16;

/// What stays the same over a run.
#[derive(Clone, Debug)]
pub struct Context {
    /// What is looked at.
    pub origin: Origin,
    /// When counting began, ns since the Unix epoch.
    pub from_ns: u64,
    /// Which flows count.
    pub filter: Filter,
    /// Services listed by name, of each protocol.
    pub top: usize,
}

/// Where the packets come from.
#[derive(Clone, Debug)]
pub enum Origin {
    /// A file; `-` is standard input.
    Capture {
        /// As given on the command line.
        path: String,
        /// The names of its interfaces that have one, by hook point; those met so far.
        interfaces: Vec<Option<String>>,
    },
    /// Interfaces, in the order of the records' hook points.
    Live {
        /// At least one.
        interfaces: Vec<Interface>,
    },
}

/// An interface that is watched, and how.
#[derive(Clone, Debug, Default)]
pub struct Interface {
    /// As `ip link` names it.
    pub name: String,
    /// The hook that sees what comes in, in the words of `--hook`.
    pub ingress: Option<String>,
    /// The hook that sees what goes out.
    pub egress: Option<String>,
    /// A super-packet counts as one here, since the hook cannot see its segments.
    pub merged: bool,
    /// Programs that see, and may drop, packets before ours.
    pub before: Vec<String>,
}

/// The figures of one report.
#[derive(Clone)]
pub struct Snapshot {
    /// What stays the same over the run.
    pub context: Arc<Context>,
    /// When it was taken, ns since the Unix epoch.
    pub taken_at_ns: u64,
    /// The same moment on the records' clocks.
    pub now: Now,
    /// Time stands still: what is open is half-open.
    pub stopped: bool,
    /// When flows change by age alone.
    pub clocks: Clocks,
    /// When the latest SYN that passed the filter had been counted, ns since the epoch; the start while there was none.
    pub syn_seen_ns: u64,
    /// SYNs and first UDP packets that got no record.
    pub untracked: u64,
    /// Segments given up because another CPU held the slot.
    pub contended: u64,
    /// Events that the ring had no room for.
    pub lost_events: u64,
    /// Packets the interfaces lost before any hook.
    pub lost_before_hook: u64,
    /// How far the scan's count of open attempts was from the gauges'.
    pub unsettled: u64,
    /// Packets at all hooks.
    pub packets: Packets,
    /// Packets by interface, in the order of [`Origin::Live`].
    pub interfaces: Vec<Packets>,
    /// TCP's figures.
    pub tcp: Tcp,
    /// Latencies by leg, in the order of [`Leg::ALL`].
    pub latency: [Latency; 3],
    /// UDP's figures.
    pub udp: Udp,
    /// The flow tables.
    pub table: Table,
    /// The busiest services and the two sums of the others, TCP's first.
    pub services: Vec<ServiceRow>,
    /// What the latencies come from, for the difference of two snapshots.
    histograms: Arc<[Histogram; 3]>,
}

/// Packets by class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Packets {
    /// All of them.
    pub total: u64,
    /// With an IPv4 header.
    pub ipv4: u64,
    /// With an IPv6 header.
    pub ipv6: u64,
    /// Of flows that the filter leaves out; not known by interface.
    pub filtered: Option<u64>,
    classes: [u64; Class::ALL.len()],
}

/// The identity's terms: of all attempts, or of one service's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Books {
    /// SYNs with a new identity.
    pub attempts: u64,
    /// By verdict, then by cause; of a verdict without causes all is in the first place.
    figures: [ByCause; Verdict::ALL.len()],
}

/// TCP's figures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tcp {
    /// The identity.
    pub books: Books,
    /// Completed more than T1 after the first SYN.
    pub late: u64,
    /// The verdicts outside the identity; the others count 0 here.
    outside: [u64; Verdict::ALL.len()],
    /// How often each verdict was entered, where attempts leave it again.
    entered: [Option<u64>; Verdict::ALL.len()],
    signs: [u64; Sign::ALL.len()],
}

/// UDP's figures: of all flows, or of one service's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UdpBooks {
    /// Flows seen.
    pub flows: u64,
    figures: [u64; UdpVerdict::ALL.len()],
}

/// UDP's figures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Udp {
    /// The identity.
    pub books: UdpBooks,
    /// How often each verdict was entered, where flows leave it again.
    entered: [Option<u64>; UdpVerdict::ALL.len()],
    /// Packets of tracked flows.
    pub packets: u64,
    /// Bytes of their IP packets.
    pub bytes: u64,
}

/// The latency of one leg.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Latency {
    /// Samples.
    pub count: u64,
    /// Attempts left out: retransmissions or disorder blur their time.
    pub excluded: u64,
    /// Unknown without a sample.
    pub quantiles: Option<Quantiles>,
}

/// What the samples of a leg come to, ns: bucket bounds, at most 1/16 above the truth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quantiles {
    /// Half of the samples are at most this.
    pub p50_ns: u64,
    /// 90 of 100 are.
    pub p90_ns: u64,
    /// 99 of 100 are.
    pub p99_ns: u64,
    /// All are.
    pub max_ns: u64,
}

/// The flow tables.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Table {
    /// Slots of both.
    pub slots: u64,
    /// Slots that hold a record.
    pub used: u64,
    /// Records evicted, in the order of [`EVICTIONS`].
    pub evictions: [u64; EVICTIONS.len()],
}

/// What kinds of records are counted when they are evicted, from the least worth to the most.
pub const EVICTIONS: [(&str, Counter); 6] = [
    ("expired", Counter::EvictedExpired),
    ("closed", Counter::EvictedClosed),
    ("midstream", Counter::EvictedMidstream),
    ("udp", Counter::EvictedUdp),
    ("half_open", Counter::EvictedHalfOpen),
    ("completed", Counter::EvictedCompleted),
];

/// One service's figures, or the sum of those that are not listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServiceRow {
    /// The responder; `None` is `other`.
    pub service: Option<SocketAddr>,
    /// Its figures.
    pub books: ServiceBooks,
}

/// The figures of a service, by its protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServiceBooks {
    /// A TCP service.
    Tcp(Books),
    /// A UDP service.
    Udp(UdpBooks),
}

impl ServiceBooks {
    /// A TCP service's figures.
    pub fn tcp(&self) -> Option<&Books> {
        match self {
            Self::Tcp(books) => Some(books),
            Self::Udp(_) => None,
        }
    }

    /// A UDP service's figures.
    pub fn udp(&self) -> Option<&UdpBooks> {
        match self {
            Self::Tcp(_) => None,
            Self::Udp(books) => Some(books),
        }
    }
}

impl Snapshot {
    /// Reads the source once: the counters, then the tables. `previous` is the run's last snapshot:
    /// what it showed as expired stays so.
    ///
    /// # Errors
    ///
    /// Those of reading the source.
    pub fn take(
        source: &mut dyn Source,
        context: &Arc<Context>,
        previous: Option<&Self>,
    ) -> Result<Self, Error> {
        let reading = source.read()?;
        let scan = source.scan(reading.now, None);
        let services = source.services();
        Ok(Self::build(&reading, &scan, &services, context, previous))
    }

    fn build(
        reading: &Reading,
        scan: &Scan,
        services: &[(u16, Service)],
        context: &Arc<Context>,
        previous: Option<&Self>,
    ) -> Self {
        let word = |counter: Counter| word(&reading.counters, counter);
        let all = scan.all();
        let shown = previous.map(|p| p.tcp.books.by_cause(Verdict::HalfOpenExpired)).unwrap_or_default();
        let mut snapshot = Self {
            context: Arc::clone(context),
            taken_at_ns: reading.wall_ns,
            now: reading.now,
            stopped: reading.stopped,
            clocks: scan.clocks(),
            syn_seen_ns: context.from_ns,
            untracked: word(Counter::Untracked),
            contended: word(Counter::Contended),
            lost_events: word(Counter::LostEvents),
            lost_before_hook: reading.lost_before_hook,
            unsettled: unsettled(&reading.counters, &all),
            packets: Packets { filtered: Some(word(Counter::Filtered)), ..Packets::sum(&reading.classes) },
            interfaces: reading.classes.iter().map(|block| Packets::sum(&[*block])).collect(),
            tcp: Tcp::of(reading, &all, shown),
            latency: latencies(reading),
            udp: Udp::of(reading, &all),
            table: Table::of(reading, scan.used()),
            services: rank(services, scan, reading.stopped, context.top),
            histograms: Arc::new(reading.histograms),
        };
        snapshot.syn_seen_ns = snapshot.latest_syn(previous);
        snapshot
    }

    /// The same with fewer services listed by name, of each protocol.
    pub fn with_top(&self, top: usize) -> Self {
        fn of<'a, B: Copy + 'a>(
            rows: &'a [ServiceRow],
            books: impl Fn(&'a ServiceBooks) -> Option<&'a B>,
        ) -> Vec<(Option<SocketAddr>, B)> {
            rows.iter().filter_map(|row| Some((row.service, *books(&row.books)?))).collect()
        }
        let (tcp, udp) = (of(&self.services, ServiceBooks::tcp), of(&self.services, ServiceBooks::udp));
        Self { services: ranked(tcp, udp, top), ..self.clone() }
    }

    /// Is every verdict the wire's? Nothing was lost, then.
    pub fn is_exact(&self) -> bool {
        self.losses().iter().all(|(_, lost)| *lost == 0)
    }

    /// What makes a report inexact, by name.
    pub fn losses(&self) -> [(&'static str, u64); 6] {
        [
            ("untracked", self.untracked),
            ("contended", self.contended),
            ("evicted", self.tcp.verdict(Verdict::Evicted)),
            ("udp.evicted", self.udp.books.verdict(UdpVerdict::Evicted)),
            ("lost_events", self.lost_events),
            ("lost_before_hook", self.lost_before_hook),
        ]
    }

    /// How long counting has gone on, ns.
    pub fn elapsed_ns(&self) -> u64 {
        self.taken_at_ns.saturating_sub(self.context.from_ns)
    }

    /// How long ago a SYN passed the filter, ns.
    pub fn quiet_ns(&self) -> u64 {
        self.taken_at_ns.saturating_sub(self.syn_seen_ns)
    }

    /// The moment that its flows are judged at.
    #[must_use]
    pub const fn moment(&self) -> Moment {
        Moment { now: self.now, stopped: self.stopped, clocks: self.clocks }
    }

    /// The latency of a leg.
    pub fn latency(&self, leg: Leg) -> &Latency {
        &self.latency[leg as usize]
    }

    /// The times of a leg.
    pub fn histogram(&self, leg: Leg) -> &Histogram {
        &self.histograms[leg as usize]
    }

    /// SYNs that passed the filter: each is an attempt, a retransmission, or was not tracked.
    fn syns(&self) -> u64 {
        self.tcp.books.attempts + self.tcp.sign(Sign::SynRetransmit) + self.untracked
    }

    fn latest_syn(&self, previous: Option<&Self>) -> u64 {
        let (before, seen_ns) = previous.map_or((0, self.context.from_ns), |p| (p.syns(), p.syn_seen_ns));
        if self.syns() == before { seen_ns } else { self.taken_at_ns }
    }
}

/// What happened between two snapshots of one run.
pub struct Interval<'a> {
    before: &'a Snapshot,
    now: &'a Snapshot,
    /// Latencies of the interval alone, in the order of [`Leg::ALL`].
    pub latency: [Latency; 3],
}

impl<'a> Interval<'a> {
    /// From `before` to `now`.
    pub fn between(before: &'a Snapshot, now: &'a Snapshot) -> Self {
        let latency = Leg::ALL.map(|leg| {
            let at = leg as usize;
            let histogram = difference(&now.histograms[at], &before.histograms[at]);
            let excluded = now.latency[at].excluded.saturating_sub(before.latency[at].excluded);
            // The longest of the run bounds the interval's too; the interval's own is not known.
            let most = now.latency[at].quantiles.map_or(0, |q| q.max_ns);
            Latency::of(&histogram, excluded, most)
        });
        Self { before, now, latency }
    }

    /// The times of a leg in the interval alone.
    pub fn histogram(&self, leg: Leg) -> Histogram {
        difference(self.now.histogram(leg), self.before.histogram(leg))
    }

    /// Its length, ns.
    pub fn elapsed_ns(&self) -> u64 {
        self.now.taken_at_ns.saturating_sub(self.before.taken_at_ns)
    }

    /// By how much a figure changed. Provisional verdicts and gauges may fall.
    pub fn change(&self, figure: impl Fn(&Snapshot) -> u64) -> i64 {
        figure(self.now).wrapping_sub(figure(self.before)).cast_signed()
    }

    /// By how much a figure rose; 0 when it fell.
    pub fn rise(&self, figure: impl Fn(&Snapshot) -> u64) -> u64 {
        self.change(figure).max(0).cast_unsigned()
    }
}

impl Packets {
    fn sum(blocks: &[ClassBlock]) -> Self {
        let mut sum = Self::default();
        for block in blocks {
            for (at, class) in Class::ALL.iter().enumerate() {
                let [neither, ipv4, ipv6] =
                    [0, 1, 2].map(|family| block.packets[class_index(*class as u8, family)]);
                sum.ipv4 += ipv4;
                sum.ipv6 += ipv6;
                sum.classes[at] += neither + ipv4 + ipv6;
            }
        }
        sum.total = sum.classes.iter().sum();
        sum
    }

    /// Packets of one class.
    pub fn class(&self, class: Class) -> u64 {
        self.classes[class as usize]
    }
}

impl Books {
    /// Divides the gauges' open attempts by what the scan found; `shown` is what `half_open_expired` may
    /// not fall below. Only a source whose time runs backwards could ask for more than is open: the
    /// identity goes first then.
    fn settle(gauges: &[u64; SERVICE_GAUGES], ages: &Ages, shown: ByCause, stopped: bool) -> Self {
        let gauge = |counter: Counter| gauges[counter as usize - Counter::Attempts as usize];
        let mut books = Self { attempts: gauge(Counter::Attempts), ..Self::default() };
        let told = TCP.iter().filter(|row| matches!(row.role, Role::End | Role::Term));
        for (row, part) in told.flat_map(|row| row.gauges.iter().map(move |part| (row, part))) {
            *books.at(row.verdict, part.cause.unwrap_or(Cause::NoSynAck)) = gauge(part.counter);
        }
        for cause in Cause::ALL {
            let (met, open) = (gauge(cause.expired()), gauge(cause.open()));
            let moved = ages.expired.of(cause).max(shown.of(cause).saturating_sub(met)).min(open);
            let left = open - moved;
            let half_open = if stopped { left } else { ages.half_open.of(cause).min(left) };
            *books.at(Verdict::HalfOpenExpired, cause) = met + moved;
            *books.at(Verdict::HalfOpen, cause) = half_open;
            *books.at(Verdict::Opening, cause) = left - half_open;
        }
        books
    }

    fn at(&mut self, verdict: Verdict, cause: Cause) -> &mut u64 {
        self.figures[verdict as usize].at(cause)
    }

    /// The figure of a verdict; those outside the identity are not here and count 0.
    pub fn verdict(&self, verdict: Verdict) -> u64 {
        self.by_cause(verdict).total()
    }

    /// The figure of a verdict that has causes, by cause.
    pub fn by_cause(&self, verdict: Verdict) -> ByCause {
        self.figures[verdict as usize]
    }

    /// So many attempts, of which these had these verdicts.
    #[cfg(any(test, feature = "testing"))]
    #[must_use]
    pub fn of(attempts: u64, figures: &[(Verdict, [u64; 2])]) -> Self {
        let mut books = Self { attempts, ..Self::default() };
        for (verdict, [no_syn_ack, no_ack]) in figures {
            books.figures[*verdict as usize] = ByCause { no_syn_ack: *no_syn_ack, no_ack: *no_ack };
        }
        books
    }

    /// The identity's right side: all verdicts and what is open.
    #[cfg(test)]
    pub fn accounted(&self) -> u64 {
        Verdict::ALL.iter().map(|verdict| self.verdict(*verdict)).sum()
    }
}

impl AddAssign for Books {
    fn add_assign(&mut self, other: Self) {
        self.attempts += other.attempts;
        self.figures.iter_mut().zip(other.figures).for_each(|(sum, figure)| *sum += figure);
    }
}

impl Tcp {
    fn of(reading: &Reading, ages: &Ages, shown: ByCause) -> Self {
        let counters = &reading.counters;
        let first = Counter::Attempts as usize;
        let gauges = std::array::from_fn(|i| counters.words[first + i]);
        Self {
            books: Books::settle(&gauges, ages, shown, reading.stopped),
            late: word(counters, Counter::Late),
            outside: TCP.map(|row| if row.is_term() { 0 } else { word(counters, row.gauges[0].counter) }),
            entered: TCP.map(|row| row.entered.map(|entries| word(counters, entries.counter))),
            signs: Sign::ALL.map(|sign| word(counters, sign.counter())),
        }
    }

    /// The figure of a verdict, in the books or outside.
    pub fn verdict(&self, verdict: Verdict) -> u64 {
        self.books.verdict(verdict) + self.outside[verdict as usize]
    }

    /// How often a verdict was entered, where attempts leave it again.
    pub fn entered(&self, verdict: Verdict) -> Option<u64> {
        self.entered[verdict as usize]
    }

    /// How often a sign was seen.
    pub fn sign(&self, sign: Sign) -> u64 {
        self.signs[sign as usize]
    }
}

impl UdpBooks {
    /// Divides the flows that wait by what the scan found younger than T1. Where time stands still none is
    /// pending: no answer will come.
    fn settle(gauge: impl Fn(Counter) -> u64, ages: &Ages, stopped: bool) -> Self {
        let waiting = gauge(Counter::UdpWaiting);
        let pending = if stopped { 0 } else { ages.pending.min(waiting) };
        let figures = UDP.map(|row| match (row.role, row.verdict) {
            (Role::ByAge, UdpVerdict::Pending) => pending,
            (Role::ByAge, _) => waiting - pending,
            (Role::End | Role::Term | Role::Outside, _) => gauge(row.gauges[0].counter),
        });
        Self { flows: gauge(Counter::UdpFlows), figures }
    }

    /// The figure of a verdict.
    pub fn verdict(&self, verdict: UdpVerdict) -> u64 {
        self.figures[verdict as usize]
    }
}

impl AddAssign for UdpBooks {
    fn add_assign(&mut self, other: Self) {
        self.flows += other.flows;
        self.figures.iter_mut().zip(other.figures).for_each(|(sum, figure)| *sum += figure);
    }
}

impl Udp {
    fn of(reading: &Reading, ages: &Ages) -> Self {
        let counters = &reading.counters;
        Self {
            books: UdpBooks::settle(|counter| word(counters, counter), ages, reading.stopped),
            entered: UDP.map(|row| row.entered.map(|entries| word(counters, entries.counter))),
            packets: word(counters, Counter::UdpPackets),
            bytes: word(counters, Counter::UdpBytes),
        }
    }

    /// How often a verdict was entered, where flows leave it again.
    pub fn entered(&self, verdict: UdpVerdict) -> Option<u64> {
        self.entered[verdict as usize]
    }
}

impl Table {
    fn of(reading: &Reading, used: u64) -> Self {
        let evictions = EVICTIONS.map(|(_, counter)| word(&reading.counters, counter));
        Self { slots: reading.slots, used, evictions }
    }
}

impl Latency {
    /// `most` is the longest sample where it is known.
    fn of(histogram: &Histogram, excluded: u64, most: u64) -> Self {
        let count = histogram.buckets.iter().sum();
        let quantiles = last_bucket(histogram).map(|last| {
            // The maximum is read a moment before the buckets: it may not know the last sample yet.
            let max_ns = if bucket(most) < last { upper_bound(last) } else { most.min(upper_bound(last)) };
            let at = |percent| quantile(histogram, count, percent).min(max_ns);
            Quantiles { p50_ns: at(50), p90_ns: at(90), p99_ns: at(99), max_ns }
        });
        Self { count, excluded, quantiles }
    }
}

/// The `top` services of each protocol, busiest first; all others in one row a protocol.
fn rank(services: &[(u16, Service)], scan: &Scan, stopped: bool, top: usize) -> Vec<ServiceRow> {
    let (mut tcp, mut udp) = (Vec::new(), Vec::new());
    for (row, service) in services {
        let address = if row % FIRST_UDP_ROW == 0 { None } else { Some(address(service)) };
        // A row's words are changed one by one: between two of them a gauge may be below 0.
        let gauges = service.gauges.map(|word| word.cast_signed().max(0).cast_unsigned());
        let ages = scan.row(*row);
        if *row < FIRST_UDP_ROW {
            tcp.push((address, Books::settle(&gauges, &ages, ByCause::default(), stopped)));
        } else {
            let gauge = |counter: Counter| gauges[counter as usize - Counter::UdpFlows as usize];
            udp.push((address, UdpBooks::settle(gauge, &ages, stopped)));
        }
    }
    ranked(tcp, udp, top)
}

fn ranked(
    tcp: Vec<(Option<SocketAddr>, Books)>,
    udp: Vec<(Option<SocketAddr>, UdpBooks)>,
    top: usize,
) -> Vec<ServiceRow> {
    let mut rows = fold(tcp, |books| books.attempts, top, ServiceBooks::Tcp);
    rows.extend(fold(udp, |books| books.flows, top, ServiceBooks::Udp));
    rows
}

fn fold<B: AddAssign + Default + Copy + PartialEq>(
    mut rows: Vec<(Option<SocketAddr>, B)>,
    busy: impl Fn(&B) -> u64,
    top: usize,
    wrap: impl Fn(B) -> ServiceBooks,
) -> Vec<ServiceRow> {
    rows.sort_by_key(|(service, books)| (service.is_none(), std::cmp::Reverse(busy(books)), *service));
    let named = rows.iter().filter(|(service, _)| service.is_some()).count().min(top);
    let mut other = B::default();
    for (_, books) in &rows[named..] {
        other += *books;
    }
    rows.truncate(named);
    if other != B::default() {
        rows.push((None, other));
    }
    rows.into_iter().map(|(service, books)| ServiceRow { service, books: wrap(books) }).collect()
}

fn address(service: &Service) -> SocketAddr {
    let family = if service.family == Family::V6 as u8 { Family::V6 } else { Family::V4 };
    let address: IpAddr = ip(service.address, family);
    SocketAddr::new(address, service.port)
}

fn latencies(reading: &Reading) -> [Latency; 3] {
    Leg::ALL.map(|leg| {
        let of = |counter: Counter| word(&reading.counters, counter);
        Latency::of(&reading.histograms[leg as usize], of(leg.excluded()), of(leg.longest()))
    })
}

fn unsettled(counters: &CounterBlock, ages: &Ages) -> u64 {
    let gauges: u64 = Cause::ALL.iter().map(|cause| word(counters, cause.open())).sum();
    let scanned = ages.opening.total() + ages.half_open.total() + ages.expired.total();
    scanned.abs_diff(gauges)
}

/// The bound of the bucket that holds the sample of this rank.
fn quantile(histogram: &Histogram, count: u64, percent: u64) -> u64 {
    let rank = u128::from(count) * u128::from(percent);
    let mut below = 0_u128;
    for (index, samples) in (0..).zip(histogram.buckets) {
        below += u128::from(samples);
        if below * 100 >= rank && samples != 0 {
            return upper_bound(index);
        }
    }
    0
}

fn last_bucket(histogram: &Histogram) -> Option<u32> {
    (0..).zip(histogram.buckets).filter(|(_, samples)| *samples != 0).map(|(index, _)| index).last()
}

fn difference(now: &Histogram, before: &Histogram) -> Histogram {
    let mut buckets = [0; BUCKETS];
    for (bucket, (now, before)) in buckets.iter_mut().zip(now.buckets.iter().zip(&before.buckets)) {
        *bucket = now.saturating_sub(*before);
    }
    Histogram { buckets }
}

fn word(counters: &CounterBlock, counter: Counter) -> u64 {
    counters.words[counter as usize]
}

#[cfg(test)]
mod tests;
