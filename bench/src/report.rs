//! The page: one HTML file that needs no network and no script, for a desk and a phone, by day and by night.

use std::fmt::Write;

use crate::human;
use crate::json::{Document, Entry, SURVIVES_KILL, State};
use crate::outcome::{Kind, Outcome};
use crate::payload::About;
use crate::plan::{CHAPTERS, chapter};

mod svg;

const STYLE: &str = include_str!("report/style.css");

/// The heads of the tables, in words.
const LEGEND: &str = "rec/s are records a second, for the device writes or reads a second. % of device sets MiB/s \
                      beside the raw device&#39;s in the same run, under group beside its best durable writes. \
                      x floor sets rec/s beside those of the floor, a bare append loop without a log. Written per \
                      byte is what went to the device for each byte of batches.";

/// What a cell of the table says when there is nothing to say.
const NOTHING: &str = "–";

/// The whole page.
pub fn render(document: &Document, rows: &[Outcome]) -> String {
    let mut page = String::with_capacity(64 << 10);
    page += "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n";
    page += "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n";
    page += "<meta name=\"color-scheme\" content=\"light dark\">\n";
    page += "<title>Ringmain: a durable log on this disk</title>\n<style>\n";
    page += STYLE;
    page += "</style>\n</head>\n<body>\n<main>\n";
    head(&mut page, document);
    verdicts(&mut page, document);
    meaning(&mut page, document);
    for (nth, (_, title)) in CHAPTERS.iter().enumerate() {
        section(&mut page, nth, title, rows);
    }
    environment(&mut page, document);
    page += "</main>\n</body>\n</html>\n";
    page
}

/// The payload in a line.
pub fn payload_line(about: &About) -> String {
    let line = format!(
        "{}: {} lines of {:.0} B on average",
        about.source,
        human::count(about.lines as f64),
        about.line_bytes_mean
    );
    if about.binary_files > 0 {
        return format!("{line}; {} files that are no text were left out", about.binary_files);
    }
    match (about.zstd_ratio, about.lz4_ratio) {
        (Some(zstd), Some(lz4)) => {
            format!("{line}; zstd makes 64 KiB of them {zstd} times smaller, LZ4 {lz4} times")
        }
        _ => line,
    }
}

fn head(page: &mut String, document: &Document) {
    put(
        page,
        format_args!(
            "<h1>A durable log on this disk</h1>\n<p class=\"command\"><code>{}</code></p>\n\
             <p>Rates are medians of {} slices, in which the rows took turns; percentiles are of all \
             slices' requests together. The run took {:.0} s.</p>\n<p class=\"legend\">{LEGEND}</p>\n",
            escape(&document.command),
            document.slices,
            document.seconds
        ),
    );
}

fn verdicts(page: &mut String, document: &Document) {
    *page += "<ul class=\"verdicts\">\n";
    let told = document.checks.iter().any(|check| check.name == SURVIVES_KILL);
    if let Some(tally) = document.verify.as_ref().filter(|_| !told) {
        let (class, word) = if tally.is_clean() { ("ok", "ok") } else { ("bad", "failed") };
        put(
            page,
            format_args!(
                "<li class=\"{class}\"><b>{word}</b> {} acked records read back after a kill: {} lost, {} \
                 duplicated, {} reordered, {} corrupt</li>\n",
                human::count(tally.acked as f64),
                tally.lost,
                tally.duplicated,
                tally.reordered,
                tally.corrupt
            ),
        );
    }
    for check in &document.checks {
        let (class, word) = match check.state {
            State::Passed => ("ok", "ok"),
            State::Failed => ("bad", "failed"),
            State::Unknown => ("unknown", "can’t tell"),
        };
        let detail = escape(&check.detail);
        put(page, format_args!("<li class=\"{class}\"><b>{word}</b> {detail}</li>\n"));
    }
    for note in &document.notes {
        put(page, format_args!("<li class=\"note\"><b>note</b> {}</li>\n", escape(note)));
    }
    *page += "</ul>\n";
}

/// What it means in sentences, and the ratios behind them.
fn meaning(page: &mut String, document: &Document) {
    if document.meaning.is_empty() && document.ratios.is_empty() {
        return;
    }
    *page += "<section>\n<h2>What it means</h2>\n";
    for sentence in &document.meaning {
        put(page, format_args!("<p>{}</p>\n", escape(sentence)));
    }
    *page += "<dl class=\"ratios\">\n";
    for ratio in &document.ratios {
        let shown = spaced(&ratio.shown());
        put(page, format_args!("<dt>{shown}</dt><dd>{}</dd>\n", escape(ratio.text)));
    }
    *page += "</dl>\n</section>\n";
}

