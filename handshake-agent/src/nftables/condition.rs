//! The conditions of a rule, as far as the addresses and ports of a service decide them.
//!
//! ```text
//! payload: 2 bytes at transport header + 2 ─▶ register 1 │ cmp: register 1 eq 443
//! ```

use std::net::{IpAddr, SocketAddr};

use super::{family, number};
use crate::netlink::find;

const PAYLOAD_REGISTER: u16 = 1;
const PAYLOAD_BASE: u16 = 2;
const PAYLOAD_OFFSET: u16 = 3;
const PAYLOAD_LENGTH: u16 = 4;
const META_REGISTER: u16 = 1;
const META_KEY: u16 = 2;
const COMPARED_REGISTER: u16 = 1;
const COMPARED_HOW: u16 = 2;
/// The other side of `cmp`; of `range`, the lower one.
const COMPARED_WITH: u16 = 3;
const RANGE_TO: u16 = 4;
const DATA_VALUE: u16 = 1;

/// `NFT_PAYLOAD_*_HEADER`.
const NETWORK: u32 = 1;
const TRANSPORT: u32 = 2;
/// `NFT_META_*`.
const FAMILY_KEY: u32 = 15;
const PROTOCOL_KEY: u32 = 16;

/// Bytes of a port, and where its two are in the TCP header.
const PORT: usize = size_of::<u16>();
const SOURCE: usize = 0;
const DESTINATION: usize = 2;
/// Fewer ports than this are those of few initiators: each attempt has another.
const MANY_PORTS: u128 = 1024;
/// The protocol in the header of IPv4.
const V4_PROTOCOL: usize = 9;

/// What a rule looks at, in at most 16 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Field {
    /// `NFPROTO_*` of the packet.
    Family,
    /// The protocol above IP.
    Protocol,
    /// So many bytes from this one of the IP header on.
    Network(usize, usize),
    /// So many bytes from this one of the transport header on.
    Transport(usize, usize),
}

/// A condition: the field, as one number, is between these two, or is not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Condition {
    field: Field,
    lowest: u128,
    highest: u128,
    is_negated: bool,
}

/// A segment of a handshake with a service, of which no more is known.
pub(super) struct Segment {
    /// Else it comes from the service.
    pub(super) to_service: bool,
    pub(super) service: Option<SocketAddr>,
}

impl Field {
    /// Its value in a segment; `None` where that is not known.
    fn of(self, segment: &Segment) -> Option<u128> {
        let tcp = u8::try_from(libc::IPPROTO_TCP).ok()?;
        let (place, length, known_at, known) = match self {
            Self::Protocol => return Some(tcp.into()),
            Self::Family => {
                let is_v4 = segment.service?.is_ipv4();
                return Some(if is_v4 { family::IP } else { family::IP6 }.into());
            }
            Self::Transport(place, length) => {
                let port = segment.service?.port().to_be_bytes().to_vec();
                (place, length, if segment.to_service { DESTINATION } else { SOURCE }, port)
            }
            Self::Network(place, length) => match (segment.service?.ip(), segment.to_service) {
                (IpAddr::V4(_), _) if place == V4_PROTOCOL => (place, length, place, vec![tcp]),
                (IpAddr::V4(address), is_to) => {
                    (place, length, if is_to { 16 } else { 12 }, address.octets().to_vec())
                }
                (IpAddr::V6(address), is_to) => {
                    (place, length, if is_to { 24 } else { 8 }, address.octets().to_vec())
                }
            },
        };
        let from = place.checked_sub(known_at)?;
        joined(known.get(from..from.checked_add(length)?)?)
    }

    const fn length(self) -> usize {
        match self {
            Self::Family | Self::Protocol => 1,
            Self::Network(_, length) | Self::Transport(_, length) => length,
        }
    }

    /// A value that it is compared with.
    fn value(self, attribute: &[u8]) -> Option<u128> {
        find(attribute, DATA_VALUE).filter(|value| value.len() == self.length()).and_then(joined)
    }

    fn greatest(self) -> u128 {
        let bits = u32::try_from(8 * self.length()).unwrap_or(u128::BITS);
        u128::MAX.checked_shr(u128::BITS.saturating_sub(bits)).unwrap_or(0)
    }
}

impl Segment {
    /// Whether a table of this family may see it.
    pub(super) fn may_be_of(&self, table: u8) -> bool {
        match table {
            family::IP | family::IP6 => Field::Family.of(self).is_none_or(|known| known == table.into()),
            family::ARP => false,
            _ => true,
        }
    }
}

