use std::format;
use std::string::String;
use std::thread_local;
use std::vec::Vec;

use proptest::prelude::*;

use super::build::{CAPACITY, FrameBuilder, PORTS};
use super::tunnel::{Tunnel, innermost};
use super::*;
use crate::flow::{Address, Family};

const SOURCE4: u32 = 0x0a00_0001;
const DESTINATION4: u32 = 0x0a00_0002;
const SOURCE6: [u32; 4] = [0x2001_0db8, 0, 0, 1];
const DESTINATION6: [u32; 4] = [0x2001_0db8, 0xffff, 0, 2];
const SEQ: u32 = 0xffff_fffe;
const ACK: u32 = 7;

fn ipv4(frame: FrameBuilder) -> FrameBuilder {
    frame.ipv4(SOURCE4, DESTINATION4)
}

fn ipv6(frame: FrameBuilder) -> FrameBuilder {
    frame.ipv6(SOURCE6, DESTINATION6)
}

fn ethernet() -> FrameBuilder {
    FrameBuilder::new(Link::Ethernet)
}

/// A segment without options.
fn tcp(frame: FrameBuilder, flags: u8) -> FrameBuilder {
    frame.tcp(flags, SEQ, ACK)
}

fn class(link: Link, frame: &FrameBuilder) -> Class {
    class_of(&parse(&frame.frame(), link))
}

fn class_of(packet: &Packet) -> Class {
    Class::ALL[usize::from(packet.class)]
}

// ---- every wire form: each link header × each IP header × each L4 header ----

/// Flags, class. PSH, URG, ECE and CWR decide nothing.
const FLAGS: [(u8, Class); 16] = [
    (flag::SYN, Class::Syn),
    (flag::SYN | 0xc0, Class::Syn),
    (flag::SYN | flag::FIN, Class::Syn),
    (flag::SYN | flag::ACK, Class::SynAck),
    (flag::SYN | flag::ACK | 0x40, Class::SynAck),
    (flag::SYN | flag::ACK | flag::FIN, Class::SynAck),
    (flag::ACK, Class::Ack),
    (flag::ACK | 0x08, Class::Ack),
    (flag::FIN, Class::Fin),
    (flag::FIN | flag::ACK, Class::Fin),
    (flag::RST, Class::Rst),
    (flag::RST | flag::ACK, Class::Rst),
    (flag::RST | flag::SYN | flag::FIN, Class::Rst),
    (0, Class::TcpOther),
    (0x28, Class::TcpOther),
    (0xff, Class::Rst),
];

struct Form {
    name: String,
    link: Link,
    frame: FrameBuilder,
    /// Offset of the L4 header.
    transport: usize,
    /// Bytes of the L4 header.
    header: usize,
    class: Class,
    /// A frame cut before is truncated, one cut here or later is not.
    fixed: usize,
}

/// Appends a shim to a frame.
type AddShim = fn(FrameBuilder) -> FrameBuilder;

/// Shims and mixtures of them, behind an EtherType.
fn shims() -> Vec<(&'static str, AddShim)> {
    Vec::from([
        ("8100", (|frame| frame.vlan(0x8100)) as AddShim),
        ("88a8", |frame| frame.vlan(0x88a8)),
        ("9100", |frame| frame.vlan(0x9100)),
        ("9200", |frame| frame.vlan(0x9200)),
        ("88a8 8100", |frame| frame.vlan(0x88a8).vlan(0x8100)),
        ("88a8 8100 8100 9200", |frame| frame.vlan(0x88a8).vlan(0x8100).vlan(0x8100).vlan(0x9200)),
        ("a label", |frame| frame.mpls(true)),
        ("three labels", |frame| frame.mpls(false).mpls(false).mpls(true)),
        ("eight labels", |frame| (0..7).fold(frame, |frame, _| frame.mpls(false)).mpls(true)),
        ("PPPoE", |frame| frame.pppoe()),
        ("SNAP", |frame| frame.snap([0; 3])),
        ("SNAP of a bridge tunnel", |frame| frame.snap([0, 0, 0xf8])),
        ("MetaData", |frame| frame.metadata()),
        ("8100, PPPoE", |frame| frame.vlan(0x8100).pppoe()),
        ("8100, labels", |frame| frame.vlan(0x8100).mpls(false).mpls(true)),
        ("8100, SNAP", |frame| frame.vlan(0x8100).snap([0; 3])),
        ("SNAP, 8100", |frame| frame.snap([0; 3]).vlan(0x8100)),
        ("8100, MetaData", |frame| frame.vlan(0x8100).metadata()),
        ("MetaData, 8100", |frame| frame.metadata().vlan(0x8100)),
        ("PPPoE, labels", |frame| frame.pppoe().mpls(false).mpls(true)),
        ("four tags, PPPoE, three labels", |frame| {
            let tagged = frame.vlan(0x88a8).vlan(0x8100).vlan(0x8100).vlan(0x8100);
            tagged.pppoe().mpls(false).mpls(false).mpls(true)
        }),
    ])
}

/// Link headers, with and without shims.
fn link_headers() -> Vec<(String, Link, FrameBuilder)> {
    let mut all: Vec<_> =
        Link::ALL.iter().map(|&link| (format!("{link:?}"), link, FrameBuilder::new(link))).collect();
    for link in [Link::Ethernet, Link::LinuxSll, Link::LinuxSll2, Link::CiscoHdlc] {
        for (name, add) in shims() {
            all.push((format!("{link:?} {name}"), link, add(FrameBuilder::new(link))));
        }
    }
    let bare = FrameBuilder::new(Link::Ip);
    let logged: &[(u16, &[u8])] =
        &[(1, &[0x08, 0, 0, 0]), (4, &[0, 0, 0, 2]), (10, b"in: \0"), (15, &[2; 17])];
    all.extend(
        [
            ("PPP without HDLC's bytes", Link::Ppp, bare.ppp(&[], false)),
            ("PPP with a short protocol", Link::Ppp, bare.ppp(&[0xff, 3], true)),
            ("PPP of one byte", Link::Ppp, bare.ppp(&[], true)),
            ("PPP with labels", Link::Ppp, bare.ppp(&[0xff, 3], false).mpls(false).mpls(true)),
            ("PPP that is Cisco's", Link::Ppp, FrameBuilder::new(Link::CiscoHdlc)),
            ("NFLOG, nothing but the packet", Link::Nflog, bare.nflog(&[], false)),
            ("NFLOG, big-endian", Link::Nflog, bare.nflog(logged, true)),
            ("NFLOG, little-endian", Link::Nflog, bare.nflog(logged, false)),
        ]
        .map(|(name, link, frame)| (name.into(), link, frame)),
    );
    all
}

/// IP headers behind `frame`, each with how many bytes at its end are skipped unread.
fn ip_headers(frame: FrameBuilder) -> Vec<(&'static str, FrameBuilder, usize)> {
    let v4 = ipv4(frame);
    let v6 = ipv6(frame);
    let eight = [0, 60, 43, 51, 44, 60, 60, 60];
    Vec::from([
        ("ipv4", v4, 0),
        ("ipv4, one word of options", v4.ipv4_options(&[1; 4]), 4),
        ("ipv4, all options", v4.ipv4_options(&[1; 40]), 40),
        ("ipv4, first fragment", v4.fragment(0, true), 0),
        ("ipv4, AH", v4.extension(51, 4), 16),
        ("ipv4, options and AH", v4.ipv4_options(&[1; 40]).extension(51, 1), 4),
        ("ipv4, first fragment, AH", v4.fragment(0, true).extension(51, 4), 16),
        ("ipv6", v6, 0),
        ("ipv6, hop by hop", v6.extension(0, 0), 0),
        ("ipv6, routing", v6.extension(43, 2), 16),
        ("ipv6, destination options", v6.extension(60, 1), 8),
        ("ipv6, AH", v6.extension(51, 4), 16),
        ("ipv6, first fragment", v6.fragment(0, true), 0),
        ("ipv6, atomic fragment", v6.extension(60, 0).fragment(0, false), 0),
        ("ipv6, eight headers", eight.iter().fold(v6, |frame, header| frame.extension(*header, 0)), 0),
    ])
}

