//! What one frame shows: a snapshot and everything that is worked out of it, so that drawing only lays out. Pure; built
//! once an interval.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;

use handshake_agent::model::snapshot::{
    Interval, Latency, Origin, ServiceBooks, Snapshot, TcpBooks, UdpBooks,
};
use handshake_agent::source::Moment;
use handshake_agent::source::live::ProgramRuns;
use handshake_common::abi::Histogram;
use handshake_common::record::{Clocks, Now, State};
use handshake_common::verdict::{Leg, UdpVerdict, Verdict};

use super::banner::{Surge, SurgeDetector};
use super::collect::KeptRecords;
use super::history::{IntervalRates, RateHistory, failed};
use super::recent::Recent;
use super::service::ServiceLine;
use crate::number::{group, percent, span};
use crate::report::text::cause::{Problem, problems, quiet};
use handshake_agent::model::flow::{Flow, FlowId};

/// Intervals that rates of services, times and the headline look back over: long enough to be calm, short enough to
/// show an incident's end.
const WINDOW: usize = 10;
/// Bins of a leg's histogram: four a power of two, from [`FIRST_EXPONENT`] on.
pub(crate) const BINS: usize = 96;
/// 2¹⁰ ns is a microsecond; 24 powers of two later are 17 s.
const FIRST_EXPONENT: usize = 10;
/// From this share on, connections are being established.
const GOOD_PERCENT: u64 = 99;
/// Below this share they are not.
const BAD_PERCENT: u64 = 50;

/// What one frame shows.
#[derive(Clone)]
pub(crate) struct Scene {
    /// The latest figures.
    pub(crate) snapshot: Arc<Snapshot>,
    /// How long the window is, ns; 0 with the first snapshot.
    pub(crate) window_ns: u64,
    /// How long the last interval was, ns.
    pub(crate) interval_ns: u64,
    /// Are connections being established?
    pub(crate) headline: Headline,
    /// What is wrong, the largest first.
    pub(crate) problems: Vec<Problem>,
    /// A filter is set and nothing passes it.
    pub(crate) quiet: Option<String>,
    /// A service with a half-open surge.
    pub(crate) surge: Option<Surge>,
    /// The latest minutes.
    pub(crate) history: RateHistory,
    /// The legs and `connect`, over the window or else the run.
    pub(crate) legs: [LegLine; 3],
    /// Open attempts, the oldest first.
    pub(crate) open: Vec<Flow>,
    /// How many there are, shown or not.
    pub(crate) open_found: u64,
    /// Attempts that have ended and UDP flows, the latest first.
    pub(crate) ended: Vec<Flow>,
    /// How many attempts had been told of by then.
    pub(crate) told: u64,
    udp: Vec<Flow>,
    /// The attempt that is looked at, as the table has it.
    pub(crate) wanted: Option<Flow>,
    /// TCP's services, then UDP's, each the busiest first.
    pub(crate) services: Vec<ServiceLine>,
    /// Records by state.
    pub(crate) occupancy: [u64; State::ALL.len()],
    /// Our programs.
    pub(crate) programs: Vec<ProgramLine>,
}

/// Are connections being established?
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Headline {
    /// In one word.
    pub(crate) state: Established,
    /// In figures.
    pub(crate) text: String,
}

/// The headline's word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Established {
    /// Nobody tries.
    Quiet,
    /// They are.
    Yes,
    /// Some are.
    Partly,
    /// Most are not.
    No,
}

/// A leg's times.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LegLine {
    /// Which.
    pub(crate) leg: Leg,
    /// Its percentiles.
    pub(crate) latency: Latency,
    /// Its samples, in [`BINS`].
    pub(crate) bins: Vec<u64>,
}

/// One of our programs, and what the last interval brought it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ProgramLine {
    /// Its name in the object.
    pub(crate) name: String,
    /// Its id.
    pub(crate) id: u32,
    /// Runs in the interval; the kernel counts them only while its statistics are on.
    pub(crate) runs: u64,
    /// ns each took; `None` without a run.
    pub(crate) ns_a_run: Option<u64>,
}

