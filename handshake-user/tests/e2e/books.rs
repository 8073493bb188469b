//! A report's books: what every report must satisfy, whatever it is of, and how two of them differ.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use handshake_lab::agent::Outcome;
pub(crate) use handshake_lab::books::check;
use handshake_lab::books::{self, ATTEMPTS};
use handshake_lab::tap::Tally;
use serde_json::Value;

/// The figure at `path` of a report: `tcp.half_open.now`.
///
/// # Panics
/// There is none.
pub(crate) fn figure(report: &Value, path: &str) -> u64 {
    books::figure(report, path).unwrap_or_else(|error| panic!("{error:#} in {report}"))
}

/// What holds beside that while nothing happens: what is read later than the books agrees with them.
///
/// # Errors
/// The first that does not hold.
pub(crate) fn check_at_rest(report: &Value) -> Result<()> {
    check(report)?;
    let equal = |what: &str, left: u64, right: u64| equal(report, what, left, right);
    equal("unsettled", figure(report, "unsettled"), 0)?;
    // A service's row has the verdicts without their causes.
    let mut verdicts = BTreeMap::from([("attempts", figure(report, "tcp.attempts"))]);
    for path in ATTEMPTS.iter() {
        *verdicts.entry(path.split('.').nth(1).unwrap_or(path)).or_default() += figure(report, path);
    }
    for (verdict, whole) in verdicts {
        equal(verdict, services(report, "tcp", verdict), whole)?;
    }
    equal("services' UDP flows", services(report, "udp", "flows"), figure(report, "udp.flows"))?;
    let known = books::sum(report, &["latency.connect.count", "latency.connect.excluded"])?;
    equal("times of completed attempts", known, figure(report, "tcp.completed"))
}

fn equal(report: &Value, what: &str, left: u64, right: u64) -> Result<()> {
    ensure!(left == right, "{what}: {left} is not {right} in {report}");
    Ok(())
}

/// `name` summed over the rows of `protocol`.
fn services(report: &Value, protocol: &str, name: &str) -> u64 {
    let rows = report["services"].as_array().into_iter().flatten();
    rows.filter(|row| row["protocol"] == protocol).map(|row| figure(row, name)).sum()
}

/// Checks every report of a run, and gives the last, which is one at rest.
///
/// # Errors
/// There is none, or one does not hold what [`check`] asks, the last what [`check_at_rest`] does.
pub(crate) fn balanced(outcome: &Outcome) -> Result<Value> {
    for value in outcome.values()?.iter().filter(|value| value["type"] == "report") {
        check(value)?;
    }
    let last = outcome.report()?;
    check_at_rest(&last)?;
    Ok(last)
}

/// A report's classes as the tap has them.
pub(crate) fn tally(packets: &Value) -> Tally {
    let of = |class| figure(packets, class);
    let other = ["tcp_other", "ip_other", "fragment", "non_ip", "truncated", "malformed"];
    Tally {
        syn: of("syn"),
        syn_ack: of("syn_ack"),
        ack: of("ack"),
        fin: of("fin"),
        rst: of("rst"),
        udp: of("udp"),
        icmp: of("icmp"),
        other: other.into_iter().map(of).sum(),
    }
}

/// Figures by path.
pub(crate) type Figures = BTreeMap<String, i64>;

/// All figures of `tcp` and `udp`.
pub(crate) fn figures(report: &Value) -> Figures {
    let mut all = Figures::new();
    for part in ["tcp", "udp"] {
        flatten(part, &report[part], &mut all);
    }
    all
}

fn flatten(path: &str, value: &Value, all: &mut Figures) {
    if let Some(object) = value.as_object() {
        object.iter().for_each(|(name, value)| flatten(&format!("{path}.{name}"), value, all));
    } else if let Some(number) = value.as_i64() {
        all.insert(path.to_owned(), number);
    }
}

/// What has changed from one report to another, figures that have not left out.
pub(crate) fn change(before: &Value, after: &Value) -> Figures {
    let mut change = figures(after);
    for (path, value) in figures(before) {
        *change.entry(path).or_default() -= value;
    }
    change.retain(|_, value| *value != 0);
    change
}

/// `figures` but for those at `paths`.
pub(crate) fn without(mut figures: Figures, paths: &[&str]) -> Figures {
    figures.retain(|path, _| !paths.contains(&path.as_str()));
    figures
}
