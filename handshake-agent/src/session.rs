//! A session: the loaded and attached programs, the snapshots taken of them, and the main loop, which drives
//! the sink that shows them. Every command that attaches has a session; dropping it detaches.
//!
//! ```text
//! signals ──────────┐
//! the time limit ───┤
//! interfaces ───────┼─▶ run ─▶ Sink: snapshot, ended attempts, its own input
//! interval ─────────┤
//! the event ring ───┘
//! ```
//!
//! Everything runs on one thread. The loop uses tokio's clock; the times in snapshots come from the source.

use std::future::Future;
use std::io::{self, Read as _};
use std::ops::ControlFlow;
use std::os::fd::OwnedFd;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use flate2::bufread::ZlibDecoder;
use handshake_common::abi::{CounterBlock, KeptPacket};
use handshake_common::record::{Now, Record, State};
use handshake_common::table::record_of;
use handshake_common::verdict::Verdict;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::unix::AsyncFd;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::yield_now;
use tokio::time::{Instant, Interval as Ticks, MissedTickBehavior, interval_at, sleep_until};

use crate::attach::{self, Attached, AttachedInterface, Plan, capability::Capabilities, held, interface};
use crate::error::Error;
use crate::makers;
use crate::memory;
use crate::model::flow::{Flow, View, verdict_of};
use crate::model::snapshot::{Beginning, InterfaceHooks, LiveOrigin, Origin, RunContext, Snapshot};
use crate::options::Options;
use crate::owner::OwnerBook;
use crate::recording::{Block, Ends, Recorder};
use crate::source::live::{KernelSide as _, Live, ProgramRuns, possible_cpus, wall_ns};
use crate::source::scan::Onlooker;
use crate::source::settings::Settings;
use crate::source::sight::Sight;
use crate::source::{Moment, Source};

/// The compiled kernel side, as the build script compresses it.
static OBJECT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/handshake.bpf.o.zlib"));
/// The period of a timer that is not used.
const NEVER: Duration = Duration::from_secs(100 * 365 * 24 * 3600);
/// The interval at which the loop looks at the hooks, where no snapshot does so first.
const CHECK_EVERY: Duration = Duration::from_secs(1);
/// The time from one moment of a recording, or of the collecting of evidence, to the next.
const RECORD_EVERY: Duration = Duration::from_secs(1);
/// Attempts that failed and wait to be taken.
const FAILED: usize = 4_096;

/// The compiled kernel side: the BPF object, an ELF file.
///
/// # Errors
///
/// [`Error::System`]: there is no memory for it.
pub fn object() -> Result<Vec<u8>, Error> {
    let mut elf = Vec::new();
    let read = ZlibDecoder::new(OBJECT).read_to_end(&mut elf);
    read.map_err(Error::system("unpack the BPF object"))?;
    Ok(elf)
}

/// Checks the privileges, the memory and the limit of open files, and plans the hooks for each interface that
/// `options` names.
///
/// # Errors
///
/// Each error that prevents attaching, with its fix.
pub fn plan(options: &Options) -> Result<Plan, Error> {
    Capabilities::of_this_thread().require(options.promisc)?;
    let (selection, facts) = attach::survey(&options.interfaces)?;
    let plan = attach::plan(selection, &facts, options.hook, options.direction)?;
    let plan = Plan { explains: options.verifier_log, ..plan };
    memory::require(options, possible_cpus()?, plan.room())?;
    make_room_for_descriptors(plan.interfaces.len() as u64, u64::from(plan.room()))?;
    Ok(plan)
}

