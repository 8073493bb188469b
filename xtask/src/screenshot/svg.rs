//! A terminal's screen, as tmux tells it with escape sequences, as an SVG: every cell in its place whatever the font, on a
//! background of its own, so that it reads on light pages and on dark.

use std::fmt::Write;

/// A cell, in pixels.
const CELL: (f32, f32) = (8.4, 18.0);
/// Around the screen.
const MARGIN: f32 = 14.0;
/// From a cell's top to its text's base line.
const BASE: f32 = 13.5;
const FONT: &str =
    "ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono','Liberation Mono',monospace";
const BACKGROUND: &str = "#16181d";
const FOREGROUND: &str = "#d5d8de";
/// The sixteen colours' first eight, by their numbers.
const COLOURS: [&str; 8] =
    ["#5c6370", "#ff6c6b", "#7bc275", "#e5c07b", "#6cb6ff", "#d08fe0", "#56b6c2", "#d5d8de"];

/// How a cell looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Look {
    colour: Option<usize>,
    bold: bool,
    dim: bool,
    reversed: bool,
}

/// A character and its look.
type Cell = (char, Look);

/// Draws a screen of so many columns and rows.
pub(super) fn draw(screen: &str, (columns, rows): (u16, u16)) -> String {
    let (width, height) =
        (f32::from(columns) * CELL.0 + 2.0 * MARGIN, f32::from(rows) * CELL.1 + 2.0 * MARGIN);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\" \
         font-family=\"{FONT}\" font-size=\"14\">\n\
         <rect width=\"100%\" height=\"100%\" rx=\"8\" fill=\"{BACKGROUND}\"/>\n"
    );
    let mut look = Look::default();
    for (row, line) in screen.lines().take(usize::from(rows)).enumerate() {
        let cells = cells(line, &mut look);
        let top = MARGIN + number(row) * CELL.1;
        for (column, run) in runs(&cells) {
            draw_run(&mut svg, MARGIN + number(column) * CELL.0, top, run);
        }
    }
    svg.push_str("</svg>\n");
    svg
}

#[expect(clippy::cast_precision_loss, reason = "a screen has some hundred rows and columns")]
const fn number(count: usize) -> f32 {
    count as f32
}

/// The characters of a line; what sets the look goes on in the next line.
fn cells(line: &str, look: &mut Look) -> Vec<Cell> {
    let mut cells = Vec::new();
    let mut rest = line;
    while let Some(character) = rest.chars().next() {
        if let Some((codes, behind)) = rest.strip_prefix("\x1b[").and_then(|rest| rest.split_once('m')) {
            set(look, codes);
            rest = behind;
        } else {
            cells.push((character, *look));
            rest = &rest[character.len_utf8()..];
        }
    }
    cells
}

/// What SGR (ECMA-48 §8.3.117) sets: `1;31`, `38;5;1`. Others change nothing.
fn set(look: &mut Look, codes: &str) {
    let mut numbers = codes.split(';').map(|code| code.parse::<usize>().unwrap_or(0));
    while let Some(number) = numbers.next() {
        match number {
            0 => *look = Look::default(),
            1 => look.bold = true,
            2 => look.dim = true,
            7 => look.reversed = true,
            22 => (look.bold, look.dim) = (false, false),
            27 => look.reversed = false,
            39 => look.colour = None,
            30..=37 => look.colour = Some(number - 30),
            // Of 256 colours, by number: the first eight are the same.
            38 => look.colour = numbers.nth(1).filter(|colour| *colour < COLOURS.len()),
            _ => {}
        }
    }
}

/// Neighbours that are drawn alike, with the column they begin in.
fn runs(cells: &[Cell]) -> Vec<(usize, &[Cell])> {
    let mut begin = 0;
    let alike = |a: &Cell, b: &Cell| a.1 == b.1 && a.0.is_ascii() && b.0.is_ascii();
    cells
        .chunk_by(alike)
        .map(|run| {
            let column = begin;
            begin += run.len();
            (column, run)
        })
        .collect()
}

