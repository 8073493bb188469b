//! `cargo xtask fuzz TARGET`: runs a target of fuzz/ under LLVM's coverage-guided fuzzer, on stable Rust.
//!
//! The fuzzer needs the compiler's coverage pass and no sanitizer: the code under test is safe Rust with few
//! exceptions, and its debug assertions and overflow checks are on.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::shell;

/// The flags for rustc: one counter per branch, and the checks of a debug build.
const FLAGS: [&str; 7] = [
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Ccodegen-units=1",
    "-Cdebug-assertions=on",
    "-Coverflow-checks=on",
];
/// Calls the fuzzer at each comparison, so that it learns magic numbers.
const COMPARISONS: &str = "-Cllvm-args=-sanitizer-coverage-trace-compares";
/// The time limit per input, in seconds.
const TIMEOUT_S: u32 = 10;

/// Run a fuzz target, starting from its committed corpus
#[derive(clap::Args)]
pub(crate) struct Args {
    target: FuzzTarget,
    /// Number of inputs to try; 0: no limit
    #[arg(long, default_value_t = 1_000_000)]
    runs: u64,
    /// Seconds after which the run ends; 0: no limit
    #[arg(long, default_value_t = 0)]
    seconds: u64,
    /// Afterwards replace the committed corpus by the smallest set of inputs that reaches the same code
    #[arg(long)]
    minimise: bool,
    /// Arguments for the fuzzer: `-seed=1`, or a file to run alone
    #[arg(last = true, value_name = "ARGS")]
    fuzzer: Vec<String>,
}

/// A binary of fuzz/.
#[derive(Clone, Copy, clap::ValueEnum)]
enum FuzzTarget {
    /// `wire::parse` on bytes
    Parse,
    /// The engine on streams of segments; the books are the oracle
    Track,
    /// The capture reader
    Capture,
}

impl FuzzTarget {
    const fn name(self) -> &'static str {
        match self {
            Self::Parse => "parse",
            Self::Track => "track",
            Self::Capture => "capture",
        }
    }

    /// The longest input in bytes: longer inputs cost time and reach nothing new.
    const fn longest(self) -> u32 {
        match self {
            Self::Parse => 256,
            // A header of one byte and 48 packets of six.
            Self::Track => 1 + 48 * 6,
            Self::Capture => 1_024,
        }
    }

    /// The flags for rustc, separated as in CARGO_ENCODED_RUSTFLAGS. `track` needs no comparisons: its input
    /// has no magic numbers, since its bytes select values from tables.
    fn flags(self) -> String {
        let comparisons = match self {
            Self::Track => None,
            Self::Parse | Self::Capture => Some(COMPARISONS),
        };
        // Cargo's own separator: a flag may contain blanks.
        FLAGS.into_iter().chain(comparisons).collect::<Vec<_>>().join("\x1f")
    }
}

/// Runs the verb. Fails when an input fails; that input is then in target/fuzz/TARGET/.
pub(crate) fn run(args: &Args) -> Result<()> {
    let program = build(args.target)?;
    let places = Places::of(args.target);
    fs::create_dir_all(&places.found).with_context(|| format!("make {}", places.found.display()))?;
    let failed = shell::run(&mut fuzz(&program, args, &places)).err();
    if let Some(error) = failed {
        bail!("{error}; the input is in {}; `-- -minimize_crash=1 FILE` minimises it", places.out.display());
    }
    if args.minimise { minimise(&program, args.target, &places) } else { Ok(()) }
}

/// The folders of a target's inputs.
struct Places {
    /// The committed inputs.
    corpus: PathBuf,
    /// Inputs that failed.
    out: PathBuf,
    /// Inputs that earlier runs found.
    found: PathBuf,
}

impl Places {
    fn of(target: FuzzTarget) -> Self {
        let out = target_dir().join(target.name());
        Self { corpus: shell::root().join("fuzz/corpus").join(target.name()), found: out.join("found"), out }
    }
}

/// A separate target folder: the different flags would otherwise invalidate what the other verbs have built.
fn target_dir() -> PathBuf {
    shell::root().join("target/fuzz")
}

