//! The content of a file of any kind, decompressed as captures are.

use std::io::{self, ErrorKind, Read};
use std::path::Path;

use crate::stream::{self, Stop, StreamWindow};

/// A file's content, decompressed where the file begins with the magic number of a codec.
pub struct Unpacked {
    window: StreamWindow,
}

impl Unpacked {
    /// Opens the file; `-` is standard input.
    ///
    /// # Errors
    ///
    /// The file is missing or cannot be read; it is compressed too often.
    pub fn open(path: &Path) -> io::Result<Self> {
        let mut window = StreamWindow::new(stream::open(path)?);
        match window.unpack() {
            // It may be shorter than a magic number.
            Ok(()) | Err(Stop::End) => Ok(Self { window }),
            Err(stop) => Err(failure(stop)),
        }
    }

    /// Whether it is compressed.
    #[must_use]
    pub fn is_packed(&self) -> bool {
        self.window.is_packed()
    }
}

impl Read for Unpacked {
    /// A stream that ends early is [`ErrorKind::UnexpectedEof`], and a damaged one
    /// [`ErrorKind::InvalidData`].
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.window.read_into(buffer).map_err(failure)
    }
}

fn failure(stop: Stop) -> io::Error {
    match stop {
        Stop::End => ErrorKind::UnexpectedEof.into(),
        Stop::Cut(what) => io::Error::new(ErrorKind::UnexpectedEof, what),
        Stop::Damaged(what) => io::Error::new(ErrorKind::InvalidData, what),
        Stop::Failed(error) => error,
    }
}
