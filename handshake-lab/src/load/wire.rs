//! Counts the frames on the wire at handshake's interfaces: by a tap on each, or by a census on each hook
//! beside a flood, which is too fast for a tap.

use anyhow::Result;

use super::network::LoadNetwork;
use super::scenario::Scenario;
use crate::bpf::TestHook;
use crate::census::Census;
use crate::tap::{Tally, Tap};

/// The counters of the wire.
pub(super) enum Wire {
    Taps {
        taps: Vec<(&'static str, Tap)>,
        /// On loopback sent frames are received again: only the received ones count.
        received_only: bool,
    },
    Censuses {
        device: &'static str,
        ingress: Census,
        egress: Census,
    },
}

/// The frames counted.
pub(super) struct Carried {
    /// All frames, per interface.
    pub(super) all: Vec<(&'static str, Tally)>,
    /// The frames of a flood among those received.
    pub(super) flood: Tally,
}

impl Wire {
    /// Starts counting.
    pub(super) fn open(scenario: &Scenario, network: &LoadNetwork) -> Result<Self> {
        if scenario.floods() {
            let device = network.devices()[0];
            let census = |hook| Census::behind(network.host(), device, hook);
            let (ingress, egress) = (census(TestHook::TcxIngress)?, census(TestHook::TcxEgress)?);
            return Ok(Self::Censuses { device, ingress, egress });
        }
        let tap = |device: &&'static str| Ok((*device, Tap::open(network.host(), device)?));
        let taps = network.devices().iter().map(tap).collect::<Result<Vec<_>>>()?;
        Ok(Self::Taps { taps, received_only: network.is_one_host() })
    }

    /// Reads the taps' buffers, so that they do not overflow.
    pub(super) fn read(&mut self) -> Result<()> {
        match self {
            Self::Taps { taps, .. } => taps.iter_mut().try_for_each(|(_, tap)| tap.traffic().map(|_| ())),
            Self::Censuses { .. } => Ok(()),
        }
    }

    /// Returns the frames up to now.
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
