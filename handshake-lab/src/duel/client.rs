//! Plays scripts: sends their segments wave by wave, and notes what the server answers.

use std::collections::HashMap;
use std::io::ErrorKind;
use std::mem::MaybeUninit;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::net::sockopt::set_socket_recv_buffer_size_force;
use socket2::Socket;

use super::script::{Harm, MOST_WAVES, Script, Shot, Stamp};
use crate::frame::{BuiltSegment, Mac, Sender, checksum, flag, packet_socket, tcp_frame_with_options};
use crate::topology::Path;

/// IPv4 (include/uapi/linux/if_ether.h): what comes in, not what this host sends.
const ETH_P_IP: u16 = 0x0800;
/// The pause between two waves: longer than 10 ms, within which the same SYN is a copy.
const PAUSE: Duration = Duration::from_millis(15);
/// Frames sent before the server is waited for.
const BURST: usize = 64;

/// A SYN+ACK of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    /// K.
    pub(super) seq: u32,
    /// What it acknowledges.
    pub(super) ack: u32,
    /// Its window, never scaled.
    pub(super) window: u16,
    /// Its timestamp.
    pub(super) stamp: Option<u32>,
}

/// A segment as it was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sent {
    pub(super) shot: Shot,
    pub(super) wave: usize,
    pub(super) seq: u32,
    pub(super) ack: u32,
}

/// A conversation and what was said.
#[derive(Clone, Debug)]
pub(super) struct Conversation {
    pub(super) script: Script,
    pub(super) sent: Vec<Sent>,
    pub(super) answers: Vec<Answer>,
}

impl Conversation {
    pub(super) fn new(script: Script) -> Self {
        Self { script, sent: Vec::new(), answers: Vec::new() }
    }

    /// The latest SYN+ACK to the J of this number: it acknowledges J+1, and as much as the SYN's data more.
    fn answer_to(&self, of: usize) -> Option<Answer> {
        let after = self.script.isns[of].wrapping_add(1);
        let fits = |answer: &&Answer| answer.ack.wrapping_sub(after) <= 1400;
        self.answers.iter().rev().find(fits).copied()
    }

    /// J+1 of the SYN that a SYN+ACK acknowledges, with the SYN's data or without.
    pub(super) fn first_after(&self, answer: &Answer) -> u32 {
        let fits = |sent: &&Sent| {
            let ahead = answer.ack.wrapping_sub(sent.seq).wrapping_sub(1);
            sent.shot.has(flag::SYN) && (ahead == 0 || ahead == u32::from(sent.shot.data))
        };
        self.sent.iter().find(fits).map_or(answer.ack, |syn| syn.seq.wrapping_add(1))
    }

    /// The segment with the numbers as they are now.
    fn aim(&self, shot: Shot, wave: usize) -> (Sent, Option<Answer>) {
        let j = self.script.isns[shot.of];
        let answer = self.answer_to(shot.of);
        let next = answer.map_or(j.wrapping_add(1), |answer| answer.ack);
        let seq = if shot.has(flag::SYN) { j } else { next }.wrapping_add(shot.seq);
        let k = answer.map_or(self.script.guess, |answer| answer.seq);
        let ack = if shot.has(flag::ACK) { k.wrapping_add(1).wrapping_add(shot.ack) } else { 0 };
        (Sent { shot, wave, seq, ack }, answer)
    }

    /// The TCP options of a segment.
    fn options(&self, sent: &Sent, answer: Option<Answer>) -> Vec<u8> {
        let mut options = Vec::new();
        if sent.shot.has(flag::SYN) {
            // MSS 1460.
            options.extend_from_slice(&[2, 4, 5, 180]);
            if self.script.scales {
                options.extend_from_slice(&[1, 3, 3, 7]);
            }
        }
        if let Some(first) = self.script.stamps {
            let wave = u32::try_from(sent.wave).unwrap_or_default();
            let now = first.wrapping_add(20 * wave);
            let value = if sent.shot.stamp == Stamp::Old { now.wrapping_sub(100_000) } else { now };
            let echo = answer.and_then(|answer| answer.stamp).unwrap_or_default();
            let echo = if sent.shot.has(flag::ACK) { echo } else { 0 };
            let echo = if sent.shot.stamp == Stamp::WrongEcho { echo ^ 0x4000_0000 } else { echo };
            options.extend_from_slice(&[1, 1, 8, 10]);
            options.extend_from_slice(&value.to_be_bytes());
            options.extend_from_slice(&echo.to_be_bytes());
        }
        options
    }

