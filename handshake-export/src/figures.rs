//! The series of a snapshot, from the table of metrics. Counters never fall: where a figure does, because an
//! attempt left its verdict again, the counter keeps what it rose by.

use std::borrow::Cow;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use handshake_agent::model::metric::series::{self, FAMILIES, Family, Kind};
use handshake_agent::model::metric::{METRICS, Metric, REVISED};
use handshake_agent::model::snapshot::{Interval, Origin, Snapshot};
use handshake_common::abi::{BUCKETS, Histogram};
use handshake_common::latency::upper_bound;
use handshake_common::verdict::{Cause, Leg, Verdict};

use super::names::{Names, Row};
use super::service::{self, ServiceRule, Services};
use super::workload::{self, WorkloadRule, Workloads};

/// The bounds of the histograms: the longest times below the powers of two from 2^11 ns (2 µs) to 2^36 ns
/// (69 s). The kernel side's buckets end there too, so counts at the bounds are exact.
const EXPONENTS: std::ops::RangeInclusive<u32> = 11..=36;
/// Interfaces that have a series of their own.
const MOST_INTERFACES: usize = 16;
/// Names of interfaces whose counters are kept for when they come back.
const MOST_KNOWN: usize = 1_024;

/// The series of a reading.
pub struct Exposition {
    /// When counting began, ns since the Unix epoch.
    pub began_ns: u64,
    /// When it was read, ns since the Unix epoch.
    pub read_ns: u64,
    /// The families that have series, in their order.
    pub families: Vec<Filled>,
    /// Labels that every series has.
    pub everywhere: Vec<(String, String)>,
}

/// A family with its series.
pub struct Filled {
    /// The family.
    pub family: &'static Family,
    /// Its series.
    pub samples: Vec<Sample>,
}

/// One series.
pub struct Sample {
    /// The values of the family's labels.
    pub labels: Vec<Cow<'static, str>>,
    /// Its figure.
    pub value: Value,
    /// A flow that it counts.
    pub exemplar: Option<Exemplar>,
}

impl Exposition {
    /// The labels of a series. An empty label is one that is not there.
    pub fn labels<'a>(
        &'a self,
        family: &'a Family,
        sample: &'a Sample,
    ) -> impl Iterator<Item = (&'a str, &'a str)> {
        let everywhere = self.everywhere.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let own = family.labels.iter().copied().zip(sample.labels.iter().map(AsRef::as_ref));
        everywhere.chain(own).filter(|(_, value)| !value.is_empty())
    }

    /// Its series that have one figure, and those that are histograms: each is one.
    pub fn series(&self) -> usize {
        self.families.iter().map(|filled| filled.samples.len()).sum()
    }
}

/// The figure of a series.
#[derive(Debug, PartialEq, Eq)]
pub enum Value {
    /// A number.
    Number(u64),
    /// A time, ns.
    Time(u64),
    /// Times by bound.
    Times(Times),
}

/// A histogram.
#[derive(Debug, PartialEq, Eq)]
pub struct Times {
    /// Bounds in ns, each with the number of times up to it.
    pub up_to: Vec<(u64, u64)>,
    /// All times.
    pub count: u64,
    /// Their sum in ns: each counts with the middle of its bucket, 1/32 away at most.
    pub sum_ns: u128,
}

/// A flow that came to a verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exemplar {
    /// The verdict.
    pub verdict: Verdict,
    /// Its cause, where the verdict is counted by it.
    pub cause: Option<Cause>,
    /// Who began.
    pub initiator: SocketAddr,
    /// Who was asked.
    pub responder: SocketAddr,
    /// When it began, ns since the Unix epoch.
    pub began_ns: u64,
}

