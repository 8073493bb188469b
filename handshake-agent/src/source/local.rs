//! The addresses of this host, and the seat from which it sees an attempt.

use std::collections::BTreeSet;
use std::net::IpAddr;

use handshake_common::abi::{LOCAL_ADDRESSES, LocalAddress};
use handshake_common::flow::{Address, Family};
use handshake_common::record::Brief;
use handshake_common::verdict::Seat;

/// The first byte of the addresses that are always the host's own (RFC 1122 §3.2.1.3).
const LOOPBACK: u8 = 127;

/// The addresses of this host, the lowest [`LOCAL_ADDRESSES`] of them; none where a capture is read.
///
/// A scan asks of both addresses of each open attempt, and most are foreign: few of those have their bit set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostAddresses {
    all: BTreeSet<LocalAddress>,
    /// The bits of all, at their [`bit_of`].
    bits: Bits,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Bits([u64; 64]);

impl Default for Bits {
    fn default() -> Self {
        Self([0; 64])
    }
}

impl HostAddresses {
    /// Those that the programs can know.
    pub fn of(addresses: impl IntoIterator<Item = IpAddr>) -> Self {
        let all: BTreeSet<LocalAddress> = addresses.into_iter().map(local_address).collect();
        Self::known(all.into_iter().take(LOCAL_ADDRESSES))
    }

    /// These, as the programs look them up.
    pub(crate) fn known(addresses: impl IntoIterator<Item = LocalAddress>) -> Self {
        let all: BTreeSet<LocalAddress> = addresses.into_iter().collect();
        let mut bits = Bits::default();
        for address in &all {
            let bit = bit_of(address.address);
            bits.0[bit >> 6] |= 1 << (bit & 63);
        }
        Self { all, bits }
    }

    /// The addresses, as the programs look them up.
    pub const fn all(&self) -> &BTreeSet<LocalAddress> {
        &self.all
    }

    /// Is it one of this host's? Without any address nothing is.
    #[inline(always)]
    pub fn holds(&self, address: Address, family: Family) -> bool {
        let bit = bit_of(address);
        let is_loopback = matches!(family, Family::V4) && address.first_byte() == LOOPBACK;
        is_loopback && !self.all.is_empty()
            || self.bits.0[bit >> 6] >> (bit & 63) & 1 != 0
                && self.all.contains(&LocalAddress { address, family: family as u64 })
    }

    /// From where this host sees the attempt. The addresses decide: a router sees both directions at one
    /// interface as a client and a server do.
    #[inline(always)]
    pub fn seat(&self, brief: &Brief) -> Seat {
        // Both are asked, and no address is chosen first: it would be copied about.
        let (low, high) = (self.holds(brief.key.low, brief.family), self.holds(brief.key.high, brief.family));
        let [is_initiator, is_responder] = brief.by_side(low, high);
        if is_responder {
            Seat::Responder
        } else if is_initiator {
            Seat::Initiator
        } else {
            Seat::Between
        }
    }
}

/// The bit of an address, one of 4,096: Fibonacci hashing (Knuth, TAOCP 3, §6.4) of its words.
#[inline(always)]
fn bit_of(Address([one, other]): Address) -> usize {
    let mixed = (one ^ other.rotate_left(16)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 52) as usize
}

/// An address as the programs look it up.
fn local_address(address: IpAddr) -> LocalAddress {
    let (address, family) = Address::of(address);
    LocalAddress { address, family: family as u64 }
}

#[cfg(test)]
mod tests {
    use handshake_common::record::State;

    use super::*;
    use crate::fake::record;

    #[test]
    fn the_addresses_decide_the_seat() {
        let host = HostAddresses::of(["10.0.0.2".parse().expect("IPv4"), "fd00::2".parse().expect("IPv6")]);
        let table = [
            ("10.0.0.1:1", "10.0.0.2:443", Seat::Responder),
            ("10.0.0.2:1", "10.0.0.1:443", Seat::Initiator),
            ("10.0.0.2:1", "10.0.0.2:443", Seat::Responder),
            ("10.0.0.1:1", "10.0.0.3:443", Seat::Between),
            ("127.0.0.1:1", "127.0.0.9:443", Seat::Responder),
            ("[fd00::1]:1", "[fd00::2]:443", Seat::Responder),
            ("[fd00::2]:1", "[fd00::1]:443", Seat::Initiator),
        ];
        for (initiator, responder, seat) in table {
            let record = record(initiator, responder, State::SynSent).brief();
            assert_eq!(host.seat(&record), seat, "{initiator} {responder}");
            assert_eq!(HostAddresses::default().seat(&record), Seat::Between, "a capture is of no host");
        }
    }
}
