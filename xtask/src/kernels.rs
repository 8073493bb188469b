//! `cargo xtask kernels`: runs handshake on the oldest kernel that it supports, and the demo on the newest; with
//! `--all` the demo on each kernel that is said to work.
//!
//! ```text
//! Debian's package ─▶ kernel, modules ─┐
//! handshake, busybox, kernels/init.sh ─┴▶ initramfs ─▶ QEMU ─▶ console ─▶ one report per hook, checked
//! ```
//!
//! The machine is emulated without KVM: it runs wherever QEMU does, and boots within seconds.

mod fetch;
mod initramfs;
mod modules;
mod soak;
mod table;
mod tries;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::architecture::Architecture;
use crate::{packages, run, shell};
use initramfs::Initramfs;

const BUSYBOX: &str = "busybox";
/// The Debian package of the latest kernel in this machine's release: 6.1 in Debian 12.
const LATEST: &str = "linux-image-cloud-amd64";
/// The kernel modules that the programs and the guest's script need.
const MODULES: [&str; 3] = ["sch_ingress.ko", "cls_bpf.ko", "veth.ko"];
/// The busybox programs that the guest's script uses.
const APPLETS: [&str; 16] = [
    "cat", "echo", "grep", "httpd", "insmod", "ip", "mkdir", "mount", "nsenter", "poweroff", "readlink",
    "sh", "sleep", "sort", "unshare", "wget",
];
/// The guest's first program.
const INIT: &str = include_str!("kernels/init.sh");
/// The machine's time limit in seconds: far more than a busy host needs.
const TIMEOUT_S: u64 = 900;
/// The machine's memory in MiB.
const MEMORY: &str = "1024";
/// The hooks that the guest tries, in its script's order, as the report names them.
const HOOKS: [&str; 2] = ["clsact", "xdp-generic"];
/// The number of connections that complete on each interface; one more is refused on loopback.
const CONNECTIONS: u64 = 5;
/// The interface that appears while the agent runs.
const APPEARS: &str = "hs0";
/// The capabilities that are left where clsact may have to be removed, and those that are left elsewhere.
const NET_ADMIN: &str = "CapPrm:\t0000000000001000";
const NOTHING: &str = "CapPrm:\t0000000000000000";
/// The kernel side's line under -vv about the ACK that completes a handshake, in part.
const EXPLAINED: &str = "SYN-RECEIVED      -> ESTABLISHED";
/// What is said of the evidence of the one attempt that was refused.
const SAVED: &str = "evidence: 1\n";

/// Test handshake on the oldest kernel that it supports and on the newest, in emulated machines
#[derive(clap::Args)]
pub(crate) struct Args {
    /// First install QEMU and busybox, and download Debian's kernels
    #[arg(long)]
    setup: bool,
    /// Run the demo's scenario on each hook of each kernel, and connections over other links
    #[arg(long)]
    all: bool,
    /// Of all kernels only those of this architecture
    #[arg(long, value_enum, requires = "all")]
    arch: Option<Architecture>,
    /// Of all kernels only the one of this version
    #[arg(long, value_name = "VERSION", requires = "all")]
    kernel: Option<String>,
    /// Write what was tried into the table of docs/kernels.md
    #[arg(long, requires = "all")]
    table: bool,
    /// Keep the two newest kernels under traffic for so many minutes, and watch the agent's memory
    #[arg(long, value_name = "MINUTES", num_args = 0..=1, default_missing_value = "30", conflicts_with = "all")]
    soak: Option<u64>,
    /// Show the machine's whole console
    #[arg(long)]
    console: bool,
}

