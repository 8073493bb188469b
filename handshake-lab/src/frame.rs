//! Builds frames, and sends and counts them through a packet socket.

use std::fmt;
use std::mem::size_of;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::ops::Range;
use std::os::unix::net::UnixDatagram;

use anyhow::{Context, Result, bail, ensure};
use rustix::net::netdevice::name_to_index;
use socket2::{Domain, Protocol, SockAddr, SockAddrStorage, Socket, Type};

use crate::namespace::Namespace;

/// An Ethernet address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mac(pub [u8; 6]);

impl fmt::Display for Mac {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, f] = self.0;
        write!(formatter, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
    }
}

/// The TCP flags as bits (RFC 9293 §3.1).
pub mod flag {
    /// The sender has no more data.
    pub const FIN: u8 = 0x01;
    /// Synchronize sequence numbers.
    pub const SYN: u8 = 0x02;
    /// Reset the connection.
    pub const RST: u8 = 0x04;
    /// The acknowledgement number is valid.
    pub const ACK: u8 = 0x10;
}

/// A TCP segment to send. Both ends must be of one address family.
#[derive(Clone, Copy, Debug)]
pub struct BuiltSegment<'a> {
    /// The sender.
    pub source: SocketAddr,
    /// The receiver.
    pub destination: SocketAddr,
    /// The sequence number.
    pub seq: u32,
    /// The acknowledgement number.
    pub ack: u32,
    /// A combination of [`flag`] bits.
    pub flags: u8,
    /// The data after the header.
    pub payload: &'a [u8],
}

const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
/// Bytes of an Ethernet header, and of an IPv4 header without options.
const ETHERNET: usize = 14;
const IPV4: usize = 20;
const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_IPV6: u16 = 0x86dd;

/// The Ethernet frame of a segment, with correct checksums; `macs` are source and destination.
///
/// # Errors
/// The ends are of different families, or the payload does not fit an IP packet.
pub fn tcp_frame(macs: [Mac; 2], segment: &BuiltSegment<'_>) -> Result<Vec<u8>> {
    tcp_frame_with_options(macs, segment, &[])
}

/// Like [`tcp_frame`], with TCP options: whole words, at most ten (RFC 9293 §3.1).
pub(crate) fn tcp_frame_with_options(
    macs: [Mac; 2],
    segment: &BuiltSegment<'_>,
    options: &[u8],
) -> Result<Vec<u8>> {
    ensure!(options.len() <= 40 && options.len().is_multiple_of(4), "{} bytes of options", options.len());
    let (from, to) = (segment.source.ip(), segment.destination.ip());
    let mut l4 = tcp_header(segment, options);
    l4.extend_from_slice(segment.payload);
    let length = u16::try_from(l4.len()).context("too long for a packet")?;
    let sum = checksum(&[&bytes(from), &bytes(to), &[0, TCP], &length.to_be_bytes(), &l4]);
    l4[16..18].copy_from_slice(&sum.to_be_bytes());
    let (ethertype, ip) = ip_header(from, to, TCP, length)?;
    let mut frame = [macs[1].0, macs[0].0].concat();
    frame.extend_from_slice(&ethertype.to_be_bytes());
    frame.extend_from_slice(&ip);
    frame.extend_from_slice(&l4);
    Ok(frame)
}

/// A header with these options whose checksum is zero.
fn tcp_header(segment: &BuiltSegment<'_>, options: &[u8]) -> Vec<u8> {
    const WINDOW: u16 = 64_240;
    let words = u8::try_from(options.len() / 4).unwrap_or(10);
    let mut header = Vec::with_capacity(20 + options.len() + segment.payload.len());
    header.extend_from_slice(&segment.source.port().to_be_bytes());
    header.extend_from_slice(&segment.destination.port().to_be_bytes());
    header.extend_from_slice(&segment.seq.to_be_bytes());
    header.extend_from_slice(&segment.ack.to_be_bytes());
    header.extend_from_slice(&[(5 + words) << 4, segment.flags]);
    header.extend_from_slice(&WINDOW.to_be_bytes());
    header.extend_from_slice(&[0; 4]);
    header.extend_from_slice(options);
    header
}

