//! The counter block of one CPU, and the rows of services: changed in balanced pairs.
//!
//! One CPU writes a block, without locks. A pair of changes lies between two markers, the block's
//! last word before it and its first word after it: a reader that copies from the first word to the
//! last, in this order, and finds the markers equal, has no half of a pair. Where a copy has no order, three
//! copies in a row have: of the second, the first has the marker before it and the third the one after it.

use core::hint::cold_path;

use crate::abi::{CONNECT_WORDS, COUNTERS, Counter, SERVICE_GAUGES, SERVICE_WAS_SILENT, group_of_address};
use crate::flow::{Address, Family};
#[cfg(not(target_arch = "bpf"))]
use crate::shared::read_fence;
use crate::shared::{Shared32, Shared64};
use crate::{below, low_half, masked, opaque, opaque_unless_known};

/// A counter block as the tracker reaches it: the bytes of [`abi::CounterBlock`](crate::abi::CounterBlock).
#[repr(transparent)]
pub struct Books([Shared64; COUNTERS]);

impl Books {
    /// A block of zeros.
    #[must_use]
    pub const fn new() -> Self {
        Self([const { Shared64::new(0) }; COUNTERS])
    }

    /// The words, in the order of [`Counter`].
    #[must_use]
    pub const fn words(&self) -> &[Shared64; COUNTERS] {
        &self.0
    }

    #[inline(always)]
    fn bump(&self, place: usize, by: u64) {
        let word = &self.0[masked::<{ COUNTERS - 1 }>(place)];
        word.store(word.load().wrapping_add(by));
    }

    /// Counts what is in no identity.
    #[inline(always)]
    pub fn add(&self, counter: Counter, by: u64) {
        self.bump(counter as usize, by);
    }

    /// Counts at a place.
    #[inline(always)]
    pub fn add_at(&self, place: usize) {
        self.bump(place, 1);
    }

    /// Keeps the largest.
    #[inline(always)]
    pub fn raise(&self, counter: Counter, to: u64) {
        let word = &self.0[masked::<{ COUNTERS - 1 }>(counter as usize)];
        if to > word.load() {
            word.store(to);
        }
    }

    /// A new attempt, or a new UDP flow: the place of its total, and of the gauge it is in.
    #[inline(always)]
    pub fn enter(&self, total: usize, gauge: usize) {
        self.pair((total, 1), (gauge, 1));
    }

    /// From one gauge of an identity to another, by their places.
    #[inline(always)]
    pub fn transfer(&self, from: usize, to: usize) {
        self.pair((from, u64::MAX), (to, 1));
    }

    #[inline(always)]
    fn pair(&self, first: (usize, u64), second: (usize, u64)) {
        self.mark(Counter::Begin);
        self.bump(first.0, first.1);
        self.bump(second.0, second.1);
        self.mark(Counter::End);
    }

    #[inline(always)]
    fn mark(&self, marker: Counter) {
        let word = &self.0[masked::<{ COUNTERS - 1 }>(marker as usize)];
        word.store_in_order(word.load().wrapping_add(1));
    }
}

impl Default for Books {
    fn default() -> Self {
        Self::new()
    }
}

/// A row of the service table as the tracker reaches it: the bytes of [`abi::Service`](crate::abi::Service).
#[repr(C, align(64))]
pub struct ServiceRow {
    state: Shared64,
    address: [Shared64; 2],
    /// Port, protocol and family, in the order of the row's bytes.
    what: Shared32,
    searched_jiffies: Shared32,
    gauges: [Shared64; SERVICE_GAUGES],
}

const _: () = assert!(size_of::<ServiceRow>() == size_of::<crate::abi::Service>());

/// The completions of a TCP service by their time, as the tracker reaches them: the bytes of
/// [`abi::ConnectTimes`](crate::abi::ConnectTimes).
pub type ConnectRow = [Shared64; CONNECT_WORDS];

const _: () = assert!(size_of::<ConnectRow>() == size_of::<crate::abi::ConnectTimes>());

/// A row without a completion.
#[must_use]
pub const fn no_connects() -> ConnectRow {
    [const { Shared64::new(0) }; CONNECT_WORDS]
}

