//! The flow tables: how full they are, and what was evicted.

use handshake_common::abi::Counter;

use crate::model::books::word;
use crate::source::Reading;

/// How full the flow tables are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TableUse {
    /// Slots of both tables.
    pub slots: u64,
    /// Slots that hold a record.
    pub used: u64,
    /// Records evicted, in the order of [`EVICTIONS`].
    pub evictions: [u64; EVICTIONS.len()],
}

/// The kinds of records that evictions are counted by, from the least worth to the most.
pub const EVICTIONS: [(&str, Counter); 6] = [
    ("expired", Counter::EvictedExpired),
    ("closed", Counter::EvictedClosed),
    ("midstream", Counter::EvictedMidstream),
    ("udp", Counter::EvictedUdp),
    ("half_open", Counter::EvictedHalfOpen),
    ("completed", Counter::EvictedCompleted),
];

impl TableUse {
    pub(super) fn of(reading: &Reading, used: u64) -> Self {
        let evictions = EVICTIONS.map(|(_, counter)| word(&reading.counters, counter));
        Self { slots: reading.slots, used, evictions }
    }
}
