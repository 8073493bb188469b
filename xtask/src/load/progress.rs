//! How far a run is: one line that is rewritten on a terminal, and nothing where there is none.

use std::io::{self, IsTerminal, Write};

/// The line; taken away on drop.
pub(super) struct Progress {
    shown: bool,
}

impl Progress {
    pub(super) fn new() -> Self {
        Self { shown: io::stderr().is_terminal() }
    }

    /// Writes over what was said last.
    pub(super) fn say(&self, line: &str) {
        /// Erases what is left of the longer line before.
        const REST: &str = "\x1b[K";
        if self.shown {
            // Where nobody can be told, there is nobody to be told of it.
            let _ = write!(io::stderr(), "\r{line}{REST}");
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.say("");
    }
}
