//! The engine's memory, reused between inputs.

use handshake_common::abi::SERVICES;
use handshake_common::books::{Books, ServiceRow};
use handshake_common::engine::service_row;
use handshake_common::host::{self, HostTables};
use handshake_common::memory::{Memory, PORT_WORDS, Storage, no_classes};

use super::stream::{self, Stream};

/// The port that the filter selects.
const PORT: usize = 80;

/// Memory that is made once, and cleared where an input may have written.
pub(super) struct Arena {
    tables: HostTables,
    /// The service rows that an input may have taken.
    taken: Vec<usize>,
}

impl Arena {
    pub(super) fn new() -> Self {
        let mut tables = HostTables::new(4, 4);
        tables.ports = vec![0; PORT_WORDS];
        tables.ports[PORT / 64] |= 1 << (PORT % 64);
        let mut arena = Self { tables, taken: Vec::new() };
        arena.taken = arena.take_services();
        arena.reset(4);
        arena
    }

    /// Resets everything, with tables of `slots` slots. In the service table only the rows that the streams'
    /// few services can take are cleared; histograms stay, since they are written and never read.
    pub(super) fn reset(&mut self, slots: usize) {
        let tables = &mut self.tables;
        tables.slots4 = host::table(slots);
        tables.slots6 = host::table(slots);
        *tables.books = Books::new();
        tables.classes.iter_mut().for_each(|classes| *classes = no_classes());
        for &row in &self.taken {
            tables.services[row] = ServiceRow::new();
        }
    }

    pub(super) fn storage(&self, by_port: bool) -> Storage<'_> {
        let storage = self.tables.storage();
        Storage { ports: if by_port { storage.ports } else { &[] }, ..storage }
    }

    /// The service rows that can be in use.
    pub(super) fn service_rows(&self) -> &[usize] {
        &self.taken
    }

    /// Finds the rows that the services can take. Where two services want the same row, theirs depend on the
    /// order, so the neighbours of a row count as taken too.
    fn take_services(&self) -> Vec<usize> {
        /// At least the number of rows that the engine probes.
        const NEAR: usize = 16;
        let config = self.storage(false).fit(Stream::over(&[]).settings().config());
        let memory = Memory::new(&config, self.storage(false), &|_| true);
        let rows = stream::services().map(|packet| service_row(&memory, &packet, 0) as usize);
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
