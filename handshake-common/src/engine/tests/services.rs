//! Rows of services: who gets one when all are taken, and whose goes.

use super::*;
use crate::abi::{SERVICES, Service};

/// Services that leave no row free where another looks for one.
const MANY: u16 = 12_000;
const HALF: usize = SERVICES as usize / 2;
/// The service that comes later: a port that none of the many has, of the host that all of them are on.
const OWN: u16 = 20_443;
const HOST: Address = Address::v4(0x0a00_0100);

/// A scan of refused ports. The service that is used a tenth of a second after it has a row from its first
/// attempt on, though all of its attempts come at once.
#[test]
fn a_scan_of_ports_hides_no_service() {
    for (pause, expected) in [(SECOND / 10, Some([3, 3])), (SECOND / 20, None)] {
        let world = World::new(64);
        (0..MANY).for_each(|port| refuse(&world, SECOND, port));
        assert!(row_of(&world, OWN).is_none() && named(&world) > HALF - 16, "{} rows", named(&world));
        (1..4).for_each(|flow| complete(&world, SECOND + pause, flow));
        assert_eq!(tcp_counts(&world, OWN), expected, "no row that was just used goes");
        assert_eq!(world.count(Counter::ServicesEvicted), u64::from(expected.is_some()));
        world.check_all();
    }
}

/// What attempts without a proof do: they get a row of nothing, and no row that something is open in.
#[test]
fn a_service_that_never_answers_gets_a_row_of_nothing() {
    let world = World::new(64);
    (0..MANY).for_each(|port| refuse(&world, SECOND, port));
    for (at, flow) in [(20, 1), (29, 2), (31, 3), (32, 4)] {
        world.send(at * SECOND / 10, &to(OWN, tcp(flow * 4, true, SYN, 0, 0)));
    }
    assert_eq!(tcp_counts(&world, OWN), Some([4, 0]));
    world.check_all();
}

#[test]
fn a_row_with_something_open_stays() {
    let world = World::new(65_536);
    (0..MANY).for_each(|port| world.send(SECOND, &to(port, tcp(port / 4 * 4, true, SYN, 0, 0))));
    for tenths in [20, 31, 42] {
        complete(&world, tenths * SECOND / 10, tenths.try_into().expect("small"));
    }
    assert!(row_of(&world, OWN).is_none());
    assert_eq!(world.count(Counter::ServicesEvicted), 0);
    world.check_all();
}

/// Whatever comes for a row keeps it.
#[test]
fn a_row_that_is_used_meanwhile_stays() {
    let world = World::new(64);
    (0..MANY).for_each(|port| refuse(&world, SECOND, port));
    (0..MANY).for_each(|port| refuse(&world, 3 * SECOND + SECOND / 20, port));
    complete(&world, 3 * SECOND + SECOND / 10, 2);
    assert!(row_of(&world, OWN).is_none(), "every row that it may have was used just now");
    assert_eq!(world.count(Counter::ServicesEvicted), 0);
    complete(&world, 4 * SECOND + SECOND / 5, 3);
    assert_eq!(tcp_counts(&world, OWN), Some([1, 1]), "the first stays in `other`");
    world.check_all();
}

/// A crawler's far services have completed. One of this host goes before them, another far one does not.
#[test]
fn a_service_of_this_host_goes_before_far_ones() {
    for (own, expected) in [(Vec::new(), None), (std::vec![HOST], Some([3, 3]))] {
        let mut world = World::new(64);
        (0..MANY).for_each(|far| handshake(&world, SECOND, |packet| beyond(far, packet)));
        world.own = own;
        complete(&world, 2 * SECOND, 1);
        complete(&world, 3 * SECOND + SECOND / 10, 2);
        complete(&world, 4 * SECOND, 3);
        assert_eq!(tcp_counts(&world, OWN), expected);
        world.check_all();
    }
}