/// Raises the limit of open files to what so many interfaces need as there is room for, as far as the hard
/// limit allows; that takes no privilege. Refuses a limit under which the maps, the programs, the links of
/// the present interfaces or the event loop could not be opened: each of them would say so in its own words,
/// and the library of the event loop panics.
fn make_room_for_descriptors(present: u64, room: u64) -> Result<(), Error> {
    /// The maps and programs, the event loop, and what is open for a moment.
    const SHARED: u64 = 52;
    /// The links of an interface, and their claims.
    const EACH: u64 = 4;
    let mut limit = getrlimit(Resource::Nofile);
    let wanted = SHARED + EACH * room.max(present);
    if limit.current.is_some_and(|current| current < wanted) {
        let raised = Rlimit { current: Some(limit.maximum.map_or(wanted, |most| most.min(wanted))), ..limit };
        if setrlimit(Resource::Nofile, raised).is_ok() {
            limit = raised;
        }
    }
    let needed = SHARED + EACH * present;
    match limit.current {
        Some(limit) if limit < needed => {
            let what =
                format!("open {needed} files, and {limit} are allowed (ulimit -n {needed}, or LimitNOFILE)");
            Err(Error::system(what)(io::Error::from_raw_os_error(libc::EMFILE)))
        }
        Some(_) | None => Ok(()),
    }
}

/// Runs `work` on an event loop on this thread.
///
/// # Errors
///
/// [`Error::System`] if the event loop cannot be started; the errors of `work`.
pub fn block_on<T, E: From<Error>>(work: impl Future<Output = Result<T, E>>) -> Result<T, E> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(Error::system("start the event loop"))?.block_on(work)
}

/// The programs in the kernel, on no hook yet. Until they are attached, ending the process leaves nothing
/// behind.
pub struct Loaded {
    live: Live,
}

impl Loaded {
    /// Loads the programs that `plan` needs. `progress` receives how many are loaded, and of how many.
    ///
    /// # Errors
    ///
    /// Each error that prevents loading, with its fix.
    pub fn new(
        options: &Options,
        plan: &Plan,
        mut progress: impl FnMut(usize, usize),
    ) -> Result<Self, Error> {
        let mut live = Live::load(&object()?, &settings(options, plan))?;
        attach::load(live.programs(), plan, &mut progress)?;
        Ok(Self { live })
    }
}

/// The attached programs, and the latest snapshot of their counts.
pub struct Session {
    live: Live,
    attached: Arc<Mutex<Attached>>,
    /// Readable when interfaces come or go; `None` where the kernel does not tell.
    news: Option<AsyncFd<OwnedFd>>,
    /// What became of interfaces since the sink was told.
    notices: Vec<String>,
    context: Arc<RunContext>,
    last: Snapshot,
    /// When the hooks were last looked at.
    looked: Instant,
    /// When the kernel last answered: by a look or a snapshot.
    answered: Instant,
    /// What it takes to record the session, and the attempts that ended since the latest block.
    recording: Option<(Recorder, Ends)>,
    /// The attempts that failed since they were taken, where their packets are kept.
    failed: Option<(Vec<Flow>, u64)>,
}

impl Session {
    /// Attaches the programs as `plan` says. `say` receives each choice, refusal and warning as it happens,
    /// and `kernel_line` what the kernel side says of segments ([`Options::kernel_log`]). Attaching to
    /// hundreds of interfaces takes seconds: a signal that comes meanwhile ends the process.
    ///
    /// # Errors
    ///
    /// Each error that prevents attaching, with its fix.
    pub async fn open(
        loaded: Loaded,
        options: &Options,
        plan: &Plan,
        signals: &mut Signals,
        mut say: impl FnMut(&str),
        kernel_line: fn(&str),
    ) -> Result<Self, Error> {
        if options.kernel_log && !options.explains_segments() {
            say(
                "-vv explains each handshake segment of the flows that --port or --net select; neither is set",
            );
        }
        let Loaded { mut live } = loaded;
        if options.processes {
            know_makers(&mut live, &mut say)?;
        }
        live.know_addresses_by(|| interface::read_addresses().ok())?;
        let mut attached = Attached::begin(plan, options.promisc, &mut say)?;
        for planned in &plan.interfaces {
            if let Some(signal) = signals.arrived().await {
                drop(attached);
                end_by(signal);
            }
            attached.add(&mut live, planned, &mut say)?;
        }
        attached.open_gates(&mut live)?;
        let news = attached.news().and_then(|news| news.map(readable).transpose());
        let news = news.map_err(Error::system("wait for news of interfaces"))?;
        let origin = origin(&attached);
        let attached = Arc::new(Mutex::new(attached));
        live.watch(Arc::clone(&attached));
        if let Some(log) = live.take_kernel_log() {
            tokio::spawn(log.forward(kernel_line));
        }
        let reading = live.read()?;
        let context = Arc::new(RunContext {
            origin,
            began: Beginning { wall_ns: reading.wall_ns, ns: reading.now.ns },
            filter: options.filter.clone(),
            top: options.top,
            owners: OwnerBook::open(),
        });
        let last = Snapshot::take(&mut live, &context, None)?;
        let answered = Instant::now();
        let (notices, looked, recording) = (Vec::new(), answered, None);
        let failed = options.evidence.then(Default::default);
        Ok(Self { live, attached, news, notices, context, last, looked, answered, recording, failed })
    }

