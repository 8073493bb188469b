//! What `serve` sends by OTLP, held against what real receivers take: a collector that hands it on, a
//! database, and the messages that OpenTelemetry publishes. Rows of single attempts, held against each other.
//!
//! ```text
//! traffic ─▶ serve ─▶ rotel ─▶ Collector ─▶ read.py ─┐
//!              ├────▶ VictoriaMetrics ──────▶ read.py ─┼─▶ equal to /metrics
//!              ├────▶ Collector ─────────────▶ read.py ─┘
//!              └────▶ a file of rows ─▶ DuckDB, ClickHouse's engine
//! ```

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path as FilePath, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use handshake_common::flow::Family;
use serde_json::Value;

use crate::agent::Agent;
use crate::collector::Collector;
use crate::interrupt;
use crate::namespace::Namespace;
use crate::process::{self, Process};
use crate::tcp::{self, Listener};
use crate::topology::{DEVICE, Pair, Path};

const READ: &str = include_str!("collectors/read.py");
/// What is asked of the rows.
const DOCS: &str = include_str!("../../docs/fleet.md");
const OFFICIAL: &str = "the official messages";
const METRICS: &str = "/v1/metrics";
const LOGS: &str = "/v1/logs";
/// Ports on the server's loopback.
const ROTEL: u16 = 4318;
const ROTEL_BY_GRPC: u16 = 4317;
const DATABASE: u16 = 8428;
/// For what comes by itself.
const PATIENCE: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Attempts soon become half-open, and expire.
const SWIFT: [&str; 4] = ["--half-open-after", "300ms", "--expire-after", "900ms"];

/// The programs and modules that are needed; what is missing is left out, and said.
#[derive(Debug)]
pub struct Parts {
    /// rotel's program.
    pub rotel: Option<PathBuf>,
    /// VictoriaMetrics, of a version that takes OTLP.
    pub database: Option<PathBuf>,
    /// The folders of Python's modules: OpenTelemetry's messages, chdb, DuckDB.
    pub python: Vec<PathBuf>,
}

impl Parts {
    /// What read.py says.
    fn read(&self, words: &[&str]) -> Result<Value> {
        let mut python = Command::new("python3");
        python.env("PYTHONPATH", std::env::join_paths(&self.python)?).args(["-c", READ]).args(words);
        let read = process::output(&mut python)?;
        ensure!(read.status.success(), "{}", String::from_utf8_lossy(&read.stderr));
        Ok(serde_json::from_slice(&read.stdout)?)
    }

    /// Whether Python has a module.
    #[must_use]
    pub fn has_module(&self, module: &str) -> bool {
        let mut python = Command::new("python3");
        let path = std::env::join_paths(&self.python).unwrap_or_default();
        python.env("PYTHONPATH", path).args(["-c", &format!("import {module}")]);
        process::output(&mut python).is_ok_and(|done| done.status.success())
    }
}

/// A folder, removed on drop.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Result<Self> {
        let folder = std::env::temp_dir().join(format!("handshake-{name}-{}", std::process::id()));
        fs::create_dir_all(&folder)?;
        Ok(Self(folder))
    }

    fn file(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }

    /// Writes what was posted to a path into a folder, one file each.
    fn keep(&self, collector: &Collector, path: &str) -> Result<String> {
        let folder = self.0.join(path.trim_start_matches('/').replace('/', "-"));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder)?;
        for (number, posted) in collector.posted(path).iter().enumerate() {
            fs::write(folder.join(format!("{number:06}")), &posted.body)?;
        }
        Ok(folder.display().to_string())
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A program that listens.
struct Server(Process);

impl Server {
    fn start(host: &Namespace, mut command: Command, port: u16) -> Result<Self> {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let server = Self(Process::start(&mut command)?);
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        await_that(&format!("port {port}"), || {
            host.enter(|| Ok(TcpStream::connect_timeout(&address, LOOK_EVERY).is_ok()))
        })?;
        Ok(server)
    }

