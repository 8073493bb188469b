//! Rows of single attempts as OTLP has events: a name and attributes, and no body. Client and server are the
//! initiator and the responder. No convention says whose an end is: the names of what it is, such as
//! `container.id`, stand behind that of the end, in the namespace of handshake.

use handshake_agent::model::flow::Standing;
use handshake_agent::owner::Owner;
use handshake_common::flow::{Family, Side};
use handshake_common::verdict::{Cause, FlowFlag, Seat, Verdict};

use super::messages::{INFO, KeyValue, LogRecord, LogsRequest, ResourceLogs, ScopeLogs, WARN};
use super::origin::Origin;
use crate::rows::Row;

/// The name of the events.
const NAME: &str = "handshake.attempt";

/// Rows as a message.
pub(super) fn request(rows: &[Row], origin: &Origin, now_ns: u64) -> LogsRequest {
    let records = rows.iter().map(|row| record(row, now_ns)).collect();
    let scope_logs = vec![ScopeLogs { scope: Some(origin.scope.clone()), records }];
    let resource = Some(origin.resource.clone());
    LogsRequest { resource_logs: vec![ResourceLogs { resource, scope_logs }] }
}

fn record(row: &Row, now_ns: u64) -> LogRecord {
    let (event, view) = (&row.event, row.view());
    let is_good = event.flow.standing(&view.moment) == Standing::Tcp(Verdict::Completed);
    let (severity, text) = if is_good { (INFO, "INFO") } else { (WARN, "WARN") };
    LogRecord {
        time_ns: view.wall(event.at_ns),
        severity,
        severity_text: text.to_owned(),
        attributes: attributes(row),
        observed_ns: now_ns,
        event_name: NAME.to_owned(),
    }
}

fn attributes(row: &Row) -> Vec<KeyValue> {
    let (flow, view) = (&row.event.flow, row.view());
    let standing = flow.standing(&view.moment);
    let [client, server] = [Side::Initiator, Side::Responder].map(|side| flow.end(side));
    let kind = match flow.record.family {
        Family::V4 => "ipv4",
        Family::V6 => "ipv6",
    };
    let mut all = vec![
        KeyValue::text("network.transport", standing.protocol()),
        KeyValue::text("network.type", kind),
        KeyValue::text("client.address", client.ip().to_string()),
        KeyValue::number("client.port", client.port().into()),
        KeyValue::text("server.address", server.ip().to_string()),
        KeyValue::number("server.port", server.port().into()),
        KeyValue::text("handshake.event", row.event.kind.name()),
        KeyValue::text("handshake.verdict", standing.name()),
        KeyValue::number("handshake.started_ns", view.wall(flow.opened_ns())),
        KeyValue::number("handshake.syn_retransmits", flow.syn_retransmits().into()),
    ];
    let seat = view.seat(flow);
    let texts = [
        ("network.interface.name", view.interface(flow).map(str::to_owned)),
        ("handshake.cause", flow.cause(standing).map(|cause| Cause::name(cause).to_owned())),
        ("handshake.seat", (seat != Seat::Between).then(|| seat.name().to_owned())),
        ("handshake.unreachable_from", flow.unreachable_from().map(|from| from.to_string())),
    ];
    all.extend(texts.into_iter().filter_map(|(key, value)| Some(KeyValue::text(key, value?))));
    for (end, side) in [("client", Side::Initiator), ("server", Side::Responder)] {
        all.extend(view.owner(flow, side).into_iter().flat_map(|one| owner(end, &one)));
    }
    let numbers = [
        ("handshake.syn_ack_retransmits", flow.tcp().map(|tcp| tcp.syn_ack_retransmits.into())),
        ("handshake.isn_initiator", flow.isn_initiator().map(u64::from)),
        ("handshake.isn_responder", flow.isn_responder().map(u64::from)),
        ("handshake.syn_to_syn_ack_ns", flow.syn_to_syn_ack_ns()),
        ("handshake.syn_ack_to_ack_ns", flow.syn_ack_to_ack_ns()),
        ("handshake.connect_ns", flow.connect_ns()),
        ("handshake.ack_to_first_byte_ns", flow.ack_to_first_byte_ns()),
    ];
    all.extend(numbers.into_iter().filter_map(|(key, value)| Some(KeyValue::number(key, value?))));
    let flags: Vec<&str> = flow.flags(&view.moment).map(FlowFlag::name).collect();
    all.extend((!flags.is_empty()).then(|| KeyValue::texts("handshake.flags", &flags)));
    all
}

