//! The tracker's memory on the host: a [`Platform`] over borrowed slices. A replay and the tests run
//! the engine on it; the kernel side has maps instead. No allocation, no clock: the caller brings both.

use core::cell::Cell;
use core::mem::MaybeUninit;

pub use crate::abi::PORT_WORDS;
use crate::abi::{
    BUCKETS, CLASS_WORDS, CLIENTS, Config, Counter, Event, MAKER_WORDS, Maker, ROWS, STRIPES, TCP_SERVICES,
    WAYS,
};
use crate::books::{Books, ConnectRow, ServiceRow};
use crate::engine::{self, Platform, Table};
use crate::flow::{Address, Family};
use crate::interface::GROUPS;
use crate::record::{Now, Record};
use crate::shared::Shared64;
use crate::table::{self, BesideTable, MakerWords, Set, Slot, Slot4, Slot6, Tag};
use crate::verdict::Leg;
use crate::wire::Packet;

/// Packets of one group of interfaces by class: [`class_index`](crate::abi::class_index) says where.
pub type Classes = [Shared64; CLASS_WORDS];
/// A histogram of one leg: [`latency`](crate::latency) says which bucket is which.
pub type Buckets = [Shared64; BUCKETS];

/// A class block of zeros.
#[must_use]
pub const fn no_classes() -> Classes {
    [const { Shared64::new(0) }; CLASS_WORDS]
}

/// A histogram of zeros.
#[must_use]
pub const fn no_buckets() -> Buckets {
    [const { Shared64::new(0) }; BUCKETS]
}

/// The memory that the kernel side has as maps. All of it begins as zeros.
#[derive(Clone, Copy)]
pub struct Storage<'a> {
    /// The IPv4 table: a power of two of slots, a set's at least.
    pub slots4: &'a [Slot4],
    /// The IPv6 table, under the same terms.
    pub slots6: &'a [Slot6],
    /// What is kept beside the IPv4 table's slots; nothing where no packet is a socket's.
    pub beside4: BesideTable<'a>,
    /// Beside the IPv6 table's.
    pub beside6: BesideTable<'a>,
    /// [`STRIPES`] lock words.
    pub stripes: &'a [Shared64],
    /// [`CLIENTS`] words.
    pub clients: &'a [Shared64],
    /// [`ROWS`] rows.
    pub services: &'a [ServiceRow],
    /// The completions of the [`TCP_SERVICES`] by time.
    pub connects: &'a [ConnectRow],
    /// The counter block.
    pub books: &'a Books,
    /// A block for each group of interfaces: [`GROUPS`], or as many as packets come from.
    pub classes: &'a [Classes],
    /// A histogram a leg, in the order of [`Leg`].
    pub histograms: &'a [Buckets; Leg::ALL.len()],
    /// The ports of the filter: [`PORT_WORDS`] words, or none where [`Config::options`] asks for no filter.
    pub ports: &'a [u64],
}

/// Takes an event; `false` when there was no room for it.
pub type EventSink<'a> = &'a dyn Fn(&Event) -> bool;

/// Hears of a record that goes, and how its attempt ended if it was open.
pub type OnEvict<'a> = &'a dyn Fn(&Record, Option<Counter>);

/// Says whether an address of a family is one of the watched host's own.
pub type IsLocal<'a> = &'a dyn Fn(&Address, u8) -> bool;

/// How full the tables are, as far as records came into free slots.
#[derive(Debug, Default)]
pub struct Fill {
    tables: [Cell<TableFill>; 2],
}

/// How full a table is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TableFill {
    /// Slots that hold a record, at most: one that went is not known here.
    pub used: usize,
    /// Whether a new record found no slot, so that another had to go.
    pub is_crowded: bool,
}

impl Fill {
    /// The state of a family's table.
    #[must_use]
    pub const fn of(&self, family: Family) -> TableFill {
        self.tables[family as usize - Family::V4 as usize].get()
    }

    /// Sets the state of a family's table.
    pub fn set(&self, family: Family, fill: TableFill) {
        self.tables[family as usize - Family::V4 as usize].set(fill);
    }
}

/// The socket that sent a packet.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sender {
    /// Its control group; 0 is not known.
    pub group: u64,
    /// The process that made it.
    pub maker: Maker,
}

/// A [`Platform`] on the host. One thread uses it; several may share one [`Storage`] but for its
/// `books`, `classes` and `histograms`, of which the kernel has one a CPU.
pub struct Memory<'a> {
    config: &'a Config,
    storage: Storage<'a>,
    clock: Cell<Now>,
    sender: Cell<Sender>,
    sink: EventSink<'a>,
    on_evict: Option<OnEvict<'a>>,
    is_local: Option<IsLocal<'a>>,
    fill: Option<&'a Fill>,
}

