//! The tree of cgroup v2: where it is mounted, and a walk through its directories.

use std::cmp::Reverse;
use std::ffi::OsString;
use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::{DirEntryExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

/// The mounts of this process (proc_pid_mountinfo(5)).
const MOUNTS: &str = "/proc/self/mountinfo";
/// Most directories that a walk enters, so that it ends however large the tree becomes.
const MOST: usize = 100_000;

/// Where the tree is mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mount {
    folder: PathBuf,
    /// The path in the tree of what is mounted; empty for the root.
    root: String,
}

impl Mount {
    /// # Errors
    ///
    /// The kernel's, or it is not mounted.
    pub(super) fn find() -> io::Result<Self> {
        let mounts = fs::read(MOUNTS)?;
        Self::among(&mounts).ok_or_else(|| io::Error::new(ErrorKind::NotFound, "cgroup v2 is not mounted"))
    }

    /// Of several mounts, the one that has most of the tree, and of equal ones the first: a container that has a
    /// namespace of control groups sees its own group as `/`, and the host's tree, if it has that too, as `/../..`.
    fn among(mounts: &[u8]) -> Option<Self> {
        let all = mounts.split(|byte| *byte == b'\n').filter_map(Self::of_line);
        all.min_by_key(|(above, mount)| (Reverse(*above), !mount.root.is_empty())).map(|(_, mount)| mount)
    }

    /// A line of mountinfo: the fourth field is what is mounted, the fifth where, and after a dash comes the kind.
    /// Returns the mount, and how far above this process' own root it begins.
    fn of_line(line: &[u8]) -> Option<(usize, Self)> {
        let fields: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
        let dash = fields.iter().position(|field| *field == b"-")?;
        if *fields.get(dash + 1)? != b"cgroup2" {
            return None;
        }
        let [root, folder] = [*fields.get(3)?, *fields.get(4)?].map(unescaped);
        let root = String::from_utf8_lossy(&root).into_owned();
        // A root that lies above this process' own is shown as `/..`: what is below has no such prefix.
        let above = root.split('/').filter(|part| *part == "..").count();
        let root = if root == "/" || above > 0 { String::new() } else { root };
        Some((above, Self { folder: PathBuf::from(OsString::from_vec(folder)), root }))
    }

    #[cfg(test)]
    pub(super) fn at(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), root: String::new() }
    }

    /// Whether the root of the machine's tree is mounted there: no other has the file without a parent.
    pub(super) fn is_whole(&self) -> bool {
        self.root.is_empty() && !self.folder.join("cgroup.type").exists()
    }

    /// The folder at which it is mounted.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }
}

/// The kernel writes space, tab, line feed and backslash as `\` and three octal digits.
fn unescaped(text: &[u8]) -> Vec<u8> {
    let mut all = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [first, after @ ..] = rest {
        let digits = after.first_chunk::<3>().filter(|digits| *first == b'\\' && is_octal(digits));
        match digits {
            Some(digits) => {
                let value = digits.iter().fold(0_u32, |value, digit| value * 8 + u32::from(digit - b'0'));
                all.push(u8::try_from(value).unwrap_or(b'?'));
                rest = &after[3..];
            }
            None => {
                all.push(*first);
                rest = after;
            }
        }
    }
    all
}

fn is_octal(digits: &[u8; 3]) -> bool {
    digits.iter().all(|digit| (b'0'..=b'7').contains(digit))
}

/// The id of the group that is this directory.
///
/// # Errors
///
/// The kernel's: it may be gone.
pub(super) fn id_of(folder: &Path) -> io::Result<u64> {
    fs::metadata(folder).map(|data| data.ino())
}

/// A walk through the tree, in pieces. A directory that is gone, or may not be read, is passed by.
#[derive(Debug)]
pub(super) struct Walk {
    /// Directories that are not read yet, each with its path in the tree.
    waiting: Vec<(PathBuf, String)>,
    /// The root, which no directory lists.
    root: Option<(PathBuf, String)>,
    entered: usize,
}

