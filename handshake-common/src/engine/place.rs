//! Where a new record goes: a free slot of the emptier of its key's two sets, else the slot whose record has
//! the least [`Worth`], if the new record may replace that. Of the eight slots at most [`MOST_HELD`] are held
//! against an attempt by records that answered or completed: where there are more, the attempt replaces one
//! of those, so that a handshake in progress is not what the next attempt pushes out.

use core::hint::cold_path;

use super::platform::slot_of;
use super::update::expired_as;
use super::{Entry, Lookup, NewRecord, Platform, Table};
use crate::abi::{Counter, STRIPES, WAYS, option, tag};
use crate::books::ServiceRow;
use crate::record::{Clocks, Now, State};
use crate::shared::Shared64;
use crate::table::{self, Set, Slot, Tag, Worth};
use crate::wire::Packet;
use crate::{below, low_half, masked, opaque, shifted, sign, spin};

/// Where a key may be.
pub(super) struct Home<'a, S> {
    pub(super) sets: [&'a Set<S>; 2],
    /// Their numbers.
    pub(super) places: [u32; 2],
    /// The lock word for insertions.
    pub(super) lock: &'a Shared64,
}

impl<'a, P: Platform> Lookup<'a, P> {
    #[inline(always)]
    pub(super) fn home<S: Table + 'a>(&self) -> Option<Home<'a, S>> {
        let first = self.hash::<S>(&self.key, 0);
        let places = [self.place_of::<S>(first), self.place_of::<S>(self.hash::<S>(&self.key, 1))];
        // The set takes the low bits of the hash, the lock word higher ones.
        let (Some(one), Some(other), Some(lock)) = (
            S::set(self.platform, places[0]),
            S::set(self.platform, places[1]),
            self.platform.stripe(first >> 16 & (STRIPES - 1)),
        ) else {
            return None;
        };
        self.fetch_owners::<S>(places);
        Some(Home { sets: [one, other], places, lock })
    }

    /// Makes a record of this kind for the packet; `false` if its flow has one already.
    #[inline(always)]
    pub(super) fn insert<S: Table>(&self, new: NewRecord) -> bool {
        // First of all: to read the precise clock is to wait for all that memory still owes.
        let now = self.now();
        let Some(Home { sets, places, lock }) = self.home::<S>() else { return true };
        if !lock_stripe(lock) {
            self.platform.books().add(Counter::Contended, 1);
            self.enter_untracked(self.new_row(new), new);
            return true;
        }
        let states = self.states(sets);
        if let Some(states) = states {
            self.claim_slot(sets, places, states, now, new);
        }
        lock.release();
        states.is_some()
    }

