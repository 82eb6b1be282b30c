//! `device` as the terminal shows it: the machine, the combinations, their curves.

use std::fmt::Write;

use super::document::{Document, Entry};
use crate::plot::{self, CURVES_MAX, Curve};
use crate::run::values::Bytes;
use crate::terminal::{Terminal, wrapped};
use crate::{grid, human};

/// Widest running text.
const TEXT_COLUMNS_MAX: usize = 110;

const NAME_COLUMNS: usize = 13;

const HEAD: [&str; 8] = ["what", "depth", "MiB/s", "IOPS", "p50", "p99", "p99.9", "max"];

/// All of it, in lines.
pub(super) fn render(document: &Document, terminal: Terminal) -> String {
    let columns = terminal.columns.min(TEXT_COLUMNS_MAX);
    let mut text = String::new();
    for (name, value) in document.env.lines() {
        let line = format!("{name:<NAME_COLUMNS$}{value}");
        writeln!(text, "{}", wrapped(&line, columns, NAME_COLUMNS)).expect("memory takes all");
    }
    let rows: Vec<Vec<String>> = document.results.iter().map(cells).collect();
    text += "\n";
    text += &grid::render(&HEAD, &rows);
    let names: Vec<String> = document.results.iter().map(named).collect();
    let curves = document
        .results
        .iter()
        .zip(&names)
        .map(|(entry, name)| Curve { name, points: &entry.curve });
    let plot = plot::render(&curves.take(CURVES_MAX).collect::<Vec<_>>(), terminal);
    if !plot.is_empty() {
        text += "\nLatency: so many percent of the requests (below) took no longer than so much (left)\n";
        text += &plot;
    }
    for note in &document.notes {
        let line = format!("note     {note}");
        writeln!(text, "\n{}", wrapped(&line, columns, 9)).expect("memory takes all");
    }
    text
}

fn what(entry: &Entry) -> String {
    let durable = if entry.durable { "durable " } else { "" };
    format!("{durable}{} {}", entry.op, Bytes(entry.size_bytes))
}

fn named(entry: &Entry) -> String {
    format!("{}, {} in flight", what(entry), entry.depth)
}

fn cells(entry: &Entry) -> Vec<String> {
    let latency = &entry.latency_us;
    let told = |us: f64| human::micros(us).replace(' ', "");
    let known = |name: &str, us: f64| {
        if latency.thin.iter().any(|thin| thin == name) { "-".to_owned() } else { told(us) }
    };
    vec![
        what(entry),
        entry.depth.to_string(),
        human::digits(entry.mib_per_s),
        human::count(entry.iops),
        known("p50", latency.p50),
        known("p99", latency.p99),
        known("p999", latency.p999),
        told(latency.max),
    ]
}