/// L4 headers behind `frame`: name, frame, class, bytes of the header, of which so many fixed.
fn l4_headers(frame: FrameBuilder) -> Vec<(&'static str, FrameBuilder, Class, usize, usize)> {
    let tcp = |flags| tcp(frame, flags);
    let mut all = Vec::from([
        ("tcp, options", tcp(flag::SYN).tcp_options(&[1; 40]), Class::Syn, 60, 20),
        ("tcp, options and data", tcp(flag::ACK).tcp_options(&[1; 12]).payload(&[9; 33]), Class::Ack, 32, 20),
        ("udp", frame.udp(), Class::Udp, 8, 8),
        ("udp, data", frame.udp().payload(&[9; 5]), Class::Udp, 8, 8),
        // Only the protocol's number counts.
        ("icmp echo", frame.icmp(8, 0), Class::Icmp, 0, 0),
        ("icmp time exceeded", frame.icmp(11, 0).payload(&[0x45; 28]), Class::Icmp, 0, 0),
        ("sctp", frame.protocol(132, 12), Class::IpOther, 0, 0),
        ("gre", frame.protocol(47, 4), Class::IpOther, 0, 0),
    ]);
    all.extend(FLAGS.map(|(flags, class)| ("tcp", tcp(flags), class, 20, 20)));
    all
}

fn forms() -> Vec<Form> {
    let mut forms = Vec::new();
    for (link_name, link, frame) in link_headers() {
        for (ip_name, frame, unread) in ip_headers(frame) {
            let transport = frame.bytes().len();
            for (l4_name, frame, class, header, fixed) in l4_headers(frame) {
                let name = format!("{link_name}, {ip_name}, {l4_name} ({class:?})");
                let fixed = if fixed == 0 { transport - unread } else { transport + fixed };
                forms.push(Form { name, link, frame, transport, header, class, fixed });
            }
        }
    }
    forms
}

fn is_tcp(class: Class) -> bool {
    (class as u8) <= Class::TcpOther as u8
}

/// What a good frame must be read as, from how it was built.
fn expected(form: &Form) -> Packet {
    let network = form.frame.network();
    let ipv6 = form.frame.bytes()[network] >> 4 == 6;
    let length = form.frame.bytes().len();
    let mut packet = Packet {
        source: if ipv6 { Address::v6(SOURCE6) } else { Address::v4(SOURCE4) },
        destination: if ipv6 { Address::v6(DESTINATION6) } else { Address::v4(DESTINATION4) },
        ip_length: u32::try_from(length - network).expect("small"),
        segments: 1,
        class: form.class as u8,
        family: if ipv6 { Family::V6 as u8 } else { Family::V4 as u8 },
        ..Packet::default()
    };
    if form.header != 0 {
        (packet.source_port, packet.destination_port) = PORTS;
        packet.protocol = if is_tcp(form.class) { TCP } else { UDP };
        packet.header_length = u16::try_from(form.transport - network + form.header).expect("small");
    }
    if is_tcp(form.class) {
        (packet.seq, packet.ack) = (SEQ, ACK);
        packet.flags = form.frame.bytes()[form.transport + 13];
        packet.payload = u32::try_from(length - form.transport - form.header).expect("small");
    }
    packet
}

#[test]
fn every_wire_form_is_read() {
    for form in forms() {
        assert_eq!(parse(&form.frame.frame(), form.link), expected(&form), "{}", form.name);
    }
}

/// A cut that takes part of what must be read makes the frame truncated. One that takes options,
/// payload, or the insides of ICMP or of a protocol that is not followed changes nothing.
#[test]
fn every_prefix_of_a_good_frame_is_truncated() {
    for form in forms() {
        let whole = form.frame.frame();
        for cut in 0..whole.bytes.len() {
            let packet = parse(&Slice { bytes: &whole.bytes[..cut], ..whole }, form.link);
            if cut < form.fixed {
                assert_eq!(class_of(&packet), Class::Truncated, "{} at {cut}", form.name);
                assert_eq!((packet.protocol, packet.quote), (0, quote::NONE), "{} at {cut}", form.name);
            } else {
                assert_eq!(packet, expected(&form), "{} at {cut}", form.name);
            }
        }
    }
}

/// Short frames are padded to 60 bytes: lengths are the IP header's.
#[test]
fn padding_changes_nothing() {
    for form in forms() {
        let padded = form.frame.padding(&[0xff; 46]);
        assert_eq!(parse(&padded.frame(), form.link), expected(&form), "{}", form.name);
    }
}

#[test]
fn what_is_not_ip_is_non_ip_and_of_no_family() {
    for (link, frame) in [
        (Link::Ethernet, ethernet().other(0x0806, &[0; 28])),
        (Link::Ethernet, ethernet().other(0x0026, &[0xaa; 38])),
        (Link::Ethernet, ethernet().other(0x0026, &[0x42, 0x42, 3, 0])),
        (Link::Ethernet, ethernet().other(0x0026, &[0xaa, 0xaa, 3, 0, 0, 0x0c, 0x20, 0])),
        (Link::Ethernet, ethernet().other(0x0026, &[0xaa, 0xaa, 0x13, 0, 0, 0, 8, 0, 0x45])),
        (Link::Ethernet, ethernet().other(0x05ff, &[0xaa, 0xaa, 3, 0, 0, 0, 8, 6])),
        // PPPoE: another version, discovery, LCP.
        (Link::Ethernet, ethernet().other(0x8864, &[0x21, 0, 0, 7, 0, 2, 0, 0x21])),
        (Link::Ethernet, ethernet().other(0x8864, &[0x11, 9, 0, 7, 0, 2, 0, 0x21])),
        (Link::Ethernet, ethernet().other(0x8864, &[0x11, 0, 0, 7, 0, 2, 0xc0, 0x21])),
        (Link::Ethernet, ethernet().other(0x8863, &[0x11, 0, 0, 7, 0, 2, 0, 0x21])),
        // A pseudowire's control word behind the label.
        (Link::Ethernet, ethernet().mpls(true).payload(&[0; 40])),
        (Link::Ethernet, ethernet().other(0x8909, &[2, 1, 0, 1, 0, 5, 8, 0])),
        (Link::Ethernet, ethernet().other(0x8909, &[1, 2, 0, 1, 0, 5, 8, 0])),
        (Link::Ppp, FrameBuilder::new(Link::Ip).payload(&[0xff, 3, 0xc0, 0x21])),
        (Link::Ppp, FrameBuilder::new(Link::Ip).payload(&[0xff, 2, 0, 0x21])),
        (Link::CiscoHdlc, FrameBuilder::new(Link::CiscoHdlc).other(0x8035, &[])),
        (Link::Nflog, FrameBuilder::new(Link::Ip).payload(&[7, 0, 0, 0])),
        (Link::Nflog, FrameBuilder::new(Link::Ip).payload(&[2, 1, 0, 0])),
        (Link::Ethernet, ethernet().vlan(0x8100).other(0x0806, &[0; 28])),
        (Link::Ethernet, ethernet().other(0x0806, &[])),
        (Link::LinuxSll, FrameBuilder::new(Link::LinuxSll).other(0x0806, &[0; 28])),
        (Link::LinuxSll2, FrameBuilder::new(Link::LinuxSll2).other(0x0806, &[0; 28])),
        (Link::BsdNull, FrameBuilder::new(Link::BsdNull)),
        (Link::BsdLoop, FrameBuilder::new(Link::BsdLoop)),
    ] {
        let packet = parse(&frame.frame(), link);
        assert_eq!((class_of(&packet), packet.family), (Class::NonIp, 0), "{link:?} {frame:?}");
    }
}

