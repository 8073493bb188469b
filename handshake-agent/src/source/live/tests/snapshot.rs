//! A snapshot of a table whose flows are known: what it says of them and, where `cargo xtask bench` asks, how long it takes.
//!
//! Every flow is made by its packets, in the kernel: of eight, six complete, one waits for its ACK and one for its SYN+ACK.
//! `HANDSHAKE_BENCH_SNAPSHOT=FLOWS,ROUNDS` asks for other numbers than the suite's, and for a line with the times of as
//! many rounds. A round is the agent's own [`Snapshot::take`] and nothing else.

use std::mem::MaybeUninit;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Instant;

use handshake_common::engine;
use handshake_common::wire::Link;
use handshake_common::wire::build::FrameBuilder;

use super::flood::{Flood, Template};
use super::load::pin;
use super::*;
use crate::model::snapshot::{Books, Context, Origin, ServiceBooks, Snapshot};
use crate::options::Filter;
use crate::source::scan::ByCause;

/// What the bench asks by, and what the line it reads begins with.
const VARIABLE: &str = "HANDSHAKE_BENCH_SNAPSHOT";
const LINE: &str = "snapshot: ";
/// Responders; each has as many clients as the others.
const RESPONDERS: u32 = 16;
const FIRST_RESPONDER: u32 = 0xc000_0200;
/// Client 0 of each.
const FIRST_CLIENT: u32 = 0x0a00_0000;
/// Where the client's address is in a frame, as source and as destination.
const SOURCE: u8 = 26;
const DESTINATION: u8 = 30;
/// Clients come in eights: so many begin, are answered, and complete.
const EIGHT: u32 = 8;
const ANSWERED: u32 = 7;
const COMPLETED: u32 = 6;

#[test]
fn a_snapshot_has_exactly_the_flows_that_were_made() {
    let (flows, rounds) = asked().unwrap_or((4096, 0));
    assert!(flows.is_multiple_of(RESPONDERS * EIGHT), "{flows} flows are no whole eights a responder");
    let Some(mut live) = loaded(&settings(flows)) else { return };
    stay();
    make(&live, flows / RESPONDERS);
    let context = context();
    // This one finds no memory of ours in use yet, and no page of the table in the processor's.
    let mut last = take(&mut live, &context, None);
    assert_holds(&last, flows);
    let memory = Plain::new(if rounds > 0 { last.table.slots } else { 0 });
    let mut times = Vec::new();
    for _ in 0..rounds {
        let begun = (Instant::now(), cpu_time());
        let snapshot = take(&mut live, &context, Some(&last));
        let taken = (begun.0.elapsed(), cpu_time() - begun.1);
        times.push(Times { wall: taken.0, cpu: taken.1, memory: memory.read() });
        last = snapshot;
    }
    assert_holds(&last, flows);
    if rounds > 0 {
        println!("{LINE}{}", line(&last, &times));
    }
}

/// Flows and rounds, where somebody asks.
fn asked() -> Option<(u32, u32)> {
    let value = std::env::var(VARIABLE).ok()?;
    let (flows, rounds) = value.split_once(',').expect("FLOWS,ROUNDS");
    Some((flows.parse().expect("flows"), rounds.parse().expect("rounds")))
}

/// What the agent has by default, but that what is open is half-open at once. With these factors none of the suite's flows
/// finds both its sets full.
fn settings(flows: u32) -> Settings {
    let mut word = 2_u64;
    // Knuth's, of MMIX.
    let factors = engine::factors(|| {
        word = word.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        word
    });
    let rules = Rules { half_open_after: Duration::ZERO, ..Rules::default() };
    Settings { rules, max_flows: flows, factors: Some(factors), ..small() }
}

/// Has each responder's clients send what they send, and get their answers.
fn make(live: &Live, clients: u32) {
    let flood = Flood::in_turn(live, &template(FIRST_RESPONDER, true, flag::SYN, (J, 0)));
    let (next_j, next_k) = (J.wrapping_add(1), K.wrapping_add(1));
    for responder in FIRST_RESPONDER..FIRST_RESPONDER + RESPONDERS {
        for (of_eight, forth, flags, numbers) in [
            (EIGHT, true, flag::SYN, (J, 0)),
            (ANSWERED, false, flag::SYN | flag::ACK, (K, next_j)),
            (COMPLETED, true, flag::ACK, (next_j, next_k)),
        ] {
            flood.begin(&template(responder, forth, flags, numbers));
            flood.run(clients / EIGHT * of_eight);
        }
    }
}

/// A segment from a client (`forth`) or to it.
fn template(responder: u32, forth: bool, flags: u8, (seq, ack): (u32, u32)) -> Template {
    let frame = FrameBuilder::new(Link::Ethernet);
    let frame = if forth {
        frame.ipv4(FIRST_CLIENT, responder).tcp(flags, seq, ack).between(CLIENT.1, SERVER.1)
    } else {
        frame.ipv4(responder, FIRST_CLIENT).tcp(flags, seq, ack).between(SERVER.1, CLIENT.1)
    };
    Template { frame: frame.bytes().to_vec(), client: if forth { SOURCE } else { DESTINATION } }
}

