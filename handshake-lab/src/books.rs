//! Checks what holds in every report: its schema, the identities, the sum over packet classes, the sums over
//! interfaces, and that `exact` and `inexact` follow from the losses.

use std::sync::LazyLock;

use anyhow::{Context, Result, ensure};
use handshake_common::verdict::{Cause, Row, Shown, TCP, UDP, Verdict};
use handshake_common::wire::Class;
use serde_json::Value;

use crate::schema;

/// The terms that add up to `tcp.attempts`, as paths in a report.
pub static ATTEMPTS: LazyLock<Vec<String>> = LazyLock::new(|| terms("tcp", &TCP));
/// The terms that add up to `udp.flows`.
static FLOWS: LazyLock<Vec<String>> = LazyLock::new(|| terms("udp", &UDP));
/// The terms that add up to `tcp.half_open.now`.
static HALF_OPEN: LazyLock<Vec<String>> = LazyLock::new(|| paths("tcp", Verdict::HalfOpen.row()));
/// The classes that add up to `packets.total`.
static PACKETS: LazyLock<Vec<String>> =
    LazyLock::new(|| Class::ALL.map(|class| format!("packets.{}", class.name())).into());

fn terms<V: Copy>(protocol: &str, table: &[Row<V>]) -> Vec<String> {
    table.iter().filter(|row| row.is_term()).flat_map(|row| paths(protocol, row)).collect()
}

/// All TCP verdicts, also those outside the identity, as paths in a report.
#[must_use]
pub fn verdicts() -> Vec<String> {
    TCP.iter().flat_map(|row| paths("tcp", row)).collect()
}

/// The figures of a verdict, as paths in a report.
fn paths<V>(protocol: &str, row: &Row<V>) -> Vec<String> {
    let whole = format!("{protocol}.{}", row.name);
    match row.shown {
        Shown::Whole => vec![whole],
        Shown::ByCause | Shown::NowAndByCause => {
            Cause::ALL.map(|cause| format!("{whole}.{}", cause.name())).into()
        }
    }
}

/// The losses of every report. It is exact while all of these are 0, and a capture lacks nothing.
const LOSSES: [&str; 8] = [
    "tcp.untracked",
    "udp.untracked",
    "contended",
    "tcp.evicted",
    "udp.evicted",
    "lost_events",
    "lost_before_hook",
    "packets.split_headers",
];

/// The reasons for an inexact report that no figure of its own stands behind.
const WITHOUT_FIGURE: [&str; 4] = ["unreadable_counters", "missed_snapshot", "hook_lost", "interface_down"];

/// The figure at `path` in a report, for example `tcp.half_open.now`.
///
/// # Errors
/// The report has no such figure.
pub fn figure(report: &Value, path: &str) -> Result<u64> {
    let pointer = format!("/{}", path.replace('.', "/"));
    report.pointer(&pointer).and_then(Value::as_u64).with_context(|| format!("the report has no {path}"))
}

/// The sum of the figures at `paths`.
///
/// # Errors
/// The report lacks one of the figures.
pub fn sum(report: &Value, paths: &[impl AsRef<str>]) -> Result<u64> {
    paths.iter().map(|path| figure(report, path.as_ref())).sum()
}

/// Checks what holds in every report, even while packets arrive.
///
/// # Errors
/// The first violation.
pub fn check(report: &Value) -> Result<()> {
    schema::check(report)?;
    balances(report)
}

