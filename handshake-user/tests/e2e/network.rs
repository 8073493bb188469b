//! The networks of the tests, and how handshake watches them.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::Result;
use handshake_lab::agent::Agent;
use handshake_lab::bpf::AttachedProgram;
use handshake_lab::topology::{DEVICE, FAR_DEVICE};
use handshake_lab::tuntap::{VirtualLink, VirtualWire};
use handshake_lab::{Family, Loopback, Namespace, Pair, Path, Routed};

use crate::HANDSHAKE;

/// Options for frequent reports and for attempts that soon become half-open: a scenario ends before the
/// kernel retransmits.
pub(crate) const SWIFT: [&str; 6] =
    ["--interval", "20ms", "--half-open-after", "200ms", "--max-flows", "1000"];
/// Limit for every step, on a busy machine.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(10);

/// A network, and where handshake runs in it.
pub(crate) enum Network {
    Segment(Pair),
    Router(Routed),
    Loopback(Loopback),
    Virtual(Pair, #[expect(dead_code, reason = "the wire lasts as long as it is held")] VirtualWire),
    Tagged(Pair, #[expect(dead_code, reason = "the tags last as long as it is held")] Vec<AttachedProgram>),
}

pub(crate) fn segment() -> Result<Network> {
    Pair::new().map(Network::Segment)
}

pub(crate) fn router() -> Result<Network> {
    Routed::new().map(Network::Router)
}

pub(crate) fn loopback() -> Result<Network> {
    Loopback::new().map(Network::Loopback)
}

/// A segment with three nested tags in one direction, and two in the other.
pub(crate) fn tagged() -> Result<Network> {
    let pair = Pair::new()?;
    let tags = pair.tag(&[(0x8100, 1), (0x8100, 2), (0x88a8, 3)], &[(0x8100, 4), (0x88a8, 5)])?;
    Ok(Network::Tagged(pair, tags))
}

/// A segment of two virtual machines, or of two ends of a tunnel.
pub(crate) fn by_wire(link: VirtualLink) -> Result<Network> {
    let (pair, wire) = Pair::by_wire(link)?;
    Ok(Network::Virtual(pair, wire))
}

impl Network {
    pub(crate) fn path(&self, family: Family) -> Path<'_> {
        match self {
            Self::Segment(pair) | Self::Tagged(pair, _) | Self::Virtual(pair, _) => pair.path(family),
            Self::Router(routed) => routed.path(family),
            Self::Loopback(lo) => lo.path(family),
        }
    }

    pub(crate) fn host(&self) -> &Namespace {
        match self {
            Self::Segment(pair) | Self::Tagged(pair, _) | Self::Virtual(pair, _) => &pair.server,
            Self::Router(routed) => &routed.router,
            Self::Loopback(lo) => &lo.host,
        }
    }

    pub(crate) fn devices(&self) -> &'static [&'static str] {
        match self {
            Self::Segment(_) | Self::Tagged(..) | Self::Virtual(..) => &[DEVICE],
            Self::Router(_) => &[DEVICE, FAR_DEVICE],
            Self::Loopback(_) => &["lo"],
        }
    }

    /// Starts `handshake watch` on all devices, and waits until it is attached. Arguments replace those of
    /// [`SWIFT`].
    pub(crate) fn watch(&self, arguments: &[&str]) -> Result<Agent> {
        let interfaces = self.devices().iter().flat_map(|device| ["-i", device]);
        let swift = SWIFT.chunks(2).filter(|option| !arguments.contains(&option[0])).flatten().copied();
        let words: Vec<&str> = interfaces.chain(swift).chain(arguments.iter().copied()).collect();
        Agent::start(self.host(), HANDSHAKE, &words)
    }
}

/// The path of a file for this process alone, in the temporary folder.
pub(crate) fn scratch(name: &str) -> PathBuf {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    std::env::temp_dir().join(format!("hs-e2e-{}-{number}-{name}", std::process::id()))
}
