//! `serve --events-file`: a row for each end, in files that are closed and packed while rows come, through
//! kills, a full disk and a file system that hangs.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path as FilePath, PathBuf};
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use handshake_lab::tcp::{self, Listener};
use handshake_lab::topology::DEVICE;
use handshake_lab::{Family, Path, process};
use rustix::process::{Pid, Signal, kill_process};
use ruzstd::decoding::StreamingDecoder;
use serde_json::Value;

use crate::HANDSHAKE;
use crate::error::{check_error, run};
use crate::network::{Network, TIMEOUT, segment};
use crate::report_file::{CALLER, Folder, SUDO};
use crate::serve::{Service, await_that, revised, skips};

/// Attempts soon become half-open, and expire.
const SWIFT: [&str; 8] =
    ["--half-open-after", "200ms", "--expire-after", "600ms", "--max-flows", "20000", "--node", "node-a"];
const DROPPED: &str = "handshake_export_dropped_total{sink=\"events_file\"}";

/// A service with a file of events, and no other sink.
pub(crate) fn serve<'a>(network: &'a Network, file: &FilePath, words: &[&str]) -> Result<Service<'a>> {
    let mut command = network.host().command(HANDSHAKE);
    command.args(["serve", "-i", DEVICE, "--metrics-listen", "127.0.0.1:0", "--events-file"]).arg(file);
    command.args(SWIFT).args(words);
    Service::run(network.host(), command, 1)
}

/// A process that is stopped until this is dropped: where the test fails, it would be left behind otherwise.
struct Stopped(Pid);

impl Stopped {
    fn begin(process: Pid) -> Result<Self> {
        kill_process(process, Signal::STOP)?;
        Ok(Self(process))
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        // It may be gone.
        let _ = kill_process(self.0, Signal::CONT);
    }
}

/// The rows of all files of a folder, in the order of the files' times. Each line must be whole.
fn rows(folder: &FilePath) -> Result<Vec<Value>> {
    let names = fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<Result<Vec<PathBuf>>>()?;
    let (open, mut paths): (Vec<_>, Vec<_>) =
        names.into_iter().partition(|path| path.file_name().is_some_and(|name| name == "events.jsonl"));
    paths.sort();
    let mut text = String::new();
    for path in paths.iter().chain(&open) {
        let file = fs::File::open(path)?;
        let read = match path.extension().and_then(|extension| extension.to_str()) {
            Some("zst") => StreamingDecoder::new(file)?.read_to_string(&mut text),
            Some("jsonl") => (&file).read_to_string(&mut text),
            // What is being packed has a plain one beside it.
            _ => continue,
        };
        read.with_context(|| path.display().to_string())?;
        ensure!(text.is_empty() || text.ends_with('\n'), "{} ends in the middle of a line", path.display());
    }
    text.lines().map(|line| serde_json::from_str(line).with_context(|| line.to_owned())).collect()
}

/// Waits until the files of a folder have so many rows. A file may be packed and renamed while it is read.
pub(crate) fn await_rows(folder: &Folder, count: usize) -> Result<()> {
    let what = format!("{count} rows");
    await_that(&what, || Ok(rows(&folder.file("")).is_ok_and(|rows| rows.len() == count)))
}

/// How many attempts ended, by verdict and cause, as the labels of the metric name them.
fn ended(rows: &[Value]) -> BTreeMap<String, u64> {
    let mut all = BTreeMap::new();
    for row in rows.iter().filter(|row| row["event"] == "ended") {
        let verdict = row["verdict"].as_str().unwrap_or_default();
        let cause = if verdict == "half_open_expired" { row["cause"].as_str() } else { None };
        let cause = cause.map_or_else(String::new, |cause| format!(",cause=\"{cause}\""));
        *all.entry(format!("verdict=\"{verdict}\"{cause}")).or_default() += 1;
    }
    all
}

