//! The output of a check with made-up figures.

use std::sync::Arc;

use handshake_agent::fake::{BEGINNING, Fake, SECOND};
use handshake_agent::model::metric::METRICS;
use handshake_agent::model::snapshot::{InterfaceHooks, LiveOrigin, Origin, RunContext, Snapshot};
use handshake_agent::options::Filter;
use handshake_common::abi::Counter;
use handshake_common::record::State;
use handshake_common::verdict::Leg;

use super::kernel::{NetAccount, NetCounters};
use super::{
    Checked, Ended, Expectation, Judged, JudgedWindow, KernelCounter, Status, exit_code, list, name,
};
use crate::report::json::write_check;
use crate::report::text::{Style, draw, draw_check};
use crate::testing::{CHECK, code, firsts};

/// The snapshots of 1 967 attempts at three services in two seconds, of which 1 204 completed.
pub(super) fn load(meddle: impl FnOnce(&mut Fake)) -> JudgedWindow {
    let mut fake = Fake::new();
    for (row, address) in [(1, "10.0.0.2:443"), (2, "10.0.0.3:443"), (3, "[2001:db8::2]:80")] {
        fake.service(row, address);
    }
    // Before the command's start, so not in its rates.
    fake.ended(1, Counter::Completed, 4);
    let started = take(&mut fake);
    fake.later(2 * SECOND);
    fake.ended(1, Counter::Completed, 1_000);
    fake.ended(2, Counter::Completed, 200);
    fake.ended(3, Counter::Refused, 761);
    fake.open(2, State::SynReceived, SECOND);
    fake.open(2, State::SynReceived, SECOND);
    let ended = take(&mut fake);
    fake.later(3 * SECOND);
    meddle(&mut fake);
    let settled = take(&mut fake);
    JudgedWindow { started, ended, settled }
}

/// Three equal snapshots: no time passes.
pub(super) fn standing(fake: &mut Fake) -> JudgedWindow {
    let snapshot = take(fake);
    JudgedWindow { started: snapshot.clone(), ended: snapshot.clone(), settled: snapshot }
}

fn take(fake: &mut Fake) -> Snapshot {
    let interface = InterfaceHooks { name: "eth0".to_owned(), ..InterfaceHooks::default() };
    let context = Arc::new(RunContext {
        origin: Origin::Live(LiveOrigin { interfaces: vec![interface], ..LiveOrigin::default() }),
        began: BEGINNING,
        filter: Filter::default(),
        top: usize::MAX,
        owners: handshake_agent::owner::OwnerBook::default(),
    });
    Snapshot::take(fake, &context, None).expect("it cannot fail")
}

fn expectations(texts: &[&str]) -> Vec<Expectation> {
    texts.iter().map(|text| Expectation::of_run(text).unwrap_or_else(|wrong| panic!("{wrong}"))).collect()
}

fn shown(window: JudgedWindow, texts: &[&str], account: Option<NetAccount>) -> String {
    let expectations = expectations(texts);
    let judged: Vec<_> = expectations.iter().map(|each| Judged::by(&window, each)).collect();
    let code = exit_code(&judged);
    let checked = Checked { window, judged, command: None, account, code };
    draw_check(&checked, "", Style::plain(100))
}

#[test]
fn a_failed_expectation_has_its_numbers_and_its_sentence() {
    let window = load(|fake| {
        fake.sample(Leg::Connect, 1_500_000, 90);
        fake.sample(Leg::Connect, 1_040_000_000, 10);
        fake.count(Counter::SynRetransmits, 10);
    });
    let texts = [
        "completed >= 1000",
        "completed / attempts >= 99.9%",
        "completed / attempts >= 0.999",
        "half_open == 0",
        "refused{port=80} / attempts{port=80} < 1%",
        "completed{port=443} / attempts{port=443} >= 99.9%",
        "half_open{port=443} == 0",
        "attempts{port=80} <= 700",
        "completed + refused >= attempts",
        "attempts >= 2000",
        "p50(connect) < 2ms",
        "p99(connect of completed) < 1s",
        "p99(connect) < 1s",
        "rate(completed) >= 601/s",
        "signs.syn_retransmits <= 9",
        "attempts - completed <= completed / 2",
    ];
    insta::assert_snapshot!(shown(window, &texts, None));
}

