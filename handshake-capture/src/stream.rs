//! Streams the bytes of a capture from a file, a FIFO or standard input, and decompresses them. Never seeks;
//! holds one record and the bytes that the same read returned after it.

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::mem;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering::Relaxed};

use crate::decompress::{CHUNK, Codec, Decompressed};

/// How often an input may be compressed: each time takes memory of its own.
const DEEPEST: usize = 4;

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
    /// How the input is compressed, outermost first.
    codecs: Vec<Codec>,
    state: Arc<SourceState>,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
}

impl StreamWindow {
    /// A window at the first byte of `source`, as it is.
    pub(crate) fn new(source: impl Read + Send + 'static) -> Self {
        let state = Arc::new(SourceState::default());
        let source = Box::new(Source { source, state: Arc::clone(&state) });
        Self { source, codecs: Vec::new(), state, buffer: Vec::new(), start: 0, end: 0 }
    }

    /// Decompresses the input if it is compressed, and what is within if that is compressed too. Nothing may
    /// have been taken.
    pub(crate) fn unpack(&mut self) -> Result<(), Stop> {
        loop {
            match self.need(Codec::LONGEST_MAGIC) {
                Ok(()) | Err(Stop::End) => {}
                Err(stop) => return Err(stop),
            }
            let Some(codec) = Codec::of(self.rest()) else { return Ok(()) };
            if let Some(outermost) = self.codecs.first().filter(|_| self.codecs.len() == DEEPEST) {
                return Err(Stop::Damaged(Cow::Owned(format!(
                    "it is compressed more than {DEEPEST} times; unpack it: {} -dc FILE | handshake replay -",
                    outermost.name()
                ))));
            }
            let head = io::Cursor::new(self.rest().to_vec());
            self.start = self.end;
            let packed = mem::replace(&mut self.source, Box::new(io::empty()));
            self.source = Box::new(Decompressed::new(codec, head.chain(packed)));
            self.codecs.push(codec);
        }
    }

    /// Whether the input is compressed.
    pub(crate) fn is_packed(&self) -> bool {
        !self.codecs.is_empty()
    }

    /// Reads on, first what the window holds.
    pub(crate) fn read_into(&mut self, buffer: &mut [u8]) -> Result<usize, Stop> {
        let length = self.rest().len().min(buffer.len());
        if length != 0 {
            buffer[..length].copy_from_slice(self.take(length));
            return Ok(length);
        }
        self.source.read(buffer).map_err(|error| {
            if error.kind() == ErrorKind::Interrupted { Stop::Failed(error) } else { self.stop(error) }
        })
    }

    /// Bytes of the file that have been read.
    pub(crate) fn consumed(&self) -> u64 {
        self.state.bytes.load(Relaxed)
    }

    /// The reason for which a read failed: the system, or a compressed stream that is damaged or ends early.
    fn stop(&self, error: io::Error) -> Stop {
        let number = self.state.failed.load(Relaxed);
        match self.codecs.first() {
            _ if number != 0 => Stop::Failed(io::Error::from_raw_os_error(number)),
            None => Stop::Failed(error),
            Some(outermost) if self.state.has_ended.load(Relaxed) => Stop::Cut(outermost.cut()),
            Some(_) => {
                let names: Vec<_> = self.codecs.iter().rev().map(|codec| codec.name()).collect();
                let names = names.join(" in ");
                Stop::Damaged(Cow::Owned(format!("its {names} stream cannot be decompressed: {error}")))
            }
        }
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
                let more = self.end.max(CHUNK);
                let room = self.buffer.try_reserve_exact(more);
                room.map_err(|_| Stop::Failed(ErrorKind::OutOfMemory.into()))?;
                self.buffer.resize(self.end + more, 0);
            }
            match self.source.read(&mut self.buffer[self.end..]) {
                Ok(0) => return Err(Stop::End),
                Ok(read) => self.end += read,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(self.stop(error)),
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

/// What has become of a source. Decoders do not pass it on.
#[derive(Default)]
struct SourceState {
    /// Bytes that have been read.
    bytes: AtomicU64,
    has_ended: AtomicBool,
    /// The number of the system's error, or 0.
    failed: AtomicI32,
}

/// A source that says what has become of it. A read that a signal has interrupted is repeated.
struct Source<R> {
    source: R,
    state: Arc<SourceState>,
}

impl<R: Read> Read for Source<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.source.read(buffer) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => {
                    self.state.failed.store(error.raw_os_error().unwrap_or(0), Relaxed);
                    return Err(error);
                }
                Ok(read) => {
                    self.state.bytes.fetch_add(read as u64, Relaxed);
                    self.state.has_ended.store(read == 0 && !buffer.is_empty(), Relaxed);
                    return Ok(read);
                }
            }
        }
    }
}
