//! The folder that is written: a new segment with each whole block, and the oldest ones go.
//!
//! The folder is opened once, and again where it was removed. No link is followed, only new files are written,
//! and only files of a segment's name are ever removed.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, ErrorKind, Write as _};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{
    AtFlags, CWD, FileType, FlockOperation, Mode, OFlags, flock, fstat, mkdirat, openat, statat, unlinkat,
};
use rustix::io::Errno;

use super::names::{CAREFUL, name_of, segments_in};
use super::reel::moments_of;
use super::{decode, framed, head};

/// The file that is locked.
const LOCK: &str = "handshake.lock";
/// The moments that are kept: an hour of them.
const MOMENTS: usize = 3_600;
/// Room for all segments, bytes.
const ROOM: u64 = 256 << 20;
/// Most segments: a reader opens all of them, and may open 1,024 files by default. More than one a minute are begun
/// where runs are short, or blocks cannot be written.
const SEGMENTS: usize = 500;
/// Only the user reads it: it holds addresses.
pub(crate) const FILE: Mode = Mode::RUSR.union(Mode::WUSR);
const FOLDER: Mode = Mode::RWXU;
/// How long another process may take to give the folder up: a run that was killed ends soon.
const HELD: Duration = Duration::from_secs(2);
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// A folder that is recorded to.
pub struct Folder {
    path: PathBuf,
    folder: OwnedFd,
    /// Locked while this is recorded to.
    _lock: File,
    /// The segments, the oldest first; the open one is the last.
    segments: VecDeque<Segment>,
    /// The number of the next.
    next: u64,
    /// `None` where a whole block is awaited.
    open: Option<File>,
    moments: usize,
    room: u64,
}

/// A segment in the folder.
struct Segment {
    name: String,
    bytes: u64,
    moments: usize,
}

impl Folder {
    /// Opens the folder, or makes it.
    ///
    /// # Errors
    ///
    /// Those of the file system; it is a link or no folder, or another process records there.
    pub fn open(path: &Path) -> io::Result<Self> {
        let folder = folder_at(path)?;
        let lock = locked(&folder)?;
        let mut names: Vec<(u64, String)> = segments_in(&folder)?;
        names.sort_unstable();
        let next = names.last().map_or(1, |(number, _)| number.saturating_add(1));
        let mut segments = VecDeque::new();
        for (_, name) in names {
            let file = openat(&folder, &name, OFlags::RDONLY | CAREFUL, Mode::empty());
            // One that cannot be read takes its room all the same.
            let moments = file.map_or(0, |file| moments_of(&File::from(file)));
            segments.push_back(Segment { bytes: length_of(&folder, &name), moments, name });
        }
        let (path, open) = (path.to_owned(), None);
        let mut folder =
            Self { path, folder, _lock: lock, segments, next, open, moments: MOMENTS, room: ROOM };
        folder.tidy()?;
        Ok(folder)
    }

    /// Appends a block. Returns the segment, for reading, where it begins a new one.
    ///
    /// # Errors
    ///
    /// Those of the file system. Nothing of the block is there then, and the next one that is of use is a
    /// whole one; so it is where the folder or the file was removed.
    pub fn append(&mut self, block: &[u8]) -> io::Result<Option<File>> {
        let is_whole = decode(block).ok_or(ErrorKind::InvalidData)?.is_whole;
        let bytes = framed(block)?;
        if self.open.as_ref().is_some_and(is_removed) {
            self.open = None;
        }
        if is_removed(&self.folder) {
            // What is there by now may be another's recording.
            *self = Self { moments: self.moments, room: self.room, ..Self::open(&self.path)? };
        }
        let begun = if is_whole { Some(self.begin()?) } else { None };
        let Some(open) = &mut self.open else {
            return Err(io::Error::other("its file was removed: it begins anew"));
        };
        let written = open.write_all(&bytes);
        if let Err(error) = written {
            self.give_up();
            return Err(error);
        }
        if let Some(segment) = self.segments.back_mut() {
            segment.bytes += bytes.len() as u64;
            segment.moments += 1;
        }
        self.tidy()?;
        Ok(begun)
    }

