//! Reads files that are cut short, have wrong lengths, or contain random bytes: reading never panics and
//! always ends.

use std::io;

use proptest::prelude::*;

use super::build::{Blocks, Order, Sample, classic, frames, gzip, samples};
use super::{Capture, CaptureError, Seen, Warning, drain, good, read_bytes};

#[test]
fn every_prefix_is_read_up_to_the_cut() {
    for Sample { title, bytes, packets, ends } in samples() {
        for length in 0..bytes.len() {
            let title = format!("{title}, {length} of {} bytes", bytes.len());
            let whole = ends.iter().rposition(|end| *end <= length);
            match read_bytes(&bytes[..length]) {
                Err(error) => {
                    assert!(matches!(error, CaptureError::NotACapture { .. }), "{title}: {error}");
                    assert_eq!(whole, None, "{title}: {error}");
                }
                Ok((got, warnings)) => {
                    let whole = whole.expect("the head was read");
                    assert!(packets.starts_with(&got), "{title}");
                    check_cut(&title, length == ends[whole], &got, &warnings);
                }
            }
        }
    }
}

/// A cut at a record's end is not noticed; elsewhere the warning has the number of packets read.
fn check_cut(title: &str, at_end: bool, got: &[Seen], warnings: &[Warning]) {
    let packets = got.len() as u64;
    let detail = "it ends within the next record";
    let want: &[_] = if at_end { &[] } else { &[Warning::CutShort { packets, detail }] };
    assert_eq!(warnings, want, "{title}");
}

#[test]
fn prefixes_that_end_with_a_record_are_whole_captures() {
    for Sample { title, bytes, packets, ends } in samples() {
        for (index, end) in ends.iter().enumerate() {
            let (got, warnings) = good(&bytes[..*end]);
            assert_eq!(warnings, [], "{title}");
            // pcap has one record per packet; pcapng has two for the head, then three per packet.
            let want = if ends.len() == packets.len() + 1 { index } else { (index + 1) / 3 };
            assert_eq!(got, packets[..want], "{title}: {end}");
        }
    }
}

#[test]
fn every_prefix_of_a_gzip_file_is_cut_short_or_refused() {
    for Sample { title, bytes, packets, .. } in samples() {
        let packed = gzip(&bytes);
        let mut read_some = false;
        for length in 0..packed.len() {
            match read_bytes(&packed[..length]) {
                Err(error) => assert!(matches!(error, CaptureError::NotACapture { .. }), "{title}: {error}"),
                Ok((got, warnings)) => {
                    assert!(packets.starts_with(&got), "{title}");
                    assert!(matches!(warnings[..], [Warning::CutShort { .. }]), "{title}: {warnings:?}");
                    read_some |= !got.is_empty();
                }
            }
        }
        assert!(read_some, "{title}: no prefix gave a packet");
    }
}

#[test]
fn a_cut_names_the_last_packet() {
    let bytes = classic(Order::Little, false, 1, &frames());
    let (_, warnings) = good(&bytes[..bytes.len() - 17]);
    let said = warnings[0].to_string();
    assert_eq!(said, "capture cut short after packet 3: it ends within the next record");
}

#[test]
fn a_wrong_length_stops_reading_and_allocates_nothing() {
    let head = classic(Order::Little, false, 1, &frames());
    for lie in [262_145_u32, 256 << 20, u32::MAX] {
        let mut bytes = head.clone();
        for word in [1, 2, lie, lie] {
            bytes.extend(word.to_le_bytes());
        }
        let (packets, warnings) = good(&bytes);
        assert_eq!(packets.len(), 5);
        assert!(matches!(warnings[..], [Warning::Damaged { packets: 5, .. }]), "{lie}: {warnings:?}");
    }
    // If the snap length allows it, only the end of the file shows the error; memory grows with the file
    // alone.
    let mut bytes = head;
    bytes[16..20].copy_from_slice(&u32::MAX.to_le_bytes());
    for word in [1, 2, 200 << 20, 200 << 20] {
        bytes.extend(u32::to_le_bytes(word));
    }
    let mut capture = Capture::read_from("lie".into(), io::Cursor::new(bytes)).expect("a capture");
    assert_eq!(drain(&mut capture).expect("no error").len(), 5);
    assert!(matches!(capture.warnings()[..], [Warning::CutShort { packets: 5, .. }]));
    assert!(capture.capacity() < 1 << 20, "{} bytes held", capture.capacity());
}

#[test]
fn a_large_packet_is_read_if_the_snap_length_allows_it() {
    const LARGE: usize = 3 << 20;
    let mut bytes = classic(Order::Big, true, 101, &[]);
    bytes[16..20].copy_from_slice(&[0, 0x40, 0, 0]);
    for word in [1, 2, LARGE, LARGE, 3, 4, 1, 1] {
        bytes.extend(u32::to_be_bytes(u32::try_from(word).expect("small")));
        if bytes.len() == 40 {
            bytes.extend(vec![0x45; LARGE]);
        }
    }
    bytes.push(0x60);
    let (packets, warnings) = good(&bytes);
    assert_eq!(packets.iter().map(|packet| packet.bytes.len()).collect::<Vec<_>>(), [LARGE, 1]);
    assert_eq!(warnings, []);
}