    /// The frames of a segment: one, or two fragments.
    fn frames(
        &self,
        macs: [Mac; 2],
        to: SocketAddr,
        sent: &Sent,
        answer: Option<Answer>,
    ) -> Result<Vec<Vec<u8>>> {
        let payload = vec![b'x'; usize::from(sent.shot.data)];
        let source = SocketAddr::V4(self.script.client);
        let (seq, ack, flags) = (sent.seq, sent.ack, sent.shot.flags);
        let segment = BuiltSegment { source, destination: to, seq, ack, flags, payload: &payload };
        let options = self.options(sent, answer);
        let mut frame = tcp_frame_with_options(macs, &segment, &options)?;
        let header = 20 + options.len();
        let id = u16::try_from(self.sent.len() + 1).unwrap_or_default();
        Ok(match sent.shot.harm {
            Harm::None => vec![frame],
            Harm::Checksum => {
                frame[TCP_CHECKSUM] ^= 0x55;
                vec![frame]
            }
            Harm::Lost => {
                frame[IP_CHECKSUM] ^= 0x55;
                vec![frame]
            }
            Harm::Fragments => fragments(&frame, id, header.next_multiple_of(8) + 8),
            Harm::SplitHeader => fragments(&frame, id, if id % 2 == 0 { 8 } else { 16 }),
            Harm::LostTail => {
                let mut both = fragments(&frame, id, header.next_multiple_of(8) + 8);
                both.truncate(1);
                both
            }
        })
    }
}

const IP: usize = 14;
const IP_CHECKSUM: usize = IP + 10;
const TCP: usize = IP + 20;
const TCP_CHECKSUM: usize = TCP + 16;

/// The IPv4 packet of `frame` as two fragments (RFC 791 §3.2); `first` bytes of TCP, a multiple of eight, are
/// in the first.
fn fragments(frame: &[u8], id: u16, first: usize) -> Vec<Vec<u8>> {
    const MORE: u16 = 0x2000;
    let fragment = |part: &[u8], offset: u16| {
        let mut fragment = [&frame[..TCP], part].concat();
        let length = u16::try_from(20 + part.len()).unwrap_or(u16::MAX);
        fragment[IP + 2..IP + 4].copy_from_slice(&length.to_be_bytes());
        fragment[IP + 4..IP + 6].copy_from_slice(&id.to_be_bytes());
        fragment[IP + 6..IP + 8].copy_from_slice(&offset.to_be_bytes());
        fragment[IP + 10..IP + 12].copy_from_slice(&[0; 2]);
        let sum = checksum(&[&fragment[IP..TCP]]);
        fragment[IP + 10..IP + 12].copy_from_slice(&sum.to_be_bytes());
        fragment
    };
    let (head, tail) = frame[TCP..].split_at(first);
    vec![fragment(head, MORE), fragment(tail, u16::try_from(first / 8).unwrap_or_default())]
}

/// The client of many conversations at once. Its addresses belong to no host, so that no kernel answers for
/// it.
pub(super) struct Client {
    sender: Sender,
    receiver: Socket,
    macs: [Mac; 2],
}

impl Client {
    pub(super) fn new(path: &Path<'_>) -> Result<Self> {
        let receiver = packet_socket(path.client, path.device, ETH_P_IP)?;
        set_socket_recv_buffer_size_force(&receiver, 32 << 20).context("enlarge a packet socket's buffer")?;
        receiver.set_nonblocking(true)?;
        Ok(Self { sender: Sender::new(path.client, path.device)?, receiver, macs: path.macs })
    }

