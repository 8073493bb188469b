//! Finds what the BPF object is built with: a rustc that may use unstable features, the library's source,
//! objcopy from the same sysroot, and a bpf-linker over an LLVM that reads this rustc's bitcode.
//!
//! Two ways lead there, rustup's nightly and Debian's packages. What a way lacks it says as lines for
//! the shell, which `--install` runs as they are printed.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use crate::{packages, shell};

/// The bpf-linker we build with, where its LLVMs go together with rustc's.
const LINKER: &str = "0.13.0";
/// The LLVMs it knows. Past them the newest bpf-linker is asked for.
const LINKER_LLVMS: std::ops::RangeInclusive<u32> = 21..=23;
/// What Debian calls the pieces: compiler, cargo, the library's source, objcopy, clippy.
const DEBIAN: &str = "rustc-web cargo-web rust-web-src rust-web-llvm rust-web-clippy";
/// What a check skips without a toolchain, and how to come by one.
pub(crate) const NEEDED: &str = "the BPF toolchain: `cargo xtask build-ebpf --install`";
/// How a line for the shell finds LLVM's version where we cannot know it yet.
const ASK_LLVM: &str = r"-vV | sed -n 's/^LLVM version: \([0-9]*\).*/\1/p'";

/// Everything needed, and there.
#[derive(Debug)]
pub(crate) struct Toolchain {
    /// What to call it in a sentence.
    pub(crate) name: &'static str,
    /// The compiler.
    pub(crate) rustc: PathBuf,
    /// The cargo that came with it.
    pub(crate) cargo: PathBuf,
    /// Takes DWARF out of the object.
    pub(crate) objcopy: PathBuf,
    /// The folder of bpf-linker.
    pub(crate) linker_folder: PathBuf,
    /// The folder of the library's source.
    pub(crate) library: PathBuf,
    /// What the object's bytes depend on.
    pub(crate) versions: Versions,
}

/// With these equal, equal sources give equal bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Versions {
    /// `rustc -V`.
    pub(crate) rustc: String,
    /// The host: aya's bindings are those of the processor that builds.
    pub(crate) host: String,
    /// rustc's LLVM.
    pub(crate) llvm: String,
    /// `bpf-linker --version`, and its LLVM where it names one.
    pub(crate) linker: String,
}

impl Versions {
    /// All in a sentence.
    pub(crate) fn to_line(&self) -> String {
        format!("{} with LLVM {} on {}, bpf-linker {}", self.rustc, self.llvm, self.host, self.linker)
    }
}

/// The ways to a toolchain.
#[derive(Clone, Copy)]
enum Way {
    Debian,
    Rustup,
}

/// What a way lacks: why, and the line that brings it.
struct Lack {
    what: String,
    line: String,
}

/// The toolchains that are there.
pub(crate) fn ready() -> Vec<Toolchain> {
    Way::possible().into_iter().filter_map(|way| way.probe().ok()).collect()
}

/// Of the toolchains that are there the one that built with `versions`, else the first.
/// Without any: an error that lists the commands, or, with `install`, runs those of the first way.
pub(crate) fn choose(versions: Option<&Versions>, install: bool) -> Result<Toolchain> {
    let mut found = ready();
    if found.is_empty() && install {
        found.push(install_first()?);
    }
    let same = found.iter().position(|toolchain| Some(&toolchain.versions) == versions);
    if found.is_empty() {
        bail!("{}", advice());
    }
    Ok(found.swap_remove(same.unwrap_or(0)))
}

/// Runs what the first possible way lacks.
fn install_first() -> Result<Toolchain> {
    let Some(way) = Way::possible().into_iter().next() else { bail!("{}", advice()) };
    let Err(lacks) = way.probe() else { bail!("the toolchain appeared meanwhile: try again") };
    for lack in lacks {
        eprintln!("{}:", lack.what);
        shell::run(&mut shell::line(&lack.line))?;
    }
    way.probe().map_err(|lacks| {
        let what: Vec<String> = lacks.into_iter().map(|lack| lack.what).collect();
        anyhow::anyhow!("{} is installed, and still there is missing: {}", way.name(), what.join(", "))
    })
}

