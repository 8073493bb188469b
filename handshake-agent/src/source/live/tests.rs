//! Tests of the loaded object: packets are run by BPF_PROG_TEST_RUN, and the results read back. A test that
//! needs CAP_BPF is skipped without it, and reports so.

mod differential;
mod flood;
mod load;
mod ring;
mod snapshot;
mod straight;

use std::io::Write;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use handshake_common::abi::{Counter, LAYOUT, PORTS_MAP, class_index};
use handshake_common::flow::{Address, Family, Side};
use handshake_common::latency::connect_place;
use handshake_common::record::{Detail, State};
use handshake_common::wire::build::FrameBuilder;
use handshake_common::wire::{Class, Link, flag};

use aya::programs::{TestRun, TestRunOptions, Xdp};
use aya_log::EbpfLogger;
use handshake_common::shared::Shared64;

use super::maps::{FROZEN, PerCpu, descriptor, possible_cpus};
use crate::options::{Filter, Rules};

use super::*;
use crate::hook::{Direction, Hook, LinkState};

const XDP_PASS: u32 = 2;
/// The interface of a test run's packets: the loopback device of its network namespace.
const LOOPBACK: u32 = 1;
const CLIENT: ([u8; 4], u16) = ([10, 0, 0, 1], 40_000);
const SERVER: ([u8; 4], u16) = ([10, 0, 0, 2], 443);
/// The initial sequence numbers of client and server. Both cross 2³² within the handshake.
const J: u32 = u32::MAX;
const K: u32 = 0xffff_fff0;

#[test]
fn a_handshake_is_read_back_complete() {
    let Some(mut live) = loaded(&small()) else { return };
    handshake(&live);
    let reading = live.read().expect("counters at rest");
    assert_eq!(word(&reading, Counter::Attempts), 1);
    assert_eq!(word(&reading, Counter::Completed), 1);
    assert_eq!(word(&reading, Counter::OpenNoSynAck) + word(&reading, Counter::OpenNoAck), 0);
    let classes = &reading.classes[0].packets;
    for class in [Class::Syn, Class::SynAck, Class::Ack] {
        assert_eq!(classes[class_index(class as u8, Family::V4 as u8)], 1, "{}", class.name());
    }
    assert_eq!(classes.iter().sum::<u64>(), 3);
    let samples = reading.histograms.each_ref().map(|histogram| histogram.buckets.iter().sum::<u64>());
    assert_eq!(samples, [1, 1, 1, 0], "no byte of the responder came");
    assert_eq!(reading.slots, 128);
    let [record] = records(&live)[..] else { panic!("one record, not {:?}", records(&live)) };
    assert_eq!(record.state, State::Established);
    assert_eq!(record.end(Side::Initiator), (Address::v4(0x0a00_0001), CLIENT.1));
    assert_eq!(record.end(Side::Responder), (Address::v4(0x0a00_0002), SERVER.1));
    let Detail::Tcp(tcp) = record.detail else { panic!("a TCP record, not {record:?}") };
    assert_eq!((tcp.isn_initiator, tcp.isn_responder), (J, K));
    assert_eq!((tcp.syn, tcp.syn_ack, tcp.ack), (1, 1, 1));
    assert!(tcp.opened_ns <= reading.now.ns && reading.now.ns - tcp.opened_ns < 10_000_000_000);
    let services = live.services();
    let [ServiceReading { row, service, connects }] = &services[..] else {
        panic!("one service, not {}", services.len())
    };
    assert_eq!((*row, service.port, service.address), (record.service, SERVER.1, Address::v4(0x0a00_0002)));
    assert_eq!((service.gauges[0], service.gauges[1]), (1, 1), "one attempt, completed");
    let total = (0..).zip(reading.histograms[Leg::Connect as usize].buckets).find(|(_, count)| *count != 0);
    let (bucket, _) = total.expect("it is in the totals too");
    assert_eq!(connects[..], [(connect_place(bucket), 1)]);
}