    /// The watched interfaces, in the order in which they came.
    #[must_use]
    pub fn interfaces(&self) -> Vec<AttachedInterface> {
        held(&self.attached).interfaces()
    }

    /// Whether clsact has one of our programs, or may have of an interface that comes: moving or removing its
    /// filters, and making them, takes CAP_NET_ADMIN.
    #[must_use]
    pub fn may_use_clsact(&self) -> bool {
        held(&self.attached).may_use_clsact()
    }

    /// What became of interfaces since the last call, a sentence each.
    pub fn take_notices(&mut self) -> Vec<String> {
        std::mem::take(&mut self.notices)
    }

    /// Waits for news of interfaces.
    async fn interfaces_change(&self) {
        if held(&self.attached).has_more() {
            return yield_now().await;
        }
        let readable = match &self.news {
            Some(news) => news.readable().await,
            None => std::future::pending().await,
        };
        // What it is will be read by `follow`.
        if let Ok(mut ready) = readable {
            ready.clear_ready();
        }
    }

    /// Leaves the interfaces that are gone, and attaches to those that have come and are wanted.
    ///
    /// # Errors
    ///
    /// [`Error::LostInterface`] if none is left and none may come, and those of [`Attached::follow`]; one
    /// that [passes](Error::is_passing) is a missed snapshot.
    pub fn follow(&mut self) -> Result<(), Error> {
        let Self { live, attached, notices, .. } = self;
        let mut attached = held(attached);
        let followed = attached.follow(live, &mut |notice| notices.push(notice.to_owned()));
        let (origin, lost) = (origin(&attached), attached.lost().map(str::to_owned));
        drop(attached);
        // Also after an error: what came before it was done.
        if !matches!(followed, Ok(false)) {
            self.context = Arc::new(RunContext { origin, ..RunContext::clone(&self.context) });
        }
        match self.counted(followed) {
            Err(error) if error.is_passing() => {}
            followed => {
                followed?;
            }
        }
        lost.map_or(Ok(()), |name| Err(Error::LostInterface(name)))
    }

    /// When the kernel last answered, by a look at the hooks or a snapshot.
    #[must_use]
    pub const fn answered(&self) -> Instant {
        self.answered
    }

    /// What the looks at the hooks have found, the latest one included.
    pub const fn sight(&self) -> &Sight {
        self.live.sight()
    }

    /// The latest snapshot.
    pub fn last(&self) -> &Snapshot {
        &self.last
    }

    /// Takes a snapshot, which becomes the latest one. Returns the one before.
    ///
    /// # Errors
    ///
    /// Errors of reading the maps. One that [passes](Error::is_passing) is a missed snapshot, which later
    /// ones count; the latest one stays.
    pub fn advance(&mut self) -> Result<Snapshot, Error> {
        let taken = Snapshot::take(&mut self.live, &self.context, Some(&self.last));
        let snapshot = self.counted(taken)?;
        self.answered = Instant::now();
        self.looked = self.answered;
        Ok(std::mem::replace(&mut self.last, snapshot))
    }

    /// Takes a snapshot by calling `take` with the source, the context and the latest snapshot, so that
    /// `take` can also look at the records as they are scanned. Returns the second value of `take`.
    ///
    /// # Errors
    ///
    /// Those of [`advance`](Self::advance).
    pub fn advance_by<T>(
        &mut self,
        take: impl FnOnce(&mut dyn Source, &Arc<RunContext>, &Snapshot) -> Result<(Snapshot, T), Error>,
    ) -> Result<T, Error> {
        let taken = take(&mut self.live, &self.context, &self.last);
        let (snapshot, seen) = self.counted(taken)?;
        self.last = snapshot;
        self.answered = Instant::now();
        self.looked = self.answered;
        Ok(seen)
    }

