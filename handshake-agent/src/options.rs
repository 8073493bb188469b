//! What the user decides, as plain values: which interfaces and flows, and the clocks of the rules. The command line and
//! the configuration convert into these.

use std::time::Duration;

use crate::address::{Cidr, PortRange};
use crate::hook::{DirectionChoice, HookChoice};

/// The values that hold when the user says nothing. The command line reads its defaults here.
pub mod defaults {
    use std::time::Duration;

    /// T1. The first retransmission of a SYN comes after 1 s, the second after 3 s (RFC 6298 §2, §5.7).
    pub const HALF_OPEN_AFTER: Duration = Duration::from_secs(3);
    /// T2. Above Linux's longest pause between two SYNs or SYN+ACKs (32 s), and its 63 s of SYN+ACK retries.
    pub const EXPIRE_AFTER: Duration = Duration::from_secs(75);
    /// How long a UDP flow lives without a packet.
    pub const UDP_IDLE: Duration = Duration::from_secs(60);
    /// How long a completed connection may be silent and still count as alive when room is needed.
    pub const IDLE_AFTER: Duration = Duration::from_secs(3_600);
    /// Flows that the live tables have room for: 32 MiB of IPv4 slots and 8 MiB of IPv6 slots.
    pub const MAX_FLOWS: u32 = 262_144;
}

/// Which flows count. Packet classes are counted before this.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Flows with one of these ports at either end; empty: all.
    pub ports: Vec<PortRange>,
    /// Flows with an address of one of these prefixes at either end; empty: all.
    pub nets: Vec<Cidr>,
}

/// When a flow counts as what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// T1: an open attempt of this age is half-open.
    pub half_open_after: Duration,
    /// T2: an open attempt expires this long after its last SYN or SYN+ACK.
    pub expire_after: Duration,
    /// A UDP flow expires this long after its last packet.
    pub udp_idle: Duration,
    /// A completed connection that is silent for this long gives way as a closed one does.
    pub idle_after: Duration,
    /// Only one direction passes: completion is inferred from the initiator's packets.
    pub one_sided: bool,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            half_open_after: defaults::HALF_OPEN_AFTER,
            expire_after: defaults::EXPIRE_AFTER,
            udp_idle: defaults::UDP_IDLE,
            idle_after: defaults::IDLE_AFTER,
            one_sided: false,
        }
    }
}

/// What is watched, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Names of interfaces; empty: those of the default routes.
    pub interfaces: Vec<String>,
    /// Where to attach.
    pub hook: HookChoice,
    /// Which directions of an interface to watch.
    pub direction: DirectionChoice,
    /// The interfaces accept frames for other hosts too, as a mirror port needs.
    pub promisc: bool,
    /// Flows that the tables have room for, whatever their state.
    pub max_flows: u32,
    /// Which flows count.
    pub filter: Filter,
    /// When a flow counts as what.
    pub rules: Rules,
    /// Services that a report lists by name, of each protocol.
    pub top: usize,
    /// The kernel sends an event for each attempt that ends.
    pub events: bool,
    /// The kernel side writes its diagnostics; without this the verifier removes them.
    pub kernel_log: bool,
    /// Keep the verifier's whole log of a program that it refuses: megabytes, and several times the time.
    pub verifier_log: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            interfaces: Vec::new(),
            hook: HookChoice::Auto,
            direction: DirectionChoice::Auto,
            promisc: false,
            max_flows: defaults::MAX_FLOWS,
            filter: Filter::default(),
            rules: Rules::default(),
            top: usize::MAX,
            events: false,
            kernel_log: false,
            verifier_log: false,
        }
    }
}
