//! The row `snapshot_1m`: the agent's own snapshot of a million flows.
//!
//! Every flow is made in the kernel by its packets: of every eight, six complete, one waits for its ACK and
//! one for its SYN+ACK. A round is one call of the agent's [`Snapshot::take`].

use std::mem::MaybeUninit;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use handshake_agent::model::snapshot::{Beginning, LiveOrigin, Origin, RunContext, Snapshot};
use handshake_agent::options::Filter;
use handshake_common::verdict::Verdict;
use serde_json::{Value, json};

use crate::cpu;
use crate::frames::{self, CLIENT4, SERVER4};
use crate::hook::{BenchHook, Subject};
use crate::number::{mark, tenth};
use crate::ours::{Ours, Setup};
use crate::programs::{AddressWalk, Others, Steps};
use crate::statistics::Summary;

/// The row's name.
pub(crate) const NAME: &str = "snapshot_1m";
/// The goal, in ms of CPU time.
const GOAL_MS: f64 = 10.0;
/// The number of flows. They are in 2 M slots of IPv4, as `--max-flows 1000000` makes them.
const FLOWS: u32 = 1 << 20;
/// At most one flow of this many finds both its sets full.
const FLOWS_A_LOSS: u32 = 20_000;
/// The number of responders; each has the same number of clients.
const RESPONDERS: u32 = 16;
const CLIENTS: u32 = FLOWS / RESPONDERS;
/// Of every eight clients this many send a SYN, are answered, and complete.
const EIGHT: u32 = 8;
const ANSWERED: u32 = 7;
const COMPLETED: u32 = 6;

/// The measured times, in ms.
pub(crate) struct SnapshotRow {
    /// CPU time of a snapshot.
    cpu: Summary,
    /// Wall time of a snapshot: longer where others use the CPU too.
    wall: Summary,
    /// CPU time to read one word of each cache line of as much plain memory: the lower bound of any reader of
    /// the table.
    memory: Summary,
    flows: u64,
    slots: u64,
    half_open: u64,
    rounds: usize,
}

/// Makes the flows, and takes `rounds` snapshots of them. `others` is the bench's own object.
pub(crate) fn measure(rounds: u32, others: &[u8]) -> Result<SnapshotRow> {
    let setup = Setup { max_flows: FLOWS, port: None, half_open_after: Some(Duration::ZERO) };
    let mut ours = Ours::load(setup, &[BenchHook::Xdp.program(Subject::Ours)])?;
    cpu::stay()?;
    make(&mut ours, others)?;
    let origin = Origin::Live(LiveOrigin::default());
    let context = RunContext {
        origin,
        began: Beginning { wall_ns: 0, ns: 0 },
        filter: Filter::default(),
        top: RESPONDERS as usize,
        owners: handshake_agent::owner::OwnerBook::default(),
    };
    let context = Arc::new(context);
    // The first snapshot is not measured: its memory is not allocated yet, and the table's pages are not in
    // the processor's caches.
    let mut last = Snapshot::take(ours.source(), &context, None)?;
    ensure_whole(&last)?;
    let memory = PlainMemory::new(last.table.slots)?;
    let mut times = Vec::new();
    for _ in 0..rounds {
        let begun = (Instant::now(), cpu::time()?);
        let snapshot = Snapshot::take(ours.source(), &context, Some(&last))?;
        let taken = (begun.0.elapsed(), cpu::time()? - begun.1);
        times.push(Times { wall: taken.0, cpu: taken.1, memory: memory.read()? });
        last = snapshot;
    }
    ensure_whole(&last)?;
    Ok(SnapshotRow::of(&last, &times))
}

