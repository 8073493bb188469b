//! `--events` under load: each attempt that ended is written or counted as lost.

use std::collections::HashSet;
use std::time::Instant;

use anyhow::{Result, ensure};
use handshake_lab::agent::{Agent, AgentOutcome};
use handshake_lab::census::Census;
use handshake_lab::flood::{Flood, FloodKind};
use handshake_lab::tcp::Listener;
use handshake_lab::topology::DEVICE;
use handshake_lab::{Family, Pair, skip_unless_privileged, skip_without_tool};
use serde_json::Value;

use crate::HANDSHAKE;
use crate::books::{balanced, figure};
use crate::run::{TIMEOUT, alone};

/// A number of attempts at once for which the ring has room three times over.
const ROOM: u32 = 10_000;
/// A number of attempts that exceeds the ring.
const TOO_MANY: u32 = 50_000;
/// A small number of attempts.
const SOME: u32 = 2_000;

/// In each round no more attempts end than the ring has room for, and the test waits for the reader: no event
/// is lost.
#[test]
fn every_event_is_written_while_the_reader_keeps_up() -> Result<()> {
    const ROUNDS: u32 = 4;
    if skip_unless_privileged() {
        return Ok(());
    }
    let _alone = alone();
    let pair = Pair::new()?;
    let mut stage = Stage::open(&pair)?;
    for _ in 0..ROUNDS {
        stage.refuse(ROOM)?;
        stage.await_reader()?;
    }
    let last = stage.check()?;
    ensure!(figure(&last, "lost_events") == 0 && last["exact"] == true, "{last}");
    ensure!(figure(&last, "tcp.refused") > u64::from(ROOM), "{last}");
    Ok(())
}

/// The reader receives some events, is stopped while more come than the ring holds, and then receives some
/// again.
#[test]
fn events_that_exceed_the_ring_are_counted_as_lost() -> Result<()> {
    if skip_unless_privileged() {
        return Ok(());
    }
    let _alone = alone();
    let pair = Pair::new()?;
    let mut stage = Stage::open(&pair)?;
    stage.refuse(SOME)?;
    stage.await_reader()?;
    stage.agent.signal(libc::SIGSTOP)?;
    stage.refuse(TOO_MANY)?;
    stage.agent.signal(libc::SIGCONT)?;
    stage.await_reader()?;
    stage.refuse(SOME)?;
    stage.await_reader()?;
    let last = stage.check()?;
    ensure!(figure(&last, "lost_events") > 0 && last["exact"] == false, "{last}");
    Ok(())
}

/// While stdout is not read, ended attempts wait in the ring, and what it has no room for is counted: nothing
/// is left out in silence.
#[test]
fn events_that_are_not_read_are_counted_as_lost() -> Result<()> {
    /// The command, and a reader that begins late.
    const READ_LATE: &str = "exec \"$0\" \"$@\" > >(sleep 8; exec cat)";
    if skip_unless_privileged() || skip_without_tool("bash") {
        return Ok(());
    }
    let _alone = alone();
    let pair = Pair::new()?;
    let mut stage = Stage::open_as(&pair, &["bash", "-c", READ_LATE])?;
    stage.refuse(2 * TOO_MANY)?;
    stage.await_reader()?;
    ensure!(stage.agent.stderr().contains("stdout is not read"), "{}", stage.agent.stderr());
    stage.refuse(SOME)?;
    stage.await_reader()?;
    let last = stage.check()?;
    ensure!(figure(&last, "lost_events") > 0 && last["exact"] == false, "{last}");
    Ok(())
}

/// The command with `--events`, and a flood of attempts that are refused at once.
struct Stage<'a> {
    agent: Agent,
    flood: Flood<'a>,
    census: Census,
    _deaf: Listener,
    began: Instant,
}

impl<'a> Stage<'a> {
    fn open(pair: &'a Pair) -> Result<Self> {
        Self::open_as(pair, &[])
    }

    /// Opens it with the command behind these words.
    fn open_as(pair: &'a Pair, before: &[&str]) -> Result<Self> {
        let path = pair.path(Family::V4);
        Flood::open(&path)?;
        let deaf = Listener::deaf(&path, 0)?;
        // A table small enough that its scan leaves the reader time for the ring.
        let words = ["--events", "all", "--interval", "200ms", "--max-flows", "65536"];
        let words = [&["-o", "jsonl", "-i", DEVICE, "--hook", "xdp-native"][..], &words].concat();
        let all = [before, &[HANDSHAKE, "watch"], &words].concat();
        let mut command = pair.server.command(all[0]);
        command.args(&all[1..]);
        let agent = Agent::attach(command, 1)?;
        let census = Census::dropping(&pair.server, DEVICE)?;
        let flood = Flood::new(&path, deaf.address(), FloodKind::Refused)?;
        Ok(Self { agent, flood, census, _deaf: deaf, began: Instant::now() })
    }

    fn refuse(&self, attempts: u32) -> Result<()> {
        self.flood.make(2 * attempts)
    }

    /// Waits until two consecutive reports have the same packets: by then every packet is counted, and the
    /// ring was emptied before the second report.
    fn await_reader(&mut self) -> Result<()> {
        let mut last = self.agent.await_report(TIMEOUT, |_| true)?;
        loop {
            let next = self.agent.await_report(TIMEOUT, |_| true)?;
            if next["packets"] == last["packets"] && figure(&next, "packets.total") > 0 {
                return Ok(());
            }
            last = next;
        }
    }

    /// Checks that each ended attempt is an event or counted as lost. Returns the last report.
    fn check(self) -> Result<Value> {
        let took = self.began.elapsed();
        let busy = self.flood.processor_time();
        let mut outcome = self.agent.stop()?;
        let events = take_events(&mut outcome)?;
        let last = balanced(&outcome)?;
        let of = |path| figure(&last, path);
        let syns = self.census.counts()?.flood.syn;
        ensure!(of("tcp.attempts") == syns, "{syns} SYNs, {last}");
        let ended = of("tcp.attempts") - of("tcp.opening") - of("tcp.half_open.now");
        let lost = of("lost_events");
        eprintln!(
            "{ended} attempts ended within {took:.1?}, {:.0}/s while the flood had a CPU: {events} events, {lost} lost",
            ended as f64 / busy.as_secs_f64()
        );
        ensure!(events as u64 + lost == ended, "{events} events and {lost} lost of {ended} in {last}");
        Ok(last)
    }
}

/// Removes the events from the output and returns their number. They are refused attempts of distinct
/// clients. They are compared as text, because they are very many.
fn take_events(outcome: &mut AgentOutcome) -> Result<usize> {
    let is_report = |line: &&str| line.starts_with(r#"{"type":"report""#);
    let (reports, events): (Vec<&str>, Vec<&str>) = outcome.stdout.lines().partition(is_report);
    let initiator = |line: &&'_ str| {
        Some(line.split_once(r#""initiator""#)?.1.split_once(r#""responder""#)?.0.to_owned())
    };
    let clients: HashSet<_> = events.iter().filter_map(initiator).collect();
    ensure!(clients.len() == events.len(), "{} events of {} clients", events.len(), clients.len());
    let is_refused = |line: &&&str| line.contains(r#""verdict":"refused""#) && line.contains(r#""ended":"2"#);
    let other = events.iter().find(|line| !is_refused(line));
    ensure!(other.is_none(), "an event of another kind: {other:?}");
    let count = events.len();
    outcome.stdout = reports.join("\n");
    Ok(count)
}
