//! What is read of files: lines in any order and of any type, several files, and files that are cut.

use serde_json::json;

use super::accounts::{CLIENT, Line, MASQUERADED, SERVER, Scratch, Told, account, at};
use crate::{AccountFiles, COST, JoinError, Room, are_read_once, needed, read};

const SECOND: i64 = 1_000_000_000;

fn lines() -> Vec<Line> {
    let begun = |j: u32| Line::begun([CLIENT, SERVER], j, i64::from(j) * SECOND);
    vec![begun(1), begun(2).answered(7, 100), begun(3).completed(8, 100, 200)]
}

/// The reasons for which an account is not exact.
fn reasons(text: impl AsRef<[u8]>) -> Vec<(String, u64)> {
    let account = account(text).expect("an account");
    account.inexact.iter().map(|inexact| (inexact.reason.clone(), inexact.count)).collect()
}

/// The rows of one attempt are one attempt, and the last one says how it ended.
#[test]
fn an_attempt_has_one_place_whatever_lines_it_has() {
    let half_open = lines()[1].clone().with("event", "half_open").with("at", at(5 * SECOND));
    let ended = lines()[1].clone().completed(7, 100, 4_000_000_000);
    let ended = ended.with("event", "ended").with("at", at(6 * SECOND));
    let table = lines()[1].clone().completed(7, 100, 4_000_000_000);
    let orders = [[&half_open, &ended, &table], [&table, &ended, &half_open], [&ended, &half_open, &ended]];
    for order in orders {
        let account = account(Told::of(order.map(Clone::clone)).text()).expect("an account");
        assert_eq!(account.attempts.len(), 1);
        assert!(account.attempts[0].is_completed() && account.attempts[0].was_half_open);
    }
    // Ten minutes later the same ends and the same number are of another.
    let later = Line::begun([CLIENT, SERVER], 2, 700 * SECOND);
    assert_eq!(account(Told::of([half_open, later]).text()).expect("an account").attempts.len(), 2);
}

#[test]
fn lines_of_other_types_are_passed_over() {
    let told = Told::of(lines());
    let text = told.text()
        + &json!({"type": "why", "schema": 1}).to_string()
        + "\n\n"
        + &json!({"type": "flow", "protocol": "udp", "initiator": {"address": "::1", "port": 1},
            "responder": {"address": "::1", "port": 2}, "verdict": "answered", "started": at(0)})
        .to_string()
        + "\n"
        + &Line::begun([CLIENT, SERVER], 9, 0).without("isn_initiator").ended("midstream").0.to_string()
        + "\n"
        + &json!({"something": "else", "type": "of_a_later_version"}).to_string()
        + "\n";
    assert_eq!(account(&text).expect("an account").attempts.len(), 3);
    assert_eq!(reasons(&text), []);
    // What was left out while it ran, and whether that has a line at the end.
    let unlisted = json!({"type": "unlisted", "at": at(0), "half_open": 3, "ended": 4}).to_string();
    assert_eq!(reasons(text.clone() + &unlisted), []);
    let of_rows = Told { report: None, ..told }.text() + &unlisted;
    assert_eq!(reasons(of_rows), [("unlisted".to_owned(), 7), ("no_report".to_owned(), 1)]);
}

/// What a crash leaves: half a line at the end, or one in the middle where a later run appended to it.
#[test]
fn a_line_that_is_cut_is_said() {
    let whole = Told::of(lines()).text();
    let first = whole.find('\n').expect("lines") + 1;
    for cut in [first + 1, first + 40, first + 100, first + 200] {
        let reasons = reasons(&whole[..cut]);
        let truncated: u64 =
            reasons.iter().filter(|(name, _)| name == "truncated_line").map(|(_, count)| count).sum();
        assert_eq!(truncated, 1, "{cut}: {reasons:?}");
        let appended = format!("{}\n{whole}", &whole[..cut]);
        let found = self::reasons(appended);
        assert_eq!(found, [("unreadable_line".to_owned(), 1)], "{cut}");
    }
    let torn = whole.replacen("\"syn\":1", "\"syn\"", 1);
    assert_eq!(reasons(torn).iter().filter(|(name, _)| name == "unreadable_line").count(), 1);
}

/// `-o json --flows` writes all flows into one line, and a person may have reformatted a file.
#[test]
fn a_report_may_hold_the_flows() {
    let told = Told::of(lines());
    let mut report = told.report.expect("a report");
    // Longer than what is kept of a line.
    let flows: Vec<_> = (0..5_000_u32).map(|j| Line::begun([CLIENT, SERVER], j, 0).0).collect();
    report["tcp"]["attempts"] = json!(5_001);
    report["flows"] = json!(flows);
    let more = Line::begun([CLIENT, SERVER], 70_000, 0).0;
    for text in [format!("{report}\n{more}\n"), format!("{report:#}\n{more:#}\n")] {
        assert!(text.len() > 1 << 20);
        let account = account(&text).expect("an account");
        assert_eq!((account.attempts.len(), account.inexact.len()), (5_001, 0));
    }
    let cut = report.to_string();
    let cut = account(&cut[..cut.len() - 300]).expect("an account");
    assert!(cut.attempts.len() > 4_900);
    assert!(cut.inexact.iter().any(|inexact| inexact.reason == "truncated_line"));
}