/// Builds the target linked with the fuzzer; returns the program's path.
fn build(target: FuzzTarget) -> Result<PathBuf> {
    if !["c++", "g++", "clang++"].into_iter().any(|compiler| shell::find(compiler).is_some()) {
        bail!("LLVM's fuzzer needs a C++ compiler: `apt-get install g++`");
    }
    let version = shell::output(Command::new("rustc").arg("-vV")).context("ask rustc for its host")?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: ")).context("rustc's host")?;
    let mut command = shell::cargo("build");
    // With an explicit target cargo keeps the flags away from build scripts and macros, which run without the
    // fuzzer.
    command.args(["--release", "--package", "handshake-fuzz", "--features", "libfuzzer", "--target", host]);
    command.args(["--bin", target.name(), "--target-dir"]).arg(target_dir());
    shell::run(command.env("CARGO_ENCODED_RUSTFLAGS", target.flags()))?;
    Ok(target_dir().join(host).join("release").join(target.name()))
}

fn fuzz(program: &Path, args: &Args, places: &Places) -> Command {
    let mut command = Command::new(program);
    let runs = if args.runs == 0 { -1 } else { i64::try_from(args.runs).unwrap_or(i64::MAX) };
    command.arg(format!("-runs={runs}")).arg(format!("-max_total_time={}", args.seconds));
    command.arg(format!("-max_len={}", args.target.longest())).arg(format!("-timeout={TIMEOUT_S}"));
    command.arg(format!("-artifact_prefix={}/", places.out.display())).arg("-print_final_stats=1");
    command.args(&args.fuzzer);
    if !args.fuzzer.iter().any(|argument| !argument.starts_with('-')) {
        command.args([&places.found, &places.corpus]);
    }
    command
}

/// Replaces the committed inputs by the smallest set with the same coverage.
fn minimise(program: &Path, target: FuzzTarget, places: &Places) -> Result<()> {
    let fewest = places.out.join("fewest");
    if fewest.exists() {
        fs::remove_dir_all(&fewest).with_context(|| format!("remove {}", fewest.display()))?;
    }
    fs::create_dir_all(&fewest).with_context(|| format!("make {}", fewest.display()))?;
    let mut command = Command::new(program);
    // Merges by code reached and not by how often it is reached: the replay needs few files.
    command.args(["-set_cover_merge=1", "-use_counters=0"]).arg(format!("-max_len={}", target.longest()));
    shell::run(command.args([&fewest, &places.corpus, &places.found]))?;
    let named = keep_named(&places.corpus)?;
    for from in files(&fewest)? {
        let input = fs::read(&from).with_context(|| format!("read {}", from.display()))?;
        if let (false, Some(name)) = (named.contains(&input), from.file_name()) {
            let to = places.corpus.join(name);
            fs::write(&to, input).with_context(|| format!("write {}", to.display()))?;
        }
    }
    Ok(())
}

/// Removes the inputs that the fuzzer named (by their SHA-1), and returns the content of the others. Inputs
/// with a name given by a person stay, whatever they reach.
fn keep_named(corpus: &Path) -> Result<Vec<Vec<u8>>> {
    let mut named = Vec::new();
    for file in files(corpus)? {
        if file.file_name().is_some_and(|name| is_digest(&name.to_string_lossy())) {
            fs::remove_file(&file).with_context(|| format!("remove {}", file.display()))?;
        } else {
            named.push(fs::read(&file).with_context(|| format!("read {}", file.display()))?);
        }
    }
    Ok(named)
}

fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let list = || format!("list {}", folder.display());
    let entries = fs::read_dir(folder).with_context(list)?;
    entries.map(|entry| Ok(entry.with_context(list)?.path())).collect()
}

fn is_digest(name: &str) -> bool {
    name.len() == 40 && name.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum;

    use super::*;

    /// The verb's targets, the crate's binaries and the corpus folders agree.
    #[test]
    fn every_target_has_a_binary_and_a_corpus() {
        let manifest =
            fs::read_to_string(shell::root().join("fuzz/Cargo.toml")).expect("fuzz/ is in the tree");
        for target in FuzzTarget::value_variants() {
            assert!(manifest.contains(&format!("path = \"targets/{}.rs\"", target.name())), "{manifest}");
            assert!(Places::of(*target).corpus.is_dir(), "{}", target.name());
        }
        assert_eq!(manifest.matches("[[bin]]").count(), FuzzTarget::value_variants().len());
    }

    #[test]
    fn only_a_sha1_is_a_name_given_by_the_fuzzer() {
        assert!(is_digest("0492e0df40077c04b1943dc1aadb32c659080fac"));
        assert!(!is_digest("crash-0492e0df40077c04b1943dc1aadb32c65") && !is_digest("self_connect"));
    }
}
