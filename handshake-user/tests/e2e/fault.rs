//! Faults around a run: outputs that are not read, full or gone, and readings that fail.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::process::{ChildStderr, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use handshake_lab::bpf::{self, TestHook};
use handshake_lab::tcp::{self, Listener};
use handshake_lab::topology::DEVICE;
use handshake_lab::{Family, Namespace, Process, skip_unless_privileged, skip_without_tool};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use serde_json::Value;

use crate::HANDSHAKE;
use crate::books::{check, figure};
use crate::error::{Scratch, check_error, run};
use crate::network::{Network, TIMEOUT, loopback, segment};

/// A signal ends a run within this time, whatever its output does.
const ENDS_WITHIN: Duration = Duration::from_secs(2);
/// Enough reports to fill a small pipe.
const FILLED: Duration = Duration::from_millis(700);
const SIGNALS: [i32; 3] = [libc::SIGINT, libc::SIGTERM, libc::SIGHUP];

/// A run whose stderr is read by a thread.
struct Run {
    process: Process,
    lines: Receiver<String>,
    said: String,
}

impl Run {
    /// Starts `command` with this stdout.
    fn start(command: &mut Command, stdout: impl Into<Stdio>) -> Result<Self> {
        command.stdout(stdout).stderr(Stdio::piped());
        let mut process = Process::start(command)?;
        let stderr = process.child().stderr.take().context("stderr")?;
        Ok(Self { process, lines: lines(stderr), said: String::new() })
    }

    /// Waits until stderr has `part`.
    fn says(&mut self, part: &str) -> Result<()> {
        let deadline = Instant::now() + 6 * TIMEOUT;
        while !self.said.contains(part) {
            let line = self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now()));
            let Ok(line) = line else { bail!("no {part:?} on stderr:\n{}", self.said) };
            self.said += &line;
        }
        Ok(())
    }

    /// Waits for the end; returns the exit status and all of stderr.
    fn ends(mut self, limit: Duration) -> Result<(ExitStatus, String)> {
        let status = self.process.wait(limit).with_context(|| self.said.clone())?;
        while let Ok(line) = self.lines.recv_timeout(TIMEOUT) {
            self.said += &line;
        }
        ensure!(!self.said.contains("panicked"), "{}", self.said);
        Ok((status, self.said))
    }
}

fn lines(mut from: ChildStderr) -> Receiver<String> {
    let (sender, lines) = channel();
    thread::spawn(move || {
        let mut bytes = [0; 4096];
        while let Ok(length) = from.read(&mut bytes) {
            if length == 0 || sender.send(String::from_utf8_lossy(&bytes[..length]).into_owned()).is_err() {
                break;
            }
        }
    });
    lines
}

fn watch(host: &Namespace, device: &str, words: &[&str]) -> Command {
    let mut command = host.command(HANDSHAKE);
    command.args(["watch", "-i", device, "--max-flows", "1000"]).args(words).stdin(Stdio::null());
    command
}

/// A pipe of 4,096 bytes.
fn small_pipe() -> Result<(io::PipeReader, io::PipeWriter)> {
    let (reader, writer) = io::pipe()?;
    rustix::pipe::fcntl_setpipe_size(&writer, 4096)?;
    Ok((reader, writer))
}

/// Signals end a run within two seconds although its output is not read, and the hooks are free.
#[test]
fn a_signal_ends_a_run_whose_output_is_not_read() -> Result<()> {
    if skip_unless_privileged() {
        return Ok(());
    }
    let network = segment()?;
    let formats: [&[&str]; 3] =
        [&["-o", "text"], &["-o", "jsonl", "--events", "all", "--flows"], &["-o", "json"]];
    for (words, signal) in formats.into_iter().zip(SIGNALS) {
        let (_reader, mut writer) = small_pipe()?;
        // A report of one object is written at the end only.
        writer.write_all(&[b'\n'; 4096][..if words[1] == "json" { 4096 } else { 0 }])?;
        let mut command = watch(network.host(), DEVICE, &[words, &["--interval", "10ms"]].concat());
        let mut run = Run::start(&mut command, writer)?;
        run.says("attached ")?;
        thread::sleep(FILLED);
        run.process.signal(signal)?;
        let (status, said) = run.ends(ENDS_WITHIN)?;
        ensure!(status.code() == Some(4) && said.contains("not read"), "{words:?}: {status} {said}");
        let left = bpf::chain(network.host(), DEVICE, TestHook::TcxIngress)?;
        ensure!(left.is_empty(), "{words:?}: {left:?}");
    }
    Ok(())
}

