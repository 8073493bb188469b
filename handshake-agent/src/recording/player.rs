//! From blocks to a moment.

use std::sync::Arc;

use handshake_common::abi::{
    CLASS_WORDS, CONNECT_WORDS, COUNTERS, ClassBlock, CounterBlock, Histogram, LocalAddress, SERVICE_GAUGES,
    Service,
};
use handshake_common::flow::Address;
use handshake_common::record::{Clocks, Now, Record};
use handshake_common::verdict::Leg;

use super::{Block, LeftOut, kind};
use crate::delta::Rows;
use crate::error::Error;
use crate::model::context::{Beginning, LiveOrigin, Origin, RunContext};
use crate::model::flow::Flow;
use crate::model::snapshot::{Inherited, Snapshot};
use crate::options::Filter;
use crate::owner::{Owner, OwnerBook};
use crate::source::local::HostAddresses;
use crate::source::opens::KernelOpens;
use crate::source::scan::{Occupancy, Onlooker, Scan};
use crate::source::{Placed, Reading, ServiceReading, Source};

/// Goes through blocks in order, from a whole one on.
#[derive(Default)]
pub struct Player {
    rows: Rows,
}

impl Player {
    /// Plays the next block. `None` where it is none; no block but a whole one makes sense after that.
    pub fn play(&mut self, block: &Block) -> Option<()> {
        if block.is_whole {
            self.rows = Rows::default();
        }
        self.rows.clear(kind::ENDED);
        self.rows.apply(&block.changes)
    }

    /// The moment of the latest block; `None` where it does not make sense.
    #[must_use]
    pub fn moment(&self) -> Option<Recorded> {
        Recorded::of(&self.rows)
    }

    /// The attempts that ended in the latest block.
    #[must_use]
    pub fn ended(&self) -> Vec<Flow> {
        self.rows.each::<Flow>(kind::ENDED).into_iter().flatten().map(|(_, flow)| flow).collect()
    }
}

/// A moment of a recording.
pub struct Recorded {
    reading: Reading,
    scan: Scan,
    services: Vec<ServiceReading>,
    workloads: Vec<ServiceReading>,
    occupancy: Occupancy,
    /// The records of single flows that are kept: open attempts, silent connections, UDP flows.
    records: Vec<Record>,
    /// What stays the same over the run; it lists all services.
    pub context: Arc<RunContext>,
    /// What its snapshot has of those before it.
    pub inherited: Inherited,
    /// The single flows that there was no room for.
    pub left_out: LeftOut,
}

impl Recorded {
    fn of(rows: &Rows) -> Option<Self> {
        let (reading, clocks) = reading(rows)?;
        let host = HostAddresses::known(rows.get::<Vec<LocalAddress>>(kind::HOST, 0)?);
        let (occupancy, [open, failed, ended]): (Vec<u64>, [u64; 3]) = rows.get(kind::COUNTED, 0)?;
        let mut records = Vec::new();
        for kind in [kind::OPEN, kind::SILENT, kind::UDP] {
            records.extend(rows.each::<Record>(kind)?.into_iter().map(|(_, record)| record));
        }
        Some(Self {
            scan: Scan::kept(rows, reading.now, clocks, Arc::new(host))?,
            reading,
            services: services(rows, kind::SERVICE)?,
            workloads: services(rows, kind::WORKLOAD)?,
            occupancy: occupancy.try_into().ok()?,
            records,
            context: Arc::new(context(rows)?),
            inherited: rows.get(kind::INHERITED, 0)?,
            left_out: LeftOut { open, failed, ended },
        })
    }

    /// The same with so many services listed by name.
    #[must_use]
    pub fn listing(mut self, top: usize) -> Self {
        Arc::make_mut(&mut self.context).top = top;
        self
    }

    /// Its snapshot.
    ///
    /// # Errors
    ///
    /// None: it has been read.
    pub fn snapshot(&mut self) -> Result<Snapshot, Error> {
        let (context, inherited) = (Arc::clone(&self.context), self.inherited.clone());
        Snapshot::again(self, &context, &inherited)
    }
}

impl Source for Recorded {
    fn read(&mut self) -> Result<Reading, Error> {
        Ok(self.reading.clone())
    }

    fn scan(&self, _: Now, onlooker: Option<&mut Onlooker<'_>>) -> Scan {
        if let Some(onlooker) = onlooker {
            self.records.iter().for_each(|record| onlooker.meet(record));
            onlooker.count_as(self.occupancy);
        }
        self.scan.clone()
    }

    fn for_each_record(&self, visit: &mut dyn FnMut(&Record)) {
        self.records.iter().for_each(visit);
    }

    fn services(&self) -> Vec<ServiceReading> {
        self.services.clone()
    }

    fn workloads(&self) -> Vec<ServiceReading> {
        self.workloads.clone()
    }

    fn clocks(&self) -> Clocks {
        self.scan.clocks()
    }
}

/// The reading, and the ages at which verdicts change.
fn reading(rows: &Rows) -> Option<(Reading, Clocks)> {
    type Head = (((Now, u64), (bool, Clocks)), ((u64, [u64; 3]), Option<KernelOpens>));
    let (((now, wall_ns), (stopped, clocks)), ((slots, losses), opens)): Head = rows.get(kind::HEAD, 0)?;
    let [lost_before_hook, unreadable_counters, missed_snapshots] = losses;
    let block = |packets: [u64; CLASS_WORDS]| ClassBlock { packets };
    let histograms = rows.each(kind::HISTOGRAM)?.into_iter().map(|(_, buckets)| Histogram { buckets });
    let histograms: Box<[Histogram; Leg::ALL.len()]> = histograms.collect::<Vec<_>>().try_into().ok()?;
    let reading = Reading {
        now,
        wall_ns,
        stopped,
        counters: CounterBlock { words: rows.get::<[u64; COUNTERS]>(kind::COUNTERS, 0)? },
        classes: rows.each(kind::CLASSES)?.into_iter().map(|(_, packets)| block(packets)).collect(),
        gone: block(rows.get(kind::GONE, 0)?),
        histograms,
        slots,
        lost_before_hook,
        unreadable_counters,
        missed_snapshots,
        sight: rows.get(kind::SIGHT, 0)?,
        opens,
    };
    Some((reading, clocks))
}

fn services(rows: &Rows, kind: u8) -> Option<Vec<ServiceReading>> {
    type Row = (((Address, u16), (u8, u8)), [u64; SERVICE_GAUGES]);
    let each = rows.each::<Row>(kind)?.into_iter();
    each.map(|(number, (((address, port), (protocol, family)), gauges))| {
        let service = Service { state: VALID, address, port, protocol, family, searched_jiffies: 0, gauges };
        let connects = rows.words(kind::CONNECTS, number).unwrap_or_default();
        // A place beyond these is no service's.
        let connects = connects.get(..connects.len().min(CONNECT_WORDS))?;
        let connects: Placed = (0..).zip(connects.iter().copied()).filter(|(_, count)| *count != 0).collect();
        Some(ServiceReading { row: u16::try_from(number).ok()?, service, connects })
    })
    .collect()
}

/// The state of a row of the service table that is valid.
const VALID: u64 = 2;

fn context(rows: &Rows) -> Option<RunContext> {
    let ((origin, began), filter): ((LiveOrigin, Beginning), Filter) = rows.get(kind::CONTEXT, 0)?;
    Some(RunContext {
        origin: Origin::Live(origin),
        began,
        filter,
        top: usize::MAX,
        owners: OwnerBook::fixed(rows.each::<Owner>(kind::OWNER)?),
    })
}
