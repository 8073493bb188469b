//! Some of the records that a scan shows: the oldest open attempts, the latest silent connections and UDP flows,
//! and the number of records by state. A table may hold millions of records, so only a few thousand are kept.

use std::collections::BinaryHeap;

use handshake_common::record::{Detail, Record, State};

use super::flow::Flow;
use crate::source::Moment;
use crate::source::scan::Occupancy;

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

/// Chooses the records to keep.
pub struct Selection {
    open: LeastRecords,
    open_found: u64,
    silent: LeastRecords,
    udp: LeastRecords,
}

impl Selection {
    /// Keeps so many.
    #[must_use]
    pub fn of(most: Most) -> Self {
        Self {
            open: LeastRecords::of(most.open),
            open_found: 0,
            silent: LeastRecords::of(most.silent),
            udp: LeastRecords::of(most.udp),
        }
    }

    /// Adds a record if it should be kept. Called for every record shown, so the cheapest checks come first.
    pub fn add(&mut self, record: &Record, moment: &Moment, fits: impl FnOnce() -> bool) {
        let Moment { now, clocks, .. } = moment;
        match &record.detail {
            // An attempt past T2 is no longer open.
            Detail::Tcp(tcp) if record.state.is_open() && !tcp.expired(now.ns, clocks) => {
                if fits() {
                    self.open_found += 1;
                    self.open.offer(tcp.opened_ns, record);
                }
            }
            Detail::Tcp(tcp) if record.is_silent(*now, clocks) => {
                if fits() {
                    // Inverted, so that the latest has the least key.
                    self.silent.offer(u64::MAX - tcp.opened_ns, record);
                }
            }
            Detail::Udp(udp) if !record.expired(*now, clocks) => {
                if fits() {
                    // Inverted, so that the latest flow has the least key.
                    self.udp.offer(u64::MAX - udp.opened_ns, record);
                }
            }
            Detail::Tcp(_) | Detail::Udp(_) => {}
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

    fn offer(&mut self, key: u64, record: &Record) {
        if self.records.len() < self.most {
            self.heap.push((key, self.records.len()));
            self.records.push(*record);
        } else if let Some(mut largest) = self.heap.peek_mut()
            && key < largest.0
        {
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
