//! `cargo xtask fuzz TARGET`: one of fuzz/'s targets under LLVM's fuzzer, guided by coverage, on stable Rust.
//!
//! The fuzzer needs the compiler's coverage pass and no sanitizer: the code under test is safe Rust with
//! few exceptions, and its debug assertions and overflow checks are on.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::shell;

/// What rustc is told: a counter a branch, and the checks of a debug build.
const FLAGS: [&str; 7] = [
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Ccodegen-units=1",
    "-Cdebug-assertions=on",
    "-Coverflow-checks=on",
];
/// A call at each comparison, by which the fuzzer learns magic numbers.
const COMPARISONS: &str = "-Cllvm-args=-sanitizer-coverage-trace-compares";
/// Seconds that one input may take.
const TIMEOUT_S: u32 = 10;

/// Run a fuzz target, from its committed corpus on
#[derive(clap::Args)]
pub(crate) struct Args {
    target: Target,
    /// How many inputs to try; 0: until it is stopped
    #[arg(long, default_value_t = 1_000_000)]
    runs: u64,
    /// Seconds after which to end; 0: none
    #[arg(long, default_value_t = 0)]
    seconds: u64,
    /// Afterwards keep, of all inputs found, the fewest that reach the same code, as the committed corpus
    #[arg(long)]
    minimise: bool,
    /// For the fuzzer: `-seed=1`, or a file to try alone
    #[arg(last = true, value_name = "ARGS")]
    fuzzer: Vec<String>,
}

/// A binary of fuzz/.
#[derive(Clone, Copy, clap::ValueEnum)]
enum Target {
    /// `wire::parse` on bytes
    Parse,
    /// The engine on streams of segments, the books as the oracle
    Track,
    /// The reader of captures
    Capture,
}

impl Target {
    const fn name(self) -> &'static str {
        match self {
            Self::Parse => "parse",
            Self::Track => "track",
            Self::Capture => "capture",
        }
    }

    /// Bytes of an input at most: longer ones cost time and reach nothing new.
    const fn longest(self) -> u32 {
        match self {
            Self::Parse => 256,
            // A header and 48 packets.
            Self::Track => 1 + 48 * 6,
            Self::Capture => 1_024,
        }
    }

    /// What rustc is told. A stream of segments has no magic numbers: the bytes of one choose from tables.
    fn flags(self) -> String {
        let comparisons = match self {
            Self::Track => None,
            Self::Parse | Self::Capture => Some(COMPARISONS),
        };
        // Cargo's own separator: a flag may hold blanks.
        FLAGS.into_iter().chain(comparisons).collect::<Vec<_>>().join("\x1f")
    }
}

/// Runs the verb. Fails when an input fails; the input is then in target/fuzz/TARGET/.
pub(crate) fn run(args: &Args) -> Result<()> {
    let program = build(args.target)?;
    let places = Places::of(args.target);
    fs::create_dir_all(&places.found).with_context(|| format!("make {}", places.found.display()))?;
    let failed = shell::run(&mut fuzz(&program, args, &places)).err();
    if let Some(error) = failed {
        bail!("{error}; the input is in {}, minimised by `-- -minimize_crash=1 FILE`", places.out.display());
    }
    if args.minimise { minimise(&program, args.target, &places) } else { Ok(()) }
}

/// Where inputs are.
struct Places {
    /// The committed ones.
    corpus: PathBuf,
    /// What failed.
    out: PathBuf,
    /// What earlier runs found.
    found: PathBuf,
}

impl Places {
    fn of(target: Target) -> Self {
        let out = target_dir().join(target.name());
        Self { corpus: shell::root().join("fuzz/corpus").join(target.name()), found: out.join("found"), out }
    }
}

/// Of its own: other flags would throw away what the other verbs have built.
fn target_dir() -> PathBuf {
    shell::root().join("target/fuzz")
}

/// The fuzzer with the target in it.
fn build(target: Target) -> Result<PathBuf> {
    if !["c++", "g++", "clang++"].into_iter().any(|compiler| shell::find(compiler).is_some()) {
        bail!("LLVM's fuzzer is C++ and there is no compiler for it: `apt-get install g++`");
    }
    let version = shell::output(Command::new("rustc").arg("-vV")).context("ask rustc for its host")?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: ")).context("rustc's host")?;
    let mut command = shell::cargo("build");
    // With a target the flags stay away from build scripts and macros, which run without the fuzzer.
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

/// Puts the fewest inputs with the same coverage in the place of the committed ones.
fn minimise(program: &Path, target: Target, places: &Places) -> Result<()> {
    let fewest = places.out.join("fewest");
    if fewest.exists() {
        fs::remove_dir_all(&fewest).with_context(|| format!("remove {}", fewest.display()))?;
    }
    fs::create_dir_all(&fewest).with_context(|| format!("make {}", fewest.display()))?;
    let mut command = Command::new(program);
    // By code reached, and not by how often: the replay wants few files.
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

/// Removes what the fuzzer named (a SHA-1). An input that a person named stays, whatever it reaches: these
/// are what is given.
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

    /// The verb's targets, the crate's binaries and the corpus are one list.
    #[test]
    fn every_target_has_a_binary_and_a_corpus() {
        let manifest =
            fs::read_to_string(shell::root().join("fuzz/Cargo.toml")).expect("fuzz/ is in the tree");
        for target in Target::value_variants() {
            assert!(manifest.contains(&format!("path = \"targets/{}.rs\"", target.name())), "{manifest}");
            assert!(Places::of(*target).corpus.is_dir(), "{}", target.name());
        }
        assert_eq!(manifest.matches("[[bin]]").count(), Target::value_variants().len());
    }

    #[test]
    fn what_a_person_named_is_told_from_what_the_fuzzer_named() {
        assert!(is_digest("0492e0df40077c04b1943dc1aadb32c659080fac"));
        assert!(!is_digest("crash-0492e0df40077c04b1943dc1aadb32c65") && !is_digest("self_connect"));
    }
}
