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
//! The folder is opened once, and again where it was removed; no link is followed in it. Only files of these
//! names are ever removed. A kill leaves at most one line unfinished, which the next run cuts off. A file that
//! begins or ends with anything but a row is not handshake's, and is refused.

mod pack;

use std::fs::File;
use std::io::{self, ErrorKind, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
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
/// What a row begins with.
pub(crate) const BEGINNING: &[u8] = b"{\"type\":\"flow\",";
/// Only the user reads the rows: they hold addresses.
const MODE: Mode = Mode::RUSR.union(Mode::WUSR);
/// How long another process may take to give the file up: a run that was killed ends soon.
const HELD: Duration = Duration::from_secs(2);
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// How long another process may open or rename a file in the folder.
const TURN: Duration = Duration::from_millis(200);
const TRY_EVERY: Duration = Duration::from_millis(1);
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
    path: PathBuf,
    folder: OwnedFd,
    /// The name without its ending.
    stem: String,
}

/// A turn in a folder.
struct Turn<'a>(&'a OwnedFd);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        // It may never have been had.
        let _ = flock(self.0, FlockOperation::Unlock);
    }
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
        let path = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let path = path.unwrap_or_else(|| Path::new(".")).to_owned();
        let place = Place { folder: folder_at(&path)?, path, stem: stem.to_owned() };
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
        // One that something else has moved away is left to it.
        self.open = self.open.take().and_then(|open| self.place.as_it_is(open));
        let beside = if self.is_full(lines.len() as u64) { self.close()? } else { None };
        if !lines.is_empty() {
            let open = self.open.take().map_or_else(|| self.place.open_anew(), Ok)?;
            self.open.insert(open).append(lines)?;
        }
        Ok(beside)
    }

    /// Whether so much more is too much, or the file is old.
    fn is_full(&self, more: u64) -> bool {
        let Some(open) = self.open.as_ref().filter(|open| open.length > 0) else { return false };
        let is_old = open.began.is_some_and(|began| began.elapsed() >= self.oldest);
        is_old || open.length + more > self.keep / PART
    }

    /// Closes the file under another name, and begins a new one. Returns what went wrong while earlier ones
    /// were packed and removed.
    fn close(&mut self) -> io::Result<Option<io::Error>> {
        // One at a time: the room is for one.
        let packed = self.packing.take().map_or(Ok(()), joined);
        // Who waits for the file finds the next one held as well.
        let turn = self.place.turn();
        let open = self.open.take();
        if open.as_ref().is_some_and(|open| self.place.length(&open.file).is_some()) {
            self.place.rename()?;
        }
        self.open = Some(self.place.begin()?);
        drop((turn, open));
        // What could not be packed takes the more room.
        let tidied = self.tidy();
        Ok(packed.and(tidied).err())
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
        // One that cannot be packed does not keep the others from it.
        let pack = move || plain.iter().map(|name| pack::pack(&folder, name)).fold(Ok(()), io::Result::and);
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

    /// Opens the file, also in a folder that was removed and made again.
    fn open_anew(&mut self) -> io::Result<Open> {
        let opened = self.open();
        if !opened.as_ref().is_err_and(|error| error.kind() == ErrorKind::NotFound) {
            return opened;
        }
        self.folder = folder_at(&self.path)?;
        self.open()
    }

    /// Opens the file, or makes it, for this process alone.
    fn open(&self) -> io::Result<Open> {
        let until = Instant::now() + HELD;
        loop {
            let turn = self.turn();
            match self.begin() {
                Err(error) if error.kind() == ErrorKind::WouldBlock && Instant::now() < until => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    return Err(io::Error::other("another process writes it"));
                }
                opened => return opened,
            }
            drop(turn);
            thread::sleep(LOOK_EVERY);
        }
    }

    /// The same where it is not waited for, in a [turn](Self::turn).
    fn begin(&self) -> io::Result<Open> {
        let flags = OFlags::RDWR | OFlags::APPEND | OFlags::CREATE;
        // A pipe would be waited for.
        let careful = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let descriptor = openat(&self.folder, self.name(), flags | careful, MODE)?;
        if FileType::from_raw_mode(fstat(&descriptor)?.st_mode) != FileType::RegularFile {
            return Err(io::Error::new(ErrorKind::InvalidInput, "it is no ordinary file"));
        }
        let mut file = File::from(descriptor);
        // Not every file system has locks.
        if flock(&file, FlockOperation::NonBlockingLockExclusive) == Err(Errno::WOULDBLOCK) {
            return Err(ErrorKind::WouldBlock.into());
        }
        let length = end_of_lines(&mut file)?;
        if !(is_row(&file, 0)? && is_row(&file, length)?) {
            let why = "it has other lines than handshake's: name another file";
            return Err(io::Error::new(ErrorKind::InvalidInput, why));
        }
        file.set_len(length)?;
        let began = (length > 0).then(Instant::now);
        Ok(Open { file, length, began })
    }

    /// Waits a little until no other process opens or renames a file in the folder, and keeps it from that.
    fn turn(&self) -> Turn<'_> {
        let until = Instant::now() + TURN;
        let is_taken =
            || flock(&self.folder, FlockOperation::NonBlockingLockExclusive) == Err(Errno::WOULDBLOCK);
        while is_taken() && Instant::now() < until {
            thread::sleep(TRY_EVERY);
        }
        Turn(&self.folder)
    }

    /// The open file as it is by now. `None`: the name names another one, or something has come to its end, such
    /// as a part of a line that could not be cut off.
    fn as_it_is(&self, open: Open) -> Option<Open> {
        let length = self.length(&open.file).filter(|length| *length <= open.length)?;
        // It was emptied, as logrotate's copytruncate does.
        let began = open.began.filter(|_| length > 0);
        Some(Open { length, began, ..open })
    }

    /// The length of this file, where the name still names it.
    fn length(&self, file: &File) -> Option<u64> {
        let named = statat(&self.folder, self.name(), AtFlags::SYMLINK_NOFOLLOW).ok()?;
        let own = fstat(file).ok()?;
        let is_same = (named.st_dev, named.st_ino) == (own.st_dev, own.st_ino);
        is_same.then_some(u64::try_from(own.st_size).unwrap_or(0))
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

/// The folder of files.
fn folder_at(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(openat(CWD, path, flags, Mode::empty())?)
}

/// Whether a row begins here, the file ends before that can be told, or there are the zeros that a loss of power
/// leaves.
fn is_row(file: &File, at: u64) -> io::Result<bool> {
    let mut beginning = Vec::new();
    let mut file = file;
    file.seek(SeekFrom::Start(at))?;
    file.take(BEGINNING.len() as u64).read_to_end(&mut beginning)?;
    Ok(BEGINNING.starts_with(&beginning) || beginning.iter().all(|byte| *byte == 0))
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
