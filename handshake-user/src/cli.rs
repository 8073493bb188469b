//! The command line: every subcommand, option, default and variable. Knows clap, and nothing of what it starts.

use std::ffi::OsString;
use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{BoolishValueParser, PossibleValue, Styles};
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{ArgAction, Args, CommandFactory, Parser, Subcommand, ValueEnum};
use handshake_agent::address::{Cidr, PortRange};
use handshake_agent::hook::{DirectionChoice, Hook, HookChoice};
use handshake_agent::options::{self, Options};
use handshake_common::abi::{MAX_INTERFACES, MAX_NETS};

use crate::duration::{clock, duration, interval, period, shown};
use crate::report::OutputFormat;

/// The defaults that only a command has; those of the rules and tables are the agent's.
mod defaults {
    pub(super) use handshake_agent::options::defaults::*;

    /// How often the live view shows a report.
    pub(super) const INTERVAL: Duration = Duration::from_secs(1);
    /// Services listed.
    pub(super) const TOP: usize = 10;

    use std::time::Duration;
}

/// Flows that a table can be asked to hold at most: 8 GiB of IPv4 slots.
const MOST_FLOWS: i64 = 1 << 26;

const AFTER_HELP: &str = "\
Each option is a variable too: --half-open-after 5s is HANDSHAKE_HALF_OPEN_AFTER=5s.

Examples:
  handshake -i eth0 --port 443                                  who completes, who does not, why
  handshake check -i lo --expect 'half_open == 0' -- ./load.sh  judge a load by the wire
  handshake replay capture.pcapng --flows                       a capture, without privileges

Exit codes:
  0  done                                       3  inconclusive: data was lost
  1  an expectation or the command failed       4  cannot load or attach
  2  usage, or an input file that is no use     5  permission";

const CHECK_HELP: &str = "\
An expectation compares figures of the report: counts, times, shares and rates.
  completed >= 1000                             names are paths in the JSON report; tcp. is understood
  completed / attempts >= 99.9%                 a share; of nothing it is inconclusive, never met
  half_open + refused == 0                      sums and differences
  p99(connect) < 2ms                            also p50, p90, max, count; syn_to_syn_ack, syn_ack_to_ack
  rate(completed) >= 500/s                      from the command's start to its exit
  attempts{port=443} == 200                     of services, by port= and address=

Examples:
  handshake check -i lo --expect 'completed >= 1000' --expect 'half_open == 0' -- ./load.sh
  handshake check -i eth0 --port 443 --for 30s --expect 'p99(connect) < 20ms' -o json
  handshake check --list-metrics                all figures, with their units and what they mean

Exit codes:
  0  every expectation was met                  3  inconclusive: data was lost, or nothing ran
  1  an expectation or the command failed       4  cannot load or attach
  2  usage, an expression that cannot be read,  5  permission
     or a command that is not there             130, 143  interrupted";

/// The command as clap reads it: without a subcommand, the options are those of `watch`.
#[derive(Debug, Parser)]
#[command(
    name = "handshake",
    version,
    about = "Which TCP handshakes complete, which stay half-open and why, and which UDP flows are answered",
    after_help = AFTER_HELP,
    args_conflicts_with_subcommands = true,
    max_term_width = 100,
    styles = Styles::plain()
)]
struct CommandLine {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    watch: WatchArgs,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show what passes the interfaces now (the default)
    #[command(after_help = AFTER_HELP)]
    Watch(WatchArgs),
    /// Run a command and hold what the wire shows against what is expected; the exit code is the answer
    #[command(after_help = CHECK_HELP)]
    Check(CheckArgs),
    /// Run a capture through the same engine: sends nothing, needs no privileges
    #[command(after_help = AFTER_HELP)]
    Replay(ReplayArgs),
    /// Tell what this machine can do, and the command that fixes what it can't
    #[command(after_help = AFTER_HELP)]
    Doctor(DoctorArgs),
}

