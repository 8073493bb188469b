//! Fuzzes the capture reader with any bytes.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Read};

use handshake_capture::{Capture, CapturedPacket};
use handshake_common::wire::{self, Slice};

use crate::parse::check;

/// Reads the bytes as a capture, at once and in small pieces: both must give the same.
pub fn capture(data: &[u8]) {
    let piece = 1 + data.len() % 29;
    let whole = read(data, data.len().max(1));
    let pieces = read(data, piece);
    // In damaged gzip the two may differ: the decompressor discards what it has decompressed within the
    // failing read.
    if !whole.is_damaged_gzip() && !pieces.is_damaged_gzip() {
        assert_eq!(whole, pieces, "read {piece} bytes at a time");
    }
}

/// The result of reading a capture.
#[derive(Debug, Default, PartialEq, Eq)]
struct PacketsSeen {
    /// The error that ended the reading, if there was one.
    error: Option<String>,
    given: u64,
    skipped: u64,
    /// A hash over every packet, in order.
    digest: u64,
    warnings: Vec<String>,
}

impl PacketsSeen {
    fn is_damaged_gzip(&self) -> bool {
        self.error.iter().chain(&self.warnings).any(|line| line.contains("cannot be decompressed"))
    }
}

fn read(data: &[u8], piece: usize) -> PacketsSeen {
    let source = Pieces { data: data.to_vec(), at: 0, piece };
    let mut seen = PacketsSeen::default();
    if let Err(error) = read_into(&mut seen, source) {
        seen.error = Some(error);
    }
    for line in seen.error.iter().chain(&seen.warnings) {
        assert!(!line.contains(char::is_control), "a message is one printable line: {line:?}");
    }
    seen
}

fn read_into(seen: &mut PacketsSeen, source: Pieces) -> Result<(), String> {
    let mut capture = Capture::read_from("FILE".into(), source).map_err(|error| error.to_string())?;
    let mut digest = DefaultHasher::new();
    loop {
        let packet = capture.next_packet().map_err(|error| error.to_string())?;
        let Some(packet) = packet else { break };
        look_at(&packet, &mut digest);
        seen.given += 1;
    }
    assert!(matches!(capture.next_packet(), Ok(None)), "the end of a capture is final");
    seen.skipped = capture.skipped();
    seen.digest = digest.finish();
    seen.warnings = capture.warnings().iter().map(ToString::to_string).collect();
    seen.warnings.extend(capture.nothing_read().map(|error| error.to_string()));
    Ok(())
}

fn look_at(packet: &CapturedPacket<'_>, digest: &mut DefaultHasher) {
    assert!(i64::try_from(packet.time_ns).is_ok(), "timeouts can be added to the time");
    assert!(packet.length as usize >= packet.bytes.len(), "no more bytes are captured than the wire had");
    if let Some(name) = packet.interface_name {
        assert!(!name.contains(char::is_control), "a printable name: {name:?}");
    }
    check(&wire::parse(&Slice { bytes: packet.bytes, length: packet.length }, packet.link));
    (packet.time_ns, packet.interface, packet.interface_name).hash(digest);
    (packet.bytes, packet.length, packet.link as u8).hash(digest);
}

/// A source that gives at most `piece` bytes per read, as a pipe may.
struct Pieces {
    data: Vec<u8>,
    at: usize,
    piece: usize,
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let rest = &self.data[self.at..];
        let length = rest.len().min(self.piece).min(buffer.len());
        buffer[..length].copy_from_slice(&rest[..length]);
        self.at += length;
        Ok(length)
    }
}
