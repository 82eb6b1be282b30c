//! A picture of its own: throughput against p99.9 of several runs, and what nothing beats. It needs nothing but itself,
//! so that a README can show it, by day and by night.

use super::lines::{COLOURS, Key};
use super::page::{escape, put};
use super::runs::settings_apart;
use super::sheet::{Frame, Sheet, Unit};
use super::subject::Subject;
use crate::env::Env;
use crate::human;
use crate::scale::Axis;
use crate::sweep::judge::{Group, Point, groups};
use crate::sweep::plan::Cell;

const STYLE: &str = include_str!("front.css");

/// The axes and what is between them.
const SHEET: Sheet = Sheet { class: "", width: 880.0, height: 470.0 };

/// Pixels above them, for the title, and of a line of text below.
const HEAD: f64 = 82.0;
const LINE: f64 = 20.0;

/// Where text begins.
const MARGIN: f64 = 16.0;

/// Pixels of half a mark, and of a label's letters, at the style's 12 pixels.
const MARK: f64 = 5.0;
const LETTER: f64 = 6.4;
const LABEL_HIGH: f64 = 14.0;

/// How far from its mark a label may stand, in its own heights.
const ASIDE: i32 = 7;

/// The setting that the kind of ack follows from: the colour tells it.
const POLICY: &str = "flush";

/// The picture; none with fewer than two runs that have both figures.
pub(super) fn render(runs: &[Subject]) -> Option<String> {
    let cells: Vec<Cell> = runs.iter().enumerate().map(|(nth, _)| cell(nth, runs)).collect();
    let groups = groups(cells.iter().zip(runs.iter().map(|run| &run.document)));
    let drawn = || groups.iter().flat_map(|group| &group.points).filter(|point| is_drawn(point));
    if drawn().count() < 2 {
        return None;
    }
    let latencies: Vec<f64> = drawn().map(|point| point.p999_us * 1000.0).collect();
    let rates: Vec<f64> =
        drawn().flat_map(|point| repeats(point).chain([point.records_per_s])).collect();
    let frame = Frame { x: (around(&latencies), Unit::Latency), y: (around(&rates), Unit::Rate) };
    let height = HEAD + SHEET.height + (groups.len() + 4) as f64 * LINE;
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {0} {height}\" width=\"{0}\" height=\"{height}\" \
         role=\"img\">\n<title>Throughput against p99.9 of {1} runs</title>\n<style>\n{STYLE}</style>\n\
         <rect class=\"paper\" width=\"{0}\" height=\"{height}\"/>\n",
        SHEET.width,
        drawn().count()
    );
    head(&mut text, runs, drawn().next()?);
    put(&mut text, format_args!("<g transform=\"translate(0 {HEAD})\">\n"));
    SHEET.grid(&mut text, &frame);
    let mut labels = Labels::around(drawn().map(|point| place(&frame, point)));
    for (nth, group) in groups.iter().enumerate() {
        edge(&mut text, &frame, nth, group);
    }
    // The front's labels first: they are what is looked for.
    let mut all: Vec<_> = groups
        .iter()
        .enumerate()
        .flat_map(|(nth, group)| group.points.iter().map(move |point| (nth, point)))
        .filter(|(_, point)| is_drawn(point))
        .collect();
    all.sort_by_key(|(_, point)| !point.is_front);
    for (nth, point) in &all {
        mark(&mut text, &frame, *nth, point);
    }
    for (nth, point) in &all {
        labels.write(&mut text, place(&frame, point), Key(*nth), &name(point));
    }
    text += "</g>\n";
    legend(&mut text, &groups);
    text += "</svg>\n";
    Some(text)
}

/// A run as a sweep's judge knows it.
fn cell(nth: usize, runs: &[Subject]) -> Cell {
    Cell {
        number: nth as u32 + 1,
        settings: settings_apart(nth, runs),
        workload: runs[nth].document.workload.clone(),
        directory: runs[nth].title.clone(),
    }
}

fn is_drawn(point: &Point<'_>) -> bool {
    point.records_per_s > 0.0 && point.p999_us > 0.0
}

/// The rates of a run's repeats in which something was acked.
fn repeats(point: &Point<'_>) -> impl Iterator<Item = f64> {
    point
        .document
        .result
        .repeats
        .iter()
        .map(|repeat| repeat.records_per_s)
        .filter(|rate| *rate > 0.0)
}