/// A host with more addresses than the map holds, which change: the lowest ones are known at each reading.
#[test]
fn more_addresses_than_there_is_room_for_end_no_reading() {
    let Some(mut live) = loaded(&small()) else { return };
    let mut first = 0_u32;
    let addresses = move || {
        first += 2_500;
        Some((first..first + 6_000).map(|number| IpAddr::from(number.to_be_bytes())).collect())
    };
    live.know_addresses_by(addresses).expect("the first addresses");
    for known in [5_000_u32, 7_500] {
        live.read().expect("counters at rest");
        let map = live.bpf.map("LOCAL").expect("the map is there");
        let map: aya::maps::HashMap<_, [u64; 3], u32> = map.try_into().expect("it is a hash map");
        let address = |[first, second, _]: [u64; 3]| Address([first, second]).number();
        let mut all: Vec<u32> = map.keys().map(|key| address(key.expect("a key"))).collect();
        all.sort_unstable();
        assert!(
            all.iter().copied().eq((known..).take(handshake_common::abi::LOCAL_ADDRESSES)),
            "{known}: {} known",
            all.len()
        );
    }
}

/// The programs read the settings for every packet: a filter for another port keeps the flow out.
#[test]
fn the_settings_reach_the_programs() {
    for (ports, tracked) in [(&["443", "22"][..], 1), (&["80"], 0)] {
        let filter = filter(ports, &[]);
        let Some(mut live) = loaded(&Settings { filter, ..small() }) else { return };
        handshake(&live);
        let reading = live.read().expect("counters at rest");
        assert_eq!(word(&reading, Counter::Attempts), tracked);
        assert_eq!(records(&live).len() as u64, tracked);
        assert_eq!(word(&reading, Counter::Filtered), 3 * (1 - tracked));
    }
}

#[test]
fn frozen_maps_refuse_writes() {
    let Some(live) = loaded(&small()) else { return };
    let clock = mapping::freeze(descriptor(&live.bpf, "CLOCK").expect("the map is there"));
    assert_eq!(clock.expect_err("it is frozen").raw_os_error(), Some(libc::EPERM));
    for name in FROZEN.into_iter().chain(["CLOCK"]) {
        let map = descriptor(&live.bpf, name).expect("the map is there");
        assert_eq!(update(map).raw_os_error(), Some(libc::EPERM), "{name}");
    }
    let flows = descriptor(&live.bpf, "FLOWS4").expect("the map is there");
    let writable = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: a new mapping at an address that the kernel chooses; it is refused, or never accessed.
    let mapped =
        unsafe { libc::mmap(std::ptr::null_mut(), 4096, writable, libc::MAP_SHARED, flows.as_raw_fd(), 0) };
    assert_eq!(mapped, libc::MAP_FAILED, "a frozen map was mapped for writing");
}

/// A second mapping of the same map sees the same records, and outlives the map's descriptor.
#[test]
fn a_second_mapping_sees_the_records_and_outlives_its_map() {
    let Some(live) = loaded(&small()) else { return };
    let second: Mapping<Slot4> = map_array(&live.bpf, "FLOWS4", 64).expect("a second mapping");
    handshake(&live);
    let first = records(&live);
    drop(live);
    let mut found = Vec::new();
    visit_slots(&second, BesideTable::default(), &mut |record| found.push(*record));
    assert_eq!((found.len(), &found), (1, &first));
}

#[test]
fn a_mapping_past_the_end_of_a_map_is_refused() {
    let Some(live) = loaded(&small()) else { return };
    assert!(map_array::<Slot4>(&live.bpf, "FLOWS4", 64).is_ok());
    assert!(map_array::<Slot4>(&live.bpf, "FLOWS4", 65).is_err(), "past the end");
    assert!(map_array::<[Shared64; 1]>(&live.bpf, PORTS_MAP, 1).is_err(), "not mappable");
}

