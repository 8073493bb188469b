//! Options of `handshake serve`, and its TOML file: the file's keys are the options' names, and what stands
//! there is the options' default. So options go before variables, variables before the file, and a value is
//! read by the same parser wherever it stands.

use std::collections::BTreeMap;
use std::env;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use clap::builder::{BoolishValueParser, NonEmptyStringValueParser};
use clap::{Arg, ArgAction, ArgMatches, Args, FromArgMatches as _};
use handshake_agent::options::Options;
use handshake_agent::similar::closest;
use handshake_export::events::EventChoice;
use handshake_export::figures::Named;
use handshake_export::names;
use handshake_export::otlp::settings::{Endpoint, Settings};
use handshake_export::prometheus::is_own_label;
use handshake_export::service::ServiceRule;
use handshake_export::workload::WorkloadRule;
use rustix::system::uname;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::usage::{explained, one_line, refuse_if, said, usage};
use super::{EventArg, EvidenceArgs, ScopeArgs, check_scope, defaults, definition};
use crate::duration::{interval, shown};
use crate::error::{ConfigError, ConfigFault};
use crate::number::bytes;

/// The subcommand's name.
const NAME: &str = "serve";
/// Options that are no keys of the file.
const NO_KEYS: [&str; 3] = ["config", "check-config", "help"];
/// Options that SIGHUP takes over; the others want a restart.
const RELOADED: [&str; 6] = ["service", "workload", "label", "metrics-listen", "metrics-file", "interval"];
/// The least value of `--events-keep`.
const LEAST_ROOM: u64 = 1 << 20;
/// Most labels that every series has.
const MOST_LABELS: usize = 16;

/// Options of `handshake serve`.
#[derive(Debug, Args)]
pub(crate) struct ServeArgs {
    #[command(flatten)]
    pub(crate) scope: ScopeArgs,
    /// TOML file with these options: service = ["api=10.0.0.0/8:443"]
    #[arg(long, value_name = "FILE", env = "HANDSHAKE_CONFIG", hide_env = true, help_heading = None::<&str>)]
    pub(crate) config: Option<PathBuf>,
    /// Read the options and the file, say what is wrong, and exit
    #[arg(long, env = "HANDSHAKE_CHECK_CONFIG", hide_env = true, value_parser = BoolishValueParser::new())]
    #[arg(help_heading = None::<&str>)]
    pub(crate) check_config: bool,
    /// Address and port where Prometheus reads, or off
    #[arg(long, value_name = "ADDRESS:PORT", default_value = defaults::METRICS_LISTEN)]
    #[arg(env = "HANDSHAKE_METRICS_LISTEN", hide_env = true, help_heading = "Metrics")]
    pub(crate) metrics_listen: Listen,
    /// File to write the metrics to, for node_exporter: its name ends in .prom
    #[arg(
        long,
        value_name = "FILE",
        env = "HANDSHAKE_METRICS_FILE",
        hide_env = true,
        help_heading = "Metrics"
    )]
    pub(crate) metrics_file: Option<PathBuf>,
    /// Time between two writings of --metrics-file
    #[arg(long, value_name = "DURATION", value_parser = interval, default_value = shown(defaults::WRITE_EVERY))]
    #[arg(env = "HANDSHAKE_INTERVAL", hide_env = true, help_heading = "Metrics")]
    pub(crate) interval: Duration,
    /// Name of services, such as api=10.0.0.0/8:443, api=[2001:db8::/32]:443 or ssh=:22; the first that fits
    /// counts, and what has none is 'other'; repeatable
    #[arg(long = "service", value_name = "NAME=WHAT", value_delimiter = ',', env = "HANDSHAKE_SERVICE")]
    #[arg(hide_env = true, help_heading = "Metrics")]
    pub(crate) services: Vec<ServiceRule>,
    /// Name of workloads of this host, such as web=unit:nginx.service, api=pod:shop/api-1, db=container:db or
    /// sys=cgroup:/system.slice; the first that fits counts, and what has none is 'other'; repeatable
    #[arg(long = "workload", value_name = "NAME=WHAT", value_delimiter = ',', env = "HANDSHAKE_WORKLOAD")]
    #[arg(hide_env = true, help_heading = "Metrics")]
    pub(crate) workloads: Vec<WorkloadRule>,
    /// Label that every series has, such as site=fra; repeatable
    #[arg(long = "label", value_name = "NAME=VALUE", value_delimiter = ',', env = "HANDSHAKE_LABEL")]
    #[arg(hide_env = true, help_heading = "Metrics")]
    pub(crate) labels: Vec<Label>,
    /// Which attempts have a row, where rows go anywhere
    #[arg(long, value_enum, value_name = "WHICH", default_value_t = EventArg(EventChoice::Failed))]
    #[arg(env = "HANDSHAKE_EVENTS", hide_env = true, help_heading = "Events")]
    pub(crate) events: EventArg,
    /// Name of this node in each row [default: $NODE_NAME, else the host's name]
    #[arg(long, value_name = "NAME", value_parser = NonEmptyStringValueParser::new())]
    #[arg(env = "HANDSHAKE_NODE", hide_env = true, help_heading = "Events")]
    node: Option<String>,
    /// File to append a row of JSON to for each event: its name ends in .jsonl; what is closed is compressed
    #[arg(long, value_name = "FILE", value_parser = rows_file, env = "HANDSHAKE_EVENTS_FILE")]
    #[arg(hide_env = true, help_heading = "Events")]
    pub(crate) events_file: Option<PathBuf>,
    /// Room for the files of events, the closed ones included: the oldest go
    #[arg(long, value_name = "SIZE", value_parser = room, default_value = defaults::EVENTS_KEEP)]
    #[arg(env = "HANDSHAKE_EVENTS_KEEP", hide_env = true, help_heading = "Events")]
    pub(crate) events_keep: u64,
    /// Record the last hour in this folder, for 'handshake replay DIR'
    #[arg(long, value_name = "DIR", env = "HANDSHAKE_RECORD", hide_env = true, help_heading = "Events")]
    pub(crate) record: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) evidence: EvidenceArgs,
    /// OTLP collector that is sent metrics and events, such as http://127.0.0.1:4318, or off [default:
    /// $OTEL_EXPORTER_OTLP_ENDPOINT, else off]
    #[arg(long, value_name = "URL", env = "HANDSHAKE_OTLP", hide_env = true, help_heading = "OpenTelemetry")]
    pub(crate) otlp: Option<Otlp>,
    /// What each option was given, as text.
    #[arg(skip)]
    given: BTreeMap<String, Vec<OsString>>,
}

