//! The text report. Each line answers one question, the most urgent first:
//!
//! ```text
//! handshake · eth0 · ingress tcx, egress tcx · port 443 · 12:03:41 +02:00 · 20 s · EXACT
//! not ip    where most packets are not IP: what they are
//! inexact   what was lost, and where to look
//! 443/tcp   do clients connect?
//! time      how long do they wait?
//! cause     what is wrong, and where to look
//! services  is it one service? The worst first
//! workload  is it one workload of this host? The worst first
//! udp       are flows answered?
//! signs     irregularities that end no attempt
//! balance   each attempt in exactly one term
//! hook saw  packets at the hook, those in no attempt, and those filtered out
//! ```
//!
//! Pure: drawing depends on its arguments alone.

pub(crate) mod cause;
mod check;
mod ethertype;
pub(crate) mod exact;
mod join;
pub(crate) mod ladder;
mod layout;
mod saved;
mod why;

use std::cmp::Reverse;
use std::fmt::Write as _;

use handshake_agent::error::some_of;
use handshake_agent::model::connect::Percentile;
use handshake_agent::model::flow::frames::FlowFrames;
use handshake_agent::model::flow::{Flow, Standing, View};
use handshake_agent::model::health::{self, ClosedPorts, JudgedService, JudgedWorkload, Services};
use handshake_agent::model::settled::{Health, Settled};
use handshake_agent::model::snapshot::{
    InterfaceHooks, Interval, Latency, Origin, ServiceBooks, ServiceFigures, Snapshot, TcpBooks,
};
use handshake_agent::options::Filter;
use handshake_agent::owner::Owner;
use handshake_common::abi::{TcpRecord, UdpRecord};
use handshake_common::flow::Side;
use handshake_common::record::Detail;
use handshake_common::verdict::{Cause, Leg, Sign, TCP, UdpVerdict, Verdict};
use handshake_common::wire::Class;

pub(crate) use self::check::{
    Spoken, draw_all_judged, draw_check, draw_expectations, measured, sentences, shortened,
};
use self::exact::Exactness;
pub(crate) use self::join::{draw_join, draw_joined};
pub(crate) use self::layout::Style;
use self::layout::{Piece, TextTone, line, words};
pub(crate) use self::saved::{draw_saved, draw_table};
pub(crate) use self::why::draw_why;
use crate::names::{self, Names};
use crate::number::{group, percent, rate, short, span, time};
use crate::time::Zone;
use handshake_export::events::{Event, EventKind, ROWS, Unlisted};

const WIDE: &str = "   ";
const DOT: &str = " · ";

/// Draws a report. With an interval, rates, times and causes are those of the interval; counts are those of
/// the run.
pub(crate) fn draw(snapshot: &Snapshot, interval: Option<&Interval<'_>>, style: Style) -> String {
    let mut out = draw_head(snapshot, interval, style);
    line(&mut out, style, &subject(&snapshot.context.filter), &outcome(snapshot, interval), WIDE);
    draw_some(&mut out, style, "time", &times(snapshot, interval), WIDE);
    causes(&mut out, snapshot, interval, style);
    draw_some(&mut out, style, "services", &services(snapshot, interval, style.names()), DOT);
    draw_some(&mut out, style, "workload", &workloads(snapshot, interval), DOT);
    draw_some(&mut out, style, "udp", &udp(snapshot), WIDE);
    draw_some(&mut out, style, " ", &udp_services(snapshot), DOT);
    draw_some(&mut out, style, "signs", &signs(snapshot), WIDE);
    line(&mut out, style, "balance", &balance(snapshot), " + ");
    line(&mut out, style, "hook saw", &hook_saw(snapshot), " ");
    out
}

/// Draws what a report says of its source: the header, and what makes the figures inexact.
pub(crate) fn draw_head(snapshot: &Snapshot, interval: Option<&Interval<'_>>, style: Style) -> String {
    let mut out = String::new();
    line(&mut out, style, "", &header(snapshot, interval, style), DOT);
    draw_some(&mut out, style, "not ip", &not_ip(snapshot), " ");
    lost(&mut out, snapshot, interval, style);
    out
}

