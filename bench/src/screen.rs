//! A run as the terminal shows it: the machine, the rows, the plot, what it all means, and last the page's path.

use std::fmt::Write;

use crate::json::{Document, State};
use crate::outcome::Outcome;
use crate::plot::{self, Curve};
use crate::terminal::{Terminal, wrapped};
use crate::{report, table};

/// Widest running text: longer lines are hard to read.
const TEXT_COLUMNS_MAX: usize = 110;

const NAME_COLUMNS: usize = 12;
const VALUE_COLUMNS: usize = 8;
const WORD_COLUMNS: usize = 8;

/// The abbreviations of the table and the plot, in words.
const LEGEND: &str = "rec/s: records a second, for the device writes or reads a second. % of device: MiB/s beside \
                      the raw device's in the same run, under group beside its best durable writes. x floor: rec/s \
                      over those of the floor, a bare append loop without a log. p50, p99, p99.9: so many percent \
                      of the requests took no longer.";

/// All of it, in lines.
pub fn render(document: &Document, rows: &[Outcome], terminal: Terminal) -> String {
    let mut screen =
        Screen { text: String::new(), columns: terminal.columns.min(TEXT_COLUMNS_MAX) };
    for (name, value) in document.env.lines() {
        screen.item(name, NAME_COLUMNS, &value);
    }
    screen.item("payload", NAME_COLUMNS, &report::quick::payload_line(&document.payload));
    screen.text.push('\n');
    screen.text += &table::render(rows, terminal.columns);
    screen.text.push('\n');
    screen.item("", 0, LEGEND);
    plot(&mut screen, rows, terminal);
    if !document.ratios.is_empty() {
        screen.text += "\nRatios of this run\n";
    }
    for ratio in &document.ratios {
        let shown = format!("{:>VALUE_COLUMNS$}", ratio.shown());
        screen.item(&shown, VALUE_COLUMNS, &ratio.about());
    }
    if !document.meaning.is_empty() {
        screen.text += "\nWhat it means\n";
    }
    for sentence in &document.meaning {
        screen.item("-", 1, sentence);
    }
    screen.text.push('\n');
    for check in &document.checks {
        let word = match check.state {
            State::Passed => "ok",
            State::Failed => "FAILED",
            State::Unknown => "unknown",
        };
        screen.item(word, WORD_COLUMNS, &check.detail);
    }
    for note in &document.notes {
        screen.item("note", WORD_COLUMNS, note);
    }
    if let Some(report) = &document.report {
        writeln!(screen.text, "\n{}", report.display()).expect("memory takes all");
    }
    screen.text
}

struct Screen {
    text: String,
    columns: usize,
}

impl Screen {
    /// A word, and behind it a text whose lines stand under each other.
    fn item(&mut self, word: &str, word_columns: usize, text: &str) {
        let indent = if word_columns == 0 { 0 } else { word_columns + 1 };
        let line = format!("{word:<indent$}{text}");
        self.text += &wrapped(&line, self.columns, indent);
        self.text.push('\n');
    }
}

fn plot(screen: &mut Screen, rows: &[Outcome], terminal: Terminal) {
    let plotted = rows.iter().filter(|row| row.plotted);
    let curves = plotted.map(|row| Curve { name: row.entry.name, points: &row.curve });
    let plot = plot::render(&curves.collect::<Vec<_>>(), terminal);
    if plot.is_empty() {
        return;
    }
    screen.text.push('\n');
    screen.item(
        "",
        0,
        "Latency: so many percent of the requests (below) took no longer than so much (left)",
    );
    screen.text += &plot;
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use super::*;
    use crate::env::Env;
    use crate::json::{Check, Entry, SCHEMA};
    use crate::outcome::Kind;
    use crate::payload::Payload;
    use crate::reading;

    const PLAIN: Terminal = Terminal { columns: 80, unicode: false, colour: false };

    fn rows() -> Vec<Outcome> {
        let row = |name, mib_per_s| {
            let entry = Entry { name, mib_per_s, records_per_s: 9.0, ..Entry::default() };
            Outcome { kind: Kind::Engine, entry, curve: Vec::new(), plotted: false }
        };
        vec![row("append_os_large", 1000.0), row("append_group_64k_q16", 700.0)]
    }

    fn document(rows: &[Outcome]) -> Document {
        let detail =
            "every word of this is to be read, so no line may end in the middle of one of them";
        Document {
            schema: SCHEMA,
            command: "ringmain-bench quick".to_owned(),
            env: Env::capture(Path::new(".")),
            payload: Payload::generated(1 << 16).about().clone(),
            seconds: 60.0,
            slices: 3,
            results: Vec::new(),
            verify: None,
            checks: vec![Check { name: "x", state: State::Failed, detail: detail.to_owned() }],
            ratios: reading::ratios(rows),
            meaning: reading::sentences(rows),
            neighbours: None,
            notes: vec![detail.to_owned()],
            report: Some(PathBuf::from("/a/page.html")),
        }
    }

    #[test]
    fn the_pages_path_is_the_last_line() {
        let rows = rows();
        let text = render(&document(&rows), &rows, PLAIN);
        assert!(text.ends_with("\n/a/page.html\n"), "{text}");
    }

    #[test]
    fn a_failed_check_and_the_meaning_are_told() {
        let rows = rows();
        let text = render(&document(&rows), &rows, PLAIN);
        assert!(text.contains("\nFAILED   every word"), "{text}");
        assert!(text.contains("\n    70 % of what os reaches"), "{text}");
        assert!(text.contains("What it means\n- Large batches"), "{text}");
    }

    #[test]
    fn running_text_keeps_to_the_width() {
        let rows = rows();
        for columns in [60, 80, 200] {
            let text = render(&document(&rows), &rows, Terminal { columns, ..PLAIN });
            let told = text.lines().skip_while(|line| *line != "What it means");
            let widest = told.map(str::len).max().expect("lines");
            assert!(widest <= columns.min(TEXT_COLUMNS_MAX), "{widest} of {columns}: {text}");
        }
    }
}
