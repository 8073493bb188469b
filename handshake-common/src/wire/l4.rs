//! TCP, UDP, and the packets that ICMP errors quote.

use zerocopy::FromBytes;
use zerocopy::byteorder::big_endian::{U16, U32};

use super::ip::{self, Transport};
use super::{Class, Frame, Packet, TCP, UDP, fixed_part, flag, note, quote};
use crate::flow::Family;

const ICMP: u8 = 1;
const ICMPV6: u8 = 58;

const TCP_LENGTH: u32 = fixed_part::<TcpHeader>();
const UDP_LENGTH: u32 = fixed_part::<UdpHeader>();
/// Type, code, checksum and a word that differs: the same for every ICMP error of either version.
pub(super) const ICMP_LENGTH: u32 = 8;
const QUOTED_LENGTH: u32 = fixed_part::<Quoted>();

/// RFC 9293 §3.1, without options.
#[derive(FromBytes)]
#[repr(C, align(4))]
pub(super) struct TcpHeader {
    source_port: U16,
    destination_port: U16,
    seq: U32,
    ack: U32,
    data_offset: u8,
    flags: u8,
    _window: U16,
    _checksum: U16,
    _urgent: U16,
}

impl TcpHeader {
    /// With options.
    #[inline(always)]
    pub(super) const fn length(&self) -> u32 {
        (self.data_offset >> 4) as u32 * 4
    }

    #[inline(always)]
    pub(super) fn write(&self, packet: &mut Packet) {
        packet.source_port = self.source_port.get();
        packet.destination_port = self.destination_port.get();
        packet.seq = self.seq.get();
        packet.ack = self.ack.get();
        packet.flags = self.flags;
        packet.protocol = TCP;
    }
}

/// RFC 768.
#[derive(FromBytes)]
#[repr(C, align(4))]
struct UdpHeader {
    source_port: U16,
    destination_port: U16,
    length: U16,
    _checksum: U16,
}

/// RFC 792 and RFC 4443 §2.1.
#[derive(FromBytes)]
#[repr(C, align(2))]
struct Icmp {
    kind: u8,
    code: u8,
}

/// What of an L4 header every quote holds (RFC 792: 64 bits).
#[derive(FromBytes)]
#[repr(C, align(4))]
struct Quoted {
    source_port: U16,
    destination_port: U16,
    /// TCP's sequence number; of UDP, length and checksum.
    seq: U32,
}

/// Reads the L4 header that `transport` leads to.
#[inline(always)]
pub(super) fn read<F: Frame>(frame: &F, transport: &Transport, packet: &mut Packet) -> Result<Class, Class> {
    match (transport.protocol, transport.family) {
        (TCP, _) => tcp(frame, transport, packet),
        (UDP, _) => udp(frame, transport, packet),
        (ICMP, Family::V4) | (ICMPV6, Family::V6) => {
            // Whatever is wrong with its insides, it is ICMP; it only quotes nothing then.
            let _ = icmp(frame, transport, packet);
            Ok(Class::Icmp)
        }
        _ => Ok(Class::IpOther),
    }
}

#[inline(always)]
pub(super) fn tcp<F: Frame>(frame: &F, transport: &Transport, packet: &mut Packet) -> Result<Class, Class> {
    if transport.offset + TCP_LENGTH > transport.end {
        return Err(cut(transport, packet));
    }
    let header: TcpHeader = frame.read(transport.offset)?;
    let length = header.length();
    let payload_offset = transport.offset + length;
    if length < TCP_LENGTH || (payload_offset > transport.end && !transport.first_fragment) {
        return Err(Class::Malformed);
    }
    header.write(packet);
    packet.payload = transport.end.saturating_sub(payload_offset);
    packet.header_length = header_length(packet.ip_length - packet.payload);
    Ok(tcp_class(header.flags))
}

/// The class of a packet that ends before its header does. Of a first fragment the rest of the header is in
/// the next one (RFC 1858 §3: no sender that means well makes one so small).
#[inline(always)]
const fn cut(transport: &Transport, packet: &mut Packet) -> Class {
    if !transport.first_fragment {
        return Class::Malformed;
    }
    packet.note = note::SPLIT_HEADER;
    Class::Fragment
}

