//! The folder that evidence is written to: two files, each written beside its name and then renamed. No link is
//! followed: one that has the name of a file is replaced.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{AtFlags, OFlags, openat, renameat, unlinkat};
use rustix::io::Errno;

use crate::folder::{FILE, folder_at};
use crate::names::CAREFUL;

/// The packets.
pub const CAPTURE: &str = "evidence.pcapng";
/// What they come to.
const SUMMARY: &str = "summary.md";

/// A folder for evidence.
pub struct EvidenceFolder(OwnedFd);

impl EvidenceFolder {
    /// Opens the folder, or makes it.
    ///
    /// # Errors
    ///
    /// Those of the file system; it is a link or no folder.
    pub fn open(path: &Path) -> io::Result<Self> {
        folder_at(path).map(Self)
    }

    /// Writes both files. Each is there as a whole, or as it was before.
    ///
    /// # Errors
    ///
    /// Those of the file system.
    pub fn write(&self, capture: &[u8], summary: &[u8]) -> io::Result<()> {
        self.replace(CAPTURE, capture)?;
        self.replace(SUMMARY, summary)
    }

    fn replace(&self, name: &str, content: &[u8]) -> io::Result<()> {
        let beside = format!("{name}.new");
        let written = self.create(&beside).and_then(|mut file| file.write_all(content));
        let written = written.and_then(|()| Ok(renameat(&self.0, &beside, &self.0, name)?));
        if written.is_err() {
            // It takes room where there is none.
            let _ = unlinkat(&self.0, &beside, AtFlags::empty());
        }
        written
    }

    /// A new file. One of this name is what a run that was killed has left, or a link.
    fn create(&self, name: &str) -> io::Result<File> {
        match unlinkat(&self.0, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => return Err(error.into()),
        }
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
        Ok(openat(&self.0, name, flags | CAREFUL, FILE)?.into())
    }
}
