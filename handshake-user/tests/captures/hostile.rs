//! Packets that no honest stack sends, from a file to the report: well-formed, but meaningless. Wrong lengths
//! and malformed headers are tested beside the parser.

use std::net::SocketAddr;

use anyhow::Result;
use handshake_lab::books;
use handshake_lab::frame::{BuiltSegment, flag, tcp_frame};
use serde_json::Value;

use crate::made::{CLIENT, MACS, Made, SERVER, frame, play};
use crate::support::{Replayed, replay};

/// The number of attempts, and the sum of all verdicts: both sides of the identity.
fn books(got: &Replayed) -> [u64; 2] {
    let terms = books::sum(&got.report, &books::ATTEMPTS).expect("the report has every term");
    [got.report["tcp"]["attempts"].as_u64().expect("a count"), terms]
}

fn only_verdict(got: &Replayed) -> &Value {
    assert_eq!(got.flows.len(), 1);
    &got.flows[0]["verdict"]
}

/// The SYN counts, and the FIN beside it closes nothing (RFC 9293 §3.10.7.2: LISTEN ignores other flags of a
/// SYN).
#[test]
fn a_syn_with_fin_is_a_syn() -> Result<()> {
    let got = play(
        "syn-fin",
        &[
            (CLIENT, flag::SYN | flag::FIN, 1_000, 0),
            (SERVER, flag::SYN | flag::ACK, 5_000, 1_001),
            (CLIENT, flag::ACK, 1_001, 5_001),
        ],
    )?;
    assert_eq!((only_verdict(&got), books(&got)), (&"completed".into(), [1, 1]));
    assert_eq!((&got.report["packets"]["syn"], &got.report["packets"]["fin"]), (&1.into(), &0.into()));
    Ok(())
}

/// Probes of scanners: with every flag, and with none.
#[test]
fn christmas_trees_and_null_probes_are_counted_and_make_no_flow() -> Result<()> {
    let got = play("probes", &[(CLIENT, 0xff, 1_000, 0), (CLIENT, 0, 1_000, 0)])?;
    assert_eq!((got.flows.len(), books(&got)), (0, [0, 0]));
    assert_eq!((&got.report["packets"]["rst"], &got.report["packets"]["tcp_other"]), (&1.into(), &1.into()));
    Ok(())
}

/// Source and destination are the same end ("LAND"): an attempt without an answer.
#[test]
fn a_syn_from_an_end_to_itself_is_a_half_open_attempt() -> Result<()> {
    let end: SocketAddr = SERVER.parse()?;
    let segment =
        BuiltSegment { source: end, destination: end, seq: 1_000, ack: 0, flags: flag::SYN, payload: b"" };
    let got = replay(Made::of("land", &[(0, tcp_frame(MACS, &segment)?)])?.path(), &[])?;
    assert_eq!((only_verdict(&got), books(&got)), (&"half_open".into(), [1, 1]));
    Ok(())
}

/// Sequence numbers at the wraparound: J and K of 2³² − 1, then 0.
#[test]
fn sequence_numbers_may_wrap() -> Result<()> {
    for (j, k) in [(u32::MAX, u32::MAX), (0, 0), (u32::MAX, 0), (0, u32::MAX)] {
        let (after_j, after_k) = (j.wrapping_add(1), k.wrapping_add(1));
        let got = play(
            "wrap",
            &[
                (CLIENT, flag::SYN, j, 0),
                (SERVER, flag::SYN | flag::ACK, k, after_j),
                (CLIENT, flag::ACK, after_j, after_k),
            ],
        )?;
        assert_eq!(only_verdict(&got), "completed", "J {j}, K {k}");
        assert_eq!((&got.flows[0]["isn_initiator"], &got.flows[0]["isn_responder"]), (&j.into(), &k.into()));
    }
    Ok(())
}

