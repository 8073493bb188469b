//! Faults at five hosts in a row, with and without address translation, and what two accounts of the same
//! attempts say of them together.
//!
//! ```text
//! client ── before ── router ── behind ── server
//!   │                   │                   │
//!   └── handshake ──────┴──── watches ──────┘     three accounts, joined two by two
//! ```

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File};
use std::io::{BufWriter, Write as _};
use std::path::{Path as FilePath, PathBuf};
use std::process::{self, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use handshake_common::flow::Family;
use serde_json::Value;

use crate::agent::{Agent, AgentOutcome};
use crate::faults::drop_by;
use crate::interrupt;
use crate::namespace::Namespace;
use crate::process::{Process, output};
use crate::schema;
use crate::tcp::{Attempts, Listener};
use crate::topology::{FAMILIES, Row};

/// Limit for each step.
const LIMIT: Duration = Duration::from_secs(30);
/// Limit for the last output: it has a row for each attempt.
const LAST_OUTPUT: Duration = Duration::from_secs(120);
/// Joins whose median is taken.
const ROUNDS: usize = 3;
/// From when on an attempt that lacks a segment is half-open.
const HALF_OPEN_AFTER: Duration = Duration::from_millis(400);
/// Connections that are in progress at a time.
const AT_ONCE: usize = 200;
/// The same through a proxy: of more it takes tens of milliseconds longer for the last than for the first.
const AT_ONCE_PROXIED: usize = 20;
/// The port of the proxy's clients.
const FRONT: u16 = 8080;
/// The port of the service behind it.
const BACK: u16 = 450;

/// What the router in the middle translates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Translation {
    /// Nothing.
    None,
    /// The initiators' addresses: `masquerade`.
    Source,
    /// The responder's address.
    Destination,
    /// Both.
    Both,
}

impl Translation {
    /// Each.
    pub const ALL: [Self; 4] = [Self::None, Self::Source, Self::Destination, Self::Both];

    const fn of_source(self) -> bool {
        matches!(self, Self::Source | Self::Both)
    }

    const fn of_destination(self) -> bool {
        matches!(self, Self::Destination | Self::Both)
    }

    fn set(self, row: &Row) -> Result<()> {
        let rule = |line: &str| row.router.run("nft", &[line]).map(drop);
        rule("add table inet n")?;
        if self.of_source() {
            rule("add chain inet n source { type nat hook postrouting priority 100; }")?;
            rule("add rule inet n source oifname eth1 masquerade")?;
        }
        if self.of_destination() {
            let [from4, from6] = Row::UNOWNED;
            let [to4, to6] = FAMILIES.map(|family| row.path(family).destination);
            rule("add chain inet n destination { type nat hook prerouting priority -100; }")?;
            rule(&format!("add rule inet n destination ip daddr {from4} dnat ip to {to4}"))?;
            rule(&format!("add rule inet n destination ip6 daddr {from6} dnat ip6 to {to6}"))?;
        }
        Ok(())
    }
}

/// What a join says of each attempt: its outcome, and the segment that was lost.
type Said = Option<(&'static str, Option<&'static str>)>;

const COMPLETED: Said = Some(("completed", None));

const fn between(segment: &'static str) -> Said {
    Some(("lost_between", Some(segment)))
}

/// One of the five hosts.
type Host = fn(&Row) -> &Namespace;