/// `handshake watch`.
#[derive(Debug, Args)]
pub(crate) struct WatchArgs {
    #[command(flatten)]
    pub(crate) scope: ScopeArgs,
    /// End after this long, with the last report
    #[arg(long = "for", value_name = "DURATION", value_parser = period, env = "HANDSHAKE_FOR", hide_env = true)]
    #[arg(help_heading = None::<&str>)]
    pub(crate) period: Option<Duration>,
    /// Time between two reports
    #[arg(long, value_name = "DURATION", value_parser = interval, default_value = shown(defaults::INTERVAL))]
    #[arg(env = "HANDSHAKE_INTERVAL", hide_env = true, help_heading = None::<&str>)]
    pub(crate) interval: Duration,
    /// Draw the live terminal with ASCII characters only
    #[arg(long, env = "HANDSHAKE_ASCII", hide_env = true, value_parser = BoolishValueParser::new())]
    #[arg(help_heading = "Output")]
    pub(crate) ascii: bool,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// What is watched and where: the same for every command that attaches.
#[derive(Debug, Args)]
pub(crate) struct ScopeArgs {
    /// Interface to watch, as often as needed; without it, those of the default routes
    #[arg(short, long = "interface", value_name = "IF", env = "HANDSHAKE_INTERFACE", value_delimiter = ',')]
    #[arg(hide_env = true)]
    pub(crate) interfaces: Vec<String>,
    /// Where to attach
    #[arg(long, value_enum, default_value_t = HookArg(HookChoice::Auto), env = "HANDSHAKE_HOOK", hide_env = true)]
    pub(crate) hook: HookArg,
    /// Which way to look; auto is ingress on loopback, both elsewhere
    #[arg(long, value_enum, default_value_t = DirectionArg(DirectionChoice::Auto), env = "HANDSHAKE_DIRECTION", hide_env = true)]
    pub(crate) direction: DirectionArg,
    /// Have the interfaces take frames for others too, as a mirror port needs
    #[arg(long, env = "HANDSHAKE_PROMISC", hide_env = true, value_parser = BoolishValueParser::new())]
    pub(crate) promisc: bool,
    /// Flows the tables have room for, whatever their state
    #[arg(long, value_name = "N", default_value_t = defaults::MAX_FLOWS, env = "HANDSHAKE_MAX_FLOWS")]
    #[arg(hide_env = true, value_parser = clap::value_parser!(u32).range(1..=MOST_FLOWS))]
    pub(crate) max_flows: u32,
    #[command(flatten)]
    pub(crate) verbosity: VerbosityArgs,
    #[command(flatten)]
    pub(crate) filter: FilterArgs,
    #[command(flatten)]
    pub(crate) rules: RuleArgs,
}

/// `handshake check`.
#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    #[command(flatten)]
    pub(crate) scope: ScopeArgs,
    /// What must hold, such as 'completed / attempts >= 99.9%', as often as needed; ; parts several
    #[arg(long = "expect", value_name = "EXPR", value_delimiter = ';', env = "HANDSHAKE_EXPECT")]
    #[arg(hide_env = true, help_heading = None::<&str>)]
    pub(crate) expectations: Vec<String>,
    /// Without a command, observe for so long; a command that runs longer is stopped, and has failed
    #[arg(long = "for", value_name = "DURATION", value_parser = period, env = "HANDSHAKE_FOR", hide_env = true)]
    #[arg(help_heading = None::<&str>)]
    pub(crate) period: Option<Duration>,
    /// Write the report to a file, as one JSON object
    #[arg(long, value_name = "FILE", env = "HANDSHAKE_REPORT", hide_env = true, help_heading = None::<&str>)]
    pub(crate) report: Option<PathBuf>,
    /// text to read, or json; beside a command stdout is the command's, and there is --report
    #[arg(short = 'o', long = "output", value_enum, default_value_t = OutputFormat::Text)]
    #[arg(value_name = "FORMAT", env = "HANDSHAKE_OUTPUT", hide_env = true, help_heading = None::<&str>)]
    pub(crate) format: OutputFormat,
    /// Services listed by name; the rest are summed up as other
    #[arg(long, value_name = "N", default_value_t = defaults::TOP, env = "HANDSHAKE_TOP", hide_env = true)]
    #[arg(help_heading = None::<&str>)]
    pub(crate) top: usize,
    /// A command that fails does not fail the check
    #[arg(long, env = "HANDSHAKE_IGNORE_STATUS", hide_env = true, value_parser = BoolishValueParser::new())]
    #[arg(help_heading = "Command")]
    pub(crate) ignore_status: bool,
    /// Exit with the command's status if it is not 0
    #[arg(long, env = "HANDSHAKE_PROPAGATE", hide_env = true, value_parser = BoolishValueParser::new())]
    #[arg(help_heading = "Command")]
    pub(crate) propagate: bool,
    /// Leave the command root's rights; else it runs as the user who called sudo, or as root without capabilities
    #[arg(long, env = "HANDSHAKE_AS_ROOT", hide_env = true, value_parser = BoolishValueParser::new())]
    #[arg(help_heading = "Command")]
    pub(crate) as_root: bool,
    /// List what expressions can name, and exit
    #[arg(long, env = "HANDSHAKE_LIST_METRICS", hide_env = true, value_parser = BoolishValueParser::new())]
    #[arg(help_heading = None::<&str>)]
    pub(crate) list_metrics: bool,
    /// The command and its words
    #[arg(last = true, value_name = "CMD", help_heading = "Command")]
    pub(crate) command: Vec<OsString>,
}

