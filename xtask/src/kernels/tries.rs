//! `cargo xtask kernels --all`: the demo's scenario on each kernel and each hook that it has, and connections over
//! the links that only some kernels have.
//!
//! ```text
//! fetch ─▶ kernel, modules ───────────────────────┐
//! handshake, guest (handshake-lab), ip, guest.sh ─┴▶ initramfs ─▶ QEMU ─▶ console ─▶ judged ─▶ docs/kernels.md
//! ```

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use handshake_lab::links::LinkKind;
use handshake_lab::{books, demo};
use serde_json::Value;

use super::fetch::{DebianKernel, KERNELS};
use super::initramfs::Initramfs;
use super::modules::Modules;
use super::table::{self, Outcome, TriedRow};
use super::{Args, BUSYBOX, TIMEOUT_S, between, boot_on, folder, libraries, part};
use crate::architecture::{Architecture, build_unoptimised};
use crate::toolchain::{self, version};
use crate::{packages, shell};

/// The guest's first program.
const INIT: &str = include_str!("guest.sh");
/// The modules that the hooks, the demo's interfaces and packet sockets need.
const MODULES: [&str; 4] = ["sch_ingress", "cls_bpf", "veth", "af_packet"];
/// The machine's memory in MiB: programs with all their line information are in it twice while it begins.
const MEMORY: &str = "1536";
/// The interface of the demo.
const VETH: &str = "veth";
/// The programs that the guest has beside handshake and its own.
const PROGRAMS: [&str; 3] = [BUSYBOX, "ip", "wg"];
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
    let mut failed = Vec::new();
    for kernel in &kernels {
        match try_all(kernel, args.console) {
            Ok(rows) if args.table => table::write(&rows)?,
            Ok(_) => {}
            Err(error) => failed.push(format!("{}: {error:#}", kernel.name())),
        }
    }
    // What a machine has shown is not lost by the fault of another.
    ensure!(failed.is_empty(), "{}", failed.join("\n"));
    Ok(())
}

/// Downloads the newest kernel, if it is missing.
pub(super) fn fetch_newest() -> Result<()> {
    newest()?.fetch()
}

/// Runs the scenario on the hook that the newest kernel has and the oldest lacks.
pub(super) fn run_newest(console: bool) -> Result<()> {
    let kernel = newest()?;
    if kernel.modules().is_err() {
        println!("skipped: needs kernel {}: `cargo xtask kernels --setup` downloads it", kernel.name());
        return Ok(());
    }
    try_on(kernel, &[Try { link: VETH, hook: "tcx" }], console).map(|_| ())
}

/// The newest kernel that runs on a machine like this one.
fn newest() -> Result<&'static DebianKernel> {
    let own = KERNELS.iter().filter(|kernel| kernel.architecture == Architecture::Amd64);
    own.max_by_key(|kernel| version(kernel.version)).context("no kernel")
}

/// Tries all that a kernel has. Returns the rows of the table, also those of the links that it lacks.
fn try_all(kernel: &DebianKernel, console: bool) -> Result<Vec<TriedRow>> {
    let modules = kernel.modules()?;
    let (release, mut rows) = try_on(kernel, &tries(kernel, &modules), console)?;
    for kind in LinkKind::ALL.into_iter().filter(|kind| !modules.has(module(*kind))) {
        let row = TriedRow::new(kernel, &release, kind.name(), Outcome::Lacking(module(kind)));
        println!("{}", row.line());
        rows.push(row);
    }
    Ok(rows)
}

/// Boots a kernel once for these tries. Returns its release and a row for each.
fn try_on(kernel: &DebianKernel, tries: &[Try], console: bool) -> Result<(String, Vec<TriedRow>)> {
    let lines: Vec<String> = tries.iter().map(Try::line).collect();
    let machine = packed(kernel, &lines)?;
    let booted = Instant::now();
    let said = machine.boot(TIMEOUT_S + TRY_S * lines.len() as u64)?;
    if console {
        println!("{said}");
    }
    let release = between(&said, "kernel ", "\n").with_context(|| format!("it did not boot:\n{said}"))?;
    let (mut rows, mut failed) = (Vec::new(), Vec::new());
    for (one, line) in tries.iter().zip(&lines) {
        let said = part(&said, line)?;
        match judge(one, said) {
            Ok(outcome) => {
                let row = TriedRow::new(kernel, release, one.link, outcome);
                println!("{}", row.line());
                rows.push(row);
            }
            Err(error) => failed.push(format!("{line} on Linux {release}: {error:#}\n{said}")),
        }
    }
    println!("Linux {release}: {} of {} tries in {} s", rows.len(), tries.len(), booted.elapsed().as_secs());
    ensure!(failed.is_empty(), "{}", failed.join("\n"));
    Ok((release.to_owned(), rows))
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

/// The module that a kind of link needs.
fn module(kind: LinkKind) -> &'static str {
    match kind {
        LinkKind::Vlan => "8021q",
        LinkKind::Bond => "bonding",
        LinkKind::Wireguard => "wireguard",
        LinkKind::Ppp => "ppp_async",
    }
}

/// The kinds of link that a kernel has.
fn present(modules: &Modules) -> impl Iterator<Item = LinkKind> {
    LinkKind::ALL.into_iter().filter(|kind| modules.has(module(*kind)))
}

/// The hooks that a kernel has on a veth, and the newest of each kind on the links that it has beside.
fn tries(kernel: &DebianKernel, modules: &Modules) -> Vec<Try> {
    let tcx = (version(kernel.version) >= TCX).then_some("tcx");
    let on = |link| move |hook| Try { link, hook };
    let hooks = ["clsact"].into_iter().chain(tcx).chain(["xdp-generic", "xdp-native"]);
    let links = present(modules).flat_map(|kind| {
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
    let modules = kernel.modules()?;
    let needed: Vec<&str> = MODULES.into_iter().chain(present(&modules).map(module)).collect();
    for (number, (module, bytes)) in modules.in_order(&needed)?.into_iter().enumerate() {
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
    for name in PROGRAMS {
        let program = shell::find(name).with_context(|| format!("no {name}: --setup installs it"))?;
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
    for name in PROGRAMS {
        let mut places = ["bin", "usr/bin"].map(|folder| programs.join(folder).join(name)).into_iter();
        let file = places.find(|file| file.is_file()).with_context(|| format!("no {name} was unpacked"))?;
        files.copy(&file, &format!("bin/{name}"))?;
    }
    Ok(())
}

/// Holds what a try printed against what is expected of it.
fn judge(one: &Try, said: &str) -> Result<Outcome> {
    let report = report(said)?;
    let figure = |name: &str| books::figure(&report, name);
    let attempts = figure("tcp.attempts")?;
    if one.link == VETH {
        let differing = demo::differences(&report)?;
        ensure!(differing.is_empty(), "{}", differing.join(", "));
    } else {
        let counted: u64 = value(said, "packets: ")?.parse().context("the packet socket's count")?;
        let seen = figure("packets.total")?;
        ensure!(seen == counted, "{seen} packets at the hooks, and {counted} at a packet socket");
        let (completed, refused) = (figure("tcp.completed")?, figure("tcp.refused")?);
        ensure!(
            completed == CONNECTIONS && refused == CONNECTIONS,
            "{completed} completed, {refused} refused"
        );
        ensure!(attempts == 2 * CONNECTIONS, "{attempts} attempts");
    }
    let interface = &report["source"]["interfaces"][0];
    ensure!(interface["ingress"] == one.hook, "another hook: {interface}");
    Ok(Outcome::Tried {
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
