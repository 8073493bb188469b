//! Who talks to whom: addresses, the flow's key in canonical order, and the two sides of a conversation.

use core::cmp::Ordering;
use core::hint::cold_path;
use core::net::{IpAddr, Ipv4Addr};

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, transmute};

use crate::{below, low_half, opaque};

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

/// An address, its bytes as they lie in a packet: 16, of IPv4 the first four and zeros. Never put into the order
/// of the machine: hashing and comparing need none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Address(pub [u64; 2]);

impl Address {
    /// Where the first four bytes are in the first word.
    const FIRST_SHIFT: u32 = if cfg!(target_endian = "little") { 0 } else { 32 };

    /// An IPv4 address, as a number.
    #[inline(always)]
    #[must_use]
    pub const fn v4(number: u32) -> Self {
        Self::of_first(number.to_be())
    }

    /// An IPv6 address, as numbers of 32 bits, the most significant first.
    #[must_use]
    pub const fn v6(numbers: [u32; 4]) -> Self {
        let [a, b, c, d] = numbers;
        Self([((a as u64) << 32 | b as u64).to_be(), ((c as u64) << 32 | d as u64).to_be()])
    }

    /// An IPv4 address, by the word that its bytes are in memory.
    #[inline(always)]
    #[must_use]
    pub const fn of_first(word: u32) -> Self {
        Self([(word as u64) << Self::FIRST_SHIFT, 0])
    }

    /// The word that the first four bytes are in memory: all of an IPv4 address.
    #[inline(always)]
    #[must_use]
    pub const fn first(&self) -> u32 {
        low_half(self.0[0] >> Self::FIRST_SHIFT)
    }

    /// What [`v4`](Self::v4) takes.
    #[inline(always)]
    #[must_use]
    pub const fn number(&self) -> u32 {
        u32::from_be(self.first())
    }

    /// The first byte.
    #[inline(always)]
    #[must_use]
    pub const fn first_byte(&self) -> u8 {
        self.first().to_ne_bytes()[0]
    }

    /// The bytes.
    #[inline(always)]
    #[must_use]
    pub fn bytes(self) -> [u8; 16] {
        transmute!(self.0)
    }

    /// The address with these bytes.
    #[must_use]
    pub fn of_bytes(bytes: [u8; 16]) -> Self {
        Self(transmute!(bytes))
    }

    /// An address and its family.
    #[must_use]
    pub fn of(ip: IpAddr) -> (Self, Family) {
        match ip {
            IpAddr::V4(v4) => (Self::v4(v4.to_bits()), Family::V4),
            IpAddr::V6(v6) => (Self::of_bytes(v6.octets()), Family::V6),
        }
    }

    /// What [`of`](Self::of) took apart.
    #[must_use]
    pub fn ip(self, family: Family) -> IpAddr {
        match family {
            Family::V4 => Ipv4Addr::from_bits(self.number()).into(),
            Family::V6 => self.bytes().into(),
        }
    }

    /// The second address if the mask is all ones, the first if it is 0. Without a branch.
    #[inline(always)]
    #[must_use]
    pub const fn or(self, other: Self, mask: u64) -> Self {
        let ([a, b], [c, d]) = (self.0, other.0);
        Self([a ^ (a ^ c) & mask, b ^ (b ^ d) & mask])
    }
}

/// By number, of one family.
impl Ord for Address {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.map(u64::from_be).cmp(&other.0.map(u64::from_be))
    }
}

impl PartialOrd for Address {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// A flow's identity: the unordered 5-tuple, written with the smaller end first.
///
/// Which of two ends is the smaller, the words of their addresses say, as they lie in memory.
/// VLAN tags are no part of it: they differ by direction in real networks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FlowKey {
    /// The smaller address.
    pub low: Address,
    /// The larger address.
    pub high: Address,
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
    /// The same, in words that the compiler takes for others.
    #[inline(always)]
    #[must_use]
    pub fn opaque(self) -> Self {
        let Self { low: Address([a, b]), high: Address([c, d]), ports, udp } = self;
        let (low, high) = (Address([opaque(a), opaque(b)]), Address([opaque(c), opaque(d)]));
        Self { low, high, ports, udp }
    }

