//! The engine on the host: named cases here, random streams and full tables in the modules below.

mod elsewhere;
mod eviction;
mod growth;
mod owners;
mod services;
mod straight;
mod streams;

use core::cell::RefCell;
use std::vec::Vec;

use crate::abi::{
    COMMAND, CONNECT_WORDS, Config, Counter, Event, HASH_WORDS, MAKER_WORDS, MAX_NETS, Maker, Net,
    SERVICE_GAUGES, SERVICE_WAS_SILENT, SERVICES, TcpRecord, UNTIMED_CONNECTS, option, tag,
};
use crate::books::ServiceRow;
use crate::flow::Address;
use crate::host::HostTables;
use crate::latency;
use crate::memory::{Fill, Memory, PORT_WORDS, Sender, Storage};
use crate::record::{Detail, Now, Record, State};
use crate::shared::Shared64;
use crate::table;
use crate::verdict::{Leg, Role};
use crate::wire::flag::{ACK, FIN, RST, SYN};
use crate::wire::{self, Class, Packet, mark, quote};

const SECOND: u64 = 1_000_000_000;
/// Jiffies a second, of the tests' kernel.
const HZ: u32 = 100;

#[test]
fn a_handshake_is_one_completed_attempt() {
    let world = World::new(64);
    world.handshake(0, 10);
    assert_eq!(world.counts(&[Counter::Attempts, Counter::Completed, Counter::OpenNoAck]), [1, 1, 0]);
    let record = world.records()[0];
    assert_eq!((record.state, tcp_of(&record).syn, tcp_of(&record).ack), (State::Established, 1, 1));
}

/// What a router sees: every packet at two hook points.
#[test]
fn repeats_at_another_point_change_no_count() {
    let (once, twice) = (World::new(64), World::new(64));
    twice.repeat.set(2);
    for world in [&once, &twice] {
        world.handshake(0, 10);
        for n in 1..5 {
            world.send(SECOND, &tcp(0, true, ACK, 1 + n, 11));
            world.send(SECOND, &tcp(0, false, ACK, 11, 1 + n));
        }
        world.send(SECOND, &udp(1, true));
        world.send(SECOND, &udp(1, false));
        world.send(SECOND, &udp(1, true));
        world.send(SECOND, &tcp(0, true, FIN | ACK, 9, 11));
    }
    assert_eq!(once.block(), twice.block(), "but for the packet classes");
    let ack = |world: &World| tcp_of(world.records().iter().find(|r| !r.key.udp).expect("a TCP flow")).ack;
    assert_eq!((ack(&once), ack(&twice)), (9, 9));
    let packets = |world: &World| world.records().iter().find_map(udp_packets);
    assert_eq!((packets(&once), packets(&twice)), (Some([2, 1]), Some([2, 1])));
}

/// Of a connection that waits for first bytes only those packets take the lock that may bring one, at one hook
/// point as at two. One that has them only counts.
#[test]
fn packets_that_bring_no_first_byte_only_count() {
    for points in 1..=2 {
        let world = World::new(64);
        world.repeat.set(points);
        world.handshake(0, 10);
        let published = || {
            let tags = world.tables.slots4.iter().map(|slot| table::Slot::tag(slot).load());
            tags.map(|tag| tag >> tag::GENERATION_SHIFT).max()
        };
        let sent = |client, seq, ack, payload| Packet { payload, ..tcp(0, client, ACK, seq, ack) };
        let steps = [
            (0, true, sent(true, 1, 11, 100), "the request"),
            (0, false, sent(true, 101, 11, 100), "more of it, in the same jiffy"),
            (1, true, sent(false, 11, 201, 0), "its acknowledgement"),
            (1, false, sent(false, 11, 201, 0), "the same again"),
            (2, false, sent(true, 201, 11, 0), "an ACK"),
            (50, true, sent(true, 201, 11, 100), "later data"),
            (90, true, sent(false, 11, 301, 50), "the first byte"),
            (91, false, sent(false, 61, 301, 50), "what follows"),
            (92, false, sent(true, 301, 111, 100), "the next request"),
        ];
        for (jiffies, takes_the_lock, packet, what) in steps {
            let before = published();
            world.send(2 * SECOND + jiffies * (SECOND / u64::from(HZ)), &packet);
            assert_eq!(published() != before, takes_the_lock, "{what}, at {points} points");
        }
        let samples = &world.tables.histograms[Leg::AckToFirstByte as usize];
        let samples: u64 = samples.iter().map(Shared64::load).sum();
        assert_eq!((samples, tcp_of(&world.records()[0]).ack), (1, 10), "at {points} points");
        world.check_all();
    }
}