/// The value of `--metrics-listen`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Listen(pub(crate) Option<SocketAddr>);

impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "off" {
            return Ok(Self(None));
        }
        let address =
            text.parse().map_err(|_| "not an address with a port such as 127.0.0.1:9477, or off")?;
        Ok(Self(Some(address)))
    }
}

/// The value of `--otlp`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Otlp(pub(crate) Option<Endpoint>);

impl FromStr for Otlp {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "off" { Ok(Self(None)) } else { text.parse().map(|endpoint| Self(Some(endpoint))) }
    }
}

/// A label that every series has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Label {
    /// The name.
    pub(crate) name: String,
    /// The value.
    pub(crate) value: String,
}

impl FromStr for Label {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, value) = text.split_once('=').ok_or("a value is missing, as in site=fra")?;
        let is_fit = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let fault = match name.chars().next() {
            None => Some("it is empty"),
            Some(first) if first.is_ascii_digit() => Some("it must not begin with a digit"),
            Some(_) if name.starts_with("__") => {
                Some("it must not begin with __, which Prometheus keeps for itself")
            }
            Some(_) if !name.chars().all(is_fit) => Some("it may have letters, digits and _ alone"),
            Some(_) => None,
        };
        if let Some(fault) = fault {
            return Err(format!("'{name}' is no name of a label: {fault}"));
        }
        if is_own_label(name) {
            return Err(format!("'{name}' is a label of handshake's own"));
        }
        Ok(Self { name: name.to_owned(), value: value.to_owned() })
    }
}

/// The file of rows. Files that are closed get names of its name.
fn rows_file(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    let has_stem = path
        .file_name()
        .and_then(|name| name.to_str()?.strip_suffix(".jsonl"))
        .is_some_and(|stem| !stem.is_empty());
    if has_stem { Ok(path) } else { Err("the file's name ends in .jsonl, as in events.jsonl".to_owned()) }
}

/// Room for files.
fn room(text: &str) -> Result<u64, String> {
    let room = bytes(text)?;
    if room >= LEAST_ROOM { Ok(room) } else { Err("at least 1M is wanted".to_owned()) }
}

