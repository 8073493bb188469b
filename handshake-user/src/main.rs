//! The command `handshake`.

mod attach;
mod cli;
mod doctor;
mod error;
#[cfg(test)]
mod fake;
mod metric;
mod report;
mod snapshot;
mod source;
mod time;
mod values;

fn main() {}