#[test]
fn what_meets_an_expired_attempt_closes_it_and_begins_as_if_alone() {
    let late = 80 * SECOND;
    let cases = [
        (tcp(0, true, SYN, 0, 0), Some(State::SynSent)),
        (tcp(0, false, SYN | ACK, 10, 1), Some(State::OrphanSynAck)),
        (tcp(0, true, ACK, 1, 11), Some(State::Midstream)),
        (tcp(0, true, RST, 1, 0), None),
        (tcp(0, true, FIN | ACK, 1, 11), None),
        (icmp(tcp(0, true, SYN, 0, 0), quote::UNREACHABLE), None),
    ];
    for (packet, expected) in cases {
        let world = World::new(64);
        world.send(SECOND, &tcp(0, true, SYN, 0, 0));
        world.send(late, &packet);
        assert_eq!(world.counts(&[Counter::ExpiredNoSynAck, Counter::OpenNoAck]), [1, 0], "{packet:?}");
        assert_eq!(world.records().first().map(|r| r.state), expected, "{packet:?}");
        let events = world.events.borrow();
        assert_eq!(events.len(), 1);
        assert_eq!(events[0].verdict, Counter::ExpiredNoSynAck as u32);
    }
}

#[test]
fn an_attempt_is_alive_until_t2_after_its_latest_syn() {
    let world = World::new(64);
    world.send(SECOND, &tcp(0, true, SYN, 0, 0));
    world.send(70 * SECOND, &tcp(0, true, SYN, 0, 0));
    world.send(140 * SECOND, &tcp(0, false, SYN | ACK, 10, 1));
    world.send(214 * SECOND, &tcp(0, true, ACK, 1, 11));
    let counts = [Counter::Attempts, Counter::Completed, Counter::Late, Counter::ExpiredNoAck];
    assert_eq!(world.counts(&counts), [1, 1, 1, 0]);
}

#[test]
fn an_idle_connection_counts_as_closed() {
    for (idle, attempts) in [(3_599, 1), (3_602, 2)] {
        let world = World::new(64);
        world.handshake(0, 10);
        world.send(SECOND * (1 + idle), &tcp(0, true, SYN, 0, 0));
        assert_eq!(
            world.counts(&[Counter::Attempts, Counter::Completed]),
            [attempts, 1],
            "idle for {idle} s"
        );
    }
}

#[test]
fn an_answered_syn_of_the_other_end_begins_an_attempt_with_the_ends_exchanged() {
    let world = World::new(64);
    world.handshake(0, 10);
    world.send(2 * SECOND, &tcp(0, false, SYN, 77, 0));
    let counts = [Counter::Attempts, Counter::Superseded, Counter::Completed, Counter::ForeignSyn];
    assert_eq!(world.counts(&counts), [1, 0, 1, 1], "a claim");
    world.send(2 * SECOND, &tcp(0, true, SYN | ACK, 500, 78));
    assert_eq!(world.counts(&counts), [2, 0, 1, 1], "its answer");
    let record = world.records()[0];
    assert_eq!((record.state, record.flags & tag::INITIATOR_HIGH), (State::SynReceived, tag::INITIATOR_HIGH));
    world.send(2 * SECOND, &tcp(0, false, ACK, 78, 501));
    assert_eq!(world.counts(&counts), [2, 0, 2, 1]);
    world.check_all();
    let ports: Vec<u16> =
        world.tables.services.iter().filter_map(ServiceRow::read).map(|row| row.port).collect();
    assert_eq!(ports.len(), 2, "each end is a service: {ports:?}");
}

