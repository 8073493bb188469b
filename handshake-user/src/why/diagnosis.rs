//! From what was seen to one answer: what is wrong, because of what, what it is not, whose it is, and the next
//! command. Pure.

use std::net::SocketAddr;
use std::sync::Arc;

use handshake_agent::model::settled::GOOD_PERCENT;
use handshake_agent::model::snapshot::LostBetween;
use handshake_agent::nftables::Deed;
use handshake_agent::owner::Owner;
use handshake_common::verdict::{Cause, Seat, Verdict};

use super::{Cohort, Firewall, Risen};
use crate::check::{KernelCounter, NetCounters};
use crate::names::label;
use crate::number::{group, percent, span};

/// Fewer settled attempts say nothing.
pub(crate) const LEAST: u64 = 5;
/// Half-open attempts that may be called a flood: half of the smallest SYN backlog of a listener in Linux (128).
const FLOOD: u64 = 64;
/// What a firewall does to attempts that then stay open: the ICMP errors of a rule that rejects have a limit.
const SILENT: &[Deed] = &[Deed::Drop, Deed::Reject];
/// The command that shows all rules.
const RULES: &str = "nft list ruleset";

/// An end without a connection, and what it says wherever it is seen from.
struct End {
    verdict: Verdict,
    what: &'static str,
    because: &'static str,
    owner: &'static str,
    next: &'static str,
}

const ENDS: [End; 4] = [
    End {
        verdict: Verdict::Refused,
        what: "refused by RST",
        because: "its RSTs come in",
        owner: "the responder: its service does not listen, or a firewall before it rejects",
        next: "handshake why, on the responder",
    },
    End {
        verdict: Verdict::Unreachable,
        what: "answered by an ICMP error",
        because: "an ICMP error quotes the SYN",
        owner: "the router that sends the error, or the firewall that rejects",
        next: "handshake watch --flows, which shows who sent it",
    },
    End {
        verdict: Verdict::InitiatorAborted,
        what: "aborted by the client",
        because: "RSTs come before the handshake is complete",
        owner: "the clients: their timeout is short, or they scan",
        next: "handshake watch --events failed",
    },
    End {
        verdict: Verdict::ResponderAborted,
        what: "aborted by the server after its SYN+ACK",
        because: "a RST follows the SYN+ACK",
        owner: "the server: a listener that was closed, tcp_abort_on_overflow, or a middlebox before it",
        next: "sysctl net.ipv4.tcp_abort_on_overflow",
    },
];

/// How the answer is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Nearly all attempts complete.
    Healthy,
    /// Something is wrong.
    Trouble,
    /// Too little was seen to say so.
    NotEnough,
}

impl Outcome {
    /// The name in JSON.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Trouble => "trouble",
            Self::NotEnough => "not_enough",
        }
    }
}

/// The accept queue of the service's listeners on this host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Queue {
    /// The process that has the listener, where it is known.
    pub(crate) process: Option<String>,
    /// Whose the listener is, where that is known and it is not the root of all control groups.
    pub(crate) owner: Option<Arc<Owner>>,
    /// The most that waited in one queue at a look.
    pub(crate) waiting: u32,
    /// The limit of that queue.
    pub(crate) backlog: u32,
    /// Whether a queue was full at a look.
    pub(crate) was_full: bool,
}

impl Queue {
    /// The process and whose it is, as far as they are known, with a word between them.
    pub(crate) fn whose(&self, between: &str) -> Option<String> {
        let owner = self.owner.as_deref().map(label);
        match (&self.process, owner) {
            (Some(process), Some(owner)) => Some(format!("{process}{between}{owner}")),
            (Some(name), None) => Some(name.clone()),
            (None, owner) => owner,
        }
    }
}

