//! Packets of numbered flows, whose every number follows from the flow's: a record made of two shows.

use handshake_common::abi::TICK_SHIFT;
use handshake_common::flow::Address;
use handshake_common::record::{Detail, Now, Record, State};
use handshake_common::wire::{Class, Packet, TCP, UDP, flag};

/// The responder of all flows.
const SERVER: (Address, u16) = (Address::v4(0x0a00_0001), 443);
/// The initiator's address of all flows, smaller than the responder's; the port is [`FIRST_PORT`] and
/// the flow's number.
const CLIENT: Address = Address::v4(0x0a00_0000);
/// An ephemeral one: a datagram to it is no request, to which a datagram of another flow would be an answer.
const FIRST_PORT: u16 = 0x8000;
/// Room between the sequence numbers, and the times, of two flows.
const SPAN: u32 = 1 << 12;

fn isn(flow: u16) -> u32 {
    u32::from(flow) * SPAN
}

/// The responder's initial sequence number.
fn answer_isn(flow: u16) -> u32 {
    u32::MAX - isn(flow)
}

fn packet(flow: u16, from_client: bool, class: Class, protocol: u8) -> Packet {
    let client = (CLIENT, FIRST_PORT + flow);
    let (source, destination) = if from_client { (client, SERVER) } else { (SERVER, client) };
    Packet {
        source: source.0,
        source_port: source.1,
        destination: destination.0,
        destination_port: destination.1,
        ip_length: 40,
        segments: 1,
        class: class as u8,
        family: 1,
        protocol,
        ..Packet::default()
    }
}

/// A flow's SYN. Another `attempt` has another sequence number.
pub(crate) fn syn(flow: u16, attempt: u32) -> Packet {
    Packet { flags: flag::SYN, seq: isn(flow) + attempt, ..packet(flow, true, Class::Syn, TCP) }
}

/// The answer to the SYN of an attempt.
pub(crate) fn syn_ack(flow: u16, attempt: u32) -> Packet {
    let flags = flag::SYN | flag::ACK;
    let (seq, ack) = (answer_isn(flow), isn(flow) + attempt + 1);
    Packet { flags, seq, ack, ..packet(flow, false, Class::SynAck, TCP) }
}

/// The segment that completes an attempt.
pub(crate) fn ack(flow: u16, attempt: u32) -> Packet {
    let (seq, ack) = (isn(flow) + attempt + 1, answer_isn(flow).wrapping_add(1));
    Packet { flags: flag::ACK, seq, ack, ..packet(flow, true, Class::Ack, TCP) }
}

/// The responder's refusal of an attempt.
pub(crate) fn rst(flow: u16, attempt: u32) -> Packet {
    let ack = isn(flow) + attempt + 1;
    Packet { flags: flag::RST | flag::ACK, ack, ..packet(flow, false, Class::Rst, TCP) }
}

/// A datagram of the flow's client, or one to it.
pub(crate) fn datagram(flow: u16, from_client: bool) -> Packet {
    packet(flow, from_client, Class::Udp, UDP)
}

/// When a flow's packets come.
pub(crate) fn time(flow: u16) -> Now {
    Now { ns: u64::from(isn(flow)) << TICK_SHIFT, jiffies: u32::from(flow) }
}

/// Panics unless key, body and tag are of one record of these packets. What is counted without
/// owning the slot (the latest packet's time, packets, bytes) is left out.
pub(crate) fn assert_whole(record: &Record) {
    assert!(record.key.low == CLIENT && record.key.high == SERVER.0, "torn: {record:?}");
    let flow = u16::try_from(record.key.ports >> 16).expect("half a word") - FIRST_PORT;
    let opened = match record.detail {
        Detail::Tcp(tcp) => {
            let joined = matches!(record.state, State::Midstream | State::OrphanSynAck);
            assert!(joined || tcp.isn_initiator.wrapping_sub(isn(flow)) < SPAN, "torn: {record:?}");
            let answered = matches!(record.state, State::SynReceived | State::Established);
            let unanswered = tcp.isn_responder == 0 && !answered;
            assert!(unanswered || tcp.isn_responder == answer_isn(flow), "torn: {record:?}");
            tcp.opened_ns
        }
        Detail::Udp(udp) => {
            let answered = record.state == State::UdpAnswered;
            assert_eq!(udp.answer_after != 0, answered, "torn: {record:?}");
            udp.opened_ns
        }
    };
    assert_eq!(opened, time(flow).ns, "torn: {record:?}");
}