#[inline(always)]
fn tcp_class(flags: u8) -> Class {
    let has = |bits| flags & bits == bits;
    // Nearly all segments, by one look instead of four.
    if flags & (flag::RST | flag::SYN | flag::FIN | flag::ACK) == flag::ACK {
        Class::Ack
    } else if has(flag::RST) {
        Class::Rst
    } else if has(flag::SYN | flag::ACK) {
        Class::SynAck
    } else if has(flag::SYN) {
        Class::Syn
    } else if has(flag::FIN) {
        Class::Fin
    } else {
        Class::TcpOther
    }
}

#[inline(always)]
pub(super) fn udp<F: Frame>(frame: &F, transport: &Transport, packet: &mut Packet) -> Result<Class, Class> {
    if transport.offset + UDP_LENGTH > transport.end {
        return Err(cut(transport, packet));
    }
    let header: UdpHeader = frame.read(transport.offset)?;
    // A jumbogram says 0 here as in the IP header (RFC 2675 §4).
    let length = u32::from(header.length.get());
    if length < UDP_LENGTH && (length != 0 || !transport.is_unsized) {
        return Err(Class::Malformed);
    }
    packet.source_port = header.source_port.get();
    packet.destination_port = header.destination_port.get();
    packet.header_length = header_length(transport.ip_header + UDP_LENGTH);
    packet.protocol = UDP;
    Ok(Class::Udp)
}

/// Header lengths are far below: the longest chain is 16 KiB.
#[inline(always)]
fn header_length(length: u32) -> u16 {
    u16::try_from(length).unwrap_or(u16::MAX)
}

/// An error about a TCP or UDP packet gives way to that packet: it is its flow's business.
#[inline(always)]
fn icmp<F: Frame>(frame: &F, transport: &Transport, packet: &mut Packet) -> Result<(), Class> {
    let header: Icmp = frame.read(transport.offset)?;
    let kind = unreachable(transport.family, &header);
    if kind == quote::NONE {
        return Ok(());
    }
    let inner = ip::quoted(frame, transport, transport.offset + ICMP_LENGTH)?;
    // What lies behind the packet's end is padding, whatever it looks like.
    if !matches!(inner.protocol, TCP | UDP) || inner.offset + QUOTED_LENGTH > transport.end {
        return Ok(());
    }
    let quoted: Quoted = frame.read(inner.offset)?;
    packet.reporter = packet.source;
    packet.source = inner.source;
    packet.destination = inner.destination;
    packet.source_port = quoted.source_port.get();
    packet.destination_port = quoted.destination_port.get();
    packet.seq = if inner.protocol == TCP { quoted.seq.get() } else { 0 };
    packet.protocol = inner.protocol;
    packet.quote = kind;
    Ok(())
}

/// The end of the headers of a TCP segment, or of what an ICMP error quotes of one: data begins there. `None` where
/// they are not in the frame.
#[cfg(not(target_arch = "bpf"))]
pub fn headers_end<F: Frame>(frame: &F, link: super::Link) -> Option<u32> {
    let mut packet = Packet::default();
    let network = super::link::read(frame, link, &mut packet).ok()?;
    let outer = ip::read(frame, network, &mut packet).ok()?;
    match (outer.protocol, outer.family) {
        (TCP, _) => tcp_end(frame, outer.offset),
        (ICMP, Family::V4) | (ICMPV6, Family::V6) => {
            let inner = ip::quoted(frame, &outer, outer.offset + ICMP_LENGTH).ok()?;
            // Most of the header may be missing.
            tcp_end(frame, inner.offset).or(Some(inner.offset + QUOTED_LENGTH))
        }
        _ => None,
    }
}

#[cfg(not(target_arch = "bpf"))]
fn tcp_end<F: Frame>(frame: &F, offset: u32) -> Option<u32> {
    frame.read::<TcpHeader>(offset).ok().map(|header| offset + header.length())
}

/// RFC 792: type 3, of which code 4 is a notice about the path's MTU. RFC 4443 §3.1: type 1.
#[inline(always)]
const fn unreachable(family: Family, header: &Icmp) -> u8 {
    match (family, header.kind, header.code) {
        (Family::V4, 3, 4) => quote::NONE,
        (Family::V4, 3, _) | (Family::V6, 1, _) => quote::UNREACHABLE,
        _ => quote::NONE,
    }
}
