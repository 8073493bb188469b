//! What the counters say and what the tables show, brought together.

use std::sync::Arc;

use handshake_common::abi::Counter;
use handshake_common::flow::Family;
use handshake_common::record::State;
use handshake_common::verdict::{Cause, Leg, Role, Sign, TCP, UdpVerdict, Verdict};
use handshake_common::wire::Class;
use proptest::prelude::*;

use crate::source::scan::ByCause;

use super::{
    CaptureOrigin, FIRST_UDP_ROW, Interval, LiveOrigin, Origin, RunContext, ServiceBooks, Snapshot, TcpBooks,
};
use crate::fake::{BEGINNING, Fake, SECOND, tcp, udp_record};
use crate::hook::{Direction, Hook, HookLook, HookState, InterfaceLook, LinkState};
use crate::model::metric::METRICS;
use crate::source::opens::KernelOpens;
use crate::source::sight::Sight;

#[test]
fn open_attempts_divide_by_age() {
    let mut fake = Fake::new();
    for (state, age) in [
        (State::SynSent, 0),
        (State::SynSent, 3 * SECOND - 1),
        (State::SynSent, 3 * SECOND),
        (State::SynReceived, 75 * SECOND),
        (State::SynReceived, 75 * SECOND + 1),
        (State::SynSent, 900 * SECOND),
    ] {
        fake.open(0, state, age);
    }
    let snapshot = take(&mut fake, None);
    let books = &snapshot.tcp.books;
    assert_eq!(books.verdict(Verdict::Opening), 2);
    assert_eq!(books.by_cause(Verdict::HalfOpen), ByCause([1, 1, 0]));
    assert_eq!(books.by_cause(Verdict::HalfOpenExpired), ByCause([1, 1, 0]));
    assert_eq!((books.attempts, books.accounted(), snapshot.unsettled), (6, 6, 0));
}

#[test]
fn where_time_stops_everything_open_is_half_open() {
    let mut fake = Fake::new();
    fake.open(0, State::SynSent, 0);
    fake.open(0, State::SynReceived, SECOND);
    fake.open(0, State::SynReceived, 80 * SECOND);
    fake.reading.stopped = true;
    let books = take(&mut fake, None).tcp.books;
    assert_eq!((books.verdict(Verdict::Opening), books.by_cause(Verdict::HalfOpen)), (0, ByCause([1, 1, 0])));
    assert_eq!(books.by_cause(Verdict::HalfOpenExpired).of(Cause::NoAck), 1);
}

#[test]
fn an_expired_attempt_met_between_reading_and_scan_stays_shown() {
    let mut fake = Fake::new();
    fake.open(0, State::SynSent, 80 * SECOND);
    let first = take(&mut fake, None);
    assert_eq!(first.tcp.books.by_cause(Verdict::HalfOpenExpired).of(Cause::NoSynAck), 1);

    fake.meanwhile = Some(Box::new(|fake| {
        fake.count(Counter::OpenNoSynAck, -1);
        fake.count(Counter::ExpiredNoSynAck, 1);
        fake.records.clear();
    }));
    let second = take(&mut fake, Some(&first));
    assert_eq!(second.tcp.books.by_cause(Verdict::HalfOpenExpired).of(Cause::NoSynAck), 1, "it fell");
    assert_eq!((second.tcp.books.accounted(), second.unsettled), (1, 1));

    let third = take(&mut fake, Some(&second));
    assert_eq!(third.tcp.books.by_cause(Verdict::HalfOpenExpired).of(Cause::NoSynAck), 1);
    assert_eq!((third.tcp.books.verdict(Verdict::Opening), third.unsettled), (0, 0));
}

