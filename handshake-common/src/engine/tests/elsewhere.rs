//! UDP that is answered from elsewhere, the services of UDP flows, and datagrams at several hook points.

use std::vec::Vec;

use super::{HZ, SECOND, World, udp_packets};
use crate::abi::{Counter, tag};
use crate::books::ServiceRow;
use crate::flow::{Address, Side};
use crate::record::{Detail, Record, State};
use crate::wire::{self, Class, Packet, mark, quote};

const CLIENT: u32 = 0x0a00_0001;
const SERVER: u32 = 0x0a00_0064;
const OTHER: u32 = 0x0a00_0065;
/// 239.255.255.250, SSDP's group.
const GROUP: u32 = 0xefff_fffa;

pub(super) type Peer = (u32, u16);

pub(super) fn datagram(from: Peer, to: Peer) -> Packet {
    Packet {
        source: Address::v4(from.0),
        destination: Address::v4(to.0),
        source_port: from.1,
        destination_port: to.1,
        family: 1,
        protocol: wire::UDP,
        class: Class::Udp as u8,
        ip_length: 100,
        segments: 1,
        ..Packet::default()
    }
}

/// The same over IPv6.
pub(super) fn over_ipv6(packet: Packet) -> Packet {
    let wide = |Address([first, _]): Address| Address([first | 1 << 32, 2 | 3 << 32]);
    Packet { family: 2, source: wide(packet.source), destination: wide(packet.destination), ..packet }
}

/// Address, port, flows and answered flows of each service that has a row, in order.
fn services(world: &World) -> Vec<(u32, u16, u64, u64)> {
    let place = |counter: Counter| counter as usize - Counter::UdpFlows as usize;
    let mut rows: Vec<_> = world
        .tables
        .services
        .iter()
        .filter_map(ServiceRow::read)
        .map(|row| (row.address.number(), row.port, row.gauges[0], row.gauges[place(Counter::UdpAnswered)]))
        .collect();
    rows.sort_unstable();
    rows
}

fn record(world: &World, one: u16, other: u16) -> Record {
    let is_it = |record: &Record| {
        let ports = [record.key.ports >> 16, record.key.ports & 0xffff];
        ports == [one, other].map(u32::from) || ports == [other, one].map(u32::from)
    };
    world.records().into_iter().find(is_it).expect("a record of these ports")
}

fn answer_after(record: &Record) -> u32 {
    match record.detail {
        Detail::Udp(udp) => udp.answer_after,
        Detail::Tcp(_) => panic!("a TCP flow"),
    }
}

const FLOWS: [Counter; 4] =
    [Counter::UdpFlows, Counter::UdpAnswered, Counter::UdpWaiting, Counter::UdpMulticast];

#[test]
fn an_answer_from_another_port_answers_the_request() {
    for convert in [|packet| packet, over_ipv6] {
        let world = World::new(64);
        let send = |at: u64, from, to| world.send(at, &convert(datagram(from, to)));
        let (client, listener, transfer) = ((CLIENT, 40_000), (SERVER, 69), (SERVER, 50_123));
        send(SECOND, client, listener);
        send(SECOND + 640, transfer, client);
        send(SECOND + 700, client, transfer);
        send(SECOND + 800, transfer, client);
        assert_eq!(world.counts(&FLOWS), [2, 2, 0, 0]);
        assert_eq!(world.count(Counter::EnteredUdpAnswered), 2);
        assert_eq!(answer_after(&record(&world, 40_000, 69)), 10);
        let moved = record(&world, 40_000, 50_123);
        assert_eq!((moved.end(Side::Initiator).1, udp_packets(&moved)), (40_000, Some([1, 2])));
        assert_eq!(answer_after(&moved), 0, "its request is another flow's");
        assert_eq!(services(&world), [(SERVER, 69, 2, 2)]);
        world.check_all();
    }
}

#[test]
fn one_port_of_a_client_asks_again_and_is_answered_again() {
    let world = World::new(64);
    let client = (CLIENT, 2_070);
    for transfer in 50_000..50_005 {
        world.send(SECOND, &datagram(client, (SERVER, 69)));
        world.send(SECOND, &datagram((SERVER, transfer), client));
    }
    assert_eq!(world.counts(&FLOWS), [6, 6, 0, 0]);
    assert_eq!(services(&world), [(SERVER, 69, 6, 6)]);
    world.check_all();
}

