//! Who talks to whom: the flow's key in canonical order, and the two sides of a conversation.

use crate::{below, low_half};

/// The two ends of a conversation, as IPFIX names them in a biflow (RFC 5103 §2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// The end that sent the first SYN, or the first UDP packet.
    Initiator,
    /// The other end.
    Responder,
}

impl Side {
    /// Both, in their order.
    pub const BOTH: [Self; 2] = [Self::Initiator, Self::Responder];

    /// The name in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Initiator => "initiator",
            Self::Responder => "responder",
        }
    }

    /// The end it talks to.
    #[inline(always)]
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::Initiator => Self::Responder,
            Self::Responder => Self::Initiator,
        }
    }
}

/// The address family of a flow, which is also the table it lives in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Family {
    /// IPv4: 64-byte records.
    V4 = 1,
    /// IPv6: 128-byte records.
    V6 = 2,
}

impl Family {
    /// Both.
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];
}

/// A flow's identity: the unordered 5-tuple, written with the smaller end first.
///
/// Addresses are words in host order, most significant first; an IPv4 address is the first word.
/// VLAN tags are no part of it: they differ by direction in real networks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FlowKey {
    /// The smaller address.
    pub low: [u32; 4],
    /// The larger address.
    pub high: [u32; 4],
    /// The port of `low` in the upper half, of `high` in the lower.
    pub ports: u32,
    /// UDP, else TCP.
    pub udp: bool,
}

/// Which of the key's two ends: a number, for the compiler makes branches of anything else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End(u32);

impl End {
    /// The smaller address (of two equal ones the smaller port).
    pub const LOW: Self = Self(0);
    /// The other.
    pub const HIGH: Self = Self(1);

    /// Is it the other?
    #[inline(always)]
    #[must_use]
    pub const fn is_high(self) -> bool {
        self.0 != 0
    }

    /// 1 for the other, else 0.
    #[inline(always)]
    #[must_use]
    pub const fn bit(self) -> u32 {
        self.0
    }
}

impl FlowKey {
    /// The key of a packet from `source` to `destination`, and the end that sent it.
    #[inline(always)]
    #[must_use]
    pub fn of(
        source: (&[u32; 4], u16),
        destination: (&[u32; 4], u16),
        family: Family,
        udp: bool,
    ) -> (Self, End) {
        let (s, d) = (source.0, destination.0);
        let swapped = match family {
            Family::V4 => below(with_port(d[0], destination.1), with_port(s[0], source.1)),
            // One bit, from here on without a branch.
            Family::V6 => below(0, is_greater(s, d, source.1 > destination.1) as i64),
        };
        // Word by word, and of IPv4 one word only: whole arrays would be copied about.
        let mut key = Self { low: [0; 4], high: [0; 4], ports: 0, udp };
        let words = if matches!(family, Family::V4) { 1 } else { 4 };
        let mut i = 0;
        while i < words {
            (key.low[i], key.high[i]) = ordered(s[i], d[i], swapped);
            i += 1;
        }
        let (low, high) = ordered(source.1 as u32, destination.1 as u32, swapped);
        key.ports = low << 16 | high;
        (key, End(low_half(swapped)))
    }
}

/// The two, exchanged if `swapped` is 1 and not if it is 0. Without a branch: packets of both directions
/// alternate.
#[inline(always)]
const fn ordered(source: u32, destination: u32, swapped: u64) -> (u32, u32) {
    let exchange = (source ^ destination) & 0_u32.wrapping_sub(low_half(swapped));
    (source ^ exchange, destination ^ exchange)
}

/// An IPv4 end as one number, in the order of ends.
#[inline(always)]
const fn with_port(address: u32, port: u16) -> i64 {
    (address as i64) << 16 | port as i64
}

#[inline(always)]
const fn is_greater(s: &[u32; 4], d: &[u32; 4], port: bool) -> bool {
    let (s_upper, d_upper) = (wide(s[0], s[1]), wide(d[0], d[1]));
    let (s_lower, d_lower) = (wide(s[2], s[3]), wide(d[2], d[3]));
    if s_upper != d_upper {
        s_upper > d_upper
    } else if s_lower != d_lower {
        s_lower > d_lower
    } else {
        port
    }
}

#[inline(always)]
const fn wide(upper: u32, lower: u32) -> u64 {
    (upper as u64) << 32 | lower as u64
}

#[cfg(test)]
mod tests {
    use super::{End, Family, FlowKey};

    #[test]
    fn both_directions_have_one_key_and_opposite_ends() {
        let ends = [
            ([10, 0, 0, 0], 40_000),
            ([10, 0, 0, 1], 80),
            ([10, 0, 2, 0], 80),
            ([10, 3, 0, 0], 80),
            ([11, 0, 0, 0], 80),
            ([10, 0, 0, 0], 80),
        ];
        for a in ends {
            for b in ends {
                let of = |from: &([u32; 4], u16), to: &([u32; 4], u16), udp| {
                    FlowKey::of((&from.0, from.1), (&to.0, to.1), Family::V6, udp)
                };
                let (there, from) = of(&a, &b, false);
                let (back, to) = of(&b, &a, false);
                assert_eq!(there, back);
                assert!(a == b || from != to);
                assert_ne!(there, of(&a, &b, true).0);
            }
        }
        let one = (&ends[0].0, ends[0].1);
        assert_eq!(FlowKey::of(one, one, Family::V4, false).1, End::LOW);
    }
}
