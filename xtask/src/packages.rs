//! The Debian packages that the suite uses, each with its reason.

use anyhow::{Result, bail};

use crate::shell;

/// Packages for `cargo xtask test`, each with its use.
const PACKAGES: [(&str, &str); 19] = [
    ("bpftool", "tests compare the kernel's data on programs and maps with handshake's"),
    ("curl", "a client that was not written for these tests"),
    ("ethtool", "counts the frames that reached a veth, switches offloads"),
    ("haproxy", "a proxy that answers in the place of a server"),
    ("iproute2", "network namespaces, veth pairs, foreign programs on a hook"),
    ("iptables", "rules of nftables as iptables-nft writes them"),
    ("libcap2-bin", "setcap gives a file capabilities"),
    ("libfaketime", "sets the wall clock of one process"),
    ("netcat-openbsd", "sends one connection or one datagram"),
    ("nftables", "faults of a firewall"),
    ("prometheus", "reads what a service exports, and promtool checks it"),
    ("procps", "sets a namespace's limits by sysctl"),
    ("prometheus-node-exporter", "reads the file of a service's metrics"),
    ("python3", "the server that the examples load, DuckDB, and a second opinion on schemas"),
    ("tcpdump", "counts the packets of a connection independently"),
    ("tmux", "the live view on a terminal that a test can read"),
    ("tshark", "a second opinion on captures"),
    ("util-linux", "nsenter enters a namespace without hiding bpffs, setpriv drops capabilities"),
    ("wrk", "the load generator of an example"),
];

/// Additional packages for `cargo xtask kernels`.
const FOR_KERNELS: [(&str, &str); 6] = [
    ("busybox-static", "the emulated machine's programs in one file"),
    ("iproute2", "namespaces in the emulated machine"),
    ("qemu-system-arm", "the emulated machine of arm64"),
    ("qemu-system-x86", "the emulated machine with the oldest kernel"),
    ("wireguard-tools", "keys of a tunnel in the emulated machine"),
    ("xz-utils", "unpacks modules"),
];

/// Packages for `cargo xtask package`.
const FOR_PACKAGE: [(&str, &str); 2] =
    [("dpkg", "makes the Debian package"), ("libc6-dev", "the C library, to be linked into the program")];

/// Additional packages for `cargo xtask package --arch arm64`.
const FOR_ARM64: [(&str, &str); 2] = [
    ("gcc-aarch64-linux-gnu", "links the program"),
    ("libc6-dev-arm64-cross", "the C library, to be linked into the program"),
];

/// Additional packages for `cargo xtask package --prove`, beside those of `kernels`.
const FOR_PROOF: [(&str, &str); 5] = [
    ("cpio", "packs Debian's files for the emulated machine"),
    ("lintian", "what Debian demands of a package"),
    ("mmdebstrap", "unpacks a Debian with systemd"),
    ("podman", "the engine that runs the image"),
    ("runc", "the runtime that runs it, below podman and alone"),
];

/// Packages for `cargo xtask fleet`.
const FOR_FLEET: [(&str, &str); 3] = [
    ("curl", "asks Prometheus"),
    ("dpkg", "unpacks a server of ClickHouse"),
    ("prometheus", "scrapes the fleet, and evaluates the rules"),
];

/// An additional package for `--setup`, where Python has no pip.
const PIP: [(&str, &str); 1] =
    [("python3-pip", "installs programs that lint runs, and modules that tests import")];

/// An apt-get shell line that asks no questions, run as root.
pub(crate) fn apt_get(arguments: &str) -> String {
    format!("{}env DEBIAN_FRONTEND=noninteractive apt-get {arguments}", shell::sudo())
}

/// Installs the missing packages for `cargo xtask test`.
pub(crate) fn install() -> Result<()> {
    install_all(&PACKAGES)
}

/// Installs the missing packages for `cargo xtask kernels`.
pub(crate) fn install_for_kernels() -> Result<()> {
    install_all(&FOR_KERNELS)
}

/// Installs the missing packages for `cargo xtask package`.
pub(crate) fn install_for_package() -> Result<()> {
    install_all(&FOR_PACKAGE)
}

/// Installs the missing packages for `cargo xtask package --arch arm64`.
pub(crate) fn install_for_arm64() -> Result<()> {
    install_all(&FOR_ARM64)
}

/// Installs the missing packages for `cargo xtask package --prove`.
pub(crate) fn install_for_proof() -> Result<()> {
    install_all(&FOR_PROOF)
}

/// Installs the missing packages for `cargo xtask fleet`.
pub(crate) fn install_for_fleet() -> Result<()> {
    install_all(&FOR_FLEET)
}

/// Installs pip.
pub(crate) fn install_pip() -> Result<()> {
    install_all(&PIP)
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
        bail!("apt-get is missing: install the content of these Debian packages: {}", names.join(" "));
    }
    shell::run(&mut shell::line(&apt_get("update")))?;
    shell::run(&mut shell::line(&apt_get(&format!("install -y --no-install-recommends {}", names.join(" ")))))
}

/// Is the package installed according to dpkg? Without dpkg: no.
fn is_installed(package: &str) -> bool {
    let mut query = shell::pristine("dpkg-query");
    query.args(["--show", "--showformat=${Status}", package]);
    shell::output(&mut query).as_deref() == Some("install ok installed")
}
