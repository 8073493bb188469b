//! Fuzzes `wire::parse` with any bytes behind any link.

use std::cell::Cell;

use handshake_common::flow::Family;
use handshake_common::wire::tunnel::innermost;
use handshake_common::wire::{
    self, Class, Frame, Link, OFFSET_LIMIT, Packet, Slice, TCP, Truncated, UDP, mark, note, quote,
};
use zerocopy::FromBytes;

use crate::flags::{class_of, is_tcp};

/// More bytes than any header that is read in one piece.
const LONGEST_READ: usize = 64;

/// Parses the bytes as a frame of each link: whole, cut, and endless.
pub fn parse(data: &[u8]) {
    for link in Link::ALL {
        let whole = Watched::over(data, wire_length(data));
        let packet = wire::parse(&whole, link);
        check(&packet);
        cut(data, link, &packet, whole.reached.get());
        endless(data, link);
        tunnel(data, link);
    }
    shimmed(data);
}

/// What is inside a tunnel is IP, within the frame, and the same as outside.
fn tunnel(data: &[u8], link: Link) {
    let outer = Slice { bytes: data, length: wire_length(data) };
    let Some(inner) = innermost(outer, link) else { return };
    check(&inner.packet);
    assert_ne!(wire::parse(&outer, link).class, Class::Truncated as u8, "{link:?}");
    assert!(inner.packet.class != Class::NonIp as u8 && inner.packet.class != Class::Malformed as u8);
    assert_eq!(inner.packet, wire::parse(&inner.frame, inner.link), "{link:?}");
    let inside = data.as_ptr_range().contains(&inner.frame.bytes.as_ptr()) || inner.frame.bytes.is_empty();
    assert!(inside && inner.frame.bytes.len() < data.len(), "{link:?}");
}

/// The bytes as an IP packet behind shims that its first bytes choose: they change nothing.
fn shimmed(data: &[u8]) {
    let Some((choice, ip)) = data.split_at_checked(4) else { return };
    let ethertype = match ip.first().map(|byte| byte >> 4) {
        Some(4) => [0x08, 0x00],
        Some(6) => [0x86, 0xdd],
        Some(_) | None => return,
    };
    let mut before = Vec::from([0; 12]);
    for byte in &choice[1..] {
        let shim: &[u8] = match byte % 8 {
            0 => &[0x81, 0, *byte, 5],
            1 => &[0x88, 0xa8, *byte, 5],
            2 => &[0x91, 0, *byte, 5],
            3 => &[0x92, 0, *byte, 5],
            4 => &[0x89, 0x09, 1, 1, 0, 1, 0, *byte],
            5 => &[*byte % 6, 0xff, 0xaa, 0xaa, 3, 0, 0, 0],
            6 => &[*byte % 6, 0xff, 0xaa, 0xaa, 3, 0, 0, 0xf8],
            _ => continue,
        };
        before.extend(shim);
    }
    let last: &[u8] = match choice[0] % 6 {
        0 => &[0x88, 0x47, 0, 1, 1, 64],
        1 => &[0x88, 0x48, 0, 1, 0, 64, 0, 2, 0xff, 64],
        2 => &[0x88, 0x64, 0x11, 0, 0, 7, 0, 0, 0x02, 0x81, 0, 1, 1, 64],
        3 => &[0x88, 0x64, 0x11, 0, 0, 7, 0, 0, 0, if ethertype[0] == 8 { 0x21 } else { 0x57 }],
        _ => &ethertype,
    };
    before.extend(last);
    let length = u32::try_from(before.len()).unwrap_or(u32::MAX);
    let there = wire_length(ip);
    let bare = wire::parse(&Watched::over(ip, there), Link::Ip);
    let bytes = [&before, ip].concat();
    let packet = wire::parse(&Watched::over(&bytes, there.saturating_add(length)), Link::Ethernet);
    // A frame of a byte is cut before its version can be read, which a bare packet's family depends on.
    if ip.len() >= 4 {
        assert_eq!(packet, bare, "behind {before:x?}");
    }
}

/// Bytes behind the last one read change nothing; without that byte the frame is truncated.
fn cut(data: &[u8], link: Link, whole: &Packet, reached: usize) {
    let length = wire_length(data);
    let enough = wire::parse(&Watched::over(&data[..reached], length), link);
    assert_eq!(enough, *whole, "{link:?}: bytes that were not read change the packet");
    // Two cuts: just before the last byte read, and up to 31 bytes earlier, at a place that the input's
    // length selects.
    for short in [reached.checked_sub(1), reached.checked_sub(1 + data.len() % 32)].into_iter().flatten() {
        let packet = wire::parse(&Watched::over(&data[..short], length), link);
        check(&packet);
        // An ICMP error with a cut quote quotes nothing.
        let quoteless = whole.class == Class::Icmp as u8 && packet.class == whole.class;
        let fits = packet.class == Class::Truncated as u8 || (quoteless && packet.quote == quote::NONE);
        assert!(fits, "{link:?}: {short} of {reached} bytes give {packet:?}");
    }
}

