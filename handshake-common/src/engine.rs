//! From packet to record: count, filter, look up, apply the rules, store. The same code runs in the kernel
//! and on the host; a [`Platform`] supplies its memory and its clocks.
//!
//! ```text
//! observe ─▶ filter   count by class, --port and --net
//!         ├▶ fast     packets that only count ─▶ straight  the segments of a handshake without incident
//!         └▶ run ─┬─▶ open    a SYN: the record of an attempt: place (slot, eviction), service (row)
//!                 ├─▶ update  a packet and the record of its flow ─▶ tcp::step, udp::step
//!                 ├─▶ answer  a datagram from elsewhere, and the flow of its request
//!                 ├─▶ insert  any other new record
//!                 ├─  owner   whose socket sent a SYN or SYN+ACK
//!                 └─▶ settle  a row for a service that has none
//! ```

// By path: `tests/model` takes this file by path too, where a plain `mod` would look beside it.
#[path = "engine/elsewhere.rs"]
mod elsewhere;
#[path = "engine/fast.rs"]
mod fast;
#[path = "engine/filter.rs"]
mod filter;
#[path = "engine/owner.rs"]
mod owner;
#[path = "engine/place.rs"]
mod place;
#[path = "engine/platform.rs"]
mod platform;
#[path = "engine/service.rs"]
mod service;
#[path = "engine/straight.rs"]
mod straight;
#[path = "engine/update.rs"]
mod update;

use core::cell::Cell;
use core::hint::cold_path;

pub use self::elsewhere::answer;
#[cfg(not(target_arch = "bpf"))]
pub use self::elsewhere::relocate;
pub use self::fast::FastPath;
pub use self::filter::{add_class, count, count_class, count_note};
pub use self::owner::{attribute, move_owned};
use self::place::lock_slot;
pub use self::place::{evict, survey};
use self::platform::slot_of;
pub use self::platform::{Explanation, NewOwner, Platform, Table, wait};
use self::service::enter_untracked;
pub use self::service::{empty, new_row, offer, own_row, service_row, settle};
pub use self::straight::{answer_straight, complete_straight, open_straight};
pub use self::update::judge;
use crate::abi::{Config, Counter, HASH_WORDS, WAYS, option, tag};
use crate::flow::{End, Family, FlowKey, Side};
use crate::low_half;
use crate::record::{Clocks, Now, State, TcpState, UdpState};
use crate::table::{self, Set, Slot, Slot4, Slot6, Tag, Worth};
use crate::tcp::{self, Change, Segment};
use crate::udp;
use crate::wire::{self, Class, Packet, mark, note, quote};

/// Counts and tracks a packet.
pub fn observe<P: Platform>(platform: &P, packet: &Packet) {
    count_note(platform, packet);
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
    if packet.note == note::BAD_CHECKSUM {
        refute::<P, S>(platform, packet);
    } else {
        run(
            packet,
            |packet| open::<P, S>(platform, packet),
            |packet| update::<P, S>(platform, packet),
            |packet| answer::<P, S>(platform, packet),
            |packet, request_port| insert::<P, S>(platform, packet, request_port),
            |packet| settle::<P, S>(platform, packet),
            |packet| platform.give_up(packet),
        );
    }
}

/// What a step did with a packet, as bits: a step of the kernel side answers with a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StepResult(pub u32);

impl StepResult {
    /// Nothing: the packet is for the other step.
    pub const NOTHING: Self = Self(0);
    /// All there is to do.
    pub const DONE: Self = Self(1);
    const ROWLESS_SHIFT: u32 = 1;

    /// All there is to do; with `rowless` 1 the flow began or completed and its service has no row.
    #[inline(always)]
    const fn done(rowless: u32) -> Self {
        Self(Self::DONE.0 | rowless << Self::ROWLESS_SHIFT)
    }

    #[inline(always)]
    const fn is_done(self) -> bool {
        self.0 & Self::DONE.0 != 0
    }

