//! Latency histograms: log-linear buckets, sixteen a power of two, so that a bucket's upper bound
//! is at most 1/16 above any of its samples. A service's times to connect have four a power of two: at most
//! 1/4 above.

use crate::abi::{BUCKETS, CONNECT_BUCKETS, TICK_SHIFT};
use crate::{low_half, masked, opaque};

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

/// The place of the highest bit of a byte.
static HIGHEST_BIT: [u8; 256] = {
    let (mut places, mut byte) = ([0; 256], 2);
    while byte < places.len() {
        places[byte] = places[byte / 2] + 1;
        byte += 1;
    }
    places
};

/// The [`bucket`] of a record's time, which is in ticks. By a table: BPF has no instruction that counts zeros, and
/// what the compiler has instead takes three times as many.
#[inline(always)]
#[must_use]
pub fn bucket_of_ticks(ticks: u32) -> u32 {
    const EXPONENT: u32 = TICK_SHIFT - SUB_SHIFT + 1;
    if ticks == 0 {
        return 0;
    }
    let shift = if ticks >> 16 == 0 {
        if ticks >> 8 == 0 { kept(0) } else { kept(8) }
    } else if ticks >> 24 == 0 {
        kept(16)
    } else {
        kept(24)
    };
    let byte = masked::<{ HIGHEST_BIT.len() - 1 }>((ticks >> shift) as usize);
    let exponent = shift + HIGHEST_BIT[byte] as u32;
    let sub = (ticks as u64) << SUB_SHIFT >> exponent & (SUBS - 1);
    (exponent + EXPONENT) << SUB_SHIFT | low_half(sub)
}

/// The number, which the compiler leaves in its branch: chosen without one, it takes more.
#[inline(always)]
fn kept(number: u64) -> u32 {
    low_half(opaque(number))
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

/// Buckets that a service has as one, as a shift.
const COARSE_SHIFT: u32 = 2;
/// The first coarse bucket ends with that of the shortest known time, one tick.
const FIRST_COARSE: u32 = bucket(1 << TICK_SHIFT) >> COARSE_SHIFT;
const LAST_COARSE: u32 = low_half(CONNECT_BUCKETS as u64) - 1;

/// Where a completion is counted among those of its service, by the [`bucket`] of its time. A record's times
/// are from one tick to 2³² of them, which no two buckets of a service share but by their width.
#[inline(always)]
#[must_use]
pub const fn connect_place(bucket: u32) -> u32 {
    1 + ((bucket >> COARSE_SHIFT).wrapping_sub(FIRST_COARSE) & LAST_COARSE)
}

/// The first and the last bucket that a service has as one, at a [`connect_place`]. There is none at the place of
/// the completions without a time.
#[must_use]
pub const fn buckets_at(place: u32) -> Option<[u32; 2]> {
    let Some(coarse) = place.checked_sub(1) else { return None };
    let first = (coarse + FIRST_COARSE) << COARSE_SHIFT;
    Some([if coarse == 0 { 0 } else { first }, first + (1 << COARSE_SHIFT) - 1])
}

/// The place of a time that no record may have: those outside are as the shortest or the longest.
#[must_use]
pub const fn nearest_place(bucket: u32) -> u32 {
    let coarse = bucket >> COARSE_SHIFT;
    let last = FIRST_COARSE + LAST_COARSE;
    let coarse = if coarse < FIRST_COARSE { FIRST_COARSE } else { coarse };
    1 + (if coarse > last { last } else { coarse }) - FIRST_COARSE
}

#[cfg(test)]
mod tests {
    use super::{bucket, bucket_of_ticks, buckets_at, connect_place, nearest_place, upper_bound};
    use crate::abi::{CONNECT_WORDS, TICK_SHIFT, UNTIMED_CONNECTS};

    #[test]
    fn a_services_bucket_is_at_most_a_quarter_wide() {
        let edges = (0..32).flat_map(|e| {
            let power = 1_u32 << e;
            [power - 1, power, power + power / 4, power + power / 3, power | (power - 1)]
        });
        for ticks in edges.chain(1..5_000).chain([u32::MAX]).filter(|ticks| *ticks != 0) {
            let ns = u64::from(ticks) << TICK_SHIFT;
            assert_eq!(bucket_of_ticks(ticks), bucket(ns), "{ticks}");
            let place = connect_place(bucket(ns));
            assert!(
                place as usize != UNTIMED_CONNECTS && (place as usize) < CONNECT_WORDS,
                "{ticks}: {place}"
            );
            let [first, last] = buckets_at(place).expect("it has a time");
            assert!((first..=last).contains(&bucket(ns)), "{ticks}: {first} to {last}");
            let bound = upper_bound(last);
            assert!(bound >= ns && bound - ns <= ns / 4, "{ns} under {bound}");
            assert_eq!(nearest_place(bucket(ns)), place);
        }
    }

    #[test]
    fn a_services_buckets_follow_each_other() {
        assert_eq!(buckets_at(0), None);
        let mut next = 0;
        for place in 1..129 {
            let [first, last] = buckets_at(place).expect("it has a time");
            assert_eq!(first, next, "{place}");
            assert_eq!((nearest_place(first), nearest_place(last)), (place, place));
            next = last + 1;
        }
        assert_eq!(CONNECT_WORDS, 129);
        assert_eq!((nearest_place(next), nearest_place(bucket(u64::MAX))), (128, 128));
    }

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
