//! The capabilities that this process has and needs.

use std::fs;

use crate::error::Error;

/// A capability, with its name and its bit in `CapEff`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capability {
    /// Its name as in capabilities(7).
    pub name: &'static str,
    bit: u32,
}

/// Needed to load programs and create maps.
pub const BPF: Capability = Capability { name: "CAP_BPF", bit: 39 };
/// Needed to load *these* programs. Without it the verifier guards against speculation and refuses the code
/// that the compiler generates for a slice or a cleared structure ("pointer arithmetic with it prohibited for
/// !root", seen on 6.18).
pub const PERFMON: Capability = Capability { name: "CAP_PERFMON", bit: 38 };
/// Needed to attach programs to interfaces.
pub const NET_ADMIN: Capability = Capability { name: "CAP_NET_ADMIN", bit: 12 };
/// Needed to hold an interface in promiscuous mode, through a packet socket.
pub const NET_RAW: Capability = Capability { name: "CAP_NET_RAW", bit: 13 };
/// Needed to remove capabilities from a command permanently.
pub const SETPCAP: Capability = Capability { name: "CAP_SETPCAP", bit: 8 };
/// Needed to read the names of other processes' programs, and their owners.
pub const SYS_ADMIN: Capability = Capability { name: "CAP_SYS_ADMIN", bit: 21 };

/// Needed to look into the processes of other users.
pub const SYS_PTRACE: Capability = Capability { name: "CAP_SYS_PTRACE", bit: 19 };

/// The capabilities of a thread, as far as the kernel's BPF checks them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    effective: u64,
    /// Whether the process is in a user namespace: its capabilities end there, and BPF checks for those of
    /// the machine.
    pub in_user_namespace: bool,
}

impl Capabilities {
    /// Reads the capabilities of this thread. One that cannot be read counts as missing.
    pub fn of_this_thread() -> Self {
        let status = fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
        let uid_map = fs::read_to_string("/proc/thread-self/uid_map").unwrap_or_default();
        Self::parse(&status, &uid_map)
    }

    /// Parses the contents of `/proc/PID/status` and `/proc/PID/uid_map`.
    pub fn parse(status: &str, uid_map: &str) -> Self {
        let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
        let effective = effective.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
        // The initial user namespace, and by default no other, maps all ids onto themselves.
        let whole = uid_map.split_whitespace().eq(["0", "0", "4294967295"]);
        Self { effective, in_user_namespace: !whole && !uid_map.is_empty() }
    }

    /// Whether this capability is present. CAP_SYS_ADMIN stands for CAP_BPF and CAP_PERFMON, as in the
    /// kernel's `bpf_capable` and `perfmon_capable`.
    pub fn has(self, capability: Capability) -> bool {
        let bit = |c: Capability| self.effective >> c.bit & 1 == 1;
        bit(capability) || ((capability == BPF || capability == PERFMON) && bit(SYS_ADMIN))
    }

    /// The needed capabilities that are missing: three are always needed, and CAP_NET_RAW for `--promisc`.
    pub fn missing(self, promisc: bool) -> Vec<Capability> {
        let needed = [BPF, PERFMON, NET_ADMIN].into_iter().chain(promisc.then_some(NET_RAW));
        needed.filter(|capability| !self.has(*capability)).collect()
    }

    /// Checks that no needed capability is missing.
    ///
    /// # Errors
    ///
    /// [`Error::Permission`] with the command that grants what is missing.
    pub fn require(self, promisc: bool) -> Result<(), Error> {
        let missing = self.missing(promisc);
        if !missing.is_empty() {
            let missing = missing.iter().map(|c| c.name.to_owned()).collect();
            return Err(Error::Permission { missing, fix: fix(promisc), kernel: None });
        }
        if self.in_user_namespace {
            return Err(Error::Permission {
                missing: vec!["the machine's own capabilities (this is a user namespace)".into()],
                fix: "run handshake outside the container, or in a privileged one".into(),
                kernel: None,
            });
        }
        Ok(())
    }
}

/// The command that gives this program the capabilities it needs.
pub fn fix(promisc: bool) -> String {
    let program = std::env::current_exe().unwrap_or_else(|_| "handshake".into());
    let raw = if promisc { ",cap_net_raw" } else { "" };
    format!(
        "run it with sudo, or once: sudo setcap cap_bpf,cap_perfmon,cap_net_admin{raw}+ep {}",
        program.display()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: &str = "         0          0 4294967295\n";

    #[test]
    fn missing_capabilities_by_mask() {
        let status = |mask: u64| format!("Name:\thandshake\nCapEff:\t{mask:016x}\n");
        let (bpf, perfmon, net_admin, sys_admin) = (1 << 39, 1 << 38, 1 << 12, 1 << 21);
        let table: [(u64, bool, &[&str]); 7] = [
            (0, false, &["CAP_BPF", "CAP_PERFMON", "CAP_NET_ADMIN"]),
            (bpf, false, &["CAP_PERFMON", "CAP_NET_ADMIN"]),
            (bpf | net_admin, false, &["CAP_PERFMON"]),
            (bpf | perfmon | net_admin, false, &[]),
            (bpf | perfmon | net_admin, true, &["CAP_NET_RAW"]),
            (sys_admin | net_admin, false, &[]),
            (sys_admin, false, &["CAP_NET_ADMIN"]),
        ];
        for (mask, promisc, expected) in table {
            let missing = Capabilities::parse(&status(mask), WHOLE).missing(promisc);
            assert_eq!(missing.iter().map(|c| c.name).collect::<Vec<_>>(), expected, "{mask:x}");
        }
    }

    #[test]
    fn a_user_namespace_is_recognised() {
        let status = format!("CapEff:\t{:016x}\n", u64::MAX);
        assert!(Capabilities::parse(&status, WHOLE).require(true).is_ok());
        let error =
            Capabilities::parse(&status, "0 1000 1\n").require(false).expect_err("capabilities end there");
        assert!(matches!(error, Error::Permission { .. }));
    }
}