    /// The states of a key's eight slots; `None` if one has its record. Each is named, so that it is reached by
    /// a constant.
    #[inline(always)]
    pub(super) fn states<S: Table>(&self, [one, other]: [&Set<S>; 2]) -> Option<States> {
        let mut states = 0;
        // Else the compiler loads this word of the key anew for each slot.
        let mut key = self.key;
        key.low.0[0] = opaque(key.low.0[0]);
        let mut is_here = |slot: &S| {
            let tag = Tag(slot.tag().load());
            states = shifted::<8>(states) | tag.0 & 0x7f;
            slot.holds(&key) && self.is_ours(tag)
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
        if found { None } else { Some(States(states)) }
    }

    /// Claims a slot if one may be taken, and begins the record in it. The lock word of the key is held.
    #[inline(always)]
    fn claim_slot<S: Table>(
        &self,
        sets: [&Set<S>; 2],
        places: [u32; 2],
        mut states: States,
        now: Now,
        new: NewRecord,
    ) {
        // While memory fetches the slots, which the rest waits for.
        let row = self.new_row(new);
        if states.free() == 0 && self.platform.make_room::<S>(places) {
            states = self.states(sets).unwrap_or(states);
        }
        let place = if states.free() == 0 {
            let is_attempt = new as u8 == NewRecord::Attempt as u8;
            Score::from_bits(self.platform.survey(sets, now, is_attempt, states.are_unanswered()))
        } else {
            Score::free(states.choose())
        };
        if place.worth() > new.worth() as u64 {
            self.enter_untracked(row, new);
            return;
        }
        let slot = slot_of(if place.way() < WAYS { sets[0] } else { sets[1] }, place.way());
        let tag = Tag(slot.tag().load());
        let worth = low_half(place.worth());
        let is_free = worth == Worth::Free as u32;
        let is_same = if is_free { tag.is_free() } else { !tag.is_locked() && place.is_of(tag) };
        if !is_same || !slot.tag().compare_exchange(tag.0, tag.locked().0) {
            self.platform.books().add(Counter::Contended, 1);
            self.enter_untracked(row, new);
            return;
        }
        let set = if place.way() < WAYS { places[0] } else { places[1] };
        let number = low_half(self.veil((set * WAYS + place.way() % WAYS) as u64));
        let mut entry = Entry::Of(row);
        if is_free {
            self.platform.on_fill::<S>();
        } else if self.is_alike(slot, tag, worth, row, new) {
            entry = Entry::Counted(self.take_over(slot, tag, worth));
        } else {
            self.platform.evict(self.packet, (slot, number), tag, worth, now.ns);
        }
        slot.set_key(&self.key);
        // Opaque to the verifier, which would follow a free slot and a full one to the end.
        self.begin(slot, Tag(self.veil(tag.0)), now, new, entry, number);
    }

    /// Claims a free slot, or that of an attempt that is [alike](Self::is_alike), for an attempt of the service of
    /// this row. The lock word of the key is held.
    #[inline(always)]
    pub(super) fn claim_straight<S: Table>(
        &self,
        sets: [&Set<S>; 2],
        places: [u32; 2],
        (way, standing): (u32, Option<Score>),
        now: Now,
        (row, service): (u32, &ServiceRow),
    ) -> bool {
        let slot = slot_of(if way < WAYS { sets[0] } else { sets[1] }, way);
        let tag = Tag(slot.tag().load());
        let is_same = match standing {
            None => tag.is_free(),
            Some(score) => !tag.is_locked() && score.is_of(tag),
        };
        if !is_same || !slot.tag().compare_exchange(tag.0, tag.locked().0) {
            return false;
        }
        let set = if way < WAYS { places[0] } else { places[1] };
        let number = low_half(self.veil((set * WAYS + way % WAYS) as u64));
        let worth = Worth::HalfOpenNoSynAck as u32;
        if standing.is_none() {
            self.platform.on_fill::<S>();
            let (total, gauge) = (Counter::Attempts as usize, State::SynSent.gauge_place());
            self.platform.books().enter(total, gauge);
            service.bump(total, 1);
            service.bump(gauge, 1);
        } else if self.is_alike(slot, tag, worth, row, NewRecord::Attempt) {
            self.take_over(slot, tag, worth);
        } else {
            slot.tag().swap(tag.0);
            return false;
        }
        slot.set_key(&self.key);
        let entry = Entry::Counted((row & 0xffff) as u16);
        self.begin(slot, Tag(self.veil(tag.0)), now, NewRecord::Attempt, entry, number);
        true
    }

    /// Does an attempt that nothing came back for give way to another of the same service, whose row is `row`?
    /// Nothing else is told of its end then.
    #[inline(always)]
    fn is_alike<S: Table>(&self, slot: &S, tag: Tag, worth: u32, row: u32, new: NewRecord) -> bool {
        matches!(new, NewRecord::Attempt)
            && tag.state() as u8 == State::SynSent as u8
            && !tag.is_attributed()
            && worth == Worth::HalfOpenNoSynAck as u32
            && self.config.options & option::EVENTS == 0
            && self.is_of_row(slot, tag, row)
    }

    /// The same as [`evict`] and the entry of the new attempt, whose changes of the gauge of open attempts cancel
    /// each other. Returns the row of both.
    #[inline(always)]
    fn take_over<S: Table>(&self, slot: &S, tag: Tag, worth: u32) -> u16 {
        self.platform.on_evict(slot, tag, Some(Counter::Evicted));
        self.replace_attempt(tag.service());
        self.platform.books().add_at(evicted_place(worth));
        tag.service()
    }
}

/// Counts a record that gives way to the packet's flow by its state; an attempt that was open ends. The slot
/// is locked, and its tag was `tag`.
#[inline(always)]
pub fn evict<P: Platform, S: Table>(
    platform: &P,
    packet: &Packet,
    (slot, number): (&S, u32),
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
        lookup.close((slot, number), tag, lookup.row_of(slot, tag), verdict, now);
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
pub(super) struct Score(i64);

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
    const fn free(way: u32) -> Self {
        Self(((way as u64) << Self::WAY_SHIFT).cast_signed())
    }

    #[inline(always)]
    pub(super) const fn worth(self) -> u64 {
        self.0.cast_unsigned() >> Self::WORTH_SHIFT
    }

    #[inline(always)]
    pub(super) const fn way(self) -> u32 {
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

    /// The lower of two.
    #[inline(always)]
    fn or_lower(self, other: Self) -> Self {
        let more = other.0 - self.0;
        Self(self.0 + (more & sign(more)))
    }

    /// This one if `is_taken` is 1, the highest if it is 0.
    #[inline(always)]
    const fn only_if(self, is_taken: u64) -> Self {
        Self(self.0 | Self::MOST.0.wrapping_mul((is_taken ^ 1).cast_signed()))
    }

    #[inline(always)]
    pub(super) const fn from_bits(bits: u64) -> Self {
        Self(bits.cast_signed())
    }

    #[inline(always)]
    const fn bits(self) -> u64 {
        self.0.cast_unsigned()
    }
}

/// The states of a key's eight slots, one in each byte.
#[derive(Clone, Copy)]
pub(super) struct States(u64);

/// Attempts that nothing came back for, eight of them: a flood fills whole sets with these.
const UNANSWERED: u64 = UNANSWERED_TAG.0 * 0x0101_0101_0101_0101;
const UNANSWERED_TAG: Tag = Tag((State::SynSent as u64) << tag::STATE_SHIFT);

impl States {
    /// The free slots, as bits: the highest bit of a byte is not set, and that of one that is not 0 becomes so.
    #[inline(always)]
    pub(super) const fn free(self) -> u64 {
        const HIGHEST: u64 = 0x8080_8080_8080_8080;
        // Each bit is moved to a place of its own in the highest byte.
        const GATHER: u64 = 0x0102_0408_1020_4080;
        let free = !(self.0 + !HIGHEST) & HIGHEST;
        (free >> 7).wrapping_mul(GATHER) >> 56
    }

    /// Do all eight hold an attempt that nothing came back for?
    #[inline(always)]
    pub(super) const fn are_unanswered(self) -> bool {
        self.0 == UNANSWERED
    }

    /// A free slot of the set that has more of them.
    #[inline(always)]
    pub(super) fn choose(self) -> u32 {
        CHOICES[masked::<{ CHOICES.len() - 1 }>(low_half(self.free()) as usize)] as u32
    }
}

/// The slot that is taken where these of the eight are free, as bits. A table: BPF counts neither ones nor zeros.
static CHOICES: [u8; 1 << (2 * WAYS)] = {
    let (mut choices, mut free) = ([0; 1 << (2 * WAYS)], 1_u32);
    while (free as usize) < choices.len() {
        let (first, second) = (free & 0xf, free >> WAYS);
        let second_wins = first.count_ones() < second.count_ones();
        let lowest = if second_wins { WAYS + second.trailing_zeros() } else { first.trailing_zeros() };
        choices[free as usize] = low_half(lowest as u64).to_le_bytes()[0];
        free += 1;
    }
    choices
};

/// The records that answered or completed which an attempt leaves alone, of a key's eight slots.
const MOST_HELD: u64 = 6;

/// The slot of two full sets that a new record takes, if its worth allows that: the bits of its [`Score`].
/// `are_unanswered`: all eight held such an attempt a moment ago. Numbers out, so that the kernel side can make
/// a function of it, which the verifier checks once.
#[inline(always)]
pub fn survey<S: Slot>(
    sets: [&Set<S>; 2],
    now: Now,
    clocks: &Clocks,
    is_attempt: bool,
    are_unanswered: bool,
) -> u64 {
    if are_unanswered && let Some(least) = least_unanswered(sets, now, clocks) {
        return least.bits();
    }
    let (least, worths) = least_of_all(sets, now, clocks);
    if is_attempt && held(worths) > MOST_HELD && least.is_held() == 0 {
        cold_path();
        return least_held(sets, now, clocks).bits();
    }
    least.bits()
}

/// The least of eight scores. A key whose two sets are the same one has each slot twice here. Each is named, so
/// that it is reached by a constant.
#[inline(always)]
fn least_by<S: Slot>([one, other]: [&Set<S>; 2], mut score: impl FnMut(&S, u32) -> Score) -> Score {
    score(&one[0], 0)
        .or_lower(score(&one[1], 1))
        .or_lower(score(&one[2], 2))
        .or_lower(score(&one[3], 3))
        .or_lower(score(&other[0], 4))
        .or_lower(score(&other[1], 5))
        .or_lower(score(&other[2], 6))
        .or_lower(score(&other[3], 7))
}

/// The slot whose record is replaced first, and the worths of all, four bits each.
#[inline(always)]
fn least_of_all<S: Slot>(sets: [&Set<S>; 2], now: Now, clocks: &Clocks) -> (Score, u64) {
    let mut worths = 0;
    let least = least_by(sets, |slot: &S, way| {
        let tag = Tag(slot.tag().load());
        let (worth, youth) = table::worth_and_youth(slot, tag, now, clocks);
        worths = shifted::<4>(worths) | worth;
        Score::of(way, tag, worth, youth)
    });
    (least, worths)
}

/// The same of those alone that are held against an attempt.
#[inline(always)]
fn least_held<S: Slot>(sets: [&Set<S>; 2], now: Now, clocks: &Clocks) -> Score {
    least_by(sets, |slot: &S, way| {
        let tag = Tag(slot.tag().load());
        let (worth, youth) = table::worth_and_youth(slot, tag, now, clocks);
        let score = Score::of(way, tag, worth, youth);
        score.only_if(score.is_held())
    })
}

/// The same where all eight are attempts that nothing came back for, whose state need not be asked; `None`
/// where one is not any more.
#[inline(always)]
fn least_unanswered<S: Slot>(sets: [&Set<S>; 2], now: Now, clocks: &Clocks) -> Option<Score> {
    let (mut any, mut all) = (0, u64::MAX);
    let least = least_by(sets, |slot: &S, way| {
        let tag = Tag(slot.tag().load());
        any |= tag.0;
        all &= tag.0;
        let (worth, youth) = table::worth_and_youth(slot, UNANSWERED_TAG, now, clocks);
        Score::of(way, Tag(tag.0 & !tag::LOCKED), worth, youth)
    });
    ((any ^ UNANSWERED_TAG.0 | all ^ UNANSWERED_TAG.0) & 0x7f == 0).then_some(least)
}

/// How many records answered or completed, by their worths; a locked slot counts as what it holds.
#[inline(always)]
const fn held(worths: u64) -> u64 {
    const EACH: u64 = 0x1111_1111;
    // From the lowest worth that is held on, one more sets the highest of the four bits.
    const _: () = assert!(Worth::UdpAnswered as u32 == 7 && Worth::Completed as u32 == 8);
    (worths.wrapping_add(EACH) >> 3 & EACH).wrapping_mul(EACH) >> 28 & 0xf
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