impl Storage<'_> {
    /// The configuration with the masks of these tables.
    ///
    /// # Panics
    ///
    /// When a table is no power of two.
    #[must_use]
    pub fn fit(&self, config: Config) -> Config {
        Config { mask4: mask_of(self.slots4.len()), mask6: mask_of(self.slots6.len()), ..config }
    }
}

impl<'a> Memory<'a> {
    /// The engine's memory. [`Storage::fit`] sets the masks of `config`.
    ///
    /// # Panics
    ///
    /// When the masks are not those of the tables, or any part has another length than [`Storage`] says.
    #[must_use]
    pub fn new(config: &'a Config, storage: Storage<'a>, sink: EventSink<'a>) -> Self {
        assert!(config.mask4 == mask_of(storage.slots4.len()), "the mask of the IPv4 table");
        assert!(config.mask6 == mask_of(storage.slots6.len()), "the mask of the IPv6 table");
        assert!(storage.stripes.len() == STRIPES as usize, "a lock word for every stripe");
        assert!(storage.clients.len() == CLIENTS as usize, "a word for every hash of a client");
        assert!(storage.services.len() == ROWS as usize, "the rows of services and workloads");
        assert!(storage.connects.len() == TCP_SERVICES as usize, "the completions of every TCP service");
        assert!((1..=GROUPS).contains(&storage.classes.len()), "a class block a group");
        assert!(storage.ports.is_empty() || storage.ports.len() == PORT_WORDS, "a bit for every port");
        let clock = Cell::new(Now::default());
        let sender = Cell::new(Sender::default());
        Self { config, storage, clock, sender, sink, on_evict: None, is_local: None, fill: None }
    }

    /// Evicts no record while there is another way: a new one whose key finds no free slot moves a record to
    /// the other set that its own key has. `fill` says when the tables must grow. One thread has the tables.
    #[must_use]
    pub const fn keeping_all(mut self, fill: &'a Fill) -> Self {
        self.fill = Some(fill);
        self
    }

    /// Tells `on_evict` of every record whose place another takes.
    #[must_use]
    pub fn on_evict(mut self, on_evict: OnEvict<'a>) -> Self {
        self.on_evict = Some(on_evict);
        self
    }

    /// Knows the host's own addresses; without them none is.
    #[must_use]
    pub fn is_local(mut self, is_local: IsLocal<'a>) -> Self {
        self.is_local = Some(is_local);
        self
    }

    /// Counts and tracks a packet that came at `now`.
    pub fn observe(&self, now: Now, packet: &Packet) {
        self.clock.set(now);
        engine::observe(self, packet);
    }

    /// The same of a packet that this socket has sent.
    pub fn observe_of(&self, sender: Sender, now: Now, packet: &Packet) {
        self.sender.set(sender);
        self.observe(now, packet);
        self.sender.set(Sender::default());
    }

    /// The same as a program at a hook does it, which leads handshakes straight where they may go so; says whether
    /// this packet needed no more.
    #[cfg(test)]
    pub fn observe_at_hook(&self, sender: Sender, now: Now, packet: &Packet) -> bool {
        use crate::engine::FastPath;
        use crate::wire::{TCP, quote};
        if packet.protocol == TCP && packet.quote == quote::NONE {
            self.clock.set(now);
            self.sender.set(sender);
            let is_done = if packet.family == Family::V4 as u8 {
                at_hook(FastPath::<_, Slot4>::new(self), *packet)
            } else {
                at_hook(FastPath::<_, Slot6>::new(self), *packet)
            };
            if is_done {
                return true;
            }
        }
        self.observe_of(sender, now, packet);
        false
    }

    fn beside(&self, family: Family) -> &BesideTable<'a> {
        match family {
            Family::V4 => &self.storage.beside4,
            Family::V6 => &self.storage.beside6,
        }
    }

    /// Moves a record of a full set to the other set that its key has; `false` if all those are full.
    fn move_one<S: Table>(&self, place: u32) -> bool {
        let (mask, factors) = (S::mask(self.config), &self.config.factors);
        let Some(set) = S::set(self, place) else { return false };
        let room = set.iter().zip(0..).find_map(|(slot, way)| {
            let mut others = table::sets_of(slot, mask, factors).into_iter().filter(|other| *other != place);
            let (other, free) =
                others.find_map(|other| Some((other, table::free_way(S::set(self, other)?)?)))?;
            Some((slot, place * WAYS + way, other * WAYS + free))
        });
        let Some((slot, from, to)) = room else { return false };
        let Some(free) = S::set(self, to / WAYS).and_then(|set| set.get((to % WAYS) as usize)) else {
            return false;
        };
        engine::relocate(self.config, self.storage.clients, (slot, from), (free, to));
        true
    }

    /// The memory itself, for readers.
    #[must_use]
    pub const fn storage(&self) -> &Storage<'a> {
        &self.storage
    }

    /// The time of the latest packet.
    #[must_use]
    pub const fn now(&self) -> Now {
        self.clock.get()
    }
}

