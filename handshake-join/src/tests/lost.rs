//! Where an attempt was lost.

use super::accounts::{CLIENT, Line, MASQUERADED, SERVER, Told, WAY, at, joined};
use crate::{ClockFinding, Doubt, Outcome, Segment, Which};
use handshake_common::verdict::Verdict;

/// An attempt as the client's side and the server's side have it.
type Both = (Option<Line>, Option<Line>);

const J: u32 = 4_220_626_013;
const K: u32 = 77;
const MS: u64 = 1_000_000;
const SECOND: i64 = 1_000_000_000;

fn near() -> Line {
    Line::begun([CLIENT, SERVER], J, 0)
}

fn far() -> Line {
    Line::begun([MASQUERADED, SERVER], J, WAY.cast_signed())
}

/// Each way, with its name and what is told of it.
fn ways() -> Vec<(&'static str, Both, Outcome)> {
    use Outcome::{AnsweredBetween, Completed, Ended, LostBetween, LostIn, ResetBetween, Undecided};
    let there_and_back = 2 * WAY + MS;
    let answered_near = || near().answered(K, there_and_back);
    let completed_near = || near().completed(K, there_and_back, there_and_back + MS);
    let answered_far = || far().answered(K, MS);
    // When it was told, or when it came to its end.
    let soon = |line: Line| line.with("event", "ended").with("at", at(SECOND / 2));
    let late = |line: Line| line.with("event", "half_open").with("at", at(3 * SECOND));
    let completed_far = || far().completed(K, MS, 2 * WAY + 2 * MS);
    let both = |near, far| (Some(near), Some(far));
    vec![
        ("completed", both(completed_near(), completed_far()), Completed),
        ("the SYN is lost", (Some(near()), None), LostBetween(Segment::Syn)),
        ("the SYN+ACK is lost", both(near(), answered_far()), LostBetween(Segment::SynAck)),
        ("the ACK is lost", both(completed_near(), answered_far()), LostBetween(Segment::Ack)),
        ("the client sends no ACK", both(answered_near(), answered_far()), LostIn(Which::First)),
        ("the server answers nothing", both(near(), far()), LostIn(Which::Second)),
        (
            "expired",
            both(near().with("verdict", "half_open_expired"), answered_far()),
            LostBetween(Segment::SynAck),
        ),
        (
            "superseded",
            both(near().with("verdict", "superseded"), answered_far()),
            LostBetween(Segment::SynAck),
        ),
        ("refused", both(near().ended("refused"), far().ended("refused")), Ended(Verdict::Refused)),
        ("the refusal is lost", both(near(), far().ended("refused")), Ended(Verdict::Refused)),
        ("refused, and never there", (Some(near().ended("refused")), None), Ended(Verdict::Refused)),
        (
            "refused between",
            both(soon(near().ended("refused")), late(answered_far())),
            ResetBetween(Verdict::Refused),
        ),
        (
            "refused, and the server's side sees no answer to anyone",
            both(soon(near().ended("refused")), late(far())),
            Ended(Verdict::Refused),
        ),
        (
            "reset between, to the client",
            both(soon(answered_near().ended("responder_aborted")), late(answered_far())),
            ResetBetween(Verdict::ResponderAborted),
        ),
        (
            "reset between, to the server",
            both(late(answered_near()), soon(answered_far().ended("initiator_aborted"))),
            ResetBetween(Verdict::InitiatorAborted),
        ),
        (
            "the server's RST is lost",
            both(late(near()), soon(far().ended("refused"))),
            Ended(Verdict::Refused),
        ),
        (
            "the server's account ends before the RST",
            both(late(near().ended("refused")), soon(far())),
            Ended(Verdict::Refused),
        ),
        (
            "the server's side sees one way, and no RST",
            both(soon(near().ended("refused")), late(far().with("cause", "answer_unseen"))),
            Ended(Verdict::Refused),
        ),
        ("unreachable", (Some(near().ended("unreachable")), None), Ended(Verdict::Unreachable)),
        (
            "the server aborts",
            both(completed_near(), answered_far().ended("responder_aborted")),
            Ended(Verdict::ResponderAborted),
        ),
        ("young at the end", both(near().with("verdict", "opening"), answered_far()), Undecided(Doubt::Open)),
        ("the server's is young", both(near(), far().with("verdict", "opening")), Undecided(Doubt::Open)),
        (
            "the record is lost",
            both(near().with("verdict", "evicted"), answered_far()),
            Undecided(Doubt::Evicted),
        ),
        (
            "the client's side sees one way",
            both(near().with("cause", "answer_unseen"), answered_far()),
            Undecided(Doubt::OneWay),
        ),
        (
            "the server's side sees one way",
            both(completed_near(), far().with("cause", "answer_unseen")),
            Completed,
        ),
        (
            "a verdict of a later version",
            both(near().with("verdict", "new"), answered_far()),
            Undecided(Doubt::Unknown),
        ),
        ("another K before", both(completed_near(), far().completed(K + 1, MS, 2 * MS)), AnsweredBetween),
        ("answered, and not by the server", both(completed_near(), far()), AnsweredBetween),
    ]
}

