//! Generates packets for the differential test: plausible conversations, with noise. The same seed gives the
//! same packets.

use handshake_common::random::split_mix;
use handshake_common::wire::build::FrameBuilder;
use handshake_common::wire::{Link, flag};

/// A random number generator.
pub(super) struct Random(u64);

impl Random {
    pub(super) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) fn word(&mut self) -> u64 {
        split_mix(&mut self.0)
    }

    /// A number from 0 to `bound` - 1.
    pub(super) fn below(&mut self, bound: usize) -> usize {
        let below = self.word() % bound as u64;
        usize::try_from(below).expect("below a usize")
    }

    pub(super) fn one_in(&mut self, chances: usize) -> bool {
        self.below(chances) == 0
    }

    pub(super) fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }

    fn byte(&mut self) -> u8 {
        self.word().to_le_bytes()[0]
    }

    /// As [`below`](Self::below), in 32 bits.
    #[expect(clippy::cast_possible_truncation, reason = "any 32 bits are as good")]
    fn small(&mut self, bound: usize) -> u32 {
        self.below(bound) as u32
    }

    fn port(&mut self, bound: usize) -> u16 {
        u16::try_from(self.below(bound)).expect("a bound of a port")
    }
}

/// The courses of conversations, one letter per packet: upper case from the initiator, lower case from the
/// responder. S: a SYN, O: a SYN with data, Y: a SYN+ACK, A: an ACK, D: an ACK with data, F: a FIN, R: a RST,
/// U: an ICMP error that quotes the side, X: random flags. Numbers of a second conversation on the same ends:
/// Z: its SYN, W: the SYN+ACK that answers the other side's, C: its ACK. T: a RST without ACK, B: an ACK
/// beyond the window, P: a SYN+ACK with data. Of the first bytes, G: an ACK of data, H: an answer to it, K: a
/// keep-alive. Over UDP, every letter except U is a packet, and E is between
/// the initiator and another port of the responder, or a host that the initiator's query to a group reached.
const PLOTS: [&[u8]; 40] = [
    b"SZyA",
    b"SZwC",
    b"SZwyA",
    b"SZywC",
    b"SZyS",
    b"SyZAd",
    b"SyZwC",
    b"SyZwA",
    b"SyAZaZwC",
    b"SyAzWcD",
    b"SyRAt",
    b"SprABAd",
    b"SyAdDdFfA",
    b"SyADDDDR",
    b"Sr",
    b"SSrS",
    b"SSyyA",
    b"SyAyA",
    b"SyRSyA",
    b"Syr",
    b"SsYyAD",
    b"SsYAa",
    b"OyAd",
    b"OydA",
    b"SyDF",
    b"SyADgh",
    b"SyADgKgKgh",
    b"SyDgf",
    b"SyDgDgDgR",
    b"SyKkDgFh",
    b"yASD",
    b"ySA",
    b"ADdf",
    b"SU",
    b"SUyA",
    b"SSSSSS",
    b"SyyyyUu",
    b"SeEe",
    b"SeSe",
    b"SeU",
];
const LETTERS: &[u8] = b"SsOoYyAaDdFfRrUuXxZzWwCcTtBbPpEeGgHhKk";
/// A group, a broadcast address, and one that only the frame tells.
const GROUPS: [u32; 3] = [0xe000_00fb, u32::MAX, 0x0a00_00ff];

/// A conversation of the generator.
#[derive(Clone, Copy)]
struct Flow {
    udp: bool,
    ipv6: bool,
    /// The addresses (their varying word) and ports of the initiator and the responder.
    ends: [(u32, u16); 2],
    isn: [u32; 2],
    plot: &'static [u8],
    next: usize,
}

