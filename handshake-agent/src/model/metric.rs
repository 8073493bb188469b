//! The table of metrics: name, unit, sentence and getter. JSON is written from it, and expectations find their
//! figures in it.
//!
//! A name is the figure's path in the JSON report. Names of verdicts, causes, signs, classes and
//! legs are those of `handshake-common`; the table is made from its enums, so none can be missing.

pub mod series;

use std::sync::LazyLock;

use handshake_common::verdict::{
    Cause, Leg, Role, Row, SILENT_SENTENCE, Seat, Shown, Sign, TCP, UDP, UdpVerdict, Verdict,
};
use handshake_common::wire::Class;

use crate::model::connect::{ConnectOfAll, Percentile, ServiceTimes};
use crate::model::loss;
use crate::model::snapshot::{EVICTIONS, Latency, Packets, ServiceBooks, Snapshot, TcpBooks, UdpBooks};
use series::{Family, Series};

/// What a figure counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Connection attempts.
    Attempts,
    /// Flows of either protocol.
    Flows,
    /// Packets, or segments of one.
    Packets,
    /// Bytes of IP packets.
    Bytes,
    /// Times, ns.
    Nanoseconds,
    /// Records and slots of the tables.
    Records,
    /// Records of the event ring.
    Events,
    /// Rows of the service table.
    Services,
}

/// One figure of a `T`.
pub struct Metric<T> {
    /// Its path in the JSON object of a `T`.
    pub name: String,
    /// The unit of the figure.
    pub unit: Unit,
    /// What it means, and where to look.
    pub help: &'static str,
    /// Whether it never falls during a run, so that its rate has a meaning.
    pub rises: bool,
    /// Where an exporter shows it; `None` where it shows the same in another form, or not at all.
    pub series: Option<Series>,
    get: Getter<T>,
}

type Getter<T> = Box<dyn Fn(&T) -> Option<u64> + Send + Sync>;

impl<T> Metric<T> {
    /// The figure; `None` when it is not known.
    pub fn value(&self, of: &T) -> Option<u64> {
        (self.get)(of)
    }

    fn new(
        name: impl Into<String>,
        unit: Unit,
        help: &'static str,
        get: impl Fn(&T) -> u64 + Send + Sync + 'static,
    ) -> Self {
        Self::optional(name, unit, help, move |of| Some(get(of)))
    }

    fn optional(
        name: impl Into<String>,
        unit: Unit,
        help: &'static str,
        get: impl Fn(&T) -> Option<u64> + Send + Sync + 'static,
    ) -> Self {
        Self { name: name.into(), unit, help, rises: true, series: None, get: Box::new(get) }
    }

    /// The same metric, as one that may fall.
    fn falling_if(self, falls: bool) -> Self {
        Self { rises: !falls, ..self }
    }

    /// The same metric, exported in a family with these values of its labels.
    fn exported(self, family: &'static Family, labels: &[&'static str]) -> Self {
        Self { series: Some(Series { family, labels: labels.to_vec() }), ..self }
    }

    /// The same figure as a part of a larger whole.
    fn within<W: 'static>(self, path: &str, part: impl Fn(&W) -> &T + Send + Sync + 'static) -> Metric<W>
    where
        T: 'static,
    {
        self.maybe_within(path, move |whole| Some(part(whole)))
    }

    /// The same figure as a part that not every whole has.
    fn maybe_within<W: 'static>(
        self,
        path: &str,
        part: impl Fn(&W) -> Option<&T> + Send + Sync + 'static,
    ) -> Metric<W>
    where
        T: 'static,
    {
        let get = self.get;
        let name = format!("{path}.{}", self.name);
        let get = Box::new(move |whole: &W| get(part(whole)?));
        Metric { name, unit: self.unit, help: self.help, rises: self.rises, series: self.series, get }
    }
}

