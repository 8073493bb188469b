//! Who runs the command, and with what rights: those of whoever called, as if this program did not stand between.

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

/// Groups that a user may be in at most; the kernel's own limit.
const MOST_GROUPS: usize = 65_536;
/// Numbers of capabilities that a kernel may know.
const MOST_CAPABILITIES: libc::c_ulong = 64;
/// `_LINUX_CAPABILITY_VERSION_3`.
const CAPABILITY_VERSION: u32 = 0x2008_0522;

/// Who runs the command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Identity {
    /// The user we are. Capabilities of this program's file are its own: exec leaves them here; what else could be
    /// handed on (ambient, inheritable) is cleared.
    Ourselves,
    /// The user who called sudo.
    Caller(User),
    /// Root, since nobody else called, without a single capability: what it can do it does as the owner of files.
    StrippedRoot,
    /// Root as it is: `--as-root`.
    Root,
}

/// A user of this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct User {
    uid: libc::uid_t,
    gid: libc::gid_t,
    groups: Vec<libc::gid_t>,
    /// Name and home, where the machine knows them.
    known: Option<(OsString, OsString)>,
}

impl Identity {
    /// Of whoever called us.
    ///
    /// # Errors
    ///
    /// [`Error::Permission`] where root's capabilities cannot be taken off.
    pub(super) fn of_caller(as_root: bool) -> Result<Self, Error> {
        // SAFETY: takes no memory and cannot fail.
        let root = unsafe { libc::geteuid() } == 0;
        match (root, as_root, caller()) {
            (false, _, _) => Ok(Self::Ourselves),
            (true, true, _) => Ok(Self::Root),
            (true, false, Some((uid, gid))) => Ok(Self::Caller(User::of(uid, gid))),
            (true, false, None) if Capabilities::of_this_thread().has(SETPCAP) => Ok(Self::StrippedRoot),
            (true, false, None) => Err(Error::Permission {
                missing: vec![SETPCAP.name.to_owned()],
                fix: "it takes root's capabilities off the command; --as-root lets it have them".to_owned(),
                kernel: None,
            }),
        }
    }

    /// Has the command start as this.
    pub(super) fn prepare(&self, command: &mut Command) {
        if let Self::Caller(User { known: Some((name, home)), .. }) = self {
            command.env("HOME", home).env("USER", name).env("LOGNAME", name);
        }
        let identity = self.clone();
        // SAFETY: what runs between fork and exec only makes system calls on memory that was there before: it
        // allocates nothing and takes no lock.
        unsafe { command.pre_exec(move || identity.assume()) };
    }

    /// Makes this process such a one, in a session of its own.
    fn assume(&self) -> io::Result<()> {
        // SAFETY: takes no memory. It fails for the leader of a group only, which a child of fork is not.
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
    /// With the groups that the machine knows of; at least its own.
    fn of(uid: libc::uid_t, gid: libc::gid_t) -> Self {
        let (groups, known) = match lookup(uid) {
            Some((name, home)) => (groups(&name, gid), Some((bytes(name), bytes(home)))),
            None => (vec![gid], None),
        };
        Self { uid, gid, groups, known }
    }

    /// Groups first: who has given root up may not change them.
    fn become_it(&self) -> io::Result<()> {
        // SAFETY: `groups` is that long, and outlives the call.
        succeed(unsafe { libc::setgroups(self.groups.len(), self.groups.as_ptr()) })?;
        // SAFETY: takes no memory.
        succeed(unsafe { libc::setresgid(self.gid, self.gid, self.gid) })?;
        // SAFETY: takes no memory.
        succeed(unsafe { libc::setresuid(self.uid, self.uid, self.uid) })
    }
}

/// Who called sudo, or runs a program that belongs to root and is set-user-ID; root itself is nobody here.
fn caller() -> Option<(libc::uid_t, libc::gid_t)> {
    let number = |name: &str| env::var(name).ok()?.parse::<u32>().ok();
    // SAFETY: both take no memory and cannot fail.
    let real = unsafe { (libc::getuid(), libc::getgid()) };
    let sudo = || Some((number("SUDO_UID")?, number("SUDO_GID")?));
    Some(real).filter(|(uid, _)| *uid != 0).or_else(|| sudo().filter(|(uid, _)| *uid != 0))
}

/// A user's name and home.
fn lookup(uid: libc::uid_t) -> Option<(CString, CString)> {
    const ROOM: usize = 16 * 1024;
    let mut entry = MaybeUninit::<libc::passwd>::uninit();
    let mut texts = vec![0; ROOM];
    let mut found = ptr::null_mut();
    // SAFETY: each pointer is to memory of ours that outlives the call, `texts` as long as it is said to be.
    let status =
        unsafe { libc::getpwuid_r(uid, entry.as_mut_ptr(), texts.as_mut_ptr(), ROOM, &raw mut found) };
    if status != 0 || found.is_null() {
        return None;
    }
    // SAFETY: the call succeeded and found the user, so it has filled the entry; its texts lie in `texts`, ended by 0.
    unsafe {
        let entry = entry.assume_init();
        Some((CStr::from_ptr(entry.pw_name).to_owned(), CStr::from_ptr(entry.pw_dir).to_owned()))
    }
}

/// The groups of a user, `gid` among them.
fn groups(name: &CStr, gid: libc::gid_t) -> Vec<libc::gid_t> {
    let mut room = 64;
    while room <= MOST_GROUPS {
        let mut groups = vec![0; room];
        let mut count = libc::c_int::try_from(room).unwrap_or(libc::c_int::MAX);
        // SAFETY: `name` ends with 0, and `groups` has room for as many as `count` says.
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

/// Clears what exec would hand on by itself, and what this process still has.
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
    // SAFETY: version 3 reads a header and two times three words, which is what both are.
    let result = unsafe { libc::syscall(libc::SYS_capset, &raw const header, none.as_ptr()) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Root gets back at exec what its bounding set allows: nothing, from here on.
fn lower_bounds() -> io::Result<()> {
    for capability in 0..MOST_CAPABILITIES {
        // SAFETY: takes numbers only.
        if unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) } != 0 {
            let error = io::Error::last_os_error();
            // The first number that the kernel does not know.
            return if error.raw_os_error() == Some(libc::EINVAL) { Ok(()) } else { Err(error) };
        }
    }
    Ok(())
}

/// A command whose checker was killed is not left running for nobody.
fn die_with_parent() -> io::Result<()> {
    // SAFETY: takes numbers only.
    succeed(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM, 0, 0, 0) })
}

fn succeed(result: libc::c_int) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