#[test]
fn loopback_families_are_those_of_every_bsd_in_either_byte_order() {
    let families = [(2_u32, Some(Family::V4)), (24, Some(Family::V6)), (28, Some(Family::V6))];
    for (number, family) in families.into_iter().chain([(30, Some(Family::V6)), (7, None)]) {
        let expected = family.map_or(0, |family| family as u8);
        for (link, bytes, expected) in [
            (Link::BsdNull, number.to_le_bytes(), expected),
            (Link::BsdNull, number.to_be_bytes(), expected),
            (Link::BsdLoop, number.to_be_bytes(), expected),
            (Link::BsdLoop, number.to_le_bytes(), 0),
        ] {
            assert_eq!(parse(&Slice::whole(&bytes), link).family, expected, "{link:?} {bytes:?}");
        }
    }
}

#[test]
fn other_headers_in_the_place_of_a_family_say_ip_where_they_do() {
    let (v4, v6) = (Family::V4 as u8, Family::V6 as u8);
    for (header, family) in [
        (0x0000_0800_u32, v4),
        (0x0000_86dd, v6),
        (0xff03_0021, v4),
        (0xff03_0057, v6),
        (0x0f00_0800, v4),
        (0x0f00_86dd, v6),
        (0x0002_0000, v4),
        (0x0018_0000, v6),
        (0x0000_0806, 0),
        (0xff03_c021, 0),
        (0x0f00_0806, 0),
        (0x0002_0001, 0),
        (0x0007_0000, 0),
    ] {
        let parsed = |link| parse(&Slice::whole(&header.to_be_bytes()), link).family;
        assert_eq!((parsed(Link::BsdNull), parsed(Link::BsdLoop)), (family, 0), "{header:08x}");
    }
}

#[test]
fn the_family_is_counted_as_soon_as_it_is_announced() {
    for (frame, family) in [(ipv4(ethernet()), Family::V4), (ipv6(ethernet()), Family::V6)] {
        let packet = parse(&Slice::whole(&frame.bytes()[..14]), Link::Ethernet);
        assert_eq!((class_of(&packet), packet.family), (Class::Truncated, family as u8));
        let mut wrong = frame;
        wrong.bytes_mut()[14] = 0x25;
        let packet = parse(&wrong.frame(), Link::Ethernet);
        assert_eq!((class_of(&packet), packet.family), (Class::Malformed, family as u8));
    }
}

// ---- lengths that lie, and other hostile headers ----

#[test]
fn a_ninth_shim_is_not_walked() {
    let kinds: [AddShim; 5] = [
        |frame| frame.vlan(0x8100),
        |frame| frame.mpls(false),
        |frame| frame.pppoe(),
        |frame| frame.snap([0; 3]),
        |frame| frame.metadata(),
    ];
    // Labels can follow anything, and nothing but labels and IP follows them or PPP.
    for (first, then) in [(0, 0), (0, 1), (1, 1), (2, 1), (3, 0), (4, 0), (0, 3), (0, 4)] {
        let shims = |count| (1..count).fold(kinds[first](ethernet()), |frame, _| kinds[then](frame));
        let read = |frame: FrameBuilder| class(Link::Ethernet, &tcp(ipv4(frame), flag::SYN));
        let ends_in_label = then == 1;
        let (eight, nine) =
            if ends_in_label { (shims(7).mpls(true), shims(8).mpls(true)) } else { (shims(8), shims(9)) };
        assert_eq!((read(eight), read(nine)), (Class::Syn, Class::NonIp), "{first}, then {then}");
    }
}

/// What a frame that is not IP is said to be: the last EtherType that could be reached.
#[test]
fn the_ethertype_of_what_is_not_entered_is_that_behind_the_shims() {
    let bare = FrameBuilder::new(Link::Ip);
    for (link, frame, expected) in [
        (Link::Ethernet, ethernet().other(0x88cc, &[]), Some(0x88cc)),
        (Link::Ethernet, ethernet().vlan(0x8100).vlan(0x9200).other(0x0806, &[]), Some(0x0806)),
        (Link::Ethernet, ethernet().snap([0; 3]).other(0x0806, &[]), Some(0x0806)),
        (Link::Ethernet, ethernet().metadata().other(0x0806, &[]), Some(0x0806)),
        (Link::Ethernet, ethernet().mpls(true).payload(&[0; 4]), Some(0x8847)),
        (Link::Ethernet, ethernet().vlan(0x8100).pppoe().payload(&[0xc0; 4]), Some(0x8864)),
        (Link::Ethernet, ethernet().other(38, &[0x42; 38]), Some(38)),
        (Link::LinuxSll, FrameBuilder::new(Link::LinuxSll).other(4, &[0x42; 38]), Some(4)),
        (Link::LinuxSll2, FrameBuilder::new(Link::LinuxSll2).other(0x0806, &[]), Some(0x0806)),
        (Link::CiscoHdlc, FrameBuilder::new(Link::CiscoHdlc).other(0x8035, &[]), Some(0x8035)),
        (Link::Ethernet, bare.payload(&[0; 13]), None),
        (Link::Ethernet, ethernet().other(0x8100, &[0; 3]), None),
        (Link::Ppp, bare.ppp(&[], false).payload(&[0xc0; 4]), None),
    ] {
        assert_eq!(ethertype_of(&frame.frame(), link), expected, "{frame:?}");
    }
}

#[test]
fn nflog_attributes_that_cannot_be_are_malformed() {
    let bare = FrameBuilder::new(Link::Ip);
    let header = bare.payload(&[2, 0, 0, 0]);
    let many = (0..24).fold(header, |frame, _| frame.payload(&[4, 0, 5, 0]));
    for (what, frame, expected) in [
        ("a length below four", header.payload(&[3, 0, 5, 0]), Class::Malformed),
        ("a type above 255", header.payload(&[8, 0, 5, 1]), Class::Malformed),
        ("too long", header.payload(&[0xff, 0xff, 5, 0]), Class::Malformed),
        ("24 and no packet", many, Class::Malformed),
        ("none", header, Class::Truncated),
    ] {
        assert_eq!(class(Link::Nflog, &frame), expected, "{what}");
    }
}

#[test]
fn a_wrong_version_is_malformed() {
    for version in (0..16).filter(|version| *version != 4) {
        let mut frame = tcp(ipv4(ethernet()), flag::SYN);
        frame.bytes_mut()[14] = version << 4 | 5;
        assert_eq!(class(Link::Ethernet, &frame), Class::Malformed, "IPv4 announced, version {version}");
    }
    for version in (0..16).filter(|version| *version != 6) {
        let mut frame = tcp(ipv6(ethernet()), flag::SYN);
        frame.bytes_mut()[14] = version << 4;
        assert_eq!(class(Link::Ethernet, &frame), Class::Malformed, "IPv6 announced, version {version}");
    }
    for version in (0..16).filter(|version| !matches!(version, 4 | 6)) {
        let packet = parse(&Slice::whole(&[version << 4; 40]), Link::Ip);
        assert_eq!((class_of(&packet), packet.family), (Class::Malformed, 0), "bare, version {version}");
    }
}

