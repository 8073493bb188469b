//! What a running agent gives up once its programs are attached. From then on it reads its own maps and asks
//! netlink what any process may ask, which takes no privilege. So it keeps none: not root's user, no
//! capability, no way to get one back, no file, no network, and only the system calls that it makes.
//!
//! To the kernel all of this belongs to a thread. A thread that is started later has the same; one that runs
//! already must give it up itself.

mod system_calls;

use std::fmt;
use std::io;

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, LandlockStatus, NetPort, PathBeneath, PathFd, RestrictionStatus,
    Ruleset, RulesetAttr as _, RulesetCreatedAttr as _, RulesetError, Scope,
};
use rustix::io::Errno;
use rustix::process::{Gid, Uid, geteuid};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities, set_keep_capabilities, set_no_new_privs,
    set_thread_groups, set_thread_res_gid, set_thread_res_uid,
};

use crate::error::Error;
use crate::owner;

/// `nobody`: the user of what belongs to no user (`overflowuid` in proc_sys_kernel(5)).
pub const NOBODY: User = User { uid: 65_534, gid: 65_534 };
/// The file that each reading of a per-CPU map needs.
const CPUS: &str = "/sys/devices/system/cpu/possible";

/// A user and its group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct User {
    /// The user ID.
    pub uid: u32,
    /// The group ID.
    pub gid: u32,
}

/// What a thread is left with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Confinement {
    /// The user that root's threads become; others stay what they are.
    pub user: User,
    /// Whether CAP_NET_ADMIN is kept: without it a clsact filter can be neither moved nor removed.
    pub keeps_net_admin: bool,
    /// What it may do with the network.
    pub network: Network,
    /// Whether it may list the folders from which [`crate::owner`] reads. It opens no file there.
    pub reads_owners: bool,
}

/// What a thread may do with the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    /// Nothing.
    Nothing,
    /// Accept connections of a socket that listens already.
    Accepts,
    /// Connect by TCP to these ports.
    Connects([u16; 2]),
    /// Ask name servers: make sockets of UDP, and no others.
    Resolves,
}

/// What a thread was left with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Confined {
    /// The user ID.
    pub uid: u32,
    /// Whether CAP_NET_ADMIN is kept.
    pub keeps_net_admin: bool,
    /// Landlock's version; `None` where the kernel has none, or it is off.
    pub landlock: Option<i32>,
    /// Whether system calls are filtered; if not, why not.
    pub seccomp: Result<(), String>,
}

impl Confinement {
    /// What is always left, as this user.
    #[must_use]
    pub const fn of(user: User) -> Self {
        Self { user, keeps_net_admin: false, network: Network::Nothing, reads_owners: false }
    }

    /// Confines the calling thread, for good.
    ///
    /// # Errors
    ///
    /// [`Error::System`] if the kernel lets it keep a capability. Landlock, seccomp and another user are not
    /// errors where they are missing: [`Confined`] says so.
    pub fn apply(&self) -> Result<Confined, Error> {
        self.confine().map_err(Error::system("give up the privileges (--keep-privileges keeps them)"))
    }

    /// What a thread would be left with, tried on one of its own.
    ///
    /// # Errors
    ///
    /// Those of [`apply`](Self::apply), or the system has no room for a thread.
    pub fn try_out(self) -> Result<Confined, Error> {
        let tried = std::thread::Builder::new().spawn(move || self.apply());
        let tried = tried.map_err(Error::system("start a thread"))?.join();
        tried.unwrap_or_else(|_| Err(Error::system("start a thread")(io::ErrorKind::Other.into())))
    }

    fn confine(&self) -> io::Result<Confined> {
        let held = capabilities(None)?;
        if held.effective.contains(CapabilitySet::SETPCAP) {
            lower_bounds()?;
        }
        let wanted = if self.keeps_net_admin { CapabilitySet::NET_ADMIN } else { CapabilitySet::empty() };
        let kept = held.permitted & wanted;
        if !kept.is_empty() {
            set_keep_capabilities(true)?;
        }
        if geteuid().is_root() && held.effective.contains(CapabilitySet::SETUID | CapabilitySet::SETGID) {
            self.become_user()?;
        }
        shed_capabilities(kept)?;
        set_no_new_privs(true)?;
        let landlock = self.deny_files().map_err(io::Error::other)?;
        Ok(Confined {
            uid: geteuid().as_raw(),
            keeps_net_admin: !kept.is_empty(),
            landlock: version(&landlock.landlock),
            seccomp: system_calls::filter(self),
        })
    }

