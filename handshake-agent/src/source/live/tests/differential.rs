//! Runs the same packets through the kernel and the host. The engine is one crate compiled twice, so the
//! kernel's maps and the host's memory must end with the same bytes, and every hook must pass the packets
//! unchanged.
//!
//! Packets come from a fixed seed; `HANDSHAKE_SEED` adds another one, and a failure names its seed.

mod compare;
mod difference;
mod generate;
mod host;
mod kernel;
mod time;

use handshake_common::engine;

use self::compare::Comparison;
use self::generate::{Random, Scope};
pub(super) use self::kernel::stripes;
use self::kernel::{HZ, configure, loaded_whole, unfrozen};
use super::*;
use crate::attach::selection;
use crate::source::settings::WatchedInterface;

const SEED: u64 = 0x5e9_0001;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hook {
    Xdp,
    Ingress,
    Egress,
}

impl Hook {
    const ALL: [Self; 3] = [Self::Xdp, Self::Ingress, Self::Egress];

    const fn program(self) -> &'static str {
        match self {
            Self::Xdp => "handshake_xdp",
            Self::Ingress => "handshake_ingress",
            Self::Egress => "handshake_egress",
        }
    }
}

/// A sequence of packets for both sides.
struct Scenario {
    name: &'static str,
    settings: Settings,
    /// The interfaces; the number of each is its place here.
    interfaces: Vec<WatchedInterface>,
    hooks: &'static [Hook],
    packets: u64,
    scope: Scope,
    /// Whether gates open and close on the way.
    gated: bool,
    /// The number of packets between two comparisons of tables and counters; with 1, a difference is found at
    /// the packet that caused it.
    look_every: u64,
    /// Checks from the counters at the end that the packets covered what they should.
    covers: fn(&[u64]),
}

/// Where and how a packet arrives.
#[derive(Clone, Copy, Debug)]
struct Arrival {
    hook: Hook,
    /// The interface's number.
    interface: u8,
    /// TC: `gso_segs`, as a driver or a socket sets it.
    segments: u32,
    /// TC: `gso_size`; of a super-packet that a virtio header brought in, all that is known of its segments.
    segment_size: u32,
    /// XDP: the bytes in the frame's linear part; the rest is in fragments.
    linear: Option<usize>,
}

/// With the test's clocks everything is equal, including times. The programs are loaded once: between two
/// scenarios the maps, which a live run would have frozen, are cleared and filled again.
#[test]
fn kernel_and_host_agree_with_the_test_clock() {
    crate::attach::testing::in_namespace(|| {
        let Some(mut live) = unfrozen(&tables(4_096)) else { return };
        for scenario in scenarios() {
            for seed in seeds() {
                configure(&mut live, &scenario.settings, &scenario.interfaces);
                let words = Comparison::new(&scenario, seed, &mut live).run();
                (scenario.covers)(&words);
            }
        }
    });
}

/// With the clocks of attached programs, everything except the times is equal. Nothing expires and nothing is
/// evicted, because both depend on the times.
#[test]
fn kernel_and_host_agree_with_their_own_clocks() {
    const FOREVER: Duration = Duration::from_secs(1 << 20);
    let settings = Settings {
        test_clock: false,
        events: true,
        rules: Rules { half_open_after: FOREVER, expire_after: FOREVER, ..Rules::default() },
        ..tables(65_536)
    };
    let scope = Scope { flows: 400, any_port: false, elsewhere: false, smooth: false };
    // One hook point: whether a packet at another one is a repeat depends on the time. And no datagram from
    // elsewhere: it may be of no service, and is counted in `other` then.
    let hooks = &[Hook::Xdp, Hook::Ingress];
    let scenario =
        Scenario { scope, hooks, packets: 25_000, look_every: 1_000, ..scenario("its own clocks", settings) };
    for seed in seeds() {
        let Some(mut live) = loaded_whole(&scenario.settings) else { return };
        let words = Comparison::new(&scenario, seed, &mut live).run();
        assert_eq!(words[Counter::Evicted as usize] + words[Counter::Untracked as usize], 0);
        let other = live.services[0].copy().gauges[0];
        assert_eq!(
            (other, words[Counter::ServicesEvicted as usize]),
            (0, 0),
            "a row is given to another service after a second, which the two measure apart"
        );
    }
}

fn seeds() -> impl Iterator<Item = u64> {
    let more = std::env::var("HANDSHAKE_SEED").ok();
    let more = more.map(|seed| seed.parse().expect("HANDSHAKE_SEED is a number"));
    std::iter::once(SEED).chain(more)
}

