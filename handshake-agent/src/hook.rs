//! The names of hooks and directions, which options, reports, errors and attaching share.

use std::fmt;

/// A hook: a place in the kernel where a program sees packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// Native XDP, in the driver.
    XdpNative,
    /// Generic XDP, in the network stack.
    XdpGeneric,
    /// TC, attached by a link (TCX, Linux 6.6).
    Tcx,
    /// TC, attached by a clsact qdisc and a filter.
    Clsact,
}

impl Hook {
    /// All hooks, in the order of `--help`.
    pub const ALL: [Self; 4] = [Self::XdpNative, Self::XdpGeneric, Self::Tcx, Self::Clsact];

    /// Its name on the command line and in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::XdpNative => "xdp-native",
            Self::XdpGeneric => "xdp-generic",
            Self::Tcx => "tcx",
            Self::Clsact => "clsact",
        }
    }

    /// Whether it is native or generic XDP.
    pub const fn is_xdp(self) -> bool {
        matches!(self, Self::XdpNative | Self::XdpGeneric)
    }

    /// Whether a super-packet counts as one packet here: generic XDP runs after segments are merged and
    /// cannot see how many there were.
    pub const fn merges_segments(self) -> bool {
        matches!(self, Self::XdpGeneric)
    }
}

impl fmt::Display for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// The choice of `--hook`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HookChoice {
    /// The best hook that each interface has.
    #[default]
    Auto,
    /// This hook for ingress; an error if it is unavailable.
    Named(Hook),
}

/// The choice of `--direction`: which directions of an interface are watched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DirectionChoice {
    /// Ingress on a loopback device, both directions on all others.
    #[default]
    Auto,
    /// Ingress only. For interfaces where both directions of a conversation come in: a mirror port, all
    /// interfaces of a router.
    Ingress,
    /// Both ingress and egress.
    Both,
}

/// The direction in which a packet passes an interface, as in tc.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Into the host.
    Ingress,
    /// Out of the host.
    Egress,
}

impl Direction {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Ingress, Self::Egress];
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
        })
    }
}

/// What a look at a hook finds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HookState {
    /// Our program is on it, and nothing that came later sees packets before ours.
    Ours,
    /// Our program is not on it.
    Gone,
    /// Programs that came later see packets before ours, and may keep them from it.
    Behind(Vec<String>),
    /// The kernel did not answer, for this reason.
    Unknown(String),
    /// The kernel did not answer for the moment: this errno.
    Passing(i32),
}

/// What a look at an interface finds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum LinkState {
    /// It is up, and has a carrier.
    #[default]
    Up,
    /// It is up without a carrier.
    NoCarrier,
    /// It is administratively down.
    Down,
    /// It does not exist in this network namespace.
    Gone,
    /// Our programs cannot be attached to it, for this reason.
    Refused(String),
    /// The kernel did not answer, for this reason.
    Unknown(String),
}

/// A hook at one look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HookLook {
    /// The direction whose packets it sees.
    pub direction: Direction,
    /// The hook.
    pub hook: Hook,
    /// How it was found.
    pub state: HookState,
    /// Whether the program was then attached again, at its place: `None` where that was not tried, and the
    /// kernel's reason where it was refused.
    pub again: Option<Result<(), String>>,
}

/// An interface and its hooks at one look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InterfaceLook {
    /// Its name.
    pub name: String,
    /// The number of its packet counters; `None` of one that our programs are not on.
    pub number: Option<u16>,
    /// Whether it was named by the user: it is then told if it is down or has no carrier, as many of a
    /// pattern's are.
    pub is_required: bool,
    /// How it was found.
    pub state: LinkState,
    /// Whether it was gone, and is attached to again since the look before.
    pub came_back: bool,
    /// The hooks, ingress last.
    pub hooks: Vec<HookLook>,
}

impl InterfaceLook {
    /// Whether the kernel said how the interface and each of its hooks are.
    #[must_use]
    pub fn is_answered(&self) -> bool {
        let is = |hook: &HookLook| !matches!(hook.state, HookState::Unknown(_) | HookState::Passing(_));
        !matches!(self.state, LinkState::Unknown(_)) && self.hooks.iter().all(is)
    }
}

impl HookLook {
    /// The errno of a look that failed for the moment.
    #[must_use]
    pub const fn passing(&self) -> Option<i32> {
        match self.state {
            HookState::Passing(errno) => Some(errno),
            HookState::Ours | HookState::Gone | HookState::Behind(_) | HookState::Unknown(_) => None,
        }
    }

    /// Whether packets may have passed unseen since the look before.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        !matches!(self.state, HookState::Ours | HookState::Passing(_))
    }

    /// Whether packets may still pass unseen.
    #[must_use]
    pub fn stays_lost(&self) -> bool {
        self.is_lost() && self.again != Some(Ok(()))
    }
}
