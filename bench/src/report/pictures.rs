//! The drawings of a page of runs.

use super::bars::{self, Bar, Group};
use super::heat::{self, Heat};
use super::lines::{self, Key, Line};
use super::page::{escape, put};
use super::runs::label;
use super::sheet::{CARD, FULL, HALF, Sheet, Unit};
use super::subject::{Moment, Subject};
use crate::histogram::CurvePoint;
use crate::plot::Curve;
use crate::run::result::{Latency, PhaseOf, Phases};
use crate::scale::Axis;

/// Percentile curves, from the intended and from the actual send time, on the same axes.
pub(super) fn curves(page: &mut String, runs: &[Subject]) {
    let labels: Vec<String> = (0..runs.len()).map(|nth| label(nth, runs)).collect();
    let of = |points: fn(&Subject) -> &[CurvePoint]| {
        let all = runs.iter().zip(&labels).enumerate();
        all.map(|(nth, (run, name))| (Key(nth), Curve { name, points: points(run) }))
            .collect::<Vec<_>>()
    };
    let (corrected, uncorrected) = (of(|run| &run.corrected), of(|run| &run.uncorrected));
    let both: Vec<_> = corrected.iter().chain(&uncorrected).cloned().collect();
    let Some((frame, _)) = lines::of_curves(&both) else { return };
    *page += "<section>\n<h2>Latency</h2>\n<figure>\n";
    put(
        page,
        format_args!(
            "<figcaption>{} A curve ends where fewer than ten batches lie beyond it.</figcaption>\n\
             <div class=\"pair\">\n",
            lines::CURVES_CAPTION
        ),
    );
    let panels = [
        ("Corrected: from the moment a batch was due", &corrected),
        ("Uncorrected: from the moment it was sent", &uncorrected),
    ];
    for (title, curves) in panels {
        put(page, format_args!("<div><h3>{title}</h3>\n"));
        let drawn = lines::of_curves(curves).map(|(_, lines)| lines).unwrap_or_default();
        lines::draw(page, HALF, &frame, title, &drawn);
        *page += "</div>\n";
    }
    *page += "</div>\n</figure>\n</section>\n";
}

/// Rate and latency, moment by moment.
pub(super) fn over_time(page: &mut String, runs: &[Subject]) {
    let moments = || runs.iter().flat_map(|run| &run.moments);
    if moments().next().is_none() {
        return;
    }
    let seconds = longest(runs);
    *page += "<section>\n<h2>Over time</h2>\n<p class=\"legend\">Repeats stand one behind the other, with a gap \
              between them. A log counts batches; records are the repeat\u{2019}s mean of them.</p>\n";
    let most = moments().filter_map(|moment| moment.records_per_s).fold(0.0, f64::max);
    let rate = lines::over_time(seconds, (Axis::linear(most), Unit::Rate));
    figure(page, runs, "Records acked a second", |text, labels| {
        let drawn = lines_of(runs, labels, |moment| moment.records_per_s);
        lines::draw(text, FULL, &rate, "Records acked a second", &drawn);
    });
    let Some(axis) = latencies(runs, |moment| moment.p99) else { return };
    let frame = lines::over_time(seconds, (axis, Unit::Latency));
    figure(page, runs, "p99 of each moment, corrected", |text, labels| {
        let drawn = lines_of(runs, labels, |moment| {
            // No latency where nothing was acked: a gap.
            (moment.p99 > 0).then_some(moment.p99 as f64)
        });
        lines::draw(text, FULL, &frame, "p99 of each moment", &drawn);
    });
    *page += "</section>\n";
}

fn figure(
    page: &mut String,
    runs: &[Subject],
    caption: &str,
    draw: impl FnOnce(&mut String, &[String]),
) {
    let labels: Vec<String> = (0..runs.len()).map(|nth| label(nth, runs)).collect();
    put(page, format_args!("<figure>\n<figcaption>{caption}</figcaption>\n"));
    draw(page, &labels);
    *page += "</figure>\n";
}

fn longest(runs: &[Subject]) -> f64 {
    let ends = runs.iter().filter_map(|run| run.moments.last().map(|moment| moment.seconds.1));
    runs.iter().map(|run| run.seconds).chain(ends).fold(0.0, f64::max)
}

/// A log axis around a latency of all moments in which something was acked.
fn latencies(runs: &[Subject], of: fn(&Moment) -> u64) -> Option<Axis> {
    let all = || runs.iter().flat_map(|run| &run.moments).map(of).filter(|ns| *ns > 0);
    Some(Axis::log(all().min()? as f64, all().max()? as f64))
}

fn lines_of<'a>(
    runs: &[Subject],
    labels: &'a [String],
    value: fn(&Moment) -> Option<f64>,
) -> Vec<Line<'a>> {
    let line = |(nth, (run, name)): (usize, (&Subject, &'a String))| {
        let mut points = Vec::with_capacity(run.moments.len());
        let mut repeat = 0;
        for moment in &run.moments {
            let middle = f64::midpoint(moment.seconds.0, moment.seconds.1);
            if moment.repeat != repeat {
                points.push((middle, f64::NAN));
                repeat = moment.repeat;
            }
            points.push((middle, value(moment).unwrap_or(f64::NAN)));
        }
        Line { key: Key(nth), name, class: "time", points }
    };
    runs.iter().zip(labels).enumerate().map(line).collect()
}

