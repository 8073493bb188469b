//! One answer for each fault and each seat.

use handshake_agent::fake::unit;
use handshake_agent::model::snapshot::TcpBooks;
use handshake_agent::nftables::CountedRule;
use handshake_common::verdict::{Seat, Verdict};

use super::*;
use crate::why::Conntrack;

/// Attempts, half-open without SYN+ACK and without ACK, refused; the rest completed.
fn cohort(attempts: u64, [no_syn_ack, no_ack]: [u64; 2], refused: u64) -> Cohort {
    let open = (Verdict::HalfOpen, [no_syn_ack, no_ack]);
    let completed = attempts - no_syn_ack - no_ack - refused;
    let ends = [(Verdict::Completed, [completed, 0]), (Verdict::Refused, [refused, 0])];
    let books = TcpBooks::of(attempts, &[open, ends[0], ends[1]]);
    Cohort::between(&books, &books)
}

/// A queue with room for 128.
fn queue(process: Option<&str>, waiting: u32) -> Queue {
    let process = process.map(ToOwned::to_owned);
    Queue { process, owner: None, waiting, backlog: 128, was_full: waiting > 128 }
}

fn evidence(seat: Seat, cohort: Cohort) -> Evidence {
    Evidence {
        service: Some("10.0.0.2:443".parse().expect("an address")),
        cohort,
        silent: 0,
        seat,
        queue: Some(Some(queue(None, 0))),
        beginner: None,
        counters: NetCounters::default(),
        firewall: Firewall::default(),
        lost: None,
        sees_forwarding: true,
        completed: 190,
        looked_ns: 10_000_000_000,
        quiet: None,
        exact: true,
    }
}

#[test]
fn each_fault_has_its_owner_from_each_seat() {
    use Seat::{Between, Initiator, Responder};
    let (unanswered, unacknowledged) = (cohort(30, [30, 0], 0), cohort(30, [0, 30], 0));
    let refused = cohort(30, [0, 0], 30);
    let table = [
        (Responder, unanswered, "a local firewall"),
        (Initiator, unanswered, "the path, or the far host"),
        (Between, unanswered, "the responder's side"),
        (Responder, unacknowledged, "the network back to the clients"),
        (Initiator, unacknowledged, "this host"),
        (Between, unacknowledged, "the initiator's side"),
        (Responder, refused, "this host"),
        (Initiator, refused, "the responder"),
        (Between, refused, "the responder"),
    ];
    for (seat, cohort, owner) in table {
        let answer = diagnose(&evidence(seat, cohort));
        let said = answer.owner.clone().unwrap_or_default();
        assert!(answer.outcome == Outcome::Trouble && said.contains(owner), "{seat:?}: {answer:?}");
        assert!(!answer.because.is_empty() && !answer.next.is_empty(), "{seat:?}: {answer:?}");
    }
}

#[test]
fn a_full_accept_queue_is_the_applications() {
    let seen = Evidence {
        queue: Some(Some(queue(Some("nginx[1873]"), 129))),
        counters: NetCounters::of_one(KernelCounter::ListenOverflows, 1_204),
        ..evidence(Seat::Responder, cohort(120, [74, 0], 0))
    };
    let answer = diagnose(&seen);
    assert_eq!(answer.headline, "61.7 % of 120 connections stay open, answered by nothing (no_syn_ack)");
    let because = ["its accept queue is full: 129 of 128 waiting", "ListenOverflows +1 204 in 10 s"];
    assert_eq!(answer.because, because);
    assert!(answer.owner.is_some_and(|owner| owner.contains("nginx[1873] accepts too slowly")));
    assert_eq!(answer.next, ["ss -ltnp 'sport = :443'", "strace -f -p 1873 -e trace=accept,accept4"]);
    assert!(
        !answer.not.iter().any(|not| not.starts_with("a flood")),
        "none is known to have repeated: {:?}",
        answer.not
    );
}