#[test]
fn hosts_that_a_query_to_a_group_reached_answer_it() {
    let group_address = datagram((CLIENT, 45_000), (GROUP, 1_900));
    let group_frame = Packet { marks: mark::TO_GROUP, ..datagram((CLIENT, 45_000), (0x0a00_00ff, 1_900)) };
    for query in [group_address, group_frame] {
        let world = World::new(64);
        world.send(SECOND, &query);
        assert_eq!(world.counts(&FLOWS), [1, 0, 0, 1]);
        world.send(2 * SECOND, &datagram((SERVER, 1_900), (CLIENT, 45_000)));
        world.send(3 * SECOND, &datagram((OTHER, 33_000), (CLIENT, 45_000)));
        assert_eq!(world.counts(&FLOWS), [3, 3, 0, 0]);
        let group = query.destination.number();
        assert_eq!(record(&world, 45_000, 33_000).end(Side::Initiator).0, Address::v4(CLIENT));
        let mut expected = [(SERVER, 1_900, 1, 1), (OTHER, 1_900, 1, 1), (group, 1_900, 1, 1)];
        expected.sort_unstable();
        assert_eq!(services(&world), expected);
        world.check_all();
    }
}

/// Each row: what an end sends, what comes to it, and whether that is an answer.
#[test]
fn what_answers_and_what_does_not() {
    let rows = [
        ("another port", (CLIENT, 40_000), (SERVER, 69), (SERVER, 50_000), true),
        ("another host", (CLIENT, 40_000), (SERVER, 69), (OTHER, 50_000), false),
        (
            "a name server that asks from port 53 is asked",
            (CLIENT, 53),
            (SERVER, 53),
            (SERVER, 50_000),
            false,
        ),
        ("an answer asks nothing", (SERVER, 53), (CLIENT, 40_000), (CLIENT, 40_001), false),
        ("nor does one from a high port", (SERVER, 51_820), (CLIENT, 40_000), (CLIENT, 40_001), false),
        ("a request to the last port below", (CLIENT, 40_000), (SERVER, 32_767), (SERVER, 50_000), true),
        ("an ephemeral port is not asked", (CLIENT, 40_000), (SERVER, 32_768), (SERVER, 50_000), false),
        ("nor one above the asker's", (CLIENT, 4_500), (SERVER, 4_501), (SERVER, 50_000), false),
        ("a group is asked at any port", (CLIENT, 40_000), (GROUP, 51_000), (OTHER, 50_000), true),
        ("a device that announces itself is asked", (CLIENT, 5_353), (GROUP, 5_353), (OTHER, 50_000), false),
        ("a device that asks from its own port", (CLIENT, 5_353), (GROUP, 5_353), (OTHER, 5_353), true),
    ];
    for (what, asker, asked, sender, is_answer) in rows {
        let world = World::new(64);
        world.send(SECOND, &datagram(asker, asked));
        world.send(SECOND, &datagram(sender, asker));
        let answered = if is_answer { 2 } else { 0 };
        assert_eq!(world.counts(&[Counter::UdpFlows, Counter::UdpAnswered]), [2, answered], "{what}");
        world.check_all();
    }
}

#[test]
fn to_a_group_nothing_is_an_answer_nor_to_what_was_answered_or_is_idle() {
    let (client, server, other_port) = ((CLIENT, 40_000), (SERVER, 69), (SERVER, 50_000));
    let to_group = Packet { marks: mark::TO_GROUP, ..datagram(other_port, client) };
    let world = World::new(64);
    world.send(SECOND, &datagram(client, server));
    world.send(SECOND, &to_group);
    assert_eq!(world.counts(&FLOWS), [2, 0, 1, 1]);

    let world = World::new(64);
    world.send(SECOND, &datagram(client, server));
    world.send(SECOND, &datagram(server, client));
    world.send(SECOND, &datagram(other_port, client));
    assert_eq!(world.counts(&FLOWS), [2, 1, 1, 0]);

    let world = World::new(64);
    world.send(SECOND, &datagram(client, server));
    world.send(62 * SECOND, &datagram(other_port, client));
    assert_eq!(world.counts(&FLOWS), [2, 0, 2, 0]);
    world.check_all();
}