    /// The key of a packet from `source` to `destination`, and the end that sent it.
    #[inline(always)]
    #[must_use]
    pub fn of(
        source: (&Address, u16),
        destination: (&Address, u16),
        family: Family,
        udp: bool,
    ) -> (Self, End) {
        let (s, d) = (source.0, destination.0);
        let swapped = match family {
            Family::V4 => below(with_port(d.first(), destination.1), with_port(s.first(), source.1)),
            Family::V6 => {
                // Without a branch where the interfaces' identifiers differ in more than one bit. Hosts that have one
                // identifier in networks of their own are told apart by the rest.
                let (upper_s, upper_d) = ((s.0[1] >> 1).cast_signed(), (d.0[1] >> 1).cast_signed());
                if upper_s == upper_d {
                    cold_path();
                    below(0, is_greater(s, d, source.1 > destination.1) as i64)
                } else {
                    below(upper_d, upper_s)
                }
            }
        };
        // Of IPv4 one word only.
        let mut key = Self { low: Address([0; 2]), high: Address([0; 2]), ports: 0, udp };
        (key.low.0[0], key.high.0[0]) = ordered(s.0[0], d.0[0], swapped);
        if let Family::V6 = family {
            (key.low.0[1], key.high.0[1]) = ordered(s.0[1], d.0[1], swapped);
        }
        let (low, high) = ordered(source.1 as u64, destination.1 as u64, swapped);
        key.ports = low_half(low << 16 | high);
        (key, End(low_half(swapped)))
    }
}

/// The two, exchanged if `swapped` is 1 and not if it is 0. Without a branch: packets of both directions
/// alternate.
#[inline(always)]
const fn ordered(source: u64, destination: u64, swapped: u64) -> (u64, u64) {
    let exchange = (source ^ destination) & 0_u64.wrapping_sub(swapped);
    (source ^ exchange, destination ^ exchange)
}

/// An IPv4 end as one number, in the order of ends.
#[inline(always)]
const fn with_port(address: u32, port: u16) -> i64 {
    (address as i64) << 16 | port as i64
}

#[inline(always)]
const fn is_greater(Address(s): &Address, Address(d): &Address, port: bool) -> bool {
    if s[1] != d[1] {
        s[1] > d[1]
    } else if s[0] != d[0] {
        s[0] > d[0]
    } else {
        port
    }
}

#[cfg(test)]
mod tests {
    use core::net::IpAddr;

    use super::{Address, End, Family, FlowKey};

    #[test]
    fn an_address_is_its_bytes_and_is_ordered_by_its_number() {
        let texts = [
            "0.0.0.0",
            "10.0.0.1",
            "10.0.1.0",
            "255.255.255.255",
            "::",
            "::1",
            "2001:db8::1",
            "2001:db8:1::",
        ];
        let all = texts.map(|text| text.parse::<IpAddr>().expect(text));
        for ip in all {
            let (address, family) = Address::of(ip);
            assert_eq!(address.ip(family), ip);
            let bytes = match ip {
                IpAddr::V4(v4) => std::vec::Vec::from(v4.octets()),
                IpAddr::V6(v6) => std::vec::Vec::from(v6.octets()),
            };
            assert!(address.bytes().starts_with(&bytes) && address.first_byte() == bytes[0], "{ip}");
            assert_eq!(Address::of_bytes(address.bytes()), address);
        }
        for pair in [&all[..4], &all[4..]].into_iter().flat_map(|family| family.windows(2)) {
            assert!(Address::of(pair[0]).0 < Address::of(pair[1]).0, "{pair:?}");
        }
        assert_eq!(Address::v6([0x2001_0db8, 0, 0, 1]), Address::of(all[6]).0);
        assert_eq!(Address::v4(0x0a00_0001), Address::of(all[1]).0);
    }

    /// Whatever two ends differ in, and by whatever: one bit of either word, or more.
    #[test]
    fn near_addresses_are_ordered_in_both_directions_alike() {
        let words =
            [0, 1, 2, 3, 1 << 31, 1 << 63, 1 << 63 | 1, u64::MAX, u64::MAX - 1, 0x8000_0001_7fff_ffff];
        let all = words.map(|one| words.map(|other| Address([one, other])));
        for (a, b) in all.iter().flatten().flat_map(|a| all.iter().flatten().map(move |b| (a, b))) {
            for ports in [(1, 2), (2, 1), (7, 7)] {
                let (there, from) = FlowKey::of((a, ports.0), (b, ports.1), Family::V6, false);
                let (back, to) = FlowKey::of((b, ports.1), (a, ports.0), Family::V6, false);
                assert_eq!(there, back, "{a:x?} {b:x?} {ports:?}");
                assert!(from != to || a == b && ports.0 == ports.1, "{a:x?} {b:x?} {ports:?}");
                let ends = if from == End::LOW { (there.low, there.high) } else { (there.high, there.low) };
                assert_eq!(ends, (*a, *b));
            }
        }
    }

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
                    let (one, other) = (Address::v6(from.0), Address::v6(to.0));
                    FlowKey::of((&one, from.1), (&other, to.1), Family::V6, udp)
                };
                let (there, from) = of(&a, &b, false);
                let (back, to) = of(&b, &a, false);
                assert_eq!(there, back);
                assert!(a == b || from != to);
                assert_ne!(there, of(&a, &b, true).0);
            }
        }
        let address = Address::v4(ends[0].0[0]);
        let one = (&address, ends[0].1);
        assert_eq!(FlowKey::of(one, one, Family::V4, false).1, End::LOW);
    }
}