impl Scene {
    /// The moment it shows.
    pub(crate) fn now(&self) -> Now {
        self.snapshot.now
    }

    /// How its flows are judged.
    pub(crate) fn moment(&self) -> Moment {
        self.snapshot.moment()
    }

    /// When flows change by age alone.
    pub(crate) fn clocks(&self) -> &Clocks {
        &self.snapshot.clocks
    }

    /// An attempt as it is now: the table's record is newer than the event of an end that was taken back.
    pub(crate) fn find(&self, id: FlowId) -> Option<&Flow> {
        let listed = self.ended.iter().chain(&self.open).find(|attempt| attempt.id() == id);
        match (self.wanted.as_ref().filter(|wanted| wanted.id() == id), listed) {
            (Some(wanted), Some(told)) if told.record.state == wanted.record.state => Some(told),
            (Some(wanted), _) => Some(wanted),
            (None, told) => told,
        }
    }

    /// The same with the attempts that have ended since.
    pub(crate) fn with_ended(&self, recent: &Recent) -> Self {
        Self { ended: ended(recent, &self.udp), told: recent.told(), ..self.clone() }
    }

    /// The name of the interface that a record was first seen at.
    pub(crate) fn interface(&self, attempt: &Flow) -> &str {
        let points =
            attempt.tcp().map_or_else(|| attempt.udp().map_or(0, |udp| udp.points), |tcp| tcp.points);
        let seen = [points & 0xf, points >> 4].into_iter().find(|at| *at != handshake_common::abi::NO_POINT);
        match (&self.snapshot.context.origin, seen) {
            (Origin::Live { interfaces }, Some(seen)) => {
                interfaces.get(usize::from(seen >> 1)).map_or("", |interface| &interface.name)
            }
            (Origin::Live { .. } | Origin::Capture { .. }, _) => "",
        }
    }
}

/// Makes a scene of each snapshot, and remembers what the next one needs.
#[derive(Default)]
pub(crate) struct SceneBuilder {
    window: VecDeque<Arc<Snapshot>>,
    history: RateHistory,
    detector: SurgeDetector,
    programs: Vec<ProgramRuns>,
}

impl SceneBuilder {
    /// The scene of a snapshot.
    pub(crate) fn advance(
        &mut self,
        snapshot: Snapshot,
        kept: KeptRecords,
        recent: &Recent,
        programs: Vec<ProgramRuns>,
    ) -> Scene {
        let snapshot = Arc::new(snapshot);
        let surge = self.note(&snapshot);
        let oldest = self.window.front().unwrap_or(&snapshot);
        let window = Interval::between(oldest, &snapshot);
        let recently = (window.elapsed_ns() != 0).then_some(&window);
        let scene = Scene {
            window_ns: rounded(window.elapsed_ns()),
            interval_ns: self.interval_ns(&snapshot),
            headline: headline(&window),
            problems: problems(&snapshot, recently),
            quiet: quiet(&snapshot),
            surge: surge.map(|surge| with_cause(surge, &kept.open)),
            history: self.history.clone(),
            legs: legs(&snapshot, &window),
            open: kept.open,
            open_found: kept.open_found,
            ended: ended(recent, &kept.udp),
            told: recent.told(),
            udp: kept.udp,
            wanted: kept.wanted,
            services: services(&snapshot, oldest, recent),
            occupancy: kept.occupancy,
            programs: programs_between(&self.programs, &programs),
            snapshot: Arc::clone(&snapshot),
        };
        self.programs = programs;
        self.window.push_back(snapshot);
        if self.window.len() > WINDOW {
            self.window.pop_front();
        }
        scene
    }

    fn interval_ns(&self, snapshot: &Snapshot) -> u64 {
        let before = self.window.back().map_or(snapshot.taken_at_ns, |before| before.taken_at_ns);
        rounded(snapshot.taken_at_ns.saturating_sub(before))
    }

