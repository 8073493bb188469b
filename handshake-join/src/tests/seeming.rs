//! What two accounts seem to say and do not: numbers that are alike by chance, accounts that lack something,
//! and what answers between.

use proptest::prelude::*;
use serde_json::json;

use super::accounts::{CLIENT, Line, MASQUERADED, SERVER, Told, WAY, account, joined};
use crate::{JoinError, Joined, Outcome, Segment, Which};

const MS: u64 = 1_000_000;
const SECOND: i64 = 1_000_000_000;

fn completed(ends: [&str; 2], (j, k): (u32, u32), ns: i64) -> Line {
    Line::begun(ends, j, ns).completed(k, 2 * WAY, 3 * WAY)
}

fn completed_far(ends: [&str; 2], (j, k): (u32, u32), ns: i64) -> Line {
    Line::begun(ends, j, ns + WAY.cast_signed()).completed(k, MS, 2 * WAY)
}

#[test]
fn one_account_named_twice_is_refused() {
    let lines = [1, 2].map(|j| completed([CLIENT, SERVER], (j, 7), i64::from(j) * SECOND));
    let accounts = [0, 1].map(|_| account(Told::of(lines.clone()).text()).expect("an account"));
    assert!(matches!(Joined::of(accounts), Err(JoinError::Same(..))));
}

/// The same J is of another attempt where K, the ends or the time say so.
#[test]
fn numbers_that_are_alike_by_chance_are_told_apart() {
    let other = "10.77.1.2:50000";
    let stuck = |ends, ns| Line::begun(ends, 5, ns);
    let table: [(&str, Vec<Line>, Vec<Line>, u64); 7] = [
        (
            "by K",
            vec![completed([CLIENT, SERVER], (5, 1), 0), completed([other, SERVER], (5, 2), 10)],
            vec![completed_far([other, SERVER], (5, 2), 10), completed_far([CLIENT, SERVER], (5, 1), 0)],
            2,
        ),
        (
            "by the ends",
            vec![stuck([CLIENT, SERVER], 0), stuck([other, SERVER], 0)],
            vec![stuck([other, SERVER], 0), stuck([CLIENT, SERVER], 1)],
            2,
        ),
        (
            "by time, through a translation",
            vec![
                completed([CLIENT, SERVER], (1, 1), 0),
                stuck([CLIENT, SERVER], 0),
                stuck([other, SERVER], 300 * SECOND),
            ],
            vec![
                completed_far([MASQUERADED, SERVER], (1, 1), 0),
                stuck(["10.77.2.1:50000", SERVER], 300 * SECOND + 1),
                stuck([MASQUERADED, SERVER], 1),
            ],
            3,
        ),
        (
            "by the responder, through a translation that others tell",
            vec![
                stuck([other, "203.0.113.1:442"], 0),
                stuck([CLIENT, "203.0.113.1:443"], SECOND / 4),
                Line::begun([CLIENT, "203.0.113.1:443"], 6, 0),
                Line::begun([CLIENT, "203.0.113.1:443"], 7, 0),
            ],
            [5, 6, 7].map(|j| Line::begun([CLIENT, SERVER], j, 1).answered(9, 1)).to_vec(),
            3,
        ),
        (
            "by time, before one whose SYN was lost takes it",
            vec![
                completed([CLIENT, SERVER], (1, 1), 0),
                stuck([CLIENT, SERVER], 0),
                stuck([other, SERVER], 60 * SECOND),
            ],
            vec![
                completed_far([MASQUERADED, SERVER], (1, 1), 0),
                stuck(["10.77.2.1:50000", SERVER], 60 * SECOND + 1),
            ],
            2,
        ),
        (
            "by time alone: another attempt of the same number an hour later",
            vec![completed([CLIENT, SERVER], (1, 1), 0), stuck([CLIENT, SERVER], 0)],
            vec![completed_far([MASQUERADED, SERVER], (1, 1), 0), stuck([MASQUERADED, SERVER], 400 * SECOND)],
            1,
        ),
        (
            "by half a K: the one that was answered is another",
            vec![completed([CLIENT, SERVER], (1, 1), 0), completed([CLIENT, SERVER], (5, 3), 0)],
            vec![
                completed_far([MASQUERADED, SERVER], (1, 1), 0),
                completed_far([other, SERVER], (5, 4), 20 * SECOND),
            ],
            1,
        ),
    ];
    for (name, first, second, matched) in table {
        let joined = joined(&Told::of(first), &Told::of(second));
        assert_eq!(joined.totals.matched, matched, "{name}: {:#?}", joined.rows);
        assert_eq!(joined.totals.answered_between, 0, "{name}: {:#?}", joined.rows);
        for row in &joined.rows {
            if let ([Some(near), Some(far)], true) = (joined.near_and_far(row), row.is_matched()) {
                assert_eq!(near.initiator.port(), far.initiator.port(), "{name}");
            }
        }
    }
}

