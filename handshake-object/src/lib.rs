//! The committed BPF object: its path, and one hash over all sources of the workspace that it is built from.
//!
//! `cargo xtask build-ebpf` writes the hash into the stamp beside the object; `handshake-agent/build.rs`
//! warns if the sources have changed since.
//!
//! What may not live here: code that compiles, parses or loads an object. A build script depends on this
//! crate, so the hash is its only dependency.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

/// Path of the committed object, relative to the workspace's root.
pub const OBJECT: &str = "handshake-agent/bpf/handshake.bpf.o";
/// Path of the object's stamp, relative to the workspace's root.
pub const STAMP: &str = "handshake-agent/bpf/handshake.bpf.stamp";
/// The environment variable that names another object to embed at build time. The build script passes the
/// path on to the agent under the same name.
pub const VARIABLE: &str = "HANDSHAKE_BPF_OBJECT";
/// Name of the stamp's line that holds [`source_hash`].
pub const SOURCES_LINE: &str = "sources";

/// The compiler flags for the BPF crates, without those that name a folder of this machine. `v3` enables the
/// atomic operations with a result (Linux 5.12), and `--btf` emits the types of maps and functions. Headers
/// in packets may be unaligned: without misaligned access (LLVM 22) each of their words is read byte by byte.
pub const RUSTFLAGS: [&str; 4] = [
    "-Cdebuginfo=2",
    "-Clink-arg=--btf",
    "-Ctarget-cpu=v3",
    "-Ctarget-feature=+allows-misaligned-mem-access",
];

/// The crates that are compiled into the object.
const CRATES: [&str; 2] = ["handshake-common", "handshake-ebpf"];

/// The source files that the object is built from, as sorted paths relative to `root`, the workspace's root.
///
/// # Errors
/// A folder of sources is missing or cannot be read.
pub fn source_files(root: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for name in CRATES {
        files.push(Path::new(name).join("Cargo.toml"));
        collect(root, &Path::new(name).join("src"), &mut files)?;
    }
    files.sort();
    Ok(files)
}

/// The hash of the sources as hexadecimal digits: the crates' files, the workspace settings that affect them,
/// their locked dependencies, and [`RUSTFLAGS`].
///
/// # Errors
/// A source, a manifest or the lock file is missing or cannot be read.
pub fn source_hash(root: &Path) -> io::Result<String> {
    let mut hash = Sha256::new();
    for file in source_files(root)? {
        add(&mut hash, &file.to_string_lossy(), &fs::read(root.join(&file))?);
    }
    let manifest = fs::read_to_string(root.join("Cargo.toml"))?;
    let direct = direct_dependencies(root)?;
    add(&mut hash, "settings", settings(&manifest, &direct).as_bytes());
    let lock = fs::read_to_string(root.join("Cargo.lock"))?;
    add(&mut hash, "locked", locked(&lock, direct).as_bytes());
    add(&mut hash, "flags", RUSTFLAGS.join(" ").as_bytes());
    Ok(hex(&hash.finalize()))
}

/// The value of the line `name: value` of a stamp.
#[must_use]
pub fn field<'a>(stamp: &'a str, name: &str) -> Option<&'a str> {
    stamp.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}

