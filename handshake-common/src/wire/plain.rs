//! The fast path of parsing: an untagged frame with an IP header of the usual length and TCP or UDP at
//! once behind it, which is nearly all there is. Every offset is a constant.
//!
//! A second way to the same [`Packet`]: for every frame it is [`parse`](super::parse)'s, or none.

use super::ip::{self, Ipv4, Ipv6};
use super::link::{ETHERNET_LENGTH, Ethernet, ethertype, is_tag};
use super::{Class, Frame, Packet, TCP, UDP, l4};
use crate::flow::Family;

/// [`parse_plain`] of IPv4, and of what is neither IP nor tagged: what needs the least stack.
#[inline(always)]
pub fn parse_plain4<F: Frame>(frame: &F, packet: &mut Packet) -> bool {
    let Ok(ethernet) = frame.read::<Ethernet>(0) else { return false };
    let class = match ethernet.ethertype.get() {
        ethertype::IPV4 => ipv4(frame, packet),
        ethertype::IPV6 => None,
        other if is_tag(other) => None,
        _ => Some(Class::NonIp),
    };
    let Some(class) = class else { return false };
    packet.class = class as u8;
    true
}

/// Reads a plain Ethernet frame into a packet that is [unread](Packet::unread). `false`: not plain, or cut;
/// what the packet holds then means nothing.
#[inline(always)]
pub fn parse_plain<F: Frame>(frame: &F, packet: &mut Packet) -> bool {
    let Some(class) = walk(frame, packet) else { return false };
    packet.class = class as u8;
    true
}

#[inline(always)]
fn walk<F: Frame>(frame: &F, packet: &mut Packet) -> Option<Class> {
    match frame.read::<Ethernet>(0).ok()?.ethertype.get() {
        ethertype::IPV4 => ipv4(frame, packet),
        ethertype::IPV6 => ipv6(frame, packet),
        other if is_tag(other) => None,
        _ => Some(Class::NonIp),
    }
}

#[inline(always)]
fn ipv4<F: Frame>(frame: &F, packet: &mut Packet) -> Option<Class> {
    let header: Ipv4 = frame.read(ETHERNET_LENGTH).ok()?;
    if !header.has_no_options() {
        return None;
    }
    packet.family = Family::V4 as u8;
    match ip::ipv4_behind(frame, &header, ip::IPV4_LENGTH, ETHERNET_LENGTH, packet) {
        Ok(transport) => transport_class(frame, &transport, packet),
        Err(class) => Some(class),
    }
}

#[inline(always)]
fn ipv6<F: Frame>(frame: &F, packet: &mut Packet) -> Option<Class> {
    let header: Ipv6 = frame.read(ETHERNET_LENGTH).ok()?;
    if !header.is_version_6() || !matches!(header.next_header, TCP | UDP) {
        return None;
    }
    packet.family = Family::V6 as u8;
    let transport = ip::ipv6_without_extensions(frame, &header, ETHERNET_LENGTH, packet);
    transport_class(frame, &transport, packet)
}

/// `None` where a header is cut, or is neither TCP nor UDP: that is for the general way.
#[inline(always)]
fn transport_class<F: Frame>(frame: &F, transport: &ip::Transport, packet: &mut Packet) -> Option<Class> {
    let class = match transport.protocol {
        TCP => l4::tcp(frame, transport, packet),
        UDP => l4::udp(frame, transport, packet),
        _ => return None,
    };
    let (Ok(class) | Err(class)) = class;
    if matches!(class, Class::Truncated) { None } else { Some(class) }
}