#[test]
fn attempts_that_come_during_the_scan_are_unsettled_and_change_nothing() {
    let mut fake = Fake::new();
    fake.open(0, State::SynSent, 0);
    fake.meanwhile = Some(Box::new(|fake| {
        for _ in 0..5 {
            fake.open(0, State::SynSent, 0);
        }
    }));
    let snapshot = take(&mut fake, None);
    assert_eq!((snapshot.tcp.books.verdict(Verdict::Opening), snapshot.unsettled), (1, 5));
    assert_eq!(snapshot.tcp.books.accounted(), 1);
}

#[test]
fn udp_waits_for_t1_before_it_is_unanswered() {
    let mut fake = Fake::new();
    fake.gauge(FIRST_UDP_ROW, Counter::UdpFlows, 3);
    fake.gauge(FIRST_UDP_ROW, Counter::UdpWaiting, 2);
    fake.gauge(FIRST_UDP_ROW, Counter::UdpAnswered, 1);
    let mut young = udp_record("10.0.0.1:5", "10.0.0.2:53", State::UdpWaiting);
    if let handshake_common::record::Detail::Udp(udp) = &mut young.detail {
        udp.opened_ns = fake.reading.now.ns - SECOND;
    }
    fake.records = vec![
        young,
        udp_record("10.0.0.1:6", "10.0.0.2:53", State::UdpWaiting),
        udp_record("10.0.0.1:7", "10.0.0.2:53", State::UdpAnswered),
    ];
    let snapshot = take(&mut fake, None);
    let books = snapshot.udp.books;
    assert_eq!(books.flows, 3);
    for verdict in [UdpVerdict::Answered, UdpVerdict::Unanswered, UdpVerdict::Pending] {
        assert_eq!(books.verdict(verdict), 1, "{verdict:?}");
    }
    assert_eq!(snapshot.table.used, 3);
}

#[test]
fn each_loss_alone_makes_a_report_inexact() {
    type Change = fn(&mut Fake);
    let look = |state| InterfaceLook {
        name: "e".to_owned(),
        number: Some(0),
        is_required: true,
        state,
        came_back: false,
        hooks: Vec::new(),
    };
    let gone =
        HookLook { direction: Direction::Egress, hook: Hook::Tcx, state: HookState::Gone, again: None };
    let mut lost = Sight::default();
    lost.note(vec![InterfaceLook { hooks: vec![gone], ..look(LinkState::Up) }], 1);
    let mut down = Sight::default();
    down.note(vec![look(LinkState::Down)], 1);
    let changes: [(Change, &str); 11] = [
        (|fake| fake.count(Counter::Untracked, 1), "tcp.untracked"),
        (|fake| fake.count(Counter::Evicted, 1), "evicted"),
        (|fake| fake.count(Counter::Contended, 1), "contended"),
        (|fake| fake.count(Counter::SplitHeaders, 1), "split_headers"),
        (|fake| fake.count(Counter::ExtensionChains, 1), "extension_chains"),
        (|fake| fake.count(Counter::UdpUntracked, 1), "udp.untracked"),
        (|fake| fake.count(Counter::UdpEvicted, 1), "udp.evicted"),
        (|fake| fake.count(Counter::LostEvents, 1), "lost_events"),
        (|fake| fake.reading.lost_before_hook = 1, "lost_before_hook"),
        (|fake| fake.reading.unreadable_counters = 1, "unreadable_counters"),
        (|fake| fake.reading.missed_snapshots = 1, "missed_snapshot"),
    ];
    let mut fakes: Vec<(Fake, &str)> = changes.map(|(change, reason)| (with(change), reason)).into();
    fakes.push((with(|fake| fake.reading.sight = lost), "hook_lost"));
    fakes.push((with(|fake| fake.reading.sight = down), "interface_down"));
    for (mut fake, reason) in fakes {
        let snapshot = Snapshot::take(&mut fake, &live(), None).expect("a fake never fails");
        let occurred = snapshot.losses();
        assert_eq!((occurred.len(), occurred[0].reason, occurred[0].count), (1, reason, 1));
        assert!(!snapshot.is_exact() && snapshot.inexact_since_ns().is_some(), "{reason}");
    }
    assert!(take(&mut Fake::new(), None).is_exact());

    type Lack = fn(&mut CaptureOrigin);
    let lacks: [(Lack, &str, u64); 5] = [
        (|capture| capture.condition.damaged = true, "capture_damaged", 1),
        (|capture| capture.condition.truncated = true, "capture_truncated", 1),
        (|capture| capture.condition.dropped = Some(9_000), "capture_dropped", 9_000),
        (|capture| capture.condition.skipped = [(9, 3), (105, 4)].into(), "skipped_link_type", 7),
        (|capture| capture.cut_headers = 2, "cut_headers", 2),
    ];
    for (lack, reason, count) in lacks {
        let snapshot = of_capture(lack);
        let occurred = snapshot.losses();
        assert_eq!((occurred.len(), occurred[0].reason, occurred[0].count), (1, reason, count));
        assert!(!snapshot.is_exact(), "{reason}");
    }
    let clock = |capture: &mut CaptureOrigin| {
        capture.condition.clock.steps_back = 1;
        (capture.condition.untimed, capture.condition.dropped) = (1, Some(0));
    };
    assert!(of_capture(clock).is_exact(), "times alone lose no packet");
}

