//! Does everything that runs on the host compile for arm64 too? Checked, not linked: no C compiler for it is needed.

use anyhow::Result;

use super::{HOST, Outcome};
use crate::toolchain;
use crate::{build_ebpf, shell};

/// The target's name for rustc.
const TARGET: &str = "aarch64-unknown-linux-gnu";

/// With the standard library from source, which the BPF toolchain has: no target needs to be installed.
pub(super) fn check() -> Result<Outcome> {
    let Some(toolchain) = toolchain::ready().into_iter().next() else {
        return Ok(Outcome::Skipped(toolchain::NEEDED.to_owned()));
    };
    let mut command = shell::pristine(&toolchain.cargo);
    command.current_dir(shell::root()).args(["check", "--locked", "--target", TARGET]).args(HOST);
    command.arg("--all-targets").arg("--target-dir").arg(build_ebpf::target_folder());
    command.env("CARGO_UNSTABLE_BUILD_STD", "std").env("RUSTC_BOOTSTRAP", "1");
    command.env("CARGO", &toolchain.cargo).env("RUSTC", &toolchain.rustc).env("RUSTC_WRAPPER", "");
    shell::run(&mut command)?;
    Ok(Outcome::Passed)
}
