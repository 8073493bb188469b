//! The command line: every subcommand, option, default and environment variable. Depends on clap, and not on
//! the commands that it starts.

mod help;
mod join;
mod serve;
mod usage;
mod why;

use std::ffi::OsString;
use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{BoolishValueParser, PossibleValue, Styles};
use clap::{ArgAction, Args, CommandFactory, FromArgMatches as _, Parser, Subcommand, ValueEnum};
use handshake_agent::address::{Cidr, Ends, PortRange};
use handshake_agent::hook::{DirectionChoice, Hook, HookChoice};
use handshake_agent::options::{self, InterfaceChoice, Options};
use handshake_common::abi::{EVIDENCE_BYTES, MAX_INTERFACES, MAX_NETS};

use crate::duration::{clock, duration, interval, period, shown};
use crate::number::bytes;
use crate::report::OutputFormat;
use crate::time::When;
use handshake_export::events::EventChoice;

pub(crate) use join::JoinArgs;
pub(crate) use serve::{Listen, ServeArgs, with_file};
use usage::{explained, refuse_if, usage};
pub(crate) use usage::{misspelt, one_line};
pub(crate) use why::WhyArgs;

/// The defaults of the command's own options; those of the rules and tables are the agent's.
mod defaults {
    pub(super) use handshake_agent::options::defaults::*;

    /// Time between two reports.
    pub(super) const INTERVAL: Duration = Duration::from_secs(1);
    /// Services listed by name.
    pub(super) const TOP: usize = 10;
    /// Where a service listens for scrapers.
    pub(super) const METRICS_LISTEN: &str = "127.0.0.1:9477";
    /// Time between two writings of a service's file: Prometheus' usual interval.
    pub(super) const WRITE_EVERY: Duration = Duration::from_secs(15);
    /// Room for the files of events.
    pub(super) const EVENTS_KEEP: &str = "100M";

    use std::time::Duration;
}

/// Upper bound of `--evidence-bytes`: all that is kept of a packet.
const MOST_DATA: i64 = EVIDENCE_BYTES as i64;
/// Upper bound of `--max-flows`: 8 GiB of IPv4 slots.
const MOST_FLOWS: i64 = 1 << 26;

/// The command line as clap parses it. Without a subcommand, the options are those of `watch`.
#[derive(Debug, Parser)]
#[command(
    name = "handshake",
    version,
    about = "Which TCP handshakes complete, which stay half-open and why, and which UDP flows are answered",
    after_help = help::GENERAL,
    help_template = "{about-with-newline}\n{usage-heading} {usage}\n\n{before-help}Options:\n{options}{after-help}",
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

/// The subcommand with its options.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Watch the interfaces' traffic live (the default)
    #[command(after_help = help::WATCH)]
    Watch(WatchArgs),
    /// Look for some seconds, then say what is wrong, why, and whose it is
    #[command(after_help = help::WHY)]
    Why(WhyArgs),
    /// Watch as a service, for Prometheus and systemd, until it is stopped
    #[command(after_help = help::SERVE)]
    Serve(Box<ServeArgs>),
    /// Run a command and judge its traffic; the exit code is the answer
    #[command(after_help = help::CHECK)]
    Check(CheckArgs),
    /// Compare two JSON reports; with expectations, by the exit code
    #[command(after_help = help::DIFF)]
    Diff(DiffArgs),
    /// Join what two places saw of the same attempts: where was it lost?
    #[command(after_help = help::JOIN)]
    Join(JoinArgs),
    /// Run a capture through the same engine, without privileges
    #[command(after_help = help::REPLAY)]
    Replay(ReplayArgs),
    /// Report what this machine supports, and how to fix what it does not
    #[command(after_help = help::DOCTOR)]
    Doctor(DoctorArgs),
    /// Print a man page, a shell's completions, or the seccomp profile for container engines
    #[command(hide = true)]
    Generate(GenerateArgs),
}

/// Options of `handshake generate`, which packages use.
#[derive(Debug, Args)]
pub(crate) struct GenerateArgs {
    /// man, the shell, or seccomp
    #[arg(value_enum)]
    pub(crate) what: Generated,
    /// File to write it to, with its folder, instead of standard output
    #[arg(long, value_name = "FILE", env = "HANDSHAKE_FILE", hide_env = true)]
    pub(crate) file: Option<PathBuf>,
}

/// What packages and container engines are given.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Generated {
    /// The man page handshake(1).
    Man,
    /// Completions of bash.
    Bash,
    /// Completions of zsh.
    Zsh,
    /// Completions of fish.
    Fish,
    /// The profile that lets a container call bpf(2).
    Seccomp,
}

/// Options of `handshake watch`.
#[derive(Debug, Args)]
pub(crate) struct WatchArgs {
    #[command(flatten)]
    pub(crate) scope: ScopeArgs,
    /// Stop after this time and print the last report
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
    /// Record the last hour in this folder, for 'handshake replay DIR'; the live terminal goes back in it with ←
    #[arg(long, value_name = "DIR", env = "HANDSHAKE_RECORD", hide_env = true, help_heading = "Output")]
    pub(crate) record: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) evidence: EvidenceArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// What is kept of the handshakes that fail.