/// The number and the variety of the flows.
#[derive(Clone, Copy)]
pub(super) struct Scope {
    /// The number of simultaneous conversations.
    pub(super) flows: usize,
    /// Whether servers listen on any port: this makes more services than the table has rows.
    pub(super) any_port: bool,
    /// Whether UDP is answered from elsewhere too.
    pub(super) elsewhere: bool,
    /// Whether there are handshakes without incident alone, in frames without noise.
    pub(super) smooth: bool,
}

/// An endless stream of frames.
pub(super) struct Generator {
    pub(super) random: Random,
    flows: Vec<Flow>,
    scope: Scope,
    frames: u32,
}

/// One frame in so many is a request that the next frame answers from elsewhere. Chance alone brings few: with
/// some seeds none where tables are small or filters apply.
const ELSEWHERE_EVERY: u32 = 100;

impl Generator {
    pub(super) fn new(seed: u64, scope: Scope) -> Self {
        let mut random = Random::new(seed);
        let flows = (0..scope.flows).map(|_| flow(&mut random, scope)).collect();
        Self { random, flows, scope, frames: 0 }
    }

    /// The next frame: usually the next packet of a conversation, sometimes corrupted.
    pub(super) fn frame(&mut self) -> Vec<u8> {
        self.frames += 1;
        if self.scope.smooth {
            return self.next_of_a_handshake();
        }
        match (self.scope.elsewhere, self.frames % ELSEWHERE_EVERY) {
            (true, 0) => asked(self.frames / ELSEWHERE_EVERY, false),
            (true, 1) if self.frames > 1 => asked(self.frames / ELSEWHERE_EVERY, true),
            _ => self.next_of_a_flow(),
        }
    }

    fn next_of_a_flow(&mut self) -> Vec<u8> {
        let place = self.random.below(self.flows.len());
        let flow = self.flows[place];
        let ended = flow.next >= flow.plot.len();
        self.flows[place].next += 1;
        if ended && self.random.one_in(2) {
            self.flows[place] = self.successor(&flow);
        }
        let strays = ended || self.random.one_in(5);
        let letter = if strays { self.random.pick(LETTERS) } else { flow.plot[flow.next] };
        let mut built = packet(&mut self.random, self.scope, &flow, letter);
        if !flow.udp && !self.random.one_in(4) {
            built = built.with_tcp_checksum();
        }
        let mut bytes = built.bytes().to_vec();
        if self.random.one_in(5) {
            mangle(&mut self.random, &built, &mut bytes);
        }
        if self.random.one_in(100) {
            bytes.resize(bytes.len() + self.random.below(2500), 0);
        }
        bytes
    }

    /// The next segment of a handshake. Of what was drawn for its flow, only ends and numbers count.
    fn next_of_a_handshake(&mut self) -> Vec<u8> {
        let place = self.random.below(self.flows.len());
        let Flow { ipv6, ends, isn: [j, k], next, .. } = self.flows[place];
        self.flows[place].next += 1;
        let (next_j, next_k) = (j.wrapping_add(1), k.wrapping_add(1));
        let (flags, seq, ack) = match next {
            0 => (flag::SYN, j, 0),
            1 => (flag::SYN | flag::ACK, k, next_j),
            _ => {
                self.flows[place] = flow(&mut self.random, self.scope);
                (flag::ACK, next_j, next_k)
            }
        };
        let (from, to) = if next == 1 { (ends[1], ends[0]) } else { (ends[0], ends[1]) };
        let frame = address(FrameBuilder::new(Link::Ethernet), ipv6, from.0, to.0).tcp(flags, seq, ack);
        let options = self.random.pick(&[0, 12, 40]);
        frame.tcp_options(&[1; 40][..options]).between(from.1, to.1).bytes().to_vec()
    }

    /// The conversation after `old`: other ends, or the same ends with other numbers, as when a port is used
    /// again.
    fn successor(&mut self, old: &Flow) -> Flow {
        let fresh = flow(&mut self.random, self.scope);
        if self.random.one_in(2) { fresh } else { Flow { isn: fresh.isn, plot: fresh.plot, next: 0, ..*old } }
    }
}

