//! Readings as blocks of bytes, a second apart, and back: what `--record` keeps of the last hour.
//!
//! ```text
//! Source, ended attempts ─▶ Recorder ─▶ Block … Block ─▶ Player ─▶ Recorded, which is a Source
//! ```
//!
//! A block has what a reading has ([`Source`](crate::source::Source)), so a report of a moment is made by the
//! same functions as a live one. Some blocks are whole, and all others say what has changed since the block
//! before ([`delta`](crate::delta)). Figures are never left out. Of single flows there may be more than there is
//! room for: failures come first, and how many are left out is in the block.
//!
//! Pure, but for the source. What becomes of the blocks is not known here.

mod ends;
mod kept;
mod kind;
mod player;
mod recorder;

pub use ends::Ends;
pub use player::{Player, Recorded};
pub use recorder::Recorder;

use handshake_common::abi::LAYOUT;

/// A number that differs when blocks are not understood by another version.
pub const FORM: u64 = LAYOUT ^ kind::FORM;

/// A moment, as it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// Whether it says all, and not what has changed.
    pub is_whole: bool,
    /// The time, ns since the Unix epoch.
    pub wall_ns: u64,
    /// The same on the records' clock.
    pub ns: u64,
    /// What it says.
    pub changes: Vec<u8>,
}

/// How much of a moment there was no room for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LeftOut {
    /// Open attempts.
    pub open: u64,
    /// Attempts that failed since the moment before.
    pub failed: u64,
    /// Other attempts that ended since.
    pub ended: u64,
}

impl LeftOut {
    /// Whether nothing was.
    #[must_use]
    pub const fn is_nothing(&self) -> bool {
        self.open == 0 && self.failed == 0 && self.ended == 0
    }
}

#[cfg(test)]
mod tests;
