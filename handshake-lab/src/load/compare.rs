//! Compares handshake's figures with the traffic made and with the kernel's counters.

use std::fmt::{self, Write};
use std::net::SocketAddr;

use anyhow::Result;
use serde_json::Value;

use super::kernel::KernelAccount;
use super::memory::{AgentMemory, MemoryTrend};
use super::run::RunObservation;
use super::scenario::{FloodOf, Scenario, TrafficKind, TrafficTarget};
use super::truth::{KnownOutcome, Truth, UdpOutcome};
use crate::books::{self, figure, sum};
use crate::flood::SCANNED;
use crate::tap::Tally;

/// A percentile in the report is the upper bound of a bucket, at most 1/16 above the true value.
const BUCKETS_PER_OCTAVE: u32 = 16;

/// The expected and the reported figures of a run.
#[derive(Debug)]
pub struct FigureComparison {
    rows: Vec<FigureRow>,
}

/// One figure of the comparison.
#[derive(Debug)]
struct FigureRow {
    what: String,
    expected: Expected,
    reported: u64,
    /// An explanation of the difference between the accounts; may be empty.
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

impl FigureRow {
    /// Whether both the expected and the reported figure are 0.
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

impl FigureComparison {
    /// Compares a whole run.
    pub(super) fn of(scenario: &Scenario, seen: &RunObservation) -> Result<Self> {
        let mut table = Self { rows: Vec::new() };
        let report = &seen.report;
        if scenario.other_flood().is_some() {
            table.beside(scenario, &seen.truth, report)?;
            table.listed(&seen.truth, &seen.watched);
        } else if report["exact"] == true {
            table.verdicts(&seen.truth, report)?;
            table.signs(scenario, &seen.account, &seen.truth, report)?;
            table.datagrams(&seen.truth, report)?;
            table.kernel(&seen.account, &seen.truth, report)?;
            table.cookies(scenario, &seen.account, report)?;
        } else {
            table.inexact(&seen.truth, &seen.account, report)?;
        }
        table.starts(scenario, &seen.started)?;
        table.packets(seen)?;
        table.flood(scenario, seen);
        table.exact(scenario, seen);
        table.books(seen);
        table.memory(&seen.memory);
        table.exit(scenario, seen);
        Ok(table)
    }

    /// Whether every figure is as expected.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.rows.iter().all(FigureRow::is_good)
    }

    fn exactly(&mut self, what: impl Into<String>, expected: u64, reported: u64) {
        self.explained(what, expected, reported, String::new());
    }

    fn explained(&mut self, what: impl Into<String>, expected: u64, reported: u64, because: String) {
        self.push(what, Expected::Exactly(expected), reported, because);
    }

    fn push(&mut self, what: impl Into<String>, expected: Expected, reported: u64, because: String) {
        self.rows.push(FigureRow { what: what.into(), expected, reported, because });
    }

    /// The number of attempts with each outcome, and that no other verdict occurs.
    fn verdicts(&mut self, truth: &Truth, report: &Value) -> Result<()> {
        const MIDSTREAM: &str = "tcp.midstream";
        self.exactly("tcp.attempts", truth.attempts(), figure(report, "tcp.attempts")?);
        for outcome in KnownOutcome::ALL {
            let (what, paths) = reported_as(outcome);
            self.exactly(what, truth.of(outcome), sum(report, paths)?);
        }
        let outcomes = KnownOutcome::ALL.map(|outcome| reported_as(outcome).1);
        let mut others = books::verdicts();
        others.retain(|path| path != MIDSTREAM);
        others.retain(|path| !outcomes.iter().any(|paths| paths.contains(&path.as_str())));
        self.exactly("tcp, any other verdict", 0, sum(report, &others)?);
        let evicted = ["completed", "closed", "midstream"].map(|kind| format!("table.evictions.{kind}"));
        let expected = Expected::Between(0, sum(report, &evicted)?);
        self.push(MIDSTREAM, expected, figure(report, MIDSTREAM)?, "evicted connections continue".to_owned());
        let timed = sum(report, &["latency.connect.count", "latency.connect.excluded"])?;
        self.exactly("latency.connect, attempts", truth.of(KnownOutcome::Completed), timed);
        self.longest(truth, report)
    }

