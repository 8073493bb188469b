//! Files that programs have compressed, and blocks of other lengths than the format wants.

use std::io::Write as _;
use std::process::{Command, Stdio};

use super::build::{Blocks, Order, Sample, classic, frames, gzip, samples, seen};
use super::{Condition, Warning, condition, good, refusal};

/// The programs, with an option for their best compression.
const PROGRAMS: [(&str, &str); 5] =
    [("gzip", "-9"), ("zstd", "-19"), ("xz", "-9"), ("bzip2", "-9"), ("lz4", "-9")];

/// What a program makes of `bytes`; `None` where it is not installed.
fn packed(program: &str, options: &[&str], bytes: &[u8]) -> Option<Vec<u8>> {
    let mut command = Command::new(program);
    command.args(options).arg("-c").stdin(Stdio::piped()).stdout(Stdio::piped());
    let Ok(mut child) = command.spawn() else {
        println!("skipped: no {program}");
        return None;
    };
    let mut input = child.stdin.take().expect("a pipe");
    let bytes = bytes.to_vec();
    let writer = std::thread::spawn(move || input.write_all(&bytes).expect("it reads"));
    let output = child.wait_with_output().expect("it ends");
    writer.join().expect("no panic");
    assert!(output.status.success(), "{program}");
    Some(output.stdout)
}

#[test]
fn what_programs_compress_is_read() {
    for (program, best) in PROGRAMS {
        for Sample { title, bytes, packets, .. } in samples() {
            for options in [&[][..], &[best]] {
                let Some(packed) = packed(program, options, &bytes) else { continue };
                assert_eq!(good(&packed), (packets.clone(), vec![]), "{program} {options:?}, {title}");
            }
        }
    }
}

/// More than a block of each format.
#[test]
fn a_large_compressed_file_is_read_whole() {
    let many: Vec<_> = frames().into_iter().cycle().take(40_000).collect();
    let bytes = classic(Order::Little, true, 1, &many);
    for (program, _) in PROGRAMS {
        let Some(packed) = packed(program, &[], &bytes) else { continue };
        let (packets, warnings) = good(&packed);
        assert_eq!(packets.len(), 40_000, "{program}");
        assert!(packets == seen(&many, None), "{program}");
        assert!(matches!(warnings[..], [Warning::OutOfOrder(_), Warning::ClockBack(_)]), "{warnings:?}");
    }
}

#[test]
fn members_one_after_the_other_are_one_file() {
    let Sample { bytes, packets, .. } = samples().remove(0);
    let (head, tail) = bytes.split_at(bytes.len() / 2);
    for (program, _) in PROGRAMS {
        let (Some(one), Some(other)) = (packed(program, &[], head), packed(program, &[], tail)) else {
            continue;
        };
        assert_eq!(good(&[one, other].concat()), (packets.clone(), vec![]), "{program}");
    }
    // A frame that is to be skipped, before and between (RFC 8878 §3.1.2).
    let (Some(one), Some(other)) = (packed("zstd", &[], head), packed("zstd", &[], tail)) else { return };
    let skipped = [0x53, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3];
    let whole = [&skipped[..], &one, &skipped, &other, &skipped].concat();
    assert_eq!(good(&whole), (packets, vec![]));
}

/// A log rotation compresses what is compressed already, and a download may do so once more.
#[test]
fn what_is_compressed_more_than_once_is_read() {
    let Sample { bytes, packets, .. } = samples().remove(0);
    for (within, _) in PROGRAMS {
        for (around, _) in PROGRAMS {
            let twice = packed(within, &[], &bytes).and_then(|bytes| packed(around, &[], &bytes));
            let Some(twice) = twice else { continue };
            assert_eq!(good(&twice), (packets.clone(), vec![]), "{within} in {around}");
        }
    }
    let many = |times| (0..times).fold(bytes.clone(), |bytes, _| gzip(&bytes));
    assert_eq!(good(&many(4)), (packets, vec![]));
    let said = refusal(&many(5));
    assert!(said.contains("more than 4 times; unpack it: gzip -dc FILE | handshake replay -"), "{said}");
}

/// The faults of the stream within and of the one around it.
#[test]
fn a_fault_of_a_stream_within_another_is_seen() {
    let bytes = classic(Order::Little, false, 1, &frames());
    let mut wrong = gzip(&bytes);
    let checksum = wrong.len() - 6;
    wrong[checksum] ^= 0x40;
    let damaged = condition(&gzip(&wrong));
    assert!(damaged.damaged && !damaged.truncated, "{damaged:?}");
    assert!(good(&gzip(&wrong)).1[0].to_string().contains("its gzip in gzip stream"));

    let mut wrong = gzip(&gzip(&bytes));
    wrong.truncate(wrong.len() - 1);
    let cut = condition(&wrong);
    assert!(cut.truncated && !cut.damaged, "{cut:?}");
}

