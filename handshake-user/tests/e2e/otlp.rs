//! `handshake serve --otlp` with a collector that keeps what is posted to it, and one that fails.

use std::collections::BTreeMap;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use handshake_export::otlp::messages::{
    Answer, KeyValue, LogRecord, LogsRequest, Metric, MetricsRequest, NumberPoint, Partial, Status,
};
use handshake_lab::collector::{Collector, Posted, Reply};
use handshake_lab::tcp::{self, Listener};
use handshake_lab::topology::DEVICE;
use handshake_lab::{Family, Namespace};
use prost::Message as _;

use crate::HANDSHAKE;
use crate::network::segment;
use crate::privilege::ensure_confined;
use crate::serve::{SWIFT, Service, await_that, figure, skips};

const METRICS: &str = "/v1/metrics";
const LOGS: &str = "/v1/logs";
const NOBODY: u32 = 65_534;

/// A service that exports four times a second.
fn start<'a>(host: &'a Namespace, words: &[&str], variables: &[(&str, &str)]) -> Result<Service<'a>> {
    let mut command = host.command(HANDSHAKE);
    command.args(["serve", "-i", DEVICE, "--metrics-listen", "127.0.0.1:0", "--node", "node-1"]);
    command.args(SWIFT).args(words).env("OTEL_METRIC_EXPORT_INTERVAL", "250");
    command.envs(variables.iter().copied());
    Service::run(host, command, 1)
}

fn figures(posted: &Posted) -> Result<Vec<Metric>> {
    let mut request = MetricsRequest::decode(&*posted.body)?;
    let resource = request.resource_metrics.pop().context("a resource")?;
    Ok(resource.scope_metrics.into_iter().flat_map(|scope| scope.metrics).collect())
}

fn records(posted: &[Posted]) -> Result<Vec<LogRecord>> {
    let mut all = Vec::new();
    for posted in posted {
        let request = LogsRequest::decode(&*posted.body)?;
        let scopes = request.resource_logs.into_iter().flat_map(|resource| resource.scope_logs);
        all.extend(scopes.flat_map(|scope| scope.records));
    }
    Ok(all)
}

fn text<'a>(attributes: &'a [KeyValue], key: &str) -> &'a str {
    let found = attributes.iter().find(|attribute| attribute.key == key);
    found.and_then(|found| found.value.as_ref()?.text.as_deref()).unwrap_or_default()
}

/// How many records have each verdict, by event.
fn verdicts(records: &[LogRecord]) -> BTreeMap<(&str, &str), usize> {
    let mut all = BTreeMap::new();
    for LogRecord { attributes, .. } in records {
        let key = (text(attributes, "handshake.event"), text(attributes, "handshake.verdict"));
        *all.entry(key).or_default() += 1;
    }
    all
}

/// A point as Prometheus' page writes its series.
fn series(metric: &Metric, point: &NumberPoint) -> String {
    let labels = point.attributes.iter().map(|label| {
        format!("{}=\"{}\"", label.key, label.value.as_ref().and_then(|of| of.text.as_deref()).unwrap_or(""))
    });
    let labels: Vec<String> = labels.collect();
    if labels.is_empty() { metric.name.clone() } else { format!("{}{{{}}}", metric.name, labels.join(",")) }
}