/// What a reading has besides the snapshot.
#[derive(Default)]
pub struct Beside {
    /// Flows that came to a verdict, at most one for each series.
    pub exemplars: Vec<Exemplar>,
    /// How long the reading took.
    pub took: Duration,
    /// What exporters dropped.
    pub dropped: Vec<(&'static str, u64)>,
}

/// A counter that keeps what its figure rose by.
#[derive(Clone, Copy, Default)]
struct Rising {
    figure: u64,
    counted: u64,
}

/// The packets of interfaces by name. One that comes back begins anew, and its counter does not.
#[derive(Default)]
struct Interfaces(HashMap<String, Rising>);

impl Interfaces {
    /// Takes in what an interface that is watched has counted.
    fn take_in(&mut self, name: &str, figure: u64) -> u64 {
        let rising = self.0.entry(name.to_owned()).or_default();
        if figure < rising.figure {
            rising.figure = 0;
        }
        rising.take_in(figure, 0)
    }

    /// Begins those anew that are not watched. Where they are too many, they are forgotten.
    fn leave_all_but(&mut self, is_watched: impl Fn(&str) -> bool) {
        if self.0.len() > MOST_KNOWN {
            self.0.retain(|name, _| is_watched(name));
        }
        let left = self.0.iter_mut().filter(|(name, _)| !is_watched(name));
        left.for_each(|(_, rising)| rising.figure = 0);
    }
}

impl Rising {
    /// Takes in a figure that has risen by at least `least` in all, though it fell meanwhile.
    fn take_in(&mut self, figure: u64, least: u64) -> u64 {
        self.counted = least.max(self.counted + figure.saturating_sub(self.figure));
        self.figure = figure;
        self.counted
    }
}

/// Makes series of snapshots.
pub struct Figures {
    /// Of each metric that is exported as a counter, in the order of the table.
    rising: Vec<Rising>,
    /// Of each reason for an inexact report.
    lost: HashMap<&'static str, Rising>,
    interfaces: Interfaces,
    services: Services,
    workloads: Workloads,
    labels: Vec<(String, String)>,
    readings: u64,
}

/// What the operator named.
#[derive(Clone, Copy, Default)]
pub struct Named<'a> {
    /// Services.
    pub services: &'a [ServiceRule],
    /// Workloads.
    pub workloads: &'a [WorkloadRule],
    /// Labels that every series has.
    pub labels: &'a [(String, String)],
}

impl Figures {
    /// Makes series with these names.
    pub fn new(named: Named<'_>) -> Self {
        let (rising, lost, interfaces, services, workloads) = Default::default();
        let mut figures =
            Self { rising, lost, interfaces, services, workloads, labels: Vec::new(), readings: 0 };
        figures.name(named);
        figures
    }

    /// The same with other names.
    pub fn name(&mut self, named: Named<'_>) {
        self.services.name(named.services.iter().cloned());
        self.workloads.name(named.workloads.iter().flat_map(WorkloadRule::sides));
        self.labels = named.labels.to_vec();
    }

    /// Takes a snapshot in.
    pub fn take_in(&mut self, now: &Snapshot, before: &Snapshot, beside: &Beside) -> Exposition {
        self.readings += 1;
        let mut page = Page::new();
        page.add(&series::BUILD_INFO, &[env!("CARGO_PKG_VERSION")], 1);
        page.add(&series::EXACT, &[], u64::from(Interval::between(before, now).is_exact()));
        for loss in now.possible_losses() {
            let counted = self.lost.entry(loss.reason).or_default().take_in(loss.count, 0);
            page.add(&series::LOST, &[loss.reason], counted);
        }
        self.add_metrics(now, &beside.exemplars, &mut page);
        self.add_interfaces(now, &mut page);
        for leg in Leg::ALL {
            let times = Value::Times(Times::of(now.histogram(leg)));
            page.push(&series::LATENCY, vec![leg.name().into()], times, None);
        }
        self.services.take_in(&now.every_service, &service::totals(now));
        page.add_named(&self.services);
        self.workloads.take_in(&now.workloads, &workload::totals(now));
        if self.workloads.has_any() {
            page.add_named(&self.workloads);
        }
        for (sink, dropped) in &beside.dropped {
            page.add(&series::EXPORT_DROPPED, &[sink], *dropped);
        }
        page.add(&series::READINGS, &[], self.readings);
        let took = u64::try_from(beside.took.as_nanos()).unwrap_or(u64::MAX);
        page.push(&series::READING_SECONDS, Vec::new(), Value::Time(took), None);
        let began_ns = now.from_ns();
        page.push(&series::START_TIME, Vec::new(), Value::Time(began_ns), None);
        let (families, everywhere) = (page.families, self.labels.clone());
        Exposition { began_ns, read_ns: now.taken_at_ns, families, everywhere }
    }

