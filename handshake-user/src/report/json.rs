//! Reports and flows as JSON, schema 1. Names and order of the figures are those of
//! [`metric`](handshake_agent::model::metric).

mod check;
mod diff;
mod join;

use std::io::{self, Write};
use std::net::SocketAddr;

use handshake_agent::model::flow::frames::FlowFrames;
use handshake_agent::model::flow::{Around, Flow, Standing, View};
use handshake_agent::model::metric::{LATENCY, METRICS, Metric, PACKETS, SERVICE_TIMES};
use handshake_agent::model::snapshot::{
    CaptureOrigin, InterfaceHooks, Interval, Latency, Loss, Origin, ServiceBooks, ServiceFigures, Snapshot,
    TcpBooks, UdpBooks, WorkloadFigures,
};
use handshake_agent::owner::{Container, Owner};
use handshake_agent::processes::Process;
use handshake_common::abi::{TcpRecord, UdpRecord};
use handshake_common::flow::Side;
use handshake_common::record::Detail;
use handshake_common::verdict::{Cause, FlowFlag, Leg, Seat, Sign, UdpVerdict, Verdict};
use handshake_common::wire::tunnel::Tunnel;
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::time::rfc3339;
use crate::why::{Conntrack, Risen, WhyReport};
use handshake_export::events::{Event, Unlisted};

pub(crate) use check::write_check;
pub(crate) use diff::write_diff;
pub(crate) use join::{write_join, write_joined};

/// The schema's version. It increases when the meaning of a name changes or a name is removed, not for a new
/// name.
const SCHEMA: u32 = 1;

/// Writes one report on a line of its own.
///
/// # Errors
///
/// Those of the writer.
pub(crate) fn write_report(
    out: &mut dyn Write,
    snapshot: &Snapshot,
    interval: Option<&Interval<'_>>,
) -> io::Result<()> {
    line(out, &report(snapshot, interval))
}

/// Writes one report that ends with the array `flows`. Flows are written one by one, because a table may hold
/// millions.
///
/// # Errors
///
/// Those of the writer.
pub(crate) fn write_report_with_flows(
    out: &mut dyn Write,
    snapshot: &Snapshot,
    view: &View<'_>,
    flows: &[Flow],
) -> io::Result<()> {
    with_flows(out, &report(snapshot, None), view, flows)
}

/// Writes an object on a line of its own, which ends with the array `flows`.
fn with_flows(out: &mut dyn Write, object: &Value, view: &View<'_>, flows: &[Flow]) -> io::Result<()> {
    let object = object.to_string();
    let open = object.strip_suffix('}').unwrap_or(&object);
    write!(out, "{open},\"flows\":[")?;
    for (at, each) in flows.iter().enumerate() {
        let comma = if at == 0 { "" } else { "," };
        write!(out, "{comma}{}", flow(view, each))?;
    }
    writeln!(out, "]}}")
}

/// Writes the answer of `why` on a line of its own.
///
/// # Errors
///
/// Those of the writer.
pub(crate) fn write_why(out: &mut dyn Write, report: &WhyReport<'_>, snapshot: &Snapshot) -> io::Result<()> {
    let WhyReport { evidence, answer, .. } = report;
    let cohort = &evidence.cohort;
    let mut object = Map::new();
    object.insert("type".to_owned(), json!("why"));
    object.insert("schema".to_owned(), json!(SCHEMA));
    object.insert("outcome".to_owned(), json!(answer.outcome.name()));
    put_known(&mut object, "service", evidence.service.map(end));
    let queue = evidence.queue.iter().flatten().find(|_| evidence.service.is_some());
    put_known(&mut object, "process", queue.and_then(|queue| queue.process.as_ref()));
    let listens = queue.and_then(|queue| queue.owner.as_deref());
    put_known(&mut object, "process_owner", listens.map(owner));
    put_known(&mut object, "initiator_owner", evidence.beginner.as_deref().map(owner));
    object.insert("seat".to_owned(), json!(evidence.seat.name()));
    object.insert("attempts".to_owned(), json!(cohort.attempts));
    object.insert("completed".to_owned(), json!(cohort.completed));
    put_known(&mut object, "cause", cohort.stuck().map(|(cause, _)| cause.name()));
    object.insert("headline".to_owned(), json!(answer.headline));
    object.insert("because".to_owned(), json!(answer.because));
    object.insert("not".to_owned(), json!(answer.not));
    put_known(&mut object, "owner", answer.owner.as_ref());
    object.insert("next".to_owned(), json!(answer.next));
    let rules: Vec<Value> = answer.rules.iter().map(risen).collect();
    put_known(&mut object, "rules", (!rules.is_empty()).then_some(rules));
    put_known(&mut object, "conntrack", evidence.firewall.conntrack.map(conntrack));
    object.insert("looked_ns".to_owned(), json!(evidence.looked_ns));
    object.insert("exact".to_owned(), json!(snapshot.is_exact()));
    object.insert("inexact".to_owned(), inexact(snapshot));
    line(out, &Value::Object(object))
}