#[test]
fn the_test_clock_sets_both_clocks() {
    let Some(mut live) = loaded(&Settings { test_clock: true, ..small() }) else { return };
    let times = [5_000_000_000, 5_000_064_000, 5_000_640_000];
    for (segment, now_ns) in segments().iter().zip(times) {
        live.set_test_clock(ClockPair { now_ns, jiffies: (7 << 32) | 9 })
            .expect("a clock that is not frozen");
        run(&live, segment);
    }
    let [record] = records(&live)[..] else { panic!("one record") };
    let Detail::Tcp(tcp) = record.detail else { panic!("a TCP record") };
    assert_eq!((tcp.opened_ns, tcp.syn_ack_after, tcp.latest_after), (times[0], 1_000, 10_000));
    assert_eq!(record.last_jiffies, 9);
    let reading = live.read().expect("counters at rest");
    assert_eq!(reading.now, Now { ns: times[2], jiffies: 9 });
}

#[test]
fn the_ring_keeps_the_order_of_events() {
    let Some(mut live) = loaded(&Settings { events: true, ..small() }) else { return };
    let mut verdicts = Vec::new();
    live.drain_events(&mut |event, _| {
        verdicts.push((event.verdict, event.family));
        ControlFlow::Continue(())
    });
    assert!(verdicts.is_empty());
    handshake(&live);
    let mut other = CLIENT;
    other.1 += 1;
    run(&live, &segment(other, SERVER, 7, 0, flag::SYN));
    run(&live, &segment(SERVER, other, 0, 8, flag::RST | flag::ACK));
    live.drain_events(&mut |event, _| {
        verdicts.push((event.verdict, event.family));
        ControlFlow::Continue(())
    });
    let family = Family::V4 as u32;
    assert_eq!(verdicts, [(Counter::Completed as u32, family), (Counter::Refused as u32, family)]);
    assert_eq!(word(&live.read().expect("counters at rest"), Counter::LostEvents), 0);
}

#[test]
fn without_the_events_setting_there_are_no_events() {
    let Some(mut live) = loaded(&small()) else { return };
    handshake(&live);
    live.drain_events(&mut |_, _| panic!("an event without the setting"));
    assert_eq!(word(&live.read().expect("counters at rest"), Counter::LostEvents), 0);
}

#[test]
fn jiffies_and_wall_clock_agree_with_the_monotonic_clock() {
    let Some(mut live) = loaded(&small()) else { return };
    let hz = f64::from(live.clocks().udp_idle_jiffies) / 60.0;
    let before = live.read().expect("a reading");
    std::thread::sleep(Duration::from_millis(100));
    let after = live.read().expect("a reading");
    let seconds = (after.now.ns - before.now.ns) as f64 / 1e9;
    let ticks = f64::from(after.now.jiffies.wrapping_sub(before.now.jiffies));
    assert!((ticks - seconds * hz).abs() <= 2.0, "{ticks} jiffies in {seconds} s at {hz} Hz");
    let wall = (after.wall_ns - before.wall_ns) as f64 / 1e9;
    assert!((wall - seconds).abs() < 0.05, "{wall} s on the wall clock, {seconds} s on the monotonic one");
}

/// Hooks of an interface that loses a packet before each look, and 40 before the first.
struct Losing(u64);

impl Hooks for Losing {
    fn look(&mut self) -> Vec<InterfaceLook> {
        self.0 += 1;
        Vec::new()
    }

    fn attach_again(&mut self, _: &mut InterfaceLook) {}

    fn lost_before_hook(&self) -> LostBeforeHook {
        LostBeforeHook { packets: self.0, unreadable: self.0 - 40 }
    }
}

#[test]
fn losses_before_the_hook_are_counted_at_each_reading() {
    let Some(mut live) = loaded(&small()) else { return };
    assert_eq!(live.read().expect("a reading").lost_before_hook, 0);
    live.watch(Losing(40));
    assert_eq!(live.read().expect("a reading").lost_before_hook, 41);
    let second = live.read().expect("a reading");
    assert_eq!((second.lost_before_hook, second.unreadable_counters), (42, 2));
}

