//! What a frame says: [`parse`] turns bytes into a [`Packet`]. Pure, and generic over where the
//! bytes come from: the kernel's frames and a capture's go through this one code.
//!
//! ```text
//! frame ─▶ link  headers, shims ─▶ ip  header, extensions ─▶ l4  TCP, UDP, what ICMP quotes
//! ```
//!
//! Each stage returns where the next one begins, or the class of a packet that ends there. In the
//! kernel all of it becomes one function without calls or panics, and the verifier has to see that:
//! everything is inlined, every loop has a named bound, every offset stays below [`OFFSET_LIMIT`].

#[cfg(any(test, feature = "testing"))]
pub mod build;
mod checksum;
mod ip;
mod l4;
mod link;
mod plain;
#[cfg(not(target_arch = "bpf"))]
pub mod tunnel;

pub use checksum::{Sealed, has_wrong_checksum, sealed, sum_by, sum_of_part};
#[cfg(not(target_arch = "bpf"))]
pub use l4::headers_end;
pub use link::ethertype_of;
pub use plain::{PacketSink, ParseOnly, parse_plain4, parse_plain6, read_bare4, read_bare6};
use zerocopy::FromBytes;

use crate::flow::Address;

/// The bytes asked for are declared by the headers before them, but are not in the frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Truncated;

/// Where a packet's bytes come from.
pub trait Frame {
    /// The `size_of::<T>()` bytes from `offset`, as they lie on the wire. The offset is below
    /// [`OFFSET_LIMIT`]; an implementation may refuse what is not, for the verifier's sake.
    fn read<T: FromBytes>(&self, offset: u32) -> Result<T, Truncated>;
    /// Bytes of the frame on the wire, of which fewer may be readable.
    fn length(&self) -> u32;
}

/// Above every offset that [`parse`] reads at, whatever the headers say: the longest link header,
/// an IPv6 header with the longest chain, and an ICMP error's quote with the longest chain.
pub const OFFSET_LIMIT: u32 = 0x7fff;

const _: () = assert!(
    link::LONGEST + ip::IPV6_LONGEST + l4::ICMP_LENGTH + ip::IPV6_QUOTED_LONGEST < OFFSET_LIMIT
        && ip::IPV4_LONGEST < ip::IPV6_LONGEST
        && ip::IPV4_LONGEST < ip::IPV6_QUOTED_LONGEST,
    "every offset is below the limit"
);

/// A frame in memory: a capture's, or a test's.
#[derive(Clone, Copy, Debug)]
pub struct Slice<'a> {
    /// What was captured of it.
    pub bytes: &'a [u8],
    /// Bytes it had on the wire.
    pub length: u32,
}

impl<'a> Slice<'a> {
    /// A frame of which nothing was cut.
    #[must_use]
    pub fn whole(bytes: &'a [u8]) -> Self {
        Self { bytes, length: u32::try_from(bytes.len()).unwrap_or(u32::MAX) }
    }
}

impl Frame for Slice<'_> {
    #[inline(always)]
    fn read<T: FromBytes>(&self, offset: u32) -> Result<T, Truncated> {
        let rest = self.bytes.get(offset as usize..).ok_or(Truncated)?;
        T::read_from_prefix(rest).map(|(value, _)| value).map_err(|_| Truncated)
    }

    #[inline(always)]
    fn length(&self) -> u32 {
        self.length
    }
}

/// Reads a frame that begins with `link`. All of the packet is filled but its hook point.
#[inline(always)]
#[must_use]
pub fn parse<F: Frame>(frame: &F, link: Link) -> Packet {
    let mut packet = Packet::default();
    parse_into(frame, link, &mut packet);
    packet
}

/// [`parse`] into a packet that lies elsewhere, all of which it overwrites: BPF's stack is small.
#[inline(always)]
pub fn parse_into<F: Frame>(frame: &F, link: Link, packet: &mut Packet) -> Class {
    packet.clear();
    packet.segments = 1;
    let (Ok(class) | Err(class)) = walk(frame, link, packet);
    packet.class = class as u8;
    class
}

/// `Err` is the class of a packet whose headers cannot be followed to the end.
#[inline(always)]
fn walk<F: Frame>(frame: &F, link: Link, packet: &mut Packet) -> Result<Class, Class> {
    let network = link::read(frame, link, packet)?;
    packet.family = network.family as u8;
    let transport = ip::read(frame, network, packet)?;
    l4::read(frame, &transport, packet)
}

