//! A fleet: three real agents and many made ones behind one Prometheus with the rules of the repository,
//! and an incident that is planted. And the rows of as many nodes, in a server of ClickHouse.
//!
//! ```text
//! client ───── router ───── server :443       an agent on each, and real traffic
//!                │
//!                ├─ Prometheus, its rules ──▶ no alert, then exactly one
//!                ├─ made nodes: one process
//!                └─ ClickHouse ◀── rows
//! ```

mod clickhouse;

use std::fmt;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path as FilePath, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use crate::agent::Agent;
use crate::interrupt::pause_until;
use crate::process::Process;
use crate::prometheus::Prometheus;
use crate::tcp::{self, Listener};
use crate::topology::{DEVICE, FAR_DEVICE, Path, Routed};
use crate::{Family, Namespace};

pub use clickhouse::rows;

/// The name and the port of the service that has the incident, on the real nodes and on the made ones.
const SERVICE: &str = "checkout";
const PORT: u16 = 443;
/// Where the made nodes are asked.
const MADE: &str = "127.0.0.1:9480";
/// How long all nodes may take to be up.
const START: Duration = Duration::from_secs(90);
/// How long nothing may be wrong before the incident: longer than a surge waits.
const HEALTHY: Duration = Duration::from_secs(150);
/// How long the alert may take, and how long it must then stay the only one.
const PATIENCE: Duration = Duration::from_secs(300);
const ALONE: Duration = Duration::from_secs(45);
/// Connections a second, and SYNs without an ACK in the incident.
const CONNECTIONS: usize = 4;
const LOST: u8 = 3;
/// Ports of the SYNs without an ACK: others each second.
const FIRST_PORT: u16 = 20_000;
/// The most that Prometheus may take, of one processor.
pub const SHARE: f64 = 0.1;

/// What is run.
#[derive(Clone, Copy, Debug)]
pub struct Programs<'a> {
    /// The command under test.
    pub handshake: &'a FilePath,
    /// The made nodes: called with an address and their number.
    pub made_nodes: &'a FilePath,
    /// The rules.
    pub rules: &'a FilePath,
}

/// What a fleet came to.
#[derive(Debug)]
pub struct Outcome {
    /// Series in Prometheus, without those of rules.
    pub series: f64,
    /// The part of one processor that Prometheus took.
    pub share: f64,
    /// Resident memory of Prometheus, bytes.
    pub memory: u64,
    /// How long after the incident began the alert came.
    pub after: Duration,
    /// The alert's labels, and its words.
    pub alert: String,
    /// The flow that an exemplar named.
    pub flow: [String; 2],
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { series, share, memory, after, alert, flow: [initiator, responder] } = self;
        writeln!(
            f,
            "{series} series: Prometheus took {share:.3} of one processor, and {} MiB",
            memory >> 20
        )?;
        writeln!(
            f,
            "{} s after the incident began there was exactly one alert, and no other:",
            after.as_secs()
        )?;
        writeln!(f, "  {alert}")?;
        write!(f, "  its exemplar: {initiator} to {responder}, which was one of the flows")
    }
}

/// Plays an incident on `nodes` nodes, three of them real.
///
/// # Errors
/// There is no alert, a wrong one or a second one; the network cannot be made.
pub fn incident(programs: Programs<'_>, nodes: u16, say: &mut dyn FnMut(&str)) -> Result<Outcome> {
    let routed = Routed::new()?;
    let host = &routed.router;
    let agents = agents(&routed, programs.handshake)?;
    let made = usize::from(nodes) - agents.len();
    let _made = Process::start(host.command(programs.made_nodes).args([MADE, &made.to_string()]))?;
    let targets = Targets::write(&agents, made)?;
    let mut traffic = Traffic::new(&routed)?;
    let prometheus = Prometheus::start(host, &targets.configuration(programs.rules))?;
    traffic
        .until(START, || Ok(prometheus.figure("sum(up)")? == Some(f64::from(nodes))))
        .context("some are not up")?;
    say(&format!("{nodes} nodes are up, {} of them real", agents.len()));

    let (began, taken) = (Instant::now(), prometheus.cpu()?);
    traffic.last(HEALTHY)?;
    let alerts = firing(&prometheus)?;
    ensure!(alerts.is_empty(), "alerts without an incident: {alerts:#?}");
    say(&format!("no alert in {HEALTHY:?}"));

    host.run("curl", &["-sf", &format!("http://{MADE}/incident")])?;
    traffic.is_ill = true;
    let ill = Instant::now();
    traffic.until(PATIENCE, || Ok(!firing(&prometheus)?.is_empty())).context("no alert")?;
    let after = ill.elapsed();
    traffic.last(ALONE)?;
    let alert = the_only_alert(&prometheus)?;
    let share = (prometheus.cpu()?.saturating_sub(taken)).as_secs_f64() / began.elapsed().as_secs_f64();
    let real =
        prometheus.query("instance_service_cause:handshake_half_open_surge:sum{instance=~'real-.*'}")?;
    ensure!(real.len() == agents.len(), "not every real node has the incident: {real:?}");
    let flow = traffic.named(&prometheus)?;
    let series = prometheus.figure("sum(scrape_samples_scraped)")?.context("series")?;
    Ok(Outcome { series, share, memory: prometheus.memory()?, after, alert, flow })
}

