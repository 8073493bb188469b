//! The crates that are compiled into the program.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use super::Release;
use crate::shell;

/// The package whose program is released.
pub(super) const PROGRAM: &str = "handshake-user";

/// A crate.
#[derive(Clone, Debug)]
pub(super) struct Linked {
    pub(super) name: String,
    pub(super) version: String,
    /// An expression of SPDX.
    pub(super) license: String,
    /// The folder of its sources.
    pub(super) folder: PathBuf,
    /// The hash of its archive in the registry; the crates of the workspace have none.
    pub(super) sha256: Option<String>,
    /// Names and versions of what it depends on.
    pub(super) needs: BTreeSet<Named>,
}

/// A crate's name and version.
pub(super) type Named = (String, String);

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    resolve: Resolve,
}

#[derive(Deserialize)]
struct Package {
    id: String,
    name: String,
    version: String,
    license: Option<String>,
    manifest_path: PathBuf,
}

#[derive(Deserialize)]
struct Resolve {
    nodes: Vec<Node>,
}

#[derive(Deserialize)]
struct Node {
    id: String,
    dependencies: Vec<String>,
}

#[derive(Deserialize)]
struct Lock {
    package: Vec<Locked>,
}

#[derive(Deserialize)]
struct Locked {
    name: String,
    version: String,
    checksum: Option<String>,
}

/// The crates that are linked, by name and version. Macros and build scripts run on the building machine and
/// are left out.
pub(super) fn linked(release: &Release) -> Result<Vec<Linked>> {
    let triple = release.architecture.triple();
    let tree = ["--edges", "normal,no-proc-macro", "--prefix", "none", "--no-dedupe", "--format", "{p}"];
    let tree = cargo(release, "tree", &[&["--package", PROGRAM, "--target", triple][..], &tree].concat())?;
    let wanted: BTreeSet<Named> = tree.lines().filter_map(named).collect();
    let metadata = cargo(release, "metadata", &["--format-version", "1", "--filter-platform", triple])?;
    let metadata: Metadata = serde_json::from_str(&metadata).context("cargo metadata")?;
    let lock: Lock = toml::from_str(&release.read("Cargo.lock")?).context("Cargo.lock")?;
    let hashes: BTreeMap<Named, Option<String>> =
        lock.package.into_iter().map(|it| ((it.name, it.version), it.checksum)).collect();
    let found = join(&wanted, metadata, &hashes);
    ensure!(found.len() == wanted.len(), "{} of {} crates are in cargo metadata", found.len(), wanted.len());
    Ok(found)
}

fn cargo(release: &Release, verb: &str, arguments: &[&str]) -> Result<String> {
    let mut command = shell::cargo(verb);
    command.current_dir(&release.root).args(["--locked"]).args(arguments);
    shell::output(&mut command).with_context(|| format!("cargo {verb}"))
}

/// `name v1.2.3 (folder)`.
fn named(line: &str) -> Option<Named> {
    let mut words = line.split(' ');
    Some((words.next()?.to_owned(), words.next()?.strip_prefix('v')?.to_owned()))
}

fn join(
    wanted: &BTreeSet<Named>,
    metadata: Metadata,
    hashes: &BTreeMap<Named, Option<String>>,
) -> Vec<Linked> {
    let names: BTreeMap<String, Named> = metadata
        .packages
        .iter()
        .map(|package| (package.id.clone(), (package.name.clone(), package.version.clone())))
        .filter(|(_, named)| wanted.contains(named))
        .collect();
    let needs: BTreeMap<String, BTreeSet<Named>> = metadata
        .resolve
        .nodes
        .into_iter()
        .map(|node| (node.id, node.dependencies.iter().filter_map(|id| names.get(id).cloned()).collect()))
        .collect();
    let mut found: Vec<Linked> = metadata
        .packages
        .into_iter()
        .filter(|package| names.contains_key(&package.id))
        .map(|package| Linked {
            sha256: hashes.get(&names[&package.id]).cloned().flatten(),
            needs: needs.get(&package.id).cloned().unwrap_or_default(),
            license: package.license.unwrap_or_default(),
            folder: package.manifest_path.parent().map(PathBuf::from).unwrap_or_default(),
            name: package.name,
            version: package.version,
        })
        .collect();
    found.sort_by(|a, b| (&a.name, &a.version).cmp(&(&b.name, &b.version)));
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_cargo_tree_names_a_crate() {
        let named = |line| named(line).map(|(name, version)| format!("{name} {version}"));
        assert_eq!(named("aya v0.14.0").as_deref(), Some("aya 0.14.0"));
        assert_eq!(named("handshake-user v0.1.0 (/a/b)").as_deref(), Some("handshake-user 0.1.0"));
        assert_eq!(named("[dependencies]"), None);
    }
}
