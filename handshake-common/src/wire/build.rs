//! Frames for tests, header by header: `FrameBuilder::new(Link::Ethernet).vlan(0x8100).ipv4(A, B).tcp(…)`.
//! Numbers and lengths are right unless a test spoils them through [`FrameBuilder::bytes_mut`].

use super::{Link, Slice, TCP, UDP};

/// Room for the longest frame of a test.
pub const CAPACITY: usize = 512;

/// Room for so many IP headers one inside another.
const NESTED: usize = 6;

/// Room for the length fields of so many shims.
const SHIMS: usize = 10;

/// The ports of [`FrameBuilder::tcp`] and [`FrameBuilder::udp`]: source, destination.
pub const PORTS: (u16, u16) = (40_000, 80);

/// Where a header says what comes behind it.
#[derive(Clone, Copy, Debug)]
enum Next {
    /// Nowhere.
    Nothing,
    /// In the two bytes here: an EtherType, in network order.
    Ethertype(usize),
    /// In the two bytes here: PPP's number of a protocol.
    Ppp(usize),
    /// In the one byte here: the same, in its short form.
    ShortPpp(usize),
    /// In the byte here: Linux's address family.
    LinuxFamily(usize),
    /// In the four bytes here: a BSD address family.
    AddressFamily { at: usize, big_endian: bool },
    /// In the byte here: an IP protocol.
    Protocol(usize),
}

/// A length field of a link header or a shim, and from where it counts.
#[derive(Clone, Copy, Debug)]
struct Counted {
    at: usize,
    from: usize,
    big_endian: bool,
}

/// A frame that grows at its end; what is announced and counted in earlier headers follows suit.
///
/// After [`icmp`](Self::icmp), the headers that come next are the quoted packet's.
///
/// # Panics
///
/// Every method panics when the frame would outgrow [`CAPACITY`].
#[derive(Clone, Copy, Debug)]
pub struct FrameBuilder {
    bytes: [u8; CAPACITY],
    length: usize,
    next: Next,
    /// Where IP headers begin, the outer first, and whether they are IPv6.
    headers: [Option<(usize, bool)>; NESTED],
    /// Where the latest TCP, UDP or ICMP header begins.
    transport: usize,
    udp: [Option<usize>; NESTED],
    counted: [Option<Counted>; SHIMS],
    /// Does its EtherType stand in a cooked header, where no length can?
    cooked: bool,
}

impl FrameBuilder {
    /// A link header.
    #[must_use]
    pub fn new(link: Link) -> Self {
        let (length, next) = match link {
            Link::Ethernet => (14, Next::Ethertype(12)),
            Link::Ip => (0, Next::Nothing),
            Link::LinuxSll => (16, Next::Ethertype(14)),
            Link::LinuxSll2 => (20, Next::Ethertype(0)),
            Link::BsdNull => (4, Next::AddressFamily { at: 0, big_endian: false }),
            Link::BsdLoop => (4, Next::AddressFamily { at: 0, big_endian: true }),
            Link::Ppp | Link::CiscoHdlc | Link::Nflog => (0, Next::Nothing),
        };
        let frame = Self {
            bytes: [0; CAPACITY],
            length,
            next,
            headers: [None; NESTED],
            transport: 0,
            udp: [None; NESTED],
            counted: [None; SHIMS],
            cooked: matches!(link, Link::LinuxSll | Link::LinuxSll2),
        };
        match link {
            Link::Ppp => frame.ppp(&[0xff, 3], false),
            Link::CiscoHdlc => Self { next: Next::Ethertype(2), ..frame.payload(&[0x0f, 0, 0, 0]) },
            Link::Nflog => frame.nflog(&[(1, &[8, 0, 3, 0]), (10, b"drop\0")], false),
            Link::Ethernet | Link::Ip | Link::LinuxSll | Link::LinuxSll2 | Link::BsdNull | Link::BsdLoop => {
                frame
            }
        }
    }

