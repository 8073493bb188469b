//! From packet to record: count, filter, find, step, store. The same code runs in the kernel and on
//! the host; a [`Platform`] is where its memory and its clocks are.

use core::hint::cold_path;
use core::marker::PhantomData;
use core::mem::MaybeUninit;

use crate::abi::{
    self, CLASS_WORDS, Config, Counter, Event, HASH_WORDS, MAX_NETS, NO_POINT, SERVICES, STRIPES, TICK_SHIFT,
    TcpRecord, WAYS, class_index, option, tag,
};
use crate::books::{Books, Claim, ServiceKey, ServiceRow};
use crate::flow::{End, Family, FlowKey, Side};
use crate::record::{Clocks, Now, State, jiffies_since};
use crate::shared::Shared64;
use crate::table::{self, Set, Slot, Slot4, Slot6, Tag, Worth};
use crate::tcp::{self, Change, Segment};
use crate::udp;
use crate::verdict::{Cause, Leg, Sign};
use crate::wire::{self, Class, Packet, quote};
use crate::{below, latency, low_half, masked, spin};

/// Rows of the service table that are looked at for one service.
const SERVICE_PROBES: u32 = 8;
/// Rows of either half of the service table.
const SERVICE_HALF: u32 = SERVICES / 2;

/// Where the tracker's memory and clocks are.
pub trait Platform {
    /// What the agent asked for.
    fn config(&self) -> &Config;
    /// The precise clock, ns. Called for handshake segments and new flows only: it is dear.
    fn now_ns(&self) -> u64;
    /// The coarse clock. Nearly free.
    fn jiffies(&self) -> u32;
    /// A set of the IPv4 table.
    fn set4(&self, index: u32) -> Option<&Set<Slot4>>;
    /// A set of the IPv6 table.
    fn set6(&self, index: u32) -> Option<&Set<Slot6>>;
    /// A lock word, below [`STRIPES`].
    fn stripe(&self, index: u32) -> Option<&Shared64>;
    /// A row of the service table, below [`SERVICES`].
    fn service(&self, row: u32) -> Option<&ServiceRow>;
    /// The counter block of this CPU.
    fn books(&self) -> &Books;
    /// The class counters of this CPU and an interface.
    fn classes(&self, interface: u32) -> Option<&[Shared64; CLASS_WORDS]>;
    /// Counts a sample of a leg.
    fn sample(&self, leg: Leg, bucket: u32);
    /// Waits until the owner of a slot or a lock word has given it back, but not for ever.
    fn wait(&self, word: &Shared64) {
        wait(word, core::hint::spin_loop);
    }
    /// Is the port in the filter's set?
    fn is_selected(&self, port: u16) -> bool;
    /// The record in a slot goes: another takes its place. An attempt that was open ends as `verdict`.
    /// Nothing on the packet path of the kernel; a replay lists the flow.
    #[inline(always)]
    fn on_evict<S: Slot>(&self, _slot: &S, _tag: Tag, _verdict: Option<Counter>) {}
    /// Hands `fill` room for an event and sends it; `false`: there was no room.
    fn emit(&self, fill: impl FnOnce(&mut MaybeUninit<Event>)) -> bool;
}

/// A slot type together with where a platform has its table.
pub trait Table: Slot + Sized {
    /// The set at an index, when there is one.
    fn set<P: Platform>(platform: &P, index: u32) -> Option<&Set<Self>>;
    /// Sets of the table, less one.
    fn mask(config: &Config) -> u32;
}

impl Table for Slot4 {
    #[inline(always)]
    fn set<P: Platform>(platform: &P, index: u32) -> Option<&Set<Self>> {
        platform.set4(index)
    }
    #[inline(always)]
    fn mask(config: &Config) -> u32 {
        config.mask4
    }
}

impl Table for Slot6 {
    #[inline(always)]
    fn set<P: Platform>(platform: &P, index: u32) -> Option<&Set<Self>> {
        platform.set6(index)
    }
    #[inline(always)]
    fn mask(config: &Config) -> u32 {
        config.mask6
    }
}

/// Counts a packet by its class, and says whether it is one the tracker wants.
#[inline(always)]
pub fn count<P: Platform>(platform: &P, packet: &Packet) -> bool {
    count_class(platform, packet);
    is_wanted(platform, packet)
}

/// Is the packet of a flow, and of one that passes the filters? One that does not is counted as such.
#[inline(always)]
fn is_wanted<P: Platform>(platform: &P, packet: &Packet) -> bool {
    if packet.protocol == 0 {
        return false;
    }
    let wanted = passes(platform, packet);
    if !wanted {
        platform.books().add(Counter::Filtered, packet.segments as u64);
    }
    wanted
}

#[inline(always)]
fn count_class<P: Platform>(platform: &P, packet: &Packet) {
    let Some(classes) = platform.classes(packet.point as u32 >> 1) else { return };
    let packets = packet.segments as u64;
    // Of a super-packet only the last segment carries the FIN.
    let acks = if packet.class == Class::Fin as u8 { packet.acks() as u64 } else { 0 };
    add_class(classes, packet.class, packet.family, packets - acks);
    if acks != 0 {
        add_class(classes, Class::Ack as u8, packet.family, acks);
    }
}