    /// Bounds of the longest connect for slowed-down traffic: at least the device's time, at most the
    /// client's wait.
    fn longest(&mut self, truth: &Truth, report: &Value) -> Result<()> {
        let Some([least, most]) = truth.longest else { return Ok(()) };
        let most = most + most / BUCKETS_PER_OCTAVE;
        let [least, most] = [least, most].map(|time| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
        let reported = figure(report, "latency.connect.max_ns")?;
        self.push("latency.connect.max_ns", Expected::Between(least, most), reported, String::new());
        Ok(())
    }

    /// The retransmissions match the kernel's counters.
    fn signs(
        &mut self,
        scenario: &Scenario,
        account: &KernelAccount,
        truth: &Truth,
        report: &Value,
    ) -> Result<()> {
        const NAME: &str = "TcpExtTCPSynRetrans";
        const SYN: &str = "tcp.signs.syn_retransmits";
        /// After the ACK, a retransmitted SYN+ACK is another sign.
        const SYN_ACK: [&str; 2] = ["tcp.signs.syn_ack_retransmits", "tcp.signs.ack_ignored"];
        let (syn, syn_ack) = (figure(report, SYN)?, sum(report, &SYN_ACK)?);
        // A SYN+ACK that answers a SYN sent again may follow the timer's within 10 ms: it is taken for a
        // copy.
        let syn_ack_again = syn_ack + figure(report, "packets.copies")?;
        if account.is_one_host() {
            self.exactly("tcp.signs, sent again", account.both(NAME), syn + syn_ack_again);
        } else if scenario.flood().is_some() {
            let because = "segments that a flood evicted from the device's ring reached no hook".to_owned();
            self.push(SYN, Expected::Between(0, account.client(NAME)), syn, because);
            self.exactly("tcp.signs, SYN+ACK sent again", account.server(NAME), syn_ack_again);
        } else {
            self.exactly(SYN, account.client(NAME), syn);
            self.exactly("tcp.signs, SYN+ACK sent again", account.server(NAME), syn_ack_again);
        }
        let others = ["tcp.signs.bad_syn_ack", "tcp.signs.bad_ack", "tcp.signs.revised"];
        self.exactly("tcp.signs, any fault", 0, sum(report, &others)?);
        self.ignored(scenario, truth, syn_ack, report)
    }

    /// A SYN+ACK is retransmitted after the ACK if the ACK was ignored, or if the two crossed: both ends
    /// retransmit if the first SYN+ACK was lost.
    fn ignored(&mut self, scenario: &Scenario, truth: &Truth, again: u64, report: &Value) -> Result<()> {
        let crosses =
            scenario.traffic.iter().any(|traffic| matches!(traffic.kind, TrafficKind::Retransmitting(_)));
        let expected = if crosses {
            Expected::Between(0, again)
        } else {
            Expected::Exactly(if truth.ignored_acks > 0 { again } else { 0 })
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

    /// The kernel's counters match the report; where the two count different things, the difference is
    /// explained.
    fn kernel(&mut self, account: &KernelAccount, truth: &Truth, report: &Value) -> Result<()> {
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
            passive + truth.ignored_acks,
            ours("tcp.completed")?,
            apart(passive, truth.ignored_acks, "ACKs were ignored: the accept queue was full"),
        );
        self.failures(account, truth, report)?;
        let no_ports = account.server("UdpNoPorts") + account.server("Udp6NoPorts");
        self.exactly("kernel: UdpNoPorts", no_ports, ours("udp.unreachable")?);
        self.overflows(account, truth, report)
    }

    /// A RST in SYN-RECEIVED also counts as a failed attempt, at the server.
    fn failures(&mut self, account: &KernelAccount, truth: &Truth, report: &Value) -> Result<()> {
        const FAILED: [&str; 3] = ["tcp.refused", "tcp.unreachable", "tcp.initiator_aborted"];
        let (counted, noted) = (account.both("TcpAttemptFails"), truth.of(KnownOutcome::Unreachable));
        let expected =
            if noted == 0 { Expected::Exactly(counted) } else { Expected::Between(counted, counted + noted) };
        let because =
            if noted == 0 { "" } else { "an ICMP error that finds its socket busy fails no attempt" };
        self.push("kernel: AttemptFails", expected, sum(report, &FAILED)?, because.to_owned());
        Ok(())
    }

    /// The kernel counts every segment that a full accept queue drops, including retransmissions.
    fn overflows(&mut self, account: &KernelAccount, truth: &Truth, report: &Value) -> Result<()> {
        let ours = if truth.overflows {
            let dropped = ["tcp.signs.syn_retransmits", "tcp.signs.ack_ignored"];
            truth.of(KnownOutcome::NoSynAck) + truth.ignored_acks + sum(report, &dropped)?
        } else {
            0
        };
        let because = if truth.overflows { "SYNs and ACKs dropped, retransmissions included" } else { "" };
        for name in ["ListenOverflows", "ListenDrops"] {
            let counted = account.server(&format!("TcpExt{name}"));
            self.explained(format!("kernel: {name}"), counted, ours, because.to_owned());
        }
        Ok(())
    }

    /// A server with SYN cookies always on sends every SYN+ACK as a cookie; any other server sends none.
    fn cookies(&mut self, scenario: &Scenario, account: &KernelAccount, report: &Value) -> Result<()> {
        let always = scenario.flood() == Some(TrafficTarget::Listener);
        let ours = if always { figure(report, "packets.syn_ack")? } else { 0 };
        self.exactly("kernel: SyncookiesSent", account.server("TcpExtSyncookiesSent"), ours);
        Ok(())
    }

    /// Beside a flood at least 99 of 100 handshakes are tracked and judged, and every SYN is in the books.
    fn beside(&mut self, scenario: &Scenario, truth: &Truth, report: &Value) -> Result<()> {
        self.syns_are_counted(report)?;
        // A scan may come to the port of the handshakes as well, once each time that it goes through the
        // ports.
        let is_scan = scenario.other_flood() == Some(FloodOf::Scan);
        let found = if is_scan { truth.made.div_ceil(u64::from(SCANNED)) } else { 0 };
        for (address, made) in &truth.services {
            let row = service(report, address);
            for (name, found) in [("attempts", found), ("completed", 0)] {
                let reported = row.and_then(|row| row[name].as_u64()).unwrap_or_default();
                let expected = Expected::Between((made * 99).div_ceil(100), made + found);
                self.push(format!("handshakes: {name}"), expected, reported, String::new());
            }
        }
        Ok(())
    }

    /// The services in use are listed by name in every report from the third on, and so is the flooded one.
    fn listed(&mut self, truth: &Truth, reports: &[Value]) {
        const SETTLED: usize = 2;
        let later = reports.get(SETTLED..).unwrap_or_default();
        self.push(
            "reports from the third on",
            Expected::Between(1, u64::MAX),
            later.len() as u64,
            String::new(),
        );
        for (what, address) in
            truth.services.keys().map(|at| ("own", at)).chain(truth.flooded.iter().map(|at| ("flooded", at)))
        {
            let listed = later.iter().filter(|report| service(report, address).is_some()).count();
            self.exactly(format!("reports that list the {what} service"), later.len() as u64, listed as u64);
        }
    }

    /// From its start on, an agent sees each handshake from its SYN on, or counts it as midstream.
    fn starts(&mut self, scenario: &Scenario, reports: &[Value]) -> Result<()> {
        let (mut seeing, mut wrong, mut because) = (0, 0, String::new());
        for report in reports {
            let attempts = figure(report, "tcp.attempts")?;
            seeing += u64::from(attempts > 0);
            let others = attempts - sum(report, &["tcp.completed", "tcp.opening"])?;
            if others > 0 {
                wrong += others;
                because = format!("{}: {}", report["source"], report["tcp"]);
            }
        }
        self.exactly("starts that saw attempts", scenario.starts.into(), seeing);
        self.explained("starts: attempts judged wrongly", 0, wrong, because);
        Ok(())
    }

    /// If data was lost, the verdicts do not match the wire. Two statements still hold: every SYN is counted
    /// somewhere, and no completed attempt was evicted.
    fn inexact(&mut self, truth: &Truth, account: &KernelAccount, report: &Value) -> Result<()> {
        self.syns_are_counted(report)?;
        let contended = figure(report, "contended")?;
        let completed = truth.of(KnownOutcome::Completed);
        let lost = contended + figure(report, "tcp.untracked")? + account.both("TcpExtTCPSynRetrans");
        let expected = Expected::Between(completed.saturating_sub(lost), completed);
        self.push("tcp.completed", expected, figure(report, "tcp.completed")?, String::new());
        Ok(())
    }

    /// Every SYN is an attempt or one of its repeats, unless another CPU held its record.
    fn syns_are_counted(&mut self, report: &Value) -> Result<()> {
        let syns = figure(report, "packets.syn")?;
        let met = sum(
            report,
            &["tcp.attempts", "tcp.signs.syn_retransmits", "tcp.signs.foreign_syn", "packets.copies"],
        )?;
        let contended = figure(report, "contended")?;
        let expected = Expected::Between(syns.saturating_sub(contended), syns);
        self.push("SYNs in the books or untracked", expected, met, String::new());
        Ok(())
    }

    /// The packets of each class at each interface match the wire, or the census in case of a flood.
    fn packets(&mut self, seen: &RunObservation) -> Result<()> {
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

    /// The number of a flood's frames that reached the hook.
    fn flood(&mut self, scenario: &Scenario, seen: &RunObservation) {
        let (made, reached) = (seen.truth.made, seen.flooded);
        if scenario.floods() {
            let rate = reached as f64 / seen.truth.made_in.as_secs_f64();
            let because = format!("of {made} made, {rate:.0} per second of CPU time");
            self.push("flood: frames at the hook", Expected::Between(1, made), reached, because);
        }
    }

    /// The report is exact, unless the scenario is meant to lose data or a flood exceeds the machine's
    /// capacity.
    fn exact(&mut self, scenario: &Scenario, seen: &RunObservation) {
        const INCONCLUSIVE: i32 = 3;
        let (all, exact) = (seen.reports().count() as u64, |report: &&Value| report["exact"] == true);
        let expected = match scenario.exit {
            Some(INCONCLUSIVE) => Expected::Exactly(0),
            Some(_) | None if scenario.floods() => Expected::Between(0, all),
            Some(_) | None => Expected::Exactly(all),
        };
        let exact = seen.reports().filter(exact).count() as u64;
        self.push("reports that are exact", expected, exact, String::new());
    }

    /// Every report of the run is balanced.
    fn books(&mut self, seen: &RunObservation) {
        let results = || seen.reports().map(books::check);
        let because = results().find_map(Result::err).map(|error| format!("{error:#}"));
        let (all, balanced) = (results().count() as u64, results().filter(Result::is_ok).count() as u64);
        self.explained("reports that balance", all, balanced, because.unwrap_or_default());
    }

    fn memory(&mut self, memory: &[(&'static str, AgentMemory)]) {
        for (who, memory) in memory {
            let Some(trend) = memory.trend() else { continue };
            let MemoryTrend { over_time, early, late } = &trend;
            let because = format!(
                "{over_time:?} KiB of private memory over time; {} in the second quarter, {} in the last; \
                 with the mapped tables {} and {}",
                early.own, late.own, early.all, late.all
            );
            let flat = u64::from(trend.is_flat());
            self.explained(format!("{who}: memory is flat"), 1, flat, because);
        }
    }

    fn exit(&mut self, scenario: &Scenario, seen: &RunObservation) {
        // Expectations on inexact figures are inconclusive; whether a flood fits the table depends on the
        // machine.
        let inconclusive = seen.report["exact"] != true && !scenario.expect.is_empty();
        let usual = if inconclusive && scenario.floods() { 3 } else { 0 };
        let expected = scenario.exit.unwrap_or(usual);
        // A negative code (a signal) cannot be expected.
        let [expected, code] = [expected, seen.code].map(|code| u64::try_from(code).unwrap_or(u64::MAX));
        self.exactly("exit code", expected, code);
    }
}

impl fmt::Display for FigureComparison {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(formatter, "  {:<34} {:>24} {:>12}", "figure", "expected", "reported")?;
        let (silent, rows): (Vec<&FigureRow>, Vec<&FigureRow>) =
            self.rows.iter().partition(|row| row.is_silent());
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

/// A service's row in a report.
fn service<'a>(report: &'a Value, address: &SocketAddr) -> Option<&'a Value> {
    let (ip, port) = (address.ip().to_string(), u64::from(address.port()));
    report["services"].as_array()?.iter().find(|row| row["address"] == ip.as_str() && row["port"] == port)
}

/// The figures in which an outcome is reported. An attempt that stays open may have expired.
const fn reported_as(outcome: KnownOutcome) -> (&'static str, &'static [&'static str]) {
    match outcome {
        KnownOutcome::Completed => ("tcp.completed", &["tcp.completed"]),
        KnownOutcome::Refused => ("tcp.refused", &["tcp.refused"]),
        KnownOutcome::Unreachable => ("tcp.unreachable", &["tcp.unreachable"]),
        KnownOutcome::InitiatorAborted => ("tcp.initiator_aborted", &["tcp.initiator_aborted"]),
        KnownOutcome::NoSynAck => {
            ("tcp, half-open: no_syn_ack", &["tcp.half_open.no_syn_ack", "tcp.half_open_expired.no_syn_ack"])
        }
        KnownOutcome::NoAck => {
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

/// The classes of a tally, and their names in an interface's packets.
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
