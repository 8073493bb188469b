//! Captures that are not whole or whose times do not run forwards: what the report and stderr say, and the
//! exit code.

use std::process::{Command, Output};

use anyhow::{Context as _, Result, ensure};
use handshake_lab::frame::{BuiltSegment, flag, tcp_frame};
use serde_json::{Value, json};

use crate::made::{CLIENT, LINKTYPE_ETHERNET, MACS, Made, Recorded, Row, SERVER, frame, pcap, words};
use crate::support::{HANDSHAKE, run_replay};

const SEGMENTS: [Row; 3] = [
    (CLIENT, flag::SYN, 1_000, 0),
    (SERVER, flag::SYN | flag::ACK, 5_000, 1_001),
    (CLIENT, flag::ACK, 1_001, 5_001),
];
/// A link type that is not supported.
const LINKTYPE_WIFI: u32 = 105;
const LINKTYPE_LINUX_SLL2: u32 = 276;
const STEP_NS: u64 = 1_000_000;

/// A complete handshake, one millisecond between its segments.
fn handshake() -> Result<Vec<Recorded>> {
    let recorded = |(row, at): (&Row, u64)| {
        let bytes = frame(row)?;
        Ok(Recorded { time_ns: (1_000 + at) * STEP_NS, length: u32::try_from(bytes.len())?, bytes })
    };
    SEGMENTS.iter().zip(0..).map(recorded).collect()
}

/// Builds a pcapng file in little-endian order with microseconds.
struct Blocks(Vec<u8>);

impl Blocks {
    /// A section with interfaces of these link types, called `eth0`, `eth1` and so on.
    fn new(link_types: &[u32]) -> Self {
        let mut file = Self(Vec::new());
        file.block(0x0a0d_0d0a, &words(&[0x1a2b_3c4d, 1, u32::MAX, u32::MAX]));
        for (link_type, number) in link_types.iter().zip(b'0'..) {
            let name = [b'e', b't', b'h', number];
            file.block(1, &[&words(&[*link_type, 0, 4 << 16 | 2])[..], &name].concat());
        }
        file
    }

    fn block(&mut self, kind: u32, body: &[u8]) -> &mut Self {
        let mut body = body.to_vec();
        body.resize(body.len().next_multiple_of(4), 0);
        let length = u32::try_from(12 + body.len()).expect("a small block");
        self.0.extend([words(&[kind, length]), body, words(&[length])].concat());
        self
    }

    /// An enhanced packet, with its count of drops if there is one.
    fn packet(&mut self, interface: u32, packet: &Recorded, drops: Option<u32>) -> &mut Self {
        let us = packet.time_ns / 1_000;
        let time = [us >> 32, us & 0xffff_ffff].map(|half| u32::try_from(half).expect("half of a u64"));
        let captured = u32::try_from(packet.bytes.len()).expect("a small packet");
        let mut body = words(&[interface, time[0], time[1], captured, packet.length]);
        body.extend(&packet.bytes);
        body.resize(body.len().next_multiple_of(4), 0);
        body.extend(drops.map(|drops| words(&[8 << 16 | 4, drops, 0])).unwrap_or_default());
        self.block(6, &body)
    }

    /// Interface statistics with `isb_ifdrop` and `isb_osdrop`.
    fn statistics(&mut self, interface: u32, if_drop: u32, os_drop: u32) -> &mut Self {
        self.block(5, &words(&[interface, 0, 0, 8 << 16 | 5, if_drop, 0, 8 << 16 | 7, os_drop, 0]))
    }
}

fn run(bytes: &[u8], title: &str) -> Result<Output> {
    let made = Made::write(title, bytes)?;
    let mut command = Command::new(HANDSHAKE);
    command.arg("replay").arg(made.path()).args(["-o", "json", "--flows"]).output().context("start replay")
}

/// The report, and the lines on stderr without the name of the command.
fn read(bytes: &[u8], title: &str) -> Result<(Value, Vec<String>)> {
    let output = run(bytes, title)?;
    ensure!(output.status.success(), "{title}: {output:?}");
    let said = String::from_utf8(output.stderr)?;
    let said = said.lines().map(|line| line.trim_start_matches("handshake: ").to_owned()).collect();
    Ok((serde_json::from_slice(&output.stdout)?, said))
}

