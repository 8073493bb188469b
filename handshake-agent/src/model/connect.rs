//! The time to connect over all attempts that had a chance, those that never connected included.
//!
//! ```text
//! completed                       its time
//! half-open                       at least its age
//! ended without a connection      never
//! completed, excluded             any time: it is not known
//! opening                         left out: too young to tell
//! evicted, untracked              left out: its end is not known
//! ```
//!
//! Percentiles of completed attempts alone are those of survivors: where 26 of 30 clients wait, the other
//! four can be fast.

use std::collections::BTreeMap;
use std::ops::AddAssign;

use handshake_common::abi::{BUCKETS, Histogram};
use handshake_common::latency::{bucket, buckets_at, upper_bound};
use handshake_common::verdict::Verdict;

use crate::model::books::TcpBooks;
use crate::model::latency::{Latency, PER_MILLE};
use crate::source::Placed;

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
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Percentile {
    /// So many nanoseconds, at most 1/16 too high; of a service at most 1/4.
    Known(u64),
    /// At least so many: as long as the attempts of this rank are half-open by now, or took a time that is not
    /// known.
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
    /// The median, and the 99th percentile.
    #[must_use]
    pub fn half_and_slowest(&self) -> Option<[Percentile; 2]> {
        let [p50, _, _, p99, ..] = self.percentiles?;
        Some([p50, p99])
    }

    /// Of the times of completed attempts, the ages of half-open ones by bucket, and what the books say of
    /// the others.
    pub(super) fn of(times: &Histogram, completed: &Latency, ages: &[u64], books: &TcpBooks) -> Self {
        let half_open = books.verdict(Verdict::HalfOpen);
        let never: u64 = NEVER.into_iter().map(|verdict| books.verdict(verdict)).sum();
        let (not_connected, known) = (half_open + never, times.buckets.iter().sum::<u64>());
        let count = known + not_connected + completed.excluded;
        let longest = completed.quantiles.map_or(0, |quantiles| quantiles.max_ns);
        // Those without a time after all others, and before them.
        let slow = Ranked { times, longest, ages: limited(ages, half_open), count };
        let mut quick = Ranked { times, longest, ages: slow.ages, count };
        quick.ages[0] += completed.excluded;
        let percentiles = (count != 0).then(|| {
            let mut ranks = PER_MILLE.into_iter().chain([1_000]);
            std::array::from_fn(|_| {
                let rank = ranks.next().unwrap_or(1_000);
                between(quick.at(rank), slow.at(rank))
            })
        });
        Self { count, not_connected, percentiles }
    }
}

/// The completions of a service by their time, and the ages of its half-open attempts; or of several services
/// together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceConnect {
    completed: Placed,
    ages: Placed,
    /// The longest time of any service, ns.
    longest_ns: u64,
}

/// The time to connect to a service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ServiceTimes {
    /// Of its completed attempts.
    pub completed: Latency,
    /// Of all that had a chance.
    pub of_all: ConnectOfAll,
}

impl ServiceConnect {
    /// `longest_ns` is the longest time of any service, as the counters had it before.
    pub(super) const fn of(completed: Placed, ages: Placed, longest_ns: u64) -> Self {
        Self { completed, ages, longest_ns }
    }

    /// The percentiles. `books` are those of the same services.
    #[must_use]
    pub fn times(&self, books: &TcpBooks) -> ServiceTimes {
        let (mut times, mut untimed) = (Histogram { buckets: [0; BUCKETS] }, 0);
        for (place, count) in self.completed.iter() {
            match buckets_at(*place) {
                Some(spread) => times.buckets[self.latest_of(spread) as usize] += count,
                None => untimed += count,
            }
        }
        let completed = Latency::of(&times, untimed, self.longest_ns);
        let mut ages = [0; BUCKETS];
        // An age is at least what its bucket begins with.
        let first = |(place, count): &(u32, u64)| Some((buckets_at(*place)?[0], *count));
        self.ages.iter().filter_map(first).for_each(|(first, count)| ages[first as usize] += count);
        ServiceTimes { completed, of_all: ConnectOfAll::of(&times, &completed, &ages, books) }
    }

    /// The last bucket of these that holds a time: none is over the longest.
    fn latest_of(&self, [first, last]: [u32; 2]) -> u32 {
        let longest = bucket(self.longest_ns);
        if (first..=last).contains(&longest) { longest } else { last }
    }
}

impl AddAssign<&Self> for ServiceConnect {
    fn add_assign(&mut self, other: &Self) {
        self.longest_ns = self.longest_ns.max(other.longest_ns);
        add(&mut self.completed, &other.completed);
        add(&mut self.ages, &other.ages);
    }
}

