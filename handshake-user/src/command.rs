//! The subcommands, each from its options to its exit code.

pub(crate) mod check;
pub(crate) mod diff;
pub(crate) mod doctor;
pub(crate) mod generate;
mod github;
pub(crate) mod join;
pub(crate) mod replay;
pub(crate) mod serve;
pub(crate) mod watch;
pub(crate) mod why;

use std::env;
use std::path::PathBuf;
use std::thread::sleep;
use std::time::{Duration, Instant};

use handshake_agent::Error as AgentError;
use handshake_agent::attach::Plan;
use handshake_agent::confine::{self, Confinement, NOBODY};
use handshake_agent::options::Options;
use handshake_agent::session::{Loaded, Session, Signals};

use crate::caller::User;
use crate::cli::{EvidenceArgs, ScopeArgs, misspelt};
use crate::console::{self, Progress, announce, say};
use crate::error::CommandError;
use crate::evidence::Collector;
use crate::helper::{Duties, Helper};
use crate::names::Names;
use crate::time::Zone;

/// Loads the programs, and says so: the verifier needs a second, and an emulated machine a minute. No handler
/// for signals is installed before: one that comes meanwhile ends the process at once, and nothing is
/// attached.
fn load(options: &Options, plan: &Plan) -> Result<Loaded, CommandError> {
    let mut progress = Progress::start("loading into the kernel");
    Ok(Loaded::new(options, plan, |done, of| progress.show(done, of))?)
}

/// Attaches the programs, and gives up the privileges that this took. Then prints one line per interface to
/// stderr.
async fn attach(
    loaded: Loaded,
    options: &Options,
    plan: &Plan,
    scope: &ScopeArgs,
    signals: &mut Signals,
) -> Result<Session, CommandError> {
    let session = Session::open(loaded, options, plan, signals, say, announce).await?;
    if let Some(confinement) = confinement(scope) {
        let keeps_net_admin = session.may_use_clsact();
        let confined = Confinement { keeps_net_admin, ..confinement }.apply()?;
        confined.gaps().iter().for_each(|gap| say(gap));
        if scope.verbosity.verbose > 0 {
            say(&format!("privileges given up; left: {confined}"));
        }
    }
    session.interfaces().iter().for_each(|interface| announce(&format!("attached {interface}")));
    Ok(session)
}

/// What a command that attaches is left with; `None` with `--keep-privileges`.
fn confinement(scope: &ScopeArgs) -> Option<Confinement> {
    (!scope.keep_privileges).then(|| Confinement { reads_owners: true, ..usual_confinement() })
}

/// What a command that attaches is left with, unless it is asked for otherwise. Root becomes the user who
/// called sudo, who may then signal it; else `nobody`.
fn usual_confinement() -> Confinement {
    let of_caller = |user: User| confine::User { uid: user.uid.as_raw(), gid: user.gid.as_raw() };
    Confinement::of(User::calling().map_or(NOBODY, of_caller))
}

/// Starts the helper, and sees to it that the thread of the console is confined. To be called before anything
/// is said, because both take that no other thread runs.
fn prepare(scope: &ScopeArgs, duties: Option<Duties>) -> Result<Option<Helper>, CommandError> {
    let helper =
        duties.map(Helper::start).transpose().map_err(AgentError::system("start the helper process"))?;
    confinement(scope).into_iter().for_each(console::confine_by);
    warn_of_variables();
    Ok(helper)
}

/// Begins to collect evidence, where that is asked for.
fn collector(helper: &Helper, args: &EvidenceArgs, zone: Zone) -> Result<Option<Collector>, CommandError> {
    let start = |path: &PathBuf| Collector::start(helper, path, args.bytes as usize, zone);
    args.folder.as_ref().map(start).transpose()
}

/// Says which variables are probably misspelt, and so set nothing. To be called after a helper has started.
fn warn_of_variables() {
    let said = misspelt(env::vars_os().map(|(name, _)| name));
    said.iter().for_each(|said| say(said));
}

/// Names in the place of numbers, where they are asked for. To be called once the helper has been started, and
/// before privileges are given up: the thread that asks makes sockets.
fn names(are_wanted: bool, confinement: Option<Confinement>) -> Result<Names, CommandError> {
    let names = are_wanted.then(|| Names::open(confinement)).transpose();
    Ok(names.map_err(AgentError::system("start the thread for names"))?.unwrap_or_default())
}

/// The zone of times for people. To be called while the machine's files can be read.
fn zone(utc: bool) -> Zone {
    Zone::of_process(utc).unwrap_or_else(|wrong| {
        say(&format!("{wrong}; times are in UTC"));
        Zone::Utc
    })
}

/// Takes a snapshot that a command cannot do without.
fn take_snapshot(session: &mut Session) -> Result<(), AgentError> {
    patiently(AgentError::is_passing, || session.advance().map(drop))
}

/// Repeats a reading that fails for the moment, for a second.
fn patiently<T, E>(is_passing: impl Fn(&E) -> bool, mut read: impl FnMut() -> Result<T, E>) -> Result<T, E> {
    const PAUSE: Duration = Duration::from_millis(20);
    let deadline = Instant::now() + Duration::from_secs(1);
    loop {
        match read() {
            Err(error) if is_passing(&error) && Instant::now() < deadline => sleep(PAUSE),
            done => return done,
        }
    }
}

/// Maps an I/O error of the report's output, for `map_err`.
fn out(error: std::io::Error) -> CommandError {
    CommandError::output("write the report")(error)
}
