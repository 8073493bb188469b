//! Errors that prevent reading a capture, and warnings about one that was read.

use std::borrow::Cow;
use std::io::{self, ErrorKind};

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
    /// The capture has packets, and none of them has a supported link type.
    #[error(
        "none of the {packets} packets could be read; capture on an interface of type {}",
        link::SUPPORTED
    )]
    NothingRead {
        /// Number of packets in the capture.
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
}

impl CaptureError {
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
        } else {
            "copy the file to another disk and try again"
        };
        Self::Unreadable { name, error, fix }
    }
}
