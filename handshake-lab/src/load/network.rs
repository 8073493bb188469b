//! The network of a scenario, and where handshake runs on it.

use std::net::IpAddr;

use anyhow::Result;

use super::scenario::{Scenario, Topology, TrafficTarget};
use crate::Family;
use crate::bpf::AttachedProgram;
use crate::flood::Flood;
use crate::namespace::Namespace;
use crate::topology::{DEVICE, FAR_DEVICE, Loopback, Pair, Path, Routed};

/// A network of namespaces; removed on drop.
pub(super) enum LoadNetwork {
    Loopback(Loopback),
    Pair {
        pair: Pair,
        /// The programs that push and pop tags.
        _tags: Vec<AttachedProgram>,
    },
    Routed(Routed),
}

impl LoadNetwork {
    pub(super) fn new(scenario: &Scenario) -> Result<Self> {
        Ok(match scenario.topology {
            Topology::Loopback => Self::Loopback(Loopback::new()?),
            Topology::Routed => Self::Routed(Routed::new()?),
            Topology::Pair => {
                const VLAN: u16 = 0x8100;
                let pair = Pair::new()?;
                if scenario.floods() {
                    open_to_flood(&pair, scenario.flood().unwrap_or(TrafficTarget::Deaf))?;
                }
                let tags = match scenario.tags {
                    Some([client, server]) => pair.tag(&[(VLAN, client)], &[(VLAN, server)])?,
                    None => Vec::new(),
                };
                Self::Pair { pair, _tags: tags }
            }
        })
    }

    /// The path from the client to the server.
    pub(super) fn path(&self, family: Family) -> Path<'_> {
        match self {
            Self::Loopback(lo) => lo.path(family),
            Self::Pair { pair, .. } => pair.path(family),
            Self::Routed(routed) => routed.path(family),
        }
    }

    /// The namespace of the initiators.
    pub(super) fn client(&self) -> &Namespace {
        self.path(Family::V4).client
    }

    /// The namespace of the listeners; on loopback the same as the client's.
    pub(super) fn server(&self) -> &Namespace {
        self.path(Family::V4).server
    }

    /// Whether both ends are one host, with one set of counters.
    pub(super) fn is_one_host(&self) -> bool {
        matches!(self, Self::Loopback(_))
    }

    /// The namespace where handshake runs.
    pub(super) fn host(&self) -> &Namespace {
        match self {
            Self::Loopback(lo) => &lo.host,
            Self::Pair { pair, .. } => &pair.server,
            Self::Routed(routed) => &routed.router,
        }
    }

    /// The devices that handshake watches.
    pub(super) fn devices(&self) -> &'static [&'static str] {
        match self {
            Self::Loopback(_) => &["lo"],
            Self::Pair { .. } => &[DEVICE],
            Self::Routed(_) => &[DEVICE, FAR_DEVICE],
        }
    }

    /// The client's device.
    pub(super) fn client_device(&self) -> &'static str {
        self.devices()[0]
    }

    /// An address that the router reports as unreachable; `None` without a router.
    pub(super) fn unreachable(&self, family: Family) -> Option<IpAddr> {
        match self {
            Self::Routed(routed) => Some(routed.unreachable(family)),
            Self::Loopback(_) | Self::Pair { .. } => None,
        }
    }
}

/// Makes the server accept a flood's frames, and answer with SYN cookies if it is to answer.
fn open_to_flood(pair: &Pair, target: TrafficTarget) -> Result<()> {
    /// SYN cookies even if the queue is not full.
    const ALWAYS: &str = "2";
    Flood::open(&pair.path(Family::V4))?;
    match target {
        TrafficTarget::Deaf => Ok(()),
        TrafficTarget::Listener => pair.server.sysctl("net.ipv4.tcp_syncookies", ALWAYS),
    }
}