/// One blind SYN per port makes no real connection vanish.
#[test]
fn strangers_syns_end_no_attempt() {
    let world = World::new(4_096);
    for flow in 0..200 {
        world.send(SECOND, &tcp(flow, true, SYN, 0, 0));
        world.send(SECOND + 1, &tcp(flow, true, SYN, 7_000_000, 0));
        world.send(2 * SECOND, &tcp(flow, false, SYN | ACK, 10, 1));
        world.send(2 * SECOND + 1, &tcp(flow, true, SYN, 9_000_000, 0));
        world.send(2 * SECOND + 2, &tcp(flow, true, ACK, 1, 11));
        world.send(3 * SECOND, &tcp(flow, true, SYN, 8_000_000, 0));
        world.send(3 * SECOND + 1, &tcp(flow, false, ACK, 11, 1));
    }
    let counts = [Counter::Attempts, Counter::Completed, Counter::Superseded, Counter::OpenNoSynAck];
    assert_eq!(world.counts(&counts), [400, 200, 200, 0]);
    assert_eq!(world.counts(&[Counter::Revised, Counter::ForeignSyn]), [200, 400]);
    world.check_all();
}

#[test]
fn an_orphan_becomes_an_attempt_with_its_syn() {
    let world = World::new(64);
    world.send(SECOND, &tcp(0, false, SYN | ACK, 10, 1));
    world.send(SECOND, &tcp(0, true, ACK, 1, 11));
    assert_eq!(world.counts(&[Counter::OrphanSynAck, Counter::Attempts]), [1, 0]);
    world.send(SECOND, &tcp(0, true, SYN, 0, 0));
    assert_eq!(world.counts(&[Counter::OrphanSynAck, Counter::Attempts, Counter::Completed]), [0, 1, 1]);
    world.check();
}

#[test]
fn udp_is_answered_for_ever_and_begins_anew_when_idle() {
    let world = World::new(64);
    world.send(SECOND, &udp(0, true));
    world.send(SECOND, &icmp(udp(0, true), quote::UNREACHABLE));
    assert_eq!(world.counts(&[Counter::UdpWaiting, Counter::UdpUnreachable]), [0, 1]);
    world.send(2 * SECOND, &udp(0, false));
    world.send(3 * SECOND, &icmp(udp(0, true), quote::UNREACHABLE));
    assert_eq!(world.counts(&[Counter::UdpUnreachable, Counter::UdpAnswered]), [0, 1]);
    world.send(64 * SECOND, &udp(0, false));
    assert_eq!(world.counts(&[Counter::UdpFlows, Counter::UdpAnswered, Counter::UdpWaiting]), [2, 1, 1]);
    assert_eq!(world.records()[0].end(crate::flow::Side::Initiator).1, 80, "the other end began this one");
    world.check();
}

#[test]
fn filters_take_either_end_and_count_what_they_leave_out() {
    let mut by_port = World::new(64);
    by_port.config.options |= option::PORTS;
    by_port.tables.ports[80 >> 6] |= 1 << (80 & 63);
    let mut by_net = World::new(64);
    by_net.config.options |= option::NETS;
    by_net.config.nets[0] = Net { address: Address::v4(0x0a00_0100), mask: Address::v4(!0xff), family: 1 };
    for world in [&by_port, &by_net] {
        world.send(SECOND, &tcp(0, true, SYN, 0, 0));
        world.send(SECOND, &tcp(0, false, SYN | ACK, 10, 1));
        world.send(
            SECOND,
            &Packet {
                source_port: 81,
                destination_port: 82,
                source: Address([1; 2]),
                destination: Address([2; 2]),
                ..tcp(9, true, SYN, 0, 0)
            },
        );
        assert_eq!(world.counts(&[Counter::Attempts, Counter::OpenNoAck, Counter::Filtered]), [1, 1, 1]);
    }
}

#[test]
fn a_full_ring_is_counted_and_no_ring_is_silent() {
    let mut world = World::new(64);
    world.room.set(0);
    world.handshake(0, 10);
    assert_eq!(world.counts(&[Counter::Completed, Counter::LostEvents]), [1, 1]);
    world.config.options &= !option::EVENTS;
    world.handshake(1, 10);
    assert_eq!(world.counts(&[Counter::Completed, Counter::LostEvents]), [2, 1]);
}

