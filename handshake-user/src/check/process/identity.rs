//! The user and the rights of the command under check: those of the calling user, as if this program were not
//! in between.

use std::env;
use std::ffi::{CStr, CString, OsString};
use std::io;
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::ptr;

use handshake_agent::Error;
use handshake_agent::attach::capability::{Capabilities, SETPCAP};

/// Most groups of a user (`NGROUPS_MAX`).
const MOST_GROUPS: usize = 65_536;
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

/// A user of this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct User {
    uid: libc::uid_t,
    gid: libc::gid_t,
    groups: Vec<libc::gid_t>,
    /// Name and home directory, if the machine knows the user.
    known: Option<(OsString, OsString)>,
}

impl Identity {
    /// The identity of the calling user.
    ///
    /// # Errors
    ///
    /// [`Error::Permission`] if root's capabilities cannot be dropped.
    pub(super) fn of_caller(as_root: bool) -> Result<Self, Error> {
        // SAFETY: geteuid takes no pointer and cannot fail.
        let root = unsafe { libc::geteuid() } == 0;
        match (root, as_root, caller()) {
            (false, _, _) => Ok(Self::Ourselves),
            (true, true, _) => Ok(Self::Root),
            (true, false, Some((uid, gid))) => Ok(Self::Caller(User::of(uid, gid))),
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
                user.become_it()?;
                shed_capabilities()?;
            }
        }
        die_with_parent()
    }
}

impl User {
    /// The user with its groups on this machine; at least `gid`.
    fn of(uid: libc::uid_t, gid: libc::gid_t) -> Self {
        let (groups, known) = match lookup(uid) {
            Some((name, home)) => (groups(&name, gid), Some((bytes(name), bytes(home)))),
            None => (vec![gid], None),
        };
        Self { uid, gid, groups, known }
    }

    /// Makes this process run as the user. Groups come first, because they cannot be changed without root.
    fn become_it(&self) -> io::Result<()> {
        // SAFETY: the pointer and the length are those of `groups`, which outlives the call.
        succeed(unsafe { libc::setgroups(self.groups.len(), self.groups.as_ptr()) })?;
        // SAFETY: takes numbers only.
        succeed(unsafe { libc::setresgid(self.gid, self.gid, self.gid) })?;
        // SAFETY: takes numbers only.
        succeed(unsafe { libc::setresuid(self.uid, self.uid, self.uid) })
    }
}

/// The user who called sudo, or who runs this program with the set-user-ID bit; `None` if root itself called.
fn caller() -> Option<(libc::uid_t, libc::gid_t)> {
    let number = |name: &str| env::var(name).ok()?.parse::<u32>().ok();
    // SAFETY: both take no pointer and cannot fail.
    let real = unsafe { (libc::getuid(), libc::getgid()) };
    let sudo = || Some((number("SUDO_UID")?, number("SUDO_GID")?));
    Some(real).filter(|(uid, _)| *uid != 0).or_else(|| sudo().filter(|(uid, _)| *uid != 0))
}

/// A user's name and home directory.
fn lookup(uid: libc::uid_t) -> Option<(CString, CString)> {
    const ROOM: usize = 16 * 1024;
    let mut entry = MaybeUninit::<libc::passwd>::uninit();
    let mut texts = vec![0; ROOM];
    let mut found = ptr::null_mut();
    // SAFETY: each pointer is to local memory that outlives the call, and `texts` has `ROOM` bytes.
    let status =
        unsafe { libc::getpwuid_r(uid, entry.as_mut_ptr(), texts.as_mut_ptr(), ROOM, &raw mut found) };
    if status != 0 || found.is_null() {
        return None;
    }
    // SAFETY: the call succeeded and found the user, so it has filled `entry`, whose strings are in `texts`
    // and end with 0.
    unsafe {
        let entry = entry.assume_init();
        Some((CStr::from_ptr(entry.pw_name).to_owned(), CStr::from_ptr(entry.pw_dir).to_owned()))
    }
}

/// The groups of a user, including `gid`.
fn groups(name: &CStr, gid: libc::gid_t) -> Vec<libc::gid_t> {
    let mut room = 64;
    while room <= MOST_GROUPS {
        let mut groups = vec![0; room];
        let mut count = libc::c_int::try_from(room).unwrap_or(libc::c_int::MAX);
        // SAFETY: `name` ends with 0, and `groups` has room for `count` entries.
        let fits = unsafe { libc::getgrouplist(name.as_ptr(), gid, groups.as_mut_ptr(), &raw mut count) };
        if fits >= 0 {
            groups.truncate(usize::try_from(count).unwrap_or(0));
            return groups;
        }
        room *= 4;
    }
    vec![gid]
}

fn bytes(text: CString) -> OsString {
    OsString::from_vec(text.into_bytes())
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
