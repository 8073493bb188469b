//! Several files as one.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::build::{Blocks, Order, gzip};
use crate::{CaptureError, CaptureLosses, Captures};

/// A folder that goes when it is dropped.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("hs-merge-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).expect("a folder");
        Self(path)
    }

    fn put(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.0.join(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        fs::write(&path, bytes).expect("a file");
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A capture whose packets have these times, µs, and a byte that tells them apart.
fn at(interface: &str, packets: &[(u64, u8)]) -> Vec<u8> {
    let mut file = Blocks::new(Order::Little);
    file.section().interface(1, 0, &[(2, interface.as_bytes())]);
    for (time, byte) in packets {
        file.enhanced(0, *time, &[*byte; 60], 60);
    }
    file.bytes
}

/// File, number, time in µs, interface and byte of each packet.
fn read(captures: &mut Captures) -> Vec<(usize, u64, u64, u32, u8)> {
    let mut all = Vec::new();
    while let Some(time_ns) = captures.next_time().expect("no error") {
        let packet = captures.next_packet().expect("no error").expect("a packet");
        assert_eq!(packet.time_ns, time_ns);
        all.push((packet.file, packet.number, packet.time_ns / 1_000, packet.interface, packet.bytes[0]));
    }
    assert!(captures.next_packet().expect("no error").is_none());
    all
}

fn open(paths: &[&Path]) -> Captures {
    let paths: Vec<PathBuf> = paths.iter().map(|path| path.to_path_buf()).collect();
    Captures::open(&paths).expect("captures")
}

#[test]
fn packets_of_several_files_come_by_time() {
    let folder = Folder::new("time");
    let a = folder.put("a.pcapng", &at("eth0", &[(10, 1), (40, 2), (41, 3)]));
    let b = folder.put("b.pcapng.gz", &gzip(&at("eth1", &[(5, 4), (20, 5), (40, 6)])));
    let c = folder.put("c.pcapng", &at("eth0", &[(30, 7)]));
    let empty = folder.put("d.pcapng", &at("eth0", &[]));
    let mut captures = open(&[&a, &b, &c, &empty]);
    let rows = [
        (1, 1, 5, 0, 4),
        (0, 1, 10, 1, 1),
        (1, 2, 20, 0, 5),
        (2, 1, 30, 1, 7),
        (0, 2, 40, 1, 2),
        (1, 3, 40, 0, 6),
        (0, 3, 41, 1, 3),
    ];
    assert_eq!(read(&mut captures), rows, "files of one interface share its number");
    assert_eq!(captures.paths().collect::<Vec<_>>(), [&a, &b, &c, &empty]);
    let progress = captures.progress();
    assert_eq!((progress.of, progress.packets), (Some(progress.bytes), 7));
    assert_eq!((captures.warnings(), captures.condition().out_of_order), (vec![], None));
}

/// A file keeps its own order; another's packets come where its next packet lets them.
#[test]
fn what_is_out_of_order_in_a_file_stays_so() {
    let folder = Folder::new("order");
    let a = folder.put("a.pcapng", &at("eth0", &[(10, 1), (50, 2), (20, 3)]));
    let b = folder.put("b.pcapng", &at("eth1", &[(30, 4)]));
    let mut captures = open(&[&a, &b]);
    let bytes: Vec<u8> = read(&mut captures).into_iter().map(|row| row.4).collect();
    assert_eq!(bytes, [1, 4, 2, 3]);
    let order = captures.condition().out_of_order.expect("one is");
    assert_eq!((order.packets, order.first), (1, 3));
    assert!(captures.warnings()[0].starts_with(&format!("{}: packets earlier", a.display())));
}

#[test]
fn a_folder_is_all_captures_in_it() {
    let folder = Folder::new("folder");
    folder.put("2.pcapng", &at("eth0", &[(10, 1)]));
    folder.put("sub/1.pcapng", &at("eth0", &[(5, 2)]));
    folder.put("README", b"no capture");
    folder.put(".hidden.pcapng", &at("eth0", &[(1, 3)]));
    let mut captures = open(&[&folder.0]);
    assert_eq!(read(&mut captures).into_iter().map(|row| row.4).collect::<Vec<_>>(), [2, 1]);
    let said = captures.warnings();
    assert_eq!(said.len(), 1);
    assert!(said[0].contains("README is not a capture") && said[0].ends_with("; left out"), "{}", said[0]);

    let none = Folder::new("none");
    none.put("README", b"no capture");
    let refused = Captures::open(std::slice::from_ref(&none.0)).err().expect("no capture in it");
    assert!(matches!(refused, CaptureError::EmptyFolder { .. }), "{refused}");
    let text = Captures::open(&[none.0.join("README")]).err().expect("a named file is one");
    assert!(matches!(text, CaptureError::NotACapture { .. }), "{text}");
}

/// A file that is given twice, in its folder too, or by another name is read once, and that is said.
#[test]
fn a_file_is_read_once() {
    let folder = Folder::new("once");
    let file = folder.put("a.pcapng", &at("eth0", &[(10, 1), (11, 2)]));
    let (soft, hard) = (folder.0.join("b.pcapng"), folder.0.join("c.pcapng"));
    std::os::unix::fs::symlink(&file, &soft).expect("a link");
    fs::hard_link(&file, &hard).expect("a link");
    folder.put("sub/same-bytes.pcapng", &at("eth0", &[(12, 3)]));
    let mut captures = open(&[&file, &file, &folder.0]);
    assert_eq!(read(&mut captures).into_iter().map(|row| row.4).collect::<Vec<_>>(), [1, 2, 3]);
    let said = captures.warnings();
    let same = format!(" is the same file as {}; left out", file.display());
    assert!(said.len() == 4 && said.iter().all(|said| said.ends_with(&same)), "{said:?}");

    let links = Folder::new("links");
    fs::hard_link(&file, links.0.join("d.pcapng")).expect("a link");
    assert_eq!(read(&mut open(&[&file, &links.0])).len(), 2, "the folder is not empty");
}

#[test]
fn what_the_files_lack_adds_up() {
    let folder = Folder::new("lack");
    let whole = at("eth0", &[(1, 1), (2, 2), (9, 3)]);
    let cut = folder.put("cut.pcapng", &whole[..whole.len() - 5]);
    let damaged = folder.put("damaged.pcapng", &[&whole[..], &[0xff; 16]].concat());
    let mut skipped = Blocks::new(Order::Big);
    skipped.section().interface(147, 0, &[]).enhanced(0, 3, &[1; 9], 9).statistics(0, &[(5, 40)]);
    let skipped = folder.put("skipped.pcapng", &skipped.bytes);
    let mut captures = open(&[&cut, &damaged, &skipped]);
    assert_eq!(read(&mut captures).len(), 5);
    let losses = CaptureLosses { skipped: 1, dropped: 40, damaged: 1, truncated: 1 };
    assert_eq!(captures.losses(), losses);
    let condition = captures.condition();
    assert_eq!((condition.skipped(), condition.dropped), (1, Some(40)));
    assert!(condition.damaged && condition.truncated);
    assert!(captures.nothing_read().is_none(), "some was");
    assert_eq!(captures.warnings().len(), 3, "{:?}", captures.warnings());
    let mut only = open(&[&skipped]);
    assert_eq!(read(&mut only), []);
    assert!(only.nothing_read().is_some());
}

/// Files written one after the other, far more than may be open.
#[test]
fn a_thousand_files_need_few_descriptors() {
    let folder = Folder::new("many");
    for n in 0..1_500_u32 {
        folder.put(
            &format!("{:05}.pcapng", 1_500 - n),
            &at("eth0", &[(u64::from(n), 1), (u64::from(n) + 1, 2)]),
        );
    }
    let mut captures = open(&[&folder.0]);
    let mut most = 0;
    let mut packets = 0;
    while captures.next_packet().expect("no error").is_some() {
        packets += 1;
        let is_one = |link: &PathBuf| link.starts_with(&folder.0);
        let links = fs::read_dir("/proc/self/fd").expect("Linux").flatten();
        most = most.max(links.filter_map(|entry| fs::read_link(entry.path()).ok()).filter(is_one).count());
    }
    assert_eq!(packets, 3_000);
    assert!(most <= 4, "{most} were open");
}

/// Wireshark's mergecap puts the packets of two files in the same order.
#[test]
fn the_order_is_that_of_mergecap() {
    let folder = Folder::new("mergecap");
    let times = |seed: u64| -> Vec<(u64, u8)> {
        let mut time = 0;
        (0..200_u64)
            .map(|n| (n, (n % 200) as u8))
            .map(|(n, byte)| {
                time += (n * seed) % 7;
                (time, byte)
            })
            .collect()
    };
    let paths = [3, 5, 11].map(|seed| folder.put(&format!("{seed}.pcapng"), &at("eth0", &times(seed))));
    let merged = folder.0.join("merged.out");
    let Ok(output) = Command::new("mergecap").arg("-w").arg(&merged).args(&paths).output() else {
        return println!("skipped: no mergecap");
    };
    assert!(output.status.success());
    let paths = paths.each_ref().map(PathBuf::as_path);
    let of = |captures: &mut Captures| -> Vec<u64> { read(captures).into_iter().map(|row| row.2).collect() };
    let [ours, theirs] = [of(&mut open(&paths)), of(&mut open(&[&merged]))];
    assert_eq!((ours.len(), &ours), (600, &theirs));
}
