//! Several captures as one: a file's packets in its own order, those of several files by time.
//!
//! A file is open from its first packet's time to its end, so that thousands of files that were written one
//! after the other need a descriptor at a time.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use handshake_common::wire::Link;

use crate::condition::Condition;
use crate::error::{CaptureError, Warning};
use crate::reader::{Capture, CaptureLosses, CapturedPacket};

/// The captures of a replay.
pub struct Captures {
    files: Vec<CaptureFile>,
    /// The files that are not begun, the latest first packet first.
    waiting: Vec<(u64, usize)>,
    /// The open files with their next packets' times.
    open: BinaryHeap<Reverse<(u64, usize)>>,
    /// The file of the next packet, if it is chosen.
    next: Option<usize>,
    /// The file of the latest packet: its next packet is not known.
    latest: Option<usize>,
    /// Numbers of interfaces: those of the same name and link type in several files are one.
    interfaces: BTreeMap<(Option<String>, u8, usize), u32>,
    /// Device and inode of each file: one that is given twice, or by a link too, is read once.
    inodes: BTreeMap<(u64, u64), usize>,
    /// What is not read, and why: files of folders that are no captures, and files that are read already.
    left_out: Vec<String>,
    /// What is known of the files that are read to their ends.
    ended: Condition,
    losses: CaptureLosses,
    packets: u64,
}

/// How far reading has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Bytes read, as the files have them.
    pub bytes: u64,
    /// Bytes of all files; `None` where one of them is a stream.
    pub of: Option<u64>,
    /// Packets read.
    pub packets: u64,
}

struct CaptureFile {
    path: PathBuf,
    /// Length in bytes; `None` for a stream.
    length: Option<u64>,
    state: FileState,
    losses: CaptureLosses,
    /// For each of its interfaces, in the order of their first packets, what tells it from those of other
    /// files, and its number.
    interfaces: Vec<((Option<String>, u8), u32)>,
}

enum FileState {
    Waiting,
    Open(Box<Capture>),
    /// Read to its end: warnings about it, and why none of its packets could be read.
    Ended(Vec<Warning>, Option<CaptureError>),
}

impl Captures {
    /// Opens captures: files, folders with all files in them, and `-` for standard input. Reads their heads.
    ///
    /// # Errors
    ///
    /// A file is missing, cannot be read, or is not a capture. A file of a folder may be something else, but
    /// one must be a capture.
    pub fn open(paths: &[PathBuf]) -> Result<Self, CaptureError> {
        let mut captures = Self {
            files: Vec::new(),
            waiting: Vec::new(),
            open: BinaryHeap::new(),
            next: None,
            latest: None,
            interfaces: BTreeMap::new(),
            inodes: BTreeMap::new(),
            left_out: Vec::new(),
            ended: Condition::default(),
            losses: CaptureLosses::default(),
            packets: 0,
        };
        for path in paths {
            if path.is_dir() {
                captures.add_folder(path)?;
            } else {
                captures.add(path)?;
            }
        }
        if let [only] = &mut captures.files[..] {
            // Its first packet may be a long time coming.
            only.state = FileState::Open(Box::new(only.open_now()?));
            return Ok(captures);
        }
        for at in 0..captures.files.len() {
            captures.begin(at)?;
        }
        captures.waiting.sort_unstable_by(|one, other| other.cmp(one));
        Ok(captures)
    }

    /// The time of the packet that [`next_packet`](Self::next_packet) returns next; `None` at the end of all.
    ///
    /// # Errors
    ///
    /// The system fails to read a file.
    pub fn next_time(&mut self) -> Result<Option<u64>, CaptureError> {
        if self.next.is_none() {
            self.next = self.next_file()?;
        }
        let Some(file) = self.next.and_then(|at| self.files.get_mut(at)) else { return Ok(None) };
        let FileState::Open(capture) = &mut file.state else { return Ok(None) };
        let time_ns = capture.next_time()?;
        self.losses.replace(&mut file.losses, capture.losses());
        Ok(time_ns)
    }

