//! Names, order and absence of fields, on which programs that read the JSON rely.

mod documented;
mod schema;

use std::sync::Arc;

use handshake_agent::fake::{BEGINNING, Fake, SECOND, maker, record, tcp, ticks, udp_record};
use handshake_agent::model::flow::{Flow, View};
use handshake_agent::model::snapshot::{
    CaptureOrigin, FIRST_UDP_ROW, InterfaceHooks, Interval, LiveOrigin, Origin, RunContext, Snapshot,
};
use handshake_common::abi::{Counter, NO_POINT, TcpRecord, tag};
use handshake_common::interface::point;
use handshake_common::record::{Detail, SILENT, State};
use handshake_common::verdict::{Leg, Verdict};
use serde_json::{Value, json};

use super::{flow, report, write_flow, write_report, write_report_with_flows};

/// A report with every name in its order.
const REPORT: &str = r#"{"type":"report","schema":1,"source":{"kind":"capture","path":"a.pcap","damaged":false,"truncated":false,"skipped":[],"cut_headers":0,"untimed":0},
 "from":"2026-03-01T12:03:41.000000000Z","to":"2026-03-01T12:03:41.000000000Z","exact":true,"inexact":[],"contended":0,"lost_events":0,"lost_before_hook":0,"unsettled":0,
 "packets":{"total":0,"ipv4":0,"ipv6":0,"filtered":0,"extension_chains":0,"split_headers":0,"copies":0,"syn":0,"syn_ack":0,"ack":0,"fin":0,"rst":0,"tcp_other":0,"udp":0,"icmp":0,"ip_other":0,"fragment":0,"non_ip":0,"truncated":0,"malformed":0},
 "tcp":{"attempts":1,"completed":1,"late":0,"refused":0,"unreachable":0,"initiator_aborted":0,"responder_aborted":0,"superseded":0,
        "half_open_expired":{"no_syn_ack":0,"no_ack":0,"answer_unseen":0},"evicted":0,"untracked":0,"opening":0,"half_open":{"now":0,"no_syn_ack":0,"no_ack":0,"answer_unseen":0,"never_repeated":0,"waiting":0,"gave_up":0},"silent":{"now":0},"midstream":0,"orphan_syn_ack":0,
        "signs":{"syn_retransmits":0,"syn_ack_retransmits":0,"bad_syn_ack":0,"bad_ack":0,"ack_ignored":0,"revised":0,"foreign_syn":0,"foreign_icmp":0,"bad_checksum":0,"was_silent":0},
        "entered":{"refused":0,"unreachable":0,"initiator_aborted":0,"responder_aborted":0,"orphan_syn_ack":0}},
 "latency":{"syn_to_syn_ack":{"count":1,"excluded":0,"p50_ns":80,"p90_ns":80,"p95_ns":80,"p99_ns":80,"p999_ns":80,"max_ns":80},
            "syn_ack_to_ack":{"count":1,"excluded":0,"p50_ns":24,"p90_ns":24,"p95_ns":24,"p99_ns":24,"p999_ns":24,"max_ns":24},
            "connect":{"count":1,"excluded":0,"p50_ns":104,"p90_ns":104,"p95_ns":104,"p99_ns":104,"p999_ns":104,"max_ns":104},
            "ack_to_first_byte":{"count":1,"excluded":0,"p50_ns":96,"p90_ns":96,"p95_ns":96,"p99_ns":96,"p999_ns":96,"max_ns":96},
            "connect_of_all":{"count":1,"not_connected":0,"p50_ns":104,"p90_ns":104,"p95_ns":104,"p99_ns":104,"p999_ns":104,"max_ns":104}},
 "udp":{"flows":1,"answered":1,"unanswered":0,"unreachable":0,"multicast":0,"pending":0,"evicted":0,"untracked":0,"packets":0,"bytes":0,"entered":{"answered":0,"unreachable":0,"multicast":0}},
 "table":{"slots":524288,"used":0,"evictions":{"expired":0,"closed":0,"midstream":0,"udp":0,"half_open":0,"completed":0}},"services_evicted":0,
 "services":[
    {"address":"10.0.0.2","port":80,"protocol":"tcp","attempts":1,"completed":1,"refused":0,"unreachable":0,"initiator_aborted":0,"responder_aborted":0,"superseded":0,"half_open_expired":0,"evicted":0,"untracked":0,"opening":0,"half_open":0,"never_repeated":0,"waiting":0,"gave_up":0,"silent":0,"was_silent":0,
     "latency":{"connect":{"count":1,"excluded":0,"p50_ns":104,"p90_ns":104,"p95_ns":104,"p99_ns":104,"p999_ns":104,"max_ns":104},
                "connect_of_all":{"count":1,"not_connected":0,"p50_ns":104,"p90_ns":104,"p95_ns":104,"p99_ns":104,"p999_ns":104,"max_ns":104}}},
    {"other":true,"protocol":"udp","flows":1,"answered":1,"unanswered":0,"unreachable":0,"multicast":0,"pending":0,"evicted":0,"untracked":0}]}"#;

