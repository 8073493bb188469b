//! The server of the conversations: a listening socket whose connections are accepted at once, and what its
//! kernel knows about them.

use std::collections::HashMap;
use std::fs;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use socket2::{Domain, Socket, Type};

use super::script::{SPOKEN, Script};
use super::setting::{Cookies, Setting};
use crate::counters::{self, Counters};
use crate::namespace::Namespace;

/// States of include/net/tcp_states.h.
const SYN_RECV: u8 = 3;
const CLOSE: u8 = 7;
/// `TCPI_OPT_SYN_DATA` of include/uapi/linux/tcp.h: the data of the SYN was accepted.
const SYN_DATA: u8 = 32;
/// The pause of the thread that accepts.
const NAP: Duration = Duration::from_micros(100);
/// Backlog where SYN cookies are sent once it is full.
const SHORT_BACKLOG: i32 = 256;
const LONG_BACKLOG: i32 = 65_535;

/// What the kernel says of the conversations with one client.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Truth {
    /// Connections that were established.
    pub(super) established: u64,
    /// Fast Open sockets of which only the SYN was accepted. Some were reset before the third segment.
    pub(super) unfinished: u64,
    /// It is in SYN-RECEIVED now.
    pub(super) is_open: bool,
}

/// An accepted socket.
struct Accepted {
    peer: SocketAddrV4,
    socket: Socket,
    fast_open: bool,
    established: bool,
    closed: bool,
}

impl Accepted {
    /// Reads the state. A Fast Open socket is accepted before the third segment; as it is looked at between
    /// all segments that establish and those that end, one that is closed was never established.
    fn look(&mut self) -> Result<()> {
        if self.established || self.closed {
            return Ok(());
        }
        let (state, options) = tcp_info(&self.socket)?;
        self.fast_open |= options & SYN_DATA != 0;
        match state {
            SYN_RECV => {}
            CLOSE if self.fast_open => self.closed = true,
            _ => self.established = true,
        }
        Ok(())
    }
}

/// The state and the options of `struct tcp_info` (include/uapi/linux/tcp.h).
fn tcp_info(socket: &Socket) -> Result<(u8, u8)> {
    let mut info = [0u8; 8];
    let mut length = libc::socklen_t::try_from(info.len())?;
    // SAFETY: the kernel writes at most `length` bytes, the size of `info`; both outlive the call.
    let result = unsafe {
        let into = info.as_mut_ptr().cast();
        libc::getsockopt(socket.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_INFO, into, &raw mut length)
    };
    ensure!(result == 0, "TCP_INFO: {}", std::io::Error::last_os_error());
    Ok((info[0], info[5]))
}

/// The listening socket of a round.
pub(super) struct Host<'a> {
    namespace: &'a Namespace,
    setting: Setting,
    listener: Socket,
    accepted: Mutex<Vec<Accepted>>,
    /// Number of times that no connection waited.
    idle: AtomicU64,
    stop: AtomicBool,
    before: Counters,
}

impl<'a> Host<'a> {
    pub(super) fn new(namespace: &'a Namespace, setting: Setting, address: SocketAddr) -> Result<Self> {
        namespace.sysctl("net.ipv4.tcp_syncookies", setting.cookies.value())?;
        // For the server, without a Fast Open cookie, for every listener: 0x602 (ip-sysctl.rst).
        namespace.sysctl("net.ipv4.tcp_fastopen", if setting.fast_open { "1538" } else { "0" })?;
        namespace.sysctl("net.core.somaxconn", "65535")?;
        namespace.sysctl("net.ipv4.tcp_max_syn_backlog", "65535")?;
        let listener = namespace.socket(Domain::IPV4, Type::STREAM, None)?;
        listener.set_reuse_address(true)?;
        listener.bind(&address.into()).with_context(|| format!("bind to {address}"))?;
        listener.listen(if setting.cookies == Cookies::On { SHORT_BACKLOG } else { LONG_BACKLOG })?;
        listener.set_nonblocking(true)?;
        let before = counters::read(namespace)?;
        Ok(Self {
            namespace,
            setting,
            listener,
            accepted: Mutex::default(),
            idle: AtomicU64::new(0),
            stop: AtomicBool::new(false),
            before,
        })
    }

    /// Accepts until [`Host::stop`].
    pub(super) fn accept(&self) -> Result<()> {
        while !self.stop.load(Ordering::Acquire) {
            self.accept_waiting()?;
            self.idle.fetch_add(1, Ordering::Release);
            thread::sleep(NAP);
        }
        Ok(())
    }