/// Each SYN with a new number is an attempt, and supersedes the one before.
#[test]
fn every_syn_of_a_flood_on_one_tuple_is_an_attempt() -> Result<()> {
    let syns: Vec<_> = (0..500).map(|i: u32| (CLIENT, flag::SYN, i.wrapping_mul(0x9e37_79b9), 0)).collect();
    let got = play("one-tuple", &syns)?;
    assert_eq!((books(&got), &got.report["tcp"]["superseded"]), ([500, 500], &499.into()));
    assert_eq!(got.flows.len(), 500);
    Ok(())
}

/// A record counts SYNs in one byte; the totals are not limited by it.
#[test]
fn more_copies_of_a_syn_than_a_record_counts_are_in_the_totals() -> Result<()> {
    let got = play("copies", &[(CLIENT, flag::SYN, 7, 0); 400])?;
    assert_eq!((only_verdict(&got), books(&got)), (&"half_open".into(), [1, 1]));
    assert_eq!((&got.flows[0]["syn"], &got.flows[0]["syn_retransmits"]), (&255.into(), &254.into()));
    assert_eq!(got.report["tcp"]["signs"]["syn_retransmits"], 399);
    Ok(())
}

/// The clock jumps to the largest time and back to zero: no time passes, no verdict is late, and no leg is
/// negative.
#[test]
fn a_clock_that_jumps_changes_no_verdict() -> Result<()> {
    const LAST_US: u64 = u32::MAX as u64 * 1_000_000;
    let (syn, syn_ack, third) = (
        frame(&(CLIENT, flag::SYN, 1_000, 0))?,
        frame(&(SERVER, flag::SYN | flag::ACK, 5_000, 1_001))?,
        frame(&(CLIENT, flag::ACK, 1_001, 5_001))?,
    );
    let made = Made::of("clock", &[(LAST_US, syn), (0, syn_ack), (1, third)])?;
    let got = replay(made.path(), &[])?;
    assert_eq!((only_verdict(&got), books(&got)), (&"completed".into(), [1, 1]));
    assert_eq!(got.flows[0]["flags"], Value::Array(vec![]));
    Ok(())
}

/// With `--verify-checksums` a RST that the receiver drops aborts nothing, and an ACK that it drops completes
/// nothing. The checksum of any packet of a capture counts, in both directions.
#[test]
fn segments_with_a_wrong_checksum_prove_nothing_where_that_is_asked_for() -> Result<()> {
    const CHECKSUM: usize = 14 + 20 + 16;
    let built = |wrong: &[usize]| {
        let segments = [
            (CLIENT, flag::SYN, 1_000, 0),
            (SERVER, flag::SYN | flag::ACK, 5_000, 1_001),
            (CLIENT, flag::RST, 1_001, 0),
            (CLIENT, flag::ACK, 1_001, 5_001),
        ];
        let frames = segments.iter().enumerate().map(|(at, segment)| {
            let mut bytes = frame(segment)?;
            bytes[CHECKSUM] ^= if wrong.contains(&at) { 0x55 } else { 0 };
            Ok((at as u64 * 1_000_000, bytes))
        });
        frames.collect::<Result<Vec<_>>>()
    };
    for (wrong, arguments, verdict) in [
        (&[2][..], &["--verify-checksums"][..], "completed"),
        (&[2, 3], &["--verify-checksums"], "half_open"),
        (&[1], &["--verify-checksums"], "initiator_aborted"),
        (&[3], &["--verify-checksums"], "initiator_aborted"),
    ] {
        let got = replay(Made::of("checksum", &built(wrong)?)?.path(), arguments)?;
        assert_eq!(only_verdict(&got), verdict, "wrong: {wrong:?}");
        assert_eq!(got.report["tcp"]["signs"]["bad_checksum"], wrong.len());
        assert_eq!(got.report["tcp"]["signs"]["revised"], 0, "the RST ended nothing");
    }
    let got = replay(Made::of("checksum", &built(&[2, 3])?)?.path(), &[])?;
    assert_eq!(got.report["tcp"]["signs"]["bad_checksum"], 0);
    Ok(())
}