    /// The next packet with a supported link type: of one file in its order, of several by time. `None` at
    /// the end of all.
    ///
    /// # Errors
    ///
    /// The system fails to read a file.
    pub fn next_packet(&mut self) -> Result<Option<CapturedPacket<'_>>, CaptureError> {
        if self.next_time()?.is_none() {
            return Ok(None);
        }
        let Some(at) = self.next.take() else { return Ok(None) };
        self.latest = Some(at);
        let is_one_of_several = self.files.len() > 1;
        let file = &mut self.files[at];
        let FileState::Open(capture) = &mut file.state else { return Ok(None) };
        let Some(packet) = capture.next_packet()? else { return Ok(None) };
        self.packets += 1;
        let interface = if is_one_of_several {
            number(&mut self.interfaces, &mut file.interfaces, &packet)
        } else {
            packet.interface
        };
        Ok(Some(CapturedPacket { file: at, interface, ..packet }))
    }

    /// Warnings about the part read so far, and the path of the file where there are several. The list is
    /// complete once [`next_packet`](Self::next_packet) has returned `None`.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let mut all: Vec<String> = self.left_out.iter().map(|reason| format!("{reason}; left out")).collect();
        for file in &self.files {
            let (said, nothing) = match &file.state {
                FileState::Waiting => continue,
                FileState::Open(capture) => (&capture.warnings(), None),
                FileState::Ended(warnings, nothing) => (warnings, nothing.as_ref()),
            };
            if self.files.len() == 1 {
                all.extend(said.iter().map(ToString::to_string));
            } else if let Some(nothing) = nothing {
                all.push(nothing.to_string());
            } else {
                all.extend(said.iter().map(|warning| format!("{}: {warning}", file.path.display())));
            }
        }
        all
    }

    /// What the part read so far lacks, of all files together.
    #[must_use]
    pub const fn losses(&self) -> CaptureLosses {
        self.losses
    }

    /// The condition of the part read so far, of all files together.
    #[must_use]
    pub fn condition(&self) -> Condition {
        let mut condition = self.ended.clone();
        for file in &self.files {
            if let FileState::Open(capture) = &file.state {
                condition.add(&capture.condition());
            }
        }
        condition
    }

    /// The error of captures none of whose packets could be read; `None` where one was, and where there are
    /// none to read. It is final once [`next_packet`](Self::next_packet) has returned `None`.
    #[must_use]
    pub fn nothing_read(&mut self) -> Option<CaptureError> {
        if self.packets > 0 {
            return None;
        }
        self.files.iter_mut().find_map(|file| match &mut file.state {
            FileState::Ended(_, nothing) => nothing.take(),
            FileState::Open(capture) => capture.nothing_read(),
            FileState::Waiting => None,
        })
    }

    /// The paths of the files, in the order of [`CapturedPacket::file`].
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.files.iter().map(|file| file.path.as_path())
    }

    /// How far reading has come.
    #[must_use]
    pub fn progress(&self) -> Progress {
        let bytes = self.files.iter().map(|file| match &file.state {
            FileState::Waiting => 0,
            FileState::Open(capture) => capture.consumed(),
            FileState::Ended(..) => file.length.unwrap_or(0),
        });
        let of = self.files.iter().map(|file| file.length).sum();
        Progress { bytes: bytes.sum(), of, packets: self.packets }
    }

    fn add(&mut self, path: &Path) -> Result<(), CaptureError> {
        let known = fs::metadata(path).ok().filter(fs::Metadata::is_file);
        let inode = known.as_ref().map(|known| (known.dev(), known.ino()));
        if let Some(first) = inode.and_then(|inode| self.inodes.get(&inode)) {
            let first = self.files[*first].path.display();
            self.left_out.push(format!("{} is the same file as {first}", path.display()));
            return Ok(());
        }
        let length = known.map(|known| known.len());
        let mut file = CaptureFile {
            path: path.to_owned(),
            length,
            state: FileState::Waiting,
            losses: CaptureLosses::default(),
            interfaces: Vec::new(),
        };
        // A stream cannot be opened twice; a file is opened again when its time has come.
        let capture = file.open_now()?;
        if length.is_none() {
            file.state = FileState::Open(Box::new(capture));
        }
        self.inodes.extend(inode.map(|inode| (inode, self.files.len())));
        self.files.push(file);
        Ok(())
    }

    /// Adds all files of a folder and of the folders in it, but those whose names begin with a dot.
    fn add_folder(&mut self, folder: &Path) -> Result<(), CaptureError> {
        let mut is_empty = true;
        let mut folders = vec![folder.to_owned()];
        while let Some(next) = folders.pop() {
            let unreadable = |error| CaptureError::from_system(next.display().to_string(), error);
            let entries = fs::read_dir(&next).map_err(unreadable)?.collect::<Result<Vec<_>, _>>();
            let mut paths: Vec<PathBuf> =
                entries.map_err(unreadable)?.iter().map(fs::DirEntry::path).collect();
            paths.retain(|path| {
                path.file_name().is_none_or(|name| !name.as_encoded_bytes().starts_with(b"."))
            });
            paths.sort_unstable();
            for path in paths {
                let Ok(kind) = fs::symlink_metadata(&path) else { continue };
                if kind.is_dir() {
                    folders.push(path);
                } else if path.is_file() {
                    match self.add(&path) {
                        Err(error @ CaptureError::NotACapture { .. }) => {
                            self.left_out.push(error.to_string())
                        }
                        added => {
                            added?;
                            is_empty = false;
                        }
                    }
                }
            }
        }
        if is_empty {
            return Err(CaptureError::EmptyFolder { name: folder.display().to_string() });
        }
        Ok(())
    }

    /// Learns the time of a file's first packet. A file is closed again.
    fn begin(&mut self, at: usize) -> Result<(), CaptureError> {
        let file = &mut self.files[at];
        if let FileState::Open(capture) = &mut file.state {
            match capture.next_time()? {
                Some(time_ns) => self.open.push(Reverse((time_ns, at))),
                None => self.end(at),
            }
            return Ok(());
        }
        let mut capture = Box::new(file.open_now()?);
        match capture.next_time()? {
            Some(time_ns) => self.waiting.push((time_ns, at)),
            None => {
                file.state = FileState::Open(capture);
                self.end(at);
            }
        }
        Ok(())
    }

    /// The file that has the earliest packet; `None` where all are read.
    fn next_file(&mut self) -> Result<Option<usize>, CaptureError> {
        if self.files.len() == 1 {
            return Ok(Some(0));
        }
        if let Some(at) = self.latest.take() {
            self.queue(at)?;
        }
        while let Some((_, at)) =
            self.waiting.pop_if(|first| self.open.peek().is_none_or(|Reverse(next)| *first < *next))
        {
            let file = &mut self.files[at];
            file.state = FileState::Open(Box::new(file.open_now()?));
            self.queue(at)?;
        }
        Ok(self.open.pop().map(|Reverse((_, at))| at))
    }

    /// Puts an open file where its next packet belongs, or closes it.
    fn queue(&mut self, at: usize) -> Result<(), CaptureError> {
        let FileState::Open(capture) = &mut self.files[at].state else { return Ok(()) };
        match capture.next_time()? {
            Some(time_ns) => self.open.push(Reverse((time_ns, at))),
            None => self.end(at),
        }
        Ok(())
    }

    /// Closes a file that is read to its end.
    fn end(&mut self, at: usize) {
        let file = &mut self.files[at];
        let FileState::Open(capture) = &mut file.state else { return };
        self.ended.add(&capture.condition());
        self.losses.replace(&mut file.losses, capture.losses());
        file.state = FileState::Ended(capture.warnings(), capture.nothing_read());
    }
}

