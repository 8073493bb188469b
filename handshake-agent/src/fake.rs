//! A source for tests: a test sets its counters and records by hand, and may have them change between the
//! reading of the counters and the scan of the tables.

use std::net::SocketAddr;
use std::sync::Arc;

use handshake_common::abi::{
    BUCKETS, CLASS_WORDS, COMMAND, COUNTERS, ClassBlock, ControlGroups, Counter, CounterBlock, Histogram,
    Maker, Makers, NO_POINT, SERVICE_GAUGES, SERVICES, Service, TICK_SHIFT, TcpRecord, UdpRecord, WORKLOAD,
    address_of_group, class_index, tag,
};
use handshake_common::flow::{Address, End, Family, FlowKey, Side};
use handshake_common::latency::{bucket, connect_place};

use handshake_common::record::{Clocks, Detail, Now, Record, SILENT, State};
use handshake_common::verdict::Leg;
use handshake_common::wire::{Class, TCP, UDP};

use crate::error::Error;
use crate::model::snapshot::{Beginning, FIRST_UDP_ROW, LiveOrigin, Origin, RunContext, Snapshot};
use crate::options::Filter;
use crate::owner::{Owner, OwnerBook};
use crate::source::local::HostAddresses;
use crate::source::scan::{Onlooker, Scan};
use crate::source::sight::Sight;
use crate::source::{Reading, ServiceReading, Source};

/// One second in ns.
pub const SECOND: u64 = 1_000_000_000;
/// 2026-03-01T12:03:41Z in ns since the Unix epoch.
pub const WALL_NS: u64 = 1_772_366_621 * SECOND;
/// The time of a new source.
pub const BEGINNING: Beginning = Beginning { wall_ns: WALL_NS, ns: 1_000 * SECOND };

type Meanwhile = Box<dyn FnOnce(&mut Fake)>;

/// A source with the values that a test sets.
pub struct Fake {
    /// The next reading.
    pub reading: Reading,
    /// The records in the tables.
    pub records: Vec<Record>,
    /// The addresses of the host.
    pub host: Arc<HostAddresses>,
    /// The rows of the service table, with their numbers.
    pub services: Vec<ServiceReading>,
    /// The rows of the workloads, with their numbers.
    pub workloads: Vec<ServiceReading>,
    /// Called once, after the counters are read and before the tables are.
    pub meanwhile: Option<Meanwhile>,
}

impl Source for Fake {
    fn read(&mut self) -> Result<Reading, Error> {
        let reading = self.reading.clone();
        if let Some(happens) = self.meanwhile.take() {
            happens(self);
        }
        Ok(reading)
    }

    fn scan(&self, now: Now, mut onlooker: Option<&mut Onlooker<'_>>) -> Scan {
        let mut scan = Scan::at(now, self.clocks(), Arc::clone(&self.host));
        for record in &self.records {
            scan.add(record);
            if let Some(onlooker) = &mut onlooker {
                onlooker.meet(record);
            }
        }
        scan
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
        Clocks {
            half_open_after_ns: 3 * SECOND,
            expire_after_ns: 75 * SECOND,
            udp_idle_jiffies: 60_000,
            idle_after_jiffies: 3_600_000,
        }
    }
}

impl Default for Fake {
    /// An empty source, 1000 s after boot.
    fn default() -> Self {
        let empty = Histogram { buckets: [0; BUCKETS] };
        Self {
            reading: Reading {
                now: Now { ns: BEGINNING.ns, jiffies: 1_000_000 },
                wall_ns: BEGINNING.wall_ns,
                stopped: false,
                counters: CounterBlock { words: [0; COUNTERS] },
                classes: vec![ClassBlock { packets: [0; CLASS_WORDS] }],
                gone: ClassBlock { packets: [0; CLASS_WORDS] },
                histograms: Box::new([empty; Leg::ALL.len()]),
                slots: 1 << 19,
                lost_before_hook: 0,
                unreadable_counters: 0,
                missed_snapshots: 0,
                opens: None,
                sight: Sight::default(),
            },
            records: Vec::new(),
            host: Arc::default(),
            services: Vec::new(),
            workloads: Vec::new(),
            meanwhile: None,
        }
    }
}

