//! The architectures that handshake runs on, and how a program for each is built on this machine.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Result, ensure};

use crate::{shell, toolchain};

/// The linker for arm64, and its package of Debian.
const ARM64_LINKER: &str = "aarch64-linux-gnu-gcc";

/// The flag that links the C library in.
pub(crate) const STATIC: &str = "-Ctarget-feature=+crt-static";

/// What is built, released and tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Architecture {
    /// x86-64.
    Amd64,
    /// AArch64.
    Arm64,
}

impl Architecture {
    /// Its name in Debian and in OCI images.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Amd64 => "amd64",
            Self::Arm64 => "arm64",
        }
    }

    /// Its name in Rust.
    pub(crate) fn triple(self) -> &'static str {
        match self {
            Self::Amd64 => "x86_64-unknown-linux-gnu",
            Self::Arm64 => "aarch64-unknown-linux-gnu",
        }
    }
}

/// A cargo that builds for arm64, with the standard library from source, which the BPF toolchain has: no target
/// needs to be installed. The linker and the C library are Debian's for cross-compiling. With the folder of the
/// library's source.
pub(crate) fn cargo_for_arm64() -> Result<(Command, PathBuf)> {
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
pub(crate) fn build_unoptimised(architecture: Architecture, example: &str) -> Result<[PathBuf; 2]> {
    let target = shell::target();
    let (mut cargo, folder) = match architecture {
        Architecture::Amd64 => (shell::cargo("build"), target.clone()),
        Architecture::Arm64 => {
            let (mut cargo, _) = cargo_for_arm64()?;
            cargo.args(["--target", architecture.triple()]).env("RUSTFLAGS", STATIC);
            (cargo, target.join(architecture.triple()))
        }
    };
    cargo.current_dir(shell::root()).env("CARGO_TARGET_DIR", &target).arg("--locked");
    cargo.args([
        "--package",
        "handshake-user",
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
