//! Records what was on the wire: [`Tap`] counts frames by class through a packet socket, [`Dump`] records
//! them with tcpdump.

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

/// Frames by class, TCP by its flags. VLAN tags are skipped; the kernel hides the outermost one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// SYN without ACK.
    pub syn: u64,
    /// SYN and ACK.
    pub syn_ack: u64,
    /// ACK without SYN, FIN and RST.
    pub ack: u64,
    /// FIN without SYN and RST.
    pub fin: u64,
    /// RST, with or without other flags.
    pub rst: u64,
    /// UDP.
    pub udp: u64,
    /// ICMP and ICMPv6.
    pub icmp: u64,
    /// All other frames.
    pub other: u64,
}

impl Tally {
    /// The number of frames.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.syn + self.syn_ack + self.ack + self.fin + self.rst + self.udp + self.icmp + self.other
    }

    /// Counts an Ethernet frame without extension headers. This code is independent of the parser under test.
    fn add(&mut self, frame: &[u8]) {
        let counter = match upper_layer(frame) {
            Some((6, Some(flags))) => self.tcp(flags),
            Some((17, _)) => &mut self.udp,
            Some((1 | 58, _)) => &mut self.icmp,
            _ => &mut self.other,
        };
        *counter += 1;
    }

    /// The counter of a TCP segment with these flags.
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

/// The protocol above IP, and for TCP the flags.
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

/// The frames that a device received and sent since the tap was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TappedTraffic {
    /// Frames received. On `lo` these are all frames.
    pub received: Tally,
    /// Frames sent. On `lo` the same frames as `received`.
    pub sent: Tally,
}

impl TappedTraffic {
    /// The sum of both directions: on a link (not on `lo`) each frame once.
    #[must_use]
    pub fn both(&self) -> Tally {
        let mut both = self.received;
        both += self.sent;
        both
    }
}

/// Counts the frames of a device from when the tap is opened. They wait in the socket's buffer until they are
/// read: suited to scenarios, not to floods.
#[derive(Debug)]
pub struct Tap {
    socket: Socket,
    traffic: TappedTraffic,
}

impl Tap {
    /// Opens a tap on `device` of `namespace`, for both directions.
    ///
    /// # Errors
    /// Without CAP_NET_RAW and CAP_NET_ADMIN, or there is no such device.
    pub fn open(namespace: &Namespace, device: &str) -> Result<Self> {
        let all = u16::try_from(libc::ETH_P_ALL)?;
        let socket = packet_socket(namespace, device, all)?;
        set_socket_recv_buffer_size_force(&socket, ROOM).context("enlarge a packet socket's buffer")?;
        socket.set_nonblocking(true)?;
        Ok(Self { socket, traffic: TappedTraffic::default() })
    }

    /// The frames up to now.
    ///
    /// # Errors
    /// The buffer has overflowed, so the counts are unknown.
    pub fn traffic(&mut self) -> Result<TappedTraffic> {
        let mut buffer = [MaybeUninit::<u8>::uninit(); 256];
        loop {
            match self.socket.recv_from(&mut buffer) {
                Ok((length, from)) => {
                    // SAFETY: the kernel has written the first `length` bytes, which fit the buffer.
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
        // SAFETY: a packet socket receives from a sockaddr_ll, and the storage is larger than one.
        let link = unsafe { &*from.as_ptr().cast::<libc::sockaddr_ll>() };
        if link.sll_pkttype == OUTGOING { &mut self.traffic.sent } else { &mut self.traffic.received }
    }
}

/// Size of the receive buffer, bytes: room for about 40,000 small frames, beyond the limit for unprivileged
/// processes.
const ROOM: usize = 32 << 20;

/// Number of frames that the buffer had no room for since the last call.
fn dropped(socket: &Socket) -> io::Result<u32> {
    /// `PACKET_STATISTICS` of `linux/if_packet.h` returns `struct tpacket_stats`: packets and drops.
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

/// tcpdump on a device, a third account for what a [`Tap`] does not count.
#[derive(Debug)]
pub struct Dump {
    process: Process,
    file: PathBuf,
}

impl Dump {
    /// Starts recording the frames on `device` of `namespace` to `file`.
    ///
    /// # Errors
    /// tcpdump is missing, or does not start within five seconds.
    pub fn start(namespace: &Namespace, device: &str, file: &Path) -> Result<Self> {
        /// Size of its ring, KiB: room for the bursts of a round of conversations.
        const RING: &str = "65536";
        let mut command = namespace.command("tcpdump");
        // Whole frames, whose checksums can be verified.
        command.args(["--immediate-mode", "-U", "-n", "-Z", "root", "-s", "2048", "-B", RING]);
        command.args(["-i", device, "-w"]);
        command.arg(file).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut process = Process::start(&mut command)?;
        let stderr = process.child().stderr.take().context("tcpdump's stderr")?;
        let mut lines = BufReader::new(stderr).lines();
        let ready = lines.by_ref().map_while(Result::ok).any(|line| line.contains("listening on"));
        if !ready {
            bail!("tcpdump does not listen on {device}");
        }
        // Keeps the pipe open and empty, so that tcpdump neither blocks nor fails on it.
        thread::spawn(move || lines.for_each(drop));
        Ok(Self { process, file: file.to_owned() })
    }

    /// Stops recording and returns the file, which has all frames up to now.
    ///
    /// # Errors
    /// tcpdump does not end.
    pub fn stop(mut self) -> Result<DumpFile> {
        // tcpdump reads its ring within the time of a wakeup.
        thread::sleep(Duration::from_millis(100));
        self.process.signal(libc::SIGINT)?;
        let status = self.process.wait(Duration::from_secs(5))?;
        if !status.success() {
            bail!("tcpdump: {status}");
        }
        Ok(DumpFile { file: self.file.clone() })
    }
}

/// A file written by tcpdump; removed on drop.
#[derive(Debug)]
pub struct DumpFile {
    file: PathBuf,
}

impl DumpFile {
    /// The number of frames that match `filter`, in tcpdump's language.
    ///
    /// # Errors
    /// tcpdump refuses the filter.
    pub fn count(&self, filter: &str) -> Result<usize> {
        let mut command = Command::new("tcpdump");
        command.args(["-n", "-t", "-r"]).arg(&self.file).arg(filter);
        Ok(run(&mut command)?.lines().filter(|line| !line.starts_with(char::is_whitespace)).count())
    }

    /// The path of the file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.file
    }
}

impl Drop for DumpFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.file);
    }
}