impl Condition {
    #[cfg(any(test, feature = "testing"))]
    pub(super) fn of_port(port: u16) -> Self {
        let port = port.into();
        Self { field: Field::Transport(DESTINATION, PORT), lowest: port, highest: port, is_negated: false }
    }

    /// Whether it may hold for a segment: what is not known may.
    pub(super) fn may_hold(&self, segment: &Segment) -> bool {
        match self.field.of(segment) {
            Some(known) => (self.lowest..=self.highest).contains(&known) != self.is_negated,
            None => !self.is_of_few_initiators(segment),
        }
    }

    /// Whether it is about the initiator's port, and not about many of them. Who writes that a port is not 443
    /// means the service's.
    fn is_of_few_initiators(&self, segment: &Segment) -> bool {
        let theirs = Field::Transport(if segment.to_service { SOURCE } else { DESTINATION }, PORT);
        let is_many = !self.is_negated && self.highest.saturating_sub(self.lowest) >= MANY_PORTS;
        segment.service.is_some() && self.field == theirs && !is_many
    }

    /// Both at once, where they are about the same value and neither is negated.
    fn and(&self, other: &Self) -> Option<Self> {
        let is_plain = self.field == other.field && !self.is_negated && !other.is_negated;
        let (lowest, highest) = (self.lowest.max(other.lowest), self.highest.min(other.highest));
        is_plain.then_some(Self { field: self.field, lowest, highest, is_negated: false })
    }

    fn compared(field: Field, compare: &[u8]) -> Option<Self> {
        let value = field.value(find(compare, COMPARED_WITH)?)?;
        // `NFT_CMP_*`: equal, not equal, less, not more, more, not less.
        let (lowest, highest, is_negated) = match number(compare, COMPARED_HOW)? {
            0 => (value, value, false),
            1 => (value, value, true),
            2 => (0, value.checked_sub(1)?, false),
            3 => (0, value, false),
            4 => (value.checked_add(1)?, field.greatest(), false),
            5 => (value, field.greatest(), false),
            _ => return None,
        };
        Some(Self { field, lowest, highest, is_negated })
    }

    fn ranged(field: Field, range: &[u8]) -> Option<Self> {
        let end = |kind| field.value(find(range, kind)?);
        let is_negated = number(range, COMPARED_HOW)? != 0;
        Some(Self { field, lowest: end(COMPARED_WITH)?, highest: end(RANGE_TO)?, is_negated })
    }
}

/// Bytes in the order of the network as one number.
fn joined(bytes: &[u8]) -> Option<u128> {
    (bytes.len() <= size_of::<u128>())
        .then(|| bytes.iter().fold(0, |sum, byte| (sum << 8) | u128::from(*byte)))
}

/// The conditions that were understood. A value that was changed after it was loaded is not.
pub(super) fn conditions(expressions: &[(String, &[u8])]) -> Vec<Condition> {
    let mut loaded: Option<(u32, Field)> = None;
    let mut all: Vec<Condition> = Vec::new();
    for (name, data) in expressions {
        let field = || {
            let register = number(data, COMPARED_REGISTER)?;
            loaded.filter(|(loaded, _)| *loaded == register).map(|(_, field)| field)
        };
        let condition = match name.as_str() {
            "cmp" => field().and_then(|field| Condition::compared(field, data)),
            "range" => field().and_then(|field| Condition::ranged(field, data)),
            "payload" | "meta" => {
                loaded = if name == "meta" { meta(data) } else { payload(data) };
                None
            }
            _ => {
                loaded = None;
                None
            }
        };
        // A range is told by its two ends.
        if let Some(both) = all.last().zip(condition.as_ref()).and_then(|(one, other)| one.and(other)) {
            all.pop();
            all.push(both);
        } else {
            all.extend(condition);
        }
    }
    all
}

fn payload(data: &[u8]) -> Option<(u32, Field)> {
    let place = |kind| number(data, kind).and_then(|number| usize::try_from(number).ok());
    let (from, length) = (place(PAYLOAD_OFFSET)?, place(PAYLOAD_LENGTH)?);
    let field = match number(data, PAYLOAD_BASE)? {
        NETWORK => Field::Network(from, length),
        TRANSPORT => Field::Transport(from, length),
        _ => return None,
    };
    Some((number(data, PAYLOAD_REGISTER)?, field))
}

fn meta(data: &[u8]) -> Option<(u32, Field)> {
    let field = match number(data, META_KEY)? {
        FAMILY_KEY => Field::Family,
        PROTOCOL_KEY => Field::Protocol,
        _ => return None,
    };
    Some((number(data, META_REGISTER)?, field))
}
