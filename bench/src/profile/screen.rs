//! `profile` as the terminal shows it: the run in a line, then areas, functions, threads and waits.

use std::fmt::Write;

use super::document::{Document, Row};
use crate::terminal::{Terminal, wrapped};
use crate::{grid, human};

/// Widest running text.
const TEXT_COLUMNS_MAX: usize = 110;

/// Columns of a function's row beside its name.
const FIGURES_COLUMNS: usize = 62;

/// Least of a function's name that is shown.
const NAME_COLUMNS_MIN: usize = 40;

/// Functions on the screen; the document has more.
const FUNCTIONS_MAX: usize = 20;

/// Areas and threads below this share are left to the document.
const SHARE_MIN: f64 = 0.001;

/// All of it, in lines.
pub(super) fn render(document: &Document, terminal: Terminal) -> String {
    let columns = terminal.columns.min(TEXT_COLUMNS_MAX);
    let unit = document.unit;
    let mut text = headline(document);
    let (record, byte) = (format!("{unit}/record"), format!("{unit}/byte"));
    let head = ["area", "of", "share", &record, &byte];
    let rows = document.areas.iter().filter(|row| row.share >= SHARE_MIN).map(|row| {
        let side = if row.kernel { "kernel" } else { "program" };
        let (record, byte) = (digits(row.per_record), digits(row.per_byte));
        vec![row.name.clone(), side.to_owned(), percent(row.share), record, byte]
    });
    text += "\n";
    text += &grid::render(&head, &rows.collect::<Vec<_>>());
    let width = terminal.columns.saturating_sub(FIGURES_COLUMNS).max(NAME_COLUMNS_MIN);
    let head = ["function, without what it calls", "crate", "area", "share", &record];
    let rows = document.functions.iter().take(FUNCTIONS_MAX).map(|row| function(row, width));
    text += "\n";
    text += &grid::render(&head, &rows.collect::<Vec<_>>());
    text += "\n";
    text += &threads(document, &record);
    if !document.waits.is_empty() {
        let rows = document.waits.iter().filter(|wait| wait.share >= SHARE_MIN).map(|wait| {
            vec![wait.name.clone(), format!("{:.2}", wait.seconds), percent(wait.share)]
        });
        text += "\n";
        text += &grid::render(&["asleep in", "seconds", "share"], &rows.collect::<Vec<_>>());
    }
    for note in &document.notes {
        let line = format!("note     {note}");
        writeln!(text, "\n{}", wrapped(&line, columns, 9)).expect("memory takes all");
    }
    text += "\n";
    let pictures = &document.flamegraphs;
    for (what, path) in [("on a processor", &pictures.on), ("off a processor", &pictures.off)] {
        if let Some(path) = path {
            writeln!(text, "{what:<17}{}", path.display()).expect("memory takes all");
        }
    }
    text
}

fn headline(document: &Document) -> String {
    let cores = document.cores.map_or(String::new(), |cores| format!("{cores:.2} cores, "));
    let perf = &document.perf;
    format!(
        "{} records/s  {:.1} MiB/s  p99 {}  under perf, {:.1} s\n{cores}{} {unit} a record, {} {unit} a byte  \
         ({} samples of {})\n",
        human::count(document.records_per_s),
        document.mib_per_s,
        human::micros(document.p99_us),
        document.seconds,
        digits(document.per_record),
        digits(document.per_byte),
        perf.samples,
        perf.event,
        unit = document.unit,
    )
}

fn threads(document: &Document, record: &str) -> String {
    let head = ["thread", "share", record, "asleep s", "runnable s", "switches/s"];
    let slept = document.seconds * SHARE_MIN;
    let shown = document.threads.iter().filter(|t| t.share >= SHARE_MIN || t.asleep_s > slept);
    let rows = shown.map(|thread| {
        vec![
            thread.name.clone(),
            percent(thread.share),
            digits(thread.per_record),
            format!("{:.2}", thread.asleep_s),
            format!("{:.2}", thread.preempted_s),
            human::count(thread.switches_per_s),
        ]
    });
    grid::render(&head, &rows.collect::<Vec<_>>())
}

fn function(row: &Row, width: usize) -> Vec<String> {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let name = if row.name.chars().count() > width {
        row.name.chars().take(width.saturating_sub(1)).chain(['…']).collect()
    } else {
        row.name.clone()
    };
    vec![name, text(&row.krate), text(&row.area), percent(row.share), digits(row.per_record)]
}

fn percent(share: f64) -> String {
    human::percent(100.0 * share)
}

/// Below a tenth more digits count: a byte costs a fraction of a nanosecond.
fn digits(value: f64) -> String {
    if value > 0.0 && value < 0.1 { format!("{value:.4}") } else { human::digits(value) }
}
