//! Super-packets that come in by a virtio header (tun, tap, virtual machines): the kernel does not say how
//! many segments they are, and the report has as many packets and bytes as the sender counted.

use anyhow::{Result, ensure};
use handshake_lab::tcp::{self, Listener};
use handshake_lab::tuntap::VirtualLink;
use handshake_lab::{FAMILIES, Family, counters, skip_unless_privileged, udp};
use serde_json::{Value, json};

use crate::books::{figure, tally};
use crate::network::{Network, by_wire};
use crate::special::play;

/// Super-packets of UDP, the datagrams in each, and the bytes of a datagram and of the last one.
const TIMES: usize = 10;
const SEGMENTS: usize = 10;
const SIZE: u16 = 1_400;
const LAST: usize = 700;
/// Bytes of TCP each way: more than fit into one segment.
const SAID: usize = 40_000;

/// Makes a connection that transfers data each way, and super-packets of UDP. Returns what is held meanwhile.
fn converse(network: &Network, family: Family) -> Result<impl Sized + use<>> {
    let path = network.path(family);
    let listener = Listener::new(&path, 0, 8)?;
    let connections = tcp::connect_accept(&path, &listener, 1)?;
    connections.talk(SAID)?;
    connections.close()?;
    udp::segmented(&path, TIMES, SEGMENTS, SIZE, LAST)
}

/// Segments that the kernels of both ends count as sent since the namespaces were made.
fn sent(network: &Network) -> Result<u64> {
    let path = network.path(Family::V4);
    let of = |end| Ok::<_, anyhow::Error>(counters::read(end)?.get("TcpOutSegs"));
    Ok(of(path.client)? + of(path.server)?)
}

/// Bytes of the IP packets that UDP's super-packets are sent as.
fn udp_bytes(family: Family) -> Result<i64> {
    let headers = if family == Family::V4 { 20 + 8 } else { 40 + 8 };
    let data = usize::from(SIZE) * (SEGMENTS - 1) + LAST;
    Ok(i64::try_from(TIMES * (data + SEGMENTS * headers))?)
}

/// Packets of TCP that the report has of the interface.
fn segments(report: &Value) -> u64 {
    let packets = tally(&report["packets"]);
    packets.syn + packets.syn_ack + packets.ack + packets.fin + packets.rst
}

#[test]
fn super_packets_of_a_virtio_header_count_as_their_segments() -> Result<()> {
    if skip_unless_privileged() {
        return Ok(());
    }
    for link in [VirtualLink::Tun, VirtualLink::Tap] {
        for family in FAMILIES {
            let network = by_wire(link)?;
            let datagrams = i64::try_from(TIMES * SEGMENTS)?;
            let expected = [
                ("tcp.completed", 1),
                ("udp.unanswered", 1),
                ("udp.packets", datagrams),
                ("udp.bytes", udp_bytes(family)?),
            ];
            let (_, report, _) =
                play(&network, &["--hook", "tcx"], &expected, || converse(&network, family))?;
            let sent = sent(&network)?;
            ensure!(segments(&report) == sent, "{link:?} {family:?}: {sent} segments were sent, {report}");
            let name = if family == Family::V4 { "IpInReceives" } else { "Ip6InReceives" };
            let frames = counters::read(network.host())?.get(name);
            ensure!(
                frames < u64::try_from(datagrams)?,
                "{link:?} {family:?}: {frames} frames are no super-packets"
            );
            ensure!(report["exact"] == true && report["source"]["interfaces"][0].get("segments").is_none());
        }
    }
    Ok(())
}

/// Generic XDP sees a super-packet as one frame and is not told its segments: the report says so, and the
/// verdicts are right.
#[test]
fn generic_xdp_says_that_segments_are_merged() -> Result<()> {
    if skip_unless_privileged() {
        return Ok(());
    }
    for family in FAMILIES {
        let network = by_wire(VirtualLink::Tap)?;
        let merged = i64::try_from(TIMES)?;
        let headers = if family == Family::V4 { 20 + 8 } else { 40 + 8 };
        let bytes = TIMES * (usize::from(SIZE) * (SEGMENTS - 1) + LAST + headers);
        let expected = [
            ("tcp.completed", 1),
            ("udp.unanswered", 1),
            ("udp.packets", merged),
            ("udp.bytes", i64::try_from(bytes)?),
        ];
        let arguments = ["--hook", "xdp-generic"];
        let (_, report, _) = play(&network, &arguments, &expected, || converse(&network, family))?;
        let interface = &report["source"]["interfaces"][0];
        ensure!(interface["segments"] == json!("merged"), "{interface}");
        ensure!(segments(&report) < sent(&network)? && figure(&report, "packets.syn") == 1, "{report}");
    }
    Ok(())
}
