//! `cargo xtask package`: the files of a release, for one architecture.
//!
//! ```text
//! sources ─▶ binary: static, without symbols and local paths
//!              ├─▶ deb     with packaging/, man page and completions
//!              ├─▶ image   an OCI layout with one program in it
//!              └─▶ sbom    what is compiled into it
//! ```
//!
//! Equal sources with equal tools give equal bytes: every time is that of the commit, every owner is root,
//! and `--twice` builds all of it once more in another folder and compares.

mod binary;
mod crates;
mod deb;
mod image;
mod notices;
mod pod;
mod prove;
mod sbom;
mod tree;

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::architecture::Architecture;
use crate::copy::SourceCopy;
use crate::{packages, shell, toolchain};
use tree::Tree;

/// The list of the files' hashes, as `sha256sum --check` reads it.
const SUMS: &str = "SHA256SUMS";
/// The variable that holds the time of every file: <https://reproducible-builds.org/specs/source-date-epoch/>
const EPOCH: &str = "SOURCE_DATE_EPOCH";

/// Build the files of a release: a static program, a Debian package, an OCI image, an SBOM, their hashes
#[derive(clap::Args)]
pub(crate) struct Args {
    /// First install what this takes beyond Rust
    #[arg(long)]
    setup: bool,
    /// The architecture
    #[arg(long, value_enum, default_value_t = Architecture::Amd64)]
    arch: Architecture,
    /// Build all of it once more in another folder, and compare the bytes
    #[arg(long)]
    twice: bool,
    /// Install, run and remove what was built: in a Debian with systemd in an emulated machine, by podman and
    /// by runc. As root; takes minutes
    #[arg(long)]
    prove: bool,
    /// Show the whole console of the emulated machine
    #[arg(long, requires = "prove")]
    console: bool,
}

/// Where a release is built from, and what is the same in all its files.
struct Release {
    /// The root of the sources.
    root: PathBuf,
    /// Cargo's target folder.
    target: PathBuf,
    architecture: Architecture,
    version: String,
    /// The time of every file, in seconds since 1970.
    epoch: u64,
}

/// The shells that have completions.
const SHELLS: [&str; 3] = ["bash", "zsh", "fish"];

/// What a package is made of, beside the files of the sources.
struct Parts {
    program: Vec<u8>,
    man: Vec<u8>,
    /// In the order of [`SHELLS`].
    completions: Vec<Vec<u8>>,
    /// The licences of what is compiled in.
    notices: String,
}

/// Runs the verb.
pub(crate) fn run(args: &Args) -> Result<()> {
    ensure!(
        !args.prove || args.arch == Architecture::Amd64,
        "--prove runs what this machine can: --arch amd64"
    );
    if args.setup {
        packages::install_for_package()?;
        if args.arch == Architecture::Arm64 {
            packages::install_for_arm64()?;
            toolchain::choose(None, true)?;
        }
        if args.prove {
            prove::setup()?;
        }
    }
    let first = Release::of(&shell::root(), &shell::target(), args.arch)?;
    let folder = shell::root().join("target/packages").join(args.arch.name());
    let made = first.make()?;
    made.replace(&folder)?;
    for (name, bytes) in made.iter() {
        println!("{:>9} {}", bytes.len(), folder.join(name).display());
    }
    if args.prove {
        prove::run(&first, &folder, args.console)?;
    }
    if args.twice {
        let copy = SourceCopy::make("package-copy")?;
        let target = shell::target().join("package-target");
        let second = Release { root: copy.root().to_owned(), target, ..first };
        compare(&made, &second.make()?)?;
        println!("built twice, from two folders: {} files with the same bytes", made.iter().count());
    }
    Ok(())
}

impl Release {
    fn of(root: &Path, target: &Path, architecture: Architecture) -> Result<Self> {
        Ok(Self {
            root: root.to_owned(),
            target: target.to_owned(),
            architecture,
            version: version(root)?,
            epoch: epoch()?,
        })
    }

