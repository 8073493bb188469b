//! `handshake serve` with its real readers: Prometheus and promtool as Debian has them, curl, systemd's socket,
//! and scrapers that behave badly.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use handshake_lab::agent::Agent;
use handshake_lab::frame::{BuiltSegment, flag};
use handshake_lab::process::Process;
use handshake_lab::prometheus::Prometheus;
use handshake_lab::raw::RawClient;
use handshake_lab::tcp::{self, Listener};
use handshake_lab::topology::DEVICE;
use handshake_lab::udp;
use handshake_lab::{Family, Namespace, Path, skip_unless_privileged, skip_without_tool};
use rustix::process::{Pid, Signal, kill_process};

use crate::HANDSHAKE;
use crate::dashboard::{configuration, each_panel_answers};
use crate::error::{Scratch, check_error, run};
use crate::network::{TIMEOUT, scratch, segment};
use crate::privilege::ensure_confined;
use crate::sight::detach;

/// Attempts soon become half-open, and expire.
pub(crate) const SWIFT: [&str; 6] =
    ["--half-open-after", "200ms", "--expire-after", "600ms", "--max-flows", "1000"];
/// For what a busy machine needs.
const PATIENCE: Duration = Duration::from_secs(30);
/// The pause between two looks at what changes by itself.
const LOOK_EVERY: Duration = Duration::from_millis(50);
const NOBODY: u32 = 65_534;
/// In this time the hooks are looked at twice.
const TWO_LOOKS: Duration = Duration::from_millis(2_500);

/// A service that runs, and where it is asked.
pub(crate) struct Service<'a> {
    pub(crate) agent: Agent,
    host: &'a Namespace,
    address: SocketAddr,
}

impl<'a> Service<'a> {
    /// Starts it, and waits until its socket listens; with `interfaces` also until it is attached to so many.
    pub(crate) fn start(host: &'a Namespace, words: &[&str], interfaces: usize) -> Result<Self> {
        let mut command = host.command(HANDSHAKE);
        command.args(["serve", "-i", DEVICE]).args(SWIFT).args(words);
        Self::run(host, command, interfaces)
    }

    pub(crate) fn run(host: &'a Namespace, command: Command, interfaces: usize) -> Result<Self> {
        let mut agent = Agent::attach(command, 0)?;
        agent.await_lines("metrics at ", 1)?;
        agent.await_lines("attached ", interfaces)?;
        let address = address(agent.stderr(), 0)?;
        Ok(Self { agent, host, address })
    }

    pub(crate) fn get(&self, path: &str) -> Result<(u16, String)> {
        get(self.host, self.address, path, &[])
    }

    /// The figure of a series, as it is written before the number.
    pub(crate) fn figure(&self, series: &str) -> Result<u64> {
        let (code, page) = self.get("/metrics")?;
        ensure!(code == 200, "{code}: {page}");
        figure(&page, series)
    }

    /// Its helper: its only child.
    pub(crate) fn helper(&self) -> Result<Pid> {
        let id = self.agent.id();
        let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children"))?;
        let child = children.trim().parse().with_context(|| format!("one child: {children:?}"))?;
        Pid::from_raw(child).context("a process")
    }

    /// Waits until a series has this figure.
    pub(crate) fn await_figure(&self, series: &str, wanted: u64) -> Result<()> {
        await_that(series, || Ok(self.figure(series)? == wanted))
    }
}

/// Where the `at`th socket listens.
fn address(stderr: &str, at: usize) -> Result<SocketAddr> {
    let mut lines = stderr.lines().filter_map(|line| line.strip_prefix("metrics at http://"));
    let line = lines.nth(at).with_context(|| format!("no address in {stderr}"))?;
    Ok(line.strip_suffix("/metrics").context("an address")?.parse()?)
}

pub(crate) fn figure(page: &str, series: &str) -> Result<u64> {
    let mut lines = page.lines().filter_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    Ok(lines.next().with_context(|| format!("no {series} in {page}"))?.parse()?)
}

/// What curl gets: the code, and the body.
fn get(host: &Namespace, address: SocketAddr, path: &str, options: &[&str]) -> Result<(u16, String)> {
    let url = format!("http://{address}{path}");
    let words = [&["-s", "-m", "20", "-w", "\n%{http_code}", &url][..], options].concat();
    let answer = host.run("curl", &words)?;
    let (body, code) = answer.trim_end().rsplit_once('\n').context("a code")?;
    Ok((code.parse()?, body.trim_end().to_owned()))
}

