//! `handshake why`: looks until enough attempts have had their time, and gives one answer. The exit code says
//! whether something is wrong.

use std::collections::HashMap;
use std::convert::Infallible;
use std::future::pending;
use std::io;
use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use handshake_agent::confine::Confinement;
use handshake_agent::error::some_of;
use handshake_agent::listeners::{Listener, Listeners};
use handshake_agent::model::flow::{Flow, View};
use handshake_agent::model::snapshot::{Origin, ServiceBooks, ServiceFigures, Snapshot, TcpBooks};
use handshake_agent::nftables::{CountedRule, Nftables, counted_rules};
use handshake_agent::options::Options;
use handshake_agent::owner::Owner;
use handshake_agent::processes::Processes;
use handshake_agent::session::{self, Ending, Pace, Session, Signals, Sink};
use handshake_common::flow::Side;
use handshake_common::verdict::{Assessment, Seat, Verdict};
use rustix::time::{ClockId, clock_gettime};
use tokio::time::Instant;

use crate::check::{CheckError, NetCounters, NetFiles};
use crate::cli::{ScopeArgs, WhyArgs};
use crate::command::{attach, confinement, load, names, out, patiently, prepare, take_snapshot};
use crate::console::{announce, say};
use crate::error::CommandError;
use crate::helper::{Duties, Figures, FiguresDuty};
use crate::names::Names;
use crate::number::short;
use crate::output::{Lane, Patience, Target};
use crate::report::text::{Style, cause};
use crate::report::{self, OutputFormat};
use crate::time::Zone;
use crate::why::{
    Answer, Cohort, ConntrackFiles, Evidence, Firewall, LEAST, Outcome, Queue, WhyReport, diagnose,
};

/// So many attempts that had their time are enough.
const ENOUGH: u64 = 30;
/// The longest look; a little more than the time after which a filter that nothing passes is said to be quiet.
const LONGEST: Duration = Duration::from_millis(10_300);
/// Time between two looks.
const EVERY: Duration = Duration::from_millis(250);
/// Services whose names are asked for while it looks.
const MOST_NAMED: usize = 100;

/// Exit code: something is wrong.
const TROUBLE: u8 = 1;
/// Exit code: not enough was seen.
const NOT_ENOUGH: u8 = 3;

/// Runs `handshake why` and returns its exit code.
///
/// # Errors
///
/// Failures to attach or to write the answer; a lost interface.
pub(crate) fn run(args: &WhyArgs) -> Result<u8, CommandError> {
    let watched = Options { top: usize::MAX, ..args.watched() };
    let mut rules = Rules::open(&args.scope)?;
    let wants_names = args.names && args.format == OutputFormat::Text;
    let names = names(wants_names, confinement(&args.scope))?;
    let mut counters = NetFiles::open()?;
    let conntrack = ConntrackFiles::open();
    let mut listeners = Listeners::open().ok();
    let first = listeners.as_mut().and_then(|listeners| listeners.read().ok()).unwrap_or_default();
    let processes = Processes::of(&first.iter().map(|listener| listener.inode).collect::<Vec<_>>());
    let plan = session::plan(&watched)?;
    plan.require_any()?;
    let loaded = load(&watched, &plan)?;
    // Before the hooks are on: what the kernel counts of what they see is in the difference.
    rules.read_first();
    let before = patiently(CheckError::is_passing, || counters.read())?;
    session::block_on(async {
        let mut signals = Signals::new()?;
        let mut session = attach(loaded, &watched, &plan, &args.scope, &mut signals).await?;
        let mut look = Look {
            counters,
            conntrack,
            listeners,
            processes,
            names,
            queues: HashMap::new(),
            taken: Vec::new(),
        };
        let pace = Pace {
            snapshots: Some(EVERY),
            events: false,
            until: Some(Instant::now() + LONGEST),
            ..Pace::default()
        };
        let ending = session::run(&mut session, &mut signals, pace, &mut look).await?;
        let cutoff = look.cutoff().cloned();
        if let Some(cutoff) = &cutoff {
            // What is open by then began before the cutoff, as did the attempts that are judged.
            session.set_half_open_after(monotonic_ns().saturating_sub(cutoff.now.ns));
        }
        take_snapshot(&mut session)?;
        look.note(session.last().clone());
        let counters = patiently(CheckError::is_passing, || look.counters.read())?.since(&before);
        let rules = rules.read_both();
        let mut evidence = look.evidence(cutoff.as_ref(), counters, &rules);
        let mut failing = Beginner::of(evidence.service);
        session.for_each_flow(&mut |flow| failing.note(flow, &session.view()));
        evidence.beginner = failing.owner(&session.view());
        drop(session);
        let signal = signals.release().await;
        let answer = diagnose(&evidence);
        let code = match answer.outcome {
            Outcome::Healthy => 0,
            Outcome::Trouble => TROUBLE,
            Outcome::NotEnough => NOT_ENOUGH,
        };
        let is_signalled = signal.is_some() || matches!(ending, Ending::Signal(_));
        let patience = if is_signalled { Patience::ENDING } else { Patience::Endless };
        show(args, names, look.latest(), (&evidence, &answer), patience)?;
        match ending {
            Ending::Lost(lost) => Err(lost.into()),
            Ending::TimeUp | Ending::Signal(_) | Ending::Done => Ok(code),
        }
    })
}

