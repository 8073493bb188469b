//! `handshake serve`: the monitor as a service, until it is stopped.

use std::env;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use handshake_agent::Error as AgentError;
use handshake_agent::confine::{Confinement, Network};
use handshake_agent::model::snapshot::Snapshot;
use handshake_agent::session::{self, EVENTS_EVERY, Ending, Pace, Session, Signals, Sink};
use handshake_export::events::EventChoice;
use handshake_export::exemplar::Looking;
use handshake_export::figures::{Beside, Figures};
use handshake_export::health::{Health, WAITS};
use handshake_export::http::{MOST_CONNECTIONS, Scrape, Server, listen_at};
use handshake_export::notify::Manager;
use handshake_export::otlp::settings::Settings;
use handshake_export::otlp::{Exporter, LOGS, Resolver, Start};
use handshake_export::page::Page;
use handshake_export::rows::Rows;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Interval, MissedTickBehavior};

use crate::cli::{Listen, ServeArgs, with_file};
use crate::command::{attach, collector, confinement, load, out, prepare, warn_of_variables};
use crate::console::{announce, say};
use crate::errand::{Done, EVENTS_FILE, Errands, METRICS_FILE};
use crate::error::{CommandError, ConfigError};
use crate::evidence::{Collector, LAST_EVIDENCE};
use crate::file::{FileAtEnd, read_text};
use crate::helper::{Duties, FileDuty, Files, Helper, Lines, LinesDuty, Reread, Rereader, Rereads};
use crate::recorder::Recording;
use crate::time::Zone;

/// The longest configuration, in bytes.
const LONGEST: u64 = 1 << 20;
/// A reading that is younger serves another scraper too.
const FRESH: Duration = Duration::from_secs(1);
/// How often health and status are brought up to date: with rows the loop turns fifty times a second, and there may
/// be hundreds of interfaces.
const SETTLE_EVERY: Duration = Duration::from_millis(100);
/// Descriptors of the server beside its connections: its socket, its event loop, one that is being accepted.
const BESIDE_CONNECTIONS: u64 = 8;
/// The longest that the last rows are written: a signal ends the process within two seconds.
const LAST_ROWS: Duration = Duration::from_secs(1);
/// The longest that a collector is waited for, in the same time.
const LAST_WORDS: Duration = Duration::from_millis(1500);

/// What is said when something else has ended the helper.
const HELPERLESS: &str =
    "the helper process has ended: files, SIGHUP and names of collectors wait for a restart";

/// Runs `handshake serve` and returns its exit code.
///
/// # Errors
///
/// A fault in the configuration; failures to attach, to listen or to write.
pub(crate) fn run(args: ServeArgs) -> Result<u8, CommandError> {
    let args = configured(args)?;
    let exported = args.exported()?;
    if args.check_config {
        warn_of_variables();
        announce("the configuration is right");
        return Ok(0);
    }
    if args.events.0 == EventChoice::All && !args.has_rows() {
        say("--events all: rows go nowhere without --events-file");
    }
    let manager = Manager::of_process().map_err(CommandError::output("reach $NOTIFY_SOCKET"))?;
    outlast_hangup();
    let hosts = hosts(exported.as_ref());
    let helper = helper(&args, &hosts)?;
    let resolver = helper.as_ref().map(|helper| resolver(helper, hosts)).transpose().map_err(out)?;
    let errands = helper.as_ref().map(|helper| handed_over(helper, &args)).transpose()?;
    let recording = helper.as_ref().zip(args.record.as_deref());
    let recording = recording.map(|(helper, path)| Recording::start(helper, path)).transpose()?;
    let collector = helper.as_ref().map(|helper| collector(helper, &args.evidence, Zone::Utc));
    let collector = collector.transpose()?.flatten();
    // After the helper has started: its copy would keep the socket open when this one is closed.
    let socket = args.metrics_listen.0.map(listen_at).transpose().map_err(|source| refused(&args, source))?;
    let listens_at = socket.as_ref().and_then(|socket| socket.local_addr().ok());
    let health = Arc::new(Health::begin());
    let confinement =
        confinement(&args.scope).map(|confinement| Confinement { network: Network::Accepts, ..confinement });
    let server = Server::start(Arc::clone(&health), confinement).map_err(out)?;
    server.listen(socket);
    let mut rows = args.has_rows().then(|| Rows::new(args.events.0, &args.node()));
    let exporter = exported.map(|settings| exporter(settings, &args, rows.as_mut(), resolver)).transpose()?;
    let watched = args.watched();
    let plan = session::plan(&watched)?;
    make_room_for_connections();
    manager.status("loading into the kernel");
    let loaded = load(&watched, &plan)?;
    session::block_on(async {
        let mut signals = Signals::without_hangup()?;
        let hangup = signal(SignalKind::hangup()).map_err(AgentError::system("listen for signals"))?;
        let mut session = attach(loaded, &watched, &plan, &args.scope, &mut signals).await?;
        let handed = helper.as_ref().zip(errands);
        let errands = handed.map(|(helper, handed)| start(helper, handed, rows.as_mut()));
        let errands = errands.transpose().map_err(out)?;
        health.turn(session.answered().into_std(), session.interfaces().len());
        manager.ready(&status(&session));
        say_where(listens_at);
        if recording.is_some() {
            session.record();
        }
        let records = recording.is_some() || collector.is_some();
        let outlets = Outlets { server, errands, rows, exporter, recording, collector };
        let mut service = Service::new(args, manager, health, outlets, hangup);
        let pace = Pace { outlasts_interfaces: true, events: watched.events, records, ..Pace::default() };
        let ending = session::run(&mut session, &mut signals, pace, &mut service).await?;
        service.manager.stopping();
        service.hand_over(&mut session);
        drop(session);
        service.finish().await;
        match ending {
            Ending::Lost(lost) => Err(lost.into()),
            Ending::TimeUp | Ending::Signal(_) | Ending::Done => Ok(0),
        }
    })
}