pub(crate) fn await_that(what: &str, mut is_so: impl FnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while !is_so()? {
        ensure!(Instant::now() < deadline, "not in time: {what}");
        sleep(LOOK_EVERY);
    }
    Ok(())
}

pub(crate) fn skips() -> bool {
    skip_unless_privileged() || skip_without_tool("curl")
}

/// Handshakes that a RST seems to abort, which no end takes because its checksum is wrong: each is aborted,
/// and completed after all.
pub(crate) fn revised(path: &Path<'_>, to: SocketAddr, count: u16) -> Result<()> {
    reset_and_acknowledge(path, to, count, 0x55)
}

/// The same with a checksum that is changed by `damage`. Where that is 0, the responder takes the RST, and denies
/// the ACK by one of its own: each handshake is aborted, completed and aborted.
fn reset_and_acknowledge(path: &Path<'_>, to: SocketAddr, count: u16, damage: u8) -> Result<()> {
    const J: u32 = 1_000;
    let mut client = RawClient::new(path)?;
    let address = path.unassigned.context("unassigned addresses")?;
    let ends: Vec<SocketAddr> = (0..count).map(|number| SocketAddr::new(address, 30_000 + number)).collect();
    let segment =
        |source, seq, ack, flags| BuiltSegment { source, destination: to, seq, ack, flags, payload: &[] };
    for end in &ends {
        let frame = client.frame(&segment(*end, J, 0, flag::SYN))?;
        client.send(&frame)?;
    }
    let answers = client.syn_acks(&ends)?;
    for end in &ends {
        let answer = answers.get(end).context("a SYN+ACK")?;
        let mut reset = client.frame(&segment(*end, answer.ack, 0, flag::RST))?;
        reset[14 + 20 + 16] ^= damage;
        let ack = client.frame(&segment(*end, answer.ack, answer.seq.wrapping_add(1), flag::ACK))?;
        client.send(&reset)?;
        client.send(&ack)?;
    }
    Ok(())
}

