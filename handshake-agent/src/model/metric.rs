//! The table of metrics: name, unit, sentence and getter. JSON is written from it, and expectations find their
//! figures in it.
//!
//! A name is the figure's path in the JSON report. Names of verdicts, causes, signs, classes and
//! legs are those of `handshake-common`; the table is made from its enums, so none can be missing.

use std::sync::LazyLock;

use handshake_common::verdict::{
    Cause, Leg, Row, SILENT_SENTENCE, Seat, Shown, Sign, TCP, UDP, UdpVerdict, Verdict,
};
use handshake_common::wire::Class;

use crate::model::connect::{ConnectOfAll, Percentile, ServiceTimes};
use crate::model::loss;
use crate::model::snapshot::{EVICTIONS, Latency, Packets, ServiceBooks, Snapshot, TcpBooks, UdpBooks};

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
        Self { name: name.into(), unit, help, rises: true, get: Box::new(get) }
    }

    /// The same metric, as one that may fall.
    fn falling_if(self, falls: bool) -> Self {
        Self { rises: !falls, ..self }
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
        Metric { name, unit: self.unit, help: self.help, rises: self.rises, get }
    }
}

/// All figures of a report, in its order.
pub static METRICS: LazyLock<Vec<Metric<Snapshot>>> = LazyLock::new(|| {
    let mut all = losses();
    all.extend(packets().into_iter().map(|metric| metric.within("packets", |s: &Snapshot| &s.packets)));
    all.extend(tcp());
    for leg in Leg::ALL {
        let path = format!("latency.{}", leg.name());
        all.extend(latency().into_iter().map(|m| m.within(&path, move |s: &Snapshot| s.latency(leg))));
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
    let completed = latency().into_iter().map(|m| m.within(&path, |times: &ServiceTimes| &times.completed));
    let of_all = connect_of_all().into_iter();
    completed.chain(of_all.map(|m| m.within(CONNECT_OF_ALL, |times: &ServiceTimes| &times.of_all))).collect()
});

/// The figures of one leg.
pub static LATENCY: LazyLock<Vec<Metric<Latency>>> = LazyLock::new(latency);

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
        ),
        Metric::optional("extension_chains", Unit::Packets, loss::EXTENSION_CHAINS, |p: &Packets| {
            p.extension_chains
        }),
        Metric::optional("split_headers", Unit::Packets, loss::SPLIT_HEADERS, |p: &Packets| p.split_headers),
        Metric::optional(
            "copies",
            Unit::Packets,
            "SYNs and SYN+ACKs that the same hook saw less than 10 ms before. Look at: a mirror of both directions",
            |p: &Packets| p.copies,
        ),
    ];
    all.extend(Class::ALL.map(|class| {
        Metric::new(class.name(), Unit::Packets, class_help(class), move |p: &Packets| p.class(class))
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
            all.push(Metric::new(
                "tcp.late",
                Unit::Attempts,
                "completed more than --half-open-after after the first SYN",
                |s: &Snapshot| s.tcp.late,
            ));
        }
    }
    all.extend(Verdict::ALL.into_iter().filter(|verdict| !verdict.is_in_books()).map(|verdict| {
        let name = format!("tcp.{}", verdict.name());
        Metric::new(name, Unit::Flows, verdict.sentence(), move |s: &Snapshot| s.tcp.verdict(verdict))
            .falling_if(verdict.row().can_fall())
    }));
    all.extend(Sign::ALL.map(|sign| {
        let name = format!("tcp.signs.{}", sign.name());
        let unit = if matches!(sign, Sign::BadSynAck | Sign::BadAck | Sign::WasSilent) {
            Unit::Attempts
        } else {
            Unit::Packets
        };
        Metric::new(name, unit, sign.sentence(), move |s: &Snapshot| s.tcp.sign(sign))
    }));
    all.extend(entries("tcp", &TCP, |s, verdict| s.tcp.entered(verdict)));
    all
}

/// How often each verdict was entered that attempts or flows can leave again.
fn entries<V: Copy + Send + Sync>(
    protocol: &str,
    table: &[Row<V>],
    get: fn(&Snapshot, V) -> Option<u64>,
) -> Vec<Metric<Snapshot>> {
    let unit = if protocol == "tcp" { Unit::Attempts } else { Unit::Flows };
    let entered = table.iter().filter_map(|row| Some((row, row.entered?)));
    entered
        .map(|(row, entries)| {
            let (name, verdict) = (format!("{protocol}.entered.{}", row.name), row.verdict);
            Metric::optional(name, unit, entries.sentence, move |s: &Snapshot| get(s, verdict))
        })
        .collect()
}

