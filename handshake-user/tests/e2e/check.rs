//! `handshake check`: its exit code, its messages, and what it does with the command.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::chown;
use std::path::Path;
use std::process::{ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use handshake_lab::agent::{AgentOutcome, run_to_end};
use handshake_lab::tcp::{self, Attempts, Listener};
use handshake_lab::{FAMILIES, Family, Process, skip_unless_privileged, skip_without_tool, udp};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::HANDSHAKE;
use crate::books::{check_at_rest, figure};
use crate::error::{Scratch, check_error, run};
use crate::network::{Network, TIMEOUT, loopback, router, segment};
use crate::privilege::{CAPABILITIES, by_another_user, copy};

/// A command that prints a line when it runs, and ends when it reads one.
pub(crate) const OBEDIENT: &str = "echo ready; read line; exit 0";

/// A running check, with its command running.
pub(crate) struct Check {
    process: Process,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
    stdout: String,
    stderr: thread::JoinHandle<String>,
}

impl Check {
    /// Starts `handshake check WORDS -- sh -c SCRIPT` on the network's devices, and waits until the script
    /// has printed a line.
    pub(crate) fn start(network: &Network, words: &[&str], script: &str) -> Result<Self> {
        Self::start_as(network.host().command(HANDSHAKE), network, words, script)
    }

    /// Like [`Check::start`], with a given command, for example with another environment.
    pub(crate) fn start_as(
        mut command: Command,
        network: &Network,
        words: &[&str],
        script: &str,
    ) -> Result<Self> {
        command.arg("check").args(network.devices().iter().flat_map(|device| ["-i", device]));
        if !words.contains(&"--max-flows") {
            command.args(["--max-flows", "1000"]);
        }
        command.args(["--half-open-after", "300ms"]).args(words);
        command.args(["--", "sh", "-c", script]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut process = Process::start(&mut command)?;
        let child = process.child();
        let (stdout, mut stderr) =
            (child.stdout.take().context("stdout")?, child.stderr.take().context("stderr")?);
        let stdin = child.stdin.take();
        let (sender, lines) = channel();
        thread::spawn(move || {
            // Ends with the pipe, or once the receiver is dropped.
            for line in BufReader::new(stdout).lines().map_while(std::result::Result::ok) {
                if sender.send(line + "\n").is_err() {
                    break;
                }
            }
        });
        let stderr = thread::spawn(move || {
            let mut said = String::new();
            // Output that is not text is not compared.
            let _ = stderr.read_to_string(&mut said);
            said
        });
        let mut check = Self { process, stdin, lines, stdout: String::new(), stderr };
        check.line()?;
        Ok(check)
    }

    /// The next line of the command's output.
    fn line(&mut self) -> Result<String> {
        let line = self.lines.recv_timeout(3 * TIMEOUT).context("the command prints nothing")?;
        self.stdout.push_str(&line);
        Ok(line.trim_end().to_owned())
    }

    /// Lets the command end, and waits for the check.
    pub(crate) fn finish(mut self) -> Result<AgentOutcome> {
        if let Some(mut stdin) = self.stdin.take() {
            stdin.write_all(b"\n").context("tell the command to end")?;
        }
        self.wait()
    }

    /// Waits for the check to end.
    pub(crate) fn wait(mut self) -> Result<AgentOutcome> {
        let status = self.process.wait(TIMEOUT)?;
        while let Ok(line) = self.lines.recv_timeout(TIMEOUT) {
            self.stdout.push_str(&line);
        }
        let stderr = self.stderr.join().ok().context("a reader panicked")?;
        Ok(AgentOutcome { status, stdout: self.stdout, stderr })
    }
}

/// Runs `act` while the command of a check runs.
fn check<T>(network: &Network, words: &[&str], act: impl FnOnce() -> Result<T>) -> Result<(AgentOutcome, T)> {
    let check = Check::start(network, words, OBEDIENT)?;
    let done = act()?;
    Ok((check.finish()?, done))
}

pub(crate) fn ensure_code(outcome: &AgentOutcome, code: i32, parts: &[&str]) -> Result<()> {
    ensure!(outcome.status.code() == Some(code), "not {code}: {outcome:?}");
    for part in parts {
        ensure!(outcome.stderr.contains(part), "no {part:?} in:\n{}", outcome.stderr);
    }
    Ok(())
}

pub(crate) fn expected<'a>(expressions: &[&'a str]) -> Vec<&'a str> {
    expressions.iter().flat_map(|expression| ["--expect", expression]).collect()
}