    #[inline(always)]
    const fn is_rowless(self) -> bool {
        self.0 >> Self::ROWLESS_SHIFT & 1 != 0
    }
}

/// Opens an attempt, updates the record of a packet's flow, or inserts one; then looks for a row for its service,
/// if it has none. The kernel side passes each step as a function of its own, which the verifier checks once and
/// whose stack is released before the next.
#[inline(always)]
pub fn run(
    packet: &Packet,
    open: impl Fn(&Packet) -> StepResult,
    update: impl Fn(&Packet) -> StepResult,
    answer: impl Fn(&Packet) -> u16,
    insert: impl Fn(&Packet, u16) -> StepResult,
    settle: impl Fn(&Packet),
    give_up: impl Fn(&Packet),
) {
    // A SYN is nearly always new: its record is looked for once, under the lock.
    let opens = NewRecord::of(packet) == NewRecord::Attempt;
    let mut result = if opens { open(packet) } else { update(packet) };
    if !result.is_done() {
        if !opens {
            let request_port = if packet.protocol == wire::UDP { answer(packet) } else { 0 };
            result = insert(packet, request_port);
        }
        if !result.is_done() {
            cold_path();
            result = update(packet);
            if !result.is_done() {
                // The record that was there went to another flow since.
                give_up(packet);
            }
        }
    }
    if result.is_rowless() {
        cold_path();
        settle(packet);
    }
}

/// Counts a segment that [`count`] wants and whose checksum is wrong: it proves nothing. One that would only
/// have counted in a record still does.
#[inline(always)]
pub fn refute<P: Platform, S: Table>(platform: &P, packet: &Packet) {
    if !matches!(Lookup::new::<S>(platform, packet).find::<S>(), Found::Counted) {
        platform.books().add(Counter::BadChecksum, packet.segments as u64);
    }
}

/// Counts a packet whose slot another CPU held. A SYN may have been a new attempt: it is counted as one that
/// got no record.
#[inline(always)]
pub fn give_up<P: Platform>(platform: &P, packet: &Packet) {
    platform.books().add(Counter::Contended, 1);
    let new = NewRecord::of(packet);
    if new == NewRecord::Attempt {
        let jiffies = platform.jiffies();
        enter_untracked(platform, platform.new_row(packet, 0, jiffies), jiffies, new);
    }
}

/// Applies a packet that [`count`] wants to the record of its flow. Does nothing if there is no record, and
/// the packet may begin one.
#[inline(always)]
pub fn update<P: Platform, S: Table>(platform: &P, packet: &Packet) -> StepResult {
    if packet.quote != quote::NONE && is_foreign(platform, packet) {
        platform.books().add(Counter::ForeignIcmp, 1);
        return StepResult::DONE;
    }
    let lookup = Lookup::new::<S>(platform, packet);
    match lookup.find::<S>() {
        Found::Counted => StepResult::DONE,
        Found::Missing => StepResult((NewRecord::of(packet) == NewRecord::Nothing) as u32),
        Found::At(slot, index) => {
            lookup.update(slot, index);
            StepResult::done(lookup.rowless.get())
        }
    }
}

/// Is it an ICMP error that comes in, about a packet to this host from elsewhere? Only this host can refuse
/// that packet, and its errors go out.
#[inline(always)]
fn is_foreign<P: Platform>(platform: &P, packet: &Packet) -> bool {
    cold_path();
    packet.point & 1 == 0
        && platform.is_local(&packet.destination, packet.family)
        && !platform.is_local(&packet.source, packet.family)
}

/// Opens an attempt for a SYN. Does nothing if its flow has a record already.
#[inline(always)]
pub fn open<P: Platform, S: Table>(platform: &P, packet: &Packet) -> StepResult {
    Lookup::of::<S>(platform, packet, false).make::<S>(NewRecord::Attempt)
}