    /// Counts a missed snapshot.
    fn counted<T>(&mut self, taken: Result<T, Error>) -> Result<T, Error> {
        if taken.as_ref().is_err_and(Error::is_passing) {
            self.live.count_missed();
        }
        taken
    }

    /// Sets from which age on later snapshots call an attempt half-open. The programs keep theirs.
    pub const fn set_half_open_after(&mut self, ns: u64) {
        self.live.set_half_open_after(ns);
    }

    /// Sets how many services later snapshots list by name.
    pub fn list_services(&mut self, top: usize) {
        self.context = Arc::new(RunContext { top, ..RunContext::clone(&self.context) });
    }

    /// The kernel's run counts and run times of our programs.
    pub fn program_runs(&self) -> Vec<ProgramRuns> {
        self.live.program_runs()
    }

    /// The view of the flows as of the latest snapshot.
    #[must_use]
    pub fn view(&self) -> View<'_> {
        View::of(&self.last)
    }

    /// The flows in the tables, oldest first.
    #[must_use]
    pub fn flows(&self) -> Vec<Flow> {
        self.view().flows(&self.live)
    }

    /// Whether a flow in the tables satisfies `wanted`.
    #[must_use]
    pub fn has_flow(&self, wanted: impl Fn(&Flow) -> bool) -> bool {
        let mut found = false;
        self.live.for_each_record(&mut |record| found = found || wanted(&Flow::of(*record)));
        found
    }

    /// Calls `visit` with each flow in the tables.
    pub fn for_each_flow(&self, visit: &mut dyn FnMut(&Flow)) {
        self.live.for_each_record(&mut |record| visit(&Flow::of(*record)));
    }

    /// The view of this moment, and what the kernel side had counted just after it.
    ///
    /// # Errors
    ///
    /// Those of reading the clocks and the counters.
    pub fn present(&self) -> Result<(View<'_>, CounterBlock), Error> {
        let (now, wall_ns) = self.live.time()?;
        let moment = Moment { now, stopped: false, clocks: self.live.clocks() };
        let view = View::at(&self.context, moment, wall_ns).on(self.live.host());
        Ok((view, self.live.counted()?))
    }

    /// Looks at the tables: calls `visit` with the record of each open attempt.
    pub fn for_each_open(&self, now: Now, mut visit: &mut dyn FnMut(&Record)) {
        self.live.scan(now, Some(&mut Onlooker::new(u64::from(State::OPEN), &mut visit)));
    }

    /// Calls `visit` with each attempt that has ended since the last call, in order, and with the view of the
    /// latest snapshot's moment, by the wall clock and the interfaces of now: that snapshot may be of long ago.
    /// `Break` leaves the rest for the next call. There are none unless events are on.
    pub fn for_each_ended(&mut self, visit: &mut dyn FnMut(&Flow, &View<'_>) -> ControlFlow<()>) {
        let (moment, host) = (self.last.moment(), Arc::clone(self.live.host()));
        let view = View::at(&self.context, moment, wall_ns(moment.now.ns)).on(&host);
        let (recording, failed) = (&mut self.recording, &mut self.failed);
        self.live.drain_events(&mut |event, makers| {
            let Some(verdict) = verdict_of(event) else { return ControlFlow::Continue(()) };
            let flow = Flow::ended(record_of(event, makers), verdict, event.ended_ns);
            if let Some((_, ends)) = recording {
                ends.push(flow);
            }
            if let Some((failed, unlisted)) = failed.as_mut().filter(|_| flow.has_failed()) {
                // One that has completed after all must not stay among the failures: there is room for it longer.
                let is_completed = verdict == Verdict::Completed;
                if failed.len() < if is_completed { 2 * FAILED } else { FAILED } {
                    failed.push(flow);
                } else {
                    *unlisted += u64::from(!is_completed);
                }
            }
            visit(&flow, &view)
        });
    }

    /// Calls `visit` with each packet of an open attempt that the kernel side still keeps. There are none unless
    /// [`Options::evidence`] is set.
    pub fn for_each_kept(&self, visit: &mut dyn FnMut(&KeptPacket)) {
        self.live.for_each_kept(visit);
    }

    /// The attempts that have failed since the last call, or had failed and completed after all, as their events
    /// told; of very many the first, and how many more. There are none unless events are on and
    /// [`Options::evidence`] is set.
    pub fn take_failed(&mut self) -> (Vec<Flow>, u64) {
        self.failed.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// The name of the interface with this number of packet counters.
    #[must_use]
    pub fn name_of(&self, number: u32) -> Option<String> {
        held(&self.attached).name_of(number)
    }

    /// Begins to keep what a recording needs. Events must be on.
    pub fn record(&mut self) {
        self.recording = Some(Default::default());
    }

    /// Makes the next block of the recording whole: one was lost.
    pub fn record_anew(&mut self) {
        if let Some((recorder, _)) = &mut self.recording {
            recorder.begin_anew();
        }
    }

    /// The block of this moment. It takes no snapshot, and one that is missed counts for none. Without
    /// [`record`](Self::record) it is the first one of a recording.
    ///
    /// # Errors
    ///
    /// Those of reading the maps; what has ended is then in the next block.
    pub fn recorded(&mut self) -> Result<Block, Error> {
        let (recorder, ends) = self.recording.get_or_insert_default();
        recorder.block(&mut self.live, &self.context, ends)
    }

    /// Follows the interfaces, and looks at the hooks, unless a snapshot has just done so.
    ///
    /// # Errors
    ///
    /// [`Error::LostInterface`] if no interface is left; [`Error::Live`]. One that
    /// [passes](Error::is_passing) is a missed snapshot.
    pub fn look(&mut self) -> Result<(), Error> {
        self.follow()?;
        if self.looked.elapsed() >= CHECK_EVERY / 2 {
            let looked = self.live.look().map(drop).map_err(Error::from);
            match self.counted(looked) {
                Err(error) if error.is_passing() => {}
                looked => {
                    looked?;
                    self.answered = Instant::now();
                }
            }
            self.looked = Instant::now();
        }
        Ok(())
    }
}

/// From now on the maker of each socket is known, and of those made before as far as they may be looked for.
fn know_makers(live: &mut Live, say: &mut impl FnMut(&str)) -> Result<(), Error> {
    makers::watch(live.programs())?;
    let denied = makers::find_made_before(live.programs())?.denied;
    if denied > 0 {
        say(&format!(
            "the sockets of {denied} processes that were there before have no name: that takes CAP_SYS_PTRACE"
        ));
    }
    Ok(())
}

fn settings(options: &Options, plan: &Plan) -> Settings {
    Settings { interfaces: plan.room(), ..Settings::of(options) }
}

/// A descriptor that the event loop waits at.
fn readable(descriptor: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: the descriptor is open and stays so: it is owned.
    Ok(unsafe { AsyncFd::register(descriptor) }?)
}

/// The interfaces as a report shows them.
fn origin(attached: &Attached) -> Origin {
    Origin::Live(LiveOrigin {
        interfaces: attached.interfaces().iter().map(shown).collect(),
        groups: attached.groups(),
        gone: attached.gone(),
    })
}

fn shown(interface: &AttachedInterface) -> InterfaceHooks {
    InterfaceHooks {
        name: interface.info.name.clone(),
        ingress: Some(interface.ingress.to_string()),
        egress: interface.egress.map(|hook| hook.to_string()),
        merged: interface.ingress.merges_segments(),
        before: interface.before_ours.clone(),
    }
}

/// The signals that end a run: SIGINT, SIGTERM and SIGHUP.
pub struct Signals {
    interrupt: Signal,
    terminate: Signal,
    /// `None` if SIGHUP is ignored, as under `nohup`, or ends no run.
    hangup: Option<Signal>,
}

fn listen(kind: SignalKind) -> Result<Signal, Error> {
    signal(kind).map_err(Error::system("listen for signals"))
}

impl Signals {
    /// Starts listening. Call it before anything is attached, so that a signal ends the run in order.
    ///
    /// # Errors
    ///
    /// [`Error::System`] if a signal handler cannot be installed.
    pub fn new() -> Result<Self, Error> {
        let hangup = if is_ignored(libc::SIGHUP) { None } else { Some(listen(SignalKind::hangup())?) };
        Ok(Self { hangup, ..Self::without_hangup()? })
    }

    /// The same without SIGHUP, which tells a service to read its configuration again.
    ///
    /// # Errors
    ///
    /// Those of [`new`](Self::new).
    pub fn without_hangup() -> Result<Self, Error> {
        let (interrupt, terminate) = (listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?);
        Ok(Self { interrupt, terminate, hangup: None })
    }

    /// Stops listening: from now on each of these signals ends the process at once. Returns a signal that has
    /// come before, and was not seen yet.
    pub async fn release(mut self) -> Option<i32> {
        /// Enough time to notice a signal that has arrived already.
        const AT_ONCE: Duration = Duration::from_millis(1);
        let hangup = self.hangup.is_some().then_some(libc::SIGHUP);
        for signal in [libc::SIGINT, libc::SIGTERM].into_iter().chain(hangup) {
            // SAFETY: the default action is no function, and no memory is passed.
            unsafe { libc::signal(signal, libc::SIG_DFL) };
        }
        tokio::time::timeout(AT_ONCE, self.any()).await.ok()
    }

    /// A signal that has come by now.
    async fn arrived(&mut self) -> Option<i32> {
        tokio::select! {
            biased;
            signal = self.any() => Some(signal),
            // Comes back after the loop has looked for signals.
            () = yield_now() => None,
        }
    }

    /// Waits for a signal, and returns its number.
    pub async fn any(&mut self) -> i32 {
        let hangup = async {
            match &mut self.hangup {
                Some(hangup) => hangup.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.interrupt.recv() => libc::SIGINT,
            _ = self.terminate.recv() => libc::SIGTERM,
            _ = hangup => libc::SIGHUP,
        }
    }
}

/// Ends the process by a signal, as if there were no handler for it.
fn end_by(signal: i32) -> ! {
    // SAFETY: the default action is no function, and no memory is passed.
    unsafe {
        libc::signal(signal, libc::SIG_DFL);
        libc::raise(signal);
    }
    std::process::exit(128 + signal)
}

fn is_ignored(signal: i32) -> bool {
    // SAFETY: without a new action, sigaction(2) only writes the present one to `action`, a local variable.
    let action = unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        libc::sigaction(signal, std::ptr::null(), &raw mut action);
        action
    };
    action.sa_sigaction == libc::SIG_IGN
}

/// Shows a session, as lines of text, a terminal or a check. [`run`] drives it.
pub trait Sink {
    /// Input that does not come from the session: keys, the end of a command.
    type Input;
    /// The error type of the sink, which includes the session's errors.
    type Error: From<Error>;

    /// Takes the next snapshot of the session and shows it. `Break` ends the run.
    ///
    /// # Errors
    ///
    /// Errors of reading the maps and of the output.
    fn advance(&mut self, session: &mut Session) -> Result<ControlFlow<()>, Self::Error>;

    /// Takes the ended attempts out of the ring, and returns the pause before the next call. Not called if
    /// [`Pace::events`] is false.
    ///
    /// # Errors
    ///
    /// Errors of the output.
    fn take_ended(&mut self, _session: &mut Session) -> Result<Duration, Self::Error> {
        Ok(EVENTS_EVERY)
    }

    /// Records the moment, or collects evidence, a second after the one before. Not called unless [`Pace::records`]
    /// is set.
    ///
    /// # Errors
    ///
    /// Errors of reading the maps.
    fn record(&mut self, _session: &mut Session) -> Result<(), Self::Error> {
        Ok(())
    }

    /// Waits for input. The future is dropped and created again whenever another event comes first, so it
    /// must not lose input.
    fn input(&mut self) -> impl Future<Output = Self::Input>;

    /// Handles an input. `Break` ends the run.
    ///
    /// # Errors
    ///
    /// The sink's own errors.
    fn handle(&mut self, session: &mut Session, input: Self::Input) -> Result<ControlFlow<()>, Self::Error>;

    /// Says what became of an interface.
    fn notice(&mut self, notice: &str);

    /// Called before each wait, once a second at least. A terminal draws its changes here.
    ///
    /// # Errors
    ///
    /// Errors of the output.
    fn settle(&mut self, _session: &Session) -> Result<(), Self::Error> {
        Ok(())
    }
}

/// When the loop calls a sink.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pace {
    /// The interval between two snapshots; `None`: the loop takes none.
    pub snapshots: Option<Duration>,
    /// Whether the sink takes ended attempts.
    pub events: bool,
    /// Whether the sink records or collects evidence, each second.
    pub records: bool,
    /// When the run ends; `None`: no time limit.
    pub until: Option<Instant>,
    /// Whether the run waits for interfaces to come back where none is left.
    pub outlasts_interfaces: bool,
}

