//! Compares docs/json.md with the written JSON: each field has a row, each row a field, and units are those
//! of the metrics.

use std::collections::BTreeSet;
use std::sync::Arc;

use handshake_agent::fake::{Fake, SECOND, maker, record, tcp, udp_record};
use handshake_agent::model::flow::frames::FrameIndex;
use handshake_agent::model::flow::{Flow, Tunnels, View};
use handshake_agent::model::metric::{METRICS, Unit};
use handshake_agent::model::snapshot::{
    CaptureOrigin, EVICTIONS, FIRST_UDP_ROW, InterfaceHooks, Interval, LiveOrigin, Origin, Snapshot, TcpBooks,
};
use handshake_agent::nftables::{CountedRule, Deed};
use handshake_agent::owner::{Container, Owner, OwnerBook, Pod, PodName};
use handshake_agent::source::local::HostAddresses;
use handshake_agent::source::opens::KernelOpens;
use handshake_capture::{ClockSteps, OutOfOrder};
use handshake_common::abi::{Counter, tag};
use handshake_common::flow::Side;
use handshake_common::record::{Detail, State};
use handshake_common::verdict::{Cause, FlowFlag, Leg, Seat, Sign, UdpVerdict, Verdict};
use handshake_common::wire::build::FrameBuilder;
use handshake_common::wire::tunnel::innermost;
use handshake_common::wire::{Class, Link};
use handshake_join::Doubt;
use serde_json::{Value, json};

use super::super::{
    report, write_check, write_diff, write_flow, write_join, write_joined, write_report_with_flows,
    write_row, write_why,
};
use super::{capture, take};
use crate::check::saved_tests::comparison;
use crate::check::{Checked, Comparison, Ended, Expectation, Judged, JudgedWindow, NetAccount, Status};
use crate::event_file::BEGINNING;
use crate::report::diff;
use crate::testing::{self, JSON, code, section, table};
use crate::why::{Cohort, Conntrack, Evidence, Firewall, Queue, Risen, WhyReport, diagnose};
use handshake_export::events::{Event, EventKind};

/// The sources that write reports, flows, the fields of a check and comparisons.
const WRITERS: [&str; 4] = [
    include_str!("../../json.rs"),
    include_str!("../check.rs"),
    include_str!("../diff.rs"),
    include_str!("../join.rs"),
];
/// The section on the answer of `why`.
pub(super) const WHY: &str = "## The answer of why";
/// The sections on joined accounts: what they come to, and an attempt.
pub(super) const JOIN: [&str; 2] = ["## Two accounts joined", "## An attempt of two accounts"];
/// The percentiles over all attempts.
const RANKS: [&str; 6] = ["p50", "p90", "p95", "p99", "p999", "max"];

/// Collects the paths of all values: `a.b`, and `a[]` for the elements of an array. Elements that have a
/// section of their own are not followed.
fn paths(value: &Value, path: &str, all: &mut BTreeSet<String>) {
    match value {
        Value::Object(_) if path.ends_with("owner") => {
            all.insert(path.to_owned());
        }
        Value::Object(fields) => {
            for (name, field) in fields {
                let dot = if path.is_empty() { "" } else { "." };
                paths(field, &format!("{path}{dot}{name}"), all);
            }
        }
        Value::Array(elements) => {
            let inner = format!("{path}[]");
            if elements.is_empty() || ["flows[]", "services[]", "workloads[]"].contains(&inner.as_str()) {
                all.insert(inner);
            } else {
                elements.iter().for_each(|element| paths(element, &inner, all));
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            all.insert(path.to_owned());
        }
    }
}

fn all_paths(values: &[Value]) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    values.iter().for_each(|value| paths(value, "", &mut all));
    all
}

