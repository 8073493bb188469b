//! What is known of a measured value: the value, or between what it is. The time to connect of an attempt
//! that is still half-open is at least its age, and that of one which ended without a connection is past
//! every limit.

use std::cmp::Ordering;

use super::expression::{Comparator, Fraction};

/// A number, or past every number. The order is that of the variants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Bound {
    /// Below every number: no bound.
    Below,
    /// A number.
    At(Fraction),
    /// Above every number.
    Above,
}

/// A value, by its bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Measured {
    least: Bound,
    most: Bound,
}

impl Measured {
    /// A time that never comes.
    pub(crate) const NEVER: Self = Self { least: Bound::Above, most: Bound::Above };
    const UNKNOWN: Self = Self { least: Bound::Below, most: Bound::Above };

    /// A known value.
    pub(crate) const fn exactly(value: Fraction) -> Self {
        Self { least: Bound::At(value), most: Bound::At(value) }
    }

    /// At least so much.
    pub(crate) const fn at_least(value: Fraction) -> Self {
        Self { least: Bound::At(value), most: Bound::Above }
    }

    /// From the one to the other.
    pub(crate) const fn between(least: Fraction, most: Fraction) -> Self {
        Self { least: Bound::At(least), most: Bound::At(most) }
    }

    /// The value, if it is known.
    pub(crate) fn known(self) -> Option<Fraction> {
        match (self.least, self.most) {
            (Bound::At(least), Bound::At(most)) if least == most => Some(least),
            (Bound::At(_) | Bound::Below | Bound::Above, Bound::At(_) | Bound::Below | Bound::Above) => None,
        }
    }

    /// What it is at least, if that is a number and the value is not known.
    pub(crate) fn least(self) -> Option<Fraction> {
        number(self.least).filter(|_| self.known().is_none())
    }

    /// What it is at most, if that is a number and the value is not known.
    pub(crate) fn most(self) -> Option<Fraction> {
        number(self.most).filter(|_| self.known().is_none())
    }

    /// Whether it is past every limit.
    pub(crate) fn is_never(self) -> bool {
        self.least == Bound::Above
    }

    /// Whether a comparison holds; `None` where the bounds do not tell.
    pub(crate) fn holds(self, comparison: Comparator, limit: Self) -> Option<bool> {
        // Two times that never come are neither equal nor in an order.
        if self.is_never() && limit.is_never() {
            return None;
        }
        let can_be = |order: Ordering| match order {
            Ordering::Less => self.least < limit.most,
            Ordering::Equal => self.least <= limit.most && self.most >= limit.least,
            Ordering::Greater => self.most > limit.least,
        };
        let all = [Ordering::Less, Ordering::Equal, Ordering::Greater].into_iter();
        let mut possible = all.filter(|order| can_be(*order)).map(|order| comparison.holds(order));
        let first = possible.next()?;
        possible.all(|holds| holds == first).then_some(first)
    }

    /// The sum; `None` if it is out of range.
    pub(crate) fn plus(self, other: Self) -> Option<Self> {
        Some(Self { least: add(self.least, other.least)?, most: add(self.most, other.most)? })
    }

    /// The difference; `None` if it is out of range.
    pub(crate) fn minus(self, other: Self) -> Option<Self> {
        if (self.is_never(), other.is_never()) == (true, true) {
            return Some(Self::UNKNOWN);
        }
        Some(Self {
            least: add(self.least, negative(other.most)?)?,
            most: add(self.most, negative(other.least)?)?,
        })
    }

    /// The quotient; `None` if it is out of range. The divisor is not 0.
    pub(crate) fn over(self, divisor: Self) -> Option<Self> {
        if let Some((value, divisor)) = self.known().zip(divisor.known()) {
            return value.over(divisor).map(Self::exactly);
        }
        let zero = Bound::At(Fraction::ZERO);
        if self.least < zero || divisor.least < zero || (self.is_never() && divisor.is_never()) {
            return Some(Self::UNKNOWN);
        }
        Some(Self {
            least: ratio(self.least, divisor.most, zero)?,
            most: ratio(self.most, divisor.least, Bound::Above)?,
        })
    }
}

const fn number(bound: Bound) -> Option<Fraction> {
    match bound {
        Bound::At(number) => Some(number),
        Bound::Below | Bound::Above => None,
    }
}

