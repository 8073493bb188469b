//! A report that was written as JSON, and the comparison of two of them.

use std::fs::File;
use std::io::{self, BufReader, ErrorKind, Read};
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use handshake_agent::model::metric::{SERVICE_TIMES, Unit};
use handshake_agent::owner::{Container, Owner, Pod, PodName};
use handshake_common::flow::Side;
use handshake_common::verdict::{FlowFlag, Sign};
use serde_json::{Deserializer, Value};

use super::evaluate::{Evidence, rate};
use super::expression::name::short;
use super::expression::{ExpressionTerm, Figure, Fraction, Services, ValueKind, Which};
use super::figures::{self, CountOfWorkload, Figures, FiguresAt, TIME, apply};
use super::measured::Measured;
use super::reason::Reason;

/// The schema that is read.
const SCHEMA: u64 = 1;

/// A report that was written as JSON by `watch`, `check`, `replay` or the live terminal.
#[derive(Debug)]
pub(crate) struct SavedReport {
    /// Where it was read from, as named on the command line.
    pub(crate) path: String,
    object: Value,
}

impl SavedReport {
    /// Reads the last report of a file; `-` is standard input.
    ///
    /// # Errors
    ///
    /// Those of the file system; the file is no JSON or has no report, or one of a schema that is not known.
    pub(crate) fn read(path: &Path) -> io::Result<Self> {
        let shown = path.display().to_string();
        if shown == "-" {
            Self::last_of(io::stdin().lock(), shown)
        } else {
            Self::last_of(File::open(path)?, shown)
        }
    }

    /// Takes the last report out of what was written.
    ///
    /// # Errors
    ///
    /// As [`read`](Self::read).
    pub(crate) fn last_of(from: impl Read, path: String) -> io::Result<Self> {
        let wrong = |what: String| io::Error::new(ErrorKind::InvalidData, what);
        let mut last = None;
        for value in Deserializer::from_reader(BufReader::new(from)).into_iter::<Value>() {
            let value = value.map_err(|error| match error.classify() {
                serde_json::error::Category::Io => error.into(),
                serde_json::error::Category::Syntax
                | serde_json::error::Category::Data
                | serde_json::error::Category::Eof => wrong(format!("it is no JSON: {error}")),
            })?;
            if value["type"] == "report" {
                last = Some(value);
            }
        }
        let object = last.ok_or_else(|| {
            wrong("there is no report in it: handshake writes one with -o json or --report".to_owned())
        })?;
        match object["schema"].as_u64() {
            Some(SCHEMA) => Ok(Self { path, object }),
            other => Err(wrong(format!(
                "it is of schema {}, and schema {SCHEMA} is read",
                other.map_or_else(|| "?".to_owned(), |schema| schema.to_string())
            ))),
        }
    }

    /// Whether every verdict is the wire's.
    pub(crate) fn is_exact(&self) -> bool {
        self.object["exact"] == true
    }

    /// Whether no attempt and no UDP flow was seen.
    pub(crate) fn is_empty(&self) -> bool {
        ["tcp.attempts", "udp.flows"].iter().all(|path| self.figure(path).unwrap_or(0) == 0)
    }

    /// A time of day, as it was written.
    pub(crate) fn time(&self, name: &str) -> &str {
        self.object[name].as_str().unwrap_or_default()
    }

    /// A time of day, ns since the Unix epoch.
    pub(crate) fn time_ns(&self, name: &str) -> Option<u64> {
        let time = humantime::parse_rfc3339(self.time(name)).ok()?;
        u64::try_from(time.duration_since(UNIX_EPOCH).ok()?.as_nanos()).ok()
    }

    /// How long it counted, ns.
    pub(crate) fn length_ns(&self) -> u64 {
        let times = self.time_ns("from").zip(self.time_ns("to"));
        times.map_or(0, |(from, to)| to.saturating_sub(from))
    }

