//! Runs other programs and prints their command lines.

use std::env;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// The root folder of the workspace.
pub(crate) fn root() -> PathBuf {
    let xtask = Path::new(env!("CARGO_MANIFEST_DIR"));
    xtask.parent().unwrap_or(xtask).to_owned()
}

/// Cargo's target folder.
pub(crate) fn target() -> PathBuf {
    root().join(env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into()))
}

/// Prints the command and runs it; any status but success is an error.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    eprintln!("$ {}", spell(command));
    let status = command.status().with_context(|| format!("start {}", spell(command)))?;
    if !status.success() {
        bail!("{} ended with {status}", spell(command));
    }
    Ok(())
}

/// The command's stdout without trailing whitespace, if the command succeeds and prints UTF-8.
pub(crate) fn output(command: &mut Command) -> Option<String> {
    let output = command.stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim_end().to_owned())
}

/// The cargo that runs this program, in the workspace's root.
pub(crate) fn cargo(verb: &str) -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.arg(verb).current_dir(root());
    command
}

/// A command without the variables that the running cargo, or its user, has put into the environment: a
/// second toolchain would take them for its own. `LD_LIBRARY_PATH` names the first toolchain's LLVM.
pub(crate) fn pristine(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    for (name, _) in env::vars_os() {
        if name.to_str().is_some_and(steers_cargo) {
            command.env_remove(name);
        }
    }
    command.env_remove("LD_LIBRARY_PATH");
    command
}

/// Does the variable choose a toolchain, a profile or flags? Variables that say where things are and how the
/// network is reached are kept.
fn steers_cargo(name: &str) -> bool {
    const KEPT: [&str; 6] =
        ["CARGO_HOME", "CARGO_HTTP_", "CARGO_NET_", "CARGO_REGISTR", "CARGO_SOURCE_", "RUSTUP_"];
    let kept = KEPT.iter().any(|prefix| name.starts_with(prefix)) && name != "RUSTUP_TOOLCHAIN";
    let ours = ["CARGO", "RUST", "CLIPPY"].iter().any(|prefix| name.starts_with(prefix));
    ours && !kept && name != "RUST_BACKTRACE"
}

/// The path of a program, from PATH and cargo's folder of installed programs.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let installed = cargo_home().join("bin");
    env::split_paths(&path).chain([installed]).map(|folder| folder.join(program)).find(|file| file.is_file())
}

/// The folder in which cargo keeps crates and installed programs.
pub(crate) fn cargo_home() -> PathBuf {
    let default = || env::home_dir().unwrap_or_default().join(".cargo");
    env::var_os("CARGO_HOME").map_or_else(default, PathBuf::from)
}

/// Is the effective user root?
pub(crate) fn is_root() -> bool {
    output(Command::new("id").arg("-u")).as_deref() == Some("0")
}

/// The prefix of a shell line that needs root: `sudo `, or nothing if the user is root.
pub(crate) fn sudo() -> &'static str {
    if is_root() { "" } else { "sudo " }
}

/// A command that runs a shell line, in the environment of [`pristine`].
pub(crate) fn line(text: &str) -> Command {
    let mut command = pristine("sh");
    command.args(["-e", "-c", text]).current_dir(root());
    command
}

/// The command line as it would be typed.
fn spell(command: &Command) -> String {
    let words = [command.get_program()].into_iter().chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_that_steer_cargo_are_removed_and_network_settings_stay() {
        for name in ["CARGO", "CARGO_ENCODED_RUSTFLAGS", "CARGO_PROFILE_RELEASE_LTO", "RUSTC", "RUSTFLAGS"] {
            assert!(steers_cargo(name), "{name}");
        }
        assert!(steers_cargo("RUSTUP_TOOLCHAIN") && steers_cargo("RUSTC_WRAPPER"));
        for name in ["CARGO_HOME", "CARGO_HTTP_PROXY", "RUSTUP_HOME", "RUST_BACKTRACE", "PATH"] {
            assert!(!steers_cargo(name), "{name}");
        }
    }
}
