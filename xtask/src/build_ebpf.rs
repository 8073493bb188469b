//! `cargo xtask build-ebpf`: compiles the kernel side, and checks that the committed object matches its
//! sources.

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use handshake_object as stamp;
use object::{Object, ObjectSection, ObjectSymbol, SectionKind, SymbolScope};
use sha2::{Digest, Sha256};

use crate::shell;
use crate::toolchain::{self, Toolchain, Versions};

/// The target triple.
const TARGET: &str = "bpfel-unknown-none";
/// The crate of the kernel side.
pub(crate) const PACKAGE: &str = "handshake-ebpf";
/// The crate of the programs that the bench compares it with.
pub(crate) const BENCH_PACKAGE: &str = "handshake-bench-ebpf";

/// Build the BPF object
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Install the toolchain first, if it is missing
    #[arg(long)]
    install: bool,
    /// Change nothing; fail unless the committed object was built from the committed sources
    #[arg(long, conflicts_with = "output")]
    check: bool,
    /// With --check, also fail if the tools' versions differ, so that the bytes cannot be compared
    #[arg(long, requires = "check")]
    strict: bool,
    /// Write the object to this path, and leave the committed object and its stamp alone
    #[arg(long, value_name = "PATH")]
    output: Option<PathBuf>,
}

/// Runs the verb.
pub(crate) fn run(args: &Args) -> Result<()> {
    let stamp = Stamp::read().ok();
    if args.check {
        return check(args.install, args.strict);
    }
    let toolchain = toolchain::choose(stamp.as_ref().map(|stamp| &stamp.versions), args.install)?;
    let object = build(&toolchain)?;
    match &args.output {
        Some(path) => write(path, &object)?,
        None => commit(&toolchain, &object)?,
    }
    Ok(())
}

/// Builds the current sources into a file outside the committed tree; returns its path.
pub(crate) fn build_fresh(install: bool) -> Result<PathBuf> {
    let stamp = Stamp::read().ok();
    let toolchain = toolchain::choose(stamp.as_ref().map(|stamp| &stamp.versions), install)?;
    let path = target_folder().join("fresh.bpf.o");
    write(&path, &build(&toolchain)?)?;
    Ok(path)
}

/// Builds the programs of `cargo xtask bench`; returns the path of their object.
pub(crate) fn build_bench(install: bool) -> Result<PathBuf> {
    let stamp = Stamp::read().ok();
    let toolchain = toolchain::choose(stamp.as_ref().map(|stamp| &stamp.versions), install)?;
    let mut command = cargo(&toolchain, "build", BENCH_PACKAGE);
    // The same setting as for the product's crate. It is not in Cargo.toml, whose profiles are part of the
    // committed object's stamp.
    command.args(["--config", "profile.release.package.handshake-bench-ebpf.codegen-units=1"]);
    shell::run(&mut command)?;
    strip(&toolchain, "bench")
}

/// Compiles the kernel side; returns the object's bytes, [stripped](strip).
fn build(toolchain: &Toolchain) -> Result<Vec<u8>> {
    eprintln!(
        "building the BPF object with {}: {}, bpf-linker {}",
        toolchain.name, toolchain.versions.rustc, toolchain.versions.linker
    );
    // Cargo does not notice a changed linker: force a new link.
    shell::run(cargo(toolchain, "clean", PACKAGE).arg("--quiet"))?;
    shell::run(&mut cargo(toolchain, "build", PACKAGE))?;
    let object = strip(toolchain, "handshake")?;
    fs::read(&object).with_context(|| format!("read {}", object.display()))
}

/// The section of what the kernel is told of a program's instructions.
const BTF_EXT: &str = ".BTF.ext";