/// The fields of a section with their units, what they are, and where they are absent. A name in capitals
/// stands for several.
pub(super) fn documented(heading: &str) -> Vec<(String, String, String, String)> {
    let rows = table(section(JSON, heading), "field ");
    let mut all = Vec::new();
    for row in &rows {
        let field = code(&row[0])[0];
        let stands_for: Vec<String> = if field.contains("LEG") {
            Leg::ALL.map(|leg| field.replace("LEG", leg.name())).into()
        } else if field.contains("RANK") {
            RANKS.map(|rank| field.replace("RANK", rank)).into()
        } else if field.contains("KIND") {
            EVICTIONS.map(|(kind, _)| field.replace("KIND", kind)).into()
        } else if field.contains("SIDE") {
            ["first", "second"].map(|side| field.replace("SIDE", side)).into()
        } else if field.contains("WAY") {
            ["one_way.syn", "one_way.syn_ack", "round_trip"].map(|way| field.replace("WAY", way)).into()
        } else {
            vec![field.to_owned()]
        };
        let [unit, help, absent] = [1, 2, 3].map(|cell| row[cell].clone());
        all.extend(stands_for.into_iter().map(|field| (field, unit.clone(), help.clone(), absent.clone())));
    }
    all
}

fn fields(heading: &str) -> BTreeSet<String> {
    documented(heading).into_iter().map(|(field, ..)| field).collect()
}

/// Each written path has a row, or is below a row such as `interval.tcp.*` and has one under `tcp.`. Each row
/// has a path.
fn assert_same(written: &BTreeSet<String>, rows: &BTreeSet<String>) {
    for path in written {
        let is_below = |row: &String| {
            let Some(whole) = row.strip_suffix(".*") else { return false };
            let own = whole.rsplit('.').next().unwrap_or_default();
            path.strip_prefix(whole).is_some_and(|rest| rows.contains(&format!("{own}{rest}")))
        };
        assert!(rows.contains(path) || rows.iter().any(is_below), "{path} has no row in docs/json.md");
    }
    for row in rows {
        let there = match row.strip_suffix('*') {
            Some(whole) => written.iter().any(|path| path.starts_with(whole)),
            None => written.contains(row),
        };
        assert!(there, "docs/json.md has {row}, which is never written");
    }
}

/// Two snapshots with two services, a sample of each leg, and an interface with every field.
fn full() -> (Snapshot, Snapshot) {
    let mut fake = Fake::new();
    fake.host = Arc::new(HostAddresses::of(["10.0.0.2".parse().expect("an address")]));
    fake.service(0, "0.0.0.0:0");
    fake.service(1, "10.0.0.2:80");
    fake.service(FIRST_UDP_ROW + 1, "10.0.0.2:53");
    fake.ended(0, Counter::Completed, 1);
    let origin = Origin::Live(LiveOrigin {
        interfaces: vec![InterfaceHooks {
            name: "eth0".to_owned(),
            ingress: Some("xdp-generic".to_owned()),
            egress: Some("tcx".to_owned()),
            merged: true,
            before: vec!["cil_from_netdev".to_owned()],
        }],
        groups: vec![Some("eth0".to_owned())],
        gone: 0,
    });
    fake.workload(CLIENT, Side::Initiator, &[(Counter::Completed, 1)]);
    let before = take(&mut fake, origin.clone());
    fake.later(SECOND);
    fake.ended(1, Counter::Completed, 1);
    fake.gauge(FIRST_UDP_ROW + 1, Counter::UdpFlows, 1);
    fake.gauge(FIRST_UDP_ROW + 1, Counter::UdpAnswered, 1);
    fake.reading.lost_before_hook = 1;
    fake.reading.opens = Some(KernelOpens::default());
    Leg::ALL.into_iter().for_each(|leg| fake.sample(leg, 1_000, 1));
    fake.connect(1, 1_000, 1);
    (before, take(&mut fake, origin))
}

/// A control group whose owner has every field.
const CLIENT: u64 = 7;

pub(super) fn owners() -> OwnerBook {
    let name = PodName { namespace: "shop".to_owned(), name: "web-1".to_owned() };
    let owner = Owner {
        cgroup: "/kubepods.slice/web".to_owned(),
        unit: Some("web.service".to_owned()),
        container: Some(Container { id: "0123456789abcdef".to_owned(), runtime: None, name: None }),
        pod: Some(Pod { uid: "11112222-3333".to_owned(), name: Some(name) }),
    };
    OwnerBook::fixed([(CLIENT, owner)])
}

