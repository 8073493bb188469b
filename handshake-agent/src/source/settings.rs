//! What the engine is told: the settings of a run, the sizes of its tables, and the [`Config`] made of both. The same for
//! the kernel side and for a replay.

use std::io;
use std::time::Duration;

use handshake_common::abi::{
    Config, CpuCounts, Flow4, Flow6, HASH_WORDS, Histogram, MAX_INTERFACES, MAX_NETS, Net, PORT_WORDS,
    PortSet, RING_BYTES, SERVICES, STRIPES, Service, WAYS, option,
};
use handshake_common::record::Clocks;
use handshake_common::verdict::Leg;

use crate::options::{Filter, Options, Rules};

/// The fewest slots of a table: one page of IPv4 records, which is the least that can be mapped.
const MIN_SLOTS: u64 = 64;
/// The most: 2²⁷ IPv4 records are 8 GiB. More would be a slip of the finger.
const MAX_SLOTS: u64 = 1 << 27;
/// Serial comparison of jiffies tells apart ages under 2³¹.
const MAX_JIFFIES: u32 = i32::MAX as u32;

/// An interface to watch. Its place in [`Settings::interfaces`] is its number in the records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WatchedInterface {
    /// The kernel's number of it.
    pub index: u32,
    /// Its frames begin at the IP header (tun, wireguard, ppp).
    pub raw: bool,
}

/// What the engine is told.
#[derive(Clone, Debug)]
pub struct Settings {
    /// At most [`MAX_INTERFACES`]; more are an error of [`Settings::config`].
    pub interfaces: Vec<WatchedInterface>,
    /// The clocks, and whether completion is inferred.
    pub rules: Rules,
    /// Flows that do not match are filtered out.
    pub filter: Filter,
    /// Flows that are tracked at least; [`Sizes`] makes tables of it.
    pub max_flows: u32,
    /// Factors of the hash functions; `None`: random ones of the operating system.
    pub factors: Option<[[u64; HASH_WORDS]; 2]>,
    /// Send a record to the ring for each finished attempt.
    pub events: bool,
    /// The kernel side writes its diagnostics; without this the verifier removes them.
    pub kernel_log: bool,
    /// Keep the verifier's whole log of a program that it refuses: megabytes, and several times the time.
    pub verifier_log: bool,
    /// The programs take the time from the map CLOCK, which only a test sets.
    pub test_clock: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self::of(&Options::default())
    }
}

impl Settings {
    /// Those of a live run; no interfaces yet.
    #[must_use]
    pub fn of(options: &Options) -> Self {
        Self {
            rules: options.rules,
            filter: options.filter.clone(),
            max_flows: options.max_flows,
            events: options.events,
            kernel_log: options.kernel_log,
            verifier_log: options.verifier_log,
            interfaces: Vec::new(),
            factors: None,
            test_clock: false,
        }
    }

    /// How old records are read, where a second has `hz` jiffies.
    pub fn clocks(&self, hz: u32) -> Clocks {
        Clocks {
            half_open_after_ns: nanos(self.rules.half_open_after),
            expire_after_ns: nanos(self.rules.expire_after),
            udp_idle_jiffies: jiffies(self.rules.udp_idle, hz),
            idle_after_jiffies: jiffies(self.rules.idle_after, hz),
        }
    }

    /// What the programs read. Fails when there are more interfaces or prefixes than it has room for,
    /// or the system gives no random numbers.
    pub fn config(&self, sizes: Sizes, clocks: &Clocks) -> io::Result<Config> {
        let (interfaces, raw_interfaces) = self.interface_table()?;
        let mut nets = [Net::default(); MAX_NETS];
        let given = &self.filter.nets;
        let places = nets.get_mut(..given.len()).ok_or_else(|| {
            invalid(format!("{} networks, and {MAX_NETS} at most can be filtered by", given.len()))
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
            interfaces,
            options: self.options(),
            raw_interfaces,
            nets,
            reserved: 0,
        })
    }

    /// The ports of the filter as the programs have them.
    pub fn port_set(&self) -> PortSet {
        let mut words = [0; PORT_WORDS];
        for port in self.filter.ports.iter().flat_map(|range| range.first..=range.last) {
            words[usize::from(port / 64)] |= 1 << (port % 64);
        }
        words
    }

    fn interface_table(&self) -> io::Result<([u32; MAX_INTERFACES], u32)> {
        let mut indexes = [0; MAX_INTERFACES];
        let mut raw = 0;
        for (place, interface) in self.interfaces.iter().enumerate() {
            *indexes.get_mut(place).ok_or_else(|| {
                let count = self.interfaces.len();
                invalid(format!("{count} interfaces, and {MAX_INTERFACES} at most can be watched"))
            })? = interface.index;
            raw |= u32::from(interface.raw) << place;
        }
        Ok((indexes, raw))
    }

    fn options(&self) -> u32 {
        [
            (self.events, option::EVENTS),
            (self.rules.one_sided, option::ONE_SIDED),
            (!self.filter.ports.is_empty(), option::PORTS),
            (!self.filter.nets.is_empty(), option::NETS),
            (self.test_clock, option::TEST_CLOCK),
        ]
        .into_iter()
        .filter(|(wanted, _)| *wanted)
        .fold(0, |options, (_, bit)| options | bit)
    }
}

/// What the tables take for a flow of `max_flows`, unless they are rounded up: two slots of IPv4 and a quarter of one of
/// IPv6.
pub const BYTES_A_FLOW: u64 = 2 * size::<Flow4>() + size::<Flow6>() / 4;

/// Slots of the tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Of the IPv4 table, a power of two.
    pub slots4: u32,
    /// Of the IPv6 table, a power of two.
    pub slots6: u32,
}

