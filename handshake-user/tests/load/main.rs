//! Load tests of the command: every scenario in its short form, and the examples as they are in the
//! repository.

mod examples;
mod scenarios;

/// The command under test.
const HANDSHAKE: &str = env!("CARGO_BIN_EXE_handshake");