#[derive(Debug, Args)]
#[command(next_help_heading = "Evidence")]
pub(crate) struct EvidenceArgs {
    /// Write the packets of handshakes that fail to this folder, and of no other: evidence.pcapng, summary.md
    #[arg(long = "evidence", value_name = "DIR", env = "HANDSHAKE_EVIDENCE", hide_env = true)]
    pub(crate) folder: Option<PathBuf>,
    /// Bytes of data that are kept of each packet, beside its headers; 256 bytes in all at most
    #[arg(long = "evidence-bytes", value_name = "N", default_value_t = 0, env = "HANDSHAKE_EVIDENCE_BYTES")]
    #[arg(hide_env = true, value_parser = clap::value_parser!(u32).range(0..=MOST_DATA))]
    pub(crate) bytes: u32,
}

/// Options of every command that attaches: what it watches, and where.
#[derive(Debug, Args)]
pub(crate) struct ScopeArgs {
    /// Interface to watch, 'veth*' or any, repeatable [default: those of the default routes]
    #[arg(short, long = "interface", value_name = "IF", env = "HANDSHAKE_INTERFACE", value_delimiter = ',')]
    #[arg(hide_env = true)]
    pub(crate) interfaces: Vec<String>,
    /// Watch interfaces that are not there yet as soon as they are
    #[arg(long, env = "HANDSHAKE_WAIT", hide_env = true, value_parser = BoolishValueParser::new())]
    pub(crate) wait: bool,
    /// Hook to attach to
    #[arg(long, value_enum, default_value_t = HookArg(HookChoice::Auto), env = "HANDSHAKE_HOOK", hide_env = true)]
    pub(crate) hook: HookArg,
    /// Direction to watch; auto is ingress on loopback, both elsewhere
    #[arg(long, value_enum, default_value_t = DirectionArg(DirectionChoice::Auto), env = "HANDSHAKE_DIRECTION", hide_env = true)]
    pub(crate) direction: DirectionArg,
    /// Know the process of each end that is a socket of this machine
    #[arg(long, env = "HANDSHAKE_PROCESS", hide_env = true, value_parser = BoolishValueParser::new())]
    pub(crate) process: bool,
    /// Set the interfaces to promiscuous mode, as a mirror port needs
    #[arg(long, env = "HANDSHAKE_PROMISC", hide_env = true, value_parser = BoolishValueParser::new())]
    pub(crate) promisc: bool,
    /// Flows that the tables have room for, in any state
    #[arg(long, value_name = "N", default_value_t = defaults::MAX_FLOWS, env = "HANDSHAKE_MAX_FLOWS")]
    #[arg(hide_env = true, value_parser = clap::value_parser!(u32).range(1..=MOST_FLOWS))]
    pub(crate) max_flows: u32,
    /// Keep user and capabilities after attaching, and do without Landlock and seccomp
    #[arg(hide_short_help = true)]
    #[arg(long, env = "HANDSHAKE_KEEP_PRIVILEGES", hide_env = true, value_parser = BoolishValueParser::new())]
    pub(crate) keep_privileges: bool,
    /// Run on an architecture that handshake is not proven on
    #[arg(hide = true)]
    #[arg(long, env = "HANDSHAKE_EXPERIMENTAL", hide_env = true, value_parser = BoolishValueParser::new())]
    pub(crate) experimental: bool,
    #[command(flatten)]
    pub(crate) verbosity: VerbosityArgs,
    #[command(flatten)]
    pub(crate) filter: FilterArgs,
    #[command(flatten)]
    pub(crate) rules: RuleArgs,
}

