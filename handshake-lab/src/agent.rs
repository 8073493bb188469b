//! Runs the command under test in a namespace, and gathers what it says.

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

/// Loading a large program takes the verifier a second; a busy machine several.
const START: Duration = Duration::from_secs(30);
/// A last report is due at once.
const STOP: Duration = Duration::from_secs(10);

/// `handshake watch`, attached. Killed on drop.
#[derive(Debug)]
pub struct Agent {
    process: Process,
    output: Receiver<String>,
    stdout: String,
    lines: Receiver<String>,
    stderr: String,
}

/// What a run of the command left behind.
#[derive(Debug)]
pub struct Outcome {
    /// How it ended.
    pub status: ExitStatus,
    /// All of its standard output.
    pub stdout: String,
    /// All of its standard error.
    pub stderr: String,
}

impl Agent {
    /// Starts `binary watch -o jsonl` with `arguments` in `namespace`, and waits until it has said on stderr that
    /// it is attached to as many interfaces as `arguments` has `-i`.
    ///
    /// # Errors
    /// It ends before that (the message has its standard error), or takes longer than thirty seconds.
    pub fn start<S: AsRef<OsStr>>(namespace: &Namespace, binary: S, arguments: &[&str]) -> Result<Self> {
        let mut command = namespace.command(binary);
        command.args(["watch", "-o", "jsonl"]).args(arguments);
        let interfaces = arguments.iter().filter(|argument| **argument == "-i").count().max(1);
        Self::attach(command, interfaces)
    }

    /// Starts `command`, a `watch` of any kind, and waits until it has said that it is attached to `interfaces`.
    ///
    /// # Errors
    /// As [`Agent::start`].
    pub fn attach(command: Command, interfaces: usize) -> Result<Self> {
        let mut agent = Self::spawn(command, Stdio::null())?;
        agent.await_lines("attached ", interfaces)?;
        Ok(agent)
    }

    /// The same with a standard input, for the command that a `check` runs: `cat` lasts as long as that is held.
    ///
    /// # Errors
    /// As [`Agent::start`].
    pub fn attach_fed(command: Command, interfaces: usize) -> Result<(Self, ChildStdin)> {
        let mut agent = Self::spawn(command, Stdio::piped())?;
        let stdin = agent.process.child().stdin.take().context("the agent's stdin")?;
        agent.await_lines("attached ", interfaces)?;
        Ok((agent, stdin))
    }

    fn spawn(mut command: Command, stdin: Stdio) -> Result<Self> {
        command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut process = Process::start(&mut command)?;
        let output = read_lines(process.child().stdout.take().context("the agent's stdout")?);
        let lines = read_lines(process.child().stderr.take().context("the agent's stderr")?);
        Ok(Self { process, output, stdout: String::new(), lines, stderr: String::new() })
    }

    /// Its process.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// What it has said on stderr up to now.
    pub fn stderr(&mut self) -> &str {
        while let Ok(line) = self.lines.try_recv() {
            self.note(&line);
        }
        &self.stderr
    }