/// Names and counts of the reasons why the report is not exact.
fn reasons(report: &Value) -> Vec<(&str, u64)> {
    let all = report["inexact"].as_array().map(Vec::as_slice).unwrap_or_default();
    let reasons = all.iter().filter_map(|each| Some((each["reason"].as_str()?, each["count"].as_u64()?)));
    reasons.collect()
}

#[test]
fn a_whole_capture_is_exact_and_nothing_is_said() -> Result<()> {
    let (report, said) = read(&pcap(LINKTYPE_ETHERNET, &handshake()?)?, "whole")?;
    assert_eq!((&report["exact"], &report["inexact"], said.len()), (&json!(true), &json!([]), 0));
    let mut source = report["source"].clone();
    source["path"].take();
    let expected = json!({
        "kind": "capture", "path": null, "damaged": false, "truncated": false, "skipped": [], "cut_headers": 0,
        "untimed": 0,
    });
    assert_eq!(source, expected);
    Ok(())
}

/// Each lack, its reason in the report, and a part of the line on stderr.
#[test]
fn what_a_capture_lacks_makes_its_report_inexact() -> Result<()> {
    let segments = handshake()?;
    let whole = pcap(LINKTYPE_ETHERNET, &segments)?;
    let after_one = pcap(LINKTYPE_ETHERNET, &segments[..1])?.len();
    let damaged =
        [&whole[..after_one], &words(&[1, 1, 0x7fff_ffff, 0x7fff_ffff]), &whole[after_one..]].concat();
    let mut dropped = Blocks::new(&[LINKTYPE_ETHERNET, LINKTYPE_ETHERNET]);
    for segment in &segments {
        dropped.packet(0, segment, Some(100));
    }
    // The packets' drops are among the first interface's 9,000.
    dropped.statistics(0, 1, 0).statistics(0, 5_000, 4_000).statistics(1, 0, 700);
    let mut skipped = Blocks::new(&[LINKTYPE_ETHERNET, LINKTYPE_WIFI]);
    segments.iter().for_each(|segment| _ = skipped.packet(0, segment, None).packet(1, segment, None));
    let cut = |segment: &Recorded| Recorded { bytes: segment.bytes[..40].to_vec(), ..segment.clone() };
    let cut = pcap(LINKTYPE_ETHERNET, &segments.iter().map(cut).collect::<Vec<_>>())?;
    let rows: [(&str, &[u8], &str, u64, &str); 5] = [
        ("damaged", &damaged, "capture_damaged", 1, "capture damaged after packet 1"),
        ("truncated", &whole[..whole.len() - 5], "capture_truncated", 1, "capture cut short after packet 2"),
        ("dropped", &dropped.0, "capture_dropped", 9_700, "dropped while capturing"),
        (
            "skipped",
            &skipped.0,
            "skipped_link_type",
            3,
            "link type 105 (IEEE 802.11 (Wi-Fi in monitor mode)) is not supported",
        ),
        ("cut", &cut, "cut_headers", 3, "headers are cut by the snap length: 3"),
    ];
    for (title, bytes, reason, count, line) in rows {
        let (report, said) = read(bytes, title)?;
        assert_eq!((&report["exact"], reasons(&report)), (&json!(false), vec![(reason, count)]), "{title}");
        assert!(said.len() == 1 && said[0].contains(line), "{title}: {said:?}");
        let time = |field: &Value| field.as_str().map(str::to_owned);
        let (found, from, to) = (&report["inexact"][0], time(&report["from"]), time(&report["to"]));
        let (first, last) = (time(&found["first"]), time(&found["last"]));
        // Each packet tells drops or is cut; skipped ones stand between the others.
        let is_first_right = match title {
            "cut" | "dropped" => first == from,
            "skipped" => from < first && first < to,
            _ => first == to,
        };
        assert!(is_first_right && last == to && to.is_some(), "{title}: {report}");
        let source = &report["source"];
        let expected = match title {
            "dropped" => json!(9_700),
            "skipped" => json!([{"link_type": 105, "packets": 3}]),
            "cut" => json!(3),
            _ => json!(true),
        };
        let field = if title == "cut" { "cut_headers" } else { title };
        assert_eq!(source[field], expected, "{title}: {source}");
    }
    Ok(())
}

