//! `--prove`: what is released, installed and run as its users do.

mod containers;
mod machine;

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use super::{Release, deb, image};
use crate::{kernels, packages};

/// Installs what the proof takes.
pub(super) fn setup() -> Result<()> {
    packages::install_for_proof()?;
    kernels::setup()
}

/// Proves the files in a folder.
pub(super) fn run(release: &Release, folder: &Path, shows_console: bool) -> Result<()> {
    containers::prove(release, &folder.join(image::file_name(release)))?;
    let package = folder.join(deb::file_name(release));
    let package = fs::read(&package).with_context(|| format!("read {}", package.display()))?;
    machine::prove(release, &package, shows_console)
}