fn add(sum: &mut Placed, more: &Placed) {
    if !more.is_empty() {
        let mut by_place: BTreeMap<u32, u64> = sum.iter().copied().collect();
        more.iter().for_each(|(place, count)| *by_place.entry(*place).or_default() += count);
        *sum = by_place.into_iter().collect();
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

/// The percentile that is at least this and at most that.
fn between(least: Percentile, most: Percentile) -> Percentile {
    match (least, most) {
        (Percentile::AtLeast(least), Percentile::Known(most)) if bucket(least) == bucket(most) => {
            Percentile::Known(most)
        }
        (least, _) => least,
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
    use crate::model::snapshot::{ServiceFigures, Snapshot};
    use crate::options::Filter;

    fn of(meddle: impl FnOnce(&mut Fake)) -> ConnectOfAll {
        let mut fake = Fake::new();
        meddle(&mut fake);
        taken(&mut fake).connect_of_all
    }

    fn taken(fake: &mut Fake) -> Snapshot {
        let context = RunContext {
            origin: Origin::Live(LiveOrigin::default()),
            began: BEGINNING,
            filter: Filter::default(),
            top: 9,
            owners: crate::owner::OwnerBook::default(),
        };
        Snapshot::take(fake, &Arc::new(context), None).expect("it cannot fail")
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

    /// A completed attempt whose time is not known may have taken any.
    #[test]
    fn those_without_a_time_keep_a_percentile_from_being_known() {
        let with = |excluded: i64| {
            of(|fake| {
                fake.ended(0, Counter::Completed, 20 + excluded);
                fake.sample(Leg::Connect, 36_000, 20);
                fake.count(Leg::Connect.excluded(), excluded);
            })
        };
        let half = with(20);
        assert_eq!((half.count, half.not_connected), (40, 0));
        let [p50, p99, longest] = some(&half);
        assert_eq!(p50, Percentile::AtLeast(0));
        for each in [p99, longest] {
            assert!(matches!(each, Percentile::AtLeast(ns) if (34_000..=36_000).contains(&ns)), "{each:?}");
        }
        // One of many changes no rank but the last ones.
        let [p50, p99, _] = some(&with(1));
        assert_eq!(p50, Percentile::Known(36_000));
        assert!(matches!(p99, Percentile::AtLeast(_)), "{p99:?}");
    }

    /// The percentiles of a service are those of the totals, but coarser.
    #[test]
    fn a_service_has_its_own_percentiles() {
        let mut fake = Fake::new();
        fake.service(1, "10.0.0.2:443");
        fake.service(2, "10.0.0.2:5432");
        fake.service(3, "10.0.0.2:25");
        fake.ended(1, Counter::Completed, 99);
        fake.connect(1, 1_000_000, 99);
        fake.ended(2, Counter::Completed, 10);
        fake.connect(2, 200_000_000, 10);
        fake.ended(1, Counter::Refused, 1);
        (0..4).for_each(|_| {
            fake.open(3, State::SynSent, 4 * SECOND);
        });
        fake.open(2, State::SynSent, SECOND);
        let snapshot = taken(&mut fake);
        let times: Vec<ServiceTimes> = snapshot.services.iter().filter_map(ServiceFigures::times).collect();
        let [quick, slow, dead] = times[..] else { panic!("three services, not {}", times.len()) };
        let known =
            |ns, percentile| matches!(percentile, Percentile::Known(p) if (ns..=ns + ns / 4).contains(&p));
        let [half, slowest, longest] = some(&quick.of_all);
        assert!(known(1_000_000, half) && known(1_000_000, slowest), "{half:?} {slowest:?}");
        assert_eq!((longest, quick.of_all.not_connected), (Percentile::Never, 1), "one was refused");
        let completed = quick.completed.quantiles.expect("there are samples");
        assert!((1_000_000..=1_250_000).contains(&completed.max_ns), "{}", completed.max_ns);
        let [half, _, longest] = some(&slow.of_all);
        assert_eq!((half, longest), (Percentile::Known(200_000_000), Percentile::Known(200_000_000)));
        assert_eq!((slow.completed.count, slow.of_all.count), (10, 10), "one is still opening");
        assert_eq!((dead.completed, dead.of_all.count), (Latency::default(), 4));
        for each in some(&dead.of_all) {
            let Percentile::AtLeast(ns) = each else { panic!("{each:?}") };
            assert!((3 * SECOND..=4 * SECOND).contains(&ns), "{ns}");
        }
        // Those that are not listed are one row, whose percentiles are those of all of them.
        let rest = snapshot.with_top(0).services[0].times().expect("TCP");
        assert_eq!((rest.completed.count, rest.of_all.count, rest.of_all.not_connected), (109, 114, 5));
        assert_eq!(some(&rest.of_all)[2], Percentile::Never);
    }

    /// A half-open attempt is not older than its bucket begins, and a time may be at the end of that bucket.
    #[test]
    fn an_age_and_a_time_of_one_bucket_are_in_no_order() {
        let mut fake = Fake::new();
        fake.service(1, "10.0.0.2:443");
        fake.ended(1, Counter::Completed, 1);
        fake.connect(1, 4 * SECOND, 1);
        fake.open(1, State::SynSent, 4 * SECOND + SECOND / 8);
        let times = taken(&mut fake).services[0].times().expect("TCP");
        let [half, _, longest] = some(&times.of_all);
        for each in [half, longest] {
            assert!(matches!(each, Percentile::AtLeast(ns) if ns <= 4 * SECOND), "{each:?}");
        }
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
