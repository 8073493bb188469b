//! What every report must hold, whatever it is of: the identities, each packet in one class, the interfaces' packets adding
//! up, and `exact` saying what the losses say.

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// The terms of the identity of attempts, by their paths in a report.
pub const ATTEMPTS: [&str; 12] = [
    "tcp.completed",
    "tcp.refused",
    "tcp.unreachable",
    "tcp.initiator_aborted",
    "tcp.responder_aborted",
    "tcp.superseded",
    "tcp.half_open_expired.no_syn_ack",
    "tcp.half_open_expired.no_ack",
    "tcp.evicted",
    "tcp.opening",
    "tcp.half_open.no_syn_ack",
    "tcp.half_open.no_ack",
];
/// The terms of UDP flows.
const FLOWS: [&str; 6] =
    ["udp.answered", "udp.unanswered", "udp.unreachable", "udp.multicast", "udp.pending", "udp.evicted"];
/// Every packet is in one of these.
const PACKETS: [&str; 13] = [
    "packets.syn",
    "packets.syn_ack",
    "packets.ack",
    "packets.fin",
    "packets.rst",
    "packets.tcp_other",
    "packets.udp",
    "packets.icmp",
    "packets.ip_other",
    "packets.fragment",
    "packets.non_ip",
    "packets.truncated",
    "packets.malformed",
];
/// A report is exact while all of these are 0.
const LOSSES: [&str; 6] =
    ["untracked", "contended", "tcp.evicted", "udp.evicted", "lost_events", "lost_before_hook"];

/// The figure at `path` of a report: `tcp.half_open.now`.
///
/// # Errors
/// There is none.
pub fn figure(report: &Value, path: &str) -> Result<u64> {
    let pointer = format!("/{}", path.replace('.', "/"));
    report.pointer(&pointer).and_then(Value::as_u64).with_context(|| format!("the report has no {path}"))
}

/// Several of them together.
///
/// # Errors
/// One is not there.
pub fn sum(report: &Value, paths: &[&str]) -> Result<u64> {
    paths.iter().map(|path| figure(report, path)).sum()
}

/// What holds in every report, also while packets arrive.
///
/// # Errors
/// The first that does not hold.
pub fn check(report: &Value) -> Result<()> {
    let identities = [
        ("tcp.attempts", &ATTEMPTS[..]),
        ("tcp.half_open.now", &ATTEMPTS[10..]),
        ("udp.flows", &FLOWS),
        ("packets.total", &PACKETS),
    ];
    for (whole, parts) in identities {
        let (left, right) = (figure(report, whole)?, sum(report, parts)?);
        ensure!(left == right, "{whole} is {left}, its parts come to {right} in {report}");
    }
    let lost = sum(report, &LOSSES)?;
    ensure!(report["exact"] == (lost == 0), "exact is {}, with losses of {lost}", report["exact"]);
    interfaces(report)
}

/// The interfaces' packets are the report's.
fn interfaces(report: &Value) -> Result<()> {
    let Some(interfaces) = report["source"]["interfaces"].as_array() else { return Ok(()) };
    for path in PACKETS.iter().chain(&["packets.total", "packets.ipv4", "packets.ipv6"]) {
        let parts: u64 = interfaces.iter().map(|interface| figure(interface, path)).sum::<Result<_>>()?;
        let whole = figure(report, path)?;
        ensure!(parts == whole, "{path}: the interfaces have {parts}, all {whole} in {report}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{ATTEMPTS, FLOWS, LOSSES, PACKETS, check};
    use serde_json::{Value, json};

    /// A report in which every figure is 0.
    fn empty() -> Value {
        let mut report = json!({"exact": true});
        let wholes = ["tcp.attempts", "tcp.half_open.now", "udp.flows", "packets.total"];
        for path in ATTEMPTS.iter().chain(&FLOWS).chain(&PACKETS).chain(&LOSSES).chain(&wholes) {
            set(&mut report, path, 0);
        }
        report
    }

    fn set(report: &mut Value, path: &str, figure: u64) {
        let place = path.split('.').fold(report, |value, name| &mut value[name]);
        *place = json!(figure);
    }

    #[test]
    fn every_term_and_every_loss_is_missed() {
        check(&empty()).expect("all zero");
        for path in ATTEMPTS.iter().chain(&FLOWS).chain(&PACKETS).chain(&LOSSES) {
            let mut report = empty();
            set(&mut report, path, 1);
            assert!(check(&report).is_err(), "{path}");
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
        check(&report).expect("3 = 2 + 1");
    }
}
