//! The IP header and IPv6's extension headers: from where they begin to the L4 header.

use core::hint::cold_path;

use zerocopy::FromBytes;
use zerocopy::byteorder::big_endian::{U16, U32};
use zerocopy::byteorder::native_endian;

use super::link::NetworkLayer;
use super::{Class, Frame, Packet, TCP, UDP, fixed_part, note};
use crate::flow::{Address, Family};

/// Where L4 begins, and what IP says of it.
#[derive(Clone, Copy)]
pub(super) struct Transport {
    pub(super) family: Family,
    /// IANA's number of what is at `offset`.
    pub(super) protocol: u8,
    /// Bytes before it that are IP's: header, options, extension headers.
    pub(super) ip_header: u32,
    pub(super) offset: u32,
    /// The first byte behind the IP packet: by its length, whatever the frame holds.
    pub(super) end: u32,
    /// More fragments follow, so a header may run past `end`.
    pub(super) first_fragment: bool,
    /// The IP header does not say its length (0): a jumbogram or a super-packet.
    pub(super) is_unsized: bool,
    /// There is an IPv6 routing header: the destination may be one on the way (RFC 8200 §8.1).
    pub(super) is_routed: bool,
}

/// Extension headers that are walked; a longer chain is `ip_other`. RFC 8200 §4.1 recommends an
/// order of at most six of these.
const EXTENSIONS: u32 = 8;
/// The same in a packet that an ICMP error quotes, where few fit.
const QUOTED_EXTENSIONS: u32 = 2;

/// Authentication headers that are walked behind an IPv4 header: none of the other kinds is one of IPv4's.
const AUTHENTICATIONS: u32 = 1;

pub(super) const IPV4_LENGTH: u32 = fixed_part::<Ipv4>();
pub(super) const IPV6_LENGTH: u32 = fixed_part::<Ipv6>();
const EXTENSION_LENGTH: u32 = fixed_part::<Extension>();
/// An 8-bit length in units of eight bytes, not counting the first.
const EXTENSION_LONGEST: u32 = 256 * 8;

/// IHL has four bits, in words.
pub(super) const IPV4_LONGEST: u32 = 15 * 4 + AUTHENTICATIONS * EXTENSION_LONGEST;
pub(super) const IPV6_LONGEST: u32 = IPV6_LENGTH + EXTENSIONS * EXTENSION_LONGEST;
pub(super) const IPV6_QUOTED_LONGEST: u32 = IPV6_LENGTH + QUOTED_EXTENSIONS * EXTENSION_LONGEST;

/// IANA's numbers of what chains on in IPv6.
mod next_header {
    pub(super) const HOP_BY_HOP: u8 = 0;
    pub(super) const ROUTING: u8 = 43;
    pub(super) const FRAGMENT: u8 = 44;
    pub(super) const AUTHENTICATION: u8 = 51;
    pub(super) const NONE: u8 = 59;
    pub(super) const DESTINATION_OPTIONS: u8 = 60;
}

/// RFC 791 §3.1, without options.
#[derive(FromBytes)]
#[repr(C)]
pub(super) struct Ipv4 {
    version_ihl: u8,
    _service: u8,
    total_length: U16,
    _identification: U16,
    fragment: U16,
    _time_to_live: u8,
    protocol: u8,
    _checksum: U16,
    source: native_endian::U32,
    destination: native_endian::U32,
}

impl Ipv4 {
    /// With options.
    #[inline(always)]
    fn header_length(&self) -> Result<u32, Class> {
        let length = u32::from(self.version_ihl & 0xf) * 4;
        if self.version_ihl >> 4 != 4 || length < IPV4_LENGTH { Err(Class::Malformed) } else { Ok(length) }
    }

    /// Version 4, and no options.
    #[inline(always)]
    pub(super) const fn is_plain(&self) -> bool {
        self.version_ihl == 0x45
    }

    /// 0 where it is not told.
    #[inline(always)]
    pub(super) fn declared_length(&self) -> u32 {
        u32::from(self.total_length.get())
    }

    /// The first or a later one.
    #[inline(always)]
    fn is_fragment(&self) -> bool {
        self.fragment.get() & 0x3fff != 0
    }

    #[inline(always)]
    fn is_later_fragment(&self) -> bool {
        self.fragment.get() & 0x1fff != 0
    }

    #[inline(always)]
    pub(super) fn write_ends(&self, packet: &mut Packet) {
        packet.source.0[0] = Address::of_first(self.source.get()).0[0];
        packet.destination.0[0] = Address::of_first(self.destination.get()).0[0];
    }
}

/// RFC 8200 §3.
#[derive(FromBytes)]
#[repr(C)]
pub(super) struct Ipv6 {
    version: u8,
    _class_and_label: [u8; 3],
    payload_length: U16,
    next_header: u8,
    _hop_limit: u8,
    source: [native_endian::U64; 2],
    destination: [native_endian::U64; 2],
}