/// Traffic of the lab, the agent, Prometheus: each figure is what was sent, no counter falls, an exemplar names
/// a flow that was half-open, and a restart is seen as `rate()` expects it.
#[test]
fn each_figure_reaches_prometheus() -> Result<()> {
    if skips() || skip_without_tool("prometheus") || skip_without_tool("promtool") {
        return Ok(());
    }
    let network = segment()?;
    let (host, path) = (network.host(), network.path(Family::V4));
    host.sysctl("net.ipv4.tcp_synack_retries", "0")?;
    let listener = Listener::new(&path, 0, 256)?;
    let name = format!("lab={}", listener.address());
    let file = Scratch::new("metrics.prom", b"")?;
    let words = ["--metrics-listen", "127.0.0.1:9477", "--service", &name, "--metrics-file", file.path()];
    let service = Service::start(host, &words, 1)?;
    let prometheus = Prometheus::start(host, &configuration(service.address))?;
    prometheus.await_figure("handshake_attempts_total", 0.0)?;

    let _open = tcp::connect_accept(&path, &listener, 20)?;
    tcp::refused(&path, 3)?;
    let _asked = udp::echo(&path, 2, 1, 64)?;
    let silent = tcp::syn_without_ack(&path, listener.address(), 40)?;
    revised(&path, listener.address(), 5)?;
    let expected = [
        ("handshake_attempts_total", 68.0),
        ("handshake_verdicts_total{verdict='completed'}", 25.0),
        ("handshake_verdicts_total{verdict='refused'}", 3.0),
        ("handshake_verdicts_total{verdict='half_open_expired',cause='no_ack'}", 40.0),
        ("handshake_verdicts_total{verdict='initiator_aborted'}", 5.0),
        ("handshake_revised_total{verdict='initiator_aborted'}", 5.0),
        ("handshake_standing{verdict='initiator_aborted'}", 0.0),
        ("handshake_service_attempts_total{service='lab'}", 65.0),
        ("handshake_service_attempts_total{service='other'}", 3.0),
        ("handshake_service_verdicts_total{service='lab',verdict='completed'}", 25.0),
        ("handshake_service_verdicts_total{service='lab',verdict='half_open_expired'}", 40.0),
        (
            "sum(handshake_latency_seconds_count{leg='connect'}) + sum(handshake_latency_excluded_total{leg='connect'})",
            25.0,
        ),
        ("handshake_packets_total{class='syn'}", 68.0),
        ("handshake_exact", 1.0),
        ("handshake_half_open{cause='no_ack'}", 0.0),
        (
            "sum(handshake_verdicts_total) - sum(handshake_revised_total) + sum(handshake_half_open) \
             + sum(handshake_opening) - sum(handshake_attempts_total)",
            0.0,
        ),
    ];
    for (query, wanted) in expected {
        prometheus.await_figure(query, wanted)?;
    }
    let exemplars = prometheus.ask(
        "query_exemplars",
        &["query=handshake_verdicts_total{verdict='half_open_expired'}", "start=0", "end=9999999999"],
    )?;
    let exemplar = &exemplars.first().context("no exemplar")?["exemplars"][0];
    let initiator: SocketAddr = exemplar["labels"]["initiator"].as_str().context("an end")?.parse()?;
    ensure!(silent.contains(&initiator), "{exemplar}");
    ensure!(exemplar["labels"]["responder"] == listener.address().to_string(), "{exemplar}");
    each_panel_answers(&prometheus)?;
    prometheus.ensure_rules_run()?;
    for (series, figures) in prometheus.counters()? {
        ensure!(figures.is_sorted(), "{series} fell: {figures:?}");
    }
    let checked = format!("curl -s http://{}/metrics | promtool check metrics", service.address);
    ensure!(host.run("sh", &["-c", &format!("{checked} 2>&1")])?.is_empty(), "promtool has found something");

    ensure!(service.agent.end_by(libc::SIGTERM)?.status.success());
    let service = Service::start(host, &words, 1)?;
    let _more = tcp::connect_accept(&path, &listener, 5)?;
    prometheus.await_figure("handshake_attempts_total", 5.0)?;
    prometheus.await_figure("resets(handshake_attempts_total[10m])", 1.0)?;
    ensure!(service.agent.end_by(libc::SIGTERM)?.status.success());
    Ok(())
}

/// What is completed and denied before the first reading is entered and left.
#[test]
fn a_completion_that_is_denied_is_counted() -> Result<()> {
    if skips() {
        return Ok(());
    }
    let network = segment()?;
    let (host, path) = (network.host(), network.path(Family::V4));
    let listener = Listener::new(&path, 0, 64)?;
    let service = Service::start(host, &["--metrics-listen", "127.0.0.1:0"], 1)?;
    reset_and_acknowledge(&path, listener.address(), 4, 0)?;
    let of = |family: &str, verdict: &str| format!("handshake_{family}{{verdict=\"{verdict}\"}}");
    for (series, wanted) in [
        (of("verdicts_total", "initiator_aborted"), 8),
        (of("revised_total", "initiator_aborted"), 4),
        (of("standing", "initiator_aborted"), 4),
        (of("verdicts_total", "completed"), 4),
        (of("revised_total", "completed"), 4),
        ("handshake_attempts_total".to_owned(), 4),
        ("handshake_exact".to_owned(), 1),
    ] {
        service.await_figure(&series, wanted)?;
    }
    ensure!(service.agent.end_by(libc::SIGTERM)?.status.success());
    Ok(())
}