    /// All files.
    fn make(&self) -> Result<Tree> {
        let program = binary::build(self)?;
        let here = binary::build_here(self)?;
        let crates = crates::linked(self)?;
        let parts = Parts {
            program: fs::read(&program).with_context(|| format!("read {}", program.display()))?,
            man: generated(&here, "man")?,
            completions: SHELLS.into_iter().map(|shell| generated(&here, shell)).collect::<Result<_>>()?,
            notices: notices::of(&crates)?,
        };
        let stem = self.stem();
        let mut files = Tree::default();
        files.program(&stem, &parts.program);
        files.file(&deb::file_name(self), &deb::build(self, &parts)?);
        files.file(&image::file_name(self), &image::build(self, &parts)?);
        files.file(&format!("{stem}.cdx.json"), sbom::of(self, &crates)?.as_bytes());
        let sums = sums(&files);
        files.file(SUMS, sums.as_bytes());
        Ok(files)
    }

    /// What the names of most files begin with.
    fn stem(&self) -> String {
        format!("handshake-{}-{}", self.version, self.architecture.name())
    }

    /// A folder of the target folder for files of this name.
    fn folder(&self, name: &str) -> PathBuf {
        self.target.join("package").join(name)
    }

    /// A file of the sources.
    fn read(&self, path: &str) -> Result<String> {
        fs::read_to_string(self.root.join(path)).with_context(|| format!("read {path}"))
    }

    /// The time of the release, in a format of date(1).
    fn date(&self, format: &str) -> Result<String> {
        let mut command = Command::new("date");
        command.env("LC_ALL", "C").args(["--utc", &format!("--date=@{}", self.epoch), format]);
        shell::output(&mut command).context("date")
    }
}

/// What the program prints about itself. It is the program for the machine that builds, and prints the same
/// on every architecture.
fn generated(program: &Path, what: &str) -> Result<Vec<u8>> {
    let output = Command::new(program).args(["generate", what]).output();
    let output = output.with_context(|| format!("start {}", program.display()))?;
    ensure!(output.status.success(), "handshake generate {what} ended with {}", output.status);
    Ok(output.stdout)
}

/// The version of the workspace.
fn version(root: &Path) -> Result<String> {
    let manifest = fs::read_to_string(root.join("Cargo.toml")).context("read Cargo.toml")?;
    let manifest: toml::Table = manifest.parse().context("Cargo.toml")?;
    let version = manifest.get("workspace").and_then(|it| it.get("package")?.get("version")?.as_str());
    version.map(str::to_owned).context("Cargo.toml has no version")
}

/// The time of the commit, unless the variable says another.
fn epoch() -> Result<u64> {
    let asked = env::var(EPOCH).ok();
    let commit =
        || shell::output(Command::new("git").args(["log", "-1", "--format=%ct"]).current_dir(shell::root()));
    let seconds = asked.or_else(commit).with_context(|| format!("no commit: set {EPOCH}"))?;
    seconds.parse().with_context(|| format!("{EPOCH}: {seconds}"))
}

/// A hash in hexadecimal digits.
fn sha256(bytes: &[u8]) -> String {
    use sha2::Digest as _;
    sha2::Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn sums(files: &Tree) -> String {
    files.iter().map(|(name, bytes)| format!("{}  {name}\n", sha256(bytes))).collect()
}

/// JSON as it is published: with a line for each value, in the order of the keys.
fn pretty(value: &Value) -> Result<String> {
    Ok(serde_json::to_string_pretty(value)? + "\n")
}

fn compare(first: &Tree, second: &Tree) -> Result<()> {
    let differ = first.differences(second);
    if !differ.is_empty() {
        bail!("built twice, these have other bytes: {}", differ.join(", "));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_differs_or_is_missing_is_named() {
        let tree = |names: &[&str], bytes: &[u8]| {
            let mut tree = Tree::default();
            names.iter().for_each(|name| tree.file(name, bytes));
            tree
        };
        let first = tree(&["a", "b"], b"x");
        compare(&first, &tree(&["a", "b"], b"x")).expect("the same");
        for second in [tree(&["a", "b"], b"y"), Tree::default()] {
            let error = compare(&first, &second).expect_err("not the same").to_string();
            assert!(error.ends_with(": a, b"), "{error}");
        }
        let error = compare(&Tree::default(), &first).expect_err("more").to_string();
        assert!(error.ends_with(": a, b"), "{error}");
    }

    #[test]
    fn sums_are_those_of_sha256sum() {
        let mut files = Tree::default();
        files.file("empty", b"");
        let sum = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855  empty\n";
        assert_eq!(sums(&files), sum);
    }
}
