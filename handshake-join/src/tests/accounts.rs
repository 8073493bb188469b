//! Accounts for tests: lines as handshake writes them.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{Account, AccountFiles, JoinError, Joined, Room, read};

/// The first moment of the tests' clock, s since the Unix epoch.
const BEGINNING: u64 = 1_772_366_621;
/// From one place to the other, ns.
pub(super) const WAY: u64 = 20_000_000;

pub(super) const CLIENT: &str = "10.77.1.2:40000";
pub(super) const SERVER: &str = "10.77.2.2:443";
pub(super) const MASQUERADED: &str = "10.77.2.1:40000";

/// A time of day so many nanoseconds after the beginning.
pub(super) fn at(ns: i64) -> String {
    let ns = i128::from(BEGINNING) * 1_000_000_000 + i128::from(ns);
    let whole = u64::try_from(ns / 1_000_000_000).expect("it is after 1970");
    let rest = u32::try_from(ns % 1_000_000_000).expect("less than a second");
    let time = std::time::UNIX_EPOCH + std::time::Duration::new(whole, rest);
    humantime::format_rfc3339_nanos(time).to_string()
}

/// A flow as a line has it. Its fields are set by the names of JSON.
#[derive(Clone, Debug)]
pub(super) struct Line(pub(super) Value);

impl Line {
    /// An attempt that began so many nanoseconds after the beginning and was not answered.
    pub(super) fn begun(ends: [&str; 2], j: u32, ns: i64) -> Self {
        let end = |socket: &str| {
            let socket: SocketAddr = socket.parse().expect("an end");
            json!({"address": socket.ip(), "port": socket.port()})
        };
        Self(json!({
            "type": "flow", "protocol": "tcp", "initiator": end(ends[0]), "responder": end(ends[1]),
            "verdict": "half_open", "cause": "no_syn_ack", "isn_initiator": j, "syn": 1, "syn_ack": 0, "ack": 0,
            "syn_retransmits": 0, "syn_ack_retransmits": 0, "flags": [], "started": at(ns),
        }))
    }

    pub(super) fn with(mut self, field: &str, value: impl Into<Value>) -> Self {
        self.0[field] = value.into();
        self
    }

    pub(super) fn without(mut self, field: &str) -> Self {
        self.0.as_object_mut().expect("an object").remove(field);
        self
    }

    /// Answered by K after so many nanoseconds, and nothing came then.
    pub(super) fn answered(self, k: u32, after: u64) -> Self {
        let answered = self.with("isn_responder", k).with("syn_ack", 1).with("cause", "no_ack");
        answered.with("syn_to_syn_ack_ns", after)
    }

    /// Answered, and completed after so many nanoseconds.
    pub(super) fn completed(self, k: u32, answered: u64, after: u64) -> Self {
        let line = self.answered(k, answered).with("verdict", "completed").without("cause");
        line.with("connect_ns", after).with("ack", 1)
    }

    pub(super) fn ended(self, verdict: &str) -> Self {
        self.with("verdict", verdict).without("cause")
    }
}

/// The lines of an account, and a report that fits them.
pub(super) struct Told {
    pub(super) lines: Vec<Line>,
    pub(super) report: Option<Value>,
}

impl Told {
    pub(super) fn of(lines: impl IntoIterator<Item = Line>) -> Self {
        let lines: Vec<Line> = lines.into_iter().collect();
        let completed = lines.iter().filter(|line| line.0["verdict"] == "completed").count();
        let report = json!({
            "type": "report", "schema": 1, "from": at(-1_000_000_000), "to": at(600_000_000_000),
            "exact": true, "inexact": [], "tcp": {"attempts": lines.len(), "completed": completed},
        });
        Self { lines, report: Some(report) }
    }

    pub(super) fn text(&self) -> String {
        let lines = self.lines.iter().map(|line| &line.0).chain(&self.report);
        lines.map(|line| format!("{line}\n")).collect()
    }

    /// As an account whose clock is ahead by so much.
    pub(super) fn ahead(mut self, ns: i64) -> Self {
        let shift = |value: &mut Value| {
            if let Some(text) = value.as_str() {
                let time = humantime::parse_rfc3339(text).expect("a time");
                let since = time.duration_since(std::time::UNIX_EPOCH).expect("after 1970");
                let since = i64::try_from(since.as_nanos()).expect("before 2262");
                *value = json!(at(since - i64::try_from(BEGINNING).expect("small") * 1_000_000_000 + ns));
            }
        };
        self.lines.iter_mut().for_each(|line| shift(&mut line.0["started"]));
        if let Some(report) = &mut self.report {
            shift(&mut report["from"]);
            shift(&mut report["to"]);
        }
        self
    }
}

/// A folder with files.
pub(super) struct Scratch(TempDir);

impl Scratch {
    pub(super) fn new() -> Self {
        Self(TempDir::new().expect("a folder"))
    }

    pub(super) fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.path().join(name);
        fs::write(&path, content).expect("a file");
        path
    }
}

/// The account in a text.
pub(super) fn account(text: impl AsRef<[u8]>) -> Result<Account, JoinError> {
    let scratch = Scratch::new();
    let files = AccountFiles::at(&[scratch.file("account.jsonl", text)])?;
    read(&files, &Room::of(1 << 30))
}

/// Two accounts joined.
pub(super) fn joined(first: &Told, second: &Told) -> Joined {
    let accounts = [first, second].map(|told| account(told.text()).expect("an account"));
    Joined::of(accounts).expect("two accounts")
}