fn written(write: impl FnOnce(&mut Vec<u8>) -> std::io::Result<()>) -> Value {
    let mut out = Vec::new();
    write(&mut out).expect("memory has room");
    serde_json::from_slice(&out).expect("it is JSON")
}

/// Reports that have every field between them.
pub(super) fn report_samples() -> Vec<Value> {
    let (before, now) = full();
    let live = report(&now, Some(&Interval::between(&before, &now)));
    let mut stuck = Fake::new();
    stuck.service(1, "10.0.0.2:80");
    stuck.open(1, State::SynSent, 4 * SECOND);
    let of_capture = take(&mut stuck, capture());
    let capture = written(|out| write_report_with_flows(out, &of_capture, &View::of(&of_capture), &[]));
    let of_poor_capture = report(&take(&mut Fake::new(), poor_capture()), None);
    vec![live, capture, of_poor_capture]
}

#[test]
fn each_field_of_a_report_has_a_row() {
    let samples = report_samples();
    assert_same(&all_paths(&samples), &fields("## A report"));

    let services = samples.iter().filter_map(|sample| sample["services"].as_array()).flatten();
    assert_same(&all_paths(&services.cloned().collect::<Vec<_>>()), &fields("## A service"));

    let workloads: Vec<Value> =
        samples.iter().filter_map(|sample| sample["workloads"].as_array()).flatten().cloned().collect();
    let of_services = fields("## A service");
    let own: BTreeSet<String> = all_paths(&workloads).difference(&of_services).cloned().collect();
    assert_same(&own, &fields("## A workload"));
    let of_group = all_paths(&[workloads[0]["owner"].clone()]);
    let of_end = all_paths(&[flow_samples()[0]["initiator"]["owner"].clone()]);
    assert_same(&of_end, &fields("## An owner"));
    let of_process: Vec<_> = of_end.difference(&of_group).collect();
    assert_eq!(of_process, ["comm", "pid"], "a workload has no process");
}

/// A capture that lacks everything that a capture can lack.
fn poor_capture() -> Origin {
    let mut capture = CaptureOrigin { cut_headers: 3, ..CaptureOrigin::default() };
    capture.files = ["a.pcap", "b.pcap"].map(str::to_owned).to_vec();
    let condition = &mut capture.condition;
    (condition.damaged, condition.truncated) = (true, true);
    (condition.dropped, condition.untimed) = (Some(9_000), 4);
    condition.skipped = [(9, 3), (105, 4)].into();
    capture.not_ip = [(Some(0x8909), 57), (None, 2)].into();
    let condition = &mut capture.condition;
    condition.out_of_order = Some(OutOfOrder { packets: 2, first: 17 });
    condition.clock = ClockSteps { steps_back: 7, largest_ns: 1_500 };
    Origin::Capture(capture)
}

#[test]
fn a_capture_says_what_it_lacks() {
    let report = report(&take(&mut Fake::new(), poor_capture()), None);
    let source = json!({
        "kind": "capture", "path": "", "files": ["a.pcap", "b.pcap"], "damaged": true, "truncated": true, "dropped": 9_000,
        "skipped": [{"link_type": 9, "packets": 3}, {"link_type": 105, "packets": 4}],
        "cut_headers": 3, "untimed": 4, "not_ip": [{"ethertype": 0x8909, "packets": 57}], "out_of_order": {"packets": 2, "first": 17},
        "clock": {"steps_back": 7, "largest_ns": 1_500},
    });
    assert_eq!((&report["source"], &report["exact"]), (&source, &json!(false)));
    let reasons = report["inexact"].as_array().expect("an array").iter();
    let reasons: Vec<_> = reasons.map(|each| (each["reason"].as_str(), each["count"].as_u64())).collect();
    let expected = [
        ("capture_damaged", 1),
        ("capture_truncated", 1),
        ("capture_dropped", 9_000),
        ("skipped_link_type", 7),
        ("cut_headers", 3),
    ];
    assert_eq!(reasons, expected.map(|(reason, count)| (Some(reason), Some(count))));
}

