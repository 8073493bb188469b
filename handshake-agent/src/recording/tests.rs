//! What is recorded is what was seen.

use std::sync::Arc;

use handshake_common::abi::{Counter, Maker, UdpRecord};
use handshake_common::flow::{Family, Side};
use handshake_common::record::{Detail, Record, State};
use handshake_common::verdict::{Leg, Verdict};
use handshake_common::wire::Class;

use super::{Block, Ends, Player, Recorded, Recorder};
use crate::fake::{BEGINNING, Fake, SECOND, record, udp_record, unit};
use crate::hook::{Direction, Hook, HookLook, HookState, InterfaceLook, LinkState};
use crate::model::context::{InterfaceHooks, LiveOrigin, Origin, RunContext};
use crate::model::flow::{Flow, View};
use crate::model::snapshot::{Interval, Snapshot};
use crate::options::Filter;
use crate::owner::OwnerBook;
use crate::source::Source as _;
use crate::source::local::HostAddresses;
use crate::source::opens::KernelOpens;

fn context() -> Arc<RunContext> {
    let interface = InterfaceHooks {
        name: "eth0".to_owned(),
        ingress: Some("tcx".to_owned()),
        egress: Some("tcx".to_owned()),
        merged: false,
        before: vec!["other".to_owned()],
    };
    Arc::new(RunContext {
        origin: Origin::Live(LiveOrigin {
            groups: vec![Some("eth0".to_owned()), None],
            interfaces: vec![interface],
            gone: 1,
        }),
        began: BEGINNING,
        filter: Filter {
            ports: vec!["443".parse().expect("a port"), "8000-8080".parse().expect("ports")],
            nets: vec!["10.0.0.0/8".parse().expect("a net"), "fd00::/16".parse().expect("a net")],
        },
        top: usize::MAX,
        owners: OwnerBook::fixed([(7, unit("nginx.service")), (8, unit("curl.service"))]),
    })
}

/// Everything that a report shows of a moment.
fn shown(snapshot: &Snapshot, before: Option<&Snapshot>) -> String {
    let interval = before.map(|before| Interval::between(before, snapshot));
    let settled = interval.as_ref().map(Interval::settled);
    format!(
        "{:?}",
        (
            (snapshot.taken_at_ns, snapshot.now, snapshot.clocks, snapshot.syn_seen_ns, snapshot.unseen),
            (snapshot.losses(), &snapshot.sight, snapshot.unsettled, &snapshot.interfaces, &snapshot.gone),
            (&snapshot.tcp, &snapshot.udp, &snapshot.latency, &snapshot.connect_of_all, &snapshot.packets),
            (
                &snapshot.table,
                &snapshot.every_service,
                &snapshot.workloads,
                &snapshot.host,
                &snapshot.lost_here
            ),
            (settled, snapshot.from_ns(), &snapshot.context.origin, &snapshot.context.filter),
        )
    )
}

/// A second of a busy host, as its number has it.
fn second(fake: &mut Fake, number: u64) -> Ends {
    fake.later(SECOND);
    fake.reading.now.jiffies += 250;
    fake.packets(Class::Syn, Family::V4, 12);
    fake.ended(1, Counter::Completed, 9);
    fake.ended(2, Counter::Refused, 2);
    fake.sample(Leg::Connect, 36_000 + 1_000 * number, 9);
    fake.services[1].connects = [(0, 2), (37, 7 * number), (60, 2 * number)].into_iter().collect();
    fake.sample(Leg::SynToSynAck, 20_000 + number, 9);
    fake.open(1, State::SynSent, SECOND / 3);
    fake.open(2, State::SynReceived, 80 * SECOND);
    if number.is_multiple_of(3) {
        fake.records.remove(0);
        fake.gauge(1, State::SynSent.gauge(), -1);
        fake.gauge(1, Counter::Completed, 1);
    }
    if number.is_multiple_of(7) {
        fake.silent(1, 9 * SECOND);
        fake.reading.lost_before_hook += number;
    }
    let mut udp = udp_record("10.0.0.1:5000", "10.0.0.2:53", State::UdpWaiting);
    let opened_ns = fake.reading.now.ns - SECOND / 2;
    udp.detail = Detail::Udp(UdpRecord { opened_ns, packets: [1, 0], ..UdpRecord::default() });
    udp.last_jiffies = fake.reading.now.jiffies;
    udp.key.ports += (u32::try_from(number).expect("a small number") % 60_000) << 16;
    fake.records.push(udp);
    fake.reading.opens = Some(KernelOpens { active: number, passive: 2 * number });
    let gone = HookLook {
        direction: Direction::Egress,
        hook: Hook::Tcx,
        state: if number.is_multiple_of(5) {
            HookState::Behind(vec!["late".to_owned()])
        } else {
            HookState::Ours
        },
        again: None,
    };
    let look = InterfaceLook {
        name: "eth0".to_owned(),
        number: Some(0),
        is_required: true,
        state: if number == 9 { LinkState::Down } else { LinkState::Up },
        came_back: false,
        hooks: vec![gone],
    };
    fake.reading.sight.note(vec![look], fake.reading.now.ns);
    let mut ends = Ends::default();
    let mut refused = record("10.0.0.3:77", "10.0.0.2:25", State::Refused);
    refused.control_groups.ids = [0, 8];
    refused.makers.ends[1] = Maker { pid: 4_711, command: *b"a name of a task" };
    ends.push(Flow::ended(refused, Verdict::Refused, fake.reading.now.ns - 5));
    ends.push(Flow::ended(record("[fd00::3]:77", "[fd00::2]:25", State::Established), Verdict::Completed, 9));
    ends
}

