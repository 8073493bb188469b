//! Plays load scenarios: traffic with a known outcome on a network, observed by `handshake check`.
//!
//! ```text
//! scenario ─▶ network ─┬─▶ traffic ─▶ truth: results of sockets, frames sent ──────┐
//! (a file)             ├─▶ kernel, wire: counters of both ends, taps ──────────────┼─▶ compare: a table
//!                      └─▶ handshake check ─▶ report and exit code ───────────────┘
//! ```
//!
//! All traffic stays within namespaces made for the run, which are removed afterwards.

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

pub use compare::FigureComparison;
pub use scenario::{Scenario, parse_duration};

/// Runs one scenario; `binary` is handshake. Returns the comparison and handshake's standard error.
///
/// # Errors
/// The traffic fails, or handshake writes no report.
pub fn play(scenario: &Scenario, binary: &Path) -> Result<(FigureComparison, String)> {
    let seen = run::run(scenario, binary)?;
    Ok((FigureComparison::of(scenario, &seen)?, seen.said))
}