/// All that is known of the attempts of a service, or of all services together.
#[derive(Clone, Debug)]
pub(crate) struct Evidence {
    /// The service; `None` where the failing attempts are spread over several.
    pub(crate) service: Option<SocketAddr>,
    /// The attempts that had their time.
    pub(crate) cohort: Cohort,
    /// Completed connections whose responder has sent no byte for T1, though it was asked.
    pub(crate) silent: u64,
    /// From where this host sees most of those that fail.
    pub(crate) seat: Seat,
    /// The listeners of the service: `None` where the kernel does not tell or no service is meant, `Some(None)`
    /// where there is none.
    pub(crate) queue: Option<Option<Queue>>,
    /// Whose sockets of this host began all that fail, where they have one owner.
    pub(crate) beginner: Option<Arc<Owner>>,
    /// The increase of the kernel's counters, which cover the whole host.
    pub(crate) counters: NetCounters,
    /// What the firewall and connection tracking of this host counted.
    pub(crate) firewall: Firewall,
    /// What was lost in this host.
    pub(crate) lost: Option<LostBetween>,
    /// Whether it would have been seen that this host loses something.
    pub(crate) sees_forwarding: bool,
    /// Handshakes of all services that completed in the time.
    pub(crate) completed: u64,
    /// How long it was looked, ns.
    pub(crate) looked_ns: u64,
    /// What keeps packets from the hooks, or no SYN from passing.
    pub(crate) quiet: Option<String>,
    /// Whether nothing was lost meanwhile.
    pub(crate) exact: bool,
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    /// How it is meant.
    pub(crate) outcome: Outcome,
    /// What is wrong, in one sentence.
    pub(crate) headline: String,
    /// The evidence for it.
    pub(crate) because: Vec<String>,
    /// What it is not, each with its reason.
    pub(crate) not: Vec<String>,
    /// Whose it is.
    pub(crate) owner: Option<String>,
    /// The next commands.
    pub(crate) next: Vec<String>,
    /// The rules of this host's firewall to which their counts point.
    pub(crate) rules: Vec<Risen>,
}

/// The one answer that the evidence gives.
pub(crate) fn diagnose(seen: &Evidence) -> Answer {
    let mut answer = found(seen);
    if let Some(owner) = &seen.beginner
        && (answer.outcome, seen.seat) == (Outcome::Trouble, Seat::Initiator)
    {
        answer.because.push(format!("{} began all that fail", label(owner)));
    }
    answer
}

fn found(seen: &Evidence) -> Answer {
    let cohort = &seen.cohort;
    if cohort.attempts < LEAST {
        return seen.not_enough();
    }
    if u128::from(cohort.completed) * 100 >= u128::from(cohort.attempts) * u128::from(GOOD_PERCENT) {
        let is_silent = seen.silent >= LEAST && 2 * seen.silent >= cohort.completed;
        return if is_silent { seen.silent() } else { seen.healthy() };
    }
    let ended = ENDS.iter().map(|end| (end, cohort.ended(end.verdict)));
    let end = ended.max_by_key(|(_, count)| *count).filter(|(_, count)| *count != 0);
    match (cohort.stuck(), end) {
        (Some((cause, count)), end) if end.is_none_or(|(_, ended)| count >= ended) => {
            seen.stuck(cause, count)
        }
        (_, Some((end, count))) => seen.ended(end, count),
        (_, None) => seen.untold(),
    }
}

impl Evidence {
    fn share(&self, count: u64) -> String {
        percent(count, self.cohort.attempts)
    }

    fn port(&self) -> Option<u16> {
        self.service.map(|service| service.port())
    }

    fn of(&self, counter: KernelCounter) -> u64 {
        self.counters.of(counter)
    }

    fn process(&self) -> Option<&str> {
        self.queue.as_ref()?.as_ref()?.process.as_deref()
    }

    /// The rate at which other handshakes complete, in words.
    fn beside(&self) -> Option<String> {
        let seconds = (self.looked_ns / 1_000_000_000).max(1);
        let rate = self.completed / seconds;
        (self.completed != 0).then(|| match rate {
            0 => format!("{} handshakes complete beside them", group(self.completed)),
            rate => format!("{} handshakes complete a second beside them", group(rate)),
        })
    }

