//! A server of HTTP that keeps what is posted to it, and answers as it is told to. It knows nothing of what is
//! in it.

use std::collections::{HashMap, VecDeque};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use anyhow::{Context, Result};
use flate2::read::GzDecoder;
use rustix::net::{Shutdown, shutdown};

use crate::namespace::Namespace;

/// A request.
#[derive(Clone, Debug)]
pub struct Posted {
    /// Its path.
    pub path: String,
    /// Its headers, with names in lower case.
    pub headers: HashMap<String, String>,
    /// Its body, unpacked.
    pub body: Vec<u8>,
    /// When it had come as a whole.
    pub at: Instant,
}

/// An answer, or what stands for one.
#[derive(Clone, Debug)]
pub enum Reply {
    /// A status such as `200 OK`, more lines of the head, and a body.
    Answer(&'static str, &'static str, Vec<u8>),
    /// The connection is closed.
    Close,
    /// These bytes, and the connection is closed.
    Garbage(&'static [u8]),
    /// No answer until the end.
    Silence,
}

impl Reply {
    /// All is taken.
    #[must_use]
    pub const fn ok() -> Self {
        Self::Answer("200 OK", "content-type: application/x-protobuf\r\n", Vec::new())
    }
}

/// A server that runs. It ends, with its connections, on drop.
#[derive(Debug)]
pub struct Collector {
    address: SocketAddr,
    listener: TcpListener,
    shared: Arc<Mutex<Shared>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    posted: Vec<Posted>,
    replies: HashMap<String, VecDeque<Reply>>,
    connections: Vec<TcpStream>,
}

impl Collector {
    /// Serves a port of the namespace's loopback; with 0 the system chooses one.
    ///
    /// # Errors
    /// The port is taken, or the system's.
    pub fn start(host: &Namespace, port: u16) -> Result<Self> {
        let listener = host.enter(|| Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, port))?))?;
        let (address, accepting) = (listener.local_addr()?, listener.try_clone()?);
        let shared: Arc<Mutex<Shared>> = Arc::default();
        let thread = thread::spawn({
            let shared = Arc::clone(&shared);
            move || accept(&accepting, &shared)
        });
        Ok(Self { address, listener, shared, thread: Some(thread) })
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers the next requests to `path` by these, and later ones by [`Reply::ok`].
    pub fn reply(&self, path: &str, replies: impl IntoIterator<Item = Reply>) {
        locked(&self.shared).replies.entry(path.to_owned()).or_default().extend(replies);
    }

    /// What was posted to `path`.
    #[must_use]
    pub fn posted(&self, path: &str) -> Vec<Posted> {
        locked(&self.shared).posted.iter().filter(|posted| posted.path == path).cloned().collect()
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        // Ends the waiting for a connection.
        let _ = shutdown(&self.listener, Shutdown::Both);
        let _ended = self.thread.take().map(JoinHandle::join);
        for connection in &locked(&self.shared).connections {
            let _ = connection.shutdown(std::net::Shutdown::Both);
        }
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Mutex<Shared>>) {
    while let Ok((stream, _)) = listener.accept() {
        let Ok(kept) = stream.try_clone() else { return };
        locked(shared).connections.push(kept);
        let shared = Arc::clone(shared);
        // What is no request ends its connection.
        thread::spawn(move || serve(&stream, &shared));
    }
}

fn serve(stream: &TcpStream, shared: &Mutex<Shared>) -> Result<()> {
    let mut reader = BufReader::new(stream);
    let mut to = stream;
    loop {
        let posted = receive(&mut reader)?;
        let reply = {
            let mut shared = locked(shared);
            let reply = shared.replies.get_mut(&posted.path).and_then(VecDeque::pop_front);
            shared.posted.push(posted);
            reply.unwrap_or_else(Reply::ok)
        };
        match reply {
            Reply::Answer(status, head, body) => {
                write!(to, "HTTP/1.1 {status}\r\n{head}content-length: {}\r\n\r\n", body.len())?;
                to.write_all(&body)?;
            }
            Reply::Silence => {}
            Reply::Garbage(bytes) => {
                to.write_all(bytes)?;
                return Ok(stream.shutdown(std::net::Shutdown::Both)?);
            }
            Reply::Close => return Ok(stream.shutdown(std::net::Shutdown::Both)?),
        }
    }
}

/// Reads a request.
fn receive(from: &mut impl BufRead) -> Result<Posted> {
    let mut line = String::new();
    from.read_line(&mut line)?;
    let path = line.split(' ').nth(1).context("no request")?.to_owned();
    let mut headers = HashMap::new();
    loop {
        let mut line = String::new();
        from.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let length: usize = headers.get("content-length").context("no length")?.parse()?;
    let mut body = vec![0; length];
    from.read_exact(&mut body)?;
    let at = Instant::now();
    if headers.get("content-encoding").is_some_and(|encoding| encoding == "gzip") {
        let mut plain = Vec::new();
        GzDecoder::new(&*body).read_to_end(&mut plain)?;
        body = plain;
    }
    Ok(Posted { path, headers, body, at })
}

fn locked(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}
