//! The kernel's own counts of what happened: the other account that a scenario is held against.

use std::collections::HashMap;
use std::fs;

use anyhow::{Context, Result};

use crate::namespace::Namespace;

/// Counters of a namespace by name: `TcpExtListenOverflows`, `TcpRetransSegs`, `Ip6OutMcastPkts` …
#[derive(Clone, Debug, Default)]
pub struct Counters(HashMap<String, u64>);

impl Counters {
    /// The count of `name`; 0 when the kernel has none of that name (it leaves out some that are 0).
    #[must_use]
    pub fn get(&self, name: &str) -> u64 {
        self.0.get(name).copied().unwrap_or(0)
    }

    /// How far `name` has risen since `earlier`.
    #[must_use]
    pub fn since(&self, earlier: &Self, name: &str) -> u64 {
        self.get(name).wrapping_sub(earlier.get(name))
    }
}

/// Reads `snmp`, `netstat` and `snmp6` of `namespace`.
///
/// # Errors
/// They cannot be read.
pub fn read(namespace: &Namespace) -> Result<Counters> {
    namespace.enter(|| {
        let mut counters = HashMap::new();
        for file in ["snmp", "netstat"] {
            add_paired(&mut counters, &proc_net(file)?);
        }
        // Absent where IPv6 is not compiled in.
        add_single(&mut counters, &proc_net("snmp6").unwrap_or_default());
        Ok(Counters(counters))
    })
}

/// `/proc/net` is the namespace of the process; this is the thread's.
fn proc_net(file: &str) -> Result<String> {
    let path = format!("/proc/thread-self/net/{file}");
    fs::read_to_string(&path).with_context(|| format!("read {path}"))
}

/// Two lines a group: `Tcp: NAME NAME …`, then `Tcp: 1 2 …`.
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

/// One line a counter: `Ip6InReceives   12`.
fn add_single(counters: &mut HashMap<String, u64>, text: &str) {
    for line in text.lines() {
        let mut words = line.split_whitespace();
        if let (Some(name), Some(Ok(value))) = (words.next(), words.next().map(str::parse)) {
            counters.insert(name.to_owned(), value);
        }
    }
}

/// Frames that went through the XDP program of `device`, by its own count (`ethtool -S`), over its queues.
/// veth has one, and so have most drivers, under this name.
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
    fn both_forms_are_read() {
        let mut counters = HashMap::new();
        add_paired(&mut counters, "Tcp: MaxConn ActiveOpens\nTcp: -1 7\nTcpExt: SyncookiesSent\nTcpExt: 3\n");
        add_single(&mut counters, "Ip6InReceives                   \t12\n");
        let expected =
            [("TcpMaxConn", 0), ("TcpActiveOpens", 7), ("TcpExtSyncookiesSent", 3), ("Ip6InReceives", 12)];
        assert_eq!(counters, expected.map(|(name, value)| (name.to_owned(), value)).into());
    }
}