/// Writes the answer.
fn show(
    args: &WhyArgs,
    names: Names,
    snapshot: &Snapshot,
    (evidence, answer): (&Evidence, &Answer),
    patience: Patience,
) -> Result<(), CommandError> {
    let subject = args.target.as_ref().map(ToString::to_string);
    let report = WhyReport { subject, interfaces: interfaces(snapshot), evidence, answer };
    let style = Style::of(&io::stdout(), Zone::Utc).naming(names);
    let written = Lane::to(Target::stdout()).map_err(out)?.finish(patience, |to| match args.format {
        OutputFormat::Text => to.write_all(report::text::draw_why(&report, snapshot, style).as_bytes()),
        OutputFormat::Json | OutputFormat::Jsonl => report::json::write_why(to, &report, snapshot),
    });
    written.map_err(out)
}

/// What a look has seen so far.
struct Look {
    counters: NetFiles,
    conntrack: Option<ConntrackFiles>,
    listeners: Option<Listeners>,
    processes: Processes,
    names: Names,
    /// The fullest accept queue of each listener.
    queues: HashMap<(SocketAddr, u32), Listener>,
    /// The snapshots since T1 ago, and one before them; the latest is last.
    taken: Vec<Snapshot>,
}

impl Look {
    fn latest(&self) -> &Snapshot {
        self.taken.last().expect("a snapshot was noted before anything is asked")
    }

    /// The latest snapshot whose attempts have all had their time; `None` until T1 has passed.
    fn cutoff(&self) -> Option<&Snapshot> {
        let latest = self.taken.last()?;
        let from = latest.now.ns.checked_sub(latest.clocks.half_open_after_ns)?;
        // A snapshot counts until the counters are read, which is after its time and before the next one's.
        let old = self.taken.windows(2).rev().find(|pair| pair[1].now.ns <= from);
        old.and_then(<[Snapshot]>::first)
    }

    fn note(&mut self, snapshot: Snapshot) {
        // So that the name is known by the end.
        tcp(&snapshot).take(MOST_NAMED).for_each(|(service, ..)| drop(self.names.service(service, false)));
        self.taken.push(snapshot);
        if let Some(cutoff) = self.cutoff().map(|cutoff| cutoff.now.ns) {
            self.taken.retain(|snapshot| snapshot.now.ns >= cutoff);
        }
        self.conntrack.iter_mut().for_each(ConntrackFiles::look);
        let listeners = self.listeners.as_mut().and_then(|listeners| listeners.read().ok());
        for listener in listeners.unwrap_or_default() {
            let fullest = self.queues.entry((listener.address, listener.inode)).or_insert(listener);
            if listener.waiting >= fullest.waiting {
                *fullest = listener;
            }
            // So that it is known by the end: the tree is read piece by piece.
            self.owner(&listener);
        }
    }

    /// Whose a listener is; `None` for the root of all control groups, which says nothing.
    fn owner(&self, listener: &Listener) -> Option<Arc<Owner>> {
        let owner = self.latest().context.owners.of(listener.cgroup?)?;
        (!owner.is_root()).then_some(owner)
    }