/// The listener's owner stands beside its process, and in its place where that is not known.
#[test]
fn the_application_is_named_with_its_owner() {
    let owner = Some(Arc::new(unit("nginx.service")));
    let table = [
        (Some("nginx[1873]"), owner.clone(), "nginx[1873] of nginx.service", true),
        (None, owner, "nginx.service", false),
        (Some("nginx[1873]"), None, "nginx[1873]", true),
        (None, None, "the listener", false),
    ];
    for (process, owner, named, has_id) in table {
        let queue = Queue { owner, ..queue(process, 129) };
        let counters = NetCounters::of_one(KernelCounter::ListenOverflows, 1_204);
        let seen = Evidence {
            queue: Some(Some(queue.clone())),
            counters,
            ..evidence(Seat::Responder, cohort(120, [74, 0], 0))
        };
        let answer = diagnose(&seen);
        let head = (named != "the listener").then(|| named.replace(" of ", ", "));
        assert_eq!(queue.whose(", "), head);
        assert_eq!(answer.owner, Some(format!("the application: {named} accepts too slowly")));
        assert_eq!(answer.next.iter().any(|next| next.starts_with("strace -f -p 1873")), has_id);
        let queue = Some(Some(Queue { was_full: false, waiting: 1, ..queue }));
        let silent =
            diagnose(&Evidence { silent: 39, queue, ..evidence(Seat::Responder, cohort(40, [0, 0], 0)) });
        let named = if named == "the listener" { "it" } else { named };
        assert_eq!(silent.owner, Some(format!("the application: {named} accepts and does not answer")));
        assert_eq!(silent.next == ["strace -f -p 1873"], has_id);
    }
}

/// Whose the failing attempts are is told where this host began them.
#[test]
fn the_one_that_began_what_fails_is_named() {
    let beginner = Some(Arc::new(unit("backup.service")));
    for cohort in [cohort(30, [30, 0], 0), cohort(30, [0, 30], 0), cohort(30, [0, 0], 30)] {
        for (seat, is_told) in [(Seat::Initiator, true), (Seat::Responder, false), (Seat::Between, false)] {
            let answer = diagnose(&Evidence { beginner: beginner.clone(), ..evidence(seat, cohort) });
            let told = answer.because.iter().any(|because| because == "backup.service began all that fail");
            assert_eq!(told, is_told, "{seat:?}: {answer:?}");
        }
    }
    let healthy = evidence(Seat::Initiator, cohort(30, [0, 0], 0));
    let answer = diagnose(&Evidence { beginner, ..healthy });
    assert!(answer.because.iter().all(|because| !because.contains("backup")), "{answer:?}");
}

#[test]
fn a_port_that_no_process_listens_on_is_closed_or_filtered() {
    let without = |cohort| Evidence { queue: Some(None), ..evidence(Seat::Responder, cohort) };
    let closed = diagnose(&without(cohort(30, [0, 0], 30)));
    assert!(closed.owner.is_some_and(|owner| owner.starts_with("the application: it does not run")));
    let filtered = diagnose(&without(cohort(30, [30, 0], 0)));
    assert!(filtered.owner.is_some_and(|owner| owner.contains("a local firewall")));
}

/// TCP is well, and the clients get nothing.
#[test]
fn a_server_that_accepts_and_never_answers_is_the_applications() {
    let queue = queue(Some("node[7]"), 1);
    let seen = |seat, silent| Evidence {
        silent,
        queue: Some(Some(queue.clone())),
        ..evidence(seat, cohort(40, [0, 0], 0))
    };
    let answer = diagnose(&seen(Seat::Responder, 39));
    assert_eq!(answer.headline, "97.5 % of 40 established connections have no answer (silent)");
    assert_eq!(answer.outcome, Outcome::Trouble);
    assert!(answer.owner.is_some_and(|owner| owner.contains("node[7] accepts and does not answer")));
    let far = diagnose(&seen(Seat::Initiator, 39));
    assert!(far.owner.is_some_and(|owner| owner.starts_with("the responder's application")));
    assert_eq!(diagnose(&seen(Seat::Responder, 4)).outcome, Outcome::Healthy, "some requests take long");
}