/// Met expectations give exit code 0; stdout is the command's alone, and the file has the report.
#[test]
fn met_expectations_give_exit_code_0() -> Result<()> {
    if skip_unless_privileged() {
        return Ok(());
    }
    let file = Scratch::new("report.json", b"")?;
    let network = loopback()?;
    let path = network.path(Family::V4);
    let (first, second) = (Listener::new(&path, 0, 16)?, Listener::new(&path, 0, 16)?);
    let by_port = format!("completed{{port={}}} == 3", second.address().port());
    let expressions = [
        "completed == 8",
        "half_open + refused == 0",
        "completed / attempts == 100%",
        "p99(connect) < 10s",
        "rate(completed) > 0/s",
        &by_port,
    ];
    // Expectations select by service even if `--top` lists only one.
    let words = [&expected(&expressions)[..], &["--report", file.path(), "--top", "1"]].concat();
    let (outcome, _open) = check(&network, &words, || {
        Ok((tcp::connect_accept(&path, &first, 5)?, tcp::connect_accept(&path, &second, 3)?))
    })?;
    ensure_code(
        &outcome,
        0,
        &["handshake · lo · ingress tcx", "met completed == 8: 8", "met rate(completed) > 0/s: "],
    )?;
    ensure!(outcome.stdout == "ready\n", "{outcome:?}");
    let report: Value = serde_json::from_str(&fs::read_to_string(file.path())?).context("read the report")?;
    check_at_rest(&report)?;
    let met = report["expectations"].as_array().context("expectations")?;
    ensure!(met.len() == 6 && met.iter().all(|each| each["met"] == true), "{met:?}");
    ensure!(met[0]["expression"] == "completed == 8" && met[0]["measured"] == 8, "{met:?}");
    ensure!(report["command"]["status"] == 0 && report["command"]["words"][0] == "sh", "{report}");
    let kernel = &report["kernel"];
    for name in ["passive_opens", "active_opens", "completed_on_wire"] {
        ensure!(figure(kernel, name) == 8, "{name} in {kernel}");
    }
    ensure!(kernel["differences"].as_array().is_some_and(Vec::is_empty), "{kernel}");
    Ok(())
}

/// Failed expectations give exit code 1, with the figures and a sentence.
#[test]
fn failed_expectations_give_exit_code_1() -> Result<()> {
    if skip_unless_privileged() {
        return Ok(());
    }
    let network = segment()?;
    let path = network.path(Family::V6);
    let words =
        expected(&["attempts == 3", "completed / attempts >= 99.9%", "refused == 0", "half_open == 0"]);
    let (outcome, _) = check(&network, &words, || tcp::refused(&path, 3))?;
    let parts = [
        "met attempts == 3: 3",
        "FAILED completed / attempts >= 99.9%: 0.0 % (0 / 3)",
        "refused: the responder answers the SYN with RST",
        "FAILED refused == 0: 3",
        "met half_open == 0: 0",
    ];
    ensure_code(&outcome, 1, &parts)
}

/// An attempt that is opening when the command ends is waited for, and becomes half-open; a datagram without
/// an answer becomes unanswered.
#[test]
fn opening_attempts_are_waited_for() -> Result<()> {
    if skip_unless_privileged() {
        return Ok(());
    }
    let network = segment()?;
    let path = network.path(Family::V4);
    let deaf = Listener::deaf(&path, 0)?;
    let words = expected(&["opening + udp.pending == 0", "half_open.no_syn_ack == 2", "udp.unanswered == 3"]);
    let (outcome, _open) = check(&network, &words, || {
        udp::silence(&path, 3, 1, 40)?;
        Attempts::start(&path, deaf.address(), 2)
    })?;
    ensure_code(&outcome, 0, &["met half_open.no_syn_ack == 2: 2", "met udp.unanswered == 3: 3"])
}

