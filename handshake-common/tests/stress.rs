//! Two threads on one small table, for as long as it takes to be in each other's way: what
//! `tests/model` proves of four slots, here with the real words, sets, lock words and patience.

use std::array;
use std::thread;

use handshake_common::abi::{
    CLIENTS, CONNECT_WORDS, Config, Counter, HASH_WORDS, ROWS, SERVICES, STRIPES, TCP_SERVICES, WAYS,
};
use handshake_common::books::{Books, ConnectRow, ServiceRow, no_connects};
use handshake_common::engine::factors;
use handshake_common::latency::connect_place;
use handshake_common::memory::{Memory, Sender, Storage, no_buckets, no_classes};
use handshake_common::random::split_mix;
use handshake_common::shared::{self, Shared64};
use handshake_common::table::{self, Beside, BesideTable, Slot4, Slot6};
use handshake_common::verdict::Leg;
use handshake_common::wire::Packet;
use zerocopy::FromZeros;

#[path = "model/audit.rs"]
mod audit;
#[path = "model/packets.rs"]
mod packets;

use audit::{Total, audit};
use packets::{ack, assert_whole, datagram, rst, syn, syn_ack, time};

/// Packets a thread.
const PACKETS: u64 = 1_000_000;
/// Few, so that the threads meet on flows; still three times what the table holds.
const FLOWS: u64 = 3 * SLOTS as u64;
const SLOTS: usize = 4 * WAYS as usize;

/// What the threads share.
struct Table {
    slots: [Slot4; SLOTS],
    slots6: [Slot6; WAYS as usize],
    owners: [[Shared64; 2]; SLOTS],
    stripes: Vec<Shared64>,
    clients: Vec<Shared64>,
    services: Vec<ServiceRow>,
    connects: Vec<ConnectRow>,
    config: Config,
}

fn table() -> Table {
    let mut random = 4;
    let mut config = Config::new_zeroed();
    config.factors = factors(|| split_mix(&mut random));
    assert_eq!(config.factors[0].len(), HASH_WORDS);
    config.half_open_after_ns = u64::MAX >> 2;
    config.expire_after_ns = u64::MAX >> 2;
    config.udp_idle_jiffies = u32::MAX >> 2;
    config.idle_after_jiffies = u32::MAX >> 2;
    Table {
        slots: array::from_fn(|_| Slot4::default()),
        slots6: array::from_fn(|_| Slot6::default()),
        owners: array::from_fn(|_| [const { Shared64::new(0) }; 2]),
        stripes: (0..STRIPES).map(|_| Shared64::new(0)).collect(),
        clients: (0..CLIENTS).map(|_| Shared64::new(0)).collect(),
        services: (0..ROWS).map(|_| ServiceRow::new()).collect(),
        connects: (0..TCP_SERVICES).map(|_| no_connects()).collect(),
        config,
    }
}

/// Some packet of some flow. A flow is TCP or UDP for ever, or one port would have two records.
fn packet(random: &mut u64) -> (u16, Packet) {
    let word = split_mix(random);
    let flow = u16::try_from(1 + word % FLOWS).expect("few flows");
    let attempt = u32::from(word >> 32 & 7 == 0);
    let packet = match (flow % 3, word >> 40 & 7) {
        (0, choice) => datagram(flow, choice & 1 == 0),
        (_, 0..=2) => syn(flow, attempt),
        (_, 3 | 4) => syn_ack(flow, attempt),
        (_, 5) => rst(flow, attempt),
        _ => ack(flow, attempt),
    };
    (flow, packet)
}

/// Completions by their time, as a service counts them.
type Connects = [u64; CONNECT_WORDS];

