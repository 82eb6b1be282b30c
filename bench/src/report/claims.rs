//! The page of `claims`: a section for each claim, to be read from top to bottom by somebody who learns how logs work.

use super::page::{self, escape, put, spaced};
use super::quick::payload_line;
use super::tables::{self, Column, optional};
use crate::claims::claim;
use crate::claims::claim::Claim;
use crate::claims::document::{ArmEntry, Document, Entry};
use crate::claims::rule::{Finding, Outcome};
use crate::human;
use crate::run::result::State;

mod bars;
mod places;
mod ratios;

const STYLE: &str = include_str!("claims/claims.css");

/// The whole page.
pub fn render(document: &Document) -> String {
    page::styled("Ringmain: claims about logs, tried on this machine", STYLE, |page| {
        head(page, document);
        contents(page, &document.claims);
        legend(page, document);
        for (nth, entry) in document.claims.iter().enumerate() {
            section(page, nth + 1, document, entry);
        }
        machine(page, document);
    })
}

/// How a finding looks: its class.
fn class(finding: Finding) -> &'static str {
    match finding {
        Finding::Holds => "holds",
        Finding::DoesNotHold => "fails",
        Finding::Depends => "depends",
        Finding::NotMeasurable => "none",
    }
}

fn tag(finding: Finding) -> String {
    format!("<span class=\"tag t-{}\">{finding}</span>", class(finding))
}

/// A ratio with its interval, as `1.52 × (1.40 to 1.61)`.
fn ratio(ratio: Option<f64>, interval: Option<(f64, f64)>) -> String {
    let (Some(ratio), Some((low, high))) = (ratio, interval) else { return String::new() };
    let [ratio, low, high] = [ratio, low, high].map(human::ratio);
    spaced(&format!("{ratio} × ({low} to {high})"))
}

fn head(page: &mut String, document: &Document) {
    let count = |finding| document.claims.iter().filter(|e| e.verdict == finding).count();
    let found = [Finding::Holds, Finding::Depends, Finding::DoesNotHold, Finding::NotMeasurable]
        .map(|finding| (count(finding), finding))
        .into_iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, finding)| format!("{count} {}", plural(finding, count)));
    let found = found.collect::<Vec<_>>().join(", ");
    let cpu = document.env.cpu.as_deref().unwrap_or("an unnamed processor");
    put(
        page,
        format_args!(
            "<h1>What is said of logs, tried on this machine</h1>\n<p class=\"lede\">Everybody \
             repeats why message logs are fast. Here each claim is an experiment, and the rule by \
             which it is judged was fixed before it ran. Of {} claims on {} cores of {}: \
             {found}.</p>\n<p class=\"command\"><code>{}</code></p>\n",
            document.claims.len(),
            document.env.cores,
            escape(cpu),
            escape(&document.command)
        ),
    );
    let mut said: Vec<String> = Vec::new();
    if document.state == State::Interrupted {
        said.push("stopped by the user: what was measured until then is here".to_owned());
    }
    said.extend(document.notes.iter().cloned());
    if !said.is_empty() {
        *page += "<ul class=\"verdicts\">\n";
        for note in said {
            put(page, format_args!("<li class=\"note\"><b>note</b>{}</li>\n", escape(&note)));
        }
        *page += "</ul>\n";
    }
}

fn plural(finding: Finding, count: usize) -> String {
    match (finding, count) {
        (Finding::Holds, 2..) => "hold".to_owned(),
        (Finding::DoesNotHold, 2..) => "do not hold".to_owned(),
        (Finding::Depends, 2..) => "depend".to_owned(),
        (other, _) => other.to_string(),
    }
}

fn contents(page: &mut String, claims: &[Entry]) {
    *page += "<ol class=\"contents\">\n";
    for entry in claims {
        put(
            page,
            format_args!(
                "<li><a href=\"#{}\">{}<span>{}</span><span class=\"x\">{}</span></a></li>\n",
                escape(&entry.name),
                tag(entry.verdict),
                escape(&entry.sentence),
                ratio(entry.ratio, entry.interval)
            ),
        );
    }
    *page += "</ol>\n";
}