/// Options of `handshake check`.
#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    #[command(flatten)]
    pub(crate) scope: ScopeArgs,
    /// Condition that must hold, such as 'completed / attempts >= 99.9%'; repeatable, or several
    /// separated by ;
    #[arg(long = "expect", value_name = "EXPR", value_delimiter = ';', env = "HANDSHAKE_EXPECT")]
    #[arg(hide_env = true, help_heading = None::<&str>)]
    pub(crate) expectations: Vec<String>,
    /// TOML file with expectations: expect = ["half_open == 0"]; also for = "30s" and allow-nothing = true;
    /// repeatable
    #[arg(long = "expect-file", value_name = "FILE", env = "HANDSHAKE_EXPECT_FILE", hide_env = true)]
    #[arg(help_heading = None::<&str>)]
    pub(crate) expect_files: Vec<PathBuf>,
    /// Without a command, observe for this time; a command that runs longer is stopped and counts as failed
    #[arg(long = "for", value_name = "DURATION", value_parser = period, env = "HANDSHAKE_FOR", hide_env = true)]
    #[arg(help_heading = None::<&str>)]
    pub(crate) period: Option<Duration>,
    /// Write the report to a file as one JSON object
    #[arg(long, value_name = "FILE", env = "HANDSHAKE_REPORT", hide_env = true, help_heading = None::<&str>)]
    pub(crate) report: Option<PathBuf>,
    /// Write the expectations and what they came to as JUnit XML
    #[arg(long, value_name = "FILE", env = "HANDSHAKE_JUNIT", hide_env = true, help_heading = None::<&str>)]
    pub(crate) junit: Option<PathBuf>,
    /// text or json; with a command, stdout belongs to the command, so use --report for JSON
    #[arg(short = 'o', long = "output", value_enum, default_value_t = OutputFormat::Text)]
    #[arg(value_name = "FORMAT", env = "HANDSHAKE_OUTPUT", hide_env = true, help_heading = None::<&str>)]
    pub(crate) format: OutputFormat,
    /// Services listed by name; the others are summed up as 'other'
    #[arg(long, value_name = "N", default_value_t = defaults::TOP, env = "HANDSHAKE_TOP", hide_env = true)]
    #[arg(help_heading = None::<&str>)]
    pub(crate) top: usize,
    /// Show times in UTC instead of the local time zone; JSON is always in UTC
    #[arg(long, env = "HANDSHAKE_UTC", hide_env = true, value_parser = BoolishValueParser::new())]
    #[arg(help_heading = None::<&str>)]
    pub(crate) utc: bool,
    /// Judge the expectations even if no attempt and no UDP flow was seen; attempts == 0 allows it too
    #[arg(long, env = "HANDSHAKE_ALLOW_NOTHING", hide_env = true, value_parser = BoolishValueParser::new())]
    #[arg(help_heading = None::<&str>)]
    pub(crate) allow_nothing: bool,
    /// List the flows in the JSON report
    #[arg(long, env = "HANDSHAKE_FLOWS", hide_env = true, value_parser = BoolishValueParser::new())]
    #[arg(help_heading = None::<&str>)]
    pub(crate) flows: bool,
    /// Do not fail the check when the command fails
    #[arg(long, env = "HANDSHAKE_IGNORE_STATUS", hide_env = true, value_parser = BoolishValueParser::new())]
    #[arg(help_heading = "Command")]
    pub(crate) ignore_status: bool,
    /// Exit with the command's status if it is not 0
    #[arg(long, env = "HANDSHAKE_PROPAGATE", hide_env = true, value_parser = BoolishValueParser::new())]
    #[arg(help_heading = "Command")]
    pub(crate) propagate: bool,
    /// Run the command with root's capabilities; otherwise it runs as the user who called sudo, or as root
    /// without capabilities
    #[arg(long, env = "HANDSHAKE_AS_ROOT", hide_env = true, value_parser = BoolishValueParser::new())]
    #[arg(help_heading = "Command")]
    pub(crate) as_root: bool,
    /// List the names that expressions can use, and exit
    #[arg(long, env = "HANDSHAKE_LIST_METRICS", hide_env = true, value_parser = BoolishValueParser::new())]
    #[arg(help_heading = None::<&str>)]
    pub(crate) list_metrics: bool,
    #[command(flatten)]
    pub(crate) evidence: EvidenceArgs,
    /// The command and its arguments
    #[arg(last = true, value_name = "CMD", help_heading = "Command")]
    pub(crate) command: Vec<OsString>,
}

/// Options of `handshake diff`.
#[derive(Debug, Args)]
pub(crate) struct DiffArgs {
    /// The report to compare with; of several in a file the last; - is standard input; DIR@17:44 is a moment of a
    /// recording
    #[arg(value_name = "OLD")]
    pub(crate) old: PathBuf,
    /// The report that is compared
    #[arg(value_name = "NEW")]
    pub(crate) new: PathBuf,
    /// Condition that must hold, such as 'change(p99(connect)) <= 20%'; repeatable, or several separated by ;
    #[arg(long = "expect", value_name = "EXPR", value_delimiter = ';', env = "HANDSHAKE_EXPECT")]
    #[arg(hide_env = true)]
    pub(crate) expectations: Vec<String>,
    /// TOML file with expectations: expect = ["change(refused) <= 0%"]; also allow-nothing = true; repeatable
    #[arg(long = "expect-file", value_name = "FILE", env = "HANDSHAKE_EXPECT_FILE", hide_env = true)]
    pub(crate) expect_files: Vec<PathBuf>,
    /// Write the expectations and what they came to as JUnit XML
    #[arg(long, value_name = "FILE", env = "HANDSHAKE_JUNIT", hide_env = true)]
    pub(crate) junit: Option<PathBuf>,
    /// Judge the expectations even if no attempt and no UDP flow is in one of the reports
    #[arg(long, env = "HANDSHAKE_ALLOW_NOTHING", hide_env = true, value_parser = BoolishValueParser::new())]
    pub(crate) allow_nothing: bool,
    /// text for a table, or json
    #[arg(short = 'o', long = "output", value_enum, default_value_t = OutputFormat::Text)]
    #[arg(value_name = "FORMAT", env = "HANDSHAKE_OUTPUT", hide_env = true)]
    pub(crate) format: OutputFormat,
}

