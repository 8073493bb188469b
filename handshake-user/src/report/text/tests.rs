//! The text report of typical situations.

use std::sync::Arc;

use handshake_agent::fake::{BEGINNING, Fake, SECOND, maker, record, tcp, udp_record, unit};
use handshake_agent::hook::{Direction, Hook, HookLook, HookState, InterfaceLook, LinkState};
use handshake_agent::model::flow::{Flow, View};
use handshake_agent::model::snapshot::{
    CaptureOrigin, FIRST_UDP_ROW, InterfaceHooks, Interval, LiveOrigin, Origin, RunContext, Snapshot,
};
use handshake_agent::options::Filter;
use handshake_agent::owner::{Owner, OwnerBook};
use handshake_agent::source::local::HostAddresses;
use handshake_agent::source::opens::KernelOpens;
use handshake_common::abi::{Counter, TcpRecord};
use handshake_common::flow::{Family, Side};
use handshake_common::record::{Detail, Record, State};
use handshake_common::verdict::{Leg, Role, TCP, Verdict};
use handshake_common::wire::{Class, flag};
use unicode_width::UnicodeWidthStr as _;

use super::ladder::{LadderSteps, Step, StepMark, draw_ladder};
use super::{Style, draw, draw_event, draw_flow, draw_unlisted};
use crate::names::Names;
use crate::testing::{ACCURACY, JSON, README, firsts};
use crate::time::Zone;
use handshake_export::events::{Event, EventKind, Unlisted};

const ROW: u16 = 1;

/// A look at an interface that was named.
fn interface_look(state: LinkState, hooks: Vec<HookLook>) -> InterfaceLook {
    InterfaceLook {
        name: "eth0".to_owned(),
        number: Some(0),
        is_required: true,
        state,
        came_back: false,
        hooks,
    }
}

#[test]
fn nothing_was_seen_yet() {
    let snapshot = TestContext::live("").take(&mut Fake::new(), None);
    insta::assert_snapshot!(draw(&snapshot, None, Style::plain(100)));
}

#[test]
fn a_run_without_problems() {
    let (context, mut fake) = (TestContext::live(""), afternoon());
    let before = context.take(&mut fake, None);
    fake.later(SECOND);
    fake.ended(ROW, Counter::Completed, 120);
    fake.connect(ROW, 300_000, 120);
    let now = context.take(&mut fake, Some(&before));
    let interval = Interval::between(&before, &now);
    insta::assert_snapshot!(draw(&now, Some(&interval), Style::plain(100)));
    insta::assert_snapshot!("a_quiet_afternoons_summary", draw(&now, None, Style::plain(100)));
}

#[test]
fn no_ack_returns() {
    let (context, before, now) = incident();
    let interval = Interval::between(&before, &now);
    let shown = draw(&now, Some(&interval), Style::plain(100));
    assert!(context.filter.ports.len() == 1 && shown.contains("no_ack:") && shown.contains("return path"));
    insta::assert_snapshot!(shown);
    insta::assert_snapshot!("no_ack_returns_at_80", draw(&now, Some(&interval), Style::plain(80)));
    insta::assert_snapshot!("no_ack_returns_in_colour", draw(&now, Some(&interval), Style::coloured(100)));
}

#[test]
fn something_was_lost() {
    let mut fake = afternoon();
    fake.count(Counter::Untracked, 1_200);
    fake.ended(0, Counter::Evicted, 17);
    fake.reading.lost_before_hook = 30;
    fake.meanwhile = Some(Box::new(|fake| {
        fake.open(0, State::SynSent, 0);
    }));
    let snapshot = TestContext::live("").take(&mut fake, None);
    insta::assert_snapshot!(draw(&snapshot, None, Style::plain(100)));
}

#[test]
fn no_syn_passes_the_filter() {
    let (context, mut fake) = (TestContext::live("443"), Fake::new());
    fake.packets(Class::Ack, Family::V4, 1_900_000);
    fake.count(Counter::Filtered, 1_100_000);
    let before = context.take(&mut fake, None);
    fake.later(9 * SECOND);
    let now = context.take(&mut fake, Some(&before));
    assert!(!draw(&now, None, Style::plain(100)).contains("look upstream"), "9 s are not long");
    fake.later(SECOND);
    let now = context.take(&mut fake, Some(&now));
    insta::assert_snapshot!(draw(&now, None, Style::plain(100)));
    let unfiltered = TestContext::live("").take(&mut fake, None);
    assert!(!draw(&unfiltered, None, Style::plain(100)).contains("look upstream"));
}

