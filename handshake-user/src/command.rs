//! The subcommands, each from its options to its exit code.

pub(crate) mod check;
pub(crate) mod doctor;
pub(crate) mod replay;
pub(crate) mod watch;

use handshake_agent::attach::Plan;
use handshake_agent::options::Options;
use handshake_agent::session::Session;

use crate::console::{announce, say};
use crate::error::CommandError;

/// Loads and attaches the programs. When all are attached, prints one line per interface to stderr.
fn attach(options: &Options, plan: &Plan) -> Result<Session, CommandError> {
    let session = Session::open(options, plan, say)?;
    session.interfaces().iter().for_each(|interface| announce(&format!("attached {interface}")));
    Ok(session)
}

/// Maps an I/O error of the report's output, for `map_err`.
fn out(error: std::io::Error) -> CommandError {
    CommandError::output("write the report")(error)
}
