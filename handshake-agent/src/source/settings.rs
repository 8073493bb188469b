//! The engine's settings, the sizes of its tables, and the [`Config`] made of both. The same for the kernel
//! side and for a replay.

use std::io;
use std::time::Duration;

use handshake_common::abi::{
    CLIENTS, ClassBlock, Config, ConnectTimes, ControlGroups, CpuCounts, Flow4, Flow6, HASH_WORDS, Histogram,
    MAX_NETS, Makers, NEAR_BLOCKS, Net, PORT_WORDS, PortSet, RING_BYTES, ROWS, STRIPES, Service,
    TCP_SERVICES, WAYS, option,
};
use handshake_common::interface::INTERFACE_ROWS;
use handshake_common::record::Clocks;
use handshake_common::verdict::Leg;
use rustix::rand::{GetRandomFlags, getrandom};

use crate::options::{Filter, Options, Rules};

/// The smallest number of slots of a table: one page of IPv4 records, the least that can be mapped.
const MIN_SLOTS: u64 = 64;
/// The largest number of slots of a table: 2²⁷ IPv4 records take 8 GiB. A larger number is taken for a typing
/// error.
const MAX_SLOTS: u64 = 1 << 27;
/// The longest time in jiffies: their serial comparison works for ages under 2³¹.
const MAX_JIFFIES: u32 = i32::MAX as u32;
/// The time within which the same segment at another hook point is a repeat.
const REPEAT_WITHIN: Duration = Duration::from_millis(100);
/// Class blocks beside the counters.
#[expect(clippy::cast_possible_truncation, reason = "there are a few")]
const NEAR: u32 = NEAR_BLOCKS as u32;
/// Room for interfaces where only a few can come: those that are named, and the numbers of some that went.
pub const FEW_INTERFACES: u16 = 16;

/// An interface to watch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WatchedInterface {
    /// Its index in the kernel.
    pub index: u32,
    /// Its group, below [`GROUPS`](handshake_common::interface::GROUPS): the interfaces of a group are one
    /// place to the rules of copies and repeats.
    pub group: u8,
    /// Whether its frames begin at the IP header (tun, wireguard, ppp).
    pub raw: bool,
}

/// The settings of the engine.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How many interfaces can be watched at a time, at most
    /// [`MAX_INTERFACES`](handshake_common::abi::MAX_INTERFACES): each has packet counters per CPU.
    pub interfaces: u16,
    /// The times T1 and T2, the idle times, and whether completion is inferred.
    pub rules: Rules,
    /// Only flows that match this filter are tracked.
    pub filter: Filter,
    /// The number of flows that fit at least; [`Sizes`] derives the tables' sizes from it.
    pub max_flows: u32,
    /// The factors of the hash functions; `None`: random ones from the operating system.
    pub factors: Option<[[u64; HASH_WORDS]; 2]>,
    /// Whether the owners of attempts are kept, where the kernel tells them.
    pub owners: bool,
    /// Whether the makers of sockets are kept.
    pub processes: bool,
    /// Whether to send a record to the ring for each finished attempt.
    pub events: bool,
    /// Whether to keep the packets of open attempts.
    pub evidence: bool,
    /// Whether the kernel side explains each handshake segment of the flows that the filter selects; without
    /// this the verifier removes the lines.
    pub kernel_log: bool,
    /// Whether to keep the verifier's whole log of a program that it refuses: megabytes, and loading takes
    /// several times as long.
    pub verifier_log: bool,
    /// Whether the programs read the time from the map CLOCK, which only a test sets.
    pub test_clock: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self::of(&Options::default())
    }
}

impl Settings {
    /// The settings of a live run, with room for a few interfaces.
    #[must_use]
    pub fn of(options: &Options) -> Self {
        Self {
            rules: options.rules,
            filter: options.filter.clone(),
            max_flows: options.max_flows,
            owners: true,
            processes: options.processes,
            events: options.events,
            evidence: options.evidence,
            kernel_log: options.explains_segments(),
            verifier_log: options.verifier_log,
            interfaces: FEW_INTERFACES,
            factors: None,
            test_clock: false,
        }
    }

    /// The times of these settings, for jiffies at a rate of `hz`.
    pub fn clocks(&self, hz: u32) -> Clocks {
        Clocks {
            half_open_after_ns: nanos(self.rules.half_open_after),
            expire_after_ns: nanos(self.rules.expire_after),
            udp_idle_jiffies: jiffies(self.rules.udp_idle, hz),
            idle_after_jiffies: jiffies(self.rules.idle_after, hz),
        }
    }