/// One CPU makes attempts as fast as it can, and another one reads: every accepted reading balances. With T2
/// zero, each copy of the same SYN finds the attempt before it expired, closes it and opens the next: two
/// pairs per packet.
#[test]
fn every_accepted_reading_balances_under_load() {
    const BATCH: u32 = 20_000;
    const READINGS: u32 = 20_000;
    /// The number of readings that must have met a pair under way for the test to prove anything.
    const TORN: u32 = 20;
    let Some([reader, writes]) = load::two_cpus() else { return };
    let Some(live) =
        loaded(&Settings { rules: Rules { expire_after: Duration::ZERO, ..Rules::default() }, ..small() })
    else {
        return;
    };
    let bpf = &live.bpf;
    let done = AtomicBool::new(false);
    let sent = std::thread::scope(|scope| {
        // On one CPU with the reader it would hardly be met under way.
        let writer = scope.spawn(|| {
            load::pin(writes);
            let mut sent = 0;
            while !done.load(Ordering::Relaxed) {
                run_on(bpf, &segment(CLIENT, SERVER, J, 0, flag::SYN), BATCH);
                sent += u64::from(BATCH);
            }
            sent
        });
        load::pin(reader);
        let end = EndOf(&done);
        let map = per_cpu(bpf, "COUNTERS").expect("the map is there");
        let (mut readings, mut last, mut torn) = (0, 0, 0);
        while readings < READINGS || torn < TORN {
            let read = || {
                let blocks = blocks_of(&map)?;
                torn += u32::from(!blocks.iter().all(counters::is_whole));
                Ok(blocks)
            };
            let block = counters::settle(read, std::thread::sleep).expect("one writer leaves gaps");
            assert_balanced(&block, last);
            last = block.words[Counter::Attempts as usize];
            readings += 1;
            assert!(readings < 100 * READINGS, "only {torn} readings met a pair under way");
        }
        drop(end);
        writer.join().expect("the writer ends")
    });
    let block = counters_of(bpf);
    assert_balanced(&block, sent);
    assert_eq!(block.words[Counter::Attempts as usize], sent);
    assert_eq!(block.words[Counter::ExpiredNoSynAck as usize], sent - 1);
}

/// Ends another thread's loop, also where the test fails: it would wait for that thread.
struct EndOf<'a>(&'a AtomicBool);

impl Drop for EndOf<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn assert_balanced(block: &CounterBlock, least: u64) {
    let attempts = block.words[Counter::Attempts as usize];
    let gauges = &block.words[Counter::Completed as usize..=Counter::LAST_TCP as usize];
    assert_eq!(attempts, gauges.iter().sum::<u64>(), "{gauges:?}");
    assert!(attempts >= least, "attempts fell from {least} to {attempts}");
}

#[test]
fn an_object_of_another_layout_is_refused_before_the_kernel_sees_it() {
    let Some(mut elf) = object_file() else { return };
    let own = LAYOUT.to_le_bytes();
    let places: Vec<_> = (0..elf.len() - 8).filter(|at| elf[*at..at + 8] == own).collect();
    assert!(!places.is_empty(), "the object carries its layout");
    for at in places {
        elf[at] ^= 1;
    }
    match Live::load(&elf, &small()) {
        Err(LiveError::OtherBuild { found: Some(found), expected: LAYOUT }) => assert_eq!(found, LAYOUT ^ 1),
        Err(other) => panic!("refused for another reason: {other}"),
        Ok(_) => panic!("loaded an object of another layout"),
    }
}

#[test]
fn without_capabilities_the_error_names_them() {
    let Some(elf) = object_file() else { return };
    // aya detects the kernel's features once per process: not in a thread whose queries would fail.
    let _ = aya::features();
    let error = std::thread::spawn(move || {
        drop_capabilities();
        Live::load(&elf, &small()).err()
    });
    let error = error.join().expect("the thread ends").expect("not permitted");
    assert!(matches!(error, LiveError::Permission { .. }), "{error}");
    assert!(error.to_string().contains("cap_bpf"), "{error}");
}