    fn value(&self, term: &ExpressionTerm) -> Result<Measured, Reason> {
        match term {
            ExpressionTerm::Rate(of) => rate((self.value(of)?, self.length_ns())),
            ExpressionTerm::Pair(left, operation, right) => {
                apply(self.value(left)?, *operation, (self.value(right)?, right), self)
            }
            ExpressionTerm::Constant(_)
            | ExpressionTerm::Figure(_)
            | ExpressionTerm::Change(..)
            | ExpressionTerm::Of(..) => figures::value(term, self),
        }
    }
}

impl Figures for SavedReport {
    fn figure(&self, path: &str) -> Option<u64> {
        at(&self.object, path)
    }

    fn by_service(&self, figure: &Figure) -> Result<Vec<(Option<SocketAddr>, u64)>, Reason> {
        let unknown = || Reason::Unknown(figure.to_string());
        let (protocol, fields) = fields(figure);
        let rows = self.object["services"].as_array().ok_or_else(unknown)?;
        let rows = rows.iter().filter(|row| row["protocol"] == protocol);
        rows.map(|row| Ok((socket(row), count(row, &fields).ok_or_else(unknown)?))).collect()
    }

    fn by_workload(&self, figure: &Figure) -> Result<Vec<CountOfWorkload>, Reason> {
        let unknown = || Reason::Unknown(figure.to_string());
        let (_, fields) = fields(figure);
        let Some(rows) = self.object["workloads"].as_array() else {
            let is_empty = self.figure("tcp.attempts").unwrap_or(0) == 0;
            return if is_empty { Ok(Vec::new()) } else { Err(Reason::NoOwner(figure.to_string())) };
        };
        let rows = rows.iter().map(|row| {
            let count = count(row, &fields).ok_or_else(unknown)?;
            let side = Side::BOTH.into_iter().find(|side| row["side"] == side.name());
            Ok(CountOfWorkload { owner: owner(&row["owner"]).map(Arc::new), side, count })
        });
        rows.collect()
    }

    /// Of several services only the counts have a sum: their times are not in the report.
    fn times_of_services(&self, services: &Services, figure: &Figure) -> Result<[FiguresAt; 2], Reason> {
        let unknown = || Reason::Unknown(figure.to_string());
        let rows = self.object["services"].as_array().ok_or_else(unknown)?;
        let tcp = || rows.iter().filter(|row| row["protocol"] == "tcp");
        let chosen: Vec<&Value> =
            tcp().filter(|row| socket(row).is_some_and(|service| services.take(service))).collect();
        let others: Vec<&Value> = tcp().filter(|row| socket(row).is_none()).collect();
        if chosen.len() > 1 && figure.metrics.iter().any(|path| path.ends_with(TIME)) {
            return Err(unknown());
        }
        Ok([times(&chosen).ok_or_else(unknown)?, times(&others).ok_or_else(unknown)?])
    }
}

/// The protocol of the rows that have a figure, and the fields that it is the sum of there. Rows have the sum of
/// the causes, and only the busiest ones are there.
fn fields(figure: &Figure) -> (&'static str, Vec<&str>) {
    let name = short(&figure.name);
    let name = name.strip_suffix(".now").unwrap_or(name);
    let name = name.strip_prefix("signs.").unwrap_or(name);
    let (protocol, field) = name.strip_prefix("udp.").map_or(("tcp", name), |field| ("udp", field));
    // A short name may be a sum.
    let silent = [FlowFlag::Silent.name(), Sign::WasSilent.name()];
    let is_sum = figure.metrics.len() == 2 && field == silent[0];
    (protocol, if is_sum { silent.to_vec() } else { vec![field] })
}

/// The sum of these fields of a row.
fn count(row: &Value, fields: &[&str]) -> Option<u64> {
    fields.iter().map(|field| row[*field].as_u64()).sum()
}

/// The owner of a row, as it was written.
fn owner(object: &Value) -> Option<Owner> {
    let text = |field: &str| object[field].as_str().map(str::to_owned);
    let container = text("container_id").map(|id| {
        // Without a name the id stands in its place.
        let name = text("container").filter(|name| !id.starts_with(name));
        Container { id, runtime: None, name }
    });
    let name = text("pod").zip(text("namespace")).map(|(name, namespace)| PodName { namespace, name });
    let pod = text("pod_uid").map(|uid| Pod { uid, name });
    Some(Owner { cgroup: text("cgroup")?, unit: text("unit"), container, pod })
}

