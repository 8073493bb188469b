//! Where to, and how: what `--otlp` and the variables of the OpenTelemetry specification say. The option goes
//! before the variables that say where to; a variable alone begins the export, as in other programs that know
//! them. Pure.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use hyper::header::{HeaderName, HeaderValue};
use hyper::http::uri::{Authority, Scheme};
use hyper::{Uri, header};

/// How long a request may take, unless a variable says otherwise.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The time between two readings that are exported, unless a variable says otherwise.
const INTERVAL: Duration = Duration::from_secs(60);
/// The least of it: each one reads the kernel's maps, and a number without a unit may have been meant as seconds.
const LEAST_INTERVAL: Duration = Duration::from_millis(100);
/// Port of a URL without one.
const HTTP_PORT: u16 = 80;

/// A URL `http://HOST:PORT/PATH`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Host and port as they were given: what the header `Host` has.
    pub(super) authority: String,
    /// The host: an address or a name.
    pub host: String,
    /// The port.
    pub port: u16,
    /// The path, and a query where there is one.
    pub(super) path: String,
}

impl FromStr for Endpoint {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |why: &str| format!("'{text}': {why}");
        let uri: Uri = text.parse().map_err(|_| wrong("no URL such as http://127.0.0.1:4318"))?;
        match uri.scheme() {
            Some(scheme) if *scheme == Scheme::HTTP => {}
            Some(scheme) if *scheme == Scheme::HTTPS => {
                return Err(wrong("TLS is the collector's: name one near by, by http://"));
            }
            Some(_) | None => return Err(wrong("no URL such as http://127.0.0.1:4318")),
        }
        let authority = uri.authority().map(Authority::as_str).unwrap_or_default();
        if authority.contains('@') {
            return Err(wrong("a user and a password go into OTEL_EXPORTER_OTLP_HEADERS"));
        }
        let host = uri.host().unwrap_or_default();
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        if host.is_empty() || host.contains('%') {
            return Err(wrong("the host is a name or an address, without a zone"));
        }
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        let port = match authority.rsplit_once(':') {
            Some((_, port)) if !port.ends_with(']') => port.parse().ok().filter(|port| *port != 0),
            Some(_) | None => Some(HTTP_PORT),
        };
        let port = port.ok_or_else(|| wrong("the port is a number from 1 to 65535"))?;
        Ok(Self { authority: authority.to_owned(), host: host.to_owned(), port, path: path.to_owned() })
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}{}", self.authority, self.path)
    }
}

impl Endpoint {
    /// The endpoint of a signal below this one.
    fn of(&self, signal: Signal) -> Self {
        let (path, query) = self.path.split_once('?').unwrap_or((&self.path, ""));
        let query = if query.is_empty() { String::new() } else { format!("?{query}") };
        let path = format!("{}/v1/{}{query}", path.trim_end_matches('/'), signal.path());
        Self { path, ..self.clone() }
    }

    /// Whether it is that of one signal, and not what all are below.
    fn is_of_a_signal(&self) -> bool {
        let path = self.path.trim_end_matches('/');
        Signal::ALL.iter().any(|signal| path.ends_with(&format!("/v1/{}", signal.path())))
    }
}

/// What is exported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// Figures.
    Metrics,
    /// Events.
    Logs,
}

impl Signal {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Metrics, Self::Logs];

    const fn path(self) -> &'static str {
        match self {
            Self::Metrics => "metrics",
            Self::Logs => "logs",
        }
    }

    /// Its name in variables.
    const fn name(self) -> &'static str {
        match self {
            Self::Metrics => "METRICS",
            Self::Logs => "LOGS",
        }
    }

    /// The sink's name in `handshake_export_dropped_total`.
    pub const fn sink(self) -> &'static str {
        match self {
            Self::Metrics => "otlp_metrics",
            Self::Logs => "otlp_logs",
        }
    }

    /// What of it is counted.
    pub(super) const fn unit(self) -> &'static str {
        match self {
            Self::Metrics => "points",
            Self::Logs => "records",
        }
    }
}

/// Where a signal goes, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Where to.
    pub endpoint: Endpoint,
    /// Headers of each request.
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    /// How long a request may take, its answer included.
    pub(super) timeout: Duration,
    /// Whether requests are compressed.
    pub(super) is_packed: bool,
}

