//! Runs the command under test in a namespace and collects its output.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read};
use std::process::{ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::namespace::Namespace;
use crate::process::Process;

/// Limit for attaching: the verifier takes about a second for a large program, several on a busy machine, and tens
/// of them on an emulated one.
const START: Duration = Duration::from_secs(180);
/// Limit for ending: the last report comes at once.
const STOP: Duration = Duration::from_secs(30);

/// A running `handshake watch`, attached to its interfaces. Killed on drop.
#[derive(Debug)]
pub struct Agent {
    process: Process,
    output: Receiver<String>,
    stdout: String,
    lines: Receiver<String>,
    stderr: String,
}

/// The result of a run of the command.
#[derive(Debug)]
pub struct AgentOutcome {
    /// The exit status.
    pub status: ExitStatus,
    /// The whole standard output.
    pub stdout: String,
    /// The whole standard error.
    pub stderr: String,
}

impl Agent {
    /// Starts `binary watch -o jsonl` with `arguments` in `namespace`, and waits for one `attached` line on
    /// stderr per `-i` in `arguments`.
    ///
    /// # Errors
    /// The command ends before that (the error has its standard error), or takes longer than three minutes.
    pub fn start<S: AsRef<OsStr>>(namespace: &Namespace, binary: S, arguments: &[&str]) -> Result<Self> {
        let mut command = namespace.command(binary);
        command.args(["watch", "-o", "jsonl"]).args(arguments);
        let interfaces = arguments.iter().filter(|argument| **argument == "-i").count().max(1);
        Self::attach(command, interfaces)
    }

    /// Starts `command`, any form of `watch`, and waits until it is attached to `interfaces` interfaces.
    ///
    /// # Errors
    /// As [`Agent::start`].
    pub fn attach(command: Command, interfaces: usize) -> Result<Self> {
        let mut agent = Self::begin(command)?;
        agent.await_attached(interfaces)?;
        Ok(agent)
    }

    /// Starts `command`, any form of the command under test.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn begin(command: Command) -> Result<Self> {
        Self::spawn(command, Stdio::null())
    }

    /// Waits until it is attached to `interfaces` interfaces.
    ///
    /// # Errors
    /// As [`Agent::start`].
    pub fn await_attached(&mut self, interfaces: usize) -> Result<()> {
        self.await_lines("attached ", interfaces)
    }

    /// Like [`Agent::attach`] with a pipe as standard input, for the command that a `check` runs: `cat` runs
    /// until the pipe is dropped.
    ///
    /// # Errors
    /// As [`Agent::start`].
    pub fn attach_fed(command: Command, interfaces: usize) -> Result<(Self, ChildStdin)> {
        let mut agent = Self::spawn(command, Stdio::piped())?;
        let stdin = agent.process.child().stdin.take().context("the agent's stdin")?;
        agent.await_attached(interfaces)?;
        Ok((agent, stdin))
    }

    fn spawn(mut command: Command, stdin: Stdio) -> Result<Self> {
        command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut process = Process::start(&mut command)?;
        let output = read_lines(process.child().stdout.take().context("the agent's stdout")?);
        let lines = read_lines(process.child().stderr.take().context("the agent's stderr")?);
        Ok(Self { process, output, stdout: String::new(), lines, stderr: String::new() })
    }

    /// The process ID.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// The standard error up to now.
    pub fn stderr(&mut self) -> &str {
        while let Ok(line) = self.lines.try_recv() {
            self.note(&line);
        }
        &self.stderr
    }

    /// Waits until stderr has `count` lines that begin with `beginning`.
    ///
    /// # Errors
    /// The command ends before, or takes longer than three minutes.
    pub fn await_lines(&mut self, beginning: &str, count: usize) -> Result<()> {
        let deadline = Instant::now() + START;
        while self.stderr.lines().filter(|line| line.starts_with(beginning)).count() < count {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) => self.note(&line),
                Err(RecvTimeoutError::Timeout) => bail!("no {beginning:?} line; stderr:\n{}", self.stderr),
                Err(RecvTimeoutError::Disconnected) => {
                    let status = self.process.wait(STOP)?;
                    bail!(
                        "the command ended ({status}) before a {beginning:?} line; stderr:\n{}",
                        self.stderr
                    )
                }
            }
        }
        Ok(())
    }

    /// Waits until standard output has the line `wanted`.
    ///
    /// # Errors
    /// The command ends before, or takes longer than three minutes.
    pub fn await_output(&mut self, wanted: &str) -> Result<()> {
        let deadline = Instant::now() + START;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let Ok(line) = self.output.recv_timeout(left) else {
                bail!("no line {wanted:?} on stdout; stderr:\n{}", self.stderr());
            };
            self.stdout.push_str(&line);
            if line.trim_end() == wanted {
                return Ok(());
            }
        }
    }

    fn note(&mut self, line: &str) {
        self.stderr.push_str(line);
    }

    /// Waits for a report that satisfies `wanted`, and returns it. Reports that were passed over are not
    /// examined again.
    ///
    /// # Errors
    /// The command ends before, or no such report comes within `limit`; the error has the last report.
    pub fn await_report(&mut self, limit: Duration, wanted: impl Fn(&Value) -> bool) -> Result<Value> {
        self.await_value("report", limit, wanted)
    }

    /// Waits for a flow that satisfies `wanted`, as [`await_report`](Self::await_report) for a report.
    ///
    /// # Errors
    /// As [`Agent::await_report`].
    pub fn await_flow(&mut self, limit: Duration, wanted: impl Fn(&Value) -> bool) -> Result<Value> {
        self.await_value("flow", limit, wanted)
    }

    fn await_value(&mut self, kind: &str, limit: Duration, wanted: impl Fn(&Value) -> bool) -> Result<Value> {
        let beginning = format!(r#"{{"type":"{kind}""#);
        let deadline = Instant::now() + limit;
        let mut last = Value::Null;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let Ok(line) = self.output.recv_timeout(left) else {
                bail!("no such {kind}; the last was {last}; stderr:\n{}", self.stderr());
            };
            self.stdout.push_str(&line);
            // Events can be very numerous, and few are needed.
            if !line.starts_with(&beginning) {
                continue;
            }
            let value: Value = serde_json::from_str(&line).with_context(|| format!("read {line:?}"))?;
            if wanted(&value) {
                return Ok(value);
            }
            last = value;
        }
    }

    /// Sends a signal (`libc::SIG…`) that does not end the command.
    ///
    /// # Errors
    /// The command has already ended.
    pub fn signal(&mut self, signal: i32) -> Result<()> {
        self.process.signal(signal)
    }

    /// Sends SIGINT, like Ctrl-C, and waits for the rest of the output.
    ///
    /// # Errors
    /// The command has already ended, or does not end within thirty seconds.
    pub fn stop(self) -> Result<AgentOutcome> {
        self.end_by(libc::SIGINT)
    }

    /// Like [`Agent::stop`], where the last output is long.
    ///
    /// # Errors
    /// As [`Agent::stop`], with another limit.
    pub fn stop_within(self, limit: Duration) -> Result<AgentOutcome> {
        self.end_within(libc::SIGINT, limit)
    }

    /// Sends a signal (`libc::SIG…`), and waits for the rest of the output.
    ///
    /// # Errors
    /// As [`Agent::stop`].
    pub fn end_by(self, signal: i32) -> Result<AgentOutcome> {
        self.end_within(signal, STOP)
    }

    fn end_within(mut self, signal: i32, limit: Duration) -> Result<AgentOutcome> {
        self.process.signal(signal)?;
        self.finish(limit)
    }

    /// Sends SIGKILL.
    ///
    /// # Errors
    /// The command has already ended.
    pub fn kill(self) -> Result<AgentOutcome> {
        self.end_by(libc::SIGKILL)
    }

    /// Waits until the command ends by itself (`--for`).
    ///
    /// # Errors
    /// The command has not ended after `limit`.
    pub fn wait(self, limit: Duration) -> Result<AgentOutcome> {
        self.finish(limit)
    }

    fn finish(mut self, limit: Duration) -> Result<AgentOutcome> {
        let status = self.process.wait(limit).with_context(|| format!("stderr:\n{}", self.stderr))?;
        while let Ok(line) = self.lines.recv_timeout(STOP) {
            self.note(&line);
        }
        while let Ok(line) = self.output.recv_timeout(STOP) {
            self.stdout.push_str(&line);
        }
        let Self { stdout, stderr, .. } = self;
        Ok(AgentOutcome { status, stdout, stderr })
    }
}

