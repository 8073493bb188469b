//! The content of one frame: a snapshot and everything derived from it, so that drawing only lays it out.
//! Built once per interval. Pure.

use std::collections::{HashMap, HashSet, VecDeque};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use handshake_agent::error::some_of;
use handshake_agent::model::health::Services;
use handshake_agent::model::settled::{Health, Settled};
use handshake_agent::model::snapshot::{
    Interval, Latency, Origin, ServiceBooks, Snapshot, TcpBooks, UdpBooks,
};
use handshake_agent::recording::LeftOut;
use handshake_agent::source::Moment;
use handshake_agent::source::live::ProgramRuns;
use handshake_common::abi::Histogram;
use handshake_common::flow::Side;
use handshake_common::record::{Clocks, Now, State};
use handshake_common::verdict::{Cause, Leg, UdpVerdict, Verdict};

use super::banner::{Surge, SurgeDetector};
use super::history::{IntervalRates, RateHistory, failed};
use super::minute::Minutes;
use super::owners::Owners;
use super::recent::Recent;
use super::service::{Minute, ServiceId, ServiceLine};
use super::surroundings::{Around, Elsewhere};
use crate::escape::printable;
use crate::names::Names;
use crate::number::{group, percent, span};
use crate::report::text::cause::{Problem, problems, quiet};
use crate::report::text::exact::Exactness;
use crate::time::Zone;
use handshake_agent::model::flow::frames::FrameIndex;
use handshake_agent::model::flow::{Flow, FlowId, View};
use handshake_agent::model::kept::KeptRecords;
use handshake_agent::owner::Owner;

/// Intervals in the window of the headline, the times and the services' rates: enough to be steady, and few
/// enough to show the end of an incident.
const WINDOW: usize = 10;
/// Bins of a leg's histogram: four per power of two, from [`FIRST_EXPONENT`] on.
pub(crate) const BINS: usize = 96;
/// Exponent of the first bin: 2¹⁰ ns is one microsecond, and 24 powers of two later are 17 s.
const FIRST_EXPONENT: usize = 10;
/// Fewer silent connections, or attempts whose answer was not seen, are no headline.
const FEW: u64 = 5;

/// The content of one frame.
#[derive(Clone)]
pub(crate) struct Scene {
    /// The zone of its times.
    pub(crate) zone: Zone,
    /// The names of ends.
    pub(crate) names: Names,
    /// The latest snapshot.
    pub(crate) snapshot: Arc<Snapshot>,
    /// Length of the window, ns; 0 at the first snapshot.
    pub(crate) window_ns: u64,
    /// Length of the last interval, ns; 0 at the first snapshot.
    pub(crate) interval_ns: u64,
    /// Whether the figures are exact, and were so in the last interval.
    pub(crate) exactness: Exactness,
    /// Whether connections are being established.
    pub(crate) headline: Headline,
    /// The problems, the most frequent first.
    pub(crate) problems: Vec<Problem>,
    /// The sentence for a filter that nothing passes.
    pub(crate) quiet: Option<String>,
    /// The worst half-open surge.
    pub(crate) surge: Option<Surge>,
    /// The rates of the latest intervals.
    pub(crate) history: RateHistory,
    /// The times of the legs and of `connect`, over the window or, without a sample in it, over the run.
    pub(crate) legs: [LegLine; Leg::ALL.len()],
    /// Whether they are those of the window.
    pub(crate) legs_are_recent: bool,
    /// What the kernel says beside the wire.
    pub(crate) around: Around,
    /// Open attempts, the oldest first.
    pub(crate) open: Vec<Flow>,
    /// Number of open attempts that pass the filter, shown or not.
    pub(crate) open_found: u64,
    /// Attempts that have ended, silent connections and UDP flows, the latest first.
    pub(crate) ended: Vec<Flow>,
    /// Number of attempts that had ended since the start.
    pub(crate) ended_total: u64,
    /// UDP flows and silent connections.
    others: Vec<Flow>,
    /// The opened attempt as the table has it.
    pub(crate) wanted: Option<Flow>,
    /// The services of TCP, then those of UDP, each the busiest first.
    pub(crate) services: Vec<ServiceLine>,
    /// Number of records by state.
    pub(crate) occupancy: [u64; State::ALL.len()],
    /// Our BPF programs.
    pub(crate) programs: Vec<ProgramLine>,
    /// Whose the ends of flows are.
    pub(crate) owners: Rc<Owners>,
    /// Whose the services are of whose listed flows all responders have one owner, as far as they are known.
    pub(crate) service_owners: HashMap<ServiceId, Arc<Owner>>,
    /// Where the flows' packets are in the capture.
    pub(crate) frames: Option<Rc<FrameIndex>>,
    /// Where in a recording it is.
    pub(crate) past: Option<PastMoment>,
}