/// Formats a digest as hexadecimal digits.
#[must_use]
pub fn hex(digest: &[u8]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Hashes the name and length too, so that moving a line from one file to the next is a change.
fn add(hash: &mut Sha256, name: &str, content: &[u8]) {
    hash.update(format!("{name}\0{}\0", content.len()));
    hash.update(content);
}

/// Collects the Rust files under `folder`, except an editor's lock files (`.#lib.rs`).
fn collect(root: &Path, folder: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(root.join(folder))? {
        let entry = entry?;
        let name = entry.file_name();
        let path = folder.join(&name);
        if entry.file_type()?.is_dir() {
            collect(root, &path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "rs")
            && !name.to_string_lossy().starts_with('.')
        {
            files.push(path);
        }
    }
    Ok(())
}

/// The crates' `[dependencies]`; those of tests only are not in the object.
fn direct_dependencies(root: &Path) -> io::Result<BTreeSet<String>> {
    let mut names = BTreeSet::new();
    for name in CRATES {
        let manifest = fs::read_to_string(root.join(name).join("Cargo.toml"))?;
        names.extend(section(&manifest, "[dependencies]").filter_map(key).map(str::to_owned));
    }
    names.retain(|name| !CRATES.contains(&name.as_str()));
    Ok(names)
}

/// The lines of the workspace's manifest that affect how the crates are compiled: edition and version,
/// profiles, and the features of the direct dependencies.
fn settings(manifest: &str, direct: &BTreeSet<String>) -> String {
    let mut lines: Vec<&str> = section(manifest, "[workspace.package]").collect();
    lines.extend(
        section(manifest, "[workspace.dependencies]")
            .filter(|line| key(line).is_some_and(|name| direct.contains(name))),
    );
    for header in manifest.lines().filter(|line| line.starts_with("[profile.")) {
        lines.push(header);
        lines.extend(section(manifest, header));
    }
    lines.join("\n")
}

/// The blocks of Cargo.lock that are reachable from `wanted`, in the file's order.
fn locked(lock: &str, mut wanted: BTreeSet<String>) -> String {
    let blocks: Vec<&str> = lock.split("[[package]]\n").skip(1).map(str::trim).collect();
    loop {
        let reached: Vec<&str> =
            blocks.iter().copied().filter(|block| wanted.contains(name(block))).collect();
        let known = wanted.len();
        wanted.extend(reached.iter().flat_map(|block| dependencies(block)).map(str::to_owned));
        if wanted.len() == known {
            return reached.join("\n");
        }
    }
}

/// The package name of a block of Cargo.lock.
fn name(block: &str) -> &str {
    block.lines().find_map(|line| line.strip_prefix("name = \"")?.strip_suffix('"')).unwrap_or_default()
}

/// The names of a block's dependencies: the first word of `"syn 2.0.1"`.
fn dependencies(block: &str) -> impl Iterator<Item = &str> {
    block.lines().filter_map(|line| line.strip_prefix(" \"")?.split(['"', ' ']).next())
}

/// The lines under a header that are neither empty nor comments.
fn section<'a>(manifest: &'a str, header: &'a str) -> impl Iterator<Item = &'a str> {
    manifest
        .lines()
        .skip_while(move |line| *line != header)
        .skip(1)
        .take_while(|line| !line.starts_with('['))
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
}

/// The key of `key = value` or `key.workspace = true`.
fn key(line: &str) -> Option<&str> {
    line.split([' ', '=', '.']).next().filter(|key| !key.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANIFEST: &str = "[workspace.package]\nedition = \"2024\"\n\n[workspace.dependencies]\n\
        aya-ebpf = \"=0.2.1\"\nclap = \"4\"\n\n[profile.release]\ndebug = 1\n# why\n[profile.dev]\nopt-level = 1\n";
    const LOCK: &str = "version = 4\n\n[[package]]\nname = \"aya-ebpf\"\nversion = \"1\"\ndependencies = [\n \"syn 2.0.1\",\n]\n\n\
        [[package]]\nname = \"clap\"\nversion = \"4\"\n\n[[package]]\nname = \"syn\"\nversion = \"2.0.1\"\n";

    fn direct() -> BTreeSet<String> {
        BTreeSet::from(["aya-ebpf".to_owned()])
    }

    #[test]
    fn settings_are_the_lines_that_affect_the_object() {
        let expected = "edition = \"2024\"\naya-ebpf = \"=0.2.1\"\n[profile.release]\ndebug = 1\n[profile.dev]\nopt-level = 1";
        assert_eq!(settings(MANIFEST, &direct()), expected);
    }

    #[test]
    fn locked_has_transitive_dependencies_and_no_others() {
        let blocks = locked(LOCK, direct());
        assert!(blocks.contains("name = \"aya-ebpf\"") && blocks.contains("name = \"syn\""), "{blocks}");
        assert!(!blocks.contains("clap"), "{blocks}");
    }

    #[test]
    fn keys_are_read_in_both_spellings() {
        assert_eq!(key("aya = { workspace = true }"), Some("aya"));
        assert_eq!(key("version.workspace = true"), Some("version"));
    }

    #[test]
    fn a_field_matches_the_whole_name() {
        assert_eq!(field("sources: ab\nsource: cd\n", "source"), Some("cd"));
        assert_eq!(field("sources: ab\n", "object"), None);
    }

    #[test]
    fn moving_bytes_between_files_is_a_change() {
        let digest = |parts: [(&str, &str); 2]| {
            let mut hash = Sha256::new();
            parts.iter().for_each(|(name, content)| add(&mut hash, name, content.as_bytes()));
            hex(&hash.finalize())
        };
        assert_ne!(digest([("a", "xy"), ("b", "z")]), digest([("a", "x"), ("b", "yz")]));
    }

    #[test]
    fn this_workspace_has_sources_and_locked_crates() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let files = source_files(&root).expect("the workspace has them");
        assert!(files.contains(&PathBuf::from("handshake-ebpf/src/main.rs")), "{files:?}");
        assert!(files.contains(&PathBuf::from("handshake-common/src/abi.rs")), "{files:?}");
        let direct = direct_dependencies(&root).expect("manifests are readable");
        assert!(direct.contains("aya-ebpf") && direct.contains("zerocopy"), "{direct:?}");
        assert!(!direct.contains("proptest") && !direct.contains("handshake-common"), "{direct:?}");
        let lock = fs::read_to_string(root.join("Cargo.lock")).expect("the lock file is committed");
        let blocks = locked(&lock, direct);
        assert!(blocks.contains("aya-ebpf-bindings") && !blocks.contains("\"clap\""), "{blocks}");
    }
}
