//! The HTTP server: `/metrics`, `/healthz`, `/readyz`. It has a thread of its own, so it answers while the
//! programs are loaded, and a slow client holds nothing but its connection.
//!
//! Its thread has given up what the main thread does once it has attached: it accepts connections of sockets
//! that listened before, and asks the loop for readings.

use std::convert::Infallible;
use std::io;
use std::net::TcpListener as StdListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use handshake_agent::confine::Confinement;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ACCEPT, ACCEPT_ENCODING, ALLOW, CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderName};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustix::net::sockopt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::{AbortHandle, JoinHandle};
use tokio::time::{sleep, timeout};

use super::health::Health;
use super::page::Page;
use crate::prometheus::{Form, weight};

/// Connections at a time. One more ends the one that has waited longest.
pub const MOST_CONNECTIONS: usize = 64;
/// How long a request's head may take, and a connection may be without one.
const HEAD_WITHIN: Duration = Duration::from_secs(120);
/// How long a client may take nothing of what is sent to it, ms.
const TAKES_WITHIN_MS: u32 = 60_000;
/// Bytes of a request's head.
const MOST_HEAD: usize = 16 << 10;
/// How long the loop may take for a reading: Prometheus waits as long.
const READ_WITHIN: Duration = Duration::from_secs(10);
/// The pause after a connection that could not be accepted, as where no descriptor is left.
const PAUSE: Duration = Duration::from_millis(100);
/// Scrapes that wait for a reading.
const MOST_SCRAPES: usize = 64;

const INDEX: &str = "handshake: /metrics, /healthz, /readyz\n";
const PLAIN: &str = "text/plain; charset=utf-8";

/// A scrape that waits for a reading.
pub type Scrape = oneshot::Sender<Arc<Page>>;

/// The server, as the loop sees it.
pub struct Server {
    sockets: mpsc::UnboundedSender<Option<StdListener>>,
    scrapes: mpsc::Receiver<Scrape>,
}

impl Server {
    /// Starts the server's thread, which confines itself.
    ///
    /// # Errors
    ///
    /// The system's: there is no room for a thread or an event loop.
    pub fn start(health: Arc<Health>, confinement: Option<Confinement>) -> io::Result<Self> {
        let (sockets, given) = mpsc::unbounded_channel();
        let (ask, scrapes) = mpsc::channel(MOST_SCRAPES);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
        thread::Builder::new().name("http".to_owned()).spawn(move || {
            // What fails here fails on the main thread too, which says so.
            let _ = confinement.map(|confinement| confinement.apply());
            runtime.block_on(serve(given, Counter { health, ask }));
        })?;
        Ok(Self { sockets, scrapes })
    }

    /// Serves this socket from now on, in the place of the one before; without one, none. Connections that
    /// are open stay so.
    pub fn listen(&self, socket: Option<StdListener>) {
        // Its thread ends with the process.
        let _ = self.sockets.send(socket);
    }

    /// Waits for a scrape. Cancel-safe.
    pub async fn scrape(&mut self) -> Scrape {
        match self.scrapes.recv().await {
            Some(scrape) => scrape,
            None => std::future::pending().await,
        }
    }
}

/// Makes a listening socket of which the server's thread accepts.
///
/// # Errors
///
/// The system's: the address is taken, or is none of this host.
pub fn listen_at(address: std::net::SocketAddr) -> io::Result<StdListener> {
    let socket = StdListener::bind(address)?;
    socket.set_nonblocking(true)?;
    // Connections inherit it.
    sockopt::set_tcp_user_timeout(&socket, TAKES_WITHIN_MS)?;
    Ok(socket)
}

/// What answers requests.
#[derive(Clone)]
struct Counter {
    health: Arc<Health>,
    ask: mpsc::Sender<Scrape>,
}

async fn serve(mut given: mpsc::UnboundedReceiver<Option<StdListener>>, counter: Counter) {
    let (mut socket, mut connections) = (None, Connections::default());
    loop {
        tokio::select! {
            biased;
            other = given.recv() => match other {
                Some(other) => socket = other.and_then(|socket| TcpListener::from_std(socket).ok()),
                None => return,
            },
            accepted = accept(socket.as_ref()) => match accepted {
                Ok(stream) => connections.add(stream, counter.clone()),
                Err(_) => sleep(PAUSE).await,
            },
        }
    }
}

