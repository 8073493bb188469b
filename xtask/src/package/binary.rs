//! The program: static, so that it runs on each Linux of its architecture and alone in an image; without symbols;
//! and without paths of the machine that built it.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::Release;
use crate::shell;

/// Its profile in `Cargo.toml`.
const PROFILE: &str = "dist";
/// Between two flags of `CARGO_ENCODED_RUSTFLAGS`: paths may have spaces.
const SEPARATOR: &str = "\u{1f}";

/// Builds the program; returns its path.
pub(super) fn build(release: &Release) -> Result<PathBuf> {
    let triple = release.architecture.triple();
    let mut command = shell::cargo("build");
    command.current_dir(&release.root).env("CARGO_TARGET_DIR", &release.target);
    command.args(["--locked", "--profile", PROFILE, "--target", triple]);
    command.args(["--package", "handshake-user", "--bin", "handshake"]);
    command.env("CARGO_ENCODED_RUSTFLAGS", flags(release)?.join(SEPARATOR));
    shell::run(&mut command)?;
    let program = release.target.join(triple).join(PROFILE).join("handshake");
    ensure!(program.is_file(), "cargo has not made {}", program.display());
    Ok(program)
}

/// The same program for the architecture of this machine.
pub(super) fn runnable(release: &Release) -> Result<PathBuf> {
    build(release)
}

/// Static, and each folder of this machine by a name that every machine has. The last prefix that fits is the one
/// that is taken.
fn flags(release: &Release) -> Result<Vec<String>> {
    let sysroot =
        shell::output(Command::new("rustc").args(["--print", "sysroot"]).current_dir(&release.root));
    let sysroot = PathBuf::from(sysroot.context("ask rustc for its folder")?);
    let remap = |from: &Path, to: &str| format!("--remap-path-prefix={}={to}", from.display());
    Ok(vec![
        "-Ctarget-feature=+crt-static".to_owned(),
        remap(&shell::cargo_home().join("registry/src"), "/registry"),
        remap(&sysroot.join("lib/rustlib/src/rust"), "/rust"),
        remap(&release.root, "/handshake"),
        remap(&release.target, "/target"),
    ])
}