/// What began while a part of the hooks was on is no attempt, whichever of its segments passed then.
#[test]
fn what_begins_before_the_gate_is_open_is_seen_from_its_middle() {
    let (syn, syn_ack, ack) =
        (tcp(0, true, SYN, 0, 0), tcp(0, false, SYN | ACK, 10, 1), tcp(0, true, ACK, 1, 11));
    let cases: [(&[Packet], &[Packet]); 5] = [
        (&[syn], &[syn_ack, ack]),
        (&[syn_ack], &[ack]),
        (&[syn, syn_ack], &[ack, syn]),
        // The answer was lost, and the SYN comes again.
        (&[syn], &[syn, syn_ack, ack, syn]),
        // The first SYN was unseen.
        (&[syn_ack], &[syn, syn_ack, ack]),
    ];
    for (before, after) in cases {
        let world = World::new(64);
        world.gates.set(0);
        before.iter().for_each(|packet| world.send(SECOND, packet));
        world.gates.set(u8::MAX);
        for (second, packet) in (2..).zip(after) {
            world.send(second * SECOND, packet);
            world.check();
        }
        let counts = [Counter::Attempts, Counter::OrphanSynAck, Counter::Midstream];
        assert_eq!(world.counts(&counts), [0, 0, 1], "{before:?}");
        let records = world.records();
        assert_eq!((records.len(), records[0].state), (1, State::Midstream));
        assert_eq!(records[0].flags & tag::INITIATOR_HIGH, 0, "the client is the initiator: {before:?}");
        world.send(20 * SECOND, &tcp(0, true, SYN, 500, 0));
        world.send(20 * SECOND, &tcp(0, false, SYN | ACK, 900, 501));
        world.send(20 * SECOND, &tcp(0, true, ACK, 501, 901));
        assert_eq!(world.counts(&[Counter::Attempts, Counter::Completed]), [1, 1], "another J: {before:?}");
        world.check_all();
    }
}

/// A SYN that gets no record for another CPU holds its lock word is no attempt either.
#[test]
fn a_contended_syn_before_the_gate_is_open_is_no_attempt() {
    let world = World::new(64);
    world.tables.stripes.iter().for_each(|word| word.store(1));
    for (gates, attempts) in [(0, 0), (u8::MAX, 1)] {
        world.gates.set(gates);
        world.send(SECOND, &tcp(0, true, SYN, 0, 0));
        assert_eq!(world.counts(&[Counter::Attempts, Counter::Untracked]), [attempts, attempts]);
    }
}

#[test]
fn the_gate_is_one_per_interface_and_stops_no_attempt_on_its_way() {
    let world = World::new(64);
    world.gates.set(!1);
    world.send(SECOND, &Packet { point: crate::interface::point(1, true), ..tcp(0, true, SYN, 0, 0) });
    world.send(SECOND, &udp(1, true));
    assert_eq!(world.counts(&[Counter::Attempts, Counter::UdpFlows, Counter::UdpPackets]), [1, 0, 0]);
    world.send(SECOND + 1_000_000, &tcp(0, false, SYN | ACK, 10, 1));
    world.send(SECOND + 2_000_000, &tcp(0, true, ACK, 1, 11));
    assert_eq!(world.counts(&[Counter::Completed, Counter::Midstream]), [1, 0]);
    world.gates.set(u8::MAX);
    world.send(2 * SECOND, &udp(1, false));
    assert_eq!(world.counts(&[Counter::UdpFlows, Counter::UdpPackets]), [1, 1]);
    world.check_all();
}

// ---- helpers ----

/// All the memory of a tracker, and the events it sent.
struct World {
    config: Config,
    tables: HostTables,
    events: RefCell<Vec<Event>>,
    /// Events there is room for.
    room: core::cell::Cell<usize>,
    /// Hook points each packet passes.
    repeat: core::cell::Cell<u8>,
    /// This host's own addresses.
    own: Vec<Address>,
    /// The groups whose gates are open, one bit each.
    gates: core::cell::Cell<u8>,
    /// How full the tables are, where no record may be evicted.
    fill: Option<Fill>,
    /// The control group whose socket sends a packet.
    group_of: fn(&Packet) -> u64,
    /// The number of the process that made the socket.
    maker_of: fn(&Packet) -> u64,
    /// Packets that need no more than the program at a hook does, by class; `None`: there is none.
    at_hook: Option<RefCell<[u64; Class::ALL.len()]>>,
}

impl World {
    /// With `slots` slots a table.
    fn new(slots: usize) -> Self {
        Self {
            config: config(),
            tables: HostTables {
                ports: std::vec![0; PORT_WORDS],
                owners4: no_owners(slots),
                owners6: no_owners(slots),
                makers4: no_makers(slots),
                makers6: no_makers(slots),
                ..HostTables::new(slots, slots)
            },
            events: RefCell::default(),
            room: core::cell::Cell::new(usize::MAX),
            repeat: core::cell::Cell::new(1),
            own: Vec::new(),
            gates: core::cell::Cell::new(u8::MAX),
            fill: None,
            group_of: |_| 0,
            maker_of: |_| 0,
            at_hook: None,
        }
    }