/// What is exported, where to, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Where figures go, where they do.
    pub metrics: Option<Target>,
    /// Where events go, where they do.
    pub logs: Option<Target>,
    /// The time between two readings that are exported.
    pub interval: Duration,
    /// Attributes of the resource that variables name.
    pub(super) attributes: Vec<(String, String)>,
    /// Variables that are wrong, and what is done without them.
    pub warnings: Vec<String>,
}

impl Settings {
    /// Reads the variables by `variable`. `given` is the option's value.
    ///
    /// # Errors
    ///
    /// A variable demands what handshake cannot do, or an endpoint is none.
    pub fn of(given: Option<&Endpoint>, variable: &dyn Fn(&str) -> Option<String>) -> Result<Self, String> {
        if let Some(given) = given.filter(|given| given.is_of_a_signal()) {
            return Err(format!(
                "--otlp {given}: /v1/metrics and /v1/logs are added to the URL; \
                 OTEL_EXPORTER_OTLP_METRICS_ENDPOINT and …_LOGS_ENDPOINT name that of one signal"
            ));
        }
        let mut reading = Reading { variable, warnings: Vec::new() };
        let is_off = reading.value("OTEL_SDK_DISABLED").is_some_and(|value| is_true(&value));
        let mut targets = Vec::new();
        for signal in Signal::ALL {
            let is_off = given.is_none() && (is_off || reading.exports_nothing(signal));
            targets.push(if is_off { None } else { reading.target(given, signal)? });
        }
        let interval = reading.interval();
        let attributes = reading.attributes();
        let (logs, metrics) = (targets.pop().flatten(), targets.pop().flatten());
        Ok(Self { metrics, logs, interval, attributes, warnings: reading.warnings })
    }

    /// Whether anything is exported.
    pub const fn is_any(&self) -> bool {
        self.metrics.is_some() || self.logs.is_some()
    }

    /// The endpoints.
    pub fn endpoints(&self) -> impl Iterator<Item = &Endpoint> {
        self.metrics.iter().chain(&self.logs).map(|target| &target.endpoint)
    }
}

/// Variables that are read.
struct Reading<'a> {
    variable: &'a dyn Fn(&str) -> Option<String>,
    warnings: Vec<String>,
}