fn risen(risen: &Risen) -> Value {
    let Risen { rule, packets } = risen;
    let mut object = Map::new();
    object.insert("family".to_owned(), json!(rule.family()));
    object.insert("table".to_owned(), json!(rule.table));
    object.insert("chain".to_owned(), json!(rule.chain));
    put_known(&mut object, "handle", rule.handle);
    object.insert("verdict".to_owned(), json!(rule.deed.name()));
    object.insert("packets".to_owned(), json!(packets));
    Value::Object(object)
}

fn conntrack(seen: Conntrack) -> Value {
    json!({
        "entries": seen.entries,
        "limit": seen.limit,
        "drop": seen.dropped,
        "early_drop": seen.dropped_early,
        "insert_failed": seen.insert_failed,
        "invalid": seen.invalid,
    })
}

/// Writes one flow on a line of its own.
///
/// # Errors
///
/// Those of the writer.
pub(crate) fn write_flow(out: &mut dyn Write, view: &View<'_>, each: &Flow) -> io::Result<()> {
    line(out, &flow(view, each))
}

/// Writes what happened to an attempt, on a line of its own.
///
/// # Errors
///
/// Those of the writer.
pub(crate) fn write_event(out: &mut dyn Write, view: &View<'_>, event: &Event) -> io::Result<()> {
    line(out, &flow_with(view, &event.flow, Some(event), None))
}

/// The same as a row of this node.
///
/// # Errors
///
/// Those of the writer.
pub(crate) fn write_row(out: &mut dyn Write, view: &View<'_>, event: &Event, node: &str) -> io::Result<()> {
    line(out, &flow_with(view, &event.flow, Some(event), Some(node)))
}

/// Writes how many attempts have no row, on a line of its own.
///
/// # Errors
///
/// Those of the writer.
pub(crate) fn write_unlisted(out: &mut dyn Write, view: &View<'_>, unlisted: Unlisted) -> io::Result<()> {
    let Unlisted { half_open, ended } = unlisted;
    let at = rfc3339(view.wall(view.moment.now.ns));
    line(out, &json!({"type": "unlisted", "at": at, "half_open": half_open, "ended": ended}))
}

fn line(out: &mut dyn Write, value: &Value) -> io::Result<()> {
    writeln!(out, "{value}")
}

/// Builds the report's object.
fn report(snapshot: &Snapshot, interval: Option<&Interval<'_>>) -> Value {
    let mut object = Map::new();
    object.insert("type".to_owned(), json!("report"));
    object.insert("schema".to_owned(), json!(SCHEMA));
    object.insert("source".to_owned(), source(snapshot));
    object.insert("from".to_owned(), json!(rfc3339(snapshot.from_ns())));
    object.insert("to".to_owned(), json!(rfc3339(snapshot.taken_at_ns)));
    object.insert("exact".to_owned(), json!(snapshot.is_exact()));
    object.insert("inexact".to_owned(), inexact(snapshot));
    figures(&mut object, &METRICS, snapshot);
    let services: Vec<Value> = snapshot.services.iter().map(service).collect();
    object.insert("services".to_owned(), Value::Array(services));
    let workloads: Vec<Value> = snapshot.listed_workloads().iter().map(workload).collect();
    put_known(&mut object, "workloads", (!workloads.is_empty()).then_some(workloads));
    if let Some(interval) = interval {
        object.insert("interval".to_owned(), changes(interval));
    }
    Value::Object(object)
}

fn source(snapshot: &Snapshot) -> Value {
    match &snapshot.context.origin {
        Origin::Capture(origin) => capture(origin),
        Origin::Live(live) => {
            let known = live.interfaces.iter().enumerate();
            let list: Vec<Value> = known.map(|(at, each)| interface(snapshot, at, each)).collect();
            let mut packets = Map::new();
            figures(&mut packets, &PACKETS, &snapshot.gone);
            let gone = json!({"interfaces": live.gone, "packets": packets});
            let mut object = Map::new();
            object.insert("kind".to_owned(), json!("live"));
            object.insert("interfaces".to_owned(), Value::Array(list));
            object.insert("gone".to_owned(), gone);
            put_known(&mut object, "unseen_opens", snapshot.unseen.map(|unseen| unseen.connections()));
            Value::Object(object)
        }
    }
}