/// Strips DWARF and the source lines of the instructions from a linked program; returns the path of the stripped
/// object. The lines are for the verifier's log alone. With their relocations, which no loader reads, they would be
/// more than half of the object, and the kernel would check them at each start.
fn strip(toolchain: &Toolchain, name: &str) -> Result<PathBuf> {
    let linked = target_folder().join(TARGET).join("release").join(name);
    let object = target_folder().join(format!("{name}.bpf.o"));
    let part = target_folder().join(format!("{name}.BTF.ext"));
    let objcopy = || shell::pristine(&toolchain.objcopy);
    let section = |option: &str| format!("--{option}={BTF_EXT}={}", part.display());
    shell::run(objcopy().args(["--strip-debug", &section("dump-section")]).arg(&linked).arg(&object))?;
    let told = fs::read(&part).with_context(|| format!("read {}", part.display()))?;
    let told = without_lines(&told).with_context(|| format!("{BTF_EXT} of {}", linked.display()))?;
    fs::write(&part, told).with_context(|| format!("write {}", part.display()))?;
    let relocations = format!("--remove-section=.rel{BTF_EXT}");
    shell::run(objcopy().args([relocations, section("update-section")]).arg(&object))?;
    Ok(object)
}

/// A `.BTF.ext` without its source lines: `struct btf_ext_header` of the kernel's tools/lib/bpf/btf.h, then functions,
/// lines and relocations by type, each with its place behind the header and its length.
fn without_lines(section: &[u8]) -> Result<Vec<u8>> {
    const LENGTH: usize = 4;
    const FUNCTIONS: usize = 8;
    const LINES: usize = 16;
    const BY_TYPE: usize = 24;
    const HEADER: usize = 32;
    let word = |at: usize| -> Result<usize> {
        let bytes = section.get(at..).and_then(|rest| rest.first_chunk()).context("it is cut")?;
        Ok(u32::from_le_bytes(*bytes) as usize)
    };
    if word(LENGTH)? != HEADER {
        bail!("its header has {} bytes, not {HEADER}", word(LENGTH)?);
    }
    let part = |at: usize| {
        let (start, length) = (HEADER + word(at)?, word(at + 4)?);
        section.get(start..start + length).context("a part reaches past its end")
    };
    let (functions, by_type) = (part(FUNCTIONS)?, part(BY_TYPE)?);
    let mut short = section[..HEADER].to_vec();
    let mut set = |at: usize, number: usize| -> Result<()> {
        short[at..at + 4].copy_from_slice(&u32::try_from(number)?.to_le_bytes());
        Ok(())
    };
    for (at, start, length) in [
        (FUNCTIONS, 0, functions.len()),
        (LINES, functions.len(), 0),
        (BY_TYPE, functions.len(), by_type.len()),
    ] {
        set(at, start)?;
        set(at + 4, length)?;
    }
    short.extend([functions, by_type].concat());
    Ok(short)
}

/// A command of the toolchain's cargo on a BPF crate, with no path of this machine in the output.
///
/// `RUSTC_BOOTSTRAP` allows unstable features: core is built from source, and BPF's atomics are intrinsics.
fn cargo(toolchain: &Toolchain, verb: &str, package: &str) -> Command {
    cargo_at(&toolchain.cargo, toolchain, verb, package)
}

/// The same command with another program in place of cargo, such as its clippy.
pub(crate) fn cargo_at(program: &Path, toolchain: &Toolchain, verb: &str, package: &str) -> Command {
    let mut path = toolchain.linker_folder.clone().into_os_string();
    path.push(":");
    path.push(env::var_os("PATH").unwrap_or_default());
    let mut command = shell::pristine(program);
    command
        .current_dir(shell::root())
        .args([verb, "--locked", "--release", "--target", TARGET, "--package", package, "--target-dir"])
        .arg(target_folder())
        .env("CARGO_UNSTABLE_BUILD_STD", "core")
        .env("PATH", path)
        .env("CARGO", &toolchain.cargo)
        .env("RUSTC", &toolchain.rustc)
        .env("RUSTC_WRAPPER", "")
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_ENCODED_RUSTFLAGS", rustflags(toolchain).join("\x1f"));
    command
}

/// The flags for rustc, with the folders of this machine mapped to fixed names: equal sources give equal
/// bytes wherever they are. bpf-linker finds no source there, so it puts no text of it into the object.
fn rustflags(toolchain: &Toolchain) -> Vec<String> {
    let remap = |from: &Path, to: &str| format!("--remap-path-prefix={}={to}", from.display());
    let mut flags: Vec<String> = stamp::RUSTFLAGS.map(str::to_owned).to_vec();
    flags.push(remap(&shell::root(), "/handshake"));
    flags.push(remap(&shell::cargo_home().join("registry/src"), "/crates"));
    flags.push(remap(&toolchain.library, "/rust/library"));
    flags
}

