//! What a capture lacks, how its times run, and which captures cannot be read at all.

use std::collections::BTreeMap;
use std::io;

use super::build::{Blocks, Order, classic, frames, gzip};
use super::{Capture, ClockSteps, Condition, OutOfOrder, condition, drain, good};

const IF_DROP: u16 = 5;
const FILTER_ACCEPT: u16 = 6;
const OS_DROP: u16 = 7;

fn ng() -> Blocks {
    let mut file = Blocks::new(Order::Little);
    file.section().interface(1, 0, &[]).interface(1, 0, &[]);
    file
}

/// A capture on one interface whose packets have these times, µs.
fn timed(times: &[u64]) -> Condition {
    let mut file = ng();
    for time in times {
        file.enhanced(0, *time, &[1; 60], 60);
    }
    condition(&file.bytes)
}

#[test]
fn a_whole_capture_lacks_nothing() {
    let whole = Condition::default();
    assert_eq!(condition(&classic(Order::Little, false, 1, &frames()[..3])), whole);
    assert_eq!(timed(&[1, 1, 2]), whole);
}

#[test]
fn damage_and_a_cut_are_told_apart() {
    let bytes = classic(Order::Big, true, 1, &frames()[..3]);
    let cut = Condition { truncated: true, ..Condition::default() };
    let damaged = Condition { damaged: true, ..Condition::default() };
    assert_eq!(condition(&bytes[..bytes.len() - 1]), cut);
    let packed = gzip(&bytes);
    assert_eq!(condition(&packed[..packed.len() - 1]), cut);
    let mut wrong = packed;
    let checksum = wrong.len() - 8;
    wrong[checksum] ^= 1;
    assert_eq!(condition(&wrong), damaged);
    assert_eq!(condition(&[bytes, vec![0xff; 16]].concat()), damaged);
}

#[test]
fn statistics_count_from_the_beginning_and_packets_from_the_packet_before() {
    type Says = fn(&mut Blocks);
    let rows: [(Says, Option<u64>, &str); 9] = [
        (|file| _ = file.statistics(0, &[(FILTER_ACCEPT, 9)]), None, "it says nothing about drops"),
        (|file| _ = file.statistics(0, &[(IF_DROP, 0)]), Some(0), "none was dropped"),
        (|file| _ = file.statistics(0, &[(IF_DROP, 5_000), (OS_DROP, 4_000)]), Some(9_000), "two places"),
        (
            |file| _ = file.statistics(0, &[(IF_DROP, 3)]).statistics(0, &[(IF_DROP, 8)]),
            Some(8),
            "the latest statistics hold the ones before",
        ),
        (
            |file| _ = file.statistics(0, &[(IF_DROP, 3)]).statistics(1, &[(OS_DROP, 8)]),
            Some(11),
            "two interfaces",
        ),
        (
            |file| _ = file.enhanced_after_drops(0, 1, 300).enhanced_after_drops(0, 2, 400),
            Some(700),
            "packets add up",
        ),
        (
            |file| {
                _ = file.enhanced_after_drops(0, 1, 700).statistics(0, &[(IF_DROP, 5_000), (OS_DROP, 4_000)])
            },
            Some(9_000),
            "statistics include the drops before packets",
        ),
        (
            |file| _ = file.enhanced_after_drops(0, 1, 700).statistics(1, &[(IF_DROP, 5_000)]),
            Some(5_700),
            "those of another interface do not",
        ),
        (
            |file| {
                file.obsolete_after_drops(0, 1, &[1; 60], 60, 7).obsolete(0, 2, &[1; 60], 60);
            },
            Some(7),
            "65,535 is not a count",
        ),
    ];
    for order in [Order::Little, Order::Big] {
        for (says, dropped, title) in &rows {
            let mut file = ng();
            file.order = order;
            file.section().interface(1, 0, &[]).interface(1, 0, &[]);
            says(&mut file);
            assert_eq!(condition(&file.bytes).dropped, *dropped, "{title}, {order:?}");
        }
    }
}

#[test]
fn each_section_has_its_own_statistics() {
    let mut file = ng();
    file.statistics(0, &[(IF_DROP, 5)]).section().interface(1, 0, &[]).statistics(0, &[(IF_DROP, 2)]);
    file.section().interface(1, 0, &[]);
    assert_eq!(condition(&file.bytes).dropped, Some(7));
    file.statistics(9, &[(IF_DROP, 1)]).block(5, &[0; 3]).enhanced(0, 1, &[1; 60], 60);
    assert_eq!(condition(&file.bytes), Condition { dropped: Some(7), ..Condition::default() });
    let said: Vec<_> = good(&file.bytes).1.iter().map(ToString::to_string).collect();
    assert_eq!(said, ["packets dropped while capturing, by the capture's own statistics: 7"]);
}

