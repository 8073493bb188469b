//! The Debian package, by Debian's own `dpkg-deb`: it sorts the files, and takes their time from
//! `SOURCE_DATE_EPOCH`.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use super::tree::{Tree, gzip};
use super::{EPOCH, Parts, Release};
use crate::shell;

/// Of the package alone: how often it was made of one version.
const REVISION: u32 = 1;
/// The maintainer scripts in `packaging/debian`.
const SCRIPTS: [&str; 3] = ["postinst", "prerm", "postrm"];
/// The files that an administrator may change.
const CONFIGURATION: &str = "etc/handshake/handshake.toml";

/// Where the shells look for completions, in the order of [`SHELLS`](super::SHELLS).
const COMPLETIONS: [&str; 3] = [
    "usr/share/bash-completion/completions/handshake",
    "usr/share/zsh/vendor-completions/_handshake",
    "usr/share/fish/vendor_completions.d/handshake.fish",
];
/// Who answers for the package, in the form of an address, which Debian demands.
const MAINTAINER: &str = "The handshake authors <handshake@localhost>";
const COPYRIGHT: &str = "\
Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: handshake
Comment: third-party.gz has the licences of the crates that are compiled in.

Files: *
Copyright: 2026 The handshake authors
License: MIT or Apache-2.0

License: Apache-2.0
 On Debian systems, the text of the Apache License, version 2.0, is in
 /usr/share/common-licenses/Apache-2.0.
";

/// Its name, in the form that every package of Debian has.
pub(super) fn file_name(release: &Release) -> String {
    format!("handshake_{}_{}.deb", version(release), release.architecture.name())
}

/// Makes the package.
pub(super) fn build(release: &Release, parts: &Parts) -> Result<Vec<u8>> {
    let mut tree = files(release, parts)?;
    let bytes: usize = tree.iter().map(|(_, bytes)| bytes.len()).sum();
    let folder = release.folder("deb");
    tree.replace(&folder)?;
    tree.extend(control(release, &md5sums(&folder, &tree)?, bytes.div_ceil(1024))?);
    tree.replace(&folder)?;
    let package = release.folder("handshake.deb");
    let mut command = shell::pristine("dpkg-deb");
    command.env(EPOCH, release.epoch.to_string());
    // Threads would make blocks, whose number depends on the machine.
    command.args(["--root-owner-group", "-Zxz", "-z9", "--threads-max=1", "--build"]);
    shell::run(command.arg(&folder).arg(&package))?;
    fs::read(&package).with_context(|| format!("read {}", package.display()))
}

fn version(release: &Release) -> String {
    format!("{}-{REVISION}", release.version)
}

/// What is installed.
fn files(release: &Release, parts: &Parts) -> Result<Tree> {
    let mut tree = Tree::default();
    tree.program("usr/bin/handshake", &parts.program);
    let unit = release.read("packaging/handshake.service")?;
    tree.file("usr/lib/systemd/system/handshake.service", unit.as_bytes());
    tree.file(CONFIGURATION, release.read("packaging/handshake.toml")?.as_bytes());
    let profile = release.read("packaging/handshake-seccomp.json")?;
    tree.file("usr/share/handshake/handshake-seccomp.json", profile.as_bytes());
    tree.file("usr/share/man/man1/handshake.1.gz", &gzip(&parts.man)?);
    for (path, completions) in COMPLETIONS.into_iter().zip(&parts.completions) {
        tree.file(path, completions);
    }
    let overrides = release.read("packaging/debian/lintian-overrides")?;
    tree.file("usr/share/lintian/overrides/handshake", overrides.as_bytes());
    let documents = "usr/share/doc/handshake";
    tree.file(&format!("{documents}/copyright"), copyright(release)?.as_bytes());
    tree.file(&format!("{documents}/changelog.gz"), &gzip(release.read("CHANGELOG.md")?.as_bytes())?);
    tree.file(&format!("{documents}/changelog.Debian.gz"), &gzip(changelog(release)?.as_bytes())?);
    tree.file(&format!("{documents}/third-party.gz"), &gzip(parts.notices.as_bytes())?);
    Ok(tree)
}

/// What dpkg reads. `sums` are the hashes of what is installed.
fn control(release: &Release, sums: &str, kibibytes: usize) -> Result<Tree> {
    let control = release.read("packaging/debian/control")?;
    let control = control
        .replace("@MAINTAINER@", MAINTAINER)
        .replace("@VERSION@", &version(release))
        .replace("@ARCHITECTURE@", release.architecture.name())
        .replace("@KIBIBYTES@", &kibibytes.to_string());
    let mut tree = Tree::default();
    tree.file("DEBIAN/control", control.as_bytes());
    tree.file("DEBIAN/conffiles", format!("/{CONFIGURATION}\n").as_bytes());
    tree.file("DEBIAN/md5sums", sums.as_bytes());
    for script in SCRIPTS {
        let text = release.read(&format!("packaging/debian/{script}"))?;
        tree.program(&format!("DEBIAN/{script}"), text.as_bytes());
    }
    Ok(tree)
}

/// dpkg's own kind of hash, by which `dpkg --verify` finds what was changed.
fn md5sums(folder: &Path, tree: &Tree) -> Result<String> {
    let mut command = shell::pristine("md5sum");
    command.current_dir(folder).args(tree.iter().map(|(path, _)| path).filter(|path| *path != CONFIGURATION));
    Ok(shell::output(&mut command).context("md5sum")? + "\n")
}

/// In Debian's format: <https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/>
fn copyright(release: &Release) -> Result<String> {
    let mit = release.read("LICENSE-MIT")?;
    let text: String = mit
        .lines()
        .skip_while(|line| !line.starts_with("Permission"))
        .map(|line| format!(" {}\n", if line.is_empty() { "." } else { line }))
        .collect();
    Ok(format!("{COPYRIGHT}\nLicense: MIT\n{text}"))
}

/// The package's own changes: it is made anew for each version.
fn changelog(release: &Release) -> Result<String> {
    let (version, date) = (version(release), release.date("+%a, %d %b %Y %H:%M:%S +0000")?);
    Ok(format!(
        "handshake ({version}) unstable; urgency=medium\n\n  * Version {}: see changelog.gz.\n\n \
         -- {MAINTAINER}  {date}\n",
        release.version
    ))
}
