//! Attaches the BPF programs, reads their maps, and makes snapshots of what they counted: everything from the
//! hooks to the figures.
//!
//! ```text
//! session                     loads, attaches, takes snapshots, and runs the main loop
//!    │
//!    ├── memory               what a run takes at its peak
//!    ├── makers               which process makes a socket
//!    │
//!    ├── attach               which hook each interface gets, and the programs on it
//!    │
//!    ├── recording            readings as blocks of bytes, and back
//!    │
//!    └── model                one report as plain numbers; metrics; flows
//!           │
//!         source              the origin of the figures: the kernel's maps, or a capture
//!           │
//!         options             what the user chooses, as plain values
//!           │
//!    confine                  what a running agent gives up
//!    owner                    whose a control group is: unit, container, pod
//!    free                     the memory that is free, and what limits it
//!    listeners                this host's listening sockets and their accept queues
//!    processes                which process has a socket
//!    nftables                 what the rules count that drop or reject
//!    netlink                  the little of netlink that is needed
//!    address, delta, load, similar   leaves
//! ```
//!
//! Arrows point down only; `xtask/tests/house.rs` checks it. Not in this crate: the rules of the protocol
//! (`handshake-common`), the command line, exit codes, and anything that draws or prints.

#![cfg_attr(not(test), deny(clippy::print_stdout, clippy::print_stderr))]

pub mod address;
pub mod attach;
pub mod confine;
mod delta;
pub mod error;
#[cfg(any(test, feature = "testing"))]
pub mod fake;
pub mod free;
pub mod hook;
pub mod listeners;
pub mod load;
pub mod makers;
pub mod memory;
pub mod model;
mod netlink;
pub mod nftables;
pub mod options;
pub mod owner;
pub mod processes;
pub mod recording;
pub mod session;
pub mod similar;
pub mod source;

pub use error::Error;
