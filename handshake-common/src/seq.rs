//! TCP sequence numbers: arithmetic modulo 2³² and serial comparison (RFC 9293 §3.4, RFC 1982).

/// A TCP sequence or acknowledgement number. It never meets `+` or `<`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct SeqNum(pub u32);

impl SeqNum {
    /// The number `bytes` further on.
    #[inline(always)]
    #[must_use]
    pub const fn plus(self, bytes: u32) -> Self {
        Self(self.0.wrapping_add(bytes))
    }

    /// How far `self` is past `origin`, modulo 2³². A number before `origin` gives one of 2³¹ or more.
    #[inline(always)]
    #[must_use]
    pub const fn since(self, origin: Self) -> u32 {
        self.0.wrapping_sub(origin.0)
    }

    /// Serial comparison: is `self` before `other`?
    #[inline(always)]
    #[must_use]
    pub const fn is_before(self, other: Self) -> bool {
        self.0.wrapping_sub(other.0) >= 1 << 31 && self.0 != other.0
    }

    /// Does `self` lie in `first ..= first + span`? `span` must be under 2³¹.
    #[inline(always)]
    #[must_use]
    pub const fn is_within(self, first: Self, span: u32) -> bool {
        self.since(first) <= span
    }
}

#[cfg(test)]
mod tests {
    use super::SeqNum;

    /// Every comparison, below, across and above 2³².
    #[test]
    fn arithmetic_crosses_two_to_the_thirty_two() {
        for base in [0, 1, 5, 0x7fff_fffe, 0x8000_0000, 0xffff_fffd, u32::MAX] {
            let origin = SeqNum(base);
            let later = origin.plus(4);
            assert_eq!(later.since(origin), 4);
            assert!(origin.is_before(later) && !later.is_before(origin));
            assert!(!origin.is_before(origin));
            assert!(later.is_within(origin, 4) && !later.is_within(origin, 3));
            assert!(origin.is_within(origin, 0));
            assert!(!origin.is_within(later, 100), "a number before the range is outside it");
        }
    }
}