/// "Look upstream" is said only where nothing keeps packets from the hooks.
#[test]
fn what_keeps_packets_from_the_hooks_goes_before_upstream() {
    let detached = || HookLook {
        direction: Direction::Ingress,
        hook: Hook::Tcx,
        state: HookState::Gone,
        again: Some(Err("no".to_owned())),
    };
    let table = [
        (LinkState::Down, vec![], "eth0 is down"),
        (LinkState::NoCarrier, vec![], "eth0 has no carrier"),
        (
            LinkState::Up,
            vec![detached()],
            "eth0: the ingress hook (tcx) is lost, and attaching again is refused: no",
        ),
    ];
    for (state, hooks, said) in table {
        let mut fake = Fake::new();
        let look = interface_look(state, hooks);
        fake.reading.sight.note(vec![look], fake.reading.now.ns);
        let context = TestContext::live("443");
        let before = context.take(&mut fake, None);
        let words = |snapshot: &Snapshot| draw(snapshot, None, Style::plain(200));
        assert!(words(&before).contains(said), "{}", words(&before));
        fake.later(10 * SECOND);
        let quiet = words(&context.take(&mut fake, Some(&before)));
        assert!(quiet.contains(&format!("no SYN to :443 reached eth0; {said}")), "{quiet}");
        assert!(!quiet.contains("look upstream"), "{quiet}");
    }
    // A hook that was lost since the last SYN: it may have passed then.
    let mut fake = Fake::new();
    let lost = HookLook { again: Some(Ok(())), ..detached() };
    let look = |hooks| interface_look(LinkState::Up, hooks);
    let context = TestContext::live("443");
    let before = context.take(&mut fake, None);
    fake.later(SECOND);
    fake.reading.sight.note(vec![look(vec![lost])], fake.reading.now.ns);
    fake.later(10 * SECOND);
    fake.reading.sight.note(vec![look(Vec::new())], fake.reading.now.ns);
    let quiet = draw(&context.take(&mut fake, Some(&before)), None, Style::plain(200));
    assert!(
        quiet.contains("reached eth0; eth0: the ingress hook (tcx) was lost, and is attached"),
        "{quiet}"
    );
}

/// What may drop packets before the hook is a place to look at first.
#[test]
fn a_program_before_ours_goes_before_upstream() {
    let (mut context, mut fake) = (TestContext::live("443"), Fake::new());
    let Origin::Live(live) = &mut context.origin else { panic!("it is live") };
    live.interfaces[0].before = vec!["cil_from_netdev (id 7)".to_owned()];
    fake.later(12 * SECOND);
    let shown = draw(&context.take(&mut fake, None), None, Style::plain(400));
    assert!(
        shown.contains("no SYN to :443 reached eth0: look at cil_from_netdev (id 7), which may drop packets before handshake sees them, and upstream ("),
        "{shown}"
    );
}

/// The kernel opens connections and the hooks are quiet: then "look upstream" would be wrong.
#[test]
fn connections_that_no_hook_saw_are_told() {
    for (port, beginning) in [("", "cause     this host"), ("443", "no SYN to :443 reached eth0; this host")]
    {
        let (context, mut fake) = (TestContext::live(port), Fake::new());
        let mut last = context.take(&mut fake, None);
        for (opened, said) in [(0, false), (0, false), (25, true)] {
            fake.later(10 * SECOND);
            let opens = fake.reading.opens.unwrap_or_default();
            fake.reading.opens = Some(KernelOpens { active: opens.active + opened, ..opens });
            last = context.take(&mut fake, Some(&last));
            let shown = draw(&last, None, Style::plain(400));
            assert_eq!(shown.contains(beginning), said, "{shown}");
            assert_eq!(
                shown.contains("opened 25 connections (ActiveOpens, PassiveOpens) while no SYN"),
                said
            );
            assert_eq!(shown.contains("look upstream"), !said && !port.is_empty(), "{shown}");
        }
        fake.later(SECOND);
        fake.packets(Class::Syn, Family::V4, 1);
        let shown = draw(&context.take(&mut fake, Some(&last)), None, Style::plain(400));
        assert!(!shown.contains("this host opened"), "{shown}");
    }
}

/// Once inexact, a run stays so. What was lost has its sentence in the interval that lost it, and at the end.
#[test]
fn each_interval_says_whether_it_was_exact() {
    let (context, mut fake) = (TestContext::live(""), Fake::new());
    let mut last = context.take(&mut fake, None);
    for (lost, said) in [
        (0, "· EXACT"),
        (3, "· INEXACT since 12:03:43 (3 tiny fragments); last interval inexact"),
        (0, "· INEXACT since 12:03:43 (3 tiny fragments); last interval exact"),
        (1, "· INEXACT since 12:03:43 (4 tiny fragments); last interval inexact"),
    ] {
        fake.later(SECOND);
        fake.count(Counter::SplitHeaders, lost);
        let now = context.take(&mut fake, Some(&last));
        let shown = draw(&now, Some(&Interval::between(&last, &now)), Style::plain(200));
        assert!(shown.lines().next().is_some_and(|line| line.ends_with(said)), "{shown}");
        assert_eq!(shown.contains("\ninexact   split_headers "), lost != 0, "{shown}");
        last = now;
    }
    let whole = draw(&last, None, Style::plain(200));
    assert!(
        whole.contains("· INEXACT since 12:03:43 (4 tiny fragments)\ninexact   split_headers 4: first"),
        "{whole}"
    );
}

/// Legs are left out for other reasons than repeats too, such as --one-sided.
#[test]
fn retried_is_said_of_repeats_alone() {
    for (repeats, said) in [(0, "p99 4.0 µs\n"), (1, "(retried 5.0 %)"), (30, "(retried 100.0 %)")] {
        let (context, mut fake) = (TestContext::live(""), Fake::new());
        fake.ended(ROW, Counter::Completed, 20);
        fake.sample(Leg::Connect, 4_000, 20);
        fake.count(Counter::ExcludedSynToSynAck, 20);
        fake.count(Counter::SynRetransmits, repeats);
        let shown = draw(&context.take(&mut fake, None), None, Style::plain(100));
        assert!(shown.contains(said), "{shown}");
    }
}

