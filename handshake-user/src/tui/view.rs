//! Drawing: a function of the scene and the user's choices. Each screen is a list of lines for a width and a
//! height. It computes no figures, reads no clock and changes nothing.
//!
//! ```text
//! handshake · eth0 ingress tcx, egress tcx · port 443         12:03:41 · 20 s · EXACT
//! 1 Overview  2 Attempts  3 Services  4 Health            filter port:443      FROZEN
//! the banner during a half-open surge
//! the screen, or an attempt's ladder
//! keys, or the filter that is being typed, or the message of the latest action
//! ```

pub(crate) mod attempts;
mod chrome;
mod clients;
mod copy;
pub(crate) mod health;
mod help;
mod ladder;
mod layout;
mod overview;
pub(crate) mod services;
mod table;
#[cfg(test)]
mod tests;

pub(crate) use copy::copied;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::Line;

use super::scene::Scene;
use super::screen::Screen;
use super::state::Ui;
use layout::Pen;

/// The smallest terminal: columns and rows.
const LEAST: (u16, u16) = (60, 15);
/// Least number of rows below header and banner for a blank row between them.
const ROOMY: u16 = 22;

/// Draws the whole frame.
pub(crate) fn draw(buffer: &mut Buffer, scene: &Scene, ui: &Ui) {
    let area = *buffer.area();
    if area.width < LEAST.0 || area.height < LEAST.1 {
        let text = format!("{}x{} is too small: {}x{} needed", area.width, area.height, LEAST.0, LEAST.1);
        buffer.set_stringn(0, 0, text, usize::from(area.width), ratatui::style::Style::new());
        return;
    }
    let width = usize::from(area.width);
    let mut top = vec![chrome::header(scene, ui, width), chrome::tabs(scene, ui, width)];
    top.extend(chrome::banner(scene, ui, width));
    if area.height >= ROOMY + u16::try_from(top.len()).unwrap_or(u16::MAX) {
        top.push(Line::default());
    }
    let height = usize::from(area.height).saturating_sub(top.len() + 1);
    put(buffer, 0, &top);
    put(buffer, top.len(), &body(scene, ui, width, height));
    put(buffer, usize::from(area.height) - 1, &[chrome::status(scene, ui, width)]);
    if ui.help {
        help::draw(buffer, Pen(ui.theme));
    }
    ui.theme.finish(buffer);
}

/// Number of lines of the screen Health, for scrolling.
pub(crate) fn health_lines(scene: &Scene, ui: &Ui) -> usize {
    health::lines(scene, ui).len()
}

fn body(scene: &Scene, ui: &Ui, width: usize, height: usize) -> Vec<Line<'static>> {
    if let Some(attempt) = &ui.opened {
        return ladder::lines(attempt, scene, ui, width, height);
    }
    let mut lines = match ui.screen {
        Screen::Overview => overview::lines(scene, ui, width, height),
        Screen::Attempts if ui.clients => clients::lines(scene, ui, width, height),
        Screen::Attempts => attempts::lines(scene, ui, width, height),
        Screen::Services => services::lines(scene, ui, width, height),
        Screen::Health => health::page(scene, ui, height),
    };
    lines.truncate(height);
    lines
}

fn put(buffer: &mut Buffer, row: usize, lines: &[Line<'static>]) {
    let Rect { width, height, .. } = *buffer.area();
    for (y, line) in (u16::try_from(row).unwrap_or(u16::MAX)..height).zip(lines) {
        buffer.set_line(0, y, line, width);
    }
}