/// A failing command fails the check and is named, unless its status is ignored or propagated.
#[test]
fn a_command_that_fails_is_named() -> Result<()> {
    if skip_unless_privileged() {
        return Ok(());
    }
    let network = loopback()?;
    let killed = "echo ready; kill -KILL $$";
    let unmet = ["--propagate", "--allow-nothing", "--expect", "attempts == 1"];
    let rows: [(&[&str], &str, i32, &str); 7] = [
        (&[], "echo ready; exit 7", 1, "the command sh failed with status 7"),
        (&[], killed, 1, "the command sh was killed by signal 9"),
        (&["--ignore-status"], "echo ready; exit 7", 0, "failed with status 7"),
        (&unmet, "echo ready; exit 7", 7, "FAILED attempts == 1: 0"),
        (&["--propagate"], killed, 128 + 9, "killed by signal 9"),
        (&unmet, "echo ready", 1, "FAILED attempts == 1: 0"),
        (&["--expect", "attempts == 1"], "echo ready; exit 7", 3, "failed with status 7"),
    ];
    for (words, script, code, said) in rows {
        ensure_code(&Check::start(&network, words, script)?.wait()?, code, &[said])?;
    }
    Ok(())
}

/// Invalid commands and files are reported before anything is attached; needs no privileges.
#[test]
fn invalid_commands_are_reported_before_attaching() -> Result<()> {
    let text = Scratch::new("no-program", b"#!/bin/sh\n")?;
    let rows: [(&[&str], &str); 8] = [
        (&["check", "-i", "lo"], "a command after --"),
        (&["check", "-i", "lo", "--", "/nonexistent/load"], "command /nonexistent/load: not found"),
        (&["check", "-i", "lo", "--", "no-such-program-anywhere"], "no-such-program-anywhere: not found"),
        (&["check", "-i", "lo", "--", "/"], "command /: is a directory"),
        (&["check", "-i", "lo", "--", text.path()], "chmod +x"),
        (&["check", "-i", "lo", "-o", "json", "--", "true"], "--report FILE"),
        (&["check", "-i", "lo", "--propagate", "--ignore-status", "--", "true"], "--propagate"),
        (&["check", "-i", "lo", "--report", "/nonexistent/r", "--", "true"], "--report /nonexistent/r"),
    ];
    for (words, said) in rows {
        check_error(&run(words)?, 2, &[said])?;
    }
    let outcome = run(&["check", "-i", "lo", "--expect", "half_open == 0; completd > 3", "--", "true"])?;
    let lines: Vec<&str> = outcome.stderr.lines().collect();
    let expected = [
        "handshake: --expect, column 2: no metric completd; did you mean completed?",
        "     completd > 3",
        "     ^^^^^^^^",
    ];
    ensure!(
        outcome.status.code() == Some(2) && lines == expected && outcome.stdout.is_empty(),
        "{outcome:?}"
    );
    let listed = run(&["check", "--list-metrics"])?;
    ensure!(listed.status.success() && listed.stdout.contains("tcp.half_open.no_ack"), "{listed:?}");
    Ok(())
}

/// With more attempts than the table holds, every expectation is inconclusive; exit code 3 takes precedence
/// over 1.
#[test]
fn lost_data_is_inconclusive() -> Result<()> {
    const SYNS: u8 = 200;
    if skip_unless_privileged() {
        return Ok(());
    }
    let network = segment()?;
    let path = network.path(Family::V4);
    let listener = Listener::new(&path, 0, 256)?;
    let words =
        [&["--max-flows", "16"][..], &expected(&["packets.syn == 200", "completed > 10000"])].concat();
    let check = Check::start(&network, &words, "echo ready; read line; exit 1")?;
    tcp::syn_without_ack(&path, listener.address(), SYNS)?;
    let outcome = check.finish()?;
    let parts = [
        "INEXACT since ",
        "INCONCLUSIVE packets.syn == 200: 200, but data was lost",
        "INCONCLUSIVE completed > 10000: 0, but data was lost",
        "failed with status 1",
    ];
    ensure_code(&outcome, 3, &parts)
}