fn busy() -> Fake {
    let mut fake = Fake::new();
    fake.host =
        Arc::new(HostAddresses::of(["10.0.0.2", "fd00::2"].map(|text| text.parse().expect("an address"))));
    fake.service(0, "10.0.0.2:1");
    fake.service(1, "10.0.0.2:443");
    fake.service(2, "[fd00::2]:25");
    fake.service(2_049, "10.0.0.2:53");
    fake.workload(7, Side::Responder, &[(Counter::Completed, 5)]);
    fake.workload(8, Side::Initiator, &[(Counter::Refused, 3)]);
    fake
}

/// A run of so many seconds: the blocks, what was shown of each moment, and the open attempts.
fn run(seconds: u64) -> (Vec<Block>, Vec<(String, Vec<Record>)>) {
    let (mut fake, context, mut recorder) = (busy(), context(), Recorder::default());
    let mut last: Option<Snapshot> = None;
    let mut seen = Vec::new();
    let blocks = (1..=seconds).map(|number| {
        let mut ends = second(&mut fake, number);
        let snapshot = Snapshot::take(&mut fake, &context, last.as_ref()).expect("a fake never fails");
        let open = fake
            .records
            .iter()
            .filter(|record| record.state.is_open() && !record.expired(snapshot.now, &snapshot.clocks));
        seen.push((shown(&snapshot, last.as_ref()), open.copied().collect()));
        last = Some(snapshot);
        recorder.block(&mut fake, &context, &mut ends).expect("a fake never fails")
    });
    (blocks.collect(), seen)
}

fn opened(recorded: &Recorded) -> Vec<Record> {
    let mut open = Vec::new();
    recorded.for_each_record(&mut |record| open.extend(record.state.is_open().then_some(*record)));
    open.sort_by_key(|record| (Flow::of(*record).opened_ns(), record.key.ports));
    open
}

/// A moment that is played is the moment that was: its figures, its flows and their owners.
#[test]
fn what_is_played_is_what_was_seen() {
    let (blocks, seen) = run(130);
    let whole: Vec<usize> =
        blocks.iter().zip(0..).filter(|(block, _)| block.is_whole).map(|(_, at)| at).collect();
    assert_eq!(whole, [0, 60, 120]);
    for from in whole {
        let (mut player, mut before) = (Player::default(), None);
        for (block, (shown_then, open)) in blocks.iter().zip(&seen).skip(from).take(60) {
            player.play(block).expect("it was made so");
            let mut recorded = player.moment().expect("it is a moment");
            let snapshot = recorded.snapshot().expect("it has been read");
            if before.is_some() || from == 0 {
                assert!(shown(&snapshot, before.as_ref()) == *shown_then, "at {:?}", snapshot.now);
            }
            let mut open = open.clone();
            open.sort_by_key(|record| (Flow::of(*record).opened_ns(), record.key.ports));
            assert_eq!(opened(&recorded), open);
            let ended = player.ended();
            assert_eq!(ended.len(), 2, "{ended:?}");
            let refused =
                ended.iter().find(|flow| flow.record.state == State::Refused).expect("one was refused");
            let owner = View::of(&snapshot).owner(refused, Side::Responder).expect("it was known");
            assert_eq!(owner.unit.as_deref(), Some("curl.service"));
            let maker = refused.record.makers.ends[1];
            assert_eq!((maker.pid, maker.command), (4_711, *b"a name of a task"));
            assert!(recorded.left_out.is_nothing());
            before = Some(snapshot);
        }
    }
}

