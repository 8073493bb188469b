//! The report of the measured rows, as a table and as JSON.

use std::fs;

use serde_json::{Value, json};

use crate::captures::CaptureRow;
use crate::contention::ContentionRow;
use crate::crowd::CrowdRow;
use crate::instructions::InstructionRow;
use crate::owner::OwnerRow;
use crate::packet_rows::PacketRow;
use crate::recording::RecordingRow;
use crate::snapshot::SnapshotRow;
use crate::veth::{VethRow, VethTraffic};

/// All rows of a run, by their way of measuring.
#[derive(Default)]
pub(crate) struct Rows {
    pub(crate) packets: Vec<PacketRow>,
    pub(crate) instructions: Vec<InstructionRow>,
    pub(crate) snapshots: Vec<SnapshotRow>,
    pub(crate) recordings: Vec<RecordingRow>,
    pub(crate) veth: Vec<VethRow>,
    pub(crate) owners: Vec<OwnerRow>,
    pub(crate) contention: Vec<ContentionRow>,
    pub(crate) crowds: Vec<CrowdRow>,
    pub(crate) captures: Vec<CaptureRow>,
}

/// All rows and the machine as JSON.
pub(crate) fn json(rows: &Rows, machine: &BenchMachine) -> Value {
    let Rows { packets, instructions, snapshots, recordings, veth, owners, contention, crowds, captures } =
        rows;
    let mut values: Vec<Value> = packets.iter().map(|row| row.json(row.case.name)).collect();
    values.extend(costliest_ignored(packets).map(|row| row.json("ignored")));
    values.extend(instructions.iter().map(InstructionRow::json));
    values.extend(snapshots.iter().map(SnapshotRow::json));
    values.extend(recordings.iter().map(RecordingRow::json));
    values.extend(veth.iter().map(|row| row.json(row.case.name)));
    values.extend(worst_of_both_hooks(veth).map(|row| row.json(row.case.traffic.name())));
    values.extend(owners.iter().map(OwnerRow::json));
    values.extend(contention.iter().map(ContentionRow::json));
    values.extend(crowds.iter().map(|row| row.json(&crowds[0])));
    values.extend(captures.iter().map(CaptureRow::json));
    json!({ "rows": values, "machine": machine.json() })
}

/// All rows and the machine as text: a table for each way of measuring.
pub(crate) fn table(rows: &Rows, machine: &BenchMachine) -> String {
    const HEAD: [&str; 7] = ["row", "net", "least", "reference", "of it", "empty", "goal"];
    let Rows { packets, instructions, snapshots, recordings, veth, owners, contention, crowds, captures } =
        rows;
    let mut lines: Vec<_> = packets.iter().map(|row| row.line(row.case.name)).collect();
    lines.extend(costliest_ignored(packets).map(|row| row.line("ignored")));
    let mut traffic: Vec<_> = veth.iter().map(|row| row.line(row.case.name)).collect();
    traffic.extend(worst_of_both_hooks(veth).map(|row| row.line(row.case.traffic.name())));
    let recordings: Vec<_> = recordings.iter().map(RecordingRow::line).collect();
    let instructions: Vec<_> = instructions.iter().map(InstructionRow::line).collect();
    let snapshots: Vec<_> = snapshots.iter().map(SnapshotRow::line).collect();
    let contention: Vec<_> = contention.iter().map(ContentionRow::line).collect();
    let owners: Vec<_> = owners.iter().map(OwnerRow::line).collect();
    let crowds: Vec<_> = crowds.iter().map(|row| row.line(&crowds[0])).collect();
    let captures: Vec<_> = captures.iter().map(CaptureRow::line).collect();
    let tables = [
        (HEAD, lines),
        (InstructionRow::HEAD, instructions),
        (SnapshotRow::HEAD, snapshots),
        (RecordingRow::HEAD, recordings),
        (VethRow::HEAD, traffic),
        (OwnerRow::HEAD, owners),
        (ContentionRow::HEAD, contention),
        (CrowdRow::HEAD, crowds),
        (CaptureRow::HEAD, captures),
    ];
    let tables = tables.into_iter().filter(|(_, lines)| !lines.is_empty());
    let tables = tables.map(|(head, mut lines)| {
        lines.insert(0, head.map(str::to_owned));
        align(&lines) + "\n"
    });
    format!("{}\n{}", machine.line(), tables.collect::<Vec<_>>().join("\n"))
}

/// The row `ignored`: the most expensive of the `ignored_*` rows.
fn costliest_ignored(rows: &[PacketRow]) -> Option<&PacketRow> {
    let ignored = rows.iter().filter(|row| row.case.name.starts_with("ignored_"));
    ignored.max_by(|a, b| a.net().total_cmp(&b.net()))
}

/// The row that stands for a kind of traffic: where both hooks were measured, the one that costs more.
fn worst_of_both_hooks(rows: &[VethRow]) -> impl Iterator<Item = &VethRow> {
    [VethTraffic::Connect, VethTraffic::Bulk].into_iter().filter_map(|traffic| {
        let both: Vec<_> = rows.iter().filter(|row| row.case.traffic == traffic).collect();
        let worst = both.iter().min_by(|a, b| a.ratio().total_cmp(&b.ratio())).copied();
        worst.filter(|_| both.len() > 1)
    })
}

/// Pads every column to its widest cell.
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

/// The machine of the measurement.
pub(crate) struct BenchMachine {
    kernel: String,
    processor: String,
    cpus: usize,
    /// The load average over one minute when the bench began, without the bench.
    load: f64,
}

impl BenchMachine {
    /// Reads the data of this machine.
    pub(crate) fn here() -> Self {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::veth;

    fn machine() -> BenchMachine {
        BenchMachine { kernel: "6.18".to_owned(), processor: "a CPU".to_owned(), cpus: 2, load: 0.5 }
    }

    fn rows(rates: &[[u64; 3]]) -> Rows {
        let cases = veth::CASES.into_iter().zip(rates);
        Rows {
            veth: cases.map(|(case, rates)| VethRow::with_rates(case, *rates)).collect(),
            ..Rows::default()
        }
    }

    fn names(rows: &Rows) -> Vec<Value> {
        let value = json(rows, &machine());
        value["rows"].as_array().into_iter().flatten().map(|row| row["name"].clone()).collect()
    }

    #[test]
    fn the_worse_hook_stands_for_traffic_measured_on_both() {
        let rows = rows(&[[200, 100, 99], [200, 100, 90], [200, 100, 100]]);
        assert_eq!(names(&rows), ["veth_connect_tcx", "veth_connect_xdp", "veth_bulk_tcx", "veth_connect"]);
        let sum = &json(&rows, &machine())["rows"][3];
        assert_eq!((&sum["ratio"], &sum["ingress"]), (&json!(0.9), &json!("xdp-native")));
    }

    #[test]
    fn a_report_has_only_the_tables_of_its_rows() {
        let text = table(&rows(&[[2_000, 1_000, 500]]), &machine());
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "Linux 6.18 · a CPU · 2 CPUs · load before 0.5");
        assert!(lines[1].starts_with("row ") && lines[1].contains("of nothing"), "{text}");
        assert!(lines[2].starts_with("veth_connect_tcx") && lines[2].ends_with("≥ 95 %  missed"), "{text}");
        assert_eq!(lines.len(), 3, "{text}");
    }
}
