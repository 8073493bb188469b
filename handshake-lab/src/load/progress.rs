//! Shows the progress of a run: one line that is rewritten on a terminal; nothing is printed elsewhere.

use std::io::{self, IsTerminal, Write};

/// The progress line; erased on drop.
pub(super) struct Progress<'a> {
    name: &'a str,
    shown: bool,
}

impl<'a> Progress<'a> {
    /// The progress of the run with this name.
    pub(super) fn new(name: &'a str) -> Self {
        Self { name, shown: io::stderr().is_terminal() }
    }

    /// Replaces the line.
    pub(super) fn say(&self, line: &str) {
        self.write(&format!("{}: {line}", self.name));
    }

    fn write(&self, line: &str) {
        /// Erases the rest of a longer previous line.
        const REST: &str = "\x1b[K";
        if self.shown {
            // A failure to write progress is ignored.
            let _ = write!(io::stderr(), "\r{line}{REST}");
        }
    }
}

impl Drop for Progress<'_> {
    fn drop(&mut self) {
        self.write("");
    }
}
