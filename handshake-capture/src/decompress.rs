//! Decompresses an input by the magic number that it begins with.
//!
//! A compressed file is a series of members: `cat a.gz b.gz` is one file, pzstd writes frames that are to be
//! skipped, and tapes pad with zeros.

use std::io::{self, BufRead, BufReader, ErrorKind, Read};

use bzip2::bufread::BzDecoder;
use flate2::bufread::GzDecoder;
use lz4_flex::frame::FrameDecoder as Lz4Decoder;
use lzma_rust2::XzReader;
use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder as ZstdDecoder};

/// Minimum size of a read, bytes: a pipe's default capacity.
pub(crate) const CHUNK: usize = 64 << 10;

/// A way of compression.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Codec {
    Gzip,
    Zstd,
    Xz,
    Bzip2,
    Lz4,
}

/// The largest window of zstd, bytes: what `zstd -d` accepts without an option (2²⁷, of `--ultra --long`).
const ZSTD_WINDOW: u64 = 1 << 27;
/// The most memory that xz may take, KiB: `xz -9` needs 65 MiB.
const XZ_MEMORY: u32 = 256 << 10;

impl Codec {
    /// Bytes that suffice to tell a codec.
    pub(crate) const LONGEST_MAGIC: usize = 6;

    /// The codec of an input that begins with `head`: RFC 1952 §2.3.1; RFC 8878 §3.1.1 and, of a frame that
    /// is skipped, §3.1.2; the formats of xz (§2.1.1), bzip2 and lz4 frames.
    pub(crate) fn of(head: &[u8]) -> Option<Self> {
        match head {
            [0x1f, 0x8b, ..] => Some(Self::Gzip),
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Some(Self::Zstd),
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Some(Self::Xz),
            [b'B', b'Z', b'h', b'1'..=b'9', ..] => Some(Self::Bzip2),
            [0x04, 0x22, 0x4d, 0x18, ..] => Some(Self::Lz4),
            _ => None,
        }
    }

    /// The name of the program that writes it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
            Self::Xz => "xz",
            Self::Bzip2 => "bzip2",
            Self::Lz4 => "lz4",
        }
    }

    /// That an input of this kind ends early.
    pub(crate) const fn cut(self) -> &'static str {
        match self {
            Self::Gzip => "its gzip stream ends early",
            Self::Zstd => "its zstd stream ends early",
            Self::Xz => "its xz stream ends early",
            Self::Bzip2 => "its bzip2 stream ends early",
            Self::Lz4 => "its lz4 stream ends early",
        }
    }
}

/// The content of a compressed input.
pub(crate) struct Decompressed<R: Read> {
    codec: Codec,
    /// `None` at the end.
    member: Option<Member<BufReader<R>>>,
}

impl<R: Read> Decompressed<R> {
    /// `source` begins with the magic number of `codec`.
    pub(crate) fn new(codec: Codec, source: R) -> Self {
        Self { codec, member: Some(Member::Unread(BufReader::with_capacity(CHUNK, source))) }
    }
}

impl<R: Read> Read for Decompressed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while let Some(member) = &mut self.member {
            let read = member.read(buffer)?;
            if read != 0 || buffer.is_empty() {
                return Ok(read);
            }
            let source = self.member.take().and_then(Member::into_source);
            self.member = source.map_or(Ok(None), |source| Member::next(self.codec, source))?;
        }
        Ok(0)
    }
}

enum Member<R: BufRead> {
    /// Nothing of it is read.
    Unread(R),
    Gzip(GzDecoder<R>),
    Zstd(Box<Zstd<R>>),
    /// All streams of the file: their padding is a part of the format.
    Xz(Box<XzReader<R>>),
    Bzip2(BzDecoder<R>),
    Lz4(Box<Lz4Decoder<R>>),
}

impl<R: BufRead> Member<R> {
    /// The next member, behind any zeros.
    fn next(codec: Codec, mut source: R) -> io::Result<Option<Self>> {
        loop {
            let bytes = source.fill_buf()?;
            if bytes.is_empty() {
                return Ok(None);
            }
            let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
            if zeros == 0 {
                break;
            }
            source.consume(zeros);
        }
        Ok(Some(match codec {
            Codec::Gzip => Self::Gzip(GzDecoder::new(source)),
            Codec::Zstd => match Zstd::begin(source)? {
                Some(member) => Self::Zstd(Box::new(member)),
                None => return Ok(None),
            },
            Codec::Xz => Self::Xz(Box::new(XzReader::new_mem_limit(source, true, XZ_MEMORY))),
            Codec::Bzip2 => Self::Bzip2(BzDecoder::new(source)),
            Codec::Lz4 => Self::Lz4(Box::new(Lz4Decoder::new(source))),
        }))
    }

    /// What follows the member; `None` where it is the last by its nature.
    fn into_source(self) -> Option<R> {
        match self {
            Self::Unread(source) => Some(source),
            Self::Gzip(member) => Some(member.into_inner()),
            Self::Zstd(member) => Some(member.source),
            Self::Bzip2(member) => Some(member.into_inner()),
            Self::Lz4(member) => Some(member.into_inner()),
            Self::Xz(_) => None,
        }
    }
}

impl<R: BufRead> Read for Member<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Unread(_) => Ok(0),
            Self::Gzip(member) => member.read(buffer),
            Self::Zstd(member) => member.read(buffer),
            Self::Xz(member) => member.read(buffer),
            Self::Bzip2(member) => member.read(buffer),
            Self::Lz4(member) => member.read(buffer),
        }
    }
}

/// A frame of zstd.
struct Zstd<R> {
    decoder: ZstdDecoder,
    source: R,
}

impl<R: BufRead> Zstd<R> {
    /// Begins a frame, behind any that are to be skipped; `None` where only such follow.
    fn begin(mut source: R) -> io::Result<Option<Self>> {
        let mut decoder = ZstdDecoder::new();
        decoder.set_max_window_size(ZSTD_WINDOW);
        while !source.fill_buf()?.is_empty() {
            match decoder.init(&mut source) {
                Ok(()) => return Ok(Some(Self { decoder, source })),
                Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame {
                    length,
                    ..
                })) => {
                    let skipped = io::copy(&mut source.by_ref().take(length.into()), &mut io::sink())?;
                    if skipped < length.into() {
                        return Err(ErrorKind::UnexpectedEof.into());
                    }
                }
                Err(error) => return Err(io::Error::other(error)),
            }
        }
        Ok(None)
    }
}

impl<R: BufRead> Read for Zstd<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Self { decoder, source } = self;
        while decoder.can_collect() == 0 && !decoder.is_finished() {
            decoder
                .decode_blocks(&mut *source, BlockDecodingStrategy::UptoBlocks(1))
                .map_err(io::Error::other)?;
        }
        let read = decoder.read(buffer)?;
        let is_done = read == 0 && !buffer.is_empty();
        let said = decoder.get_checksum_from_data();
        if is_done && said.is_some() && said != decoder.get_calculated_checksum() {
            return Err(io::Error::new(ErrorKind::InvalidData, "a wrong checksum"));
        }
        Ok(read)
    }
}
