//! `cargo xtask run -- ARGS`: builds the command and runs it, through sudo only if needed.

use std::env;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::shell;

/// The capability that attaching needs, by its number in `linux/capability.h`.
const CAP_NET_ADMIN: u32 = 12;
/// The capability that includes both of [`LOADING`]: the kernel's `bpf_capable` and `perfmon_capable` accept
/// it.
const CAP_SYS_ADMIN: u32 = 21;
/// The capabilities that loading needs: CAP_PERFMON and CAP_BPF.
const LOADING: [u32; 2] = [38, 39];
/// All needed capabilities, for messages.
pub(crate) const NEEDED: &str = "CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN";
/// The subcommands that load no programs, and the options that only print.
const UNPRIVILEGED: [&str; 7] = ["replay", "doctor", "help", "--help", "-h", "--version", "-V"];
/// Variables that sudo would drop, kept in addition to those of handshake.
const PASSED: [&str; 3] = ["NO_COLOR", "TERM", "RUST_BACKTRACE"];

/// Build handshake and run it, with sudo only if needed
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Build with optimisation. Without it the build is faster, and packets are counted just as fast: the BPF
    /// object is optimised in any case
    #[arg(long)]
    release: bool,
    /// The arguments for handshake
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGS")]
    arguments: Vec<String>,
}

/// Runs the verb: replaces this process by the command. Returns only if the command cannot be started.
pub(crate) fn run(args: &Args) -> Result<()> {
    let binary = build(args.release)?;
    let mut command =
        if needs_privileges(&args.arguments) { privileged(&binary)? } else { Command::new(&binary) };
    let error = command.args(&args.arguments).exec();
    Err(error).with_context(|| format!("start {}", binary.display()))
}

/// Builds handshake as the current user; returns the path of the binary as cargo reports it.
pub(crate) fn build(release: bool) -> Result<PathBuf> {
    let mut command = shell::cargo("build");
    command.args([
        "--package",
        "handshake-user",
        "--bin",
        "handshake",
        "--message-format=json-render-diagnostics",
    ]);
    command.args(release.then_some("--release")).stderr(std::process::Stdio::inherit());
    let output = command.output().context("start cargo")?;
    if !output.status.success() {
        bail!("handshake did not compile");
    }
    executable(&String::from_utf8_lossy(&output.stdout))
        .context("cargo's output does not name the binary of handshake")
}

/// The executable's path in the last of cargo's messages that has one.
fn executable(messages: &str) -> Option<PathBuf> {
    let values = messages.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    values.filter_map(|message| message["executable"].as_str().map(PathBuf::from)).next_back()
}

/// A command that runs the program through sudo if this process may not load programs, else directly.
pub(crate) fn privileged(program: &Path) -> Result<Command> {
    if is_privileged() {
        return Ok(Command::new(program));
    }
    if shell::is_root() {
        bail!(
            "root lacks CAP_BPF or CAP_NET_ADMIN, as in a container: start the container with `--privileged` or with these two"
        );
    }
    if shell::find("sudo").is_none() {
        bail!("this needs {NEEDED}, and there is no sudo: run it as root");
    }
    eprintln!("running through sudo: {}", program.display());
    let mut command = Command::new("sudo");
    let passed = passed();
    if !passed.is_empty() {
        command.arg(format!("--preserve-env={}", passed.join(",")));
    }
    command.arg("--").arg(program);
    Ok(command)
}

/// The names of handshake's variables and of those in [`PASSED`] that are set.
fn passed() -> Vec<String> {
    let names = env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    names.filter(|name| name.starts_with("HANDSHAKE_") || PASSED.contains(&name.as_str())).collect()
}

/// May this process load and attach programs?
pub(crate) fn is_privileged() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    suffices(effective.and_then(|digits| u64::from_str_radix(digits.trim(), 16).ok()).unwrap_or_default())
}

fn suffices(effective: u64) -> bool {
    let has = |bit: u32| effective >> bit & 1 == 1;
    has(CAP_NET_ADMIN) && (has(CAP_SYS_ADMIN) || LOADING.into_iter().all(has))
}

/// Does the command line load programs? Arguments after `--` belong to another program.
fn needs_privileges(arguments: &[String]) -> bool {
    let ours = arguments.iter().take_while(|argument| *argument != "--");
    !ours.into_iter().any(|argument| UNPRIVILEGED.contains(&argument.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn needs(line: &str) -> bool {
        needs_privileges(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn only_subcommands_that_load_programs_need_privileges() {
        for line in ["", "watch -i lo", "-i lo", "check -i lo -- ./load.sh --help"] {
            assert!(needs(line), "{line}");
        }
        for line in ["replay file.pcap", "doctor", "watch --help", "-V", "help check"] {
            assert!(!needs(line), "{line}");
        }
    }

    #[test]
    fn loading_needs_two_capabilities_and_attaching_a_third() {
        let loading = 1 << 38 | 1 << 39;
        assert!(suffices(loading | 1 << CAP_NET_ADMIN));
        assert!(suffices(1 << CAP_SYS_ADMIN | 1 << CAP_NET_ADMIN));
        for short in [0, loading, 1 << 39 | 1 << CAP_NET_ADMIN, 1 << CAP_SYS_ADMIN] {
            assert!(!suffices(short), "{short:#x}");
        }
    }

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    #[test]
    fn arguments_after_two_dashes_go_to_handshake() {
        let words = ["run", "--release", "--", "check", "-i", "lo", "--", "./load.sh", "--fast"];
        let args = <Line as clap::Parser>::try_parse_from(words).expect("a good line").args;
        assert!(args.release);
        assert_eq!(args.arguments, words[3..]);
    }

    #[test]
    fn the_binary_s_path_comes_from_cargo_s_messages() {
        let messages = "{\"reason\":\"compiler-artifact\",\"executable\":null}\n\
            {\"reason\":\"compiler-artifact\",\"executable\":\"/t/debug/handshake\"}\n{\"reason\":\"build-finished\"}\n";
        assert_eq!(executable(messages), Some(PathBuf::from("/t/debug/handshake")));
        assert_eq!(executable("warning: not JSON"), None);
    }
}