/// Expectations cannot be met if there was no traffic.
#[test]
fn no_traffic_is_inconclusive() -> Result<()> {
    if skip_unless_privileged() {
        return Ok(());
    }
    let network = loopback()?;
    let words = expected(&["p99(connect) < 1h", "completed / attempts > 0%", "half_open == 0"]);
    let outcome = Check::start(&network, &words, "echo ready")?.wait()?;
    let parts = [
        "INCONCLUSIVE p99(connect) < 1h: p99(connect) has no sample: a gate cannot pass when nothing ran",
        "INCONCLUSIVE completed / attempts > 0%: attempts is 0: a gate cannot pass when nothing ran",
        "INCONCLUSIVE half_open == 0: 0, but nothing ran: no attempt",
    ];
    ensure_code(&outcome, 3, &parts)?;
    let words = [&["--allow-nothing"][..], &expected(&["half_open == 0"])].concat();
    let outcome = Check::start(&network, &words, "echo ready")?.wait()?;
    ensure_code(&outcome, 0, &["met half_open == 0: 0"])?;
    let words = expected(&["half_open == 0", "attempts == 0"]);
    let outcome = Check::start(&network, &words, "echo ready")?.wait()?;
    ensure_code(&outcome, 0, &["met half_open == 0: 0", "met attempts == 0: 0"])
}

/// Ctrl-C and SIGTERM also end the command, including its background processes, even if it ignores the
/// signals.
#[test]
fn an_interrupt_ends_the_command() -> Result<()> {
    if skip_unless_privileged() {
        return Ok(());
    }
    let network = loopback()?;
    let rows = [
        (libc::SIGINT, "sleep 60 & echo $$ $!; wait", 130),
        (libc::SIGTERM, "sleep 60 & echo $$ $!; wait", 143),
        (libc::SIGINT, "trap '' INT TERM; sleep 60 & echo $$ $!; wait; sleep 60", 130),
    ];
    for (signal, script, code) in rows {
        let mut check = Check::start(&network, &expected(&["attempts == 0"]), script)?;
        let pids: Vec<String> = check.stdout.split_whitespace().map(str::to_owned).collect();
        ensure!(pids.len() == 2 && pids.iter().all(|pid| is_running(pid)), "{pids:?}");
        check.process.signal(signal)?;
        ensure_code(&check.wait()?, code, &["INCONCLUSIVE attempts == 0: 0, but the check was cut short"])?;
        for pid in pids {
            await_end(&pid)?;
        }
    }
    Ok(())
}

/// Nothing of the command survives the check, even if the check is killed: not its child in the background,
/// not a daemon in a session of its own, whose parent has ended, and not the daemon's child, neither of which
/// SIGTERM to a process group reaches.
#[test]
fn kill_9_ends_the_command_and_all_that_it_started() -> Result<()> {
    const SCRIPT: &str = "sleep 61 & background=$!
        (setsid sh -c 'trap : TERM; sleep 62 & echo $$ $! > FILE; sleep 63; sleep 63' &)
        while ! [ -s FILE ]; do sleep 0.01; done
        echo $$ $background $(cat FILE); exec sleep 64";
    if skip_unless_privileged() {
        return Ok(());
    }
    let network = loopback()?;
    for uid in [None, Some("4242")] {
        let daemon = Scratch::new("daemon", b"")?;
        chown(daemon.path(), uid.map(str::parse).transpose()?, None)?;
        let script = SCRIPT.replace("FILE", daemon.path());
        let mut command = network.host().command(HANDSHAKE);
        command.envs(uid.map(|uid| ("SUDO_UID", uid))).envs(uid.map(|uid| ("SUDO_GID", uid)));
        let mut check = Check::start_as(command, &network, &[], &script)?;
        let pids: Vec<String> = check.stdout.split_whitespace().map(str::to_owned).collect();
        ensure!(pids.len() == 4 && pids.iter().all(|pid| is_running(pid)), "{pids:?}");
        check.process.signal(libc::SIGKILL)?;
        check.process.wait(TIMEOUT)?;
        for pid in &pids {
            await_end(pid)?;
        }
    }
    Ok(())
}

fn is_running(pid: &str) -> bool {
    // A zombie counts as ended.
    let stat = fs::read_to_string(Path::new("/proc").join(pid).join("stat")).unwrap_or_default();
    stat.rsplit(") ").next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with('Z'))
}