/// A report that was inexact once stays so, its later intervals do not.
#[test]
fn a_loss_has_its_first_and_last_time_and_its_interval() {
    let (mut fake, live) = (Fake::new(), live());
    let began = fake.reading.now.ns;
    let mut last = Snapshot::take(&mut fake, &live, None).expect("a fake never fails");
    for (lost, exact, times) in [
        (0, true, None),
        (2, false, Some((2, 2))),
        (0, true, Some((2, 2))),
        (1, false, Some((2, 4))),
        (0, true, Some((2, 4))),
    ] {
        fake.later(SECOND);
        fake.reading.lost_before_hook += lost;
        let now = Snapshot::take(&mut fake, &live, Some(&last)).expect("a fake never fails");
        assert_eq!(Interval::between(&last, &now).is_exact(), exact);
        let loss =
            now.possible_losses().into_iter().find(|loss| loss.reason == "lost_before_hook").expect("a row");
        let second = |second: u64| began + second * SECOND;
        assert_eq!(loss.found_ns, times.map(|(first, last)| (second(first), second(last))));
        assert_eq!(now.is_exact(), times.is_none());
        assert_eq!(now.inexact_since_ns(), times.map(|(first, _)| second(first)));
        last = now;
    }
}

/// The reasons stand by importance, and in words with their counts.
#[test]
fn losses_are_told_in_a_few_words() {
    let mut fake = with(|fake| fake.count(Counter::SplitHeaders, 3));
    fake.count(Counter::Untracked, 1);
    fake.reading.lost_before_hook = 2_000;
    let snapshot = Snapshot::take(&mut fake, &live(), None).expect("a fake never fails");
    let words: Vec<String> = snapshot.losses().iter().map(|loss| loss.words(|n| n.to_string())).collect();
    assert_eq!(words, ["2000 lost before the hook", "1 untracked attempt", "3 tiny fragments"]);
    for loss in snapshot.possible_losses() {
        let words = loss.words(|_| String::new());
        assert!(!words.contains('#') && !words.is_empty(), "{}: {words}", loss.reason);
    }
}

fn with(change: impl FnOnce(&mut Fake)) -> Fake {
    let mut fake = Fake::new();
    change(&mut fake);
    fake
}

/// The context of a run on no interface.
fn live() -> Arc<RunContext> {
    let origin = Origin::Live(LiveOrigin::default());
    Arc::new(RunContext { origin, ..RunContext::clone(&context(10)) })
}

/// The snapshot of a capture without packets.
fn of_capture(lack: impl FnOnce(&mut CaptureOrigin)) -> Snapshot {
    let mut capture = CaptureOrigin::default();
    lack(&mut capture);
    let context = RunContext { origin: Origin::Capture(capture), ..RunContext::clone(&context(10)) };
    Snapshot::take(&mut Fake::new(), &Arc::new(context), None).expect("a fake never fails")
}

