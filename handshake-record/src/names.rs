//! The names of segments, and how files are opened.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{CWD, Dir, Mode, OFlags, openat};
use rustix::io::Errno;

/// What a segment's name begins and ends with; between is its number.
const BEGINNING: &str = "handshake-";
const ENDING: &str = ".rec";
/// Digits of the number.
const DIGITS: usize = 10;
/// How each file in the folder is opened: a link is not followed, and a pipe is not waited for.
pub(crate) const CAREFUL: OFlags = OFlags::NOFOLLOW.union(OFlags::NONBLOCK).union(OFlags::CLOEXEC);

/// The name of a segment.
pub(super) fn name_of(number: u64) -> String {
    format!("{BEGINNING}{number:0DIGITS$}{ENDING}")
}

/// Whether this is a folder with a recording.
#[must_use]
pub fn is_recording(path: &Path) -> bool {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let found = openat(CWD, path, flags, Mode::empty()).map_err(io::Error::from);
    found.and_then(|folder| segments_in(&folder)).is_ok_and(|segments| !segments.is_empty())
}

/// The segments in a folder, the oldest first.
///
/// # Errors
///
/// Those of the file system.
pub(super) fn segments_at(path: &Path) -> io::Result<Vec<File>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let folder = openat(CWD, path, flags, Mode::empty())?;
    let mut names = segments_in(&folder)?;
    names.sort_unstable();
    let open = |(_, name): (u64, String)| match openat(&folder, name, OFlags::RDONLY | CAREFUL, Mode::empty())
    {
        Ok(file) => Some(Ok(File::from(file))),
        // It was the oldest one of a recording that is being made.
        Err(Errno::NOENT) => None,
        Err(error) => Some(Err(error.into())),
    };
    names.into_iter().filter_map(open).collect()
}

/// The names of the segments, with their numbers.
pub(super) fn segments_in(folder: &OwnedFd) -> io::Result<Vec<(u64, String)>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(folder)? {
        let entry = entry?;
        let Ok(name) = entry.file_name().to_str() else { continue };
        let digits = name.strip_prefix(BEGINNING).and_then(|rest| rest.strip_suffix(ENDING));
        let Some(digits) = digits.filter(|digits| digits.len() == DIGITS) else { continue };
        let is_number = digits.bytes().all(|byte| byte.is_ascii_digit());
        names.extend(digits.parse().ok().filter(|_| is_number).map(|number| (number, name.to_owned())));
    }
    Ok(names)
}
