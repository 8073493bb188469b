//! The engine's memory, owned: what the kernel side has as maps. A replay, the tests and the fuzzer have one
//! each.

use alloc::boxed::Box;
use alloc::collections::TryReserveError;
use alloc::vec::Vec;
use core::iter;

use crate::abi::{CLIENTS, Config, ROWS, STRIPES, TCP_SERVICES, WAYS};
use crate::books::{Books, ConnectRow, ServiceRow, no_connects};
use crate::engine;
use crate::interface::GROUPS;
use crate::memory::{Buckets, Classes, Storage, no_buckets, no_classes};
use crate::shared::Shared64;
use crate::table::{self, BesideTable, MakerWords, Slot, Slot4, Slot6};
use crate::verdict::Leg;

/// Everything that [`Storage`] borrows.
pub struct HostTables {
    /// The IPv4 table.
    pub slots4: Vec<Slot4>,
    /// The IPv6 table.
    pub slots6: Vec<Slot6>,
    /// The owners of the IPv4 table's records, one a slot; none at first.
    pub owners4: Vec<[Shared64; 2]>,
    /// Those of the IPv6 table's.
    pub owners6: Vec<[Shared64; 2]>,
    /// The makers of the IPv4 table's records, one a slot; none at first.
    pub makers4: Vec<MakerWords>,
    /// Those of the IPv6 table's.
    pub makers6: Vec<MakerWords>,
    /// The lock words.
    pub stripes: Vec<Shared64>,
    /// The words of clients.
    pub clients: Vec<Shared64>,
    /// The rows of services and workloads.
    pub services: Vec<ServiceRow>,
    /// The completions of the TCP services by time.
    pub connects: Vec<ConnectRow>,
    /// The counter block.
    pub books: Box<Books>,
    /// A class block per group of interfaces.
    pub classes: Vec<Classes>,
    /// A histogram per leg.
    pub histograms: Box<[Buckets; Leg::ALL.len()]>,
    /// The ports of the filter, or none.
    pub ports: Vec<u64>,
}

impl HostTables {
    /// Empty, with tables of so many slots: a power of two each.
    #[must_use]
    pub fn new(slots4: usize, slots6: usize) -> Self {
        Self {
            slots4: table(slots4),
            slots6: table(slots6),
            owners4: Vec::new(),
            owners6: Vec::new(),
            makers4: Vec::new(),
            makers6: Vec::new(),
            stripes: table(STRIPES as usize),
            clients: table(CLIENTS as usize),
            services: table(ROWS as usize),
            connects: iter::repeat_with(no_connects).take(TCP_SERVICES as usize).collect(),
            books: Box::default(),
            classes: iter::repeat_with(no_classes).take(GROUPS).collect(),
            histograms: Box::new([const { no_buckets() }; Leg::ALL.len()]),
            ports: Vec::new(),
        }
    }

    /// What the engine works on.
    #[must_use]
    pub fn storage(&self) -> Storage<'_> {
        Storage {
            slots4: &self.slots4,
            slots6: &self.slots6,
            beside4: BesideTable { owners: &self.owners4, makers: &self.makers4 },
            beside6: BesideTable { owners: &self.owners6, makers: &self.makers6 },
            stripes: &self.stripes,
            clients: &self.clients,
            services: &self.services,
            connects: &self.connects,
            books: &self.books,
            classes: &self.classes,
            histograms: &self.histograms,
            ports: &self.ports,
        }
    }
}

/// Doubles a table. A set's records stay in it, or move to the same places of the set that is as far behind
/// it as the table was long: the mask has one bit more.
///
/// # Errors
///
/// There is no memory for it; the table is as it was.
pub fn double<S: Slot + Default>(
    slots: &mut Vec<S>,
    config: &Config,
    clients: &[Shared64],
) -> Result<(), TryReserveError> {
    let length = slots.len();
    slots.try_reserve_exact(length)?;
    slots.resize_with(2 * length, S::default);
    let sets = u32::try_from(length / WAYS as usize).unwrap_or(u32::MAX);
    let (old, new) = slots.split_at(length);
    let sides = old.as_chunks::<{ WAYS as usize }>().0.iter().zip(new.as_chunks::<{ WAYS as usize }>().0);
    for ((stay, go), set) in sides.zip(0..) {
        for ((slot, free), way) in stay.iter().zip(go).zip(0..) {
            if !table::is_free(slot) && !table::sets_of(slot, 2 * sets - 1, &config.factors).contains(&set) {
                let [from, to] = [set, set + sets].map(|set| set * WAYS + way);
                engine::relocate(config, clients, (slot, from), (free, to));
            }
        }
    }
    Ok(())
}

/// So many free slots, rows or words.
#[must_use]
pub fn table<T: Default>(length: usize) -> Vec<T> {
    iter::repeat_with(T::default).take(length).collect()
}
