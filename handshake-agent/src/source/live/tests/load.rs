//! Tests of the programs under load: a reading that is accepted meanwhile balances, and two CPUs leave
//! consistent tables.

use std::collections::HashSet;

use handshake_common::abi::{
    CONNECT_WORDS, COUNTERS, SERVICE_GAUGES, SERVICE_WAS_SILENT, SERVICES, UNTIMED_CONNECTS,
};
use handshake_common::wire::build::FrameBuilder;
use handshake_common::wire::{Link, Slice, parse};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use super::differential::stripes;
use super::flood::{Flood, Template};
use super::*;

/// The last word of the client's address. The flood changes its leading bytes at random.
const CLIENT_V4: u32 = 0x0a00_0001;
const SERVER_V4: u32 = 0x0a00_0002;
const CLIENT_V6: [u32; 4] = [0x2001_0db8, 0, 0, 1];
const SERVER_V6: [u32; 4] = [0x2001_0db8, 0, 0, 2];
/// The place of the last four bytes of an address in a frame, as source and as destination.
const V4_SOURCE: u8 = 26;
const V4_DESTINATION: u8 = 30;
const V6_SOURCE: u8 = 34;
const V6_DESTINATION: u8 = 50;

/// One CPU makes and ends attempts at a rate that no server sees, and another reads: every accepted reading
/// balances in all terms of both identities. Without a look at the markers, the same readings would not.
#[test]
fn every_accepted_reading_balances_under_a_flood() {
    const READINGS: u32 = 20_000;
    /// The limit for a million SYNs per second.
    const NS_PER_SYN: usize = 1_000;
    let Some([reader, writer]) = two_cpus() else { return };
    let Some(live) = loaded(&small()) else { return };
    let templates = templates(64);
    // Most SYNs are from clients whose record is gone, and some replies find one that is not.
    let flood = Flood::new(&live, &templates, 10);
    let done = AtomicBool::new(false);
    let (fastest, broken) = std::thread::scope(|scope| {
        let writing = scope.spawn(|| {
            pin(writer);
            let mut fastest = u32::MAX;
            while !done.load(Ordering::Relaxed) {
                fastest = fastest.min(flood.run(20_000));
            }
            fastest
        });
        let reading = scope.spawn(|| {
            pin(reader);
            read_under_load(&live, &flood, READINGS)
        });
        let broken = reading.join();
        // Whatever the reader's result, the writer must end.
        done.store(true, Ordering::Relaxed);
        let broken = broken.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        (writing.join().expect("the writer ends"), broken)
    });
    assert_at_rest(&live);
    let syns = templates.iter().filter(|template| is_syn(template)).count();
    let packet = fastest as usize;
    let syn = packet * templates.len() / syns;
    eprintln!(
        "{packet} ns per packet, {syn} ns per SYN; without the markers {broken} readings would not have balanced"
    );
    if syn > NS_PER_SYN {
        skip(&format!("needs a CPU that handles a million SYN/s: this one needs {syn} ns per SYN"));
    }
}

/// Reads until enough readings are accepted and at least one would not have balanced without the markers.
/// Returns the number of such readings. Now and then the reading CPU handles packets too, so that attempts
/// begin on one CPU and end on the other.
fn read_under_load(live: &Live, flood: &Flood, readings: u32) -> u32 {
    let map = per_cpu(&live.bpf, "COUNTERS").expect("the map is there");
    let (mut broken, mut accepted, mut last) = (0, 0, 0);
    while accepted < readings || broken == 0 {
        if accepted % 64 == 0 {
            flood.run(100);
        }
        let read = || {
            let blocks = blocks_of(&map)?;
            broken += u32::from(!is_balanced(&plain_sum(&blocks)));
            Ok(blocks)
        };
        let block = counters::settle(read, std::thread::sleep).expect("one writer leaves gaps");
        assert!(is_balanced(&block), "{:?}", block.words);
        assert!(block.words.iter().all(|word| word.cast_signed() >= 0), "negative: {:?}", block.words);
        let attempts = block.words[Counter::Attempts as usize];
        assert!(attempts >= last, "attempts fell from {last} to {attempts}");
        last = attempts;
        accepted += 1;
        assert!(accepted < 100 * readings, "no reading met a pair under way");
    }
    broken
}

