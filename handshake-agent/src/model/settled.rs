//! Attempts that have had their time, and what their share of completed ones says.

use handshake_common::verdict::Verdict;

use crate::model::books::TcpBooks;

/// From this share of completed attempts on, percent, nothing is wrong.
pub const GOOD_PERCENT: u64 = 99;
/// Below this share, percent, a service fails.
pub const BAD_PERCENT: u64 = 50;
/// How a service does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Health {
    /// Most attempts do not complete.
    Failing,
    /// Some do not.
    Partly,
    /// Nearly all complete.
    Good,
}

/// Attempts that have had their time, and how many of them completed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settled {
    /// All of them.
    pub attempts: u64,
    /// Those that completed.
    pub completed: u64,
}

impl Settled {
    /// Those of these books.
    #[must_use]
    pub fn of(books: &TcpBooks) -> Self {
        Self { attempts: books.settled(), completed: books.verdict(Verdict::Completed) }
    }

    /// Those that `now` has and `before` had not. What completed late was half-open before.
    pub(super) fn since(before: &TcpBooks, now: &TcpBooks) -> Self {
        let attempts = now.settled().saturating_sub(before.settled());
        let completed = now.verdict(Verdict::Completed).saturating_sub(before.verdict(Verdict::Completed));
        Self { attempts, completed: completed.min(attempts) }
    }

    /// What they say; `None` where there is none.
    #[must_use]
    pub fn health(self) -> Option<Health> {
        let share = |percent: u64| u128::from(self.attempts) * u128::from(percent);
        match u128::from(self.completed) * 100 {
            _ if self.attempts == 0 => None,
            completed if completed < share(BAD_PERCENT) => Some(Health::Failing),
            completed if completed < share(GOOD_PERCENT) => Some(Health::Partly),
            _ => Some(Health::Good),
        }
    }

    /// Those that did not.
    pub(super) const fn failed(self) -> u64 {
        self.attempts - self.completed
    }
}
