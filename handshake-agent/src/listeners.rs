//! The listening TCP sockets of this host and their accept queues, by inet_diag (`linux/inet_diag.h`). Reading
//! takes no privilege.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::netlink::{Netlink, SOCKETS, find, u32_at, u64_at};

/// `SOCK_DIAG_BY_FAMILY`.
const BY_FAMILY: u16 = 20;
/// `TCP_LISTEN` as a bit of `idiag_states`.
const LISTENING: u32 = 1 << 10;
/// Bytes of `struct inet_diag_req_v2`.
const REQUEST: usize = 56;

/// Bytes of `struct inet_diag_msg`.
const MESSAGE: usize = 72;
/// `INET_DIAG_SKV6ONLY`.
const V6_ONLY: u16 = 11;
/// `INET_DIAG_CGROUP_ID`.
const CGROUP: u16 = 21;

/// A listening socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listener {
    /// Where it listens; an unspecified address is any of the host's.
    pub address: SocketAddr,
    /// Connections in its accept queue: completed, and not accepted yet.
    pub waiting: u32,
    /// The most that its accept queue is to hold; the kernel lets it have one more (`sk_acceptq_is_full`).
    pub backlog: u32,
    /// The inode of the socket, which `/proc/PID/fd` shows.
    pub inode: u32,
    /// Whether it takes IPv6 alone (`IPV6_V6ONLY`).
    pub is_ipv6_only: bool,
    /// The index of the interface that it is bound to (`SO_BINDTODEVICE`); 0 without one.
    pub interface: u32,
    /// The id of the control group in which it was made, which [`crate::owner`] names; `None` where the kernel does
    /// not tell.
    pub cgroup: Option<u64>,
}

impl Listener {
    /// Whether the accept queue has no room for another connection.
    #[must_use]
    pub const fn is_full(&self) -> bool {
        self.waiting > self.backlog
    }

    /// Whether it takes connections to this service.
    #[must_use]
    pub fn takes(&self, service: SocketAddr) -> bool {
        let address = self.address.ip();
        // An IPv6 socket that is bound to any address takes IPv4 too, unless IPV6_V6ONLY is set.
        let family =
            if address.is_ipv6() { service.is_ipv6() || !self.is_ipv6_only } else { service.is_ipv4() };
        let is_any = address.is_unspecified() && family;
        self.address.port() == service.port() && (is_any || self.is_at(service))
    }

    /// Whether it is bound to the service's own address: the kernel then prefers it to one that is bound to any
    /// (`compute_score` in net/ipv4/inet_hashtables.c).
    #[must_use]
    pub fn is_at(&self, service: SocketAddr) -> bool {
        self.address.ip().to_canonical() == service.ip()
    }
}

/// The listeners of this thread's network namespace. Opened once, so that a reading makes no socket.
#[derive(Debug)]
pub struct Listeners(Netlink);

impl Listeners {
    /// Opens the socket that answers.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn open() -> io::Result<Self> {
        Netlink::open(SOCKETS).map(Self)
    }

    /// Reads all listeners.
    ///
    /// # Errors
    ///
    /// The kernel's: it may have no inet_diag.
    pub fn read(&mut self) -> io::Result<Vec<Listener>> {
        let mut all = Vec::new();
        for family in [libc::AF_INET, libc::AF_INET6] {
            let answers = self.0.dump(BY_FAMILY, &request(family))?;
            all.extend(answers.iter().filter_map(|message| listener(&message.body)));
        }
        Ok(all)
    }
}

fn request(family: i32) -> [u8; REQUEST] {
    let mut request = [0; REQUEST];
    let byte = |number: i32| u8::try_from(number).unwrap_or(0);
    request[..2].copy_from_slice(&[byte(family), byte(libc::IPPROTO_TCP)]);
    request[4..8].copy_from_slice(&LISTENING.to_ne_bytes());
    request
}