/// The same as the metrics have it.
fn counted(service: &Service<'_>) -> Result<BTreeMap<String, u64>> {
    let (_, page) = service.get("/metrics")?;
    let mut all = BTreeMap::new();
    for line in page.lines() {
        let Some((labels, figure)) =
            line.strip_prefix("handshake_verdicts_total{").and_then(|rest| rest.split_once("} "))
        else {
            continue;
        };
        let figure: u64 = figure.parse()?;
        if figure > 0 {
            all.insert(labels.to_owned(), figure);
        }
    }
    Ok(all)
}

/// Connections that are refused, one after the other, this many.
pub(crate) fn refuse(path: &Path<'_>, count: usize) -> Result<()> {
    const AT_ONCE: usize = 250;
    (0..count / AT_ONCE).try_for_each(|_| tcp::refused(path, AT_ONCE).map(drop))
}

fn figure_of(verdict: &str) -> String {
    format!("handshake_verdicts_total{{verdict=\"{verdict}\"}}")
}

/// Every end has a row, verdict by verdict; each row is as the schema says, names its node and is the caller's.
#[test]
fn each_end_has_a_row() -> Result<()> {
    if skips() {
        return Ok(());
    }
    let network = segment()?;
    let (host, path) = (network.host(), network.path(Family::V4));
    host.sysctl("net.ipv4.tcp_synack_retries", "0")?;
    let folder = Folder::of_the_caller()?;
    let file = folder.file("events.jsonl");
    let mut command = host.command(HANDSHAKE);
    command.args(["serve", "-i", DEVICE, "--metrics-listen", "127.0.0.1:0", "--events", "all"]);
    command.args(["--events-file"]).arg(&file).args(&SWIFT[..6]).env("NODE_NAME", "pod-1");
    command.envs(SUDO.iter().copied());
    let service = Service::run(host, command, 1)?;
    let listener = Listener::new(&path, 0, 256)?;
    let open = tcp::connect_accept(&path, &listener, 20)?;
    tcp::refused(&path, 3)?;
    tcp::syn_without_ack(&path, listener.address(), 40)?;
    revised(&path, listener.address(), 5)?;
    let by_ipv6 = network.path(Family::V6);
    let another = Listener::new(&by_ipv6, 0, 16)?;
    let more = tcp::connect_accept(&by_ipv6, &another, 2)?;
    service.await_figure(&figure_of("completed"), 27)?;
    service.await_figure("handshake_verdicts_total{verdict=\"half_open_expired\",cause=\"no_ack\"}", 40)?;
    let folder_path = file.parent().context("a folder")?;
    await_that("the rows", || Ok(ended(&rows(folder_path)?) == counted(&service)?))?;
    ensure!(service.figure(DROPPED)? == 0 && service.figure("handshake_exact")? == 1);
    let counted = counted(&service)?;
    let outcome = service.agent.end_by(libc::SIGTERM)?;
    ensure!(outcome.status.success(), "{outcome:?}");
    let rows = rows(folder_path)?;
    ensure!(ended(&rows) == counted, "{counted:?}");
    ensure!(counted.values().sum::<u64>() == 27 + 3 + 40 + 5, "{counted:?}");
    let half_open = rows.iter().filter(|row| row["event"] == "half_open").count();
    ensure!(half_open == 40, "{half_open} of 40 became half-open");
    for row in &rows {
        handshake_lab::schema::check(row)?;
        ensure!(row["node"] == "pod-1" && row["seat"] == "responder" && row["interface"] == DEVICE, "{row}");
        ensure!(row["connect_ns"].is_u64() == (row["verdict"] == "completed"), "{row}");
    }
    let found = fs::metadata(&file)?;
    ensure!((found.mode() & 0o777, found.uid(), found.gid()) == (0o600, CALLER, CALLER), "{found:?}");
    // What that user may not write is refused before anything is attached.
    let (other, mut command) = (Folder::new()?, Command::new(HANDSHAKE));
    command.args(["serve", "-i", "lo", "--metrics-listen", "off", "--events-file"]);
    command.arg(other.file("events.jsonl")).envs(SUDO.iter().copied());
    let said = process::output(&mut command)?;
    let words = String::from_utf8_lossy(&said.stderr).into_owned();
    ensure!(said.status.code() == Some(2) && words.contains("(as user 65534)"), "{words}");
    drop((open, more));
    Ok(())
}

