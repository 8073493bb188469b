//! The engine's memory between inputs.

use handshake_common::abi::{MAX_INTERFACES, SERVICES, STRIPES};
use handshake_common::books::{Books, ServiceRow};
use handshake_common::engine::service_row;
use handshake_common::memory::{Buckets, Classes, Memory, PORT_WORDS, Storage, no_buckets, no_classes};
use handshake_common::shared::Shared64;
use handshake_common::table::{Slot4, Slot6};
use handshake_common::verdict::Leg;

use super::stream::{self, Stream};

/// The wanted port, as the filter's bit.
const PORT: usize = 80;

/// Memory that is made once, and cleared where an input wrote.
pub(super) struct Arena {
    slots4: Vec<Slot4>,
    slots6: Vec<Slot6>,
    stripes: Vec<Shared64>,
    services: Vec<ServiceRow>,
    /// Where rows may have been taken.
    taken: Vec<usize>,
    books: Books,
    classes: Vec<Classes>,
    /// Written and never read.
    histograms: Box<[Buckets; Leg::ALL.len()]>,
    ports: Vec<u64>,
}

impl Arena {
    pub(super) fn new() -> Self {
        let mut ports = vec![0; PORT_WORDS];
        ports[PORT / 64] |= 1 << (PORT % 64);
        let mut arena = Self {
            slots4: table(4),
            slots6: table(4),
            stripes: table(STRIPES as usize),
            services: table(SERVICES as usize),
            taken: Vec::new(),
            books: Books::new(),
            classes: classes(),
            histograms: Box::new([const { no_buckets() }; Leg::ALL.len()]),
            ports,
        };
        arena.taken = arena.take_services();
        arena.reset(4);
        arena
    }

    /// As new, with tables of so many slots. Of the service table only the rows are cleared that the
    /// streams' few services can take.
    pub(super) fn reset(&mut self, slots: usize) {
        self.slots4 = table(slots);
        self.slots6 = table(slots);
        self.books = Books::new();
        self.classes.iter_mut().for_each(|classes| *classes = no_classes());
        for &row in &self.taken {
            self.services[row] = ServiceRow::new();
        }
    }

    pub(super) fn storage(&self, by_port: bool) -> Storage<'_> {
        Storage {
            slots4: &self.slots4,
            slots6: &self.slots6,
            stripes: &self.stripes,
            services: &self.services,
            books: &self.books,
            classes: &self.classes,
            histograms: &self.histograms,
            ports: if by_port { &self.ports } else { &[] },
        }
    }

    /// Every row that can be in use.
    pub(super) fn service_rows(&self) -> &[usize] {
        &self.taken
    }

    /// Gives every service its row. Which one may depend on their order where two want the same, so a row's
    /// neighbours count as taken too.
    fn take_services(&self) -> Vec<usize> {
        /// No fewer than the rows that the engine looks at.
        const NEAR: usize = 16;
        let config = Stream::over(&[]).settings().config();
        let memory = Memory::new(config, self.storage(false), &|_| true);
        let rows = stream::services().map(|packet| service_row(&memory, &packet) as usize);
        let half = SERVICES as usize / 2;
        let near = |row: usize| {
            (0..=2 * NEAR).map(move |i| row / half * half + (row % half + half + i - NEAR) % half)
        };
        let mut taken: Vec<usize> = rows.flat_map(near).chain([0, half]).collect();
        taken.sort_unstable();
        taken.dedup();
        taken
    }
}

fn classes() -> Vec<Classes> {
    std::iter::repeat_with(no_classes).take(MAX_INTERFACES).collect()
}

fn table<T: Default>(length: usize) -> Vec<T> {
    std::iter::repeat_with(T::default).take(length).collect()
}
