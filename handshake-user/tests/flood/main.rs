//! Exact under flood: the command itself on real hooks, more frames than its table holds flows, and real handshakes
//! through the same hook meanwhile. A program of its own, so that no other test runs beside it; one flood at a time.
//!
//! What a run comes to is printed. `HANDSHAKE_FLOOD_SECONDS=10 cargo test -p handshake-user --test flood -- --nocapture`
//! floods for longer, over the default table.

#[path = "../e2e/books.rs"]
#[expect(dead_code, reason = "shared with the end-to-end tests, which compare reports")]
mod books;
mod events;
mod flows;
mod run;
mod syn;

/// The command under test.
const HANDSHAKE: &str = env!("CARGO_BIN_EXE_handshake");
