//! Percentile curves in the terminal: latency on a log axis over the share of requests, where each nine is as wide
//! as the next.

use crate::histogram::CurvePoint;
use crate::human;
use crate::scale::{Axis, QUANTILES};
use crate::terminal::Terminal;

/// Most curves that can be told apart.
pub const CURVES_MAX: usize = 6;

const ROWS: usize = 14;
const COLUMNS_MAX: usize = 110;
const MARGIN: usize = 9;

/// Latencies named on the axis, about.
const TICKS: usize = 9;

const COLOURS: [u8; CURVES_MAX] = [36, 33, 35, 32, 34, 31];

/// A named curve.
#[derive(Clone, Debug)]
pub struct Curve<'a> {
    /// What the legend says.
    pub name: &'a str,
    /// Its points.
    pub points: &'a [CurvePoint],
}

/// Where latencies and quantiles lie on the axes. Shared with the page's curves.
#[derive(Clone, Copy, Debug)]
pub struct Axes {
    /// Shares of the requests, to the right.
    pub quantiles: Axis,
    /// Latencies in nanoseconds, upwards.
    pub latencies: Axis,
}

impl Axes {
    /// Axes that show all of the curves, or none if there is nothing to show.
    pub fn around(curves: &[Curve<'_>]) -> Option<Self> {
        let points = || curves.iter().flat_map(|curve| curve.points);
        let least = points().map(|p| p.ns.max(1)).min()? as f64;
        let most = points().map(|p| p.ns.max(1)).max()? as f64;
        let quantile = points().map(|p| p.quantile).fold(0.0, f64::max);
        Some(Self { quantiles: Axis::nines(quantile), latencies: Axis::log(least, most) })
    }

    /// From 0 (left) to 1.
    pub fn x(&self, quantile: f64) -> f64 {
        self.quantiles.share(quantile)
    }

    /// From 0 (bottom) to 1.
    pub fn y(&self, ns: f64) -> f64 {
        self.latencies.share(ns)
    }
}

/// A grid of cells, each of them `dots` wide and high.
struct Canvas {
    columns: usize,
    dots: (usize, usize),
    cells: Vec<Cell>,
}

#[derive(Clone, Copy, Default)]
struct Cell {
    bits: u8,
    /// One more than the curve drawn last; 0 if there is none.
    curve: usize,
    /// Shown as the curve's letter.
    named: bool,
}

impl Canvas {
    fn set(&mut self, x: usize, y: usize, curve: usize) {
        /// Bits of a braille cell's dots, by row and column. Source: the Unicode block U+2800.
        const BITS: [[u8; 2]; 4] = [[0x01, 0x08], [0x02, 0x10], [0x04, 0x20], [0x40, 0x80]];
        let (wide, high) = self.dots;
        let cell = &mut self.cells[y / high * self.columns + x / wide];
        cell.bits |= BITS[y % high][x % wide];
        cell.curve = curve + 1;
    }

    /// Puts the curve's letter on it here and there, where there are no colours to tell curves apart.
    fn name(&mut self, nth: usize) {
        const EVERY: usize = 12;
        for column in (EVERY / 2 + nth..self.columns).step_by(EVERY) {
            let here = (0..ROWS).map(|row| row * self.columns + column);
            if let Some(at) = here.into_iter().find(|&at| self.cells[at].curve == nth + 1) {
                self.cells[at].named = true;
            }
        }
    }