fn await_end(pid: &str) -> Result<()> {
    // What ignores a signal has three seconds before it is killed.
    let deadline = Instant::now() + 2 * TIMEOUT;
    while is_running(pid) {
        ensure!(Instant::now() < deadline, "{pid} still runs");
        thread::sleep(std::time::Duration::from_millis(2));
    }
    Ok(())
}

/// A background process that outlives the command is neither waited for nor ended, even if it holds stdout.
#[test]
fn background_processes_are_not_waited_for() -> Result<()> {
    if skip_unless_privileged() {
        return Ok(());
    }
    let network = loopback()?;
    let mut check = Check::start(&network, &[], "sleep 60 & echo $!")?;
    let left = check.stdout.trim().to_owned();
    let status = check.process.wait(TIMEOUT)?;
    let alive = is_running(&left);
    let sleeping = Pid::from_raw(left.parse()?).context("a process ID")?;
    kill_process(sleeping, Signal::KILL)?;
    ensure!(status.success() && alive, "{status}, left behind: {alive}");
    Ok(())
}

/// The command inherits no more than from a shell: no capability and no descriptor.
#[test]
fn the_command_inherits_nothing() -> Result<()> {
    const SCRIPT: &str = "ls /proc/self/fd | tr '\\n' ' '; grep ^Cap /proc/self/status | tr -s '\\t\\n' '  '";
    if skip_unless_privileged() {
        return Ok(());
    }
    let network = loopback()?;
    let none = "0000000000000000";
    let outcome = Check::start(&network, &["--promisc", "-vv"], SCRIPT)?.wait()?;
    let caps = ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"].map(|set| format!("{set}: {none} "));
    ensure!(outcome.stdout.ends_with(&format!("{}\n", caps.concat())), "{outcome:?}");
    let plain = run_to_end(network.host(), "sh", &["-c", SCRIPT], TIMEOUT)?;
    let descriptors = |stdout: &str| stdout.split("Cap").next().unwrap_or_default().to_owned();
    ensure!(
        descriptors(&outcome.stdout) == descriptors(&plain.stdout),
        "{} and {}",
        outcome.stdout,
        plain.stdout
    );
    let kept = Check::start(&network, &["--as-root"], SCRIPT)?.wait()?;
    let same = kept.stdout.trim() == plain.stdout.trim() && !kept.stdout.contains(&format!("CapEff: {none}"));
    ensure!(same, "{} and {}", kept.stdout, plain.stdout);
    Ok(())
}

/// The same if handshake has its capabilities from a parent that may not be root: ambient capabilities would
/// be inherited.
#[test]
fn ambient_capabilities_are_not_inherited() -> Result<()> {
    const SCRIPT: &str = "id -u; grep ^Cap /proc/self/status | grep -v CapBnd";
    if skip_unless_privileged() || skip_without_tool("setpriv") {
        return Ok(());
    }
    let network = loopback()?;
    let program = copy(network.host())?;
    let command = by_another_user(network.host(), CAPABILITIES, program.path());
    let outcome = Check::start_as(command, &network, &[], SCRIPT)?.wait()?;
    let none = "0000000000000000";
    let expected = ["CapInh", "CapPrm", "CapEff", "CapAmb"].map(|set| format!("{set}:\t{none}\n"));
    ensure!(outcome.stdout == format!("4242\n{}", expected.concat()), "{outcome:?}");
    ensure_code(&outcome, 0, &["attempts 0"])
}

/// The command inherits the caller's ignored signals, as under `nohup`, except SIGINT and SIGTERM, by which a
/// check ends its command, and SIGPIPE, which handshake itself ignores.
#[test]
fn ignored_signals_are_inherited_except_those_that_end_the_command() -> Result<()> {
    const SCRIPT: &str = "grep ^SigIgn: /proc/self/status";
    const IGNORING: &str = "trap '' HUP INT QUIT PIPE TERM USR1; exec \"$@\"";
    if skip_unless_privileged() {
        return Ok(());
    }
    let network = loopback()?;
    let mut command = network.host().command("sh");
    command.args(["-c", IGNORING, "sh", HANDSHAKE]);
    let outcome = Check::start_as(command, &network, &[], SCRIPT)?.wait()?;
    let ignored = outcome.stdout.trim().strip_prefix("SigIgn:\t").context("the ignored signals")?;
    let ignored = u64::from_str_radix(ignored, 16)?;
    let is_ignored = |signal: i32| ignored >> (signal - 1) & 1 == 1;
    ensure!([libc::SIGHUP, libc::SIGQUIT, libc::SIGUSR1].into_iter().all(is_ignored), "{outcome:?}");
    ensure!(![libc::SIGINT, libc::SIGTERM, libc::SIGPIPE].into_iter().any(is_ignored), "{outcome:?}");
    ensure_code(&outcome, 0, &["attempts 0"])
}

