//! Network namespaces that are removed on drop, and commands that run inside them.

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};
use std::{process, thread};

use anyhow::{Context, Result};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use socket2::{Domain, Protocol, Socket, Type};

use crate::process::{run, run_with_input};

/// The folder where iproute2 keeps the names.
const NAMES: &str = "/var/run/netns";
/// The prefix of the lab's namespaces; the process ID and a number follow.
const PREFIX: &str = "hs-lab-";

/// Settings of every namespace, so that only the scenario's traffic is on the wire.
const QUIET: [(&str, &str); 8] = [
    // No link-local address, hence no router solicitation; no duplicate address detection.
    ("net.ipv6.conf.default.addr_gen_mode", "1"),
    ("net.ipv6.conf.default.router_solicitations", "0"),
    ("net.ipv6.conf.default.accept_ra", "0"),
    ("net.ipv6.conf.default.accept_dad", "0"),
    // The kernel reports joining the solicited-node group twice and at once; a topology waits for both
    // reports.
    ("net.ipv6.conf.default.mldv2_unsolicited_report_interval", "1"),
    // No limit on the rate of ICMP errors.
    ("net.ipv4.icmp_ratelimit", "0"),
    ("net.ipv4.icmp_ratemask", "0"),
    ("net.ipv6.icmp.ratelimit", "0"),
];

/// A network namespace. Removed on drop, with everything in it.
#[derive(Debug)]
pub struct Namespace {
    name: String,
    handle: File,
}

impl Namespace {
    /// Creates a namespace with `lo` up and the quiet settings. The first call of a process removes what dead
    /// processes left behind.
    ///
    /// # Errors
    /// Without CAP_SYS_ADMIN, or without iproute2.
    pub fn new() -> Result<Self> {
        static SWEEP: Once = Once::new();
        static NEXT: AtomicU32 = AtomicU32::new(0);
        SWEEP.call_once(sweep);
        let name = format!("{PREFIX}{}-{}", process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        run(Command::new("ip").args(["netns", "add", &name]))?;
        let opened = File::open(Path::new(NAMES).join(&name));
        let handle = opened.inspect_err(|_| remove(&name)).with_context(|| format!("open {name}"))?;
        let namespace = Self { name, handle };
        for (key, value) in QUIET {
            namespace.sysctl(key, value)?;
        }
        namespace.ip(&["link set lo up"])?;
        Ok(namespace)
    }

    /// The name, as `ip netns` lists it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The path by which the namespace can be entered.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        Path::new(NAMES).join(&self.name)
    }

