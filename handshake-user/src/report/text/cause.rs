//! What is wrong, and where to look: the problems worth a line, the largest first.

use handshake_agent::model::snapshot::{Books, Interval, Origin, ServiceBooks, Snapshot};
use handshake_agent::options::Filter;
use handshake_common::verdict::{Cause, Sign, TCP, Verdict};

use crate::number::short;

/// Rarer than one attempt in this many, a problem is not the cause of what someone is called for.
const RARE: u64 = 100;
/// Smaller than the largest by this factor, a problem is not shown beside it.
const MINOR: u64 = 10;
/// Problems shown.
const MOST: usize = 3;
/// Without a SYN for this long, a filter that waits for some says so.
const QUIET_NS: u64 = 10_000_000_000;

/// Something wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Problem {
    /// Its name in reports.
    pub(crate) name: &'static str,
    /// What it means, and where to look.
    pub(crate) sentence: String,
    /// Attempts it stands for.
    pub(crate) count: u64,
}

/// What problems are counted over: an interval, or else the whole run.
struct CauseWindow<'a> {
    snapshot: &'a Snapshot,
    interval: Option<&'a Interval<'a>>,
}

/// What is wrong now: with an interval what it brought, else what the whole run did.
pub(crate) fn problems(snapshot: &Snapshot, interval: Option<&Interval<'_>>) -> Vec<Problem> {
    let window = CauseWindow { snapshot, interval };
    let mut all: Vec<Problem> = Cause::ALL.map(|cause| window.half_open(cause)).into();
    all.extend(TCP.iter().filter(|row| row.problem).map(|row| {
        let count = window.count(|s| s.tcp.verdict(row.verdict));
        Problem { name: row.name, sentence: row.sentence.to_owned(), count }
    }));
    let ignored = Sign::AckIgnored;
    let count = window.count(|s| s.tcp.sign(ignored));
    all.push(Problem { name: ignored.name(), sentence: ignored.sentence().to_owned(), count });
    worth_a_line(all, window.count(|s| s.tcp.books.attempts))
}

/// What kept attempts from completing by these books, of all services or of some: however rare, for somebody expected
/// that it was not.
pub(super) fn obstacles(books: &Books, snapshot: &Snapshot) -> Vec<Problem> {
    let causes = Cause::ALL.map(|cause| Problem {
        name: cause.name(),
        sentence: sentence(cause, snapshot),
        count: books.by_cause(Verdict::HalfOpen).of(cause)
            + books.by_cause(Verdict::HalfOpenExpired).of(cause),
    });
    let ends = TCP.iter().filter(|row| row.problem).map(|row| Problem {
        name: row.name,
        sentence: row.sentence.to_owned(),
        count: books.verdict(row.verdict),
    });
    let mut all: Vec<Problem> = causes.into_iter().chain(ends).filter(|problem| problem.count != 0).collect();
    all.sort_by_key(|problem| std::cmp::Reverse(problem.count));
    all.truncate(MOST);
    all
}

impl CauseWindow<'_> {
    fn count(&self, figure: impl Fn(&Snapshot) -> u64) -> u64 {
        match self.interval {
            Some(interval) => interval.rise(figure),
            None => figure(self.snapshot),
        }
    }

    /// What is half-open now, and what has expired in the window.
    fn half_open(&self, cause: Cause) -> Problem {
        let expired = self.count(|s| s.tcp.books.by_cause(Verdict::HalfOpenExpired).of(cause));
        Problem {
            name: cause.name(),
            sentence: sentence(cause, self.snapshot),
            count: self.snapshot.tcp.books.by_cause(Verdict::HalfOpen).of(cause) + expired,
        }
    }
}

/// A cause's sentence, and a service that may be it.
fn sentence(cause: Cause, snapshot: &Snapshot) -> String {
    let hint = match cause {
        Cause::NoSynAck => full_queue(snapshot),
        Cause::NoAck => None,
    };
    format!("{}{}", cause.sentence(), hint.unwrap_or_default())
}

/// A queue that is full drops SYNs in silence: a service that completes others and leaves some without
/// an answer.
fn full_queue(snapshot: &Snapshot) -> Option<String> {
    let leaves_some = |books: &Books| {
        books.by_cause(Verdict::HalfOpen).no_syn_ack + books.by_cause(Verdict::HalfOpenExpired).no_syn_ack
            != 0
    };
    let service = snapshot.services.iter().find_map(|row| match row.books {
        ServiceBooks::Tcp(books) if books.verdict(Verdict::Completed) != 0 && leaves_some(&books) => {
            row.service
        }
        ServiceBooks::Tcp(_) | ServiceBooks::Udp(_) => None,
    })?;
    Some(format!("; {service} completes others: accept queue full? (ss -ltn)"))
}

fn worth_a_line(mut all: Vec<Problem>, attempts: u64) -> Vec<Problem> {
    all.sort_by_key(|problem| std::cmp::Reverse(problem.count));
    let largest = all.first().map_or(0, |problem| problem.count);
    let enough = (attempts / RARE).max(largest / MINOR).max(1);
    all.retain(|problem| problem.count >= enough);
    all.truncate(MOST);
    all
}

/// A filter is set, and no SYN passes it: the trouble is not here. Where time stops there is nothing to wait for.
pub(crate) fn quiet(snapshot: &Snapshot) -> Option<String> {
    let wanted = wanted(&snapshot.context.filter)?;
    let (attempts, flows) = (snapshot.tcp.books.attempts, snapshot.udp.books.flows);
    let long = if snapshot.stopped { attempts == 0 } else { snapshot.quiet_ns() >= QUIET_NS };
    // A filter for UDP's traffic waits for no SYN.
    if !long || (attempts == 0 && flows > 0) {
        return None;
    }
    let place = match &snapshot.context.origin {
        Origin::Capture { path, .. } => format!("is in {path}"),
        Origin::Live { interfaces } => {
            let names: Vec<&str> = interfaces.iter().map(|each| each.name.as_str()).collect();
            format!("reached {}", names.join(", "))
        }
    };
    let seen = short(snapshot.packets.total);
    Some(format!("no SYN to {wanted} {place}: look upstream ({seen} packets seen without the filter)"))
}

/// What the filter lets through, as an address to send to; `None` without a filter.
fn wanted(filter: &Filter) -> Option<String> {
    let ports: Vec<String> = filter.ports.iter().map(|range| format!(":{range}")).collect();
    let nets: Vec<String> = filter.nets.iter().map(ToString::to_string).collect();
    match (ports.is_empty(), nets.is_empty()) {
        (true, true) => None,
        (false, true) => Some(ports.join(" ")),
        (true, false) => Some(nets.join(" ")),
        (false, false) => Some(format!("{} in {}", ports.join(" "), nets.join(" "))),
    }
}
