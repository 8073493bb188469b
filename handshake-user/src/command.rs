//! The subcommands: what each does from its options to its exit code.

pub(crate) mod check;
pub(crate) mod doctor;
pub(crate) mod replay;
pub(crate) mod watch;

use handshake_agent::attach::Plan;
use handshake_agent::options::Options;
use handshake_agent::session::Session;

use crate::console::{announce, say};
use crate::error::CommandError;

/// Loads and attaches, and says so on stderr: a line for each interface when all are attached.
fn attach(options: &Options, plan: &Plan) -> Result<Session, CommandError> {
    let session = Session::open(options, plan, say)?;
    session.interfaces().iter().for_each(|interface| announce(&format!("attached {interface}")));
    Ok(session)
}

/// For `map_err`: the report cannot be written.
fn out(error: std::io::Error) -> CommandError {
    CommandError::output("write the report")(error)
}
