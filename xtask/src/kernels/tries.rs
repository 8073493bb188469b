//! `cargo xtask kernels --all`: the demo's scenario on each kernel and each hook that it has, and connections over
//! the links that only some kernels have.
//!
//! ```text
//! fetch ─▶ kernel, modules ───────────────────────┐
//! handshake, guest (handshake-lab), ip, guest.sh ─┴▶ initramfs ─▶ QEMU ─▶ console ─▶ judged ─▶ docs/kernels.md
//! ```

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use handshake_lab::links::LinkKind;
use handshake_lab::{books, demo};
use serde_json::Value;

use super::fetch::{DebianKernel, KERNELS};
use super::initramfs::Initramfs;
use super::table::{self, TriedRow};
use super::{Args, BUSYBOX, TIMEOUT_S, between, boot_on, folder, libraries, part};
use crate::architecture::{Architecture, build_unoptimised};
use crate::toolchain::{self, version};
use crate::{packages, shell};

/// The guest's first program.
const INIT: &str = include_str!("guest.sh");
/// The modules that the hooks and the interfaces need.
const MODULES: [&str; 7] = ["sch_ingress", "cls_bpf", "veth", "8021q", "bonding", "wireguard", "ppp_async"];
/// The machine's memory in MiB: programs with all their line information are in it twice while it begins.
const MEMORY: &str = "1536";
/// The interface of the demo.
const VETH: &str = "veth";
/// The busybox programs that the guest uses.
const APPLETS: [&str; 8] = ["cat", "insmod", "mkdir", "mount", "nsenter", "poweroff", "sh", "sleep"];
/// The connections over a link that complete, and those that are refused.
const CONNECTIONS: u64 = 10;
/// The seconds that a try takes at most on a busy host.
const TRY_S: u64 = 120;
/// The first kernel with TCX.
const TCX: (u32, u32) = (6, 6);

/// Runs the scenario on the kernels that the arguments choose, and writes the table.
pub(super) fn run(args: &Args) -> Result<()> {
    let kernels = chosen(args);
    ensure!(!kernels.is_empty(), "no such kernel: {}", KERNELS.map(|kernel| kernel.name()).join(", "));
    if args.setup {
        kernels.iter().try_for_each(DebianKernel::fetch)?;
        if kernels.iter().any(|kernel| kernel.architecture == Architecture::Arm64) {
            packages::install_for_arm64()?;
            toolchain::choose(None, true)?;
        }
    }
    let mut rows = Vec::new();
    for kernel in &kernels {
        let tries = tries(kernel);
        let lines: Vec<String> = tries.iter().map(Try::line).collect();
        let console = packed(kernel, &lines)?.boot(TIMEOUT_S + TRY_S * lines.len() as u64)?;
        if args.console {
            println!("{console}");
        }
        let release = between(&console, "kernel ", "\n")
            .with_context(|| format!("{} did not boot:\n{console}", kernel.name()))?;
        for (one, line) in tries.iter().zip(&lines) {
            let said = part(&console, line)?;
            let row = judge(kernel, release, *one, said)
                .with_context(|| format!("{line} on Linux {release}:\n{said}"))?;
            println!("{}", row.line());
            rows.push(row);
        }
    }
    if args.table { table::write(&rows) } else { Ok(()) }
}

/// The kernels that the arguments choose.
fn chosen(args: &Args) -> Vec<DebianKernel> {
    let is_chosen = |kernel: &&DebianKernel| {
        args.arch.is_none_or(|architecture| architecture == kernel.architecture)
            && args.kernel.as_ref().is_none_or(|version| version == kernel.version)
    };
    KERNELS.iter().filter(is_chosen).copied().collect()
}

/// What is tried at once: a hook of an interface.
#[derive(Clone, Copy, Debug)]
struct Try {
    /// What the interface is, as iproute2 spells it.
    link: &'static str,
    hook: &'static str,
}

impl Try {
    /// The guest's arguments.
    fn line(&self) -> String {
        match self.link {
            VETH => format!("demo {}", self.hook),
            link => format!("link {link} {}", self.hook),
        }
    }
}

/// The hooks that a kernel has on a veth, and the newest of each kind on the links that it knows beside.
fn tries(kernel: &DebianKernel) -> Vec<Try> {
    let tcx = (version(kernel.version) >= TCX).then_some("tcx");
    let on = |link| move |hook| Try { link, hook };
    let hooks = ["clsact"].into_iter().chain(tcx).chain(["xdp-generic", "xdp-native"]);
    let links = LinkKind::ALL.into_iter().filter(|_| kernel.has_links).flat_map(|kind| {
        let xdp = kind.has_ethernet().then_some("xdp-generic");
        [tcx.unwrap_or("clsact")].into_iter().chain(xdp).map(on(kind.name()))
    });
    hooks.map(on(VETH)).chain(links).collect()
}

/// A machine that runs the guest's program once per try.
pub(super) struct Packed {
    architecture: Architecture,
    kernel: PathBuf,
    initramfs: PathBuf,
}

impl Packed {
    /// Boots it; returns its console.
    pub(super) fn boot(&self, limit_s: u64) -> Result<String> {
        boot_on(self.architecture, (&self.kernel, &self.initramfs), MEMORY, "", limit_s)
    }
}