#[test]
fn each_way_is_told_by_two_accounts() {
    for (name, (near, far), outcome) in ways() {
        let [first, second] = [near, far].map(Told::of);
        let joined = joined(&first, &second);
        assert_eq!(joined.rows.len(), 1, "{name}");
        assert_eq!((joined.rows[0].outcome, joined.rows[0].near), (outcome, Which::First), "{name}");
        assert!(joined.is_exact(), "{name}");
    }
}

/// All ways in one pair of files: the sums are those of the attempts, whatever the order of the lines.
#[test]
fn the_sums_are_those_of_the_attempts() {
    let (mut first, mut second) = (Vec::new(), Vec::new());
    for (number, (_, (near, far), _)) in (0..).zip(ways()) {
        let renumber = |line: Line| line.with("isn_initiator", J.wrapping_add(number));
        first.extend(near.map(renumber));
        second.extend(far.map(renumber));
    }
    second.reverse();
    let joined = joined(&Told::of(first), &Told::of(second));
    let totals = &joined.totals;
    let ended: u64 = totals.ended.values().sum();
    assert_eq!(joined.rows.len(), ways().len());
    assert_eq!((totals.completed, totals.lost_between, totals.lost_in), (2, [1, 3, 1], [1, 1]));
    assert_eq!((totals.answered_between, ended, totals.undecided), (2, 7, [2, 1, 1, 1]));
    // Among them that of which the client's account alone has anything: the other knows the service. And that of
    // which the other has no answer: it sees those to others.
    assert_eq!(totals.reset_between, 5);
    assert_eq!((totals.only, totals.unclear), ([3, 0], 0));
    // Each attempt of both has one outcome.
    let of_both = totals.completed + totals.lost_between[1] + totals.lost_between[2];
    let undecided: u64 = totals.undecided.iter().sum();
    let ended_in_both = ended - 1 + totals.reset_between - 1;
    assert_eq!(totals.matched, of_both + totals.lost_in.iter().sum::<u64>() + ended_in_both + undecided);
    assert_eq!(totals.translated, totals.matched);
}

/// Files named the other way round say the same: which is nearer follows from seats, or from how long the way
/// there and back takes.
#[test]
fn the_order_of_the_accounts_is_found() {
    let leg = |line: Line, after| line.answered(K, after);
    let by_legs = (leg(near(), 41 * MS), leg(far(), MS));
    let by_seat = (near().with("seat", "initiator"), far().answered(K, MS));
    let by_other_seat = (near(), far().answered(K, MS).with("seat", "responder"));
    // Nothing tells but that the one answered, which completed nowhere.
    let by_answer = (near(), far().answered(K, MS));
    for (near, far) in [by_legs, by_seat, by_other_seat, by_answer] {
        let (near, far) = (Told::of([near]), Told::of([far]));
        let (right, wrong) = (joined(&near, &far), joined(&far, &near));
        assert_eq!((right.rows[0].near, wrong.rows[0].near), (Which::First, Which::Second));
        assert_eq!((right.usually_near(), wrong.usually_near()), (Which::First, Which::Second));
        let expected = match wrong.rows[0].outcome {
            Outcome::LostIn(which) => Outcome::LostIn(which.other()),
            same @ (Outcome::LostBetween(_) | Outcome::Completed | Outcome::Ended(_)) => same,
            same @ Outcome::ResetBetween(_) => same,
            other @ (Outcome::AnsweredBetween | Outcome::Undecided(_) | Outcome::Alone) => {
                panic!("{other:?}")
            }
        };
        assert_eq!(right.rows[0].outcome, expected);
    }
}