    /// Starts rotel, which hands on to `to`.
    fn rotel(host: &Namespace, program: &FilePath, to: SocketAddr) -> Result<Self> {
        let mut command = host.command(program);
        command.args(["start", "--exporter", "otlp", "--otlp-exporter-protocol", "http"]);
        command.args(["--otlp-exporter-endpoint", &format!("http://{to}"), "--batch-timeout", "100ms"]);
        command.args(["--otlp-http-endpoint", &format!("127.0.0.1:{ROTEL}")]);
        command.args(["--otlp-grpc-endpoint", &format!("127.0.0.1:{ROTEL_BY_GRPC}")]);
        Self::start(host, command, ROTEL)
    }

    fn database(host: &Namespace, program: &FilePath, folder: &Folder) -> Result<Self> {
        let mut command = host.command(program);
        command.arg(format!("-storageDataPath={}", folder.file("database")));
        command.arg(format!("-httpListenAddr=127.0.0.1:{DATABASE}"));
        Self::start(host, command, DATABASE)
    }

    fn end(mut self) -> Result<()> {
        self.0.signal(libc::SIGTERM)?;
        self.0.wait(PATIENCE).map(drop)
    }
}

/// A service, and where its page is.
struct Service<'a> {
    agent: Agent,
    host: &'a Namespace,
    url: String,
}

impl<'a> Service<'a> {
    /// Starts it with one reading a second.
    fn start(host: &'a Namespace, binary: &FilePath, words: &[&str], metrics: Option<&str>) -> Result<Self> {
        let mut command = host.command(binary);
        command.args(["serve", "-i", DEVICE, "--metrics-listen", "127.0.0.1:0", "--label", "site=lab"]);
        command.args(SWIFT).args(words).env("OTEL_METRIC_EXPORT_INTERVAL", "1000");
        metrics.map(|url| command.env("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", url));
        let mut agent = Agent::attach(command, 1)?;
        agent.await_lines("metrics at ", 1)?;
        let said = agent.stderr();
        let url = said.lines().find_map(|line| line.strip_prefix("metrics at "));
        let url = url.context("no address")?.to_owned();
        Ok(Self { agent, host, url })
    }

    fn page(&self) -> Result<String> {
        self.host.run("curl", &["-s", "-m", "20", &self.url])
    }

    fn figure(&self, series: &str) -> Result<u64> {
        let page = self.page()?;
        let found = page.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        Ok(found.with_context(|| format!("no {series}"))?.parse()?)
    }

    fn sum(&self, family: &str) -> Result<u64> {
        let page = self.page()?;
        let lines = page.lines().filter(|line| line.starts_with(&format!("{family}{{")));
        lines.map(|line| Ok(line.rsplit(' ').next().unwrap_or_default().parse::<u64>()?)).sum()
    }

    fn end(self) -> Result<String> {
        let outcome = self.agent.end_by(libc::SIGTERM)?;
        ensure!(outcome.status.success(), "{}", outcome.stderr);
        Ok(outcome.stderr)
    }
}

fn await_that(what: &str, mut is_so: impl FnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while !is_so()? {
        ensure!(Instant::now() < deadline, "not in time: {what}");
        interrupt::pause_until(Instant::now() + LOOK_EVERY)?;
    }
    Ok(())
}

/// Traffic whose attempts have all ended: completed, refused, never answered, never acknowledged.
struct Traffic {
    completed: u64,
    refused: u64,
    expired: u64,
}

impl Traffic {
    const ALL: Self = Self { completed: 200, refused: 30, expired: 40 };

    fn send(&self, path: &Path<'_>) -> Result<()> {
        path.server.sysctl("net.ipv4.tcp_synack_retries", "0")?;
        let listener = Listener::new(path, 0, 256)?;
        let connections = tcp::connect_accept(path, &listener, usize::try_from(self.completed)?)?;
        connections.talk(100)?;
        connections.close()?;
        tcp::refused(path, usize::try_from(self.refused)?)?;
        tcp::syn_without_ack(path, listener.address(), u8::try_from(self.expired)?)?;
        Ok(())
    }

    /// Waits until a service has judged all of it.
    fn await_judged(&self, service: &Service<'_>) -> Result<()> {
        let expired = "handshake_verdicts_total{site=\"lab\",verdict=\"half_open_expired\",cause=\"no_ack\"}";
        await_that("the last verdict", || Ok(service.figure(expired)? == self.expired))
    }
}