impl Ipv6 {
    #[inline(always)]
    const fn is_version_6(&self) -> bool {
        self.version >> 4 == 6
    }

    /// TCP or UDP at once behind it, and a length that is told.
    #[inline(always)]
    pub(super) fn is_plain(&self) -> bool {
        self.is_version_6() && matches!(self.next_header, TCP | UDP) && self.payload_length.get() != 0
    }

    /// Of what is behind the header; 0 where it is not told.
    #[inline(always)]
    pub(super) fn declared_length(&self) -> u32 {
        u32::from(self.payload_length.get())
    }

    #[inline(always)]
    pub(super) fn write_ends(&self, packet: &mut Packet) {
        packet.source = Address(self.source.map(native_endian::U64::get));
        packet.destination = Address(self.destination.map(native_endian::U64::get));
    }
}

/// The first eight bytes of an extension header: none is shorter.
#[derive(FromBytes)]
#[repr(C, align(4))]
struct Extension {
    next_header: u8,
    length: u8,
    /// Of a fragment header: offset in units of eight bytes (13 bits), then bits, the last "more".
    fragment: U16,
    _rest: U32,
}

/// Reads the IP header that `network` announces, and what chains on behind it.
#[inline(always)]
pub(super) fn read<F: Frame>(
    frame: &F,
    network: NetworkLayer,
    packet: &mut Packet,
) -> Result<Transport, Class> {
    match network.family {
        Family::V4 => ipv4(frame, network.offset, packet),
        Family::V6 => ipv6(frame, network.offset, packet),
    }
}

#[inline(always)]
fn ipv4<F: Frame>(frame: &F, offset: u32, packet: &mut Packet) -> Result<Transport, Class> {
    let header: Ipv4 = frame.read(offset)?;
    let ip_header = header.header_length()?;
    // A super-packet of more than 64 KiB, on its way to or from segmentation, says 0.
    let is_unsized = header.total_length.get() == 0;
    let length = if is_unsized { frame.length().saturating_sub(offset) } else { header.declared_length() };
    let mut transport = Transport { is_unsized, ..ipv4_behind(&header, ip_header, offset, length, packet)? };
    walk::<F, AUTHENTICATIONS>(frame, &mut transport, is_authentication)?;
    transport.ip_header = transport.offset - offset;
    Ok(transport)
}

/// What is behind a header at `offset` that is `ip_header` bytes long, in a packet of `length` bytes.
#[inline(always)]
pub(super) fn ipv4_behind(
    header: &Ipv4,
    ip_header: u32,
    offset: u32,
    length: u32,
    packet: &mut Packet,
) -> Result<Transport, Class> {
    if length < ip_header {
        return Err(Class::Malformed);
    }
    packet.ip_length = length;
    let is_fragment = header.is_fragment();
    if is_fragment {
        cold_path();
        header.write_ends(packet);
        if header.is_later_fragment() {
            return Err(Class::Fragment);
        }
    } else {
        header.write_ends(packet);
    }
    Ok(Transport {
        family: Family::V4,
        protocol: header.protocol,
        ip_header,
        offset: offset + ip_header,
        end: offset + length,
        first_fragment: is_fragment,
        is_unsized: false,
        is_routed: false,
    })
}

#[inline(always)]
fn ipv6<F: Frame>(frame: &F, offset: u32, packet: &mut Packet) -> Result<Transport, Class> {
    let header: Ipv6 = frame.read(offset)?;
    if !header.is_version_6() {
        return Err(Class::Malformed);
    }
    let mut transport = ipv6_without_extensions(frame, &header, offset, packet);
    walk::<F, EXTENSIONS>(frame, &mut transport, is_extension)?;
    if is_extension(transport.protocol) {
        packet.note = note::EXTENSION_CHAIN;
        return Err(Class::IpOther);
    }
    transport.ip_header = transport.offset - offset;
    Ok(transport)
}

/// What is behind a header at `offset`, were it what the header says is next.
#[inline(always)]
pub(super) fn ipv6_without_extensions<F: Frame>(
    frame: &F,
    header: &Ipv6,
    offset: u32,
    packet: &mut Packet,
) -> Transport {
    let behind = offset + IPV6_LENGTH;
    // A jumbogram (RFC 2675) or a super-packet says 0, and so does a header with nothing behind it.
    let payload = match header.payload_length.get() {
        0 if header.next_header != next_header::NONE => frame.length().saturating_sub(behind),
        declared => u32::from(declared),
    };
    let end = behind + payload;
    header.write_ends(packet);
    packet.ip_length = IPV6_LENGTH + payload;
    Transport {
        family: Family::V6,
        protocol: header.next_header,
        ip_header: IPV6_LENGTH,
        offset: behind,
        end,
        first_fragment: false,
        is_unsized: header.payload_length.get() == 0,
        is_routed: false,
    }
}