#[test]
fn what_a_router_lost_is_its_own() {
    let lost = LostBetween { count: 26, from: "srv0".to_owned(), to: Some("cli0".to_owned()) };
    let seen = Evidence { lost: Some(lost.clone()), ..evidence(Seat::Between, cohort(30, [0, 26], 0)) };
    let answer = diagnose(&seen);
    assert_eq!(answer.because, ["lost in this host: 26 SYN+ACKs came in by srv0 and did not leave by cli0"]);
    assert!(answer.owner.is_some_and(|owner| owner.starts_with("this host")));
    let few = Evidence { lost: Some(LostBetween { count: 2, ..lost }), ..seen };
    assert!(diagnose(&few).owner.is_some_and(|owner| owner.starts_with("the initiator's side")));
}

/// The counter of overflows is of all listeners: it accuses none alone.
#[test]
fn an_overflow_somewhere_accuses_no_service() {
    let counters = NetCounters::of_one(KernelCounter::ListenOverflows, 7);
    let seen = Evidence { counters, ..evidence(Seat::Responder, cohort(30, [20, 0], 0)) };
    let answer = diagnose(&seen);
    assert!(answer.owner.is_some_and(|owner| owner.starts_with("this host: the listener's queue")));
    assert!(!answer.not.iter().any(|not| not.starts_with("the application")), "{:?}", answer.not);
}

/// What was lost may have failed.
#[test]
fn an_inexact_look_is_not_healthy() {
    let healthy = evidence(Seat::Responder, cohort(100, [0, 0], 0));
    assert_eq!(diagnose(&healthy).outcome, Outcome::Healthy);
    let inexact = diagnose(&Evidence { exact: false, ..healthy });
    assert_eq!(inexact.outcome, Outcome::NotEnough);
    assert_eq!(inexact.headline, "100.0 % of 100 connections are established, as far as was seen");
}

/// With one interface of a router, or ingress hooks alone, its own firewall looks like the far side.
#[test]
fn where_no_way_out_is_watched_this_host_may_be_the_owner() {
    for (half_open, side) in [([30, 0], "the responder's side"), ([0, 30], "the initiator's side")] {
        let seen = evidence(Seat::Between, cohort(30, half_open, 0));
        let owner = |sees_forwarding| {
            diagnose(&Evidence { sees_forwarding, ..seen.clone() }).owner.unwrap_or_default()
        };
        assert!(owner(true).starts_with(&format!("{side}: ")), "{}", owner(true));
        assert!(owner(false).starts_with(&format!("{side}, or this host")), "{}", owner(false));
    }
}

/// A rule of this host that counted so many packets.
fn counting(deed: Deed, packets: u64) -> Firewall {
    let rule = CountedRule::of(Some(4), deed, 1_000 + packets, None);
    Firewall { risen: vec![Risen { rule, packets }], conntrack: None }
}

/// A backlog is of no use where a rule drops the SYNs, and where no listener is.
#[test]
fn a_flood_has_the_next_step_of_its_place() {
    let flood = |seat, firewall| {
        let mut cohort = cohort(200, [200, 0], 0);
        cohort.never_repeated = cohort.open;
        diagnose(&Evidence { firewall, ..evidence(seat, cohort) })
    };
    let table = [
        (Seat::Responder, Firewall::default(), "sysctl net.ipv4.tcp_syncookies", false),
        (Seat::Responder, counting(Deed::Drop, 200), "nft -a list chain", true),
        (Seat::Between, counting(Deed::Drop, 200), "handshake why :443 on 10.0.0.2", false),
    ];
    for (seat, firewall, next, is_counted) in table {
        let answer = flood(seat, firewall);
        assert!(answer.headline.ends_with("a flood of SYNs"), "{answer:?}");
        assert!(answer.next[0].starts_with(next), "{answer:?}");
        assert_eq!(!answer.rules.is_empty(), is_counted, "{answer:?}");
        assert!(!is_counted || !answer.next.iter().any(|next| next.contains("sysctl")), "{answer:?}");
    }
}

