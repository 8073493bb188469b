//! Reads a capture from its head to its end.

use std::borrow::Cow;
use std::io::Read;
use std::path::Path;

use handshake_common::wire::{Link, Slice, ethertype_of};

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
    /// The next packet, which the window still holds.
    next: Option<NextPacket>,
    ended: bool,
    /// The reason for stopping before the end of the input.
    fault: Option<Warning>,
}

/// What captures lack, as far as they are read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CaptureLosses {
    /// Packets skipped because their link types are not supported.
    pub skipped: u64,
    /// Packets that were dropped while capturing, by the files' own statistics.
    pub dropped: u64,
    /// Files that are damaged.
    pub damaged: u64,
    /// Files that end within a record.
    pub truncated: u64,
}

impl CaptureLosses {
    /// Puts `now` in the place of what a file lacked before.
    pub(crate) fn replace(&mut self, before: &mut Self, now: Self) {
        if *before == now {
            return;
        }
        let replaced = |all: u64, before: u64, now: u64| (all - before).saturating_add(now);
        self.skipped = replaced(self.skipped, before.skipped, now.skipped);
        self.dropped = replaced(self.dropped, before.dropped, now.dropped);
        self.damaged = replaced(self.damaged, before.damaged, now.damaged);
        self.truncated = replaced(self.truncated, before.truncated, now.truncated);
        *before = now;
    }
}

/// A packet that is decoded and not taken.
struct NextPacket {
    /// Length of its record.
    record: usize,
    packet: RawPacket,
    link: Link,
    time_ns: u64,
}

/// A packet with a supported link type, as it was captured.
#[derive(Debug)]
pub struct CapturedPacket<'a> {
    /// Which of the files it is from, counted from 0.
    pub file: usize,
    /// Its number in its file, counted from 1 as in Wireshark.
    pub number: u64,
    /// Nanoseconds since the Unix epoch, at most `i64::MAX`. Packets of a file are in its order, which need
    /// not be time order.
    pub time_ns: u64,
    /// Whether the record has no time, and `time_ns` is the previous packet's.
    pub is_untimed: bool,
    /// The type of header that `bytes` begins with.
    pub link: Link,
    /// Number of the interface that it came from, in the order of their first packets, counted from 0 across
    /// all sections. In a Linux cooked capture (version 2) each interface of the host has its number.
    pub interface: u32,
    /// The interface's name if the file has one, without control characters; `if3` for a host's interface
    /// that is known by its index alone.
    pub interface_name: Option<&'a str>,
    /// The captured part of the packet.
    pub bytes: &'a [u8],
    /// Length of the packet on the wire, bytes; at least the length of `bytes`.
    pub length: u32,
}

impl CapturedPacket<'_> {
    /// The EtherType of its frame, that behind the shims which are entered; a number below 0x600 is that of
    /// an LLC frame. `None` where the link has none, or the frame is too short.
    #[must_use]
    pub fn ether_type(&self) -> Option<u16> {
        ethertype_of(&Slice { bytes: self.bytes, length: self.length }, self.link)
    }
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
        let mut window = StreamWindow::new(source);
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
            next: None,
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
        self.find_next()?;
        Ok(self.next.take().map(|next| self.present(next)))
    }

    /// The time of the packet that [`next_packet`](Self::next_packet) returns next; `None` at the end.
    ///
    /// # Errors
    ///
    /// The system fails to read the input.
    pub(crate) fn next_time(&mut self) -> Result<Option<u64>, CaptureError> {
        self.find_next()?;
        Ok(self.next.as_ref().map(|next| next.time_ns))
    }

    fn find_next(&mut self) -> Result<(), CaptureError> {
        while self.next.is_none() && !self.ended {
            match self.next_record() {
                Ok((record, Some((packet, link)))) => {
                    let time_ns = self.time_ns(&packet);
                    self.next = Some(NextPacket { record, packet, link, time_ns });
                }
                Ok((length, None)) => {
                    self.window.take(length);
                }
                Err(stop) => self.end(stop)?,
            }
        }
        Ok(())
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

    /// What the part read so far lacks.
    pub(crate) fn losses(&self) -> CaptureLosses {
        CaptureLosses {
            skipped: self.condition.skipped(),
            dropped: self.format.dropped().unwrap_or(0),
            damaged: self.condition.damaged.into(),
            truncated: self.condition.truncated.into(),
        }
    }

    /// Bytes of the file that have been read.
    pub(crate) fn consumed(&self) -> u64 {
        self.window.consumed()
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
        let Some(mut packet) = self.format.decode(record)? else { return Ok((length, None)) };
        self.packets += 1;
        let outer = self.format.interfaces()[packet.interface].link_type;
        let (link_type, skipped) = link::unwrapped(outer, &record[packet.data.clone()]);
        packet.data.start += skipped;
        packet.length = packet.length.saturating_sub(u32::try_from(skipped).unwrap_or(u32::MAX));
        let Some(link) = link::of(link_type) else {
            *self.condition.skipped.entry(link_type).or_default() += 1;
            return Ok((length, None));
        };
        Ok((length, Some((packet, link))))
    }

    fn present(&mut self, next: NextPacket) -> CapturedPacket<'_> {
        let NextPacket { record, packet, link, time_ns } = next;
        let bytes = &self.window.take(record)[packet.data];
        let interface = &self.format.interfaces()[packet.interface];
        let number = self.origins.number(packet.interface, interface, link, bytes);
        CapturedPacket {
            file: 0,
            number: self.packets,
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
