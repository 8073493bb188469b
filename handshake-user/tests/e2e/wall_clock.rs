//! Tests that a wall clock which is set while handshake runs changes labels only. libfaketime sets the clock
//! of the one process, and leaves its monotonic clock alone.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, ensure};
use handshake_lab::agent::Agent;
use handshake_lab::tcp::{self, Attempts, Listener};
use handshake_lab::terminal::Terminal;
use handshake_lab::topology::DEVICE;
use handshake_lab::{Family, Namespace, library_or_skip, skip_unless_privileged, skip_without_tool};
use serde_json::Value;

use crate::HANDSHAKE;
use crate::check::{Check, OBEDIENT, ensure_code, expected};
use crate::network::{TIMEOUT, scratch, segment};

/// Offsets from the true time, s, set one after the other: back, ahead, and to the true time.
const OFFSETS: [i64; 3] = [-7_200, 3_600, 0];
/// How far a label, or a duration between two, may be from the truth.
const TOLERANCE: Duration = Duration::from_secs(5);

/// The library reads the clock's file each time that the clock is asked.
const OPENS_FILES: &str = "--keep-privileges";

/// The wall clock of one process.
struct WallClock {
    library: PathBuf,
    file: PathBuf,
}

impl WallClock {
    /// A true clock; `None` if the test must be skipped.
    fn new() -> Result<Option<Self>> {
        if skip_unless_privileged() {
            return Ok(None);
        }
        let Some(library) = library_or_skip("faketime/libfaketimeMT.so.1") else { return Ok(None) };
        let clock = Self { library, file: scratch("clock") };
        clock.set(0)?;
        Ok(Some(clock))
    }

    /// Sets the clock to an offset from the true time, s.
    fn set(&self, offset: i64) -> Result<()> {
        let written = self.file.with_extension("new");
        fs::write(&written, format!("{offset:+}\n"))?;
        fs::rename(&written, &self.file).context("set the clock")
    }

    /// The command under test with this clock.
    fn command(&self, host: &Namespace) -> Command {
        let mut command = host.command("env");
        command.arg(format!("LD_PRELOAD={}", self.library.display()));
        command.arg(format!("FAKETIME_TIMESTAMP_FILE={}", self.file.display()));
        command.args(["FAKETIME_NO_CACHE=1", "FAKETIME_DONT_FAKE_MONOTONIC=1", "NO_FAKE_STAT=1"]);
        command.arg(HANDSHAKE);
        command
    }

    fn watch(&self, host: &Namespace, words: &[&str]) -> Command {
        let mut command = self.command(host);
        command.args(["watch", "-i", DEVICE, "--max-flows", "1000", "--interval", "200ms"]);
        command.arg(OPENS_FILES).args(words);
        command
    }
}

impl Drop for WallClock {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = fs::remove_file(&self.file);
    }
}

fn time(label: &Value) -> Result<SystemTime> {
    let label = label.as_str().context("no time")?;
    humantime::parse_rfc3339(label).with_context(|| label.to_owned())
}

/// The true time with this offset, s.
fn now(offset: i64) -> SystemTime {
    let by = Duration::from_secs(offset.unsigned_abs());
    if offset < 0 { SystemTime::now() - by } else { SystemTime::now() + by }
}

fn is_near(time: SystemTime, other: SystemTime) -> bool {
    let apart = time.duration_since(other).or_else(|_| other.duration_since(time));
    apart.is_ok_and(|apart| apart < TOLERANCE)
}

/// Reports keep coming, and their durations, rates, latencies and verdicts are as before.
#[test]
fn a_clock_that_is_set_changes_the_labels_of_jsonl_only() -> Result<()> {
    let Some(clock) = WallClock::new()? else { return Ok(()) };
    let network = segment()?;
    let path = network.path(Family::V4);
    let words = ["-o", "jsonl", "--half-open-after", "60s", "--expire-after", "90s", "--flows"];
    let mut agent = Agent::attach(clock.watch(network.host(), &words), 1)?;
    let began = Instant::now();
    let (listener, deaf) = (Listener::new(&path, 0, 64)?, Listener::deaf(&path, 0)?);
    let _open = Attempts::start(&path, deaf.address(), 1)?;
    let mut connections = Vec::new();
    for offset in OFFSETS {
        clock.set(offset)?;
        connections.push(tcp::connect_accept(&path, &listener, 5)?);
        let completed = 5 * connections.len();
        let is_set = |report: &Value| time(&report["to"]).is_ok_and(|to| is_near(to, now(offset)));
        let report = agent
            .await_report(TIMEOUT, |report| report["tcp"]["completed"] == completed && is_set(report))?;
        let elapsed = time(&report["to"])?.duration_since(time(&report["from"])?)?;
        ensure!(elapsed.abs_diff(began.elapsed()) < TOLERANCE, "{offset}: {elapsed:?} in {report}");
        ensure!(report["exact"] == true && report["interval"]["exact"] == true, "{offset}: {report}");
        ensure!(report["tcp"]["opening"] == 1 && report["tcp"]["attempts"] == completed + 1, "{report}");
        let longest = report["latency"]["connect"]["max_ns"].as_u64().context("a latency")?;
        ensure!(Duration::from_nanos(longest) < TOLERANCE, "{offset}: {longest} ns");
    }
    let outcome = agent.stop()?;
    let (report, flows) = (outcome.report()?, outcome.flows()?);
    let (from, to) = (time(&report["from"])?, time(&report["to"])?);
    ensure!(flows.len() == 16, "{flows:?}");
    for flow in flows {
        let started = time(&flow["started"])?;
        ensure!(from <= started && started <= to, "{flow} in {report}");
    }
    Ok(())
}

