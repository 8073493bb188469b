//! Lines on stderr. A stderr that is closed or full is ignored, and one that is not read makes no command
//! wait for long. Names come from outside: what steers a terminal is escaped.

use std::io::{self, IsTerminal as _, Write as _};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{LazyLock, OnceLock};
use std::time::Duration;

use handshake_agent::confine::Confinement;

use crate::escape::printable;
use crate::output::{Lane, Patience, Target};

/// How long a line waits to be written, so that lines and reports on one terminal keep their order.
const PATIENCE: Patience = Patience::Without(Duration::from_millis(100));

static CONSOLE: LazyLock<Option<Lane>> = LazyLock::new(|| Lane::regardless(confine, Target::stderr()).ok());
/// What the thread that writes the lines is left with.
static CONFINEMENT: OnceLock<Confinement> = OnceLock::new();
/// To the first column, and erase to the end of the line (ECMA-48, CR and EL).
const ERASE_LINE: &str = "\r\x1b[K";

/// Whether the last line was not written in time: the next ones do not wait until stderr is read again.
static IS_STUCK: AtomicBool = AtomicBool::new(false);
/// Lines that had no room.
static LEFT_OUT: AtomicU64 = AtomicU64::new(0);

/// Has the thread that writes the lines confined from its beginning: it runs before this program has
/// attached, and a thread is confined by itself alone. To be called before the first line.
pub(crate) fn confine_by(confinement: Confinement) {
    // It is called once.
    let _ = CONFINEMENT.set(confinement);
}

fn confine() {
    // What fails here fails on the main thread too, which says so.
    let _ = CONFINEMENT.get().map(Confinement::apply);
}

/// Prints one line, with the program's name before it.
pub(crate) fn say(line: &str) {
    print(format!("handshake: {}\n", printable(line)));
}

/// Prints text whose line breaks are its own, with the program's name before it.
pub(crate) fn say_lines(text: &str) {
    let lines: Vec<_> = text.lines().map(printable).collect();
    print(format!("handshake: {}\n", lines.join("\n")));
}

/// Prints one line without a prefix: scripts wait for it.
pub(crate) fn announce(line: &str) {
    print(format!("{}\n", printable(line)));
}

/// What takes a while: a line on stderr, which counts on a terminal and goes when it is done.
pub(crate) struct Progress {
    what: &'static str,
    is_terminal: bool,
}

impl Progress {
    /// The same, and not a word where stderr is no terminal.
    pub(crate) fn on_terminal(what: &'static str) -> Self {
        Self { what, is_terminal: io::stderr().is_terminal() }
    }

    /// Begins to say `what` is done.
    pub(crate) fn start(what: &'static str) -> Self {
        let is_terminal = io::stderr().is_terminal();
        if !is_terminal {
            say(&format!("{what}…"));
        }
        Self { what, is_terminal }
    }

    /// Whether anything is shown before the end.
    pub(crate) const fn is_shown(&self) -> bool {
        self.is_terminal
    }

    /// How far it has come.
    pub(crate) fn tell(&mut self, how_far: &str) {
        if self.is_terminal {
            print(format!("{ERASE_LINE}handshake: {}… {how_far}", self.what));
        }
    }

    /// `done` steps are done `of` so many.
    pub(crate) fn show(&mut self, done: usize, of: usize) {
        if self.is_terminal && done < of {
            self.tell(&format!("{} of {of}", done + 1));
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.is_terminal {
            print(ERASE_LINE.to_owned());
        }
    }
}

/// Waits until the lines are written, as long as stderr is read.
pub(crate) fn flush() {
    if let Some(lane) = LazyLock::force(&CONSOLE) {
        let _unread = lane.settle(Patience::Without(Duration::from_millis(250)));
    }
}

fn print(line: String) {
    let Some(lane) = LazyLock::force(&CONSOLE) else {
        let _closed = Target::stderr().write_all(line.as_bytes());
        return;
    };
    if !lane.has_room() {
        LEFT_OUT.fetch_add(1, Ordering::Relaxed);
        return;
    }
    if lane.is_idle() {
        IS_STUCK.store(false, Ordering::Relaxed);
    }
    let left_out = LEFT_OUT.swap(0, Ordering::Relaxed);
    if left_out > 0 {
        lane.push(format!("handshake: stderr was not read: {left_out} lines are left out\n").into_bytes());
    }
    lane.push(line.into_bytes());
    if !IS_STUCK.load(Ordering::Relaxed) {
        IS_STUCK.store(lane.settle(PATIENCE).is_err(), Ordering::Relaxed);
    }
}
