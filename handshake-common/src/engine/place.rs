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
use crate::{below, low_half, spin};

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
        let is_new = !self.has_record([one, other]);
        if is_new {
            self.claim_slot([one, other], places);
        }
        lock.swap(0);
        is_new
    }

    #[inline(always)]
    fn has_record<S: Table>(&self, sets: [&Set<S>; 2]) -> bool {
        let mut way = 0;
        while way < 2 * WAYS {
            let slot = slot_of(sets[(way / WAYS) as usize], way);
            if self.is_at(slot, Tag(slot.tag().load())) {
                return true;
            }
            way += 1;
        }
        false
    }

    /// Claims a slot if one may be taken, and begins the record in it. The lock word of the key is held.
    #[inline(always)]
    fn claim_slot<S: Table>(&self, sets: [&Set<S>; 2], places: [u32; 2]) {
        let books = self.platform.books();
        let now = self.now();
        let clocks = self.clocks();
        let mut free = free_slot(sets);
        if free.is_none() && self.platform.make_room::<S>(places) {
            free = free_slot(sets);
        }
        let survey = free.map_or_else(|| Survey::of(sets, now, &clocks), Survey::free);
        // Computed after the survey; otherwise the verifier would follow the survey once per variant.
        let new = NewRecord::of(core::hint::black_box(self.packet));
        let place = survey.place_for(new);
        if place.worth() > new.worth() as u64 {
            enter_untracked(self.platform, self.packet, self.request_port, new);
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
            enter_untracked(self.platform, self.packet, self.request_port, new);
            return;
        }
        if worth == Worth::Free as u32 {
            self.platform.on_fill::<S>();
        } else {
            self.platform.evict(self.packet, slot, tag, worth, now.ns);
        }
        slot.set_key(&self.key);
        let set = if place.way() < WAYS { places[0] } else { places[1] };
        self.begin(slot, tag, now, new, set * WAYS + place.way() % WAYS);
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
/// 62            35      3     0
/// │ locked │ worth │ youth │ way │
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
struct Score(i64);

impl Score {
    const YOUTH_SHIFT: u32 = 3;
    const WORTH_SHIFT: u32 = Self::YOUTH_SHIFT + 32;
    /// Above every worth: a slot that another CPU has locked is never taken.
    const LOCKED_SHIFT: u32 = 62;
    const MOST: Self = Self(i64::MAX);

    /// The score of the `way`-th of a key's eight slots.
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

    /// 1 for an answered UDP flow and a completed connection, else 0; a locked slot counts as what it holds.
    #[inline(always)]
    fn is_held(self) -> u64 {
        let worth = self.0 >> Self::WORTH_SHIFT & 0xf;
        below(Worth::HalfOpenNoAck as i64, worth)
    }

    #[inline(always)]
    const fn way(self) -> u32 {
        low_half(self.0.cast_unsigned()) & (2 * WAYS - 1)
    }

    /// `other` if `other_wins` is 1, this one if it is 0.
    #[inline(always)]
    const fn or(self, other: Self, other_wins: u64) -> Self {
        Self(self.0 ^ ((self.0 ^ other.0) & 0_i64.wrapping_sub(other_wins.cast_signed())))
    }
}

/// A free slot of the set that has more of them, if there is one.
#[inline(always)]
fn free_slot<S: Slot>(sets: [&Set<S>; 2]) -> Option<Score> {
    let (first, second) = (free_ways(sets[0]), free_ways(sets[1]));
    if first | second == 0 {
        return None;
    }
    let second_wins = nibble(ONES, first) < nibble(ONES, second);
    let way = if second_wins { WAYS as u64 + nibble(LOWEST, second) } else { nibble(LOWEST, first) };
    Some(Score(way.cast_signed()))
}

/// The number of ones in a number of four bits, and the place of the lowest: a nibble per number. BPF has no
/// instruction for either.
const ONES: u64 = 0x4332_3221_3221_2110;
const LOWEST: u64 = 0x0102_0103_0102_0100;

#[inline(always)]
const fn nibble(of: u64, number: u64) -> u64 {
    of >> (number * 4) & 0xf
}

/// The free slots of a set, as bits.
#[inline(always)]
fn free_ways<S: Slot>(set: &Set<S>) -> u64 {
    let (mut bits, mut way) = (0, 0);
    while way < WAYS {
        // State and lock are both 0.
        let free = below((slot_of(set, way).tag().load() & 0xff).cast_signed(), 1);
        bits |= free << way;
        way += 1;
    }
    bits
}

/// The records that answered or completed which an attempt leaves alone, of a key's eight slots.
const MOST_HELD: i64 = 6;

/// What a key's eight slots hold.
#[derive(Clone, Copy)]
struct Survey {
    /// The slot whose record is replaced first.
    least: Score,
    /// The same among the records that answered or completed.
    least_held: Score,
    /// The number of those.
    held: i64,
}

impl Survey {
    /// Of sets with a free slot.
    #[inline(always)]
    const fn free(slot: Score) -> Self {
        Self { least: slot, least_held: Score::MOST, held: 0 }
    }

    /// Of full sets. A key whose two sets are the same one has each slot twice here.
    #[inline(always)]
    fn of<S: Slot>(sets: [&Set<S>; 2], now: Now, clocks: &Clocks) -> Self {
        let (mut survey, mut way) = (Self::free(Score::MOST), 0);
        while way < 2 * WAYS {
            let slot = slot_of(sets[(way / WAYS) as usize], way);
            let score = Score::of(slot, way, Tag(slot.tag().load()), now, clocks);
            let held = score.is_held();
            survey.held += held.cast_signed();
            survey.least = survey.least.or(score, below(score.0, survey.least.0));
            survey.least_held = survey.least_held.or(score, below(score.0, survey.least_held.0) & held);
            way += 1;
        }
        survey
    }

    /// The slot that a new record takes, if its worth allows that.
    #[inline(always)]
    fn place_for(self, new: NewRecord) -> Score {
        let is_attempt = (new as u8 == NewRecord::Attempt as u8) as u64;
        self.least.or(self.least_held, below(MOST_HELD, self.held) & is_attempt)
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
