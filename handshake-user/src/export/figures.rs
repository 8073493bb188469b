//! The series of a snapshot, from the table of metrics. Counters never fall: where a figure does, because an
//! attempt left its verdict again, the counter keeps what it rose by.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::time::Duration;

use handshake_agent::model::metric::series::{self, FAMILIES, Family, Kind};
use handshake_agent::model::metric::{METRICS, Metric, REVISED};
use handshake_agent::model::snapshot::{Interval, Origin, Snapshot};
use handshake_common::abi::{BUCKETS, Histogram};
use handshake_common::latency::upper_bound;
use handshake_common::verdict::{Cause, Leg, Verdict};

use super::service::{COLUMNS, ServiceRule, Services, totals};

/// The bounds of the histograms: the longest times below the powers of two from 2^11 ns (2 µs) to 2^36 ns
/// (69 s). The kernel side's buckets end there too, so counts at the bounds are exact.
const EXPONENTS: std::ops::RangeInclusive<u32> = 11..=36;
/// Interfaces that have a series of their own.
const MOST_INTERFACES: usize = 16;

/// The series of a reading.
pub(crate) struct Exposition {
    /// The families that have series, in their order.
    pub(crate) families: Vec<Filled>,
    /// Labels that every series has.
    pub(crate) everywhere: Vec<(String, String)>,
}

/// A family with its series.
pub(crate) struct Filled {
    /// The family.
    pub(crate) family: &'static Family,
    /// Its series.
    pub(crate) samples: Vec<Sample>,
}

/// One series.
pub(crate) struct Sample {
    /// The values of the family's labels.
    pub(crate) labels: Vec<Cow<'static, str>>,
    /// Its figure.
    pub(crate) value: Value,
    /// A flow that it counts.
    pub(crate) exemplar: Option<Exemplar>,
}

/// The figure of a series.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Value {
    /// A number.
    Number(u64),
    /// A time, ns.
    Time(u64),
    /// Times by bound.
    Times(Times),
}

/// A histogram.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Times {
    /// Bounds in ns, each with the number of times up to it.
    pub(crate) up_to: Vec<(u64, u64)>,
    /// All times.
    pub(crate) count: u64,
    /// Their sum in ns: each counts with the middle of its bucket, 1/32 away at most.
    pub(crate) sum_ns: u128,
}

/// A flow that came to a verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Exemplar {
    /// The verdict.
    pub(crate) verdict: Verdict,
    /// Its cause, where the verdict is counted by it.
    pub(crate) cause: Option<Cause>,
    /// Who began.
    pub(crate) initiator: SocketAddr,
    /// Who was asked.
    pub(crate) responder: SocketAddr,
    /// When it began, ns since the Unix epoch.
    pub(crate) began_ns: u64,
}

/// What a reading has besides the snapshot.
#[derive(Default)]
pub(crate) struct Beside {
    /// Flows that came to a verdict, at most one for each series.
    pub(crate) exemplars: Vec<Exemplar>,
    /// How long the reading took.
    pub(crate) took: Duration,
    /// What exporters dropped.
    pub(crate) dropped: Vec<(&'static str, u64)>,
}

/// A counter that keeps what its figure rose by.
#[derive(Clone, Copy, Default)]
struct Rising {
    figure: u64,
    counted: u64,
}

impl Rising {
    fn take_in(&mut self, figure: u64) -> u64 {
        self.counted += figure.saturating_sub(self.figure);
        self.figure = figure;
        self.counted
    }
}

/// Makes series of snapshots.
pub(crate) struct Figures {
    /// Of each metric that is exported as a counter, in the order of the table.
    rising: Vec<Rising>,
    services: Services,
    labels: Vec<(String, String)>,
    readings: u64,
}

impl Figures {
    /// Names services as `rules` say, and gives every series `labels`.
    pub(crate) fn new(rules: &[ServiceRule], labels: &[(String, String)]) -> Self {
        let mut figures =
            Self { rising: Vec::new(), services: Services::default(), labels: Vec::new(), readings: 0 };
        figures.name(rules, labels);
        figures
    }

