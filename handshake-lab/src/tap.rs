//! What was on the wire: [`Tap`] counts by class through a packet socket, [`Dump`] has tcpdump write it down.

use std::fs;
use std::io::{self, BufRead, BufReader, ErrorKind};
use std::mem::{MaybeUninit, size_of};
use std::ops::AddAssign;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::net::sockopt::set_socket_recv_buffer_size_force;
use socket2::{SockAddr, Socket};

use crate::frame::{flag, packet_socket};
use crate::namespace::Namespace;
use crate::process::Process;
use crate::process::run;

/// Frames by class. TCP as [`Tally::add`] says; VLAN tags are skipped, and the kernel hides the outermost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// SYN without ACK.
    pub syn: u64,
    /// SYN and ACK.
    pub syn_ack: u64,
    /// ACK, and none of SYN, FIN, RST.
    pub ack: u64,
    /// FIN, without SYN and RST.
    pub fin: u64,
    /// RST.
    pub rst: u64,
    /// UDP.
    pub udp: u64,
    /// ICMP over either family.
    pub icmp: u64,
    /// Anything else.
    pub other: u64,
}

impl Tally {
    /// Frames in all.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.syn + self.syn_ack + self.ack + self.fin + self.rst + self.udp + self.icmp + self.other
    }

    /// Counts an Ethernet frame without extension headers. (Written apart from the parser under test.)
    fn add(&mut self, frame: &[u8]) {
        let counter = match upper_layer(frame) {
            Some((6, Some(flags))) => self.tcp(flags),
            Some((17, _)) => &mut self.udp,
            Some((1 | 58, _)) => &mut self.icmp,
            _ => &mut self.other,
        };
        *counter += 1;
    }

    /// Where a TCP segment with these flags is counted.
    pub(crate) fn tcp(&mut self, flags: u8) -> &mut u64 {
        let has = |bit| flags & bit != 0;
        if has(flag::RST) {
            &mut self.rst
        } else if has(flag::SYN) && has(flag::ACK) {
            &mut self.syn_ack
        } else if has(flag::SYN) {
            &mut self.syn
        } else if has(flag::FIN) {
            &mut self.fin
        } else if has(flag::ACK) {
            &mut self.ack
        } else {
            &mut self.other
        }
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, more: Self) {
        self.syn += more.syn;
        self.syn_ack += more.syn_ack;
        self.ack += more.ack;
        self.fin += more.fin;
        self.rst += more.rst;
        self.udp += more.udp;
        self.icmp += more.icmp;
        self.other += more.other;
    }
}

/// The protocol over IP, and of TCP the flags.
fn upper_layer(frame: &[u8]) -> Option<(u8, Option<u8>)> {
    let word = |at: usize| Some(u16::from_be_bytes([*frame.get(at)?, *frame.get(at + 1)?]));
    let mut ip = 14;
    while matches!(word(ip - 2)?, 0x8100 | 0x88a8) {
        ip += 4;
    }
    let (protocol, l4) = match word(ip - 2)? {
        0x0800 => (*frame.get(ip + 9)?, ip + usize::from(*frame.get(ip)? & 15) * 4),
        0x86dd => (*frame.get(ip + 6)?, ip + 40),
        _ => return None,
    };
    Some((protocol, frame.get(l4 + 13).copied()))
}

/// What came in and went out at a device since the tap was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Into the host. On `lo` this is everything.
    pub received: Tally,
    /// Out of the host. On `lo` the same frames as `received`.
    pub sent: Tally,
}

impl Traffic {
    /// Both ways together: on a link (not on `lo`) each frame once.
    #[must_use]
    pub fn both(&self) -> Tally {
        let mut both = self.received;
        both += self.sent;
        both
    }
}

/// Counts the frames of a device from when it is opened. They wait in the socket's buffer until asked for:
/// for scenarios, not for floods.
#[derive(Debug)]
pub struct Tap {
    socket: Socket,
    traffic: Traffic,
}

impl Tap {
    /// On `device` of `namespace`, both ways.
    ///
    /// # Errors
    /// Without CAP_NET_RAW and CAP_NET_ADMIN, or there is no such device.
    pub fn open(namespace: &Namespace, device: &str) -> Result<Self> {
        let all = u16::try_from(libc::ETH_P_ALL)?;
        let socket = packet_socket(namespace, device, all)?;
        set_socket_recv_buffer_size_force(&socket, ROOM).context("enlarge a packet socket's buffer")?;
        socket.set_nonblocking(true)?;
        Ok(Self { socket, traffic: Traffic::default() })
    }

