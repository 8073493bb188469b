//! Interfaces that come and go while others are watched: veth interfaces that live for a few connections, and
//! many at once.
//!
//! ```text
//! client eth0 ───── eth0 server       connections without a pause, all the time
//! peer   far0 ───── hsv0 server       a few connections, then it is deleted and the next one is made
//! ```

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path as FilePath;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use handshake_common::flow::Family;
use serde_json::Value;

use crate::agent::Agent;
use crate::frame::Mac;
use crate::namespace::Namespace;
use crate::process::{self, Process};
use crate::tap::Tap;
use crate::tcp::{Listener, connect_accept, connect_until};
use crate::topology::{DEVICE, Pair, Path};

/// Connections of each short-lived interface.
const CONNECTIONS: usize = 3;
/// The limit for one report with the figures that are waited for.
const TIMEOUT: Duration = Duration::from_secs(20);

/// What a run of short-lived interfaces showed.
#[derive(Debug)]
pub struct Churn {
    /// The interfaces that came and went.
    pub interfaces: u64,
    /// The connections over them.
    pub connections: u64,
    /// The connections over the interface that stayed.
    pub beside: u64,
    /// The longest time from the moment at which an interface was there until it was attached to.
    pub slowest: Duration,
}

/// Lets `count` interfaces come and go under traffic, beside one that stays, and compares the books of
/// `binary` with what was done: every attempt has its verdict, and each interface its packets.
///
/// # Errors
/// A figure differs; iproute2 or a connection fails.
pub fn come_and_go(binary: &FilePath, count: usize) -> Result<Churn> {
    let (pair, peer) = (Pair::new()?, Namespace::new()?);
    // More connections than the client has ports, within the minute of TIME-WAIT.
    pair.client.sysctl("net.ipv4.tcp_tw_reuse", "1")?;
    let mut tap = Tap::open(&pair.server, DEVICE)?;
    let mut agent =
        Agent::attach(watch(&pair.server, binary, &["-i", DEVICE, "-i", "hsv*", "--interval", "200ms"]), 1)?;
    let path = pair.path(Family::V4);
    let listener = Listener::new(&path, 0, 128)?;
    let done = AtomicBool::new(false);
    let (beside, short) = thread::scope(|scope| {
        let beside = scope.spawn(|| connect_until(&path, &listener, &done));
        let short = short_lives(&pair.server, &peer, &mut agent, &mut tap, count);
        done.store(true, Ordering::Relaxed);
        (beside.join(), short)
    });
    let slowest = short?;
    let beside = beside.map_err(|_| anyhow::anyhow!("the connections beside panicked"))??.len() as u64;
    let (interfaces, connections) = (count as u64, (count * CONNECTIONS) as u64);
    let all = beside + connections;
    let of = |report: &Value, path: &str| report.pointer(path).and_then(Value::as_u64);
    let report = agent
        .await_report(TIMEOUT, |report| {
            of(report, "/tcp/completed") == Some(all)
                && of(report, "/source/gone/interfaces") == Some(interfaces)
        })
        .with_context(|| format!("{all} connections and {interfaces} interfaces that are gone"))?;
    for (figure, wanted) in [
        ("/tcp/attempts", all),
        ("/source/gone/packets/syn", connections),
        ("/source/gone/packets/syn_ack", connections),
        ("/source/interfaces/0/packets/syn", tap.traffic()?.both().syn),
    ] {
        ensure!(of(&report, figure) == Some(wanted), "{figure} is not {wanted}: {report}");
    }
    ensure!(report["exact"] == true, "nothing was lost: {report}");
    ensure!(report["source"]["interfaces"].as_array().is_some_and(|all| all.len() == 1), "{report}");
    let outcome = agent.stop()?;
    ensure!(outcome.status.success(), "{outcome:?}");
    Ok(Churn { interfaces, connections, beside, slowest })
}

fn watch(host: &Namespace, binary: &FilePath, arguments: &[&str]) -> std::process::Command {
    let mut command = host.command(binary);
    command.args(["watch", "-o", "jsonl"]).args(arguments);
    command
}

/// Makes the interfaces one after the other, and reads the tap meanwhile. Returns the longest time until one
/// was attached to.
fn short_lives(
    server: &Namespace,
    peer: &Namespace,
    agent: &mut Agent,
    tap: &mut Tap,
    count: usize,
) -> Result<Duration> {
    let mut slowest = Duration::ZERO;
    for number in 0..count {
        let name = format!("hsv{number}");
        let made = make(server, peer, &name)?;
        agent.await_lines(&format!("attached {name}:"), 1)?;
        slowest = slowest.max(made.elapsed());
        let path = short_path(server, peer);
        let listener = Listener::new(&path, 0, 16)?;
        connect_accept(&path, &listener, CONNECTIONS)?.close()?;
        server.ip(&[&format!("link del {name}")])?;
        tap.traffic()?;
    }
    Ok(slowest)
}

/// Makes a veth pair between two hosts, `name` at the server; returns when it was there.
///
/// # Errors
/// iproute2 fails.
pub fn make(server: &Namespace, peer: &Namespace, name: &str) -> Result<Instant> {
    server.ip(&[&format!("link add {name} type veth peer name far0 netns {}", peer.name())])?;
    let made = Instant::now();
    server.ip(&[&format!("addr add 10.99.0.2/24 dev {name}"), &format!("link set {name} up")])?;
    peer.ip(&["addr add 10.99.0.1/24 dev far0", "link set far0 up"])?;
    Ok(made)
}