/// The same figures as on the page reach a collector, through a real collector, and a database, and the
/// official messages write the same bytes. `say` receives what was found.
///
/// # Errors
/// A figure differs; a program fails.
pub fn figures(binary: &FilePath, parts: &Parts, say: &mut dyn FnMut(&str)) -> Result<()> {
    let (network, folder) = (Pair::new()?, Folder::new("figures")?);
    let (host, path) = (&network.server, network.path(Family::V4));
    let (direct, behind) = (Collector::start(host, 0)?, Collector::start(host, 0)?);
    let to_direct = Service::start(host, binary, &["--otlp", &format!("http://{}", direct.address())], None)?;
    let rotel =
        parts.rotel.as_deref().map(|rotel| Server::rotel(host, rotel, behind.address())).transpose()?;
    let to_rotel = rotel
        .as_ref()
        .map(|_| Service::start(host, binary, &["--otlp", &format!("http://localhost:{ROTEL}")], None));
    let to_rotel = to_rotel.transpose()?;
    let database = parts.database.as_deref().map(|program| Server::database(host, program, &folder));
    let database = database.transpose()?;
    let stored_at = format!("http://127.0.0.1:{DATABASE}/opentelemetry{METRICS}");
    let to_database = database.as_ref().map(|_| Service::start(host, binary, &[], Some(&stored_at)));
    let to_database = to_database.transpose()?;

    Traffic::ALL.send(&path)?;
    for (name, service, collector) in
        [(OFFICIAL, Some(&to_direct), &direct), ("rotel", to_rotel.as_ref(), &behind)]
    {
        let Some(service) = service else {
            say(&format!("skipped: {name}"));
            continue;
        };
        Traffic::ALL.await_judged(service)?;
        let mut read = Value::Null;
        let page = folder.file("page");
        let compared = await_that("the same figures", || {
            fs::write(&page, service.page()?)?;
            read = parts.read(&["figures", &page, &folder.keep(collector, METRICS)?])?;
            Ok(read["differ"].as_array().is_some_and(Vec::is_empty))
        });
        compared.with_context(|| format!("{name}: page, message: {}", read["differ"]))?;
        ensure!(read["zeros"].as_u64() > Some(0), "{name}: no figure of 0 is there: {read}");
        let mut logs = Value::Null;
        let all = await_that("the records", || {
            logs = parts.read(&["logs", &folder.keep(collector, LOGS)?])?;
            let has = |event: &str, count: u64| logs["by"][event] == count;
            Ok(has("ended refused", Traffic::ALL.refused)
                && has("ended half_open_expired", Traffic::ALL.expired)
                && has("half_open half_open", Traffic::ALL.expired))
        });
        all.with_context(|| format!("{name}: {logs}"))?;
        ensure!(logs["twice"] == 0, "{name}: {logs}");
        say(&format!(
            "{name}: {} series equal to /metrics, {} of them 0; records {}",
            read["series"], read["zeros"], logs["by"]
        ));
        // rotel makes other messages of several.
        if name == OFFICIAL {
            let (metrics, logs, same) = (&read["messages"], &logs["messages"], logs["same"].clone());
            ensure!(read["same"] == *metrics && same == *logs, "other bytes: {read}, {same} of {logs}");
            say(&format!(
                "{name}: {metrics} of metrics and {logs} of logs are written again in the same bytes"
            ));
        }
    }
    match &to_database {
        Some(service) => hold_stored(parts, service, &folder, say)?,
        None => say("skipped: VictoriaMetrics"),
    }
    for service in [Some(to_direct), to_rotel, to_database].into_iter().flatten() {
        let said = service.end()?;
        ensure!(!said.contains("OTLP:"), "{said}");
    }
    [rotel, database].into_iter().flatten().try_for_each(Server::end)
}