async fn accept(socket: Option<&TcpListener>) -> io::Result<TcpStream> {
    match socket {
        Some(socket) => socket.accept().await.map(|(stream, _)| stream),
        None => std::future::pending().await,
    }
}

/// The open connections.
#[derive(Default)]
struct Connections {
    all: Vec<Connection>,
    /// How many turns there were.
    turns: Arc<AtomicU64>,
}

struct Connection {
    task: AbortHandle,
    turn: Arc<Turn>,
}

/// When a connection began to wait for a request. Only the server's thread writes it.
struct Turn {
    /// The number of the turn; [`BUSY`] while a request is being answered.
    since: AtomicU64,
    turns: Arc<AtomicU64>,
}

/// The turn of a connection that does not wait.
const BUSY: u64 = u64::MAX;

impl Turn {
    fn begin(turns: &Arc<AtomicU64>) -> Arc<Self> {
        let turn = Self { since: AtomicU64::new(BUSY), turns: Arc::clone(turns) };
        turn.wait();
        Arc::new(turn)
    }

    fn answer(&self) {
        self.since.store(BUSY, Ordering::Relaxed);
    }

    fn wait(&self) {
        self.since.store(self.turns.fetch_add(1, Ordering::Relaxed), Ordering::Relaxed);
    }
}

impl Connections {
    fn add(&mut self, stream: TcpStream, counter: Counter) {
        self.all.retain(|connection| !connection.task.is_finished());
        if self.all.len() >= MOST_CONNECTIONS {
            // Where all are busy, the one that has been open longest.
            let waits_since =
                |(_, connection): &(usize, &Connection)| connection.turn.since.load(Ordering::Relaxed);
            if let Some((longest, _)) = self.all.iter().enumerate().min_by_key(waits_since) {
                self.all.remove(longest).task.abort();
            }
        }
        let turn = Turn::begin(&self.turns);
        let task: JoinHandle<()> = tokio::spawn(connection(stream, counter, Arc::clone(&turn)));
        self.all.push(Connection { task: task.abort_handle(), turn });
    }
}

