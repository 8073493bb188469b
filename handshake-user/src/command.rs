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
use handshake_agent::session::Session;

use crate::console::{announce, say};
use crate::error::CommandError;

/// Loads and attaches the programs. When all are attached, prints one line per interface to stderr.
fn attach(options: &Options, plan: &Plan) -> Result<Session, CommandError> {
    let session = Session::open(options, plan, say, announce)?;
    session.interfaces().iter().for_each(|interface| announce(&format!("attached {interface}")));
    Ok(session)
}

/// Takes a snapshot that a command cannot do without. A reading that fails for the moment is repeated for a
/// second.
fn take_snapshot(session: &mut Session) -> Result<(), AgentError> {
    const PAUSE: Duration = Duration::from_millis(20);
    let deadline = Instant::now() + Duration::from_secs(1);
    loop {
        match session.advance() {
            Err(error) if error.is_passing() && Instant::now() < deadline => sleep(PAUSE),
            taken => return taken.map(drop),
        }
    }
}

/// Maps an I/O error of the report's output, for `map_err`.
fn out(error: std::io::Error) -> CommandError {
    CommandError::output("write the report")(error)
}