/// Hands a segment to the program at a hook.
#[cfg(test)]
fn at_hook(hook: impl crate::wire::PacketSink, mut packet: Packet) -> bool {
    use crate::wire::{Class, mark};
    if packet.class != Class::Syn as u8 {
        // Only what may begin an attempt asks whether its gate is open.
        packet.marks &= !mark::GATED;
    }
    if packet.class == Class::Ack as u8 {
        return hook.ack(&mut packet);
    }
    let class = Class::ALL.into_iter().find(|class| *class as u8 == packet.class);
    hook.other(&mut packet, class.expect("it has a class"))
}

fn mask_of(slots: usize) -> u32 {
    assert!(slots.is_power_of_two() && slots >= WAYS as usize, "a table is a power of two of slots");
    u32::try_from(slots / WAYS as usize - 1).expect("a table has fewer slots than a u32 counts")
}

impl Platform for Memory<'_> {
    fn config(&self) -> &Config {
        self.config
    }

    fn now_ns(&self) -> u64 {
        self.clock.get().ns
    }

    fn jiffies(&self) -> u32 {
        self.clock.get().jiffies
    }

    fn set4(&self, index: u32) -> Option<&Set<Slot4>> {
        self.storage.slots4.as_chunks().0.get(index as usize)
    }

    fn set6(&self, index: u32) -> Option<&Set<Slot6>> {
        self.storage.slots6.as_chunks().0.get(index as usize)
    }

    fn stripe(&self, index: u32) -> Option<&Shared64> {
        self.storage.stripes.get(index as usize)
    }

    fn client(&self, index: u32) -> Option<&Shared64> {
        self.storage.clients.get(index as usize)
    }

    fn service(&self, row: u32) -> Option<&ServiceRow> {
        self.storage.services.get(row as usize)
    }

    fn connects(&self, row: u32) -> Option<&ConnectRow> {
        self.storage.connects.get(row as usize)
    }

    fn control_group(&self) -> u64 {
        self.sender.get().group
    }

    fn maker(&self) -> [u64; MAKER_WORDS] {
        zerocopy::transmute!(self.sender.get().maker)
    }

    fn owners(&self, family: Family, number: u32) -> Option<&[Shared64; 2]> {
        self.beside(family).owners.get(number as usize)
    }

    fn makers(&self, family: Family, number: u32) -> Option<&MakerWords> {
        self.beside(family).makers.get(number as usize)
    }

    fn make_room<S: Table>(&self, places: [u32; 2]) -> bool {
        let Some(fill) = self.fill else { return false };
        let is_made = places.into_iter().any(|place| self.move_one::<S>(place));
        if !is_made {
            fill.set(S::FAMILY, TableFill { is_crowded: true, ..fill.of(S::FAMILY) });
        }
        is_made
    }

    fn on_fill<S: Slot>(&self) {
        if let Some(fill) = self.fill {
            let before = fill.of(S::FAMILY);
            fill.set(S::FAMILY, TableFill { used: before.used + 1, ..before });
        }
    }

    fn on_evict<S: Slot>(&self, slot: &S, tag: Tag, verdict: Option<Counter>) {
        if let Some(on_evict) = self.on_evict {
            on_evict(&table::record_under(slot, tag, table::Beside::default()), verdict);
        }
    }

    fn is_local(&self, address: &Address, family: u8) -> bool {
        self.is_local.is_some_and(|is_local| is_local(address, family))
    }

    fn books(&self) -> &Books {
        self.storage.books
    }

    fn count_class(&self, packet: &Packet, place: usize, packets: u64) {
        if let Some(classes) = self.storage.classes.get(usize::from(packet.point >> 1)) {
            engine::add_class(classes, place, packets);
        }
    }

    fn sample(&self, leg: Leg, bucket: u32, samples: u64) {
        if let Some(count) = self.storage.histograms[leg as usize].get(bucket as usize) {
            count.add(samples);
        }
    }

    fn is_selected(&self, port: u16) -> bool {
        let word = self.storage.ports.get(usize::from(port >> 6));
        word.is_some_and(|word| word >> (port & 63) & 1 != 0)
    }

    fn emit(&self, _: Option<&MakerWords>, fill: impl FnOnce(&mut MaybeUninit<Event>)) -> bool {
        let mut event = MaybeUninit::zeroed();
        fill(&mut event);
        // SAFETY: every bit pattern is an `Event`, and it began as zeros; the engine, the only caller,
        // writes a whole event over them.
        (self.sink)(unsafe { event.assume_init_ref() })
    }
}
