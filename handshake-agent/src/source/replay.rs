//! A capture as a source: runs the kernel side's engine on the host's memory, with the capture's own time.
//!
//! Deterministic: the hash factors are fixed, and the tables grow before they are full, so that a replay
//! evicts nothing unless the tables' size was set.

use std::cell::RefCell;
use std::io;
use std::sync::Arc;

use handshake_common::abi::{
    CLASS_WORDS, ClassBlock, Config, Counter, CounterBlock, Event, HASH_WORDS, Histogram, WAYS,
};
use handshake_common::engine;
use handshake_common::flow::{Family, FlowKey};
use handshake_common::host::{self, HostTables};
use handshake_common::memory::{Classes, Fill, Memory, TableFill};
use handshake_common::random::split_mix;
use handshake_common::record::{Clocks, Now, Record, State};
use handshake_common::table::{self, BesideTable, Slot, Slot4, Slot6, hash, set_of};
use handshake_common::verdict::Leg;
use handshake_common::wire::{Packet, UDP};

use crate::error::Error;
use crate::free::Free;
use crate::source::scan::{Onlooker, Scan};
use crate::source::settings::{Settings, Sizes};
use crate::source::sight::Sight;
use crate::source::{Moment, Reading, ServiceReading, Source};

/// The rate of the coarse clock of a replay, Hz: the tick of most kernels (CONFIG_HZ=250).
const HZ: u32 = 250;
const TICK_NS: u64 = 1_000_000_000 / HZ as u64;
/// The number of slots of a growing table at the start.
const FIRST_SLOTS: usize = 4096;
/// A growing table is filled to at most one part in this many. Of a million flows some ten find all eight
/// slots of their key taken; a record then moves to its other set, and none is evicted.
const FILL: usize = 2;
/// A table whose slots ran out for one key grows only where it is filled to one part in this many. Flows that
/// were made to share their slots share them in a larger table as well.
const LEAST_FILL: usize = 8;

/// What the process takes without the tables, bytes: 7 MiB, more where packets are large.
const PROCESS: u64 = 16 << 20;

/// A record that ended or was evicted while packets were processed.
#[derive(Clone, Debug)]
pub enum Passed {
    /// An attempt ended.
    Ended(Event),
    /// A record was evicted, with the verdict of its attempt if that was still open.
    Displaced(Record, Option<Counter>),
}

/// The engine over growing tables.
pub struct Replay {
    config: Config,
    clocks: Clocks,
    grows: bool,
    tables: HostTables,
    fill: Fill,
    /// The memory that there is for it, if that is known.
    room: Option<Free>,
    /// Bytes that are needed beside the tables.
    beside: u64,
    now: Now,
    stopped: bool,
    /// The records that have ended or were evicted since the last call of `take_passed`.
    passed: RefCell<Vec<Passed>>,
    listens: bool,
}

impl Replay {
    /// An empty engine, whose memory is taken from `room`. `fixed`: the tables have the settings' size and do
    /// not grow. `listens`: keeps the records that pass, for [`take_passed`](Self::take_passed).
    ///
    /// # Errors
    ///
    /// [`Error::Settings`] if there are more networks than the engine has room for, and [`Error::Memory`] if
    /// the tables do not fit.
    pub fn new(settings: &Settings, fixed: bool, listens: bool, room: Option<Free>) -> Result<Self, Error> {
        let settings = Settings { factors: Some(fixed_factors()), events: listens, ..settings.clone() };
        let sizes = Sizes::for_flows(settings.max_flows);
        let (first4, first6) =
            if fixed { (sizes.slots4 as usize, sizes.slots6 as usize) } else { (FIRST_SLOTS, FIRST_SLOTS) };
        let clocks = settings.clocks(HZ);
        require(room.as_ref(), bytes_of(first4, first6))?;
        let tables = HostTables { ports: settings.port_set().to_vec(), ..HostTables::new(first4, first6) };
        Ok(Self {
            config: tables.storage().fit(settings.config(sizes, HZ).map_err(Error::Settings)?),
            clocks,
            grows: !fixed,
            tables,
            fill: Fill::default(),
            room,
            beside: 0,
            now: Now::default(),
            stopped: false,
            passed: RefCell::new(Vec::new()),
            listens,
        })
    }

