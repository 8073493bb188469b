//! What `cargo xtask kernels` runs inside a machine: networks of namespaces and the demo's traffic, watched by
//! the handshake of that machine.
//!
//! ```text
//! guest demo HOOK         the demo's scenario: the last report, and what the verifier had to do
//! guest link KIND HOOK    connections over a device on top of the cable: a tap's count, and the last report
//! guest soak MINUTES      the demo's traffic over and over: the agent's memory each minute, and the last report
//! ```
//!
//! Nothing is judged here: the machine's console is read by the one who has started it.

use std::collections::BTreeSet;
use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use handshake_lab::agent::{Agent, AgentOutcome};
use handshake_lab::demo::{PAUSE, SETTLED, traffic};
use handshake_lab::links::{LinkKind, Linked, TOP};
use handshake_lab::tap::Tap;
use handshake_lab::topology::DEVICE;
use handshake_lab::{Family, Pair, tcp};

/// The program that is tried.
const HANDSHAKE: &str = "/bin/handshake";

fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["demo", hook] => demo(hook),
        ["link", kind, hook] => link(kind, hook),
        ["soak", minutes] => soak(minutes.parse().context("minutes")?),
        _ => bail!("guest demo HOOK, guest link KIND HOOK, guest soak MINUTES"),
    }
}

/// The demo's scenario over a veth pair, watched at the client's end.
fn demo(hook: &str) -> Result<()> {
    let network = Pair::new()?;
    let mut agent = Agent::start(&network.client, HANDSHAKE, &["-v", "-i", DEVICE, "--hook", hook])?;
    println!("verified: {}", verified(agent.id())?);
    println!("{}", agent.stderr().trim_end());
    let sockets = traffic(&network.path(Family::V4), PAUSE)?;
    thread::sleep(SETTLED);
    let outcome = agent.stop()?;
    drop(sockets);
    print_report(&outcome)
}

/// The instructions that the verifier processed for each of a process's programs.
fn verified(process: u32) -> Result<String> {
    const MARK: &str = "verified_insns:";
    let mut numbers = BTreeSet::new();
    for entry in fs::read_dir(format!("/proc/{process}/fdinfo")).context("list the agent's descriptors")? {
        let text = fs::read_to_string(entry?.path()).unwrap_or_default();
        numbers.extend(text.lines().find_map(|line| line.strip_prefix(MARK)?.trim().parse::<u64>().ok()));
    }
    Ok(numbers.into_iter().map(|number| number.to_string()).collect::<Vec<_>>().join(", "))
}

fn print_report(outcome: &AgentOutcome) -> Result<()> {
    ensure!(outcome.status.success(), "handshake ended with {}:\n{}", outcome.status, outcome.stderr);
    println!("{}", outcome.report()?);
    Ok(())
}

/// Connections and refusals over a device of this kind.
fn link(kind: &str, hook: &str) -> Result<()> {
    const CONNECTIONS: usize = 10;
    let kind = LinkKind::ALL.into_iter().find(|it| it.name() == kind).context("no such kind")?;
    let network = Linked::new(kind)?;
    let path = network.path();
    let agent = Agent::start(network.client(), HANDSHAKE, &["-i", TOP, "--hook", hook])?;
    println!("verified: {}", verified(agent.id())?);
    // The device's own count has the messages of a tunnel in it, which no hook of the device sees.
    let mut tap = Tap::open(network.client(), TOP)?;
    let listener = tcp::Listener::new(&path, 0, 128)?;
    let connections = tcp::connect_accept(&path, &listener, CONNECTIONS)?;
    connections.talk(100)?;
    connections.close()?;
    tcp::refused(&path, CONNECTIONS)?;
    thread::sleep(Duration::from_secs(1));
    println!("packets: {}", tap.traffic()?.both().total());
    print_report(&agent.stop()?)
}

/// Connections and refusals without a pause but a short one, until the minutes are over.
fn soak(minutes: u64) -> Result<()> {
    /// Between two bursts: an emulated machine has the rest of the time for itself.
    const REST: Duration = Duration::from_millis(200);
    const BURST: usize = 10;
    /// Two emulated machines share what this one has.
    const END: Duration = Duration::from_secs(300);
    let network = Pair::new()?;
    let path = network.path(Family::V4);
    let mut agent = Agent::start(&network.client, HANDSHAKE, &["-i", DEVICE, "--interval", "10s"])?;
    // Two services all the time: each new one takes memory until the rows of the table are used up.
    let (listener, closed) = (tcp::Listener::new(&path, 0, 128)?, tcp::ClosedPort::new(&path)?);
    let began = Instant::now();
    for minute in 0..=minutes {
        println!("minute {minute}: {} KiB", resident(agent.id())?);
        while minute < minutes && began.elapsed() < Duration::from_secs(60 * (minute + 1)) {
            let connections = tcp::connect_accept(&path, &listener, BURST)?;
            connections.talk(100)?;
            connections.close()?;
            closed.refuse(&path, BURST)?;
            thread::sleep(REST);
        }
    }
    agent.signal(libc::SIGINT)?;
    print_report(&agent.wait(END)?)
}

/// What a process has in memory, in KiB.
fn resident(process: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).context("read the agent's status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    line.trim().trim_end_matches(" kB").parse().context("VmRSS")
}