/// Runs the verb.
pub(crate) fn run(args: &Args) -> Result<()> {
    if args.setup {
        packages::install_for_kernels()?;
    }
    if args.all {
        return tries::run(args);
    }
    if let Some(minutes) = args.soak {
        return soak::run(minutes, args);
    }
    if args.setup {
        setup()?;
        tries::fetch_newest()?;
    }
    let parts = match MachineParts::find() {
        Ok(parts) => parts,
        Err(missing) => {
            println!("skipped: needs {missing}: `cargo xtask kernels --setup` installs it");
            return Ok(());
        }
    };
    let handshake = run::build(false)?;
    let initramfs = folder().join("initramfs");
    parts.pack(&handshake)?.write(&initramfs)?;
    let console = boot(&parts.kernel, &initramfs, MEMORY, "")?;
    if args.console {
        println!("{console}");
    }
    judge(&console)?;
    tries::run_newest(args.console)
}

/// Installs what is missing of an emulated machine.
pub(crate) fn setup() -> Result<()> {
    packages::install_for_kernels()?;
    if MachineParts::find().is_err() {
        fetch()?;
    }
    Ok(())
}

/// The folder of the kernel and the machine's files.
fn folder() -> PathBuf {
    shell::root().join("target/kernels")
}

/// Downloads and unpacks Debian's kernel. It is not installed: this machine keeps its own.
fn fetch() -> Result<()> {
    let folder = folder();
    fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
    shell::run(&mut shell::line(&packages::apt_get("update")))?;
    let line = format!(
        "cd {} && rm -rf *.deb unpacked && name=$(apt-cache depends {LATEST} | sed -n 's/.*Depends: //p') && \
         apt-get download $name && dpkg-deb -x $name*.deb unpacked",
        folder.display()
    );
    shell::run(&mut shell::line(&line))
}

/// The parts of the emulated machine, beside handshake.
pub(crate) struct MachineParts {
    pub(crate) busybox: PathBuf,
    pub(crate) kernel: PathBuf,
    pub(crate) modules: Vec<PathBuf>,
}

impl MachineParts {
    /// Finds all parts, or returns the name of the first missing one.
    pub(crate) fn find() -> Result<Self, String> {
        let program = |name: &str| shell::find(name).ok_or_else(|| name.to_owned());
        program(emulator(Architecture::Amd64).0)?;
        let unpacked = folder().join("unpacked");
        let file = |folder: &str, name: &str| {
            let path = find_below(&unpacked.join(folder), name);
            path.ok_or_else(|| format!("Debian's kernel ({name})"))
        };
        let modules = MODULES.into_iter().map(|name| file("lib", name)).collect::<Result<_, _>>()?;
        Ok(Self { busybox: program(BUSYBOX)?, kernel: file("boot", "vmlinuz")?, modules })
    }

    /// The kernel's release, which the folder of its modules has as its name.
    pub(crate) fn release(&self) -> Result<&str> {
        let names = self.modules.iter().flat_map(|path| path.iter()).skip_while(|name| *name != "modules");
        names.skip(1).find_map(|name| name.to_str()).context("the folder of the modules names no release")
    }

    /// Packs the files that the machine boots with.
    fn pack(&self, handshake: &Path) -> Result<Initramfs> {
        let mut files = Initramfs::new();
        files.add("init", 0o755, INIT.as_bytes());
        files.copy(&self.busybox, "bin/busybox")?;
        for applet in APPLETS {
            files.link(&format!("bin/{applet}"), "busybox");
        }
        files.copy(handshake, "bin/handshake")?;
        for library in libraries(handshake)? {
            files.copy(&library, &library.to_string_lossy())?;
        }
        for (module, name) in self.modules.iter().zip(MODULES) {
            files.copy(module, name)?;
        }
        Ok(files)
    }
}

/// The first file below a folder whose name begins with `name`.
fn find_below(folder: &Path, name: &str) -> Option<PathBuf> {
    let entries = fs::read_dir(folder).ok()?.flatten();
    entries.map(|entry| entry.path()).find_map(|path| {
        if path.is_dir() {
            return find_below(&path, name);
        }
        path.file_name()?.to_str()?.starts_with(name).then_some(path)
    })
}

/// The shared libraries that a program is linked with.
fn libraries(program: &Path) -> Result<Vec<PathBuf>> {
    let listed = shell::output(Command::new("ldd").arg(program)).context("ask ldd for the libraries")?;
    Ok(listed.split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from).collect())
}

