//! The command `handshake`.

#[expect(dead_code, reason = "the agent that starts what was asked for comes next")]
mod cli;
#[cfg(test)]
mod fake;
mod metric;
#[expect(dead_code, reason = "the agent that writes reports comes next")]
mod report;
#[cfg_attr(not(test), expect(dead_code, reason = "the agent that takes snapshots comes next"))]
mod snapshot;
mod source;
mod time;
#[cfg_attr(not(test), expect(dead_code, reason = "the agent that reads the command line comes next"))]
mod values;

fn main() {}