/// Runs `binary` with `arguments` in `namespace` to its end: for errors, help, and commands that end by
/// themselves.
///
/// # Errors
/// The command has not ended after `limit`.
pub fn run_to_end<S: AsRef<OsStr>>(
    namespace: &Namespace,
    binary: S,
    arguments: &[&str],
    limit: Duration,
) -> Result<AgentOutcome> {
    let mut command = namespace.command(binary);
    command.args(arguments);
    Agent::spawn(command, Stdio::null())?.wait(limit)
}

impl AgentOutcome {
    /// The lines of standard output as JSON values.
    ///
    /// # Errors
    /// A line is not JSON.
    pub fn values(&self) -> Result<Vec<Value>> {
        let parse = |line| serde_json::from_str(line).with_context(|| format!("read {line:?}"));
        self.stdout.lines().map(parse).collect()
    }

    /// The last report.
    ///
    /// # Errors
    /// There is no report; the error has the standard error.
    pub fn report(&self) -> Result<Value> {
        let reports = self.of_type("report")?;
        reports.into_iter().next_back().with_context(|| format!("no report; stderr:\n{}", self.stderr))
    }

    /// The flows, in the order of the output.
    ///
    /// # Errors
    /// A line of standard output is not JSON.
    pub fn flows(&self) -> Result<Vec<Value>> {
        self.of_type("flow")
    }

    fn of_type(&self, kind: &str) -> Result<Vec<Value>> {
        Ok(self.values()?.into_iter().filter(|value| value["type"] == kind).collect())
    }
}

/// Reads the lines of a pipe as they come, line ends included. A read error ends them.
fn read_lines(pipe: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, lines) = channel();
    thread::spawn(move || {
        let mut pipe = BufReader::new(pipe);
        let mut line = Vec::new();
        // Ends with the pipe, or once the receiver is dropped.
        while pipe.read_until(b'\n', &mut line).is_ok_and(|length| length > 0) {
            if sender.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                break;
            }
            line.clear();
        }
    });
    lines
}
