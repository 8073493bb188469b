//! The dashboard of packaging/grafana: each of its queries has an answer from a Prometheus that has scraped a
//! real agent. What Grafana itself would do is done here: it asks for the values of the variables, and puts
//! them into the queries.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use handshake_lab::prometheus::Prometheus;
use serde_json::Value;

const RULES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../packaging/prometheus/rules.yml");
/// A target where nothing listens, so that there is an alert.
const NONE: &str = "127.0.0.1:9";
const DASHBOARD: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../packaging/grafana/handshake.json");
/// The time that is shown, and the window of rates.
const TIMES: [(&str, &str); 2] = [("$__range", "10m"), ("$__rate_interval", "2m")];

/// Seconds that a panel shows: more than the test takes.
const SHOWN: u64 = 120;

/// The configuration of a Prometheus with the rules, which scrapes often.
pub(crate) fn configuration(target: SocketAddr) -> String {
    format!(
        "global: {{scrape_interval: 200ms, scrape_timeout: 200ms, evaluation_interval: 200ms}}\n\
         rule_files: ['{RULES}']\n\
         scrape_configs: [{{job_name: handshake, static_configs: [{{targets: ['{target}', '{NONE}']}}]}}]\n"
    )
}

/// Asks each query of each panel.
pub(crate) fn each_panel_answers(prometheus: &Prometheus<'_>) -> Result<()> {
    let text = fs::read_to_string(DASHBOARD).context(DASHBOARD)?;
    let empty = unanswered(prometheus, &serde_json::from_str(&text)?)?;
    ensure!(empty.is_empty(), "panels without an answer: {empty:#?}");
    // A name that is not exported is found: that of a series, of a label's value, and where there is no exemplar.
    for (right, wrong, panels) in [
        ("handshake_service_half_open{", "handshake_service_half_opened{", 2),
        ("handshake_latency_seconds_bucket", "handshake_latency_bucket", 3),
        (r#"verdict=\"refused\""#, r#"verdict=\"declined\""#, 1),
        (r#"verdict!=\"completed\""#, r#"verdict=\"superseded\""#, 1),
    ] {
        ensure!(text.contains(right), "{right}");
        let empty = unanswered(prometheus, &serde_json::from_str(&text.replace(right, wrong))?)?;
        ensure!(empty.len() == panels, "{wrong}: {empty:#?}");
    }
    Ok(())
}

/// The panels with their queries that have no answer.
fn unanswered(prometheus: &Prometheus<'_>, dashboard: &Value) -> Result<Vec<String>> {
    let variables = variables(prometheus, dashboard)?;
    let mut empty = Vec::new();
    let mut asked = 0;
    for panel in dashboard["panels"].as_array().context("panels")? {
        for target in panel["targets"].as_array().into_iter().flatten() {
            let written = target["expr"].as_str().context("a query")?;
            let query =
                variables.iter().fold(written.to_owned(), |query, (name, value)| query.replace(name, value));
            ensure!(!query.contains('$'), "an unknown variable: {query}");
            asked += 1;
            if !is_answered(prometheus, target, &query)? {
                empty.push(format!("{}: {query}", panel["title"]));
            }
        }
    }
    ensure!(asked > 20, "{asked} queries only");
    empty.dedup_by_key(|each| each.split(": ").next().map(str::to_owned));
    Ok(empty)
}

/// What Grafana puts in the place of a variable's name.
fn variables(prometheus: &Prometheus<'_>, dashboard: &Value) -> Result<BTreeMap<String, String>> {
    let mut known: BTreeMap<String, String> =
        TIMES.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    for variable in dashboard["templating"]["list"].as_array().context("variables")? {
        if variable["type"] != "query" {
            continue;
        }
        let query = variable["definition"].as_str().context("its query")?;
        let query = known.iter().fold(query.to_owned(), |query, (name, value)| query.replace(name, value));
        let inner = query.strip_prefix("label_values(").and_then(|query| query.strip_suffix(')'));
        let (series, label) = inner.and_then(|inner| inner.rsplit_once(", ")).context("label_values")?;
        let values = prometheus.ask(&format!("label/{label}/values"), &[&format!("match[]={series}")])?;
        let values: Vec<String> =
            values.iter().filter_map(Value::as_str).map(|value| value.replace('.', "\\\\.")).collect();
        ensure!(!values.is_empty(), "{query} has no values");
        let name = variable["name"].as_str().context("its name")?;
        known.insert(format!("${name}"), format!("({})", values.join("|")));
    }
    Ok(known)
}

fn is_answered(prometheus: &Prometheus<'_>, target: &Value, query: &str) -> Result<bool> {
    let query = format!("query={query}");
    let series = if target["instant"] == true {
        prometheus.ask("query", &[&query])?
    } else {
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
        let (start, end) = (format!("start={}", now - SHOWN), format!("end={}", now + 1));
        prometheus.ask("query_range", &[&query, &start, &end, "step=1"])?
    };
    let is_known = |value: &Value| value[1].as_str().is_some_and(|figure| figure != "NaN");
    let has_figure = |series: &Value| {
        is_known(&series["value"])
            || series["values"].as_array().is_some_and(|values| values.iter().any(is_known))
    };
    if !series.iter().any(has_figure) {
        return Ok(false);
    }
    if target["exemplar"] != true {
        return Ok(true);
    }
    let exemplars = prometheus.ask("query_exemplars", &[&query, "start=0", "end=9999999999"])?;
    Ok(exemplars.iter().any(|series| series["exemplars"].as_array().is_some_and(|all| !all.is_empty())))
}
