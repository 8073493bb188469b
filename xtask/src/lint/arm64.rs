//! Checks that everything that runs on the host compiles for arm64. It is not linked, so no C compiler for
//! arm64 is needed.

use anyhow::Result;

use super::{HOST, LintOutcome};
use crate::toolchain;
use crate::{build_ebpf, shell};

/// The target triple.
const TARGET: &str = "aarch64-unknown-linux-gnu";

/// Runs `cargo check` with the standard library from source, which the BPF toolchain has: no target needs to
/// be installed.
pub(super) fn check() -> Result<LintOutcome> {
    let Some(toolchain) = toolchain::ready().into_iter().next() else {
        return Ok(LintOutcome::Skipped(toolchain::NEEDED.to_owned()));
    };
    let mut command = shell::pristine(&toolchain.cargo);
    command.current_dir(shell::root()).args(["check", "--locked", "--target", TARGET]).args(HOST);
    command.arg("--all-targets").arg("--target-dir").arg(build_ebpf::target_folder());
    command.env("CARGO_UNSTABLE_BUILD_STD", "std").env("RUSTC_BOOTSTRAP", "1");
    command.env("CARGO", &toolchain.cargo).env("RUSTC", &toolchain.rustc).env("RUSTC_WRAPPER", "");
    shell::run(&mut command)?;
    Ok(LintOutcome::Passed)
}
