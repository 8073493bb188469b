//! Checks what must hold after every packet, and at the end.

use handshake_common::abi::{COUNTERS, Config, Counter, SERVICE_GAUGES, SERVICES, WAYS};
use handshake_common::books::Books;
use handshake_common::flow::{Family, FlowKey};
use handshake_common::memory::{Memory, Storage};
use handshake_common::record::{Clocks, Now, Record, State};
use handshake_common::table::{self, Slot, Tag, hash, set_of};
use handshake_common::verdict::{self, Role, Row, UDP, Verdict, row_of};
use handshake_common::wire::{Class, Packet, TCP};

use super::arena::Arena;
use super::history::StreamHistory;

/// The identity of TCP: attempts, then the first and last of the terms that sum to them.
const TCP_IDENTITY: (Counter, Counter, Counter) = (Counter::Attempts, Counter::Completed, Counter::LAST_TCP);
/// The identity of UDP: flows, then the first and last of the terms that sum to them.
const UDP_IDENTITY: (Counter, Counter, Counter) =
    (Counter::UdpFlows, Counter::UdpAnswered, Counter::LAST_UDP);
/// No stream is long enough to count this far: a larger gauge fell below zero.
const SMALL: u64 = 1 << 32;

/// The words of the books at one moment.
pub(super) struct OracleWords([u64; COUNTERS]);

impl OracleWords {
    pub(super) fn of(books: &Books) -> Self {
        Self(std::array::from_fn(|i| books.words()[i].load()))
    }

    pub(super) fn at(&self, counter: Counter) -> u64 {
        self.0[counter as usize]
    }

    /// Checks the identities of TCP and UDP within the books.
    pub(super) fn balance(&self) {
        for (total, first, last) in [TCP_IDENTITY, UDP_IDENTITY] {
            let terms = &self.0[first as usize..=last as usize];
            assert!(terms.iter().all(|term| *term < SMALL), "{total:?}: a gauge below zero: {terms:?}");
            assert_eq!(self.at(total), terms.iter().sum::<u64>(), "{total:?}: {terms:?}");
        }
        assert_eq!(self.at(Counter::Begin), self.at(Counter::End), "no update of the books is unfinished");
        assert_eq!(self.at(Counter::Contended), 0, "a single thread has no contention");
        assert!(self.at(Counter::OrphanSynAck) < SMALL, "orphans below zero");
    }

    /// Checks the gauges against the slots: all open attempts are in the slots; of the other flows some were
    /// evicted.
    pub(super) fn agree_with(&self, storage: &Storage<'_>) {
        let mut held = [0; COUNTERS];
        let mut hold = |tag: Tag| {
            assert!(!tag.is_locked(), "a slot is still locked");
            held[tag.state().gauge_place()] += 1;
        };
        storage.slots4.iter().for_each(|slot| hold(Tag(slot.tag().load())));
        storage.slots6.iter().for_each(|slot| hold(Tag(slot.tag().load())));
        for state in State::ALL.into_iter().filter(|state| *state != State::Empty) {
            let (gauge, held) = (self.at(state.gauge()), held[state.gauge_place()]);
            let fits = if state.is_open() { gauge == held } else { gauge >= held };
            assert!(fits, "{state:?}: {gauge} in the books, {held} in the slots");
        }
    }

    /// Checks the changes that one packet made.
    pub(super) fn follow(&self, before: &Self, packet: &Packet, history: &StreamHistory) {
        for (i, (now, then)) in self.0.iter().zip(&before.0).enumerate() {
            // A RST that denies a completion takes it back.
            let taken_back = i == Counter::Completed as usize && now + 1 == *then;
            assert!(
                can_fall(i) || taken_back || now >= then,
                "counter {i} fell from {then} to {now} with {packet:?}"
            );
        }
        self.entries(before);
        let risen = |counter| self.at(counter).saturating_sub(before.at(counter));
        // A SYN+ACK begins one if it answers a SYN that was only a claim.
        let syn = packet.protocol == TCP && (packet.class == Class::Syn as u8 || history.answers_a_syn());
        assert!(risen(Counter::Attempts) <= u64::from(syn), "an attempt needs a SYN: {packet:?}");
        assert!(risen(Counter::Completed) <= 1, "one segment completes one attempt: {packet:?}");
        if risen(Counter::Completed) == 1 {
            history.proves(self);
        }
    }

    /// Checks that a verdict that can be left again is entered at least as often as its gauge rises.
    fn entries(&self, before: &Self) {
        let tcp = verdict::TCP.iter().filter_map(|row| Some((row.gauges[0].counter, row.entered?.counter)));
        let udp = UDP.iter().filter_map(|row| Some((row.gauges[0].counter, row.entered?.counter)));
        for (gauge, entered) in tcp.chain(udp) {
            let entries = self.at(entered) - before.at(entered);
            let rise = self.at(gauge).saturating_sub(before.at(gauge));
            // A datagram from elsewhere answers the request, and its own flow is answered from the start.
            let most = 1 + u64::from(gauge == Counter::UdpAnswered);
            assert!(entries <= most && rise <= entries, "{gauge:?} rose by {rise}, entered {entries} times");
            assert!(self.at(gauge) <= self.at(entered), "{gauge:?} is above its entries");
        }
    }