/// A request that is answered from another port, or its answer. All filters let it pass, and each number has
/// ends of its own for a while.
fn asked(number: u32, is_answer: bool) -> Vec<u8> {
    let (client, server) = (0x0a00_0000 + number % 32, 0x0a00_0100 + number / 32 % 4);
    let (from, to) = if is_answer { (server, client) } else { (client, server) };
    let frame = address(FrameBuilder::new(Link::Ethernet), number % 2 == 1, from, to).udp();
    let frame = if is_answer { frame.between(53 ^ 0x4000, 40_003) } else { frame.between(40_003, 53) };
    frame.bytes().to_vec()
}

fn flow(random: &mut Random, scope: Scope) -> Flow {
    let client = (0x0a00_0000 | random.small(64), 40_000 + random.port(16));
    let listens = if scope.any_port { random.port(1 << 16) } else { random.pick(&[80, 443, 22, 53]) };
    let server = (0x0a00_0100 | random.small(4), listens);
    let ends = match random.below(12) {
        0 => [server, client],
        1 => [client, (client.0, server.1)],
        2 if random.one_in(4) => [client, client],
        3 => [client, (random.pick(&GROUPS), random.pick(&[5353, 1900]))],
        _ => [client, server],
    };
    // Sequence numbers that cross 2³² within the handshake, and 0, which is a valid one.
    let (j, k) = (random.small(usize::MAX), random.small(usize::MAX));
    Flow {
        udp: random.one_in(4),
        ipv6: random.one_in(3),
        ends,
        isn: [random.pick(&[0, u32::MAX, j]), random.pick(&[0, u32::MAX - 1, k])],
        plot: random.pick(&PLOTS),
        next: 0,
    }
}

/// Builds the packet of a flow that a letter stands for.
fn packet(random: &mut Random, scope: Scope, flow: &Flow, letter: u8) -> FrameBuilder {
    let side = usize::from(letter.is_ascii_lowercase());
    let mut ends = flow.ends;
    if scope.elsewhere && flow.udp && letter.eq_ignore_ascii_case(&b'E') {
        ends[1] = elsewhere(random, ends[1]);
    }
    let (from, to) = (ends[side], ends[1 - side]);
    let link = link(random);
    if letter.eq_ignore_ascii_case(&b'U') {
        return unreachable(random, link, flow, side);
    }
    let network = network(random, link, flow.ipv6, from.0, to.0);
    let whole = transport(random, network, flow, side, letter).between(from.1, to.1);
    // Ethernet pads a frame to sixty bytes, and sometimes a switch adds its own padding.
    match random.below(4) {
        0 if whole.bytes().len() < 60 => whole.padding(&[0; 60][whole.bytes().len()..]),
        1 if random.one_in(8) => whole.padding(&[0xaa; 7]),
        _ => whole,
    }
}

/// Where else a request to this end is answered from.
fn elsewhere(random: &mut Random, (address, port): (u32, u16)) -> (u32, u16) {
    let other = port ^ 0x4000;
    if GROUPS.contains(&address) { (0x0a00_0100, random.pick(&[port, other])) } else { (address, other) }
}

/// An Ethernet header, often with shims behind it: as many as are walked, and one more.
fn link(random: &mut Random) -> FrameBuilder {
    let shims = random.pick(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 3, 4, 8, 9]);
    (0..shims).fold(FrameBuilder::new(Link::Ethernet), |frame, at| shim(random, frame, at + 1 == shims))
}

fn shim(random: &mut Random, frame: FrameBuilder, is_last: bool) -> FrameBuilder {
    match random.below(8) {
        0 | 1 => frame.mpls(is_last && !random.one_in(8)),
        2 => frame.pppoe(),
        3 => frame.snap(random.pick(&[[0; 3], [0, 0, 0xf8], [0, 0, 0x0c]])),
        4 => frame.metadata(),
        _ => frame.vlan(random.pick(&[0x8100, 0x88a8, 0x9100, 0x9200])),
    }
}