#[test]
fn each_reason_for_an_inexact_report_has_a_row() {
    let rows = table(section(JSON, "### What makes a report inexact"), "reason ");
    let rows: Vec<&str> = rows.iter().map(|row| code(&row[0])[0]).collect();
    let mut named = BTreeSet::new();
    for origin in [Origin::Live(LiveOrigin::default()), poor_capture()] {
        let reasons = take(&mut Fake::new(), origin).possible_losses().into_iter().map(|loss| loss.reason);
        let reasons: Vec<&str> = reasons.collect();
        let in_order: Vec<&str> = rows.iter().copied().filter(|row| reasons.contains(row)).collect();
        assert_eq!(in_order, reasons);
        named.extend(reasons);
    }
    assert_eq!(rows.len(), named.len(), "{rows:?}");
}

#[test]
fn each_metric_has_a_row_with_its_unit() {
    let rows = documented("## A report");
    for metric in METRICS.iter() {
        let row = rows.iter().find(|(field, ..)| *field == metric.name);
        let (_, unit, ..) = row.unwrap_or_else(|| panic!("{} has no row in docs/json.md", metric.name));
        assert_eq!(unit, unit_name(metric.unit), "{}", metric.name);
    }
}

const fn unit_name(unit: Unit) -> &'static str {
    match unit {
        Unit::Attempts => "attempts",
        Unit::Flows => "flows",
        Unit::Packets => "packets",
        Unit::Bytes => "bytes",
        Unit::Nanoseconds => "ns",
        Unit::Records => "records",
        Unit::Services => "services",
        Unit::Events => "events",
    }
}

/// Flows that have every field between them.
pub(super) fn flow_samples() -> Vec<Value> {
    let mut completed = record("10.0.0.1:40000", "10.0.0.2:443", State::Established);
    let mut detail = tcp(&completed);
    (detail.syn_ack_after, detail.latest_after, detail.other_ack) = (10, 30, 5);
    completed.detail = Detail::Tcp(detail);
    completed.flags |= tag::EARLY_ACK;
    completed.control_groups.ids = [CLIENT; 2];
    completed.makers.ends = [maker(1_873, b"nginx"); 2];
    let mut answered = udp_record("10.0.0.1:5000", "10.0.0.2:53", State::UdpAnswered);
    if let Detail::Udp(udp) = &mut answered.detail {
        udp.answer_after = 10;
    }
    let mut unreachable = udp_record("10.0.0.1:5000", "10.0.0.2:54", State::UdpUnreachable);
    if let Detail::Udp(udp) = &mut unreachable.detail {
        udp.answer_after = 0xcb00_7109;
    }
    let mut open = record("10.0.0.1:40001", "10.0.0.2:443", State::SynReceived);
    open.flags |= tag::SECOND_K;
    let tunnel = udp_record("10.0.0.1:5000", "10.0.0.2:4789", State::UdpWaiting);
    let frame = FrameBuilder::new(Link::Ip).ipv4(1, 2).ipv4(0x0a00_0001, 0x0a00_0002).tcp(2, 1, 0);
    let frame = frame.between(40_001, 443);
    let mut tunnels = Tunnels::default();
    tunnels.note(&innermost(frame.frame(), Link::Ip).expect("IP in IP"));
    let (_, snapshot) = full();
    let view = View::of(&snapshot).comparing(true).entering(Some(&tunnels));
    let flow = |each| written(|out| write_flow(out, &view, &Flow::of(each)));
    let live = [completed, answered, unreachable, open, tunnel].map(flow);
    let event = Event { kind: EventKind::Ended, flow: Flow::of(completed), at_ns: 0 };
    let row = written(|out| write_row(out, &view, &event, "node"));
    assert!(row.to_string().as_bytes().starts_with(BEGINNING), "the file of events knows its rows");
    let live = [&live[..], &[row]].concat();

    let mut index = FrameIndex::default();
    let refused = record("10.0.0.1:40002", "10.0.0.2:443", State::Refused);
    for class in [Class::Syn, Class::SynAck, Class::Ack] {
        [completed, refused].iter().for_each(|record| index.note(record, class as u8, 0, 7));
    }
    let captured = take(&mut Fake::new(), poor_capture());
    let view = View::of(&captured).with_frames(Some(&index));
    let placed = [completed, refused].map(|each| written(|out| write_flow(out, &view, &Flow::of(each))));
    [&live[..], &placed[..]].concat()
}

