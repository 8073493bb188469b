//! The sender of packets chooses addresses and ports, but not the factors of the hashes: no family of
//! flows that differ in few bits, or by an exchange of their ends, pushes itself out of a table that is half
//! full.

use std::array;

use handshake_common::abi::{CLIENTS, Config, Counter, ROWS, STRIPES, TCP_SERVICES, WAYS};
use handshake_common::books::{Books, ConnectRow, ServiceRow, no_connects};
use handshake_common::engine::factors;
use handshake_common::flow::{Address, Family};
use handshake_common::memory::{Memory, Storage, no_buckets, no_classes};
use handshake_common::random::split_mix;
use handshake_common::record::Now;
use handshake_common::shared::Shared64;
use handshake_common::table::{BesideTable, Slot4, Slot6};
use handshake_common::wire::{Class, Packet, TCP, flag};
use zerocopy::FromZeros;

/// Twice as many as flows, as `--max-flows` makes them.
const SLOTS: usize = 2 * FLOWS as usize;
const FLOWS: u32 = 512;
const SEEDS: u64 = 100;

type End = (Address, u16);

/// A name, and the ends of the `n`-th flow: who sends, and to whom.
type Flows = (&'static str, Family, fn(u32) -> [End; 2]);

const A: u32 = 0x0a00_0001;
const B: u32 = 0xc633_6401;
const NET: u32 = 0x2001_0db8;

const fn v4(address: u32, port: u32) -> End {
    (Address::v4(address), (port & 0xffff) as u16)
}

const fn v6(address: [u32; 4], port: u32) -> End {
    (Address::v6(address), (port & 0xffff) as u16)
}

const FAMILIES: [Flows; 12] = [
    ("low bits of the source", Family::V4, |n| [v4(A ^ n, 40_000), v4(B, 443)]),
    ("high bits of the source", Family::V4, |n| [v4(n << 22 | 1, 40_000), v4(B, 443)]),
    ("middle bits of the source", Family::V4, |n| [v4(n << 11 | 1, 40_000), v4(B, 443)]),
    ("low bits of the source's port", Family::V4, |n| [v4(A, n), v4(B, 443)]),
    ("high bits of the source's port", Family::V4, |n| [v4(A, n << 6), v4(B, 443)]),
    ("the destination's port", Family::V4, |n| [v4(A, 40_000), v4(B, n)]),
    // Half of the flows are the other half with the ports exchanged, and a quarter with the addresses.
    ("ports exchanged", Family::V4, |n| {
        let ports = [10_000 + n / 2, 20_000 + n / 2];
        [v4(A, ports[(n & 1) as usize]), v4(B, ports[(n & 1 ^ 1) as usize])]
    }),
    ("addresses exchanged", Family::V4, |n| {
        let addresses = [A + n / 2, B + n / 2];
        [v4(addresses[(n & 1) as usize], 1_000), v4(addresses[(n & 1 ^ 1) as usize], 2_000)]
    }),
    ("what one end gains the other loses", Family::V4, |n| [v4(A + n, 5_000 + n), v4(B - n, 5_000 - n)]),
    ("the host's part over IPv6", Family::V6, |n| [v6([NET, 0, 0, n], 40_000), v6([NET, 1, 0, 2], 443)]),
    ("the network's part over IPv6", Family::V6, |n| {
        [v6([NET, n << 22, 0, 1], 40_000), v6([NET, 1, 0, 2], 443)]
    }),
    ("words exchanged over IPv6", Family::V6, |n| {
        let (a, b) = if n & 1 == 0 { (n, 7) } else { (7, n - 1) };
        [v6([NET, a, b, n / 2], 40_000), v6([NET, 1, 0, 2], 443)]
    }),
];

/// Each seed begins another sequence.
fn random(seed: u64) -> impl FnMut() -> u64 {
    let mut state = seed.wrapping_mul(0xd134_2543_de82_ef95);
    move || split_mix(&mut state)
}

fn syn([from, to]: [End; 2], family: Family) -> Packet {
    Packet {
        source: from.0,
        source_port: from.1,
        destination: to.0,
        destination_port: to.1,
        ip_length: 40,
        segments: 1,
        class: Class::Syn as u8,
        flags: flag::SYN,
        family: family as u8,
        protocol: TCP,
        ..Packet::default()
    }
}

/// Flows of a family that found no place, or pushed another out.
fn crowded_out(family: Family, flow: fn(u32) -> [End; 2], seed: u64) -> u64 {
    let mut config = Config::new_zeroed();
    config.factors = factors(random(seed));
    config.half_open_after_ns = u64::MAX >> 2;
    config.expire_after_ns = u64::MAX >> 2;
    config.udp_idle_jiffies = u32::MAX >> 2;
    config.idle_after_jiffies = u32::MAX >> 2;
    let (slots4, slots6) = if family == Family::V4 { (SLOTS, WAYS as usize) } else { (WAYS as usize, SLOTS) };
    let slots4: Vec<Slot4> = (0..slots4).map(|_| Slot4::default()).collect();
    let slots6: Vec<Slot6> = (0..slots6).map(|_| Slot6::default()).collect();
    let stripes: Vec<Shared64> = (0..STRIPES).map(|_| Shared64::new(0)).collect();
    let clients: Vec<Shared64> = (0..CLIENTS).map(|_| Shared64::new(0)).collect();
    let services: Vec<ServiceRow> = (0..ROWS).map(|_| ServiceRow::new()).collect();
    let connects: Vec<ConnectRow> = (0..TCP_SERVICES).map(|_| no_connects()).collect();
    let (books, classes) = (Books::new(), [no_classes()]);
    let histograms = array::from_fn(|_| no_buckets());
    let storage = Storage {
        slots4: &slots4,
        beside4: BesideTable::default(),
        beside6: BesideTable::default(),
        slots6: &slots6,
        stripes: &stripes,
        clients: &clients,
        services: &services,
        connects: &connects,
        books: &books,
        classes: &classes,
        histograms: &histograms,
        ports: &[],
    };
    let config = storage.fit(config);
    let memory = Memory::new(&config, storage, &|_| true);
    (0..FLOWS).for_each(|n| memory.observe(Now { ns: n.into(), jiffies: n }, &syn(flow(n), family)));
    let count = |counter: Counter| books.words()[counter as usize].load();
    assert_eq!(count(Counter::Attempts), u64::from(FLOWS), "flows of one key");
    count(Counter::Evicted) + count(Counter::Untracked)
}

/// Of ten thousand flows hardly one finds no place, whatever the family and the load.
#[test]
fn no_family_of_flows_pushes_itself_out() {
    let all = SEEDS * u64::from(FLOWS);
    for (name, family, flow) in FAMILIES {
        let each: Vec<u64> = (0..SEEDS).map(|seed| crowded_out(family, flow, seed)).collect();
        let (sum, worst) = (each.iter().sum::<u64>(), each.iter().max().copied().unwrap_or_default());
        println!("{name}: {sum} of {all} crowded out, {worst} at worst");
        assert!(sum <= all / 5_000, "{name}: {sum} of {all}");
        assert!(worst <= 3, "{name}: {worst} of {FLOWS} in one load");
    }
}
