//! Load tests of the command: every scenario in its short form, random conversations judged by the kernel,
//! and the examples as they are in the repository.

mod duel;
mod examples;
mod scenarios;

/// The command under test.
const HANDSHAKE: &str = env!("CARGO_BIN_EXE_handshake");
