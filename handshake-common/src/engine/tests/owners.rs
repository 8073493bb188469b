//! Whose an attempt is, and what the rows of the workloads count.

use super::*;
use crate::abi::{ROWS, WORKLOAD, group_of_address};
use crate::flow::Side;

/// The groups of a client and of a server.
const CLIENT: u64 = 7;
const SERVER: u64 = 1 << 40 | 8;

/// Each end's socket is this host's, as between two containers.
fn both(packet: &Packet) -> u64 {
    if packet.source_port == 80 { SERVER } else { CLIENT }
}

/// What is counted for a group on one side of its attempts.
fn row_of(world: &World, group: u64, side: Side) -> Option<[i64; 3]> {
    let rows = world.tables.services[SERVICES as usize..].iter();
    let is_it = |row: &&ServiceRow| {
        row.read().is_some_and(|row| {
            (row.protocol, group_of_address(row.address), row.port) == (WORKLOAD, group, side as u16)
        })
    };
    let count = |row: &ServiceRow, counter: Counter| row.count(counter as usize);
    rows.filter(is_it)
        .map(|row| [Counter::Attempts, Counter::Completed, Counter::OpenNoAck].map(|c| count(row, c)))
        .next()
}

fn ids(world: &World) -> Vec<[u64; 2]> {
    world.records().iter().map(|record| record.control_groups.ids).collect()
}

#[test]
fn each_end_of_a_handshake_is_its_sockets() {
    let world = World { group_of: both, ..World::new(64) };
    for flow in [0, 3] {
        world.handshake(flow, 10);
    }
    world.send(2 * SECOND, &tcp(1, true, SYN, 0, 0));
    world.send(2 * SECOND, &tcp(1, false, SYN | ACK, 10, 1));
    assert_eq!(ids(&world), [[CLIENT, SERVER]; 3]);
    assert_eq!(row_of(&world, CLIENT, Side::Initiator), Some([3, 2, 1]));
    assert_eq!(row_of(&world, SERVER, Side::Responder), Some([3, 2, 1]));
    assert_eq!(row_of(&world, CLIENT, Side::Responder), None);
    let events = world.events.borrow();
    assert!(events.iter().all(|event| event.control_groups.ids == [CLIENT, SERVER]), "{events:?}");
    drop(events);
    world.check_all();
}

/// SYN cookies: no socket sends the SYN+ACK. And a client elsewhere.
#[test]
fn an_end_without_a_socket_has_no_owner() {
    for (group_of, expected) in [
        (both as fn(&Packet) -> u64, [CLIENT, SERVER]),
        (|packet| if packet.source_port == 80 { 0 } else { CLIENT }, [CLIENT, 0]),
        (|packet| if packet.source_port == 80 { SERVER } else { 0 }, [0, SERVER]),
        (|_| 0, [0, 0]),
    ] {
        let world = World { group_of, ..World::new(64) };
        world.handshake(0, 10);
        assert_eq!(ids(&world), [expected]);
        world.check_all();
    }
}

/// The next attempt between the same ends, and the next one in the slot.
#[test]
fn an_attempt_never_has_the_owners_of_the_one_before() {
    let mut world = World { group_of: both, ..World::new(4) };
    world.handshake(0, 10);
    world.group_of = |_| 0;
    world.send(4_000 * SECOND, &tcp(0, true, SYN, 5_000, 0));
    assert_eq!(ids(&world), [[0, 0]], "the same ends");
    world.group_of = both;
    world.send(4_001 * SECOND, &tcp(0, false, SYN | ACK, 20, 5_001));
    assert_eq!(ids(&world), [[0, SERVER]], "one is known");
    (1..5).for_each(|flow| world.send(4_002 * SECOND, &tcp(4 * flow, true, SYN, 0, 0)));
    world.group_of = |_| 0;
    (5..99).for_each(|flow| world.send(4_003 * SECOND, &tcp(4 * flow, true, SYN, 0, 0)));
    assert_eq!(ids(&world), [[0, SERVER], [0, 0], [0, 0], [0, 0]], "one was answered and stays");
    assert_eq!(row_of(&world, CLIENT, Side::Initiator), Some([5, 1, 0]));
    world.check_all();
}

/// A socket of this host sends a SYN with another J, and an answer to no SYN, between two other hosts.
#[test]
fn a_forger_on_this_host_owns_no_end() {
    let mut world = World::new(64);
    let forge = |world: &mut World, packet: Packet| {
        world.group_of = |_| SERVER;
        world.send(SECOND + 10, &packet);
    };
    world.group_of = |_| 0;
    world.send(SECOND, &tcp(0, true, SYN, 0, 0));
    world.send(SECOND + 1, &tcp(0, false, SYN | ACK, 10, 1));
    forge(&mut world, tcp(0, true, SYN, 7_000_000, 0));
    forge(&mut world, tcp(0, false, SYN | ACK, 99, 500));
    assert_eq!(ids(&world), [[0, 0]]);
    world.check_all();
}