impl Walk {
    pub(super) fn of(mount: &Mount) -> Self {
        let root = (mount.folder.clone(), mount.root.clone());
        Self { waiting: vec![root.clone()], root: Some(root), entered: 0 }
    }

    /// Reads up to `most` further directories, and hands over the id, the directory and the path of each that
    /// it finds. Returns whether it has read all.
    pub(super) fn advance(&mut self, most: usize, found: &mut dyn FnMut(u64, PathBuf, String)) -> bool {
        if let Some((folder, path)) = self.root.take()
            && let Ok(id) = id_of(&folder)
        {
            found(id, folder, if path.is_empty() { "/".to_owned() } else { path });
        }
        for _ in 0..most {
            let Some((folder, path)) = self.waiting.pop() else { return true };
            self.entered += 1;
            if self.entered > MOST {
                self.waiting.clear();
                return true;
            }
            let Ok(entries) = fs::read_dir(&folder) else { continue };
            for entry in entries.flatten() {
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    let path = format!("{path}/{}", String::from_utf8_lossy(entry.file_name().as_bytes()));
                    found(entry.ino(), entry.path(), path.clone());
                    self.waiting.push((entry.path(), path));
                }
            }
        }
        self.waiting.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mount_is_found_wherever_it_is() {
        let unified = "23 1 8:1 / / rw - ext4 /dev/sda1 rw\n\
             31 23 0:28 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";
        let hybrid = "32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n\
             41 31 0:38 / /sys/fs/cgroup/unified rw,relatime shared:10 master:3 - cgroup2 cgroup2 rw\n";
        let part = "50 49 0:30 /docker/4f5e /sys/fs/cgroup ro - cgroup2 cgroup ro\n";
        let above = "50 49 0:30 /../.. /run/my\\040tree ro - cgroup2 cgroup ro\n";
        let table = [
            (unified.to_owned(), Some(("/sys/fs/cgroup", ""))),
            (hybrid.to_owned(), Some(("/sys/fs/cgroup/unified", ""))),
            (part.to_owned(), Some(("/sys/fs/cgroup", "/docker/4f5e"))),
            (format!("{part}{hybrid}"), Some(("/sys/fs/cgroup/unified", ""))),
            (above.to_owned(), Some(("/run/my tree", ""))),
            (format!("{unified}{above}"), Some(("/run/my tree", ""))),
            (format!("{above}{unified}"), Some(("/run/my tree", ""))),
            ("32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n".to_owned(), None),
            ("cut 31 0".to_owned(), None),
        ];
        for (mounts, expected) in table {
            let found = Mount::among(mounts.as_bytes());
            let expected =
                expected.map(|(folder, root)| Mount { folder: folder.into(), root: root.to_owned() });
            assert_eq!(found, expected, "{mounts}");
        }
    }

    #[test]
    fn a_walk_in_pieces_finds_what_one_at_once_finds() {
        let folder = std::env::temp_dir().join(format!("handshake-tree-{}", std::process::id()));
        for path in ["a/b/c", "a/d", "e", "f/g"] {
            fs::create_dir_all(folder.join(path)).expect("it can be made");
        }
        fs::write(folder.join("a/cgroup.procs"), "").expect("it can be written");
        let paths = |most: usize| {
            let (mut walk, mut paths, mut rounds) = (Walk::of(&Mount::at(&folder)), Vec::new(), 0);
            loop {
                rounds += 1;
                let is_done = walk.advance(most, &mut |id, folder, path| {
                    assert_eq!(id_of(&folder).expect("it is there"), id);
                    paths.push(path);
                });
                if is_done {
                    break;
                }
            }
            paths.sort();
            (paths, rounds)
        };
        let (all, once) = paths(100);
        assert_eq!(all, ["/", "/a", "/a/b", "/a/b/c", "/a/d", "/e", "/f", "/f/g"]);
        let (pieces, rounds) = paths(1);
        assert_eq!((pieces, once), (all, 1));
        assert!(rounds >= 8, "{rounds}");
        fs::remove_dir_all(&folder).expect("it can be removed");
    }
}