fn balances(report: &Value) -> Result<()> {
    let identities = [
        ("tcp.attempts", &*ATTEMPTS),
        ("tcp.half_open.now", &*HALF_OPEN),
        ("udp.flows", &*FLOWS),
        ("packets.total", &*PACKETS),
    ];
    for (whole, parts) in identities {
        let (left, right) = (figure(report, whole)?, sum(report, parts)?);
        ensure!(left == right, "{whole} is {left}, but its parts add up to {right} in {report}");
    }
    let reasons = report["inexact"].as_array().context("the report has no inexact")?;
    let told: u64 = reasons.iter().map(|reason| figure(reason, "count")).sum::<Result<_>>()?;
    let alone = reasons.iter().filter(|reason| WITHOUT_FIGURE.iter().any(|name| reason["reason"] == *name));
    let alone: u64 = alone.map(|reason| figure(reason, "count")).sum::<Result<_>>()?;
    let lost = sum(report, &LOSSES)? + lacks(&report["source"]) + alone;
    ensure!(report["exact"] == (lost == 0), "exact is {}, but the losses are {lost}", report["exact"]);
    ensure!(told == lost, "inexact has {told}, but the losses are {lost} in {report}");
    interfaces(report)
}

/// What a capture lacks: damage and a cut count 1, packets each.
fn lacks(source: &Value) -> u64 {
    let count = |value: &Value| value.as_u64().unwrap_or_else(|| value.as_bool().unwrap_or(false).into());
    let skipped = source["skipped"].as_array().map(Vec::as_slice).unwrap_or_default();
    let skipped = skipped.iter().map(|each| count(&each["packets"]));
    let names = ["damaged", "truncated", "dropped", "cut_headers"];
    skipped.chain(names.map(|name| count(&source[name]))).sum()
}

/// Checks that the interfaces' packets add up to the report's.
fn interfaces(report: &Value) -> Result<()> {
    let Some(interfaces) = report["source"]["interfaces"].as_array() else { return Ok(()) };
    let all = ["packets.total", "packets.ipv4", "packets.ipv6"];
    for path in PACKETS.iter().map(String::as_str).chain(all) {
        let parts: u64 = interfaces.iter().map(|interface| figure(interface, path)).sum::<Result<_>>()?;
        let whole = figure(report, path)?;
        ensure!(
            parts == whole,
            "{path}: the interfaces add up to {parts}, the report has {whole} in {report}"
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{ATTEMPTS, FLOWS, LOSSES, PACKETS, balances};
    use serde_json::{Value, json};

    /// A report whose figures are all 0.
    fn empty() -> Value {
        let mut report = json!({"exact": true, "inexact": []});
        let wholes = ["tcp.attempts", "tcp.half_open.now", "udp.flows", "packets.total"];
        parts().chain(wholes).for_each(|path| set(&mut report, path, 0));
        report
    }

    fn parts() -> impl Iterator<Item = &'static str> {
        ATTEMPTS.iter().chain(&*FLOWS).chain(&*PACKETS).map(String::as_str).chain(LOSSES)
    }

    fn set(report: &mut Value, path: &str, figure: u64) {
        let place = path.split('.').fold(report, |value, name| &mut value[name]);
        *place = json!(figure);
    }

    #[test]
    fn every_term_and_every_loss_is_checked() {
        balances(&empty()).expect("all zero");
        for path in parts() {
            let mut report = empty();
            set(&mut report, path, 1);
            assert!(balances(&report).is_err(), "{path}");
        }
    }

    #[test]
    fn a_capture_that_lacks_something_is_not_exact() {
        for (name, lack, count) in [
            ("damaged", json!(true), 1),
            ("dropped", json!(9), 9),
            ("skipped", json!([{"link_type": 9, "packets": 2}, {"link_type": 105, "packets": 3}]), 5),
        ] {
            let mut report = empty();
            report["source"][name] = lack;
            assert!(balances(&report).is_err(), "{name}: exact is true");
            report["exact"] = json!(false);
            assert!(balances(&report).is_err(), "{name}: inexact is empty");
            report["inexact"] = json!([{"count": count}]);
            balances(&report).expect(name);
        }
    }

    #[test]
    fn a_report_that_balances_passes() {
        let mut report = empty();
        for (path, figure) in
            [("tcp.attempts", 3), ("tcp.completed", 2), ("tcp.half_open.now", 1), ("tcp.half_open.no_ack", 1)]
        {
            set(&mut report, path, figure);
        }
        balances(&report).expect("3 = 2 + 1");
    }
}
