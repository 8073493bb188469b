//! Tests that the command stays exact under a flood: on real hooks, with more frames than its table holds
//! flows, and with real handshakes through the same hook. A program of its own, so that no other test runs at
//! the same time; one flood at a time.
//!
//! Results are printed. `HANDSHAKE_FLOOD_SECONDS=10 cargo test -p handshake-user --test flood -- --nocapture`
//! floods for longer, with the default table.

#[path = "../e2e/books.rs"]
#[expect(dead_code, reason = "shared with the end-to-end tests, which compare reports")]
mod books;
mod events;
mod flows;
mod run;
mod syn;

/// The command under test.
const HANDSHAKE: &str = env!("CARGO_BIN_EXE_handshake");
