//! A flood as live frames: an XDP program that makes another client each time it runs, whose frames the kernel puts
//! on the wire (`BPF_F_TEST_XDP_LIVE_FRAMES`), one to two million a second from one CPU.
//!
//! ```text
//! client: makes frames ─▶ veth ─▶ server: XDP, TC ─▶ stack       census: counts what passed a hook
//! ```

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::time::{ClockId, clock_gettime};

use crate::bpf::{self, Code, Hook, Program, Register, When};
use crate::frame::{Mac, Segment, checksum, flag, interface_index, tcp_frame};
use crate::namespace::Namespace;
use crate::topology::Path;

/// Whom a flood's frames are from: the census knows them by it.
pub(crate) const MAC: Mac = Mac([2, b'h', b's', 0xf1, 0x00, 0xd0]);
/// Bytes of a flood's frame: the shortest on a wire.
const FRAME: usize = 60;
/// J of all attempts.
const ISN: u32 = 0x1234_5678;
/// The first byte of all clients' addresses, and of their ports.
const NET: u8 = 10;
const PORT: u8 = 0x40;

/// Where in an Ethernet frame an IPv4 header without options has its addresses and its checksum, and what follows it
/// its ports and its own.
const SOURCE: i16 = 26;
const DESTINATION: i16 = 30;
const SOURCE_PORT: i16 = 34;
const DESTINATION_PORT: i16 = 36;
const IP_CHECKSUM: i16 = 24;
const TCP_CHECKSUM: i16 = 50;

/// What every frame of a flood is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The first packet of an attempt, of a client that nobody has met.
    Syn,
    /// A packet in the middle of a connection that nobody has met.
    Ack,
    /// A datagram of a flow that nobody has met.
    Udp,
    /// By turns the first packet of an attempt, and the RST that refuses it, as at a mirror port.
    Refused,
}

/// Frames from clients in 10.0.0.0/8 that do not exist, no two alike within 2³² of them. Their checksums are right.
#[derive(Debug)]
pub struct Flood<'a> {
    client: &'a Namespace,
    program: OwnedFd,
    made: AtomicU64,
    processor_ns: AtomicU64,
    _number: OwnedFd,
}

impl<'a> Flood<'a> {
    /// Loads the program that makes frames to `to`, an IPv4 address of `path`'s server. The server's device must take
    /// frames from XDP: with a native program of its own, or with GRO ([`Flood::open`]).
    ///
    /// # Errors
    /// Without CAP_BPF and CAP_NET_ADMIN.
    pub fn new(path: &Path<'a>, to: SocketAddr, kind: Kind) -> Result<Self> {
        let number = bpf::words(1)?;
        let device = path.client.enter(|| interface_index(path.device))?;
        let templates = kind.templates(path.macs[1], to)?;
        let program = Program::of("flood", code(&templates, &number, device)?);
        let program = bpf::load(Hook::XdpNative, &program)?;
        Ok(Self {
            client: path.client,
            program,
            made: AtomicU64::new(0),
            processor_ns: AtomicU64::new(0),
            _number: number,
        })
    }

    /// Has the server's device take frames from XDP without an XDP program of its own, and both ends know where a flood's
    /// clients would be: what is sent to them is lost at the client's end.
    ///
    /// # Errors
    /// Of ethtool and iproute2.
    pub fn open(path: &Path<'_>) -> Result<()> {
        path.server.offload(path.device, "gro", true)?;
        path.server.ip(&[&format!("route add {NET}.0.0.0/8 via {}", path.source)])?;
        path.client.ip(&[&format!("route add blackhole {NET}.0.0.0/8")])
    }

    /// Makes `count` frames. The more at once, the faster: to begin and to end takes the kernel some ten milliseconds.
    ///
    /// # Errors
    /// The kernel refuses: the device has gone.
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

    /// Frames made up to now; not all of them reached the far end.
    #[must_use]
    pub fn made(&self) -> u64 {
        self.made.load(Ordering::Relaxed)
    }

    /// For how long the thread that made them had a CPU. The far end takes frames in as softirqs on the same CPU, nearly
    /// always in this thread's time: on a machine that others use too, the rate is told by this and not by the clock.
    #[must_use]
    pub fn processor_time(&self) -> Duration {
        Duration::from_nanos(self.processor_ns.load(Ordering::Relaxed))
    }
}

/// Of the calling thread, since it began.
fn processor_time() -> Result<Duration> {
    clock_gettime(ClockId::ThreadCPUTime).try_into().context("a thread's time")
}

