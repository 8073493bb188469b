//! Joins two accounts of the same attempts, taken at two places, by the sequence numbers, which address
//! translation leaves as they are. What one account cannot say, both say together: between which of the two
//! places a segment was lost.
//!
//! ```text
//! files            the files of an account, and the memory that they may take
//! read             their lines
//! └─ line          what a line says
//!    └─ account    the attempts of one place, when it looked, and what it may have missed
//! joined           a row for each attempt, and what they come to
//! ├─ between       what a proxy between answered, by time
//! ├─ matching      which attempt of one account is which of the other
//! ├─ clocks        how far one clock is ahead of the other
//! └─ outcome       where an attempt was lost
//!    └─ attempt    an attempt as one account has it
//! ```
//!
//! What may not live here: output of any kind, the command line, and any clock.

#![cfg_attr(not(test), deny(clippy::print_stdout, clippy::print_stderr))]

mod account;
mod attempt;
mod between;
mod clocks;
mod error;
mod files;
mod joined;
mod line;
mod matching;
mod outcome;
mod read;
#[cfg(test)]
mod tests;

pub use account::{Account, Inexact, Window};
pub use attempt::{Attempt, End};
pub use clocks::{ClockFinding, Clocks};
pub use error::JoinError;
pub use files::{AccountFiles, COST, Room, are_read_once, needed};
pub use joined::{Joined, Row, Times, Totals, Translation};
pub use outcome::{Doubt, Outcome, Segment, Which};
pub use read::read;