fn legend(page: &mut String, document: &Document) {
    let rounds = document.claims.iter().map(|entry| entry.rounds);
    let (least, most) = (rounds.clone().min().unwrap_or(0), rounds.max().unwrap_or(0));
    let rounds = if least == most { most.to_string() } else { format!("{least} to {most}") };
    put(
        page,
        format_args!(
            "<section>\n<h2>How to read it</h2>\n<p>Each claim is tried by arms that take turns: \
             in each of its rounds, {rounds} of them, every arm runs once, in an order drawn anew, \
             after a round that does not count. A bar is the median of the rounds, the thin line on \
             it runs from the least to the most.</p>\n<p>Below the bars, arms are held against each \
             other: the ratio is taken within each round, so that both share the machine’s mood. \
             The dot is the median of the ratios, the line holds it with 95 % confidence, and in \
             the shaded part the claim holds. A line that leaves the shade on one side decides \
             nothing, unless both its ends are within a tenth of the bound: then the ratio is the \
             bound’s, and on which side of it does not matter.</p>\n<p>A claim <b>holds</b> if it \
             does in every case that was tried, and <b>depends</b> if it does in some and not in \
             others. Where it does not hold, its arms ran once more under a profiler, and the page \
             shows where their time goes. A ratio below a tenth is told as a fraction: 1/240 × is \
             a 240th.</p>\n</section>\n"
        ),
    );
}

fn section(page: &mut String, number: usize, document: &Document, entry: &Entry) {
    let known = claim(&entry.name);
    put(
        page,
        format_args!(
            "<section class=\"claim\" id=\"{0}\">\n<p class=\"eyebrow\">Claim {number} · \
             <code>{0}</code></p>\n<h2>{1}</h2>\n<p class=\"found\">{2}<span>{3}</span></p>\n",
            escape(&entry.name),
            escape(&entry.sentence),
            tag(entry.verdict),
            escape(&said(entry))
        ),
    );
    cases(page, entry);
    for note in &entry.notes {
        put(page, format_args!("<p class=\"legend\">{}.</p>\n", escape(note)));
    }
    if let Some(known) = known {
        put(
            page,
            format_args!("<h3>Why it should be so</h3>\n<p>{}</p>\n", marked(known.mechanism)),
        );
        put(page, format_args!("<h3>Where it ends</h3>\n<p>{}</p>\n", marked(known.ends)));
    }
    if entry.arms.iter().any(|arm| !arm.rounds.is_empty()) {
        put(
            page,
            format_args!("<h3>What was measured: {}</h3>\n<figure>\n", escape(&entry.headline)),
        );
        bars::draw(page, entry, known.map(|claim| claim.headline));
        *page += "</figure>\n";
    }
    if entry.comparisons.iter().any(|one| one.interval.is_some()) {
        *page += "<h3>Held against each other</h3>\n<figure>\n";
        ratios::draw(page, entry);
        *page += "</figure>\n";
    }
    places::draw(page, document, entry);
    arms(page, entry);
    if let Some(known) = known {
        guards(page, known);
    }
    *page += "</section>\n";
}

/// The finding in a sentence.
fn said(entry: &Entry) -> String {
    match entry.verdict {
        Finding::Holds => "In every case that was tried.".to_owned(),
        Finding::DoesNotHold => "In no case that was tried.".to_owned(),
        Finding::Depends => "In some cases, and not in others.".to_owned(),
        Finding::NotMeasurable if entry.comparisons.iter().all(|one| one.interval.is_none()) => {
            entry.why.clone()
        }
        Finding::NotMeasurable => {
            "The rounds differ too much to tell; more of them narrow the intervals (--full)."
                .to_owned()
        }
    }
}

