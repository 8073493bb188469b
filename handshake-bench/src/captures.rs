//! The rows `replay_*`: `handshake replay` over a capture, beside the filter pass of tcpdump and, where it is
//! installed, tshark over the same file.
//!
//! Each round runs both on one CPU, and a figure is CPU time with that of the system. tshark runs once: it
//! takes a hundred times as long.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use crate::cpu;
use crate::frames;
use crate::number::{mark, tenth};
use crate::statistics::Summary;

/// A capture to replay, and its goal.
#[derive(Clone, Copy)]
pub(crate) struct CaptureCase {
    /// The row's name.
    pub(crate) name: &'static str,
    write: fn(&mut CaptureFile) -> Result<()>,
    /// Attempts in it.
    attempts: u64,
    goal: Goal,
}

/// What is wanted of a row.
#[derive(Clone, Copy, PartialEq)]
enum Goal {
    /// At most so many times tcpdump's CPU time.
    Times(f64),
    /// At most so many bytes of memory.
    Bytes(u64),
}

const BULK_PACKETS: u32 = 300_000;
const CONNECTIONS: u32 = 100_000;
const FLOWS6: u32 = 1_000_000;

/// All rows.
pub(crate) const CASES: [CaptureCase; 3] = [
    CaptureCase { name: "replay_bulk", write: bulk, attempts: 1, goal: Goal::Times(1.2) },
    CaptureCase {
        name: "replay_flows",
        write: connections,
        attempts: CONNECTIONS as u64,
        goal: Goal::Times(4.0),
    },
    CaptureCase {
        name: "replay_flows6",
        write: flows6,
        attempts: FLOWS6 as u64,
        goal: Goal::Bytes(400 << 20),
    },
];

/// One connection that sends: of three frames two are full, and one is an ACK back.
fn bulk(file: &mut CaptureFile) -> Result<()> {
    const FULL: u16 = 1_448;
    let client = frames::CLIENT4;
    for frame in frames::connection(client)[..3].iter() {
        file.add(frame)?;
    }
    let (data, ack) = (frames::data(client, FULL), frames::ack_back(client));
    (0..BULK_PACKETS).try_for_each(|n| file.add(if n % 3 == 2 { &ack } else { &data }))
}

/// Connections of six segments, one after the other.
fn connections(file: &mut CaptureFile) -> Result<()> {
    (0..CONNECTIONS).try_for_each(|n| {
        frames::connection(frames::CLIENT4 + n).iter().try_for_each(|frame| file.add(frame))
    })
}

/// SYNs of as many IPv6 addresses.
fn flows6(file: &mut CaptureFile) -> Result<()> {
    (0..FLOWS6).try_for_each(|n| file.add(&frames::syn6(n)))
}

/// A pcap file that is being written; it is removed when dropped.
struct CaptureFile {
    path: PathBuf,
    to: BufWriter<File>,
    packets: u32,
}

impl CaptureFile {
    fn new(name: &str) -> Result<Self> {
        let path = std::env::temp_dir().join(format!("handshake-{name}-{}.pcap", std::process::id()));
        let to = File::create(&path).with_context(|| format!("write {}", path.display()))?;
        let mut file = Self { path, to: BufWriter::new(to), packets: 0 };
        for word in [0xa1b2_c3d4, 4 << 16 | 2, 0, 0, 65_535, 1_u32] {
            file.to.write_all(&word.to_le_bytes())?;
        }
        Ok(file)
    }

    /// Adds a frame 10 µs after the one before it.
    fn add(&mut self, frame: &[u8]) -> Result<()> {
        const EACH_SECOND: u32 = 100_000;
        let length = u32::try_from(frame.len())?;
        let seconds = 1_700_000_000 + self.packets / EACH_SECOND;
        for word in [seconds, self.packets % EACH_SECOND * 10, length, length] {
            self.to.write_all(&word.to_le_bytes())?;
        }
        self.packets += 1;
        Ok(self.to.write_all(frame)?)
    }
}

impl Drop for CaptureFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

impl CaptureCase {
    /// Writes the capture and measures. `handshake` is the release build of the command.
    pub(crate) fn measure(self, handshake: &Path, rounds: u32) -> Result<CaptureRow> {
        let mut file = CaptureFile::new(self.name)?;
        (self.write)(&mut file)?;
        file.to.flush()?;
        let path = &file.path;
        let replay = || {
            let mut command = Command::new(handshake);
            command.arg("replay").arg(path);
            command
        };
        self.check(replay())?;
        let cpu = cpu::two()?[1];
        let (mut ours, mut tcpdump, mut memory) = (Vec::new(), Vec::new(), 0);
        for _ in 0..rounds {
            let mut filter = Command::new("tcpdump");
            filter.arg("-r").arg(path).args(["-w", "/dev/null", "tcp[13]&2!=0"]);
            tcpdump.push(spent(&mut filter, cpu)?.0.as_secs_f64() * 1e3);
            let (time, bytes) = spent(&mut replay(), cpu)?;
            ours.push(time.as_secs_f64() * 1e3);
            memory = memory.max(bytes);
        }
        let mut tshark = Command::new("tshark");
        tshark.arg("-n").arg("-r").arg(path).args(["-Y", "tcp.flags.syn == 1", "-w", "/dev/null"]);
        let has_tshark = Command::new("tshark").arg("-v").stdout(Stdio::null()).status().is_ok();
        let tshark = if has_tshark { Some(spent(&mut tshark, cpu)?.0) } else { None };
        Ok(CaptureRow {
            case: self,
            packets: file.packets,
            ours: Summary::of(&ours),
            tcpdump: Summary::of(&tcpdump),
            tshark_ms: tshark.map(|time| time.as_secs_f64() * 1e3),
            memory,
            rounds: ours.len(),
        })
    }

