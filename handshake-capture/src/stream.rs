//! The bytes of a capture in their order: from a file, a FIFO or standard input, unpacked where they are
//! gzip. Never seeks; holds one record and what the same read brought behind it.

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::os::fd::AsFd;
use std::path::Path;

use flate2::read::MultiGzDecoder;

/// What gzip begins with (RFC 1952 §2.3.1).
const GZIP: [u8; 2] = [0x1f, 0x8b];
/// What one read asks for: a pipe's default capacity.
const CHUNK: usize = 64 << 10;

/// Why no further record comes.
#[derive(Debug)]
pub(crate) enum Stop {
    /// Nothing follows.
    End,
    /// Something begins and is not all there.
    Cut(&'static str),
    /// What follows cannot be.
    Damaged(Cow<'static, str>),
    /// The system refused to read on.
    Failed(io::Error),
}

impl Stop {
    pub(crate) const fn damaged(reason: &'static str) -> Self {
        Self::Damaged(Cow::Borrowed(reason))
    }
}

impl From<io::Error> for Stop {
    /// Errors of the system carry its number; the others are the unpacker's judgement of the bytes.
    fn from(error: io::Error) -> Self {
        if error.raw_os_error().is_some() {
            Self::Failed(error)
        } else if error.kind() == ErrorKind::UnexpectedEof {
            Self::Cut("its gzip stream ends early")
        } else {
            Self::Damaged(Cow::Owned(format!("its gzip stream cannot be unpacked: {error}")))
        }
    }
}

/// Opens `path`, or standard input for `-`.
pub(crate) fn open(path: &Path) -> io::Result<File> {
    if path == Path::new("-") {
        return Ok(File::from(io::stdin().as_fd().try_clone_to_owned()?));
    }
    File::open(path)
}

/// A window that moves over the input: what is in it lies in one piece.
pub(crate) struct Window {
    source: Box<dyn Read + Send>,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
}

impl Window {
    /// Begins at the first byte of `source`, unpacked.
    pub(crate) fn new(source: impl Read + Send + 'static) -> io::Result<Self> {
        Ok(Self { source: unpacked(source)?, buffer: Vec::new(), start: 0, end: 0 })
    }

    /// What has been read and not taken.
    pub(crate) fn rest(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }

    /// Moves past the next `length` bytes, which must be there, and gives them.
    pub(crate) fn take(&mut self, length: usize) -> &[u8] {
        let begin = self.start;
        self.start += length;
        &self.buffer[begin..self.start]
    }

    /// Reads until `more` bytes have joined [`rest`](Self::rest). Memory grows with what has come, not with
    /// what is asked for: `more` may be a length that lies.
    pub(crate) fn need(&mut self, more: usize) -> Result<(), Stop> {
        self.buffer.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        let wanted = self.end.saturating_add(more);
        while self.end < wanted {
            if self.end == self.buffer.len() {
                self.buffer.resize(self.end + self.end.max(CHUNK), 0);
            }
            match self.source.read(&mut self.buffer[self.end..]) {
                Ok(0) => return Err(Stop::End),
                Ok(read) => self.end += read,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Bytes of memory held.
    #[cfg(test)]
    pub(crate) fn capacity(&self) -> usize {
        self.buffer.capacity()
    }
}

fn unpacked(mut source: impl Read + Send + 'static) -> io::Result<Box<dyn Read + Send>> {
    let mut head = Vec::new();
    source.by_ref().take(GZIP.len() as u64).read_to_end(&mut head)?;
    let packed = head == GZIP;
    let source = io::Cursor::new(head).chain(source);
    Ok(if packed { Box::new(MultiGzDecoder::new(source)) } else { Box::new(source) })
}
