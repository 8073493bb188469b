//! The Debian packages that the whole suite uses, each with its reason.

use anyhow::{Result, bail};

use crate::shell;

/// A package and what needs it.
const PACKAGES: [(&str, &str); 12] = [
    ("bpftool", "tests compare what the kernel says of programs and maps with what we say"),
    ("curl", "a client nobody wrote for these tests"),
    ("ethtool", "frames that reached a veth, offloads on and off"),
    ("iproute2", "network namespaces, veth pairs, foreign programs on a hook"),
    ("netcat-openbsd", "one connection, one datagram"),
    ("procps", "the limits of a namespace, by sysctl"),
    ("python3", "the server that the examples load"),
    ("tcpdump", "counts the packets of a connection beside us"),
    ("tmux", "the live view on a terminal that a test can read"),
    ("tshark", "a second opinion on captures"),
    ("util-linux", "nsenter and setpriv: into a namespace without hiding bpffs, and without capabilities"),
    ("wrk", "the load generator of an example"),
];

/// What `cargo xtask kernels` uses beside.
const FOR_KERNELS: [(&str, &str); 2] = [
    ("busybox-static", "all programs of the emulated machine in one file"),
    ("qemu-system-x86", "the emulated machine with the oldest kernel"),
];

/// What `cargo xtask lint --setup` uses beside, where Python has no pip yet.
const FOR_LINT: [(&str, &str); 1] = [("python3-pip", "fetches the released programs that lint runs")];

/// An apt-get line that asks no questions, as root.
pub(crate) fn apt_get(arguments: &str) -> String {
    format!("{}env DEBIAN_FRONTEND=noninteractive apt-get {arguments}", shell::sudo())
}

/// Installs what the suite uses and is not there yet.
pub(crate) fn install() -> Result<()> {
    install_all(&PACKAGES)
}

/// The same of what `cargo xtask kernels` uses.
pub(crate) fn install_for_kernels() -> Result<()> {
    install_all(&FOR_KERNELS)
}

/// The same of what `cargo xtask lint --setup` uses.
pub(crate) fn install_for_lint() -> Result<()> {
    install_all(&FOR_LINT)
}

fn install_all(packages: &[(&str, &str)]) -> Result<()> {
    let missing: Vec<_> = packages.iter().filter(|(name, _)| !is_installed(name)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    for (name, reason) in &missing {
        eprintln!("{name}: {reason}");
    }
    let names: Vec<&str> = missing.iter().map(|(name, _)| *name).collect();
    if shell::find("apt-get").is_none() {
        bail!("no apt-get here: install what these packages of Debian hold: {}", names.join(" "));
    }
    shell::run(&mut shell::line(&apt_get("update")))?;
    shell::run(&mut shell::line(&apt_get(&format!("install -y --no-install-recommends {}", names.join(" ")))))
}

/// Does dpkg know it as installed? No dpkg: no.
fn is_installed(package: &str) -> bool {
    let mut query = shell::pristine("dpkg-query");
    query.args(["--show", "--showformat=${Status}", package]);
    shell::output(&mut query).as_deref() == Some("install ok installed")
}