/// `handshake replay`.
#[derive(Debug, Args)]
pub(crate) struct ReplayArgs {
    /// A capture, pcap or pcapng, gzipped or not; - for standard input
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// Size of the table as in watch; without it there is room for every flow of the capture
    #[arg(long, value_name = "N", env = "HANDSHAKE_MAX_FLOWS", hide_env = true)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=MOST_FLOWS))]
    pub(crate) max_flows: Option<u32>,
    /// Shorten each pause between two packets to this
    #[arg(long, value_name = "DURATION", value_parser = duration, env = "HANDSHAKE_SQUEEZE", hide_env = true)]
    pub(crate) squeeze: Option<Duration>,
    /// Add Wireshark's tcp.completeness to each flow: SYN 1, SYN+ACK 2, ACK 4, RST 32
    #[arg(long, env = "HANDSHAKE_COMPAT", hide_env = true, value_parser = BoolishValueParser::new())]
    pub(crate) compat: bool,
    #[command(flatten)]
    pub(crate) verbosity: VerbosityArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
    #[command(flatten)]
    pub(crate) filter: FilterArgs,
    #[command(flatten)]
    pub(crate) rules: RuleArgs,
}

/// `handshake doctor`.
#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    /// Interface to look at, as often as needed; without it, those of the default routes
    #[arg(short, long = "interface", value_name = "IF", env = "HANDSHAKE_INTERFACE", value_delimiter = ',')]
    #[arg(hide_env = true)]
    pub(crate) interfaces: Vec<String>,
    #[command(flatten)]
    pub(crate) verbosity: VerbosityArgs,
}

/// What is shown, and how.
#[derive(Debug, Args)]
#[command(next_help_heading = "Output")]
pub(crate) struct OutputArgs {
    /// text to read, json for one report at the end, jsonl for one an interval
    #[arg(short = 'o', long = "output", value_enum, default_value_t = OutputFormat::Text)]
    #[arg(value_name = "FORMAT", env = "HANDSHAKE_OUTPUT", hide_env = true)]
    pub(crate) format: OutputFormat,
    /// Services listed by name; the rest are summed up as other
    #[arg(long, value_name = "N", default_value_t = defaults::TOP, env = "HANDSHAKE_TOP", hide_env = true)]
    pub(crate) top: usize,
    /// List the flows at the end
    #[arg(long, env = "HANDSHAKE_FLOWS", hide_env = true, value_parser = BoolishValueParser::new())]
    pub(crate) flows: bool,
    /// Show each attempt as it ends
    #[arg(long, env = "HANDSHAKE_EVENTS", hide_env = true, value_parser = BoolishValueParser::new())]
    pub(crate) events: bool,
}

/// Which flows count. Packet classes are counted before this.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Filter")]
pub(crate) struct FilterArgs {
    /// Flows with this port at either end, as often as needed; 8000-8100 is a range
    #[arg(
        long = "port",
        value_name = "PORT",
        value_delimiter = ',',
        env = "HANDSHAKE_PORT",
        hide_env = true
    )]
    pub(crate) ports: Vec<PortRange>,
    /// Flows with an address of this prefix at either end, up to 16 times
    #[arg(long = "net", value_name = "CIDR", value_delimiter = ',', env = "HANDSHAKE_NET", hide_env = true)]
    pub(crate) nets: Vec<Cidr>,
}

