//! What the kernel says beside the wire: its own counters of handshakes, and which other interface has
//! traffic. The files are opened before this program gives up its privileges.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read as _, Seek as _};

use crate::check::{NetCounters, NetFiles};

/// The files, and what was read before.
pub(crate) struct Surroundings {
    counters: Option<NetFiles>,
    devices: Option<File>,
    /// The kernel's counters at the first reading.
    first: Option<NetCounters>,
    /// Packets by interface at the latest reading, and its time.
    latest: Option<(u64, HashMap<String, u64>)>,
}

/// One reading.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Around {
    /// The kernel's counters since the first reading; `None` where they cannot be read.
    pub(crate) counters: Option<NetCounters>,
    /// The interface with most packets that is not watched, if any passes there.
    pub(crate) busiest: Option<Elsewhere>,
}

/// Traffic at an interface that is not watched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Elsewhere {
    /// The interface.
    pub(crate) name: String,
    /// Packets per second, both ways.
    pub(crate) rate: u64,
}

impl Surroundings {
    /// Opens the files of this thread's network namespace, as far as they are there.
    pub(crate) fn open() -> Self {
        Self {
            counters: NetFiles::open().ok(),
            devices: File::open("/proc/thread-self/net/dev").ok(),
            first: None,
            latest: None,
        }
    }

    /// Reads them at `now_ns`. What cannot be read is left out.
    pub(crate) fn read(&mut self, now_ns: u64, watched: &[&str]) -> Around {
        let now = self.counters.as_mut().and_then(|files| files.read().ok());
        let first = self.first.get_or_insert_with(|| now.unwrap_or_default());
        let counters = now.map(|now| now.since(first));
        let mut text = String::new();
        let read = self
            .devices
            .as_mut()
            .and_then(|file| file.rewind().and_then(|()| file.read_to_string(&mut text)).ok());
        let packets: HashMap<String, u64> = match read {
            Some(_) => packets(&text).map(|(name, count)| (name.to_owned(), count)).collect(),
            None => HashMap::new(),
        };
        let busiest = self.latest.as_ref().and_then(|(then_ns, before)| {
            busiest(before, &packets, now_ns.saturating_sub(*then_ns), watched)
        });
        self.latest = Some((now_ns, packets));
        Around { counters, busiest }
    }
}

/// The packets of each interface, both ways, in a file such as `/proc/net/dev`.
fn packets(text: &str) -> impl Iterator<Item = (&str, u64)> {
    text.lines().filter_map(|line| {
        let (name, figures) = line.rsplit_once(':')?;
        let figures: Vec<u64> = figures.split_whitespace().map(str::parse).collect::<Result<_, _>>().ok()?;
        Some((name.trim(), figures.get(1)? + figures.get(9)?))
    })
}

/// The busiest interface that is not watched, by packets in so many ns.
fn busiest(
    before: &HashMap<String, u64>,
    now: &HashMap<String, u64>,
    ns: u64,
    watched: &[&str],
) -> Option<Elsewhere> {
    let rates =
        now.iter().filter(|(name, _)| !watched.contains(&name.as_str())).filter_map(|(name, count)| {
            let passed = u128::from(count.saturating_sub(*before.get(name)?));
            let rate = u64::try_from(passed * 1_000_000_000 / u128::from(ns.max(1))).ok()?;
            Some(Elsewhere { name: name.clone(), rate })
        });
    rates.filter(|each| each.rate != 0).max_by(|a, b| (a.rate, &b.name).cmp(&(b.rate, &a.name)))
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::{Elsewhere, Surroundings, busiest, packets};

    const DEV: &str = "\
Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo: 1184850    9000    0    0    0     0          0         0  1184850    9000    0    0    0     0       0          0
  eth0:     100      10    0    0    0     0          0         3      200      20    0    0    0     0       0          0
 a:b:1:       1       2    0    0    0     0          0         0        3       4    0    0    0     0       0          0
";

    #[test]
    fn packets_are_those_of_both_directions() {
        let all: Vec<(&str, u64)> = packets(DEV).collect();
        assert_eq!(all, [("lo", 18_000), ("eth0", 30), ("a:b:1", 6)]);
    }

    #[test]
    fn the_busiest_interface_is_one_that_is_not_watched() {
        let counts = |all: [(&str, u64); 4]| -> HashMap<String, u64> {
            all.into_iter().map(|(name, count)| (name.to_owned(), count)).collect()
        };
        let before = counts([("eth0", 5), ("cni0", 100), ("cni1", 100), ("lo", 70)]);
        let now = counts([("eth0", 90_000), ("cni0", 8_300), ("cni1", 8_300), ("new", 1_000_000)]);
        let found = busiest(&before, &now, 2_000_000_000, &["eth0"]);
        assert_eq!(found, Some(Elsewhere { name: "cni0".to_owned(), rate: 4_100 }));
        assert_eq!(busiest(&before, &before, 1_000_000_000, &[]), None);
    }

    /// Of this machine: the counters begin at the first reading.
    #[test]
    fn the_kernels_counters_begin_at_the_first_reading() {
        let mut surroundings = Surroundings::open();
        let first = surroundings.read(0, &[]);
        assert_eq!(first.busiest, None);
        let counters = first.counters.expect("Linux has them");
        assert_eq!(counters, Default::default());
    }
}
