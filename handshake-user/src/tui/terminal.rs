//! The terminal: taken for drawing, and restored in every case, even after a panic.

use std::io::{self, Write};
use std::sync::{Mutex, MutexGuard, Once, PoisonError};
use std::thread;
use std::time::Duration;

use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::cursor::Show;
use ratatui::crossterm::event::{self, Event};
use ratatui::crossterm::execute;
use ratatui::crossterm::terminal::{
    Clear, ClearType, EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::scene::Scene;
use super::state::Ui;
use super::view::draw;
use crate::output::{Lane, Patience, Target};

/// The output of the terminal that this process has taken.
static OURS: Mutex<Option<Lane>> = Mutex::new(None);
/// Beginnings of the names of terminals without a clipboard.
const WITHOUT_CLIPBOARD: [&str; 2] = ["linux", "vt"];
/// How long the terminal may take to be restored.
const PATIENCE: Patience = Patience::Without(Duration::from_millis(250));

/// The alternate screen in raw mode, until it is dropped or the process panics.
pub(crate) struct Tty {
    lane: Lane,
    /// The terminal, as it was found.
    target: Target,
    terminal: Terminal<CrosstermBackend<Frames>>,
}

impl Tty {
    /// Takes the terminal, to which `lane` writes: raw mode and the alternate screen.
    ///
    /// # Errors
    ///
    /// Those of the terminal, which is then restored.
    pub(crate) fn enter(lane: &Lane) -> io::Result<Self> {
        restore_on_panic();
        let target = Target::stdout();
        *ours() = Some(lane.clone());
        let mut frames = Frames::of(lane);
        let entered = enable_raw_mode()
            .and_then(|()| execute!(frames, EnterAlternateScreen))
            .and_then(|()| Terminal::new(CrosstermBackend::new(Frames::of(lane))));
        match entered {
            Ok(terminal) => Ok(Self { lane: lane.clone(), target, terminal }),
            Err(error) => {
                restore();
                Err(error)
            }
        }
    }

    /// Draws the cells that changed since the last drawing. Returns false, and draws nothing, while the
    /// terminal has not taken the last drawing.
    ///
    /// # Errors
    ///
    /// Those of the terminal, but not that it has gone.
    pub(crate) fn draw(&mut self, scene: &Scene, ui: &Ui) -> io::Result<bool> {
        if !self.lane.is_idle() {
            return Ok(false);
        }
        let drawn = self.terminal.draw(|frame| draw(frame.buffer_mut(), scene, ui)).map(|_| true);
        self.unless_gone(drawn, false)
    }

    /// Clears the terminal, so that the next drawing draws every cell.
    ///
    /// # Errors
    ///
    /// Those of the terminal, but not that it has gone.
    pub(crate) fn forget(&mut self) -> io::Result<()> {
        // Not `Terminal::clear`, which asks the terminal for its cursor and waits for the answer.
        let mut frames = Frames::of(&self.lane);
        let cleared = execute!(frames, Clear(ClearType::All))
            .and_then(|()| Terminal::new(CrosstermBackend::new(Frames::of(&self.lane))));
        let cleared = cleared.map(|terminal| self.terminal = terminal);
        self.unless_gone(cleared, ())
    }

    /// Hands a text to the terminal's clipboard (OSC 52). Whether it takes it, the terminal does not say.
    /// Returns false where it is known to have none.
    pub(crate) fn copy(&self, text: &str) -> bool {
        let term = std::env::var("TERM").unwrap_or_default();
        let has_clipboard = !WITHOUT_CLIPBOARD.iter().any(|name| term.starts_with(name));
        if has_clipboard {
            self.lane.push(format!("\x1b]52;c;{}\x07", base64(text.as_bytes())).into_bytes());
        }
        has_clipboard
    }

    /// The number of rows.
    ///
    /// # Errors
    ///
    /// Those of the terminal, but not that it has gone.
    pub(crate) fn rows(&self) -> io::Result<u16> {
        self.unless_gone(self.terminal.size().map(|size| size.height), 0)
    }

    /// Whether a drawing found that the terminal has gone.
    ///
    /// # Errors
    ///
    /// Those of writing, but not that it has gone.
    pub(crate) fn has_gone(&self) -> io::Result<bool> {
        self.lane.is_closed()
    }

    /// An error of a terminal that has gone ends the output, and is none.
    fn unless_gone<T>(&self, done: io::Result<T>, otherwise: T) -> io::Result<T> {
        if done.is_err() && self.target.has_hung_up() {
            self.lane.close();
            return Ok(otherwise);
        }
        done
    }
}

impl Drop for Tty {
    fn drop(&mut self) {
        // It writes nothing more when it is dropped.
        let _ = self.terminal.show_cursor();
        restore();
    }
}

/// Hands each drawing to the lane as a whole.
struct Frames {
    lane: Lane,
    drawing: Vec<u8>,
}

impl Frames {
    fn of(lane: &Lane) -> Self {
        Self { lane: lane.clone(), drawing: Vec::new() }
    }
}

impl Write for Frames {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.drawing.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.lane.push(std::mem::take(&mut self.drawing));
        Ok(())
    }
}

fn ours() -> MutexGuard<'static, Option<Lane>> {
    OURS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Restores the terminal once. Errors are ignored, because they cannot be shown.
fn restore() {
    let Some(lane) = ours().take() else { return };
    let mut frames = Frames::of(&lane);
    let _ = execute!(frames, LeaveAlternateScreen, Show);
    // The line discipline must not echo into the alternate screen.
    let _ = lane.settle(PATIENCE);
    let _ = disable_raw_mode();
}

/// The bytes in the alphabet of RFC 4648 §4.
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let word =
            (0..3).fold(0_usize, |word, at| word << 8 | usize::from(chunk.get(at).copied().unwrap_or(0)));
        for at in 0..4 {
            let sextet = word >> (18 - 6 * at) & 0x3f;
            text.push(if at <= chunk.len() { char::from(ALPHABET[sextet]) } else { '=' });
        }
    }
    text
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

    use super::{Tty, base64};
    use crate::output::{Lane, Target};

    /// Set when this test runs itself on a terminal, to panic there.
    const ON_THE_TERMINAL: &str = "HANDSHAKE_TEST_ON_THE_TERMINAL";

    /// As `base64` of coreutils has them.
    #[test]
    fn bytes_become_base64() {
        let vectors =
            [("", ""), ("1", "MQ=="), ("12", "MTI="), ("1234", "MTIzNA=="), ("J+1 ✔", "SisxIOKclA==")];
        for (text, expected) in vectors {
            assert_eq!(base64(text.as_bytes()), expected);
        }
        assert_eq!(base64(&[0xff, 0xef, 0xbe]), "/+++");
    }

    /// The message appears on the normal screen, and the shell echoes input again.
    #[test]
    fn a_panic_restores_the_terminal() {
        if std::env::var_os(ON_THE_TERMINAL).is_some() {
            let lane = Lane::to(Target::stdout()).expect("a thread");
            let _tty = Tty::enter(&lane).expect("a terminal");
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