/// When a flow counts as what.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Rules")]
pub(crate) struct RuleArgs {
    /// An open attempt of this age is half-open
    #[arg(long, value_name = "DURATION", value_parser = clock, default_value = shown(defaults::HALF_OPEN_AFTER))]
    #[arg(env = "HANDSHAKE_HALF_OPEN_AFTER", hide_env = true)]
    pub(crate) half_open_after: Duration,
    /// An open attempt expires this long after its last SYN or SYN+ACK
    #[arg(long, value_name = "DURATION", value_parser = clock, default_value = shown(defaults::EXPIRE_AFTER))]
    #[arg(env = "HANDSHAKE_EXPIRE_AFTER", hide_env = true)]
    pub(crate) expire_after: Duration,
    /// A UDP flow expires this long after its last packet
    #[arg(long, value_name = "DURATION", value_parser = clock, default_value = shown(defaults::UDP_IDLE))]
    #[arg(env = "HANDSHAKE_UDP_IDLE", hide_env = true)]
    pub(crate) udp_idle: Duration,
    /// A completed connection silent for this long gives way as a closed one does
    #[arg(long, value_name = "DURATION", value_parser = clock, default_value = shown(defaults::IDLE_AFTER))]
    #[arg(env = "HANDSHAKE_IDLE_AFTER", hide_env = true)]
    pub(crate) idle_after: Duration,
    /// Only one direction passes here: infer completion from the initiator's packets
    #[arg(long, env = "HANDSHAKE_ONE_SIDED", hide_env = true, value_parser = BoolishValueParser::new())]
    pub(crate) one_sided: bool,
}

/// How much is said on stderr.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct VerbosityArgs {
    /// Say more on stderr; twice, with --port or --net, what the kernel side makes of each handshake segment
    #[arg(short, long, action = ArgAction::Count, env = "HANDSHAKE_VERBOSE", hide_env = true)]
    pub(crate) verbose: u8,
}

/// `--hook`. Its words are those of the report's header.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HookArg(HookChoice);

impl ValueEnum for HookArg {
    fn value_variants<'a>() -> &'a [Self] {
        &[
            Self(HookChoice::Auto),
            Self(HookChoice::Named(Hook::XdpNative)),
            Self(HookChoice::Named(Hook::XdpGeneric)),
            Self(HookChoice::Named(Hook::Tcx)),
            Self(HookChoice::Named(Hook::Clsact)),
        ]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        let (name, help) = match self.0 {
            HookChoice::Auto => {
                ("auto", "Native XDP where hardware is behind the interface, else TCX, else generic XDP")
            }
            HookChoice::Named(hook) => (
                hook.name(),
                match hook {
                    Hook::XdpNative => "XDP in the driver",
                    Hook::XdpGeneric => "XDP behind the driver, on any interface",
                    Hook::Tcx => "TC by link, Linux 6.6 or newer",
                    Hook::Clsact => "TC by qdisc",
                },
            ),
        };
        Some(PossibleValue::new(name).help(help))
    }
}

/// `--direction`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DirectionArg(DirectionChoice);

impl ValueEnum for DirectionArg {
    fn value_variants<'a>() -> &'a [Self] {
        &[Self(DirectionChoice::Auto), Self(DirectionChoice::Ingress), Self(DirectionChoice::Both)]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(match self.0 {
            DirectionChoice::Auto => PossibleValue::new("auto").help("Ingress on loopback, both elsewhere"),
            DirectionChoice::Ingress => {
                PossibleValue::new("ingress").help("Only what comes in: a mirror port, all sides of a router")
            }
            DirectionChoice::Both => PossibleValue::new("both").help("What comes in and what goes out"),
        })
    }
}

impl ValueEnum for OutputFormat {
    fn value_variants<'a>() -> &'a [Self] {
        &[Self::Text, Self::Json, Self::Jsonl]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(match self {
            Self::Text => PossibleValue::new("text").help("For people"),
            Self::Json => PossibleValue::new("json").help("One object at the end"),
            Self::Jsonl => PossibleValue::new("jsonl").help("One object a line"),
        })
    }
}

impl Command {
    /// How often `-v` was given.
    pub(crate) const fn verbosity(&self) -> u8 {
        match self {
            Self::Watch(watch) => watch.scope.verbosity.verbose,
            Self::Replay(replay) => replay.verbosity.verbose,
            Self::Check(check) => check.scope.verbosity.verbose,
            Self::Doctor(doctor) => doctor.verbosity.verbose,
        }
    }
}

