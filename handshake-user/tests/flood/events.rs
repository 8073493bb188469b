//! `--events` under load: an attempt that ended was written, or was counted as lost.

use std::collections::HashSet;
use std::time::Instant;

use anyhow::{Result, ensure};
use handshake_lab::agent::{Agent, Outcome};
use handshake_lab::census::Census;
use handshake_lab::flood::{Flood, Kind};
use handshake_lab::tcp::Listener;
use handshake_lab::topology::DEVICE;
use handshake_lab::{Family, Pair, skip_unless_privileged};
use serde_json::Value;

use crate::HANDSHAKE;
use crate::books::{balanced, figure};
use crate::run::{PATIENCE, alone};

/// Attempts at once that the ring has room for, three times over.
const ROOM: u32 = 10_000;
/// ... and more than it has room for.
const TOO_MANY: u32 = 50_000;
/// A few.
const SOME: u32 = 2_000;

/// As many attempts end as the ring has room for, then the reader is waited for: none is lost.
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
        stage.await_the_reader()?;
    }
    let last = stage.check()?;
    ensure!(figure(&last, "lost_events") == 0 && last["exact"] == true, "{last}");
    ensure!(figure(&last, "tcp.refused") > u64::from(ROOM), "{last}");
    Ok(())
}

/// Some that the reader takes, then more while it is stopped than the ring holds, then some that it takes again.
#[test]
fn what_the_ring_has_no_room_for_is_counted() -> Result<()> {
    if skip_unless_privileged() {
        return Ok(());
    }
    let _alone = alone();
    let pair = Pair::new()?;
    let mut stage = Stage::open(&pair)?;
    stage.refuse(SOME)?;
    stage.await_the_reader()?;
    stage.agent.signal(libc::SIGSTOP)?;
    stage.refuse(TOO_MANY)?;
    stage.agent.signal(libc::SIGCONT)?;
    stage.await_the_reader()?;
    stage.refuse(SOME)?;
    stage.await_the_reader()?;
    let last = stage.check()?;
    ensure!(figure(&last, "lost_events") > 0 && last["exact"] == false, "{last}");
    Ok(())
}

/// The command with `--events`, and attempts that are refused at once.
struct Stage<'a> {
    agent: Agent,
    flood: Flood<'a>,
    census: Census,
    _deaf: Listener,
    began: Instant,
}

impl<'a> Stage<'a> {
    fn open(pair: &'a Pair) -> Result<Self> {
        let path = pair.path(Family::V4);
        Flood::open(&path)?;
        let deaf = Listener::deaf(&path, 0)?;
        // A table of which a scan leaves the reader time for the ring.
        let words = ["--events", "--interval", "200ms", "--max-flows", "65536"];
        let words = [&["-i", DEVICE, "--hook", "xdp-native"][..], &words].concat();
        let agent = Agent::start(&pair.server, HANDSHAKE, &words)?;
        let census = Census::dropping(&pair.server, DEVICE)?;
        let flood = Flood::new(&path, deaf.address(), Kind::Refused)?;
        Ok(Self { agent, flood, census, _deaf: deaf, began: Instant::now() })
    }

    fn refuse(&self, attempts: u32) -> Result<()> {
        self.flood.make(2 * attempts)
    }

    /// Waits until two reports in a row have the same packets: all that came has been counted, and before the second was
    /// taken, the ring was emptied.
    fn await_the_reader(&mut self) -> Result<()> {
        let mut last = self.agent.await_report(PATIENCE, |_| true)?;
        loop {
            let next = self.agent.await_report(PATIENCE, |_| true)?;
            if next["packets"] == last["packets"] && figure(&next, "packets.total") > 0 {
                return Ok(());
            }
            last = next;
        }
    }

    /// Each attempt that has ended is an event or a lost one; gives the last report.
    fn check(self) -> Result<Value> {
        let took = self.began.elapsed();
        let busy = self.flood.processor_time();
        let mut outcome = self.agent.stop()?;
        let events = take_events(&mut outcome)?;
        let last = balanced(&outcome)?;
        let of = |path| figure(&last, path);
        let syns = self.census.counts()?.flood.syn;
        ensure!(of("tcp.attempts") + of("untracked") + of("contended") == syns, "{syns} SYNs, {last}");
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

/// Takes the events out of what was written, and gives how many there were: refused attempts, no two of one client, for
/// no client came twice. By their text: they are very many.
fn take_events(outcome: &mut Outcome) -> Result<usize> {
    let is_report = |line: &&str| line.starts_with(r#"{"type":"report""#);
    let (reports, events): (Vec<&str>, Vec<&str>) = outcome.stdout.lines().partition(is_report);
    let initiator = |line: &&'_ str| line.split(r#""responder""#).next().map(str::to_owned);
    let clients: HashSet<_> = events.iter().filter_map(initiator).collect();
    ensure!(clients.len() == events.len(), "{} events of {} clients", events.len(), clients.len());
    let is_refused = |line: &&&str| line.contains(r#""verdict":"refused""#) && line.contains(r#""ended":"2"#);
    let other = events.iter().find(|line| !is_refused(line));
    ensure!(other.is_none(), "an event of another kind: {other:?}");
    let count = events.len();
    outcome.stdout = reports.join("\n");
    Ok(count)
}