/// The reasons that make the report inexact; an empty array where there is none.
fn inexact(snapshot: &Snapshot) -> Value {
    snapshot.losses().into_iter().map(|loss| reason(snapshot, loss)).collect()
}

fn reason(snapshot: &Snapshot, loss: Loss) -> Value {
    let found = loss.found_ns.map(|(first, last)| [first, last].map(|ns| rfc3339(snapshot.wall_of(ns))));
    let mut object = Map::new();
    object.insert("reason".to_owned(), json!(loss.reason));
    object.insert("count".to_owned(), json!(loss.count));
    let [first, last] = found.map_or([None, None], |times| times.map(Some));
    put_known(&mut object, "first", first);
    put_known(&mut object, "last", last);
    object.insert("sentence".to_owned(), json!(loss.sentence));
    Value::Object(object)
}

fn capture(origin: &CaptureOrigin) -> Value {
    let condition = &origin.condition;
    let mut object = Map::new();
    object.insert("kind".to_owned(), json!("capture"));
    object.insert("path".to_owned(), json!(origin.path));
    let files = Some(&origin.files).filter(|files| !files.is_empty());
    put_known(&mut object, "files", files);
    object.insert("damaged".to_owned(), json!(condition.damaged));
    object.insert("truncated".to_owned(), json!(condition.truncated));
    put_known(&mut object, "dropped", condition.dropped);
    let skipped = condition.skipped.iter();
    let row = |(link_type, packets)| json!({"link_type": link_type, "packets": packets});
    object.insert("skipped".to_owned(), skipped.map(row).collect());
    object.insert("cut_headers".to_owned(), json!(origin.cut_headers));
    object.insert("untimed".to_owned(), json!(condition.untimed));
    let not_ip = origin.not_ip.iter().filter_map(|(ether_type, packets)| Some(((*ether_type)?, packets)));
    let not_ip: Vec<Value> =
        not_ip.map(|(ether_type, packets)| json!({"ethertype": ether_type, "packets": packets})).collect();
    put_known(&mut object, "not_ip", Some(not_ip).filter(|rows| !rows.is_empty()));
    let out_of_order = condition.out_of_order;
    let order = out_of_order.map(|order| json!({"packets": order.packets, "first": order.first}));
    put_known(&mut object, "out_of_order", order);
    let clock = Some(condition.clock).filter(|clock| clock.steps_back != 0);
    let clock = clock.map(|clock| json!({"steps_back": clock.steps_back, "largest_ns": clock.largest_ns}));
    put_known(&mut object, "clock", clock);
    Value::Object(object)
}

fn interface(snapshot: &Snapshot, at: usize, interface: &InterfaceHooks) -> Value {
    let mut object = Map::new();
    object.insert("name".to_owned(), json!(interface.name));
    for (name, hook) in [("ingress", &interface.ingress), ("egress", &interface.egress)] {
        if let Some(hook) = hook {
            object.insert(name.to_owned(), json!(hook));
        }
    }
    if interface.merged {
        object.insert("segments".to_owned(), json!("merged"));
    }
    if !interface.before.is_empty() {
        object.insert("before".to_owned(), json!(interface.before));
    }
    let mut packets = Map::new();
    figures(&mut packets, &PACKETS, &snapshot.interfaces.get(at).copied().unwrap_or_default());
    object.insert("packets".to_owned(), Value::Object(packets));
    Value::Object(object)
}

/// Puts every known figure at its path.
fn figures<T>(object: &mut Map<String, Value>, metrics: &[Metric<T>], of: &T) {
    for metric in metrics {
        if let Some(value) = metric.value(of) {
            put(object, &metric.name, json!(value));
        }
    }
}

/// The changes of one interval: whether it was exact, `tcp` as differences, which are negative where a figure
/// fell, and its latencies.
fn changes(interval: &Interval<'_>) -> Value {
    let mut object = Map::new();
    object.insert("exact".to_owned(), json!(interval.is_exact()));
    for metric in METRICS.iter().filter(|metric| metric.name.starts_with("tcp.")) {
        let change = interval.change(|snapshot| metric.value(snapshot).unwrap_or(0));
        put(&mut object, &metric.name, json!(change));
    }
    let mut legs = Map::new();
    for leg in Leg::ALL {
        legs.insert(leg.name().to_owned(), latency(&interval.latency[leg as usize]));
    }
    object.insert("latency".to_owned(), Value::Object(legs));
    Value::Object(object)
}

