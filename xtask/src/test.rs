//! `cargo xtask test`: runs the whole suite and prints a summary line.
//!
//! A test that cannot run here appends one line `skipped: REASON` to the file that `HANDSHAKE_SKIP_LOG`
//! names, and returns. The harness counts it as passed; the summary counts it as skipped.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result};

use crate::wheels::Wheels;
use crate::{build_ebpf, helm, packages, run, shell};

/// The variable that names the file to which skipped tests write.
const SKIP_LOG: &str = "HANDSHAKE_SKIP_LOG";
/// Python's modules for the tests, which find them by the folder's name.
pub(crate) const MODULES: Wheels = Wheels { list: "xtask/modules.txt", folder: "target/python" };
/// The mount point of the BPF file system, in which programs and maps are pinned.
const BPFFS: &str = "/sys/fs/bpf";

/// Run the whole suite
#[derive(clap::Args)]
pub(crate) struct Args {
    /// First install everything that the suite uses, and test a BPF object built from the current sources
    #[arg(long)]
    setup: bool,
    /// Run the test programs through sudo, as --setup does; cargo stays unprivileged
    #[arg(long)]
    sudo: bool,
    /// Arguments for cargo test: a name, `-p CRATE`
    #[arg(allow_hyphen_values = true, value_name = "ARGS")]
    cargo: Vec<String>,
    /// Arguments for the test programs: `--nocapture`
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
    sum.move_skipped(&fs::read_to_string(&log).with_context(|| format!("read {}", log.display()))?);
    // A program that crashed or did not build has no result line.
    sum.failed = sum.failed.max(u64::from(!succeeded));
    println!("{} passed, {} failed, {} skipped", sum.passed, sum.failed, sum.skipped);
    Ok(if sum.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Installs Python's modules, and what comes within them.
pub(crate) fn install_modules() -> Result<()> {
    MODULES.install()?;
    helm::unpack(&MODULES.folder())
}

/// Installs everything that the suite needs on this machine; returns the path of the freshly built object.
fn set_up() -> Result<PathBuf> {
    packages::install()?;
    install_modules()?;
    let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
    if !mounts.lines().any(|line| line.split(' ').nth(1) == Some(BPFFS)) {
        shell::run(&mut shell::line(&format!("{}mount -t bpf bpf {BPFFS}", shell::sudo())))?;
    }
    build_ebpf::build_fresh(true)
}

/// `cargo test` over everything that runs on the host, or over the packages that the arguments select.
fn cargo_test(args: &Args, log: &Path) -> Command {
    let mut command = shell::cargo("test");
    command.env(SKIP_LOG, log).arg("--no-fail-fast");
    let chooses = |argument: &String| argument.starts_with("-p") || argument.starts_with("--package");
    if !args.cargo.iter().any(chooses) {
        command.args(["--workspace", "--exclude", build_ebpf::PACKAGE]);
        command.args(["--exclude", build_ebpf::BENCH_PACKAGE]);
    }
    command.args(&args.cargo);
    // The parser keeps "--" after words for cargo, and removes it otherwise.
    if !args.programs.is_empty() {
        command.arg("--").args(&args.programs);
    }
    command
}

/// Makes cargo run the test programs through sudo, if `wanted` and useful; otherwise prints what will be
/// skipped.
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
        "no {}: tests that load programs or make namespaces are skipped; `cargo xtask test --sudo` runs them",
        run::NEEDED
    );
}

/// Runs the tests, prints their output, and sums up their results. Their stdin is empty whatever the caller's
/// is: otherwise a program that reads its input would end on one machine and wait on another.
fn watch(command: &mut Command) -> Result<(TestCounts, bool)> {
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = command.spawn().context("start cargo test")?;
    let stdout = child.stdout.take().context("cargo's output")?;
    let mut sum = TestCounts::default();
    for line in BufReader::new(stdout).split(b'\n') {
        let line = line.context("read cargo's output")?;
        let line = String::from_utf8_lossy(&line);
        println!("{line}");
        sum.add(&line);
    }
    let status = child.wait().context("wait for cargo test")?;
    Ok((sum, status.success()))
}

/// The summed results of several test programs.
#[derive(Debug, Default, PartialEq, Eq)]
struct TestCounts {
    passed: u64,
    failed: u64,
    skipped: u64,
}

impl TestCounts {
    /// Adds the counts of a harness's closing line; ignores any other line.
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

    /// Moves the tests that reported themselves skipped from passed to skipped.
    fn move_skipped(&mut self, log: &str) {
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
        let mut sum = TestCounts::default();
        sum.add(
            "test result: ok. 13 passed; 0 failed; 1 ignored; 0 measured; 7 filtered out; finished in 0.01s",
        );
        sum.add("test result: FAILED. 2 passed; 3 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.00s");
        sum.add("test a_name ... ok");
        assert_eq!(sum, TestCounts { passed: 15, failed: 3, skipped: 1 });
    }

    #[test]
    fn a_test_that_skips_itself_is_not_counted_as_passed() {
        let mut sum = TestCounts { passed: 5, failed: 0, skipped: 1 };
        sum.move_skipped("skipped: needs CAP_BPF\nskipped: no captures\n");
        assert_eq!(sum, TestCounts { passed: 3, failed: 0, skipped: 3 });
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
    fn arguments_after_two_dashes_go_to_the_test_programs() {
        let whole = line(&["-p", "xtask", "sum", "--", "--nocapture"]);
        assert!(whole.ends_with("-p xtask sum -- --nocapture"), "{whole}");
        let whole = line(&["--", "--nocapture"]);
        assert!(whole.ends_with("handshake-bench-ebpf -- --nocapture"), "{whole}");
    }
}