fn section(page: &mut String, nth: usize, title: &str, rows: &[Outcome]) {
    let rows: Vec<&Outcome> = rows.iter().filter(|row| chapter(row.entry.name) == nth).collect();
    if rows.is_empty() {
        return;
    }
    put(page, format_args!("<section>\n<h2>{title}</h2>\n"));
    table(page, &rows);
    *page += &svg::figure(&rows);
    *page += "</section>\n";
}

struct Column {
    head: &'static str,
    cell: fn(&Entry) -> String,
}

const NUMBERS: [Column; 6] = [
    Column { head: "rec/s", cell: |e| human::count(e.records_per_s) },
    Column { head: "MiB/s", cell: |e| human::digits(e.mib_per_s) },
    Column { head: "p50", cell: |e| human::micros(e.latency_us.p50) },
    Column { head: "p99", cell: |e| spread(e, e.latency_us.p99) },
    Column { head: "p99.9", cell: |e| spread(e, e.latency_us.p999) },
    Column { head: "max", cell: |e| spread(e, e.latency_us.max) },
];

/// Columns that only some rows fill; a column nobody fills is left out.
const RATIOS: [Column; 3] = [
    Column { head: "% of device", cell: |e| optional(e.percent_of_device, human::percent) },
    Column {
        head: "x floor",
        cell: |e| {
            let ratio = e.floor_records_per_s.map(|floor| e.records_per_s / floor);
            optional(ratio, human::digits)
        },
    },
    Column {
        head: "written per byte",
        cell: |e| optional(e.write_amplification, |ratio| format!("{ratio:.2}")),
    },
];

/// A latency beside the median; one request alone has none.
fn spread(entry: &Entry, us: f64) -> String {
    if entry.count == 1 { NOTHING.to_owned() } else { human::micros(us) }
}

fn optional(value: Option<f64>, show: impl Fn(f64) -> String) -> String {
    value.map_or(NOTHING.to_owned(), show)
}

fn table(page: &mut String, rows: &[&Outcome]) {
    let filled = |column: &&Column| rows.iter().any(|row| (column.cell)(&row.entry) != NOTHING);
    let columns: Vec<&Column> = NUMBERS[..2]
        .iter()
        .chain(RATIOS.iter().filter(|column| filled(column)))
        .chain(&NUMBERS[2..])
        .collect();
    *page += "<table>\n<thead><tr><th scope=\"col\">row</th>";
    for column in &columns {
        put(page, format_args!("<th scope=\"col\">{}</th>", column.head));
    }
    *page += "</tr></thead>\n<tbody>\n";
    for (nth, row) in rows.iter().enumerate() {
        let entry = &row.entry;
        let key = format!("<i class=\"key c{}\" aria-hidden=\"true\"></i>", nth % svg::COLOURS);
        put(
            page,
            format_args!(
                "<tr><th scope=\"row\">{key}<code>{}</code><span class=\"load\">{}</span></th>",
                entry.name,
                load(row.kind, entry)
            ),
        );
        for column in &columns {
            let cell = (column.cell)(entry);
            put(page, format_args!("<td data-head=\"{}\">{}</td>", column.head, spaced(&cell)));
        }
        *page += "</tr>\n";
    }
    *page += "</tbody>\n</table>\n";
}

/// A unit is never torn from its number at a line's end.
fn spaced(cell: &str) -> String {
    cell.replace(' ', "&nbsp;")
}

fn load(kind: Kind, entry: &Entry) -> String {
    let mut load = format!("{} × {}", entry.in_flight, human::bytes(entry.batch_bytes));
    if let Some(policy) = entry.policy {
        write!(load, ", {policy}").expect("memory takes all");
    }
    if entry.partitions > 1 {
        let what = if kind == Kind::Device { "files" } else { "partitions" };
        write!(load, ", {} {what}", human::count(entry.partitions as f64))
            .expect("memory takes all");
    }
    load
}

fn environment(page: &mut String, document: &Document) {
    *page += "<section>\n<h2>The machine</h2>\n<dl>\n";
    let payload = ("payload", payload_line(&document.payload));
    for (name, value) in document.env.lines().into_iter().chain([payload]) {
        put(page, format_args!("<dt>{name}</dt><dd>{}</dd>\n", escape(&value)));
    }
    *page += "</dl>\n</section>\n";
}

fn put(page: &mut String, text: std::fmt::Arguments<'_>) {
    page.write_fmt(text).expect("memory takes all");
}

fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe += "&amp;",
            '<' => safe += "&lt;",
            '>' => safe += "&gt;",
            '"' => safe += "&quot;",
            '\'' => safe += "&#39;",
            c => safe.push(c),
        }
    }
    safe
}

#[cfg(test)]
#[path = "report/tests.rs"]
mod tests;
