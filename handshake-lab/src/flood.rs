//! Floods of live frames: an XDP program builds a frame of another client on each run, and the kernel sends
//! it (`BPF_F_TEST_XDP_LIVE_FRAMES`); one CPU sends one to two million per second.
//!
//! ```text
//! client: builds frames ─▶ veth ─▶ server: XDP, TC ─▶ stack      census: counts the frames at a hook
//! ```

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::time::{ClockId, clock_gettime};

use crate::bpf::{self, Code, Program, Register, TestHook, When};
use crate::frame::{BuiltSegment, Mac, checksum, flag, interface_index, tcp_frame};
use crate::namespace::Namespace;
use crate::topology::Path;

/// The source MAC address of a flood's frames, by which the census recognizes them.
pub(crate) const MAC: Mac = Mac([2, b'h', b's', 0xf1, 0x00, 0xd0]);
/// Length of a flood's frame, bytes: the minimum of Ethernet.
const FRAME: usize = 60;
/// The initial sequence number of all attempts (J).
const ISN: u32 = 0x1234_5678;
/// The first byte of each client's address, and of its port.
const NET: u8 = 10;
const PORT: u8 = 0x40;

/// Offsets in an Ethernet frame with an IPv4 header without options: the addresses, the ports, and the two
/// checksums.
const SOURCE: i16 = 26;
const DESTINATION: i16 = 30;
const SOURCE_PORT: i16 = 34;
const DESTINATION_PORT: i16 = 36;
const IP_CHECKSUM: i16 = 24;
const TCP_CHECKSUM: i16 = 50;

/// The kind of frames in a flood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FloodKind {
    /// SYNs, each from a new client.
    Syn,
    /// ACKs, each of an unknown connection.
    Ack,
    /// UDP datagrams, each of a new flow.
    Udp,
    /// Pairs of a SYN and the RST that refuses it, as a mirror port shows them.
    Refused,
    /// Pairs of a UDP query and its answer, likewise.
    Answered,
    /// Handshakes that complete and stay open, likewise.
    Held,
    /// SYNs, each to another of 32,768 ports.
    Scan,
    /// Handshakes of the server with its clients, each of which answers it: a crawler.
    Crawl,
}

impl FloodKind {
    /// Every kind.
    pub const ALL: [Self; 8] =
        [Self::Syn, Self::Ack, Self::Udp, Self::Refused, Self::Answered, Self::Held, Self::Scan, Self::Crawl];
}

/// A source of frames from nonexistent clients in 10.0.0.0/8, no two of 2³² alike, with correct checksums.
#[derive(Debug)]
pub struct Flood<'a> {
    client: &'a Namespace,
    program: OwnedFd,
    made: AtomicU64,
    processor_ns: AtomicU64,
    _number: OwnedFd,
}

impl<'a> Flood<'a> {
    /// Loads the program that builds frames to `to`, an IPv4 address of `path`'s server. The server's device
    /// must accept frames from XDP: with a native program of its own, or with GRO ([`Flood::open`]).
    ///
    /// # Errors
    /// Without CAP_BPF and CAP_NET_ADMIN.
    pub fn new(path: &Path<'a>, to: SocketAddr, kind: FloodKind) -> Result<Self> {
        let number = bpf::words(1)?;
        let device = path.client.enter(|| interface_index(path.device))?;
        let templates = kind.templates(path.macs[1], to)?;
        let varied = if kind == FloodKind::Scan { varied_port } else { client };
        let program = Program::of("flood", code(&templates, &number, device, varied)?);
        let program = bpf::load(TestHook::XdpNative, &program)?;
        Ok(Self {
            client: path.client,
            program,
            made: AtomicU64::new(0),
            processor_ns: AtomicU64::new(0),
            _number: number,
        })
    }

    /// Makes the server's device accept frames from XDP without an XDP program of its own, and adds routes to
    /// a flood's clients: the client's end drops what is sent to them.
    ///
    /// # Errors
    /// ethtool or iproute2 fails.
    pub fn open(path: &Path<'_>) -> Result<()> {
        path.server.offload(path.device, "gro", true)?;
        path.server.ip(&[&format!("route add {NET}.0.0.0/8 via {}", path.source)])?;
        path.client.ip(&[&format!("route add blackhole {NET}.0.0.0/8")])
    }

    /// Sends `count` frames. Large counts are faster: starting and ending takes the kernel some ten
    /// milliseconds.
    ///
    /// # Errors
    /// The kernel refuses, because the device is gone.
    pub fn make(&self, count: u32) -> Result<()> {
        let took = self.client.enter(|| {
            bpf::run_live(&self.program, &[0; FRAME], count)?;
            processor_time()
        })?;
        self.made.fetch_add(count.into(), Ordering::Relaxed);
        let took = u64::try_from(took.as_nanos())?;
        self.processor_ns.fetch_add(took, Ordering::Relaxed);
        Ok(())
    }