/// The kernel's lines are forwarded, and the ring's reader does not prevent programs from loading.
#[test]
fn programs_that_log_load_with_their_reader() {
    let Some(mut live) = loaded(&Settings { kernel_log: true, ..small() }) else { return };
    let log = live.take_kernel_log().expect("the setting is on");
    assert!(live.take_kernel_log().is_none(), "only once");
    handshake(&live);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let ended = runtime
        .block_on(async { tokio::time::timeout(Duration::from_millis(20), log.forward(|_| {})).await });
    assert!(ended.is_err(), "it waits for lines until it is dropped, and ended with {ended:?}");
}

/// With the log off, the lines are not in the programs. With it on, each handshake segment of either family gives one
/// line, and data gives none.
#[test]
fn the_kernel_side_explains_each_handshake_segment() {
    if !has_capabilities(&[SYS_ADMIN]) {
        return skip("needs CAP_SYS_ADMIN");
    }
    for kernel_log in [false, true] {
        let Some(live) = loaded(&Settings { kernel_log, ..small() }) else { return };
        conversation(&live);
        assert_eq!(lines(&live), if kernel_log { EXPLAINED.as_slice() } else { &[] });
    }
}

const EXPLAINED: [&str; 10] = [
    "10.0.0.1:40000 > 10.0.0.2:443 SYN     seq=J+0 ack=# 0 none              -> SYN-SENT",
    "10.0.0.1:40000 > 10.0.0.2:443 SYN     seq=J+0 ack=# 0 SYN-SENT          -> SYN-SENT          syn_retransmits",
    "10.0.0.2:443 > 10.0.0.1:40000 SYN+ACK seq=# 4294967280 ack=J-9 SYN-SENT          -> SYN-SENT          bad_syn_ack",
    "10.0.0.2:443 > 10.0.0.1:40000 SYN+ACK seq=K+0 ack=J+1 SYN-SENT          -> SYN-RECEIVED",
    "10.0.0.1:40000 > 10.0.0.2:443 ACK     seq=J+1 ack=K+9 SYN-RECEIVED      -> SYN-RECEIVED      bad_ack",
    "10.0.0.1:40000 > 10.0.0.2:443 ACK     seq=J+1 ack=K+1 SYN-RECEIVED      -> ESTABLISHED",
    "10.0.0.2:443 > 10.0.0.1:40000 RST     seq=K+1 ack=J+1 ESTABLISHED       -> closed",
    "[2001:db8::1]:40000 > [2001:db8::2]:443 SYN     seq=J+0 ack=# 0 none              -> SYN-SENT",
    "[2001:db8::2]:443 > [2001:db8::1]:40000 SYN+ACK seq=K+0 ack=J+1 SYN-SENT          -> SYN-RECEIVED",
    "[2001:db8::1]:40000 > [2001:db8::2]:443 ACK     seq=J+1 ack=K+1 SYN-RECEIVED      -> ESTABLISHED",
];

/// A handshake with retransmissions and bad numbers, data, its end, and a handshake over IPv6.
fn conversation(live: &Live) {
    let (next_j, next_k) = (J.wrapping_add(1), K.wrapping_add(1));
    let syn_ack = flag::SYN | flag::ACK;
    for (from, to, seq, ack, flags) in [
        (CLIENT, SERVER, J, 0, flag::SYN),
        (CLIENT, SERVER, J, 0, flag::SYN),
        (SERVER, CLIENT, K, J.wrapping_sub(9), syn_ack),
        (SERVER, CLIENT, K, next_j, syn_ack),
        (CLIENT, SERVER, next_j, K.wrapping_add(9), flag::ACK),
        (CLIENT, SERVER, next_j, next_k, flag::ACK),
        (SERVER, CLIENT, next_k, next_j, flag::ACK),
        (SERVER, CLIENT, next_k, next_j, flag::RST | flag::ACK),
    ] {
        run(live, &segment(from, to, seq, ack, flags));
        // The same again within 10 ms is a copy.
        std::thread::sleep(Duration::from_millis(12));
    }
    let (client, server) = ([0x2001_0db8, 0, 0, 1], [0x2001_0db8, 0, 0, 2]);
    for (forth, flags, seq, ack) in
        [(true, flag::SYN, J, 0), (false, syn_ack, K, next_j), (true, flag::ACK, next_j, next_k)]
    {
        let (from, to) = if forth { (client, server) } else { (server, client) };
        let ports = if forth { (CLIENT.1, SERVER.1) } else { (SERVER.1, CLIENT.1) };
        let frame = FrameBuilder::new(Link::Ethernet).ipv6(from, to).tcp(flags, seq, ack);
        run(live, frame.between(ports.0, ports.1).bytes());
    }
}

