//! The memory that is free for this process, and what limits it.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::param::page_size;
use rustix::process::{Resource, getrlimit};

/// Free memory, and whose it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Free {
    /// Bytes.
    pub bytes: u64,
    /// `on this machine`, or `in the control group /limited`.
    pub whose: String,
}

/// The memory that is free for this process: the least of the machine's, of those of its control groups that
/// have a limit, and of what its address space may grow by. `None` if nothing of it can be read.
#[must_use]
pub fn free() -> Option<Free> {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let machine =
        available(&read("/proc/meminfo")).map(|bytes| Free { bytes, whose: "on this machine".to_owned() });
    let groups = groups(&read("/proc/self/cgroup"), &read("/proc/self/mountinfo"));
    let space = address_space(&read("/proc/self/statm"));
    let all = machine.into_iter().chain(groups.iter().filter_map(Group::free)).chain(space);
    all.min_by_key(|free| free.bytes)
}

/// [`free`], and at most `most` bytes where that is given.
#[must_use]
pub fn free_up_to(most: Option<u64>) -> Option<Free> {
    let most = most.map(|bytes| Free { bytes, whose: "by --max-memory".to_owned() });
    most.into_iter().chain(free()).min_by_key(|free| free.bytes)
}

/// What the address space may grow by (`ulimit -v`), from the contents of `/proc/self/statm`; `None` without
/// a limit.
fn address_space(statm: &str) -> Option<Free> {
    let limit = getrlimit(Resource::As).current?;
    let pages: u64 = statm.split(' ').next()?.parse().ok()?;
    let bytes = limit.saturating_sub(pages * page_size() as u64);
    Some(Free { bytes, whose: "within this process's limit (ulimit -v)".to_owned() })
}

/// `MemAvailable` in bytes (proc_meminfo(5)).
fn available(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes << 10)
}

/// A control group that may limit memory.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Group {
    /// Its folder.
    folder: PathBuf,
    /// Its name in messages.
    name: String,
    files: &'static Files,
}

/// The files of a version of control groups.
#[derive(Debug, PartialEq, Eq)]
struct Files {
    limit: &'static str,
    usage: &'static str,
    /// In `memory.stat`: pages of files, with those of the groups below. The kernel takes them back.
    reclaimable: [&'static str; 2],
}

/// Documentation/admin-guide/cgroup-v1/memory.rst.
static V1: Files = Files {
    limit: "memory.limit_in_bytes",
    usage: "memory.usage_in_bytes",
    reclaimable: ["total_inactive_file", "total_active_file"],
};
/// Documentation/admin-guide/cgroup-v2.rst.
static V2: Files =
    Files { limit: "memory.max", usage: "memory.current", reclaimable: ["inactive_file", "active_file"] };

impl Group {
    /// What is free in it; `None` without a limit.
    fn free(&self) -> Option<Free> {
        let read = |file| fs::read_to_string(self.folder.join(file)).ok();
        let number = |file| read(file)?.trim().parse::<u64>().ok();
        // Without a limit v2 says `max`, and v1 the largest number of pages in bytes.
        let limit = number(self.files.limit).filter(|limit| *limit < 1 << 60)?;
        let statistics = read("memory.stat").unwrap_or_default();
        let used = number(self.files.usage)?.saturating_sub(reclaimable(&statistics, self.files));
        let whose = format!("in the control group {}", self.name);
        Some(Free { bytes: limit.saturating_sub(used), whose })
    }
}

/// The bytes of a group that the kernel takes back, from the contents of `memory.stat`.
fn reclaimable(statistics: &str, files: &Files) -> u64 {
    let value = |name: &str| {
        let line = statistics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.and_then(|value| value.trim().parse::<u64>().ok()).unwrap_or(0)
    };
    files.reclaimable.iter().map(|name| value(name)).sum()
}

/// The memory groups of this process and those above them, from the contents of `/proc/PID/cgroup` and
/// `/proc/PID/mountinfo`.
fn groups(membership: &str, mounts: &str) -> Vec<Group> {
    let mut groups = Vec::new();
    for line in membership.lines() {
        let mut fields = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(path)) = (fields.next(), fields.next(), fields.next()) else {
            continue;
        };
        let files = if controllers.is_empty() {
            &V2
        } else if controllers.split(',').any(|controller| controller == "memory") {
            &V1
        } else {
            continue;
        };
        let Some((root, mounted_at)) = mounts.lines().find_map(|mount| memory_mount(mount, files)) else {
            continue;
        };
        // In a container the mount shows the group as its root.
        let below = Path::new(path).strip_prefix(root).unwrap_or(Path::new(""));
        for ancestor in below.ancestors() {
            let name = Path::new("/").join(ancestor).display().to_string();
            groups.push(Group { folder: Path::new(mounted_at).join(ancestor), name, files });
        }
    }
    groups
}

