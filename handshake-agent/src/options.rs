//! The user's choices as plain values: interfaces, hooks, filters, and the times of the rules. The command
//! line and the configuration are converted into these.

use std::time::Duration;

use crate::address::{Cidr, PortRange};
use crate::hook::{DirectionChoice, HookChoice};

/// The default values, which the command line uses too.
pub mod defaults {
    use std::time::Duration;

    /// T1, after which an open attempt is half-open. The first retransmission of a SYN comes after 1 s, the
    /// second after 3 s (RFC 6298 §2, §5.7).
    pub const HALF_OPEN_AFTER: Duration = Duration::from_secs(3);
    /// T2, after which an open attempt expires. Longer than Linux's longest pause between two SYNs or
    /// SYN+ACKs (32 s), and than its 63 s of SYN+ACK retries.
    pub const EXPIRE_AFTER: Duration = Duration::from_secs(75);
    /// How long a UDP flow is kept without a packet.
    pub const UDP_IDLE: Duration = Duration::from_secs(60);
    /// How long a completed connection may be silent before it is evicted as readily as a closed one.
    pub const IDLE_AFTER: Duration = Duration::from_secs(3_600);
    /// The number of flows that the live tables have room for: 32 MiB of IPv4 slots and 8 MiB of IPv6 slots.
    pub const MAX_FLOWS: u32 = 262_144;
}

/// Which flows are tracked. Packet classes are counted before this filter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Flows with one of these ports at either end; if empty, all flows.
    pub ports: Vec<PortRange>,
    /// Flows with an address in one of these networks at either end; if empty, all flows.
    pub nets: Vec<Cidr>,
}

/// The times and rules that decide a flow's verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// T1: an open attempt is half-open from this age on.
    pub half_open_after: Duration,
    /// T2: an open attempt expires this long after its last SYN or SYN+ACK.
    pub expire_after: Duration,
    /// A UDP flow expires this long after its last packet.
    pub udp_idle: Duration,
    /// A completed connection that has been silent for this long is evicted as readily as a closed one.
    pub idle_after: Duration,
    /// Whether only one direction is visible: completion is then inferred from the initiator's packets.
    pub one_sided: bool,
    /// Whether incoming segments with a wrong TCP checksum prove nothing.
    pub verify_checksums: bool,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            half_open_after: defaults::HALF_OPEN_AFTER,
            expire_after: defaults::EXPIRE_AFTER,
            udp_idle: defaults::UDP_IDLE,
            idle_after: defaults::IDLE_AFTER,
            one_sided: false,
            verify_checksums: false,
        }
    }
}

/// The choice of `-i` and `--wait`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InterfaceChoice {
    /// Names and patterns of interfaces, as fnmatch(3) has them, and `any`; if empty, the interfaces of the
    /// default routes.
    pub names: Vec<String>,
    /// Whether the names may be of interfaces that are not there yet; a run needs none then.
    pub wait: bool,
}

/// What to watch, where, and by which rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The interfaces.
    pub interfaces: InterfaceChoice,
    /// The hook to attach to.
    pub hook: HookChoice,
    /// The directions of an interface to watch.
    pub direction: DirectionChoice,
    /// Whether to put the interfaces into promiscuous mode, so that they accept frames for other hosts, as a
    /// mirror port needs.
    pub promisc: bool,
    /// The number of flows that the tables have room for, whatever their state.
    pub max_flows: u32,
    /// Which flows are tracked.
    pub filter: Filter,
    /// The times and rules that decide a flow's verdict.
    pub rules: Rules,
    /// Whether to know the process of each end.
    pub processes: bool,
    /// How many services a report lists by name, per protocol.
    pub top: usize,
    /// Whether the kernel sends an event for each attempt that ends.
    pub events: bool,
    /// Whether the kernel keeps packets of open attempts.
    pub evidence: bool,
    /// Whether all flows are listed at the end, which takes memory for each.
    pub flows: bool,
    /// Whether the kernel side writes its diagnostics; without this the verifier removes them.
    pub kernel_log: bool,
    /// Whether to keep the verifier's whole log of a program that it refuses: megabytes, and loading takes
    /// several times as long.
    pub verifier_log: bool,
}

impl Options {
    /// Whether the kernel side explains handshake segments: only of flows that a filter selects, because a line per
    /// segment of all flows would tell nothing.
    #[must_use]
    pub const fn explains_segments(&self) -> bool {
        self.kernel_log && (!self.filter.ports.is_empty() || !self.filter.nets.is_empty())
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            interfaces: InterfaceChoice::default(),
            hook: HookChoice::Auto,
            direction: DirectionChoice::Auto,
            promisc: false,
            max_flows: defaults::MAX_FLOWS,
            filter: Filter::default(),
            rules: Rules::default(),
            processes: false,
            top: usize::MAX,
            events: false,
            evidence: false,
            flows: false,
            kernel_log: false,
            verifier_log: false,
        }
    }
}