/// What limits a rate or a count is said, whether or not attempts have failed.
#[test]
fn too_few_completed_attempts_are_explained() {
    let text = "rate(completed) >= 601/s";
    let some_failed = shown(load(|_| {}), &[text], None);
    let mut fake = Fake::new();
    let started = take(&mut fake);
    fake.later(2 * SECOND);
    fake.ended(0, Counter::Completed, 1_000);
    let ended = take(&mut fake);
    let window = JudgedWindow { started, ended: ended.clone(), settled: ended };
    let none_failed = shown(window, &[text, "completed > 1000"], None);
    for (said, parts) in [
        (
            some_failed,
            &[
                "completed: 1 963 attempts began and 1 200 completed in 2 s 761 refused: the responder",
                " 2 no_ack: ",
            ][..],
        ),
        (
            none_failed,
            &[
                "completed: 1 000 attempts began and 1 000 completed in 2 s: what began is the limit, no attempt failed",
            ][..],
        ),
    ] {
        let words = said.split_whitespace().collect::<Vec<_>>().join(" ");
        for part in parts {
            assert_eq!(words.matches(part).count(), 1, "{part:?} is not once in {said}");
        }
    }
}

/// Rounding does not move a value to the other side of its limit: 99.989 % does not show as 99.99 %.
#[test]
fn a_shown_value_is_on_the_true_side_of_its_limit() {
    let mut fake = Fake::new();
    fake.ended(0, Counter::Completed, 99_989);
    fake.ended(0, Counter::Refused, 11);
    let shown =
        shown(standing(&mut fake), &["completed / attempts >= 99.99%", "completed / attempts > 99.9%"], None);
    assert!(shown.contains("FAILED completed / attempts >= 99.99%: 99.989 % (99 989 / 100 000)"), "{shown}");
    assert!(shown.contains("met completed / attempts > 99.9%: 99.99 % (99 989 / 100 000)"), "{shown}");
}

#[test]
fn an_inconclusive_expectation_has_its_reason() {
    let texts =
        ["completed / attempts > 1%", "p99(connect) < 2ms", "rate(completed) > 1/s", "half_open == 0"];
    insta::assert_snapshot!(shown(standing(&mut Fake::new()), &texts, None));
    let window = load(|fake| fake.count(Counter::Untracked, 12));
    insta::assert_snapshot!("lost_data_is_the_reason", shown(window, &["completed >= 1000"], None));
}

/// Thirteen handshakes completed with our services, and nine were accepted.
#[test]
fn the_kernels_counters_are_shown_with_their_difference() {
    let counts = counts(&[
        (KernelCounter::PassiveOpens, 9),
        (KernelCounter::ListenOverflows, 11),
        (KernelCounter::ListenDrops, 11),
        (KernelCounter::SynRetrans, 7),
    ]);
    let account = NetAccount { counts, within: counts, completed: Some(13), attempts: 13 };
    insta::assert_snapshot!(shown(standing(&mut Fake::new()), &[], Some(account)));
}

/// No sentence claims more than the counters of a whole namespace can prove.
#[test]
fn each_difference_has_its_sentence() {
    use KernelCounter::{
        ListenDrops, ListenOverflows, PassiveOpens, ReqQFullDrop, SyncookiesFailed, SyncookiesSent,
    };
    type Row<'a> = (&'a [(KernelCounter, u64)], Option<u64>, &'a [&'a str]);
    let table: [Row<'_>; 10] = [
        (&[(PassiveOpens, 13)], Some(13), &[]),
        (&[], None, &[]),
        (
            &[(PassiveOpens, 9), (ListenDrops, 4)],
            Some(13),
            &["13 completed on the wire, 9 accepted (PassiveOpens): 4 ACKs were ignored", "ListenDrops 4: "],
        ),
        (&[(PassiveOpens, 12)], Some(13), &["1 ACK was ignored, or accepted elsewhere"]),
        // One drop does not explain four.
        (
            &[(PassiveOpens, 9), (ListenDrops, 1)],
            Some(13),
            &["4 ACKs were ignored, or accepted elsewhere", "ListenDrops 1: "],
        ),
        (&[(PassiveOpens, 14)], Some(13), &["14 accepted (PassiveOpens), 13 completed here: the others"]),
        (&[(PassiveOpens, 9)], None, &[]),
        (
            &[(ListenOverflows, 3), (ListenDrops, 3)],
            Some(0),
            &["ListenOverflows 3: an accept queue was full"],
        ),
        (&[(ReqQFullDrop, 3)], Some(0), &["TCPReqQFullDrop 3: a SYN queue was full"]),
        (
            &[(SyncookiesSent, 5), (SyncookiesFailed, 2)],
            Some(1),
            &["1 ACK was ignored", "SyncookiesSent 5: ", "SyncookiesFailed 2: "],
        ),
    ];
    for (counted, completed, expected) in table {
        let counts = counts(counted);
        let words = NetAccount { counts, within: counts, completed, attempts: u64::MAX }.words();
        assert_eq!(words.len(), expected.len(), "{words:?}");
        for (sentence, part) in words.iter().zip(expected) {
            assert!(sentence.contains(part), "no {part:?} in {sentence:?}");
            let unproven = part.contains("or accepted elsewhere");
            assert_eq!(sentence.contains("or accepted elsewhere"), unproven, "{sentence}");
        }
    }
}