impl Reading<'_> {
    /// A variable's value. An empty one is as one that is not set.
    fn value(&self, name: &str) -> Option<String> {
        (self.variable)(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty())
    }

    /// The value of a variable of a signal, or of all signals, with its name.
    fn either(&self, signal: Signal, what: &str) -> Option<(String, String)> {
        let names =
            [format!("OTEL_EXPORTER_OTLP_{}_{what}", signal.name()), format!("OTEL_EXPORTER_OTLP_{what}")];
        names.into_iter().find_map(|name| self.value(&name).map(|value| (name, value)))
    }

    /// Whether another exporter, or none, is asked for.
    fn exports_nothing(&self, signal: Signal) -> bool {
        let asked = self.value(&format!("OTEL_{}_EXPORTER", signal.name()));
        asked.is_some_and(|asked| !asked.split(',').any(|name| name.trim() == "otlp"))
    }

    fn target(&mut self, given: Option<&Endpoint>, signal: Signal) -> Result<Option<Target>, String> {
        let endpoint = match given {
            Some(base) => base.of(signal),
            None => match self.endpoint(signal)? {
                Some(endpoint) => endpoint,
                None => return Ok(None),
            },
        };
        let timeout = match self.either(signal, "TIMEOUT") {
            Some((name, _)) => self.time(&name),
            None => None,
        };
        let is_packed = match self.either(signal, "COMPRESSION") {
            Some((_, word)) if word == "gzip" => true,
            Some((_, word)) if word == "none" => false,
            Some((name, word)) => {
                self.warn(&name, &word, "gzip and none are known");
                false
            }
            None => false,
        };
        let headers = self.headers(signal);
        Ok(Some(Target { endpoint, headers, timeout: timeout.unwrap_or(TIMEOUT), is_packed }))
    }

    /// The endpoint that variables name. That of a signal is used as it is.
    fn endpoint(&self, signal: Signal) -> Result<Option<Endpoint>, String> {
        const ALL: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
        let Some((name, url)) = self.either(signal, "ENDPOINT") else { return Ok(None) };
        if let Some((name, protocol)) = self.either(signal, "PROTOCOL")
            && protocol != "http/protobuf"
        {
            return Err(format!(
                "{name}={protocol}: handshake speaks http/protobuf (port 4318 of a collector)"
            ));
        }
        let endpoint: Endpoint = url.parse().map_err(|why| format!("{name}: {why}"))?;
        Ok(Some(if name == ALL { endpoint.of(signal) } else { endpoint }))
    }

    fn headers(&mut self, signal: Signal) -> Vec<(HeaderName, HeaderValue)> {
        let Some((name, value)) = self.either(signal, "HEADERS") else { return Vec::new() };
        let headers = pairs(&value).and_then(|pairs| {
            let read = |(name, value): &(String, String)| {
                let name: HeaderName = name.parse().ok().filter(|name| !OWN.contains(name))?;
                let mut value = HeaderValue::from_str(value).ok()?;
                value.set_sensitive(true);
                Some((name, value))
            };
            pairs.iter().map(read).collect::<Option<Vec<_>>>()
        });
        headers.unwrap_or_else(|| {
            // Not its value: it may be a password.
            self.say(format!("{name} is left out: no list such as name=value,name=value"));
            Vec::new()
        })
    }

    fn attributes(&mut self) -> Vec<(String, String)> {
        const LIST: &str = "OTEL_RESOURCE_ATTRIBUTES";
        let list = self.value(LIST).unwrap_or_default();
        let mut attributes = pairs(&list).unwrap_or_else(|| {
            self.warn(LIST, &list, "no list such as name=value,name=value");
            Vec::new()
        });
        if let Some(name) = self.value("NODE_NAME") {
            attributes.insert(0, ("k8s.node.name".to_owned(), name));
        }
        if let Some(name) = self.value("OTEL_SERVICE_NAME") {
            attributes.push(("service.name".to_owned(), name));
        }
        attributes
    }

    /// A time in milliseconds.
    fn time(&mut self, name: &str) -> Option<Duration> {
        let value = self.value(name)?;
        let time = value.parse().ok().filter(|ms| *ms > 0).map(Duration::from_millis);
        if time.is_none() {
            self.warn(name, &value, "no number of milliseconds");
        }
        time
    }

    fn interval(&mut self) -> Duration {
        const NAME: &str = "OTEL_METRIC_EXPORT_INTERVAL";
        let interval = self.time(NAME).unwrap_or(INTERVAL);
        if interval >= LEAST_INTERVAL {
            return interval;
        }
        self.warn(NAME, &interval.as_millis().to_string(), "these are milliseconds, at least 100");
        INTERVAL
    }

    fn warn(&mut self, name: &str, value: &str, why: &str) {
        self.say(format!("{name}={value} is left out: {why}"));
    }

    /// Both signals may read the same variable.
    fn say(&mut self, warning: String) {
        if !self.warnings.contains(&warning) {
            self.warnings.push(warning);
        }
    }
}

/// Headers that are written by the exporter itself.
const OWN: [HeaderName; 6] = [
    header::CONNECTION,
    header::CONTENT_ENCODING,
    header::CONTENT_LENGTH,
    header::CONTENT_TYPE,
    header::HOST,
    header::TRANSFER_ENCODING,
];

fn is_true(value: &str) -> bool {
    value.eq_ignore_ascii_case("true")
}

/// A list as in the header `baggage`: `name=value,name=value`, with values percent-encoded. `None` where it is
/// none.
fn pairs(list: &str) -> Option<Vec<(String, String)>> {
    let parts = list.split(',').map(str::trim).filter(|part| !part.is_empty());
    let pair = |part: &str| {
        let (name, value) = part.split_once('=')?;
        let name = name.trim();
        (!name.is_empty()).then_some((decoded(name)?, decoded(value.trim())?))
    };
    parts.map(pair).collect()
}