#[test]
fn an_ihl_below_five_is_malformed() {
    for ihl in 0..5 {
        let mut frame = tcp(ipv4(ethernet()), flag::SYN);
        frame.bytes_mut()[14] = 0x40 | ihl;
        assert_eq!(class(Link::Ethernet, &frame), Class::Malformed, "IHL {ihl}");
    }
}

/// Total length of 1..20: no header. 20..40: no TCP header. Beyond the frame: the header is there all the
/// same.
#[test]
fn an_ipv4_length_that_lies_is_malformed_where_a_header_runs_past_it() {
    for (length, class_there) in [
        (1, Class::Malformed),
        (19, Class::Malformed),
        (20, Class::Malformed),
        (39, Class::Malformed),
        (40, Class::Syn),
        (41, Class::Syn),
        (65_535, Class::Syn),
    ] {
        let mut frame = tcp(ipv4(ethernet()), flag::SYN);
        frame.bytes_mut()[16..18].copy_from_slice(&u16::to_be_bytes(length));
        let packet = parse(&frame.frame(), Link::Ethernet);
        assert_eq!(class_of(&packet), class_there, "length {length}");
        if class_there == Class::Syn {
            assert_eq!((packet.ip_length, packet.payload), (length.into(), u32::from(length) - 40));
        }
    }
}

/// Also where nothing is read behind the IP header.
#[test]
fn an_ip_header_longer_than_its_packet_is_malformed() {
    for frame in [ipv4(ethernet()).icmp(8, 0), ipv4(ethernet()).fragment(9, false).protocol(TCP, 20)] {
        let good = class(Link::Ethernet, &frame);
        for (ihl, length) in [(5, 1), (5, 19), (6, 23), (15, 59)] {
            let mut lying = frame.padding(&[0; 40]);
            lying.bytes_mut()[14] = 0x40 | ihl;
            lying.bytes_mut()[17] = length;
            assert_eq!(class(Link::Ethernet, &lying), Class::Malformed, "IHL {ihl}, length {length}");
            lying.bytes_mut()[17] = length + 1;
            let expected = if length == 1 { Class::Malformed } else { good };
            assert_eq!(class(Link::Ethernet, &lying), expected, "IHL {ihl}, length {length} + 1");
        }
    }
}

#[test]
fn an_ipv6_length_that_lies_is_malformed_where_a_header_runs_past_it() {
    for (length, class_there) in
        [(1, Class::Malformed), (19, Class::Malformed), (20, Class::Syn), (65_535, Class::Syn)]
    {
        let mut frame = tcp(ipv6(ethernet()), flag::SYN);
        frame.bytes_mut()[18..20].copy_from_slice(&u16::to_be_bytes(length));
        let packet = parse(&frame.frame(), Link::Ethernet);
        assert_eq!(class_of(&packet), class_there, "length {length}");
        if class_there == Class::Syn {
            assert_eq!((packet.ip_length, packet.payload), (40 + u32::from(length), u32::from(length) - 20));
        }
    }
}

/// What segmentation offload leaves of the length of more than 64 KiB; the frame is cut by a snap length.
#[test]
fn a_super_packet_of_length_zero_takes_the_length_of_its_frame() {
    for (mut frame, field, headers) in
        [(tcp(ipv4(ethernet()), flag::ACK), 16, 40), (tcp(ipv6(ethernet()), flag::ACK), 18, 60)]
    {
        frame.bytes_mut()[field..field + 2].fill(0);
        let on_the_wire = Slice { length: 14 + 100_000, ..frame.frame() };
        let packet = parse(&on_the_wire, Link::Ethernet);
        assert_eq!((class_of(&packet), packet.ip_length), (Class::Ack, 100_000));
        assert_eq!((packet.payload, u32::from(packet.header_length)), (100_000 - headers, headers));
        let lying = Slice { length: 5, ..frame.frame() };
        assert_eq!(class_of(&parse(&lying, Link::Ethernet)), Class::Malformed, "no room for a header");
        let longest = Slice { length: u32::MAX, ..frame.frame() };
        assert_eq!(parse(&longest, Link::Ethernet).ip_length, u32::MAX - 14);
    }
}

#[test]
fn an_ipv6_header_with_nothing_behind_it_is_forty_bytes_in_a_padded_frame() {
    let frame = ipv6(ethernet()).padding(&[0; 6]);
    let packet = parse(&frame.frame(), Link::Ethernet);
    assert_eq!((class_of(&packet), packet.ip_length), (Class::IpOther, 40));
}

#[test]
fn ipv4_options_that_overrun_the_packet_are_malformed() {
    let mut frame = tcp(ipv4(ethernet()), flag::SYN);
    frame.bytes_mut()[14] = 0x4f;
    assert_eq!(class(Link::Ethernet, &frame), Class::Malformed, "TCP begins where the packet has ended");
    frame.bytes_mut()[17] = 59;
    assert_eq!(class(Link::Ethernet, &frame), Class::Malformed, "the options alone are longer");
}

#[test]
fn a_tcp_data_offset_that_cannot_be_is_malformed() {
    for words in 0..16_u8 {
        let mut frame = tcp(ipv4(ethernet()), flag::SYN).payload(&[0; 8]);
        let at = frame.transport() + 12;
        frame.bytes_mut()[at] = words << 4;
        let expected = if (5..=7).contains(&words) { Class::Syn } else { Class::Malformed };
        assert_eq!(class(Link::Ethernet, &frame), expected, "{words} words of header, 28 bytes there");
    }
}

#[test]
fn in_a_first_fragment_tcp_options_may_run_on() {
    for ip in [ipv4(ethernet()).fragment(0, true), ipv6(ethernet()).fragment(0, true)] {
        let mut frame = tcp(ip, flag::SYN);
        let at = frame.transport() + 12;
        frame.bytes_mut()[at] = 0xf0;
        let packet = parse(&frame.frame(), Link::Ethernet);
        assert_eq!((class_of(&packet), packet.payload), (Class::Syn, 0));
        assert_eq!(u32::from(packet.header_length), packet.ip_length, "no more headers than packet");
        frame.bytes_mut()[at] = 0x40;
        assert_eq!(class(Link::Ethernet, &frame), Class::Malformed, "less than the fixed part");
    }
    let mut atomic = tcp(ipv6(ethernet()).fragment(0, false), flag::SYN);
    let at = atomic.transport() + 12;
    atomic.bytes_mut()[at] = 0xf0;
    assert_eq!(class(Link::Ethernet, &atomic), Class::Malformed, "a fragment header, but nothing follows");
}

/// RFC 1858 §3: the header's rest is in the next fragment.
#[test]
fn a_first_fragment_without_its_whole_header_is_counted_apart() {
    for ip in [ipv4(ethernet()), ipv6(ethernet())] {
        for (protocol, length) in [(TCP, 0), (TCP, 8), (TCP, 19), (UDP, 0), (UDP, 7)] {
            let first = parse(&ip.fragment(0, true).protocol(protocol, length).frame(), Link::Ethernet);
            assert_eq!((class_of(&first), first.note), (Class::Fragment, note::SPLIT_HEADER));
            assert_eq!(first.protocol, 0, "it is of no flow");
            let whole = parse(&ip.protocol(protocol, length).frame(), Link::Ethernet);
            assert_eq!((class_of(&whole), whole.note), (Class::Malformed, note::NONE));
        }
    }
}

