//! Reads a capture from its head to its end.

use std::borrow::Cow;
use std::io::Read;
use std::path::Path;

use handshake_common::wire::Link;

use crate::condition::{Condition, TimedPacket, Timeline};
use crate::error::{CaptureError, Warning};
use crate::format::CaptureFormat;
use crate::link;
use crate::origin::Origins;
use crate::record::RawPacket;
use crate::stream::{self, Stop, StreamWindow};

/// The latest time returned, in 2262, ns. A timeout added to it still fits a `u64`.
const MAX_TIME_NS: u64 = i64::MAX as u64;

/// An open capture.
pub struct Capture {
    /// The file's name for messages.
    name: String,
    window: StreamWindow,
    format: CaptureFormat,
    /// Packets read so far, including skipped ones: the number of the latest packet as Wireshark counts.
    packets: u64,
    /// All but `dropped`, which the format knows.
    condition: Condition,
    timeline: Timeline,
    origins: Origins,
    ended: bool,
    /// The reason for stopping before the end of the input.
    fault: Option<Warning>,
}

/// A packet with a supported link type, as it was captured.
#[derive(Debug)]
pub struct CapturedPacket<'a> {
    /// Nanoseconds since the Unix epoch, at most `i64::MAX`. Packets are in file order, which need not be
    /// time order.
    pub time_ns: u64,
    /// Whether the record has no time, and `time_ns` is the previous packet's.
    pub is_untimed: bool,
    /// The type of header that `bytes` begins with.
    pub link: Link,
    /// Number of the interface that it came from, in the order of their first packets, counted from 0 across
    /// all sections. In a Linux cooked capture (version 2) each interface of the host has its number.
    pub interface: u32,
    /// The interface's name if the file has one, without control characters; `if3` for a host's interface that
    /// is known by its index alone.
    pub interface_name: Option<&'a str>,
    /// The captured part of the packet.
    pub bytes: &'a [u8],
    /// Length of the packet on the wire, bytes; at least the length of `bytes`.
    pub length: u32,
}

impl Capture {
    /// Opens the capture at `path` and reads its head; `-` is standard input. Blocks until a FIFO has a
    /// writer.
    ///
    /// # Errors
    ///
    /// The file is missing, cannot be read, or is not a capture.
    pub fn open(path: &Path) -> Result<Self, CaptureError> {
        let name = if path == Path::new("-") { "standard input".into() } else { path.display().to_string() };
        match stream::open(path) {
            Ok(file) => Self::read_from(name, file),
            Err(error) => Err(CaptureError::from_system(name, error)),
        }
    }

    /// Reads the head of `source`; `name` is its name in messages.
    ///
    /// # Errors
    ///
    /// The source cannot be read or is not a capture.
    pub fn read_from(name: String, source: impl Read + Send + 'static) -> Result<Self, CaptureError> {
        let mut window = match StreamWindow::new(source) {
            Ok(window) => window,
            Err(error) => return Err(CaptureError::unreadable(name, error)),
        };
        let format =
            CaptureFormat::detect(&mut window).map_err(|stop| not_a_capture(&name, &window, stop))?;
        Ok(Self {
            name,
            window,
            format,
            packets: 0,
            condition: Condition::default(),
            timeline: Timeline::default(),
            origins: Origins::default(),
            ended: false,
            fault: None,
        })
    }

