//! The rows, and what they compare.

use super::hooks::Way;

/// What goes over the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Traffic {
    /// One connection after the other, each ended at once.
    Connect,
    /// As much as one connection carries.
    Bulk,
}

/// A row to be measured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) traffic: Traffic,
    pub(crate) way: Way,
}

/// The rows.
pub(crate) const CASES: [Case; 4] = [
    Case { name: "veth_connect_tcx", traffic: Traffic::Connect, way: Way::Tcx },
    Case { name: "veth_connect_xdp", traffic: Traffic::Connect, way: Way::Xdp },
    Case { name: "veth_bulk_tcx", traffic: Traffic::Bulk, way: Way::Tcx },
    Case { name: "veth_bulk_xdp", traffic: Traffic::Bulk, way: Way::Xdp },
];

/// What is attached at the server's end, in the order of a stage's networks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Attached {
    Nothing,
    Empty,
    Handshake,
}

impl Attached {
    pub(super) const ALL: [Self; 3] = [Self::Nothing, Self::Empty, Self::Handshake];
}