    /// Whether an answer is known: enough attempts had their time, of all and of the service that fails most.
    fn has_enough(&self) -> bool {
        let Some(cutoff) = self.cutoff() else { return false };
        if cutoff.tcp.books.attempts < ENOUGH {
            return false;
        }
        let services = services(cutoff, self.latest());
        worst(&services).is_none_or(|(_, cohort)| cohort.failed() == 0 || cohort.attempts >= LEAST)
    }

    /// All that was seen of the service that fails most, or of all together where no service has most of the
    /// failures; of the busiest where nothing fails.
    fn evidence(
        &mut self,
        cutoff: Option<&Snapshot>,
        counters: NetCounters,
        rules: &[Vec<CountedRule>; 2],
    ) -> Evidence {
        let conntrack = self.conntrack.as_mut().and_then(ConntrackFiles::lost);
        let latest = self.latest();
        let looked_ns = latest.elapsed_ns();
        let (total, services) = match cutoff {
            Some(cutoff) => (Cohort::between(&cutoff.tcp.books, &latest.tcp.books), services(cutoff, latest)),
            None => (Cohort::default(), Vec::new()),
        };
        let worst = worst(&services).filter(|(_, cohort)| 2 * cohort.failed() >= total.failed());
        let cohort = worst.map_or(total, |(_, cohort)| *cohort);
        let service = worst.and_then(|(figures, _)| figures.service);
        let seat = worst.and_then(|(figures, _)| figures.seat);
        let cause = cohort.stuck().map(|(cause, _)| cause);
        let [before, after] = rules;
        let silent = worst.map_or(latest.tcp.books.silent, |(figures, _)| silent(figures));
        Evidence {
            service,
            cohort,
            silent,
            seat: seat.unwrap_or_else(|| cause.map_or(Seat::Between, |cause| latest.seat(cause))),
            queue: service.and_then(|service| self.queue(service)),
            beginner: None,
            counters,
            firewall: Firewall::between(before, after, service, conntrack),
            lost: latest.lost_here.clone(),
            sees_forwarding: matches!(&latest.context.origin, Origin::Live(live) if live.sees_forwarding()),
            completed: latest.tcp.books.verdict(Verdict::Completed),
            looked_ns,
            quiet: cause::quiet(latest).or_else(|| no_syn(latest)),
            exact: latest.is_exact(),
        }
    }

    /// The fullest accept queue of the listeners that take a service's connections; `None` where the kernel does
    /// not tell, or one of them takes those of a certain interface alone.
    fn queue(&self, service: SocketAddr) -> Option<Option<Queue>> {
        self.listeners.as_ref()?;
        let taking: Vec<_> = self.queues.values().filter(|one| one.takes(service)).collect();
        if taking.iter().any(|one| one.interface != 0) {
            return None;
        }
        let has_own = taking.iter().any(|one| one.is_at(service));
        let fullest = taking
            .into_iter()
            .filter(|one| one.is_at(service) || !has_own)
            .max_by_key(|one| (one.is_full(), one.waiting));
        Some(fullest.map(|one| Queue {
            process: self.processes.owner(one.inode).map(ToString::to_string),
            owner: self.owner(one),
            waiting: one.waiting,
            backlog: one.backlog,
            was_full: one.is_full(),
        }))
    }
}

/// Who began the attempts at a service that fail, or all that fail.
struct Beginner {
    service: Option<SocketAddr>,
    /// One of them.
    first: Option<Flow>,
    /// Whether another group began some.
    has_others: bool,
}

impl Beginner {
    const fn of(service: Option<SocketAddr>) -> Self {
        Self { service, first: None, has_others: false }
    }

    fn note(&mut self, flow: &Flow, view: &View<'_>) {
        let is_meant = flow.tcp().is_some()
            && self.service.is_none_or(|service| flow.end(Side::Responder) == service)
            && flow.standing(&view.moment).assessment() == Assessment::Bad;
        if is_meant {
            let group = |flow: &Flow| flow.record.control_groups.ids[Side::Initiator as usize];
            let first = self.first.get_or_insert(*flow);
            self.has_others |= group(first) != group(flow);
        }
    }

    /// Whose the one group is that began them; `None` also for the root of all groups.
    fn owner(&self, view: &View<'_>) -> Option<Arc<Owner>> {
        let owner = view.owner(self.first.as_ref().filter(|_| !self.has_others)?, Side::Initiator)?;
        (!owner.is_root()).then_some(owner)
    }
}

