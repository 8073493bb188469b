//! The files that a machine boots with, as a cpio archive in the kernel's format (`newc`,
//! Documentation/driver-api/early-userspace/buffer-format.rst).

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

const FOLDER: u32 = 0o040_755;
const FILE: u32 = 0o100_000;
const LINK: u32 = 0o120_777;
/// The name of the entry that ends an archive.
const END: &str = "TRAILER!!!";

/// An archive under construction.
pub(super) struct Initramfs {
    bytes: Vec<u8>,
    folders: BTreeSet<String>,
    entries: u32,
}

impl Initramfs {
    /// An archive with the folders that file systems are mounted on.
    pub(super) fn new() -> Self {
        let mut empty = Self { bytes: Vec::new(), folders: BTreeSet::new(), entries: 0 };
        ["dev", "proc", "sys"].into_iter().for_each(|folder| empty.folder(folder));
        empty
    }

    /// Adds a file of the host as an executable at another path.
    pub(super) fn copy(&mut self, from: &Path, to: &str) -> Result<()> {
        let content = fs::read(from).with_context(|| format!("read {}", from.display()))?;
        self.add(to, 0o755, &content);
        Ok(())
    }

    /// Adds a file.
    pub(super) fn add(&mut self, path: &str, mode: u32, content: &[u8]) {
        let path = self.in_its_folder(path);
        self.entry(&path, FILE | mode, content);
    }

    /// Adds a symbolic link.
    pub(super) fn link(&mut self, path: &str, target: &str) {
        let path = self.in_its_folder(path);
        self.entry(&path, LINK, target.as_bytes());
    }

    /// Ends the archive and writes it to a file.
    pub(super) fn write(mut self, path: &Path) -> Result<()> {
        self.entry(END, 0, &[]);
        fs::write(path, &self.bytes).with_context(|| format!("write {}", path.display()))
    }

    /// Strips the path's first slash, and adds the folders above it.
    fn in_its_folder(&mut self, path: &str) -> String {
        let path = path.trim_start_matches('/');
        for (end, _) in path.match_indices('/') {
            self.folder(&path[..end]);
        }
        path.to_owned()
    }

    fn folder(&mut self, path: &str) {
        if self.folders.insert(path.to_owned()) {
            self.entry(path, FOLDER, &[]);
        }
    }

    /// Appends an entry: thirteen numbers of eight hexadecimal digits, the name and the content, each padded
    /// to four bytes.
    fn entry(&mut self, name: &str, mode: u32, content: &[u8]) {
        self.entries += 1;
        let (number, links) = (self.entries, 1);
        let fields =
            [number, mode, 0, 0, links, 0, length(content), 0, 0, 0, 0, length(name.as_bytes()) + 1, 0];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes.extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

/// A length field. Files here are far below its limit of 4 GiB.
fn length(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).unwrap_or(u32::MAX)
}