/// node_exporter takes the file as it is: its figures, and no error.
#[test]
fn node_exporter_takes_the_file() -> Result<()> {
    const EXPORTER: &str = "prometheus-node-exporter";
    if skips() || skip_without_tool(EXPORTER) {
        return Ok(());
    }
    let network = segment()?;
    let (host, path) = (network.host(), network.path(Family::V4));
    let folder = scratch("textfile");
    fs::create_dir(&folder)?;
    let file = folder.join("handshake.prom");
    let file = file.to_str().context("a path")?;
    let words = ["--metrics-listen", "off", "--metrics-file", file, "--interval", "100ms"];
    let mut command = host.command(HANDSHAKE);
    command.args(["serve", "-i", DEVICE]).args(SWIFT).args(words);
    let agent = Agent::attach(command, 1)?;
    let mut command = host.command(EXPORTER);
    command.args(["--web.listen-address=127.0.0.1:9100", "--collector.disable-defaults"]);
    command.arg("--collector.textfile").arg(format!("--collector.textfile.directory={}", folder.display()));
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let _exporter = Process::start(&mut command)?;
    let listener = Listener::new(&path, 0, 64)?;
    let _made = tcp::connect_accept(&path, &listener, 3)?;
    tcp::refused(&path, 2)?;
    let page = || get(host, "127.0.0.1:9100".parse()?, "/metrics", &[]).map(|(_, page)| page);
    let figure = |series: &str| page().and_then(|page| figure(&page, series)).ok();
    for (series, wanted) in [
        ("handshake_verdicts_total{cause=\"\",verdict=\"completed\"}", 3),
        ("handshake_verdicts_total{cause=\"\",verdict=\"refused\"}", 2),
        ("handshake_attempts_total", 5),
        ("node_textfile_scrape_error", 0),
    ] {
        await_that(series, || Ok(figure(series) == Some(wanted)))?;
    }
    ensure!(page()?.contains("\nhandshake_latency_seconds_bucket{leg=\"connect\",le=\"+Inf\"} 3\n"));
    // What is over is told no more, also where the service had no time to end.
    agent.kill()?;
    await_that("the end of the series", || Ok(figure("handshake_attempts_total").is_none()))?;
    ensure!(fs::read_dir(&folder)?.next().is_none());
    fs::remove_dir_all(&folder)?;
    Ok(())
}

/// Scrapers that read nothing, ask by half or do nothing at all, more of them than there are connections: the
/// books stay exact, and another scraper is answered.
#[test]
fn bad_scrapers_hurt_nothing() -> Result<()> {
    const CONNECTIONS: usize = 1_000;
    if skips() {
        return Ok(());
    }
    let network = segment()?;
    let (host, path) = (network.host(), network.path(Family::V4));
    let service = Service::start(host, &["--metrics-listen", "127.0.0.1:0"], 1)?;
    let listener = Listener::new(&path, 0, 64)?;
    let before = fs::read_dir(format!("/proc/{}/fd", service.agent.id()))?.count();
    let mut held: Vec<TcpStream> = Vec::new();
    for words in ["", "GET /metr", "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"] {
        let connect = || -> Result<TcpStream> {
            let mut stream = TcpStream::connect_timeout(&service.address, TIMEOUT)?;
            stream.write_all(words.as_bytes())?;
            Ok(stream)
        };
        let many = host.enter(|| (0..CONNECTIONS / 3).map(|_| connect()).collect::<Result<Vec<_>>>())?;
        held.extend(many);
        let _made = tcp::connect_accept(&path, &listener, 2)?;
        ensure!(service.get("/healthz")? == (200, "ok".to_owned()), "after {words:?}");
        service.figure("handshake_exact")?;
    }
    service.await_figure("handshake_verdicts_total{verdict=\"completed\"}", 6)?;
    ensure!(service.figure("handshake_exact")? == 1);
    let now = fs::read_dir(format!("/proc/{}/fd", service.agent.id()))?.count();
    ensure!(now <= before + 64 + 1, "{before} descriptors, then {now}");
    // What is too many was closed; the latest are not.
    let first = held.first_mut().context("a connection")?;
    first.set_read_timeout(Some(TIMEOUT))?;
    ensure!(matches!(first.read(&mut [0; 16]), Ok(0) | Err(_)), "the first is still served");
    drop(held);
    ensure!(service.agent.end_by(libc::SIGTERM)?.status.success());
    Ok(())
}

