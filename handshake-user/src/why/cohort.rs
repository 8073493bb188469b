//! The attempts that have had their time, and what became of them.
//!
//! ```text
//!  start                        cutoff            now
//!    ├── attempts that count ─────┼──── T1 ─────────┤
//! ```
//!
//! A connection that completes does so at once, and one that is stuck is known as stuck after T1 alone. So
//! attempts count that began at least T1 ago, or those that fail would be fewer than they are. Open ones are
//! those that began before the cutoff too, or they would be more: the last snapshot is taken with the time since
//! the cutoff as its T1.

use handshake_agent::model::snapshot::TcpBooks;
use handshake_agent::source::scan::ByCause;
use handshake_common::verdict::{Cause, Verdict};

/// Attempts that began at least T1 ago, by what became of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Cohort {
    /// All of them.
    pub(crate) attempts: u64,
    /// Those that completed.
    pub(crate) completed: u64,
    /// Those that are open, or were until they expired.
    pub(crate) open: ByCause,
    /// Open ones whose SYN came once.
    pub(crate) never_repeated: ByCause,
    /// Open ones whose SYN was repeated.
    pub(crate) repeated: ByCause,
    /// Half-open ones of any cause whose initiator may still wait.
    pub(crate) waiting: u64,
    /// Those that ended otherwise, by verdict.
    ended: [u64; Verdict::ALL.len()],
}

impl Cohort {
    /// Those of the books at the cutoff, as they stand now. The identity makes it one sum: what is not known to
    /// have failed has completed.
    pub(crate) fn between(cutoff: &TcpBooks, now: &TcpBooks) -> Self {
        let attempts = cutoff.attempts;
        let mut cohort = Self {
            never_repeated: now.never_repeated(),
            repeated: now.repeated(),
            waiting: now.waiting(),
            ..Self::default()
        };
        cohort.open += now.by_cause(Verdict::HalfOpen);
        cohort.open += now.by_cause(Verdict::HalfOpenExpired);
        for verdict in Verdict::ALL {
            let is_end = verdict.is_in_books()
                && !matches!(
                    verdict,
                    Verdict::Completed | Verdict::HalfOpen | Verdict::HalfOpenExpired | Verdict::Opening
                );
            cohort.ended[verdict as usize] = if is_end { cutoff.verdict(verdict) } else { 0 };
        }
        let failed = cohort.open.total() + cohort.ended.iter().sum::<u64>();
        // A snapshot has a time and takes some more, in which attempts begin: they count at the cutoff, and are
        // younger. So no more have completed than the books show, and no fewer than they showed at the cutoff.
        let known = cutoff.verdict(Verdict::Completed);
        let most = now.verdict(Verdict::Completed).max(known);
        cohort.completed = attempts.saturating_sub(failed).clamp(known, most);
        cohort.attempts = failed + cohort.completed;
        cohort
    }

    /// Those that ended with this verdict, other than completed or open.
    pub(crate) const fn ended(&self, verdict: Verdict) -> u64 {
        self.ended[verdict as usize]
    }

    /// Those that are known to have failed.
    pub(crate) const fn failed(&self) -> u64 {
        self.attempts - self.completed
    }

    /// The most frequent cause of open ones, with how many have it.
    pub(crate) fn stuck(&self) -> Option<(Cause, u64)> {
        let causes = Cause::ALL.map(|cause| (cause, self.open.of(cause)));
        causes.into_iter().max_by_key(|(_, count)| *count).filter(|(_, count)| *count != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 38 of 100 complete at once and the others are stuck: of 200 that have begun, only those count that had
    /// their time.
    #[test]
    fn attempts_that_had_no_time_do_not_count() {
        let cutoff = TcpBooks::of(
            100,
            &[(Verdict::Completed, [38, 0]), (Verdict::Refused, [2, 0]), (Verdict::Opening, [60, 0])],
        );
        let now = TcpBooks::of(
            200,
            &[
                (Verdict::Completed, [76, 0]),
                (Verdict::Refused, [4, 0]),
                (Verdict::HalfOpen, [50, 10]),
                (Verdict::Opening, [60, 0]),
            ],
        );
        let cohort = Cohort::between(&cutoff, &now);
        assert_eq!((cohort.attempts, cohort.completed, cohort.failed()), (100, 38, 62));
        assert_eq!(cohort.stuck(), Some((Cause::NoSynAck, 50)));
        assert_eq!(cohort.ended(Verdict::Refused), 2);
    }

    /// While the first snapshot was taken, 5 SYNs came that nothing answers.
    #[test]
    fn what_begins_while_a_snapshot_is_taken_has_not_completed() {
        let cutoff = TcpBooks::of(105, &[(Verdict::Opening, [105, 0])]);
        for (completed, expected) in [(0, (100, 0)), (2, (102, 2))] {
            let now = TcpBooks::of(
                198 + completed,
                &[
                    (Verdict::Completed, [completed, 0]),
                    (Verdict::HalfOpen, [100, 0]),
                    (Verdict::Opening, [98, 0]),
                ],
            );
            let cohort = Cohort::between(&cutoff, &now);
            assert_eq!((cohort.attempts, cohort.completed), expected);
        }
    }

    #[test]
    fn a_reading_between_two_counts_is_no_negative_number() {
        let cutoff = TcpBooks::of(5, &[(Verdict::Opening, [5, 0])]);
        let now = TcpBooks::of(9, &[(Verdict::HalfOpen, [6, 0]), (Verdict::Opening, [3, 0])]);
        let cohort = Cohort::between(&cutoff, &now);
        assert_eq!((cohort.attempts, cohort.completed), (6, 0));
        assert_eq!(Cohort::between(&TcpBooks::default(), &TcpBooks::default()).stuck(), None);
    }
}
