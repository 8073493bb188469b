//! Where a new record goes: a free slot of the emptier of its key's two sets, else the slot whose record has
//! the least [`Worth`], if the new record may replace that. Of the eight slots at most [`MOST_HELD`] are held
//! against an attempt by records that answered or completed: where there are more, the attempt replaces one
//! of those, so that a handshake in progress is not what the next attempt pushes out.

use super::platform::slot_of;
use super::service::enter_untracked;
use super::update::expired_as;
use super::{Lookup, NewRecord, Platform, Table};
use crate::abi::{Counter, STRIPES, WAYS, tag};
use crate::record::{Clocks, Now};
use crate::shared::Shared64;
use crate::table::{self, Set, Slot, Tag, Worth};
use crate::wire::Packet;
use crate::{below, low_half, shifted, sign, spin};

impl<P: Platform> Lookup<'_, P> {
    /// Makes a record for the packet; `false` if its flow has one already.
    #[inline(always)]
    pub(super) fn insert<S: Table>(&self) -> bool {
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
        if !lock_stripe(lock) {
            self.platform.books().add(Counter::Contended, 1);
            let new = NewRecord::of(self.packet);
            enter_untracked(self.platform, self.packet, self.request_port, new);
            return true;
        }
        let free = self.free_slots([one, other]);
        if let Some(free) = free {
            self.claim_slot([one, other], places, free);
        }
        lock.swap(0);
        free.is_some()
    }

    /// The free slots of a key's eight; `None` if one has its record. Each is named, so that it is reached by
    /// a constant.
    #[inline(always)]
    fn free_slots<S: Table>(&self, [one, other]: [&Set<S>; 2]) -> Option<FreeSlots> {
        let mut states = 0;
        let mut is_here = |slot: &S| {
            let tag = Tag(slot.tag().load());
            states = shifted::<8>(states) | tag.0 & 0x7f;
            self.is_at(slot, tag)
        };
        // The first slot's state comes last, into the lowest byte.
        let found = is_here(&other[3])
            || is_here(&other[2])
            || is_here(&other[1])
            || is_here(&other[0])
            || is_here(&one[3])
            || is_here(&one[2])
            || is_here(&one[1])
            || is_here(&one[0]);
        if found { None } else { Some(FreeSlots::of(states)) }
    }

    /// Claims a slot if one may be taken, and begins the record in it. The lock word of the key is held.
    #[inline(always)]
    fn claim_slot<S: Table>(&self, sets: [&Set<S>; 2], places: [u32; 2], mut free: FreeSlots) {
        let books = self.platform.books();
        let now = self.now();
        if free.is_none() && self.platform.make_room::<S>(places) {
            free = self.free_slots(sets).unwrap_or(free);
        }
        let survey =
            if free.is_none() { Survey::of(sets, now, &self.clocks()) } else { Survey::free(free.choose()) };
        // Computed after the survey; otherwise the verifier would follow the survey once per variant.
        let new = NewRecord::of(core::hint::black_box(self.packet));
        let place = survey.place_for(new);
        if place.worth() > new.worth() as u64 {
            enter_untracked(self.platform, self.packet, self.request_port, new);
            return;
        }
        let slot = slot_of(if place.way() < WAYS { sets[0] } else { sets[1] }, place.way());
        let tag = Tag(slot.tag().load());
        let worth = low_half(place.worth());
        let is_free = worth == Worth::Free as u32;
        let is_same = if is_free { tag.is_free() } else { !tag.is_locked() && place.is_of(tag) };
        if !is_same || !slot.tag().compare_exchange(tag.0, tag.locked().0) {
            books.add(Counter::Contended, 1);
            enter_untracked(self.platform, self.packet, self.request_port, new);
            return;
        }
        if is_free {
            self.platform.on_fill::<S>();
        } else {
            self.platform.evict(self.packet, slot, tag, worth, now.ns);
        }
        slot.set_key(&self.key);
        let set = if place.way() < WAYS { places[0] } else { places[1] };
        // Opaque to the verifier, which would follow a free slot and a full one to the end.
        let (tag, number) = (Tag(self.veil(tag.0)), self.veil((set * WAYS + place.way() % WAYS) as u64));
        self.begin(slot, tag, now, new, low_half(number));
    }
}

