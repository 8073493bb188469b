//! The queries of docs/json.md, answered by DuckDB over what a run has written.

use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use handshake_lab::tcp::{self, Attempts, Listener};
use handshake_lab::{Family, python_or_skip, skip_unless_privileged};
use serde_json::{Value, json};

use crate::network::{TIMEOUT, segment};

/// Prints the rows of each query of its argument, a JSON array a line. Queries end with a semicolon.
const ASK: &str = r#"
import duckdb, json, sys
for query in sys.argv[1].split(";"):
    if query.strip():
        rows = duckdb.sql(query).fetchall()
        known = lambda value: value if isinstance(value, (int, float)) else str(value)
        print(json.dumps([[known(value) for value in row] for row in rows]))
"#;

/// The queries of docs/json.md over this file.
fn queries(file: &str) -> String {
    let docs = include_str!("../../../docs/json.md");
    let spans = docs.split("```sql\n").skip(1).filter_map(|rest| rest.split("```").next());
    spans.collect::<String>().replace("rows.jsonl", file)
}

#[test]
fn duckdb_reads_what_the_docs_ask_of_it() -> Result<()> {
    if skip_unless_privileged() {
        return Ok(());
    }
    let Some(python) = python_or_skip("duckdb") else { return Ok(()) };
    let network = segment()?;
    let path = network.path(Family::V4);
    let rules = ["--half-open-after", "300ms", "--expire-after", "2500ms", "--interval", "500ms"];
    let mut agent = network.watch(&[&["--events", "all"][..], &rules].concat())?;
    let listener = Listener::new(&path, 0, 16)?;
    let completed = tcp::connect_accept(&path, &listener, 5)?;
    let refused = tcp::refused(&path, 2)?;
    let deaf = Listener::deaf(&path, 0)?;
    let mut lost = Some(Attempts::start(&path, deaf.address(), 3)?);
    for verdict in ["half_open", "half_open_expired"] {
        for _ in 0..3 {
            agent.await_flow(TIMEOUT, |flow| flow["verdict"] == verdict)?;
        }
        // They give up, and repeat no SYN.
        lost.take();
    }
    let outcome = agent.stop()?;
    drop(completed);

    let file = tempfile::NamedTempFile::new()?;
    std::fs::write(file.path(), &outcome.stdout)?;
    let mut ask = Command::new("python3");
    ask.env("PYTHONPATH", python).args(["-c", ASK, &queries(&file.path().to_string_lossy())]);
    let said = ask.output().context("run python3")?;
    ensure!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    let lines = String::from_utf8(said.stdout)?;
    let answers: Vec<Value> = lines.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    let [ended, services, whole] = &answers[..] else { anyhow::bail!("{answers:?}") };

    // By port: all that ended, and what failed of it. A minute may end in between.
    let of = |port: u16, column: usize| -> u64 {
        let rows = ended.as_array().into_iter().flatten().filter(|row| row[2] == port);
        rows.filter_map(|row| row[column].as_u64()).sum()
    };
    let ports = [(listener.address(), 5, 0), (refused, 2, 2), (deaf.address(), 3, 3)];
    for (service, all, failed) in ports {
        ensure!((of(service.port(), 3), of(service.port(), 4)) == (all, failed), "{service}: {answers:#?}");
        let row = services.as_array().into_iter().flatten().find(|row| row[1] == service.port());
        let row = row.with_context(|| format!("{service}: {answers:#?}"))?;
        let expected = json!([service.ip().to_string(), service.port(), all, all - failed, 0]);
        ensure!(*row == expected, "{row} {expected}");
    }
    ensure!(*whole == json!([[true, 0]]), "{answers:#?}");
    let of_completed = ended.as_array().into_iter().flatten().find(|row| row[2] == listener.address().port());
    ensure!(of_completed.is_some_and(|row| row[5].as_f64().is_some_and(|ms| ms > 0.0)), "{answers:#?}");
    Ok(())
}
