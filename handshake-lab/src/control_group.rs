//! Control groups that a test makes for processes, in the tree that it names.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use crate::namespace::Namespace;

/// Tells the groups of one process apart.
static MADE: AtomicU32 = AtomicU32::new(0);

/// A control group; removed on drop, once its last process has ended.
#[derive(Debug)]
pub struct ControlGroup(PathBuf);

impl ControlGroup {
    /// A new group in the folder of another one; `None` where this machine lets none be made.
    #[must_use]
    pub fn within(folder: &Path, name: &str) -> Option<Self> {
        let folder = folder.join(name);
        fs::create_dir(&folder).ok().map(|()| Self(folder))
    }

    /// A new group of this process's own at the root of cgroup v2; `None` where this machine lets none be made.
    #[must_use]
    pub fn unified(name: &str) -> Option<Self> {
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let fields = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let mut trees =
            mounts.lines().map(fields).filter(|fields| fields.get(2).is_some_and(|f| f == "cgroup2"));
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        Self::within(Path::new(&trees.next()?[1]), &format!("hs-{}-{number}-{name}", std::process::id()))
    }

    /// Its folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.0
    }

    /// A command that runs in the group and in a namespace.
    #[must_use]
    pub fn command(&self, host: &Namespace, program: &str) -> Command {
        let mut command = host.command("sh");
        let script = format!("echo $$ > {}/cgroup.procs && exec \"$@\"", self.0.display());
        command.args(["-c", &script, "sh", program]);
        command
    }
}

impl Drop for ControlGroup {
    fn drop(&mut self) {
        // Its last process may just be ending.
        for _ in 0..100 {
            if fs::remove_dir(&self.0).is_ok() {
                return;
            }
            thread::sleep(Duration::from_millis(20));
        }
    }
}