impl WatchArgs {
    /// What the agent is to watch.
    pub(crate) fn watched(&self) -> Options {
        Options { top: self.output.top, events: self.output.events, ..Options::from(&self.scope) }
    }

    /// Whether the live terminal is meant: text without events, and no lines of the kernel's log that would be drawn over.
    pub(crate) fn wants_screen(&self) -> bool {
        let logs = self.scope.verbosity.verbose >= 2 && std::io::stderr().is_terminal();
        self.output.format == OutputFormat::Text && !self.output.events && !logs
    }
}

impl CheckArgs {
    /// What the agent is to watch, every service by name: an expectation may select any.
    pub(crate) fn watched(&self) -> Options {
        Options::from(&self.scope)
    }
}

impl From<&ScopeArgs> for Options {
    fn from(scope: &ScopeArgs) -> Self {
        Self {
            interfaces: scope.interfaces.clone(),
            hook: scope.hook.0,
            direction: scope.direction.0,
            promisc: scope.promisc,
            max_flows: scope.max_flows,
            filter: (&scope.filter).into(),
            rules: (&scope.rules).into(),
            verifier_log: scope.verbosity.verbose >= 1,
            kernel_log: scope.verbosity.verbose >= 2,
            ..Self::default()
        }
    }
}

impl From<&FilterArgs> for options::Filter {
    fn from(filter: &FilterArgs) -> Self {
        Self { ports: filter.ports.clone(), nets: filter.nets.clone() }
    }
}

impl From<&RuleArgs> for options::Rules {
    fn from(rules: &RuleArgs) -> Self {
        let RuleArgs { half_open_after, expire_after, udp_idle, idle_after, one_sided } = *rules;
        Self { half_open_after, expire_after, udp_idle, idle_after, one_sided }
    }
}

/// Reads the process's own command line. Help and version end the process with 0, a usage error with
/// one line on stderr and 2.
pub(crate) fn parse() -> Command {
    parse_from(std::env::args_os()).unwrap_or_else(|error| {
        if !error.use_stderr() {
            error.exit()
        }
        eprintln!("handshake: {}", one_line(&error));
        std::process::exit(2)
    })
}

/// The same from any words, the first of which is the program's name.
///
/// # Errors
///
/// What clap says of the words, help and version included; [`one_line`] makes it one line.
pub(crate) fn parse_from<I>(words: I) -> Result<Command, clap::Error>
where
    I: IntoIterator,
    I::Item: Into<OsString> + Clone,
{
    let cli = CommandLine::try_parse_from(words)?;
    let command = cli.command.unwrap_or(Command::Watch(cli.watch));
    match &command {
        Command::Watch(watch) => check_scope(&watch.scope)?,
        Command::Check(check) => {
            check_scope(&check.scope)?;
            check_check(check)?;
        }
        Command::Replay(replay) => {
            check_filter(&replay.filter)?;
            check_rules(&replay.rules)?;
            check_compat(replay)?;
        }
        Command::Doctor(doctor) => check_interfaces(&doctor.interfaces)?,
    }
    Ok(command)
}

/// A usage error on one line, without clap's decoration.
pub(crate) fn one_line(error: &clap::Error) -> String {
    let rendered = error.render().to_string();
    let first = rendered.split("\n\n").next().unwrap_or_default();
    let joined: Vec<&str> = first.split_whitespace().collect();
    let said = joined.join(" ");
    let said = said.strip_prefix("error: ").unwrap_or(&said);
    match error.get(ContextKind::SuggestedArg).or_else(|| error.get(ContextKind::SuggestedSubcommand)) {
        Some(ContextValue::String(near)) => format!("{said}; did you mean '{near}'?"),
        Some(ContextValue::Strings(near)) if !near.is_empty() => {
            format!("{said}; did you mean '{}'?", near.join("' or '"))
        }
        _ => format!("{said}; see 'handshake --help'"),
    }
}

fn check_scope(scope: &ScopeArgs) -> Result<(), clap::Error> {
    check_interfaces(&scope.interfaces)?;
    check_filter(&scope.filter)?;
    check_rules(&scope.rules)
}

fn check_interfaces(interfaces: &[String]) -> Result<(), clap::Error> {
    refuse_if(interfaces.len() > MAX_INTERFACES, || {
        format!("{} interfaces are more than one agent watches ({MAX_INTERFACES})", interfaces.len())
    })?;
    let twice = interfaces.iter().enumerate().find(|(at, name)| interfaces[..*at].contains(name));
    match twice {
        Some((_, name)) => Err(usage(format!("interface {name} is named twice"))),
        None => Ok(()),
    }
}