fn around(values: &[f64]) -> Axis {
    let least = values.iter().copied().fold(f64::INFINITY, f64::min);
    Axis::log(least, values.iter().copied().fold(0.0, f64::max))
}

fn place(frame: &Frame, point: &Point<'_>) -> (f64, f64) {
    let x = SHEET.x(frame.x.0.share(point.p999_us * 1000.0));
    (x, SHEET.y(frame.y.0.share(point.records_per_s)))
}

/// What sets a run apart from others of its colour: the values alone, their names are in the head.
fn name(point: &Point<'_>) -> String {
    let values = point.choices().into_iter().filter(|(name, _)| name != POLICY);
    values.map(|(_, value)| value).collect::<Vec<_>>().join(" \u{b7} ")
}

fn head(text: &mut String, runs: &[Subject], any: &Point<'_>) {
    let names = any.choices().into_iter().map(|(name, _)| name).filter(|name| name != POLICY);
    let names = names.collect::<Vec<_>>().join(" \u{b7} ");
    let labels = if names.is_empty() { String::new() } else { format!("; labels: {names}") };
    line(text, "title", 28.0, "What throughput costs in latency");
    let one =
        runs.iter().all(|run| run.env.as_ref().map(machine) == runs[0].env.as_ref().map(machine));
    let machine = runs[0].env.as_ref().filter(|_| one).map(machine).unwrap_or_default();
    line(text, "", 48.0, &machine);
    line(
        text,
        "",
        HEAD - 6.0,
        &format!("records acked a second \u{2191} (up and left is better{labels})"),
    );
}

