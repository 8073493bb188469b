//! Shared by both formats: splits the input into records, some of which are packets.

use std::borrow::Cow;
use std::ops::Range;

use pcap_parser::PcapError;
use pcap_parser::nom::{self, IResult, Needed};

use crate::stream::{Stop, StreamWindow};

/// Maximum length of a record, bytes, whatever its length field says. The largest snap length of libpcap's
/// writers is 128 MiB (D-Bus, USB); twice that leaves room for options.
pub(crate) const MAX_RECORD: usize = 256 << 20;

/// A parser's result; `Incomplete` says how many bytes are missing.
pub(crate) type Parsed<'a, T> = IResult<&'a [u8], T, PcapError<&'a [u8]>>;

/// The extent of a record.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Extent {
    /// The record is the first N bytes of the input.
    Whole(usize),
    /// N more bytes are needed to determine the length, or to complete the record.
    Missing(usize),
}

/// A packet as its record describes it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct RawPacket {
    /// Index into the capture's interfaces.
    pub(crate) interface: usize,
    /// Number of its section; a pcap file is one section.
    pub(crate) section: u64,
    /// Nanoseconds since the Unix epoch, unbounded; `None` if the record has no time.
    pub(crate) time: Option<i128>,
    /// The range of the captured bytes within the record.
    pub(crate) data: Range<usize>,
    /// Length on the wire according to the record, bytes.
    pub(crate) length: u32,
}

/// A capture interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CaptureInterface {
    /// The name if the file has one, without control characters.
    pub(crate) name: Option<String>,
    /// The registry's number for the header that frames begin with (LINKTYPE_…).
    pub(crate) link_type: u16,
}

/// Reads until `extent` reports a whole record of at most `limit` bytes.
pub(crate) fn whole(
    window: &mut StreamWindow,
    limit: usize,
    extent: impl Fn(&[u8]) -> Result<Extent, Stop>,
) -> Result<usize, Stop> {
    loop {
        let have = window.rest().len();
        let (length, missing) = match extent(window.rest())? {
            Extent::Whole(length) => (length, 0),
            Extent::Missing(more) => (have.saturating_add(more), more),
        };
        if length > limit {
            let reason = format!("a record of {length} bytes, more than the limit of {limit}");
            return Err(Stop::Damaged(Cow::Owned(reason)));
        }
        if missing == 0 {
            return Ok(length);
        }
        window.need(missing).map_err(|stop| match stop {
            Stop::End if !window.rest().is_empty() => Stop::Cut("it ends within the next record"),
            Stop::End | Stop::Cut(_) | Stop::Damaged(_) | Stop::Failed(_) => stop,
        })?;
    }
}

/// Converts a parser's result into the extent of the input that it parsed.
pub(crate) fn extent<T>(input: &[u8], parsed: Parsed<'_, T>, fault: &'static str) -> Result<Extent, Stop> {
    match parsed {
        Ok((rest, _)) => Ok(Extent::Whole(input.len() - rest.len())),
        Err(nom::Err::Incomplete(Needed::Size(more))) => Ok(Extent::Missing(more.get())),
        Err(nom::Err::Incomplete(Needed::Unknown)) => Ok(Extent::Missing(1)),
        Err(nom::Err::Error(_) | nom::Err::Failure(_)) => Err(Stop::damaged(fault)),
    }
}

/// The parser's value for a whole record. A request for more bytes is damage here: the record's length field
/// is wrong.
pub(crate) fn complete<T>(parsed: Parsed<'_, T>, fault: &'static str) -> Result<T, Stop> {
    match parsed {
        Ok((_, value)) => Ok(value),
        Err(_) => Err(Stop::damaged(fault)),
    }
}