fn context() -> Arc<Context> {
    let origin = Origin::Live { interfaces: Vec::new() };
    Arc::new(Context { origin, from_ns: 0, filter: Filter::default(), top: RESPONDERS as usize })
}

fn take(live: &mut Live, context: &Arc<Context>, previous: Option<&Snapshot>) -> Snapshot {
    Snapshot::take(live, context, previous).expect("counters at rest")
}

/// Fails unless the snapshot has these flows and no others. Of a million some dozen find both their sets full.
fn assert_holds(snapshot: &Snapshot, flows: u32) {
    let (untracked, evicted) = (snapshot.untracked, snapshot.tcp.books.evicted);
    let lost: u64 = snapshot.losses().iter().map(|(_, lost)| lost).sum();
    assert_eq!(lost, untracked + evicted, "{:?}", snapshot.losses());
    assert!(lost <= u64::from(flows / 20_000), "{lost} of {flows} crowded out");
    assert_eq!(snapshot.tcp.books.attempts + untracked, u64::from(flows));
    // The answer to one that has no record may have one.
    assert!(snapshot.table.used.abs_diff(u64::from(flows)) <= lost, "{}", snapshot.table.used);
    assert_eq!(snapshot.unsettled, 0);
    if lost == 0 {
        assert_holds_each(snapshot, flows);
    }
}

/// Fails unless every flow is in its place, in the sums and in the rows of the services.
fn assert_holds_each(snapshot: &Snapshot, flows: u32) {
    assert_eq!(snapshot.tcp.books, books(flows));
    let mut services: Vec<_> = snapshot.services.iter().map(|row| (row.service, row.books)).collect();
    services.sort_by_key(|(service, _)| *service);
    let expected = (FIRST_RESPONDER..FIRST_RESPONDER + RESPONDERS).map(|responder| {
        let address = IpAddr::V4(Ipv4Addr::from_bits(responder));
        (Some(SocketAddr::new(address, SERVER.1)), ServiceBooks::Tcp(books(flows / RESPONDERS)))
    });
    assert!(services.iter().copied().eq(expected), "{services:?}");
}

fn books(flows: u32) -> Books {
    let eighth = u64::from(flows / EIGHT);
    Books {
        attempts: flows.into(),
        completed: eighth * u64::from(COMPLETED),
        half_open: ByCause { no_syn_ack: eighth, no_ack: eighth },
        ..Books::default()
    }
}

/// A round's: of the snapshot by the clock and by CPU, and of reading as much memory.
struct Times {
    wall: Duration,
    cpu: Duration,
    memory: Duration,
}

/// As many lines of plain memory as a table has slots: what the machine asks for reading them is no snapshot's fault.
struct Plain(Vec<[u64; 8]>);

impl Plain {
    fn new(slots: u64) -> Self {
        let slots = usize::try_from(slots).expect("a table fits memory");
        let mut lines = Vec::with_capacity(slots);
        // Before the first byte is written: pages that are there stay as they are.
        in_small_pages(lines.spare_capacity_mut());
        lines.resize(slots, [1; 8]);
        Self(lines)
    }

    /// One word of each line, and nothing with it; CPU time.
    fn read(&self) -> Duration {
        let begun = cpu_time();
        let sum = self.0.iter().fold(0_u64, |sum, line| sum.wrapping_add(line[0]));
        std::hint::black_box(sum);
        cpu_time() - begun
    }
}

/// Has memory come in pages of 4 KiB, as a table's does, whatever the system does with large pieces.
fn in_small_pages<T>(memory: &mut [MaybeUninit<T>]) {
    const PAGE: usize = 4096;
    let start = memory.as_mut_ptr().cast::<u8>();
    let skipped = start.align_offset(PAGE);
    let Some(length) = size_of_val(memory).checked_sub(skipped).map(|rest| rest / PAGE * PAGE) else {
        return;
    };
    // SAFETY: whole pages within the range that we were given; the advice changes no byte. A kernel without huge pages
    // refuses it, and has none to give.
    unsafe { libc::madvise(start.add(skipped).cast(), length, libc::MADV_NOHUGEPAGE) };
}

/// What the bench reads.
fn line(snapshot: &Snapshot, times: &[Times]) -> serde_json::Value {
    let ms = |of: fn(&Times) -> Duration| {
        times.iter().map(|times| of(times).as_secs_f64() * 1e3).collect::<Vec<_>>()
    };
    serde_json::json!({
        "flows": snapshot.table.used, "slots": snapshot.table.slots,
        "half_open": snapshot.tcp.books.half_open.total(), "wall_ms": ms(|times| times.wall),
        "cpu_ms": ms(|times| times.cpu), "memory_ms": ms(|times| times.memory),
    })
}

/// Keeps this thread on the CPU it is on.
fn stay() {
    // SAFETY: it takes nothing.
    let cpu = unsafe { libc::sched_getcpu() };
    pin(usize::try_from(cpu).expect("a CPU"));
}

/// What this thread has had of its CPU, system calls included.
fn cpu_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel writes one timespec, which is ours.
    let done = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
    let seconds = u64::try_from(time.tv_sec).expect("seconds since the thread began");
    Duration::new(seconds, u32::try_from(time.tv_nsec).expect("less than a second"))
}