/// The way over such a pair.
#[must_use]
pub fn short_path<'a>(server: &'a Namespace, peer: &'a Namespace) -> Path<'a> {
    Path {
        client: peer,
        server,
        device: "far0",
        // Of frames that a test makes itself, and here the kernel makes all.
        macs: [Mac([2, 0, 0, 0, 0, 1]), Mac([2, 0, 0, 0, 0, 2])],
        source: IpAddr::V4(Ipv4Addr::new(10, 99, 0, 1)),
        destination: IpAddr::V4(Ipv4Addr::new(10, 99, 0, 2)),
        unassigned: None,
    }
}

/// Kills `binary` at `count` moments between its start and some time after it has attached, on one hook after
/// the other, and looks at the interfaces for what it has left. Filters of clsact stay, and go with the next
/// run.
///
/// # Errors
/// A program is left.
pub fn kill(binary: &FilePath, count: u32) -> Result<()> {
    const HOOKS: [&str; 3] = ["tcx", "xdp-generic", "clsact"];
    /// Its multiples lie evenly between whole numbers, however many there are: 1 / golden ratio.
    const SPREAD: f64 = 0.618_034;
    let host = crowded(2)?;
    let watch = |hook| watch(&host, binary, &["-i", "hsv*", "--hook", hook]);
    let began = Instant::now();
    let agent = Agent::attach(watch("tcx"), 2)?;
    let longest = began.elapsed() * 3 / 2;
    ensure!(agent.stop()?.status.success());
    for (number, hook) in (0..count).zip(HOOKS.iter().cycle()) {
        let moment = longest.mul_f64((f64::from(number) * SPREAD).fract());
        let mut process = Process::start(watch(hook).stdout(Stdio::null()).stderr(Stdio::null()))?;
        thread::sleep(moment);
        process.signal(libc::SIGKILL)?;
        process.wait(TIMEOUT)?;
        if *hook != "clsact" {
            ensure_free(&host, binary).with_context(|| format!("by {hook}, killed after {moment:?}"))?;
        }
    }
    ensure!(Agent::attach(watch("clsact"), 2)?.stop()?.status.success());
    ensure_free(&host, binary)
}

/// Fails unless no program of handshake is on an interface, by what `doctor` finds there.
fn ensure_free(host: &Namespace, binary: &FilePath) -> Result<()> {
    let found = process::output(host.command(binary).args(["doctor", "-i", "hsv*"]))?;
    let found = String::from_utf8_lossy(&found.stdout).into_owned();
    ensure!(found.contains("hsv1: TCX is available"), "doctor has looked: {found}");
    ensure!(!found.contains("handshake_") && !found.contains("clsact"), "{found}");
    Ok(())
}

/// A host with so many interfaces `hsvN`, each with its peer.
///
/// # Errors
/// iproute2 fails.
pub fn crowded(count: usize) -> Result<Namespace> {
    let host = Namespace::new()?;
    let lines: Vec<String> =
        (0..count).map(|number| format!("link add hsv{number} type veth peer name hsw{number}")).collect();
    host.ip(&lines.iter().map(String::as_str).collect::<Vec<_>>())?;
    Ok(host)
}

/// What many interfaces at once cost.
#[derive(Debug)]
pub struct Crowd {
    /// The interfaces.
    pub interfaces: usize,
    /// The time from the start of the command until it was attached to all.
    pub start: Duration,
    /// The time from the signal until it had ended.
    pub end: Duration,
    /// The CPU time of a report while no packet comes: one per second.
    pub report: Duration,
}

/// Watches `count` interfaces at once by a pattern for some seconds, without traffic.
///
/// # Errors
/// The command does not attach to all, or a report is not exact.
pub fn at_once(binary: &FilePath, count: usize) -> Result<Crowd> {
    const SECONDS: u32 = 5;
    let host = crowded(count)?;
    let began = Instant::now();
    let mut agent = Agent::attach(watch(&host, binary, &["-i", "hsv*"]), count)?;
    let start = began.elapsed();
    agent.await_report(TIMEOUT, |_| true)?;
    let (before, since) = (cpu_time(agent.id())?, Instant::now());
    thread::sleep(Duration::from_secs(1) * SECONDS);
    let used = cpu_time(agent.id())?.saturating_sub(before);
    let report_time = used.div_f64(since.elapsed().as_secs_f64());
    let report = agent.await_report(TIMEOUT, |_| true)?;
    let listed = report["source"]["interfaces"].as_array().map_or(0, Vec::len);
    ensure!(listed == count && report["exact"] == true, "{listed} of {count}: {report}");
    let ended = Instant::now();
    let outcome = agent.stop()?;
    ensure!(outcome.status.success(), "{outcome:?}");
    Ok(Crowd { interfaces: count, start, end: ended.elapsed(), report: report_time })
}

/// The CPU time that a process has used: the first field of schedstat, ns
/// (Documentation/scheduler/sched-stats).
fn cpu_time(pid: u32) -> Result<Duration> {
    let path = format!("/proc/{pid}/schedstat");
    let text = std::fs::read_to_string(&path).with_context(|| path.clone())?;
    let ns =
        text.split(' ').next().and_then(|ns| ns.parse().ok()).with_context(|| format!("{path}: {text}"))?;
    Ok(Duration::from_nanos(ns))
}
