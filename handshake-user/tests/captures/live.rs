//! A live run equals a replay: each capture is sent into a veth with the agent attached by native XDP, and
//! the live report equals the replay's, verdict by verdict. Packets and pauses are the same; both sides
//! shorten pauses over a second to one second.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use handshake_lab::agent::Agent;
use handshake_lab::frame::Sender;
use handshake_lab::{Namespace, counters, skip_unless_privileged};
use serde_json::Value;

use crate::forms;
use crate::made::{Made, Recorded, read_ethernet};
use crate::support::{HANDSHAKE, captures, end, in_parallel, name, replay};

/// Maximum frame of a veth with the usual MTU: 1500 bytes and an Ethernet header.
const LONGEST_FRAME: usize = 1514;
/// Minimum frame, bytes: an Ethernet header. No device sends a shorter one.
const SHORTEST_FRAME: usize = 14;
/// Maximum pause between frames.
const SQUEEZE: Duration = Duration::from_secs(1);
/// Wait after the last frame: after T1 (3 s) an open attempt is half-open, as it is at the end of a capture.
const REST: Duration = Duration::from_millis(3_200);
/// Captures with a longer playing time are left out and counted.
const LONGEST_PLAY: Duration = Duration::from_secs(60);
const DEVICE: &str = "eth0";

/// A capture that can be sent.
struct Playable {
    name: String,
    /// Its frames that fit the device.
    frames: Vec<Recorded>,
    skipped: usize,
    /// The time at which each frame is due, from the start.
    due: Vec<Duration>,
}

/// Takes about a minute: the longest capture lasts 49 s with short pauses, and eight are played at a time.
#[test]
fn a_live_run_equals_the_replay_verdict_by_verdict() -> Result<()> {
    let Some(captures) = captures() else { return Ok(()) };
    if skip_unless_privileged() {
        return Ok(());
    }
    let mut playable = Vec::new();
    for path in &captures {
        playable.extend(Playable::read(path)?);
    }
    let other_links = captures.len() - playable.len();
    let before = playable.len();
    playable.retain(|capture| capture.due.last().is_none_or(|last| *last <= LONGEST_PLAY));
    let too_long = before - playable.len();
    playable.sort_by_key(|capture| std::cmp::Reverse(capture.due.last().copied()));
    let differences =
        in_parallel(&playable, |capture| capture.differences().with_context(|| capture.name.clone()))?;
    let frames: usize = playable.iter().map(|capture| capture.frames.len()).sum();
    let skipped: usize = playable.iter().map(|capture| capture.skipped).sum();
    println!(
        "{} captures, {frames} frames; {skipped} frames over the MTU skipped; left out: {other_links} captures of \
         other link types, {too_long} that play too long",
        playable.len()
    );
    let differences: Vec<_> = differences.into_iter().flatten().collect();
    assert!(differences.is_empty(), "{}", differences.join("\n"));
    assert!(frames > 1_000, "hardly anything was sent");
    Ok(())
}

impl Playable {
    /// Reads a capture; `None` if it is not Ethernet.
    fn read(path: &Path) -> Result<Option<Self>> {
        let Some(all) = read_ethernet(path)? else { return Ok(None) };
        let count = all.len();
        let fits = |frame: &Recorded| (SHORTEST_FRAME..=LONGEST_FRAME).contains(&frame.bytes.len());
        let frames: Vec<_> = all.into_iter().filter(fits).collect();
        let due = due(&frames);
        Ok(Some(Self { name: name(path), skipped: count - frames.len(), frames, due }))
    }

    /// The differences between the live run and the replay.
    fn differences(&self) -> Result<Vec<String>> {
        let made = Made::record(&format!("live-{}", self.name), &self.frames)?;
        let replayed = replay(made.path(), &["--squeeze", "1s", "--events", "all"])?;
        let live = self.play()?;
        let report = live.last().context("the agent wrote nothing")?;
        let mut differences = Vec::new();
        let mut compare = |what: &str, live: &dyn std::fmt::Debug, replayed: &dyn std::fmt::Debug| {
            let (live, replayed) = (format!("{live:?}"), format!("{replayed:?}"));
            if live != replayed {
                differences.push(format!("{}: {what}: live {live}, replayed {replayed}", self.name));
            }
        };
        for part in ["exact", "packets", "tcp", "udp", "services"] {
            compare(part, &timeless(&report[part]), &timeless(&replayed.report[part]));
        }
        compare("legs", &legs(report), &legs(&replayed.report));
        let by_service = |report: &Value| {
            report["services"].as_array().into_iter().flatten().map(legs).collect::<Vec<_>>()
        };
        compare("legs of services", &by_service(report), &by_service(&replayed.report));
        compare("attempts", &attempts(&live), &attempts(&replayed.flows));
        compare("records", &records(&live), &records(&replayed.flows));
        Ok(differences)
    }

