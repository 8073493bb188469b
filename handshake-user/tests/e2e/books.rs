//! Checks a report's figures against each other, and computes the difference of two reports.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use handshake_lab::agent::AgentOutcome;
pub(crate) use handshake_lab::books::check;
use handshake_lab::books::{self, ATTEMPTS};
use handshake_lab::tap::Tally;
use serde_json::Value;

/// The figure at `path` in a report, for example `tcp.half_open.now`.
///
/// # Panics
/// The report has no such figure.
pub(crate) fn figure(report: &Value, path: &str) -> u64 {
    books::figure(report, path).unwrap_or_else(|error| panic!("{error:#} in {report}"))
}

/// Checks what also holds while no packet arrives: figures read later than the counters agree with them.
///
/// # Errors
/// The first violation.
pub(crate) fn check_at_rest(report: &Value) -> Result<()> {
    check(report)?;
    let equal = |what: &str, left: u64, right: u64| equal(report, what, left, right);
    equal("unsettled", figure(report, "unsettled"), 0)?;
    // A service's row has the verdicts, but not their causes.
    let mut verdicts = BTreeMap::from([("attempts", figure(report, "tcp.attempts"))]);
    for path in ATTEMPTS.iter() {
        *verdicts.entry(path.split('.').nth(1).unwrap_or(path)).or_default() += figure(report, path);
    }
    for (verdict, whole) in verdicts {
        equal(verdict, services(report, "tcp", verdict), whole)?;
    }
    equal("services' UDP flows", services(report, "udp", "flows"), figure(report, "udp.flows"))?;
    for name in ["count", "excluded"] {
        let rows = report["services"].as_array().into_iter().flatten();
        let sum = rows.map(|row| row["latency"]["connect"][name].as_u64().unwrap_or(0)).sum();
        equal("services' times", sum, figure(report, &format!("latency.connect.{name}")))?;
    }
    let known = books::sum(report, &["latency.connect.count", "latency.connect.excluded"])?;
    equal("times of completed attempts", known, figure(report, "tcp.completed"))
}

fn equal(report: &Value, what: &str, left: u64, right: u64) -> Result<()> {
    ensure!(left == right, "{what}: {left} is not {right} in {report}");
    Ok(())
}

/// The sum of `name` over the rows of `protocol`.
fn services(report: &Value, protocol: &str, name: &str) -> u64 {
    let rows = report["services"].as_array().into_iter().flatten();
    rows.filter(|row| row["protocol"] == protocol).map(|row| figure(row, name)).sum()
}

/// Checks every report of a run, and returns the last, which must be at rest.
///
/// # Errors
/// There is no report, a report violates [`check`], or the last one violates [`check_at_rest`].
pub(crate) fn balanced(outcome: &AgentOutcome) -> Result<Value> {
    for value in outcome.values()?.iter().filter(|value| value["type"] == "report") {
        check(value)?;
    }
    let last = outcome.report()?;
    check_at_rest(&last)?;
    Ok(last)
}

/// A report's packet classes as a tap's tally.
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

/// Figures by their path.
pub(crate) type Figures = BTreeMap<String, i64>;

/// All figures of `tcp` and `udp` in a report, except how often verdicts were entered, which follows from the
/// verdicts, and whether the initiators of half-open attempts still wait, which the time of the report decides.
pub(crate) fn figures(report: &Value) -> Figures {
    let mut all = Figures::new();
    for part in ["tcp", "udp"] {
        flatten(part, &report[part], &mut all);
    }
    let is_told = |path: &str| {
        let patience = ["never_repeated", "waiting", "gave_up"];
        !path.contains(".entered.") && !patience.iter().any(|name| path.ends_with(name))
    };
    all.retain(|path, _| is_told(path));
    all
}

fn flatten(path: &str, value: &Value, all: &mut Figures) {
    if let Some(object) = value.as_object() {
        object.iter().for_each(|(name, value)| flatten(&format!("{path}.{name}"), value, all));
    } else if let Some(number) = value.as_i64() {
        all.insert(path.to_owned(), number);
    }
}

/// The changes from one report to another, without those that are 0.
pub(crate) fn change(before: &Value, after: &Value) -> Figures {
    let mut change = figures(after);
    for (path, value) in figures(before) {
        *change.entry(path).or_default() -= value;
    }
    change.retain(|_, value| *value != 0);
    change
}

/// `figures` without those at `paths`.
pub(crate) fn without(mut figures: Figures, paths: &[&str]) -> Figures {
    figures.retain(|path, _| !paths.contains(&path.as_str()));
    figures
}