/// The second fragment of RFC 1858's attack would overwrite the flags: it is a fragment like any other.
#[test]
fn a_fragment_that_overlaps_the_tcp_header_is_a_fragment() {
    for offset in [1, 2, 100, 0x1fff] {
        for more in [false, true] {
            for ip in [ipv4(ethernet()), ipv6(ethernet()), ipv6(ethernet()).extension(0, 0)] {
                let packet = parse(&tcp(ip.fragment(offset, more), flag::SYN).frame(), Link::Ethernet);
                assert_eq!((class_of(&packet), packet.protocol), (Class::Fragment, 0), "{offset} {more}");
            }
        }
    }
}

#[test]
fn a_udp_length_below_eight_is_malformed() {
    for length in 0..=9 {
        let mut frame = ipv4(ethernet()).udp().payload(&[0; 4]);
        let at = frame.transport() + 5;
        frame.bytes_mut()[at] = length;
        let expected = if length < 8 { Class::Malformed } else { Class::Udp };
        assert_eq!(class(Link::Ethernet, &frame), expected, "length {length}");
    }
}

/// RFC 2675 §4. The frame says how long it is.
#[test]
fn a_udp_length_of_zero_is_right_where_ip_has_none_either() {
    for (ip, length_at) in
        [(ipv4(ethernet()), 2), (ipv6(ethernet()), 4), (ipv6(ethernet()).extension(0, 0), 4)]
    {
        let mut frame = ip.udp().payload(&[0; 4]);
        let (network, transport) = (frame.network(), frame.transport());
        let sized = parse(&frame.frame(), Link::Ethernet);
        frame.bytes_mut()[transport + 4..][..2].fill(0);
        assert_eq!(class(Link::Ethernet, &frame), Class::Malformed, "IP has a length");
        frame.bytes_mut()[network + length_at..][..2].fill(0);
        assert_eq!(parse(&frame.frame(), Link::Ethernet), sized);
        frame.bytes_mut()[transport + 5] = 7;
        assert_eq!(class(Link::Ethernet, &frame), Class::Malformed, "a length that cannot be");
    }
}

#[test]
fn a_chain_of_extension_headers_without_end_is_ip_other() {
    for kind in [0, 43, 44, 51, 60] {
        let chain = |count| (0..count).fold(ipv6(ethernet()), |frame, _| frame.extension(kind, 1));
        assert_eq!(class(Link::Ethernet, &tcp(chain(8), flag::SYN)), Class::Syn, "eight of {kind}");
        let nine = parse(&tcp(chain(9), flag::SYN).frame(), Link::Ethernet);
        assert_eq!((class_of(&nine), nine.note), (Class::IpOther, note::EXTENSION_CHAIN), "nine of {kind}");
        assert_eq!(class(Link::Ethernet, &chain(20)), Class::IpOther, "twenty of {kind}");
    }
}

#[test]
fn an_extension_header_that_overruns_the_packet_is_malformed() {
    for kind in [0, 43, 51, 60] {
        let mut frame = tcp(ipv6(ethernet()).extension(kind, 0), flag::SYN);
        frame.bytes_mut()[14 + 40 + 1] = 255;
        assert_eq!(class(Link::Ethernet, &frame), Class::Malformed, "{kind}");
        let mut last = ipv6(ethernet()).extension(kind, 0).protocol(132, 0).padding(&[0; 40]);
        last.bytes_mut()[14 + 40 + 1] = 3;
        assert_eq!(class(Link::Ethernet, &last), Class::Malformed, "{kind}, and nothing read behind it");
    }
    assert_eq!(class(Link::Ethernet, &ipv6(ethernet()).protocol(60, 7)), Class::Malformed, "half of one");
}

#[test]
fn the_longest_chain_is_walked() {
    let mut bytes = Vec::from(ipv6(ethernet()).extension(60, 0).bytes());
    bytes.truncate(14 + 40);
    for next in [60, 60, 60, 60, 60, 60, 60, TCP] {
        bytes.extend([next, 255]);
        bytes.resize(bytes.len() + 2046, 0);
    }
    bytes.extend(tcp(ethernet(), flag::SYN).bytes().get(14..).expect("a TCP header"));
    let length = u16::try_from(bytes.len() - 54).expect("below 64 KiB");
    bytes[18..20].copy_from_slice(&length.to_be_bytes());
    let packet = parse(&Slice::whole(&bytes), Link::Ethernet);
    assert_eq!((class_of(&packet), packet.seq), (Class::Syn, SEQ));
    assert_eq!(packet.header_length, 40 + 8 * 2048 + 20);
}

// ---- tunnels ----