    /// Number of frames sent; not all of them reach the far end.
    #[must_use]
    pub fn made(&self) -> u64 {
        self.made.load(Ordering::Relaxed)
    }

    /// CPU time of the sending threads. The far end receives frames as softirqs on the same CPU, nearly
    /// always within this thread's time: on a shared machine the rate follows from this time and not from the
    /// clock.
    #[must_use]
    pub fn processor_time(&self) -> Duration {
        Duration::from_nanos(self.processor_ns.load(Ordering::Relaxed))
    }
}

/// The CPU time of the calling thread since it began.
fn processor_time() -> Result<Duration> {
    clock_gettime(ClockId::ThreadCPUTime).try_into().context("a thread's time")
}

/// A frame without its client's address and port, with their offsets.
struct Template {
    frame: Vec<u8>,
    address: i16,
    port: i16,
    /// The offset of the checksum after the IP header, if there is one.
    checksum: Option<i16>,
}

impl FloodKind {
    fn templates(self, server_mac: Mac, to: SocketAddr) -> Result<Vec<Template>> {
        let syn = || Template::tcp(server_mac, to, (flag::SYN, ISN, 0), true);
        Ok(match self {
            Self::Syn => vec![syn()?],
            Self::Ack => vec![Template::tcp(server_mac, to, (flag::ACK, ISN, ISN), true)?],
            Self::Udp => vec![Template::udp(server_mac, to, true)?],
            Self::Answered => {
                vec![Template::udp(server_mac, to, true)?, Template::udp(server_mac, to, false)?]
            }
            Self::Held => Template::handshake(server_mac, to, true)?,
            Self::Crawl => Template::handshake(server_mac, to, false)?,
            Self::Scan => vec![Template { port: DESTINATION_PORT, ..Template::between(server_mac, to)? }],
            Self::Refused => {
                let numbers = (flag::RST | flag::ACK, 0, ISN.wrapping_add(1));
                vec![syn()?, Template::tcp(server_mac, to, numbers, false)?]
            }
        })
    }
}

impl Template {
    /// A handshake that one end begins, and the other end's first acknowledgement.
    fn handshake(mac: Mac, server: SocketAddr, by_client: bool) -> Result<Vec<Self>> {
        let next = ISN.wrapping_add(1);
        let segments = [
            (by_client, (flag::SYN, ISN, 0)),
            (!by_client, (flag::SYN | flag::ACK, ISN, next)),
            (by_client, (flag::ACK, next, next)),
            (!by_client, (flag::ACK, next, next)),
        ];
        segments.into_iter().map(|(forth, numbers)| Self::tcp(mac, server, numbers, forth)).collect()
    }

    /// A SYN to the server's address, whose port is left open, from the one port of every client.
    fn between(mac: Mac, server: SocketAddr) -> Result<Self> {
        const FROM: u16 = 40_000;
        let source = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), FROM);
        let destination = SocketAddr::new(server.ip(), 0);
        let (seq, ack, flags) = (ISN, 0, flag::SYN);
        let mut frame =
            tcp_frame([MAC, mac], &BuiltSegment { source, destination, seq, ack, flags, payload: &[] })?;
        frame.resize(FRAME, 0);
        Ok(Self { frame, address: SOURCE, port: SOURCE_PORT, checksum: Some(TCP_CHECKSUM) })
    }

    /// A segment to the server (`forth`) or from it.
    fn tcp(mac: Mac, server: SocketAddr, numbers: (u8, u32, u32), forth: bool) -> Result<Self> {
        let (flags, seq, ack) = numbers;
        let unassigned = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);
        let (source, destination) = if forth { (unassigned, server) } else { (server, unassigned) };
        let mut frame =
            tcp_frame([MAC, mac], &BuiltSegment { source, destination, seq, ack, flags, payload: &[] })?;
        frame.resize(FRAME, 0);
        let (address, port) = if forth { (SOURCE, SOURCE_PORT) } else { (DESTINATION, DESTINATION_PORT) };
        Ok(Self { frame, address, port, checksum: Some(TCP_CHECKSUM) })
    }

    /// A datagram to the server (`forth`) or from it, without a UDP checksum (RFC 768).
    fn udp(mac: Mac, server: SocketAddr, forth: bool) -> Result<Self> {
        const UDP: u8 = 17;
        let mut template = Self::tcp(mac, server, (0, 0, 0), forth)?;
        let frame = &mut template.frame;
        // As many bytes after the IP header as TCP's header had, 8 of them UDP's header.
        frame[38..54].fill(0);
        frame[39] = 20;
        frame[23] = UDP;
        frame[24..26].fill(0);
        let sum = checksum(&[&frame[14..34]]);
        frame[24..26].copy_from_slice(&sum.to_be_bytes());
        template.checksum = None;
        Ok(template)
    }

    fn halfword(&self, at: i16) -> u16 {
        let at = usize::from(at.unsigned_abs());
        u16::from_ne_bytes([self.frame[at], self.frame[at + 1]])
    }
}