#[inline(always)]
fn add_class(classes: &[Shared64; CLASS_WORDS], class: u8, family: u8, packets: u64) {
    let word = &classes[masked::<{ CLASS_WORDS - 1 }>(class_index(class, family))];
    word.store(word.load().wrapping_add(packets));
}

/// Does either end of the flow pass the filters?
#[inline(always)]
fn passes<P: Platform>(platform: &P, packet: &Packet) -> bool {
    let config = platform.config();
    if config.options & (option::PORTS | option::NETS) == 0 {
        return true;
    }
    cold_path();
    let by_port = config.options & option::PORTS == 0
        || platform.is_selected(packet.source_port)
        || platform.is_selected(packet.destination_port);
    by_port && (config.options & option::NETS == 0 || in_a_net(config, packet))
}

#[inline(always)]
fn in_a_net(config: &Config, packet: &Packet) -> bool {
    let mut i = 0;
    while i < MAX_NETS {
        let net = &config.nets[i];
        if net.family == 0 {
            return false;
        }
        if net.family == packet.family as u32
            && (is_in(net, &packet.source) || is_in(net, &packet.destination))
        {
            return true;
        }
        i += 1;
    }
    false
}

#[inline(always)]
fn is_in(net: &abi::Net, address: &[u32; 4]) -> bool {
    (address[0] & net.mask[0]) == net.address[0]
        && (address[1] & net.mask[1]) == net.address[1]
        && (address[2] & net.mask[2]) == net.address[2]
        && (address[3] & net.mask[3]) == net.address[3]
}

/// A wanted packet on its way to its record.
struct Lookup<'a, P> {
    platform: &'a P,
    config: &'a Config,
    packet: &'a Packet,
    key: FlowKey,
    /// The end that sent it; of an ICMP error the end that sent what it quotes.
    end: End,
    jiffies: u32,
}

/// What a packet that meets no record makes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum NewRecord {
    Attempt,
    Orphan,
    Midstream,
    Udp,
    Nothing,
}

impl NewRecord {
    #[inline(always)]
    fn of(packet: &Packet) -> Self {
        if packet.quote != quote::NONE {
            Self::Nothing
        } else if packet.protocol == wire::UDP {
            Self::Udp
        } else if packet.class == Class::Syn as u8 {
            Self::Attempt
        } else if packet.class == Class::SynAck as u8 {
            Self::Orphan
        } else if packet.class == Class::Ack as u8 {
            Self::Midstream
        } else {
            Self::Nothing
        }
    }

    /// What it may take the place of, at most. An attempt: of what a SYN flood leaves, answered or not.
    #[inline(always)]
    const fn worth(self) -> Worth {
        match self {
            Self::Attempt => Worth::HalfOpenNoAck,
            Self::Orphan | Self::Midstream => Worth::Midstream,
            Self::Udp => Worth::UdpUnanswered,
            Self::Nothing => Worth::Free,
        }
    }
}

/// Counts and tracks a packet, all of it.
pub fn observe<P: Platform>(platform: &P, packet: &Packet) {
    if !count(platform, packet) {
        return;
    }
    if packet.family == Family::V4 as u8 {
        track::<P, Slot4>(platform, packet);
    } else {
        track::<P, Slot6>(platform, packet);
    }
}

fn track<P: Platform, S: Table>(platform: &P, packet: &Packet) {
    run(platform, packet, meet::<P, S>, insert::<P, S>);
}

/// The order of the two steps that share the work of tracking. The kernel side makes each a function of its own,
/// which the verifier checks once, and whose stack is gone before the next.
#[inline(always)]
pub fn run<P: Platform>(
    platform: &P,
    packet: &Packet,
    meet: impl Fn(&P, &Packet) -> bool,
    insert: impl Fn(&P, &Packet) -> bool,
) {
    if !is_syn(packet) && meet(platform, packet) {
        return;
    }
    if !insert(platform, packet) && !meet(platform, packet) {
        // The record that was there went to another flow since.
        platform.books().add(Counter::Contended, 1);
    }
}

/// The fast path: takes a packet that only counts, of a flow that has a record or is of none. `false`: nothing
/// has been done, the packet takes the general way.
pub struct FastPath<'a, P, S> {
    platform: &'a P,
    table: PhantomData<S>,
}

impl<'a, P: Platform, S: Table> FastPath<'a, P, S> {
    /// To this table of a platform.
    pub const fn new(platform: &'a P) -> Self {
        Self { platform, table: PhantomData }
    }

    #[inline(always)]
    fn pass(self, packet: &Packet) -> bool {
        let passed = !is_wanted(self.platform, packet)
            || matches!(Lookup::new::<S>(self.platform, packet).find::<S>(), Found::Passed);
        if passed {
            count_class(self.platform, packet);
        }
        passed
    }
}