/// The identity's terms, of all attempts or of a service's.
fn books() -> Vec<Metric<TcpBooks>> {
    type Of = fn(&TcpBooks) -> u64;
    let mut all = vec![Metric::new(
        "attempts",
        Unit::Attempts,
        "SYNs that began an attempt; each attempt has exactly one verdict",
        |books: &TcpBooks| books.attempts,
    )];
    all.extend(Verdict::ALL.into_iter().filter(|verdict| verdict.is_in_books()).flat_map(of_verdict));
    let patience: [(&str, &str, Of); 3] = [
        (
            "half_open.never_repeated",
            "half-open attempts whose SYN came once, though every stack repeats it within 3 s: forged sources, or clients that give up sooner",
            |books| books.never_repeated().total(),
        ),
        (
            "half_open.waiting",
            "half-open attempts whose initiator may still wait: its next SYN is not overdue",
            TcpBooks::waiting,
        ),
        (
            "half_open.gave_up",
            "half-open attempts whose next SYN is overdue: the initiator has given up",
            TcpBooks::gave_up,
        ),
    ];
    all.extend(
        patience.map(|(name, help, get)| Metric::new(name, Unit::Attempts, help, get).falling_if(true)),
    );
    let silent = Metric::new("silent.now", Unit::Attempts, SILENT_SENTENCE, |books: &TcpBooks| books.silent);
    all.push(silent.falling_if(true));
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
        Metric::new(format!("{name}.{}", cause.name()), Unit::Attempts, cause.sentence(Seat::Between), get)
            .falling_if(row.can_fall())
    });
    match row.shown {
        Shown::Whole => vec![whole(name.to_owned())],
        Shown::ByCause => by_cause.into(),
        Shown::NowAndByCause => [whole(format!("{name}.now"))].into_iter().chain(by_cause).collect(),
    }
}

fn latency() -> Vec<Metric<Latency>> {
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
        ),
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
    all.push(Metric::new(
        "udp.packets",
        Unit::Packets,
        "packets of UDP flows in both directions",
        |s: &Snapshot| s.udp.packets,
    ));
    all.push(Metric::new(
        "udp.bytes",
        Unit::Bytes,
        "bytes of the flows' IP packets, including headers",
        |s: &Snapshot| s.udp.bytes,
    ));
    all.extend(entries("udp", &UDP, |s, verdict| s.udp.entered(verdict)));
    all
}

/// Flows by how they stand, of all or of a service's.
fn udp_books() -> Vec<Metric<UdpBooks>> {
    let mut all = vec![Metric::new(
        "flows",
        Unit::Flows,
        "UDP flows by 5-tuple, from the first packet to --udp-idle after the last",
        |books: &UdpBooks| books.flows,
    )];
    all.extend(UdpVerdict::ALL.map(|verdict| {
        Metric::new(verdict.name(), Unit::Flows, verdict.sentence(), move |books: &UdpBooks| {
            books.verdict(verdict)
        })
        .falling_if(verdict.row().can_fall())
    }));
    all
}

fn table() -> Vec<Metric<Snapshot>> {
    let mut all = vec![
        Metric::new("table.slots", Unit::Records, "slots of the flow tables", |s: &Snapshot| s.table.slots)
            .falling_if(true),
        Metric::new("table.used", Unit::Records, "slots that hold a record", |s: &Snapshot| s.table.used)
            .falling_if(true),
    ];
    for (at, (kind, _)) in EVICTIONS.iter().enumerate() {
        all.push(Metric::new(
            format!("table.evictions.{kind}"),
            Unit::Records,
            "records of this kind that were evicted for a new record of the same or a higher worth",
            move |s: &Snapshot| s.table.evictions[at],
        ));
    }
    all.push(Metric::new(
        "services_evicted",
        Unit::Services,
        "services whose row another service took: their figures are in the row `other`",
        |s: &Snapshot| s.services_evicted,
    ));
    all
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use handshake_common::verdict::{Cause, Leg, Sign, TCP, UdpVerdict, Verdict};
    use handshake_common::wire::Class;

    use super::{LATENCY, METRICS, PACKETS, SERVICE, SERVICE_TIMES, Unit};

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