/// The sum of two bounds of one side. Opposite ones have been met before.
fn add(left: Bound, right: Bound) -> Option<Bound> {
    Some(match (left, right) {
        (Bound::At(left), Bound::At(right)) => Bound::At(left.plus(right)?),
        (Bound::Below, _) | (_, Bound::Below) => Bound::Below,
        (Bound::Above, _) | (_, Bound::Above) => Bound::Above,
    })
}

fn negative(bound: Bound) -> Option<Bound> {
    Some(match bound {
        Bound::At(number) => Bound::At(Fraction::ZERO.minus(number)?),
        Bound::Below => Bound::Above,
        Bound::Above => Bound::Below,
    })
}

/// The quotient of bounds that are not negative; `undecided` where both are past every number or the divisor
/// is 0.
fn ratio(value: Bound, divisor: Bound, undecided: Bound) -> Option<Bound> {
    Some(match (value, divisor) {
        (Bound::At(_), Bound::At(divisor)) if divisor.is_zero() => undecided,
        (Bound::At(value), Bound::At(divisor)) => Bound::At(value.over(divisor)?),
        (Bound::At(_), Bound::Above) => Bound::At(Fraction::ZERO),
        (Bound::Above, Bound::At(_)) => Bound::Above,
        (Bound::Above, Bound::Above) | (Bound::Below, _) | (_, Bound::Below) => undecided,
    })
}

#[cfg(test)]
mod tests {
    use super::{Comparator, Fraction, Measured};

    fn at(number: u64) -> Measured {
        Measured::exactly(number.into())
    }

    fn from(number: u64) -> Measured {
        Measured::at_least(number.into())
    }

    #[test]
    fn a_comparison_holds_where_the_bounds_tell() {
        use Comparator::{AtLeast, AtMost, Equal, Less, More, Unequal};
        let all = [Less, AtMost, Equal, Unequal, AtLeast, More];
        let [yes, no, open] = [Some(true), Some(false), None];
        let table = [
            (at(2), at(3), [yes, yes, no, yes, no, no]),
            (at(3), at(3), [no, yes, yes, no, yes, no]),
            (from(4), at(3), [no, no, no, yes, yes, yes]),
            (from(3), at(3), [no, open, open, open, yes, open]),
            (from(2), at(3), [open; 6]),
            (Measured::NEVER, at(3), [no, no, no, yes, yes, yes]),
            (at(3), Measured::NEVER, [yes, yes, no, yes, no, no]),
            (at(3), from(4), [yes, yes, no, yes, no, no]),
            (Measured::NEVER, Measured::NEVER, [open; 6]),
            (from(2), from(2), [open; 6]),
        ];
        for (value, limit, expected) in table {
            let held = all.map(|comparison| value.holds(comparison, limit));
            assert_eq!(held, expected, "{value:?} and {limit:?}");
        }
    }

    #[test]
    fn bounds_are_reckoned_with() {
        let half = Fraction::new(1, 2).map(Measured::exactly);
        let table = [
            (at(1).plus(from(2)), Some(from(3))),
            (at(1).plus(Measured::NEVER), Some(Measured::NEVER)),
            (from(5).minus(at(2)), Some(from(3))),
            (Measured::NEVER.minus(at(2)), Some(Measured::NEVER)),
            (Measured::NEVER.minus(Measured::NEVER), Some(Measured::UNKNOWN)),
            (at(1).over(at(2)), half),
            (from(6).over(at(2)), Some(from(3))),
            (Measured::NEVER.over(at(2)), Some(Measured::NEVER)),
            (at(2).over(Measured::NEVER), Some(at(0))),
            (Measured::NEVER.over(Measured::NEVER), Some(Measured::UNKNOWN)),
            (from(2).over(from(2)), Some(from(0))),
        ];
        for (result, expected) in table {
            assert_eq!(result, expected);
        }
        let below = at(6).over(from(3)).expect("it is in range");
        assert_eq!((below.least(), below.most()), (Some(Fraction::ZERO), Some(2_u64.into())));
        let below = at(1).minus(from(2)).expect("it is in range");
        assert_eq!((below.least(), below.most()), (None, Some(Fraction::from(-1_i64))));
    }
}