    /// Plays the conversations against `server`. `settle` waits until the server has accepted what it may;
    /// `look` is called after each wave.
    pub(super) fn play(
        &mut self,
        conversations: &mut [Conversation],
        server: SocketAddr,
        mut settle: impl FnMut() -> Result<()>,
        mut look: impl FnMut() -> Result<()>,
    ) -> Result<()> {
        let places: HashMap<SocketAddrV4, usize> =
            conversations.iter().enumerate().map(|(at, each)| (each.script.client, at)).collect();
        for wave in 0..=MOST_WAVES {
            crate::interrupt::check()?;
            let until = Instant::now() + PAUSE;
            let mut left = BURST;
            for at in 0..conversations.len() {
                let shots = conversations[at].script.waves.get(wave).cloned().unwrap_or_default();
                for shot in shots {
                    let conversation = &mut conversations[at];
                    let (sent, answer) = conversation.aim(shot, wave);
                    for frame in conversation.frames(self.macs, server, &sent, answer)? {
                        self.sender.send(&frame)?;
                    }
                    conversation.sent.push(sent);
                    left -= 1;
                    if left == 0 {
                        settle()?;
                        self.listen(conversations, &places)?;
                        left = BURST;
                    }
                }
            }
            settle()?;
            while Instant::now() < until {
                thread::sleep(Duration::from_millis(1));
                self.listen(conversations, &places)?;
            }
            // The pause is after the last answer too, however long the wave took.
            thread::sleep(PAUSE);
            self.listen(conversations, &places)?;
            look()?;
        }
        Ok(())
    }

    /// Notes the SYN+ACKs that have come.
    fn listen(
        &mut self,
        conversations: &mut [Conversation],
        places: &HashMap<SocketAddrV4, usize>,
    ) -> Result<()> {
        let mut buffer = [MaybeUninit::<u8>::uninit(); 256];
        loop {
            match self.receiver.recv(&mut buffer) {
                Ok(length) => {
                    // SAFETY: the kernel has written the first `length` bytes, which fit the buffer.
                    let frame = unsafe { buffer[..length].assume_init_ref() };
                    if let Some((to, answer)) = syn_ack(frame)
                        && let Some(at) = places.get(&to)
                    {
                        conversations[*at].answers.push(answer);
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error).context("receive from a packet socket"),
            }
        }
    }
}

/// The end that a SYN+ACK over IPv4 is sent to, and what it says; `None` for any other frame.
fn syn_ack(frame: &[u8]) -> Option<(SocketAddrV4, Answer)> {
    const PROTOCOL: u8 = 6;
    let tcp = frame.get(TCP..)?;
    let flags = *tcp.get(13)?;
    if *frame.get(IP + 9)? != PROTOCOL || flags & (flag::SYN | flag::ACK | flag::RST) != flag::SYN | flag::ACK
    {
        return None;
    }
    let word = |bytes: &[u8], at: usize| Some(u32::from_be_bytes(*bytes.get(at..)?.first_chunk()?));
    let half = |at: usize| Some(u16::from_be_bytes(*tcp.get(at..)?.first_chunk()?));
    let to = SocketAddrV4::new(Ipv4Addr::from(word(frame, IP + 16)?), half(2)?);
    let mut options = tcp.get(20..usize::from(*tcp.get(12)? >> 4) * 4)?;
    let mut stamp = None;
    while let [kind, rest @ ..] = options {
        match (kind, rest.first()) {
            (0, _) => break,
            (1, _) => options = rest,
            (8, Some(_)) => {
                stamp = word(options, 2);
                break;
            }
            (_, Some(length @ 2..)) => options = options.get(usize::from(*length)..)?,
            _ => break,
        }
    }
    Some((to, Answer { seq: word(tcp, 4)?, ack: word(tcp, 8)?, window: half(14)?, stamp }))
}
