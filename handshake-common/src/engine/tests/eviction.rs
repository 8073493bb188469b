//! Who goes when a set is full: the least worth, never a better one than the newcomer.

use proptest::prelude::*;

use super::*;
use crate::abi::WAYS;
use crate::flow::{Family, FlowKey};
use crate::random;
use crate::record::Clocks;
use crate::table::Worth;

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    /// Flows fill two sets, or nearly; one more comes. At most one record goes: the oldest of the least worth, or
    /// of what is held against an attempt, where that is more than six records.
    #[test]
    fn a_newcomer_takes_the_place_of_the_least_worth(
        kinds in proptest::collection::vec((a_kind(), 0..200_u64), 6..=8),
        newcomer in 0..4_u8,
    ) {
        let world = World::new(8);
        fill(&world, &kinds);
        let now = 100 * SECOND;
        let before = world.records();
        let flow = a_key_of_both_sets();
        let packet = match newcomer {
            0 => tcp(flow, true, SYN, 0, 0),
            1 => udp(flow, true),
            2 => tcp(flow, true, ACK, 1, 1),
            _ => tcp(flow, false, SYN | ACK, 1, 1),
        };
        let worth = [Worth::Completed, Worth::UdpUnanswered, Worth::Midstream, Worth::Midstream];
        world.send(now, &packet);
        world.check_all();
        expect_least_worth_gone(&world, &before, worth[usize::from(newcomer)], time(now));
    }
}

/// A flood of SYNs takes at most the seventh and the eighth completed record of a key's eight slots. What it
/// evicts of completed connections stays counted.
#[test]
fn a_flood_of_syns_leaves_six_of_eight_completed_connections() {
    let world = World::new(8);
    fill(&world, &[(6, 2); 8]);
    for flow in (100..2_000).map(|n| n * 4) {
        world.send(2 * SECOND, &tcp(flow, true, SYN, 0, 0));
    }
    assert!(states(&world, State::Established) >= 4, "two of each set");
    assert_eq!(world.count(Counter::Completed), 8, "what was evicted stays counted");
    assert_eq!(world.counts(&[Counter::Attempts, Counter::Untracked]), [8 + 1_900, 0]);
    assert!(world.count(Counter::Evicted) >= 1_900 - 4);
    world.check_all();

    let world = World::new(8);
    fill(&world, &[(6, 2); 8]);
    for flow in (100..6_000).map(|n| n * 4).filter(|flow| sets_of(*flow, 2)[0] != sets_of(*flow, 2)[1]) {
        world.send(2 * SECOND, &tcp(flow, true, SYN, 0, 0));
    }
    assert_eq!(states(&world, State::Established), 6, "of eight slots that are both sets of every key");
}

/// Where no event is asked for, an attempt may take over from another of its service at once. The books, the
/// services' rows and the records are those of an eviction and an entry.
#[test]
fn an_attempt_that_takes_over_counts_as_one_that_evicts() {
    let worlds = [option::EVENTS, 0].map(|options| {
        let world = World::new(64);
        World { config: Config { options, ..world.config }, ..world }
    });
    let rows = |world: &World| -> Vec<_> {
        world
            .tables
            .services
            .iter()
            .map(|row| (row.copy().gauges, row.copy().port, row.copy().address))
            .collect()
    };
    let mut seed = 3;
    for step in 0..8_000_u64 {
        let draw = random::split_mix(&mut seed);
        let flow = u16::try_from(draw % 6_000).expect("below 6,000");
        let client = draw >> 32 & 7 != 0;
        let packet = match draw >> 40 & 15 {
            0 => tcp(flow, !client, SYN | ACK, 10, 1),
            1 => tcp(flow, client, ACK, 1, 11),
            _ => tcp(flow, client, SYN, 0, 0),
        };
        // Now and then all there is has expired.
        let at = SECOND + step * 1_000_000 + step / 1_000 * 80 * SECOND;
        worlds.iter().for_each(|world| world.send(at, &packet));
        if step % 256 == 0 {
            let [told, untold] = &worlds;
            // But for the pairs, of which there is one less each time.
            let counts = |world: &World| world.block()[1..Counter::Begin as usize].to_vec();
            assert_eq!(counts(told), counts(untold));
            assert_eq!(rows(told), rows(untold));
            assert_eq!(told.records(), untold.records());
        }
    }
    worlds[0].check_all();
    worlds[1].check_identities();
    let [evicted, expired, pairs] =
        worlds[1].counts(&[Counter::Evicted, Counter::EvictedExpired, Counter::Begin]);
    let saved = worlds[0].count(Counter::Begin) - pairs;
    assert!(evicted > 3_000 && expired > 100, "{evicted} evicted, {expired} of them expired");
    assert!(saved > 500 && saved < evicted, "{saved} take over");
}