/// The ethertype and the IP header for `length` bytes of a protocol.
fn ip_header(from: IpAddr, to: IpAddr, protocol: u8, length: u16) -> Result<(u16, Vec<u8>)> {
    const HOPS: u8 = 64;
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let total = length.checked_add(20).context("too long for a packet")?;
            let mut header = vec![0x45, 0];
            header.extend_from_slice(&total.to_be_bytes());
            // No identification, "don't fragment", and the checksum zero for now.
            header.extend_from_slice(&[0, 0, 0x40, 0, HOPS, protocol, 0, 0]);
            header.extend_from_slice(&from.octets());
            header.extend_from_slice(&to.octets());
            let sum = checksum(&[&header]);
            header[10..12].copy_from_slice(&sum.to_be_bytes());
            Ok((ETHERTYPE_IPV4, header))
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let mut header = vec![0x60, 0, 0, 0];
            header.extend_from_slice(&length.to_be_bytes());
            header.extend_from_slice(&[protocol, HOPS]);
            header.extend_from_slice(&from.octets());
            header.extend_from_slice(&to.octets());
            Ok((ETHERTYPE_IPV6, header))
        }
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => {
            bail!("{from} and {to} are of different families")
        }
    }
}

fn bytes(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// The Internet checksum (RFC 1071) over the concatenated `parts`; all but the last have even length.
pub(crate) fn checksum(parts: &[&[u8]]) -> u16 {
    let word = |pair: &[u8]| u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]);
    let words = parts.iter().flat_map(|part| part.chunks(2)).map(word);
    // One's complement addition: the carry is added again.
    let add = |sum: u16, word: u16| {
        let (sum, carry) = sum.overflowing_add(word);
        sum + u16::from(carry)
    };
    !words.fold(0, add)
}

/// Inserts `count` destination options headers (RFC 8200 §4.6), which contain only padding, after the IPv6
/// header of `frame`.
///
/// # Errors
/// The Ethernet header is not followed by IPv6, or the packet becomes too long.
pub fn with_extensions(frame: &[u8], count: u16) -> Result<Vec<u8>> {
    const DESTINATION_OPTIONS: u8 = 60;
    ensure!(frame.len() >= 54 && frame[12..14] == ETHERTYPE_IPV6.to_be_bytes(), "not IPv6");
    if count == 0 {
        return Ok(frame.to_vec());
    }
    let (head, rest) = frame.split_at(54);
    let mut longer = head.to_vec();
    let length = u16::from_be_bytes([head[18], head[19]]);
    let length =
        count.checked_mul(8).and_then(|more| length.checked_add(more)).context("too long for a packet")?;
    longer[18..20].copy_from_slice(&length.to_be_bytes());
    longer[20] = DESTINATION_OPTIONS;
    for left in (0..count).rev() {
        let next = if left == 0 { head[20] } else { DESTINATION_OPTIONS };
        // Eight bytes (length 0 means none beyond the first eight), filled by one option PadN of four.
        longer.extend_from_slice(&[next, 0, 1, 4, 0, 0, 0, 0]);
    }
    longer.extend_from_slice(rest);
    Ok(longer)
}

/// The payload bytes in `part` of an IPv4 frame, which has no IP options, as a fragment of its packet (RFC
/// 791 §3.1). Each part but the last is a multiple of eight bytes.
///
/// # Errors
/// The frame or the part is too long for a packet.
pub fn fragment(frame: &[u8], part: Range<usize>, more_follow: bool) -> Result<Vec<u8>> {
    const MORE_FRAGMENTS: u16 = 0x2000;
    let (head, payload) = frame.split_at(ETHERNET + IPV4);
    let offset = u16::try_from(part.start / 8)?;
    let piece = payload.get(part).context("the frame is shorter")?;
    let mut fragment = head.to_vec();
    let ip = &mut fragment[ETHERNET..];
    ip[2..4].copy_from_slice(&u16::try_from(IPV4 + piece.len())?.to_be_bytes());
    // The fragments of a packet share an identification; the ports differ from packet to packet.
    ip[4..6].copy_from_slice(&payload[..2]);
    ip[6..8].copy_from_slice(&(offset | if more_follow { MORE_FRAGMENTS } else { 0 }).to_be_bytes());
    ip[10..12].fill(0);
    let sum = checksum(&[ip]);
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    fragment.extend_from_slice(piece);
    Ok(fragment)
}

