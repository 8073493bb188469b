//! Where the figures come from: the kernel's maps, or a capture run through the same engine.

pub mod live;
pub mod replay;
pub mod scan;
pub mod settings;

use handshake_common::abi::{ClassBlock, CounterBlock, Histogram, SERVICES, Service};
use handshake_common::books::ServiceRow;
use handshake_common::record::{Clocks, Now, Record};

use crate::error::Error;
use scan::{Onlooker, Scan};

/// One reading of everything but the flows, taken at one `now` before the tables are read.
#[derive(Clone)]
pub struct Reading {
    /// The time, on the records' clocks.
    pub now: Now,
    /// The same moment, ns since the Unix epoch.
    pub wall_ns: u64,
    /// Time stands still (the end of a capture): what is open now is half-open, whatever its age.
    pub stopped: bool,
    /// The counter blocks of all CPUs: sums, and the largest of each `Max…`.
    pub counters: CounterBlock,
    /// A class block an interface, summed over the CPUs.
    pub classes: Vec<ClassBlock>,
    /// A histogram a leg, in the order of `Leg::ALL`, summed over the CPUs.
    pub histograms: [Histogram; 3],
    /// Slots of both tables.
    pub slots: u64,
    /// Packets the interfaces lost before any hook, since the source was opened.
    pub lost_before_hook: u64,
}

/// The moment that a conversation is looked at, and the clocks that judge its age.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// The time, on the records' clocks.
    pub now: Now,
    /// Time stands still, as at the end of a capture: what is open is half-open, and no answer will come.
    pub stopped: bool,
    /// When flows change by age alone.
    pub clocks: Clocks,
}

/// Something that counts handshakes.
pub trait Source {
    /// A consistent reading of counters and clocks.
    fn read(&mut self) -> Result<Reading, Error>;
    /// What the tables hold, by age at `now`; somebody may look on.
    fn scan(&self, now: Now, onlooker: Option<&mut Onlooker<'_>>) -> Scan;
    /// Every record in the tables, each copied whole.
    fn for_each_record(&self, visit: &mut dyn FnMut(&Record));
    /// The valid rows of the service table with their row numbers; rows 0 and SERVICES/2 are `other`.
    fn services(&self) -> Vec<(u16, Service)>;
    /// The two clocks T1 and T2, and the idle times.
    fn clocks(&self) -> Clocks;
}

/// The rows of a service table that count, with their numbers: services', and a half's `other` once something did not fit.
fn service_rows(rows: &[ServiceRow]) -> Vec<(u16, Service)> {
    let other = |row: &ServiceRow| {
        let row = row.copy();
        row.gauges.iter().any(|gauge| *gauge != 0).then_some(row)
    };
    let valid = |(row, number): (&ServiceRow, u16)| {
        let is_other = u32::from(number) % (SERVICES / 2) == 0;
        let service = if is_other { other(row) } else { row.read() };
        service.map(|service| (number, service))
    };
    rows.iter().zip(0_u16..).filter_map(valid).collect()
}
