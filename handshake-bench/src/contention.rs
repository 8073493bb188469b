//! The row `service_shared`: what a segment of a handshake costs where two CPUs work on one service at once, beside
//! one CPU alone.
//!
//! ```text
//! alone      CPU 1: handshakes of new clients with a service
//! apart      CPU 1 and 2 at once, each with a service of its own
//! together   CPU 1 and 2 at once, with one service
//! ```
//!
//! The model beside it: together costs as much as apart, and a transfer of each cache line that the segment shares
//! with the other CPU. Those are the lines of the service's row and of its times to connect; all else is of the
//! flow, or of the CPU.
//!
//! Each segment is one test run, and its time that which the kernel takes for it. A thread is in the kernel's own
//! code for most of the time, so what two CPUs share goes from one to the other for nearly every segment.

use std::panic::resume_unwind;
use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Error, Result, ensure};
use aya::Ebpf;
use handshake_agent::source::live::KernelSide as _;
use handshake_common::abi::Counter;
use serde_json::{Value, json};

use crate::hook::{BenchHook, Subject};
use crate::number::{mark, tenth, thousandth};
use crate::ours::{Ours, Setup};
use crate::packet_rows::Effort;
use crate::programs::run;
use crate::statistics::Summary;
use crate::{cpu, frames};

/// The name of the row.
pub(crate) const NAME: &str = "service_shared";
/// Handshakes of a CPU in a turn.
const HANDSHAKES: u32 = 2_000;
/// A longer time for a segment, ns, is an interrupt's: it is left out.
const LONGEST_NS: f64 = 20_000.0;
/// The goal: the most that a segment costs together, of one alone.
const GOAL: f64 = 1.3;

/// Cache lines of the service that the three segments of a handshake change or read, per segment: both lines of the
/// row that have gauges for each, and one of the times to connect for the last.
const SHARED_LINES: f64 = 7.0 / 3.0;
/// Transfers of a cache line in a measurement of them.
const TRANSFERS: u64 = 100_000;

/// Where the second CPU works.
#[derive(Clone, Copy)]
enum Second {
    Idle,
    OtherService,
    SameService,
}

impl Second {
    const ALL: [Self; 3] = [Self::Idle, Self::OtherService, Self::SameService];
}

/// The figures of the row: the time per segment in the order of [`Second::ALL`], ns, and the medians of the ratios
/// to the first within each round.
pub(crate) struct ContentionRow {
    times: [Summary; 3],
    ratios: [f64; 3],
    /// A transfer of a cache line from one CPU to the other, ns.
    transfer: Summary,
}

/// Measures the row.
pub(crate) fn measure(effort: Effort) -> Result<ContentionRow> {
    let cpus = cpu::two()?;
    let (mut times, mut transfers) = ([const { Vec::new() }; 3], Vec::new());
    for _ in 0..effort.rounds {
        transfers.push(transfer(cpus)?);
        for (second, times) in Second::ALL.into_iter().zip(&mut times) {
            times.push(turn(cpus, second)?);
        }
    }
    let ratios = times.each_ref().map(|of| {
        let ratios = of.iter().zip(&times[0]).map(|(time, alone)| time / alone);
        Summary::of(&ratios.collect::<Vec<_>>()).median
    });
    let transfer = Summary::of(&transfers);
    Ok(ContentionRow { times: times.each_ref().map(|times| Summary::of(times)), ratios, transfer })
}

/// The time of a cache line from one CPU to the other, ns: two threads count one word in turns.
fn transfer(cpus: [usize; 2]) -> Result<f64> {
    let (word, begin) = (AtomicU64::new(0), Barrier::new(2));
    let count = |(number, cpu): (u64, usize)| -> Result<Duration> {
        cpu::pin(cpu)?;
        begin.wait();
        let began = Instant::now();
        for turn in 0..TRANSFERS / 2 {
            while word.load(Ordering::Acquire) != 2 * turn + number {
                std::hint::spin_loop();
            }
            word.fetch_add(1, Ordering::Release);
        }
        Ok(began.elapsed())
    };
    let took = thread::scope(|scope| {
        let other = scope.spawn(|| count((1, cpus[1])));
        // A thread of its own too: this one stays where it is.
        let took = scope.spawn(|| count((0, cpus[0]))).join().unwrap_or_else(|panic| resume_unwind(panic))?;
        other.join().unwrap_or_else(|panic| resume_unwind(panic))?;
        Ok::<_, Error>(took)
    })?;
    Ok(took.as_secs_f64() * 1e9 / TRANSFERS as f64)
}