/// Holds what VictoriaMetrics has stored against the page.
fn hold_stored(
    parts: &Parts,
    service: &Service<'_>,
    folder: &Folder,
    say: &mut dyn FnMut(&str),
) -> Result<()> {
    Traffic::ALL.await_judged(service)?;
    let (page, export) = (folder.file("page"), folder.file("export"));
    let at = |path: &str| format!("http://127.0.0.1:{DATABASE}{path}");
    let mut read = Value::Null;
    let compared = await_that("the same figures", || {
        fs::write(&page, service.page()?)?;
        service.host.run("curl", &["-s", &at("/internal/force_flush")])?;
        let matched = r#"match[]={__name__=~"handshake_.*"}"#;
        let stored =
            service.host.run("curl", &["-sG", "--data-urlencode", matched, &at("/api/v1/export")])?;
        fs::write(&export, stored)?;
        read = parts.read(&["stored", &page, &export])?;
        Ok(read["differ"].as_array().is_some_and(Vec::is_empty))
    });
    compared.with_context(|| format!("VictoriaMetrics: page, stored: {}", read["differ"]))?;
    say(&format!(
        "VictoriaMetrics: {} series equal to /metrics; labels beside those of the page: {}",
        read["series"], read["beside"]
    ));
    Ok(())
}

/// A real collector is gone for so long, under traffic: the agent's books stay exact, each point and record
/// is taken once or counted as dropped.
///
/// # Errors
/// A figure differs; a program fails.
pub fn outage(binary: &FilePath, parts: &Parts, lasting: Duration, say: &mut dyn FnMut(&str)) -> Result<()> {
    let Some(program) = &parts.rotel else {
        say("skipped: rotel");
        return Ok(());
    };
    let (network, folder) = (Pair::new()?, Folder::new("outage")?);
    let (host, path) = (&network.server, network.path(Family::V4));
    network.client.sysctl("net.ipv4.tcp_tw_reuse", "1")?;
    let behind = Collector::start(host, 0)?;
    let rotel = Server::rotel(host, program, behind.address())?;
    let url = format!("http://127.0.0.1:{ROTEL}");
    let mut service = Service::start(host, binary, &["--otlp", &url, "--events", "all"], None)?;
    let listeners: Vec<Listener> = (0..16).map(|_| Listener::new(&path, 0, 512)).collect::<Result<_>>()?;
    let mut made = connect_for(&path, &listeners, Duration::from_secs(3))?;
    interrupt::pause_until(Instant::now() + Duration::from_secs(3))?;

    rotel.end()?;
    let before = behind.posted(METRICS).len();
    made += connect_for(&path, &listeners, lasting)?;
    ensure!(behind.posted(METRICS).len() == before, "a dead collector has handed on");
    let rotel = Server::rotel(host, program, behind.address())?;
    for path in [METRICS, LOGS] {
        service.agent.await_lines(&format!("handshake: OTLP: {url}{path}: it works again"), 1)?;
    }
    made += connect_for(&path, &listeners, Duration::from_secs(2))?;
    // Before the first scrape, which would be a reading that is not exported.
    hold_readings(parts, &folder, &behind, say)?;
    let mut read = Value::Null;
    let completed = "handshake_verdicts_total{site=\"lab\",verdict=\"completed\"}";
    await_that("all completed", || Ok(service.figure(completed)? == made))?;
    let dropped = service.figure("handshake_export_dropped_total{site=\"lab\",sink=\"otlp_logs\"}")?;
    await_that("each record", || {
        read = parts.read(&["logs", &folder.keep(&behind, LOGS)?])?;
        Ok(read["by"]["ended completed"].as_u64() == Some(made - dropped))
    })
    .with_context(|| format!("{made} connections, {dropped} records dropped: {read}"))?;
    ensure!(read["twice"] == 0 && dropped > 0, "{dropped} dropped, {read}");
    ensure!(service.figure("handshake_exact{site=\"lab\"}")? == 1, "the books are not exact");
    ensure!(service.sum("handshake_lost_total")? == 0, "something was lost: {}", service.page()?);
    say(&format!(
        "{}: {made} connections, all completed in the books; {} records, none twice, and {dropped} \
         counted as dropped",
        humantime::format_duration(lasting),
        read["by"]["ended completed"]
    ));
    let said = service.end()?;
    rotel.end()?;
    let failures = said.matches("it is tried again").count();
    ensure!(failures == 2, "said {failures} times:\n{said}");
    Ok(())
}

