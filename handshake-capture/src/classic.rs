//! Reads pcap: one file header, then records (draft-ietf-opsawg-pcap).

use std::borrow::Cow;
use std::slice;

use pcap_parser::{
    LegacyPcapBlock, PcapHeader, parse_pcap_frame, parse_pcap_frame_be, parse_pcap_frame_modified,
    parse_pcap_header,
};

use crate::record::{CaptureInterface, Extent, MAX_RECORD, Parsed, RawPacket, complete, extent, whole};
use crate::stream::{Stop, StreamWindow};

/// The largest packet, in bytes, that libpcap and Wireshark accept from a file whose snap length is smaller.
const USUAL_SNAP_LENGTH: u32 = 262_144;
/// Length of the file header, bytes.
const HEADER: usize = 24;

type Parse = for<'a> fn(&'a [u8]) -> Parsed<'a, LegacyPcapBlock<'a>>;

/// Reads the records of one pcap file.
pub(crate) struct Classic {
    parse: Parse,
    /// Bytes of a record that precede the packet.
    record_header: usize,
    /// Nanoseconds per unit of the time stamp's second word.
    unit_ns: u32,
    snap_length: u32,
    interface: CaptureInterface,
}

impl Classic {
    /// Reads the header at the window's start.
    pub(crate) fn detect(window: &mut StreamWindow) -> Result<Self, Stop> {
        let length = whole(window, HEADER, |input| {
            extent(input, parse_pcap_header(input), "").map_err(|_| Stop::Damaged(unknown_format(input)))
        })?;
        let header = complete(parse_pcap_header(window.take(length)), "an invalid header")?;
        // Version 543.0 was written by an old vendor's libpcap; libpcap still reads it as 2.4.
        if !matches!(header.version_major, 2 | 543) {
            let (major, minor) = (header.version_major, header.version_minor);
            return Err(Stop::Damaged(Cow::Owned(format!(
                "it has the unknown pcap version {major}.{minor}"
            ))));
        }
        Ok(Self::new(&header))
    }

    fn new(header: &PcapHeader) -> Self {
        let (parse, record_header): (Parse, usize) = if header.is_modified_format() {
            (parse_pcap_frame_modified, 24)
        } else if header.is_bigendian() {
            (parse_pcap_frame_be, 16)
        } else {
            (parse_pcap_frame, 16)
        };
        // The upper half of the field holds the length of the frame check sequence, and reserved bits.
        let [low, high, ..] = header.network.0.to_le_bytes();
        Self {
            parse,
            record_header,
            unit_ns: if header.is_nanosecond_precision() { 1 } else { 1_000 },
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
        extent(input, (self.parse)(input), "an invalid record")
    }

    pub(crate) fn decode(&self, record: &[u8]) -> Result<RawPacket, Stop> {
        let block = complete((self.parse)(record), "an invalid record")?;
        let within_second = i128::from(block.ts_usec) * i128::from(self.unit_ns);
        Ok(RawPacket {
            interface: 0,
            section: 0,
            time: Some(i128::from(block.ts_sec) * 1_000_000_000 + within_second),
            data: self.record_header..record.len(),
            length: block.origlen,
        })
    }

    pub(crate) fn interfaces(&self) -> &[CaptureInterface] {
        slice::from_ref(&self.interface)
    }
}

/// Names the format of a file that is neither pcap nor pcapng, and how to convert it if that is possible.
fn unknown_format(head: &[u8]) -> Cow<'static, str> {
    const KNOWN: [(&[u8], &str); 6] = [
        (b"\x28\xb5\x2f\xfd", "it is compressed by zstd; decompress it: zstd -dc FILE | handshake replay -"),
        (b"\xfd7zX", "it is compressed by xz; decompress it: xz -dc FILE | handshake replay -"),
        (b"BZh", "it is compressed by bzip2; decompress it: bzip2 -dc FILE | handshake replay -"),
        (b"\x04\x22\x4d\x18", "it is compressed by lz4; decompress it: lz4 -dc FILE | handshake replay -"),
        (b"PK\x03\x04", "it is a zip archive; unpack it: unzip -p FILE | handshake replay -"),
        (b"snoo", "it is a snoop file; convert it: editcap -F pcapng FILE OUT.pcapng"),
    ];
    for (magic, what) in KNOWN {
        if head.starts_with(magic) {
            return Cow::Borrowed(what);
        }
    }
    let head: Vec<String> = head.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
    let head = head.join(" ");
    Cow::Owned(format!("it begins with {head}; name a pcap or pcapng file, plain or gzip"))
}
