//! Writes the demo's traffic as a capture: the frames that the wire would have carried, with checksums.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};

use handshake_lab::demo::{
    ANSWERED, COMPLETED, NO_ACK, NO_SYN_ACK, PAUSE, REFUSED, ROUNDS, UNANSWERED, UNREACHABLE,
};

const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;

const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;

/// Addresses set aside for documentation (RFC 5737).
const CLIENT: [u8; 4] = [192, 0, 2, 1];
const SERVER: [u8; 4] = [192, 0, 2, 2];

/// The time from a packet to its answer.
const TRIP: Duration = Duration::from_micros(80);
/// The kernel's transmissions of a SYN or SYN+ACK without an answer: at once, after 1 s and after 3 s (RFC
/// 6298 §2, §5.5).
const TRIES: [Duration; 3] = [Duration::ZERO, Duration::from_secs(1), Duration::from_secs(3)];

/// An end of a conversation.
#[derive(Clone, Copy)]
struct DemoEnd {
    address: [u8; 4],
    port: u16,
}

/// A conversation between two ends.
#[derive(Clone, Copy)]
struct DemoTalk {
    initiator: DemoEnd,
    responder: DemoEnd,
    /// The initial sequence numbers of initiator and responder.
    isn: [u32; 2],
}

/// The demo's frames, each with its time since the beginning.
#[derive(Default)]
struct DemoCapture {
    frames: Vec<(Duration, Vec<u8>)>,
    /// The number of conversations so far: each has a port and sequence numbers of its own.
    talks: u16,
}

/// Writes the whole demo to `path`.
pub(super) fn write(path: &Path) -> Result<()> {
    let mut capture = DemoCapture::default();
    for round in 0..ROUNDS {
        capture.round(PAUSE * u32::from(round));
    }
    fs::write(path, capture.to_pcap()?).with_context(|| format!("write {}", path.display()))
}

impl DemoCapture {
    /// Adds every kind of traffic once, beginning at `at`.
    fn round(&mut self, at: Duration) {
        (0..COMPLETED.each).for_each(|_| self.completed(at));
        (0..REFUSED.each).for_each(|_| self.refused(at));
        (0..NO_SYN_ACK.each).for_each(|_| self.no_syn_ack(at));
        (0..NO_ACK.each).for_each(|_| self.no_ack(at));
        (0..ANSWERED.each).for_each(|_| self.answered(at));
        (0..UNANSWERED.each).for_each(|_| self.unanswered(at));
        (0..UNREACHABLE.each).for_each(|_| self.unreachable(at));
    }

    /// Begins a new conversation with the server's `port`. Initial sequence numbers are just below 2³², so
    /// that some wrap.
    fn talk(&mut self, address: [u8; 4], port: u16) -> DemoTalk {
        self.talks += 1;
        let number = u32::from(self.talks);
        let isn = [0xffff_fff0 + number % 16, number.wrapping_mul(0x9e37_79b9)];
        DemoTalk {
            initiator: DemoEnd { address, port: 40_000 + self.talks },
            responder: DemoEnd { address: SERVER, port },
            isn,
        }
    }

    fn completed(&mut self, at: Duration) {
        let talk = self.talk(CLIENT, 80);
        let [j, k] = talk.isn.map(|isn| isn.wrapping_add(1));
        let later = at + Duration::from_secs(4);
        self.ask(at, talk, j.wrapping_sub(1), 0, SYN, b"");
        self.answer(at + TRIP, talk, k.wrapping_sub(1), j, SYN | ACK, b"");
        self.ask(at + TRIP * 2, talk, j, k, ACK, b"");
        self.ask(at + TRIP * 3, talk, j, k, ACK, b"how are you");
        self.answer(at + TRIP * 4, talk, k, j.wrapping_add(11), ACK, b"well");
        self.ask(later, talk, j.wrapping_add(11), k.wrapping_add(4), FIN | ACK, b"");
        self.answer(later + TRIP, talk, k.wrapping_add(4), j.wrapping_add(12), FIN | ACK, b"");
        self.ask(later + TRIP * 2, talk, j.wrapping_add(12), k.wrapping_add(5), ACK, b"");
    }

    fn refused(&mut self, at: Duration) {
        let talk = self.talk(CLIENT, 81);
        self.ask(at, talk, talk.isn[0], 0, SYN, b"");
        self.answer(at + TRIP, talk, 0, talk.isn[0].wrapping_add(1), RST | ACK, b"");
    }