/// Repeats the bytes without end: reaches the longest chains and quotes, which no short input contains.
fn endless(data: &[u8], link: Link) {
    if data.is_empty() {
        return;
    }
    let length = if data.len().is_multiple_of(2) { 70_000 } else { u32::MAX };
    let packet = wire::parse(&Watched { endless: true, ..Watched::over(data, length) }, link);
    check(&packet);
    assert_ne!(packet.class, Class::Truncated as u8, "{link:?}: no byte is missing");
}

/// The frame's length on the wire: that of the data, or more for some inputs.
fn wire_length(data: &[u8]) -> u32 {
    let there = u32::try_from(data.len()).unwrap_or(u32::MAX);
    if data.len().is_multiple_of(3) { there.saturating_add(70_000) } else { there }
}

/// A frame that records how far it is read.
struct Watched<'a> {
    bytes: &'a [u8],
    length: u32,
    endless: bool,
    /// The offset behind the last byte read.
    reached: Cell<usize>,
}

impl<'a> Watched<'a> {
    fn over(bytes: &'a [u8], length: u32) -> Self {
        Self { bytes, length, endless: false, reached: Cell::new(0) }
    }

    fn repeated<T: FromBytes>(&self, offset: usize) -> Option<T> {
        let around = self.bytes.iter().copied().cycle().skip(offset % self.bytes.len());
        let mut piece = [0; LONGEST_READ];
        piece.iter_mut().zip(around).for_each(|(to, byte)| *to = byte);
        T::read_from_prefix(&piece).ok().map(|(value, _)| value)
    }
}

impl Frame for Watched<'_> {
    fn read<T: FromBytes>(&self, offset: u32) -> Result<T, Truncated> {
        assert!(offset < OFFSET_LIMIT, "a read at {offset}");
        let offset = offset as usize;
        if self.endless {
            return Ok(self.repeated(offset).expect("no header is read in pieces longer than this"));
        }
        let rest = self.bytes.get(offset..).ok_or(Truncated)?;
        let (value, _) = T::read_from_prefix(rest).map_err(|_| Truncated)?;
        self.reached.set(self.reached.get().max(offset + size_of::<T>()));
        Ok(value)
    }

    fn length(&self) -> u32 {
        self.length
    }
}

/// Checks what must hold for every packet from `wire::parse`, whatever its input.
pub(crate) fn check(packet: &Packet) {
    let class = Class::ALL[usize::from(packet.class)];
    assert_eq!((packet.segments, packet.point, packet.marks & !mark::TO_GROUP), (1, 0, 0), "{packet:?}");
    assert_eq!(packet.protocol, protocol_of(class, packet), "{packet:?}");
    if is_tcp(class) {
        assert_eq!(class, class_of(packet.flags), "{packet:?}");
    } else {
        assert_eq!((packet.flags, packet.ack, packet.payload), (0, 0, 0), "{packet:?}");
    }
    assert!(packet.quote == quote::NONE || class == Class::Icmp, "{packet:?}");
    let noted = match packet.note {
        note::NONE => true,
        note::EXTENSION_CHAIN => class == Class::IpOther && packet.family == Family::V6 as u8,
        note::SPLIT_HEADER => class == Class::Fragment,
        _ => false,
    };
    assert!(noted, "{packet:?}");
    let named = [Family::V4 as u8, Family::V6 as u8].contains(&packet.family);
    assert!(named || matches!(class, Class::NonIp | Class::Truncated | Class::Malformed), "{packet:?}");
    lengths(packet);
}

/// The protocol that a packet must have: its flow's, or in an ICMP error that of the quoted packet.
fn protocol_of(class: Class, packet: &Packet) -> u8 {
    if packet.quote != quote::NONE {
        assert!(matches!(packet.protocol, TCP | UDP), "{packet:?}");
        packet.protocol
    } else if is_tcp(class) {
        TCP
    } else if class == Class::Udp {
        UDP
    } else {
        0
    }
}

fn lengths(packet: &Packet) {
    if matches!(packet.protocol, TCP | UDP) && packet.quote == quote::NONE {
        let parts = u64::from(packet.header_length) + u64::from(packet.payload);
        assert!(parts <= u64::from(packet.ip_length), "{packet:?}");
    }
    assert!(packet.bytes() >= u64::from(packet.ip_length) && packet.acks() <= 1, "{packet:?}");
}
