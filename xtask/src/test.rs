//! `cargo xtask test`: the whole suite, and one line that sums it up.
//!
//! A test that cannot run here says so by one line `skipped: REASON`, appended to the file that
//! `HANDSHAKE_SKIP_LOG` names, and returns. The harness takes it for passed; the sum does not.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result};

use crate::{build_ebpf, packages, run, shell};

/// Where a test says that it was skipped.
const SKIP_LOG: &str = "HANDSHAKE_SKIP_LOG";
/// Where programs and maps are pinned.
const BPFFS: &str = "/sys/fs/bpf";

/// Run the whole suite
#[derive(clap::Args)]
pub(crate) struct Args {
    /// First install all that the suite uses, and test a BPF object built from the sources as they are
    #[arg(long)]
    setup: bool,
    /// Run the test programs through sudo, as --setup does; cargo stays with you
    #[arg(long)]
    sudo: bool,
    /// For cargo test: a name, `-p CRATE`
    #[arg(allow_hyphen_values = true, value_name = "ARGS")]
    cargo: Vec<String>,
    /// For the test programs: `--nocapture`
    #[arg(last = true, value_name = "ARGS")]
    programs: Vec<String>,
}

/// Runs the verb.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let object = if args.setup { Some(set_up()?) } else { None };
    let log = shell::root().join("target/skipped.log");
    fs::create_dir_all(shell::root().join("target")).context("make target")?;
    fs::write(&log, "").with_context(|| format!("empty {}", log.display()))?;
    let mut command = cargo_test(args, &log);
    if let Some(object) = &object {
        command.env(handshake_object::VARIABLE, object);
    }
    raise(&mut command, args.setup || args.sudo);
    let (mut sum, succeeded) = watch(&mut command)?;
    sum.leave_out(&fs::read_to_string(&log).with_context(|| format!("read {}", log.display()))?);
    // A program that crashed, or did not build, has left no result to add.
    sum.failed = sum.failed.max(u64::from(!succeeded));
    println!("{} passed, {} failed, {} skipped", sum.passed, sum.failed, sum.skipped);
    Ok(if sum.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Makes everything ready on this machine. Gives the freshly built object.
fn set_up() -> Result<PathBuf> {
    packages::install()?;
    let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
    if !mounts.lines().any(|line| line.split(' ').nth(1) == Some(BPFFS)) {
        shell::run(&mut shell::line(&format!("{}mount -t bpf bpf {BPFFS}", shell::sudo())))?;
    }
    build_ebpf::build_fresh(true)
}

/// `cargo test` over everything that runs on the host, or over the packages that the arguments choose.
fn cargo_test(args: &Args, log: &Path) -> Command {
    let mut command = shell::cargo("test");
    command.env(SKIP_LOG, log).arg("--no-fail-fast");
    let chooses = |argument: &String| argument.starts_with("-p") || argument.starts_with("--package");
    if !args.cargo.iter().any(chooses) {
        command.args(["--workspace", "--exclude", build_ebpf::PACKAGE]);
        command.args(["--exclude", build_ebpf::BENCH_PACKAGE]);
    }
    command.args(&args.cargo);
    // The parser leaves "--" where it is behind words for cargo, and takes it away otherwise.
    if !args.programs.is_empty() {
        command.arg("--").args(&args.programs);
    }
    command
}

/// Has cargo run the test programs through sudo, if that is wanted and gains anything; else says what
/// will be skipped.
fn raise(command: &mut Command, wanted: bool) {
    if run::is_privileged() {
        return;
    }
    if wanted && !shell::is_root() && shell::find("sudo").is_some() {
        let host = shell::output(Command::new("rustc").arg("-vV")).unwrap_or_default();
        let host = host.lines().find_map(|line| line.strip_prefix("host: ")).unwrap_or_default();
        let triple = host.to_uppercase().replace('-', "_");
        command.env(format!("CARGO_TARGET_{triple}_RUNNER"), "sudo --preserve-env");
        return;
    }
    eprintln!(
        "without {}: tests that load programs or make namespaces are skipped. `cargo xtask test --sudo` runs them",
        run::NEEDED
    );
}

/// Runs the tests, passing on what they print, and adds up their results. They have nothing to read, whatever
/// the caller has: a program that reads its input would else end on one machine and wait on another.
fn watch(command: &mut Command) -> Result<(Sum, bool)> {
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = command.spawn().context("start cargo test")?;
    let stdout = child.stdout.take().context("cargo's output")?;
    let mut sum = Sum::default();
    for line in BufReader::new(stdout).split(b'\n') {
        let line = line.context("read cargo's output")?;
        let line = String::from_utf8_lossy(&line);
        println!("{line}");
        sum.add(&line);
    }
    let status = child.wait().context("wait for cargo test")?;
    Ok((sum, status.success()))
}

/// Results of several test programs.
#[derive(Debug, Default, PartialEq, Eq)]
struct Sum {
    passed: u64,
    failed: u64,
    skipped: u64,
}

impl Sum {
    /// Adds the harness's closing line of one program; any other line is nothing.
    fn add(&mut self, line: &str) {
        let Some(counts) = line.strip_prefix("test result: ") else { return };
        for part in counts.split([';', '.']) {
            let mut words = part.split_whitespace();
            let Some(Ok(count)) = words.next().map(str::parse::<u64>) else { continue };
            match words.next() {
                Some("passed") => self.passed += count,
                Some("failed") => self.failed += count,
                Some("ignored") => self.skipped += count,
                _ => {}
            }
        }
    }

    /// Moves what says that it was skipped from the passed.
    fn leave_out(&mut self, log: &str) {
        let skipped = log.lines().filter(|line| line.starts_with("skipped: ")).count() as u64;
        self.passed = self.passed.saturating_sub(skipped);
        self.skipped += skipped;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_add_up_over_programs() {
        let mut sum = Sum::default();
        sum.add(
            "test result: ok. 13 passed; 0 failed; 1 ignored; 0 measured; 7 filtered out; finished in 0.01s",
        );
        sum.add("test result: FAILED. 2 passed; 3 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.00s");
        sum.add("test a_name ... ok");
        assert_eq!(sum, Sum { passed: 15, failed: 3, skipped: 1 });
    }

    #[test]
    fn a_test_that_skips_itself_did_not_pass() {
        let mut sum = Sum { passed: 5, failed: 0, skipped: 1 };
        sum.leave_out("skipped: needs CAP_BPF\nskipped: no captures\n");
        assert_eq!(sum, Sum { passed: 3, failed: 0, skipped: 3 });
    }

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn line(words: &[&str]) -> String {
        let words = ["test"].iter().chain(words);
        let line = <Line as clap::Parser>::try_parse_from(words).expect("a good line");
        format!("{:?}", cargo_test(&line.args, Path::new("log"))).replace('"', "")
    }

    #[test]
    fn a_chosen_package_replaces_the_workspace() {
        assert!(
            line(&["seq"])
                .ends_with("--workspace --exclude handshake-ebpf --exclude handshake-bench-ebpf seq")
        );
        assert!(line(&["--setup", "-p", "xtask"]).ends_with("--no-fail-fast -p xtask"));
        assert!(!line(&["--package=xtask"]).contains("--workspace"));
    }

    #[test]
    fn what_follows_two_dashes_is_the_programs() {
        let whole = line(&["-p", "xtask", "sum", "--", "--nocapture"]);
        assert!(whole.ends_with("-p xtask sum -- --nocapture"), "{whole}");
        let whole = line(&["--", "--nocapture"]);
        assert!(whole.ends_with("handshake-bench-ebpf -- --nocapture"), "{whole}");
    }
}