    /// The configuration that the programs read, for jiffies at a rate of `hz`. Fails if there are more
    /// networks than it has room for, or if the system provides no random numbers.
    pub fn config(&self, sizes: Sizes, hz: u32) -> io::Result<Config> {
        let clocks = self.clocks(hz);
        let mut nets = [Net::default(); MAX_NETS];
        let given = &self.filter.nets;
        let places = nets.get_mut(..given.len()).ok_or_else(|| {
            invalid(format!("{} networks, but a filter takes at most {MAX_NETS}", given.len()))
        })?;
        places.iter_mut().zip(given).for_each(|(place, cidr)| *place = cidr.net());
        Ok(Config {
            factors: self.factors.map_or_else(random_factors, Ok)?,
            half_open_after_ns: clocks.half_open_after_ns,
            expire_after_ns: clocks.expire_after_ns,
            udp_idle_jiffies: clocks.udp_idle_jiffies,
            idle_after_jiffies: clocks.idle_after_jiffies,
            mask4: sizes.slots4 / WAYS - 1,
            mask6: sizes.slots6 / WAYS - 1,
            options: self.options(),
            nets,
            repeat_within_jiffies: jiffies(REPEAT_WITHIN, hz),
        })
    }

    /// The ports of the filter as a bit set, as the programs read them.
    pub fn port_set(&self) -> PortSet {
        let mut words = [0; PORT_WORDS];
        for port in self.filter.ports.iter().flat_map(|range| range.first..=range.last) {
            words[usize::from(port / 64)] |= 1 << (port % 64);
        }
        words
    }

    fn options(&self) -> u32 {
        [
            (self.events, option::EVENTS),
            (self.rules.one_sided, option::ONE_SIDED),
            (!self.filter.ports.is_empty(), option::PORTS),
            (!self.filter.nets.is_empty(), option::NETS),
            (self.test_clock, option::TEST_CLOCK),
            (self.rules.verify_checksums, option::CHECKSUMS),
            (self.kernel_log || self.processes, option::GENERAL),
        ]
        .into_iter()
        .filter(|(wanted, _)| *wanted)
        .fold(0, |options, (_, bit)| options | bit)
    }
}

/// The class blocks of so many interfaces that are not beside the counters; a map has one at least.
pub(super) fn far_blocks(interfaces: u16) -> u32 {
    u32::from(interfaces).saturating_sub(NEAR).max(1)
}

/// The memory of the tables per flow of `max_flows`, bytes, before they are rounded up: two IPv4 slots and a
/// quarter of an IPv6 slot, each with its owners.
pub const BYTES_A_FLOW: u64 =
    2 * (size::<Flow4>() + size::<ControlGroups>()) + (size::<Flow6>() + size::<ControlGroups>()) / 4;

/// The sizes of the tables, in slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Slots of the IPv4 table, a power of two.
    pub slots4: u32,
    /// Slots of the IPv6 table, a power of two.
    pub slots6: u32,
}

impl Sizes {
    /// The sizes for `max_flows`: two IPv4 slots per flow, so that a new flow rarely finds both its sets
    /// full, and one IPv6 slot per four flows.
    pub fn for_flows(max_flows: u32) -> Self {
        let flows = u64::from(max_flows);
        Self { slots4: slots(2 * flows), slots6: slots(flows.div_ceil(4)) }
    }

    /// The kernel memory of all maps together on a machine with `cpus` possible CPUs and with room for so
    /// many interfaces, bytes. Left out are the kernel's own few bytes per map, this host's addresses, and
    /// the two extra pages of each ring.
    pub fn bytes(self, cpus: usize, interfaces: u16, events: bool, processes: bool) -> u64 {
        let tables = u64::from(self.slots4) * (size::<Flow4>() + size::<ControlGroups>())
            + u64::from(self.slots6) * (size::<Flow6>() + size::<ControlGroups>());
        let fixed = u64::from(ROWS) * size::<Service>()
            + u64::from(TCP_SERVICES) * size::<ConnectTimes>()
            + 8 * (u64::from(STRIPES) + u64::from(CLIENTS) + u64::from(INTERFACE_ROWS))
            + 8 * PORT_WORDS as u64
            + size::<Config>();
        let per_cpu = size::<CpuCounts>()
            + u64::from(far_blocks(interfaces)) * size::<ClassBlock>()
            + Leg::ALL.len() as u64 * size::<Histogram>();
        let ring = if events { RING_BYTES as u64 } else { 0 };
        let slots = u64::from(self.slots4) + u64::from(self.slots6);
        let makers = if processes { slots * size::<Makers>() } else { 0 };
        tables + makers + fixed + per_cpu * cpus as u64 + ring
    }
}

/// The size of a type, bytes.
pub(crate) const fn size<T>() -> u64 {
    size_of::<T>() as u64
}

fn slots(least: u64) -> u32 {
    let slots = least.clamp(MIN_SLOTS, MAX_SLOTS).next_power_of_two();
    u32::try_from(slots).unwrap_or(1 << 31)
}

/// The longest time, ns: longer than any flow lasts, and small enough for the programs' arithmetic
/// ([`Config`]).
const NEVER_NS: u64 = (1 << 61) - 1;

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX).min(NEVER_NS)
}

/// The jiffies in `duration`, rounded up so that nothing expires early.
fn jiffies(duration: Duration, hz: u32) -> u32 {
    let jiffies = (duration.as_nanos() * u128::from(hz)).div_ceil(1_000_000_000);
    u32::try_from(jiffies).unwrap_or(MAX_JIFFIES).min(MAX_JIFFIES)
}