/// Each counter of the latest message is that of the page, each ended attempt a record, and what was counted
/// last is sent at the end. The host is a name, which a process without files cannot look up itself.
#[test]
fn figures_and_events_reach_a_collector() -> Result<()> {
    if skips() {
        return Ok(());
    }
    let network = segment()?;
    let (host, path) = (network.host(), network.path(Family::V4));
    // A repeated SYN+ACK would take the place of an expired attempt before a look at the tables has met it.
    host.sysctl("net.ipv4.tcp_synack_retries", "0")?;
    let collector = Collector::start(host, 0)?;
    let url = format!("http://localhost:{}/", collector.address().port());
    let variables = [
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "x-scope=fra"),
        ("OTEL_RESOURCE_ATTRIBUTES", "service.namespace=lab"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1"),
    ];
    let service = start(host, &["--otlp", &url, "--events", "all", "--label", "site=fra"], &variables)?;
    let listener = Listener::new(&path, 0, 64)?;
    let _open = tcp::connect_accept(&path, &listener, 20)?;
    tcp::refused(&path, 3)?;
    tcp::syn_without_ack(&path, listener.address(), 4)?;
    service.await_figure(
        "handshake_verdicts_total{site=\"fra\",verdict=\"half_open_expired\",cause=\"no_ack\"}",
        4,
    )?;
    ensure_confined(service.agent.id(), NOBODY, 0, true)?;

    let ended = |count: usize| {
        let ended = records(&collector.posted(LOGS))?;
        Ok(ended.iter().filter(|each| text(&each.attributes, "handshake.event") == "ended").count() >= count)
    };
    await_that("27 records", || ended(27))?;
    let (_, page) = service.get("/metrics")?;
    let all = |posted: &Posted| -> Result<usize> {
        let mut seen = 0;
        for metric in figures(posted)? {
            let sum = metric.sum.clone().unwrap_or_default();
            for point in &sum.points {
                let name = series(&metric, point);
                // These count the readings.
                if name.starts_with("handshake_readings_total") {
                    continue;
                }
                let number = u64::try_from(point.as_int.context(name.clone())?)?;
                seen += usize::from(figure(&page, &name)? == number);
            }
        }
        Ok(seen)
    };
    let counters = page.lines().filter(|line| line.starts_with("# TYPE") && line.ends_with(" counter"));
    let names: Vec<&str> = counters.filter_map(|line| line.split(' ').nth(2)).collect();
    let of_counter = |line: &&str| names.iter().any(|name| line.starts_with(&format!("{name}{{")));
    let expected = page.lines().filter(of_counter).count() - 1;
    await_that("equal counters", || {
        Ok(all(collector.posted(METRICS).last().context("a message")?)? == expected)
    })?;

    let last = tcp::connect_accept(&path, &listener, 5)?;
    let outcome = service.agent.end_by(libc::SIGTERM)?;
    drop(last);
    ensure!(outcome.status.success() && !outcome.stderr.contains("OTLP:"), "{}", outcome.stderr);
    let posted = collector.posted(METRICS);
    let latest = posted.last().context("a message")?;
    let attempts = figures(latest)?.into_iter().find(|metric| metric.name == "handshake_attempts_total");
    let attempts = attempts.and_then(|metric| metric.sum).context("a counter")?;
    ensure!(attempts.points[0].as_int == Some(32), "{attempts:?}");
    ensure!(latest.headers["x-scope"] == "fra" && latest.headers["content-encoding"] == "gzip");
    ensure!(latest.headers["content-type"] == "application/x-protobuf", "{:?}", latest.headers);
    let resource = MetricsRequest::decode(&*latest.body)?.resource_metrics.pop().context("one")?.resource;
    let resource = resource.context("a resource")?.attributes;
    for (key, value) in [("service.name", "handshake"), ("host.name", "node-1"), ("service.namespace", "lab")]
    {
        ensure!(text(&resource, key) == value, "{resource:?}");
    }
    let records = records(&collector.posted(LOGS))?;
    let mut by = verdicts(&records);
    // An attempt that ends between two looks at the tables has been half-open without a row.
    by.retain(|(event, _), _| *event == "ended");
    let ended =
        [(("ended", "completed"), 25), (("ended", "half_open_expired"), 4), (("ended", "refused"), 3)];
    ensure!(by == BTreeMap::from(ended), "{by:?}");
    let mut times: Vec<u64> = posted.iter().filter_map(|posted| time_of(posted).ok()).collect();
    let count = times.len();
    times.dedup();
    ensure!(times.len() == count && times.is_sorted(), "a reading came twice: {times:?}");
    Ok(())
}

