//! From a reading to a block.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;

use handshake_common::record::Record;

use super::{Block, Ends, LeftOut, kept, kind};
use crate::delta::{Rows, Worded as _};
use crate::error::Error;
use crate::model::context::{Origin, RunContext};
use crate::model::flow::Flow;
use crate::model::kept::{KeptRecords, Most, Selection};
use crate::model::snapshot::Snapshot;
use crate::source::scan::{Onlooker, Scan};
use crate::source::{Moment, Reading, ServiceReading, Source};

/// Blocks from a whole one to the next: what must be read to see one moment, at most.
const WHOLE_EVERY: u32 = 60;
/// Most flows of a block that no event told of.
const MOST: Most = Most { open: 1_000, silent: 200, udp: 200 };
/// Rows of single flows that each block earns, and most that are saved up: some 100 bytes each, so that an hour
/// stays within its room however many flows there are.
const EARNED: usize = 500;
const MOST_SAVED: usize = 10_000;

/// Makes blocks of readings.
#[derive(Default)]
pub struct Recorder {
    /// The rows of the block before; none where the next one is to be whole.
    before: Rows,
    last: Option<Snapshot>,
    /// Blocks since the latest whole one.
    since_whole: u32,
    /// Rows of single flows that may yet be written.
    saved: usize,
}

impl Recorder {
    /// Makes the next block whole: the one before is lost.
    pub fn begin_anew(&mut self) {
        self.before = Rows::default();
    }

    /// The block of this moment; `ends` are the attempts that have ended since the one before.
    ///
    /// # Errors
    ///
    /// Those of reading the source; the ends stay.
    pub fn block(
        &mut self,
        source: &mut dyn Source,
        context: &Arc<RunContext>,
        ends: &mut Ends,
    ) -> Result<Block, Error> {
        let reading = source.read()?;
        let moment = Moment { now: reading.now, stopped: reading.stopped, clocks: source.clocks() };
        let mut selection = Selection::of(MOST, moment);
        let mut onlooker = Onlooker::new(Most::STATES, &mut selection).with_silent();
        let scan = source.scan(reading.now, Some(&mut onlooker));
        let occupancy = onlooker.occupancy();
        let records = selection.kept(occupancy, None);
        let readings = (source.services(), source.workloads());
        let snapshot = Snapshot::build(&reading, &scan, &readings, context, self.last.as_ref());
        if self.since_whole + 1 >= WHOLE_EVERY {
            self.begin_anew();
        }
        let is_whole = self.before == Rows::default();
        self.since_whole = if is_whole { 0 } else { self.since_whole + 1 };
        self.saved = (self.saved + EARNED).min(MOST_SAVED);
        let mut rows = Rows::default();
        put_reading(&mut rows, &reading, &moment);
        put_services(&mut rows, &readings);
        put_context(&mut rows, context, &scan);
        rows.set(kind::INHERITED, 0, &snapshot.inherited());
        self.put_flows(&mut rows, &scan, &records, std::mem::take(ends));
        self.put_owners(&mut rows, context, &readings.1);
        self.before.clear(kind::ENDED);
        let changes = rows.changes_since(&self.before);
        (self.before, self.last) = (rows, Some(snapshot));
        Ok(Block { is_whole, wall_ns: reading.wall_ns, ns: reading.now.ns, changes })
    }

    /// Puts the flows that there is room for: failures first, what waits next.
    fn put_flows(&mut self, rows: &mut Rows, scan: &Scan, records: &KeptRecords, ends: Ends) {
        let (ended, mut left_out) = ends.within(self.saved);
        self.saved -= ended.len();
        for (flow, number) in ended.iter().zip(0..) {
            rows.set(kind::ENDED, number, flow);
        }
        let mut kept: Vec<Record> = Vec::new();
        let kinds = [(kind::OPEN, &records.open), (kind::SILENT, &records.silent), (kind::UDP, &records.udp)];
        for (kind, flows) in kinds {
            kept.extend(flows.iter().filter(|flow| self.put_flow(rows, kind, flow)).map(|flow| flow.record));
        }
        let open = rows.each_words(kind::OPEN).count() as u64;
        left_out.open = records.open_found.saturating_sub(open);
        let LeftOut { open, failed, ended } = left_out;
        rows.set(kind::COUNTED, 0, &(records.occupancy.to_vec(), [open, failed, ended]));
        scan.keep(rows, kept.iter());
    }