/// A flood gives its first lines, and the number of those left out.
#[test]
fn the_kernel_sides_lines_are_limited() {
    if !has_capabilities(&[SYS_ADMIN]) {
        return skip("needs CAP_SYS_ADMIN");
    }
    let Some(live) = loaded(&Settings { kernel_log: true, ..small() }) else { return };
    let mut written = Vec::new();
    let begun = Instant::now();
    while !written.iter().any(|line: &String| line.contains("left out")) {
        assert!(begun.elapsed() < Duration::from_secs(20), "{} lines", written.len());
        run_on(&live.bpf, &segment(CLIENT, SERVER, J, 0, flag::SYN), 100);
        written.extend(lines(&live));
    }
    // A window is 2³⁰ ns; every CPU that the runs were on has as many lines in each.
    let windows = begun.elapsed().as_nanos() / (1 << 30) + 2;
    let cpus = possible_cpus().expect("the possible CPUs");
    assert!(written.len() as u128 <= 201 * windows * cpus as u128, "{} lines", written.len());
}

/// A packet with more extension headers than are walked is counted.
#[test]
fn a_chain_too_long_is_counted() {
    let Some(mut live) = loaded(&small()) else { return };
    run(&live, &long_chain());
    let reading = live.read().expect("counters");
    assert_eq!(word(&reading, Counter::ExtensionChains), 1);
}

/// The lines in the ring, without the blanks at their ends.
fn lines(live: &Live) -> Vec<String> {
    let program = live.bpf.program("handshake_xdp_rest").expect("loaded").info().expect("its description");
    let lines = Lines::default();
    let logger = EbpfLogger::init_from_id_with_logger(program.id(), lines.clone());
    logger.expect("the ring is among the program's maps").flush();
    lines
        .0
        .lock()
        .expect("no thread panicked with it")
        .iter()
        .map(|line| line.trim_end().to_owned())
        .collect()
}

/// A logger that collects lines.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<String>>>);

impl log::Log for Lines {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        self.0.lock().expect("no thread panicked with it").push(record.args().to_string());
    }

    fn flush(&self) {}
}

/// Reads the counters while no program runs.
fn counters_of(bpf: &Ebpf) -> CounterBlock {
    read_counts(bpf).expect("counters at rest").0
}

/// Reads the CPUs' counter blocks, whole or torn.
fn blocks_of(map: &PerCpu<'_, CpuCounts>) -> Result<Vec<CounterBlock>, LiveError> {
    Ok(values(map, "COUNTERS", 0)?.iter().map(|cpu| cpu.counters).collect())
}

/// Hooks of two interfaces: one look fails for the moment, and the other one's finding is told once.
struct HalfAnswered(bool);

impl Hooks for HalfAnswered {
    fn look(&mut self) -> Vec<InterfaceLook> {
        let first = !std::mem::replace(&mut self.0, true);
        let of = |name: &str, odd: HookState| InterfaceLook {
            name: name.to_owned(),
            number: Some(0),
            is_required: true,
            state: LinkState::Up,
            came_back: false,
            hooks: vec![HookLook {
                direction: Direction::Ingress,
                hook: Hook::Tcx,
                state: if first { odd } else { HookState::Ours },
                again: None,
            }],
        };
        vec![of("a", HookState::Passing(libc::EMFILE)), of("b", HookState::Gone)]
    }

    fn attach_again(&mut self, look: &mut InterfaceLook) {
        look.hooks[0].again = Some(Ok(()));
    }

    fn lost_before_hook(&self) -> LostBeforeHook {
        LostBeforeHook::default()
    }
}