#[test]
fn a_report_has_every_name_in_order() {
    let expected: Value = serde_json::from_str(REPORT).expect("the text above is JSON");
    // Compared as text, because objects are equal in any order of their names.
    assert_eq!(report(&typical(), None).to_string(), expected.to_string());
}

#[test]
fn an_unknown_latency_is_absent_instead_of_zero() {
    let nothing = take(&mut Fake::new(), capture());
    assert_eq!(report(&nothing, None)["latency"]["connect"], json!({"count": 0, "excluded": 0}));
    assert_eq!(report(&nothing, None)["services"], json!([]));
}

#[test]
fn an_interface_has_its_hooks_and_its_own_packets() {
    let origin = Origin::Live(LiveOrigin {
        interfaces: vec![
            InterfaceHooks {
                name: "eth0".to_owned(),
                ingress: Some("xdp-generic".to_owned()),
                egress: Some("tcx".to_owned()),
                merged: true,
                before: vec!["cil_from_netdev".to_owned()],
            },
            InterfaceHooks {
                name: "lo".to_owned(),
                ingress: Some("tcx".to_owned()),
                ..InterfaceHooks::default()
            },
        ],
        groups: Vec::new(),
        gone: 3,
    });
    let mut fake = Fake::new();
    fake.reading.classes.push(fake.reading.classes[0]);
    fake.packets(handshake_common::wire::Class::Syn, handshake_common::flow::Family::V4, 3);
    fake.reading.gone = fake.reading.classes[0];
    let source = report(&take(&mut fake, origin), None)["source"].clone();
    let eth0 = &source["interfaces"][0];
    assert_eq!(source["kind"], "live");
    assert_eq!((&eth0["ingress"], &eth0["egress"]), (&json!("xdp-generic"), &json!("tcx")));
    assert_eq!((&eth0["segments"], &eth0["before"]), (&json!("merged"), &json!(["cil_from_netdev"])));
    assert_eq!(eth0["packets"]["syn"], 3);
    assert_eq!((&source["gone"]["interfaces"], &source["gone"]["packets"]["syn"]), (&json!(3), &json!(3)));
    assert!(eth0["packets"].get("filtered").is_none(), "it is not counted per interface");
    let lo = &source["interfaces"][1];
    assert_eq!(
        (lo["packets"]["total"].clone(), lo.get("egress"), lo.get("segments")),
        (json!(0), None, None)
    );
}

#[test]
fn an_interval_has_the_changes_of_tcp_and_latency() {
    let mut fake = Fake::new();
    fake.open(0, State::SynSent, SECOND);
    fake.ended(0, Counter::Refused, 1);
    let before = take(&mut fake, capture());
    fake.later(SECOND);
    fake.count(Counter::OpenNoSynAck, -1);
    fake.count(Counter::Refused, -1);
    fake.count(Counter::Completed, 2);
    fake.records.clear();
    fake.sample(Leg::Connect, 10, 2);
    let now = take(&mut fake, capture());
    let whole = report(&now, Some(&Interval::between(&before, &now)));
    let interval = &whole["interval"];
    let names =
        |value: &Value| -> Vec<String> { value.as_object().expect("an object").keys().cloned().collect() };
    assert_eq!(names(interval), ["exact", "tcp", "latency"]);
    assert_eq!(names(&interval["tcp"]), names(&whole["tcp"]));
    assert_eq!((&interval["tcp"]["completed"], &interval["tcp"]["refused"]), (&json!(2), &json!(-1)));
    assert_eq!((&interval["tcp"]["attempts"], &interval["tcp"]["opening"]), (&json!(0), &json!(-1)));
    assert_eq!(interval["latency"]["connect"]["count"], 2);
}