/// The services of UDP without an answer, most flows first; some of many.
#[test]
fn udp_services_without_an_answer_are_named() {
    let mut fake = Fake::new();
    for (row, [unanswered, unreachable]) in (1..).zip([[2, 0], [0, 9], [34, 1], [0, 0], [1, 0]]) {
        fake.service(FIRST_UDP_ROW + row, &format!("10.0.0.{row}:53"));
        for (counter, by) in [
            (Counter::UdpFlows, 1_000 + unanswered + unreachable),
            (Counter::UdpAnswered, 1_000),
            (Counter::UdpWaiting, unanswered),
            (Counter::UdpUnreachable, unreachable),
        ] {
            fake.gauge(FIRST_UDP_ROW + row, counter, by);
        }
    }
    let shown = draw(&TestContext::live("").take(&mut fake, None), None, Style::plain(200));
    let wanted = "10.0.0.3:53 unanswered 34, unreachable 1 of 1 035 · 10.0.0.2:53 unreachable 9 of 1 009 · \
                  10.0.0.1:53 unanswered 2 of 1 002 · 1 more\n";
    assert!(shown.contains(wanted), "{shown}");
}

/// A server that accepts and never answers is named where all of the silent connections are to it.
#[test]
fn a_server_that_does_not_answer_is_a_cause() {
    let (context, mut fake) = (TestContext::live(""), Fake::new());
    fake.later(100 * SECOND);
    fake.service(ROW, "10.0.0.2:8443");
    fake.service(2, "10.0.0.3:9000");
    (0..12).for_each(|_| fake.silent(ROW, 4 * SECOND));
    fake.silent(ROW, 2 * SECOND);
    let shown = draw(&context.take(&mut fake, None), None, Style::plain(300));
    let cause = "silent: 12 connections to 10.0.0.2:8443 are established, the client's data is acknowledged, and \
                 the server has sent no byte for longer than --half-open-after: the application accepts and does \
                 not answer. Look at: the application's threads, its backends";
    assert!(shown.contains(cause), "{shown}");
    fake.silent(2, 4 * SECOND);
    let shown = draw(&context.take(&mut fake, None), None, Style::plain(300));
    assert!(
        shown.contains("silent: 13 connections, 12 of them to 10.0.0.2:8443, are established"),
        "{shown}"
    );
}

/// The time to the first byte stands beside the legs where one came.
#[test]
fn a_first_byte_is_timed() {
    let (context, mut fake) = (TestContext::live(""), Fake::new());
    fake.ended(ROW, Counter::Completed, 20);
    fake.sample(Leg::Connect, 4_000, 20);
    let without = draw(&context.take(&mut fake, None), None, Style::plain(200));
    fake.sample(Leg::AckToFirstByte, 2_000_000, 20);
    let with = draw(&context.take(&mut fake, None), None, Style::plain(200));
    assert!(!without.contains("first byte") && with.contains("first byte p50 2.0 ms p99 2.0 ms"), "{with}");
}

/// A filter that SYNs have passed is right, and so is the way to it.
#[test]
fn silence_after_attempts_is_told_as_silence() {
    let (context, mut fake) = (TestContext::live("443"), Fake::new());
    fake.ended(ROW, Counter::Completed, 20);
    let before = context.take(&mut fake, None);
    fake.later(12 * SECOND);
    let quiet = draw(&context.take(&mut fake, Some(&before)), None, Style::plain(100));
    assert!(quiet.contains("no SYN to :443 reached eth0 for 12 s\n"), "{quiet}");
    assert!(!quiet.contains("look upstream"), "{quiet}");
}

/// A hook that sees one direction alone, or frames that it cannot read, shows.
#[test]
fn what_is_in_no_attempt_is_shown() {
    let (context, mut fake) = (TestContext::live(""), Fake::new());
    let nothing = draw(&context.take(&mut fake, None), None, Style::plain(200));
    assert!(
        ["midstream", "orphan_syn_ack", "non_ip"].iter().all(|name| !nothing.contains(name)),
        "{nothing}"
    );
    fake.count(Counter::Midstream, 3);
    fake.count(Counter::OrphanSynAck, 20);
    fake.packets(Class::NonIp, Family::V4, 125);
    let shown = draw(&context.take(&mut fake, None), None, Style::plain(200));
    assert!(shown.contains("midstream 3; orphan_syn_ack 20; non_ip 125;"), "{shown}");
}

#[test]
fn a_filter_of_udp_traffic_does_not_report_missing_syns() {
    let (context, mut fake) = (TestContext::live("53"), Fake::new());
    fake.gauge(FIRST_UDP_ROW, Counter::UdpFlows, 1);
    fake.gauge(FIRST_UDP_ROW, Counter::UdpAnswered, 1);
    fake.later(60 * SECOND);
    assert!(!draw(&context.take(&mut fake, None), None, Style::plain(100)).contains("look upstream"));
}

/// A kernel does not count by EtherType; a capture's are named.
#[test]
fn most_packets_that_are_not_ip_are_said_first() {
    let second = |context: &TestContext, others: u64| {
        let mut fake = Fake::new();
        fake.packets(Class::NonIp, Family::V4, 2_431);
        fake.packets(Class::Icmp, Family::V4, others);
        let text = draw(&context.take(&mut fake, None), None, Style::plain(160));
        text.lines().nth(1).unwrap_or_default().to_owned()
    };
    let live = TestContext::live("");
    assert_eq!(
        second(&live, 0),
        "not ip    2 431 of 2 431 packets are not IP: not entered. Look at: tcpdump -e"
    );
    assert!(second(&live, 2_431).contains("2 431 of 4 862 packets"));
    assert!(!second(&live, 2_432).contains("not entered"));
    let not_ip = [(Some(0x8909), 2_400), (Some(0x0806), 30), (None, 1)].into();
    let capture = CaptureOrigin { not_ip, ..CaptureOrigin::default() };
    let capture = TestContext { origin: Origin::Capture(capture), ..TestContext::live("") };
    let said = "(EtherType 0x8909, Cisco MetaData; EtherType 0x0806, ARP): not entered";
    assert!(second(&capture, 0).contains(said), "{}", second(&capture, 0));
}

