//! What the wire carried at handshake's interfaces, by another account.

use anyhow::Result;

use super::network::Network;
use super::scenario::Scenario;
use crate::lab::tap::{Tally, Tap};

/// The accounts, one an interface.
pub(super) struct Wire {
    taps: Vec<(&'static str, Tap)>,
    /// On loopback what goes out comes in: each frame once.
    received_only: bool,
}

impl Wire {
    /// From now on.
    pub(super) fn open(_scenario: &Scenario, network: &Network) -> Result<Self> {
        let tap = |device: &&'static str| Ok((*device, Tap::open(network.host(), device)?));
        let taps = network.devices().iter().map(tap).collect::<Result<Vec<_>>>()?;
        Ok(Self { taps, received_only: network.is_one_host() })
    }

    /// Takes what has come out of the sockets' buffers.
    pub(super) fn read(&mut self) -> Result<()> {
        self.taps.iter_mut().try_for_each(|(_, tap)| tap.traffic().map(|_| ()))
    }

    /// By interface.
    pub(super) fn close(mut self) -> Result<Vec<(&'static str, Tally)>> {
        let received_only = self.received_only;
        let tally = |(device, tap): &mut (&'static str, Tap)| {
            let traffic = tap.traffic()?;
            Ok((*device, if received_only { traffic.received } else { traffic.both() }))
        };
        self.taps.iter_mut().map(tally).collect()
    }
}