/// Where in a recording a scene is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PastMoment {
    /// How long before the recording's end, ns.
    pub(crate) ago_ns: u64,
    /// How long nothing was recorded before it; 0 where the moment before is a second ago.
    pub(crate) gap_ns: u64,
    /// What there was no room for.
    pub(crate) left_out: LeftOut,
}

/// The headline: whether connections are being established.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Headline {
    /// The answer.
    pub(crate) state: Established,
    /// The figures behind it.
    pub(crate) text: String,
}

/// The headline's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Established {
    /// There is no attempt.
    Quiet,
    /// Nearly all attempts complete.
    Yes,
    /// Some attempts complete.
    Partly,
    /// Most attempts do not complete.
    No,
    /// Of several services, most attempts of some do not complete.
    ServicesFail {
        /// How many.
        failing: usize,
        /// Of how many that have had an attempt.
        judged: usize,
    },
    /// The attempts continue as if they were answered: one direction alone passes here.
    OneWay,
    /// The connections are established, and the server does not answer.
    Silent,
}

/// The times of a leg.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LegLine {
    /// The leg.
    pub(crate) leg: Leg,
    /// The percentiles.
    pub(crate) latency: Latency,
    /// The samples in [`BINS`] bins.
    pub(crate) bins: Vec<u64>,
}

/// One of our BPF programs, with its cost in the last interval.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ProgramLine {
    /// The name in the object.
    pub(crate) name: String,
    /// The kernel's id.
    pub(crate) id: u32,
    /// Runs in the interval. The kernel counts them only while its statistics are on.
    pub(crate) runs: u64,
    /// Average time of a run, ns; `None` without a run.
    pub(crate) ns_a_run: Option<u64>,
}

impl Scene {
    /// The time of the snapshot.
    pub(crate) fn now(&self) -> Now {
        self.snapshot.now
    }

    /// The moment by which flows are judged.
    pub(crate) fn moment(&self) -> Moment {
        self.snapshot.moment()
    }

    /// The ages at which verdicts change.
    pub(crate) fn clocks(&self) -> &Clocks {
        &self.snapshot.clocks
    }

    /// The latest state of an attempt. After a revised end, the table's record is newer than the event.
    pub(crate) fn find(&self, id: FlowId) -> Option<&Flow> {
        let listed = self.ended.iter().chain(&self.open).find(|attempt| attempt.id() == id);
        match (self.wanted.as_ref().filter(|wanted| wanted.id() == id), listed) {
            (Some(wanted), Some(listed)) if listed.record.state == wanted.record.state => Some(listed),
            (Some(wanted), _) => Some(wanted),
            (None, listed) => listed,
        }
    }

    /// This scene with the attempts that have ended since.
    pub(crate) fn with_ended(&self, recent: &Recent) -> Self {
        Self { ended: ended(recent, &self.others), ended_total: recent.total(), ..self.clone() }
    }

    /// The time of day at which something happened on the records' clock.
    pub(crate) fn clock(&self, ns: u64) -> String {
        self.zone.clock_of(self.snapshot.wall_of(ns), self.snapshot.taken_at_ns)
    }

    /// The name of the interface where an attempt was first seen; empty if it is unknown.
    pub(crate) fn interface(&self, attempt: &Flow) -> &str {
        self.view().interface(attempt).unwrap_or_default()
    }

    /// From where the flows are shown.
    pub(crate) fn view(&self) -> View<'_> {
        View::of(&self.snapshot).with_frames(self.frames.as_deref())
    }
}

/// Builds a scene of each snapshot, and keeps the state between snapshots.
#[derive(Default)]
pub(crate) struct SceneBuilder {
    zone: Zone,
    names: Names,
    window: VecDeque<Arc<Snapshot>>,
    history: RateHistory,
    detector: SurgeDetector,
    programs: Vec<ProgramRuns>,
    minutes: Minutes,
}

impl SceneBuilder {
    /// A builder of scenes with the times of a zone, and with names.
    pub(crate) fn within(zone: Zone, names: Names) -> Self {
        Self { zone, names, ..Self::default() }
    }