#[test]
fn a_capture_none_of_whose_packets_can_be_read_is_an_error() -> Result<()> {
    let segments = handshake()?;
    let whole = pcap(LINKTYPE_ETHERNET, &segments)?;
    let rows: [(&str, Vec<u8>, &str); 3] = [
        ("wifi", pcap(LINKTYPE_WIFI, &segments)?, "link type 105 (IEEE 802.11 (Wi-Fi in monitor mode))"),
        ("damage-first", [&whole[..24], &[0xff; 16][..]].concat(), "damaged at its first packet"),
        ("cut-first", whole[..50].to_vec(), "cut short at its first packet"),
    ];
    for (title, bytes, line) in rows {
        let output = run(&bytes, title)?;
        assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0), "{title}: {output:?}");
        let said = String::from_utf8(output.stderr)?;
        assert!(said.lines().count() == 1 && said.contains(line), "{title}: {said}");
    }
    let (report, said) = read(&whole[..24], "no-packets")?;
    assert_eq!((&report["exact"], said.len()), (&json!(true), 0), "a capture without packets");
    Ok(())
}

#[test]
fn a_clock_that_runs_backwards_is_said_once() -> Result<()> {
    let mut segments = handshake()?;
    segments[1].time_ns -= 500 * STEP_NS;
    let (report, said) = read(&pcap(LINKTYPE_ETHERNET, &segments)?, "step-back")?;
    let source = &report["source"];
    assert_eq!(source["clock"], json!({"steps_back": 1, "largest_ns": 499 * STEP_NS}));
    assert_eq!(source["out_of_order"], json!({"packets": 1, "first": 2}));
    assert_eq!((&report["exact"], reasons(&report)), (&json!(true), vec![]));
    assert!(said.len() == 2 && said[0].contains("the first is packet 2; `reordercap`"), "{said:?}");
    assert!(said[1].contains("back in time") && said[1].contains("the largest 499ms"), "{said:?}");

    // The same of two interfaces: their clocks differ, and none runs backwards.
    let mut merged = Blocks::new(&[LINKTYPE_ETHERNET; 2]);
    segments.iter().zip([0, 1, 0]).for_each(|(segment, from)| _ = merged.packet(from, segment, None));
    let (report, said) = read(&merged.0, "merged")?;
    let source = &report["source"];
    assert_eq!((source.get("clock"), &source["out_of_order"]["packets"]), (None, &json!(1)));
    assert_eq!(said.len(), 1, "{said:?}");
    Ok(())
}

#[test]
fn packets_without_a_time_are_counted() -> Result<()> {
    let mut file = Blocks::new(&[LINKTYPE_ETHERNET]);
    for segment in handshake()? {
        file.block(3, &[words(&[segment.length]), segment.bytes].concat());
    }
    let (report, said) = read(&file.0, "no-time")?;
    assert_eq!((&report["source"]["untimed"], &report["exact"]), (&json!(3), &json!(true)));
    assert!(said.len() == 1 && said[0].contains("without a time stamp: 3"), "{said:?}");
    Ok(())
}

