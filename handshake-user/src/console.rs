//! Lines on stderr. A closed stderr is ignored.

use std::io::Write as _;

/// Prints one line, with the program's name before it.
pub(crate) fn say(line: &str) {
    let _closed = writeln!(std::io::stderr(), "handshake: {line}");
}

/// Prints one line without a prefix: scripts wait for it.
pub(crate) fn announce(line: &str) {
    let _closed = writeln!(std::io::stderr(), "{line}");
}
