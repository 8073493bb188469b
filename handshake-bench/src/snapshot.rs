//! The rows `snapshot_1m…`: the agent's own snapshot of a million flows.
//!
//! Every flow is made in the kernel by its packets. A round is one call of the agent's [`Snapshot::take`].

use std::mem::MaybeUninit;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use handshake_agent::model::snapshot::{Beginning, LiveOrigin, Origin, RunContext, Snapshot};
use handshake_agent::options::Filter;
use handshake_agent::owner::OwnerBook;
use handshake_common::verdict::Verdict;
use serde_json::{Value, json};

use crate::cpu;
use crate::frames::{self, CLIENT4, SERVER4};
use crate::hook::{BenchHook, Subject};
use crate::number::{mark, tenth, thousandth};
use crate::ours::{Ours, Setup};
use crate::programs::{AddressWalk, Others, Steps};
use crate::statistics::Summary;

/// A million flows of which so many of every eight get on.
#[derive(Clone, Copy)]
pub(crate) struct SnapshotCase {
    /// The row's name.
    pub(crate) name: &'static str,
    /// Have a SYN+ACK.
    answered: u32,
    /// Have completed.
    completed: u32,
}

/// The rows: six of eight complete, one waits for its ACK and one for its SYN+ACK; and no SYN is answered.
pub(crate) const CASES: [SnapshotCase; 2] = [
    SnapshotCase { name: "snapshot_1m", answered: 7, completed: 6 },
    SnapshotCase { name: "snapshot_1m_open", answered: 0, completed: 0 },
];
/// The goal, as a share of the time to read as much plain memory.
const GOAL: f64 = 0.9;
/// The number of flows. They are in 2 M slots of IPv4, as `--max-flows 1000000` makes them.
const FLOWS: u32 = 1 << 20;
/// At most one flow of this many finds both its sets full.
const FLOWS_A_LOSS: u32 = 20_000;
/// The number of responders; each has the same number of clients.
const RESPONDERS: u32 = 16;
const CLIENTS: u32 = FLOWS / RESPONDERS;
/// The clients of whom some get on: each sends a SYN.
const EIGHT: u32 = 8;

/// The measured times, in ms.
pub(crate) struct SnapshotRow {
    name: &'static str,
    /// CPU time of a snapshot.
    cpu: Summary,
    /// Wall time of a snapshot: longer where others use the CPU too.
    wall: Summary,
    /// CPU time to read one word of each cache line of as much plain memory: the lower bound of any reader of
    /// the table.
    memory: Summary,
    /// The snapshot's CPU time divided by that of the memory in the same round.
    ratio: Summary,
    flows: u64,
    slots: u64,
    half_open: u64,
    rounds: usize,
}

/// Makes the flows, and takes `rounds` snapshots of them. `others` is the bench's own object.
pub(crate) fn measure(case: &SnapshotCase, rounds: u32, others: &[u8]) -> Result<SnapshotRow> {
    let mut ours = million()?;
    cpu::stay()?;
    make(case, &mut ours, others)?;
    let context = context();
    // The first snapshot is not measured: its memory is not allocated yet, and the table's pages are not in
    // the processor's caches.
    let mut last = Snapshot::take(ours.source(), &context, None)?;
    ensure_whole(case, &last)?;
    let memory = PlainMemory::new(last.table.slots)?;
    let mut times = Vec::new();
    for _ in 0..rounds {
        let begun = (Instant::now(), cpu::time()?);
        let snapshot = Snapshot::take(ours.source(), &context, Some(&last))?;
        let taken = (begun.0.elapsed(), cpu::time()? - begun.1);
        times.push(Times { wall: taken.0, cpu: taken.1, memory: memory.read()? });
        last = snapshot;
    }
    ensure_whole(case, &last)?;
    Ok(SnapshotRow::of(case, &last, &times))
}

/// handshake with tables for a million flows, in which every open attempt is half-open at once.
pub(crate) fn million() -> Result<Ours> {
    let setup = Setup { max_flows: FLOWS, port: None, half_open_after: Some(Duration::ZERO) };
    let mut ours = Ours::load(setup, &[BenchHook::Xdp.program(Subject::Ours)])?;
    // A router's: no end of a flow is its own.
    let addresses = ["192.0.3.1", "198.51.100.1", "2001:db8:2::1", "fe80::1"].map(str::parse);
    let addresses = addresses.into_iter().collect::<Result<Vec<_>, _>>()?;
    ours.source().know_addresses_by(move || Some(addresses.clone()))?;
    Ok(ours)
}

