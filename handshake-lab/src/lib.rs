//! Small networks in namespaces and real kernel traffic whose outcome is known exactly.
//!
//! ```text
//! load                 by scenario file: traffic and its truth, the kernel's account, `handshake check`, a comparison
//! │
//! ├─ agent, terminal   the command under test: its output, its screen
//! ├─ tcp, udp          traffic by the kernel's own sockets
//! ├─ frame             traffic by crafted frames, counted as they are sent
//! ├─ flood             more frames than a tap can count;  census  counts them in the kernel
//! ├─ tap, counters     what happened, by the wire and by the kernel
//! ├─ books             identities that every report must satisfy
//! │
//! ├─ topology          the three networks, as a `Path` from client to server
//! ├─ bpf               other people's programs on the same hooks, without a loader
//! ├─ namespace         a network namespace that goes away with its owner
//! └─ process           starts programs, with default signals;  privilege, interrupt, family  leaves
//! ```
//!
//! What may not live here: any rule of handshake, and any of its crates. What a scenario did is told by the sockets, by
//! the kernel's counters and by the wire, so that a test compares two independent accounts. Nor does a command line: a
//! caller converts its own options. Everything is removed on drop.

pub mod agent;
pub mod books;
pub mod bpf;
pub mod census;
pub mod counters;
pub mod family;
pub mod flood;
pub mod frame;
pub mod interrupt;
pub mod load;
pub mod namespace;
pub mod privilege;
pub mod process;
mod socket;
pub mod tap;
pub mod tcp;
pub mod terminal;
pub mod topology;
pub mod udp;

pub use family::Family;
pub use namespace::Namespace;
pub use privilege::{skip_unless_privileged, skip_without_tool};
pub use process::Process;
pub use topology::{Loopback, Pair, Path, Routed};
