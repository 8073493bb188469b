//! `cargo xtask demo`: a small network, traffic of every kind, and what handshake makes of it.
//!
//! cargo runs as you. Where it takes privileges to make namespaces and to load programs, this program starts
//! itself again through sudo; where they cannot be had, the same traffic is a capture.

mod capture;
mod expect;

use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use handshake_lab::agent::Agent;
use handshake_lab::interrupt;
use handshake_lab::tcp::{self, Attempts, Listener};
use handshake_lab::topology::DEVICE;
use handshake_lab::{self as lab, Family, Namespace, Pair, Process, privilege, udp};
use serde_json::Value;

use crate::{raise, run, shell};
use expect::{ANSWERED, COMPLETED, NO_ACK, NO_SYN_ACK, REFUSED, ROUNDS, UNANSWERED, UNREACHABLE};

/// From one round of traffic to the next.
const PAUSE: Duration = Duration::from_secs(2);
/// How long handshake is shown: the last round is past `--half-open-after` by then.
const SHOWN: &str = "15s";

/// Show handshake at work in a network of its own
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The traffic as a capture, through `handshake replay`: needs no privileges
    #[arg(long)]
    replay: bool,
    /// handshake, built already: how the demo calls itself through sudo
    #[arg(long, hide = true, value_name = "PATH")]
    binary: Option<PathBuf>,
}

/// Runs the verb.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let binary = args.binary.clone().map_or_else(|| run::build(false), Ok)?;
    let missing = privilege::missing();
    let good = if args.replay {
        replay(&binary)?
    } else if missing.is_empty() {
        live(&binary)?
    } else if args.binary.is_none() && raise::is_possible() {
        return raise::raise(&binary, &missing);
    } else {
        println!("Here are missing: {}, and sudo is no way to them.", missing.join(", "));
        replay(&binary)?
    };
    println!("\n{}", if good { "All verdicts came." } else { "Not all is as expected." });
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The traffic as a capture: shown as text, then judged by the JSON report.
fn replay(binary: &Path) -> Result<bool> {
    let file = shell::root().join("target/demo.pcap");
    capture::write(&file)?;
    println!("The demo's traffic as a capture, through `handshake replay {}`.\n", file.display());
    expect::announce();
    let replay = |format: &str| {
        let mut command = Command::new(binary);
        command.arg("replay").arg(&file).args(["-o", format]);
        command
    };
    shell::run(&mut replay("text"))?;
    let report = shell::output(&mut replay("json")).context("`handshake replay -o json` failed")?;
    expect::compare(&last_report(&report)?)
}

/// The last line of JSON that is a report.
fn last_report(text: &str) -> Result<Value> {
    let values = serde_json::Deserializer::from_str(text).into_iter::<Value>();
    let reports = values.filter_map(Result::ok).filter(|value| value["type"] == "report");
    reports.last().context("handshake printed no report")
}

/// The traffic for real: two hosts and a cable between them. handshake is shown at the server's end; another one, at
/// the client's end, gives the report that is judged.
fn live(binary: &Path) -> Result<bool> {
    interrupt::catch();
    println!("Two hosts in namespaces, a cable between them; handshake on native XDP at the server's end.\n");
    expect::announce();
    let network = Pair::new()?;
    let judged = Agent::start(&network.client, binary, &["-i", DEVICE, "--hook", "xdp-native"])?;
    let mut shown = Shown::start(&network.server, binary)?;
    let kept = traffic(&network.path(Family::V4), PAUSE)?;
    shown.wait()?;
    let outcome = judged.stop()?;
    drop(kept);
    ensure!(outcome.status.success(), "handshake ended with {}:\n{}", outcome.status, outcome.stderr);
    expect::compare(&outcome.report()?)
}

/// What must stay open until the end: attempts under way, and the listeners they wait for.
type Kept = (Vec<Attempts>, Vec<Listener>);

