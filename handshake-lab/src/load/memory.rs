//! Records a process's memory over a run.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

/// Interval between two readings.
const PAUSE: Duration = Duration::from_secs(1);
/// Number of readings needed for a statement about growth.
const ENOUGH: usize = 60;
/// Number of readings shown.
const POINTS: usize = 7;
/// Growth that an allocator may cause between a run's second quarter and its last, KiB.
const SLACK_KIB: u64 = 512;

/// Reads the memory of one process.
pub(super) struct AgentMemory {
    process: u32,
    due: Instant,
    readings: Vec<MemoryReading>,
}

/// Memory of a process at one moment, KiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct MemoryReading {
    /// Private memory: neither the mapped tables nor the program's file.
    pub(super) own: u64,
    /// Resident memory: with the mapped tables and the program's file.
    pub(super) all: u64,
}

impl AgentMemory {
    pub(super) fn of(process: u32) -> Self {
        Self { process, due: Instant::now(), readings: Vec::new() }
    }

    /// Takes a reading if one is due.
    pub(super) fn read_if_due(&mut self) -> Result<()> {
        if Instant::now() >= self.due {
            self.readings.push(read(self.process)?);
            self.due += PAUSE;
        }
        Ok(())
    }

    /// The last reading, for the progress line.
    pub(super) fn last(&self) -> Option<MemoryReading> {
        self.readings.last().copied()
    }

    /// The trend over the run; `None` if the run is too short.
    pub(super) fn trend(&self) -> Option<MemoryTrend> {
        MemoryTrend::of(&self.readings)
    }
}

/// The trend of a process's memory over a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct MemoryTrend {
    /// Private memory from the first reading to the last, KiB.
    pub(super) over_time: Vec<u64>,
    /// Average of the second quarter, after warm-up.
    pub(super) early: MemoryReading,
    /// Average of the last quarter.
    pub(super) late: MemoryReading,
}

impl MemoryTrend {
    fn of(readings: &[MemoryReading]) -> Option<Self> {
        if readings.len() < ENOUGH {
            return None;
        }
        let quarter = readings.len() / 4;
        let point = |at: usize| readings[(readings.len() - 1) * at / (POINTS - 1)].own;
        Some(Self {
            over_time: (0..POINTS).map(point).collect(),
            early: mean(&readings[quarter..2 * quarter]),
            late: mean(&readings[readings.len() - quarter..]),
        })
    }

    /// Whether the private memory did not grow.
    pub(super) fn is_flat(&self) -> bool {
        self.late.own <= self.early.own + SLACK_KIB
    }
}

fn mean(readings: &[MemoryReading]) -> MemoryReading {
    let mean = |get: fn(&MemoryReading) -> u64| {
        readings.iter().map(get).sum::<u64>() / (readings.len() as u64).max(1)
    };
    MemoryReading { own: mean(|reading| reading.own), all: mean(|reading| reading.all) }
}

fn read(process: u32) -> Result<MemoryReading> {
    let path = format!("/proc/{process}/status");
    let status = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    // An ended process that was not waited for has a status without these fields.
    let field =
        |name| parse(&status, name).with_context(|| format!("{path} has no {name} handshake has ended"));
    Ok(MemoryReading { own: field("RssAnon:")?, all: field("VmRSS:")? })
}

/// Parses a line like `RssAnon: 2044 kB`, with a tab and blanks.
fn parse(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn readings_of(own: impl Fn(u64) -> u64) -> Vec<MemoryReading> {
        (0..120).map(|at| MemoryReading { own: own(at), all: 0 }).collect()
    }

    #[test]
    fn a_leak_is_not_flat_and_a_warm_up_is() {
        let trend = |own: fn(u64) -> u64| MemoryTrend::of(&readings_of(own)).expect("long enough");
        assert!(trend(|_| 2000).is_flat());
        assert!(trend(|at| 2000 + at.min(10) * 1000).is_flat());
        assert!(!trend(|at| 2000 + at * 10).is_flat());
        assert_eq!(trend(|at| at).over_time, [0, 19, 39, 59, 79, 99, 119]);
        assert!(MemoryTrend::of(&readings_of(|_| 1)[..59]).is_none());
    }

    #[test]
    fn the_memory_of_this_process_is_read() {
        let reading = read(std::process::id()).expect("this process's status");
        assert!(reading.own > 0 && reading.all > reading.own, "{reading:?}");
    }
}
