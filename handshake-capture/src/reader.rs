//! A capture from its head to its end.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::{self, ErrorKind, Read};
use std::path::Path;

use handshake_common::wire::Link;

use crate::link;
use crate::record::{Format, Packet};
use crate::stream::{self, Stop, Window};

/// The latest time that is given: in 2262. What adds a timeout to it stays within a `u64`.
const MAX_TIME_NS: u64 = i64::MAX as u64;

/// An open capture.
pub struct Capture {
    /// The file in messages.
    name: String,
    window: Window,
    format: Format,
    /// Packets met so far, those skipped included: the number of the latest as Wireshark counts.
    packets: u64,
    skipped: BTreeMap<u16, u64>,
    untimed: u64,
    out_of_range: u64,
    latest_ns: u64,
    ended: bool,
    /// Why it ended before its end.
    fault: Option<Warning>,
}

/// A packet that can be read, as it was captured.
#[derive(Debug)]
pub struct CapturedPacket<'a> {
    /// Nanoseconds since the Unix epoch, at most `i64::MAX`. Not in order where the file is not.
    pub time_ns: u64,
    /// What `bytes` begins with.
    pub link: Link,
    /// The interface's number in the file, counted from 0 through all sections.
    pub interface: u32,
    /// The interface's name, where the file gives one; printable.
    pub interface_name: Option<&'a str>,
    /// What was captured of the packet.
    pub bytes: &'a [u8],
    /// Octets the packet had on the wire; at least what `bytes` has.
    pub length: u32,
}