/// The same with messages: what is said on a stderr that is not read holds nothing up.
#[test]
fn a_signal_ends_a_run_whose_messages_are_not_read() -> Result<()> {
    if skip_unless_privileged() {
        return Ok(());
    }
    let network = segment()?;
    for checks in [false, true] {
        let (_reader, mut writer) = small_pipe()?;
        writer.write_all(&[b'\n'; 4096])?;
        let mut command = watch(network.host(), DEVICE, &["--for", "1h"]);
        if checks {
            command = network.host().command(HANDSHAKE);
            command.args(["check", "-i", DEVICE, "--max-flows", "1000", "--", "sleep", "100"]);
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(writer);
        let mut process = Process::start(&mut command)?;
        let deadline = Instant::now() + 3 * TIMEOUT;
        while bpf::chain(network.host(), DEVICE, TestHook::TcxIngress)?.is_empty() {
            ensure!(Instant::now() < deadline, "it does not attach");
            thread::sleep(Duration::from_millis(20));
        }
        thread::sleep(FILLED);
        process.signal(libc::SIGTERM)?;
        let status = process.wait(ENDS_WITHIN)?;
        ensure!(status.code() == Some(if checks { 143 } else { 0 }), "{status}");
    }
    Ok(())
}

/// While stdout is not read, reports are left out and the loop continues; once it is read again, reports
/// follow that know all traffic of the meantime.
#[test]
fn reports_that_are_not_read_are_left_out() -> Result<()> {
    if skip_unless_privileged() {
        return Ok(());
    }
    let network = segment()?;
    let path = network.path(Family::V4);
    let (reader, writer) = small_pipe()?;
    let mut command = watch(network.host(), DEVICE, &["-o", "jsonl", "--interval", "10ms"]);
    let mut run = Run::start(&mut command, writer)?;
    drop(command);
    run.says("reports are left out")?;
    let listener = Listener::new(&path, 0, 16)?;
    tcp::connect_accept(&path, &listener, 3)?.reset()?;
    let all = thread::spawn(move || {
        let mut all = String::new();
        { reader }.read_to_string(&mut all).map(|_| all)
    });
    run.says("stdout is read again")?;
    run.process.signal(libc::SIGTERM)?;
    let (status, said) = run.ends(TIMEOUT)?;
    ensure!(status.code() == Some(0), "{status} {said}");
    let all = all.join().ok().context("no panic")??;
    let reports = all.lines().map(serde_json::from_str).collect::<Result<Vec<Value>, _>>()?;
    let last = reports.last().context("no report")?;
    check(last)?;
    ensure!(figure(last, "tcp.completed") == 3 && last["exact"] == true, "{last}");
    Ok(())
}

/// A full disk: the exit code, and the path.
#[test]
fn a_full_disk_is_reported_with_its_path() -> Result<()> {
    if skip_unless_privileged() {
        return Ok(());
    }
    let network = loopback()?;
    let full = || OpenOptions::new().write(true).open("/dev/full");
    let check: &[&str] = &["check", "-i", "lo", "--max-flows", "1000", "--for", "50ms"];
    let rows: [&[&str]; 8] = [
        &["watch", "-i", "lo", "--max-flows", "1000", "-o", "jsonl", "--interval", "20ms"],
        &["watch", "-i", "lo", "--max-flows", "1000", "--interval", "20ms"],
        &["watch", "-i", "lo", "--max-flows", "1000", "-o", "json", "--for", "50ms"],
        check,
        &[check, &["-o", "json"]].concat(),
        &["check", "--list-metrics"],
        &["doctor", "-i", "lo"],
        &["--help"],
    ];
    for words in rows {
        let mut command = network.host().command(HANDSHAKE);
        let (status, said) =
            Run::start(command.args(words).stdin(Stdio::null()), full()?)?.ends(3 * TIMEOUT)?;
        ensure!(status.code() == Some(4), "{words:?}: {status} {said}");
        let last = said.lines().last().unwrap_or_default();
        ensure!(last.contains("/dev/full: No space left on device"), "{words:?}: {said}");
    }
    let words = [check, &["--report", "/dev/full"]].concat();
    let mut command = network.host().command(HANDSHAKE);
    let (status, said) =
        Run::start(command.args(words).stdin(Stdio::null()), Stdio::null())?.ends(3 * TIMEOUT)?;
    ensure!(
        status.code() == Some(4) && said.contains("/dev/full: No space left on device"),
        "{status} {said}"
    );
    Ok(())
}

/// A stderr that is full or closed changes no exit code; the report that a check with a command writes there
/// is the exception on a full disk.
#[test]
fn a_stderr_that_takes_nothing_is_ignored() -> Result<()> {
    if skip_unless_privileged() {
        return Ok(());
    }
    let network = loopback()?;
    let watch: &[&str] = &["watch", "-i", "lo", "--max-flows", "1000", "--for", "50ms"];
    let check: &[&str] = &["check", "-i", "lo", "--max-flows", "1000", "--expect", "attempts == 0"];
    let rows = [
        (watch.to_vec(), 0, 0),
        ([check, &["--for", "50ms"]].concat(), 0, 0),
        ([check, &["--", "true"]].concat(), 4, 0),
        (vec!["watch", "-i", "nope"], 4, 4),
        (vec!["watch", "--nonsense"], 2, 2),
    ];
    for (words, when_full, when_closed) in rows {
        let (reader, closed) = io::pipe()?;
        drop(reader);
        let full = OpenOptions::new().write(true).open("/dev/full")?;
        for (stderr, code) in [(Stdio::from(full), when_full), (Stdio::from(closed), when_closed)] {
            let mut command = network.host().command(HANDSHAKE);
            command.args(&words).stdin(Stdio::null()).stdout(Stdio::null()).stderr(stderr);
            let status = Process::start(&mut command)?.wait(3 * TIMEOUT)?;
            ensure!(status.code() == Some(code), "{words:?}: {status}");
        }
    }
    Ok(())
}

/// A terminal whose far end a test holds.
struct Pty {
    master: OwnedFd,
    slave: File,
}

impl Pty {
    fn new() -> Result<Self> {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
        grantpt(&master)?;
        unlockpt(&master)?;
        tcsetwinsize(&master, Winsize { ws_row: 30, ws_col: 100, ws_xpixel: 0, ws_ypixel: 0 })?;
        let name = ptsname(&master, Vec::new())?.into_string()?;
        let slave = OpenOptions::new().read(true).write(true).open(name)?;
        Ok(Self { master, slave })
    }

    /// Writes as much as its far end has room for.
    fn fill(self) -> Result<Self> {
        rustix::fs::fcntl_setfl(&self.slave, rustix::fs::OFlags::NONBLOCK)?;
        loop {
            match (&self.slave).write(&[b'x'; 1024]) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                written => written.map(drop)?,
            }
        }
        rustix::fs::fcntl_setfl(&self.slave, rustix::fs::OFlags::empty())?;
        Ok(self)
    }

    /// Starts a run on it. `controls`: as the controlling terminal, whose end is a SIGHUP.
    fn start(self, mut command: Command, controls: bool) -> Result<(Run, OwnedFd)> {
        command.env("TERM", "xterm-256color").stdin(self.slave.try_clone()?);
        if controls {
            let slave = self.slave.try_clone()?;
            // SAFETY: between fork and exec only system calls are made.
            unsafe {
                command.pre_exec(move || {
                    rustix::process::setsid()?;
                    Ok(rustix::process::ioctl_tiocsctty(slave.as_fd())?)
                });
            }
        }
        Ok((Run::start(&mut command, self.slave)?, self.master))
    }
}