/// The time of a message's readings.
fn time_of(posted: &Posted) -> Result<u64> {
    let metrics = figures(posted)?;
    let points = metrics.iter().find_map(|metric| metric.sum.as_ref()?.points.first());
    Ok(points.context("a point")?.time_ns)
}

/// What a collector may take later is sent again, with a pause, until it is taken, and then no more. What it
/// refuses is not. Each is counted, and said once.
#[test]
fn a_collector_that_fails_is_tried_again() -> Result<()> {
    if skips() {
        return Ok(());
    }
    let network = segment()?;
    let (host, path) = (network.host(), network.path(Family::V4));
    let collector = Collector::start(host, 0)?;
    let url = format!("http://{}", collector.address());
    let listener = Listener::new(&path, 0, 64)?;
    let variables = [("OTEL_EXPORTER_OTLP_ENDPOINT", &*url), ("OTEL_EXPORTER_OTLP_LOGS_TIMEOUT", "700")];
    let mut service = start(host, &["--events", "all"], &variables)?;
    let dropped =
        |service: &Service<'_>| service.figure("handshake_export_dropped_total{sink=\"otlp_logs\"}");
    let protobuf = "content-type: application/x-protobuf\r\n";
    collector.reply(
        LOGS,
        [
            Reply::Answer("503 Service Unavailable", "retry-after: 2\r\n", b"full".to_vec()),
            Reply::Close,
            Reply::Garbage(b"\x16\x03\x01\x00\x00 no HTTP at all\r\n\r\n"),
            Reply::Silence,
            Reply::Answer("429 Too Many Requests", "retry-after: 0\r\n", Vec::new()),
            Reply::ok(),
        ],
    );
    let _open = tcp::connect_accept(&path, &listener, 7)?;
    await_that("six requests", || Ok(collector.posted(LOGS).len() == 6))?;
    let posted = collector.posted(LOGS);
    ensure!(posted.iter().all(|each| each.body == posted[0].body), "another message");
    let pauses: Vec<Duration> = posted.windows(2).map(|two| two[1].at.duration_since(two[0].at)).collect();
    // The first pauses of its own are half a second, one, two and four at least; 700 ms are for no answer.
    let least = [2_000, 1_000, 2_000, 4_700, 0].map(Duration::from_millis);
    ensure!(pauses.iter().zip(least).all(|(pause, least)| *pause >= least), "{pauses:?}");
    ensure!(verdicts(&records(&posted[5..])?) == BTreeMap::from([(("ended", "completed"), 7)]));
    ensure!(dropped(&service)? == 0);
    service.agent.await_lines("handshake: OTLP: ", 2)?;
    let said = format!("OTLP: {url}{LOGS}: 503 Service Unavailable: full; it is tried again");
    ensure!(service.agent.stderr().contains(&said), "{}", service.agent.stderr());
    ensure!(service.agent.stderr().contains("it works again"), "{}", service.agent.stderr());

    let status = Status { code: 3, message: "no such tenant".to_owned() };
    collector.reply(LOGS, [Reply::Answer("400 Bad Request", protobuf, status.encode_to_vec())]);
    tcp::refused(&path, 3)?;
    await_that("three refused records", || Ok(dropped(&service)? == 3))?;
    let partial = Answer { partial: Some(Partial { rejected: 2, message: "too old".to_owned() }) };
    collector.reply(LOGS, [Reply::Answer("200 OK", protobuf, partial.encode_to_vec())]);
    tcp::refused(&path, 5)?;
    await_that("two of five records", || Ok(dropped(&service)? == 5))?;
    ensure!(collector.posted(LOGS).len() == 8, "a refused message came again");
    let said = "400 Bad Request: no such tenant; 3 records are dropped";
    ensure!(service.agent.stderr().contains(said), "{}", service.agent.stderr());
    ensure!(service.figure("handshake_exact")? == 1);
    ensure!(service.agent.end_by(libc::SIGTERM)?.status.success());
    Ok(())
}

