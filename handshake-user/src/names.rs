//! Names in the place of numbers, for `--names`: of ports by /etc/services, of addresses by /etc/hosts and then by
//! the name servers of /etc/resolv.conf. Text and terminal show them; JSON has numbers alone.
//!
//! ```text
//! drawing ─▶ Names ─▶ files            known at once
//!              │    ─▶ cache ─▶ known, or the number for now
//!              └─ asked ─▶ queue ─▶ thread: rate, sockets of UDP ─▶ cache
//! ```
//!
//! Nothing waits for a name server: what is not known yet is shown as a number, and the next drawing has the name.
//! A name is the word of who owns the address, and says nothing of who speaks. What steers a terminal is escaped.

mod cache;
mod files;
mod message;
mod server;

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::ptr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use handshake_agent::confine::Confinement;
use handshake_agent::model::flow::Flow;
use handshake_agent::owner::Owner;
use handshake_common::flow::Side;
use tokio::sync::Notify;

use crate::escape::printable;
use cache::{Cache, Known};
use files::{Hosts, Ports};

const HOSTS: &str = "/etc/hosts";
const SERVICES: &str = "/etc/services";
const SERVERS: &str = "/etc/resolv.conf";

/// Most characters of a name: a longer one would push the figures off the line.
const LONGEST: usize = 64;