/// What is known of the run.
pub(crate) fn context() -> Arc<RunContext> {
    Arc::new(RunContext {
        origin: Origin::Live(LiveOrigin::default()),
        began: Beginning { wall_ns: 0, ns: 0 },
        filter: Filter::default(),
        top: RESPONDERS as usize,
        owners: OwnerBook::default(),
    })
}

/// Sends each responder's share of every segment of the handshake.
pub(crate) fn make(case: &SnapshotCase, ours: &mut Ours, others: &[u8]) -> Result<()> {
    // The reference is not used here, so its map gets the smallest size: one entry.
    let mut others = Others::load(others, BenchHook::Xdp, 1, 0)?;
    let program = ours.descriptor(BenchHook::Xdp)?;
    for server in SERVER4..SERVER4 + RESPONDERS {
        let shares = [(EIGHT, false), (case.answered, true), (case.completed, false)];
        let steps = shares.into_iter().zip(frames::handshake_between(CLIENT4, server));
        // Of no packets a walk would send one.
        for ((of_eight, reply), frame) in steps.filter(|((of_eight, _), _)| *of_eight != 0) {
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
fn ensure_whole(case: &SnapshotCase, snapshot: &Snapshot) -> Result<()> {
    let flows = u64::from(FLOWS);
    let lost: u64 = snapshot.losses().iter().map(|loss| loss.count).sum();
    // A completed one that made room has its verdict: no loss of a report.
    let lost = lost.max(snapshot.table.evictions.iter().sum());
    ensure!(lost <= u64::from(FLOWS / FLOWS_A_LOSS), "{:?} lost of {flows} flows", snapshot.losses());
    let (used, settled) = (snapshot.table.used, snapshot.unsettled == 0);
    ensure!(settled && used.abs_diff(flows) <= lost, "{used} records of {flows} flows, and {lost} lost");
    let (half_open, eighth) = (snapshot.tcp.books.verdict(Verdict::HalfOpen), flows / u64::from(EIGHT));
    let expected = u64::from(EIGHT - case.completed) * eighth;
    ensure!(half_open.abs_diff(expected) <= lost, "{half_open} half-open of {flows}, and {lost} lost");
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
    fn of(case: &SnapshotCase, snapshot: &Snapshot, times: &[Times]) -> Self {
        let summary = |of: fn(&Times) -> f64| Summary::of(&times.iter().map(of).collect::<Vec<_>>());
        Self {
            name: case.name,
            cpu: summary(|times| ms(times.cpu)),
            wall: summary(|times| ms(times.wall)),
            memory: summary(|times| ms(times.memory)),
            ratio: summary(|times| times.cpu.div_duration_f64(times.memory)),
            flows: snapshot.table.used,
            slots: snapshot.table.slots,
            half_open: snapshot.tcp.books.verdict(Verdict::HalfOpen),
            rounds: times.len(),
        }
    }

    fn is_met(&self) -> bool {
        self.ratio.median <= GOAL
    }

    pub(crate) fn json(&self) -> Value {
        json!({
            "name": self.name, "unit": "ms", "ms": tenth(self.cpu.median), "least_ms": tenth(self.cpu.least),
            "wall_ms": tenth(self.wall.median), "least_wall_ms": tenth(self.wall.least),
            "memory_ms": tenth(self.memory.median), "of_memory": thousandth(self.ratio.median),
            "flows": self.flows, "half_open": self.half_open, "slots": self.slots,
            "goal": GOAL, "met": self.is_met(), "rounds": self.rounds,
        })
    }

    pub(crate) const HEAD: [&str; 7] = ["row", "CPU", "least", "clock", "memory alone", "of it", "goal"];

    pub(crate) fn line(&self) -> [String; 7] {
        [
            self.name.to_owned(),
            format!("{:.1} ms", self.cpu.median),
            format!("{:.1} ms", self.cpu.least),
            format!("{:.1} ms", self.wall.median),
            format!("{:.1} ms", self.memory.median),
            format!("{:.2}", self.ratio.median),
            format!("≤ {GOAL}{}", mark(self.is_met())),
        ]
    }
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
