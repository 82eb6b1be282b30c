//! The arms of a claim as bars, group by group, on one axis: from zero, or, where they differ by more than a factor
//! of fifty, as points on a logarithmic one.

use super::super::page::{escape, put};
use crate::claims::document::{ArmEntry, Entry};
use crate::claims::rule::Figure;
use crate::human;
use crate::scale::Axis;
use crate::stats::median;

/// Largest over smallest from which on the axis is logarithmic.
const LOG_FROM: f64 = 50.0;

/// Colours there are.
const COLOURS: usize = 8;

/// How bars are laid out, in pixels.
struct Layout {
    class: &'static str,
    width: f64,
    /// Where the axis begins and ends.
    axis: (f64, f64),
    /// A row's height, and from its top to its bar's middle.
    row: f64,
    middle: f64,
    /// Where labels begin and how far below a row's top their line is.
    label: (f64, f64),
    tick: f64,
}

const LAYOUTS: [Layout; 2] = [
    Layout {
        class: "wide",
        width: 1040.0,
        axis: (200.0, 900.0),
        row: 26.0,
        middle: 13.0,
        label: (16.0, 17.0),
        tick: 90.0,
    },
    Layout {
        class: "narrow",
        width: 360.0,
        axis: (2.0, 268.0),
        row: 40.0,
        middle: 26.0,
        label: (2.0, 14.0),
        tick: 90.0,
    },
];

const HEAD: f64 = 28.0;
const FOOT: f64 = 24.0;
const BAR_HIGH: f64 = 14.0;

/// Draws them for a desk and a phone.
pub(super) fn draw(text: &mut String, entry: &Entry, figure: Option<Figure>) {
    let all = || entry.arms.iter().flat_map(|arm| arm.rounds.iter().copied());
    let middles: Vec<f64> =
        entry.arms.iter().filter_map(middle).filter(|value| *value > 0.0).collect();
    let most = all().fold(0.0, f64::max);
    let least = middles.iter().copied().fold(f64::INFINITY, f64::min);
    if middles.is_empty() || most <= 0.0 {
        return;
    }
    let log = middles.iter().copied().fold(0.0, f64::max) / least > LOG_FROM;
    let lowest = all().filter(|value| *value > 0.0).fold(f64::INFINITY, f64::min);
    let axis = if log { Axis::log(lowest, most) } else { Axis::linear(most) };
    for layout in &LAYOUTS {
        Drawing { layout, entry, figure, axis, log }.draw(text);
    }
}

fn middle(arm: &ArmEntry) -> Option<f64> {
    median(arm.rounds.iter().copied())
}

struct Drawing<'a> {
    layout: &'a Layout,
    entry: &'a Entry,
    figure: Option<Figure>,
    axis: Axis,
    log: bool,
}

impl Drawing<'_> {
    fn x(&self, value: f64) -> f64 {
        let (from, to) = self.layout.axis;
        from + self.axis.share(value).clamp(0.0, 1.0) * (to - from)
    }

    /// Arms of the same label have the same colour; where no label comes again, all have the first.
    fn colour(&self, arm: &ArmEntry) -> usize {
        let mut labels: Vec<&str> = Vec::new();
        for arm in &self.entry.arms {
            if !labels.contains(&arm.label.as_str()) {
                labels.push(&arm.label);
            }
        }
        if labels.len() == self.entry.arms.len() {
            return 0;
        }
        labels.iter().position(|label| *label == arm.label).unwrap_or(0) % COLOURS
    }

    fn draw(&self, text: &mut String) {
        let layout = self.layout;
        let arms = &self.entry.arms;
        let groups = arms.iter().enumerate();
        let groups = groups.filter(|(nth, arm)| *nth == 0 || arms[nth - 1].group != arm.group);
        let low = groups.count() as f64 * HEAD + arms.len() as f64 * layout.row + 6.0;
        put(
            text,
            format_args!(
                "<svg class=\"{}\" viewBox=\"0 0 {} {}\" role=\"img\" aria-label=\"{}\">\n",
                layout.class,
                layout.width,
                low + FOOT,
                escape(&self.spoken())
            ),
        );
        self.grid(text, low);
        let (mut y, mut group) = (0.0, "");
        for arm in arms {
            if arm.group != group {
                group = &arm.group;
                put(
                    text,
                    format_args!(
                        "<text class=\"head\" x=\"0\" y=\"{}\">{}</text>\n",
                        y + 19.0,
                        escape(group)
                    ),
                );
                y += HEAD;
            }
            self.arm(text, arm, y);
            y += layout.row;
        }
        *text += "</svg>\n";
    }

    /// The picture in words, for those who do not see it.
    fn spoken(&self) -> String {
        let arms = self.entry.arms.iter().filter(|arm| !arm.rounds.is_empty());
        let told = arms.map(|arm| format!("{}, {}: {}", arm.group, arm.label, arm.told));
        told.collect::<Vec<_>>().join("; ")
    }

    fn grid(&self, text: &mut String, low: f64) {
        let (from, to) = self.layout.axis;
        for value in self.axis.ticks(((to - from) / self.layout.tick) as usize) {
            let x = self.x(value);
            let label = self.figure.map_or_else(|| human::tick_count(value), |f| f.tick(value));
            put(
                text,
                format_args!(
                    "<line class=\"grid\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"0\" \
                     y2=\"{low}\"/><text x=\"{x:.1}\" y=\"{}\" \
                     text-anchor=\"middle\">{label}</text>\n",
                    low + 16.0
                ),
            );
        }
    }

    fn arm(&self, text: &mut String, arm: &ArmEntry, top: f64) {
        let layout = self.layout;
        put(
            text,
            format_args!(
                "<text x=\"{}\" y=\"{}\">{}</text>\n",
                layout.label.0,
                top + layout.label.1,
                escape(&arm.label)
            ),
        );
        let y = top + layout.middle;
        let Some(value) = middle(arm) else {
            let why = if arm.absent.is_some() { "not run" } else { "nothing measured" };
            put(
                text,
                format_args!(
                    "<text x=\"{}\" y=\"{}\">{why}</text>\n",
                    layout.axis.0 + 6.0,
                    y + 4.0
                ),
            );
            return;
        };
        let least = arm.rounds.iter().copied().fold(f64::INFINITY, f64::min);
        let most = arm.rounds.iter().copied().fold(0.0, f64::max);
        let (x, left, right) = (self.x(value), self.x(least), self.x(most));
        let colour = self.colour(arm);
        if self.log {
            put(
                text,
                format_args!("<circle class=\"b{colour}\" cx=\"{x:.1}\" cy=\"{y}\" r=\"5\"/>"),
            );
        } else {
            let (from, high) = (layout.axis.0, y - BAR_HIGH / 2.0);
            let wide = (x - from).max(1.0);
            put(
                text,
                format_args!(
                    "<rect class=\"b{colour}\" x=\"{from}\" y=\"{high}\" width=\"{wide:.1}\" \
                     height=\"{BAR_HIGH}\" rx=\"1\"/>"
                ),
            );
        }
        put(
            text,
            format_args!(
                "<line class=\"span\" x1=\"{left:.1}\" x2=\"{right:.1}\" y1=\"{y}\" \
                 y2=\"{y}\"/><text class=\"value\" x=\"{:.1}\" y=\"{}\">{}</text>\n",
                right.max(x + 5.0) + 8.0,
                y + 4.0,
                escape(&arm.told)
            ),
        );
    }
}