    /// Runs `work` on a thread inside the namespace. What it opens (sockets, links of programs) stays inside
    /// and can be used from any thread.
    ///
    /// # Errors
    /// The errors of `work`, and of entering.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        thread::scope(|scope| {
            let inside = scope.spawn(|| {
                self.join_this_thread()?;
                work()
            });
            inside.join().unwrap_or_else(|panic| resume_unwind(panic))
        })
    }

    fn join_this_thread(&self) -> Result<()> {
        move_into_link_name_space(self.handle.as_fd(), Some(LinkNameSpaceType::Network))
            .with_context(|| format!("enter {}", self.name))
    }

    /// Opens a socket inside.
    ///
    /// # Errors
    /// Of `socket(2)`.
    pub fn socket(&self, domain: Domain, kind: Type, protocol: Option<Protocol>) -> Result<Socket> {
        self.enter(|| Socket::new(domain, kind, protocol).context("open a socket"))
    }

    /// A command for `program` inside, not started yet. It uses nsenter: `ip netns exec` would mount another
    /// /sys and hide bpffs.
    #[must_use]
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.path().display())).arg("--").arg(program);
        command
    }

    /// Runs `program` inside and returns its standard output.
    ///
    /// # Errors
    /// The program cannot be started, or fails.
    pub fn run(&self, program: &str, arguments: &[&str]) -> Result<String> {
        run(self.command(program).args(arguments))
    }

    /// Runs `lines` as one batch of iproute2 inside: `link set eth0 up` and the like.
    ///
    /// # Errors
    /// iproute2 refuses a line; the lines after it are not run.
    pub fn ip(&self, lines: &[&str]) -> Result<()> {
        let mut command = Command::new("ip");
        command.args(["-n", &self.name, "-batch", "-"]);
        run_with_input(&mut command, &(lines.join("\n") + "\n")).map(|_| ())
    }

    /// Runs one `tc` command inside.
    ///
    /// # Errors
    /// tc refuses it.
    pub fn tc(&self, line: &str) -> Result<()> {
        let mut command = Command::new("tc");
        run(command.args(["-n", &self.name]).args(line.split_whitespace())).map(|_| ())
    }

    /// Switches an offload of a device (`tso`, `gro`, `txvlan` …) on or off.
    ///
    /// # Errors
    /// The device or the feature does not exist, or cannot be changed.
    pub fn offload(&self, device: &str, feature: &str, on: bool) -> Result<()> {
        self.run("ethtool", &["-K", device, feature, if on { "on" } else { "off" }]).map(|_| ())
    }

    /// Sets a sysctl of the namespace by its dotted name.
    ///
    /// # Errors
    /// There is no such sysctl, or the value is refused.
    pub fn sysctl(&self, key: &str, value: &str) -> Result<()> {
        let path = format!("/proc/sys/{}", key.replace('.', "/"));
        self.enter(|| fs::write(&path, value).with_context(|| format!("set {key} to {value}")))
    }

    /// Disables IPv6 on every device, including those made later.
    ///
    /// # Errors
    /// As [`Namespace::sysctl`].
    pub fn disable_ipv6(&self) -> Result<()> {
        self.sysctl("net.ipv6.conf.default.disable_ipv6", "1")?;
        self.sysctl("net.ipv6.conf.all.disable_ipv6", "1")
    }

    /// Sets how often the kernel retransmits a SYN before it gives up: after 1 s, 3 s, 7 s …
    ///
    /// # Errors
    /// As [`Namespace::sysctl`].
    pub fn syn_retries(&self, times: u8) -> Result<()> {
        self.sysctl("net.ipv4.tcp_syn_retries", &times.to_string())?;
        // Linux 6.5 and newer send the first retransmissions one second apart, in addition to those; older
        // kernels lack this setting.
        let linear = Path::new("/proc/sys/net/ipv4/tcp_syn_linear_timeouts");
        if linear.exists() { self.sysctl("net.ipv4.tcp_syn_linear_timeouts", "0") } else { Ok(()) }
    }

    /// Enables forwarding for both families.
    ///
    /// # Errors
    /// As [`Namespace::sysctl`].
    pub fn forward(&self) -> Result<()> {
        self.sysctl("net.ipv4.ip_forward", "1")?;
        // Otherwise the router sends redirects where two of the hosts share a segment.
        self.sysctl("net.ipv4.conf.all.send_redirects", "0")?;
        self.sysctl("net.ipv6.conf.all.forwarding", "1")
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        remove(&self.name);
    }
}

/// Removes the namespaces of processes that no longer exist: a killed process does not run its drops.
fn sweep() {
    for entry in fs::read_dir(NAMES).into_iter().flatten().flatten() {
        let name = entry.file_name();
        if let Some(name) = name.to_str().filter(|name| is_stale(name)) {
            remove(name);
        }
    }
}

fn is_stale(name: &str) -> bool {
    let owner = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next());
    owner.is_some_and(|pid| pid.parse::<u32>().is_ok() && !Path::new("/proc").join(pid).exists())
}

fn remove(name: &str) {
    if let Err(error) = run(Command::new("ip").args(["netns", "del", name])) {
        eprintln!("cannot remove the namespace {name}: {error:#}");
    }
}

#[cfg(test)]
mod tests {
    use super::is_stale;

    #[test]
    fn only_names_of_dead_processes_are_stale() {
        assert!(is_stale("hs-lab-4194305-0"), "no process has a number past PID_MAX_LIMIT");
        assert!(!is_stale(&format!("hs-lab-{}-0", std::process::id())));
        for other in ["hs-lab-x-0", "hs-4194305-0", "blue", "hs-lab-"] {
            assert!(!is_stale(other), "{other} is not the lab's");
        }
    }
}