    /// A packet `at` ns after the start.
    fn send(&self, at: u64, packet: &Packet) {
        let sink = |event: &Event| {
            let mut events = self.events.borrow_mut();
            let room = events.len() < self.room.get();
            if room {
                events.push(*event);
            }
            room
        };
        let is_local = |address: &Address, _: u8| self.own.contains(address);
        let config = self.tables.storage().fit(self.config);
        let memory = Memory::new(&config, self.tables.storage(), &sink).is_local(&is_local);
        let memory = self.fill.iter().fold(memory, Memory::keeping_all);
        for copy in 0..self.repeat.get() {
            let point = packet.point + copy;
            let gate = if self.gates.get() >> (point >> 1) & 1 == 0 { mark::GATED } else { 0 };
            let packet = Packet { point, marks: packet.marks | gate, ..*packet };
            let (group, pid) = ((self.group_of)(&packet), (self.maker_of)(&packet));
            let sender = Sender { group, maker: maker(pid) };
            match &self.at_hook {
                Some(done) => {
                    done.borrow_mut()[packet.class as usize] +=
                        u64::from(memory.observe_at_hook(sender, time(at), &packet));
                }
                None => memory.observe_of(sender, time(at), &packet),
            }
        }
    }

    /// SYN, SYN+ACK and ACK with J = 0 and the K given, within the first second.
    fn handshake(&self, flow: u16, k: u32) {
        self.send(SECOND, &tcp(flow, true, SYN, 0, 0));
        self.send(SECOND + 1_000_000, &tcp(flow, false, SYN | ACK, k, 1));
        self.send(SECOND + 2_000_000, &tcp(flow, true, ACK, 1, k.wrapping_add(1)));
    }

    fn records(&self) -> Vec<Record> {
        let Storage { slots4, slots6, beside4, beside6, .. } = self.tables.storage();
        let four = (0..).zip(slots4).filter_map(|(i, slot)| table::read_beside(slot, beside4.slot(i)));
        let six = (0..).zip(slots6).filter_map(|(i, slot)| table::read_beside(slot, beside6.slot(i)));
        four.chain(six).collect()
    }

    fn count(&self, counter: Counter) -> u64 {
        self.tables.books.words()[counter as usize].load()
    }

    fn counts<const N: usize>(&self, counters: &[Counter; N]) -> [u64; N] {
        counters.map(|counter| self.count(counter))
    }

    fn block(&self) -> Vec<u64> {
        self.tables.books.words().iter().map(Shared64::load).collect()
    }

    fn sum(&self, range: core::ops::RangeInclusive<usize>) -> u64 {
        range.map(|place| self.tables.books.words()[place].load()).fold(0, u64::wrapping_add)
    }

    /// What holds after every packet.
    fn check(&self) {
        self.check_identities();
        let records = self.records();
        let open = |state: State| records.iter().filter(|r| r.state == state).count() as u64;
        let gauges = self.counts(&[Counter::OpenNoSynAck, Counter::OpenNoAck, Counter::OpenAnswerUnseen]);
        assert_eq!(
            gauges,
            [open(State::SynSent), open(State::SynReceived), open(State::AnswerUnseen)],
            "the scan agrees with the gauges"
        );
        let tags = self
            .tables
            .slots4
            .iter()
            .map(table::Slot::tag)
            .chain(self.tables.slots6.iter().map(table::Slot::tag));
        assert!(tags.into_iter().all(|word| word.load() & tag::LOCKED == 0), "every slot is unlocked");
    }

    fn check_identities(&self) {
        let terms = Counter::Completed as usize..=Counter::LAST_TCP as usize;
        let udp = Counter::UdpAnswered as usize..=Counter::LAST_UDP as usize;
        assert_eq!(self.count(Counter::Attempts), self.sum(terms.clone()), "attempts");
        assert_eq!(self.count(Counter::UdpFlows), self.sum(udp.clone()), "UDP flows");
        for place in terms.chain(udp).chain([Counter::OrphanSynAck as usize]) {
            assert!(self.tables.books.words()[place].load() < 1 << 63, "gauge {place} is negative");
        }
        assert_eq!(self.count(Counter::Begin), self.count(Counter::End), "no half of a pair");
    }