#[test]
fn flows_are_in_the_closing_object() {
    let mut fake = Fake::new();
    for port in 0..3 {
        let mut each = udp_record("10.0.0.1:1", "10.0.0.2:53", State::UdpWaiting);
        each.key.ports += port << 16;
        fake.records.push(each);
    }
    let snapshot = take(&mut fake, capture());
    for count in [0, 1, 3] {
        let view = View::of(&snapshot);
        let flows = view.flows(&fake);
        let mut out = Vec::new();
        write_report_with_flows(&mut out, &snapshot, &view, &flows[..count]).expect("memory has room");
        let value: Value = serde_json::from_slice(&out).expect("it is JSON");
        assert_eq!(value["flows"].as_array().map(Vec::len), Some(count));
        assert_eq!(value["schema"], 1);
        assert_eq!(out.iter().filter(|byte| **byte == b'\n').count(), 1, "one line");
    }
    let mut lines = Vec::new();
    write_report(&mut lines, &snapshot, None).expect("memory has room");
    let view = View::of(&snapshot);
    write_flow(&mut lines, &view, &view.flows(&fake)[0]).expect("memory has room");
    assert_eq!(lines.iter().filter(|byte| **byte == b'\n').count(), 2);
}

#[test]
fn a_completed_connection_has_every_name() {
    let mut each = record("10.0.0.1:40000", "10.0.0.2:443", State::Established);
    let mut detail = tcp(&each);
    detail.opened_ns = 990 * SECOND;
    (detail.isn_initiator, detail.isn_responder) = (0, 2);
    (detail.syn, detail.syn_ack, detail.ack) = (1, 1, 7);
    detail.syn_ack_after = ticks(81_920);
    detail.latest_after = ticks(81_920 + 23_040);
    detail.points = NO_POINT << 4 | point(1, true);
    each.detail = Detail::Tcp(detail);
    let expected = r#"{"type":"flow","protocol":"tcp","initiator":{"address":"10.0.0.1","port":40000},"responder":{"address":"10.0.0.2","port":443},"verdict":"completed","interface":"eth1","isn_initiator":0,"isn_responder":2,"syn":1,"syn_ack":1,"ack":7,"syn_retransmits":0,"syn_ack_retransmits":0,"syn_to_syn_ack_ns":81920,"syn_ack_to_ack_ns":23040,"connect_ns":104960,"flags":[],"started":"2026-03-01T12:03:31.000000000Z","ended":"2026-03-01T12:03:31.000104960Z"}"#;
    assert_eq!(shown(&each).to_string(), expected);
}

#[test]
fn a_udp_flow_has_every_name() {
    let mut each = udp_record("[::1]:5000", "[::2]:53", State::UdpAnswered);
    if let Detail::Udp(udp) = &mut each.detail {
        (udp.packets, udp.bytes, udp.opened_ns) = ([2, 2], [120, 180], 1_000 * SECOND);
        udp.answer_after = ticks(310_016);
    }
    let expected = r#"{"type":"flow","protocol":"udp","initiator":{"address":"::1","port":5000},"responder":{"address":"::2","port":53},"verdict":"answered","interface":"eth0","packets":[2,2],"bytes":[120,180],"answer_ns":310016,"started":"2026-03-01T12:03:41.000000000Z"}"#;
    assert_eq!(shown(&each).to_string(), expected);
}