/// Adds to the completions at a place; `u64::MAX` takes one away.
#[inline(always)]
pub fn count_connect(row: &ConnectRow, place: u32, by: u64) {
    if let Some(word) = row.get(low_half(opaque(place as u64)) as usize) {
        word.add(by);
    }
}

/// Moves all completions of a row to another one.
#[inline(always)]
pub fn move_connects(from: &ConnectRow, to: &ConnectRow) {
    let mut place = 0;
    while place < CONNECT_WORDS {
        if from[place].load() != 0 {
            to[place].add(from[place].swap(0));
        }
        place += 1;
    }
}

/// The part of a row's state that says what it is: one of the next four.
const KIND: u64 = 0xff;
/// The row is free.
const FREE: u64 = 0;
/// One CPU writes the key.
const WRITING: u64 = 1;
/// The key is there.
const VALID: u64 = 2;
/// Rises when the row is given to another service; of `other`, with each exchange.
const GENERATION: u64 = 0xff_ffff << GENERATION_SHIFT;
const GENERATION_SHIFT: u32 = 8;
/// Where the jiffies begin at which something last came for the row.
const USED_SHIFT: u32 = 32;
/// In the state of `other`: one CPU exchanges rows.
const EXCHANGING: u64 = 1;

/// Whose a row is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// The service's that asked.
    Ours,
    /// Another one's.
    Foreign,
    /// Another CPU writes its key just now: it may become either.
    Unsettled,
}

/// Who answers: address, port, protocol and family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServiceKey {
    /// The responder's address.
    pub address: Address,
    /// The responder's port, then protocol, then family, as the row's bytes lie.
    what: u32,
}

impl ServiceKey {
    /// [`Family`] as a number.
    #[inline(always)]
    #[must_use]
    pub const fn family(&self) -> u8 {
        self.what.to_ne_bytes()[3]
    }

    /// The key of a responder.
    #[inline(always)]
    #[must_use]
    pub const fn new(address: Address, port: u16, protocol: u8, family: u8) -> Self {
        let port = port.to_ne_bytes();
        Self { address, what: u32::from_ne_bytes([port[0], port[1], protocol, family]) }
    }

    /// This one, or none where `none` is 1.
    #[inline(always)]
    #[must_use]
    pub const fn unless(mut self, none: u64) -> Self {
        self.what &= low_half(none).wrapping_sub(1);
        self
    }

    /// None: no row is this one's.
    #[inline(always)]
    #[must_use]
    pub const fn is_none(&self) -> bool {
        self.what == 0
    }

    /// A word that differs between services: where in its half of the table a row is looked for first.
    #[inline(always)]
    #[must_use]
    pub const fn mix(&self, factors: &[u64; crate::abi::HASH_WORDS]) -> u32 {
        let Address([a, b]) = self.address;
        let sum = factors[0]
            .wrapping_add((low_half(a) as u64).wrapping_mul(factors[1]))
            .wrapping_add((a >> 32).wrapping_mul(factors[2]))
            .wrapping_add((low_half(b) as u64).wrapping_mul(factors[3]))
            .wrapping_add((b >> 32).wrapping_mul(factors[4]))
            .wrapping_add((self.what as u64).wrapping_mul(factors[5]));
        (sum >> 32) as u32
    }
}

impl ServiceKey {
    /// The same of a workload's key: only the id of its group and its side differ.
    #[inline(always)]
    #[must_use]
    pub const fn mix_of_group(&self, factors: &[u64; crate::abi::HASH_WORDS]) -> u32 {
        let word = group_of_address(self.address) ^ (self.what as u64) << 32;
        (word.wrapping_mul(factors[1] | 1) >> 32) as u32
    }
}