/// The names, where they are asked for.
#[derive(Clone, Copy, Default)]
pub(crate) struct Names(Option<&'static Book>);

/// What is known of names.
struct Book {
    hosts: Hosts,
    ports: Ports,
    cache: Mutex<Cache>,
    /// Tells the thread that something is asked.
    asked: Notify,
    /// Names that have come since the start.
    changes: AtomicU64,
}

impl Names {
    /// Numbers alone.
    pub(crate) const NONE: Self = Self(None);

    /// Reads the files, and starts the thread that asks name servers; a thread is confined by itself, and before
    /// this one. Only the helper must be started before.
    ///
    /// # Errors
    ///
    /// The system's: there is no room for a thread.
    pub(crate) fn open(confinement: Option<Confinement>) -> io::Result<Self> {
        let servers = server::servers(&files::read(SERVERS));
        let book = Box::leak(Box::new(Book {
            hosts: Hosts::parse(&files::read(HOSTS)),
            ports: Ports::parse(&files::read(SERVICES)),
            cache: Mutex::default(),
            asked: Notify::new(),
            changes: AtomicU64::new(0),
        }));
        server::start(book, servers, confinement)?;
        Ok(Self(Some(book)))
    }

    /// Whether names are asked for.
    pub(crate) const fn are_wanted(self) -> bool {
        self.0.is_some()
    }

    /// The responder's end: the port has the name of its service.
    pub(crate) fn service(self, end: SocketAddr, udp: bool) -> String {
        match self.0 {
            Some(book) => book.end(end, book.ports.name(end.port(), udp)),
            None => end.to_string(),
        }
    }

    /// The initiator's end. Its port is any that was free, so it has no name.
    pub(crate) fn client(self, end: SocketAddr) -> String {
        self.0.map_or_else(|| end.to_string(), |book| book.end(end, None))
    }

    /// The responder's end with its owner in the place of its address.
    pub(crate) fn owned_service(self, owner: &Owner, port: u16, udp: bool) -> String {
        match self.0.and_then(|book| book.ports.name(port, udp)) {
            Some(port) => format!("{}:{port}", label(owner)),
            None => owned_client(owner, port),
        }
    }

    /// An address alone.
    pub(crate) fn address(self, address: IpAddr) -> String {
        self.0.and_then(|book| book.address(address)).unwrap_or_else(|| address.to_string())
    }

    /// How many names have come since the start: what was drawn before may be drawn again.
    pub(crate) fn changes(self) -> u64 {
        self.0.map_or(0, |book| book.changes.load(Ordering::Relaxed))
    }

    /// Waits for the names that are asked for, `patience` at most. For what is drawn once, where nothing else runs.
    pub(crate) fn wait(self, patience: Duration) {
        const LOOK_EVERY: Duration = Duration::from_millis(10);
        let Some(book) = self.0 else { return };
        let until = Instant::now() + patience;
        while book.cache().is_waiting() && Instant::now() < until {
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// Names of a table, for tests: of addresses, and of ports of TCP and UDP.
    #[cfg(test)]
    pub(crate) fn fixed(hosts: &str, ports: &str) -> Self {
        Self(Some(Box::leak(Box::new(Book {
            hosts: Hosts::parse(hosts),
            ports: Ports::parse(ports),
            cache: Mutex::default(),
            asked: Notify::new(),
            changes: AtomicU64::new(0),
        }))))
    }
}

impl Book {
    fn cache(&self) -> MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `name:port`, `address:port` or `[address]:port`.
    fn end(&self, end: SocketAddr, port: Option<&str>) -> String {
        let address = self.address(end.ip());
        if address.is_none() && port.is_none() {
            return end.to_string();
        }
        let address = address.unwrap_or_else(|| match end {
            SocketAddr::V4(_) => end.ip().to_string(),
            SocketAddr::V6(_) => format!("[{}]", end.ip()),
        });
        match port {
            Some(port) => format!("{address}:{port}"),
            None => format!("{address}:{}", end.port()),
        }
    }

    /// The name of an address as far as it is known. What is not known is asked for.
    fn address(&self, address: IpAddr) -> Option<String> {
        let address = address.to_canonical();
        if let Some(name) = self.hosts.name(address) {
            return Some(name.to_owned());
        }
        if !is_asked_for(address) {
            return None;
        }
        match self.cache().look_up(address, Instant::now()) {
            Known::Settled(name) => name.map(|name| name.to_string()),
            Known::Asked(stale) => {
                self.asked.notify_one();
                stale.map(|name| name.to_string())
            }
        }
    }

    /// Takes an answer.
    fn learn(&self, address: IpAddr, answer: message::Answer) {
        let name = answer.name.map(|name| shown(&name).into());
        if self.cache().learn(address, name, answer.lasts, Instant::now()) {
            self.changes.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Whether a name server may know it: not what has the same meaning on each host.
const fn is_asked_for(address: IpAddr) -> bool {
    let is_link_local = match address {
        IpAddr::V4(address) => address.is_link_local() || address.is_broadcast(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    };
    !(address.is_unspecified() || address.is_loopback() || address.is_multicast() || is_link_local)
}

/// The short name of an owner.
pub(crate) fn label(owner: &Owner) -> String {
    shown(&owner.label())
}

/// Whose an end of a flow is: `nginx[1873], nginx.service`, as far as it is known.
pub(crate) fn whose(flow: &Flow, side: Side, owner: Option<&Owner>) -> String {
    let process = flow.process(side).map(|process| shown(&process.to_string()));
    let parts: Vec<String> = process.into_iter().chain(owner.map(label)).collect();
    parts.join(", ")
}

/// The initiator's end with its owner in the place of its address.
pub(crate) fn owned_client(owner: &Owner, port: u16) -> String {
    format!("{}:{port}", label(owner))
}

/// A name from outside as it is shown.
fn shown(name: &str) -> String {
    let name = printable(name);
    if name.chars().count() <= LONGEST {
        return name.into_owned();
    }
    name.chars().take(LONGEST - 1).chain(['…']).collect()
}

impl fmt::Debug for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Names({})", self.are_wanted())
    }
}

impl PartialEq for Names {
    fn eq(&self, other: &Self) -> bool {
        match (self.0, other.0) {
            (Some(one), Some(other)) => ptr::eq(one, other),
            (one, other) => one.is_none() && other.is_none(),
        }
    }
}

impl Eq for Names {}

#[cfg(test)]
mod tests {
    use super::*;

    const HOSTS: &str = "127.0.0.1 localhost\n10.0.0.2 web.example web\nfd00::2 web6.example\n";
    const PORTS: &str = "https 443/tcp\ndomain 53/udp\n";

    fn end(text: &str) -> SocketAddr {
        text.parse().expect(text)
    }

    #[test]
    fn ends_have_names_as_far_as_they_are_known() {
        let names = Names::fixed(HOSTS, PORTS);
        let table = [
            ("10.0.0.2:443", false, "web.example:https", "web.example:443"),
            ("10.0.0.2:443", true, "web.example:443", "web.example:443"),
            ("10.0.0.3:53", true, "10.0.0.3:domain", "10.0.0.3:53"),
            ("[fd00::2]:443", false, "web6.example:https", "web6.example:443"),
            ("[fd00::3]:443", false, "[fd00::3]:https", "[fd00::3]:443"),
            ("[::ffff:10.0.0.2]:80", false, "web.example:80", "web.example:80"),
            ("127.0.0.1:8080", false, "localhost:8080", "localhost:8080"),
        ];
        for (text, udp, service, client) in table {
            assert_eq!(
                (names.service(end(text), udp), names.client(end(text))),
                (service.into(), client.into())
            );
            assert_eq!(Names::NONE.service(end(text), udp), text);
            assert_eq!(Names::NONE.client(end(text)), text);
        }
    }

    /// Drawing asks; the answer is there at the next drawing. Loopback, link-local and multicast are not asked for.
    #[test]
    fn what_is_drawn_is_asked_for() {
        let names = Names::fixed(HOSTS, PORTS);
        let book = names.0.expect("they are wanted");
        for address in ["127.0.0.2", "169.254.1.1", "224.0.0.1", "0.0.0.0", "::1", "fe80::1", "ff02::1"] {
            assert_eq!(names.address(address.parse().expect(address)), address);
        }
        assert!(!book.cache().is_waiting());
        let address: IpAddr = "198.51.100.7".parse().expect("an address");
        assert_eq!(names.address(address), "198.51.100.7");
        assert!(book.cache().is_waiting());
        assert_eq!(names.changes(), 0);
        let name = Some("evil\u{1b}[2J\u{202e}.example".to_owned());
        book.learn(address, message::Answer { name, lasts: Duration::from_secs(60) });
        assert_eq!(names.client(SocketAddr::new(address, 9)), "evil\\u{1b}[2J\\u{202e}.example:9");
        assert_eq!(names.changes(), 1);
        assert_eq!(shown(&"a".repeat(300)).chars().count(), LONGEST);
    }

    #[test]
    fn a_wait_has_an_end() {
        let names = Names::fixed(HOSTS, PORTS);
        let began = Instant::now();
        names.wait(Duration::from_secs(60));
        Names::NONE.wait(Duration::from_secs(60));
        assert!(began.elapsed() < Duration::from_secs(30), "nothing is asked for");
        names.address("198.51.100.7".parse().expect("an address"));
        names.wait(Duration::from_millis(50));
        assert!(began.elapsed() >= Duration::from_millis(50));
    }
}