/// The emulator of an architecture, its machine and processor, and the name of the machine's console.
fn emulator(architecture: Architecture) -> (&'static str, [&'static str; 2], &'static str) {
    match architecture {
        Architecture::Amd64 => ("qemu-system-x86_64", ["q35", "max"], "ttyS0"),
        // Pointer authentication by QEMU's own algorithm: Arm's takes most of the time.
        Architecture::Arm64 => ("qemu-system-aarch64", ["virt", "max,pauth-impdef=on"], "ttyAMA0"),
    }
}

/// Boots a machine of this architecture's with one CPU and so many MiB; returns its console output until it
/// powers off.
pub(crate) fn boot(kernel: &Path, initramfs: &Path, memory: &str, arguments: &str) -> Result<String> {
    boot_on(Architecture::Amd64, (kernel, initramfs), memory, arguments, TIMEOUT_S)
}

/// [`boot`] on an architecture, for so many seconds at most.
fn boot_on(
    architecture: Architecture,
    (kernel, initramfs): (&Path, &Path),
    memory: &str,
    arguments: &str,
    limit_s: u64,
) -> Result<String> {
    let (emulator, [machine, processor], console) = emulator(architecture);
    let mut command = Command::new("timeout");
    command.arg(limit_s.to_string()).args([emulator, "-machine", machine, "-cpu", processor, "-m", memory]);
    command.args(["-nographic", "-no-reboot", "-nic", "none"]).arg("-kernel").arg(kernel);
    command.arg("-initrd").arg(initramfs);
    let silent = "quiet loglevel=0 panic=-1 mitigations=off";
    command.args(["-append", &format!("console={console} {silent} {arguments}")]);
    eprintln!("$ {emulator} -kernel {} …", kernel.display());
    let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output().context("start QEMU")?;
    let console = String::from_utf8_lossy(&output.stdout).replace('\r', "");
    ensure!(
        output.status.success(),
        "the machine did not power off by itself ({}):\n{console}",
        output.status
    );
    Ok(console)
}

/// Checks what the console shows of each hook and each circumstance.
fn judge(console: &str) -> Result<()> {
    let kernel = between(console, "kernel ", "\n").context("the machine did not boot")?;
    for hook in HOOKS {
        let said = part(console, hook)?;
        judge_hook(hook, said).with_context(|| format!("{hook} on Linux {kernel}:\n{said}"))?;
        println!(
            "Linux {kernel}: {hook} attached, {CONNECTIONS} connections completed and 1 refused; \
             {CONNECTIONS} completed on an interface that appeared"
        );
        println!("  instructions verified, of a million at most: {}", verified(said));
    }
    let said = part(console, "79 MiB")?;
    judge_squeezed(said).with_context(|| format!("in 79 MiB on Linux {kernel}:\n{said}"))?;
    println!("Linux {kernel}: an interface that appeared was attached to without a privilege");
    println!("Linux {kernel}: 79 MiB of a control group: {}", squeezed(said));
    let said = part(console, "--process")?;
    judge_processes(said).with_context(|| format!("--process on Linux {kernel}:\n{said}"))?;
    println!("Linux {kernel}: both ends of {CONNECTIONS} connections have their processes");
    println!("  instructions verified, of a million at most: {}", verified(said));
    for hook in HOOKS {
        let said = part(console, &format!("-vv {hook}"))?;
        let is_right = said.contains(EXPLAINED) && said.contains(SAVED);
        ensure!(is_right, "{hook} with -vv and --evidence on Linux {kernel}:\n{said}");
        println!("Linux {kernel}: {hook} explains a handshake with -vv, and saves the one that failed");
        println!("  instructions verified, of a million at most: {}", verified(said));
    }
    Ok(())
}