impl<P: Platform, S: Table> wire::PacketSink for FastPath<'_, P, S> {
    #[inline(always)]
    fn ack(self, packet: &mut Packet) -> bool {
        packet.class = Class::Ack as u8;
        self.pass(packet)
    }

    #[inline(always)]
    fn udp(self, packet: &mut Packet) -> bool {
        packet.class = Class::Udp as u8;
        self.pass(packet)
    }

    #[inline(always)]
    fn other(self, packet: &mut Packet, class: Class) -> bool {
        packet.class = class as u8;
        let no_flow = packet.protocol == 0;
        if no_flow {
            count_class(self.platform, packet);
        }
        no_flow
    }
}

/// Does the packet begin an attempt, unless there is one? A SYN is nearly always new: it looks for a
/// record once, under the lock.
#[inline(always)]
fn is_syn(packet: &Packet) -> bool {
    NewRecord::of(packet) == NewRecord::Attempt
}

/// A packet that [`count`] wants meets the record of its flow. `false`: there is none, and the packet is one that makes
/// one.
#[inline(always)]
pub fn meet<P: Platform, S: Table>(platform: &P, packet: &Packet) -> bool {
    let lookup = Lookup::new::<S>(platform, packet);
    match lookup.find::<S>() {
        Found::Passed => true,
        Found::Nowhere => NewRecord::of(packet) == NewRecord::Nothing,
        Found::At(index) => {
            // From here on in one way, whichever slot it is.
            let index = low_half(lookup.veil(index as u64));
            if let Some(set) = S::set(platform, index / WAYS) {
                lookup.meet(slot_of(set, index));
            }
            true
        }
    }
}

/// Makes a record for a packet. `false`: there is one after all.
#[inline(always)]
pub fn insert<P: Platform, S: Table>(platform: &P, packet: &Packet) -> bool {
    Lookup::new::<S>(platform, packet).insert::<S>()
}

/// The row of the service a packet is sent to: its own, or `other` when the table has no room near
/// its place.
#[inline(always)]
pub fn service_row<P: Platform>(platform: &P, packet: &Packet) -> u32 {
    let key = ServiceKey::new(packet.destination, packet.destination_port, packet.protocol, packet.family);
    let half = if packet.protocol == wire::UDP { SERVICE_HALF } else { 0 };
    let start = key.mix(&platform.config().factors[0]);
    let mut i = 0;
    while i < SERVICE_PROBES {
        let row = half + (start.wrapping_add(i) & (SERVICE_HALF - 1)).max(1);
        if let Some(service) = platform.service(row) {
            match service.claim(&key) {
                Claim::Ours => return row,
                Claim::Unsettled => return half,
                Claim::Foreign => {}
            }
        }
        i += 1;
    }
    half
}

impl<'a, P: Platform> Lookup<'a, P> {
    #[inline(always)]
    fn new<S: Slot>(platform: &'a P, packet: &'a Packet) -> Self {
        let source = (&packet.source, packet.source_port);
        let destination = (&packet.destination, packet.destination_port);
        let (key, end) = FlowKey::of(source, destination, S::FAMILY, packet.protocol == wire::UDP);
        Self { platform, config: platform.config(), packet, key, end, jiffies: platform.jiffies() }
    }

    #[inline(always)]
    fn hash<S: Table>(&self, which: usize) -> u32 {
        table::hash(&self.key, S::FAMILY, &self.config.factors[which])
    }

    /// Where the set is that a hash chooses.
    #[inline(always)]
    fn place_of<S: Table>(&self, hash: u32) -> u32 {
        table::set_of(hash, S::mask(self.config))
    }

    #[inline(always)]
    fn clocks(&self) -> Clocks {
        Clocks {
            half_open_after_ns: self.config.half_open_after_ns,
            expire_after_ns: self.config.expire_after_ns,
            udp_idle_jiffies: self.config.udp_idle_jiffies,
            idle_after_jiffies: self.config.idle_after_jiffies,
        }
    }

    #[inline(always)]
    fn now(&self) -> Now {
        Now { ns: self.platform.now_ns(), jiffies: self.jiffies }
    }

    #[inline(always)]
    fn is_here<S: Slot>(&self, slot: &S, tag: Tag) -> bool {
        slot.holds(&self.key) && self.is_ours(tag)
    }

    /// A record of the packet's protocol? A free slot may have the key still, and the other protocol's record another.
    #[inline(always)]
    fn is_ours(&self, tag: Tag) -> bool {
        let state = tag.state();
        !matches!(state, State::Empty) && state.is_udp() == self.key.udp
    }

    /// The slot that holds the key. A packet that only counts is counted at once. The second set is
    /// worked out only when the first does not have it.
    #[inline(always)]
    fn find<S: Table>(&self) -> Found {
        match self.find_in::<S>(0) {
            Found::Nowhere => self.find_in::<S>(1),
            found @ (Found::At(_) | Found::Passed) => found,
        }
    }

    #[inline(always)]
    fn find_in<S: Table>(&self, which: usize) -> Found {
        let place = self.place_of::<S>(self.hash::<S>(which));
        let Some(set) = S::set(self.platform, place) else { return Found::Nowhere };
        let mut way = 0;
        while way < WAYS {
            let slot = slot_of(set, way);
            let tag = Tag(slot.tag().load());
            if slot.holds(&self.key) {
                if self.pass_by(slot, tag) {
                    return Found::Passed;
                }
                if self.is_ours(tag) {
                    return Found::At(place * WAYS + way);
                }
            }
            way += 1;
        }
        Found::Nowhere
    }

