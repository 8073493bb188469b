//! Resolves names: a figure is one or more metrics, of all services or of some.

use std::fmt;

use handshake_agent::model::metric::{CONNECT_OF_ALL, METRICS, Metric, SERVICE, SERVICE_TIMES, Unit};
use handshake_agent::model::snapshot::{ServiceBooks, Snapshot, TcpBooks};
use handshake_agent::similar;
use handshake_common::verdict::Leg;

use super::selection::{Selection, WrittenSelectors};
use super::{Fault, Span, ValueKind};

/// Functions of a leg: the name, and the metric below `latency.LEG`.
pub(crate) const FUNCTIONS: [(&str, &str); 8] = [
    ("p50", "p50_ns"),
    ("p90", "p90_ns"),
    ("p95", "p95_ns"),
    ("p99", "p99_ns"),
    ("p99.9", "p999_ns"),
    ("max", "max_ns"),
    ("count", "count"),
    ("excluded", "excluded"),
];

/// The spoken name of the leg `ack_to_first_byte`.
const FIRST_BYTE: &str = "first_byte";

/// The name of the function for rates.
pub(crate) const RATE: &str = "rate";

/// The function for the change between two reports, and those for either of them.
pub(crate) const CHANGE: &str = "change";
pub(crate) const OLD: &str = "old";
pub(crate) const NEW: &str = "new";

/// The word behind `of` in `p99(connect of completed)`.
pub(super) const COMPLETED: &str = "completed";

/// Short names, each with the metrics that it is the sum of.
pub(crate) const SHORT: [(&str, &[&str]); 3] = [
    ("silent", &["tcp.silent.now", "tcp.signs.was_silent"]),
    ("half_open", &["tcp.half_open.now"]),
    (
        "half_open_expired",
        &[
            "tcp.half_open_expired.no_syn_ack",
            "tcp.half_open_expired.no_ack",
            "tcp.half_open_expired.answer_unseen",
        ],
    ),
];

/// A named figure of a report.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Figure {
    /// The name as given.
    pub(crate) name: String,
    /// The names of the metrics that it is the sum of.
    pub(crate) metrics: Vec<&'static str>,
    /// What it is of.
    pub(crate) of: Selection,
}

impl Figure {
    /// Whether it is of the times to connect.
    pub(crate) fn is_of_times(&self) -> bool {
        self.metrics.iter().any(|name| name.starts_with(LATENCY_PATH))
    }

    /// The TCP books of what is selected, from a report that lists every service by name.
    pub(crate) fn books(&self, snapshot: &Snapshot) -> TcpBooks {
        let mut sum = TcpBooks::default();
        match &self.of {
            Selection::All => return snapshot.tcp.books,
            Selection::Services(services) => {
                let rows = snapshot.services.iter();
                let rows = rows.filter(|row| row.service.is_some_and(|each| services.take(each)));
                rows.filter_map(|row| row.books.tcp()).for_each(|books| sum += *books);
            }
            Selection::Workloads(workloads) => {
                let rows = snapshot.workloads.iter();
                let rows = rows.filter(|row| workloads.take(row.owner.as_deref(), row.side) == Some(true));
                rows.for_each(|row| sum += row.books);
            }
        }
        sum
    }
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // What a function is of is written in it: p99(connect{port=443}).
        let (before, after) = self.name.strip_suffix(')').map_or((&*self.name, ""), |inner| (inner, ")"));
        write!(f, "{before}{}{after}", self.of)
    }
}

/// Where the paths of the legs' metrics begin.
const LATENCY_PATH: &str = "latency.";
/// Where those of TCP begin.
const TCP_PATH: &str = "tcp.";

/// Resolves a figure and its kind by name.
pub(super) fn figure(
    name: &str,
    span: Span,
    written: &WrittenSelectors,
) -> Result<(Figure, ValueKind), Fault> {
    let metrics = named(name).ok_or_else(|| unknown(name, span))?;
    let of = Selection::of(written)?;
    let is_kept = |metric: &&Metric<_>| {
        by(&of).contains(&metric.name.as_str())
            || matches!(of, Selection::Services(_))
                && SERVICE_TIMES.iter().any(|times| times.name == metric.name)
    };
    if of != Selection::All && !metrics.iter().all(is_kept) {
        return Err(Fault::new(span, not_kept(name, &of)));
    }
    let kind = kind(metrics[0].unit);
    let metrics = metrics.iter().map(|metric| metric.name.as_str()).collect();
    Ok((Figure { name: name.to_owned(), metrics, of }, kind))
}

/// The metrics that are counted by what is selected, by their paths.
fn by(of: &Selection) -> Vec<&'static str> {
    match of {
        Selection::All => Vec::new(),
        Selection::Services(_) => SERVICE.iter().map(|metric| metric.name.as_str()).collect(),
        Selection::Workloads(_) => of_workload().map(|metric| metric.name.as_str()).collect(),
    }
}

/// The metrics of a workload: those of a service of TCP.
pub(crate) fn of_workload() -> impl Iterator<Item = &'static Metric<ServiceBooks>> {
    SERVICE.iter().filter(|metric| metric.name.starts_with(TCP_PATH))
}

/// Said of a name that is not counted by what is selected.
fn not_kept(name: &str, of: &Selection) -> String {
    let what = match of {
        Selection::All => "part",
        Selection::Services(_) if name.starts_with(LATENCY_PATH) => return ONLY_CONNECT.to_owned(),
        Selection::Services(_) => "service",
        Selection::Workloads(_) => "workload",
    };
    let names: Vec<&str> = by(of).into_iter().map(short).collect();
    format!("{name} is not counted per {what}; these are: {}", names.join(", "))
}