/// Without a listener, and behind a rule that rejects, each alone would refuse.
#[test]
fn a_rule_that_rejects_is_told_beside_a_missing_listener() {
    let seen = Evidence {
        queue: Some(None),
        firewall: counting(Deed::Reset, 30),
        ..evidence(Seat::Responder, cohort(30, [0, 0], 30))
    };
    let owner = diagnose(&seen).owner.unwrap_or_default();
    assert!(owner.starts_with("the application: it does not run") && owner.contains("points to"), "{owner}");
}

/// The counters are of all listeners: what the service's own queue held at the looks is told.
#[test]
fn drops_of_some_listener_are_told_beside_its_own_queue() {
    let counters = NetCounters::of_one(KernelCounter::ListenDrops, 223);
    let answer = diagnose(&Evidence { counters, ..evidence(Seat::Responder, cohort(30, [30, 0], 0)) });
    assert_eq!(answer.because[2], "in its own accept queue at most 0 of 128 waited at a look");
}

/// Where this host may be the loser, and only there.
#[test]
fn a_count_points_to_a_rule_where_this_host_may_have_lost_it() {
    use Seat::{Between, Initiator, Responder};
    let (unanswered, unacknowledged) = (cohort(30, [30, 0], 0), cohort(30, [0, 30], 0));
    let refused = cohort(30, [0, 0], 30);
    let lost = LostBetween { count: 26, from: "srv0".to_owned(), to: Some("cli0".to_owned()) };
    let table = [
        (Responder, unanswered, Deed::Drop, true, None, true),
        (Responder, unanswered, Deed::Reject, true, None, true),
        (Responder, unanswered, Deed::Reset, true, None, false),
        (Initiator, unanswered, Deed::Drop, true, None, false),
        (Between, unanswered, Deed::Drop, true, None, false),
        (Between, unanswered, Deed::Drop, false, None, true),
        (Responder, unacknowledged, Deed::Drop, true, None, false),
        (Initiator, unacknowledged, Deed::Drop, true, None, true),
        (Between, unacknowledged, Deed::Drop, true, None, false),
        (Between, unacknowledged, Deed::Drop, false, None, true),
        (Between, unacknowledged, Deed::Drop, true, Some(lost), true),
        (Responder, refused, Deed::Reset, true, None, true),
        (Responder, refused, Deed::Drop, true, None, false),
        (Initiator, refused, Deed::Reset, true, None, false),
        (Between, refused, Deed::Reset, true, None, true),
    ];
    for (seat, cohort, deed, sees_forwarding, lost, is_named) in table {
        let firewall = counting(deed, 30);
        let seen = Evidence { firewall, sees_forwarding, lost, ..evidence(seat, cohort) };
        let answer = diagnose(&seen);
        let owner = "; a count of this host points to the rule inet t c handle 4";
        let names = answer.owner.as_deref().is_some_and(|words| words.ends_with(owner));
        assert_eq!(names, is_named, "{seat:?} {deed:?}: {answer:?}");
        assert_eq!(answer.rules.len(), usize::from(is_named), "{answer:?}");
        let few = diagnose(&Evidence { firewall: counting(deed, 12), ..seen.clone() });
        let without = diagnose(&Evidence { firewall: Firewall::default(), ..seen });
        assert_eq!(few, without, "{seat:?} {deed:?}: less than half");
    }
}

#[test]
fn a_rule_that_counts_excludes_no_plainer_reason() {
    let firewall = || counting(Deed::Reset, 30);
    let closed = Evidence {
        queue: Some(None),
        firewall: firewall(),
        ..evidence(Seat::Responder, cohort(30, [0, 0], 30))
    };
    assert!(diagnose(&closed).owner.is_some_and(|owner| owner.starts_with("the application")));
    let queue = queue(None, 129);
    let full = |overflows| Evidence {
        queue: Some(Some(queue.clone())),
        firewall: counting(Deed::Drop, 30),
        counters: NetCounters::of_one(KernelCounter::ListenOverflows, overflows),
        ..evidence(Seat::Responder, cohort(30, [30, 0], 0))
    };
    assert!(diagnose(&full(30)).owner.is_some_and(|owner| owner.starts_with("the application")));
    // It was full at a look, and hardly dropped anything.
    let other = diagnose(&full(2)).owner.unwrap_or_default();
    assert!(
        other.contains("the listener's queue, a local firewall") && other.ends_with("handle 4"),
        "{other}"
    );
}