    /// Makes a record for the newcomer; `false`: there is one already.
    #[inline(always)]
    fn insert<S: Table>(&self) -> bool {
        let first = self.hash::<S>(0);
        let places = [self.place_of::<S>(first), self.place_of::<S>(self.hash::<S>(1))];
        // The set takes the low bits of the hash, the lock word higher ones.
        let (Some(one), Some(other), Some(lock)) = (
            S::set(self.platform, places[0]),
            S::set(self.platform, places[1]),
            self.platform.stripe(first >> 16 & (STRIPES - 1)),
        ) else {
            return true;
        };
        if !acquire(lock) {
            self.platform.books().add(Counter::Contended, 1);
            return true;
        }
        let is_new = !self.has_a_record([one, other]);
        if is_new {
            self.take([one, other]);
        }
        lock.swap(0);
        is_new
    }

    #[inline(always)]
    fn has_a_record<S: Table>(&self, sets: [&Set<S>; 2]) -> bool {
        let mut way = 0;
        while way < 2 * WAYS {
            let slot = slot_of(sets[(way / WAYS) as usize], way);
            if self.is_here(slot, Tag(slot.tag().load())) {
                return true;
            }
            way += 1;
        }
        false
    }

    /// Takes a place, if the newcomer is worth it: a free slot of the emptier set, else the slot that is worth least.
    /// The lock word of the key is held.
    #[inline(always)]
    fn take<S: Table>(&self, sets: [&Set<S>; 2]) {
        let books = self.platform.books();
        let now = self.now();
        let clocks = self.clocks();
        let place = vacancy(sets).unwrap_or_else(|| survey(sets, now, &clocks));
        // Asked after the survey, lest the verifier follow the survey once a kind of newcomer.
        let newcomer = NewRecord::of(core::hint::black_box(self.packet));
        if place.worth() > newcomer.worth() as u64 {
            if matches!(newcomer, NewRecord::Attempt | NewRecord::Udp) {
                books.add(Counter::Untracked, 1);
            }
            return;
        }
        let slot = slot_of(if place.way() < WAYS { sets[0] } else { sets[1] }, place.way());
        let tag = Tag(slot.tag().load());
        let worth = table::worth(slot, tag, now, &clocks);
        if worth as u64 != place.worth()
            || tag.is_locked()
            || !slot.tag().compare_exchange(tag.0, tag.locked().0)
        {
            books.add(Counter::Contended, 1);
            return;
        }
        if worth != Worth::Free as u32 {
            self.evict(slot, tag, worth, now);
        }
        slot.set_key(&self.key);
        self.start(slot, tag, now, newcomer);
    }

    /// A record goes for room: every state has its counter, and an open attempt its verdict.
    #[inline(always)]
    fn evict<S: Table>(&self, slot: &S, tag: Tag, worth: u32, now: Now) {
        let books = self.platform.books();
        let state = tag.state();
        let expired = worth <= Worth::Expired as u32;
        if state.is_open() {
            let verdict = if expired { expired_as(state) } else { Counter::Evicted };
            self.close(slot, tag, verdict, now);
        } else {
            self.platform.on_evict(slot, tag, None);
        }
        if state.is_udp() && !expired {
            self.transfer(tag.service(), state.gauge_place(), Counter::UdpEvicted as usize);
        }
        books.add_at(evicted_place(worth));
    }

    /// The end of an open attempt whose record goes.
    #[inline(always)]
    fn close<S: Slot>(&self, slot: &S, tag: Tag, verdict: Counter, now: Now) {
        self.transfer(tag.service(), tag.state().gauge_place(), verdict as usize);
        self.tell(slot, tag, verdict as usize, now);
        self.platform.on_evict(slot, tag, Some(verdict));
    }

    /// Begins a record in a slot that is owned and has the key, and publishes it.
    #[inline(always)]
    fn start<S: Table>(&self, slot: &S, old: Tag, now: Now, newcomer: NewRecord) {
        let books = self.platform.books();
        let segment = Segment::of(self.packet);
        let sender_high = matches!(self.end, End::High);
        let mut flags = if sender_high { tag::INITIATOR_HIGH } else { 0 };
        let mut service = 0;
        let state = match newcomer {
            NewRecord::Attempt => {
                let (record, more) = tcp::open(&segment, now.ns);
                flags |= more;
                slot.body().set_tcp(record);
                service = self.enter(Counter::Attempts, State::SynSent);
                State::SynSent
            }
            NewRecord::Orphan => {
                slot.body().set_tcp(tcp::join(&segment, now.ns));
                flags ^= tag::INITIATOR_HIGH;
                books.add(Counter::OrphanSynAck, 1);
                State::OrphanSynAck
            }
            NewRecord::Midstream => {
                slot.body().set_tcp(tcp::join(&segment, now.ns));
                books.add(Counter::Midstream, 1);
                State::Midstream
            }
            NewRecord::Udp => {
                let (record, state) = udp::open(self.packet, S::FAMILY, now.ns);
                slot.body().set_udp(record);
                service = self.enter(Counter::UdpFlows, state);
                self.count_udp();
                state
            }
            NewRecord::Nothing => State::Empty,
        };
        slot.last().store(now.jiffies);
        slot.tag().swap(old.next(state, flags, service).0);
    }