/// Has SIGHUP ignored until there is a configuration to read again: it would end the process.
fn outlast_hangup() {
    // SAFETY: "ignore" is no function, and no memory is passed.
    unsafe { libc::signal(libc::SIGHUP, libc::SIG_IGN) };
}

/// The options, with those of the file.
fn configured(args: ServeArgs) -> Result<ServeArgs, CommandError> {
    let Some(path) = &args.config else { return Ok(args) };
    let shown = path.display().to_string();
    let text =
        read_text(path, LONGEST).map_err(|source| ConfigError::File { path: shown.clone(), source })?;
    Ok(with_file(env::args_os(), &shown, &text)?)
}

/// Starts the helper, where there is anything for it to do.
fn helper(args: &ServeArgs, hosts: &[String]) -> Result<Option<Helper>, CommandError> {
    let files: Vec<FileDuty> = args.metrics_file.iter().cloned().map(FileDuty::Each).collect();
    let reread = args.config.as_deref().map(|path| rereader(path, args.metrics_listen));
    let path = args.events_file.clone().filter(|_| args.has_rows());
    let lines = path.map(|path| LinesDuty { path, keep: args.events_keep });
    let recording = args.record.clone();
    let is_wanted = reread.is_some() || !files.is_empty() || lines.is_some() || !hosts.is_empty();
    let evidence = args.evidence.folder.clone();
    let is_wanted = is_wanted || recording.is_some() || evidence.is_some();
    let hosts = hosts.to_vec();
    let duties = Duties { files, lines, recording, evidence, reread, hosts, ..Duties::default() };
    prepare(&args.scope, is_wanted.then_some(duties))
}

/// The hosts of collectors whose addresses must be found.
fn hosts(exported: Option<&Settings>) -> Vec<String> {
    let hosts = exported.into_iter().flat_map(Settings::endpoints).map(|endpoint| &endpoint.host);
    hosts.filter(|host| host.parse::<IpAddr>().is_err()).cloned().collect()
}

/// The exporter by OTLP, with what is wrong in its variables.
fn exporter(
    settings: Settings,
    args: &ServeArgs,
    rows: Option<&mut Rows>,
    resolver: Option<Resolver>,
) -> Result<Exporter, CommandError> {
    settings.warnings.iter().for_each(|warning| say(warning));
    let ports: Vec<u16> = settings.endpoints().map(|endpoint| endpoint.port).collect();
    let first = ports.first().copied().unwrap_or_default();
    let network = Network::Connects([first, ports.last().copied().unwrap_or(first)]);
    let confinement = confinement(&args.scope).map(|confinement| Confinement { network, ..confinement });
    let rows = rows.filter(|_| settings.logs.is_some()).map(|rows| rows.sink(LOGS));
    let logs = settings.logs.as_ref().filter(|_| rows.is_some());
    for (what, target) in [("metrics", settings.metrics.as_ref()), ("events", logs)] {
        target.iter().for_each(|target| announce(&format!("{what} to {}", target.endpoint)));
    }
    let start = Start { settings, node: args.node(), rows, resolver, confinement };
    Exporter::start(start).map_err(out)
}

