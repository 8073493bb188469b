//! `--verify-checksums`: segments that the receiver drops for their checksum prove nothing. Both ends are
//! played by frames, from addresses that no host has: no kernel answers beside them.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::{Result, ensure};
use handshake_lab::frame::{BuiltSegment, Sender, flag, tcp_frame};
use handshake_lab::{Family, skip_unless_privileged};
use serde_json::Value;

use crate::books::{balanced, figure};
use crate::network::{Network, TIMEOUT, segment};

const CLIENT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1)), 40_000);
const SERVER: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(198, 51, 100, 2)), 443);
const J: u32 = 1_000;
const K: u32 = 5_000;

/// The client's third segment and those after it: flags, acknowledgement, and whether the checksum is right.
type Rest<'a> = &'a [(u8, u32, bool)];

/// Plays SYN, SYN+ACK and the rest under handshake with `arguments`; the report that has seen all of it.
fn play(arguments: &[&str], rest: Rest<'_>) -> Result<Value> {
    let network = segment()?;
    let mut agent = network.watch(arguments)?;
    send(&network, rest)?;
    let all = 2 + rest.len() as u64;
    let saw = |report: &Value| {
        let of = |class: &str| figure(report, &format!("packets.{class}"));
        of("syn") + of("syn_ack") + of("ack") + of("rst") >= all
    };
    agent.await_report(TIMEOUT, saw)?;
    let outcome = agent.stop()?;
    ensure!(outcome.status.success(), "{outcome:?}");
    balanced(&outcome)
}

fn send(network: &Network, rest: Rest<'_>) -> Result<()> {
    let path = network.path(Family::V4);
    let (mut client, mut server) =
        (Sender::new(path.client, path.device)?, Sender::new(path.server, path.device)?);
    let [client_mac, server_mac] = path.macs;
    let to_server = |seq, ack, flags| {
        let segment = BuiltSegment { source: CLIENT, destination: SERVER, seq, ack, flags, payload: &[] };
        tcp_frame([client_mac, server_mac], &segment)
    };
    client.send(&to_server(J, 0, flag::SYN)?)?;
    let (flags, ack) = (flag::SYN | flag::ACK, J + 1);
    let syn_ack = BuiltSegment { source: SERVER, destination: CLIENT, seq: K, ack, flags, payload: &[] };
    // What leaves may lack its checksum: it is never verified.
    server.send(&spoiled(tcp_frame([server_mac, client_mac], &syn_ack)?))?;
    for (flags, ack, right) in rest {
        let frame = to_server(J + 1, *ack, *flags)?;
        client.send(&if *right { frame } else { spoiled(frame) })?;
    }
    Ok(())
}

/// The frame with another TCP checksum.
fn spoiled(mut frame: Vec<u8>) -> Vec<u8> {
    const CHECKSUM: usize = 14 + 20 + 16;
    frame[CHECKSUM] ^= 0x55;
    frame
}

/// The server drops the RST, takes the ACK, and has a connection.
#[test]
fn a_reset_with_a_wrong_checksum_aborts_nothing() -> Result<()> {
    if skip_unless_privileged() {
        return Ok(());
    }
    let rest: Rest<'_> = &[(flag::RST, 0, false), (flag::ACK, K + 1, true)];
    for hook in ["tcx", "xdp-native"] {
        let report = play(&["--verify-checksums", "--hook", hook], rest)?;
        let got =
            ["tcp.completed", "tcp.signs.bad_checksum", "packets.rst"].map(|path| figure(&report, path));
        let [completed, bad, rst] = got;
        ensure!((completed, bad, rst) == (1, 1, 1), "by {hook}: {report}");
        // A RST that counted would have been taken back by the ACK.
        ensure!(figure(&report, "tcp.signs.revised") == 0, "by {hook}: {report}");
    }
    Ok(())
}

/// The server waits on; without the option the ACKs count.
#[test]
fn an_ack_with_a_wrong_checksum_completes_nothing() -> Result<()> {
    if skip_unless_privileged() {
        return Ok(());
    }
    let rest: Rest<'_> = &[(flag::ACK, K + 1, false), (flag::ACK, K + 1, false)];
    let report = play(&["--verify-checksums"], rest)?;
    let got = ["tcp.completed", "tcp.signs.bad_checksum", "packets.ack"].map(|path| figure(&report, path));
    let [completed, bad, acks] = got;
    ensure!((completed, bad, acks) == (0, 2, 2), "{report}");
    let report = play(&[], rest)?;
    ensure!(figure(&report, "tcp.completed") == 1, "{report}");
    ensure!(figure(&report, "tcp.signs.bad_checksum") == 0, "{report}");
    Ok(())
}