/// Under sudo the command runs as the calling user.
#[test]
fn under_sudo_the_command_runs_as_the_caller() -> Result<()> {
    const SCRIPT: &str = "echo $(id -u) $(id -g) $(id -G) $(grep ^CapEff /proc/self/status) $HOME";
    if skip_unless_privileged() {
        return Ok(());
    }
    let network = loopback()?;
    let said = |words: &[&str], uid: &str| {
        let mut command = network.host().command(HANDSHAKE);
        command.env("SUDO_UID", uid).env("SUDO_GID", uid).env("HOME", "/root");
        Check::start_as(command, &network, words, SCRIPT)?.wait()
    };
    let outcome = said(&[], "4242")?;
    ensure!(outcome.stdout == "4242 4242 4242 CapEff: 0000000000000000 /root\n", "{outcome:?}");
    // A user with an entry in /etc/passwd gets that home.
    let users = fs::read_to_string("/etc/passwd")?;
    if let Some(home) = users.lines().find_map(|user| {
        let fields: Vec<&str> = user.split(':').collect();
        fields.get(5).filter(|_| fields[2] == "1").copied()
    }) {
        let outcome = said(&[], "1")?;
        ensure!(
            outcome.stdout.starts_with("1 1 1") && outcome.stdout.ends_with(&format!(" {home}\n")),
            "{outcome:?}"
        );
    }
    let outcome = said(&["--as-root"], "4242")?;
    ensure!(
        outcome.stdout.starts_with("0 0 ") && !outcome.stdout.contains("CapEff: 0000000000000000"),
        "{outcome:?}"
    );
    Ok(())
}

/// The accept queue fills while SYN+ACKs are in flight: more handshakes complete on the wire than the kernel
/// accepts.
#[test]
fn acks_that_the_kernel_ignored_are_reported() -> Result<()> {
    if skip_unless_privileged() {
        return Ok(());
    }
    for family in FAMILIES {
        let network = segment()?;
        let file = Scratch::new("report.json", b"")?;
        let words = [&["--report", file.path()][..], &expected(&["completed == 5"])].concat();
        let (outcome, queue) =
            check(&network, &words, || tcp::queue_fills_in_flight(&network.path(family), 2))?;
        ensure!(queue.ignored() == 2);
        let parts = [
            "5 completed on the wire, 3 accepted (PassiveOpens): 2 ACKs were ignored\n",
            "an accept queue was full; this counts dropped SYNs",
            "(of the whole network namespace)",
        ];
        ensure_code(&outcome, 0, &parts)?;
        let report: Value = serde_json::from_str(&fs::read_to_string(file.path())?)?;
        let kernel = &report["kernel"];
        ensure!(figure(kernel, "passive_opens") == 3 && figure(kernel, "listen_overflows") >= 2, "{kernel}");
    }
    Ok(())
}

/// More SYNs than a queue holds: the kernel answers with cookies, and the check reports them.
#[test]
fn syn_cookies_are_reported() -> Result<()> {
    if skip_unless_privileged() {
        return Ok(());
    }
    let network = segment()?;
    let path = network.path(Family::V4);
    path.server.sysctl("net.ipv4.tcp_syncookies", "1")?;
    let listener = Listener::new(&path, 0, 4)?;
    let file = Scratch::new("report.json", b"")?;
    let words = [&["--report", file.path()][..], &expected(&["half_open.no_ack == 20"])].concat();
    let (outcome, ()) = check(&network, &words, || {
        tcp::syn_without_ack(&path, listener.address(), 20)?;
        Ok(())
    })?;
    ensure_code(&outcome, 0, &["SyncookiesSent", ": a SYN queue was full; the ACK of a cookie"])?;
    let report: Value = serde_json::from_str(&fs::read_to_string(file.path())?)?;
    ensure!(figure(&report["kernel"], "syncookies_sent") > 0, "{report}");
    Ok(())
}

