//! What the key `y` copies: the ladder that is open, or the report, as plain text for a message to others.

use super::ladder;
use crate::report::text::{self, Style};
use crate::tui::scene::Scene;
use crate::tui::state::Ui;

/// Columns of the text.
const WIDTH: usize = 100;
/// Lines of a ladder with room for everything.
const HEIGHT: usize = 80;
/// Services that the report names.
const SERVICES: usize = 10;

/// The text, which ends with a newline.
pub(crate) fn copied(scene: &Scene, ui: &Ui) -> String {
    let style = Style::plain(WIDTH).within(scene.zone).naming(ui.names(scene));
    let Some(attempt) = &ui.opened else {
        return text::draw(&scene.snapshot.with_top(SERVICES), None, style);
    };
    let head = text::draw_head(&scene.snapshot, None, style);
    let drawn = ladder::lines(attempt, scene, ui, WIDTH, HEIGHT);
    let lines = drawn.iter().map(|line| format!("{}\n", line.to_string().trim_end()));
    head + "\n" + &lines.collect::<String>()
}
