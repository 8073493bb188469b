//! Which process has a socket, by `/proc/PID/fd`, and its control group. It is read before privileges are given
//! up.

use std::collections::HashMap;
use std::fmt;
use std::fs;
use std::path::Path;

/// A process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Its number.
    pub pid: u32,
    /// The name of its command, of 15 bytes at most. It is chosen by the process.
    pub command: String,
    /// The path of its group in the tree of cgroup v2.
    pub cgroup: Option<String>,
}

/// `NAME[PID]`.
impl fmt::Display for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}[{}]", self.command, self.pid)
    }
}

/// The processes that had a socket open at one moment.
#[derive(Clone, Debug, Default)]
pub struct Processes(HashMap<u32, Process>);

impl Processes {
    /// Looks for the owners of these sockets; those of other users' processes are found as root alone.
    #[must_use]
    pub fn of(inodes: &[u32]) -> Self {
        let mut found = HashMap::new();
        let Ok(all) = fs::read_dir("/proc") else { return Self(found) };
        for entry in all.flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            let Ok(open) = fs::read_dir(entry.path().join("fd")) else { continue };
            let sockets = open.flatten().filter_map(|file| socket_inode(&fs::read_link(file.path()).ok()?));
            for socket in sockets.filter(|socket| inodes.contains(socket)) {
                found.entry(socket).or_insert_with(|| process(pid, &entry.path()));
            }
        }
        Self(found)
    }

    /// A process that has the socket.
    #[must_use]
    pub fn owner(&self, inode: u32) -> Option<&Process> {
        self.0.get(&inode)
    }
}

/// The inode in `socket:[7]`.
fn socket_inode(link: &Path) -> Option<u32> {
    link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

fn process(pid: u32, folder: &Path) -> Process {
    let read = |file: &str| fs::read(folder.join(file)).unwrap_or_default();
    let text = |file: &str| String::from_utf8_lossy(&read(file)).into_owned();
    let command = text("comm").trim_end_matches('\n').to_owned();
    Process { pid, command, cgroup: cgroup(&text("cgroup")) }
}

/// The path in the tree of cgroup v2, which has the number 0 and no controllers (cgroups(7)).
fn cgroup(groups: &str) -> Option<String> {
    let path = groups.lines().find_map(|line| line.strip_prefix("0::"))?;
    Some(path.strip_suffix(" (deleted)").unwrap_or(path).to_owned())
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::os::fd::AsRawFd as _;

    use super::*;

    #[test]
    fn the_owner_of_a_socket_is_found() {
        let socket = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let link = fs::read_link(format!("/proc/self/fd/{}", socket.as_raw_fd())).expect("it is open");
        let inode = socket_inode(&link).expect("it is a socket");
        let processes = Processes::of(&[inode]);
        let owner = processes.owner(inode).expect("it is ours");
        assert_eq!(owner.pid, std::process::id());
        let command = fs::read_to_string("/proc/self/comm").expect("it can be read");
        assert_eq!(owner.to_string(), format!("{}[{}]", command.trim_end(), owner.pid));
        let groups = fs::read_to_string("/proc/self/cgroup").expect("it can be read");
        assert!(groups.contains(&format!("0::{}\n", owner.cgroup.as_deref().expect("cgroup v2 is mounted"))));
        assert!(processes.owner(0).is_none());
    }

    #[test]
    fn the_group_of_cgroup_v2_is_read() {
        let hybrid = "9:name=systemd:/a\n4:memory:/b\n0::/system.slice/nginx.service\n";
        assert_eq!(cgroup(hybrid).as_deref(), Some("/system.slice/nginx.service"));
        assert_eq!(cgroup("0::/gone.scope (deleted)\n").as_deref(), Some("/gone.scope"));
        assert_eq!(cgroup("4:memory:/b\n"), None);
    }
}