/// Sends each responder's share of every segment of the handshake.
fn make(ours: &mut Ours, others: &[u8]) -> Result<()> {
    // The reference is not used here, so its map gets the smallest size: one entry.
    let mut others = Others::load(others, BenchHook::Xdp, 1, 0)?;
    let program = ours.descriptor(BenchHook::Xdp)?;
    for server in SERVER4..SERVER4 + RESPONDERS {
        let shares = [(EIGHT, false), (ANSWERED, true), (COMPLETED, false)];
        for ((of_eight, reply), frame) in shares.into_iter().zip(frames::handshake_between(CLIENT4, server)) {
            others.walk(&Steps {
                hook: BenchHook::Xdp,
                program: &program,
                walk: AddressWalk { base: CLIENT4, mask: CLIENTS - 1, reply },
                at_random: false,
                frame: &frame,
                repeat: CLIENTS / EIGHT * of_eight,
            })?;
        }
    }
    Ok(())
}

/// Fails unless the snapshot has all flows, except those that found both their sets full.
fn ensure_whole(snapshot: &Snapshot) -> Result<()> {
    let flows = u64::from(FLOWS);
    let lost: u64 = snapshot.losses().iter().map(|loss| loss.count).sum();
    ensure!(lost <= u64::from(FLOWS / FLOWS_A_LOSS), "{:?} lost of {flows} flows", snapshot.losses());
    let (used, settled) = (snapshot.table.used, snapshot.unsettled == 0);
    ensure!(settled && used.abs_diff(flows) <= lost, "{used} records of {flows} flows, and {lost} lost");
    let (half_open, eighth) = (snapshot.tcp.books.verdict(Verdict::HalfOpen), flows / u64::from(EIGHT));
    ensure!(half_open.abs_diff(2 * eighth) <= lost, "{half_open} half-open of {flows}, and {lost} lost");
    Ok(())
}

/// The times of a round: of the snapshot by wall clock and by CPU, and of reading as much memory by CPU.
struct Times {
    wall: Duration,
    cpu: Duration,
    memory: Duration,
}

/// As many cache lines of plain memory as a table has slots: the time to read them is the machine's and not
/// the snapshot's.
struct PlainMemory(Vec<[u64; 8]>);

impl PlainMemory {
    fn new(slots: u64) -> Result<Self> {
        let slots = usize::try_from(slots).context("a table that fits memory")?;
        let mut lines = Vec::with_capacity(slots);
        // Before the first byte is written: existing pages keep their size.
        in_small_pages(lines.spare_capacity_mut());
        lines.resize(slots, [1; 8]);
        Ok(Self(lines))
    }

    /// Reads one word of each line; returns the CPU time.
    fn read(&self) -> Result<Duration> {
        let begun = cpu::time()?;
        let sum = self.0.iter().fold(0_u64, |sum, line| sum.wrapping_add(line[0]));
        std::hint::black_box(sum);
        Ok(cpu::time()? - begun)
    }
}

/// Makes the kernel back memory with pages of 4 KiB, as a table's memory is, whatever the system does with
/// large allocations.
fn in_small_pages<T>(memory: &mut [MaybeUninit<T>]) {
    const PAGE: usize = 4096;
    let start = memory.as_mut_ptr().cast::<u8>();
    let skipped = start.align_offset(PAGE);
    let Some(length) = size_of_val(memory).checked_sub(skipped).map(|rest| rest / PAGE * PAGE) else {
        return;
    };
    // SAFETY: whole pages within the exclusively borrowed range; the advice changes no byte. A kernel without
    // huge pages refuses it, and uses none.
    unsafe { libc::madvise(start.add(skipped).cast(), length, libc::MADV_NOHUGEPAGE) };
}

impl SnapshotRow {
    fn of(snapshot: &Snapshot, times: &[Times]) -> Self {
        let summary = |of: fn(&Times) -> Duration| {
            let ms: Vec<f64> = times.iter().map(|times| of(times).as_secs_f64() * 1e3).collect();
            Summary::of(&ms)
        };
        Self {
            cpu: summary(|times| times.cpu),
            wall: summary(|times| times.wall),
            memory: summary(|times| times.memory),
            flows: snapshot.table.used,
            slots: snapshot.table.slots,
            half_open: snapshot.tcp.books.verdict(Verdict::HalfOpen),
            rounds: times.len(),
        }
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
