//! Compares `replay --compat` with the installed tshark: `tcp.completeness`, stream by stream.
//!
//! Every difference must belong to a class that docs/accuracy.md explains, which is checked packet by packet.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use handshake_lab::frame::{BuiltSegment, flag, tcp_frame};
use serde_json::Value;

use crate::made::{CLIENT, MACS, Made, SERVER};
use crate::support::{captures, end, in_parallel, name, replay, skip};

/// The bits that `--compat` reports.
const COMPARED: u64 = SYN | SYN_ACK | ACK | RST;
const SYN: u64 = 1;
const SYN_ACK: u64 = 2;
const ACK: u64 = 4;
const RST: u64 = 32;

/// The reason for a difference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Class {
    /// No difference.
    Equal,
    /// tshark's ACK bit needs an ACK without data, and every ACK of the stream has data.
    DataBearingAck,
    /// tshark's ACK bit also counts the acknowledgement of a RST or FIN, without checking its number.
    UncheckedAck,
    /// A tuple has different numbers of streams and flows: tshark also distinguishes streams by the last
    /// address of a source route, and takes the same SYN on a closed connection for a retransmission.
    Splitting,
    /// tshark shows the first packet of a stream before it counts it, unless it is a SYN; here it is the only
    /// packet.
    OnlyPacket,
    /// handshake keeps no record of a lone RST or FIN: there is nothing to follow.
    NoRecord,
    /// tshark decodes an encapsulation that handshake does not.
    NotEntered,
}

/// One of tshark's streams.
#[derive(Debug, Default)]
struct Stream {
    completeness: u64,
    /// Flags and data bytes of its packets.
    packets: Vec<(u64, u64)>,
    /// Whether it is in an encapsulation that handshake does not decode.
    inside: bool,
}

/// The streams and the flows of one tuple, each in order.
type Both = (Vec<Stream>, Vec<u64>);

#[test]
fn completeness_equals_tsharks_except_for_explained_classes() -> Result<()> {
    let Some(captures) = captures() else { return Ok(()) };
    if !has_tshark() {
        return Ok(());
    }
    let mut classes: BTreeMap<Class, usize> = BTreeMap::new();
    let mut unexplained = Vec::new();
    for (path, tuples) in captures.iter().zip(in_parallel(&captures, |path| tuples(path))?) {
        for (tuple, both) in tuples {
            match classify(&both) {
                Ok(found) => found.into_iter().for_each(|class| *classes.entry(class).or_default() += 1),
                Err(why) => unexplained.push(format!("{}: {tuple}: {why}: {both:?}", name(path))),
            }
        }
    }
    println!("{classes:?}");
    assert!(unexplained.is_empty(), "{}", unexplained.join("\n"));
    assert!(classes.get(&Class::Equal).is_some_and(|equal| *equal > 100), "hardly anything was compared");
    Ok(())
}

/// Tests each class except the encapsulation with a conversation built for it.
#[test]
fn each_class_is_reproduced_with_tshark() -> Result<()> {
    if !has_tshark() {
        return Ok(());
    }
    const SYN: Sent = (true, flag::SYN, b"");
    const SYN_ACK: Sent = (false, flag::SYN | flag::ACK, b"");
    const ACK_ALONE: Sent = (true, flag::ACK, b"");
    const RST_ACK: Sent = (false, flag::RST | flag::ACK, b"");
    let rows: [(&[Sent], Class); 7] = [
        (&[SYN, SYN_ACK, ACK_ALONE], Class::Equal),
        (&[SYN, SYN_ACK, (true, flag::ACK, b"GET")], Class::DataBearingAck),
        (&[SYN, RST_ACK], Class::UncheckedAck),
        (&[SYN, (true, flag::FIN | flag::ACK, b"")], Class::UncheckedAck),
        (&[SYN, SYN_ACK, ACK_ALONE, RST_ACK, SYN], Class::Splitting),
        (&[SYN_ACK], Class::OnlyPacket),
        (&[RST_ACK, RST_ACK], Class::NoRecord),
    ];
    let mut frames = Vec::new();
    for ((sent, _), port) in rows.iter().zip(1_000..) {
        for segment in *sent {
            frames.push((20_000 * frames.len() as u64, conversation(port, segment)?));
        }
    }
    let made = Made::of("classes", &frames)?;
    let classes: Vec<_> = tuples(made.path())?.values().map(classify).collect::<Result<_>>()?;
    assert_eq!(classes, rows.map(|(_, class)| vec![class]));
    Ok(())
}