    fn accept_waiting(&self) -> Result<()> {
        loop {
            match self.listener.accept() {
                Ok((socket, peer)) => {
                    let peer = peer.as_socket_ipv4().context("a peer without an IPv4 address")?;
                    let mut accepted =
                        Accepted { peer, socket, fast_open: false, established: false, closed: false };
                    if Script::is_spoken_to(peer) {
                        // It may have been reset already. Never waits: one silent client would hold up all
                        // others.
                        let _ = accepted.socket.send_with_flags(&[b'y'; SPOKEN as usize], libc::MSG_DONTWAIT);
                    }
                    accepted.look()?;
                    self.accepted.lock().unwrap_or_else(PoisonError::into_inner).push(accepted);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error).context("accept"),
            }
        }
    }

    pub(super) fn stop(&self) {
        self.stop.store(true, Ordering::Release);
    }

    /// Waits until every connection has been accepted.
    pub(super) fn settle(&self) -> Result<()> {
        let (before, deadline) =
            (self.idle.load(Ordering::Acquire), Instant::now() + Duration::from_secs(10));
        while self.idle.load(Ordering::Acquire) < before + 2 {
            if Instant::now() > deadline {
                bail!("the server does not accept");
            }
            thread::sleep(NAP);
        }
        Ok(())
    }

    /// Looks at every socket whose state is not known for good.
    pub(super) fn look(&self) -> Result<()> {
        self.accepted.lock().unwrap_or_else(PoisonError::into_inner).iter_mut().try_for_each(Accepted::look)
    }

    /// What became of each client, and whether the kernel counts as many connections.
    pub(super) fn truth(&self) -> Result<HashMap<SocketAddrV4, Truth>> {
        let accepted = self.accepted.lock().unwrap_or_else(PoisonError::into_inner);
        let mut truths: HashMap<SocketAddrV4, Truth> = HashMap::new();
        for each in accepted.iter() {
            let truth = truths.entry(each.peer).or_default();
            if each.established {
                truth.established += 1;
            } else {
                truth.unfinished += 1;
            }
        }
        for peer in open_requests(self.namespace)? {
            truths.entry(peer).or_default().is_open = true;
        }
        let now = counters::read(self.namespace)?;
        let since = |name: &str| now.since(&self.before, name);
        let (opens, lost) = (since("TcpPassiveOpens"), since("TcpExtListenOverflows"));
        ensure!(lost == 0, "the accept queue was full {lost} times: the server is too slow");
        let accepted = u64::try_from(accepted.len())?;
        // The ACK of a cookie makes a socket beside a request of the same client, and it is dropped at once
        // (tcp_v4_syn_recv_sock in net/ipv4/tcp_ipv4.c): counted, and never there.
        let dropped = self.setting.cookies == Cookies::On && opens > accepted;
        ensure!(
            opens == accepted || dropped,
            "PassiveOpens rose by {opens}, but {accepted} connections were accepted"
        );
        Ok(truths)
    }
}

/// The clients of /proc/net/tcp in SYN-RECEIVED.
fn open_requests(namespace: &Namespace) -> Result<Vec<SocketAddrV4>> {
    let path = "/proc/thread-self/net/tcp";
    let text = namespace.enter(|| fs::read_to_string(path).with_context(|| format!("read {path}")))?;
    Ok(text.lines().skip(1).filter_map(open_request).collect())
}

/// `0: 020000C0:1B58 01006 30A:1389 03 …`: the remote end of a line whose state is SYN_RECV.
fn open_request(line: &str) -> Option<SocketAddrV4> {
    let mut words = line.split_whitespace().skip(2);
    let (remote, state) = (words.next()?, words.next()?);
    if u8::from_str_radix(state, 16).ok()? != SYN_RECV {
        return None;
    }
    let (address, port) = remote.split_once(':')?;
    // The address is printed as a number of the host's byte order.
    let address = Ipv4Addr::from(u32::from_str_radix(address, 16).ok()?.to_ne_bytes());
    Some(SocketAddrV4::new(address, u16::from_str_radix(port, 16).ok()?))
}

#[cfg(test)]
mod tests {
    use super::open_request;

    #[test]
    fn requests_are_read_from_the_list_of_sockets() {
        let line = |state| {
            format!(
                "   1: 020200C0:1B58 {:08X}:1389 {state} 00000000:00000000 01:0 0",
                u32::from_ne_bytes([10, 99, 0, 1])
            )
        };
        assert_eq!(open_request(&line("03")), "10.99.0.1:5001".parse().ok());
        assert_eq!(open_request(&line("01")), None);
    }
}
