//! The parts of `handshake why`: what was seen of the attempts that have had their time, and the one answer that
//! it gives. `command/why.rs` looks, and `report` shows the answer.
//!
//! ```text
//! snapshots ─▶ cohort ──┐
//! listeners, counters,  ├─▶ diagnosis ─▶ Answer: what is wrong, because of what, what it is not, whose it is
//! rules, conntrack ─────┘
//! ```

mod cohort;
mod conntrack;
mod diagnosis;
mod firewall;

pub(crate) use cohort::Cohort;
pub(crate) use conntrack::{Conntrack, ConntrackFiles};
pub(crate) use diagnosis::{Answer, Evidence, LEAST, Outcome, Queue, diagnose};
pub(crate) use firewall::{Firewall, Risen};

/// The answer, with what it is about.
pub(crate) struct WhyReport<'a> {
    /// What was asked, as it was asked.
    pub(crate) subject: Option<String>,
    /// The names of the interfaces.
    pub(crate) interfaces: String,
    /// What was seen.
    pub(crate) evidence: &'a Evidence,
    /// The answer.
    pub(crate) answer: &'a Answer,
}
