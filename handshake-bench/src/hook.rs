//! The two hooks, and what is compared on them.

/// Where the programs of a row run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hook {
    /// Before there is a socket buffer.
    Xdp,
    /// On a socket buffer; ours is the egress program.
    Tc,
}

/// What takes its turn in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Subject {
    /// What the hook costs by itself.
    Empty,
    /// The usual way.
    Reference,
    /// handshake.
    Ours,
}

impl Subject {
    pub(crate) const ALL: [Self; 3] = [Self::Empty, Self::Reference, Self::Ours];
}

impl Hook {
    /// In tables and JSON.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Xdp => "xdp",
            Self::Tc => "tc",
        }
    }

    /// The object's program for a subject; ours are of another object than the rest.
    pub(crate) const fn program(self, subject: Subject) -> &'static str {
        match (self, subject) {
            (Self::Xdp, Subject::Empty) => "empty_xdp",
            (Self::Xdp, Subject::Reference) => "reference_xdp",
            (Self::Xdp, Subject::Ours) => "handshake_xdp",
            (Self::Tc, Subject::Empty) => "empty_tc",
            (Self::Tc, Subject::Reference) => "reference_tc",
            (Self::Tc, Subject::Ours) => "handshake_egress",
        }
    }

    /// The walker that visits flows at random, or each in its turn.
    pub(crate) const fn walker(self, at_random: bool) -> &'static str {
        match (self, at_random) {
            (Self::Xdp, true) => "at_random_xdp",
            (Self::Xdp, false) => "in_order_xdp",
            (Self::Tc, true) => "at_random_tc",
            (Self::Tc, false) => "in_order_tc",
        }
    }

    /// The array that a walker takes the program under test from.
    pub(crate) const fn target(self) -> &'static str {
        match self {
            Self::Xdp => "TARGET_XDP",
            Self::Tc => "TARGET_TC",
        }
    }

    /// What every program under test ends with: `XDP_PASS`, `TC_ACT_UNSPEC`. A walker whose call
    /// went nowhere ends with something else.
    pub(crate) const fn verdict(self) -> u32 {
        match self {
            Self::Xdp => 2,
            Self::Tc => u32::MAX,
        }
    }
}