/// A block that says what has changed is small: it does not grow with what there is.
#[test]
fn a_change_is_small() {
    let (blocks, _) = run(60);
    let changes: usize = blocks[30..].iter().map(|block| block.changes.len()).sum();
    assert!(changes / 30 < 2_000, "{} bytes a second", changes / 30);
}

/// In a flood single flows are left out, failures last, and how many is said. The figures stay whole.
#[test]
fn a_flood_stays_within_its_room() {
    let (mut fake, context, mut recorder) = (busy(), context(), Recorder::default());
    let (mut sizes, mut left_out, mut failed) = (Vec::new(), 0, 0);
    let mut player = Player::default();
    for number in 0..120_u64 {
        fake.later(SECOND);
        // All new ones: nothing of them is known from the block before.
        fake.records.clear();
        fake.reading.counters = Fake::new().reading.counters;
        (0..3_000).for_each(|at| {
            fake.open(1, State::SynSent, at);
        });
        let mut ends = Ends::default();
        for at in 0..3_000_u16 {
            let state = if at % 10 == 0 { State::Refused } else { State::Established };
            let verdict = if at % 10 == 0 { Verdict::Refused } else { Verdict::Completed };
            ends.push(Flow::ended(record(&format!("10.1.0.1:{at}"), "10.0.0.2:443", state), verdict, number));
        }
        let block = recorder.block(&mut fake, &context, &mut ends).expect("a fake never fails");
        player.play(&block).expect("it was made so");
        let mut recorded = player.moment().expect("it is a moment");
        let snapshot = recorded.snapshot().expect("it has been read");
        assert_eq!(snapshot.tcp.books.attempts, 3_000);
        let (open, ended) = (opened(&recorded).len() as u64, player.ended());
        assert_eq!(recorded.left_out.open, 3_000 - open);
        let refused = ended.iter().filter(|flow| flow.record.state == State::Refused).count() as u64;
        assert_eq!(recorded.left_out.failed, 300 - refused);
        assert_eq!(recorded.left_out.ended, 2_700 - (ended.len() as u64 - refused));
        left_out += recorded.left_out.ended;
        failed += recorded.left_out.failed;
        sizes.push(block.changes.len());
    }
    assert!(left_out > 0 && failed == 0, "{left_out} {failed}");
    let late: usize = sizes[60..].iter().sum();
    // An hour of this: within 256 MiB, with what files take beside.
    assert!(late / 60 * 3_600 < 250 << 20, "{} bytes a second", late / 60);
}

/// A block that is not whole means nothing without the one before.
#[test]
fn no_moment_is_made_of_a_change_alone() {
    let (blocks, _) = run(3);
    let mut player = Player::default();
    assert!(player.play(&blocks[1]).is_none() || player.moment().is_none());
    player.play(&blocks[0]).expect("it is whole");
    assert!(player.moment().is_some());
}

/// Whatever is in a block, it is a moment or none: a sum does not tell who wrote it.
#[test]
fn a_block_that_was_changed_does_no_harm() {
    let (blocks, _) = run(3);
    let whole = &blocks[0];
    let mut moments = 0;
    for at in (0..whole.changes.len()).step_by(3) {
        for change in [0x01, 0x80, 0xff] {
            let mut changed = whole.clone();
            changed.changes[at] ^= change;
            let mut player = Player::default();
            let Some(mut recorded) = player.play(&changed).and_then(|()| player.moment()) else { continue };
            let snapshot = recorded.snapshot().expect("it has been read");
            assert!(!shown(&snapshot, None).is_empty());
            let view = View::of(&snapshot);
            player.ended().iter().chain(&view.flows(&recorded)).for_each(|flow| {
                let standing = flow.standing(&view.moment);
                assert!(
                    !standing.name().is_empty()
                        && flow.cause(standing).is_none_or(|cause| !cause.name().is_empty())
                );
            });
            moments += 1;
        }
    }
    assert!(moments > 100, "{moments} made sense");
}

/// After a block that was lost the next one is whole.
#[test]
fn a_recorder_begins_anew() {
    let (mut fake, context, mut recorder) = (busy(), context(), Recorder::default());
    let mut block = |recorder: &mut Recorder, number| {
        let mut ends = second(&mut fake, number);
        recorder.block(&mut fake, &context, &mut ends).expect("a fake never fails")
    };
    assert!(block(&mut recorder, 1).is_whole);
    assert!(!block(&mut recorder, 2).is_whole);
    recorder.begin_anew();
    let whole = block(&mut recorder, 3);
    assert!(whole.is_whole);
    let mut player = Player::default();
    player.play(&whole).expect("it is whole");
    assert!(player.moment().is_some());
}