/// Factors that cannot be guessed: with known ones a sender could aim all its flows at one set.
fn random_factors() -> io::Result<[[u64; HASH_WORDS]; 2]> {
    let mut factors = [[0_u64; HASH_WORDS]; 2];
    let bytes = zerocopy::IntoBytes::as_mut_bytes(&mut factors);
    // Up to 256 bytes are returned whole, and no signal interrupts the call (getrandom(2)).
    const { assert!(size_of::<[[u64; HASH_WORDS]; 2]>() <= 256) };
    getrandom(bytes, GetRandomFlags::empty())?;
    Ok(factors)
}

fn invalid(words: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, words)
}

#[cfg(test)]
mod tests {
    use handshake_common::flow::Address;

    use crate::address::PortRange;

    use super::*;

    #[test]
    fn tables_are_powers_of_two_with_room_for_the_flows() {
        for (flows, slots4, slots6) in [
            (0, 64, 64),
            (32, 64, 64),
            (33, 128, 64),
            (256, 512, 64),
            (257, 1024, 128),
            (100_000, 262_144, 32_768),
            (262_144, 524_288, 65_536),
            (1 << 20, 2 << 20, 1 << 18),
            (u32::MAX, 1 << 27, 1 << 27),
        ] {
            assert_eq!(Sizes::for_flows(flows), Sizes { slots4, slots6 }, "{flows} flows");
        }
    }

    #[test]
    fn the_default_takes_52_mebibytes() {
        let bytes = Sizes::for_flows(262_144).bytes(2, FEW_INTERFACES, false, false);
        assert_eq!(bytes >> 20, 52, "{bytes}");
        let more = Sizes::for_flows(262_144).bytes(2, FEW_INTERFACES, true, false) - bytes;
        assert_eq!(more, RING_BYTES as u64);
        let makers = Sizes::for_flows(262_144).bytes(2, FEW_INTERFACES, false, true) - bytes;
        assert_eq!(makers >> 20, 27);
        let twice = Sizes::for_flows(524_288).bytes(2, FEW_INTERFACES, false, false) - bytes;
        assert_eq!(twice, 262_144 * BYTES_A_FLOW);
    }

    #[test]
    fn jiffies_are_rounded_up_and_stay_comparable() {
        assert_eq!(jiffies(Duration::from_secs(60), 250), 15_000);
        assert_eq!(jiffies(Duration::from_millis(5), 250), 2);
        assert_eq!(jiffies(Duration::from_nanos(1), 1000), 1);
        assert_eq!(jiffies(Duration::from_secs(3600), 1000), 3_600_000);
        assert_eq!(jiffies(Duration::MAX, 1000), MAX_JIFFIES);
    }

    #[test]
    fn a_port_is_one_bit() {
        let ports = [0, 63, 64, 443, 65_535];
        let ranges = ports.iter().map(|port| PortRange { first: *port, last: *port }).collect();
        let filter = Filter { ports: ranges, ..Filter::default() };
        let settings = Settings { filter, ..Settings::default() };
        let words = settings.port_set();
        for port in 0..=u16::MAX {
            let set = words[usize::from(port / 64)] >> (port % 64) & 1 == 1;
            assert_eq!(set, ports.contains(&port), "port {port}");
        }
    }

    #[test]
    fn the_config_holds_the_settings() {
        let settings = Settings {
            factors: Some([[5; HASH_WORDS]; 2]),
            filter: Filter {
                ports: vec!["443".parse().expect("a port")],
                nets: vec!["10.0.0.0/8".parse().expect("a prefix")],
            },
            events: true,
            max_flows: 32,
            ..Settings::default()
        };
        let config = settings.config(Sizes::for_flows(32), 250).expect("settings within bounds");
        assert_eq!(config.options, option::EVENTS | option::PORTS | option::NETS);
        let net = Net { address: Address::v4(0x0a00_0000), mask: Address::v4(0xff00_0000), family: 1 };
        assert_eq!(config.nets[0], net);
        assert_eq!(config.nets[1].family, 0);
        assert_eq!((config.mask4, config.mask6), (15, 15));
        assert_eq!((config.half_open_after_ns, config.expire_after_ns), (3_000_000_000, 75_000_000_000));
        assert_eq!((config.udp_idle_jiffies, config.idle_after_jiffies), (15_000, 900_000));
        assert_eq!(config.repeat_within_jiffies, 25);
        assert_eq!(config.factors, [[5; HASH_WORDS]; 2]);
    }

    #[test]
    fn too_many_networks_are_an_error() {
        let net = "10.0.0.0/8".parse().expect("a prefix");
        let filter = Filter { nets: vec![net; MAX_NETS + 1], ..Filter::default() };
        let settings = Settings { filter, ..Settings::default() };
        assert!(settings.config(Sizes::for_flows(1), 250).is_err());
    }

    #[test]
    fn factors_differ_from_load_to_load() {
        let (a, b) = (random_factors().expect("getrandom"), random_factors().expect("getrandom"));
        assert_ne!(a, b);
        assert_ne!(a[0], a[1]);
    }
}
