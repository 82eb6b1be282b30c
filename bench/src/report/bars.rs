//! Bars on a log axis from a median to a high percentile, with a whisker to the longest: for what has no sum. Phases
//! of one request do not add up in percentiles, so their bars stand under each other and not on top.

use super::lines::{COLOURS, Key};
use super::page::{escape, put, spaced};
use crate::human;
use crate::scale::Axis;

/// One bar, in nanoseconds.
#[derive(Clone, Debug)]
pub(super) struct Bar<'a> {
    /// Which run.
    pub(super) key: Key,
    /// Its name.
    pub(super) name: &'a str,
    /// Where the bar begins.
    pub(super) p50: f64,
    /// Where it ends.
    pub(super) p99: f64,
    /// Where the whisker ends.
    pub(super) max: f64,
}

/// Bars of one phase.
#[derive(Clone, Debug)]
pub(super) struct Group<'a> {
    /// What is common to them.
    pub(super) name: &'a str,
    /// What it is, in a sentence.
    pub(super) about: &'a str,
    /// A bar a run.
    pub(super) bars: Vec<Bar<'a>>,
}

/// How bars are laid out, in pixels.
struct Layout {
    class: &'static str,
    width: f64,
    /// Where the axis begins and ends.
    axis: (f64, f64),
    /// A bar's height with its label.
    row: f64,
    /// From a row's top to its bar.
    bar: f64,
    /// Pixels an axis has for each of its labels.
    tick: f64,
}

const LAYOUTS: [Layout; 2] = [
    Layout { class: "wide", width: 1040.0, axis: (40.0, 860.0), row: 18.0, bar: 5.0, tick: 40.0 },
    Layout { class: "narrow", width: 360.0, axis: (20.0, 340.0), row: 32.0, bar: 19.0, tick: 36.0 },
];

const HEAD: f64 = 26.0;
const FOOT: f64 = 24.0;
/// Room that a label of the axis takes, with some to its neighbour.
const LABEL_WIDE: f64 = 52.0;

const BAR_HIGH: f64 = 9.0;