/// A tunnel's name, kind, what it adds to a frame, and what the inner frame begins with.
type TunnelForm = (&'static str, Tunnel, fn(FrameBuilder) -> FrameBuilder, Link);

fn tunnels() -> Vec<TunnelForm> {
    Vec::from([
        ("VXLAN", Tunnel::Vxlan, (|ip| ip.vxlan()) as fn(FrameBuilder) -> FrameBuilder, Link::Ethernet),
        ("Geneve, Ethernet", Tunnel::Geneve, |ip| ip.geneve(0x6558), Link::Ethernet),
        ("GTP-U", Tunnel::GtpU, |ip| ip.gtp_u(false), Link::Ip),
        ("GTP-U, extended", Tunnel::GtpU, |ip| ip.gtp_u(true), Link::Ip),
        ("GRE, Ethernet", Tunnel::Gre, |ip| ip.gre(0x6558, 0x2000), Link::Ethernet),
        ("GRE, all fields", Tunnel::Gre, |ip| ip.gre(0x6558, 0xb000), Link::Ethernet),
        ("ERSPAN, type I", Tunnel::Gre, |ip| ip.gre(0x88be, 0), Link::Ethernet),
        ("IP in IP", Tunnel::IpInIp, |ip| ip, Link::Ip),
    ])
}

fn assert_inside(name: &str, frame: &FrameBuilder, outer: Link, tunnel: Tunnel, plain: &Packet) {
    let inner = innermost(frame.frame(), outer).unwrap_or_else(|| panic!("{name}: not entered: {frame:?}"));
    assert_eq!((inner.tunnel, &inner.packet), (tunnel, plain), "{name}");
    assert_eq!(parse(&inner.frame, inner.link), *plain, "{name}");
}

#[test]
fn what_is_in_a_tunnel_is_what_it_is_outside() {
    let inside = |frame: FrameBuilder| {
        let plain = tcp(frame.ipv4(7, 9), flag::SYN).tcp_options(&[1; 4]).payload(&[5; 3]);
        let plain6 = frame.ipv6([1, 0, 0, 7], [1, 0, 0, 9]).udp().payload(&[5; 3]);
        [plain, plain6]
    };
    for (name, tunnel, add, link) in tunnels() {
        let plain = inside(FrameBuilder::new(link)).map(|frame| parse(&frame.frame(), link));
        for (outer, family) in [(ipv4(ethernet()), Family::V4), (ipv6(ethernet()), Family::V6)] {
            for (frame, plain) in inside(add(outer)).into_iter().zip(&plain) {
                assert_inside(name, &frame, Link::Ethernet, tunnel, plain);
                assert_inside(name, &frame.padding(&[0xff; 9]), Link::Ethernet, tunnel, plain);
                let inner = innermost(frame.frame(), Link::Ethernet).expect("as above");
                let (source, destination) = match family {
                    Family::V4 => (Address::v4(SOURCE4), Address::v4(DESTINATION4)),
                    Family::V6 => (Address::v6(SOURCE6), Address::v6(DESTINATION6)),
                };
                assert_eq!((inner.family, inner.source, inner.destination), (family, source, destination));
            }
        }
        let tagged = inside(add(ipv4(ethernet().vlan(0x8100).mpls(true))))[0];
        assert_inside(name, &tagged, Link::Ethernet, tunnel, &plain[0]);
    }
}

#[test]
fn tunnels_that_say_ip_need_no_ethernet_header() {
    for add in [
        (|ip: FrameBuilder, ethertype| ip.geneve(ethertype)) as fn(FrameBuilder, u16) -> FrameBuilder,
        |ip, ethertype| ip.gre(ethertype, 0),
        |ip, ethertype| ip.gre(ethertype, 0x3000),
    ] {
        let bare = FrameBuilder::new(Link::Ip);
        let plain = tcp(bare.ipv4(7, 9), flag::SYN);
        let frame = tcp(add(ipv6(ethernet()), 0x0800).ipv4(7, 9), flag::SYN);
        let inner = innermost(frame.frame(), Link::Ethernet).expect("it is entered");
        assert_eq!(inner.packet, parse(&plain.frame(), Link::Ip));
    }
    // PPTP: version 1 with a key, a number and an acknowledgement.
    let framed = ipv4(ethernet()).gre(0x880b, 0x3081).ppp(&[0xff, 3], false).ipv4(7, 9);
    let framed = tcp(framed, flag::SYN);
    let inner = innermost(framed.frame(), Link::Ethernet).expect("it is entered");
    assert_eq!((inner.tunnel, class_of(&inner.packet)), (Tunnel::Gre, Class::Syn));
}

#[test]
fn four_tunnels_one_inside_another_are_entered() {
    let within = |count| (1..count).fold(ipv4(ethernet()), |frame, n| frame.ipv4(n, n + 1));
    for count in 2..8 {
        let frame = tcp(within(count), flag::SYN);
        let packet = innermost(frame.frame(), Link::Ethernet).expect("it is entered").packet;
        let expected = if count <= 5 { Class::Syn } else { Class::IpOther };
        assert_eq!(class_of(&packet), expected, "{count} headers");
    }
    let mixed = ipv4(ipv6(ethernet()).vxlan()).gre(0x6558, 0);
    let frame = tcp(mixed.ipv4(7, 9), flag::SYN);
    let inner = innermost(frame.frame(), Link::Ethernet).expect("it is entered");
    let (from, inside) = (Address::v4(SOURCE4), Address::v4(7));
    assert_eq!((inner.tunnel, inner.source, inner.packet.source), (Tunnel::Gre, from, inside));
}

#[test]
fn what_a_tunnel_holds_is_where_its_headers_say() {
    let options = [0xff; 63 * 4];
    let header = [0x3f, 0, 0x08, 0, 0, 0, 7, 0];
    let geneve = ipv4(ethernet()).udp().between(1, 6081).payload(&header).payload(&options);
    let frame = tcp(geneve.ipv4(7, 9), flag::SYN);
    let inner = innermost(frame.frame(), Link::Ethernet).expect("63 words of options");
    assert_eq!((inner.tunnel, class_of(&inner.packet)), (Tunnel::Geneve, Class::Syn));

    // What lies behind the end of the tunnel's packet is padding, whatever it looks like.
    let mut short = tcp(ipv4(ethernet()).ipv4(7, 9), flag::SYN);
    short.bytes_mut()[14 + 3] = 20 + 20;
    let inner = innermost(short.frame(), Link::Ethernet).expect("an IP header");
    assert_eq!(class_of(&inner.packet), Class::Truncated);
}

#[test]
fn what_is_no_tunnel_is_not_entered() {
    let v4 = ipv4(ethernet());
    let vxlan = tcp(v4.vxlan().ipv4(7, 9), flag::SYN);
    let spoiled = |frame: FrameBuilder, at: usize, byte: u8| {
        let mut frame = frame;
        let place = frame.network() + 20 + at;
        frame.bytes_mut()[place] = byte;
        frame
    };
    for (what, frame) in [
        ("plain TCP", tcp(v4, flag::SYN)),
        ("another port", spoiled(vxlan, 3, 0)),
        ("VXLAN without a network", spoiled(vxlan, 8, 0)),
        ("ARP in VXLAN", v4.vxlan().other(0x0806, &[0; 28])),
        ("VXLAN with nothing", v4.udp().between(1, 4789).payload(&[8, 0, 0])),
        ("a fragment", tcp(v4.fragment(0, true).vxlan().ipv4(7, 9), flag::SYN)),
        ("Geneve, another version", spoiled(tcp(v4.geneve(0x0800).ipv4(7, 9), flag::SYN), 8, 0x42)),
        ("Geneve, another protocol", v4.geneve(0x0806)),
        ("GTP-U, an echo", spoiled(tcp(v4.gtp_u(false).ipv4(7, 9), flag::SYN), 9, 1)),
        ("GTP, version 2", spoiled(tcp(v4.gtp_u(false).ipv4(7, 9), flag::SYN), 8, 0x48)),
        ("GTP-U, an extension of no length", spoiled(tcp(v4.gtp_u(true).ipv4(7, 9), flag::SYN), 20, 0)),
        ("GRE with a route", spoiled(tcp(v4.gre(0x0800, 0).ipv4(7, 9), flag::SYN), 0, 0x40)),
        ("GRE, version 2", spoiled(tcp(v4.gre(0x0800, 0).ipv4(7, 9), flag::SYN), 1, 2)),
        ("GRE, another protocol", v4.gre(0x0806, 0).payload(&[0x45; 40])),
        ("version 5 in IP", v4.protocol(4, 0).payload(&[0x55; 40])),
    ] {
        let inner = innermost(frame.frame(), Link::Ethernet);
        assert!(inner.is_none(), "{what}: {inner:?}");
    }
}

#[test]
fn a_tunnel_that_is_cut_is_cut_inside_or_not_entered() {
    for (name, _, add, _) in tunnels() {
        let whole = tcp(add(ipv4(ethernet())).ipv4(7, 9), flag::SYN);
        let bytes = whole.bytes();
        for cut in 0..bytes.len() {
            let slice = Slice { bytes: &bytes[..cut], ..whole.frame() };
            let class = innermost(slice, Link::Ethernet).map(|inner| class_of(&inner.packet));
            assert!(matches!(class, None | Some(Class::Truncated)), "{name} at {cut}: {class:?}");
        }
    }
}

// ---- the TCP checksum ----

fn is_wrong(link: Link, frame: &FrameBuilder) -> bool {
    has_wrong_checksum(&frame.frame(), link)
}

#[test]
fn a_tcp_checksum_is_verified_over_the_whole_segment() {
    let data: [u8; 203] = core::array::from_fn(|i| 255 - u8::try_from(i).expect("below 256"));
    for length in 0..data.len() {
        for ip in [
            ipv4(ethernet()),
            ipv4(ethernet().vlan(0x8100)).ipv4_options(&[1; 8]),
            ipv6(ethernet()),
            ipv6(ethernet()).extension(60, 1),
        ] {
            let right = tcp(ip, flag::SYN).tcp_options(&[1; 4]).payload(&data[..length]).with_tcp_checksum();
            assert!(!is_wrong(Link::Ethernet, &right), "{length} bytes");
            assert!(!is_wrong(Link::Ethernet, &right.padding(&[0xaa; 5])), "{length} bytes and padding");
            for at in right.transport()..right.bytes().len() {
                let mut wrong = right;
                wrong.bytes_mut()[at] ^= 1 << (at & 7);
                assert!(is_wrong(Link::Ethernet, &wrong) || at == right.transport() + 12, "byte {at}");
            }
            let mut elsewhere = right;
            elsewhere.bytes_mut()[right.network() + 19] ^= 1;
            assert!(is_wrong(Link::Ethernet, &elsewhere), "another address");
        }
    }
}

#[test]
fn the_checksum_of_the_longest_segment_is_verified() {
    let mut bytes = Vec::from(tcp(ipv4(ethernet()), flag::ACK).bytes());
    bytes.resize(14 + 65_535, 0xff);
    bytes[16..18].copy_from_slice(&65_535_u16.to_be_bytes());
    let sum = build::tcp_checksum(&bytes[26..34], &bytes[34..]);
    bytes[50..52].copy_from_slice(&sum.to_be_bytes());
    assert!(!has_wrong_checksum(&Slice::whole(&bytes), Link::Ethernet));
    *bytes.last_mut().expect("the last byte") ^= 1;
    assert!(has_wrong_checksum(&Slice::whole(&bytes), Link::Ethernet));
}

/// Of these a receiver sees more, or something else, than the frame holds.
#[test]
fn a_checksum_that_cannot_be_verified_is_not_wrong() {
    let wrong = tcp(ipv4(ethernet()), flag::ACK).payload(&[1; 9]);
    assert!(is_wrong(Link::Ethernet, &wrong));
    let bytes = wrong.bytes();
    let length = u32::try_from(bytes.len()).expect("short");
    let cut = Slice { bytes: &bytes[..bytes.len() - 1], length };
    assert!(!has_wrong_checksum(&cut, Link::Ethernet), "cut by a snap length");
    for frame in [
        tcp(ipv4(ethernet()).fragment(0, true), flag::ACK),
        tcp(ipv6(ethernet()).fragment(0, true), flag::ACK),
        tcp(ipv6(ethernet()).extension(43, 0), flag::ACK),
        ipv4(ethernet()).udp(),
    ] {
        assert!(!is_wrong(Link::Ethernet, &frame));
    }
    let mut sized = wrong;
    sized.bytes_mut()[16..18].copy_from_slice(&[0; 2]);
    assert!(!is_wrong(Link::Ethernet, &sized), "a super-packet");
}

// ---- what ICMP errors quote ----

#[test]
fn icmp_errors_quote_by_type_and_code() {
    use quote::{NONE, UNREACHABLE};
    for (kind, code, over4, over6) in [
        (3, 0, UNREACHABLE, NONE),
        (3, 1, UNREACHABLE, NONE),
        (3, 2, UNREACHABLE, NONE),
        (3, 3, UNREACHABLE, NONE),
        (3, 4, NONE, NONE),
        (3, 13, UNREACHABLE, NONE),
        (1, 0, NONE, UNREACHABLE),
        (1, 3, NONE, UNREACHABLE),
        (1, 4, NONE, UNREACHABLE),
        (1, 6, NONE, UNREACHABLE),
        (11, 0, NONE, NONE),
        (2, 0, NONE, NONE),
    ] {
        for (quoting, protocol) in [(true, TCP), (false, UDP)] {
            let inner = |ip: FrameBuilder| if quoting { tcp(ip, flag::SYN) } else { ip.udp() };
            let v4 = inner(ipv4(ipv4(ethernet()).icmp(kind, code)));
            assert_quote(&v4, protocol, over4);
            let v6 = inner(ipv6(ipv6(ethernet()).icmp(kind, code)));
            assert_quote(&v6, protocol, over6);
        }
    }
}

/// The outer packet goes from A to B, the quoted one too.
fn assert_quote(frame: &FrameBuilder, protocol: u8, kind: u8) {
    let packet = parse(&frame.frame(), Link::Ethernet);
    assert_eq!((class_of(&packet), packet.quote), (Class::Icmp, kind), "{frame:?}");
    if kind == quote::NONE {
        assert_eq!((packet.protocol, packet.source_port, packet.seq), (0, 0, 0));
    } else {
        assert_eq!((packet.protocol, (packet.source_port, packet.destination_port)), (protocol, PORTS));
        assert_eq!(packet.seq, if protocol == TCP { SEQ } else { 0 });
    }
}

#[test]
fn a_quote_has_the_addresses_of_the_packet_it_quotes() {
    let router = 0xc0a8_0001;
    let error = ethernet().ipv4(router, SOURCE4).icmp(3, 1);
    let packet = parse(&tcp(ipv4(error).ipv4_options(&[1; 8]), flag::SYN).frame(), Link::Ethernet);
    assert_eq!((packet.source, packet.destination), (Address::v4(SOURCE4), Address::v4(DESTINATION4)));
    assert_eq!(packet.reporter, Address::v4(router), "who sent it");
    assert_eq!((packet.seq, packet.quote), (SEQ, quote::UNREACHABLE), "behind the quoted options");
    assert_eq!((packet.ip_length, packet.family), (20 + 8 + 28 + 20, Family::V4 as u8), "its own");

    let error = ethernet().ipv6([1; 4], SOURCE6).icmp(1, 4);
    let packet = parse(&ipv6(error).extension(60, 0).udp().frame(), Link::Ethernet);
    assert_eq!((packet.source, packet.destination), (Address::v6(SOURCE6), Address::v6(DESTINATION6)));
    assert_eq!(packet.reporter, Address::v6([1; 4]), "who sent it");
    assert_eq!((packet.protocol, packet.quote), (UDP, quote::UNREACHABLE), "behind an extension header");
}

/// RFC 792 promises no more than eight bytes of the quoted L4 header.
#[test]
fn a_quote_of_eight_bytes_is_enough_and_of_seven_is_none() {
    for error in [ipv4(ipv4(ethernet()).icmp(3, 3)), ipv6(ipv6(ethernet()).icmp(1, 4))] {
        let quoted = tcp(error, flag::SYN);
        let cut_at = |length| {
            let bytes = &quoted.bytes()[..quoted.transport() + length];
            parse(&Slice { bytes, ..quoted.frame() }, Link::Ethernet)
        };
        assert_eq!((cut_at(8).quote, cut_at(8).seq), (quote::UNREACHABLE, SEQ));
        assert_eq!(
            (class_of(&cut_at(7)), cut_at(7).quote, cut_at(7).protocol),
            (Class::Icmp, quote::NONE, 0)
        );
    }
    let short = ipv4(ipv4(ethernet()).icmp(3, 3)).protocol(TCP, 7).padding(&[0xff; 20]);
    assert_eq!(parse(&short.frame(), Link::Ethernet).quote, quote::NONE, "padding is no quote");
}

#[test]
fn quoted_junk_is_icmp_and_quotes_nothing() {
    let error4 = ipv4(ethernet()).icmp(3, 3);
    let error6 = ipv6(ethernet()).icmp(1, 4);
    let chain = |count| (0..count).fold(ipv6(error6), |frame, _| frame.extension(60, 0));
    let mut version5 = tcp(ipv6(error6), flag::SYN);
    version5.bytes_mut()[14 + 40 + 8] = 0x50;
    for (what, frame) in [
        ("nothing", error4),
        ("zeros", error4.payload(&[0; 40])),
        ("IPv6 over ICMPv4", tcp(ipv6(error4), flag::SYN)),
        ("IPv4 over ICMPv6", tcp(ipv4(error6), flag::SYN)),
        ("version 5", version5),
        ("IHL 4", error4.payload(&[0x44; 40])),
        ("a later fragment", tcp(ipv4(error4).fragment(5, false), flag::SYN)),
        ("a later IPv6 fragment", tcp(ipv6(error6).fragment(5, false), flag::SYN)),
        ("another protocol", ipv4(error4).protocol(132, 20)),
        ("a chain too long", tcp(chain(9), flag::SYN)),
        ("another ICMP error", tcp(ipv4(ipv4(error4).icmp(3, 3)), flag::SYN)),
    ] {
        let packet = parse(&frame.frame(), Link::Ethernet);
        assert_eq!((class_of(&packet), packet.quote, packet.protocol), (Class::Icmp, 0, 0), "{what}");
        let own = if packet.family == Family::V4 as u8 { Address::v4(SOURCE4) } else { Address::v6(SOURCE6) };
        assert_eq!((packet.source, packet.source_port), (own, 0), "{what}: the addresses stay its own");
    }
}

#[test]
fn icmp_of_the_other_ip_version_is_another_protocol() {
    assert_eq!(class(Link::Ethernet, &ipv4(ethernet()).protocol(58, 8)), Class::IpOther);
    assert_eq!(class(Link::Ethernet, &ipv6(ethernet()).protocol(1, 8)), Class::IpOther);
}

// ---- whatever the bytes are ----

/// A frame that fails the test when it is read where BPF could not read it.
struct Watched<'a>(Slice<'a>);