/// Counts a record that gives way to the packet's flow by its state; an attempt that was open ends. The slot
/// is locked, and its tag was `tag`.
#[inline(always)]
pub fn evict<P: Platform, S: Table>(
    platform: &P,
    packet: &Packet,
    slot: &S,
    tag: Tag,
    worth: u32,
    now_ns: u64,
) {
    let lookup = Lookup::new::<S>(platform, packet);
    let now = Now { ns: now_ns, jiffies: lookup.jiffies };
    let state = tag.state();
    let expired = worth <= Worth::Expired as u32;
    if state.is_open() {
        let verdict = if expired { expired_as(state) } else { Counter::Evicted };
        lookup.close(slot, tag, lookup.row_of(slot, tag), verdict, now);
    } else {
        platform.on_evict(slot, tag, None);
    }
    if state.is_udp() && !expired {
        lookup.transfer(lookup.row_of(slot, tag), state.gauge_place(), Counter::UdpEvicted as usize);
    }
    platform.books().add_at(evicted_place(worth));
}

/// How soon a slot's record is replaced: the lowest score first. One word, so that the lowest of several is
/// found without a branch: a processor could not predict it, and the verifier would follow every order.
///
/// ```text
/// 62       58    55      23    20           0
/// │ locked │ worth │ youth │ way │ generation │
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
struct Score(i64);

impl Score {
    const GENERATION: u64 = (1 << Self::WAY_SHIFT) - 1;
    const WAY_SHIFT: u32 = u64::BITS - tag::GENERATION_SHIFT;
    const YOUTH_SHIFT: u32 = Self::WAY_SHIFT + 3;
    const WORTH_SHIFT: u32 = Self::YOUTH_SHIFT + 32;
    /// Above every worth: a slot that another CPU has locked is never taken.
    const LOCKED_SHIFT: u32 = 62;
    const MOST: Self = Self(i64::MAX);

    /// The score of the `way`-th of a key's eight slots, with the worth that is in it.
    #[inline(always)]
    const fn of(way: u32, tag: Tag, worth: u64, youth: u64) -> Self {
        // The only bit that stays.
        let locked = tag.0 << (u64::BITS - 1) >> (u64::BITS - 1 - Self::LOCKED_SHIFT);
        let place = (way as u64) << Self::WAY_SHIFT | tag.generation();
        Self((locked | worth << Self::WORTH_SHIFT | youth << Self::YOUTH_SHIFT | place).cast_signed())
    }

    /// That of a free slot.
    #[inline(always)]
    const fn free(way: u64) -> Self {
        Self((way << Self::WAY_SHIFT).cast_signed())
    }

    #[inline(always)]
    const fn worth(self) -> u64 {
        self.0.cast_unsigned() >> Self::WORTH_SHIFT
    }

    #[inline(always)]
    const fn way(self) -> u32 {
        low_half(self.0.cast_unsigned() >> Self::WAY_SHIFT) & (2 * WAYS - 1)
    }

    /// Is it the score of the record that stands under this tag, and not of one before or after?
    #[inline(always)]
    const fn is_of(self, tag: Tag) -> bool {
        self.0.cast_unsigned() & Self::GENERATION == tag.generation()
    }

    /// Is its record held against an attempt? 1 or 0.
    #[inline(always)]
    fn is_held(self) -> u64 {
        below(Worth::HalfOpenNoAck as i64, (self.worth() & 0xf).cast_signed())
    }

    /// The lower of two, and the higher.
    #[inline(always)]
    fn in_order(self, other: Self) -> (Self, Self) {
        let more = other.0 - self.0;
        let less = more & sign(more);
        (Self(self.0 + less), Self(other.0 - less))
    }

    /// `other` if `other_wins` is 1, this one if it is 0.
    #[inline(always)]
    const fn or(self, other: Self, other_wins: u64) -> Self {
        Self(self.0 ^ ((self.0 ^ other.0) & 0_i64.wrapping_sub(other_wins.cast_signed())))
    }
}

/// The free slots among a key's eight, as bits.
#[derive(Clone, Copy)]
struct FreeSlots(u64);

impl FreeSlots {
    /// By the eight states, each in a byte whose highest bit is not set: that of one that is not 0 becomes so.
    #[inline(always)]
    const fn of(states: u64) -> Self {
        const HIGHEST: u64 = 0x8080_8080_8080_8080;
        // Each bit is moved to a place of its own in the highest byte.
        const GATHER: u64 = 0x0102_0408_1020_4080;
        let free = !(states + !HIGHEST) & HIGHEST;
        Self((free >> 7).wrapping_mul(GATHER) >> 56)
    }

    #[inline(always)]
    const fn is_none(self) -> bool {
        self.0 == 0
    }

