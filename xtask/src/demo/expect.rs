//! What the demo's traffic must come to, and whether it did.

use anyhow::{Context, Result};
use serde_json::Value;

/// How often the traffic of a [`Row`] is made.
pub(super) const ROUNDS: u8 = 5;

/// One kind of traffic.
pub(super) struct Row {
    /// How many in a round.
    pub(super) each: u8,
    /// What happens.
    what: &'static str,
    /// The figure of the report that it belongs to: a JSON pointer (RFC 6901).
    figure: &'static str,
}

/// Connections that are opened, used and closed.
pub(super) const COMPLETED: Row = Row { each: 3, what: "connect, talk, close", figure: "/tcp/completed" };
/// Connections to a port that nobody listens on.
pub(super) const REFUSED: Row = Row { each: 2, what: "connect to a closed port", figure: "/tcp/refused" };
/// Connections to a listener that drops every SYN.
pub(super) const NO_SYN_ACK: Row =
    Row { each: 1, what: "connect to a port that a firewall drops", figure: "/tcp/half_open/no_syn_ack" };
/// SYNs from addresses that nobody has.
pub(super) const NO_ACK: Row = Row {
    each: 2,
    what: "SYN from an address nobody has, SYN+ACK into the void",
    figure: "/tcp/half_open/no_ack",
};
/// Datagrams to an echo.
pub(super) const ANSWERED: Row = Row { each: 2, what: "UDP to an echo", figure: "/udp/answered" };
/// Datagrams to a service that says nothing.
pub(super) const UNANSWERED: Row =
    Row { each: 1, what: "UDP to a service that says nothing", figure: "/udp/unanswered" };
/// Datagrams to a port that nobody has opened.
pub(super) const UNREACHABLE: Row =
    Row { each: 1, what: "UDP to a closed port, ICMP back", figure: "/udp/unreachable" };

/// All of them.
const ROWS: [Row; 7] = [COMPLETED, REFUSED, NO_SYN_ACK, NO_ACK, ANSWERED, UNANSWERED, UNREACHABLE];

impl Row {
    /// How many in the whole demo.
    fn expected(&self) -> u64 {
        u64::from(self.each) * u64::from(ROUNDS)
    }

    /// The figure's name, as expressions and the documentation spell it.
    fn name(&self) -> String {
        self.figure.trim_start_matches('/').replace('/', ".")
    }
}

/// Says what is to come.
pub(super) fn announce() {
    println!("The traffic, and the verdicts it must come to:\n");
    for row in &ROWS {
        println!("  {:>3} × {:<54} {}", row.expected(), row.what, row.name());
    }
    println!();
}

/// Holds the last report against what was announced, figure by figure. Gives whether all is as it must be.
pub(super) fn compare(report: &Value) -> Result<bool> {
    let connections = ROWS.iter().filter(|row| row.figure.starts_with("/tcp"));
    let mut figures = vec![(
        "tcp.attempts".to_owned(),
        connections.map(Row::expected).sum(),
        number(report, "/tcp/attempts")?,
    )];
    for row in &ROWS {
        figures.push((row.name(), row.expected(), number(report, row.figure)?));
    }
    println!("\n  {:<25} {:>8} {:>8}", "verdict", "expected", "reported");
    for (name, expected, reported) in &figures {
        let remark = if expected == reported { "came" } else { "NOT AS EXPECTED" };
        println!("  {name:<25} {expected:>8} {reported:>8}  {remark}");
    }
    let exact = report["exact"] == true;
    println!("  the report is {}", if exact { "exact: nothing was lost" } else { "LOSSY" });
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
    fn every_figure_must_be_right_and_the_report_exact() {
        assert!(compare(&report(10, true)).expect("a whole report"));
        assert!(!compare(&report(9, true)).expect("a whole report"));
        assert!(!compare(&report(10, false)).expect("a whole report"));
    }

    #[test]
    fn a_report_without_a_figure_is_an_error() {
        let error = compare(&json!({"exact": true})).expect_err("nothing in it");
        assert!(error.to_string().contains("/tcp/attempts"), "{error}");
    }
}
