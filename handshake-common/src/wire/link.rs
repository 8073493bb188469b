//! From the frame's first byte to the IP header: link headers, and the shims between them and IP.

use zerocopy::FromBytes;
use zerocopy::byteorder::big_endian::{U16, U32};

use super::{Class, Frame, Link, Packet, Truncated, fixed_part, mark};
use crate::flow::Family;

/// Where the IP header begins, and which one was announced.
#[derive(Clone, Copy)]
pub(super) struct NetworkLayer {
    /// What the link header says, or the version's nibble where there is none.
    pub(super) family: Family,
    /// Of the IP header.
    pub(super) offset: u32,
}

/// Shims that are walked, of whatever kinds: four tags, a PPPoE session and three labels, say.
const SHIMS: u32 = 8;

/// The attributes of an NFLOG packet that are walked; nfnetlink_log writes at most 20 before the payload
/// (`__build_packet_message` in net/netfilter/nfnetlink_log.c).
const ATTRIBUTES: u32 = 24;
/// Bytes that they may take: a prefix is at most 128 bytes long, a copied link header 255.
const ATTRIBUTES_LONGEST: u32 = 4096;

/// The longest way to an IP header.
pub(super) const LONGEST: u32 = NFLOG_LENGTH + ATTRIBUTES_LONGEST + SHIMS * SHIM_LONGEST;

pub(super) const ETHERNET_LENGTH: u32 = fixed_part::<Ethernet>();
/// A shim is one or two words long.
const WORD: u32 = fixed_part::<U32>();
const SHIM_LONGEST: u32 = 2 * WORD;
const SLL_LENGTH: u32 = fixed_part::<Sll>();
const SLL2_LENGTH: u32 = fixed_part::<Sll2>();
const LOOPBACK_LENGTH: u32 = fixed_part::<U32>();
const CISCO_HDLC_LENGTH: u32 = fixed_part::<CiscoHdlc>();
const NFLOG_LENGTH: u32 = fixed_part::<Nflog>();
const ATTRIBUTE_LENGTH: u32 = fixed_part::<Attribute>();

const _: () = assert!(SLL2_LENGTH < ATTRIBUTES_LONGEST, "the longest way is the longest");

/// Both SAPs of an LLC header that SNAP's follows.
const SNAP_SAPS: u16 = 0xaaaa;

const AF_INET: u32 = 2;
/// That of NetBSD, OpenBSD and IRIX.
const AF_INET6: u32 = 24;
/// That of Linux.
const LINUX_AF_INET6: u8 = 10;

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
    /// What some of them use for a second one.
    pub(super) const OTHER_SERVICE_VLAN: u16 = 0x9200;
    /// RFC 3032 §5, and RFC 5332 §3 for labels that the next hop assigns.
    pub(super) const MPLS: u16 = 0x8847;
    pub(super) const MPLS_UPSTREAM: u16 = 0x8848;
    /// A session's packets (RFC 2516 §4).
    pub(super) const PPPOE_SESSION: u16 = 0x8864;
    /// Cisco MetaData, in which switches carry a security group's tag.
    pub(super) const CISCO_METADATA: u16 = 0x8909;
    /// Below it the field is the length of an LLC frame (IEEE 802.3 §3.2.6), or in a cooked capture a number
    /// that stands for one (4, LINUX_SLL_P_802_2).
    pub(super) const LEAST: u16 = 0x0600;
}

/// PPP's numbers of protocols (IANA).
mod ppp_protocol {
    pub(super) const IPV4: u16 = 0x0021;
    pub(super) const IPV6: u16 = 0x0057;
    pub(super) const MPLS: u16 = 0x0281;
}

/// The header of a few bytes between a link header and IP that an EtherType announces: 1 for its kind, and 0
/// for the others. Numbers, because what depends on the kind is worked out without branches: the verifier
/// would follow every sequence of kinds.
#[derive(Clone, Copy)]
pub(super) struct Shim {
    vlan_tag: u32,
    /// One label of a stack.
    label: u32,
    pppoe_session: u32,
    metadata: u32,
    /// An LLC header, which SNAP's may follow.
    llc: u32,
}