impl ServeArgs {
    /// The agent's options.
    pub(crate) fn watched(&self) -> Options {
        let evidence = self.evidence.folder.is_some();
        let events = self.has_rows() || self.record.is_some() || evidence;
        Options { top: 0, events, evidence, ..Options::from(&self.scope) }
    }

    /// Whether attempts have rows, and these go anywhere.
    pub(crate) fn has_rows(&self) -> bool {
        let has_logs =
            || self.exported().is_ok_and(|settings| settings.is_some_and(|all| all.logs.is_some()));
        self.events.0.is_any() && (self.events_file.is_some() || has_logs())
    }

    /// What is exported by OTLP, where anything is.
    ///
    /// # Errors
    ///
    /// A variable of OpenTelemetry's demands what handshake cannot do.
    pub(crate) fn exported(&self) -> Result<Option<Settings>, ConfigError> {
        let given = match &self.otlp {
            Some(Otlp(None)) => return Ok(None),
            Some(Otlp(Some(endpoint))) => Some(endpoint),
            None => None,
        };
        let settings = Settings::of(given, &|name| env::var(name).ok()).map_err(ConfigError::Variable)?;
        Ok(settings.is_any().then_some(settings))
    }

    /// The name of this node.
    pub(crate) fn node(&self) -> String {
        let of_pod = || env::var("NODE_NAME").ok().filter(|name| !name.is_empty());
        let of_host = || uname().nodename().to_string_lossy().into_owned();
        self.node.clone().or_else(of_pod).unwrap_or_else(of_host)
    }

    /// The names and the labels of series.
    pub(crate) fn named<'a>(&'a self, labels: &'a [(String, String)]) -> Named<'a> {
        Named { services: &self.services, workloads: &self.workloads, labels }
    }

    /// The labels as pairs.
    pub(crate) fn pairs(&self) -> Vec<(String, String)> {
        self.labels.iter().map(|label| (label.name.clone(), label.value.clone())).collect()
    }

    /// Options that differ and want a restart.
    pub(crate) fn wants_restart<'a>(&'a self, new: &'a Self) -> Vec<&'a str> {
        let differs = |name: &&String| self.given.get(*name) != new.given.get(*name);
        let added = new.given.keys().filter(|name| !self.given.contains_key(*name));
        let changed = self.given.keys().chain(added).filter(differs).map(String::as_str);
        changed.filter(|name| !RELOADED.contains(name)).collect()
    }

    /// Takes over what SIGHUP may change. What the rest was given stays known, so that it is named as long as
    /// it differs from what runs.
    pub(crate) fn take_over(&mut self, new: Self) {
        self.metrics_listen = new.metrics_listen;
        self.metrics_file = new.metrics_file;
        self.interval = new.interval;
        self.services = new.services;
        self.workloads = new.workloads;
        self.labels = new.labels;
    }

    /// What clap cannot check.
    pub(super) fn check(&self) -> Result<(), clap::Error> {
        check_scope(&self.scope)?;
        names::check("service", self.services.iter().map(|rule| rule.name.as_str())).map_err(usage)?;
        names::check("workload", self.workloads.iter().map(|rule| rule.name.as_str())).map_err(usage)?;
        if let Some(file) = self.metrics_file.as_ref().filter(|file| !is_of_node_exporter(file)) {
            let file = file.display();
            return Err(usage(format!(
                "--metrics-file {file}: its name must end in .prom, because node_exporter reads no other file"
            )));
        }
        let names: Vec<&str> = self.labels.iter().map(|label| label.name.as_str()).collect();
        let twice = names.iter().enumerate().find(|(at, name)| names[..*at].contains(name));
        refuse_if(twice.is_some(), || {
            format!("label {} is given twice", twice.map_or("", |(_, name)| name))
        })?;
        refuse_if(names.len() > MOST_LABELS, || {
            format!("--label: {} labels, but at most {MOST_LABELS} are allowed", names.len())
        })
    }
}

/// Whether node_exporter's textfile collector reads a file of this name.
fn is_of_node_exporter(file: &Path) -> bool {
    file.file_name().is_some_and(|name| name.as_encoded_bytes().ends_with(b".prom"))
}