#[test]
fn an_unknown_field_of_a_flow_is_absent() {
    let waiting = shown(&udp_record("10.0.0.1:1", "10.0.0.2:53", State::UdpWaiting));
    assert_eq!((waiting["verdict"].as_str(), waiting.get("answer_ns")), (Some("unanswered"), None));

    let midstream = shown(&record("10.0.0.1:1", "10.0.0.2:2", State::Midstream));
    assert_eq!((midstream.get("isn_initiator"), midstream.get("cause")), (None, None));

    let mut each = record("10.0.0.2:1", "10.0.0.1:2", State::Established);
    let mut detail = tcp(&each);
    (detail.syn_ack_after, detail.latest_after, detail.syn) = (10, 30, 2);
    each.detail = Detail::Tcp(detail);
    each.flags &= !tag::SYN_ACK_TIMED;
    let repeated = shown(&each);
    assert_eq!(repeated["initiator"]["address"], "10.0.0.2", "the initiator may be the key's high end");
    assert_eq!((repeated.get("syn_to_syn_ack_ns"), &repeated["syn_ack_to_ack_ns"]), (None, &json!(20 * 64)));
    assert_eq!(repeated["syn_retransmits"], 1);

    (detail.syn, detail.syn_ack_retransmits) = (1, 1);
    each.detail = Detail::Tcp(detail);
    each.flags = each.flags & !tag::ACK_TIMED | tag::SYN_ACK_TIMED;
    assert_eq!(
        (shown(&each).get("syn_ack_to_ack_ns"), &shown(&each)["syn_to_syn_ack_ns"]),
        (None, &json!(640))
    );

    detail.syn_ack_retransmits = 0;
    each.detail = Detail::Tcp(detail);
    each.flags =
        each.flags & !(tag::SYN_ACK_TIMED | tag::ACK_TIMED) | tag::UNTIMED | tag::LATE | tag::FAST_OPEN;
    let untimed = shown(&each);
    for leg in ["syn_to_syn_ack_ns", "syn_ack_to_ack_ns", "connect_ns"] {
        assert_eq!(untimed.get(leg), None, "{leg}");
    }
    assert_eq!(untimed["flags"], json!(["late", "fast_open"]));
}

#[test]
fn a_flow_says_when_its_first_byte_came_or_that_it_is_silent() {
    let mut each = record("10.0.0.1:1", "10.0.0.2:2", State::Established);
    let detail = TcpRecord { opened_ns: 990 * SECOND, latest_after: 30, other_ack: 5, ..tcp(&each) };
    each.detail = Detail::Tcp(detail);
    each.flags |= tag::EARLY_ACK;
    let answered = shown(&each);
    assert_eq!((&answered["ack_to_first_byte_ns"], &answered["flags"]), (&json!(5 * 64), &json!([])));
    each.flags |= SILENT;
    let silent = shown(&each);
    assert_eq!((silent.get("ack_to_first_byte_ns"), &silent["flags"]), (None, &json!(["silent"])));
}

#[test]
fn an_ended_attempt_has_the_time_of_its_end() {
    let ended = |state, latest_ns| {
        let mut each = record("10.0.0.1:1", "10.0.0.2:2", state);
        let detail = tcp(&each);
        let (opened_ns, latest_after) = (990 * SECOND, ticks(latest_ns));
        each.detail = Detail::Tcp(TcpRecord { opened_ns, latest_after, ..detail });
        shown(&each).get("ended").map(ToString::to_string)
    };
    for state in State::ALL.into_iter().filter(|state| state.is_provisional() || state.is_completed()) {
        assert_eq!(ended(state, 128_000).as_deref(), Some("\"2026-03-01T12:03:31.000128000Z\""), "{state:?}");
    }
    assert_eq!(ended(State::SynSent, 128_000), None);
}

#[test]
fn isn_responder_is_present_once_it_was_seen_or_inferred() {
    let k = |state, flags, syn_ack_after| {
        let mut each = record("10.0.0.1:1", "10.0.0.2:2", state);
        each.flags |= flags;
        let detail = TcpRecord { isn_responder: 7, syn_ack_after, ..tcp(&each) };
        each.detail = Detail::Tcp(detail);
        shown(&each).get("isn_responder").and_then(Value::as_u64)
    };
    assert_eq!(k(State::SynSent, 0, 0), None);
    assert_eq!(k(State::Refused, 0, 0), None);
    assert_eq!(k(State::InitiatorAborted, 0, 9), Some(7));
    assert_eq!(k(State::OrphanSynAck, 0, 0), Some(7));
    assert_eq!(k(State::Established, tag::ONE_SIDED, 0), Some(7));
    assert_eq!(k(State::SynSent, tag::SIMULTANEOUS, 0), Some(7));
}