/// All figures of a report, in its order.
pub static METRICS: LazyLock<Vec<Metric<Snapshot>>> = LazyLock::new(|| {
    let mut all = losses();
    all.extend(packets().into_iter().map(|metric| metric.within("packets", |s: &Snapshot| &s.packets)));
    all.extend(tcp());
    for leg in Leg::ALL {
        let path = format!("latency.{}", leg.name());
        all.extend(latency(leg).into_iter().map(|m| m.within(&path, move |s: &Snapshot| s.latency(leg))));
    }
    let of_all = connect_of_all().into_iter();
    all.extend(of_all.map(|metric| metric.within(CONNECT_OF_ALL, |s: &Snapshot| &s.connect_of_all)));
    all.extend(udp());
    all.extend(table());
    all
});

/// The path of the time to connect over all attempts that had a chance.
pub const CONNECT_OF_ALL: &str = "latency.connect_of_all";

/// Its percentiles, in their order there: the name where it is known, and where it is known to be at least so
/// long. Where neither is there, attempts of this rank never connected.
const OF_ALL: [[&str; 4]; 6] = [
    ["p50_ns", "50 % connected within this", "p50_at_least_ns", "50 % take longer than this"],
    ["p90_ns", "90 % connected within this", "p90_at_least_ns", "10 % take longer than this"],
    ["p95_ns", "95 % connected within this", "p95_at_least_ns", "5 % take longer than this"],
    ["p99_ns", "99 % connected within this", "p99_at_least_ns", "1 % take longer than this"],
    ["p999_ns", "99.9 % connected within this", "p999_at_least_ns", "0.1 % take longer than this"],
    ["max_ns", "all connected within this", "max_at_least_ns", "one takes longer than this"],
];

/// Packets by class, of an interface or of all.
pub static PACKETS: LazyLock<Vec<Metric<Packets>>> = LazyLock::new(packets);

/// The metrics of a service, under their names in the report; `None` for a service of the other protocol.
pub static SERVICE: LazyLock<Vec<Metric<ServiceBooks>>> = LazyLock::new(|| {
    let (sign, mut tcp) = (Sign::WasSilent, books());
    let name = format!("signs.{}", sign.name());
    tcp.push(Metric::new(name, Unit::Attempts, sign.sentence(), |books: &TcpBooks| books.was_silent));
    let tcp = tcp.into_iter().map(|metric| metric.maybe_within("tcp", ServiceBooks::tcp));
    let udp = udp_books().into_iter().map(|metric| metric.maybe_within("udp", ServiceBooks::udp));
    tcp.chain(udp).collect()
});

/// The time to connect to a service, under its names in the report.
pub static SERVICE_TIMES: LazyLock<Vec<Metric<ServiceTimes>>> = LazyLock::new(|| {
    let path = format!("latency.{}", Leg::Connect.name());
    let completed =
        latency(Leg::Connect).into_iter().map(|m| m.within(&path, |times: &ServiceTimes| &times.completed));
    let of_all = connect_of_all().into_iter();
    completed.chain(of_all.map(|m| m.within(CONNECT_OF_ALL, |times: &ServiceTimes| &times.of_all))).collect()
});

/// The figures of one leg.
pub static LATENCY: LazyLock<Vec<Metric<Latency>>> = LazyLock::new(|| latency(Leg::Connect));

/// Figures that exporters alone show: how many attempts and flows left a verdict again.
pub static REVISED: LazyLock<Vec<Metric<Snapshot>>> = LazyLock::new(revised);

fn losses() -> Vec<Metric<Snapshot>> {
    vec![
        Metric::new("contended", Unit::Packets, loss::CONTENDED, |s: &Snapshot| s.contended),
        Metric::new("lost_events", Unit::Events, loss::LOST_EVENTS, |s: &Snapshot| s.lost_events),
        Metric::new("lost_before_hook", Unit::Packets, loss::LOST_BEFORE_HOOK, |s: &Snapshot| {
            s.lost_before_hook
        }),
        Metric::new(
            "unsettled",
            Unit::Attempts,
            "difference between the open attempts in the tables and in the gauges, read while packets arrived",
            |s: &Snapshot| s.unsettled,
        )
        .falling_if(true),
    ]
}

