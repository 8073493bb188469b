//! The time to connect over all attempts that had a chance, those that never connected included.
//!
//! ```text
//! completed                       its time
//! half-open                       at least its age
//! ended without a connection      never
//! opening                         left out: too young to tell
//! evicted, untracked, ambiguous   left out: its end or its time is not known
//! ```
//!
//! Percentiles of completed attempts alone are those of survivors: where 26 of 30 clients wait, the other
//! four can be fast.

use handshake_common::abi::{BUCKETS, Histogram};
use handshake_common::latency::upper_bound;
use handshake_common::verdict::Verdict;

use crate::model::books::TcpBooks;
use crate::model::latency::{Latency, PER_MILLE};

/// Verdicts of attempts that ended without a connection.
const NEVER: [Verdict; 6] = [
    Verdict::Refused,
    Verdict::Unreachable,
    Verdict::InitiatorAborted,
    Verdict::ResponderAborted,
    Verdict::Superseded,
    Verdict::HalfOpenExpired,
];

/// A percentile of the times of attempts of which some have not connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Percentile {
    /// So many nanoseconds, at most 1/16 too high.
    Known(u64),
    /// At least so many: as long as the attempts of this rank are half-open by now.
    AtLeast(u64),
    /// The attempts of this rank ended without a connection.
    Never,
}

/// The time to connect over all attempts that had a chance.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConnectOfAll {
    /// The attempts.
    pub count: u64,
    /// How many of them have not connected: half-open ones, and those that ended without a connection.
    pub not_connected: u64,
    /// The percentiles in the order of [`PER_MILLE`], then the longest time; `None` without an attempt.
    pub percentiles: Option<[Percentile; PER_MILLE.len() + 1]>,
}

impl ConnectOfAll {
    /// Of the times of completed attempts, the ages of half-open ones by bucket, and what the books say of
    /// the others.
    pub(super) fn of(times: &Histogram, completed: &Latency, ages: &[u64], books: &TcpBooks) -> Self {
        let half_open = books.verdict(Verdict::HalfOpen);
        let never: u64 = NEVER.into_iter().map(|verdict| books.verdict(verdict)).sum();
        let (not_connected, known) = (half_open + never, times.buckets.iter().sum::<u64>());
        let count = known + not_connected;
        let longest = completed.quantiles.map_or(0, |quantiles| quantiles.max_ns);
        let all = Ranked { times, longest, ages: limited(ages, half_open), count };
        let percentiles = (count != 0).then(|| {
            let mut ranks = PER_MILLE.into_iter().chain([1_000]);
            std::array::from_fn(|_| all.at(ranks.next().unwrap_or(1_000)))
        });
        Self { count, not_connected, percentiles }
    }
}

/// Known times and least times, by bucket.
struct Ranked<'a> {
    times: &'a Histogram,
    longest: u64,
    ages: [u64; BUCKETS],
    count: u64,
}

impl Ranked<'_> {
    /// The percentile of a rank, with every half-open attempt at its age. As some may wait for longer, the
    /// result is known only where no half-open attempt is before it.
    fn at(&self, per_mille: u64) -> Percentile {
        let rank = u128::from(self.count) * u128::from(per_mille);
        let (mut below, mut waiting) = (0_u128, 0_u64);
        for (index, (times, ages)) in (0..).zip(self.times.buckets.iter().zip(self.ages)) {
            // An age is at least the lower bound of its bucket, and comes before the times of the same
            // bucket.
            for (more, is_open) in [(ages, true), (*times, false)] {
                below += u128::from(more);
                waiting += if is_open { more } else { 0 };
                if more == 0 || below * 1_000 < rank {
                    continue;
                }
                return if waiting == 0 {
                    Percentile::Known(upper_bound(index).min(self.longest))
                } else {
                    Percentile::AtLeast(lower_bound(index))
                };
            }
        }
        Percentile::Never
    }
}

/// The smallest sample of a bucket.
const fn lower_bound(bucket: u32) -> u64 {
    match bucket.checked_sub(1) {
        Some(before) => upper_bound(before) + 1,
        None => 0,
    }
}