#[test]
fn invalid_blocks_stop_reading() {
    type Damage = fn(&mut Blocks);
    let rows: [(&str, Damage); 8] = [
        ("not described", |file| _ = file.enhanced(1, 9, &[1], 1)),
        ("not described", |file| _ = file.obsolete(8, 9, &[1], 1)),
        ("not described", |file| _ = file.section().simple(&[1], 1)),
        ("lengths differ", |file| *file.block(4, &[0; 8]).bytes.last_mut().expect("a byte") ^= 1),
        ("longer than the block", |file| _ = file.block(6, &[[0; 12], [0xee; 12]].concat())),
        ("longer than the block", |file| _ = file.block(2, &[[0; 12], [0x0e; 12]].concat())),
        ("too short for its own header", |file| file.bytes.extend([6, 0, 0, 0, 3, 0, 0, 0, 9, 9, 9, 9])),
        ("more than the limit of 268435456", |file| {
            file.bytes.extend([9, 0, 0, 0, 0xfc, 0xff, 0xff, 0xff, 0, 0, 0, 0])
        }),
    ];
    for (want, damage) in rows {
        let mut file = Blocks::new(Order::Little);
        file.section().interface(1, 0, &[]).enhanced(0, 1, &[1; 60], 60);
        damage(&mut file);
        file.enhanced(0, 2, &[2; 60], 60);
        let (packets, warnings) = good(&file.bytes);
        assert_eq!(packets.len(), 1, "{want}: {warnings:?}");
        let said: Vec<_> = warnings.iter().map(ToString::to_string).collect();
        assert!(said.len() == 1 && said[0].contains(want), "{want}: {said:?}");
        assert!(said[0].starts_with("capture damaged after packet 1"), "{said:?}");
    }
}

#[test]
fn too_many_interfaces_are_refused() {
    let mut file = Blocks::new(Order::Little);
    file.section();
    for _ in 0..4097 {
        file.interface(1, 0, &[]);
    }
    let (_, warnings) = good(&file.bytes);
    assert!(warnings[0].to_string().contains("more than 4096 interfaces"), "{warnings:?}");
}

#[test]
fn a_wrong_gzip_checksum_is_reported_after_the_packets() {
    let Sample { bytes, packets, .. } = samples().remove(0);
    let mut packed = gzip(&bytes);
    let checksum = packed.len() - 8;
    packed[checksum] ^= 1;
    let (got, warnings) = good(&packed);
    assert_eq!(got, packets);
    assert!(matches!(warnings[..], [Warning::Damaged { packets: 5, .. }]), "{warnings:?}");
}

/// A valid file with some bytes replaced, possibly cut or compressed.
fn mangled() -> impl Strategy<Value = Vec<u8>> {
    let sample = (0..samples().len()).prop_map(|index| samples().swap_remove(index).bytes);
    let changes = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..12);
    (sample, changes, any::<prop::sample::Index>(), any::<[bool; 2]>()).prop_map(
        |(mut bytes, changes, cut, [pack, shorten])| {
            for (at, byte) in changes {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            if shorten {
                bytes.truncate(cut.index(bytes.len()));
            }
            if pack { gzip(&bytes) } else { bytes }
        },
    )
}

/// Reads to the end. A packet takes at least 16 bytes of its file, so more packets would be invented.
fn ends(bytes: &[u8], decompressed_at_most: usize) {
    if let Ok((packets, warnings)) = read_bytes(bytes) {
        assert!(packets.len() <= decompressed_at_most / 16);
        let held: usize = packets.iter().map(|packet| packet.bytes.len()).sum();
        assert!(held <= decompressed_at_most);
        assert!(packets.iter().all(|packet| packet.time_ns <= i64::MAX as u64));
        assert!(warnings.iter().all(|warning| !warning.to_string().contains('\n')));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn reading_mangled_files_ends(bytes in mangled()) {
        // Upper bound of a sample's length, bytes.
        ends(&bytes, 4_096);
    }

    #[test]
    fn reading_arbitrary_bytes_after_a_magic_number_ends(
        magic in prop::sample::select(vec![
            &[0xd4, 0xc3, 0xb2, 0xa1, 2, 0, 4, 0][..],
            &[0xa1, 0xb2, 0x3c, 0x4d, 0, 2, 0, 4],
            &[0x34, 0xcd, 0xb2, 0xa1, 2, 0, 4, 0],
            &[0x0a, 0x0d, 0x0d, 0x0a, 28, 0, 0, 0, 0x4d, 0x3c, 0x2b, 0x1a, 1, 0, 0, 0],
            &[0x0a, 0x0d, 0x0d, 0x0a, 0, 0, 0, 28, 0x1a, 0x2b, 0x3c, 0x4d, 0, 1, 0, 0],
            &[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3],
            &[],
        ]),
        tail in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        // Deflate compresses at most 1032 to one.
        ends(&[magic, &tail].concat(), 400 * 1032);
    }
}
