//! The thread that asks name servers: a question at a time for each address, a new socket for each question, so that
//! its port cannot be guessed, and no more than so many questions a second.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::thread;
use std::time::Duration;

use handshake_agent::confine::{Confinement, Network};
use tokio::net::UdpSocket;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::Book;
use super::message::{Answer, Reply, question, reply};

/// The port of name servers.
const PORT: u16 = 53;
/// Most servers that are asked, as in resolv.conf(5) (`MAXNS`).
const MOST_SERVERS: usize = 3;
/// How long a server is waited for.
const PATIENCE: Duration = Duration::from_secs(2);
/// The least time between two questions: 50 a second.
const PAUSE: Duration = Duration::from_millis(20);
/// Most addresses that are asked for at a time.
const MOST_AT_A_TIME: usize = 16;
/// Bytes of an answer without EDNS (RFC 1035, 4.2.1). What is longer is cut off, and is not asked for by TCP.
const ROOM: usize = 512;

/// The servers of resolv.conf(5); without one the one on this host.
pub(super) fn servers(text: &str) -> Vec<SocketAddr> {
    let of_line = |line: &str| {
        let mut words = line.split_whitespace();
        (words.next()? == "nameserver").then(|| words.next()?.parse::<IpAddr>().ok()).flatten()
    };
    let mut servers: Vec<SocketAddr> =
        text.lines().filter_map(of_line).take(MOST_SERVERS).map(|address| (address, PORT).into()).collect();
    if servers.is_empty() {
        servers.push((Ipv4Addr::LOCALHOST, PORT).into());
    }
    servers
}

/// Starts the thread. What it may do is settled first.
pub(super) fn start(
    book: &'static Book,
    servers: Vec<SocketAddr>,
    confinement: Option<Confinement>,
) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
    thread::Builder::new().name("names".to_owned()).spawn(move || {
        if let Some(confinement) = confinement
            && (Confinement { network: Network::Resolves, ..confinement }).apply().is_err()
        {
            // The main thread says so. Without names, everything else is as it is with them.
            return;
        }
        runtime.block_on(answer_all(book, &servers));
    })?;
    Ok(())
}

/// Asks for all that is asked for, for ever.
async fn answer_all(book: &'static Book, servers: &[SocketAddr]) {
    let mut pace = interval(PAUSE);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut asking = JoinSet::new();
    loop {
        while asking.try_join_next().is_some() {}
        if asking.len() >= MOST_AT_A_TIME {
            asking.join_next().await;
            continue;
        }
        let Some(address) = book.next() else {
            book.asked.notified().await;
            continue;
        };
        pace.tick().await;
        let servers = servers.to_vec();
        asking.spawn(async move { book.learn(address, ask_each(&servers, address).await) });
    }
}

/// The answer of the first server that gives one.
async fn ask_each(servers: &[SocketAddr], address: IpAddr) -> Answer {
    for server in servers {
        if let Ok(Ok(Some(answer))) = timeout(PATIENCE, ask(*server, address)).await {
            return answer;
        }
    }
    Answer::FAILED
}

/// Asks a server. `None` if it cannot answer.
async fn ask(server: SocketAddr, address: IpAddr) -> io::Result<Option<Answer>> {
    let mut id = [0; 2];
    rustix::rand::getrandom(&mut id, rustix::rand::GetRandomFlags::empty())?;
    let id = u16::from_ne_bytes(id);
    let Some(question) = question(id, address) else { return Ok(None) };
    let any: IpAddr = match server {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).await?;
    // The kernel then takes what comes from the server alone, and tells that there is none.
    socket.connect(server).await?;
    socket.send(&question).await?;
    let mut room = [0; ROOM];
    loop {
        let length = socket.recv(&mut room).await?;
        match reply(&room[..length], id, address) {
            Reply::Answer(answer) => return Ok(Some(answer)),
            Reply::Failure => return Ok(None),
            Reply::Other => {}
        }
    }
}

impl Book {
    fn next(&self) -> Option<IpAddr> {
        self.cache().next()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_servers_are_read() {
        let text = "# comment\ndomain example\nnameserver 192.0.2.1\nnameserver\t2001:db8::1\n\
            nameserver nonsense\n;nameserver 192.0.2.9\noptions edns0\nnameserver 192.0.2.2\nnameserver 192.0.2.3\n";
        let found: Vec<String> = servers(text).iter().map(ToString::to_string).collect();
        assert_eq!(found, ["192.0.2.1:53", "[2001:db8::1]:53", "192.0.2.2:53"]);
        assert_eq!(servers(""), [SocketAddr::from((Ipv4Addr::LOCALHOST, PORT))]);
    }
}