/// Options of `handshake replay`.
#[derive(Debug, Args)]
pub(crate) struct ReplayArgs {
    /// Captures to read: pcap or pcapng, plain or compressed; folders of them; - is standard input. Or the one
    /// folder of a recording
    #[arg(value_name = "FILE", required = true)]
    pub(crate) files: Vec<PathBuf>,
    /// Moment of a recording: 17:44, '2026-03-01 17:44:03' or 2026-03-01T17:44:03Z [default: its last]
    #[arg(long, value_name = "TIME", env = "HANDSHAKE_AT", hide_env = true)]
    pub(crate) at: Option<When>,
    /// Report each time so much of the capture's time has passed, as text or JSON lines
    #[arg(long, value_name = "DURATION", value_parser = period, env = "HANDSHAKE_INTERVAL", hide_env = true)]
    pub(crate) interval: Option<Duration>,
    /// Draw the handshakes of this end, or of ADDRESS:PORT,ADDRESS:PORT, packet by packet, and no report
    #[arg(long, value_name = "ADDRESS:PORT", env = "HANDSHAKE_LADDER", hide_env = true)]
    #[arg(conflicts_with_all = ["format", "flows", "events", "interval", "compat"])]
    pub(crate) ladder: Option<Ends>,
    /// Look at the capture on the terminal's four screens, then print the report
    #[arg(long, env = "HANDSHAKE_TUI", hide_env = true, value_parser = BoolishValueParser::new())]
    #[arg(conflicts_with_all = ["format", "events", "interval", "ladder"])]
    pub(crate) tui: bool,
    /// Draw the screens of --tui with ASCII characters only
    #[arg(long, env = "HANDSHAKE_ASCII", hide_env = true, value_parser = BoolishValueParser::new())]
    pub(crate) ascii: bool,
    /// Flows that the tables have room for, as in watch [default: every flow of the capture]
    #[arg(long, value_name = "N", env = "HANDSHAKE_MAX_FLOWS", hide_env = true)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=MOST_FLOWS))]
    pub(crate) max_flows: Option<u32>,
    /// Memory to use at most, such as 512M or 2G [default: what is free]
    #[arg(hide_short_help = true)]
    #[arg(long, value_name = "SIZE", value_parser = bytes, env = "HANDSHAKE_MAX_MEMORY", hide_env = true)]
    pub(crate) max_memory: Option<u64>,
    /// Shorten longer pauses between two packets to this
    #[arg(long, value_name = "DURATION", value_parser = duration, env = "HANDSHAKE_SQUEEZE", hide_env = true)]
    pub(crate) squeeze: Option<Duration>,
    /// Add Wireshark's tcp.completeness to each flow: SYN 1, SYN+ACK 2, ACK 4, RST 32
    #[arg(long, env = "HANDSHAKE_COMPAT", hide_env = true, value_parser = BoolishValueParser::new())]
    pub(crate) compat: bool,
    /// Judge what is inside VXLAN, Geneve, GTP-U, GRE and IP in IP instead of the tunnels' own packets
    #[arg(long, env = "HANDSHAKE_TUNNELS", hide_env = true, value_parser = BoolishValueParser::new())]
    pub(crate) tunnels: bool,
    #[command(flatten)]
    pub(crate) verbosity: VerbosityArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
    #[command(flatten)]
    pub(crate) filter: FilterArgs,
    #[command(flatten)]
    pub(crate) rules: RuleArgs,
}

/// Options of `handshake doctor`.
#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    /// Interface to examine, 'veth*' or any, repeatable [default: those of the default routes]
    #[arg(short, long = "interface", value_name = "IF", env = "HANDSHAKE_INTERFACE", value_delimiter = ',')]
    #[arg(hide_env = true)]
    pub(crate) interfaces: Vec<String>,
    #[command(flatten)]
    pub(crate) verbosity: VerbosityArgs,
}

/// What a report shows, and its format.
#[derive(Debug, Args)]
#[command(next_help_heading = "Output")]
pub(crate) struct OutputArgs {
    /// text, json for one report at the end, or jsonl for one report per interval
    #[arg(short = 'o', long = "output", value_enum, default_value_t = OutputFormat::Text)]
    #[arg(value_name = "FORMAT", env = "HANDSHAKE_OUTPUT", hide_env = true)]
    pub(crate) format: OutputFormat,
    /// Services listed by name; the others are summed up as 'other'
    #[arg(long, value_name = "N", default_value_t = defaults::TOP, env = "HANDSHAKE_TOP", hide_env = true)]
    pub(crate) top: usize,
    /// List the flows at the end
    #[arg(long, env = "HANDSHAKE_FLOWS", hide_env = true, value_parser = BoolishValueParser::new())]
    pub(crate) flows: bool,
    /// Show attempts as they become half-open and as they end, one by one
    #[arg(long, value_enum, default_value_t = EventArg(EventChoice::None), env = "HANDSHAKE_EVENTS", hide_env = true)]
    #[arg(value_name = "WHICH")]
    pub(crate) events: EventArg,
    /// Show times in UTC instead of the local time zone; JSON is always in UTC
    #[arg(long, env = "HANDSHAKE_UTC", hide_env = true, value_parser = BoolishValueParser::new())]
    pub(crate) utc: bool,
    /// Show names of addresses and ports: by /etc/hosts and /etc/services, then ask this machine's name servers;
    /// JSON always has numbers
    #[arg(long, env = "HANDSHAKE_NAMES", hide_env = true, value_parser = BoolishValueParser::new())]
    pub(crate) names: bool,
}

impl OutputArgs {
    /// Whether anything is shown in which names may stand.
    pub(crate) fn wants_names(&self) -> bool {
        self.names && self.format == OutputFormat::Text
    }
}

/// Which flows are tracked. Packet classes are counted before the filter.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Filter")]
pub(crate) struct FilterArgs {
    /// Track flows with this port at either end, repeatable; 8000-8100 is a range
    #[arg(
        long = "port",
        value_name = "PORT",
        value_delimiter = ',',
        env = "HANDSHAKE_PORT",
        hide_env = true
    )]
    pub(crate) ports: Vec<PortRange>,
    /// Track flows with an address in this prefix at either end, up to 16 times
    #[arg(long = "net", value_name = "CIDR", value_delimiter = ',', env = "HANDSHAKE_NET", hide_env = true)]
    pub(crate) nets: Vec<Cidr>,
}