/// The options of a command line whose file has this text.
///
/// # Errors
///
/// A fault in the file, or in what file, variables and options say together.
pub(crate) fn with_file<I>(words: I, path: &str, text: &str) -> Result<ServeArgs, ConfigError>
where
    I: IntoIterator,
    I::Item: Into<OsString> + Clone,
{
    let values = read(path, text)?;
    let words: Vec<OsString> = words.into_iter().map(Into::into).collect();
    let command = definition().mut_subcommand(NAME, |mut command| {
        for (key, values) in values {
            let id = option(&command, &key).map(|argument| argument.get_id().clone());
            if let Some(id) = id {
                command = command.mut_arg(id, |argument| argument.default_values(values));
            }
        }
        command
    });
    let is_set = |name: &str| env::var_os(name).is_some();
    let together = |error: clap::Error| ConfigError::Together {
        path: path.to_owned(),
        problem: one_line(&explained(error, &words, &is_set)),
    };
    let matches = command.try_get_matches_from(&words).map_err(together)?;
    let Some(matches) = matches.subcommand_matches(NAME) else {
        return Err(ConfigError::Together { path: path.to_owned(), problem: "it is for 'serve'".to_owned() });
    };
    let args = of(matches).map_err(together)?;
    args.check().map_err(together)?;
    Ok(args)
}

fn of(matches: &ArgMatches) -> Result<ServeArgs, clap::Error> {
    let mut args = ServeArgs::from_arg_matches(matches)?;
    let mut command = definition();
    command.build();
    let options = command.find_subcommand(NAME).into_iter().flat_map(clap::Command::get_arguments);
    for option in options {
        let raw = matches.try_get_raw(option.get_id().as_str()).ok().flatten();
        if let (Some(name), Some(raw)) = (option.get_long(), raw) {
            args.given.insert(name.to_owned(), raw.map(OsString::from).collect());
        }
    }
    Ok(args)
}

/// The option of a key.
fn option<'a>(command: &'a clap::Command, key: &str) -> Option<&'a Arg> {
    command.get_arguments().find(|argument| argument.get_long() == Some(key) && !NO_KEYS.contains(&key))
}

/// The values of each key, each read by its option's parser.
fn read(path: &str, text: &str) -> Result<Vec<(String, Vec<String>)>, ConfigFault> {
    let line = |at: usize| text.bytes().take(at).filter(|byte| *byte == b'\n').count() + 1;
    let fault = |at: usize, problem: String| ConfigFault { path: path.to_owned(), line: line(at), problem };
    let table = DeTable::parse(text).map_err(|error| {
        let problem = error.message().lines().collect::<Vec<_>>().join(", ");
        fault(error.span().map_or(0, |span| span.start), problem)
    })?;
    let mut command = definition();
    command.build();
    let command = command.find_subcommand(NAME).cloned().unwrap_or_default();
    let mut all = Vec::new();
    for (key, value) in table.get_ref() {
        let (at, key) = (key.span().start, key.get_ref().as_ref());
        let argument = option(&command, key).ok_or_else(|| fault(at, unknown(&command, key)))?;
        let mut words = Vec::new();
        for (at, value) in each(argument, value).map_err(|why| fault(at, format!("{key}: {why}")))? {
            let read = word(argument, value).and_then(|word| probe(argument, word));
            words.extend(read.map_err(|why| fault(at, format!("{key}: {why}")))?);
        }
        all.push((key.to_owned(), words));
    }
    Ok(all)
}

fn unknown(command: &clap::Command, key: &str) -> String {
    let keys = command.get_arguments().filter_map(Arg::get_long).filter(|name| !NO_KEYS.contains(name));
    match closest(&keys.collect::<Vec<_>>(), key) {
        Some(near) => format!("unknown key {key}; did you mean {near}?"),
        None => format!("unknown key {key}"),
    }
}

/// The single values of a value, with their places.
fn each<'a, 'i>(
    argument: &Arg,
    value: &'a Spanned<DeValue<'i>>,
) -> Result<Vec<(usize, &'a DeValue<'i>)>, &'static str> {
    let place = |value: &'a Spanned<DeValue<'i>>| (value.span().start, value.get_ref());
    match (value.get_ref(), argument.get_action()) {
        (DeValue::Array(elements), ArgAction::Append) => Ok(elements.iter().map(place).collect()),
        (DeValue::Array(_), _) => Err("one value, not several"),
        _ => Ok(vec![place(value)]),
    }
}