/// Where the kernel opens more than the wire has, the account says so.
#[test]
fn connections_that_no_hook_saw_are_told() {
    use KernelCounter::{ActiveOpens, PassiveOpens};
    let table = [
        (0, 0, 0, "", false),
        (120, 0, 120, "", false),
        // On loopback each connection is in both.
        (7, 7, 7, "", false),
        (120, 0, 20, "120 opened by this host (ActiveOpens, PassiveOpens), 20 attempts seen here", false),
        (0, 5, 0, "5 opened by this host", true),
        (3, 0, 0, "3 opened by this host", true),
    ];
    for (active, passive, attempts, said, all_unseen) in table {
        let counts = counts(&[(ActiveOpens, active), (PassiveOpens, passive)]);
        let account = NetAccount { counts, within: counts, completed: None, attempts };
        let words = account.words().join(" ");
        assert!(words.contains(said) && words.is_empty() == said.is_empty(), "{words}");
        assert_eq!(account.is_all_unseen(), all_unseen, "{active} {passive} {attempts}");
    }
}

/// What the kernel counted before the first snapshot and after the last one proves nothing about the wire.
#[test]
fn what_the_kernel_counted_outside_of_the_snapshots_accuses_no_path() {
    use KernelCounter::{ActiveOpens, PassiveOpens};
    let account = |within| NetAccount {
        counts: counts(&[(PassiveOpens, 73), (ActiveOpens, 1)]),
        within: counts(&[(PassiveOpens, within)]),
        completed: Some(69),
        attempts: 69,
    };
    assert_eq!(account(69).words(), [""; 0]);
    let idle = NetAccount { completed: None, attempts: 0, ..account(0) };
    assert!(!idle.is_all_unseen() && idle.words().is_empty(), "{idle:?}");
    assert!(account(70).words()[0].starts_with("70 accepted (PassiveOpens), 69 completed here"));
}

fn counts(counted: &[(KernelCounter, u64)]) -> NetCounters {
    let line =
        |what: fn(&(KernelCounter, u64)) -> String| counted.iter().map(what).collect::<Vec<_>>().join(" ");
    let (names, values) =
        (line(|(counter, _)| counter.name().to_owned()), line(|(_, count)| count.to_string()));
    NetCounters::parse(&[format!("TcpExt: {names}\nTcpExt: {values}\n")])
}

#[test]
fn only_services_at_our_own_addresses_are_compared() {
    let window = load(|fake| fake.ended(1, Counter::Completed, 7));
    let own = |texts: &[&str]| texts.iter().map(|text| text.parse().expect("an address")).collect();
    let snapshots = [&window.started, &window.settled];
    let account = |own| NetAccount::between(snapshots, [NetCounters::default(); 2], &own);
    assert_eq!(
        account(own(&["10.0.0.2"])).completed,
        Some(1_007),
        "attempts before the start are not included"
    );
    assert_eq!(account(own(&["10.0.0.3", "2001:db8::2"])).completed, Some(200));
    assert_eq!(account(own(&["10.0.0.4"])).completed, Some(0));
}