/// Draws all groups on one axis, for a desk and a phone.
pub(super) fn draw(text: &mut String, groups: &[Group<'_>]) {
    let bars = || groups.iter().flat_map(|group| &group.bars);
    let least = bars().map(|bar| bar.p50).fold(f64::INFINITY, f64::min).max(1.0);
    let most = bars().map(|bar| bar.max.max(bar.p99)).fold(0.0, f64::max);
    if !least.is_finite() || most <= 0.0 {
        return;
    }
    let axis = Axis::log(least, most.max(least));
    for layout in &LAYOUTS {
        layout.draw(text, groups, axis);
    }
}

impl Layout {
    fn x(&self, axis: Axis, ns: f64) -> f64 {
        self.axis.0 + axis.share(ns.max(1.0)).clamp(0.0, 1.0) * (self.axis.1 - self.axis.0)
    }

    fn draw(&self, text: &mut String, groups: &[Group<'_>], axis: Axis) {
        let rows: usize = groups.iter().map(|group| group.bars.len()).sum();
        let low = groups.len() as f64 * HEAD + rows as f64 * self.row + 6.0;
        let names = groups.iter().map(|group| group.name).collect::<Vec<_>>().join(", ");
        put(
            text,
            format_args!(
                "<svg class=\"{}\" viewBox=\"0 0 {} {}\" role=\"img\" aria-label=\"Phases: {}\">\n",
                self.class,
                self.width,
                low + FOOT,
                escape(&names)
            ),
        );
        let wanted = ((self.axis.1 - self.axis.0) / self.tick) as usize;
        for (x, label) in self.labels(axis, wanted) {
            let at = low + 16.0;
            put(
                text,
                format_args!(
                    "<line class=\"grid\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"0\" y2=\"{low}\"/>\
                     <text x=\"{x:.1}\" y=\"{at}\" text-anchor=\"middle\">{label}</text>\n"
                ),
            );
        }
        let mut y = 0.0;
        for group in groups {
            put(
                text,
                format_args!(
                    "<text class=\"head\" x=\"0\" y=\"{}\">{}<title>{}</title></text>\n",
                    y + 18.0,
                    escape(group.name),
                    escape(group.about)
                ),
            );
            y += HEAD;
            for bar in &group.bars {
                self.bar(text, axis, bar, y);
                y += self.row;
            }
        }
        *text += "</svg>\n";
    }

    /// Where round times lie, and what they are called; nothing where there is no room for the name, and powers of ten
    /// before others.
    fn labels(&self, axis: Axis, wanted: usize) -> Vec<(f64, String)> {
        let ticks = axis.ticks(wanted);
        let is_power = |ns: f64| (ns.log10() - ns.log10().round()).abs() < 1e-6;
        let (powers, others): (Vec<f64>, Vec<f64>) =
            ticks.into_iter().partition(|ns| is_power(*ns));
        let mut labels: Vec<(f64, String)> = Vec::new();
        for ns in powers.into_iter().chain(others) {
            let x = self.x(axis, ns);
            if labels.iter().all(|(taken, _)| (taken - x).abs() >= LABEL_WIDE) {
                labels.push((x, human::tick(ns / 1000.0)));
            }
        }
        labels
    }

    fn bar(&self, text: &mut String, axis: Axis, bar: &Bar<'_>, top: f64) {
        let [from, to, tip] = [bar.p50, bar.p99, bar.max].map(|ns| self.x(axis, ns));
        let said = [bar.p50, bar.p99, bar.max].map(|ns| spaced(&human::micros(ns / 1000.0)));
        let (y, middle) = (top + self.bar, top + self.bar + BAR_HIGH / 2.0);
        let colour = bar.key.0 % COLOURS;
        let values = format!("{} · {} · {}", said[0], said[1], said[2]);
        put(
            text,
            format_args!(
                "<g><title>{}: p50, p99 and longest: {values}</title>\
                 <line class=\"whisker k{colour}\" x1=\"{to:.1}\" x2=\"{tip:.1}\" y1=\"{middle}\" y2=\"{middle}\"/>\
                 <rect class=\"b{colour}\" x=\"{from:.1}\" y=\"{y}\" width=\"{:.1}\" height=\"{BAR_HIGH}\"/>",
                escape(bar.name),
                (to - from).max(2.0)
            ),
        );
        let letter = bar.key.letter();
        let (x, baseline, anchor) = if self.bar > BAR_HIGH {
            (self.axis.0, top + 13.0, "start")
        } else {
            (self.width, middle + 4.0, "end")
        };
        put(
            text,
            format_args!(
                "<text class=\"letter l{colour}\" x=\"4\" y=\"{:.1}\">{letter}</text>\
                 <text x=\"{x}\" y=\"{baseline:.1}\" text-anchor=\"{anchor}\">{values}</text></g>\n",
                middle + 4.0
            ),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bar(nth: usize, p50: f64) -> Bar<'static> {
        Bar { key: Key(nth), name: "a & b", p50, p99: p50 * 3.0, max: p50 * 40.0 }
    }

    #[test]
    fn a_slower_phase_begins_further_right() {
        let groups = [
            Group { name: "queue", about: "waiting", bars: vec![bar(0, 1e4)] },
            Group { name: "flush", about: "on the device", bars: vec![bar(0, 1e6)] },
        ];
        let mut text = String::new();
        draw(&mut text, &groups);
        let starts: Vec<f64> = text
            .split("<rect class=\"b0\" x=\"")
            .skip(1)
            .take(2)
            .map(|rest| rest.split('"').next().expect("a number").parse().expect("a number"))
            .collect();
        assert!(starts[0] + 100.0 < starts[1], "{starts:?}");
        assert!(text.contains("a &amp; b") && text.contains("1.00&nbsp;ms"));
    }

    #[test]
    fn nothing_measured_is_nothing_drawn() {
        let mut text = String::new();
        draw(&mut text, &[Group { name: "fetch", about: "", bars: Vec::new() }]);
        assert!(text.is_empty());
    }
}
