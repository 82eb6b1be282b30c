//! The page of runs: one, or several on common axes.

use super::lines::Key;
use super::page::{self, escape, put};
use super::pictures;
use super::subject::{Subject, plain};
use super::tables::{self, Column, NOTHING, optional};
use crate::human;
use crate::run::result::{Latency, State};

/// How to read the table.
const LEGEND: &str = "Medians over the repeats, with their 95 % interval below; percentiles are of all repeats\u{2019} \
                      batches together, counted from the moment a batch was due. Below them, small: counted from the \
                      moment it was sent, which hides what a stall does to those who wait. In brackets: fewer than \
                      ten batches lie beyond it, too few to be quoted. % of device sets MiB/s beside the raw \
                      device\u{2019}s in the same run.";

/// The whole page.
pub(super) fn render(runs: &[Subject]) -> String {
    let title = match runs {
        [one] => format!("Ringmain: {}", one.title),
        many => format!("Ringmain: {} runs", many.len()),
    };
    page::page(&title, |page| {
        head(page, runs);
        verdicts(page, runs);
        summary(page, runs);
        pictures::curves(page, runs);
        pictures::over_time(page, runs);
        pictures::heat_maps(page, runs);
        pictures::phases(page, runs);
        server(page, runs);
        settings(page, runs);
        machines(page, runs);
        commands(page, runs);
    })
}

/// A run's key and name, as markup, with what sets it apart below.
pub(super) fn name(nth: usize, runs: &[Subject]) -> String {
    let apart = apart(nth, runs);
    let below = if apart.is_empty() {
        String::new()
    } else {
        format!("<span class=\"load\">{}</span>", escape(&apart))
    };
    format!("{}<code>{}</code>{below}", Key(nth).swatch(), escape(&runs[nth].title))
}

/// A run's letter and what sets it apart, for the pointer.
pub(super) fn label(nth: usize, runs: &[Subject]) -> String {
    let apart = apart(nth, runs);
    let what = if apart.is_empty() { runs[nth].title.clone() } else { apart };
    format!("{} {what}", Key(nth).letter())
}

/// The values of the settings in which runs differ.
fn apart(nth: usize, runs: &[Subject]) -> String {
    let told = settings_apart(nth, runs).into_iter().map(|(name, value)| format!("{name} {value}"));
    told.collect::<Vec<_>>().join(", ")
}

/// The settings in which runs differ, with this one's values.
pub(super) fn settings_apart(nth: usize, runs: &[Subject]) -> Vec<(String, String)> {
    let settings = runs[nth].settings();
    let told = |name: String| {
        let value = plain(settings.get(&name));
        (name, value)
    };
    differing(runs).into_iter().map(told).collect()
}

/// The settings in which runs differ.
fn differing(runs: &[Subject]) -> Vec<String> {
    let all: Vec<_> = runs.iter().map(Subject::settings).collect();
    let mut names: Vec<&String> = all.iter().flat_map(serde_json::Map::keys).collect();
    names.sort();
    names.dedup();
    names.retain(|name| all.iter().any(|settings| settings.get(*name) != all[0].get(*name)));
    names.into_iter().cloned().collect()
}

fn head(page: &mut String, runs: &[Subject]) {
    match runs {
        [one] => {
            put(page, format_args!("<h1>{}</h1>\n", escape(&one.title)));
            command(page, &one.document.command);
        }
        many => put(page, format_args!("<h1>{} runs beside each other</h1>\n", many.len())),
    }
}

fn command(page: &mut String, command: &str) {
    put(page, format_args!("<p class=\"command\"><code>{}</code></p>\n", escape(command)));
}

/// What is to be known of a run. In the order in which it is told: what is wrong first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Class {
    Bad,
    Unknown,
    Ok,
    Note,
}

impl Class {
    fn name(self) -> &'static str {
        match self {
            Self::Bad => "bad",
            Self::Unknown => "unknown",
            Self::Ok => "ok",
            Self::Note => "note",
        }
    }
}

struct Verdict {
    class: Class,
    word: &'static str,
    /// What it is about: those of several runs about the same stand together.
    about: String,
    text: String,
}

impl Verdict {
    fn new(class: Class, word: &'static str, about: &str, text: impl Into<String>) -> Self {
        Self { class, word, about: about.to_owned(), text: text.into() }
    }
}

