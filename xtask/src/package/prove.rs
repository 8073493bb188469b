//! `--prove`: what is released, installed and run as its users do.

mod containers;
mod machine;

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use super::{Release, deb, image};
use crate::{kernels, packages, shell};

/// Installs what the proof takes.
pub(super) fn setup() -> Result<()> {
    packages::install_for_proof()?;
    kernels::setup()
}

/// Proves the files in a folder.
pub(super) fn run(release: &Release, folder: &Path, shows_console: bool) -> Result<()> {
    let package = folder.join(deb::file_name(release));
    let demands = ["--allow-root", "--fail-on", "error,warning", "--tag-display-limit", "0"];
    shell::run(shell::pristine("lintian").args(demands).arg(&package))?;
    containers::prove(release, &folder.join(image::file_name(release)))?;
    let package = fs::read(&package).with_context(|| format!("read {}", package.display()))?;
    machine::prove(release, &package, shows_console)
}