    /// What is expensive to look at, and holds as well: service rows, lock words, events.
    fn check_all(&self) {
        self.check();
        let records = self.records();
        for (i, record) in records.iter().enumerate() {
            let twin = |other: &Record| other.key == record.key && other.family == record.family;
            assert!(!records[i + 1..].iter().any(twin), "{:?} twice", record.key);
        }
        assert!(self.tables.stripes.iter().all(|word| word.load() == 0), "every lock word is free");
        let (services, workloads) = self.tables.services.split_at(SERVICES as usize);
        let (tcp, udp) = services.split_at(SERVICES as usize / 2);
        self.check_workloads(workloads);
        self.check_services(tcp, Counter::Attempts as usize..=Counter::LAST_TCP as usize);
        self.check_services(udp, Counter::UdpFlows as usize..=Counter::LAST_UDP as usize);
        self.check_connects();
        self.check_events();
    }

    /// Every completion is in the row of one service, as in the totals.
    fn check_connects(&self) {
        let mut told = [0; CONNECT_WORDS];
        told[UNTIMED_CONNECTS] = self.count(Counter::ExcludedConnect);
        for (bucket, samples) in (0..).zip(&self.tables.histograms[Leg::Connect as usize]) {
            if samples.load() != 0 {
                told[latency::connect_place(bucket) as usize] += samples.load();
            }
        }
        let counted = |place: usize| {
            self.tables.connects.iter().fold(0_u64, |sum, row| sum.wrapping_add(row[place].load()))
        };
        let counted: [u64; CONNECT_WORDS] = core::array::from_fn(counted);
        assert_eq!(counted, told, "the services' completions");
        let silent = self.tables.services.iter().take(SERVICES as usize / 2);
        let silent: u64 = silent.map(|row| row.copy().gauges[SERVICE_WAS_SILENT]).sum();
        assert_eq!(silent, self.count(Counter::WasSilent), "the services' silent connections");
    }

    fn check_services(&self, rows: &[ServiceRow], places: core::ops::RangeInclusive<usize>) {
        let mut sums = [0_u64; SERVICE_GAUGES];
        for row in rows {
            let gauges = row.copy().gauges;
            sums.iter_mut().zip(gauges).for_each(|(sum, gauge)| *sum = sum.wrapping_add(gauge));
        }
        for (place, sum) in places.zip(sums) {
            assert_eq!(sum, self.tables.books.words()[place].load(), "the rows' sum at {place}");
        }
    }

    /// Each attempt of a workload stands at one gauge of its row, and those that are open are in the table.
    fn check_workloads(&self, rows: &[ServiceRow]) {
        let mut open = [0; 3];
        for row in rows {
            let gauges = row.copy().gauges;
            let (attempts, terms) = gauges.split_first().expect("it has gauges");
            let terms = &terms[..(Counter::LAST_TCP as usize - Counter::Attempts as usize)];
            assert_eq!(*attempts, terms.iter().copied().fold(0, u64::wrapping_add), "{gauges:?}");
            for (sum, gauge) in open.iter_mut().zip(OPEN) {
                *sum += row.count(gauge as usize);
            }
        }
        let records = self.records();
        let held = OPEN.map(|gauge| {
            let open = records.iter().filter(|record| record.state.gauge() == gauge);
            open.flat_map(|record| record.control_groups.ids).filter(|group| *group != 0).count() as i64
        });
        assert_eq!(open, held, "open attempts of the workloads");
    }

    /// One event per end: as many of a verdict as it was entered.
    fn check_events(&self) {
        let ends = crate::verdict::TCP.iter().filter(|row| row.role == Role::End);
        let entered: Vec<(Counter, Counter)> = ends
            .flat_map(|row| {
                row.gauges.iter().map(|gauge| {
                    (gauge.counter, row.entered.map_or(gauge.counter, |entries| entries.counter))
                })
            })
            .collect();
        let events = self.events.borrow();
        for (verdict, counter) in entered.iter().copied() {
            let told = events.iter().filter(|e| e.verdict == verdict as u32).count() as u64;
            // Where a RST takes a completion back, its event was sent.
            let taken_back = if verdict == Counter::Completed { told - self.count(counter) } else { 0 };
            assert_eq!(told, self.count(counter) + taken_back, "events of {verdict:?}");
        }
        let is_end = |event: &&Event| entered.iter().any(|(verdict, _)| *verdict as u32 == event.verdict);
        assert_eq!(events.iter().filter(is_end).count(), events.len());
    }
}