/// `tcpdump -i any` on a router: each segment comes in by one interface and leaves by another.
#[test]
fn a_cooked_capture_of_a_router_shows_each_segment_once() -> Result<()> {
    let cooked = |from: u32, segment: &Recorded, later_ns: u64| {
        let header = [[8, 0, 0, 0], from.to_be_bytes(), [0, 1, 0, 6], [0; 4], [0; 4]].concat();
        let bytes = [&header, &segment.bytes[14..]].concat();
        let length = u32::try_from(bytes.len()).expect("a small packet");
        Recorded { time_ns: segment.time_ns + later_ns, length, bytes }
    };
    let frames: Vec<_> = handshake()?
        .iter()
        .zip([[2, 3], [3, 2], [2, 3]])
        .flat_map(|(segment, [first, second])| [cooked(first, segment, 0), cooked(second, segment, 20_000)])
        .collect();
    let (report, said) = read(&pcap(LINKTYPE_LINUX_SLL2, &frames)?, "any")?;
    assert_eq!(said, Vec::<String>::new());
    let flow = &report["flows"][0];
    let retransmits = [&flow["syn_retransmits"], &flow["syn_ack_retransmits"]];
    assert_eq!((&flow["verdict"], &flow["interface"]), (&json!("completed"), &json!("if2")));
    assert_eq!((retransmits, &flow["syn_to_syn_ack_ns"]), ([&json!(0), &json!(0)], &json!(STEP_NS)));
    assert_eq!((&report["tcp"]["attempts"], &report["tcp"]["completed"]), (&json!(1), &json!(1)));
    Ok(())
}

/// The interfaces of a capture past those that records tell apart have no name.
#[test]
fn an_interface_that_stands_for_several_has_no_name() -> Result<()> {
    let names = |interfaces: u8| -> Result<Vec<Value>> {
        let mut file = Blocks::new(&[LINKTYPE_ETHERNET; 9]);
        for (number, at) in (0..u32::from(interfaces)).zip(0..) {
            let client = format!("192.0.2.{}:40000", number + 1);
            let (source, destination) = (client.parse()?, SERVER.parse()?);
            let syn = BuiltSegment { source, destination, seq: 1, ack: 0, flags: flag::SYN, payload: b"" };
            let bytes = tcp_frame(MACS, &syn)?;
            let length = u32::try_from(bytes.len())?;
            file.packet(number, &Recorded { time_ns: at * STEP_NS, length, bytes }, None);
        }
        let (report, _) = read(&file.0, &format!("interfaces-{interfaces}"))?;
        let flows = report["flows"].as_array().context("no flows")?.clone();
        Ok(flows.iter().map(|flow| flow["interface"].clone()).collect())
    };
    let of_seven: Vec<_> = (0..7).map(|number| json!(format!("eth{number}"))).collect();
    assert_eq!(names(7)?, of_seven);
    let of_nine = [&of_seven[..6], &[Value::Null, Value::Null, Value::Null]].concat();
    assert_eq!(names(9)?, of_nine);
    Ok(())
}

/// Frames that begin behind another EtherType: nothing is entered, and the report says so first.
#[test]
fn what_is_not_ip_is_said_first() -> Result<()> {
    let behind = |shim: &[u8]| -> Result<Vec<u8>> {
        let mut frames = handshake()?;
        for Recorded { length, bytes, .. } in &mut frames {
            bytes.splice(12..12, shim.iter().copied());
            *length += u32::try_from(shim.len())?;
        }
        pcap(LINKTYPE_ETHERNET, &frames)
    };
    let rows: [(&[u8], u64, &str); 3] = [
        (
            &[0x89, 0x03, 1, 1, 0, 1, 0, 4],
            0x8903,
            "3 of 3 packets are not IP (EtherType 0x8903, Cisco FabricPath): not entered",
        ),
        (&[0x81, 0, 0, 5, 0x99, 0x99], 0x9999, "3 of 3 packets are not IP (EtherType 0x9999): not entered"),
        (&[0, 60], 60, "3 of 3 packets are not IP (LLC): not entered"),
    ];
    for (shim, ether_type, line) in rows {
        let bytes = behind(shim)?;
        let (report, _) = read(&bytes, "shim")?;
        let counted = json!([{"ethertype": ether_type, "packets": 3}]);
        ensure!(report["source"]["not_ip"] == counted, "{line}: {}", report["source"]);
        let made = Made::write("shim", &bytes)?;
        let text = String::from_utf8(run_replay(made.path(), &[])?.stdout)?;
        let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        ensure!(words(&text).contains(&format!("EXACT not ip {line} tcp")), "{line}: {text}");
    }
    let (report, _) = read(&behind(&[])?, "plain")?;
    ensure!(report["source"]["not_ip"].is_null(), "{}", report["source"]);
    Ok(())
}
