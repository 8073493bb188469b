//! The result of a veth row.

use serde_json::{Value, json};

use super::case::{VethAttachment, VethCase, VethTraffic};
use super::hooks::VethHook;
use super::traffic::Turn;
use crate::number::{mark, thousandth};
use crate::statistics::Summary;

/// The result of a row of real traffic.
pub(crate) struct VethRow {
    pub(crate) case: VethCase,
    /// Median units per second of wall time, in the order of [`VethAttachment::ALL`].
    rates: [f64; 3],
    /// handshake's rate relative to that with empty programs: the median of the ratios within each round,
    /// since measurements close in time are disturbed alike.
    of_empty: f64,
    /// The same ratio of the rates by CPU time.
    of_empty_by_cpu: f64,
    /// handshake's rate relative to that with nothing attached.
    of_nothing: f64,
    rounds: usize,
}

impl VethTraffic {
    /// The goal: the least rate relative to that with empty programs.
    const fn goal(self) -> f64 {
        match self {
            Self::Connect => 0.95,
            Self::Bulk => 0.97,
        }
    }

    /// The name of the row that stands for both hooks.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Connect => "veth_connect",
            Self::Bulk => "veth_bulk",
        }
    }

    const fn unit(self) -> &'static str {
        match self {
            Self::Connect => "connections/s",
            Self::Bulk => "bytes/s",
        }
    }

    fn spell(self, rate: f64) -> String {
        match self {
            Self::Connect => format!("{:.1} k/s", rate / 1e3),
            Self::Bulk => format!("{:.2} Gbit/s", rate * 8.0 / 1e9),
        }
    }
}

impl VethRow {
    pub(super) fn of(case: VethCase, turns: &[Vec<Turn>; 3]) -> Self {
        Self {
            case,
            rates: turns.each_ref().map(|turns| median(turns.iter().map(Turn::rate))),
            of_empty: ratio_to(turns, VethAttachment::Empty, Turn::rate),
            of_empty_by_cpu: ratio_to(turns, VethAttachment::Empty, Turn::cpu_rate),
            of_nothing: ratio_to(turns, VethAttachment::Nothing, Turn::rate),
            rounds: turns[0].len(),
        }
    }

    /// A row of one round with these rates.
    #[cfg(test)]
    pub(crate) fn with_rates(case: VethCase, rates: [u64; 3]) -> Self {
        let second = std::time::Duration::from_secs(1);
        Self::of(case, &rates.map(|units| vec![Turn { units, wall: second, cpu: second }]))
    }

    /// handshake's rate relative to that with empty programs.
    pub(crate) const fn ratio(&self) -> f64 {
        self.of_empty
    }

    fn is_met(&self) -> bool {
        self.ratio() >= self.case.traffic.goal()
    }

    pub(crate) fn json(&self, name: &str) -> Value {
        let [nothing, empty, handshake] = self.rates.map(f64::round);
        let traffic = self.case.traffic;
        json!({
            "name": name, "unit": "ratio", "ingress": self.case.hook.ingress(), "egress": VethHook::EGRESS,
            "ratio": thousandth(self.of_empty), "cpu_ratio": thousandth(self.of_empty_by_cpu),
            "ratio_to_nothing": thousandth(self.of_nothing),
            "rate_unit": traffic.unit(), "rate": handshake, "empty_rate": empty, "nothing_rate": nothing,
            "goal_ratio": traffic.goal(), "met": self.is_met(), "rounds": self.rounds,
        })
    }

    pub(crate) const HEAD: [&str; 7] = ["row", "of empty", "by CPU", "of nothing", "rate", "empty", "goal"];

    pub(crate) fn line(&self, name: &str) -> [String; 7] {
        let percent = |ratio: f64| format!("{:.1} %", ratio * 100.0);
        let Self { case: VethCase { traffic, .. }, rates, .. } = self;
        [
            name.to_owned(),
            percent(self.of_empty),
            percent(self.of_empty_by_cpu),
            percent(self.of_nothing),
            traffic.spell(rates[VethAttachment::Handshake as usize]),
            traffic.spell(rates[VethAttachment::Empty as usize]),
            format!("≥ {:.0} %{}", traffic.goal() * 100.0, mark(self.is_met())),
        ]
    }
}

fn ratio_to(turns: &[Vec<Turn>; 3], of: VethAttachment, rate: fn(&Turn) -> f64) -> f64 {
    let pairs = turns[VethAttachment::Handshake as usize].iter().zip(&turns[of as usize]);
    median(pairs.map(|(ours, other)| rate(ours) / rate(other)))
}

fn median(samples: impl Iterator<Item = f64>) -> f64 {
    Summary::of(&samples.collect::<Vec<_>>()).median
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::veth::CASES;

    fn turns(units: [u64; 3], cpu_ms: u64) -> Vec<Turn> {
        let turn =
            |units| Turn { units, wall: Duration::from_millis(500), cpu: Duration::from_millis(cpu_ms) };
        units.map(turn).to_vec()
    }

    #[test]
    fn ratios_are_medians_over_rounds_and_rates_are_per_second() {
        let turns = [turns([10, 2_000, 3_000], 500), turns([1_000, 900, 9], 500), turns([970, 960, 1], 480)];
        let row = VethRow::of(CASES[0], &turns);
        let value = row.json("x");
        assert_eq!(
            (&value["rate"], &value["empty_rate"], &value["nothing_rate"]),
            (&json!(1_920.0), &json!(1_800.0), &json!(4_000.0))
        );
        assert_eq!((&value["ratio"], &value["ratio_to_nothing"]), (&json!(0.97), &json!(0.48)));
        assert_eq!(value["cpu_ratio"], json!(1.01), "970 in 0.48 s against 1,000 in 0.5 s");
        assert_eq!((&value["met"], &value["rounds"]), (&json!(true), &json!(3)));
    }

    #[test]
    fn a_goal_is_met_at_its_figure_and_missed_below() {
        for (handshake, met) in [(970, true), (969, false)] {
            let turns = [turns([1_000; 3], 500), turns([1_000; 3], 500), turns([handshake; 3], 500)];
            let row = VethRow::of(CASES[2], &turns);
            assert_eq!(row.is_met(), met, "{handshake}");
            assert_eq!(row.line("x")[6].ends_with("missed"), !met);
        }
    }
}