/// A map a run, all on the same axes.
pub(super) fn heat_maps(page: &mut String, runs: &[Subject]) {
    let bands = || {
        runs.iter().flat_map(|run| &run.moments).flat_map(|moment| &moment.bands).map(|cell| cell.0)
    };
    let (Some(least), Some(most)) = (bands().min(), bands().max()) else { return };
    let axis = Axis::log(heat::bound(least) as f64, heat::bound(most + 1) as f64);
    let frame = lines::over_time(longest(runs), (axis, Unit::Latency));
    *page += "<section>\n<h2>How latencies were spread</h2>\n<figure>\n<figcaption>Latency from the moment a batch was \
              due (left), moment by moment (below).</figcaption>\n";
    heat::legend(page);
    let (sheets, class): (&[Sheet], _) = if runs.len() == 1 { (FULL, "") } else { (CARD, "cards") };
    put(page, format_args!("<div class=\"{class}\">\n"));
    let drawn = runs.iter().enumerate().filter(|(_, run)| !run.moments.is_empty());
    for (nth, run) in drawn {
        // A spoilt run may say that it lasted no time at all.
        let moments = run.moments.len().max(1).saturating_mul(moments_share(run, runs));
        let mut map = Heat::new(longest(runs), moments);
        for moment in &run.moments {
            map.add(f64::midpoint(moment.seconds.0, moment.seconds.1), &moment.bands);
        }
        let name = label(nth, runs);
        *page += "<div>";
        if runs.len() > 1 {
            put(page, format_args!("<h3>{}</h3>\n", escape(&name)));
        }
        heat::draw(page, sheets, &frame, (&format!("Heat map of latencies: {name}"), &map));
        *page += "</div>\n";
    }
    *page += "</div>\n</figure>\n</section>\n";
}

/// How many times longer the axis is than the run, so that a short run's columns are as long as its moments.
fn moments_share(run: &Subject, runs: &[Subject]) -> usize {
    if run.seconds > 0.0 { (longest(runs) / run.seconds).round().max(1.0) as usize } else { 1 }
}

/// A phase: its name, what it is, and where a run's document has it.
type Phase = (&'static str, &'static str, fn(&Phases) -> Option<&Latency>);

const PHASES: [Phase; 5] = [
    ("queue", "from the moment a batch was due to its send", |phases| Some(&phases.queue)),
    ("write", "from the send until its bytes were written", |phases| phases.write.as_ref()),
    ("flush", "from then until they were flushed", |phases| phases.flush.as_ref()),
    ("ack", "from the last moment known before to the ack", |phases| Some(&phases.ack)),
    ("fetch", "from the ack until a consumer had it", |phases| phases.fetch.as_ref()),
];

/// Phases of a batch's way, each with a bar a run.
pub(super) fn phases(page: &mut String, runs: &[Subject]) {
    let labels: Vec<String> = (0..runs.len()).map(|nth| label(nth, runs)).collect();
    let mut groups = Vec::new();
    for (name, about, of) in PHASES {
        let measured = runs.iter().zip(&labels).enumerate().filter_map(|(nth, (run, name))| {
            let latency = of(&run.document.result.phases_us).filter(|latency| latency.count > 0)?;
            let [p50, p99, max] = [latency.p50, latency.p99, latency.max].map(|us| us * 1000.0);
            Some(Bar { key: Key(nth), name, p50, p99, max })
        });
        let bars: Vec<_> = measured.collect();
        if !bars.is_empty() {
            groups.push(Group { name, about, bars });
        }
    }
    if groups.is_empty() {
        return;
    }
    *page += "<section>\n<h2>Phases of a batch</h2>\n<figure>\n<figcaption>A bar goes from the median to p99, its \
              whisker to the longest; the numbers are these three. Percentiles of parts do not add up to those of \
              the whole.</figcaption>\n";
    bars::draw(page, &groups);
    *page += "<p class=\"legend\">";
    let told =
        groups.iter().map(|group| format!("{}: {}", group.name, group.about)).collect::<Vec<_>>();
    put(page, format_args!("{}.", escape(&told.join("; "))));
    let any = |of: fn(&Phases) -> bool| runs.iter().any(|run| of(&run.document.result.phases_us));
    if any(|phases| phases.flush_has_write) {
        *page += " Where there is a flush and no write, both are one operation, a durable write.";
    }
    if any(|phases| phases.of == PhaseOf::Operations) {
        *page += " The engine tells each write and each flush, from its submission to its completion, and not each of \
                  the many batches that share it: its ack is the whole way from the send on.";
    }
    *page += "</p>\n</figure>\n</section>\n";
}
