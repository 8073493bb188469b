//! What comes from the Python package index: lists of wheels with their hashes, each installed into a folder of
//! its own.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::{packages, shell};

/// A list of wheels, and the folder that they are installed into; both below the workspace's root.
pub(crate) struct Wheels {
    pub(crate) list: &'static str,
    pub(crate) folder: &'static str,
}

impl Wheels {
    /// Installs the wheels unless those of the list are there.
    ///
    /// # Errors
    ///
    /// No Python with pip can be had, or a wheel is not what its hash says.
    pub(crate) fn install(&self) -> Result<()> {
        if self.is_installed() {
            return Ok(());
        }
        let python = match python() {
            Some(python) => python,
            None => {
                packages::install_pip()?;
                python().context("python3 has no pip, though Debian's python3-pip is installed")?
            }
        };
        let folder = self.folder();
        if folder.exists() {
            fs::remove_dir_all(&folder).with_context(|| format!("remove {}", folder.display()))?;
        }
        let mut command = shell::pristine(python);
        let options = ["--quiet", "--no-deps", "--require-hashes", "--only-binary", ":all:"];
        command.args(["-m", "pip", "install"]).args(options);
        command.env("PIP_ROOT_USER_ACTION", "ignore").env("PIP_DISABLE_PIP_VERSION_CHECK", "1");
        shell::run(command.arg("--target").arg(folder).arg("--requirement").arg(self.list()))?;
        let installed = self.installed();
        fs::copy(self.list(), &installed).with_context(|| format!("write {}", installed.display()))?;
        Ok(())
    }

    /// The folder that the wheels are installed into.
    pub(crate) fn folder(&self) -> PathBuf {
        shell::root().join(self.folder)
    }

    /// Whether the wheels of the list are installed.
    pub(crate) fn is_installed(&self) -> bool {
        let wanted = fs::read(self.list()).ok();
        wanted.is_some() && fs::read(self.installed()).ok() == wanted
    }

    fn list(&self) -> PathBuf {
        shell::root().join(self.list)
    }

    /// A copy of the list, written after the installation.
    fn installed(&self) -> PathBuf {
        self.folder().join("installed.txt")
    }
}

/// A Python with pip.
fn python() -> Option<&'static str> {
    let has_pip =
        |python: &&str| shell::output(shell::pristine(python).args(["-m", "pip", "--version"])).is_some();
    ["python3", "/usr/bin/python3"].into_iter().find(has_pip)
}