#[test]
fn each_field_of_a_flow_has_a_row() {
    assert_same(&all_paths(&flow_samples()), &fields("## A flow"));
}

/// Reports of checks that have every field between them.
pub(super) fn check_samples() -> Vec<Value> {
    let (started, _) = full();
    let mut stuck = Fake::new();
    (0..3).for_each(|_| {
        stuck.open(0, State::SynSent, 4 * SECOND);
    });
    stuck.ended(0, Counter::Refused, 1);
    stuck.sample(Leg::SynToSynAck, 1_000, 1);
    let settled = take(&mut stuck, Origin::Live(LiveOrigin::default()));
    let window = JudgedWindow { started, ended: settled.clone(), settled };
    let expectations = [
        "completed == 1",
        "refused / superseded > 1",
        "refused / attempts > refused / superseded",
        "p50(connect) < 1s",
        "max(connect) < 1s",
        "p50(syn_to_syn_ack) / p50(connect) < 1",
    ];
    let expectations = expectations.map(|text| Expectation::of_run(text).expect(text));
    let judged = expectations.iter().map(|each| Judged::by(&window, each)).collect();
    let account = Some(NetAccount {
        counts: Default::default(),
        within: Default::default(),
        completed: Some(1),
        attempts: 1,
    });
    let mut checked = Checked { window, judged, command: None, account, code: 1 };
    let ends = [Status::Exited(0), Status::Killed(9)].map(|status| {
        checked.command = Some(Ended {
            words: vec!["true".to_owned()],
            status: Some(status),
            stopped: false,
            stripped: false,
            ignored: false,
        });
        written(|out| write_check(out, &checked.window.settled, &checked, None))
    });
    ends.into()
}

#[test]
fn each_field_of_a_check_has_a_row() {
    let added = ["expectations", "command", "kernel"];
    let all = all_paths(&check_samples());
    let of_check = all.into_iter().filter(|path| added.iter().any(|name| path.starts_with(name)));
    assert_same(&of_check.collect(), &fields("## What check adds"));
}

/// Comparisons that have every field between them.
pub(super) fn diff_samples() -> Vec<Value> {
    let comparison = comparison();
    let changes = diff::changes(&comparison);
    let mut whole = vec![written(|out| write_diff(out, &comparison, &changes, &[]))];
    let swapped = Comparison { old: comparison.new, new: comparison.old };
    whole.push(written(|out| write_diff(out, &swapped, &diff::changes(&swapped), &[])));
    whole
}

#[test]
fn each_field_of_a_comparison_has_a_row() {
    assert_same(&all_paths(&diff_samples()), &fields("## A comparison"));
}

