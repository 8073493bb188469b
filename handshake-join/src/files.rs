//! The files of an account, and the memory that they may take, which is known before they are read.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use handshake_capture::Unpacked;

use crate::attempt::Attempt;
use crate::error::JoinError;
use crate::joined::Row;
use crate::matching::Pair;

/// The fewest bytes that handshake writes of an attempt.
const SHORTEST_LINE: u64 = 280;
/// Memory of an attempt, bytes: itself with room to grow by a quarter, its row, its part of a pair (twice,
/// because lists double as they grow), its place in an order, and its times.
pub const COST: u64 = (size_of::<Attempt>() * 5 / 4 + size_of::<Row>() + 2 * size_of::<Pair>() + 32) as u64;
/// Memory beside the attempts, bytes: buffers of the two files that are read at a time.
const BESIDE: u64 = 16 << 20;

/// The files of one side.
#[derive(Debug)]
pub struct AccountFiles {
    /// As named on the command line.
    pub name: String,
    /// All of them, those of folders among them.
    pub(crate) paths: Vec<PathBuf>,
    /// The bytes of their lines; `None` where a file is packed, or is a pipe.
    bytes: Option<u64>,
}

impl AccountFiles {
    /// The files at these paths. Those of a folder are all that are in it, but for hidden ones.
    ///
    /// # Errors
    ///
    /// A path is missing or cannot be read; a folder has no file.
    pub fn at(paths: &[PathBuf]) -> Result<Self, JoinError> {
        let mut all = Vec::new();
        for path in paths {
            match fs::metadata(path) {
                Ok(found) if found.is_dir() => all.extend(of_folder(path)?),
                Ok(_) => all.push(path.clone()),
                Err(_) if path == Path::new("-") => all.push(path.clone()),
                Err(error) => return Err(JoinError::unreadable(path, error)),
            }
        }
        let name = paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ");
        let bytes = all.iter().map(|path| plain_bytes(path)).sum();
        Ok(Self { name, paths: all, bytes })
    }
}

fn of_folder(folder: &Path) -> Result<Vec<PathBuf>, JoinError> {
    let wrong = |error| JoinError::unreadable(folder, error);
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).map_err(wrong)? {
        let entry = entry.map_err(wrong)?;
        let is_hidden = entry.file_name().as_encoded_bytes().starts_with(b".");
        if !is_hidden && entry.path().is_file() {
            files.push(entry.path());
        }
    }
    files.sort();
    if files.is_empty() {
        return Err(JoinError::EmptyFolder { name: folder.display().to_string() });
    }
    Ok(files)
}

/// The size of a file of lines; `None` of one that is packed, or of a pipe, which is opened once alone.
fn plain_bytes(path: &Path) -> Option<u64> {
    let found = fs::metadata(path).ok().filter(fs::Metadata::is_file)?;
    let is_packed = Unpacked::open(path).is_ok_and(|unpacked| unpacked.is_packed());
    (!is_packed).then_some(found.len())
}

/// Holds that standard input and pipes are named once: each of two readers would have a part of the lines.
///
/// # Errors
///
/// One is named twice.
pub fn are_read_once(accounts: [&AccountFiles; 2]) -> Result<(), JoinError> {
    let mut pipes = BTreeSet::new();
    for path in accounts.iter().flat_map(|account| &account.paths) {
        let is_input = path == Path::new("-");
        let found = fs::metadata(if is_input { Path::new("/dev/stdin") } else { path }).ok();
        let Some(found) = found.filter(|found| is_input || found.file_type().is_fifo()) else { continue };
        if !pipes.insert((found.dev(), found.ino())) {
            return Err(JoinError::Twice { name: path.display().to_string() });
        }
    }
    Ok(())
}

/// The memory that a join takes at most, bytes; `None` where the files do not tell.
#[must_use]
pub fn needed(accounts: [&AccountFiles; 2]) -> Option<u64> {
    let bytes: u64 = accounts.iter().map(|account| account.bytes).sum::<Option<u64>>()?;
    Some(BESIDE + (bytes / SHORTEST_LINE + 1).saturating_mul(COST))
}

/// Room for attempts, of both accounts together.
#[derive(Debug)]
pub struct Room {
    bytes: u64,
    left: AtomicU64,
}

impl Room {
    /// Room for as many attempts as these bytes hold.
    #[must_use]
    pub const fn of(bytes: u64) -> Self {
        Self { bytes, left: AtomicU64::new(bytes.saturating_sub(BESIDE) / COST) }
    }

    /// The bytes.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Takes room for one more; false where there is none.
    pub(crate) fn take(&self) -> bool {
        self.left.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1)).is_ok()
    }
}
