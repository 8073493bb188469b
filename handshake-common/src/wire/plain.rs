//! The fast path of parsing: an untagged frame with an IP header of the usual length and TCP or UDP at
//! once behind it, which is nearly all there is. Every offset is a constant.
//!
//! A second way to the same [`Packet`]: for every frame it is [`parse`](super::parse)'s, or none.

use core::hint::cold_path;

use zerocopy::FromBytes;

use super::ip::{self, Ipv4, Ipv6};
use super::link::{ETHERNET_LENGTH, Ethernet, Shim, ethertype};
use super::{Class, Frame, Packet, TCP, UDP, l4};
use crate::flow::Family;

/// Who takes a plain packet. What becomes of each kind is inlined at one place, where its class and protocol
/// are known: a packet that has been told apart once is not told apart again.
pub trait PacketSink: Sized {
    /// A packet of class ack: nearly all of TCP.
    fn ack(self, packet: &mut Packet) -> bool;
    /// A packet of class udp.
    fn udp(self, packet: &mut Packet) -> bool;
    /// A packet of any other class.
    fn other(self, packet: &mut Packet, class: Class) -> bool;
}

/// Keeps the packet, whatever it is.
#[derive(Clone, Copy, Debug)]
pub struct ParseOnly;

impl PacketSink for ParseOnly {
    #[inline(always)]
    fn ack(self, packet: &mut Packet) -> bool {
        self.other(packet, Class::Ack)
    }
    #[inline(always)]
    fn udp(self, packet: &mut Packet) -> bool {
        self.other(packet, Class::Udp)
    }
    #[inline(always)]
    fn other(self, packet: &mut Packet, class: Class) -> bool {
        packet.class = class as u8;
        true
    }
}

/// Both headers in one piece: one look at the frame's end.
#[derive(FromBytes)]
#[repr(C)]
struct PlainHeader<T> {
    ethernet: Ethernet,
    ip: T,
}

/// Reads a plain Ethernet frame with IPv4, or with what is neither IP nor a shim before it, into a packet
/// that is [unread](Packet::unread), and hands it to the sink, which says the rest. `false`: not plain, or
/// cut, or malformed; what the packet holds then means nothing, but for `family`: IPv4's where the frame says
/// IPv4.
#[inline(always)]
pub fn parse_plain4<F: Frame, T: PacketSink>(frame: &F, packet: &mut Packet, sink: T) -> bool {
    let Ok(head) = frame.read::<PlainHeader<Ipv4>>(0) else { return false };
    packet.marks = head.ethernet.marks();
    let ethertype = head.ethernet.ethertype.get();
    if ethertype == ethertype::IPV4 {
        return ipv4(frame, &head.ip, packet, sink);
    }
    cold_path();
    let is_entered = ethertype == ethertype::IPV6 || Shim::announced_by(ethertype).is_any();
    !is_entered && sink.other(packet, Class::NonIp)
}

/// Reads a TCP segment again that [`parse_plain4`] has handed on, if it has no data: what a handshake needs of it, and
/// no length. Less than to hand it over.
#[inline(always)]
pub fn read_bare4<F: Frame>(frame: &F, packet: &mut Packet) -> bool {
    const TRANSPORT: u32 = ETHERNET_LENGTH + ip::IPV4_LENGTH;
    let Ok(header) = frame.read::<l4::TcpHeader>(TRANSPORT) else { return false };
    let Ok(head) = frame.read::<PlainHeader<Ipv4>>(0) else { return false };
    head.ip.write_ends(packet);
    header.write(packet);
    packet.family = Family::V4 as u8;
    ip::IPV4_LENGTH + header.length() == head.ip.declared_length()
}

/// The same of IPv6, where [`parse_plain6`] has handed it on.
#[inline(always)]
pub fn read_bare6<F: Frame>(frame: &F, packet: &mut Packet) -> bool {
    const TRANSPORT: u32 = ETHERNET_LENGTH + ip::IPV6_LENGTH;
    let Ok(header) = frame.read::<l4::TcpHeader>(TRANSPORT) else { return false };
    let Ok(head) = frame.read::<PlainHeader<Ipv6>>(0) else { return false };
    head.ip.write_ends(packet);
    header.write(packet);
    packet.family = Family::V6 as u8;
    header.length() == head.ip.declared_length()
}

/// [`parse_plain4`] of IPv6. Apart, because it needs more of the stack.
#[inline(always)]
pub fn parse_plain6<F: Frame, T: PacketSink>(frame: &F, packet: &mut Packet, sink: T) -> bool {
    let Ok(head) = frame.read::<PlainHeader<Ipv6>>(0) else { return false };
    packet.marks = head.ethernet.marks();
    head.ethernet.ethertype.get() == ethertype::IPV6 && ipv6(frame, &head.ip, packet, sink)
}

#[inline(always)]
fn ipv4<F: Frame>(frame: &F, header: &Ipv4, packet: &mut Packet, sink: impl PacketSink) -> bool {
    packet.family = Family::V4 as u8;
    if !header.is_plain() {
        return false;
    }
    // Where no length is told it is 0, which none can be.
    match ip::ipv4_behind(header, ip::IPV4_LENGTH, ETHERNET_LENGTH, header.declared_length(), packet) {
        Ok(transport) if !transport.first_fragment => behind(frame, &transport, packet, sink),
        Err(Class::Fragment) => sink.other(packet, Class::Fragment),
        Ok(_) | Err(_) => false,
    }
}

#[inline(always)]
fn ipv6<F: Frame>(frame: &F, header: &Ipv6, packet: &mut Packet, sink: impl PacketSink) -> bool {
    packet.family = Family::V6 as u8;
    if !header.is_plain() {
        return false;
    }
    let transport = ip::ipv6_without_extensions(frame, header, ETHERNET_LENGTH, packet);
    behind(frame, &transport, packet, sink)
}

#[inline(always)]
fn behind<F: Frame>(
    frame: &F,
    transport: &ip::Transport,
    packet: &mut Packet,
    sink: impl PacketSink,
) -> bool {
    match transport.protocol {
        TCP => match l4::tcp(frame, transport, packet) {
            Ok(Class::Ack) => sink.ack(packet),
            Ok(class) => sink.other(packet, class),
            Err(_) => false,
        },
        UDP => l4::udp(frame, transport, packet).is_ok() && sink.udp(packet),
        _ => false,
    }
}
