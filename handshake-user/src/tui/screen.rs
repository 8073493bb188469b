//! The screens and their order.

/// A screen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Screen {
    /// Are connections established?
    Overview,
    /// Attempts and UDP flows one by one.
    Attempts,
    /// Attempts and UDP flows by responder.
    Services,
    /// Are the figures exact, and what do they cost?
    Health,
}

impl Screen {
    /// All screens, in the order of their numbers.
    pub(crate) const ALL: [Self; 4] = [Self::Overview, Self::Attempts, Self::Services, Self::Health];

    /// The title.
    pub(crate) const fn title(self) -> &'static str {
        match self {
            Self::Overview => "Overview",
            Self::Attempts => "Attempts",
            Self::Services => "Services",
            Self::Health => "Health",
        }
    }

    /// The screen `by` positions later; the first follows the last.
    pub(crate) fn step(self, by: usize) -> Self {
        Self::ALL[(self as usize + by) % Self::ALL.len()]
    }
}