/// Draws a flow as one line that ends with a newline.
pub(crate) fn draw_flow(view: &View<'_>, flow: &Flow, style: Style) -> String {
    let standing = flow.standing(&view.moment);
    let tone = if standing.is_good() { TextTone::Good } else { TextTone::Strong };
    let [initiator, responder] = owned_ends(view, flow, style);
    let figures = match &flow.record.detail {
        Detail::Tcp(tcp) => tcp_figures(view, flow, tcp, style),
        Detail::Udp(udp) => udp_figures(flow, udp, style),
    };
    let mut pieces = vec![
        Piece::new(when(style.zone(), view.is_of_capture(), view.wall(flow.opened_ns())), TextTone::Faint),
        Piece::plain(format!("{} {initiator} → {responder}", standing.protocol())),
        Piece::new(stands(flow, standing), tone),
    ];
    pieces.extend(figures.into_iter().map(Piece::plain));
    pieces.extend(places(view, flow));
    let mut out = String::new();
    line(&mut out, style.endless(), "", &pieces, "  ");
    out
}

/// Draws what happened to an attempt as one line that ends with a newline.
pub(crate) fn draw_event(view: &View<'_>, event: &Event, style: Style) -> String {
    let Event { kind, flow, at_ns } = event;
    let standing = flow.standing(&view.moment);
    let tone = match kind {
        _ if standing.is_good() => TextTone::Good,
        EventKind::HalfOpen => TextTone::Bad,
        EventKind::Ended => TextTone::Strong,
    };
    let [initiator, responder] = owned_ends(view, flow, style);
    let age = time(at_ns.saturating_sub(flow.opened_ns()));
    let mut pieces = vec![
        Piece::new(when(style.zone(), view.is_of_capture(), view.wall(*at_ns)), TextTone::Faint),
        Piece::plain(format!("{:>8}", format!("+{age}"))),
        Piece::plain(format!("{initiator} → {responder}")),
        Piece::new(stands(flow, standing), tone),
    ];
    pieces.extend(flow.tcp().map(|tcp| Piece::plain(format!("SYN×{} SYN+ACK×{}", tcp.syn, tcp.syn_ack))));
    pieces.extend(legs_and_flags(view, flow, style).into_iter().map(Piece::plain));
    pieces.extend(places(view, flow));
    let mut out = String::new();
    line(&mut out, style.endless(), "", &pieces, "  ");
    out
}

/// Draws how many attempts have no line of their own.
pub(crate) fn draw_unlisted(view: &View<'_>, unlisted: Unlisted, style: Style) -> String {
    let Unlisted { half_open, ended } = unlisted;
    let at = when(style.zone(), view.is_of_capture(), view.wall(view.moment.now.ns));
    let text = format!(
        "without a line: {} more became half-open, {} more ended ({ROWS} lines a second at most)",
        group(half_open),
        group(ended)
    );
    let mut out = String::new();
    let pieces = [Piece::new(at, TextTone::Faint), Piece::new(text, TextTone::Strong)];
    line(&mut out, style.endless(), "", &pieces, "  ");
    out
}

/// Both ends of a flow as they are shown.
fn ends(flow: &Flow, style: Style) -> [String; 2] {
    let (names, [from, to]) = (style.names(), [Side::Initiator, Side::Responder].map(|side| flow.end(side)));
    [names.client(from), names.service(to, flow.record.key.udp)]
}

/// The same, each with its owner where that is known.
fn owned_ends(view: &View<'_>, flow: &Flow, style: Style) -> [String; 2] {
    let mut ends = ends(flow, style);
    for (side, end) in Side::BOTH.into_iter().zip(&mut ends) {
        let owner = view.owner(flow, side).filter(|owner| !owner.is_root());
        let whose = names::whose(flow, side, owner.as_deref());
        if !whose.is_empty() {
            // Writing to a String cannot fail.
            let _ = write!(end, " ({whose})");
        }
    }
    ends
}

/// The verdict and the cause.
fn stands(flow: &Flow, standing: Standing) -> String {
    match flow.cause(standing) {
        Some(cause) => format!("{} {}", standing.name(), cause.name()),
        None => standing.name().to_owned(),
    }
}