/// Forged SYNs may all have one number. Nothing is quadratic, and each finds its own.
#[test]
fn a_flood_of_one_number_is_joined_by_its_ends() {
    let ends = |number: u32| format!("10.77.{}.{}:40000", number / 250, number % 250 + 1);
    let side = |ns: i64| Told::of((0..5_000).map(|number| Line::begun([&ends(number), SERVER], 1, ns)));
    let both = joined(&side(0), &side(WAY.cast_signed()));
    assert_eq!((both.totals.matched, both.totals.translated), (5_000, 0));
    // Behind a translation, in the order of their times, or not at all.
    let moved = |number: u32| format!("192.0.2.1:{}", 1_000 + number);
    let second = (0..5_000).map(|number| Line::begun([&moved(number), SERVER], 1, i64::from(number)));
    let translated = joined(&side(0), &Told::of(second));
    assert!(translated.totals.matched <= 5_000);
}

/// An account that began later, ended sooner, or says that attempts have no line, does not prove that a SYN
/// did not come. One that is inexact says so.
#[test]
fn what_an_account_lacks_is_not_taken_as_lost() {
    let near =
        || Told::of([completed([CLIENT, SERVER], (1, 1), 0), Line::begun([CLIENT, SERVER], 2, 10 * SECOND)]);
    let far = || Told::of([completed_far([MASQUERADED, SERVER], (1, 1), 0)]);
    let is_lost = |far: &Told| {
        let joined = joined(&near(), far);
        let row = joined.rows.last().expect("a row");
        assert_eq!(joined.totals.unclear, u64::from(row.outcome == Outcome::Alone));
        (row.outcome == Outcome::LostBetween(Segment::Syn), joined.is_exact())
    };
    assert_eq!(is_lost(&far()), (true, true));
    let report = |change: fn(&mut serde_json::Value)| {
        let mut far = far();
        change(far.report.as_mut().expect("a report"));
        far
    };
    assert_eq!(
        is_lost(&report(|report| report["from"] = json!(super::accounts::at(11 * SECOND)))),
        (false, true)
    );
    assert_eq!(
        is_lost(&report(|report| report["to"] = json!(super::accounts::at(9 * SECOND)))),
        (false, true)
    );
    assert_eq!(is_lost(&report(|report| report["tcp"]["attempts"] = json!(2))), (false, false));
    // What was lost before the hook may have been a segment: it is said.
    let inexact = json!([{"reason": "lost_before_hook", "count": 3, "sentence": "lost"}]);
    let mut lossy = far();
    lossy.report.as_mut().expect("a report")["inexact"] = inexact;
    assert_eq!(is_lost(&lossy), (true, false));
    let lossy = joined(&near(), &lossy);
    assert_eq!(lossy.accounts[1].inexact[0].reason, "lost_before_hook");
    // It sees answers alone, so it has no attempt.
    let nothing = |orphans: u32| {
        let mut nothing = Told::of([]);
        nothing.report.as_mut().expect("a report")["tcp"]["entered"] = json!({"orphan_syn_ack": orphans});
        nothing
    };
    let last = |far: &Told| joined(&near(), far).rows.last().map(|row| row.outcome);
    let [all_lost, one_way] = [0, 7].map(|orphans| last(&nothing(orphans)));
    assert_eq!((all_lost, one_way), (Some(Outcome::LostBetween(Segment::Syn)), Some(Outcome::Alone)));
    // Rows of a service have no report.
    let rows = Told { report: None, ..far() };
    let of_rows = joined(&near(), &rows);
    assert_eq!((of_rows.totals.lost_between, of_rows.totals.unclear), ([0; 3], 1), "no row came so late");
    assert!(!of_rows.is_exact());
}

