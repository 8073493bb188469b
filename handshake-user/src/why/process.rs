//! Which process has a socket, by `/proc/PID/fd`. It is read before privileges are given up.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

/// The processes that had a socket open at one moment.
#[derive(Clone, Debug, Default)]
pub(crate) struct Processes(HashMap<u32, String>);

impl Processes {
    /// Looks for the owners of these sockets; those of other users' processes are found as root alone.
    pub(crate) fn of(inodes: &[u32]) -> Self {
        let mut found = HashMap::new();
        let Ok(all) = fs::read_dir("/proc") else { return Self(found) };
        for entry in all.flatten() {
            let is_process = entry.file_name().to_str().is_some_and(|name| name.parse::<u32>().is_ok());
            let Some(open) = is_process.then(|| fs::read_dir(entry.path().join("fd")).ok()).flatten() else {
                continue;
            };
            let sockets = open.flatten().filter_map(|file| inode(&fs::read_link(file.path()).ok()?));
            for socket in sockets.filter(|socket| inodes.contains(socket)) {
                found.entry(socket).or_insert_with(|| name(&entry.path()));
            }
        }
        Self(found)
    }

    /// `NAME[PID]` of a process that has the socket.
    pub(crate) fn owner(&self, inode: u32) -> Option<&str> {
        self.0.get(&inode).map(String::as_str)
    }
}

/// The inode in `socket:[7]`.
fn inode(link: &Path) -> Option<u32> {
    link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

fn name(process: &Path) -> String {
    let command = fs::read_to_string(process.join("comm")).unwrap_or_default();
    let id = process.file_name().unwrap_or_default().to_string_lossy();
    format!("{}[{id}]", command.trim_end())
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
        let inode = inode(&link).expect("it is a socket");
        let processes = Processes::of(&[inode]);
        let owner = processes.owner(inode).expect("it is ours");
        assert!(owner.ends_with(&format!("[{}]", std::process::id())), "{owner}");
        assert!(processes.owner(0).is_none());
    }
}
