//! Holds what handshake reported against what was done and what the kernel counted, figure by figure.

use std::fmt::{self, Write};

use anyhow::Result;
use serde_json::Value;

use super::kernel::Account;
use super::memory::{Course, Memory};
use super::run::Seen;
use super::scenario::{Kind, Scenario, Target};
use super::truth::{Outcome, Truth, UdpOutcome};
use crate::books::{self, figure, sum};
use crate::tap::Tally;

/// A percentile of the report is the upper bound of a bucket, at most 1/16 above the truth.
const BUCKETS_PER_OCTAVE: u32 = 16;

/// What was expected beside what was reported.
#[derive(Debug)]
pub struct Comparison {
    rows: Vec<Row>,
}

/// One figure.
#[derive(Debug)]
struct Row {
    what: String,
    expected: Expected,
    reported: u64,
    /// Why the two accounts differ by what they do.
    because: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expected {
    Exactly(u64),
    Between(u64, u64),
}

impl fmt::Display for Expected {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exactly(number) => write!(formatter, "{number}"),
            Self::Between(least, most) if least == most => write!(formatter, "{least}"),
            Self::Between(least, most) => write!(formatter, "{least}..{most}"),
        }
    }
}

impl Row {
    /// Nothing where nothing was to be.
    fn is_silent(&self) -> bool {
        let zero = matches!(self.expected, Expected::Exactly(0) | Expected::Between(0, 0));
        zero && self.reported == 0
    }

    fn is_good(&self) -> bool {
        match self.expected {
            Expected::Exactly(number) => self.reported == number,
            Expected::Between(least, most) => (least..=most).contains(&self.reported),
        }
    }
}

impl Comparison {
    /// Of a whole run.
    pub(super) fn of(scenario: &Scenario, seen: &Seen) -> Result<Self> {
        let mut table = Self { rows: Vec::new() };
        let report = &seen.report;
        if report["exact"] == true {
            table.verdicts(&seen.truth, report)?;
            table.signs(scenario, &seen.account, &seen.truth, report)?;
            table.datagrams(&seen.truth, report)?;
            table.kernel(&seen.account, &seen.truth, report)?;
            table.cookies(scenario, &seen.account, report)?;
        } else {
            table.lossy(&seen.truth, &seen.account, report)?;
        }
        table.packets(seen)?;
        table.flood(scenario, seen);
        table.exact(scenario, seen);
        table.books(seen);
        table.memory(&seen.memory);
        table.exit(scenario, seen);
        Ok(table)
    }