/// The machine in a line, as far as the system says.
fn machine(env: &Env) -> String {
    let volume = &env.volume;
    let disk = [&volume.file_system, &volume.model].into_iter().flatten().cloned();
    // What follows the numbers is the distribution's.
    let kernel = env.kernel.as_ref().and_then(|kernel| kernel.split('-').next());
    let parts = [
        env.cpu.as_ref().map(|cpu| format!("{} cores of {cpu}", env.cores)),
        env.memory_bytes.map(human::bytes),
        Some(disk.collect::<Vec<_>>().join(" on ")).filter(|disk| !disk.is_empty()),
        kernel.map(|kernel| format!("Linux {kernel}")),
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

fn line(text: &mut String, class: &str, y: f64, what: &str) {
    put(
        text,
        format_args!("<text class=\"{class}\" x=\"{MARGIN}\" y=\"{y}\">{}</text>\n", escape(what)),
    );
}

/// What nothing beats, from the fastest to the one with the shortest tail.
fn edge(text: &mut String, frame: &Frame, nth: usize, group: &Group<'_>) {
    let front = group.front().into_iter().filter(|point| is_drawn(point));
    let places: Vec<String> = front
        .map(|point| {
            let (x, y) = place(frame, point);
            format!("{x:.1} {y:.1}")
        })
        .collect();
    if places.len() > 1 {
        let stroke = Key(nth).stroke();
        put(text, format_args!("<path class=\"edge {stroke}\" d=\"M{}\"/>\n", places.join("L")));
    }
}

/// A run: its kind's shape, hollow if it is not to be relied on, and a line from its slowest repeat to its fastest.
fn mark(text: &mut String, frame: &Frame, nth: usize, point: &Point<'_>) {
    let (x, y) = place(frame, point);
    let colour = nth % COLOURS;
    let low = repeats(point).fold(f64::INFINITY, f64::min);
    let high = repeats(point).fold(0.0, f64::max);
    if low < high {
        let [low, high] = [low, high].map(|rate| SHEET.y(frame.y.0.share(rate)));
        put(
            text,
            format_args!("<path class=\"spread k{colour}\" d=\"M{x:.1} {low:.1}V{high:.1}\"/>"),
        );
    }
    let hollow = if is_hollow(point) { " hollow" } else { "" };
    let title = format!(
        "{}: {} records/s, p99.9 {}",
        name(point),
        human::count(point.records_per_s),
        human::micros(point.p999_us)
    );
    put(
        text,
        format_args!(
            "<path class=\"mark k{colour} f{colour}{hollow}\" d=\"{}\"><title>{}</title></path>\n",
            shape(nth, x, y),
            escape(&title)
        ),
    );
}

fn is_hollow(point: &Point<'_>) -> bool {
    point.is_thin() || point.doubt.is_some()
}

/// The outline of the mark of a kind around a place: told apart without colours.
fn shape(nth: usize, x: f64, y: f64) -> String {
    let (m, d) = (MARK, 2.0 * MARK);
    match nth % 4 {
        0 => format!("M{:.1} {y:.1}a{m} {m} 0 1 0 {d} 0a{m} {m} 0 1 0 -{d} 0Z", x - m),
        1 => format!("M{:.1} {:.1}h{d}v{d}h-{d}Z", x - m, y - m),
        2 => format!("M{x:.1} {:.1}l{m} {d}h-{d}Z", y - m),
        _ => format!("M{x:.1} {:.1}l{m} {m}l-{m} {m}l-{m} -{m}Z", y - m),
    }
}

fn legend(text: &mut String, groups: &[Group<'_>]) {
    let mut y = HEAD + SHEET.height + LINE;
    put(
        text,
        format_args!(
            "<text x=\"{}\" y=\"{y}\" text-anchor=\"end\">p99.9 from the moment a batch was due to its ack \
             \u{2192}</text>\n",
            SHEET.width - MARGIN
        ),
    );
    for (nth, group) in groups.iter().enumerate() {
        y += LINE;
        let colour = nth % COLOURS;
        let conditions = group.conditions.iter().map(|(name, value)| format!("; {name} {value}"));
        let what = format!("{}{}", group.ack.meaning(), conditions.collect::<String>());
        put(
            text,
            format_args!(
                "<path class=\"mark k{colour} f{colour}\" d=\"{}\"/>\
                 <text class=\"name\" x=\"{}\" y=\"{y}\">{}</text>\n",
                shape(nth, MARGIN + MARK, y - 4.0),
                MARGIN + 20.0,
                escape(&what)
            ),
        );
    }
    let how = "A line joins what nothing of its colour beats in both; an upright one goes from the slowest repeat to \
               the fastest.";
    line(text, "", y + LINE, how);
    if groups.iter().flat_map(|group| &group.points).any(is_hollow) {
        let why =
            "Hollow: too few batches beyond p99.9, or not to be relied on for another reason.";
        line(text, "", y + 2.0 * LINE, why);
    }
}

/// Labels that have a place, and marks: nothing may lie on them.
struct Labels(Vec<[f64; 4]>);

impl Labels {
    fn around(marks: impl Iterator<Item = (f64, f64)>) -> Self {
        let reach = MARK + 1.0;
        Self(marks.map(|(x, y)| [x - reach, y - reach, x + reach, y + reach]).collect())
    }

    /// Writes a label beside its mark, at the nearest free place; a thin line leads to one that stands further off.
    fn write(&mut self, text: &mut String, (x, y): (f64, f64), key: Key, label: &str) {
        if label.is_empty() {
            return;
        }
        let width = label.chars().count() as f64 * LETTER;
        let gap = MARK + 4.0;
        let beside = [x + gap, x - gap - width, x - width / 2.0];
        let places = (0..=ASIDE).flat_map(|step| [step, -step]).flat_map(|step| {
            let middle = y + f64::from(step) * LABEL_HIGH;
            beside.map(|left| {
                [left, middle - LABEL_HIGH / 2.0, left + width, middle + LABEL_HIGH / 2.0]
            })
        });
        let mut places = places.filter(|area| self.is_free(area));
        let Some(area) = places.next() else { return };
        let middle = f64::midpoint(area[1], area[3]);
        if (middle - y).abs() > 1.5 * LABEL_HIGH {
            let to = x.clamp(area[0], area[2]);
            let edge = if middle < y { area[3] } else { area[1] };
            let colour = key.0 % COLOURS;
            put(
                text,
                format_args!(
                    "<path class=\"lead k{colour}\" d=\"M{x:.1} {y:.1}L{to:.1} {edge:.1}\"/>"
                ),
            );
        }
        put(
            text,
            format_args!(
                "<text class=\"name\" x=\"{:.1}\" y=\"{:.1}\">{}</text>\n",
                area[0],
                middle + 4.0,
                escape(label)
            ),
        );
        drop(places);
        self.0.push(area);
    }

    fn is_free(&self, area: &[f64; 4]) -> bool {
        let inside = area[0] >= SHEET.x(0.0)
            && area[2] <= SHEET.width
            && area[1] >= SHEET.y(1.0) - LABEL_HIGH
            && area[3] <= SHEET.y(0.0);
        let apart = |other: &[f64; 4]| {
            area[2] <= other[0] || other[2] <= area[0] || area[3] <= other[1] || other[3] <= area[1]
        };
        inside && self.0.iter().all(apart)
    }
}