    /// Builds the scene of the next snapshot.
    pub(crate) fn advance(
        &mut self,
        snapshot: Snapshot,
        kept: KeptRecords,
        recent: &Recent,
        programs: Vec<ProgramRuns>,
        around: Around,
    ) -> Scene {
        self.minutes.observe(&snapshot);
        let others = [kept.silent, kept.udp].concat();
        let snapshot = Arc::new(snapshot);
        let surge = self.observe(&snapshot);
        let oldest = self.window.front().unwrap_or(&snapshot);
        let window = Interval::between(oldest, &snapshot);
        let recently = (window.elapsed_ns() != 0).then_some(&window);
        let owners = Rc::new(Owners::of_book(&snapshot.context.owners));
        let ended = ended(recent, &others);
        let scene = Scene {
            service_owners: service_owners(kept.open.iter().chain(&ended), &owners),
            owners,
            zone: self.zone,
            names: self.names,
            window_ns: rounded(window.elapsed_ns()),
            interval_ns: self.interval_ns(&snapshot),
            exactness: Exactness::of(&snapshot, self.last_interval(&snapshot).as_ref(), self.zone),
            headline: headline(&window, &around),
            around,
            problems: problems(&snapshot, recently),
            quiet: quiet(&snapshot),
            surge: surge.map(|surge| with_cause(surge, &kept.open)),
            history: self.history.clone(),
            legs: legs(&snapshot, &window),
            legs_are_recent: has_samples(&window),
            open: kept.open,
            open_found: kept.open_found,
            ended,
            ended_total: recent.total(),
            others,
            wanted: kept.wanted,
            services: services(&snapshot, oldest, recent, &self.minutes),
            occupancy: kept.occupancy,
            programs: programs_between(&self.programs, &programs),
            snapshot: Arc::clone(&snapshot),
            frames: None,
            past: None,
        };
        self.programs = programs;
        self.leave(snapshot);
        scene
    }

    /// Takes in a snapshot of which there is no scene.
    pub(crate) fn pass(&mut self, snapshot: Snapshot) {
        self.minutes.observe(&snapshot);
        let _ = self.observe(&snapshot);
        self.leave(Arc::new(snapshot));
    }

    fn leave(&mut self, snapshot: Arc<Snapshot>) {
        self.window.push_back(snapshot);
        if self.window.len() > WINDOW {
            self.window.pop_front();
        }
    }

    fn interval_ns(&self, snapshot: &Snapshot) -> u64 {
        let before = self.window.back().map_or(snapshot.now.ns, |before| before.now.ns);
        rounded(snapshot.now.ns.saturating_sub(before))
    }

    /// The interval that ends with this snapshot.
    fn last_interval<'a>(&'a self, snapshot: &'a Snapshot) -> Option<Interval<'a>> {
        Some(Interval::between(self.window.back()?, snapshot))
    }

    /// Updates the history and the surge detector by the interval that ends with this snapshot.
    fn observe(&mut self, snapshot: &Snapshot) -> Option<Surge> {
        let before = self.window.back()?;
        let interval = Interval::between(before, snapshot);
        self.history.push(IntervalRates::of(&interval, &snapshot.tcp.books));
        self.detector.observe(before, snapshot)
    }
}

/// Rounds a time to its nominal value, because timers are some milliseconds late.
fn rounded(ns: u64) -> u64 {
    let unit = if ns < 2_000_000_000 { 50_000_000 } else { 500_000_000 };
    (ns + unit / 2) / unit * unit
}

/// The share of the window's decided attempts that completed.
fn headline(window: &Interval<'_>, around: &Around) -> Headline {
    let last = span(rounded(window.elapsed_ns()));
    let begun =
        window.change(|s| s.tcp.books.attempts) - window.change(|s| s.tcp.books.verdict(Verdict::Opening));
    let decided = u64::try_from(begun).unwrap_or(0);
    if decided == 0 {
        let opening = window.now().tcp.books.verdict(Verdict::Opening);
        let text = if opening == 0 {
            silence(window.now(), around)
        } else {
            format!("nothing is decided yet: {} opening", group(opening))
        };
        return Headline { state: Established::Quiet, text };
    }
    let settled = window.settled();
    let all = format!("{} of {}", percent(settled.completed, settled.attempts), group(settled.attempts));
    let books = &window.now().tcp.books;
    let services = Services::of(window.now(), Some(window));
    let (failing, judged) = (services.failing(), services.judged.len());
    if is_one_way(books) {
        let unseen = books.by_cause(Verdict::HalfOpen).of(Cause::AnswerUnseen);
        let text = format!("{} attempts continue as if they were answered: see --direction", group(unseen));
        return Headline { state: Established::OneWay, text };
    }
    if let Some(worst) = services.judged.first().filter(|_| failing != 0 && judged > 1) {
        let Settled { attempts, completed } = worst.settled;
        let share = percent(completed, attempts);
        let text = format!("{} {share} of {} · all {all}, last {last}", worst.service, group(attempts));
        return Headline { state: Established::ServicesFail { failing, judged }, text };
    }
    // Half of those that completed in the window have no answer: some take long anywhere.
    if books.silent >= FEW && 2 * books.silent >= settled.completed {
        let text =
            format!("{} connections, and no byte of the server; {all} established", group(books.silent));
        return Headline { state: Established::Silent, text };
    }
    let state = match settled.health() {
        Some(Health::Failing) => Established::No,
        Some(Health::Partly) => Established::Partly,
        Some(Health::Good) | None => Established::Yes,
    };
    Headline { state, text: format!("{all} attempts, last {last}") }
}