/// An IP header, sometimes with options, extension headers or a fragment header.
fn network(random: &mut Random, frame: FrameBuilder, ipv6: bool, from: u32, to: u32) -> FrameBuilder {
    let mut frame = address(frame, ipv6, from, to);
    if random.one_in(8) {
        let count = random.pick(&[1, 1, 2, 3, 8, 9]);
        frame =
            if ipv6 { extensions(random, frame, count) } else { frame.ipv4_options(&[1; 40][..4 * count]) };
    }
    if !ipv6 && random.one_in(16) {
        let length = random.pick(&[1, 4, 4]);
        frame = frame.extension(51, length);
    }
    if random.one_in(16) {
        let offset = random.pick(&[0, 0, 1, 0x1fff]);
        frame = frame.fragment(offset, random.one_in(2));
    }
    frame
}

fn address(frame: FrameBuilder, ipv6: bool, from: u32, to: u32) -> FrameBuilder {
    if !ipv6 {
        return frame.ipv4(from, to);
    }
    // The ends differ in different words, so that comparisons depend on each word.
    let wide = |word: u32| match word & 3 {
        0 => [0x2001_0db8, 0, 0, word],
        1 => [0x2001_0db8, 0, word, 1],
        2 => [0x2001_0db8, word, 0, 1],
        _ => [word << 4 | 0xff00_000f, 0, 0, 1],
    };
    frame.ipv6(wide(from), wide(to))
}

fn extensions(random: &mut Random, frame: FrameBuilder, count: usize) -> FrameBuilder {
    (0..count).fold(frame, |frame, _| {
        frame.extension(random.pick(&[0, 43, 60, 51, 44]), random.pick(&[0, 0, 1, 2]))
    })
}

fn transport(random: &mut Random, frame: FrameBuilder, flow: &Flow, side: usize, letter: u8) -> FrameBuilder {
    if random.one_in(50) {
        return frame.protocol(random.pick(&[1, 47, 58, 132]), 20);
    }
    if flow.udp {
        return frame.udp().payload(&[0; 64][..random.below(64)]);
    }
    let segment = segment(random, flow, side, letter);
    let tcp = frame.tcp(segment.flags, segment.seq, segment.ack);
    let options = random.pick(&[0, 0, 4, 20, 40]);
    tcp.tcp_options(&[1; 40][..options]).payload(&[0; 64][..segment.payload])
}

struct Segment {
    flags: u8,
    seq: u32,
    ack: u32,
    payload: usize,
}

/// The segment that a letter stands for, sometimes slightly altered.
fn segment(random: &mut Random, flow: &Flow, side: usize, letter: u8) -> Segment {
    let (own, other) = (flow.isn[side], flow.isn[1 - side].wrapping_add(1));
    let next = own.wrapping_add(1);
    let data = 1 + random.below(60);
    let (flags, seq, ack, payload) = match letter.to_ascii_uppercase() {
        b'S' => (flag::SYN, own, 0, 0),
        b'O' => (flag::SYN, own, 0, data),
        b'Y' => (flag::SYN | flag::ACK, own, other, 0),
        b'A' => (flag::ACK, next, other, 0),
        b'D' => (flag::ACK, next, other, data),
        b'F' => (flag::FIN | flag::ACK, next, other, random.pick(&[0, data])),
        b'R' => (flag::RST | flag::ACK, next, other, 0),
        b'Z' => (flag::SYN, second(own), 0, random.pick(&[0, 0, 0, data])),
        b'W' => (flag::SYN | flag::ACK, second(own), second(other), 0),
        b'C' => (flag::ACK, second(next), second(other), 0),
        b'T' => (flag::RST, next, 0, 0),
        b'B' => (flag::ACK, next.wrapping_add(70_000), other, 0),
        b'G' => (flag::ACK, next, other.wrapping_add(60), 0),
        b'H' => (flag::ACK, next, other.wrapping_add(60), data),
        b'K' => (flag::ACK, own, other, random.pick(&[0, 1])),
        b'P' => (flag::SYN | flag::ACK, own, other, data),
        _ => (random.byte(), next, other, 0),
    };
    let odd = if random.one_in(20) { 1 << random.below(8) } else { 0 };
    Segment { flags: flags ^ odd, seq: near(random, seq), ack: near(random, ack), payload }
}

