//! Connections that the kernel opened while the hooks saw nothing of a handshake. Pure.

use crate::delta::worded;
use crate::source::opens::KernelOpens;

worded!(KernelOpens { active, passive });
worded!(UnseenOpens { taken_ns, segments, moved_ns, known, now });

/// The kernel's count of the connections that it opened, held against the hooks'.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnseenOpens {
    /// When it was taken, on the records' clock.
    taken_ns: u64,
    /// SYNs and SYN+ACKs at the hooks, whatever the filter.
    segments: u64,
    /// When the latest of them was first counted.
    moved_ns: u64,
    /// The kernel's count at that time, or when the handshake of that segment was over.
    known: KernelOpens,
    now: KernelOpens,
}

impl UnseenOpens {
    /// The first count of a run.
    pub(super) const fn first(taken_ns: u64, segments: u64, now: KernelOpens) -> Self {
        Self { taken_ns, segments, moved_ns: taken_ns, known: now, now }
    }

    /// `next`, the count after this one. The kernel counts a connection when its final ACK comes: a handshake
    /// is over after `over_ns`.
    pub(super) const fn then(self, next: Self, over_ns: u64) -> Self {
        if next.segments != self.segments {
            return next;
        }
        let is_over = self.taken_ns.saturating_sub(self.moved_ns) >= over_ns;
        let known = if is_over { self.known } else { next.now };
        Self { moved_ns: self.moved_ns, known, ..next }
    }

    /// How many connections it opened at least.
    #[must_use]
    pub const fn connections(&self) -> u64 {
        self.now.since(self.known).connections()
    }

    /// For how long neither a SYN nor a SYN+ACK has passed the hooks, ns.
    #[must_use]
    pub const fn quiet_ns(&self) -> u64 {
        self.taken_ns.saturating_sub(self.moved_ns)
    }
}
