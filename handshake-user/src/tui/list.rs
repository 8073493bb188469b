//! The rows of the two lists, filtered and sorted, and the columns to sort by. Used by the cursor and by
//! drawing. Pure.

use std::cmp::{Ordering, Reverse};
use std::collections::HashMap;

use handshake_agent::model::snapshot::ServiceBooks;
use handshake_common::flow::Side;
use handshake_common::verdict::{Cause, FlowFlag, UdpVerdict, Verdict};

use super::filter::{ListFilter, is_failure};
use super::history::failed;
use super::scene::Scene;
use super::service::ServiceLine;
use handshake_agent::address::Cidr;
use handshake_agent::model::flow::{Flow, Standing};

/// The sort order of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SortOrder<C> {
    /// The column to sort by.
    pub(crate) column: C,
    /// Whether the order is reversed.
    pub(crate) reversed: bool,
}

/// A column of the attempts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AttemptColumn {
    /// The age of an open attempt, or the time of day at which an attempt ended.
    Age,
    /// The verdict.
    Verdict,
    /// Why the attempt is not completed.
    Cause,
    /// Repeated SYNs and SYN+ACKs.
    Retransmissions,
    /// The initiator's address and port.
    Initiator,
    /// The responder's address and port.
    Responder,
    /// The same, one by one.
    Repeats,
    /// The time from SYN to ACK.
    Connect,
    /// The time from SYN to SYN+ACK.
    FirstLeg,
    /// The time from SYN+ACK to ACK.
    SecondLeg,
    /// The time until the record expires.
    Left,
    /// The interface where it was first seen.
    Interface,
    /// Whose its ends are.
    Owner,
}

impl AttemptColumn {
    /// The next column to sort by, in the order of the key `s`.
    pub(crate) const fn next(self) -> Self {
        match self {
            Self::Age => Self::Verdict,
            Self::Verdict => Self::Retransmissions,
            Self::Retransmissions => Self::Initiator,
            Self::Initiator => Self::Responder,
            Self::Responder => Self::Connect,
            Self::Connect
            | Self::Repeats
            | Self::Cause
            | Self::FirstLeg
            | Self::SecondLeg
            | Self::Left
            | Self::Interface
            | Self::Owner => Self::Age,
        }
    }

    fn order(self, scene: &Scene, a: &Flow, b: &Flow) -> Ordering {
        let moment = scene.moment();
        // The worst first: what failed, then what is open, then what completed.
        let verdict = |attempt: &Flow| {
            let standing = attempt.standing(&moment);
            let badness = match (is_failure(attempt, &moment), standing.is_good()) {
                (true, _) => 0,
                (false, false) => 1,
                (false, true) => 2,
            };
            (badness, standing.name())
        };
        // An open attempt waits for as long as it is old.
        let connect = |attempt: &Flow| {
            let waits = attempt.is_open().then(|| attempt.record.age_ns(moment.now));
            Reverse(attempt.connect_ns().or(waits))
        };
        match self {
            Self::Verdict => verdict(a).cmp(&verdict(b)),
            Self::Connect => connect(a).cmp(&connect(b)),
            Self::Retransmissions | Self::Repeats => b.retransmits().cmp(&a.retransmits()),
            Self::Initiator => a.end(Side::Initiator).cmp(&b.end(Side::Initiator)),
            Self::Responder => a.end(Side::Responder).cmp(&b.end(Side::Responder)),
            // The order of the scene: open attempts, the oldest first, then ended ones, the latest first.
            Self::Age
            | Self::Cause
            | Self::FirstLeg
            | Self::SecondLeg
            | Self::Left
            | Self::Interface
            | Self::Owner => Ordering::Equal,
        }
    }
}