/// What to type, a way after the other.
fn advice() -> String {
    let mut text =
        "no toolchain for BPF on this machine. `cargo xtask build-ebpf --install` installs one by".to_owned();
    for (number, way) in Way::possible().into_iter().enumerate() {
        let word = if number == 0 { "" } else { "or, by hand, " };
        text += &format!("\n{word}{}:", way.name());
        for lack in way.probe().err().into_iter().flatten() {
            text += &format!("\n    # {}\n    {}", lack.what, lack.line);
        }
    }
    text
}

impl Way {
    /// Debian's packages first: their versions are those of the committed object most of the time.
    fn possible() -> Vec<Self> {
        let mut ways = Vec::new();
        if shell::find("apt-get").is_some() || Self::Debian.rustc().is_some() {
            ways.push(Self::Debian);
        }
        if shell::find("rustup").is_some() || ways.is_empty() {
            ways.push(Self::Rustup);
        }
        ways
    }

    fn name(self) -> &'static str {
        match self {
            Self::Debian => "Debian's packages",
            Self::Rustup => "rustup's nightly",
        }
    }

    /// The compiler, if it is new enough for this workspace.
    fn rustc(self) -> Option<PathBuf> {
        let rustc = match self {
            Self::Debian => PathBuf::from("/usr/bin/rustc"),
            Self::Rustup => self.rustup_which("rustc")?,
        };
        let verbose = shell::output(shell::pristine(&rustc).arg("-vV"))?;
        let release = value(&verbose, "release")?;
        (version(release) >= version(env!("CARGO_PKG_RUST_VERSION"))).then_some(rustc)
    }

    fn cargo(self) -> Option<PathBuf> {
        match self {
            Self::Debian => Some(PathBuf::from("/usr/bin/cargo")).filter(|file| file.is_file()),
            Self::Rustup => self.rustup_which("cargo"),
        }
    }

    /// Where rustup keeps nightly's program, without installing what is not there.
    fn rustup_which(self, program: &str) -> Option<PathBuf> {
        let mut command = shell::pristine("rustup");
        command.args(["which", "--toolchain", "nightly", program]).env("RUSTUP_AUTO_INSTALL", "0");
        shell::output(&mut command).map(PathBuf::from)
    }

    /// The toolchain, or what it lacks.
    fn probe(self) -> Result<Toolchain, Vec<Lack>> {
        let (Some(rustc), Some(cargo)) = (self.rustc(), self.cargo()) else {
            return Err(vec![self.lack_compiler(), self.lack_linker(None)]);
        };
        let verbose = shell::output(shell::pristine(&rustc).arg("-vV")).unwrap_or_default();
        let llvm = value(&verbose, "LLVM version").unwrap_or_default().to_owned();
        let host = value(&verbose, "host").unwrap_or_default().to_owned();
        let rust = shell::output(shell::pristine(&rustc).args(["--print", "sysroot"])).unwrap_or_default();
        let library = Path::new(&rust).join("lib/rustlib/src/rust/library");
        let objcopy = Path::new(&rust).join("lib/rustlib").join(&host).join("bin/rust-objcopy");
        if !library.join("Cargo.lock").is_file() || !objcopy.is_file() {
            return Err(vec![self.lack_compiler(), self.lack_linker(Some(version(&llvm).0))]);
        }
        let Some((linker_file, linker)) = linker(version(&llvm).0) else {
            return Err(vec![self.lack_linker(Some(version(&llvm).0))]);
        };
        let linker_folder = linker_file.parent().map(Path::to_owned).unwrap_or_default();
        let rustc_version = verbose.lines().next().unwrap_or_default().to_owned();
        let versions = Versions { rustc: rustc_version, host, llvm, linker };
        Ok(Toolchain { name: self.name(), rustc, cargo, objcopy, linker_folder, library, versions })
    }

    fn lack_compiler(self) -> Lack {
        let line = match self {
            Self::Debian => {
                let install = packages::apt_get(&format!("install -y {DEBIAN}"));
                format!("{}; {install}", packages::apt_get("update"))
            }
            Self::Rustup => {
                "rustup toolchain install nightly --profile minimal --component rust-src --component clippy"
                    .to_owned()
            }
        };
        Lack { what: "rustc, cargo and the library's source".to_owned(), line }
    }

    /// bpf-linker for LLVM `major`; `None`: for the LLVM that the compiler will have, once it is there.
    fn lack_linker(self, major: Option<u32>) -> Lack {
        let rustc = match self {
            Self::Debian => "/usr/bin/rustc",
            Self::Rustup => "rustup run nightly rustc",
        };
        let ask = major.map_or_else(|| format!("N=$({rustc} {ASK_LLVM}); "), |_| String::new());
        let n = major.map_or_else(|| "$N".to_owned(), |major| major.to_string());
        let newer = major.is_some_and(|major| !LINKER_LLVMS.contains(&major));
        let version = if newer { String::new() } else { format!(" --version {LINKER}") };
        let llvm = if shell::find("apt-get").is_some() {
            let install = packages::apt_get(&format!("install -y llvm-{n}-dev g++"));
            format!("{install}; LLVM_PREFIX=/usr/lib/llvm-{n} ")
        } else {
            String::new()
        };
        let line = format!(
            "{ask}{llvm}cargo install bpf-linker --force{version} --no-default-features --features llvm-{n}"
        );
        Lack { what: "bpf-linker over the compiler's LLVM".to_owned(), line }
    }
}

