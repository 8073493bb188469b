//! A readable terminal for a program: tmux, with a server of its own.

use std::ffi::OsStr;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use std::{process, thread};

use anyhow::{Context, Result, bail};

use crate::process::run;

/// Interval between two reads of the screen.
const LOOK_EVERY: Duration = Duration::from_millis(25);

/// A shell on a terminal of its own. The server and everything on it end on drop.
#[derive(Debug)]
pub struct Terminal {
    socket: String,
}

impl Terminal {
    /// Starts `sh` on a terminal of this size, with the prompt `$`.
    ///
    /// # Errors
    /// tmux is missing.
    pub fn new(columns: u16, rows: u16) -> Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let socket = format!("hs-{}-{}", process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let terminal = Self { socket };
        let (columns, rows) = (columns.to_string(), rows.to_string());
        // Without configuration and status line, the pane is the whole terminal.
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
            ";",
            "set",
            "-s",
            "set-clipboard",
            "on",
        ])?;
        terminal.await_screen(Duration::from_secs(10), |screen| screen.contains('$'))?;
        Ok(terminal)
    }

    fn tmux(&self, arguments: &[&str]) -> Result<String> {
        // `-u`: input and output are UTF-8 in any locale.
        run(Command::new("tmux").arg("-u").args(["-L", &self.socket]).args(arguments))
    }

    /// Types a line and presses Enter.
    ///
    /// # Errors
    /// The terminal has ended.
    pub fn line(&self, text: &str) -> Result<()> {
        self.tmux(&["send-keys", "-l", text])?;
        self.key("Enter")
    }

    /// Runs `command` in the shell, with its words quoted.
    ///
    /// # Errors
    /// As [`Terminal::line`].
    pub fn start(&self, command: &Command) -> Result<()> {
        let words = [command.get_program()].into_iter().chain(command.get_args());
        self.line(&words.map(quoted).collect::<Vec<_>>().join(" "))
    }

    /// Presses a key by tmux's name for it: `q`, `Tab`, `Enter`, `C-c`.
    ///
    /// # Errors
    /// The terminal has ended.
    pub fn key(&self, name: &str) -> Result<()> {
        self.tmux(&["send-keys", name]).map(drop)
    }

    /// Resizes the terminal.
    ///
    /// # Errors
    /// The terminal has ended.
    pub fn resize(&self, columns: u16, rows: u16) -> Result<()> {
        let (columns, rows) = (columns.to_string(), rows.to_string());
        self.tmux(&["resize-window", "-x", &columns, "-y", &rows]).map(drop)
    }

    /// The text on the screen, line by line.
    ///
    /// # Errors
    /// The terminal has ended.
    pub fn screen(&self) -> Result<String> {
        self.tmux(&["capture-pane", "-p"])
    }

    /// The screen with escape sequences for colours, and with trailing blanks.
    ///
    /// # Errors
    /// The terminal has ended.
    pub fn coloured_screen(&self) -> Result<String> {
        self.tmux(&["capture-pane", "-p", "-e", "-N"])
    }

    /// What a program has put into the terminal's clipboard last.
    ///
    /// # Errors
    /// It is empty.
    pub fn clipboard(&self) -> Result<String> {
        self.tmux(&["show-buffer"])
    }

    /// Whether the alternate screen is shown.
    ///
    /// # Errors
    /// The terminal has ended.
    pub fn is_alternate(&self) -> Result<bool> {
        Ok(self.tmux(&["display-message", "-p", "#{alternate_on}"])?.trim() == "1")
    }

    /// Waits until the screen satisfies `wanted`, and returns it.
    ///
    /// # Errors
    /// The screen does not satisfy `wanted` within `limit`; the error has the screen.
    pub fn await_screen(&self, limit: Duration, wanted: impl Fn(&str) -> bool) -> Result<String> {
        let deadline = Instant::now() + limit;
        loop {
            let screen = self.screen()?;
            if wanted(&screen) {
                return Ok(screen);
            }
            if Instant::now() >= deadline {
                bail!("the screen does not show what was expected:\n{screen}");
            }
            thread::sleep(LOOK_EVERY);
        }
    }

    /// The process in the foreground: the latest of the shell's children.
    ///
    /// # Errors
    /// The shell has no child.
    pub fn foreground(&self) -> Result<u32> {
        let shell = self.tmux(&["display-message", "-p", "#{pane_pid}"])?;
        let shell = shell.trim();
        let children = std::fs::read_to_string(format!("/proc/{shell}/task/{shell}/children"))?;
        children.split_whitespace().last().context("the shell runs nothing")?.parse().context("a process id")
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // The server has already ended if its shell has.
        let _ = self.tmux(&["kill-server"]);
    }
}

/// Quotes a word for `sh`.
fn quoted(word: &OsStr) -> String {
    format!("'{}'", word.to_string_lossy().replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Terminal, quoted};
    use crate::skip_without_tool;

    #[test]
    fn words_are_quoted_for_the_shell() {
        assert_eq!(quoted("a b".as_ref()), "'a b'");
        assert_eq!(quoted("it's".as_ref()), "'it'\\''s'");
    }

    #[test]
    fn typed_lines_run_and_the_screen_shows_their_output() {
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