/// The pair of counts of the attempt that brings a service its row moves there when it completes.
#[test]
fn an_attempt_that_completes_in_other_moves_to_the_row() {
    let mut world = World::new(64);
    (0..MANY).for_each(|far| handshake(&world, SECOND, |packet| beyond(far, packet)));
    world.own = std::vec![HOST];
    let other = |world: &World| world.tables.services[0].copy().gauges[0];
    world.send(4 * SECOND, &to(OWN, tcp(8, true, SYN, 0, 0)));
    let before = other(&world);
    world.send(4 * SECOND, &to(OWN, tcp(8, false, SYN | ACK, 10, 1)));
    assert_eq!((tcp_counts(&world, OWN), other(&world)), (None, before));
    world.send(4 * SECOND, &to(OWN, tcp(8, true, ACK, 1, 11)));
    assert_eq!(tcp_counts(&world, OWN), Some([1, 1]));
    // What the other row had counted came to `other`, and this pair left it: 1 − 1.
    assert_eq!(other(&world), before);
    let record =
        world.records().into_iter().find(|r| r.key.ports & 0xffff == u32::from(OWN) && r.service != 0);
    assert!(record.is_some_and(|r| r.state == State::Established), "the record has the row's number");
    world.send(5 * SECOND, &to(OWN, tcp(8, false, RST | ACK, 11, 1)));
    world.check_all();
}

/// A row that is given away begins without a completion: those of its service are among those of `other`, and the
/// one that brings the new service its row comes with it.
#[test]
fn the_times_of_a_service_go_with_its_row() {
    let mut world = World::new(64);
    (0..MANY).for_each(|far| {
        world.send(SECOND, &beyond(far, tcp(0, true, SYN, 0, 0)));
        world.send(SECOND, &beyond(far, tcp(0, false, SYN | ACK, 10, 1)));
        world.send(SECOND + 3_000_000, &beyond(far, tcp(0, true, ACK, 1, 11)));
    });
    world.own = std::vec![HOST];
    let (first, second) = (place_of(3_000_000), place_of(40_000_000));
    let in_other = |place: usize| world.tables.connects[0][place].load();
    let before = [in_other(first), in_other(second)];
    assert_eq!(before[1], 0);
    for (flow, at) in [(2, 4 * SECOND), (3, 5 * SECOND)] {
        world.send(at, &to(OWN, tcp(flow * 4, true, SYN, 0, 0)));
        world.send(at, &to(OWN, tcp(flow * 4, false, SYN | ACK, 10, 1)));
        world.send(at + 40_000_000, &to(OWN, tcp(flow * 4, true, ACK, 1, 11)));
    }
    let (row, _) = row_of(&world, OWN).expect("a row by now");
    let own: Vec<(usize, u64)> =
        world.tables.connects[row].iter().map(Shared64::load).enumerate().filter(|(_, n)| *n != 0).collect();
    assert_eq!(own, [(second, 2)], "none of the service before");
    assert_eq!([in_other(first), in_other(second)], [before[0] + 1, 0]);
    world.check_all();
}

/// A completion without a known time moves too.
#[test]
fn a_completion_without_a_time_goes_with_its_row() {
    let mut world = World::new(64);
    (0..MANY).for_each(|far| handshake(&world, SECOND, |packet| beyond(far, packet)));
    world.own = std::vec![HOST];
    let untimed = |world: &World, row: usize| world.tables.connects[row][UNTIMED_CONNECTS].load();
    let syn = Packet { marks: mark::UNTIMED, ..tcp(8, true, SYN, 0, 0) };
    world.send(4 * SECOND, &to(OWN, syn));
    world.send(4 * SECOND, &to(OWN, tcp(8, false, SYN | ACK, 10, 1)));
    world.send(4 * SECOND, &to(OWN, tcp(8, true, ACK, 1, 11)));
    let (row, _) = row_of(&world, OWN).expect("a row by now");
    assert_eq!((untimed(&world, row), untimed(&world, 0)), (1, 0));
    assert_eq!(world.count(Counter::ExcludedConnect), 1);
    world.check_all();
}

/// Its silence is counted where its attempt is.
#[test]
fn a_silent_server_is_counted_in_its_row() {
    let world = World::new(64);
    handshake(&world, SECOND, |packet| to(OWN, packet));
    let sent = |client, seq, ack, payload| to(OWN, Packet { payload, ..tcp(0, client, ACK, seq, ack) });
    world.send(2 * SECOND, &sent(true, 1, 11, 100));
    world.send(2 * SECOND + SECOND / 10, &sent(false, 11, 101, 0));
    world.send(20 * SECOND, &sent(false, 11, 101, 50));
    let (_, row) = row_of(&world, OWN).expect("a row");
    assert_eq!((row.gauges[SERVICE_WAS_SILENT], world.count(Counter::WasSilent)), (1, 1));
    world.check_all();
}

