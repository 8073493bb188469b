//! Conversations whose beginning or end was not captured: the initiator is inferred, only a SYN begins an
//! attempt, and at the end of a capture an unanswered packet gets its verdict at once.

use std::net::SocketAddr;

use anyhow::Result;
use handshake_lab::frame::{BuiltSegment, flag, tcp_frame};
use serde_json::Value;

use crate::made::{CLIENT, MACS, Made, SERVER, frame, play};
use crate::support::{Replayed, end, replay};

/// Verdict, initiator and responder of the only flow, which is not an attempt.
fn only_flow_outside(got: &Replayed) -> [String; 3] {
    assert_eq!(got.report["tcp"]["attempts"], 0);
    assert_eq!(got.flows.len(), 1);
    let flow = &got.flows[0];
    [text(&flow["verdict"]), end(&flow["initiator"]), end(&flow["responder"])]
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// The sender of a SYN+ACK is the responder.
#[test]
fn a_lone_syn_ack_is_an_orphan_and_its_sender_the_responder() -> Result<()> {
    let got = play("lone-syn-ack", &[(SERVER, flag::SYN | flag::ACK, 5_000, 1_001)])?;
    assert_eq!(only_flow_outside(&got), ["orphan_syn_ack", CLIENT, SERVER]);
    assert_eq!(got.report["tcp"]["orphan_syn_ack"], 1);
    Ok(())
}

/// Backscatter of a flood with a forged address: retransmitted SYN+ACKs, and the RST that gives up.
#[test]
fn backscatter_is_no_attempt() -> Result<()> {
    let syn_ack = (SERVER, flag::SYN | flag::ACK, 5_000, 1_001);
    let got =
        play("backscatter", &[syn_ack, syn_ack, syn_ack, (SERVER, flag::RST | flag::ACK, 5_001, 1_001)])?;
    assert_eq!(only_flow_outside(&got), ["orphan_syn_ack", CLIENT, SERVER]);
    assert_eq!(got.flows[0]["syn_ack"], 3);
    Ok(())
}

/// A RST alone makes no record: there is nothing to follow.
#[test]
fn a_lone_rst_is_counted_and_makes_no_flow() -> Result<()> {
    for flags in [flag::RST, flag::RST | flag::ACK, flag::RST | flag::SYN, flag::RST | flag::SYN | flag::ACK]
    {
        let got = play("lone-rst", &[(SERVER, flags, 5_000, 1_001)])?;
        assert_eq!((&got.report["tcp"]["attempts"], got.flows.len()), (&0.into(), 0));
        assert_eq!(got.report["packets"]["rst"], 1);
    }
    Ok(())
}

/// The sender of the first ACK is taken for the initiator. Here it is the server, and the wrong guess stays.
#[test]
fn a_lone_ack_is_midstream_and_its_sender_the_initiator() -> Result<()> {
    let got = play("lone-ack", &[(SERVER, flag::ACK, 5_001, 1_001), (CLIENT, flag::ACK, 1_001, 5_001)])?;
    assert_eq!(only_flow_outside(&got), ["midstream", SERVER, CLIENT]);
    assert_eq!(got.report["tcp"]["midstream"], 1);
    Ok(())
}

/// Of all flag combinations, only those with SYN and without ACK and RST begin an attempt.
#[test]
fn only_a_syn_begins_an_attempt() -> Result<()> {
    let server: SocketAddr = SERVER.parse()?;
    let conversation = |flags: u8| {
        let source = SocketAddr::new(server.ip(), 1_000 + u16::from(flags));
        let segment = BuiltSegment {
            source,
            destination: CLIENT.parse()?,
            seq: 5_000,
            ack: 1_001,
            flags,
            payload: b"",
        };
        Ok((0, tcp_frame(MACS, &segment)?))
    };
    let frames = (0..=u8::MAX).map(conversation).collect::<Result<Vec<_>>>()?;
    let got = replay(Made::of("any-flags", &frames)?.path(), &[])?;
    let begins = |flags: &u8| flags & (flag::SYN | flag::ACK | flag::RST) == flag::SYN;
    let outside = |flow: &&Value| matches!(flow["verdict"].as_str(), Some("midstream" | "orphan_syn_ack"));
    let port = |flow: &Value| flow["initiator"]["port"].as_u64();
    let attempts: Vec<_> = got.flows.iter().filter(|flow| !outside(flow)).filter_map(port).collect();
    let want: Vec<_> = (0..=u8::MAX).filter(begins).map(|flags| 1_000 + u64::from(flags)).collect();
    assert_eq!(attempts, want);
    assert_eq!(got.report["tcp"]["attempts"], want.len());
    Ok(())
}

/// The end of a connection without its beginning: an ACK, data, both FINs, a late RST.
#[test]
fn the_end_of_a_connection_is_no_attempt() -> Result<()> {
    let got = play(
        "the-end",
        &[
            (CLIENT, flag::ACK, 1_001, 5_001),
            (SERVER, flag::FIN | flag::ACK, 5_001, 1_001),
            (CLIENT, flag::FIN | flag::ACK, 1_001, 5_002),
            (SERVER, flag::ACK, 5_002, 1_002),
            (CLIENT, flag::RST, 1_002, 0),
        ],
    )?;
    assert_eq!(only_flow_outside(&got), ["midstream", CLIENT, SERVER]);
    Ok(())
}

/// A SYN replaces the guess: its sender is the initiator of the attempt.
#[test]
fn a_syn_after_the_middle_begins_an_attempt_of_its_sender() -> Result<()> {
    let got = play(
        "then-syn",
        &[
            (SERVER, flag::ACK, 5_001, 1_001),
            (CLIENT, flag::SYN, 9_000, 0),
            (SERVER, flag::SYN | flag::ACK, 7_000, 9_001),
            (CLIENT, flag::ACK, 9_001, 7_001),
        ],
    )?;
    let flows: Vec<_> =
        got.flows.iter().map(|flow| [text(&flow["verdict"]), end(&flow["initiator"])]).collect();
    assert_eq!(flows, [["midstream", SERVER], ["completed", CLIENT]]);
    assert_eq!(got.report["tcp"]["attempts"], 1);
    Ok(())
}

/// A mirror port reorders: the SYN+ACK comes before its SYN, and the attempt is complete in the end.
#[test]
fn a_syn_after_its_syn_ack_makes_the_orphan_an_attempt() -> Result<()> {
    let got = play(
        "reordered",
        &[
            (SERVER, flag::SYN | flag::ACK, 7_000, 9_001),
            (CLIENT, flag::SYN, 9_000, 0),
            (CLIENT, flag::ACK, 9_001, 7_001),
        ],
    )?;
    assert_eq!(got.flows.len(), 1);
    assert_eq!([text(&got.flows[0]["verdict"]), end(&got.flows[0]["initiator"])], ["completed", CLIENT]);
    assert_eq!(
        (&got.report["tcp"]["attempts"], &got.report["tcp"]["orphan_syn_ack"]),
        (&1.into(), &0.into())
    );
    Ok(())
}

/// At the end of a capture time stops: a SYN and a datagram of the last moment have no answer to wait for.
#[test]
fn nothing_is_pending_at_the_end_of_a_capture() -> Result<()> {
    let udp = |source_port: u8| {
        let mut frame = [MACS[1].0, MACS[0].0].concat();
        frame.extend([0x08, 0, 0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2]);
        frame.extend([0x80, source_port, 0, 53, 0, 8, 0, 0]);
        frame
    };
    let frames = [(0, udp(1)), (4_000_000, udp(2)), (4_000_000, frame(&(CLIENT, flag::SYN, 9_000, 0))?)];
    let got = replay(Made::of("stopped", &frames)?.path(), &[])?;
    let verdicts: Vec<_> = got.flows.iter().map(|flow| text(&flow["verdict"])).collect();
    assert_eq!(verdicts, ["unanswered", "half_open", "unanswered"]);
    let udp = &got.report["udp"];
    assert_eq!((&udp["unanswered"], &udp["pending"]), (&2.into(), &0.into()));
    Ok(())
}