/// The rules of this host's firewall, by a helper that alone keeps what it takes to read them.
struct Rules {
    /// `None` where they cannot be read.
    figures: Option<Figures>,
    first: Vec<u8>,
    is_verbose: bool,
}

impl Rules {
    /// Starts the helper. Only this thread may run.
    fn open(scope: &ScopeArgs) -> Result<Self, CommandError> {
        let opened = Nftables::open();
        let why_not = opened.as_ref().err().map(ToString::to_string);
        let duties = opened.ok().map(|mut nftables| {
            let confinement = confinement(scope).map(|usual| Confinement { keeps_net_admin: true, ..usual });
            let figures = FiguresDuty { read: Box::new(move || nftables.read()), confinement };
            Duties { figures: Some(figures), ..Duties::default() }
        });
        let helper = prepare(scope, duties)?;
        let is_verbose = scope.verbosity.verbose > 0;
        let mut rules = Self { figures: None, first: Vec::new(), is_verbose };
        why_not.into_iter().for_each(|why| rules.tell(&why));
        rules.figures = helper.and_then(|helper| helper.figures().ok());
        Ok(rules)
    }

    fn read(&mut self) -> Vec<u8> {
        match self.figures.as_mut().map(Figures::read) {
            Some(Ok(read)) => return read,
            Some(Err(error)) => self.tell(&error.to_string()),
            None => {}
        }
        self.figures = None;
        Vec::new()
    }

    fn tell(&self, why: &str) {
        if self.is_verbose {
            say(&format!("the counters of nftables cannot be read: {why}"));
        }
    }

    fn read_first(&mut self) {
        self.first = self.read();
    }

    /// What they counted at the first reading, and now.
    fn read_both(&mut self) -> [Vec<CountedRule>; 2] {
        let last = self.read();
        [&self.first, &last].map(|read| counted_rules(read))
    }
}

/// The time on the records' clock.
fn monotonic_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    let part = |part: i64| u64::try_from(part).unwrap_or(0);
    part(now.tv_sec) * 1_000_000_000 + part(now.tv_nsec)
}

/// The attempts of each service. One that came after the cutoff had nothing then.
fn services(cutoff: &Snapshot, latest: &Snapshot) -> Vec<(ServiceFigures, Cohort)> {
    let before: HashMap<SocketAddr, TcpBooks> =
        tcp(cutoff).map(|(service, _, books)| (service, books)).collect();
    let named = tcp(latest).map(|(service, figures, books)| {
        let then = before.get(&service).copied().unwrap_or_default();
        (figures, Cohort::between(&then, &books))
    });
    named.collect()
}

/// The service that fails most; the busiest where none fails.
fn worst(services: &[(ServiceFigures, Cohort)]) -> Option<&(ServiceFigures, Cohort)> {
    services.iter().max_by_key(|(figures, cohort)| (cohort.failed() + silent(figures), cohort.attempts))
}

/// The connections of a service that have no answer.
const fn silent(figures: &ServiceFigures) -> u64 {
    match figures.books {
        ServiceBooks::Tcp(books) => books.silent,
        ServiceBooks::Udp(_) => 0,
    }
}

/// The services of TCP that have a row, with their books.
fn tcp(snapshot: &Snapshot) -> impl Iterator<Item = (SocketAddr, ServiceFigures, TcpBooks)> {
    snapshot.every_service.iter().filter_map(|row| match row.books {
        ServiceBooks::Tcp(books) => Some((row.service?, row.clone(), books)),
        ServiceBooks::Udp(_) => None,
    })
}

/// The names of the interfaces; of many the first.
fn interfaces(snapshot: &Snapshot) -> String {
    match &snapshot.context.origin {
        Origin::Live(live) => {
            some_of(&live.interfaces.iter().map(|each| each.name.as_str()).collect::<Vec<_>>())
        }
        Origin::Capture(capture) => capture.path.clone(),
    }
}

/// That no SYN passed at all, in words.
fn no_syn(snapshot: &Snapshot) -> Option<String> {
    let packets = snapshot.packets.total;
    let is_udp = snapshot.udp.books.flows != 0;
    let only = if is_udp { ": why asks about TCP, and handshake watch tells of UDP" } else { "" };
    (snapshot.tcp.books.attempts == 0)
        .then(|| format!("{} packets passed {}, and no SYN{only}", short(packets), interfaces(snapshot)))
}