    fn not_enough(&self) -> Answer {
        let attempts = self.cohort.attempts;
        let seen = if attempts == 1 {
            "1 attempt has".to_owned()
        } else {
            format!("{} attempts have", group(attempts))
        };
        let failed = self.cohort.failed();
        let beside = self.beside().filter(|_| failed != 0);
        let failing = (failed != 0).then(|| match attempts {
            1 => "it has failed".to_owned(),
            _ => format!("{} of them failed", group(failed)),
        });
        Answer {
            outcome: Outcome::NotEnough,
            headline: format!("not enough was seen: {seen} had their time in {}", span(self.looked_ns)),
            because: failing.into_iter().chain(beside).chain(self.quiet.clone()).collect(),
            not: Vec::new(),
            owner: self.quiet.as_ref().filter(|quiet| quiet.contains("look upstream")).map(|_| {
                "what is before this host: a firewall, a load balancer, routing, or no client that asks"
                    .to_owned()
            }),
            next: vec!["handshake watch, to wait for more".to_owned()],
            rules: Vec::new(),
        }
    }

    fn healthy(&self) -> Answer {
        let cohort = &self.cohort;
        let mut because = Vec::new();
        if let Some(Some(queue)) = &self.queue {
            because
                .push(format!("at most {} of {} waited in the accept queue", queue.waiting, queue.backlog));
        }
        if cohort.failed() != 0 {
            because.push(format!("{} of them failed", group(cohort.failed())));
        }
        let (outcome, as_far) =
            if self.exact { (Outcome::Healthy, "") } else { (Outcome::NotEnough, ", as far as was seen") };
        Answer {
            outcome,
            headline: format!(
                "{} of {} connections are established{as_far}",
                self.share(cohort.completed),
                group(cohort.attempts)
            ),
            because,
            not: vec![
                "what is above TCP, such as TLS or the application's own errors, is not judged".to_owned(),
            ],
            owner: None,
            next: Vec::new(),
            rules: Vec::new(),
        }
    }

    /// TCP is well, and what is above it is not.
    fn silent(&self) -> Answer {
        let completed = self.cohort.completed;
        let silent = self.silent.min(completed);
        let listener = self.queue.iter().flatten().find_map(|queue| queue.whose(" of "));
        let (owner, next) = match (self.seat, listener) {
            (Seat::Responder, Some(listener)) => {
                let id = self.process().and_then(process_id);
                let trace = id.map(|id| format!("strace -f -p {id}"));
                (
                    format!("the application: {listener} accepts and does not answer"),
                    trace.unwrap_or_else(|| "ss -tnp".to_owned()),
                )
            }
            (Seat::Responder, None) => {
                ("the application: it accepts and does not answer".to_owned(), "ss -tnp".to_owned())
            }
            (Seat::Initiator | Seat::Between, _) => {
                let owner = "the responder's application: it accepts and does not answer";
                (owner.to_owned(), self.far("which process listens").remove(0))
            }
        };
        let mut not = vec![format!("the network ({} complete)", self.share(completed))];
        if let Some(Some(queue)) = &self.queue {
            not.push(format!("the accept queue ({} of {} waiting)", queue.waiting, queue.backlog));
        }
        Answer {
            outcome: Outcome::Trouble,
            headline: format!(
                "{} of {} established connections have no answer (silent)",
                percent(silent, completed),
                group(completed)
            ),
            because: vec!["the clients' data is acknowledged, and no byte comes back".to_owned()],
            not,
            owner: Some(owner),
            next: vec![next],
            rules: Vec::new(),
        }
    }