fn latency(latency: &Latency) -> Value {
    let mut object = Map::new();
    figures(&mut object, &LATENCY, latency);
    Value::Object(object)
}

fn put(object: &mut Map<String, Value>, path: &str, value: Value) {
    let Some((first, rest)) = path.split_once('.') else {
        object.insert(path.to_owned(), value);
        return;
    };
    let inner = object.entry(first).or_insert_with(|| Value::Object(Map::new()));
    if let Value::Object(inner) = inner {
        put(inner, rest, value);
    }
}

fn service(row: &ServiceFigures) -> Value {
    let mut object = Map::new();
    match row.service {
        Some(socket) => {
            object.insert("address".to_owned(), json!(socket.ip().to_string()));
            object.insert("port".to_owned(), json!(socket.port()));
        }
        None => {
            object.insert("other".to_owned(), json!(true));
        }
    }
    match &row.books {
        ServiceBooks::Tcp(books) => tcp_service(&mut object, books),
        ServiceBooks::Udp(books) => udp_service(&mut object, books),
    }
    if let Some(times) = row.times() {
        figures(&mut object, &SERVICE_TIMES, &times);
    }
    put_known(&mut object, "seat", row.seat.map(Seat::name));
    Value::Object(object)
}

fn tcp_service(object: &mut Map<String, Value>, books: &TcpBooks) {
    object.insert("protocol".to_owned(), json!("tcp"));
    object.insert("attempts".to_owned(), json!(books.attempts));
    for verdict in Verdict::ALL.into_iter().filter(|verdict| verdict.is_in_books()) {
        object.insert(verdict.name().to_owned(), json!(books.verdict(verdict)));
    }
    let never = books.never_repeated().total();
    let patience = [("never_repeated", never), ("waiting", books.waiting()), ("gave_up", books.gave_up())];
    for (name, count) in patience {
        object.insert(name.to_owned(), json!(count));
    }
    object.insert(FlowFlag::Silent.name().to_owned(), json!(books.silent));
    object.insert(Sign::WasSilent.name().to_owned(), json!(books.was_silent));
}

fn udp_service(object: &mut Map<String, Value>, books: &UdpBooks) {
    object.insert("protocol".to_owned(), json!("udp"));
    object.insert("flows".to_owned(), json!(books.flows));
    for verdict in UdpVerdict::ALL {
        object.insert(verdict.name().to_owned(), json!(books.verdict(verdict)));
    }
}

/// Builds a flow's object.
fn flow(view: &View<'_>, flow: &Flow) -> Value {
    flow_with(view, flow, None, None)
}

/// The same with what happened to it, and on which node.
fn flow_with(view: &View<'_>, flow: &Flow, event: Option<&Event>, node: Option<&str>) -> Value {
    let standing = flow.standing(&view.moment);
    let mut object = Map::new();
    object.insert("type".to_owned(), json!("flow"));
    if let Some(event) = event {
        object.insert("event".to_owned(), json!(event.kind.name()));
        object.insert("at".to_owned(), json!(rfc3339(view.wall(event.at_ns))));
    }
    put_known(&mut object, "node", node);
    object.insert("protocol".to_owned(), json!(standing.protocol()));
    for side in Side::BOTH {
        object.insert(side.name().to_owned(), owned_end(view, flow, side));
    }
    object.insert("verdict".to_owned(), json!(standing.name()));
    put_known(&mut object, "cause", flow.cause(standing).map(Cause::name));
    let seat = view.seat(flow);
    put_known(&mut object, "seat", (seat != Seat::Between).then(|| seat.name()));
    put_known(&mut object, "unreachable_from", flow.unreachable_from().map(|from| from.to_string()));
    put_known(&mut object, "interface", view.interface(flow));
    put_known(&mut object, "tunnel", flow.tunnel().map(Tunnel::name));
    put_known(&mut object, "inside", view.around(flow).map(inside));
    match &flow.record.detail {
        Detail::Tcp(tcp) => tcp_flow(&mut object, view, flow, tcp),
        Detail::Udp(udp) => udp_flow(&mut object, flow, udp),
    }
    object.insert("started".to_owned(), json!(rfc3339(view.wall(flow.opened_ns()))));
    put_known(&mut object, "ended", flow.ended_ns().map(|ns| rfc3339(view.wall(ns))));
    if let Some(found) = view.frames(flow) {
        put_known(&mut object, "file", view.file(&found));
        object.insert("frames".to_owned(), frames(&found, standing));
        object.insert("display_filter".to_owned(), json!(found.display_filter(flow)));
    }
    Value::Object(object)
}