/// The root and the place of a mount of memory groups: `ID PARENT DEVICE ROOT PLACE OPTIONS … - TYPE SOURCE
/// OPTIONS` (proc_pid_mountinfo(5)).
fn memory_mount<'a>(mount: &'a str, files: &Files) -> Option<(&'a str, &'a str)> {
    let (before, after) = mount.split_once(" - ")?;
    let mut after = after.split(' ');
    let (kind, options) = (after.next()?, after.nth(1)?);
    let is_of_memory = match kind {
        "cgroup2" => *files == V2,
        "cgroup" => *files == V1 && options.split(',').any(|option| option == "memory"),
        _ => false,
    };
    let mut before = before.split(' ').skip(3);
    let (root, place) = (before.next()?, before.next()?);
    is_of_memory.then_some((root, place))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{V1, V2, available, groups, reclaimable};

    #[test]
    fn available_memory_is_read_from_meminfo() {
        assert_eq!(available("MemTotal:  10 kB\nMemAvailable:    2048 kB\n"), Some(2 << 20));
        assert_eq!(available("MemTotal:  10 kB\n"), None);
    }

    #[test]
    fn the_groups_of_a_process_are_its_own_and_those_above() {
        let folders = |membership: &str, mounts: &str| -> Vec<String> {
            let all = groups(membership, mounts);
            all.iter().map(|group| group.folder.display().to_string()).collect()
        };
        let v2 = "29 24 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate";
        assert_eq!(folders("0::/a/b\n", v2), ["/sys/fs/cgroup/a/b", "/sys/fs/cgroup/a", "/sys/fs/cgroup/"]);
        let v1 = "35 32 0:30 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory";
        let both = format!("{v2}\n34 32 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n{v1}");
        let hybrid = groups("4:memory:/a\n1:cpu:/x\n0::/\n", &both);
        let found: Vec<_> = hybrid.iter().map(|group| (group.folder.as_path(), group.files)).collect();
        assert_eq!(
            found,
            [
                (Path::new("/sys/fs/cgroup/memory/a"), &V1),
                (Path::new("/sys/fs/cgroup/memory/"), &V1),
                (Path::new("/sys/fs/cgroup/"), &V2)
            ]
        );
        // A container, whose own group is mounted as the root.
        let container = "35 32 0:30 /docker/abc /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory";
        assert_eq!(folders("4:memory:/docker/abc\n", container), ["/sys/fs/cgroup/memory/"]);
        assert_eq!(folders("4:memory:/a\n", ""), [""; 0]);
    }

    #[test]
    fn pages_of_files_are_not_counted_as_used() {
        let v1 = "cache 9\ninactive_file 1\ntotal_inactive_file 300\ntotal_active_file 40\n";
        assert_eq!(reclaimable(v1, &V1), 340);
        assert_eq!(reclaimable("anon 5\ninactive_file 3\nactive_file 4\n", &V2), 7);
    }
}
