//! Small networks in namespaces and real kernel traffic whose outcome is known exactly.
//!
//! ```text
//! namespace ─▶ topology ─▶ Path ─▶ tcp, udp: traffic by the kernel's own sockets
//!                            │  └─▶ frame: crafted frames, counted as they are sent
//!                            └────▶ tap, counters: what happened, by the wire and by the kernel
//! agent, terminal: the command under test        bpf: other people's programs on the same hooks
//! flood: more frames than a tap can count        census: which counts them in the kernel
//! ```
//!
//! Nothing here knows the rules of handshake: what a scenario did is told by the kernel's counters and
//! by the wire, so that a test compares two independent accounts. Everything is removed on drop.

pub mod agent;
pub mod books;
pub mod bpf;
pub mod census;
mod command;
pub mod counters;
pub mod flood;
pub mod frame;
pub mod interrupt;
pub mod load;
pub mod namespace;
pub mod privilege;
pub mod tap;
pub mod tcp;
pub mod terminal;
pub mod topology;
pub mod udp;

pub use namespace::{Namespace, Process};
pub use privilege::{skip_unless_privileged, skip_without_tool};
pub use topology::{Loopback, Pair, Path, Routed};

/// The address family of a scenario.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both.
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];
}