    /// Denies every file but [`CPUS`], every TCP port that `network` does not name, and signals to others, as far
    /// as this kernel's Landlock can. What is open stays so.
    fn deny_files(&self) -> Result<RestrictionStatus, RulesetError> {
        let mut rules = Ruleset::default()
            .handle_access(AccessFs::from_all(ABI::V5))?
            .handle_access(AccessNet::from_all(ABI::V4))?
            .scope(Scope::from_all(ABI::V6))?
            .create()?;
        let folders = if self.reads_owners { owner::folders() } else { Vec::new() };
        let listed = folders.into_iter().map(|folder| (folder, AccessFs::ReadDir));
        for (path, access) in listed.chain([(CPUS.into(), AccessFs::ReadFile)]) {
            if let Ok(path) = PathFd::new(path) {
                rules = rules.add_rule(PathBeneath::new(path, access))?;
            }
        }
        if let Network::Connects(ports) = self.network {
            let rule = |port| Ok::<_, RulesetError>(NetPort::new(port, AccessNet::ConnectTcp));
            rules = rules.add_rules(ports.into_iter().map(rule))?;
        }
        rules.restrict_self()
    }

    /// Without any further group: an agent needs none, and some are as good as root.
    fn become_user(&self) -> rustix::io::Result<()> {
        let (uid, gid) = (Uid::from_raw(self.user.uid), Gid::from_raw(self.user.gid));
        set_thread_groups(&[])?;
        set_thread_res_gid(gid, gid, gid)?;
        set_thread_res_uid(uid, uid, uid)
    }
}

impl Confined {
    /// What is less than it could be, each with its reason.
    #[must_use]
    pub fn gaps(&self) -> Vec<String> {
        let root = (self.uid == 0).then(|| {
            "handshake stays user 0: without CAP_SETUID and CAP_SETGID it cannot become another".to_owned()
        });
        let seccomp = self.seccomp.as_ref().err().map(|why| format!("system calls are not filtered: {why}"));
        root.into_iter().chain(seccomp).collect()
    }
}

impl fmt::Display for Confined {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let capabilities =
            if self.keeps_net_admin { "CAP_NET_ADMIN alone (clsact)" } else { "no capability" };
        write!(f, "user {}, {capabilities}, no_new_privs", self.uid)?;
        match self.landlock {
            Some(version) => write!(f, ", Landlock {version}")?,
            None => f.write_str(", no Landlock")?,
        }
        f.write_str(if self.seccomp.is_ok() { ", seccomp" } else { ", no seccomp" })
    }
}

/// Leaves this thread with `kept` alone, of what it is permitted, and with nothing that exec would pass on.
/// Allocates nothing, so it may be called between fork and exec.
///
/// # Errors
///
/// The kernel's.
pub fn shed_capabilities(kept: CapabilitySet) -> rustix::io::Result<()> {
    clear_ambient_capability_set()?;
    let sets = CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() };
    set_capabilities(None, sets)
}

