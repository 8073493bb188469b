//! The same conversations in every form of the wire: link types, shims and mixtures of them. The verdicts
//! must be the same, and tshark must find the same handshakes.

use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use crate::made::{CLIENT, LINKTYPE_ETHERNET, Made, Recorded, SERVER, frame, frame_between};
use crate::support::{end, replay, run_replay};
use crate::wireshark::has_tshark;

const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;

const IPV4: [u8; 2] = [0x08, 0x00];
const LINKTYPE_PPP: u32 = 9;
const LINKTYPE_PPP_HDLC: u32 = 50;
const LINKTYPE_C_HDLC: u32 = 104;
const LINKTYPE_LINUX_SLL: u32 = 113;
const LINKTYPE_NFLOG: u32 = 239;
const LINKTYPE_PKTAP: u32 = 258;
const LINKTYPE_LINUX_SLL2: u32 = 276;

/// A form: its name, its link type, what stands before an IP packet, and whether tshark reads it.
struct Form {
    name: &'static str,
    link_type: u32,
    around: fn(&Bare) -> Vec<u8>,
    judged: bool,
}

/// An IP packet, and where it goes to in a network of Ethernet.
struct Bare {
    addresses: Vec<u8>,
    ip: Vec<u8>,
    is_ipv6: bool,
}

impl Bare {
    /// The EtherType of the packet.
    fn ethertype(&self) -> [u8; 2] {
        if self.is_ipv6 { [0x86, 0xdd] } else { IPV4 }
    }

    /// The number of PPP for the packet.
    fn ppp(&self) -> [u8; 2] {
        [0, if self.is_ipv6 { 0x57 } else { 0x21 }]
    }

    /// An Ethernet frame with `before` between its addresses and the packet.
    fn ethernet(&self, before: &[&[u8]]) -> Vec<u8> {
        [&self.addresses, &before.concat()[..], &self.ip].concat()
    }

    /// A frame with `before` in front of the packet, and nothing else.
    fn behind(&self, before: &[&[u8]]) -> Vec<u8> {
        [&before.concat()[..], &self.ip].concat()
    }

    /// The length of the packet and of `more` bytes, big-endian.
    fn length(&self, more: usize) -> [u8; 2] {
        u16::try_from(self.ip.len() + more).unwrap_or(u16::MAX).to_be_bytes()
    }

    /// A PPPoE session's header behind its EtherType.
    fn pppoe(&self, more: usize) -> [u8; 6] {
        let [high, low] = self.length(2 + more);
        [0x11, 0, 0, 7, high, low]
    }

    /// What stands before a packet that netfilter logged.
    fn nflog(&self, is_big_endian: bool) -> Vec<u8> {
        let word = |number: u16| if is_big_endian { number.to_be_bytes() } else { number.to_le_bytes() };
        let length = u16::try_from(self.ip.len() + 4).unwrap_or(u16::MAX);
        let family = if self.is_ipv6 { 10 } else { 2 };
        let hook = [&word(8)[..], &word(1), &self.ethertype(), &[3, 0]].concat();
        let prefix = [&word(7)[..], &word(10), b"in\0\0"].concat();
        self.behind(&[&[family, 0, 0, 5], &hook, &prefix, &word(length), &word(9)])
    }
}

const LABELS: [u8; 8] = [0, 0x3e, 0x80, 64, 0, 0x3e, 0x91, 64];
const BOTTOM: [u8; 4] = [0, 0x3e, 0x81, 64];
const SNAP: [u8; 6] = [0xaa, 0xaa, 3, 0, 0, 0];
const METADATA: [u8; 8] = [0x89, 0x09, 1, 1, 0, 1, 0, 5];
const TAG: [u8; 4] = [0x81, 0, 0x20, 5];
const SERVICE_TAG: [u8; 4] = [0x88, 0xa8, 0, 7];

/// A form of Ethernet that tshark reads too.
const fn ethernet(name: &'static str, around: fn(&Bare) -> Vec<u8>) -> Form {
    Form { name, link_type: LINKTYPE_ETHERNET, around, judged: true }
}

const fn linked(name: &'static str, link_type: u32, around: fn(&Bare) -> Vec<u8>) -> Form {
    Form { name, link_type, around, judged: true }
}

