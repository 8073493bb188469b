//! The program: static, so that it runs on each Linux of its architecture and alone in an image; without
//! symbols; and without paths of the machine that built it.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::crates::PROGRAM;
use super::{Architecture, Release};
use crate::{shell, toolchain};

/// Its profile in `Cargo.toml`.
const PROFILE: &str = "dist";
/// Between two flags of `CARGO_ENCODED_RUSTFLAGS`: paths may have spaces.
const SEPARATOR: &str = "\u{1f}";

/// The linker for arm64, and its package of Debian.
const ARM64_LINKER: &str = "aarch64-linux-gnu-gcc";

/// The flag that links the C library in.
const STATIC: &str = "-Ctarget-feature=+crt-static";

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
    run(release, shell::cargo("build"), Architecture::Amd64, &library)
}

/// Builds it for arm64.
fn build_arm64(release: &Release) -> Result<PathBuf> {
    let (command, library) = cargo_for_arm64()?;
    run(release, command, Architecture::Arm64, &library)
}

/// A cargo that builds for arm64, with the standard library from source, which the BPF toolchain has: no target
/// needs to be installed. The linker and the C library are Debian's for cross-compiling. With the folder of the
/// library's source.
fn cargo_for_arm64() -> Result<(Command, PathBuf)> {
    let toolchain = toolchain::choose(None, false)?;
    ensure!(
        shell::find(ARM64_LINKER).is_some(),
        "no {ARM64_LINKER}: `cargo xtask package --setup --arch arm64`"
    );
    let mut command = shell::pristine(&toolchain.cargo);
    command.arg("build").env("CARGO_UNSTABLE_BUILD_STD", "std").env("RUSTC_BOOTSTRAP", "1");
    command.env("CARGO", &toolchain.cargo).env("RUSTC", &toolchain.rustc).env("RUSTC_WRAPPER", "");
    command.env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER", ARM64_LINKER);
    Ok((command, toolchain.library))
}

/// Builds the program and an example of `handshake-lab`, as a developer has them: for arm64 static ones. Returns
/// the paths of both.
pub(super) fn build_unoptimised(
    target: &Path,
    architecture: Architecture,
    example: &str,
) -> Result<[PathBuf; 2]> {
    let (mut cargo, folder) = match architecture {
        Architecture::Amd64 => (shell::cargo("build"), target.to_owned()),
        Architecture::Arm64 => {
            let (mut cargo, _) = cargo_for_arm64()?;
            cargo.args(["--target", architecture.triple()]).env("RUSTFLAGS", STATIC);
            (cargo, target.join(architecture.triple()))
        }
    };
    cargo.current_dir(shell::root()).env("CARGO_TARGET_DIR", target).arg("--locked");
    cargo.args([
        "--package",
        PROGRAM,
        "--bin",
        "handshake",
        "--package",
        "handshake-lab",
        "--example",
        example,
    ]);
    shell::run(&mut cargo)?;
    Ok(["handshake".to_owned(), format!("examples/{example}")].map(|path| folder.join("debug").join(path)))
}

fn run(release: &Release, mut cargo: Command, architecture: Architecture, library: &Path) -> Result<PathBuf> {
    let triple = architecture.triple();
    cargo.current_dir(&release.root).env("CARGO_TARGET_DIR", &release.target);
    cargo.args(["--locked", "--profile", PROFILE, "--target", triple]);
    cargo.args(["--package", PROGRAM, "--bin", "handshake"]);
    cargo.env("CARGO_ENCODED_RUSTFLAGS", flags(release, library).join(SEPARATOR));
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