/// Neither answered UDP nor completions that are held open leave an attempt without a record, and a handshake
/// in progress is not what the next attempt pushes out.
#[test]
fn attempts_find_a_place_among_what_answered_or_completed() {
    for kind in [2, 6] {
        let world = World::new(1_024);
        for flow in (0..4_000).map(|n| n * 4) {
            settle(&world, flow, kind, SECOND);
        }
        let held =
            [State::UdpAnswered, State::Established].map(|state| states(&world, state)).iter().sum::<usize>();
        assert!(held > 1_000, "{held} of 1,024 slots are held");
        let completed = world.count(Counter::Completed);
        // Ten at once: each set has at most a few of them.
        for first in (4_000..5_000_u16).step_by(10) {
            let ten = || (first..first + 10).map(|n| n * 4);
            ten().for_each(|flow| world.send(2 * SECOND, &tcp(flow, true, SYN, 0, 0)));
            ten().for_each(|flow| world.send(2 * SECOND, &tcp(flow, false, SYN | ACK, 10, 1)));
            ten().for_each(|flow| world.send(2 * SECOND, &tcp(flow, true, ACK, 1, 11)));
        }
        let tracked = world.count(Counter::Completed) - completed;
        assert!(tracked >= 990, "{tracked} of 1,000 handshakes beside kind {kind}");
        assert_eq!(world.count(Counter::Untracked), 0);
        world.check_all();
    }
}

/// No locked slot is taken: an attempt that finds no other place is untracked.
#[test]
fn an_attempt_among_locked_slots_is_untracked() {
    let world = World::new(8);
    fill(&world, &[(6, 2); 8]);
    for slot in &world.tables.slots4 {
        let tag = table::Slot::tag(slot);
        tag.store(tag.load() | tag::LOCKED);
    }
    world.send(2 * SECOND, &tcp(a_key_of_both_sets(), true, SYN, 0, 0));
    assert_eq!(world.counts(&[Counter::Attempts, Counter::Completed, Counter::Untracked]), [9, 8, 1]);
    world.check_identities();
}

/// Two choices: the newcomer goes where more slots are free, even when the other set has room as well.
#[test]
fn a_newcomer_goes_to_the_emptier_set() {
    let mut tried = 0;
    for flow in (0..64).map(|n| n * 4) {
        let packet = tcp(flow, true, SYN, 0, 0);
        let key = key_of(&packet);
        let sets = sets_of(flow, 16).map(|set| set * WAYS as usize);
        if sets[0] == sets[1] {
            continue;
        }
        for (fuller, emptier) in [(sets[0], sets[1]), (sets[1], sets[0])] {
            let world = World::new(64);
            let taken = table::Tag(0).next(State::Midstream, 0, 0);
            for slot in [fuller, fuller + 1, emptier + 2] {
                table::Slot::tag(&world.tables.slots4[slot]).store(taken.0);
            }
            world.send(SECOND, &packet);
            let here = |slot: &usize| table::read(&world.tables.slots4[*slot]).is_some_and(|r| r.key == key);
            assert_eq!((emptier..emptier + 4).filter(here).count(), 1, "flow {flow}, sets {sets:?}");
            tried += 1;
        }
    }
    assert!(tried > 64);
}

fn expect_least_worth_gone(world: &World, before: &[Record], newcomer: Worth, now: Now) {
    const SLOTS: usize = 8;
    let after = world.records();
    let gone: Vec<&Record> = before.iter().filter(|r| !after.iter().any(|a| a.key == r.key)).collect();
    let came = after.iter().any(|a| !before.iter().any(|r| r.key == a.key));
    assert_eq!(before.len() + usize::from(came), after.len() + gone.len());
    let rank = |r: &Record| (worth_of(r, now), r.last_jiffies.wrapping_sub(now.jiffies).cast_signed());
    let held: Vec<_> = before.iter().map(rank).filter(|rank| rank.0 >= Worth::UdpAnswered).collect();
    let against_an_attempt = newcomer == Worth::Completed && held.len() > 6;
    let least = if against_an_attempt { held.into_iter().min() } else { before.iter().map(rank).min() };
    let least = least.expect("records");
    if before.len() < SLOTS {
        assert!(came && gone.is_empty(), "a free slot is taken first");
    } else if least.0 <= newcomer {
        assert!(came && gone.len() == 1, "{least:?} makes room for {newcomer:?}");
        assert_eq!(rank(gone[0]), least, "the oldest of the least worth");
    } else {
        assert!(!came && gone.is_empty(), "{least:?} stays before {newcomer:?}");
    }
}

