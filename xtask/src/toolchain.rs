//! Finds the toolchain that builds the BPF object: a rustc that may use unstable features, the standard
//! library's source, objcopy from the same sysroot, and a bpf-linker whose LLVM reads this rustc's bitcode.
//!
//! There are two kinds of toolchain: rustup's nightly and Debian's packages. For each missing part there is a
//! shell line, which `--install` runs exactly as it is printed.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use crate::{packages, shell};

/// The bpf-linker version to install where its LLVM versions match rustc's.
const LINKER: &str = "0.13.0";
/// The LLVM versions that this bpf-linker supports. For newer ones the newest bpf-linker is installed.
const LINKER_LLVMS: std::ops::RangeInclusive<u32> = 21..=23;
/// Debian's packages: compiler, cargo, the standard library's source, objcopy, clippy.
const DEBIAN: &str = "rustc-web cargo-web rust-web-src rust-web-llvm rust-web-clippy";
/// The reason that a check gives when it is skipped without a toolchain, with the command that installs one.
pub(crate) const NEEDED: &str = "the BPF toolchain: `cargo xtask build-ebpf --install`";
/// The part of a shell line that asks rustc for its LLVM version, where that is not known yet.
const ASK_LLVM: &str = r"-vV | sed -n 's/^LLVM version: \([0-9]*\).*/\1/p'";

/// A complete toolchain, found on this machine.
#[derive(Debug)]
pub(crate) struct Toolchain {
    /// Its name for messages.
    pub(crate) name: &'static str,
    /// The path of the compiler.
    pub(crate) rustc: PathBuf,
    /// The path of the cargo that comes with the compiler.
    pub(crate) cargo: PathBuf,
    /// The path of the objcopy that removes DWARF from the object.
    pub(crate) objcopy: PathBuf,
    /// The folder that contains bpf-linker.
    pub(crate) linker_folder: PathBuf,
    /// The folder of the standard library's source.
    pub(crate) library: PathBuf,
    /// The versions that the object's bytes depend on.
    pub(crate) versions: Versions,
}

/// The versions of the tools. Where they are equal, equal sources give equal bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Versions {
    /// `rustc -V`.
    pub(crate) rustc: String,
    /// The host triple: aya's bindings depend on the processor of the build machine.
    pub(crate) host: String,
    /// The version of rustc's LLVM.
    pub(crate) llvm: String,
    /// `bpf-linker --version`, and its LLVM's version where the program names one.
    pub(crate) linker: String,
}

impl Versions {
    /// All versions as one phrase for messages.
    pub(crate) fn to_line(&self) -> String {
        format!("{} with LLVM {} on {}, bpf-linker {}", self.rustc, self.llvm, self.host, self.linker)
    }
}

/// Where a toolchain comes from.
#[derive(Clone, Copy)]
enum ToolchainKind {
    Debian,
    Rustup,
}

/// A missing part of a toolchain.
struct MissingPart {
    what: String,
    line: String,
}

/// The complete toolchains on this machine.
pub(crate) fn ready() -> Vec<Toolchain> {
    ToolchainKind::possible().into_iter().filter_map(|kind| kind.probe().ok()).collect()
}

/// Chooses the toolchain that built with `versions`, else the first complete one. If there is none, fails
/// with an error that lists the commands, or, with `install`, runs the commands for the first kind.
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

/// Installs the missing parts of the first possible kind.
fn install_first() -> Result<Toolchain> {
    let Some(kind) = ToolchainKind::possible().into_iter().next() else { bail!("{}", advice()) };
    let Err(missing) = kind.probe() else { bail!("the toolchain has appeared in the meantime: try again") };
    for part in missing {
        eprintln!("{}:", part.what);
        shell::run(&mut shell::line(&part.line))?;
    }
    kind.probe().map_err(|missing| {
        let what: Vec<String> = missing.into_iter().map(|part| part.what).collect();
        anyhow::anyhow!("installed {}, but these parts are still missing: {}", kind.name(), what.join(", "))
    })
}

/// The commands to type, kind by kind.
fn advice() -> String {
    let mut text =
        "this machine has no toolchain for BPF. `cargo xtask build-ebpf --install` installs one from"
            .to_owned();
    for (number, kind) in ToolchainKind::possible().into_iter().enumerate() {
        let word = if number == 0 { "" } else { "or, by hand, from " };
        text += &format!("\n{word}{}:", kind.name());
        for part in kind.probe().err().into_iter().flatten() {
            text += &format!("\n    # {}\n    {}", part.what, part.line);
        }
    }
    text
}

impl ToolchainKind {
    /// The kinds that this machine can have. Debian's packages come first: their versions usually equal those
    /// of the committed object.
    fn possible() -> Vec<Self> {
        let mut kinds = Vec::new();
        if shell::find("apt-get").is_some() || Self::Debian.rustc().is_some() {
            kinds.push(Self::Debian);
        }
        if shell::find("rustup").is_some() || kinds.is_empty() {
            kinds.push(Self::Rustup);
        }
        kinds
    }