    /// A new attempt or UDP flow in the books and in its service's row, which it gives.
    #[inline(always)]
    fn enter(&self, total: Counter, state: State) -> u16 {
        let (total, gauge) = (total as usize, state.gauge_place());
        self.platform.books().enter(total, gauge);
        let row = service_row(self.platform, self.packet) & (SERVICES - 1);
        if let Some(service) = self.platform.service(row) {
            service.bump(total, 1);
            service.bump(gauge, 1);
        }
        (row & 0xffff) as u16
    }

    /// From one gauge to another, in the books and in the service's row.
    #[inline(always)]
    fn transfer(&self, row: u16, from: usize, to: usize) {
        let (from, to) = (self.veiled_place(from), self.veiled_place(to));
        self.platform.books().transfer(from, to);
        if let Some(service) = self.platform.service(row as u32) {
            service.bump(from, u64::MAX);
            service.bump(to, 1);
        }
    }

    /// The packet meets the record of its flow.
    #[inline(always)]
    fn meet<S: Table>(&self, slot: &S) {
        let Some(tag) = own(self.platform, slot) else {
            self.platform.books().add(Counter::Contended, 1);
            return;
        };
        if !self.is_here(slot, tag) {
            // The slot went to another flow since it was found.
            slot.tag().swap(tag.0);
            self.platform.books().add(Counter::Contended, 1);
            return;
        }
        let now = if self.needs_time(tag.state()) { self.now() } else { self.no_time() };
        let goes_on =
            if self.key.udp { self.change_udp(slot, tag, now) } else { self.change_tcp(slot, tag, now) };
        if !goes_on {
            cold_path();
            self.start(slot, tag, now, NewRecord::of(self.packet));
        }
    }

    /// The end of a connection is not timed, and the precise clock is dear.
    #[inline(always)]
    fn needs_time(&self, state: State) -> bool {
        let ends = 1 << Class::Fin as u32 | 1 << Class::Rst as u32;
        !state.is_completed() || ends >> self.packet.class & 1 == 0
    }

    #[inline(always)]
    fn no_time(&self) -> Now {
        Now { ns: self.veil(0), jiffies: self.jiffies }
    }

    #[inline(always)]
    fn side(&self, flags: u16) -> Side {
        let initiator_high = flags & tag::INITIATOR_HIGH != 0;
        if initiator_high == matches!(self.end, End::High) { Side::Initiator } else { Side::Responder }
    }

    /// The packet changes nothing but counts: done without owning the slot.
    #[inline(always)]
    fn pass_by<S: Slot>(&self, slot: &S, tag: Tag) -> bool {
        let side = self.side(tag.flags());
        if !self.is_settled(slot, tag, side) {
            return false;
        }
        let shift = if matches!(side, Side::Initiator) { 0 } else { 4 };
        let point = slot.body().points() >> shift & 0xf;
        if point == self.packet.point & 0xf {
            slot.last().store(self.jiffies);
            self.count_packet(slot, side);
        } else if point == NO_POINT {
            return false;
        } else {
            slot.last().store(self.jiffies);
        }
        true
    }

    /// Is the packet one that changes no state of the flow's record, which nobody owns?
    #[inline(always)]
    fn is_settled<S: Slot>(&self, slot: &S, tag: Tag, side: Side) -> bool {
        if self.key.udp {
            let states = if matches!(side, Side::Initiator) { UDP_INITIATOR } else { UDP_RESPONDER };
            let idle = jiffies_since(self.jiffies, slot.last().load());
            self.packet.class == Class::Udp as u8 && tag.is_in(states) && idle <= self.config.udp_idle_jiffies
        } else {
            self.packet.class == Class::Ack as u8 && tag.is_in(ACK)
        }
    }

    #[inline(always)]
    fn count_packet<S: Slot>(&self, slot: &S, side: Side) {
        if self.key.udp {
            let responder = matches!(side, Side::Responder);
            slot.body().add_udp(responder, self.packet.segments as u32, self.packet.bytes());
            self.count_udp();
        } else {
            slot.body().add_acks(self.packet.acks());
        }
    }

    #[inline(always)]
    fn count_udp(&self) {
        self.platform.books().add(Counter::UdpPackets, self.packet.segments as u64);
        self.platform.books().add(Counter::UdpBytes, self.packet.bytes());
    }