const CONTEXT: Register = 6;
const DATA: Register = 7;
/// The client's address in memory order, then its port.
const ADDRESS: Register = 8;
const CLIENT_PORT: Register = 9;

/// Assembles the program. Run `n` builds the template `n % templates` with the client `n / templates`.
fn code(
    templates: &[Template],
    number: &OwnedFd,
    device: u32,
    varied: fn(&mut Code) -> &mut Code,
) -> Result<Code> {
    const REDIRECT: i32 = 23;
    let mut code = Code::default();
    code.copy(CONTEXT, 1).load32(DATA, CONTEXT, 0).load32(2, CONTEXT, 4);
    code.copy(3, DATA).add(3, i32::try_from(FRAME)?);
    let short = code.jump(When::Above(3, 2));
    code.value(1, number).set(0, 1).fetch_add(1, 0);
    ensure!(templates.len().is_power_of_two(), "a flood of {} templates", templates.len());
    let count = i32::try_from(templates.len())?;
    code.copy(1, 0).and(1, count - 1).shift_right(0, count.ilog2().cast_signed());
    varied(&mut code);
    let mut ends = Vec::new();
    for (at, template) in (0..).zip(templates) {
        let other = code.jump(When::Differs(1, at));
        code.write(template);
        ends.push(code.jump(When::Always));
        code.land(other);
    }
    for end in ends {
        code.land(end);
    }
    code.set(1, i32::try_from(device)?).set(2, 0).call(REDIRECT).exit();
    code.land(short).set(0, 0).exit();
    Ok(code)
}

/// Ports that a scan goes through, one after the other, again and again.
pub(crate) const SCANNED: u16 = 1 << 15;

/// Appends code that derives the client's address from its number in r0, and one of the scanned ports.
fn varied_port(code: &mut Code) -> &mut Code {
    code.copy(CLIENT_PORT, 0).and(CLIENT_PORT, i32::from(SCANNED - 1));
    code.copy(ADDRESS, 0).shift_left32(ADDRESS, 8).or(ADDRESS, NET.into())
}

/// Appends code that derives the client's address and port from its number in r0: a multiplication by an odd
/// number is one-to-one.
fn client(code: &mut Code) -> &mut Code {
    /// 2³² divided by the golden ratio.
    const ODD: i32 = 0x9e37_79b9_u32.cast_signed();
    code.multiply32(0, ODD);
    code.copy(ADDRESS, 0).shift_left32(ADDRESS, 8).or(ADDRESS, NET.into());
    code.copy(CLIENT_PORT, 0).shift_right(CLIENT_PORT, 24);
    code.shift_left32(CLIENT_PORT, 8).or(CLIENT_PORT, PORT.into())
}

impl Code {
    /// Appends code that writes the whole frame: a recycled page contains what the stack has left in it.
    fn write(&mut self, template: &Template) -> &mut Self {
        for (offset, word) in (0..).step_by(4).zip(template.frame.chunks_exact(4)) {
            let word = i32::from_ne_bytes([word[0], word[1], word[2], word[3]]);
            self.store32_immediate(DATA, offset, word);
        }
        self.store32(DATA, template.address, ADDRESS).store16(DATA, template.port, CLIENT_PORT);
        self.copy(2, ADDRESS).and(2, 0xffff).copy(3, ADDRESS).shift_right(3, 16).add_register(2, 3);
        self.checksum(template, IP_CHECKSUM).add_register(2, CLIENT_PORT);
        if let Some(at) = template.checksum {
            self.checksum(template, at);
        }
        self
    }

    /// Appends code that writes a checksum: the template's one, updated by r2, which stays unchanged.
    fn checksum(&mut self, template: &Template, at: i16) -> &mut Self {
        self.copy(3, 2).add(3, (!template.halfword(at)).into());
        for _ in 0..2 {
            self.copy(4, 3).shift_right(4, 16).and(3, 0xffff).add_register(3, 4);
        }
        self.xor(3, 0xffff).store16(DATA, at, 3)
    }
}
