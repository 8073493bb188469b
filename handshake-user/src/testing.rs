//! Shared by tests: the pages of `docs/`, their tables, and the words in backticks. A test beside the code
//! compares each page with what the page describes.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use handshake_join::{AccountFiles, Joined, Room, read};
use serde_json::{Value, json};

use crate::time::rfc3339;

/// `README.md`.
pub(crate) const README: &str = include_str!("../../README.md");
/// `docs/accuracy.md`.
pub(crate) const ACCURACY: &str = include_str!("../../docs/accuracy.md");
/// `docs/json.md`.
pub(crate) const JSON: &str = include_str!("../../docs/json.md");
/// `docs/terminal.md`.
pub(crate) const TERMINAL: &str = include_str!("../../docs/terminal.md");
/// `docs/check.md`.
pub(crate) const CHECK: &str = include_str!("../../docs/check.md");
/// `docs/replay.md`.
pub(crate) const REPLAY: &str = include_str!("../../docs/replay.md");

/// `docs/join.md`.
pub(crate) const JOIN: &str = include_str!("../../docs/join.md");
/// `docs/serve.md`.
pub(crate) const SERVE: &str = include_str!("../../docs/serve.md");

/// The part of a page from a heading to the next heading of its rank.
pub(crate) fn section<'a>(page: &'a str, heading: &str) -> &'a str {
    let start = page.find(&format!("\n{heading}\n")).unwrap_or_else(|| panic!("no heading {heading}")) + 1;
    let rest = &page[start..];
    let rank = heading.split(' ').next().unwrap_or_default();
    rest[1..].find(&format!("\n{rank} ")).map_or(rest, |end| &rest[..=end])
}

/// The rows of the table whose head begins with `first`, cell by cell.
pub(crate) fn table(page: &str, first: &str) -> Vec<Vec<String>> {
    let head = format!("| {first}");
    let mut lines = page.lines().skip_while(|line| !line.starts_with(&head));
    assert!(lines.next().is_some(), "no table of {first}");
    let rows = lines.skip(1).take_while(|line| line.starts_with('|'));
    rows.map(|row| row.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect()).collect()
}

/// The words in backticks, in order.
pub(crate) fn code(text: &str) -> Vec<&str> {
    let spans = text.lines().filter(|line| !line.starts_with("    "));
    spans.flat_map(|line| line.split('`').skip(1).step_by(2)).collect()
}

/// The words in backticks in a table's first column.
pub(crate) fn firsts(page: &str, first: &str) -> BTreeSet<String> {
    let rows = table(page, first);
    rows.iter().flat_map(|row| code(&row[0])).map(str::to_owned).collect()
}

/// When the accounts of [`joined`] begin.
const BEGINNING_NS: u64 = 1_772_366_621_000_000_000;

/// Two accounts through a translation, joined, of every outcome: the second clock is ahead by so much.
pub(crate) fn joined(ahead_ns: u64) -> Joined {
    let ms = 1_000_000;
    let way = 20 * ms;
    let (answered, completed) = ("half_open no_ack", "completed");
    let unanswered = "half_open no_syn_ack";
    // What the client's side has, and the server's: verdict and cause.
    let cases = [
        (completed, completed),
        (unanswered, ""),
        (unanswered, answered),
        (completed, answered),
        (answered, answered),
        (unanswered, unanswered),
        ("refused", "refused"),
        ("opening no_syn_ack", answered),
        (completed, unanswered),
        ("", completed),
        ("refused", unanswered),
    ];
    let line = |number: usize, stands: &str, is_server: bool| {
        let (verdict, cause) = stands.split_once(' ').unwrap_or((stands, ""));
        let client = if is_server { "10.77.2.1:40000" } else { "10.77.1.2:40000" };
        let end = |socket: &str| {
            let socket: SocketAddr = socket.parse().expect("an end");
            json!({"address": socket.ip(), "port": socket.port() + u16::try_from(number).expect("few")})
        };
        // One of them has another responder before its translation.
        let responder = if number == 0 && !is_server { "203.0.113.1:443" } else { "10.77.2.2:443" };
        let after = if is_server { ahead_ns + way } else { 0 };
        let mut line = json!({
            "type": "flow", "protocol": "tcp", "initiator": end(client), "responder": end(responder),
            "verdict": verdict, "isn_initiator": 4_220_626_013_u32 + u32::try_from(number).expect("few"),
            "seat": if is_server { "responder" } else { "initiator" }, "syn": 1, "syn_ack": 0,
            "started": rfc3339(BEGINNING_NS + number as u64 * 1_000 * ms + after),
        });
        if verdict == "refused" {
            line["ended"] = json!(rfc3339(BEGINNING_NS + number as u64 * 1_000 * ms + after + ms));
        }
        if !cause.is_empty() {
            line["cause"] = json!(cause);
        }
        if [answered, completed].contains(&stands) {
            line["syn_ack"] = json!(1);
            line["isn_responder"] = json!(77 + number);
            line["syn_to_syn_ack_ns"] = json!(if is_server { ms } else { ms + 2 * way });
        }
        if stands == completed {
            line["connect_ns"] = json!(2 * ms + 2 * way);
        }
        line
    };
    let account = |is_server: bool| {
        let stand = cases.iter().map(|(near, far)| if is_server { far } else { near }).enumerate();
        let lines: Vec<Value> = stand
            .filter(|(_, stands)| !stands.is_empty())
            .map(|(number, stands)| line(number, stands, is_server))
            .collect();
        let completed = lines.iter().filter(|line| line["verdict"] == completed).count();
        let after = if is_server { ahead_ns } else { 0 };
        let inexact =
            json!([{"reason": "lost_before_hook", "count": 3, "sentence": "packets lost before any hook"}]);
        let report = json!({
            "type": "report", "schema": 1, "from": rfc3339(BEGINNING_NS + after - ms),
            "to": rfc3339(BEGINNING_NS + after + 60_000 * ms), "tcp": {"attempts": lines.len(), "completed": completed},
            "inexact": if is_server { inexact } else { json!([]) },
        });
        lines.iter().chain([&report]).map(|line| format!("{line}\n")).collect::<String>()
    };
    let folder = tempfile::tempdir().expect("a folder");
    let accounts = [("client.jsonl", false), ("server.jsonl", true)].map(|(name, is_server)| {
        let path = folder.path().join(name);
        std::fs::write(&path, account(is_server)).expect("a file");
        let mut account =
            read(&AccountFiles::at(&[path]).expect("files"), &Room::of(1 << 30)).expect("an account");
        account.name = name.to_owned();
        account
    });
    Joined::of(accounts).expect("two accounts")
}

#[test]
fn a_table_is_read_by_its_cells_and_a_section_ends_with_the_next() {
    let page =
        "# P\n\n## A\n\n| key | what |\n|---|---|\n| `a` `b` | one |\n| `c` | `d` |\n\n### B\n\n## C\n`e`\n";
    assert_eq!(section(page, "## C"), "## C\n`e`\n");
    assert!(section(page, "## A").ends_with("| `c` | `d` |\n\n### B\n"));
    assert_eq!(table(page, "key"), [["`a` `b`", "one"], ["`c`", "`d`"]]);
    assert_eq!(firsts(page, "key"), ["a", "b", "c"].map(str::to_owned).into());
    assert_eq!(code(page), ["a", "b", "c", "d", "e"]);
}