impl Frame for Watched<'_> {
    fn read<T: FromBytes>(&self, offset: u32) -> Result<T, Truncated> {
        assert!(offset < OFFSET_LIMIT, "read at {offset}");
        let end = offset as usize + size_of::<T>();
        let read = self.0.read(offset);
        assert_eq!(read.is_ok(), end <= self.0.bytes.len(), "{end} of {}", self.0.bytes.len());
        read
    }

    fn length(&self) -> u32 {
        self.0.length()
    }
}

/// What holds for every packet, good or not.
fn assert_sound(slice: Slice<'_>, link: Link) {
    let packet = parse(&Watched(slice), link);
    let class = class_of(&packet);
    let of_flow = is_tcp(class) || class == Class::Udp || packet.quote != quote::NONE;
    assert_eq!(packet.protocol != 0, of_flow, "a protocol and a flow go together: {packet:?}");
    assert_eq!(packet.protocol == TCP && packet.quote == quote::NONE, is_tcp(class), "{packet:?}");
    assert!(packet.quote == quote::NONE || class == Class::Icmp, "{packet:?}");
    assert!(packet.family != 0 || matches!(class, Class::NonIp | Class::Truncated | Class::Malformed));
    assert!(class != Class::NonIp || packet.family == 0, "{packet:?}");
    if is_tcp(class) {
        assert_eq!(u32::from(packet.header_length) + packet.payload, packet.ip_length, "{packet:?}");
    }
    assert_eq!((packet.segments, packet.point, packet.marks & !mark::TO_GROUP), (1, 0, 0));
    let noted = match packet.note {
        note::EXTENSION_CHAIN => class == Class::IpOther,
        note::SPLIT_HEADER => class == Class::Fragment,
        _ => packet.note == note::NONE,
    };
    assert!(noted, "{packet:?}");

    let mut into = Packet { seq: 1, point: 2, quote: 3, ..packet };
    assert_eq!(parse_into(&slice, link, &mut into), class);
    assert_eq!(into, packet, "nothing is left of what was there");
    let _ = innermost(slice, link);
    if link == Link::Ethernet {
        assert_plain(slice, &packet);
    }
}