/// `--for` and the elapsed time in the header are those of the monotonic clock.
#[test]
fn a_clock_that_is_set_changes_the_labels_of_text_only() -> Result<()> {
    let Some(clock) = WallClock::new()? else { return Ok(()) };
    let network = segment()?;
    for offset in OFFSETS.into_iter().filter(|offset| *offset != 0) {
        clock.set(0)?;
        let agent = Agent::attach(clock.watch(network.host(), &["-o", "text", "--utc", "--for", "2s"]), 1)?;
        let began = Instant::now();
        std::thread::sleep(Duration::from_millis(500));
        clock.set(offset)?;
        let outcome = agent.wait(TIMEOUT)?;
        ensure!(outcome.status.success(), "{outcome:?}");
        let ran = began.elapsed();
        ensure!(ran.abs_diff(Duration::from_secs(2)) < TOLERANCE, "{offset}: {ran:?}");
        let headers: Vec<&str> =
            outcome.stdout.lines().filter(|line| line.starts_with("handshake ·")).collect();
        // Some ten intervals, and the closing report.
        ensure!(headers.len() >= 5, "{offset}: {headers:?}");
        for header in &headers {
            let elapsed = header.rsplit(" · ").nth(1).context("no elapsed time")?;
            ensure!(elapsed.ends_with(" s") || elapsed.ends_with(" ms"), "{offset}: {header}");
            ensure!(!elapsed.contains("min") && header.ends_with("· EXACT"), "{offset}: {header}");
        }
        let last = headers.last().context("no header")?;
        let [elapsed, shown] = [1, 2].map(|place| last.rsplit(" · ").nth(place).unwrap_or_default());
        ensure!(is_clock(shown, offset) && !elapsed.starts_with('0'), "{offset}: {last}");
    }
    Ok(())
}

/// Whether this is the time of day (UTC) with this offset, s.
fn is_clock(shown: &str, offset: i64) -> bool {
    let Some(shown) = shown.strip_suffix(" UTC") else { return false };
    let shown = shown.split_whitespace().next_back().unwrap_or_default();
    (0..=TOLERANCE.as_secs()).any(|ago| {
        let label = humantime::format_rfc3339_seconds(now(offset) - Duration::from_secs(ago)).to_string();
        label.contains(&format!("T{shown}Z"))
    })
}

#[test]
fn a_clock_that_is_set_changes_the_labels_of_the_terminal_only() -> Result<()> {
    if skip_without_tool("tmux") {
        return Ok(());
    }
    let Some(clock) = WallClock::new()? else { return Ok(()) };
    let network = segment()?;
    let path = network.path(Family::V4);
    let terminal = Terminal::new(100, 30)?;
    terminal.start(&clock.watch(network.host(), &["--utc"]))?;
    terminal.await_screen(6 * TIMEOUT, |screen| screen.contains("1 Overview"))?;
    let listener = Listener::new(&path, 0, 64)?;
    let mut completed = 0;
    for offset in OFFSETS {
        clock.set(offset)?;
        tcp::connect_accept(&path, &listener, 5)?.close()?;
        completed += 5;
        let screen = terminal.await_screen(TIMEOUT, |screen| {
            let header = screen.lines().next().unwrap_or_default();
            let mut times = header.rsplit(" · ").skip(1);
            let (elapsed, shown) = (times.next().unwrap_or_default(), times.next().unwrap_or_default());
            is_clock(shown, offset)
                && elapsed.ends_with(" s")
                && screen.contains(&format!("{completed} = {completed} completed"))
                && screen.contains("ESTABLISHED   100.0 %")
        });
        ensure!(screen?.contains("· EXACT"));
    }
    Ok(())
}

/// Rates are per second of the monotonic clock, and the times of a check agree with each other.
#[test]
fn a_clock_that_is_set_changes_the_labels_of_a_check_only() -> Result<()> {
    let Some(clock) = WallClock::new()? else { return Ok(()) };
    let network = segment()?;
    let path = network.path(Family::V4);
    let listener = Listener::new(&path, 0, 64)?;
    for offset in OFFSETS.into_iter().filter(|offset| *offset != 0) {
        clock.set(0)?;
        let report = scratch("report");
        let expectations =
            expected(&["completed == 5", "rate(completed) > 0.1/s", "rate(attempts) < 1000/s"]);
        let words = [OPENS_FILES, "--report", report.to_str().context("a path")?];
        let words = [&words, &expectations[..]].concat();
        let check = Check::start_as(clock.command(network.host()), &network, &words, OBEDIENT)?;
        let _open = tcp::connect_accept(&path, &listener, 5)?;
        clock.set(offset)?;
        let outcome = check.finish()?;
        let written = fs::read_to_string(&report)?;
        fs::remove_file(&report)?;
        ensure_code(&outcome, 0, &["· EXACT", "met completed == 5: 5", "met rate(completed) > 0.1/s"])?;
        let report: Value = serde_json::from_str(&written)?;
        let (command, kernel) = (&report["command"], &report["kernel"]);
        let labels = [&report["from"], &command["started"], &command["ended"], &report["to"]];
        let times = labels.into_iter().map(time).collect::<Result<Vec<_>>>()?;
        ensure!(times.is_sorted() && times.iter().all(|each| is_near(*each, now(offset))), "{report}");
        let of_kernel = [time(&kernel["from"])?, time(&kernel["to"])?];
        ensure!(
            of_kernel.is_sorted() && of_kernel.iter().all(|each| is_near(*each, now(offset))),
            "{report}"
        );
    }
    Ok(())
}