fn draw_run(svg: &mut String, left: f32, top: f32, run: &[Cell]) {
    let Some((first, look)) = run.first().copied() else { return };
    let ink = look.colour.map_or(FOREGROUND, |colour| COLOURS[colour]);
    let width = number(run.len()) * CELL.0;
    let text: String = run.iter().map(|(character, _)| *character).collect();
    // Writing to a String cannot fail.
    let _ = if look.reversed {
        writeln!(
            svg,
            "<rect x=\"{left:.1}\" y=\"{top:.1}\" width=\"{width:.1}\" height=\"{}\" fill=\"{ink}\"/>",
            CELL.1
        )
    } else {
        Ok(())
    };
    let ink = if look.reversed { BACKGROUND } else { ink };
    if let Some(shapes) = shapes(first, left, top) {
        let faint = if look.dim { " opacity=\"0.6\"" } else { "" };
        let _ = writeln!(svg, "<g fill=\"{ink}\"{faint}>{shapes}</g>");
        return;
    }
    if text.trim().is_empty() {
        return;
    }
    let weight = if look.bold { " font-weight=\"bold\"" } else { "" };
    let faint = if look.dim { " opacity=\"0.6\"" } else { "" };
    let _ = writeln!(
        svg,
        "<text x=\"{left:.1}\" y=\"{:.1}\" fill=\"{ink}\"{weight}{faint} textLength=\"{width:.1}\" \
         lengthAdjust=\"spacingAndGlyphs\" xml:space=\"preserve\">{}</text>",
        top + BASE,
        escaped(&text)
    );
}

/// Characters that meet their neighbours are drawn, not written: fonts leave gaps between them.
fn shapes(character: char, left: f32, top: f32) -> Option<String> {
    let (width, height) = CELL;
    let rect = |x: f32, y: f32, w: f32, h: f32| {
        format!("<rect x=\"{:.1}\" y=\"{:.1}\" width=\"{w:.1}\" height=\"{h:.1}\"/>", left + x, top + y)
    };
    let (middle, centre) = (height / 2.0 - 0.6, width / 2.0 - 0.6);
    let rail = rect(centre, 0.0, 1.2, height);
    Some(match character {
        '▁'..='█' => {
            let eighths = number((character as usize) - ('▁' as usize) + 1);
            // A little lower than the cell, so that two rows do not grow together.
            let tall = (height - 3.0) * eighths / 8.0;
            rect(0.0, height - tall, width - 0.8, tall)
        }
        '░' => rect(0.0, height / 2.0 - 1.0, width, 2.0),
        '─' => rect(0.0, middle, width, 1.2),
        '╌' => rect(width * 0.1, middle, width * 0.35, 1.2) + &rect(width * 0.6, middle, width * 0.35, 1.2),
        '│' => rail,
        '├' => rail + &rect(width / 2.0, middle, width / 2.0, 1.2),
        '┤' => rail + &rect(0.0, middle, width / 2.0, 1.2),
        '▶' | '◀' => {
            let (from, to) = if character == '▶' { (0.0, width) } else { (width, 0.0) };
            let (x, y) = (left + from, top + height / 2.0);
            let (head, up, down) = (left + to, y - 4.5, y + 4.5);
            format!("<path d=\"M{x:.1} {up:.1}L{head:.1} {y:.1}L{x:.1} {down:.1}Z\"/>")
        }
        _ => return None,
    })
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::{Look, cells, draw, runs};

    #[test]
    fn escape_sequences_set_the_look_of_what_follows() {
        let mut look = Look::default();
        let red = Look { colour: Some(1), bold: true, ..Look::default() };
        let line = cells("a\x1b[1;31mb\x1b[0mc\x1b[7m", &mut look);
        assert_eq!(line, [('a', Look::default()), ('b', red), ('c', Look::default())]);
        assert_eq!(look, Look { reversed: true, ..Look::default() }, "it lasts over the end of the line");
        assert_eq!(cells("\x1b[2md\x1b[22m\x1b[27me", &mut look)[1], ('e', Look::default()));
        assert_eq!(cells("\x1b[38;5;1;1mf", &mut look)[0], ('f', red));
    }

    #[test]
    fn what_is_not_ascii_stands_alone() {
        let line = cells("ab─c", &mut Look::default());
        let columns: Vec<(usize, usize)> = runs(&line).iter().map(|(at, run)| (*at, run.len())).collect();
        assert_eq!(columns, [(0, 2), (2, 1), (3, 1)]);
    }

    #[test]
    fn text_is_escaped_and_blocks_are_drawn() {
        let svg = draw("<&>\n\x1b[32m█", (3, 2));
        assert!(svg.contains("&lt;&amp;&gt;</text>") && !svg.contains('█'), "{svg}");
        assert!(svg.contains("<g fill=\"#7bc275\"><rect"), "{svg}");
        assert_eq!(svg.matches("<svg").count(), svg.matches("</svg>").count());
    }
}
