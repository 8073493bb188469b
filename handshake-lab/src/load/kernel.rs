//! The kernel's account of a run: how far its counters rose at either end, and when everything had ended.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::network::Network;
use crate::counters::{self, Counters};

/// The counters of both ends at a moment.
pub(super) struct Reading {
    client: Counters,
    /// `None` where it is one host: what the client counts is all.
    server: Option<Counters>,
}

/// How far they rose.
pub(super) struct Account {
    before: Reading,
    after: Reading,
}

impl Reading {
    pub(super) fn of(network: &Network) -> Result<Self> {
        let server = (!network.is_one_host()).then(|| counters::read(network.server())).transpose()?;
        Ok(Self { client: counters::read(network.client())?, server })
    }

    /// Packets in and out of both hosts, of either family.
    fn packets(&self) -> u64 {
        const NAMES: [&str; 4] = ["IpInReceives", "IpOutRequests", "Ip6InReceives", "Ip6OutRequests"];
        let hosts = [Some(&self.client), self.server.as_ref()];
        hosts.into_iter().flatten().flat_map(|host| NAMES.map(|name| host.get(name))).sum()
    }
}

impl Account {
    /// From a reading before until the hosts send nothing any more: connections that were let go of have ended.
    pub(super) fn since(before: Reading, network: &Network) -> Result<Self> {
        const QUIET: Duration = Duration::from_millis(60);
        const PATIENCE: Duration = Duration::from_secs(10);
        let deadline = Instant::now() + PATIENCE;
        let mut last = Reading::of(network)?;
        loop {
            thread::sleep(QUIET);
            let now = Reading::of(network)?;
            if now.packets() == last.packets() {
                return Ok(Self { before, after: now });
            }
            ensure!(Instant::now() < deadline, "the hosts go on sending after the traffic has ended");
            last = now;
        }
    }

    /// What the client's kernel counted.
    pub(super) fn client(&self, name: &str) -> u64 {
        self.after.client.since(&self.before.client, name)
    }

    /// What the server's kernel counted. On one host it is the same counter as the client's.
    pub(super) fn server(&self, name: &str) -> u64 {
        match (&self.after.server, &self.before.server) {
            (Some(after), Some(before)) => after.since(before, name),
            (None, _) | (_, None) => self.client(name),
        }
    }

    /// What both counted together.
    pub(super) fn both(&self, name: &str) -> u64 {
        if self.after.server.is_some() { self.client(name) + self.server(name) } else { self.client(name) }
    }

    /// Is there one set of counters for both ends?
    pub(super) fn is_one_host(&self) -> bool {
        self.after.server.is_none()
    }
}