#[test]
fn packets_are_in_one_class_each_and_in_a_family_or_none() {
    let mut fake = Fake::new();
    for (at, class) in (1..).zip(Class::ALL) {
        fake.packets(class, Family::V4, at);
        fake.packets(class, Family::V6, 100 * at);
    }
    fake.reading.classes[0].packets[Class::NonIp as usize] += 7;
    fake.reading.classes.push(fake.reading.classes[0]);
    let snapshot = take(&mut fake, None);
    let of_classes: u64 = Class::ALL.iter().map(|class| snapshot.packets.class(*class)).sum();
    assert_eq!((snapshot.packets.ipv4, snapshot.packets.ipv6), (2 * 91, 2 * 9_100));
    assert_eq!((snapshot.packets.total, of_classes), (2 * 9_198, 2 * 9_198));
    assert_eq!(snapshot.interfaces.len(), 2);
    assert_eq!(snapshot.interfaces[0].total * 2, snapshot.packets.total);
}

#[test]
fn quantiles_are_bounds_capped_by_the_longest() {
    let mut fake = Fake::new();
    assert_eq!(take(&mut fake, None).latency(Leg::Connect).quantiles, None);
    fake.sample(Leg::Connect, 1_000, 98);
    fake.sample(Leg::Connect, 50_000, 1);
    fake.sample(Leg::Connect, 1_000_000, 1);
    fake.count(Counter::ExcludedConnect, 4);
    let latency = *take(&mut fake, None).latency(Leg::Connect);
    let quantiles = latency.quantiles.expect("there are samples");
    assert_eq!((latency.count, latency.excluded, quantiles.max_ns), (100, 4, 1_000_000));
    for (shown, truth) in [(quantiles.p50_ns, 1_000), (quantiles.p90_ns, 1_000), (quantiles.p99_ns, 50_000)] {
        assert!((truth..=truth + truth / 16).contains(&shown), "{shown} for {truth}");
    }
    let mut one = Fake::new();
    one.sample(Leg::Connect, 1_000_001, 1);
    let exact = take(&mut one, None).latency(Leg::Connect).quantiles.expect("there is a sample");
    assert_eq!((exact.p50_ns, exact.max_ns), (1_000_001, 1_000_001), "the longest is known exactly");
}

#[test]
fn an_interval_has_its_own_figures_and_latencies() {
    let mut fake = Fake::new();
    fake.ended(0, Counter::Refused, 2);
    fake.sample(Leg::Connect, 9 * SECOND, 1);
    let before = take(&mut fake, None);
    fake.later(2 * SECOND);
    fake.ended(0, Counter::Completed, 3);
    fake.count(Counter::Refused, -1);
    fake.count(Counter::Completed, 1);
    fake.sample(Leg::Connect, SECOND, 3);
    let now = take(&mut fake, Some(&before));
    let interval = Interval::between(&before, &now);
    assert_eq!(interval.elapsed_ns(), 2 * SECOND);
    assert_eq!(interval.change(|s| s.tcp.books.verdict(Verdict::Refused)), -1, "a verdict taken back");
    assert_eq!(interval.rise(|s| s.tcp.books.verdict(Verdict::Refused)), 0);
    assert_eq!(interval.rise(|s| s.tcp.books.verdict(Verdict::Completed)), 4);
    let latency = interval.latency[Leg::Connect as usize];
    let max_ns = latency.quantiles.expect("there are samples").max_ns;
    assert_eq!(latency.count, 3);
    assert!((SECOND..SECOND + SECOND / 16).contains(&max_ns), "the run's longest is not the interval's");
}

