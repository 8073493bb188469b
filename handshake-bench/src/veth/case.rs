//! The rows of real traffic.

use super::hooks::VethHook;

/// The kind of traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum VethTraffic {
    /// One connection after the other, each closed at once.
    Connect,
    /// As many bytes as one connection carries.
    Bulk,
}

/// A row of real traffic.
#[derive(Clone, Copy, Debug)]
pub(crate) struct VethCase {
    pub(crate) name: &'static str,
    pub(crate) traffic: VethTraffic,
    pub(crate) hook: VethHook,
}

/// All rows of real traffic.
pub(crate) const CASES: [VethCase; 4] = [
    VethCase { name: "veth_connect_tcx", traffic: VethTraffic::Connect, hook: VethHook::Tcx },
    VethCase { name: "veth_connect_xdp", traffic: VethTraffic::Connect, hook: VethHook::Xdp },
    VethCase { name: "veth_bulk_tcx", traffic: VethTraffic::Bulk, hook: VethHook::Tcx },
    VethCase { name: "veth_bulk_xdp", traffic: VethTraffic::Bulk, hook: VethHook::Xdp },
];

/// The attachment at the server's end, in the order of a stage's networks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum VethAttachment {
    Nothing,
    Empty,
    Handshake,
}

impl VethAttachment {
    pub(super) const ALL: [Self; 3] = [Self::Nothing, Self::Empty, Self::Handshake];
}
