//! The user and the rights of the command under check: those of the calling user, as if this program were not
//! in between.

use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use handshake_agent::Error;
use handshake_agent::attach::capability::{Capabilities, SETPCAP};
use handshake_agent::confine::{lower_bounds, shed_capabilities};
use rustix::process::{Signal, geteuid, set_parent_process_death_signal, setsid};
use rustix::thread::CapabilitySet;

use crate::caller::User;

/// The user and the rights that the command runs with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Identity {
    /// Our own user. Capabilities of this program's file do not pass exec; ambient and inheritable ones,
    /// which would, are cleared.
    Ourselves,
    /// The user who called sudo.
    Caller(User),
    /// Root without any capability, if root itself called: it has the rights of root's files alone.
    StrippedRoot,
    /// Root with its capabilities, for `--as-root`.
    Root,
}

impl Identity {
    /// The identity of the calling user.
    ///
    /// # Errors
    ///
    /// [`Error::Permission`] if root's capabilities cannot be dropped.
    pub(super) fn of_caller(as_root: bool) -> Result<Self, Error> {
        match (geteuid().is_root(), as_root, User::calling()) {
            (false, _, _) => Ok(Self::Ourselves),
            (true, true, _) => Ok(Self::Root),
            (true, false, Some(user)) => Ok(Self::Caller(user)),
            (true, false, None) if Capabilities::of_this_thread().has(SETPCAP) => Ok(Self::StrippedRoot),
            (true, false, None) => Err(Error::Permission {
                missing: vec![SETPCAP.name.to_owned()],
                fix: "it is needed to drop the command's capabilities; --as-root keeps them".to_owned(),
                kernel: None,
            }),
        }
    }

    /// Makes the command start with this identity.
    pub(super) fn prepare(&self, command: &mut Command) {
        if let Self::Caller(User { known: Some((name, home)), .. }) = self {
            command.env("HOME", home).env("USER", name).env("LOGNAME", name);
        }
        let identity = self.clone();
        // SAFETY: between fork and exec, `assume` only makes system calls on memory that existed before: it
        // allocates nothing and takes no lock.
        unsafe { command.pre_exec(move || identity.assume()) };
    }

    /// Gives this process the identity, in a new session. It ends with its parent.
    fn assume(&self) -> io::Result<()> {
        // It fails only for the leader of a process group, which a child of fork is not.
        let _ = setsid();
        for signal in [libc::SIGINT, libc::SIGTERM] {
            // SAFETY: the default action is no function, and no memory is passed.
            unsafe { libc::signal(signal, libc::SIG_DFL) };
        }
        match self {
            Self::Root => {}
            Self::Ourselves => shed_capabilities(CapabilitySet::empty())?,
            Self::StrippedRoot => {
                lower_bounds()?;
                shed_capabilities(CapabilitySet::empty())?;
            }
            Self::Caller(user) => {
                user.assume()?;
                shed_capabilities(CapabilitySet::empty())?;
            }
        }
        Ok(set_parent_process_death_signal(Some(Signal::KILL))?)
    }
}