/// A wall clock that is set changes labels only, and the labels still agree with each other.
#[test]
fn durations_do_not_depend_on_the_wall_clock() {
    const YEAR: u64 = 365 * 86_400 * SECOND;
    for set in [
        |wall: u64| wall - YEAR,
        |wall: u64| wall + 3_600 * SECOND,
        |wall: u64| wall - SECOND / 2,
        |wall| wall,
    ] {
        let mut fake = Fake::new();
        let first = take(&mut fake, None);
        fake.later(2 * SECOND);
        fake.reading.wall_ns = set(fake.reading.wall_ns);
        fake.count(Counter::Attempts, 5);
        let second = take(&mut fake, Some(&first));
        assert_eq!(second.elapsed_ns(), 2 * SECOND);
        assert_eq!(Interval::between(&first, &second).elapsed_ns(), 2 * SECOND);
        assert_eq!(second.quiet_ns(), 0);
        fake.later(SECOND);
        let third = take(&mut fake, Some(&second));
        assert_eq!((third.quiet_ns(), third.elapsed_ns()), (SECOND, 3 * SECOND));
        let told = third.taken_at_ns - third.from_ns();
        assert!(told.abs_diff(3 * SECOND) <= SECOND, "{told} ns by the labels");
        assert!(second.from_ns() <= second.taken_at_ns && second.taken_at_ns < third.taken_at_ns);
    }
}

#[test]
fn quiet_counts_from_the_last_syn_that_passed_the_filter() {
    let mut fake = Fake::new();
    fake.later(4 * SECOND);
    let silent = take(&mut fake, None);
    assert_eq!(silent.quiet_ns(), 4 * SECOND);
    fake.ended(0, Counter::Completed, 1);
    let heard = take(&mut fake, Some(&silent));
    assert_eq!(heard.quiet_ns(), 0);
    fake.later(12 * SECOND);
    let again = take(&mut fake, Some(&heard));
    assert_eq!(again.quiet_ns(), 12 * SECOND);
    fake.count(Counter::SynRetransmits, 1);
    assert_eq!(take(&mut fake, Some(&again)).quiet_ns(), 0);
}

/// What the kernel opens while SYNs pass, or a handshake may not be over, is not unseen.
#[test]
fn connections_of_the_kernel_are_unseen_while_the_hooks_are_quiet() {
    let opens = |active, passive| Some(KernelOpens { active, passive });
    let mut fake = with(|fake| fake.reading.opens = opens(100, 100));
    let mut last = Snapshot::take(&mut fake, &live(), None).expect("a fake never fails");
    // Seconds, SYN+ACKs at the hooks, the kernel's counts; then the connections, and the seconds of quiet.
    for (seconds, syn_acks, counts, unseen, quiet) in [
        (1, 3, (103, 103), 0, 0),
        // The final ACK of the third.
        (1, 0, (103, 104), 0, 1),
        (10, 0, (104, 104), 0, 11),
        (1, 0, (106, 104), 2, 12),
        (1, 0, (110, 111), 7, 13),
        (1, 1, (111, 111), 0, 0),
        (9, 0, (112, 111), 0, 9),
        (1, 0, (113, 111), 1, 10),
    ] {
        fake.later(seconds * SECOND);
        fake.packets(Class::SynAck, Family::V4, syn_acks);
        fake.reading.opens = opens(counts.0, counts.1);
        let now = Snapshot::take(&mut fake, &live(), Some(&last)).expect("a fake never fails");
        let found = now.unseen.expect("the count is known");
        assert_eq!((found.connections(), found.quiet_ns()), (unseen, quiet * SECOND), "{counts:?}");
        last = now;
    }
    fake.reading.opens = None;
    assert_eq!(Snapshot::take(&mut fake, &live(), Some(&last)).expect("a fake never fails").unseen, None);
}