/// Reads a terminal until `part` was drawn.
fn await_drawn(master: &OwnedFd, part: &str) -> Result<()> {
    let mut all = Vec::new();
    let mut bytes = [0; 65536];
    while !String::from_utf8_lossy(&all).contains(part) {
        let length = rustix::io::read(master, &mut bytes)?;
        all.extend_from_slice(&bytes[..length]);
    }
    Ok(())
}

/// A terminal that is not read: a stopped pane, a hung connection.
#[test]
fn a_signal_ends_a_terminal_that_is_not_read() -> Result<()> {
    if skip_unless_privileged() {
        return Ok(());
    }
    let network = segment()?;
    for signal in SIGNALS {
        let (mut run, _master) =
            Pty::new()?.fill()?.start(watch(network.host(), DEVICE, &["--interval", "250ms"]), false)?;
        run.says("attached ")?;
        thread::sleep(FILLED);
        run.process.signal(signal)?;
        let (status, said) = run.ends(ENDS_WITHIN)?;
        ensure!(status.code() == Some(4) && said.contains("not read"), "{status} {said}");
    }
    Ok(())
}

/// A terminal that goes away ends the run as a closed pipe does.
#[test]
fn a_terminal_that_goes_away_ends_the_run() -> Result<()> {
    if skip_unless_privileged() {
        return Ok(());
    }
    let network = segment()?;
    for (controls, words) in
        [(true, &[][..]), (false, &[]), (true, &["-o", "jsonl"]), (false, &["-o", "text"])]
    {
        let words = [words, &["--interval", "50ms"]].concat();
        let (mut run, master) = Pty::new()?.start(watch(network.host(), DEVICE, &words), controls)?;
        run.says("attached ")?;
        await_drawn(&master, "eth0")?;
        drop(master);
        let (status, said) = run.ends(ENDS_WITHIN).with_context(|| format!("{controls} {words:?}"))?;
        ensure!(status.code() == Some(0), "{controls} {words:?}: {status} {said}");
        ensure!(said.lines().last().is_some_and(|line| line.starts_with("attached ")), "{said}");
    }
    Ok(())
}

