//! Packets by class, of one interface or of all.

use handshake_common::abi::{ClassBlock, class_index};
use handshake_common::wire::Class;

/// Packets by class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Packets {
    /// All packets.
    pub total: u64,
    /// Packets with an IPv4 header.
    pub ipv4: u64,
    /// Packets with an IPv6 header.
    pub ipv6: u64,
    /// Packets of flows that the filter excludes; not known by interface.
    pub filtered: Option<u64>,
    /// IPv6 packets with more extension headers than are walked; not known by interface.
    pub extension_chains: Option<u64>,
    /// First fragments of TCP or UDP without the whole header; not known by interface.
    pub split_headers: Option<u64>,
    /// SYNs and SYN+ACKs that are copies of one seen at the same hook; not known by interface.
    pub copies: Option<u64>,
    pub(super) classes: [u64; Class::ALL.len()],
}

impl Packets {
    pub(super) fn sum<'a>(blocks: impl IntoIterator<Item = &'a ClassBlock>) -> Self {
        let mut sum = Self::default();
        for block in blocks {
            for (at, class) in Class::ALL.iter().enumerate() {
                let [neither, ipv4, ipv6] =
                    [0, 1, 2].map(|family| block.packets[class_index(*class as u8, family)]);
                sum.ipv4 += ipv4;
                sum.ipv6 += ipv6;
                sum.classes[at] += neither + ipv4 + ipv6;
            }
        }
        sum.total = sum.classes.iter().sum();
        sum
    }

    /// Packets of one class.
    pub fn class(&self, class: Class) -> u64 {
        self.classes[class as usize]
    }
}
