//! `--record`: what is recorded is what was reported, also of a run that was killed, and on the screens.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use handshake_lab::agent::{AgentOutcome, run_to_end};
use handshake_lab::tcp::{self, Attempts, Listener};
use handshake_lab::topology::DEVICE;
use handshake_lab::{Family, Namespace, skip_unless_privileged, skip_without_tool};
use rustix::process::{Signal, kill_process};
use serde_json::Value;

use crate::HANDSHAKE;
use crate::error::Scratch;
use crate::network::{Network, TIMEOUT, segment};
use crate::report_file::{CALLER, Folder, SUDO};
use crate::rows::Small;
use crate::serve::{Service, skips};
use crate::terminal::{press, show};

/// Limit for loading the programs.
const START: Duration = Duration::from_secs(60);

/// Runs `handshake` to its end.
fn run(host: &Namespace, words: &[&str]) -> Result<AgentOutcome> {
    run_to_end(host, HANDSHAKE, words, START)
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().context("a path in UTF-8")
}

/// Waits until the recording's last moment has this report.
fn await_recorded(host: &Namespace, path: &Path, wanted: impl Fn(&Value) -> bool) -> Result<Value> {
    let until = Instant::now() + TIMEOUT;
    loop {
        let replayed = run(host, &["replay", text(path)?, "-o", "json"])?;
        let report = replayed.report();
        if report.as_ref().is_ok_and(&wanted) || Instant::now() > until {
            return report.with_context(|| replayed.stderr);
        }
        thread::sleep(Duration::from_millis(200));
    }
}

/// Attempts whose outcome is known: 12 completed, 5 refused, 3 that nothing answers.
fn traffic(network: &Network) -> Result<(Listener, Attempts)> {
    let path = network.path(Family::V4);
    let listener = Listener::new(&path, 0, 64)?;
    tcp::connect_accept(&path, &listener, 12)?.close()?;
    tcp::refused(&path, 5)?;
    let deaf = Listener::deaf(&path, 0)?;
    let open = Attempts::start(&path, deaf.address(), 3)?;
    Ok((deaf, open))
}

/// Counts of a report: completed, refused, half-open.
fn counts(report: &Value) -> [Option<u64>; 3] {
    let tcp = &report["tcp"];
    [&tcp["completed"], &tcp["refused"], &tcp["half_open"]["now"]].map(Value::as_u64)
}

const ALL: [Option<u64>; 3] = [Some(12), Some(5), Some(3)];

#[test]
fn a_killed_run_left_its_last_second() -> Result<()> {
    if skip_unless_privileged() {
        return Ok(());
    }
    let (network, folder) = (segment()?, Folder::new()?);
    let (host, path) = (network.host(), folder.file("recording"));
    let mut agent = network.watch(&["--record", text(&path)?])?;
    let _open = traffic(&network)?;
    let live = agent.await_report(TIMEOUT, |report| counts(report) == ALL)?;
    let recorded = await_recorded(host, &path, |report| counts(report) == ALL)?;
    ensure!(counts(&recorded) == ALL, "{recorded}");
    // Who else would record there, or through a link, attaches nothing.
    let refused = run(host, &["watch", "-i", DEVICE, "--record", text(&path)?, "--for", "1s"])?;
    ensure!(refused.status.code() == Some(2), "{refused:?}");
    ensure!(refused.stderr.contains("another process records there"), "{}", refused.stderr);
    let link = folder.file("link");
    symlink(&path, &link)?;
    let refused = run(host, &["watch", "-i", DEVICE, "--record", text(&link)?, "--for", "1s"])?;
    ensure!(refused.stderr.contains("it is a link, or no folder"), "{}", refused.stderr);
    agent.kill()?;

    let replayed = run(host, &["replay", text(&path)?, "-o", "json"])?;
    ensure!(replayed.status.success() && replayed.stderr.contains("recorded from "), "{}", replayed.stderr);
    let report = replayed.report()?;
    for part in ["tcp", "latency", "services", "workloads", "exact"] {
        let [live, recorded] = [&live[part], &report[part]].map(|part| without_ages(part.clone()));
        ensure!(live == recorded, "{part}: {live} {recorded}");
    }
    let listed = run(host, &["replay", text(&path)?, "-o", "jsonl", "--flows"])?;
    let half_open = listed.flows()?.iter().filter(|flow| flow["verdict"] == "half_open").count();
    ensure!(half_open == 3, "{}", listed.stdout);
    let first = format!("{}@2001-01-01 00:00:00", text(&path)?);
    let none = run(host, &["diff", &first, text(&path)?])?;
    ensure!(none.status.code() == Some(2) && none.stderr.contains("it begins later, at "), "{}", none.stderr);
    let now = report["to"].as_str().context("a time")?;
    let compared = run(host, &["diff", &format!("{}@{now}", text(&path)?), text(&path)?])?;
    ensure!(compared.status.success(), "{}", compared.stderr);
    Ok(())
}