    /// Begins a segment, and returns it for reading.
    fn begin(&mut self) -> io::Result<File> {
        if let Some(complete) = self.open.take() {
            // Not every file system can.
            let _ = complete.sync_data();
        }
        let name = name_of(self.next);
        // Also where there is one of this name: the next may be free.
        self.next += 1;
        let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE | OFlags::EXCL;
        let file = File::from(openat(&self.folder, &name, flags | CAREFUL, FILE)?);
        self.segments.push_back(Segment { name: name.clone(), bytes: head().len() as u64, moments: 0 });
        let read = openat(&self.folder, &name, OFlags::RDONLY | CAREFUL, Mode::empty());
        let mut begun = file;
        let began = read.map_err(io::Error::from).and_then(|read| begun.write_all(&head()).map(|()| read));
        self.open = Some(begun);
        began.map(File::from).inspect_err(|_| self.give_up())
    }

    /// Cuts off what was written of a block, and removes a segment without any.
    fn give_up(&mut self) {
        let (Some(open), Some(segment)) = (self.open.take(), self.segments.back()) else { return };
        // What cannot be cut off is seen by its sum.
        let _ = open.set_len(segment.bytes);
        if segment.moments == 0 {
            let _ = unlinkat(&self.folder, &segment.name, AtFlags::empty());
            self.segments.pop_back();
        }
    }

    /// Removes the oldest segments beyond the room, the hour or the number.
    fn tidy(&mut self) -> io::Result<()> {
        loop {
            let bytes: u64 = self.segments.iter().map(|segment| segment.bytes).sum();
            let later: usize = self.segments.iter().skip(1).map(|segment| segment.moments).sum();
            let is_over = bytes > self.room || later >= self.moments || self.segments.len() > SEGMENTS;
            let Some(oldest) = self.segments.front().filter(|_| is_over && self.segments.len() > 1) else {
                return Ok(());
            };
            match unlinkat(&self.folder, &oldest.name, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(error) => return Err(error.into()),
            }
            self.segments.pop_front();
        }
    }

    /// With another bound.
    #[cfg(test)]
    pub(crate) const fn within(mut self, moments: usize, room: u64) -> Self {
        (self.moments, self.room) = (moments, room);
        self
    }
}

/// The folder, which is made where there is none.
pub(crate) fn folder_at(path: &Path) -> io::Result<OwnedFd> {
    match mkdirat(CWD, path, FOLDER) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(error) => return Err(error.into()),
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(CWD, path, flags, Mode::empty()).map_err(|error| match error {
        Errno::LOOP | Errno::NOTDIR => io::Error::new(ErrorKind::NotADirectory, "it is a link, or no folder"),
        error => error.into(),
    })
}

/// The lock of the folder, for this process alone.
fn locked(folder: &OwnedFd) -> io::Result<File> {
    let flags = OFlags::RDWR | OFlags::CREATE;
    let lock = File::from(openat(folder, LOCK, flags | CAREFUL, FILE)?);
    let until = Instant::now() + HELD;
    loop {
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) if Instant::now() < until => thread::sleep(LOOK_EVERY),
            Err(Errno::WOULDBLOCK) => return Err(io::Error::other("another process records there")),
            // Not every file system has locks.
            Ok(()) | Err(_) => return Ok(lock),
        }
    }
}

/// What a segment takes of the disk.
fn length_of(folder: &OwnedFd, name: &str) -> u64 {
    let found = statat(folder, name, AtFlags::SYMLINK_NOFOLLOW).ok();
    let file = found.filter(|found| FileType::from_raw_mode(found.st_mode) == FileType::RegularFile);
    file.map_or(0, |found| u64::try_from(found.st_size).unwrap_or(0))
}

/// Whether no name leads to a file or folder any more.
fn is_removed(descriptor: &impl std::os::fd::AsFd) -> bool {
    fstat(descriptor).is_ok_and(|found| found.st_nlink == 0)
}
