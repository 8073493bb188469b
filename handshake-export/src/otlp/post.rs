//! One request to a collector, and what became of it. A connection is kept for the next one.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1::{Builder, SendRequest};
use hyper::header::{CONTENT_ENCODING, CONTENT_TYPE, HOST, HeaderMap, HeaderValue, RETRY_AFTER, USER_AGENT};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use prost::Message as _;
use tokio::net::TcpStream;
use tokio::task::{AbortHandle, JoinHandle, spawn_blocking};
use tokio::time::{Instant, timeout, timeout_at};

use super::messages::{Answer, Status};
use super::settings::{Endpoint, Target};

/// Bytes of an answer that are read.
const MOST_ANSWER: usize = 64 << 10;
/// Characters that are kept of what a collector says.
const MOST_WORDS: usize = 200;
/// Bytes of an answer's head.
const MOST_HEAD: usize = 16 << 10;
/// The longest that a collector may have a request wait.
const LONGEST_WAIT: Duration = Duration::from_secs(300);
const PROTOBUF: HeaderValue = HeaderValue::from_static("application/x-protobuf");
const GZIP: HeaderValue = HeaderValue::from_static("gzip");
const AGENT: HeaderValue = HeaderValue::from_static(concat!("handshake/", env!("CARGO_PKG_VERSION")));

/// Finds the addresses of the endpoint's host. It may take its time: a thread waits for it.
pub type Resolver = Box<dyn FnMut(&Endpoint) -> io::Result<Vec<IpAddr>> + Send>;

/// What became of a request.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It was taken, but for so many points or records, because of this.
    Taken { rejected: u64, why: String },
    /// It was not, and never will be.
    Refused(String),
    /// It may be taken later, in this time where the collector says so.
    Later { why: String, after: Option<Duration> },
}

/// Posts to an endpoint.
pub(super) struct Client {
    target: Target,
    resolver: Option<Arc<Mutex<Resolver>>>,
    /// A search for addresses that took longer than its request might.
    resolving: Option<JoinHandle<io::Result<Vec<IpAddr>>>>,
    open: Option<Open>,
}

/// An open connection.
struct Open {
    requests: SendRequest<Full<Bytes>>,
    task: AbortHandle,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Client {
    pub(super) const fn new(target: Target, resolver: Option<Arc<Mutex<Resolver>>>) -> Self {
        Self { target, resolver, resolving: None, open: None }
    }

    pub(super) const fn target(&self) -> &Target {
        &self.target
    }

    /// Posts a message, which is compressed already where that is asked for.
    pub(super) async fn post(&mut self, body: Bytes) -> Outcome {
        let deadline = Instant::now() + self.target.timeout;
        let mut open = match timeout_at(deadline, self.open(deadline)).await {
            Ok(Ok(open)) => open,
            Ok(Err(error)) => return Outcome::Later { why: error.to_string(), after: None },
            Err(_) => return self.late("no connection"),
        };
        let request = match self.request(body) {
            Ok(request) => request,
            Err(error) => return Outcome::Refused(error.to_string()),
        };
        let answer = match timeout_at(deadline, open.requests.send_request(request)).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => return Outcome::Later { why: in_words(&error), after: None },
            Err(_) => return self.late("no answer"),
        };
        let (head, body) = answer.into_parts();
        // By its head the message was taken or not, whatever becomes of the rest.
        let body = match timeout_at(deadline, Limited::new(body, MOST_ANSWER).collect()).await {
            Ok(Ok(body)) => {
                self.open = Some(open);
                body.to_bytes()
            }
            Ok(Err(_)) | Err(_) => Bytes::new(),
        };
        outcome(head.status, &head.headers, &body, SystemTime::now())
    }

    fn late(&self, what: &str) -> Outcome {
        Outcome::Later { why: format!("{what} within {:?}", self.target.timeout), after: None }
    }

    fn request(&self, body: Bytes) -> hyper::http::Result<Request<Full<Bytes>>> {
        let Target { endpoint, headers, is_packed, .. } = &self.target;
        let mut request =
            Request::builder().method(Method::POST).uri(&endpoint.path).body(Full::new(body))?;
        let all = request.headers_mut();
        all.insert(HOST, HeaderValue::from_str(&endpoint.authority)?);
        all.insert(USER_AGENT, AGENT);
        headers.iter().for_each(|(name, value)| drop(all.insert(name, value.clone())));
        all.insert(CONTENT_TYPE, PROTOBUF);
        if *is_packed {
            all.insert(CONTENT_ENCODING, GZIP);
        }
        Ok(request)
    }