/// Answers the requests of a connection until its client closes it, or does nothing for too long.
async fn connection(stream: TcpStream, counter: Counter, turn: Arc<Turn>) {
    let answer = service_fn(|request: Request<Incoming>| {
        let (counter, turn) = (counter.clone(), Arc::clone(&turn));
        async move {
            turn.answer();
            let response = counter.answer(request.method(), request.uri().path(), request.headers()).await;
            turn.wait();
            Ok::<_, Infallible>(response)
        }
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_WITHIN).max_buf_size(MOST_HEAD);
    // Its client has gone, or spoke no HTTP.
    let _ = http.serve_connection(TokioIo::new(stream), answer).await;
}

impl Counter {
    async fn answer(&self, method: &Method, path: &str, headers: &HeaderMap) -> Response<Full<Bytes>> {
        if method != Method::GET && method != Method::HEAD {
            let refusal = plain(StatusCode::METHOD_NOT_ALLOWED, "GET and HEAD are answered\n".to_owned());
            return with(refusal, ALLOW, "GET, HEAD");
        }
        let now = Instant::now();
        match path {
            "/" => plain(StatusCode::OK, INDEX.to_owned()),
            "/healthz" => stands(self.health.fault(now)),
            "/readyz" => stands(self.health.unready(now)),
            "/metrics" => match self.page(now).await {
                Ok(page) => metrics(&page, headers),
                Err(why) => plain(StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
            },
            _ => plain(StatusCode::NOT_FOUND, INDEX.to_owned()),
        }
    }

    /// A reading, which the loop makes where the latest is too old.
    async fn page(&self, now: Instant) -> Result<Arc<Page>, String> {
        if !self.health.is_attached() {
            return Err(self.health.unready(now).unwrap_or_default());
        }
        let (scrape, page) = oneshot::channel();
        self.ask.try_send(scrape).map_err(|_| "too many scrapes wait for a reading".to_owned())?;
        match timeout(READ_WITHIN, page).await {
            Ok(Ok(page)) => Ok(page),
            Ok(Err(_)) => Err("the kernel could not be read".to_owned()),
            Err(_) => Err(format!("no reading within {} s", READ_WITHIN.as_secs())),
        }
    }
}

fn stands(fault: Option<String>) -> Response<Full<Bytes>> {
    match fault {
        None => plain(StatusCode::OK, "ok\n".to_owned()),
        Some(why) => plain(StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
    }
}

fn metrics(page: &Page, headers: &HeaderMap) -> Response<Full<Bytes>> {
    let all = |name: HeaderName| {
        let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
        values.collect::<Vec<_>>().join(",")
    };
    let form = Form::accepted(&all(ACCEPT));
    let packed = if weight(&all(ACCEPT_ENCODING), "gzip") > 0.0 { page.packed(form) } else { None };
    let is_packed = packed.is_some();
    let mut response = Response::new(Full::new(packed.unwrap_or_else(|| page.text(form))));
    response = with(response, CONTENT_TYPE, form.content_type());
    if is_packed { with(response, CONTENT_ENCODING, "gzip") } else { response }
}

fn plain(status: StatusCode, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    with(response, CONTENT_TYPE, PLAIN)
}

fn with(mut response: Response<Full<Bytes>>, name: HeaderName, value: &'static str) -> Response<Full<Bytes>> {
    response.headers_mut().insert(name, hyper::header::HeaderValue::from_static(value));
    response
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpStream;
    use std::sync::Arc;
    use std::time::Duration;

    use super::{Form, Health, MOST_CONNECTIONS, Server, listen_at, weight};

    #[test]
    fn a_scraper_gets_the_form_that_it_asks_for() {
        let prometheus = "application/openmetrics-text;version=1.0.0;q=0.75,text/plain;version=0.0.4;q=0.5";
        let table = [
            (prometheus, Form::OpenMetrics),
            ("text/plain, Application/OpenMetrics-Text", Form::OpenMetrics),
            ("text/plain;version=0.0.4", Form::Plain),
            ("application/openmetrics-text-not", Form::Plain),
            ("application/openmetrics-text;q=0", Form::Plain),
            ("application/openmetrics-text; version=1.0.0; q=0.0, */*", Form::Plain),
            ("application/openmetrics-text;q=0.2,text/plain;q=0.9", Form::Plain),
            ("*/*", Form::Plain),
            ("", Form::Plain),
        ];
        for (accept, form) in table {
            assert_eq!(Form::accepted(accept), form, "{accept}");
        }
        for (accepted, gzip) in
            [("gzip", true), ("deflate, GZIP;q=0.5", true), ("gzip;q=0", false), ("br", false), ("", false)]
        {
            assert_eq!(weight(accepted, "gzip") > 0.0, gzip, "{accepted}");
        }
    }

    /// Asks on a connection, and returns whether there was an answer.
    fn is_answered(stream: &mut TcpStream) -> bool {
        const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\n";
        let mut answer = [0; 512];
        let asked = stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: lab\r\n\r\n");
        asked.is_ok() && stream.read(&mut answer).is_ok_and(|read| answer[..read].starts_with(ANSWER))
    }

    /// The oldest connection has asked last, so the second oldest is the one to be closed.
    #[test]
    fn one_connection_too_many_ends_the_one_that_has_waited_longest() {
        let server = Server::start(Arc::new(Health::begin()), None).expect("there is room");
        let socket = listen_at("127.0.0.1:0".parse().expect("an address")).expect("a port is free");
        let address = socket.local_addr().expect("it listens");
        server.listen(Some(socket));
        let connect = || {
            let mut stream = TcpStream::connect(address).expect("it listens");
            stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a socket");
            assert!(is_answered(&mut stream), "a new connection is served");
            stream
        };
        let mut all: Vec<TcpStream> = (0..MOST_CONNECTIONS).map(|_| connect()).collect();
        assert!(is_answered(&mut all[0]), "all are served");
        let _one_more = connect();
        let served: Vec<bool> = all[..3].iter_mut().map(is_answered).collect();
        assert_eq!(served, [true, false, true]);
    }
}