/// Makes a record for a packet that opens no attempt. Does nothing if its flow has one already. `request_port`
/// is what [`answer`] says of the packet.
#[inline(always)]
pub fn insert<P: Platform, S: Table>(platform: &P, packet: &Packet, request_port: u16) -> StepResult {
    let new = NewRecord::of(packet);
    if new == NewRecord::Attempt {
        return StepResult::NOTHING;
    }
    Lookup { request_port, ..Lookup::new::<S>(platform, packet) }.make::<S>(new)
}

/// A wanted packet, the key of its flow and which end sent it.
struct Lookup<'a, P> {
    platform: &'a P,
    config: &'a Config,
    packet: &'a Packet,
    key: FlowKey,
    /// The end that sent the packet; of an ICMP error, the packet it quotes.
    end: End,
    jiffies: u32,
    /// Where the packet answers a request of another flow: the port that the request was sent to. Else 0.
    request_port: u16,
    /// 1 once the flow began, or was proven, and is counted in `other`.
    rowless: Cell<u32>,
}

/// The record that a packet of an unknown flow begins.
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
        let new = Self::when_open(packet);
        if packet.marks & mark::GATED == 0 { new } else { new.when_closed() }
    }

    #[inline(always)]
    fn when_open(packet: &Packet) -> Self {
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

    /// The same while not all hooks are on: a SYN or SYN+ACK begins nothing that is an attempt or lacks its
    /// SYN, and a datagram, which may be an answer, nothing.
    #[inline(always)]
    const fn when_closed(self) -> Self {
        cold_path();
        match self {
            Self::Attempt | Self::Orphan | Self::Midstream => Self::Midstream,
            Self::Udp | Self::Nothing => Self::Nothing,
        }
    }

    /// The worth of the records it may replace, at most. An attempt may replace any: the survey says when it
    /// is one that answered or completed.
    #[inline(always)]
    const fn worth(self) -> Worth {
        match self {
            Self::Attempt => Worth::Completed,
            Self::Orphan | Self::Midstream => Worth::Midstream,
            Self::Udp => Worth::UdpUnanswered,
            Self::Nothing => Worth::Free,
        }
    }
}

/// How a new record is counted in the books.
#[derive(Clone, Copy)]
enum Entry {
    /// It is yet to be; its service's row, as [`new_row`] says.
    Of(u32),
    /// It is already, in this row.
    Counted(u16),
}

/// Where a key was found.
enum Found<'a, S> {
    Missing,
    /// In this slot, and its number.
    At(&'a S, u32),
    /// In a record that the packet only counts in, which is done.
    Counted,
}

impl<'a, P: Platform> Lookup<'a, P> {
    #[inline(always)]
    fn new<S: Slot>(platform: &'a P, packet: &'a Packet) -> Self {
        Self::of::<S>(platform, packet, packet.protocol == wire::UDP)
    }

    /// The same of a packet of UDP, or else of TCP.
    #[inline(always)]
    fn of<S: Slot>(platform: &'a P, packet: &'a Packet, udp: bool) -> Self {
        let source = (&packet.source, packet.source_port);
        let destination = (&packet.destination, packet.destination_port);
        let (key, end) = FlowKey::of(source, destination, S::FAMILY, udp);
        let (config, jiffies) = (platform.config(), platform.jiffies());
        Self { platform, config, packet, key, end, jiffies, request_port: 0, rowless: Cell::new(0) }
    }

    #[inline(always)]
    fn hash<S: Table>(&self, key: &FlowKey, which: usize) -> u32 {
        table::hash(key, S::FAMILY, &self.config.factors[which])
    }

    /// The set that a hash chooses.
    #[inline(always)]
    fn place_of<S: Table>(&self, hash: u32) -> u32 {
        table::set_of(hash, S::mask(self.config))
    }

    #[inline(always)]
    fn clocks(&self) -> Clocks {
        Clocks::of(self.config)
    }

    #[inline(always)]
    fn now(&self) -> Now {
        Now { ns: self.platform.now_ns(), jiffies: self.jiffies }
    }

