//! The row `snapshot_1m`: the agent's own snapshot of a million flows.
//!
//! handshake-user is a program and no library, so the row is one of its tests, built with `--release`: it makes the flows in
//! the kernel, takes snapshots as `handshake watch` does each interval, sees that each flow is in them, and prints its times.

use std::env;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::number::{mark, tenth};
use crate::statistics::Summary;

/// The row.
pub(crate) const NAME: &str = "snapshot_1m";
/// CPU time that is the goal.
const GOAL_MS: f64 = 10.0;
/// In 2 M slots of IPv4: what `--max-flows 1000000` gives.
const FLOWS: u32 = 1 << 20;
const TEST: &str = "source::live::tests::snapshot::a_snapshot_has_exactly_the_flows_that_were_made";
/// What it is asked by, and what its line begins with.
const VARIABLE: &str = "HANDSHAKE_BENCH_SNAPSHOT";
const LINE: &str = "snapshot: ";

/// What was measured, ms.
pub(crate) struct SnapshotRow {
    /// Of the one CPU.
    cpu: Summary,
    /// On the clock: more, where others want the CPU too.
    wall: Summary,
    /// Of the one CPU, for a word of each cache line of as much plain memory: less no reader of the table can take.
    memory: Summary,
    flows: u64,
    slots: u64,
    half_open: u64,
    rounds: usize,
}

/// Builds the agent's tests, and has the one take so many snapshots.
pub(crate) fn measure(rounds: u32, object: &Path) -> Result<SnapshotRow> {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.arg("test").current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    command.args(["--release", "--package", "handshake-agent", "--lib", "--", "--exact", TEST]);
    command.arg("--nocapture").env(VARIABLE, format!("{FLOWS},{rounds}")).stderr(Stdio::inherit());
    command.env("HANDSHAKE_BPF_OBJECT", object);
    let output = command.output().context("start cargo test")?;
    let said = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "the snapshot has not the flows that were made:\n{said}");
    SnapshotRow::parse(&said)
}

impl SnapshotRow {
    fn parse(said: &str) -> Result<Self> {
        let line = said.lines().find_map(|line| line.split_once(LINE)).map(|(_, line)| line);
        let line = line.with_context(|| format!("the test has measured nothing:\n{said}"))?;
        let value: Value = serde_json::from_str(line).with_context(|| format!("read {line:?}"))?;
        let number = |name: &str| value[name].as_u64().with_context(|| format!("no {name} in {line:?}"));
        let samples = |name: &str| -> Result<Vec<f64>> {
            let samples = value[name].as_array().with_context(|| format!("no {name} in {line:?}"))?;
            samples.iter().map(|ms| ms.as_f64().with_context(|| format!("{ms} in {name}"))).collect()
        };
        let (cpu, wall, memory) = (samples("cpu_ms")?, samples("wall_ms")?, samples("memory_ms")?);
        let rounds = [wall.len(), memory.len()];
        ensure!(!cpu.is_empty() && rounds == [cpu.len(); 2], "no three times a round in {line:?}");
        Ok(Self {
            cpu: Summary::of(&cpu),
            wall: Summary::of(&wall),
            memory: Summary::of(&memory),
            flows: number("flows")?,
            slots: number("slots")?,
            half_open: number("half_open")?,
            rounds: cpu.len(),
        })
    }

    fn is_met(&self) -> bool {
        self.cpu.median <= GOAL_MS
    }

    pub(crate) fn json(&self) -> Value {
        json!({
            "name": NAME, "unit": "ms", "ms": tenth(self.cpu.median), "least_ms": tenth(self.cpu.least),
            "wall_ms": tenth(self.wall.median), "least_wall_ms": tenth(self.wall.least),
            "memory_ms": tenth(self.memory.median),
            "flows": self.flows, "half_open": self.half_open, "slots": self.slots,
            "goal_ms": GOAL_MS, "met": self.is_met(), "rounds": self.rounds,
        })
    }

    pub(crate) const HEAD: [&str; 7] = ["row", "CPU", "least", "clock", "memory alone", "flows", "goal"];

    pub(crate) fn line(&self) -> [String; 7] {
        [
            NAME.to_owned(),
            format!("{:.1} ms", self.cpu.median),
            format!("{:.1} ms", self.cpu.least),
            format!("{:.1} ms", self.wall.median),
            format!("{:.1} ms", self.memory.median),
            self.flows.to_string(),
            format!("≤ {GOAL_MS} ms{}", mark(self.is_met())),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAID: &str = "\nrunning 1 test\ntest source::live … snapshot: {\"flows\":8,\"slots\":16,\"half_open\":2,\
        \"cpu_ms\":[9.0,11.5,8.0],\"wall_ms\":[10.0,30.0,12.0],\"memory_ms\":[7.0,6.0,9.0]}\nok\n";

    #[test]
    fn a_row_is_the_medians_of_the_test_s_line() {
        let row = SnapshotRow::parse(SAID).expect("a whole line");
        let value = row.json();
        assert_eq!(
            (&value["ms"], &value["wall_ms"], &value["least_ms"], &value["memory_ms"]),
            (&json!(9.0), &json!(12.0), &json!(8.0), &json!(7.0))
        );
        assert_eq!((&value["flows"], &value["rounds"], &value["met"]), (&json!(8), &json!(3), &json!(true)));
        let slow = SnapshotRow::parse(&SAID.replace("8.0]", "10.1]").replace("9.0,", "10.2,"));
        let slow = slow.expect("a whole line");
        assert!(!slow.is_met() && slow.line()[6].ends_with("missed"));
    }

    #[test]
    fn a_test_that_was_skipped_is_no_row() {
        assert!(SnapshotRow::parse("skipped: needs CAP_BPF\ntest … ok\n").is_err());
        assert!(SnapshotRow::parse("snapshot: {\"flows\":8,\"slots\":16,\"half_open\":2}").is_err());
        assert!(SnapshotRow::parse(&SAID.replace("[9.0,11.5,8.0]", "[]")).is_err());
    }
}