/// The numbers of instructions that the verifier processed, one per program.
fn verified(said: &str) -> String {
    let numbers = said.lines().filter_map(|line| line.split_once("verified_insns:"));
    numbers.map(|(_, number)| number.trim().to_owned()).collect::<Vec<_>>().join(", ")
}

fn judge_hook(hook: &str, said: &str) -> Result<()> {
    let report = ended_well(said, NET_ADMIN)?;
    attached_to(&report, 0, hook)?;
    attached_to(&report, 1, hook)?;
    counted(&report, 2 * CONNECTIONS, 1)
}

/// The defaults are refused with the figure, and what is said to fit runs. Only XDP is there: its links are
/// made by anyone who holds a program, without a capability.
fn judge_squeezed(said: &str) -> Result<()> {
    let refused = said.lines().find(|line| line.starts_with("refused: exit 4: "));
    let group = "MiB are free in the control group /small: --max-flows ";
    ensure!(refused.is_some_and(|line| line.contains(group)), "the defaults were not refused");
    ensure!(said.contains("oom_kill 0\n"), "it was killed");
    let report = ended_well(said, NOTHING)?;
    attached_to(&report, 1, "xdp-generic")?;
    counted(&report, CONNECTIONS, 0)
}

/// Each connection has the process of its client, and that of the server, which is one.
fn judge_processes(said: &str) -> Result<()> {
    let report = ended_well(said, NET_ADMIN)?;
    counted(&report, CONNECTIONS, 0)?;
    let flows = report["flows"].as_array().context("no flows")?;
    let number = |end: &Value| end["owner"]["pid"].as_u64().with_context(|| format!("no process: {end}"));
    let clients: BTreeSet<u64> =
        flows.iter().map(|flow| number(&flow["initiator"])).collect::<Result<_>>()?;
    let servers: BTreeSet<u64> =
        flows.iter().map(|flow| number(&flow["responder"])).collect::<Result<_>>()?;
    ensure!((clients.len() as u64, servers.len()) == (CONNECTIONS, 1), "{clients:?}, {servers:?}");
    let names =
        flows.iter().map(|flow| ["initiator", "responder"].map(|end| flow[end]["owner"]["comm"].as_str()));
    ensure!(names.into_iter().all(|names| names == [Some("wget"), Some("httpd")]), "{flows:?}");
    Ok(())
}

/// What was said to fit, and the most that was taken.
fn squeezed(said: &str) -> String {
    let word = |mark: &str, end| between(said, mark, end).unwrap_or("?");
    format!("--max-flows {} takes {} bytes at most", word("--max-flows ", " "), word("peak ", ","))
}

/// The report of an agent that had these capabilities while it ran, and no other privilege.
fn ended_well(said: &str, capabilities: &str) -> Result<Value> {
    let line = said.lines().find(|line| line.starts_with('{')).context("no report")?;
    let report: Value = serde_json::from_str(line).context("the report is not JSON")?;
    ensure!(report["exact"] == true, "the report is inexact");
    for line in [capabilities, "Uid:\t65534\t65534", "NoNewPrivs:\t1", "Seccomp:\t2"] {
        ensure!(said.contains(line), "no {line:?}: privileges are not as they should be");
    }
    ensure!(said.contains("exit 0\n"), "handshake did not end with 0");
    Ok(report)
}

/// Loopback is interface 0, and what appeared is interface 1.
fn attached_to(report: &Value, place: usize, hook: &str) -> Result<()> {
    let interface = &report["source"]["interfaces"][place];
    let name = ["lo", APPEARS][place];
    ensure!(interface["name"] == name && interface["ingress"] == hook, "not {hook} on {name}: {interface}");
    Ok(())
}

fn counted(report: &Value, completed: u64, refused: u64) -> Result<()> {
    let counts = ["attempts", "completed", "refused"].map(|name| report["tcp"][name].as_u64());
    let expected = [completed + refused, completed, refused].map(Some);
    ensure!(counts == expected, "attempts, completed, refused: {counts:?} instead of {expected:?}");
    Ok(())
}