impl Sink for Look {
    type Input = Infallible;
    type Error = CommandError;

    fn advance(&mut self, session: &mut Session) -> Result<ControlFlow<()>, CommandError> {
        match session.advance() {
            Ok(_) => self.note(session.last().clone()),
            Err(error) if error.is_passing() => {}
            Err(error) => return Err(error.into()),
        }
        Ok(if self.has_enough() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    }

    async fn input(&mut self) -> Infallible {
        pending().await
    }

    fn handle(&mut self, _: &mut Session, input: Infallible) -> Result<ControlFlow<()>, CommandError> {
        match input {}
    }

    fn notice(&mut self, notice: &str) {
        announce(notice);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use handshake_agent::fake::{BEGINNING, Fake, SECOND, record, unit};
    use handshake_agent::model::snapshot::{LiveOrigin, RunContext};
    use handshake_agent::options::Filter;
    use handshake_agent::owner::OwnerBook;
    use handshake_common::record::State;

    use super::*;

    /// Of the attempts at a service that fail, where one group began them all and it is not the root of the tree.
    #[test]
    fn the_one_that_began_what_fails_is_found() {
        const REFUSED: State = State::Refused;
        const DONE: State = State::Established;
        let root = Owner { cgroup: "/".to_owned(), unit: None, container: None, pod: None };
        let context = Arc::new(RunContext {
            origin: Origin::Live(LiveOrigin::default()),
            began: BEGINNING,
            filter: Filter::default(),
            top: usize::MAX,
            owners: OwnerBook::fixed([(1, unit("backup.service")), (2, unit("b.service")), (3, root)]),
        });
        let snapshot = Snapshot::take(&mut Fake::new(), &context, None).expect("a fake never fails");
        let (here, there) = ("10.0.0.2:443", "10.0.0.2:80");
        /// A service, how an attempt at it stands, and the group that began it.
        type Attempt<'a> = (&'a str, State, u64);
        let table: [(&[Attempt<'_>], bool); 8] = [
            (&[], false),
            (&[(here, REFUSED, 1), (here, REFUSED, 1), (here, DONE, 2), (there, REFUSED, 2)], true),
            (&[(here, State::SynSent, 1), (here, REFUSED, 1)], true),
            (&[(here, REFUSED, 1), (here, REFUSED, 2)], false),
            (&[(here, REFUSED, 1), (here, REFUSED, 0)], false),
            (&[(here, REFUSED, 9)], false),
            (&[(here, REFUSED, 3)], false),
            (&[(here, DONE, 1)], false),
        ];
        for (flows, is_found) in table {
            let mut failing = Beginner::of(here.parse().ok());
            for (service, state, group) in flows {
                let mut flow = record("10.0.0.1:1", service, *state);
                flow.control_groups.ids = [*group, 0];
                failing.note(&Flow::of(flow), &View::of(&snapshot));
            }
            let owner = failing.owner(&View::of(&snapshot)).map(|owner| owner.label().into_owned());
            assert_eq!(owner, is_found.then(|| "backup.service".to_owned()), "{flows:?}");
        }
    }

    /// What fails in the total fails in its service too, also where its first packet came a moment after the
    /// cutoff.
    #[test]
    fn a_service_that_came_after_the_cutoff_has_its_attempts() {
        let mut fake = Fake::new();
        let context = Arc::new(RunContext {
            origin: Origin::Live(LiveOrigin::default()),
            began: BEGINNING,
            filter: Filter::default(),
            top: usize::MAX,
            owners: OwnerBook::default(),
        });
        let take = |fake: &mut Fake| Snapshot::take(fake, &context, None).expect("a fake never fails");
        let cutoff = take(&mut fake);
        fake.later(4 * SECOND);
        fake.service(1, "10.0.0.2:443");
        for _ in 0..40 {
            fake.open(1, State::SynSent, 4 * SECOND - 1);
        }
        let latest = take(&mut fake);
        let total = Cohort::between(&cutoff.tcp.books, &latest.tcp.books);
        let services = services(&cutoff, &latest);
        let [(figures, cohort)] = &services[..] else { panic!("{services:?}") };
        assert_eq!(figures.service, Some("10.0.0.2:443".parse().expect("an address")));
        assert_eq!((total.failed(), *cohort), (40, total));
    }
}