/// The table of what is compared.
const FORMS: &[Form] = &[
    ethernet("Ethernet", |bare| bare.ethernet(&[&bare.ethertype()])),
    ethernet("802.1Q", |bare| bare.ethernet(&[&TAG, &bare.ethertype()])),
    ethernet("802.1ad, 802.1Q", |bare| bare.ethernet(&[&SERVICE_TAG, &TAG, &bare.ethertype()])),
    ethernet("four tags", |bare| bare.ethernet(&[&SERVICE_TAG, &TAG, &TAG, &TAG, &bare.ethertype()])),
    ethernet("0x9100", |bare| bare.ethernet(&[&[0x91, 0, 0, 7], &TAG, &bare.ethertype()])),
    Form {
        judged: false,
        ..ethernet("0x9200", |bare| bare.ethernet(&[&[0x92, 0, 0, 7], &TAG, &bare.ethertype()]))
    },
    ethernet("MPLS, a label", |bare| bare.ethernet(&[&[0x88, 0x47], &BOTTOM])),
    ethernet("MPLS, three labels", |bare| bare.ethernet(&[&[0x88, 0x47], &BOTTOM_OF_THREE])),
    ethernet("MPLS, upstream", |bare| bare.ethernet(&[&[0x88, 0x48], &LABELS])),
    ethernet("PPPoE", |bare| bare.ethernet(&[&[0x88, 0x64], &bare.pppoe(0), &bare.ppp()])),
    ethernet("802.1Q, PPPoE", |bare| bare.ethernet(&[&TAG, &[0x88, 0x64], &bare.pppoe(0), &bare.ppp()])),
    ethernet("PPPoE, MPLS", |bare| bare.ethernet(&[&[0x88, 0x64], &bare.pppoe(4), &[0x02, 0x81], &BOTTOM])),
    ethernet("802.1Q, MPLS", |bare| bare.ethernet(&[&TAG, &[0x88, 0x47], &LABELS])),
    ethernet("SNAP", |bare| bare.ethernet(&[&bare.length(8), &SNAP, &bare.ethertype()])),
    ethernet("SNAP, 802.1Q", |bare| bare.ethernet(&[&bare.length(12), &SNAP, &TAG, &bare.ethertype()])),
    ethernet("802.1Q, SNAP", |bare| bare.ethernet(&[&TAG, &bare.length(8), &SNAP, &bare.ethertype()])),
    ethernet("Cisco MetaData", |bare| bare.ethernet(&[&METADATA, &bare.ethertype()])),
    ethernet("802.1Q, Cisco MetaData", |bare| bare.ethernet(&[&TAG, &METADATA, &bare.ethertype()])),
    linked("raw IP", 101, |bare| bare.ip.clone()),
    linked("PPP", LINKTYPE_PPP, |bare| bare.behind(&[&[0xff, 3], &bare.ppp()])),
    linked("PPP without address and control", LINKTYPE_PPP, |bare| bare.behind(&[&bare.ppp()])),
    linked("PPP, protocol of one byte", LINKTYPE_PPP, |bare| bare.behind(&[&[0xff, 3, bare.ppp()[1]]])),
    linked("PPP, all fields short", LINKTYPE_PPP, |bare| bare.behind(&[&[bare.ppp()[1]]])),
    linked("PPP, MPLS", LINKTYPE_PPP, |bare| bare.behind(&[&[0xff, 3, 2, 0x81], &BOTTOM])),
    linked("PPP in HDLC", LINKTYPE_PPP_HDLC, |bare| bare.behind(&[&[0xff, 3], &bare.ppp()])),
    linked("PPP in HDLC, Cisco's", LINKTYPE_PPP_HDLC, |bare| bare.behind(&[&[0x0f, 0], &bare.ethertype()])),
    linked("Cisco HDLC", LINKTYPE_C_HDLC, |bare| bare.behind(&[&[0x0f, 0], &bare.ethertype()])),
    linked("Cisco HDLC, to all", LINKTYPE_C_HDLC, |bare| bare.behind(&[&[0x8f, 0], &bare.ethertype()])),
    linked("Cisco HDLC, MPLS", LINKTYPE_C_HDLC, |bare| bare.behind(&[&[0x0f, 0, 0x88, 0x47], &LABELS])),
    linked("NFLOG", LINKTYPE_NFLOG, |bare| bare.nflog(false)),
    // tshark believes that a file's attributes have the file's byte order.
    Form { judged: false, ..linked("NFLOG, big-endian", LINKTYPE_NFLOG, |bare| bare.nflog(true)) },
    linked("BSD loopback", 0, |bare| bare.behind(&[&[if bare.is_ipv6 { 30 } else { 2 }, 0, 0, 0]])),
    linked("cooked", LINKTYPE_LINUX_SLL, |bare| bare.behind(&[&SLL, &bare.ethertype()])),
    linked("cooked, SNAP", LINKTYPE_LINUX_SLL, |bare| {
        bare.behind(&[&SLL, &[0, 4], &SNAP, &bare.ethertype()])
    }),
    linked("cooked, 802.1Q, PPPoE", LINKTYPE_LINUX_SLL, |bare| {
        bare.behind(&[&SLL, &TAG, &[0x88, 0x64], &bare.pppoe(0), &bare.ppp()])
    }),
    linked("cooked, version 2, MPLS", LINKTYPE_LINUX_SLL2, |bare| {
        bare.behind(&[&[0x88, 0x47, 0, 0, 0, 0, 0, 2, 0, 1, 0, 6], &[0; 8], &LABELS])
    }),
    Form {
        // Wireshark knows PKTAP by number 258; Debian's build of it reads that as a user's.
        judged: false,
        ..linked("PKTAP", LINKTYPE_PKTAP, |bare| {
            let header: Vec<u8> = [108_u32, 1, 1].iter().flat_map(|word| word.to_le_bytes()).collect();
            [&header[..], &[0; 96], &bare.ethernet(&[&bare.ethertype()])].concat()
        })
    },
];
/// A form in which every conversation is in a tunnel, to be read with `--tunnels`.
const fn tunnel(name: &'static str, around: fn(&Bare) -> Vec<u8>) -> Form {
    Form { name, link_type: LINKTYPE_ETHERNET, around, judged: true }
}

