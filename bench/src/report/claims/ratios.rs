//! The comparisons of a claim on one logarithmic axis of ratios: a dot with its interval, and where the claim holds.

use super::super::page::{escape, put};
use crate::claims::document::{Comparison, Entry};
use crate::claims::rule::Outcome;
use crate::human;
use crate::scale::Axis;

struct Layout {
    class: &'static str,
    width: f64,
    axis: (f64, f64),
    row: f64,
    middle: f64,
    /// How far below a row's top its label is.
    label: f64,
    ticks: usize,
}

const LAYOUTS: [Layout; 2] = [
    Layout {
        class: "wide",
        width: 1040.0,
        axis: (430.0, 880.0),
        row: 28.0,
        middle: 14.0,
        label: 18.0,
        ticks: 8,
    },
    Layout {
        class: "narrow",
        width: 360.0,
        axis: (18.0, 296.0),
        row: 44.0,
        middle: 30.0,
        label: 15.0,
        ticks: 5,
    },
];

const FOOT: f64 = 24.0;
const ROOM_HIGH: f64 = 18.0;

/// Draws them for a desk and a phone.
pub(super) fn draw(text: &mut String, entry: &Entry) {
    let shown: Vec<&Comparison> =
        entry.comparisons.iter().filter(|one| one.interval.is_some()).collect();
    let ends = shown.iter().filter_map(|one| one.interval).flat_map(|(low, high)| [low, high]);
    let bounds = shown.iter().filter_map(|one| bound(&one.bound)).map(|(_, bound)| bound);
    let all: Vec<f64> = ends.chain(bounds).chain([1.0]).filter(|value| *value > 0.0).collect();
    let least = all.iter().copied().fold(f64::INFINITY, f64::min);
    let most = all.iter().copied().fold(0.0, f64::max);
    let axis = Axis::log(least * 0.95, most * 1.05);
    for layout in &LAYOUTS {
        layout.draw(text, &shown, axis);
    }
}

/// Whether it is a lower one, and its value.
fn bound(told: &str) -> Option<(bool, f64)> {
    let (sign, value) = told.split_once(' ')?;
    Some((sign == ">=", value.parse().ok()?))
}

impl Layout {
    fn x(&self, axis: Axis, ratio: f64) -> f64 {
        self.axis.0 + axis.share(ratio).clamp(0.0, 1.0) * (self.axis.1 - self.axis.0)
    }

    fn draw(&self, text: &mut String, shown: &[&Comparison], axis: Axis) {
        let low = shown.len() as f64 * self.row + 4.0;
        let spoken: Vec<String> = shown
            .iter()
            .map(|one| format!("{}: {}", one.when, human::ratio(one.ratio.unwrap_or_default())))
            .collect();
        put(
            text,
            format_args!(
                "<svg class=\"{}\" viewBox=\"0 0 {} {}\" role=\"img\" aria-label=\"Ratios. \
                 {}\">\n",
                self.class,
                self.width,
                low + FOOT,
                escape(&spoken.join("; "))
            ),
        );
        for ratio in axis.ticks(self.ticks) {
            let (x, at) = (self.x(axis, ratio), low + 16.0);
            let class = if (ratio - 1.0).abs() < 1e-9 { "one" } else { "grid" };
            put(
                text,
                format_args!(
                    "<line class=\"{class}\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"0\" \
                     y2=\"{low}\"/><text x=\"{x:.1}\" y=\"{at}\" text-anchor=\"middle\">{} \
                     ×</text>\n",
                    human::tick_count(ratio)
                ),
            );
        }
        for (nth, one) in shown.iter().enumerate() {
            self.row(text, axis, one, nth as f64 * self.row);
        }
        *text += "</svg>\n";
    }

    fn row(&self, text: &mut String, axis: Axis, one: &Comparison, top: f64) {
        let (Some(ratio), Some((low, high))) = (one.ratio, one.interval) else { return };
        let y = top + self.middle;
        put(
            text,
            format_args!("<text x=\"0\" y=\"{}\">{}</text>\n", top + self.label, escape(&one.when)),
        );
        if let Some((lower, value)) = bound(&one.bound) {
            let at = self.x(axis, value);
            let (from, to) = if lower { (at, self.axis.1) } else { (self.axis.0, at) };
            let (high, wide) = (y - ROOM_HIGH / 2.0, (to - from).max(0.0));
            put(
                text,
                format_args!(
                    "<rect class=\"room\" x=\"{from:.1}\" y=\"{high}\" width=\"{wide:.1}\" \
                     height=\"{ROOM_HIGH}\"/><line class=\"bound\" x1=\"{at:.1}\" x2=\"{at:.1}\" \
                     y1=\"{high}\" y2=\"{}\"/>\n",
                    high + ROOM_HIGH
                ),
            );
        }
        let class = match one.outcome {
            Outcome::Holds => "o-holds",
            Outcome::DoesNotHold => "o-fails",
            Outcome::OnBound => "o-near",
            Outcome::Undecided | Outcome::NotMeasured => "o-open",
        };
        let [from, at, to] = [low, ratio, high].map(|ratio| self.x(axis, ratio));
        put(
            text,
            format_args!(
                "<line class=\"sure {class}\" x1=\"{from:.1}\" x2=\"{to:.1}\" y1=\"{y}\" \
                 y2=\"{y}\"/><circle class=\"{class}\" cx=\"{at:.1}\" cy=\"{y}\" r=\"4.5\"/><text \
                 class=\"value\" x=\"{}\" y=\"{}\">{} ×</text>\n",
                self.axis.1 + 14.0,
                y + 4.0,
                human::ratio(ratio)
            ),
        );
    }
}
