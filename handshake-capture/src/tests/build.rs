//! Builds captures in every format, with the packets that a reader must find in them.

use std::io::Write;

use flate2::{Compression, write::GzEncoder};
use handshake_common::wire::Link;

use super::Seen;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    Little,
    Big,
}

impl Order {
    fn bytes<const N: usize>(self, mut little: [u8; N]) -> [u8; N] {
        if self == Self::Big {
            little.reverse();
        }
        little
    }
}

/// A capture, its packets, and the offsets where its records end.
pub(super) struct Sample {
    pub(super) title: String,
    pub(super) bytes: Vec<u8>,
    pub(super) packets: Vec<Seen>,
    /// Lengths of the prefixes that are whole captures, in ascending order.
    pub(super) ends: Vec<usize>,
}

/// A packet to write: time, bytes, length on the wire.
#[derive(Clone)]
pub(super) struct Given {
    seconds: u32,
    nanoseconds: u32,
    bytes: Vec<u8>,
    length: u32,
}

impl Given {
    pub(super) fn bytes(&self) -> Vec<u8> {
        self.bytes.clone()
    }
}

/// Five packets whose lengths need every padding, at times that are exact in halves and quarters of a second.
pub(super) fn frames() -> Vec<Given> {
    let row = |seconds, nanoseconds, captured: u8, length| Given {
        seconds,
        nanoseconds,
        bytes: (0..captured).collect(),
        length,
    };
    vec![
        row(1_700_000_000, 0, 60, 60),
        row(1_700_000_000, 500_000_000, 61, 61),
        row(1_700_000_001, 250_000_000, 62, 1514),
        row(1_700_000_001, 750_000_000, 63, 63),
        row(1_700_000_100, 0, 0, 40),
    ]
}

/// A packet with these bytes.
pub(super) fn holding(bytes: Vec<u8>, length: u32) -> Given {
    Given { seconds: 1_700_000_000, nanoseconds: 0, bytes, length }
}

pub(super) fn seen(given: &[Given], name: Option<&str>) -> Vec<Seen> {
    let packet = |given: &Given| Seen {
        time_ns: u64::from(given.seconds) * 1_000_000_000 + u64::from(given.nanoseconds),
        link: Link::Ethernet,
        interface: 0,
        name: name.map(str::to_owned),
        bytes: given.bytes.clone(),
        length: given.length,
    };
    given.iter().map(packet).collect()
}

fn small(length: usize) -> u32 {
    u32::try_from(length).expect("test data is small")
}

/// A pcap file; `network` is the header's last field.
pub(super) fn classic(order: Order, nanoseconds: bool, network: u32, packets: &[Given]) -> Vec<u8> {
    let word = |value: u32| order.bytes(value.to_le_bytes());
    let magic = if nanoseconds { 0xa1b2_3c4d } else { 0xa1b2_c3d4 };
    let mut bytes = word(magic).to_vec();
    bytes.extend(order.bytes(2_u16.to_le_bytes()));
    bytes.extend(order.bytes(4_u16.to_le_bytes()));
    for value in [0, 0, 65_535, network] {
        bytes.extend(word(value));
    }
    for packet in packets {
        let fraction = if nanoseconds { packet.nanoseconds } else { packet.nanoseconds / 1_000 };
        for value in [packet.seconds, fraction, small(packet.bytes.len()), packet.length] {
            bytes.extend(word(value));
        }
        bytes.extend(&packet.bytes);
    }
    bytes
}

/// The same file in another version, with the two lengths of its records in the other order if `swapped`.
pub(super) fn of_version(order: Order, version: (u16, u16), swapped: bool, packets: &[Given]) -> Vec<u8> {
    let mut bytes = classic(order, false, 1, &[]);
    bytes[4..6].copy_from_slice(&order.bytes(version.0.to_le_bytes()));
    bytes[6..8].copy_from_slice(&order.bytes(version.1.to_le_bytes()));
    for packet in packets {
        let mut record = classic(order, false, 1, std::slice::from_ref(packet)).split_off(24);
        if swapped {
            record[8..16].rotate_left(4);
        }
        bytes.extend(record);
    }
    bytes
}

/// A file of the modified format: records have eight more bytes before the packet.
pub(super) fn modified(order: Order, packets: &[Given]) -> Vec<u8> {
    let mut bytes = order.bytes(0xa1b2_cd34_u32.to_le_bytes()).to_vec();
    bytes.extend(&classic(order, false, 1, &[])[4..]);
    for packet in packets {
        let record = classic(order, false, 1, std::slice::from_ref(packet)).split_off(24);
        let (header, data) = record.split_at(16);
        bytes.extend([header, &[0xee; 8], data].concat());
    }
    bytes
}