/// Sends one thread's packets on their way, and gives its counter block and its completions.
fn run(table: &Table, seed: u64) -> (Total, Connects) {
    let (books, classes) = (Books::new(), [no_classes()]);
    let histograms = array::from_fn(|_| no_buckets());
    let storage = Storage {
        slots4: &table.slots,
        beside4: BesideTable { owners: &table.owners, makers: &[] },
        beside6: BesideTable::default(),
        slots6: &table.slots6,
        stripes: &table.stripes,
        clients: &table.clients,
        services: &table.services,
        connects: &table.connects,
        books: &books,
        classes: &classes,
        histograms: &histograms,
        ports: &[],
    };
    let config = storage.fit(table.config);
    let memory = Memory::new(&config, storage, &|_| true);
    let mut random = seed;
    for _ in 0..PACKETS {
        let (flow, packet) = packet(&mut random);
        // What a socket has sent of most flows, of five groups; the rest was routed.
        let sender = Sender { group: u64::from(flow % 6), ..Sender::default() };
        memory.observe_of(sender, time(flow), &packet);
    }
    let mut connects = [0; CONNECT_WORDS];
    connects[0] = books.words()[Counter::ExcludedConnect as usize].load();
    for (bucket, samples) in (0..).zip(&histograms[Leg::Connect as usize]).filter(|(_, n)| n.load() != 0) {
        connects[connect_place(bucket) as usize] += samples.load();
    }
    (array::from_fn(|i| books.words()[i].load()), connects)
}

/// Each attempt of a workload stands at one gauge of its row, and those that are open are in the table.
fn audit_workloads(table: &Table, rows: &[ServiceRow]) {
    let count = |row: &ServiceRow, counter: Counter| row.count(counter as usize);
    let gauges = [Counter::OpenNoSynAck, Counter::OpenNoAck, Counter::OpenAnswerUnseen];
    let open = |row: &ServiceRow| gauges.map(|gauge| count(row, gauge)).into_iter().sum::<i64>();
    for row in rows {
        let gauges = row.copy().gauges;
        let terms = &gauges[1..=Counter::LAST_TCP as usize - Counter::Attempts as usize];
        assert_eq!(gauges[0], terms.iter().copied().fold(0, u64::wrapping_add), "{gauges:?}");
    }
    let records = table.slots.iter().zip(&table.owners);
    let records = records
        .filter_map(|(slot, owners)| table::read_beside(slot, Beside { owners: Some(owners), makers: None }));
    let owned = records.filter(|record| record.state.is_open()).flat_map(|record| record.control_groups.ids);
    let owned = owned.filter(|group| *group != 0).count();
    assert_eq!(rows.iter().map(open).sum::<i64>(), i64::try_from(owned).expect("a few"), "open attempts");
    assert!(rows[1..].iter().any(|row| count(row, Counter::Completed) > 0));
}

#[test]
fn after_millions_of_packets_on_one_table_the_books_balance() {
    let table = table();
    let threads = [1, 2];
    let totals = thread::scope(|scope| {
        let running = threads.map(|seed| {
            let table = &table;
            scope.spawn(move || run(table, seed))
        });
        while running.iter().any(|thread| !thread.is_finished()) {
            table.slots.iter().filter_map(table::read).for_each(|record| assert_whole(&record));
        }
        running.map(|thread| thread.join().expect("a thread ran to its end"))
    });
    let total: Total =
        array::from_fn(|i| totals.iter().fold(0, |sum: u64, (words, _)| sum.wrapping_add(words[i])));
    let (services, workloads) = table.services.split_at(SERVICES as usize);
    let services: Vec<_> = services.iter().map(ServiceRow::copy).collect();
    audit(&table.slots, &table.stripes, &services, &total);
    audit_workloads(&table, workloads);
    for counter in [Counter::Evicted, Counter::Superseded, Counter::Completed, Counter::UdpEvicted] {
        assert!(total[counter as usize] > 0, "no {counter:?}");
    }
    let told: Connects = array::from_fn(|i| totals.iter().map(|(_, connects)| connects[i]).sum());
    let counted: Connects = array::from_fn(|i| table.connects.iter().map(|row| row[i].load()).sum());
    assert!(told.iter().sum::<u64>() > 0);
    assert_eq!(counted, told, "the services' completions");
}
