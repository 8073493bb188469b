//! From the frame's first byte to the IP header: link headers and VLAN tags.

use zerocopy::FromBytes;
use zerocopy::byteorder::big_endian::{U16, U32};

use super::{Class, Frame, Link, Packet, fixed_part, mark};
use crate::flow::Family;

/// Where the IP header begins, and which one was announced.
#[derive(Clone, Copy)]
pub(super) struct NetworkLayer {
    /// What the link header says, or the version's nibble where there is none.
    pub(super) family: Family,
    /// Of the IP header.
    pub(super) offset: u32,
}

/// Tags that are walked: a service tag, a customer tag, and one more for who tunnels them.
const VLAN_TAGS: u32 = 3;

/// The longest way to an IP header.
pub(super) const LONGEST: u32 = SLL2_LENGTH + VLAN_TAGS * TAG_LENGTH;

pub(super) const ETHERNET_LENGTH: u32 = fixed_part::<Ethernet>();
const TAG_LENGTH: u32 = fixed_part::<VlanTag>();
const SLL_LENGTH: u32 = fixed_part::<Sll>();
const SLL2_LENGTH: u32 = fixed_part::<Sll2>();
const LOOPBACK_LENGTH: u32 = fixed_part::<U32>();

const AF_INET: u32 = 2;
/// That of NetBSD, OpenBSD and IRIX.
const AF_INET6: u32 = 24;

/// EtherTypes (IEEE 802's registry).
pub(super) mod ethertype {
    pub(in crate::wire) const IPV4: u16 = 0x0800;
    pub(in crate::wire) const IPV6: u16 = 0x86dd;
    /// 802.1Q, a customer's tag.
    pub(super) const VLAN: u16 = 0x8100;
    /// 802.1ad, a service provider's tag.
    pub(super) const SERVICE_VLAN: u16 = 0x88a8;
    /// What providers used before 802.1ad.
    pub(super) const OLD_SERVICE_VLAN: u16 = 0x9100;
}

#[derive(FromBytes)]
#[repr(C)]
pub(super) struct Ethernet {
    destination: [u8; 6],
    _source: [u8; 6],
    pub(super) ethertype: U16,
}

impl Ethernet {
    /// [`mark::TO_GROUP`], or nothing.
    #[inline(always)]
    pub(super) const fn marks(&self) -> u8 {
        (self.destination[0] & 1) * mark::TO_GROUP
    }
}

/// What follows the EtherType that announces a tag.
#[derive(FromBytes)]
#[repr(C, align(2))]
struct VlanTag {
    _control: U16,
    ethertype: U16,
}

/// LINKTYPE_LINUX_SLL: packet type, ARPHRD type, address length, address, protocol.
#[derive(FromBytes)]
#[repr(C, align(2))]
struct Sll {
    packet_type: U16,
    _device: [u8; 12],
    protocol: U16,
}

/// LINKTYPE_LINUX_SLL2: the protocol comes first.
#[derive(FromBytes)]
#[repr(C, align(4))]
struct Sll2 {
    protocol: U16,
    _reserved: U16,
    _interface: U32,
    _device: U16,
    packet_type: u8,
    _address: [u8; 9],
}

/// [`mark::TO_GROUP`] of a cooked capture's packet type: 1 is a broadcast, 2 a multicast (LINKTYPE_LINUX_SLL).
#[inline(always)]
const fn is_group(packet_type: u16) -> u8 {
    if matches!(packet_type, 1 | 2) { mark::TO_GROUP } else { 0 }
}

/// Steps over what comes before the IP header.
#[inline(always)]
pub(super) fn read<F: Frame>(frame: &F, link: Link, packet: &mut Packet) -> Result<NetworkLayer, Class> {
    match link {
        Link::Ethernet => {
            let header: Ethernet = frame.read(0)?;
            packet.marks = header.marks();
            tagged(frame, header.ethertype.get(), ETHERNET_LENGTH)
        }
        Link::LinuxSll => {
            let header: Sll = frame.read(0)?;
            packet.marks = is_group(header.packet_type.get());
            tagged(frame, header.protocol.get(), SLL_LENGTH)
        }
        Link::LinuxSll2 => {
            let header: Sll2 = frame.read(0)?;
            packet.marks = is_group(u16::from(header.packet_type));
            tagged(frame, header.protocol.get(), SLL2_LENGTH)
        }
        Link::Ip => bare(frame),
        Link::BsdNull => loopback(null_family(frame.read::<U32>(0)?.get())),
        Link::BsdLoop => loopback(frame.read::<U32>(0)?.get()),
    }
}

#[inline(always)]
fn tagged<F: Frame>(frame: &F, mut ethertype: u16, mut offset: u32) -> Result<NetworkLayer, Class> {
    for _ in 0..VLAN_TAGS {
        if !is_tag(ethertype) {
            break;
        }
        ethertype = frame.read::<VlanTag>(offset)?.ethertype.get();
        offset += TAG_LENGTH;
    }
    match ethertype {
        ethertype::IPV4 => Ok(NetworkLayer { family: Family::V4, offset }),
        ethertype::IPV6 => Ok(NetworkLayer { family: Family::V6, offset }),
        _ => Err(Class::NonIp),
    }
}

#[inline(always)]
pub(super) const fn is_tag(ethertype: u16) -> bool {
    matches!(ethertype, ethertype::VLAN | ethertype::SERVICE_VLAN | ethertype::OLD_SERVICE_VLAN)
}

/// The link promises IP, so a version that is neither is a wrong version.
///
/// Two bytes are read for one: the bounds check of a single byte becomes `data >= end` in 32 bits,
/// which proves nothing to the verifier.
#[inline(always)]
fn bare<F: Frame>(frame: &F) -> Result<NetworkLayer, Class> {
    match frame.read::<U16>(0)?.get() >> 12 {
        4 => Ok(NetworkLayer { family: Family::V4, offset: 0 }),
        6 => Ok(NetworkLayer { family: Family::V6, offset: 0 }),
        _ => Err(Class::Malformed),
    }
}

/// The BSDs agree on AF_INET and not on AF_INET6: 24 is NetBSD's and OpenBSD's, 28 FreeBSD's, 30 Darwin's.
#[inline(always)]
const fn loopback(family: u32) -> Result<NetworkLayer, Class> {
    match family {
        AF_INET => Ok(NetworkLayer { family: Family::V4, offset: LOOPBACK_LENGTH }),
        AF_INET6 | 28 | 30 => Ok(NetworkLayer { family: Family::V6, offset: LOOPBACK_LENGTH }),
        _ => Err(Class::NonIp),
    }
}

/// The family that the header of a LINKTYPE_NULL frame says, read in network byte order.
///
/// Some writers put another header there (Wireshark's packet-null.c): PPP's (RFC 1662), Cisco's HDLC, an
/// EtherType behind two zero bytes (libpcap on Linux before 0.8), or a family of 16 bits (IRIX). Families are
/// small, so of the others one with high bits was written by a machine of the other byte order.
#[inline(always)]
const fn null_family(header: u32) -> u32 {
    match header {
        0x0000_0800 | 0xff03_0021 | 0x0f00_0800 => AF_INET,
        0x0000_86dd | 0xff03_0057 | 0x0f00_86dd => AF_INET6,
        ..0x1_0000 => header,
        0x1_0000..0x100_0000 if header & 0xffff == 0 => header >> 16,
        0x1_0000.. => header.swap_bytes(),
    }
}
