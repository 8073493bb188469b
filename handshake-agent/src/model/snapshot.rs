//! One report as plain numbers: what the counters say, set right by what the tables show
//! ([`books`](super::books)). Pure except for the [`Source`] that it asks; the time is the reading's.

use std::sync::Arc;

use handshake_common::abi::{Counter, CounterBlock, Histogram};
use handshake_common::record::{Clocks, Now};
use handshake_common::verdict::{Cause, Leg, Seat, Sign, Verdict};
use handshake_common::wire::Class;

use crate::delta::worded;
use crate::error::Error;
use crate::model::books::word;
pub use crate::model::books::{TcpBooks, TcpFigures, UdpBooks, UdpFigures};
use crate::model::connect::ConnectOfAll;
pub use crate::model::context::{Beginning, CaptureOrigin, InterfaceHooks, LiveOrigin, Origin, RunContext};
pub use crate::model::latency::{Latency, Quantiles};
use crate::model::latency::{difference, latencies};
pub use crate::model::loss::Loss;
use crate::model::loss::{self, LossFigures};
pub use crate::model::lost::LostBetween;
pub use crate::model::packets::Packets;
pub use crate::model::service::{FIRST_UDP_ROW, ServiceBooks, ServiceFigures};
use crate::model::service::{listed, services};
use crate::model::settled::Settled;
pub use crate::model::table::{EVICTIONS, TableUse};
pub use crate::model::unseen::UnseenOpens;
pub use crate::model::workload::WorkloadFigures;
use crate::model::workload::{self, workloads};
use crate::source::local::HostAddresses;
use crate::source::opens::KernelOpens;
use crate::source::scan::{Ages, ByCause, LostHere, Scan};
use crate::source::sight::Sight;
use crate::source::{Moment, Reading, ServiceReading, Source};

/// How far the wall clock may stray from the records' before it counts as set.
const CLOCK_SET_NS: u64 = 1_000_000_000;

/// What a snapshot has of those before it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inherited {
    syn_seen_ns: u64,
    unseen: Option<UnseenOpens>,
    expired: ByCause,
    found_ns: Vec<(String, (u64, u64))>,
}

worded!(Inherited { syn_seen_ns, unseen, expired, found_ns });

/// The figures of one report.
#[derive(Clone)]
pub struct Snapshot {
    /// The parts that stay the same over the run.
    pub context: Arc<RunContext>,
    /// When it was taken, ns since the Unix epoch: a label. The wall clock may be set between two snapshots,
    /// so durations are differences of [`Snapshot::now`].
    pub taken_at_ns: u64,
    /// The same moment on the records' clocks.
    pub now: Now,
    /// Whether time stands still, as at the end of a capture: what is open is half-open.
    pub stopped: bool,
    /// When flows change by age alone.
    pub clocks: Clocks,
    /// The time of the snapshot that first counted the latest SYN, on the records' clock; the start of the
    /// run while there was none.
    pub syn_seen_ns: u64,
    /// The connections that the kernel opened while nothing of a handshake passed the hooks; `None` where its
    /// count is not known.
    pub unseen: Option<UnseenOpens>,
    /// Segments given up because another CPU held the slot.
    pub contended: u64,
    /// Events that the ring had no room for.
    pub lost_events: u64,
    /// Packets the interfaces lost before any hook.
    pub lost_before_hook: u64,
    /// How often the figure of what they lost could not be read.
    pub unreadable_counters: u64,
    /// Readings that failed for the moment.
    pub missed_snapshots: u64,
    /// What the looks at the hooks have found.
    pub sight: Sight,
    /// How far the scan's count of open attempts was from the gauges'.
    pub unsettled: u64,
    /// Packets at all hooks.
    pub packets: Packets,
    /// Packets by interface, in the order of [`LiveOrigin`].
    pub interfaces: Vec<Packets>,
    /// Packets of the interfaces that are gone.
    pub gone: Packets,
    /// TCP's figures.
    pub tcp: TcpFigures,
    /// Latencies by leg, in the order of [`Leg::ALL`].
    pub latency: [Latency; Leg::ALL.len()],
    /// The time to connect, those that never connected included.
    pub connect_of_all: ConnectOfAll,
    /// UDP's figures.
    pub udp: UdpFigures,
    /// The flow tables.
    pub table: TableUse,
    /// Services whose row another service took.
    pub services_evicted: u64,
    /// The services that are listed by name and the two sums of the others, TCP's first.
    pub services: Vec<ServiceFigures>,
    /// Every service that has a row, and the row of the others.
    pub every_service: Arc<[ServiceFigures]>,
    /// The workloads of this host, the busiest first.
    pub workloads: Arc<[WorkloadFigures]>,
    /// The addresses of this host.
    pub host: Arc<HostAddresses>,
    /// What most of the attempts that are lost in this host have lost.
    pub lost_here: Option<LostBetween>,
    /// The attempts that are lost in this host.
    pub(crate) lost: Arc<LostHere>,
    usual_seats: [Option<Seat>; Cause::ALL.len()],
    usual_flags: [u32; Cause::ALL.len()],
    /// The counters as read.
    counters: CounterBlock,
    /// The histograms of the legs, for the difference of two snapshots.
    histograms: Arc<[Histogram; Leg::ALL.len()]>,
    /// The reasons that occurred, with the times of the snapshots that first and last had more of them.
    found_ns: Vec<(&'static str, (u64, u64))>,
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
        context: &Arc<RunContext>,
        previous: Option<&Self>,
    ) -> Result<Self, Error> {
        let reading = source.read()?;
        let scan = source.scan(reading.now, None);
        let rows = (source.services(), source.workloads());
        Ok(Self::build(&reading, &scan, &rows, context, previous))
    }