    /// Fails unless the replay finds every attempt.
    fn check(self, mut replay: Command) -> Result<()> {
        let output = replay.args(["-o", "json"]).output().context("replay the capture")?;
        let report: Value = serde_json::from_slice(&output.stdout).context("read the report")?;
        let (attempts, exact) = (report["tcp"]["attempts"].as_u64(), report["exact"].as_bool());
        ensure!((attempts, exact) == (Some(self.attempts), Some(true)), "{}: {report}", self.name);
        Ok(())
    }
}

/// Runs a command on a CPU; returns its CPU time, and its memory at the peak in bytes.
fn spent(command: &mut Command, cpu: usize) -> Result<(Duration, u64)> {
    let name = command.get_program().to_string_lossy().into_owned();
    command.stdout(Stdio::null()).stderr(Stdio::null());
    // SAFETY: between fork and exec the child makes one system call, which takes a local set of bits.
    unsafe { command.pre_exec(move || cpu::pin(cpu).map_err(std::io::Error::other)) };
    let child = command.spawn().with_context(|| format!("start {name}"))?;
    let id = libc::pid_t::try_from(child.id())?;
    let mut status = 0;
    // SAFETY: zeros are a value of this plain structure, and the kernel writes it and the status, both local;
    // the child is not waited for elsewhere.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        ensure!(libc::wait4(id, &raw mut status, 0, &raw mut usage) == id, "wait for {name}");
        usage
    };
    let status = ExitStatus::from_raw(status);
    ensure!(status.success(), "{name}: {status}");
    let time = |time: libc::timeval| -> Result<Duration> {
        Ok(Duration::from_secs(u64::try_from(time.tv_sec)?)
            + Duration::from_micros(u64::try_from(time.tv_usec)?))
    };
    Ok((time(usage.ru_utime)? + time(usage.ru_stime)?, u64::try_from(usage.ru_maxrss)? << 10))
}

/// A row's figures, in ms of CPU time.
pub(crate) struct CaptureRow {
    case: CaptureCase,
    packets: u32,
    ours: Summary,
    tcpdump: Summary,
    tshark_ms: Option<f64>,
    /// Of the replay, at its peak, in bytes.
    memory: u64,
    rounds: usize,
}

impl CaptureRow {
    /// The replay's time as a multiple of tcpdump's.
    fn ratio(&self) -> f64 {
        self.ours.median / self.tcpdump.median
    }

    fn is_met(&self) -> bool {
        match self.case.goal {
            Goal::Times(most) => self.ratio() <= most,
            Goal::Bytes(most) => self.memory <= most,
        }
    }

    pub(crate) fn json(&self) -> Value {
        let (times, bytes) = match self.case.goal {
            Goal::Times(most) => (Some(most), None),
            Goal::Bytes(most) => (None, Some(most)),
        };
        json!({
            "name": self.case.name, "unit": "ms", "packets": self.packets, "flows": self.case.attempts,
            "ms": tenth(self.ours.median), "least_ms": tenth(self.ours.least),
            "tcpdump_ms": tenth(self.tcpdump.median), "least_tcpdump_ms": tenth(self.tcpdump.least),
            "ratio": tenth(self.ratio()), "tshark_ms": self.tshark_ms.map(tenth),
            "memory_bytes": self.memory, "goal_ratio": times, "goal_bytes": bytes, "met": self.is_met(),
            "rounds": self.rounds,
        })
    }

    pub(crate) const HEAD: [&str; 7] = ["row", "CPU", "tcpdump", "ratio", "tshark", "memory", "goal"];

    pub(crate) fn line(&self) -> [String; 7] {
        let goal = match self.case.goal {
            Goal::Times(most) => format!("≤ {most} times"),
            Goal::Bytes(most) => format!("≤ {} MiB", most >> 20),
        };
        [
            self.case.name.to_owned(),
            format!("{:.0} ms", self.ours.median),
            format!("{:.0} ms", self.tcpdump.median),
            format!("{:.2}", self.ratio()),
            self.tshark_ms.map_or_else(|| "-".to_owned(), |ms| format!("{ms:.0} ms")),
            format!("{} MiB", self.memory.div_ceil(1 << 20)),
            format!("{goal}{}", mark(self.is_met())),
        ]
    }
}