/// A process that is moved to another group between two of its SYNs.
#[test]
fn the_first_group_of_an_end_stays() {
    let mut world = World { group_of: both, ..World::new(64) };
    world.send(SECOND, &tcp(0, true, SYN, 0, 0));
    world.group_of = |_| 99;
    world.send(2 * SECOND, &tcp(0, true, SYN, 0, 0));
    assert_eq!(ids(&world), [[CLIENT, 0]]);
    assert_eq!(row_of(&world, 99, Side::Initiator), None);
    world.check_all();
}

fn makers(world: &World) -> Vec<[Maker; 2]> {
    world.records().iter().map(|record| record.makers.ends).collect()
}

/// The process of each end, with its group and without; and none of the attempt before, nor of the one before in
/// the slot.
#[test]
fn each_end_has_the_maker_of_its_socket() {
    let of = |packet: &Packet| if packet.source_port == 80 { 8 } else { 70_000 };
    for group_of in [both as fn(&Packet) -> u64, |_| 0] {
        let mut world = World { group_of, maker_of: of, ..World::new(4) };
        world.handshake(0, 10);
        assert_eq!(makers(&world), [[maker(70_000), maker(8)]]);
        world.maker_of = |_| 0;
        world.send(4_000 * SECOND, &tcp(0, true, SYN, 5_000, 0));
        assert_eq!(makers(&world), [[maker(0), maker(0)]], "the same ends");
        world.maker_of = of;
        world.send(4_001 * SECOND, &tcp(0, false, SYN | ACK, 20, 5_001));
        assert_eq!(makers(&world), [[maker(0), maker(8)]], "one is known");
        (1..5).for_each(|flow| world.send(4_002 * SECOND, &tcp(4 * flow, true, SYN, 0, 0)));
        world.maker_of = |_| 0;
        world.group_of = |_| 0;
        (5..99).for_each(|flow| world.send(4_003 * SECOND, &tcp(4 * flow, true, SYN, 0, 0)));
        assert_eq!(makers(&world)[1..], [[maker(0); 2]; 3]);
        world.check_all();
    }
}

/// Another process that has the socket by now, as after fork.
#[test]
fn the_first_maker_of_an_end_stays() {
    let mut world = World { maker_of: |_| 7, ..World::new(64) };
    world.send(SECOND, &tcp(0, true, SYN, 0, 0));
    world.maker_of = |_| 99;
    world.send(2 * SECOND, &tcp(0, true, SYN, 0, 0));
    assert_eq!(makers(&world), [[maker(7), maker(0)]]);
    world.check_all();
}

/// A packet that is no SYN or SYN+ACK, a record that is no attempt's, and an error about a packet of this host.
#[test]
fn only_what_opens_an_attempt_is_attributed() {
    let world = World { group_of: |_| CLIENT, ..World::new(64) };
    world.send(SECOND, &tcp(0, false, SYN | ACK, 10, 1));
    world.send(SECOND, &tcp(1, true, ACK, 10, 1));
    world.send(SECOND, &udp(2, true));
    assert_eq!(ids(&world), [[0, 0]; 3]);
    world.check_all();
}

/// More groups than rows: the rows with nothing open give way, and what they counted goes to `other`.
#[test]
fn what_many_groups_open_is_counted_once() {
    let world = World { group_of: |packet| u64::from(packet.source_port) % 30_000, ..World::new(64) };
    let attempts = u64::from(ROWS);
    for flow in 0..u16::try_from(ROWS).expect("a few thousand") {
        // One in a thousand stays open.
        let at = SECOND + u64::from(flow) * SECOND / 50;
        world.send(at, &tcp(flow, true, SYN, 0, 0));
        if flow % 1_000 != 0 {
            world.send(at + 1_000, &tcp(flow, false, RST | ACK, 0, 1));
        }
    }
    let rows = &world.tables.services[SERVICES as usize..];
    let counted: i64 = rows.iter().map(|row| row.count(Counter::Attempts as usize)).sum();
    assert_eq!(counted.cast_unsigned(), attempts);
    let other = rows[0].count(Counter::Attempts as usize);
    assert!(other > 0, "some gave way");
    let named = rows[1..].iter().filter_map(ServiceRow::read).count();
    assert!(named > 1_000, "{named} have a row");
    world.check_all();
}
