//! Latency histograms: log-linear buckets, sixteen a power of two, so that a bucket's upper bound
//! is at most 1/16 above any of its samples.

use crate::abi::BUCKETS;
use crate::low_half;

/// Sub-buckets a power of two, as a shift.
const SUB_SHIFT: u32 = 4;
const SUBS: u64 = 1 << SUB_SHIFT;
/// The last bucket.
const LAST: u32 = low_half(BUCKETS as u64) - 1;

/// The bucket of a sample in ns.
#[inline(always)]
#[must_use]
pub const fn bucket(ns: u64) -> u32 {
    if ns < SUBS {
        return low_half(ns & (SUBS - 1));
    }
    let exponent = 63 - ns.leading_zeros();
    let sub = (ns >> (exponent - SUB_SHIFT)) & (SUBS - 1);
    (((exponent - SUB_SHIFT + 1) << SUB_SHIFT) | low_half(sub & (SUBS - 1))) & LAST
}

/// The largest sample that falls into `bucket`, ns.
#[must_use]
pub const fn upper_bound(bucket: u32) -> u64 {
    if (bucket as u64) < SUBS {
        return bucket as u64;
    }
    let exponent = (bucket >> SUB_SHIFT) - 1;
    let mantissa = SUBS + (bucket as u64 & (SUBS - 1));
    // The last bucket ends at u64::MAX: shift the next mantissa less one, never past 2⁶⁴.
    (mantissa << exponent) | ((1 << exponent) - 1)
}

#[cfg(test)]
mod tests {
    use super::{bucket, upper_bound};

    #[test]
    fn every_sample_is_under_its_bound_by_at_most_a_sixteenth() {
        let edges = (0..64).flat_map(|e| {
            let power = 1_u64 << e;
            [power.wrapping_sub(1), power, power.saturating_add(1), power.saturating_add(power / 3)]
        });
        for sample in edges.chain(0..5_000).chain([u64::MAX]) {
            let bound = upper_bound(bucket(sample));
            assert!(bound >= sample, "{sample} over its bound {bound}");
            assert!(bound - sample <= sample / 16, "{sample} too far under {bound}");
        }
    }

    #[test]
    fn bounds_rise_and_meet_the_next_bucket() {
        for index in 0..bucket(u64::MAX) {
            let bound = upper_bound(index);
            assert_eq!(bucket(bound), index);
            assert_eq!(bucket(bound + 1), index + 1);
        }
    }
}
