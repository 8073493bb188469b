//! Reads bytes as a stream of packets: a header, then six bytes per packet. Numbers come from short tables of
//! relevant values, so that a mutation hits a relation and not one value of 2³².

use handshake_common::abi::{Config, HASH_WORDS, MAX_NETS, Net, option};
use handshake_common::engine;
use handshake_common::flow::{Address, Family};
use handshake_common::interface::{GROUPS, point};
use handshake_common::record::Now;
use handshake_common::wire::{Class, Packet, TCP, UDP, flag, quote};

use crate::flags::class_of;

const MS: i64 = 1_000_000;
const S: i64 = 1_000 * MS;
const T1: i64 = 3 * S;
const T2: i64 = 75 * S;
/// The length of a jiffy at 250 Hz, the tick of most kernels.
const TICK: i64 = 4 * MS;
const UDP_IDLE: i64 = 60 * S;
const IDLE_AFTER: i64 = 3_600 * S;

/// Pauses between packets, in ns: time stands, passes, jumps over every limit, and runs backwards.
const PAUSES: [i64; 16] = [
    0,
    0,
    64,
    40_000,
    MS,
    S,
    T1 - 1,
    T1,
    32 * S,
    T2,
    T2 + 64,
    UDP_IDLE + TICK,
    // A record's 32-bit ticks wrap between these two.
    274 * S,
    IDLE_AFTER + TICK,
    -S,
    // Half of the range of 32-bit jiffies.
    -(TICK << 31),
];
/// Initial sequence numbers, at the ends of the number space and of its halves.
const BASES: [u32; 8] = [u32::MAX, 0, 0x7fff_ffff, 0x8000_0000, 1_000, 0xffff_0000, 0x4000_0000, 1];
/// Offsets that are added to an initial sequence number.
const STEPS: [u32; 32] = [
    0,
    1,
    2,
    3,
    u32::MAX,
    u32::MAX - 1,
    10,
    11,
    20,
    21,
    100,
    101,
    535,
    536,
    1_460,
    1_461,
    2_920,
    2_921,
    65_534,
    65_535,
    65_536,
    65_537,
    131_071,
    1 << 30,
    (1 << 31) - 1,
    1 << 31,
    (1 << 31) + 1,
    u32::MAX - 1_459,
    u32::MAX - 65_535,
    4,
    5,
    1 << 24,
];
const PAYLOADS: [u32; 16] =
    [0, 0, 0, 0, 0, 1, 2, 10, 100, 535, 1_460, 2_920, 16_000, 65_475, 65_535, 200_000];
const SEGMENTS: [u16; 4] = [1, 1, 2, 45];
/// Both ends of a flow, as the last word of the address and the port: shared clients, shared services, a flow
/// with itself, and a multicast group.
const FLOWS: [[(u32, u16); 2]; 8] = [
    [(1, 1_000), (2, 80)],
    [(1, 1_001), (2, 80)],
    [(1, 1_000), (3, 80)],
    [(4, 1_000), (2, 443)],
    [(9, 2_000), (2, 80)],
    [(9, 2_000), (2, 443)],
    [(5, 80), (5, 80)],
    [(1, 1_000), (GROUP, 80)],
];
/// Stands for a multicast address in [`FLOWS`].
const GROUP: u32 = 224;

/// The settings that the header selects.
#[derive(Clone, Copy)]
pub(super) struct StreamSettings {
    /// The number of slots of each table.
    pub(super) slots: usize,
    /// Whether the filter selects port 80 alone.
    pub(super) by_port: bool,
    options: u32,
    start: Now,
}

impl StreamSettings {
    fn of(byte: u8) -> Self {
        let has = |bit: u8| byte >> bit & 1 != 0;
        let by_port = has(5);
        let option = |wanted: bool, option: u32| if wanted { option } else { 0 };
        Self {
            slots: 4 << (byte & 3),
            by_port,
            options: option(has(2), option::ONE_SIDED)
                | option(has(3), option::EVENTS)
                | option(by_port, option::PORTS)
                | option(has(6), option::NETS),
            start: if has(4) { at(0) } else { at(u64::from(u32::MAX) * TICK.cast_unsigned() - 1) },
        }
    }

    pub(super) fn config(&self) -> Config {
        let net = Net {
            address: address(Family::V4, 0),
            mask: Address::v4(0xffff_fffc),
            family: Family::V4 as u64,
        };
        Config {
            factors: factors(),
            half_open_after_ns: T1.cast_unsigned(),
            expire_after_ns: T2.cast_unsigned(),
            udp_idle_jiffies: jiffies(UDP_IDLE.cast_unsigned()),
            idle_after_jiffies: jiffies(IDLE_AFTER.cast_unsigned()),
            mask4: 0,
            mask6: 0,
            options: self.options,
            nets: [net; MAX_NETS],
            repeat_within_jiffies: jiffies(100_000_000),
        }
    }
}

/// The packets of an input.
pub(super) struct Stream<'a> {
    settings: StreamSettings,
    rest: &'a [u8],
    now_ns: u64,
}