/// Which comparisons came to what.
fn cases(page: &mut String, entry: &Entry) {
    let measured = entry.comparisons.iter().filter(|one| one.interval.is_some());
    let mut measured = measured.peekable();
    if measured.peek().is_none() {
        return;
    }
    *page += "<ul class=\"cases\">\n";
    for one in measured {
        let (class, mark, what) = match one.outcome {
            Outcome::Holds => ("t-holds", "✓", "holds"),
            Outcome::DoesNotHold => ("t-fails", "✗", "does not hold"),
            Outcome::OnBound => ("t-depends", "=", "is on its bound"),
            Outcome::Undecided | Outcome::NotMeasured => ("t-none", "?", "cannot be told"),
        };
        put(
            page,
            format_args!(
                "<li><b class=\"{class}\">{mark}</b>It {what} {}: {}.</li>\n",
                escape(&one.when),
                ratio(one.ratio, one.interval)
            ),
        );
    }
    *page += "</ul>\n";
}

/// Text with `code` in it.
fn marked(text: &str) -> String {
    let parts = text.split('`').enumerate();
    let mark = |(nth, part): (usize, &str)| {
        if nth % 2 == 1 { format!("<code>{}</code>", escape(part)) } else { escape(part) }
    };
    parts.map(mark).collect()
}

/// Columns that no arm fills are left out.
const COLUMNS: [Column<ArmEntry>; 8] = [
    Column::new("a second", |arm| optional(arm.records_per_s, human::count)),
    Column::new("MiB/s", |arm| optional(arm.mib_per_s, human::digits)),
    Column::new("p50", |arm| latency(arm, "p50", arm.latency_us.p50)),
    Column::new("p99", |arm| latency(arm, "p99", arm.latency_us.p99)),
    Column::new("p99.9", |arm| latency(arm, "p999", arm.latency_us.p999)),
    Column::new("cores", |arm| optional(arm.cpu_cores, human::digits)),
    Column::new("records a flush", |arm| own(arm, "records_per_flush")),
    Column::new("written per byte", |arm| own(arm, "written_per_byte")),
];

fn latency(arm: &ArmEntry, name: &str, us: f64) -> String {
    let known = arm.latency_us.count > 0 && !arm.latency_us.thin.iter().any(|thin| thin == name);
    optional(known.then_some(us), human::micros)
}

fn own(arm: &ArmEntry, name: &str) -> String {
    let value = arm.figures.get(name).and_then(serde_json::Value::as_f64);
    optional(value, |value| if value < 1000.0 { human::digits(value) } else { human::count(value) })
}

fn arms(page: &mut String, entry: &Entry) {
    *page += "<h3>The arms</h3>\n";
    tables::table(page, "arm", &entry.arms, &COLUMNS, |_, arm| {
        let why = arm.absent.as_ref().map_or(String::new(), |why| format!("; not run: {why}"));
        format!(
            "<code>{}</code><small>{}{}</small>",
            escape(&arm.name),
            marked(&arm.about),
            escape(&why)
        )
    });
}

fn guards(page: &mut String, claim: &Claim) {
    *page += "<h3>What could fool it, and how that is excluded</h3>\n<dl class=\"guards\">\n";
    for guard in claim.guards {
        let (what, how) = (marked(guard.what), marked(guard.how));
        put(page, format_args!("<div><dt>{what}</dt><dd>{how}</dd></div>\n"));
    }
    put(
        page,
        format_args!("</dl>\n<p class=\"legend\">Who says so: {}</p>\n", marked(claim.source)),
    );
}

fn machine(page: &mut String, document: &Document) {
    *page += "<section class=\"claim\">\n<h2>The machine</h2>\n<dl>\n";
    for (name, value) in document.env.lines() {
        put(page, format_args!("<dt>{name}</dt><dd>{}</dd>\n", escape(&value)));
    }
    let payload = escape(&payload_line(&document.payload));
    put(
        page,
        format_args!(
            "<dt>payload</dt><dd>{payload}</dd>\n<dt>started</dt><dd>{}, seed {}, {:.0} s in \
             all</dd>\n</dl>\n</section>\n",
            escape(&document.started),
            document.seed,
            document.seconds
        ),
    );
}

#[cfg(test)]
#[path = "claims/tests.rs"]
mod tests;