impl Sizes {
    /// Two slots a flow for IPv4, so that hardly a newcomer finds both its sets full, and one for four of IPv6.
    pub fn for_flows(max_flows: u32) -> Self {
        let flows = u64::from(max_flows);
        Self { slots4: slots(2 * flows), slots6: slots(flows.div_ceil(4)) }
    }

    /// Kernel memory that all maps take together on a machine with `cpus` possible CPUs; the kernel's own
    /// few bytes a map and the events' ring's two pages are left out.
    pub fn bytes(self, cpus: usize, events: bool) -> u64 {
        let tables = u64::from(self.slots4) * size::<Flow4>() + u64::from(self.slots6) * size::<Flow6>();
        let fixed = u64::from(SERVICES) * size::<Service>()
            + 8 * u64::from(STRIPES)
            + 8 * PORT_WORDS as u64
            + size::<Config>();
        let per_cpu = size::<CpuCounts>() + Leg::ALL.len() as u64 * size::<Histogram>();
        let ring = if events { RING_BYTES as u64 } else { 0 };
        tables + fixed + per_cpu * cpus as u64 + ring
    }
}

const fn size<T>() -> u64 {
    size_of::<T>() as u64
}

fn slots(least: u64) -> u32 {
    let slots = least.clamp(MIN_SLOTS, MAX_SLOTS).next_power_of_two();
    u32::try_from(slots).unwrap_or(1 << 31)
}

/// Longer than anything lasts, and what the programs' arithmetic takes ([`Config`]).
const NEVER_NS: u64 = (1 << 61) - 1;

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX).min(NEVER_NS)
}

/// Jiffies in `duration`, rounded up: nothing expires early.
fn jiffies(duration: Duration, hz: u32) -> u32 {
    let jiffies = (duration.as_nanos() * u128::from(hz)).div_ceil(1_000_000_000);
    u32::try_from(jiffies).unwrap_or(MAX_JIFFIES).min(MAX_JIFFIES)
}

/// Factors nobody can guess: with known ones a sender could aim at one set.
fn random_factors() -> io::Result<[[u64; HASH_WORDS]; 2]> {
    let mut factors = [[0_u64; HASH_WORDS]; 2];
    let bytes = zerocopy::IntoBytes::as_mut_bytes(&mut factors);
    // SAFETY: the kernel writes at most `len` bytes from `as_mut_ptr`, which are ours alone.
    let got = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
    // Up to 256 bytes come whole, and no signal interrupts them (getrandom(2)).
    const { assert!(size_of::<[[u64; HASH_WORDS]; 2]>() <= 256) };
    if usize::try_from(got) == Ok(bytes.len()) { Ok(factors) } else { Err(io::Error::last_os_error()) }
}

fn invalid(words: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, words)
}

#[cfg(test)]
mod tests {
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
    fn the_default_takes_forty_mebibytes_and_little_more() {
        let bytes = Sizes::for_flows(262_144).bytes(2, false);
        assert!((40 << 20..41 << 20).contains(&bytes), "{bytes}");
        let more = Sizes::for_flows(262_144).bytes(2, true) - bytes;
        assert_eq!(more, RING_BYTES as u64);
        let twice = Sizes::for_flows(524_288).bytes(2, false) - bytes;
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
    fn the_config_says_what_the_settings_do() {
        let settings = Settings {
            interfaces: vec![
                WatchedInterface { index: 7, raw: false },
                WatchedInterface { index: 3, raw: true },
            ],
            factors: Some([[5; HASH_WORDS]; 2]),
            filter: Filter {
                ports: vec!["443".parse().expect("a port")],
                nets: vec!["10.0.0.0/8".parse().expect("a prefix")],
            },
            events: true,
            max_flows: 32,
            ..Settings::default()
        };
        let config =
            settings.config(Sizes::for_flows(32), &settings.clocks(250)).expect("settings within bounds");
        assert_eq!(config.interfaces, [7, 3, 0, 0, 0, 0, 0]);
        assert_eq!(config.raw_interfaces, 0b10);
        assert_eq!(config.options, option::EVENTS | option::PORTS | option::NETS);
        let net = Net { address: [0x0a00_0000, 0, 0, 0], mask: [0xff00_0000, 0, 0, 0], family: 1 };
        assert_eq!(config.nets[0], net);
        assert_eq!(config.nets[1].family, 0);
        assert_eq!((config.mask4, config.mask6), (15, 15));
        assert_eq!((config.half_open_after_ns, config.expire_after_ns), (3_000_000_000, 75_000_000_000));
        assert_eq!((config.udp_idle_jiffies, config.idle_after_jiffies), (15_000, 900_000));
        assert_eq!(config.factors, [[5; HASH_WORDS]; 2]);
    }

    #[test]
    fn more_than_there_is_room_for_is_an_error() {
        let interface = WatchedInterface { index: 1, raw: false };
        let many = Settings { interfaces: vec![interface; MAX_INTERFACES + 1], ..Settings::default() };
        let net = "10.0.0.0/8".parse().expect("a prefix");
        let filter = Filter { nets: vec![net; MAX_NETS + 1], ..Filter::default() };
        let nets = Settings { filter, ..Settings::default() };
        for settings in [many, nets] {
            assert!(settings.config(Sizes::for_flows(1), &settings.clocks(250)).is_err());
        }
    }

    #[test]
    fn factors_differ_from_load_to_load() {
        let (a, b) = (random_factors().expect("getrandom"), random_factors().expect("getrandom"));
        assert_ne!(a, b);
        assert_ne!(a[0], a[1]);
    }
}