/// The times to connect of services together; `None` where a report of an earlier version does not have them.
fn times(rows: &[&Value]) -> Option<FiguresAt> {
    let mut times = FiguresAt::new();
    for row in rows {
        row.get("latency")?;
        for metric in SERVICE_TIMES.iter().filter(|metric| rows.len() == 1 || metric.unit == Unit::Attempts) {
            if let Some(figure) = at(row, &metric.name) {
                let sum = times.entry(metric.name.clone()).or_default();
                *sum = sum.saturating_add(figure);
            }
        }
    }
    Some(times)
}

/// The number at a path of an object.
fn at(object: &Value, path: &str) -> Option<u64> {
    path.split('.').try_fold(object, |value, name| value.get(name))?.as_u64()
}

fn socket(row: &Value) -> Option<SocketAddr> {
    let address: IpAddr = row["address"].as_str()?.parse().ok()?;
    Some(SocketAddr::new(address, u16::try_from(row["port"].as_u64()?).ok()?))
}

/// Two reports.
#[derive(Debug)]
pub(crate) struct Comparison {
    /// The first one.
    pub(crate) old: SavedReport,
    /// The second one, whose figures stand for themselves.
    pub(crate) new: SavedReport,
}

impl Comparison {
    /// The value of a term in one of them.
    ///
    /// # Errors
    ///
    /// The reason for which it is unavailable.
    pub(crate) fn of(&self, which: Which, term: &ExpressionTerm) -> Result<Measured, Reason> {
        match which {
            Which::Old => self.old.value(term),
            Which::New => self.new.value(term),
        }
    }

    /// The change of a value of this kind.
    ///
    /// # Errors
    ///
    /// The reason for which it is unavailable.
    pub(crate) fn change(&self, of: &ExpressionTerm, kind: ValueKind) -> Result<Measured, Reason> {
        let (old, new) = (self.old.value(of)?, self.new.value(of)?);
        if kind == ValueKind::Share {
            return new.minus(old).ok_or(Reason::TooLarge);
        }
        let zero = Some(Fraction::ZERO);
        match (old.known() == zero, new.known() == zero) {
            (true, true) => Ok(Measured::exactly(Fraction::ZERO)),
            // From 0, every rise is past every limit.
            (true, false) => Ok(Measured::NEVER),
            (false, _) => {
                let one = Measured::exactly(1_u64.into());
                new.over(old).and_then(|ratio| ratio.minus(one)).ok_or(Reason::TooLarge)
            }
        }
    }

    /// The first one of which `wanted` holds.
    fn first(&self, wanted: impl Fn(&SavedReport) -> bool) -> Option<&SavedReport> {
        [&self.old, &self.new].into_iter().find(|report| wanted(report))
    }

    /// The path of one in which nothing ran.
    pub(crate) fn empty(&self) -> Option<&str> {
        self.first(SavedReport::is_empty).map(|report| report.path.as_str())
    }
}

impl Evidence for Comparison {
    fn value(&self, term: &ExpressionTerm) -> Result<Measured, Reason> {
        match term {
            ExpressionTerm::Change(of, kind) => self.change(of, *kind),
            ExpressionTerm::Of(which, of) => self.of(*which, of),
            ExpressionTerm::Pair(left, operation, right) => {
                apply(self.value(left)?, *operation, (self.value(right)?, right), &self.new)
            }
            ExpressionTerm::Constant(_) | ExpressionTerm::Figure(_) | ExpressionTerm::Rate(_) => {
                self.new.value(term)
            }
        }
    }

    fn rise(&self, of: &ExpressionTerm) -> Result<(Measured, u64), Reason> {
        Ok((self.new.value(of)?, self.new.length_ns()))
    }

    fn report(&self) -> &dyn Figures {
        &self.new
    }

