//! A capture as a source: runs the kernel side's engine on the host's memory, with the capture's own time.
//!
//! Deterministic: the hash factors are fixed, and the tables grow before they are full, so that a replay
//! evicts nothing unless the tables' size was set.

use std::cell::RefCell;

use handshake_common::abi::{
    CLASS_WORDS, ClassBlock, Config, Counter, CounterBlock, Event, Histogram, Service, WAYS,
};
use handshake_common::engine;
use handshake_common::host::{self, HostTables};
use handshake_common::memory::{Classes, Memory};
use handshake_common::record::{Clocks, Now, Record, State};
use handshake_common::shared::Shared64;
use handshake_common::table::{self, Slot, Tag};
use handshake_common::verdict::Leg;
use handshake_common::wire::Packet;

use crate::error::Error;
use crate::source::scan::{Onlooker, Scan};
use crate::source::settings::{Settings, Sizes};
use crate::source::sight::Sight;
use crate::source::{Moment, Reading, Source};

/// The rate of the coarse clock of a replay, Hz: the tick of most kernels (CONFIG_HZ=250).
const HZ: u32 = 250;
const TICK_NS: u64 = 1_000_000_000 / HZ as u64;
/// The number of slots of a growing table at the start.
const FIRST_SLOTS: usize = 4096;
/// A growing table is filled to at most one part in this many. That all eight slots of a key are taken is
/// then rarer than one in 10⁶ flows, and even then the survey finds a slot without evicting a live flow.
const FILL: usize = 8;

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
    /// How many packets may still come before the tables must be counted again.
    room: u64,
    now: Now,
    stopped: bool,
    /// The records that have ended or were evicted since the last call of `take_passed`.
    passed: RefCell<Vec<Passed>>,
    listens: bool,
}

impl Replay {
    /// An empty engine. `fixed`: the tables have the settings' size and do not grow. `listens`: keeps the
    /// records that pass, for [`take_passed`](Self::take_passed).
    ///
    /// # Errors
    ///
    /// [`Error::Settings`] if there are more networks than the engine has room for.
    pub fn new(settings: &Settings, fixed: bool, listens: bool) -> Result<Self, Error> {
        let settings = Settings { factors: Some(fixed_factors()), events: listens, ..settings.clone() };
        let sizes = Sizes::for_flows(settings.max_flows);
        let (first4, first6) =
            if fixed { (sizes.slots4 as usize, sizes.slots6 as usize) } else { (FIRST_SLOTS, FIRST_SLOTS) };
        let clocks = settings.clocks(HZ);
        Ok(Self {
            config: settings.config(sizes, HZ).map_err(Error::Settings)?,
            clocks,
            grows: !fixed,
            tables: HostTables { ports: settings.port_set().to_vec(), ..HostTables::new(first4, first6) },
            room: 0,
            now: Now::default(),
            stopped: false,
            passed: RefCell::new(Vec::new()),
            listens,
        })
    }