/// Do most of the half-open attempts continue as if they were answered?
fn is_one_way(books: &TcpBooks) -> bool {
    let unseen = books.by_cause(Verdict::HalfOpen).of(Cause::AnswerUnseen);
    unseen >= FEW && 2 * unseen >= books.verdict(Verdict::HalfOpen)
}

/// For how long there was no SYN, and where there is other traffic.
fn silence(snapshot: &Snapshot, around: &Around) -> String {
    let Origin::Live(live) = &snapshot.context.origin else { return "no connection attempt".to_owned() };
    let names: Vec<&str> = live.interfaces.iter().map(|interface| interface.name.as_str()).collect();
    let at = if names.is_empty() { String::new() } else { format!(" on {}", some_of(&names)) };
    let filter = &snapshot.context.filter;
    let which = if filter.ports.is_empty() && filter.nets.is_empty() { "" } else { " of the filter" };
    let quiet = span(rounded(snapshot.quiet_ns()));
    let elsewhere = around.busiest.as_ref().map(|Elsewhere { name, rate }| {
        let name = printable(name);
        format!(" · {name} sees {} packets/s: -i {name}", group(*rate))
    });
    format!("no SYN{which}{at} for {quiet}{}", elsewhere.unwrap_or_default())
}

/// Adds a missing cause to a surge. If attempts are evicted before they are half-open, the most frequent
/// cause of the open ones is taken.
fn with_cause(surge: Surge, open: &[Flow]) -> Surge {
    if surge.cause.is_some() {
        return surge;
    }
    let there =
        open.iter().filter(|attempt| surge.service.is_none_or(|at| at == attempt.end(Side::Responder)));
    let mut counts = [0_usize; 2];
    for attempt in there {
        counts[usize::from(attempt.record.state == State::SynReceived)] += 1;
    }
    let most = if counts[1] > counts[0] { State::SynReceived } else { State::SynSent };
    Surge { cause: (counts != [0; 2]).then(|| most.cause()), ..surge }
}

/// The times over the window if it has a sample, else over the run.
fn legs(snapshot: &Snapshot, window: &Interval<'_>) -> [LegLine; Leg::ALL.len()] {
    let recent = has_samples(window);
    Leg::ALL.map(|leg| {
        let (latency, bins) = if recent {
            (window.latency[leg as usize], bins(&window.histogram(leg)))
        } else {
            (*snapshot.latency(leg), bins(snapshot.histogram(leg)))
        };
        LegLine { leg, latency, bins }
    })
}

fn has_samples(window: &Interval<'_>) -> bool {
    window.latency.iter().any(|latency| latency.count != 0)
}

/// Groups a histogram's buckets, sixteen per power of two, by fours. Samples below 1 µs or above 17 s are put
/// into the first and the last bin.
fn bins(histogram: &Histogram) -> Vec<u64> {
    let mut bins = vec![0; BINS];
    for (bucket, samples) in histogram.buckets.iter().enumerate() {
        // The first sixteen buckets are of one nanosecond each; the next sixteen begin at 2⁴ ns.
        let quarters = (bucket / 4).saturating_sub(4 * (FIRST_EXPONENT - 3));
        bins[quarters.min(BINS - 1)] += samples;
    }
    bins
}