#[test]
fn a_look_that_fails_for_the_moment_hides_no_other_finding() {
    let Some(mut live) = loaded(&small()) else { return };
    live.watch(HalfAnswered(false));
    let error = live.look().map(drop).expect_err("one hook was not looked at");
    assert!(error.is_passing(), "{error}");
    let sight = live.look().expect("the second look").clone();
    assert_eq!(sight.hook_lost.count, 1, "{sight:?}");
    assert_eq!(sight.hook_lost.words(), "b: the ingress hook (tcx) was lost, and is attached again");
}

/// Settings with tables of 64 slots.
fn small() -> Settings {
    Settings { max_flows: 32, ..Settings::default() }
}

/// A filter of ports and networks, as the command line spells them.
fn filter(ports: &[&str], nets: &[&str]) -> Filter {
    Filter {
        ports: ports.iter().map(|text| text.parse().expect("a port")).collect(),
        nets: nets.iter().map(|text| text.parse().expect("a prefix")).collect(),
    }
}

/// Loads the object with `settings`, and its XDP program. `None`, reported and counted as skipped, if that is
/// impossible.
fn loaded(settings: &Settings) -> Option<Live> {
    let mut live = Live::load(&privileged_object()?, settings).expect("load the object");
    load_xdp(&mut live);
    watch_at_once(&mut live, LOOPBACK);
    Some(live)
}

/// The interface of a test run's packets, with its gate open.
fn watch_at_once(live: &mut Live, index: u32) -> u16 {
    let number = live.enter(WatchedInterface { index, group: 0, raw: false }).expect("there is room");
    live.set_gate(number, true).expect("the map takes it");
    number
}

/// Reads the object; `None` if this thread may not load it.
fn privileged_object() -> Option<Vec<u8>> {
    if !has_capabilities(&NEEDED) {
        skip("needs CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN");
        return None;
    }
    object_file()
}

fn load_xdp(live: &mut Live) {
    crate::load::program(live.programs(), "handshake_xdp").expect("the verifier accepts the XDP programs");
}

fn object_file() -> Option<Vec<u8>> {
    // The object that the agent embeds, according to the build script; otherwise the committed one.
    let path = option_env!("HANDSHAKE_BPF_OBJECT")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("bpf/handshake.bpf.o"), Into::into);
    let elf = std::fs::read(&path).ok();
    if elf.is_none() {
        skip("needs the BPF object: cargo xtask build-ebpf");
    }
    elf
}

/// CAP_BPF, CAP_PERFMON (the verifier requires it for pointer arithmetic) and CAP_NET_ADMIN, by number.
const NEEDED: [u32; 3] = [39, 38, 12];
/// CAP_SYS_ADMIN, which opening a map by its id takes.
const SYS_ADMIN: u32 = 21;

/// Whether all of these are among the effective capabilities.
fn has_capabilities(wanted: &[u32]) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").expect("our own status");
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:")).expect("a line of capabilities");
    let effective = u64::from_str_radix(line.trim(), 16).expect("a hexadecimal set");
    wanted.iter().all(|bit| effective >> bit & 1 == 1)
}

/// Drops the capabilities of this thread. They are per thread: the other tests keep theirs.
fn drop_capabilities() {
    /// `struct __user_cap_header_struct` of linux/capability.h; pid 0 is this thread.
    #[repr(C)]
    struct Header {
        version: u32,
        pid: i32,
    }
    const VERSION_3: u32 = 0x2008_0522;
    let header = Header { version: VERSION_3, pid: 0 };
    // Effective, permitted and inheritable, for capabilities below 32 and from 32 on.
    let none = [[0_u32; 3]; 2];
    // SAFETY: version 3 reads one header and two of the triples.
    let done = unsafe { libc::syscall(libc::SYS_capset, &raw const header, &raw const none) };
    assert_eq!(done, 0, "dropping capabilities is always permitted");
}

/// Reports a skipped test on stderr directly, which the harness does not capture, and in the file that sums
/// up a run.
fn skip(reason: &str) {
    let line = format!("skipped: {reason}\n");
    let _closed = io::stderr().write_all(line.as_bytes());
    if let Some(log) = std::env::var_os("HANDSHAKE_SKIP_LOG") {
        let mut file = std::fs::OpenOptions::new().create(true).append(true).open(log).expect("the skip log");
        file.write_all(line.as_bytes()).expect("write the skip log");
    }
}

