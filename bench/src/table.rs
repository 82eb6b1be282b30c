//! The rows as an aligned table for the terminal.

use crate::human;
use crate::outcome::Outcome;

const GAP: &str = "  ";

struct Column {
    head: &'static str,
    cell: fn(&Outcome) -> String,
    /// Left out first where the terminal is narrow; 0 stays.
    luxury: u8,
}

const COLUMNS: [Column; 8] = [
    Column { head: "row", cell: |o| o.entry.name.to_owned(), luxury: 0 },
    Column { head: "rec/s", cell: |o| human::count(o.entry.records_per_s), luxury: 0 },
    Column { head: "MiB/s", cell: |o| human::digits(o.entry.mib_per_s), luxury: 1 },
    Column {
        head: "% of device",
        cell: |o| o.entry.percent_of_device.map_or("-".to_owned(), human::percent),
        luxury: 0,
    },
    Column { head: "p50", cell: |o| human::micros(o.entry.latency_us.p50), luxury: 0 },
    Column { head: "p99", cell: |o| spread(o, o.entry.latency_us.p99), luxury: 0 },
    Column { head: "p99.9", cell: |o| spread(o, o.entry.latency_us.p999), luxury: 2 },
    Column { head: "max", cell: |o| spread(o, o.entry.latency_us.max), luxury: 3 },
];

/// A latency beside the median; one request alone has none.
fn spread(outcome: &Outcome, us: f64) -> String {
    if outcome.entry.count == 1 { "-".to_owned() } else { human::micros(us) }
}

/// Lines of at most `columns` characters, as far as leaving columns out makes that possible.
pub fn render(rows: &[Outcome], columns: usize) -> String {
    let mut luxury_max = 3;
    loop {
        let shown: Vec<&Column> = COLUMNS.iter().filter(|c| c.luxury <= luxury_max).collect();
        let text = aligned(rows, &shown);
        let width = text.lines().map(|line| line.chars().count()).max().unwrap_or(0);
        if width <= columns || luxury_max == 0 {
            return text;
        }
        luxury_max -= 1;
    }
}

fn aligned(rows: &[Outcome], columns: &[&Column]) -> String {
    let mut lines = vec![columns.iter().map(|column| column.head.to_owned()).collect::<Vec<_>>()];
    lines.extend(rows.iter().map(|row| columns.iter().map(|c| (c.cell)(row)).collect()));
    let widths: Vec<usize> = (0..columns.len())
        .map(|nth| lines.iter().map(|line| line[nth].chars().count()).max().unwrap_or(0))
        .collect();
    let mut text = String::new();
    for (nth, line) in lines.iter().enumerate() {
        let cells = line.iter().zip(&widths).enumerate().map(|(column, (cell, &width))| {
            if column == 0 { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
        });
        text += cells.collect::<Vec<_>>().join(GAP).trim_end();
        text.push('\n');
        if nth == 0 {
            let total = widths.iter().sum::<usize>() + GAP.len() * (widths.len() - 1);
            text += &"-".repeat(total);
            text.push('\n');
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::{Entry, Latency};
    use crate::outcome::Kind;

    fn row(name: &'static str, records_per_s: f64) -> Outcome {
        let latency_us = Latency { p50: 381.0, p99: 649.0, p999: 1249.0, max: 9000.0 };
        let entry = Entry {
            name,
            records_per_s,
            latency_us,
            percent_of_device: Some(97.0),
            ..Entry::default()
        };
        Outcome { kind: Kind::Floor, entry, curve: Vec::new(), plotted: false }
    }

    #[test]
    fn numbers_stand_under_each_other() {
        let text = render(&[row("a", 673_800.0), row("a_longer_name", 7.0)], 200);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 4);
        let end = |line: &str, cell: &str| line.find(cell).expect("there") + cell.len();
        assert_eq!(end(lines[2], "674k"), end(lines[0], "rec/s"));
        assert_eq!(end(lines[2], "674k"), end(lines[3], " 7"));
    }

    #[test]
    fn a_narrow_terminal_gets_fewer_columns_but_the_name_and_the_ratio() {
        let text = render(&[row("append_group_one_record_c1024", 7.0)], 72);
        assert!(text.lines().all(|line| line.len() <= 72), "{text}");
        assert!(text.contains("% of device") && !text.contains("max"));
    }
}
