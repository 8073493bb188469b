//! The command under check. Its program is found before anything is attached. The helper process starts it as
//! the calling user, and stops it with all processes that it started.
//!
//! It inherits none of this program's descriptors, which are all closed on exec, and no capabilities except
//! as [`Identity`] describes.
//!
//! It inherits the caller's ignored and blocked signals, so that `nohup` works, except for three with their
//! default dispositions: SIGINT and SIGTERM, which stop it, and SIGPIPE, which only this program ignores.

mod identity;

use std::ffi::OsString;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

use rustix::process::Signal;

use crate::check::CheckError;
use crate::helper::{Helper, Ordered, Starter};
use identity::Identity;

/// The search path for programs if PATH is not set.
const PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// Hint for a command that failed as root without capabilities.
pub(super) const AS_ROOT: &str = " (it ran without capabilities: --as-root keeps them)";

/// The command under check before it is started.
#[derive(Clone)]
pub(crate) struct CommandUnderCheck {
    words: Vec<OsString>,
    program: PathBuf,
    identity: Identity,
}

impl CommandUnderCheck {
    /// Finds the program, and the user to run it as.
    ///
    /// # Errors
    ///
    /// The program is missing or not executable, or its capabilities cannot be dropped.
    pub(crate) fn find(words: &[OsString], as_root: bool) -> Result<Self, CheckError> {
        let name = words.first().cloned().unwrap_or_default();
        let program = find_program(&name)?;
        Ok(Self { words: words.to_vec(), program, identity: Identity::of_caller(as_root)? })
    }

    /// The command and its arguments as given.
    pub(crate) fn words(&self) -> Vec<String> {
        self.words.iter().map(|word| word.to_string_lossy().into_owned()).collect()
    }

    /// Whether it runs as root without root's capabilities.
    pub(crate) fn is_stripped_root(&self) -> bool {
        matches!(self.identity, Identity::StrippedRoot)
    }

    /// What starts it in its own session and process group. The terminal's signals then reach this program
    /// alone, and job control cannot stop the command for reading from the terminal or asking for a password.
    pub(crate) fn starter(&self) -> Starter {
        let Self { words, program, identity } = self.clone();
        Box::new(move || {
            let mut command = Command::new(&program);
            command.args(&words[1..]).arg0(&words[0]);
            identity.prepare(&mut command);
            command.spawn()
        })
    }

    /// Has the helper start it.
    ///
    /// # Errors
    ///
    /// [`CheckError::Command`] if the system cannot start it.
    pub(crate) async fn start(&self, helper: &Helper) -> Result<Running, CheckError> {
        let mut ordered = helper.command().map_err(CheckError::system("reach the command's parent"))?;
        ordered.start().await.map_err(|error| self.cannot_start(&error))?;
        Ok(Running(ordered))
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

/// A running command.
pub(crate) struct Running(Ordered);

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    /// It exited with this status.
    Exited(u8),
    /// It was killed by this signal.
    Killed(i32),
}

impl Status {
    /// The exit status that a shell would report: 128 and the signal's number for a killed command.
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
    /// Waits for the command to exit. Processes that it leaves behind continue, and are not waited for.
    /// Cancel-safe: it can be called again after the future was dropped.
    ///
    /// # Errors
    ///
    /// The system's.
    pub(crate) async fn ended(&mut self) -> io::Result<Status> {
        self.0.ended().await.map(Status::from)
    }

    /// Stops the command by `signal`, the rest of its processes by SIGTERM, and after three seconds all by
    /// SIGKILL.
    ///
    /// # Errors
    ///
    /// The system's.
    pub(crate) async fn stop(&mut self, signal: Signal) -> io::Result<Status> {
        self.0.stop(signal).await?;
        self.ended().await
    }

    /// Kills the command and its processes by SIGKILL.
    ///
    /// # Errors
    ///
    /// The system's.
    pub(crate) async fn kill(&mut self) -> io::Result<Status> {
        self.0.kill().await?;
        self.ended().await
    }
}

/// Finds the program of a command's first word as a shell would.
fn find_program(name: &OsString) -> Result<PathBuf, CheckError> {
    let fault = |problem: &str| CheckError::Command { name: shown(name), problem: problem.to_owned() };
    if name.is_empty() {
        return Err(fault("is empty"));
    }
    let candidates: Vec<PathBuf> = if Path::new(name).components().count() > 1 || shown(name).contains('/') {
        vec![PathBuf::from(name)]
    } else {
        let folders = std::env::var_os("PATH").unwrap_or_else(|| PATH.into());
        // An empty entry is the working directory.
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

/// The word for a message.
fn shown(name: &OsString) -> String {
    name.to_string_lossy().into_owned()
}
