//! Tests the reader with files built byte by byte, with real captures, and against other tools.

mod build;
mod captures;
mod condition;
mod damage;
mod merge;
mod packed;

use std::io::{self, Read, Write};
use std::path::Path;

use handshake_common::wire::Link;

use self::build::{
    Blocks, Order, Sample, classic, frames, gzip, holding, modified, of_version, samples, seen, table,
};
use crate::{Capture, CaptureError, ClockSteps, Condition, OutOfOrder, Warning, link};

/// A packet with all fields that the reader returns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) time_ns: u64,
    pub(super) link: Link,
    pub(super) interface: u32,
    pub(super) name: Option<String>,
    pub(super) bytes: Vec<u8>,
    pub(super) length: u32,
}

/// Reads `input` to its end.
fn read(input: impl Read + Send + 'static) -> Result<(Vec<Seen>, Vec<Warning>), CaptureError> {
    let mut capture = Capture::read_from("test.pcap".into(), input)?;
    let packets = drain(&mut capture)?;
    assert!(capture.next_packet()?.is_none(), "no packet follows the end");
    assert_eq!(capture.packets(), packets.len() as u64 + capture.skipped());
    Ok((packets, capture.warnings()))
}

fn drain(capture: &mut Capture) -> Result<Vec<Seen>, CaptureError> {
    let mut packets = Vec::new();
    while let Some(packet) = capture.next_packet()? {
        packets.push(Seen {
            time_ns: packet.time_ns,
            link: packet.link,
            interface: packet.interface,
            name: packet.interface_name.map(str::to_owned),
            bytes: packet.bytes.to_vec(),
            length: packet.length,
        });
    }
    Ok(packets)
}

fn read_bytes(bytes: &[u8]) -> Result<(Vec<Seen>, Vec<Warning>), CaptureError> {
    read(io::Cursor::new(bytes.to_vec()))
}

/// The condition of a capture that is read to its end.
fn condition(bytes: &[u8]) -> Condition {
    let source = io::Cursor::new(bytes.to_vec());
    let mut capture = Capture::read_from("test.pcap".into(), source).expect("a capture");
    drain(&mut capture).expect("no error");
    capture.condition()
}

/// Reads a valid capture.
fn good(bytes: &[u8]) -> (Vec<Seen>, Vec<Warning>) {
    read_bytes(bytes).expect("a capture")
}

fn refusal(bytes: &[u8]) -> String {
    read_bytes(bytes).expect_err("not a capture").to_string()
}

/// Returns one byte per read, and interrupts every other read.
struct Dribble(io::Cursor<Vec<u8>>, bool);

impl Read for Dribble {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.1 = !self.1;
        if self.1 {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let one = buffer.len().min(1);
        self.0.read(&mut buffer[..one])
    }
}

#[test]
fn every_format_order_and_resolution_gives_the_same_packets() {
    for Sample { title, bytes, packets, .. } in table() {
        assert_eq!(packets.len(), 5, "{title}");
        let want = (packets, vec![]);
        assert_eq!(good(&bytes), want, "{title}");
        assert_eq!(good(&gzip(&bytes)), want, "{title}, gzip");
    }
}

#[test]
fn short_reads_and_a_pipe_change_nothing() {
    for Sample { title, bytes, packets, .. } in samples() {
        for bytes in [bytes.clone(), gzip(&bytes)] {
            let dribble = Dribble(io::Cursor::new(bytes.clone()), false);
            assert_eq!(read(dribble).expect("a capture").0, packets, "{title}");
            assert_eq!(through_pipe(&bytes), packets, "{title}");
        }
    }
}

/// Opens a pipe by its path, like a shell's `<(…)`.
fn through_pipe(bytes: &[u8]) -> Vec<Seen> {
    use std::os::fd::AsRawFd;
    let (reader, mut writer) = io::pipe().expect("a pipe");
    let path = format!("/proc/self/fd/{}", reader.as_raw_fd());
    let bytes = bytes.to_vec();
    let mut capture = std::thread::scope(|scope| {
        scope.spawn(move || writer.write_all(&bytes).expect("room in the pipe"));
        Capture::open(Path::new(&path)).expect("a capture")
    });
    drain(&mut capture).expect("no error")
}

#[test]
fn concatenated_gzip_members_are_one_file() {
    let Sample { bytes, packets, .. } = samples().remove(0);
    let (head, tail) = bytes.split_at(bytes.len() / 2);
    assert_eq!(good(&[gzip(head), gzip(tail)].concat()), (packets, vec![]));
}