    fn stuck(&self, cause: Cause, count: u64) -> Answer {
        let cohort = &self.cohort;
        let what = match cause {
            Cause::NoSynAck => "answered by nothing (no_syn_ack)",
            Cause::NoAck => "with a SYN+ACK and no ACK (no_ack)",
            Cause::AnswerUnseen => "with an answer that did not pass here (answer_unseen)",
        };
        let headline =
            format!("{} of {} connections stay open, {what}", self.share(count), group(cohort.attempts));
        let repeated = cohort.repeated.of(cause);
        let answer = Answer {
            outcome: Outcome::Trouble,
            headline,
            because: Vec::new(),
            not: self.excluded(cause, repeated),
            owner: None,
            next: Vec::new(),
            rules: Vec::new(),
        };
        if self.is_flood(cause) && self.seat != Seat::Initiator {
            return self.flood(cause, answer);
        }
        let mut answer = self.of_stuck(cause, count, answer);
        if cause == Cause::NoSynAck && repeated != 0 {
            answer
                .because
                .push("clients that asked before the look and repeat their SYN are among them".to_owned());
        }
        answer
    }

    /// The owner of what is no flood.
    fn of_stuck(&self, cause: Cause, count: u64, answer: Answer) -> Answer {
        let repeated = self.cohort.repeated.of(cause);
        if let Some(lost) = self
            .lost
            .as_ref()
            .filter(|lost| self.seat == Seat::Between && lost.cause() == cause && 2 * lost.count >= count)
        {
            return self.counted(lost.count, SILENT, Self::lost_here(lost, answer));
        }
        match (cause, self.seat) {
            (Cause::AnswerUnseen, _) => Answer {
                outcome: Outcome::NotEnough,
                because: vec![cause.sentence(self.seat).to_owned()],
                owner: Some("the watched interface: one direction alone passes it".to_owned()),
                next: vec!["handshake why -i any, or with --one-sided".to_owned()],
                not: vec!["an outage: the initiators continue as if they were answered".to_owned()],
                ..answer
            },
            (Cause::NoSynAck, Seat::Responder) => self.unanswered_here(count, answer),
            (Cause::NoSynAck, Seat::Initiator) => Answer {
                because: vec![self.facts(cause, repeated)],
                owner: Some("the path, or the far host: no answer comes back to this one".to_owned()),
                next: self.far("what the far host sees"),
                ..answer
            },
            (Cause::NoSynAck, Seat::Between) => self.beyond(
                count,
                Answer {
                    because: self.facts_beyond(cause, repeated),
                    owner: Some(self.beyond_owner(cause, "the responder's side", "SYNs")),
                    next: self.far("what the responder sees"),
                    ..answer
                },
            ),
            (Cause::NoAck, Seat::Responder) => Answer {
                because: vec![self.facts(cause, repeated)],
                owner: Some("the network back to the clients, or their firewall".to_owned()),
                next: vec!["ip route get CLIENT, then handshake why on the client".to_owned()],
                ..answer
            },
            (Cause::NoAck, Seat::Initiator) => self.counted(
                count,
                SILENT,
                Answer {
                    because: vec![self.facts(cause, repeated)],
                    owner: Some("this host: SYN+ACKs arrive, and it sends no ACK".to_owned()),
                    next: vec![RULES.to_owned(), "conntrack -S".to_owned()],
                    ..answer
                },
            ),
            (Cause::NoAck, Seat::Between) => self.beyond(
                count,
                Answer {
                    because: self.facts_beyond(cause, repeated),
                    owner: Some(self.beyond_owner(cause, "the initiator's side", "SYN+ACKs")),
                    next: vec!["handshake why on the client".to_owned()],
                    ..answer
                },
            ),
        }
    }

    /// The owner where this host is between: a packet that came in has passed it only if its way out is watched.
    fn beyond_owner(&self, cause: Cause, side: &str, segments: &str) -> String {
        if self.lost.as_ref().is_some_and(|lost| lost.count != 0 && lost.cause() == cause) {
            format!("{side}, and this host: most {segments} pass here towards it, and it loses some")
        } else if self.sees_forwarding {
            format!("{side}: {segments} pass here towards it")
        } else {
            format!(
                "{side}, or this host if it forwards them: {segments} were seen here, not whether they left"
            )
        }
    }

