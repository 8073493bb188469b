//! What stays the same over a run: where the packets come from, since when, and which flows count.

use crate::options::Filter;

/// What stays the same over a run.
#[derive(Clone, Debug)]
pub struct Context {
    /// What is looked at.
    pub origin: Origin,
    /// When counting began, ns since the Unix epoch.
    pub from_ns: u64,
    /// Which flows count.
    pub filter: Filter,
    /// Services listed by name, of each protocol.
    pub top: usize,
}

/// Where the packets come from.
#[derive(Clone, Debug)]
pub enum Origin {
    /// A file; `-` is standard input.
    Capture {
        /// As given on the command line.
        path: String,
        /// The names of its interfaces that have one, by hook point; those met so far.
        interfaces: Vec<Option<String>>,
    },
    /// Interfaces, in the order of the records' hook points.
    Live {
        /// At least one.
        interfaces: Vec<Interface>,
    },
}

/// An interface that is watched, and how.
#[derive(Clone, Debug, Default)]
pub struct Interface {
    /// As `ip link` names it.
    pub name: String,
    /// The hook that sees what comes in, in the words of `--hook`.
    pub ingress: Option<String>,
    /// The hook that sees what goes out.
    pub egress: Option<String>,
    /// A super-packet counts as one here, since the hook cannot see its segments.
    pub merged: bool,
    /// Programs that see, and may drop, packets before ours.
    pub before: Vec<String>,
}