    /// Waits until stderr has `count` lines that begin with `beginning`.
    ///
    /// # Errors
    /// It ends before, or takes longer than thirty seconds.
    pub fn await_lines(&mut self, beginning: &str, count: usize) -> Result<()> {
        let deadline = Instant::now() + START;
        while self.stderr.lines().filter(|line| line.starts_with(beginning)).count() < count {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) => self.note(&line),
                Err(RecvTimeoutError::Timeout) => bail!("no {beginning:?} line; it said:\n{}", self.stderr),
                Err(RecvTimeoutError::Disconnected) => {
                    let status = self.process.wait(STOP)?;
                    bail!("it ended ({status}) before a {beginning:?} line; it said:\n{}", self.stderr)
                }
            }
        }
        Ok(())
    }

    /// Waits for a line on standard output.
    ///
    /// # Errors
    /// It ends before, or takes longer than thirty seconds.
    pub fn await_output(&mut self, wanted: &str) -> Result<()> {
        let deadline = Instant::now() + START;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let Ok(line) = self.output.recv_timeout(left) else {
                bail!("no line {wanted:?} on its stdout; it said:\n{}", self.stderr());
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

    /// Waits for a report that is as `wanted`, and gives it. Reports that were passed over are not looked at again.
    ///
    /// # Errors
    /// It ends before, or none comes within `limit`: then the message has the last one.
    pub fn await_report(&mut self, limit: Duration, wanted: impl Fn(&Value) -> bool) -> Result<Value> {
        let deadline = Instant::now() + limit;
        let mut last = Value::Null;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let Ok(line) = self.output.recv_timeout(left) else {
                bail!("no such report; the last was {last}, and it said:\n{}", self.stderr());
            };
            self.stdout.push_str(&line);
            // Of events there may be very many, and none is asked for here.
            if !line.starts_with(r#"{"type":"report""#) {
                continue;
            }
            let value: Value = serde_json::from_str(&line).with_context(|| format!("read {line:?}"))?;
            if wanted(&value) {
                return Ok(value);
            }
            last = value;
        }
    }

    /// Sends it a signal of `libc::SIG…` that does not end it.
    ///
    /// # Errors
    /// It has ended already.
    pub fn signal(&mut self, signal: i32) -> Result<()> {
        self.process.signal(signal)
    }

    /// Asks it to end, as Ctrl-C does, and waits for its last words.
    ///
    /// # Errors
    /// It has ended already, or does not end within ten seconds.
    pub fn stop(self) -> Result<Outcome> {
        self.end_by(libc::SIGINT)
    }

    /// Sends it a signal of `libc::SIG…`, and waits for its last words.
    ///
    /// # Errors
    /// As [`Agent::stop`].
    pub fn end_by(mut self, signal: i32) -> Result<Outcome> {
        self.process.signal(signal)?;
        self.finish(STOP)
    }

    /// Kills it, as nothing can prevent.
    ///
    /// # Errors
    /// It has ended already.
    pub fn kill(self) -> Result<Outcome> {
        self.end_by(libc::SIGKILL)
    }

    /// Waits for it to end by itself (`--for`).
    ///
    /// # Errors
    /// It has not after `limit`.
    pub fn wait(self, limit: Duration) -> Result<Outcome> {
        self.finish(limit)
    }

    fn finish(mut self, limit: Duration) -> Result<Outcome> {
        let status = self.process.wait(limit).with_context(|| format!("it said:\n{}", self.stderr))?;
        while let Ok(line) = self.lines.recv_timeout(STOP) {
            self.note(&line);
        }
        while let Ok(line) = self.output.recv_timeout(STOP) {
            self.stdout.push_str(&line);
        }
        let Self { stdout, stderr, .. } = self;
        Ok(Outcome { status, stdout, stderr })
    }
}

/// Runs `binary` with `arguments` in `namespace` to its end: for errors, help, and commands that end by themselves.
///
/// # Errors
/// It has not ended after `limit`.
pub fn run_to_end<S: AsRef<OsStr>>(
    namespace: &Namespace,
    binary: S,
    arguments: &[&str],
    limit: Duration,
) -> Result<Outcome> {
    let mut command = namespace.command(binary);
    command.args(arguments);
    Agent::spawn(command, Stdio::null())?.wait(limit)
}

impl Outcome {
    /// The lines of standard output, each a JSON value.
    ///
    /// # Errors
    /// One is none.
    pub fn values(&self) -> Result<Vec<Value>> {
        let parse = |line| serde_json::from_str(line).with_context(|| format!("read {line:?}"));
        self.stdout.lines().map(parse).collect()
    }

    /// The last report.
    ///
    /// # Errors
    /// There is none; then the message has what was said on stderr.
    pub fn report(&self) -> Result<Value> {
        let reports = self.of_type("report")?;
        reports.into_iter().next_back().with_context(|| format!("no report; it said:\n{}", self.stderr))
    }

    /// The flows, in the order they were written.
    ///
    /// # Errors
    /// Standard output is not JSON, line by line.
    pub fn flows(&self) -> Result<Vec<Value>> {
        self.of_type("flow")
    }

    fn of_type(&self, kind: &str) -> Result<Vec<Value>> {
        Ok(self.values()?.into_iter().filter(|value| value["type"] == kind).collect())
    }
}

/// The lines of a pipe as they come, each with its end; a pipe that breaks gives what it gave.
fn read_lines(pipe: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, lines) = channel();
    thread::spawn(move || {
        let mut pipe = BufReader::new(pipe);
        let mut line = Vec::new();
        // Ends with the pipe, or when nobody listens any more.
        while pipe.read_until(b'\n', &mut line).is_ok_and(|length| length > 0) {
            if sender.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                break;
            }
            line.clear();
        }
    });
    lines
}