/// The ages at which a flow changes its verdict or its record is removed.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Rules")]
pub(crate) struct RuleArgs {
    /// An open attempt is half-open from this age on
    #[arg(long, value_name = "DURATION", value_parser = clock, default_value = shown(defaults::HALF_OPEN_AFTER))]
    #[arg(env = "HANDSHAKE_HALF_OPEN_AFTER", hide_env = true)]
    pub(crate) half_open_after: Duration,
    /// An open attempt expires this time after its last SYN or SYN+ACK
    #[arg(long, value_name = "DURATION", value_parser = clock, default_value = shown(defaults::EXPIRE_AFTER))]
    #[arg(env = "HANDSHAKE_EXPIRE_AFTER", hide_env = true)]
    pub(crate) expire_after: Duration,
    /// A UDP flow expires this time after its last packet
    #[arg(hide_short_help = true)]
    #[arg(long, value_name = "DURATION", value_parser = clock, default_value = shown(defaults::UDP_IDLE))]
    #[arg(env = "HANDSHAKE_UDP_IDLE", hide_env = true)]
    pub(crate) udp_idle: Duration,
    /// A completed connection without a packet for this time is evicted as early as a closed one
    #[arg(hide_short_help = true)]
    #[arg(long, value_name = "DURATION", value_parser = clock, default_value = shown(defaults::IDLE_AFTER))]
    #[arg(env = "HANDSHAKE_IDLE_AFTER", hide_env = true)]
    pub(crate) idle_after: Duration,
    /// Only one direction passes this point: infer completion from the initiator's packets
    #[arg(long, env = "HANDSHAKE_ONE_SIDED", hide_env = true, value_parser = BoolishValueParser::new())]
    pub(crate) one_sided: bool,
    /// Let incoming segments with a wrong TCP checksum prove nothing; with offload, checksums are often not
    /// there yet in this host's own or virtual traffic
    #[arg(long, env = "HANDSHAKE_VERIFY_CHECKSUMS", hide_env = true, value_parser = BoolishValueParser::new())]
    pub(crate) verify_checksums: bool,
}

/// How much is printed to stderr.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct VerbosityArgs {
    /// Print more to stderr; twice, with --port or --net, what the kernel side makes of each handshake
    /// segment
    #[arg(short, long, action = ArgAction::Count, env = "HANDSHAKE_VERBOSE", hide_env = true)]
    pub(crate) verbose: u8,
}

/// The value of `--hook`. The names are those of the report's header.
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
                ("auto", "Native XDP on hardware that stays up for it, else TCX, else generic XDP")
            }
            HookChoice::Named(hook) => (
                hook.name(),
                match hook {
                    Hook::XdpNative => "XDP in the driver",
                    Hook::XdpGeneric => "XDP after the driver, on any interface",
                    Hook::Tcx => "TC by a BPF link, Linux 6.6 or newer",
                    Hook::Clsact => "TC by a clsact qdisc",
                },
            ),
        };
        Some(PossibleValue::new(name).help(help))
    }
}

/// The value of `--direction`.
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
                PossibleValue::new("ingress").help("Incoming only: a mirror port, or all sides of a router")
            }
            DirectionChoice::Both => PossibleValue::new("both").help("Incoming and outgoing"),
        })
    }
}

impl ValueEnum for OutputFormat {
    fn value_variants<'a>() -> &'a [Self] {
        &[Self::Text, Self::Json, Self::Jsonl]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(match self {
            Self::Text => PossibleValue::new("text").help("Lines for people"),
            Self::Json => PossibleValue::new("json").help("One JSON object at the end"),
            Self::Jsonl => PossibleValue::new("jsonl").help("One JSON object per line"),
        })
    }
}

/// The value of `--events`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct EventArg(pub(crate) EventChoice);

impl ValueEnum for EventArg {
    fn value_variants<'a>() -> &'a [Self] {
        &[Self(EventChoice::Failed), Self(EventChoice::All), Self(EventChoice::None)]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(match self.0 {
            EventChoice::Failed => PossibleValue::new("failed")
                .help("Attempts that become half-open or fail; completed ones only if they were half-open"),
            EventChoice::All => {
                PossibleValue::new("all").help("Attempts that become half-open, and all that end")
            }
            EventChoice::None => PossibleValue::new("none").help("None"),
        })
    }
}

impl Command {
    /// How often `-v` was given.
    pub(crate) const fn verbosity(&self) -> u8 {
        match self {
            Self::Watch(watch) => watch.scope.verbosity.verbose,
            Self::Replay(replay) => replay.verbosity.verbose,
            Self::Why(why) => why.scope.verbosity.verbose,
            Self::Serve(serve) => serve.scope.verbosity.verbose,
            Self::Check(check) => check.scope.verbosity.verbose,
            Self::Diff(_) | Self::Join(_) | Self::Generate(_) => 0,
            Self::Doctor(doctor) => doctor.verbosity.verbose,
        }
    }
}

