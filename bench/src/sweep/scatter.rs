//! Throughput against p99.9 in the terminal: each cell is its number, those on the front are marked.

use super::judge::Group;
use crate::human;
use crate::scale::Axis;
use crate::terminal::Terminal;

const ROWS: usize = 16;
const COLUMNS_MAX: usize = 100;
const MARGIN: usize = 9;

/// Rates named on the axis, about.
const RATES: usize = 6;

/// Latencies named on the axis, about.
const LATENCIES: usize = 8;

/// How far a number may stand from its place, in rows, where another one has that.
const ASIDE: usize = 2;

/// Marks a cell of the front.
const FRONT: char = '*';

/// A plot of groups to which the same comes; nothing with fewer than two cells.
pub(super) fn render(groups: &[&Group<'_>], terminal: Terminal) -> String {
    let points: Vec<_> = groups.iter().flat_map(|group| &group.points).collect();
    let drawn: Vec<_> =
        points.iter().filter(|p| p.records_per_s > 0.0 && p.p999_us > 0.0).copied().collect();
    if drawn.len() < 2 {
        return String::new();
    }
    let around = |of: fn(&super::judge::Point<'_>) -> f64| {
        let least = drawn.iter().map(|p| of(p)).fold(f64::INFINITY, f64::min);
        let most = drawn.iter().map(|p| of(p)).fold(0.0, f64::max);
        Axis::log(least, most)
    };
    let (rates, latencies) = (around(|p| p.records_per_s), around(|p| p.p999_us));
    let columns = terminal.columns.min(COLUMNS_MAX).saturating_sub(MARGIN + 2).max(30);
    let mut field = Field { cells: vec![vec![' '; columns]; ROWS], hidden: 0 };
    // The front first: it is what is looked for.
    let mut ordered = drawn;
    ordered.sort_by_key(|point| (!point.is_front, point.cell.number));
    for point in ordered {
        let mark = if point.is_front { FRONT.to_string() } else { String::new() };
        let label = format!("{}{mark}", point.cell.number);
        let x = (latencies.share(point.p999_us) * (columns - label.len()) as f64).round() as usize;
        let y = ((1.0 - rates.share(point.records_per_s)) * (ROWS - 1) as f64).round() as usize;
        field.put(&label, x, y);
    }
    let mut text = String::from("records/s\n");
    for (row, cells) in field.cells.iter().enumerate() {
        text += &label(rates, row);
        text += if terminal.unicode { "│" } else { "|" };
        text += cells.iter().collect::<String>().trim_end();
        text.push('\n');
    }
    text += &axis(latencies, columns, terminal.unicode);
    if field.hidden > 0 {
        let line = format!("{:MARGIN$} {} more are behind these\n", "", field.hidden);
        text += &line;
    }
    text
}

struct Field {
    cells: Vec<Vec<char>>,
    /// Numbers that found no room.
    hidden: usize,
}

impl Field {
    fn put(&mut self, label: &str, x: usize, y: usize) {
        let rows = (0..=ASIDE).flat_map(|off| [y.saturating_sub(off), (y + off).min(ROWS - 1)]);
        let free = |row: &usize| {
            let before = x.saturating_sub(1);
            self.cells[*row][before..(x + label.len() + 1).min(self.cells[*row].len())]
                .iter()
                .all(|cell| *cell == ' ')
        };
        let Some(row) = rows.into_iter().find(free) else {
            self.hidden += 1;
            return;
        };
        for (at, letter) in label.chars().enumerate() {
            self.cells[row][x + at] = letter;
        }
    }
}

fn label(rates: Axis, row: usize) -> String {
    let row_of = |rate: f64| ((1.0 - rates.share(rate)) * (ROWS - 1) as f64).round() as usize;
    let tick = rates.ticks(RATES).into_iter().find(|&rate| row_of(rate) == row);
    let text = tick.map(human::tick_count).unwrap_or_default();
    format!("{text:>width$} ", width = MARGIN - 1)
}

fn axis(latencies: Axis, columns: usize, unicode: bool) -> String {
    let (corner, dash) = if unicode { ("└", "─") } else { ("+", "-") };
    let mut text = format!("{:MARGIN$}{corner}{}\n", "", dash.repeat(columns));
    let mut line = " ".repeat(MARGIN + 1);
    for us in latencies.ticks(LATENCIES) {
        let at = MARGIN + 1 + (latencies.share(us) * (columns - 1) as f64).round() as usize;
        let name = human::tick(us);
        if at >= line.len() && at + name.len() <= MARGIN + 1 + columns {
            line += &" ".repeat(at - line.len());
            line += &name;
            line.push(' ');
        }
    }
    text += line.trim_end();
    let line =
        format!("\n{:MARGIN$} p99.9; {FRONT} nothing with its kind of ack beats it in both\n", "");
    text += &line;
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sweep::judge::groups;
    use crate::sweep::judge::tests::measured;

    #[test]
    fn faster_is_higher_and_slower_acks_are_further_right() {
        let cells = [
            measured(1, &[("codec", "none")], (100_000.0, 9000.0)),
            measured(2, &[("codec", "lz4")], (900_000.0, 400.0)),
            measured(3, &[("codec", "zstd")], (1000.0, 20_000.0)),
        ];
        let groups = groups(cells.iter().map(|(cell, document)| (cell, document)));
        let terminal = Terminal { columns: 80, unicode: false, colour: false };
        let text = render(&groups.iter().collect::<Vec<_>>(), terminal);
        let at = |label: &str| {
            let row = text.lines().position(|line| {
                line.split_once('|')
                    .is_some_and(|(_, plot)| plot.split(' ').any(|word| word == label))
            });
            let row = row.unwrap_or_else(|| panic!("{label} in\n{text}"));
            (row, text.lines().nth(row).and_then(|line| line.rfind(label)))
        };
        let (first, second, third) = (at("1"), at("2*"), at("3"));
        assert!(second.0 < first.0 && first.0 < third.0, "{text}");
        assert!(second.1 < first.1 && first.1 < third.1, "{text}");
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        assert!(text.contains("10 ms") && text.contains("100k"), "{text}");
    }

    #[test]
    fn numbers_that_find_no_room_are_counted() {
        let cells: Vec<_> =
            (1..=9).map(|number| measured(number, &[("codec", "none")], (1000.0, 500.0))).collect();
        let groups = groups(cells.iter().map(|(cell, document)| (cell, document)));
        let terminal = Terminal { columns: 80, unicode: false, colour: false };
        let text = render(&groups.iter().collect::<Vec<_>>(), terminal);
        assert!(text.contains("more are behind these"), "{text}");
    }
}
