//! The origin of the figures: the kernel's maps, or a capture run through the same engine.

pub mod live;
pub mod local;
pub mod opens;
mod patience;
pub mod replay;
pub mod scan;
pub mod settings;
pub mod sight;

use std::ops::AddAssign;
use std::sync::Arc;

use handshake_common::abi::{
    ClassBlock, CounterBlock, Histogram, SERVICES, Service, WORKLOAD, group_of_address,
};
use handshake_common::books::{ConnectRow, ServiceRow};
use handshake_common::record::{Clocks, Now, Record};
use handshake_common::verdict::Leg;

use crate::error::Error;
use opens::KernelOpens;
use scan::{Onlooker, Scan};
use sight::Sight;

/// One reading of everything except the flows. All of it is read at the time `now`, before the tables are.
#[derive(Clone)]
pub struct Reading {
    /// The time on the records' clocks.
    pub now: Now,
    /// The same time, ns since the Unix epoch.
    pub wall_ns: u64,
    /// Whether time has stopped, as at the end of a capture: an open attempt then counts as half-open at any
    /// age.
    pub stopped: bool,
    /// The counters of all CPUs: sums, and for each `Max…` the largest value.
    pub counters: CounterBlock,
    /// One class block per interface that is watched, in the order in which they came; of a capture, one per
    /// group. Summed over the CPUs.
    pub classes: Vec<ClassBlock>,
    /// The packets of interfaces that were watched and are gone.
    pub gone: ClassBlock,
    /// One histogram per leg, in the order of `Leg::ALL`, summed over the CPUs.
    pub histograms: Box<[Histogram; Leg::ALL.len()]>,
    /// The number of slots in both tables together.
    pub slots: u64,
    /// Packets that the interfaces have lost before any hook, since the source was opened.
    pub lost_before_hook: u64,
    /// How often the figures of [`lost_before_hook`](Self::lost_before_hook) could not be read.
    pub unreadable_counters: u64,
    /// Readings before this one that failed for the moment ([`Error::is_passing`]).
    pub missed_snapshots: u64,
    /// What the looks at the hooks have found, up to one after the counters were read.
    pub sight: Sight,
    /// The connections that the kernel has opened; `None` for a capture, and where they cannot be read.
    pub opens: Option<KernelOpens>,
}

/// Packets lost before any hook, as far as the interfaces' figures could be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LostBeforeHook {
    /// The packets.
    pub packets: u64,
    /// How often a figure could not be read, or began anew: packets may be missing in the sum.
    pub unreadable: u64,
}

impl AddAssign for LostBeforeHook {
    fn add_assign(&mut self, other: Self) {
        self.packets += other.packets;
        self.unreadable += other.unreadable;
    }
}

/// A time at which flows are judged, with the clocks that decide their age.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// The time on the records' clocks.
    pub now: Now,
    /// Whether time has stopped, as at the end of a capture: an open attempt is then half-open at any age,
    /// and an unanswered flow gets no answer.
    pub stopped: bool,
    /// The ages at which a flow's verdict changes.
    pub clocks: Clocks,
}

/// A source of counters, records and services.
pub trait Source {
    /// Reads counters and clocks consistently: the counters balance.
    ///
    /// # Errors
    ///
    /// [`Error::Live`] if the maps or clocks cannot be read, or the counters never settle.
    fn read(&mut self) -> Result<Reading, Error>;
    /// Summarises the records in the tables by their age at `now`. `onlooker` sees the records as they are
    /// scanned.
    fn scan(&self, now: Now, onlooker: Option<&mut Onlooker<'_>>) -> Scan;
    /// Calls `visit` with a consistent copy of every record in the tables.
    fn for_each_record(&self, visit: &mut dyn FnMut(&Record));
    /// The valid rows of the service table, with their row numbers. Rows 0 and SERVICES/2 are `other`.
    fn services(&self) -> Vec<ServiceReading>;
    /// The valid rows of the workloads, likewise; row SERVICES is `other`. A capture has none.
    fn workloads(&self) -> Vec<ServiceReading> {
        Vec::new()
    }
    /// The times T1 and T2, and the idle times.
    fn clocks(&self) -> Clocks;
}

/// A row of the service table.
#[derive(Clone, Debug)]
pub struct ServiceReading {
    /// Its number.
    pub row: u16,
    /// What it counts.
    pub service: Service,
    /// Its completions by their time.
    pub connects: Placed,
}

impl ServiceReading {
    /// The control group whose workload it is, where it is one's.
    pub(crate) const fn group(&self) -> Option<u64> {
        if self.service.protocol == WORKLOAD { Some(group_of_address(self.service.address)) } else { None }
    }
}

/// Counts by their [place](handshake_common::latency::connect_place) among a service's times to connect, in order,
/// without those of 0. Most services have a few.
pub type Placed = Arc<[(u32, u64)]>;

fn placed(words: impl IntoIterator<Item = u64>) -> Placed {
    (0..).zip(words).filter(|(_, count)| *count != 0).collect()
}

/// The valid rows of a service table with their numbers: those of services, and the `other` row of each half
/// if it counts anything. What a row has counted moves to `other` when the row is given to another service: no
/// reading has it twice. Where such exchanges come too often to read between two of them, what they move may be
/// missing in one reading.
fn service_rows(rows: &[ServiceRow], connects: &[ConnectRow]) -> Vec<ServiceReading> {
    let numbered: Vec<(&ServiceRow, u16)> = rows.iter().zip(0..).collect();
    let services = numbered.get(..SERVICES as usize).unwrap_or(&numbered);
    services.chunks(SERVICES as usize / 2).flat_map(|half| half_of_rows(half, connects)).collect()
}

/// The same of the workloads, whose rows are behind those of the services.
fn workload_rows(rows: &[ServiceRow]) -> Vec<ServiceReading> {
    let numbered: Vec<(&ServiceRow, u16)> = rows.iter().zip(0..).skip(SERVICES as usize).collect();
    half_of_rows(&numbered, &[])
}

/// A TCP service's completions by their time.
fn connects_of(row: u16, connects: &[ConnectRow]) -> Placed {
    let words = connects.get(usize::from(row)).into_iter().flatten();
    // A word of `other` may be below 0 for a moment, as its gauges.
    placed(words.map(|word| word.load().cast_signed().max(0).cast_unsigned()))
}

/// The same of one part of the table, whose first row is `other`.
fn half_of_rows(rows: &[(&ServiceRow, u16)], connects: &[ConnectRow]) -> Vec<ServiceReading> {
    /// Readings until one falls between two exchanges. A reading takes some 100 µs, and an exchange is rare.
    const READINGS: usize = 10;
    let Some(((other, first), services)) = rows.split_first() else { return Vec::new() };
    let read = || {
        let sum = other.copy();
        let is_used = sum.gauges.iter().any(|gauge| *gauge != 0);
        let sum = is_used.then(|| ServiceReading {
            row: *first,
            service: sum,
            connects: connects_of(*first, connects),
        });
        let named = services.iter().filter_map(|(row, number)| {
            let (service, connects) = row.read_with(|| connects_of(*number, connects))?;
            Some(ServiceReading { row: *number, service, connects })
        });
        sum.into_iter().chain(named).collect::<Vec<_>>()
    };
    for _ in 1..READINGS {
        let before = other.exchanges();
        let read = read();
        if before.is_some() && other.exchanges() == before {
            return read;
        }
    }
    read()
}