    /// A UDP flow is answered, found unreachable, or seen at its other hook point. The slot is owned. `false`: the flow
    /// is past its time, and the packet begins another.
    #[inline(always)]
    fn change_udp<S: Table>(&self, slot: &S, old: Tag, now: Now) -> bool {
        let state = old.state();
        if table::expired(slot, state, now, &self.clocks()) {
            self.platform.on_evict(slot, old, None);
            return false;
        }
        let side = self.side(old.flags());
        let after = udp::step(state, side, self.packet.quote);
        if self.packet.quote == quote::NONE {
            let mut record = slot.body().udp();
            record.points = see_point(record.points, side, self.packet.point);
            if after as u8 != state as u8 && matches!(after, State::UdpAnswered) {
                let ticks = now.ns.saturating_sub(record.opened_ns) >> TICK_SHIFT;
                record.answer_after = low_half(ticks.clamp(1, u32::MAX as u64));
            }
            slot.body().set_udp(record);
            if is_point_of(record.points, side, self.packet.point) {
                self.count_packet(slot, side);
            }
            slot.last().store(now.jiffies);
        }
        if after as u8 != state as u8 {
            self.transfer(old.service(), state.gauge_place(), after.gauge_place());
        }
        slot.tag().swap(old.next(after, old.flags(), old.service()).0);
        true
    }

    /// A segment that may change a TCP record. The slot is owned. `false`: the record has ended, and the segment is
    /// judged as if there were none.
    #[inline(always)]
    fn change_tcp<S: Table>(&self, slot: &S, old: Tag, now: Now) -> bool {
        let clocks = self.clocks();
        let mut state = old.state();
        let mut record = slot.body().tcp();
        if state.is_open() && record.expired(now.ns, &clocks) {
            self.close(slot, old, expired_as(state), now);
            return false;
        }
        let idle = jiffies_since(now.jiffies, slot.last().load());
        if matches!(state, State::Established) && idle > clocks.idle_after_jiffies {
            state = State::Closed;
        }
        let context = tcp::Conditions {
            now_ns: now.ns,
            half_open_after_ns: clocks.half_open_after_ns,
            one_sided: self.config.options & option::ONE_SIDED != 0,
            veil: self.veil(0),
        };
        let segment = Segment::of(self.packet);
        let change = tcp::step(state, old.flags(), &mut record, self.side(old.flags()), &segment, &context);
        let change = Change::unpack(self.veil(change.pack()));
        if change.new_attempt {
            if state.is_open() {
                self.close(slot, old, Counter::Superseded, now);
            } else {
                self.platform.on_evict(slot, old, None);
            }
            return false;
        }
        slot.body().set_tcp(record);
        slot.last().store(now.jiffies);
        self.conclude(slot, old, &change, now);
        true
    }

    /// The same word, of which the verifier knows nothing: the many ways through a step are one way from
    /// here on, where it would otherwise follow each to the end.
    #[inline(always)]
    fn veil(&self, word: u64) -> u64 {
        let never = (self.config.options & option::VEIL) / option::VEIL;
        word ^ 0_u64.wrapping_sub(never as u64)
    }

    /// The same place in a counter block, likewise: the books are changed in one way, not in one a verdict.
    #[inline(always)]
    fn veiled_place(&self, place: usize) -> usize {
        low_half(self.veil(place as u64)) as usize
    }

    /// Books what a step says, and publishes the record.
    #[inline(always)]
    fn conclude<S: Slot>(&self, slot: &S, old: Tag, change: &Change, now: Now) {
        let before = old.state();
        let mut service = old.service();
        if change.state as u8 != before as u8 {
            if !before.is_attempt() && change.state.is_attempt() {
                // Its SYN came after its SYN+ACK: the orphan was an attempt.
                self.platform.books().add(Counter::OrphanSynAck, u64::MAX);
                service = self.enter(Counter::Attempts, State::SynReceived);
                self.settle(service, State::SynReceived, change.state);
            } else {
                self.settle(service, before, change.state);
            }
        }
        self.count_signs(change);
        self.count_legs(change, &slot.body().tcp());
        let published = old.next(change.state, change.flags, service);
        if is_end(before, change.state) {
            self.tell(slot, published, change.state.gauge_place(), now);
        }
        slot.tag().swap(published.0);
    }

    /// An attempt goes from one state to another.
    #[inline(always)]
    fn settle(&self, service: u16, before: State, after: State) {
        let (from, to) = (before.gauge_place(), after.gauge_place());
        if from == to {
            return;
        }
        self.transfer(service, from, to);
        if after.is_provisional() {
            // The counts of entrances lie in the order of the gauges.
            let first = Counter::EnteredRefused as usize - Counter::Refused as usize;
            self.platform.books().add_at(first + to);
        }
    }

    #[inline(always)]
    fn count_signs(&self, change: &Change) {
        if change.signs.is_empty() {
            return;
        }
        let books = self.platform.books();
        let count = |sign: Sign, counter: Counter| {
            if change.signs.has_sign(sign) {
                books.add(counter, 1);
            }
        };
        count(Sign::SynRetransmit, Counter::SynRetransmits);
        count(Sign::SynAckRetransmit, Counter::SynAckRetransmits);
        count(Sign::BadSynAck, Counter::BadSynAck);
        count(Sign::BadAck, Counter::BadAck);
        count(Sign::AckIgnored, Counter::AckIgnored);
        count(Sign::Revised, Counter::Revised);
    }