/// A separate target folder: flags and toolchain differ from the host's.
pub(crate) fn target_folder() -> PathBuf {
    shell::root().join("target/bpf")
}

/// Writes the object and its stamp into the committed tree.
fn commit(toolchain: &Toolchain, object: &[u8]) -> Result<()> {
    let stamp =
        Stamp { sources: current_sources()?, object: digest(object), versions: toolchain.versions.clone() };
    write(&shell::root().join(stamp::OBJECT), object)?;
    write(&shell::root().join(stamp::STAMP), stamp.to_text().as_bytes())
}

/// Fails unless the stamp's hashes match the sources and the object, and the sources compile to that object.
/// With other tools than the object's only the shapes can be compared; `strict` makes that a failure.
fn check(install: bool, strict: bool) -> Result<()> {
    let stamp = Stamp::read()?;
    let committed =
        fs::read(shell::root().join(stamp::OBJECT)).with_context(|| format!("read {}", stamp::OBJECT))?;
    if stamp.sources != current_sources()? {
        bail!("{} was built from other sources: run `cargo xtask build-ebpf` and commit it", stamp::OBJECT);
    }
    if stamp.object != digest(&committed) {
        bail!("{} is not the object of its stamp: run `cargo xtask build-ebpf`", stamp::OBJECT);
    }
    let toolchain = toolchain::choose(Some(&stamp.versions), install)?;
    let fresh = build(&toolchain)?;
    compare(&stamp, &toolchain.versions, strict, &committed, &fresh)
}

/// Compares the fresh build with the committed object.
fn compare(stamp: &Stamp, here: &Versions, strict: bool, committed: &[u8], fresh: &[u8]) -> Result<()> {
    if *here != stamp.versions {
        compare_shapes(committed, fresh)?;
        let differ = format!(
            "{}: hashes, programs and maps match the sources; the bytes cannot be compared, since it was built \
             by {} and the tools here are {}",
            stamp::OBJECT,
            stamp.versions.to_line(),
            here.to_line()
        );
        if strict {
            bail!("{differ}. Run `cargo xtask build-ebpf` and commit the object");
        }
        eprintln!("warning: {differ}");
        return Ok(());
    }
    if committed != fresh {
        let path = target_folder().join("handshake.bpf.o");
        bail!(
            "{} differs from what its sources compile to: compare it with {}",
            stamp::OBJECT,
            path.display()
        );
    }
    println!("{} equals, byte by byte, what its sources compile to", stamp::OBJECT);
    Ok(())
}

/// Compares what two objects of the same sources share, whatever tools compiled them.
fn compare_shapes(committed: &[u8], fresh: &[u8]) -> Result<()> {
    let committed = shape(committed).with_context(|| format!("read {}", stamp::OBJECT))?;
    let fresh = shape(fresh).context("read the object just built")?;
    if committed != fresh {
        let differing: Vec<&String> = committed.symmetric_difference(&fresh).collect();
        bail!("the programs and maps of {} are not those of its sources: {differing:?}", stamp::OBJECT);
    }
    Ok(())
}

/// The programs, maps and constants of an object: section and name of each dynamic symbol, and its size
/// unless it is code.
fn shape(object: &[u8]) -> Result<BTreeSet<String>> {
    let file = object::File::parse(object)?;
    let mut names = BTreeSet::new();
    for symbol in file.symbols().filter(|symbol| symbol.scope() == SymbolScope::Dynamic) {
        let Some(index) = symbol.section_index() else { continue };
        let section = file.section_by_index(index)?;
        let size = if section.kind() == SectionKind::Text { 0 } else { symbol.size() };
        names.insert(format!("{} {} {size}", section.name()?, symbol.name()?));
    }
    Ok(names)
}

/// The stamp beside the committed object.
#[derive(Debug, PartialEq, Eq)]
struct Stamp {
    sources: String,
    object: String,
    versions: Versions,
}

impl Stamp {
    fn read() -> Result<Self> {
        let text = fs::read_to_string(shell::root().join(stamp::STAMP))
            .with_context(|| format!("read {}", stamp::STAMP))?;
        Self::parse(&text)
    }

