//! Checks whether this process may create networks and load programs.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{env, fs, io};

/// The capabilities that the lab needs, by their number in `linux/capability.h`: for programs, links and
/// addresses, packet sockets, and namespaces with `setns`.
const NEEDED: [(u32, &str); 4] =
    [(39, "CAP_BPF"), (12, "CAP_NET_ADMIN"), (13, "CAP_NET_RAW"), (21, "CAP_SYS_ADMIN")];

/// True if a test that needs the lab must be skipped; prints the first missing capability.
#[must_use]
pub fn skip_unless_privileged() -> bool {
    missing().first().is_some_and(|name| skip(name))
}

/// True if a test must be skipped because `tool` is missing; prints so.
#[must_use]
pub fn skip_without_tool(tool: &str) -> bool {
    let folders = env::var_os("PATH").unwrap_or_default();
    let found = env::split_paths(&folders).any(|folder| folder.join(tool).is_file());
    !found && skip(tool)
}

/// Finds the shared library `name` of a package that is not linked to, such as
/// `faketime/libfaketimeMT.so.1`; without it, the test skips.
#[must_use]
pub fn library_or_skip(name: &str) -> Option<PathBuf> {
    // One folder per architecture, as Debian has it.
    let folders = fs::read_dir("/usr/lib").into_iter().flatten().flatten().map(|entry| entry.path());
    let found = folders.map(|folder| folder.join(name)).find(|path| path.is_file());
    if found.is_none() {
        skip(name);
    }
    found
}

/// True if a test must be skipped because `what` it needs was not found; prints so.
#[must_use]
pub fn skip_unless_found(found: bool, what: &str) -> bool {
    !found && skip(what)
}

/// The folder for PYTHONPATH where `cargo xtask test --setup` installs Python modules; `None` if python3 cannot
/// import `module` with it: the test skips.
#[must_use]
pub fn python_or_skip(module: &str) -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/python");
    let mut python = Command::new("python3");
    python.env("PYTHONPATH", &folder).args(["-c", &format!("import {module}")]).stderr(Stdio::null());
    let imports = python.status().is_ok_and(|status| status.success());
    if !imports {
        skip(&format!("python3 with {module} (cargo xtask test --setup)"));
    }
    imports.then_some(folder)
}

/// Prints what is missing on stderr and to the file that `HANDSHAKE_SKIP_LOG` names. Returns true, for the
/// callers above.
fn skip(missing: &str) -> bool {
    let line = format!("skipped: needs {missing}\n");
    // Not eprintln!: the test harness would capture it.
    let _ = io::stderr().write_all(line.as_bytes());
    if let Some(path) = env::var_os("HANDSHAKE_SKIP_LOG") {
        let log = fs::OpenOptions::new().append(true).create(true).open(path);
        let _ = log.and_then(|mut log| log.write_all(line.as_bytes()));
    }
    true
}

/// The capabilities that the lab needs and this process lacks.
#[must_use]
pub fn missing() -> Vec<&'static str> {
    let status = fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
    let effective = effective(&status);
    NEEDED.iter().filter(|(bit, _)| effective >> bit & 1 == 0).map(|(_, name)| *name).collect()
}

/// Parses the effective set in the text of `/proc/…/status`; empty if it is not there.
fn effective(status: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    line.and_then(|digits| u64::from_str_radix(digits.trim(), 16).ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::effective;

    #[test]
    fn the_effective_set_is_read_as_hexadecimal() {
        assert_eq!(effective("Name:\tx\nCapPrm:\t0f\nCapEff:\t0000008000001000\n"), 1 << 39 | 1 << 12);
        assert_eq!(effective("Name:\tx\n"), 0);
    }
}