/// A fault at one host. Each has a port of its own, so that all of them are in one account.
struct Spot {
    name: &'static str,
    port: u16,
    /// Where it is, and at which hook.
    host: Option<(Host, &'static str)>,
    /// What is dropped, beside the port.
    rule: &'static str,
    /// What is said by the accounts of client and server, of client and router, and of router and server.
    said: [Said; 3],
}

/// No fault, and one at each host.
const SPOTS: [Spot; 6] = [
    Spot { name: "none", port: 440, host: None, rule: "", said: [COMPLETED; 3] },
    Spot {
        name: "the client drops what comes in",
        port: 441,
        host: Some((|row| &row.client, "input")),
        rule: "tcp sport 441",
        said: [Some(("lost_in_first", None)); 3],
    },
    Spot {
        name: "SYNs are dropped before the router",
        port: 442,
        host: Some((|row| &row.before, "forward")),
        rule: "tcp dport 442",
        said: [between("syn"), between("syn"), None],
    },
    Spot {
        name: "the router drops SYN+ACKs",
        port: 443,
        host: Some((|row| &row.router, "forward")),
        rule: "tcp sport 443",
        said: [between("syn_ack"), between("syn_ack"), Some(("lost_in_first", None))],
    },
    Spot {
        name: "ACKs are dropped behind the router",
        port: 444,
        host: Some((|row| &row.behind, "forward")),
        rule: "tcp dport 444 tcp flags & syn == 0",
        said: [between("ack"), COMPLETED, between("ack")],
    },
    Spot {
        name: "the server drops what comes in",
        port: 445,
        host: Some((|row| &row.server, "input")),
        rule: "tcp dport 445",
        said: [Some(("lost_in_second", None)); 3],
    },
];

/// What was named right.
#[derive(Debug)]
pub struct Judged {
    /// Attempts of all spots.
    pub attempts: usize,
    /// How long it took to make them, and to write what three places saw of them.
    pub watched: Duration,
    /// How long it took to join these accounts, two by two.
    pub joined: Duration,
}

impl fmt::Display for Judged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { attempts, watched, joined } = self;
        write!(
            f,
            "the spot of each of {attempts} attempts named, by three pairs; watched for {watched:.1?}, "
        )?;
        write!(f, "joined and judged in {joined:.1?}")
    }
}

/// Makes so many attempts over each family beside each fault, and holds what each pair of accounts says of
/// them against the spot of the fault.
///
/// # Errors
/// An attempt is said to be lost elsewhere, or the network cannot be made.
pub fn judge(binary: &FilePath, translation: Translation, attempts: usize) -> Result<Judged> {
    let row = Row::new()?;
    translation.set(&row)?;
    for spot in &SPOTS {
        if let Some((host, hook)) = spot.host {
            drop_by(host(&row), hook, spot.rule)?;
        }
    }
    let began = Instant::now();
    let [client, router, server] = watched(binary, &row, |row| {
        for family in FAMILIES {
            let path = row.path(family);
            let [unowned4, unowned6] = Row::UNOWNED;
            let unowned = if family == Family::V4 { unowned4 } else { unowned6 };
            let to = if translation.of_destination() { unowned.parse()? } else { path.destination };
            for spot in &SPOTS {
                let _listener = Listener::new(&path, spot.port, 4_096)?;
                let wait = matches!(spot.port, 440 | 444);
                connect(row, family, (to, spot.port).into(), attempts, AT_ONCE, wait)?;
            }
        }
        Ok(())
    })?;
    let (watched, began) = (began.elapsed(), Instant::now());
    let pairs = [
        ("client and server", &client, &server),
        ("client and router", &client, &router),
        ("router and server", &router, &server),
    ];
    for (place, (names, first, second)) in pairs.into_iter().enumerate() {
        let joined = Accounts::new(&first.stdout, &second.stdout)?.join(binary, &["--flows"])?;
        // What the router sees first is not translated yet.
        let is_translated = place != 1 && translation != Translation::None;
        judge_rows(&joined, place, attempts * FAMILIES.len(), is_translated)
            .with_context(|| format!("{names}, translation {translation:?}"))?;
    }
    Ok(Judged { attempts: attempts * FAMILIES.len() * SPOTS.len(), watched, joined: began.elapsed() })
}

/// Starts connections, so many at a time; with `wait` they are established before the next ones.
fn connect(
    row: &Row,
    family: Family,
    to: std::net::SocketAddr,
    count: usize,
    at_once: usize,
    wait: bool,
) -> Result<()> {
    let path = row.path(family);
    let mut left = count;
    while left != 0 {
        let now = left.min(at_once);
        let attempts = Attempts::start(&path, to, now)?;
        if wait {
            attempts.wait_established(LIMIT)?;
        }
        left -= now;
    }
    Ok(())
}

