//! Converts a capture's time stamps to nanoseconds since the Unix epoch. Pure.

const NS_PER_SECOND: u32 = 1_000_000_000;
/// The exponent of ten in [`NS_PER_SECOND`].
const NS_DIGITS: u32 = 9;

/// The meaning of an interface's time stamps: the length of a unit, and seconds to add.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Resolution {
    scale: Scale,
    offset_s: i64,
}

/// The conversion from units to nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scale {
    Times(u32),
    Over(u128),
    /// A unit lasts 2⁻ⁿ s.
    Binary(u32),
}

impl Resolution {
    /// The `if_tsresol` that pcapng assumes where it is absent: microseconds.
    pub(crate) const DEFAULT: u8 = 6;

    /// `resolution` is `if_tsresol`: if the top bit is set, a unit lasts 2 to the power of minus the other
    /// bits, in seconds; otherwise 10 to the power of minus the value. `offset_s` is `if_tsoffset`
    /// (draft-ietf-opsawg-pcapng §4.2).
    pub(crate) fn new(resolution: u8, offset_s: i64) -> Self {
        let exponent = u32::from(resolution & 0x7f);
        let scale = if resolution & 0x80 != 0 {
            Scale::Binary(exponent)
        } else if exponent <= NS_DIGITS {
            Scale::Times(10_u32.pow(NS_DIGITS - exponent))
        } else {
            // Beyond a u128 the unit is so short that 2⁶⁴ of them are less than a nanosecond.
            Scale::Over(10_u128.checked_pow(exponent - NS_DIGITS).unwrap_or(u128::MAX))
        };
        Self { scale, offset_s }
    }

    /// Nanoseconds since the epoch at `units`; may lie far outside the range of a `u64`.
    pub(crate) fn nanoseconds(self, units: u64) -> i128 {
        let units = u128::from(units);
        let since = match self.scale {
            Scale::Times(factor) => units * u128::from(factor),
            Scale::Over(divisor) => units / divisor,
            Scale::Binary(bits) => (units * u128::from(NS_PER_SECOND)) >> bits,
        };
        // At most 2⁶⁴ · 10⁹, which leaves room in an i128.
        since.cast_signed() + i128::from(self.offset_s) * i128::from(NS_PER_SECOND)
    }
}

#[cfg(test)]
mod tests {
    use super::Resolution;

    #[test]
    fn every_resolution_gives_the_same_moment() {
        const MOMENT: i128 = 1_700_000_000_500_000_000;
        const HALF: i128 = 500_000_000;
        let rows: [(u8, i64, u64, i128); 12] = [
            (0, 0, 1_700_000_000, MOMENT - HALF),
            (1, 0, 17_000_000_005, MOMENT),
            (3, 0, 1_700_000_000_500, MOMENT),
            (6, 0, 1_700_000_000_500_000, MOMENT),
            (9, 0, 1_700_000_000_500_000_000, MOMENT),
            (10, 0, 17_000_000_005_000_000_000, MOMENT),
            (12, 1_700_000_000, 500_000_000_000, MOMENT),
            (19, 1_700_000_000, 5_000_000_000_000_000_000, MOMENT),
            (0x80, 1, 1_699_999_999, MOMENT - HALF),
            (0x81, 0, 3_400_000_001, MOMENT),
            (0xa1, 0, 1_700_000_000 << 33 | 1 << 32, MOMENT),
            (6, -300, 1_700_000_300_500_000, MOMENT),
        ];
        for (resolution, offset_s, units, want) in rows {
            let got = Resolution::new(resolution, offset_s).nanoseconds(units);
            assert_eq!(got, want, "{resolution:#x} {offset_s} {units}");
        }
    }

    #[test]
    fn the_extremes_neither_overflow_nor_panic() {
        for resolution in 0..=u8::MAX {
            for offset in [i64::MIN, -1, 0, i64::MAX] {
                let clock = Resolution::new(resolution, offset);
                assert!(clock.nanoseconds(u64::MAX) >= clock.nanoseconds(0), "{resolution} {offset}");
            }
        }
        assert_eq!(Resolution::new(127, 0).nanoseconds(u64::MAX), 0);
        assert_eq!(Resolution::new(0xff, 3).nanoseconds(u64::MAX), 3_000_000_000);
        assert_eq!(Resolution::new(0, 0).nanoseconds(u64::MAX), i128::from(u64::MAX) * 1_000_000_000);
    }
}