/// Where a flow was seen: the interface, the tunnels, and the frames of a capture.
fn places(view: &View<'_>, flow: &Flow) -> Vec<Piece> {
    let mut pieces: Vec<Piece> = view.interface(flow).map(Piece::plain).into_iter().collect();
    pieces.extend(tunnels(view, flow).map(Piece::plain));
    if let Some(found) = view.frames(flow) {
        let file = view.file(&found).map_or_else(String::new, |file| format!(" of {file}"));
        pieces.push(Piece::plain(format!("{}{file}", frames(&found))));
    }
    pieces
}

/// The tunnel that a flow is, and the one that it goes through.
fn tunnels(view: &View<'_>, flow: &Flow) -> impl Iterator<Item = String> {
    let is = flow.tunnel().map(|tunnel| {
        let hint = view.inside_hint().map_or_else(String::new, |hint| format!(": {hint}"));
        format!("a {} tunnel{hint}", tunnel.title())
    });
    let within = view
        .around(flow)
        .map(|around| format!("in {} {} → {}", around.tunnel.title(), around.source, around.destination));
    is.into_iter().chain(within)
}

/// The frames of the three segments that are known, or the first and the last.
pub(crate) fn frames(found: &FlowFrames) -> String {
    let known: Vec<_> =
        [found.syn, found.syn_ack, found.verdict].into_iter().flatten().map(|at| at.to_string()).collect();
    match known.len() {
        0 => format!("frames {}..{}", found.first, found.last),
        1 => format!("frame {}", known.concat()),
        _ => format!("frames {}", known.join(", ")),
    }
}

fn draw_some(out: &mut String, style: Style, label: &str, pieces: &[Piece], between: &str) {
    if !pieces.is_empty() {
        line(out, style, label, pieces, between);
    }
}

/// The header: interfaces and hooks or the capture, the filter, the time, and whether the figures are exact.
fn header(snapshot: &Snapshot, interval: Option<&Interval<'_>>, style: Style) -> Vec<Piece> {
    let mut pieces = vec![Piece::new("handshake", TextTone::Strong)];
    match &snapshot.context.origin {
        Origin::Capture(capture) => pieces.push(Piece::plain(capture.path.clone())),
        Origin::Live(live) if live.interfaces.is_empty() => pieces.push(Piece::plain("no interface yet")),
        Origin::Live(live) => pieces.extend(interfaces_and_hooks(&live.interfaces)),
    }
    let filter = &snapshot.context.filter;
    pieces.extend(filter.ports.iter().map(|range| Piece::plain(format!("port {range}"))));
    pieces.extend(filter.nets.iter().map(|net| Piece::plain(format!("net {net}"))));
    pieces.push(Piece::plain(time_of(snapshot, style.zone())));
    pieces.push(Piece::plain(span(snapshot.elapsed_ns())));
    let exactness = Exactness::of(snapshot, interval, style.zone());
    let tone = if exactness.is_exact() { TextTone::Good } else { TextTone::Bad };
    pieces.push(Piece::new(exactness.words(style.room(DOT)), tone));
    pieces
}

/// The time of a report: that of a capture with its date.
pub(crate) fn time_of(snapshot: &Snapshot, zone: Zone) -> String {
    let is_capture = matches!(snapshot.context.origin, Origin::Capture(_));
    when(zone, is_capture, snapshot.taken_at_ns)
}

/// A time with its offset, and with its date in a capture.
fn when(zone: Zone, is_capture: bool, wall_ns: u64) -> String {
    if is_capture { zone.dated(wall_ns) } else { zone.label(wall_ns) }
}

/// The names of the interfaces and their hooks; interfaces with the same hooks share one entry.
fn interfaces_and_hooks(interfaces: &[InterfaceHooks]) -> Vec<Piece> {
    let mut groups: Vec<(Vec<&str>, String)> = Vec::new();
    for interface in interfaces {
        let hooks = hooks(interface);
        match groups.iter_mut().find(|(_, same)| *same == hooks) {
            Some((names, _)) => names.push(&interface.name),
            None => groups.push((vec![&interface.name], hooks)),
        }
    }
    groups.into_iter().flat_map(|(names, hooks)| [some_of(&names), hooks]).map(Piece::plain).collect()
}

fn hooks(interface: &InterfaceHooks) -> String {
    let named = [("ingress", &interface.ingress), ("egress", &interface.egress)];
    let mut parts: Vec<String> =
        named.iter().filter_map(|(way, hook)| hook.as_ref().map(|hook| format!("{way} {hook}"))).collect();
    if interface.merged {
        parts.push("segments merged".to_owned());
    }
    if !interface.before.is_empty() {
        parts.push(format!("behind {}", interface.before.join(", ")));
    }
    parts.join(", ")
}

