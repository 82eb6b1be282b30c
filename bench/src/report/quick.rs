//! The page of `quick`.

use std::fmt::Write;

use super::lines::{self, Key};
use super::page::{self, escape, put, spaced};
use super::sheet;
use super::tables::{self, Column, NOTHING, optional};
use crate::human;
use crate::json::{Document, Entry, SURVIVES_KILL, State};
use crate::outcome::{Kind, Outcome};
use crate::payload::About;
use crate::plan::{CHAPTERS, chapter};
use crate::plot::Curve;

/// The heads of the tables, in words.
const LEGEND: &str = "rec/s are records a second, for the device writes or reads a second. % of device sets MiB/s \
                      beside the raw device&#39;s in the same run, under group beside its best durable writes. \
                      x floor sets rec/s beside those of the floor, a bare append loop without a log. Written per \
                      byte is what went to the device for each byte of batches.";

/// The whole page.
pub fn render(document: &Document, rows: &[Outcome]) -> String {
    page::page("Ringmain: a durable log on this disk", |page| {
        head(page, document);
        verdicts(page, document);
        meaning(page, document);
        for (nth, (_, title)) in CHAPTERS.iter().enumerate() {
            section(page, nth, title, rows);
        }
        environment(page, document);
    })
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
        put(page, format_args!("<dt>{shown}</dt><dd>{}</dd>\n", escape(&ratio.about())));
    }
    *page += "</dl>\n</section>\n";
}

fn section(page: &mut String, nth: usize, title: &str, rows: &[Outcome]) {
    let rows: Vec<&Outcome> = rows.iter().filter(|row| chapter(row.entry.name) == nth).collect();
    if rows.is_empty() {
        return;
    }
    put(page, format_args!("<section>\n<h2>{title}</h2>\n"));
    rows_table(page, &rows);
    figure(page, &rows);
    *page += "</section>\n";
}

/// The curves of all rows on common axes, or nothing if there is none.
fn figure(page: &mut String, rows: &[&Outcome]) {
    let keyed = rows.iter().enumerate();
    let curves: Vec<_> = keyed
        .map(|(nth, row)| (Key(nth), Curve { name: row.entry.name, points: &row.curve }))
        .collect();
    let Some((frame, lines)) = lines::of_curves(&curves) else { return };
    put(page, format_args!("<figure>\n<figcaption>{}</figcaption>\n", lines::CURVES_CAPTION));
    lines::draw(page, sheet::FULL, &frame, "Latency curves", &lines);
    *page += "</figure>\n";
}

/// Columns that only some rows fill are left out where nobody does.
const COLUMNS: [Column<Outcome>; 9] = [
    Column::new("rec/s", |o| human::count(o.entry.records_per_s)),
    Column::new("MiB/s", |o| human::digits(o.entry.mib_per_s)),
    Column::new("% of device", |o| optional(o.entry.percent_of_device, human::percent)),
    Column::new("x floor", |o| {
        let ratio = o.entry.floor_records_per_s.map(|floor| o.entry.records_per_s / floor);
        optional(ratio, human::digits)
    }),
    Column::new("written per byte", |o| {
        optional(o.entry.write_amplification, |ratio| format!("{ratio:.2}"))
    }),
    Column::new("p50", |o| human::micros(o.entry.latency_us.p50)),
    Column::new("p99", |o| spread(&o.entry, o.entry.latency_us.p99)),
    Column::new("p99.9", |o| spread(&o.entry, o.entry.latency_us.p999)),
    Column::new("max", |o| spread(&o.entry, o.entry.latency_us.max)),
];

/// A latency beside the median; one request alone has none.
fn spread(entry: &Entry, us: f64) -> String {
    if entry.count == 1 { NOTHING.to_owned() } else { human::micros(us) }
}

fn rows_table(page: &mut String, rows: &[&Outcome]) {
    let rows: Vec<Outcome> = rows.iter().copied().cloned().collect();
    tables::table(page, "row", &rows, &COLUMNS, |nth, row| {
        format!(
            "{}<code>{}</code><span class=\"load\">{}</span>",
            Key(nth).swatch(),
            row.entry.name,
            load(row.kind, &row.entry)
        )
    });
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

#[cfg(test)]
#[path = "quick/tests.rs"]
mod tests;
