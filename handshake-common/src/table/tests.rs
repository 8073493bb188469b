//! Hashing, worth, and the two views of a slot.

use std::vec::Vec;

use proptest::prelude::*;
use zerocopy::{FromBytes, IntoBytes};

use super::*;
use crate::abi::{ControlGroups, Flow4, Flow6, Makers};
use crate::record::Record;

#[test]
fn both_directions_hash_to_the_same_sets() {
    let factors = random_factors(1);
    for n in 0..1_000_u32 {
        let a = (Address::v6([n.wrapping_mul(0x9e37_79b9), n, 7, 1]), 40_000);
        let b = (Address::v6([0x0a00_0001, 3, n, 2]), 80);
        for family in [Family::V4, Family::V6] {
            let there = hash(&FlowKey::of((&a.0, a.1), (&b.0, b.1), family, false).0, family, &factors[0]);
            assert_eq!(
                there,
                hash(&FlowKey::of((&b.0, b.1), (&a.0, a.1), family, false).0, family, &factors[0])
            );
        }
    }
}

/// The sender of packets chooses the keys, but not the factors.
#[test]
fn no_family_of_keys_concentrates() {
    const KEYS: u32 = 1_024;
    const MASK: u32 = 1_023;
    for seed in 0..100 {
        let factors = random_factors(seed);
        for (name, family, key) in families() {
            let mut sets: Vec<u32> =
                (0..KEYS).map(|n| set_of(hash(&key(n), family, &factors[0]), MASK)).collect();
            sets.sort_unstable();
            let fullest = sets.chunk_by(|a, b| a == b).map(<[u32]>::len).max();
            // One key a set on average.
            let both = (0..KEYS).map(|n| factors.map(|f| set_of(hash(&key(n), family, &f), MASK)));
            let mut both: Vec<[u32; 2]> = both.collect();
            both.sort_unstable();
            let same = both.chunk_by(|a, b| a == b).map(<[[u32; 2]]>::len).max();
            assert!(fullest <= Some(12), "{name}, seed {seed}: {fullest:?} of {KEYS} in one set");
            assert!(same <= Some(3), "{name}, seed {seed}: {same:?} of {KEYS} have both sets in common");
        }
    }
}

#[test]
fn every_word_of_a_key_counts() {
    let factors = random_factors(3);
    let key = FlowKey { low: Address([1, 2]), high: Address([3, 4]), ports: 9, udp: false };
    let base = hash(&key, Family::V6, &factors[0]);
    for i in 0..4 {
        let (mut low, mut high) = (key, key);
        low.low.0[i / 2] ^= 1 << (31 + 32 * (i % 2));
        high.high.0[i / 2] ^= 1 << (31 + 32 * (i % 2));
        assert_ne!(hash(&low, Family::V6, &factors[0]), base, "low {i}");
        assert_ne!(hash(&high, Family::V6, &factors[0]), base, "high {i}");
    }
    assert_ne!(hash(&FlowKey { ports: 10, ..key }, Family::V6, &factors[0]), base);
    assert_ne!(hash(&FlowKey { udp: true, ..key }, Family::V6, &factors[0]), base);
}

#[test]
fn a_set_is_one_of_the_tables() {
    for sets in [1, 16, 1_024] {
        for hash in [0, 1, 0x1234_5677, u32::MAX] {
            assert!(set_of(hash, sets - 1) < sets);
        }
    }
}

#[test]
fn a_tag_keeps_its_parts_and_its_generation_wraps() {
    for state in State::ALL {
        let tag = Tag(u64::MAX).next(state, 0xabcd, 0x0fff);
        assert_eq!((tag.state(), tag.flags(), tag.service()), (state, 0xabcd, 0x0fff));
        assert!(!tag.is_locked() && tag.locked().is_locked() && tag.locked().state() == state);
        assert_eq!(tag.0 >> tag::GENERATION_SHIFT, 0);
        assert_ne!(tag.next(state, 0xabcd, 0x0fff), tag, "no publication gives the tag there was");
    }
}

#[test]
fn a_free_or_owned_slot_is_not_read() {
    let slot = Slot4::default();
    assert_eq!(read(&slot), None);
    slot.tag().store(Tag(0).next(State::Midstream, 0, 0).locked().0);
    assert_eq!(read(&slot), None);
    slot.tag().store(Tag(0).next(State::Midstream, 0, 0).0);
    assert_eq!(read(&slot).map(|record| record.state), Some(State::Midstream));
}