    fn doubt(&self) -> Option<Reason> {
        self.first(|report| !report.is_exact()).map(|report| Reason::InexactReport(report.path.clone()))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use serde_json::{Value, json};

    use super::{Comparison, SavedReport};
    use crate::check::{Evidence as _, Expectation, Judged, Judgement, Reason, Scope};

    /// A report with these figures of `tcp` and of `latency.connect_of_all`.
    pub(crate) fn saved(path: &str, exact: bool, tcp: &Value, connect: &Value) -> SavedReport {
        let report = json!({
            "type": "report", "schema": 1, "exact": exact,
            "from": "2026-03-01T12:03:41.000000000Z", "to": "2026-03-01T12:03:51.000000000Z",
            "tcp": tcp, "latency": {"connect_of_all": connect}, "udp": {"flows": 0},
            "services": [
                {
                    "address": "10.0.0.2", "port": 443, "protocol": "tcp", "attempts": 9, "half_open_expired": 4,
                    "silent": 1, "was_silent": 2,
                    "latency": {
                        "connect": {"count": 5, "p99_ns": 60},
                        "connect_of_all": {"count": 9, "not_connected": 4, "p50_ns": 50},
                    },
                },
                {"address": "10.0.0.2", "port": 53, "protocol": "udp", "flows": 7},
                {
                    "other": true, "protocol": "tcp", "attempts": 3, "half_open_expired": 0,
                    "silent": 0, "was_silent": 0,
                    "latency": {"connect": {"count": 0}, "connect_of_all": {"count": 0, "not_connected": 0}},
                },
            ],
            "workloads": [
                {
                    "owner": {
                        "cgroup": "/kubepods.slice/x", "container": "web", "container_id": "0123456789abcdef",
                        "pod": "web-1", "namespace": "shop", "pod_uid": "u-1",
                    },
                    "side": "responder", "attempts": 9, "half_open_expired": 4, "silent": 1, "was_silent": 2,
                },
                {
                    "owner": {"cgroup": "/x", "container": "fedcba987654", "container_id": "fedcba9876543210"},
                    "side": "initiator", "attempts": 2, "half_open_expired": 0, "silent": 0, "was_silent": 0,
                },
                {"attempts": 3, "half_open_expired": 0, "silent": 0, "was_silent": 0},
            ],
        });
        SavedReport::last_of(report.to_string().as_bytes(), path.to_owned()).expect("it is a report")
    }

    pub(crate) fn comparison() -> Comparison {
        let old = json!({"attempts": 1_000, "completed": 1_000, "refused": 0, "superseded": 0, "late": 10});
        let new = json!({"attempts": 1_000, "completed": 984, "refused": 16, "superseded": 0, "late": 12});
        Comparison {
            old: saved(
                "old.json",
                true,
                &old,
                &json!({"count": 1_000, "not_connected": 0, "p50_ns": 60, "p99_ns": 100, "p999_ns": 200}),
            ),
            new: saved(
                "new.json",
                true,
                &new,
                &json!({"count": 1_000, "not_connected": 16, "p50_ns": 70, "p99_at_least_ns": 400}),
            ),
        }
    }

    /// Two reports whose times to connect of all attempts are these.
    pub(crate) fn comparison_of(old: &Value, new: &Value) -> Comparison {
        let tcp = json!({"attempts": 100, "completed": 10});
        Comparison { old: saved("old.json", true, &tcp, old), new: saved("new.json", true, &tcp, new) }
    }

    fn judged(comparison: &Comparison, text: &str) -> Judgement {
        let expectation = Expectation::parse(text, "--expect", Scope::TwoReports);
        let expectation = expectation.unwrap_or_else(|wrong| panic!("{wrong}"));
        Judged::by(comparison, &expectation).judgement
    }

    #[test]
    fn the_last_report_is_read() {
        let read = |text: &str| SavedReport::last_of(text.as_bytes(), "x".to_owned());
        let lines = "{\"type\":\"report\",\"schema\":1,\"tcp\":{\"attempts\":1}}\n{\"type\":\"flow\"}\n\
                     {\n\"type\":\"report\",\n\"schema\":1,\"tcp\":{\"attempts\":2}}\n{\"type\":\"flow\"}";
        let report = read(lines).expect("there are two");
        assert_eq!(super::Figures::figure(&report, "tcp.attempts"), Some(2));
        for (text, said) in [
            ("{\"type\":\"flow\"}", "there is no report in it"),
            ("", "there is no report in it"),
            ("handshake · eth0", "it is no JSON"),
            ("{\"type\":\"report\",\"schema\":1", "it is no JSON"),
            ("{\"type\":\"report\",\"schema\":2}", "it is of schema 2, and schema 1 is read"),
        ] {
            let wrong = read(text).expect_err(text).to_string();
            assert!(wrong.starts_with(said), "{text}: {wrong}");
        }
    }

    #[test]
    fn changes_are_judged() {
        let table = [
            ("change(attempts) == 0%", Some(true)),
            ("change(completed) >= -1.6%", Some(true)),
            ("change(completed) >= -1.5%", Some(false)),
            ("change(completed / attempts) == -1.6%", Some(true)),
            ("change(late) <= 20%", Some(true)),
            ("change(late) < 0.2", Some(false)),
            ("change(refused) < 1000%", Some(false)),
            ("change(superseded) == 0", Some(true)),
            ("change(p50(connect)) < 20%", Some(true)),
            ("change(p99(connect)) <= 20%", Some(false)),
            ("change(p99(connect)) <= 1000%", None),
            ("change(rate(completed)) < 0%", Some(true)),
            ("old(refused) == 0", Some(true)),
            ("new(refused) - old(refused) == 16", Some(true)),
            ("refused == 16", Some(true)),
            ("rate(completed) == 98.4/s", Some(true)),
            ("udp.flows{port=53} == 7", Some(true)),
            ("half_open_expired{port=443} == 4", Some(true)),
            ("silent{port=443} == 3", Some(true)),
            ("signs.was_silent{port=443} == 2", Some(true)),
            ("p50(connect{port=443}) == 50ns", Some(true)),
            ("p99(connect{port=443}) < 1h", Some(false)),
            ("p99(connect of completed{port=443}) == 60ns", Some(true)),
            ("count(connect{port=1-1000}) == 5", Some(true)),
            ("silent{pod=shop/web-1,side=responder} == 3", Some(true)),
            ("half_open_expired{container=web,side=responder} == 4", Some(true)),
            ("attempts{container=fedcba987654} >= 2", Some(true)),
            // A container without a name may be this one.
            ("attempts{container=web,side=initiator} <= 5", Some(true)),
            ("attempts{container=web,side=initiator} > 5", Some(false)),
            ("half_open_expired{cgroup=/x} == 0", Some(true)),
        ];
        for (text, met) in table {
            let expected = match met {
                Some(true) => Judgement::Met,
                Some(false) => Judgement::Failed,
                None => Judgement::Inconclusive(Reason::Undecided),
            };
            assert_eq!(judged(&comparison(), text), expected, "{text}");
        }
    }

    #[test]
    fn what_a_report_does_not_have_is_inconclusive() {
        let table = [
            ("change(p90(connect)) < 1%", None),
            ("change(tcp.unreachable) < 1%", Some(Reason::Unknown("tcp.unreachable".to_owned()))),
            ("attempts{pod=web-1} == 9", Some(Reason::Unowned("attempts{pod=web-1}".to_owned()))),
            ("attempts{port=443} == 9", Some(Reason::Folded("attempts{port=443}".to_owned()))),
            (
                "half_open_expired.no_ack{port=443} == 4",
                Some(Reason::Unknown("half_open_expired.no_ack{port=443}".to_owned())),
            ),
            ("change(p50(syn_to_syn_ack)) < 1%", Some(Reason::NoSample("p50(syn_to_syn_ack)".to_owned()))),
        ];
        for (text, reason) in table {
            let expected = Judgement::Inconclusive(reason.unwrap_or(Reason::Undecided));
            assert_eq!(judged(&comparison(), text), expected, "{text}");
        }
        let mut inexact = comparison();
        inexact.old = saved("old.json", false, &json!({"attempts": 0}), &json!({"count": 0}));
        let reason = Reason::InexactReport("old.json".to_owned());
        assert_eq!(judged(&inexact, "attempts == 1000"), Judgement::Inconclusive(reason.clone()));
        assert_eq!((inexact.doubt(), inexact.empty()), (Some(reason), Some("old.json")));
    }
}