    /// Looks at the interval that ends with this snapshot.
    fn note(&mut self, snapshot: &Snapshot) -> Option<Surge> {
        let before = self.window.back()?;
        let interval = Interval::between(before, snapshot);
        self.history.push(IntervalRates::of(&interval, snapshot.tcp.books.verdict(Verdict::HalfOpen)));
        self.detector.observe(before, snapshot)
    }
}

/// A time as it was meant: a timer is some milliseconds late.
fn rounded(ns: u64) -> u64 {
    let unit = if ns < 2_000_000_000 { 50_000_000 } else { 500_000_000 };
    (ns + unit / 2) / unit * unit
}

/// The share that was established of what got past `opening` in the window.
fn headline(window: &Interval<'_>) -> Headline {
    let last = span(rounded(window.elapsed_ns()));
    let begun =
        window.change(|s| s.tcp.books.attempts) - window.change(|s| s.tcp.books.verdict(Verdict::Opening));
    let decided = u64::try_from(begun).unwrap_or(0);
    if decided == 0 {
        let text = if window.elapsed_ns() == 0 { String::new() } else { format!(", last {last}") };
        return Headline { state: Established::Quiet, text: format!("no connection attempt{text}") };
    }
    // One that began before the window may complete in it.
    let completed = window.rise(|s| s.tcp.books.verdict(Verdict::Completed)).min(decided);
    let text = format!("{} of {} attempts, last {last}", percent(completed, decided), group(decided));
    let share = u128::from(completed) * 100;
    let state = if share >= u128::from(decided) * u128::from(GOOD_PERCENT) {
        Established::Yes
    } else if share < u128::from(decided) * u128::from(BAD_PERCENT) {
        Established::No
    } else {
        Established::Partly
    };
    Headline { state, text }
}

/// Where a flood pushes its attempts out before they are half-open, its cause is that of most of those that are open.
fn with_cause(surge: Surge, open: &[Flow]) -> Surge {
    if surge.cause.is_some() {
        return surge;
    }
    let there = open.iter().filter(|attempt| {
        surge.service.is_none_or(|at| at == attempt.end(handshake_common::flow::Side::Responder))
    });
    let mut counts = [0_usize; 2];
    for attempt in there {
        counts[usize::from(attempt.record.state == State::SynReceived)] += 1;
    }
    let most = if counts[1] > counts[0] { State::SynReceived } else { State::SynSent };
    Surge { cause: (counts != [0; 2]).then(|| most.cause()), ..surge }
}

/// Over the window where it has a sample, else over the run.
fn legs(snapshot: &Snapshot, window: &Interval<'_>) -> [LegLine; 3] {
    let recent = window.latency.iter().any(|latency| latency.count != 0);
    Leg::ALL.map(|leg| {
        let (latency, bins) = if recent {
            (window.latency[leg as usize], bins(&window.histogram(leg)))
        } else {
            (*snapshot.latency(leg), bins(snapshot.histogram(leg)))
        };
        LegLine { leg, latency, bins }
    })
}

/// Sixteen buckets a power of two, by fours; what is under a microsecond or over 17 s stands at the ends.
fn bins(histogram: &Histogram) -> Vec<u64> {
    let mut bins = vec![0; BINS];
    for (bucket, samples) in histogram.buckets.iter().enumerate() {
        // The first sixteen buckets are a nanosecond each; the next sixteen are the power 2⁴.
        let quarters = (bucket / 4).saturating_sub(4 * (FIRST_EXPONENT - 3));
        bins[quarters.min(BINS - 1)] += samples;
    }
    bins
}

/// Ended attempts and UDP flows together, the latest first.
fn ended(recent: &Recent, udp: &[Flow]) -> Vec<Flow> {
    let mut all = recent.latest();
    all.extend(udp);
    all.sort_by_key(|attempt| std::cmp::Reverse(attempt.moment_ns()));
    all
}

