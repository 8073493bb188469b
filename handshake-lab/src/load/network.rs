//! The network that a scenario asks for, and where on it handshake sits.

use std::net::IpAddr;

use anyhow::Result;

use super::scenario::{Scenario, Target, Topology};
use crate::bpf::Attached;
use crate::family::Family;
use crate::flood::Flood;
use crate::namespace::Namespace;
use crate::topology::{DEVICE, FAR_DEVICE, Loopback, Pair, Path, Routed};

/// A network of namespaces; gone on drop.
pub(super) enum Network {
    Loopback(Loopback),
    Pair {
        pair: Pair,
        /// What puts tags on and takes them off.
        _tags: Vec<Attached>,
    },
    Routed(Routed),
}

impl Network {
    pub(super) fn new(scenario: &Scenario) -> Result<Self> {
        Ok(match scenario.topology {
            Topology::Loopback => Self::Loopback(Loopback::new()?),
            Topology::Routed => Self::Routed(Routed::new()?),
            Topology::Pair => {
                const VLAN: u16 = 0x8100;
                let pair = Pair::new()?;
                if let Some(target) = scenario.flood() {
                    open_to_flood(&pair, target)?;
                }
                let tags = match scenario.tags {
                    Some([client, server]) => pair.tag(&[(VLAN, client)], &[(VLAN, server)])?,
                    None => Vec::new(),
                };
                Self::Pair { pair, _tags: tags }
            }
        })
    }

    /// From the client to the server.
    pub(super) fn path(&self, family: Family) -> Path<'_> {
        match self {
            Self::Loopback(lo) => lo.path(family),
            Self::Pair { pair, .. } => pair.path(family),
            Self::Routed(routed) => routed.path(family),
        }
    }

    /// Where connections come from.
    pub(super) fn client(&self) -> &Namespace {
        self.path(Family::V4).client
    }

    /// Where listeners are: the client's too on loopback.
    pub(super) fn server(&self) -> &Namespace {
        self.path(Family::V4).server
    }

    /// Are both ends one host, with one set of counters?
    pub(super) fn is_one_host(&self) -> bool {
        matches!(self, Self::Loopback(_))
    }

    /// Where handshake runs.
    pub(super) fn host(&self) -> &Namespace {
        match self {
            Self::Loopback(lo) => &lo.host,
            Self::Pair { pair, .. } => &pair.server,
            Self::Routed(routed) => &routed.router,
        }
    }

    /// What it watches there.
    pub(super) fn devices(&self) -> &'static [&'static str] {
        match self {
            Self::Loopback(_) => &["lo"],
            Self::Pair { .. } => &[DEVICE],
            Self::Routed(_) => &[DEVICE, FAR_DEVICE],
        }
    }

    /// What the client has of it.
    pub(super) fn client_device(&self) -> &'static str {
        self.devices()[0]
    }

    /// An address that the router says it has no way to.
    pub(super) fn unreachable(&self, family: Family) -> Option<IpAddr> {
        match self {
            Self::Routed(routed) => Some(routed.unreachable(family)),
            Self::Loopback(_) | Self::Pair { .. } => None,
        }
    }
}

/// Has the server take a flood's frames, and answer those that are to be answered without remembering them.
fn open_to_flood(pair: &Pair, target: Target) -> Result<()> {
    /// SYN cookies whether the queue is full or not.
    const ALWAYS: &str = "2";
    Flood::open(&pair.path(Family::V4))?;
    match target {
        Target::Deaf => Ok(()),
        Target::Listener => pair.server.sysctl("net.ipv4.tcp_syncookies", ALWAYS),
    }
}