/// The fast path gives the same packet or none.
fn assert_plain(slice: Slice<'_>, packet: &Packet) {
    for parse_plain in [parse_plain4::<Watched<'_>, ParseOnly>, parse_plain6::<Watched<'_>, ParseOnly>] {
        let mut plain = Packet::unread(0, 1);
        if parse_plain(&Watched(slice), &mut plain, ParseOnly) {
            assert_eq!(plain, *packet);
        }
    }
    assert_bare(slice);
}

/// A segment of a plain frame is read again as it was, if it has no data.
fn assert_bare(slice: Slice<'_>) {
    let frame = Watched(slice);
    let (mut plain, mut bare) = (Packet::unread(0, 1), Packet::unread(0, 1));
    let is_bare = if parse_plain4(&frame, &mut plain, ParseOnly) && plain.protocol == TCP {
        read_bare4(&frame, &mut bare)
    } else {
        plain = Packet::unread(0, 1);
        if !parse_plain6(&frame, &mut plain, ParseOnly) || plain.protocol != TCP {
            return;
        }
        read_bare6(&frame, &mut bare)
    };
    assert_eq!(is_bare, plain.payload == 0);
    if is_bare {
        let Packet { ip_length, header_length, class, marks, .. } = plain;
        assert_eq!(Packet { ip_length, header_length, class, marks, ..bare }, plain);
    }
}

#[test]
fn the_fast_path_takes_what_is_common() {
    let four = |frame: &FrameBuilder| parse_plain4(&frame.frame(), &mut Packet::default(), ParseOnly);
    let six = |frame: &FrameBuilder| parse_plain6(&frame.frame(), &mut Packet::default(), ParseOnly);
    let (ack4, ack6) = (tcp(ipv4(ethernet()), flag::ACK), tcp(ipv6(ethernet()), flag::ACK));
    assert!(four(&ack4) && !six(&ack4) && six(&ack6) && !four(&ack6));
    assert!(four(&ipv4(ethernet()).udp()) && six(&ipv6(ethernet()).udp()));
    assert!(four(&ethernet().other(0x0806, &[0; 28])), "ARP");
    assert!(four(&ipv4(ethernet()).fragment(3, true)), "a later fragment");
    let neither = |frame: &FrameBuilder| !four(frame) && !six(frame);
    assert!(neither(&tcp(ipv4(ethernet().vlan(0x8100)), flag::ACK)), "a tag is for the general way");
    assert!(neither(&ipv4(ethernet()).icmp(3, 3)), "and so is ICMP");
}

proptest! {
    #[test]
    fn any_bytes_are_in_one_class(
        bytes in prop::collection::vec(any::<u8>(), 0..CAPACITY),
        length in any::<u32>(),
    ) {
        for link in Link::ALL {
            assert_sound(Slice { bytes: &bytes, length }, link);
            assert_sound(Slice::whole(&bytes), link);
        }
    }

    /// Random bytes seldom get past the first header; spoiled frames do.
    #[test]
    fn spoiled_frames_are_in_one_class(
        which in any::<prop::sample::Index>(),
        spoils in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        cut in any::<prop::sample::Index>(),
        quoting in any::<bool>(),
    ) {
        thread_local!(static FORMS: Vec<Form> = forms());
        FORMS.with(|forms| {
            let form = which.get(forms);
            let mut frame = form.frame;
            if quoting {
                let error = ip_headers(FrameBuilder::new(form.link));
                let (_, error, _) = *which.get(&error);
                let kind = if error.bytes()[error.network()] >> 4 == 6 { 1 } else { 3 };
                let (_, quoted, _) = *cut.get(&ip_headers(error.icmp(kind, 3)));
                frame = tcp(quoted, flag::SYN);
            }
            for (place, byte) in spoils {
                *place.get_mut(frame.bytes_mut()) = byte;
            }
            let whole = frame.frame();
            assert_sound(whole, form.link);
            assert_sound(Slice { bytes: &whole.bytes[..cut.index(whole.bytes.len())], ..whole }, form.link);
        });
    }
}
