//! Exact rational numbers, so that rounding never decides a gate: 999 of 1000 is 99.9 %.

use std::cmp::Ordering;
use std::fmt;

/// A fraction in lowest terms with a positive denominator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fraction {
    numerator: i128,
    denominator: i128,
}

impl Fraction {
    /// 0.
    pub(crate) const ZERO: Self = Self { numerator: 0, denominator: 1 };

    /// A fraction; `None` if the denominator is 0 or a number is out of range.
    pub(crate) fn new(numerator: i128, denominator: i128) -> Option<Self> {
        let divisor = gcd(numerator.unsigned_abs(), denominator.unsigned_abs());
        let divisor = i128::try_from(divisor).ok().filter(|_| denominator != 0)?;
        let sign = denominator.signum();
        let numerator = (numerator / divisor).checked_mul(sign)?;
        Some(Self { numerator, denominator: (denominator / divisor).checked_mul(sign)? })
    }

    /// The sum; `None` if it is out of range.
    pub(crate) fn plus(self, other: Self) -> Option<Self> {
        let left = self.numerator.checked_mul(other.denominator)?;
        let right = other.numerator.checked_mul(self.denominator)?;
        Self::new(left.checked_add(right)?, self.denominator.checked_mul(other.denominator)?)
    }

    /// The difference; `None` if it is out of range.
    pub(crate) fn minus(self, other: Self) -> Option<Self> {
        self.plus(Self { numerator: other.numerator.checked_neg()?, ..other })
    }

    /// The product; `None` if it is out of range.
    pub(crate) fn times(self, other: Self) -> Option<Self> {
        // Reduced crosswise first, so that the products stay small.
        let (left, right) =
            (Self::new(self.numerator, other.denominator)?, Self::new(other.numerator, self.denominator)?);
        let numerator = left.numerator.checked_mul(right.numerator)?;
        Self::new(numerator, left.denominator.checked_mul(right.denominator)?)
    }

    /// The quotient; `None` if the divisor is 0 or the result is out of range.
    pub(crate) fn over(self, other: Self) -> Option<Self> {
        self.times(Self::new(other.denominator, other.numerator)?)
    }

    /// Whether the number is 0.
    pub(crate) const fn is_zero(self) -> bool {
        self.numerator == 0
    }

    /// The number, if it is a whole one.
    pub(crate) fn whole(self) -> Option<i128> {
        (self.denominator == 1).then_some(self.numerator)
    }

    /// The number rounded to so many decimals, half up; `None` if it is out of range.
    pub(crate) fn rounded(self, decimals: u32) -> Option<Self> {
        let scale = 10_i128.checked_pow(decimals)?;
        let scaled = self.numerator.checked_mul(scale)?.checked_mul(2)?.checked_add(self.denominator)?;
        Self::new(scaled.div_euclid(self.denominator.checked_mul(2)?), scale)
    }

    /// The nearest `f64`.
    #[expect(clippy::cast_precision_loss, reason = "a JSON number is read as a double anyway")]
    pub(crate) fn to_f64(self) -> f64 {
        self.numerator as f64 / self.denominator as f64
    }

    /// Whether the number is negative, its whole part and its decimals, for a number from
    /// [`rounded`](Self::rounded).
    pub(crate) fn digits(self, decimals: u32) -> Option<(bool, u128, u128)> {
        let scale = 10_u128.checked_pow(decimals)?;
        let scaled = self.numerator.unsigned_abs().checked_mul(scale)? / self.denominator.unsigned_abs();
        Some((self.numerator < 0, scaled / scale, scaled % scale))
    }
}

/// As a decimal number if nine decimals are exact, else as a fraction.
impl fmt::Display for Fraction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const MOST_DECIMALS: u32 = 9;
        let exact = (0..=MOST_DECIMALS).find(|decimals| self.rounded(*decimals) == Some(*self));
        match exact.and_then(|decimals| Some((decimals, self.digits(decimals)?))) {
            Some((0, (negative, whole, _))) => write!(f, "{}{whole}", if negative { "-" } else { "" }),
            Some((decimals, (negative, whole, part))) => {
                let width = usize::try_from(decimals).unwrap_or(0);
                write!(f, "{}{whole}.{part:0width$}", if negative { "-" } else { "" })
            }
            None => write!(f, "{}/{}", self.numerator, self.denominator),
        }
    }
}