/// The tunnels that are compared.
const TUNNELS: &[Form] = &[
    tunnel("VXLAN", |bare| over_udp(4789, &[&VXLAN, &bare.ethernet(&[&bare.ethertype()])])),
    tunnel("VXLAN, 802.1Q", |bare| over_udp(4789, &[&VXLAN, &bare.ethernet(&[&TAG, &bare.ethertype()])])),
    tunnel("VXLAN over IPv6", |bare| {
        let frame = bare.ethernet(&[&bare.ethertype()]);
        over_ipv6(17, &[&udp(4789, VXLAN.len() + frame.len()), &VXLAN, &frame])
    }),
    // tshark knows VXLAN by IANA's port alone.
    Form {
        judged: false,
        ..tunnel("VXLAN, Linux's port", |bare| {
            over_udp(8472, &[&VXLAN, &bare.ethernet(&[&bare.ethertype()])])
        })
    },
    tunnel("Geneve", |bare| {
        over_udp(6081, &[&[1, 0, 0x65, 0x58, 0, 0, 7, 0, 1, 2, 3, 0], &bare.ethernet(&[&bare.ethertype()])])
    }),
    tunnel("Geneve, IP", |bare| over_udp(6081, &[&[0, 0], &bare.ethertype(), &[0, 0, 7, 0], &bare.ip])),
    tunnel("GTP-U", |bare| over_udp(2152, &[&[0x30, 255], &bare.length(0), &[0, 0, 0, 9], &bare.ip])),
    tunnel("GTP-U, extended", |bare| {
        let more = [0, 0, 0, 0x85, 1, 0, 9, 0];
        over_udp(2152, &[&[0x34, 255], &bare.length(more.len()), &[0, 0, 0, 9], &more, &bare.ip])
    }),
    tunnel("GRE", |bare| over_ipv4(47, &[&[0, 0], &bare.ethertype(), &bare.ip])),
    tunnel("GRE, key and number", |bare| {
        over_ipv4(47, &[&[0x30, 0], &bare.ethertype(), &[0, 0, 0, 7, 0, 0, 0, 1], &bare.ip])
    }),
    tunnel("GRE, Ethernet", |bare| {
        over_ipv6(47, &[&[0, 0, 0x65, 0x58], &bare.ethernet(&[&bare.ethertype()])])
    }),
    tunnel("ERSPAN", |bare| {
        let header = [0x10, 0, 0x88, 0xbe, 0, 0, 0, 1, 0x10, 7, 0, 1, 0, 0, 0, 0];
        over_ipv4(47, &[&header, &bare.ethernet(&[&bare.ethertype()])])
    }),
    tunnel("IP in IPv4", |bare| over_ipv4(if bare.is_ipv6 { 41 } else { 4 }, &[&bare.ip])),
    tunnel("IP in IPv6", |bare| over_ipv6(if bare.is_ipv6 { 41 } else { 4 }, &[&bare.ip])),
    tunnel("GRE in IP in IP", |bare| {
        let gre = over_ipv4(47, &[&[0, 0], &bare.ethertype(), &bare.ip]);
        over_ipv6(4, &[&gre[14..]])
    }),
    tunnel("VXLAN behind 802.1Q and a label", |bare| {
        let frame = over_udp(4789, &[&VXLAN, &bare.ethernet(&[&bare.ethertype()])]);
        [&frame[..12], &TAG, &[0x88, 0x47], &BOTTOM, &frame[14..]].concat()
    }),
];
const VXLAN: [u8; 8] = [8, 0, 0, 0, 0, 0, 7, 0];