    /// What the next one has of it.
    pub fn inherited(&self) -> Inherited {
        let found = self.found_ns.iter().map(|(reason, times)| ((*reason).to_owned(), *times));
        Inherited {
            syn_seen_ns: self.syn_seen_ns,
            unseen: self.unseen,
            expired: self.tcp.books.by_cause(Verdict::HalfOpenExpired),
            found_ns: found.collect(),
        }
    }

    /// The same of a moment that a recording has, with what it had of those before it.
    ///
    /// # Errors
    ///
    /// Those of reading the source.
    pub fn again(
        source: &mut dyn Source,
        context: &Arc<RunContext>,
        inherited: &Inherited,
    ) -> Result<Self, Error> {
        let reading = source.read()?;
        let scan = source.scan(reading.now, None);
        let rows = (source.services(), source.workloads());
        let mut snapshot = Self::build_showing(&reading, &scan, &rows, context, (None, inherited.expired));
        let known: Vec<&'static str> = snapshot.possible_losses().iter().map(|loss| loss.reason).collect();
        let times = |reason| inherited.found_ns.iter().find(|(name, _)| name == reason).map(|found| found.1);
        let found = known.into_iter().filter_map(|reason| Some((reason, times(reason)?)));
        snapshot.found_ns = found.collect();
        (snapshot.syn_seen_ns, snapshot.unseen) = (inherited.syn_seen_ns, inherited.unseen);
        Ok(snapshot)
    }

    /// The workloads that a report lists: the busiest by name, all others in one row, the last.
    #[must_use]
    pub fn listed_workloads(&self) -> Vec<WorkloadFigures> {
        workload::listed(&self.workloads, self.context.top)
    }

    pub(crate) fn build(
        reading: &Reading,
        scan: &Scan,
        rows: &(Vec<ServiceReading>, Vec<ServiceReading>),
        context: &Arc<RunContext>,
        previous: Option<&Self>,
    ) -> Self {
        let shown = previous.map(|p| p.tcp.books.by_cause(Verdict::HalfOpenExpired)).unwrap_or_default();
        Self::build_showing(reading, scan, rows, context, (previous, shown))
    }