/// What the client, the router and the server saw of what `act` does.
fn watched(binary: &FilePath, row: &Row, act: impl FnOnce(&Row) -> Result<()>) -> Result<[AgentOutcome; 3]> {
    let places: [(&Namespace, &[&str]); 3] =
        [(&row.client, &["eth0"]), (&row.router, &["eth0", "eth1"]), (&row.server, &["eth0"])];
    let mut agents = Vec::new();
    for (host, devices) in places {
        let mut command = host.command(binary);
        command.args(["watch", "-o", "jsonl", "--events", "all", "--flows", "--interval", "250ms"]);
        let half_open_after = format!("{}ms", HALF_OPEN_AFTER.as_millis());
        command.args(["--half-open-after", &half_open_after, "--max-flows", "100000"]);
        command.args(devices.iter().flat_map(|device| ["-i", device]));
        agents.push((Agent::begin(command)?, devices.len()));
    }
    for (agent, devices) in &mut agents {
        agent.await_attached(*devices)?;
    }
    act(row)?;
    // Until the last attempt is old enough to be half-open: an earlier report has none that is opening, either.
    interrupt::pause_until(Instant::now() + HALF_OPEN_AFTER + HALF_OPEN_AFTER / 2)?;
    let mut outcomes = Vec::new();
    for (mut agent, _) in agents {
        agent.await_report(LIMIT, |report| report["tcp"]["opening"] == 0)?;
        outcomes.push(agent.stop_within(LAST_OUTPUT)?);
    }
    <[AgentOutcome; 3]>::try_from(outcomes).ok().context("three accounts")
}

fn judge_rows(joined: &Joined, place: usize, attempts: usize, is_translated: bool) -> Result<()> {
    let mut wrong = Vec::new();
    for spot in &SPOTS {
        let is_of = |row: &&Value| {
            let side = if row["first"].is_object() { &row["first"] } else { &row["second"] };
            side["responder"]["port"] == spot.port
        };
        let rows: Vec<&Value> = joined.rows.iter().filter(is_of).collect();
        let mut said: BTreeMap<String, usize> = BTreeMap::new();
        for row in &rows {
            let is_both = row["first"].is_object() && row["second"].is_object();
            let is_right = !is_both || row["translated"] == is_translated;
            *said.entry(format!("{} {} {is_right}", row["outcome"], row["segment"])).or_default() += 1;
        }
        let expected = spot.said[place].map(|(outcome, segment)| {
            format!("\"{outcome}\" {} true", segment.map_or(Value::Null, Value::from))
        });
        let expected: BTreeMap<String, usize> = expected.into_iter().map(|said| (said, attempts)).collect();
        if said != expected {
            wrong.push(format!("{}: {said:?} instead of {expected:?}", spot.name));
        }
    }
    ensure!(wrong.is_empty(), "{}\n{:#}", wrong.join("\n"), joined.sum);
    ensure!(joined.sum["exact"] == true, "{:#}", joined.sum);
    Ok(())
}