    /// The series of the table of metrics.
    fn add_metrics(&mut self, now: &Snapshot, exemplars: &[Exemplar], page: &mut Page) {
        self.rising.resize(METRICS.len() + REVISED.len(), Rising::default());
        let completed = Verdict::Completed.name();
        for (metric, rising) in METRICS.iter().chain(REVISED.iter()).zip(&mut self.rising) {
            let (Some(series), Some(figure)) = (&metric.series, metric.value(now)) else { continue };
            let is_of_completed =
                series.family.name == series::VERDICTS.name && series.labels[0] == completed;
            let entered = if is_of_completed { now.completions() } else { 0 };
            let counted = if metric.rises { rising.take_in(figure, entered) } else { figure };
            let labels = series.labels.iter().map(|label| Cow::Borrowed(*label)).collect();
            let exemplar = if series.family.name == series::VERDICTS.name {
                exemplars.iter().find(|exemplar| exemplar.is_of(metric)).copied()
            } else {
                None
            };
            page.push(series.family, labels, Value::Number(counted), exemplar);
            // The kernel side has no counter of it: a completed handshake is denied by a RST at most.
            if is_of_completed {
                page.add(&series::REVISED, &[completed], counted - figure);
            }
        }
    }

    /// The packets of the first interfaces that are watched.
    fn add_interfaces(&mut self, now: &Snapshot, page: &mut Page) {
        let Origin::Live(live) = &now.context.origin else { return };
        for (at, (interface, packets)) in live.interfaces.iter().zip(&now.interfaces).enumerate() {
            let counted = self.interfaces.take_in(&interface.name, packets.total);
            if at < MOST_INTERFACES {
                let labels = vec![Cow::Owned(interface.name.clone())];
                page.push(&series::INTERFACE_PACKETS, labels, Value::Number(counted), None);
            }
        }
        self.interfaces.leave_all_but(|name| live.interfaces.iter().any(|each| each.name == name));
    }
}

impl Exemplar {
    fn is_of(&self, metric: &Metric<Snapshot>) -> bool {
        let cause = self.cause.map_or("", Cause::name);
        metric.series.as_ref().is_some_and(|series| series.labels == [self.verdict.name(), cause])
    }
}

impl Times {
    fn of(histogram: &Histogram) -> Self {
        let (mut count, mut sum_ns, mut up_to) = (0, 0, Vec::new());
        let mut bounds = EXPONENTS.map(|exponent| (1_u64 << exponent) - 1).peekable();
        let mut lower = 0;
        for (bucket, samples) in (0..).zip(histogram.buckets) {
            let upper = upper_bound(bucket);
            count += samples;
            sum_ns += u128::from(samples) * (u128::from(lower) + u128::from(upper)) / 2;
            if let Some(bound) = bounds.next_if_eq(&upper) {
                up_to.push((bound, count));
            }
            lower = upper.saturating_add(1);
        }
        debug_assert!(bounds.peek().is_none() && histogram.buckets.len() == BUCKETS);
        Self { up_to, count, sum_ns }
    }
}

/// Series under way, by family.
struct Page {
    families: Vec<Filled>,
}

impl Page {
    fn new() -> Self {
        Self { families: FAMILIES.iter().map(|family| Filled { family, samples: Vec::new() }).collect() }
    }

