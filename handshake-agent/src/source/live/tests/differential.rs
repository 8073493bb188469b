//! The keystone: the engine is one crate compiled twice, so the same packets must leave the same bytes behind in the
//! kernel's maps as in the host's memory, and pass every hook as they came.
//!
//! Packets come from a fixed seed; `HANDSHAKE_SEED` adds another, and a failure names its own.

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
use self::kernel::{configure, loaded_whole, unfrozen};
use super::*;
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

/// A run of packets through both.
struct Scenario {
    name: &'static str,
    settings: Settings,
    hooks: &'static [Hook],
    packets: u64,
    scope: Scope,
    /// Packets between two looks at tables and counters; 1 finds the very packet that a difference came with.
    look_every: u64,
    /// What the counters must show at the end, lest the packets meant nothing.
    covers: fn(&[u64]),
}

/// Where a packet comes in, and how.
#[derive(Clone, Copy, Debug)]
struct Arrival {
    hook: Hook,
    /// Its number in the settings.
    interface: u8,
    /// TC: `gso_segs`, as a driver or a socket says it.
    segments: u32,
    /// XDP: bytes in the frame's linear part, the rest in fragments.
    linear: Option<usize>,
}

/// With the test's clocks everything is equal, times included. One load serves all: between two scenarios the maps,
/// which a live run would have frozen, are cleared and filled anew.
#[test]
fn the_kernel_does_what_the_host_does() {
    crate::attach::testing::in_namespace(|| {
        let Some(mut live) = unfrozen(&tables(256)) else { return };
        for scenario in scenarios() {
            for seed in seeds() {
                configure(&mut live, &scenario.settings);
                let words = Comparison::new(&scenario, seed, &mut live).run();
                (scenario.covers)(&words);
            }
        }
    });
}

/// With the clocks that programs have when they are attached, everything is equal but the times. Nothing expires and
/// nothing is evicted, which hangs on them.
#[test]
fn the_kernel_does_what_the_host_does_with_its_own_clocks() {
    const FOREVER: Duration = Duration::from_secs(1 << 20);
    let settings = Settings {
        test_clock: false,
        events: true,
        rules: Rules { half_open_after: FOREVER, expire_after: FOREVER, ..Rules::default() },
        ..tables(65_536)
    };
    let scope = Scope { flows: 400, any_port: false };
    let scenario =
        Scenario { scope, packets: 100_000, look_every: 5_000, ..scenario("its own clocks", settings) };
    for seed in seeds() {
        let Some(mut live) = loaded_whole(&scenario.settings) else { return };
        let words = Comparison::new(&scenario, seed, &mut live).run();
        assert_eq!(words[Counter::Evicted as usize] + words[Counter::Untracked as usize], 0);
    }
}

fn seeds() -> impl Iterator<Item = u64> {
    let more = std::env::var("HANDSHAKE_SEED").ok();
    let more = more.map(|seed| seed.parse().expect("HANDSHAKE_SEED is a number"));
    std::iter::once(SEED).chain(more)
}

fn scenarios() -> [Scenario; 6] {
    let both = &[Hook::Ingress, Hook::Egress];
    let events = |settings| Settings { events: true, ..settings };
    let one_sided = Rules { one_sided: true, ..Rules::default() };
    [
        Scenario { hooks: &[Hook::Xdp], covers: every_counter, ..scenario("xdp, 64 slots", tables(32)) },
        Scenario { hooks: both, covers: every_counter, ..scenario("tc, 64 slots", events(tables(32))) },
        Scenario { packets: 20_000, covers: filtered, ..scenario("filters", filters()) },
        Scenario {
            packets: 20_000,
            ..scenario("one-sided", Settings { rules: one_sided, ..events(tables(256)) })
        },
        // More services than the table has rows: the rest is `other`.
        Scenario {
            scope: Scope { flows: 400, any_port: true },
            packets: 40_000,
            ..scenario("services without end", tables(256))
        },
        Scenario { packets: 20_000, ..scenario("two interfaces", two_interfaces()) },
    ]
}

fn scenario(name: &'static str, settings: Settings) -> Scenario {
    let scope = Scope { flows: 120, any_port: false };
    Scenario { name, settings, hooks: &Hook::ALL, packets: 30_000, scope, look_every: 16, covers: |_| {} }
}

/// The test's clocks, and factors known to both.
fn tables(max_flows: u32) -> Settings {
    let mut random = Random::new(SEED);
    Settings { test_clock: true, max_flows, factors: Some(engine::factors(|| random.word())), ..small() }
}

/// By port and by prefix, of both families.
fn filters() -> Settings {
    let nets = ["10.0.0.0/27", "ff00::/23", "2001:db8::/96"];
    Settings { filter: filter(&["443", "53", "40003"], &nets), ..tables(32) }
}

/// The second without link headers. The device of a test run is one of the thread's namespace.
fn two_interfaces() -> Settings {
    // SAFETY: a string that ends in a zero and outlives the call.
    let index = unsafe { libc::if_nametoindex(c"hs-a".as_ptr()) };
    assert_ne!(index, 0, "the namespace has its veth");
    let mut settings = tables(256);
    settings.interfaces.push(WatchedInterface { index, raw: true });
    settings
}

/// The packets meant something: each counter moved that one CPU without a filter and with room in the ring can move.
fn every_counter(words: &[u64]) {
    // No newcomer is worth as much as a completed connection.
    let still = [Counter::Contended, Counter::LostEvents, Counter::Filtered, Counter::EvictedCompleted];
    let still = still.map(|counter| counter as usize);
    let last = Counter::EnteredResponderAborted as usize;
    let idle: Vec<_> = (0..=last).filter(|place| words[*place] == 0 && !still.contains(place)).collect();
    assert!(idle.is_empty(), "counters that never moved: {idle:?}");
}

fn filtered(words: &[u64]) {
    let [attempts, filtered] = [Counter::Attempts, Counter::Filtered].map(|counter| words[counter as usize]);
    assert!(attempts > 100 && filtered > 1000, "{attempts} attempts, {filtered} packets filtered out");
}