const OPEN: [Counter; 3] = [Counter::OpenNoSynAck, Counter::OpenNoAck, Counter::OpenAnswerUnseen];

fn no_makers(slots: usize) -> Vec<table::MakerWords> {
    (0..slots).map(|_| [const { Shared64::new(0) }; 2 * MAKER_WORDS]).collect()
}

/// A process with this number, and a command that tells it; none of 0.
fn maker(pid: u64) -> Maker {
    let mut command = [0; COMMAND];
    if pid != 0 {
        let text = std::format!("process {pid:07}");
        command[..text.len()].copy_from_slice(text.as_bytes());
    }
    Maker { pid, command }
}

fn no_owners(slots: usize) -> Vec<[Shared64; 2]> {
    (0..slots).map(|_| [const { Shared64::new(0) }; 2]).collect()
}

fn config() -> Config {
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let factors = super::factors(|| {
        random = random.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        random ^ random >> 29
    });
    let _: &[[u64; HASH_WORDS]; 2] = &factors;
    Config {
        factors,
        half_open_after_ns: 3 * SECOND,
        expire_after_ns: 75 * SECOND,
        udp_idle_jiffies: 60 * HZ,
        idle_after_jiffies: 3_600 * HZ,
        mask4: 0,
        mask6: 0,
        options: option::EVENTS,
        nets: [Net::default(); MAX_NETS],
        repeat_within_jiffies: HZ / 10,
    }
}

/// Both clocks: jiffies start a minute before they wrap, as Linux's do (five minutes there).
fn time(at: u64) -> Now {
    let jiffies = at / (SECOND / u64::from(HZ));
    let low = u32::try_from(jiffies & u64::from(u32::MAX)).expect("masked");
    Now { ns: 1_000 * SECOND + at, jiffies: low.wrapping_sub(60 * HZ) }
}

/// A TCP packet of a flow, from its client or its server. Every fourth flow is IPv6.
fn tcp(flow: u16, client: bool, flags: u8, seq: u32, ack: u32) -> Packet {
    let class = if flags & RST != 0 {
        Class::Rst
    } else if flags & SYN != 0 {
        if flags & ACK != 0 { Class::SynAck } else { Class::Syn }
    } else if flags & FIN != 0 {
        Class::Fin
    } else if flags & ACK != 0 {
        Class::Ack
    } else {
        Class::TcpOther
    };
    Packet { seq, ack, flags, class: class as u8, protocol: wire::TCP, ..between(flow, client) }
}

/// A UDP packet of 100 bytes.
fn udp(flow: u16, client: bool) -> Packet {
    Packet { class: Class::Udp as u8, protocol: wire::UDP, ip_length: 100, ..between(flow, client) }
}

/// An ICMP error that quotes a packet.
fn icmp(packet: Packet, kind: u8) -> Packet {
    Packet { quote: kind, class: Class::Icmp as u8, ..packet }
}

/// Four services; the client's address is the lower one.
fn between(flow: u16, client: bool) -> Packet {
    let six = flow % 4 == 3;
    let server = 0x0a00_0100 + u32::from(flow % 4);
    let server = if six { Address::v6([server, 0, 0, 1]) } else { Address::v4(server) };
    let a = (Address::v4(0x0a00_0000), 40_000 + flow);
    let b = (server, 80);
    let ((source, source_port), (destination, destination_port)) = if client { (a, b) } else { (b, a) };
    let family = if six { 2 } else { 1 };
    Packet { source, destination, source_port, destination_port, family, segments: 1, ..Packet::default() }
}

fn tcp_of(record: &Record) -> TcpRecord {
    match record.detail {
        Detail::Tcp(tcp) => tcp,
        Detail::Udp(_) => panic!("a UDP flow"),
    }
}

fn udp_packets(record: &Record) -> Option<[u32; 2]> {
    match record.detail {
        Detail::Udp(udp) => Some(udp.packets),
        Detail::Tcp(_) => None,
    }
}