/// Builds what a machine runs, and packs it.
pub(super) fn packed(kernel: &DebianKernel, tries: &[String]) -> Result<Packed> {
    let name = kernel.name();
    let image = kernel
        .image()
        .with_context(|| format!("no kernel {name}: `cargo xtask kernels --all --setup` downloads it"))?;
    let mut files = Initramfs::new();
    files.add("init", 0o755, INIT.as_bytes());
    files.add("tries", 0o644, format!("{}\n", tries.join("\n")).as_bytes());
    for (number, (module, bytes)) in kernel.modules(&MODULES)?.into_iter().enumerate() {
        files.add(&format!("modules/{number:02}-{module}.ko"), 0o644, &bytes);
    }
    // Where iproute2 keeps the names of namespaces, as it has been built and as it was named before.
    files.link("var/run", "/run");
    for applet in APPLETS {
        files.link(&format!("bin/{applet}"), "busybox");
    }
    let [handshake, guest] = build_unoptimised(kernel.architecture, "guest")?;
    files.copy(&handshake, "bin/handshake")?;
    files.copy(&guest, "bin/guest")?;
    match kernel.architecture {
        Architecture::Amd64 => add_own(&mut files, &[&handshake, &guest])?,
        Architecture::Arm64 => add_foreign(&mut files, kernel)?,
    }
    let initramfs = folder().join(format!("{name}.initramfs"));
    files.write(&initramfs)?;
    Ok(Packed { architecture: kernel.architecture, kernel: image, initramfs })
}

/// Adds this machine's programs, and the libraries of those that were built for it.
fn add_own(files: &mut Initramfs, built: &[&Path]) -> Result<()> {
    for name in [BUSYBOX, "ip", "wg"] {
        let Some(program) = shell::find(name) else { continue };
        files.copy(&program, &format!("bin/{name}"))?;
        add_libraries(files, &program)?;
    }
    built.iter().try_for_each(|program| add_libraries(files, program))
}

fn add_libraries(files: &mut Initramfs, program: &Path) -> Result<()> {
    // A static program has none, which ldd takes for an error.
    for library in libraries(program).unwrap_or_default() {
        files.copy(&library, &library.to_string_lossy())?;
    }
    Ok(())
}

/// Adds Debian's programs of another architecture, with every library of their packages.
fn add_foreign(files: &mut Initramfs, kernel: &DebianKernel) -> Result<()> {
    let programs = kernel.programs();
    let mut pending = vec![programs.clone()];
    while let Some(place) = pending.pop() {
        for entry in fs::read_dir(&place).with_context(|| format!("list {}", place.display()))? {
            let path: PathBuf = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if path.is_dir() && !path.is_symlink() {
                pending.push(path);
            } else if name.contains(".so") && path.is_file() {
                // Where the loader looks, whatever folder its package has it in.
                files.copy(&path, &format!("lib/{name}"))?;
            }
        }
    }
    [BUSYBOX, "ip"]
        .into_iter()
        .try_for_each(|name| files.copy(&programs.join("bin").join(name), &format!("bin/{name}")))
}

/// Holds what a try printed against what is expected of it.
fn judge(kernel: &DebianKernel, release: &str, one: Try, said: &str) -> Result<TriedRow> {
    let report = report(said)?;
    let figure = |name: &str| books::figure(&report, name);
    let attempts = figure("tcp.attempts")?;
    if one.link == VETH {
        let differing = demo::differences(&report)?;
        ensure!(differing.is_empty(), "{}", differing.join(", "));
    } else {
        let counted: u64 = value(said, "packets: ")?.parse().context("the kernel's count")?;
        let seen = figure("packets.total")?;
        ensure!(seen == counted, "{seen} packets at the hooks, and {counted} by the kernel's count");
        let (completed, refused) = (figure("tcp.completed")?, figure("tcp.refused")?);
        ensure!(
            completed == CONNECTIONS && refused == CONNECTIONS,
            "{completed} completed, {refused} refused"
        );
        ensure!(attempts == 2 * CONNECTIONS, "{attempts} attempts");
    }
    let interface = &report["source"]["interfaces"][0];
    ensure!(interface["ingress"] == one.hook, "another hook: {interface}");
    Ok(TriedRow {
        version: kernel.version,
        architecture: kernel.architecture,
        release: release.to_owned(),
        link: one.link,
        ingress: one.hook,
        egress: interface["egress"].as_str().context("no egress hook")?.to_owned(),
        attempts,
        verified: value(said, "verified: ")?.to_owned(),
    })
}

/// What stands behind a mark at the beginning of a line.
fn value<'a>(said: &'a str, mark: &str) -> Result<&'a str> {
    said.lines().find_map(|line| line.strip_prefix(mark)).with_context(|| format!("no line {mark:?}"))
}

/// The report of a try that ended well: exact, and its books balance.
pub(super) fn report(said: &str) -> Result<Value> {
    ensure!(said.contains("exit 0\n"), "it did not end with 0");
    let line = said.lines().find(|line| line.starts_with('{')).context("no report")?;
    let report: Value = serde_json::from_str(line).context("the report is not JSON")?;
    books::check(&report)?;
    ensure!(report["exact"] == true, "the report is inexact: {}", report["inexact"]);
    Ok(report)
}