    /// The connection of the latest request, or a new one. Of several addresses each has its part of the time: a
    /// host may have one that nothing answers at, as where IPv6 leads nowhere.
    async fn open(&mut self, deadline: Instant) -> io::Result<Open> {
        if let Some(mut open) = self.open.take()
            && open.requests.ready().await.is_ok()
        {
            return Ok(open);
        }
        let mut last = io::Error::other("its host has no address");
        let addresses = self.addresses().await?;
        for (address, left) in addresses.iter().zip((1..=addresses.len()).rev()) {
            let time = deadline.saturating_duration_since(Instant::now());
            let part = time / u32::try_from(left).unwrap_or(1);
            match timeout(part, connect(SocketAddr::new(*address, self.target.endpoint.port))).await {
                Ok(Ok(open)) => return Ok(open),
                Ok(Err(error)) => last = error,
                Err(_) => last = io::Error::other(format!("no connection to {address}")),
            }
        }
        Err(last)
    }

    async fn addresses(&mut self) -> io::Result<Vec<IpAddr>> {
        if let Ok(address) = self.target.endpoint.host.parse() {
            return Ok(vec![address]);
        }
        let resolving = match (&mut self.resolving, &self.resolver) {
            (Some(resolving), _) => resolving,
            (None, Some(resolver)) => {
                let (resolver, endpoint) = (Arc::clone(resolver), self.target.endpoint.clone());
                self.resolving.insert(spawn_blocking(move || {
                    resolver.lock().unwrap_or_else(PoisonError::into_inner)(&endpoint)
                }))
            }
            (None, None) => return Err(io::Error::other("names are not looked up")),
        };
        let found = resolving.await.map_err(io::Error::other);
        self.resolving = None;
        found?
    }
}

async fn connect(address: SocketAddr) -> io::Result<Open> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let mut http = Builder::new();
    http.max_buf_size(MOST_HEAD);
    let (requests, connection) = http.handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    let task = tokio::spawn(async {
        // Its end is seen by who waits for an answer.
        let _ = connection.await;
    });
    Ok(Open { requests, task: task.abort_handle() })
}

/// What an answer says.
fn outcome(status: StatusCode, headers: &HeaderMap, body: &[u8], now: SystemTime) -> Outcome {
    if status.is_success() {
        // What is no message says nothing of a part.
        let partial = Answer::decode(body).ok().and_then(|answer| answer.partial).unwrap_or_default();
        let rejected = u64::try_from(partial.rejected).unwrap_or(0);
        return Outcome::Taken { rejected, why: short(&partial.message) };
    }
    let said = if headers.get(CONTENT_TYPE) == Some(&PROTOBUF) {
        Status::decode(body).map(|status| status.message).unwrap_or_default()
    } else {
        String::from_utf8_lossy(body).lines().next().unwrap_or_default().to_owned()
    };
    let said = short(said.trim());
    let why = if said.is_empty() { status.to_string() } else { format!("{status}: {said}") };
    let may_be_taken = [
        StatusCode::TOO_MANY_REQUESTS,
        StatusCode::BAD_GATEWAY,
        StatusCode::SERVICE_UNAVAILABLE,
        StatusCode::GATEWAY_TIMEOUT,
    ];
    if !may_be_taken.contains(&status) {
        return Outcome::Refused(why);
    }
    let after = headers.get(RETRY_AFTER).and_then(|after| after.to_str().ok());
    Outcome::Later { why, after: after.and_then(|after| wait(after.trim(), now)) }
}

/// The header `Retry-After`: seconds, or a date.
fn wait(after: &str, now: SystemTime) -> Option<Duration> {
    let is_number = !after.is_empty() && after.bytes().all(|byte| byte.is_ascii_digit());
    let wait = match after.parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) if is_number => LONGEST_WAIT,
        Err(_) => httpdate::parse_http_date(after).ok()?.duration_since(now).unwrap_or_default(),
    };
    Some(wait.min(LONGEST_WAIT))
}

fn short(words: &str) -> String {
    words.chars().take(MOST_WORDS).collect()
}

