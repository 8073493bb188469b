//! The subcommands, each from its options to its exit code.

pub(crate) mod check;
pub(crate) mod doctor;
pub(crate) mod replay;
pub(crate) mod watch;

use std::thread::sleep;
use std::time::{Duration, Instant};

use handshake_agent::Error as AgentError;
use handshake_agent::attach::Plan;
use handshake_agent::options::Options;
use handshake_agent::session::{Loaded, Session};

use crate::console::{Progress, announce, say};
use crate::error::CommandError;

/// Loads the programs, and says so: the verifier needs a second, and an emulated machine a minute. No handler
/// for signals is installed before: one that comes meanwhile ends the process at once, and nothing is
/// attached.
fn load(options: &Options, plan: &Plan) -> Result<Loaded, CommandError> {
    let mut progress = Progress::start("loading into the kernel");
    Ok(Loaded::new(options, plan, |done, of| progress.show(done, of))?)
}

/// Attaches the programs. When all are attached, prints one line per interface to stderr.
fn attach(loaded: Loaded, options: &Options, plan: &Plan) -> Result<Session, CommandError> {
    let session = Session::open(loaded, options, plan, say, announce)?;
    session.interfaces().iter().for_each(|interface| announce(&format!("attached {interface}")));
    Ok(session)
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