/// The time per segment of a turn with new tables, ns.
fn turn(cpus: [usize; 2], second: Second) -> Result<f64> {
    let hook = BenchHook::Xdp;
    let setup = Setup { max_flows: 1 << 16, port: None, half_open_after: None };
    let mut ours = Ours::load(setup, &[hook.program(Subject::Ours)])?;
    let services = match second {
        Second::Idle => vec![frames::SERVER4],
        Second::OtherService => vec![frames::SERVER4, frames::SERVER4 + 1],
        Second::SameService => vec![frames::SERVER4; 2],
    };
    let begin = Barrier::new(services.len());
    let bpf: &Ebpf = ours.source().programs();
    let means = thread::scope(|scope| {
        let threads: Vec<_> = (0_u32..)
            .zip(cpus)
            .zip(&services)
            .map(|((number, cpu), service)| {
                let begin = &begin;
                scope.spawn(move || handshakes(bpf, cpu, number << 16, *service, begin))
            })
            .collect();
        let ended = threads.into_iter().map(|it| it.join().unwrap_or_else(|panic| resume_unwind(panic)));
        ended.collect::<Result<Vec<f64>>>()
    })?;
    let made = u64::from(HANDSHAKES) * services.len() as u64;
    let completed = ours.counts()?.of(Counter::Completed);
    // Two CPUs may meet at a lock word, and give a segment up.
    ensure!(completed <= made && made - completed <= made / 100, "{completed} completed of {made}");
    Ok(means.iter().sum::<f64>() / means.len() as f64)
}

/// The mean time of the segments of this thread's handshakes, ns.
fn handshakes(bpf: &Ebpf, cpu: usize, first: u32, service: u32, begin: &Barrier) -> Result<f64> {
    let hook = BenchHook::Xdp;
    let program = hook.program(Subject::Ours);
    cpu::pin(cpu)?;
    let segments = |client| frames::handshake_between(frames::CLIENT4 + first + client, service);
    // The service gets its row.
    for frame in segments(0) {
        run(bpf, hook, program, &frame, 1)?;
    }
    begin.wait();
    let mut times = Vec::new();
    for client in 1..HANDSHAKES {
        for frame in segments(client) {
            times.push(run(bpf, hook, program, &frame, 1)?);
        }
    }
    times.retain(|time| *time < LONGEST_NS);
    Ok(times.iter().sum::<f64>() / times.len() as f64)
}

impl ContentionRow {
    /// The ratio that the model predicts.
    fn predicted(&self) -> f64 {
        let [alone, apart, _] = self.times.map(|time| time.median);
        (apart + SHARED_LINES * self.transfer.median) / alone
    }

    fn is_met(&self) -> bool {
        self.ratios[Second::SameService as usize] <= GOAL
    }

    pub(crate) fn json(&self) -> Value {
        let [_, apart, together] = self.ratios.map(thousandth);
        let [alone_ns, apart_ns, together_ns] = self.times.map(|time| tenth(time.median));
        let (transfer_ns, predicted) = (tenth(self.transfer.median), thousandth(self.predicted()));
        json!({
            "name": NAME, "unit": "ratio", "ratio": together, "ratio_apart": apart, "goal_ratio": GOAL,
            "met": self.is_met(), "alone_ns": alone_ns, "apart_ns": apart_ns, "together_ns": together_ns,
            "transfer_ns": transfer_ns, "predicted_ratio": predicted,
        })
    }

    pub(crate) const HEAD: [&str; 7] = ["row", "of alone", "predicted", "apart", "alone", "transfer", "goal"];

    pub(crate) fn line(&self) -> [String; 7] {
        let ns = |time: Summary| format!("{:.0} ns", time.median);
        let ([alone, ..], [_, apart, together]) = (self.times, self.ratios);
        [
            NAME.to_owned(),
            format!("{together:.2}"),
            format!("{:.2}", self.predicted()),
            format!("{apart:.2}"),
            ns(alone),
            ns(self.transfer),
            format!("≤ {GOAL}{}", mark(self.is_met())),
        ]
    }
}