/// As many ages as the books have half-open attempts, the youngest first. The scan of the tables comes after
/// the books and may see more; without an age, an attempt is at least 0 old.
fn limited(ages: &[u64], mut half_open: u64) -> [u64; BUCKETS] {
    let mut taken = [0; BUCKETS];
    let missing = half_open.saturating_sub(ages.iter().sum());
    for (taken, ages) in taken.iter_mut().zip(ages) {
        *taken = half_open.min(*ages);
        half_open -= *taken;
    }
    taken[0] += missing;
    taken
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use handshake_common::abi::Counter;
    use handshake_common::latency::bucket;
    use handshake_common::record::State;
    use handshake_common::verdict::Leg;

    use super::*;
    use crate::fake::{BEGINNING, Fake, SECOND};
    use crate::model::context::{LiveOrigin, Origin, RunContext};
    use crate::model::snapshot::Snapshot;
    use crate::options::Filter;

    fn of(meddle: impl FnOnce(&mut Fake)) -> ConnectOfAll {
        let mut fake = Fake::new();
        meddle(&mut fake);
        let context = RunContext {
            origin: Origin::Live(LiveOrigin::default()),
            began: BEGINNING,
            filter: Filter::default(),
            top: 1,
        };
        Snapshot::take(&mut fake, &Arc::new(context), None).expect("it cannot fail").connect_of_all
    }

    /// p50, p99 and the longest.
    fn some(all: &ConnectOfAll) -> [Percentile; 3] {
        let all = all.percentiles.expect("there are attempts");
        [all[0], all[3], all[5]]
    }

    #[test]
    fn those_that_never_connected_count() {
        assert_eq!(of(|_| {}), ConnectOfAll::default());

        let healthy = of(|fake| {
            fake.ended(0, Counter::Completed, 30);
            fake.sample(Leg::Connect, 36_000, 30);
            fake.open(0, State::SynSent, SECOND);
        });
        assert_eq!((healthy.count, healthy.not_connected), (30, 0), "an opening attempt has its chance yet");
        assert_eq!(some(&healthy), [Percentile::Known(36_000); 3]);

        let stuck = of(|fake| {
            fake.ended(0, Counter::Completed, 4);
            fake.sample(Leg::Connect, 36_000, 4);
            (0..26).for_each(|_| {
                fake.open(0, State::SynSent, 4 * SECOND);
            });
        });
        assert_eq!((stuck.count, stuck.not_connected), (30, 26));
        for each in some(&stuck) {
            let Percentile::AtLeast(ns) = each else { panic!("{each:?}") };
            assert!((4 * SECOND - 4 * SECOND / 16..=4 * SECOND).contains(&ns), "{ns}");
        }

        let refused = of(|fake| {
            fake.ended(0, Counter::Completed, 98);
            fake.sample(Leg::Connect, 36_000, 98);
            fake.ended(0, Counter::Refused, 1);
            fake.open(0, State::SynReceived, 80 * SECOND);
        });
        assert_eq!((refused.count, refused.not_connected), (100, 2), "one is past its time");
        assert_eq!(some(&refused), [Percentile::Known(36_000), Percentile::Never, Percentile::Never]);
    }

    /// What waits may wait for longer than what comes after it took.
    #[test]
    fn nothing_is_known_behind_a_half_open_attempt() {
        let all = of(|fake| {
            fake.ended(0, Counter::Completed, 3);
            fake.sample(Leg::Connect, 36_000, 2);
            fake.sample(Leg::Connect, 9 * SECOND, 1);
            fake.open(0, State::SynSent, 4 * SECOND);
        });
        let [half, _, longest] = some(&all);
        assert_eq!(half, Percentile::Known(36_863), "an upper bound");
        assert!(matches!(longest, Percentile::AtLeast(ns) if ns > 8 * SECOND), "{longest:?}");
    }

    #[test]
    fn attempts_whose_end_is_not_known_are_left_out() {
        let all = of(|fake| {
            fake.ended(0, Counter::Completed, 1);
            fake.sample(Leg::Connect, 36_000, 1);
            fake.ended(0, Counter::Evicted, 5);
            fake.ended(0, Counter::Untracked, 5);
        });
        assert_eq!((all.count, all.not_connected), (1, 0));
    }

    #[test]
    fn there_are_as_many_ages_as_the_books_have_attempts() {
        let mut ages = [0; BUCKETS];
        (ages[3], ages[9]) = (2, 2);
        let shown = |half_open| {
            let taken = limited(&ages, half_open);
            [taken[0], taken[3], taken[9]]
        };
        assert_eq!([shown(0), shown(3), shown(6)], [[0, 0, 0], [0, 2, 1], [2, 2, 2]]);
    }

    #[test]
    fn a_bucket_begins_where_the_one_before_ends() {
        for ns in [0, 1, 17, 1_000, 3 * SECOND] {
            let low = lower_bound(bucket(ns));
            assert!(low <= ns && bucket(low) == bucket(ns), "{ns}: {low}");
        }
    }
}