    fn build_showing(
        reading: &Reading,
        scan: &Scan,
        (services, workloads): &(Vec<ServiceReading>, Vec<ServiceReading>),
        context: &Arc<RunContext>,
        (previous, shown): (Option<&Self>, ByCause),
    ) -> Self {
        let word = |counter: Counter| word(&reading.counters, counter);
        let all = scan.all();
        let longest_ns = word(Leg::Connect.longest());
        let every_service = self::services(services, scan, reading.stopped, longest_ns);
        let every_service: Arc<[ServiceFigures]> = every_service.into();
        let had = previous.map_or(&[][..], |previous| &previous.workloads);
        let mut snapshot = Self {
            context: Arc::clone(context),
            taken_at_ns: reading.wall_ns,
            now: reading.now,
            stopped: reading.stopped,
            clocks: scan.clocks(),
            syn_seen_ns: context.began.ns,
            unseen: None,
            contended: word(Counter::Contended),
            lost_events: word(Counter::LostEvents),
            lost_before_hook: reading.lost_before_hook,
            unreadable_counters: reading.unreadable_counters,
            missed_snapshots: reading.missed_snapshots,
            sight: reading.sight.clone(),
            unsettled: unsettled(&reading.counters, &all),
            packets: Packets {
                filtered: Some(word(Counter::Filtered)),
                extension_chains: Some(word(Counter::ExtensionChains)),
                split_headers: Some(word(Counter::SplitHeaders)),
                copies: Some(word(Counter::Copies)),
                ..Packets::sum(reading.classes.iter().chain([&reading.gone]))
            },
            interfaces: reading.classes.iter().map(|block| Packets::sum([block])).collect(),
            gone: Packets::sum([&reading.gone]),
            tcp: TcpFigures::of(reading, &all, shown),
            latency: latencies(reading),
            connect_of_all: ConnectOfAll::default(),
            udp: UdpFigures::of(reading, &all),
            table: TableUse::of(reading, scan.used()),
            services_evicted: word(Counter::ServicesEvicted),
            services: listed(&every_service, context.top),
            every_service,
            workloads: self::workloads(workloads, scan, reading.stopped, &context.owners, had).into(),
            host: Arc::clone(scan.host()),
            lost_here: LostBetween::of(scan.lost(), &context.origin),
            lost: Arc::new(scan.lost().clone()),
            usual_seats: Cause::ALL.map(|cause| scan.usual_seat(cause, reading.stopped)),
            usual_flags: Cause::ALL.map(|cause| scan.usual_flags(cause, reading.stopped)),
            counters: reading.counters,
            histograms: Arc::from(reading.histograms.clone()),
            found_ns: Vec::new(),
        };
        snapshot.connect_of_all = ConnectOfAll::of(
            snapshot.histogram(Leg::Connect),
            snapshot.latency(Leg::Connect),
            &scan.half_open_ages(reading.stopped),
            &snapshot.tcp.books,
        );
        snapshot.syn_seen_ns = snapshot.latest_syn(previous);
        snapshot.unseen = snapshot.unseen_opens(reading.opens, previous);
        snapshot.found_ns = snapshot.times_of_losses(previous);
        snapshot
    }

    /// The same with fewer services listed by name, of each protocol.
    pub fn with_top(&self, top: usize) -> Self {
        Self { services: listed(&self.every_service, top), ..self.clone() }
    }

    /// The flags that [`Cause::beside`] asks for, as at least half of the half-open attempts of the cause
    /// that are in the table have them.
    pub const fn usual_flags(&self, cause: Cause) -> u32 {
        self.usual_flags[cause as usize]
    }

    /// The seat from which most of the half-open attempts of a cause are seen, or where there is none most of
    /// those with another cause. Where the addresses tell nothing, this host is between.
    pub fn seat(&self, cause: Cause) -> Seat {
        let others = || self.usual_seats.into_iter().flatten().next();
        self.usual_seats[cause as usize].or_else(others).unwrap_or(Seat::Between)
    }

    /// Whether nothing was lost, so that every verdict is the wire's. Once false, it stays so.
    pub fn is_exact(&self) -> bool {
        self.losses().is_empty()
    }

    /// What made the report inexact, the most important first.
    pub fn losses(&self) -> Vec<Loss> {
        let occurred = |loss: &Loss| loss.count != 0;
        self.possible_losses().into_iter().filter(occurred).collect()
    }

    /// What can make a report of this origin inexact, whether it occurred or not, the most important first.
    pub fn possible_losses(&self) -> Vec<Loss> {
        let figures = LossFigures {
            origin: &self.context.origin,
            counters: &self.counters,
            sight: &self.sight,
            lost_before_hook: self.lost_before_hook,
            unreadable_counters: self.unreadable_counters,
            missed_snapshots: self.missed_snapshots,
        };
        let found_ns = match &self.context.origin {
            Origin::Capture(capture) => &capture.found_ns,
            Origin::Live(_) => &self.found_ns,
        };
        loss::of(&figures, |reason| {
            found_ns.iter().find(|(known, _)| *known == reason).map(|(_, times)| *times)
        })
    }

    /// Since when the report is inexact, on the records' clock; `None` where it is exact.
    pub fn inexact_since_ns(&self) -> Option<u64> {
        self.losses().iter().filter_map(|loss| loss.found_ns).map(|(first, _)| first).min()
    }

