//! Prometheus as Debian has it, and the folder of its data.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{self, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};
use std::{env, fs};

use anyhow::{Context, Result, bail, ensure};
use rustix::param::clock_ticks_per_second;
use serde_json::Value;

use crate::namespace::Namespace;
use crate::process::Process;

/// For what a busy machine needs.
const PATIENCE: Duration = Duration::from_secs(30);
/// The pause between two looks at what changes by itself.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// A Prometheus that runs. Killed on drop, and its data removed.
#[derive(Debug)]
pub struct Prometheus<'a> {
    process: Option<Process>,
    host: &'a Namespace,
    folder: PathBuf,
}

impl<'a> Prometheus<'a> {
    const ADDRESS: &'static str = "127.0.0.1:9090";

    /// Starts it with a configuration, and waits until it answers.
    ///
    /// # Errors
    /// It cannot be started, or does not answer in time.
    pub fn start(host: &'a Namespace, config: &str) -> Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let folder = env::temp_dir().join(format!("hs-prometheus-{}-{number}", process::id()));
        fs::create_dir(&folder)?;
        let file = folder.join("prometheus.yml");
        fs::write(&file, config)?;
        let mut command = host.command("prometheus");
        command.arg(format!("--config.file={}", file.display()));
        command.arg(format!("--storage.tsdb.path={}", folder.join("data").display()));
        command.arg(format!("--web.listen-address={}", Self::ADDRESS));
        command.args(["--enable-feature=exemplar-storage", "--log.level=error"]);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let prometheus = Self { process: Some(Process::start(&mut command)?), host, folder };
        await_that("Prometheus", || Ok(prometheus.query("up").is_ok()))?;
        Ok(prometheus)
    }

    /// Asks its API: the list that an answer has.
    ///
    /// # Errors
    /// It answers with an error.
    pub fn ask(&self, path: &str, words: &[&str]) -> Result<Vec<Value>> {
        let url = format!("http://{}/api/v1/{path}", Self::ADDRESS);
        let options = words.iter().flat_map(|word| ["--data-urlencode", word]);
        let all: Vec<&str> = ["-sG", "-m", "20", &url].into_iter().chain(options).collect();
        let mut answer: Value = serde_json::from_str(&self.host.run("curl", &all)?)?;
        ensure!(answer["status"] == "success", "{answer}");
        let data = answer["data"].take();
        let found =
            [&data, &data["result"], &data["groups"], &data["alerts"]].into_iter().find_map(Value::as_array);
        Ok(found.context("no results")?.clone())
    }

    /// The answer to a query about this moment.
    ///
    /// # Errors
    /// As [`Prometheus::ask`].
    pub fn query(&self, query: &str) -> Result<Vec<Value>> {
        self.ask("query", &[&format!("query={query}")])
    }

    /// The one figure that a query has; `None` where it has none yet.
    ///
    /// # Errors
    /// It has several, and as [`Prometheus::ask`].
    pub fn figure(&self, query: &str) -> Result<Option<f64>> {
        match self.query(query)?.as_slice() {
            [] => Ok(None),
            [one] => Ok(Some(one["value"][1].as_str().context("a figure")?.parse()?)),
            several => bail!("{query}: {several:?}"),
        }
    }

    /// Waits until a query has this figure.
    ///
    /// # Errors
    /// It has not in time.
    pub fn await_figure(&self, query: &str, wanted: f64) -> Result<()> {
        await_that(&format!("{query} is {wanted}"), || Ok(self.figure(query)? == Some(wanted)))
    }

    /// Whether all its rules could be evaluated.
    ///
    /// # Errors
    /// One could not.
    pub fn ensure_rules_run(&self) -> Result<()> {
        let groups = self.ask("rules", &[])?;
        let rules = groups.iter().flat_map(|group| group["rules"].as_array().into_iter().flatten());
        let (well, ill): (Vec<_>, Vec<_>) = rules.partition(|rule| rule["health"] == "ok");
        ensure!(ill.is_empty() && well.len() > 10, "{ill:#?}");
        Ok(())
    }

    /// All figures of each counter, in their order.
    ///
    /// # Errors
    /// As [`Prometheus::ask`].
    pub fn counters(&self) -> Result<BTreeMap<String, Vec<f64>>> {
        let mut all = BTreeMap::new();
        for series in self.query(r#"{__name__=~"handshake_.*_(total|bucket|count|sum)"}[10m]"#)? {
            let figures = series["values"].as_array().context("figures")?.iter();
            let figures = figures.map(|value| Ok(value[1].as_str().context("a figure")?.parse()?));
            all.insert(series["metric"].to_string(), figures.collect::<Result<Vec<f64>>>()?);
        }
        Ok(all)
    }
}

impl Prometheus<'_> {
    /// The processor time that it has taken.
    ///
    /// # Errors
    /// It has ended.
    pub fn cpu(&self) -> Result<Duration> {
        let stat = self.file("stat")?;
        // The name, in parentheses, may hold spaces.
        let (_, rest) = stat.rsplit_once(") ").context("a process")?;
        let ticks = rest.split(' ').skip(11).take(2).map(str::parse::<u64>).sum::<Result<u64, _>>()?;
        Ok(Duration::from_millis(ticks * 1_000 / clock_ticks_per_second()))
    }

    /// Its resident memory, bytes.
    ///
    /// # Errors
    /// It has ended.
    pub fn memory(&self) -> Result<u64> {
        let status = self.file("status")?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("VmRSS")?;
        Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? << 10)
    }

    fn file(&self, name: &str) -> Result<String> {
        let id = self.process.as_ref().context("it runs")?.id();
        Ok(fs::read_to_string(format!("/proc/{id}/{name}"))?)
    }
}

impl Drop for Prometheus<'_> {
    fn drop(&mut self) {
        // Killed first: it would write once more.
        drop(self.process.take());
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn await_that(what: &str, mut is_so: impl FnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while !is_so()? {
        ensure!(Instant::now() < deadline, "not in time: {what}");
        sleep(LOOK_EVERY);
    }
    Ok(())
}