/// An error with what it came from: hyper's own words name only the kind.
fn in_words(error: &hyper::Error) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
    use std::sync::{Arc, Mutex};
    use std::time::{Duration, SystemTime};

    use hyper::StatusCode;
    use hyper::header::{CONTENT_TYPE, HeaderMap, RETRY_AFTER};
    use prost::Message as _;

    use super::{Bytes, Client, Outcome, PROTOBUF, Resolver, outcome};
    use crate::otlp::messages::{Answer, Partial, Status};
    use crate::otlp::settings::Settings;

    fn of(code: u16, after: Option<&str>, body: &[u8]) -> Outcome {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, PROTOBUF);
        after
            .into_iter()
            .for_each(|after| drop(headers.insert(RETRY_AFTER, after.parse().expect("a value"))));
        let now =
            httpdate::parse_http_date("Sun, 01 Mar 2026 12:00:00 GMT").unwrap_or(SystemTime::UNIX_EPOCH);
        outcome(StatusCode::from_u16(code).expect("a code"), &headers, body, now)
    }

    /// A socket that takes no connection: those that wait for it are as many as it lets wait.
    fn full() -> (TcpListener, Vec<TcpStream>) {
        use rustix::net::{AddressFamily, SocketType, bind, listen, socket};
        let listener = socket(AddressFamily::INET, SocketType::STREAM, None).expect("a socket");
        bind(&listener, &SocketAddr::from((Ipv4Addr::new(127, 0, 0, 2), 0))).expect("a port is free");
        listen(&listener, 0).expect("it is bound");
        let listener = TcpListener::from(listener);
        let address = listener.local_addr().expect("it is bound");
        let waits = || TcpStream::connect_timeout(&address, Duration::from_millis(100));
        let waiting = std::iter::from_fn(|| waits().ok()).collect();
        (listener, waiting)
    }

    /// As where a name has an address of IPv6, and IPv6 leads nowhere.
    #[tokio::test]
    async fn an_address_that_nothing_answers_at_leaves_time_for_the_next() {
        let (full, _waiting) = full();
        let port = full.local_addr().expect("it is bound").port();
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).expect("it is free");
        let url = format!("http://collector:{port}").parse().expect("a URL");
        let timeout = |name: &str| (name == "OTEL_EXPORTER_OTLP_TIMEOUT").then(|| "2000".to_owned());
        let target = Settings::of(Some(&url), &timeout).expect("it is right").logs.expect("on");
        let all = [[127, 0, 0, 2], [127, 0, 0, 1]].map(|address| Ipv4Addr::from(address).into());
        let resolver: Resolver = Box::new(move |_| Ok(all.into()));
        let mut client = Client::new(target, Some(Arc::new(Mutex::new(resolver))));
        let served = std::thread::spawn(move || {
            use std::io::{Read as _, Write as _};
            let (mut stream, _) = free.accept()?;
            let read = stream.read(&mut [0; 1024])?;
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").map(|()| read)
        });
        let outcome = client.post(Bytes::from_static(b"a message")).await;
        assert_eq!(outcome, Outcome::Taken { rejected: 0, why: String::new() });
        assert!(served.join().expect("no panic").is_ok_and(|read| read > 0));
    }

    #[test]
    fn what_is_tried_again_is_what_the_specification_names() {
        let may_be_taken: Vec<u16> =
            (300..600).filter(|code| matches!(of(*code, None, b""), Outcome::Later { .. })).collect();
        assert_eq!(may_be_taken, [429, 502, 503, 504]);
        let refused = (300..600).filter(|code| matches!(of(*code, None, b""), Outcome::Refused(_))).count();
        assert_eq!(refused, 296);
        for body in [&b""[..], b"\xff\xff\xff", b"<html>"] {
            assert_eq!(of(200, None, body), Outcome::Taken { rejected: 0, why: String::new() });
        }
    }

    #[test]
    fn a_collector_says_how_long_to_wait() {
        let table = [
            (None, None),
            (Some("7"), Some(7)),
            (Some("99999999999999"), Some(300)),
            (Some("99999999999999999999"), Some(300)),
            (Some(""), None),
            (Some("Sun, 01 Mar 2026 12:00:30 GMT"), Some(30)),
            (Some("Sun, 01 Mar 2026 11:00:00 GMT"), Some(0)),
            (Some("-1"), None),
            (Some("soon"), None),
        ];
        for (header, wait) in table {
            let Outcome::Later { after, .. } = of(503, header, b"") else { panic!("{header:?}") };
            assert_eq!(after, wait.map(Duration::from_secs), "{header:?}");
        }
    }

    #[test]
    fn what_was_not_taken_is_counted_and_told() {
        let partial =
            |rejected| Answer { partial: Some(Partial { rejected, message: "too old".to_owned() }) };
        let why = "too old".to_owned();
        assert_eq!(
            of(200, None, &partial(3).encode_to_vec()),
            Outcome::Taken { rejected: 3, why: why.clone() }
        );
        assert_eq!(of(202, None, &partial(-3).encode_to_vec()), Outcome::Taken { rejected: 0, why });
        let status = Status { code: 3, message: "no such tenant".to_owned() }.encode_to_vec();
        assert_eq!(of(400, None, &status), Outcome::Refused("400 Bad Request: no such tenant".to_owned()));
        let long = Status { code: 3, message: "x".repeat(1_000) }.encode_to_vec();
        let Outcome::Refused(why) = of(404, None, &long) else { panic!("it is refused") };
        assert_eq!(why.len(), "404 Not Found: ".len() + 200);
    }
}