/// Answers that have every field between them.
pub(super) fn why_samples() -> Vec<Value> {
    let mut fake = Fake::new();
    fake.reading.lost_before_hook = 1;
    let snapshot = take(&mut fake, Origin::Live(LiveOrigin::default()));
    let books = TcpBooks::of(30, &[(Verdict::HalfOpen, [26, 0])]);
    let (process, owner) = (Some("nginx[7]".to_owned()), owners().of(CLIENT));
    let queue = Queue { process, owner: owner.clone(), waiting: 9, backlog: 128, was_full: false };
    let evidence = Evidence {
        service: Some("10.0.0.2:443".parse().expect("an address")),
        cohort: Cohort::between(&books, &books),
        silent: 0,
        seat: Seat::Responder,
        queue: Some(Some(queue)),
        beginner: owner,
        counters: Default::default(),
        firewall: Firewall {
            risen: vec![Risen { rule: CountedRule::of(Some(7), Deed::Drop, 40, None), packets: 30 }],
            conntrack: Some(Conntrack::default()),
        },
        lost: None,
        sees_forwarding: true,
        completed: 4,
        looked_ns: SECOND,
        quiet: None,
        exact: false,
    };
    let firewall = Firewall {
        risen: vec![Risen { rule: CountedRule::of(None, Deed::Drop, 40, None), packets: 30 }],
        conntrack: None,
    };
    let of_policy = Evidence { firewall, ..evidence.clone() };
    let unknown = Evidence { service: None, cohort: Cohort::default(), queue: None, ..of_policy.clone() };
    let answered = [evidence, of_policy, unknown].map(|evidence| {
        let report = WhyReport {
            subject: None,
            interfaces: "eth0".to_owned(),
            answer: &diagnose(&evidence),
            evidence: &evidence,
        };
        written(|out| write_why(out, &report, &snapshot))
    });
    answered.into()
}

#[test]
fn each_field_of_an_answer_has_a_row() {
    let all = all_paths(&why_samples());
    let (of_report, own): (BTreeSet<_>, _) = all.into_iter().partition(|path| path.starts_with("inexact[]"));
    assert!(!of_report.is_empty() && of_report.is_subset(&fields("## A report")), "{of_report:?}");
    let mut rows = fields(WHY);
    assert!(rows.remove("inexact[]"), "{rows:?}");
    assert_same(&own, &rows);
}

/// Joined accounts that have every field between them, and their attempts.
pub(super) fn join_samples() -> [Vec<Value>; 2] {
    let [swift, slow] = [testing::joined(0), testing::joined(7_200_000_000_000)];
    let sums = [&swift, &slow].map(|joined| written(|out| write_join(out, joined)));
    let rows = swift.rows.iter().map(|row| written(|out| write_joined(out, &swift, row)));
    [sums.into(), rows.collect()]
}

#[test]
fn each_field_of_joined_accounts_has_a_row() {
    for (samples, heading) in join_samples().iter().zip(JOIN) {
        assert_same(&all_paths(samples), &fields(heading));
    }
}

/// Finds fields and values that the samples above lack: each name in the writers' sources must be documented.
#[test]
fn each_name_in_the_writers_is_documented() {
    let known: BTreeSet<&str> =
        code(JSON).into_iter().flat_map(|span| span.split(['.', '[', ']', ':', '"', ' '])).collect();
    let mut names = BTreeSet::new();
    for source in WRITERS {
        let source = source.split("#[cfg(test)]").next().unwrap_or_default();
        let is_name = |text: &&str| {
            !text.is_empty() && text.chars().all(|c| c.is_ascii_lowercase() || c == '_' || c.is_ascii_digit())
        };
        names.extend(source.lines().flat_map(|line| line.split('"').skip(1).step_by(2)).filter(is_name));
    }
    assert!(names.contains("isn_initiator") && names.contains("expectations"), "{names:?}");
    names.extend(Verdict::ALL.map(Verdict::name));
    names.extend(UdpVerdict::ALL.map(UdpVerdict::name));
    names.extend(Cause::ALL.map(Cause::name));
    names.extend(Sign::ALL.map(Sign::name));
    names.extend(FlowFlag::ALL.map(FlowFlag::name));
    names.extend(Leg::ALL.map(Leg::name));
    names.extend(EVICTIONS.map(|(kind, _)| kind));
    names.extend(Doubt::ALL.map(Doubt::name));
    let missing: Vec<&&str> = names.iter().filter(|name| !known.contains(**name)).collect();
    assert!(missing.is_empty(), "not in docs/json.md: {missing:?}");
}
