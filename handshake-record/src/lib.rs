//! What is kept in folders: evidence ([`evidence`]), and a recording.
//!
//! A recording in a folder: segments of a minute, to whose end blocks are appended.
//!
//! ```text
//! DIR/handshake-0000000041.rec    a segment: its head, then blocks; the first is whole
//! DIR/handshake-0000000042.rec
//! DIR/handshake.lock              locked by who records here
//!
//! head     "handshake record" (16 bytes) │ form (8 bytes)
//! block    length of what follows the sum (4) │ CRC-32 of that (4) │ is it whole? (1) │ ns since the epoch (8)
//!          │ ns of the records' clock (8) │ what it says
//! ```
//!
//! Numbers are in little-endian order. A block is written by one call and is in the kernel's hands after it, so
//! whatever ends the process, all blocks but the one that is being written are whole. A segment is handed to the
//! disk when it is complete: a loss of power costs a minute. A block that is cut, or whose sum is wrong, ends
//! what is read of its segment.

#![cfg_attr(not(test), deny(clippy::print_stdout, clippy::print_stderr))]

pub mod evidence;
mod folder;
mod names;
mod pcapng;
mod reel;

use std::io;

use handshake_agent::recording::{Block, FORM};

pub use folder::Folder;
pub use names::is_recording;
pub use reel::{Reel, Time};

/// What a segment begins with.
const MAGIC: &[u8; 16] = b"handshake record";
/// Bytes of a segment's head.
const HEAD: usize = MAGIC.len() + size_of::<u64>();
/// Bytes before what a block says, but for length and sum.
const BEFORE: usize = 1 + 2 * size_of::<u64>();
/// The longest block, bytes: the figures of every service that there is room for, many times over.
const LONGEST: usize = 16 << 20;

/// The head of a segment.
fn head() -> Vec<u8> {
    [&MAGIC[..], &FORM.to_le_bytes()].concat()
}

/// What is written of a block, but for length and sum.
#[must_use]
pub fn encode(block: &Block) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(BEFORE + block.changes.len());
    bytes.push(u8::from(block.is_whole));
    bytes.extend(block.wall_ns.to_le_bytes());
    bytes.extend(block.ns.to_le_bytes());
    bytes.extend(&block.changes);
    bytes
}

/// The block of these bytes.
fn decode(bytes: &[u8]) -> Option<Block> {
    let (before, changes) = bytes.split_at_checked(BEFORE)?;
    let (is_whole, clocks) = before.split_first()?;
    let (wall_ns, ns) = clocks.split_at_checked(size_of::<u64>())?;
    let number = |bytes: &[u8]| Some(u64::from_le_bytes(bytes.try_into().ok()?));
    Some(Block {
        is_whole: *is_whole != 0,
        wall_ns: number(wall_ns)?,
        ns: number(ns)?,
        changes: changes.to_vec(),
    })
}

/// A block as it is in a file: with its length and its sum.
fn framed(bytes: &[u8]) -> io::Result<Vec<u8>> {
    let length = u32::try_from(bytes.len()).ok().filter(|length| *length as usize <= LONGEST);
    let length = length.ok_or_else(|| io::Error::other("the block is too long"))?;
    let sum = crc32fast::hash(bytes);
    Ok([&length.to_le_bytes()[..], &sum.to_le_bytes(), bytes].concat())
}

/// The first block of these bytes, and how many bytes it takes; `None` where it is cut, or its sum is wrong.
fn first(bytes: &[u8]) -> Option<(&[u8], usize)> {
    let number = |at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    let (length, sum) = (number(0)? as usize, number(4)?);
    if length > LONGEST {
        return None;
    }
    let block = bytes.get(8..8 + length)?;
    (crc32fast::hash(block) == sum).then_some((block, 8 + length))
}

#[cfg(test)]
mod tests;