impl Pace {
    /// The end of the run, where no interface is left and that ends it.
    fn after(self, followed: Result<(), Error>) -> Result<Option<Ending>, Error> {
        match followed {
            Err(Error::LostInterface(_)) if self.outlasts_interfaces => Ok(None),
            Err(lost @ Error::LostInterface(_)) => Ok(Some(Ending::Lost(lost))),
            followed => followed.map(|()| None),
        }
    }
}

/// Why a run ended.
#[derive(Debug)]
pub enum Ending {
    /// The time [`Pace::until`] was reached.
    TimeUp,
    /// A signal with this number arrived.
    Signal(i32),
    /// The sink asked to end: it is finished, or the reader of its output is gone.
    Done,
    /// No interface is left: [`Error::LostInterface`].
    Lost(Error),
}

/// The default interval at which the event ring is emptied. At 500,000 finished attempts per second, its 4
/// MiB last 80 ms.
pub const EVENTS_EVERY: Duration = Duration::from_millis(20);

/// Drives a sink until the time limit, a signal, the sink's own end or the loss of the last interface.
///
/// # Errors
///
/// The errors of the session and of the sink.
pub async fn run<S: Sink>(
    session: &mut Session,
    signals: &mut Signals,
    pace: Pace,
    sink: &mut S,
) -> Result<Ending, S::Error> {
    let start = Instant::now();
    let mut end = pin!(sleep_until(pace.until.unwrap_or(start + NEVER)));
    let mut snapshots = ticks(start, pace.snapshots.unwrap_or(NEVER));
    let mut checks = ticks(start, CHECK_EVERY);
    let mut records = ticks(start, if pace.records { RECORD_EVERY } else { NEVER });
    let mut events = pin!(sleep_until(if pace.events { start } else { start + NEVER }));
    loop {
        session.take_notices().iter().for_each(|notice| sink.notice(notice));
        sink.settle(session)?;
        let next = tokio::select! {
            biased;
            signal = signals.any() => return Ok(Ending::Signal(signal)),
            () = &mut end => return Ok(Ending::TimeUp),
            input = sink.input() => sink.handle(session, input)?,
            // Before the snapshots: those are always due where one takes longer than the interval.
            _ = checks.tick() => match pace.after(session.look())? {
                Some(ending) => return Ok(ending),
                None => ControlFlow::Continue(()),
            },
            _ = records.tick() => {
                sink.record(session)?;
                ControlFlow::Continue(())
            }
            _ = snapshots.tick() => sink.advance(session)?,
            () = &mut events => {
                let pause = sink.take_ended(session)?;
                events.as_mut().reset(Instant::now() + pause);
                ControlFlow::Continue(())
            }
            // Last: where interfaces come and go without end, the rest must not wait for that.
            () = session.interfaces_change() => match pace.after(session.follow())? {
                Some(ending) => return Ok(ending),
                None => ControlFlow::Continue(()),
            },
        };
        if next.is_break() {
            return Ok(Ending::Done);
        }
    }
}

/// Ticks every `period`; the first tick comes after one period.
fn ticks(start: Instant, period: Duration) -> Ticks {
    let mut ticks = interval_at(start + period, period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    ticks
}