/// Twice as many clients as words: an answer is tied to its own request, or to none.
#[test]
fn clients_of_one_word_are_not_mistaken_for_each_other() {
    let world = World::new(1 << 17);
    let clients = 30_000_u32;
    let client = |number: u32| (0x0b00_0000 + number * 7, 40_000);
    for number in 0..clients {
        world.send(SECOND, &datagram(client(number), (SERVER, 69)));
    }
    for number in 0..clients {
        world.send(SECOND, &datagram((SERVER, 50_000), client(number)));
    }
    let [flows, answered] = world.counts(&[Counter::UdpFlows, Counter::UdpAnswered]);
    assert_eq!(flows, u64::from(2 * clients));
    assert!(answered % 2 == 0 && answered > u64::from(clients) / 3, "{answered}");
    for record in world.records() {
        let is_request = record.end(Side::Responder).1 == 69;
        let answers = udp_packets(&record).map_or(0, |[_, answers]| answers);
        assert!(record.state != State::UdpAnswered || (answers == 1) != is_request, "{record:?}");
    }
    world.check();
}

/// Neither of an answer whose request came before the start, nor of a flow that was idle.
#[test]
fn a_clients_ephemeral_port_is_no_service() {
    let rows = [
        ("an answer", (SERVER, 53), (CLIENT, 40_000), Some((SERVER, 53))),
        ("of two ports either may be", (SERVER, 4_500), (CLIENT, 40_000), None),
        ("a request to a high port", (CLIENT, 40_000), (SERVER, 51_820), Some((SERVER, 51_820))),
        ("a request", (CLIENT, 40_000), (SERVER, 4_500), Some((SERVER, 4_500))),
        ("two low ports", (CLIENT, 123), (SERVER, 4_500), Some((SERVER, 4_500))),
    ];
    for (what, from, to, service) in rows {
        let world = World::new(64);
        world.send(SECOND, &datagram(from, to));
        let expected = |answered| service.map(|(address, port)| (address, port, 1, answered));
        assert_eq!(services(&world), Vec::from_iter(expected(0)), "{what}");
        world.send(SECOND, &datagram(to, from));
        assert_eq!(services(&world), Vec::from_iter(expected(1)), "{what}, answered");
        world.check_all();
        // The same after idle time, in the same slot.
        world.send(100 * SECOND, &datagram(from, to));
        world.check_all();
    }
}

/// The rows add up to the totals also where such flows are evicted.
#[test]
fn evicted_flows_leave_the_row_that_they_came_into() {
    let world = World::new(4);
    for port in 0..200 {
        let client = (CLIENT, 40_000 + port);
        world.send(SECOND, &datagram(client, (SERVER, 69)));
        world.send(SECOND, &datagram((SERVER, 50_000 + port), client));
        world.send(SECOND, &datagram((OTHER, 53), (CLIENT, 50_000 + port)));
        world.send(SECOND, &datagram((OTHER, 4_500), (CLIENT, 50_000 + port)));
        world.check_all();
    }
    assert!(world.count(Counter::UdpEvicted) > 0);
}

/// An attempt takes the place of the oldest of four answered flows, which answers a request of another flow.
#[test]
fn an_evicted_answer_leaves_the_row_of_its_request() {
    let world = World::new(4);
    let clients = [(CLIENT, 40_000), (CLIENT, 40_001)];
    for client in clients {
        world.send(SECOND, &datagram(client, (SERVER, 69)));
        world.send(SECOND, &datagram((SERVER, 50_000), client));
    }
    for client in clients {
        world.send(2 * SECOND, &datagram(client, (SERVER, 69)));
    }
    assert_eq!(services(&world), [(SERVER, 69, 4, 4)]);
    world.send(2 * SECOND, &super::tcp(0, true, wire::flag::SYN, 0, 0));
    assert_eq!(world.count(Counter::UdpEvicted), 1);
    assert!(services(&world).contains(&(SERVER, 69, 4, 3)), "{:?}", services(&world));
    world.check_all();
}

