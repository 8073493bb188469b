//! The names of Podman's and Docker's containers by their ids, from the files in which they keep them. No socket
//! is asked: a process that may ask it is as good as root. The files are root's alone, so they are read once, before
//! the agent is confined: a container that is made later has its id for a name.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::Value;

/// Podman's: a list for each of its storage drivers, and one of what is gone after its end (`--rm`).
const PODMAN: [&str; 3] = [
    "/var/lib/containers/storage/*-containers/containers.json",
    "/var/lib/containers/storage/*-containers/volatile-containers.json",
    "/run/containers/storage/*-containers/volatile-containers.json",
];
/// Docker's: a file for each container.
const DOCKER: &str = "/var/lib/docker/containers/*/config.v2.json";
/// Bytes of a file that is read at most.
const MOST_BYTES: u64 = 16 << 20;
/// Most containers that are remembered.
const MOST: usize = 10_000;
/// The least time between two readings.
const PAUSE: Duration = Duration::from_secs(5);

/// The names of containers, as far as they were read.
#[derive(Debug, Default)]
pub(super) struct ContainerNames {
    by_id: HashMap<String, String>,
    next: Option<Instant>,
    is_fixed: bool,
}

impl ContainerNames {
    /// Reads all that can be read.
    pub(super) fn read() -> Self {
        let mut names = Self::default();
        names.read_again();
        names
    }

    /// None, and none is read.
    #[cfg(test)]
    pub(super) fn none() -> Self {
        Self { is_fixed: true, ..Self::default() }
    }

    /// The name of a container. The files are read again for one that is not known, every five seconds at most.
    pub(super) fn name_of(&mut self, id: &str, now: Instant) -> Option<String> {
        if !self.by_id.contains_key(id) && !self.is_fixed && self.next.is_none_or(|next| next <= now) {
            self.next = Some(now + PAUSE);
            self.read_again();
        }
        self.by_id.get(id).cloned()
    }

    fn read_again(&mut self) {
        let podman = PODMAN.into_iter().flat_map(files).flat_map(|file| podman(&parsed(&file)));
        let docker = files(DOCKER).filter_map(|file| docker(&parsed(&file)));
        let all: HashMap<String, String> = podman.chain(docker).take(MOST).collect();
        // What is confined finds nothing, and keeps what it had.
        self.by_id.extend(all);
        if self.by_id.len() > MOST {
            self.by_id.clear();
        }
    }
}

fn files(pattern: &str) -> impl Iterator<Item = PathBuf> {
    glob::glob(pattern).into_iter().flatten().flatten()
}

/// The content of a file; null where it cannot be read.
fn parsed(file: &Path) -> Value {
    let is_small = fs::metadata(file).is_ok_and(|data| data.len() <= MOST_BYTES);
    let text = if is_small { fs::read(file).unwrap_or_default() } else { Vec::new() };
    serde_json::from_slice(&text).unwrap_or_default()
}

/// `[{"id": …, "names": ["web", …], …}, …]`.
fn podman(list: &Value) -> Vec<(String, String)> {
    let name = |one: &Value| {
        Some((one.get("id")?.as_str()?.to_owned(), one.get("names")?.get(0)?.as_str()?.to_owned()))
    };
    list.as_array().into_iter().flatten().filter_map(name).collect()
}

/// `{"ID": …, "Name": "/web", …}`.
fn docker(container: &Value) -> Option<(String, String)> {
    let name = container.get("Name")?.as_str()?;
    let id = container.get("ID")?.as_str()?;
    Some((id.to_owned(), name.strip_prefix('/').unwrap_or(name).to_owned()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_files_of_podman_and_docker_are_read() {
        let list = json!([
            {"id": "aa11", "names": ["web", "web2"], "image": "x", "layer": "y"},
            {"id": "bb22", "names": []},
            {"id": "cc33"},
            7
        ]);
        assert_eq!(podman(&list), [("aa11".to_owned(), "web".to_owned())]);
        assert!(podman(&Value::Null).is_empty());
        let one = json!({"ID": "dd44", "Name": "/db", "State": {"Running": true}});
        assert_eq!(docker(&one), Some(("dd44".to_owned(), "db".to_owned())));
        assert_eq!(docker(&json!({"ID": "dd44"})), None);
    }
}