/// What is not entered, where at least half of all packets are not IP: with nothing in the figures the report
/// would look as if nothing had happened.
fn not_ip(snapshot: &Snapshot) -> Vec<Piece> {
    /// The kinds that are named, the most frequent first.
    const MOST: usize = 3;
    let (packets, all) = (snapshot.packets.class(Class::NonIp), snapshot.packets.total);
    if packets == 0 || packets < all - packets {
        return Vec::new();
    }
    let what = match &snapshot.context.origin {
        Origin::Capture(capture) => {
            let known = capture.not_ip.iter().filter_map(|(kind, packets)| Some((*packets, (*kind)?)));
            let mut kinds: Vec<(u64, u16)> = known.collect();
            kinds.sort_unstable_by(|one, other| other.cmp(one));
            let names: Vec<_> = kinds.iter().take(MOST).map(|(_, kind)| ethertype::words(*kind)).collect();
            if names.is_empty() { String::new() } else { format!(" ({})", names.join("; ")) }
        }
        Origin::Live { .. } => String::new(),
    };
    let look = match &snapshot.context.origin {
        Origin::Capture(_) => "",
        Origin::Live { .. } => ". Look at: tcpdump -e",
    };
    let line = format!("{} of {} packets are not IP{what}: not entered{look}", group(packets), group(all));
    words(&line)
}

/// The lines of what was lost in the interval, or in the run without one.
fn lost(out: &mut String, snapshot: &Snapshot, interval: Option<&Interval<'_>>, style: Style) {
    let lost = interval.map_or_else(|| snapshot.losses(), Interval::losses);
    let mut label = "inexact";
    for loss in lost {
        let mut pieces = vec![Piece::new(format!("{} {}:", loss.reason, group(loss.count)), TextTone::Bad)];
        pieces.extend(words(&loss.sentence));
        line(out, style, label, &pieces, " ");
        label = " ";
    }
}

/// The label of the first line: the ports of the filter.
fn subject(filter: &Filter) -> String {
    let ports: Vec<String> = filter.ports.iter().map(ToString::to_string).collect();
    if ports.is_empty() { "tcp".to_owned() } else { format!("{}/tcp", ports.join(",")) }
}

/// The line of attempts and verdicts.
fn outcome(snapshot: &Snapshot, interval: Option<&Interval<'_>>) -> Vec<Piece> {
    let books = &snapshot.tcp.books;
    let attempts = match interval {
        Some(interval) => {
            let recent = rate(interval.rise(|s| s.tcp.books.attempts), interval.elapsed_ns());
            format!("{} ({recent})", group(books.attempts))
        }
        None => group(books.attempts),
    };
    let completed = books.verdict(Verdict::Completed);
    let share = match books.settled() {
        0 => String::new(),
        settled => {
            format!(" ({}{})", percent(completed.min(settled), settled), recent_share(books, interval))
        }
    };
    let half_open = books.verdict(Verdict::HalfOpen);
    let tone = if half_open == 0 { TextTone::Plain } else { TextTone::Strong };
    let mut pieces = vec![
        Piece::plain(format!("attempts {attempts}")),
        Piece::new(format!("completed {}{share}", group(completed)), TextTone::Strong),
        Piece::new(format!("half-open now {}{}", group(half_open), of_causes(books)), tone),
        Piece::plain(format!("refused {}", group(books.verdict(Verdict::Refused)))),
    ];
    let rarer = TCP.iter().filter(|row| row.problem).map(|row| row.verdict);
    for verdict in rarer.filter(|verdict| *verdict != Verdict::Refused && books.verdict(*verdict) != 0) {
        pieces.push(Piece::plain(format!("{} {}", spoken(verdict), group(books.verdict(verdict)))));
    }
    pieces
}

/// The share of the interval's settled attempts that completed, if it differs much from that of the run.
/// Otherwise a new problem would hide behind hours without one.
fn recent_share(books: &TcpBooks, interval: Option<&Interval<'_>>) -> String {
    let now = interval.map(|interval| interval.settled()).unwrap_or_default();
    far(Settled::of(books), now).map_or_else(String::new, |share| format!(", now {share}"))
}

