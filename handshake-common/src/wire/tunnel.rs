//! Tunnels: frames and packets inside a packet. The host enters them on demand; the kernel side does not.
//!
//! ```text
//! IP ─┬▶ UDP ─┬▶ VXLAN ─▶ Ethernet       ─▶ as any other frame, up to four deep
//!     │       ├▶ Geneve ─▶ Ethernet, IP
//!     │       └▶ GTP-U ─▶ IP
//!     ├▶ GRE ─▶ IP, Ethernet, ERSPAN, PPP
//!     └▶ IP
//! ```

use zerocopy::byteorder::big_endian::{U16, U32};

use super::ip::Transport;
use super::link::ethertype;
use super::{Class, Frame, Link, Packet, Slice, UDP, ip, link, parse};
use crate::flow::{Address, Family};

/// Tunnels that are entered one inside another.
const DEPTH: usize = 4;
/// Extension headers of GTP-U that are walked (3GPP TS 29.281 §5.2.1 knows seven).
const GTP_EXTENSIONS: usize = 8;

const IP_IN_IP: u8 = 4;
const IPV6_IN_IP: u8 = 41;
const GRE: u8 = 47;
const UDP_LENGTH: u32 = 8;
/// Transparent Ethernet bridging (RFC 1701).
const BRIDGED: u16 = 0x6558;

listed! {
    /// A kind of tunnel.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum Tunnel {
        /// RFC 7348.
        Vxlan,
        /// RFC 8926.
        Geneve,
        /// GTP version 1, user plane (3GPP TS 29.281).
        GtpU,
        /// RFC 2784 and 2890; version 1 is PPTP's (RFC 2637).
        Gre,
        /// IPv4 or IPv6 in either (RFC 2003, 2473, 4213).
        IpInIp,
    }
}

impl Tunnel {
    /// The name in JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Vxlan => "vxlan",
            Self::Geneve => "geneve",
            Self::GtpU => "gtp_u",
            Self::Gre => "gre",
            Self::IpInIp => "ip_in_ip",
        }
    }

    /// The name in text.
    #[must_use]
    pub const fn title(self) -> &'static str {
        match self {
            Self::Vxlan => "VXLAN",
            Self::Geneve => "Geneve",
            Self::GtpU => "GTP-U",
            Self::Gre => "GRE",
            Self::IpInIp => "IP in IP",
        }
    }

    /// The tunnel whose packets go to a UDP port (IANA's registry). 8472 is the port of VXLAN that Linux took
    /// before there was one, and that it still takes where none is given.
    #[must_use]
    pub const fn at_port(port: u16) -> Option<Self> {
        match port {
            4789 | 8472 => Some(Self::Vxlan),
            6081 => Some(Self::Geneve),
            2152 => Some(Self::GtpU),
            _ => None,
        }
    }
}

/// An IP packet in a tunnel.
#[derive(Clone, Copy, Debug)]
pub struct Inner<'a> {
    /// The tunnel that it is in; of several the innermost.
    pub tunnel: Tunnel,
    /// The family of the tunnel's own packet.
    pub family: Family,
    /// The source address of the tunnel's own packet.
    pub source: Address,
    /// Its destination address.
    pub destination: Address,
    /// The frame that is inside.
    pub frame: Slice<'a>,
    /// What that frame begins with.
    pub link: Link,
    /// What it says.
    pub packet: Packet,
}

