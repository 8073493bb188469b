//! The command itself, run as a person runs it: in networks of its own with traffic by the kernel's own TCP, and
//! held against two other accounts, the wire's and the kernel's. One binary, so that it is linked once.

mod books;
mod check;
mod ending;
mod error;
mod filter;
mod header;
mod memory;
mod network;
mod output;
mod replay;
mod scenario;
mod special;
mod stage;
mod terminal;

/// The command under test.
const HANDSHAKE: &str = env!("CARGO_BIN_EXE_handshake");