#[test]
fn a_capture_that_ends_with_an_open_attempt() {
    let mut fake = afternoon();
    fake.open(ROW, State::SynSent, SECOND);
    fake.reading.stopped = true;
    let context = TestContext {
        origin: Origin::Capture(CaptureOrigin {
            path: "evil\x1b[2J.pcap".to_owned(),
            ..CaptureOrigin::default()
        }),
        ..TestContext::live("")
    };
    insta::assert_snapshot!(draw(&context.take(&mut fake, None), None, Style::plain(100)));
}

/// The kinds of problems that different teams fix, and the sentence of each.
#[test]
fn each_kind_of_problem_has_its_sentence() {
    type Trouble = fn(&mut Fake);
    let table: [(Trouble, &str, &str); 5] = [
        (|fake| fake.ended(ROW, Counter::Refused, 50), "refused:", "is the service listening"),
        (|fake| stuck(fake, ROW, State::SynReceived), "no_ack:", "return path"),
        (|fake| fake.count(Counter::AckIgnored, 50), "ack_ignored:", "accept queue full"),
        (|fake| stuck(fake, 2, State::SynSent), "no_syn_ack:", "local firewall"),
        (
            |fake| stuck(fake, ROW, State::SynSent),
            "no_syn_ack:",
            "10.0.0.2:443 completes others: accept queue full?",
        ),
    ];
    for (trouble, name, words) in table {
        let mut fake = Fake::new();
        fake.service(ROW, "10.0.0.2:443");
        fake.ended(ROW, Counter::Completed, 200);
        trouble(&mut fake);
        let shown = draw(&TestContext::live("").take(&mut fake, None), None, Style::plain(400));
        let cause = shown.lines().find(|line| line.starts_with("cause")).expect(name);
        assert!(cause.contains(name) && cause.contains(words), "{shown}");
        assert_eq!(shown.matches("Look at").count(), 1, "only the problem is named: {shown}");
    }
}

/// A cause says what else came to most of the attempts that it is about.
#[test]
fn a_cause_knows_the_flags_of_its_attempts() {
    use handshake_common::abi::tag;
    let table = [
        (State::SynSent, tag::BAD_SYN_ACK | tag::RESET, "a SYN+ACK came that acknowledges another number"),
        (State::SynSent, tag::RESET, "a RST came that does not acknowledge the SYN"),
        (State::SynSent, tag::RESET | tag::REVISED, "a RST ended it, and it was tried again"),
        (State::SynSent, tag::REVISED, "an ICMP error or another SYN came"),
        (State::SynReceived, tag::BAD_ACK, "the connection continues"),
    ];
    for (state, flags, words) in table {
        for (with, is_said) in [(25, true), (24, false)] {
            let mut fake = Fake::new();
            stuck(&mut fake, ROW, state);
            fake.records.iter_mut().take(with).for_each(|record| record.flags |= flags);
            let shown = draw(&TestContext::live("").take(&mut fake, None), None, Style::plain(400));
            assert_eq!(shown.contains(words), is_said, "{shown}");
        }
    }
}

#[test]
fn a_rare_or_minor_problem_is_not_shown() {
    let mut fake = Fake::new();
    fake.ended(0, Counter::Completed, 10_000);
    fake.ended(0, Counter::Refused, 99);
    let shown = draw(&TestContext::live("").take(&mut fake, None), None, Style::plain(100));
    assert!(!shown.contains("cause"), "one in a hundred is rare: {shown}");
    fake.ended(0, Counter::Unreachable, 5_000);
    fake.ended(0, Counter::Refused, 300);
    let shown = draw(&TestContext::live("").take(&mut fake, None), None, Style::plain(100));
    assert!(shown.contains("unreachable:") && !shown.contains("refused:"), "{shown}");
}

#[test]
fn a_problem_before_the_interval_is_not_shown() {
    let (context, mut fake) = (TestContext::live(""), afternoon());
    fake.ended(0, Counter::Refused, 90_000);
    let before = context.take(&mut fake, None);
    fake.later(SECOND);
    fake.ended(ROW, Counter::Completed, 10);
    let now = context.take(&mut fake, Some(&before));
    let interval = Interval::between(&before, &now);
    assert!(!draw(&now, Some(&interval), Style::plain(100)).contains("refused:"));
    assert!(draw(&now, None, Style::plain(100)).contains("refused:"));
}

#[test]
fn a_new_problem_shows_after_hours_without_one() {
    let (context, mut fake) = (TestContext::live(""), afternoon());
    let before = context.take(&mut fake, None);
    fake.later(SECOND);
    fake.ended(ROW, Counter::Completed, 3);
    fake.ended(ROW, Counter::Refused, 7);
    fake.open(ROW, State::SynSent, 0);
    let now = context.take(&mut fake, Some(&before));
    let interval = Interval::between(&before, &now);
    let shown = draw(&now, Some(&interval), Style::plain(100));
    assert!(shown.contains("completed 24 043 (99.9 %, now 30.0 %)"), "{shown}");
    assert!(shown.contains("refused: "), "{shown}");
}