fn classic_sample(order: Order, nanoseconds: bool) -> Sample {
    let given = frames();
    let ends = (0..=given.len()).map(|n| classic(order, nanoseconds, 1, &given[..n]).len()).collect();
    Sample {
        title: format!("pcap {order:?} nanoseconds: {nanoseconds}"),
        bytes: classic(order, nanoseconds, 1, &given),
        packets: seen(&given, None),
        ends,
    }
}

/// Builds a pcapng file.
pub(super) struct Blocks {
    pub(super) order: Order,
    pub(super) bytes: Vec<u8>,
    pub(super) ends: Vec<usize>,
}

impl Blocks {
    pub(super) fn new(order: Order) -> Self {
        Self { order, bytes: vec![], ends: vec![] }
    }

    pub(super) fn word(&self, value: u32) -> [u8; 4] {
        self.order.bytes(value.to_le_bytes())
    }

    fn half(&self, value: u16) -> [u8; 2] {
        self.order.bytes(value.to_le_bytes())
    }

    pub(super) fn block(&mut self, kind: u32, body: &[u8]) -> &mut Self {
        let padding = body.len().next_multiple_of(4) - body.len();
        let length = self.word(small(12 + body.len() + padding));
        self.bytes.extend(self.word(kind));
        self.bytes.extend(length);
        self.bytes.extend(body);
        self.bytes.extend(&[0; 3][..padding]);
        self.bytes.extend(length);
        self.ends.push(self.bytes.len());
        self
    }

    pub(super) fn section(&mut self) -> &mut Self {
        let mut body = self.word(0x1a2b_3c4d).to_vec();
        body.extend(self.half(1));
        body.extend(self.half(0));
        // The section's length is unspecified.
        body.extend([0xff; 8]);
        self.block(0x0a0d_0d0a, &body)
    }

    pub(super) fn interface(&mut self, link_type: u16, snap: u32, options: &[(u16, &[u8])]) -> &mut Self {
        let mut body = [self.half(link_type), [0; 2]].concat();
        body.extend(self.word(snap));
        body.extend(self.options(options));
        self.block(1, &body)
    }

    fn options(&self, options: &[(u16, &[u8])]) -> Vec<u8> {
        let mut bytes = vec![];
        for (code, value) in options {
            bytes.extend(self.half(*code));
            bytes.extend(self.half(u16::try_from(value.len()).expect("short")));
            bytes.extend(*value);
            bytes.resize(bytes.len().next_multiple_of(4), 0);
        }
        bytes
    }

    /// The body of a packet block up to its options.
    fn packet(&self, first: &[u8], units: u64, bytes: &[u8], length: u32) -> Vec<u8> {
        let mut body = first.to_vec();
        let (high, low) = ((units >> 32) as u32, (units & 0xffff_ffff) as u32);
        for value in [high, low, small(bytes.len()), length] {
            body.extend(self.word(value));
        }
        body.extend(bytes);
        body.resize(body.len().next_multiple_of(4), 0);
        body
    }

    pub(super) fn enhanced(&mut self, interface: u32, units: u64, bytes: &[u8], length: u32) -> &mut Self {
        let body = self.packet(&self.word(interface), units, bytes, length);
        self.block(6, &body)
    }

    /// An enhanced packet that says how many packets were dropped before it.
    pub(super) fn enhanced_after_drops(&mut self, interface: u32, units: u64, drops: u64) -> &mut Self {
        let drops = self.order.bytes(drops.to_le_bytes());
        let mut body = self.packet(&self.word(interface), units, &[1; 61], 61);
        body.extend(self.options(&[(1, b"comment"), (4, &drops)]));
        self.block(6, &body)
    }

    pub(super) fn obsolete(&mut self, interface: u16, units: u64, bytes: &[u8], length: u32) -> &mut Self {
        self.obsolete_after_drops(interface, units, bytes, length, 0xffff)
    }

    /// An obsolete packet with its count of drops; 0xffff: not known.
    pub(super) fn obsolete_after_drops(
        &mut self,
        interface: u16,
        units: u64,
        bytes: &[u8],
        length: u32,
        drops: u16,
    ) -> &mut Self {
        let first = [self.half(interface), self.half(drops)].concat();
        let body = self.packet(&first, units, bytes, length);
        self.block(2, &body)
    }

