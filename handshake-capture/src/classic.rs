//! Reads pcap: one file header, then records (draft-ietf-opsawg-pcap).

use std::borrow::Cow;
use std::slice;

use pcap_parser::{PcapHeader, parse_pcap_header};

use crate::record::{CaptureInterface, Extent, MAX_RECORD, RawPacket, complete, extent, whole};
use crate::stream::{Stop, StreamWindow};

/// The largest packet, in bytes, that libpcap and Wireshark accept from a file whose snap length is smaller.
const USUAL_SNAP_LENGTH: u32 = 262_144;
/// Bytes by which other formats are told apart.
const HEAD: usize = 2048;
/// Length of the file header, bytes.
const HEADER: usize = 24;
/// The magic number of the modified format, with longer record headers, in big-endian order. The parser knows
/// the little-endian one alone.
const MODIFIED_BIG_ENDIAN: [u8; 4] = [0xa1, 0xb2, 0xcd, 0x34];
/// The magic number of the usual format in big-endian order.
const BIG_ENDIAN: [u8; 4] = [0xa1, 0xb2, 0xc3, 0xd4];

/// Reads the records of one pcap file.
pub(crate) struct Classic {
    is_big_endian: bool,
    /// Bytes of a record that precede the packet.
    record_header: usize,
    /// Nanoseconds per unit of the time stamp's second word.
    unit_ns: u32,
    lengths: Lengths,
    snap_length: u32,
    interface: CaptureInterface,
}

/// The order of a record's two lengths (`lengths_swapped` in libpcap's sf-pcap.c).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lengths {
    /// The captured length, then that on the wire.
    CapturedFirst,
    /// The other way round, as written before version 2.3 and in version 543.0 of DG/UX.
    WireFirst,
    /// The captured length is the smaller one: version 2.3 was written both ways.
    SmallerCaptured,
}

/// The fields of a record's header.
struct RecordHeader {
    seconds: u32,
    fraction: u32,
    captured: u32,
    length: u32,
}

impl Classic {
    /// Reads the header at the window's start.
    pub(crate) fn detect(window: &mut StreamWindow) -> Result<Self, Stop> {
        let header = whole(window, HEADER, |input| extent(input, parse_pcap_header(&usual(input)), ""));
        let length = match header {
            Err(Stop::Damaged(_)) => {
                // Some formats are known by their second record. A shorter file has what it has.
                let _ = window.need(HEAD);
                return Err(Stop::Damaged(unknown_format(window.rest())));
            }
            header => header?,
        };
        let head = window.take(length);
        let is_modified = head.starts_with(&MODIFIED_BIG_ENDIAN);
        let head = usual(head);
        let header = complete(parse_pcap_header(&head), "an invalid header")?;
        let lengths = match (header.version_major, header.version_minor) {
            (2, ..3) | (543, _) => Lengths::WireFirst,
            (2, 3) => Lengths::SmallerCaptured,
            (2, _) => Lengths::CapturedFirst,
            (major, minor) => {
                let reason = format!("it has the unknown pcap version {major}.{minor}");
                return Err(Stop::Damaged(Cow::Owned(reason)));
            }
        };
        Ok(Self::new(&header, is_modified, lengths))
    }

    fn new(header: &PcapHeader, is_modified: bool, lengths: Lengths) -> Self {
        // The upper half of the field holds the length of the frame check sequence, and reserved bits.
        let [low, high, ..] = header.network.0.to_le_bytes();
        Self {
            is_big_endian: header.is_bigendian(),
            record_header: if is_modified || header.is_modified_format() { 24 } else { 16 },
            unit_ns: if header.is_nanosecond_precision() { 1 } else { 1_000 },
            lengths,
            snap_length: header.snaplen,
            interface: CaptureInterface { name: None, link_type: u16::from_le_bytes([low, high]) },
        }
    }

    /// Maximum length of a record, header included, bytes.
    pub(crate) fn limit(&self) -> usize {
        let packet = self.snap_length.max(USUAL_SNAP_LENGTH) as usize;
        packet.min(MAX_RECORD) + self.record_header
    }

