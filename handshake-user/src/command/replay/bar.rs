//! How far a replay has come, on a terminal.

use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

use handshake_capture::{Captures, Progress};

use crate::cli::ReplayArgs;
use crate::console;
use crate::number::{percent, short, size, span};

/// The time between two drawings.
const EACH: Duration = Duration::from_millis(200);
/// Packets between two looks at the clock: well under a millisecond of work.
const PACKETS: u32 = 1024;

/// A line on stderr that is drawn anew while packets are read, and goes at the end.
pub(super) struct Bar {
    line: Option<console::Progress>,
    begun: Instant,
    drawn: Instant,
    /// Packets until the next look at the clock.
    left: u32,
}

impl Bar {
    /// Begins to draw. Nothing is drawn where stderr is no terminal, or where lines of the report would come
    /// between.
    pub(super) fn start(args: &ReplayArgs) -> Self {
        let has_lines = args.output.events.0.is_any() || args.interval.is_some();
        let line = console::Progress::on_terminal("reading");
        let is_shown = line.is_shown() && !(has_lines && std::io::stdout().is_terminal());
        let now = Instant::now();
        Self { line: is_shown.then_some(line), begun: now, drawn: now, left: PACKETS }
    }

    /// Draws the line if its time has come; to be called for each packet.
    pub(super) fn show(&mut self, captures: &Captures) {
        let Some(line) = &mut self.line else { return };
        self.left -= 1;
        if self.left == 0 {
            self.left = PACKETS;
            if self.drawn.elapsed() >= EACH {
                self.drawn = Instant::now();
                line.tell(&words(captures.progress(), self.begun.elapsed()));
            }
        }
    }
}

/// Bytes, packets, share and the time that is left, as far as they are known.
fn words(progress: Progress, elapsed: Duration) -> String {
    let Progress { bytes, of, packets } = progress;
    let packets = short(packets);
    let Some(of) = of.filter(|of| *of != 0) else { return format!("{}, {packets} packets", size(bytes)) };
    let bytes = bytes.min(of);
    let (read, all, share) = (size(bytes), size(of), percent(bytes, of));
    let left = (elapsed.as_nanos() * u128::from(of - bytes)).checked_div(u128::from(bytes));
    // Whole seconds: the rest is a guess.
    let seconds = left.map(|ns| u64::try_from(ns / 1_000_000_000).unwrap_or(u64::MAX / 1_000_000_000));
    let left =
        seconds.map_or_else(String::new, |s| format!(", {} left", span(s.saturating_mul(1_000_000_000))));
    format!("{share} of {all}: {read}, {packets} packets{left}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_has_bytes_packets_share_and_time() {
        let progress = |bytes, of| Progress { bytes, of, packets: 2_300_000 };
        let said = |bytes, of| words(progress(bytes, of), Duration::from_secs(10));
        assert_eq!(said(1 << 29, Some(1 << 30)), "50.0 % of 1.0 GiB: 512 MiB, 2.3 M packets, 10 s left");
        assert_eq!(said(0, Some(4096)), "0.0 % of 4 KiB: 0 B, 2.3 M packets");
        assert_eq!(said(5_000, Some(4096)), "100.0 % of 4 KiB: 4 KiB, 2.3 M packets, 0 s left");
        assert_eq!(said(1_500, None), "1 KiB, 2.3 M packets");
    }
}