/// The Ethernet frame of a UDP datagram between two ends, without data or a checksum (RFC 768: 0 is none);
/// `macs` are source and destination.
///
/// # Errors
/// None: all lengths fit.
pub fn udp_frame(macs: [Mac; 2], ends: [SocketAddrV4; 2]) -> Result<Vec<u8>> {
    const HEADER: u16 = 8;
    let [source, destination] = ends;
    let (ethertype, ip) = ip_header((*source.ip()).into(), (*destination.ip()).into(), UDP, HEADER)?;
    let udp = [source.port(), destination.port(), HEADER, 0].map(u16::to_be_bytes);
    Ok([&macs[1].0[..], &macs[0].0, &ethertype.to_be_bytes(), &ip, udp.as_flattened()].concat())
}

/// The ICMP error "destination unreachable" of `router` to `to` about an IPv4 frame (RFC 792: type 3). It
/// goes by the Ethernet addresses of that frame.
///
/// # Errors
/// The frame has no whole IPv4 header.
pub fn unreachable(router: Ipv4Addr, to: Ipv4Addr, code: u8, frame: &[u8]) -> Result<Vec<u8>> {
    let packet = frame.get(ETHERNET..).filter(|packet| packet.len() >= IPV4).context("not IPv4")?;
    let mut message = vec![3, code, 0, 0, 0, 0, 0, 0];
    message.extend_from_slice(packet);
    let sum = checksum(&[&message]);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    let (_, ip) = ip_header(router.into(), to.into(), ICMP, u16::try_from(message.len())?)?;
    Ok([&frame[..ETHERNET], &ip, &message].concat())
}

/// Inserts VLAN tags, outermost first, before the ethertype of `frame`. A tag is an ethertype (0x8100,
/// 0x88a8) and a number.
#[must_use]
pub fn with_tags(frame: &[u8], tags: &[(u16, u16)]) -> Vec<u8> {
    let (addresses, rest) = frame.split_at(12);
    let mut tagged = addresses.to_vec();
    for (ethertype, number) in tags {
        tagged.extend_from_slice(&ethertype.to_be_bytes());
        tagged.extend_from_slice(&number.to_be_bytes());
    }
    tagged.extend_from_slice(rest);
    tagged
}

/// Sends whole frames from a device, and counts them.
#[derive(Debug)]
pub struct Sender {
    socket: Socket,
    sent: u64,
}

impl Sender {
    /// Opens a sender on `device` of `namespace`.
    ///
    /// # Errors
    /// Without CAP_NET_RAW, or there is no such device.
    pub fn new(namespace: &Namespace, device: &str) -> Result<Self> {
        // Protocol 0 receives nothing.
        let socket = packet_socket(namespace, device, 0)?;
        Ok(Self { socket, sent: 0 })
    }

    /// Sends one frame.
    ///
    /// # Errors
    /// The device refuses the frame.
    pub fn send(&mut self, frame: &[u8]) -> Result<()> {
        let taken = self.socket.send(frame).context("send a frame")?;
        if taken != frame.len() {
            bail!("sent {taken} of {} bytes", frame.len());
        }
        self.sent += 1;
        Ok(())
    }

    /// Number of frames sent.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.sent
    }
}

/// Opens a packet socket bound to a device. It never receives frames of other devices, not even before it is
/// bound.
pub(crate) fn packet_socket(namespace: &Namespace, device: &str, ethertype: u16) -> Result<Socket> {
    namespace.enter(|| {
        let socket =
            Socket::new(Domain::PACKET, Type::RAW, None::<Protocol>).context("open a packet socket")?;
        let address = link_address(interface_index(device)?, ethertype)?;
        socket.bind(&address).with_context(|| format!("bind a packet socket to {device}"))?;
        Ok(socket)
    })
}

