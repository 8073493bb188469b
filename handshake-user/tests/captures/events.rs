//! `replay --events`, and the zone of the times in its text.

use std::process::Command;

use anyhow::Result;
use handshake_lab::frame::flag;
use serde_json::Value;

use crate::made::{CLIENT, Made, SERVER, frame, frame_between};
use crate::support::{HANDSHAKE, run_replay};

const OTHER: &str = "192.0.2.7:50000";
const SECOND_US: u64 = 1_000_000;

/// A SYN without an answer at the beginning, a handshake, and a last packet at this second.
fn until(name: &str, second: u64) -> Result<Made> {
    let handshake = [
        (CLIENT, flag::SYN, 1_000, 0),
        (SERVER, flag::SYN | flag::ACK, 5_000, 1_001),
        (CLIENT, flag::ACK, 1_001, 5_001),
    ];
    let mut frames = vec![(0, frame_between([OTHER, SERVER], flag::SYN, 7, 0)?)];
    for (row, at) in handshake.iter().zip(1..) {
        frames.push((at * SECOND_US / 2, frame(row)?));
    }
    frames.push((second * SECOND_US, frame(&handshake[2])?));
    Made::of(name, &frames)
}

/// Event, verdict and time of each row.
fn rows(made: &Made, which: &str) -> Result<Vec<[String; 3]>> {
    let output = String::from_utf8(run_replay(made.path(), &["-o", "jsonl", "--events", which])?.stdout)?;
    let values = output.lines().map(serde_json::from_str).collect::<Result<Vec<Value>, _>>()?;
    let flows = values.iter().filter(|value| value["type"] == "flow");
    let words =
        |flow: &Value| ["event", "verdict", "at"].map(|name| flow[name].as_str().unwrap_or("").to_owned());
    Ok(flows.map(words).collect())
}

/// At T1 and at T2 of the capture's time, in the order of time; what completes, with `all` alone. An attempt
/// that is half-open at the end of the capture has not ended.
#[test]
fn a_replay_tells_of_half_open_attempts_when_they_are() -> Result<()> {
    let row = |words: [&str; 3]| words.map(str::to_owned);
    let begins = row(["half_open", "half_open", "1970-01-01T00:00:03.000000000Z"]);
    let expires = row(["ended", "half_open_expired", "1970-01-01T00:01:15.000000000Z"]);
    let completes = row(["ended", "completed", "1970-01-01T00:00:01.500000000Z"]);
    assert_eq!(rows(&until("events", 2)?, "failed")?, [] as [[String; 3]; 0]);
    let begun = [begins.clone()];
    assert_eq!(rows(&until("events", 3)?, "failed")?, begun, "the last packet is at T1");
    assert_eq!(rows(&until("events", 20)?, "failed")?, begun);
    assert_eq!(rows(&until("events", 200)?, "failed")?, [begins.clone(), expires.clone()]);
    assert_eq!(rows(&until("events", 200)?, "all")?, [completes, begins, expires]);
    assert_eq!(rows(&until("events", 200)?, "none")?, [] as [[String; 3]; 0]);
    Ok(())
}

/// Text has the date and the offset of the zone, by rules that need no database.
#[test]
fn text_has_local_times_with_their_date() -> Result<()> {
    let made = until("zone", 20)?;
    let text = |zone: &str, more: &[&str]| -> Result<(String, String)> {
        let mut command = Command::new(HANDSHAKE);
        command.arg("replay").arg(made.path()).args(["--events", "failed"]).args(more).env("TZ", zone);
        let output = command.output()?;
        Ok((String::from_utf8(output.stdout)?, String::from_utf8(output.stderr)?))
    };
    let (local, said) = text("XYZ-5:45", &[])?;
    assert!(local.starts_with("1970-01-01 05:45:03 +05:45    +3.0 s  192.0.2.7:50000 → "), "{local}");
    assert!(local.contains("1970-01-01 05:45:20 +05:45 · 20 s"), "{local}");
    assert_eq!(said, "");
    let (utc, _) = text("XYZ-5:45", &["--utc"])?;
    assert!(utc.starts_with("1970-01-01 00:00:03 UTC ") && utc.contains("1970-01-01 00:00:20 UTC"), "{utc}");
    let (other, said) = text("No/Where", &[])?;
    assert_eq!(other, utc);
    assert_eq!(said.trim_end(), "handshake: TZ=No/Where: there is no such time zone; times are in UTC");
    Ok(())
}
