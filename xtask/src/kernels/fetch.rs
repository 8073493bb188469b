//! The kernels that handshake is tried on: Debian's packages, of several of its releases, for two architectures.
//! They are unpacked and not installed, and apt has folders of its own for them, so this machine stays as it is.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};

use super::modules::{LISTS, Modules};
use super::{find_below, folder};
use crate::architecture::Architecture;
use crate::shell;

/// A kernel of Debian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct DebianKernel {
    /// What its release begins with.
    pub(super) version: &'static str,
    pub(super) architecture: Architecture,
    /// Debian's release that has it.
    suite: &'static str,
    /// The package that depends on the latest of this release.
    package: &'static str,
}

/// By architecture, the oldest first.
pub(super) const KERNELS: [DebianKernel; 4] = [
    DebianKernel {
        version: "6.1",
        architecture: Architecture::Amd64,
        suite: "bookworm",
        package: "linux-image-cloud-amd64",
    },
    DebianKernel {
        version: "6.12",
        architecture: Architecture::Amd64,
        suite: "trixie",
        package: "linux-image-amd64",
    },
    DebianKernel {
        version: "7",
        architecture: Architecture::Amd64,
        suite: "sid",
        package: "linux-image-amd64",
    },
    DebianKernel {
        version: "6.1",
        architecture: Architecture::Arm64,
        suite: "bookworm",
        package: "linux-image-cloud-arm64",
    },
];

/// What a machine of another architecture needs beside its kernel: each is unpacked whole.
const FOREIGN_PROGRAMS: [&str; 3] = ["busybox-static", "iproute2", "wireguard-tools"];
/// What is unpacked of a kernel, beside its lists of modules.
const UNPACKED: &str = "'*/vmlinuz*' '*/kernel/net/*' '*/kernel/lib/*' '*/kernel/crypto/*' \
     '*/kernel/arch/*' '*/kernel/drivers/net/*'";

impl DebianKernel {
    /// Its name in this verb's output and in its folder.
    pub(super) fn name(&self) -> String {
        format!("{}-{}", self.version, self.architecture.name())
    }

    fn folder(&self) -> PathBuf {
        folder().join(self.name())
    }

    /// The folder of the programs for the guest that this machine cannot run.
    pub(super) fn programs(&self) -> PathBuf {
        self.folder().join("programs")
    }

    /// The compressed kernel, if it was fetched.
    pub(super) fn image(&self) -> Option<PathBuf> {
        find_below(&self.unpacked(), "vmlinuz")
    }

    fn unpacked(&self) -> PathBuf {
        self.folder().join("unpacked")
    }

    /// Whether all of it was fetched.
    fn is_complete(&self) -> bool {
        let has_programs = self.architecture != Architecture::Arm64
            || FOREIGN_PROGRAMS.iter().all(|name| self.programs().join("usr/share/doc").join(name).is_dir());
        self.image().is_some() && self.modules().is_ok() && has_programs
    }

    /// Downloads and unpacks what is missing.
    pub(super) fn fetch(&self) -> Result<()> {
        if self.is_complete() {
            return Ok(());
        }
        let folder = self.folder();
        fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
        let apt = self.apt()?;
        shell::run(&mut shell::line(&format!("{apt} update")))?;
        let (here, package) = (folder.display(), self.package);
        // Since Linux 7.1 a kernel is several packages, on which the one of its name depends.
        shell::run(&mut shell::line(&format!(
            "cd {here} && rm -rf *.deb unpacked && mkdir unpacked\n\
             needs() {{ {apt_cache} depends \"$1\" | sed -n \"s/.*Depends: \\($2\\)/\\1/p\"; }}\n\
             image=$(needs {package} 'linux-image-[0-9].*' | head -n 1)\n\
             {apt} download \"$image\" $(needs \"$image\" 'linux-\\(base\\|binary\\|modules\\)-[0-9].*' | sort -u)\n\
             for file in *.deb; do\n\
             dpkg-deb --fsys-tarfile \"$file\" | tar -x -C unpacked --wildcards \
             {UNPACKED} {lists} 2> tar.log || true\n\
             done\n\
             rm -f *.deb",
            apt_cache = apt.replacen("apt-get", "apt-cache", 1),
            lists = LISTS.map(|list| format!("'*/{list}'")).join(" "),
        )))?;
        ensure!(self.image().is_some(), "{here} has no kernel");
        self.modules()?;
        if self.architecture == Architecture::Arm64 { self.fetch_programs(&apt) } else { Ok(()) }
    }

    /// Downloads and unpacks the guest's programs, with all that they depend on.
    fn fetch_programs(&self, apt: &str) -> Result<()> {
        let (programs, names) = (self.programs(), FOREIGN_PROGRAMS.join(" "));
        shell::run(&mut shell::line(&format!(
            "rm -rf {here} && mkdir -p {here} && cd {here}\n\
             {apt} install -y --no-install-recommends --download-only {names}\n\
             for file in {archives}/*.deb; do dpkg-deb -x \"$file\" .; done\n\
             rm {archives}/*.deb",
            here = programs.display(),
            archives = self.folder().join("apt/cache/archives").display()
        )))
    }

    /// The beginning of an apt-get line whose lists, cache and state are this kernel's own.
    fn apt(&self) -> Result<String> {
        let apt = self.folder().join("apt");
        for folder in ["state/lists/partial", "cache/archives/partial"] {
            let folder = apt.join(folder);
            fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
        }
        let source = format!(
            "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian {} main\n",
            self.suite
        );
        for (file, text) in [("sources.list", source.as_str()), ("status", "")] {
            fs::write(apt.join(file), text).with_context(|| format!("write {file}"))?;
        }
        let (here, architecture) = (apt.display(), self.architecture.name());
        Ok(format!(
            "apt-get -o Dir::Etc::sourcelist={here}/sources.list -o Dir::Etc::sourceparts=/dev/null \
             -o Dir::State={here}/state -o Dir::State::status={here}/status -o Dir::Cache={here}/cache \
             -o APT::Sandbox::User=root -o APT::Architecture={architecture} -o APT::Architectures={architecture}"
        ))
    }

    /// The lists of its modules, if it was fetched.
    pub(super) fn modules(&self) -> Result<Modules> {
        let missing =
            || format!("no kernel {}: `cargo xtask kernels --all --setup` downloads it", self.name());
        Modules::of(&self.unpacked()).with_context(missing)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_two_kernels_have_one_folder() {
        let names: BTreeSet<_> = KERNELS.iter().map(DebianKernel::name).collect();
        assert_eq!(names.len(), KERNELS.len());
    }
}