/// The snapshot of an empty source.
#[must_use]
pub fn snapshot() -> Snapshot {
    let context = Arc::new(RunContext {
        origin: Origin::Live(LiveOrigin::default()),
        began: BEGINNING,
        filter: Filter::default(),
        top: usize::MAX,
        owners: OwnerBook::default(),
    });
    Snapshot::take(&mut Fake::new(), &context, None).expect("the source answers")
}

impl Fake {
    /// An empty source, as by default.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Advances all clocks by `ns`.
    pub fn later(&mut self, ns: u64) {
        self.reading.now.ns += ns;
        self.reading.wall_ns += ns;
    }

    /// Adds `by` to a counter.
    pub fn count(&mut self, counter: Counter, by: i64) {
        let word = &mut self.reading.counters.words[counter as usize];
        *word = word.wrapping_add_signed(by);
    }

    /// Adds `by` to a gauge of the identity, in the totals and in a service's row.
    pub fn gauge(&mut self, row: u16, counter: Counter, by: i64) {
        self.count(counter, by);
        let first = if row < FIRST_UDP_ROW { Counter::Attempts } else { Counter::UdpFlows };
        if let Some(reading) = self.services.iter_mut().find(|reading| reading.row == row) {
            let word = &mut reading.service.gauges[counter as usize - first as usize];
            *word = word.wrapping_add_signed(by);
        }
    }

    /// Adds a row to the service table for `address`, such as `10.0.0.2:443`.
    pub fn service(&mut self, row: u16, address: &str) {
        let socket: SocketAddr = address.parse().expect("an address and a port");
        let (address, family) = Address::of(socket.ip());
        let service = Service {
            state: 2,
            address,
            port: socket.port(),
            protocol: if row < FIRST_UDP_ROW { TCP } else { UDP },
            family: family as u8,
            searched_jiffies: 0,
            gauges: [0; SERVICE_GAUGES],
        };
        self.services.push(ServiceReading { row, service, connects: Arc::default() });
    }

    /// Adds a row for what a control group's sockets began, or were asked, and counts ended attempts in it.
    pub fn workload(&mut self, group: u64, side: Side, ended: &[(Counter, u64)]) {
        self.workload_row((address_of_group(group), side as u16, WORKLOAD), ended);
    }

    /// Counts ended attempts of control groups without a row of their own.
    pub fn unowned(&mut self, ended: &[(Counter, u64)]) {
        self.workload_row((Address::default(), 0, 0), ended);
    }

    fn workload_row(&mut self, (address, port, protocol): (Address, u16, u8), ended: &[(Counter, u64)]) {
        let row = u16::try_from(SERVICES as usize + 1 + self.workloads.len()).expect("a few rows");
        let mut gauges = [0; SERVICE_GAUGES];
        for (counter, count) in ended {
            gauges[0] += count;
            gauges[*counter as usize - Counter::Attempts as usize] += count;
        }
        let service = Service { state: 2, address, port, protocol, family: 0, searched_jiffies: 0, gauges };
        self.workloads.push(ServiceReading { row, service, connects: Arc::default() });
    }

    /// Adds `count` samples of `ns` to the times to connect, in the totals and in a service's row.
    pub fn connect(&mut self, row: u16, ns: u64, count: u64) {
        self.sample(Leg::Connect, ns, count);
        if let Some(reading) = self.services.iter_mut().find(|reading| reading.row == row) {
            let before = reading.connects.iter().copied();
            reading.connects = before.chain([(connect_place(bucket(ns)), count)]).collect();
        }
    }

    /// Adds `count` attempts that have ended and have no record.
    pub fn ended(&mut self, row: u16, counter: Counter, count: i64) {
        self.gauge(row, Counter::Attempts, count);
        self.gauge(row, counter, count);
    }

