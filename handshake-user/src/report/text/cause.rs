//! Problems and where to look for them: those worth a line, the most frequent first.

use handshake_agent::error::some_of;
use handshake_agent::model::snapshot::{
    Interval, LiveOrigin, Origin, ServiceBooks, ServiceFigures, Snapshot, TcpBooks,
};
use handshake_agent::options::Filter;
use handshake_common::verdict::{Cause, FlowFlag, SILENT_SENTENCE, Seat, Sign, TCP, Verdict};
use handshake_common::wire::Class;

use crate::number::{group, rate, short};

/// A problem of fewer than one in this many attempts is not shown.
const RARE: u64 = 100;
/// A problem smaller than the largest by more than this factor is not shown.
const MINOR: u64 = 10;
/// Most problems of a report, which has no room for more.
pub(crate) const MOST: usize = 3;
/// Time without a SYN after which a filter's report says so, ns.
const QUIET_NS: u64 = 10_000_000_000;

/// A problem of some attempts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Problem {
    /// The name of its verdict, cause or sign in reports.
    pub(crate) name: &'static str,
    /// The meaning, and where to look.
    pub(crate) sentence: String,
    /// The number of attempts with it.
    pub(crate) count: u64,
}

/// The time over which problems are counted: an interval, or the whole run.
struct CauseWindow<'a> {
    snapshot: &'a Snapshot,
    interval: Option<&'a Interval<'a>>,
}

/// The problems of the interval, or of the whole run without one.
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
    all.push(silent(snapshot));
    worth_a_line(all, window.count(|s| s.tcp.books.attempts))
}

/// The connections that are silent now, and the service that most of them are to.
fn silent(snapshot: &Snapshot) -> Problem {
    let count = snapshot.tcp.books.silent;
    let of = |row: &ServiceFigures| row.books.tcp().map_or(0, |books| books.silent);
    let most = snapshot.services.iter().filter(|row| row.service.is_some()).max_by_key(|row| of(row));
    let place = match most.and_then(|row| Some((row.service?, of(row)))) {
        Some((service, all)) if all == count => format!(" to {service}"),
        Some((service, part)) if part != 0 => format!(", {} of them to {service},", group(part)),
        Some(_) | None => String::new(),
    };
    let connections = if count == 1 { "connection" } else { "connections" };
    let are = if count == 1 { "is" } else { "are" };
    let sentence = format!("{} {connections}{place} {are} {SILENT_SENTENCE}", group(count));
    Problem { name: FlowFlag::Silent.name(), sentence, count }
}

