//! Compares real captures with Wireshark's tools.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::build::gzip;
use super::{Capture, Condition, Seen, drain, good};

/// The captures in the folder that HANDSHAKE_CAPTURES names; empty if there is no such folder.
fn captures() -> Vec<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/captures");
    let folder = std::env::var_os("HANDSHAKE_CAPTURES").map_or(beside, PathBuf::from);
    let entries = std::fs::read_dir(folder).into_iter().flatten();
    let paths = entries.map(|entry| entry.expect("a readable folder").path());
    let mut paths: Vec<_> = paths.filter(|path| path.extension().is_some_and(|ext| ext == "pcap")).collect();
    paths.sort();
    if paths.is_empty() {
        println!("skipped: no captures");
    }
    paths
}

/// The output of one of Wireshark's tools, if it is installed.
fn tool(name: &str, arguments: &[&str], path: &Path) -> Option<Vec<u8>> {
    let output = match Command::new(name).args(arguments).arg(path).arg("-").output() {
        Ok(output) => output,
        Err(_) => {
            println!("skipped: no {name}");
            return None;
        }
    };
    Some(output.stdout)
}

/// Reads a whole capture; also returns how many of its packets are out of order.
fn read_file(path: &Path) -> (Vec<Seen>, u64) {
    let mut capture = Capture::open(path).expect("a capture");
    let packets = drain(&mut capture).expect("no error");
    let Condition { out_of_order, clock, .. } = capture.condition();
    let whole = Condition { out_of_order, clock, ..Condition::default() };
    assert_eq!(capture.condition(), whole, "{}", path.display());
    (packets, out_of_order.map_or(0, |order| order.packets))
}

#[test]
fn packets_bytes_times_and_order_match_capinfos() {
    for path in captures() {
        let arguments = ["-T", "-r", "-m", "-M", "-c", "-d", "-a", "-e", "-S", "-o"];
        // The `-` after the path is a file that capinfos does not find; the first line is about `path`.
        let Some(said) = tool("capinfos", &arguments, &path) else { return };
        let said = String::from_utf8(said).expect("text");
        let said = said.lines().next().expect("a line");
        let (packets, out_of_order) = read_file(&path);
        let bytes: u64 = packets.iter().map(|packet| u64::from(packet.length)).sum();
        let times = || packets.iter().map(|packet| packet.time_ns / 1_000);
        let (first, last) = (times().min().expect("a packet"), times().max().expect("a packet"));
        let second = |us: u64| format!("{}.{:06}", us / 1_000_000, us % 1_000_000);
        let order = if out_of_order == 0 { "True" } else { "False" };
        let want = format!("{},{bytes},{},{},{order}", packets.len(), second(first), second(last));
        assert!(said.ends_with(&want), "{said} / {want}");
    }
}

#[test]
fn as_many_packets_are_out_of_order_as_reordercap_says() {
    let mut checked = 0;
    for path in captures() {
        let (packets, out_of_order) = read_file(&path);
        if out_of_order == 0 {
            continue;
        }
        let Ok(sorted) = Command::new("reordercap").arg(&path).arg("/dev/null").output() else {
            return println!("skipped: no reordercap");
        };
        let said = String::from_utf8(sorted.stdout).expect("text");
        let want = format!("{} frames, {out_of_order} out of order", packets.len());
        assert!(said.contains(&want), "{}: {said} / {want}", path.display());
        checked += 1;
    }
    println!("{checked} captures are out of order");
}

#[test]
fn converted_files_give_the_same_packets() {
    let name = "zeek-linuxsll-arp.pcap";
    let Some(path) = captures().into_iter().find(|path| path.ends_with(name)) else { return };
    let (packets, _) = read_file(&path);
    assert_eq!(packets.len(), 12);
    for format in ["pcap", "nsecpcap", "modpcap", "pcapng"] {
        let Some(converted) = tool("editcap", &["-F", format], &path) else { return };
        assert_eq!(good(&converted), (packets.clone(), vec![]), "{format}");
        assert_eq!(good(&gzip(&converted)), (packets.clone(), vec![]), "{format}, gzip");
        if format == "pcapng" {
            let twice = good(&converted.repeat(2)).0;
            assert_eq!(twice, [packets.clone(), packets.clone()].concat(), "two concatenated files");
        }
    }
}