    fn parse(text: &str) -> Result<Self> {
        let field = |name: &str| {
            let value = stamp::field(text, name);
            value.map(str::to_owned).with_context(|| format!("{} has no line `{name}: `", stamp::STAMP))
        };
        let versions = Versions {
            rustc: field("rustc")?,
            host: field("host")?,
            llvm: field("llvm")?,
            linker: field("bpf-linker")?,
        };
        Ok(Self { sources: field(stamp::SOURCES_LINE)?, object: field("object")?, versions })
    }

    fn to_text(&self) -> String {
        let Versions { rustc, host, llvm, linker } = &self.versions;
        format!(
            "# Where handshake.bpf.o comes from; written by `cargo xtask build-ebpf`.\n\
             {}: {}\nobject: {}\nrustc: {rustc}\nhost: {host}\nllvm: {llvm}\nbpf-linker: {linker}\n",
            stamp::SOURCES_LINE,
            self.sources,
            self.object
        )
    }
}

fn current_sources() -> Result<String> {
    stamp::source_hash(&shell::root()).context("hash the BPF sources")
}

fn digest(object: &[u8]) -> String {
    stamp::hex(&Sha256::digest(object))
}

fn write(path: &Path, content: &[u8]) -> Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
    }
    fs::write(path, content).with_context(|| format!("write {}", path.display()))?;
    eprintln!("wrote {}, {} bytes", path.display(), content.len());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp() -> Stamp {
        let versions = Versions {
            rustc: "rustc 1.96.0 (ac68faa20 2026-05-25)".to_owned(),
            host: "x86_64-unknown-linux-gnu".to_owned(),
            llvm: "22.1.8".to_owned(),
            linker: "0.13.0 (LLVM 22.1)".to_owned(),
        };
        Stamp { sources: "ab".to_owned(), object: "cd".to_owned(), versions }
    }

    #[test]
    fn other_tools_compare_shapes_and_fail_when_strict() {
        let committed = fs::read(shell::root().join(stamp::OBJECT)).expect("the object is committed");
        let other = Versions { llvm: "23.1.0".to_owned(), ..stamp().versions };
        compare(&stamp(), &other, false, &committed, &committed).expect("the same shape");
        let error = compare(&stamp(), &other, true, &committed, &committed).expect_err("other tools");
        assert!(
            error.to_string().contains("LLVM 22.1.8") && error.to_string().contains("LLVM 23.1.0"),
            "{error}"
        );
    }

    #[test]
    fn equal_tools_compare_bytes() {
        let versions = stamp().versions;
        compare(&stamp(), &versions, true, b"one", b"one").expect("equal bytes");
        for strict in [false, true] {
            compare(&stamp(), &versions, strict, b"one", b"two").expect_err("other bytes");
        }
    }

    #[test]
    fn only_the_lines_are_left_out() {
        let header = |numbers: [u32; 6]| {
            let words = [[0x0001_eb9f, 32].as_slice(), &numbers].concat();
            words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>()
        };
        let whole = [header([0, 3, 3, 5, 8, 2]), b"fffLLLLLtt".to_vec()].concat();
        let short = [header([0, 3, 3, 0, 3, 2]), b"ffftt".to_vec()].concat();
        assert_eq!(without_lines(&whole).expect("it is whole"), short);
        assert_eq!(without_lines(&short).expect("it is whole"), short);
        without_lines(&whole[..40]).expect_err("it is cut");
        without_lines(&whole[..7]).expect_err("it is cut");
    }

    #[test]
    fn a_stamp_is_read_back_as_written() {
        let stamp = stamp();
        assert_eq!(Stamp::parse(&stamp.to_text()).expect("it is whole"), stamp);
    }

    #[test]
    fn a_file_that_is_not_an_object_has_no_shape() {
        let error = compare_shapes(b"#!/bin/sh", b"#!/bin/sh").expect_err("a script");
        assert!(error.to_string().starts_with("read handshake-agent/bpf/"), "{error}");
    }

    #[test]
    fn a_stamp_with_a_missing_line_is_an_error() {
        let error = Stamp::parse("sources: ab\nrustc: r\nhost: h\nllvm: l\n").expect_err("no linker");
        assert!(error.to_string().contains("`bpf-linker: `"), "{error}");
    }
}