    /// The answer where this host is between: what was seen to leave it was not lost in it.
    fn beyond(&self, count: u64, answer: Answer) -> Answer {
        if self.sees_forwarding { answer } else { self.counted(count, SILENT, answer) }
    }

    /// The answer where this host may be what makes `failed` attempts fail, with what its firewall counted.
    fn counted(&self, failed: u64, deeds: &[Deed], answer: Answer) -> Answer {
        let Some(found) = self.firewall.explains(failed, deeds, self.looked_ns) else { return answer };
        let rest = answer.next.into_iter().filter(|next| next != RULES && !found.next.contains(next));
        let next = found.next.iter().cloned().chain(rest).collect();
        Answer {
            because: answer.because.into_iter().chain(found.because).collect(),
            owner: Some(match answer.owner {
                Some(owner) => format!("{owner}; a count of this host points to {}", found.suspect),
                None => format!("this host: the count points to {}", found.suspect),
            }),
            next,
            rules: found.rules,
            ..answer
        }
    }

    fn is_flood(&self, cause: Cause) -> bool {
        let (open, never) = (self.cohort.open.of(cause), self.cohort.never_repeated.of(cause));
        cause != Cause::AnswerUnseen && open >= FLOOD && never * 10 >= open * 9
    }

    fn flood(&self, cause: Cause, answer: Answer) -> Answer {
        let (open, never) = (self.cohort.open.of(cause), self.cohort.never_repeated.of(cause));
        let cookies = self.of(KernelCounter::SyncookiesSent);
        let mut because = vec![format!("{} of {} never repeated their SYN", group(never), group(open))];
        if cookies != 0 {
            because.push(format!("the kernel sent {} SYN cookies", group(cookies)));
        }
        because.extend(self.beside());
        let mut answer = Answer {
            headline: format!("{}: a flood of SYNs", answer.headline),
            because,
            not: answer.not.into_iter().filter(|not| !not.starts_with("a flood")).collect(),
            owner: Some("the network's edge: forged sources, or clients that give up within 3 s".to_owned()),
            next: Vec::new(),
            ..answer
        };
        if (cause, self.seat) == (Cause::NoSynAck, Seat::Responder) {
            answer = self.counted(open, SILENT, answer);
        }
        // A backlog is of use where SYNs reach a listener: not here, or not before a rule that drops them.
        if answer.next.is_empty() {
            answer.next = if self.seat == Seat::Responder {
                vec!["sysctl net.ipv4.tcp_syncookies net.ipv4.tcp_max_syn_backlog".to_owned()]
            } else {
                self.far("whether SYN cookies are sent")
            };
        }
        answer
    }