/// Has the helper find addresses.
fn resolver(helper: &Helper, hosts: Vec<String>) -> io::Result<Resolver> {
    let mut names = helper.names()?;
    Ok(Box::new(move |endpoint| {
        let at = hosts.iter().position(|host| *host == endpoint.host);
        let at = at.and_then(|at| u8::try_from(at).ok()).ok_or(io::ErrorKind::NotFound)?;
        names.addresses(at)
    }))
}

/// How the helper reads the configuration again: what it names is looked at before anything changes.
fn rereader(path: &Path, mut listens: Listen) -> Rereader {
    let path = path.to_owned();
    Box::new(move || {
        let text = read_text(&path, LONGEST).map_err(|error| named("--config", &path.display(), &error))?;
        let new = with_file(env::args_os(), &path.display().to_string(), &text).map_err(io::Error::other)?;
        if let Some(file) = &new.metrics_file {
            FileAtEnd::prepare(file).map_err(|error| named("--metrics-file", &file.display(), &error))?;
        }
        let socket = match new.metrics_listen.0 {
            Some(address) if new.metrics_listen != listens => {
                let socket = listen_at(address);
                let refused = |error: io::Error| named("--metrics-listen", &address, &with_fix(error));
                Some(socket.map_err(refused)?)
            }
            Some(_) | None => None,
        };
        listens = new.metrics_listen;
        Ok(Reread { text, file: new.metrics_file, socket })
    })
}

fn named(option: &str, what: &dyn std::fmt::Display, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{option} {what}: {error}"))
}

/// The ways to what the helper does.
struct HandedOver {
    files: Files,
    rereads: Rereads,
    lines: Option<Lines>,
}

/// The ways to what the helper does; a file that cannot be written is a fault of the options.
fn handed_over(helper: &Helper, args: &ServeArgs) -> Result<HandedOver, CommandError> {
    let fault = |option: &'static str, path: Option<&PathBuf>| {
        let path = path.map(|path| path.display().to_string()).unwrap_or_default();
        move |source| CommandError::ReportFile { option, path, source }
    };
    let files = helper.files().map_err(fault("--metrics-file", args.metrics_file.as_ref()))?;
    let lines = args
        .events_file
        .as_ref()
        .filter(|_| args.has_rows())
        .map(|path| helper.lines().map_err(fault("--events-file", Some(path))));
    Ok(HandedOver { files, rereads: helper.rereads().map_err(out)?, lines: lines.transpose()? })
}

/// Starts the threads that wait for the helper.
fn start(helper: &Helper, handed: HandedOver, rows: Option<&mut Rows>) -> io::Result<Errands> {
    let HandedOver { files, rereads, lines } = handed;
    let lines = lines.and_then(|lines| Some((lines, rows?.sink(EVENTS_FILE))));
    Errands::start(files, rereads, lines, helper.life()?)
}

fn refused(args: &ServeArgs, source: io::Error) -> CommandError {
    let address = args.metrics_listen.0.map(|address| address.to_string()).unwrap_or_default();
    CommandError::output(format!("listen at {address} (--metrics-listen)"))(with_fix(source))
}

/// Names the fix where another program has the port.
fn with_fix(error: io::Error) -> io::Error {
    if error.kind() != io::ErrorKind::AddrInUse {
        return error;
    }
    let text = format!("{error}: choose another port, or see who listens there with 'ss -ltnp'");
    io::Error::new(io::ErrorKind::AddrInUse, text)
}

/// Says where scrapers are served: with port 0 the system has chosen one.
fn say_where(address: Option<SocketAddr>) {
    if let Some(address) = address {
        announce(&format!("metrics at http://{address}/metrics"));
    }
}

/// Raises the limit of open files by what connections take, as far as that is allowed. Where it is not,
/// connections that are too many wait.
fn make_room_for_connections() {
    let limit = getrlimit(Resource::Nofile);
    let more = MOST_CONNECTIONS as u64 + BESIDE_CONNECTIONS;
    let wanted = limit.current.map(|current| current.saturating_add(more));
    let current = limit.maximum.map_or(wanted, |most| wanted.map(|wanted| wanted.min(most)));
    let _as_it_was = setrlimit(Resource::Nofile, Rlimit { current, ..limit });
}