    /// Checks that the services' rows sum to the books; `rows` are all rows in use.
    fn sum_of_services(&self, storage: &Storage<'_>, rows: &[usize]) {
        let (mut tcp, mut udp) = ([0_u64; SERVICE_GAUGES], [0_u64; SERVICE_GAUGES]);
        for &row in rows {
            let sums = if row < SERVICES as usize / 2 { &mut tcp } else { &mut udp };
            let gauges = storage.services[row].copy().gauges;
            sums.iter_mut().zip(gauges).for_each(|(sum, gauge)| *sum = sum.wrapping_add(gauge));
        }
        for (sums, (total, _, last)) in [(tcp, TCP_IDENTITY), (udp, UDP_IDENTITY)] {
            let books = &self.0[total as usize..=last as usize];
            assert_eq!(&sums[..books.len()], books, "the services' {total:?} and terms");
        }
    }
}

/// Can the counter at this index fall, because flows leave its verdict again?
fn can_fall(place: usize) -> bool {
    row_of(&verdict::TCP, place).is_some_and(Row::can_fall) || row_of(&UDP, place).is_some_and(Row::can_fall)
}

/// Checks what must hold after the last packet.
pub(super) fn at_rest(memory: &Memory<'_>, config: &Config, words: &OracleWords, arena: &Arena) {
    let storage = memory.storage();
    // One expression with few branches: the fuzzer counts each branch.
    let stripes = storage.stripes.chunks(16).map(|some| some.iter().fold(0, |all, one| all | one.load()));
    assert_eq!(stripes.fold(0, |all, some| all | some), 0, "a stripe is still locked");
    words.sum_of_services(storage, arena.service_rows());
    let records = [keep(storage.slots4, config), keep(storage.slots6, config)];
    records.iter().flatten().for_each(|record| stands(record, memory.now(), config));
}

/// Checks that each record of a table is there once and in one of its sets; returns the records.
fn keep<S: Slot>(slots: &[S], config: &Config) -> Vec<Record> {
    let mask = u32::try_from(slots.len() / WAYS as usize - 1).unwrap_or(u32::MAX);
    let mut keys: Vec<FlowKey> = Vec::new();
    let mut records = Vec::new();
    for (slot, index) in slots.iter().zip(0_u32..) {
        let Some(record) = table::read(slot) else { continue };
        assert!(!keys.contains(&record.key), "a key twice: {:?}", record.key);
        let sets = config.factors.map(|factors| set_of(hash(&record.key, S::FAMILY, &factors), mask));
        assert!(sets.contains(&(index / WAYS)), "a record outside its sets: {record:?}");
        keys.push(record.key);
        records.push(record);
    }
    records
}

/// Checks that a flow is no open attempt, if it has a record: its handshake is complete.
pub(super) fn is_complete(storage: &Storage<'_>, key: &FlowKey) {
    let records =
        storage.slots4.iter().filter_map(table::read).chain(storage.slots6.iter().filter_map(table::read));
    for record in records.filter(|record| record.key == *key) {
        let is_complete = matches!(record.state, State::Established | State::Closed);
        assert!(is_complete, "a proof that completed nothing: {record:?}");
    }
}

/// Checks that every packet is counted in one class.
pub(super) fn classes(storage: &Storage<'_>, packets: u64) {
    let counted = storage.classes.iter().flatten().map(|word| word.load());
    assert_eq!(counted.sum::<u64>(), packets, "every packet is in one class");
}

/// Checks that a record has one verdict, which fits the state that counts it.
fn stands(record: &Record, now: Now, config: &Config) {
    let clocks = Clocks {
        half_open_after_ns: config.half_open_after_ns,
        expire_after_ns: config.expire_after_ns,
        udp_idle_jiffies: config.udp_idle_jiffies,
        idle_after_jiffies: config.idle_after_jiffies,
    };
    let verdict = record.verdict(now, &clocks);
    assert_eq!(verdict.is_some(), !record.state.is_udp(), "{record:?}");
    assert_eq!(record.udp_verdict(now, &clocks).is_some(), record.state.is_udp(), "{record:?}");
    let row = verdict.map(Verdict::row);
    let open = row.is_some_and(|row| row.role == Role::ByAge || row.verdict == Verdict::HalfOpenExpired);
    assert_eq!(open, record.state.is_open(), "{record:?}");
    assert!(matches!(record.family, Family::V4) == (record.key.low.0[1] == 0), "{record:?}");
}