    /// Counts and tracks a packet captured at `time_ns`.
    ///
    /// # Errors
    ///
    /// [`Error::Memory`] if the tables must grow, and there is no memory for it.
    pub fn observe(&mut self, time_ns: u64, packet: &Packet) -> Result<(), Error> {
        let now = at(time_ns);
        // Reports need a time that never runs backwards; the engine takes each packet's own.
        if time_ns > self.now.ns {
            self.now = now;
        }
        let passed = &self.passed;
        let ended = |event: &Event| {
            passed.borrow_mut().push(Passed::Ended(*event));
            true
        };
        let displaced = |record: &Record, verdict: Option<Counter>| {
            passed.borrow_mut().push(Passed::Displaced(*record, verdict));
        };
        let memory = Memory::new(&self.config, self.tables.storage(), &ended);
        let memory = if self.listens { memory.on_evict(&displaced) } else { memory };
        let memory = if self.grows { memory.keeping_all(&self.fill) } else { memory };
        memory.observe(now, packet);
        if self.is_full(Family::V4) || self.is_full(Family::V6) { self.grow() } else { Ok(()) }
    }

    /// Stops the time: what is open is half-open from here on.
    pub fn stop(&mut self) {
        self.stopped = true;
    }

    /// The time for reports, that of the latest packet; its clock is the capture's wall time.
    #[must_use]
    pub const fn moment(&self) -> Moment {
        Moment { now: self.now, stopped: self.stopped, clocks: self.clocks }
    }

    /// Calls `visit` with the record of each open attempt, at `time_ns` or at the latest packet's time if
    /// that is later; returns that moment.
    pub fn for_each_open(&self, time_ns: u64, visit: &mut dyn FnMut(&Record, &Moment)) -> Moment {
        let now = if time_ns > self.now.ns { at(time_ns) } else { self.now };
        let moment = Moment { now, stopped: false, clocks: self.clocks };
        let mut show = |record: &Record| visit(record, &moment);
        self.scan(now, Some(&mut Onlooker::new(u64::from(State::OPEN), &mut show)));
        moment
    }

    /// Number of slots in both tables.
    #[must_use]
    pub const fn size(&self) -> usize {
        self.slots(Family::V4) + self.slots(Family::V6)
    }

    /// The present value of a counter.
    #[must_use]
    pub fn counter(&self, counter: Counter) -> u64 {
        self.tables.books.words()[counter as usize].load()
    }

    /// The record of the flow that a packet belongs to, or that the packet quoted by an ICMP error belongs
    /// to.
    #[must_use]
    pub fn record_of(&self, packet: &Packet) -> Option<Record> {
        let family = if packet.family == Family::V6 as u8 { Family::V6 } else { Family::V4 };
        if packet.protocol == 0 {
            return None;
        }
        let source = (&packet.source, packet.source_port);
        let destination = (&packet.destination, packet.destination_port);
        let (key, _) = FlowKey::of(source, destination, family, packet.protocol == UDP);
        match family {
            Family::V4 => find(&self.tables.slots4, &key, &self.config.factors),
            Family::V6 => find(&self.tables.slots6, &key, &self.config.factors),
        }
    }

    /// Whether records have passed since the last call of [`take_passed`](Self::take_passed).
    #[must_use]
    pub fn has_passed(&self) -> bool {
        !self.passed.borrow().is_empty()
    }

    /// The records that have passed since the last call, in order.
    pub fn take_passed(&mut self) -> Vec<Passed> {
        self.passed.take()
    }

    /// Must the table grow before the next packet?
    const fn is_full(&self, family: Family) -> bool {
        let slots = self.slots(family);
        let fill = self.fill.of(family);
        fill.used * FILL > slots || (fill.is_crowded && fill.used * LEAST_FILL > slots)
    }

    const fn slots(&self, family: Family) -> usize {
        match family {
            Family::V4 => self.tables.slots4.len(),
            Family::V6 => self.tables.slots6.len(),
        }
    }

    /// Doubles the tables that are full. While a table moves, both its places are held.
    #[cold]
    fn grow(&mut self) -> Result<(), Error> {
        for family in [Family::V4, Family::V6] {
            if !self.is_full(family) {
                continue;
            }
            let (slots4, slots6) = match family {
                Family::V4 => (3 * self.tables.slots4.len(), self.tables.slots6.len()),
                Family::V6 => (self.tables.slots4.len(), 3 * self.tables.slots6.len()),
            };
            let needed = bytes_of(slots4, slots6) + self.beside;
            require(self.room.as_ref(), needed)?;
            let tables = &mut self.tables;
            let doubled = match family {
                Family::V4 => host::double(&mut tables.slots4, &self.config, &tables.clients),
                Family::V6 => host::double(&mut tables.slots6, &self.config, &tables.clients),
            };
            doubled.map_err(|_| {
                let what = format!("allocate {} MiB for the tables of the flows", needed >> 20);
                Error::System { what, source: io::ErrorKind::OutOfMemory.into() }
            })?;
            self.config = tables.storage().fit(self.config);
            let used = match family {
                Family::V4 => used(&tables.slots4),
                Family::V6 => used(&tables.slots6),
            };
            self.fill.set(family, TableFill { used, is_crowded: false });
        }
        Ok(())
    }

