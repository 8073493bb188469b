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
const MANY_PORTS: u16 = 1024;

/// What a rule looks at.
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

/// A condition: the field is not below the one value and not above the other, or the contrary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Condition {
    field: Field,
    lowest: Vec<u8>,
    highest: Vec<u8>,
    is_negated: bool,
}

/// A segment of a handshake with a service, of which no more is known.
pub(super) struct Segment {
    /// Else it comes from the service.
    pub(super) to_service: bool,
    pub(super) service: Option<SocketAddr>,
}

impl Field {
    /// Its bytes in a segment; `None` where they are not known.
    fn of(self, segment: &Segment) -> Option<Vec<u8>> {
        let tcp = u8::try_from(libc::IPPROTO_TCP).ok()?;
        let (place, length, known_at, known) = match self {
            Self::Protocol => return Some(vec![tcp]),
            Self::Family => {
                let is_v4 = segment.service?.is_ipv4();
                return Some(vec![if is_v4 { family::IP } else { family::IP6 }]);
            }
            Self::Transport(place, length) => {
                let port = segment.service?.port().to_be_bytes().to_vec();
                (place, length, if segment.to_service { DESTINATION } else { SOURCE }, port)
            }
            Self::Network(place, length) => match (segment.service?.ip(), segment.to_service) {
                (IpAddr::V4(_), _) if place == 9 => (place, length, 9, vec![tcp]),
                (IpAddr::V4(address), is_to) => {
                    (place, length, if is_to { 16 } else { 12 }, address.octets().to_vec())
                }
                (IpAddr::V6(address), is_to) => {
                    (place, length, if is_to { 24 } else { 8 }, address.octets().to_vec())
                }
            },
        };
        let from = place.checked_sub(known_at)?;
        known.get(from..from.checked_add(length)?).map(<[u8]>::to_vec)
    }
}

impl Segment {
    /// Whether a table of this family may see it.
    pub(super) fn may_be_of(&self, table: u8) -> bool {
        match table {
            family::IP | family::IP6 => Field::Family.of(self).is_none_or(|known| known == [table]),
            family::ARP => false,
            _ => true,
        }
    }
}

impl Condition {
    /// Whether it may hold for a segment: what is not known may.
    pub(super) fn may_hold(&self, segment: &Segment) -> bool {
        match self.field.of(segment).filter(|known| known.len() == self.lowest.len()) {
            Some(known) => (self.lowest <= known && known <= self.highest) != self.is_negated,
            None => !self.is_of_few_initiators(segment),
        }
    }

    fn is_of_few_initiators(&self, segment: &Segment) -> bool {
        let theirs = Field::Transport(if segment.to_service { SOURCE } else { DESTINATION }, PORT);
        let port = |bytes: &[u8]| Some(u16::from_be_bytes(*bytes.first_chunk()?));
        let width = port(&self.highest).zip(port(&self.lowest)).map(|(to, from)| to.saturating_sub(from));
        let is_narrow = !self.is_negated && width.is_some_and(|width| width < MANY_PORTS);
        segment.service.is_some() && self.field == theirs && is_narrow
    }

    /// Both at once, where they are about the same value and neither is negated.
    fn and(&self, other: &Self) -> Option<Self> {
        let is_plain = self.field == other.field && !self.is_negated && !other.is_negated;
        is_plain.then(|| Self {
            field: self.field,
            lowest: self.lowest.clone().max(other.lowest.clone()),
            highest: self.highest.clone().min(other.highest.clone()),
            is_negated: false,
        })
    }

    fn compared(field: Field, compare: &[u8]) -> Option<Self> {
        let value = find(find(compare, COMPARED_WITH)?, DATA_VALUE)?.to_vec();
        let (least, most) = (vec![0; value.len()], vec![u8::MAX; value.len()]);
        // `NFT_CMP_*`: equal, not equal, less, not more, more, not less.
        let (lowest, highest, is_negated) = match number(compare, COMPARED_HOW)? {
            0 => (value.clone(), value, false),
            1 => (value.clone(), value, true),
            2 => (value, most, true),
            3 => (least, value, false),
            4 => (least, value, true),
            5 => (value, most, false),
            _ => return None,
        };
        Some(Self { field, lowest, highest, is_negated })
    }

    fn ranged(field: Field, range: &[u8]) -> Option<Self> {
        let end = |kind| Some(find(find(range, kind)?, DATA_VALUE)?.to_vec());
        let is_negated = number(range, COMPARED_HOW)? != 0;
        Some(Self { field, lowest: end(COMPARED_WITH)?, highest: end(RANGE_TO)?, is_negated })
    }
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
