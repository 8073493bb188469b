//! Nodes that are made up, for `cargo xtask fleet`: one process answers `/node/N/metrics` with the page of
//! an agent. This crate writes the pages, of snapshots of a source whose counters and records are set here,
//! so they are an agent's but for what the traffic is.
//!
//! Each node has a few attempts a second at each of ten services; one of 200 stays half-open. From the
//! request `/incident` on, two of five attempts at the first service have no ACK, on every third node.

use std::env;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use handshake_agent::fake::{Fake, SECOND, snapshot};
use handshake_agent::model::context::{InterfaceHooks, LiveOrigin, Origin, RunContext};
use handshake_agent::model::snapshot::Snapshot;
use handshake_common::abi::Counter;
use handshake_common::flow::Family;
use handshake_common::record::{Detail, State};
use handshake_common::verdict::Cause;
use handshake_common::wire::Class;
use handshake_export::figures::{Beside, Figures, Named};
use handshake_export::page::Page;
use handshake_export::prometheus::Form;
use handshake_export::service::ServiceRule;

/// The names of the services; the first one has the incident.
const SERVICES: [&str; 10] =
    ["checkout", "cart", "search", "login", "mail", "images", "stock", "prices", "orders", "ssh"];
/// The port of the first one.
const FIRST_PORT: u16 = 443;
/// The row of the first one: before it is that of what has none.
const FIRST_ROW: u16 = 1;
/// One attempt of so many stays half-open.
const USUAL: u64 = 200;
/// So many of [`OF`] attempts do in the incident.
const LOST: u64 = 2;
const OF: u64 = 5;
/// Every third node has the incident.
const EVERY: usize = 3;
/// When a half-open attempt expires.
const EXPIRE_AFTER: u64 = 75 * SECOND;

/// A node: its source, and what its agent keeps between two readings.
struct Node {
    source: Fake,
    figures: Figures,
    latest: Snapshot,
    /// Seconds that have been played.
    played: u64,
    /// The attempts at each service.
    attempts: [u64; SERVICES.len()],
}

impl Node {
    fn new(context: &Arc<RunContext>, rules: &[ServiceRule]) -> Self {
        let mut source = Fake::new();
        for (row, port) in (FIRST_ROW..).zip(FIRST_PORT..).take(SERVICES.len()) {
            source.service(row, &format!("10.0.0.2:{port}"));
        }
        let latest = Snapshot::take(&mut source, context, None).expect("a fake never fails");
        let figures = Figures::new(Named { services: rules, ..Named::default() });
        Self { source, figures, latest, played: 0, attempts: [0; SERVICES.len()] }
    }

    /// Plays the seconds up to `second`.
    fn play(&mut self, number: usize, second: u64, incident: Option<u64>) {
        while self.played < second {
            self.played += 1;
            self.source.later(SECOND);
            self.expire();
            let is_ill = number.is_multiple_of(EVERY) && incident.is_some_and(|since| self.played > since);
            for (row, service) in (FIRST_ROW..).zip(0..SERVICES.len()) {
                self.second(row, 1 + (number as u64 + service as u64) % 3, is_ill && service == 0);
            }
        }
    }

    /// A second of a service.
    fn second(&mut self, row: u16, attempts: u64, is_ill: bool) {
        for _ in 0..attempts {
            let count = &mut self.attempts[usize::from(row - FIRST_ROW)];
            *count += 1;
            let fails = if is_ill { *count % OF < LOST } else { count.is_multiple_of(USUAL) };
            if fails {
                self.source.open(row, State::SynReceived, 0);
            } else {
                self.source.ended(row, Counter::Completed, 1);
                self.source.connect(row, 200_000 + *count % 1_000 * 3_000, 1);
            }
            self.source.packets(Class::Syn, Family::V4, 1);
            self.source.packets(Class::SynAck, Family::V4, 1);
        }
    }

