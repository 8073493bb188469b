//! The command `handshake`.

#[expect(dead_code, reason = "the agent that starts what was asked for comes next")]
mod cli;
#[cfg(test)]
mod fake;
mod metric;
mod report;
mod snapshot;
mod source;
mod time;
mod values;

fn main() {}