#[test]
fn zeros_behind_a_compressed_file_are_padding() {
    let Sample { bytes, packets, .. } = samples().remove(0);
    for (program, _) in PROGRAMS {
        let Some(mut packed) = packed(program, &[], &bytes) else { continue };
        packed.resize(packed.len().next_multiple_of(4) + 10_000, 0);
        // Only gzip's tapes are known to be padded; xz has padding in its format.
        if matches!(program, "gzip" | "xz" | "zstd" | "bzip2") {
            assert_eq!(good(&packed), (packets.clone(), vec![]), "{program}");
        }
    }
    let padded = [gzip(&bytes), vec![0; 700]].concat();
    assert_eq!(good(&padded), (packets.clone(), vec![]));
    let wrong = [gzip(&bytes), vec![0; 700], vec![7; 90]].concat();
    let (got, warnings) = good(&wrong);
    assert_eq!(got, packets);
    assert!(matches!(warnings[..], [Warning::Damaged { packets: 5, .. }]), "{warnings:?}");
}

#[test]
fn a_compressed_file_that_ends_early_is_cut_short() {
    // Bytes that no program makes shorter, in packets of 1,000.
    let mut word = 1_u64;
    let mut bytes = classic(Order::Little, true, 1, &[]);
    for _ in 0..3_000_u32 {
        bytes.extend([1_700_000_000, 0, 1_000, 1_000_u32].iter().flat_map(|word| word.to_le_bytes()));
        bytes.extend((0..125).flat_map(|_| {
            word ^= word << 13;
            word ^= word >> 7;
            word ^= word << 17;
            word.to_le_bytes()
        }));
    }
    for (program, _) in PROGRAMS {
        // A block of lz4 is as large as it is allowed to be, and zstd's decoder holds a window back.
        let options = match program {
            "lz4" => &["-B4"][..],
            "zstd" => &["--zstd=wlog=17"],
            _ => &[],
        };
        let Some(packed) = packed(program, options, &bytes) else { continue };
        for cut in [packed.len() / 2, packed.len() - 1] {
            let Condition { truncated, damaged, .. } = condition(&packed[..cut]);
            assert_eq!((truncated, damaged), (true, false), "{program}, {cut} of {}", packed.len());
        }
        assert!(refusal(&packed[..6]).contains("ends within its header"), "{program}");
    }
}

#[test]
fn a_wrong_checksum_is_damage() {
    let bytes = classic(Order::Little, false, 1, &frames());
    for (program, options, from_end) in
        [("gzip", &[][..], 6), ("zstd", &["--check"], 1), ("xz", &["--check=crc64"], 28), ("lz4", &[], 1)]
    {
        let Some(mut packed) = packed(program, options, &bytes) else { continue };
        let at = packed.len() - from_end;
        packed[at] ^= 0x40;
        let condition = condition(&packed);
        assert!(condition.damaged, "{program}: {condition:?}");
    }
}

/// The second of two blocks is `change`d: its lengths leave the padding out.
fn unaligned(order: Order, is_option: bool) -> Vec<u8> {
    let mut file = Blocks::new(order);
    file.order = order;
    file.section().interface(1, 0, &[]);
    let given = frames();
    for (at, frame) in given.iter().enumerate().take(3) {
        let begin = file.bytes.len();
        let length = u32::try_from(frame.bytes().len()).expect("a short frame");
        file.enhanced(0, 1_000_000 * at as u64, &frame.bytes(), length + 4);
        let length = file.bytes.len() - begin;
        let shorter = if is_option { length - 1 } else { length - frame.bytes().len() % 4 };
        let word = file.word(u32::try_from(shorter).expect("short"));
        file.bytes[begin + 4..begin + 8].copy_from_slice(&word);
        let end = file.bytes.len();
        file.bytes[end - 4..].copy_from_slice(&word);
    }
    file.bytes
}

#[test]
fn a_block_whose_length_leaves_its_padding_out_is_rounded_up() {
    for order in [Order::Little, Order::Big] {
        for is_option in [false, true] {
            let (packets, warnings) = good(&unaligned(order, is_option));
            let lengths: Vec<_> = packets.iter().map(|packet| packet.bytes.len()).collect();
            assert_eq!((&lengths[..], &warnings[..]), (&[60, 61, 62][..], &[][..]), "{order:?}");
        }
        let mut bytes = unaligned(order, true);
        let end = bytes.len();
        bytes[end - 4..].fill(0);
        assert!(matches!(good(&bytes).1[..], [Warning::Damaged { packets: 2, .. }]), "{order:?}");
    }
}

/// Records of ERF as Wireshark's documentation has them: type 2 is Ethernet.
#[test]
fn erf_is_recognised_by_its_records() {
    let record = |seconds: u32, kind: u8, length: u16| {
        let mut record = vec![0, 0, 0, 0];
        record.extend(seconds.to_le_bytes());
        record.extend([kind, 4]);
        record.extend(length.to_be_bytes());
        record.resize(usize::from(length).max(16), 0);
        record
    };
    let now = 1_700_000_000;
    for bytes in [record(now, 2, 80), [record(now, 0x82, 80), record(now + 1, 2, 64)].concat()] {
        assert!(refusal(&bytes).contains("it is an ERF file; convert it: editcap"), "{}", refusal(&bytes));
    }
    for bytes in
        [record(5, 2, 80), record(now, 0, 80), record(now, 2, 15), [record(now, 2, 80), vec![9; 80]].concat()]
    {
        assert!(refusal(&bytes).contains("name a pcap or pcapng file"), "{}", refusal(&bytes));
    }
}
