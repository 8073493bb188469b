//! The processes that make sockets: the program that notes each new socket's, and the sockets that were made before
//! it was there.
//!
//! A socket that is older is taken from the process that has it for some microseconds (`pidfd_getfd`), to give it
//! its name in the kernel: so listeners of every network namespace have one, and there is one place where names
//! are. Looking into another user's process takes CAP_SYS_PTRACE.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::path::Path;

use aya::maps::{MapError, SkStorage};
use aya::programs::{CgroupAttachMode, CgroupSock};
use aya::{Ebpf, Pod};
use handshake_common::abi::{COMMAND, Maker};
use rustix::net::sockopt::{socket_domain, socket_type};
use rustix::net::{AddressFamily, SocketType, getpeername};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

use crate::attach::{self, bpf::sock_create_chain};
use crate::error::Error;
use crate::owner;

/// The program that runs where a socket is made.
const PROGRAM: &str = "handshake_socket";
/// The storage in which sockets have their maker.
const SOCKETS: &str = "SOCKETS";
/// `BPF_NOEXIST`: what a socket has stays.
const IF_NEW: u64 = 1;
/// What `/proc/PID/ns/pid` is of a process in the machine's first PID namespace (`PROC_PID_INIT_INO`).
const FIRST_NAMESPACE: &str = "pid:[4026531836]";

/// A [`Maker`] as aya's maps take it.
#[derive(Clone, Copy)]
#[repr(transparent)]
struct Value(Maker);

// SAFETY: a `Maker` has no padding, and every bit pattern is one.
unsafe impl Pod for Value {}

/// Notes the maker of every socket from now on, until the object is dropped.
///
/// # Errors
///
/// There is no tree of cgroup v2, or the kernel refuses the program there.
pub fn watch(bpf: &mut Ebpf) -> Result<(), Error> {
    let failed = Error::system("watch which processes make sockets (--process)");
    let root = match owner::root().and_then(|root| File::open(root.folder)) {
        Ok(root) => root,
        Err(error) => return Err(failed(error)),
    };
    let program: &mut CgroupSock = attach::loaded(bpf, PROGRAM)?;
    // By a link: beside the programs of others, whatever the mode says.
    let attached = program.attach(root, CgroupAttachMode::Single);
    attached.map(drop).map_err(|error| failed(io::Error::other(error)))
}

/// What became of the sockets that were made before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Before {
    /// Those that have their maker now.
    pub named: u64,
    /// Processes that may not be looked into.
    pub denied: u64,
}

/// Names the sockets that were made before [`watch`] and are not connected yet: of each the process with the lowest
/// number that has it. Of a process in another PID namespace than the machine's first nothing is named: it has
/// another number there.
///
/// # Errors
///
/// The processes cannot be listed, or the object has no storage of sockets.
pub fn find_made_before(bpf: &mut Ebpf) -> Result<Before, Error> {
    let mut before = Before::default();
    if !is_in_first_namespace() {
        return Ok(before);
    }
    let storage = bpf.map_mut(SOCKETS).ok_or_else(|| MapError::InvalidName { name: SOCKETS.to_owned() });
    let storage = storage.and_then(SkStorage::<_, Value>::try_from);
    let mut storage =
        storage.map_err(|error| Error::system("name older sockets")(io::Error::other(error)))?;
    let all = fs::read_dir("/proc").map_err(Error::system("list the processes"))?;
    let numbers = all.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let mut numbers: Vec<i32> = numbers.collect();
    numbers.sort_unstable();
    let mount = mount_of_sockets().map_err(Error::system("look for the file system of sockets"))?;
    for number in numbers {
        // A process that is gone meanwhile has no socket.
        let sockets = match sockets_of(number, &mount) {
            Ok(sockets) => sockets,
            Err(error) => {
                before.denied += u64::from(error.kind() == ErrorKind::PermissionDenied);
                continue;
            }
        };
        let Some(maker) = maker(number).filter(|_| !sockets.is_empty()) else { continue };
        let named = sockets.iter().filter(|socket| storage.insert(*socket, Value(maker), IF_NEW).is_ok());
        before.named += named.count() as u64;
    }
    Ok(before)
}