fn verdicts(page: &mut String, runs: &[Subject]) {
    let mut told: Vec<(Verdict, Vec<(usize, String)>)> = Vec::new();
    for (nth, run) in runs.iter().enumerate() {
        for verdict in of_run(run) {
            let text = (nth, verdict.text.clone());
            let alike = |(first, _): &&mut (Verdict, _)| {
                (first.class, first.word, &first.about)
                    == (verdict.class, verdict.word, &verdict.about)
            };
            match told.iter_mut().find(alike) {
                Some((_, texts)) => texts.push(text),
                None => told.push((verdict, vec![text])),
            }
        }
    }
    told.sort_by_key(|(verdict, _)| verdict.class);
    *page += "<ul class=\"verdicts\">\n";
    for text in not_comparable(runs) {
        put(
            page,
            format_args!("<li class=\"unknown\"><b>not comparable</b> {}</li>\n", escape(&text)),
        );
    }
    for (verdict, texts) in &told {
        item(page, verdict, texts, runs.len() > 1);
    }
    *page += "</ul>\n";
}

/// One verdict, of the runs that `texts` are of: once if they say the same, else the others' words are folded away.
fn item(page: &mut String, verdict: &Verdict, texts: &[(usize, String)], several: bool) {
    let mut whose: Vec<String> = Vec::new();
    if several {
        whose = texts.iter().map(|(nth, _)| Key(*nth).letter().to_string()).collect();
        whose.dedup();
    }
    let whose = if whose.is_empty() { String::new() } else { whose.join(" ") + " " };
    let (class, word, text) = (verdict.class.name(), verdict.word, escape(&verdict.text));
    let rest: Vec<_> = texts.iter().filter(|(_, other)| *other != verdict.text).collect();
    let first = texts.first().filter(|_| several && !rest.is_empty());
    let of = first.map_or(String::new(), |(nth, _)| format!("{}: ", Key(*nth).letter()));
    put(page, format_args!("<li class=\"{class}\"><b>{whose}{word}</b> {of}{text}"));
    // What is wrong is never folded away.
    let open = if verdict.class == Class::Bad { " open" } else { "" };
    if !rest.is_empty() {
        put(page, format_args!("<details{open}><summary>{} more</summary><ul>", rest.len()));
        for (nth, other) in rest {
            put(page, format_args!("<li><b>{}</b> {}</li>", Key(*nth).letter(), escape(other)));
        }
        *page += "</ul></details>";
    }
    *page += "</li>\n";
}

fn of_run(run: &Subject) -> Vec<Verdict> {
    let mut all = Vec::new();
    match run.document.state {
        State::Complete => {}
        State::Interrupted => {
            all.push(Verdict::new(
                Class::Unknown,
                "partial",
                "state",
                "the run was stopped; this is what it had measured until then",
            ));
        }
        State::Failed => {
            all.push(Verdict::new(Class::Bad, "failed", "state", "the run failed before its end"));
        }
    }
    if run.document.result.closed_loop {
        let text = "closed loop: a batch was due when a place in flight was free, so latency is that at full load, \
                    and says nothing of those who would have waited";
        all.push(Verdict::new(Class::Note, "note", "closed_loop", text));
    }
    all.extend(
        run.damage.iter().map(|what| Verdict::new(Class::Bad, "damaged", "log", what.as_str())),
    );
    let verify = &run.document.verify;
    let tally = verify.tally;
    let acked = human::count(tally.acked as f64);
    all.push(if !tally.is_clean() {
        let found = format!(
            "of {acked} acked records {} are lost, {} duplicated, {} reordered, {} corrupt: {}",
            tally.lost,
            tally.duplicated,
            tally.reordered,
            tally.corrupt,
            verify.examples.join("; ")
        );
        Verdict::new(Class::Bad, "failed", "verify", found)
    } else if verify.verified {
        let kills = match verify.kills.len() {
            0 => String::new(),
            kills => format!(", after {kills} kills (SIGKILL, which is no power cut) too"),
        };
        let found =
            format!("all {acked} acked records read back, once, in order and intact{kills}");
        Verdict::new(Class::Ok, "ok", "verify", found)
    } else {
        let why = verify.why_not.as_deref().unwrap_or("the run does not say why");
        Verdict::new(Class::Unknown, "not verified", "verify", why)
    });
    all.extend(
        run.document
            .warnings
            .iter()
            .map(|warning| Verdict::new(Class::Note, "note", &warning.kind, warning.text.as_str())),
    );
    all
}