/// A UDP header without a checksum.
fn udp(port: u16, length: usize) -> Vec<u8> {
    let length = u16::try_from(8 + length).unwrap_or(u16::MAX);
    [50_000, port, length, 0].iter().flat_map(|word| word.to_be_bytes()).collect()
}

fn over_udp(port: u16, parts: &[&[u8]]) -> Vec<u8> {
    let content = parts.concat();
    over_ipv4(17, &[&udp(port, content.len()), &content])
}

/// An Ethernet frame with IPv4 between two ends of tunnels.
fn over_ipv4(protocol: u8, parts: &[&[u8]]) -> Vec<u8> {
    let content = parts.concat();
    let [high, low] = u16::try_from(20 + content.len()).unwrap_or(u16::MAX).to_be_bytes();
    let header = [0x45, 0, high, low, 0, 0, 0, 0, 64, protocol, 0, 0, 203, 0, 113, 1, 203, 0, 113, 2];
    [&[2; 12], &IPV4[..], &header, &content].concat()
}

/// The same with IPv6.
fn over_ipv6(protocol: u8, parts: &[&[u8]]) -> Vec<u8> {
    let content = parts.concat();
    let [high, low] = u16::try_from(content.len()).unwrap_or(u16::MAX).to_be_bytes();
    let header = [0x60, 0, 0, 0, high, low, protocol, 64];
    let end = |last| [0x20, 1, 0x0d, 0xb8, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, last];
    [&[2; 12], &[0x86, 0xdd][..], &header, &end(1), &end(2), &content].concat()
}

const BOTTOM_OF_THREE: [u8; 12] = [0, 0x3e, 0x80, 64, 0, 0x3e, 0x90, 64, 0, 0x3e, 0xa1, 64];
/// Without its protocol.
const SLL: [u8; 14] = [0, 0, 0, 1, 0, 6, 2, 0, 0, 0, 0, 1, 0, 0];

/// Conversations of every outcome, of both families.
fn conversations() -> Result<Vec<Bare>> {
    const CLIENT6: &str = "[2001:db8::1]:40000";
    const SERVER6: &str = "[2001:db8::2]:443";
    let mut frames = Vec::new();
    for (flags, seq, ack, from) in
        [(SYN, 9, 0, CLIENT), (SYN | ACK, 99, 10, SERVER), (ACK, 10, 100, CLIENT), (SYN, 9, 0, CLIENT6)]
    {
        let to = if from == CLIENT { SERVER } else { CLIENT };
        let ends = if from == CLIENT6 { [CLIENT6, SERVER6] } else { [from, to] };
        frames.push(frame_between(ends, flags, seq, ack)?);
    }
    frames.push(frame_between([SERVER6, CLIENT6], RST | ACK, 0, 10)?);
    frames.push(frame_between(["192.0.2.1:40001", SERVER], SYN, 5, 0)?);
    frames.push(frame_between(["192.0.2.9:40002", SERVER], SYN, 5, 0)?);
    frames.push(frame_between([SERVER, "192.0.2.9:40002"], SYN | ACK, 7, 6)?);
    frames.push(frame(&(CLIENT, ACK, 10, 100))?);
    Ok(frames
        .into_iter()
        .map(|bytes| {
            let (link, ip) = bytes.split_at(14);
            let (addresses, ethertype) = link.split_at(12);
            Bare { addresses: addresses.into(), ip: ip.into(), is_ipv6: ethertype != IPV4 }
        })
        .collect())
}

static WRITTEN: AtomicUsize = AtomicUsize::new(0);

fn written(form: &Form, conversations: &[Bare]) -> Result<Made> {
    let recorded = |(bare, at): (&Bare, u64)| {
        let bytes = (form.around)(bare);
        let length = u32::try_from(bytes.len())?;
        Ok(Recorded { time_ns: 1_700_000_000_000_000_000 + at * 20_000_000, length, bytes })
    };
    let frames = conversations.iter().zip(0..).map(recorded).collect::<Result<Vec<_>>>()?;
    let name: String = form.name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    // Tests write the same form at the same time.
    let once = WRITTEN.fetch_add(1, Relaxed);
    Made::record_of(form.link_type, &format!("form-{name}-{once}"), &frames)
}

