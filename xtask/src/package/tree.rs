//! Files with their paths and modes, in the order of their paths.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use anyhow::{Context, Result};

use crate::shell;

/// The mode of folders and programs.
const PROGRAM: u32 = 0o755;
/// The mode of all other files.
const FILE: u32 = 0o644;

/// A tree of files.
#[derive(Default)]
pub(super) struct Tree(BTreeMap<String, TreeFile>);

#[derive(PartialEq, Eq)]
struct TreeFile {
    mode: u32,
    bytes: Vec<u8>,
}

impl Tree {
    /// Adds a file.
    pub(super) fn file(&mut self, path: &str, bytes: &[u8]) {
        self.0.insert(path.to_owned(), TreeFile { mode: FILE, bytes: bytes.to_owned() });
    }

    /// Adds a program.
    pub(super) fn program(&mut self, path: &str, bytes: &[u8]) {
        self.0.insert(path.to_owned(), TreeFile { mode: PROGRAM, bytes: bytes.to_owned() });
    }

    /// Adds all files of another tree.
    pub(super) fn extend(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    /// Paths and contents.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.0.iter().map(|(path, file)| (path.as_str(), file.bytes.as_slice()))
    }

    /// The paths of what is not the same in both.
    pub(super) fn differences<'a>(&'a self, other: &'a Self) -> Vec<&'a str> {
        let all: BTreeMap<_, _> = self.0.iter().chain(&other.0).collect();
        let differ = all.into_keys().filter(|path| self.0.get(*path) != other.0.get(*path));
        differ.map(String::as_str).collect()
    }

    /// Makes a folder that has these files, and nothing else.
    pub(super) fn replace(&self, folder: &Path) -> Result<()> {
        if folder.exists() {
            fs::remove_dir_all(folder).with_context(|| format!("remove {}", folder.display()))?;
        }
        make(folder, folder)?;
        self.add_to(folder)
    }

    /// Writes the files to a folder, among those that it has.
    pub(super) fn add_to(&self, folder: &Path) -> Result<()> {
        for (path, file) in &self.0 {
            let path = folder.join(path);
            make(folder, path.parent().unwrap_or(folder))?;
            fs::write(&path, &file.bytes).with_context(|| format!("write {}", path.display()))?;
            set_mode(&path, file.mode)?;
        }
        Ok(())
    }

    /// The tree as a tar archive of root's files, all of the same time. The folder is made for that.
    pub(super) fn tar(&self, folder: &Path, epoch: u64) -> Result<Vec<u8>> {
        self.replace(folder)?;
        let archive = folder.with_extension("tar");
        let mut command = shell::pristine("tar");
        command.args(["--create", "--format=ustar", "--sort=name", "--owner=0", "--group=0"]);
        command.args(["--numeric-owner", &format!("--mtime=@{epoch}")]);
        command.arg("--directory").arg(folder).arg("--file").arg(&archive);
        command.args(top(self));
        shell::run(&mut command)?;
        fs::read(&archive).with_context(|| format!("read {}", archive.display()))
    }
}

/// The first parts of the paths, each once.
fn top(tree: &Tree) -> Vec<&str> {
    let mut names: Vec<&str> = tree.0.keys().filter_map(|path| path.split('/').next()).collect();
    names.dedup();
    names
}

/// Makes a folder below `root`, and those above it, with the mode that they have in packages.
fn make(root: &Path, folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
    folder
        .ancestors()
        .take_while(|above| above.starts_with(root))
        .try_for_each(|above| set_mode(above, PROGRAM))
}

fn set_mode(path: &Path, mode: u32) -> Result<()> {
    let mode = fs::Permissions::from_mode(mode);
    fs::set_permissions(path, mode).with_context(|| format!("set the mode of {}", path.display()))
}

/// What gzip makes of it, without a name and a time.
pub(super) fn gzip(bytes: &[u8]) -> Result<Vec<u8>> {
    use std::io::Write as _;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(bytes)?;
    Ok(encoder.finish()?)
}
