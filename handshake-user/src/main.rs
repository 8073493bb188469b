//! The command `handshake`: the command line, what it runs, and the exit code.
//!
//! ```text
//! cli ─▶ command/{watch, check, replay, doctor} ─▶ handshake-agent
//!                   │
//!                   ├──▶ tui            the live terminal
//!                   ├──▶ report         text and JSON
//!                   └──▶ check          expectations, the checked command, the kernel's own account
//!                          │
//!                        time, number, duration, console    leaves
//! ```
//!
//! Arrows point down only: `xtask/tests/house.rs` reads the imports and checks it. Not here: attaching
//! programs and reading maps (`handshake-agent`), and the rules of the protocol (`handshake-common`).

mod check;
mod cli;
mod command;
mod console;
mod duration;
mod error;
mod number;
mod report;
#[cfg(test)]
mod testing;
mod time;
mod tui;

use std::process::ExitCode;

use cli::Command;
use command::{check as checking, doctor, replay, watch};
use console::say;
use error::CommandError;

fn main() -> ExitCode {
    let command = cli::parse();
    let verbose = command.verbosity();
    let result = match command {
        Command::Watch(args) => watch::run(&args),
        Command::Replay(args) => replay::run(&args),
        Command::Check(args) => checking::run(&args),
        Command::Doctor(args) => doctor::run(&args),
    };
    match result {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            complain(&error, verbose);
            ExitCode::from(error.exit_code())
        }
    }
}

/// Prints the error as one line that names the fix; with `-v`, the kernel's own message follows.
fn complain(error: &CommandError, verbose: u8) {
    say(&error.to_string());
    if let Some(words) = error.kernel_words().filter(|_| verbose > 0) {
        say(&format!("the kernel says: {words}"));
    }
}