/// The problems that kept attempts from completing, by the books of all or of some services. Rare ones are
/// included, because an expectation failed on them.
pub(super) fn obstacles(books: &TcpBooks, snapshot: &Snapshot) -> Vec<Problem> {
    let causes = Cause::ALL.map(|cause| Problem {
        name: cause.name(),
        sentence: sentence(cause, snapshot, None),
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

    /// The attempts that are half-open now or have expired in the window.
    fn half_open(&self, cause: Cause) -> Problem {
        let expired = self.count(|s| s.tcp.books.by_cause(Verdict::HalfOpenExpired).of(cause));
        Problem {
            name: cause.name(),
            sentence: sentence(cause, self.snapshot, self.interval),
            count: self.snapshot.tcp.books.by_cause(Verdict::HalfOpen).of(cause) + expired,
        }
    }
}

/// A cause's sentence as seen from here, with a service that may be responsible, and what the initiators'
/// repeats say.
pub(crate) fn sentence(cause: Cause, snapshot: &Snapshot, interval: Option<&Interval<'_>>) -> String {
    format!("{}{}", cause.sentence(snapshot.seat(cause)), evidence(cause, snapshot, interval))
}

/// The same in fewer words: where to look is left out where the evidence says more.
pub(crate) fn brief(cause: Cause, snapshot: &Snapshot) -> String {
    let (sentence, evidence) = (cause.sentence(snapshot.seat(cause)), evidence(cause, snapshot, None));
    let what =
        if evidence.is_empty() { sentence } else { sentence.split(". Look at:").next().unwrap_or(sentence) };
    format!("{what}{evidence}")
}

fn evidence(cause: Cause, snapshot: &Snapshot, interval: Option<&Interval<'_>>) -> String {
    let beside = cause.beside(snapshot.usual_flags(cause)).map(str::to_owned);
    let is_queue = cause == Cause::NoSynAck && snapshot.seat(cause) == Seat::Responder;
    let hint = beside.or_else(|| if is_queue { full_queue(snapshot) } else { None });
    let patience = if cause == Cause::AnswerUnseen { None } else { patience(cause, snapshot, interval) };
    let lost = snapshot.lost_here.as_ref().filter(|lost| lost.cause() == cause);
    let lost = lost.map(|lost| format!("; {lost}"));
    [lost, hint, patience].into_iter().flatten().collect()
}

/// What the repeats of the half-open attempts say: forged sources repeat nothing, and clients that wait do.
fn patience(cause: Cause, snapshot: &Snapshot, interval: Option<&Interval<'_>>) -> Option<String> {
    /// Fewer are no flood: half of the smallest SYN backlog of a listener in Linux (128).
    const FLOOD: u64 = 64;
    /// Fewer clients say nothing of the others.
    const CLIENTS: u64 = 5;
    let books = &snapshot.tcp.books;
    let half_open = books.by_cause(Verdict::HalfOpen).of(cause);
    let never = books.never_repeated().of(cause);
    let of_all = format!("{} of {}", group(never), group(half_open));
    if half_open >= FLOOD && never * 10 >= half_open * 9 {
        let completed = interval.map(|interval| {
            let count = interval.rise(|s| s.tcp.books.verdict(Verdict::Completed));
            format!("; {} handshakes complete beside them", rate(count, interval.elapsed_ns()))
        });
        let who = "a flood of forged sources, or clients that gave up within 3 s";
        return Some(format!("; {of_all} never repeated their SYN: {who}{}", completed.unwrap_or_default()));
    }
    let repeated = books.repeated().of(cause);
    if half_open >= CLIENTS && repeated * 2 >= half_open {
        let repeated = format!("{} of {}", group(repeated), group(half_open));
        return Some(format!("; {repeated} repeated their SYN, as clients on a broken path do"));
    }
    None
}

/// Names a service that completes some attempts and leaves others unanswered. A full accept queue drops SYNs
/// without an answer.
fn full_queue(snapshot: &Snapshot) -> Option<String> {
    let leaves_some = |books: &TcpBooks| {
        let open = |verdict| books.by_cause(verdict).of(Cause::NoSynAck);
        open(Verdict::HalfOpen) + open(Verdict::HalfOpenExpired) != 0
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
    all
}

/// The sentence for what keeps packets from the hooks, for a filter that no SYN passes, or for connections
/// that the kernel opened and no hook saw. Only where nothing speaks against the hooks, the problem is
/// upstream.
pub(crate) fn quiet(snapshot: &Snapshot) -> Option<String> {
    let no_syn = no_syn(snapshot);
    let mut obstacles = snapshot.sight.obstacles();
    if no_syn.is_some() && obstacles.is_empty() {
        let since = snapshot.now.ns.saturating_sub(snapshot.quiet_ns());
        obstacles = snapshot.sight.lapses_since(since);
    }
    let others: Vec<String> = obstacles.into_iter().chain(unseen(snapshot)).collect();
    match no_syn {
        // What has come before shows that the way is open: now there may be nothing to come.
        Some(what) if others.is_empty() && snapshot.tcp.books.attempts != 0 => Some(what),
        Some(what) if others.is_empty() => {
            let seen = short(snapshot.packets.total);
            Some(format!("{what}: look {}upstream ({seen} packets seen without the filter)", first(snapshot)))
        }
        what => {
            Some(what.into_iter().chain(others).collect::<Vec<_>>().join("; ")).filter(|all| !all.is_empty())
        }
    }
}

/// The programs that see packets before ours, as places to look at before the network.
fn first(snapshot: &Snapshot) -> String {
    let Origin::Live(live) = &snapshot.context.origin else { return String::new() };
    let mut names: Vec<&str> =
        live.interfaces.iter().flat_map(|each| &each.before).map(String::as_str).collect();
    names.dedup();
    if names.is_empty() {
        return String::new();
    }
    format!("at {}, which may drop packets before handshake sees them, and ", names.join(", "))
}

/// The words for connections of this host that no hook saw; `None` until nothing of a handshake has passed
/// the hooks for [`QUIET_NS`].
fn unseen(snapshot: &Snapshot) -> Option<String> {
    let unseen = snapshot.unseen.filter(|unseen| unseen.quiet_ns() >= QUIET_NS)?;
    let Origin::Live(live) = &snapshot.context.origin else { return None };
    let count = unseen.connections();
    let connections = if count == 1 { "connection" } else { "connections" };
    (count != 0).then(|| {
        format!(
            "this host opened {} {connections} (ActiveOpens, PassiveOpens) while no SYN and no SYN+ACK passed {}: \
             by another interface, such as lo, or the hook does not see them",
            group(count),
            names(live)
        )
    })
}

/// The names of the interfaces; of many the first.
fn names(live: &LiveOrigin) -> String {
    some_of(&live.interfaces.iter().map(|each| each.name.as_str()).collect::<Vec<_>>())
}

/// The words for a filter that no SYN passes. A report whose time has stopped does not wait for [`QUIET_NS`].
fn no_syn(snapshot: &Snapshot) -> Option<String> {
    let wanted = wanted(&snapshot.context.filter)?;
    let (attempts, flows) = (snapshot.tcp.books.attempts, snapshot.udp.books.flows);
    let long = if snapshot.stopped { attempts == 0 } else { snapshot.quiet_ns() >= QUIET_NS };
    // A filter of UDP traffic expects no SYN.
    if !long || (attempts == 0 && flows > 0) {
        return None;
    }
    let place = match &snapshot.context.origin {
        Origin::Capture(capture) => format!("is in {}", capture.path),
        Origin::Live(live) if live.interfaces.is_empty() => {
            return Some("no interface is there to be watched".to_owned());
        }
        Origin::Live(live) => format!("reached {}", names(live)),
    };
    let since =
        if attempts == 0 { String::new() } else { format!(" for {} s", snapshot.quiet_ns() / 1_000_000_000) };
    Some(format!("no SYN to {wanted} {place}{since}"))
}

/// What the hooks saw that is in no verdict of the identity, where there is any: a hook that sees one
/// direction alone, or frames that it cannot read, shows here.
pub(crate) fn outside(snapshot: &Snapshot) -> Vec<String> {
    let verdict = |verdict: Verdict| (verdict.name(), snapshot.tcp.verdict(verdict));
    let non_ip = (Class::NonIp.name(), snapshot.packets.class(Class::NonIp));
    let all = [verdict(Verdict::Midstream), verdict(Verdict::OrphanSynAck), non_ip];
    all.into_iter()
        .filter(|(_, count)| *count != 0)
        .map(|(name, count)| format!("{name} {}", group(count)))
        .collect()
}

/// What the copies or the numbers of many attempts say of the place that the packets were seen at.
pub(super) fn oddities(snapshot: &Snapshot) -> Vec<&'static str> {
    /// Fewer are chance.
    const FEW: u64 = 10;
    let packets = &snapshot.packets;
    let (syns, syn_acks) = (packets.class(Class::Syn), packets.class(Class::SynAck));
    let copies = packets.copies.unwrap_or(0);
    // Half of what is seen twice are copies; more than the SYNs alone could have, so both directions are.
    let is_mirrored = copies >= FEW && 3 * copies >= syns + syn_acks && copies > syns / 2;
    // Both sides of a rewriting firewall: each attempt has a second J, of which its SYN+ACK and ACK know
    // nothing.
    let (superseded, revised) = (snapshot.tcp.verdict(Verdict::Superseded), snapshot.tcp.sign(Sign::Revised));
    let completed = snapshot.tcp.verdict(Verdict::Completed);
    let is_rewritten = superseded >= FEW && 2 * revised >= superseded && 2 * superseded >= completed;
    let mut all = Vec::new();
    if is_mirrored {
        all.push("each frame is seen twice: a mirror of both directions, or two taps merged?");
    }
    if is_rewritten {
        all.push("most attempts have two sequence numbers: a firewall that rewrites them, seen on both of its sides?");
    }
    all
}

/// The ports and networks of the filter in words; `None` without a filter.
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
