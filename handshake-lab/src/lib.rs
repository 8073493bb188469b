//! Small networks in namespaces, and real kernel traffic whose outcome is known exactly.
//!
//! ```text
//! load                 scenario files: traffic with a known outcome, run under `handshake check`, compared
//! │
//! ├─ agent, terminal   run the command under test: its output, its screen
//! ├─ tcp, udp          traffic by kernel sockets
//! ├─ frame             traffic by crafted frames, counted when sent
//! ├─ flood             more frames than a tap can count;  census  counts them in the kernel
//! ├─ tap, counters     counts by the wire and by the kernel
//! ├─ books             checks the identities that hold in every report
//! │
//! ├─ topology          the three networks, as a `Path` from client to server
//! ├─ bpf               foreign programs on the same hooks, loaded by bpf(2)
//! ├─ namespace         a network namespace, removed on drop
//! └─ process           starts programs with default signals;  leaves: privilege, interrupt, family
//! ```
//!
//! What may not live here: any rule of handshake, any of its crates, or a command line. The outcome of a
//! scenario comes from sockets, kernel counters and the wire, so that a test compares two independent
//! accounts. Everything is removed on drop.

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