#[test]
fn the_balance_has_every_term_and_adds_up() {
    let mut fake = Fake::new();
    let ends = TCP.iter().filter(|row| row.role == Role::End);
    for (count, row) in (1..).zip(ends) {
        fake.ended(0, row.gauges[0].counter, count * 1_001);
    }
    fake.count(Counter::Untracked, 5);
    fake.count(Counter::Attempts, 5);
    fake.open(0, State::SynSent, 0);
    fake.open(0, State::SynReceived, 9 * SECOND);
    let shown = draw(&TestContext::live("").take(&mut fake, None), None, Style::plain(400));
    let balance = shown.lines().find(|line| line.starts_with("balance")).expect("it is always shown");
    let (attempts, terms) = balance["balance".len()..].split_once('=').expect("an equation");
    let number = |text: &str| -> u64 {
        text.chars().filter(char::is_ascii_digit).collect::<String>().parse().expect("a number")
    };
    assert_eq!(terms.split('+').map(number).sum::<u64>(), number(attempts));
    let in_books = Verdict::ALL.iter().filter(|verdict| verdict.is_in_books()).count();
    assert_eq!(terms.split('+').count(), in_books);
}

/// README.md and docs/json.md print the identity, and docs/accuracy.md compares each verdict with other
/// tools.
#[test]
fn the_documentation_names_every_verdict() {
    let expected: Vec<&str> = TCP.iter().filter(|row| row.is_term()).map(|row| row.name).collect();
    for (page, start) in [(README, "    attempts = "), (JSON, "    tcp.attempts = ")] {
        let (_, rest) = page.split_once(start).expect("the page prints the identity");
        let sum = rest.split("\n\n").next().unwrap_or_default().split('+');
        // A verdict that is counted by cause has a term per cause.
        let mut terms: Vec<&str> = sum.filter_map(|term| term.trim().split('.').next()).collect();
        terms.dedup();
        assert_eq!(terms, expected, "the identity after {start:?}");
    }
    let compared = firsts(ACCURACY, "handshake |");
    for row in &TCP {
        assert!(compared.contains(row.name), "docs/accuracy.md does not compare {}", row.name);
    }
}

#[test]
fn no_line_is_wider_than_the_width() {
    let (_, before, now) = incident();
    let interval = Interval::between(&before, &now);
    for width in [60, 80, 100, 132] {
        for shown in [draw(&now, Some(&interval), Style::plain(width)), draw(&now, None, Style::plain(width))]
        {
            for each in shown.lines() {
                assert!(each.width() <= width, "over {width}: {each}");
            }
        }
    }
}

#[test]
fn wide_characters_count_as_two_columns() {
    let mut context = TestContext::live("");
    for path in ["捕获/握手.pcap", "捕获文件/北京/握手记录.pcap"] {
        context.origin = Origin::Capture(CaptureOrigin { path: path.to_owned(), ..CaptureOrigin::default() });
        let shown = draw(&context.take(&mut Fake::new(), None), None, Style::plain(40));
        assert!(shown.contains(path), "{shown}");
        let over: Vec<&str> = shown.lines().filter(|each| each.width() > 40).collect();
        assert!(over.is_empty(), "{over:?}");
    }
}

#[test]
fn interfaces_with_the_same_hooks_share_an_entry() {
    let mut context = TestContext::live("");
    let Origin::Live(LiveOrigin { interfaces, .. }) = &mut context.origin else { panic!("it is live") };
    let mut second = interfaces[0].clone();
    second.name = "eth1".to_owned();
    let odd = InterfaceHooks {
        name: "wg0".to_owned(),
        ingress: Some("xdp-generic".to_owned()),
        merged: true,
        before: vec!["cil_from_netdev".to_owned()],
        ..InterfaceHooks::default()
    };
    interfaces.extend([second, odd]);
    let shown = draw(&context.take(&mut Fake::new(), None), None, Style::plain(200));
    assert!(shown.starts_with(
        "handshake · eth0, eth1 · ingress tcx, egress tcx · wg0 · ingress xdp-generic, segments merged, behind cil_from_netdev · 12:03:41"
    ), "{shown}");
}

#[test]
fn a_flow_is_one_line() {
    let snapshot = TestContext::live("").take(&mut Fake::new(), None);
    let view = View::of(&snapshot);
    let flows = [
        record("10.0.0.1:40000", "10.0.0.2:443", State::SynReceived),
        record("[2001:db8::1]:40000", "[2001:db8::2]:443", State::Established),
        udp_record("10.0.0.1:5000", "10.0.0.2:53", State::UdpWaiting),
    ];
    let lines: String =
        flows.iter().map(|each| draw_flow(&view, &Flow::of(*each), Style::plain(40))).collect();
    insta::assert_snapshot!(lines);
}

/// The responder's port has a name, the initiator's is any that was free.
#[test]
fn ends_have_names_where_they_are_asked_for() {
    let mut fake = Fake::new();
    fake.service(1, "10.0.0.2:443");
    fake.ended(1, Counter::Completed, 3);
    let snapshot = TestContext::live("").take(&mut fake, None);
    let flow = Flow::of(record("10.0.0.1:443", "10.0.0.2:443", State::SynReceived));
    let names = Names::fixed("10.0.0.1 laptop\n10.0.0.2 web.example\n", "https 443/tcp\n");
    let style = Style::plain(100).naming(names);
    let line = draw_flow(&View::of(&snapshot), &flow, style);
    assert!(line.contains("tcp laptop:443 → web.example:https  "), "{line}");
    let report = draw(&snapshot, None, style);
    assert!(report.contains("services  web.example:https 100.0 % of 3"), "{report}");
}