/// What the age of an attempt decides may change between the report and the moment.
fn without_ages(mut part: Value) -> Value {
    const BY_AGE: [&str; 7] =
        ["never_repeated", "waiting", "gave_up", "signs", "connect_of_all", "first_byte", "silent"];
    match &mut part {
        Value::Object(fields) => {
            fields.retain(|name, _| !BY_AGE.contains(&name.as_str()));
            fields.values_mut().for_each(|value| *value = without_ages(value.take()));
        }
        Value::Array(all) => all.iter_mut().for_each(|value| *value = without_ages(value.take())),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
    part
}

/// A service records through a full disk, a disk that hangs and a configuration that is read again. Each is said
/// once, the books go on, and what is missing is told when the recording is read.
#[test]
fn a_service_records_through_all_that_comes() -> Result<()> {
    if skips() {
        return Ok(());
    }
    let (network, disk) = (segment()?, Small::mount(4 << 10)?);
    let (host, path) = (network.host(), disk.0.file("recording"));
    let config = Scratch::new("record.toml", b"")?;
    let settings = format!("metrics-listen = '127.0.0.1:0'\nrecord = '{}'\n", text(&path)?);
    fs::write(config.path(), &settings)?;
    let mut service = Service::start(host, &["--config", config.path()], 1)?;
    let _open = traffic(&network)?;
    let decided = |report: &Value| counts(report)[..2] == ALL[..2];
    let recorded = await_recorded(host, &path, decided)?;
    ensure!(decided(&recorded), "{recorded}");

    let said = |what: &str| format!("handshake: --record {}{what}", path.display());
    let (full, late) = (said(": No space left on device"), said(": it takes too long; moments are left out"));
    let again = said(" is written again");
    let filler = disk.0.file("filler");
    ensure!(fs::write(&filler, vec![b'x'; 8 << 20]).is_err(), "there is room for more");
    service.agent.await_lines(&full, 1)?;
    thread::sleep(Duration::from_secs(4));
    ensure!(service.get("/readyz")?.0 == 200);
    fs::remove_file(&filler)?;
    service.agent.await_lines(&again, 1)?;

    kill_process(service.helper()?, Signal::STOP)?;
    service.agent.await_lines(&late, 1)?;
    thread::sleep(Duration::from_secs(4));
    ensure!(service.get("/readyz")?.0 == 200);
    kill_process(service.helper()?, Signal::CONT)?;
    service.agent.await_lines(&again, 2)?;

    fs::write(config.path(), settings.replace("recording", "another"))?;
    service.agent.signal(libc::SIGHUP)?;
    service.agent.await_lines("handshake: record: restart needed", 1)?;
    tcp::refused(&network.path(Family::V4), 2)?;
    let more = await_recorded(host, &path, |report| counts(report)[1] == Some(7))?;
    ensure!(counts(&more)[..2] == [Some(12), Some(7)], "{more}");
    let outcome = service.agent.end_by(libc::SIGTERM)?;
    ensure!(outcome.status.success() && !fs::exists(disk.0.file("another"))?, "{outcome:?}");
    ensure!([&full, &late].map(|once| outcome.stderr.matches(once).count()) == [1, 1], "{}", outcome.stderr);

    let replayed = run(host, &["replay", text(&path)?, "--at", "2099-01-01 00:00:00", "-o", "json"])?;
    ensure!(counts(&replayed.report()?)[..2] == [Some(12), Some(7)], "{}", replayed.stdout);
    for told in ["; gaps: 2, the latest from ", "nothing was recorded at 2099-01-01 00:00:00"] {
        ensure!(replayed.stderr.contains(told), "{}", replayed.stderr);
    }
    Ok(())
}

/// Under sudo the recording is the caller's, and no one else reads it.
#[test]
fn a_recording_is_the_callers() -> Result<()> {
    if skip_unless_privileged() {
        return Ok(());
    }
    let (network, folder) = (segment()?, Folder::of_the_caller()?);
    let path = folder.file("recording");
    let mut command = network.host().command(HANDSHAKE);
    command.args(["watch", "-i", DEVICE, "--max-flows", "1000", "--for", "3s", "-o", "json", "--record"]);
    command.arg(&path).envs(SUDO.iter().copied());
    let outcome = handshake_lab::agent::Agent::attach(command, 1)?.wait(START)?;
    ensure!(outcome.status.success(), "{}", outcome.stderr);
    let about = fs::metadata(&path)?;
    ensure!((about.uid(), about.mode() & 0o777) == (CALLER, 0o700), "{about:?}");
    let files: Vec<PathBuf> = fs::read_dir(&path)?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    ensure!(files.len() >= 2, "{files:?}");
    for file in files {
        let about = fs::metadata(&file)?;
        ensure!((about.uid(), about.mode() & 0o777) == (CALLER, 0o600), "{}: {about:?}", file.display());
    }
    Ok(())
}

/// The live terminal goes back to before the traffic, and is live again; a replay shows the same.
#[test]
fn the_terminal_looks_back() -> Result<()> {
    if skip_unless_privileged() || skip_without_tool("tmux") {
        return Ok(());
    }
    let (network, folder) = (segment()?, Folder::new()?);
    let path = folder.file("recording");
    let terminal = show(network.host(), &["--half-open-after", "200ms", "--record", text(&path)?])?;
    // A moment without traffic.
    thread::sleep(Duration::from_millis(2_500));
    let _open = traffic(&network)?;
    let balance = "20 = 12 completed + 5 refused + 3 half-open + 0 opening";
    terminal.await_screen(TIMEOUT, |screen| screen.contains(balance))?;
    thread::sleep(Duration::from_millis(1_500));
    press(&terminal, "Left", "RECORDED")?;
    for _ in 0..20 {
        terminal.key("Left")?;
    }
    let first = terminal.await_screen(TIMEOUT, |screen| screen.contains("0 = 0 completed"))?;
    ensure!(first.contains("RECORDED -"), "{first}");
    press(&terminal, "2", "No attempt yet")?;
    terminal.key("Home")?;
    let live = terminal.await_screen(TIMEOUT, |screen| !screen.contains("RECORDED"))?;
    ensure!(live.contains("3 open"), "{live}");
    press(&terminal, "Right", "3 open")?;
    terminal.key("q")?;
    terminal.await_screen(TIMEOUT, |screen| screen.trim_end().ends_with('$'))?;

    let mut command = network.host().command(HANDSHAKE);
    command.args(["replay", "--tui"]).arg(&path);
    terminal.start(&command)?;
    terminal.await_screen(TIMEOUT, |screen| screen.contains("RECORDED") && screen.contains(balance))?;
    for _ in 0..20 {
        terminal.key("Left")?;
    }
    terminal.await_screen(TIMEOUT, |screen| screen.contains("0 = 0 completed"))?;
    press(&terminal, "Home", balance)?;
    terminal.key("q")?;
    let closing = terminal.await_screen(TIMEOUT, |screen| screen.trim_end().ends_with('$'))?;
    ensure!(closing.contains("attempts 20"), "{closing}");
    Ok(())
}