impl Shim {
    /// All that is entered.
    #[inline(always)]
    pub(super) const fn announced_by(ethertype: u16) -> Self {
        let word = ethertype as u32;
        Self {
            vlan_tag: is_equal(word, ethertype::VLAN)
                | is_equal(word, ethertype::SERVICE_VLAN)
                | is_equal(word, ethertype::OLD_SERVICE_VLAN)
                | is_equal(word, ethertype::OTHER_SERVICE_VLAN),
            label: is_equal(word, ethertype::MPLS) | is_equal(word, ethertype::MPLS_UPSTREAM),
            pppoe_session: is_equal(word, ethertype::PPPOE_SESSION),
            metadata: is_equal(word, ethertype::CISCO_METADATA),
            llc: word.wrapping_sub(ethertype::LEAST as u32) >> 31,
        }
    }

    /// Is there one?
    #[inline(always)]
    pub(super) const fn is_any(&self) -> bool {
        self.vlan_tag | self.label | self.pppoe_session | self.metadata | self.llc != 0
    }
}

/// 1 when they are equal, else 0. `a` is below 2³¹.
#[inline(always)]
const fn is_equal(a: u32, b: u16) -> u32 {
    (a ^ b as u32).wrapping_sub(1) >> 31
}

/// `value` where `which` is 1, and 0 where it is 0.
#[inline(always)]
const fn chosen(which: u32, value: u32) -> u32 {
    which.wrapping_neg() & value
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

/// LINKTYPE_C_HDLC: an address, a control byte, an EtherType.
#[derive(FromBytes)]
#[repr(C, align(2))]
struct CiscoHdlc {
    _address_and_control: U16,
    ethertype: U16,
}

/// LINKTYPE_NFLOG: address family of Linux, version, resource.
#[derive(FromBytes)]
#[repr(C, align(2))]
struct Nflog {
    family: u8,
    version: u8,
    _resource: U16,
}

/// What follows it: a length, itself included, and a type, in the byte order of the machine that captured.
#[derive(FromBytes)]
#[repr(C, align(2))]
struct Attribute {
    length: [u8; 2],
    kind: [u8; 2],
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

/// [`mark::TO_GROUP`] of a cooked capture's packet type: 1 is a broadcast, 2 a multicast
/// (LINKTYPE_LINUX_SLL).
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
            announced(frame, header.ethertype.get(), ETHERNET_LENGTH)
        }
        Link::LinuxSll => {
            let header: Sll = frame.read(0)?;
            packet.marks = is_group(header.packet_type.get());
            announced(frame, header.protocol.get(), SLL_LENGTH)
        }
        Link::LinuxSll2 => {
            let header: Sll2 = frame.read(0)?;
            packet.marks = is_group(u16::from(header.packet_type));
            announced(frame, header.protocol.get(), SLL2_LENGTH)
        }
        Link::Ip => bare(frame),
        Link::BsdNull => loopback(null_family(frame.read::<U32>(0)?.get())),
        Link::BsdLoop => loopback(frame.read::<U32>(0)?.get()),
        Link::Ppp => ppp_framed(frame),
        Link::CiscoHdlc => cisco_hdlc(frame),
        Link::Nflog => nflog(frame),
    }
}

/// The EtherType of what is behind the shims of a frame, or that of the shim whose content is not entered; a
/// number below 0x600 is that of an LLC frame. `None` where the link has none, or the frame is too short.
pub fn ethertype_of<F: Frame>(frame: &F, link: Link) -> Option<u16> {
    let (ethertype, offset) = match link {
        Link::Ethernet => (frame.read::<Ethernet>(0).ok()?.ethertype, ETHERNET_LENGTH),
        Link::LinuxSll => (frame.read::<Sll>(0).ok()?.protocol, SLL_LENGTH),
        Link::LinuxSll2 => (frame.read::<Sll2>(0).ok()?.protocol, SLL2_LENGTH),
        Link::CiscoHdlc => (frame.read::<CiscoHdlc>(0).ok()?.ethertype, CISCO_HDLC_LENGTH),
        Link::Ip | Link::BsdNull | Link::BsdLoop | Link::Ppp | Link::Nflog => return None,
    };
    behind_shims(frame, ethertype.get(), offset).ok().map(|(ethertype, _)| ethertype)
}

