//! Lines on stderr. A stderr that was closed ends nothing.

use std::io::Write as _;

/// Prints one line under the program's name.
pub(crate) fn say(line: &str) {
    let _closed = writeln!(std::io::stderr(), "handshake: {line}");
}

/// Prints a line as it is: scripts wait for it.
pub(crate) fn announce(line: &str) {
    let _closed = writeln!(std::io::stderr(), "{line}");
}
