//! `cargo xtask demo`: a small network, traffic of every kind, and handshake's verdicts on it.
//!
//! cargo runs unprivileged. Where namespaces and programs need privileges, this program restarts itself
//! through sudo; where privileges are not available, it replays the same traffic from a capture.

mod capture;

use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use handshake_lab::agent::Agent;
use handshake_lab::demo::{PAUSE, announce, compare, traffic};
use handshake_lab::topology::DEVICE;
use handshake_lab::{Family, Namespace, Pair, Process, interrupt, privilege};
use serde_json::Value;

use crate::{raise, run, shell};

/// How long handshake's output is shown: by then the last round is older than `--half-open-after`.
const SHOWN: &str = "15s";

/// Show handshake at work in a network made for it
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Replay the traffic from a capture with `handshake replay`; needs no privileges
    #[arg(long)]
    replay: bool,
    /// The handshake binary, already built; the demo passes it to itself through sudo
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
        println!(
            "missing: {}; sudo is not usable, so the same traffic is replayed from a capture",
            missing.join(", ")
        );
        replay(&binary)?
    };
    println!(
        "\n{}",
        if good { "All verdicts are as expected." } else { "Some verdicts are not as expected." }
    );
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Replays the traffic from a capture: shows the report as text, then compares the JSON report.
fn replay(binary: &Path) -> Result<bool> {
    let file = shell::root().join("target/demo.pcap");
    capture::write(&file)?;
    println!("The demo's traffic from a capture: `handshake replay {}`.\n", file.display());
    announce();
    let replay = |format: &str| {
        let mut command = Command::new(binary);
        command.arg("replay").arg(&file).args(["-o", format]);
        command
    };
    shell::run(&mut replay("text"))?;
    let report = shell::output(&mut replay("json")).context("`handshake replay -o json` failed")?;
    compare(&last_report(&report)?)
}

/// The last report among the lines of JSON.
fn last_report(text: &str) -> Result<Value> {
    let values = serde_json::Deserializer::from_str(text).into_iter::<Value>();
    let reports = values.filter_map(Result::ok).filter(|value| value["type"] == "report");
    reports.last().context("handshake printed no report")
}

/// Sends the traffic for real: two hosts and a cable between them. handshake's output is shown from the
/// server's end; a second agent at the client's end gives the report that is compared.
fn live(binary: &Path) -> Result<bool> {
    interrupt::catch();
    println!(
        "Two hosts in namespaces with a cable between them; handshake on native XDP at the server's end.\n"
    );
    announce();
    let network = Pair::new()?;
    let judged = Agent::start(&network.client, binary, &["-i", DEVICE, "--hook", "xdp-native"])?;
    let mut shown = ShownAgent::start(&network.server, binary)?;
    let sockets = traffic(&network.path(Family::V4), PAUSE)?;
    shown.wait()?;
    let outcome = judged.stop()?;
    drop(sockets);
    ensure!(outcome.status.success(), "handshake ended with {}:\n{}", outcome.status, outcome.stderr);
    compare(&outcome.report()?)
}

/// The handshake whose output is shown. Killed on drop.
struct ShownAgent {
    process: Process,
}

impl ShownAgent {
    /// Starts handshake and waits until it is attached.
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
        // Keeps reading: handshake must find the pipe neither full nor closed.
        thread::spawn(move || lines.for_each(drop));
        Ok(Self { process })
    }

    /// Waits until handshake exits by itself.
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

    use handshake_lab::demo::{
        ANSWERED, COMPLETED, NO_ACK, NO_SYN_ACK, REFUSED, ROUNDS, UNANSWERED, UNREACHABLE, traffic,
    };

    use super::last_report;

    /// Counted on the wire, independently of handshake.
    #[test]
    fn the_traffic_matches_the_announced_counts() {
        if skip_unless_privileged() {
            return;
        }
        let network = Pair::new().expect("two hosts");
        let mut tap = Tap::open(&network.server, DEVICE).expect("a tap");
        let sockets = traffic(&network.path(Family::V4), Duration::ZERO).expect("all kinds of traffic");
        let wire = tap.traffic().expect("nothing lost").both();
        drop(sockets);
        let times = |each: u8| u64::from(each) * u64::from(ROUNDS);
        assert_eq!(wire.syn, times(COMPLETED.each + REFUSED.each + NO_SYN_ACK.each + NO_ACK.each));
        assert_eq!(wire.syn_ack, times(COMPLETED.each + NO_ACK.each));
        assert_eq!(wire.rst, times(REFUSED.each));
        assert_eq!(wire.fin, times(COMPLETED.each * 2));
        assert_eq!(wire.udp, times(ANSWERED.each * 4 + UNANSWERED.each + UNREACHABLE.each));
        assert_eq!((wire.icmp, wire.other), (times(UNREACHABLE.each), 0));
    }

    #[test]
    fn the_last_report_is_used() {
        let text = "{\"type\":\"report\",\"n\":1}\n{\"type\":\"flow\"}\n{\"type\":\"report\",\"n\":2}\n{\"type\":\"flow\"}\n";
        assert_eq!(last_report(text).expect("two reports")["n"], 2);
        assert!(last_report("").is_err());
    }
}