/// Two of the frames are longer on the wire than in the capture, so that the order of the lengths matters.
#[test]
fn old_versions_have_their_lengths_the_other_way_round() {
    let rows = [
        ((2, 0), true),
        ((2, 2), true),
        ((2, 3), true),
        ((2, 3), false),
        ((2, 4), false),
        ((2, 5), false),
        ((543, 0), true),
    ];
    for order in [Order::Little, Order::Big] {
        for (version, swapped) in rows {
            let bytes = of_version(order, version, swapped, &frames());
            assert_eq!(good(&bytes), (seen(&frames(), None), vec![]), "{version:?} {swapped} {order:?}");
        }
        assert_ne!(good(&of_version(order, (2, 4), true, &frames())).1, [], "2.4 has one order");
    }
}

#[test]
fn the_modified_format_is_read_in_both_byte_orders() {
    for order in [Order::Little, Order::Big] {
        assert_eq!(good(&modified(order, &frames())), (seen(&frames(), None), vec![]), "{order:?}");
    }
}

#[test]
fn supported_link_types_are_read() {
    let rows = [
        (0, Link::BsdNull),
        (1, Link::Ethernet),
        (9, Link::Ppp),
        (12, Link::Ip),
        (14, Link::Ip),
        (50, Link::Ppp),
        (101, Link::Ip),
        (104, Link::CiscoHdlc),
        (108, Link::BsdLoop),
        (113, Link::LinuxSll),
        (228, Link::Ip),
        (229, Link::Ip),
        (239, Link::Nflog),
        (276, Link::LinuxSll2),
        // The field's upper bits announce four bytes of frame check sequence.
        (0x4400_0001, Link::Ethernet),
        (0xf000_0114, Link::LinuxSll2),
    ];
    let read: Vec<u32> = (0..=u16::MAX).filter(|number| link::of(*number).is_some()).map(u32::from).collect();
    let listed: Vec<u32> = rows.iter().map(|row| row.0).filter(|field| *field <= u16::MAX.into()).collect();
    assert_eq!(listed, read, "every number that is read has its row");
    for link in Link::ALL {
        assert!(rows.iter().any(|row| row.1 == link), "no number stands for {link:?}");
    }
    for (field, link) in rows {
        for order in [Order::Little, Order::Big] {
            let (packets, warnings) = good(&classic(order, false, field, &frames()));
            assert!(packets.iter().all(|packet| packet.link == link), "{field:#x}");
            assert_eq!((packets.len(), warnings), (5, vec![]), "{field:#x}");
        }
    }
}

#[test]
fn unsupported_link_types_are_skipped_and_named() {
    let (packets, warnings) = good(&classic(Order::Little, false, 105, &frames()));
    assert_eq!(packets, []);
    assert_eq!(warnings, [Warning::Skipped { link_type: 105, packets: 5 }]);
    let said = warnings[0].to_string();
    assert!(said.contains("105 (IEEE 802.11"), "{said}");

    let mut mixed = Blocks::new(Order::Big);
    mixed.section().interface(147, 0, &[]).interface(1, 0, &[]);
    mixed.enhanced(0, 1, &[1; 60], 60).enhanced(1, 2, &[2; 60], 60).enhanced(0, 3, &[3; 60], 60);
    let (packets, warnings) = good(&mixed.bytes);
    assert_eq!(packets.len(), 1);
    assert_eq!(packets[0].bytes, [2; 60]);
    assert_eq!(warnings, [Warning::Skipped { link_type: 147, packets: 2 }]);
}

/// What `tcpdump -i pktap` writes on a Mac.
#[test]
fn the_frame_in_a_pktap_packet_is_read() {
    let pktap = |words: [u32; 3], length: usize| {
        let mut bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        bytes.resize(length, 0);
        bytes.extend([7; 60]);
        let length = u32::try_from(bytes.len()).expect("short") + 9;
        holding(bytes, length)
    };
    for number in [149, 258] {
        for (inner, link) in [(1, Link::Ethernet), (0, Link::BsdNull), (12, Link::Ip)] {
            let given = [pktap([108, 1, inner], 108), pktap([120, 1, inner], 120)];
            for packet in good(&classic(Order::Little, false, number, &given)).0 {
                assert_eq!((packet.link, &packet.bytes[..], packet.length), (link, &[7; 60][..], 69));
            }
        }
        for (words, skipped) in
            [([107, 1, 1], number), ([169, 1, 1], number), ([108, 0, 1], number), ([108, 1, 105], 105)]
        {
            let (packets, warnings) = good(&classic(Order::Little, false, number, &[pktap(words, 108)]));
            let link_type = u16::try_from(skipped).expect("a number of the registry");
            assert_eq!((packets.len(), warnings), (0, vec![Warning::Skipped { link_type, packets: 1 }]));
        }
    }
}

