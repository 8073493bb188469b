//! Prometheus as Debian has it, with the rules of the repository.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;

use anyhow::{Context, Result, bail, ensure};
use handshake_lab::Namespace;
use handshake_lab::process::Process;
use serde_json::Value;

use crate::network::scratch;
use crate::serve::await_that;

const RULES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../packaging/prometheus/rules.yml");
/// A target where nothing listens, so that there is an alert.
const NONE: &str = "127.0.0.1:9";

/// Prometheus as Debian has it, and the folder of its data.
pub(crate) struct Prometheus<'a> {
    process: Option<Process>,
    host: &'a Namespace,
    folder: PathBuf,
}

impl<'a> Prometheus<'a> {
    pub(crate) const ADDRESS: &'static str = "127.0.0.1:9090";

    pub(crate) fn start(host: &'a Namespace, target: SocketAddr) -> Result<Self> {
        let folder = scratch("prometheus");
        fs::create_dir(&folder)?;
        let config = folder.join("prometheus.yml");
        fs::write(
            &config,
            format!(
                "global: {{scrape_interval: 200ms, scrape_timeout: 200ms, evaluation_interval: 200ms}}\n\
                 rule_files: ['{RULES}']\n\
                 scrape_configs: [{{job_name: handshake, static_configs: [{{targets: ['{target}', '{NONE}']}}]}}]\n"
            ),
        )?;
        let mut command = host.command("prometheus");
        command.arg(format!("--config.file={}", config.display()));
        command.arg(format!("--storage.tsdb.path={}", folder.join("data").display()));
        command.arg(format!("--web.listen-address={}", Self::ADDRESS));
        command.args(["--enable-feature=exemplar-storage", "--log.level=error"]);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let prometheus = Self { process: Some(Process::start(&mut command)?), host, folder };
        await_that("Prometheus", || Ok(prometheus.query("up").is_ok()))?;
        Ok(prometheus)
    }

    pub(crate) fn ask(&self, path: &str, words: &[&str]) -> Result<Vec<Value>> {
        let url = format!("http://{}/api/v1/{path}", Self::ADDRESS);
        let options = words.iter().flat_map(|word| ["--data-urlencode", word]);
        let all: Vec<&str> = ["-sG", "-m", "20", &url].into_iter().chain(options).collect();
        let mut answer: Value = serde_json::from_str(&self.host.run("curl", &all)?)?;
        ensure!(answer["status"] == "success", "{answer}");
        let data = answer["data"].take();
        let found = [&data, &data["result"], &data["groups"]].into_iter().find_map(Value::as_array);
        Ok(found.context("no results")?.clone())
    }

    pub(crate) fn query(&self, query: &str) -> Result<Vec<Value>> {
        self.ask("query", &[&format!("query={query}")])
    }

    /// The one figure that a query has; `None` where it has none yet.
    pub(crate) fn figure(&self, query: &str) -> Result<Option<f64>> {
        match self.query(query)?.as_slice() {
            [] => Ok(None),
            [one] => Ok(Some(one["value"][1].as_str().context("a figure")?.parse()?)),
            several => bail!("{query}: {several:?}"),
        }
    }

    pub(crate) fn await_figure(&self, query: &str, wanted: f64) -> Result<()> {
        await_that(&format!("{query} is {wanted}"), || Ok(self.figure(query)? == Some(wanted)))
    }

    /// Whether all rules can be evaluated over what a real agent exports.
    pub(crate) fn ensure_rules_run(&self) -> Result<()> {
        let groups = self.ask("rules", &[])?;
        let rules = groups.iter().flat_map(|group| group["rules"].as_array().into_iter().flatten());
        let (well, ill): (Vec<_>, Vec<_>) = rules.partition(|rule| rule["health"] == "ok");
        ensure!(ill.is_empty() && well.len() > 10, "{ill:#?}");
        Ok(())
    }

    /// All figures of each counter, in their order.
    pub(crate) fn counters(&self) -> Result<BTreeMap<String, Vec<f64>>> {
        let mut all = BTreeMap::new();
        for series in self.query(r#"{__name__=~"handshake_.*_(total|bucket|count|sum)"}[10m]"#)? {
            let figures = series["values"].as_array().context("figures")?.iter();
            let figures = figures.map(|value| Ok(value[1].as_str().context("a figure")?.parse()?));
            all.insert(series["metric"].to_string(), figures.collect::<Result<Vec<f64>>>()?);
        }
        Ok(all)
    }
}

impl Drop for Prometheus<'_> {
    fn drop(&mut self) {
        // Killed first: it would write once more.
        drop(self.process.take());
        let _ = fs::remove_dir_all(&self.folder);
    }
}