/// All rounds, `pause` from one to the next. What is under way stays so until what is given back is dropped.
fn traffic(path: &lab::Path<'_>, pause: Duration) -> Result<Kept> {
    let listener = Listener::new(path, 0, 128)?;
    let deaf = Listener::deaf(path, 0)?;
    let (mut attempts, mut listeners) = Kept::default();
    let began = Instant::now();
    for round in 0..ROUNDS {
        interrupt::pause_until(began + pause * u32::from(round))?;
        let connections = tcp::connect_accept(path, &listener, COMPLETED.each.into())?;
        connections.talk(100)?;
        connections.close()?;
        tcp::refused(path, REFUSED.each.into())?;
        attempts.push(Attempts::start(path, deaf.address(), NO_SYN_ACK.each.into())?);
        // A port of its own: from the same addresses to the same port these were the same attempts again.
        let abandoned = Listener::new(path, 0, 128)?;
        tcp::syn_without_ack(path, abandoned.address(), NO_ACK.each)?;
        listeners.push(abandoned);
        udp::echo(path, ANSWERED.each.into(), 2, 100)?;
        udp::silence(path, UNANSWERED.each.into(), 1, 100)?;
        udp::closed(path, UNREACHABLE.each.into(), 100)?;
    }
    listeners.extend([listener, deaf]);
    Ok((attempts, listeners))
}

/// handshake as one sees it. Killed on drop.
struct Shown {
    process: Process,
}

impl Shown {
    /// Starts it, and waits until it is attached.
    fn start(namespace: &Namespace, binary: &Path) -> Result<Self> {
        let mut command = namespace.command(binary);
        command.args([
            "watch",
            "-i",
            DEVICE,
            "--hook",
            "xdp-native",
            "-o",
            "text",
            "--interval",
            "3s",
            "--for",
            SHOWN,
        ]);
        command.stdin(Stdio::null()).stderr(Stdio::piped());
        let mut process = Process::start(&mut command)?;
        let stderr = process.child().stderr.take().context("handshake's stderr")?;
        let mut lines =
            BufReader::new(stderr).lines().map_while(io::Result::ok).inspect(|line| eprintln!("{line}"));
        if !lines.any(|line| line.starts_with("attached ")) {
            bail!("handshake did not attach");
        }
        // It must not fill the pipe, nor find it closed.
        thread::spawn(move || lines.for_each(drop));
        Ok(Self { process })
    }

    /// Waits until it ends by itself.
    fn wait(&mut self) -> Result<()> {
        while self.process.child().try_wait().context("wait for handshake")?.is_none() {
            interrupt::pause_until(Instant::now() + Duration::from_millis(50))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use handshake_lab::tap::Tap;
    use handshake_lab::topology::DEVICE;
    use handshake_lab::{Family, Pair, skip_unless_privileged};

    use super::expect::{ANSWERED, COMPLETED, NO_ACK, NO_SYN_ACK, REFUSED, ROUNDS, UNANSWERED, UNREACHABLE};
    use super::{last_report, traffic};

    /// By the wire's own count, before handshake has looked at it.
    #[test]
    fn the_traffic_is_what_was_announced() {
        if skip_unless_privileged() {
            return;
        }
        let network = Pair::new().expect("two hosts");
        let mut tap = Tap::open(&network.server, DEVICE).expect("a tap");
        let kept = traffic(&network.path(Family::V4), Duration::ZERO).expect("all kinds");
        let wire = tap.traffic().expect("nothing lost").both();
        drop(kept);
        let times = |each: u8| u64::from(each) * u64::from(ROUNDS);
        assert_eq!(wire.syn, times(COMPLETED.each + REFUSED.each + NO_SYN_ACK.each + NO_ACK.each));
        assert_eq!(wire.syn_ack, times(COMPLETED.each + NO_ACK.each));
        assert_eq!(wire.rst, times(REFUSED.each));
        assert_eq!(wire.fin, times(COMPLETED.each * 2));
        assert_eq!(wire.udp, times(ANSWERED.each * 4 + UNANSWERED.each + UNREACHABLE.each));
        assert_eq!((wire.icmp, wire.other), (times(UNREACHABLE.each), 0));
    }

    #[test]
    fn the_last_report_is_the_one_that_counts() {
        let text = "{\"type\":\"report\",\"n\":1}\n{\"type\":\"flow\"}\n{\"type\":\"report\",\"n\":2}\n{\"type\":\"flow\"}\n";
        assert_eq!(last_report(text).expect("two reports")["n"], 2);
        assert!(last_report("").is_err());
    }
}