/// Two hosts that connect to each other: each attempt has its own direction.
#[test]
fn both_directions_are_told_apart() {
    let back = |line: [&str; 2], ns, seat: &str| Line::begun(line, 7, ns).with("seat", seat);
    let first = [near().with("seat", "initiator"), back([SERVER, CLIENT], 50, "responder").answered(9, MS)];
    let second = [far().with("seat", "responder").answered(K, MS), back([SERVER, CLIENT], 0, "initiator")];
    let joined = joined(&Told::of(first), &Told::of(second));
    assert_eq!(joined.totals.nearer, [1, 1]);
    assert_eq!(joined.totals.lost_between, [0, 2, 0]);
}

#[test]
fn clocks_that_agree_give_times_of_one_way() {
    let near = near().completed(K, 2 * WAY + MS, 3 * WAY);
    let far = far().completed(K, MS, 2 * WAY);
    let joined = joined(&Told::of([near]), &Told::of([far]));
    let tick = |ns: Option<u64>| ns.map(|ns| ns.div_ceil(1_000) * 1_000);
    assert_eq!(joined.one_way_ns(&joined.rows[0]).map(tick), [Some(WAY); 2]);
    assert_eq!(tick(joined.round_trip_ns(&joined.rows[0])), Some(2 * WAY));
    assert!(matches!(joined.clocks.finding(), ClockFinding::Agree(error) if error.div_ceil(MS) == 20));
}

/// Hours apart, in both directions: the attempts are found, the difference is said, and no time of one way
/// is.
#[test]
fn clocks_that_differ_by_hours_are_found() {
    const HOURS: i64 = 2 * 3_600_000_000_000;
    let number = |line: Line, number: u32| line.with("isn_initiator", J + number);
    for ahead in [HOURS, -HOURS] {
        let completed = || {
            let near = near().completed(K, 2 * WAY + MS, 3 * WAY);
            (near, far().completed(K, MS, 2 * WAY))
        };
        let stuck = || (near(), far());
        let (one, other) = (completed(), stuck());
        let first = Told::of([one.0, number(other.0, 1), number(near(), 2)]);
        let second = Told::of([one.1, number(other.1, 1)]).ahead(ahead);
        let both = joined(&first, &second);
        assert_eq!((both.totals.completed, both.totals.lost_in), (1, [0, 1]));
        assert_eq!(both.totals.lost_between, [1, 0, 0], "the other looked, by its own clock");
        let ClockFinding::Differ(least, most) = both.clocks.finding() else {
            panic!("{:?}", both.clocks.finding());
        };
        assert!(least <= ahead && ahead <= most && most - least < 50_000_000, "{least} {most}");
        assert_eq!(both.one_way_ns(&both.rows[0]), [None; 2]);
        assert!(both.round_trip_ns(&both.rows[0]).is_some());
        // Without one SYN+ACK: about.
        let silent = joined(&Told::of([stuck().0]), &Told::of([stuck().1]).ahead(ahead));
        assert_eq!(silent.totals.lost_in, [0, 1]);
        assert!(
            matches!(silent.clocks.finding(), ClockFinding::About(about) if about.abs_diff(ahead) < 50_000_000)
        );
    }
}

/// A clock that was set meanwhile: no difference fits all, and no time of one way is told.
#[test]
fn a_clock_that_was_set_meanwhile_is_found() {
    let pair = |number: u32| {
        let near = near().completed(K, 2 * WAY + MS, 3 * WAY).with("isn_initiator", J + number);
        (near, far().completed(K, MS, 2 * WAY).with("isn_initiator", J + number))
    };
    let (before, after) = (pair(0), pair(1));
    let moved = Told::of([after.1]).ahead(5_000_000_000).lines;
    let second = Told::of([before.1].into_iter().chain(moved));
    let joined = joined(&Told::of([before.0, after.0]), &second);
    assert_eq!(joined.totals.completed, 2);
    assert!(matches!(joined.clocks.finding(), ClockFinding::Changed(..)), "{:?}", joined.clocks.finding());
    assert!(joined.one_way.iter().all(|times| times.count() == 0));
}

/// The first SYN was lost between, and a repetition came: the times of what was repeated are no times of a
/// way.
#[test]
fn a_repeated_segment_has_no_time_of_one_way() {
    let near = near().with("syn", 2).completed(K, 1_000 * MS, 1_001 * MS).without("syn_to_syn_ack_ns");
    let far = Line::begun([MASQUERADED, SERVER], J, 1_020_000_000).completed(K, MS, 2 * WAY);
    let joined = joined(&Told::of([near]), &Told::of([far]));
    assert_eq!(joined.totals.completed, 1);
    assert_eq!(joined.one_way_ns(&joined.rows[0]), [None; 2]);
    assert_eq!(joined.round_trip_ns(&joined.rows[0]), None);
}