/// The mount of the file system that all sockets are in.
fn mount_of_sockets() -> io::Result<String> {
    let own = UnixDatagram::unbound()?;
    let path = Path::new("/proc/self/fdinfo").join(own.as_raw_fd().to_string());
    mount_of(&path)?.ok_or_else(|| ErrorKind::NotFound.into())
}

/// The mount that a descriptor's file is in, as its fdinfo says it (proc_pid_fdinfo(5)).
fn mount_of(path: &Path) -> io::Result<Option<String>> {
    let text = fs::read_to_string(path)?;
    Ok(text.lines().find_map(|line| line.strip_prefix("mnt_id:")).map(|mount| mount.trim().to_owned()))
}

/// The stream sockets of a process over IP that may begin a connection yet, or be asked for one. Their descriptors
/// are told by `fdinfo`: `fd` would take CAP_DAC_READ_SEARCH beside CAP_SYS_PTRACE.
fn sockets_of(number: i32, mount: &str) -> io::Result<Vec<OwnedFd>> {
    let folder = Path::new("/proc").join(number.to_string()).join("fdinfo");
    let files = fs::read_dir(folder)?.flatten();
    let is_socket = |path: &Path| mount_of(path).is_ok_and(|found| found.as_deref() == Some(mount));
    let sockets = files.filter(|file| is_socket(&file.path()));
    let descriptors = sockets.filter_map(|file| file.file_name().to_str()?.parse::<i32>().ok());
    let descriptors: Vec<i32> = descriptors.collect();
    let Some(pid) = Pid::from_raw(number).filter(|_| !descriptors.is_empty()) else { return Ok(Vec::new()) };
    let process = pidfd_open(pid, PidfdFlags::empty())?;
    let mut wanted = Vec::new();
    for descriptor in descriptors {
        match pidfd_getfd(&process, descriptor, PidfdGetfdFlags::empty()) {
            Ok(socket) if is_wanted(&socket) => wanted.push(socket),
            Err(error) if error == rustix::io::Errno::PERM => return Err(error.into()),
            // Closed meanwhile.
            Ok(_) | Err(_) => {}
        }
    }
    Ok(wanted)
}

fn is_wanted(socket: &OwnedFd) -> bool {
    let is_ip = socket_domain(socket)
        .is_ok_and(|family| family == AddressFamily::INET || family == AddressFamily::INET6);
    is_ip && socket_type(socket) == Ok(SocketType::STREAM) && !matches!(getpeername(socket), Ok(Some(_)))
}

fn maker(number: i32) -> Option<Maker> {
    let text = fs::read(Path::new("/proc").join(number.to_string()).join("comm")).ok()?;
    let text = text.strip_suffix(b"\n").unwrap_or(&text);
    let mut command = [0; COMMAND];
    command.iter_mut().zip(text.iter().take(COMMAND - 1)).for_each(|(place, byte)| *place = *byte);
    Some(Maker { pid: u64::try_from(number).ok()?, command })
}

fn is_in_first_namespace() -> bool {
    fs::read_link("/proc/self/ns/pid").is_ok_and(|link| link == Path::new(FIRST_NAMESPACE))
}

/// What this machine has for [`watch`] and [`find_made_before`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Means {
    /// There is no tree of cgroup v2.
    NoTree(String),
    /// The kernel has no programs there, or may not be asked.
    Refused(String),
    /// Another program is at the root of the tree that lets no other beside it.
    Alone,
    /// New sockets have a name.
    There {
        /// The folder at which the program is attached.
        folder: String,
        /// Whether the folder is the root of the machine's tree: sockets elsewhere have no name.
        is_whole: bool,
        /// Whether numbers are those of the machine's first PID namespace, so that older sockets have a name too.
        has_numbers: bool,
    },
}

