//! The kernels that handshake is tried on: Debian's packages, of several of its releases, for two architectures.
//! They are unpacked and not installed, and apt has folders of its own for them, so this machine stays as it is.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

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
    /// Whether it has bonds, PPP and more drivers. Those for the cloud have not, and are a third in size.
    pub(super) has_links: bool,
}

/// By architecture, the oldest first.
pub(super) const KERNELS: [DebianKernel; 4] = [
    DebianKernel {
        version: "6.1",
        architecture: Architecture::Amd64,
        suite: "bookworm",
        package: "linux-image-cloud-amd64",
        has_links: false,
    },
    DebianKernel {
        version: "6.12",
        architecture: Architecture::Amd64,
        suite: "trixie",
        package: "linux-image-amd64",
        has_links: true,
    },
    DebianKernel {
        version: "7",
        architecture: Architecture::Amd64,
        suite: "sid",
        package: "linux-image-amd64",
        has_links: true,
    },
    DebianKernel {
        version: "6.1",
        architecture: Architecture::Arm64,
        suite: "bookworm",
        package: "linux-image-cloud-arm64",
        has_links: false,
    },
];

/// What a machine of another architecture needs beside its kernel: each is unpacked whole.
const FOREIGN_PROGRAMS: [&str; 2] = ["busybox-static", "iproute2"];
/// What is unpacked of a kernel.
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
        find_below(&self.folder().join("unpacked"), "vmlinuz")
    }

    /// Downloads and unpacks what is missing.
    pub(super) fn fetch(&self) -> Result<()> {
        if self.image().is_some() {
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
             {apt} download \"$image\" $(needs \"$image\" 'linux-\\(binary\\|modules\\)-.*' | sort -u)\n\
             for file in *.deb; do\n\
             dpkg-deb --fsys-tarfile \"$file\" | tar -x -C unpacked --wildcards {UNPACKED} 2> tar.log || true\n\
             done\n\
             rm -f *.deb",
            apt_cache = apt.replacen("apt-get", "apt-cache", 1),
        )))?;
        ensure!(self.image().is_some(), "{here} has no kernel");
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

    /// The modules of these names and all that they depend on, each behind what it depends on. A name that the
    /// kernel has no module of is left out: it has that built in, or not at all.
    pub(super) fn modules(&self, names: &[&str]) -> Result<Vec<(String, Vec<u8>)>> {
        let (mut found, mut seen) = (Vec::new(), BTreeSet::new());
        for name in names {
            self.add_module(name, &mut seen, &mut found)?;
        }
        Ok(found)
    }

    fn add_module(
        &self,
        name: &str,
        seen: &mut BTreeSet<String>,
        found: &mut Vec<(String, Vec<u8>)>,
    ) -> Result<()> {
        // A file has '-' where the name may have '_'.
        let name = name.replace('-', "_");
        if !seen.insert(name.clone()) {
            return Ok(());
        }
        let unpacked = self.folder().join("unpacked");
        let files = [name.clone(), name.replace('_', "-")].map(|name| format!("{name}.ko"));
        let Some(file) = files.iter().find_map(|file| find_below(&unpacked, file)) else { return Ok(()) };
        let module = decompressed(&file)?;
        for needed in dependencies(&module) {
            self.add_module(&needed, seen, found)?;
        }
        found.push((name, module));
        Ok(())
    }
}

/// A module's file as the kernel takes it without a decompressor.
fn decompressed(file: &Path) -> Result<Vec<u8>> {
    if file.extension().is_none_or(|extension| extension != "xz") {
        return fs::read(file).with_context(|| format!("read {}", file.display()));
    }
    let output = Command::new("xz").arg("-dc").arg(file).output().context("start xz")?;
    ensure!(output.status.success(), "xz cannot read {}", file.display());
    Ok(output.stdout)
}

/// The names of what a module depends on, by its section `.modinfo`.
fn dependencies(module: &[u8]) -> Vec<String> {
    const MARK: &[u8] = b"\0depends=";
    let Some(at) = module.windows(MARK.len()).position(|bytes| bytes == MARK) else { return Vec::new() };
    let names = module[at + MARK.len()..].split(|byte| *byte == 0).next().unwrap_or_default();
    let names = String::from_utf8_lossy(names);
    names.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_module_depends_on_is_read() {
        assert_eq!(dependencies(b"x\0license=GPL\0depends=stp,llc\0name=garp\0"), ["stp", "llc"]);
        assert!(dependencies(b"x\0depends=\0name=veth\0").is_empty());
        assert!(dependencies(b"no module").is_empty());
    }

    #[test]
    fn no_two_kernels_have_one_folder() {
        let names: BTreeSet<_> = KERNELS.iter().map(DebianKernel::name).collect();
        assert_eq!(names.len(), KERNELS.len());
    }
}