/// Each end has its owner where it is known, beside a name too; what steers a terminal is escaped.
#[test]
fn ends_have_their_owners() {
    let evil = Owner { cgroup: "/a/\u{1b}[2J".to_owned(), unit: None, container: None, pod: None };
    let root = Owner { cgroup: "/".to_owned(), unit: None, container: None, pod: None };
    let owners = [(1, unit("curl.service")), (2, unit("nginx.service")), (3, evil), (5, root)];
    let owners = OwnerBook::fixed(owners);
    let snapshot = TestContext { owners, ..TestContext::live("") }.take(&mut Fake::new(), None);
    let view = View::of(&snapshot);
    let style = Style::plain(100).naming(Names::fixed("10.0.0.2 web.example\n", "https 443/tcp\n"));
    for (groups, ends) in [
        ([1, 2], "10.0.0.1:40000 (curl.service) → web.example:https (nginx.service)  "),
        ([1, 0], "10.0.0.1:40000 (curl.service) → web.example:https  "),
        ([0, 3], "10.0.0.1:40000 → web.example:https (\\u{1b}[2J)  "),
        ([4, 5], "10.0.0.1:40000 → web.example:https  "),
    ] {
        let mut open = record("10.0.0.1:40000", "10.0.0.2:443", State::SynReceived);
        open.control_groups.ids = groups;
        let flow = Flow::of(open);
        let line = draw_flow(&view, &flow, style);
        assert!(line.contains(&format!("  tcp {ends}")), "{line}");
        let line = draw_event(&view, &Event { kind: EventKind::HalfOpen, flow, at_ns: 0 }, style);
        assert!(line.contains(&format!("  {ends}")), "{line}");
    }
    let mut open = record("10.0.0.1:40000", "10.0.0.2:443", State::SynReceived);
    open.control_groups.ids = [5, 2];
    open.makers.ends = [maker(812, b"\x1b[2J\0"), maker(1_873, b"nginx")];
    let line = draw_flow(&view, &Flow::of(open), style);
    let ends = "10.0.0.1:40000 (\\u{1b}[2J[812]) → web.example:https (nginx[1873], nginx.service)  ";
    assert!(line.contains(&format!("  tcp {ends}")), "{line}");
}

/// The worst workload is first; a single one on each side that does well says nothing.
#[test]
fn workloads_are_named_where_they_say_something() {
    use Side::{Initiator, Responder};
    let names =
        ["curl.service", "nginx.service", "backup.service", "db.service", "mail.service", "a.service"];
    let owners = OwnerBook::fixed((1..).zip(names.map(unit)));
    let context = TestContext { owners, ..TestContext::live("") };
    let line = |fake: &mut Fake| {
        let shown = draw(&context.take(fake, None), None, Style::plain(300));
        shown.lines().find_map(|line| Some(line.strip_prefix("workload  ")?.to_owned()))
    };
    let mut fake = Fake::new();
    assert_eq!(line(&mut fake), None);
    fake.workload(1, Initiator, &[(Counter::Completed, 30)]);
    fake.workload(2, Responder, &[(Counter::Completed, 1_204)]);
    assert_eq!(line(&mut fake), None, "one on each side, and all completes");
    // Refused once or twice, as by a port that is closed.
    fake.workload(9, Initiator, &[(Counter::Refused, 4)]);
    assert_eq!(line(&mut fake), None);
    fake.workloads.remove(1);
    fake.workload(2, Responder, &[(Counter::Completed, 600), (Counter::Refused, 604)]);
    let wanted = "nginx.service serves 49.8 % of 1 204 completed · curl.service opens 100.0 % of 30";
    assert_eq!(line(&mut fake).as_deref(), Some(wanted));
    fake.workload(3, Initiator, &[(Counter::Completed, 7)]);
    fake.workload(8, Initiator, &[(Counter::Completed, 900), (Counter::Refused, 100)]);
    for group in 4..7 {
        fake.workload(group, Responder, &[(Counter::Completed, group)]);
    }
    let wanted = "nginx.service serves 49.8 % of 1 204 completed · cgroup id 8 opens 90.0 % of 1 000 · \
                  curl.service opens 100.0 % of 30 · backup.service opens 100.0 % of 7 · \
                  a.service serves 100.0 % of 6 · 2 more";
    assert_eq!(line(&mut fake).as_deref(), Some(wanted));
}

/// A host without units has all in the root of the tree, which says nothing by itself.
#[test]
fn the_root_alone_is_no_workload() {
    let root = Owner { cgroup: "/".to_owned(), unit: None, container: None, pod: None };
    let owners = OwnerBook::fixed([(1, root), (2, unit("curl.service"))]);
    let (context, mut fake) = (TestContext { owners, ..TestContext::live("") }, Fake::new());
    fake.workload(1, Side::Initiator, &[(Counter::Refused, 20)]);
    fake.workload(1, Side::Responder, &[(Counter::Completed, 3)]);
    let shown = |fake: &mut Fake| draw(&context.take(fake, None), None, Style::plain(200));
    assert!(!shown(&mut fake).contains("workload"));
    fake.workload(2, Side::Initiator, &[(Counter::Completed, 3)]);
    let wanted = "\nworkload  / opens 0.0 % of 20 completed · / serves 100.0 % of 3 · curl.service opens 100.0 % of 3\n";
    assert!(shown(&mut fake).contains(wanted), "{}", shown(&mut fake));
}