#[test]
fn sections_keep_their_byte_order_and_interfaces_their_numbers() {
    let name = |text: &'static str| (2_u16, text.as_bytes());
    let mut file = Blocks::new(Order::Little);
    file.section().interface(1, 0, &[]).interface(1, 0, &[name("eth0")]).interface(1, 0, &[name("eth0")]);
    file.enhanced(2, 1, &[1], 1).enhanced(1, 2, &[2], 1);
    file.order = Order::Big;
    file.section().interface(113, 0, &[name("any\x1b[31m")]).interface(1, 0, &[name("eth0")]);
    file.enhanced(1, 3, &[3], 1).enhanced(0, 4, &[4], 1);
    let (packets, warnings) = good(&file.bytes);
    let rows: Vec<_> = packets.iter().map(|p| (p.bytes[0], p.interface, p.name.as_deref(), p.link)).collect();
    // In the order of their first packets: the first interface has none, and takes no number.
    assert_eq!(
        rows,
        [
            (1, 0, Some("eth0"), Link::Ethernet),
            (2, 1, Some("eth0"), Link::Ethernet),
            (3, 1, Some("eth0"), Link::Ethernet),
            (4, 2, Some("any\u{fffd}[31m"), Link::LinuxSll),
        ]
    );
    assert_eq!(warnings, []);
}

#[test]
fn a_cooked_capture_has_the_interfaces_of_its_packets() {
    let from = |index: u32| {
        let mut header = [0; 20];
        header[..2].copy_from_slice(&[8, 0]);
        header[4..8].copy_from_slice(&index.to_be_bytes());
        header
    };
    let mut file = Blocks::new(Order::Little);
    file.section().interface(276, 0, &[(2, b"any")]).interface(1, 0, &[(2, b"eth0")]);
    for (interface, index) in [(0, 7), (0, 3), (1, 7), (0, 7), (0, 0)] {
        file.enhanced(interface, 1, &from(index), 20);
    }
    // Cut before the index ends.
    file.enhanced(0, 1, &from(3)[..7], 20);
    let rows: Vec<_> =
        good(&file.bytes).0.into_iter().map(|packet| (packet.interface, packet.name)).collect();
    let names = ["if7", "if3", "eth0", "if7", "any", "any"].map(|name| Some(name.to_owned()));
    assert_eq!(rows, [0, 1, 2, 0, 3, 3].into_iter().zip(names).collect::<Vec<_>>());
}

#[test]
fn interfaces_past_the_limit_share_a_number() {
    let mut file = Blocks::new(Order::Little);
    file.section().interface(276, 0, &[]);
    for index in 1..=4100_u32 {
        let header = [[8, 0, 0, 0], index.to_be_bytes(), [0; 4], [0; 4], [0; 4]].concat();
        file.enhanced(0, 1, &header, 20);
    }
    let (packets, _) = good(&file.bytes);
    let last: Vec<_> = packets[4095..4098].iter().map(|p| (p.interface, p.name.as_deref())).collect();
    assert_eq!(last, [(4095, Some("if4096")), (4096, None), (4096, None)]);
}

#[test]
fn options_after_the_end_marker_are_ignored() {
    let mut file = Blocks::new(Order::Big);
    // A comment, nanoseconds, the end marker; the options after it do not count.
    let options: [(u16, &[u8]); 5] = [(1, b"note"), (9, &[9]), (0, b""), (9, &[3]), (2, b"eth9")];
    file.section().interface(1, 0, &options).enhanced(0, 5_000, &[0; 14], 14);
    let (packets, _) = good(&file.bytes);
    assert_eq!((packets[0].time_ns, packets[0].name.as_deref()), (5_000, None));
}

#[test]
fn simple_packets_take_the_previous_time_and_the_snap_length() {
    let mut file = Blocks::new(Order::Little);
    file.section().interface(1, 3, &[]).simple(&[9; 3], 60).enhanced(0, 7, &[1], 1).simple(&[2; 2], 2);
    let (packets, warnings) = good(&file.bytes);
    let rows: Vec<_> = packets.iter().map(|p| (p.time_ns, p.bytes.len(), p.length)).collect();
    assert_eq!(rows, [(0, 3, 60), (7_000, 1, 1), (7_000, 2, 2)]);
    assert_eq!(warnings, [Warning::Untimed { packets: 2 }]);
}