/// The share of completed ones among the attempts of now, if it differs much from that of the run.
fn far(run: Settled, now: Settled) -> Option<String> {
    const FAR_PERCENT: u64 = 5;
    let of_run = u128::from(run.completed) * u128::from(now.attempts);
    let of_now = u128::from(now.completed) * u128::from(run.attempts);
    let whole = u128::from(run.attempts) * u128::from(now.attempts);
    let is_far = whole != 0 && of_run.abs_diff(of_now) * 100 >= whole * u128::from(FAR_PERCENT);
    is_far.then(|| percent(now.completed, now.attempts))
}

/// The causes of the attempts that are half-open now, the most frequent first.
fn of_causes(books: &TcpBooks) -> String {
    let mut causes = Cause::ALL.map(|cause| (books.by_cause(Verdict::HalfOpen).of(cause), cause.name()));
    causes.sort_by_key(|(count, _)| Reverse(*count));
    let shown: Vec<String> = causes
        .iter()
        .filter(|(count, _)| *count != 0)
        .map(|(count, name)| format!("{name} {}", group(*count)))
        .collect();
    if shown.is_empty() { String::new() } else { format!(" ({})", shown.join(", ")) }
}

/// The line of latencies; empty without a sample.
fn times(snapshot: &Snapshot, interval: Option<&Interval<'_>>) -> Vec<Piece> {
    let recent = interval.filter(|interval| interval.latency.iter().any(|leg| leg.count != 0));
    let legs = recent.map_or(&snapshot.latency, |interval| &interval.latency);
    let repeats = [Sign::SynRetransmit, Sign::SynAckRetransmit].map(|sign| {
        recent.map_or_else(|| snapshot.tcp.sign(sign), |interval| interval.rise(|s| s.tcp.sign(sign)))
    });
    let mut pieces: Vec<Piece> = Leg::ALL
        .iter()
        .filter_map(|leg| {
            let quantiles = legs[*leg as usize].quantiles?;
            let (p50, p99) = (time(quantiles.p50_ns), time(quantiles.p99_ns));
            let retried = if *leg == Leg::Connect { retried(legs, repeats) } else { String::new() };
            Some(Piece::plain(format!("{} p50 {p50} p99 {p99}{retried}", arrow(*leg))))
        })
        .collect();
    pieces.extend(of_all(snapshot).filter(|_| recent.is_none()));
    if let Some(interval) = recent {
        pieces.push(Piece::new(format!("last {}", span(interval.elapsed_ns())), TextTone::Faint));
    }
    pieces
}

/// The time to connect where so many have not connected that its 99th percentile is longer than that of those
/// who did.
fn of_all(snapshot: &Snapshot) -> Option<Piece> {
    let [p50, p99] = snapshot.connect_of_all.half_and_slowest()?;
    let completed = snapshot.latency(Leg::Connect).quantiles.map_or(0, |quantiles| quantiles.p99_ns);
    let is_longer = match p99 {
        Percentile::Known(_) => false,
        Percentile::AtLeast(ns) => ns > completed,
        Percentile::Never => true,
    };
    is_longer.then(|| Piece::plain(format!("connect of all p50 {} p99 {}", percentile(p50), percentile(p99))))
}

/// A percentile of the time to connect, as text and terminal show it.
pub(crate) fn percentile(percentile: Percentile) -> String {
    match percentile {
        Percentile::Known(ns) => time(ns),
        Percentile::AtLeast(ns) => format!("> {}", time(ns)),
        Percentile::Never => "never".to_owned(),
    }
}

/// The share of attempts that repeated a SYN or a SYN+ACK, `repeats` of these: those that Karn's rule
/// excluded from the leg that they blur. Legs are excluded for other reasons too, so no more than were
/// repeated.
fn retried(legs: &[Latency; Leg::ALL.len()], repeats: [u64; 2]) -> String {
    let share = |leg: Leg, repeats: u64| {
        let latency = &legs[leg as usize];
        (latency.excluded.min(repeats), latency.count + latency.excluded)
    };
    let (a, b) = (share(Leg::SynToSynAck, repeats[0]), share(Leg::SynAckToAck, repeats[1]));
    let (excluded, all) =
        if u128::from(a.0) * u128::from(b.1) >= u128::from(b.0) * u128::from(a.1) && a.1 != 0 {
            a
        } else {
            b
        };
    if excluded == 0 { String::new() } else { format!(" (retried {})", percent(excluded, all)) }
}