#[test]
fn worths_are_ordered_as_specified() {
    use State::{
        AnswerUnseen, Closed, Established, Midstream, OrphanSynAck, SynReceived, SynSent, UdpAnswered,
        UdpMulticast, UdpUnreachable, UdpWaiting,
    };
    let ended: Vec<State> =
        State::ALL.into_iter().filter(|state| *state == Closed || state.is_provisional()).collect();
    let ranks: [&[State]; 7] = [
        &ended,
        &[Midstream, OrphanSynAck],
        &[UdpWaiting, UdpUnreachable, UdpMulticast],
        &[SynSent, AnswerUnseen],
        &[SynReceived],
        &[UdpAnswered],
        &[Established],
    ];
    for pair in ranks.windows(2) {
        for (less, more) in pair[0].iter().flat_map(|a| pair[1].iter().map(move |b| (a, b))) {
            assert!(Worth::of(*less) < Worth::of(*more), "{less:?} goes before {more:?}");
        }
    }
    assert!(Worth::Expired < Worth::of(Closed) && Worth::of(State::Empty) == Worth::Free);
    assert_eq!(ranks.iter().map(|rank| rank.len()).sum::<usize>() + 1, State::ALL.len());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4_096, failure_persistence: None, ..ProptestConfig::default() })]

    /// The branch-free worth, the kernel's `expired` and the reports' are one definition.
    #[test]
    fn worth_is_what_the_record_says(
        number in 0..16_u8, opened in a_time(), after in prop_oneof![Just(0), any::<u32>()],
        last in a_jiffy(), now in a_time(), jiffies in a_jiffy(), t2 in a_limit(), idle in any::<[u16; 2]>(), wide: bool,
    ) {
        let state = State::from_number(number);
        let now = Now { ns: now, jiffies };
        let limit = |short: u16| if wide { u32::MAX } else { u32::from(short) };
        let clocks = Clocks {
            half_open_after_ns: 0, expire_after_ns: t2,
            udp_idle_jiffies: limit(idle[0]), idle_after_jiffies: limit(idle[1]),
        };
        let slot = Slot4::default();
        slot.tag().store(u64::from(number) << tag::STATE_SHIFT);
        slot.last().store(last);
        slot.body().set_tcp(TcpRecord { opened_ns: opened, latest_after: after, ..TcpRecord::default() });
        let tag = Tag(slot.tag().load());
        let record = read(&slot);
        let is_expired = record.is_some_and(|record| record.expired(now, &clocks));
        let closed = state == State::Established && jiffies_since(now.jiffies, last) > clocks.idle_after_jiffies;
        let expected = match (is_expired, closed) {
            (true, _) => Worth::Expired,
            (_, true) => Worth::Ended,
            _ => Worth::of(state),
        };
        prop_assert_eq!(worth_and_youth(&slot, tag, now, &clocks).0, expected as u64);
        prop_assert_eq!(expired(&slot, state, now, &clocks), is_expired);
    }

    /// What the tracker writes by words is what the map's type says by fields, and the other way round.
    #[test]
    fn both_views_of_a_slot_are_the_same_bytes(bytes in any::<[u8; 32]>(), more in any::<[u8; 32]>()) {
        let (mut four, mut six) = ([0_u8; 64], [0_u8; 128]);
        four[..32].copy_from_slice(&bytes);
        four[32..].copy_from_slice(&more);
        six[..64].copy_from_slice(&four);
        six[64..96].copy_from_slice(&bytes);
        let flow = Flow4::read_from_bytes(&four).expect("64 bytes");
        let slot = slot4_of(&flow);
        prop_assert_eq!([slot.tag.load(), 0], [flow.tag, 0]);
        prop_assert_eq!([slot.low.load(), slot.high.load(), slot.ports.load(), slot.last.load()],
            [flow.low, flow.high, flow.ports, flow.last_jiffies]);
        let (tcp, udp): (TcpRecord, UdpRecord) = (slot.body.tcp(), slot.body.udp());
        prop_assert_eq!(tcp.as_bytes(), &four[24..]);
        prop_assert_eq!(udp.as_bytes(), &four[24..]);
        prop_assert_eq!(slot.body.points(), tcp.points);

        let flow = Flow6::read_from_bytes(&six).expect("128 bytes");
        let slot = slot6_of(&flow);
        prop_assert_eq!((get(&slot.low), get(&slot.high)), (flow.low, flow.high));
        prop_assert_eq!([slot.ports.load(), slot.last.load()], [flow.ports, flow.last_jiffies]);
        let tcp = slot.body.tcp();
        prop_assert_eq!((slot.tag.load(), tcp.as_bytes()), (flow.tag, &six[48..88]));
        let copy = Slot6::default();
        copy.set_key(&slot.key(false));
        copy.body.set_udp(slot.body.udp());
        prop_assert!(copy.holds(&slot.key(false)) && copy.body.udp() == slot.body.udp());
    }
}

