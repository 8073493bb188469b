//! The two hooks, and the programs that are compared on them.

/// The hook on which the programs of a row run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BenchHook {
    /// Before a socket buffer exists.
    Xdp,
    /// On a socket buffer; handshake's program is the egress one.
    Tc,
}

/// A program that takes turns in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Subject {
    /// The empty program: the cost of the hook itself.
    Empty,
    /// The usual way to track flows.
    Reference,
    /// handshake's program.
    Ours,
}

impl Subject {
    pub(crate) const ALL: [Self; 3] = [Self::Empty, Self::Reference, Self::Ours];
}

impl BenchHook {
    /// The name in tables and JSON.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Xdp => "xdp",
            Self::Tc => "tc",
        }
    }

    /// The name of a subject's program; handshake's is in another object than the rest.
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

    /// The name of the walker that visits flows at random, or in order.
    pub(crate) const fn walker(self, at_random: bool) -> &'static str {
        match (self, at_random) {
            (Self::Xdp, true) => "at_random_xdp",
            (Self::Xdp, false) => "in_order_xdp",
            (Self::Tc, true) => "at_random_tc",
            (Self::Tc, false) => "in_order_tc",
        }
    }

    /// The name of the array from which a walker takes the program under test.
    pub(crate) const fn target(self) -> &'static str {
        match self {
            Self::Xdp => "TARGET_XDP",
            Self::Tc => "TARGET_TC",
        }
    }

    /// The return value of every program under test: `XDP_PASS`, `TC_ACT_UNSPEC`. A walker whose tail call
    /// fails returns something else.
    pub(crate) const fn verdict(self) -> u32 {
        match self {
            Self::Xdp => 2,
            Self::Tc => u32::MAX,
        }
    }
}
