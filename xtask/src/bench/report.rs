//! What was measured, as a table and as JSON.

use std::fs;

use serde_json::{Value, json};

use super::packet_rows::{Case, Effort};
use super::statistics::Summary;

/// A row by BPF_PROG_TEST_RUN. Times are ns a run.
pub(super) struct PacketRow {
    pub(super) case: Case,
    pub(super) empty: Summary,
    pub(super) reference: Summary,
    pub(super) ours: Summary,
    pub(super) effort: Effort,
}

impl PacketRow {
    fn net(&self) -> f64 {
        self.ours.median - self.empty.median
    }

    fn reference_net(&self) -> f64 {
        self.reference.median - self.empty.median
    }

    fn percent(&self) -> f64 {
        self.net() / self.reference_net() * 100.0
    }

    fn is_met(&self) -> bool {
        self.net() <= self.case.goal_ns && self.case.goal_percent.is_none_or(|goal| self.percent() <= goal)
    }

    fn json(&self, name: &str) -> Value {
        json!({
            "name": name, "hook": self.case.hook.name(), "unit": "ns",
            "net_ns": tenth(self.net()), "reference_net_ns": tenth(self.reference_net()),
            "empty_ns": tenth(self.empty.median), "reference_percent": tenth(self.percent()),
            "least_net_ns": tenth(self.ours.least - self.empty.least),
            "reference_least_net_ns": tenth(self.reference.least - self.empty.least),
            "goal_ns": self.case.goal_ns, "goal_percent": self.case.goal_percent, "met": self.is_met(),
            "rounds": self.effort.rounds, "repeat": self.effort.repeat,
        })
    }

    fn line(&self, name: &str) -> [String; 7] {
        let share = self.case.goal_percent.map_or_else(String::new, |goal| format!(", ≤ {goal} %"));
        [
            name.to_owned(),
            format!("{:.0} ns", self.net()),
            format!("{:.0} ns", self.ours.least - self.empty.least),
            format!("{:.0} ns", self.reference_net()),
            format!("{:.0} %", self.percent()),
            format!("{:.0} ns", self.empty.median),
            format!("≤ {} ns{share}{}", self.case.goal_ns, mark(self.is_met())),
        ]
    }
}

/// All rows and the machine.
pub(super) fn json(rows: &[PacketRow], machine: &Machine) -> Value {
    let mut values: Vec<Value> = rows.iter().map(|row| row.json(row.case.name)).collect();
    values.extend(dearest_ignored(rows).map(|row| row.json("ignored")));
    json!({ "rows": values, "machine": machine.json() })
}

/// The same for people.
pub(super) fn table(rows: &[PacketRow], machine: &Machine) -> String {
    const HEAD: [&str; 7] = ["row", "net", "least", "reference", "of it", "empty", "goal"];
    let mut lines = vec![HEAD.map(str::to_owned)];
    lines.extend(rows.iter().map(|row| row.line(row.case.name)));
    lines.extend(dearest_ignored(rows).map(|row| row.line("ignored")));
    format!("{}\n{}\n", machine.line(), align(&lines))
}

/// `ignored` is the dearest of its kinds.
fn dearest_ignored(rows: &[PacketRow]) -> Option<&PacketRow> {
    let ignored = rows.iter().filter(|row| row.case.name.starts_with("ignored_"));
    ignored.max_by(|a, b| a.net().total_cmp(&b.net()))
}

/// Columns as wide as their widest cell.
fn align(lines: &[[String; 7]]) -> String {
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..7).map(width).collect();
    let pad = |line: &[String; 7]| {
        let cells = line.iter().zip(&widths).enumerate();
        let cells = cells.map(|(column, (cell, width))| match column {
            0 | 6 => format!("{cell:<width$}"),
            _ => format!("{cell:>width$}"),
        });
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    lines.iter().map(pad).collect::<Vec<_>>().join("\n")
}

const fn mark(met: bool) -> &'static str {
    if met { "" } else { "  missed" }
}

fn tenth(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

/// Where it was measured.
pub(super) struct Machine {
    kernel: String,
    processor: String,
    cpus: usize,
    /// What waited for the CPUs when it began, besides us.
    load: f64,
}

impl Machine {
    /// This one, now.
    pub(super) fn here() -> Self {
        let text = |path| fs::read_to_string(path).unwrap_or_default();
        let cpuinfo = text("/proc/cpuinfo");
        let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split(": ").nth(1));
        let load = text("/proc/loadavg");
        Self {
            kernel: text("/proc/sys/kernel/osrelease").trim().to_owned(),
            processor: model.unwrap_or("unknown").to_owned(),
            cpus: std::thread::available_parallelism().map_or(1, usize::from),
            load: load.split(' ').next().and_then(|word| word.parse().ok()).unwrap_or(0.0),
        }
    }

    fn json(&self) -> Value {
        json!({ "kernel": self.kernel, "cpu": self.processor, "cpus": self.cpus, "load_before": self.load })
    }

    fn line(&self) -> String {
        let Self { kernel, processor, cpus, load } = self;
        format!("Linux {kernel} · {processor} · {cpus} CPUs · load before {load}")
    }
}