    pub(crate) fn extent(&self, input: &[u8]) -> Result<Extent, Stop> {
        let Some(header) = self.record(input) else {
            return Ok(Extent::Missing(self.record_header - input.len()));
        };
        let length = self.record_header.saturating_add(header.captured as usize);
        Ok(match length.checked_sub(input.len()) {
            Some(more @ 1..) => Extent::Missing(more),
            Some(0) | None => Extent::Whole(length),
        })
    }

    pub(crate) fn decode(&self, record: &[u8]) -> Result<RawPacket, Stop> {
        let header = self.record(record).ok_or_else(|| Stop::damaged("an invalid record"))?;
        let within_second = i128::from(header.fraction) * i128::from(self.unit_ns);
        Ok(RawPacket {
            interface: 0,
            section: 0,
            time: Some(i128::from(header.seconds) * 1_000_000_000 + within_second),
            data: self.record_header..record.len(),
            length: header.length,
        })
    }

    /// The header that `input` begins with; `None` if it is not complete.
    fn record(&self, input: &[u8]) -> Option<RecordHeader> {
        let (words, _) = input.get(..self.record_header)?.as_chunks();
        let word = |at: usize| -> Option<u32> {
            let bytes = *words.get(at)?;
            Some(if self.is_big_endian { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) })
        };
        let (first, second) = (word(2)?, word(3)?);
        let (captured, length) = match self.lengths {
            Lengths::CapturedFirst => (first, second),
            Lengths::WireFirst => (second, first),
            Lengths::SmallerCaptured => (first.min(second), first.max(second)),
        };
        Some(RecordHeader { seconds: word(0)?, fraction: word(1)?, captured, length })
    }

    pub(crate) fn interfaces(&self) -> &[CaptureInterface] {
        slice::from_ref(&self.interface)
    }
}

/// The header with the usual magic number where it has the modified one in big-endian order.
fn usual(head: &[u8]) -> Cow<'_, [u8]> {
    match head.strip_prefix(&MODIFIED_BIG_ENDIAN) {
        Some(rest) => Cow::Owned([&BIG_ENDIAN, rest].concat()),
        None => Cow::Borrowed(head),
    }
}

/// Names the format of a file that is neither pcap nor pcapng, and how to convert it if that is possible.
fn unknown_format(head: &[u8]) -> Cow<'static, str> {
    const NETMON: &str =
        "it is a file of Microsoft Network Monitor; convert it: editcap -F pcapng FILE OUT.pcapng";
    const KNOWN: [(&[u8], &str); 4] = [
        (b"PK\x03\x04", "it is a zip archive; unpack it: unzip -p FILE | handshake replay -"),
        (b"snoop\0\0\0", "it is a snoop file; convert it: editcap -F pcapng FILE OUT.pcapng"),
        (b"GMBU", NETMON),
        (b"RTSS", NETMON),
    ];
    for (magic, what) in KNOWN {
        if head.starts_with(magic) {
            return Cow::Borrowed(what);
        }
    }
    if is_erf(head) {
        return Cow::Borrowed("it is an ERF file; convert it: editcap -F pcapng FILE OUT.pcapng");
    }
    let head: Vec<String> = head.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
    let head = head.join(" ");
    Cow::Owned(format!("it begins with {head}; name a pcap or pcapng file, plain or compressed"))
}

/// Are these records of Endace's format (ERF)? It has no magic number: a record begins with a time (the lower
/// half a fraction of a second, little-endian), a type, flags, and its own length (big-endian), and another
/// follows it.
fn is_erf(input: &[u8]) -> bool {
    const HEADER: usize = 16;
    /// From 1990 to 2106.
    const SECONDS: std::ops::RangeFrom<u32> = 631_152_000..;
    /// The types that Wireshark knows; the upper bit announces more headers.
    const TYPES: std::ops::RangeInclusive<u8> = 1..=48;
    let length = |record: &[u8]| {
        let (seconds, kind) = (u32::from_le_bytes(*record.get(4..)?.first_chunk()?), record.get(8)? & 0x7f);
        let length = usize::from(u16::from_be_bytes(*record.get(10..)?.first_chunk()?));
        (length >= HEADER && SECONDS.contains(&seconds) && TYPES.contains(&kind)).then_some(length)
    };
    let Some(rest) = length(input).map(|length| input.get(length..).unwrap_or_default()) else {
        return false;
    };
    rest.len() < HEADER || length(rest).is_some()
}