    /// Sends the frames into a veth, and returns the output of the agent at its other end.
    fn play(&self) -> Result<Vec<Value>> {
        let (near, far) = (Namespace::new()?, Namespace::new()?);
        near.disable_ipv6()?;
        far.disable_ipv6()?;
        near.ip(&[&format!("link add {DEVICE} type veth peer name {DEVICE} netns {}", far.name())])?;
        far.ip(&[&format!("link set {DEVICE} up")])?;
        near.ip(&[&format!("link set {DEVICE} up")])?;
        let hook = ["-i", DEVICE, "--hook", "xdp-native", "--direction", "ingress"];
        let show = ["--flows", "--events", "all", "--max-flows", "16384"];
        let agent = start(&far, &[&hook[..], &show].concat())?;
        let mut sender = Sender::new(&near, DEVICE)?;
        let start = Instant::now();
        for (frame, due) in self.frames.iter().zip(&self.due) {
            sleep(due.saturating_sub(start.elapsed()));
            sender.send(&frame.bytes)?;
        }
        let last = Instant::now();
        await_frames(&far, sender.sent())?;
        sleep(REST.saturating_sub(last.elapsed()));
        let outcome = agent.stop()?;
        ensure!(outcome.status.success(), "the agent ended with {}: {}", outcome.status, outcome.stderr);
        outcome.values()
    }
}

/// Starts the agents one after another: the kernel verifies the programs of each, and eight at once exceed
/// the start limit on a small machine.
/// Shims before IP, which XDP sees as they are on the wire.
#[test]
fn every_form_of_ethernet_is_judged_live_as_in_a_replay() -> Result<()> {
    if skip_unless_privileged() {
        return Ok(());
    }
    let forms = forms::of_ethernet()?;
    in_parallel(&forms, |(name, made)| {
        let playable = Playable::read(made.path())?.context("it is not Ethernet")?;
        ensure!(playable.frames.len() == 9 && playable.skipped == 0, "{name}: a frame is missing");
        playable.differences().with_context(|| (*name).to_owned())
    })?;
    Ok(())
}

fn start(far: &Namespace, options: &[&str]) -> Result<Agent> {
    static STARTING: Mutex<()> = Mutex::new(());
    let _alone = STARTING.lock().unwrap_or_else(PoisonError::into_inner);
    Agent::start(far, HANDSHAKE, options)
}

/// The time at which each frame is due. Pauses are limited to [`SQUEEZE`]; a step back in time is no pause.
fn due(frames: &[Recorded]) -> Vec<Duration> {
    let mut due = Duration::ZERO;
    let mut before = frames.first().map_or(0, |frame| frame.time_ns);
    let mut all = Vec::new();
    for frame in frames {
        due += Duration::from_nanos(frame.time_ns.saturating_sub(before)).min(SQUEEZE);
        before = frame.time_ns;
        all.push(due);
    }
    all
}

/// Waits until the driver has passed all frames to the program.
fn await_frames(far: &Namespace, sent: u64) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        let seen = counters::xdp_packets(far, DEVICE)?;
        if seen == sent {
            return Ok(());
        }
        if Instant::now() > deadline {
            bail!("{sent} frames sent, {seen} at the hook");
        }
        sleep(Duration::from_millis(5));
    }
}

/// For each leg, the number of attempts with a time or excluded: two frames with one time stamp have none in a
/// capture, and one when they are sent.
fn legs(report: &Value) -> Vec<u64> {
    let legs = ["syn_to_syn_ack", "syn_ack_to_ack", "connect"].map(|leg| &report["latency"][leg]);
    legs.iter()
        .map(|leg| [&leg["count"], &leg["excluded"]].iter().filter_map(|figure| figure.as_u64()).sum())
        .collect()
}

/// Without what the time of the report decides: whether a client still waits, and for how long a server is
/// silent; and without times, which [`legs`] counts.
fn timeless(part: &Value) -> Value {
    const AGES: [&str; 6] = ["never_repeated", "waiting", "gave_up", "silent", "was_silent", "latency"];
    match part {
        Value::Object(object) => {
            let kept = object.iter().filter(|(key, _)| !AGES.contains(&key.as_str()));
            Value::Object(kept.map(|(key, value)| (key.clone(), timeless(value))).collect())
        }
        Value::Array(all) => all.iter().map(timeless).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => part.clone(),
    }
}

/// Every attempt, ended or not, with its ends, numbers and verdict.
fn attempts(lines: &[Value]) -> BTreeSet<String> {
    let is_attempt = |line: &&Value| line["type"] == "flow" && !line["isn_initiator"].is_null();
    let row = |line: &Value| {
        let numbers = [&line["verdict"], &line["cause"], &line["isn_initiator"], &line["isn_responder"]];
        format!("{} {} {numbers:?}", end(&line["initiator"]), end(&line["responder"]))
    };
    lines.iter().filter(is_attempt).map(row).collect()
}

/// The table at the end without times and places in the capture: the last line of each tuple.
fn records(lines: &[Value]) -> BTreeMap<String, Value> {
    const TIMES: [&str; 10] = [
        "started",
        "ended",
        "interface",
        "syn_to_syn_ack_ns",
        "syn_ack_to_ack_ns",
        "connect_ns",
        "ack_to_first_byte_ns",
        "answer_ns",
        "frames",
        "display_filter",
    ];
    let mut records = BTreeMap::new();
    for line in lines.iter().filter(|line| line["type"] == "flow") {
        let mut ends = [end(&line["initiator"]), end(&line["responder"])];
        ends.sort();
        let mut record = line.clone();
        if let Some(object) = record.as_object_mut() {
            object.retain(|key, _| !TIMES.contains(&key.as_str()));
        }
        records.insert(format!("{} {}", line["protocol"], ends.join(" ")), record);
    }
    records
}