    fn add(&mut self, family: &'static Family, labels: &[&'static str], number: u64) {
        let labels = labels.iter().map(|label| Cow::Borrowed(*label)).collect();
        self.push(family, labels, Value::Number(number), None);
    }

    fn add_named<R: Row>(&mut self, names: &Names<R>) {
        for (name, figures) in names.figures() {
            for (column, figure) in R::columns().iter().zip(figures) {
                let labels = column.labels.iter().map(|label| Cow::Borrowed(*label));
                let labels = name.iter().cloned().chain(labels).collect();
                self.push(column.family, labels, Value::Number(*figure), None);
            }
        }
    }

    fn push(
        &mut self,
        family: &'static Family,
        labels: Vec<Cow<'static, str>>,
        value: Value,
        exemplar: Option<Exemplar>,
    ) {
        debug_assert_eq!((family.kind == Kind::Histogram), matches!(value, Value::Times(_)));
        if let Some(filled) = self.families.iter_mut().find(|filled| filled.family.name == family.name) {
            filled.samples.push(Sample { labels, value, exemplar });
        }
    }
}

#[cfg(test)]
mod tests {
    use handshake_agent::fake::{Fake, WALL_NS, snapshot};
    use handshake_agent::model::metric::series::Kind;
    use handshake_agent::model::snapshot::Snapshot;
    use handshake_common::abi::{Counter, Histogram};
    use handshake_common::latency::bucket;
    use handshake_common::verdict::{Cause, Leg, Verdict};
    use std::sync::Arc;

    use super::{Beside, EXPONENTS, Exemplar, Exposition, Figures, Named, Times, Value};
    use crate::prometheus::{Form, text};

    fn take(fake: &mut Fake, before: &Snapshot) -> Snapshot {
        Snapshot::take(fake, &Arc::clone(&before.context), Some(before)).expect("a fake never fails")
    }

    /// The figure of a series by its name and the values of its labels.
    fn of(exposition: &Exposition, name: &str, labels: &[&str]) -> u64 {
        let family = exposition.families.iter().find(|filled| filled.family.name == name).expect(name);
        let sample = family.samples.iter().find(|sample| sample.labels == labels).expect(name);
        match &sample.value {
            Value::Number(number) => *number,
            Value::Time(_) | Value::Times(_) => panic!("{name} is no number"),
        }
    }

    /// What Prometheus adds up again: attempts are the verdicts that were entered less those that were left,
    /// and what is open.
    fn balances(exposition: &Exposition) {
        let sum = |name: &str| -> u64 {
            let family = exposition.families.iter().find(|filled| filled.family.name == name).expect(name);
            let number = |value: &Value| match value {
                Value::Number(number) => *number,
                Value::Time(_) | Value::Times(_) => 0,
            };
            family.samples.iter().map(|sample| number(&sample.value)).sum()
        };
        assert_eq!(
            sum("handshake_attempts_total") + sum("handshake_revised_total"),
            sum("handshake_verdicts_total") + sum("handshake_opening") + sum("handshake_half_open"),
        );
    }

    /// A refusal that is taken back, and a completed handshake that is denied: what stands falls, and what was
    /// entered does not.
    #[test]
    fn counters_keep_what_verdicts_lose() {
        let verdicts = "handshake_verdicts_total";
        let (mut fake, mut figures) = (Fake::new(), Figures::new(Named::default()));
        let before = snapshot();
        fake.count(Counter::Attempts, 3);
        fake.count(Counter::Refused, 1);
        fake.count(Counter::EnteredRefused, 1);
        fake.count(Counter::Completed, 2);
        let first = take(&mut fake, &before);
        let page = figures.take_in(&first, &before, &Beside::default());
        balances(&page);
        assert_eq!(
            (of(&page, verdicts, &["refused", ""]), of(&page, "handshake_standing", &["refused"])),
            (1, 1)
        );
        // One refusal continued, one completion was denied.
        fake.count(Counter::Refused, -1);
        fake.count(Counter::Completed, -1);
        fake.count(Counter::ResponderAborted, 2);
        fake.count(Counter::EnteredResponderAborted, 2);
        let second = take(&mut fake, &first);
        let page = figures.take_in(&second, &first, &Beside::default());
        balances(&page);
        assert_eq!(
            (of(&page, verdicts, &["refused", ""]), of(&page, "handshake_standing", &["refused"])),
            (1, 0)
        );
        assert_eq!(of(&page, verdicts, &["completed", ""]), 2);
        for verdict in ["refused", "completed"] {
            assert_eq!(of(&page, "handshake_revised_total", &[verdict]), 1, "{verdict}");
        }
        fake.count(Counter::Attempts, 1);
        fake.count(Counter::Completed, 1);
        let third = take(&mut fake, &second);
        let page = figures.take_in(&third, &second, &Beside::default());
        balances(&page);
        assert_eq!(of(&page, verdicts, &["completed", ""]), 3);
    }