    /// This host has the service's address, and answers no SYN.
    fn unanswered_here(&self, count: u64, answer: Answer) -> Answer {
        let overflows = self.of(KernelCounter::ListenOverflows);
        // Whatever a listener drops is among these (`tcp_listendrop` in net/ipv4/tcp_input.c).
        let drops = self.of(KernelCounter::ListenDrops).max(overflows);
        let seconds = span(self.looked_ns);
        let select =
            self.port().map_or_else(|| "ss -ltnp".to_owned(), |port| format!("ss -ltnp 'sport = :{port}'"));
        let overflowed = format!("ListenOverflows +{} in {seconds}", group(overflows));
        let dropped = format!("listeners of this host dropped {} SYNs or ACKs in {seconds}", group(drops));
        let unanswered = format!("the SYNs of {} arrive, and this host does not answer them", group(count));
        let no_queue = |queue: &Queue| {
            let (waiting, backlog) = (queue.waiting, queue.backlog);
            format!("the application ({waiting} of {backlog} in its accept queue, no overflow)")
        };
        let any = "this host: the listener's queue, a local firewall, or the route back";
        let firewall = "this host: a local firewall, or no route back";
        let (because, not, owner, next) = match &self.queue {
            // It was full at a look alone: what it dropped must explain what failed.
            Some(Some(queue)) if queue.was_full && 2 * overflows >= count => {
                return self.full_queue(queue, &overflowed, select, answer);
            }
            // The counters are of all listeners, and a queue may fill and empty between two looks.
            Some(Some(queue)) if drops != 0 => {
                let (waiting, backlog) = (queue.waiting, queue.backlog);
                let own = format!("in its own accept queue at most {waiting} of {backlog} waited at a look");
                (vec![unanswered, dropped, own], None, any, [select, RULES.into()])
            }
            None if drops != 0 => (vec![unanswered, dropped], None, any, [select, RULES.into()]),
            Some(Some(queue)) => {
                let route = "ip route get CLIENT".to_owned();
                (vec![unanswered], Some(no_queue(queue)), firewall, [RULES.into(), route])
            }
            Some(None) => {
                let because = vec!["no process listens there, and yet no RST refuses".to_owned()];
                let translated = "this host: a local firewall, address translation, or no route back";
                (because, None, translated, [RULES.into(), select])
            }
            None => (vec![unanswered], None, any, [select, RULES.into()]),
        };
        let not = not.into_iter().chain(answer.not).collect();
        let answer = Answer { because, not, owner: Some(owner.to_owned()), next: next.into(), ..answer };
        self.counted(count, SILENT, answer)
    }

    fn full_queue(&self, queue: &Queue, overflowed: &str, select: String, answer: Answer) -> Answer {
        let listener = queue.whose(" of ").unwrap_or_else(|| "the listener".to_owned());
        let full = format!("its accept queue is full: {} of {} waiting", queue.waiting, queue.backlog);
        let counted = self.of(KernelCounter::ListenOverflows) != 0;
        let id = queue.process.as_deref().and_then(process_id);
        let trace = id.map(|id| format!("strace -f -p {id} -e trace=accept,accept4"));
        Answer {
            because: std::iter::once(full).chain(counted.then(|| overflowed.to_owned())).collect(),
            owner: Some(format!("the application: {listener} accepts too slowly")),
            next: std::iter::once(select).chain(trace).collect(),
            ..answer
        }
    }

    fn lost_here(lost: &LostBetween, answer: Answer) -> Answer {
        let (owner, next) = match lost.cause() {
            Cause::NoAck => ("this host: it does not pass them on", RULES),
            Cause::NoSynAck | Cause::AnswerUnseen => (
                "this host, unless they leave by a way that is not watched, or with an address or a port that \
                 was not asked about",
                "handshake why -i any without a service, then nft list ruleset",
            ),
        };
        let sysctl = "sysctl net.ipv4.ip_forward net.ipv4.conf.all.rp_filter";
        Answer {
            because: vec![lost.to_string()],
            owner: Some(owner.to_owned()),
            next: vec![next.to_owned(), sysctl.to_owned()],
            ..answer
        }
    }

    fn ended(&self, end: &End, count: u64) -> Answer {
        let is_refused = end.verdict == Verdict::Refused;
        let all_answered = is_refused && self.cohort.open.total() == 0;
        let not = all_answered.then(|| "the network (each attempt gets an answer)".to_owned());
        let answer = Answer {
            outcome: Outcome::Trouble,
            headline: format!(
                "{} of {} connections are {}",
                self.share(count),
                group(self.cohort.attempts),
                end.what
            ),
            because: vec![end.because.to_owned()],
            not: not.into_iter().collect(),
            owner: Some(end.owner.to_owned()),
            next: if is_refused { self.far("what the responder sees") } else { vec![end.next.to_owned()] },
            rules: Vec::new(),
        };
        match (end.verdict, self.seat) {
            (Verdict::Refused, Seat::Responder) => self.refused_here(count, answer),
            (Verdict::Refused, Seat::Between) => self.counted(count, &[Deed::Reset], answer),
            (Verdict::Unreachable, Seat::Responder | Seat::Between) => {
                self.counted(count, &[Deed::Reject], answer)
            }
            (_, Seat::Responder | Seat::Initiator | Seat::Between) => answer,
        }
    }