    /// The next packet with a supported link type, in file order. `None` at the end of the file, and where
    /// the file is cut short or damaged: [`warnings`](Self::warnings) says which.
    ///
    /// # Errors
    ///
    /// The system fails to read the input.
    pub fn next_packet(&mut self) -> Result<Option<CapturedPacket<'_>>, CaptureError> {
        while !self.ended {
            match self.next_record() {
                Ok((length, Some((packet, link)))) => return Ok(Some(self.present(length, &packet, link))),
                Ok((length, None)) => {
                    self.window.take(length);
                }
                Err(stop) => self.end(stop)?,
            }
        }
        Ok(None)
    }

    /// Warnings about the part read so far. The list is complete once [`next_packet`](Self::next_packet) has
    /// returned `None`.
    pub fn warnings(&self) -> Vec<Warning> {
        let condition = self.condition();
        let mut warnings: Vec<_> = self.skips().collect();
        if let Some(packets @ 1..) = condition.dropped {
            warnings.push(Warning::Dropped { packets });
        }
        if condition.untimed > 0 {
            warnings.push(Warning::Untimed { packets: condition.untimed });
        }
        if condition.out_of_range > 0 {
            warnings.push(Warning::OutOfRange { packets: condition.out_of_range });
        }
        warnings.extend(condition.out_of_order.map(Warning::OutOfOrder));
        if condition.clock.steps_back > 0 {
            warnings.push(Warning::ClockBack(condition.clock));
        }
        warnings.extend(self.fault.clone());
        warnings
    }

    /// The condition of the part read so far. It is complete once [`next_packet`](Self::next_packet) has
    /// returned `None`.
    pub fn condition(&self) -> Condition {
        Condition { dropped: self.format.dropped(), ..self.condition.clone() }
    }

    /// The error of a capture none of whose packets could be read; `None` where one was, and where there are
    /// none to read. It is final once [`next_packet`](Self::next_packet) has returned `None`.
    pub fn nothing_read(&self) -> Option<CaptureError> {
        if self.packets > self.skipped() {
            return None;
        }
        let skipped: Vec<_> = self.skips().map(|warning| warning.to_string()).collect();
        let reason = if skipped.is_empty() {
            format!("{}; capture or copy it again", self.fault.as_ref()?.at_first_packet()?)
        } else {
            format!("{}; capture on an interface of type {}", skipped.join("; "), link::SUPPORTED)
        };
        Some(CaptureError::NothingRead { name: self.name.clone(), reason })
    }

    /// A warning for each link type that is not supported.
    fn skips(&self) -> impl Iterator<Item = Warning> {
        let skipped = self.condition.skipped.iter();
        skipped.map(|(&link_type, &packets)| Warning::Skipped { link_type, packets })
    }

    /// Number of packets read so far, including skipped ones.
    pub fn packets(&self) -> u64 {
        self.packets
    }

    /// Number of packets skipped so far because their link types are not supported.
    pub fn skipped(&self) -> u64 {
        self.condition.skipped()
    }

    /// Number of packets that were dropped while capturing, by the statistics read so far; `None` where there
    /// are none.
    pub fn dropped(&self) -> Option<u64> {
        self.format.dropped()
    }

    /// Whether a record is invalid, so that nothing more is read.
    pub const fn is_damaged(&self) -> bool {
        self.condition.damaged
    }

    /// Whether the input has ended within a record.
    pub const fn is_truncated(&self) -> bool {
        self.condition.truncated
    }

    /// Memory held, bytes.
    #[cfg(test)]
    pub(crate) fn capacity(&self) -> usize {
        self.window.capacity()
    }

    /// The next record's length, and its packet if the link type is supported. The record stays in the
    /// window.
    fn next_record(&mut self) -> Result<(usize, Option<(RawPacket, Link)>), Stop> {
        let length = self.format.whole_record(&mut self.window)?;
        let record = &self.window.rest()[..length];
        let Some(packet) = self.format.decode(record)? else { return Ok((length, None)) };
        self.packets += 1;
        let link_type = self.format.interfaces()[packet.interface].link_type;
        let Some(link) = link::of(link_type) else {
            *self.condition.skipped.entry(link_type).or_default() += 1;
            return Ok((length, None));
        };
        Ok((length, Some((packet, link))))
    }

    fn present(&mut self, record: usize, packet: &RawPacket, link: Link) -> CapturedPacket<'_> {
        let time_ns = self.time_ns(packet);
        let bytes = &self.window.take(record)[packet.data.clone()];
        let interface = &self.format.interfaces()[packet.interface];
        let number = self.origins.number(packet.interface, interface, link, bytes);
        CapturedPacket {
            time_ns,
            is_untimed: packet.time.is_none(),
            link,
            interface: u32::try_from(number).unwrap_or(u32::MAX),
            interface_name: self.origins.name(number),
            bytes,
            length: packet.length.max(u32::try_from(bytes.len()).unwrap_or(u32::MAX)),
        }
    }

    /// The time clamped to the supported range; the previous packet's time if the record has none.
    fn time_ns(&mut self, packet: &RawPacket) -> u64 {
        let Some(time) = packet.time else {
            self.condition.untimed += 1;
            return self.timeline.previous_ns();
        };
        let within = time.clamp(0, i128::from(MAX_TIME_NS));
        self.condition.out_of_range += u64::from(within != time);
        let time_ns = u64::try_from(within).unwrap_or(MAX_TIME_NS);
        let (number, section, interface) = (self.packets, packet.section, packet.interface);
        self.timeline.follow(TimedPacket { number, section, interface, time_ns }, &mut self.condition);
        time_ns
    }

    fn end(&mut self, stop: Stop) -> Result<(), CaptureError> {
        let packets = self.packets;
        self.ended = true;
        self.fault = match stop {
            Stop::End => None,
            Stop::Cut(detail) => {
                self.condition.truncated = true;
                Some(Warning::CutShort { packets, detail })
            }
            Stop::Damaged(detail) => {
                self.condition.damaged = true;
                Some(Warning::Damaged { packets, detail })
            }
            Stop::Failed(error) => return Err(CaptureError::unreadable(self.name.clone(), error)),
        };
        Ok(())
    }
}

/// Converts the reason why the head could not be read.
fn not_a_capture(name: &str, window: &StreamWindow, stop: Stop) -> CaptureError {
    let name = name.to_owned();
    let reason = match stop {
        Stop::Failed(error) => return CaptureError::unreadable(name, error),
        Stop::End if window.rest().is_empty() => Cow::Borrowed("it is empty; capture again"),
        Stop::End | Stop::Cut(_) => Cow::Borrowed("it ends within its header; capture or copy it again"),
        Stop::Damaged(reason) => reason,
    };
    CaptureError::NotACapture { name, reason }
}
