//! Link types: the registry's numbers (LINKTYPE_…), and which of them are supported.

use handshake_common::wire::Link;

/// The supported link types, for messages.
pub(crate) const SUPPORTED: &str = "Ethernet, Linux cooked (any), raw IP, loopback, PPP, Cisco HDLC or NFLOG";

/// The header that frames of `link_type` begin with; `None` if it is not supported.
pub(crate) const fn of(link_type: u16) -> Option<Link> {
    match link_type {
        0 => Some(Link::BsdNull),
        1 => Some(Link::Ethernet),
        9 | 50 => Some(Link::Ppp),
        // 12 and 14 are DLT_RAW of most systems and of OpenBSD; some writers store them unmapped.
        12 | 14 | 101 | 228 | 229 => Some(Link::Ip),
        104 => Some(Link::CiscoHdlc),
        108 => Some(Link::BsdLoop),
        113 => Some(Link::LinuxSll),
        239 => Some(Link::Nflog),
        276 => Some(Link::LinuxSll2),
        _ => None,
    }
}

/// The number of an unsupported link type, with its name if it is a common one.
pub(crate) fn describe(link_type: u16) -> String {
    let name = match link_type {
        6 => "Token Ring",
        10 => "FDDI",
        51 => "PPPoE",
        105 | 119 | 127 | 163 | 192 => "IEEE 802.11 (Wi-Fi in monitor mode)",
        107 => "Frame Relay",
        117 => "OpenBSD pflog",
        149 | 258 => "PKTAP of another kind",
        187 | 201 => "Bluetooth",
        189 | 220 | 249 => "USB",
        195 => "IEEE 802.15.4",
        227 => "CAN",
        252 => "Wireshark upper PDU",
        253 => "Linux netlink",
        _ => return link_type.to_string(),
    };
    format!("{link_type} ({name})")
}

/// The link type of the frame in a PKTAP packet, and the bytes before it. Another packet, and one whose
/// header cannot be, is what its own type says, from its first byte on.
///
/// PKTAP is Apple's header before the frames of several interfaces (`struct pktap_header` in XNU's
/// bsd/net/pktap.h): its own length, what follows it (1: a packet) and the link type of that, each four bytes
/// in the order of the machines that write it. Its own number is 258; Apple writes 149.
pub(crate) fn unwrapped(link_type: u16, bytes: &[u8]) -> (u16, usize) {
    const SHORTEST: usize = 108;
    const PACKET: u32 = 1;
    let header = || {
        let word = |at: usize| Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?));
        let length = usize::try_from(word(0)?).ok()?;
        let inner = u16::try_from(word(8)?).ok()?;
        let is_known = word(4)? == PACKET && (SHORTEST..=bytes.len()).contains(&length);
        is_known.then_some((inner, length))
    };
    let header = if matches!(link_type, 149 | 258) { header() } else { None };
    header.unwrap_or((link_type, 0))
}
