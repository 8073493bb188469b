//! The user and the rights of the command under check: those of the calling user, as if this program were not
//! in between.

use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use handshake_agent::Error;
use handshake_agent::attach::capability::{Capabilities, SETPCAP};
use rustix::process::geteuid;

use crate::caller::User;

/// Upper bound of a capability's number: a set has 64 bits.
const MOST_CAPABILITIES: libc::c_ulong = 64;
/// `_LINUX_CAPABILITY_VERSION_3`.
const CAPABILITY_VERSION: u32 = 0x2008_0522;

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

    /// Gives this process the identity, in a new session.
    fn assume(&self) -> io::Result<()> {
        // SAFETY: setsid takes no pointer. It fails only for the leader of a process group, which a child of
        // fork is not.
        unsafe { libc::setsid() };
        match self {
            Self::Root => {}
            Self::Ourselves => shed_capabilities()?,
            Self::StrippedRoot => {
                lower_bounds()?;
                shed_capabilities()?;
            }
            Self::Caller(user) => {
                become_user(user)?;
                shed_capabilities()?;
            }
        }
        die_with_parent()
    }
}

/// Makes this process run as the user. Groups come first, because they cannot be changed without root.
fn become_user(user: &User) -> io::Result<()> {
    // SAFETY: the pointer and the length are those of `groups`, which outlives the call.
    succeed(unsafe { libc::setgroups(user.groups.len(), user.groups.as_ptr()) })?;
    // SAFETY: takes numbers only.
    succeed(unsafe { libc::setresgid(user.gid, user.gid, user.gid) })?;
    // SAFETY: takes numbers only.
    succeed(unsafe { libc::setresuid(user.uid, user.uid, user.uid) })
}

/// Clears the ambient capabilities, which exec would pass on, and all sets of this process.
fn shed_capabilities() -> io::Result<()> {
    #[repr(C)]
    struct Header {
        version: u32,
        pid: libc::c_int,
    }
    // SAFETY: takes numbers only.
    succeed(unsafe { libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) })?;
    let header = Header { version: CAPABILITY_VERSION, pid: 0 };
    // Effective, permitted and inheritable, low half and high half.
    let none = [0_u32; 6];
    // SAFETY: version 3 of capset reads a header and two times three words, the sizes of `header` and `none`.
    let result = unsafe { libc::syscall(libc::SYS_capset, &raw const header, none.as_ptr()) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Empties the bounding set. At exec, root regains only the capabilities in it.
fn lower_bounds() -> io::Result<()> {
    for capability in 0..MOST_CAPABILITIES {
        // SAFETY: takes numbers only.
        if unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) } != 0 {
            let error = io::Error::last_os_error();
            // EINVAL marks the first number without a capability in this kernel.
            return if error.raw_os_error() == Some(libc::EINVAL) { Ok(()) } else { Err(error) };
        }
    }
    Ok(())
}

/// Has the kernel send SIGTERM to the command if this program is killed.
fn die_with_parent() -> io::Result<()> {
    // SAFETY: takes numbers only.
    succeed(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM, 0, 0, 0) })
}

fn succeed(result: libc::c_int) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
