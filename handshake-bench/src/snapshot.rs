//! The row `snapshot_1m`: the agent's own snapshot of a million flows.
//!
//! Every flow is made by its packets, in the kernel: of eight, six complete, one waits for its ACK and one for its SYN+ACK.
//! A round is the agent's [`Snapshot::take`] and nothing else.

use std::mem::MaybeUninit;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use handshake_agent::model::snapshot::{Context, Origin, Snapshot};
use handshake_agent::options::Filter;
use handshake_common::verdict::Verdict;
use serde_json::{Value, json};

use crate::cpu;
use crate::frames::{self, CLIENT4, SERVER4};
use crate::hook::{Hook, Subject};
use crate::number::{mark, tenth};
use crate::ours::{Ours, Setup};
use crate::programs::{Others, Steps, Walk};
use crate::statistics::Summary;

/// The row.
pub(crate) const NAME: &str = "snapshot_1m";
/// CPU time that is the goal.
const GOAL_MS: f64 = 10.0;
/// In 2 M slots of IPv4: what `--max-flows 1000000` gives.
const FLOWS: u32 = 1 << 20;
/// Of so many flows one at most finds both its sets full.
const FLOWS_A_LOSS: u32 = 20_000;
/// Responders; each has as many clients as the others.
const RESPONDERS: u32 = 16;
const CLIENTS: u32 = FLOWS / RESPONDERS;
/// Clients come in eights: so many begin, are answered, and complete.
const EIGHT: u32 = 8;
const ANSWERED: u32 = 7;
const COMPLETED: u32 = 6;

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

/// Makes the flows, and takes so many snapshots of them. `others` is the bench's own object.
pub(crate) fn measure(rounds: u32, others: &[u8]) -> Result<SnapshotRow> {
    let setup = Setup { max_flows: FLOWS, port: None, half_open_after: Some(Duration::ZERO) };
    let mut ours = Ours::load(setup, &[Hook::Xdp.program(Subject::Ours)])?;
    cpu::stay()?;
    make(&mut ours, others)?;
    let origin = Origin::Live { interfaces: Vec::new() };
    let context = Context { origin, from_ns: 0, filter: Filter::default(), top: RESPONDERS as usize };
    let context = Arc::new(context);
    // This one finds no memory of ours in use yet, and no page of the table in the processor's.
    let mut last = Snapshot::take(ours.source(), &context, None)?;
    ensure_whole(&last)?;
    let memory = Plain::new(last.table.slots)?;
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

/// Has each responder's clients send what they send, and get their answers.
fn make(ours: &mut Ours, others: &[u8]) -> Result<()> {
    // The usual way is not asked here: one entry is the least that its map can have.
    let mut others = Others::load(others, Hook::Xdp, 1, 0)?;
    let program = ours.descriptor(Hook::Xdp)?;
    for server in SERVER4..SERVER4 + RESPONDERS {
        let shares = [(EIGHT, false), (ANSWERED, true), (COMPLETED, false)];
        for ((of_eight, reply), frame) in shares.into_iter().zip(frames::handshake_with(server)) {
            others.walk(&Steps {
                hook: Hook::Xdp,
                program: &program,
                walk: Walk { base: CLIENT4, mask: CLIENTS - 1, reply },
                at_random: false,
                frame: &frame,
                repeat: CLIENTS / EIGHT * of_eight,
            })?;
        }
    }
    Ok(())
}

/// Fails unless the snapshot has the flows that were made, but for those that found both their sets full.
fn ensure_whole(snapshot: &Snapshot) -> Result<()> {
    let flows = u64::from(FLOWS);
    let lost: u64 = snapshot.losses().iter().map(|(_, lost)| lost).sum();
    ensure!(lost <= u64::from(FLOWS / FLOWS_A_LOSS), "{:?} of {flows} flows", snapshot.losses());
    let (used, settled) = (snapshot.table.used, snapshot.unsettled == 0);
    ensure!(settled && used.abs_diff(flows) <= lost, "{used} records of {flows} flows, and {lost} lost");
    let (half_open, eighth) = (snapshot.tcp.books.verdict(Verdict::HalfOpen), flows / u64::from(EIGHT));
    ensure!(half_open.abs_diff(2 * eighth) <= lost, "{half_open} half-open of {flows}, and {lost} lost");
    Ok(())
}

/// A round's: of the snapshot by the clock and by CPU, and of reading as much memory.
struct Times {
    wall: Duration,
    cpu: Duration,
    memory: Duration,
}

/// As many lines of plain memory as a table has slots: what the machine asks for reading them is no snapshot's fault.
struct Plain(Vec<[u64; 8]>);

impl Plain {
    fn new(slots: u64) -> Result<Self> {
        let slots = usize::try_from(slots).context("a table that fits memory")?;
        let mut lines = Vec::with_capacity(slots);
        // Before the first byte is written: pages that are there stay as they are.
        in_small_pages(lines.spare_capacity_mut());
        lines.resize(slots, [1; 8]);
        Ok(Self(lines))
    }

    /// One word of each line, and nothing with it; CPU time.
    fn read(&self) -> Result<Duration> {
        let begun = cpu::time()?;
        let sum = self.0.iter().fold(0_u64, |sum, line| sum.wrapping_add(line[0]));
        std::hint::black_box(sum);
        Ok(cpu::time()? - begun)
    }
}

/// Has memory come in pages of 4 KiB, as a table's does, whatever the system does with large pieces.
fn in_small_pages<T>(memory: &mut [MaybeUninit<T>]) {
    const PAGE: usize = 4096;
    let start = memory.as_mut_ptr().cast::<u8>();
    let skipped = start.align_offset(PAGE);
    let Some(length) = size_of_val(memory).checked_sub(skipped).map(|rest| rest / PAGE * PAGE) else {
        return;
    };
    // SAFETY: whole pages within the range that we were given; the advice changes no byte. A kernel without huge pages
    // refuses it, and has none to give.
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