/// After a day without a failure, a workload that begins to fail comes first.
#[test]
fn a_workload_that_begins_to_fail_is_named() {
    let owners = OwnerBook::fixed([(1, unit("curl.service")), (2, unit("nginx.service"))]);
    let (context, mut fake) = (TestContext { owners, ..TestContext::live("") }, Fake::new());
    fake.workload(1, Side::Initiator, &[(Counter::Completed, 1_000_000)]);
    fake.workload(2, Side::Responder, &[(Counter::Completed, 10)]);
    let before = context.take(&mut fake, None);
    fake.later(SECOND);
    fake.workloads.clear();
    fake.workload(1, Side::Initiator, &[(Counter::Completed, 1_000_001), (Counter::Refused, 9)]);
    fake.workload(2, Side::Responder, &[(Counter::Completed, 10)]);
    let now = context.take(&mut fake, Some(&before));
    let shown = draw(&now, Some(&Interval::between(&before, &now)), Style::plain(300));
    let wanted = "\nworkload  curl.service opens 99.9 % of 1 000 010 completed, now 10.0 % · nginx.service serves \
                  100.0 % of 10\n";
    assert!(shown.contains(wanted), "{shown}");
}

/// Of a capture with the date.
#[test]
fn an_event_is_one_line_with_its_time_and_age() {
    let mut fake = Fake::new();
    let now_ns = fake.reading.now.ns;
    let open = |ago_ns| {
        let open = record("10.0.0.1:40000", "10.0.0.2:443", State::SynReceived);
        let detail = TcpRecord { opened_ns: now_ns - ago_ns, syn: 3, syn_ack: 4, ..tcp(&open) };
        Record { detail: Detail::Tcp(detail), ..open }
    };
    let live = TestContext::live("").take(&mut fake, None);
    let view = View::of(&live);
    let end = Flow::ended(open(8_100_000_000), Verdict::HalfOpenExpired, now_ns);
    let events = [
        Event { kind: EventKind::HalfOpen, flow: Flow::of(open(3 * SECOND)), at_ns: now_ns },
        Event { kind: EventKind::Ended, flow: end, at_ns: now_ns },
    ];
    let style = Style::plain(40).within(Zone::posix("XYZ-2"));
    let lines: String = events.iter().map(|event| draw_event(&view, event, style)).collect();
    let unlisted = draw_unlisted(&view, Unlisted { half_open: 22_355, ended: 7 }, style);
    insta::assert_snapshot!(lines + &unlisted);
    let origin = Origin::Capture(CaptureOrigin { path: "a.pcap".to_owned(), ..CaptureOrigin::default() });
    let capture = TestContext { origin, ..TestContext::live("") }.take(&mut fake, None);
    let line = draw_event(&View::of(&capture), &events[0], style);
    assert!(line.starts_with("2026-03-01 14:03:41 +02:00    +3.0 s  10.0.0.1:40000 → "), "{line}");
    let head = draw(&capture, None, style);
    assert!(head.contains("· 2026-03-01 14:03:41 +02:00"), "{head}");
}

/// The context of a test's snapshots: what is watched, and the filter.
#[derive(Clone)]
struct TestContext {
    origin: Origin,
    filter: Filter,
    owners: OwnerBook,
}

impl TestContext {
    /// eth0, with a filter if a port is given.
    fn live(port: &str) -> Self {
        let interface = InterfaceHooks {
            name: "eth0".to_owned(),
            ingress: Some("tcx".to_owned()),
            egress: Some("tcx".to_owned()),
            ..InterfaceHooks::default()
        };
        let ports = if port.is_empty() { Vec::new() } else { vec![port.parse().expect("a port")] };
        Self {
            origin: Origin::Live(LiveOrigin {
                groups: vec![Some(interface.name.clone())],
                interfaces: vec![interface],
                gone: 0,
            }),
            filter: Filter { ports, nets: Vec::new() },
            owners: OwnerBook::default(),
        }
    }

    fn take(&self, fake: &mut Fake, previous: Option<&Snapshot>) -> Snapshot {
        let context = RunContext {
            origin: self.origin.clone(),
            began: BEGINNING,
            filter: self.filter.clone(),
            top: 10,
            owners: self.owners.clone(),
        };
        if matches!(self.origin, Origin::Live(_)) {
            fake.host = Arc::new(HostAddresses::of(["10.0.0.2".parse().expect("an address")]));
        }
        Snapshot::take(fake, &Arc::new(context), previous).expect("a fake never fails")
    }
}

/// Adds fifty half-open attempts in a state.
fn stuck(fake: &mut Fake, row: u16, state: State) {
    for _ in 0..50 {
        fake.open(row, state, 5 * SECOND);
    }
}

/// Nearly everything completes, with a little of everything else.
fn afternoon() -> Fake {
    let mut fake = Fake::new();
    fake.later(20 * SECOND);
    fake.service(ROW, "10.0.0.2:443");
    fake.service(2, "[2001:db8::2]:22");
    fake.ended(ROW, Counter::Completed, 24_000);
    fake.ended(2, Counter::Completed, 40);
    fake.ended(2, Counter::Refused, 3);
    fake.ended(ROW, Counter::InitiatorAborted, 2);
    fake.open(ROW, State::SynSent, SECOND / 100);
    fake.service(FIRST_UDP_ROW + 1, "10.0.0.2:53");
    for (counter, count) in [
        (Counter::UdpFlows, 12),
        (Counter::UdpAnswered, 9),
        (Counter::UdpWaiting, 2),
        (Counter::UdpMulticast, 1),
    ] {
        fake.gauge(FIRST_UDP_ROW + 1, counter, count);
    }
    fake.count(Counter::UdpPackets, 31);
    fake.count(Counter::SynRetransmits, 7);
    for (leg, ns) in [(Leg::SynToSynAck, 41_000), (Leg::SynAckToAck, 180_000), (Leg::Connect, 221_000)] {
        fake.sample(leg, ns, 24_000);
    }
    fake.packets(Class::Syn, Family::V4, 24_052);
    fake.packets(Class::SynAck, Family::V4, 24_042);
    fake.packets(Class::Ack, Family::V4, 260_000);
    fake.packets(Class::Udp, Family::V6, 31);
    fake
}