/// Whose an end is. A control group is written as in `/proc/PID/cgroup`.
fn owner<'a>(end: &'a str, owner: &Owner) -> impl Iterator<Item = KeyValue> + use<'a> {
    let (container, pod) = (owner.container.as_ref(), owner.pod.as_ref());
    let name = pod.and_then(|pod| pod.name.as_ref());
    let texts = [
        ("process.linux.cgroup", Some(format!("0::{}", owner.cgroup))),
        ("systemd.unit", owner.unit.clone()),
        ("container.id", container.map(|container| container.id.clone())),
        ("container.name", container.and_then(|container| container.name.clone())),
        ("k8s.pod.uid", pod.map(|pod| pod.uid.clone())),
        ("k8s.pod.name", name.map(|name| name.name.clone())),
        ("k8s.namespace.name", name.map(|name| name.namespace.clone())),
    ];
    let known = texts.into_iter().filter_map(|(key, value)| Some((key, value?)));
    known.map(move |(key, value)| KeyValue::text(&format!("handshake.{end}.{key}"), value))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use handshake_agent::fake::{record, snapshot, tcp};
    use handshake_agent::model::flow::{Flow, View};
    use handshake_agent::model::snapshot::{RunContext, Snapshot};
    use handshake_agent::owner::{Container, Owner, OwnerBook, Pod, PodName};
    use handshake_common::abi::{ControlGroups, TcpRecord, tag};
    use handshake_common::record::{Detail, Record, State};
    use handshake_common::verdict::Verdict;
    use prost::Message as _;

    use super::request;
    use crate::events::{Event, EventKind};
    use crate::otlp::messages::{KeyValue, LogRecord, LogsRequest};
    use crate::otlp::origin::Origin;
    use crate::rows::Row;

    /// The record of an attempt that ended 2 ms after it began, 5 s before the snapshot.
    fn ended(client: &str, server: &str, state: State, verdict: Verdict) -> LogRecord {
        ended_of(&snapshot(), [0; 2], (client, server, state, verdict))
    }

    /// The same of these control groups.
    fn ended_of(snapshot: &Snapshot, groups: [u64; 2], attempt: (&str, &str, State, Verdict)) -> LogRecord {
        let (client, server, state, verdict) = attempt;
        let opened_ns = snapshot.now.ns - 5_000_000_000;
        let record = record(client, server, state);
        let detail = Detail::Tcp(TcpRecord { opened_ns, ..tcp(&record) });
        let control_groups = ControlGroups { ids: groups };
        let record = Record { detail, flags: record.flags | tag::REVISED, control_groups, ..record };
        let flow = Flow::ended(record, verdict, opened_ns + 2_000_000);
        let event = Event { kind: EventKind::Ended, flow, at_ns: opened_ns + 2_000_000 };
        let rows = [Row::of(event, &View::of(snapshot))];
        let request = request(&rows, &Origin::new("node-1", &[]), 9);
        let read = LogsRequest::decode(&*request.encode_to_vec()).expect("it is a message");
        assert_eq!((read.resource_logs.len(), &read), (1, &request));
        let mut logs = read.resource_logs[0].scope_logs[0].records.clone();
        let log = logs.pop().expect("a record");
        assert_eq!(log.time_ns, snapshot.taken_at_ns - 5_000_000_000 + 2_000_000);
        assert_eq!((log.observed_ns, log.event_name.as_str(), logs.len()), (9, "handshake.attempt", 0));
        log
    }

    fn shown(log: &LogRecord) -> Vec<String> {
        let show = |KeyValue { key, value }: &KeyValue| {
            let value = value.clone().unwrap_or_default();
            let several = value.several.map(|several| several.values);
            let several = several.into_iter().flatten().filter_map(|each| each.text).collect::<Vec<_>>();
            let number = value.number.map(|number| number.to_string());
            format!("{key}={}", value.text.or(number).unwrap_or_else(|| several.join(",")))
        };
        log.attributes.iter().map(show).filter(|each| !each.starts_with("handshake.started_ns=")).collect()
    }

    #[test]
    fn a_record_says_who_and_what_by_the_conventions() {
        let log = ended("10.0.0.1:40000", "10.0.0.2:443", State::Refused, Verdict::Refused);
        assert_eq!((log.severity, log.severity_text.as_str()), (13, "WARN"));
        let expected = [
            "network.transport=tcp",
            "network.type=ipv4",
            "client.address=10.0.0.1",
            "client.port=40000",
            "server.address=10.0.0.2",
            "server.port=443",
            "handshake.event=ended",
            "handshake.verdict=refused",
        ];
        assert_eq!(shown(&log)[..expected.len()], expected);
        assert!(shown(&log).contains(&"handshake.flags=revised".to_owned()), "{:?}", shown(&log));
        let log = ended("[::1]:40000", "[::2]:443", State::Established, Verdict::Completed);
        assert_eq!((log.severity, log.severity_text.as_str()), (9, "INFO"));
        let shown = shown(&log);
        for expected in ["network.type=ipv6", "client.address=::1", "handshake.verdict=completed"] {
            assert!(shown.contains(&expected.to_owned()), "{expected} in {shown:?}");
        }
    }

    #[test]
    fn what_is_not_known_is_not_there() {
        let log = ended("10.0.0.1:1", "10.0.0.2:443", State::SynReceived, Verdict::HalfOpenExpired);
        let shown = shown(&log);
        let has = |key: &str| shown.iter().any(|each| each.starts_with(&format!("handshake.{key}=")));
        assert!(has("cause") && has("isn_initiator"), "{shown:?}");
        assert!(!has("connect_ns") && !has("syn_ack_to_ack_ns") && !has("unreachable_from"), "{shown:?}");
    }

    /// The server's owner is known by its group alone, and that of the client in full.
    #[test]
    fn the_owner_of_each_end_is_named() {
        let of_group =
            |cgroup: &str| Owner { cgroup: cgroup.to_owned(), unit: None, container: None, pod: None };
        let client = Owner {
            unit: Some("nginx.service".to_owned()),
            container: Some(Container { id: "0123".repeat(16), runtime: None, name: Some("web".to_owned()) }),
            pod: Some(Pod {
                uid: "u-1".to_owned(),
                name: Some(PodName { name: "web-1".to_owned(), namespace: "shop".to_owned() }),
            }),
            ..of_group("/system.slice/nginx.service")
        };
        let mut snapshot = snapshot();
        let owners = OwnerBook::fixed([(7, client), (8, of_group("/x"))]);
        snapshot.context = Arc::new(RunContext { owners, ..RunContext::clone(&snapshot.context) });
        let attempt = ("10.0.0.1:40000", "10.0.0.2:443", State::Refused, Verdict::Refused);
        let log = ended_of(&snapshot, [7, 8], attempt);
        let mut named = shown(&log);
        named.retain(|each| each.starts_with("handshake.client.") || each.starts_with("handshake.server."));
        let id = format!("handshake.client.container.id={}", "0123".repeat(16));
        let expected = [
            "handshake.client.process.linux.cgroup=0::/system.slice/nginx.service",
            "handshake.client.systemd.unit=nginx.service",
            &id,
            "handshake.client.container.name=web",
            "handshake.client.k8s.pod.uid=u-1",
            "handshake.client.k8s.pod.name=web-1",
            "handshake.client.k8s.namespace.name=shop",
            "handshake.server.process.linux.cgroup=0::/x",
        ];
        assert_eq!(named, expected);
        let log = ended_of(&snapshot, [0, 9], attempt);
        assert!(!shown(&log).iter().any(|each| each.contains("cgroup")), "it is not known");
    }
}