/// What an EtherType announces, behind any shims.
#[inline(always)]
fn announced<F: Frame>(frame: &F, ethertype: u16, offset: u32) -> Result<NetworkLayer, Class> {
    let (ethertype, offset) = behind_shims(frame, ethertype, offset)?;
    match ethertype {
        ethertype::IPV4 => Ok(NetworkLayer { family: Family::V4, offset }),
        ethertype::IPV6 => Ok(NetworkLayer { family: Family::V6, offset }),
        _ => Err(Class::NonIp),
    }
}

/// Walks shims of any kinds: the EtherType that the last one gives, and where that begins. It is the shim's
/// own where its content is not known.
#[inline(always)]
fn behind_shims<F: Frame>(frame: &F, ethertype: u16, mut offset: u32) -> Result<(u16, u32), Truncated> {
    let mut ethertype = ethertype;
    for _ in 0..SHIMS {
        let shim = Shim::announced_by(ethertype);
        if !shim.is_any() {
            break;
        }
        let first = frame.read::<U32>(offset)?.get();
        // What only SNAP has: an LLC frame of other SAPs may be shorter than its header.
        let snap = shim.llc & is_equal(first >> 16, SNAP_SAPS);
        let rest = shim.label | shim.pppoe_session | shim.metadata | snap;
        let second = frame.read::<U32>(offset + rest * WORD)?.get();
        let next = shim.content(first, second, snap);
        if next == 0 {
            break;
        }
        ethertype = low_half_word(next);
        offset += WORD + (rest ^ shim.label) * WORD;
    }
    Ok((ethertype, offset))
}

impl Shim {
    /// The EtherType of what is in a shim of which these are the first two words; 0 where it is not known.
    ///
    /// - A VLAN tag ends in it.
    /// - Behind an MPLS label there is another one, or if it is the bottom of its stack (RFC 3032 §2.1),
    ///   nothing but the version says that it is IP.
    /// - PPPoE has version 1, type 1, code 0 (RFC 2516 §4), a session, a length, and PPP's protocol.
    /// - Cisco MetaData has version 1, a length of 1, one option, a security group's tag, and the EtherType.
    /// - LLC with SNAP (RFC 1042) has two SAPs, a control field, the organization, which is that of RFC 1042
    ///   or that of bridge tunnels (IEEE 802.1H), and the EtherType.
    #[inline(always)]
    const fn content(self, first: u32, second: u32, snap: u32) -> u32 {
        let (upper, lower, last) = (first >> 16, first & 0xffff, second & 0xffff);
        let bottom = first >> 8 & 1;
        let version = second >> 28;
        let ip = chosen(is_equal(version, 4), ethertype::IPV4 as u32)
            | chosen(is_equal(version, 6), ethertype::IPV6 as u32);
        let label = chosen(bottom, ip) | chosen(bottom ^ 1, ethertype::MPLS as u32);
        let organization = second >> 16;
        let is_ethertype =
            is_equal(lower, 0x0300) & (is_equal(organization, 0) | is_equal(organization, 0xf8));
        chosen(self.vlan_tag, lower)
            | chosen(self.label, label)
            | chosen(self.pppoe_session & is_equal(upper, 0x1100), ppp(last))
            | chosen(self.metadata & is_equal(upper, 0x0101), last)
            | chosen(snap & is_ethertype, last)
    }
}

/// The EtherType that stands for a protocol of PPP; 0: for none.
#[inline(always)]
const fn ppp(protocol: u32) -> u32 {
    chosen(is_equal(protocol, ppp_protocol::IPV4), ethertype::IPV4 as u32)
        | chosen(is_equal(protocol, ppp_protocol::IPV6), ethertype::IPV6 as u32)
        | chosen(is_equal(protocol, ppp_protocol::MPLS), ethertype::MPLS as u32)
}

