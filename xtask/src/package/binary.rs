//! The program: static, so that it runs on each Linux of its architecture and alone in an image; without
//! symbols; and without paths of the machine that built it.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::crates::PROGRAM;
use super::{Architecture, Release};
use crate::architecture::{STATIC, cargo_for_arm64};
use crate::shell;

/// Its profile in `Cargo.toml`.
const PROFILE: &str = "dist";
/// Between two flags of `CARGO_ENCODED_RUSTFLAGS`: paths may have spaces.
const SEPARATOR: &str = "\u{1f}";

/// Builds the program; returns its path.
pub(super) fn build(release: &Release) -> Result<PathBuf> {
    match release.architecture {
        Architecture::Amd64 => build_here(release),
        Architecture::Arm64 => build_arm64(release),
    }
}

/// Builds it for x86-64, with the cargo that runs this.
pub(super) fn build_here(release: &Release) -> Result<PathBuf> {
    let sysroot =
        shell::output(Command::new("rustc").args(["--print", "sysroot"]).current_dir(&release.root));
    let sysroot = PathBuf::from(sysroot.context("ask rustc for its folder")?);
    let library = sysroot.join("lib/rustlib/src/rust");
    let script = release.root.join("packaging/without-unwinding.ld");
    let link = |argument: &str| format!("-Clink-arg=-Wl,{argument}");
    // What rustc links with there, lld, knows them: functions of equal code are one, no tables for unwinding, and a
    // bit for each word that is relocated.
    let smaller = [
        link("--icf=all"),
        link("--no-eh-frame-hdr"),
        link(&format!("-T,{}", script.display())),
        link("-z,pack-relative-relocs"),
    ];
    run(release, shell::cargo("build"), Architecture::Amd64, &library, &smaller)
}

/// Builds it for arm64.
fn build_arm64(release: &Release) -> Result<PathBuf> {
    let (command, library) = cargo_for_arm64()?;
    run(release, command, Architecture::Arm64, &library, &[])
}

fn run(
    release: &Release,
    mut cargo: Command,
    architecture: Architecture,
    library: &Path,
    more: &[String],
) -> Result<PathBuf> {
    let triple = architecture.triple();
    cargo.current_dir(&release.root).env("CARGO_TARGET_DIR", &release.target);
    cargo.args(["--locked", "--profile", PROFILE, "--target", triple]);
    cargo.args(["--package", PROGRAM, "--bin", "handshake"]);
    cargo.env("CARGO_ENCODED_RUSTFLAGS", [&flags(release, library), more].concat().join(SEPARATOR));
    shell::run(&mut cargo)?;
    let program = release.target.join(triple).join(PROFILE).join("handshake");
    ensure!(program.is_file(), "cargo has not made {}", program.display());
    Ok(program)
}

/// Static, and each folder of this machine by a name that every machine has. Of the prefixes that fit, the
/// last one is taken.
fn flags(release: &Release, library: &Path) -> Vec<String> {
    let remap = |from: &Path, to: &str| format!("--remap-path-prefix={}={to}", from.display());
    vec![
        STATIC.to_owned(),
        remap(&shell::cargo_home().join("registry/src"), "/registry"),
        remap(library, "/rust"),
        remap(&release.root, "/handshake"),
        remap(&release.target, "/target"),
    ]
}