    /// A PPP header: the address and the control byte, if any, and a protocol of two bytes or one. Behind
    /// Ethernet's header, see [`pppoe`](Self::pppoe).
    #[must_use]
    pub fn ppp(mut self, address_and_control: &[u8], short: bool) -> Self {
        self = self.payload(address_and_control);
        self.next = if short { Next::ShortPpp(self.length) } else { Next::Ppp(self.length) };
        self.payload(if short { &[0] } else { &[0; 2] })
    }

    /// The header of a packet that netfilter logged, with other attributes (type, value) before it.
    #[must_use]
    pub fn nflog(mut self, attributes: &[(u16, &[u8])], big_endian: bool) -> Self {
        let word = |number: u16| if big_endian { number.to_be_bytes() } else { number.to_le_bytes() };
        self.next = Next::LinuxFamily(self.length);
        self = self.payload(&[0, 0, 0, 5]);
        for (kind, value) in attributes {
            let length = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
            self = self.payload(&word(length)).payload(&word(*kind)).payload(value);
            self = self.payload(&[0; 3][..value.len().next_multiple_of(4) - value.len()]);
        }
        self.add_counted(Counted { at: self.length, from: self.length, big_endian });
        self.payload(&[0; 2]).payload(&word(9))
    }

    /// An MPLS label, the last of its stack or not.
    #[must_use]
    pub fn mpls(mut self, bottom: bool) -> Self {
        match self.next {
            Next::Ethertype(_) => self.announce_ethertype(0x8847),
            Next::Ppp(at) => self.put(at, &[0x02, 0x81]),
            Next::Nothing
            | Next::AddressFamily { .. }
            | Next::LinuxFamily(_)
            | Next::ShortPpp(_)
            | Next::Protocol(_) => {}
        }
        self.next = Next::Nothing;
        self.payload(&[0x00, 0x3e, 0x80 | u8::from(bottom), 64])
    }

    /// A PPPoE session's header, and PPP's protocol behind it.
    #[must_use]
    pub fn pppoe(mut self) -> Self {
        self.announce_ethertype(0x8864);
        let at = self.length + 4;
        self.add_counted(Counted { at, from: at + 2, big_endian: true });
        self.payload(&[0x11, 0, 0, 7, 0, 0]).ppp(&[], false)
    }

    /// An LLC header with SNAP's. The EtherType before it becomes a length.
    #[must_use]
    pub fn snap(mut self, organization: [u8; 3]) -> Self {
        if self.cooked && matches!(self.next, Next::Ethertype(0 | 14)) {
            self.announce_ethertype(4);
        } else if let Next::Ethertype(at) = self.next {
            self.add_counted(Counted { at, from: self.length, big_endian: true });
        }
        self.next = Next::Ethertype(self.length + 6);
        self.payload(&[0xaa, 0xaa, 3]).payload(&organization).payload(&[0; 2])
    }

    /// VXLAN behind UDP: an Ethernet header follows it.
    #[must_use]
    pub fn vxlan(self) -> Self {
        self.udp().between(50_000, 4789).payload(&[8, 0, 0, 0, 0, 0, 7, 0]).inner_ethernet()
    }

    /// Geneve behind UDP, with one option; an Ethernet header follows it, or IP of this EtherType.
    #[must_use]
    pub fn geneve(self, ethertype: u16) -> Self {
        let [high, low] = ethertype.to_be_bytes();
        let header = [2, 0, high, low, 0, 0, 7, 0, 1, 2, 3, 1, 0, 0, 0, 0];
        self.udp().between(50_000, 6081).payload(&header).content(ethertype)
    }

    /// GTP-U behind UDP, with an extension header or without.
    #[must_use]
    pub fn gtp_u(self, extended: bool) -> Self {
        let whole = [0x34, 255, 0, 0, 0, 0, 0, 9, 0, 0, 0, 0x85, 1, 0, 9, 0];
        let short = [0x30, 255, 0, 0, 0, 0, 0, 9];
        self.udp().between(2152, 2152).payload(if extended { &whole } else { &short })
    }

