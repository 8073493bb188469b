//! `handshake generate`: the man page and the completions, made of the command line's own definition; and the
//! seccomp profile, because an image has nothing else that could print it.

use std::fs;
use std::io;
use std::path::Path;
use std::process;

use clap_complete::Shell;
use clap_mangen::Man;

use crate::cli::{self, GenerateArgs, Generated};
use crate::command::out;
use crate::error::CommandError;
use crate::output::{Output, Target};

/// What container engines take as `--security-opt seccomp=FILE`.
const PROFILE: &str = include_str!("../../../packaging/handshake-seccomp.json");

/// Runs `handshake generate` and returns its exit code.
///
/// # Errors
///
/// Failures to write.
pub(crate) fn run(args: &GenerateArgs) -> Result<u8, CommandError> {
    let mut made = Vec::new();
    let mut complete = |shell| {
        clap_complete::generate(shell, &mut cli::definition(), "handshake", &mut made);
    };
    match args.what {
        Generated::Man => Man::new(cli::definition()).render(&mut made).map_err(out)?,
        Generated::Bash => complete(Shell::Bash),
        Generated::Zsh => complete(Shell::Zsh),
        Generated::Fish => complete(Shell::Fish),
        Generated::Seccomp => made.extend_from_slice(PROFILE.as_bytes()),
    }
    match &args.file {
        None => Output::to(Target::stdout()).put(|to| to.write_all(&made)).map_err(out)?,
        Some(file) => put(file, &made).map_err(CommandError::output(format!("write {}", file.display())))?,
    }
    Ok(0)
}

/// Writes a file as a whole: another process reads the one before or this one. An image has no shell that could.
fn put(file: &Path, made: &[u8]) -> io::Result<()> {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
    folder.map_or(Ok(()), fs::create_dir_all)?;
    let mut beside = file.as_os_str().to_owned();
    beside.push(format!(".{}", process::id()));
    fs::write(&beside, made)?;
    fs::rename(&beside, file)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Without these the kernel side is not loaded, or what is left afterwards is not given up.
    #[test]
    fn the_profile_allows_what_loading_and_giving_up_call() {
        let profile: serde_json::Value = serde_json::from_str(PROFILE).expect("JSON");
        assert_eq!(profile["defaultAction"], "SCMP_ACT_ERRNO");
        let allowed: Vec<&str> = profile["syscalls"][0]["names"]
            .as_array()
            .expect("names")
            .iter()
            .filter_map(serde_json::Value::as_str)
            .collect();
        for call in ["bpf", "capset", "prctl", "seccomp", "landlock_restrict_self", "setresuid", "epoll_wait"]
        {
            assert!(allowed.contains(&call), "{call}");
        }
        for call in ["clone3", "init_module", "mount", "ptrace", "setns", "unshare"] {
            assert!(!allowed.contains(&call), "{call}");
        }
    }

    #[test]
    fn a_man_page_and_completions_have_the_options() {
        let mut man = Vec::new();
        Man::new(cli::definition()).render(&mut man).expect("memory has room");
        let man = String::from_utf8(man).expect("text");
        assert!(man.contains(".TH handshake 1") && man.contains("half\\-open\\-after"), "{man}");
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let mut made = Vec::new();
            clap_complete::generate(shell, &mut cli::definition(), "handshake", &mut made);
            let made = String::from_utf8(made).expect("text");
            assert!(made.contains("half-open-after") && made.contains("why"), "{shell}");
        }
    }
}