/// Readings for a dead collector wait, the oldest go, and each one is sent or counted. A collector that takes
/// a request and never answers keeps the end waiting for two seconds at most.
#[test]
fn what_a_dead_collector_misses_is_counted() -> Result<()> {
    if skips() {
        return Ok(());
    }
    let network = segment()?;
    let (host, path) = (network.host(), network.path(Family::V4));
    let port = Collector::start(host, 0)?.address().port();
    let url = format!("http://127.0.0.1:{port}");
    let mut service = start(host, &["--otlp", &url], &[("OTEL_METRIC_EXPORT_INTERVAL", "100")])?;
    service.agent.await_lines(&format!("metrics to {url}{METRICS}"), 1)?;
    let refused = format!("handshake: OTLP: {url}{METRICS}: Connection refused");
    service.agent.await_lines(&refused, 1)?;
    let listener = Listener::new(&path, 0, 64)?;
    let _open = tcp::connect_accept(&path, &listener, 20)?;
    // No scrape: that would be a reading, too. A queue's worth takes 1.6 s.
    sleep(Duration::from_secs(3));

    let collector = Collector::start(host, port)?;
    service.agent.await_lines(&format!("handshake: OTLP: {url}{METRICS}: it works again"), 1)?;
    let counter = |metrics: &[Metric], name: &str| -> Result<u64> {
        let metric = metrics.iter().find(|metric| metric.name == name).and_then(|metric| metric.sum.as_ref());
        let numbers = metric.context("a counter")?.points.iter().filter_map(|point| point.as_int);
        Ok(u64::try_from(numbers.sum::<i64>())?)
    };
    // The latest message knows of all drops once what waited has been taken.
    await_that("each reading, taken or counted", || {
        let posted = collector.posted(METRICS);
        let Some(latest) = posted.last().map(figures).transpose()? else { return Ok(false) };
        let series = latest.iter().map(points).sum::<usize>() as u64;
        let dropped = counter(&latest, "handshake_export_dropped_total")?;
        let readings = counter(&latest, "handshake_readings_total")?;
        ensure!(dropped % series == 0, "{dropped} points of {series} each");
        let is_much = posted.len() > 40 && dropped > 10 * series;
        Ok(is_much && readings == posted.len() as u64 + dropped / series)
    })?;
    let posted = collector.posted(METRICS);
    let times: Vec<u64> = posted.iter().map(time_of).collect::<Result<_>>()?;
    ensure!(times.is_sorted_by(|one, other| one < other), "a reading came twice or late: {times:?}");
    ensure!(service.figure("handshake_verdicts_total{verdict=\"completed\"}")? == 20);
    ensure!(service.figure("handshake_exact")? == 1 && service.get("/healthz")?.0 == 200);
    ensure!(service.agent.stderr().matches(&refused).count() == 1, "{}", service.agent.stderr());

    collector.reply(METRICS, std::iter::repeat_n(Reply::Silence, 10));
    let began = Instant::now();
    let outcome = service.agent.end_by(libc::SIGTERM)?;
    ensure!(outcome.status.success() && began.elapsed() < Duration::from_secs(3), "{outcome:?}");
    let said = "OTLP: the collector takes too long, and what it has not taken is dropped";
    ensure!(outcome.stderr.contains(said), "{}", outcome.stderr);
    Ok(())
}

/// The points of a metric.
fn points(metric: &Metric) -> usize {
    let sums = metric.sum.as_ref().map_or(0, |sum| sum.points.len());
    let gauges = metric.gauge.as_ref().map_or(0, |gauge| gauge.points.len());
    sums + gauges + metric.histogram.as_ref().map_or(0, |times| times.points.len())
}