    /// What is completed and denied between two readings stands nowhere: its time tells of it, or that it was
    /// left out. Times that are read before the counters lack some completions, and no counter falls.
    #[test]
    fn a_completion_that_is_denied_before_it_is_read_is_counted() {
        let (mut fake, mut figures) = (Fake::new(), Figures::new(Named::default()));
        let mut before = snapshot();
        let mut counted = |fake: &mut Fake| {
            let now = take(fake, &before);
            let page = figures.take_in(&now, &before, &Beside::default());
            before = now;
            balances(&page);
            let revised = of(&page, "handshake_revised_total", &["completed"]);
            (of(&page, "handshake_verdicts_total", &["completed", ""]), revised)
        };
        fake.count(Counter::Attempts, 5);
        fake.count(Counter::Completed, 3);
        fake.sample(Leg::Connect, 1_000_000, 4);
        fake.count(Leg::Connect.excluded(), 1);
        fake.count(Counter::ResponderAborted, 2);
        fake.count(Counter::EnteredResponderAborted, 2);
        assert_eq!(counted(&mut fake), (5, 2));
        // Three more, whose times are not read yet.
        fake.count(Counter::Attempts, 3);
        fake.count(Counter::Completed, 3);
        assert_eq!(counted(&mut fake), (8, 2));
        // They are, and one of them was denied.
        fake.sample(Leg::Connect, 1_000_000, 3);
        fake.count(Counter::Completed, -1);
        fake.count(Counter::ResponderAborted, 1);
        fake.count(Counter::EnteredResponderAborted, 1);
        assert_eq!(counted(&mut fake), (8, 3));
    }

    /// An interface goes and comes back, seen to be away or not, and its block begins anew.
    #[test]
    fn the_packets_of_an_interface_never_fall() {
        let mut interfaces = super::Interfaces::default();
        assert_eq!(interfaces.take_in("veth0", 100), 100);
        interfaces.leave_all_but(|name| name == "veth0");
        assert_eq!(interfaces.take_in("veth0", 110), 110);
        interfaces.leave_all_but(|_| false);
        assert_eq!((interfaces.take_in("veth0", 300), interfaces.take_in("eth0", 5)), (410, 5));
        assert_eq!(interfaces.take_in("veth0", 20), 430);
        let all = (0..super::MOST_KNOWN).map(|at| interfaces.take_in(&format!("veth{at}"), 1));
        assert_eq!(all.count(), super::MOST_KNOWN);
        interfaces.leave_all_but(|name| name == "eth0");
        assert_eq!((interfaces.0.len(), interfaces.take_in("eth0", 7)), (1, 7));
    }

    /// Each sample is counted at the bounds that it does not pass, and at no other.
    #[test]
    fn histograms_are_exact_at_their_bounds() {
        let edges = EXPONENTS.flat_map(|exponent| [(1_u64 << exponent) - 1, 1 << exponent]);
        let samples: Vec<u64> = edges.chain([0, 1, 999, u64::MAX >> 20]).collect();
        let mut histogram = Histogram { buckets: [0; handshake_common::abi::BUCKETS] };
        samples.iter().for_each(|sample| histogram.buckets[bucket(*sample) as usize] += 1);
        let times = Times::of(&histogram);
        assert_eq!((times.up_to.len(), times.count), (EXPONENTS.count(), samples.len() as u64));
        for (bound, count) in times.up_to {
            assert_eq!(count, samples.iter().filter(|sample| **sample <= bound).count() as u64, "{bound}");
        }
        let sum: u128 = samples.iter().map(|sample| u128::from(*sample)).sum();
        assert!(times.sum_ns.abs_diff(sum) <= sum / 32, "{} {sum}", times.sum_ns);
    }