/// What systemd shows of the service.
fn status(session: &Session) -> String {
    let names: Vec<String> = session.interfaces().iter().map(|each| each.info.name.clone()).collect();
    match names.as_slice() {
        [] => WAITS.to_owned(),
        [one] => format!("watching {one}"),
        [first, ..] => format!("watching {first} and {} more", names.len() - 1),
    }
}

/// Where figures and rows go.
struct Outlets {
    server: Server,
    errands: Option<Errands>,
    /// Rows of single attempts, where they go anywhere.
    rows: Option<Rows>,
    exporter: Option<Exporter>,
    recording: Option<Recording>,
    collector: Option<Collector>,
}

/// A service that runs.
struct Service {
    args: ServeArgs,
    manager: Manager,
    health: Arc<Health>,
    outlets: Outlets,
    hangup: Signal,
    /// When health and status were brought up to date.
    settled: Option<Instant>,
    /// When a reading is exported next, where that is asked for.
    exporting: Option<Interval>,
    /// When the file is written next, where there is one.
    writing: Option<Interval>,
    figures: Figures,
    /// The latest page, and when it was read.
    page: Option<(Instant, Arc<Page>)>,
    /// When the reading that was exported last was read.
    exported: Option<Instant>,
    /// What the service manager was told last.
    status: String,
    /// The look at the hooks until which it was said what keeps packets from them, on the records' clock.
    told_ns: u64,
    /// Whether the file could not be written the last time.
    is_unwritable: bool,
    /// The same of the file of events.
    is_event_file_ill: bool,
}

/// What the loop has to do.
enum Input {
    Scrape(Scrape),
    Write,
    Export,
    Told(String),
    Done(Done),
    Reload,
}

impl Service {
    fn new(args: ServeArgs, manager: Manager, health: Arc<Health>, outlets: Outlets, hangup: Signal) -> Self {
        let figures = Figures::new(args.named(&args.pairs()));
        let (writing, exporting) =
            (writing(&args), outlets.exporter.as_ref().and_then(Exporter::every).map(ticks));
        Self {
            args,
            manager,
            health,
            outlets,
            hangup,
            settled: None,
            exporting,
            writing,
            figures,
            page: None,
            exported: None,
            status: String::new(),
            told_ns: 0,
            is_unwritable: false,
            is_event_file_ill: false,
        }
    }

    /// The page of the latest reading, or of a new one where that is too old.
    fn read(&mut self, session: &mut Session) -> Result<Arc<Page>, AgentError> {
        if let Some((read, page)) = &self.page
            && read.elapsed() < FRESH
        {
            return Ok(Arc::clone(page));
        }
        let began = Instant::now();
        let (before, exemplars) = session.advance_by(|source, context, before| {
            let mut looking = Looking::at(source);
            let snapshot = Snapshot::take(&mut looking, context, Some(before))?;
            let exemplars = looking.exemplars(&snapshot);
            Ok((snapshot, (before.clone(), exemplars)))
        })?;
        let Outlets { errands, rows, exporter, .. } = &self.outlets;
        let pages = errands.iter().map(|errands| (METRICS_FILE, errands.dropped()));
        let dropped = pages.chain(rows.iter().flat_map(Rows::dropped));
        let dropped = dropped.chain(exporter.iter().flat_map(Exporter::dropped)).collect();
        let beside = Beside { exemplars, took: began.elapsed(), dropped };
        let page = Arc::new(Page::of(self.figures.take_in(session.last(), &before, &beside)));
        self.page = Some((Instant::now(), Arc::clone(&page)));
        Ok(page)
    }