fn scenarios() -> [Scenario; 11] {
    let both = &[Hook::Ingress, Hook::Egress];
    let events = |settings| Settings { events: true, ..settings };
    let one_sided = Rules { one_sided: true, ..Rules::default() };
    let verifying = Rules { verify_checksums: true, ..Rules::default() };
    [
        Scenario { hooks: &[Hook::Xdp], covers: every_counter, ..scenario("xdp, 64 slots", tables(32)) },
        Scenario { hooks: both, covers: every_counter, ..scenario("tc, 64 slots", events(tables(32))) },
        Scenario { packets: 40_000, covers: filtered, ..scenario("filters", filters()) },
        Scenario {
            packets: 20_000,
            ..scenario("one-sided", Settings { rules: one_sided, ..events(tables(256)) })
        },
        Scenario {
            packets: 20_000,
            covers: verified,
            interfaces: two_interfaces(),
            ..scenario("checksums", Settings { rules: verifying, ..events(tables(256)) })
        },
        // More services than the table has rows: the rest is counted in `other`, or takes another's row.
        Scenario {
            scope: Scope { flows: 400, any_port: true, elsewhere: true, smooth: false },
            packets: 40_000,
            covers: exchanges,
            ..scenario("more services than rows", tables(256))
        },
        Scenario { packets: 20_000, interfaces: two_interfaces(), ..scenario("two interfaces", tables(256)) },
        Scenario {
            gated: true,
            packets: 20_000,
            interfaces: two_interfaces(),
            ..scenario("gates", events(tables(256)))
        },
        handshakes("handshakes at xdp", &[Hook::Xdp]),
        handshakes("handshakes at ingress", &[Hook::Ingress]),
        handshakes("handshakes at egress", &[Hook::Egress]),
    ]
}

/// Handshakes at one hook, with room for all: most go straight, each of their segments.
fn handshakes(name: &'static str, hooks: &'static [Hook]) -> Scenario {
    let scope = Scope { flows: 120, any_port: false, elsewhere: false, smooth: true };
    let settings = tables(4_096);
    Scenario { scope, hooks, packets: 6_000, look_every: 100, covers: completed, ..scenario(name, settings) }
}

fn scenario(name: &'static str, settings: Settings) -> Scenario {
    let scope = Scope { flows: 120, any_port: false, elsewhere: true, smooth: false };
    Scenario {
        name,
        settings,
        interfaces: vec![WatchedInterface { index: LOOPBACK, group: 0, raw: false }],
        hooks: &Hook::ALL,
        packets: 30_000,
        scope,
        gated: false,
        look_every: 16,
        covers: |_| {},
    }
}

/// Settings with the test's clocks and factors that both sides know.
fn tables(max_flows: u32) -> Settings {
    let mut random = Random::new(SEED);
    Settings { test_clock: true, max_flows, factors: Some(engine::factors(|| random.word())), ..small() }
}

/// Settings with filters by port and by network, of both families.
fn filters() -> Settings {
    let nets = ["10.0.0.0/27", "ff00::/23", "2001:db8::/96"];
    Settings { filter: filter(&["443", "53", "40003"], &nets), ..tables(32) }
}

/// Two interfaces, the second without link headers. The device of a test run must exist in the thread's
/// namespace.
fn two_interfaces() -> Vec<WatchedInterface> {
    let index = selection::named("hs-a").expect("the namespace has its veth").index;
    vec![
        WatchedInterface { index: LOOPBACK, group: 0, raw: false },
        WatchedInterface { index, group: 1, raw: true },
    ]
}

/// Checks that every counter moved that can move on one CPU, without a filter, and with room in the ring.
fn every_counter(words: &[u64]) {
    // An attempt always finds a place, and these sets never hold more than six records that completed.
    let still = [
        Counter::Contended,
        Counter::LostEvents,
        Counter::Filtered,
        Counter::EvictedCompleted,
        Counter::Untracked,
        Counter::ForeignIcmp,
        Counter::BadChecksum,
        // With some seeds no connection lasts until it is silent: tests end to end have some.
        Counter::WasSilent,
        // Of an attempt that is open these count only until it ends; how each ends is counted as well.
        Counter::OpenNoSynAck,
        Counter::OpenNoAck,
        Counter::OpenAnswerUnseen,
    ];
    let still = still.map(|counter| counter as usize);
    let last = Counter::EnteredResponderAborted as usize;
    let idle: Vec<_> = (0..=last).filter(|place| words[*place] == 0 && !still.contains(place)).collect();
    assert!(idle.is_empty(), "counters that never moved: {idle:?}");
}

fn completed(words: &[u64]) {
    let [attempts, completed, evicted] = [Counter::Attempts, Counter::Completed, Counter::EvictedCompleted]
        .map(|counter| words[counter as usize]);
    assert!(attempts > 1_800 && completed > 1_000, "{attempts} attempts, {completed} completed");
    assert_eq!(evicted, 0, "there is room");
}

fn exchanges(words: &[u64]) {
    let exchanges = words[Counter::ServicesEvicted as usize];
    assert!(exchanges > 100, "{exchanges} rows were given to another service");
}

fn verified(words: &[u64]) {
    let [attempts, completed, wrong] =
        [Counter::Attempts, Counter::Completed, Counter::BadChecksum].map(|counter| words[counter as usize]);
    assert!(attempts > 100 && completed > 10, "{attempts} attempts, {completed} completed");
    assert!(wrong > 100, "{wrong} wrong checksums");
}

fn filtered(words: &[u64]) {
    let [attempts, filtered] = [Counter::Attempts, Counter::Filtered].map(|counter| words[counter as usize]);
    assert!(attempts > 100 && filtered > 1000, "{attempts} attempts, {filtered} packets filtered out");
}