/// The ended attempts, the silent connections and the UDP flows, the latest first. The record of a silent
/// connection knows more than the event of its completion.
fn ended(recent: &Recent, others: &[Flow]) -> Vec<Flow> {
    let known: HashSet<FlowId> = others.iter().map(Flow::id).collect();
    let mut all = recent.latest();
    all.retain(|attempt| !known.contains(&attempt.id()));
    all.extend(others);
    all.sort_by_key(|attempt| std::cmp::Reverse(attempt.moment_ns()));
    all
}

fn service_owners<'a>(
    flows: impl Iterator<Item = &'a Flow>,
    owners: &Owners,
) -> HashMap<ServiceId, Arc<Owner>> {
    let mut found: HashMap<ServiceId, Option<Arc<Owner>>> = HashMap::new();
    for flow in flows {
        let Some(owner) = owners.of(&flow.record, Side::Responder) else { continue };
        let id = (Some(flow.end(Side::Responder)), flow.record.key.udp);
        let known = found.entry(id).or_insert_with(|| Some(Arc::clone(&owner)));
        // A unit that was started again has another group.
        if known.as_ref().is_some_and(|known| known.label() != owner.label()) {
            *known = None;
        }
    }
    found.into_iter().filter_map(|(id, owner)| Some((id, owner?))).collect()
}

fn services(now: &Snapshot, before: &Snapshot, recent: &Recent, minutes: &Minutes) -> Vec<ServiceLine> {
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
        // At the end of a capture there is no latest minute: the window is the whole of it.
        let minute = if now.stopped {
            Minute::default()
        } else {
            minutes.of(key(row.service, &row.books), &row.books)
        };
        let connect = row.times().and_then(|times| times.of_all.half_and_slowest());
        ServiceLine { service: row.service, books: row.books, begun, trouble, legs, connect, minute }
    };
    now.services.iter().map(line).collect()
}