/// The number of records in a state.
fn states(world: &World, state: State) -> usize {
    world.records().iter().filter(|record| record.state == state).count()
}

fn key_of(packet: &Packet) -> FlowKey {
    let ends = [(&packet.source, packet.source_port), (&packet.destination, packet.destination_port)];
    FlowKey::of(ends[0], ends[1], Family::V4, packet.protocol == wire::UDP).0
}

/// Both sets of a TCP flow over IPv4, in a table of so many.
fn sets_of(flow: u16, sets: u32) -> [usize; 2] {
    let key = key_of(&tcp(flow, true, SYN, 0, 0));
    config().factors.map(|f| table::set_of(table::hash(&key, Family::V4, &f), sets - 1) as usize)
}

/// A flow whose key has either set of a table of two, over TCP and over UDP.
fn a_key_of_both_sets() -> u16 {
    let has_both = |key: FlowKey| {
        let sets = config().factors.map(|f| table::set_of(table::hash(&key, Family::V4, &f), 1));
        sets[0] != sets[1]
    };
    let mut flows = (2_000..).map(|n| n * 4);
    let found = flows
        .find(|flow| has_both(key_of(&tcp(*flow, true, SYN, 0, 0))) && has_both(key_of(&udp(*flow, true))));
    found.expect("one of four")
}

/// Kinds of [`settle`], half of the time those that are held against an attempt.
fn a_kind() -> impl Strategy<Value = u8> {
    prop_oneof![1 => 0..7_u8, 2 => prop_oneof![Just(2_u8), Just(6)]]
}

/// Brings a flow into each of these states, in a table of two sets that has room for them.
fn fill(world: &World, kinds: &[(u8, u64)]) {
    let mut flows = (0..).map(|n| n * 4);
    for (kind, at) in kinds {
        let is_tcp = !matches!(kind, 1 | 2);
        let fits = |flow: &u16| {
            let key = key_of(&if is_tcp { tcp(*flow, true, SYN, 0, 0) } else { udp(*flow, true) });
            let sets = config().factors.map(|f| table::set_of(table::hash(&key, Family::V4, &f), 1) as usize);
            let slots = world.tables.slots4.as_chunks::<{ WAYS as usize }>().0;
            sets.iter().any(|set| slots[*set].iter().any(|slot| table::read(slot).is_none()))
        };
        let flow = flows.find(fits).expect("a key of a set with room");
        settle(world, flow, *kind, *at * SECOND / 2);
    }
}

/// A record's worth, written out once more.
fn worth_of(record: &Record, now: Now) -> Worth {
    let config = config();
    let clocks = Clocks {
        half_open_after_ns: config.half_open_after_ns,
        expire_after_ns: config.expire_after_ns,
        udp_idle_jiffies: config.udp_idle_jiffies,
        idle_after_jiffies: config.idle_after_jiffies,
    };
    if record.expired(now, &clocks) { Worth::Expired } else { Worth::of(record.state) }
}

/// Brings a flow into one of the states there are.
fn settle(world: &World, flow: u16, kind: u8, at: u64) {
    match kind {
        0 => world.send(at, &tcp(flow, true, ACK, 1, 1)),
        1 => world.send(at, &udp(flow, true)),
        _ => world.send(at, &if kind == 2 { udp(flow, true) } else { tcp(flow, true, SYN, 0, 0) }),
    }
    match kind {
        2 => world.send(at, &udp(flow, false)),
        4 => world.send(at, &tcp(flow, false, RST | ACK, 0, 1)),
        5 | 6 => world.send(at, &tcp(flow, false, SYN | ACK, 10, 1)),
        _ => {}
    }
    if kind == 6 {
        world.send(at, &tcp(flow, true, ACK, 1, 11));
    }
}