/// Five refused attempts are of services without a row of their own.
#[test]
fn a_value_that_may_be_several_is_shown_by_its_ends() {
    let window = load(|fake| {
        fake.service(0, "0.0.0.0:0");
        fake.ended(0, Counter::Refused, 5);
    });
    let expectations = expectations(&["completed{port=443} / attempts{port=443} > 99%", "completed == 1204"]);
    let judged = expectations.iter().map(|each| Judged::by(&window, each)).collect();
    let checked = Checked { window, judged, command: None, account: None, code: 0 };
    let drawn = draw_check(&checked, "", Style::plain(100));
    assert!(
        drawn.contains(
            "met completed{port=443} / attempts{port=443} > 99%: 99.4 % to 99.8 % (1 204 / 1 206 to 1 211)\n"
        ),
        "{drawn}"
    );
    let mut out = Vec::new();
    write_check(&mut out, &checked.window.settled, &checked, None).expect("memory takes everything");
    let report: serde_json::Value = serde_json::from_slice(&out).expect("an object");
    let [range, known] = [0, 1].map(|at| &report["expectations"][at]);
    assert!(range["measured"].is_null() && range["at_least"].as_f64() < range["at_most"].as_f64(), "{range}");
    assert!(known["measured"] == 1204 && known.get("at_least").is_none(), "{known}");
}

#[test]
fn json_has_expectations_command_and_kernel() {
    let window = load(|_| {});
    let expectations =
        expectations(&["completed == 1204", "completed / attempts > 99%", "p99(connect) < 2ms"]);
    let judged = expectations.iter().map(|each| Judged::by(&window, each)).collect();
    let command = Some(Ended {
        words: vec!["./load.sh".to_owned(), "fast".to_owned()],
        status: Some(Status::Exited(0)),
        stopped: false,
        stripped: false,
        ignored: false,
    });
    let account = Some(NetAccount {
        counts: counts(&[(KernelCounter::PassiveOpens, 9)]),
        within: NetCounters::default(),
        completed: Some(13),
        attempts: 13,
    });
    let checked = Checked { window, judged, command, account, code: 1 };
    let mut out = Vec::new();
    write_check(&mut out, &checked.window.settled, &checked, None).expect("memory takes everything");
    let report: serde_json::Value = serde_json::from_slice(&out).expect("an object");
    assert!(report["type"] == "report" && report["tcp"]["completed"] == 1_204, "{report}");
    assert!(
        draw_check(&checked, "", Style::plain(100)).contains("command   ./load.sh fast · status 0 · 2 s\n")
    );
    let added = ["expectations", "command", "kernel"].map(|name| format!("{name}: {:#}", report[name]));
    insta::assert_snapshot!(added.join("\n"));
}

/// A wall clock that is set while the command runs changes labels only, and they agree with each other.
#[test]
fn times_of_a_check_are_told_by_one_clock() {
    let window = load(|fake| fake.reading.wall_ns -= 3_600 * SECOND);
    let ended = Ended {
        words: Vec::new(),
        status: Some(Status::Exited(0)),
        stopped: false,
        stripped: false,
        ignored: false,
    };
    let nothing = NetCounters::default();
    let account = Some(NetAccount { counts: nothing, within: nothing, completed: None, attempts: 0 });
    let checked = Checked { window, judged: Vec::new(), command: Some(ended), account, code: 0 };
    let mut out = Vec::new();
    write_check(&mut out, &checked.window.settled, &checked, None).expect("memory takes everything");
    let report: serde_json::Value = serde_json::from_slice(&out).expect("an object");
    let (command, kernel) = (&report["command"], &report["kernel"]);
    let times = [&report["from"], &command["started"], &command["ended"], &report["to"]];
    for (time, told) in ["11:03:41", "11:03:41", "11:03:43", "11:03:46"].into_iter().zip(times) {
        assert_eq!(*told, format!("2026-03-01T{time}.000000000Z"), "{report}");
    }
    assert_eq!([&kernel["from"], &kernel["to"]], [times[1], times[3]]);
}

/// Every listed name can be used in an expectation.
#[test]
fn every_metric_is_listed_and_can_be_used() {
    let mut out = Vec::new();
    list::write(&mut out).expect("memory takes everything");
    let listed = String::from_utf8(out).expect("text");
    insta::assert_snapshot!("list_of_metrics", listed);
    for metric in METRICS.iter() {
        assert!(
            listed.lines().any(|line| line.split_whitespace().next() == Some(&metric.name)),
            "{}",
            metric.name
        );
    }
    let rows = listed.lines().filter(|line| line.starts_with("  "));
    let mut count = 0;
    for name in rows.filter_map(|row| row.split_whitespace().next()).filter(|name| !name.ends_with(',')) {
        let limit = if name.ends_with("_ns") || (name.contains('(') && !name.contains("count(")) {
            "1s"
        } else {
            "1"
        };
        let limit = if name.starts_with("rate") { "1/s" } else { limit };
        let limit = if name.starts_with("excluded(") { "1" } else { limit };
        Expectation::of_run(&format!("{name} < {limit}")).unwrap_or_else(|wrong| panic!("{wrong}"));
        count += 1;
    }
    assert!(count > METRICS.len(), "{count} rows:\n{listed}");
}