listed! {
    /// What a frame begins with.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum Link {
        /// An Ethernet header. Behind it, as wherever an EtherType says what follows, there may be up to
        /// eight shims: VLAN tags, MPLS labels, PPPoE sessions, SNAP and Cisco MetaData.
        Ethernet,
        /// An IP header at once.
        Ip,
        /// Linux "cooked" capture, version 1 (LINKTYPE_LINUX_SLL, 113).
        LinuxSll,
        /// Linux "cooked" capture, version 2 (LINKTYPE_LINUX_SLL2, 276).
        LinuxSll2,
        /// BSD loopback: an address family in the byte order of the machine that captured (LINKTYPE_NULL, 0).
        BsdNull,
        /// The same in network byte order (LINKTYPE_LOOP, 108).
        BsdLoop,
        /// PPP, with or without the address and the control byte (LINKTYPE_PPP, 9); or what they tell to be
        /// Cisco's HDLC (LINKTYPE_PPP_HDLC, 50).
        Ppp,
        /// Cisco's HDLC (LINKTYPE_C_HDLC, 104).
        CiscoHdlc,
        /// What Linux's netfilter logs: attributes, one of which is the packet (LINKTYPE_NFLOG, 239).
        Nflog,
    }
}

listed! {
    /// Every packet is in exactly one class, the first whose rule fits.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    #[repr(u8)]
    pub enum Class {
        /// TCP with SYN and without ACK.
        Syn = 0,
        /// TCP with SYN and ACK.
        SynAck,
        /// TCP with ACK and none of RST, SYN, FIN.
        Ack,
        /// TCP with FIN and neither RST nor SYN.
        Fin,
        /// TCP with RST, whatever else is set.
        Rst,
        /// TCP with none of RST, SYN, FIN, ACK.
        TcpOther,
        /// UDP.
        Udp,
        /// ICMP over IPv4, ICMPv6 over IPv6.
        Icmp,
        /// Another protocol over IP, or more extension headers than are walked.
        IpOther,
        /// A fragment that is not the first, or the first of TCP or UDP without its whole header.
        Fragment,
        /// Neither IPv4 nor IPv6.
        NonIp,
        /// A header's fixed part is declared, but not there.
        Truncated,
        /// A header runs past what the IP header declares, or a length in it cannot be.
        Malformed,
    }
}

impl From<Truncated> for Class {
    #[inline(always)]
    fn from(_: Truncated) -> Self {
        Self::Truncated
    }
}

impl Class {
    /// The name in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Syn => "syn",
            Self::SynAck => "syn_ack",
            Self::Ack => "ack",
            Self::Fin => "fin",
            Self::Rst => "rst",
            Self::TcpOther => "tcp_other",
            Self::Udp => "udp",
            Self::Icmp => "icmp",
            Self::IpOther => "ip_other",
            Self::Fragment => "fragment",
            Self::NonIp => "non_ip",
            Self::Truncated => "truncated",
            Self::Malformed => "malformed",
        }
    }
}

/// TCP header flags (RFC 9293 §3.1). Masked, never compared: ECN sets two more.
pub mod flag {
    /// No more data from the sender.
    pub const FIN: u8 = 0x01;
    /// Synchronise sequence numbers.
    pub const SYN: u8 = 0x02;
    /// Reset the connection.
    pub const RST: u8 = 0x04;
    /// The acknowledgement field counts.
    pub const ACK: u8 = 0x10;
}

/// What a packet is about beside its own headers.
pub mod quote {
    /// Nothing: addresses and ports are the packet's own.
    pub const NONE: u8 = 0;
    /// An ICMP error: addresses, ports and `seq` are those of the packet it quotes.
    pub const UNREACHABLE: u8 = 1;
}

/// What else is known of a packet.
pub mod mark {
    /// It has no time of its own, as in some captures.
    pub const UNTIMED: u8 = 1;
    /// Its frame was sent to a group: the group bit of the Ethernet address (IEEE 802.3 §3.2.3).
    pub const TO_GROUP: u8 = 2;
    /// Not all hooks of its interface are on: no attempt begins with it.
    pub const GATED: u8 = 4;
}

/// What is counted of a packet beside its class.
pub mod note {
    /// Nothing.
    pub const NONE: u8 = 0;
    /// More IPv6 extension headers than are walked.
    pub const EXTENSION_CHAIN: u8 = 1;
    /// A first fragment of TCP or UDP without the whole header.
    pub const SPLIT_HEADER: u8 = 2;
    /// A TCP segment whose checksum is wrong: it is in its class, and proves nothing.
    pub const BAD_CHECKSUM: u8 = 3;
}

