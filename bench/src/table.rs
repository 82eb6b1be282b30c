//! The rows as an aligned table for the terminal.

use crate::human;
use crate::outcome::Outcome;
use crate::plan::{CHAPTERS, chapter};

const GAP: &str = "  ";

struct Column {
    head: &'static str,
    cell: fn(&Outcome) -> String,
    /// Left out first where the terminal is narrow; 0 stays.
    luxury: u8,
}

/// What a cell says when there is nothing to say.
const NOTHING: &str = "-";

const COLUMNS: [Column; 9] = [
    Column { head: "row", cell: |o| o.entry.name.to_owned(), luxury: 0 },
    Column { head: "rec/s", cell: |o| human::count(o.entry.records_per_s), luxury: 0 },
    Column { head: "MiB/s", cell: |o| human::digits(o.entry.mib_per_s), luxury: 2 },
    Column {
        head: "% of device",
        cell: |o| o.entry.percent_of_device.map_or(NOTHING.to_owned(), human::percent),
        luxury: 0,
    },
    Column { head: "x floor", cell: of_floor, luxury: 3 },
    Column { head: "p50", cell: |o| human::micros(o.entry.latency_us.p50), luxury: 0 },
    Column { head: "p99", cell: |o| spread(o, o.entry.latency_us.p99), luxury: 0 },
    Column { head: "p99.9", cell: |o| spread(o, o.entry.latency_us.p999), luxury: 1 },
    Column { head: "max", cell: |o| spread(o, o.entry.latency_us.max), luxury: 4 },
];

fn of_floor(outcome: &Outcome) -> String {
    let entry = &outcome.entry;
    let ratio = entry.floor_records_per_s.filter(|floor| *floor > 0.0);
    ratio.map_or(NOTHING.to_owned(), |floor| human::digits(entry.records_per_s / floor))
}

/// A latency beside the median; one request alone has none.
fn spread(outcome: &Outcome, us: f64) -> String {
    if outcome.entry.count == 1 { NOTHING.to_owned() } else { human::micros(us) }
}

/// Lines of at most `columns` characters, as far as leaving columns out makes that possible.
pub fn render(rows: &[Outcome], columns: usize) -> String {
    let filled = |c: &&Column| c.luxury == 0 || rows.iter().any(|row| (c.cell)(row) != NOTHING);
    let mut luxury_max = 4;
    loop {
        let shown = COLUMNS.iter().filter(|c| c.luxury <= luxury_max).filter(filled);
        let shown: Vec<&Column> = shown.collect();
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
    // Without the space before its unit a cell of a table is as easy to read, and narrower.
    let cell = |column: &Column, row: &Outcome| (column.cell)(row).replace(' ', "");
    lines.extend(rows.iter().map(|row| columns.iter().map(|c| cell(c, row)).collect()));
    let widths: Vec<usize> = (0..columns.len())
        .map(|nth| lines.iter().map(|line| line[nth].chars().count()).max().unwrap_or(0))
        .collect();
    let total = widths.iter().sum::<usize>() + GAP.len() * (widths.len() - 1);
    let mut text = String::new();
    let mut under = None;
    for (nth, line) in lines.iter().enumerate() {
        let chapter = nth.checked_sub(1).map(|nth| chapter(rows[nth].entry.name));
        if let Some(chapter) = chapter.filter(|_| chapter != under) {
            text += &["\n", CHAPTERS[chapter].1, "\n"].concat();
        }
        under = chapter;
        let cells = line.iter().zip(&widths).enumerate().map(|(column, (cell, &width))| {
            if column == 0 { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
        });
        text += cells.collect::<Vec<_>>().join(GAP).trim_end();
        text.push('\n');
        if nth == 0 {
            text += &"-".repeat(total);
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
        assert_eq!(lines.len(), 5, "a head, a rule, a heading, two rows: {text}");
        let end = |line: &str, cell: &str| line.find(cell).expect("there") + cell.len();
        assert_eq!(end(lines[3], "674k"), end(lines[0], "rec/s"));
        assert_eq!(end(lines[3], "674k"), end(lines[4], " 7"));
    }

    #[test]
    fn eighty_columns_hold_the_ratio_and_the_percentiles() {
        let text = render(&[row("append_group_partitions_1000_direct", 1_200_000.0)], 80);
        assert!(text.lines().all(|line| line.len() <= 80), "{text}");
        assert!(
            ["% of device", "p50", "p99", "p99.9"].iter().all(|head| text.contains(head)),
            "{text}"
        );
        assert!(!text.contains("max"), "{text}");
        let text = render(&[row("append_group_one_record_c1024", 7.0)], 64);
        assert!(text.contains("% of device") && !text.contains("p99.9"), "{text}");
    }

    #[test]
    fn rows_stand_under_their_headings() {
        let text = render(&[row("append_os_large", 1.0), row("recover", 2.0)], 200);
        let at = |what: &str| text.find(what).unwrap_or_else(|| panic!("{what}: {text}"));
        let (written, read) = (at("Large batches, acked when written"), at("Reading back"));
        assert!(written < at("append_os_large") && at("append_os_large") < read, "{text}");
        assert!(read < at("recover  "), "{text}");
    }

    #[test]
    fn the_floor_is_beside_rows_that_have_one() {
        let mut with = row("append_group_one_record_c256", 300.0);
        with.entry.floor_records_per_s = Some(200.0);
        let text = render(&[with, row("append_os_large", 7.0)], 200);
        assert!(text.contains("x floor") && text.contains("1.50"), "{text}");
        assert!(!render(&[row("append_os_large", 7.0)], 200).contains("x floor"));
    }
}
