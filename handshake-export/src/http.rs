//! The HTTP server: `/metrics`, `/healthz`, `/readyz`. It has a thread of its own, so it answers while the
//! programs are loaded, and a slow client holds nothing but its connection.
//!
//! Its thread has given up what the main thread does once it has attached: it accepts connections of sockets
//! that listened before, and asks the loop for readings.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::net::TcpListener as StdListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
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
use crate::prometheus::Form;

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

/// The open connections, the oldest first.
#[derive(Default)]
struct Connections(VecDeque<Connection>);

struct Connection {
    task: AbortHandle,
    /// Whether a request is being answered.
    is_busy: Arc<AtomicBool>,
}

impl Connections {
    fn add(&mut self, stream: TcpStream, counter: Counter) {
        self.0.retain(|connection| !connection.task.is_finished());
        if self.0.len() >= MOST_CONNECTIONS {
            let is_idle = |connection: &Connection| !connection.is_busy.load(Ordering::Relaxed);
            let oldest = self.0.iter().position(is_idle).unwrap_or(0);
            if let Some(oldest) = self.0.remove(oldest) {
                oldest.task.abort();
            }
        }
        let is_busy = Arc::new(AtomicBool::new(false));
        let task: JoinHandle<()> = tokio::spawn(connection(stream, counter, Arc::clone(&is_busy)));
        self.0.push_back(Connection { task: task.abort_handle(), is_busy });
    }
}

/// Answers the requests of a connection until its client closes it, or does nothing for too long.
async fn connection(stream: TcpStream, counter: Counter, is_busy: Arc<AtomicBool>) {
    let answer = service_fn(|request: Request<Incoming>| {
        let (counter, is_busy) = (counter.clone(), Arc::clone(&is_busy));
        async move {
            is_busy.store(true, Ordering::Relaxed);
            let response = counter.answer(request.method(), request.uri().path(), request.headers()).await;
            is_busy.store(false, Ordering::Relaxed);
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
    let packed = if takes_gzip(&all(ACCEPT_ENCODING)) { page.packed(form) } else { None };
    let is_packed = packed.is_some();
    let mut response = Response::new(Full::new(packed.unwrap_or_else(|| page.text(form))));
    response = with(response, CONTENT_TYPE, form.content_type());
    if is_packed { with(response, CONTENT_ENCODING, "gzip") } else { response }
}

/// Whether a header `Accept-Encoding` names gzip, and not as what must not be.
fn takes_gzip(accepted: &str) -> bool {
    accepted.to_ascii_lowercase().split(',').any(|coding| {
        let mut words = coding.split(';').map(str::trim);
        let is_gzip = words.next() == Some("gzip");
        is_gzip && !words.any(|word| word.strip_prefix("q=").is_some_and(|q| q.parse() == Ok(0.0_f32)))
    })
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
    use super::{Form, takes_gzip};

    #[test]
    fn a_scraper_gets_the_form_that_it_asks_for() {
        let prometheus = "application/openmetrics-text;version=1.0.0;q=0.75,text/plain;version=0.0.4;q=0.5";
        let table = [
            (prometheus, Form::OpenMetrics),
            ("text/plain, Application/OpenMetrics-Text", Form::OpenMetrics),
            ("text/plain;version=0.0.4", Form::Plain),
            ("application/openmetrics-text-not", Form::Plain),
            ("*/*", Form::Plain),
            ("", Form::Plain),
        ];
        for (accept, form) in table {
            assert_eq!(Form::accepted(accept), form, "{accept}");
        }
        for (accepted, gzip) in
            [("gzip", true), ("deflate, GZIP;q=0.5", true), ("gzip;q=0", false), ("br", false), ("", false)]
        {
            assert_eq!(takes_gzip(accepted), gzip, "{accepted}");
        }
    }
}
