//! The engine's memory, owned: what the kernel side has as maps. A replay, the tests and the fuzzer have one
//! each.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::iter;

use crate::abi::{CLIENTS, SERVICES, STRIPES};
use crate::books::{Books, ServiceRow};
use crate::interface::GROUPS;
use crate::memory::{Buckets, Classes, Storage, no_buckets, no_classes};
use crate::shared::Shared64;
use crate::table::{Slot4, Slot6};
use crate::verdict::Leg;

/// Everything that [`Storage`] borrows.
pub struct HostTables {
    /// The IPv4 table.
    pub slots4: Vec<Slot4>,
    /// The IPv6 table.
    pub slots6: Vec<Slot6>,
    /// The lock words.
    pub stripes: Vec<Shared64>,
    /// The words of clients.
    pub clients: Vec<Shared64>,
    /// The service table.
    pub services: Vec<ServiceRow>,
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
            stripes: table(STRIPES as usize),
            clients: table(CLIENTS as usize),
            services: table(SERVICES as usize),
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
            stripes: &self.stripes,
            clients: &self.clients,
            services: &self.services,
            books: &self.books,
            classes: &self.classes,
            histograms: &self.histograms,
            ports: &self.ports,
        }
    }
}

/// So many free slots, rows or words.
#[must_use]
pub fn table<T: Default>(length: usize) -> Vec<T> {
    iter::repeat_with(T::default).take(length).collect()
}