fn check_filter(filter: &FilterArgs) -> Result<(), clap::Error> {
    refuse_if(filter.nets.len() > MAX_NETS, || {
        format!("--net: {} prefixes are more than fit ({MAX_NETS})", filter.nets.len())
    })
}

fn check_rules(rules: &RuleArgs) -> Result<(), clap::Error> {
    refuse_if(rules.expire_after < rules.half_open_after, || {
        "--expire-after must not be shorter than --half-open-after".to_owned()
    })
}

fn check_check(check: &CheckArgs) -> Result<(), clap::Error> {
    let alone = check.command.is_empty();
    refuse_if(alone && check.period.is_none() && !check.list_metrics, || {
        "check needs a command behind --, or --for how long to observe".to_owned()
    })?;
    refuse_if(!alone && check.format != OutputFormat::Text, || {
        "--output: stdout is the command's; --report FILE takes the JSON report".to_owned()
    })?;
    refuse_if(check.ignore_status && check.propagate, || {
        "--ignore-status and --propagate say the opposite".to_owned()
    })
}

fn check_compat(replay: &ReplayArgs) -> Result<(), clap::Error> {
    refuse_if(replay.compat && !replay.output.flows && !replay.output.events, || {
        "--compat adds to each flow: it needs --flows or --events".to_owned()
    })
}

fn refuse_if(wrong: bool, why: impl FnOnce() -> String) -> Result<(), clap::Error> {
    if wrong { Err(usage(why())) } else { Ok(()) }
}