    /// This host has the service's address, and refuses.
    fn refused_here(&self, count: u64, answer: Answer) -> Answer {
        let place = self.service.map_or_else(|| "there".to_owned(), |service| format!("on {service}"));
        let (because, owner) = match &self.queue {
            Some(None) => (
                format!("no process listens {place}"),
                "the application: it does not run, or listens elsewhere",
            ),
            Some(Some(_)) => (
                format!("a process listens {place}, and RSTs leave all the same"),
                "this host: a firewall that rejects, or a listener that was started just now",
            ),
            None => (
                "RSTs leave this host".to_owned(),
                "this host: the service does not listen, or a firewall rejects",
            ),
        };
        let next = vec!["ss -ltnp".to_owned(), RULES.to_owned()];
        let answer = Answer { because: vec![because], owner: Some(owner.to_owned()), next, ..answer };
        // A listener alone would not help where a rule rejects.
        self.counted(count, &[Deed::Reset], answer)
    }

    /// Attempts that were superseded, evicted or untracked.
    fn untold(&self) -> Answer {
        Answer {
            outcome: Outcome::NotEnough,
            headline: format!(
                "what became of {} of {} connections is not known",
                self.share(self.cohort.failed()),
                group(self.cohort.attempts)
            ),
            because: vec!["they were superseded, or the flow table was full".to_owned()],
            not: Vec::new(),
            owner: None,
            next: vec!["handshake watch --max-flows 1000000".to_owned()],
            rules: Vec::new(),
        }
    }

    /// What the repeats say, and what this host lost of it.
    fn facts_beyond(&self, cause: Cause, repeated: u64) -> Vec<String> {
        let lost = self.lost.iter().filter(|lost| lost.count != 0).map(ToString::to_string);
        std::iter::once(self.facts(cause, repeated)).chain(lost).collect()
    }

    /// What the initiators' repeats say.
    fn facts(&self, cause: Cause, repeated: u64) -> String {
        let open = group(self.cohort.open.of(cause));
        let waiting = group(self.cohort.waiting);
        format!("{} of {open} repeated their SYN; {waiting} initiators may still wait", group(repeated))
    }

    fn far(&self, what: &str) -> Vec<String> {
        let Some(service) = self.service else { return vec![format!("handshake why there: {what}")] };
        let (address, port) = (service.ip(), service.port());
        vec![format!("handshake why :{port} on {address}: {what}"), format!("tcptraceroute {address} {port}")]
    }

    /// What it is not, each with its reason.
    fn excluded(&self, cause: Cause, repeated: u64) -> Vec<String> {
        let cohort = &self.cohort;
        let mut not = Vec::new();
        if cohort.completed != 0 {
            not.push(format!("a firewall that drops all ({} complete)", self.share(cohort.completed)));
        }
        if cause == Cause::NoSynAck && self.seat == Seat::Responder {
            not.push("the way to this host (SYNs arrive)".to_owned());
        }
        if cause == Cause::NoAck && self.seat == Seat::Responder {
            let process = self.process().unwrap_or("the service");
            not.push(format!("{process} (SYN+ACKs leave)"));
        }
        let open = cohort.open.of(cause);
        if open != 0 && repeated * 2 >= open {
            not.push(format!("a flood ({} of {} repeat their SYN)", group(repeated), group(open)));
        }
        not
    }
}

/// The number in `NAME[PID]`; a name may have brackets of its own.
fn process_id(process: &str) -> Option<&str> {
    process.strip_suffix(']')?.rsplit_once('[').map(|(_, id)| id)
}

#[cfg(test)]
mod tests;
