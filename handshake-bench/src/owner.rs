//! The row `syn_owned`: what a SYN costs whose owner is kept, beside one whose owner is not.
//!
//! ```text
//! connect() ── program with owners ── program without ── eth0 ── a closed port
//! ```
//!
//! Both programs see the same SYNs of real sockets, one after the other; which is first alternates. The time is that
//! which the kernel counts for a program, and that counting is a part of it. Each round has new tables.

use anyhow::{Result, ensure};
use handshake_agent::source::settings::WatchedInterface;
use handshake_common::abi::Counter;
use handshake_lab::frame::interface_index;
use handshake_lab::topology::DEVICE;
use handshake_lab::{Family, Pair, bpf, tcp};
use serde_json::{Value, json};

use crate::number::{mark, tenth, thousandth};
use crate::ours::{Ours, Setup};
use crate::packet_rows::Effort;
use crate::statistics::Summary;

/// The name of the row.
pub(crate) const NAME: &str = "syn_owned";
/// SYNs of a turn, to a port each time, and turns of a round.
const SYNS: usize = 500;
const TURNS: usize = 8;
/// The goal: the most that a SYN with its owner costs, of one without.
const GOAL: f64 = 1.1;

/// The figures of the row.
pub(crate) struct OwnerRow {
    /// Time per SYN, ns.
    owned: Summary,
    unowned: Summary,
    /// The median of the ratios within each round.
    ratio: f64,
}

/// Measures the row.
pub(crate) fn measure(effort: Effort) -> Result<OwnerRow> {
    let pair = Pair::new()?;
    let mut times = [const { Vec::new() }; 2];
    for round in 0..effort.rounds {
        for (times, time) in times.iter_mut().zip(self::round(&pair, round % 2 == 0)?) {
            times.push(time);
        }
    }
    let ratios: Vec<f64> = times[0].iter().zip(&times[1]).map(|(owned, unowned)| owned / unowned).collect();
    let [owned, unowned] = times.each_ref().map(|times| Summary::of(times));
    Ok(OwnerRow { owned, unowned, ratio: Summary::of(&ratios).median })
}

/// The times per SYN of a round, with owners and without, ns.
fn round(pair: &Pair, owned_first: bool) -> Result<[f64; 2]> {
    let setup = Setup { max_flows: 1 << 18, port: None, half_open_after: None };
    let mut loaded = pair.client.enter(|| {
        let interface = WatchedInterface { index: interface_index(DEVICE)?, group: 0, raw: false };
        let attach = |owners| Ours::attach_egress(setup, interface, owners);
        Ok([attach(owned_first)?, attach(!owned_first)?])
    })?;
    if !owned_first {
        loaded.reverse();
    }
    let _counting = bpf::RunCounts::hold()?;
    for _ in 0..TURNS {
        tcp::refused(&pair.path(Family::V4), SYNS)?;
    }
    let mut times = [0.0; 2];
    for (ours, time) in loaded.iter_mut().zip(&mut times) {
        let (sent, program) = ((SYNS * TURNS) as u64, ours.attached()?);
        let attempts = ours.counts()?.of(Counter::Attempts);
        ensure!(
            attempts == sent && program.runs >= sent && program.runs <= sent + sent / 100,
            "{sent} SYNs were sent; handshake counted {attempts} attempts in {} runs",
            program.runs
        );
        *time = program.run_ns as f64 / program.runs as f64;
    }
    Ok(times)
}

impl OwnerRow {
    fn is_met(&self) -> bool {
        self.ratio <= GOAL
    }

    pub(crate) fn json(&self) -> Value {
        json!({
            "name": NAME, "unit": "ratio", "ratio": thousandth(self.ratio), "goal_ratio": GOAL, "met": self.is_met(),
            "owned_ns": tenth(self.owned.median), "unowned_ns": tenth(self.unowned.median),
        })
    }

    pub(crate) const HEAD: [&str; 7] = ["row", "of unowned", "owned", "least", "unowned", "least", "goal"];

    pub(crate) fn line(&self) -> [String; 7] {
        let ns = |ns: f64| format!("{ns:.0} ns");
        [
            NAME.to_owned(),
            format!("{:.1} %", self.ratio * 100.0),
            ns(self.owned.median),
            ns(self.owned.least),
            ns(self.unowned.median),
            ns(self.unowned.least),
            format!("≤ {:.0} %{}", GOAL * 100.0, mark(self.is_met())),
        ]
    }
}
