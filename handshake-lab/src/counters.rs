//! Reads the kernel's own counters, the independent account that scenarios are checked against.

use std::collections::HashMap;
use std::fs;

use anyhow::{Context, Result};

use crate::namespace::Namespace;

/// The counters of a namespace by name: `TcpExtListenOverflows`, `TcpRetransSegs`, `Ip6OutMcastPkts` …
#[derive(Clone, Debug, Default)]
pub struct Counters(HashMap<String, u64>);

impl Counters {
    /// The value of `name`; 0 if the kernel does not list it (it omits some that are 0).
    #[must_use]
    pub fn get(&self, name: &str) -> u64 {
        self.0.get(name).copied().unwrap_or(0)
    }

    /// The increase of `name` since `earlier`.
    #[must_use]
    pub fn since(&self, earlier: &Self, name: &str) -> u64 {
        self.get(name).wrapping_sub(earlier.get(name))
    }
}

/// Reads `snmp`, `netstat` and `snmp6` of `namespace`.
///
/// # Errors
/// A file cannot be read.
pub fn read(namespace: &Namespace) -> Result<Counters> {
    namespace.enter(|| {
        let mut counters = HashMap::new();
        for file in ["snmp", "netstat"] {
            add_paired(&mut counters, &proc_net(file)?);
        }
        // The file is absent if IPv6 is not compiled in.
        add_single(&mut counters, &proc_net("snmp6").unwrap_or_default());
        Ok(Counters(counters))
    })
}

/// `/proc/net` belongs to the process's namespace; this path belongs to the thread's.
fn proc_net(file: &str) -> Result<String> {
    let path = format!("/proc/thread-self/net/{file}");
    fs::read_to_string(&path).with_context(|| format!("read {path}"))
}

/// Parses two lines per group: `Tcp: NAME NAME …`, then `Tcp: 1 2 …`.
fn add_paired(counters: &mut HashMap<String, u64>, text: &str) {
    let lines: Vec<&str> = text.lines().collect();
    for pair in lines.chunks_exact(2) {
        let group = pair[0].split(':').next().unwrap_or_default();
        let names = pair[0].split_whitespace().skip(1);
        for (name, value) in names.zip(pair[1].split_whitespace().skip(1)) {
            // Tcp: MaxConn is −1; nothing else is negative.
            counters.insert(format!("{group}{name}"), value.parse().unwrap_or(0));
        }
    }
}

/// Parses one line per counter: `Ip6InReceives 12`.
fn add_single(counters: &mut HashMap<String, u64>, text: &str) {
    for line in text.lines() {
        let mut words = line.split_whitespace();
        if let (Some(name), Some(Ok(value))) = (words.next(), words.next().map(str::parse)) {
            counters.insert(name.to_owned(), value);
        }
    }
}

/// Number of frames that the XDP program of `device` processed according to the driver (`ethtool -S`), over
/// all queues. veth and most drivers report it under this name.
///
/// # Errors
/// The device does not exist or has no statistics.
pub fn xdp_packets(namespace: &Namespace, device: &str) -> Result<u64> {
    let text = namespace.run("ethtool", &["-S", device])?;
    let lines = text.lines().filter_map(|line| line.trim().split_once(": "));
    let queues = lines.filter(|(name, _)| name.starts_with("rx_queue_") && name.ends_with("_xdp_packets"));
    queues.map(|(name, value)| value.trim().parse::<u64>().with_context(|| format!("read {name}"))).sum()
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::{add_paired, add_single};

    #[test]
    fn both_file_formats_are_read() {
        let mut counters = HashMap::new();
        add_paired(&mut counters, "Tcp: MaxConn ActiveOpens\nTcp: -1 7\nTcpExt: SyncookiesSent\nTcpExt: 3\n");
        add_single(&mut counters, "Ip6InReceives                   \t12\n");
        let expected =
            [("TcpMaxConn", 0), ("TcpActiveOpens", 7), ("TcpExtSyncookiesSent", 3), ("Ip6InReceives", 12)];
        assert_eq!(counters, expected.map(|(name, value)| (name.to_owned(), value)).into());
    }
}