/// `struct inet_diag_msg`: the family, the ports from byte 4 on, the source address from 8 on, the interface at
/// 40, and from 56 on the queue, its limit, the user and the inode. Attributes follow.
fn listener(body: &[u8]) -> Option<Listener> {
    let family = i32::from(*body.first()?);
    let port = u16::from_be_bytes(*body.get(4..)?.first_chunk()?);
    let address: IpAddr = if family == libc::AF_INET6 {
        Ipv6Addr::from(*body.get(8..)?.first_chunk::<16>()?).into()
    } else {
        Ipv4Addr::from(*body.get(8..)?.first_chunk::<4>()?).into()
    };
    Some(Listener {
        address: SocketAddr::new(address, port),
        waiting: u32_at(body, 56)?,
        backlog: u32_at(body, 60)?,
        inode: u32_at(body, 68)?,
        is_ipv6_only: find(body.get(MESSAGE..)?, V6_ONLY).is_some_and(|value| value.first() == Some(&1)),
        interface: u32_at(body, 40)?,
        cgroup: find(body.get(MESSAGE..)?, CGROUP).and_then(|value| u64_at(value, 0)),
    })
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsRawFd as _;
    use std::time::Instant;

    use super::*;
    use crate::owner::Owners;
    use crate::processes::Processes;

    #[test]
    fn a_listener_is_found_with_what_waits_in_its_queue() {
        let socket = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let address = socket.local_addr().expect("it is bound");
        // SAFETY: listen(2) takes a descriptor that is open here, and no memory.
        assert_eq!(unsafe { libc::listen(socket.as_raw_fd(), 1) }, 0);
        let mut listeners = Listeners::open().expect("the kernel answers");
        let mut found = || {
            let all = listeners.read().expect("there are listeners");
            *all.iter().find(|one| one.takes(address)).expect("ours is there")
        };
        let empty = found();
        assert_eq!((empty.address, empty.waiting, empty.backlog, empty.is_full()), (address, 0, 1, false));
        let _clients = [0; 2].map(|_| TcpStream::connect(address).expect("there is room"));
        let full = found();
        assert_eq!((full.waiting, full.is_full()), (2, true));
        assert_eq!(full.inode, empty.inode);
    }

    /// The kernel tells the group of a listener, and its owner and process name the same group.
    #[test]
    fn a_listener_has_its_group_and_its_process() {
        let socket = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let address = socket.local_addr().expect("it is bound");
        let all = Listeners::open().expect("the kernel answers").read().expect("there are listeners");
        let ours = all.iter().find(|one| one.address == address).expect("ours is there");
        let (group, now) = (ours.cgroup.expect("it is told"), Instant::now());
        let mut owners = Owners::open().expect("it is mounted");
        let owner = (0..1_000).find_map(|_| owners.of(group, now));
        let processes = Processes::of(&[ours.inode]);
        let process = processes.owner(ours.inode).expect("it is this one");
        assert_eq!(process.pid, std::process::id());
        assert_eq!(owner.map(|owner| owner.cgroup.clone()), process.cgroup);
    }

    #[test]
    fn a_listener_takes_what_its_address_covers() {
        let table = [
            ("0.0.0.0:443", "10.0.0.2:443", true),
            ("0.0.0.0:443", "[fd00::2]:443", false),
            ("[::]:443", "10.0.0.2:443", true),
            ("[::]:443", "[fd00::2]:443", true),
            ("10.0.0.2:443", "10.0.0.2:443", true),
            ("[::ffff:10.0.0.2]:443", "10.0.0.2:443", true),
            ("10.0.0.1:443", "10.0.0.2:443", false),
            ("0.0.0.0:80", "10.0.0.2:443", false),
        ];
        for (address, service, takes) in table {
            let address = address.parse().expect(address);
            let is_ipv6_only = false;
            let listener = Listener {
                address,
                waiting: 0,
                backlog: 128,
                inode: 1,
                is_ipv6_only,
                interface: 0,
                cgroup: None,
            };
            assert_eq!(listener.takes(service.parse().expect(service)), takes, "{address} {service}");
            let alone = Listener { is_ipv6_only: true, ..listener };
            let is_both = address.ip().is_unspecified() && address.is_ipv6() && service.starts_with("10.");
            assert_eq!(
                alone.takes(service.parse().expect(service)),
                takes && !is_both,
                "{address} {service}"
            );
        }
    }

    /// The kernel says whether a socket takes IPv6 alone.
    #[test]
    fn a_listener_of_ipv6_alone_is_known_as_one() {
        for is_ipv6_only in [false, true] {
            let socket = rustix::net::socket(
                rustix::net::AddressFamily::INET6,
                rustix::net::SocketType::STREAM,
                Some(rustix::net::ipproto::TCP),
            )
            .expect("a socket");
            rustix::net::sockopt::set_ipv6_v6only(&socket, is_ipv6_only).expect("it can be set");
            rustix::net::bind(&socket, &SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), 0)).expect("a port");
            rustix::net::listen(&socket, 1).expect("it listens");
            let port = TcpListener::from(socket);
            let address = port.local_addr().expect("it is bound");
            let all = Listeners::open().expect("the kernel answers").read().expect("there are listeners");
            let ours = all.iter().find(|one| one.address == address).expect("ours is there");
            assert_eq!((ours.is_ipv6_only, ours.interface), (is_ipv6_only, 0));
            let service = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), address.port());
            assert_eq!(ours.takes(service), !is_ipv6_only);
        }
    }
}
