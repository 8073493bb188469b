//! The rows `interfaces_1` and `interfaces_300`: what many interfaces cost beside one, in turns.
//!
//! A packet is one of a known connection, on the last of the interfaces: its packets are counted in another
//! map than those of the first ones. A report, the start and the end are the release build's, which watches
//! as many veth interfaces: each look asks for each of them, and to attach to one and to leave it the kernel
//! waits for grace periods of RCU.

use std::path::Path;

use anyhow::{Result, ensure};
use handshake_lab::churn::{self, Crowd};
use serde_json::{Value, json};

use crate::frames::{self, Ip};
use crate::hook::{BenchHook, Subject};
use crate::number::{tenth, thousandth};
use crate::ours::{Ours, Setup};
use crate::packet_rows::Effort;
use crate::statistics::Summary;

/// The rows, with how many interfaces each watches.
pub(crate) const CASES: [(&str, u16); 2] = [("interfaces_1", 1), ("interfaces_300", 300)];
/// Starts per row at most: one takes ten seconds and more.
const STARTS: u32 = 3;

/// The figures of a row.
pub(crate) struct CrowdRow {
    name: &'static str,
    interfaces: u16,
    /// Time per packet, ns.
    packet: Summary,
    /// CPU time per report, ms.
    report: Summary,
    /// Time from the start of the command until it is attached to all, ms.
    start: Summary,
    /// Time from the signal until it has ended, ms.
    end: Summary,
}

/// Measures both rows, whichever is asked for: each is a ratio of the other.
pub(crate) fn measure(binary: &Path, effort: Effort) -> Result<Vec<CrowdRow>> {
    let packets = packets(effort)?;
    let mut crowds = [const { Vec::new() }; 2];
    for _ in 0..effort.rounds.min(STARTS) {
        for ((_, interfaces), crowds) in CASES.iter().zip(&mut crowds) {
            crowds.push(churn::at_once(binary, usize::from(*interfaces))?);
        }
    }
    let rows = CASES.iter().zip(packets).zip(&crowds);
    Ok(rows
        .map(|((&(name, interfaces), packet), crowds)| {
            let summary = |of: fn(&Crowd) -> f64| Summary::of(&crowds.iter().map(of).collect::<Vec<_>>());
            CrowdRow {
                name,
                interfaces,
                packet,
                report: summary(|crowd| crowd.report.as_secs_f64() * 1e3),
                start: summary(|crowd| crowd.start.as_secs_f64() * 1e3),
                end: summary(|crowd| crowd.end.as_secs_f64() * 1e3),
            }
        })
        .collect())
}

/// The time per packet with each number of interfaces, in turns.
fn packets(effort: Effort) -> Result<Vec<Summary>> {
    let hook = BenchHook::Xdp;
    let setup = Setup { max_flows: 1 << 16, port: None, half_open_after: None };
    let load = |&(_, interfaces): &(&str, u16)| {
        let mut ours = Ours::load_among(setup, &[hook.program(Subject::Ours)], interfaces - 1)?;
        for frame in [frames::syn(Ip::V4), frames::syn_ack(Ip::V4), frames::ack(Ip::V4)] {
            ours.run(hook, &frame, 1)?;
        }
        Ok((ours, Vec::new()))
    };
    let mut all = CASES.iter().map(load).collect::<Result<Vec<_>>>()?;
    let ack = frames::ack(Ip::V4);
    for _ in 0..effort.rounds {
        for (ours, times) in &mut all {
            times.push(ours.run(hook, &ack, effort.repeat)?);
        }
    }
    for (ours, _) in &all {
        let (acks, sent) = (ours.totals().acks, u64::from(effort.rounds) * u64::from(effort.repeat) + 1);
        ensure!(acks == sent, "{acks} packets counted of {sent}");
    }
    Ok(all.iter().map(|(_, times)| Summary::of(times)).collect())
}

impl CrowdRow {
    pub(crate) fn json(&self, one: &Self) -> Value {
        json!({
            "name": self.name, "unit": "ns", "interfaces": self.interfaces,
            "packet_ns": tenth(self.packet.median), "packet_of_one": self.packet_of(one),
            "report_cpu_ms": tenth(self.report.median), "report_of_one": self.report_of(one),
            "start_ms": tenth(self.start.median), "end_ms": tenth(self.end.median),
        })
    }

    fn packet_of(&self, one: &Self) -> f64 {
        thousandth(self.packet.median / one.packet.median)
    }

    fn report_of(&self, one: &Self) -> f64 {
        tenth(self.report.median / one.report.median)
    }

    pub(crate) const HEAD: [&str; 7] = ["row", "packet", "of one", "report's CPU", "of one", "start", "end"];

    pub(crate) fn line(&self, one: &Self) -> [String; 7] {
        [
            self.name.to_owned(),
            format!("{:.1} ns", self.packet.median),
            format!("{:.2}", self.packet_of(one)),
            format!("{:.2} ms", self.report.median),
            format!("{:.1}", self.report_of(one)),
            format!("{:.0} ms", self.start.median),
            format!("{:.0} ms", self.end.median),
        ]
    }
}
