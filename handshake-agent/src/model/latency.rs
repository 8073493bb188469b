//! Latencies of the legs: samples, attempts left out, and quantiles of a histogram.

use handshake_common::abi::{BUCKETS, Counter, Histogram};
use handshake_common::latency::{bucket, upper_bound};
use handshake_common::verdict::Leg;

use crate::model::books::word;
use crate::source::Reading;

/// The latency of one leg.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Latency {
    /// Attempts whose time is known.
    pub count: u64,
    /// Attempts left out, because retransmissions or disorder blur their time (Karn's rule).
    pub excluded: u64,
    /// `None` without a sample.
    pub quantiles: Option<Quantiles>,
}

/// Where the percentiles are, in thousandths: the names are those in [`Quantiles`].
pub(super) const PER_MILLE: [u64; 5] = [500, 900, 950, 990, 999];

/// Quantiles of a leg, ns: upper bounds of buckets, at most 1/16 above the true value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quantiles {
    /// The median.
    pub p50_ns: u64,
    /// 90 of 100 samples are at most this.
    pub p90_ns: u64,
    /// 95 of 100 samples are at most this.
    pub p95_ns: u64,
    /// 99 of 100 samples are at most this.
    pub p99_ns: u64,
    /// 999 of 1,000 samples are at most this.
    pub p999_ns: u64,
    /// The longest sample.
    pub max_ns: u64,
}

impl Latency {
    /// `most` is the longest sample where it is known.
    pub(super) fn of(histogram: &Histogram, excluded: u64, most: u64) -> Self {
        let count = histogram.buckets.iter().sum();
        let quantiles = last_bucket(histogram).map(|last| {
            // They are read one after the other: each may know a sample that the other does not.
            let max_ns = if bucket(most) < last { upper_bound(last) } else { most.min(upper_bound(last)) };
            let [p50_ns, p90_ns, p95_ns, p99_ns, p999_ns] =
                PER_MILLE.map(|per_mille| quantile(histogram, count, per_mille).min(max_ns));
            Quantiles { p50_ns, p90_ns, p95_ns, p99_ns, p999_ns, max_ns }
        });
        Self { count, excluded, quantiles }
    }
}

pub(super) fn latencies(reading: &Reading) -> [Latency; Leg::ALL.len()] {
    Leg::ALL.map(|leg| {
        let of = |counter: Counter| word(&reading.counters, counter);
        Latency::of(&reading.histograms[leg as usize], of(leg.excluded()), of(leg.longest()))
    })
}

/// The bound of the bucket that holds the sample of this rank.
fn quantile(histogram: &Histogram, count: u64, per_mille: u64) -> u64 {
    let rank = u128::from(count) * u128::from(per_mille);
    let mut below = 0_u128;
    for (index, samples) in (0..).zip(histogram.buckets) {
        below += u128::from(samples);
        if below * 1_000 >= rank && samples != 0 {
            return upper_bound(index);
        }
    }
    0
}

fn last_bucket(histogram: &Histogram) -> Option<u32> {
    (0..).zip(histogram.buckets).filter(|(_, samples)| *samples != 0).map(|(index, _)| index).last()
}

pub(super) fn difference(now: &Histogram, before: &Histogram) -> Histogram {
    let mut buckets = [0; BUCKETS];
    for (bucket, (now, before)) in buckets.iter_mut().zip(now.buckets.iter().zip(&before.buckets)) {
        *bucket = now.saturating_sub(*before);
    }
    Histogram { buckets }
}