/// What the console shows between the marks of a name.
pub(crate) fn part<'a>(console: &'a str, name: &str) -> Result<&'a str> {
    between(console, &format!("<{name}>\n"), &format!("</{name}>"))
        .with_context(|| format!("no output of {name}:\n{console}"))
}

/// The text between two marks.
fn between<'a>(text: &'a str, first: &str, second: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(first)?;
    rest.split_once(second).map(|(found, _)| found)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A console on which all is well but for the hook of the second interface and what completed there.
    fn console(hook: &str, completed: u64) -> String {
        let report = |first: &str, second: &str, completed: u64, refused: u64| {
            format!(
                "{{\"source\":{{\"interfaces\":[{{\"name\":\"lo\",\"ingress\":\"{first}\"}},\
                 {{\"name\":\"hs0\",\"ingress\":\"{second}\"}}]}},\"exact\":true,\
                 \"tcp\":{{\"attempts\":{},\"completed\":{completed},\"refused\":{refused}}}}}\n",
                completed + refused
            )
        };
        let status =
            |capabilities| format!("Uid:\t65534\t65534\n{capabilities}\nNoNewPrivs:\t1\nSeccomp:\t2\n");
        let part = |name: &str, capabilities, report: String| {
            format!("<{name}>\n{}attached lo\n{report}exit 0\noom_kill 0\n</{name}>\n", status(capabilities))
        };
        let explained =
            |hook| format!("<-vv {hook}>\nverified_insns: 7\n{EXPLAINED}\n{SAVED}</-vv {hook}>\n");
        let flow = |client: u64| {
            format!(
                "{{\"initiator\":{{\"owner\":{{\"pid\":{client},\"comm\":\"wget\"}}}},\
                 \"responder\":{{\"owner\":{{\"pid\":70,\"comm\":\"httpd\"}}}}}}"
            )
        };
        let flows = format!("{{\"flows\":[{}],", [81, 82, 83, 84, 85].map(flow).join(","));
        let named = report("clsact", "clsact", 5, 0).replacen('{', &flows, 1);
        let refused = "refused: exit 4: 3 MiB are free in the control group /small: --max-flows 9 fits\n";
        let parts = [
            part("clsact", NET_ADMIN, report("clsact", hook, completed, 1)),
            part("xdp-generic", NET_ADMIN, report("xdp-generic", "xdp-generic", 10, 1)),
            part("79 MiB", NOTHING, format!("{refused}{}", report("xdp-generic", "xdp-generic", 5, 0))),
            part("--process", NET_ADMIN, named),
            explained("clsact"),
            explained("xdp-generic"),
        ];
        format!("kernel 6.1.0\n{}", parts.concat())
    }

    #[test]
    fn missing_and_wrong_reports_are_errors() {
        let judged = |console: &str| judge(console).expect_err("a wrong console").to_string();
        assert!(judged("").contains("did not boot"));
        assert!(judged("kernel 6.1.0\nno more").contains("no output of clsact"));
        assert!(judged(&console("clsact", 4)).contains("clsact on Linux 6.1.0"));
        assert!(judged(&console("tcx", 10)).contains("clsact on Linux 6.1.0"));
        let good = console("clsact", 10);
        judge(&good).expect("all is well");
        let privileged = good.replace(NOTHING, NET_ADMIN);
        assert!(judged(&privileged).contains("in 79 MiB on Linux 6.1.0"));
        let killed = good.replace("oom_kill 0\n</79", "oom_kill 1\n</79");
        assert!(judged(&killed).contains("in 79 MiB on Linux 6.1.0"));
        assert!(judged(&good.replace("exit 4", "exit 0")).contains("in 79 MiB on Linux 6.1.0"));
        for (known, wrong) in [("\"pid\":83", "\"pid\":82"), ("\"pid\":83,", ""), ("httpd", "wget")] {
            let text = judged(&good.replacen(known, wrong, 1));
            assert!(text.contains("--process on Linux 6.1.0"), "{wrong}: {text}");
        }
    }
}