/// A segment: whether the initiator sends it, its flags, its data.
type Sent = (bool, u8, &'static [u8]);

/// A frame of the conversation with the client's `port`. Its numbers do not matter: tshark looks at flags and
/// lengths.
fn conversation(port: u16, (by_initiator, flags, payload): &Sent) -> Result<Vec<u8>> {
    let (client, server): (SocketAddr, SocketAddr) = (CLIENT.parse()?, SERVER.parse()?);
    let client = SocketAddr::new(client.ip(), port);
    let (source, destination, seq) = if *by_initiator {
        (client, server, 1_000 + u32::from(flags & flag::SYN == 0))
    } else {
        (server, client, 5_000)
    };
    let ack = if *by_initiator { 5_001 } else { 1_001 };
    tcp_frame(MACS, &BuiltSegment { source, destination, seq, ack, flags: *flags, payload })
}

pub(crate) fn has_tshark() -> bool {
    let found = Command::new("tshark").arg("--version").output().is_ok();
    if !found {
        skip("needs tshark");
    }
    found
}

/// The classes of one tuple's streams and flows, or an error for an unexplained difference.
fn classify((streams, flows): &Both) -> Result<Vec<Class>> {
    if flows.is_empty() && streams.iter().all(|stream| stream.inside) {
        return Ok(vec![Class::NotEntered; streams.len()]);
    }
    if flows.is_empty() {
        let follows =
            |flags: &u64| flags & TCP_RST == 0 && flags & (TCP_SYN | TCP_ACK) != 0 && flags & TCP_FIN == 0;
        let any = streams.iter().flat_map(|stream| &stream.packets).any(|(flags, _)| follows(flags));
        ensure!(!any, "handshake has no flow");
        return Ok(vec![Class::NoRecord; streams.len()]);
    }
    ensure!(!streams.is_empty(), "tshark has no stream");
    if streams.len() == flows.len() {
        return streams.iter().zip(flows).map(|(stream, flow)| compare(stream, *flow)).collect();
    }
    let mut whole = Stream::default();
    for stream in streams {
        whole.completeness |= stream.completeness;
        whole.packets.extend(&stream.packets);
    }
    compare(&whole, flows.iter().fold(0, |bits, flow| bits | flow)).map(|_| vec![Class::Splitting])
}

const TCP_FIN: u64 = 0x01;
const TCP_SYN: u64 = 0x02;
const TCP_RST: u64 = 0x04;
const TCP_ACK: u64 = 0x10;

fn compare(stream: &Stream, flow: u64) -> Result<Class> {
    let theirs = stream.completeness & COMPARED;
    let (only_theirs, only_ours) = (theirs & !flow, flow & !theirs);
    // The packets that tshark takes for the ACK of the handshake.
    let mut bare =
        stream.packets.iter().filter(|(flags, data)| flags & (TCP_SYN | TCP_ACK) == TCP_ACK && *data == 0);
    match (only_theirs, only_ours) {
        (0, 0) => Ok(Class::Equal),
        (0, _) if stream.packets.len() == 1 && theirs == 0 => Ok(Class::OnlyPacket),
        (0, ACK) if bare.next().is_none() => Ok(Class::DataBearingAck),
        (ACK, 0) if bare.all(|(flags, _)| flags & (TCP_FIN | TCP_RST) != 0) => Ok(Class::UncheckedAck),
        _ => bail!("bits only in tshark {only_theirs}, only in handshake {only_ours}"),
    }
}

/// tshark's streams and handshake's flows, by tuple.
fn tuples(path: &Path) -> Result<BTreeMap<String, Both>> {
    let mut tuples: BTreeMap<String, Both> = BTreeMap::new();
    for (tuple, stream) in streams(path)? {
        tuples.entry(tuple).or_default().0.push(stream);
    }
    for flow in replay(path, &["--compat"])?.of("tcp") {
        let completeness = flow["completeness"].as_u64().context("no completeness")?;
        ensure!(completeness & !COMPARED == 0, "{flow}");
        tuples.entry(tuple_of(flow)).or_default().1.push(completeness);
    }
    Ok(tuples)
}

fn tuple_of(flow: &Value) -> String {
    unordered(end(&flow["initiator"]), end(&flow["responder"]))
}

fn unordered(a: String, b: String) -> String {
    if a < b { format!("{a} {b}") } else { format!("{b} {a}") }
}

/// The streams with their tuples, in order.
fn streams(path: &Path) -> Result<Vec<(String, Stream)>> {
    let mut command = Command::new("tshark");
    command.args(ASKED).args(FIELDS.iter().flat_map(|field| ["-e", field])).arg("-r").arg(path);
    let output = command.output().context("start tshark")?;
    ensure!(output.status.success(), "tshark: {}", String::from_utf8_lossy(&output.stderr));
    let mut streams: BTreeMap<u64, (String, Stream)> = BTreeMap::new();
    for line in String::from_utf8(output.stdout)?.lines() {
        let fields: Vec<&str> = line.split(';').collect();
        let fields: [&str; FIELDS.len()] =
            fields.try_into().ok().with_context(|| format!("read {line:?}"))?;
        let stream = streams.entry(fields[0].parse()?).or_default();
        stream.0 = tuple(&fields)?;
        stream.1.completeness |= fields[1].parse::<u64>()?;
        let flags = u64::from_str_radix(fields[2].trim_start_matches("0x"), 16)?;
        // The length of a first fragment is unknown; it has data.
        let data = if fields[3].is_empty() { 1 } else { fields[3].parse()? };
        stream.1.packets.push((flags, data));
        stream.1.inside |= fields[4].split(':').any(|protocol| NOT_ENTERED.contains(&protocol));
    }
    Ok(streams.into_values().collect())
}

/// Two passes, as in Wireshark's window: completeness is then that of the whole stream. No reassembly: a
/// first fragment counts as it is. The FTP dissector is disabled, because it creates streams before their
/// SYNs, which then lack that bit. TCP headers within ICMP errors belong to no stream.
const ASKED: [&str; 15] = [
    "-2",
    "-n",
    "-o",
    "ip.defragment:FALSE",
    "-o",
    "ipv6.defragment:FALSE",
    "--disable-protocol",
    "ftp",
    "-Y",
    "tcp.stream && !icmp && !icmpv6",
    "-T",
    "fields",
    "-E",
    "separator=;",
    "-Eoccurrence=l",
];
const FIELDS: [&str; 12] = [
    "tcp.stream",
    "tcp.completeness",
    "tcp.flags",
    "tcp.len",
    "frame.protocols",
    "tcp.srcport",
    "tcp.dstport",
    "ip.src",
    "ip.dst",
    "ip.cur_rt",
    "ipv6.src",
    "ipv6.dst",
];
/// The encapsulations that are not decoded, as `frame.protocols` names them.
const NOT_ENTERED: [&str; 1] = ["vntag"];

/// The ends by the addresses in the header: for a source route, tshark shows the last address as the
/// destination.
fn tuple(fields: &[&str; FIELDS.len()]) -> Result<String> {
    let [_, _, _, _, _, source_port, destination_port, source4, last4, current4, source6, destination6] =
        fields;
    let destination4 = if current4.is_empty() { last4 } else { current4 };
    if source4.is_empty() {
        ensure!(!source6.is_empty(), "a packet without addresses");
        return Ok(unordered(
            format!("[{source6}]:{source_port}"),
            format!("[{destination6}]:{destination_port}"),
        ));
    }
    Ok(unordered(format!("{source4}:{source_port}"), format!("{destination4}:{destination_port}")))
}