fn usage(why: String) -> clap::Error {
    CommandLine::command().error(ErrorKind::ValueValidation, why)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::time::Duration;

    use clap::CommandFactory;

    use super::{Command, CommandLine, HookChoice, OutputFormat, WatchArgs, one_line, parse_from};
    use crate::testing::{CHECK, JSON, REPLAY, TERMINAL, code};

    #[test]
    fn clap_finds_no_fault_in_the_definition() {
        CommandLine::command().debug_assert();
    }

    /// Each option that a page names is there, and each option of check and replay is in its page.
    #[test]
    fn documented_options_are_there() {
        let command = CommandLine::command();
        let options = |of: &clap::Command| -> BTreeSet<String> {
            of.get_arguments().filter_map(|each| each.get_long()).map(|name| format!("--{name}")).collect()
        };
        let all: BTreeSet<String> = command.get_subcommands().flat_map(options).collect();
        let named = |page: &str| -> BTreeSet<String> {
            let words = code(page).into_iter().flat_map(str::split_whitespace);
            words.filter(|word| word.starts_with("--") && word.len() > 2).map(str::to_owned).collect()
        };
        for page in [JSON, TERMINAL, CHECK, REPLAY] {
            let unknown: Vec<String> = named(page).difference(&all).cloned().collect();
            assert!(unknown.is_empty(), "there is no {unknown:?}");
        }
        for (name, page) in [("replay", REPLAY), ("check", CHECK)] {
            let of = command.find_subcommand(name).map(options).unwrap_or_default();
            let everywhere = ["--verbose", "--output"].map(str::to_owned).into();
            let missing: Vec<String> = (&(&of - &named(page)) - &everywhere).into_iter().collect();
            assert!(missing.is_empty(), "not in the page of {name}: {missing:?}");
        }
    }

    #[test]
    fn watch_is_what_happens_without_a_subcommand() {
        for words in ["handshake -i lo --port 443", "handshake watch -i lo --port 443"] {
            let watch = watch(words);
            assert_eq!(watch.scope.interfaces, ["lo"]);
            assert_eq!(watch.scope.filter.ports[0].to_string(), "443");
        }
        assert!(watch("handshake").scope.interfaces.is_empty());
    }

    #[test]
    fn defaults_are_those_of_the_table() {
        let watch = watch("handshake watch");
        assert_eq!(watch.interval, Duration::from_secs(1));
        assert_eq!(watch.scope.rules.half_open_after, Duration::from_secs(3));
        assert_eq!(watch.scope.rules.expire_after, Duration::from_secs(75));
        assert_eq!(watch.scope.rules.udp_idle, Duration::from_secs(60));
        assert_eq!(watch.scope.rules.idle_after, Duration::from_secs(3600));
        assert_eq!(
            (watch.output.top, watch.output.format, watch.scope.hook.0),
            (10, OutputFormat::Text, HookChoice::Auto)
        );
        assert!(
            !watch.output.flows
                && !watch.output.events
                && !watch.scope.promisc
                && !watch.scope.rules.one_sided
        );
        assert!(watch.period.is_none());
    }

    #[test]
    fn options_repeat_and_take_lists() {
        let watch =
            watch("handshake -i a -i b --port 80,443 --port 8000-8100 --net 10.0.0.0/8 --net ::1 -vv");
        assert_eq!(watch.scope.interfaces, ["a", "b"]);
        let ports: Vec<String> = watch.scope.filter.ports.iter().map(ToString::to_string).collect();
        assert_eq!(ports, ["80", "443", "8000-8100"]);
        assert_eq!(watch.scope.filter.nets.len(), 2);
        assert_eq!(watch.scope.verbosity.verbose, 2);
    }

    #[test]
    fn replay_has_room_for_everything_unless_told() {
        let Ok(Command::Replay(replay)) = parse_from("handshake replay - --flows -o json".split(' ')) else {
            panic!("not a replay");
        };
        assert_eq!(replay.file.as_os_str(), "-");
        assert!(replay.max_flows.is_none() && replay.output.flows);
    }

    #[test]
    fn every_option_is_a_variable_of_the_same_name() {
        let mut command = CommandLine::command();
        command.build();
        let commands = std::iter::once(&command).chain(command.get_subcommands());
        for argument in commands.flat_map(clap::Command::get_arguments) {
            let Some(long) = argument.get_long().filter(|long| !["help", "version"].contains(long)) else {
                continue;
            };
            let variable = format!("HANDSHAKE_{}", long.replace('-', "_").to_uppercase());
            assert_eq!(argument.get_env().and_then(|env| env.to_str()), Some(variable.as_str()));
        }
    }

    #[test]
    fn usage_errors_are_one_line_that_names_the_fault() {
        let table = [
            ("handshake --prot 443", "unexpected argument '--prot' found; did you mean '--port'?"),
            ("handshake wach", "unrecognized subcommand 'wach'; did you mean 'watch'?"),
            (
                "handshake --hook fast",
                "invalid value 'fast' for '--hook <HOOK>' [possible values: auto, xdp-native, xdp-generic, tcx, clsact]; see 'handshake --help'",
            ),
            (
                "handshake replay",
                "the following required arguments were not provided: <FILE>; see 'handshake --help'",
            ),
            (
                "handshake --for 3",
                "invalid value '3' for '--for <DURATION>': a unit is missing: ms, s, m or h; see 'handshake --help'",
            ),
            ("handshake -i lo -i lo", "interface lo is named twice; see 'handshake --help'"),
            (
                "handshake --expire-after 1s",
                "--expire-after must not be shorter than --half-open-after; see 'handshake --help'",
            ),
            (
                "handshake --max-flows 0",
                "invalid value '0' for '--max-flows <N>': 0 is not in 1..=67108864; see 'handshake --help'",
            ),
            (
                "handshake -i 1,2,3,4,5,6,7,8",
                "8 interfaces are more than one agent watches (7); see 'handshake --help'",
            ),
        ];
        for (words, expected) in table {
            let error = parse_from(words.split(' ')).expect_err(words);
            assert_eq!(one_line(&error), expected);
            assert_eq!(error.exit_code(), 2);
        }
        let nets = format!("handshake --net {}", ["::1"; 17].join(","));
        assert!(parse_from(nets.split(' ')).is_err());
    }

    #[test]
    fn help_is_as_committed() {
        let mut command = CommandLine::command().term_width(100);
        command.build();
        insta::assert_snapshot!("help", command.render_long_help());
        for name in ["watch", "check", "replay", "doctor"] {
            let sub = command.find_subcommand_mut(name).expect("it was just listed");
            insta::assert_snapshot!(format!("help_{name}"), sub.render_long_help());
        }
    }

    fn watch(words: &str) -> WatchArgs {
        let Command::Watch(watch) = parse_from(words.split(' ')).expect("good words") else {
            panic!("{words} is not watch");
        };
        watch
    }
}