    /// Adds an open attempt whose only packet came `age_ns` ago. Returns its index among the records.
    pub fn open(&mut self, row: u16, state: State, age_ns: u64) -> usize {
        let port = u16::try_from(self.records.len() % 60_000).expect("it is under 60000");
        let mut record = record("10.0.0.1:1", "10.0.0.2:443", state);
        record.key.ports = u32::from(port) << 16 | 443;
        record.service = row;
        record.detail = Detail::Tcp(TcpRecord { opened_ns: self.reading.now.ns - age_ns, ..tcp(&record) });
        self.gauge(row, Counter::Attempts, 1);
        self.gauge(row, state.gauge(), 1);
        self.records.push(record);
        self.records.len() - 1
    }

    /// Adds a completed connection whose client asked a second after it began, `asked_ns` ago, and whose server
    /// has sent no byte.
    pub fn silent(&mut self, row: u16, asked_ns: u64) {
        let at = self.open(row, State::Established, asked_ns + 1_000_000_000);
        let record = &mut self.records[at];
        record.flags |= SILENT;
        record.last_jiffies = self.reading.now.jiffies;
        record.detail = Detail::Tcp(TcpRecord { other_ack: 1_000_000_000 >> 20, ..tcp(record) });
    }

    /// Adds `count` packets of a class.
    pub fn packets(&mut self, class: Class, family: Family, count: u64) {
        self.reading.classes[0].packets[class_index(class as u8, family as u8)] += count;
    }

    /// Adds `count` samples of `ns` to a leg's histogram.
    pub fn sample(&mut self, leg: Leg, ns: u64, count: u64) {
        self.reading.histograms[leg as usize].buckets[bucket(ns) as usize] += count;
        let word = &mut self.reading.counters.words[leg.longest() as usize];
        *word = ns.max(*word);
    }
}

/// The owner of a control group that is a unit's own.
#[must_use]
pub fn unit(name: &str) -> Owner {
    let (cgroup, unit) = (format!("/system.slice/{name}"), Some(name.to_owned()));
    Owner { cgroup, unit, container: None, pod: None }
}

/// A process with this name, which is shorter than the kernel's.
#[must_use]
pub fn maker(pid: u64, name: &[u8]) -> Maker {
    let mut command = [0; COMMAND];
    command[..name.len()].copy_from_slice(name);
    Maker { pid, command }
}

/// A TCP record with one SYN, opened at boot.
pub fn record(initiator: &str, responder: &str, state: State) -> Record {
    let detail = Detail::Tcp(TcpRecord { syn: 1, points: NO_POINT << 4, ..TcpRecord::default() });
    with(initiator, responder, state, detail)
}

/// A UDP record with one packet, opened at boot.
pub fn udp_record(initiator: &str, responder: &str, state: State) -> Record {
    let first = UdpRecord { packets: [1, 0], bytes: [60, 0], points: NO_POINT << 4, ..UdpRecord::default() };
    with(initiator, responder, state, Detail::Udp(first))
}

fn with(initiator: &str, responder: &str, state: State, detail: Detail) -> Record {
    let end = |text: &str| {
        let socket: SocketAddr = text.parse().expect("an address and a port");
        let (address, family) = Address::of(socket.ip());
        ((address, socket.port()), family)
    };
    let ((from, family), (to, _)) = (end(initiator), end(responder));
    let (key, sender) = FlowKey::of((&from.0, from.1), (&to.0, to.1), family, state.is_udp());
    let high = if sender == End::HIGH { tag::INITIATOR_HIGH } else { 0 };
    let answered = if state == State::SynReceived { tag::SYN_ACK_TIMED } else { 0 };
    let timed = if state.is_completed() { tag::SYN_ACK_TIMED | tag::ACK_TIMED } else { answered };
    let flags = high | timed;
    Record {
        family,
        key,
        state,
        flags,
        service: 0,
        last_jiffies: 1_000_000,
        detail,
        reporter: Address::default(),
        control_groups: ControlGroups::default(),
        makers: Makers::default(),
    }
}

/// The TCP part of a record; panics if it has none.
pub fn tcp(record: &Record) -> TcpRecord {
    match record.detail {
        Detail::Tcp(tcp) => tcp,
        Detail::Udp(_) => panic!("not a TCP record"),
    }
}

/// The number of ticks in `ns`.
pub fn ticks(ns: u64) -> u32 {
    u32::try_from(ns >> TICK_SHIFT).expect("under 274 s")
}