#[test]
fn a_verdict_of_an_open_attempt_has_its_cause() {
    let mut fake = Fake::new();
    let young = fake.open(0, State::SynReceived, SECOND);
    let young = fake.records[young];
    let live = take(&mut fake, capture());
    assert_eq!(flow(&View::of(&live), &Flow::of(young))["verdict"], "opening");
    fake.reading.stopped = true;
    let end = take(&mut fake, capture());
    let at_the_end = flow(&View::of(&end), &Flow::of(young));
    assert_eq!((&at_the_end["verdict"], &at_the_end["cause"]), (&json!("half_open"), &json!("no_ack")));

    let old = shown(&record("10.0.0.1:1", "10.0.0.2:2", State::SynSent));
    assert_eq!((&old["verdict"], &old["cause"]), (&json!("half_open_expired"), &json!("no_syn_ack")));

    for verdict in Verdict::ALL {
        let event = flow(&View::of(&end), &Flow::ended(young, verdict, end.now.ns - 5));
        let has_one = ["half_open", "half_open_expired", "superseded", "evicted"].contains(&verdict.name());
        assert_eq!(event.get("cause").is_some(), has_one, "{verdict:?}");
        assert_eq!(event["ended"], "2026-03-01T12:03:40.999999995Z");
    }
}

#[test]
fn the_interface_is_that_of_the_initiator_else_of_the_responder() {
    let named = |points: u8| {
        let mut each = record("10.0.0.1:1", "10.0.0.2:2", State::SynSent);
        each.detail = Detail::Tcp(TcpRecord { points, ..tcp(&each) });
        shown(&each).get("interface").and_then(Value::as_str).map(str::to_owned)
    };
    assert_eq!(named(point(1, false) << 4 | point(0, true)).as_deref(), Some("eth0"));
    assert_eq!(named(point(1, false) << 4 | NO_POINT).as_deref(), Some("eth1"));
    assert_eq!(named(NO_POINT << 4 | NO_POINT), None);
    assert_eq!(named(NO_POINT << 4 | point(5, false)), None);
}

/// Its name is the process' own choice, and not all of it need be text.
#[test]
fn an_end_of_a_known_process_has_an_owner_without_a_known_group() {
    let mut each = record("10.0.0.1:1", "10.0.0.2:2", State::SynSent);
    each.makers.ends[0] = maker(70_000, b"a \xff\"b");
    let shown = shown(&each);
    assert_eq!(shown["initiator"]["owner"], json!({"pid": 70_000, "comm": "a \u{fffd}\"b"}));
    assert_eq!(shown["responder"].get("owner"), None);
}

fn typical() -> Snapshot {
    let mut fake = Fake::new();
    fake.service(1, "10.0.0.2:80");
    fake.ended(1, Counter::Completed, 1);
    for (leg, ns) in Leg::ALL.into_iter().zip([80, 24, 104, 96]) {
        if leg == Leg::Connect { fake.connect(1, ns, 1) } else { fake.sample(leg, ns, 1) }
    }
    fake.service(FIRST_UDP_ROW, "0.0.0.0:0");
    fake.gauge(FIRST_UDP_ROW, Counter::UdpFlows, 1);
    fake.gauge(FIRST_UDP_ROW, Counter::UdpAnswered, 1);
    take(&mut fake, capture())
}

/// The JSON of a record's flow at the fake's moment, with two interfaces of a group each.
fn shown(each: &handshake_common::record::Record) -> Value {
    let groups = ["eth0", "eth1"].map(|name| Some(name.to_owned())).into();
    let snapshot = take(&mut Fake::new(), Origin::Live(LiveOrigin { groups, ..LiveOrigin::default() }));
    flow(&View::of(&snapshot), &Flow::of(*each))
}

fn capture() -> Origin {
    Origin::Capture(CaptureOrigin { path: "a.pcap".to_owned(), ..CaptureOrigin::default() })
}

fn take(fake: &mut Fake, origin: Origin) -> Snapshot {
    let context = RunContext {
        origin,
        began: BEGINNING,
        filter: handshake_agent::options::Filter::default(),
        top: 10,
        owners: documented::owners(),
    };
    Snapshot::take(fake, &Arc::new(context), None).expect("a fake never fails")
}
