//! Why a capture cannot be read, and what is worth knowing about one that could.

use std::borrow::Cow;
use std::io::{self, ErrorKind};

use crate::link;

/// Why a capture cannot be read. Each message is one line that names the file and the fix.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no such file.
    #[error("{name}: no such file; check the path")]
    NotFound {
        /// The file.
        name: String,
    },
    /// The system refuses to open or to read it.
    #[error("cannot read {name}: {error}; {fix}")]
    Unreadable {
        /// The file.
        name: String,
        /// The system's error.
        error: io::Error,
        /// What to do about it.
        fix: &'static str,
    },
    /// It is neither pcap nor pcapng.
    #[error("{name} is no capture: {reason}")]
    NotACapture {
        /// The file.
        name: String,
        /// What it is instead, and what to do.
        reason: Cow<'static, str>,
    },
}

/// What the reader of a report should know about a capture that could be read. Each message is one line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Warning {
    /// The input ends within a record.
    #[error("capture cut short after packet {packets}: {detail}")]
    CutShort {
        /// Packets before the cut.
        packets: u64,
        /// Where the cut is.
        detail: &'static str,
    },
    /// A record is impossible; what follows it is not read.
    #[error("capture damaged after packet {packets}, read up to there: next is {detail}")]
    Damaged {
        /// Packets before the damage.
        packets: u64,
        /// The impossible record.
        detail: Cow<'static, str>,
    },
    /// Packets on a link type that is not read.
    #[error("link type {} is not read; packets skipped: {packets}", link::describe(*link_type))]
    Skipped {
        /// The registry's number (LINKTYPE_…).
        link_type: u16,
        /// How many packets.
        packets: u64,
    },
    /// The capture has packets, and none of them is on a link type that is read.
    #[error("none of the {packets} packets could be read; capture on an interface that gives {}", link::READ)]
    NothingRead {
        /// How many packets.
        packets: u64,
    },
    /// Packets whose records have no time (simple packet blocks).
    #[error("packets without a time stamp: {packets}; each takes the time of the packet before it")]
    Untimed {
        /// How many packets.
        packets: u64,
    },
    /// Time stamps before 1970 or after 2262.
    #[error("packets with a time stamp before 1970 or after 2262: {packets}; each takes the nearest within")]
    OutOfRange {
        /// How many packets.
        packets: u64,
    },
}

impl Error {
    /// The error of a file that could not be opened.
    pub(crate) fn from_system(name: String, error: io::Error) -> Self {
        // `NotADirectory`: a folder on the way to the file is a file itself.
        if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) {
            return Self::NotFound { name };
        }
        Self::unreadable(name, error)
    }

    /// The error of an input that exists and that the system does not read.
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