    /// The same with other names and labels.
    pub(crate) fn name(&mut self, rules: &[ServiceRule], labels: &[(String, String)]) {
        self.services.name(rules);
        self.labels = labels.to_vec();
    }

    /// Takes a snapshot in.
    pub(crate) fn take_in(&mut self, now: &Snapshot, before: &Snapshot, beside: &Beside) -> Exposition {
        self.readings += 1;
        let mut page = Page::new();
        page.add(&series::BUILD_INFO, &[env!("CARGO_PKG_VERSION")], 1);
        page.add(&series::EXACT, &[], u64::from(Interval::between(before, now).is_exact()));
        for loss in now.possible_losses() {
            page.add(&series::LOST, &[loss.reason], loss.count);
        }
        self.add_metrics(now, &beside.exemplars, &mut page);
        add_interfaces(now, &mut page);
        for leg in Leg::ALL {
            let times = Value::Times(Times::of(now.histogram(leg)));
            page.push(&series::LATENCY, vec![leg.name().into()], times, None);
        }
        self.services.take_in(&now.every_service, &totals(now));
        for (name, figures) in self.services.figures() {
            for (column, figure) in COLUMNS.iter().zip(figures) {
                let labels = column.labels.iter().map(|label| Cow::Borrowed(*label));
                let labels = [Cow::Owned(name.to_owned())].into_iter().chain(labels).collect();
                page.push(column.family, labels, Value::Number(*figure), None);
            }
        }
        for (sink, dropped) in &beside.dropped {
            page.add(&series::EXPORT_DROPPED, &[sink], *dropped);
        }
        page.add(&series::READINGS, &[], self.readings);
        let took = u64::try_from(beside.took.as_nanos()).unwrap_or(u64::MAX);
        page.push(&series::READING_SECONDS, Vec::new(), Value::Time(took), None);
        page.push(&series::START_TIME, Vec::new(), Value::Time(now.from_ns()), None);
        Exposition { families: page.families, everywhere: self.labels.clone() }
    }

    /// The series of the table of metrics.
    fn add_metrics(&mut self, now: &Snapshot, exemplars: &[Exemplar], page: &mut Page) {
        self.rising.resize(METRICS.len() + REVISED.len(), Rising::default());
        let completed = Verdict::Completed.name();
        for (metric, rising) in METRICS.iter().chain(REVISED.iter()).zip(&mut self.rising) {
            let (Some(series), Some(figure)) = (&metric.series, metric.value(now)) else { continue };
            let counted = if metric.rises { rising.take_in(figure) } else { figure };
            let labels = series.labels.iter().map(|label| Cow::Borrowed(*label)).collect();
            let exemplar = if series.family.name == series::VERDICTS.name {
                exemplars.iter().find(|exemplar| exemplar.is_of(metric)).copied()
            } else {
                None
            };
            page.push(series.family, labels, Value::Number(counted), exemplar);
            // The kernel side counts no entries here: a completed handshake is denied by a RST at most.
            if series.family.name == series::VERDICTS.name && series.labels[0] == completed {
                page.add(&series::REVISED, &[completed], counted - figure);
            }
        }
    }
}

impl Exemplar {
    fn is_of(&self, metric: &Metric<Snapshot>) -> bool {
        let cause = self.cause.map_or("", Cause::name);
        metric.series.as_ref().is_some_and(|series| series.labels == [self.verdict.name(), cause])
    }
}

/// The packets of the first interfaces that are watched.
fn add_interfaces(now: &Snapshot, page: &mut Page) {
    let Origin::Live(live) = &now.context.origin else { return };
    for (interface, packets) in live.interfaces.iter().zip(&now.interfaces).take(MOST_INTERFACES) {
        let labels = vec![Cow::Owned(interface.name.clone())];
        page.push(&series::INTERFACE_PACKETS, labels, Value::Number(packets.total), None);
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
        Self {
            families: FAMILIES.iter().map(|family| Filled { family, samples: Vec::new() }).collect(),
        }
    }

    fn add(&mut self, family: &'static Family, labels: &[&'static str], number: u64) {
        let labels = labels.iter().map(|label| Cow::Borrowed(*label)).collect();
        self.push(family, labels, Value::Number(number), None);
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
