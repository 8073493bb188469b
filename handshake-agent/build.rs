//! Says which BPF object the agent embeds, and warns when the committed one is older than its sources.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use handshake_object::{OBJECT, SOURCES_LINE, STAMP, VARIABLE, field, source_hash};

fn main() {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let root = package.parent().unwrap_or(package);
    println!("cargo:rerun-if-env-changed={VARIABLE}");
    let object = match env::var_os(VARIABLE).filter(|path| !path.is_empty()) {
        // From the workspace's root, if it is not absolute: where cargo was called we cannot know.
        Some(path) => root.join(PathBuf::from(path)),
        None => {
            watch(root);
            warn_if_stale(root);
            root.join(OBJECT)
        }
    };
    println!("cargo:rerun-if-changed={}", object.display());
    println!("cargo:rustc-env={VARIABLE}={}", object.display());
}

/// Runs this again when anything changes that the stamp depends on.
fn watch(root: &Path) {
    let folders = ["handshake-common/src", "handshake-ebpf/src"];
    let files =
        ["handshake-common/Cargo.toml", "handshake-ebpf/Cargo.toml", "Cargo.toml", "Cargo.lock", STAMP];
    for name in folders.into_iter().chain(files) {
        // Cargo takes a path that is not there for one that always changes.
        if root.join(name).exists() {
            println!("cargo:rerun-if-changed={}", root.join(name).display());
        }
    }
}

/// One line while the object does not come from the sources; none where they are not beside us.
fn warn_if_stale(root: &Path) {
    let Ok(sources) = source_hash(root) else { return };
    let stamp = fs::read_to_string(root.join(STAMP)).unwrap_or_default();
    if field(&stamp, SOURCES_LINE) != Some(&sources) {
        println!(
            "cargo:warning={} does not come from the sources as they are: run `cargo xtask build-ebpf`",
            OBJECT
        );
    }
}