fn packets() -> Vec<Metric<Packets>> {
    let mut all = vec![
        Metric::new("total", Unit::Packets, "packets at the hook", |p: &Packets| p.total),
        Metric::new("ipv4", Unit::Packets, "packets with an IPv4 header", |p: &Packets| p.ipv4),
        Metric::new("ipv6", Unit::Packets, "packets with an IPv6 header", |p: &Packets| p.ipv6),
        Metric::optional(
            "filtered",
            Unit::Packets,
            "packets of flows that --port and --net exclude",
            |p: &Packets| p.filtered,
        )
        .exported(&series::FILTERED, &[]),
        Metric::optional("extension_chains", Unit::Packets, loss::EXTENSION_CHAINS, |p: &Packets| {
            p.extension_chains
        }),
        Metric::optional("split_headers", Unit::Packets, loss::SPLIT_HEADERS, |p: &Packets| p.split_headers),
        Metric::optional(
            "copies",
            Unit::Packets,
            "SYNs and SYN+ACKs that the same hook saw less than 10 ms before. Look at: a mirror of both directions",
            |p: &Packets| p.copies,
        )
        .exported(&series::COPIES, &[]),
    ];
    all.extend(Class::ALL.map(|class| {
        Metric::new(class.name(), Unit::Packets, class_help(class), move |p: &Packets| p.class(class))
            .exported(&series::PACKETS, &[class.name()])
    }));
    all
}

const fn class_help(class: Class) -> &'static str {
    match class {
        Class::Syn => "TCP with SYN and without ACK",
        Class::SynAck => "TCP with SYN and ACK",
        Class::Ack => "TCP with ACK and none of RST, SYN, FIN",
        Class::Fin => "TCP with FIN and neither RST nor SYN",
        Class::Rst => "TCP with RST",
        Class::TcpOther => "TCP with none of RST, SYN, FIN, ACK",
        Class::Udp => "UDP",
        Class::Icmp => "ICMP and ICMPv6",
        Class::IpOther => "other protocols over IP, or too many extension headers",
        Class::Fragment => "fragments other than the first",
        Class::NonIp => "neither IPv4 nor IPv6",
        Class::Truncated => "a declared header is not in the packet",
        Class::Malformed => "a length in a header is impossible",
    }
}

fn tcp() -> Vec<Metric<Snapshot>> {
    let mut all = Vec::new();
    for metric in books() {
        let is_completed = metric.name == Verdict::Completed.name();
        all.push(metric.within("tcp", |s: &Snapshot| &s.tcp.books));
        if is_completed {
            let late = "completed more than --half-open-after after the first SYN";
            let late = Metric::new("tcp.late", Unit::Attempts, late, |s: &Snapshot| s.tcp.late);
            all.push(late.exported(&series::LATE, &[]));
        }
    }
    all.extend(Verdict::ALL.into_iter().filter(|verdict| !verdict.is_in_books()).map(|verdict| {
        let name = format!("tcp.{}", verdict.name());
        let metric =
            Metric::new(name, Unit::Flows, verdict.sentence(), move |s: &Snapshot| s.tcp.verdict(verdict))
                .falling_if(verdict.row().can_fall());
        // What falls is exported by its entries.
        if metric.rises { metric.exported(&series::UNBEGUN, &[verdict.name()]) } else { metric }
    }));
    all.extend(Sign::ALL.map(|sign| {
        let name = format!("tcp.signs.{}", sign.name());
        let unit = if matches!(sign, Sign::BadSynAck | Sign::BadAck | Sign::WasSilent) {
            Unit::Attempts
        } else {
            Unit::Packets
        };
        Metric::new(name, unit, sign.sentence(), move |s: &Snapshot| s.tcp.sign(sign))
            .exported(&series::SIGNS, &[sign.name()])
    }));
    all.extend(entries("tcp", &TCP, |s, verdict| s.tcp.entered(verdict)).into_iter().map(|(row, metric)| {
        if row.is_term() {
            metric.exported(&series::VERDICTS, &[row.name, ""])
        } else {
            metric.exported(&series::UNBEGUN, &[row.name])
        }
    }));
    all
}