fn frames(found: &FlowFrames, standing: Standing) -> Value {
    let mut object = Map::new();
    object.insert("first".to_owned(), json!(found.first));
    object.insert("last".to_owned(), json!(found.last));
    put_known(&mut object, "syn", found.syn);
    put_known(&mut object, "syn_ack", found.syn_ack);
    let is_completed = standing == Standing::Tcp(Verdict::Completed);
    put_known(&mut object, if is_completed { "ack" } else { "end" }, found.verdict);
    Value::Object(object)
}

/// The tunnel that a flow goes through.
fn inside(around: &Around) -> Value {
    json!({
        "tunnel": around.tunnel.name(),
        "source": around.source.to_string(),
        "destination": around.destination.to_string(),
    })
}

fn tcp_flow(object: &mut Map<String, Value>, view: &View<'_>, flow: &Flow, tcp: &TcpRecord) {
    put_known(object, "isn_initiator", flow.isn_initiator());
    put_known(object, "isn_responder", flow.isn_responder());
    put_known(object, "other_isn_responder", flow.other_isn_responder());
    object.insert("syn".to_owned(), json!(tcp.syn));
    object.insert("syn_ack".to_owned(), json!(tcp.syn_ack));
    object.insert("ack".to_owned(), json!(tcp.ack));
    object.insert("syn_retransmits".to_owned(), json!(flow.syn_retransmits()));
    object.insert("syn_ack_retransmits".to_owned(), json!(tcp.syn_ack_retransmits));
    put_known(object, "syn_to_syn_ack_ns", flow.syn_to_syn_ack_ns());
    put_known(object, "syn_ack_to_ack_ns", flow.syn_ack_to_ack_ns());
    put_known(object, "connect_ns", flow.connect_ns());
    put_known(object, "ack_to_first_byte_ns", flow.ack_to_first_byte_ns());
    put_known(object, "completeness", flow.completeness().filter(|_| view.compat));
    let flags: Vec<&str> = flow.flags(&view.moment).map(FlowFlag::name).collect();
    object.insert("flags".to_owned(), json!(flags));
}

fn udp_flow(object: &mut Map<String, Value>, flow: &Flow, udp: &UdpRecord) {
    object.insert("packets".to_owned(), json!(udp.packets));
    object.insert("bytes".to_owned(), json!(udp.bytes));
    put_known(object, "answer_ns", flow.answer_ns());
}

fn put_known<T: Serialize>(object: &mut Map<String, Value>, name: &str, value: Option<T>) {
    if let Some(value) = value {
        object.insert(name.to_owned(), json!(value));
    }
}

fn end(socket: SocketAddr) -> Value {
    json!({"address": socket.ip().to_string(), "port": socket.port()})
}

/// An end of a flow, with its owner where it is known.
fn owned_end(view: &View<'_>, flow: &Flow, side: Side) -> Value {
    let mut end = end(flow.end(side));
    let mut owner = view.owner(flow, side).map(|owner| self::owner(&owner)).unwrap_or_default();
    if let Some(Process { pid, command, .. }) = flow.process(side) {
        owner.insert("pid".to_owned(), json!(pid));
        owner.insert("comm".to_owned(), json!(command));
    }
    if let Value::Object(object) = &mut end {
        put_known(object, "owner", (!owner.is_empty()).then_some(owner));
    }
    end
}

fn owner(owner: &Owner) -> Map<String, Value> {
    let mut object = Map::new();
    object.insert("cgroup".to_owned(), json!(owner.cgroup));
    put_known(&mut object, "unit", owner.unit.as_ref());
    put_known(&mut object, "container", owner.container.as_ref().map(Container::label));
    put_known(&mut object, "container_id", owner.container.as_ref().map(|container| &container.id));
    put_known(&mut object, "pod_uid", owner.pod.as_ref().map(|pod| &pod.uid));
    let pod = owner.pod.as_ref().and_then(|pod| pod.name.as_ref());
    put_known(&mut object, "pod", pod.map(|pod| &pod.name));
    put_known(&mut object, "namespace", pod.map(|pod| &pod.namespace));
    object
}

/// What a workload's sockets began, or were asked. The sum of the others has neither owner nor side.
fn workload(figures: &WorkloadFigures) -> Value {
    let mut object = Map::new();
    put_known(&mut object, "owner", figures.owner.as_deref().map(owner));
    put_known(&mut object, "cgroup_id", figures.group);
    put_known(&mut object, "side", figures.side.map(Side::name));
    tcp_service(&mut object, &figures.books);
    Value::Object(object)
}

#[cfg(test)]
mod tests;