/// Makes so many attempts over each family through haproxy at the router, and holds the join of client and
/// server against them. Returns the number of attempts.
///
/// # Errors
/// An attempt is matched, or not said to be answered between; haproxy cannot be started.
pub fn proxied(binary: &FilePath, attempts: usize) -> Result<usize> {
    let row = Row::new()?;
    let folder = Folder::new()?;
    let listeners = FAMILIES.map(|family| Listener::new(&row.path(family), BACK, 4_096));
    for listener in &listeners {
        ensure!(listener.is_ok(), "{listener:?}");
    }
    let [front4, front6] = Row::NEAR_ROUTER;
    let [back4, back6] = FAMILIES.map(|family| row.path(family).destination);
    let config = format!(
        "global\n maxconn 4000\ndefaults\n mode tcp\n timeout connect 9s\n timeout client 9s\n timeout server 9s\n\
         listen v4\n bind {front4}:{FRONT}\n server s {back4}:{BACK}\n\
         listen v6\n bind [{front6}]:{FRONT}\n server s [{back6}]:{BACK}\n"
    );
    let file = folder.write("haproxy.cfg", &config)?;
    let mut command = row.router.command("haproxy");
    let _haproxy = Process::start(command.args(["-q", "-db", "-f"]).arg(file).stdout(Stdio::null()))?;
    let [client, _, server] = watched(binary, &row, |row| {
        for (family, front) in FAMILIES.into_iter().zip(Row::NEAR_ROUTER) {
            let to = (front.parse::<std::net::IpAddr>()?, FRONT).into();
            await_listening(row, family, to)?;
            connect(row, family, to, attempts - 1, AT_ONCE_PROXIED, true)?;
        }
        Ok(())
    })?;
    let accounts = Accounts::new(&client.stdout, &server.stdout)?;
    let joined = accounts.join(binary, &["--flows"])?;
    let all = attempts * FAMILIES.len();
    let answered = joined.rows.iter().filter(|row| row["outcome"] == "answered_between").count();
    let wrong: Vec<&Value> = joined.rows.iter().filter(|row| row["matched"] == true).take(3).collect();
    ensure!(
        answered == all && joined.rows.len() == all + refusals(&joined) && wrong.is_empty(),
        "{answered} of {all} answered between, {} rows: {wrong:#?}\n{:#}",
        joined.rows.len(),
        joined.sum
    );
    Ok(all)
}

/// Attempts that were refused before haproxy listened.
fn refusals(joined: &Joined) -> usize {
    joined.rows.iter().filter(|row| row["outcome"] == "ended").count()
}