    /// Puts a flow that is as it was, or that there is room for.
    fn put_flow(&mut self, rows: &mut Rows, kind: u8, flow: &Flow) -> bool {
        let mut hasher = DefaultHasher::new();
        flow.id().hash(&mut hasher);
        let (number, mut words) = (hasher.finish(), Vec::new());
        flow.record.put(&mut words);
        let is_known = self.before.words(kind, number) == Some(words.as_slice());
        if !is_known {
            let Some(saved) = self.saved.checked_sub(1) else { return false };
            self.saved = saved;
        }
        rows.set_words(kind, number, words);
        true
    }

    /// Puts the owners of the groups that are in the other rows, as far as they are known by now.
    fn put_owners(&self, rows: &mut Rows, context: &RunContext, workloads: &[ServiceReading]) {
        let mut groups: HashSet<u64> = workloads.iter().filter_map(ServiceReading::group).collect();
        for kind in [kind::OPEN, kind::SILENT] {
            groups.extend(
                rows.each::<Record>(kind).into_iter().flatten().flat_map(|(_, of)| of.control_groups.ids),
            );
        }
        let ended = rows.each::<Flow>(kind::ENDED).into_iter().flatten();
        groups.extend(ended.flat_map(|(_, flow)| flow.record.control_groups.ids));
        for group in groups.into_iter().filter(|group| *group != 0) {
            if let Some(words) = self.before.words(kind::OWNER, group) {
                rows.set_words(kind::OWNER, group, words.to_vec());
            } else if let Some(owner) = context.owners.of(group) {
                rows.set(kind::OWNER, group, &owner);
            }
        }
    }
}

fn put_reading(rows: &mut Rows, reading: &Reading, moment: &Moment) {
    let clocks = ((reading.now, reading.wall_ns), (reading.stopped, moment.clocks));
    let losses = [reading.lost_before_hook, reading.unreadable_counters, reading.missed_snapshots];
    rows.set(kind::HEAD, 0, &(clocks, ((reading.slots, losses), reading.opens)));
    rows.set(kind::COUNTERS, 0, &reading.counters.words);
    for (block, number) in reading.classes.iter().zip(0..) {
        rows.set(kind::CLASSES, number, &block.packets);
    }
    rows.set(kind::GONE, 0, &reading.gone.packets);
    for (histogram, leg) in reading.histograms.iter().zip(0..) {
        rows.set(kind::HISTOGRAM, leg, &histogram.buckets);
    }
    rows.set(kind::SIGHT, 0, &reading.sight);
}

fn put_services(rows: &mut Rows, (services, workloads): &(Vec<ServiceReading>, Vec<ServiceReading>)) {
    for (kind, readings) in [(kind::SERVICE, services), (kind::WORKLOAD, workloads)] {
        for reading in readings {
            let service = &reading.service;
            let named = ((service.address, service.port), (service.protocol, service.family));
            rows.set(kind, u64::from(reading.row), &(named, service.gauges));
            if !reading.connects.is_empty() {
                rows.set_words(kind::CONNECTS, u64::from(reading.row), by_place(&reading.connects));
            }
        }
    }
}

/// Counts by their places, those of 0 included, up to the last.
fn by_place(placed: &[(u32, u64)]) -> Vec<u64> {
    let mut words = Vec::new();
    for (place, count) in placed {
        words.resize(*place as usize, 0);
        words.push(*count);
    }
    words
}

fn put_context(rows: &mut Rows, context: &RunContext, scan: &Scan) {
    let origin = match &context.origin {
        Origin::Live(live) => live.clone(),
        // Of a capture nothing is recorded.
        Origin::Capture(_) => Default::default(),
    };
    rows.set(kind::CONTEXT, 0, &((origin, context.began), context.filter.clone()));
    rows.set(kind::HOST, 0, &kept::addresses(scan.host().all()));
}