/// Follows at most `BOUND` headers that are walked: `protocol` and `offset` go from one to the next.
///
/// What differs between the kinds of headers is worked out without branches: the verifier would follow
/// every sequence of kinds.
#[inline(always)]
fn walk<F: Frame, const BOUND: u32>(
    frame: &F,
    transport: &mut Transport,
    is_walked: impl Fn(u8) -> bool,
) -> Result<(), Class> {
    let (mut protocol, mut offset, end) = (transport.protocol, transport.offset, transport.end);
    let (mut first_fragment, mut routed) = (0, 0);
    for _ in 0..BOUND {
        if !is_walked(protocol) {
            break;
        }
        if offset + EXTENSION_LENGTH > end {
            return Err(Class::Malformed);
        }
        let header: Extension = frame.read(offset)?;
        let is_fragment = is_equal(protocol, next_header::FRAGMENT);
        let fragment = u32::from(header.fragment.get()) * is_fragment;
        if fragment & !7 != 0 {
            return Err(Class::Fragment);
        }
        first_fragment |= fragment & 1;
        routed |= is_equal(protocol, next_header::ROUTING);
        // A fragment header has no length; an authentication header's is in words, less two (RFC 4302 §2.2).
        let is_authentication = is_equal(protocol, next_header::AUTHENTICATION);
        let length = u32::from(header.length) & is_fragment.wrapping_sub(1);
        offset += (length + 1 + is_authentication) << (3 - is_authentication);
        if offset > end {
            return Err(Class::Malformed);
        }
        protocol = header.next_header;
    }
    (transport.protocol, transport.offset) = (protocol, offset);
    transport.first_fragment |= first_fragment != 0;
    transport.is_routed |= routed != 0;
    Ok(())
}

/// 1 when they are equal, else 0.
#[inline(always)]
const fn is_equal(a: u8, b: u8) -> u32 {
    ((a ^ b) as u32).wrapping_sub(1) >> 31
}

#[inline(always)]
const fn is_authentication(protocol: u8) -> bool {
    protocol == next_header::AUTHENTICATION
}

#[inline(always)]
const fn is_extension(protocol: u8) -> bool {
    matches!(
        protocol,
        next_header::HOP_BY_HOP
            | next_header::ROUTING
            | next_header::FRAGMENT
            | next_header::AUTHENTICATION
            | next_header::DESTINATION_OPTIONS
    )
}

/// Who an ICMP error is about: the start of the packet it quotes.
pub(super) struct QuotedDatagram {
    pub(super) source: Address,
    pub(super) destination: Address,
    pub(super) protocol: u8,
    /// Of the quoted L4 header.
    pub(super) offset: u32,
}

/// Reads the IP header quoted at `offset`. Lengths in it are of a packet that is not here, and
/// routers have been known to change them: they say nothing.
#[inline(always)]
pub(super) fn quoted<F: Frame>(frame: &F, outer: &Transport, offset: u32) -> Result<QuotedDatagram, Class> {
    match outer.family {
        Family::V4 => quoted_ipv4(frame, offset, outer.end),
        Family::V6 => quoted_ipv6(frame, offset, outer.end),
    }
}

#[inline(always)]
fn quoted_ipv4<F: Frame>(frame: &F, offset: u32, end: u32) -> Result<QuotedDatagram, Class> {
    let header: Ipv4 = frame.read(offset)?;
    let ip_header = header.header_length()?;
    if header.is_later_fragment() {
        return Err(Class::Fragment);
    }
    let mut transport = quoted_transport(Family::V4, header.protocol, offset, ip_header, end);
    walk::<F, AUTHENTICATIONS>(frame, &mut transport, is_authentication)?;
    Ok(QuotedDatagram {
        source: Address::of_first(header.source.get()),
        destination: Address::of_first(header.destination.get()),
        protocol: transport.protocol,
        offset: transport.offset,
    })
}

#[inline(always)]
fn quoted_ipv6<F: Frame>(frame: &F, offset: u32, end: u32) -> Result<QuotedDatagram, Class> {
    let header: Ipv6 = frame.read(offset)?;
    if !header.is_version_6() {
        return Err(Class::Malformed);
    }
    let mut transport = quoted_transport(Family::V6, header.next_header, offset, IPV6_LENGTH, end);
    walk::<F, QUOTED_EXTENSIONS>(frame, &mut transport, is_extension)?;
    Ok(QuotedDatagram {
        source: Address(header.source.map(native_endian::U64::get)),
        destination: Address(header.destination.map(native_endian::U64::get)),
        protocol: transport.protocol,
        offset: transport.offset,
    })
}

/// What is behind a quoted header at `offset`, in an ICMP error that ends at `end`.
#[inline(always)]
const fn quoted_transport(family: Family, protocol: u8, offset: u32, ip_header: u32, end: u32) -> Transport {
    Transport {
        family,
        protocol,
        ip_header,
        offset: offset + ip_header,
        end,
        first_fragment: false,
        is_unsized: false,
        is_routed: false,
    }
}
