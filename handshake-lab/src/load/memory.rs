//! How much memory a process has, over the time of a run.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

/// Between two looks.
const PAUSE: Duration = Duration::from_secs(1);
/// From how many looks on something can be said of how memory grows.
const ENOUGH: usize = 60;
/// Looks that are shown.
const POINTS: usize = 7;
/// What an allocator may come to hold beside, from a run's second quarter to its last.
const SLACK_KIB: u64 = 512;

/// Looks at one process.
pub(super) struct Memory {
    process: u32,
    due: Instant,
    looks: Vec<Look>,
}

/// What a process held at a moment, KiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Look {
    /// Of its own: neither the mapped tables nor the program's file.
    pub(super) own: u64,
    /// With those.
    pub(super) all: u64,
}

impl Memory {
    pub(super) fn of(process: u32) -> Self {
        Self { process, due: Instant::now(), looks: Vec::new() }
    }

    /// Looks, if it is time to.
    pub(super) fn look(&mut self) -> Result<()> {
        if Instant::now() >= self.due {
            self.looks.push(look(self.process)?);
            self.due += PAUSE;
        }
        Ok(())
    }

    /// The last look, for whoever watches the run.
    pub(super) fn last(&self) -> Option<Look> {
        self.looks.last().copied()
    }

    /// How it went; `None` of a run too short to tell.
    pub(super) fn course(&self) -> Option<Course> {
        Course::of(&self.looks)
    }
}

/// How the memory of a process went over a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Course {
    /// What it held of its own, from the first look to the last.
    pub(super) over_time: Vec<u64>,
    /// On average in the second quarter, when everything is warm.
    pub(super) early: Look,
    /// On average in the last quarter.
    pub(super) late: Look,
}

impl Course {
    fn of(looks: &[Look]) -> Option<Self> {
        if looks.len() < ENOUGH {
            return None;
        }
        let quarter = looks.len() / 4;
        let point = |at: usize| looks[(looks.len() - 1) * at / (POINTS - 1)].own;
        Some(Self {
            over_time: (0..POINTS).map(point).collect(),
            early: mean(&looks[quarter..2 * quarter]),
            late: mean(&looks[looks.len() - quarter..]),
        })
    }

    /// Has it not grown?
    pub(super) fn is_flat(&self) -> bool {
        self.late.own <= self.early.own + SLACK_KIB
    }
}

fn mean(looks: &[Look]) -> Look {
    let mean = |get: fn(&Look) -> u64| looks.iter().map(get).sum::<u64>() / (looks.len() as u64).max(1);
    Look { own: mean(|look| look.own), all: mean(|look| look.all) }
}

fn look(process: u32) -> Result<Look> {
    let path = format!("/proc/{process}/status");
    let status = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    // What has ended, and was not waited for, has a status without it.
    let field =
        |name| parse(&status, name).with_context(|| format!("{path} has no {name} handshake has ended"));
    Ok(Look { own: field("RssAnon:")?, all: field("VmRSS:")? })
}

/// `RssAnon:    2044 kB`, with a tab and blanks between.
fn parse(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn looks(own: impl Fn(u64) -> u64) -> Vec<Look> {
        (0..120).map(|at| Look { own: own(at), all: 0 }).collect()
    }

    #[test]
    fn a_leak_is_not_flat_and_a_warm_up_is() {
        let course = |own: fn(u64) -> u64| Course::of(&looks(own)).expect("long enough");
        assert!(course(|_| 2000).is_flat());
        assert!(course(|at| 2000 + at.min(10) * 1000).is_flat());
        assert!(!course(|at| 2000 + at * 10).is_flat());
        assert_eq!(course(|at| at).over_time, [0, 19, 39, 59, 79, 99, 119]);
        assert!(Course::of(&looks(|_| 1)[..59]).is_none());
    }

    #[test]
    fn this_process_holds_something() {
        let look = look(std::process::id()).expect("our own status");
        assert!(look.own > 0 && look.all > look.own, "{look:?}");
    }
}