/// A SYN backlog without room drops too, and counts no overflow of the accept queue.
#[test]
fn what_listeners_drop_keeps_the_listener_among_the_owners() {
    let counters = NetCounters::of_one(KernelCounter::ListenDrops, 100);
    let answer = diagnose(&Evidence { counters, ..evidence(Seat::Responder, cohort(30, [30, 0], 0)) });
    assert!(answer.owner.is_some_and(|owner| owner.contains("the listener's queue")));
    assert!(!answer.not.iter().any(|not| not.contains("the application")), "{:?}", answer.not);
    assert!(answer.because.iter().any(|because| because.contains("dropped 100 SYNs or ACKs")));
}

/// A loss of this host that is not most of the failures is told beside the other owner.
#[test]
fn what_this_host_loses_too_is_told() {
    let lost = LostBetween { count: 4, from: "cli0".to_owned(), to: None };
    let seen = Evidence { lost: Some(lost), ..evidence(Seat::Between, cohort(30, [26, 0], 0)) };
    let answer = diagnose(&seen);
    let owner = answer.owner.unwrap_or_default();
    assert!(
        owner.starts_with("the responder's side, and this host") && !owner.contains("firewall"),
        "{owner}"
    );
    assert!(
        answer.because.iter().any(|because| because.contains("lost in this host")),
        "{:?}",
        answer.because
    );
}

#[test]
fn refusals_beside_silence_exclude_no_network() {
    let not =
        |no_syn_ack| diagnose(&evidence(Seat::Initiator, cohort(30, [no_syn_ack, 0], 20))).not.join(" ");
    assert!(not(0).contains("the network (each attempt gets an answer)"), "{}", not(0));
    assert!(!not(9).contains("the network"), "{}", not(9));
}

/// Connection tracking that has no room drops what comes, whatever the rules are.
#[test]
fn a_full_connection_tracking_table_is_this_hosts() {
    let conntrack = Conntrack { entries: 4_096, limit: 4_096, dropped: 41, ..Conntrack::default() };
    let firewall = Firewall { risen: Vec::new(), conntrack: Some(conntrack) };
    let seen = Evidence { firewall, ..evidence(Seat::Responder, cohort(30, [30, 0], 0)) };
    let answer = diagnose(&seen);
    let full = "the connection tracking table is full: 4 096 of 4 096, +41 dropped in 10 s";
    assert!(answer.because.iter().any(|because| because == full), "{answer:?}");
    let owner = "; a count of this host points to its connection tracking, which has no room";
    assert!(answer.owner.is_some_and(|words| words.ends_with(owner)));
    assert_eq!(answer.next[0], "sysctl -w net.netfilter.nf_conntrack_max=8192");
}

#[test]
fn too_little_is_no_answer_and_little_failure_is_healthy() {
    let few = diagnose(&evidence(Seat::Responder, cohort(4, [4, 0], 0)));
    assert_eq!(few.outcome, Outcome::NotEnough);
    assert_eq!(few.because, ["4 of them failed", "19 handshakes complete a second beside them"]);
    let quiet = Some("no SYN to :443 reached eth0: look upstream (9 packets seen)".to_owned());
    let nothing =
        diagnose(&Evidence { quiet: quiet.clone(), ..evidence(Seat::Between, cohort(0, [0, 0], 0)) });
    assert_eq!((nothing.outcome, nothing.because), (Outcome::NotEnough, quiet.into_iter().collect()));
    assert!(nothing.owner.is_some_and(|owner| owner.contains("before this host")));
    let healthy = diagnose(&evidence(Seat::Responder, cohort(1_000, [10, 0], 0)));
    assert_eq!(
        (healthy.outcome, healthy.headline.as_str()),
        (Outcome::Healthy, "99.0 % of 1 000 connections are established")
    );
    assert_eq!(diagnose(&evidence(Seat::Responder, cohort(1_000, [11, 0], 0))).outcome, Outcome::Trouble);
}