/// Each reading was taken once, or its points are counted as dropped.
fn hold_readings(
    parts: &Parts,
    folder: &Folder,
    behind: &Collector,
    say: &mut dyn FnMut(&str),
) -> Result<()> {
    let (mut read, mut readings) = (Value::Null, 0);
    let each = await_that("each reading", || {
        read = parts.read(&["metrics", &folder.keep(behind, METRICS)?])?;
        let number = |name: &str| read[name].as_u64().with_context(|| format!("{name}: {read}"));
        readings = number("dropped")? / number("points")?;
        Ok(number("dropped")? > 0 && number("readings")? == number("taken")? + readings)
    });
    each.with_context(|| read.to_string())?;
    ensure!(read["twice"] == 0, "a reading came twice: {read}");
    say(&format!(
        "{} readings: {} taken, none twice, and {readings} of {} points each counted as dropped",
        read["readings"], read["taken"], read["points"]
    ));
    Ok(())
}

/// Connections one after the other for so long, three thousand a second at most. Returns how many.
fn connect_for(path: &Path<'_>, listeners: &[Listener], lasting: Duration) -> Result<u64> {
    const EACH: usize = 100;
    let (began, mut made) = (Instant::now(), 0);
    for listener in listeners.iter().cycle() {
        if began.elapsed() >= lasting {
            break;
        }
        tcp::connect_accept(path, listener, EACH)?.close()?;
        made += EACH as u64;
        interrupt::pause_until(began + Duration::from_micros(made * 333))?;
    }
    Ok(made)
}

/// Each ended attempt is one row of the file and one record, verdict by verdict, by each count.
///
/// # Errors
/// A figure differs; a program fails.
pub fn rows(binary: &FilePath, parts: &Parts, say: &mut dyn FnMut(&str)) -> Result<()> {
    let (network, folder) = (Pair::new()?, Folder::new("rows")?);
    let (host, path) = (&network.server, network.path(Family::V4));
    let collector = Collector::start(host, 0)?;
    let (file, url) = (folder.file("rows.jsonl"), format!("http://{}", collector.address()));
    let words = ["--otlp", &url, "--events", "all", "--events-file", &file];
    let service = Service::start(host, binary, &words, None)?;
    for _ in 0..20 {
        Traffic::ALL.send(&path)?;
    }
    let all = Traffic { expired: Traffic::ALL.expired * 20, ..Traffic::ALL };
    all.await_judged(&service)?;
    let verdicts = service.sum("handshake_verdicts_total")?;
    let lost = |what: &str| service.figure(&format!("handshake_lost_total{{site=\"lab\",what=\"{what}\"}}"));
    let expected = verdicts - lost("tcp.untracked")? - lost("lost_events")?;
    let page = service.page()?;
    service.end()?;

    let logs = parts.read(&["logs", &folder.keep(&collector, LOGS)?])?;
    ensure!(logs["twice"] == 0 && logs["same"] == logs["messages"], "{logs}");
    let ended = |by: &Value| -> u64 {
        let all = by.as_object().into_iter().flatten();
        all.filter(|(what, _)| what.starts_with("ended ")).filter_map(|(_, count)| count.as_u64()).sum()
    };
    ensure!(ended(&logs["by"]) == expected, "{expected} ended attempts, records {}:\n{page}", logs["by"]);
    let completed = logs["by"]["ended completed"].as_u64().context("none completed")?;
    let mut agree = vec!["the log records"];
    for (engine, module) in [("rows", "duckdb"), ("chdb", "chdb")] {
        if !parts.has_module(module) {
            say(&format!("skipped: {module}"));
            continue;
        }
        let docs = (engine == "chdb").then_some(DOCS);
        let counted = parts.read(&[&[engine, &file], docs.as_slice()].concat())?;
        ensure!(counted["by"] == logs["by"], "{module}: {}, records: {}", counted["by"], logs["by"]);
        if docs.is_some() {
            let answers = counted["queries"].as_array().with_context(|| counted.to_string())?;
            ensure!(answers.len() > 3 && answers.iter().all(|rows| *rows != 0), "an empty answer: {counted}");
            ensure!(counted["owned"].as_u64() >= Some(completed), "{completed} completed: {counted}");
        }
        agree.push(module);
    }
    say(&format!("{expected} ended attempts, verdict by verdict in {}: {}", agree.join(", "), logs["by"]));
    Ok(())
}
