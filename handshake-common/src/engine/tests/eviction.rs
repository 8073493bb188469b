//! Who goes when a set is full: the least worth, never a better one than the newcomer.

use proptest::prelude::*;

use super::*;
use crate::abi::WAYS;
use crate::flow::{Family, FlowKey};
use crate::record::Clocks;
use crate::table::Worth;

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    /// Eight flows fill two sets; one more comes. At most one record goes, the oldest of the least worth.
    #[test]
    fn a_newcomer_takes_the_place_of_the_least_worth(
        kinds in proptest::collection::vec((0..7_u8, 0..200_u64), 8),
        newcomer in 0..4_u8,
    ) {
        let world = World::new(4);
        for (flow, (kind, at)) in (0_u16..).zip(&kinds) {
            settle(&world, flow * 4, *kind, *at * SECOND / 2);
        }
        let now = 100 * SECOND;
        let before = world.records();
        let packet = match newcomer {
            0 => tcp(400, true, SYN, 0, 0),
            1 => udp(400, true),
            2 => tcp(400, true, ACK, 1, 1),
            _ => tcp(400, false, SYN | ACK, 1, 1),
        };
        let worth = [Worth::HalfOpenNoAck, Worth::UdpUnanswered, Worth::Midstream, Worth::Midstream];
        world.send(now, &packet);
        world.check_all();
        expect_least_worth_gone(&world, &before, worth[usize::from(newcomer)], time(now));
    }
}

/// A flood of one kind leaves better kinds alone, and what got no record is counted.
#[test]
fn a_flood_of_syns_pushes_out_no_completed_connection() {
    let world = World::new(64);
    for flow in (0..64).map(|n| n * 4) {
        world.handshake(flow, 10);
    }
    let completed = |world: &World| world.records().iter().filter(|r| r.state == State::Established).count();
    let kept = completed(&world);
    assert!(kept > 50, "{kept} of 64 found a place");
    for flow in (100..2_000).map(|n| n * 4) {
        world.send(2 * SECOND, &tcp(flow, true, SYN, 0, 0));
    }
    assert_eq!(completed(&world), kept);
    let tracked = world.count(Counter::Attempts) - 64 + world.count(Counter::Untracked);
    assert!(tracked >= 1_900 && world.count(Counter::Evicted) + world.count(Counter::Untracked) > 1_000);
    world.check_all();
}

/// Two choices: the newcomer goes where more slots are free, even when the other set has room as well.
#[test]
fn a_newcomer_goes_to_the_emptier_set() {
    let mut tried = 0;
    for flow in (0..64).map(|n| n * 4) {
        let packet = tcp(flow, true, SYN, 0, 0);
        let ends = [(&packet.source, packet.source_port), (&packet.destination, packet.destination_port)];
        let key = FlowKey::of(ends[0], ends[1], Family::V4, false).0;
        let sets =
            config().factors.map(|f| (table::set_of(table::hash(&key, Family::V4, &f), 15) * WAYS) as usize);
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
    let after = world.records();
    let gone: Vec<&Record> = before.iter().filter(|r| !after.iter().any(|a| a.key == r.key)).collect();
    let came = after.iter().any(|a| !before.iter().any(|r| r.key == a.key));
    assert_eq!(before.len() + usize::from(came), after.len() + gone.len());
    let rank = |r: &Record| (worth_of(r, now), r.last_jiffies.wrapping_sub(now.jiffies).cast_signed());
    let least = before.iter().map(rank).min().expect("a full set");
    if before.len() < 4 {
        assert!(came && gone.is_empty(), "a free slot is taken first");
    } else if least.0 <= newcomer {
        assert!(came && gone.len() == 1, "{least:?} makes room for {newcomer:?}");
        assert_eq!(rank(gone[0]), least, "the oldest of the least worth");
    } else {
        assert!(!came && gone.is_empty(), "{least:?} stays before {newcomer:?}");
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
