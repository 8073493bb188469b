//! Tables that keep every record: one moves where a set is full, and all of a table move when it grows.

use super::elsewhere::{Peer, datagram, over_ipv6};
use super::*;
use crate::flow::Family;
use crate::host::{self, HostTables};
use crate::memory::TableFill;

fn keeping(slots: usize) -> World {
    World { fill: Some(Fill::default()), ..World::new(slots) }
}

fn double(world: &mut World) {
    let HostTables { slots4, slots6, clients, .. } = &mut world.tables;
    world.config = Config { mask4: 0, mask6: 0, ..world.config };
    host::double(slots4, &world.config, clients).expect("memory");
    host::double(slots6, &world.config, clients).expect("memory");
}

const SERVER: Peer = (0x0a00_0064, 69);

fn client(n: u16) -> Peer {
    (0x0a00_1000 + u32::from(n), 40_000)
}

fn query(n: u16) -> Packet {
    datagram(client(n), SERVER)
}

/// As it is; `over_ipv6` in the other half of the cases.
fn same(packet: Packet) -> Packet {
    packet
}

#[test]
fn a_table_that_keeps_all_is_filled_by_moving_records() {
    for (convert, family) in [(same as fn(Packet) -> Packet, Family::V4), (over_ipv6, Family::V6)] {
        let (keeping, other) = (keeping(256), World::new(256));
        for world in [&keeping, &other] {
            for flow in 0..208 {
                world.send(SECOND, &convert(query(flow)));
            }
            world.check_all();
        }
        assert_eq!(keeping.count(Counter::EvictedUdp), 0);
        assert_eq!(keeping.records().len(), 208);
        let fill = keeping.fill.as_ref().expect("it keeps all").of(family);
        assert_eq!(fill, TableFill { used: 208, is_crowded: false });
        assert!(other.count(Counter::EvictedUdp) > 0, "moving makes the difference");
    }
}

#[test]
fn a_table_without_a_free_slot_says_so_and_evicts() {
    let world = keeping(8);
    for flow in 0..40 {
        world.send(SECOND, &query(flow));
    }
    let fill = world.fill.as_ref().expect("it keeps all");
    assert_eq!(fill.of(Family::V4), TableFill { used: 8, is_crowded: true });
    assert_eq!(fill.of(Family::V6), TableFill::default());
    assert_eq!(world.count(Counter::EvictedUdp), 32);
    world.check_all();
}

/// Every flow is found again after its record has moved, by its key and by the word of its client.
#[test]
fn a_table_that_grows_keeps_its_flows_and_their_ties() {
    for convert in [same as fn(Packet) -> Packet, over_ipv6] {
        let mut world = keeping(64);
        for n in 0..25_u16 {
            world.send(SECOND, &convert(query(n)));
            world.send(SECOND, &convert(tcp(n, true, SYN, 0, 0)));
        }
        for doublings in 1..=4 {
            double(&mut world);
            world.check_all();
            assert_eq!(world.records().len(), 50, "{doublings}");
        }
        for n in 0..25_u16 {
            world.send(SECOND + 1_000, &convert(tcp(n, false, SYN | ACK, 10, 1)));
            world.send(SECOND + 2_000, &convert(tcp(n, true, ACK, 1, 11)));
            world.send(SECOND + 3_000, &convert(datagram((SERVER.0, 50_123), client(n))));
        }
        assert_eq!(world.counts(&[Counter::Attempts, Counter::Completed]), [25, 25]);
        assert_eq!(world.counts(&[Counter::UdpFlows, Counter::UdpAnswered]), [50, 50]);
        assert_eq!(world.counts(&[Counter::OrphanSynAck, Counter::Midstream]), [0, 0]);
        world.check_all();
    }
}
