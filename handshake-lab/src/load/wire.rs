//! What the wire carried at handshake's interfaces, by another account: a tap on each, or beside a flood, which no tap could
//! follow, a census on either hook.

use anyhow::Result;

use super::network::Network;
use super::scenario::Scenario;
use crate::bpf::Hook;
use crate::census::Census;
use crate::tap::{Tally, Tap};

/// The accounts.
pub(super) enum Wire {
    Taps {
        taps: Vec<(&'static str, Tap)>,
        /// On loopback what goes out comes in: each frame once.
        received_only: bool,
    },
    Censuses {
        device: &'static str,
        ingress: Census,
        egress: Census,
    },
}

/// What they come to.
pub(super) struct Carried {
    /// By interface.
    pub(super) all: Vec<(&'static str, Tally)>,
    /// Of a flood.
    pub(super) flood: Tally,
}

impl Wire {
    /// From now on.
    pub(super) fn open(scenario: &Scenario, network: &Network) -> Result<Self> {
        if scenario.flood().is_some() {
            let device = network.devices()[0];
            let census = |hook| Census::behind(network.host(), device, hook);
            let (ingress, egress) = (census(Hook::TcxIngress)?, census(Hook::TcxEgress)?);
            return Ok(Self::Censuses { device, ingress, egress });
        }
        let tap = |device: &&'static str| Ok((*device, Tap::open(network.host(), device)?));
        let taps = network.devices().iter().map(tap).collect::<Result<Vec<_>>>()?;
        Ok(Self::Taps { taps, received_only: network.is_one_host() })
    }

    /// Takes what has come out of the taps' buffers.
    pub(super) fn read(&mut self) -> Result<()> {
        match self {
            Self::Taps { taps, .. } => taps.iter_mut().try_for_each(|(_, tap)| tap.traffic().map(|_| ())),
            Self::Censuses { .. } => Ok(()),
        }
    }

    /// Everything up to now.
    pub(super) fn close(self) -> Result<Carried> {
        match self {
            Self::Taps { mut taps, received_only } => {
                let tally = |(device, tap): &mut (&'static str, Tap)| {
                    let traffic = tap.traffic()?;
                    Ok((*device, if received_only { traffic.received } else { traffic.both() }))
                };
                let all = taps.iter_mut().map(tally).collect::<Result<Vec<_>>>()?;
                Ok(Carried { all, flood: Tally::default() })
            }
            Self::Censuses { device, ingress, egress } => {
                let (received, sent) = (ingress.counts()?, egress.counts()?);
                let mut both = received.both();
                both += sent.both();
                Ok(Carried { all: vec![(device, both)], flood: received.flood })
            }
        }
    }
}