/// Why figures of these runs can't be set beside each other, in sentences.
fn not_comparable(runs: &[Subject]) -> Vec<String> {
    let Some(first) = runs.first() else { return Vec::new() };
    let facts = |run: &Subject| {
        let mut facts = vec![("host", run.document.host.clone())];
        // Free space and the like change from run to run; what `lines` has does not.
        facts.extend(run.env.as_ref().map(crate::env::Env::lines).unwrap_or_default());
        facts
    };
    let base = facts(first);
    let mut told = Vec::new();
    for (nth, run) in runs.iter().enumerate().skip(1) {
        let names = facts(run).into_iter().filter(|fact| !base.contains(fact)).map(|fact| fact.0);
        let names: Vec<_> = names.collect();
        if !names.is_empty() {
            told.push(format!(
                "{} and {} are not of the same machine: {} differ. Compare % of device, not MiB/s",
                Key(0).letter(),
                Key(nth).letter(),
                names.join(", ")
            ));
        }
    }
    told
}

fn bracketed(latency: &Latency, name: &str, us: f64) -> String {
    let shown = human::micros(us);
    if latency.count == 0 {
        NOTHING.to_owned()
    } else if latency.thin.iter().any(|thin| thin == name) {
        format!("({shown})")
    } else {
        shown
    }
}

/// The uncorrected figure beside it; in a closed loop there is no other.
fn uncorrected(run: &Subject, of: fn(&Latency) -> (&'static str, f64)) -> String {
    let latency = &run.document.result.latency_uncorrected_us;
    if run.document.result.closed_loop || latency.count == 0 {
        return String::new();
    }
    let (name, us) = of(latency);
    bracketed(latency, name, us)
}

macro_rules! percentile {
    ($head:literal, $field:ident) => {
        Column::two(
            $head,
            |run: &Subject| {
                let latency = &run.document.result.latency_us;
                bracketed(latency, stringify!($field), latency.$field)
            },
            |run| uncorrected(run, |latency| (stringify!($field), latency.$field)),
        )
    };
}

const FIGURES: [Column<Subject>; 12] = [
    Column::two(
        "rec/s",
        |run| human::count(run.document.result.records_per_s),
        |run| {
            let interval = run.document.result.interval.records_per_s;
            interval.map_or(String::new(), |[low, high]| {
                format!("{} to {}", human::count(low.max(0.0)), human::count(high))
            })
        },
    ),
    Column::two(
        "MiB/s",
        |run| human::digits(run.document.result.mib_per_s),
        |run| {
            let interval = run.document.result.interval.mib_per_s;
            interval.map_or(String::new(), |[low, high]| {
                format!("{} to {}", human::digits(low.max(0.0)), human::digits(high))
            })
        },
    ),
    Column::new("% of device", |run| {
        optional(run.document.result.percent_of_device, human::percent)
    }),
    Column::two(
        "rate asked for",
        |run| optional(run.document.result.target_records_per_s, human::count),
        |run| {
            let met = run.document.result.target_rate_met;
            met.map_or("", |met| if met { "met" } else { "missed" }).to_owned()
        },
    ),
    percentile!("p50", p50),
    percentile!("p90", p90),
    percentile!("p99", p99),
    percentile!("p99.9", p999),
    percentile!("p99.99", p9999),
    percentile!("p99.999", p99999),
    percentile!("max", max),
    Column::new("batches", |run| human::count(run.document.result.latency_us.count as f64)),
];

fn summary(page: &mut String, runs: &[Subject]) {
    *page += "<section>\n<h2>Figures</h2>\n";
    tables::table(page, "run", runs, &FIGURES, |nth, _| name(nth, runs));
    put(page, format_args!("<p class=\"legend\">{LEGEND}</p>\n</section>\n"));
}

const SERVER: [Column<Subject>; 14] = [
    Column::new("CPU cores", |run| human::digits(run.document.result.server.cpu_cores)),
    Column::new("each core busy", |run| {
        let cores = run.document.result.server.cpu_by_core.iter();
        let shown: Vec<_> = cores.map(|share| format!("{:.0}", share * 100.0)).collect();
        if shown.is_empty() { NOTHING.to_owned() } else { format!("{} %", shown.join(", ")) }
    }),
    Column::new("RSS", |run| {
        human::bytes((run.document.result.server.rss_mib * 1_048_576.0) as u64)
    }),
    Column::new("context switches/s", |run| {
        optional(run.document.result.server.context_switches_per_s, human::count)
    }),
    Column::new("to the disk, by all", |run| {
        optional(run.document.result.server.device_bytes, human::bytes)
    }),
    Column::new("by the process", |run| {
        optional(run.document.result.server.process_write_bytes, human::bytes)
    }),
    Column::new("flushes", |run| {
        optional(run.document.result.server.flushes, |count| human::count(count as f64))
    }),
    Column::new("written per byte", |run| {
        optional(run.document.result.server.write_amplification, |ratio| format!("{ratio:.2}"))
    }),
    Column::new("space readied", |run| {
        optional(run.document.result.server.prepared_bytes, human::bytes)
    }),
    Column::new("io-wq cores", |run| {
        optional(run.document.result.server.io_wq_cores, human::digits)
    }),
    Column::new("io-wq runs", |run| {
        optional(run.document.result.server.io_wq_runs, |count| human::count(count as f64))
    }),
    Column::new("io-wq threads", |run| {
        optional(run.document.result.server.io_wq_threads, |count| count.to_string())
    }),
    Column::new("generator per record", |run| {
        human::micros(run.document.result.generator.overhead_ns_per_record / 1000.0)
    }),
    Column::new("generator busy", |run| human::percent(run.document.result.generator.busy * 100.0)),
];

fn server(page: &mut String, runs: &[Subject]) {
    *page += "<section>\n<h2>What the machine did meanwhile</h2>\n";
    tables::table(page, "run", runs, &SERVER, |nth, _| name(nth, runs));
    *page += "</section>\n";
}

fn settings(page: &mut String, runs: &[Subject]) {
    let Some(first) = runs.first() else { return };
    let differing = differing(runs);
    *page += "<section>\n<h2>The workload</h2>\n";
    if !differing.is_empty() {
        *page += "<table class=\"text\">\n<thead><tr><th scope=\"col\">run</th>";
        for name in &differing {
            put(page, format_args!("<th scope=\"col\">{}</th>", escape(name)));
        }
        *page += "</tr></thead>\n<tbody>\n";
        for (nth, run) in runs.iter().enumerate() {
            let title = escape(&run.title);
            put(
                page,
                format_args!(
                    "<tr><th scope=\"row\">{}<code>{title}</code></th>",
                    Key(nth).swatch()
                ),
            );
            let settings = run.settings();
            for name in &differing {
                let value = escape(&plain(settings.get(name)));
                put(page, format_args!("<td data-head=\"{}\">{value}</td>", escape(name)));
            }
            *page += "</tr>\n";
        }
        *page += "</tbody>\n</table>\n<h3>The same in all</h3>\n";
    }
    let settings = first.settings();
    let same = settings.iter().filter(|(name, _)| !differing.contains(name));
    list(page, same.map(|(name, value)| (name.as_str(), plain(Some(value)))));
    *page += "</section>\n";
}

fn list<'a>(page: &mut String, pairs: impl Iterator<Item = (&'a str, String)>) {
    *page += "<dl>\n";
    for (name, value) in pairs {
        put(page, format_args!("<dt>{}</dt><dd>{}</dd>\n", escape(name), escape(&value)));
    }
    *page += "</dl>\n";
}

