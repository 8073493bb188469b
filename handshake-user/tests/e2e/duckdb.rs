//! The queries of docs/json.md and docs/fleet.md, answered by DuckDB over what a run has written.

use std::path::Path as FilePath;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use handshake_lab::tcp::{self, Attempts, Listener};
use handshake_lab::{Family, python_or_skip, skip_unless_privileged};
use serde_json::{Value, json};

use crate::network::{TIMEOUT, segment};
use crate::report_file::Folder;
use crate::rows::{await_rows, refuse, serve};

/// Prints the rows of each query of its argument, a JSON array a line. Queries end with a semicolon.
const ASK: &str = r#"
import duckdb, json, sys
for query in sys.argv[1].split(";"):
    if query.strip():
        answer = duckdb.sql(query)
        rows = answer.fetchall() if answer is not None else []
        known = lambda value: value if isinstance(value, (int, float)) else str(value)
        print(json.dumps([[known(value) for value in row] for row in rows]))
"#;

/// The queries of a text in Markdown.
fn queries(docs: &str) -> String {
    docs.split("```sql\n").skip(1).filter_map(|rest| rest.split("```").next()).collect()
}

/// The answers of DuckDB: the rows of each query.
fn ask(python: &FilePath, queries: &str) -> Result<Vec<Value>> {
    let mut ask = Command::new("python3");
    ask.env("PYTHONPATH", python).args(["-c", ASK, queries]);
    let said = ask.output().context("run python3")?;
    ensure!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    let lines = String::from_utf8(said.stdout)?;
    Ok(lines.lines().map(serde_json::from_str).collect::<Result<_, _>>()?)
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
    let docs = include_str!("../../../docs/json.md");
    let answers = ask(&python, &queries(docs).replace("rows.jsonl", &file.path().to_string_lossy()))?;
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

/// The files of a service, packed and plain, as docs/fleet.md asks for them.
#[test]
fn duckdb_reads_the_files_of_serve() -> Result<()> {
    const REFUSED: usize = 2_000;
    if skip_unless_privileged() {
        return Ok(());
    }
    let Some(python) = python_or_skip("duckdb") else { return Ok(()) };
    let network = segment()?;
    network.host().sysctl("net.ipv4.tcp_synack_retries", "0")?;
    let path = network.path(Family::V4);
    let (folder, written) = (Folder::new()?, Folder::new()?);
    let service = serve(&network, &folder.file("events.jsonl"), &["--events", "all", "--events-keep", "1M"])?;
    let listener = Listener::new(&path, 0, 64)?;
    let open = tcp::connect_accept(&path, &listener, 5)?;
    tcp::syn_without_ack(&path, listener.address(), 4)?;
    let deaf = Listener::deaf(&path, 0)?;
    // They give up at once, and repeat no SYN. What is half-open has two rows.
    drop(Attempts::start(&path, deaf.address(), 3)?);
    await_rows(&folder, 5 + 2 * 4 + 2 * 3)?;
    refuse(&path, REFUSED)?;
    await_rows(&folder, 5 + 2 * 4 + 2 * 3 + REFUSED)?;
    ensure!(service.agent.end_by(libc::SIGTERM)?.status.success());
    drop(open);
    let packed = std::fs::read_dir(folder.file(""))?.filter(|entry| {
        entry.as_ref().is_ok_and(|entry| entry.path().extension().is_some_and(|ending| ending == "zst"))
    });
    ensure!(packed.count() > 3, "too few packed files");

    let docs = include_str!("../../../docs/fleet.md");
    let sections = docs
        .split("\n### ")
        .filter(|section| ["DuckDB\n", "Zeek's conn.log\n"].iter().any(|title| section.starts_with(title)));
    let queries: String = sections.map(queries).collect();
    let place = |name: &str| written.file(name).to_string_lossy().into_owned();
    let (parquet, log) = (place("attempts.parquet"), place("conn.json"));
    let queries = queries
        .replace("/var/log/handshake/", &folder.file("").to_string_lossy())
        .replace("attempts.parquet", &parquet)
        .replace("conn.json", &log);
    let more = format!(
        "select count(*), count(distinct node), count(connect_ns) from '{parquet}';
         select count(responder.owner.cgroup), count(initiator.owner) from attempts where verdict = 'completed';
         select conn_state, history, hs_verdict, count(*), count(distinct uid), bool_and(duration >= 0)
         from '{log}' group by all order by all;"
    );
    let answers = ask(&python, &(queries + &more))?;
    let [_, rates, _, _, whole, owned, states] = &answers[..] else { anyhow::bail!("{answers:?}") };
    ensure!(*whole == json!([[5 + 2 * 4 + 2 * 3 + REFUSED, 1, 5]]), "{whole}");
    // Both namespaces are on this machine.
    ensure!(*owned == json!([[5, 5]]), "{owned}");
    let expected = json!([
        ["REJ", "Sr", "refused", REFUSED, REFUSED, true],
        ["S0", "S", "half_open_expired", 3, 3, true],
        ["S1", "Sh", "half_open_expired", 4, 4, true],
        ["S1", "ShA", "completed", 5, 5, true],
    ]);
    ensure!(*states == expected, "{states}");
    // Of a service: became half-open, ends, expired, each over all minutes.
    let of = |port: u16| -> [u64; 3] {
        let rows = rates.as_array().into_iter().flatten().filter(|row| row[2] == port);
        rows.fold([0; 3], |sums, row| {
            let figure = |at: usize| row[3 + at].as_u64().unwrap_or(0);
            [0, 1, 2].map(|at| sums[at] + figure(at))
        })
    };
    let found = [of(listener.address().port()), of(deaf.address().port())];
    ensure!(found == [[4, 9, 4], [3, 3, 3]], "{found:?} {rates}");
    Ok(())
}