/// A real agent, its name and where it is asked.
type RealNode = (Agent, &'static str, SocketAddr);

/// The agents of the three hosts.
fn agents(routed: &Routed, handshake: &FilePath) -> Result<Vec<RealNode>> {
    let hosts: [(&Namespace, &[&str], &str, &str); 3] = [
        (&routed.client, &[DEVICE], "real-client", "192.0.2.1:9477"),
        (&routed.router, &[DEVICE, FAR_DEVICE], "real-router", "127.0.0.1:9477"),
        (&routed.server, &[DEVICE], "real-server", "203.0.113.2:9477"),
    ];
    let start = |(host, devices, name, address): (&Namespace, &[&str], _, &str)| {
        let mut command = host.command(handshake);
        command.args(["serve", "--metrics-listen", address, "--service", &format!("{SERVICE}=:{PORT}")]);
        command.args(devices.iter().flat_map(|device| ["-i", device]));
        Ok((Agent::attach(command, devices.len())?, name, address.parse()?))
    };
    hosts.into_iter().map(start).collect()
}

/// The file that Prometheus finds its targets in. Removed on drop.
struct Targets(PathBuf);

impl Targets {
    fn write(agents: &[RealNode], made: usize) -> Result<Self> {
        let real = agents.iter().map(
            |(_, name, address)| json!({"targets": [address.to_string()], "labels": {"instance": name}}),
        );
        let made = (0..made).map(|number| {
            let path = format!("/node/{number}/metrics");
            json!({"targets": [MADE], "labels": {"instance": format!("made-{number}"), "__metrics_path__": path}})
        });
        let path = std::env::temp_dir().join(format!("hs-fleet-{}.json", std::process::id()));
        let targets = Self(path);
        fs::write(&targets.0, Value::from_iter(real.chain(made)).to_string())?;
        Ok(targets)
    }

    fn configuration(&self, rules: &FilePath) -> String {
        format!(
            "global: {{scrape_interval: 30s, scrape_timeout: 15s, evaluation_interval: 1m}}\n\
             rule_files: ['{}']\n\
             scrape_configs: [{{job_name: handshake, file_sd_configs: [{{files: ['{}']}}]}}]\n",
            rules.display(),
            self.0.display()
        )
    }
}

impl Drop for Targets {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// What passes the three real nodes.
struct Traffic<'a> {
    path: Path<'a>,
    listener: Listener,
    /// Whether some SYN+ACKs get no answer.
    is_ill: bool,
    /// The attempts without an ACK.
    lost: Vec<SocketAddr>,
    seconds: u16,
}

impl<'a> Traffic<'a> {
    fn new(routed: &'a Routed) -> Result<Self> {
        let path = routed.path(Family::V4);
        // What is half-open in the server's kernel makes room within a second.
        routed.server.sysctl("net.ipv4.tcp_synack_retries", "0")?;
        let listener = Listener::new(&path, PORT, 256)?;
        Ok(Self { path, listener, is_ill: false, lost: Vec::new(), seconds: 0 })
    }

    /// A second of it.
    fn second(&mut self) -> Result<()> {
        let began = Instant::now();
        drop(tcp::connect_accept(&self.path, &self.listener, CONNECTIONS)?);
        if self.is_ill {
            let (port, to) = (FIRST_PORT + self.seconds, self.listener.address());
            self.lost.extend(tcp::syn_without_ack_from(&self.path, port, to, LOST)?);
        }
        self.seconds += 1;
        pause_until(began + Duration::from_secs(1))
    }

    fn last(&mut self, time: Duration) -> Result<()> {
        let end = Instant::now() + time;
        while Instant::now() < end {
            self.second()?;
        }
        Ok(())
    }

    fn until(&mut self, limit: Duration, mut is_so: impl FnMut() -> Result<bool>) -> Result<()> {
        let end = Instant::now() + limit;
        while !is_so()? {
            ensure!(Instant::now() < end, "not within {limit:?}");
            self.second()?;
        }
        Ok(())
    }

    /// The flow that an exemplar of a real node names: it is one of those that were lost.
    fn named(&self, prometheus: &Prometheus<'_>) -> Result<[String; 2]> {
        let query = "query=handshake_verdicts_total{cause='no_ack',instance=~'real-.*'}";
        let found = prometheus.ask("query_exemplars", &[query, "start=0", "end=9999999999"])?;
        ensure!(!found.is_empty(), "no exemplar");
        let labels = &found[0]["exemplars"][0]["labels"];
        let [initiator, responder] =
            ["initiator", "responder"].map(|end| labels[end].as_str().unwrap_or_default());
        let is_lost = initiator.parse().is_ok_and(|initiator| self.lost.contains(&initiator));
        ensure!(is_lost && responder == self.listener.address().to_string(), "another flow: {found:?}");
        Ok([initiator.to_owned(), responder.to_owned()])
    }
}

/// The alerts that fire: those that wait for their time may never.
fn firing(prometheus: &Prometheus<'_>) -> Result<Vec<Value>> {
    Ok(prometheus.ask("alerts", &[])?.into_iter().filter(|alert| alert["state"] == "firing").collect())
}

/// The words of the alert that fires, if it is the right one and the only one.
fn the_only_alert(prometheus: &Prometheus<'_>) -> Result<String> {
    let alerts = firing(prometheus)?;
    let [alert] = alerts.as_slice() else { bail!("not one alert: {alerts:#?}") };
    let label = |name: &str| alert["labels"][name].as_str().unwrap_or_default();
    let said = ["alertname", "service", "cause"].map(label);
    ensure!(said == ["HandshakeHalfOpenSurge", SERVICE, "no_ack"], "another alert: {alert:#}");
    let words = &alert["annotations"];
    let text = |name: &str| words[name].as_str().unwrap_or_default();
    Ok(format!("{}: {} {}", said.join(" "), text("summary"), text("description")))
}
