//! The terminal: taken for drawing, and restored in every case, even after a panic.

use std::io::{self, Stdout, Write as _, stdout};
use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::cursor::Show;
use ratatui::crossterm::event::{self, Event};
use ratatui::crossterm::execute;
use ratatui::crossterm::terminal::{
    EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::scene::Scene;
use super::state::Ui;
use super::view::draw;

/// Whether this process has taken its terminal.
static OURS: AtomicBool = AtomicBool::new(false);

/// The alternate screen in raw mode, until it is dropped or the process panics.
pub(crate) struct Tty {
    terminal: Terminal<CrosstermBackend<Stdout>>,
}

impl Tty {
    /// Takes the terminal: raw mode and the alternate screen.
    ///
    /// # Errors
    ///
    /// Those of the terminal, which is then restored.
    pub(crate) fn enter() -> io::Result<Self> {
        restore_on_panic();
        OURS.store(true, Ordering::SeqCst);
        let entered = enable_raw_mode()
            .and_then(|()| execute!(stdout(), EnterAlternateScreen))
            .and_then(|()| Terminal::new(CrosstermBackend::new(stdout())));
        match entered {
            Ok(terminal) => Ok(Self { terminal }),
            Err(error) => {
                restore();
                Err(error)
            }
        }
    }

    /// Draws the cells that changed since the last drawing.
    ///
    /// # Errors
    ///
    /// Those of the terminal.
    pub(crate) fn draw(&mut self, scene: &Scene, ui: &Ui) -> io::Result<()> {
        self.terminal.draw(|frame| draw(frame.buffer_mut(), scene, ui)).map(drop)
    }

    /// Clears the terminal, so that the next drawing draws every cell.
    ///
    /// # Errors
    ///
    /// Those of the terminal.
    pub(crate) fn forget(&mut self) -> io::Result<()> {
        self.terminal.clear()
    }

    /// The number of rows.
    ///
    /// # Errors
    ///
    /// Those of the terminal.
    pub(crate) fn rows(&self) -> io::Result<u16> {
        Ok(self.terminal.size()?.height)
    }
}

impl Drop for Tty {
    fn drop(&mut self) {
        restore();
    }
}

/// Restores the terminal once. Errors are ignored, because they cannot be shown.
fn restore() {
    if OURS.swap(false, Ordering::SeqCst) {
        let _ = execute!(stdout(), LeaveAlternateScreen, Show);
        let _ = disable_raw_mode();
        let _ = stdout().flush();
    }
}

/// Restores the terminal before a panic's message is printed.
fn restore_on_panic() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            restore();
            before(panic);
        }));
    });
}

/// A channel of keys and sizes. It closes when the terminal is closed. The thread that reads them ends with
/// the process, because nothing can wake it.
pub(crate) fn events() -> UnboundedReceiver<Event> {
    let (sender, events) = unbounded_channel();
    thread::spawn(move || {
        while let Ok(event) = event::read() {
            if sender.send(event).is_err() {
                break;
            }
        }
    });
    events
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use handshake_lab::skip_without_tool;
    use handshake_lab::terminal::Terminal;

    use super::Tty;

    /// Set when this test runs itself on a terminal, to panic there.
    const ON_THE_TERMINAL: &str = "HANDSHAKE_TEST_ON_THE_TERMINAL";

    /// The message appears on the normal screen, and the shell echoes input again.
    #[test]
    fn a_panic_restores_the_terminal() {
        if std::env::var_os(ON_THE_TERMINAL).is_some() {
            let _tty = Tty::enter().expect("a terminal");
            panic!("on purpose");
        }
        if skip_without_tool("tmux") {
            return;
        }
        let terminal = Terminal::new(100, 30).expect("tmux");
        let ourselves = std::env::current_exe().expect("this test's program");
        let test = "tui::terminal::tests::a_panic_restores_the_terminal";
        let run = format!("{} --nocapture --exact {test}", ourselves.display());
        terminal.line(&format!("{ON_THE_TERMINAL}=1 {run}; stty -a; echo done")).expect("a shell");
        let wanted = |screen: &str| screen.lines().any(|line| line == "done");
        let screen = terminal.await_screen(Duration::from_secs(30), wanted).expect("it ends");
        assert!(screen.contains("on purpose"), "{screen}");
        assert!(screen.contains(" icanon") && screen.contains(" echo "), "{screen}");
        assert!(!terminal.is_alternate().expect("a pane"));
    }
}
