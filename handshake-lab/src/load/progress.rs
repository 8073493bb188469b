//! How far a run is: one line that is rewritten on a terminal, and nothing where there is none.

use std::io::{self, IsTerminal, Write};

/// The line; taken away on drop.
pub(super) struct Progress<'a> {
    name: &'a str,
    shown: bool,
}

impl<'a> Progress<'a> {
    /// Of the run of this name.
    pub(super) fn new(name: &'a str) -> Self {
        Self { name, shown: io::stderr().is_terminal() }
    }

    /// Writes over what was said last.
    pub(super) fn say(&self, line: &str) {
        self.write(&format!("{}: {line}", self.name));
    }

    fn write(&self, line: &str) {
        /// Erases what is left of the longer line before.
        const REST: &str = "\x1b[K";
        if self.shown {
            // Where nobody can be told, there is nobody to be told of it.
            let _ = write!(io::stderr(), "\r{line}{REST}");
        }
    }
}

impl Drop for Progress<'_> {
    fn drop(&mut self) {
        self.write("");
    }
}
