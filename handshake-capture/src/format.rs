//! Which format a capture has, and its records.

use crate::classic::Classic;
use crate::pcapng::Sections;
use crate::record::{Interface, MAX_RECORD, Packet, whole};
use crate::stream::{Stop, Window};

/// A capture's format, with what was learned on the way.
pub(crate) enum Format {
    Classic(Classic),
    Sections(Sections),
}

impl Format {
    /// Reads the head of the input: pcap's header, or pcapng's first section header.
    pub(crate) fn detect(window: &mut Window) -> Result<Self, Stop> {
        let mut sections = Sections::new();
        window.need(4)?;
        if !Sections::begin_here(window.rest()) {
            return Classic::detect(window).map(Self::Classic);
        }
        let length = whole(window, MAX_RECORD, |input| sections.extent(input))?;
        sections.decode(window.take(length))?;
        Ok(Self::Sections(sections))
    }

    /// The length of the record that the input goes on with, all of which is then in the window.
    pub(crate) fn whole_record(&self, window: &mut Window) -> Result<usize, Stop> {
        match self {
            Self::Classic(classic) => whole(window, classic.limit(), |input| classic.extent(input)),
            Self::Sections(sections) => whole(window, MAX_RECORD, |input| sections.extent(input)),
        }
    }

    /// The packet in a whole record, if it is one.
    pub(crate) fn decode(&mut self, record: &[u8]) -> Result<Option<Packet>, Stop> {
        match self {
            Self::Classic(classic) => classic.decode(record).map(Some),
            Self::Sections(sections) => sections.decode(record),
        }
    }

    pub(crate) fn interfaces(&self) -> &[Interface] {
        match self {
            Self::Classic(classic) => classic.interfaces(),
            Self::Sections(sections) => sections.interfaces(),
        }
    }
}
