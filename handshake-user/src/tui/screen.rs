//! The screens.

/// What is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Screen {
    /// Are connections being established?
    Overview,
    /// One by one.
    Attempts,
    /// By responder.
    Services,
    /// Can the figures be trusted, and what do they cost?
    Health,
}

impl Screen {
    /// In the order of their numbers.
    pub(crate) const ALL: [Self; 4] = [Self::Overview, Self::Attempts, Self::Services, Self::Health];

    /// Its name on the screen.
    pub(crate) const fn title(self) -> &'static str {
        match self {
            Self::Overview => "Overview",
            Self::Attempts => "Attempts",
            Self::Services => "Services",
            Self::Health => "Health",
        }
    }

    /// The screen that comes `by` screens later, around the end.
    pub(crate) fn step(self, by: usize) -> Self {
        Self::ALL[(self as usize + by) % Self::ALL.len()]
    }
}
