//! Compresses the BPF object that the agent embeds, and warns if the committed object is older than its sources.

use std::env;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use flate2::{Compression, write::ZlibEncoder};
use handshake_object::{OBJECT, SOURCES_LINE, STAMP, VARIABLE, field, source_hash};

fn main() {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let root = package.parent().unwrap_or(package);
    println!("cargo:rerun-if-env-changed={VARIABLE}");
    let object = match env::var_os(VARIABLE).filter(|path| !path.is_empty()) {
        // A relative path starts at the workspace's root: cargo does not tell the directory that it was
        // called from.
        Some(path) => root.join(PathBuf::from(path)),
        None => {
            watch(root);
            warn_if_stale(root);
            root.join(OBJECT)
        }
    };
    println!("cargo:rerun-if-changed={}", object.display());
    println!("cargo:rustc-env={VARIABLE}={}", object.display());
    compress(&object);
}

/// Writes the object as the agent embeds it: a fifth of the bytes.
fn compress(object: &Path) {
    let bytes = fs::read(object).unwrap_or_else(|error| panic!("read {}: {error}", object.display()));
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::best());
    let compressed = encoder.write_all(&bytes).and_then(|()| encoder.finish());
    let folder = env::var_os("OUT_DIR").map(PathBuf::from).unwrap_or_default();
    compressed
        .and_then(|compressed| fs::write(folder.join("handshake.bpf.o.zlib"), compressed))
        .unwrap_or_else(|error| panic!("compress {}: {error}", object.display()));
}

/// Has cargo run this script again when anything changes that the stamp depends on.
fn watch(root: &Path) {
    let folders = ["handshake-common/src", "handshake-ebpf/src"];
    let files =
        ["handshake-common/Cargo.toml", "handshake-ebpf/Cargo.toml", "Cargo.toml", "Cargo.lock", STAMP];
    for name in folders.into_iter().chain(files) {
        // Cargo treats a missing path as one that always changes.
        if root.join(name).exists() {
            println!("cargo:rerun-if-changed={}", root.join(name).display());
        }
    }
}

/// Warns if the object was not built from the present sources; silent if the sources are not part of this
/// checkout.
fn warn_if_stale(root: &Path) {
    let Ok(sources) = source_hash(root) else { return };
    let stamp = fs::read_to_string(root.join(STAMP)).unwrap_or_default();
    if field(&stamp, SOURCES_LINE) != Some(&sources) {
        println!(
            "cargo:warning={} was not built from the present sources: run `cargo xtask build-ebpf`",
            OBJECT
        );
    }
}
