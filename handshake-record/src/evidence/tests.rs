//! Which packets are an attempt's, what is kept of them, and of how many attempts.

use std::ops::Range;

use handshake_agent::fake::{Fake, SECOND, record, tcp};
use handshake_agent::model::flow::Flow;
use handshake_agent::source::{Moment, Source as _};
use handshake_common::abi::{EVIDENCE_BYTES, KeptPacket, TcpRecord, tag};
use handshake_common::interface::Interface;
use handshake_common::record::{Detail, Record, State};
use handshake_common::verdict::Verdict;
use handshake_common::wire::build::FrameBuilder;
use handshake_common::wire::{Link, flag};

use super::{Asked, EACH, Evidence, comment};

const CLIENT: u32 = 0x0a00_0001;
const SERVER: u32 = 0x0a00_0002;
const J: u32 = u32::MAX - 1;
const K: u32 = 9_000;
const OPENED: u64 = 100 * SECOND;

/// The moment so many seconds after the attempts began.
fn at(seconds: u64) -> Moment {
    let fake = Fake::new();
    let mut now = fake.reading.now;
    now.ns = OPENED + seconds * SECOND;
    Moment { now, stopped: false, clocks: fake.clocks() }
}

/// An attempt that began at [`OPENED`], between the ports that [`FrameBuilder::tcp`] has.
fn begun(state: State, syn: u8) -> Record {
    let begun = record("10.0.0.1:40000", "10.0.0.2:80", state);
    let numbers = TcpRecord {
        opened_ns: OPENED,
        isn_initiator: J,
        isn_responder: K,
        syn,
        latest_after: 1,
        ..tcp(&begun)
    };
    Record { detail: Detail::Tcp(numbers), ..begun }
}

fn frame(source: u32, flags: u8, seq: u32, ack: u32) -> FrameBuilder {
    let (from, to) = if source == CLIENT { (CLIENT, SERVER) } else { (SERVER, CLIENT) };
    let frame = FrameBuilder::new(Link::Ethernet).ipv4(from, to).tcp(flags, seq, ack);
    if source == CLIENT { frame } else { swapped(frame) }
}

/// The same with its ports exchanged.
fn swapped(mut frame: FrameBuilder) -> FrameBuilder {
    frame.bytes_mut()[34..38].rotate_left(2);
    frame
}

fn kept(frame: &FrameBuilder, ns: u64, egress: bool) -> KeptPacket {
    let frame = frame.frame();
    let mut bytes = [0xee; EVIDENCE_BYTES];
    bytes[..frame.bytes.len()].copy_from_slice(frame.bytes);
    KeptPacket { ns, length: frame.length, interface: Interface::new(3, 0, false).at(egress).0, bytes }
}

fn refused() -> Flow {
    Flow::ended(begun(State::Refused, 1), Verdict::Refused, OPENED + 1_000)
}

#[test]
fn a_packet_is_an_attempts_by_its_ends_its_numbers_and_its_time() {
    let (syn, rst, ack) = (flag::SYN, flag::RST | flag::ACK, flag::ACK);
    let soon = OPENED + 1_000;
    let table = [
        (frame(CLIENT, syn, J, 0), OPENED, true),
        (frame(SERVER, rst, 0, J.wrapping_add(1)), soon, true),
        // At another hook point, after the end.
        (frame(SERVER, rst, 0, J.wrapping_add(1)), soon + 50_000_000, true),
        (frame(SERVER, rst, 0, J.wrapping_add(1)), soon + 200_000_000, false),
        (frame(CLIENT, syn, J, 0), OPENED - 1, false),
        // Of another connection between the same ends.
        (frame(CLIENT, syn, J + 1, 0), soon, false),
        (frame(SERVER, syn | ack, K, J.wrapping_add(1_000_000)), soon, false),
        (frame(CLIENT, ack, J.wrapping_add(1_000_000), K), soon, false),
        // Of another protocol, and between others.
        (FrameBuilder::new(Link::Ethernet).ipv4(CLIENT, SERVER).udp(), soon, false),
        (FrameBuilder::new(Link::Ethernet).ipv4(CLIENT, SERVER + 1).tcp(syn, J, 0), soon, false),
    ];
    for (place, (frame, ns, is_its)) in table.iter().enumerate() {
        let mut evidence = Evidence::default();
        evidence.offer(&refused(), &at(1));
        // What is read again is there once.
        (0..2).for_each(|_| evidence.take(&kept(frame, *ns, true)));
        assert_eq!(evidence.packets_of(&refused()), usize::from(*is_its), "row {place}");
    }
}

/// Headers hold no data unless that is asked for: not of a SYN, not of what an error quotes, and no padding's.
#[test]
fn data_is_cut_off() {
    const OPTIONS: [u8; 8] = [2, 4, 5, 180, 1, 1, 1, 1];
    let data = |frame: FrameBuilder| frame.protocol(0xfd, 40);
    let plain = frame(CLIENT, flag::SYN, J, 0);
    let options =
        FrameBuilder::new(Link::Ethernet).ipv4(CLIENT, SERVER).tcp(flag::SYN, J, 0).tcp_options(&OPTIONS);
    let tagged = FrameBuilder::new(Link::Ethernet).vlan(0x8100).ipv4(CLIENT, SERVER).tcp(flag::SYN, J, 0);
    let error = FrameBuilder::new(Link::Ethernet).ipv4(SERVER + 7, CLIENT).icmp(3, 1);
    let error = error.ipv4(CLIENT, SERVER).tcp(flag::SYN, J, 0);
    let table = [(data(plain), 54), (data(options), 62), (data(tagged), 58), (data(error), 82)];
    for (frame, headers) in table {
        for asked in [0, 7, 1_000] {
            let mut evidence = Evidence::with_payload(asked);
            evidence.offer(&refused(), &at(1));
            evidence.take(&kept(&frame, OPENED, false));
            let [attempt] = evidence.attempts()[..] else { panic!("one attempt") };
            let [packet] = &attempt.packets[..] else { panic!("{headers}: one packet") };
            assert_eq!(packet.length as usize, headers + 40);
            assert_eq!(packet.bytes.len(), headers + asked.min(40), "{headers} with {asked}");
        }
    }
}

