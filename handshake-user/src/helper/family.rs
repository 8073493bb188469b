//! A command and all processes that it has started. The helper is their subreaper (prctl(2)): whichever
//! parent of them ends, the kernel gives its children to the helper, in whatever session they are. So
//! everything is gone once the helper has no child left.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::process::Child;
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitOptions, getpid, kill_process, kill_process_group, pidfd_open,
    set_child_subreaper, wait,
};

/// Time that a command has to end after a signal, before SIGKILL.
const GRACE: Duration = Duration::from_secs(3);
/// Time between two looks at whether all have ended.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Time after which what SIGKILL does not end is left: another user's, or asleep in the kernel. On a busy machine a
/// killed process waits for its turn to end too.
const DEADLY: Duration = Duration::from_secs(5);

/// A command and its descendants.
pub(super) struct Family {
    /// The command, which leads a process group.
    head: Pid,
    /// Becomes readable when the command ends.
    main: OwnedFd,
    /// The command's wait status, once it has ended.
    status: Option<i32>,
    told: bool,
    /// When those that are being stopped are killed.
    deadline: Option<Instant>,
    /// Whether those that the command has left behind were told to end.
    is_rest_told: bool,
}

impl Family {
    /// The family of a child of this process, which becomes its subreaper.
    pub(super) fn of(child: &Child) -> io::Result<Self> {
        set_child_subreaper(Some(getpid()))?;
        let head = i32::try_from(child.id()).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::NotFound)?;
        let main = pidfd_open(head, PidfdFlags::empty())?;
        Ok(Self { head, main, status: None, told: false, deadline: None, is_rest_told: false })
    }

    /// What becomes readable when the command ends, while it runs.
    pub(super) fn main(&self) -> Option<&OwnedFd> {
        self.status.is_none().then_some(&self.main)
    }

    /// The command's wait status, once.
    pub(super) fn news(&mut self) -> Option<i32> {
        self.bury();
        let status = self.status.filter(|_| !self.told)?;
        self.told = true;
        Some(status)
    }

    /// Sends a signal to the command and its group.
    pub(super) fn begin_to_stop(&mut self, signal: i32) {
        self.deadline = Some(Instant::now() + GRACE);
        self.signal_group(Signal::from_named_raw(signal).unwrap_or(Signal::TERM));
    }

    /// Whether to wait longer for those that are being stopped. Tells those that the command has left behind
    /// to end: a shell's background processes ignore SIGINT, and a daemon is in no group of its parent.
    pub(super) fn keeps_stopping(&mut self) -> bool {
        let has_any = self.bury();
        if self.status.is_some() && has_any && !self.is_rest_told {
            self.is_rest_told = true;
            self.signal_group(Signal::TERM);
            signal_children(Signal::TERM);
        }
        has_any && self.deadline.is_some_and(|deadline| Instant::now() < deadline)
    }

    /// Kills all, generation by generation: the children of one that is killed become this process's.
    pub(super) fn kill(&mut self) {
        const PAUSE: Duration = Duration::from_millis(2);
        let deadline = Instant::now() + DEADLY;
        if self.status.is_none() {
            self.signal_group(Signal::KILL);
        }
        while self.bury() && Instant::now() < deadline {
            signal_children(Signal::KILL);
            sleep(PAUSE);
        }
    }

    fn signal_group(&self, signal: Signal) {
        // An error means that the group has no process left.
        let _ = kill_process_group(self.head, signal);
    }

    /// Buries those that have ended; whether any is left.
    fn bury(&mut self) -> bool {
        loop {
            match wait(WaitOptions::NOHANG) {
                Ok(Some((pid, status))) if pid == self.head => self.status = Some(status.as_raw()),
                Ok(Some(_)) | Err(Errno::INTR) => {}
                Ok(None) => return true,
                Err(_) => return false,
            }
        }
    }
}

/// Sends a signal to this process's children. Their numbers are given to no others: only this process
/// buries them.
fn signal_children(signal: Signal) {
    let own = getpid();
    for process in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let number = process.file_name().to_string_lossy().parse().ok().and_then(Pid::from_raw);
        let Some(pid) = number else { continue };
        let stat = fs::read_to_string(process.path().join("stat")).unwrap_or_default();
        if parent(&stat) == Some(own) {
            // An error means that it has become another user's.
            let _ = kill_process(pid, signal);
        }
    }
}

/// The parent in the contents of `/proc/PID/stat`: the second field after the name, which is in parentheses
/// and may have any byte.
fn parent(stat: &str) -> Option<Pid> {
    let (_, fields) = stat.rsplit_once(')')?;
    Pid::from_raw(fields.split_whitespace().nth(1)?.parse().ok()?)
}

#[cfg(test)]
mod tests {
    use super::{Pid, parent};

    #[test]
    fn the_parent_is_found_behind_any_name() {
        for (stat, expected) in [
            ("7 (sleep) S 42 7 7 0 -1", Some(42)),
            ("7 (a) b (c) 9 9) Z 42 7", Some(42)),
            ("7 (kthreadd) S 0 0", None),
            ("7 (sleep", None),
            ("", None),
        ] {
            assert_eq!(parent(stat), expected.and_then(Pid::from_raw), "{stat}");
        }
    }
}
