//! The verdicts expected for the demo's traffic, and their comparison with the report.

use anyhow::{Context, Result};
use serde_json::Value;

/// The number of rounds: how often the traffic of each [`ExpectedRow`] is sent.
pub(super) const ROUNDS: u8 = 5;

/// One kind of traffic with its expected verdict.
pub(super) struct ExpectedRow {
    /// The number of connections, SYNs or UDP flows per round.
    pub(super) each: u8,
    /// A description of the traffic.
    what: &'static str,
    /// The report's figure that counts it: a JSON pointer (RFC 6901).
    figure: &'static str,
}

/// Connections that are opened, used and closed.
pub(super) const COMPLETED: ExpectedRow =
    ExpectedRow { each: 3, what: "connect, talk, close", figure: "/tcp/completed" };
/// Connections to a port without a listener.
pub(super) const REFUSED: ExpectedRow =
    ExpectedRow { each: 2, what: "connect to a closed port", figure: "/tcp/refused" };
/// Connections to a listener that drops every SYN.
pub(super) const NO_SYN_ACK: ExpectedRow = ExpectedRow {
    each: 1,
    what: "connect to a port that a firewall drops",
    figure: "/tcp/half_open/no_syn_ack",
};
/// SYNs from addresses without a host.
pub(super) const NO_ACK: ExpectedRow = ExpectedRow {
    each: 2,
    what: "SYN from an address without a host, SYN+ACK lost",
    figure: "/tcp/half_open/no_ack",
};
/// Datagrams to an echo service.
pub(super) const ANSWERED: ExpectedRow =
    ExpectedRow { each: 2, what: "UDP to an echo service", figure: "/udp/answered" };
/// Datagrams to a service that does not answer.
pub(super) const UNANSWERED: ExpectedRow =
    ExpectedRow { each: 1, what: "UDP to a service that does not answer", figure: "/udp/unanswered" };
/// Datagrams to a closed port.
pub(super) const UNREACHABLE: ExpectedRow =
    ExpectedRow { each: 1, what: "UDP to a closed port, ICMP back", figure: "/udp/unreachable" };

/// All kinds of traffic, in the order of the tables.
const ROWS: [ExpectedRow; 7] = [COMPLETED, REFUSED, NO_SYN_ACK, NO_ACK, ANSWERED, UNANSWERED, UNREACHABLE];

impl ExpectedRow {
    /// The number expected over all rounds.
    fn expected(&self) -> u64 {
        u64::from(self.each) * u64::from(ROUNDS)
    }

    /// The figure's name, as expressions and the documentation spell it: `tcp.half_open.no_ack`.
    fn name(&self) -> String {
        self.figure.trim_start_matches('/').replace('/', ".")
    }
}

/// Prints the traffic to come and the expected verdicts.
pub(super) fn announce() {
    println!("The traffic, and the verdicts expected for it:\n");
    for row in &ROWS {
        println!("  {:>3} × {:<54} {}", row.expected(), row.what, row.name());
    }
    println!();
}

/// Compares the last report with the announced verdicts, figure by figure. Returns whether all figures match
/// and the report is exact.
pub(super) fn compare(report: &Value) -> Result<bool> {
    let connections = ROWS.iter().filter(|row| row.figure.starts_with("/tcp"));
    let mut figures = vec![(
        "tcp.attempts".to_owned(),
        connections.map(ExpectedRow::expected).sum(),
        number(report, "/tcp/attempts")?,
    )];
    for row in &ROWS {
        figures.push((row.name(), row.expected(), number(report, row.figure)?));
    }
    println!("\n  {:<25} {:>8} {:>8}", "verdict", "expected", "reported");
    for (name, expected, reported) in &figures {
        let remark = if expected == reported { "ok" } else { "NOT AS EXPECTED" };
        println!("  {name:<25} {expected:>8} {reported:>8}  {remark}");
    }
    let exact = report["exact"] == true;
    println!("  the report is {}", if exact { "exact: nothing was lost" } else { "INEXACT: data was lost" });
    Ok(exact && figures.iter().all(|(_, expected, reported)| expected == reported))
}

fn number(report: &Value, pointer: &str) -> Result<u64> {
    report.pointer(pointer).and_then(Value::as_u64).with_context(|| format!("the report has no {pointer}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn report(no_ack: u64, exact: bool) -> Value {
        json!({
            "exact": exact,
            "tcp": {"attempts": 40, "completed": 15, "refused": 10, "half_open": {"no_syn_ack": 5, "no_ack": no_ack}},
            "udp": {"answered": 10, "unanswered": 5, "unreachable": 5},
        })
    }

    #[test]
    fn every_figure_must_match_and_the_report_be_exact() {
        assert!(compare(&report(10, true)).expect("a whole report"));
        assert!(!compare(&report(9, true)).expect("a whole report"));
        assert!(!compare(&report(10, false)).expect("a whole report"));
    }

    #[test]
    fn a_report_without_a_figure_is_an_error() {
        let error = compare(&json!({"exact": true})).expect_err("the report has no figures");
        assert!(error.to_string().contains("/tcp/attempts"), "{error}");
    }
}
