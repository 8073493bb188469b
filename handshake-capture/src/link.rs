//! Link types: the registry's numbers (LINKTYPE_…), and which of them are supported.

use handshake_common::wire::Link;

/// The supported link types, for messages.
pub(crate) const SUPPORTED: &str = "Ethernet, Linux cooked (any), raw IP or loopback";

/// The header that frames of `link_type` begin with; `None` if it is not supported.
pub(crate) const fn of(link_type: u16) -> Option<Link> {
    match link_type {
        0 => Some(Link::BsdNull),
        1 => Some(Link::Ethernet),
        // 12 and 14 are DLT_RAW of most systems and of OpenBSD; some writers store them unmapped.
        12 | 14 | 101 | 228 | 229 => Some(Link::Ip),
        108 => Some(Link::BsdLoop),
        113 => Some(Link::LinuxSll),
        276 => Some(Link::LinuxSll2),
        _ => None,
    }
}

/// The number of an unsupported link type, with its name if it is a common one.
pub(crate) fn describe(link_type: u16) -> String {
    let name = match link_type {
        6 => "Token Ring",
        9 | 50 => "PPP",
        10 => "FDDI",
        51 => "PPPoE",
        104 => "Cisco HDLC",
        105 | 119 | 127 | 163 | 192 => "IEEE 802.11 (Wi-Fi in monitor mode)",
        107 => "Frame Relay",
        117 => "OpenBSD pflog",
        187 | 201 => "Bluetooth",
        189 | 220 | 249 => "USB",
        195 => "IEEE 802.15.4",
        227 => "CAN",
        239 => "NFLOG",
        252 => "Wireshark upper PDU",
        253 => "Linux netlink",
        _ => return link_type.to_string(),
    };
    format!("{link_type} ({name})")
}

/// The EtherType of a frame, that behind its VLAN tags; a number below 0x600 is the length of an LLC frame.
/// `None` where the link has none, or the frame is too short.
pub(crate) fn ether_type(link: Link, bytes: &[u8]) -> Option<u16> {
    const TAG: usize = 4;
    let mut at = match link {
        Link::Ethernet => 12,
        Link::LinuxSll => 14,
        Link::LinuxSll2 => 0,
        Link::Ip | Link::BsdNull | Link::BsdLoop => return None,
    };
    let mut next = if link == Link::LinuxSll2 { 20 } else { at + 2 };
    loop {
        let ether_type = u16::from_be_bytes(*bytes.get(at..)?.first_chunk()?);
        if !matches!(ether_type, 0x8100 | 0x88a8 | 0x9100 | 0x9200) {
            return Some(ether_type);
        }
        (at, next) = (next + 2, next + TAG);
    }
}