/// A flow whose row went to another service changes nothing there.
#[test]
fn a_flow_that_outlived_its_row_is_counted_in_other() {
    let world = World::new(65_536);
    (0..MANY).for_each(|port| refuse(&world, SECOND, port));
    let rows: Vec<Option<Service>> = world.tables.services.iter().map(ServiceRow::read).collect();
    complete(&world, 2 * SECOND, 1);
    complete(&world, 3 * SECOND + SECOND / 10, 2);
    let (row, _) = row_of(&world, OWN).expect("a row by now");
    let lost = rows[row].expect("it was another's").port;
    let before = world.tables.services[row].copy().gauges;
    // The refused attempt was not refused after all: its SYN is repeated, and answered.
    let flow = lost / 4 * 4;
    world.send(4 * SECOND, &to(lost, tcp(flow, true, SYN, 0, 0)));
    world.send(4 * SECOND, &to(lost, tcp(flow, false, SYN | ACK, 10, 1)));
    world.send(4 * SECOND, &to(lost, tcp(flow, true, ACK, 1, 11)));
    assert_eq!(world.count(Counter::Completed), 3, "it was taken up again");
    assert_eq!(world.tables.services[row].copy().gauges, before);
    assert!(world.count(Counter::Revised) >= 1);
    world.check_all();
}

#[test]
fn an_answered_udp_service_gets_the_row_of_an_unanswered_one() {
    let world = World::new(64);
    (0..MANY).for_each(|port| world.send(SECOND, &to(port, udp(port / 4 * 4, true))));
    for (at, flow) in [(20, 1), (31, 2), (40, 3)] {
        world.send(at * SECOND / 10, &to(OWN, udp(flow * 4, true)));
        world.send(at * SECOND / 10, &to(OWN, udp(flow * 4, false)));
    }
    let rows = world.tables.services[HALF..].iter().filter_map(ServiceRow::read);
    let own: Vec<[u64; 2]> =
        rows.filter(|row| row.port == OWN).map(|row| [row.gauges[0], row.gauges[1]]).collect();
    assert_eq!(own, [[3, 3]]);
    assert_eq!(world.count(Counter::ServicesEvicted), 1);
    world.check_all();
}

// ---- helpers ----

/// The same packet with another port at the server's end.
fn to(port: u16, mut packet: Packet) -> Packet {
    if packet.destination_port == 80 {
        packet.destination_port = port
    } else {
        packet.source_port = port
    }
    packet
}

/// The same packet with another server.
fn beyond(number: u16, mut packet: Packet) -> Packet {
    let far = Address::v4(0x0b00_0000 + u32::from(number));
    if packet.destination_port == 80 {
        packet.destination = far
    } else {
        packet.source = far
    }
    packet
}

fn refuse(world: &World, at: u64, port: u16) {
    let flow = port / 4 * 4;
    world.send(at, &to(port, tcp(flow, true, SYN, 0, 0)));
    world.send(at, &to(port, tcp(flow, false, RST | ACK, 0, 1)));
}

fn handshake(world: &World, at: u64, change: impl Fn(Packet) -> Packet) {
    world.send(at, &change(tcp(0, true, SYN, 0, 0)));
    world.send(at, &change(tcp(0, false, SYN | ACK, 10, 1)));
    world.send(at, &change(tcp(0, true, ACK, 1, 11)));
}

/// Where a completion after so many ns is counted.
fn place_of(ns: u64) -> usize {
    latency::connect_place(latency::bucket(ns)) as usize
}

/// A handshake with the service that comes later.
fn complete(world: &World, at: u64, flow: u16) {
    world.send(at, &to(OWN, tcp(flow * 4, true, SYN, 0, 0)));
    world.send(at, &to(OWN, tcp(flow * 4, false, SYN | ACK, 10, 1)));
    world.send(at, &to(OWN, tcp(flow * 4, true, ACK, 1, 11)));
}

/// The TCP row of a port, and its number. There is one at most.
fn row_of(world: &World, port: u16) -> Option<(usize, Service)> {
    let rows = world.tables.services[..HALF].iter().enumerate();
    let rows: Vec<_> =
        rows.filter_map(|(i, row)| Some((i, row.read()?))).filter(|(_, row)| row.port == port).collect();
    assert!(rows.len() <= 1, "{} rows of one service", rows.len());
    rows.into_iter().next()
}

/// Attempts and completed attempts in the row of a port.
fn tcp_counts(world: &World, port: u16) -> Option<[u64; 2]> {
    row_of(world, port).map(|(_, row)| [row.gauges[0], row.gauges[1]])
}

/// The number of TCP rows that a service has.
fn named(world: &World) -> usize {
    world.tables.services[..HALF].iter().filter_map(ServiceRow::read).count()
}
