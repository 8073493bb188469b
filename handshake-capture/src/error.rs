//! Errors that prevent reading a capture, and warnings about one that was read.

use std::borrow::Cow;
use std::io::{self, ErrorKind};
use std::time::Duration;

use crate::condition::{ClockSteps, OutOfOrder};
use crate::link;

/// An error that prevents reading a capture. Each message is one line that names the file and the fix.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// The file does not exist.
    #[error("{name}: no such file; check the path")]
    NotFound {
        /// The file's name as given.
        name: String,
    },
    /// The system refuses to open or read the file.
    #[error("cannot read {name}: {error}; {fix}")]
    Unreadable {
        /// The file's name as given.
        name: String,
        /// The system's error.
        error: io::Error,
        /// A suggested fix.
        fix: &'static str,
    },
    /// The file is neither pcap nor pcapng.
    #[error("{name} is not a capture: {reason}")]
    NotACapture {
        /// The file's name as given.
        name: String,
        /// The detected format, and a suggested fix.
        reason: Cow<'static, str>,
    },
    /// A folder without a capture.
    #[error("no capture in {name}; name a folder with captures, or files")]
    EmptyFolder {
        /// The folder's name as given.
        name: String,
    },
    /// The file has packets, and none of them could be read.
    #[error("no packet of {name} can be read: {reason}")]
    NothingRead {
        /// The file's name as given.
        name: String,
        /// Why, and a suggested fix.
        reason: String,
    },
}

/// A warning about a capture that was read; it belongs beside the report. Each message is one line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Warning {
    /// The input ends within a record.
    #[error("capture cut short after packet {packets}: {detail}")]
    CutShort {
        /// Number of packets before the cut.
        packets: u64,
        /// Position of the cut.
        detail: &'static str,
    },
    /// A record is invalid; reading stops there.
    #[error("capture damaged after packet {packets}, and read only up to it: next is {detail}")]
    Damaged {
        /// Number of packets before the damage.
        packets: u64,
        /// Description of the invalid record.
        detail: Cow<'static, str>,
    },
    /// Packets were skipped because their link type is not supported.
    #[error("link type {} is not supported; packets skipped: {packets}", link::describe(*link_type))]
    Skipped {
        /// The registry's number (LINKTYPE_…).
        link_type: u16,
        /// Number of packets skipped.
        packets: u64,
    },
    /// Packets were dropped while capturing, by the capture's own statistics.
    #[error("packets dropped while capturing, by the capture's own statistics: {packets}")]
    Dropped {
        /// Number of such packets.
        packets: u64,
    },
    /// Packets whose records have no time stamp (simple packet blocks).
    #[error("packets without a time stamp: {packets}; each gets the time of the packet before it")]
    Untimed {
        /// Number of such packets.
        packets: u64,
    },
    /// Time stamps before 1970 or after 2262.
    #[error(
        "packets with a time stamp before 1970 or after 2262: {packets}; each gets the nearest time in that range"
    )]
    OutOfRange {
        /// Number of such packets.
        packets: u64,
    },
    /// Packets are not in time order.
    #[error(
        "packets earlier than the packet before them: {}, the first is packet {}; `reordercap` sorts merged captures",
        .0.packets, .0.first
    )]
    OutOfOrder(OutOfOrder),
    /// An interface's clock ran backwards.
    #[error(
        "steps of the clock back in time, on one interface: {}, the largest {:?}; each counts as no time",
        .0.steps_back, Duration::from_nanos(.0.largest_ns)
    )]
    ClockBack(ClockSteps),
}

impl Warning {
    /// The reason why the first packet could not be read; `None` if this warning is no such reason.
    pub(crate) fn at_first_packet(&self) -> Option<String> {
        match self {
            Self::CutShort { detail, .. } => Some(format!("it is cut short at its first packet: {detail}")),
            Self::Damaged { detail, .. } => Some(format!("it is damaged at its first packet: {detail}")),
            Self::Skipped { .. }
            | Self::Dropped { .. }
            | Self::Untimed { .. }
            | Self::OutOfRange { .. }
            | Self::OutOfOrder(_)
            | Self::ClockBack(_) => None,
        }
    }
}

impl CaptureError {
    /// Whether it is for lack of memory.
    #[must_use]
    pub fn is_out_of_memory(&self) -> bool {
        matches!(self, Self::Unreadable { error, .. } if error.kind() == ErrorKind::OutOfMemory)
    }

    /// Converts the system's error from opening a file.
    pub(crate) fn from_system(name: String, error: io::Error) -> Self {
        // `NotADirectory`: a path component before the last is a file.
        if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) {
            return Self::NotFound { name };
        }
        Self::unreadable(name, error)
    }

    /// Converts the system's error from reading an input that exists.
    pub(crate) fn unreadable(name: String, error: io::Error) -> Self {
        let fix = if error.kind() == ErrorKind::PermissionDenied {
            "ask its owner for read permission"
        } else if error.kind() == ErrorKind::IsADirectory {
            "name a capture in it"
        } else if error.kind() == ErrorKind::OutOfMemory {
            "make room, or raise the limit"
        } else {
            "copy the file to another disk and try again"
        };
        Self::Unreadable { name, error, fix }
    }
}
