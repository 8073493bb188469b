//! The words for hooks and directions, which options, reports, errors and attaching share.

use std::fmt;

/// A place in the kernel where a program sees packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// XDP in the driver.
    XdpNative,
    /// XDP in the stack.
    XdpGeneric,
    /// TC by link (Linux 6.6).
    Tcx,
    /// TC by qdisc and filter.
    Clsact,
}

impl Hook {
    /// All hooks, in the order of `--help`.
    #[cfg(any(test, feature = "testing"))]
    pub const ALL: [Self; 4] = [Self::XdpNative, Self::XdpGeneric, Self::Tcx, Self::Clsact];

    /// The word on the command line and in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::XdpNative => "xdp-native",
            Self::XdpGeneric => "xdp-generic",
            Self::Tcx => "tcx",
            Self::Clsact => "clsact",
        }
    }

    /// Whether it is one of XDP's.
    pub const fn is_xdp(self) -> bool {
        matches!(self, Self::XdpNative | Self::XdpGeneric)
    }

    /// Whether a super-packet counts as one here: generic XDP runs after segments were merged and cannot see how many.
    pub const fn merges_segments(self) -> bool {
        matches!(self, Self::XdpGeneric)
    }
}

impl fmt::Display for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// `--hook`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HookChoice {
    /// The best that each interface has.
    #[default]
    Auto,
    /// This one for ingress, or an error.
    Named(Hook),
}

/// `--direction`: which directions of an interface are watched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DirectionChoice {
    /// Ingress on loopback, both elsewhere.
    #[default]
    Auto,
    /// Both directions of a conversation come in: a mirror port, all sides of a router.
    Ingress,
    /// Ingress and egress.
    Both,
}

/// The direction in which a packet passes an interface (tc).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// In.
    Ingress,
    /// Out.
    Egress,
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
        })
    }
}
