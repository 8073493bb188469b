//! The row `recording_1m`: what `--record` takes of a million flows, each second, and whether an hour of it fits.
//!
//! The flows are those of the row `snapshot_1m`. Before each block new attempts come, of which nothing is known from
//! the block before, and as many flows are told to have ended: both are more than a block has room for. A block counts
//! as the second it stands for.

use anyhow::{Result, ensure};
use handshake_agent::model::flow::Flow;
use handshake_agent::recording::{Ends, Recorder};
use handshake_agent::source::Source as _;
use handshake_common::verdict::Verdict;
use handshake_record::encode;
use serde_json::{Value, json};

use crate::cpu;
use crate::frames::{self, CLIENT4, SERVER4};
use crate::hook::BenchHook;
use crate::number::{mark, tenth};
use crate::ours::Ours;
use crate::programs::{AddressWalk, Others, Steps};
use crate::snapshot::{self, million};
use crate::statistics::Summary;

/// The row's name.
pub(crate) const NAME: &str = "recording_1m";
/// Blocks; every sixtieth is whole.
const BLOCKS: usize = 180;
/// Attempts that begin in a second.
const BEGUN: u32 = 3_000;
/// Where the first of their clients is, behind those of the million.
const FIRST: u32 = CLIENT4 + (1 << 20);
/// The goal: the room of a recording, for its hour.
const ROOM: f64 = (256 << 20) as f64;
const HOUR: f64 = 3_600.0;

/// The figures of the row.
pub(crate) struct RecordingRow {
    /// CPU time of a block, in ms, the snapshot that it is made of included.
    cpu: Summary,
    /// Bytes of an hour, by the mean of all blocks.
    hour: f64,
    flows: u64,
}

/// Makes the flows, and records them. `others` is the bench's own object.
pub(crate) fn measure(others: &[u8]) -> Result<RecordingRow> {
    let mut ours = million()?;
    cpu::stay()?;
    snapshot::make(&snapshot::CASES[0], &mut ours, others)?;
    let mut others = Others::load(others, BenchHook::Xdp, 1, 0)?;
    let (program, context) = (ours.descriptor(BenchHook::Xdp)?, snapshot::context());
    let [syn, ..] = frames::handshake_between(CLIENT4, SERVER4);
    let (mut recorder, mut times, mut bytes, mut wholes) = (Recorder::default(), Vec::new(), 0, 0);
    for (number, base) in (0..BLOCKS).zip((FIRST..).step_by(BEGUN.next_power_of_two() as usize)) {
        others.walk(&Steps {
            hook: BenchHook::Xdp,
            program: &program,
            walk: AddressWalk { base, mask: BEGUN.next_power_of_two() - 1, reply: false },
            at_random: false,
            frame: &syn,
            repeat: BEGUN,
        })?;
        let mut ends = ends(&mut ours, number * BEGUN as usize);
        let begun = cpu::time()?;
        let block = recorder.block(ours.source(), &context, &mut ends)?;
        bytes += encode(&block).len();
        times.push((cpu::time()? - begun).as_secs_f64() * 1e3);
        wholes += usize::from(block.is_whole);
    }
    ensure!(wholes == BLOCKS / 60, "{wholes} whole blocks of {BLOCKS}");
    let flows = handshake_agent::model::snapshot::Snapshot::take(ours.source(), &context, None)?.table.used;
    ensure!(flows > 1 << 20, "{flows} flows");
    Ok(RecordingRow { cpu: Summary::of(&times), hour: bytes as f64 / BLOCKS as f64 * HOUR, flows })
}

/// As many flows as begin in a second, of those in the tables behind the first so many, as if they had failed.
fn ends(ours: &mut Ours, skipped: usize) -> Ends {
    let (mut ends, mut met) = (Ends::default(), 0);
    ours.source().for_each_record(&mut |record| {
        if (skipped..skipped + BEGUN as usize).contains(&met) {
            ends.push(Flow::ended(*record, Verdict::Refused, 1));
        }
        met += 1;
    });
    ends
}

impl RecordingRow {
    fn is_met(&self) -> bool {
        self.hour <= ROOM
    }

    pub(crate) fn json(&self) -> Value {
        json!({
            "name": NAME, "unit": "ms", "ms": tenth(self.cpu.median), "least_ms": tenth(self.cpu.least),
            "hour_bytes": self.hour.round(), "flows": self.flows, "goal_bytes": ROOM, "met": self.is_met(),
        })
    }

    pub(crate) const HEAD: [&str; 7] = ["row", "CPU", "least", "a second", "an hour", "flows", "goal"];

    pub(crate) fn line(&self) -> [String; 7] {
        let mib = |bytes: f64| bytes / f64::from(1 << 20);
        [
            NAME.to_owned(),
            format!("{:.1} ms", self.cpu.median),
            format!("{:.1} ms", self.cpu.least),
            format!("{:.0} KiB", self.hour / HOUR / 1024.0),
            format!("{:.0} MiB", mib(self.hour)),
            self.flows.to_string(),
            format!("≤ {:.0} MiB{}", mib(ROOM), mark(self.is_met())),
        ]
    }
}