#[test]
fn counts_land_in_their_fields() {
    let body = SlotBody::new();
    body.set_tcp(TcpRecord { ack: 5, points: 0x21, ..TcpRecord::default() });
    body.add_acks(3);
    assert_eq!((body.tcp().ack, body.points()), (8, 0x21));
    body.set_udp(UdpRecord::default());
    body.add_udp(false, 1, 100);
    body.add_udp(true, 2, 300);
    assert_eq!((body.udp().packets, body.udp().bytes), ([1, 2], [100, 300]));
}

#[test]
fn an_event_gives_its_record_back() {
    let slot = Slot6::default();
    let key = FlowKey { low: Address([1, 2]), high: Address([3, 4]), ports: 9, udp: false };
    slot.set_key(&key);
    slot.last().store(77);
    slot.body().set_tcp(TcpRecord { isn_initiator: 4, ..TcpRecord::default() });
    let tag = Tag(0).next(State::Refused, tag::INITIATOR_HIGH, 12);
    slot.tag().store(tag.0);
    let told: Record = record_of(&event(&slot, tag, ControlGroups::default(), 3, 1), Makers::default());
    assert_eq!(Some(told), read(&slot));
}

// ---- helpers ----

/// Its name, and its `n`-th key.
type KeyFamily = (&'static str, Family, fn(u32) -> FlowKey);

/// Families of keys that differ in a few bits only.
fn families() -> [KeyFamily; 6] {
    const fn v4(low: u32, high: u32, ports: u32) -> FlowKey {
        FlowKey { low: Address::v4(low), high: Address::v4(high), ports, udp: false }
    }
    const fn v6(low: [u32; 4], high: [u32; 4]) -> FlowKey {
        FlowKey { low: Address::v6(low), high: Address::v6(high), ports: 80, udp: false }
    }
    [
        ("low bits of an address", Family::V4, |n| v4(n, 0xc0a8_0001, 80)),
        ("high bits of an address", Family::V4, |n| v4(n << 22, u32::MAX, 80)),
        ("ports", Family::V4, |n| v4(1, 2, n << 16 | 80)),
        ("an exchange between the ends", Family::V4, |n| {
            v4(0x0a00_0000 + n, 0x0a01_0000 - n, n << 16 | (1_024 - n))
        }),
        ("the last word over IPv6", Family::V6, |n| v6([1, 0, 0, n], [2, 0, 0, 0])),
        ("a network over IPv6", Family::V6, |n| v6([1, n << 22, 0, 0], [2, n, 0, 0])),
    ]
}

/// A seed gives the same factors always.
fn random_factors(seed: u64) -> [[u64; HASH_WORDS]; 2] {
    let mut state = seed.wrapping_mul(0xd134_2543_de82_ef95);
    crate::engine::factors(|| crate::random::split_mix(&mut state))
}

/// The bytes of a flow as the tracker sees them.
fn slot4_of(flow: &Flow4) -> &Slot4 {
    // SAFETY: both are 64 bytes with the same alignment, every bit pattern is a `Slot4`, and nothing
    // writes through the reference.
    unsafe { &*core::ptr::from_ref(flow).cast() }
}

/// The same of an IPv6 flow.
fn slot6_of(flow: &Flow6) -> &Slot6 {
    // SAFETY: as above, of 128 bytes.
    unsafe { &*core::ptr::from_ref(flow).cast() }
}

/// Times near each other, and any.
/// Above it there are no times and no limits ([`Config`](crate::abi::Config)).
const LONGEST: u64 = (1 << 61) - 1;

fn a_time() -> impl Strategy<Value = u64> {
    prop_oneof![3 => 0..200_000_000_000_u64, 1 => Just(0), 1 => Just(LONGEST), 1 => 0..=LONGEST]
}

fn a_limit() -> impl Strategy<Value = u64> {
    prop_oneof![4 => 0..100_000_000_000_u64, 1 => Just(LONGEST), 1 => 0..=LONGEST]
}

fn a_jiffy() -> impl Strategy<Value = u32> {
    prop_oneof![2 => 0..100_000_u32, 1 => u32::MAX - 50_000..=u32::MAX, 1 => any::<u32>()]
}