    /// Has the metrics written to their file.
    fn write(&mut self, session: &mut Session) -> Result<(), AgentError> {
        match self.read(session) {
            Ok(page) => self.outlets.errands.iter().for_each(|errands| errands.write(Arc::clone(&page))),
            Err(error) if error.is_passing() => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Has the figures exported. A reading is exported once.
    fn export(&mut self, session: &mut Session) -> Result<(), AgentError> {
        self.page = self.page.take_if(|(read, _)| Some(*read) != self.exported);
        match self.read(session) {
            Ok(page) => {
                self.exported = self.page.as_ref().map(|(read, _)| *read);
                self.outlets.exporter.iter().for_each(|exporter| exporter.export(&page));
            }
            Err(error) if error.is_passing() => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Hands over the last rows and figures.
    fn hand_over(&mut self, session: &mut Session) {
        self.outlets.recording.iter_mut().for_each(|recording| recording.close(session));
        self.outlets.rows.iter_mut().for_each(|rows| rows.close(session));
        if let Some(Err(error)) = self.outlets.collector.as_mut().map(|collector| collector.close(session)) {
            say(&format!("--evidence: the last of it is missing: {error}"));
        }
        // What cannot be read now is never read.
        self.page = None;
        let _ = self.export(session);
        self.outlets.exporter.iter().for_each(Exporter::close);
    }

    /// Waits a little until they are written and taken.
    async fn finish(self) {
        let began = Instant::now();
        let Outlets { errands, exporter, recording, collector, .. } = self.outlets;
        recording.into_iter().for_each(Recording::finish);
        let left = LAST_EVIDENCE.saturating_sub(began.elapsed());
        collector.and_then(|collector| collector.finish(left)).iter().for_each(|said| say(said));
        let left: usize = errands.iter().map(|errands| errands.finish(LAST_ROWS)).sum();
        if left > 0 {
            say(&format!("--events-file: the last {left} rows are not written: it takes too long"));
        }
        if let Some(exporter) = exporter {
            let within = LAST_WORDS.saturating_sub(began.elapsed());
            exporter.finish(within).await.iter().for_each(|words| say(words));
        }
    }

    /// Begins to read the configuration again.
    fn reload(&mut self) {
        match (&self.args.config, &self.outlets.errands) {
            (Some(_), Some(errands)) => {
                self.manager.reloading();
                if let Err(error) = errands.reread() {
                    self.keep(&error);
                }
            }
            (Some(_) | None, _) => say("SIGHUP: there is no --config to read again"),
        }
    }

    fn done(&mut self, done: Done) {
        match done {
            Done::Written(written) => self.written(written),
            Done::Appended(appended) => self.appended(appended),
            Done::Reread(Ok((text, socket))) => self.take_over(&text, socket),
            Done::Reread(Err(error)) => self.keep(&error),
            Done::HelperEnded => say(HELPERLESS),
        }
    }

    fn keep(&self, why: &dyn std::fmt::Display) {
        say(&format!("the configuration stays as it was: {why}"));
        self.manager.ready(&self.status);
    }

    /// Says the first failure of several, and the first success after them.
    fn written(&mut self, written: io::Result<()>) {
        let path = self.args.metrics_file.as_ref().map(|path| path.display().to_string()).unwrap_or_default();
        match (written, self.is_unwritable) {
            (Err(error), false) => {
                say(&format!("--metrics-file {path}: {error}"));
                self.is_unwritable = true;
            }
            (Ok(()), true) => {
                say(&format!("--metrics-file {path} is written again"));
                self.is_unwritable = false;
            }
            (Err(_), true) | (Ok(()), false) => {}
        }
    }

    /// Says what has changed for the file of events.
    fn appended(&mut self, appended: io::Result<String>) {
        let path = self.args.events_file.as_ref().map(|path| path.display().to_string()).unwrap_or_default();
        match (appended, self.is_event_file_ill) {
            (Err(error), _) => {
                say(&format!("--events-file {path}: {error}; rows are dropped until it is written again"));
                self.is_event_file_ill = true;
            }
            (Ok(beside), _) if !beside.is_empty() => {
                say(&format!("--events-file {path}: {beside}"));
                self.is_event_file_ill = true;
            }
            (Ok(_), true) => {
                say(&format!("--events-file {path} is written again"));
                self.is_event_file_ill = false;
            }
            (Ok(_), false) => {}
        }
    }

    /// Takes over what may change while the programs are attached, and names the rest.
    fn take_over(&mut self, text: &str, socket: Option<TcpListener>) {
        let path = self.args.config.as_ref().map(|path| path.display().to_string()).unwrap_or_default();
        let new = match with_file(env::args_os(), &path, text) {
            Ok(new) => new,
            Err(error) => return self.keep(&error),
        };
        for option in self.args.wants_restart(&new) {
            say(&format!("{option}: restart needed"));
        }
        if new.metrics_listen != self.args.metrics_listen {
            say_where(socket.as_ref().and_then(|socket| socket.local_addr().ok()));
            self.outlets.server.listen(socket);
        }
        if (&new.metrics_file, new.interval) != (&self.args.metrics_file, self.args.interval) {
            self.writing = writing(&new);
        }
        self.figures.name(new.named(&new.pairs()));
        self.page = None;
        self.args.take_over(new);
        say("the configuration is read again");
        self.manager.ready(&self.status);
    }
}

/// When the file of the metrics is written: at once, then at each interval.
fn writing(args: &ServeArgs) -> Option<Interval> {
    args.metrics_file.as_ref().map(|_| ticks(args.interval))
}

/// At once, then at each interval.
fn ticks(every: Duration) -> Interval {
    let mut ticks = tokio::time::interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    ticks
}

/// The next tick, where there are any.
async fn next(ticks: &mut Option<Interval>) {
    match ticks {
        Some(ticks) => drop(ticks.tick().await),
        None => std::future::pending().await,
    }
}

impl Sink for Service {
    type Input = Input;
    type Error = CommandError;

    fn advance(&mut self, session: &mut Session) -> Result<ControlFlow<()>, CommandError> {
        self.write(session)?;
        Ok(ControlFlow::Continue(()))
    }

    fn take_ended(&mut self, session: &mut Session) -> Result<Duration, CommandError> {
        match &mut self.outlets.rows {
            Some(rows) => rows.take(session)?,
            // They are for the recording and the evidence alone.
            None => session.for_each_ended(&mut |_, _| ControlFlow::Continue(())),
        }
        Ok(EVENTS_EVERY)
    }

    fn record(&mut self, session: &mut Session) -> Result<(), CommandError> {
        if let Some(recording) = &mut self.outlets.recording {
            recording.record(session)?.iter().for_each(|said| say(said));
        }
        if let Some(collector) = &mut self.outlets.collector {
            collector.collect(session)?;
            collector.write(session).iter().for_each(|said| say(said));
        }
        Ok(())
    }

    async fn input(&mut self) -> Input {
        let Self { outlets: Outlets { server, errands, exporter, .. }, hangup, writing, exporting, .. } =
            self;
        let told = async {
            match exporter {
                Some(exporter) => exporter.told().await,
                None => std::future::pending().await,
            }
        };
        let done = async {
            match errands {
                Some(errands) => errands.done().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            Some(()) = hangup.recv() => Input::Reload,
            done = done => Input::Done(done),
            words = told => Input::Told(words),
            () = next(writing) => Input::Write,
            () = next(exporting) => Input::Export,
            scrape = server.scrape() => Input::Scrape(scrape),
        }
    }

    fn handle(&mut self, session: &mut Session, input: Input) -> Result<ControlFlow<()>, CommandError> {
        match input {
            Input::Scrape(scrape) => match self.read(session) {
                // The scraper may have gone.
                Ok(page) => drop(scrape.send(page)),
                // Without an answer it is told that the kernel could not be read.
                Err(error) if error.is_passing() => {}
                Err(error) => return Err(error.into()),
            },
            Input::Write => self.write(session)?,
            Input::Export => self.export(session)?,
            Input::Told(words) => say(&words),
            Input::Done(done) => {
                if matches!(done, Done::Reread(Ok(_))) {
                    // What was counted until now is that of the names until now.
                    self.page = None;
                    match self.read(session) {
                        Err(error) if !error.is_passing() => return Err(error.into()),
                        Ok(_) | Err(_) => {}
                    }
                }
                self.done(done);
            }
            Input::Reload => self.reload(),
        }
        Ok(ControlFlow::Continue(()))
    }

    fn notice(&mut self, notice: &str) {
        announce(notice);
    }

    fn settle(&mut self, session: &Session) -> Result<(), CommandError> {
        if self.settled.is_some_and(|settled| settled.elapsed() < SETTLE_EVERY) {
            return Ok(());
        }
        self.settled = Some(Instant::now());
        self.health.turn(session.answered().into_std(), session.interfaces().len());
        self.manager.turn();
        let status = status(session);
        if status != self.status {
            self.manager.status(&status);
            if status == WAITS {
                say(WAITS);
            }
            self.status = status;
        }
        let sight = session.sight();
        let lapses = [&sight.hook_lost, &sight.interface_down].into_iter();
        lapses.flat_map(|lapse| lapse.news_since(self.told_ns)).for_each(say);
        self.told_ns = sight.looked_ns();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use handshake_agent::model::metric::series::FAMILIES;

    use crate::testing::{SERVE, code, table};

    /// docs/serve.md has a row for each family, and no other.
    #[test]
    fn each_family_is_documented() {
        let rows = table(SERVE, "metric ");
        let documented: Vec<_> = rows
            .iter()
            .map(|row| (code(&row[0])[0], row[1].as_str(), code(&row[2]), row[3].as_str()))
            .collect();
        let families = FAMILIES.iter();
        let expected: Vec<_> =
            families.map(|of| (of.name, of.kind.name(), of.labels.to_vec(), of.help)).collect();
        assert_eq!(documented, expected);
    }
}
