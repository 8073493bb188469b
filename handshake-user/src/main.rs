//! The command `handshake`: the command line, what it runs, and the exit code.
//!
//! ```text
//! cli ─▶ command/{watch, why, serve, check, diff, join, replay, doctor} ─▶ handshake-agent
//!                   │
//!                   ├──▶ tui            the live terminal
//!                   ├──▶ errand         what a service has its helper do
//!                   ├──▶ recorder       has the helper record the session
//!                   ├──▶ evidence       has the helper write the packets of what failed
//!                   ├──▶ report         text and JSON
//!                   ├──▶ why            one answer from what was seen
//!                   └──▶ check          expectations, the checked command, the kernel's own account
//!                          │
//!                        helper         the process that starts the command and writes files
//!                          │
//!                        names          names in the place of numbers, off the loop
//!                          │
//!     file, console ─▶ output             what is written, where, and how long that may take
//!                          │
//!     caller, escape, time, number, duration    leaves
//! ```
//!
//! Arrows point down only: `xtask/tests/house.rs` reads the imports and checks it. Not here: attaching
//! programs and reading maps (`handshake-agent`), and the rules of the protocol (`handshake-common`).

#![cfg_attr(not(test), deny(clippy::print_stdout, clippy::print_stderr))]

mod caller;
mod check;
mod cli;
mod command;
mod console;
mod duration;
mod errand;
mod error;
mod escape;
mod event_file;
mod evidence;
mod file;
mod helper;
mod names;
mod number;
mod output;
mod recorder;
mod report;
#[cfg(test)]
mod testing;
mod time;
mod tui;
mod why;

use std::process::ExitCode;

use check::CheckError;
use cli::Command;
use command::{
    check as checking, diff, doctor, generate, join, replay, serve as serving, watch, why as asking,
};
use console::{say, say_lines};
use error::CommandError;
use output::{Output, Target};

fn main() -> ExitCode {
    let code = run();
    console::flush();
    ExitCode::from(code)
}

fn run() -> u8 {
    let command = match cli::parse() {
        Ok(command) => command,
        Err(error) => return show_usage(&error),
    };
    let verbose = command.verbosity();
    let result = match command {
        Command::Watch(args) => watch::run(&args),
        Command::Replay(args) => replay::run(&args),
        Command::Why(args) => asking::run(&args),
        Command::Serve(args) => serving::run(*args),
        Command::Check(args) => checking::run(&args),
        Command::Diff(args) => diff::run(&args),
        Command::Join(args) => join::run(&args),
        Command::Doctor(args) => doctor::run(&args),
        Command::Generate(args) => generate::run(&args),
    };
    result.unwrap_or_else(|error| {
        complain(&error, verbose);
        error.exit_code()
    })
}

/// Prints help or the version to stdout; a usage error as one line on stderr, with exit code 2.
fn show_usage(error: &clap::Error) -> u8 {
    if error.use_stderr() {
        say(&cli::one_line(error));
        return 2;
    }
    let shown = Output::to(Target::stdout()).put(|out| write!(out, "{}", error.render()));
    match shown.map_err(CommandError::output("write the help")) {
        Ok(()) => 0,
        Err(error) => {
            complain(&error, 0);
            error.exit_code()
        }
    }
}

/// Prints the error as one line that names the fix; with `-v`, the kernel's own message follows.
fn complain(error: &CommandError, verbose: u8) {
    match error {
        // It shows the expectation and marks the column.
        CommandError::Check(CheckError::Expectation(_)) => say_lines(&error.to_string()),
        CommandError::Check(_)
        | CommandError::Agent(_)
        | CommandError::Join(_)
        | CommandError::Config(_)
        | CommandError::NoTerminal
        | CommandError::NoRecording(_)
        | CommandError::Recording { .. }
        | CommandError::ReportFile { .. }
        | CommandError::Output { .. } => say(&error.to_string()),
    }
    if let Some(words) = error.kernel_words().filter(|_| verbose > 0) {
        say_lines(&format!("the kernel says: {words}"));
    }
}