impl From<u64> for Fraction {
    fn from(number: u64) -> Self {
        Self { numerator: number.into(), denominator: 1 }
    }
}

impl From<i64> for Fraction {
    fn from(number: i64) -> Self {
        Self { numerator: number.into(), denominator: 1 }
    }
}

impl PartialOrd for Fraction {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Fraction {
    /// Compares the whole parts, then the reciprocals of the remainders. Nothing is multiplied, so nothing
    /// overflows.
    fn cmp(&self, other: &Self) -> Ordering {
        let (mut left, mut right) = (*self, *other);
        let mut swapped = false;
        loop {
            let wholes = [left, right].map(|f| f.numerator.div_euclid(f.denominator));
            let rests = [left, right].map(|f| f.numerator.rem_euclid(f.denominator));
            let by_whole = wholes[0].cmp(&wholes[1]);
            let order = match by_whole {
                Ordering::Equal if rests[0] != 0 && rests[1] != 0 => {
                    left = Self { numerator: left.denominator, denominator: rests[0] };
                    right = Self { numerator: right.denominator, denominator: rests[1] };
                    swapped = !swapped;
                    continue;
                }
                Ordering::Equal => rests[0].signum().cmp(&rests[1].signum()),
                Ordering::Less | Ordering::Greater => by_whole,
            };
            return if swapped { order.reverse() } else { order };
        }
    }
}

const fn gcd(mut a: u128, mut b: u128) -> u128 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

#[cfg(test)]
mod tests {
    use std::cmp::Ordering::{Greater, Less};

    use super::Fraction;

    fn fraction(numerator: i128, denominator: i128) -> Fraction {
        Fraction::new(numerator, denominator).expect("a valid fraction")
    }

    #[test]
    fn fractions_are_in_lowest_terms() {
        assert_eq!(fraction(999, 1000), fraction(999_000, 1_000_000));
        assert_eq!(fraction(1, -2), fraction(-1, 2));
        assert_eq!(fraction(0, -7), Fraction::ZERO);
        assert_eq!(Fraction::new(1, 0), None);
        assert_eq!(Fraction::new(0, 0), None);
    }

    #[test]
    fn arithmetic_is_exact() {
        let third = fraction(1, 3);
        assert_eq!(third.plus(third).and_then(|two| two.plus(third)), Some(Fraction::from(1_u64)));
        assert_eq!(third.minus(fraction(1, 2)), Some(fraction(-1, 6)));
        assert_eq!(third.over(fraction(-2, 3)), Some(fraction(-1, 2)));
        assert_eq!(third.over(Fraction::ZERO), None);
        assert_eq!(fraction(i128::MAX, 1).plus(fraction(1, 1)), None, "out of range");
    }

    #[test]
    fn comparison_does_not_overflow() {
        let huge = i128::MAX;
        let table = [
            (fraction(1, 3), fraction(1, 2)),
            (fraction(-1, 2), fraction(-1, 3)),
            (fraction(huge - 1, huge), fraction(1, 1)),
            (fraction(huge - 2, huge - 1), fraction(huge - 1, huge)),
            (fraction(2, 1), fraction(huge, 2)),
            (fraction(7, 2), fraction(11, 3)),
        ];
        for (less, more) in table {
            assert_eq!((less.cmp(&more), more.cmp(&less)), (Less, Greater), "{less:?} {more:?}");
        }
    }

    #[test]
    fn rounding_takes_the_nearest_decimal() {
        let table = [((2, 3), 1, (7, 10)), ((1, 4), 1, (3, 10)), ((-1, 4), 1, (-2, 10)), ((1, 1), 3, (1, 1))];
        for ((numerator, denominator), decimals, (to, of)) in table {
            assert_eq!(fraction(numerator, denominator).rounded(decimals), Some(fraction(to, of)));
        }
        assert_eq!(fraction(-3, 2).digits(1), Some((true, 1, 5)));
        let shown = [fraction(-3, 2), fraction(999, 1000), fraction(7, 1), fraction(1, 3)];
        assert_eq!(shown.map(|each| each.to_string()), ["-1.5", "0.999", "7", "1/3"]);
    }
}