fn link_address(index: u32, ethertype: u16) -> Result<SockAddr> {
    let link = libc::sockaddr_ll {
        sll_family: u16::try_from(libc::AF_PACKET)?,
        sll_protocol: ethertype.to_be(),
        sll_ifindex: i32::try_from(index)?,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    let mut storage = SockAddrStorage::zeroed();
    // SAFETY: sockaddr_ll is an address type, and a sockaddr_storage has the size and alignment for it.
    unsafe { *storage.view_as::<libc::sockaddr_ll>() = link };
    let length = libc::socklen_t::try_from(size_of::<libc::sockaddr_ll>())?;
    // SAFETY: the storage holds a whole sockaddr_ll of this length.
    Ok(unsafe { SockAddr::new(storage, length) })
}

/// The interface index of `device` in the thread's namespace.
///
/// # Errors
/// There is no such device.
pub fn interface_index(device: &str) -> Result<u32> {
    let any = UnixDatagram::unbound().context("open a socket")?;
    name_to_index(any, device).with_context(|| format!("look for {device}"))
}

#[cfg(test)]
mod tests {
    use super::{BuiltSegment, Mac, checksum, flag, tcp_frame, udp_frame, unreachable, with_tags};

    const MACS: [Mac; 2] = [Mac([2, 0, 0, 0, 0, 1]), Mac([2, 0, 0, 0, 0, 2])];

    fn frame(source: &str, destination: &str) -> Vec<u8> {
        let parse = |text: &str| text.parse().expect("an address");
        let (source, destination) = (parse(source), parse(destination));
        let segment = BuiltSegment { source, destination, seq: 7, ack: 0, flags: flag::SYN, payload: b"odd" };
        tcp_frame(MACS, &segment).expect("one family")
    }

    /// The example of RFC 1071 §3: the sum of these is 0xddf2.
    #[test]
    fn checksum_matches_the_example_of_the_rfc() {
        assert_eq!(checksum(&[&[0x00, 0x01, 0xf2, 0x03], &[0xf4, 0xf5, 0xf6, 0xf7]]), !0xddf2);
    }

    /// A receiver's sum over everything, checksum included, is zero.
    #[test]
    fn checksums_of_a_frame_are_correct() {
        let v4 = frame("192.0.2.1:1000", "192.0.2.2:80");
        assert_eq!(v4.len(), 14 + 20 + 20 + 3);
        assert_eq!(checksum(&[&v4[14..34]]), 0);
        assert_eq!(checksum(&[&v4[26..34], &[0, 6, 0, 23], &v4[34..]]), 0);
        let v6 = frame("[2001:db8::1]:1000", "[2001:db8::2]:80");
        assert_eq!(v6.len(), 14 + 40 + 20 + 3);
        assert_eq!(checksum(&[&v6[22..54], &[0, 6, 0, 23], &v6[54..]]), 0);
    }

    #[test]
    fn an_icmp_error_quotes_the_datagram() {
        let ends = ["192.0.2.1:1000", "192.0.2.2:53"].map(|end| end.parse().expect("an end"));
        let datagram = udp_frame(MACS, ends).expect("a frame");
        let (router, to) = ([192, 0, 2, 9].into(), [192, 0, 2, 1].into());
        let frame = unreachable(router, to, 13, &datagram).expect("a frame");
        assert_eq!(frame.len(), 14 + 20 + 8 + 20 + 8);
        assert_eq!(frame[26..34], [192, 0, 2, 9, 192, 0, 2, 1]);
        assert_eq!(checksum(&[&frame[14..34]]), 0);
        assert_eq!((checksum(&[&frame[34..]]), &frame[34..36]), (0, &[3, 13][..]));
        assert_eq!(checksum(&[&frame[42..62]]), 0);
        assert_eq!(frame[54..70], [192, 0, 2, 1, 192, 0, 2, 2, 3, 232, 0, 53, 0, 8, 0, 0]);
    }

    #[test]
    fn tags_are_inserted_before_the_ethertype() {
        let tagged = with_tags(&frame("192.0.2.1:1000", "192.0.2.2:80"), &[(0x88a8, 5), (0x8100, 6)]);
        assert_eq!(tagged[12..22], [0x88, 0xa8, 0, 5, 0x81, 0, 0, 6, 0x08, 0]);
    }
}