/// IANA's number of TCP.
pub const TCP: u8 = 6;
/// IANA's number of UDP.
pub const UDP: u8 = 17;

/// What [`parse`] found. Flat, without enums: it crosses between BPF functions by pointer.
///
/// Aligned so that BPF clears and copies it by double words: by words it calls memset, byte by byte.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C, align(8))]
pub struct Packet {
    /// Source address.
    pub source: Address,
    /// Destination address.
    pub destination: Address,
    /// Of an ICMP error that quotes a packet: who sent it. Else zeros.
    pub reporter: Address,
    /// Source port.
    pub source_port: u16,
    /// Destination port.
    pub destination_port: u16,
    /// TCP sequence number (also of a quoted TCP header).
    pub seq: u32,
    /// TCP acknowledgement number.
    pub ack: u32,
    /// Bytes of TCP payload, from the IP header's length.
    pub payload: u32,
    /// Bytes of the IP packet, from the IP header (0 there: what the frame holds).
    pub ip_length: u32,
    /// Bytes of IP and L4 headers: what each further segment of a super-packet repeats. 0 when it
    /// is neither TCP nor UDP.
    pub header_length: u16,
    /// Packets that this frame stands for: 1, or the segments of a super-packet.
    pub segments: u16,
    /// [`Class`] as a number.
    pub class: u8,
    /// TCP flags.
    pub flags: u8,
    /// 0, or [`Family`](crate::flow::Family) as a number: of the packet itself.
    pub family: u8,
    /// [`TCP`], [`UDP`] (also of a quoted packet), or 0 when it belongs to no flow.
    pub protocol: u8,
    /// One of [`quote`].
    pub quote: u8,
    /// The hook point that saw it: [`point`](crate::interface::point).
    pub point: u8,
    /// One of [`note`].
    pub note: u8,
    /// Bits of [`mark`].
    pub marks: u8,
}

impl Packet {
    /// Of a frame only what its bytes do not tell: where it was seen, and for how many packets it stands.
    #[inline(always)]
    #[must_use]
    pub fn unread(point: u8, segments: u16) -> Self {
        Self { point, segments, ..Self::default() }
    }

    /// Makes all of it zeros.
    #[inline(always)]
    pub fn clear(&mut self) {
        #[cfg(target_arch = "bpf")]
        {
            // By double words. Left to itself the compiler leaves out what is written next, and clears the odd
            // rest byte by byte: five instructions each.
            let words: *mut [u64; size_of::<Self>() / 8] = core::ptr::from_mut(self).cast();
            let mut i = 0;
            while i < size_of::<Self>() / 8 {
                // SAFETY: within the packet, which is aligned to eight bytes and valid as zeros.
                unsafe { (&raw mut (*words)[i]).write_volatile(0) };
                i += 1;
            }
        }
        #[cfg(not(target_arch = "bpf"))]
        {
            *self = Self::default();
        }
    }

    /// Is it a TCP segment, whose checksum says whether it is whole?
    #[inline(always)]
    #[must_use]
    pub const fn has_checksum(&self) -> bool {
        self.protocol == TCP && self.quote == quote::NONE
    }

    /// Packets of class ack it stands for: of a super-packet that ends in FIN all but the last.
    #[inline(always)]
    #[must_use]
    pub const fn acks(&self) -> u32 {
        if self.quote != quote::NONE {
            0
        } else if self.class == Class::Ack as u8 {
            self.segments as u32
        } else if self.class == Class::Fin as u8 && self.flags & flag::ACK != 0 {
            self.segments.saturating_sub(1) as u32
        } else {
            0
        }
    }

    /// Counts the segments of a super-packet by the size of their data, where the kernel does not say their
    /// number: it does not for what a virtio header brings in (include/linux/virtio_net.h).
    #[inline(always)]
    pub const fn divide(&mut self, segment_size: u32) {
        if self.header_length != 0 && segment_size != 0 {
            let data = self.ip_length.saturating_sub(self.header_length as u32);
            let segments = data.div_ceil(segment_size);
            self.segments = if segments == 0 { 1 } else { (segments & 0xffff) as u16 };
        }
    }

    /// Bytes of IP packets it stands for: each further segment of a super-packet repeats the headers.
    #[inline(always)]
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.ip_length as u64 + self.header_length as u64 * self.segments.saturating_sub(1) as u64
    }
}

/// The size of a header's fixed part.
#[expect(clippy::cast_possible_truncation, reason = "headers are small")]
const fn fixed_part<T>() -> u32 {
    size_of::<T>() as u32
}

#[cfg(test)]
mod tests;