/// PPP with the address and the control byte of HDLC, or without (RFC 1662 §3.2); LINKTYPE_PPP_HDLC is
/// Cisco's HDLC too, which other addresses tell.
#[inline(always)]
fn ppp_framed<F: Frame>(frame: &F) -> Result<NetworkLayer, Class> {
    const ALL_STATIONS: u16 = 0xff03;
    const ADDRESS_AND_CONTROL: u32 = 2;
    let first = frame.read::<U16>(0)?.get();
    let offset = match first {
        ALL_STATIONS => ADDRESS_AND_CONTROL,
        0x0f00 | 0x8f00 => return cisco_hdlc(frame),
        _ => 0,
    };
    // An odd first byte is all of the protocol's number (RFC 1661 §6.5).
    let field = u32::from(frame.read::<U16>(offset)?.get());
    let (protocol, length) = if field & 0x0100 != 0 { (field >> 8, 1) } else { (field, 2) };
    match ppp(protocol) {
        0 => Err(Class::NonIp),
        ethertype => announced(frame, low_half_word(ethertype), offset + length),
    }
}

#[inline(always)]
fn cisco_hdlc<F: Frame>(frame: &F) -> Result<NetworkLayer, Class> {
    let header: CiscoHdlc = frame.read(0)?;
    announced(frame, header.ethertype.get(), CISCO_HDLC_LENGTH)
}

/// The packet is an attribute behind others. A type is below 256, so the zero byte of the two is the upper
/// one and says the byte order.
#[inline(always)]
fn nflog<F: Frame>(frame: &F) -> Result<NetworkLayer, Class> {
    /// NFULA_PAYLOAD (include/uapi/linux/netfilter/nfnetlink_log.h).
    const PAYLOAD: u16 = 9;
    let header: Nflog = frame.read(0)?;
    let family = match (header.version, header.family) {
        (0, 2) => Family::V4,
        (0, LINUX_AF_INET6) => Family::V6,
        _ => return Err(Class::NonIp),
    };
    let mut offset = NFLOG_LENGTH;
    for _ in 0..ATTRIBUTES {
        let attribute: Attribute = frame.read(offset)?;
        let (length, kind) = match attribute.kind {
            [0, low] => (u16::from_be_bytes(attribute.length), u16::from(low)),
            [low, 0] => (u16::from_le_bytes(attribute.length), u16::from(low)),
            _ => return Err(Class::Malformed),
        };
        let length = u32::from(length);
        if length < ATTRIBUTE_LENGTH {
            return Err(Class::Malformed);
        }
        if kind == PAYLOAD {
            return Ok(NetworkLayer { family, offset: offset + ATTRIBUTE_LENGTH });
        }
        offset += length.next_multiple_of(4);
        if offset > ATTRIBUTES_LONGEST {
            return Err(Class::Malformed);
        }
    }
    Err(Class::Malformed)
}

/// The link promises IP, so a version that is neither is a wrong version.
#[inline(always)]
fn bare<F: Frame>(frame: &F) -> Result<NetworkLayer, Class> {
    match version(frame, 0)? {
        4 => Ok(NetworkLayer { family: Family::V4, offset: 0 }),
        6 => Ok(NetworkLayer { family: Family::V6, offset: 0 }),
        _ => Err(Class::Malformed),
    }
}

/// The first four bits of an IP header.
///
/// Two bytes are read for one: the bounds check of a single byte becomes `data >= end` in 32 bits,
/// which proves nothing to the verifier.
#[inline(always)]
fn version<F: Frame>(frame: &F, offset: u32) -> Result<u16, Truncated> {
    Ok(frame.read::<U16>(offset)?.get() >> 12)
}

#[expect(clippy::cast_possible_truncation, reason = "what is asked for")]
#[inline(always)]
const fn low_half_word(word: u32) -> u16 {
    word as u16
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