/// One reading that the kernel refuses for the moment is a missed snapshot; a loss figure that cannot be read
/// is not zero.
#[test]
fn a_passing_error_of_one_reading_does_not_end_the_run() -> Result<()> {
    if skip_unless_privileged() || skip_without_tool("strace") {
        return Ok(());
    }
    let network = segment()?;
    let rows = [
        ("bpf:error=EAGAIN:when=3", "missed_snapshot"),
        ("bpf:error=ENOMEM:when=4", "missed_snapshot"),
        ("bpf:error=EINTR:when=5", "missed_snapshot"),
        ("bpf:error=EMFILE:when=6", "missed_snapshot"),
        ("recvfrom,read:error=ENOBUFS:when=2..5", "unreadable_counters"),
    ];
    for (fault, reason) in rows {
        let mut agent = network.watch(&[])?;
        let mut strace = Command::new("strace");
        strace.args(["-f", "-qq", "-o", "/dev/null", "-p", &agent.id().to_string()]);
        strace.args(["-e", &format!("inject={fault}")]).stdin(Stdio::null()).stderr(Stdio::null());
        let mut strace = Process::start(&mut strace)?;
        let report = agent.await_report(TIMEOUT, |report| report["exact"] == false).with_context(|| fault)?;
        strace.signal(libc::SIGTERM)?;
        strace.wait(TIMEOUT)?;
        check(&report)?;
        let reasons = report["inexact"].as_array().context("reasons")?;
        // The look at the hooks asks by sockets too.
        let is_passing = |each: &Value| each["reason"] == reason || each["reason"] == "missed_snapshot";
        ensure!(!reasons.is_empty() && reasons.iter().all(is_passing), "{fault}: {report}");
        let missed = agent.stderr().contains("a snapshot is missed: cannot ");
        ensure!(missed || reason != "missed_snapshot", "{fault}: {}", agent.stderr());
        agent.await_report(TIMEOUT, |_| true).with_context(|| fault)?;
        let outcome = agent.stop()?;
        ensure!(outcome.status.code() == Some(0), "{fault}: {outcome:?}");
        ensure!(outcome.report()?["exact"] == false, "{fault}: once inexact, it stays so");
    }
    Ok(())
}

/// Names from outside cannot steer the terminal or begin a line of their own.
#[test]
fn names_are_escaped_on_stderr_and_in_doctor() -> Result<()> {
    if skip_unless_privileged() {
        return Ok(());
    }
    let network: Network = segment()?;
    network.host().run("ip", &["link", "add", "v\u{1b}[31mX", "type", "veth"])?;
    let ended =
        |words: &[&str]| handshake_lab::agent::run_to_end(network.host(), HANDSHAKE, words, 3 * TIMEOUT);
    check_error(&ended(&["watch", "-i", "nope"])?, 4, &["there are: ", "v\\u{1b}[31mX"])?;
    let outcome = ended(&["doctor", "-i", "v\u{1b}[31mX"])?;
    let all = outcome.stdout + &outcome.stderr;
    ensure!(all.contains("v\\u{1b}[31mX") && !all.contains('\u{1b}'), "{all:?}");
    let outcome = ended(&["watch", "-i", "v\u{1b}[31mX", "--max-flows", "1000", "--for", "50ms"])?;
    let all = outcome.stdout + &outcome.stderr;
    ensure!(all.contains("attached v\\u{1b}[31mX") && !all.contains('\u{1b}'), "{all:?}");
    let forged = Scratch::new("z\u{1b}[31m\nFAKE: ok", b"no capture, but long enough to be tested as one")?;
    check_error(&run(&["replay", forged.path()])?, 2, &["z\\u{1b}[31m\\nFAKE: ok"])
}
