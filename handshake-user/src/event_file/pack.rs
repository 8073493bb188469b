//! Packs a closed file by zstd. The plain one goes once the packed one is on the disk and was read back.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::OwnedFd;

use rustix::fs::{AtFlags, Mode, OFlags, fstat, fsync, openat, renameat, unlinkat};
use ruzstd::decoding::StreamingDecoder;
use ruzstd::encoding::{CompressionLevel, FrameCompressor};

use super::{PACKED, UNFINISHED};

/// Bytes that are compared at once.
const STEP: usize = 1 << 16;

/// Packs the file of this name in the folder.
///
/// # Errors
///
/// Those of the file system: the plain file stays.
pub(super) fn pack(folder: &OwnedFd, name: &str) -> io::Result<()> {
    let unfinished = format!(".{name}{UNFINISHED}");
    let packed = pack_as(folder, name, &unfinished);
    let kept = packed.and_then(|()| {
        renameat(folder, &unfinished, folder, format!("{name}{PACKED}"))?;
        // Some file systems have no such order for folders.
        let _ = fsync(folder);
        Ok(())
    });
    if let Err(error) = kept {
        let _ = unlinkat(folder, &unfinished, AtFlags::empty());
        return Err(io::Error::new(error.kind(), format!("{name} stays as it is: {error}")));
    }
    Ok(unlinkat(folder, name, AtFlags::empty())?)
}

fn pack_as(folder: &OwnedFd, name: &str, unfinished: &str) -> io::Result<()> {
    let careful = OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let reads = || openat(folder, name, OFlags::RDONLY | careful, Mode::empty()).map(File::from);
    let plain = reads()?;
    // Who may read the plain one may read the packed one.
    let mode = Mode::from_raw_mode(fstat(&plain)?.st_mode & 0o777);
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | careful;
    let packed = File::from(openat(folder, unfinished, flags, mode)?);
    compress(plain, &packed)?;
    packed.sync_all()?;
    let packed = File::from(openat(folder, unfinished, OFlags::RDONLY | careful, Mode::empty())?);
    if is_same(reads()?, packed)? { Ok(()) } else { Err(ErrorKind::InvalidData.into()) }
}

/// An end of the compression. That takes no errors, so the first one ends its input and swallows its output.
struct Watched<T> {
    inner: T,
    failed: Option<io::Error>,
}

impl<T> Watched<T> {
    const fn new(inner: T) -> Self {
        Self { inner, failed: None }
    }

    fn done<D>(&mut self, done: io::Result<D>, otherwise: D) -> D {
        done.unwrap_or_else(|error| {
            self.failed = Some(error);
            otherwise
        })
    }
}

impl<T: Read> Read for Watched<T> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = loop {
            match self.inner.read(into) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                read => break read,
            }
        };
        Ok(self.done(read, 0))
    }
}

impl<T: Write> Write for Watched<T> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.failed.is_none() {
            let written = self.inner.write_all(bytes);
            self.done(written, ());
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn compress(plain: impl Read, packed: impl Write) -> io::Result<()> {
    let mut compressor = FrameCompressor::new(CompressionLevel::Fastest);
    compressor.set_source(Watched::new(plain));
    compressor.set_drain(Watched::new(packed));
    compressor.compress();
    let read = compressor.take_source().and_then(|source| source.failed);
    let failed = read.or_else(|| compressor.take_drain().and_then(|drain| drain.failed));
    failed.map_or(Ok(()), Err)
}

/// Whether the packed file has the plain one's bytes.
fn is_same(mut plain: impl Read, packed: impl Read) -> io::Result<bool> {
    let mut unpacked = StreamingDecoder::new(packed).map_err(io::Error::other)?;
    let (mut one, mut other) = (Vec::new(), Vec::new());
    loop {
        one.clear();
        other.clear();
        plain.by_ref().take(STEP as u64).read_to_end(&mut one)?;
        unpacked.by_ref().take(STEP as u64).read_to_end(&mut other)?;
        if one != other || one.is_empty() {
            return Ok(one == other);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::{compress, is_same};

    struct Full;

    impl io::Write for Full {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::StorageFull.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    struct Broken;

    impl io::Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::other("broken"))
        }
    }

    /// Lines of several lengths: none, one block, several.
    #[test]
    fn what_is_packed_is_read_back() {
        for lines in [0, 1, 100, 20_000] {
            let plain: String =
                (0..lines).map(|line| format!("{{\"line\":{line},\"of\":{}}}\n", line * 7919)).collect();
            let mut packed = Vec::new();
            compress(plain.as_bytes(), &mut packed).expect("memory has room");
            assert!(lines < 100 || packed.len() * 2 < plain.len(), "{} {}", packed.len(), plain.len());
            assert!(is_same(plain.as_bytes(), &packed[..]).expect("it is whole"));
            assert!(!is_same(format!("{plain}\n").as_bytes(), &packed[..]).expect("it is whole"));
        }
    }

    /// The compressor itself would panic.
    #[test]
    fn an_error_of_either_end_is_an_error() {
        let full = compress(&[7; 300_000][..], Full).expect_err("it is full");
        assert_eq!(full.kind(), io::ErrorKind::StorageFull);
        assert_eq!(compress(Broken, Vec::new()).expect_err("it is broken").to_string(), "broken");
    }
}