#[test]
fn services_that_are_not_listed_are_summed_up() {
    let mut fake = Fake::new();
    fake.service(0, "0.0.0.0:0");
    fake.service(FIRST_UDP_ROW, "0.0.0.0:0");
    for (row, address, attempts) in
        [(1, "10.0.0.1:80", 5), (2, "10.0.0.2:80", 9), (3, "[::1]:80", 7), (4, "10.0.0.4:80", 1)]
    {
        fake.service(row, address);
        fake.ended(row, Counter::Completed, attempts);
        fake.open(row, State::SynReceived, 10 * SECOND);
        fake.open(row, State::SynSent, 90 * SECOND);
    }
    fake.ended(0, Counter::Refused, 2);
    fake.service(FIRST_UDP_ROW + 1, "10.0.0.1:53");
    fake.gauge(FIRST_UDP_ROW + 1, Counter::UdpFlows, 1);
    fake.gauge(FIRST_UDP_ROW + 1, Counter::UdpAnswered, 1);

    let mut source = fake;
    let snapshot = Snapshot::take(&mut source, &context(2), None).expect("a fake never fails");
    let named: Vec<String> = snapshot
        .services
        .iter()
        .map(|row| row.service.map_or("other".to_owned(), |service| service.to_string()))
        .collect();
    assert_eq!(named, ["10.0.0.2:80", "[::1]:80", "other", "10.0.0.1:53"]);
    let mut sum = TcpBooks::default();
    for row in &snapshot.services {
        if let ServiceBooks::Tcp(books) = row.books {
            assert_eq!(books.attempts, books.accounted());
            sum += books;
        }
    }
    assert_eq!(sum, snapshot.tcp.books, "rows sum to the totals");
    assert_eq!(
        sum.by_cause(Verdict::HalfOpenExpired).of(Cause::NoSynAck),
        4,
        "what only the scan found is in the rows too"
    );
}

#[test]
fn verdicts_and_signs_read_their_own_figures() {
    let mut fake = Fake::new();
    fake.ended(0, Counter::ResponderAborted, 3);
    fake.count(Counter::Midstream, 4);
    fake.count(Counter::OrphanSynAck, 5);
    fake.count(Counter::AckIgnored, 6);
    let tcp = take(&mut fake, None).tcp;
    assert_eq!(tcp.verdict(Verdict::ResponderAborted), 3);
    assert_eq!((tcp.verdict(Verdict::Midstream), tcp.verdict(Verdict::OrphanSynAck)), (4, 5));
    assert_eq!((tcp.sign(Sign::AckIgnored), tcp.sign(Sign::Revised)), (6, 0));
}