    /// GRE with this EtherType and these flags, whose words are zeros.
    #[must_use]
    pub fn gre(mut self, ethertype: u16, flags: u16) -> Self {
        self.announce_protocol(47);
        self.next = Next::Nothing;
        let words = (flags & 0xb080).count_ones() as usize;
        let header = self.payload(&flags.to_be_bytes()).payload(&ethertype.to_be_bytes()).zeros(4 * words);
        header.content(ethertype)
    }

    /// What an EtherType in a tunnel's header announces: a frame, an IP header, or PPP.
    fn content(self, ethertype: u16) -> Self {
        if matches!(ethertype, 0x0800 | 0x86dd | 0x880b) { self } else { self.inner_ethernet() }
    }

    fn inner_ethernet(mut self) -> Self {
        self.next = Next::Ethertype(self.length + 12);
        self.cooked = false;
        self.zeros(14)
    }

    /// Cisco MetaData.
    #[must_use]
    pub fn metadata(mut self) -> Self {
        self.announce_ethertype(0x8909);
        self.next = Next::Ethertype(self.length + 6);
        self.payload(&[1, 1, 0, 1, 0, 5, 0, 0])
    }

    /// A VLAN tag that `ethertype` announces.
    #[must_use]
    pub fn vlan(mut self, ethertype: u16) -> Self {
        self.announce_ethertype(ethertype);
        self.next = Next::Ethertype(self.length + 2);
        self.payload(&[0x20, 0x05, 0, 0])
    }

    /// Something that is not IP.
    #[must_use]
    pub fn other(mut self, ethertype: u16, bytes: &[u8]) -> Self {
        self.announce_ethertype(ethertype);
        self.payload(bytes)
    }

    /// An IPv4 header.
    #[must_use]
    pub fn ipv4(mut self, source: u32, destination: u32) -> Self {
        self.announce_network(false);
        let start = self.length;
        self.next = Next::Protocol(start + 9);
        self.add_header(false);
        let s = self.payload(&[0x45, 0, 0, 0, 0, 0, 0, 0, 64, 0, 0, 0]);
        s.payload(&source.to_be_bytes()).payload(&destination.to_be_bytes())
    }

    /// An IPv6 header.
    #[must_use]
    pub fn ipv6(mut self, source: [u32; 4], destination: [u32; 4]) -> Self {
        self.announce_network(true);
        self.next = Next::Protocol(self.length + 6);
        self.add_header(true);
        let s = self.payload(&[0x60, 0, 0, 0, 0, 0, 59, 64]);
        source.iter().chain(&destination).fold(s, |s, word| s.payload(&word.to_be_bytes()))
    }

    /// The fragment fields: IPv6 gets a header of its own. `offset` in units of eight bytes.
    #[must_use]
    pub fn fragment(mut self, offset: u16, more: bool) -> Self {
        if let (start, false) = self.network_header() {
            let field = offset | if more { 0x2000 } else { 0 };
            self.put(start + 6, &field.to_be_bytes());
            return self;
        }
        let field = offset << 3 | u16::from(more);
        let at = self.length + 2;
        self = self.extension(44, 0);
        self.put(at, &field.to_be_bytes());
        self
    }

    /// An IPv6 extension header, or an authentication header (51) behind IPv4, whose length field says
    /// `length`.
    #[must_use]
    pub fn extension(mut self, protocol: u8, length: u8) -> Self {
        self.announce_protocol(protocol);
        let start = self.length;
        self.next = Next::Protocol(start);
        let length_bytes = match protocol {
            44 => 8,
            51 => (usize::from(length) + 2) * 4,
            _ => (usize::from(length) + 1) * 8,
        };
        self = self.zeros(length_bytes);
        self.put(start, &[59, length]);
        self
    }

    /// IPv4 options: a multiple of four bytes, right behind [`ipv4`](Self::ipv4).
    #[must_use]
    pub fn ipv4_options(mut self, options: &[u8]) -> Self {
        let (start, _) = self.network_header();
        self.bytes[start] += words(options);
        self.payload(options)
    }