#[test]
fn times_out_of_range_are_clamped() {
    let mut file = Blocks::new(Order::Little);
    let before_1970 = (-10_i64).to_le_bytes();
    file.section().interface(1, 0, &[]).interface(1, 0, &[(14, &before_1970)]);
    file.enhanced(0, u64::MAX, &[1], 1).enhanced(1, 5, &[2], 1).enhanced(1, 10_000_001, &[3], 1);
    let (packets, warnings) = good(&file.bytes);
    let times: Vec<_> = packets.iter().map(|packet| packet.time_ns).collect();
    assert_eq!(times, [i64::MAX as u64, 0, 1_000]);
    assert_eq!(warnings[0], Warning::OutOfRange { packets: 2 });
}

#[test]
fn the_wire_length_is_at_least_the_captured_length() {
    let mut file = Blocks::new(Order::Little);
    file.section().interface(1, 0, &[]).enhanced(0, 1, &[1; 60], 40).enhanced(0, 1, &[1; 60], 1500);
    let lengths: Vec<_> = good(&file.bytes).0.iter().map(|packet| packet.length).collect();
    assert_eq!(lengths, [60, 1500]);
}

#[test]
fn other_files_are_refused_with_the_reason() {
    let rows: [(&[u8], &str); 12] = [
        (b"", "test.pcap is not a capture: it is empty"),
        (b"\xa1\xb2", "ends within its header"),
        (b"[workspace]", "begins with 5b 77 6f 72; name a pcap or pcapng file"),
        (b"\x28\xb5\x2f\xfd....", "its zstd stream cannot be decompressed"),
        (b"\xfd7zXZ\0..", "ends within its header"),
        (b"BZh9 no bzip2 at all", "its bzip2 stream cannot be decompressed"),
        (b"snoop\0\0\0", "it is a snoop file; convert it: editcap -F pcapng FILE OUT.pcapng"),
        (b"GMBU\0\x02\x01\0", "Microsoft Network Monitor; convert it: editcap -F pcapng"),
        (b"RTSS\x01\x01", "Microsoft Network Monitor; convert it: editcap -F pcapng"),
        (b"\x1f\x8b\x08\0\0\0", "ends within its header"),
        (b"\x1f\x8b not gzip at all", "cannot be decompressed"),
        (b"\xd4\xc3\xb2\xa1\x07\0\x04\0................", "unknown pcap version 7.4"),
    ];
    for (bytes, want) in rows {
        let said = refusal(bytes);
        assert!(said.contains(want), "{said}");
        assert!(!said.contains('\n'), "{said}");
    }
    let mut newer = Blocks::new(Order::Big);
    newer.section();
    newer.bytes[13] = 9;
    assert!(refusal(&newer.bytes).contains("pcapng version 9.0"));
}

#[test]
fn files_that_cannot_be_opened_say_what_to_do() {
    let missing = Capture::open(Path::new("/nonexistent/x.pcap")).err().expect("nothing there");
    assert!(matches!(missing, CaptureError::NotFound { .. }));
    assert_eq!(missing.to_string(), "/nonexistent/x.pcap: no such file; check the path");

    let folder = Capture::open(Path::new(env!("CARGO_MANIFEST_DIR"))).err().expect("a folder");
    assert!(matches!(folder, CaptureError::Unreadable { .. }), "{folder}");
    assert!(folder.to_string().contains("name a capture in it"), "{folder}");

    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
    let text = Capture::open(Path::new(manifest)).err().expect("a text");
    assert!(matches!(text, CaptureError::NotACapture { .. }), "{text}");
}

#[test]
fn a_failing_disk_is_an_error_and_not_an_end_of_file() {
    struct Failing(io::Cursor<Vec<u8>>);
    impl Read for Failing {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            const EIO: i32 = 5;
            match self.0.read(buffer)? {
                0 => Err(io::Error::from_raw_os_error(EIO)),
                read => Ok(read),
            }
        }
    }
    let Sample { bytes, .. } = samples().remove(0);
    let mut packed = gzip(&bytes);
    packed.truncate(packed.len() - 30);
    for bytes in [bytes, packed] {
        let failed = read(Failing(io::Cursor::new(bytes))).expect_err("the disk fails");
        assert!(matches!(failed, CaptureError::Unreadable { .. }), "{failed}");
    }
}