/// By default rows are of what fails; what completes in time has none. Of a flood a second has some, and what
/// is left out is counted: with the rows it is all.
#[test]
fn what_completes_has_no_row_by_default() -> Result<()> {
    const FLOOD: u64 = 8 * 200;
    if skips() {
        return Ok(());
    }
    let network = segment()?;
    let (host, path) = (network.host(), network.path(Family::V4));
    host.sysctl("net.ipv4.tcp_synack_retries", "0")?;
    let folder = Folder::new()?;
    let service = serve(&network, &folder.file("events.jsonl"), &[])?;
    let listener = Listener::new(&path, 0, 4_096)?;
    let _open = tcp::connect_accept(&path, &listener, 20)?;
    tcp::refused(&path, 3)?;
    service.await_figure(&figure_of("completed"), 20)?;
    for port in 40_000..40_008 {
        tcp::syn_without_ack_from(&path, port, listener.address(), 200)?;
    }
    let expired = "handshake_verdicts_total{verdict=\"half_open_expired\",cause=\"no_ack\"}";
    service.await_figure(expired, FLOOD)?;
    let left_out = "handshake_export_dropped_total{sink=\"events\"}";
    let all = 3 + 2 * FLOOD;
    await_that("all", || {
        let left_out = service.figure(left_out)?;
        Ok(rows(&folder.file(""))?.len() as u64 + left_out == all)
    })?;
    let left_out = service.figure(left_out)?;
    ensure!(left_out >= FLOOD && service.figure(DROPPED)? == 0, "{left_out}");
    ensure!(service.agent.end_by(libc::SIGTERM)?.status.success());
    let rows = rows(&folder.file(""))?;
    ensure!(ended(&rows).get("verdict=\"refused\"") == Some(&3) && rows.len() as u64 + left_out == all);
    ensure!(rows.iter().all(|row| row["verdict"] != "completed"));
    Ok(())
}

/// Files are closed and packed while rows come, and none is lost.
#[test]
fn a_change_of_files_loses_no_row() -> Result<()> {
    const COUNT: usize = 12_000;
    if skips() {
        return Ok(());
    }
    let network = segment()?;
    let path = network.path(Family::V4);
    let folder = Folder::new()?;
    let service = serve(&network, &folder.file("events.jsonl"), &["--events", "all", "--events-keep", "4M"])?;
    refuse(&path, COUNT)?;
    service.await_figure(&figure_of("refused"), COUNT as u64)?;
    let (lost, dropped) = (service.figure("handshake_exact")?, service.figure(DROPPED)?);
    ensure!((lost, dropped) == (1, 0), "{lost} {dropped}");
    await_rows(&folder, COUNT)?;
    ensure!(service.agent.end_by(libc::SIGTERM)?.status.success());
    // What is being packed when the service ends stays plain until the next run.
    let names = fs::read_dir(folder.file(""))?.count();
    ensure!(names > 8, "{names} files");
    let rows = rows(&folder.file(""))?;
    ensure!(
        ended(&rows) == BTreeMap::from([("verdict=\"refused\"".to_owned(), COUNT as u64)]),
        "{}",
        rows.len()
    );
    let mut ends: Vec<String> =
        rows.iter().map(|row| row["initiator"].to_string() + &row["at"].to_string()).collect();
    ends.sort_unstable();
    ends.dedup();
    ensure!(ends.len() == COUNT, "{} of {COUNT} are different", ends.len());
    Ok(())
}