    #[inline(always)]
    fn count_legs(&self, change: &Change, record: &TcpRecord) {
        if change.timed.is_empty() && change.excluded.is_empty() {
            return;
        }
        let second = record.latest_after.saturating_sub(record.syn_ack_after);
        self.count_leg(change, Leg::SynToSynAck, record.syn_ack_after);
        self.count_leg(change, Leg::SynAckToAck, second);
        self.count_leg(change, Leg::Connect, record.latest_after);
        if change.timed.has_leg(Leg::Connect) || change.excluded.has_leg(Leg::Connect) {
            let late = change.flags & tag::LATE != 0;
            self.platform.books().add(Counter::Late, late as u64);
        }
    }

    #[inline(always)]
    fn count_leg(&self, change: &Change, leg: Leg, ticks: u32) {
        let (excluded, longest) = match leg {
            Leg::SynToSynAck => (Counter::ExcludedSynToSynAck, Counter::MaxSynToSynAck),
            Leg::SynAckToAck => (Counter::ExcludedSynAckToAck, Counter::MaxSynAckToAck),
            Leg::Connect => (Counter::ExcludedConnect, Counter::MaxConnect),
        };
        let books = self.platform.books();
        if change.timed.has_leg(leg) {
            let ns = (ticks as u64) << TICK_SHIFT;
            self.platform.sample(leg, latency::bucket(ns));
            books.raise(longest, ns);
        } else if change.excluded.has_leg(leg) {
            books.add(excluded, 1);
        }
    }

    /// Tells whoever asked for events that an attempt ended.
    #[inline(always)]
    fn tell<S: Slot>(&self, slot: &S, tag: Tag, verdict: usize, now: Now) {
        if self.config.options & option::EVENTS == 0 {
            return;
        }
        let sent = self.platform.emit(|event| {
            event.write(table::event(slot, tag, verdict, now.ns));
        });
        if !sent {
            self.platform.books().add(Counter::LostEvents, 1);
        }
    }
}

/// The states in which a segment of class ack only counts.
const ACK: u32 = 1 << State::Established as u32 | 1 << State::Closed as u32 | 1 << State::Midstream as u32;
/// The states in which a UDP packet of the initiator only counts, and one of the responder.
const UDP_INITIATOR: u32 = settled_for(Side::Initiator);
const UDP_RESPONDER: u32 = settled_for(Side::Responder);

const fn settled_for(side: Side) -> u32 {
    let (mut states, mut i) = (0, 0);
    while i < State::ALL.len() {
        let state = State::ALL[i];
        if state.is_udp() && udp::step(state, side, quote::NONE) as u8 == state as u8 {
            states |= 1 << state as u32;
        }
        i += 1;
    }
    states
}

/// Where a key was found.
enum Found {
    Nowhere,
    At(u32),
    /// There, and its packet needed no more than counting.
    Passed,
}

/// How soon a slot's record has to go: the least score first. One word, so that the least of several is found
/// without a branch: which it is no processor could foresee, and the verifier would follow every order.
///
/// ```text
/// 62            35      3     0
/// │ locked │ worth │ youth │ way │
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
struct Score(i64);

impl Score {
    const YOUTH_SHIFT: u32 = 3;
    const WORTH_SHIFT: u32 = Self::YOUTH_SHIFT + 32;
    /// Above every worth: a slot that another CPU owns is worth more than anything.
    const LOCKED_SHIFT: u32 = 62;
    const MOST: Self = Self(i64::MAX);

    /// Of the slot that is the `way`-th of a key's eight.
    #[inline(always)]
    fn of<S: Slot>(slot: &S, way: u32, tag: Tag, now: Now, clocks: &Clocks) -> Self {
        let worth = table::worth(slot, tag, now, clocks) as u64;
        let youth = slot.last().load().wrapping_sub(now.jiffies).wrapping_add(1 << 31) as u64;
        let locked = (tag.0 & tag::LOCKED) << Self::LOCKED_SHIFT;
        Self((locked | worth << Self::WORTH_SHIFT | youth << Self::YOUTH_SHIFT | way as u64).cast_signed())
    }

    #[inline(always)]
    const fn worth(self) -> u64 {
        self.0.cast_unsigned() >> Self::WORTH_SHIFT
    }

    #[inline(always)]
    const fn way(self) -> u32 {
        low_half(self.0.cast_unsigned()) & (2 * WAYS - 1)
    }

    /// The other score if `other_wins` is 1, this one if it is 0.
    #[inline(always)]
    const fn or(self, other: Self, other_wins: u64) -> Self {
        Self(self.0 ^ ((self.0 ^ other.0) & 0_i64.wrapping_sub(other_wins.cast_signed())))
    }
}

/// A free slot of the set that has more of them, if either has one.
#[inline(always)]
fn vacancy<S: Slot>(sets: [&Set<S>; 2]) -> Option<Score> {
    let (first, second) = (vacant(sets[0]), vacant(sets[1]));
    if first | second == 0 {
        return None;
    }
    let second_wins = nibble(ONES, first) < nibble(ONES, second);
    let way = if second_wins { WAYS as u64 + nibble(LOWEST, second) } else { nibble(LOWEST, first) };
    Some(Score(way.cast_signed()))
}