/// The kernel's answer to BPF_MAP_UPDATE_ELEM (2) on the first value. It refuses a frozen map before it looks
/// at the value.
fn update(map: BorrowedFd<'_>) -> io::Error {
    #[repr(C)]
    struct Attributes {
        map: u32,
        reserved: u32,
        key: *const u32,
        value: *const u8,
        flags: u64,
    }
    let value = vec![0xff_u8; 1 << 20];
    let attributes = Attributes {
        map: map.as_raw_fd().cast_unsigned(),
        reserved: 0,
        key: &0,
        value: value.as_ptr(),
        flags: 0,
    };
    // SAFETY: the kernel reads the attributes, a key, and no more of the value than a map's value takes on
    // all CPUs; all of them outlive the call.
    let done = unsafe { libc::syscall(libc::SYS_bpf, 2_i64, &raw const attributes, size_of::<Attributes>()) };
    assert_eq!(done, -1, "the kernel accepted it");
    io::Error::last_os_error()
}

fn handshake(live: &Live) {
    segments().iter().for_each(|segment| run(live, segment));
}

/// A SYN, SYN+ACK and ACK with matching numbers.
fn segments() -> [Vec<u8>; 3] {
    let (next_j, next_k) = (J.wrapping_add(1), K.wrapping_add(1));
    [
        segment(CLIENT, SERVER, J, 0, flag::SYN),
        segment(SERVER, CLIENT, K, next_j, flag::SYN | flag::ACK),
        segment(CLIENT, SERVER, next_j, next_k, flag::ACK),
    ]
}

/// An IPv6 packet with twenty destination options headers, which no host sends.
fn long_chain() -> Vec<u8> {
    const DESTINATION_OPTIONS: u8 = 60;
    const NO_NEXT_HEADER: u8 = 59;
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x86, 0xdd];
    frame.extend([0x60, 0, 0, 0, 0, 160, DESTINATION_OPTIONS, 64]);
    frame.extend([0xfd; 32]);
    for number in 0..20 {
        let next = if number < 19 { DESTINATION_OPTIONS } else { NO_NEXT_HEADER };
        // Eight bytes: the next header, a length of no further eight bytes, and a PadN option of four.
        frame.extend([next, 0, 1, 4, 0, 0, 0, 0]);
    }
    frame
}

/// An Ethernet frame of a TCP segment without data.
fn segment(from: ([u8; 4], u16), to: ([u8; 4], u16), seq: u32, ack: u32, flags: u8) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x08, 0x00];
    frame.extend([0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6, 0, 0]);
    frame.extend(from.0);
    frame.extend(to.0);
    frame.extend(from.1.to_be_bytes());
    frame.extend(to.1.to_be_bytes());
    frame.extend(seq.to_be_bytes());
    frame.extend(ack.to_be_bytes());
    frame.extend([0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
    frame
}

fn run(live: &Live, frame: &[u8]) {
    run_on(&live.bpf, frame, 1);
}

/// Runs the XDP program `repeat` times on `frame`, which must pass unchanged.
fn run_on(bpf: &Ebpf, frame: &[u8], repeat: u32) {
    let program: &Xdp =
        bpf.program("handshake_xdp").expect("loaded").try_into().expect("it is an XDP program");
    let mut out = [0; 512];
    let options = TestRunOptions {
        data_in: Some(frame),
        data_out: Some(&mut out),
        repeat,
        ..TestRunOptions::default()
    };
    let result = program.test_run(options).expect("a test run");
    assert_eq!(result.return_value, XDP_PASS);
    assert_eq!(&out[..result.data_size_out as usize], frame);
}

fn records(live: &Live) -> Vec<Record> {
    let mut records = Vec::new();
    live.for_each_record(&mut |record| records.push(*record));
    records
}

fn word(reading: &Reading, counter: Counter) -> u64 {
    reading.counters.words[counter as usize]
}