proptest! {
    /// Whatever the gauges are and whatever the scan finds, the printed identity is true.
    #[test]
    fn the_printed_identity_is_true_for_any_scan(
        open in prop::array::uniform2(0_i64..20),
        ended in prop::collection::vec(0_i64..20, TCP.len()),
        found in prop::collection::vec((any::<bool>(), 0_u64..120), 0..60),
        shown in prop::array::uniform2(0_u64..30),
        stopped: bool,
    ) {
        let mut fake = Fake::new();
        for (state, age) in found {
            let state = if state { State::SynSent } else { State::SynReceived };
            fake.open(0, state, age * SECOND);
        }
        fake.reading.counters.words = Fake::new().reading.counters.words;
        fake.ended(0, Counter::OpenNoSynAck, open[0]);
        fake.ended(0, Counter::OpenNoAck, open[1]);
        for (row, count) in TCP.iter().filter(|row| row.role == Role::End).zip(ended) {
            row.gauges.iter().for_each(|gauge| fake.ended(0, gauge.counter, count));
        }
        fake.reading.stopped = stopped;
        let mut previous = take(&mut Fake::new(), None);
        previous.tcp.books = TcpBooks::of(0, &[(Verdict::HalfOpenExpired, shown)]);
        let books = take(&mut fake, Some(&previous)).tcp.books;
        prop_assert_eq!(books.attempts, books.accounted());
        prop_assert!(!stopped || books.verdict(Verdict::Opening) == 0);
    }

    /// A run of attempts that open, get on, complete, expire and are met, also between a reading and
    /// its scan: what is shown as expired never falls, the identity holds, and at rest nothing is unsettled.
    #[test]
    fn what_is_shown_as_expired_never_falls(steps in prop::collection::vec(step(), 1..80)) {
        let mut fake = Fake::new();
        let mut previous: Option<Snapshot> = None;
        for step in steps {
            match step {
                Step::Wire(wire) => wire.apply(&mut fake),
                Step::Later(seconds) => fake.later(seconds * SECOND),
                Step::Take(meanwhile) => {
                    let at_rest = meanwhile.is_empty();
                    fake.meanwhile = Some(Box::new(move |fake| meanwhile.iter().for_each(|wire| wire.apply(fake))));
                    let now = take(&mut fake, previous.as_ref());
                    let books = now.tcp.books;
                    prop_assert_eq!(books.attempts, books.accounted());
                    prop_assert!(!at_rest || now.unsettled == 0);
                    for metric in METRICS.iter().filter(|metric| metric.rises) {
                        let before = previous.as_ref().and_then(|previous| metric.value(previous));
                        prop_assert!(metric.value(&now) >= before, "{} fell", metric.name);
                    }
                    let shown = previous.map(|p| p.tcp.books.by_cause(Verdict::HalfOpenExpired)).unwrap_or_default();
                    prop_assert!(books.by_cause(Verdict::HalfOpenExpired).of(Cause::NoSynAck) >= shown.of(Cause::NoSynAck));
                    prop_assert!(books.by_cause(Verdict::HalfOpenExpired).of(Cause::NoAck) >= shown.of(Cause::NoAck));
                    previous = Some(now);
                }
            }
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Wire(Wire),
    Later(u64),
    Take(Vec<Wire>),
}

/// What a packet does to the books; an attempt past T2 it only closes.
#[derive(Clone, Copy, Debug)]
enum Wire {
    Open,
    SynAck(usize),
    Complete(usize),
}

fn wire() -> impl Strategy<Value = Wire> {
    prop_oneof![
        2 => Just(Wire::Open),
        1 => (0_usize..64).prop_map(Wire::SynAck),
        1 => (0_usize..64).prop_map(Wire::Complete),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => wire().prop_map(Step::Wire),
        1 => (0_u64..50).prop_map(Step::Later),
        2 => prop::collection::vec(wire(), 0..6).prop_map(Step::Take),
    ]
}

impl Wire {
    fn apply(&self, fake: &mut Fake) {
        let (at, to) = match *self {
            Self::Open => {
                fake.open(0, State::SynSent, 0);
                return;
            }
            Self::SynAck(at) => (at, State::SynReceived),
            Self::Complete(at) => (at, State::Established),
        };
        if fake.records.is_empty() {
            return;
        }
        let at = at % fake.records.len();
        let record = fake.records[at];
        let from = record.state.gauge();
        if !record.state.is_open() {
            return;
        }
        let clocks = crate::source::Source::clocks(fake);
        if tcp(&record).expired(fake.reading.now.ns, &clocks) {
            let expired =
                if from == Counter::OpenNoAck { Counter::ExpiredNoAck } else { Counter::ExpiredNoSynAck };
            fake.count(from, -1);
            fake.count(expired, 1);
            fake.records.remove(at);
            return;
        }
        fake.count(from, -1);
        fake.count(to.gauge(), 1);
        fake.records[at].state = to;
    }
}

fn context(top: usize) -> Arc<RunContext> {
    let origin = Origin::Capture(CaptureOrigin { path: "a.pcap".to_owned(), ..CaptureOrigin::default() });
    Arc::new(RunContext {
        origin,
        began: BEGINNING,
        filter: crate::options::Filter::default(),
        top,
        owners: crate::owner::OwnerBook::default(),
    })
}

fn take(fake: &mut Fake, previous: Option<&Snapshot>) -> Snapshot {
    Snapshot::take(fake, &context(10), previous).expect("a fake never fails")
}