/// A text without its percent-encoding; `None` where that is wrong.
fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let (digits, after) = rest.split_at_checked(2)?;
        let digits = std::str::from_utf8(digits).ok().filter(|digits| !digits.starts_with('+'))?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        rest = after;
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Endpoint, Settings, pairs};

    fn of(given: Option<&str>, variables: &[(&str, &str)]) -> Result<Settings, String> {
        let given: Option<Endpoint> = given.map(|url| url.parse().expect("a URL"));
        let variable = |name: &str| {
            let mut found = variables.iter().filter(|(each, _)| *each == name);
            found.next().map(|(_, value)| (*value).to_owned())
        };
        Settings::of(given.as_ref(), &variable)
    }

    fn urls(given: Option<&str>, variables: &[(&str, &str)]) -> [Option<String>; 2] {
        let Settings { metrics, logs, .. } = of(given, variables).expect("it is right");
        [metrics, logs].map(|target| target.map(|target| target.endpoint.to_string()))
    }

    #[test]
    fn an_endpoint_is_a_url_by_http() {
        let of = |text: &str| text.parse::<Endpoint>().map(|at| (at.host.clone(), at.port, at.to_string()));
        let table = [
            ("http://127.0.0.1:4318", "127.0.0.1", 4318, "http://127.0.0.1:4318/"),
            ("HTTP://collector/x/", "collector", 80, "http://collector/x/"),
            ("http://[::1]:4318/v1/logs?a=b", "::1", 4318, "http://[::1]:4318/v1/logs?a=b"),
            ("http://[::1]", "::1", 80, "http://[::1]/"),
        ];
        for (text, host, port, shown) in table {
            assert_eq!(of(text), Ok((host.to_owned(), port, shown.to_owned())), "{text}");
        }
        let table = [
            ("https://collector:4318", "TLS is the collector's"),
            ("grpc://collector:4317", "no URL such as"),
            ("127.0.0.1:4318", "no URL such as"),
            ("collector", "no URL such as"),
            ("", "no URL such as"),
            ("http://", "no URL such as"),
            ("http://a b:1", "no URL such as"),
            ("http://:4318", "the host is a name or an address"),
            ("http://[fe80::1%25eth0]:4318", "without a zone"),
            ("http://collector:0", "the port is a number"),
            ("http://collector:65536", "the port is a number"),
            ("http://user:secret@collector:4318", "OTEL_EXPORTER_OTLP_HEADERS"),
        ];
        for (text, why) in table {
            let said = of(text).expect_err(text);
            assert!(said.contains(why), "{text}: {said}");
        }
    }

    #[test]
    fn the_option_goes_before_the_variables_and_each_signals_variable_before_that_of_all() {
        const ALL: (&str, &str) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://all:1/otlp/");
        const LOGS: (&str, &str) = ("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", "http://logs:2");
        const DISABLED: (&str, &str) = ("OTEL_SDK_DISABLED", "TRUE");
        let shown = |urls: [&str; 2]| urls.map(|url| (!url.is_empty()).then(|| url.to_owned()));
        let below = ["http://all:1/otlp/v1/metrics", "http://all:1/otlp/v1/logs"];
        let given = ["http://given:3/v1/metrics", "http://given:3/v1/logs"];
        let asked = ["http://given:3/x/v1/metrics?a=b", "http://given:3/x/v1/logs?a=b"];
        type Row<'a> = (Option<&'a str>, &'a [(&'a str, &'a str)], [&'a str; 2]);
        let table: [Row<'_>; 11] = [
            (Some("http://given:3/x/?a=b"), &[], asked),
            (None, &[], ["", ""]),
            (None, &[ALL], below),
            (None, &[ALL, LOGS], [below[0], "http://logs:2/"]),
            (None, &[LOGS], ["", "http://logs:2/"]),
            (None, &[("OTEL_EXPORTER_OTLP_ENDPOINT", " ")], ["", ""]),
            (None, &[ALL, DISABLED], ["", ""]),
            (None, &[ALL, ("OTEL_METRICS_EXPORTER", "none")], ["", below[1]]),
            (None, &[ALL, ("OTEL_LOGS_EXPORTER", "console, otlp")], below),
            (Some("http://given:3"), &[ALL, LOGS, DISABLED, ("OTEL_LOGS_EXPORTER", "none")], given),
            (Some("http://given:3"), &[("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")], given),
        ];
        for (option, variables, expected) in table {
            assert_eq!(urls(option, variables), shown(expected), "{option:?} {variables:?}");
        }
    }

    #[test]
    fn what_handshake_cannot_do_is_refused_and_what_is_wrong_is_left_out() {
        const ALL: (&str, &str) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://all:1");
        let refused = [
            (
                ("OTEL_EXPORTER_OTLP_ENDPOINT", "https://all:1"),
                "OTEL_EXPORTER_OTLP_ENDPOINT: 'https://all:1': TLS",
            ),
            (("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", "all"), "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT: 'all': no URL"),
            (("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"), "OTEL_EXPORTER_OTLP_PROTOCOL=grpc: handshake speaks"),
        ];
        for (variable, why) in refused {
            let said = of(None, &[variable, ALL]).expect_err(why);
            assert!(said.starts_with(why), "{said}");
        }
        for given in ["http://given:3/v1/metrics", "http://given:3/otlp/v1/logs/"] {
            assert!(of(Some(given), &[]).is_err_and(|why| why.contains("are added to the URL")), "{given}");
        }
        let usual = of(None, &[ALL]).expect("it is right");
        let wrong = [
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "10s"),
            ("OTEL_EXPORTER_OTLP_LOGS_TIMEOUT", "0"),
            ("OTEL_METRIC_EXPORT_INTERVAL", "-1"),
            ("OTEL_METRIC_EXPORT_INTERVAL", "60"),
            ("OTEL_EXPORTER_OTLP_COMPRESSION", "zstd"),
            ("OTEL_RESOURCE_ATTRIBUTES", "a=1,b"),
            ("OTEL_RESOURCE_ATTRIBUTES", "a=%zz"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "authorization"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "content-length=1"),
        ];
        for (name, value) in wrong {
            let settings = of(None, &[ALL, (name, value)]).expect("it is left out");
            let [said] = &settings.warnings[..] else { panic!("{name}: {:?}", settings.warnings) };
            assert!(said.starts_with(name) && said.contains("left out"), "{said}");
            assert_eq!(Settings { warnings: Vec::new(), ..settings }, usual, "{name}={value}");
        }
    }

    #[test]
    fn variables_say_how() {
        let settings = of(
            Some("http://given:3"),
            &[
                ("OTEL_EXPORTER_OTLP_TIMEOUT", "2500"),
                ("OTEL_EXPORTER_OTLP_LOGS_TIMEOUT", "300"),
                ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"),
                ("OTEL_EXPORTER_OTLP_LOGS_COMPRESSION", "none"),
                ("OTEL_EXPORTER_OTLP_HEADERS", "Authorization=Basic%20eDp5, x-scope = fra"),
                ("OTEL_METRIC_EXPORT_INTERVAL", "15000"),
                ("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=lab,service.name=one"),
                ("OTEL_SERVICE_NAME", "two"),
                ("NODE_NAME", "node-1"),
            ],
        );
        let settings = settings.expect("it is right");
        let (metrics, logs) = (settings.metrics.expect("on"), settings.logs.expect("on"));
        assert_eq!(
            (metrics.timeout, logs.timeout),
            (Duration::from_millis(2500), Duration::from_millis(300))
        );
        assert_eq!((metrics.is_packed, logs.is_packed), (true, false));
        assert_eq!(metrics.headers[0].1.to_str().ok(), Some("Basic eDp5"));
        assert_eq!(
            (metrics.headers[1].0.as_str(), metrics.headers[1].1.as_bytes()),
            ("x-scope", &b"fra"[..])
        );
        assert_eq!((settings.interval, settings.attributes.len()), (Duration::from_secs(15), 4));
        assert_eq!(settings.attributes[0], ("k8s.node.name".to_owned(), "node-1".to_owned()));
        assert_eq!(settings.attributes[3].1, "two", "the last one counts");
        assert!(settings.warnings.is_empty());
    }

    #[test]
    fn a_list_is_decoded_as_baggage_is() {
        let one = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(
            pairs("a=1, b = x%2Cy%3D ,c=d=e,"),
            Some(vec![one("a", "1"), one("b", "x,y="), one("c", "d=e")])
        );
        for wrong in ["a", "=1", "a=%", "a=%1", "a=%+1", "a=%ff"] {
            assert_eq!(pairs(wrong), None, "{wrong}");
        }
    }
}
