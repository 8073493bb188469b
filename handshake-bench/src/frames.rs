//! The frames that the rows send.

use handshake_common::wire::build::FrameBuilder;
use handshake_common::wire::{Link, flag};

/// The IP version of packets and flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ip {
    V4,
    V6,
}

/// The client's address in IPv4 flows; walkers overwrite it.
pub(crate) const CLIENT4: u32 = 0x0a00_0000;
/// The server's address in IPv4 flows.
pub(crate) const SERVER4: u32 = 0xc000_0202;
const CLIENT6: [u32; 4] = [0x2001_0db8, 0, 0, 1];
const SERVER6: [u32; 4] = [0x2001_0db8, 1, 0, 2];
const CLIENT_PORT: u16 = 40_000;
/// The port of the service that all packets are sent to.
pub(crate) const SERVER_PORT: u16 = 443;
const J: u32 = 0x1234_5678;
const K: u32 = 0x9abc_def0;
/// The payload of UDP packets: over IPv4 it makes a frame of 60 bytes, the shortest on a wire.
const PAYLOAD: [u8; 18] = [0; 18];
/// The bytes of such a UDP packet by its IP header.
pub(crate) const fn udp_bytes(ip: Ip) -> u64 {
    let header = match ip {
        Ip::V4 => 20,
        Ip::V6 => 40,
    };
    header + 8 + PAYLOAD.len() as u64
}

/// The headers up to IP, from client to server or back.
fn network(ip: Ip, reply: bool) -> FrameBuilder {
    network_of(ip, 0, reply)
}

/// The same of the `n`-th of many clients.
fn network_of(ip: Ip, n: u32, reply: bool) -> FrameBuilder {
    let frame = FrameBuilder::new(Link::Ethernet);
    let [one, two, three, four] = CLIENT6;
    let (client4, client6) = (CLIENT4 + n, [one, two, three, four + n]);
    match (ip, reply) {
        (Ip::V4, false) => frame.ipv4(client4, SERVER4),
        (Ip::V4, true) => frame.ipv4(SERVER4, client4),
        (Ip::V6, false) => frame.ipv6(client6, SERVER6),
        (Ip::V6, true) => frame.ipv6(SERVER6, client6),
    }
}

/// A TCP segment without data.
#[derive(Clone, Copy)]
struct BenchSegment {
    reply: bool,
    flags: u8,
    seq: u32,
    ack: u32,
}

/// The three segments of a handshake.
const SYN: BenchSegment = BenchSegment { reply: false, flags: flag::SYN, seq: J, ack: 0 };
const SYN_ACK: BenchSegment =
    BenchSegment { reply: true, flags: flag::SYN | flag::ACK, seq: K, ack: J.wrapping_add(1) };
const ACK: BenchSegment =
    BenchSegment { reply: false, flags: flag::ACK, seq: J.wrapping_add(1), ack: K.wrapping_add(1) };

fn tcp(network: FrameBuilder, segment: BenchSegment) -> Vec<u8> {
    let (source, destination) = ports(segment.reply);
    let frame = network.tcp(segment.flags, segment.seq, segment.ack).between(source, destination);
    frame.bytes().to_vec()
}

const fn ports(reply: bool) -> (u16, u16) {
    if reply { (SERVER_PORT, CLIENT_PORT) } else { (CLIENT_PORT, SERVER_PORT) }
}

/// The SYN that begins an attempt.
pub(crate) fn syn(ip: Ip) -> Vec<u8> {
    tcp(network(ip, false), SYN)
}

/// The SYN+ACK that answers it.
pub(crate) fn syn_ack(ip: Ip) -> Vec<u8> {
    tcp(network(ip, true), SYN_ACK)
}

/// The ACK that completes it; the most frequent segment of an established connection.
pub(crate) fn ack(ip: Ip) -> Vec<u8> {
    tcp(network(ip, false), ACK)
}

/// The three segments of a handshake of the `n`-th of many clients.
pub(crate) fn handshake_of(ip: Ip, n: u32) -> [Vec<u8>; 3] {
    [SYN, SYN_ACK, ACK].map(|segment| tcp(network_of(ip, n, segment.reply), segment))
}

/// The three segments of a handshake of this client with this server, over IPv4.
pub(crate) fn handshake_between(client: u32, server: u32) -> [Vec<u8>; 3] {
    [SYN, SYN_ACK, ACK].map(|segment| {
        let frame = FrameBuilder::new(Link::Ethernet);
        let (source, destination) = if segment.reply { (server, client) } else { (client, server) };
        tcp(frame.ipv4(source, destination), segment)
    })
}

/// The six segments of a connection of `client` over IPv4 that carries nothing.
pub(crate) fn connection(client: u32) -> [Vec<u8>; 6] {
    const FIN: u8 = flag::FIN | flag::ACK;
    let end = BenchSegment { flags: FIN, ..ACK };
    let back = BenchSegment { reply: true, flags: FIN, seq: ACK.ack, ack: ACK.seq + 1 };
    let last = BenchSegment { seq: ACK.seq + 1, ack: ACK.ack + 1, ..ACK };
    [SYN, SYN_ACK, ACK, end, back, last].map(|segment| tcp(between(client, segment.reply), segment))
}

fn between(client: u32, reply: bool) -> FrameBuilder {
    let frame = FrameBuilder::new(Link::Ethernet);
    if reply { frame.ipv4(SERVER4, client) } else { frame.ipv4(client, SERVER4) }
}

/// A segment of such a connection with so many bytes of data.
pub(crate) fn data(client: u32, length: u16) -> Vec<u8> {
    const TOTAL_LENGTH: usize = 16;
    let frame = between(client, false).tcp(ACK.flags, ACK.seq, ACK.ack).between(CLIENT_PORT, SERVER_PORT);
    let mut bytes = frame.bytes().to_vec();
    let total = u16::from_be_bytes([bytes[TOTAL_LENGTH], bytes[TOTAL_LENGTH + 1]]) + length;
    bytes[TOTAL_LENGTH..][..2].copy_from_slice(&total.to_be_bytes());
    bytes.resize(bytes.len() + usize::from(length), 0);
    bytes
}

/// The server's ACK in such a connection.
pub(crate) fn ack_back(client: u32) -> Vec<u8> {
    let ack = BenchSegment { reply: true, flags: flag::ACK, seq: ACK.ack, ack: ACK.seq };
    tcp(between(client, true), ack)
}

/// A SYN over IPv6 from the `n`-th of many addresses.
pub(crate) fn syn6(n: u32) -> Vec<u8> {
    tcp(network_of(Ip::V6, n, false), SYN)
}

/// A UDP request, or its answer.
pub(crate) fn udp(ip: Ip, reply: bool) -> Vec<u8> {
    let (source, destination) = ports(reply);
    network(ip, reply).udp().payload(&PAYLOAD).between(source, destination).bytes().to_vec()
}

/// An ARP request, padded as on a wire.
pub(crate) fn arp() -> Vec<u8> {
    const ARP: u16 = 0x0806;
    let mut request = [0; 46];
    request[..8].copy_from_slice(&[0, 1, 8, 0, 6, 4, 0, 1]);
    FrameBuilder::new(Link::Ethernet).other(ARP, &request).bytes().to_vec()
}

/// A fragment that is not the first.
pub(crate) fn later_fragment() -> Vec<u8> {
    const OFFSET: u16 = 185;
    const UDP: u8 = 17;
    network(Ip::V4, false).fragment(OFFSET, false).protocol(UDP, 26).bytes().to_vec()
}
