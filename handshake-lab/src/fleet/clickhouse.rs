//! The rows of many nodes in a server of ClickHouse, counted there.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path as FilePath, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};
use std::{env, process, thread};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::Family;
use crate::agent::Agent;
use crate::interrupt;
use crate::namespace::Namespace;
use crate::process::Process;
use crate::tcp::{self, Listener};
use crate::topology::{DEVICE, Pair};

/// Attempts of a node, of which some are refused.
const ATTEMPTS: usize = 500;
const REFUSED: usize = 20;
const AT_ONCE: usize = 48;
/// How long the server may take to start.
const START: Duration = Duration::from_secs(60);
/// How long an answer may take.
const TIMEOUT: Duration = Duration::from_secs(30);
/// What is kept of a row; the server skips the rest. It is older than its types for the rest.
const TABLE: &str = "CREATE TABLE attempts (type String, node String, verdict String, started String) \
                     ENGINE = MergeTree() ORDER BY (node, started)";

/// A server with the files of Debian's package in `root`. Killed on drop, and its data removed.
struct ClickHouse<'a> {
    program: Process,
    host: &'a Namespace,
    folder: PathBuf,
}

impl<'a> ClickHouse<'a> {
    const PORT: u16 = 8123;

    fn start(host: &'a Namespace, root: &FilePath) -> Result<Self> {
        let folder = env::temp_dir().join(format!("hs-clickhouse-{}", process::id()));
        fs::create_dir(&folder)?;
        let shown = folder.display();
        fs::write(
            folder.join("config.xml"),
            format!(
                "<yandex><logger><level>warning</level><log>{shown}/log</log><errorlog>{shown}/log</errorlog></logger>\
                 <http_port>{}</http_port><listen_host>127.0.0.1</listen_host>\
                 <path>{shown}/data/</path><tmp_path>{shown}/tmp/</tmp_path>\
                 <mark_cache_size>67108864</mark_cache_size><users_config>users.xml</users_config>\
                 <default_profile>default</default_profile><default_database>default</default_database></yandex>",
                Self::PORT
            ),
        )?;
        fs::write(
            folder.join("users.xml"),
            "<yandex><profiles><default><input_format_skip_unknown_fields>1</input_format_skip_unknown_fields>\
             </default></profiles><users><default><password></password><networks><ip>127.0.0.1</ip></networks>\
             <profile>default</profile><quota>default</quota></default></users><quotas><default></default></quotas>\
             </yandex>",
        )?;
        let mut command = host.command(root.join("usr/sbin/clickhouse-server"));
        let libraries = ["usr/lib", "lib"].map(|lib| format!("{}/{lib}/x86_64-linux-gnu", root.display()));
        command.env("LD_LIBRARY_PATH", libraries.join(":"));
        command.arg(format!("--config-file={shown}/config.xml")).stdout(Stdio::null()).stderr(Stdio::null());
        let server = Self { program: Process::start(&mut command)?, host, folder };
        let deadline = Instant::now() + START;
        while server.ask("SELECT 1", b"").is_err() {
            ensure!(Instant::now() < deadline, "ClickHouse does not answer");
            thread::sleep(Duration::from_millis(100));
        }
        Ok(server)
    }

    /// Sends a query, with the data of an INSERT; returns what it answers.
    fn ask(&self, query: &str, data: &[u8]) -> Result<String> {
        let path = query.replace(' ', "%20").replace('\'', "%27").replace('=', "%3D");
        let address = SocketAddr::from(([127, 0, 0, 1], Self::PORT));
        let answer = self.host.enter(|| {
            let mut stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
            stream.set_read_timeout(Some(TIMEOUT))?;
            let length = data.len();
            write!(
                stream,
                "POST /?query={path} HTTP/1.0\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n"
            )?;
            stream.write_all(data)?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok(answer)
        })?;
        let (head, body) = answer.split_once("\r\n\r\n").context("an answer")?;
        ensure!(head.lines().next().is_some_and(|line| line.contains(" 200 ")), "{query}: {answer}");
        Ok(body.trim_end().to_owned())
    }
}

impl Drop for ClickHouse<'_> {
    fn drop(&mut self) {
        let _ = self.program.signal(libc::SIGKILL);
        let _ = self.program.wait(TIMEOUT);
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Inserts 500 rows of each of `nodes` nodes, as the command wrote them of real traffic, and counts them there.
/// Returns how many there are, and how long the insertion took.
///
/// # Errors
/// The server counts others.
pub fn rows(handshake: &FilePath, clickhouse: &FilePath, nodes: usize) -> Result<(usize, Duration)> {
    let pair = Pair::new()?;
    let rows: Vec<String> = written(&pair, handshake)?.iter().map(Value::to_string).collect();
    let server = ClickHouse::start(&pair.server, clickhouse)?;
    server.ask(TABLE, b"")?;
    let began = Instant::now();
    for node in 0..nodes {
        interrupt::check()?;
        let of_node = |row: &String| format!("{{\"node\":\"node-{node}\",{}\n", &row[1..]);
        let data: String = rows.iter().map(of_node).collect();
        server.ask("INSERT INTO attempts FORMAT JSONEachRow", data.as_bytes())?;
    }
    let took = began.elapsed();
    let counted = server.ask(
        "SELECT count(), uniqExact(node), countIf(verdict = 'completed'), countIf(verdict = 'refused'), \
         min(length(started)) FROM attempts",
        b"",
    )?;
    let figures: Vec<usize> = counted.split('\t').map(str::parse).collect::<Result<_, _>>()?;
    let all = nodes * ATTEMPTS;
    let expected = [all, nodes, nodes * (ATTEMPTS - REFUSED), nodes * REFUSED];
    ensure!(figures[..4] == expected, "{counted} are not {expected:?}");
    ensure!(figures[4] > 0, "rows without a time");
    Ok((all, took))
}

/// The rows of a run: each ended attempt.
fn written(pair: &Pair, handshake: &FilePath) -> Result<Vec<Value>> {
    let path = pair.path(Family::V4);
    let agent = Agent::start(&pair.server, handshake, &["-i", DEVICE, "--events", "all"])?;
    let listener = Listener::new(&path, 0, 512)?;
    // As many descriptors at a time as are usually allowed.
    for _ in 0..(ATTEMPTS - REFUSED) / AT_ONCE {
        drop(tcp::connect_accept(&path, &listener, AT_ONCE)?);
    }
    tcp::refused(&path, REFUSED)?;
    let mut rows = agent.stop()?.flows()?;
    rows.retain(|row| matches!(row["verdict"].as_str(), Some("completed" | "refused")));
    ensure!(rows.len() == ATTEMPTS, "{} rows of {ATTEMPTS} attempts", rows.len());
    Ok(rows)
}
