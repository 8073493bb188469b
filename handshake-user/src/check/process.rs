//! The command under check: found before anything is attached, run as whoever called, and stopped with all it started.
//!
//! It inherits nothing of what this program was given to do its work. Our descriptors are closed on exec, every one of
//! them; capabilities are taken off as [`Identity`] says.
//!
//! It does inherit what the caller ignores or blocks of signals, as `nohup` wants it, but for three: SIGINT and SIGTERM,
//! which end it, and SIGPIPE, which this program ignores for itself, have their default dispositions.

mod identity;

use std::ffi::OsString;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group, test_kill_process_group};
use tokio::process::Child;
use tokio::time::{Instant, sleep, timeout_at};

use crate::check::CheckError;
use identity::Identity;

/// How long a command that was asked to end may take.
const GRACE: Duration = Duration::from_secs(3);
/// How often a group that is ending is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Where programs are looked for without a PATH.
const PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// What may be wrong with a command that root runs.
pub(super) const AS_ROOT: &str = " (it ran without capabilities: --as-root lets it have them)";

/// A command that is there, and not started yet.
pub(crate) struct CommandUnderCheck {
    words: Vec<OsString>,
    program: PathBuf,
    identity: Identity,
}

impl CommandUnderCheck {
    /// Finds the program, and who is to run it.
    ///
    /// # Errors
    ///
    /// It is not there or cannot be run, or its capabilities cannot be taken off.
    pub(crate) fn find(words: &[OsString], as_root: bool) -> Result<Self, CheckError> {
        let name = words.first().cloned().unwrap_or_default();
        let program = find_program(&name)?;
        Ok(Self { words: words.to_vec(), program, identity: Identity::of_caller(as_root)? })
    }

    /// Its words, as they were given.
    pub(crate) fn words(&self) -> Vec<String> {
        self.words.iter().map(|word| word.to_string_lossy().into_owned()).collect()
    }

    /// It runs as root, but without root's capabilities.
    pub(crate) fn is_stripped_root(&self) -> bool {
        matches!(self.identity, Identity::StrippedRoot)
    }

    /// Starts it in a session and process group of its own: what a terminal sends goes to us alone, and no terminal stops
    /// it for reading, or for asking for a password, from behind.
    ///
    /// # Errors
    ///
    /// The system's, though the program was there.
    pub(crate) fn start(&self) -> Result<Running, CheckError> {
        let mut command = std::process::Command::new(&self.program);
        command.args(&self.words[1..]).arg0(&self.words[0]);
        self.identity.prepare(&mut command);
        let child =
            tokio::process::Command::from(command).spawn().map_err(|error| self.cannot_start(&error))?;
        let group = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        Ok(Running { child, group })
    }

    fn cannot_start(&self, error: &io::Error) -> CheckError {
        let stripped = self.is_stripped_root() && error.kind() == io::ErrorKind::PermissionDenied;
        let hint = if stripped { AS_ROOT } else { "" };
        CheckError::Command {
            name: shown(&self.words[0]),
            problem: format!("cannot be started: {error}{hint}"),
        }
    }
}

/// A command under way.
pub(crate) struct Running {
    child: Child,
    group: Option<Pid>,
}

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    /// By itself, with this status.
    Exited(u8),
    /// By this signal.
    Killed(i32),
}

impl Status {
    /// What a shell would make of it.
    pub(crate) fn code(self) -> u8 {
        const SIGNALLED: u8 = 128;
        match self {
            Self::Exited(code) => code,
            Self::Killed(signal) => u8::try_from(signal).map_or(u8::MAX, |n| SIGNALLED.saturating_add(n)),
        }
    }
}

impl From<ExitStatus> for Status {
    fn from(status: ExitStatus) -> Self {
        match status.signal() {
            Some(signal) => Self::Killed(signal),
            None => Self::Exited(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX)),
        }
    }
}

impl Running {
    /// Waits for its end. What it leaves behind goes on, and is not waited for. Can be called again when it was
    /// dropped halfway.
    ///
    /// # Errors
    ///
    /// The system's.
    pub(crate) async fn ended(&mut self) -> io::Result<Status> {
        self.child.wait().await.map(Status::from)
    }

    /// Ends it and what it has started: by `signal`, what is left of the group by SIGTERM, and after a grace by SIGKILL.
    ///
    /// # Errors
    ///
    /// The system's.
    pub(crate) async fn stop(&mut self, signal: Signal) -> io::Result<Status> {
        let deadline = Instant::now() + GRACE;
        self.signal(signal);
        let status = match timeout_at(deadline, self.ended()).await {
            Ok(status) => status?,
            Err(_) => return self.kill().await,
        };
        // What runs in a shell's background does not hear SIGINT.
        self.signal(Signal::TERM);
        while self.is_left() {
            if Instant::now() >= deadline {
                self.signal(Signal::KILL);
                break;
            }
            sleep(LOOK_EVERY).await;
        }
        Ok(status)
    }

    /// Ends it and what it has started, at once.
    ///
    /// # Errors
    ///
    /// The system's.
    pub(crate) async fn kill(&mut self) -> io::Result<Status> {
        self.signal(Signal::KILL);
        self.ended().await
    }

    /// Sends a signal to the group. It is the child's own: the kernel gives its number to no other while a process is in
    /// it or the child has not been waited for.
    fn signal(&self, signal: Signal) {
        // A group without a process needs no signal.
        let _ = self.group.map(|group| kill_process_group(group, signal));
    }

    /// Whether a process of the group is left.
    fn is_left(&self) -> bool {
        self.group.is_some_and(|group| test_kill_process_group(group).is_ok())
    }
}

/// The file that a command's first word names, as a shell would find it.
fn find_program(name: &OsString) -> Result<PathBuf, CheckError> {
    let fault = |problem: &str| CheckError::Command { name: shown(name), problem: problem.to_owned() };
    if name.is_empty() {
        return Err(fault("is empty"));
    }
    let candidates: Vec<PathBuf> = if Path::new(name).components().count() > 1 || shown(name).contains('/') {
        vec![PathBuf::from(name)]
    } else {
        let folders = std::env::var_os("PATH").unwrap_or_else(|| PATH.into());
        // An empty entry is the folder we are in.
        std::env::split_paths(&folders).map(|folder| Path::new(".").join(folder).join(name)).collect()
    };
    let there: Vec<&PathBuf> = candidates.iter().filter(|path| path.is_file()).collect();
    let found = there.iter().find(|path| is_executable(path));
    match (found, there.first(), candidates.first().filter(|path| path.is_dir())) {
        (Some(path), _, _) => Ok((*path).clone()),
        (None, Some(path), _) => Err(fault(&format!("cannot be run: chmod +x {}", path.display()))),
        (None, None, Some(_)) => Err(fault("is a directory")),
        (None, None, None) => Err(fault("not found")),
    }
}

fn is_executable(path: &Path) -> bool {
    path.metadata().is_ok_and(|metadata| metadata.permissions().mode() & 0o111 != 0)
}

/// Somebody's words: nothing in them may steer the terminal.
fn shown(name: &OsString) -> String {
    name.to_string_lossy()
        .chars()
        .flat_map(|c| if c.is_control() { c.escape_debug().collect() } else { vec![c] })
        .collect()
}
