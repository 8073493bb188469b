//! The kernel's account of a run: the increase of its counters at both ends, until all traffic has ended.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::network::LoadNetwork;
use crate::counters::{self, Counters};

/// The counters of both ends at one moment.
pub(super) struct KernelReading {
    client: Counters,
    /// `None` if both ends are one host, whose counters are in `client`.
    server: Option<Counters>,
}

/// The increase of the counters during a run.
pub(super) struct KernelAccount {
    before: KernelReading,
    after: KernelReading,
}

impl KernelReading {
    pub(super) fn of(network: &LoadNetwork) -> Result<Self> {
        let server = (!network.is_one_host()).then(|| counters::read(network.server())).transpose()?;
        Ok(Self { client: counters::read(network.client())?, server })
    }

    /// Packets received and sent by both hosts, of either family.
    fn packets(&self) -> u64 {
        const NAMES: [&str; 4] = ["IpInReceives", "IpOutRequests", "Ip6InReceives", "Ip6OutRequests"];
        let hosts = [Some(&self.client), self.server.as_ref()];
        hosts.into_iter().flatten().flat_map(|host| NAMES.map(|name| host.get(name))).sum()
    }
}

impl KernelAccount {
    /// Measures from the reading `before` until the hosts stop sending: released connections have ended by
    /// then.
    pub(super) fn since(before: KernelReading, network: &LoadNetwork) -> Result<Self> {
        const QUIET: Duration = Duration::from_millis(60);
        const TIMEOUT: Duration = Duration::from_secs(10);
        let deadline = Instant::now() + TIMEOUT;
        let mut last = KernelReading::of(network)?;
        loop {
            thread::sleep(QUIET);
            let now = KernelReading::of(network)?;
            if now.packets() == last.packets() {
                return Ok(Self { before, after: now });
            }
            ensure!(Instant::now() < deadline, "the hosts keep sending after the traffic has ended");
            last = now;
        }
    }

    /// The increase of a counter of the client's kernel.
    pub(super) fn client(&self, name: &str) -> u64 {
        self.after.client.since(&self.before.client, name)
    }

    /// The increase of a counter of the server's kernel; on one host the same counter as the client's.
    pub(super) fn server(&self, name: &str) -> u64 {
        match (&self.after.server, &self.before.server) {
            (Some(after), Some(before)) => after.since(before, name),
            (None, _) | (_, None) => self.client(name),
        }
    }

    /// The increase at both ends together.
    pub(super) fn both(&self, name: &str) -> u64 {
        if self.after.server.is_some() { self.client(name) + self.server(name) } else { self.client(name) }
    }

    /// Whether both ends share one set of counters.
    pub(super) fn is_one_host(&self) -> bool {
        self.after.server.is_none()
    }
}