/// Attempts to elsewhere never come to the other place.
#[test]
fn attempts_to_other_hosts_are_not_lost() {
    let near = [
        completed([CLIENT, SERVER], (1, 1), 0),
        Line::begun([CLIENT, "198.51.100.9:443"], 2, SECOND),
        completed([CLIENT, "198.51.100.9:80"], (3, 3), SECOND),
    ];
    let far = [
        completed_far([MASQUERADED, SERVER], (1, 1), 0),
        completed_far(["203.0.113.5:1234", SERVER], (8, 8), SECOND),
    ];
    let joined = joined(&Told::of(near), &Told::of(far));
    let totals = &joined.totals;
    assert_eq!((totals.matched, totals.only, totals.unclear), (1, [2, 1], 2));
    assert_eq!((totals.lost_between, totals.answered_between), ([0; 3], 0));
}

/// A proxy has numbers and ends of its own. Its connections follow its clients' one by one.
#[test]
fn a_proxy_answers_between() {
    const FRONT: &str = "10.77.1.254:80";
    let client = |number: u32| format!("10.77.1.2:{}", 40_000 + number);
    let proxy = |number: u32| format!("10.77.2.254:{}", 50_000 + number);
    let time = |number: u32| i64::from(number) * 7_000_000;
    let before = || (0..1_000).map(|n| completed([&client(n), FRONT], (n, 9_000 + n), time(n)));
    let behind = |after: i64| {
        (0..1_000).map(move |n| completed_far([&proxy(n), SERVER], (70_000 + n, 80_000 + n), time(n) + after))
    };
    let through = joined(&Told::of(before()), &Told::of(behind(60_000_000)));
    let Totals { answered, matched, only } = Totals::of(&through);
    assert_eq!((answered, matched, only), (1_000, 0, [0, 0]));
    for row in &through.rows {
        let [near, far] = through.near_and_far(row).map(|each| each.expect("both"));
        assert_eq!(near.initiator.port() - 40_000, far.initiator.port() - 50_000, "in their order");
    }
    // Another service's clients, at another time, or now and then.
    let hour = joined(&Told::of(before()), &Told::of(behind(300 * SECOND)));
    assert_eq!(Totals::of(&hour), Totals { answered: 0, matched: 0, only: [1_000, 1_000] });
    let scattered = (0..1_000_u32).map(|n| {
        let mixed = (u64::from(n) + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let ns = i64::try_from((mixed ^ mixed >> 27) % 7_000_000_000).expect("seven seconds");
        completed_far([&proxy(n), SERVER], (70_000 + n, 80_000 + n), ns)
    });
    assert_eq!(Totals::of(&joined(&Told::of(before()), &Told::of(scattered))).answered, 0);
    // An account that lists failures alone has no line of what completed, so nothing is tied by time.
    let mut failures = Told::of(before());
    failures.report.as_mut().expect("a report")["tcp"]["completed"] = json!(1_001);
    assert_eq!(Totals::of(&joined(&failures, &Told::of(behind(60_000_000)))).answered, 0);
}

#[derive(Debug, PartialEq, Eq)]
struct Totals {
    answered: u64,
    matched: u64,
    only: [u64; 2],
}

impl Totals {
    fn of(joined: &Joined) -> Self {
        let totals = &joined.totals;
        Self { answered: totals.answered_between, matched: totals.matched, only: totals.only }
    }
}

/// A firewall that randomises J leaves K; one that rewrites both leaves the ends, and a SYN+ACK that is lost
/// behind it shows that it answers nothing itself.
#[test]
fn a_firewall_may_rewrite_numbers() {
    let time = |number: u32| i64::from(number) * SECOND;
    let client = |number: u32| format!("10.77.1.2:{}", 40_000 + number);
    let near = |n: u32| completed([&client(n), SERVER], (n, 900 + n), time(n));
    let one = |n: u32| completed_far([&client(n), SERVER], (n.wrapping_mul(2_654_435_769), 900 + n), time(n));
    let both = |n: u32| completed_far([&client(n), SERVER], (n + 5_000, 7_000 + n), time(n));
    let of_j = joined(&Told::of((1..20).map(near)), &Told::of((1..20).map(one)));
    assert_eq!((of_j.totals.completed, of_j.totals.rewritten), (19, 19));
    let stuck = Line::begun([&client(0), SERVER], 3_000, 0);
    let answered = Line::begun([&client(0), SERVER], 4_000, WAY.cast_signed()).answered(6_000, MS);
    let of_both =
        joined(&Told::of((1..20).map(near).chain([stuck])), &Told::of((1..20).map(both).chain([answered])));
    assert_eq!((of_both.totals.completed, of_both.totals.rewritten), (19, 20));
    assert_eq!(of_both.totals.lost_between, [0, 1, 0]);
    // One that is transparent, and answers before it asks.
    let slower = |n: u32| {
        let line = Line::begun([&client(n), SERVER], n + 5_000, time(n) + 2 * WAY.cast_signed());
        line.completed(7_000 + n, 3 * WAY, 4 * WAY)
    };
    let own = joined(&Told::of((1..20).map(near)), &Told::of((1..20).map(slower)));
    assert_eq!((own.totals.answered_between, own.totals.matched), (19, 0));
}

/// A server with SYN cookies answers each SYN with a K of its own: both are its.
#[test]
fn a_server_may_have_two_ks() {
    let near = Line::begun([CLIENT, SERVER], 1, 0).answered(8, 2 * WAY);
    let far = Line::begun([MASQUERADED, SERVER], 1, WAY.cast_signed()).answered(7, MS);
    let with = |field: &str| joined(&Told::of([near.clone()]), &Told::of([far.clone().with(field, 8)]));
    assert_eq!(with("other_isn_responder").rows[0].outcome, Outcome::LostIn(Which::First));
    assert_eq!(with("nothing").rows[0].outcome, Outcome::AnsweredBetween);
}

/// A router sees each attempt twice, before and after it translates.
#[test]
fn a_router_sees_an_attempt_at_two_interfaces() {
    let near = Told::of([completed([CLIENT, SERVER], (1, 1), 0)]);
    let inner = |line: Line, interface: &str| line.with("interface", interface);
    let router = Told::of([
        inner(completed_far([CLIENT, SERVER], (1, 1), 0), "eth0"),
        inner(completed_far([MASQUERADED, SERVER], (1, 1), 20_000), "eth1"),
    ]);
    let far = Told::of([completed_far([MASQUERADED, SERVER], (1, 1), WAY.cast_signed())]);
    for (first, second, translated) in [(&near, &router, 0), (&router, &far, 1), (&near, &far, 1)] {
        let joined = joined(first, second);
        let totals = &joined.totals;
        assert_eq!((totals.matched, totals.only, totals.translated), (1, [0, 0], translated));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever two accounts hold: each attempt of each is in one row, and the sums are those of the rows.
    #[test]
    fn each_attempt_is_in_one_row(
        sides in prop::array::uniform2(prop::collection::vec((0_u32..6, 0_u32..4, 0_u16..4, 0_i64..9, 0_u8..4), 0..40))
    ) {
        let line = |(j, k, port, second, stands): (u32, u32, u16, i64, u8)| {
            let client = format!("10.77.1.2:{}", 40_000 + port);
            let begun = Line::begun([&client, SERVER], j, second * 300 * SECOND);
            match stands {
                0 => begun,
                1 => begun.answered(k, MS),
                2 => begun.completed(k, MS, 2 * MS),
                _ => begun.ended("refused"),
            }
        };
        let told = sides.map(|side| Told::of(side.into_iter().map(line)));
        let accounts = [&told[0], &told[1]].map(|told| account(told.text()).expect("an account"));
        let sizes = [accounts[0].attempts.len(), accounts[1].attempts.len()];
        let Ok(joined) = Joined::of(accounts) else { return Ok(()) };
        let mut seen = [0; 2];
        for row in &joined.rows {
            for (seen, side) in seen.iter_mut().zip(joined.sides(row)) {
                *seen += usize::from(side.is_some());
            }
        }
        prop_assert_eq!(seen, sizes);
        let totals = &joined.totals;
        let all: u64 = totals.completed
            + totals.lost_between.iter().sum::<u64>()
            + totals.lost_in.iter().sum::<u64>()
            + totals.ended.values().sum::<u64>()
            + totals.reset_between
            + totals.answered_between
            + totals.undecided.iter().sum::<u64>();
        let alone = joined.rows.iter().filter(|row| row.outcome == Outcome::Alone).count() as u64;
        prop_assert_eq!(all + alone, joined.rows.len() as u64);
        let paired = totals.matched + totals.answered_between + totals.only.iter().sum::<u64>();
        prop_assert_eq!(paired, joined.rows.len() as u64);
    }
}