/// bpf-linker and its version, if its LLVM reads the bitcode of LLVM `major`: an older one does not.
fn linker(major: u32) -> Option<(PathBuf, String)> {
    let file = shell::find("bpf-linker")?;
    let printed = shell::output(shell::pristine(&file).arg("--version"))?;
    let release = printed.split(' ').next_back()?;
    let Some(llvm) = linked_llvm(&fs::read(&file).ok()?) else {
        return Some((file, release.to_owned()));
    };
    (version(&llvm).0 >= major).then(|| (file, format!("{release} (LLVM {llvm})")))
}

/// The version in the name of the shared library a program is linked with.
fn linked_llvm(program: &[u8]) -> Option<String> {
    const NAME: &[u8] = b"\0libLLVM.so.";
    let at = program.windows(NAME.len()).position(|bytes| bytes == NAME)? + NAME.len();
    let digits = program[at..].iter().take_while(|byte| byte.is_ascii_digit() || **byte == b'.');
    Some(digits.map(|byte| char::from(*byte)).collect())
}

/// The value of a line `name: value` as `rustc -vV` prints it.
pub(crate) fn value<'a>(verbose: &'a str, name: &str) -> Option<&'a str> {
    verbose.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}

/// Major and minor of `1.96.0-nightly`; what is no number counts as 0.
pub(crate) fn version(text: &str) -> (u32, u32) {
    let mut numbers = text.split('.').map(|part| part.parse().unwrap_or_default());
    (numbers.next().unwrap_or_default(), numbers.next().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_and_compared_as_numbers() {
        assert_eq!(version("22.1.8"), (22, 1));
        assert_eq!(version("1.97.0-nightly"), (1, 97));
        assert!(version("1.100.0") > version("1.95"));
        assert_eq!(version(""), (0, 0));
    }

    #[test]
    fn rustc_is_read_line_by_line() {
        let verbose = "rustc 1.96.0 (ac 2026)\nhost: x86_64-unknown-linux-gnu\nLLVM version: 22.1.8";
        assert_eq!(value(verbose, "LLVM version"), Some("22.1.8"));
        assert_eq!(value(verbose, "release"), None);
    }

    #[test]
    fn the_linkers_llvm_is_in_the_name_of_its_library() {
        assert_eq!(linked_llvm(b"\x7fELF..\0libLLVM.so.22.1\0libc.so.6"), Some("22.1".to_owned()));
        assert_eq!(linked_llvm(b"\x7fELF static"), None);
    }

    #[test]
    fn the_lines_name_the_llvm_they_know_or_ask_for_it() {
        let known = Way::Debian.lack_linker(Some(22)).line;
        assert!(known.contains("--version 0.13.0 --no-default-features --features llvm-22"), "{known}");
        let unknown = Way::Debian.lack_linker(None).line;
        assert!(unknown.starts_with("N=$(/usr/bin/rustc -vV |") && unknown.ends_with("llvm-$N"), "{unknown}");
        let newer = Way::Debian.lack_linker(Some(29)).line;
        assert!(!newer.contains("--version"), "{newer}");
    }
}