    /// When each reason was first and last found, as far as only snapshots tell.
    fn times_of_losses(&self, previous: Option<&Self>) -> Vec<(&'static str, (u64, u64))> {
        let before = previous.map(Self::losses).unwrap_or_default();
        let times = |loss: Loss| {
            let known = before.iter().find(|known| known.reason == loss.reason);
            let (count, found) = known.map_or((0, None), |known| (known.count, known.found_ns));
            let first = found.map_or(self.now.ns, |(first, _)| first);
            let last = found.filter(|_| loss.count <= count).map_or(self.now.ns, |(_, last)| last);
            (loss.reason, (first, last))
        };
        self.losses().into_iter().map(times).collect()
    }

    /// The length of the run, ns.
    pub fn elapsed_ns(&self) -> u64 {
        self.now.ns.saturating_sub(self.context.began.ns)
    }

    /// When counting began, ns since the Unix epoch. After the wall clock was set, it is told by the new
    /// time, so that beginning and end agree with the length of the run.
    pub fn from_ns(&self) -> u64 {
        let told = self.taken_at_ns.saturating_sub(self.elapsed_ns());
        let known = self.context.began.wall_ns;
        if told.abs_diff(known) < CLOCK_SET_NS { known.min(self.taken_at_ns) } else { told }
    }

    /// A time on the records' clock, ns since the Unix epoch.
    #[must_use]
    pub const fn wall_of(&self, ns: u64) -> u64 {
        self.taken_at_ns.wrapping_sub(self.now.ns).wrapping_add(ns)
    }

    /// The time since a SYN passed the filter, ns.
    pub fn quiet_ns(&self) -> u64 {
        self.now.ns.saturating_sub(self.syn_seen_ns)
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

    /// Completions, also those that were denied since: each has a time or is left out. Times are read before the
    /// counters, so the latest completions may be missing, and none is too many.
    pub fn completions(&self) -> u64 {
        let connect = self.latency(Leg::Connect);
        connect.count + connect.excluded
    }

    /// SYNs that passed the filter: each is an attempt, a retransmission, a copy or a foreign SYN.
    fn syns(&self) -> u64 {
        self.tcp.books.attempts + self.tcp.sign(Sign::SynRetransmit)
    }

    fn unseen_opens(&self, opens: Option<KernelOpens>, previous: Option<&Self>) -> Option<UnseenOpens> {
        let segments = self.packets.class(Class::Syn) + self.packets.class(Class::SynAck);
        let first = UnseenOpens::first(self.now.ns, segments, opens?);
        let before = previous.and_then(|previous| previous.unseen);
        Some(before.map_or(first, |before| before.then(first, self.clocks.half_open_after_ns)))
    }

    fn latest_syn(&self, previous: Option<&Self>) -> u64 {
        let (before, seen_ns) = previous.map_or((0, self.context.began.ns), |p| (p.syns(), p.syn_seen_ns));
        if self.syns() == before { seen_ns } else { self.now.ns }
    }
}

/// What happened between two snapshots of one run.
pub struct Interval<'a> {
    pub(super) before: &'a Snapshot,
    now: &'a Snapshot,
    /// Latencies of the interval alone, in the order of [`Leg::ALL`].
    pub latency: [Latency; Leg::ALL.len()],
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

    /// The snapshot at its end.
    #[must_use]
    pub const fn now(&self) -> &'a Snapshot {
        self.now
    }

    /// The times of a leg in the interval alone.
    pub fn histogram(&self, leg: Leg) -> Histogram {
        difference(self.now.histogram(leg), self.before.histogram(leg))
    }

    /// Whether nothing was lost in the interval.
    pub fn is_exact(&self) -> bool {
        self.losses().is_empty()
    }

    /// What was lost in the interval, with the counts of the run.
    pub fn losses(&self) -> Vec<Loss> {
        let before = self.before.losses();
        let had =
            |loss: &Loss| before.iter().find(|had| had.reason == loss.reason).map_or(0, |had| had.count);
        self.now.losses().into_iter().filter(|loss| loss.count > had(loss)).collect()
    }

    /// The attempts of the interval that have had their time.
    pub fn settled(&self) -> Settled {
        Settled::since(&self.before.tcp.books, &self.now.tcp.books)
    }

    /// The length of the interval, ns.
    pub fn elapsed_ns(&self) -> u64 {
        self.now.now.ns.saturating_sub(self.before.now.ns)
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

fn unsettled(counters: &CounterBlock, ages: &Ages) -> u64 {
    let gauges: u64 = Cause::ALL.iter().map(|cause| word(counters, cause.open())).sum();
    let scanned = ages.opening.total() + ages.half_open.total() + ages.expired.total();
    scanned.abs_diff(gauges)
}

#[cfg(test)]
mod tests;