fn tcp_change(now: &TcpBooks, before: &TcpBooks) -> (u64, u64) {
    let begun = now.attempts.saturating_sub(before.attempts);
    (begun, now.verdict(Verdict::HalfOpen) + now.silent + failed(now).saturating_sub(failed(before)))
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
    fn the_headline_is_that_of_the_window() {
        let table = [
            (99, 1, Established::Yes, "99.0 % of 100 attempts, last 1 s"),
            (98, 2, Established::Partly, "98.0 % of 100 attempts, last 1 s"),
            (50, 50, Established::Partly, "50.0 % of 100 attempts, last 1 s"),
            (49, 51, Established::No, "49.0 % of 100 attempts, last 1 s"),
            (0, 0, Established::Quiet, "nothing is decided yet: 1 opening"),
        ];
        for (completed, refused, state, text) in table {
            let scene = service().run(1, |fake, _| {
                fake.ended(1, Counter::Completed, completed);
                fake.ended(1, Counter::Refused, refused);
                // Opening attempts are not decided.
                fake.open(1, State::SynSent, SECOND / 2);
            });
            assert_eq!((scene.headline.state, scene.headline.text.as_str()), (state, text));
        }
    }

    /// A small service that is down, one direction alone, and a server that does not answer are no part of a sum.
    #[test]
    fn what_a_sum_would_hide_is_the_headline() {
        let mut fake = Fake::new();
        fake.service(1, "10.0.0.2:80");
        fake.service(2, "10.0.0.2:9001");
        let scene = SceneFixture::new(fake).run(1, |fake, _| {
            fake.ended(1, Counter::Completed, 33_000);
            for _ in 0..20 {
                fake.open(2, State::SynSent, 5 * SECOND);
            }
        });
        assert_eq!(scene.headline.state, Established::ServicesFail { failing: 1, judged: 2 });
        assert_eq!(scene.headline.text, "10.0.0.2:9001 0.0 % of 20 · all 99.9 % of 33 020, last 1 s");
        let one_way = service().run(1, |fake, _| {
            for _ in 0..9 {
                fake.open(1, State::AnswerUnseen, 5 * SECOND);
            }
        });
        assert_eq!(one_way.headline.state, Established::OneWay);
        let silent = service().run(1, |fake, _| {
            fake.ended(1, Counter::Completed, 4);
            (0..5).for_each(|_| fake.silent(1, 5 * SECOND));
        });
        assert_eq!(silent.headline.state, Established::Silent);
        assert!(silent.headline.text.starts_with("5 connections, and no byte of the server"));
    }

    /// Attempts before the window do not count, however many there were.
    #[test]
    fn an_incident_shows_after_many_completed_attempts() {
        let mut fixture = service();
        fixture.run(20, |fake, _| fake.ended(1, Counter::Completed, 100_000));
        let scene = fixture.run(12, |fake, _| fake.ended(1, Counter::Refused, 10));
        assert_eq!(scene.headline.state, Established::No);
        assert_eq!(scene.headline.text, "0.0 % of 100 attempts, last 10 s");
        assert_eq!(scene.problems[0].name, "refused");
        assert_eq!((scene.services[0].begun, scene.services[0].trouble), (100, 100));
    }

    /// Attempts that are evicted before T1 never become half-open. The surge is detected by the evictions,
    /// and its cause is that of the open attempts.
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
        assert_eq!(later.surge, None, "there was no new attempt for five seconds");
    }

    /// A steady share of a load fails. When it ends, its last failures reach T1 beside no completion. When
    /// every attempt fails from some time on, the alarm is raised T1 later.
    #[test]
    fn the_end_of_a_load_is_no_surge() {
        let run = |then: fn(&mut Fake)| {
            let mut fixture = service();
            let mut begun = Vec::new();
            let mut load = |fake: &mut Fake, _| {
                fake.ended(1, Counter::Completed, 14_000);
                begun.extend((0..490).map(|_| fake.open(1, State::SynSent, 500_000_000)));
            };
            assert_eq!(fixture.run(10, &mut load).surge, None);
            (0..8).map(|_| fixture.run(1, |fake, _| then(fake)).surge.is_some()).collect::<Vec<bool>>()
        };
        assert_eq!(run(|_| {}), [false; 8], "it ends");
        let fails = |fake: &mut Fake| {
            for _ in 0..14_490 {
                fake.open(1, State::SynSent, 500_000_000);
            }
        };
        assert_eq!(run(fails), [false, false, false, true, true, true, true, true], "it fails");
    }

    /// Forty attempts stay open at each of many services, which is no surge of any of them.
    #[test]
    fn a_flood_that_is_spread_over_services_is_a_surge_of_all() {
        let mut fixture = service();
        for row in 2..202 {
            fixture.fake.service(row, &format!("10.0.0.2:{}", 1_000 + row));
        }
        let calm = fixture.run(3, |fake, _| fake.ended(1, Counter::Completed, 100));
        assert_eq!(calm.surge, None);
        let spread = |fake: &mut Fake, each: usize| {
            fake.ended(1, Counter::Completed, 100);
            for row in 2..202 {
                for _ in 0..each {
                    fake.open(row, State::SynSent, 4 * SECOND);
                }
            }
        };
        let scene = fixture.run(1, |fake, _| spread(fake, 40));
        let surge = scene.surge.expect("a surge");
        assert_eq!((surge.service, surge.outstanding, surge.others), (None, 8_000, 0));
        assert_eq!(surge.cause, Some(Cause::NoSynAck));
        // One service with most of it is named, and not the others.
        let scene = fixture.run(1, |fake, _| {
            for _ in 0..20_000 {
                fake.open(7, State::SynSent, 4 * SECOND);
            }
        });
        let surge = scene.surge.expect("a surge");
        assert_eq!(
            (surge.service, surge.outstanding),
            (Some("10.0.0.2:1007".parse().expect("a socket")), 20_040)
        );
    }

    #[test]
    fn bins_are_quarters_of_powers_of_two() {
        let bin = |ns: u64| {
            let mut histogram = Histogram { buckets: [0; BUCKETS] };
            histogram.buckets[bucket(ns) as usize] = 1;
            bins(&histogram).iter().position(|samples| *samples == 1).expect("a sample is in some bin")
        };
        let ends = [(0, 0), (1, 0), (1_023, 0), (u64::MAX, BINS - 1), (17_500_000_000, BINS - 1)];
        let inside = [(1_024, 0), (1_280, 1), (2_047, 3), (2_048, 4), (1 << 20, 40), (1 << 30, 80)];
        for (ns, expected) in ends.into_iter().chain(inside) {
            assert_eq!(bin(ns), expected, "{ns} ns");
        }
    }

    /// After a revised refusal, the table's record is newer than the event.
    #[test]
    fn find_returns_the_latest_state_of_an_attempt() {
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
        assert!(
            scene.find(id).is_some_and(|attempt| attempt.ended.is_some()),
            "only the event has the time of the end"
        );
    }

    #[test]
    fn times_are_rounded_to_their_nominal_value() {
        let ms = 1_000_000;
        for (took, meant) in [(1_003, 1_000), (251, 250), (9_904, 10_000), (21, 0), (2_300, 2_500)] {
            assert_eq!(rounded(took * ms), meant * ms);
        }
    }
}