/// The forms of Ethernet, each with a capture of the conversations.
pub(crate) fn of_ethernet() -> Result<Vec<(&'static str, Made)>> {
    let conversations = conversations()?;
    let forms = FORMS.iter().filter(|form| form.link_type == LINKTYPE_ETHERNET);
    forms.map(|form| Ok((form.name, written(form, &conversations)?))).collect()
}

/// Ends, verdict and times of each flow.
fn verdicts(made: &Made, more: &[&str]) -> Result<Vec<Value>> {
    let flows = replay(made.path(), more)?.flows;
    let told = |flow: &Value| {
        json!([
            end(&flow["initiator"]),
            end(&flow["responder"]),
            flow["verdict"],
            flow["cause"],
            flow["syn_to_syn_ack_ns"],
            flow["syn_ack_to_ack_ns"]
        ])
    };
    Ok(flows.iter().map(told).collect())
}

#[test]
fn the_same_conversations_in_every_form_have_the_same_verdicts() -> Result<()> {
    let conversations = conversations()?;
    let plain = verdicts(&written(&FORMS[0], &conversations)?, &[])?;
    ensure!(plain.len() == 4, "four conversations: {plain:?}");
    for form in FORMS {
        let found = verdicts(&written(form, &conversations)?, &[])?;
        ensure!(found == plain, "{}: {found:?} instead of {plain:?}", form.name);
    }
    Ok(())
}

#[test]
fn the_same_conversations_in_every_tunnel_have_the_same_verdicts() -> Result<()> {
    let conversations = conversations()?;
    let plain = verdicts(&written(&FORMS[0], &conversations)?, &["--tunnels"])?;
    for form in TUNNELS {
        let made = written(form, &conversations)?;
        let found = verdicts(&made, &["--tunnels"])?;
        ensure!(found == plain, "{}: {found:?} instead of {plain:?}", form.name);
        let outside = replay(made.path(), &[])?;
        ensure!(outside.of("tcp").is_empty(), "{}: nothing is entered without --tunnels", form.name);
    }
    Ok(())
}

#[test]
fn a_flow_has_its_tunnel_and_a_tunnel_says_what_it_is() -> Result<()> {
    let made = written(&TUNNELS[0], &conversations()?)?;
    let inside = replay(made.path(), &["--tunnels"])?;
    let around = json!({"tunnel": "vxlan", "source": "203.0.113.1", "destination": "203.0.113.2"});
    ensure!(
        inside.flows.len() == 4 && inside.flows.iter().all(|flow| flow["inside"] == around),
        "{inside:?}"
    );
    let outside = replay(made.path(), &[])?;
    ensure!(outside.flows.len() == 1 && outside.flows[0]["tunnel"] == "vxlan", "{outside:?}");
    ensure!(outside.flows[0]["inside"].is_null() && inside.flows[0]["tunnel"].is_null(), "{outside:?}");
    let text = |more: &[&str]| -> Result<String> {
        Ok(String::from_utf8(run_replay(made.path(), &[&["--flows"], more].concat())?.stdout)?)
    };
    ensure!(text(&[])?.contains("a VXLAN tunnel: --tunnels shows what is inside"), "{}", text(&[])?);
    ensure!(
        text(&["--tunnels"])?.contains("in VXLAN 203.0.113.1 → 203.0.113.2"),
        "{}",
        text(&["--tunnels"])?
    );
    Ok(())
}

#[test]
fn tshark_finds_the_same_segments_in_every_form() -> Result<()> {
    if !has_tshark() {
        return Ok(());
    }
    let conversations = conversations()?;
    let mut plain = None;
    let mut differ = Vec::new();
    for form in FORMS.iter().chain(TUNNELS).filter(|form| form.judged) {
        let made = written(form, &conversations)?;
        let mut command = Command::new("tshark");
        command.args(["-n", "-T", "fields", "-e", "tcp.srcport", "-e", "tcp.flags", "-Y", "tcp", "-r"]);
        let output = command.arg(made.path()).output().context("start tshark")?;
        ensure!(output.status.success(), "tshark: {}", String::from_utf8_lossy(&output.stderr));
        let found = String::from_utf8(output.stdout)?;
        let plain = plain.get_or_insert_with(|| found.clone());
        ensure!(plain.lines().count() == 9, "{}: {plain}", form.name);
        if found != *plain {
            differ.push((form.name, found));
        }
    }
    ensure!(differ.is_empty(), "{differ:#?}");
    Ok(())
}
