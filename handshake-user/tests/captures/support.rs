//! Finds the captures and runs the command on them.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::thread;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

/// The command under test.
pub(crate) const HANDSHAKE: &str = env!("CARGO_BIN_EXE_handshake");

/// The captures sorted by name. If there are none, prints so and returns `None`.
pub(crate) fn captures() -> Option<Vec<PathBuf>> {
    let mut paths: Vec<_> = fs::read_dir(folder())
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "pcap"))
        .collect();
    paths.sort();
    if paths.is_empty() {
        skip("no captures");
        return None;
    }
    Some(paths)
}

/// The folder of the captures and their expected results.
pub(crate) fn folder() -> PathBuf {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/captures");
    std::env::var_os("HANDSHAKE_CAPTURES").map_or(beside, PathBuf::from)
}

/// Applies `work` to each of `items`, several at a time. Returns the results in order, or the first error.
pub(crate) fn in_parallel<I: Sync, T: Send>(
    items: &[I],
    work: impl Fn(&I) -> Result<T> + Sync,
) -> Result<Vec<T>> {
    const THREADS: usize = 8;
    let next = AtomicUsize::new(0);
    let done = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                while let Some((at, item)) =
                    Some(next.fetch_add(1, Relaxed)).and_then(|at| Some((at, items.get(at)?)))
                {
                    let made = work(item);
                    done.lock().unwrap_or_else(PoisonError::into_inner).push((at, made));
                }
            });
        }
    });
    let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.sort_by_key(|(at, _)| *at);
    done.into_iter().map(|(_, made)| made).collect()
}

/// A capture's file name, for messages.
pub(crate) fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Prints why the test is skipped, and counts it as skipped.
pub(crate) fn skip(reason: &str) {
    let line = format!("skipped: {reason}\n");
    // Not eprintln!: the test harness would capture it.
    let _ = std::io::stderr().write_all(line.as_bytes());
    if let Some(log) = std::env::var_os("HANDSHAKE_SKIP_LOG") {
        let log = fs::OpenOptions::new().append(true).create(true).open(log);
        let _ = log.and_then(|mut log| log.write_all(line.as_bytes()));
    }
}

/// The output of `replay -o jsonl --flows`.
#[derive(Debug)]
pub(crate) struct Replayed {
    /// The closing report.
    pub(crate) report: Value,
    /// All flows, in the order of their first packets.
    pub(crate) flows: Vec<Value>,
}

impl Replayed {
    /// The flows of one protocol.
    pub(crate) fn of(&self, protocol: &str) -> Vec<&Value> {
        self.flows.iter().filter(|flow| flow["protocol"] == protocol).collect()
    }
}

/// Replays a capture with additional options.
pub(crate) fn replay(path: &Path, more: &[&str]) -> Result<Replayed> {
    let output = run_replay(path, &[&["-o", "jsonl", "--flows"], more].concat())?;
    let text = String::from_utf8(output.stdout).context("read the flows")?;
    let mut values = text.lines().map(serde_json::from_str).collect::<Result<Vec<Value>, _>>()?;
    let report = values.pop().context("no report")?;
    ensure!(report["type"] == "report", "the last line is {report}");
    values.iter().chain([&report]).try_for_each(handshake_lab::schema::check)?;
    Ok(Replayed { report, flows: values })
}

/// Runs `replay` to its end, which must succeed.
pub(crate) fn run_replay(path: &Path, more: &[&str]) -> Result<Output> {
    let output =
        Command::new(HANDSHAKE).arg("replay").arg(path).args(more).output().context("start replay")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "replay {}: {}, {said}", path.display(), output.status);
    Ok(output)
}

/// Formats an end of a flow like the expected results: `192.0.2.1:80`, `[2001:db8::1]:80`.
pub(crate) fn end(end: &Value) -> String {
    let address = end["address"].as_str().unwrap_or_default();
    let port = &end["port"];
    if address.contains(':') { format!("[{address}]:{port}") } else { format!("{address}:{port}") }
}
