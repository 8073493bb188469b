//! The demo: traffic of every kind, the verdicts expected for it, and their comparison with the report.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::tcp::{self, Attempts, Listener};
use crate::topology::Path;
use crate::{interrupt, udp};

/// The pause between rounds of traffic.
pub const PAUSE: Duration = Duration::from_secs(2);
/// How long after the last round no attempt of it is new any more: `--half-open-after`, and a second.
pub const SETTLED: Duration = Duration::from_secs(4);

/// The number of rounds: how often the traffic of each [`ExpectedRow`] is sent.
pub const ROUNDS: u8 = 5;

/// One kind of traffic with its expected verdict.
#[derive(Debug)]
pub struct ExpectedRow {
    /// The number of connections, SYNs or UDP flows per round.
    pub each: u8,
    /// A description of the traffic.
    what: &'static str,
    /// The report's figure that counts it: a JSON pointer (RFC 6901).
    figure: &'static str,
}

/// Connections that are opened, used and closed.
pub const COMPLETED: ExpectedRow =
    ExpectedRow { each: 3, what: "connect, talk, close", figure: "/tcp/completed" };
/// Connections to a port without a listener.
pub const REFUSED: ExpectedRow =
    ExpectedRow { each: 2, what: "connect to a closed port", figure: "/tcp/refused" };
/// Connections to a listener that drops every SYN.
pub const NO_SYN_ACK: ExpectedRow = ExpectedRow {
    each: 1,
    what: "connect to a port that a firewall drops",
    figure: "/tcp/half_open/no_syn_ack",
};
/// SYNs from addresses without a host.
pub const NO_ACK: ExpectedRow = ExpectedRow {
    each: 2,
    what: "SYN from an address without a host, SYN+ACK lost",
    figure: "/tcp/half_open/no_ack",
};
/// Datagrams to an echo service.
pub const ANSWERED: ExpectedRow =
    ExpectedRow { each: 2, what: "UDP to an echo service", figure: "/udp/answered" };
/// Datagrams to a service that does not answer.
pub const UNANSWERED: ExpectedRow =
    ExpectedRow { each: 1, what: "UDP to a service that does not answer", figure: "/udp/unanswered" };
/// Datagrams to a closed port.
pub const UNREACHABLE: ExpectedRow =
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

/// Sockets that must stay open until the end: attempts under way, and the listeners they wait for.
pub type DemoSockets = (Vec<Attempts>, Vec<Listener>);

/// Sends all rounds, `pause` apart. The attempts stay under way until the returned sockets are dropped.
///
/// # Errors
/// Traffic does not end as it must.
pub fn traffic(path: &Path<'_>, pause: Duration) -> Result<DemoSockets> {
    let listener = Listener::new(path, 0, 128)?;
    let deaf = Listener::deaf(path, 0)?;
    let (mut attempts, mut listeners) = DemoSockets::default();
    let began = Instant::now();
    for round in 0..ROUNDS {
        interrupt::pause_until(began + pause * u32::from(round))?;
        let connections = tcp::connect_accept(path, &listener, COMPLETED.each.into())?;
        connections.talk(100)?;
        connections.close()?;
        tcp::refused(path, REFUSED.each.into())?;
        attempts.push(Attempts::start(path, deaf.address(), NO_SYN_ACK.each.into())?);
        // Each round has its own port: the same addresses and port would repeat the same attempts.
        let abandoned = Listener::new(path, 0, 128)?;
        tcp::syn_without_ack(path, abandoned.address(), NO_ACK.each)?;
        listeners.push(abandoned);
        udp::echo(path, ANSWERED.each.into(), 2, 100)?;
        udp::silence(path, UNANSWERED.each.into(), 1, 100)?;
        udp::closed(path, UNREACHABLE.each.into(), 100)?;
    }
    listeners.extend([listener, deaf]);
    Ok((attempts, listeners))
}

/// Prints the traffic to come and the expected verdicts.
pub fn announce() {
    println!("The traffic, and the verdicts expected for it:\n");
    for row in &ROWS {
        println!("  {:>3} × {:<54} {}", row.expected(), row.what, row.name());
    }
    println!();
}

/// Each figure's name, the number announced for it, and the one in a report.
fn figures(report: &Value) -> Result<Vec<(String, u64, u64)>> {
    let connections = ROWS.iter().filter(|row| row.figure.starts_with("/tcp"));
    let attempts = connections.map(ExpectedRow::expected).sum();
    let mut figures = vec![("tcp.attempts".to_owned(), attempts, number(report, "/tcp/attempts")?)];
    for row in &ROWS {
        figures.push((row.name(), row.expected(), number(report, row.figure)?));
    }
    Ok(figures)
}

/// The figures of a report that are not as announced.
///
/// # Errors
/// The report lacks a figure.
pub fn differences(report: &Value) -> Result<Vec<String>> {
    let differing = figures(report)?.into_iter().filter(|(_, expected, reported)| expected != reported);
    Ok(differing
        .map(|(name, expected, reported)| format!("{name} is {reported} instead of {expected}"))
        .collect())
}

/// Compares the last report with the announced verdicts, figure by figure. Returns whether all figures match
/// and the report is exact.
///
/// # Errors
/// The report lacks a figure.
pub fn compare(report: &Value) -> Result<bool> {
    let figures = figures(report)?;
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
