//! What both formats have in common: an input that is cut into records, some of which are packets.

use std::borrow::Cow;
use std::ops::Range;

use pcap_parser::PcapError;
use pcap_parser::nom::{self, IResult, Needed};

use crate::stream::{Stop, Window};

/// Bytes of a record at most, whatever its length says. The largest snap length of libpcap's
/// writers is 128 MiB (D-Bus, USB); twice that leaves room for options.
pub(crate) const MAX_RECORD: usize = 256 << 20;

/// What the parsers answer: `Incomplete` says how much is missing.
pub(crate) type Parsed<'a, T> = IResult<&'a [u8], T, PcapError<&'a [u8]>>;

/// How far a record reaches.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Extent {
    /// The first so many bytes of the input are a record.
    Whole(usize),
    /// So many more are wanted to know it, or to have it all.
    Missing(usize),
}

/// A packet's place in its record.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Packet {
    /// Index into the capture's interfaces.
    pub(crate) interface: usize,
    /// Nanoseconds since the Unix epoch, not bounded; absent where the record has no time.
    pub(crate) time: Option<i128>,
    /// Where in the record the captured bytes are.
    pub(crate) data: Range<usize>,
    /// Bytes on the wire as the record says.
    pub(crate) length: u32,
}

/// Where packets were captured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Interface {
    /// Where the file gives one; printable.
    pub(crate) name: Option<String>,
    /// The registry's number of what its frames begin with (LINKTYPE_…).
    pub(crate) link_type: u16,
}

/// Reads until `extent` has a whole record, which may not be longer than `limit`.
pub(crate) fn whole(
    window: &mut Window,
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
            let reason = format!("a record of {length} bytes, where {limit} are the most");
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

/// What a parser's answer says about the extent of what it parsed.
pub(crate) fn extent<T>(input: &[u8], parsed: Parsed<'_, T>, fault: &'static str) -> Result<Extent, Stop> {
    match parsed {
        Ok((rest, _)) => Ok(Extent::Whole(input.len() - rest.len())),
        Err(nom::Err::Incomplete(Needed::Size(more))) => Ok(Extent::Missing(more.get())),
        Err(nom::Err::Incomplete(Needed::Unknown)) => Ok(Extent::Missing(1)),
        Err(nom::Err::Error(_) | nom::Err::Failure(_)) => Err(Stop::damaged(fault)),
    }
}

/// What a parser found in a whole record: one that asks for more there has met a length that lies.
pub(crate) fn complete<T>(parsed: Parsed<'_, T>, fault: &'static str) -> Result<T, Stop> {
    match parsed {
        Ok((_, value)) => Ok(value),
        Err(_) => Err(Stop::damaged(fault)),
    }
}