#[test]
fn a_flow_that_takes_another_path_counts_there() {
    let jiffy = SECOND / u64::from(HZ);
    let world = World::new(64);
    let at = |time: u64, point: u8| {
        world.send(time, &Packet { point, ..datagram((CLIENT, 40_000), (SERVER, 53)) })
    };
    at(SECOND, 2);
    // A router's other interface, whose packets come later and later, but count as none.
    at(SECOND + SECOND / 10, 4);
    assert_eq!(udp_packets(&world.records()[0]), Some([1, 0]));
    at(SECOND + SECOND / 10 + jiffy, 4);
    assert_eq!(udp_packets(&world.records()[0]), Some([2, 0]), "past 100 ms after the latest that counted");
    at(SECOND + SECOND / 10 + jiffy, 4);
    at(SECOND + SECOND / 10 + jiffy, 2);
    assert_eq!(udp_packets(&world.records()[0]), Some([3, 0]), "the first path repeats now");
    assert_eq!(world.count(Counter::UdpPackets), 3);
    world.check_all();
}

/// A bond whose slaves are watched apart: what goes over either counts.
#[test]
fn datagrams_over_two_interfaces_in_turn_all_count() {
    let world = World::new(64);
    for number in 0..10_u8 {
        let time = SECOND + u64::from(number) * SECOND / 5;
        world.send(time, &Packet { point: number % 2 * 2, ..datagram((CLIENT, 40_000), (SERVER, 53)) });
    }
    assert_eq!(udp_packets(&world.records()[0]), Some([10, 0]));
    assert_eq!(world.count(Counter::UdpPackets), 10);
}

#[test]
fn acks_over_another_interface_count_there() {
    let world = World::new(64);
    world.handshake(0, 10);
    let acks = || super::tcp_of(&world.records()[0]).ack;
    let before = acks();
    let at = |time: u64, point: u8| {
        world.send(time, &Packet { point, ..super::tcp(0, true, wire::flag::ACK, 1, 11) });
    };
    at(SECOND + 50_000_000, 2);
    assert_eq!(acks(), before, "a repeat");
    at(2 * SECOND, 2);
    assert_eq!(acks(), before + 1, "another path");
    at(2 * SECOND, 0);
    assert_eq!(acks(), before + 1, "its repeat at the first");
    at(3 * SECOND, 0);
    assert_eq!(acks(), before + 2, "and back");
    assert_eq!(world.records()[0].flags & tag::RESET, 0);
    world.check_all();
}

#[test]
fn time_that_runs_backwards_gives_no_answer_time() {
    let world = World::new(64);
    let (client, server) = ((CLIENT, 40_000), (SERVER, 53));
    world.send(2 * SECOND, &datagram(client, server));
    world.send(SECOND, &datagram(server, client));
    assert_eq!(world.counts(&FLOWS), [1, 1, 0, 0]);
    assert_eq!(answer_after(&world.records()[0]), 0);
    let world = World::new(64);
    world.send(2 * SECOND, &datagram(client, (SERVER, 69)));
    world.send(SECOND, &datagram((SERVER, 50_000), client));
    assert_eq!(answer_after(&record(&world, 40_000, 69)), 0);
}

/// Who sends an ICMP error is kept in either table and for both protocols, until the flow is taken up again.
#[test]
fn who_made_a_flow_unreachable_is_kept() {
    let wide = Address::v6([0x2001_0db8, 0, 0, 9]);
    let v4 = datagram((CLIENT, 40_000), (SERVER, 53));
    let rows = [
        (v4, Address::v4(0xcb00_7109)),
        (over_ipv6(v4), wide),
        (super::tcp(0, true, wire::flag::SYN, 0, 0), Address::v4(0xcb00_7109)),
        (super::tcp(3, true, wire::flag::SYN, 0, 0), wide),
    ];
    for (packet, reporter) in rows {
        let world = World::new(64);
        world.send(SECOND, &packet);
        assert_eq!(world.records()[0].reporter(), None);
        let mut error = super::icmp(packet, quote::UNREACHABLE);
        for (second, address) in [(2, reporter), (3, Address([1; 2]))] {
            error.reporter = address;
            world.send(second * SECOND, &error);
        }
        assert_eq!(world.records()[0].reporter(), Some(reporter), "the first error ended it");
        if packet.protocol == wire::UDP {
            let back = Packet {
                source: packet.destination,
                destination: packet.source,
                source_port: packet.destination_port,
                destination_port: packet.source_port,
                ..packet
            };
            world.send(SECOND + 640, &back);
            assert_eq!(answer_after(&world.records()[0]), 10);
        } else {
            world.send(4 * SECOND, &packet);
        }
        assert_eq!(world.records()[0].reporter(), None, "taken up again");
        world.check_all();
    }
}
