//! The command `handshake`.

mod attach;
mod check;
mod cli;
mod doctor;
mod error;
#[cfg(test)]
mod fake;
mod metric;
mod replay;
mod report;
mod session;
mod similar;
mod snapshot;
mod source;
mod time;
mod tui;
mod values;
mod watch;

use std::io::Write as _;
use std::process::ExitCode;

use cli::Command;
use error::Error;
use source::live::LiveError;

fn main() -> ExitCode {
    let command = cli::parse();
    let verbose = verbosity(&command);
    let result = match command {
        Command::Watch(watch) => watch::run(&watch),
        Command::Replay(replay) => replay::run(&replay),
        Command::Check(check) => check::run(&check),
        Command::Doctor(doctor) => doctor::command(&doctor.interfaces),
    };
    match result {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            complain(&error, verbose);
            ExitCode::from(exit_code(&error))
        }
    }
}

const fn verbosity(command: &Command) -> u8 {
    match command {
        Command::Watch(watch) => watch.scope.verbosity.verbose,
        Command::Replay(replay) => replay.verbosity.verbose,
        Command::Check(check) => check.scope.verbosity.verbose,
        Command::Doctor(doctor) => doctor.verbosity.verbose,
    }
}

/// One line that names the fix; with `-v` the kernel's own words behind it.
fn complain(error: &anyhow::Error, verbose: u8) {
    say(&format!("{error:#}"));
    let ours = error.downcast_ref::<Error>().and_then(Error::kernel_words);
    let words = ours.or_else(|| error.downcast_ref::<LiveError>().and_then(LiveError::kernel_words));
    if let Some(words) = words.filter(|_| verbose > 0) {
        say(&format!("the kernel says: {words}"));
    }
}

/// A line on stderr. Who closed it does not want it.
fn say(line: &str) {
    let _closed = writeln!(std::io::stderr(), "handshake: {line}");
}

/// 2 usage or input, 4 cannot load or attach, 5 permission; anything else went wrong while running, as 4.
fn exit_code(error: &anyhow::Error) -> u8 {
    if let Some(error) = error.downcast_ref::<Error>() {
        return error.exit_code();
    }
    if let Some(error) = error.downcast_ref::<LiveError>() {
        return error.exit_code();
    }
    if error.downcast_ref::<handshake_capture::Error>().is_some() { 2 } else { 4 }
}