/// The leg's name with arrows, as text and terminal show it.
pub(crate) const fn arrow(leg: Leg) -> &'static str {
    match leg {
        Leg::SynToSynAck => "syn→syn+ack",
        Leg::SynAckToAck => "syn+ack→ack",
        Leg::Connect => "connect",
        Leg::AckToFirstByte => "first byte",
    }
}

/// The lines of problems; none if there is no problem.
fn causes(out: &mut String, snapshot: &Snapshot, interval: Option<&Interval<'_>>, style: Style) {
    let mut label = "cause";
    if let Some(sentence) = cause::quiet(snapshot) {
        line(out, style, label, &words(&sentence), " ");
        label = " ";
    }
    for sentence in cause::oddities(snapshot) {
        line(out, style, label, &words(sentence), " ");
        label = " ";
    }
    for problem in cause::problems(snapshot, interval).into_iter().take(cause::MOST) {
        let mut pieces = vec![Piece::new(format!("{}:", problem.name), TextTone::Bad)];
        pieces.extend(words(&problem.sentence));
        line(out, style, label, &pieces, " ");
        label = " ";
    }
}

/// How many services fail, then each with its share of completed attempts, the worst first, and the ports that a
/// scan has found closed.
fn services(snapshot: &Snapshot, interval: Option<&Interval<'_>>, names: Names) -> Vec<Piece> {
    let services = Services::of(snapshot, interval);
    let mut pieces: Vec<Piece> = headline(&services).into_iter().collect();
    let shown = services.judged.iter().take(snapshot.context.top);
    pieces.extend(shown.enumerate().map(|(at, one)| service(one, names, at == 0)));
    let more = services.judged.len().saturating_sub(snapshot.context.top);
    if more != 0 {
        pieces.push(Piece::new(format!("{} more", group(more as u64)), TextTone::Faint));
    }
    pieces.extend(closed_ports(&services.closed).map(Piece::plain));
    pieces
}

/// How many services fail; nothing where all do well.
fn headline(services: &Services) -> Option<Piece> {
    let (count, all) = (services.failing(), services.judged.len());
    let verb = if count == 1 { "fails" } else { "fail" };
    (count != 0).then(|| Piece::new(format!("✘ {count} of {all} {verb}"), TextTone::Bad))
}

fn service(one: &JudgedService, names: Names, is_first: bool) -> Piece {
    let share = share(&one.books, one.settled, is_first);
    let connect = connect_of(one).unwrap_or_default();
    let name = names.service(one.service, false);
    Piece::new(format!("{name} {share}{connect}"), tone(one.health))
}

/// The share of completed attempts, with that of now if it differs much. The first of a line says what it is.
fn share(books: &TcpBooks, settled: Settled, is_first: bool) -> String {
    let run = Settled::of(books);
    let now = far(run, settled).map_or_else(String::new, |share| format!(", now {share}"));
    let what = if is_first { " completed" } else { "" };
    let share = percent(run.completed.min(run.attempts), run.attempts);
    format!("{share} of {}{what}{now}", group(run.attempts))
}

const fn tone(health: Health) -> TextTone {
    match health {
        Health::Failing => TextTone::Bad,
        Health::Partly => TextTone::Strong,
        Health::Good => TextTone::Plain,
    }
}

/// The workloads of this host, the worst first. Empty where all do well and no two are on the same side, as the first
/// line then says the same of them, and where the root of all groups has all.
fn workloads(snapshot: &Snapshot, interval: Option<&Interval<'_>>) -> Vec<Piece> {
    /// Most that are named.
    const MOST: usize = 5;
    let all = health::workloads(snapshot, interval);
    let some_side = Side::BOTH.iter().any(|side| all.iter().filter(|one| one.side == *side).count() > 1);
    let is_root = |one: &JudgedWorkload<'_>| one.figures.owner.as_deref().is_some_and(Owner::is_root);
    if (!some_side && all.iter().all(|one| one.health == Health::Good)) || all.iter().all(is_root) {
        return Vec::new();
    }
    let shown = all.iter().take(MOST.min(snapshot.context.top));
    let mut pieces: Vec<Piece> = shown.enumerate().map(|(at, one)| workload(one, at == 0)).collect();
    let more = all.len() - pieces.len();
    if more != 0 {
        pieces.push(Piece::new(format!("{} more", group(more as u64)), TextTone::Faint));
    }
    pieces
}