    /// A slot of the set that has more of them.
    #[inline(always)]
    const fn choose(self) -> Score {
        let (first, second) = (self.0 & 0xf, self.0 >> WAYS);
        let second_wins = nibble(ONES, first) < nibble(ONES, second);
        let way = if second_wins { WAYS as u64 + nibble(LOWEST, second) } else { nibble(LOWEST, first) };
        Score::free(way)
    }
}

/// The number of ones in a number of four bits, and the place of the lowest: a nibble per number. BPF has no
/// instruction for either.
const ONES: u64 = 0x4332_3221_3221_2110;
const LOWEST: u64 = 0x0102_0103_0102_0100;

#[inline(always)]
const fn nibble(of: u64, number: u64) -> u64 {
    of >> (number * 4) & 0xf
}

/// The records that answered or completed which an attempt leaves alone, of a key's eight slots.
const MOST_HELD: i64 = 6;

/// What a key's eight slots hold.
#[derive(Clone, Copy)]
struct Survey {
    /// The slot whose record is replaced first.
    least: Score,
    /// The one behind it.
    next: Score,
    /// The worths, four bits each.
    worths: u64,
}

impl Survey {
    /// Of sets with a free slot.
    #[inline(always)]
    const fn free(slot: Score) -> Self {
        Self { least: slot, next: Score::MOST, worths: 0 }
    }

    /// Of full sets. A key whose two sets are the same one has each slot twice here. Each is named, so that it
    /// is reached by a constant.
    #[inline(always)]
    fn of<S: Slot>([one, other]: [&Set<S>; 2], now: Now, clocks: &Clocks) -> Self {
        let mut survey = Self::free(Score::MOST);
        survey.look(&one[0], 0, now, clocks);
        survey.look(&one[1], 1, now, clocks);
        survey.look(&one[2], 2, now, clocks);
        survey.look(&one[3], 3, now, clocks);
        survey.look(&other[0], 4, now, clocks);
        survey.look(&other[1], 5, now, clocks);
        survey.look(&other[2], 6, now, clocks);
        survey.look(&other[3], 7, now, clocks);
        survey
    }

    #[inline(always)]
    fn look<S: Slot>(&mut self, slot: &S, way: u32, now: Now, clocks: &Clocks) {
        let tag = Tag(slot.tag().load());
        let (worth, youth) = table::worth_and_youth(slot, tag, now, clocks);
        let (least, higher) = self.least.in_order(Score::of(way, tag, worth, youth));
        (self.least, self.next) = (least, self.next.in_order(higher).0);
        self.worths = shifted::<4>(self.worths) | worth;
    }

    /// How many records answered or completed; a locked slot counts as what it holds.
    #[inline(always)]
    const fn held(self) -> u64 {
        const EACH: u64 = 0x1111_1111;
        // From the lowest worth that is held on, one more sets the highest of the four bits.
        const _: () = assert!(Worth::UdpAnswered as u32 == 7 && Worth::Completed as u32 == 8);
        (self.worths.wrapping_add(EACH) >> 3 & EACH).wrapping_mul(EACH) >> 28 & 0xf
    }

    /// The slot that a new record takes, if its worth allows that. Where more than [`MOST_HELD`] are held, at
    /// most one is not, so the least that is held is the least or the next.
    #[inline(always)]
    fn place_for(self, new: NewRecord) -> Score {
        let is_attempt = (new as u8 == NewRecord::Attempt as u8) as u64;
        let is_spared = 1 ^ self.least.is_held();
        self.least.or(self.next, below(MOST_HELD, self.held().cast_signed()) & is_attempt & is_spared)
    }
}

/// Locks a slot and returns the tag it had; gives up after [`spin::TRIES`].
#[inline(always)]
pub(super) fn lock_slot<P: Platform, S: Slot>(platform: &P, slot: &S) -> Option<Tag> {
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

/// The place of the counter for evictions of records of this worth: six bits per worth.
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
            assert!(PLACES[i] as u64 <= 0x3f, "a place is six bits");
            packed |= (PLACES[i] as u64) << (i * 6);
            i += 1;
        }
        packed
    };
    (PACKED >> (worth * 6) & 0x3f) as usize
}

/// Takes a lock word; gives up after [`spin::LOOKS`].
#[inline(always)]
fn lock_stripe(lock: &Shared64) -> bool {
    let mut looks = 0;
    while looks < spin::LOOKS {
        if lock.load() == 0 && lock.compare_exchange(0, 1) {
            return true;
        }
        looks += 1;
    }
    false
}