#[test]
fn a_file_of_something_else_is_refused() {
    let refused = |text: &str| account(text).expect_err(text).to_string();
    for text in ["", "\n", "not JSON\n", "{\"type\":\"why\"}\n", "{\"a\":1}\n", "{\"type\":\"flow\"}\n"] {
        assert!(refused(text).contains("neither an attempt nor a report"), "{text}");
    }
    let later = Told::of(lines()).text().replace("\"schema\":1", "\"schema\":2");
    assert!(refused(&later).contains("schema 2"), "{later}");
    let missing = AccountFiles::at(&["/nonexistent/a.jsonl".into()]).expect_err("it is missing");
    assert!(missing.to_string().starts_with("cannot read /nonexistent/a.jsonl"));
}

/// Several files, a folder of them, and the same file twice are one account.
#[test]
fn several_files_are_one_account() {
    let scratch = Scratch::new();
    let all = lines();
    let part = |range: std::ops::Range<usize>| Told { report: None, ..Told::of(all[range].to_vec()) }.text();
    let one = scratch.file("a.jsonl", part(0..2));
    let other = scratch.file("b.jsonl", part(1..3) + &Told::of(all.clone()).report.expect("one").to_string());
    scratch.file(".unfinished", "{");
    let folder = one.parent().expect("a folder").to_path_buf();
    for paths in
        [vec![one.clone(), other.clone()], vec![folder], vec![one.clone(), other.clone(), one, other]]
    {
        let files = AccountFiles::at(&paths).expect("files");
        let account = read(&files, &Room::of(1 << 30)).expect("an account");
        assert_eq!(account.attempts.len(), 3);
        assert!(account.lists_failures && account.lists_completions);
        assert_eq!(
            account.inexact.iter().map(|each| each.reason.as_str()).collect::<Vec<_>>(),
            ["no_report"]
        );
    }
}

/// The newest file of a folder may have no line yet. An account without any is refused.
#[test]
fn a_file_may_be_empty_beside_others() {
    let scratch = Scratch::new();
    let paths = [scratch.file("a.jsonl", Told::of(lines()).text()), scratch.file("b.jsonl", "\n")];
    let read_at = |paths: &[_]| read(&AccountFiles::at(paths).expect("files"), &Room::of(1 << 30));
    let account = read_at(&paths).expect("an account");
    assert_eq!((account.attempts.len(), account.inexact.len()), (3, 0));
    let empty = scratch.file("c.jsonl", "");
    let refused = read_at(&[paths[1].clone(), empty]).expect_err("nothing is in them").to_string();
    assert!(refused.contains("b.jsonl") && refused.contains("c.jsonl: there is neither"), "{refused}");
}

/// Two readers of one pipe would have a part of the lines each.
#[test]
fn standard_input_and_pipes_are_named_once() {
    let scratch = Scratch::new();
    let file = scratch.file("a.jsonl", Told::of(lines()).text());
    let pipe = file.with_file_name("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().expect("it is there").success());
    let once = |first: &[&std::path::Path], second: &[&std::path::Path]| {
        let at = |paths: &[&std::path::Path]| {
            AccountFiles::at(&paths.iter().map(|path| path.to_path_buf()).collect::<Vec<_>>()).expect("files")
        };
        are_read_once([&at(first), &at(second)])
    };
    let (input, file, pipe) = ("-".as_ref(), file.as_path(), pipe.as_path());
    assert!(once(&[input, file], &[file, pipe]).is_ok());
    for (first, second) in [(&[input][..], &[input][..]), (&[pipe, pipe], &[file]), (&[pipe], &[file, pipe])]
    {
        assert!(matches!(once(first, second), Err(JoinError::Twice { .. })), "{first:?} and {second:?}");
    }
}

/// A packed file is read as a plain one. One that is cut says so.
#[test]
fn packed_files_are_read() {
    use std::io::Write as _;
    let text = Told::of((0..2_000).map(|j| Line::begun([MASQUERADED, SERVER], j, 0))).text();
    let zstd =
        ruzstd::encoding::compress_to_vec(text.as_bytes(), ruzstd::encoding::CompressionLevel::Fastest);
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(text.as_bytes()).expect("memory");
    for packed in [zstd, gzip.finish().expect("memory")] {
        let whole = account(&packed).expect("an account");
        assert_eq!((whole.attempts.len(), whole.inexact.len()), (2_000, 0));
        let cut = account(&packed[..packed.len() - 40]).expect("what is there");
        assert!(cut.inexact.iter().any(|inexact| inexact.reason == "truncated_line"), "{:?}", cut.inexact);
        let scratch = Scratch::new();
        let files = AccountFiles::at(&[scratch.file("packed", &packed)]).expect("files");
        assert_eq!(needed([&files, &files]), None);
    }
}

/// What is said of memory beforehand is enough for what handshake writes, and is kept.
#[test]
fn memory_is_bounded() {
    let scratch = Scratch::new();
    let text = Told::of((0..10_000).map(|j| Line::begun(["10.0.0.1:1", "10.0.0.2:1"], j, 0))).text();
    let files = AccountFiles::at(&[scratch.file("a.jsonl", &text)]).expect("files");
    let bytes = needed([&files, &files]).expect("plain files");
    let room = Room::of(bytes);
    for _ in 0..2 {
        read(&files, &room).expect("there is room for both");
    }
    const { assert!(COST < 250) };
    let small = Room::of(bytes / 2);
    let refused = [0, 1].map(|_| read(&files, &small)).into_iter().find_map(Result::err);
    assert!(matches!(refused, Some(JoinError::NoRoom { .. })), "{refused:?}");
}