    /// Checks that so many bytes of memory are there beside the tables, and keeps them free when these grow.
    ///
    /// # Errors
    ///
    /// [`Error::Memory`].
    pub fn require_beside(&mut self, bytes: u64) -> Result<(), Error> {
        self.beside = bytes;
        let tables = bytes_of(self.tables.slots4.len(), self.tables.slots6.len());
        require(self.room.as_ref(), tables + bytes)
    }

    /// Number of records in the tables, at most.
    #[must_use]
    pub fn records(&self) -> usize {
        used(&self.tables.slots4) + used(&self.tables.slots6)
    }
}

impl Source for Replay {
    fn read(&mut self) -> Result<Reading, Error> {
        let histogram = |leg: Leg| Histogram {
            buckets: std::array::from_fn(|i| self.tables.histograms[leg as usize][i].load()),
        };
        Ok(Reading {
            now: self.now,
            wall_ns: self.now.ns,
            stopped: self.stopped,
            counters: CounterBlock { words: std::array::from_fn(|i| self.tables.books.words()[i].load()) },
            classes: self.tables.classes.iter().map(class_block).collect(),
            gone: ClassBlock { packets: [0; CLASS_WORDS] },
            histograms: Box::new(Leg::ALL.map(histogram)),
            slots: (self.tables.slots4.len() + self.tables.slots6.len()) as u64,
            lost_before_hook: 0,
            unreadable_counters: 0,
            missed_snapshots: 0,
            sight: Sight::default(),
            opens: None,
        })
    }

    fn scan(&self, now: Now, mut onlooker: Option<&mut Onlooker<'_>>) -> Scan {
        let mut scan = Scan::at(now, self.clocks, Arc::default());
        scan.add_table(&self.tables.slots4, BesideTable::default(), onlooker.as_deref_mut());
        scan.add_table(&self.tables.slots6, BesideTable::default(), onlooker);
        scan
    }

    fn for_each_record(&self, visit: &mut dyn FnMut(&Record)) {
        self.tables.slots4.iter().filter_map(table::read).for_each(|record| visit(&record));
        self.tables.slots6.iter().filter_map(table::read).for_each(|record| visit(&record));
    }

    fn services(&self) -> Vec<ServiceReading> {
        super::service_rows(&self.tables.services, &self.tables.connects)
    }

    fn clocks(&self) -> Clocks {
        self.clocks
    }
}

/// A capture's time on both clocks of the records.
const fn at(time_ns: u64) -> Now {
    #[expect(clippy::cast_possible_truncation, reason = "records keep the low half of the jiffies")]
    let jiffies = (time_ns / TICK_NS) as u32;
    Now { ns: time_ns, jiffies }
}

fn class_block(classes: &Classes) -> ClassBlock {
    let mut packets = [0; CLASS_WORDS];
    packets.iter_mut().zip(classes).for_each(|(sum, word)| *sum = word.load());
    ClassBlock { packets }
}

/// Fixed hash factors, so that the same capture always gives the same tables.
fn fixed_factors() -> [[u64; HASH_WORDS]; 2] {
    let mut seed = 0;
    engine::factors(|| split_mix(&mut seed))
}

/// The record of a key, in one of its two sets.
fn find<S: Slot>(slots: &[S], key: &FlowKey, factors: &[[u64; HASH_WORDS]; 2]) -> Option<Record> {
    let sets = slots.as_chunks::<{ WAYS as usize }>().0;
    let mask = u32::try_from(sets.len()).unwrap_or(u32::MAX).wrapping_sub(1);
    let chosen = factors.iter().map(|factors| set_of(hash(key, S::FAMILY, factors), mask));
    let mut slots = chosen.filter_map(|set| sets.get(set as usize)).flatten();
    slots.find_map(|slot| table::read(slot).filter(|record| record.key == *key))
}

fn used<S: Slot>(slots: &[S]) -> usize {
    slots.iter().filter(|slot| !table::is_free(*slot)).count()
}

/// Checks that `bytes` are there beside what the process takes otherwise.
fn require(room: Option<&Free>, bytes: u64) -> Result<(), Error> {
    let needed = bytes + PROCESS;
    let Some(room) = room.filter(|room| room.bytes < needed) else { return Ok(()) };
    let fits = |flows: &u32| {
        let sizes = Sizes::for_flows(*flows);
        bytes_of(sizes.slots4 as usize, sizes.slots6 as usize) + PROCESS <= room.bytes
    };
    let fitting = (0..u32::BITS).rev().map(|bit| 1 << bit).find(fits);
    Err(Error::Memory { needed, free: room.bytes, whose: room.whose.clone(), fitting })
}