/// The number of the second conversation for one of the first.
const fn second(number: u32) -> u32 {
    number.wrapping_add(0x1234_0000)
}

/// Usually the number itself, sometimes one close to it.
fn near(random: &mut Random, number: u32) -> u32 {
    match random.below(16) {
        0 => number.wrapping_add(1),
        1 => number.wrapping_sub(1),
        2 => number.wrapping_add(random.small(64)),
        3 if random.one_in(8) => random.small(usize::MAX),
        _ => number,
    }
}

/// An ICMP error from a router or the far end, which quotes the first segment of `side`.
fn unreachable(random: &mut Random, frame: FrameBuilder, flow: &Flow, side: usize) -> FrameBuilder {
    let (from, to) = (flow.ends[side], flow.ends[1 - side]);
    let router = random.pick(&[to.0, 0x0a00_0001]);
    let outer = network(random, frame, flow.ipv6, router, from.0);
    let (kind, code) = if flow.ipv6 {
        random.pick(&[(1, 4), (1, 4), (1, 0), (2, 0), (128, 0)])
    } else {
        random.pick(&[(3, 3), (3, 3), (3, 1), (3, 4), (11, 0), (8, 0)])
    };
    let mut quoted = address(outer.icmp(kind, code), flow.ipv6, from.0, to.0);
    if flow.ipv6 && random.one_in(8) {
        let count = 1 + random.below(3);
        quoted = extensions(random, quoted, count);
    }
    let whole = if flow.udp {
        quoted.udp()
    } else {
        let seq = near(random, flow.isn[side]);
        quoted.tcp(flag::SYN, seq, 0)
    };
    whole.between(from.1, to.1)
}

/// Corrupts a frame: some bytes, its end, or a length field.
fn mangle(random: &mut Random, built: &FrameBuilder, bytes: &mut Vec<u8>) {
    let (network, transport) = (built.network(), built.transport());
    match random.below(9) {
        0 | 1 => bytes.truncate(random.below(bytes.len() + 1)),
        2 => scatter(random, bytes, network),
        3 => scatter(random, bytes, transport),
        // A shim's fields, where there is one.
        7 if network > 14 => scatter(random, bytes, 12),
        // A super-packet before segmentation has a length of 0: IPv4's total length, IPv6's payload length.
        4 => put(bytes, network + 2, &[0, 0]),
        5 => put(bytes, network + 4, &[0, 0]),
        6 => {
            let length = random.pick(&[0, 8, 19, 20, 21, 28, 39, 40, 41, 60, 0xffff]);
            put(bytes, network + random.pick(&[2, 4]), &u16::to_be_bytes(length));
        }
        _ => {
            // IPv4's version and header length, TCP's data offset, UDP's length.
            let (at, value) = (random.pick(&[network, transport + 12, transport + 5]), random.byte());
            put(bytes, at, &[value]);
        }
    }
}

/// Changes one to four of the 40 bytes from `start` on.
fn scatter(random: &mut Random, bytes: &mut [u8], start: usize) {
    for _ in 0..=random.below(4) {
        let at = start + random.below(40);
        let value = random.byte();
        put(bytes, at, &[value]);
    }
}

/// Overwrites bytes from `at` on, as far as the frame reaches.
fn put(bytes: &mut [u8], at: usize, values: &[u8]) {
    for (byte, value) in bytes.iter_mut().skip(at).zip(values) {
        *byte = *value;
    }
}