impl<'a> Stream<'a> {
    pub(super) fn over(data: &'a [u8]) -> Self {
        let (&header, rest) = data.split_first().unwrap_or((&0, &[]));
        let settings = StreamSettings::of(header);
        Self { settings, rest, now_ns: settings.start.ns }
    }

    pub(super) fn settings(&self) -> StreamSettings {
        self.settings
    }

    /// The next packet and its time.
    pub(super) fn next(&mut self) -> Option<(Now, Packet)> {
        let (code, rest): (&[u8; 6], _) = self.rest.split_first_chunk()?;
        self.rest = rest;
        let [.., time, _] = *code;
        self.now_ns = self.now_ns.saturating_add_signed(PAUSES[usize::from(time & 0xf)]);
        Some((at(self.now_ns), packet(code)))
    }
}

/// The packet of six bytes: five of eight are TCP.
fn packet(&[flow, flags, seq, ack, time, size]: &[u8; 6]) -> Packet {
    let family = if flow & 8 != 0 { Family::V6 } else { Family::V4 };
    let mut ends = FLOWS[usize::from(flow & 7)];
    if flow & 16 != 0 {
        ends.reverse();
    }
    let [source, destination] = ends;
    let mut packet = Packet {
        source: address(family, source.0),
        destination: address(family, destination.0),
        source_port: source.1,
        destination_port: destination.1,
        family: family as u8,
        segments: 1,
        point: point_of(time >> 4),
        header_length: if matches!(family, Family::V4) { 40 } else { 60 },
        ..Packet::default()
    };
    match flow >> 5 {
        0..=4 => tcp(&mut packet, flags, [seq, ack], size),
        5 => udp(&mut packet, size),
        kind => quoted(&mut packet, kind == 6, seq),
    }
    packet
}

fn tcp(packet: &mut Packet, flags: u8, [seq, ack]: [u8; 2], size: u8) {
    packet.protocol = TCP;
    packet.flags = flags;
    packet.class = class_of(flags) as u8;
    packet.seq = number(seq);
    packet.ack = if flags & flag::ACK != 0 { number(ack) } else { 0 };
    packet.payload = PAYLOADS[usize::from(size & 0xf)];
    packet.segments = SEGMENTS[usize::from(size >> 6)];
    packet.ip_length = u32::from(packet.header_length) + packet.payload;
}

fn udp(packet: &mut Packet, size: u8) {
    packet.protocol = UDP;
    packet.class = Class::Udp as u8;
    packet.header_length -= 12;
    packet.segments = SEGMENTS[usize::from(size >> 6)];
    packet.ip_length = u32::from(packet.header_length) + PAYLOADS[usize::from(size & 0xf)];
}

/// An ICMP error that quotes a packet of the flow.
fn quoted(packet: &mut Packet, tcp: bool, seq: u8) {
    packet.protocol = if tcp { TCP } else { UDP };
    packet.class = Class::Icmp as u8;
    packet.quote = quote::UNREACHABLE;
    packet.seq = if tcp { number(seq) } else { 0 };
    packet.header_length = 0;
    packet.ip_length = 56;
}

fn number(code: u8) -> u32 {
    BASES[usize::from(code & 7)].wrapping_add(STEPS[usize::from(code >> 3)])
}

/// One of two groups of interfaces in both directions, or the last point there is.
fn point_of(code: u8) -> u8 {
    const LAST: u8 = 6;
    const _: () = assert!(LAST as usize + 1 == GROUPS);
    match code {
        15 => point(LAST, true),
        code => point(code >> 1 & 1, code & 1 != 0),
    }
}

fn address(family: Family, last: u32) -> Address {
    match (family, last) {
        (Family::V4, GROUP) => Address::v4(0xe000_0001),
        (Family::V4, last) => Address::v4(0x0a00_0000 | last),
        (Family::V6, GROUP) => Address::v6([0xff02_0000, 0, 0, 1]),
        (Family::V6, last) => Address::v6([0x2001_0db8, 0, 0, last]),
    }
}

/// One packet to each service that a stream can have.
pub(super) fn services() -> impl Iterator<Item = Packet> {
    let codes = (0..32).flat_map(|flow| [flow, flow | 5 << 5]);
    codes.map(|flow| packet(&[flow, flag::SYN, 0, 0, 0, 0]))
}

fn at(ns: u64) -> Now {
    Now { ns, jiffies: jiffies(ns) }
}

/// The low 32 bits of the jiffies, as records keep them.
fn jiffies(ns: u64) -> u32 {
    let jiffies = (ns / TICK.cast_unsigned()) & u64::from(u32::MAX);
    u32::try_from(jiffies).unwrap_or(u32::MAX)
}

/// Hash factors, the same for every input: a linear congruential generator (Knuth's MMIX).
fn factors() -> [[u64; HASH_WORDS]; 2] {
    let mut state = 1_u64;
    engine::factors(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state
    })
}