fn workload(one: &JudgedWorkload<'_>, is_first: bool) -> Piece {
    let name = one.figures.owner.as_deref().map(names::label);
    let name = name.unwrap_or_else(|| format!("cgroup id {}", one.group));
    let does = match one.side {
        Side::Initiator => "opens",
        Side::Responder => "serves",
    };
    let share = share(&one.figures.books, one.settled, is_first);
    Piece::new(format!("{name} {does} {share}"), tone(one.health))
}

/// The time to connect to a service, of all its attempts; `None` where none has connected.
fn connect_of(one: &JudgedService) -> Option<String> {
    let times = one.connect.times(&one.books);
    let [p50, p99] = times.of_all.half_and_slowest().filter(|_| times.completed.count != 0)?;
    Some(format!(", connect p50 {} p99 {}", percentile(p50), percentile(p99)))
}

/// The ports that refused what they were asked once or twice, in words; `None` where there is none.
pub(crate) fn closed_ports(closed: &ClosedPorts) -> Option<String> {
    let at = closed.address.map_or_else(String::new, |address| format!(" of {address}"));
    let ports = if closed.ports == 1 { "port" } else { "ports" };
    let (refused, count) = (group(closed.refused), group(closed.ports));
    (closed.ports != 0).then(|| format!("{refused} refused on {count} closed {ports}{at}"))
}

/// The line of UDP flows by verdict; empty without a flow.
fn udp(snapshot: &Snapshot) -> Vec<Piece> {
    let books = &snapshot.udp.books;
    if books.flows == 0 {
        return Vec::new();
    }
    let mut pieces = vec![Piece::plain(format!("flows {}", group(books.flows)))];
    for verdict in UdpVerdict::ALL {
        let count = books.verdict(verdict);
        if count != 0 || matches!(verdict, UdpVerdict::Answered | UdpVerdict::Unanswered) {
            pieces.push(Piece::plain(format!("{} {}", verdict.name(), group(count))));
        }
    }
    pieces.push(Piece::plain(format!("{} packets", short(snapshot.udp.packets))));
    pieces
}

/// The services of UDP whose flows get no answer, most flows first; empty where all do.
fn udp_services(snapshot: &Snapshot) -> Vec<Piece> {
    /// Most services that are named.
    const MOST: usize = 3;
    let failed = |row: &ServiceFigures| match (&row.books, row.service) {
        (ServiceBooks::Udp(books), Some(service)) => {
            let [unanswered, unreachable] =
                [UdpVerdict::Unanswered, UdpVerdict::Unreachable].map(|verdict| books.verdict(verdict));
            (unanswered + unreachable != 0).then_some((unanswered, unreachable, books.flows, service))
        }
        (ServiceBooks::Udp(_) | ServiceBooks::Tcp(_), _) => None,
    };
    let mut all: Vec<_> = snapshot.every_service.iter().filter_map(failed).collect();
    all.sort_by_key(|(unanswered, unreachable, _, service)| (Reverse(unanswered + unreachable), *service));
    let named = all.iter().take(MOST).map(|(unanswered, unreachable, flows, service)| {
        let verdicts = [(UdpVerdict::Unanswered, unanswered), (UdpVerdict::Unreachable, unreachable)];
        let some = verdicts.into_iter().filter(|(_, count)| **count != 0);
        let some: Vec<_> =
            some.map(|(verdict, count)| format!("{} {}", verdict.name(), group(*count))).collect();
        Piece::new(format!("{service} {} of {}", some.join(", "), group(*flows)), TextTone::Bad)
    });
    let more = all.len().saturating_sub(MOST);
    let more = (more != 0).then(|| Piece::new(format!("{} more", group(more as u64)), TextTone::Faint));
    named.chain(more).collect()
}

/// The line of signs; empty without one.
fn signs(snapshot: &Snapshot) -> Vec<Piece> {
    let seen = Sign::ALL.into_iter().filter(|sign| snapshot.tcp.sign(*sign) != 0);
    let piece = |sign: Sign| Piece::plain(format!("{} {}", sign.name(), group(snapshot.tcp.sign(sign))));
    seen.map(piece).collect()
}