    /// Interface statistics, with options of eight bytes.
    pub(super) fn statistics(&mut self, interface: u32, options: &[(u16, u64)]) -> &mut Self {
        let mut body = [self.word(interface), [0; 4], [0; 4]].concat();
        for (code, value) in options {
            let value = self.order.bytes(value.to_le_bytes());
            body.extend(self.options(&[(*code, &value)]));
        }
        self.block(5, &body)
    }

    pub(super) fn simple(&mut self, bytes: &[u8], length: u32) -> &mut Self {
        let body = [&self.word(length)[..], bytes].concat();
        self.block(3, &body)
    }
}

/// The time stamps of a sample's interface: `if_tsresol`, `if_tsoffset`, and the conversion from nanoseconds
/// to units.
struct Resolution {
    code: Option<u8>,
    offset_s: Option<i64>,
    units: fn(u64) -> u64,
}

/// The resolutions and offsets that samples use.
const RESOLUTIONS: [Resolution; 8] = [
    Resolution { code: None, offset_s: None, units: |ns| ns / 1_000 },
    Resolution { code: Some(6), offset_s: Some(0), units: |ns| ns / 1_000 },
    Resolution { code: Some(9), offset_s: None, units: |ns| ns },
    Resolution { code: Some(3), offset_s: Some(-86_400), units: |ns| ns / 1_000_000 + 86_400_000 },
    Resolution {
        code: Some(12),
        offset_s: Some(1_699_999_000),
        units: |ns| (ns - 1_699_999_000_000_000_000) * 1_000,
    },
    Resolution { code: Some(0x82), offset_s: None, units: |ns| ns / 250_000_000 },
    Resolution { code: Some(0x8a), offset_s: Some(-1), units: |ns| ns / 250_000_000 * 256 + 1024 },
    Resolution { code: Some(0xa0), offset_s: None, units: |ns| (ns / 250_000_000) << 30 },
];

fn sections_sample(order: Order, resolution: &Resolution, obsolete: bool) -> Sample {
    let (given, mut file) = (frames(), Blocks::new(order));
    let offset = resolution.offset_s.map(|seconds| order.bytes(seconds.to_le_bytes()));
    let code = resolution.code.map(|code| [code]);
    let mut options: Vec<(u16, &[u8])> = vec![(2, b"eth0")];
    options.extend(code.as_ref().map(|code| (9, &code[..])));
    options.extend(offset.as_ref().map(|offset| (14, &offset[..])));
    file.section().interface(1, 262_144, &options);
    let packets = seen(&given, Some("eth0"));
    for (given, packet) in given.iter().zip(&packets) {
        let units = (resolution.units)(packet.time_ns);
        if obsolete {
            file.obsolete(0, units, &given.bytes, given.length);
        } else {
            file.enhanced(0, units, &given.bytes, given.length);
        }
        // Statistics, and a block of unknown type.
        file.block(5, &[0; 12]).block(0x0bad_cafe, b"what?");
    }
    let title =
        format!("pcapng {order:?} {:?} {:?} obsolete: {obsolete}", resolution.code, resolution.offset_s);
    Sample { title, packets, bytes: file.bytes, ends: file.ends }
}

/// Samples of every format, byte order and resolution.
pub(super) fn table() -> Vec<Sample> {
    let mut rows = vec![];
    for order in [Order::Little, Order::Big] {
        rows.extend([false, true].map(|nanoseconds| classic_sample(order, nanoseconds)));
        for resolution in &RESOLUTIONS {
            rows.extend([false, true].map(|obsolete| sections_sample(order, resolution, obsolete)));
        }
    }
    assert_eq!(rows.len(), 2 * (2 + 2 * RESOLUTIONS.len()));
    rows
}

/// Samples of each format, byte order and packet block.
pub(super) fn samples() -> Vec<Sample> {
    vec![
        classic_sample(Order::Little, true),
        classic_sample(Order::Big, false),
        sections_sample(Order::Little, &RESOLUTIONS[0], false),
        sections_sample(Order::Big, &RESOLUTIONS[3], false),
        sections_sample(Order::Big, &RESOLUTIONS[2], true),
    ]
}

pub(super) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(vec![], Compression::default());
    encoder.write_all(bytes).expect("memory takes it");
    encoder.finish().expect("memory takes it")
}