/// Each machine once, with the runs that were on it.
fn machines(page: &mut String, runs: &[Subject]) {
    *page += "<section>\n<h2>The machine</h2>\n";
    let mut seen: Vec<(Vec<(&str, String)>, Vec<usize>)> = Vec::new();
    for (nth, run) in runs.iter().enumerate() {
        let mut facts = vec![("host", run.document.host.clone())];
        match &run.env {
            Some(env) => facts.extend(env.lines()),
            None => facts.push(("environment", "the summary does not say".to_owned())),
        }
        match seen.iter_mut().find(|(known, _)| *known == facts) {
            Some((_, of)) => of.push(nth),
            None => seen.push((facts, vec![nth])),
        }
    }
    let several = seen.len() > 1;
    for (facts, of) in seen {
        if several {
            let letters: String = of.iter().map(|nth| Key(*nth).letter()).collect();
            put(page, format_args!("<h3>{letters}</h3>\n"));
        }
        list(page, facts.into_iter());
    }
    *page += "</section>\n";
}

fn commands(page: &mut String, runs: &[Subject]) {
    *page += "<section>\n<h2>Commands</h2>\n";
    for (nth, run) in runs.iter().enumerate() {
        let (title, dir) = (escape(&run.title), escape(&run.dir.display().to_string()));
        put(page, format_args!("<h3>{}{title}</h3>\n", Key(nth).swatch()));
        command(page, &run.document.command);
        put(
            page,
            format_args!(
                "<p class=\"legend\">begun {} UTC, {dir}</p>\n",
                escape(&run.document.started)
            ),
        );
    }
    *page += "</section>\n";
}