/// The sum of the blocks for a reader that does not look at the markers.
fn plain_sum(blocks: &[CounterBlock]) -> CounterBlock {
    let mut sum = CounterBlock { words: [0; COUNTERS] };
    blocks.iter().for_each(|block| add(&mut sum.words, &block.words));
    sum
}

/// Whether both identities hold.
fn is_balanced(block: &CounterBlock) -> bool {
    let sum = |first: Counter, last: Counter| {
        block.words[first as usize..=last as usize].iter().fold(0_u64, |sum, word| sum.wrapping_add(*word))
    };
    block.words[Counter::Attempts as usize] == sum(Counter::Completed, Counter::LAST_TCP)
        && block.words[Counter::UdpFlows as usize] == sum(Counter::UdpAnswered, Counter::LAST_UDP)
}

/// Two CPUs handle the same flows in the same sets, in tables of 64 slots, and leave them consistent.
#[test]
fn two_cpus_leave_consistent_tables() {
    const PACKETS: u32 = 300_000;
    let Some(cpus) = two_cpus() else { return };
    let Some(live) = loaded(&Settings {
        rules: Rules { expire_after: Duration::from_millis(20), ..Rules::default() },
        ..small()
    }) else {
        return;
    };
    // From a few flows that collide all the time to more than the tables have room for.
    for client_bits in [0, 3, 6, 12] {
        let flood = Flood::new(&live, &templates(32), client_bits);
        std::thread::scope(|scope| {
            for cpu in cpus {
                let flood = &flood;
                scope.spawn(move || {
                    pin(cpu);
                    flood.run(PACKETS);
                });
            }
        });
        assert_at_rest(&live);
    }
    let block = counters_of(&live.bpf);
    eprintln!("{} attempts, {} contended", block.words[1], block.words[Counter::Contended as usize]);
}

/// Checks that no key is there twice, nothing is locked, and the books balance and agree with the tables and
/// the services.
fn assert_at_rest(live: &Live) {
    let tags = live.flows4.iter().map(Slot::tag).chain(live.flows6.iter().map(Slot::tag));
    assert_eq!(tags.filter(|tag| tag.load() & handshake_common::abi::tag::LOCKED != 0).count(), 0);
    assert!(stripes(live).iter().all(|word| *word == 0), "a lock word is held at rest");
    let block = counters_of(&live.bpf);
    assert!(is_balanced(&block), "{:?}", block.words);
    let records = records(live);
    let keys =
        records.iter().map(|record| (record.key.low, record.key.high, record.key.ports, record.key.udp));
    assert_eq!(keys.collect::<HashSet<_>>().len(), records.len(), "a key is in the table twice");
    // `unsettled` of the report: open attempts have as many records as their gauges count.
    for (state, gauge) in [
        (State::SynSent, Counter::OpenNoSynAck),
        (State::SynReceived, Counter::OpenNoAck),
        (State::AnswerUnseen, Counter::OpenAnswerUnseen),
    ] {
        let found = records.iter().filter(|record| record.state == state).count() as u64;
        assert_eq!(found, block.words[gauge as usize], "{}: unsettled at rest", state as u8);
    }
    assert_services_sum_up(live, &block);
}