/// How many ones a number of four bits has, and where the lowest is: a nibble a number. BPF has no instruction for either.
const ONES: u64 = 0x4332_3221_3221_2110;
const LOWEST: u64 = 0x0102_0103_0102_0100;

#[inline(always)]
const fn nibble(of: u64, number: u64) -> u64 {
    of >> (number * 4) & 0xf
}

/// The free slots of a set, as bits.
#[inline(always)]
fn vacant<S: Slot>(set: &Set<S>) -> u64 {
    let (mut bits, mut way) = (0, 0);
    while way < WAYS {
        // State and lock are both 0.
        let free = below((slot_of(set, way).tag().load() & 0xff).cast_signed(), 1);
        bits |= free << way;
        way += 1;
    }
    bits
}

/// Of both sets the slot whose record is to go first.
#[inline(always)]
fn survey<S: Slot>(sets: [&Set<S>; 2], now: Now, clocks: &Clocks) -> Score {
    let (mut least, mut way) = (Score::MOST, 0);
    while way < 2 * WAYS {
        let slot = slot_of(sets[(way / WAYS) as usize], way);
        let score = Score::of(slot, way, Tag(slot.tag().load()), now, clocks);
        least = least.or(score, below(score.0, least.0));
        way += 1;
    }
    least
}

/// The slot that is so far in its set, whichever set that is.
#[inline(always)]
fn slot_of<S>(set: &Set<S>, way: u32) -> &S {
    &set[masked::<{ WAYS as usize - 1 }>(way as usize)]
}

/// Takes a slot, or gives up; the tag it had.
#[inline(always)]
fn own<P: Platform, S: Slot>(platform: &P, slot: &S) -> Option<Tag> {
    let mut tries = 0;
    while tries < spin::TRIES {
        let tag = Tag(slot.tag().load());
        if !tag.is_locked() && slot.tag().compare_exchange(tag.0, tag.locked().0) {
            return Some(tag);
        }
        platform.wait(slot.tag());
        tries += 1;
    }
    None
}

/// Looks at a word until it is not locked, with a pause between two looks, or gives up.
#[inline(always)]
pub fn wait(word: &Shared64, pause: impl Fn()) {
    let mut looks = 0;
    while looks < spin::LOOKS && word.load() & tag::LOCKED != 0 {
        pause();
        looks += 1;
    }
}

/// Where an eviction of a record of this worth is counted: six bits a worth.
#[inline(always)]
const fn evicted_place(worth: u32) -> usize {
    const PLACES: [Counter; 9] = [
        Counter::EvictedExpired,
        Counter::EvictedExpired,
        Counter::EvictedClosed,
        Counter::EvictedMidstream,
        Counter::EvictedUdp,
        Counter::EvictedHalfOpen,
        Counter::EvictedHalfOpen,
        Counter::EvictedUdp,
        Counter::EvictedCompleted,
    ];
    const PACKED: u64 = {
        let mut packed = 0;
        let mut i = 0;
        while i < PLACES.len() {
            packed |= (PLACES[i] as u64) << (i * 6);
            i += 1;
        }
        packed
    };
    (PACKED >> (worth * 6) & 0x3f) as usize
}

/// The verdict of an open attempt that expired.
#[inline(always)]
const fn expired_as(state: State) -> Counter {
    match state.cause() {
        Cause::NoSynAck => Counter::ExpiredNoSynAck,
        Cause::NoAck => Counter::ExpiredNoAck,
    }
}

/// Does an attempt end (for all that is known) with this change?
#[inline(always)]
const fn is_end(before: State, after: State) -> bool {
    (after.is_provisional() || after.is_completed()) && !before.is_completed() && before as u8 != after as u8
}

/// The points of a UDP record when `side` was seen at `point`: the first one stays.
#[inline(always)]
const fn see_point(points: u8, side: Side, point: u8) -> u8 {
    let shift = if matches!(side, Side::Initiator) { 0 } else { 4 };
    if points >> shift & 0xf == NO_POINT { points & !(0xf << shift) | (point & 0xf) << shift } else { points }
}

/// Was `side` first seen at `point`?
#[inline(always)]
const fn is_point_of(points: u8, side: Side, point: u8) -> bool {
    let shift = if matches!(side, Side::Initiator) { 0 } else { 4 };
    points >> shift & 0xf == point & 0xf
}

/// Takes a lock word, or gives up: a packet never waits long.
#[inline(always)]
fn acquire(lock: &Shared64) -> bool {
    let mut looks = 0;
    while looks < spin::LOOKS {
        if lock.load() == 0 && lock.compare_exchange(0, 1) {
            return true;
        }
        looks += 1;
    }
    false
}

/// Factors for [`table::hash`] from a stream of random words.
#[must_use]
pub fn factors(mut random: impl FnMut() -> u64) -> [[u64; HASH_WORDS]; 2] {
    core::array::from_fn(|_| core::array::from_fn(|_| random()))
}

#[cfg(test)]
mod tests;
