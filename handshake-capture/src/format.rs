//! Detects a capture's format and reads its records.

use crate::classic::Classic;
use crate::pcapng::Sections;
use crate::record::{CaptureInterface, MAX_RECORD, RawPacket, whole};
use crate::stream::{Stop, StreamWindow};

/// A capture's format and its reading state.
pub(crate) enum CaptureFormat {
    Classic(Classic),
    Sections(Sections),
}

impl CaptureFormat {
    /// Reads the head of the input: the pcap header, or the first pcapng section header.
    pub(crate) fn detect(window: &mut StreamWindow) -> Result<Self, Stop> {
        let mut sections = Sections::new();
        window.unpack()?;
        if !Sections::begin_here(window.rest()) {
            return Classic::detect(window).map(Self::Classic);
        }
        let length = whole(window, MAX_RECORD, |input| sections.extent(input))?;
        sections.decode(window.take(length))?;
        Ok(Self::Sections(sections))
    }

    /// Reads the next record into the window and returns its length.
    pub(crate) fn whole_record(&self, window: &mut StreamWindow) -> Result<usize, Stop> {
        match self {
            Self::Classic(classic) => whole(window, classic.limit(), |input| classic.extent(input)),
            Self::Sections(sections) => whole(window, MAX_RECORD, |input| sections.extent(input)),
        }
    }

    /// Decodes a complete record; `None` if it is not a packet.
    pub(crate) fn decode(&mut self, record: &[u8]) -> Result<Option<RawPacket>, Stop> {
        match self {
            Self::Classic(classic) => classic.decode(record).map(Some),
            Self::Sections(sections) => sections.decode(record),
        }
    }

    /// Packets dropped while capturing, by the file's own statistics so far; `None` where it has none.
    pub(crate) fn dropped(&self) -> Option<u64> {
        match self {
            Self::Classic(_) => None,
            Self::Sections(sections) => sections.dropped(),
        }
    }

    pub(crate) fn interfaces(&self) -> &[CaptureInterface] {
        match self {
            Self::Classic(classic) => classic.interfaces(),
            Self::Sections(sections) => sections.interfaces(),
        }
    }
}