/// A value as the option takes it.
fn word(argument: &Arg, value: &DeValue<'_>) -> Result<String, String> {
    let takes = argument.get_action().takes_values();
    let counts = matches!(argument.get_action(), ArgAction::Count);
    match value {
        DeValue::String(text) if takes => Ok(text.clone().into_owned()),
        DeValue::Integer(number) if takes || counts => Ok(number.to_string()),
        DeValue::Boolean(yes) if !takes && !counts => Ok(yes.to_string()),
        DeValue::String(_)
        | DeValue::Integer(_)
        | DeValue::Boolean(_)
        | DeValue::Float(_)
        | DeValue::Datetime(_)
        | DeValue::Array(_)
        | DeValue::Table(_) => Err(match (takes, counts) {
            (true, _) => "a text or a number is wanted",
            (false, true) => "a number is wanted",
            (false, false) => "true or false is wanted",
        }
        .to_owned()),
    }
}

/// Has the option's own parser read a word, and returns the values in it.
fn probe(argument: &Arg, word: String) -> Result<Vec<String>, String> {
    if !argument.get_action().takes_values() {
        return Ok(vec![word]);
    }
    let alone = clap::Command::new(NAME).arg(argument.clone().env(None::<&str>));
    let option = format!("--{}={word}", argument.get_long().unwrap_or_default());
    alone.try_get_matches_from([NAME.to_owned(), option]).map_err(|error| said(&error))?;
    Ok(match argument.get_value_delimiter() {
        Some(delimiter) => word.split(delimiter).map(str::to_owned).collect(),
        None => vec![word],
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use handshake_export::events::EventChoice;

    use super::{Label, Listen, RELOADED, ServeArgs, option, with_file};

    const LINE: &str = "handshake serve --config serve.toml";

    fn of(words: &str, text: &str) -> Result<ServeArgs, String> {
        with_file(words.split(' '), "serve.toml", text).map_err(|error| error.to_string())
    }

    #[test]
    fn a_file_has_the_options_under_their_names() {
        let text = "interface = ['lo', \"veth*\"]\nwait = true\nhook = 'tcx'\nport = [443, '8000-8100']\n\
                    half-open-after = '1500ms'\nmax-flows = 1000\nverbose = 2\nmetrics-listen = 'off'\n\
                    metrics-file = '/tmp/hs.prom'\ninterval = '5s'\nlabel = ['site=fra', 'rack=a=b']\n\
                    events = 'all'\nevents-file = 'logs/hs.jsonl'\nevents-keep = '2M'\nnode = 'n1'\n\
                    service = [\n  'api=10.0.0.0/8:443',\n  'dns=:53',\n]\n\
                    workload = ['web=unit:nginx.service', 'web=pod:shop/web-1']\n";
        let args = of(LINE, text).expect("it is right");
        assert_eq!(args.scope.interfaces, ["lo", "veth*"]);
        assert!(args.scope.wait && args.scope.verbosity.verbose == 2 && args.scope.max_flows == 1000);
        assert_eq!(args.scope.filter.ports.len(), 2);
        assert_eq!(args.scope.rules.half_open_after, Duration::from_millis(1500));
        assert_eq!((args.metrics_listen, args.interval), (Listen(None), Duration::from_secs(5)));
        assert_eq!(args.pairs()[1], ("rack".to_owned(), "a=b".to_owned()));
        assert_eq!((args.services.len(), args.workloads.len()), (2, 2));
        assert_eq!(
            (args.events.0, args.events_keep, args.node()),
            (EventChoice::All, 2 << 20, "n1".to_owned())
        );
        assert!(args.has_rows() && args.watched().events);
        let usual = of(LINE, "").expect("an empty file is one");
        assert_eq!(usual.metrics_listen.0, "127.0.0.1:9477".parse().ok());
        assert_eq!((usual.events.0, usual.events_keep), (EventChoice::Failed, 100 << 20));
        assert!(!usual.has_rows() && !usual.watched().events, "rows go nowhere");
        let none = of(LINE, "events = 'none'\nevents-file = 'a.jsonl'").expect("it is right");
        assert!(!none.has_rows());
    }

    #[test]
    fn options_go_before_the_file() {
        let text = "metrics-listen = '127.0.0.1:1'\nservice = ['api=:443']\npromisc = true";
        let words = format!("{LINE} --metrics-listen off --service dns=:53 --interval 7s");
        let args = of(&words, text).expect("it is right");
        assert_eq!((args.metrics_listen, args.interval), (Listen(None), Duration::from_secs(7)));
        assert_eq!(args.services.len(), 1);
        assert!(args.services[0].name == "dns" && args.scope.promisc);
    }

    #[test]
    fn a_fault_is_told_with_its_line() {
        let table = [
            ("\nport = 443\nhok = 'tcx'", "serve.toml, line 3: unknown key hok; did you mean hook?"),
            ("config = 'x'", "serve.toml, line 1: unknown key config"),
            ("[metrics]\nlisten = 'off'", "serve.toml, line 1: unknown key metrics"),
            ("half-open-after = '3'", "serve.toml, line 1: half-open-after: invalid value '3'"),
            ("service = [\n'api=:443',\n'web',\n]", "serve.toml, line 3: service: invalid value 'web'"),
            ("workload = ['web=nginx']", "serve.toml, line 1: workload: invalid value 'web=nginx'"),
            ("wait = 'yes'", "serve.toml, line 1: wait: true or false is wanted"),
            ("interface = true", "serve.toml, line 1: interface: a text or a number is wanted"),
            ("verbose = true", "serve.toml, line 1: verbose: a number is wanted"),
            ("hook = ['tcx']", "serve.toml, line 1: hook: one value, not several"),
            ("interval = 1.5", "serve.toml, line 1: interval: a text or a number is wanted"),
            ("\nhook = ", "serve.toml, line 2: "),
            ("hook = 'tcx'\nhook = 'tcx'", "serve.toml, line 2: duplicate key"),
            ("label = ['le=1']", "serve.toml, line 1: label: invalid value 'le=1'"),
            ("otlp = 'https://collector:4318'", "serve.toml, line 1: otlp: invalid value 'https://collector"),
            ("events-file = 'rows.json'", "serve.toml, line 1: events-file: invalid value 'rows.json'"),
            ("events-file = 'a/.jsonl'", "serve.toml, line 1: events-file: invalid value 'a/.jsonl'"),
            ("events-keep = '1023K'", "serve.toml, line 1: events-keep: invalid value '1023K'"),
            ("events = 'some'", "serve.toml, line 1: events: invalid value 'some'"),
            ("node = ''", "serve.toml, line 1: node: "),
            ("label = ['a=1', 'a=2']", "serve.toml: label a is given twice"),
            ("metrics-file = 'hs.txt'", "serve.toml: --metrics-file hs.txt: its name must end in .prom"),
            ("expire-after = '1s'", "serve.toml: --expire-after must not be shorter"),
        ];
        for (text, expected) in table {
            let fault = of(LINE, text).expect_err(text);
            assert!(fault.starts_with(expected), "{fault}");
        }
    }

    #[test]
    fn the_fault_of_a_label_is_named() {
        for (label, fault) in [
            ("9x=y", "'9x' is no name of a label: it must not begin with a digit"),
            (
                "__x=y",
                "'__x' is no name of a label: it must not begin with __, which Prometheus keeps for itself",
            ),
            ("a-b=y", "'a-b' is no name of a label: it may have letters, digits and _ alone"),
            ("=y", "'' is no name of a label: it is empty"),
            ("x", "a value is missing, as in site=fra"),
        ] {
            assert_eq!(label.parse::<Label>(), Err(fault.to_owned()));
        }
        assert!("_x9=".parse::<Label>().is_ok());
    }

    #[test]
    fn what_wants_a_restart_is_named() {
        let (old, new) =
            ("service = ['a=:1']\nhook = 'tcx'", "hook = 'clsact'\nevents = 'all'\nlabel = ['x=1']");
        let (old, new) = (of(LINE, old).expect("it is right"), of(LINE, new).expect("it is right"));
        assert_eq!(old.wants_restart(&new), ["events", "hook"]);
        assert!(old.wants_restart(&old).is_empty());
        let mut taken = of(LINE, "hook = 'tcx'").expect("it is right");
        taken.take_over(new);
        assert_eq!(taken.pairs(), [("x".to_owned(), "1".to_owned())]);
        let command = super::definition();
        let command = command.find_subcommand(super::NAME).expect("it is there");
        assert!(RELOADED.iter().all(|name| option(command, name).is_some()));
    }
}
