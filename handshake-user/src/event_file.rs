//! The file of events: lines are appended until it is long or old; then it is closed, renamed and compressed,
//! and the oldest closed ones go.
//!
//! ```text
//! events.jsonl                                    open: each write is of whole lines
//! events-20260301T120341.000Z.jsonl               closed at that time, and being packed
//! .events-20260301T120341.000Z.jsonl.zst.tmp      while it is packed
//! events-20260301T120341.000Z.jsonl.zst           closed
//! ```
//!
//! The folder is opened once, and no link is followed in it. Only files of these names are ever removed. A kill
//! leaves at most one line unfinished, which the next run cuts off.

mod pack;

use std::fs::File;
use std::io::{self, ErrorKind, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::fs::{
    AtFlags, CWD, Dir, FileType, FlockOperation, Mode, OFlags, flock, fstat, openat, renameat, statat,
    unlinkat,
};
use rustix::io::Errno;

use crate::time::stamp;

/// What a file's name ends in.
const ENDING: &str = ".jsonl";
/// What a packed file's name ends in besides.
const PACKED: &str = ".zst";
/// What a file's name ends in while it is packed.
const UNFINISHED: &str = ".zst.tmp";
/// The open file is closed once it has this part of all room. Another one is for the file that is packed.
const PART: u64 = 10;
/// The open file is closed this long after its first row.
const OLDEST: Duration = Duration::from_secs(3_600);
/// Only the user reads the rows: they hold addresses.
const MODE: Mode = Mode::RUSR.union(Mode::WUSR);
/// How long another process may take to give the file up: a run that was killed ends soon.
const HELD: Duration = Duration::from_secs(2);
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Bytes that are read at once to find the end of the last line.
const STEP: u64 = 1 << 16;

/// The file, open.
pub(crate) struct EventFile {
    place: Place,
    /// Room for all files together, bytes.
    keep: u64,
    oldest: Duration,
    /// `None` where it could not be opened again.
    open: Option<Open>,
    packing: Option<JoinHandle<io::Result<()>>>,
}

/// A folder and the names of the files in it.
struct Place {
    folder: OwnedFd,
    /// The name without its ending.
    stem: String,
}

/// An open file.
struct Open {
    file: File,
    length: u64,
    /// When its first row came, or when this process took it over.
    began: Option<Instant>,
}

/// A closed file.
struct Closed {
    name: String,
    is_packed: bool,
    /// What it takes of the disk.
    bytes: u64,
}

impl EventFile {
    /// Opens the file, and takes over what another run has left.
    ///
    /// # Errors
    ///
    /// Those of the file system; it is no ordinary file, or another process writes it.
    pub(crate) fn open(path: &Path, keep: u64) -> io::Result<Self> {
        let name = path.file_name().and_then(|name| name.to_str());
        let stem = name.and_then(|name| name.strip_suffix(ENDING)).ok_or(ErrorKind::InvalidFilename)?;
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = openat(CWD, folder.unwrap_or_else(|| Path::new(".")), flags, Mode::empty())?;
        let place = Place { folder, stem: stem.to_owned() };
        let open = Some(place.open()?);
        let mut file = Self { place, keep, oldest: OLDEST, open, packing: None };
        file.place.remove_unfinished()?;
        file.tidy()?;
        Ok(file)
    }

    /// Appends whole lines; without any it only looks whether the file is old. Returns what went wrong beside.
    ///
    /// # Errors
    ///
    /// Those of the file system: none of the lines is in the file.
    pub(crate) fn append(&mut self, lines: &[u8]) -> io::Result<Option<io::Error>> {
        let beside = if self.is_full(lines.len() as u64) { self.close()? } else { None };
        if !lines.is_empty() {
            self.current()?.append(lines)?;
        }
        Ok(beside)
    }

    /// Whether so much more is too much, or the file is old.
    fn is_full(&self, more: u64) -> bool {
        let Some(open) = self.open.as_ref().filter(|open| open.length > 0) else { return false };
        let is_old = open.began.is_some_and(|began| began.elapsed() >= self.oldest);
        is_old || open.length + more > self.keep / PART
    }

    /// The file that the name names. One that something else has moved away is left to it.
    fn current(&mut self) -> io::Result<&mut Open> {
        let place = &self.place;
        if !self.open.as_ref().is_some_and(|open| place.names(&open.file)) {
            self.open = None;
        }
        let open = match self.open.take() {
            Some(open) => open,
            None => place.open()?,
        };
        Ok(self.open.insert(open))
    }

    /// Closes the file under another name, and begins a new one. Returns what went wrong while earlier ones
    /// were packed and removed.
    fn close(&mut self) -> io::Result<Option<io::Error>> {
        // One at a time: the room is for one.
        let packed = self.packing.take().map_or(Ok(()), joined);
        if self.open.as_ref().is_some_and(|open| self.place.names(&open.file)) {
            self.place.rename()?;
        }
        self.open = None;
        self.open = Some(self.place.open()?);
        Ok(packed.and_then(|()| self.tidy()).err())
    }

    /// Removes the oldest files beyond the room, and begins to pack those that are not.
    fn tidy(&mut self) -> io::Result<()> {
        let mut closed = self.place.closed()?;
        let room = self.keep - 2 * (self.keep / PART);
        let mut bytes: u64 = closed.iter().map(|closed| closed.bytes).sum();
        while bytes > room && !closed.is_empty() {
            let oldest = closed.remove(0);
            unlinkat(&self.place.folder, &oldest.name, AtFlags::empty())?;
            bytes -= oldest.bytes;
        }
        let plain: Vec<String> =
            closed.into_iter().filter(|closed| !closed.is_packed).map(|closed| closed.name).collect();
        if plain.is_empty() {
            return Ok(());
        }
        let folder = self.place.folder.try_clone()?;
        let pack = move || plain.iter().try_for_each(|name| pack::pack(&folder, name));
        self.packing = Some(thread::Builder::new().name("pack".to_owned()).spawn(pack)?);
        Ok(())
    }
}

fn joined(packing: JoinHandle<io::Result<()>>) -> io::Result<()> {
    packing.join().unwrap_or_else(|_| Err(io::Error::other("the compression has failed")))
}

impl Open {
    fn append(&mut self, lines: &[u8]) -> io::Result<()> {
        let written = self.file.write_all(lines);
        if written.is_err() {
            // A part of a line must not be before the next one.
            self.file.set_len(self.length)?;
        }
        written?;
        self.length += lines.len() as u64;
        self.began.get_or_insert_with(Instant::now);
        Ok(())
    }
}

impl Place {
    fn name(&self) -> String {
        format!("{}{ENDING}", self.stem)
    }

    /// Opens the file, or makes it.
    fn open(&self) -> io::Result<Open> {
        let flags = OFlags::RDWR | OFlags::APPEND | OFlags::CREATE;
        // A pipe would be waited for.
        let careful = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let descriptor = openat(&self.folder, self.name(), flags | careful, MODE)?;
        if FileType::from_raw_mode(fstat(&descriptor)?.st_mode) != FileType::RegularFile {
            return Err(io::Error::new(ErrorKind::InvalidInput, "it is no ordinary file"));
        }
        let mut file = File::from(descriptor);
        hold(&file)?;
        let length = end_of_lines(&mut file)?;
        file.set_len(length)?;
        let began = (length > 0).then(Instant::now);
        Ok(Open { file, length, began })
    }

    /// Whether the name still names this file.
    fn names(&self, file: &File) -> bool {
        let of_name = statat(&self.folder, self.name(), AtFlags::SYMLINK_NOFOLLOW);
        let both = of_name.and_then(|named| Ok((named, fstat(file)?)));
        both.is_ok_and(|(named, own)| (named.st_dev, named.st_ino) == (own.st_dev, own.st_ino))
    }

    /// Gives the file the name of a closed one, by the time that is now.
    fn rename(&self) -> io::Result<()> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut ns = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
        loop {
            let name = format!("{}-{}{ENDING}", self.stem, stamp(ns));
            let is_free = |name: &str| {
                let found = statat(&self.folder, name, AtFlags::SYMLINK_NOFOLLOW);
                matches!(found, Err(Errno::NOENT))
            };
            if is_free(&name) && is_free(&format!("{name}{PACKED}")) {
                return Ok(renameat(&self.folder, self.name(), &self.folder, name)?);
            }
            // Two within a millisecond.
            ns = ns.saturating_add(1_000_000);
        }
    }

    /// The closed files, the oldest first.
    fn closed(&self) -> io::Result<Vec<Closed>> {
        let mut all = Vec::new();
        for name in self.names_of(|name| self.is_closed(name).is_some())? {
            let Ok(found) = statat(&self.folder, &name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
            if FileType::from_raw_mode(found.st_mode) != FileType::RegularFile {
                continue;
            }
            let [size, blocks] =
                [found.st_size, found.st_blocks].map(|number| u64::try_from(number).unwrap_or(0));
            let is_packed = self.is_closed(&name).unwrap_or(false);
            all.push(Closed { name, is_packed, bytes: size.max(blocks * 512) });
        }
        all.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(all)
    }

    /// Removes what a run has left that was ended while it packed.
    fn remove_unfinished(&self) -> io::Result<()> {
        let is_unfinished = |name: &str| {
            let of_closed = name.strip_prefix('.').and_then(|name| name.strip_suffix(UNFINISHED));
            of_closed.is_some_and(|name| self.is_closed(name) == Some(false))
        };
        for name in self.names_of(is_unfinished)? {
            unlinkat(&self.folder, name, AtFlags::empty())?;
        }
        Ok(())
    }

    fn names_of(&self, is_wanted: impl Fn(&str) -> bool) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in Dir::read_from(&self.folder)? {
            let entry = entry?;
            names.extend(entry.file_name().to_str().ok().filter(|name| is_wanted(name)).map(str::to_owned));
        }
        Ok(names)
    }

    /// Whether a name is a closed file's; whether that is packed.
    fn is_closed(&self, name: &str) -> Option<bool> {
        let rest = name.strip_prefix(&self.stem)?.strip_prefix('-')?;
        let (plain, is_packed) = rest.strip_suffix(PACKED).map_or((rest, false), |plain| (plain, true));
        let time = plain.strip_suffix(ENDING)?;
        let fits =
            |(byte, pattern): (u8, u8)| if pattern == b'0' { byte.is_ascii_digit() } else { byte == pattern };
        let pattern = b"00000000T000000.000Z";
        (time.len() == pattern.len() && time.bytes().zip(*pattern).all(fits)).then_some(is_packed)
    }
}

/// Takes the file for this process alone, for as long as it is open.
fn hold(file: &File) -> io::Result<()> {
    let until = Instant::now() + HELD;
    loop {
        match flock(file, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) if Instant::now() < until => thread::sleep(LOOK_EVERY),
            Err(Errno::WOULDBLOCK) => return Err(io::Error::other("another process writes it")),
            // Not every file system has locks.
            _ => return Ok(()),
        }
    }
}

/// Where the last whole line ends.
fn end_of_lines(file: &mut File) -> io::Result<u64> {
    let mut end = file.seek(SeekFrom::End(0))?;
    while end > 0 {
        let start = end.saturating_sub(STEP);
        let mut bytes = Vec::new();
        file.seek(SeekFrom::Start(start))?;
        (&*file).take(end - start).read_to_end(&mut bytes)?;
        if let Some(at) = bytes.iter().rposition(|byte| *byte == b'\n') {
            return Ok(start + at as u64 + 1);
        }
        end = start;
    }
    Ok(0)
}

#[cfg(test)]
mod tests;
