//! Builds captures, and reads the frames of existing ones.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use handshake_lab::frame::{BuiltSegment, Mac, tcp_frame};

use crate::support::{Replayed, replay};

/// The initiator.
pub(crate) const CLIENT: &str = "192.0.2.1:40000";
/// The responder.
pub(crate) const SERVER: &str = "198.51.100.2:443";
/// Source and destination MAC address of every frame.
pub(crate) const MACS: [Mac; 2] = [Mac([2, 0, 0, 0, 0, 1]), Mac([2, 0, 0, 0, 0, 2])];

/// A segment: its sender, flags, sequence number and acknowledgement number.
pub(crate) type Row = (&'static str, u8, u32, u32);

/// Replays the segments, one millisecond apart.
pub(crate) fn play(name: &str, rows: &[Row]) -> Result<Replayed> {
    // Longer than a copy of a SYN takes.
    replay(Made::segments(name, 20_000, rows)?.path(), &[])
}

/// The frame of a segment between client and server.
pub(crate) fn frame((source, flags, seq, ack): &Row) -> Result<Vec<u8>> {
    frame_between([source, if *source == CLIENT { SERVER } else { CLIENT }], *flags, *seq, *ack)
}

/// The frame of a segment from the first of two ends to the second.
pub(crate) fn frame_between(ends: [&str; 2], flags: u8, seq: u32, ack: u32) -> Result<Vec<u8>> {
    let (source, destination): (SocketAddr, SocketAddr) = (ends[0].parse()?, ends[1].parse()?);
    let segment = BuiltSegment { source, destination, seq, ack, flags, payload: b"" };
    tcp_frame(MACS, &segment)
}

/// A capture file built by the test; removed on drop.
#[derive(Debug)]
pub(crate) struct Made(PathBuf);

impl Made {
    /// Writes a pcap file of Ethernet frames, each with its time in microseconds.
    pub(crate) fn of(name: &str, frames: &[(u64, Vec<u8>)]) -> Result<Self> {
        let recorded = |(time_us, bytes): &(u64, Vec<u8>)| {
            let length = u32::try_from(bytes.len())?;
            Ok(Recorded { time_ns: time_us * 1_000, length, bytes: bytes.clone() })
        };
        Self::record(name, &frames.iter().map(recorded).collect::<Result<Vec<_>>>()?)
    }

    /// Writes the segments as frames, `pause_us` apart.
    pub(crate) fn segments(name: &str, pause_us: u64, rows: &[Row]) -> Result<Self> {
        let frames = rows.iter().zip(0..).map(|(row, at)| Ok((pause_us * at, frame(row)?)));
        Self::of(name, &frames.collect::<Result<Vec<_>>>()?)
    }

    /// Writes a pcap file of these frames, with nanoseconds.
    pub(crate) fn record(name: &str, frames: &[Recorded]) -> Result<Self> {
        Self::record_of(LINKTYPE_ETHERNET, name, frames)
    }

    /// The same of another link type.
    pub(crate) fn record_of(link_type: u32, name: &str, frames: &[Recorded]) -> Result<Self> {
        Self::write(name, &pcap(link_type, frames)?)
    }

    /// Writes a file with this content.
    pub(crate) fn write(name: &str, bytes: &[u8]) -> Result<Self> {
        let file = std::env::temp_dir().join(format!("handshake-{}-{name}.pcap", std::process::id()));
        fs::write(&file, bytes).with_context(|| format!("write {}", file.display()))?;
        Ok(Self(file))
    }

    /// The path of the file.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// The magic number of pcap with nanoseconds.
const NANOSECONDS: u32 = 0xa1b2_3c4d;
/// The magic number of pcap with microseconds.
const MICROSECONDS: u32 = 0xa1b2_c3d4;
/// The link type of Ethernet.
pub(crate) const LINKTYPE_ETHERNET: u32 = 1;

/// A pcap file of these frames, with nanoseconds.
pub(crate) fn pcap(link_type: u32, frames: &[Recorded]) -> Result<Vec<u8>> {
    // The magic number, version 2.4, UTC, and a snap length that cuts nothing.
    let mut bytes = words(&[NANOSECONDS, 4 << 16 | 2, 0, 0, 262_144, link_type]);
    for frame in frames {
        let seconds = u32::try_from(frame.time_ns / 1_000_000_000)?;
        let rest = u32::try_from(frame.time_ns % 1_000_000_000)?;
        bytes.extend(words(&[seconds, rest, u32::try_from(frame.bytes.len())?, frame.length]));
        bytes.extend(&frame.bytes);
    }
    Ok(bytes)
}

/// The words in little-endian order.
pub(crate) fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// A frame in a capture.
#[derive(Clone, Debug)]
pub(crate) struct Recorded {
    /// Nanoseconds since the Unix epoch.
    pub(crate) time_ns: u64,
    /// Length on the wire, bytes.
    pub(crate) length: u32,
    /// The captured bytes.
    pub(crate) bytes: Vec<u8>,
}

/// Reads the frames of a pcap file; `None` if they are not Ethernet.
pub(crate) fn read_ethernet(path: &Path) -> Result<Option<Vec<Recorded>>> {
    let (link_type, frames) = read_pcap(path)?;
    Ok((link_type == LINKTYPE_ETHERNET).then_some(frames))
}

/// Reads the link type and the frames of a pcap file without the reader under test.
pub(crate) fn read_pcap(path: &Path) -> Result<(u32, Vec<Recorded>)> {
    let bytes = fs::read(path).with_context(|| format!("read {}", path.display()))?;
    let (header, mut rest) = bytes.split_at_checked(24).context("no header")?;
    let little = |at: &[u8]| u32::from_le_bytes([at[0], at[1], at[2], at[3]]);
    let swapped = !matches!(little(header), NANOSECONDS | MICROSECONDS);
    let word = |at: &[u8]| if swapped { little(at).swap_bytes() } else { little(at) };
    let scale = match word(header) {
        NANOSECONDS => 1,
        MICROSECONDS => 1_000,
        other => bail!("{}: not a pcap file: {other:#x}", path.display()),
    };
    let mut frames = Vec::new();
    while let Some((header, after)) = rest.split_at_checked(16) {
        let captured = word(&header[8..]) as usize;
        let (frame, after) = after.split_at_checked(captured).context("cut short")?;
        let time_ns = u64::from(word(header)) * 1_000_000_000 + u64::from(word(&header[4..])) * scale;
        frames.push(Recorded { time_ns, length: word(&header[12..]), bytes: frame.to_vec() });
        rest = after;
    }
    Ok((word(&header[20..]), frames))
}