    /// Does the slot hold a record of this flow?
    #[inline(always)]
    fn is_at<S: Slot>(&self, slot: &S, tag: Tag) -> bool {
        slot.holds(&self.key) && self.is_ours(tag)
    }

    /// Is the record of the packet's protocol? A free slot may still hold the key, and the other protocol may
    /// have its own record of it.
    #[inline(always)]
    fn is_ours(&self, tag: Tag) -> bool {
        tag.is_of(self.key.udp)
    }

    /// The slot that holds the key. A packet that only counts is counted at once.
    #[inline(always)]
    fn find<S: Table>(&self) -> Found<'a, S> {
        let Some((slot, number, tag)) = self.find_where::<S>(|tag| self.is_ours(tag)) else {
            return Found::Missing;
        };
        if self.may_only_count(tag) && self.count_only(slot, tag) {
            Found::Counted
        } else {
            Found::At(slot, number)
        }
    }

    /// The slot that holds the key under a tag that fits, its number, and that tag, as it was before the key
    /// was looked at. The second set is worked out only if the first does not have the key.
    #[inline(always)]
    fn find_where<S: Table>(&self, fits: impl Fn(Tag) -> bool + Copy) -> Option<(&'a S, u32, Tag)> {
        let found = self.find_in::<S>(0, fits).or_else(|| self.find_in::<S>(1, fits));
        let (set, place, way, tag) = found?;
        // Opaque to the verifier, which would otherwise check the rest once per slot.
        let way = low_half(self.veil(way as u64));
        Some((slot_of(set, way), place * WAYS + way, tag))
    }

    #[inline(always)]
    fn find_in<S: Table>(
        &self,
        which: usize,
        fits: impl Fn(Tag) -> bool,
    ) -> Option<(&'a Set<S>, u32, u32, Tag)> {
        // The second hash shares no work with the first, which nearly always is enough.
        let key = if which == 0 { self.key } else { self.key.opaque() };
        let place = self.place_of::<S>(self.hash::<S>(&key, which));
        let set = S::set(self.platform, place)?;
        let mut way = 0;
        while way < WAYS {
            let slot = slot_of(set, way);
            let tag = Tag(slot.tag().load());
            if slot.holds(&self.key) && fits(tag) {
                return Some((set, place, way, tag));
            }
            way += 1;
        }
        None
    }

    /// Applies the packet to the record of its flow.
    #[inline(always)]
    fn update<S: Table>(&self, slot: &S, number: u32) {
        let Some(tag) = lock_slot(self.platform, slot) else {
            self.platform.give_up(self.packet);
            return;
        };
        if !self.is_at(slot, tag) {
            // The slot went to another flow since it was found.
            slot.tag().swap(tag.0);
            self.platform.give_up(self.packet);
            return;
        }
        let now = if self.needs_time(tag) { self.now() } else { self.no_time() };
        let kept = if self.key.udp {
            self.change_udp(slot, tag, now)
        } else {
            self.change_tcp(slot, number, tag, now)
        };
        if !kept {
            cold_path();
            let new = NewRecord::of(self.packet);
            self.begin(slot, tag, now, new, Entry::Of(self.new_row(new)), number);
        }
    }

    /// Begins a record in a slot that is locked and has the key, and publishes it. `number` is the slot's.
    #[inline(always)]
    fn begin<S: Table>(&self, slot: &S, old: Tag, now: Now, new: NewRecord, entry: Entry, number: u32) {
        let books = self.platform.books();
        let segment = Segment::of(self.packet);
        let sender_high = self.end.is_high();
        let mut flags = if sender_high { tag::INITIATOR_HIGH } else { 0 };
        let (mut service, mut attributed) = (0, 0);
        let state = match new {
            NewRecord::Attempt => {
                let (record, more) = tcp::open(&segment, now.ns);
                flags |= more;
                slot.body().set_tcp(record);
                service = self.enter(Counter::Attempts, State::SynSent, entry);
                attributed = self.attribute::<S>(number, Side::Initiator, 0, State::SynSent);
                self.platform.meet(true);
                State::SynSent
            }
            NewRecord::Orphan => {
                slot.body().set_tcp(tcp::join(&segment, now.ns));
                flags ^= tag::INITIATOR_HIGH;
                books.add(Counter::OrphanSynAck, 1);
                self.count_entry(State::OrphanSynAck);
                State::OrphanSynAck
            }
            NewRecord::Midstream => {
                let (record, known) = tcp::join_early(&segment, now.ns);
                slot.body().set_tcp(record);
                flags ^= known;
                books.add(Counter::Midstream, 1);
                State::Midstream
            }
            NewRecord::Udp => {
                let (record, state) = if self.request_port == 0 {
                    self.remember(number);
                    udp::open(self.packet, S::FAMILY, now.ns)
                } else {
                    flags ^= tag::INITIATOR_HIGH;
                    (udp::answer(self.packet, self.request_port, now.ns), UdpState::Answered)
                };
                if matches!(state, UdpState::Multicast) {
                    flags |= tag::TO_GROUP;
                }
                let state = state.state();
                slot.body().set_udp(record);
                service = self.enter(Counter::UdpFlows, state, entry);
                self.count_entry(state);
                self.count_udp();
                state
            }
            NewRecord::Nothing => State::Empty,
        };
        slot.last().store(now.jiffies);
        if !self.key.udp && self.platform.wants_explanations() {
            let change = Change::stay(TcpState::from_number(state as u8), flags);
            self.explain(State::Empty, &change, &slot.body().tcp(), self.side(flags));
        }
        slot.tag().swap(old.unattributed().next(state, flags, service).attributed(attributed).0);
    }

    /// The end of a completed connection is not timed, unless it may end its silence: the precise clock is
    /// expensive.
    #[inline(always)]
    fn needs_time(&self, tag: Tag) -> bool {
        let ends = 1 << Class::Fin as u32 | 1 << Class::Rst as u32;
        !tag.state().is_completed() || ends >> self.packet.class & 1 == 0 || tag.flags() & tag::AWAITS != 0
    }

    #[inline(always)]
    fn no_time(&self) -> Now {
        Now { ns: self.veil(0), jiffies: self.jiffies }
    }

    #[inline(always)]
    fn side(&self, flags: u32) -> Side {
        let initiator_high = flags & tag::INITIATOR_HIGH != 0;
        if initiator_high == self.end.is_high() { Side::Initiator } else { Side::Responder }
    }

    /// 1 if the responder of the tag's record sent the packet, else 0, without a branch: packets of both
    /// directions alternate.
    #[inline(always)]
    fn responder_bit(&self, tag: Tag) -> u32 {
        ((tag.flags() / tag::INITIATOR_HIGH) & 1) ^ self.end.bit()
    }

    #[inline(always)]
    fn make<S: Table>(&self, new: NewRecord) -> StepResult {
        if self.insert::<S>(new) { StepResult::done(self.rowless.get()) } else { StepResult::NOTHING }
    }

    /// The same word, opaque to the verifier: the many paths through a step become one path from here on,
    /// where it would otherwise follow each to the end.
    #[inline(always)]
    fn veil(&self, word: u64) -> u64 {
        veil(self.config, word)
    }
}

/// The same word, opaque to the verifier.
#[inline(always)]
fn veil(config: &Config, word: u64) -> u64 {
    let never = (config.options & option::VEIL) / option::VEIL;
    word ^ 0_u64.wrapping_sub(never as u64)
}

/// Factors for [`table::hash`] from a stream of random words.
#[must_use]
pub fn factors(mut random: impl FnMut() -> u64) -> [[u64; HASH_WORDS]; 2] {
    core::array::from_fn(|_| core::array::from_fn(|_| random()))
}

#[cfg(test)]
mod tests;
