//! Load by scenario: a network with traffic whose truth is known, and what `handshake check` makes of it.
//!
//! ```text
//! scenario ─▶ network ─┬─▶ traffic ─▶ truth: what the sockets met, what was sent ──┐
//! (a file)             ├─▶ kernel, wire: counters of both ends, taps ──────────────┼─▶ compare ─▶ a table, exit code
//!                      └─▶ handshake check ─▶ its report, how it ended ────────────┘
//! ```
//!
//! Nothing is sent outside of the namespaces made here, and they go when it ends.

mod compare;
mod file;
mod folder;
mod kernel;
mod memory;
mod mistake;
mod network;
mod progress;
mod run;
mod scenario;
mod traffic;
mod truth;
mod wire;

use std::path::Path;

use anyhow::Result;

pub use compare::Comparison;
pub use scenario::{Scenario, parse_duration};

/// Runs one scenario with `binary` for handshake. Gives the comparison, and what handshake said.
///
/// # Errors
/// Its traffic does not come about, or handshake gives no report.
pub fn play(scenario: &Scenario, binary: &Path) -> Result<(Comparison, String)> {
    let seen = run::run(scenario, binary)?;
    Ok((Comparison::of(scenario, &seen)?, seen.said))
}