    /// Everything up to now.
    ///
    /// # Errors
    /// The buffer has overflown: then nothing is known.
    pub fn traffic(&mut self) -> Result<Traffic> {
        let mut buffer = [MaybeUninit::<u8>::uninit(); 256];
        loop {
            match self.socket.recv_from(&mut buffer) {
                Ok((length, from)) => {
                    // SAFETY: the kernel has written the first `length` bytes, which is at most the buffer's.
                    let frame = unsafe { buffer[..length].assume_init_ref() };
                    self.side(&from).add(frame);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error).context("receive from a packet socket"),
            }
        }
        match dropped(&self.socket).context("ask a packet socket for its losses")? {
            0 => Ok(self.traffic),
            lost => bail!("the tap lost {lost} frames"),
        }
    }

    fn side(&mut self, from: &SockAddr) -> &mut Tally {
        /// `PACKET_OUTGOING` of `linux/if_packet.h`.
        const OUTGOING: u8 = 4;
        // SAFETY: what a packet socket receives comes from a sockaddr_ll, and the storage is larger than one.
        let link = unsafe { &*from.as_ptr().cast::<libc::sockaddr_ll>() };
        if link.sll_pkttype == OUTGOING { &mut self.traffic.sent } else { &mut self.traffic.received }
    }
}

/// Room for some 40,000 small frames, past what an unprivileged process may have.
const ROOM: usize = 32 << 20;

/// Frames the socket had no room for, since last asked.
fn dropped(socket: &Socket) -> io::Result<u32> {
    /// `PACKET_STATISTICS` of `linux/if_packet.h`: `struct tpacket_stats`, packets and drops.
    const PACKET_STATISTICS: libc::c_int = 6;
    let mut stats = [0u32; 2];
    let mut length = socket_length::<[u32; 2]>()?;
    let fd = socket.as_raw_fd();
    // SAFETY: the kernel writes at most `length` bytes, the size of `stats`; both outlive the call.
    let result = unsafe {
        let into = (&raw mut stats).cast();
        libc::getsockopt(fd, libc::SOL_PACKET, PACKET_STATISTICS, into, &raw mut length)
    };
    if result == 0 { Ok(stats[1]) } else { Err(io::Error::last_os_error()) }
}

fn socket_length<T>() -> io::Result<libc::socklen_t> {
    libc::socklen_t::try_from(size_of::<T>()).map_err(io::Error::other)
}

/// tcpdump on a device, for what a [`Tap`] does not tell: its filters are the third account.
#[derive(Debug)]
pub struct Dump {
    process: Process,
    file: PathBuf,
}

impl Dump {
    /// Writes what passes `device` of `namespace` to `file`, from now on.
    ///
    /// # Errors
    /// There is no tcpdump, or it does not start within five seconds.
    pub fn start(namespace: &Namespace, device: &str, file: &Path) -> Result<Self> {
        let mut command = namespace.command("tcpdump");
        command.args(["--immediate-mode", "-U", "-n", "-Z", "root", "-s", "256", "-i", device, "-w"]);
        command.arg(file).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut process = Process::start(&mut command)?;
        let stderr = process.child().stderr.take().context("tcpdump's stderr")?;
        let mut lines = BufReader::new(stderr).lines();
        let ready = lines.by_ref().map_while(Result::ok).any(|line| line.contains("listening on"));
        if !ready {
            bail!("tcpdump does not listen on {device}");
        }
        // It must not fill the pipe, nor find it closed.
        thread::spawn(move || lines.for_each(drop));
        Ok(Self { process, file: file.to_owned() })
    }

    /// Ends it and gives the file back, which holds everything seen until now.
    ///
    /// # Errors
    /// It does not end.
    pub fn stop(mut self) -> Result<Written> {
        // What is in its ring is read within the time a wakeup takes.
        thread::sleep(Duration::from_millis(100));
        self.process.signal(libc::SIGINT)?;
        let status = self.process.wait(Duration::from_secs(5))?;
        if !status.success() {
            bail!("tcpdump: {status}");
        }
        Ok(Written { file: self.file.clone() })
    }
}

/// A file that tcpdump wrote; removed on drop.
#[derive(Debug)]
pub struct Written {
    file: PathBuf,
}

impl Written {
    /// How many of its frames pass `filter`, in tcpdump's language.
    ///
    /// # Errors
    /// The filter is refused.
    pub fn count(&self, filter: &str) -> Result<usize> {
        let mut command = Command::new("tcpdump");
        command.args(["-n", "-t", "-r"]).arg(&self.file).arg(filter);
        Ok(run(&mut command)?.lines().filter(|line| !line.starts_with(char::is_whitespace)).count())
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.file
    }
}

impl Drop for Written {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.file);
    }
}