/// How often each verdict was entered that attempts or flows can leave again.
fn entries<V: Copy + Send + Sync>(
    protocol: &str,
    table: &'static [Row<V>],
    get: fn(&Snapshot, V) -> Option<u64>,
) -> Vec<(&'static Row<V>, Metric<Snapshot>)> {
    let unit = if protocol == "tcp" { Unit::Attempts } else { Unit::Flows };
    let entered = table.iter().filter_map(|row| Some((row, row.entered?)));
    entered
        .map(|(row, entries)| {
            let (name, verdict) = (format!("{protocol}.entered.{}", row.name), row.verdict);
            (row, Metric::optional(name, unit, entries.sentence, move |s: &Snapshot| get(s, verdict)))
        })
        .collect()
}

/// How many attempts left each verdict that they can leave: what entered it and has it no more.
fn revised() -> Vec<Metric<Snapshot>> {
    let left = TCP.iter().filter(|row| row.is_term() && row.entered.is_some());
    left.map(|row| {
        let (name, verdict) = (format!("tcp.revised.{}", row.name), row.verdict);
        let get = move |s: &Snapshot| Some(s.tcp.entered(verdict)?.saturating_sub(s.tcp.verdict(verdict)));
        Metric::optional(name, Unit::Attempts, series::REVISED.help, get)
            .exported(&series::REVISED, &[row.name])
    })
    .collect()
}