/// Two scrapers of one second cost one reading, and without a scraper there is none. The forms, gzip and the
/// codes are HTTP's.
#[test]
fn a_reading_serves_all_scrapers_of_a_second() -> Result<()> {
    const READINGS: &str = "handshake_readings_total";
    if skips() {
        return Ok(());
    }
    let network = segment()?;
    let host = network.host();
    let file = Scratch::new("metrics.prom", b"")?;
    let service = Service::start(host, &["--metrics-listen", "127.0.0.1:0"], 1)?;
    ensure_confined(service.agent.id(), NOBODY, 0, true)?;
    let began = Instant::now();
    let readings = [service.figure(READINGS)?, service.figure(READINGS)?, service.figure(READINGS)?];
    ensure!(readings == [1; 3] || began.elapsed() > Duration::from_secs(1), "{readings:?}");
    let last = readings[2];
    sleep(Duration::from_millis(2_500));
    ensure!(service.figure(READINGS)? == last + 1, "there were readings without a scraper");
    let open = ["-H", "Accept: application/openmetrics-text;version=1.0.0", "-D", file.path()];
    let (code, page) = get(host, service.address, "/metrics", &open)?;
    let head = fs::read_to_string(file.path())?.to_ascii_lowercase();
    ensure!(code == 200 && page.ends_with("# EOF"), "{page}");
    ensure!(head.contains("content-type: application/openmetrics-text; version=1.0.0"), "{head}");
    let packed = ["--compressed", "-D", file.path()];
    let (_, page) = get(host, service.address, "/metrics", &packed)?;
    ensure!(fs::read_to_string(file.path())?.to_ascii_lowercase().contains("content-encoding: gzip"));
    ensure!(page.contains("\nhandshake_attempts_total 0\n"), "{page}");
    for (path, options, code) in [
        ("/", &[][..], 200),
        ("/readyz", &[], 200),
        ("/metrics/", &[], 404),
        ("/metrics", &["-X", "POST"], 405),
    ] {
        ensure!(get(host, service.address, path, options)?.0 == code, "{path}");
    }
    ensure!(service.agent.end_by(libc::SIGTERM)?.status.success());
    Ok(())
}

/// systemd hears when the service is ready, that it lives and that it ends. While it loads it is healthy, and
/// not ready. It says what keeps packets from its hooks. Where the last interface goes it waits.
#[test]
fn a_service_manager_hears_of_it() -> Result<()> {
    if skips() {
        return Ok(());
    }
    let network = segment()?;
    let host = network.host();
    let socket = scratch("notify");
    let manager = UnixDatagram::bind(&socket)?;
    manager.set_read_timeout(Some(PATIENCE))?;
    let await_words = |wanted: &str| -> Result<String> {
        let mut words = [0; 4_096];
        loop {
            let length = manager.recv(&mut words).with_context(|| format!("no {wanted}"))?;
            let said = String::from_utf8_lossy(&words[..length]).into_owned();
            if said.contains(wanted) {
                return Ok(said);
            }
        }
    };
    let mut command = host.command(HANDSHAKE);
    command.args(["serve", "-i", DEVICE, "--metrics-listen", "127.0.0.1:0"]).args(SWIFT);
    command.env("NOTIFY_SOCKET", &socket).env("WATCHDOG_USEC", "500000");
    let mut service = Service::run(host, command, 0)?;
    await_words("STATUS=loading into the kernel")?;
    let (healthy, ready) = (service.get("/healthz")?.0, service.get("/readyz")?);
    let metrics = service.get("/metrics")?.0;
    // On a machine that loads at once it may be attached by now.
    if !service.agent.stderr().contains("attached ") {
        ensure!(healthy == 200 && ready.0 == 503 && metrics == 503, "{healthy} {ready:?} {metrics}");
        ensure!(ready.1 == "not attached yet", "{ready:?}");
    }
    ensure!(await_words("READY=1")?.contains(&format!("STATUS=watching {DEVICE}")));
    ensure!(service.get("/readyz")?.0 == 200);
    await_words("WATCHDOG=1")?;
    detach(&network)?;
    let lost = |direction: &str| {
        format!("handshake: {DEVICE}: the {direction} hook (tcx) was lost, and is attached again")
    };
    service.agent.await_lines(&lost("ingress"), 1)?;
    // After a look that finds nothing, a second time is told as the first one was.
    sleep(TWO_LOOKS);
    detach(&network)?;
    service.agent.await_lines(&lost("egress"), 2)?;
    host.ip(&[&format!("link del {DEVICE}")])?;
    await_words("STATUS=waiting for interfaces")?;
    let waits = (503, "waiting for interfaces".to_owned());
    await_that("not ready", || Ok(service.get("/readyz")? == waits))?;
    // A scrape reads what is loaded, attached or not.
    ensure!(service.get("/metrics")?.0 == 200 && service.get("/readyz")? == waits);
    ensure!(service.get("/healthz")?.0 == 200);
    let pair = format!("link add {DEVICE} type veth peer name peer");
    host.ip(&[&pair, &format!("link set {DEVICE} up"), "link set peer up"])?;
    await_that("ready again", || Ok(service.get("/readyz")?.0 == 200))?;
    await_words(&format!("STATUS=watching {DEVICE}"))?;
    sleep(TWO_LOOKS);
    let outcome = service.agent.end_by(libc::SIGTERM)?;
    await_words("STOPPING=1")?;
    fs::remove_file(&socket)?;
    ensure!(outcome.status.success(), "{outcome:?}");
    let count = |what: &str| outcome.stderr.lines().filter(|line| line.contains(what)).count();
    let gone = format!("{DEVICE} is gone");
    ensure!(count(&gone) == 1 && count(" was gone") == 0, "{}", outcome.stderr);
    ensure!(count(&lost("egress")) == 2 && count(&lost("ingress")) == 2, "{}", outcome.stderr);
    Ok(())
}