/// Why a capture cannot be read. Each says in one line which file, and what to do.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each field's name says it")]
pub enum Error {
    /// There is no such file.
    #[error("{name}: no such file; check the path")]
    NotFound { name: String },
    /// The system does not let us read it.
    #[error("cannot read {name}: {error}; {fix}")]
    Unreadable { name: String, error: io::Error, fix: &'static str },
    /// It is something else.
    #[error("{name} is no capture: {reason}")]
    NotACapture { name: String, reason: Cow<'static, str> },
}

/// What the reader of a report should know about a capture that could be read. Each is one line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "each field's name says it")]
pub enum Warning {
    /// The input ends within a record.
    #[error("capture cut short after packet {packets}: {detail}")]
    CutShort { packets: u64, detail: &'static str },
    /// A record cannot be; what follows it is not read.
    #[error("capture damaged after packet {packets}, read up to there: next is {detail}")]
    Damaged { packets: u64, detail: Cow<'static, str> },
    /// Packets on a link type that is not read.
    #[error("link type {} is not read; packets skipped: {packets}", link::describe(*link_type))]
    Skipped { link_type: u16, packets: u64 },
    /// Packets, and none that could be read.
    #[error("none of the {packets} packets could be read; capture on an interface that gives {}", link::READ)]
    NothingRead { packets: u64 },
    /// Packets whose records have no time (simple packet blocks).
    #[error("packets without a time stamp: {packets}; each takes the time of the packet before it")]
    Untimed { packets: u64 },
    /// Time stamps before 1970 or after 2262.
    #[error("packets with a time stamp before 1970 or after 2262: {packets}; each takes the nearest within")]
    OutOfRange { packets: u64 },
}

impl Capture {
    /// Opens the capture at `path` and reads its head; `-` is standard input. Waits for a FIFO's writer.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let name = if path == Path::new("-") { "standard input".into() } else { path.display().to_string() };
        match stream::open(path) {
            Ok(file) => Self::read_from(name, file),
            Err(error) if is_missing(&error) => Err(Error::NotFound { name }),
            Err(error) => Err(unreadable(name, error)),
        }
    }

    /// Reads the head of what `source` brings; `name` stands for it in messages.
    pub fn read_from(name: String, source: impl Read + Send + 'static) -> Result<Self, Error> {
        let mut window = match Window::new(source) {
            Ok(window) => window,
            Err(error) => return Err(unreadable(name, error)),
        };
        let format = Format::detect(&mut window).map_err(|stop| no_capture(&name, &window, stop))?;
        Ok(Self {
            name,
            window,
            format,
            packets: 0,
            skipped: BTreeMap::new(),
            untimed: 0,
            out_of_range: 0,
            latest_ns: 0,
            ended: false,
            fault: None,
        })
    }

    /// The next packet of a link type that is read, in the file's order; `None` at the end, be it the file's
    /// or that of what can be read of it: [`warnings`](Self::warnings) tells. An error is the system's.
    pub fn next_packet(&mut self) -> Result<Option<CapturedPacket<'_>>, Error> {
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

    /// What is to be said about the capture as far as it has been read: complete once
    /// [`next_packet`](Self::next_packet) has given `None`.
    pub fn warnings(&self) -> Vec<Warning> {
        let skipped = self.skipped.iter();
        let mut warnings: Vec<_> =
            skipped.map(|(&link_type, &packets)| Warning::Skipped { link_type, packets }).collect();
        if self.packets > 0 && self.skipped() == self.packets {
            warnings.push(Warning::NothingRead { packets: self.packets });
        }
        if self.untimed > 0 {
            warnings.push(Warning::Untimed { packets: self.untimed });
        }
        if self.out_of_range > 0 {
            warnings.push(Warning::OutOfRange { packets: self.out_of_range });
        }
        warnings.extend(self.fault.clone());
        warnings
    }

    /// Packets met so far, skipped ones included.
    pub fn packets(&self) -> u64 {
        self.packets
    }

    /// Packets skipped so far, for their link types are not read.
    pub fn skipped(&self) -> u64 {
        self.skipped.values().sum()
    }

    /// Bytes of memory held.
    #[cfg(test)]
    pub(crate) fn capacity(&self) -> usize {
        self.window.capacity()
    }

    /// The next record's length, and the packet in it if it is one that is read. The record stays in the window.
    fn next_record(&mut self) -> Result<(usize, Option<(Packet, Link)>), Stop> {
        let length = self.format.whole_record(&mut self.window)?;
        let record = &self.window.rest()[..length];
        let Some(packet) = self.format.decode(record)? else { return Ok((length, None)) };
        self.packets += 1;
        let link_type = self.format.interfaces()[packet.interface].link_type;
        let Some(link) = link::of(link_type) else {
            *self.skipped.entry(link_type).or_default() += 1;
            return Ok((length, None));
        };
        Ok((length, Some((packet, link))))
    }

    fn present(&mut self, record: usize, packet: &Packet, link: Link) -> CapturedPacket<'_> {
        let time_ns = self.time_ns(packet.time);
        let bytes = &self.window.take(record)[packet.data.clone()];
        CapturedPacket {
            time_ns,
            link,
            interface: u32::try_from(packet.interface).unwrap_or(u32::MAX),
            interface_name: self.format.interfaces()[packet.interface].name.as_deref(),
            bytes,
            length: packet.length.max(u32::try_from(bytes.len()).unwrap_or(u32::MAX)),
        }
    }

    /// The time within bounds; that of the packet before where there is none.
    fn time_ns(&mut self, time: Option<i128>) -> u64 {
        let Some(time) = time else {
            self.untimed += 1;
            return self.latest_ns;
        };
        let within = time.clamp(0, i128::from(MAX_TIME_NS));
        self.out_of_range += u64::from(within != time);
        self.latest_ns = u64::try_from(within).unwrap_or(MAX_TIME_NS);
        self.latest_ns
    }

    fn end(&mut self, stop: Stop) -> Result<(), Error> {
        let packets = self.packets;
        self.ended = true;
        self.fault = match stop {
            Stop::End => None,
            Stop::Cut(detail) => Some(Warning::CutShort { packets, detail }),
            Stop::Damaged(detail) => Some(Warning::Damaged { packets, detail }),
            Stop::Failed(error) => return Err(unreadable(self.name.clone(), error)),
        };
        Ok(())
    }
}

/// Why an input whose head could not be read is none.
fn no_capture(name: &str, window: &Window, stop: Stop) -> Error {
    let name = name.to_owned();
    let reason = match stop {
        Stop::Failed(error) => return unreadable(name, error),
        Stop::End if window.rest().is_empty() => Cow::Borrowed("it is empty; capture again"),
        Stop::End | Stop::Cut(_) => Cow::Borrowed("it ends within its header; capture or copy it again"),
        Stop::Damaged(reason) => reason,
    };
    Error::NotACapture { name, reason }
}

/// Nothing is there, or what should be a folder on the way is none.
fn is_missing(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
}

fn unreadable(name: String, error: io::Error) -> Error {
    let fix = if error.kind() == ErrorKind::PermissionDenied {
        "ask its owner for read permission"
    } else if error.kind() == ErrorKind::IsADirectory {
        "name a capture in it"
    } else {
        "copy the file to another disk and try again"
    };
    Error::Unreadable { name, error, fix }
}
