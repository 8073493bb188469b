//! Draws a terminal's screen, as tmux prints it with escape sequences, as an SVG. Every cell has a fixed
//! place whatever the font, and the background is part of the picture, so that it is readable on light and on
//! dark pages.

use std::fmt::Write;

/// Width and height of a cell, in pixels.
const CELL: (f32, f32) = (8.4, 18.0);
/// The margin around the screen, in pixels.
const MARGIN: f32 = 14.0;
/// The distance from a cell's top to its text's base line, in pixels.
const BASE: f32 = 13.5;
const FONT: &str =
    "ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono','Liberation Mono',monospace";
const BACKGROUND: &str = "#16181d";
const FOREGROUND: &str = "#d5d8de";
/// The first eight of the sixteen terminal colours, by number.
const COLOURS: [&str; 8] =
    ["#5c6370", "#ff6c6b", "#7bc275", "#e5c07b", "#6cb6ff", "#d08fe0", "#56b6c2", "#d5d8de"];

/// The style of a cell, as SGR sets it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct CellStyle {
    colour: Option<usize>,
    bold: bool,
    dim: bool,
    reversed: bool,
}

/// A character and its style.
type SvgCell = (char, CellStyle);

/// Draws a screen of the given columns and rows.
pub(super) fn draw(screen: &str, (columns, rows): (u16, u16)) -> String {
    let (width, height) =
        (f32::from(columns) * CELL.0 + 2.0 * MARGIN, f32::from(rows) * CELL.1 + 2.0 * MARGIN);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\" \
         font-family=\"{FONT}\" font-size=\"14\">\n\
         <rect width=\"100%\" height=\"100%\" rx=\"8\" fill=\"{BACKGROUND}\"/>\n"
    );
    let mut style = CellStyle::default();
    for (row, line) in screen.lines().take(usize::from(rows)).enumerate() {
        let cells = cells(line, &mut style);
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

/// The characters of a line with their styles. A style lasts over the end of the line.
fn cells(line: &str, style: &mut CellStyle) -> Vec<SvgCell> {
    let mut cells = Vec::new();
    let mut rest = line;
    while let Some(character) = rest.chars().next() {
        if let Some((codes, behind)) = rest.strip_prefix("\x1b[").and_then(|rest| rest.split_once('m')) {
            set(style, codes);
            rest = behind;
        } else {
            cells.push((character, *style));
            rest = &rest[character.len_utf8()..];
        }
    }
    cells
}

/// Applies an SGR sequence (ECMA-48 §8.3.117) to the style: `1;31`, `38;5;1`. Unknown codes change nothing.
fn set(style: &mut CellStyle, codes: &str) {
    let mut numbers = codes.split(';').map(|code| code.parse::<usize>().unwrap_or(0));
    while let Some(number) = numbers.next() {
        match number {
            0 => *style = CellStyle::default(),
            1 => style.bold = true,
            2 => style.dim = true,
            7 => style.reversed = true,
            22 => (style.bold, style.dim) = (false, false),
            27 => style.reversed = false,
            39 => style.colour = None,
            30..=37 => style.colour = Some(number - 30),
            // `38;5;N` selects one of 256 colours; the first eight equal those above.
            38 => style.colour = numbers.nth(1).filter(|colour| *colour < COLOURS.len()),
            _ => {}
        }
    }
}

/// Splits the cells into runs that are drawn as one element, each with its first column.
fn runs(cells: &[SvgCell]) -> Vec<(usize, &[SvgCell])> {
    let mut begin = 0;
    let alike = |a: &SvgCell, b: &SvgCell| a.1 == b.1 && a.0.is_ascii() && b.0.is_ascii();
    cells
        .chunk_by(alike)
        .map(|run| {
            let column = begin;
            begin += run.len();
            (column, run)
        })
        .collect()
}

fn draw_run(svg: &mut String, left: f32, top: f32, run: &[SvgCell]) {
    let Some((first, style)) = run.first().copied() else { return };
    let ink = style.colour.map_or(FOREGROUND, |colour| COLOURS[colour]);
    let width = number(run.len()) * CELL.0;
    let text: String = run.iter().map(|(character, _)| *character).collect();
    // Writing to a String cannot fail.
    let _ = if style.reversed {
        writeln!(
            svg,
            "<rect x=\"{left:.1}\" y=\"{top:.1}\" width=\"{width:.1}\" height=\"{}\" fill=\"{ink}\"/>",
            CELL.1
        )
    } else {
        Ok(())
    };
    let ink = if style.reversed { BACKGROUND } else { ink };
    if let Some(shapes) = shapes(first, left, top) {
        let faint = if style.dim { " opacity=\"0.6\"" } else { "" };
        let _ = writeln!(svg, "<g fill=\"{ink}\"{faint}>{shapes}</g>");
        return;
    }
    if text.trim().is_empty() {
        return;
    }
    let weight = if style.bold { " font-weight=\"bold\"" } else { "" };
    let faint = if style.dim { " opacity=\"0.6\"" } else { "" };
    let _ = writeln!(
        svg,
        "<text x=\"{left:.1}\" y=\"{:.1}\" fill=\"{ink}\"{weight}{faint} textLength=\"{width:.1}\" \
         lengthAdjust=\"spacingAndGlyphs\" xml:space=\"preserve\">{}</text>",
        top + BASE,
        escaped(&text)
    );
}

/// The shapes of a character that touches its neighbours: drawn and not written, since fonts leave gaps
/// between them.
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
            // A little lower than the cell, so that the bars of two rows do not touch.
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
    use super::{CellStyle, cells, draw, runs};

    #[test]
    fn escape_sequences_set_the_style_of_the_cells_that_follow() {
        let mut style = CellStyle::default();
        let red = CellStyle { colour: Some(1), bold: true, ..CellStyle::default() };
        let line = cells("a\x1b[1;31mb\x1b[0mc\x1b[7m", &mut style);
        assert_eq!(line, [('a', CellStyle::default()), ('b', red), ('c', CellStyle::default())]);
        assert_eq!(
            style,
            CellStyle { reversed: true, ..CellStyle::default() },
            "a style lasts over the end of the line"
        );
        assert_eq!(cells("\x1b[2md\x1b[22m\x1b[27me", &mut style)[1], ('e', CellStyle::default()));
        assert_eq!(cells("\x1b[38;5;1;1mf", &mut style)[0], ('f', red));
    }

    #[test]
    fn characters_beyond_ascii_are_runs_of_their_own() {
        let line = cells("ab─c", &mut CellStyle::default());
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
