//! A report's books: what every report must satisfy, whatever it is of, and how two of them differ.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use serde_json::Value;
use xtask::lab::agent::Outcome;
use xtask::lab::tap::Tally;

/// The terms of the identity, by their paths in a report.
const TERMS: [&str; 11] = [
    "tcp.completed",
    "tcp.refused",
    "tcp.unreachable",
    "tcp.initiator_aborted",
    "tcp.responder_aborted",
    "tcp.superseded",
    "tcp.half_open_expired.no_synack",
    "tcp.half_open_expired.no_ack",
    "tcp.evicted",
    "tcp.opening",
    "tcp.half_open.now",
];
/// The terms of the UDP flows.
const UDP_TERMS: [&str; 6] =
    ["udp.answered", "udp.unanswered", "udp.unreachable", "udp.multicast", "udp.pending", "udp.evicted"];
/// Every packet is in exactly one of these.
const CLASSES: [&str; 13] = [
    "syn",
    "syn_ack",
    "ack",
    "fin",
    "rst",
    "tcp_other",
    "udp",
    "icmp",
    "ip_other",
    "fragment",
    "non_ip",
    "truncated",
    "malformed",
];
/// While all of these are 0, a report is exact.
const LOSSES: [&str; 6] =
    ["untracked", "contended", "tcp.evicted", "udp.evicted", "lost_events", "lost_before_hook"];

/// The figure at `path` of a report: `tcp.half_open.now`.
///
/// # Panics
/// There is none.
pub(crate) fn figure(report: &Value, path: &str) -> u64 {
    let pointer = format!("/{}", path.replace('.', "/"));
    let value = report.pointer(&pointer).and_then(Value::as_u64);
    value.unwrap_or_else(|| panic!("no figure {path} in {report}"))
}

fn sum(report: &Value, paths: &[&str]) -> u64 {
    paths.iter().map(|path| figure(report, path)).sum()
}

/// What holds in every report, also while packets arrive: the identities, each packet in one class, the interfaces'
/// packets adding up, and `exact` saying what the losses say.
///
/// # Errors
/// The first that does not hold.
pub(crate) fn check(report: &Value) -> Result<()> {
    let equal = |what: &str, left: u64, right: u64| equal(report, what, left, right);
    equal("the identity", figure(report, "tcp.attempts"), sum(report, &TERMS))?;
    let open = sum(report, &["tcp.half_open.no_synack", "tcp.half_open.no_ack"]);
    equal("half-open by cause", figure(report, "tcp.half_open.now"), open)?;
    equal("UDP flows", figure(report, "udp.flows"), sum(report, &UDP_TERMS))?;
    let classes: Vec<String> = CLASSES.iter().map(|class| format!("packets.{class}")).collect();
    let classes: Vec<&str> = classes.iter().map(String::as_str).collect();
    equal("packets by class", figure(report, "packets.total"), sum(report, &classes))?;
    ensure!(report["exact"] == (sum(report, &LOSSES) == 0), "exact is {} in {report}", report["exact"]);
    interfaces(report)
}

/// What holds beside that while nothing happens: what is read later than the books agrees with them.
///
/// # Errors
/// The first that does not hold.
pub(crate) fn check_at_rest(report: &Value) -> Result<()> {
    check(report)?;
    let equal = |what: &str, left: u64, right: u64| equal(report, what, left, right);
    equal("unsettled", figure(report, "unsettled"), 0)?;
    for path in TERMS.iter().chain(&["tcp.attempts"]) {
        // A service's row has the verdicts without their causes.
        let whole = match *path {
            "tcp.half_open_expired.no_synack" => sum(report, &TERMS[6..8]),
            "tcp.half_open_expired.no_ack" => continue,
            _ => figure(report, path),
        };
        equal(path, services(report, "tcp", path.split('.').nth(1).unwrap_or(path)), whole)?;
    }
    equal("services' UDP flows", services(report, "udp", "flows"), figure(report, "udp.flows"))?;
    let known = sum(report, &["latency.connect.count", "latency.connect.excluded"]);
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

/// The interfaces' packets are the report's.
fn interfaces(report: &Value) -> Result<()> {
    let Some(interfaces) = report["source"]["interfaces"].as_array() else { return Ok(()) };
    for class in CLASSES.iter().chain(&["total", "ipv4", "ipv6"]) {
        let parts: u64 = interfaces.iter().map(|interface| figure(&interface["packets"], class)).sum();
        let whole = figure(&report["packets"], class);
        ensure!(parts == whole, "{class}: the interfaces have {parts}, all {whole} in {report}");
    }
    Ok(())
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