/// The kernel's counters ignore filters: the check reports that the kernel accepted more, and nothing else.
#[test]
fn the_kernels_counters_ignore_filters() -> Result<()> {
    if skip_unless_privileged() {
        return Ok(());
    }
    let network = segment()?;
    let path = network.path(Family::V4);
    let (seen, unseen) = (Listener::new(&path, 0, 16)?, Listener::new(&path, 0, 16)?);
    let port = seen.address().port().to_string();
    let words = [&["--port", &port][..], &expected(&["completed == 3"])].concat();
    let (outcome, _open) = check(&network, &words, || {
        Ok((tcp::connect_accept(&path, &seen, 3)?, tcp::connect_accept(&path, &unseen, 2)?))
    })?;
    let said =
        "5 accepted (PassiveOpens), 3 completed here: the others began before this run, took another path or";
    ensure_code(&outcome, 0, &["met completed == 3: 3", "PassiveOpens 5"])?;
    // The sentence may be wrapped.
    let words: Vec<&str> = outcome.stderr.split_whitespace().collect();
    ensure!(words.join(" ").contains(said) && !outcome.stderr.contains("ignored"), "{outcome:?}");
    Ok(())
}

/// A router's own counters do not include what it forwards.
#[test]
fn a_router_does_not_count_forwarded_connections() -> Result<()> {
    if skip_unless_privileged() {
        return Ok(());
    }
    let network = router()?;
    let path = network.path(Family::V4);
    let listener = Listener::new(&path, 0, 16)?;
    let words = expected(&["completed == 2"]);
    let (outcome, _open) = check(&network, &words, || tcp::connect_accept(&path, &listener, 2))?;
    ensure_code(&outcome, 0, &["met completed == 2: 2"])?;
    ensure!(!outcome.stderr.contains("PassiveOpens"), "{outcome:?}");
    Ok(())
}

/// Without a command the check observes for `--for`, and the report is on stdout.
#[test]
fn without_a_command_the_check_observes() -> Result<()> {
    if skip_unless_privileged() {
        return Ok(());
    }
    let network = loopback()?;
    let words = ["check", "-i", "lo", "--max-flows", "1000", "--for", "50ms", "--expect", "attempts == 0"];
    let outcome = run_to_end(network.host(), HANDSHAKE, &words, TIMEOUT * 3)?;
    ensure!(outcome.status.success() && outcome.stdout.contains("met attempts == 0: 0"), "{outcome:?}");
    let words = [&words[..], &["--expect", "attempts > 0", "-o", "json"]].concat();
    let outcome = run_to_end(network.host(), HANDSHAKE, &words, TIMEOUT * 3)?;
    ensure_code(&outcome, 1, &["FAILED attempts > 0: 0"])?;
    let report = outcome.report()?;
    ensure!(report["expectations"][1]["met"] == false && report.get("command").is_none(), "{report}");
    Ok(())
}

/// A lost interface ends the check with the figures up to then, and without an answer.
#[test]
fn a_lost_interface_ends_the_command() -> Result<()> {
    if skip_unless_privileged() {
        return Ok(());
    }
    let network = segment()?;
    let check = Check::start(&network, &expected(&["attempts == 0"]), "echo $$; exec sleep 60")?;
    let pid = check.stdout.trim().to_owned();
    network.host().ip(&["link del eth0"])?;
    ensure_code(&check.wait()?, 3, &["but the check was cut short", "eth0 is gone"])?;
    await_end(&pid)
}

/// A command that runs longer than `--for` is stopped and has failed.
#[test]
fn a_command_that_exceeds_its_limit_fails() -> Result<()> {
    if skip_unless_privileged() {
        return Ok(());
    }
    let network = loopback()?;
    let check = Check::start(&network, &["--for", "300ms"], "echo $$; exec sleep 60")?;
    let pid = check.stdout.trim().to_owned();
    ensure_code(&check.wait()?, 1, &["the command sh ran longer than --for and was stopped"])?;
    await_end(&pid)
}