#[test]
fn a_clock_that_runs_backwards_is_followed() {
    let order = |packets, first| Some(OutOfOrder { packets, first });
    let clock = |steps_back, largest_us: u64| ClockSteps { steps_back, largest_ns: largest_us * 1_000 };
    let rows: [(&[u64], _, _); 4] = [
        (&[9, 8, 8, 9], order(1, 2), clock(1, 1)),
        // The clock was set back by 50 µs, and runs on from there.
        (&[100, 101, 51, 52, 53], order(1, 3), clock(1, 50)),
        // One stamp in the future.
        (&[100, 900, 101, 102], order(1, 3), clock(1, 799)),
        (&[5, 3, 4, 2, 9], order(2, 2), clock(2, 2)),
    ];
    for (times, out_of_order, clock) in rows {
        assert_eq!(timed(times), Condition { out_of_order, clock, ..Condition::default() }, "{times:?}");
    }
    let mut file = ng();
    file.enhanced(0, 1_000_100, &[1; 60], 60).enhanced(0, 100, &[1; 60], 60);
    let said: Vec<_> = good(&file.bytes).1.iter().map(ToString::to_string).collect();
    assert_eq!(
        said,
        [
            "packets earlier than the packet before them: 1, the first is packet 2; \
             `reordercap` sorts merged captures",
            "steps of the clock back in time, on one interface: 1, the largest 1s; each counts as no time",
        ]
    );
}

/// Two taps, written one after the other: each has a clock that runs forwards.
#[test]
fn merged_interfaces_are_out_of_order_and_their_clocks_are_right() {
    let mut file = ng();
    for (interface, time) in [(0, 10), (1, 4), (0, 20), (1, 14), (1, 30)] {
        file.enhanced(interface, time, &[1; 60], 60);
    }
    let out_of_order = Some(OutOfOrder { packets: 2, first: 2 });
    assert_eq!(condition(&file.bytes), Condition { out_of_order, ..Condition::default() });

    let mut file = ng();
    file.enhanced(0, 10, &[1; 60], 60).section().interface(1, 0, &[]).enhanced(0, 4, &[1; 60], 60);
    let out_of_order = Some(OutOfOrder { packets: 1, first: 2 });
    assert_eq!(
        condition(&file.bytes),
        Condition { out_of_order, ..Condition::default() },
        "two files in one"
    );
}

#[test]
fn packets_without_a_time_are_counted_and_are_no_step() {
    let mut file = ng();
    file.enhanced(0, 9, &[1; 60], 60).simple(&[1; 60], 60).enhanced(1, 9, &[1; 60], 60);
    assert_eq!(condition(&file.bytes), Condition { untimed: 1, ..Condition::default() });
}

/// The message about a capture none of whose packets can be read.
fn nothing_read(bytes: &[u8]) -> Option<String> {
    let source = io::Cursor::new(bytes.to_vec());
    let mut capture = Capture::read_from("test.pcap".into(), source).expect("a capture");
    drain(&mut capture).expect("no error");
    capture.nothing_read().map(|error| error.to_string())
}

#[test]
fn a_capture_none_of_whose_packets_can_be_read_is_an_error() {
    let skipped = classic(Order::Little, false, 10, &frames());
    assert_eq!(condition(&skipped).skipped, BTreeMap::from([(10, 5)]));
    assert_eq!(
        nothing_read(&skipped).as_deref(),
        Some(
            "no packet of test.pcap can be read: link type 10 (FDDI) is not supported; packets skipped: 5; \
             capture on an interface of type Ethernet, Linux cooked (any), raw IP, loopback, PPP, Cisco HDLC or \
             NFLOG"
        )
    );
    let one = classic(Order::Little, false, 1, &frames()[..1]);
    assert_eq!(
        nothing_read(&one[..one.len() - 1]).as_deref(),
        Some(
            "no packet of test.pcap can be read: it is cut short at its first packet: it ends within the next \
             record; capture or copy it again"
        )
    );
    let said = nothing_read(&[&one[..24], &[0xff; 16]].concat()).expect("it is damaged");
    assert!(said.contains("it is damaged at its first packet: a record of"), "{said}");

    assert_eq!(nothing_read(&one[..24]), None, "there is no packet to read");
    assert_eq!(nothing_read(&[&one[..], &[0xff; 16]].concat()), None, "one was read");
}
