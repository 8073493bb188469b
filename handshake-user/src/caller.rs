//! The user who called this program.

use std::env;
use std::ffi::{CStr, CString, OsString, c_char};
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStringExt as _;
use std::ptr;

use rustix::process::{Gid, Uid, geteuid};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};

/// Most groups of a user (`NGROUPS_MAX`).
const MOST_GROUPS: usize = 65_536;

/// A user of this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) uid: Uid,
    pub(crate) gid: Gid,
    pub(crate) groups: Vec<Gid>,
    /// Name and home directory, if the machine knows the user.
    pub(crate) known: Option<(OsString, OsString)>,
}

impl User {
    /// The user who called this program, which runs as root: who called sudo, pkexec or doas, or who runs it
    /// with the set-user-ID bit. `None` if root itself called, or where this program is not root.
    pub(crate) fn calling() -> Option<Self> {
        geteuid().is_root().then(caller).flatten().map(|(uid, gid)| Self::of(uid, gid))
    }

    /// The user with its groups on this machine; at least `gid`.
    fn of(uid: libc::uid_t, gid: libc::gid_t) -> Self {
        let (groups, known) = match Entry::of_number(uid) {
            Some(Entry { name, home, .. }) => (groups(&name, gid), Some((bytes(name), bytes(home)))),
            None => (vec![gid], None),
        };
        let groups = groups.into_iter().map(Gid::from_raw).collect();
        Self { uid: Uid::from_raw(uid), gid: Gid::from_raw(gid), groups, known }
    }

    /// Makes this thread the user's, with that user's groups: first the groups, which cannot be changed
    /// without root. The kernel takes the capabilities away with root's user ID. Allocates nothing, so it may
    /// be called between fork and exec.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub(crate) fn assume(&self) -> rustix::io::Result<()> {
        set_thread_groups(&self.groups)?;
        set_thread_res_gid(self.gid, self.gid, self.gid)?;
        set_thread_res_uid(self.uid, self.uid, self.uid)
    }
}

fn caller() -> Option<(libc::uid_t, libc::gid_t)> {
    // −1 is no user: to the system it means that the number stays.
    let number = |name: &str| env::var(name).ok()?.parse::<u32>().ok().filter(|number| *number != u32::MAX);
    // SAFETY: both take no pointer and cannot fail.
    let real = unsafe { (libc::getuid(), libc::getgid()) };
    let sudo = || Some((number("SUDO_UID")?, number("SUDO_GID")?));
    let pkexec = || {
        let uid = number("PKEXEC_UID")?;
        Some((uid, Entry::of_number(uid)?.gid))
    };
    let doas = || {
        let name = CString::new(env::var_os("DOAS_USER")?.into_vec()).ok()?;
        let entry = Entry::of_name(&name)?;
        Some((entry.uid, entry.gid))
    };
    let callers: [&dyn Fn() -> Option<(libc::uid_t, libc::gid_t)>; 4] =
        [&|| Some(real), &sudo, &pkexec, &doas];
    callers.into_iter().find_map(|caller| caller().filter(|(uid, _)| *uid != 0))
}

/// A user as the machine's user database has it.
struct Entry {
    uid: libc::uid_t,
    gid: libc::gid_t,
    name: CString,
    home: CString,
}

impl Entry {
    fn of_number(uid: libc::uid_t) -> Option<Self> {
        // SAFETY: see `read`.
        Self::read(|entry, texts, room, found| unsafe { libc::getpwuid_r(uid, entry, texts, room, found) })
    }

    fn of_name(name: &CStr) -> Option<Self> {
        // SAFETY: `name` ends with 0; for the rest see `read`.
        Self::read(|entry, texts, room, found| unsafe {
            libc::getpwnam_r(name.as_ptr(), entry, texts, room, found)
        })
    }

    /// What a search finds. It is given an entry to fill, room for the entry's strings, its size in bytes,
    /// and where to say whether there is an entry: pointers to local memory that outlives the call.
    fn read(
        search: impl FnOnce(*mut libc::passwd, *mut c_char, usize, *mut *mut libc::passwd) -> libc::c_int,
    ) -> Option<Self> {
        const ROOM: usize = 16 * 1024;
        let mut entry = MaybeUninit::<libc::passwd>::uninit();
        let mut texts = vec![0; ROOM];
        let mut found = ptr::null_mut();
        let status = search(entry.as_mut_ptr(), texts.as_mut_ptr(), ROOM, &raw mut found);
        if status != 0 || found.is_null() {
            return None;
        }
        // SAFETY: the call succeeded and found the user, so it has filled `entry`, whose strings are in
        // `texts` and end with 0.
        unsafe {
            let entry = entry.assume_init();
            let [name, home] = [entry.pw_name, entry.pw_dir].map(|text| CStr::from_ptr(text).to_owned());
            Some(Self { uid: entry.pw_uid, gid: entry.pw_gid, name, home })
        }
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