    /// A TCP header between [`PORTS`].
    #[must_use]
    pub fn tcp(mut self, flags: u8, seq: u32, ack: u32) -> Self {
        self.announce_protocol(TCP);
        self.next = Next::Nothing;
        self.transport = self.length;
        let s = self.ports().payload(&seq.to_be_bytes()).payload(&ack.to_be_bytes());
        s.payload(&[0x50, flags, 0x20, 0, 0, 0, 0, 0])
    }

    /// TCP options: a multiple of four bytes, right behind [`tcp`](Self::tcp).
    #[must_use]
    pub fn tcp_options(mut self, options: &[u8]) -> Self {
        self.bytes[self.transport + 12] += words(options) << 4;
        self.payload(options)
    }

    /// A UDP header between [`PORTS`].
    #[must_use]
    pub fn udp(mut self) -> Self {
        self.announce_protocol(UDP);
        self.next = Next::Nothing;
        self.transport = self.length;
        let place = free(&self.udp);
        self.udp[place] = Some(self.length);
        self.ports().zeros(4)
    }

    /// An ICMP header, ICMPv6 over IPv6.
    #[must_use]
    pub fn icmp(mut self, kind: u8, code: u8) -> Self {
        let (_, ipv6) = self.network_header();
        self.announce_protocol(if ipv6 { 58 } else { 1 });
        self.next = Next::Nothing;
        self.transport = self.length;
        self.payload(&[kind, code, 0, 0, 0, 0, 0, 0])
    }

    /// The header of some protocol over IP, all zeros.
    #[must_use]
    pub fn protocol(mut self, protocol: u8, length: usize) -> Self {
        self.announce_protocol(protocol);
        self.transport = self.length;
        self.zeros(length)
    }

    /// Data, counted by the headers before it.
    #[must_use]
    pub fn payload(mut self, bytes: &[u8]) -> Self {
        let start = self.length;
        self.length += bytes.len();
        self.put(start, bytes);
        self.count();
        self
    }

    /// Bytes behind the packet, which no header counts.
    #[must_use]
    pub fn padding(mut self, bytes: &[u8]) -> Self {
        let start = self.length;
        self.length += bytes.len();
        self.put(start, bytes);
        self
    }

    /// Other ports than [`PORTS`], for the latest TCP or UDP header.
    #[must_use]
    pub fn between(mut self, source: u16, destination: u16) -> Self {
        self.put(self.transport, &source.to_be_bytes());
        self.put(self.transport + 2, &destination.to_be_bytes());
        self
    }

    /// Fills in the checksum of the latest TCP header, over all that its IP header counts.
    #[must_use]
    pub fn with_tcp_checksum(mut self) -> Self {
        let (start, ipv6) = self.network_header();
        let (field, counted_from, addresses) = if ipv6 { (4, 40, 8..40) } else { (2, 0, 12..20) };
        let length = u16::from_be_bytes([self.bytes[start + field], self.bytes[start + field + 1]]);
        let end = start + counted_from + usize::from(length);
        self.put(self.transport + 16, &[0; 2]);
        let segment = &self.bytes[self.transport..end];
        let addresses = &self.bytes[start + addresses.start..start + addresses.end];
        let sum = tcp_checksum(addresses, segment);
        self.put(self.transport + 16, &sum.to_be_bytes());
        self
    }

    /// The frame.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }

