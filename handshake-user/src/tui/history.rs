//! The rates of the latest intervals, from which the sparklines are drawn. Pure.

use std::collections::VecDeque;

use handshake_agent::model::snapshot::{Interval, TcpBooks};
use handshake_common::verdict::Verdict;

/// Most intervals kept: enough for the widest terminal.
const KEPT: usize = 300;

/// The rates of one interval.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct IntervalRates {
    /// Attempts begun per second.
    pub(crate) attempts: u64,
    /// Attempts completed per second.
    pub(crate) completed: u64,
    /// Attempts that became half-open, per second.
    pub(crate) half_opened: u64,
    /// Attempts that ended without being established, per second, with any verdict.
    pub(crate) failed: u64,
    /// Attempts half-open at the interval's end.
    pub(crate) half_open: u64,
    /// Attempts younger than T1 at the interval's end.
    pub(crate) opening: u64,
}

impl IntervalRates {
    /// The rates of an interval with these books at its end.
    pub(crate) fn of(interval: &Interval<'_>, now: &TcpBooks) -> Self {
        let per_second_of = |count: u64| per_second(count, interval.elapsed_ns());
        Self {
            attempts: per_second_of(interval.rise(|s| s.tcp.books.attempts)),
            completed: per_second_of(interval.rise(|s| s.tcp.books.verdict(Verdict::Completed))),
            half_opened: per_second_of(interval.rise(|s| {
                s.tcp.books.verdict(Verdict::HalfOpen) + s.tcp.books.verdict(Verdict::HalfOpenExpired)
            })),
            failed: per_second_of(interval.rise(|s| failed(&s.tcp.books))),
            half_open: now.verdict(Verdict::HalfOpen),
            opening: now.verdict(Verdict::Opening),
        }
    }
}

/// Attempts that are half-open, or that were superseded, expired or evicted while open.
pub(crate) fn stuck(books: &TcpBooks) -> u64 {
    Verdict::ALL.into_iter().filter(|verdict| verdict.has_cause()).map(|verdict| books.verdict(verdict)).sum()
}

/// Attempts that have ended without being established.
pub(crate) fn failed(books: &TcpBooks) -> u64 {
    let open = books.verdict(Verdict::Opening) + books.verdict(Verdict::HalfOpen);
    books.attempts.saturating_sub(books.verdict(Verdict::Completed)).saturating_sub(open)
}

/// A count in `ns` nanoseconds as a rate per second.
fn per_second(count: u64, ns: u64) -> u64 {
    let rate = u128::from(count) * 1_000_000_000 / u128::from(ns.max(1));
    u64::try_from(rate).unwrap_or(u64::MAX)
}

/// The rates of the latest intervals, the oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct RateHistory {
    rates: VecDeque<IntervalRates>,
}

impl RateHistory {
    /// Adds the rates of the latest interval.
    pub(crate) fn push(&mut self, rates: IntervalRates) {
        if self.rates.len() == KEPT {
            self.rates.pop_front();
        }
        self.rates.push_back(rates);
    }

    /// The rates of the latest interval; zeros before the first.
    pub(crate) fn last(&self) -> IntervalRates {
        self.rates.back().copied().unwrap_or_default()
    }

    /// One figure of the latest `count` intervals, the oldest first.
    pub(crate) fn series(&self, count: usize, figure: impl Fn(&IntervalRates) -> u64) -> Vec<u64> {
        let skipped = self.rates.len().saturating_sub(count);
        self.rates.iter().skip(skipped).map(figure).collect()
    }
}

#[cfg(test)]
mod tests {
    use handshake_agent::model::snapshot::TcpBooks;
    use handshake_common::verdict::Verdict;

    use super::{IntervalRates, KEPT, RateHistory, failed, per_second, stuck};

    #[test]
    fn only_the_latest_intervals_are_kept() {
        let mut history = RateHistory::default();
        assert_eq!(history.last(), IntervalRates::default());
        for attempts in 0..=KEPT as u64 {
            history.push(IntervalRates { attempts, ..IntervalRates::default() });
        }
        assert_eq!(history.series(2, |rates| rates.attempts), [KEPT as u64 - 1, KEPT as u64]);
        assert_eq!(history.series(usize::MAX, |rates| rates.attempts).len(), KEPT);
    }

    #[test]
    fn stuck_and_failed_attempts_are_summed_from_the_books() {
        let figures = [
            (Verdict::Completed, [60, 0]),
            (Verdict::Refused, [10, 0]),
            (Verdict::Superseded, [4, 0]),
            (Verdict::HalfOpenExpired, [5, 6]),
            (Verdict::Evicted, [7, 0]),
            (Verdict::Opening, [2, 3]),
            (Verdict::HalfOpen, [1, 2]),
        ];
        let books = TcpBooks::of(100, &figures);
        assert_eq!((stuck(&books), failed(&books)), (3 + 11 + 4 + 7, 100 - 60 - 8));
    }

    #[test]
    fn rates_are_per_second() {
        assert_eq!((per_second(250, 250_000_000), per_second(3, 2_000_000_000)), (1_000, 1));
        assert_eq!(per_second(u64::MAX, 1), u64::MAX);
    }
}