    /// Is every figure as it must be?
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.rows.iter().all(Row::is_good)
    }

    fn exactly(&mut self, what: impl Into<String>, expected: u64, reported: u64) {
        self.explained(what, expected, reported, String::new());
    }

    fn explained(&mut self, what: impl Into<String>, expected: u64, reported: u64, because: String) {
        self.push(what, Expected::Exactly(expected), reported, because);
    }

    fn push(&mut self, what: impl Into<String>, expected: Expected, reported: u64, because: String) {
        self.rows.push(Row { what: what.into(), expected, reported, because });
    }

    /// Every attempt by its outcome, and none by another.
    fn verdicts(&mut self, truth: &Truth, report: &Value) -> Result<()> {
        self.exactly("tcp.attempts", truth.attempts(), figure(report, "tcp.attempts")?);
        for outcome in Outcome::ALL {
            let (what, paths) = reported_as(outcome);
            self.exactly(what, truth.of(outcome), sum(report, paths)?);
        }
        let outcomes = Outcome::ALL.map(|outcome| reported_as(outcome).1);
        let mut others = books::verdicts();
        others.retain(|path| !outcomes.iter().any(|paths| paths.contains(&path.as_str())));
        self.exactly("tcp, any other verdict", 0, sum(report, &others)?);
        let timed = sum(report, &["latency.connect.count", "latency.connect.excluded"])?;
        self.exactly("latency.connect, attempts", truth.of(Outcome::Completed), timed);
        self.longest(truth, report)
    }

    /// Where the connects were slowed down: at least by what the device takes, at most what the client waited.
    fn longest(&mut self, truth: &Truth, report: &Value) -> Result<()> {
        let Some([least, most]) = truth.longest else { return Ok(()) };
        let most = most + most / BUCKETS_PER_OCTAVE;
        let [least, most] = [least, most].map(|time| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
        let reported = figure(report, "latency.connect.max_ns")?;
        self.push("latency.connect.max_ns", Expected::Between(least, most), reported, String::new());
        Ok(())
    }

    /// What was sent again is what the kernels say they sent again.
    fn signs(&mut self, scenario: &Scenario, account: &Account, truth: &Truth, report: &Value) -> Result<()> {
        const NAME: &str = "TcpExtTCPSynRetrans";
        const SYN: &str = "tcp.signs.syn_retransmits";
        /// After the ACK it is another sign.
        const SYN_ACK: [&str; 2] = ["tcp.signs.syn_ack_retransmits", "tcp.signs.ack_ignored"];
        let (syn, syn_ack) = (figure(report, SYN)?, sum(report, &SYN_ACK)?);
        if account.is_one_host() {
            self.exactly("tcp.signs, sent again", account.both(NAME), syn + syn_ack);
        } else if scenario.flood().is_some() {
            let because = "what a flood pushed out of the device's ring reached no hook".to_owned();
            self.push(SYN, Expected::Between(0, account.client(NAME)), syn, because);
            self.exactly("tcp.signs, SYN+ACK sent again", account.server(NAME), syn_ack);
        } else {
            self.exactly(SYN, account.client(NAME), syn);
            self.exactly("tcp.signs, SYN+ACK sent again", account.server(NAME), syn_ack);
        }
        let others = ["tcp.signs.bad_syn_ack", "tcp.signs.bad_ack", "tcp.signs.revised"];
        self.exactly("tcp.signs, any of a fault", 0, sum(report, &others)?);
        self.ignored(scenario, truth, syn_ack, report)
    }

    /// A SYN+ACK that comes again after the ACK was ignored, or has crossed it: both ends send theirs again where the
    /// first SYN+ACK was lost.
    fn ignored(&mut self, scenario: &Scenario, truth: &Truth, again: u64, report: &Value) -> Result<()> {
        let crosses = scenario.traffic.iter().any(|traffic| matches!(traffic.kind, Kind::Retransmitting(_)));
        let expected = if crosses {
            Expected::Between(0, again)
        } else {
            Expected::Exactly(if truth.not_taken > 0 { again } else { 0 })
        };
        self.push("tcp.signs.ack_ignored", expected, figure(report, "tcp.signs.ack_ignored")?, String::new());
        Ok(())
    }

    fn datagrams(&mut self, truth: &Truth, report: &Value) -> Result<()> {
        self.exactly("udp.flows", truth.udp.values().sum(), figure(report, "udp.flows")?);
        for outcome in UdpOutcome::ALL {
            let (what, paths) = reported_as_udp(outcome);
            self.exactly(what, truth.of_udp(outcome), sum(report, paths)?);
        }
        self.exactly("udp.packets", truth.datagrams, figure(report, "udp.packets")?);
        self.exactly("udp.bytes", truth.bytes, figure(report, "udp.bytes")?);
        Ok(())
    }

    /// The kernel's counters against our figures; where the two count different things, by how much and why.
    fn kernel(&mut self, account: &Account, truth: &Truth, report: &Value) -> Result<()> {
        let ours = |path| figure(report, path);
        let apart = |counted: u64, count: u64, why: &str| match count {
            0 => String::new(),
            count => format!("{counted} counted; {count} {why}"),
        };
        let (active, passive) = (account.both("TcpActiveOpens"), account.both("TcpPassiveOpens"));
        self.explained(
            "kernel: ActiveOpens",
            active + truth.crafted,
            ours("tcp.attempts")?,
            apart(active, truth.crafted, "SYNs were sent by no socket"),
        );
        self.explained(
            "kernel: PassiveOpens",
            passive + truth.not_taken,
            ours("tcp.completed")?,
            apart(passive, truth.not_taken, "ACKs came and were not taken: the accept queue was full"),
        );
        self.failures(account, truth, report)?;
        let no_ports = account.server("UdpNoPorts") + account.server("Udp6NoPorts");
        self.exactly("kernel: UdpNoPorts", no_ports, ours("udp.unreachable")?);
        self.overflows(account, truth, report)
    }

    /// A RST in SYN-RECEIVED fails an attempt, too: one of the server's.
    fn failures(&mut self, account: &Account, truth: &Truth, report: &Value) -> Result<()> {
        const FAILED: [&str; 3] = ["tcp.refused", "tcp.unreachable", "tcp.initiator_aborted"];
        let (counted, noted) = (account.both("TcpAttemptFails"), truth.of(Outcome::Unreachable));
        let expected =
            if noted == 0 { Expected::Exactly(counted) } else { Expected::Between(counted, counted + noted) };
        let because =
            if noted == 0 { "" } else { "an ICMP error that finds its socket at work fails no attempt" };
        self.push("kernel: AttemptFails", expected, sum(report, &FAILED)?, because.to_owned());
        Ok(())
    }

    /// The kernel counts every segment that a full accept queue has dropped, and each time it is sent again.
    fn overflows(&mut self, account: &Account, truth: &Truth, report: &Value) -> Result<()> {
        let ours = if truth.overflows {
            let dropped = ["tcp.signs.syn_retransmits", "tcp.signs.ack_ignored"];
            truth.of(Outcome::NoSynAck) + truth.not_taken + sum(report, &dropped)?
        } else {
            0
        };
        let because = if truth.overflows { "SYNs and ACKs dropped, each time anew" } else { "" };
        for name in ["ListenOverflows", "ListenDrops"] {
            let counted = account.server(&format!("TcpExt{name}"));
            self.explained(format!("kernel: {name}"), counted, ours, because.to_owned());
        }
        Ok(())
    }

    /// A server that answers by SYN cookies alone has sent each SYN+ACK as one; another sends none.
    fn cookies(&mut self, scenario: &Scenario, account: &Account, report: &Value) -> Result<()> {
        let always = scenario.flood() == Some(Target::Listener);
        let ours = if always { figure(report, "packets.syn_ack")? } else { 0 };
        self.exactly("kernel: SyncookiesSent", account.server("TcpExtSyncookiesSent"), ours);
        Ok(())
    }

    /// When data was lost, verdicts are not the wire's. That every SYN is somewhere in the books still holds, and that
    /// nothing pushes out what has completed.
    fn lossy(&mut self, truth: &Truth, account: &Account, report: &Value) -> Result<()> {
        let syns = figure(report, "packets.syn")?;
        let met = sum(report, &["tcp.attempts", "tcp.signs.syn_retransmits", "untracked"])?;
        let contended = figure(report, "contended")?;
        let expected = Expected::Between(syns.saturating_sub(contended), syns);
        self.push("SYNs in the books or untracked", expected, met, String::new());
        let completed = truth.of(Outcome::Completed);
        let lost = contended + figure(report, "untracked")? + account.both("TcpExtTCPSynRetrans");
        let expected = Expected::Between(completed.saturating_sub(lost), completed);
        self.push("tcp.completed", expected, figure(report, "tcp.completed")?, String::new());
        Ok(())
    }

    /// Class by class what the wire carried at each interface, or what a flood's receiver counted.
    fn packets(&mut self, seen: &Seen) -> Result<()> {
        for (at, (device, wire)) in seen.wire.iter().enumerate() {
            let packets = &seen.report["source"]["interfaces"][at]["packets"];
            for (class, expected, paths) in classes(wire) {
                let reported = sum(packets, paths)?;
                if expected > 0 || reported > 0 {
                    self.exactly(format!("{device}: {class}"), expected, reported);
                }
            }
        }
        Ok(())
    }

    /// How many frames of a flood the hook has met.
    fn flood(&mut self, scenario: &Scenario, seen: &Seen) {
        let (made, reached) = (seen.truth.made, seen.flooded);
        if scenario.flood().is_some() {
            let rate = reached as f64 / seen.truth.made_in.as_secs_f64();
            let because = format!("of {made} made, {rate:.0} a second of CPU time");
            self.push("flood: frames at the hook", Expected::Between(1, made), reached, because);
        }
    }

    /// Nothing was lost, unless that is what the scenario is for, or a flood was more than this machine keeps.
    fn exact(&mut self, scenario: &Scenario, seen: &Seen) {
        const INCONCLUSIVE: i32 = 3;
        let (all, exact) = (seen.reports().count() as u64, |report: &&Value| report["exact"] == true);
        let expected = match scenario.exit {
            Some(INCONCLUSIVE) => Expected::Exactly(0),
            Some(_) | None if scenario.flood().is_some() => Expected::Between(0, all),
            Some(_) | None => Expected::Exactly(all),
        };
        let exact = seen.reports().filter(exact).count() as u64;
        self.push("reports that are exact", expected, exact, String::new());
    }

    /// Every report of the run balances.
    fn books(&mut self, seen: &Seen) {
        let results = || seen.reports().map(books::check);
        let because = results().find_map(Result::err).map(|error| format!("{error:#}"));
        let (all, balanced) = (results().count() as u64, results().filter(Result::is_ok).count() as u64);
        self.explained("reports that balance", all, balanced, because.unwrap_or_default());
    }

    fn memory(&mut self, memory: &[(&'static str, Memory)]) {
        for (who, memory) in memory {
            let Some(course) = memory.course() else { continue };
            let Course { over_time, early, late } = &course;
            let because = format!(
                "{over_time:?} KiB of its own over time; {} in the second quarter, {} in the last; \
                 with the mapped tables {} and {}",
                early.own, late.own, early.all, late.all
            );
            let flat = u64::from(course.is_flat());
            self.explained(format!("{who}: memory is flat"), 1, flat, because);
        }
    }

    fn exit(&mut self, scenario: &Scenario, seen: &Seen) {
        // Expectations on figures that are not the wire's are inconclusive; whether a flood fits the table is the machine's.
        let inconclusive = seen.report["exact"] != true && !scenario.expect.is_empty();
        let usual = if inconclusive && scenario.flood().is_some() { 3 } else { 0 };
        let expected = scenario.exit.unwrap_or(usual);
        // A code that is none (a signal) is not a number that could be expected.
        let [expected, code] = [expected, seen.code].map(|code| u64::try_from(code).unwrap_or(u64::MAX));
        self.exactly("exit code", expected, code);
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(formatter, "  {:<34} {:>24} {:>12}", "figure", "expected", "reported")?;
        let (silent, rows): (Vec<&Row>, Vec<&Row>) = self.rows.iter().partition(|row| row.is_silent());
        for row in rows {
            let remark = if row.is_good() { "ok" } else { "NOT AS EXPECTED" };
            let mut line =
                format!("  {:<34} {:>24} {:>12}  {remark}", row.what, row.expected.to_string(), row.reported);
            if !row.because.is_empty() {
                write!(line, ": {}", row.because)?;
            }
            writeln!(formatter, "{line}")?;
        }
        match silent.len() {
            0 => Ok(()),
            count => writeln!(formatter, "  and {count} figures that are 0, as expected"),
        }
    }
}

/// The figures that an outcome is reported as. One that stays open may have expired meanwhile.
const fn reported_as(outcome: Outcome) -> (&'static str, &'static [&'static str]) {
    match outcome {
        Outcome::Completed => ("tcp.completed", &["tcp.completed"]),
        Outcome::Refused => ("tcp.refused", &["tcp.refused"]),
        Outcome::Unreachable => ("tcp.unreachable", &["tcp.unreachable"]),
        Outcome::TakenBack => ("tcp.initiator_aborted", &["tcp.initiator_aborted"]),
        Outcome::NoSynAck => {
            ("tcp, half-open: no_syn_ack", &["tcp.half_open.no_syn_ack", "tcp.half_open_expired.no_syn_ack"])
        }
        Outcome::NoAck => {
            ("tcp, half-open: no_ack", &["tcp.half_open.no_ack", "tcp.half_open_expired.no_ack"])
        }
    }
}

const fn reported_as_udp(outcome: UdpOutcome) -> (&'static str, &'static [&'static str]) {
    match outcome {
        UdpOutcome::Answered => ("udp.answered", &["udp.answered"]),
        UdpOutcome::Unanswered => ("udp.unanswered", &["udp.unanswered", "udp.pending"]),
        UdpOutcome::Unreachable => ("udp.unreachable", &["udp.unreachable"]),
    }
}

/// A tally's classes, and what they are in an interface's packets.
fn classes(wire: &Tally) -> [(&'static str, u64, &'static [&'static str]); 8] {
    const OTHERS: [&str; 6] = ["tcp_other", "ip_other", "fragment", "non_ip", "truncated", "malformed"];
    [
        ("syn", wire.syn, &["syn"]),
        ("syn_ack", wire.syn_ack, &["syn_ack"]),
        ("ack", wire.ack, &["ack"]),
        ("fin", wire.fin, &["fin"]),
        ("rst", wire.rst, &["rst"]),
        ("udp", wire.udp, &["udp"]),
        ("icmp", wire.icmp, &["icmp"]),
        ("anything else", wire.other, &OTHERS),
    ]
}