    fn no_syn_ack(&mut self, at: Duration) {
        let talk = self.talk(CLIENT, 82);
        for pause in TRIES {
            self.ask(at + pause, talk, talk.isn[0], 0, SYN, b"");
        }
    }

    fn no_ack(&mut self, at: Duration) {
        let talk = self.talk([198, 51, 100, 1], 80);
        self.ask(at, talk, talk.isn[0], 0, SYN, b"");
        for pause in TRIES {
            self.answer(at + pause + TRIP, talk, talk.isn[1], talk.isn[0].wrapping_add(1), SYN | ACK, b"");
        }
    }

    fn answered(&mut self, at: Duration) {
        let talk = self.datagram(at, 7);
        let back = ipv4(UDP, talk.responder, talk.initiator, udp(talk.responder, talk.initiator));
        self.push(at + TRIP, back);
    }

    fn unanswered(&mut self, at: Duration) {
        self.datagram(at, 9);
    }

    /// The server's error quotes the IP and UDP header of the packet (RFC 792: type 3, code 3).
    fn unreachable(&mut self, at: Duration) {
        let talk = self.datagram(at, 10);
        let sent = ipv4(UDP, talk.initiator, talk.responder, udp(talk.initiator, talk.responder));
        let mut error = vec![3, 3, 0, 0, 0, 0, 0, 0];
        error.extend_from_slice(&sent[..28]);
        let sum = checksum(&error);
        error[2..4].copy_from_slice(&sum);
        self.push(at + TRIP, ipv4(ICMP, talk.responder, talk.initiator, error));
    }

    /// Adds a datagram to the server's `port`.
    fn datagram(&mut self, at: Duration, port: u16) -> DemoTalk {
        let talk = self.talk(CLIENT, port);
        self.push(at, ipv4(UDP, talk.initiator, talk.responder, udp(talk.initiator, talk.responder)));
        talk
    }

    fn ask(&mut self, at: Duration, talk: DemoTalk, seq: u32, ack: u32, flags: u8, data: &[u8]) {
        self.segment(at, [talk.initiator, talk.responder], [seq, ack], flags, data);
    }

    fn answer(&mut self, at: Duration, talk: DemoTalk, seq: u32, ack: u32, flags: u8, data: &[u8]) {
        self.segment(at, [talk.responder, talk.initiator], [seq, ack], flags, data);
    }

    fn segment(
        &mut self,
        at: Duration,
        [from, to]: [DemoEnd; 2],
        [seq, ack]: [u32; 2],
        flags: u8,
        data: &[u8],
    ) {
        let mut segment = ports(from, to);
        segment.extend_from_slice(&seq.to_be_bytes());
        segment.extend_from_slice(&ack.to_be_bytes());
        // A header of five words and a window of 64,240 bytes; checksum and urgent pointer are still zero.
        segment.extend_from_slice(&[5 << 4, flags, 0xfa, 0xf0, 0, 0, 0, 0]);
        segment.extend_from_slice(data);
        let sum = checksum(&pseudo(TCP, from, to, &segment));
        segment[16..18].copy_from_slice(&sum);
        self.push(at, ipv4(TCP, from, to, segment));
    }

    /// Adds the packet in an Ethernet frame. The MAC addresses are the same in both directions: nothing
    /// depends on them.
    fn push(&mut self, at: Duration, packet: Vec<u8>) {
        let mut frame = vec![2, b'h', b's', 0, 0, 2, 2, b'h', b's', 0, 0, 1, 0x08, 0x00];
        frame.extend_from_slice(&packet);
        self.frames.push((at, frame));
    }

    /// The frames as a pcap file with microseconds, sorted by time, from a start that is easy to read.
    fn to_pcap(&self) -> Result<Vec<u8>> {
        /// 2026-01-01 12:00:00 UTC.
        const BEGINNING: Duration = Duration::from_secs(1_767_268_800);
        let mut file = Vec::new();
        // Magic; version 2.4; UTC; accuracy; snap length; Ethernet.
        for word in [0xa1b2_c3d4_u32, 0x0004_0002, 0, 0, 65_535, 1] {
            file.extend_from_slice(&word.to_le_bytes());
        }
        let mut frames: Vec<&(Duration, Vec<u8>)> = self.frames.iter().collect();
        frames.sort_by_key(|(at, _)| *at);
        for (at, frame) in frames {
            let time = BEGINNING + *at;
            let length = u32::try_from(frame.len()).context("a frame's length")?;
            let seconds = u32::try_from(time.as_secs()).context("a time past 2106")?;
            for word in [seconds, time.subsec_micros(), length, length] {
                file.extend_from_slice(&word.to_le_bytes());
            }
            file.extend_from_slice(frame);
        }
        Ok(file)
    }
}

