//! The TCP checksum (RFC 9293 §3.1, RFC 1071; the pseudo header of IPv6: RFC 8200 §8.1).

use zerocopy::FromBytes;

use super::ip::{self, Transport};
use super::{Frame, Link, Packet, TCP, Truncated, link};
use crate::flow::Address;
use crate::low_half;

/// Bytes that are summed by one read.
const CHUNK: u32 = 64;
/// Bytes that are summed as one part.
const PART: u32 = 512;
/// Parts of the longest packet whose IP header tells its length.
const PARTS: u32 = (1 << 16) / PART;

/// A TCP segment whose checksum can be verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sealed {
    /// Where it begins in the frame.
    pub offset: u32,
    /// Where it ends: behind the packet, by the IP header.
    pub end: u32,
    /// The sum of the pseudo header.
    pseudo_header: u64,
}

impl Sealed {
    /// Is its checksum wrong, where `sum` is [`sum_by`] of it?
    #[inline(always)]
    #[must_use]
    pub const fn is_wrong(&self, sum: u32) -> bool {
        folded(self.pseudo_header + sum as u64) != 0xffff
    }
}

/// Does the frame hold a TCP segment whose checksum is wrong? `false` also where nothing can be said: see
/// [`sealed`], and of a frame that was cut.
pub fn has_wrong_checksum<F: Frame>(frame: &F, link: Link) -> bool {
    sealed(frame, link).is_some_and(|segment| {
        let part = |offset, end| sum_of_part(frame, offset, end);
        sum_by(segment.offset, segment.end, part).is_ok_and(|sum| segment.is_wrong(sum))
    })
}

/// The TCP segment in a frame. `None`: another protocol, or nothing can be said of its checksum, as of a
/// fragment, of a super-packet that hides its length, and where a routing header leaves the last destination
/// open.
#[inline(always)]
pub fn sealed<F: Frame>(frame: &F, link: Link) -> Option<Sealed> {
    let mut packet = Packet::default();
    let network = link::read(frame, link, &mut packet).ok()?;
    let transport = ip::read(frame, network, &mut packet).ok()?;
    let is_whole = !transport.first_fragment && !transport.is_unsized && !transport.is_routed;
    (transport.protocol == TCP && is_whole).then(|| Sealed {
        offset: transport.offset,
        end: transport.end,
        pseudo_header: pseudo_header(&packet, &transport),
    })
}

/// The words that the checksum covers beside the segment, in the order of bytes of this machine, which the
/// sum does not depend on (RFC 1071 §2).
#[inline(always)]
fn pseudo_header(packet: &Packet, transport: &Transport) -> u64 {
    let halves = |word: u64| (word >> 32) + u64::from(low_half(word));
    let (Address(from), Address(to)) = (packet.source, packet.destination);
    let addresses = halves(from[0]) + halves(from[1]) + halves(to[0]) + halves(to[1]);
    word(transport.end - transport.offset) + word(u32::from(TCP)) + addresses
}

#[inline(always)]
const fn word(value: u32) -> u64 {
    value.to_be() as u64
}

/// The sum of the 16-bit words from `offset` to `end`, folded to one, by a function that gives
/// [`sum_of_part`].
///
/// # Errors
///
/// Those of `part`.
#[inline(always)]
pub fn sum_by(
    mut offset: u32,
    end: u32,
    part: impl Fn(u32, u32) -> Result<u32, Truncated>,
) -> Result<u32, Truncated> {
    let mut sum = 0;
    for _ in 0..PARTS {
        if offset >= end {
            break;
        }
        sum += u64::from(part(offset, end)?);
        offset = offset.saturating_add(PART);
    }
    Ok(low_half(folded(sum)))
}

/// The sum of the 16-bit words from `offset` to `end` or for one part, folded to one. Reads beyond
/// [`OFFSET_LIMIT`](super::OFFSET_LIMIT) too. A part at a time, and apart from [`sealed`]: the verifier
/// follows a loop to its end, once per way that leads to it.
///
/// # Errors
///
/// [`Truncated`]: the bytes are not all there.
#[inline(always)]
pub fn sum_of_part<F: Frame>(frame: &F, mut offset: u32, end: u32) -> Result<u32, Truncated> {
    let end = end.min(offset.saturating_add(PART));
    let mut sum = 0;
    for _ in 0..PART / CHUNK {
        if offset.saturating_add(CHUNK) > end {
            break;
        }
        sum += sum_at::<F, 16>(frame, offset)?;
        offset += CHUNK;
    }
    // Halves, as many as the rest has: no loop of single words for the verifier to follow.
    let rest = end.saturating_sub(offset);
    if rest & 32 != 0 {
        sum += sum_at::<F, 8>(frame, offset)?;
        offset += 32;
    }
    if rest & 16 != 0 {
        sum += sum_at::<F, 4>(frame, offset)?;
        offset += 16;
    }
    if rest & 8 != 0 {
        sum += sum_at::<F, 2>(frame, offset)?;
        offset += 8;
    }
    if rest & 4 != 0 {
        sum += sum_at::<F, 1>(frame, offset)?;
        offset += 4;
    }
    if rest & 2 != 0 {
        sum += u64::from(frame.read::<u16>(offset)?);
        offset += 2;
    }
    if rest & 1 != 0 {
        sum += u64::from(u16::from_ne_bytes([frame.read::<u8>(offset)?, 0]));
    }
    Ok(low_half(folded(sum)))
}

#[inline(always)]
fn sum_at<F: Frame, const WORDS: usize>(frame: &F, offset: u32) -> Result<u64, Truncated>
where
    [u32; WORDS]: FromBytes,
{
    let words: [u32; WORDS] = frame.read(offset)?;
    let (mut sum, mut i) = (0, 0);
    while i < WORDS {
        sum += u64::from(words[i]);
        i += 1;
    }
    Ok(sum)
}

/// The one's complement sum of the 16-bit words in a sum of 32-bit words.
#[inline(always)]
const fn folded(sum: u64) -> u64 {
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    (sum & 0xffff) + (sum >> 16)
}
