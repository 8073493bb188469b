//! A program on a terminal that can be read: tmux, on a server of its own.

use std::ffi::OsStr;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use std::{process, thread};

use anyhow::{Context, Result, bail};

use crate::process::run;

/// From one look at the screen to the next.
const LOOK_EVERY: Duration = Duration::from_millis(25);

/// A shell on a terminal of its own. The server goes, with all that runs on it, on drop.
#[derive(Debug)]
pub struct Terminal {
    socket: String,
}

impl Terminal {
    /// An `sh` on so many columns and rows, with a prompt that is one `$`.
    ///
    /// # Errors
    /// Without tmux.
    pub fn new(columns: u16, rows: u16) -> Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let socket = format!("hs-{}-{}", process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let terminal = Self { socket };
        let (columns, rows) = (columns.to_string(), rows.to_string());
        // No configuration, no status line: the pane is the terminal.
        terminal.tmux(&[
            "-f",
            "/dev/null",
            "new-session",
            "-d",
            "-x",
            &columns,
            "-y",
            &rows,
            "env",
            "-i",
            "PS1=$ ",
            "TERM=screen-256color",
            "PATH=/usr/sbin:/usr/bin:/sbin:/bin",
            "LANG=C.UTF-8",
            "sh",
            ";",
            "set",
            "status",
            "off",
            ";",
            "set",
            "history-limit",
            "1000",
        ])?;
        terminal.await_screen(Duration::from_secs(10), |screen| screen.contains('$'))?;
        Ok(terminal)
    }

    fn tmux(&self, arguments: &[&str]) -> Result<String> {
        // `-u`: what it is told and tells is UTF-8, whatever our own locale.
        run(Command::new("tmux").arg("-u").args(["-L", &self.socket]).args(arguments))
    }

    /// Types a line and Enter.
    ///
    /// # Errors
    /// The terminal has ended.
    pub fn line(&self, text: &str) -> Result<()> {
        self.tmux(&["send-keys", "-l", text])?;
        self.key("Enter")
    }

    /// Has the shell become `command`'s program, words quoted.
    ///
    /// # Errors
    /// As [`Terminal::line`].
    pub fn start(&self, command: &Command) -> Result<()> {
        let words = [command.get_program()].into_iter().chain(command.get_args());
        self.line(&words.map(quoted).collect::<Vec<_>>().join(" "))
    }

    /// Presses a key by tmux's name of it: `q`, `Tab`, `Enter`, `C-c`.
    ///
    /// # Errors
    /// The terminal has ended.
    pub fn key(&self, name: &str) -> Result<()> {
        self.tmux(&["send-keys", name]).map(drop)
    }

    /// Makes it another size.
    ///
    /// # Errors
    /// The terminal has ended.
    pub fn resize(&self, columns: u16, rows: u16) -> Result<()> {
        let (columns, rows) = (columns.to_string(), rows.to_string());
        self.tmux(&["resize-window", "-x", &columns, "-y", &rows]).map(drop)
    }

    /// What is on it, line by line.
    ///
    /// # Errors
    /// The terminal has ended.
    pub fn screen(&self) -> Result<String> {
        self.tmux(&["capture-pane", "-p"])
    }

    /// The same with escape sequences for colours, and with the blanks at the lines' ends.
    ///
    /// # Errors
    /// The terminal has ended.
    pub fn coloured_screen(&self) -> Result<String> {
        self.tmux(&["capture-pane", "-p", "-e", "-N"])
    }

    /// Is the alternate screen shown?
    ///
    /// # Errors
    /// The terminal has ended.
    pub fn is_alternate(&self) -> Result<bool> {
        Ok(self.tmux(&["display-message", "-p", "#{alternate_on}"])?.trim() == "1")
    }

    /// Waits until the screen is as `wanted`, and gives it.
    ///
    /// # Errors
    /// It is not within `limit`; the message has the screen.
    pub fn await_screen(&self, limit: Duration, wanted: impl Fn(&str) -> bool) -> Result<String> {
        let deadline = Instant::now() + limit;
        loop {
            let screen = self.screen()?;
            if wanted(&screen) {
                return Ok(screen);
            }
            if Instant::now() >= deadline {
                bail!("the screen does not become as wanted:\n{screen}");
            }
            thread::sleep(LOOK_EVERY);
        }
    }

    /// The process that has the terminal: of the shell's children the latest.
    ///
    /// # Errors
    /// There is none.
    pub fn foreground(&self) -> Result<u32> {
        let shell = self.tmux(&["display-message", "-p", "#{pane_pid}"])?;
        let shell = shell.trim();
        let children = std::fs::read_to_string(format!("/proc/{shell}/task/{shell}/children"))?;
        children.split_whitespace().last().context("the shell runs nothing")?.parse().context("a process id")
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // It has ended already where its shell has.
        let _ = self.tmux(&["kill-server"]);
    }
}

/// A word as `sh` reads it back.
fn quoted(word: &OsStr) -> String {
    format!("'{}'", word.to_string_lossy().replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Terminal, quoted};
    use crate::skip_without_tool;

    #[test]
    fn words_are_read_back() {
        assert_eq!(quoted("a b".as_ref()), "'a b'");
        assert_eq!(quoted("it's".as_ref()), "'it'\\''s'");
    }

    #[test]
    fn what_is_typed_is_run_and_seen() {
        if skip_without_tool("tmux") {
            return;
        }
        let terminal = Terminal::new(40, 10).expect("tmux");
        terminal.line("tput smcup; stty size").expect("a shell");
        let limit = Duration::from_secs(10);
        terminal.await_screen(limit, |screen| screen.contains("10 40")).expect("the size");
        terminal.resize(60, 12).expect("a window");
        terminal.line("clear; stty size").expect("a shell");
        terminal.await_screen(limit, |screen| screen.contains("12 60")).expect("the new size");
        assert!(terminal.is_alternate().expect("a pane"));
    }
}