/// A UDP datagram of five bytes of data.
fn udp(from: DemoEnd, to: DemoEnd) -> Vec<u8> {
    let mut datagram = ports(from, to);
    datagram.extend_from_slice(&[0, 13, 0, 0]);
    datagram.extend_from_slice(b"hello");
    let sum = checksum(&pseudo(UDP, from, to, &datagram));
    datagram[6..8].copy_from_slice(&sum);
    datagram
}

fn ports(from: DemoEnd, to: DemoEnd) -> Vec<u8> {
    [from.port.to_be_bytes(), to.port.to_be_bytes()].concat()
}

/// An IPv4 packet: TTL 64, Don't Fragment.
fn ipv4(protocol: u8, from: DemoEnd, to: DemoEnd, payload: Vec<u8>) -> Vec<u8> {
    let [high, low] = length(20 + payload.len());
    let mut packet = vec![0x45, 0, high, low, 0, 0, 0x40, 0, 64, protocol, 0, 0];
    packet.extend_from_slice(&from.address);
    packet.extend_from_slice(&to.address);
    let sum = checksum(&packet);
    packet[10..12].copy_from_slice(&sum);
    packet.extend(payload);
    packet
}

/// The bytes that the checksums of TCP and UDP cover: the pseudo-header (RFC 9293 §3.1), then the segment.
fn pseudo(protocol: u8, from: DemoEnd, to: DemoEnd, segment: &[u8]) -> Vec<u8> {
    [&from.address[..], &to.address, &[0, protocol], &length(segment.len()), segment].concat()
}

/// A length field. Packets here are far below its limit.
fn length(bytes: usize) -> [u8; 2] {
    u16::try_from(bytes).unwrap_or(u16::MAX).to_be_bytes()
}

/// The Internet checksum (RFC 1071).
fn checksum(bytes: &[u8]) -> [u8; 2] {
    let word = |pair: &[u8]| u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |low| u32::from(*low));
    let mut sum: u32 = bytes.chunks(2).map(word).sum();
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    let [_, _, high, low] = (!sum).to_be_bytes();
    [high, low]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole() -> DemoCapture {
        let mut capture = DemoCapture::default();
        capture.round(Duration::ZERO);
        capture
    }

    /// The example of RFC 1071 §3: these bytes sum to 0xddf2.
    #[test]
    fn the_checksum_of_the_rfc_s_example_is_right() {
        let sum = !u16::from_be_bytes(checksum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]));
        assert_eq!(sum, 0xddf2);
    }

    /// A receiver that sums everything, including the checksum, gets zero.
    #[test]
    fn all_checksums_are_right() {
        for (_, frame) in whole().frames {
            let packet = &frame[14..];
            assert_eq!(checksum(&packet[..20]), [0, 0], "IP: {frame:02x?}");
            let end = |at: usize| DemoEnd {
                address: [packet[at], packet[at + 1], packet[at + 2], packet[at + 3]],
                port: 0,
            };
            let covered = match packet[9] {
                ICMP => packet[20..].to_vec(),
                protocol => pseudo(protocol, end(12), end(16), &packet[20..]),
            };
            assert_eq!(checksum(&covered), [0, 0], "L4: {frame:02x?}");
        }
    }

    #[test]
    fn the_file_s_frames_are_sorted_by_time() {
        let file = whole().to_pcap().expect("short frames");
        let word = |at: usize| u32::from_le_bytes([file[at], file[at + 1], file[at + 2], file[at + 3]]);
        let (mut at, mut latest, mut count) = (24, (0, 0), 0);
        while at < file.len() {
            let time = (word(at), word(at + 4));
            assert!(time >= latest, "frame {count}");
            (latest, count) = (time, count + 1);
            at += 16 + word(at + 8) as usize;
        }
        assert_eq!((at, count), (file.len(), whole().frames.len()));
    }
}
