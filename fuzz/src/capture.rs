//! The reader of captures on any bytes.

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
    // Where gzip is damaged, the unpacker gives up what it has unpacked within the same read.
    if !whole.is_damaged_gzip() && !pieces.is_damaged_gzip() {
        assert_eq!(whole, pieces, "read {piece} bytes at a time");
    }
}

/// What a capture gave.
#[derive(Debug, Default, PartialEq, Eq)]
struct Seen {
    /// Why it is none.
    error: Option<String>,
    given: u64,
    skipped: u64,
    /// Of every packet, in their order.
    digest: u64,
    warnings: Vec<String>,
}

impl Seen {
    fn is_damaged_gzip(&self) -> bool {
        self.error.iter().chain(&self.warnings).any(|line| line.contains("cannot be decompressed"))
    }
}

fn read(data: &[u8], piece: usize) -> Seen {
    let source = Pieces { data: data.to_vec(), at: 0, piece };
    let mut seen = Seen::default();
    if let Err(error) = read_into(&mut seen, source) {
        seen.error = Some(error);
    }
    for line in seen.error.iter().chain(&seen.warnings) {
        assert!(!line.contains(char::is_control), "a message is one printable line: {line:?}");
    }
    seen
}

fn read_into(seen: &mut Seen, source: Pieces) -> Result<(), String> {
    let mut capture = Capture::read_from("FILE".into(), source).map_err(|error| error.to_string())?;
    let mut digest = DefaultHasher::new();
    loop {
        let packet = capture.next_packet().map_err(|error| error.to_string())?;
        let Some(packet) = packet else { break };
        look_at(&packet, &mut digest);
        seen.given += 1;
    }
    assert!(matches!(capture.next_packet(), Ok(None)), "the end is the end");
    seen.skipped = capture.skipped();
    seen.digest = digest.finish();
    seen.warnings = capture.warnings().iter().map(ToString::to_string).collect();
    Ok(())
}

fn look_at(packet: &CapturedPacket<'_>, digest: &mut DefaultHasher) {
    assert!(i64::try_from(packet.time_ns).is_ok(), "a time that timeouts can be added to");
    assert!(packet.length as usize >= packet.bytes.len(), "the wire had what was captured");
    if let Some(name) = packet.interface_name {
        assert!(!name.contains(char::is_control), "a printable name: {name:?}");
    }
    check(&wire::parse(&Slice { bytes: packet.bytes, length: packet.length }, packet.link));
    (packet.time_ns, packet.interface, packet.interface_name).hash(digest);
    (packet.bytes, packet.length, packet.link as u8).hash(digest);
}

/// A source that gives so many bytes a read at most, as a pipe may.
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
