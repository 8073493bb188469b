//! Some of the records that a scan shows: the oldest open attempts, the latest silent connections and UDP flows,
//! and the number of records by state. A table may hold millions of records, so only a few thousand are kept.

use std::collections::BinaryHeap;

use handshake_common::record::{Brief, Detail, Record, State};

use super::flow::Flow;
use crate::source::Moment;
use crate::source::scan::{Look, Occupancy};

/// Most records that are kept.
#[derive(Clone, Copy, Debug)]
pub struct Most {
    /// Open attempts: the oldest.
    pub open: usize,
    /// Silent connections: the latest.
    pub silent: usize,
    /// UDP flows: the latest.
    pub udp: usize,
}

impl Most {
    /// The states whose records are kept, as bits.
    pub const STATES: u64 = State::OPEN as u64 | State::UDP as u64;
}

/// The kept records.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeptRecords {
    /// The oldest open attempts that pass the filter, the oldest first.
    pub open: Vec<Flow>,
    /// Number of open attempts that pass the filter, kept or not.
    pub open_found: u64,
    /// The latest silent connections that pass the filter, the latest first.
    pub silent: Vec<Flow>,
    /// The latest UDP flows that pass the filter, the latest first.
    pub udp: Vec<Flow>,
    /// Number of records by state.
    pub occupancy: Occupancy,
    /// The flow that was asked for, if its record still exists.
    pub wanted: Option<Flow>,
}

/// Chooses the records to keep, as they are at one moment.
pub struct Selection {
    moment: Moment,
    open: LeastRecords,
    open_found: u64,
    silent: LeastRecords,
    udp: LeastRecords,
}

/// What records are kept as.
#[derive(Clone, Copy)]
enum Kind {
    Open,
    Silent,
    Udp,
}

impl Selection {
    /// Keeps so many.
    #[must_use]
    pub fn of(most: Most, moment: Moment) -> Self {
        Self {
            moment,
            open: LeastRecords::of(most.open),
            open_found: 0,
            silent: LeastRecords::of(most.silent),
            udp: LeastRecords::of(most.udp),
        }
    }

    /// What a record is kept as, and its key: of each kind the least are kept.
    fn place(&self, brief: &Brief) -> Option<(Kind, u64)> {
        let Moment { now, clocks, .. } = &self.moment;
        match &brief.detail {
            // An attempt past T2 is no longer open.
            Detail::Tcp(tcp) if brief.state.is_open() && !tcp.expired(now.ns, clocks) => {
                Some((Kind::Open, tcp.opened_ns))
            }
            // Inverted, so that the latest has the least key.
            Detail::Tcp(tcp) if brief.is_silent(*now, clocks) => {
                Some((Kind::Silent, u64::MAX - tcp.opened_ns))
            }
            Detail::Udp(udp) if !brief.expired(*now, clocks) => Some((Kind::Udp, u64::MAX - udp.opened_ns)),
            Detail::Tcp(_) | Detail::Udp(_) => None,
        }
    }

    const fn kept_as(&mut self, kind: Kind) -> &mut LeastRecords {
        match kind {
            Kind::Open => &mut self.open,
            Kind::Silent => &mut self.silent,
            Kind::Udp => &mut self.udp,
        }
    }

    /// Adds a record if it should be kept, and `fits`. It is there as a whole if it was
    /// [needed](Look::needs_whole).
    pub fn add(&mut self, brief: &Brief, whole: Option<&Record>, fits: impl FnOnce() -> bool) {
        let Some((kind, key)) = self.place(brief).filter(|_| fits()) else { return };
        self.open_found += u64::from(matches!(kind, Kind::Open));
        if let Some(record) = whole {
            self.kept_as(kind).offer(key, record);
        }
    }

    /// What was kept of a scan that counted this.
    #[must_use]
    pub fn kept(self, occupancy: Occupancy, wanted: Option<Flow>) -> KeptRecords {
        KeptRecords {
            open: self.open.sorted(),
            open_found: self.open_found,
            silent: self.silent.sorted(),
            udp: self.udp.sorted(),
            occupancy,
            wanted,
        }
    }
}

impl Look for Selection {
    fn needs_whole(&self, brief: &Brief) -> bool {
        self.place(brief).is_some_and(|(kind, key)| match kind {
            Kind::Open => self.open.has_room(key),
            Kind::Silent => self.silent.has_room(key),
            Kind::Udp => self.udp.has_room(key),
        })
    }

    fn see(&mut self, brief: &Brief, whole: Option<&Record>) {
        self.add(brief, whole, || true);
    }
}

/// The records with the least keys, up to a maximum. Records stay in place; the heap, with the largest key on
/// top, moves only keys and indices.
struct LeastRecords {
    most: usize,
    records: Vec<Record>,
    heap: BinaryHeap<(u64, usize)>,
}

impl LeastRecords {
    const fn of(most: usize) -> Self {
        Self { most, records: Vec::new(), heap: BinaryHeap::new() }
    }

    /// Would a record with this key be kept?
    fn has_room(&self, key: u64) -> bool {
        self.records.len() < self.most || self.heap.peek().is_some_and(|largest| key < largest.0)
    }

    fn offer(&mut self, key: u64, record: &Record) {
        if !self.has_room(key) {
            return;
        }
        if self.records.len() < self.most {
            self.heap.push((key, self.records.len()));
            self.records.push(*record);
        } else if let Some(mut largest) = self.heap.peek_mut() {
            self.records[largest.1] = *record;
            largest.0 = key;
        }
    }

    /// The flows in the order of their keys.
    fn sorted(self) -> Vec<Flow> {
        let order = self.heap.into_sorted_vec();
        order.into_iter().map(|(_, place)| Flow::of(self.records[place])).collect()
    }
}
