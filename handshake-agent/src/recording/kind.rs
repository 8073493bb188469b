//! The kinds of rows in a block. A scan has its own, from 0x20 on.

/// Raised by hand when a row's meaning changes.
pub(super) const FORM: u64 = 1;

/// The time, and what has a word of its own.
pub(super) const HEAD: u8 = 1;
/// The counters.
pub(super) const COUNTERS: u8 = 2;
/// The packets of an interface.
pub(super) const CLASSES: u8 = 3;
/// Those of interfaces that are gone.
pub(super) const GONE: u8 = 4;
/// The histogram of a leg.
pub(super) const HISTOGRAM: u8 = 5;
/// A row of the service table.
pub(super) const SERVICE: u8 = 6;
/// The completions of a service by their time.
pub(super) const CONNECTS: u8 = 7;
/// A row of the workloads.
pub(super) const WORKLOAD: u8 = 8;
/// What the looks at the hooks have found.
pub(super) const SIGHT: u8 = 9;
/// What stays the same over a run.
pub(super) const CONTEXT: u8 = 10;
/// The addresses of this host.
pub(super) const HOST: u8 = 11;
/// What the snapshot has of those before it.
pub(super) const INHERITED: u8 = 12;
/// The owner of a control group.
pub(super) const OWNER: u8 = 13;
/// Records by state, and what was left out.
pub(super) const COUNTED: u8 = 14;
/// An open attempt, by what it is known by.
pub(super) const OPEN: u8 = 15;
/// A silent connection.
pub(super) const SILENT: u8 = 16;
/// A UDP flow.
pub(super) const UDP: u8 = 17;
/// An attempt that has ended since the block before, in order. No block inherits them.
pub(super) const ENDED: u8 = 18;