/// The attempt from this port of the client.
fn from(port: u16, state: State) -> Record {
    let mut record = begun(state, 1);
    record.key.ports = u32::from(port) << 16 | 80;
    record
}

#[test]
fn there_are_twenty_of_a_service_and_a_verdict() {
    let mut evidence = Evidence::default();
    let look = |evidence: &mut Evidence, ports: Range<u16>, before, seconds| {
        let records = ports.map(|port| from(port, State::SynSent));
        let left = records.filter(|record| evidence.meet(record, before, &at(seconds))).count();
        evidence.end_look(left as u64);
    };
    look(&mut evidence, 40_000..40_025, None, 10);
    assert_eq!((evidence.attempts().len(), evidence.left_out()), (EACH, 5));
    // Those that are known, or were left out, are not counted again; expired is no other kind.
    look(&mut evidence, 40_000..40_025, Some(at(10).now), 100);
    let verdicts = |evidence: &Evidence, verdict| {
        evidence.attempts().iter().filter(|attempt| attempt.verdict == verdict).count()
    };
    assert_eq!(verdicts(&evidence, Verdict::HalfOpenExpired), EACH);
    assert_eq!((evidence.attempts().len(), evidence.left_out()), (EACH, 5));
    // One of those that were left out completes, and another is pushed out: the first has not failed, and the
    // second is counted once.
    let pushed_out =
        Flow::ended(from(40_023, State::SynSent), Verdict::HalfOpenExpired, OPENED + 101 * SECOND);
    evidence.offer(&pushed_out, &at(101));
    look(&mut evidence, 40_000..40_023, Some(at(100).now), 101);
    assert_eq!((evidence.attempts().len(), evidence.left_out()), (EACH, 4));
    // One that becomes another kind makes room, and takes some there.
    let answered = from(40_000, State::SynReceived);
    evidence.meet(&answered, Some(at(10).now), &at(11));
    evidence.meet(&from(41_000, State::SynSent), None, &at(10));
    assert_eq!((evidence.attempts().len(), evidence.left_out()), (EACH + 1, 4));
    // One that completes is evidence of nothing.
    evidence.take(&kept(&frame(CLIENT, flag::SYN, J, 0), OPENED, false));
    assert_eq!(evidence.packets_of(&Flow::of(answered)), 1);
    let completed = Record { flags: answered.flags | tag::LATE, state: State::Established, ..answered };
    evidence.offer(&Flow::ended(completed, Verdict::Completed, OPENED + 11 * SECOND), &at(12));
    assert_eq!((evidence.attempts().len(), evidence.packets), (EACH, 0));
    let ends = evidence.by_ends.values().map(Vec::len);
    assert!(ends.clone().all(|attempts| attempts > 0) && ends.sum::<usize>() == EACH);
    // What is asked for is beside them.
    let asked = Flow::of(from(42_000, State::SynSent));
    assert_eq!([evidence.ask(&asked, &at(1)), evidence.ask(&asked, &at(1))], [Asked::Here; 2]);
    assert_eq!(evidence.ask(&Flow::of(completed), &at(12)), Asked::NoEvidence);
    assert_eq!((evidence.attempts().len(), evidence.left_out()), (EACH + 1, 4));
}

/// An attempt whose end no event has told may have completed.
#[test]
fn what_is_open_no_more_and_has_no_end_is_no_evidence() {
    let mut evidence = Evidence::default();
    let open = from(40_000, State::SynSent);
    evidence.meet(&open, None, &at(10));
    evidence.offer(&Flow::ended(from(40_001, State::Refused), Verdict::Refused, OPENED), &at(10));
    for (is_met, left) in [(true, 2), (false, 2), (true, 2), (false, 2), (false, 1), (false, 1)] {
        if is_met {
            evidence.meet(&open, Some(at(10).now), &at(11));
        }
        evidence.end_look(0);
        assert_eq!(evidence.attempts().len(), left);
    }
    assert_eq!(evidence.left_out(), 1);
}

/// Of five SYNs the first three were overwritten; the last is seen at two hook points.
#[test]
fn a_comment_counts_what_was_lost() {
    let mut evidence = Evidence::default();
    let flow = Flow::of(begun(State::SynSent, 5));
    evidence.offer(&flow, &at(20));
    let syn = frame(CLIENT, flag::SYN, J, 0);
    for (seconds, egress) in [(7, false), (15, false), (15, true)] {
        evidence.take(&kept(&syn, OPENED + seconds * SECOND, egress));
    }
    let [attempt] = evidence.attempts()[..] else { panic!("one attempt") };
    assert_eq!(attempt.missing(), 3);
    let said: Vec<String> = (0..3).map(|place| comment(attempt, place)).collect();
    let said: Vec<&str> = said.iter().map(String::as_str).collect();
    let expected = ["4 of 5", "5 of 5", "5 of 5"]
        .map(|number| format!("handshake: half_open no_syn_ack, SYN {number}, J=4294967294"));
    assert_eq!(said, expected);
}
