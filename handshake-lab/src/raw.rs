//! A TCP client without a kernel behind it: it sends what a test says, and nothing else answers for it.

use std::collections::HashMap;
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use socket2::Socket;

use crate::frame::{BuiltSegment, Mac, Sender, flag, packet_socket, tcp_frame};
use crate::topology::Path;

/// IPv4 (include/uapi/linux/if_ether.h): what comes in, not what this host sends.
const ETH_P_IP: u16 = 0x0800;
/// The time to wait for an answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// A client at unassigned addresses of a path, IPv4 only.
#[derive(Debug)]
pub struct RawClient {
    sender: Sender,
    receiver: Socket,
    macs: [Mac; 2],
}

/// What a server answered: its K, and the number that it acknowledges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SynAck {
    /// The sequence number.
    pub seq: u32,
    /// The acknowledgement number.
    pub ack: u32,
}

impl RawClient {
    /// A client on the path's device.
    ///
    /// # Errors
    /// Without CAP_NET_RAW.
    pub fn new(path: &Path<'_>) -> Result<Self> {
        let receiver = packet_socket(path.client, path.device, ETH_P_IP)?;
        receiver.set_read_timeout(Some(Duration::from_millis(20))).context("set a timeout")?;
        receiver.set_recv_buffer_size(16 << 20).context("enlarge the buffer")?;
        Ok(Self { sender: Sender::new(path.client, path.device)?, receiver, macs: path.macs })
    }

    /// The frame of a segment from `source` to `destination`.
    ///
    /// # Errors
    /// The ends are of different families.
    pub fn frame(&self, segment: &BuiltSegment<'_>) -> Result<Vec<u8>> {
        tcp_frame(self.macs, segment)
    }

    /// Sends a frame as it is.
    ///
    /// # Errors
    /// The device refuses the frame.
    pub fn send(&mut self, frame: &[u8]) -> Result<()> {
        self.sender.send(frame)
    }

    /// Waits for the SYN+ACK to each of these ends, and returns the first of each.
    ///
    /// # Errors
    /// One did not come.
    pub fn syn_acks(&mut self, of: &[SocketAddr]) -> Result<HashMap<SocketAddr, SynAck>> {
        let (mut found, until) = (HashMap::new(), Instant::now() + PATIENCE);
        while found.len() < of.len() {
            anyhow::ensure!(Instant::now() < until, "{} of {} SYN+ACKs came", found.len(), of.len());
            let mut buffer = [MaybeUninit::<u8>::uninit(); 2048];
            let Ok(length) = self.receiver.recv(&mut buffer) else { continue };
            // SAFETY: the kernel has written the first `length` bytes.
            let bytes: Vec<u8> = buffer[..length].iter().map(|byte| unsafe { byte.assume_init() }).collect();
            if let Some((end, answer)) = syn_ack(&bytes).filter(|(end, _)| of.contains(end)) {
                found.entry(end).or_insert(answer);
            }
        }
        Ok(found)
    }
}

/// The end that a SYN+ACK over IPv4 is sent to, and its numbers; `None` for any other frame.
fn syn_ack(frame: &[u8]) -> Option<(SocketAddr, SynAck)> {
    const TCP: u8 = 6;
    let ip = frame.get(14..)?;
    let header = usize::from(ip.first()? & 0xf) * 4;
    let tcp = ip.get(header..)?;
    let flags = *tcp.get(13)?;
    if *ip.get(9)? != TCP || flags & (flag::SYN | flag::ACK | flag::RST) != flag::SYN | flag::ACK {
        return None;
    }
    let to = std::net::Ipv4Addr::from(*ip.get(16..)?.first_chunk::<4>()?);
    let word =
        |at: usize| tcp.get(at..).and_then(|rest| rest.first_chunk::<4>()).map(|w| u32::from_be_bytes(*w));
    let port = u16::from_be_bytes(*tcp.get(2..)?.first_chunk::<2>()?);
    Some((SocketAddr::new(to.into(), port), SynAck { seq: word(4)?, ack: word(8)? }))
}