    /// The frame, for spoiling.
    #[must_use]
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[..self.length]
    }

    /// The frame, whole.
    #[must_use]
    pub fn frame(&self) -> Slice<'_> {
        Slice::whole(self.bytes())
    }

    /// Where the outer IP header begins.
    #[must_use]
    pub fn network(&self) -> usize {
        self.headers[0].map_or(0, |(start, _)| start)
    }

    /// Where the latest TCP, UDP or ICMP header begins.
    #[must_use]
    pub const fn transport(&self) -> usize {
        self.transport
    }

    fn ports(self) -> Self {
        self.payload(&PORTS.0.to_be_bytes()).payload(&PORTS.1.to_be_bytes())
    }

    fn zeros(mut self, length: usize) -> Self {
        self.length += length;
        assert!(self.length <= CAPACITY, "the frame outgrows its buffer");
        self.count();
        self
    }

    fn put(&mut self, at: usize, bytes: &[u8]) {
        self.bytes[at..at + bytes.len()].copy_from_slice(bytes);
    }

    fn network_header(&self) -> (usize, bool) {
        self.headers.into_iter().flatten().next_back().unwrap_or_default()
    }

    fn add_header(&mut self, ipv6: bool) {
        let place = free(&self.headers);
        self.headers[place] = Some((self.length, ipv6));
    }

    fn add_counted(&mut self, counted: Counted) {
        let place = free(&self.counted);
        self.counted[place] = Some(counted);
    }

    fn announce_ethertype(&mut self, ethertype: u16) {
        if let Next::Ethertype(at) = self.next {
            self.put(at, &ethertype.to_be_bytes());
        }
    }

    fn announce_network(&mut self, ipv6: bool) {
        match self.next {
            Next::Ethertype(_) => self.announce_ethertype(if ipv6 { 0x86dd } else { 0x0800 }),
            Next::AddressFamily { at, big_endian } => {
                let family: u32 = if ipv6 { 30 } else { 2 };
                let bytes = if big_endian { family.to_be_bytes() } else { family.to_le_bytes() };
                self.put(at, &bytes);
            }
            Next::Ppp(at) => self.put(at, &[0, if ipv6 { 0x57 } else { 0x21 }]),
            Next::ShortPpp(at) => self.put(at, &[if ipv6 { 0x57 } else { 0x21 }]),
            Next::LinuxFamily(at) => self.put(at, &[if ipv6 { 10 } else { 2 }]),
            Next::Protocol(_) => self.announce_protocol(if ipv6 { 41 } else { 4 }),
            Next::Nothing => {}
        }
    }

    fn announce_protocol(&mut self, protocol: u8) {
        if let Next::Protocol(at) = self.next {
            self.bytes[at] = protocol;
        }
    }

    /// Brings every length field up to the frame's end.
    fn count(&mut self) {
        for Counted { at, from, big_endian } in self.counted.into_iter().flatten() {
            let length = u16::try_from(self.length.saturating_sub(from)).unwrap_or(u16::MAX);
            let bytes = if big_endian { length.to_be_bytes() } else { length.to_le_bytes() };
            if at + 2 <= self.length {
                self.put(at, &bytes);
            }
        }
        for (start, ipv6) in self.headers.into_iter().flatten() {
            let (field, counted_from) = if ipv6 { (4, 40) } else { (2, 0) };
            self.put_length(start + field, start + counted_from);
        }
        for start in self.udp.into_iter().flatten() {
            self.put_length(start + 4, start);
        }
    }

    /// A header that is being written has no length yet.
    fn put_length(&mut self, at: usize, from: usize) {
        let length = u16::try_from(self.length.saturating_sub(from)).unwrap_or(u16::MAX);
        if at + 2 <= self.length {
            self.put(at, &length.to_be_bytes());
        }
    }
}

/// The checksum (RFC 9293 §3.1) of a segment whose own checksum is zero, between two addresses.
pub(super) fn tcp_checksum(addresses: &[u8], segment: &[u8]) -> u16 {
    let word = |pair: &[u8]| u64::from(pair[0]) << 8 | pair.get(1).map_or(0, |low| u64::from(*low));
    let sum: u64 = addresses.chunks(2).chain(segment.chunks(2)).map(word).sum();
    let sum = sum + u64::from(TCP) + segment.len() as u64;
    // One's complement: 2¹⁶ is 1, and a sum of zero, which the protocol number excludes, would be written so.
    !u16::try_from((sum - 1) % 0xffff + 1).unwrap_or(u16::MAX)
}

/// The first free place, or the last one.
fn free<T>(places: &[Option<T>]) -> usize {
    places.iter().position(Option::is_none).unwrap_or(places.len() - 1)
}

fn words(options: &[u8]) -> u8 {
    assert!(options.len().is_multiple_of(4), "options are whole words");
    u8::try_from(options.len() / 4).unwrap_or(u8::MAX)
}