/// A frame but for its client, and where its client goes.
struct Template {
    frame: Vec<u8>,
    address: i16,
    port: i16,
    /// Of what follows the IP header, where that has one.
    checksum: Option<i16>,
}

impl Kind {
    fn templates(self, server_mac: Mac, to: SocketAddr) -> Result<Vec<Template>> {
        let syn = || Template::tcp(server_mac, to, (flag::SYN, ISN, 0), true);
        Ok(match self {
            Self::Syn => vec![syn()?],
            Self::Ack => vec![Template::tcp(server_mac, to, (flag::ACK, ISN, ISN), true)?],
            Self::Udp => vec![Template::udp(server_mac, to)?],
            Self::Refused => {
                let numbers = (flag::RST | flag::ACK, 0, ISN.wrapping_add(1));
                vec![syn()?, Template::tcp(server_mac, to, numbers, false)?]
            }
        })
    }
}

impl Template {
    /// A segment to the server (`forth`), or from it.
    fn tcp(mac: Mac, server: SocketAddr, numbers: (u8, u32, u32), forth: bool) -> Result<Self> {
        let (flags, seq, ack) = numbers;
        let nobody = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);
        let (source, destination) = if forth { (nobody, server) } else { (server, nobody) };
        let mut frame =
            tcp_frame([MAC, mac], &Segment { source, destination, seq, ack, flags, payload: &[] })?;
        frame.resize(FRAME, 0);
        let (address, port) = if forth { (SOURCE, SOURCE_PORT) } else { (DESTINATION, DESTINATION_PORT) };
        Ok(Self { frame, address, port, checksum: Some(TCP_CHECKSUM) })
    }

    /// A datagram to the server, without a checksum of its own (RFC 768).
    fn udp(mac: Mac, server: SocketAddr) -> Result<Self> {
        const UDP: u8 = 17;
        let mut template = Self::tcp(mac, server, (0, 0, 0), true)?;
        let frame = &mut template.frame;
        // As many bytes behind the IP header as TCP's header had, 8 of them UDP's own.
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
/// The client's address as it lies in memory, then its port.
const ADDRESS: Register = 8;
const CLIENT_PORT: Register = 9;

/// The program. The `n`-th run makes the template `n % templates`, with the client `n / templates`.
fn code(templates: &[Template], number: &OwnedFd, device: u32) -> Result<Code> {
    const REDIRECT: i32 = 23;
    let mut code = Code::default();
    code.copy(CONTEXT, 1).load32(DATA, CONTEXT, 0).load32(2, CONTEXT, 4);
    code.copy(3, DATA).add(3, i32::try_from(FRAME)?);
    let short = code.jump(When::Above(3, 2));
    code.value(1, number).set(0, 1).fetch_add(1, 0);
    let [first, rest @ ..] = templates else { bail!("a flood of nothing") };
    match rest {
        [] => client(&mut code).write(first),
        [second] => {
            code.copy(1, 0).and(1, 1).shift_right(0, 1);
            client(&mut code);
            let other = code.jump(When::Differs(1, 0));
            code.write(first);
            let end = code.jump(When::Always);
            code.land(other).write(second);
            code.land(end)
        }
        _ => bail!("a flood of more than two kinds"),
    };
    code.set(1, i32::try_from(device)?).set(2, 0).call(REDIRECT).exit();
    code.land(short).set(0, 0).exit();
    Ok(code)
}

/// The client's address and port out of its number in r0: a multiplication by an odd number loses nothing.
fn client(code: &mut Code) -> &mut Code {
    /// 2³² by the golden ratio.
    const ODD: i32 = 0x9e37_79b9_u32.cast_signed();
    code.multiply32(0, ODD);
    code.copy(ADDRESS, 0).shift_left32(ADDRESS, 8).or(ADDRESS, NET.into());
    code.copy(CLIENT_PORT, 0).shift_right(CLIENT_PORT, 24);
    code.shift_left32(CLIENT_PORT, 8).or(CLIENT_PORT, PORT.into())
}

impl Code {
    /// Writes the whole frame: its page comes back from the far end as the stack has left it.
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

    /// Writes a checksum: what was there without a client, and r2, which it keeps.
    fn checksum(&mut self, template: &Template, at: i16) -> &mut Self {
        self.copy(3, 2).add(3, (!template.halfword(at)).into());
        for _ in 0..2 {
            self.copy(4, 3).shift_right(4, 16).and(3, 0xffff).add_register(3, 4);
        }
        self.xor(3, 0xffff).store16(DATA, at, 3)
    }
}