/// SIGHUP takes over names, labels and exporters, and says of the rest that it wants a restart. A faulty file
/// changes nothing. The service has no file of its own and no privilege.
#[test]
fn a_configuration_is_read_again() -> Result<()> {
    if skips() {
        return Ok(());
    }
    let network = segment()?;
    let (host, path) = (network.host(), network.path(Family::V4));
    let listener = Listener::new(&path, 0, 64)?;
    let (config, page) = (Scratch::new("serve.toml", b"")?, Scratch::new("page.prom", b"")?);
    let port = listener.address().port();
    let first = format!("metrics-listen = '127.0.0.1:0'\nservice = ['old=:{port}']\nlabel = ['site=fra']\n");
    fs::write(config.path(), &first)?;
    let service = Service::start(host, &["--config", config.path()], 1)?;
    let _made = tcp::connect_accept(&path, &listener, 3)?;
    let series = |name: &str, site: &str| {
        format!("handshake_service_attempts_total{{site=\"{site}\",service=\"{name}\"}}")
    };
    service.await_figure(&series("old", "fra"), 3)?;

    let Service { mut agent, address: old, .. } = service;
    let text = format!(
        "metrics-listen = '127.0.0.2:0'\nservice = ['new=:{port}']\nlabel = ['site=ber']\nport = 443\n\
         interval = '100ms'\n"
    );
    fs::write(config.path(), format!("{text}metrics-file = '{}'\n", page.path()))?;
    agent.signal(libc::SIGHUP)?;
    agent.await_lines("handshake: the configuration is read again", 1)?;
    let said = agent.stderr().to_owned();
    ensure!(said.contains("handshake: port: restart needed") && !said.contains("label: restart"), "{said}");
    ensure_confined(agent.id(), NOBODY, 0, true)?;
    let address = address(&said, 1)?;
    let mut service = Service { agent, host, address };
    // What was counted before is the old name's.
    ensure!(service.figure(&series("new", "ber"))? == 0);
    let _more = tcp::connect_accept(&path, &listener, 3)?;
    service.await_figure(&series("new", "ber"), 3)?;
    ensure!(get(host, old, "/healthz", &[]).is_err(), "the old socket still listens");
    let written = || Ok(fs::read_to_string(page.path())?.contains(&series("new", "ber")));
    await_that("the file", written)?;
    // Another file takes its place, and then it stays as another process has put it there.
    let other = Scratch::new("other.prom", b"")?;
    let named = format!("{text}metrics-file = '{}'\n", other.path());
    fs::write(config.path(), &named)?;
    service.agent.signal(libc::SIGHUP)?;
    await_that("another file", || Ok(fs::read_to_string(other.path())?.contains(&series("new", "ber"))))?;
    await_that("its end", || Ok(!fs::exists(page.path())?))?;

    fs::write(config.path(), "\nservices = ['new=:1']\n")?;
    service.agent.signal(libc::SIGHUP)?;
    service.agent.await_lines("handshake: the configuration stays as it was: ", 1)?;
    let said = service.agent.stderr();
    ensure!(said.contains("line 2: unknown key services; did you mean service?"), "{said}");
    service.await_figure(&series("new", "ber"), 3)?;
    let outcome = run(&["serve", "--config", config.path(), "--check-config"])?;
    check_error(&outcome, 2, &["line 2: unknown key services"])?;
    fs::write(config.path(), first)?;
    ensure!(run(&["serve", "--config", config.path(), "--check-config"])?.status.success());
    ensure!(service.agent.end_by(libc::SIGTERM)?.status.success());
    Ok(())
}