    /// What is half-open for too long leaves the table.
    fn expire(&mut self) {
        let now = self.source.reading.now.ns;
        let is_over = |opened_ns: u64| now - opened_ns >= EXPIRE_AFTER;
        let mut over = Vec::new();
        self.source.records.retain(|record| {
            let is_over = matches!(&record.detail, Detail::Tcp(tcp) if is_over(tcp.opened_ns));
            if is_over {
                over.push(record.service);
            }
            !is_over
        });
        for row in over {
            self.source.gauge(row, Cause::NoAck.open(), -1);
            self.source.gauge(row, Cause::NoAck.expired(), 1);
        }
    }

    /// Reads it as an agent would.
    fn page(&mut self) -> Result<Page, handshake_agent::Error> {
        let context = Arc::clone(&self.latest.context);
        let began = Instant::now();
        let now = Snapshot::take(&mut self.source, &context, Some(&self.latest))?;
        let beside = Beside { took: began.elapsed(), ..Beside::default() };
        let exposition = self.figures.take_in(&now, &self.latest, &beside);
        self.latest = now;
        Ok(Page::of(exposition))
    }
}

/// All nodes.
struct Fleet {
    nodes: Vec<Node>,
    began: Instant,
    incident: Option<u64>,
}

impl Fleet {
    fn new(count: usize) -> Self {
        let rule = |(name, port): (&&str, u16)| format!("{name}=:{port}").parse();
        let rules: Result<Vec<ServiceRule>, _> = SERVICES.iter().zip(FIRST_PORT..).map(rule).collect();
        let rules = rules.expect("the names are right");
        let hooks = InterfaceHooks { name: "eth0".into(), ..InterfaceHooks::default() };
        let origin = Origin::Live(LiveOrigin { interfaces: vec![hooks], ..LiveOrigin::default() });
        let latest = snapshot();
        let context = Arc::new(RunContext { origin, ..RunContext::clone(&latest.context) });
        let nodes = (0..count).map(|_| Node::new(&context, &rules)).collect();
        Self { nodes, began: Instant::now(), incident: None }
    }

    /// Answers one request.
    fn answer(&mut self, mut stream: TcpStream) -> io::Result<()> {
        stream.set_read_timeout(Some(Duration::from_secs(2)))?;
        stream.set_write_timeout(Some(Duration::from_secs(2)))?;
        let mut lines = BufReader::new(stream.try_clone()?).lines();
        let first = lines.next().transpose()?.unwrap_or_default();
        let (mut accept, mut packs) = (String::new(), false);
        for line in lines {
            let line = line?.to_ascii_lowercase();
            if line.is_empty() {
                break;
            }
            accept = line.strip_prefix("accept: ").map_or(accept, str::to_owned);
            packs |= line.starts_with("accept-encoding: ") && line.contains("gzip");
        }
        let path = first.split(' ').nth(1).unwrap_or_default();
        let now = self.began.elapsed().as_secs();
        if path == "/incident" {
            self.incident = Some(now);
            return stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        }
        let number = path.strip_prefix("/node/").and_then(|path| path.strip_suffix("/metrics"));
        let number: usize = number.and_then(|number| number.parse().ok()).unwrap_or(usize::MAX);
        let Some(node) = self.nodes.get_mut(number) else {
            return stream
                .write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        };
        node.play(number, now, self.incident);
        let page = node.page().map_err(io::Error::other)?;
        let form = Form::accepted(&accept);
        let packed = packs.then(|| page.packed(form)).flatten();
        let encoding = if packed.is_some() { "Content-Encoding: gzip\r\n" } else { "" };
        let body = packed.unwrap_or_else(|| page.text(form));
        let (kind, length) = (form.content_type(), body.len());
        write!(
            stream,
            "HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\n{encoding}Content-Length: {length}\r\nConnection: close\r\n\r\n"
        )?;
        stream.write_all(&body)
    }
}

fn main() -> io::Result<()> {
    let mut words = env::args().skip(1);
    let (Some(address), Some(Ok(count))) = (words.next(), words.next().map(|count| count.parse())) else {
        return Err(io::Error::other("an address and the number of nodes are wanted"));
    };
    let listener = TcpListener::bind(address)?;
    let mut fleet = Fleet::new(count);
    for stream in listener.incoming() {
        // A scraper that has gone is no fault.
        let _ = stream.and_then(|stream| fleet.answer(stream));
    }
    Ok(())
}
