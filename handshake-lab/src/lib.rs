//! Small networks in namespaces, and real kernel traffic whose outcome is known exactly.
//!
//! ```text
//! load                 scenario files: traffic with a known outcome, run under `handshake check`, compared
//! duel                 random conversations with a listening socket, judged by its kernel
//! churn                interfaces that come and go under traffic
//! collectors           what is exported, held against what real receivers take
//! both_ends            faults at five spots, and what two accounts say of them together
//! faults               faults with a known owner, asked about from three seats
//! demo                 traffic of every kind, and the verdicts expected for it
//! fleet                a thousand nodes behind one Prometheus, and their rows in ClickHouse
//! │
//! ├─ agent, terminal   run the command under test: its output, its screen
//! ├─ tcp, udp          traffic by kernel sockets
//! ├─ frame             traffic by crafted frames, counted when sent
//! ├─ flood             more frames than a tap can count;  census  counts them in the kernel
//! ├─ tap, counters     counts by the wire and by the kernel
//! ├─ collector         a server that keeps what is posted to it
//! ├─ books             checks the identities that hold in every report;  schema  its names and types
//! │
//! ├─ topology          the four networks, as a `Path` from client to server
//! ├─ prometheus        a server that scrapes, asked by its API
//! ├─ tuntap            a wire of tun or tap devices in the place of a cable
//! ├─ bpf               foreign programs on the same hooks, loaded by bpf(2)
//! ├─ namespace         a network namespace, removed on drop
//! └─ process           starts programs with default signals;  leaves: privilege, interrupt
//! ```
//!
//! What may not live here: any rule of handshake, or a command line. From handshake-common come only names:
//! verdicts, packet classes, address families. The outcome of a scenario comes from sockets, kernel counters
//! and the wire, so that a test compares two independent accounts. Everything is removed on drop.

pub mod agent;
pub mod books;
pub mod both_ends;
pub mod bpf;
pub mod census;
pub mod churn;
pub mod collector;
pub mod collectors;
pub mod control_group;
pub mod counters;
pub mod demo;
pub mod duel;
pub mod faults;
pub mod fleet;
pub mod flood;
pub mod frame;
pub mod interrupt;
pub mod links;
pub mod load;
pub mod namespace;
pub mod privilege;
pub mod process;
pub mod prometheus;
pub mod raw;
pub mod schema;
mod socket;
pub mod tap;
pub mod tcp;
pub mod terminal;
pub mod topology;
pub mod tuntap;
pub mod udp;

pub use handshake_common::flow::Family;
pub use namespace::Namespace;
pub use privilege::{
    library_or_skip, python_or_skip, skip_unless_found, skip_unless_privileged, skip_without_tool,
};
pub use process::Process;
pub use topology::{FAMILIES, Loopback, Pair, Path, Routed, Row};
