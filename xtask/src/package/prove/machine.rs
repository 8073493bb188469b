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
use serde_json::Value;

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
/// Arguments of the kernel's command line: nothing else writes on the console.
const SILENT: &str =
    "systemd.show_status=0 systemd.mask=serial-getty@ttyS0.service systemd.mask=console-getty.service";
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
    tree.file("srv/handshake.deb", package);
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
    let exposed =
        |name| Ok::<_, anyhow::Error>(part(console, name)?.lines().find_map(exposure).unwrap_or_default());
    let exposure = exposed("confined")?;
    println!("Debian with systemd: installed disabled; ready before the first scrape; exposure {exposure}");
    println!("Debian with systemd: reloaded, with a file of metrics that another user reads");
    let exposure = exposed("owned")?;
    println!("Debian with systemd: a unit and its process are named; exposure {exposure} with --process");
    println!("Debian with systemd: three capabilities to load, one left; stopped and purged, nothing left");
    Ok(())
}

/// What a part of the console must say.
type Check = fn(&str) -> Result<()>;
/// The parts in their order.
const CHECKS: [(&str, Check); 8] = [
    ("installed", |said| has(said, &["exit 0\n", "\ndisabled\n", "\ninactive\n"])),
    ("started", |said| {
        has(said, &["exit 0\n", "scrape 0\n", "Type=notify\n", "ActiveState=active\n", "SubState=running\n"])
    }),
    ("confined", confined),
    ("served", served),
    ("reloaded", |said| {
        has(said, &["exit 0\n", "reload 0\n", "handshake_exact 1\n", "ActiveState=active\n"])
    }),
    ("owned", owned),
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
    is_exposed_by(said, 2.0)
}

fn is_exposed_by(said: &str, most: f64) -> Result<()> {
    let exposure: f64 =
        said.lines().find_map(exposure).and_then(|it| it.parse().ok()).context("no exposure")?;
    ensure!(exposure <= most, "an exposure of {exposure} is above {most}");
    Ok(())
}

/// The connections of a unit have its name and its process, and are counted for it.
fn owned(said: &str) -> Result<()> {
    has(said, &["exit 0\n"])?;
    let process = said.lines().find_map(|line| line.strip_prefix("MainPID=")).context("no process")?;
    let process: u64 = process.parse().context("the process")?;
    let row = said.lines().find(|line| line.starts_with('{')).context("no row")?;
    let row: Value = serde_json::from_str(row).context("a row")?;
    let owner = &row["responder"]["owner"];
    ensure!(owner["unit"] == "web.service" && owner["comm"] == "busybox", "{owner}");
    ensure!(owner["pid"] == process, "{owner}: not {process}");
    let of_web = ["handshake_workload_attempts_total{", "workload=\"web\"", "side=\"responder\""];
    let attempts = value(said, &of_web);
    ensure!(attempts == Some(COMPLETED as f64), "attempts of the unit: {attempts:?}");
    is_exposed_by(said, 3.0)
}

/// The figure in the last line of `systemd-analyze security`.
fn exposure(line: &str) -> Option<&str> {
    line.split_once("exposure level for handshake.service: ")?.1.split(' ').next()
}

fn served(said: &str) -> Result<()> {
    has(said, &["ActiveState=active\n", "NRestarts=0\n", "WatchdogUSec=30s\n", "handshake_exact 1\n"])?;
    // The scrapes are connections too.
    let attempts = value(said, &["handshake_attempts_total"]);
    ensure!(attempts.is_some_and(|attempts| attempts > COMPLETED as f64), "attempts: {attempts:?}");
    let refused = value(said, &["handshake_verdicts_total{", "verdict=\"refused\""]);
    ensure!(refused == Some(1.0), "refused: {refused:?}");
    let completed = value(said, &["handshake_verdicts_total{", "verdict=\"completed\""]);
    ensure!(completed.is_some_and(|completed| completed >= COMPLETED as f64), "completed: {completed:?}");
    Ok(())
}

/// The value of the first metric that begins with the first part and has the others.
fn value(said: &str, parts: &[&str]) -> Option<f64> {
    let (start, labels) = parts.split_first()?;
    let fits = |line: &&str| line.starts_with(start) && labels.iter().all(|label| line.contains(label));
    said.lines().find(fits)?.rsplit(' ').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A console on which all is well.
    const GOOD: &str = "\
<installed>\nexit 0\ndisabled\ninactive\n</installed>
<started>\nexit 0\nscrape 0\nType=notify\nActiveState=active\nSubState=running\n</started>
<confined>\nUid:\t61787\t61787\nCapEff:\t0000000000001000\nCapBnd:\t000000c000001000\nNoNewPrivs:\t1\nSeccomp:\t2
\u{2192} Overall exposure level for handshake.service: 1.7 OK\n</confined>
<served>\nActiveState=active\nNRestarts=0\nWatchdogUSec=30s\nhandshake_exact 1\nhandshake_attempts_total 8
handshake_verdicts_total{verdict=\"completed\"} 7\nhandshake_verdicts_total{verdict=\"refused\"} 1\n</served>
<reloaded>\nexit 0\nreload 0\nhandshake_exact 1\nActiveState=active\n</reloaded>
<owned>\nexit 0\nMainPID=312
{\"responder\":{\"owner\":{\"unit\":\"web.service\",\"pid\":312,\"comm\":\"busybox\"}}}
handshake_workload_attempts_total{workload=\"web\",side=\"responder\"} 5
\u{2192} Overall exposure level for handshake.service: 2.3 OK\n</owned>
<stopped>\nexit 0\nResult=success\nExecMainStatus=0\nActiveState=inactive\nfilters: \n</stopped>
<purged>\nexit 0\nno packages found matching handshake\n</purged>
";

    #[test]
    fn each_broken_promise_is_found() {
        judge(GOOD).expect("all is well");
        for (good, bad) in [
            ("disabled", "enabled"),
            ("scrape 0", "scrape 7"),
            ("c000001000", "c000201000"),
            ("Uid:\t61787", "Uid:\t0"),
            (": 1.7", ": 2.1"),
            ("NRestarts=0", "NRestarts=1"),
            ("\"refused\"} 1", "\"refused\"} 2"),
            ("reload 0\nhandshake_exact 1\n", "reload 0\n"),
            ("pid\":312", "pid\":311"),
            ("\"web.service", "\"handshake.service"),
            ("\"responder\"} 5", "\"responder\"} 4"),
            (": 2.3", ": 3.1"),
            ("filters: \n", "filters: bpf\n"),
            ("no packages", "left: /etc/handshake\nno packages"),
            ("<purged>", ""),
        ] {
            assert!(judge(&GOOD.replace(good, bad)).is_err(), "{good} -> {bad}");
        }
    }
}