/// The end of the helper is told when it comes, and each errand says why it is not done. The books go on.
#[test]
fn the_helpers_end_is_told() -> Result<()> {
    if skips() {
        return Ok(());
    }
    let network = segment()?;
    let (host, path) = (network.host(), network.path(Family::V4));
    let (config, page) = (Scratch::new("helper.toml", b"")?, Scratch::new("helper.prom", b"")?);
    let usual = ["--metrics-listen", "127.0.0.1:0", "--config", config.path()];
    let words = [&usual[..], &["--metrics-file", page.path(), "--interval", "1h"]].concat();
    let mut service = Service::start(host, &words, 1)?;
    await_that("the file", || Ok(!fs::read_to_string(page.path())?.is_empty()))?;
    kill_process(service.helper()?, Signal::KILL)?;
    service.agent.await_lines("handshake: the helper process has ended: files, SIGHUP ", 1)?;
    service.agent.signal(libc::SIGHUP)?;
    let kept = "handshake: the configuration stays as it was: the helper process has ended";
    service.agent.await_lines(kept, 1)?;
    let listener = Listener::new(&path, 0, 64)?;
    let _made = tcp::connect_accept(&path, &listener, 3)?;
    service.await_figure("handshake_verdicts_total{verdict=\"completed\"}", 3)?;
    ensure!(service.get("/readyz")?.0 == 200);
    let outcome = service.agent.end_by(libc::SIGTERM)?;
    ensure!(outcome.status.success() && outcome.stderr.matches("helper").count() == 2, "{outcome:?}");
    Ok(())
}

/// A file that takes nothing, a pipe without a reader, holds the writing, and neither the loop nor the books.
#[test]
fn a_dead_file_holds_nothing_up() -> Result<()> {
    if skips() {
        return Ok(());
    }
    let network = segment()?;
    let (host, path) = (network.host(), network.path(Family::V4));
    let pipe = scratch("pipe.prom");
    host.run("mkfifo", &[pipe.to_str().context("a path")?])?;
    let file = pipe.to_str().context("a path")?;
    let config = Scratch::new("dead.toml", b"")?;
    let usual = ["--metrics-listen", "127.0.0.1:0", "--config", config.path()];
    let words = [&usual[..], &["--metrics-file", file, "--interval", "20ms"]].concat();
    let mut service = Service::start(host, &words, 1)?;
    let listener = Listener::new(&path, 0, 64)?;
    let _made = tcp::connect_accept(&path, &listener, 3)?;
    service.await_figure("handshake_verdicts_total{verdict=\"completed\"}", 3)?;
    let dropped = "handshake_export_dropped_total{sink=\"metrics_file\"}";
    await_that(dropped, || Ok(service.figure(dropped)? > 0))?;
    ensure!(service.figure("handshake_exact")? == 1 && service.get("/readyz")?.0 == 200);
    service.agent.signal(libc::SIGHUP)?;
    service.agent.await_lines("handshake: the configuration is read again", 1)?;
    // A configuration that is a pipe is no configuration, and the next one is.
    fs::remove_file(config.path())?;
    host.run("mkfifo", &[config.path()])?;
    service.agent.signal(libc::SIGHUP)?;
    let kept = "handshake: the configuration stays as it was: --config ";
    service.agent.await_lines(kept, 1)?;
    let said = service.agent.stderr();
    ensure!(said.contains(&format!("{kept}{}: it is no ordinary file", config.path())), "{said}");
    let outcome = run(&["serve", "--config", config.path(), "--check-config"])?;
    check_error(&outcome, 2, &["it is no ordinary file"])?;
    fs::remove_file(config.path())?;
    fs::write(config.path(), "")?;
    service.agent.signal(libc::SIGHUP)?;
    service.agent.await_lines("handshake: the configuration is read again", 2)?;
    let began = Instant::now();
    ensure!(service.agent.end_by(libc::SIGTERM)?.status.success());
    ensure!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    fs::remove_file(&pipe)?;
    Ok(())
}
