//! The package in a Debian 12 that boots with systemd, in an emulated machine.
//!
//! ```text
//! mmdebstrap ─▶ files of Debian ─┐
//! package, guest.sh, kernel's modules ─┴▶ cpio ─▶ QEMU ─▶ console ─▶ judged
//! ```

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use super::super::Release;
use super::super::tree::Tree;
use crate::kernels::{self, MachineParts, part};
use crate::shell;

/// The release of Debian that the package is proven on.
const SUITE: &str = "bookworm";
/// What it takes beyond Debian's minimum.
const PACKAGES: &str = "systemd-sysv,kmod,iproute2,curl";
/// What the guest does.
const SCRIPT: &str = include_str!("guest.sh");
/// What starts it.
const UNIT: &str = "\
[Unit]
After=multi-user.target
[Service]
Type=oneshot
ExecStart=/bin/sh /root/guest.sh
StandardOutput=tty
TTYPath=/dev/console
";
/// The first argument of the kernel's command line: nothing else writes on the console.
const SILENT: &str = "quiet loglevel=0 systemd.show_status=0 systemd.mask=serial-getty@ttyS0.service systemd.mask=console-getty.service";
/// Debian's files and twice as much.
const MEMORY: &str = "2048";
/// The connections that complete in the guest; one more is refused.
const COMPLETED: u64 = 5;
/// CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN, and the last alone: on Linux 6.1 the hook is clsact.
const BOUNDS: &str = "CapBnd:\t000000c000001000";
const LEFT: &str = "CapEff:\t0000000000001000";

/// Boots the machine and judges what its console says.
pub(super) fn prove(release: &Release, package: &[u8], shows_console: bool) -> Result<()> {
    let parts = MachineParts::find().map_err(|missing| anyhow::anyhow!("missing: {missing}"))?;
    let root = release.folder("debian");
    let initramfs = release.folder("debian.cpio");
    debian(&root)?;
    add(&root, &parts, package)?;
    // The kernel starts /init.
    let line = format!(
        "cd {} && find . -xdev | LC_ALL=C sort | cpio --quiet --create --format=newc > {}",
        root.display(),
        initramfs.display()
    );
    shell::run(&mut shell::line(&line))?;
    let console = kernels::boot(&parts.kernel, &initramfs, MEMORY, SILENT)?;
    if shows_console {
        println!("{console}");
    }
    judge(&console)
}

/// Debian's minimum with systemd, made anew each time: the last machine's package is not in it.
fn debian(root: &Path) -> Result<()> {
    if root.exists() {
        fs::remove_dir_all(root).with_context(|| format!("remove {}", root.display()))?;
    }
    let mut command = shell::pristine("mmdebstrap");
    command.args(["--quiet", "--mode=root", "--variant=minbase", "--include", PACKAGES]);
    command.args(["--dpkgopt=path-exclude=/usr/share/doc/*", "--dpkgopt=path-exclude=/usr/share/locale/*"]);
    shell::run(command.arg(SUITE).arg(root))
}

/// Adds what Debian does not have.
fn add(root: &Path, parts: &MachineParts, package: &[u8]) -> Result<()> {
    let mut tree = Tree::default();
    tree.file("root/handshake.deb", package);
    tree.file("root/guest.sh", SCRIPT.as_bytes());
    tree.file("etc/systemd/system/guest.service", UNIT.as_bytes());
    let busybox = fs::read(&parts.busybox).context("read busybox")?;
    tree.program("usr/bin/busybox", &busybox);
    // As udev would: the kernel asks for them by name when the first filter comes.
    let modules = format!("usr/lib/modules/{}", parts.release()?);
    for module in &parts.modules {
        let name = module.file_name().context("a module has a name")?.to_string_lossy();
        tree.file(&format!("{modules}/{name}"), &fs::read(module).context("read a module")?);
    }
    tree.add_to(root)?;
    let wants = root.join("etc/systemd/system/multi-user.target.wants");
    fs::create_dir_all(&wants).context("make a folder")?;
    symlink("../guest.service", wants.join("guest.service")).context("enable guest.service")?;
    symlink("usr/lib/systemd/systemd", root.join("init")).context("link init")?;
    shell::run(shell::pristine("chroot").arg(root).args(["depmod", parts.release()?]))
}

/// Checks each part of what the console says.
fn judge(console: &str) -> Result<()> {
    for (name, check) in CHECKS {
        let said = part(console, name)?;
        check(said).with_context(|| format!("{name}:\n{said}"))?;
    }
    let exposure = part(console, "confined")?.lines().find_map(exposure).unwrap_or_default();
    println!("Debian with systemd: installed disabled; ready before the first scrape; exposure {exposure}");
    println!("Debian with systemd: three capabilities to load, one left; stopped and purged, nothing left");
    Ok(())
}

const CHECKS: [(&str, fn(&str) -> Result<()>); 6] = [
    ("installed", |said| has(said, &["exit 0\n", "\ndisabled\n", "\ninactive\n"])),
    ("started", |said| {
        has(said, &["exit 0\n", "scrape 0\n", "Type=notify\n", "ActiveState=active\n", "SubState=running\n"])
    }),
    ("confined", confined),
    ("served", served),
    ("stopped", |said| {
        has(
            said,
            &["exit 0\n", "Result=success\n", "ExecMainStatus=0\n", "ActiveState=inactive\n", "filters: \n"],
        )
    }),
    ("purged", |said| {
        ensure!(!said.contains("left: "), "something is left");
        // dpkg does not know a package that was purged.
        has(said, &["exit 0\n", "no packages found matching handshake"])
    }),
];

fn has(said: &str, parts: &[&str]) -> Result<()> {
    parts.iter().try_for_each(|part| {
        ensure!(said.contains(part), "no {part:?}");
        Ok(())
    })
}

fn confined(said: &str) -> Result<()> {
    has(said, &[BOUNDS, LEFT, "NoNewPrivs:\t1", "Seccomp:\t2"])?;
    let uid = said.lines().find_map(|line| line.strip_prefix("Uid:\t")?.split('\t').next()?.parse().ok());
    // The range of DynamicUser=, systemd.exec(5).
    ensure!(uid.is_some_and(|uid: u32| (61_184..=65_519).contains(&uid)), "not a user of its own");
    let exposure: f64 =
        said.lines().find_map(exposure).and_then(|it| it.parse().ok()).context("no exposure")?;
    ensure!(exposure <= 2.0, "an exposure of {exposure} is above 2.0");
    Ok(())
}

/// The figure in the last line of `systemd-analyze security`.
fn exposure(line: &str) -> Option<&str> {
    line.split_once("exposure level for handshake.service: ")?.1.split(' ').next()
}

fn served(said: &str) -> Result<()> {
    has(said, &["ActiveState=active\n", "NRestarts=0\n", "WatchdogUSec=30s\n", "handshake_exact 1\n"])?;
    let value = |name: &str| -> Option<f64> {
        said.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
    };
    let counted = [value("handshake_attempts_total"), value("handshake_verdicts_total{verdict=\"refused\"}")];
    // The scrapes themselves are connections too, and the last one has not closed yet.
    let expected = COMPLETED as f64 + 1.0;
    ensure!(counted[0].is_some_and(|attempts| attempts >= expected), "attempts: {counted:?}");
    ensure!(counted[1] == Some(1.0), "refused: {counted:?}");
    Ok(())
}
