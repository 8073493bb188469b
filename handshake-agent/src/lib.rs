//! From the hooks to the figures: attaches the BPF programs, reads their maps, and makes snapshots of what they counted.
//!
//! ```text
//! session                     loads, attaches, takes snapshots, and runs the one loop
//!    │
//!    ├── attach               which hook each interface gets, and the programs on it
//!    │
//!    └── model                one report as plain numbers; metrics; flows
//!           │
//!         source              where figures come from: the kernel's maps, or a capture
//!           │
//!         options             what the user decides, as plain values
//!           │
//!         address, similar    leaves
//! ```
//!
//! An arrow points down only, which `xtask/tests/house.rs` holds. What may not live here: the rules of the protocol
//! (`handshake-common`), the command line, exit codes, and anything that draws or prints.

pub mod address;
pub mod attach;
pub mod error;
#[cfg(any(test, feature = "testing"))]
pub mod fake;
pub mod hook;
pub mod model;
pub mod options;
pub mod session;
pub mod similar;
pub mod source;

pub use error::Error;