impl Means {
    /// Asks the kernel. Takes CAP_NET_ADMIN.
    #[must_use]
    pub fn ask() -> Self {
        let root = match owner::root() {
            Ok(root) => root,
            Err(error) => return Self::NoTree(error.to_string()),
        };
        match File::open(&root.folder).and_then(|folder| sock_create_chain(folder.as_raw_fd())) {
            Err(error) => Self::Refused(error.to_string()),
            Ok(chain) if chain.is_alone() => Self::Alone,
            Ok(_) => Self::There {
                folder: root.folder.display().to_string(),
                is_whole: root.is_whole,
                has_numbers: is_in_first_namespace(),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use object::{Object as _, ObjectSection as _};

    use super::*;

    /// An instruction: the operation, the registers, the jump's offset and the constant.
    type Instruction = (u8, u8, i16, i32);

    fn instructions(code: &[u8]) -> Vec<Instruction> {
        let one = |bytes: &[u8; 8]| {
            let [operation, registers, low, high, constant @ ..] = *bytes;
            (operation, registers, i16::from_le_bytes([low, high]), i32::from_le_bytes(constant))
        };
        code.as_chunks().0.iter().map(one).collect()
    }

    /// Whether every way through the program ends with "allow": the instruction before each exit sets it, and no
    /// jump leads in between.
    fn always_allows(code: &[Instruction]) -> bool {
        /// `exit`, and the move of a constant to a register, of 32 and of 64 bits.
        const EXIT: u8 = 0x95;
        const MOVES: [u8; 2] = [0xb4, 0xb7];
        let jumps = (0_i64..).zip(code).filter(|(_, (operation, ..))| matches!(operation & 7, 5 | 6));
        let targets: Vec<i64> =
            jumps.map(|(place, (_, _, offset, _))| place + 1 + i64::from(*offset)).collect();
        let exits = (0_i64..).zip(code).filter(|(_, (operation, ..))| *operation == EXIT);
        let before = |place: i64| usize::try_from(place - 1).ok().and_then(|before| code.get(before));
        let mut exits = exits.map(|(place, _)| {
            let sets = before(place)
                .is_some_and(|(move_, to, _, value)| MOVES.contains(move_) && (*to, *value) == (0, 1));
            sets && !targets.contains(&place)
        });
        let first = exits.next();
        first == Some(true) && exits.all(|allows| allows)
    }

    #[test]
    fn the_program_refuses_no_socket_on_any_path() {
        let elf = crate::session::object().expect("it is unpacked");
        let file = object::File::parse(&*elf).expect("an ELF file");
        let section = file.section_by_name("cgroup/sock_create").expect("the program's");
        let code = instructions(section.data().expect("its code"));
        assert!(code.len() > 10, "{code:?}");
        assert!(always_allows(&code), "{code:?}");
        let changed = |place: usize, to: Instruction| {
            let mut code = code.clone();
            code[place] = to;
            code
        };
        let last = code.len() - 1;
        assert!(!always_allows(&changed(last - 1, (0xb4, 0, 0, 0))), "it would refuse");
        assert!(!always_allows(&changed(last - 1, (0xb4, 1, 0, 1))), "another register");
        let over = i16::try_from(last - 1).expect("a short program");
        assert!(!always_allows(&changed(0, (0x05, 0, over, 0))), "a jump to the exit");
    }

    /// A listener may be asked, and a socket that has no peer may ask; a connected one is past both.
    #[test]
    fn the_sockets_of_a_process_that_have_no_peer_are_wanted() {
        let wanted = || {
            let own = i32::try_from(std::process::id()).expect("it is a number");
            let mount = mount_of_sockets().expect("there is one");
            let sockets = sockets_of(own, &mount).expect("they are ours");
            let names = sockets.iter().filter_map(|socket| rustix::net::getsockname(socket).ok());
            names.filter_map(|name| std::net::SocketAddr::try_from(name).ok()).collect::<Vec<_>>()
        };
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let at = listener.local_addr().expect("it is bound");
        let client = TcpStream::connect(at).expect("it listens");
        let found = wanted();
        assert!(found.contains(&at), "{found:?}");
        assert!(!found.contains(&client.local_addr().expect("it is bound")), "{found:?}");
        drop(listener);
        assert!(!wanted().contains(&at), "it is closed");
    }

    #[test]
    fn a_maker_has_the_name_of_its_process() {
        let own = std::process::id();
        let Maker { pid, command } = maker(i32::try_from(own).expect("it is a number")).expect("it runs");
        let name = fs::read_to_string("/proc/self/comm").expect("it can be read");
        assert_eq!(pid, u64::from(own));
        assert_eq!(command.split(|byte| *byte == 0).next(), Some(name.trim_end().as_bytes()));
        assert_eq!(maker(0), None);
    }
}