/// A column of the services. TCP and UDP share the columns, but not all titles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ServiceColumn {
    /// The responder's address and port.
    Service,
    /// TCP attempts or UDP flows.
    Begun,
    /// Attempts or flows per second in the window.
    Rate,
    /// The share that completed or was answered.
    Good,
    /// The same of the latest minute.
    Minute,
    /// Half-open attempts or unanswered flows.
    Waiting,
    /// Connections that are silent now.
    Silent,
    /// Refused attempts or unreachable flows.
    Refused,
    /// Attempts that failed with any verdict, or multicast flows.
    Failed,
    /// The median of the times to connect of all attempts.
    ConnectHalf,
    /// Their 99th percentile.
    ConnectSlow,
    /// The median of the latest times from SYN to SYN+ACK.
    FirstLeg,
    /// The median of the latest times from SYN+ACK to ACK.
    SecondLeg,
    /// What began in each second of the latest minute.
    Trend,
}

impl ServiceColumn {
    /// The next column to sort by, in the order of the key `s`.
    pub(crate) const fn next(self) -> Self {
        match self {
            Self::Begun => Self::Waiting,
            Self::Waiting => Self::Failed,
            Self::Failed => Self::Good,
            Self::Good => Self::Minute,
            Self::Minute => Self::ConnectSlow,
            Self::ConnectSlow => Self::Service,
            Self::Service
            | Self::Silent
            | Self::Rate
            | Self::Refused
            | Self::ConnectHalf
            | Self::FirstLeg
            | Self::SecondLeg
            | Self::Trend => Self::Begun,
        }
    }

    /// Sorts by the column: counts and times descending, shares ascending, services by address.
    fn sort(self, rows: &mut [&ServiceLine]) {
        match self {
            Self::Service => rows.sort_by_key(|line| (line.service.is_none(), line.service)),
            Self::Good => rows.sort_by_key(|line| thousandths_good(&line.books)),
            Self::Minute => rows.sort_by_key(|line| thousandths(line.minute.good, line.minute.decided)),
            Self::ConnectHalf => rows.sort_by_key(|line| Reverse(line.connect.map(|[half, _]| half))),
            Self::ConnectSlow => rows.sort_by_key(|line| Reverse(line.connect.map(|[_, slow]| slow))),
            Self::Begun | Self::Rate | Self::Trend => rows.sort_by_key(|line| Reverse(begun(&line.books))),
            Self::Waiting => rows.sort_by_key(|line| Reverse(waiting(&line.books))),
            Self::Silent => rows.sort_by_key(|line| Reverse(line.silent())),
            Self::Refused | Self::Failed => rows.sort_by_key(|line| Reverse(ended_badly(&line.books))),
            Self::FirstLeg => rows.sort_by_key(|line| Reverse(line.legs.syn_to_syn_ack_ns)),
            Self::SecondLeg => rows.sort_by_key(|line| Reverse(line.legs.syn_ack_to_ack_ns)),
        }
    }
}

/// The attempts and flows that pass the filter, sorted.
pub(crate) fn attempts<'a>(
    scene: &'a Scene,
    filter: &ListFilter,
    order: SortOrder<AttemptColumn>,
) -> Vec<&'a Flow> {
    let moment = scene.moment();
    let all = scene.open.iter().chain(&scene.ended);
    let fits = |each: &&Flow| filter.admits(each, &moment, Some(scene.interface(each)), &scene.owners);
    let mut rows: Vec<&Flow> = all.filter(fits).collect();
    rows.sort_by(|a, b| order.column.order(scene, a, b));
    if order.reversed {
        rows.reverse();
    }
    rows
}

/// The attempts of a network's clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ClientLine {
    /// The network: a /24 of IPv4, a /48 of IPv6.
    pub(crate) network: Cidr,
    /// All of them.
    pub(crate) attempts: u64,
    /// Those that are half-open.
    pub(crate) half_open: u64,
    /// Those that ended badly, or are silent.
    pub(crate) failed: u64,
    /// Those that completed and are not silent.
    pub(crate) completed: u64,
    /// The names of one of the failures, its verdict's and its cause's or flag's, and its share of them.
    pub(crate) worst: Option<(&'static str, &'static str, u64)>,
}