/// Empties the bounding set of this thread, which takes CAP_SETPCAP: exec gives root only the capabilities in
/// it. Allocates nothing, so it may be called between fork and exec.
///
/// # Errors
///
/// The kernel's.
pub fn lower_bounds() -> rustix::io::Result<()> {
    for number in 0..u64::BITS {
        match remove_capability_from_bounding_set(CapabilitySet::from_bits_retain(1 << number)) {
            Ok(()) => {}
            // The first number without a capability in this kernel.
            Err(Errno::INVAL) => return Ok(()),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// The version of Landlock that confines; `None` if there is none.
const fn version(status: &LandlockStatus) -> Option<i32> {
    match status {
        LandlockStatus::NotEnabled | LandlockStatus::NotImplemented => None,
        LandlockStatus::Available { effective_abi, .. } => Some(*effective_abi as i32),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::io::ErrorKind;
    use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
    use std::os::unix::fs::MetadataExt as _;
    use std::os::unix::net::UnixDatagram;
    use std::process::Command;
    use std::sync::mpsc::channel;
    use std::thread;
    use std::time::Instant;

    use rustix::io::Errno;
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
    use rustix::thread::gettid;

    use super::{CPUS, Confined, Confinement, NOBODY, Network};
    use crate::owner::{self, Owners};

    /// Runs on a thread of its own, which alone is confined.
    fn confined<T: Send + 'static>(work: impl FnOnce(&Confined) -> T + Send + 'static) -> T {
        confined_by(Confinement::of(NOBODY), work)
    }

    fn confined_to<T: Send + 'static>(
        network: Network,
        work: impl FnOnce(&Confined) -> T + Send + 'static,
    ) -> T {
        confined_by(Confinement { network, ..Confinement::of(NOBODY) }, work)
    }

    fn confined_by<T: Send + 'static>(
        confinement: Confinement,
        work: impl FnOnce(&Confined) -> T + Send + 'static,
    ) -> T {
        let thread = thread::spawn(move || work(&confinement.apply().expect("it takes no privilege")));
        thread.join().expect("no panic")
    }

    #[test]
    fn a_confined_thread_reads_writes_runs_and_listens_to_nothing() {
        let status = fs::read_to_string("/proc/thread-self/status").expect("it can be read");
        assert!(status.contains("NoNewPrivs:\t0"), "{status}");
        let status = File::open("/proc/thread-self/status").expect("it can be opened");
        confined(move |confined| {
            assert!(confined.seccomp.is_ok(), "{confined}");
            let denied = [
                File::create("/tmp/handshake-confined").map(drop),
                Command::new("true").status().map(drop),
                TcpListener::bind("127.0.0.1:0").map(drop),
            ];
            for result in denied {
                assert_eq!(result.expect_err("it is denied").kind(), ErrorKind::PermissionDenied);
            }
            if confined.landlock.is_some() {
                assert!(fs::read("/etc/passwd").is_err());
            }
            assert!(fs::read(CPUS).is_ok() && UnixDatagram::unbound().is_ok());
            drop(status);
        });
        // This thread is as before.
        assert!(fs::read("/etc/passwd").is_ok() && Command::new("true").status().is_ok());
    }

    /// Only a thread that may connects, to its ports alone; and neither by UDP nor to a Unix socket.
    #[test]
    fn a_thread_connects_to_the_ports_that_it_names_and_nowhere_else() {
        let listener = || TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let port = |listener: &TcpListener| listener.local_addr().expect("it listens").port();
        let (one, other) = (listener(), listener());
        let (named, unnamed) = (port(&one), port(&other));
        let connect = |port| move || TcpStream::connect(("127.0.0.1", port)).map(drop);
        for network in [Network::Nothing, Network::Accepts] {
            let denied = confined_to(network, move |_| connect(named)()).expect_err("it is denied");
            assert_eq!(denied.kind(), ErrorKind::PermissionDenied, "{network:?}");
        }
        confined_to(Network::Connects([named, 1]), move |confined| {
            // As an event loop opens its sockets.
            let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
            let open = |domain, kind| socket_with(domain, kind, flags, None);
            let socket = open(AddressFamily::INET, SocketType::STREAM).expect("it may");
            let at = |port| SocketAddr::from(([127, 0, 0, 1], port));
            if confined.landlock.is_some_and(|version| version >= 4) {
                assert_eq!(rustix::net::connect(&socket, &at(unnamed)), Err(Errno::ACCESS));
            }
            let began = rustix::net::connect(&socket, &at(named));
            assert!(matches!(began, Ok(()) | Err(Errno::INPROGRESS)), "{began:?}");
            for (domain, kind) in [
                (AddressFamily::INET, SocketType::DGRAM),
                (AddressFamily::UNIX, SocketType::STREAM),
                (AddressFamily::NETLINK, SocketType::RAW),
            ] {
                assert_eq!(open(domain, kind).err(), Some(Errno::PERM), "{domain:?}");
            }
            assert!(TcpListener::bind("127.0.0.1:0").is_err() && fs::read("/etc/passwd").is_err());
        });
        let (_, from) = one.accept().expect("it has connected");
        assert!(from.ip().is_loopback());
    }

    #[test]
    fn a_confined_thread_has_no_capability_and_its_children_neither() {
        let (say, ids) = channel();
        let (end, may_end) = channel::<()>();
        let confined = thread::spawn(move || {
            confined(move |_| {
                say.send(gettid()).expect("the test listens");
                thread::spawn(move || {
                    say.send(gettid()).expect("the test listens");
                    let _ended = may_end.recv();
                })
                .join()
            })
        });
        for _ in 0..2 {
            let path = format!("/proc/self/task/{}/status", ids.recv().expect("two threads"));
            let status = fs::read_to_string(path).expect("it runs");
            let none = "0000000000000000";
            for line in ["CapInh", "CapPrm", "CapEff", "CapAmb"].map(|set| format!("{set}:\t{none}")) {
                assert!(status.contains(&line), "{line} is not in\n{status}");
            }
            assert!(status.contains("NoNewPrivs:\t1") && status.contains("Seccomp:\t2"), "{status}");
            assert!(!status.contains("Uid:\t0") && !status.contains("Gid:\t0"), "{status}");
        }
        drop(end);
        confined.join().expect("no panic").expect("no panic");
    }

    /// Where owners are asked for, and there alone, the tree of control groups can be walked. No file of it can be
    /// read, and nothing outside.
    #[test]
    fn owners_can_be_found_where_they_are_asked_for() {
        let [tree, ..] = &*owner::folders() else { panic!("cgroup v2 is not mounted") };
        let look = |confinement: Confinement| {
            let (tree, mut owners) = (tree.clone(), Owners::open().expect("it is mounted"));
            let root = fs::metadata(&tree).expect("it is there").ino();
            confined_by(confinement, move |confined| {
                assert!(confined.seccomp.is_ok() && confined.landlock.is_some(), "{confined}");
                let now = Instant::now();
                let mut ask = |id| (0..1_000).find_map(|_| owners.of(id, now));
                let seen = ask(root).is_some();
                assert_eq!(ask(u64::MAX), None);
                assert!(fs::read(tree.join("cgroup.controllers")).is_err());
                assert!(fs::read_dir("/").is_err() && fs::read("/etc/hostname").is_err());
                assert!(fs::create_dir(tree.join("handshake-confined")).is_err());
                (seen, fs::read_dir(&tree).is_ok())
            })
        };
        let usual = Confinement::of(NOBODY);
        // The root's id is known by a look at the mount itself, which Landlock does not deny.
        assert_eq!(look(usual), (true, false));
        assert_eq!(look(Confinement { reads_owners: true, ..usual }), (true, true));
    }

    /// Where names are asked for, and there alone, a datagram can be sent: and no other socket can be made.
    #[test]
    fn name_servers_can_be_asked_where_names_are_asked_for() {
        let server = UdpSocket::bind("127.0.0.1:0").expect("a port is free");
        let to = server.local_addr().expect("it is bound");
        let ask = move |confinement: Confinement| {
            confined_by(confinement, move |confined| {
                assert!(confined.seccomp.is_ok(), "{confined}");
                let asked = UdpSocket::bind("127.0.0.1:0").and_then(|socket| {
                    socket.connect(to)?;
                    socket.send(b"?")
                });
                let others = [
                    TcpListener::bind("127.0.0.1:0").is_ok(),
                    TcpStream::connect(to).is_ok(),
                    UnixDatagram::unbound().is_ok(),
                    Command::new("true").status().is_ok(),
                ];
                (asked.is_ok(), others)
            })
        };
        let usual = Confinement::of(NOBODY);
        assert_eq!(ask(usual), (false, [false, false, true, false]));
        assert_eq!(ask(Confinement { network: Network::Resolves, ..usual }), (true, [false; 4]));
        let mut word = [0; 8];
        assert_eq!(server.recv(&mut word).expect("it was sent"), 1);
    }

    #[test]
    fn what_is_missing_is_told() {
        let all = Confined { uid: 65_534, keeps_net_admin: false, landlock: Some(7), seccomp: Ok(()) };
        assert_eq!(all.to_string(), "user 65534, no capability, no_new_privs, Landlock 7, seccomp");
        assert!(all.gaps().is_empty());
        let less = Confined { uid: 0, keeps_net_admin: true, landlock: None, seccomp: Err("none".into()) };
        assert_eq!(
            less.to_string(),
            "user 0, CAP_NET_ADMIN alone (clsact), no_new_privs, no Landlock, no seccomp"
        );
        assert_eq!(less.gaps().len(), 2);
    }
}