fn services(now: &Snapshot, before: &Snapshot, recent: &Recent) -> Vec<ServiceLine> {
    let key =
        |service: Option<SocketAddr>, books: &ServiceBooks| (service, matches!(books, ServiceBooks::Udp(_)));
    let known: HashMap<_, _> =
        before.services.iter().map(|row| (key(row.service, &row.books), &row.books)).collect();
    let line = |row: &handshake_agent::model::snapshot::ServiceFigures| {
        let earlier = known.get(&key(row.service, &row.books)).copied();
        let (begun, trouble) = match (&row.books, earlier) {
            (ServiceBooks::Tcp(books), Some(ServiceBooks::Tcp(earlier))) => tcp_change(books, earlier),
            (ServiceBooks::Tcp(books), _) => tcp_change(books, &TcpBooks::default()),
            (ServiceBooks::Udp(books), Some(ServiceBooks::Udp(earlier))) => udp_change(books, earlier),
            (ServiceBooks::Udp(books), _) => udp_change(books, &UdpBooks::default()),
        };
        let timed = row.service.filter(|_| matches!(row.books, ServiceBooks::Tcp(_)));
        let legs = timed.map(|service| recent.legs(service)).unwrap_or_default();
        ServiceLine { service: row.service, books: row.books, begun, trouble, legs }
    };
    now.services.iter().map(line).collect()
}

fn tcp_change(now: &TcpBooks, before: &TcpBooks) -> (u64, u64) {
    let begun = now.attempts.saturating_sub(before.attempts);
    (begun, now.verdict(Verdict::HalfOpen) + failed(now).saturating_sub(failed(before)))
}

fn udp_change(now: &UdpBooks, before: &UdpBooks) -> (u64, u64) {
    let unreachable =
        now.verdict(UdpVerdict::Unreachable).saturating_sub(before.verdict(UdpVerdict::Unreachable));
    (now.flows.saturating_sub(before.flows), now.verdict(UdpVerdict::Unanswered) + unreachable)
}