impl WatchArgs {
    /// The agent's options.
    pub(crate) fn watched(&self) -> Options {
        let OutputArgs { top, events, flows, .. } = self.output;
        let evidence = self.evidence.folder.is_some();
        let events = events.0.is_any() || self.record.is_some() || evidence;
        Options { top, events, evidence, flows, ..Options::from(&self.scope) }
    }

    /// Whether to use the live terminal: for text without events, and when no lines of the kernel's log would
    /// be printed over it.
    pub(crate) fn wants_screen(&self) -> bool {
        let logs = self.scope.verbosity.verbose >= 2 && std::io::stderr().is_terminal();
        self.output.format == OutputFormat::Text && !self.output.events.0.is_any() && !logs
    }
}

impl CheckArgs {
    /// The agent's options. Every service is listed by name, because an expectation may select any.
    pub(crate) fn watched(&self) -> Options {
        let evidence = self.evidence.folder.is_some();
        Options { events: evidence, evidence, ..Options::from(&self.scope) }
    }
}

impl From<&ScopeArgs> for Options {
    fn from(scope: &ScopeArgs) -> Self {
        Self {
            interfaces: InterfaceChoice { names: scope.interfaces.clone(), wait: scope.wait },
            hook: scope.hook.0,
            direction: scope.direction.0,
            promisc: scope.promisc,
            processes: scope.process,
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
        let RuleArgs { half_open_after, expire_after, udp_idle, idle_after, one_sided, verify_checksums } =
            *rules;
        Self { half_open_after, expire_after, udp_idle, idle_after, one_sided, verify_checksums }
    }
}

/// Parses the process's command line.
///
/// # Errors
///
/// Those of [`parse_from`].
pub(crate) fn parse() -> Result<Command, clap::Error> {
    parse_from(std::env::args_os())
}

/// Parses a command line given as words, of which the first is the program's name.
///
/// # Errors
///
/// clap's error, which includes requests for help and version; [`one_line`] formats it as one line.
pub(crate) fn parse_from<I>(words: I) -> Result<Command, clap::Error>
where
    I: IntoIterator,
    I::Item: Into<OsString> + Clone,
{
    let words: Vec<OsString> = words.into_iter().map(Into::into).collect();
    let is_set = |name: &str| std::env::var_os(name).is_some();
    parsed(&words).map_err(|error| explained(error, &words, &is_set))
}

fn parsed(words: &[OsString]) -> Result<Command, clap::Error> {
    let matches = definition().try_get_matches_from(words)?;
    let cli = CommandLine::from_arg_matches(&matches)?;
    let command = cli.command.unwrap_or(Command::Watch(cli.watch));
    match &command {
        Command::Watch(watch) => check_scope(&watch.scope)?,
        Command::Why(why) => check_scope(&why.scope)?,
        Command::Serve(serve) => serve.check()?,
        Command::Check(check) => {
            check_scope(&check.scope)?;
            check_check(check)?;
        }
        Command::Replay(replay) => {
            check_filter(&replay.filter)?;
            check_rules(&replay.rules)?;
            check_compat(replay)?;
        }
        Command::Diff(_) | Command::Join(_) | Command::Generate(_) => {}
        Command::Doctor(doctor) => check_interfaces(&doctor.interfaces)?,
    }
    Ok(command)
}

/// The command line, with its subcommands by what they look at.
pub(crate) fn definition() -> clap::Command {
    const FAMILIES: [(&str, &[&str]); 4] = [
        ("Now", &["watch", "why", "serve"]),
        ("Judge", &["check", "diff"]),
        ("Past", &["replay", "join"]),
        ("Besides", &["doctor", "help"]),
    ];
    let command = CommandLine::command();
    let about = |name: &str| match command.find_subcommand(name).and_then(clap::Command::get_about) {
        Some(about) => about.to_string(),
        None => "Print this message or the help of the given subcommand".to_owned(),
    };
    let mut listed = String::new();
    for (family, names) in FAMILIES {
        listed.push_str(&format!("{family}:\n"));
        for name in names {
            listed.push_str(&format!("  {name:<8}{}\n", about(name)));
        }
        listed.push('\n');
    }
    command.before_help(listed)
}

fn check_scope(scope: &ScopeArgs) -> Result<(), clap::Error> {
    check_architecture(std::env::consts::ARCH, scope.experimental)?;
    check_interfaces(&scope.interfaces)?;
    refuse_if(scope.wait && scope.interfaces.is_empty(), || {
        "--wait needs the names of -i to wait for".to_owned()
    })?;
    check_filter(&scope.filter)?;
    check_rules(&scope.rules)
}

/// Whether the programs were run on an architecture, and the order of their stores is proven for it. Captures
/// are read anywhere.
pub(crate) fn is_proven(architecture: &str) -> bool {
    matches!(architecture, "x86_64" | "aarch64")
}

fn check_architecture(architecture: &str, experimental: bool) -> Result<(), clap::Error> {
    refuse_if(!is_proven(architecture) && !experimental, || {
        format!("handshake is not proven on {architecture} yet: --experimental runs it all the same")
    })
}

fn check_interfaces(interfaces: &[String]) -> Result<(), clap::Error> {
    refuse_if(interfaces.len() > MAX_INTERFACES, || {
        format!("{} interfaces, but one agent watches at most {MAX_INTERFACES}", interfaces.len())
    })?;
    let twice = interfaces.iter().enumerate().find(|(at, name)| interfaces[..*at].contains(name));
    match twice {
        Some((_, name)) => Err(usage(format!("interface {name} is given twice"))),
        None => Ok(()),
    }
}

fn check_filter(filter: &FilterArgs) -> Result<(), clap::Error> {
    let zero = filter.ports.iter().find(|range| range.first == 0);
    refuse_if(zero.is_some(), || "--port: 0 is no port of a flow: those are 1 to 65535".to_owned())?;
    refuse_if(filter.nets.len() > MAX_NETS, || {
        format!("--net: {} prefixes, but at most {MAX_NETS} are allowed", filter.nets.len())
    })
}

fn check_rules(rules: &RuleArgs) -> Result<(), clap::Error> {
    refuse_if(rules.expire_after < rules.half_open_after, || {
        "--expire-after must not be shorter than --half-open-after".to_owned()
    })
}

fn check_check(check: &CheckArgs) -> Result<(), clap::Error> {
    let alone = check.command.is_empty();
    let may_end = check.period.is_some() || !check.expect_files.is_empty() || check.list_metrics;
    refuse_if(alone && !may_end, || {
        "check needs a command after --, or a time to observe with --for".to_owned()
    })?;
    refuse_if(!alone && check.format != OutputFormat::Text, || {
        "--output: stdout belongs to the command; use --report FILE for the JSON report".to_owned()
    })?;
    refuse_if(check.flows && check.report.is_none() && check.format == OutputFormat::Text, || {
        "--flows lists the flows in the JSON report: it needs --report FILE or -o json".to_owned()
    })?;
    refuse_if(check.ignore_status && check.propagate, || {
        "--ignore-status and --propagate contradict each other".to_owned()
    })
}

fn check_compat(replay: &ReplayArgs) -> Result<(), clap::Error> {
    refuse_if(replay.compat && !replay.output.flows && !replay.output.events.0.is_any(), || {
        "--compat adds a field to each flow: it needs --flows or --events".to_owned()
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::time::Duration;

    use handshake_common::abi::MAX_INTERFACES;

    use super::{Command, EventChoice, HookChoice, OutputFormat, WatchArgs, one_line, parse_from};
    use crate::testing::{CHECK, JOIN, JSON, REPLAY, SERVE, TERMINAL, code};

    #[test]
    fn the_definition_passes_claps_own_check() {
        super::definition().debug_assert();
    }

    /// Each option that a page of docs/ names exists, and each option of check and replay is in its page.
    #[test]
    fn documented_options_exist() {
        let command = super::definition();
        let options = |of: &clap::Command| -> BTreeSet<String> {
            of.get_arguments().filter_map(|each| each.get_long()).map(|name| format!("--{name}")).collect()
        };
        let all: BTreeSet<String> = command.get_subcommands().flat_map(options).collect();
        let named = |page: &str| -> BTreeSet<String> {
            let words = code(page).into_iter().flat_map(str::split_whitespace);
            words.filter(|word| word.starts_with("--") && word.len() > 2).map(str::to_owned).collect()
        };
        for page in [JSON, TERMINAL, CHECK, REPLAY, SERVE, JOIN] {
            let unknown: Vec<String> = named(page).difference(&all).cloned().collect();
            assert!(unknown.is_empty(), "there is no {unknown:?}");
        }
        for (name, page) in [("replay", REPLAY), ("check", CHECK), ("join", JOIN)] {
            let of = command.find_subcommand(name).map(options).unwrap_or_default();
            let everywhere = ["--verbose", "--output"].map(str::to_owned).into();
            let missing: Vec<String> = (&(&of - &named(page)) - &everywhere).into_iter().collect();
            assert!(missing.is_empty(), "not in the page of {name}: {missing:?}");
        }
    }

    #[test]
    fn watch_is_the_default_subcommand() {
        for words in ["handshake -i lo --port 443", "handshake watch -i lo --port 443"] {
            let watch = watch(words);
            assert_eq!(watch.scope.interfaces, ["lo"]);
            assert_eq!(watch.scope.filter.ports[0].to_string(), "443");
        }
        assert!(watch("handshake").scope.interfaces.is_empty());
    }

    #[test]
    fn the_defaults_of_watch() {
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
                && watch.output.events.0 == EventChoice::None
                && !watch.output.utc
                && !watch.scope.promisc
                && !watch.scope.rules.one_sided
        );
        assert!(watch.period.is_none());
    }

    #[test]
    fn options_can_be_repeated_and_take_lists() {
        let watch =
            watch("handshake -i a -i b --port 80,443 --port 8000-8100 --net 10.0.0.0/8 --net ::1 -vv");
        assert_eq!(watch.scope.interfaces, ["a", "b"]);
        let ports: Vec<String> = watch.scope.filter.ports.iter().map(ToString::to_string).collect();
        assert_eq!(ports, ["80", "443", "8000-8100"]);
        assert_eq!(watch.scope.filter.nets.len(), 2);
        assert_eq!(watch.scope.verbosity.verbose, 2);
    }

    #[test]
    fn replay_has_no_limit_of_flows_by_default() {
        let Ok(Command::Replay(replay)) = parse_from("handshake replay - --flows -o json".split(' ')) else {
            panic!("not a replay");
        };
        assert_eq!(replay.files, ["-"].map(std::path::PathBuf::from));
        assert!(replay.max_flows.is_none() && replay.output.flows);
    }

    #[test]
    fn every_option_has_a_variable_of_the_same_name() {
        let mut command = super::definition();
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
    fn a_usage_error_is_one_line_that_names_the_fault() {
        let table = [
            ("handshake --prot 443", "unexpected argument '--prot' found; did you mean '--port'?"),
            (
                "handshake -i lo --tunnels",
                "--tunnels is for captures: live, watch the tunnel's inner interface (-i vxlan0), or capture the outer one for 'handshake replay --tunnels'; see 'handshake --help'",
            ),
            (
                "handshake check -i lo --tunnels -- true",
                "--tunnels is for captures: live, watch the tunnel's inner interface (-i vxlan0), or capture the outer one for 'handshake replay --tunnels'; see 'handshake check --help'",
            ),
            ("handshake wach", "unrecognized subcommand 'wach'; did you mean 'watch'?"),
            (
                "handshake --hook fast",
                "invalid value 'fast' for '--hook <HOOK>' [possible values: auto, xdp-native, xdp-generic, tcx, clsact]; see 'handshake --help'",
            ),
            (
                "handshake replay",
                "the following required arguments were not provided: <FILE>...; see 'handshake replay --help'",
            ),
            (
                "handshake --for 3",
                "invalid value '3' for '--for <DURATION>': a unit is missing: ms, s, m or h; see 'handshake --help'",
            ),
            ("handshake -i lo -i lo", "interface lo is given twice; see 'handshake --help'"),
            (
                "handshake --expire-after 1s",
                "--expire-after must not be shorter than --half-open-after; see 'handshake --help'",
            ),
            (
                "handshake --max-flows 0",
                "invalid value '0' for '--max-flows <N>': 0 is not in 1..=67108864; see 'handshake --help'",
            ),
            (
                "handshake --events -o json",
                "a value is required for '--events <WHICH>' but none was supplied [possible values: failed, all, none]; see 'handshake --help'",
            ),
            (
                "handshake check --port 443,0 -- true",
                "--port: 0 is no port of a flow: those are 1 to 65535; see 'handshake check --help'",
            ),
            (
                "handshake why --port 0-9",
                "--port: 0 is no port of a flow: those are 1 to 65535; see 'handshake why --help'",
            ),
            (
                "handshake why :0",
                "invalid value ':0' for '[SERVICE]': 0 is no port of a service; see 'handshake why --help'",
            ),
            (
                "handshake serve --metrics-file hs.txt",
                "--metrics-file hs.txt: its name must end in .prom, because node_exporter reads no other file; see 'handshake serve --help'",
            ),
            (
                "handshake check --flows -- true",
                "--flows lists the flows in the JSON report: it needs --report FILE or -o json; see 'handshake check --help'",
            ),
            ("handshake --wait", "--wait needs the names of -i to wait for; see 'handshake --help'"),
        ];
        for (words, expected) in table {
            let error = parse_from(words.split(' ')).expect_err(words);
            assert_eq!(one_line(&error), expected);
            assert_eq!(error.exit_code(), 2);
        }
        let names: Vec<String> = (0..=MAX_INTERFACES).map(|number| number.to_string()).collect();
        let error = parse_from(["handshake", "-i", &names.join(",")]).expect_err("one too many");
        assert!(one_line(&error).starts_with("1025 interfaces, but one agent watches at most 1024"));
        let nets = format!("handshake --net {}", ["::1"; 17].join(","));
        assert!(parse_from(nets.split(' ')).is_err());
    }

    #[test]
    fn an_architecture_that_is_not_proven_is_refused_unless_asked_for() {
        let refused = super::check_architecture("riscv64", false).expect_err("not proven");
        assert!(one_line(&refused).contains("--experimental"), "{refused}");
        super::check_architecture("riscv64", true).expect("asked for");
        super::check_architecture("x86_64", false).expect("proven");
        super::check_architecture("aarch64", false).expect("proven");
    }

    #[test]
    fn help_matches_the_snapshots() {
        let mut command = super::definition().term_width(100);
        command.build();
        insta::assert_snapshot!("help", command.render_long_help());
        for name in ["watch", "why", "serve", "check", "diff", "replay", "join", "doctor"] {
            let sub = command.find_subcommand_mut(name).expect("it was just listed");
            insta::assert_snapshot!(format!("help_{name}"), sub.render_long_help());
        }
    }

    /// A terminal of 80 columns breaks no line of what has lines of its own.
    #[test]
    fn the_lines_of_the_help_are_short() {
        let mut command = super::definition();
        command.build();
        let own = |of: &clap::Command| {
            [of.get_before_help(), of.get_after_help()]
                .into_iter()
                .flatten()
                .map(ToString::to_string)
                .collect()
        };
        let mut all: Vec<String> = own(&command);
        command.get_subcommands().for_each(|each| all.extend::<Vec<String>>(own(each)));
        assert!(all.len() >= 9, "{}", all.len());
        let long = all.iter().flat_map(|text| text.lines()).find(|line| line.chars().count() > 79);
        assert_eq!(long, None);
    }

    fn watch(words: &str) -> WatchArgs {
        let Command::Watch(watch) = parse_from(words.split(' ')).expect("good words") else {
            panic!("{words} is not watch");
        };
        watch
    }
}
