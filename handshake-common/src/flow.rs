//! Who talks to whom: the flow's key in canonical order, and the two sides of a conversation.

/// The two ends of a conversation, as IPFIX names them in a biflow (RFC 5103 §2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The end that sent the first SYN, or the first UDP packet.
    Initiator,
    /// The other end.
    Responder,
}

impl Side {
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Family {
    /// IPv4: 64-byte records.
    V4 = 1,
    /// IPv6: 128-byte records.
    V6 = 2,
}

/// A flow's identity: the unordered 5-tuple, written with the smaller end first.
///
/// Addresses are words in host order, most significant first; an IPv4 address is the first word.
/// VLAN tags are no part of it: they differ by direction in real networks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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

/// Which of the key's two ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The smaller address (of two equal ones the smaller port).
    Low,
    /// The other.
    High,
}

impl FlowKey {
    /// The key of a packet from `source` to `destination`, and the end that sent it.
    #[inline(always)]
    #[must_use]
    pub fn of(source: ([u32; 4], u16), destination: ([u32; 4], u16), udp: bool) -> (Self, End) {
        let (s, d) = (source, destination);
        if is_low(s, d) {
            (Self { low: s.0, high: d.0, ports: join(s.1, d.1), udp }, End::Low)
        } else {
            (Self { low: d.0, high: s.0, ports: join(d.1, s.1), udp }, End::High)
        }
    }
}

#[inline(always)]
fn join(low: u16, high: u16) -> u32 {
    (low as u32) << 16 | high as u32
}

/// Is `a` the smaller of the two ends? Written out: a loop with an early exit costs the verifier more.
#[inline(always)]
fn is_low(a: ([u32; 4], u16), b: ([u32; 4], u16)) -> bool {
    if a.0[0] != b.0[0] {
        a.0[0] < b.0[0]
    } else if a.0[1] != b.0[1] {
        a.0[1] < b.0[1]
    } else if a.0[2] != b.0[2] {
        a.0[2] < b.0[2]
    } else if a.0[3] != b.0[3] {
        a.0[3] < b.0[3]
    } else {
        a.1 <= b.1
    }
}

#[cfg(test)]
mod tests {
    use super::{End, FlowKey};

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
                let (there, from) = FlowKey::of(a, b, false);
                let (back, to) = FlowKey::of(b, a, false);
                assert_eq!(there, back);
                assert!(a == b || from != to);
                assert_ne!(there, FlowKey::of(a, b, true).0);
            }
        }
        assert_eq!(FlowKey::of(ends[0], ends[0], false).1, End::Low);
    }
}