/// Killed under load, service and helper leave whole lines, but for the last; the next run goes on behind them.
/// A service whose helper is killed counts what it cannot write.
#[test]
fn a_kill_leaves_whole_lines() -> Result<()> {
    if skips() {
        return Ok(());
    }
    let network = segment()?;
    let path = network.path(Family::V4);
    let folder = Folder::new()?;
    let file = folder.file("events.jsonl");
    let service = serve(&network, &file, &["--events", "all"])?;
    let killed = service.helper()?;
    let whole = std::thread::scope(|scope| -> Result<usize> {
        let load = scope.spawn(|| refuse(&path, 4_000));
        await_that("rows", || Ok(fs::metadata(&file)?.len() > 100_000))?;
        kill_process(killed, Signal::KILL)?;
        load.join().expect("it has not panicked")?;
        let text = fs::read_to_string(&file)?;
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        for line in text[..whole].lines() {
            serde_json::from_str::<Value>(line).with_context(|| line.to_owned())?;
        }
        Ok(text[..whole].lines().count())
    })?;
    service.await_figure(&figure_of("refused"), 4_000)?;
    // What was handed over when it died may be in the file and counted too: one write.
    await_that("what is lost", || Ok(service.figure(DROPPED)? + whole as u64 >= 4_000))?;
    ensure!(service.figure(DROPPED)? + whole as u64 <= 4_064 && service.get("/readyz")?.0 == 200);
    let said = service.agent.kill()?.stderr;
    ensure!(said.matches("rows are dropped until it is written again").count() == 1, "{said}");

    // A line that was cut.
    let text = fs::read(&file)?;
    fs::write(&file, &text[..text.len() - 10])?;
    let service = serve(&network, &file, &["--events", "all"])?;
    tcp::refused(&path, 3)?;
    service.await_figure(&figure_of("refused"), 3)?;
    await_that("the rows", || Ok(rows(&folder.file(""))?.len() >= whole + 2))?;
    let load = Instant::now();
    service.agent.kill()?;
    // The helper ends by itself, after what it was given.
    let next = serve(&network, &file, &[])?;
    ensure!(load.elapsed() < Duration::from_secs(20), "{:?}", load.elapsed());
    let left = rows(&folder.file(""))?.len();
    ensure!(left == whole - 1 + 3 || left == whole + 3, "{whole} lines, then {left}");
    // No other run writes the same file.
    let words = ["serve", "-i", "lo", "--metrics-listen", "off", "--events-file"];
    let second = run(&[&words[..], &[file.to_str().context("a path")?]].concat())?;
    check_error(&second, 2, &["--events-file", "another process writes it"])?;
    ensure!(next.agent.end_by(libc::SIGTERM)?.status.success());
    Ok(())
}

/// A file system of little room, in memory.
pub(crate) struct Small(pub(crate) Folder);

impl Small {
    pub(crate) fn mount(kibibytes: u32) -> Result<Self> {
        let folder = Folder::new()?;
        let size = format!("size={kibibytes}k,mode=755");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &size, "hs-rows"]).arg(folder.file(""));
        let said = process::output(&mut mount)?;
        ensure!(said.status.success(), "{said:?}");
        Ok(Self(folder))
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = process::output(Command::new("umount").arg(self.0.file("")));
    }
}