/// The identity's terms, of all attempts or of a service's.
fn books() -> Vec<Metric<TcpBooks>> {
    type Of = fn(&TcpBooks) -> u64;
    let mut all = vec![
        Metric::new(
            "attempts",
            Unit::Attempts,
            "SYNs that began an attempt; each attempt has exactly one verdict",
            |books: &TcpBooks| books.attempts,
        )
        .exported(&series::ATTEMPTS, &[]),
    ];
    all.extend(Verdict::ALL.into_iter().filter(|verdict| verdict.is_in_books()).flat_map(of_verdict));
    let patience: [(&str, &'static Family, &str, Of); 3] = [
        (
            "half_open.never_repeated",
            &series::NEVER_REPEATED,
            "half-open attempts whose SYN came once, though every stack repeats it within 3 s: forged sources, or clients that give up sooner",
            |books| books.never_repeated().total(),
        ),
        (
            "half_open.waiting",
            &series::WAITING,
            "half-open attempts whose initiator may still wait: its next SYN is not overdue",
            TcpBooks::waiting,
        ),
        (
            "half_open.gave_up",
            &series::GAVE_UP,
            "half-open attempts whose next SYN is overdue: the initiator has given up",
            TcpBooks::gave_up,
        ),
    ];
    all.extend(patience.map(|(name, family, help, get)| {
        Metric::new(name, Unit::Attempts, help, get).falling_if(true).exported(family, &[])
    }));
    let silent = Metric::new("silent.now", Unit::Attempts, SILENT_SENTENCE, |books: &TcpBooks| books.silent);
    all.push(silent.falling_if(true).exported(&series::SILENT, &[]));
    all
}

/// A verdict's figure, or those of its causes, as its table says.
fn of_verdict(verdict: Verdict) -> Vec<Metric<TcpBooks>> {
    let (name, row) = (verdict.name(), verdict.row());
    let whole = |name: String| {
        Metric::new(name, Unit::Attempts, verdict.sentence(), move |books: &TcpBooks| books.verdict(verdict))
            .falling_if(row.can_fall())
    };
    let by_cause = Cause::ALL.map(|cause| {
        let get = move |books: &TcpBooks| books.by_cause(verdict).of(cause);
        let metric = Metric::new(
            format!("{name}.{}", cause.name()),
            Unit::Attempts,
            cause.sentence(Seat::Between),
            get,
        )
        .falling_if(row.can_fall());
        match row.shown {
            Shown::NowAndByCause => metric.exported(&series::HALF_OPEN, &[cause.name()]),
            Shown::ByCause | Shown::Whole => metric.exported(&series::VERDICTS, &[name, cause.name()]),
        }
    });
    match row.shown {
        Shown::Whole => {
            let metric = whole(name.to_owned());
            let falls = row.entered.is_some();
            vec![match row.role {
                Role::ByAge => metric.exported(&series::OPENING, &[]),
                Role::End | Role::Term if falls => metric.exported(&series::STANDING, &[name]),
                Role::End | Role::Term | Role::Outside => metric.exported(&series::VERDICTS, &[name, ""]),
            }]
        }
        Shown::ByCause => by_cause.into(),
        Shown::NowAndByCause => [whole(format!("{name}.now"))].into_iter().chain(by_cause).collect(),
    }
}

fn latency(leg: Leg) -> Vec<Metric<Latency>> {
    let quantile = |name, help, get: fn(&crate::model::snapshot::Quantiles) -> u64| {
        Metric::optional(name, Unit::Nanoseconds, help, move |l: &Latency| l.quantiles.as_ref().map(get))
            .falling_if(true)
    };
    vec![
        Metric::new("count", Unit::Attempts, "attempts with a known time", |l: &Latency| l.count),
        Metric::new(
            "excluded",
            Unit::Attempts,
            "attempts without a usable time because of a retransmission or reordering (Karn's rule), or data before the final ACK",
            |l: &Latency| l.excluded,
        )
        .exported(&series::EXCLUDED, &[leg.name()]),
        quantile("p50_ns", "50 % of the times are at most this", |q| q.p50_ns),
        quantile("p90_ns", "90 % of the times are at most this", |q| q.p90_ns),
        quantile("p95_ns", "95 % of the times are at most this", |q| q.p95_ns),
        quantile("p99_ns", "99 % of the times are at most this", |q| q.p99_ns),
        quantile("p999_ns", "99.9 % of the times are at most this", |q| q.p999_ns),
        quantile("max_ns", "the longest time", |q| q.max_ns),
    ]
}

/// The time to connect over all attempts that had a chance.
fn connect_of_all() -> Vec<Metric<ConnectOfAll>> {
    let mut all = vec![
        Metric::new(
            "count",
            Unit::Attempts,
            "attempts that had a chance to connect: all but opening ones and those whose end or time is not known",
            |all: &ConnectOfAll| all.count,
        )
        .falling_if(true),
        Metric::new(
            "not_connected",
            Unit::Attempts,
            "attempts of these that are half-open or ended without a connection",
            |all: &ConnectOfAll| all.not_connected,
        )
        .falling_if(true),
    ];
    for (at, [known, known_help, least, least_help]) in OF_ALL.into_iter().enumerate() {
        let percentile = move |all: &ConnectOfAll| Some(all.percentiles?[at]);
        let known =
            Metric::optional(known, Unit::Nanoseconds, known_help, move |all| match percentile(all)? {
                Percentile::Known(ns) => Some(ns),
                Percentile::AtLeast(_) | Percentile::Never => None,
            });
        let least =
            Metric::optional(least, Unit::Nanoseconds, least_help, move |all| match percentile(all)? {
                Percentile::AtLeast(ns) => Some(ns),
                Percentile::Known(_) | Percentile::Never => None,
            });
        all.extend([known, least].map(|metric| metric.falling_if(true)));
    }
    all
}

fn udp() -> Vec<Metric<Snapshot>> {
    let books = udp_books().into_iter();
    let mut all: Vec<_> = books.map(|metric| metric.within("udp", |s: &Snapshot| &s.udp.books)).collect();
    let packets =
        Metric::new("udp.packets", Unit::Packets, series::UDP_PACKETS.help, |s: &Snapshot| s.udp.packets);
    all.push(packets.exported(&series::UDP_PACKETS, &[]));
    let bytes = "bytes of the flows' IP packets, including headers";
    let bytes = Metric::new("udp.bytes", Unit::Bytes, bytes, |s: &Snapshot| s.udp.bytes);
    all.push(bytes.exported(&series::UDP_BYTES, &[]));
    let entered = entries("udp", &UDP, |s, verdict| s.udp.entered(verdict)).into_iter();
    all.extend(entered.map(|(row, metric)| metric.exported(&series::UDP_VERDICTS, &[row.name])));
    all
}

/// Flows by how they stand, of all or of a service's.
fn udp_books() -> Vec<Metric<UdpBooks>> {
    let mut all = vec![
        Metric::new(
            "flows",
            Unit::Flows,
            "UDP flows by 5-tuple, from the first packet to --udp-idle after the last",
            |books: &UdpBooks| books.flows,
        )
        .exported(&series::UDP_FLOWS, &[]),
    ];
    all.extend(UdpVerdict::ALL.map(|verdict| {
        let get = move |books: &UdpBooks| books.verdict(verdict);
        let (name, falls) = (verdict.name(), verdict.row().can_fall());
        let family = if falls { &series::UDP_STANDING } else { &series::UDP_VERDICTS };
        Metric::new(name, Unit::Flows, verdict.sentence(), get).falling_if(falls).exported(family, &[name])
    }));
    all
}

fn table() -> Vec<Metric<Snapshot>> {
    let mut all = vec![
        Metric::new("table.slots", Unit::Records, series::TABLE_SLOTS.help, |s: &Snapshot| s.table.slots)
            .falling_if(true)
            .exported(&series::TABLE_SLOTS, &[]),
        Metric::new("table.used", Unit::Records, series::TABLE_USED.help, |s: &Snapshot| s.table.used)
            .falling_if(true)
            .exported(&series::TABLE_USED, &[]),
    ];
    for (at, (kind, _)) in EVICTIONS.iter().enumerate() {
        let metric = Metric::new(
            format!("table.evictions.{kind}"),
            Unit::Records,
            "records of this kind that were evicted for a new record of the same or a higher worth",
            move |s: &Snapshot| s.table.evictions[at],
        );
        all.push(metric.exported(&series::TABLE_EVICTIONS, &[*kind]));
    }
    let services = Metric::new(
        "services_evicted",
        Unit::Services,
        "services whose row another service took: their figures are in the row `other`",
        |s: &Snapshot| s.services_evicted,
    );
    all.push(services.exported(&series::SERVICES_EVICTED, &[]));
    all
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use handshake_common::verdict::{Cause, Leg, Sign, TCP, UdpVerdict, Verdict};
    use handshake_common::wire::Class;

    use super::series::{FAMILIES, Kind, Series};
    use super::{LATENCY, METRICS, PACKETS, REVISED, SERVICE, SERVICE_TIMES, Unit};

    #[test]
    fn names_are_unique_and_every_metric_has_a_sentence() {
        let names: BTreeSet<&str> = METRICS.iter().map(|metric| metric.name.as_str()).collect();
        assert_eq!(names.len(), METRICS.len());
        assert!(METRICS.iter().all(|metric| !metric.help.is_empty()));
    }

    #[test]
    fn every_verdict_cause_sign_class_and_leg_has_its_metric() {
        let mut expected = BTreeSet::new();
        for verdict in Verdict::ALL {
            let name = format!("tcp.{}", verdict.name());
            if matches!(verdict, Verdict::HalfOpen | Verdict::HalfOpenExpired) {
                expected.extend(Cause::ALL.map(|cause| format!("{name}.{}", cause.name())));
            } else {
                expected.insert(name);
            }
        }
        expected.extend(Sign::ALL.map(|sign| format!("tcp.signs.{}", sign.name())));
        let entered = TCP.iter().filter(|row| row.entered.is_some());
        expected.extend(entered.map(|row| format!("tcp.entered.{}", row.name)));
        expected.extend(Class::ALL.map(|class| format!("packets.{}", class.name())));
        expected.extend(UdpVerdict::ALL.map(|verdict| format!("udp.{}", verdict.name())));
        for leg in Leg::ALL {
            expected.extend(LATENCY.iter().map(|metric| format!("latency.{}.{}", leg.name(), metric.name)));
        }
        for name in expected {
            assert!(METRICS.iter().any(|metric| metric.name == name), "{name}");
        }
    }

    #[test]
    fn what_may_fall_is_no_counter() {
        let rises = |name: &str| METRICS.iter().find(|metric| metric.name == name).map(|metric| metric.rises);
        for name in ["tcp.attempts", "tcp.completed", "tcp.half_open_expired.no_ack", "tcp.entered.refused"] {
            assert_eq!(rises(name), Some(true), "{name}");
        }
        for name in ["tcp.refused", "tcp.opening", "tcp.half_open.now", "tcp.half_open.no_ack", "udp.pending"]
        {
            assert_eq!(rises(name), Some(false), "{name}");
        }
    }

    /// A series has one kind: what may fall is never exported as a counter, and no two figures share a series.
    #[test]
    fn what_is_exported_keeps_to_its_family() {
        let mut seen = BTreeSet::new();
        for metric in METRICS.iter().chain(REVISED.iter()) {
            let Some(series) = &metric.series else { continue };
            let Series { family, labels } = series;
            assert_eq!(family.labels.len(), labels.len(), "{}", metric.name);
            assert_eq!(family.kind == Kind::Counter, metric.rises, "{}", metric.name);
            assert!(seen.insert((family.name, labels.clone())), "{} shares its series", metric.name);
        }
        let exported: BTreeSet<&str> = seen.iter().map(|(name, _)| *name).collect();
        for family in FAMILIES {
            assert!(family.name.starts_with("handshake_"), "{}", family.name);
            assert_eq!(family.kind == Kind::Counter, family.name.ends_with("_total"), "{}", family.name);
            if let Some(of) = family.of_service {
                assert_eq!(of.kind, family.kind, "{}", of.name);
                assert!(of.labels[0] == "service" && exported.contains(family.name), "{}", of.name);
            }
            if let Some(of) = family.of_workload {
                assert_eq!(of.kind, Kind::Counter, "{}", of.name);
                assert!(of.labels.starts_with(&["workload", "side"]) && exported.contains(family.name));
            }
        }
        let names: BTreeSet<&str> =
            FAMILIES.iter().map(|family| family.name.trim_end_matches("_total")).collect();
        assert_eq!(
            names.len(),
            FAMILIES.len(),
            "OpenMetrics drops _total from the name of a counter's family"
        );
    }

    /// What no exporter shows, because it shows the same in another form.
    #[test]
    fn what_is_not_exported_is_known() {
        let hidden = METRICS.iter().filter(|metric| metric.series.is_none());
        let hidden: Vec<&str> = hidden.map(|metric| metric.name.as_str()).collect();
        let quantile = |name: &str| name.starts_with("latency.") && !name.ends_with(".excluded");
        let (quantiles, others): (Vec<&str>, Vec<&str>) = hidden.into_iter().partition(|name| quantile(name));
        assert!(quantiles.len() > Leg::ALL.len(), "the histograms have them");
        let expected = [
            // By `handshake_lost_total`.
            "contended",
            "lost_events",
            "lost_before_hook",
            // A difference of two readings of the same.
            "unsettled",
            // Sums of other series.
            "packets.total",
            "packets.ipv4",
            "packets.ipv6",
            // By `handshake_lost_total`.
            "packets.extension_chains",
            "packets.split_headers",
            // By its causes.
            "tcp.half_open.now",
            // By its entries.
            "tcp.orphan_syn_ack",
        ];
        assert_eq!(others, expected);
    }

    #[test]
    fn a_services_figures_are_called_as_the_reports() {
        let times = SERVICE_TIMES.iter().map(|metric| &metric.name);
        for name in SERVICE.iter().map(|metric| &metric.name).chain(times) {
            assert!(METRICS.iter().any(|metric| metric.name == *name), "{name}");
        }
    }

    #[test]
    fn a_raw_time_has_its_unit_in_the_name() {
        for metric in METRICS.iter() {
            assert_eq!(metric.unit == Unit::Nanoseconds, metric.name.ends_with("_ns"), "{}", metric.name);
        }
        assert!(PACKETS.iter().all(|metric| metric.unit == Unit::Packets));
    }
}