/// The networks of the clients whose attempts pass the filter, those with the most failures first.
pub(crate) fn clients(scene: &Scene, filter: &ListFilter) -> Vec<ClientLine> {
    let order = SortOrder { column: AttemptColumn::Age, reversed: false };
    let moment = scene.moment();
    let mut lines: Vec<ClientLine> = Vec::new();
    let mut places: HashMap<Cidr, usize> = HashMap::new();
    let mut failures: HashMap<(Cidr, &str, &str), u64> = HashMap::new();
    for flow in attempts(scene, filter, order).into_iter().filter(|flow| flow.tcp().is_some()) {
        let client = flow.end(Side::Initiator).ip();
        let network = Cidr::of(client, if client.is_ipv4() { 24 } else { 48 });
        let place = *places.entry(network).or_insert(lines.len());
        if place == lines.len() {
            let nothing =
                ClientLine { network, attempts: 0, half_open: 0, failed: 0, completed: 0, worst: None };
            lines.push(nothing);
        }
        let line = &mut lines[place];
        let standing = flow.standing(&moment);
        line.attempts += 1;
        line.half_open += u64::from(standing == Standing::Tcp(Verdict::HalfOpen));
        if !is_failure(flow, &moment) {
            line.completed += u64::from(standing.is_good());
            continue;
        }
        line.failed += u64::from(standing != Standing::Tcp(Verdict::HalfOpen));
        let silent = if flow.is_silent(&moment) { FlowFlag::Silent.name() } else { "" };
        let why = flow.cause(standing).map_or(silent, Cause::name);
        let count = failures.entry((network, standing.name(), why)).or_default();
        *count += 1;
        if line.worst.is_none_or(|(_, _, most)| *count >= most) {
            line.worst = Some((standing.name(), why, *count));
        }
    }
    lines.sort_by_key(|line| (Reverse(line.half_open + line.failed), Reverse(line.attempts), line.network));
    lines
}

/// The services that pass the filter, sorted: those of TCP, then those of UDP.
pub(crate) fn services<'a>(
    scene: &'a Scene,
    filter: &ListFilter,
    order: SortOrder<ServiceColumn>,
) -> Vec<&'a ServiceLine> {
    let fits = |udp: bool| {
        let mut rows: Vec<&ServiceLine> = scene
            .services
            .iter()
            .filter(|line| line.is_udp() == udp && filter.admits_service(line))
            .collect();
        order.column.sort(&mut rows);
        if order.reversed {
            rows.reverse();
        }
        rows
    };
    [fits(false), fits(true)].concat()
}

fn begun(books: &ServiceBooks) -> u64 {
    match books {
        ServiceBooks::Tcp(books) => books.attempts,
        ServiceBooks::Udp(books) => books.flows,
    }
}

fn waiting(books: &ServiceBooks) -> u64 {
    match books {
        ServiceBooks::Tcp(books) => books.verdict(Verdict::HalfOpen),
        ServiceBooks::Udp(books) => books.verdict(UdpVerdict::Unanswered),
    }
}

fn ended_badly(books: &ServiceBooks) -> u64 {
    match books {
        ServiceBooks::Tcp(books) => failed(books),
        ServiceBooks::Udp(books) => books.verdict(UdpVerdict::Unreachable),
    }
}

fn thousandths_good(books: &ServiceBooks) -> u64 {
    let (good, all) = match books {
        ServiceBooks::Tcp(books) => (books.verdict(Verdict::Completed), books.attempts),
        ServiceBooks::Udp(books) => (books.verdict(UdpVerdict::Answered), books.flows),
    };
    thousandths(good, all)
}

/// A share, larger than any where there is none.
const fn thousandths(good: u64, all: u64) -> u64 {
    match good.saturating_mul(1_000).checked_div(all) {
        Some(share) => share,
        None => u64::MAX,
    }
}