/// An incident: the ACKs of most clients do not return.
fn incident() -> (TestContext, Snapshot, Snapshot) {
    let (context, mut fake) = (TestContext::live("443"), Fake::new());
    let before = context.take(&mut fake, None);
    fake.later(20 * SECOND);
    fake.service(ROW, "10.0.0.2:443");
    fake.service(2, "10.0.0.3:443");
    fake.ended(ROW, Counter::Completed, 14_637);
    fake.ended(2, Counter::Completed, 100);
    for (state, age, count) in
        [(State::SynReceived, 5, 7_938), (State::SynSent, 4, 4), (State::SynReceived, 1, 1_401)]
    {
        for _ in 0..count {
            fake.open(ROW, state, age * SECOND);
        }
    }
    for (leg, half, most) in [
        (Leg::SynToSynAck, 40_000, 85_000),
        (Leg::SynAckToAck, 17_500_000, 1_850_000_000),
        (Leg::Connect, 18_500_000, 3_000_000_000),
    ] {
        fake.sample(leg, half, 970);
        fake.sample(leg, most, 30);
    }
    fake.count(Counter::ExcludedSynAckToAck, 104);
    fake.count(Counter::SynAckRetransmits, 15_000);
    fake.count(Counter::Filtered, 1_100_000);
    fake.packets(Class::Ack, Family::V4, 1_900_000);
    fake.packets(Class::Syn, Family::V4, 24_080);
    let now = context.take(&mut fake, Some(&before));
    (context, before, now)
}

/// The longest packets of a handshake at 80 columns.
#[test]
fn a_ladder_fits_80_columns() {
    let context = TestContext::live("");
    let mut fake = afternoon();
    let snapshot = context.take(&mut fake, None);
    let flow = Flow::of(record("192.168.100.101:40000", "192.168.100.102:8443", State::SynReceived));
    let (j, k) = (flow.isn_initiator().expect("J"), flow.isn_responder().unwrap_or_default());
    let began_ns = View::of(&snapshot).wall(flow.opened_ns());
    let step = |number, source: Side, flags, mark| Step {
        file: 0,
        number,
        time_ns: began_ns + (number - 1) * 41_000,
        source: flow.end(source),
        flags,
        seq: if source == Side::Initiator { j.wrapping_add(1) } else { k.wrapping_sub(2_000_000_000) },
        ack: if source == Side::Initiator { k } else { j.wrapping_sub(2_000_000_000) },
        payload: 0,
        reporter: None,
        mark,
    };
    let first = [
        Step { seq: j, payload: 1_460, ..step(1, Side::Initiator, flag::SYN, StepMark::Plain) },
        step(21_000, Side::Responder, flag::SYN | flag::ACK, StepMark::BadChecksum),
    ];
    let reporter = Some("255.255.255.255".parse().expect("an address"));
    let last = [Step { reporter, seq: j, ..step(1_234_567, Side::Initiator, 0, StepMark::Plain) }];
    let steps = LadderSteps { first: &first, left_out: 1_234, last: &last };
    let drawn = draw_ladder(&View::of(&snapshot), &flow, &steps, Style::plain(80));
    assert!(drawn.lines().all(|line| line.width() <= 80), "{drawn}");
    insta::assert_snapshot!(drawn);
}

/// An attempt began at its SYN, also where that packet is not here, or none is.
#[test]
fn a_ladder_that_lacks_packets_begins_with_its_attempt() {
    let mut fake = Fake::new();
    fake.open(ROW, State::SynReceived, 4 * SECOND);
    let snapshot = TestContext::live("").take(&mut fake, None);
    let view = View::of(&snapshot);
    let flow = Flow::of(fake.records[0]);
    let began_ns = view.wall(flow.opened_ns());
    let late = Step {
        file: 0,
        number: 7,
        time_ns: began_ns + 3 * SECOND,
        source: flow.end(Side::Responder),
        flags: flag::SYN | flag::ACK,
        seq: 1,
        ack: 1,
        payload: 0,
        reporter: None,
        mark: StepMark::Plain,
    };
    for first in [&[][..], &[late]] {
        let steps = LadderSteps { first, left_out: 0, last: &[] };
        let drawn = draw_ladder(&view, &flow, &steps, Style::plain(100));
        assert!(drawn.contains(&format!("began {}", Style::plain(100).zone().dated(began_ns))), "{drawn}");
        assert_eq!(first.is_empty(), !drawn.contains("3.000000"), "{drawn}");
    }
}

/// The times of those that connected say nothing of those that did not.
#[test]
fn attempts_that_never_connected_are_in_a_time_of_their_own() {
    let mut fake = Fake::new();
    fake.ended(ROW, Counter::Completed, 4);
    fake.sample(Leg::Connect, 36_100, 4);
    let shown = |fake: &mut Fake| draw(&TestContext::live("").take(fake, None), None, Style::plain(100));
    assert!(!shown(&mut fake).contains("of all"));
    (0..26).for_each(|_| {
        fake.open(ROW, State::SynSent, 4 * SECOND);
    });
    let waiting = shown(&mut fake);
    assert!(waiting.contains("connect of all p50 > 3.8 s p99 > 3.8 s"), "{waiting}");
    fake.ended(ROW, Counter::Refused, 1);
    let refused = shown(&mut fake);
    assert!(refused.contains("connect of all p50 > 3.8 s p99 never"), "{refused}");
}
