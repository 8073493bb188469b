//! The addresses of this host, and the seat from which it sees an attempt.

use std::collections::BTreeSet;
use std::net::IpAddr;

use handshake_common::abi::{LOCAL_ADDRESSES, LocalAddress};
use handshake_common::flow::{Address, Family, Side};
use handshake_common::record::Record;
use handshake_common::verdict::Seat;

/// The first byte of the addresses that are always the host's own (RFC 1122 §3.2.1.3).
const LOOPBACK: u8 = 127;

/// The addresses of this host, the lowest [`LOCAL_ADDRESSES`] of them; none where a capture is read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostAddresses(BTreeSet<LocalAddress>);

impl HostAddresses {
    /// Those that the programs can know.
    pub fn of(addresses: impl IntoIterator<Item = IpAddr>) -> Self {
        let all: BTreeSet<LocalAddress> = addresses.into_iter().map(local_address).collect();
        Self(all.into_iter().take(LOCAL_ADDRESSES).collect())
    }

    /// These, as the programs look them up.
    pub(crate) fn known(addresses: impl IntoIterator<Item = LocalAddress>) -> Self {
        Self(addresses.into_iter().collect())
    }

    /// The addresses, as the programs look them up.
    pub const fn all(&self) -> &BTreeSet<LocalAddress> {
        &self.0
    }

    /// Is it one of this host's? Without any address nothing is.
    pub fn holds(&self, address: Address, family: Family) -> bool {
        let is_loopback = matches!(family, Family::V4) && address.first_byte() == LOOPBACK;
        let known = || self.0.contains(&LocalAddress { address, family: family as u64 });
        !self.0.is_empty() && (is_loopback || known())
    }

    /// From where this host sees the attempt. The addresses decide: a router sees both directions at one
    /// interface as a client and a server do.
    pub fn seat(&self, record: &Record) -> Seat {
        let is_ours = |side| self.holds(record.end(side).0, record.family);
        if is_ours(Side::Responder) {
            Seat::Responder
        } else if is_ours(Side::Initiator) {
            Seat::Initiator
        } else {
            Seat::Between
        }
    }
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
            let record = record(initiator, responder, State::SynSent);
            assert_eq!(host.seat(&record), seat, "{initiator} {responder}");
            assert_eq!(HostAddresses::default().seat(&record), Seat::Between, "a capture is of no host");
        }
    }
}