impl ServiceRow {
    /// A free row.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            state: Shared64::new(FREE),
            address: [const { Shared64::new(0) }; 2],
            what: Shared32::new(0),
            searched_jiffies: Shared32::new(0),
            gauges: [const { Shared64::new(0) }; SERVICE_GAUGES],
        }
    }

    /// Is this the service's row, or can it be? A free row is taken for it, and none becomes free again, so
    /// the first row that fits is the only one. One look at the state decides: between two, a row could go
    /// from "being written" to valid, pass for another's, and the service get a second.
    #[inline(always)]
    pub fn claim(&self, key: &ServiceKey, now: u32) -> Claim {
        let state = self.state.load_in_order();
        if state & KIND == VALID {
            if !self.holds(key) {
                return Claim::Foreign;
            }
            return if self.keep(state, now) { Claim::Ours } else { Claim::Unsettled };
        }
        if state == FREE && self.state.compare_exchange(FREE, WRITING) {
            self.write(key);
            self.state.swap(VALID | used(now));
            return Claim::Ours;
        }
        Claim::Unsettled
    }

    /// Is this the service's row, and does it stay so for a while?
    #[inline(always)]
    pub fn is_of(&self, key: &ServiceKey, now: u32) -> bool {
        let state = self.state.load_in_order();
        state & KIND == VALID && self.holds(key) && self.keep(state, now)
    }

    /// The same of a workload's row, whose key has no further words.
    #[inline(always)]
    pub fn is_of_group(&self, key: &ServiceKey, now: u32) -> bool {
        let state = self.state.load_in_order();
        let holds = self.address[0].load() == key.address.0[0] && self.what.load() == key.what;
        state & KIND == VALID && holds && self.keep(state, now)
    }

    /// Is something counted in the service's row at the gauge's place? `false`: the row went to another
    /// service, and what it had counted is in `other`.
    #[inline(always)]
    pub fn counts(&self, key: &ServiceKey, place: usize, now: u32) -> bool {
        let state = self.state.load_in_order();
        state & KIND == VALID && self.holds(key) && self.count(place) > 0 && self.keep(state, now)
    }

    /// Something came for the row, so it stays for a while; `false` if it was given away just now.
    #[inline(always)]
    fn keep(&self, state: u64, now: u32) -> bool {
        if low_half(state >> USED_SHIFT) == now {
            return true;
        }
        cold_path();
        let kept = state & (GENERATION | KIND) | used(now);
        // Another CPU may have kept it meanwhile.
        self.state.compare_exchange(state, kept) || (self.state.load() ^ kept) & (GENERATION | KIND) == 0
    }

    /// The state of a row that has a key, and the jiffies at which something last came for it.
    #[inline(always)]
    pub fn last_use(&self) -> Option<(u64, u32)> {
        let state = self.state.load();
        (state & KIND == VALID).then_some((state, low_half(state >> USED_SHIFT)))
    }

    /// Takes the row from its service, and what it has counted to `other`. `false`: something came for it since
    /// it had this state. It is no service's until [`give`](Self::give).
    #[inline(always)]
    pub fn take(&self, state: u64, other: &Self) -> bool {
        if !self.state.compare_exchange(state, state & GENERATION | WRITING) {
            return false;
        }
        let mut i = 0;
        while i < SERVICE_GAUGES {
            other.gauges[i].add(self.gauges[i].swap(0));
            i += 1;
        }
        true
    }

    /// Gives a row that was [taken](Self::take) in this state to another service.
    #[inline(always)]
    pub fn give(&self, state: u64, key: &ServiceKey, now: u32) {
        self.write(key);
        self.state.swap(next_generation(state) | VALID | used(now));
    }

    /// Begins an exchange of rows for `other`, this row: one CPU at a time moves counts between it and the
    /// rows of its protocol. `None`: another CPU does.
    #[inline(always)]
    pub fn begin_exchange(&self) -> Option<u64> {
        let state = self.state.load();
        (state & EXCHANGING == 0 && self.state.compare_exchange(state, state | EXCHANGING)).then_some(state)
    }

    /// Ends it; `state` is what its beginning returned.
    #[inline(always)]
    pub fn end_exchange(&self, state: u64, moved: bool) {
        self.state.swap(if moved { next_generation(state) } else { state });
    }

    /// The exchanges up to now, modulo 2²⁴, of `other`, this row; `None` while one is going on. A reader of
    /// the rows has none in two halves if this is the same before and after.
    #[cfg(not(target_arch = "bpf"))]
    #[must_use]
    pub fn exchanges(&self) -> Option<u64> {
        read_fence();
        let state = self.state.load();
        read_fence();
        (state & EXCHANGING == 0).then_some(state)
    }

    /// 1 if no flow of `other`, this row, has looked for a row in this jiffy, else 0. Flows that prove
    /// nothing yet look once a jiffy.
    #[inline(always)]
    pub fn is_first_search(&self, now: u32) -> u64 {
        below(0, (self.searched_jiffies.load() ^ now) as i64)
    }

    /// Notes a search.
    #[inline(always)]
    pub fn begin_search(&self, now: u32) {
        self.searched_jiffies.store(now);
    }

    /// Whose the row is, if it is valid.
    #[inline(always)]
    pub fn key(&self) -> ServiceKey {
        let address = [self.address[0].load(), self.address[1].load()];
        ServiceKey { address: Address(address), what: self.what.load() }
    }

    #[inline(always)]
    fn write(&self, key: &ServiceKey) {
        self.address[0].store(key.address.0[0]);
        self.address[1].store(key.address.0[1]);
        self.what.store(key.what);
    }

    #[inline(always)]
    fn holds(&self, key: &ServiceKey) -> bool {
        // A row whose family is IPv4 has no further word.
        self.what.load() == key.what
            && self.address[0].load() == key.address.0[0]
            && (key.family() == Family::V4 as u8 || self.address[1].load() == key.address.0[1])
    }

    /// Adds to the gauge whose place in the counter block is given: [`Counter::Attempts`] to
    /// [`Counter::OpenAnswerUnseen`] of a TCP service, [`Counter::UdpFlows`] to [`Counter::UdpUntracked`] of
    /// a UDP one.
    #[inline(always)]
    pub fn bump(&self, place: usize, by: u64) {
        if let Some(gauge) = self.gauge(place) {
            gauge.add(by);
        }
    }

    /// Counts a connection of this TCP service whose server was silent.
    #[inline(always)]
    pub fn count_silence(&self) {
        self.gauges[SERVICE_WAS_SILENT].add(1);
    }

    /// What is counted at such a place. It may be below 0 for a moment in `other`.
    #[inline(always)]
    pub fn count(&self, place: usize) -> i64 {
        self.gauge(place).map_or(0, |gauge| gauge.load().cast_signed())
    }

    #[inline(always)]
    fn gauge(&self, place: usize) -> Option<&Shared64> {
        const TO_UDP: usize = Counter::UdpFlows as usize - Counter::Attempts as usize;
        let is_udp = low_half(below(Counter::LAST_TCP as i64, place.cast_signed() as i64)) as usize;
        let gauge = place.wrapping_sub(Counter::Attempts as usize).wrapping_sub(is_udp * TO_UDP);
        self.gauges.get(low_half(opaque_unless_known(gauge as u64)) as usize)
    }

    /// The row as a value, when it is valid and is not given to another service meanwhile.
    #[cfg(not(target_arch = "bpf"))]
    #[must_use]
    pub fn read(&self) -> Option<crate::abi::Service> {
        self.read_with(|| ()).map(|(row, ())| row)
    }

    /// The same, and what `beside` reads of the row's service elsewhere.
    #[cfg(not(target_arch = "bpf"))]
    #[must_use]
    pub fn read_with<T>(&self, beside: impl FnOnce() -> T) -> Option<(crate::abi::Service, T)> {
        let before = self.state.load();
        if before & KIND != VALID {
            return None;
        }
        read_fence();
        let read = (self.copy(), beside());
        read_fence();
        let same = (self.state.load() ^ before) & (GENERATION | KIND) == 0;
        same.then_some(read)
    }

    /// The row as a value, valid or not: the row of those without one has no key.
    #[cfg(not(target_arch = "bpf"))]
    #[must_use]
    pub fn copy(&self) -> crate::abi::Service {
        let what = self.what.load().to_ne_bytes();
        crate::abi::Service {
            state: self.state.load(),
            address: self.key().address,
            port: u16::from_ne_bytes([what[0], what[1]]),
            protocol: what[2],
            family: what[3],
            searched_jiffies: self.searched_jiffies.load(),
            gauges: core::array::from_fn(|i| self.gauges[i].load()),
        }
    }
}

/// A state's part that says when something last came for the row, alone.
#[inline(always)]
const fn used(now: u32) -> u64 {
    (now as u64) << USED_SHIFT
}

/// The generation after that of a state, alone.
#[inline(always)]
const fn next_generation(state: u64) -> u64 {
    state.wrapping_add(1 << GENERATION_SHIFT) & GENERATION
}

impl Default for ServiceRow {
    fn default() -> Self {
        Self::new()
    }
}