    fn draw(&mut self, axes: Axes, nth: usize, points: &[CurvePoint]) {
        let width = (self.columns * self.dots.0 - 1) as f64;
        let height = (ROWS * self.dots.1 - 1) as f64;
        let at = |point: &CurvePoint| {
            let y = axes.y(point.ns.max(1) as f64).clamp(0.0, 1.0);
            (axes.x(point.quantile).clamp(0.0, 1.0) * width, (1.0 - y) * height)
        };
        for pair in points.windows(2) {
            let ((x0, y0), (x1, y1)) = (at(&pair[0]), at(&pair[1]));
            let steps = (x1 - x0).abs().max((y1 - y0).abs()).ceil().max(1.0) as usize;
            for step in 0..=steps {
                let share = step as f64 / steps as f64;
                let (x, y) = (x0 + (x1 - x0) * share, y0 + (y1 - y0) * share);
                self.set(x.round() as usize, y.round() as usize, nth);
            }
        }
    }
}

/// The plot, or nothing if no curve has two points.
pub fn render(curves: &[Curve<'_>], terminal: Terminal) -> String {
    let drawn: Vec<_> = curves.iter().filter(|c| c.points.len() > 1).take(CURVES_MAX).collect();
    let Some(axes) = Axes::around(&drawn.iter().copied().cloned().collect::<Vec<_>>()) else {
        return String::new();
    };
    let columns = terminal.columns.min(COLUMNS_MAX).saturating_sub(MARGIN + 2).max(20);
    let dots = if terminal.unicode { (2, 4) } else { (1, 1) };
    let mut canvas = Canvas { columns, dots, cells: vec![Cell::default(); columns * ROWS] };
    for (nth, curve) in drawn.iter().enumerate() {
        canvas.draw(axes, nth, curve.points);
    }
    if !terminal.colour {
        (0..drawn.len()).for_each(|nth| canvas.name(nth));
    }
    let mut text = String::new();
    for row in 0..ROWS {
        text += &label(axes, row);
        text += if terminal.unicode { "│" } else { "|" };
        let cells = &canvas.cells[row * columns..(row + 1) * columns];
        text += cells.iter().map(|cell| show(*cell, terminal)).collect::<String>().trim_end();
        text.push('\n');
    }
    text += &axis(axes, columns, terminal.unicode);
    for (nth, curve) in drawn.iter().enumerate() {
        let mark = mark(nth, terminal);
        text += &[&" ".repeat(MARGIN + 1), mark.as_str(), " ", curve.name, "\n"].concat();
    }
    text
}

fn mark(nth: usize, terminal: Terminal) -> String {
    let letter = letter(nth);
    match (terminal.colour, terminal.unicode) {
        (true, true) => format!("\x1b[{}m⣿\x1b[0m", COLOURS[nth]),
        (true, false) => format!("\x1b[{}m{letter}\x1b[0m", COLOURS[nth]),
        (false, _) => letter.to_string(),
    }
}

fn letter(nth: usize) -> char {
    char::from(b'a' + nth as u8)
}

fn show(cell: Cell, terminal: Terminal) -> String {
    let Some(nth) = cell.curve.checked_sub(1) else { return " ".to_owned() };
    let shape = if terminal.unicode && !cell.named {
        char::from_u32(0x2800 + u32::from(cell.bits)).unwrap_or('*')
    } else {
        letter(nth)
    };
    if terminal.colour {
        format!("\x1b[{}m{shape}\x1b[0m", COLOURS[nth])
    } else {
        shape.to_string()
    }
}

fn label(axes: Axes, row: usize) -> String {
    let row_of = |ns: f64| ((1.0 - axes.y(ns)) * (ROWS - 1) as f64).round() as usize;
    let tick = axes.latencies.ticks(TICKS).into_iter().find(|&ns| row_of(ns) == row);
    let text = tick.map(|ns| human::tick(ns / 1000.0)).unwrap_or_default();
    format!("{text:>width$} ", width = MARGIN - 1)
}

fn axis(axes: Axes, columns: usize, unicode: bool) -> String {
    let (corner, dash) = if unicode { ("└", "─") } else { ("+", "-") };
    let mut text = format!("{}{corner}{}\n", " ".repeat(MARGIN), dash.repeat(columns));
    let mut line = " ".repeat(MARGIN + 1);
    for (quantile, name) in QUANTILES {
        let at = MARGIN + 1 + (axes.x(quantile) * (columns - 1) as f64).round() as usize;
        let fits = at + name.len() <= MARGIN + 2 + columns + 4;
        if axes.x(quantile) <= 1.0 && at >= line.len() && fits {
            line += &" ".repeat(at - line.len());
            line += name;
            line.push(' ');
        }
    }
    text += line.trim_end();
    text += "\n";
    text
}

#[cfg(test)]
#[path = "plot/tests.rs"]
mod tests;