    fn services(count: usize) -> Vec<crate::service::ServiceRule> {
        (0..count).map(|at| format!("s{at}=:{}", 1_000 + at).parse().expect("it is right")).collect()
    }

    /// Ten services, a loopback of one interface: with sixteen interfaces there are fifteen more. Each workload
    /// has nine series on either side, and the others have nine.
    #[test]
    fn there_are_at_most_four_hundred_series() {
        let before = snapshot();
        let beside = Beside { dropped: vec![("metrics_file", 0)], ..Beside::default() };
        let series = |workloads: usize| {
            let (services, workloads) = (services(10), self::workloads(workloads));
            let named = Named { services: &services, workloads: &workloads, ..Named::default() };
            let page = Figures::new(named).take_in(&take(&mut Fake::new(), &before), &before, &beside);
            text(&page, Form::Plain).lines().filter(|line| !line.starts_with('#')).count()
        };
        assert!((300..=400 - 16).contains(&series(0)), "{}", series(0));
        assert_eq!(series(10) - series(0), 10 * 2 * 9 + 9);
    }

    fn workloads(count: usize) -> Vec<crate::workload::WorkloadRule> {
        (0..count).map(|at| format!("w{at}=pod:web-{at}").parse().expect("it is right")).collect()
    }

    #[test]
    fn the_text_has_both_forms() {
        let before = snapshot();
        let mut fake = Fake::new();
        fake.count(Counter::Attempts, 1);
        fake.count(Counter::ExpiredNoAck, 1);
        fake.sample(Leg::Connect, 1_000_000, 2);
        let now = take(&mut fake, &before);
        let exemplar = Exemplar {
            verdict: Verdict::HalfOpenExpired,
            cause: Some(Cause::NoAck),
            initiator: "[2001:db8::1]:40007".parse().expect("an address"),
            responder: "10.0.0.1:443".parse().expect("an address"),
            began_ns: WALL_NS + 1,
        };
        let label = [("site".to_owned(), "a\"b\\c".to_owned())];
        let beside = Beside { exemplars: vec![exemplar], ..Beside::default() };
        let page = Figures::new(Named { services: &services(1), labels: &label, ..Named::default() })
            .take_in(&now, &before, &beside);
        let (plain, open) = (text(&page, Form::Plain), text(&page, Form::OpenMetrics));
        let series =
            r#"handshake_verdicts_total{site="a\"b\\c",verdict="half_open_expired",cause="no_ack"} 1"#;
        assert!(plain.contains(&format!("{series}\n")), "{plain}");
        let exemplar =
            r#" # {initiator="[2001:db8::1]:40007",responder="10.0.0.1:443"} 1 1772366621.000000001"#;
        assert!(open.contains(&format!("{series}{exemplar}\n")), "{open}");
        assert!(plain.contains("# TYPE handshake_verdicts_total counter\n"));
        assert!(open.contains("# TYPE handshake_verdicts counter\n") && open.ends_with("\n# EOF\n"));
        let bucket = r#"handshake_latency_seconds_bucket{site="a\"b\\c",leg="connect",le="0.001048575"} 2"#;
        assert!(plain.contains(bucket) && open.contains(bucket), "{plain}");
        let below = r#"leg="connect",le="0.000524287"} 0"#;
        assert!(plain.contains(below) && plain.contains(r#"leg="connect",le="+Inf"} 2"#));
        for name in page.families.iter().filter(|filled| filled.family.kind == Kind::Counter) {
            assert!(
                !name.samples.is_empty()
                    || name.family.name.contains("workload")
                    || name.family.name.contains("interface_packets")
                    || name.family.name.contains("dropped"),
                "{} has no series",
                name.family.name
            );
        }
    }
}