/// In docs/check.md, each expectation parses, and each function, unit and counter is present.
#[test]
fn the_language_of_expectations_is_documented() {
    let examples = firsts(CHECK, "expectation");
    assert!(examples.len() > 5, "{examples:?}");
    examples.iter().for_each(|example| {
        Expectation::of_run(example).unwrap_or_else(|wrong| panic!("{wrong}"));
    });
    assert_eq!(firsts(CHECK, "function"), name::FUNCTIONS.map(|(name, _)| name.to_owned()).into());
    let counters = KernelCounter::ALL.map(|counter| counter.name().to_owned());
    assert_eq!(firsts(CHECK, "counter"), counters.into());
    let words = code(CHECK);
    let message = Expectation::of_run("p99(connect) < 1x").expect_err("x is not a unit").to_string();
    let (_, units) = message.lines().next().and_then(|line| line.split_once("use ")).expect("all units");
    let mut wanted: Vec<&str> = units.split([',', ' ']).filter(|word| !["", "or"].contains(word)).collect();
    wanted.extend(Leg::ALL.map(Leg::name));
    wanted.extend([">=", "<=", "==", "!=", ">", "<", name::RATE]);
    let missing: Vec<&str> =
        wanted.into_iter().filter(|word| !words.iter().any(|known| known == word)).collect();
    assert!(missing.is_empty(), "not in docs/check.md: {missing:?}");
}

/// The last line counts what the expectations came to, and says how the command failed.
#[test]
fn the_last_line_is_the_verdict() {
    let verdict = |texts: &[&str], command: Option<(u8, bool)>, code| {
        let (window, expectations) = (load(|_| {}), expectations(texts));
        let judged = expectations.iter().map(|each| Judged::by(&window, each)).collect();
        let command = command.map(|(status, ignored)| Ended {
            words: vec!["sh".to_owned()],
            status: Some(Status::Exited(status)),
            stopped: false,
            stripped: false,
            ignored,
        });
        Checked { window, judged, command, account: None, code }.verdict()
    };
    let [met, failed, open] = ["completed > 0", "completed == 0", "completed / udp.flows > 1%"];
    let table: [(&[&str], _, u8, Option<&str>); 8] = [
        (&[], None, 0, None),
        (&[], Some((0, false)), 0, None),
        (&[], Some((7, false)), 1, Some("the command sh failed with status 7 (exit 1)")),
        (&[met], Some((0, false)), 0, Some("MET 1 of 1 expectation (exit 0)")),
        (&[met, failed, failed], None, 1, Some("FAILED 2 of 3 expectations (exit 1)")),
        (&[met, open], None, 3, Some("INCONCLUSIVE 1 of 2 expectations (exit 3)")),
        (
            &[met, failed, open],
            Some((7, false)),
            3,
            Some(
                "INCONCLUSIVE 1 and FAILED 1 of 3 expectations; the command sh failed with status 7 (exit 3)",
            ),
        ),
        (
            &[met, met],
            Some((7, true)),
            0,
            Some("MET 2 of 2 expectations; the command sh failed with status 7, which is ignored (exit 0)"),
        ),
    ];
    for (texts, command, code, expected) in table {
        assert_eq!(verdict(texts, command, code).as_deref(), expected);
    }
}

/// What the report has said above is not said below.
#[test]
fn a_sentence_of_the_report_is_not_repeated() {
    let (window, expectations) = (load(|_| {}), expectations(&["refused == 0"]));
    let judged = expectations.iter().map(|each| Judged::by(&window, each)).collect();
    let checked = Checked { window, judged, command: None, account: None, code: 1 };
    let alone = draw_check(&checked, "", Style::plain(100));
    let report = draw(&checked.window.settled, None, Style::plain(100));
    let below = draw_check(&checked, &report, Style::plain(100));
    let shown = [&report, &alone, &below].map(|text| text.contains("refused: the"));
    assert_eq!(shown, [true, true, false], "{report}{below}");
}