/// Said where a service's time of another leg is asked for.
const ONLY_CONNECT: &str = "of the legs only connect is kept per service: p99(connect{port=443})";

/// Resolves a figure of a leg: `p99(connect)`. Those of `connect` are of all attempts that had a chance,
/// where there are such figures and not only the `completed` ones were asked for.
pub(super) fn of_leg(
    (function, at): (&str, Span),
    (leg, leg_at): (&str, Span),
    completed: bool,
    written: &WrittenSelectors,
) -> Result<(Figure, ValueKind), Fault> {
    let names = FUNCTIONS.map(|(name, _)| name);
    let Some((_, field)) = FUNCTIONS.iter().find(|(name, _)| *name == function) else {
        let all = [names.as_slice(), &[RATE]].concat();
        let message = format!("no function {function}: use one of {}", all.join(", "));
        return Err(Fault::new(at, message));
    };
    let leg = if leg == FIRST_BYTE { Leg::AckToFirstByte.name() } else { leg };
    let legs = Leg::ALL.map(Leg::name);
    let is_connect = leg == Leg::Connect.name();
    if completed && legs.contains(&leg) && !is_connect {
        return Err(Fault::new(leg_at, format!("only connect is of all attempts: {function}({leg})")));
    }
    let find = |path: String| METRICS.iter().find(|metric| metric.name == path);
    let of_all = (is_connect && !completed && field.ends_with("_ns"))
        .then(|| find(format!("{CONNECT_OF_ALL}.{field}")))
        .flatten();
    let own = legs.contains(&leg).then(|| find(format!("latency.{leg}.{field}"))).flatten();
    let metric = of_all.or(own).ok_or_else(|| {
        let message = format!("{function} takes {}{}", legs.join(", "), meant(leg, &legs));
        Fault::new(leg_at, message)
    })?;
    if !written.is_empty() && !is_connect {
        return Err(Fault::new(leg_at, ONLY_CONNECT));
    }
    let those = if completed { format!(" of {COMPLETED}") } else { String::new() };
    let (name, of) = (format!("{function}({leg}{those})"), Selection::of(written)?);
    if matches!(of, Selection::Workloads(_)) {
        return Err(Fault::new(leg_at, not_kept(leg, &of)));
    }
    Ok((Figure { name, metrics: vec![&metric.name], of }, kind(metric.unit)))
}

/// The path without `tcp.`, which can be omitted.
pub(crate) fn short(path: &str) -> &str {
    path.strip_prefix(TCP_PATH).unwrap_or(path)
}

/// The metrics of a name; `None` if the name is unknown.
fn named(name: &str) -> Option<Vec<&'static Metric<Snapshot>>> {
    let find = |path: &str| METRICS.iter().find(|metric| metric.name == path);
    if let Some(metric) = find(name).or_else(|| find(&format!("tcp.{name}"))) {
        return Some(vec![metric]);
    }
    let (_, paths) = SHORT.iter().find(|(known, _)| *known == short(name))?;
    paths.iter().map(|path| find(path)).collect()
}

fn unknown(name: &str, span: Span) -> Fault {
    if FUNCTIONS.iter().any(|(function, _)| *function == name) {
        return Fault::new(span, format!("{name} is a function: {name}(connect)"));
    }
    if name == FIRST_BYTE || Leg::ALL.iter().any(|leg| leg.name() == name) {
        return Fault::new(span, format!("{name} is a leg: p99({name})"));
    }
    if name == "s" {
        return Fault::new(span, "a rate is written rate(completed)");
    }
    let paths = METRICS.iter().map(|metric| short(&metric.name));
    let known: Vec<&str> = paths.chain(SHORT.map(|(name, _)| name)).collect();
    // The last part of a path alone: ack_ignored for signs.ack_ignored.
    let last = known.iter().find(|path| path.rsplit('.').next() == Some(name));
    let hint = last.map_or_else(|| meant(name, &known), |path| format!("; did you mean {path}?"));
    let hint = if hint.is_empty() { ": --list-metrics lists all" } else { &hint };
    Fault::new(span, format!("no metric {name}{hint}"))
}

/// Parts of names in the first edition, the longer ones first, and what they are called now.
const FIRST_EDITION: [(&str, &str); 3] =
    [("syn_synack", "syn_to_syn_ack"), ("synack_ack", "syn_ack_to_ack"), ("synack", "syn_ack")];

/// `; it is called … now`, of a name of the first edition; `; did you mean …?`, if a known name is similar;
/// otherwise empty.
pub(super) fn meant(name: &str, known: &[&str]) -> String {
    let today = FIRST_EDITION.iter().fold(name.to_owned(), |name, (old, new)| name.replace(old, new));
    if today != name && known.iter().any(|path| *path == today || path.rsplit('.').next() == Some(&today)) {
        return format!("; it is called {today} now");
    }
    similar::closest(known, name).map(|close| format!("; did you mean {close}?")).unwrap_or_default()
}

const fn kind(unit: Unit) -> ValueKind {
    match unit {
        Unit::Nanoseconds => ValueKind::Time,
        Unit::Attempts
        | Unit::Flows
        | Unit::Packets
        | Unit::Bytes
        | Unit::Records
        | Unit::Events
        | Unit::Services => ValueKind::Count,
    }
}