impl CaptureFile {
    fn open_now(&mut self) -> Result<Capture, CaptureError> {
        match std::mem::replace(&mut self.state, FileState::Waiting) {
            FileState::Open(capture) => Ok(*capture),
            FileState::Waiting | FileState::Ended(..) => Capture::open(&self.path),
        }
    }
}

/// The number of a packet's interface among those of all files.
fn number(
    known: &mut BTreeMap<(Option<String>, u8, usize), u32>,
    own: &mut Vec<((Option<String>, u8), u32)>,
    packet: &CapturedPacket<'_>,
) -> u32 {
    let place = packet.interface as usize;
    if let Some((_, number)) = own.get(place) {
        return *number;
    }
    let identity = (packet.interface_name.map(str::to_owned), link_number(packet.link));
    let equals = own.iter().filter(|(other, _)| *other == identity).count();
    let (name, link) = identity.clone();
    let next = u32::try_from(known.len()).unwrap_or(u32::MAX);
    let number = *known.entry((name, link, equals)).or_insert(next);
    own.push((identity, number));
    number
}

/// The place of a link in [`Link::ALL`].
fn link_number(link: Link) -> u8 {
    let place = Link::ALL.iter().position(|known| *known == link);
    place.and_then(|place| u8::try_from(place).ok()).unwrap_or(u8::MAX)
}
