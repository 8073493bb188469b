//! Streams the bytes of a capture from a file, a FIFO or standard input, and decompresses gzip. Never seeks;
//! holds one record and the bytes that the same read returned after it.

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::os::fd::AsFd;
use std::path::Path;

use flate2::read::MultiGzDecoder;

/// The magic number of gzip (RFC 1952 §2.3.1).
const GZIP: [u8; 2] = [0x1f, 0x8b];
/// Minimum size of a read, bytes: a pipe's default capacity.
const CHUNK: usize = 64 << 10;

/// The reason why there is no further record.
#[derive(Debug)]
pub(crate) enum Stop {
    /// The input ends between records.
    End,
    /// The input ends within a record.
    Cut(&'static str),
    /// The next record is invalid.
    Damaged(Cow<'static, str>),
    /// The system fails to read.
    Failed(io::Error),
}

impl Stop {
    pub(crate) const fn damaged(reason: &'static str) -> Self {
        Self::Damaged(Cow::Borrowed(reason))
    }
}

impl From<io::Error> for Stop {
    /// The system's errors carry an error number; the others come from the decompressor.
    fn from(error: io::Error) -> Self {
        if error.raw_os_error().is_some() {
            Self::Failed(error)
        } else if error.kind() == ErrorKind::UnexpectedEof {
            Self::Cut("its gzip stream ends early")
        } else {
            Self::Damaged(Cow::Owned(format!("its gzip stream cannot be decompressed: {error}")))
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

/// A window that moves over the input; its content is contiguous.
pub(crate) struct StreamWindow {
    source: Box<dyn Read + Send>,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
}

impl StreamWindow {
    /// A window at the first byte of `source`, decompressed if it is gzip.
    pub(crate) fn new(source: impl Read + Send + 'static) -> io::Result<Self> {
        Ok(Self { source: decompressed(source)?, buffer: Vec::new(), start: 0, end: 0 })
    }

    /// The bytes that have been read and not taken.
    pub(crate) fn rest(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }

    /// Takes the next `length` bytes, which must be in the window.
    pub(crate) fn take(&mut self, length: usize) -> &[u8] {
        let begin = self.start;
        self.start += length;
        &self.buffer[begin..self.start]
    }

    /// Reads until [`rest`](Self::rest) has grown by `more` bytes. Memory grows with the bytes received,
    /// because `more` may come from a wrong length field.
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

    /// Memory held, bytes.
    #[cfg(test)]
    pub(crate) fn capacity(&self) -> usize {
        self.buffer.capacity()
    }
}

fn decompressed(mut source: impl Read + Send + 'static) -> io::Result<Box<dyn Read + Send>> {
    let mut head = Vec::new();
    source.by_ref().take(GZIP.len() as u64).read_to_end(&mut head)?;
    let is_gzip = head == GZIP;
    let source = io::Cursor::new(head).chain(source);
    Ok(if is_gzip { Box::new(MultiGzDecoder::new(source)) } else { Box::new(source) })
}