    /// Counts and tracks a packet captured at `time_ns`.
    pub fn observe(&mut self, time_ns: u64, packet: &Packet) {
        if self.grows && self.room == 0 {
            self.make_room();
        }
        self.room = self.room.saturating_sub(1);
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
        let memory = Memory::new(self.config, self.tables.storage(), &ended);
        let memory = if self.listens { memory.on_evict(&displaced) } else { memory };
        memory.observe(now, packet);
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

    /// The present value of a counter.
    #[must_use]
    pub fn counter(&self, counter: Counter) -> u64 {
        self.tables.books.words()[counter as usize].load()
    }

    /// The records that have passed since the last call, in order.
    pub fn take_passed(&mut self) -> Vec<Passed> {
        self.passed.take()
    }

    /// Doubles the tables that are too full, and computes how many packets cannot fill them.
    fn make_room(&mut self) {
        let (used4, used6) = (used(&self.tables.slots4), used(&self.tables.slots6));
        if used4 * FILL >= self.tables.slots4.len() {
            self.tables.slots4 = grown(&self.tables.slots4, &self.tables.clients, &self.config);
        }
        if used6 * FILL >= self.tables.slots6.len() {
            self.tables.slots6 = grown(&self.tables.slots6, &self.tables.clients, &self.config);
        }
        let room = |slots: usize, used: usize| (slots / FILL).saturating_sub(used).max(1) as u64;
        self.room = room(self.tables.slots4.len(), used4).min(room(self.tables.slots6.len(), used6));
    }
}

impl Source for Replay {
    fn read(&mut self) -> Result<Reading, Error> {
        let histogram = |leg: Leg| Histogram {
            buckets: std::array::from_fn(|i| self.tables.histograms[leg as usize][i].load()),
        };
        let [syn_to_syn_ack, syn_ack_to_ack, connect] = Leg::ALL;
        Ok(Reading {
            now: self.now,
            wall_ns: self.now.ns,
            stopped: self.stopped,
            counters: CounterBlock { words: std::array::from_fn(|i| self.tables.books.words()[i].load()) },
            classes: self.tables.classes.iter().map(class_block).collect(),
            gone: ClassBlock { packets: [0; CLASS_WORDS] },
            histograms: [histogram(syn_to_syn_ack), histogram(syn_ack_to_ack), histogram(connect)],
            slots: (self.tables.slots4.len() + self.tables.slots6.len()) as u64,
            lost_before_hook: 0,
            unreadable_counters: 0,
            missed_snapshots: 0,
            sight: Sight::default(),
            opens: None,
        })
    }

    fn scan(&self, now: Now, mut onlooker: Option<&mut Onlooker<'_>>) -> Scan {
        let mut scan = Scan::at(now, self.clocks);
        scan.add_table(&self.tables.slots4, onlooker.as_deref_mut());
        scan.add_table(&self.tables.slots6, onlooker);
        scan
    }

    fn for_each_record(&self, visit: &mut dyn FnMut(&Record)) {
        self.tables.slots4.iter().filter_map(table::read).for_each(|record| visit(&record));
        self.tables.slots6.iter().filter_map(table::read).for_each(|record| visit(&record));
    }

    fn services(&self) -> Vec<(u16, Service)> {
        super::service_rows(&self.tables.services)
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

/// Fixed hash factors, so that the same capture always gives the same tables: a SplitMix64 stream.
fn fixed_factors() -> [[u64; handshake_common::abi::HASH_WORDS]; 2] {
    let mut state = 0_u64;
    engine::factors(|| {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = state;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    })
}

fn used<S: Slot>(slots: &[S]) -> usize {
    slots.iter().filter(|slot| !matches!(state_of(*slot), State::Empty)).count()
}

fn state_of<S: Slot>(slot: &S) -> State {
    Tag(slot.tag().load()).state()
}

/// Moves the records to a table of twice the size, or more if they do not fit. The clients' words follow
/// them.
fn grown<S: Slot + Default>(old: &[S], clients: &[Shared64], config: &Config) -> Vec<S> {
    let mut size = old.len() * 2;
    loop {
        let slots = host::table(size);
        let mask = u32::try_from(size / WAYS as usize - 1).unwrap_or(u32::MAX);
        let records = (0..).zip(old).filter(|(_, slot)| !matches!(state_of(*slot), State::Empty));
        let moves = records.map(|(from, slot)| {
            let to = table::transplant(slot, &slots, mask, &config.factors)?;
            Some(engine::follow(config, clients, slot, from, to))
        });
        // All or nothing: a word that has followed could be taken for another record's.
        if let Some(words) = moves.collect::<Option<Vec<_>>>() {
            words.into_iter().flatten().for_each(|(place, word)| clients[place].store(word));
            return slots;
        }
        size *= 2;
    }
}

const _: () = assert!(FIRST_SLOTS.is_power_of_two() && FIRST_SLOTS >= WAYS as usize);