/// A full disk is said once. What it has no room for is counted, all or nothing of a write; the service goes
/// on, and so do rows when there is room again.
#[test]
fn a_full_disk_is_said_once_and_counted() -> Result<()> {
    if skips() {
        return Ok(());
    }
    let network = segment()?;
    let path = network.path(Family::V4);
    let disk = Small::mount(256)?;
    let (file, filler) = (disk.0.file("events.jsonl"), disk.0.file("filler"));
    fs::write(&filler, vec![b'x'; 200 << 10])?;
    let mut service = serve(&network, &file, &["--events", "all"])?;
    refuse(&path, 1_000)?;
    service.await_figure(&figure_of("refused"), 1_000)?;
    let in_file = || -> Result<u64> { Ok(fs::read_to_string(&file)?.lines().count() as u64) };
    await_that("what is lost", || Ok(service.figure(DROPPED)? + in_file()? == 1_000))?;
    let dropped = service.figure(DROPPED)?;
    ensure!(dropped > 500 && in_file()? > 0, "{dropped}");
    let full = format!("handshake: --events-file {}: No space left on device", file.display());
    service.agent.await_lines(&full, 1)?;
    ensure!(service.figure("handshake_exact")? == 1 && service.get("/readyz")?.0 == 200);
    fs::remove_file(&filler)?;
    tcp::refused(&path, 10)?;
    let again = format!("handshake: --events-file {} is written again", file.display());
    service.agent.await_lines(&again, 1)?;
    service.await_figure(&figure_of("refused"), 1_010)?;
    await_that("the rows", || Ok(in_file()? + dropped == 1_010))?;
    let outcome = service.agent.end_by(libc::SIGTERM)?;
    ensure!(outcome.status.success() && outcome.stderr.matches(&full).count() == 1, "{outcome:?}");
    ensure!(rows(&disk.0.file(""))?.len() as u64 + dropped == 1_010);
    Ok(())
}

/// A file system that hangs, as a helper that stands still shows it: the loop goes on, rows wait, the oldest of
/// too many are dropped and counted, and a signal ends the service in time all the same.
#[test]
fn a_file_that_hangs_holds_nothing_up() -> Result<()> {
    const COUNT: usize = 35_000;
    const PARTS: usize = 5;
    /// What does not wait of them, and what is on its way.
    const TOO_MANY: u64 = COUNT as u64 - (1 << 15);
    const ON_ITS_WAY: u64 = 64;
    if skips() {
        return Ok(());
    }
    let network = segment()?;
    let path = network.path(Family::V4);
    let folder = Folder::new()?;
    let file = folder.file("events.jsonl");
    let service = serve(&network, &file, &["--events", "all"])?;
    let helper = service.helper()?;
    let stopped = Stopped::begin(helper)?;
    // All at once is more than the kernel's ring has room for.
    for part in 1..=PARTS {
        refuse(&path, COUNT / PARTS)?;
        service.await_figure(&figure_of("refused"), (COUNT / PARTS * part) as u64)?;
    }
    await_that("what is lost", || Ok(service.figure(DROPPED)? >= TOO_MANY - ON_ITS_WAY))?;
    let dropped = service.figure(DROPPED)?;
    ensure!(service.figure("handshake_exact")? == 1 && dropped <= TOO_MANY, "{dropped}");
    ensure!(fs::metadata(&file)?.len() == 0);
    drop(stopped);
    await_rows(&folder, COUNT - usize::try_from(dropped)?)?;
    let stopped = Stopped::begin(helper)?;
    refuse(&path, 500)?;
    service.await_figure(&figure_of("refused"), COUNT as u64 + 500)?;
    sleep(Duration::from_millis(100));
    let Service { mut agent, .. } = service;
    let (began, stat) = (Instant::now(), format!("/proc/{}/stat", agent.id()));
    agent.signal(libc::SIGTERM)?;
    await_that("its end", || Ok(fs::read_to_string(&stat)?.contains(") Z ")))?;
    let took = began.elapsed();
    drop(stopped);
    let outcome = agent.wait(TIMEOUT)?;
    ensure!(outcome.status.success() && took < Duration::from_secs(4), "{took:?}, {outcome:?}");
    ensure!(outcome.stderr.contains("rows are not written: it takes too long"), "{outcome:?}");
    // The helper ends too, after what it had been given.
    await_that("the helper's end", || Ok(fs::metadata(format!("/proc/{helper}")).is_err()))?;
    ensure!(rows(&folder.file(""))?.len() as u64 + dropped >= COUNT as u64);
    Ok(())
}