/// Connects once something listens: one attempt is established.
fn await_listening(row: &Row, family: Family, to: std::net::SocketAddr) -> Result<()> {
    let deadline = Instant::now() + LIMIT;
    while Attempts::start(&row.path(family), to, 1)?.wait_established(LIMIT).is_err() {
        ensure!(Instant::now() < deadline, "nothing listens at {to}");
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// How the joins of many attempts went.
#[derive(Debug)]
pub struct Measured {
    /// Attempts in each account.
    pub attempts: usize,
    /// Bytes of both files.
    pub bytes: u64,
    /// How long a join took, in the median.
    pub took: Duration,
    /// How long it takes to read the same lines as plain JSON, in the median; not known where nothing does that.
    pub plain: Option<Duration>,
    /// Memory at its peak, bytes, and what was said beforehand.
    pub peak: u64,
    /// See `peak`.
    pub said: u64,
}

/// Joins two made accounts of so many attempts each, translated, of which each hundredth lost its SYN+ACK. `plain`
/// reads files of lines as plain JSON.
///
/// # Errors
/// The sums are not those of what was made, or the join takes more memory than it said.
pub fn many(binary: &FilePath, plain: Option<&FilePath>, attempts: usize) -> Result<Measured> {
    let folder = Folder::new()?;
    let paths = [folder.path("client.jsonl"), folder.path("server.jsonl")];
    for (side, path) in paths.iter().enumerate() {
        make(path, attempts, side == 1)?;
    }
    let bytes = paths.iter().map(|path| Ok(fs::metadata(path)?.len())).sum::<Result<u64>>()?;
    let (mut joins, mut plains, mut peak, mut said) = (Vec::new(), Vec::new(), 0, 0);
    for _ in 0..ROUNDS {
        let mut command = Command::new(binary);
        let ran = Ran::of(command.arg("join").args(&paths).args(["-o", "json"]), &folder)?;
        hold(&ran, attempts)?;
        said = memory_said(&ran.stderr).with_context(|| ran.stderr.clone())?;
        peak = peak.max(ran.peak);
        joins.push(ran.took);
        if let Some(plain) = plain {
            let ran = Ran::of(Command::new(plain).args(&paths), &folder)?;
            // And a report each.
            ensure!(ran.stdout.trim() == (2 * attempts + 2).to_string(), "{ran:?}");
            plains.push(ran.took);
        }
    }
    ensure!(peak <= said, "{peak} bytes at the peak, and {said} were said");
    let median = |mut all: Vec<Duration>| {
        all.sort_unstable();
        all.get(all.len() / 2).copied()
    };
    let took = median(joins).context("no join")?;
    Ok(Measured { attempts, bytes, took, plain: median(plains), peak, said })
}

/// A program that ran to its end.
#[derive(Debug)]
struct Ran {
    stdout: String,
    stderr: String,
    took: Duration,
    /// Memory at its peak, bytes.
    peak: u64,
}

impl Ran {
    fn of(command: &mut Command, folder: &Folder) -> Result<Self> {
        let [stdout, stderr] = ["stdout", "stderr"].map(|name| folder.path(name));
        command.stdin(Stdio::null()).stdout(File::create(&stdout)?).stderr(File::create(&stderr)?);
        let began = Instant::now();
        let mut process = Process::start(command)?;
        let (mut peak, status) = (0, format!("/proc/{}/status", process.id()));
        while process.child().try_wait()?.is_none() {
            let now = fs::read_to_string(&status).unwrap_or_default();
            let high = now
                .lines()
                .find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse().ok());
            peak = peak.max(high.unwrap_or(0_u64) * 1024);
            thread::sleep(Duration::from_millis(2));
        }
        let took = began.elapsed();
        Ok(Self { stdout: fs::read_to_string(stdout)?, stderr: fs::read_to_string(stderr)?, took, peak })
    }
}

/// The bytes that a join said it takes at most: `joining takes 541 MiB of memory at most`.
fn memory_said(stderr: &str) -> Option<u64> {
    let (number, unit) = stderr.split_once("joining takes ")?.1.split_once(' ')?;
    let shift = match unit.split_whitespace().next()? {
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        _ => return None,
    };
    let (whole, tenths) = number.split_once('.').unwrap_or((number, "0"));
    Some(((whole.parse::<u64>().ok()? * 10 + tenths.parse::<u64>().ok()?) << shift) / 10)
}

/// Holds the sums of two made accounts against what was made.
fn hold(ran: &Ran, attempts: usize) -> Result<()> {
    let sum: Value = serde_json::from_str(&ran.stdout).with_context(|| ran.stderr.clone())?;
    let (all, lost) = (attempts as u64, attempts.div_ceil(100) as u64);
    ensure!(
        sum["matched"] == all
            && sum["translated"] == all
            && sum["lost_between"]["syn_ack"] == lost
            && sum["completed"] == all - lost
            && sum["exact"] == true,
        "{sum:#}"
    );
    Ok(())
}

/// Writes an account as handshake does: of the client's side, or of the server's.
fn make(path: &FilePath, attempts: usize, is_server: bool) -> Result<()> {
    let mut out = BufWriter::with_capacity(1 << 20, File::create(path)?);
    let (client, seat) = if is_server { ("198.18.2.1", "responder") } else { ("192.0.2.1", "initiator") };
    let time = |number: usize, after: usize| {
        let ns = number as u64 * 20_000 + after as u64;
        let time = std::time::UNIX_EPOCH + Duration::from_secs(1_772_366_621) + Duration::from_nanos(ns);
        humantime::format_rfc3339_nanos(time)
    };
    let mut completed = 0;
    for number in 0..attempts {
        // Numbers as stacks draw them: by chance, some are the same.
        let mix = (number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let [a, b, c, d, e, f, g, h] = (mix ^ mix >> 29).to_be_bytes();
        let (j, k) = (u32::from_be_bytes([e, f, g, h]), u32::from_be_bytes([a, b, c, d]) ^ 0x5bd1_e995);
        let port = 1_024 + number % 60_000;
        let started = time(number, if is_server { 150_000 } else { 0 });
        let ended = time(number, 900_000);
        let is_lost = number % 100 == 0;
        let verdict = match (is_lost, is_server) {
            (true, true) => format!(
                r#""verdict":"half_open_expired","cause":"no_ack","seat":"{seat}","interface":"eth0","isn_initiator":{j},"isn_responder":{k},"syn":1,"syn_ack":1,"ack":0"#
            ),
            (true, false) => format!(
                r#""verdict":"half_open_expired","cause":"no_syn_ack","seat":"{seat}","interface":"eth0","isn_initiator":{j},"syn":1,"syn_ack":0,"ack":0"#
            ),
            (false, _) => format!(
                r#""verdict":"completed","seat":"{seat}","interface":"eth0","isn_initiator":{j},"isn_responder":{k},"syn":1,"syn_ack":1,"ack":1"#
            ),
        };
        let times = match (is_lost, is_server) {
            (true, false) => "",
            (true, true) => r#""syn_to_syn_ack_ns":64000,"#,
            (false, true) => r#""syn_to_syn_ack_ns":64000,"syn_ack_to_ack_ns":320000,"connect_ns":384000,"#,
            (false, false) => r#""syn_to_syn_ack_ns":384000,"syn_ack_to_ack_ns":64000,"connect_ns":448000,"#,
        };
        completed += usize::from(!is_lost);
        writeln!(
            out,
            r#"{{"type":"flow","event":"ended","at":"{ended}","protocol":"tcp","initiator":{{"address":"{client}","port":{port}}},"responder":{{"address":"203.0.113.2","port":443}},{verdict},"syn_retransmits":0,"syn_ack_retransmits":0,{times}"flags":[],"started":"{started}","ended":"{ended}"}}"#
        )?;
    }
    let (from, to) = (time(0, 0), time(attempts + 50_000, 0));
    writeln!(
        out,
        r#"{{"type":"report","schema":1,"from":"{from}","to":"{to}","exact":true,"inexact":[],"tcp":{{"attempts":{attempts},"completed":{completed}}}}}"#
    )?;
    Ok(out.flush()?)
}

/// What a join says: of each attempt, and of all.
#[derive(Debug)]
pub struct Joined {
    /// Its rows.
    pub rows: Vec<Value>,
    /// What they come to.
    pub sum: Value,
    /// Its exit code.
    pub code: Option<i32>,
}

/// The files of two accounts. Removed on drop.
#[derive(Debug)]
pub struct Accounts {
    folder: Folder,
}

impl Accounts {
    /// Two accounts as they were written.
    ///
    /// # Errors
    /// The files cannot be written.
    pub fn new(first: &str, second: &str) -> Result<Self> {
        let folder = Folder::new()?;
        folder.write("first.jsonl", first)?;
        folder.write("second.jsonl", second)?;
        Ok(Self { folder })
    }

    /// The paths of both.
    #[must_use]
    pub fn paths(&self) -> [PathBuf; 2] {
        ["first.jsonl", "second.jsonl"].map(|name| self.folder.path(name))
    }

    /// Joins both, as JSON. Each object is as its schema says.
    ///
    /// # Errors
    /// The join fails.
    pub fn join(&self, binary: &FilePath, words: &[&str]) -> Result<Joined> {
        let mut command = Command::new(binary);
        command.arg("join").args(self.paths()).args(["-o", "json"]).args(words);
        let output = output(&mut command)?;
        let text = String::from_utf8(output.stdout)?;
        let mut rows = text.lines().map(serde_json::from_str).collect::<Result<Vec<Value>, _>>()?;
        rows.iter().try_for_each(schema::check)?;
        let Some(sum) = rows.pop() else { bail!("{}", String::from_utf8_lossy(&output.stderr)) };
        Ok(Joined { rows, sum, code: output.status.code() })
    }
}

/// A folder of files, removed on drop.
#[derive(Debug)]
struct Folder(PathBuf);

impl Folder {
    fn new() -> Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("hs-join-{}-{number}", process::id()));
        fs::create_dir(&path).with_context(|| format!("make {}", path.display()))?;
        Ok(Self(path))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn write(&self, name: &str, content: &str) -> Result<PathBuf> {
        let path = self.path(name);
        fs::write(&path, content)?;
        Ok(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