/// The innermost IP packet of a frame; `None` where it is in no tunnel, and where what a tunnel holds is not
/// IP or not whole: that counts as the tunnel's own packet.
#[must_use]
pub fn innermost(frame: Slice<'_>, link: Link) -> Option<Inner<'_>> {
    let mut found = None;
    let (mut frame, mut link) = (frame, link);
    for _ in 0..DEPTH {
        let Some(inner) = enter(frame, link) else { break };
        (frame, link) = (inner.frame, inner.link);
        found = Some(inner);
    }
    found
}

/// The IP packet in the outermost tunnel.
fn enter(frame: Slice<'_>, link: Link) -> Option<Inner<'_>> {
    let mut outer = Packet::default();
    let network = link::read(&frame, link, &mut outer).ok()?;
    let transport = ip::read(&frame, network, &mut outer).ok()?;
    // The rest of what is inside is in other fragments.
    if transport.first_fragment {
        return None;
    }
    let (tunnel, (link, offset)) = match transport.protocol {
        UDP => datagram(&frame, &transport)?,
        GRE => (Tunnel::Gre, gre(&frame, transport.offset)?),
        IP_IN_IP | IPV6_IN_IP => (Tunnel::IpInIp, (Link::Ip, transport.offset)),
        _ => return None,
    };
    let bytes = frame.bytes.get(offset as usize..)?;
    // What lies behind the packet's end is padding.
    let length = transport.end.checked_sub(offset)?;
    let bytes = bytes.get(..length as usize).unwrap_or(bytes);
    let inside = Slice { bytes, length };
    let packet = parse(&inside, link);
    let is_ip = packet.class != Class::NonIp as u8 && packet.class != Class::Malformed as u8;
    is_ip.then_some(Inner {
        tunnel,
        family: transport.family,
        source: outer.source,
        destination: outer.destination,
        frame: inside,
        link,
        packet,
    })
}

/// What a frame or a packet begins with, and where.
type Content = (Link, u32);

fn datagram(frame: &Slice<'_>, transport: &Transport) -> Option<(Tunnel, Content)> {
    let to: U16 = frame.read(transport.offset + 2).ok()?;
    let tunnel = Tunnel::at_port(to.get())?;
    let offset = transport.offset + UDP_LENGTH;
    let content = match tunnel {
        Tunnel::Vxlan => vxlan(frame, offset),
        Tunnel::Geneve => geneve(frame, offset),
        Tunnel::GtpU => gtp_u(frame, offset),
        Tunnel::Gre | Tunnel::IpInIp => None,
    };
    content.map(|content| (tunnel, content))
}

/// RFC 7348 §5: flags, of which one says that the network's number is valid, that number, and reserved bytes.
fn vxlan(frame: &Slice<'_>, offset: u32) -> Option<Content> {
    const LENGTH: u32 = 8;
    let flags: u8 = frame.read(offset).ok()?;
    (flags & 0x08 != 0).then_some((Link::Ethernet, offset + LENGTH))
}

/// RFC 8926 §3.4: version and length of the options in words, flags, an EtherType.
fn geneve(frame: &Slice<'_>, offset: u32) -> Option<Content> {
    const LENGTH: u32 = 8;
    let first: u8 = frame.read(offset).ok()?;
    let protocol: U16 = frame.read(offset + 2).ok()?;
    if first >> 6 != 0 {
        return None;
    }
    let behind = offset + LENGTH + u32::from(first & 0x3f) * 4;
    content_of(protocol.get()).map(|link| (link, behind))
}

/// What an EtherType in a tunnel's header announces.
const fn content_of(protocol: u16) -> Option<Link> {
    match protocol {
        BRIDGED => Some(Link::Ethernet),
        ethertype::IPV4 | ethertype::IPV6 => Some(Link::Ip),
        _ => None,
    }
}

/// 3GPP TS 29.281 §5.1: a packet of a user is message 255 of version 1 with protocol type 1. Where one of
/// three flags is set, there are four bytes more, the last of which announces extension headers.
fn gtp_u(frame: &Slice<'_>, offset: u32) -> Option<Content> {
    const LENGTH: u32 = 8;
    const OPTIONAL: u32 = 4;
    const USER_PACKET: u8 = 255;
    let [flags, message]: [u8; 2] = frame.read(offset).ok()?;
    if flags & 0xf0 != 0x30 || message != USER_PACKET {
        return None;
    }
    let mut behind = offset + LENGTH;
    if flags & 7 == 0 {
        return Some((Link::Ip, behind));
    }
    behind += OPTIONAL;
    for _ in 0..GTP_EXTENSIONS {
        let next: u8 = frame.read(behind - 1).ok()?;
        if next == 0 || flags & 4 == 0 {
            return Some((Link::Ip, behind));
        }
        // A length in words, itself included.
        let length: u8 = frame.read(behind).ok()?;
        if length == 0 {
            return None;
        }
        behind += u32::from(length) * 4;
    }
    None
}

/// RFC 2784 §2 and RFC 2890 §2: flags, version, an EtherType, and what the flags say of checksum, key and
/// number.
fn gre(frame: &Slice<'_>, offset: u32) -> Option<Content> {
    const CHECKSUM: u16 = 0x8000;
    const ROUTING: u16 = 0x4000;
    const KEY: u16 = 0x2000;
    const SEQUENCE: u16 = 0x1000;
    const ACKNOWLEDGEMENT: u16 = 0x0080;
    const WORD: u32 = 4;
    /// Types II and III of a mirror's frames; type I has none (draft-foschiano-erspan).
    const ERSPAN: u16 = 0x88be;
    const ERSPAN_III: u16 = 0x22eb;
    const PPP: u16 = 0x880b;
    let [flags, protocol]: [U16; 2] = frame.read(offset).ok()?;
    let (flags, protocol) = (flags.get(), protocol.get());
    let word_if = |flag| if flags & flag != 0 { WORD } else { 0 };
    let version = flags & 7;
    if flags & ROUTING != 0 || version > 1 {
        return None;
    }
    let acknowledgement = if version == 1 { word_if(ACKNOWLEDGEMENT) } else { 0 };
    let behind = offset + WORD + word_if(CHECKSUM) + word_if(KEY) + word_if(SEQUENCE) + acknowledgement;
    match protocol {
        PPP => Some((Link::Ppp, behind)),
        ERSPAN => Some((Link::Ethernet, behind + if flags & SEQUENCE != 0 { 8 } else { 0 })),
        ERSPAN_III => {
            let last: U32 = frame.read(behind + 8).ok()?;
            let platform = if last.get() & 1 != 0 { 8 } else { 0 };
            Some((Link::Ethernet, behind + 12 + platform))
        }
        _ => content_of(protocol).map(|link| (link, behind)),
    }
}