/// Bytes that tables of so many slots take.
const fn bytes_of(slots4: usize, slots6: usize) -> u64 {
    (slots4 * size_of::<Slot4>() + slots6 * size_of::<Slot6>()) as u64
}

const _: () = assert!(FIRST_SLOTS.is_power_of_two() && FIRST_SLOTS >= WAYS as usize);

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use handshake_common::abi::Counter;
    use handshake_common::wire::build::FrameBuilder;
    use handshake_common::wire::{Link, Packet, Slice, flag, parse};
    use rustix::time::{ClockId, clock_gettime};

    use super::Replay;
    use crate::error::Error;
    use crate::free::Free;
    use crate::source::settings::Settings;

    const MEBIBYTE: u64 = 1 << 20;

    fn syn(flow: u32, version: u8) -> Packet {
        let frame = FrameBuilder::new(Link::Ip);
        let frame = match version {
            4 => frame.ipv4(0x0a00_0000 + flow, 0xc000_0202),
            _ => frame.ipv6([0x2001_0db8, 0, 0, flow], [0x2001_0db8, 1, 0, 2]),
        };
        let bytes = frame.tcp(flag::SYN, 1, 0).between(1024, 80).bytes().to_vec();
        parse(&Slice::whole(&bytes), Link::Ip)
    }

    fn replay(room: Option<u64>) -> Replay {
        let room = room.map(|bytes| Free { bytes, whose: "here".to_owned() });
        Replay::new(&Settings::default(), false, false, room).expect("memory for empty tables")
    }

    /// CPU time of this thread.
    fn cpu() -> Duration {
        clock_gettime(ClockId::ThreadCPUTime).try_into().expect("a time")
    }

    /// The time for so many flows.
    fn time_of(flows: u32) -> Duration {
        let mut replay = replay(None);
        let begun = cpu();
        (0..flows).for_each(|flow| replay.observe(u64::from(flow), &syn(flow, 4)).expect("memory"));
        assert_eq!(replay.counter(Counter::Attempts), u64::from(flows));
        assert_eq!((replay.counter(Counter::Evicted), replay.records()), (0, flows as usize));
        cpu() - begun
    }

    #[test]
    fn eight_times_as_many_flows_take_eight_times_as_long() {
        time_of(5_000);
        let (few, many) = (time_of(5_000), time_of(40_000));
        assert!(many < few * 20, "{few:?}, {many:?}");
    }

    /// The IPv6 table stays small while that of IPv4 is about to grow.
    #[test]
    fn packets_of_one_flow_take_as_long_in_a_table_about_to_grow() {
        let after = |flows: u32| {
            let mut replay = replay(None);
            (0..flows).for_each(|flow| replay.observe(u64::from(flow), &syn(flow, 4)).expect("memory"));
            let begun = cpu();
            (0..20_000).for_each(|more| replay.observe(more, &syn(0, 4)).expect("memory"));
            cpu() - begun
        };
        after(20_000);
        let (far, near) = (after(20_000), after(32_767));
        assert!(near < far * 5, "{far:?}, {near:?}");
    }

    #[test]
    fn a_flow_takes_at_most_four_slots() {
        let mut replay = replay(None);
        for flow in 0..70_000 {
            replay.observe(1, &syn(flow, 6)).expect("memory");
        }
        assert_eq!((replay.tables.slots4.len(), replay.tables.slots6.len()), (4096, 1 << 18));
    }

    #[test]
    fn where_memory_ends_the_replay_says_what_fits() {
        let mut replay = replay(Some(20 * MEBIBYTE));
        let failed = (0..1_000_000).map(|flow| replay.observe(1, &syn(flow, 6))).find_map(Result::err);
        let Some(Error::Memory { needed, free, fitting, .. }) = &failed else { panic!("{failed:?}") };
        assert_eq!((needed.div_ceil(MEBIBYTE), free / MEBIBYTE, *fitting), (23, 20, Some(16_384)));
        // 16 MiB of the process, 256 KiB of IPv4 and 2 MiB of IPv6; while it grows, three times that of IPv6.
        assert_eq!(replay.records(), 8_193);

        assert!(replay.require_beside(MEBIBYTE).is_ok());
        assert!(replay.require_beside(4 * MEBIBYTE).is_err());
        let none = Free { bytes: MEBIBYTE, whose: "here".to_owned() };
        let none = Replay::new(&Settings::default(), false, false, Some(none)).err();
        assert!(matches!(none, Some(Error::Memory { fitting: None, .. })), "{none:?}");
    }
}