fn programs_between(before: &[ProgramRuns], now: &[ProgramRuns]) -> Vec<ProgramLine> {
    let line = |program: &ProgramRuns| {
        let earlier = before.iter().find(|earlier| earlier.id == program.id);
        let (runs, ns) = earlier.map_or((program.runs, program.ns), |earlier| {
            (program.runs.saturating_sub(earlier.runs), program.ns.saturating_sub(earlier.ns))
        });
        let ns_a_run = ns.checked_div(runs);
        ProgramLine { name: program.name.clone(), id: program.id, runs, ns_a_run }
    };
    now.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use handshake_agent::fake::{Fake, SECOND};
    use handshake_common::abi::{BUCKETS, Counter, Histogram};
    use handshake_common::latency::bucket;
    use handshake_common::record::State;
    use handshake_common::verdict::{Cause, Verdict};

    use super::{BINS, Established, bins, rounded};
    use crate::tui::testing::SceneFixture;
    use handshake_agent::model::flow::Flow;

    fn service() -> SceneFixture {
        let mut fake = Fake::new();
        fake.service(1, "10.0.0.2:443");
        SceneFixture::new(fake)
    }

    #[test]
    fn the_headline_is_the_windows() {
        let table = [
            (99, 1, Established::Yes, "99.0 % of 100 attempts, last 1 s"),
            (98, 2, Established::Partly, "98.0 % of 100 attempts, last 1 s"),
            (50, 50, Established::Partly, "50.0 % of 100 attempts, last 1 s"),
            (49, 51, Established::No, "49.0 % of 100 attempts, last 1 s"),
            (0, 0, Established::Quiet, "no connection attempt, last 1 s"),
        ];
        for (completed, refused, state, text) in table {
            let scene = service().run(1, |fake, _| {
                fake.ended(1, Counter::Completed, completed);
                fake.ended(1, Counter::Refused, refused);
                // Nothing is wrong with these yet.
                fake.open(1, State::SynSent, SECOND / 2);
            });
            assert_eq!((scene.headline.state, scene.headline.text.as_str()), (state, text));
        }
    }

    /// What was before the window does not count, however much it was.
    #[test]
    fn an_incident_is_seen_through_hours_of_peace() {
        let mut fixture = service();
        fixture.run(20, |fake, _| fake.ended(1, Counter::Completed, 100_000));
        let scene = fixture.run(12, |fake, _| fake.ended(1, Counter::Refused, 10));
        assert_eq!(scene.headline.state, Established::No);
        assert_eq!(scene.headline.text, "0.0 % of 100 attempts, last 10 s");
        assert_eq!(scene.problems[0].name, "refused");
        assert_eq!((scene.services[0].begun, scene.services[0].trouble), (100, 100));
    }

    /// Pushed out before they are T1 old, attempts never are half-open: the surge is seen by what gave way, and its cause by
    /// those that are open.
    #[test]
    fn a_flood_that_the_table_cannot_hold_is_a_surge() {
        let mut fixture = service();
        let calm = fixture.run(3, |fake, _| fake.ended(1, Counter::Completed, 5_000));
        assert_eq!(calm.surge, None);
        let scene = fixture.run(1, |fake, _| {
            fake.ended(1, Counter::Completed, 5_000);
            fake.ended(1, Counter::Evicted, 400_000);
            for _ in 0..10 {
                fake.open(1, State::SynReceived, SECOND / 10);
            }
        });
        let surge = scene.surge.expect("a surge");
        assert_eq!((surge.outstanding, surge.stuck, surge.completed), (400_000, 400_000, 5_000));
        assert_eq!(surge.cause, Some(Cause::NoAck));
        let later = fixture.run(6, |_, _| {});
        assert_eq!(later.surge, None, "nothing has come for five seconds");
    }

    #[test]
    fn bins_are_quarters_of_powers_of_two() {
        let bin = |ns: u64| {
            let mut histogram = Histogram { buckets: [0; BUCKETS] };
            histogram.buckets[bucket(ns) as usize] = 1;
            bins(&histogram).iter().position(|samples| *samples == 1).expect("it is somewhere")
        };
        let ends = [(0, 0), (1, 0), (1_023, 0), (u64::MAX, BINS - 1), (17_500_000_000, BINS - 1)];
        let inside = [(1_024, 0), (1_280, 1), (2_047, 3), (2_048, 4), (1 << 20, 40), (1 << 30, 80)];
        for (ns, expected) in ends.into_iter().chain(inside) {
            assert_eq!(bin(ns), expected, "{ns} ns");
        }
    }

    /// A refusal that was taken back: the table knows better than the event.
    #[test]
    fn an_attempt_is_found_as_it_is_now() {
        let mut fixture = service();
        let at = fixture.fake.open(1, State::SynReceived, SECOND);
        let record = fixture.fake.records[at];
        let refused = handshake_common::record::Record { state: State::Refused, ..record };
        fixture.end(refused, Verdict::Refused, SECOND / 2);
        let mut scene = fixture.run(1, |_, _| {});
        let id = Flow::of(record).id();
        assert!(scene.find(id).is_some_and(|attempt| attempt.ended.is_some()));
        scene.wanted = Some(Flow::of(record));
        assert_eq!(scene.find(id), Some(&Flow::of(record)));
        scene.wanted = Some(Flow::of(refused));
        assert!(scene.find(id).is_some_and(|attempt| attempt.ended.is_some()), "the event knows the moment");
    }

    #[test]
    fn times_are_as_they_were_meant() {
        let ms = 1_000_000;
        for (took, meant) in [(1_003, 1_000), (251, 250), (9_904, 10_000), (21, 0), (2_300, 2_500)] {
            assert_eq!(rounded(took * ms), meant * ms);
        }
    }
}