    fn name(self) -> &'static str {
        match self {
            Self::Debian => "Debian's packages",
            Self::Rustup => "rustup's nightly",
        }
    }

    /// The path of the compiler, if it is new enough for this workspace.
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

    /// The path of nightly's program in rustup, without installing a missing toolchain.
    fn rustup_which(self, program: &str) -> Option<PathBuf> {
        let mut command = shell::pristine("rustup");
        command.args(["which", "--toolchain", "nightly", program]).env("RUSTUP_AUTO_INSTALL", "0");
        shell::output(&mut command).map(PathBuf::from)
    }

    /// The toolchain, or its missing parts.
    fn probe(self) -> Result<Toolchain, Vec<MissingPart>> {
        let (Some(rustc), Some(cargo)) = (self.rustc(), self.cargo()) else {
            return Err(vec![self.missing_compiler(), self.missing_linker(None)]);
        };
        let verbose = shell::output(shell::pristine(&rustc).arg("-vV")).unwrap_or_default();
        let llvm = value(&verbose, "LLVM version").unwrap_or_default().to_owned();
        let host = value(&verbose, "host").unwrap_or_default().to_owned();
        let rust = shell::output(shell::pristine(&rustc).args(["--print", "sysroot"])).unwrap_or_default();
        let library = Path::new(&rust).join("lib/rustlib/src/rust/library");
        let objcopy = Path::new(&rust).join("lib/rustlib").join(&host).join("bin/rust-objcopy");
        if !library.join("Cargo.lock").is_file() || !objcopy.is_file() {
            return Err(vec![self.missing_compiler(), self.missing_linker(Some(version(&llvm).0))]);
        }
        let Some((linker_file, linker)) = linker(version(&llvm).0) else {
            return Err(vec![self.missing_linker(Some(version(&llvm).0))]);
        };
        let linker_folder = linker_file.parent().map(Path::to_owned).unwrap_or_default();
        let rustc_version = verbose.lines().next().unwrap_or_default().to_owned();
        let versions = Versions { rustc: rustc_version, host, llvm, linker };
        Ok(Toolchain { name: self.name(), rustc, cargo, objcopy, linker_folder, library, versions })
    }

    fn missing_compiler(self) -> MissingPart {
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
        MissingPart { what: "rustc, cargo and the library's source".to_owned(), line }
    }

    /// bpf-linker for LLVM `major`; `None`: for the LLVM of the compiler that is not installed yet.
    fn missing_linker(self, major: Option<u32>) -> MissingPart {
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
        MissingPart { what: "bpf-linker over the compiler's LLVM".to_owned(), line }
    }
}

/// The path of bpf-linker and its version, if its LLVM reads the bitcode of LLVM `major`: an older LLVM does
/// not.
fn linker(major: u32) -> Option<(PathBuf, String)> {
    let file = shell::find("bpf-linker")?;
    let printed = shell::output(shell::pristine(&file).arg("--version"))?;
    let release = printed.split(' ').next_back()?;
    let Some(llvm) = linked_llvm(&fs::read(&file).ok()?) else {
        return Some((file, release.to_owned()));
    };
    (version(&llvm).0 >= major).then(|| (file, format!("{release} (LLVM {llvm})")))
}

/// The LLVM version in the name of the shared library that a program is linked with.
fn linked_llvm(program: &[u8]) -> Option<String> {
    const NAME: &[u8] = b"\0libLLVM.so.";
    let at = program.windows(NAME.len()).position(|bytes| bytes == NAME)? + NAME.len();
    let digits = program[at..].iter().take_while(|byte| byte.is_ascii_digit() || **byte == b'.');
    Some(digits.map(|byte| char::from(*byte)).collect())
}

/// The value of a line `name: value` in the output of `rustc -vV`.
pub(crate) fn value<'a>(verbose: &'a str, name: &str) -> Option<&'a str> {
    verbose.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}

/// Major and minor of a version such as `1.96.0-nightly`; a part that is not a number counts as 0.
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
    fn values_of_rustc_are_read_by_their_whole_name() {
        let verbose = "rustc 1.96.0 (ac 2026)\nhost: x86_64-unknown-linux-gnu\nLLVM version: 22.1.8";
        assert_eq!(value(verbose, "LLVM version"), Some("22.1.8"));
        assert_eq!(value(verbose, "release"), None);
    }

    #[test]
    fn the_llvm_of_the_linker_is_read_from_its_library_name() {
        assert_eq!(linked_llvm(b"\x7fELF..\0libLLVM.so.22.1\0libc.so.6"), Some("22.1".to_owned()));
        assert_eq!(linked_llvm(b"\x7fELF static"), None);
    }

    #[test]
    fn shell_lines_name_a_known_llvm_or_ask_rustc_for_it() {
        let known = ToolchainKind::Debian.missing_linker(Some(22)).line;
        assert!(known.contains("--version 0.13.0 --no-default-features --features llvm-22"), "{known}");
        let unknown = ToolchainKind::Debian.missing_linker(None).line;
        assert!(unknown.starts_with("N=$(/usr/bin/rustc -vV |") && unknown.ends_with("llvm-$N"), "{unknown}");
        let newer = ToolchainKind::Debian.missing_linker(Some(29)).line;
        assert!(!newer.contains("--version"), "{newer}");
    }
}