fn balance(snapshot: &Snapshot) -> Vec<Piece> {
    balance_terms(snapshot).into_iter().map(Piece::plain).collect()
}

/// The terms of the identity `attempts = …`. Terms that are 0 are left out, except those that are always
/// shown.
pub(crate) fn balance_terms(snapshot: &Snapshot) -> Vec<String> {
    let books = &snapshot.tcp.books;
    // Open attempts are last, as in the identity: half-open, then opening.
    let order = Verdict::ALL
        .into_iter()
        .filter(|v| v.is_in_books() && *v != Verdict::Opening)
        .chain([Verdict::Opening]);
    let terms = order.filter(|verdict| books.verdict(*verdict) != 0 || is_always_shown(*verdict));
    let mut pieces: Vec<String> =
        terms.map(|verdict| format!("{} {}", group(books.verdict(verdict)), spoken(verdict))).collect();
    if let Some(first) = pieces.first_mut() {
        *first = format!("{} = {first}", group(books.attempts));
    }
    if let Some(last) = pieces.last_mut().filter(|_| snapshot.unsettled != 0) {
        last.push_str(&format!("   (unsettled {})", group(snapshot.unsettled)));
    }
    pieces
}

const fn is_always_shown(verdict: Verdict) -> bool {
    matches!(verdict, Verdict::Completed | Verdict::Refused | Verdict::HalfOpen | Verdict::Opening)
}

fn spoken(verdict: Verdict) -> String {
    verdict.name().replace("half_open", "half-open").replace('_', " ")
}

/// The packets at the hook, with those in no attempt, those that the filter left out and those lost before
/// it.
fn hook_saw(snapshot: &Snapshot) -> Vec<Piece> {
    let packets = &snapshot.packets;
    let mut parts =
        vec![format!("{} packets, {} SYN;", short(packets.total), group(packets.class(Class::Syn)))];
    parts.extend(cause::outside(snapshot).into_iter().map(|part| format!("{part};")));
    parts.push(format!("filtered out {};", short(packets.filtered.unwrap_or(0))));
    parts.push(format!("lost before the hook {}", group(snapshot.lost_before_hook)));
    parts.into_iter().map(Piece::plain).collect()
}

fn tcp_figures(view: &View<'_>, flow: &Flow, tcp: &TcpRecord, style: Style) -> Vec<String> {
    let mut figures =
        vec![format!("syn {}", tcp.syn), format!("syn_ack {}", tcp.syn_ack), format!("ack {}", tcp.ack)];
    figures.extend(legs_and_flags(view, flow, style));
    figures
}

fn legs_and_flags(view: &View<'_>, flow: &Flow, style: Style) -> Vec<String> {
    let legs = [
        (Leg::SynToSynAck, flow.syn_to_syn_ack_ns()),
        (Leg::SynAckToAck, flow.syn_ack_to_ack_ns()),
        (Leg::AckToFirstByte, flow.ack_to_first_byte_ns()),
    ];
    let legs = legs.into_iter().filter_map(|(leg, ns)| Some(format!("{} {}", arrow(leg), time(ns?))));
    let completeness = flow.completeness().filter(|_| view.compat).map(|bits| format!("completeness {bits}"));
    let flags = flow.flags(&view.moment).map(|flag| flag.name().to_owned());
    legs.chain(completeness).chain(flags).chain(reporter(flow, style)).collect()
}

fn udp_figures(flow: &Flow, udp: &UdpRecord, style: Style) -> Vec<String> {
    let mut figures = vec![
        format!("packets {} → {} ←", udp.packets[0], udp.packets[1]),
        format!("bytes {} → {} ←", group(udp.bytes[0]), group(udp.bytes[1])),
    ];
    figures.extend(flow.answer_ns().map(|ns| format!("answer {}", time(ns))));
    figures.extend(reporter(flow, style));
    figures
}

/// Who says that it is unreachable.
fn reporter(flow: &Flow, style: Style) -> Option<String> {
    flow.unreachable_from().map(|from| format!("ICMP error from {}", style.names().address(from)))
}

#[cfg(test)]
mod tests;
