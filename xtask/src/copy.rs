//! A copy of the sources, in which a change can be tried out.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::shell;

/// The copy: a folder in the target folder, which goes when this is dropped. Always the same one, so that what cargo
/// builds in it does not pile up under new names. Dependencies are shared with the other verbs' builds.
pub(crate) struct SourceCopy {
    root: PathBuf,
    target: PathBuf,
    /// The files as they were copied, so that work in the sources meanwhile does not reach the copy.
    files: BTreeMap<PathBuf, Vec<u8>>,
}

impl SourceCopy {
    /// Copies what git tracks or would track, as it is now, to this folder of the target folder.
    pub(crate) fn make(name: &str) -> Result<Self> {
        let target = shell::target();
        let copy = Self { root: target.join(name), target, files: tracked()? };
        remove(&copy.root)?;
        copy.set(&BTreeMap::new())?;
        Ok(copy)
    }

    /// Gives these files the content, and all others that of the sources. A file that is right already stays
    /// untouched, so that cargo does not build it again.
    pub(crate) fn set(&self, edited: &BTreeMap<String, String>) -> Result<()> {
        for (file, content) in &self.files {
            if !edited.contains_key(&*file.to_string_lossy()) {
                self.write(file, content)?;
            }
        }
        for (file, content) in edited {
            self.write(Path::new(file), content.as_bytes())?;
        }
        self.remove_new(edited)
    }

    /// A file of an earlier edit that the sources do not have goes. Snapshots stay: they are written by the tests.
    fn remove_new(&self, edited: &BTreeMap<String, String>) -> Result<()> {
        let mut folders = vec![self.root.clone()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder).with_context(|| format!("list {}", folder.display()))? {
                let path = entry?.path();
                let file = path.strip_prefix(&self.root).unwrap_or(&path);
                let is_known = self.files.contains_key(file);
                if path.is_dir() {
                    folders.push(path);
                } else if !is_known
                    && !edited.contains_key(&*file.to_string_lossy())
                    && path.extension().is_none_or(|extension| extension != "snap")
                {
                    fs::remove_file(&path).with_context(|| format!("remove {}", path.display()))?;
                }
            }
        }
        Ok(())
    }

    fn write(&self, file: &Path, content: &[u8]) -> Result<()> {
        let path = self.root.join(file);
        if fs::read(&path).is_ok_and(|present| present == content) {
            return Ok(());
        }
        let folder = path.parent().unwrap_or(&self.root);
        fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
        fs::write(&path, content).with_context(|| format!("write {}", path.display()))
    }

    /// The folder of the copy.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Cargo in the copy, with the target folder of the sources and without the network.
    pub(crate) fn cargo(&self, verb: &str) -> Command {
        let mut command = shell::cargo(verb);
        command.current_dir(&self.root).args(["--offline", "--locked"]);
        command.env("CARGO_TARGET_DIR", &self.target).env("INSTA_UPDATE", "always");
        command
    }
}

impl Drop for SourceCopy {
    fn drop(&mut self) {
        if let Err(error) = remove(&self.root) {
            eprintln!("{error:#}");
        }
    }
}

/// The files of the sources, relative to the root, with their content. One that was deleted and is still in git's index
/// is left out.
fn tracked() -> Result<BTreeMap<PathBuf, Vec<u8>>> {
    let mut command = Command::new("git");
    command.args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]).current_dir(shell::root());
    let names = shell::output(&mut command).context("git lists the files")?;
    let files = names.split('\0').filter(|name| !name.is_empty()).map(PathBuf::from);
    let present = files.filter(|file| shell::root().join(file).is_file());
    present.map(|file| Ok((file.clone(), read(&shell::root().join(file))?))).collect()
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("read {}", path.display()))
}

fn remove(folder: &Path) -> Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(|| format!("remove {}", folder.display()))?;
    }
    Ok(())
}