fn assert_services_sum_up(live: &Live, block: &CounterBlock) {
    let (mut tcp, mut udp) = ([0_u64; SERVICE_GAUGES], [0_u64; SERVICE_GAUGES]);
    let mut connects = [0; CONNECT_WORDS];
    for ServiceReading { row, service, connects: completed } in live.services() {
        let sums = if u32::from(row) < SERVICES / 2 { &mut tcp } else { &mut udp };
        add(sums, &service.gauges);
        completed.iter().for_each(|(place, count)| connects[*place as usize] += count);
    }
    let was_silent = std::mem::take(&mut tcp[SERVICE_WAS_SILENT]);
    assert_eq!(was_silent, block.words[Counter::WasSilent as usize]);
    for (sums, first, last) in
        [(tcp, Counter::Attempts, Counter::LAST_TCP), (udp, Counter::UdpFlows, Counter::LAST_UDP)]
    {
        let books = &block.words[first as usize..=last as usize];
        let (used, room) = sums.split_at(books.len());
        assert_eq!((used, room.iter().sum::<u64>()), (books, 0), "{first:?} and its terms");
    }
    let mut told = [0; CONNECT_WORDS];
    told[UNTIMED_CONNECTS] = block.words[Counter::ExcludedConnect as usize];
    let total = read_histogram(&live.bpf, Leg::Connect).expect("a histogram");
    for (bucket, count) in (0..).zip(total.buckets).filter(|(_, count)| *count != 0) {
        told[connect_place(bucket) as usize] += count;
    }
    assert_eq!(connects, told, "the completions of all CPUs by time, none lost");
}

/// The segments of one attempt, of both families, which may come in any order, filled up with SYNs to
/// `count`.
fn templates(count: usize) -> Vec<Template> {
    let (next_j, next_k) = (J.wrapping_add(1), K.wrapping_add(1));
    let segments = [
        (true, flag::SYN, J, 0),
        (true, flag::SYN, J ^ 0x100, 0),
        (false, flag::SYN | flag::ACK, K, next_j),
        (true, flag::ACK, next_j, next_k),
        (false, flag::ACK, next_k, next_j),
        (true, flag::FIN | flag::ACK, next_j, next_k),
        (false, flag::RST | flag::ACK, next_k, next_j),
        (true, flag::RST, next_j, 0),
    ];
    let mut templates = Vec::new();
    for ipv6 in [false, true] {
        templates.extend(
            segments
                .map(|(forth, flags, seq, ack)| template(ipv6, forth, |frame| frame.tcp(flags, seq, ack))),
        );
        templates.extend([true, false].map(|forth| template(ipv6, forth, FrameBuilder::udp)));
    }
    let syn = || template(false, true, |frame| frame.tcp(flag::SYN, J, 0));
    templates.resize_with(count, syn);
    templates
}

fn is_syn(template: &Template) -> bool {
    let packet = parse(&Slice::whole(&template.frame), Link::Ethernet);
    packet.class == Class::Syn as u8
}

/// A packet from the client (`forth`) or to the client.
fn template(ipv6: bool, forth: bool, transport: impl Fn(FrameBuilder) -> FrameBuilder) -> Template {
    let ethernet = FrameBuilder::new(Link::Ethernet);
    let (network, client) = match (ipv6, forth) {
        (false, true) => (ethernet.ipv4(CLIENT_V4, SERVER_V4), V4_SOURCE),
        (false, false) => (ethernet.ipv4(SERVER_V4, CLIENT_V4), V4_DESTINATION),
        (true, true) => (ethernet.ipv6(CLIENT_V6, SERVER_V6), V6_SOURCE),
        (true, false) => (ethernet.ipv6(SERVER_V6, CLIENT_V6), V6_DESTINATION),
    };
    let (from, to) = if forth { (CLIENT.1, SERVER.1) } else { (SERVER.1, CLIENT.1) };
    Template { frame: transport(network).between(from, to).bytes().to_vec(), client }
}

/// Two CPUs that this process may use; `None`, counted as skipped, if there is only one.
pub(super) fn two_cpus() -> Option<[usize; 2]> {
    let set = sched_getaffinity(None).expect("the CPUs of this thread");
    let cpus: Vec<_> = (0..CpuSet::MAX_CPU).filter(|cpu| set.is_set(*cpu)).collect();
    if let [first, second, ..] = cpus[..] {
        return Some([first, second]);
    }
    skip("needs two CPUs");
    None
}

/// Keeps this thread on one CPU.
pub(super) fn pin(cpu: usize) {
    let mut set = CpuSet::new();
    set.set(cpu);
    sched_setaffinity(None, &set).expect("a CPU that this thread may use");
}
