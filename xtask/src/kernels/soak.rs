//! `cargo xtask kernels --soak`: the two newest kernels under traffic for half an hour, both at once. The agent's
//! memory must not grow once it has settled, and its books must balance to the last report.

use std::thread;

use anyhow::{Context, Result, bail, ensure};
use handshake_lab::books;

use super::fetch::{DebianKernel, KERNELS};
use super::tries::{packed, report};
use super::{Args, TIMEOUT_S, part};
use crate::architecture::Architecture;

/// The minutes until the agent's memory has settled.
const SETTLED: u64 = 5;
/// The most that it may grow from then on, in KiB.
const GROWTH: u64 = 1_024;

/// Runs the verb for so many minutes.
pub(super) fn run(minutes: u64, args: &Args) -> Result<()> {
    ensure!(minutes > SETTLED, "--soak: more than {SETTLED} minutes, after which memory is compared");
    let newest: Vec<DebianKernel> = KERNELS
        .into_iter()
        .filter(|kernel| kernel.architecture == Architecture::Amd64)
        .rev()
        .take(2)
        .collect();
    if args.setup {
        newest.iter().try_for_each(DebianKernel::fetch)?;
    }
    let tries = [format!("soak {minutes}")];
    let limit_s = TIMEOUT_S + 60 * minutes;
    // One after the other where programs are built, and then both at once.
    let machines = newest.iter().map(|kernel| packed(kernel, &tries)).collect::<Result<Vec<_>>>()?;
    let consoles: Vec<_> = thread::scope(|scope| {
        let running: Vec<_> = machines.iter().map(|it| scope.spawn(|| it.boot(limit_s))).collect();
        running.into_iter().map(|it| it.join().unwrap_or_else(|_| bail!("the thread has panicked"))).collect()
    });
    let mut failed = Vec::new();
    for (kernel, console) in newest.iter().zip(consoles) {
        let judged = console.and_then(|console| {
            if args.console {
                println!("{console}");
            }
            let said = part(&console, &tries[0])?;
            judge(said).with_context(|| said.to_owned())
        });
        match judged {
            Ok(verdict) => println!("Linux {}, {minutes} minutes: {verdict}", kernel.name()),
            Err(error) => failed.push(format!("Linux {}: {error:#}", kernel.name())),
        }
    }
    // Half an hour of one machine is not lost by the other's fault.
    ensure!(failed.is_empty(), "{}", failed.join("\n"));
    Ok(())
}

/// Holds a soak's output against its limits; returns it in a sentence.
fn judge(said: &str) -> Result<String> {
    let report = report(said)?;
    let memory: Vec<u64> = said.lines().filter_map(memory_of).collect();
    let settled = usize::try_from(SETTLED)?;
    ensure!(memory.len() > settled, "it ended before memory had settled");
    let (before, most) = (memory[settled], memory[settled..].iter().max().copied().unwrap_or_default());
    let growth = most - before;
    ensure!(growth < GROWTH, "memory grew by {growth} KiB after minute {SETTLED}: {memory:?}");
    let [attempts, completed, refused] =
        ["attempts", "completed", "refused"].map(|name| books::figure(&report, &format!("tcp.{name}")));
    Ok(format!(
        "{} attempts, {} completed, {} refused, EXACT; {before} KiB after minute {SETTLED}, at most {growth} KiB more",
        attempts?, completed?, refused?
    ))
}

/// The KiB of a line `minute 3: 6400 KiB`.
fn memory_of(line: &str) -> Option<u64> {
    line.strip_prefix("minute ")?.split_once(": ")?.1.strip_suffix(" KiB")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_from_its_lines_alone() {
        assert_eq!(memory_of("minute 30: 6412 KiB"), Some(6_412));
        for other in ["minutes", "minute 3", "minute 3: KiB", "attached eth0"] {
            assert_eq!(memory_of(other), None, "{other}");
        }
    }
}
